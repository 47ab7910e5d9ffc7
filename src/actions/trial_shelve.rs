//! `trial::shelve`: an action for tests alone, to show that a file and a line are all that an action takes.
//!
//! Invariant: named nowhere else in the program, and in no release.

use super::answer::done;
use super::{Action, PerformResult, args, rights};
use crate::model::*;
use crate::world::World;
use serde_json::{Value, json};

pub(super) struct TrialShelve;

static SPEC: ActionSpec = ActionSpec {
    name: "trial::shelve",
    doc: "Takes a node out of its rack, or puts it back.",
    params: &[args::NODE, args::optional("why", ParamType::String, "why")],
    options: &[args::optional("back", ParamType::Bool, "puts it back (false)")],
    returns: "#{changed}",
    effect: EffectClass::Converge,
    reach: ImpactScope::Node,
    disruptive: true,
    target: TargetKind::Node,
    takes: CapacityKind::Node("shelving it"),
    scheduling: SchedulingEffect::Withdraw,
    approval: ApprovalNeed::LastResort,
    phrases: ActionPhrases { todo: "shelve {target}{details}", done: Some("shelved {target}{details}") },
    permissions: rights::NONE,
    undo: Some("trial::shelve"),
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for TrialShelve {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, _world: &World, _step: &Step) -> PerformResult {
        done(json!({ "changed": true }))
    }

    async fn predict(&self, _world: &World, _call: &ActionCall) -> Outcome {
        Outcome::Ok(json!({ "changed": true }))
    }

    fn bytes_read(&self, progress: &Value) -> Option<(u64, u64)> {
        Some((progress["all"].as_u64()?, progress["read"].as_u64()?))
    }

    fn undo(&self, step: &Step) -> Option<ActionCall> {
        let args = [("node", json!(step.call.text("node"))), ("back", json!(true))];
        super::changed(step).then(|| ActionCall::new(SPEC.name, args))
    }
}
