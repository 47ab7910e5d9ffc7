//! What an agent hears arrives at the engine, once, whatever dies meanwhile.

use super::*;

fn expected(node: &str, names: &[String]) -> Vec<(String, String)> {
    names.iter().map(|name| (format!("{node} {name}"), node.to_owned())).collect()
}

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|at| format!("xid-79 {at}")).collect()
}

#[tokio::test]
async fn findings_arrive_once_and_in_order_although_the_engine_and_the_agent_are_killed() {
    let place = Place::new("", "rules: []\n", &[]);
    let engine = place.site.start(&[]).await.unwrap();
    let mut agent = place.agent(&engine, "gpu-1").await;
    agent.hears(names(0..3));
    eventually("three findings", async || (heard(&engine).await.len() == 3).then_some(())).await;

    engine.kill();
    agent.hears(names(3..400));
    let waiting = || place.folder("gpu-1").join("data/spool");
    eventually("the spool", async || {
        let bytes = files(&waiting()).into_iter().map(|path| std::fs::read_to_string(path).unwrap_or_default());
        bytes.collect::<String>().contains("xid-79 399").then_some(())
    })
    .await;
    // The agent dies too, with everything in its spool.
    agent.kill();
    let mut agent = place.start("gpu-1");
    agent.hears(names(400..410));

    let engine = place.site.start(&[]).await.unwrap();
    eventually("all findings", async || (heard(&engine).await.len() >= 410).then_some(())).await;
    let mut all = heard(&engine).await;
    assert_eq!(all.split_off(400), expected("gpu-1", &names(400..410)), "{}", place.log("gpu-1"));
    assert_eq!(all, expected("gpu-1", &names(0..400)));
    assert_eq!(gaps(&engine).await, [""; 0]);
    let open = engine.get("/api/v1/status").await.unwrap()["episodes_open"].as_u64();
    assert_eq!(open, Some(410), "nothing was heard twice");
}

#[tokio::test]
async fn what_a_full_spool_dropped_is_a_gap_with_its_count_in_the_ledger() {
    let place = Place::new("", "rules: []\n", &[]);
    place.write_config("gpu-1", "spool_mib: 1\n");
    let engine = place.site.start(&[]).await.unwrap();
    let mut agent = place.agent(&engine, "gpu-1").await;
    connected(&engine, "gpu-1").await;
    engine.kill();
    agent.hears(names(0..4_500));
    let engine = place.site.start(&[]).await.unwrap();
    let last = expected("gpu-1", &names(4_499..4_500));
    eventually("the newest", async || heard(&engine).await.ends_with(&last).then_some(())).await;
    let gaps = gaps(&engine).await;
    assert!(gaps.len() == 1 && gaps[0].contains("findings of the agent on gpu-1 never came"), "{gaps:?}");
    let lost: usize = gaps[0].split(' ').next().unwrap().parse().unwrap();
    let came = heard(&engine).await;
    assert_eq!(came, expected("gpu-1", &names(4_500 - came.len()..4_500)), "the newest are whole and in order");
    // The notices of the overflow have numbers too, so at least as many are missing as were findings.
    assert!(lost >= 4_500 - came.len() && lost < 4_500 - came.len() + 50, "{lost} lost, {} came", came.len());
}

#[tokio::test]
async fn on_a_full_disk_findings_go_on_from_memory_and_it_is_said() {
    let place = Place::new("", "rules: []\n", &[]);
    let engine = place.site.start(&[]).await.unwrap();
    let joined = place.join("gpu-1", &token(&engine, json!({})).await);
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    let disk = Disk::mount(&place.folder("gpu-1").join("data/spool"));
    let mut agent = place.start("gpu-1");
    connected(&engine, "gpu-1").await;
    disk.fill();
    engine.kill();
    agent.hears(names(0..100));
    eventually("the agent's word", async || place.log("gpu-1").contains("memory").then_some(())).await;
    let engine = place.site.start(&[]).await.unwrap();
    eventually("all findings", async || (heard(&engine).await.len() == 100).then_some(())).await;
    eventually("the list says so", async || {
        let trouble = listed(&engine, "gpu-1").await?["standing"]["trouble"].to_string();
        trouble.contains("memory").then_some(())
    })
    .await;
    disk.empty();
    eventually("the disk is used again", async || {
        listed(&engine, "gpu-1").await.filter(|agent| agent["standing"]["trouble"].is_null())
    })
    .await;
    assert_eq!(heard(&engine).await, expected("gpu-1", &names(0..100)));
    drop(agent);
}

#[tokio::test]
async fn a_silent_agent_is_an_incident_that_ends_when_it_speaks_again() {
    let rules = "rules:\n  - name: silent\n    when: ['alertname=\"NightshiftAgentSilent\"']\n    tell: [log]\n";
    let place = Place::new("channels:\n  log:\n    kind: log\n", rules, &[]);
    let engine = place.site.start(&[]).await.unwrap();
    let agent = place.agent(&engine, "gpu-1").await;
    connected(&engine, "gpu-1").await;
    agent.kill();
    let incidents = async |open: bool| {
        let answer = engine.get(&format!("/api/v1/incidents?open={open}")).await.unwrap();
        answer["incidents"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["title"].as_str().unwrap().contains("silent"))
            .count()
    };
    eventually("an incident", async || (incidents(true).await == 1).then_some(())).await;
    let silent = "nightshift_agents{state=\"silent\"} 1";
    eventually("the level of silent agents", async || engine.text("/metrics").await?.contains(silent).then_some(()))
        .await;
    let _agent = place.start("gpu-1");
    eventually("its end", async || (incidents(true).await == 0).then_some(())).await;
    assert_eq!(incidents(false).await, 1);
}

#[tokio::test]
async fn the_agent_inside_the_engine_needs_no_network_and_is_listed() {
    let place = Place::new("agent:\n  node: this-one\n", "rules: []\n", &[]);
    let engine = place.site.start_with(&["--with-agent"], &[]).await.unwrap();
    let here = |agent: &Value| agent["connected"] == true;
    let agent = eventually("the agent inside", async || listed(&engine, "this-one").await.filter(here)).await;
    assert_eq!((agent["how"].as_str(), agent["connected"].as_bool()), (Some("inside"), Some(true)));
    assert_eq!(engine.stop(), Some(0));
}

/// A small disk of one's own, as root.
pub struct Disk(PathBuf);

impl Disk {
    pub fn mount(at: &Path) -> Disk {
        Disk::of(at, "64k")
    }

    pub fn of(at: &Path, size: &str) -> Disk {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status().unwrap();
        assert!(mounted.success(), "this test mounts a small disk, which needs root");
        Disk(at.to_owned())
    }

    /// Takes all the room that there is, also where it was filled before.
    pub fn fill(&self) {
        let mut file = std::fs::File::options().create(true).append(true).open(self.0.join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    pub fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}
