//! `note`: writes a line into the run's story.
//!
//! Invariant: the journal entry of the step is the note; nothing else is touched.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::limits;
use crate::model::{ActionCall, Outcome, Step};
use crate::world::World;
use serde_json::Value;

pub(super) struct Note;

static SPEC: ActionSpec = ActionSpec {
    name: "note",
    doc: "Writes a line into the run's timeline. Sends no notification.",
    params: &[args::required("text", ParamType::String, "the line")],
    options: &[],
    returns: "()",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Nothing,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "note: {text}", done: Some("note: {text}") },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(10),
};

#[async_trait::async_trait]
impl Action for Note {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, _world: &World, step: &Step) -> PerformResult {
        settle(check(&step.call).map(done))
    }

    async fn predict(&self, _world: &World, call: &ActionCall) -> Outcome {
        foresee(check(call))
    }
}

fn check(call: &ActionCall) -> ActionResult<Value> {
    let text = args::text(call, "text")?;
    if text.len() > limits::TELL_BYTES {
        return Err(args::invalid(format!(
            "note: {} bytes are too many, {} is the most",
            text.len(),
            limits::TELL_BYTES
        ))
        .into());
    }
    Ok(Value::Null)
}
