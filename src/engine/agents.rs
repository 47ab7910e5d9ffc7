//! Agents that have gone silent: nobody hears that node any more, which is worth an incident.
//!
//! Invariant: silence is judged only by a process that has itself listened for long enough.

use super::Parts;
use crate::limits;
use crate::model::{AgentName, Event, Finding, Severity, Status, Time};
use crate::sources::agent as source;
use crate::store::{AgentProof, AgentRow, Batch};
use crate::world::WorldError;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;

pub(super) async fn run(parts: Parts, mut shutdown: watch::Receiver<bool>) {
    let began = std::time::Instant::now();
    // None: not judged yet by this process.
    let mut judged: BTreeMap<AgentName, bool> = BTreeMap::new();
    while !*shutdown.borrow() {
        if began.elapsed() >= parts.config.agents.silent_after.0 {
            look(&parts, &mut judged).await;
        }
        tokio::select! {
            () = parts.clock.sleep_until(parts.clock.now() + limits::AGENTS_LOOK_EVERY) => {}
            _ = shutdown.changed() => {}
        }
    }
}

/// Says of each agent what has changed since the last look.
async fn look(parts: &Parts, judged: &mut BTreeMap<AgentName, bool>) {
    let rows = match parts.store.agents().await {
        Ok(rows) => rows,
        Err(error) => return tracing::error!(%error, "cannot look for silent agents; trying again"),
    };
    let after = parts.config.agents.silent_after;
    let seen = parts.world.agents.list();
    let speaks = |row: &AgentRow| seen.iter().any(|seen| seen.name == row.name && seen.silent_for < after.0);
    let mut events = Vec::new();
    let mut changed = Vec::new();
    for row in &rows {
        let silent = !speaks(row);
        if judged.get(&row.name) == Some(&silent) || (silent && is_gone(parts, row).await) {
            continue;
        }
        events.extend(event(parts, row, silent));
        changed.push((row.name.clone(), silent));
    }
    let there: BTreeSet<&AgentName> = rows.iter().map(|row| &row.name).collect();
    for (name, _) in judged.iter().filter(|(name, silent)| **silent && !there.contains(name)) {
        // Removed by a person: its silence is over as a matter of ours.
        events.extend(about(name, Status::Resolved, parts.clock.now(), "removed"));
    }
    judged.retain(|name, _| there.contains(name));
    if !events.is_empty() && !hear(parts, events).await {
        return;
    }
    judged.extend(changed);
}

async fn hear(parts: &Parts, events: Vec<Event>) -> bool {
    let batch = Batch {
        source: source::SOURCE.to_owned(),
        events,
        gaps: Vec::new(),
        rules: parts.catalog.current().rules.clone(),
        now: parts.clock.now(),
    };
    match parts.store.intake(batch).await {
        Ok(heard) => {
            if heard.nudge {
                parts.nudge.nudge();
            }
            true
        }
        Err(error) => {
            tracing::warn!(%error, "that an agent is silent could not be stored; trying again");
            false
        }
    }
}

/// A node that Kubernetes does not have any more took its agent with it.
async fn is_gone(parts: &Parts, row: &AgentRow) -> bool {
    if row.how != AgentProof::Token {
        return false;
    }
    let Ok(kube) = parts.world.kube(Some(&row.name.cluster)) else { return false };
    if !matches!(kube.node(&row.name.node).await, Err(WorldError::NotFound(_))) {
        return false;
    }
    let why = "its node is not in the cluster any more";
    let removed = parts.store.agent_remove(&row.name, "engine", why, parts.clock.now());
    if let Err(error) = removed.await {
        tracing::warn!(%error, agent = %row.name, "an agent without a node could not be removed");
    }
    parts.world.agents.forget(&row.name);
    true
}

fn event(parts: &Parts, row: &AgentRow, silent: bool) -> Option<Event> {
    let (status, what) = if silent { (Status::Firing, "is silent") } else { (Status::Resolved, "speaks again") };
    let at = if silent { row.seen_at } else { parts.clock.now() };
    about(&row.name, status, at, what)
}

fn about(name: &AgentName, status: Status, at: Time, what: &str) -> Option<Event> {
    let labels = [("alertname", "NightshiftAgentSilent"), ("severity", "warning")];
    let finding = Finding {
        complaint: "agent-silent".to_owned(),
        status,
        at,
        severity: Severity::Warning,
        gpu: None,
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        summary: format!("the agent of node {name} {what}: GPU faults there are heard from nobody else"),
        detail: String::new(),
    };
    source::about(finding, name)
}
