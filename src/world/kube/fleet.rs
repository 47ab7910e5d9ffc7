//! Which nodes a cluster has and which are out of service, kept by a watch, or read by lists that callers share.
//!
//! Invariant: an answer says when it was read; a memory that nobody has proven for some seconds answers nothing: then the
//! cluster is listed, and a list is shared only with those who came before it began.

use super::{Kube, Node};
use crate::clock::Clock;
use crate::limits;
use crate::model::Time;
use crate::world::WorldError;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// GPU nodes, or all where none has a GPU; and those out of service, whoever did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::world) struct Level {
    pub total: u32,
    pub out: Vec<String>,
    /// What happened before this is in it; what our own program changed after it is in it too.
    pub read_at: Time,
}

/// What is kept of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    version: u64,
    gpus: u32,
    out: bool,
}

#[derive(Default)]
struct Known {
    nodes: HashMap<String, Seen>,
    /// A watch is under way, so the map follows the cluster.
    live: bool,
    /// When the map was last known to be what the cluster is.
    proven: Option<Time>,
    /// Why there is no watch, and since when.
    broken: Option<(Time, String)>,
}

/// The last shared list: which one it was, and what came of it.
struct Shared {
    number: u64,
    answer: Result<Level, WorldError>,
}

#[derive(Default)]
pub(super) struct Fleet {
    known: Mutex<Known>,
    /// Lists begun so far. Whoever reads it before waiting for the turn knows which lists began later.
    begun: std::sync::atomic::AtomicU64,
    turn: tokio::sync::Mutex<Option<Shared>>,
}

impl Fleet {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node as an answer of the API server just showed it: what we changed ourselves is known at once.
    pub fn observe(&self, node: &Node) {
        // Only what is known already: an answer may be older than the node's end.
        if let Some(seen) = self.known().nodes.get_mut(&node.name) {
            seen.take(node);
        }
    }

    pub fn changed(&self, node: &Node, now: Time) {
        let mut known = self.known();
        known.nodes.entry(node.name.clone()).or_insert_with(|| Seen::of(node)).take(node);
        known.proven = Some(now);
    }

    pub fn gone(&self, name: &str, now: Time) {
        let mut known = self.known();
        known.nodes.remove(name);
        known.proven = Some(now);
    }

    /// The watch has said that nothing is new.
    pub fn alive(&self, now: Time) {
        let mut known = self.known();
        known.proven = Some(now);
        known.live = true;
        known.broken = None;
    }

    pub fn broken(&self, why: String, now: Time) {
        let mut known = self.known();
        known.live = false;
        let since = known.broken.as_ref().map_or(now, |(since, _)| *since);
        known.broken = Some((since, why));
    }

    /// Since when there is no watch, and why.
    pub fn trouble(&self) -> Option<(Time, String)> {
        self.known().broken.clone()
    }

    /// A whole list, begun at that time. `version`: the list's own.
    pub fn listed<'n>(&self, nodes: impl Iterator<Item = &'n Node>, version: u64, began: Time) {
        let mut fresh: HashMap<String, Seen> = nodes.map(|node| (node.name.clone(), Seen::of(node))).collect();
        let mut known = self.known();
        for (name, seen) in known.nodes.drain() {
            match fresh.get_mut(&name) {
                Some(listed) if listed.version < seen.version => *listed = seen,
                // It came after the list was made.
                None if version > 0 && seen.version > version => drop(fresh.insert(name, seen)),
                _ => {}
            }
        }
        known.nodes = fresh;
        known.proven = known.proven.max(Some(began));
    }

    fn remembered(&self, now: Time) -> Option<Level> {
        let known = self.known();
        let proven = known.proven.filter(|_| known.live)?;
        // A clock that was set back proves nothing.
        let fresh = proven <= now && proven + limits::FLEET_FRESH >= now;
        fresh.then(|| level(known.nodes.iter().map(|(name, seen)| (name, *seen)), proven))
    }
}

impl Seen {
    fn of(node: &Node) -> Seen {
        let out = node.unschedulable || !node.ready;
        Seen { version: version(&node.resource_version), gpus: node.gpus, out }
    }

    /// Versions grow; an answer that was on its way for long must not undo a newer one.
    fn take(&mut self, node: &Node) {
        let newer = Seen::of(node);
        if newer.version >= self.version {
            *self = newer;
        }
    }
}

/// Zero where a server's versions are no numbers: then the last word counts.
pub(super) fn version(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

fn level<'n>(nodes: impl Iterator<Item = (&'n String, Seen)> + Clone, read_at: Time) -> Level {
    let any_gpu = nodes.clone().any(|(_, seen)| seen.gpus > 0);
    let fleet = nodes.filter(|(_, seen)| seen.gpus > 0 || !any_gpu);
    let (mut total, mut out) = (0, Vec::new());
    for (name, seen) in fleet {
        total += 1;
        if seen.out {
            out.push(name.clone());
        }
    }
    out.sort_unstable();
    Level { total, out, read_at }
}

impl Kube {
    /// How many nodes there are and which are out: from memory where a watch has proven it within seconds, else listed.
    pub(in crate::world) async fn level(&self, clock: &dyn Clock) -> Result<Level, WorldError> {
        use std::sync::atomic::Ordering;
        if let Some(level) = self.fleet.remembered(clock.now()) {
            return Ok(level);
        }
        let before = self.fleet.begun.load(Ordering::Acquire);
        let mut turn = self.fleet.turn.lock().await;
        if let Some(shared) = turn.as_ref().filter(|shared| shared.number > before) {
            return shared.answer.clone();
        }
        let number = self.fleet.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let began = clock.now();
        let answer = self.list_level(began).await;
        *turn = Some(Shared { number, answer: answer.clone() });
        answer
    }

    async fn list_level(&self, began: Time) -> Result<Level, WorldError> {
        let (nodes, list_version) = self.nodes_and_version().await?;
        let seen: Vec<(String, Seen)> = nodes.iter().map(|node| (node.name.clone(), Seen::of(node))).collect();
        self.fleet.listed(nodes.iter(), version(&list_version), began);
        Ok(level(seen.iter().map(|(name, seen)| (name, *seen)), began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, version: u64, unschedulable: bool) -> Node {
        Node {
            name: name.to_owned(),
            uid: String::new(),
            resource_version: version.to_string(),
            labels: [].into(),
            annotations: [].into(),
            unschedulable,
            taints: vec![],
            taints_sent: vec![],
            ready: true,
            boot_id: String::new(),
            gpus: 8,
            gpus_allocatable: 8,
        }
    }

    fn at(second: i64) -> Time {
        Time::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn a_memory_answers_only_while_a_watch_proves_it() {
        let fleet = Fleet::default();
        fleet.listed([node("a", 5, false), node("b", 6, true)].iter(), 7, at(0));
        assert_eq!(fleet.remembered(at(1)), None, "a list alone is no watch");
        fleet.alive(at(2));
        let level = fleet.remembered(at(3)).unwrap();
        assert_eq!((level.total, level.out, level.read_at), (2, vec!["b".to_owned()], at(2)));
        assert_eq!(fleet.remembered(at(2) + limits::FLEET_FRESH + std::time::Duration::from_secs(1)), None);
        assert_eq!(fleet.remembered(at(1)), None, "the clock was set back");
        fleet.broken("gone".to_owned(), at(4));
        assert_eq!(fleet.remembered(at(4)), None);
        assert_eq!(fleet.trouble(), Some((at(4), "gone".to_owned())));
    }

    #[test]
    fn what_we_changed_ourselves_counts_at_once_and_an_old_answer_does_not_undo_it() {
        let fleet = Fleet::default();
        fleet.listed([node("a", 5, false)].iter(), 7, at(0));
        fleet.alive(at(0));
        fleet.observe(&node("a", 9, true));
        fleet.changed(&node("a", 8, false), at(1));
        fleet.listed([node("a", 5, false)].iter(), 7, at(1));
        assert_eq!(fleet.remembered(at(1)).unwrap().out, ["a"]);
        fleet.observe(&node("ghost", 3, true));
        assert_eq!(fleet.remembered(at(1)).unwrap().total, 1);
        fleet.gone("a", at(1));
        assert_eq!(fleet.remembered(at(1)).unwrap().total, 0);
    }
}
