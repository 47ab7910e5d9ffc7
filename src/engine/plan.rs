//! The planner: a dry advance over the live, read-only world.
//!
//! Invariant: nothing that changes the world is performed; every mutating call is predicted by its action's own model.

use super::EngineParts;
use super::evaluate::{self, EvaluationPurpose};
use crate::actions;
use crate::limits;
use crate::model::{
    ActionCall, EffectClass, FailureKind, ImpactScope, Outcome, Plan, PlanEnd, PlannedCall, Reason, ReasonCode, RunId,
    RunInput, Step, StepFailure,
};
use crate::script::{Runbook, ScriptTurn};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The plan of a run from here on: `journal` holds the steps it has already made (none for a new run).
pub async fn plan(parts: &EngineParts, runbook: &Arc<Runbook>, input: &RunInput, journal: &[Step]) -> Plan {
    let mut steps: Vec<Step> = journal.to_vec();
    let mut calls = Vec::new();
    let mut braked = 0;
    let end = loop {
        if calls.len() >= limits::PLAN_CALLS {
            let text = format!("the plan has more than {} calls", limits::PLAN_CALLS);
            break PlanEnd::Cut(Reason::new(ReasonCode::StepLimit, text));
        }
        match evaluate::advance(runbook, input, steps.clone(), EvaluationPurpose::Plan).await {
            ScriptTurn::Call(call) => {
                let planned = foresee(parts, &call).await;
                steps.push(as_step(parts, &planned, steps.len() as u32));
                calls.push(planned);
            }
            ScriptTurn::Done(_) => break PlanEnd::Done,
            ScriptTurn::Stopped(why) => break PlanEnd::Stopped(why),
            ScriptTurn::Failed(why) => break PlanEnd::Failed(why),
            ScriptTurn::Braked(_) if braked + 1 < limits::SCRIPT_BRAKED => braked += 1,
            ScriptTurn::Broken(reason) | ScriptTurn::Braked(reason) => break PlanEnd::Cut(reason),
        }
    };
    let hash = hash_of(&calls);
    Plan { calls, end, hash }
}

/// The lines that users read: each call that changes something.
pub fn lines(plan: &Plan) -> Vec<String> {
    plan.calls
        .iter()
        .filter(|planned| planned.reach > ImpactScope::None)
        .map(|planned| planned.call.to_string())
        .collect()
}

async fn foresee(parts: &EngineParts, call: &ActionCall) -> PlannedCall {
    let Some(action) = actions::find(&call.action) else {
        let failure = StepFailure::new(FailureKind::Invalid, format!("there is no action `{}`", call.action));
        return PlannedCall {
            call: call.clone(),
            effect: EffectClass::Blind,
            reach: ImpactScope::Cluster,
            target: Default::default(),
            predicted: Outcome::Failed(failure),
        };
    };
    let spec = action.spec();
    let predicted = if parts.config.actions.lets(spec.name) {
        // An action that only reads foretells by reading.
        let answer = tokio::time::timeout(spec.deadline.0, action.predict(&parts.world, call)).await;
        answer.unwrap_or_else(|_| {
            Outcome::Failed(StepFailure::new(FailureKind::Timeout, format!("no answer within {}", spec.deadline)))
        })
    } else {
        let text = format!("`{}` is off in this installation (`actions` in the configuration)", spec.name);
        Outcome::Failed(StepFailure::new(FailureKind::Refused, text))
    };
    PlannedCall { call: call.clone(), effect: spec.effect, reach: spec.reach, target: action.target(call), predicted }
}

/// A step as if it had been made, for the next dry advance.
fn as_step(parts: &EngineParts, planned: &PlannedCall, no: u32) -> Step {
    let now = parts.clock.now();
    Step {
        run: RunId(0),
        no,
        call: planned.call.clone(),
        effect: planned.effect,
        undoes: None,
        begun_at: now,
        deadline: now,
        attempt: 1,
        carry: Value::Null,
        outcome: Some(planned.predicted.clone()),
        ended_at: Some(now),
        incarnation: String::new(),
    }
}

/// Only calls that change the world count: a metric that reads differently does not make it another plan.
fn hash_of(calls: &[PlannedCall]) -> String {
    let mut hash = Sha256::new();
    for planned in calls.iter().filter(|planned| planned.reach > ImpactScope::None) {
        let line = serde_json::to_vec(&(&planned.call, &planned.target)).unwrap_or_default();
        hash.update((line.len() as u64).to_be_bytes());
        hash.update(&line);
    }
    hex::encode(hash.finalize())
}
