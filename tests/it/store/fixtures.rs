//! Events, rules and proposals for the cases.
//!
//! Invariant: nothing here is random and nothing reads a clock.

use nightshift::model::{
    ActionCall, Event, EventStatus, ImpactScope, Labels, Mode, ParamType, Rule, RunId, RunbookHeader, RunbookPin,
    Severity, Span, Subject, Time, UndoPolicy,
};
use nightshift::policy::{GuardLimits, RuleSet, StepProposal, WorldFacts};
use nightshift::store::{BatchOrigin, ClaimedRun, EventBatch, Filter, IntakeResult, Store};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

pub const TEXT: &str = "//! Empty the node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\nk8s::cordon(node);\n";

pub fn start() -> Time {
    "2026-03-01T03:00:00Z".parse().unwrap()
}

pub fn at(seconds: u64) -> Time {
    start() + Duration::from_secs(seconds)
}

pub fn pin() -> RunbookPin {
    RunbookPin { name: "xid79".to_owned(), hash: "ab".repeat(32) }
}

pub fn event(alert: &str, node: &str) -> Event {
    let labels: Labels = [("alertname", alert), ("node", node)].into_iter().collect();
    Event {
        source: "am".to_owned(),
        fingerprint: format!("{:016x}", labels.fingerprint()),
        status: EventStatus::Firing,
        starts_at: start(),
        ends_at: None,
        labels,
        annotations: Labels::default(),
        subject: Subject::node(node),
        severity: Severity::Critical,
        summary: format!("{alert} on {node}"),
        url: String::new(),
    }
}

pub fn resolved(mut event: Event) -> Event {
    event.status = EventStatus::Resolved;
    event.ends_at = Some(at(60));
    event
}

/// Rules from JSON, over the one runbook `xid79` with the parameter `node`.
pub fn rules(list: Value) -> Arc<RuleSet> {
    let rules: Vec<Rule> = serde_json::from_value(list).unwrap();
    let node = nightshift::model::RunbookParam {
        name: "node".to_owned(),
        ty: ParamType::Node,
        default: None,
        pattern: None,
        doc: String::new(),
    };
    let header = RunbookHeader {
        title: "Empty the node.".to_owned(),
        params: vec![node],
        reach: ImpactScope::Node,
        undo: UndoPolicy::Never,
        approvers: Vec::new(),
    };
    Arc::new(RuleSet::compile(rules, HashMap::from([("xid79".to_owned(), (pin(), header))])).unwrap())
}

pub fn rule(mode: Mode) -> Value {
    json!({
        "name": "xid", "when": ["alertname=\"Xid79\""], "run": "xid79", "with": { "node": { "label": "node" } },
        "mode": mode.to_string(), "tell": ["slack"],
        // The ladder has tests of its own; here a failure must not change what the next run may do.
        "demote": { "auto": 0, "approve": 0 },
    })
}

pub fn auto() -> Arc<RuleSet> {
    rules(json!([rule(Mode::Auto)]))
}

pub async fn hear(store: &Arc<dyn Store>, rules: &Arc<RuleSet>, events: Vec<Event>, now: Time) -> IntakeResult {
    store.intake(batch(rules, events, now)).await.unwrap()
}

pub fn batch(rules: &Arc<RuleSet>, events: Vec<Event>, now: Time) -> EventBatch {
    EventBatch {
        source: "am".to_owned(),
        events,
        gaps: Vec::new(),
        rules: rules.clone(),
        now,
        origin: BatchOrigin::default(),
    }
}

/// A claimed run of rule `xid` for a node, its runbook pinned.
pub async fn running(store: &Arc<dyn Store>, node: &str) -> ClaimedRun {
    store.pin(&pin(), TEXT, ImpactScope::Node, start()).await.unwrap();
    let heard = hear(store, &auto(), vec![event("Xid79", node)], start()).await;
    store.claim(heard.runs[0], start()).await.unwrap().unwrap()
}

/// A step of a run, as the action of that name declares it.
pub fn proposal(claimed: &ClaimedRun, action: &str, target: Subject) -> StepProposal {
    let spec = nightshift::actions::find(action).unwrap().spec();
    let call = ActionCall::new(action, [("node", json!(target.node))]);
    let facts = WorldFacts { nodes_total: Some(100), ..WorldFacts::default() };
    let by = (claimed.run.id, claimed.run.epoch);
    StepProposal { deadline: at(60), facts, ..StepProposal::new(spec, by, call, target, start()) }
}

pub fn cordon(claimed: &ClaimedRun, node: &str) -> StepProposal {
    proposal(claimed, "k8s::cordon", Subject::node(node))
}

pub fn guards() -> Arc<GuardLimits> {
    Arc::new(GuardLimits { nodes_at_once: 5, ..GuardLimits::default() })
}

pub fn all() -> Filter {
    Filter { limit: 1_000, ..Filter::default() }
}

pub fn of_run(run: RunId) -> Filter {
    Filter { run: Some(run), ..all() }
}

/// The kinds of all entries, oldest first.
pub async fn story(store: &Arc<dyn Store>) -> Vec<&'static str> {
    let entries = store.entries(Filter { after: Some(-1), ..all() }).await.unwrap();
    entries.iter().map(|entry| entry.kind.name()).collect()
}

pub fn hour() -> Span {
    Span::minutes(60)
}
