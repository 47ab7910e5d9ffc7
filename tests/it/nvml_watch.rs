//! The watch of the GPUs, against a machine made of software: each finding begun and over by the timeline, calls that hang,
//! GPUs that vanish, drivers that go away, and the verbs beside it.

use crate::gpus::Gpus;
use crate::harness::eventually;
use nightshift::config::{AgentConfig, NvmlConfig};
use nightshift::model::{AgentCommand, CommandStatus, EventStatus, Finding, Outcome, RunId, Severity, Span, Time};
use nightshift::node::{self, Machine};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A watch at work on an imitated machine.
struct Rig {
    gpus: Gpus,
    machine: Machine,
    heard: mpsc::Receiver<Finding>,
    all: Vec<Finding>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

const POLL: Duration = Duration::from_millis(15);
const HANG: Duration = Duration::from_millis(200);

impl Rig {
    fn new(timeline: &str) -> Rig {
        Rig::with(timeline, |_| {})
    }

    fn with(timeline: &str, change: impl FnOnce(&mut NvmlConfig)) -> Rig {
        let gpus = Gpus::new(timeline);
        let mut nvml = NvmlConfig { library: Some(gpus.library()), expected: None, poll: Span(POLL), hang: Span(HANG) };
        change(&mut nvml);
        let data_dir = gpus.machine().with_file_name("data");
        let settings = AgentConfig { nvml, nvidia_smi: gpus.smi(), data_dir, ..AgentConfig::default() };
        let mut machine = Machine::here("gpu-1".to_owned(), Arc::new(settings));
        machine.own = env!("CARGO_BIN_EXE_nightshift").into();
        let (out, heard) = mpsc::channel(256);
        let (stop, stopped) = watch::channel(false);
        let watched = machine.clone();
        let task = tokio::spawn(async move {
            let watcher = node::watchers().find(|watcher| watcher.name() == "nvml").unwrap();
            watcher.watch(&watched, out, stopped).await;
        });
        Rig { gpus, machine, heard, all: Vec::new(), stop, task }
    }

    /// Takes findings in until one fits.
    async fn hear(&mut self, what: &str, fits: impl Fn(&Finding) -> bool) -> Finding {
        let take = async {
            loop {
                let finding = self.heard.recv().await.expect("the watch has ended");
                self.all.push(finding.clone());
                if fits(&finding) {
                    return finding;
                }
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(60), take).await;
        heard.unwrap_or_else(|_| panic!("never heard: {what}; but {:?}", self.story()))
    }

    async fn fires(&mut self, complaint: &str) -> Finding {
        self.hear(complaint, |finding| finding.status == EventStatus::Firing && finding.complaint == complaint).await
    }

    async fn ends(&mut self, complaint: &str) -> Finding {
        self.hear(complaint, |finding| finding.status == EventStatus::Resolved && finding.complaint == complaint).await
    }

    fn story(&self) -> Vec<String> {
        self.all.iter().map(|finding| format!("{:?} {}", finding.status, finding.complaint)).collect()
    }

    async fn ask(&self, verb: &str, args: Value) -> Outcome {
        let Value::Object(args) = args else { panic!("arguments are an object") };
        let command = AgentCommand {
            run: RunId(1),
            step: 1,
            epoch: 1,
            verb: verb.to_owned(),
            args,
            deadline: Time::MAX,
            incarnation: String::new(),
        };
        match node::find(verb).unwrap().perform(&self.machine, &command, &|_| {}).await {
            CommandStatus::Ended { outcome } => outcome,
            CommandStatus::Working { why, .. } => panic!("still working: {why}"),
        }
    }

    async fn get(&self, verb: &str, args: Value) -> Value {
        match self.ask(verb, args).await {
            Outcome::Ok(value) => value,
            Outcome::Failed(failure) => panic!("{verb}: {failure:?}"),
        }
    }

    /// The watch has begun and looked at every GPU.
    async fn looked(&self, count: usize) {
        eventually("the first looks", async || {
            let Outcome::Ok(health) = self.ask("gpu::health", json!({})).await else { return None };
            let seen = health["gpus"].as_array()?.iter().filter(|gpu| gpu["seen"]["pcie"].is_object()).count();
            (seen == count).then_some(())
        })
        .await;
    }

    async fn end(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(Duration::from_secs(30), self.task).await.expect("the watch ends when told").unwrap();
    }
}

/// The threads of this process whose name begins so.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)).count()
}

#[tokio::test]
async fn each_finding_begins_and_ends_by_the_timeline() {
    let mut rig = Rig::new("machine h100 gpus 2");
    rig.looked(2).await;
    for (complaint, ill, well, action) in [
        ("recovery-action", "recovery reset", "recovery none", ""),
        ("ecc-uncorrected", "ecc dbe 2", "reset", "reset"),
        ("row-remap-pending", "rows pending", "rows none", "reset"),
        ("row-remap-failed", "rows failed", "rows none", "support"),
        ("row-remap-banks", "rows banks 639 0 0 0 1", "rows banks 640 0 0 0 0", "support"),
        ("sram-threshold", "sram threshold on", "sram threshold off", "support"),
        ("thermal-throttle", "throttle hw-thermal hw-slowdown", "throttle none", "tell"),
        ("power-throttle", "throttle power-brake", "throttle none", "tell"),
        ("hot", "temp 88", "temp 40", "tell"),
        ("memory-hot", "memtemp 99", "memtemp 50", "tell"),
        ("margin", "margin -3", "margin 20", "tell"),
        ("nvlink-down", "nvlink 3 down", "nvlink 3 up", "reset"),
        ("nvlink-errors", "nvlink 3 recovery 1", "", "tell"),
        ("pcie-replays", "pcie replay 50", "", "tell"),
        ("pcie-width", "pcie width 8", "pcie width 16", "support"),
        ("fabric", "fabric state not-started", "fabric state completed", "tell"),
        ("gpu-lost", "lost", "found", "reboot"),
        ("gpu-reset-required", "reset-required", "reset", "reset"),
        ("nvml-error", "error nvmlDeviceGetTemperature 999", "error nvmlDeviceGetTemperature none", "tell"),
    ] {
        let complaint = format!("{complaint} 0000:2d:00.0");
        rig.gpus.say(&format!("gpu 1 {ill}"));
        let finding = rig.fires(&complaint).await;
        assert_eq!(finding.gpu.as_ref().unwrap().index, Some(1));
        assert_eq!(finding.labels.get("action").map_or("", String::as_str), action, "{complaint}");
        if !well.is_empty() {
            rig.gpus.say(&format!("gpu 1 {well}"));
        }
        rig.ends(&complaint).await;
    }
    let (fired, ended): (Vec<&Finding>, Vec<&Finding>) =
        rig.all.iter().partition(|finding| finding.status == EventStatus::Firing);
    assert_eq!(fired.len(), ended.len(), "each once, none twice: {:?}", rig.story());
    rig.end().await;
}

#[tokio::test]
async fn what_only_blackwell_has_is_watched_there() {
    let mut rig = Rig::new("machine b200 gpus 1");
    rig.looked(1).await;
    rig.gpus.say("gpu 0 repair channel\ngpu 0 nvlink 4 recovery 2");
    rig.fires("repair-pending 0000:0f:00.0").await;
    rig.gpus.say("gpu 0 nvlink 5 replay 2");
    rig.hear("links by their scope", |finding| finding.complaint.starts_with("nvlink-errors")).await;
    rig.gpus.say("gpu 0 repair none");
    rig.ends("repair-pending 0000:0f:00.0").await;
    rig.end().await;
}

#[tokio::test]
async fn an_a100_without_margins_and_fabric_is_watched_with_what_it_has() {
    let mut rig = Rig::new("machine a100 gpus 1");
    eventually("a look", async || {
        let Outcome::Ok(health) = rig.ask("gpu::health", json!({})).await else { return None };
        (health["gpus"][0]["seen"]["temperature"] == 45).then_some(())
    })
    .await;
    rig.gpus.say("gpu 0 mig-pending on");
    assert_eq!(rig.fires("mig-pending 0000:0f:00.0").await.severity, Severity::Info);
    assert_eq!(rig.story().len(), 1, "{:?}", rig.story());
    rig.end().await;
}

#[tokio::test]
async fn an_event_keeps_its_64_bits_and_the_instances_and_asks_for_a_look_at_once() {
    // Polls an hour apart: what is heard is heard by events.
    let mut rig = Rig::with("machine h100 gpus 2", |nvml| nvml.poll = Span::minutes(60));
    rig.looked(2).await;
    // The set is registered a moment after the first look, so the first event is repeated until it is heard.
    let gpus = &rig.gpus;
    let mut number = 0;
    let first = eventually("the first event", async || {
        number += 1;
        gpus.say(&format!("gpu 1 xid {number} gi 3 ci 1"));
        tokio::time::timeout(Duration::from_millis(50), rig.heard.recv()).await.ok().flatten()
    })
    .await;
    assert_eq!((first.labels["GPU_I_ID"].as_str(), first.labels["GPU_CI_ID"].as_str()), ("3", "1"));
    assert_eq!(first.labels["alertname"], "GpuXid");
    rig.gpus.say("gpu 0 event 0x2000\ngpu 0 event 0x4000\ngpu 1 event 0x200");
    for complaint in ["poison-fatal 0000:0f:00.0", "gpu-unavailable 0000:0f:00.0", "ecc-storm 0000:2d:00.0"] {
        rig.fires(complaint).await;
    }
    rig.gpus.say("gpu 0 recovery drain-reset");
    let advice = rig.fires("recovery-action 0000:0f:00.0").await;
    assert_eq!(advice.labels["recovery"], "drain-and-reset");
    rig.end().await;
}

#[tokio::test]
async fn a_gpu_that_hangs_is_a_finding_and_the_others_are_watched_on() {
    let mut rig = Rig::new("machine h100 gpus 4");
    rig.looked(4).await;
    let before = threads("nvml");
    rig.gpus.say("gpu 2 hang");
    let finding = rig.fires("gpu-hangs 0000:44:00.0").await;
    assert_eq!((finding.severity, finding.labels["action"].as_str()), (Severity::Critical, "reboot"));
    rig.gpus.say("gpu 3 rows pending");
    rig.fires("row-remap-pending 0000:5b:00.0").await;
    rig.gpus.say("gpu 3 rows none");
    rig.ends("row-remap-pending 0000:5b:00.0").await;
    let failure = rig.ask("gpu::processes", json!({"gpu": 2})).await;
    assert!(matches!(&failure, Outcome::Failed(why) if format!("{why:?}").contains("0000:44:00.0")), "{failure:?}");
    assert_eq!(rig.get("gpu::recovery_action", json!({"gpu": "3"})).await, json!("none"));
    let refused = rig.machine.nvml.release().await.unwrap_err();
    assert!(refused.contains("does not come back"), "{refused}");
    // Other tests of this process have threads of that name, so only the order of magnitude is ours to say.
    assert!(threads("nvml") < before + 40, "threads pile up");
    rig.gpus.say("gpu 2 wake");
    rig.ends("gpu-hangs 0000:44:00.0").await;
    assert_eq!(rig.story().iter().filter(|said| said.contains("hangs")).count(), 2, "{:?}", rig.story());
    rig.end().await;
}

#[tokio::test]
async fn a_library_that_hangs_from_the_start_is_a_finding_and_not_the_end() {
    let mut rig = Rig::new("machine h100 gpus 2\ncall nvmlInit_v2 hang");
    rig.fires("nvml-hangs").await;
    let failure = rig.ask("gpu::health", json!({})).await;
    assert!(matches!(failure, Outcome::Failed(_)));
    rig.gpus.say("call nvmlInit_v2 wake");
    rig.ends("nvml-hangs").await;
    rig.looked(2).await;
    rig.end().await;
}

#[tokio::test]
async fn a_wait_for_events_that_hangs_or_fails_is_told_and_the_polls_go_on() {
    let mut rig = Rig::new("machine h100 gpus 2");
    rig.looked(2).await;
    for (ill, well) in [
        ("call nvmlEventSetWait_v2 hang", "call nvmlEventSetWait_v2 wake"),
        ("call nvmlEventSetWait_v2 unknown", "call nvmlEventSetWait_v2 none"),
    ] {
        rig.gpus.say(ill);
        rig.fires("nvml-events").await;
        rig.gpus.say("gpu 1 rows pending");
        rig.fires("row-remap-pending 0000:2d:00.0").await;
        rig.gpus.say("gpu 1 rows none");
        rig.ends("row-remap-pending 0000:2d:00.0").await;
        rig.gpus.say(well);
        rig.ends("nvml-events").await;
    }
    rig.end().await;
}

#[tokio::test]
async fn a_storm_of_events_keeps_nothing_else_away() {
    let mut rig = Rig::new("machine h100 gpus 2");
    rig.looked(2).await;
    rig.gpus.say(&vec!["gpu 0 xid 94"; 5_000].join("\n"));
    rig.gpus.say("gpu 1 rows pending");
    rig.fires("row-remap-pending 0000:2d:00.0").await;
    assert_eq!(rig.get("gpu::recovery_action", json!({"gpu": 1})).await, json!("none"));
    rig.end().await;
}

#[tokio::test]
async fn a_gpu_that_falls_off_the_bus_is_missed_and_the_wait_for_events_goes_on() {
    let mut rig = Rig::new("machine h100 gpus 4");
    rig.looked(4).await;
    rig.gpus.say("gpu 1 off-bus\nwait error lost");
    rig.fires("gpu-lost 0000:2d:00.0").await;
    let missing = rig.hear("the count", |finding| finding.complaint == "gpus-missing").await;
    assert!(missing.summary.contains("counts 3 GPUs, 4 are expected"), "{}", missing.summary);
    let gpus = &rig.gpus;
    let mut number = 0;
    eventually("events of the others", async || {
        number += 1;
        gpus.say(&format!("gpu 3 xid {number}"));
        let heard = tokio::time::timeout(Duration::from_millis(50), rig.heard.recv()).await.ok().flatten()?;
        heard.complaint.starts_with("xid-").then_some(())
    })
    .await;
    rig.gpus.say("gpu 1 on-bus");
    rig.ends("gpus-missing").await;
    rig.end().await;
}

#[tokio::test]
async fn a_node_with_fewer_gpus_than_expected_says_so_from_the_start() {
    let mut rig = Rig::with("machine h100 gpus 7", |nvml| nvml.expected = Some(8));
    let missing = rig.fires("gpus-missing").await;
    assert_eq!((missing.severity, missing.gpu), (Severity::Critical, None));
    rig.end().await;
}

#[tokio::test]
async fn a_gpu_that_is_lost_from_the_start_is_told_by_its_index_and_taken_in_when_it_is_back() {
    let mut rig = Rig::new("machine h100 gpus 2\ngpu 1 lost");
    rig.fires("gpu-lost 1").await;
    rig.gpus.say("gpu 1 found");
    rig.ends("gpu-lost 1").await;
    rig.looked(2).await;
    rig.end().await;
}

#[tokio::test]
async fn a_driver_that_is_reloaded_costs_a_session_and_no_complaint() {
    let mut rig = Rig::new("machine h100 gpus 2\ngpu 0 rows pending");
    rig.fires("row-remap-pending 0000:0f:00.0").await;
    rig.looked(2).await;
    for code in ["", " 1", " 999"] {
        rig.gpus.say(&format!("driver reload{code}\ngpu 0 rows none"));
        rig.ends("row-remap-pending 0000:0f:00.0").await;
        rig.gpus.say("gpu 0 rows pending");
        rig.fires("row-remap-pending 0000:0f:00.0").await;
    }
    assert!(!rig.story().iter().any(|said| said.contains("nvml-unavailable")), "{:?}", rig.story());
    rig.end().await;
}

#[tokio::test]
async fn an_upgraded_driver_is_told_until_its_library_is_there_and_then_that_is_loaded() {
    let mut rig = Rig::new("machine h100 gpus 2");
    rig.looked(2).await;
    rig.gpus.say("driver version 580.95.05");
    let finding = rig.fires("nvml-unavailable").await;
    assert!(finding.summary.contains("do not match (18)"), "{}", finding.summary);
    let failure = format!("{:?}", rig.ask("gpu::health", json!({})).await);
    assert!(failure.contains("do not match"), "{failure}");
    rig.gpus.say("library version 580.95.05");
    rig.ends("nvml-unavailable").await;
    rig.looked(2).await;
    assert_eq!(rig.get("gpu::health", json!({})).await["driver"], "580.95.05");
    rig.end().await;
}

#[tokio::test]
async fn no_library_is_a_line_in_the_log_and_a_finding_only_where_gpus_are_expected() {
    let missing = |nvml: &mut NvmlConfig| nvml.library = Some("/nowhere/libnvidia-ml.so.1".into());
    let mut rig = Rig::with("machine h100 gpus 1", |nvml| {
        missing(nvml);
        nvml.expected = Some(8);
    });
    rig.fires("nvml-unavailable").await;
    rig.end().await;
    let mut rig = Rig::with("machine h100 gpus 1", missing);
    let answer = eventually("an answer in words", async || match rig.ask("gpu::health", json!({})).await {
        Outcome::Failed(failure) if format!("{failure:?}").contains("cannot be loaded") => Some(()),
        _ => None,
    });
    answer.await;
    assert!(rig.heard.try_recv().is_err());
    rig.end().await;
}

#[tokio::test]
async fn the_verbs_say_how_the_gpus_are_and_who_computes_on_them() {
    let rig =
        Rig::new("machine h100 gpus 2\ngpu 0 mig on\ngpu 0 gi 1 profile 9 start 4\ngpu 0 ci 1 0 slices 3 start 0");
    rig.gpus.say("gpu 1 process 4711 vllm 30000\ngpu 0 process 12 tgi 100 gi 1 ci 0\ngpu 1 recovery reboot");
    rig.looked(2).await;
    eventually("the advice to be seen", async || {
        let health = rig.get("gpu::health", json!({"gpu": "0000:2d:00.0"})).await;
        (health["gpus"][0]["ok"] == false).then_some(())
    })
    .await;
    let health = rig.get("gpu::health", json!({})).await;
    assert_eq!(health["driver"], "570.133.20");
    let slice = &health["gpus"][0]["seen"]["mig"]["devices"][0];
    assert_eq!((slice["gpu_instance"].clone(), slice["memory_mib"].clone()), (json!(1), json!(40_448)));
    assert_eq!(rig.get("gpu::recovery_action", json!({"gpu": 1})).await, json!("node-reboot"));
    assert_eq!(rig.get("gpu::recovery_action", json!({"gpu": "00000000:0F:00.0"})).await, json!("none"));
    assert_eq!(
        rig.get("gpu::processes", json!({"gpu": "GPU-4e564d4c-0000-4000-8000-000000000001"})).await,
        json!([{"gpu": 1, "pid": 4711, "name": "vllm", "memory_mib": 30_000}])
    );
    assert_eq!(rig.get("gpu::processes", Value::Object(Map::new())).await.as_array().unwrap().len(), 2);
    for args in [json!({"gpu": 7}), json!({"gpu": "GPU-nobody"}), json!({"gpu": [1]})] {
        assert!(matches!(rig.ask("gpu::processes", args).await, Outcome::Failed(_)));
    }
    rig.end().await;
}

#[tokio::test]
async fn a_reset_finds_the_library_released_and_the_watch_takes_it_back() {
    let mut rig = Rig::new("machine h100 gpus 2\ngpu 1 reset-required");
    rig.fires("gpu-reset-required 0000:2d:00.0").await;
    let outcome = rig.ask("gpu::reset", json!({"gpu": "0000:2d:00.0"})).await;
    assert!(matches!(&outcome, Outcome::Ok(value) if value["changed"] == true), "{outcome:?}");
    rig.ends("gpu-reset-required 0000:2d:00.0").await;
    rig.looked(2).await;
    rig.end().await;
}

#[tokio::test]
async fn while_it_is_released_nobody_has_the_library_open() {
    let rig = Rig::new("machine h100 gpus 1");
    rig.looked(1).await;
    let clients = rig.gpus.machine().with_file_name("clients");
    let open = || std::fs::read_dir(&clients).unwrap().count();
    assert_eq!(open(), 1);
    let released = rig.machine.nvml.release().await.unwrap();
    assert_eq!(open(), 0);
    let again = rig.machine.nvml.release().await.unwrap();
    assert_eq!(open(), 0);
    let failure = format!("{:?}", rig.ask("gpu::health", json!({})).await);
    assert!(failure.contains("released"), "{failure}");
    drop(again);
    assert_eq!(open(), 0, "the first guard still holds");
    drop(released);
    rig.looked(1).await;
    assert_eq!(open(), 1);
    rig.end().await;
}
