//! The rules that we ship: they compile, they begin by observing, and they meet the alerts that they are for.
//!
//! Invariant: no shipped rule acts on an alert that it was not written for.

use crate::catalog::{files, rules};
use crate::model::{
    Event, Header, LabelMap, Labels, Mode, Param, ParamType, Pin, Reach, Severity, Status, Subject, Time, UndoPolicy,
};
use crate::policy::{Chosen, RuleSet, Selected};
use std::path::Path;

pub(super) fn event(labels: Labels) -> Event {
    Event {
        source: "am".to_owned(),
        fingerprint: "1".to_owned(),
        status: Status::Firing,
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
        ("gpu-uncontained-memory-error", vec!["node", "gpu"]),
        ("node-not-ready", vec!["node"]),
        ("inference-no-progress", vec!["workload"]),
    ];
    let known = runbooks.into_iter().map(|(name, params)| {
        let params = params.into_iter().map(|part| Param {
            name: part.to_owned(),
            ty: match part {
                "node" => ParamType::Node,
                "gpu" => ParamType::Gpu,
                _ => ParamType::Workload,
            },
            default: None,
            pattern: None,
            doc: String::new(),
        });
        let header = Header {
            title: name.to_owned(),
            params: params.collect(),
            reach: Reach::Node,
            undo: UndoPolicy::Never,
            approvers: Vec::new(),
        };
        (name.to_owned(), (Pin { name: name.to_owned(), hash: String::new() }, header))
    });
    RuleSet::compile(all.collect(), known.collect()).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

#[test]
fn the_rules_we_ship_begin_by_observing_and_meet_the_alerts_that_they_are_for() {
    let rules = shipped();
    assert!(rules.rules().all(|rule| rule.mode == Mode::Observe));
    let says = |labels: &[(&str, &str)]| {
        let event = event(labels.iter().copied().collect());
        let one = |selected: &Selected<'_>| match &selected.chosen {
            Chosen::Run(start) => format!("{} on {}", start.pin.name, start.subject),
            Chosen::Tell => format!("{} tells", selected.rule.name),
            Chosen::Nothing(reason) => reason.code.name().to_owned(),
        };
        rules.select(&event).iter().map(one).collect::<Vec<_>>().join("; ")
    };
    let xid = |xid: &str| says(&[("alertname", "GpuXid"), ("xid", xid), ("node", "gpu-3"), ("gpu", "1")]);
    assert_eq!(xid("79"), "gpu-fell-off-the-bus on node gpu-3 gpu 1");
    assert_eq!(
        xid("94"),
        "gpu-contained-memory-error on node gpu-3 gpu 1; gpu-uncontained-memory-error on node gpu-3 gpu 1"
    );
    assert_eq!(xid("95"), "gpu-uncontained-memory-error on node gpu-3 gpu 1");
    assert_eq!(xid("48"), "gpu-other-xid tells");
    assert_eq!(xid("45"), "muted");
    assert_eq!(says(&[("alertname", "KubeNodeNotReady"), ("node", "gpu-3")]), "node-not-ready on node gpu-3");
    let stuck = [("alertname", "InferenceNoProgress"), ("namespace", "serve"), ("deployment", "llama")];
    assert_eq!(says(&stuck), "inference-no-progress on namespace serve workload llama");
    assert_eq!(says(&[("alertname", "WeightsVolumeStale")]), "weights-volume-stale tells");
    assert_eq!(says(&[("alertname", "Watchdog")]), "");
}

#[test]
fn the_example_of_the_readme_is_a_file_of_rules() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/README.md")).unwrap();
    let example = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let file = files::File {
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
