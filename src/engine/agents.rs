//! Agents that have gone silent: that node is no longer monitored, which is worth an incident.
//!
//! Invariant: silence is judged only by a process that has itself listened for long enough.

use super::EngineParts;
use super::scheduler::StaleEpisodes;
use crate::limits;
use crate::model::{AgentName, Episode, EpisodeId, Event, EventStatus, Finding, Severity, Time};
use crate::sources::agent as source;
use crate::store::{AgentProof, AgentRow, BatchOrigin, ControlChange, EventBatch};
use crate::world::WorldError;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;

const SILENT: &str = "NightshiftAgentSilent";

pub(super) async fn run(parts: EngineParts, mut shutdown: watch::Receiver<bool>) {
    let began = std::time::Instant::now();
    // None: not judged yet by this process.
    let mut judged: BTreeMap<AgentName, bool> = BTreeMap::new();
    let mut speaking: BTreeMap<AgentName, Time> = BTreeMap::new();
    while !*shutdown.borrow() {
        if began.elapsed() >= parts.config.agents.silent_after.0 {
            look(&parts, &mut judged).await;
            let silent = judged.values().filter(|silent| **silent).count();
            parts.metrics.set_agents(judged.len() - silent, silent);
            forget(&parts, &judged, &mut speaking).await;
        }
        tokio::select! {
            () = parts.clock.sleep_for(limits::AGENTS_LOOK_EVERY) => {}
            _ = shutdown.changed() => {}
        }
    }
}

/// Reports for each agent the changes since the last look.
async fn look(parts: &EngineParts, judged: &mut BTreeMap<AgentName, bool>) {
    let rows = match parts.store.agents().await {
        Ok(rows) => rows,
        Err(error) => return tracing::error!(%error, "cannot check for silent agents; retrying"),
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
        // Removed by a user: its silence is over as a matter of ours.
        events.extend(about(name, EventStatus::Resolved, parts.clock.now(), "removed"));
    }
    judged.retain(|name, _| there.contains(name));
    if !events.is_empty() && !hear(parts, events).await {
        return;
    }
    judged.extend(changed);
}

/// Conditions that an agent does not repeat although it was connected all the while: it has lost its record, or bears
/// another name since an upgrade. Their ends would never be sent.
async fn forget(parts: &EngineParts, judged: &BTreeMap<AgentName, bool>, speaking: &mut BTreeMap<AgentName, Time>) {
    let now = parts.clock.now();
    speaking.retain(|name, _| judged.get(name) == Some(&false));
    for (name, _) in judged.iter().filter(|(_, silent)| !**silent) {
        speaking.entry(name.clone()).or_insert(now);
    }
    let before = now - limits::AGENT_FORGOTTEN.0;
    let long: BTreeSet<&AgentName> =
        speaking.iter().filter(|(_, since)| **since <= before).map(|(name, _)| name).collect();
    if long.is_empty() {
        return;
    }
    let mut unseen = StaleEpisodes::new(source::SOURCE, before);
    let mut episodes: Vec<EpisodeId> = Vec::new();
    loop {
        match unseen.page(parts).await {
            Ok(open) if open.is_empty() => break,
            Ok(open) => episodes.extend(open.iter().filter(|episode| is_forgotten(episode, &long)).map(|one| one.id)),
            Err(error) => return tracing::error!(%error, "cannot read the silent alerts of agents"),
        }
    }
    if episodes.is_empty() {
        return;
    }
    let why = format!(
        "the node's agent reports, but has not repeated this alert for {}: an upgrade may have renamed it",
        limits::AGENT_FORGOTTEN
    );
    tracing::info!(episodes = episodes.len(), why, "alerts of agents closed");
    if let Err(error) = parts.store.control(ControlChange::EndEpisodes { episodes, stale: true, why }, now).await {
        tracing::error!(%error, "cannot close alerts of agents");
    }
    parts.nudge.nudge();
}

/// Whether it is one of an agent that was connected for long; one without a cluster may be of any agent of that node.
fn is_forgotten(episode: &Episode, long: &BTreeSet<&AgentName>) -> bool {
    let label = |name: &str| episode.event.labels.get(name);
    let (node, cluster) = (label("node"), label("cluster"));
    let is_its = |agent: &&&AgentName| agent.node == node && (cluster.is_empty() || agent.cluster == cluster);
    // That one is ours, and reported once.
    episode.event.name() != SILENT && long.iter().any(|agent| is_its(&agent))
}

async fn hear(parts: &EngineParts, events: Vec<Event>) -> bool {
    let batch = EventBatch {
        source: source::SOURCE.to_owned(),
        events,
        gaps: Vec::new(),
        rules: parts.catalog.current().rules.clone(),
        now: parts.clock.now(),
        origin: BatchOrigin::of_kind(BatchOrigin::AGENT),
    };
    match parts.store.intake(batch).await {
        Ok(heard) => {
            parts.metrics.unmatched(source::SOURCE, heard.unmatched);
            if heard.nudge {
                parts.nudge.nudge();
            }
            true
        }
        Err(error) => {
            tracing::warn!(%error, "cannot store the alert about a silent agent; retrying");
            false
        }
    }
}

/// A node that Kubernetes does not have any more took its agent with it.
async fn is_gone(parts: &EngineParts, row: &AgentRow) -> bool {
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
        tracing::warn!(%error, agent = %row.name, "cannot remove an agent whose node is gone");
    }
    parts.world.agents.forget(&row.name);
    true
}

fn event(parts: &EngineParts, row: &AgentRow, silent: bool) -> Option<Event> {
    let (status, what) =
        if silent { (EventStatus::Firing, "is silent") } else { (EventStatus::Resolved, "speaks again") };
    let at = if silent { row.seen_at } else { parts.clock.now() };
    about(&row.name, status, at, what)
}

fn about(name: &AgentName, status: EventStatus, at: Time, what: &str) -> Option<Event> {
    let labels = [("alertname", SILENT), ("severity", "warning")];
    let finding = Finding {
        complaint: "agent-silent".to_owned(),
        status,
        at,
        severity: Severity::Warning,
        gpu: None,
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        summary: format!("the agent of node {name} {what}: GPU faults there have no other source"),
        detail: String::new(),
    };
    source::about(finding, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EpisodeState, GpuName};

    fn episode(agent: &AgentName, complaint: &str, alertname: &str) -> Episode {
        let finding = Finding {
            complaint: complaint.to_owned(),
            status: EventStatus::Firing,
            at: Time::UNIX_EPOCH,
            severity: Severity::Critical,
            gpu: Some(GpuName { pci: "0000:65:00.0".to_owned(), ..GpuName::default() }),
            labels: [("alertname".to_owned(), alertname.to_owned())].into(),
            summary: String::new(),
            detail: String::new(),
        };
        Episode {
            id: EpisodeId(1),
            state: EpisodeState::Open,
            incident: None,
            opened_at: Time::UNIX_EPOCH,
            last_seen: Time::UNIX_EPOCH,
            seen: 1,
            reopened: 0,
            event: source::about(finding, agent).unwrap(),
        }
    }

    #[test]
    fn a_complaint_from_before_an_upgrade_that_named_the_cluster_is_ended_once_its_agent_has_spoken_for_long() {
        let (before, now) = (AgentName::new("", "gpu-1"), AgentName::new("eu", "gpu-1"));
        let (other, elsewhere) = (AgentName::new("eu", "gpu-2"), AgentName::new("us", "gpu-1"));
        let check = |of: &AgentName, alertname: &str, speaking: &[&AgentName], expect: bool| {
            let found =
                is_forgotten(&episode(of, "xid-79 0000:65:00.0", alertname), &speaking.iter().copied().collect());
            assert_eq!(found, expect, "{of:?} {alertname} {speaking:?}");
        };
        check(&before, "GpuXid", &[&now], true);
        check(&now, "GpuXid", &[&now], true);
        check(&now, "GpuXid", &[&elsewhere], false);
        check(&before, "GpuXid", &[&other], false);
        check(&before, "GpuXid", &[], false);
        check(&before, SILENT, &[&now], false);
    }
}
