//! A stand-in for the GPU operator's mig-manager: a node's label becomes a layout, with the states, the pauses and the
//! failures that the real one is known for.
//!
//! Invariant: like the real one it evicts no pod, and does nothing until the label changes.

use super::api::known_node;
use super::object::{ObjectKey, text};
use super::state::{FleetState, FleetTimer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

const CONFIG: &str = "nvidia.com/mig.config";
const STATE: &str = "nvidia.com/mig.config.state";
const CLIENTS: [&str; 3] = [
    "nvidia.com/gpu.deploy.dcgm-exporter",
    "nvidia.com/gpu.deploy.device-plugin",
    "nvidia.com/gpu.deploy.gpu-feature-discovery",
];
const TAKES: Duration = Duration::from_secs(90);

/// How the stand-in of a node behaves when its label changes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigBehaviour {
    Works,
    /// Ends in `failed` once; the next change works.
    FailsOnce,
    /// Leaves its clients paused and the state `pending` until the label changes again.
    WedgesOnce,
}

/// Gives a node a mig-manager.
pub(super) fn install(state: &mut FleetState, node: &str, behaviour: MigBehaviour) -> Result<(), String> {
    known_node(state, node)?;
    let fresh = state.health.mig.insert(node.to_owned(), ("all-disabled".to_owned(), behaviour)).is_none();
    if fresh {
        set(state, node, STATE, "success");
        set(state, node, CONFIG, "all-disabled");
        pause(state, node, "true");
    }
    Ok(())
}

/// Called for a node that was written.
pub(super) fn look(state: &mut FleetState, node: &str) {
    let wanted = state.get(&ObjectKey::node(node)).map(|object| label(object, CONFIG)).unwrap_or_default();
    let Some((seen, _)) = state.health.mig.get_mut(node) else { return };
    if *seen == wanted || wanted.is_empty() {
        return;
    }
    seen.clone_from(&wanted);
    set(state, node, STATE, "pending");
    pause(state, node, "paused-for-mig-change");
    state.after(TAKES, FleetTimer::MigSettles(node.to_owned(), wanted));
}

/// The time that a change takes is over.
pub(super) fn settles(state: &mut FleetState, node: &str, wanted: &str) {
    let Some((seen, behaviour)) = state.health.mig.get_mut(node) else { return };
    if seen != wanted {
        return;
    }
    let now = std::mem::replace(behaviour, MigBehaviour::Works);
    if now == MigBehaviour::WedgesOnce {
        return;
    }
    let layout = layout(wanted);
    pause(state, node, "true");
    let Some(layout) = layout.filter(|_| now == MigBehaviour::Works) else {
        set(state, node, STATE, "failed");
        return;
    };
    state.edit(&ObjectKey::node(node), |object| {
        let gpus: u64 = text(object, "/status/capacity/nvidia.com~1gpu").parse().unwrap_or_default();
        for part in ["capacity", "allocatable"] {
            if let Some(devices) = object["status"][part].as_object_mut() {
                devices.retain(|name, _| !name.starts_with("nvidia.com/mig-"));
                for (name, each) in &layout {
                    devices.insert((*name).to_owned(), json!((gpus * each).to_string()));
                }
            }
        }
    });
    set(state, node, STATE, "success");
}

/// The layout of one GPU by a named configuration; an unknown name fails, as with the real one.
fn layout(config: &str) -> Option<Vec<(&'static str, u64)>> {
    Some(match config {
        "all-disabled" => vec![],
        "all-1g.10gb" => vec![("nvidia.com/mig-1g.10gb", 7)],
        "all-3g.40gb" => vec![("nvidia.com/mig-3g.40gb", 2)],
        "all-balanced" => {
            vec![("nvidia.com/mig-1g.10gb", 2), ("nvidia.com/mig-2g.20gb", 1), ("nvidia.com/mig-3g.40gb", 1)]
        }
        _ => return None,
    })
}

fn label(object: &Value, name: &str) -> String {
    object["metadata"]["labels"][name].as_str().unwrap_or_default().to_owned()
}

fn set(state: &mut FleetState, node: &str, name: &str, value: &str) {
    state.edit(&ObjectKey::node(node), |object| object["metadata"]["labels"][name] = value.into());
}

fn pause(state: &mut FleetState, node: &str, value: &str) {
    for client in CLIENTS {
        set(state, node, client, value);
    }
}
