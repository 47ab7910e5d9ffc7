//! Replicas in service, and nodes that share a rack, a link or a pool: the input of the serving floor, failure domains
//! and pools.
//!
//! Invariant: plain values; a replica that is not known to be ready is in no list.

use crate::model::RunId;
use serde::{Deserialize, Serialize};

/// A ready pod that is not on its way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// `namespace/name`; a container's name.
    pub pod: String,
    /// Where it runs; empty for a container.
    pub node: String,
}

/// A set of replicas that a step takes some from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Serving {
    /// `llm/chat`, or `model llama` where a label makes one set of several workloads.
    pub set: String,
    /// Never fewer than these.
    pub floor: u32,
    /// Where the floor is written: `guards.serving_floor`, or the annotation.
    pub floor_from: String,
    pub ready: Vec<Replica>,
    /// The pods among them that the step ends.
    pub takes: Vec<String>,
    /// It ends so many more, whichever they are.
    pub takes_any: u32,
}

impl Serving {
    /// Ready ones that the step ends.
    pub fn taken(&self) -> u32 {
        let named = self.ready.iter().filter(|replica| self.takes.contains(&replica.pod)).count();
        u32::try_from(named).unwrap_or(u32::MAX).saturating_add(self.takes_any)
    }
}

/// Replicas that another run takes, or took after the facts were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TakenReplica {
    pub run: RunId,
    pub set: String,
    /// Empty where the pods that go are unknown.
    pub pod: String,
    pub count: u32,
    /// The run is not over.
    pub is_open: bool,
}

/// Nodes that have a label in common with the target.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Group {
    pub label: String,
    pub value: String,
    pub members: Vec<String>,
    /// Those of them that are out of service, for any reason.
    pub out: Vec<String>,
}
