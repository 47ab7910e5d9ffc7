//! `node::reboot`: the agent of a node reboots it; the last resort.
//!
//! Invariant: another boot id than before proves that it happened; a repeat of the same step finds that.

use super::answer::{ActionResult, done, failed, foresee, poll, settle, waited};
use super::declare::*;
use super::{Action, PerformResult, args, on_node, rights};
use crate::model::{ActionCall, FailureKind, Outcome, Step};
use crate::world::{World, WorldError};
use serde_json::{Value, json};

pub(super) struct NodeReboot;

/// A GPU server counts its memory for minutes before it boots.
const WITHIN: Span = Span::minutes(30);

static SPEC: ActionSpec = ActionSpec {
    name: "node::reboot",
    doc: "Reboots a node through its agent, and waits until the agent reports from a new boot. The last resort: drain \
          first. It requires an approval in every mode.",
    params: &[args::NODE],
    options: &[],
    returns: "#{changed, boot, was}",
    effect: EffectClass::Witnessed,
    reach: ImpactScope::Node,
    disruptive: true,
    target: TargetKind::Node,
    takes: CapacityKind::Node("rebooting it"),
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::LastResort,
    phrases: ActionPhrases { todo: "reboot {target}{details}", done: Some("rebooted {target}{details}") },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for NodeReboot {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn witness(&self, world: &World, call: &ActionCall) -> Result<Value, WorldError> {
        let boot = world.agents.standing(call.text("node"))?.boot;
        Ok(json!({ "boot": boot }))
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(on_node::reachable(world, call).map(|()| json!({ "changed": true })))
    }
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let node = args::text(&step.call, "node")?;
    let before = step.carry["boot"].as_str().unwrap_or_default();
    if before.is_empty() {
        // Without a witness a lost answer could cost a second reboot.
        return Err(
            args::invalid(format!("the boot ID of {node} is not known, so a reboot could not be verified")).into()
        );
    }
    let gone = waited(world, step);
    let why = match world.agents.standing(node) {
        Ok(standing) if standing.boot != before => {
            return Ok(done(json!({ "changed": true, "was": before, "boot": standing.boot })));
        }
        Ok(_) => match on_node::perform(world, step, WITHIN).await? {
            // The agent has asked the machine to go down; it is still the old boot that says so.
            PerformResult::Done(Outcome::Ok(_)) => format!("{node} is shutting down"),
            other => return Ok(other),
        },
        Err(error) => error.to_string(),
    };
    if gone >= WITHIN.0 {
        let text = format!("{node} did not come back within {WITHIN}: {why}");
        return Ok(PerformResult::Done(failed(FailureKind::Timeout, text)));
    }
    Ok(poll(gone, why, step.carry.clone()))
}
