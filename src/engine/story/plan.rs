//! A plan and its approval request, as users read them: steps, the cost of each, the guards that would hold it.
//!
//! Invariant: predictions are the planner's and the guards', in their words; nothing is computed again here.

use super::{after, cause, over_to_you, phrase};
use crate::limits::STORY_LINE_CHARS;
use crate::model::{
    ActionCall, Approval, ImpactScope, Outcome, PendingApproval, Plan, PlanEnd, PlannedCall, PlannedStep,
    PreflightDecision, Subject,
};
use crate::notifiers::one_line;

/// An open approval request, as approvers read it: each step that changes something, its cost, the guards that would
/// hold it.
pub fn question(approval: &Approval) -> PendingApproval {
    let plan = approval.plan.as_ref();
    let steps = plan.map(|plan| planned_steps(plan, &approval.foretold)).unwrap_or_default();
    PendingApproval {
        approval: approval.id,
        question: approval.question.clone(),
        plan_hash: approval.plan_hash.clone(),
        plan: steps.iter().map(|step| step.what.clone()).collect(),
        steps,
        brief: plan.map(brief).unwrap_or_default(),
        asked_at: approval.asked_at,
        expires_at: approval.expires_at,
        approvers: approval.approvers.clone(),
        needed: approval.needed,
    }
}

/// The steps of a plan that change something, with the cost of each and the guards' predicted decisions.
pub fn planned_steps(plan: &Plan, foretold: &[PreflightDecision]) -> Vec<PlannedStep> {
    let mut steps: Vec<PlannedStep> = Vec::new();
    for (at, planned) in plan.calls.iter().enumerate().filter(|(_, planned)| planned.reach > ImpactScope::None) {
        // A freeze stops everything, and is shown once for all steps.
        let foretold = foretold.iter().find(|foretold| foretold.call == at);
        let floor_kept = foretold.is_some_and(PreflightDecision::keeps_the_floor);
        let floor = if floor_kept { "; the serving floor is kept" } else { "" };
        let evicts = |cost: String| if cost.starts_with("evicts ") { format!("{cost}{floor}") } else { cost };
        let held = foretold
            .filter(|foretold| !foretold.is_frozen())
            .and_then(PreflightDecision::words)
            .map(|words| one_line(&words, STORY_LINE_CHARS));
        // The reason that holds the first step holds the next ones as well.
        let held = held.filter(|words| !steps.iter().any(|step| step.held.as_ref() == Some(words)));
        steps.push(PlannedStep {
            what: planned_words(&planned.call, &planned.target),
            cost: predicted(planned).map(evicts),
            held,
        });
    }
    steps
}

/// Why a plan cannot run to its end: `step 3 cannot run: no Nightshift agent is connected on gpu-1`.
pub fn cannot(plan: &Plan) -> Option<String> {
    let PlanEnd::Failed(why) = &plan.end else { return None };
    let last = plan.calls.len();
    Some(match plan.calls.last().map(|planned| &planned.predicted) {
        Some(Outcome::Failed(failure)) => {
            let why = failure.message.trim_start_matches("not reached: ");
            format!("step {last} cannot run: {why}")
        }
        _ => format!("it would fail: {}", cause(why)),
    })
}

/// The plan in half a sentence, empty where it changes nothing: `cordon gpu-1, drain it (4 pods move) and reset GPU 2`; with
/// the step that cannot run.
pub fn brief(plan: &Plan) -> String {
    let list = phrase::brief(&plan.calls);
    let text = match cannot(plan) {
        Some(why) if !list.is_empty() => format!("{list}, but {why}"),
        _ => list,
    };
    one_line(&text, STORY_LINE_CHARS)
}

/// The gain or cost of a planned call, where it is more than the call.
pub fn predicted(planned: &PlannedCall) -> Option<String> {
    phrase::predicted(planned).map(|words| one_line(&words, STORY_LINE_CHARS))
}

/// A call of a plan as users read it: `drain gpu-3 (GPU pods only, up to 30m)`.
pub fn planned_words(call: &ActionCall, target: &Subject) -> String {
    one_line(&phrase::todo(call, Some(target)), STORY_LINE_CHARS)
}

/// The line of a plan.
pub(super) fn planned(plan: &Plan) -> String {
    let list = match phrase::brief(&plan.calls) {
        list if list.is_empty() => "no changes".to_owned(),
        list => list,
    };
    match &plan.end {
        PlanEnd::Done => format!("plan: {list}"),
        PlanEnd::Stopped(why) => match over_to_you(why) {
            Some(what) => format!("plan: {list}; then over to you: {what}"),
            None => format!("plan: {list}; then it would stop{}", after(why)),
        },
        PlanEnd::Failed(_) => format!("plan: {list}; {}", cannot(plan).unwrap_or_default()),
        PlanEnd::Cut(reason) => format!("plan: {list}; cut short: {}", reason.text),
    }
}
