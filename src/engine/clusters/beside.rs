//! Our runs as others on a cluster see them: the condition of a held node, and Events for `kubectl get events`.
//!
//! Invariant: nothing waits for it and nothing fails by it. Conditions follow the held nodes, so a crash loses none;
//! Events bear names made of their entry, so the last hour is simply written again after a start, and is there once.

use crate::actions;
use crate::engine::EngineParts;
use crate::limits;
use crate::model::{ActionCall, Entry, EntryKind, ImpactScope, Outcome, RunId, Step, Subject, Time};
use crate::store::{Filter, HeldNode, StoreError};
use crate::world::{EventNote, WorldError};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Our condition on each node, as the watch last showed it: held or not, and the words.
#[derive(Default)]
pub(super) struct NodeConditions(HashMap<String, (bool, String)>);

impl NodeConditions {
    /// Takes a node's condition from the watch: whether it shows the node as held, and the words; none: it has none.
    pub fn saw(&mut self, node: &str, held: Option<(bool, String)>) {
        match held {
            Some(held) => drop(self.0.insert(node.to_owned(), held)),
            None => drop(self.0.remove(node)),
        }
    }

    /// The conditions to write: the node, and the words if it is held.
    fn differs(&self, holds: &BTreeMap<&str, String>) -> Vec<(String, Option<String>)> {
        let held = holds.iter().filter(|(node, words)| self.0.get(**node) != Some(&(true, (*words).clone())));
        let held = held.map(|(node, words)| ((*node).to_owned(), Some(words.clone())));
        let over = self.0.iter().filter(|(node, (held, _))| *held && !holds.contains_key(node.as_str()));
        held.chain(over.map(|(node, _)| (node.clone(), None))).take(limits::BESIDE_BATCH).collect()
    }
}

pub(super) async fn conditions(parts: EngineParts, shown: BTreeMap<String, Arc<Mutex<NodeConditions>>>) {
    let mut nudged = parts.nudge.listen();
    loop {
        match parts.store.holds().await {
            Ok(holds) => {
                for (cluster, shown) in &shown {
                    follow(&parts, cluster, shown, &holds).await;
                }
            }
            Err(error) => tracing::error!(%error, "cannot read which nodes are reserved"),
        }
        tokio::select! {
            () = parts.clock.sleep_for(limits::BESIDE_EVERY) => {}
            () = async { nudged.heard().await; parts.clock.sleep_for(limits::COMPLAINTS_EVERY).await } => {}
        }
    }
}

async fn follow(parts: &EngineParts, cluster: &str, shown: &Mutex<NodeConditions>, holds: &[HeldNode]) {
    let Ok(kube) = parts.world.kube(Some(cluster)) else { return };
    let here = holds.iter().filter(|hold| hold.cluster == cluster);
    let here: BTreeMap<&str, String> =
        here.map(|hold| (hold.node.as_str(), format!("run {} ({})", hold.run, hold.runbook))).collect();
    let differs = shown.lock().unwrap_or_else(PoisonError::into_inner).differs(&here);
    for (node, words) in differs {
        let is_held = words.is_some();
        let reason = if is_held { "RunHoldsNode" } else { "NoRun" };
        let words = words.unwrap_or_else(|| "no run holds this node".to_owned());
        match kube.set_condition(&node, is_held, reason, &words, parts.clock.now()).await {
            Ok(()) => {}
            Err(WorldError::NotFound(_)) => {}
            Err(error) => {
                tracing::debug!(cluster, node, %error, "our condition could not be written; it is tried again");
                // The API server does not take them now; asking for each node would only load it.
                return;
            }
        }
        // As the watch will show it; where there is none, so that it is not written again and again.
        shown.lock().unwrap_or_else(PoisonError::into_inner).saw(&node, Some((is_held, words)));
    }
}

/// Writes the ledger's entries about steps that change something as Events.
pub(super) async fn events(parts: EngineParts) {
    const KINDS: [&str; 4] = ["step_begun", "step_denied", "step_ended", "step_held"];
    let mut after: Option<i64> = None;
    let mut told = 0;
    let mut pace = EventLimiter::default();
    let mut nudged = parts.nudge.listen();
    loop {
        let limit = if after.is_some() { limits::BESIDE_BATCH } else { limits::READ_LIMIT };
        let filter = Filter { kinds: KINDS.to_vec(), after, limit, ..Filter::default() };
        match parts.store.entries(filter).await {
            Ok(mut entries) => {
                if after.is_none() {
                    // The newest come first; entries older than the hour that Events live are not written any more.
                    let since = parts.clock.now() - limits::BESIDE_BACK.0;
                    entries.retain(|entry| entry.at >= since);
                    entries.reverse();
                    after = Some(-1);
                }
                told = entries.len();
                for entry in entries {
                    after = after.max(Some(entry.no.0));
                    if matches!(entry.kind, EntryKind::StepHeld { .. }) && !pace.takes(parts.clock.now()) {
                        continue;
                    }
                    if let Err(error) = show(&parts, entry).await {
                        tracing::debug!(%error, "an Event could not be written to the cluster");
                    }
                }
            }
            Err(error) => tracing::error!(%error, "cannot read the results of steps"),
        }
        if told == limits::BESIDE_BATCH {
            continue;
        }
        tokio::select! {
            () = parts.clock.sleep_for(limits::BESIDE_EVERY) => {}
            () = nudged.heard() => {}
        }
    }
}

/// Holds back Events about steps that wait once there are many of them, and returns the number held back.
#[derive(Default)]
struct EventLimiter {
    minute: i64,
    taken: u32,
    left_out: u32,
}

impl EventLimiter {
    fn takes(&mut self, now: Time) -> bool {
        let minute = now.as_second().div_euclid(60);
        if minute != self.minute {
            if self.left_out > 0 {
                let left_out = self.left_out;
                tracing::warn!(
                    left_out,
                    "too many steps are pending: no Events were written for these; `nightshift runs` lists them"
                );
            }
            *self = EventLimiter { minute, ..EventLimiter::default() };
        }
        let takes = self.taken < limits::HELD_EVENTS_PER_MINUTE;
        match takes {
            true => self.taken += 1,
            false => self.left_out += 1,
        }
        takes
    }
}

#[derive(Debug, thiserror::Error)]
enum StatusWriteError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    World(#[from] WorldError),
}

async fn show(parts: &EngineParts, entry: Entry) -> Result<(), StatusWriteError> {
    let Some(id) = entry.about.run else { return Ok(()) };
    let Some((call, cluster)) = about(parts, id, &entry.kind).await? else { return Ok(()) };
    let Some(action) = actions::find(&call.action).filter(|action| action.spec().reach > ImpactScope::None) else {
        return Ok(());
    };
    let target = action.target(&call);
    let cluster = target.cluster.clone().or(cluster);
    let Some(note) = note(&entry, id, &call, &target) else { return Ok(()) };
    match parts.world.kube(cluster.as_deref())?.write_event(&note).await {
        Err(WorldError::Conflict(_)) => Ok(()),
        answer => Ok(answer?),
    }
}

/// The call that an entry is about, and the cluster of its run.
async fn about(
    parts: &EngineParts,
    id: RunId,
    kind: &EntryKind,
) -> Result<Option<(ActionCall, Option<String>)>, StoreError> {
    let run = parts.store.runs(Filter { run: Some(id), limit: 1, ..Filter::default() }).await?;
    let cluster = run.into_iter().next().and_then(|run| run.subject.cluster);
    let call = match kind {
        EntryKind::StepBegun { call, .. } | EntryKind::StepHeld { call, .. } | EntryKind::StepDenied { call, .. } => {
            Some(call.clone())
        }
        EntryKind::StepEnded { step, .. } => {
            let steps: Vec<Step> = parts.store.steps(id).await?;
            steps.into_iter().find(|found| found.no == *step).map(|step| step.call)
        }
        _ => None,
    };
    Ok(call.map(|call| (call, cluster)))
}

fn note(entry: &Entry, run: RunId, call: &ActionCall, target: &Subject) -> Option<EventNote> {
    let (kind, namespace, object) = match (&target.namespace, &target.pod, &target.node) {
        (Some(namespace), Some(pod), _) => ("Pod", namespace.clone(), pod.clone()),
        (_, _, Some(node)) => ("Node", String::new(), node.clone()),
        _ => return None,
    };
    let (reason, is_warning, words) = match &entry.kind {
        EntryKind::StepBegun { undoes: Some(_), .. } => ("StepBegun", false, format!("undoes: {call}")),
        EntryKind::StepBegun { .. } => ("StepBegun", false, format!("begins: {call}")),
        EntryKind::StepEnded { outcome: Outcome::Ok(_), .. } => ("StepEnded", false, format!("done: {call}")),
        EntryKind::StepEnded { outcome: Outcome::Failed(failure), .. } => {
            ("StepFailed", true, format!("failed: {call}: {failure}"))
        }
        EntryKind::StepHeld { reason, .. } => ("StepHeld", false, format!("waits: {call}: {reason}")),
        EntryKind::StepDenied { reason, .. } => ("StepDenied", true, format!("not done: {call}: {reason}")),
        _ => return None,
    };
    Some(EventNote {
        name: format!("nightshift.{run}.e{}.{}", entry.no.0, entry.at.as_microsecond()),
        kind,
        namespace,
        object,
        reason,
        action: call.action.replace("::", "-"),
        note: format!("run {run} {words}"),
        is_warning,
        at: entry.at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_thousand_steps_that_wait_a_hundred_are_shown_in_a_minute() {
        let mut pace = EventLimiter::default();
        let at = |second: i64| Time::from_second(1_700_000_040 + second).unwrap();
        let shown = (0..1_000).filter(|_| pace.takes(at(0))).count();
        assert_eq!(shown, limits::HELD_EVENTS_PER_MINUTE as usize);
        assert_eq!(pace.left_out, 900);
        assert!(pace.takes(at(60)), "the next minute has its own");
    }

    #[test]
    fn only_what_differs_from_what_is_shown_is_written() {
        let mut shown = NodeConditions::default();
        shown.saw("a", Some((true, "run r1 (x)".to_owned())));
        shown.saw("b", Some((true, "run r2 (x)".to_owned())));
        shown.saw("c", Some((false, String::new())));
        let holds: BTreeMap<&str, String> =
            [("a", "run r1 (x)".to_owned()), ("c", "run r3 (x)".to_owned()), ("d", "run r4 (x)".to_owned())].into();
        let mut differs = shown.differs(&holds);
        differs.sort();
        let write = |node: &str, words: Option<&str>| (node.to_owned(), words.map(str::to_owned));
        assert_eq!(differs, [write("b", None), write("c", Some("run r3 (x)")), write("d", Some("run r4 (x)"))]);
    }
}
