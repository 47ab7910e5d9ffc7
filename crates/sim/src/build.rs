//! The fleet as it is at first: nodes, workloads, budgets and a few odd pods that a drain has to think about.
//!
//! Invariant: the same options give the same fleet, name by name.

use super::SimWorkload;
use super::controllers::{bind, settle};
use super::object::{ObjectKey, ObjectKind, text};
use super::state::FleetState;
use super::{SimOptions, WorkloadKind};
use serde_json::{Value, json};

pub(super) fn build(options: SimOptions) -> FleetState {
    let mut state = FleetState::new(options);
    let options = state.options.clone();
    let namespaces = options.workloads.iter().map(|w| w.namespace.as_str());
    for name in namespaces.chain(["default", "kube-system", "monitoring", "research"]) {
        let value = json!({"metadata": meta(&mut state, name, ""), "spec": {}, "status": {"phase": "Active"}});
        state.put(ObjectKind::Namespace, value);
    }
    let node = control_plane(&mut state);
    state.put(ObjectKind::Node, node);
    for number in 1..=options.nodes {
        let node = gpu_node(&mut state, number, options.gpus_per_node);
        state.put(ObjectKind::Node, node);
    }
    let exporter = exporter(&mut state);
    state.put(ObjectKind::DaemonSet, exporter);
    for workload in &options.workloads {
        add_workload(&mut state, workload);
    }
    add_lone_pods(&mut state);
    let now = state.now;
    settle(&mut state, now);
    state.is_building = false;
    state
}

fn meta(state: &mut FleetState, name: &str, namespace: &str) -> Value {
    let mut metadata = json!({"name": name, "uid": state.uid(), "creationTimestamp": state.stamp()});
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

fn gpu_node(state: &mut FleetState, number: usize, gpus: u32) -> Value {
    let name = format!("gpu-{number}");
    let mut metadata = meta(state, &name, "");
    metadata["labels"] = json!({
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "node-role.kubernetes.io/gpu": "",
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        "nvidia.com/gpu.count": gpus.to_string(),
        "topology.kubernetes.io/zone": format!("zone-{}", (number - 1) % 2 + 1),
        "topology.kubernetes.io/rack": format!("rack-{}", (number - 1) / 8 + 1),
    });
    let resources = json!({"cpu": "192", "memory": "2113561856Ki", "pods": "110", "nvidia.com/gpu": gpus.to_string()});
    json!({"metadata": metadata, "spec": {"providerID": format!("sim://{name}")}, "status": node_status(state, &name, resources)})
}

fn control_plane(state: &mut FleetState) -> Value {
    let mut metadata = meta(state, "control-1", "");
    metadata["labels"] = json!({"kubernetes.io/hostname": "control-1", "kubernetes.io/os": "linux", "node-role.kubernetes.io/control-plane": ""});
    let taints = json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]);
    let resources = json!({"cpu": "8", "memory": "33554432Ki", "pods": "110"});
    json!({"metadata": metadata, "spec": {"taints": taints}, "status": node_status(state, "control-1", resources)})
}

fn node_status(state: &mut FleetState, name: &str, resources: Value) -> Value {
    let now = state.stamp();
    let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": now, "lastHeartbeatTime": now});
    json!({
        "capacity": resources, "allocatable": resources,
        "addresses": [{"type": "Hostname", "address": name}],
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("Ready", "True", "KubeletReady"),
        ],
        "nodeInfo": {
            "bootID": state.uid(), "machineID": state.uid().replace('-', ""), "systemUUID": state.uid(),
            "kernelVersion": "6.8.0-60-generic", "osImage": "Ubuntu 24.04.2 LTS", "operatingSystem": "linux",
            "architecture": "amd64", "containerRuntimeVersion": "containerd://2.0.5", "kubeletVersion": "v1.33.0",
            "kubeProxyVersion": "v1.33.0",
        },
    })
}

fn exporter(state: &mut FleetState) -> Value {
    let labels = json!({"app": "dcgm-exporter"});
    json!({
        "metadata": meta(state, "dcgm-exporter", "monitoring"),
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "nodeSelector": {"nvidia.com/gpu.present": "true"},
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "exporter", "image": "nvcr.io/nvidia/k8s/dcgm-exporter:4.8.2", "resources": {}}],
            }},
        },
        "status": {},
    })
}

fn add_workload(state: &mut FleetState, workload: &SimWorkload) {
    let labels = json!({"app": workload.name});
    let mut spec = json!({
        "terminationGracePeriodSeconds": 30,
        "containers": [{
            "name": "vllm", "image": "vllm/vllm-openai:v0.11.0",
            "args": ["--model", workload.model],
            "resources": {"limits": {"nvidia.com/gpu": workload.gpus.to_string()}},
        }],
    });
    if workload.empty_dir {
        spec["volumes"] = json!([{"name": "shm", "emptyDir": {"medium": "Memory"}}]);
    }
    let (kind, strategy) = match workload.kind {
        WorkloadKind::Deployment => (ObjectKind::Deployment, "strategy"),
        WorkloadKind::StatefulSet => (ObjectKind::StatefulSet, "updateStrategy"),
    };
    let mut metadata = meta(state, &workload.name, &workload.namespace);
    metadata["labels"] = labels.clone();
    metadata["generation"] = 1.into();
    let mut object = json!({
        "metadata": metadata,
        "spec": {
            "replicas": workload.replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": template_labels(workload)}, "spec": spec},
        },
        "status": {},
    });
    object["spec"][strategy] = json!({"type": "RollingUpdate"});
    if kind == ObjectKind::Deployment {
        object["spec"][strategy]["rollingUpdate"] = json!({"maxSurge": "25%", "maxUnavailable": "25%"});
    } else {
        object["spec"]["serviceName"] = workload.name.clone().into();
    }
    state.put(kind, object);
    let service = json!({
        "metadata": meta(state, &workload.name, &workload.namespace),
        "spec": {"selector": {"app": workload.name, "nightshift.dev/traffic": "on"}, "ports": [{"port": 8000}]},
    });
    state.put(ObjectKind::Service, service);
    if let Some(least) = workload.min_available {
        let budget = json!({
            "metadata": meta(state, &workload.name, &workload.namespace),
            "spec": {"minAvailable": least, "selector": {"matchLabels": labels}},
        });
        state.put(ObjectKind::DisruptionBudget, budget);
    }
}

fn template_labels(workload: &SimWorkload) -> Value {
    let mut labels = json!({"app": workload.name, "model": workload.model_label(), "nightshift.dev/traffic": "on"});
    for (name, value) in &workload.labels {
        labels[name] = value.as_str().into();
    }
    labels
}

/// A mirror pod that no API call can end, and a notebook without a controller.
fn add_lone_pods(state: &mut FleetState) {
    let now = state.stamp();
    let mut mirror = json!({
        "metadata": meta(state, "kube-apiserver-control-1", "kube-system"),
        "spec": {"nodeName": "control-1", "containers": [{"name": "kube-apiserver", "image": "registry.k8s.io/kube-apiserver:v1.33.0"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}]},
    });
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "b5e1"});
    mirror["metadata"]["labels"] = json!({"component": "kube-apiserver", "tier": "control-plane"});
    state.put(ObjectKind::Pod, mirror);
    let last = format!("gpu-{}", state.options.nodes);
    if !state.options.lone_pod || !state.seats.contains_key(&last) {
        return;
    }
    let mut notebook = json!({
        "metadata": meta(state, "notebook-ada", "research"),
        "spec": {"terminationGracePeriodSeconds": 30, "containers": [{"name": "notebook", "image": "quay.io/jupyter/base-notebook",
            "resources": {"limits": {"nvidia.com/gpu": "1"}}}], "volumes": [{"name": "work", "emptyDir": {}}]},
        "status": {"phase": "Pending", "conditions": []},
    });
    notebook["metadata"]["labels"] = json!({"app": "notebook"});
    let key = ObjectKey::new(ObjectKind::Pod, "research", text(&notebook, "/metadata/name"));
    state.put(ObjectKind::Pod, notebook);
    bind(state, &key, &last);
}
