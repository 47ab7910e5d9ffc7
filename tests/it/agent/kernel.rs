//! Lines of the kernel log, while NVML is there too: each fault is heard and answered, also one of a GPU that nobody knows.

use super::*;
use crate::gpus::Gpus;

/// Where the imitated GPUs are: `BUSES` of `tests/nvml`.
const KNOWN: [&str; 8] = ["0f", "2d", "44", "5b", "89", "a8", "c0", "d8"];

const NOTE: &str = "//! Note it.\n//!\n//! params:\n//!   node: Node\n//!   gpu: Gpu\n//! scope: none\n\n\
                    note(`${gpu} on ${node}`);\n";
const RULE: &str = "rules:\n  - name: note\n    when: ['alertname=\"GpuXid\"']\n    run: note\n    mode: auto\n    \
                    cooldown: 0s\n    attempts: 1000\n";

/// An agent with eight GPUs made of software, whose kernel log is a file.
async fn with_gpus(place: &Place, engine: &Engine, node: &str) -> (Gpus, Agent) {
    let gpus = Gpus::new("machine h100 gpus 8");
    let library = format!("nvml:\n  library: {}\n  poll: 100ms\n", gpus.library().display());
    place.write_config(node, &library);
    let agent = place.agent(engine, node).await;
    connected(engine, node).await;
    eventually("NVML", async || place.log(node).contains("NVML session started").then_some(())).await;
    (gpus, agent)
}

fn write(place: &Place, node: &str, line: &str) {
    let log = place.folder(node).join("kernel.log");
    let number = std::fs::read_to_string(&log).unwrap().lines().count();
    let mut file = std::fs::File::options().append(true).open(log).unwrap();
    writeln!(file, "3,{},{number},-;{line}", number + 1).unwrap();
}

fn xid(address: &str, code: u32) -> String {
    format!("NVRM: Xid (PCI:{address}): {code}, pid=1, name=x, words of the driver")
}

/// The event of this complaint, and the line of the ledger that says what came of it.
async fn event(engine: &Engine, complaint: &str) -> Option<Value> {
    let answer = engine.get("/api/v1/entries?limit=1000&kind=heard").await?;
    let entries = answer["entries"].as_array()?;
    let mut events = entries.iter().flat_map(|entry| entry["events"].as_array().into_iter().flatten());
    events.find(|event| event["event"]["fingerprint"] == complaint).cloned()
}

#[tokio::test]
async fn each_of_many_xids_of_addresses_that_nvml_does_not_know_is_an_event_that_says_so_and_is_answered() {
    let place = Place::new("", RULE, &[("note", NOTE)]);
    let engine = place.site.start(&[]).await.unwrap();
    let (_gpus, _agent) = with_gpus(&place, &engine, "gpu-1").await;
    // One after another, as in an evening with many faults: each is there before the next one is written.
    for number in 0..28_u32 {
        let (address, code) = match number % 4 {
            // Codes that leave a GPU ill, and such as end by themselves; addresses that nobody knows, and known ones.
            0 => (format!("0000:{}:00", KNOWN[number as usize % 8]), 31 + number),
            1 => (format!("a0b0:{number:02x}:1d"), 79),
            2 => (format!("0000:{number:02x}:1d"), 119),
            _ => (format!("a0b0:fe:{number:02x}"), 94),
        };
        write(&place, "gpu-1", &xid(&address, code));
        let complaint = format!("gpu-1 xid-{code} {address}.0");
        let heard = eventually(&complaint, async || event(&engine, &complaint).await).await;
        let (labels, summary) = (&heard["event"]["labels"], heard["event"]["summary"].as_str().unwrap());
        assert!(summary.contains(&format!("{address}.0")), "{heard}");
        let is_known = number % 4 == 0;
        assert_eq!(labels["gpu_known"] == "no", !is_known, "{heard}");
        assert_eq!(summary.contains("NVML lists no GPU there"), !is_known, "{summary}");
        let answered = heard["runs"].as_array().is_some_and(|runs| !runs.is_empty());
        let reasons = heard["reasons"].as_array().map_or(0, Vec::len);
        assert!(answered || reasons > 0, "neither a run nor a reason: {heard}");
    }
}

async fn open(engine: &Engine) -> Option<u64> {
    engine.get("/api/v1/status").await?["episodes_open"].as_u64()
}

/// What the agent remembers over its own death.
async fn remembered(place: &Place, node: &str, complaints: &[&str]) {
    let memory = place.folder(node).join("data/faults.json");
    eventually("the agent's memory", async || {
        let text = std::fs::read_to_string(&memory).ok()?;
        complaints.iter().all(|complaint| text.contains(complaint)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_over_while_the_agent_was_away_is_told_to_be_over_by_the_next_one() {
    let place = Place::new("", "rules: []\n", &[]);
    let engine = place.site.start(&[]).await.unwrap();
    let (gpus, agent) = with_gpus(&place, &engine, "gpu-1").await;
    gpus.say("gpu 2 recovery reset\ngpu 3 rows failed\ngpu 4 ecc dbe 2");
    // Told by the kernel alone: no look sees it.
    let wish = "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)";
    write(&place, "gpu-1", &format!("NVRM: Xid (PCI:0000:a8:00): 154, {wish}"));
    let all = [
        "recovery-action 0000:44:00.0",
        "row-remap-failed 0000:5b:00.0",
        "ecc-uncorrected 0000:89:00.0",
        "recovery-action 0000:a8:00.0",
    ];
    for complaint in all {
        let fingerprint = format!("gpu-1 {complaint}");
        eventually(complaint, async || event(&engine, &fingerprint).await).await;
    }
    remembered(&place, "gpu-1", &all).await;
    let before = open(&engine).await.unwrap();
    assert_eq!(before, 4);
    agent.kill();
    gpus.say("gpu 2 recovery none\ngpu 3 rows none\ngpu 4 reset");
    let _agent = place.start("gpu-1");
    eventually("the ends", async || (open(&engine).await? == 0).then_some(())).await;
}

#[tokio::test]
async fn a_gpu_that_fell_off_the_bus_is_one_event_although_the_driver_and_nvml_both_say_so() {
    let place = Place::new("", RULE, &[("note", NOTE)]);
    let engine = place.site.start(&[]).await.unwrap();
    let (gpus, _agent) = with_gpus(&place, &engine, "gpu-1").await;
    write(&place, "gpu-1", &xid("0000:44:00", 79));
    gpus.say("gpu 2 lost");
    let complaint = "gpu-1 xid-79 0000:44:00.0";
    eventually(complaint, async || event(&engine, complaint).await).await;
    remembered(&place, "gpu-1", &["gpu-lost 0000:44:00.0"]).await;
    assert_eq!(open(&engine).await, Some(1), "one fault, one episode");
    gpus.say("gpu 2 reset");
    eventually("its end", async || (open(&engine).await? == 0).then_some(())).await;
    let names: Vec<String> = heard(&engine).await.into_iter().map(|(name, _)| name).collect();
    assert!(names.iter().all(|name| !name.contains("gpu-lost")), "{names:?}");
}
