//! From the answers of a node's agent and of the cluster to the planner's input, and back to a plan.
//!
//! Invariant: an instance is free only where it is certain that no pod has it; in doubt it is pinned, with the reason.

use super::{CordonState, DisruptionBudget, Node, Pod, WaitingPod, cordon};
use crate::model::{MigGpu, MigInstance, MigPlace, Span};
use crate::policy::{
    MigBoard, MigBounds, MigDemand, MigGeometry, MigNode, MigOccupancy, MigPlan, MigPlanError, MigSeat, move_cost,
    plan_mig,
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The answer of `mig::inventory`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MigInventory {
    pub gpus: Vec<MigGpu>,
    /// `read`: the kubelet's list of devices and their pods was read; empty: there is no kubelet; else why it was not.
    pub pods: String,
}

/// The goal of a plan, and its bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct MigWish {
    pub demand: BTreeMap<String, u32>,
    pub most_moves: u32,
    /// From a container's start to its first answer, for pods that move.
    pub warm_up: Span,
}

/// The cluster's facts around a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MigAround {
    /// Those on the node.
    pub pods: Vec<Pod>,
    /// Of all namespaces.
    pub budgets: Vec<DisruptionBudget>,
}

impl MigAround {
    /// How many more pods like this one may go now, by the budget that lets fewest go; none given where there is none.
    fn headroom(&self, pod: &Pod) -> Option<u32> {
        let its = self.budgets.iter().filter(|budget| budget.protects(&pod.namespace, &pod.labels));
        its.map(|budget| budget.allowed).min()
    }
}

/// The cheapest plan for one node. `around` is given if there is a cluster.
///
/// # Errors
///
/// Fails when the demand is too large, or a GPU's profiles are contradictory.
pub fn mig_plan(inventory: &MigInventory, around: Option<&MigAround>, wish: &MigWish) -> Result<MigPlan, MigPlanError> {
    let boards: Vec<MigBoard> = inventory.gpus.iter().map(|gpu| board(gpu, inventory, around, wish)).collect();
    let demand: Vec<MigDemand> =
        wish.demand.iter().map(|(profile, count)| MigDemand { profile: profile.clone(), count: *count }).collect();
    plan_mig(&boards, &demand, MigBounds { most_moves: wish.most_moves })
}

fn board(gpu: &MigGpu, inventory: &MigInventory, around: Option<&MigAround>, wish: &MigWish) -> MigBoard {
    let shut = gpu.ill.clone().or_else(|| {
        if gpu.pending {
            Some("its MIG mode waits for a reset".to_owned())
        } else {
            (!gpu.enabled).then(|| "it is not partitioned".to_owned())
        }
    });
    let seat = |instance: &MigInstance| MigSeat {
        place: MigPlace { profile: instance.profile.clone(), start: instance.start },
        held: held(instance, inventory, around, wish),
    };
    let seats: Vec<MigSeat> = gpu.instances.iter().map(seat).collect();
    let name = gpu.gpu.uuid.clone();
    match MigGeometry::new(gpu.profiles.clone()) {
        Ok(geometry) => MigBoard { name, geometry: Arc::new(geometry), seats, shut },
        Err(why) => MigBoard {
            name,
            geometry: Arc::new(MigGeometry::none()),
            seats: Vec::new(),
            shut: Some(shut.unwrap_or_else(|| format!("its resources cannot be parsed: {why}"))),
        },
    }
}

fn held(instance: &MigInstance, inventory: &MigInventory, around: Option<&MigAround>, wish: &MigWish) -> MigOccupancy {
    let pinned = |by: &str, why: &str| MigOccupancy::Pinned { by: by.to_owned(), why: why.to_owned() };
    if instance.compute.len() > 1 {
        return pinned("several compute instances", "an instance that is shared out is not moved");
    }
    if let Some(uid) = instance.compute.iter().find_map(|compute| compute.pod.as_deref()) {
        let Some(around) = around else {
            return pinned(&format!("pod with uid {uid}"), "no cluster is configured to read it from");
        };
        let Some(pod) = around.pods.iter().find(|pod| pod.uid == uid) else {
            return pinned(&format!("pod with uid {uid}"), "the cluster does not show it on this node");
        };
        let name = format!("{}/{}", pod.namespace, pod.name);
        let devices = inventory.gpus.iter().flat_map(|gpu| &gpu.instances).flat_map(|other| &other.compute);
        let why = if pod.mirror || pod.owner.as_ref().is_some_and(|(kind, _)| kind == "DaemonSet" || kind == "Node") {
            "it belongs to the node and would come straight back"
        } else if pod.owner.is_none() {
            "no controller would start it again"
        } else if pod.empty_dir {
            "it would lose an emptyDir"
        } else if pod.terminating {
            "it is ending: plan again when it is gone"
        } else if devices.filter(|compute| compute.pod.as_deref() == Some(uid)).count() > 1 {
            "it holds several instances"
        } else {
            return match move_cost(pod.priority, around.headroom(pod), wish.warm_up) {
                Some(cost) => MigOccupancy::Movable { pod: name, cost },
                None => pinned(&name, "its disruption budget lets none go"),
            };
        };
        return pinned(&name, why);
    }
    if let Some(pid) = instance.compute.iter().flat_map(|compute| &compute.processes).next() {
        return pinned(&format!("process {pid}"), "it has no known pod");
    }
    match (around.is_some(), inventory.pods.as_str()) {
        (false, "") | (_, "read") => MigOccupancy::Idle,
        (true, "") => pinned("perhaps a pod", "the agent cannot see the kubelet's list of devices"),
        (_, why) => pinned("perhaps a pod", &format!("its processes cannot be listed: {why}")),
    }
}

/// The waiting demand that this node could take, were there room: profile and count. Of each pod all must be offered by
/// the GPUs here, since a pod runs on one node or on none.
pub fn mig_waiting(inventory: &MigInventory, node: &MigNode, waiting: &[WaitingPod]) -> BTreeMap<String, u32> {
    let offered = |profile: &str| {
        let open = inventory.gpus.iter().filter(|gpu| gpu.enabled);
        open.flat_map(|gpu| &gpu.profiles).any(|known| known.name == profile)
    };
    let mut demand = BTreeMap::new();
    for pod in waiting.iter().filter(|pod| pod.seating.allows(node)) {
        let of = |(resource, count): (&String, &u32)| Some((crate::model::mig_profile_of(resource)?, *count));
        let Some(asked) = pod.devices.iter().map(of).collect::<Option<Vec<_>>>() else { continue };
        if !asked.iter().all(|(profile, _)| offered(profile)) {
            continue;
        }
        for (profile, count) in asked {
            *demand.entry(profile).or_insert(0_u32) += count;
        }
    }
    demand
}

/// A node as those see it who wait for room there. A cordon of ours is lifted once the room is made.
pub fn mig_node(node: &Node, identity: &str) -> MigNode {
    MigNode {
        name: node.name.clone(),
        labels: node.labels.clone(),
        taints: node.taints.clone(),
        shut: matches!(cordon(node, identity), CordonState::Foreign { .. }),
    }
}

/// Reads a demand, `#{ "1g.10gb": 2 }` or `#{ "nvidia.com/mig-1g.10gb": 2 }`, as runbooks write it.
///
/// # Errors
///
/// Fails when it is no map of whole numbers, or their sum is 0.
pub fn mig_demand(given: &Value) -> Result<BTreeMap<String, u32>, String> {
    let map = given.as_object().ok_or("`demand` must be a map such as #{ \"1g.10gb\": 2 }")?;
    let mut demand = BTreeMap::new();
    for (name, count) in map {
        let profile = crate::model::mig_profile_of(name).unwrap_or_else(|| name.clone());
        let count = count.as_u64().and_then(|count| u32::try_from(count).ok());
        let count =
            count.ok_or_else(|| format!("`demand`: the count of {} is no whole number", name.escape_debug()))?;
        *demand.entry(profile).or_insert(0) += count;
    }
    if demand.values().all(|count| *count == 0) {
        return Err("`demand` is empty".to_owned());
    }
    Ok(demand)
}
