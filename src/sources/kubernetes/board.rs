//! The present conditions of a cluster, against those that the store has: the difference must still be sent.
//!
//! Invariant: bounded by the number of conditions, not of their repeats; no condition is dropped until its end was
//! taken over.

use super::{ObjectCondition, is_ours, node, pod, silent_kubelet, warning};
use crate::config::SourceConfig;
use crate::limits;
use crate::model::{Event, EventStatus, Labels, Time};
use crate::sources::draft::{DecodeGaps, EventDraft};
use crate::world::{EventSeen, LeaseSeen, NodeSeen, PodSeen, WatchEvent};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The kinds of objects that are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WatchedKind {
    Node,
    Pod,
    Warning,
    Lease,
    /// An inference engine, which probes look at.
    Engine,
}

/// One condition that the store has, or will have.
struct TrackedCondition {
    event: Event,
    object: (WatchedKind, String),
    occurrence: Option<String>,
    linger: Duration,
    /// Out of sight since then.
    absent: Option<Time>,
    /// When it was last received.
    heard: Time,
    /// When it was last sent to the store; none: it must be.
    told: Option<Time>,
}

/// The conditions of one cluster for one source.
pub struct ConditionTracker {
    name: String,
    source: SourceConfig,
    /// The `cluster` label, where there are several.
    cluster: String,
    entries: BTreeMap<String, TrackedCondition>,
    objects: HashMap<(WatchedKind, String), Vec<String>>,
    /// While a list is read: the objects with conditions that it named.
    listing: HashMap<WatchedKind, HashSet<String>>,
    whole: HashSet<WatchedKind>,
    /// Hashes of `namespace/name` of the pods that are ours, for their Events.
    our_pods: HashSet<u64>,
    listed_pods: HashSet<u64>,
    hasher: RandomState,
    /// Each kubelet's last word, and for how long we have looked on without hearing another one.
    leases: HashMap<String, (String, Duration)>,
    /// When the Leases were last listed.
    leases_read: Option<Time>,
    /// New warnings in this minute.
    minute: (i64, usize),
    /// Conditions that were left out since the store took over the last gap, and how many of them the gap under way names.
    left_out: usize,
    named: usize,
}

impl ConditionTracker {
    /// A board of one source without conditions; nothing was listed yet.
    pub fn new(name: &str, source: &SourceConfig, cluster: &str) -> ConditionTracker {
        ConditionTracker {
            name: name.to_owned(),
            source: source.clone(),
            cluster: cluster.to_owned(),
            entries: BTreeMap::new(),
            objects: HashMap::new(),
            listing: HashMap::new(),
            whole: HashSet::new(),
            our_pods: HashSet::new(),
            listed_pods: HashSet::new(),
            hasher: RandomState::new(),
            leases: HashMap::new(),
            leases_read: None,
            minute: (0, 0),
            left_out: 0,
            named: 0,
        }
    }

    /// Takes the present conditions of an inference engine.
    pub fn hear_engine(&mut self, engine: &str, complaints: Vec<ObjectCondition>, now: Time) {
        self.say(WatchedKind::Engine, engine, complaints, now);
    }

    /// The engine is no longer probed, so its conditions are over.
    pub fn forget_engine(&mut self, engine: &str, now: Time) {
        self.gone(WatchedKind::Engine, engine, now);
    }

    /// Takes a change of a node.
    pub fn hear_node(&mut self, told: &WatchEvent<NodeSeen>, now: Time) {
        match told {
            WatchEvent::Is(seen) => self.say(WatchedKind::Node, &seen.node.name, node(seen), now),
            WatchEvent::Gone(seen) => {
                self.gone(WatchedKind::Node, &seen.node.name, now);
                self.gone(WatchedKind::Lease, &seen.node.name, now);
            }
            other => self.phase(WatchedKind::Node, other, now),
        }
    }

    /// `theirs`: the time by the cluster's clock, which its own times are compared with.
    pub fn hear_pod(&mut self, told: &WatchEvent<PodSeen>, now: Time, theirs: Time) {
        match told {
            WatchEvent::Is(seen) => {
                let (pod_of, name) = (&seen.pod, format!("{}/{}", seen.pod.namespace, seen.pod.name));
                if !is_ours(seen, &self.source) {
                    return;
                }
                let hash = self.hasher.hash_one(&name);
                self.our_pods.insert(hash);
                if self.listing.contains_key(&WatchedKind::Pod) {
                    self.listed_pods.insert(hash);
                }
                let found = if pod_of.terminating { Vec::new() } else { pod(seen, theirs) };
                self.say(WatchedKind::Pod, &name, found, now);
            }
            WatchEvent::Gone(seen) => {
                let name = format!("{}/{}", seen.pod.namespace, seen.pod.name);
                self.our_pods.remove(&self.hasher.hash_one(&name));
                self.gone(WatchedKind::Pod, &name, now);
            }
            other => {
                self.phase(WatchedKind::Pod, other, now);
                match other {
                    WatchEvent::Restart => self.listed_pods.clear(),
                    WatchEvent::Whole => self.our_pods = std::mem::take(&mut self.listed_pods),
                    _ => {}
                }
            }
        }
    }

    /// `theirs`: as in `hear_pod`.
    pub fn hear_warning(&mut self, told: &WatchEvent<EventSeen>, now: Time, theirs: Time) {
        match told {
            WatchEvent::Is(seen) => {
                let ours = |namespace: &str, name: &str| {
                    let hash = self.hasher.hash_one(format!("{namespace}/{name}"));
                    self.our_pods.contains(&hash) || self.source.namespaces.iter().any(|known| known == namespace)
                };
                if let Some(complaint) = warning(seen, ours, theirs) {
                    let object = format!("{}/{}", seen.namespace, seen.name);
                    self.say(WatchedKind::Warning, &object, vec![complaint], now);
                }
            }
            // Kubernetes forgets its Events after an hour; they are over once they are not repeated.
            WatchEvent::Gone(_) => {}
            other => self.phase(WatchedKind::Warning, other, now),
        }
    }

    /// All Leases, as they were listed. Time without a list, or in which a clock jumped, is no evidence about kubelets:
    /// they cannot renew a Lease either where the API server is away.
    pub fn hear_leases(&mut self, leases: Vec<LeaseSeen>, now: Time) {
        let gap = self.leases_read.map_or(0, |before| now.as_microsecond() - before.as_microsecond());
        let gap = Duration::from_micros(u64::try_from(gap).unwrap_or(0));
        let looked = if gap <= limits::LEASES_GAP { gap } else { Duration::ZERO };
        self.leases_read = Some(now);
        let mut fresh = HashMap::with_capacity(leases.len());
        for lease in leases {
            let silent = match self.leases.remove(&lease.name) {
                Some((renewed, silent)) if renewed == lease.renewed => silent + looked,
                _ => Duration::ZERO,
            };
            let found = if silent >= limits::LEASE_STALE { vec![silent_kubelet(&lease.name, silent)] } else { vec![] };
            self.say(WatchedKind::Lease, &lease.name, found, now);
            fresh.insert(lease.name, (lease.renewed, silent));
        }
        let gone: Vec<String> = std::mem::replace(&mut self.leases, fresh).into_keys().collect();
        for name in gone {
            self.gone(WatchedKind::Lease, &name, now);
        }
        self.whole.insert(WatchedKind::Lease);
    }

    fn phase<T>(&mut self, kind: WatchedKind, told: &WatchEvent<T>, now: Time) {
        match told {
            WatchEvent::Restart => {
                self.listing.insert(kind, HashSet::new());
            }
            WatchEvent::Whole => {
                let named = self.listing.remove(&kind).unwrap_or_default();
                self.whole.insert(kind);
                if kind == WatchedKind::Warning {
                    return;
                }
                let known = self.objects.keys().filter(|(of, object)| *of == kind && !named.contains(object));
                let gone: Vec<String> = known.map(|(_, object)| object.clone()).collect();
                for object in gone {
                    self.gone(kind, &object, now);
                }
            }
            _ => {}
        }
    }

    /// Takes the present conditions of an object; its earlier ones that are not among them are over.
    fn say(&mut self, kind: WatchedKind, object: &str, complaints: Vec<ObjectCondition>, now: Time) {
        let key = (kind, object.to_owned());
        let known = self.objects.get(&key).cloned().unwrap_or_default();
        if complaints.is_empty() && known.is_empty() {
            return;
        }
        if let Some(named) = self.listing.get_mut(&kind) {
            named.insert(object.to_owned());
        }
        let mut current = Vec::new();
        for complaint in complaints {
            if let Some(fingerprint) = self.complain(&key, complaint, now) {
                current.push(fingerprint);
            }
        }
        for fingerprint in known.iter().filter(|fingerprint| !current.contains(fingerprint)) {
            if let Some(entry) = self.entries.get_mut(fingerprint) {
                entry.absent.get_or_insert(now);
            }
        }
        let list = self.objects.entry(key).or_default();
        for fingerprint in current {
            if !list.contains(&fingerprint) {
                list.push(fingerprint);
            }
        }
    }

    fn complain(&mut self, object: &(WatchedKind, String), complaint: ObjectCondition, now: Time) -> Option<String> {
        let (occurrence, linger) = (complaint.occurrence.clone(), complaint.linger);
        let event = self.event(complaint, now)?;
        let fingerprint = event.fingerprint.clone();
        if let Some(entry) = self.entries.get_mut(&fingerprint) {
            entry.absent = None;
            let again = occurrence.is_some() && entry.occurrence != occurrence;
            if again || entry.event.status == EventStatus::Resolved {
                if entry.event.status == EventStatus::Resolved {
                    entry.event = event;
                    entry.told = None;
                }
                entry.heard = now;
            }
            entry.occurrence = occurrence;
            return Some(fingerprint);
        }
        if self.is_too_much(occurrence.is_some(), now) {
            self.left_out += 1;
            return None;
        }
        let entry = TrackedCondition {
            event,
            object: object.clone(),
            occurrence,
            linger,
            absent: None,
            heard: now,
            told: None,
        };
        self.entries.insert(fingerprint.clone(), entry);
        Some(fingerprint)
    }

    /// Holds the number of conditions, and of new warnings in a minute.
    fn is_too_much(&mut self, happens: bool, now: Time) -> bool {
        if self.entries.len() >= limits::COMPLAINTS {
            return true;
        }
        let minute = now.as_second() / 60;
        if self.minute.0 != minute {
            self.minute = (minute, 0);
        }
        if happens {
            self.minute.1 += 1;
        }
        happens && self.minute.1 > limits::WARNINGS_PER_MINUTE
    }

    fn event(&self, complaint: ObjectCondition, now: Time) -> Option<Event> {
        let identity = complaint.labels.into_iter().chain([
            ("alertname", complaint.name.to_owned()),
            ("cluster", self.cluster.clone()),
            ("severity", complaint.severity.to_string()),
        ]);
        let message = [("message", complaint.message)];
        let draft = EventDraft {
            key: None,
            status: EventStatus::Firing,
            starts_at: complaint.since.filter(|since| *since <= now).unwrap_or(now),
            ends_at: None,
            labels: identity.collect::<Labels>(),
            annotations: message.into_iter().collect(),
            severity: Some(complaint.severity),
            summary: Some(complaint.summary),
            url: String::new(),
        };
        // A name that is too long for a label cannot come from an API server.
        draft.finish(&self.name, &self.source, &mut DecodeGaps::default()).ok()
    }

    fn gone(&mut self, kind: WatchedKind, object: &str, now: Time) {
        for fingerprint in self.objects.remove(&(kind, object.to_owned())).unwrap_or_default() {
            if let Some(entry) = self.entries.get_mut(&fingerprint) {
                end(entry, now);
            }
        }
    }

    /// The events for the store, at most so many: new ones, ended ones, and those that must be repeated. With them, in
    /// words, the number left out, until `told`.
    pub fn take(&mut self, most: usize, now: Time) -> (Vec<Event>, Vec<String>) {
        let refresh = self.source.stale_after.0 / 4;
        let mut events = Vec::new();
        for entry in self.entries.values_mut() {
            let quiet = entry.occurrence.is_some() && entry.heard + limits::WARNING_QUIET <= now;
            let calm = entry.occurrence.is_none() && entry.absent.is_some_and(|since| since + entry.linger <= now);
            if entry.event.status == EventStatus::Firing && (quiet || calm) {
                end(entry, now);
            }
            if events.len() < most && entry.told.is_none_or(|told| told + refresh <= now) {
                events.push(entry.event.clone());
            }
        }
        let left_out = self.left_out;
        self.named = left_out;
        let words = format!(
            "{left_out} alerts of the cluster were dropped: the limits are {} at once and {} new warnings a minute",
            limits::COMPLAINTS,
            limits::WARNINGS_PER_MINUTE
        );
        (events, if left_out > 0 { vec![words] } else { Vec::new() })
    }

    /// The store has taken these over, with the gap of the same `take`.
    pub fn told(&mut self, events: &[Event], now: Time) {
        self.left_out = self.left_out.saturating_sub(std::mem::take(&mut self.named));
        for event in events {
            let Some(entry) = self.entries.get_mut(&event.fingerprint) else { continue };
            // It may have changed while it was on its way.
            if entry.event.status != event.status {
                continue;
            }
            entry.told = Some(now);
            if event.status == EventStatus::Resolved
                && let Some(entry) = self.entries.remove(&event.fingerprint)
                && let Some(list) = self.objects.get_mut(&entry.object)
            {
                list.retain(|fingerprint| *fingerprint != event.fingerprint);
                if list.is_empty() {
                    self.objects.remove(&entry.object);
                }
            }
        }
    }

    /// Whether all kinds were listed, so that an object that is not here does not exist.
    pub fn is_whole(&self) -> bool {
        self.listing.is_empty() && self.whole.len() == 4
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.objects.is_empty()
    }

    /// Whether the condition with this fingerprint holds.
    pub fn is_firing(&self, fingerprint: &str) -> bool {
        self.entries.get(fingerprint).is_some_and(|entry| entry.event.status == EventStatus::Firing)
    }
}

fn end(entry: &mut TrackedCondition, now: Time) {
    if entry.event.status == EventStatus::Firing {
        entry.event.status = EventStatus::Resolved;
        entry.event.ends_at = Some(now);
        entry.told = None;
    }
}
