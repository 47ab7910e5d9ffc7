//! `tell`: sends a message to a channel.
//!
//! Invariant: sending is the dispatcher's work; the step only hands the words over, in the commit that ends it.

use super::answer::{Settled, foresee, settle};
use super::declare::*;
use super::{Action, Performed, args, rights};
use crate::limits;
use crate::model::{Call, Failure, Outcome, Step};
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
    effect: Effect::Keyed,
    reach: Reach::None,
    disruptive: false,
    target: TargetKind::Nothing,
    takes: Capacity::Nothing,
    scheduling: Scheduling::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: Phrases { todo: "notify {channel}: {text}", done: None },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(10),
};

#[async_trait::async_trait]
impl Action for Tell {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, _world: &World, step: &Step) -> Performed {
        settle(perform(step))
    }

    async fn predict(&self, _world: &World, call: &Call) -> Outcome {
        foresee(words(call).map(|_| Value::Null).map_err(Performed::from))
    }
}

fn perform(step: &Step) -> Settled<Performed> {
    let (channel, text) = words(&step.call)?;
    Ok(Performed::Tell(Outcome::Ok(Value::Null), vec![(channel.to_owned(), text.to_owned())]))
}

fn words(call: &Call) -> Result<(&str, &str), Failure> {
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
