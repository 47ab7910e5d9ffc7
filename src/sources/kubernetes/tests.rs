//! The decoders over what an API server shows, and the board over time.
//!
//! Invariant: a fault is heard once, its end once, and a storm is bounded.

use super::*;
use crate::model::{EventStatus, Subject};
use crate::world::{ConditionSeen, ContainerSeen, LeaseSeen, Node, Pod, WatchEvent};
use serde_json::json;

fn source() -> SourceConfig {
    serde_json::from_value(json!({ "kind": "kubernetes", "namespaces": ["platform"] })).unwrap()
}

fn at(second: i64) -> Time {
    Time::from_second(1_700_000_000 + second).unwrap()
}

fn gpu_node(conditions: &[(&str, &str)], left: u32) -> NodeSeen {
    let condition = |(kind, status): &(&str, &str)| ConditionSeen {
        kind: (*kind).to_owned(),
        status: (*status).to_owned(),
        reason: "Why".to_owned(),
        message: String::new(),
        since: Some(at(-60)),
    };
    NodeSeen {
        node: Node {
            name: "gpu-1".to_owned(),
            uid: String::new(),
            resource_version: "1".to_owned(),
            labels: [].into(),
            annotations: [].into(),
            unschedulable: false,
            taints: vec![],
            taints_sent: vec![],
            ready: true,
            boot_id: String::new(),
            gpus: 8,
            gpus_allocatable: left,
        },
        conditions: conditions.iter().map(condition).collect(),
        devices: vec![("nvidia.com/gpu".to_owned(), 8, left)],
    }
}

fn llm_pod(namespace: &str, gpus: u32, waiting: &str, ended: &str, restarts: u32) -> PodSeen {
    let labels = [("pod-template-hash".to_owned(), "5d4f".to_owned())].into();
    PodSeen {
        pod: Pod {
            resource_version: String::new(),
            ip: String::new(),
            marks: [].into(),
            namespace: namespace.to_owned(),
            name: "llm-5d4f-x".to_owned(),
            uid: "u".to_owned(),
            node: "gpu-1".to_owned(),
            phase: "Running".to_owned(),
            ready: false,
            terminating: false,
            labels,
            owner: Some(("ReplicaSet".to_owned(), "llm-5d4f".to_owned())),
            mirror: false,
            empty_dir: false,
            gpus,
            priority: 0,
        },
        containers: vec![ContainerSeen {
            name: "vllm".to_owned(),
            restarts,
            waiting: waiting.to_owned(),
            message: String::new(),
            ended: ended.to_owned(),
            ended_at: (!ended.is_empty()).then(|| at(-5)),
        }],
    }
}

fn names(complaints: &[ObjectCondition]) -> Vec<&'static str> {
    complaints.iter().map(|complaint| complaint.name).collect()
}

#[test]
fn a_condition_is_a_fault_only_where_it_is_known_to_be_one() {
    let check = |kind: &str, status: &str, expect: &[&str]| {
        assert_eq!(names(&node(&gpu_node(&[(kind, status)], 8))), expect, "{kind}={status}");
    };
    check("Ready", "True", &[]);
    check("Ready", "Unknown", &["KubeNodeNotReady"]);
    check("Ready", "False", &["KubeNodeNotReady"]);
    for kind in NVSENTINEL.iter().chain(&PROBLEM_DETECTOR).chain(&KUBELET) {
        check(kind, "True", &["NodeConditionFault"]);
        check(kind, "False", &[]);
        check(kind, "Unknown", &[]);
    }
    check("InfiniBandStateCheck", "True", &["NodeConditionFault"]);
    check(NIGHTSHIFT_CONDITION, "True", &[]);
    check("SomethingWellKnownElsewhere", "True", &[]);
}

#[test]
fn lost_devices_and_taints_of_others_are_faults() {
    assert_eq!(names(&node(&gpu_node(&[], 6))), ["GpuCapacityLost"]);
    let mut seen = gpu_node(&[], 8);
    seen.node.taints.push(("nvidia.com/gpu-xid-error".into(), "true".into(), "NoSchedule".into()));
    seen.node.taints.push(("example.com/mine".into(), "true".into(), "NoSchedule".into()));
    assert_eq!(names(&node(&seen)), ["NodeTaintFault"]);
    let mut seen = gpu_node(&[], 0);
    seen.devices = vec![];
    assert_eq!(names(&node(&seen)), Vec::<&str>::new(), "nobody says that there should be any");
    seen.node.labels.insert("nvidia.com/gpu.count".into(), "8".into());
    assert_eq!(node(&seen)[0].summary, "node gpu-1 offers 0 of its 8 nvidia.com/gpu");
}

#[test]
fn a_pod_is_heard_if_it_holds_gpus_or_is_named() {
    let ours = |namespace, gpus| is_ours(&llm_pod(namespace, gpus, "", "", 0), &source());
    assert!(ours("prod", 1) && ours("platform", 0) && !ours("prod", 0));
    let check = |waiting: &str, ended: &str, expect: &[&str]| {
        assert_eq!(names(&pod(&llm_pod("prod", 1, waiting, ended, 2), at(0))), expect, "{waiting} {ended}");
    };
    check("", "", &[]);
    check("ContainerCreating", "", &[]);
    check("CrashLoopBackOff", "Error", &["PodCrashLooping"]);
    check("CrashLoopBackOff", "OOMKilled", &["PodCrashLooping", "PodOomKilled"]);
    check("ErrImagePull", "", &["PodImagePullFailed"]);
    let late = pod(&llm_pod("prod", 1, "", "OOMKilled", 2), at(0) + limits::WARNING_QUIET);
    assert_eq!(names(&late), Vec::<&str>::new(), "long ago");
}

/// What the store is told in one pass: name and status, and that it took it.
fn pass(board: &mut ConditionTracker, now: Time) -> Vec<(String, EventStatus)> {
    let (events, _) = board.take(100, now);
    board.told(&events, now);
    events.iter().map(|event| (event.name().to_owned(), event.status)).collect()
}

#[test]
fn a_fault_is_told_once_again_after_a_while_and_its_end_once() {
    let mut board = ConditionTracker::new("k8s", &source(), "eu");
    board.hear_node(&WatchEvent::Is(gpu_node(&[("GpuMemWatch", "True")], 8)), at(0));
    let (events, _) = board.take(100, at(0));
    assert_eq!(events[0].subject, Subject { cluster: Some("eu".into()), ..Subject::node("gpu-1") });
    assert_eq!((events[0].starts_at, events[0].labels.get("condition")), (at(-60), "GpuMemWatch"));
    // The store did not take it, so it is told again; then it is not, until it must be repeated.
    let told = ("NodeConditionFault".to_owned(), EventStatus::Firing);
    assert_eq!(pass(&mut board, at(1)), std::slice::from_ref(&told));
    board.hear_node(&WatchEvent::Is(gpu_node(&[("GpuMemWatch", "True")], 8)), at(2));
    assert_eq!(pass(&mut board, at(2)), []);
    assert_eq!(pass(&mut board, at(3 * 3_600)), [told]);
    board.hear_node(&WatchEvent::Is(gpu_node(&[("GpuMemWatch", "False")], 8)), at(4 * 3_600));
    assert_eq!(pass(&mut board, at(4 * 3_600)), [("NodeConditionFault".to_owned(), EventStatus::Resolved)]);
    assert_eq!(pass(&mut board, at(9 * 3_600)), []);
    assert!(board.is_empty());
}

#[test]
fn what_went_while_a_watch_was_broken_is_over_once_the_list_is_whole() {
    let mut board = ConditionTracker::new("k8s", &source(), "");
    board.hear_node(&WatchEvent::Restart, at(0));
    board.hear_node(&WatchEvent::Is(gpu_node(&[("KernelDeadlock", "True")], 8)), at(0));
    board.hear_node(&WatchEvent::Whole, at(0));
    assert_eq!(pass(&mut board, at(0)).len(), 1);
    board.hear_node(&WatchEvent::Broken(crate::world::WorldError::Unavailable("gone".into())), at(1));
    assert_eq!(pass(&mut board, at(1)), [], "silence is no recovery");
    board.hear_node(&WatchEvent::Restart, at(2));
    assert_eq!(pass(&mut board, at(2)), [], "half a list is none either");
    board.hear_node(&WatchEvent::Whole, at(3));
    assert_eq!(pass(&mut board, at(3)), [("NodeConditionFault".to_owned(), EventStatus::Resolved)]);
}

#[test]
fn a_crash_loop_does_not_end_between_two_crashes() {
    let mut board = ConditionTracker::new("k8s", &source(), "");
    board.hear_pod(&WatchEvent::Is(llm_pod("prod", 1, "CrashLoopBackOff", "Error", 3)), at(0), at(0));
    let (events, _) = board.take(9, at(0));
    let labels = ["namespace", "pod", "node", "workload", "container"].map(|name| events[0].labels.get(name));
    assert_eq!(labels, ["prod", "llm-5d4f-x", "gpu-1", "llm", "vllm"]);
    board.told(&events, at(0));
    board.hear_pod(&WatchEvent::Is(llm_pod("prod", 1, "", "Error", 4)), at(10), at(10));
    assert_eq!(pass(&mut board, at(11)), []);
    board.hear_pod(&WatchEvent::Is(llm_pod("prod", 1, "CrashLoopBackOff", "Error", 4)), at(20), at(20));
    board.hear_pod(&WatchEvent::Is(llm_pod("prod", 1, "", "Error", 4)), at(30), at(30));
    assert_eq!(pass(&mut board, at(30) + limits::POD_CALM), [("PodCrashLooping".to_owned(), EventStatus::Resolved)]);
}

fn said(no: usize) -> EventSeen {
    EventSeen {
        name: format!("gpu-{no}.1"),
        namespace: "default".to_owned(),
        kind: "Node".to_owned(),
        object_namespace: String::new(),
        object: format!("gpu-{no}"),
        reason: "OOMKilling".to_owned(),
        message: String::new(),
        count: 1,
        at: Some(at(0)),
        reporter: "kernel-monitor".to_owned(),
    }
}

#[test]
fn a_storm_of_warnings_is_bounded_and_says_what_was_left_out() {
    let mut board = ConditionTracker::new("k8s", &source(), "");
    for no in 0..5_000 {
        board.hear_warning(&WatchEvent::Is(said(no)), at(0), at(0));
        board.hear_warning(&WatchEvent::Is(said(no)), at(0), at(0));
    }
    let (events, gaps) = board.take(10_000, at(0));
    assert_eq!(events.len(), limits::WARNINGS_PER_MINUTE);
    assert_eq!(gaps.len(), 1);
    board.told(&events, at(0));
    // Not repeated, they are over after a while.
    let (events, _) = board.take(10_000, at(0) + limits::WARNING_QUIET);
    assert!(events.len() == limits::WARNINGS_PER_MINUTE && events.iter().all(|e| e.status == EventStatus::Resolved));
}

/// The store is busy, or its disk is full: what was left out by then is said with the next alerts that it takes.
#[test]
fn what_was_left_out_is_said_until_the_store_has_it() {
    let mut board = ConditionTracker::new("k8s", &source(), "");
    let many = limits::WARNINGS_PER_MINUTE + 7;
    (0..many).for_each(|no| board.hear_warning(&WatchEvent::Is(said(no)), at(0), at(0)));
    let left_out = |gaps: Vec<String>| gaps.first().map(|gap| gap.split(' ').next().unwrap().parse::<usize>().unwrap());
    let (_, refused) = board.take(10_000, at(0));
    assert_eq!(left_out(refused), Some(7));
    board.hear_warning(&WatchEvent::Is(said(many)), at(1), at(1));
    let (events, gaps) = board.take(10_000, at(1));
    assert_eq!(left_out(gaps), Some(8), "with those that came since");
    board.hear_warning(&WatchEvent::Is(said(many + 1)), at(2), at(2));
    board.told(&events, at(2));
    assert_eq!(left_out(board.take(10_000, at(2)).1), Some(1), "one came while the others were on their way");
    board.told(&[], at(2));
    assert_eq!(left_out(board.take(10_000, at(2)).1), None);
}

#[test]
fn a_warning_is_heard_although_our_clock_is_an_hour_ahead_of_the_clusters() {
    let mut board = ConditionTracker::new("k8s", &source(), "");
    board.hear_warning(&WatchEvent::Is(said(1)), at(3_600), at(1));
    assert_eq!(pass(&mut board, at(3_600)), [("KubernetesWarning".to_owned(), EventStatus::Firing)]);
    // And it is over a quarter of an hour later, not at once.
    assert_eq!(pass(&mut board, at(3_660)), []);
}

#[test]
fn warnings_about_strangers_old_ones_and_our_own_are_not_heard() {
    let hears = |seen: EventSeen| warning(&seen, |_, name| name == "llm-0", at(0)).is_some();
    assert!(hears(said(1)));
    let pod = |name: &str| EventSeen { kind: "Pod".into(), object: name.into(), ..said(1) };
    assert!(hears(pod("llm-0")) && !hears(pod("web-0")));
    assert!(!hears(EventSeen { kind: "Deployment".into(), ..said(1) }));
    assert!(!hears(EventSeen { reporter: "nightshift/prod".into(), ..said(1) }));
    assert!(!hears(EventSeen { at: Some(at(-86_400)), ..said(1) }));
    assert!(hears(EventSeen { at: Some(at(86_400)), ..said(1) }), "their clock is ahead");
}

#[test]
fn a_kubelet_is_silent_by_our_clock_whatever_its_own_says() {
    let mut board = ConditionTracker::new("k8s", &source(), "");
    let lease = |renewed: &str| vec![LeaseSeen { name: "gpu-1".to_owned(), renewed: renewed.to_owned() }];
    board.hear_leases(lease("1999-01-01T00:00:00Z"), at(0));
    for second in [20, 40, 60] {
        board.hear_leases(lease("1999-01-01T00:00:10Z"), at(second));
        assert_eq!(pass(&mut board, at(second)), [], "after {second} s");
    }
    board.hear_leases(lease("1999-01-01T00:00:10Z"), at(80));
    assert_eq!(pass(&mut board, at(80)), [("NodeLeaseStale".to_owned(), EventStatus::Firing)]);
    board.hear_leases(lease("1999-01-01T00:00:20Z"), at(100));
    assert_eq!(pass(&mut board, at(100)), [("NodeLeaseStale".to_owned(), EventStatus::Resolved)]);
}

#[test]
fn an_api_server_that_was_away_makes_no_kubelet_silent() {
    let mut board = ConditionTracker::new("k8s", &source(), "");
    let leases = |renewed: &str| -> Vec<LeaseSeen> {
        (0..5_000).map(|no| LeaseSeen { name: format!("gpu-{no}"), renewed: renewed.to_owned() }).collect()
    };
    board.hear_leases(leases("12:00:00"), at(0));
    board.hear_leases(leases("12:00:00"), at(20));
    // Five minutes later it is back, and no kubelet has come to renew its Lease yet.
    board.hear_leases(leases("12:00:00"), at(320));
    assert_eq!(pass(&mut board, at(320)), []);
    board.hear_leases(leases("12:05:30"), at(340));
    assert_eq!(pass(&mut board, at(340)), []);
    // A clock that jumps, either way, tells as little.
    board.hear_leases(leases("12:05:30"), at(7_200));
    board.hear_leases(leases("12:05:30"), at(60));
    assert_eq!(pass(&mut board, at(7_201)), []);
}

#[test]
fn a_kubelet_that_was_silent_before_the_api_server_went_is_silent_still() {
    let mut board = ConditionTracker::new("k8s", &source(), "");
    let lease = || vec![LeaseSeen { name: "gpu-1".to_owned(), renewed: "12:00:00".to_owned() }];
    for second in [0, 20, 40, 60] {
        board.hear_leases(lease(), at(second));
    }
    assert_eq!(pass(&mut board, at(60)), [("NodeLeaseStale".to_owned(), EventStatus::Firing)]);
    board.hear_leases(lease(), at(400));
    assert_eq!(pass(&mut board, at(400)), [], "nobody has seen it recover");
}
