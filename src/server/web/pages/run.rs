//! The page of a run: the frozen plan with its hash, the steps done, the guards that hold it, and the two buttons.
//!
//! Invariant: a form answers the question whose plan stands above it: it carries that plan's hash.

use super::csrf;
use super::words::{frozen, guards, moment, plain, plan, since, story, ticked, to_incident};
use crate::api::{GuardLevels, RunDetail};
use crate::engine::story::{planned_words, run_words};
use crate::limits;
use crate::model::{Approval, ApprovalState, Outcome, Plan, Right, RunState, Step, Subject, Time, identity};
use crate::server::web::read::segment;
use crate::server::web::visitor::Visitor;
use maud::{Markup, html};

/// The data of a run's page.
pub struct Telling {
    pub detail: RunDetail,
    pub guards: GuardLevels,
    /// The latest plan, where there is one.
    pub planned: Option<Plan>,
    /// There is something to judge, and this visitor may.
    pub may_judge: bool,
}

/// The page's content.
pub fn body(telling: &Telling, visitor: &Visitor, now: Time) -> Markup {
    let run = &telling.detail.run;
    let (open, answered): (Vec<_>, Vec<_>) =
        telling.detail.approvals.iter().partition(|approval| approval.state == ApprovalState::Open);
    html! {
        h1 { (run.id) " " (plain(&run.runbook.name)) }
        p { (plain(&run.subject.words())) " · mode " (run.mode) " · started " (since(run.created_at, now)) " by "
            @match &run.rule { Some(rule) => { "rule " (plain(rule)) }, None => { (plain(&run.requested_by)) } }
            @if let Some(incident) = run.incident { " for " a href=(to_incident(incident)) { (incident) } } }
        p.state { strong { (ticked(&run_words(&run.runbook.name, &run.state))) } }
        @for approval in &open { (question(approval, telling, visitor, now)) }
        @if !answered.is_empty() {
            section aria-labelledby="answers" {
                h2 id="answers" { "Answers" }
                ul.list { @for approval in answered { (answer(approval, now)) } }
            }
        }
        @if open.is_empty() && let Some(approved) = &run.approved {
            section aria-labelledby="plan" { h2 id="plan" { "Approved plan" } (plan(approved, &[])) }
        }
        @if run.state == RunState::Planned && let Some(planned) = &telling.planned {
            section aria-labelledby="plan" { h2 id="plan" { "Suggestion only: the plan" } p { "No action taken." } (plan(planned, &[])) }
        }
        @if open.is_empty() { (verdict(telling, visitor, now)) }
        @if !run.state.is_final() {
            section aria-labelledby="guards" { h2 id="guards" { "Guards" } (guards(&telling.guards, now)) }
        }
        section aria-labelledby="steps" {
            h2 id="steps" { "Steps" }
            @if telling.detail.steps.is_empty() { p.dim { "No action yet." } }
            ol.steps { @for step in telling.detail.steps.iter().take(limits::WEB_ROWS) { (row(step, now)) } }
            @if telling.detail.steps.len() > limits::WEB_ROWS { p.dim { "and more: " code { "nightshift show " (run.id) } } }
        }
        section aria-labelledby="story" {
            h2 id="story" { "Timeline" }
            (story(&telling.detail.story))
            p { a href=(format!("/why/{}", segment(&run.id.to_string()))) { "Why was this done, or not?" } }
        }
        p.dim { "Runbook " (plain(&run.runbook.name)) " " code { (run.runbook.hash) } }
    }
}

fn question(approval: &Approval, telling: &Telling, visitor: &Visitor, now: Time) -> Markup {
    let run = &telling.detail.run;
    html! {
        section.card.ask id=(approval.id) aria-labelledby=(format!("q-{}", approval.id)) {
            h2 id=(format!("q-{}", approval.id)) { (approval.id) ": " (plain(&approval.question)) }
            @if let Some(shown) = &approval.plan { (plan(shown, &approval.foretold)) } @else {
                details { summary { "Details" } p.dim.hash { "Question " code { (approval.plan_hash) } } }
            }
            @if !approval.foretold.is_empty() { p.dim { "The guards were checked at the time of the request,  " (since(approval.asked_at, now)) "." } }
            p { "Expires " (moment(approval.expires_at)) " (" (since(approval.expires_at, now)) "); without an answer it counts as denied." }
            @if approval.approvers.is_empty() { p.dim { "Needs the role approver." } }
            @else { p { "Only " (plain(&approval.approvers.join(", "))) " may answer." } }
            @if let Some(frozen) = frozen(&telling.guards, run.rule.as_deref(), run.subject.cluster.as_deref(), now) { (frozen) }
            @if approval.needed > 1 {
                p { (approval.needed) " different approvers are required"
                    @if !approval.given.is_empty() { "; so far: " (plain(&approval.given.join(", "))) } "." }
            }
            @match visitor.caller.need(Right::Approve) {
                Ok(()) => (buttons(approval, visitor)),
                Err(problem) => p.refusal { (plain(&problem.error)) },
            }
        }
    }
}

fn buttons(approval: &Approval, visitor: &Visitor) -> Markup {
    let why = format!("why-{}", approval.id);
    html! {
        form method="post" action=(format!("/web/approvals/{}", approval.id)) {
            (csrf(visitor))
            input type="hidden" name="run" value=(approval.run);
            input type="hidden" name="plan_hash" value=(approval.plan_hash);
            label for=(why) { "Reason (recorded in the ledger)" }
            input id=(why) name="why" maxlength="500" autocomplete="off";
            div.buttons {
                button.go type="submit" name="answer" value="approve" { "Approve" }
                button.danger type="submit" name="answer" value="deny" { "Deny" }
            }
        }
    }
}

/// Whether it was right: the reviews so far, and the two buttons. While a question is open its answer is the verdict.
fn verdict(telling: &Telling, visitor: &Visitor, now: Time) -> Markup {
    let run = &telling.detail.run;
    let asked = if run.state == RunState::Planned { "Would that have been right?" } else { "Was that right?" };
    let said_before = telling.detail.judgements.iter().any(|word| identity(&word.by) == identity(&visitor.caller.name));
    html! {
        @if telling.may_judge || !telling.detail.judgements.is_empty() {
            section.card id="verdict" aria-labelledby="verdict-head" {
                h2 id="verdict-head" { (asked) }
                ul.list {
                    @for word in telling.detail.judgements.iter().take(limits::WEB_ROWS) {
                        @let (mark, said) = if word.right { ("good", "right") } else { ("bad", "wrong") };
                        li {
                            span.mark.(mark) { (said) } " says " (plain(&word.by)) " · " (since(word.at, now))
                            @if !word.why.is_empty() { div.dim { (plain(&word.why)) } }
                        }
                    }
                }
                @if telling.may_judge {
                    form method="post" action=(format!("/web/runs/{}/judge", run.id)) {
                        (csrf(visitor))
                        @if let Some(rule) = &run.rule {
                            p.dim { "It counts for rule " (plain(rule)) "." @if said_before { " Your latest review counts." } }
                        }
                        label for="why-verdict" { "Reason, optional (recorded in the ledger)" }
                        input id="why-verdict" name="why" maxlength="500" autocomplete="off";
                        div.buttons {
                            button.go type="submit" name="verdict" value="right" { "Right" }
                            button.danger type="submit" name="verdict" value="wrong" { "Wrong" }
                        }
                    }
                }
            }
        }
    }
}

fn answer(approval: &Approval, now: Time) -> Markup {
    let by = approval.decided_by.as_deref().map(|by| format!(" by {}", plain(by))).unwrap_or_default();
    let word = match approval.state {
        ApprovalState::Open => "waits",
        ApprovalState::Approved => "approved",
        ApprovalState::Denied => "denied",
        ApprovalState::Expired => "expired without an answer: counts as denied",
        ApprovalState::Void => "void: the plan changed or the run ended",
    };
    html! {
        li id=(approval.id) {
            (approval.id) " " strong { (word) (by) }
            @if let Some(at) = approval.decided_at { " · " (since(at, now)) }
            div.dim { (plain(&approval.question)) }
        }
    }
}

/// Where a step acts, for its words.
fn target(step: &Step) -> Subject {
    crate::actions::find(&step.call.action).map(|action| action.target(&step.call)).unwrap_or_default()
}

fn row(step: &Step, now: Time) -> Markup {
    let (mark, words) = match &step.outcome {
        None => ("warn", "under way".to_owned()),
        Some(Outcome::Ok(_)) => ("good", "done".to_owned()),
        Some(Outcome::Failed(failure)) => ("bad", format!("failed: {}", plain(&failure.message))),
    };
    html! {
        li {
            @if step.undoes.is_some() { span.mark { "undo" } " " }
            (plain(&planned_words(&step.call, &target(step)))) " " span.mark.(mark) { (words) }
            div.dim { "started " (since(step.begun_at, now)) @if step.attempt > 1 { " · attempt " (step.attempt) } }
        }
    }
}
