//! The rules that we ship: they compile, they begin by observing, and they meet the alerts that they are for.
//!
//! Invariant: no shipped rule acts on an alert that it was not written for.

use crate::catalog::{files, rules};
use crate::model::{
    Event, EventStatus, ImpactScope, LabelMap, Labels, Mode, ParamType, RunbookHeader, RunbookParam, RunbookPin,
    Severity, Subject, Time, UndoPolicy,
};
use crate::policy::{RuleDecision, RuleSelection, RuleSet};
use std::path::Path;

pub(super) fn event(labels: Labels) -> Event {
    Event {
        source: "am".to_owned(),
        fingerprint: "1".to_owned(),
        status: EventStatus::Firing,
        starts_at: Time::UNIX_EPOCH,
        ends_at: None,
        subject: Subject::from_labels(&labels, &LabelMap::default()),
        labels,
        annotations: Labels::default(),
        severity: Severity::Critical,
        summary: String::new(),
        url: String::new(),
    }
}

/// The rules that we ship, compiled against the parameters that their runbooks take.
fn shipped() -> RuleSet {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let (_, listing) =
        files::flat(&folder, &["yaml"], crate::limits::RULE_FILE_BYTES).split(&crate::catalog::xids::NAMES);
    assert!(listing.broken.is_empty() && listing.files.len() >= 3, "{listing:?}");
    let all = listing.files.iter().flat_map(|file| match rules::parse(file) {
        (Some(rules), problems) if problems.is_empty() => rules.into_iter().map(|(_, rule)| rule),
        (_, problems) => panic!("{problems:#?}"),
    });
    let runbooks = [
        ("gpu-fell-off-the-bus", vec!["node", "gpu"]),
        ("gpu-contained-memory-error", vec!["node", "gpu"]),
        ("gpu-reset", vec!["node", "gpu"]),
        ("gpu-suspect", vec!["node", "gpu", "xid"]),
        ("node-reboot", vec!["node", "gpu"]),
        ("mig-rebalance", vec!["node", "config", "resource", "count"]),
        ("nvswitch-fatal", vec!["node", "sxid"]),
        ("node-fault", vec!["node"]),
        ("node-not-ready", vec!["node"]),
        ("inference-no-progress", vec!["workload"]),
        ("inference-engine-restart", vec!["pod", "workload"]),
        ("container-no-progress", vec!["container"]),
    ];
    let known = runbooks.into_iter().map(|(name, params)| {
        let params = params.into_iter().map(|part| RunbookParam {
            name: part.to_owned(),
            ty: match part {
                "node" => ParamType::Node,
                "gpu" => ParamType::Gpu,
                "workload" => ParamType::Workload,
                "pod" => ParamType::Pod,
                "count" => ParamType::Int,
                _ => ParamType::String,
            },
            default: None,
            pattern: None,
            doc: String::new(),
        });
        let header = RunbookHeader {
            title: name.to_owned(),
            params: params.collect(),
            reach: ImpactScope::Node,
            undo: UndoPolicy::Never,
            approvers: Vec::new(),
        };
        (name.to_owned(), (RunbookPin { name: name.to_owned(), hash: String::new() }, header))
    });
    RuleSet::compile(all.collect(), known.collect()).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

#[test]
fn the_rules_we_ship_begin_by_observing_and_meet_the_alerts_that_they_are_for() {
    let rules = shipped();
    assert!(rules.rules().all(|rule| rule.mode == Mode::Observe));
    let says = |labels: &[(&str, &str)]| {
        let mut event = event(labels.iter().copied().collect());
        rules.judge(&mut event);
        let one = |selected: &RuleSelection<'_>| match &selected.chosen {
            RuleDecision::Run(start) => format!("{} on {}", start.pin.name, start.subject),
            RuleDecision::Tell => format!("{} tells", selected.rule.name),
            RuleDecision::Nothing(reason) => reason.code.name().to_owned(),
        };
        rules.select_from(&event, "alertmanager").iter().map(one).collect::<Vec<_>>().join("; ")
    };
    let xid = |xid: &str| says(&[("alertname", "GpuXid"), ("xid", xid), ("node", "gpu-3"), ("gpu", "1")]);
    assert_eq!(xid("79"), "gpu-fell-off-the-bus on node gpu-3 gpu 1; muted; muted");
    assert_eq!(
        xid("94"),
        "gpu-contained-memory-error on node gpu-3 gpu 1; gpu-reset on node gpu-3 gpu 1; muted",
        "the second one waits for a repeat"
    );
    for reset in ["48", "64", "95", "109", "119", "120", "143", "155"] {
        assert_eq!(xid(reset), "gpu-reset on node gpu-3 gpu 1; muted", "{reset}");
    }
    assert_eq!(xid("31"), "gpu-suspect on node gpu-3 gpu 1; muted");
    for silent in ["43", "45", "11", "63", "14"] {
        assert_eq!(xid(silent), "muted", "{silent}");
    }
    for told in ["74", "92", "154", "54", "999"] {
        assert_eq!(xid(told), "gpu-other-xid tells", "{told}");
    }
    let more = |labels: &[(&'static str, &'static str)]| {
        let mut all = vec![("alertname", "GpuXid"), ("node", "gpu-3"), ("gpu", "1")];
        all.extend(labels);
        says(&all)
    };
    assert_eq!(
        more(&[("xid", "79"), ("recovery", "gpu-reset")]),
        "gpu-fell-off-the-bus on node gpu-3 gpu 1; muted; muted"
    );
    assert_eq!(more(&[("xid", "13"), ("gpc", "1"), ("tpc", "3")]), "gpu-suspect on node gpu-3 gpu 1; muted");
    assert_eq!(more(&[("xid", "63"), ("row_remap", "pending")]), "gpu-reset on node gpu-3 gpu 1; muted");
    assert_eq!(more(&[("xid", "45"), ("caused_by", "149")]), "muted");
    assert_eq!(
        more(&[("alertname", "GpuRecoveryAction"), ("recovery", "drain-and-reset")]),
        "gpu-reset on node gpu-3 gpu 1; muted"
    );
    assert_eq!(
        more(&[("alertname", "GpuRecoveryAction"), ("recovery", "node-reboot")]),
        "node-reboot on node gpu-3 gpu 1; muted"
    );
    assert_eq!(xid("151"), "node-reboot on node gpu-3 gpu 1; muted");
    let link = [("xid", "149"), ("unit", "NETIR_LINK_EVT"), ("subcode", "37"), ("status", "0x00000000")];
    assert_eq!(more(&link), "gpu-reset on node gpu-3 gpu 1; muted");
    let switch =
        |sxid, fatal| says(&[("alertname", "NvSwitchSxid"), ("sxid", sxid), ("fatal", fatal), ("node", "gpu-3")]);
    assert_eq!(switch("20034", "yes"), "nvswitch-fatal on node gpu-3; muted");
    assert_eq!(switch("12028", "no"), "gpu-other-xid tells");
    assert_eq!(says(&[("alertname", "KernelLogLost"), ("node", "gpu-3")]), "kernel-log-not-heard tells");
    assert_eq!(says(&[("alertname", "KubeNodeNotReady"), ("node", "gpu-3")]), "node-not-ready on node gpu-3");
    let condition = |by: &str, condition: &str| {
        let name = ("alertname", "NodeConditionFault");
        says(&[name, ("reported_by", by), ("condition", condition), ("node", "gpu-3")])
    };
    assert_eq!(condition("nvsentinel", "GpuMemWatch"), "node-fault on node gpu-3; muted");
    assert_eq!(condition("nvsentinel", "EthernetErrorCheck"), "node-condition-other tells");
    assert_eq!(condition("node-problem-detector", "KernelDeadlock"), "node-condition-other tells");
    assert_eq!(says(&[("alertname", "GpuCapacityLost"), ("node", "gpu-3")]), "gpu-capacity-lost tells");
    let stuck = [("alertname", "InferenceNoProgress"), ("namespace", "serve"), ("deployment", "llama")];
    assert_eq!(says(&stuck), "inference-no-progress on namespace serve workload llama");
    let probed = |more: &[(&'static str, &'static str)]| {
        let mut all = vec![("alertname", "InferenceNoProgress"), ("namespace", "serve"), ("workload", "llama")];
        all.push(("engine", "vllm"));
        all.extend(more);
        says(&all)
    };
    assert_eq!(probed(&[]), "inference-no-progress on namespace serve workload llama");
    let pod = [("pod", "llama-x"), ("node", "gpu-3")];
    assert_eq!(probed(&pod), "inference-engine-restart on namespace serve workload llama pod llama-x");
    assert_eq!(probed(&[("alertname", "InferenceCacheFull")]), "inference-engine-told tells");
    assert_eq!(says(&[("alertname", "InferenceProbeWrong"), ("pod", "x")]), "inference-engine-told tells");
    assert_eq!(says(&[("alertname", "WeightsVolumeStale")]), "weights-volume-stale tells");
    // Not for any rule: the catch-all takes it. What is ignored is matched.
    assert_eq!(says(&[("alertname", "NightshiftTest")]), "");
    for ignored in ["Watchdog", "InfoInhibitor", "KubernetesWarning"] {
        assert_eq!(says(&[("alertname", ignored)]), "muted", "{ignored}");
    }
}

#[test]
fn the_example_of_the_readme_is_a_file_of_rules() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/README.md")).unwrap();
    let example = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let file = files::FileContent {
        path: "rules/README.md".to_owned(),
        name: "README".to_owned(),
        text: example.to_owned(),
        hash: [0; 32],
    };
    let (parsed, problems) = rules::parse(&file);
    assert_eq!(problems, []);
    let parsed = parsed.unwrap();
    let lines: Vec<_> = parsed.iter().flat_map(|(_, rule)| rule.when.iter().chain(&rule.unless)).collect();
    assert_eq!((parsed.len(), lines.len()), (2, 4));
    assert!(lines.into_iter().all(|line| crate::policy::parse_matchers(line).is_ok()));
}

#[test]
fn whatever_the_agent_says_of_gpus_is_told_by_a_rule() {
    let rules = shipped();
    let mut seen = 0;
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/findings.md")).unwrap();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let (alertname, severity, action) = (cells[2], cells[3], cells[4]);
        if severity == "info" {
            continue;
        }
        seen += 1;
        let action = if action.contains(' ') { "reset" } else { action };
        let labels =
            [("alertname", alertname), ("severity", severity), ("action", action), ("node", "gpu-1"), ("gpu", "3")];
        let event = event(labels.into_iter().collect());
        let chosen = rules.select_from(&event, "alertmanager");
        let told = |selected: &RuleSelection| {
            !selected.rule.tell.is_empty() && !matches!(selected.chosen, RuleDecision::Nothing(_))
        };
        assert!(chosen.iter().any(told), "no shipped rule tells of {alertname}");
    }
    assert!(seen > 25, "{seen}");
}
