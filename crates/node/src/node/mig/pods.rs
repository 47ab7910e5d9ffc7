//! Which pod was given which MIG device, from the kubelet's own checkpoint of device assignments.
//!
//! Invariant: a checkpoint that cannot be read is reported; it is never taken for "no pod".

use crate::limits;
use crate::model::MigGpu;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KubeletCheckpoint {
    data: CheckpointBody,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CheckpointBody {
    pod_device_entries: Option<Vec<DeviceAssignment>>,
}

#[derive(Deserialize)]
struct DeviceAssignment {
    #[serde(rename = "PodUID")]
    pod: String,
    #[serde(rename = "ResourceName")]
    resource: String,
    /// By NUMA node; older kubelets wrote a plain list.
    #[serde(rename = "DeviceIDs")]
    devices: AssignedDevices,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AssignedDevices {
    ByNode(BTreeMap<String, Vec<String>>),
    Plain(Vec<String>),
}

/// Writes the pod's uid to each compute instance that the kubelet gave away. `read`, or in words why not; empty where
/// this machine has no kubelet.
pub(super) fn assign(gpus: &mut [MigGpu], checkpoint: &Path) -> String {
    if !checkpoint.exists() {
        return String::new();
    }
    let given = match devices(checkpoint) {
        Ok(given) => given,
        Err(why) => return format!("{}: {why}", checkpoint.display()),
    };
    let compute = gpus.iter_mut().flat_map(|gpu| &mut gpu.instances).flat_map(|instance| &mut instance.compute);
    for compute in compute {
        compute.pod = given.get(&compute.uuid).cloned();
    }
    "read".to_owned()
}

fn devices(checkpoint: &Path) -> Result<BTreeMap<String, String>, String> {
    let size = std::fs::metadata(checkpoint).map_err(|error| error.to_string())?.len();
    if size > limits::CHECKPOINT_BYTES {
        return Err(format!("{size} bytes are too many"));
    }
    let text = std::fs::read(checkpoint).map_err(|error| error.to_string())?;
    let read: KubeletCheckpoint = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let mut given = BTreeMap::new();
    for entry in read.data.pod_device_entries.unwrap_or_default() {
        if !entry.resource.starts_with("nvidia.com/") {
            continue;
        }
        let ids = match entry.devices {
            AssignedDevices::ByNode(nodes) => nodes.into_values().flatten().collect(),
            AssignedDevices::Plain(list) => list,
        };
        // With time-slicing the plugin writes `MIG-…::2`.
        given.extend(
            ids.into_iter().map(|id| (id.split("::").next().unwrap_or_default().to_owned(), entry.pod.clone())),
        );
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GpuName, MigCompute, MigInstance};

    #[test]
    fn the_kubelets_checkpoint_says_which_pod_has_a_device_and_a_broken_one_is_not_nobody() {
        let compute = |uuid: &str| MigCompute { uuid: uuid.to_owned(), ..MigCompute::default() };
        let instance = MigInstance {
            profile: "1g.10gb".into(),
            start: 0,
            width: 1,
            id: 7,
            compute: vec![compute("MIG-a"), compute("MIG-b")],
        };
        let mut gpus = [MigGpu {
            gpu: GpuName::default(),
            product: String::new(),
            enabled: true,
            pending: false,
            profiles: vec![],
            instances: vec![instance],
            ill: None,
        }];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet_internal_checkpoint");
        assert_eq!(assign(&mut gpus, &path), "");
        std::fs::write(
            &path,
            r#"{"Data":{"PodDeviceEntries":[
                {"PodUID":"u-1","ContainerName":"vllm","ResourceName":"nvidia.com/mig-1g.10gb","DeviceIDs":{"-1":["MIG-a::1"]},"AllocResp":""},
                {"PodUID":"u-2","ContainerName":"x","ResourceName":"example.com/nic","DeviceIDs":{"0":["MIG-b"]},"AllocResp":""}],
               "RegisteredDevices":{}},"Checksum":1}"#,
        )
        .unwrap();
        assert_eq!(assign(&mut gpus, &path), "read");
        let pods: Vec<_> = gpus[0].instances[0].compute.iter().map(|compute| compute.pod.as_deref()).collect();
        assert_eq!(pods, [Some("u-1"), None]);
        std::fs::write(&path, "{").unwrap();
        assert!(assign(&mut gpus, &path).contains("EOF"));
    }
}
