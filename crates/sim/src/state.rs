//! The fleet's one state: objects by key, earlier versions, and the indexes that make it quick at a thousand nodes.
//!
//! Invariant: every change goes through `put` or `remove`, so versions, indexes and history cannot disagree.

use super::effects::EffectLog;
use super::health::FleetHealth;
use super::object::{self, ObjectKey, ObjectKind, condition, fnv, gpus_wanted, list, number, text};
use super::{SimOptions, prometheus::QueryTable};
use crate::limits;
use crate::model::Time;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A change that will happen by itself at some time.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FleetTimer {
    /// The pod's containers are up.
    PodStarts(ObjectKey, String),
    /// The pod's containers have stopped.
    PodGone(ObjectKey, String),
    /// Pods on a node that is still not ready are deleted.
    NodeLost(String),
    /// The node repairs itself, if it is still empty.
    Heals(String),
    /// The pod of a Job has ended by itself.
    PodEnds(ObjectKey, String),
    /// A Job's own deadline.
    JobLate(ObjectKey, String),
    /// A Job that has ended is kept no longer.
    JobForgotten(ObjectKey, String),
    /// The node's mig-manager is done with this configuration.
    MigSettles(String, String),
}

/// The scheduler's view of a node.
#[derive(Debug, Clone, Default)]
pub(super) struct SchedulerNode {
    pub ready: bool,
    pub schedulable: bool,
    /// key and effect of taints that keep pods away
    pub taints: Vec<String>,
    pub allocatable: u32,
    /// Who holds which GPU.
    pub slots: Vec<Option<ObjectKey>>,
    /// GPUs that pods hold: counted along, since the scheduler reads every seat for every pod.
    used: u32,
}

impl SchedulerNode {
    /// GPUs that no pod holds.
    pub fn free(&self) -> u32 {
        self.allocatable.saturating_sub(self.used)
    }
}

/// One change of one object: its state before and after.
#[derive(Debug, Clone)]
pub(super) struct ObjectChange {
    pub version: u64,
    pub key: ObjectKey,
    pub old: Option<Arc<Value>>,
    pub new: Option<Arc<Value>>,
}

pub(super) struct FleetState {
    pub options: SimOptions,
    pub now: Time,
    pub objects: BTreeMap<ObjectKey, Arc<Value>>,
    pub version: u64,
    /// The object that each of the last changes replaced, newest last.
    before: VecDeque<(ObjectKey, Option<Arc<Value>>)>,
    /// The last changes as watches send them, oldest first.
    pub changes: VecDeque<ObjectChange>,
    /// Grows when watches under way are to end.
    pub watch_age: u64,
    pub timers: BTreeMap<(Time, u64), FleetTimer>,
    timer_no: u64,
    uids: u64,
    pub pods_on: BTreeMap<String, BTreeSet<ObjectKey>>,
    pub owned: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    pub seats: BTreeMap<String, SchedulerNode>,
    pub unscheduled: BTreeSet<ObjectKey>,
    /// Workloads and nodes that a controller has to look at.
    pub dirty: BTreeSet<ObjectKey>,
    /// Room may have appeared, so waiting pods are tried again.
    pub room: bool,
    /// The fleet is being made: pods start at once.
    pub is_building: bool,
    pub health: FleetHealth,
    pub effects: EffectLog,
    pub table: QueryTable,
}

impl FleetState {
    /// The fleet's state before its objects are built.
    pub fn new(options: SimOptions) -> FleetState {
        let now = options.clock.now();
        let health = FleetHealth::new(options.seed);
        FleetState {
            options,
            now,
            objects: BTreeMap::new(),
            version: 1_000,
            before: VecDeque::new(),
            changes: VecDeque::new(),
            watch_age: 0,
            timers: BTreeMap::new(),
            timer_no: 0,
            uids: 0,
            pods_on: BTreeMap::new(),
            owned: BTreeMap::new(),
            seats: BTreeMap::new(),
            unscheduled: BTreeSet::new(),
            dirty: BTreeSet::new(),
            room: false,
            is_building: true,
            health,
            effects: EffectLog::default(),
            table: QueryTable::default(),
        }
    }

    /// The object of this key.
    pub fn get(&self, key: &ObjectKey) -> Option<&Value> {
        self.objects.get(key).map(Arc::as_ref)
    }

    /// The object as it was `back` changes of the whole fleet ago.
    pub fn get_stale(&self, key: &ObjectKey, back: usize) -> Option<Arc<Value>> {
        let from = self.before.len().saturating_sub(back);
        let oldest = self.before.iter().skip(from).find(|(k, _)| k == key);
        oldest.map_or_else(|| self.objects.get(key).cloned(), |(_, was)| was.clone())
    }

    /// All objects of a kind, in a namespace unless that is empty, as they were `back` changes ago.
    pub fn list(&self, kind: ObjectKind, namespace: &str, back: usize) -> Vec<Arc<Value>> {
        let mut found: BTreeMap<&ObjectKey, Arc<Value>> =
            self.keys(kind, namespace).map(|(k, v)| (k, v.clone())).collect();
        for (key, was) in self.before.iter().rev().take(back) {
            if key.kind == kind && (namespace.is_empty() || key.namespace == namespace) {
                match was {
                    Some(value) => found.insert(key, value.clone()),
                    None => found.remove(key),
                };
            }
        }
        found.into_values().collect()
    }

    /// The objects of a kind, in one namespace; in all where it is empty.
    pub fn keys(&self, kind: ObjectKind, namespace: &str) -> impl Iterator<Item = (&ObjectKey, &Arc<Value>)> {
        let only = namespace.to_owned();
        self.objects
            .range(ObjectKey::new(kind, namespace, "")..)
            .take_while(move |(k, _)| k.kind == kind && (only.is_empty() || k.namespace == only))
    }

    /// Stores an object, unless it is there already. Returns whether it changed.
    pub fn put(&mut self, kind: ObjectKind, mut value: Value) -> bool {
        let key = ObjectKey::of(kind, &value);
        let old = self.objects.get(&key).cloned();
        if let Some(old) = &old {
            value["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
            if **old == value {
                return false;
            }
            if matches!(kind, ObjectKind::Deployment | ObjectKind::StatefulSet) && old["spec"] != value["spec"] {
                value["metadata"]["generation"] = (number(old, "/metadata/generation") + 1).into();
            }
        }
        self.version += 1;
        value["metadata"]["resourceVersion"] = self.version.to_string().into();
        let value = Arc::new(value);
        self.unindex(&key, old.as_deref());
        self.index(&key, &value);
        self.objects.insert(key.clone(), value.clone());
        self.remember(key, old, Some(value));
        true
    }

    /// Takes an object away.
    pub fn remove(&mut self, key: &ObjectKey) {
        let Some(old) = self.objects.remove(key) else { return };
        self.version += 1;
        self.unindex(key, Some(&old));
        if key.kind == ObjectKind::Node {
            self.seats.remove(&key.name);
        }
        if key.kind == ObjectKind::Pod {
            self.release(key, text(&old, "/spec/nodeName"));
        }
        self.remember(key.clone(), Some(old), None);
    }

    /// Edits a copy of an object and stores it.
    pub fn edit(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Value)) -> bool {
        let Some(value) = self.get(key) else { return false };
        let mut value = value.clone();
        change(&mut value);
        self.put(key.kind, value)
    }

    /// Sets a timer `wait` from now.
    pub fn after(&mut self, wait: std::time::Duration, timer: FleetTimer) {
        self.timer_no += 1;
        self.timers.insert((self.now + wait, self.timer_no), timer);
    }

    /// A UID that is the same in every run with the same seed.
    pub fn uid(&mut self) -> String {
        self.uids += 1;
        let a = fnv(&format!("{}/{}", self.options.seed, self.uids));
        let b = fnv(&format!("{a}"));
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            a >> 32,
            a & 0xffff,
            (a >> 16) & 0xfff,
            b >> 52,
            b & 0xffff_ffff_ffff
        )
    }

    /// The time as Kubernetes writes it.
    pub fn stamp(&self) -> String {
        self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    fn remember(&mut self, key: ObjectKey, old: Option<Arc<Value>>, new: Option<Arc<Value>>) {
        if !self.is_building {
            self.changes.push_back(ObjectChange { version: self.version, key: key.clone(), old: old.clone(), new });
            if self.changes.len() > limits::SIM_CHANGES {
                self.changes.pop_front();
            }
        }
        self.before.push_back((key, old));
        if self.before.len() > limits::SIM_HISTORY {
            self.before.pop_front();
        }
    }

    fn owner_key(key: &ObjectKey, value: &Value) -> Option<ObjectKey> {
        let (kind, name) = object::controller(value)?;
        Some(ObjectKey::new(kind, &key.namespace, name))
    }

    fn unindex(&mut self, key: &ObjectKey, old: Option<&Value>) {
        let Some(old) = old else { return };
        if let Some(owner) = Self::owner_key(key, old) {
            self.touch(&owner);
            if let Some(set) = self.owned.get_mut(&owner) {
                set.remove(key);
            }
        }
        if key.kind == ObjectKind::Pod {
            self.unscheduled.remove(key);
            if let Some(set) = self.pods_on.get_mut(text(old, "/spec/nodeName")) {
                set.remove(key);
            }
        }
    }

    fn index(&mut self, key: &ObjectKey, value: &Value) {
        if let Some(owner) = Self::owner_key(key, value) {
            self.touch(&owner);
            self.owned.entry(owner).or_default().insert(key.clone());
        }
        match key.kind {
            ObjectKind::Pod => {
                let node = text(value, "/spec/nodeName");
                if node.is_empty() {
                    self.unscheduled.insert(key.clone());
                    self.room = true;
                } else {
                    self.pods_on.entry(node.to_owned()).or_default().insert(key.clone());
                    self.dirty.insert(ObjectKey::node(node));
                }
            }
            ObjectKind::Node => {
                self.seat(key, value);
                self.dirty.insert(key.clone());
                self.room = true;
            }
            ObjectKind::Deployment | ObjectKind::StatefulSet | ObjectKind::DaemonSet | ObjectKind::Job => {
                self.dirty.insert(key.clone());
            }
            _ => {}
        }
    }

    /// Marks the workload behind an owner for its controller: a ReplicaSet's is its Deployment.
    fn touch(&mut self, owner: &ObjectKey) {
        if owner.kind != ObjectKind::ReplicaSet {
            self.dirty.insert(owner.clone());
            return;
        }
        let set = self.objects.get(owner);
        if let Some(workload) = set.and_then(|set| Self::owner_key(owner, set)) {
            self.dirty.insert(workload);
        }
    }

    fn seat(&mut self, key: &ObjectKey, node: &Value) {
        let capacity = gpus(node, "/status/capacity/nvidia.com~1gpu");
        let seat = self.seats.entry(key.name.clone()).or_default();
        seat.slots.resize(capacity as usize, None);
        seat.used = u32::try_from(seat.slots.iter().flatten().count()).unwrap_or(u32::MAX);
        seat.allocatable = gpus(node, "/status/allocatable/nvidia.com~1gpu");
        seat.ready = condition(node, "Ready");
        seat.schedulable = !node.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or_default();
        seat.taints = list(node, "/spec/taints")
            .iter()
            .filter(|t| text(t, "/effect") != "PreferNoSchedule")
            .map(|t| text(t, "/key").to_owned())
            .collect();
    }

    /// Gives a pod the first free healthy GPUs of a node.
    pub fn occupy(&mut self, key: &ObjectKey, pod: &Value, node: &str) {
        let mut left = gpus_wanted(pod);
        let health = &self.health;
        let Some(seat) = self.seats.get_mut(node) else { return };
        for (gpu, slot) in seat.slots.iter_mut().enumerate() {
            if left > 0 && slot.is_none() && !health.is_out(node, u32::try_from(gpu).unwrap_or(u32::MAX)) {
                *slot = Some(key.clone());
                seat.used += 1;
                left -= 1;
            }
        }
    }

    fn release(&mut self, key: &ObjectKey, node: &str) {
        let Some(seat) = self.seats.get_mut(node) else { return };
        for slot in seat.slots.iter_mut().filter(|s| s.as_ref() == Some(key)) {
            *slot = None;
            seat.used -= 1;
            self.room = true;
        }
    }
}

/// A quantity that is a whole number, as GPUs are.
pub(super) fn gpus(object: &Value, pointer: &str) -> u32 {
    text(object, pointer).parse().unwrap_or_default()
}
