//! `tell`: sends a message to a channel.
//!
//! Invariant: sending is the dispatcher's work; the step only hands the words over, in the commit that ends it.

use super::answer::{ActionResult, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::limits;
use crate::model::{ActionCall, Outcome, Step, StepFailure};
use crate::world::World;
use serde_json::Value;

pub(super) struct Tell;

static SPEC: ActionSpec = ActionSpec {
    name: "tell",
    doc: "Sends a text to a channel of the configuration, in the incident's thread where there is one.",
    params: &[
        args::required("channel", ParamType::String, "the channel's name in the configuration"),
        args::required("text", ParamType::String, "the message; shown as text, never as markup"),
    ],
    options: &[],
    returns: "()",
    effect: EffectClass::Keyed,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Nothing,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "notify {channel}: {text}", done: None },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(10),
};

#[async_trait::async_trait]
impl Action for Tell {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, _world: &World, step: &Step) -> PerformResult {
        settle(perform(step))
    }

    async fn predict(&self, _world: &World, call: &ActionCall) -> Outcome {
        foresee(words(call).map(|_| Value::Null).map_err(PerformResult::from))
    }
}

fn perform(step: &Step) -> ActionResult<PerformResult> {
    let (channel, text) = words(&step.call)?;
    Ok(PerformResult::Tell(Outcome::Ok(Value::Null), vec![(channel.to_owned(), text.to_owned())]))
}

fn words(call: &ActionCall) -> Result<(&str, &str), StepFailure> {
    let (channel, text) = (args::text(call, "channel")?, args::text(call, "text")?);
    if text.len() > limits::TELL_BYTES {
        return Err(args::invalid(format!(
            "tell: the text has {} bytes; the limit is {}",
            text.len(),
            limits::TELL_BYTES
        )));
    }
    Ok((channel, text))
}
