//! Which nodes a cluster has and which are out of service, kept by a watch, or read by lists that callers share.
//!
//! Invariant: an answer has the time of its read; a map that was not confirmed for some seconds answers nothing: then
//! the cluster is listed, and a list is shared only with callers that came before it began.

use super::{KubeClient, Node};
use crate::clock::Clock;
use crate::limits;
use crate::model::Time;
use crate::planted::planted;
use crate::policy::NodeGroup;
use crate::world::WorldError;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// GPU nodes, or all where none has a GPU; and those out of service, for any reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::world) struct FleetCount {
    pub total: u32,
    pub out: Vec<String>,
    /// By the kept labels: the groups that the node shares with others, or all there are.
    pub groups: Vec<NodeGroup>,
    /// Changes before this are in it; later changes by our own program are in it too.
    pub read_at: Time,
}

/// The groups that an answer includes.
#[derive(Debug, Clone, Copy)]
pub(in crate::world) enum FleetScope<'a> {
    Fleet,
    Node(&'a str),
    Groups,
}

/// The kept fields of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CachedNode {
    version: u64,
    gpus: u32,
    out: bool,
    /// Of the labels that are kept: the place among them, and the value.
    labels: Box<[(usize, Box<str>)]>,
}

#[derive(Default)]
struct FleetCache {
    nodes: HashMap<String, CachedNode>,
    /// A watch is under way, so the map follows the cluster.
    live: bool,
    /// When the map was last known to equal the cluster.
    proven: Option<Time>,
    /// Why there is no watch, and since when.
    broken: Option<(Time, String)>,
}

/// The last shared list: its number, and its result.
struct SharedList {
    number: u64,
    answer: Result<(Time, Arc<CachedNodes>), WorldError>,
}

type CachedNodes = Vec<(String, CachedNode)>;

#[derive(Default)]
pub(super) struct FleetView {
    known: Mutex<FleetCache>,
    /// Labels by which nodes are grouped; set once, before anything is listed.
    kept: OnceLock<Vec<String>>,
    /// Lists begun so far. A caller that reads it before waiting for its turn can tell which lists began later.
    begun: std::sync::atomic::AtomicU64,
    turn: tokio::sync::Mutex<Option<SharedList>>,
}

impl FleetView {
    /// Sets the labels of nodes that are kept. A repeat changes nothing.
    pub fn keep(&self, labels: Vec<String>) {
        let _ = self.kept.set(labels);
    }

    /// The labels that are kept of each node.
    pub fn kept(&self) -> &[String] {
        self.kept.get().map_or(&[], Vec::as_slice)
    }

    fn known(&self) -> MutexGuard<'_, FleetCache> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a node from an answer of the API server: our own changes are known at once.
    pub fn observe(&self, node: &Node) {
        // Only nodes that are known already: an answer may be older than the node's end.
        if let Some(seen) = self.known().nodes.get_mut(&node.name) {
            seen.take(node, self.kept());
        }
    }

    /// Takes a node from the watch.
    pub fn changed(&self, node: &Node, now: Time) {
        let mut known = self.known();
        let kept = self.kept();
        known.nodes.entry(node.name.clone()).or_insert_with(|| CachedNode::of(node, kept)).take(node, kept);
        known.proven = Some(now);
    }

    /// Removes a node: the watch reported its end.
    pub fn gone(&self, name: &str, now: Time) {
        let mut known = self.known();
        known.nodes.remove(name);
        known.proven = Some(now);
    }

    /// The watch has confirmed that nothing is new.
    pub fn alive(&self, now: Time) {
        let mut known = self.known();
        known.proven = Some(now);
        known.live = true;
        known.broken = None;
    }

    /// The watch has ended; the map is no longer current.
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
        let mut fresh: HashMap<String, CachedNode> =
            nodes.map(|node| (node.name.clone(), CachedNode::of(node, self.kept()))).collect();
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

    fn remembered(&self, about: FleetScope<'_>, now: Time) -> Option<FleetCount> {
        let known = self.known();
        let proven = known.proven.filter(|_| known.live)?;
        // A clock that was set back proves nothing.
        let fresh = proven <= now && proven + limits::FLEET_FRESH >= now;
        fresh.then(|| level(known.nodes.iter(), self.kept(), about, proven))
    }
}

impl CachedNode {
    fn of(node: &Node, kept: &[String]) -> CachedNode {
        let out = (node.unschedulable && !planted("cordons-of-others-not-counted")) || !node.ready;
        let label = |(at, key): (usize, &String)| node.labels.get(key).map(|value| (at, value.as_str().into()));
        let labels = kept.iter().enumerate().filter_map(label).collect();
        CachedNode { version: version(&node.resource_version), gpus: node.gpus, out, labels }
    }

    /// Versions grow; an answer that was on its way for long must not undo a newer one.
    fn take(&mut self, node: &Node, kept: &[String]) {
        let newer = CachedNode::of(node, kept);
        if newer.version >= self.version {
            *self = newer;
        }
    }
}

/// Zero where a server's versions are no numbers: then the last word counts.
pub(super) fn version(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

fn level<'n>(
    nodes: impl Iterator<Item = (&'n String, &'n CachedNode)> + Clone,
    kept: &[String],
    about: FleetScope<'_>,
    read_at: Time,
) -> FleetCount {
    let any_gpu = nodes.clone().any(|(_, seen)| seen.gpus > 0);
    // In the order of the labels; only requested groups are made.
    let mut groups: BTreeMap<(usize, &str), NodeGroup> = BTreeMap::new();
    let is_asked = |label: &(usize, Box<str>), shared: &[(usize, Box<str>)]| match about {
        FleetScope::Fleet => false,
        FleetScope::Node(_) => shared.contains(label),
        FleetScope::Groups => true,
    };
    let shared: &[(usize, Box<str>)] = match about {
        FleetScope::Node(about) => nodes.clone().find(|(name, _)| *name == about).map_or(&[], |(_, seen)| &seen.labels),
        FleetScope::Fleet | FleetScope::Groups => &[],
    };
    let (mut total, mut out) = (0, Vec::new());
    for (name, seen) in nodes.filter(|(_, seen)| seen.gpus > 0 || !any_gpu) {
        total += 1;
        if seen.out {
            out.push(name.clone());
        }
        for label in seen.labels.iter().filter(|label| is_asked(label, shared)) {
            let (at, value) = (label.0, &*label.1);
            let group = groups.entry((at, value)).or_insert_with(|| NodeGroup {
                label: kept.get(at).cloned().unwrap_or_default(),
                value: value.to_owned(),
                ..NodeGroup::default()
            });
            group.members.push(name.clone());
            group.out.extend(seen.out.then(|| name.clone()));
        }
    }
    let groups = groups.into_values().collect();
    out.sort_unstable();
    FleetCount { total, out, groups, read_at }
}

impl KubeClient {
    /// How many nodes there are and which are out: from memory where a watch has proven it within seconds, else listed.
    /// `about`: the node whose groups are needed beside the count.
    pub(in crate::world) async fn level(
        &self,
        clock: &dyn Clock,
        about: FleetScope<'_>,
    ) -> Result<FleetCount, WorldError> {
        use std::sync::atomic::Ordering;
        if let Some(level) = self.fleet.remembered(about, clock.now()) {
            return Ok(level);
        }
        let before = self.fleet.begun.load(Ordering::Acquire);
        let mut turn = self.fleet.turn.lock().await;
        if let Some(shared) = turn.as_ref().filter(|shared| shared.number > before) {
            return self.level_of(&shared.answer, about);
        }
        let number = self.fleet.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let began = clock.now();
        let answer = self.list_level(began).await.map(|nodes| (began, Arc::new(nodes)));
        let level = self.level_of(&answer, about);
        *turn = Some(SharedList { number, answer });
        level
    }

    fn level_of(
        &self,
        answer: &Result<(Time, Arc<CachedNodes>), WorldError>,
        about: FleetScope<'_>,
    ) -> Result<FleetCount, WorldError> {
        let (began, nodes) = answer.as_ref().map_err(WorldError::clone)?;
        Ok(level(nodes.iter().map(|(name, seen)| (name, seen)), self.fleet.kept(), about, *began))
    }

    async fn list_level(&self, began: Time) -> Result<CachedNodes, WorldError> {
        let (nodes, list_version) = self.nodes_and_version().await?;
        let seen = nodes.iter().map(|node| (node.name.clone(), CachedNode::of(node, self.fleet.kept()))).collect();
        self.fleet.listed(nodes.iter(), version(&list_version), began);
        Ok(seen)
    }

    /// By these labels nodes are grouped: racks, links, pools.
    pub fn keep_labels(&self, labels: Vec<String>) {
        self.fleet.keep(labels);
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
        let fleet = FleetView::default();
        fleet.listed([node("a", 5, false), node("b", 6, true)].iter(), 7, at(0));
        assert_eq!(fleet.remembered(FleetScope::Fleet, at(1)), None, "a list alone is no watch");
        fleet.alive(at(2));
        let level = fleet.remembered(FleetScope::Fleet, at(3)).unwrap();
        assert_eq!((level.total, level.out, level.read_at), (2, vec!["b".to_owned()], at(2)));
        assert_eq!(
            fleet.remembered(FleetScope::Fleet, at(2) + limits::FLEET_FRESH + std::time::Duration::from_secs(1)),
            None
        );
        assert_eq!(fleet.remembered(FleetScope::Fleet, at(1)), None, "the clock was set back");
        fleet.broken("gone".to_owned(), at(4));
        assert_eq!(fleet.remembered(FleetScope::Fleet, at(4)), None);
        assert_eq!(fleet.trouble(), Some((at(4), "gone".to_owned())));
    }

    #[test]
    fn what_we_changed_ourselves_counts_at_once_and_an_old_answer_does_not_undo_it() {
        let fleet = FleetView::default();
        fleet.listed([node("a", 5, false)].iter(), 7, at(0));
        fleet.alive(at(0));
        fleet.observe(&node("a", 9, true));
        fleet.changed(&node("a", 8, false), at(1));
        fleet.listed([node("a", 5, false)].iter(), 7, at(1));
        assert_eq!(fleet.remembered(FleetScope::Fleet, at(1)).unwrap().out, ["a"]);
        fleet.observe(&node("ghost", 3, true));
        assert_eq!(fleet.remembered(FleetScope::Fleet, at(1)).unwrap().total, 1);
        fleet.gone("a", at(1));
        assert_eq!(fleet.remembered(FleetScope::Fleet, at(1)).unwrap().total, 0);
    }

    #[test]
    fn nodes_are_grouped_with_those_that_bear_the_same_label() {
        let racked = |name: &str, rack: &str, out: bool| {
            let labels = [("rack".to_owned(), rack.to_owned()), ("else".to_owned(), "x".to_owned())];
            Node { labels: labels.into(), ..node(name, 5, out) }
        };
        let fleet = FleetView::default();
        fleet.keep(vec!["pool".to_owned(), "rack".to_owned()]);
        let nodes = [racked("a", "1", false), racked("b", "1", true), racked("c", "2", true), node("d", 5, false)];
        fleet.listed(nodes.iter(), 7, at(0));
        fleet.alive(at(0));
        let groups = fleet.remembered(FleetScope::Node("a"), at(0)).unwrap().groups;
        assert_eq!(groups.len(), 1, "{groups:?}");
        let mut members = groups[0].members.clone();
        members.sort_unstable();
        assert_eq!((groups[0].label.as_str(), groups[0].value.as_str()), ("rack", "1"));
        assert_eq!((members, groups[0].out.clone()), (vec!["a".to_owned(), "b".to_owned()], vec!["b".to_owned()]));
        assert!(fleet.remembered(FleetScope::Node("d"), at(0)).unwrap().groups.is_empty());
    }
}
