//! MIG as plain data: the profiles a GPU offers, the instances on it, and the steps that change them.
//!
//! Invariant: an instance is known by its profile and its start, never by an index that a driver may give anew.

use super::GpuName;
use serde::{Deserialize, Serialize};

/// One kind of GPU instance that a GPU offers, with the places where it may lie. From NVML, or from the tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigProfile {
    /// As the driver names it: `1g.10gb`, `1g.10gb+me`. Names change with drivers, so they are read, not assumed.
    pub name: String,
    /// The profile's number in `nvidia-smi`, which NVML requires when an instance is created.
    pub id: u32,
    /// Compute slices.
    pub slices: u32,
    /// Memory slots.
    pub width: u32,
    /// Memory slots at which it may begin.
    pub starts: Vec<u32>,
    /// So many of them on one GPU.
    pub most: u32,
}

impl MigProfile {
    /// The Kubernetes resource of the device plugin's `mixed` strategy: `nvidia.com/mig-1g.10gb`, `….me`.
    pub fn resource(&self) -> String {
        mig_resource(&self.name)
    }
}

/// `1g.10gb+me` → `nvidia.com/mig-1g.10gb.me`.
pub fn mig_resource(profile: &str) -> String {
    format!("nvidia.com/mig-{}", profile.replace('+', "."))
}

/// `nvidia.com/mig-1g.10gb.me` → `1g.10gb+me`; nothing for any other resource.
pub fn mig_profile_of(resource: &str) -> Option<String> {
    let name = resource.strip_prefix("nvidia.com/mig-")?;
    let attribute = |suffix: &str| name.strip_suffix(suffix).map(|rest| format!("{rest}+{}", &suffix[1..]));
    Some([".me.all", ".me", ".gfx"].into_iter().find_map(attribute).unwrap_or_else(|| name.to_owned()))
}

/// A compute instance: what a container is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MigCompute {
    pub id: u32,
    /// `MIG-…`; a new one each time it is made.
    pub uuid: String,
    /// Process ids that hold it now.
    pub processes: Vec<u32>,
    /// The uid of the pod that the kubelet gave it to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// A GPU instance as it lies on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigInstance {
    pub profile: String,
    pub start: u32,
    pub width: u32,
    /// The driver's number for it, good until it is destroyed.
    pub id: u32,
    #[serde(default)]
    pub compute: Vec<MigCompute>,
}

/// A GPU with its MIG side, as a node's agent reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigGpu {
    pub gpu: GpuName,
    pub product: String,
    /// Partitioned now.
    pub enabled: bool,
    /// The mode was changed and waits for a reset.
    pub pending: bool,
    pub profiles: Vec<MigProfile>,
    pub instances: Vec<MigInstance>,
    /// Why it must not be touched, if it is unhealthy.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ill: Option<String>,
}

/// Where an instance lies on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigPlace {
    pub profile: String,
    pub start: u32,
}

/// One thing to do on the way to another layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum MigAct {
    /// `namespace/name`.
    EvictPod {
        pod: String,
    },
    DestroyCompute {
        profile: String,
        start: u32,
    },
    DestroyInstance {
        profile: String,
        start: u32,
    },
    CreateInstance {
        profile: String,
        start: u32,
    },
    CreateCompute {
        profile: String,
        start: u32,
    },
    /// Until the node offers so many of the profile.
    WaitAdvertised {
        profile: String,
        count: u32,
    },
    /// The deployment that waited may start.
    Release {
        profile: String,
        count: u32,
    },
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MigStep {
    /// The GPU's name in the plan: its UUID, or `node/index`.
    pub gpu: String,
    pub act: MigAct,
    /// The condition that must hold before, in words.
    pub needs: String,
    /// The condition that holds after, in words.
    pub gives: String,
    /// The act that undoes it, where one does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub undo: Option<MigAct>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_and_its_resource_are_two_spellings_of_one_name() {
        for (profile, resource) in [
            ("1g.10gb", "nvidia.com/mig-1g.10gb"),
            ("1g.10gb+me", "nvidia.com/mig-1g.10gb.me"),
            ("1g.24gb+me.all", "nvidia.com/mig-1g.24gb.me.all"),
            ("4g.96gb+gfx", "nvidia.com/mig-4g.96gb.gfx"),
        ] {
            assert_eq!(mig_resource(profile), resource);
            assert_eq!(mig_profile_of(resource).as_deref(), Some(profile));
        }
        assert_eq!(mig_profile_of("nvidia.com/gpu"), None);
    }
}
