//! `nightshift show ID`: the timeline of a run, an incident or an approval, readable at 3 a.m.
//!
//! Invariant: it prints the engine's records, in the order of the ledger, and invents nothing.

use super::client::Client;
use super::invocation::{Invocation, Paint};
use super::page;
use super::stop::Stop;
use crate::api::{ApprovalAnswer, IncidentDetail, RunDetail};
use crate::model::{Approval, ApprovalState, Entry, EntryKind, Plan, Run, RunState};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A run (r17), an incident (i3), an approval (a5), or a rule by its name
    id: String,
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let id = args.id.trim().to_ascii_lowercase();
    let is = |letter: char| id.strip_prefix(letter).is_some_and(|rest| rest.parse::<u64>().is_ok());
    let show = match id.chars().next() {
        Some('r') if is('r') => show_run,
        Some('i') if is('i') => show_incident,
        Some('a') if is('a') => show_approval,
        Some(letter) if is(letter) => {
            return Err(Stop::usage(
                format!("`{}` is not the ID of a run, an incident or an approval", args.id.escape_debug()),
                "IDs look like r17, i3 and a5; for a node or an alert use `nightshift why`",
            ));
        }
        _ => return super::ladder::show(invocation, args.id.trim()),
    };
    show(invocation, &Client::new(invocation)?, &id)
}

pub(super) fn show_run(invocation: &Invocation, client: &Client, id: &str) -> Result<(), Stop> {
    let answer = client.get::<RunDetail>(&format!("runs/{id}"), &())?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let page = answer.read()?;
    run_head(invocation, &page.run)?;
    invocation.line("")?;
    page::timeline(invocation, &page.story)?;
    if page.run.state == RunState::Planned
        && let Some(plan) = page.entries.iter().find_map(planned)
    {
        invocation.line("\nwhat it would do:")?;
        page::plan(invocation, plan)?;
    }
    invocation.line("")?;
    run_foot(invocation, &page.run, &page.approvals)
}

fn planned(entry: &Entry) -> Option<&Plan> {
    match &entry.kind {
        EntryKind::RunPlanned { plan } => Some(plan),
        _ => None,
    }
}

fn show_incident(invocation: &Invocation, client: &Client, id: &str) -> Result<(), Stop> {
    let answer = client.get::<IncidentDetail>(&format!("incidents/{id}"), &())?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let page = answer.read()?;
    let incident = &page.incident;
    invocation.line(&format!(
        "{}  {}  {}  {}",
        invocation.paint(Paint::Strong, &incident.id.to_string()),
        invocation.paint(Paint::Strong, &page::text(&incident.title)),
        page::severity(invocation, incident.severity),
        page::standing(incident),
    ))?;
    let by = incident
        .acknowledged_by
        .as_ref()
        .map(|by| format!(" · acknowledged by {}", page::text(by)))
        .unwrap_or_default();
    let owner = incident.owner.as_ref().map(|owner| format!(" · {}'s", page::text(owner))).unwrap_or_default();
    let by = format!("{by}{owner}");
    let closed = incident.closed_at.map(|at| format!(" · closed {} ago", invocation.age(at))).unwrap_or_default();
    invocation.line(&invocation.paint(
        Paint::Dim,
        &format!(
            "{} · {} of {} firing · opened {}, {} ago{by}{closed}",
            page::subject(&incident.subject),
            incident.firing,
            page::count(incident.episodes as usize, "alert"),
            invocation.format(incident.opened_at, "%Y-%m-%d %H:%M:%S %Z"),
            invocation.age(incident.opened_at),
        ),
    ))?;
    invocation.line("")?;
    page::timeline(invocation, &page.story)?;
    for run in &page.runs {
        invocation.line("")?;
        run_head(invocation, run)?;
        run_foot(invocation, run, &page.approvals)?;
        if run.state == RunState::Planned {
            let command = format!("nightshift show {}", run.id);
            invocation.line(&format!("     {}  has the whole plan", invocation.paint(Paint::Good, &command)))?;
        }
    }
    Ok(())
}

fn show_approval(invocation: &Invocation, client: &Client, id: &str) -> Result<(), Stop> {
    let answer = client.get::<ApprovalAnswer>(&format!("approvals/{id}"), &())?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    approval_page(invocation, &answer.read()?.approval)
}

/// The request, the frozen plan, and how to answer.
pub(super) fn approval_page(invocation: &Invocation, approval: &Approval) -> Result<(), Stop> {
    let state = match approval.state {
        ApprovalState::Open => format!("open until {}", invocation.format(approval.expires_at, "%Y-%m-%d %H:%M:%S %Z")),
        ApprovalState::Approved => "approved".to_owned(),
        ApprovalState::Denied => "denied".to_owned(),
        ApprovalState::Expired => "expired without an answer: counts as denied".to_owned(),
        ApprovalState::Void => "void: the plan changed or the run ended".to_owned(),
    };
    let by = approval.decided_by.as_ref().map(|by| format!(" by {}", page::text(by))).unwrap_or_default();
    invocation.line(&format!(
        "{}  {}",
        invocation.paint(Paint::Strong, &approval.id.to_string()),
        invocation.paint(Paint::Strong, &page::text(&approval.question))
    ))?;
    invocation.line(&invocation.paint(Paint::Dim, &format!("run {} · {state}{by}", approval.run)))?;
    if !approval.approvers.is_empty() {
        invocation.line(&format!("may be answered by: {}", page::text(&approval.approvers.join(", "))))?;
    }
    if let Some(plan) = &approval.plan {
        invocation.line("")?;
        page::plan_now(invocation, plan, &approval.foretold)?;
    }
    Ok(())
}

fn run_head(invocation: &Invocation, run: &Run) -> Result<(), Stop> {
    invocation.line(&format!(
        "{}  {}  on {}  {}",
        invocation.paint(Paint::Strong, &run.id.to_string()),
        invocation.paint(Paint::Strong, &page::text(&run.runbook.name)),
        page::subject(&run.subject),
        page::state(invocation, &run.state),
    ))?;
    let by = match &run.rule {
        Some(rule) => match &run.posted_by {
            Some(by) => format!("rule {}, alert posted by {}", page::text(rule), page::text(by)),
            None => format!("rule {}", page::text(rule)),
        },
        None => format!("by {}", page::text(&run.requested_by)),
    };
    let incident = run.incident.map(|id| format!(" · incident {id}")).unwrap_or_default();
    let ended = run.ended_at.map(|at| format!(" · ended {} ago", invocation.age(at))).unwrap_or_default();
    let started = invocation.format(run.created_at, "%Y-%m-%d %H:%M:%S %Z");
    let age = invocation.age(run.created_at);
    let hash = run.runbook.hash.get(..12).unwrap_or(&run.runbook.hash);
    invocation.line(&invocation.paint(
        Paint::Dim,
        &format!("{by} · mode {}{incident} · started {started}, {age} ago{ended} · runbook {hash}", run.mode),
    ))
}

/// Why it stands where it stands, and the commands for it.
fn run_foot(invocation: &Invocation, run: &Run, approvals: &[Approval]) -> Result<(), Stop> {
    let mut lines = page::stands(invocation, run).into_iter();
    if let Some(first) = lines.next() {
        invocation.line(&format!("now: {first}"))?;
    }
    if let Some(failure) = &run.unwinding
        && !run.state.is_final()
    {
        invocation.line(&format!("     taking its steps back, because: {}", page::text(failure)))?;
    }
    let open = |approval: &&Approval| approval.run == run.id && approval.state == ApprovalState::Open;
    for approval in approvals.iter().filter(open) {
        invocation.line(&format!("     asked: {}", page::text(&approval.question)))?;
    }
    for command in lines {
        invocation.line(&format!("     {}", invocation.paint(Paint::Good, &command)))?;
    }
    Ok(())
}
