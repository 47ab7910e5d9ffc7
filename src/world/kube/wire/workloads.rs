//! Controllers of pods, and how many pods each would let go at once.
//!
//! Invariant: rounded as the controller itself rounds.

use super::{ObjectMeta, or_default};
use crate::world::kube::Workload;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::world::kube) struct WorkloadWire {
    kind: String,
    metadata: ObjectMeta,
    spec: WorkloadSpec,
    status: WorkloadStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WorkloadSpec {
    replicas: Option<u32>,
    selector: MatchLabels,
    /// Of a Deployment; a StatefulSet has `updateStrategy`.
    strategy: UpdateStrategy,
    #[serde(rename = "updateStrategy")]
    update_strategy: UpdateStrategy,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct UpdateStrategy {
    r#type: String,
    rolling_update: Option<RollingUpdate>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RollingUpdate {
    max_surge: Option<Value>,
    max_unavailable: Option<Value>,
}

impl WorkloadWire {
    /// As the controllers resolve it: a Deployment's share is rounded down, its surge and a StatefulSet's share up.
    fn may_lack(&self, replicas: u32) -> u32 {
        let amount = |value: Option<&Value>, default: &str, up: bool| -> u32 {
            let text = value.and_then(Value::as_str).unwrap_or(default);
            if let Some(count) = value.and_then(Value::as_u64) {
                return u32::try_from(count).unwrap_or(u32::MAX);
            }
            let Some(percent) = text.strip_suffix('%').and_then(|text| text.parse::<u64>().ok()) else {
                return text.parse().unwrap_or(replicas);
            };
            let whole = percent * u64::from(replicas);
            u32::try_from(if up { whole.div_ceil(100) } else { whole / 100 }).unwrap_or(u32::MAX)
        };
        let most = if self.kind == "StatefulSet" {
            let rolling = self.spec.update_strategy.rolling_update.as_ref();
            match self.spec.update_strategy.r#type.as_str() {
                "OnDelete" => 0,
                _ => amount(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), "1", true).max(1),
            }
        } else if self.spec.strategy.r#type == "Recreate" {
            replicas
        } else {
            let rolling = self.spec.strategy.rolling_update.as_ref();
            let surge = amount(rolling.and_then(|rolling| rolling.max_surge.as_ref()), "25%", true);
            let lack = amount(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), "25%", false);
            if surge == 0 { lack.max(1) } else { lack }
        };
        most.min(replicas)
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct MatchLabels {
    #[serde(deserialize_with = "or_default")]
    match_labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct WorkloadStatus {
    replicas: u32,
    ready_replicas: u32,
    available_replicas: u32,
    updated_replicas: u32,
    observed_generation: i64,
}

impl WorkloadWire {
    /// The same object with this kind, which an answer leaves out.
    pub fn named(mut self, kind: &str) -> WorkloadWire {
        kind.clone_into(&mut self.kind);
        self
    }
}

impl From<WorkloadWire> for Workload {
    fn from(wire: WorkloadWire) -> Workload {
        Workload {
            may_lack: wire.may_lack(wire.spec.replicas.unwrap_or(1)),
            kind: wire.kind,
            namespace: wire.metadata.namespace,
            name: wire.metadata.name,
            resource_version: wire.metadata.resource_version,
            annotations: wire.metadata.annotations,
            // By the API, absent means one.
            replicas: wire.spec.replicas.unwrap_or(1),
            total: wire.status.replicas,
            ready: wire.status.ready_replicas,
            available: wire.status.available_replicas,
            updated: wire.status.updated_replicas,
            generation: wire.metadata.generation,
            observed_generation: wire.status.observed_generation,
            selector: wire.spec.selector.match_labels,
        }
    }
}
