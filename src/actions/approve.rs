//! `approve`: requests a user's approval. The engine holds the run and records the answer; this file only declares the
//! words.
//!
//! Invariant: no answer is ever made here: performed directly it fails, and never approves.

use super::answer::failed;
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, FailureKind, Outcome, Step};
use crate::world::World;
use serde_json::json;

pub(super) struct Approve;

static SPEC: ActionSpec = ActionSpec {
    name: "approve",
    doc: "Requests an approval and waits. Throws `refused` if it is denied or not answered in time.",
    params: &[args::required("question", ParamType::String, "what to approve, in one sentence")],
    options: &[args::optional("within", ParamType::Duration, "how long to wait for an answer (30m)")],
    returns: "#{approved, by}; approved is true, for a no is thrown",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Nothing,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::Requests,
    phrases: ActionPhrases { todo: "ask: {question}", done: None },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(10),
};

#[async_trait::async_trait]
impl Action for Approve {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, _world: &World, _step: &Step) -> PerformResult {
        PerformResult::Done(failed(
            FailureKind::Invalid,
            "approve: only the engine can request an approval, and it did not",
        ))
    }

    async fn predict(&self, _world: &World, call: &ActionCall) -> Outcome {
        match args::text(call, "question") {
            Ok(_) => Outcome::Ok(json!({ "approved": true, "by": "somebody" })),
            Err(failure) => Outcome::Failed(failure),
        }
    }
}
