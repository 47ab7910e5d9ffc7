//! Agents that have gone silent: that node is no longer monitored, which is worth an incident.
//!
//! Invariant: silence is judged only by a process that has itself listened for long enough.

use super::EngineParts;
use super::scheduler::StaleEpisodes;
use super::tell;
use crate::limits;
use crate::model::{AgentName, Episode, Event, EventStatus, Finding, Severity, Time};
use crate::planted::planted;
use crate::sources::agent as source;
use crate::store::{AgentProof, AgentRow, BatchOrigin, EventBatch};
use crate::world::WorldError;
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;

const SILENT: &str = "NightshiftAgentSilent";

pub(super) async fn run(parts: EngineParts, mut shutdown: watch::Receiver<bool>) {
    let began = std::time::Instant::now();
    // None: not judged yet by this process.
    let mut judged: BTreeMap<AgentName, bool> = BTreeMap::new();
    let mut doubted: BTreeSet<AgentName> = BTreeSet::new();
    let mut speaking: BTreeMap<AgentName, Time> = BTreeMap::new();
    while !*shutdown.borrow() {
        if began.elapsed() >= parts.config.agents.silent_after.0 {
            look(&parts, &mut judged, &mut doubted).await;
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

/// Reports for each agent the changes since the last look. `doubted`: agents that were reported silent although Kubernetes did
/// not answer whether their node still exists.
async fn look(parts: &EngineParts, judged: &mut BTreeMap<AgentName, bool>, doubted: &mut BTreeSet<AgentName>) {
    let rows = match parts.store.agents().await {
        Ok(rows) => rows,
        Err(error) => return tracing::error!(%error, "cannot check for silent agents; retrying"),
    };
    let after = parts.config.agents.silent_after;
    let seen = parts.world.agents.list();
    let speaks = |row: &AgentRow| seen.iter().any(|seen| seen.name == row.name && seen.silent_for < after.0);
    let silent: BTreeSet<&AgentName> = rows.iter().filter(|row| !speaks(row)).map(|row| &row.name).collect();
    let is_news = |row: &&AgentRow| judged.get(&row.name) != Some(&silent.contains(&row.name));
    let asked = rows.iter().filter(|row| silent.contains(&row.name) && (is_news(row) || doubted.contains(&row.name)));
    let found = nodes(parts, asked.cloned().collect()).await;
    let is_gone = |name: &AgentName| found.get(name) == Some(&NodeExistence::Gone);
    let mut changes: Vec<(AgentName, Option<bool>, Option<Event>)> = Vec::new();
    for row in rows.iter().filter(|row| is_news(row) && !is_gone(&row.name)) {
        let is_silent = silent.contains(&row.name);
        changes.push((row.name.clone(), Some(is_silent), event(parts, row, is_silent)));
    }
    doubted.retain(|name| silent.contains(name) && !found.contains_key(name));
    doubted.extend(found.iter().filter(|(_, node)| **node == NodeExistence::Unknown).map(|(name, _)| name.clone()));
    let there: BTreeSet<&AgentName> = rows.iter().map(|row| &row.name).filter(|name| !is_gone(name)).collect();
    for (name, _) in judged.iter().filter(|(name, silent)| **silent && !there.contains(name)) {
        // Removed by a user or with its node: its silence is over as a matter of ours.
        changes.push((name.clone(), None, about(name, EventStatus::Resolved, parts.clock.now(), "removed")));
    }
    judged.retain(|name, silent| *silent || there.contains(name));
    // A rack or a network that is gone is thousands of them: each request is one transaction, which others wait for.
    for changes in changes.chunks(limits::COMPLAINTS_BATCH) {
        let events: Vec<Event> = changes.iter().filter_map(|(_, _, event)| event.clone()).collect();
        if !events.is_empty() && !hear(parts, events).await {
            return;
        }
        for (name, is_silent, _) in changes {
            match is_silent {
                Some(is_silent) => judged.insert(name.clone(), *is_silent),
                None => judged.remove(name),
            };
        }
    }
}

/// Whether the node of a silent agent still exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeExistence {
    There,
    /// It took its agent with it, which is removed.
    Gone,
    /// Kubernetes did not answer in time.
    Unknown,
}

/// Asks Kubernetes for the nodes of these agents, some at a time and no longer than `AGENT_NODES_WITHIN` in all: an API server
/// that hangs keeps no silent agent from being reported.
async fn nodes(parts: &EngineParts, rows: Vec<AgentRow>) -> BTreeMap<AgentName, NodeExistence> {
    // The seeded bug asks for one node after the other, as long as that takes.
    let (at_once, within) = match planted("hung-api-hides-silence") {
        true => (1, limits::DAY.0),
        false => (limits::AGENT_NODES_AT_ONCE, limits::AGENT_NODES_WITHIN),
    };
    let mut found: BTreeMap<AgentName, NodeExistence> =
        rows.iter().map(|row| (row.name.clone(), NodeExistence::Unknown)).collect();
    let asks = rows.into_iter().map(|row| {
        let parts = parts.clone();
        async move {
            let node = node_of(&parts, &row).await;
            (row.name, node)
        }
    });
    let mut answers = futures::stream::iter(asks).buffer_unordered(at_once);
    let all = async {
        while let Some((name, node)) = answers.next().await {
            found.insert(name, node);
        }
    };
    // Those without an answer stay unknown.
    let _ = tokio::time::timeout(within, all).await;
    drop(answers);
    found
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
    let why = format!(
        "the node's agent reports, but has not repeated this alert for {}: an upgrade may have renamed it",
        limits::AGENT_FORGOTTEN
    );
    let mut unseen = StaleEpisodes::new(source::SOURCE, before);
    loop {
        let open = match unseen.page(parts).await {
            Ok(open) if open.is_empty() => return,
            Ok(open) => open,
            Err(error) => return tracing::error!(%error, "cannot read the silent alerts of agents"),
        };
        let episodes = tell::ids_of(&open, |episode| is_forgotten(episode, &long));
        if !episodes.is_empty() {
            tracing::info!(episodes = episodes.len(), why, "alerts of agents closed");
        }
        if let Err(error) = tell::end(parts, episodes, true, &why).await {
            tracing::error!(%error, "cannot close alerts of agents");
        }
    }
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

/// A node that Kubernetes does not have any more took its agent with it: the agent is removed.
async fn node_of(parts: &EngineParts, row: &AgentRow) -> NodeExistence {
    if row.how != AgentProof::Token {
        return NodeExistence::There;
    }
    let Ok(kube) = parts.world.kube(Some(&row.name.cluster)) else { return NodeExistence::There };
    match kube.node(&row.name.node).await {
        Ok(_) => return NodeExistence::There,
        Err(WorldError::NotFound(_)) => {}
        Err(_) => return NodeExistence::Unknown,
    }
    let why = "its node is not in the cluster any more";
    let removed = parts.store.agent_remove(&row.name, "engine", why, parts.clock.now());
    if let Err(error) = removed.await {
        tracing::warn!(%error, agent = %row.name, "cannot remove an agent whose node is gone");
    }
    parts.world.agents.forget(&row.name);
    NodeExistence::Gone
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
    use crate::model::{EpisodeId, EpisodeState, GpuName};

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
