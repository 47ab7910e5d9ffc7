//! The fields that a watch keeps of an object: those that show a fault, and no others.
//!
//! Invariant: plain data, read once; a field that a server leaves out is empty.

use super::{Node, Pod};
use crate::model::Time;
use serde::{Deserialize, Serialize};

/// A node with its conditions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeSeen {
    pub node: Node,
    pub conditions: Vec<ConditionSeen>,
    /// A device resource, how many the node has, and how many the device plugin offers.
    pub devices: Vec<(String, u32, u32)>,
}

/// A condition of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionSeen {
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    pub reason: String,
    pub message: String,
    pub since: Option<Time>,
}

/// A pod, with the fields that show a fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodSeen {
    pub pod: Pod,
    /// Init containers too.
    pub containers: Vec<ContainerSeen>,
}

/// A container's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSeen {
    pub name: String,
    pub restarts: u32,
    /// `CrashLoopBackOff`, `ImagePullBackOff`; empty if it does not wait.
    pub waiting: String,
    pub message: String,
    /// How it ended, now or the last time: `OOMKilled`, `Error`.
    pub ended: String,
    pub ended_at: Option<Time>,
}

/// An Event of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSeen {
    pub name: String,
    pub namespace: String,
    /// Of the object it is about: `Node`, `Pod`.
    pub kind: String,
    pub object_namespace: String,
    pub object: String,
    pub reason: String,
    pub message: String,
    pub count: u32,
    pub at: Option<Time>,
    pub reporter: String,
}

/// A kubelet's heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseSeen {
    /// The node's name.
    pub name: String,
    /// As the kubelet wrote it, by its own clock: only that it changes counts.
    pub renewed: String,
}
