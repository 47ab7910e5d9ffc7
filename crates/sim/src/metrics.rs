//! The metrics of the fleet's exporters: dcgm-exporter, kube-state-metrics and vLLM, on one page.
//!
//! Invariant: every value follows from the fleet's state and its clock, so the same moment reads the same.

use super::object::{ObjectKey, ObjectKind, condition, controller, fnv, is_terminating, number, text, texts};
use super::state::{FleetState, gpus};
use serde_json::Value;
use std::fmt::Write as _;

/// One series.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SimSeries {
    pub name: &'static str,
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
}

const TOKENS_PER_SECOND: f64 = 850.0;
/// The growth of a stalled engine's queue.
const ARRIVALS_PER_SECOND: f64 = 6.0;
const FRAMEBUFFER_MIB: f64 = 81_559.0;
const XID_WINDOW_MS: &str = "300000";

/// Kind and help of each metric, in the order of the page.
const FAMILIES: &[(&str, &str, &str)] = &[
    ("DCGM_FI_DEV_GPU_TEMP", "gauge", "GPU temperature (in C)."),
    ("DCGM_FI_DEV_MEMORY_TEMP", "gauge", "Memory temperature (in C)."),
    ("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W)."),
    ("DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization (in %)."),
    ("DCGM_FI_DEV_FB_USED", "gauge", "Framebuffer memory used (in MiB)."),
    ("DCGM_FI_DEV_FB_FREE", "gauge", "Framebuffer memory free (in MiB)."),
    ("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "counter", "Total number of double-bit volatile ECC errors."),
    ("DCGM_FI_DEV_XID_ERRORS", "gauge", "Value of the last XID error encountered."),
    ("DCGM_EXP_XID_ERRORS_COUNT", "gauge", "Count of XID errors within the window."),
    ("kube_node_info", "gauge", "Information about a cluster node."),
    ("kube_node_status_condition", "gauge", "The condition of a cluster node."),
    ("kube_node_spec_unschedulable", "gauge", "Whether a node can schedule new pods."),
    ("kube_node_status_capacity", "gauge", "The total amount of resources of a node."),
    ("kube_node_status_allocatable", "gauge", "The amount of resources of a node that pods may use."),
    ("kube_deployment_spec_replicas", "gauge", "Number of desired pods for a deployment."),
    ("kube_deployment_status_replicas_available", "gauge", "The number of available replicas per deployment."),
    ("kube_deployment_status_replicas_ready", "gauge", "The number of ready replicas per deployment."),
    ("kube_deployment_status_observed_generation", "gauge", "The generation observed by the deployment controller."),
    ("kube_pod_info", "gauge", "Information about pod."),
    ("kube_pod_status_phase", "gauge", "The pods current phase."),
    ("kube_pod_status_ready", "gauge", "Describes whether the pod is ready to serve requests."),
    ("kube_pod_container_resource_requests", "gauge", "The number of requested request resource by a container."),
    ("vllm:num_requests_running", "gauge", "Number of requests in model execution batches."),
    ("vllm:num_requests_waiting", "gauge", "Number of requests waiting to be processed."),
    ("vllm:kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage."),
    ("vllm:prompt_tokens_total", "counter", "Number of prefill tokens processed."),
    ("vllm:generation_tokens_total", "counter", "Number of generation tokens processed."),
    ("vllm:request_success_total", "counter", "Count of successfully processed requests."),
    ("vllm:iteration_tokens_total_sum", "", ""),
    ("vllm:iteration_tokens_total_count", "", ""),
    (
        "nightshift_weights_stale",
        "gauge",
        "Whether a node's weights volume holds an older revision than the fleet serves.",
    ),
];

/// The page at `/metrics`.
pub(super) fn page(state: &FleetState) -> String {
    let mut series = all(state);
    series.sort_by_key(|s| FAMILIES.iter().position(|(name, ..)| *name == s.name));
    let mut page = String::with_capacity(series.len() * 160);
    let mut last = "";
    for s in &series {
        if s.name != last {
            last = s.name;
            header(&mut page, s.name);
        }
        page.push_str(s.name);
        for (n, (label, value)) in s.labels.iter().enumerate() {
            let _ = write!(page, "{}{label}=\"{}\"", if n == 0 { '{' } else { ',' }, escape(value));
        }
        let _ = writeln!(page, "{} {}", if s.labels.is_empty() { "" } else { "}" }, s.value);
    }
    page
}

fn header(page: &mut String, name: &str) {
    // The histogram's parts stand together under one name.
    let (name, kind, help) = match name.strip_suffix("_sum") {
        Some(whole) => (whole, "histogram", "Histogram of number of tokens per engine_step."),
        None => match FAMILIES.iter().find(|(n, kind, _)| *n == name && !kind.is_empty()) {
            Some(found) => *found,
            None => return,
        },
    };
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Every series there is now.
pub(super) fn all(state: &FleetState) -> Vec<SimSeries> {
    let mut out = SimSeriesList(Vec::new());
    for (key, node) in state.keys(ObjectKind::Node, "") {
        node_series(state, &mut out, &key.name, node);
        gpu_series(state, &mut out, &key.name);
    }
    for (key, deployment) in state.keys(ObjectKind::Deployment, "") {
        deployment_series(&mut out, key, deployment);
    }
    for (key, pod) in state.keys(ObjectKind::Pod, "") {
        pod_series(&mut out, key, pod);
        engine_series(state, &mut out, key, pod);
    }
    for (node, model) in &state.health.stale_weights {
        out.add("nightshift_weights_stale", &[("node", node), ("model_name", model)], 1.0);
    }
    out.0
}

struct SimSeriesList(Vec<SimSeries>);

impl SimSeriesList {
    fn add(&mut self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        self.0.push(SimSeries { name, labels, value });
    }
}

fn node_series(state: &FleetState, out: &mut SimSeriesList, name: &str, node: &Value) {
    let version = text(node, "/status/nodeInfo/kubeletVersion");
    out.add("kube_node_info", &[("node", name), ("kubelet_version", version)], 1.0);
    let ready = condition(node, "Ready");
    for (status, is) in [("true", ready), ("false", false), ("unknown", !ready)] {
        let labels = [("node", name), ("condition", "Ready"), ("status", status)];
        out.add("kube_node_status_condition", &labels, flag(is));
    }
    let closed = state.seats.get(name).is_some_and(|seat| !seat.schedulable);
    out.add("kube_node_spec_unschedulable", &[("node", name)], flag(closed));
    let capacity = gpus(node, "/status/capacity/nvidia.com~1gpu");
    if capacity > 0 {
        let labels = [("node", name), ("resource", "nvidia_com_gpu"), ("unit", "integer")];
        out.add("kube_node_status_capacity", &labels, f64::from(capacity));
        let left = gpus(node, "/status/allocatable/nvidia.com~1gpu");
        out.add("kube_node_status_allocatable", &labels, f64::from(left));
    }
}

fn gpu_series(state: &FleetState, out: &mut SimSeriesList, node: &str) {
    let Some(seat) = state.seats.get(node).filter(|seat| seat.ready) else { return };
    for (index, holder) in seat.slots.iter().enumerate() {
        let gpu = u32::try_from(index).unwrap_or(u32::MAX);
        let (number, uuid) = (gpu.to_string(), uuid(node, gpu));
        let device = format!("nvidia{gpu}");
        let bus = format!("00000000:{:02X}:00.0", 0x10 + gpu);
        let mut labels: Vec<(&'static str, &str)> = vec![
            ("gpu", &number),
            ("UUID", &uuid),
            ("pci_bus_id", &bus),
            ("device", &device),
            ("modelName", "NVIDIA H100 80GB HBM3"),
            ("Hostname", node),
        ];
        if let Some(pod) = holder {
            labels.extend([("namespace", pod.namespace.as_str()), ("pod", pod.name.as_str()), ("container", "vllm")]);
        }
        let illness = state.health.gpu(node, gpu).cloned().unwrap_or_default();
        for (code, times) in &illness.xids {
            let code = code.to_string();
            let mut counted = labels.clone();
            counted.extend([("xid", code.as_str()), ("window_size_in_ms", XID_WINDOW_MS)]);
            out.add("DCGM_EXP_XID_ERRORS_COUNT", &counted, f64::from(*times));
        }
        out.add("DCGM_FI_DEV_XID_ERRORS", &labels, f64::from(illness.last_xid));
        // A GPU that fell off the bus answers nothing more.
        if illness.xids.contains_key(&79) {
            continue;
        }
        let wobble = (fnv(&uuid) % 5) as f64;
        let (busy, used) = if holder.is_some() { (88.0 + wobble, 71_300.0) } else { (0.0, 4.0) };
        let temperature = if illness.hot { 96.0 } else { 34.0 + busy / 3.0 + wobble };
        out.add("DCGM_FI_DEV_GPU_TEMP", &labels, temperature);
        out.add("DCGM_FI_DEV_MEMORY_TEMP", &labels, temperature + 8.0);
        out.add("DCGM_FI_DEV_POWER_USAGE", &labels, 72.0 + busy * 5.5);
        out.add("DCGM_FI_DEV_GPU_UTIL", &labels, busy);
        out.add("DCGM_FI_DEV_FB_USED", &labels, used);
        out.add("DCGM_FI_DEV_FB_FREE", &labels, FRAMEBUFFER_MIB - used);
        out.add("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", &labels, f64::from(illness.ecc));
    }
}

/// A GPU's UUID, the same in every run.
pub(super) fn uuid(node: &str, gpu: u32) -> String {
    let (a, b) = (fnv(&format!("{node}/{gpu}")), fnv(&format!("{gpu}/{node}")));
    format!(
        "GPU-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xffff,
        b >> 48,
        b & 0xffff_ffff_ffff
    )
}

fn deployment_series(out: &mut SimSeriesList, key: &ObjectKey, deployment: &Value) {
    let labels = [("namespace", key.namespace.as_str()), ("deployment", key.name.as_str())];
    let read = |pointer: &str| number(deployment, pointer) as f64;
    out.add("kube_deployment_spec_replicas", &labels, read("/spec/replicas"));
    out.add("kube_deployment_status_replicas_available", &labels, read("/status/availableReplicas"));
    out.add("kube_deployment_status_replicas_ready", &labels, read("/status/readyReplicas"));
    out.add("kube_deployment_status_observed_generation", &labels, read("/status/observedGeneration"));
}

fn pod_series(out: &mut SimSeriesList, key: &ObjectKey, pod: &Value) {
    let uid = text(pod, "/metadata/uid");
    let labels = [("namespace", key.namespace.as_str()), ("pod", key.name.as_str()), ("uid", uid)];
    let node = text(pod, "/spec/nodeName");
    let mut info = labels.to_vec();
    let owner = controller(pod);
    info.push(("node", node));
    if let Some((kind, name)) = owner {
        info.extend([("created_by_kind", kind.resource().name), ("created_by_name", name)]);
    }
    out.add("kube_pod_info", &info, 1.0);
    for phase in ["Pending", "Running", "Succeeded", "Failed", "Unknown"] {
        let mut one = labels.to_vec();
        one.push(("phase", phase));
        out.add("kube_pod_status_phase", &one, flag(text(pod, "/status/phase") == phase));
    }
    let mut ready = labels.to_vec();
    ready.push(("condition", "true"));
    out.add("kube_pod_status_ready", &ready, flag(condition(pod, "Ready")));
    let wanted = super::object::gpus_wanted(pod);
    if wanted > 0 {
        let mut request = labels.to_vec();
        request.extend([("node", node), ("resource", "nvidia_com_gpu"), ("unit", "integer")]);
        out.add("kube_pod_container_resource_requests", &request, f64::from(wanted));
    }
}

fn engine_series(state: &FleetState, out: &mut SimSeriesList, key: &ObjectKey, pod: &Value) {
    let model = text(pod, "/spec/containers/0/args/1");
    if text(pod, "/spec/containers/0/args/0") != "--model" || !condition(pod, "Ready") || is_terminating(pod) {
        return;
    }
    let deployment = text(pod, "/metadata/labels/app");
    let node = text(pod, "/spec/nodeName");
    let labels = [
        ("namespace", key.namespace.as_str()),
        ("deployment", deployment),
        ("pod", key.name.as_str()),
        ("node", node),
        ("model_name", model),
        ("engine", "0"),
    ];
    let since = text(pod, "/status/startTime").parse().unwrap_or(state.now);
    let stalled = state.health.stalled.get(text(pod, "/metadata/uid"));
    let age = seconds(since, *stalled.unwrap_or(&state.now));
    let stuck = stalled.map_or(0.0, |from| seconds(*from, state.now));
    // A healthy engine has a short queue now and then; its length follows from its age alone.
    let wave = (age as u64 / 5 + fnv(&key.name)) % 4;
    let waiting =
        if stalled.is_some() { 12.0 + (stuck * ARRIVALS_PER_SECOND).floor() } else { wave.saturating_sub(2) as f64 };
    let tokens = (age * TOKENS_PER_SECOND).floor();
    out.add("vllm:num_requests_running", &labels, if stalled.is_some() { 64.0 } else { 18.0 + wave as f64 });
    out.add("vllm:num_requests_waiting", &labels, waiting);
    out.add("vllm:kv_cache_usage_perc", &labels, if stalled.is_some() { 0.99 } else { 0.41 + wave as f64 / 20.0 });
    out.add("vllm:prompt_tokens_total", &labels, tokens * 3.0);
    out.add("vllm:generation_tokens_total", &labels, tokens);
    let ended: Vec<_> = labels.iter().copied().chain([("finished_reason", "stop")]).collect();
    out.add("vllm:request_success_total", &ended, (age * ARRIVALS_PER_SECOND).floor());
    out.add("vllm:iteration_tokens_total_sum", &labels, tokens * 4.0);
    out.add("vllm:iteration_tokens_total_count", &labels, (age * 40.0).floor());
}

/// UIDs of the pods that serve a deployment now.
pub(super) fn pods_of(state: &FleetState, namespace: &str, deployment: &str) -> Vec<String> {
    let key = ObjectKey::new(ObjectKind::Deployment, namespace, deployment);
    let Some(object) = state.get(&key) else { return Vec::new() };
    let labels = texts(object, "/spec/selector/matchLabels");
    let pods = state.keys(ObjectKind::Pod, namespace).map(|(_, pod)| pod);
    pods.filter(|pod| !is_terminating(pod))
        .filter(|pod| labels.iter().all(|(name, value)| pod["metadata"]["labels"][name] == value.as_str()))
        .map(|pod| text(pod, "/metadata/uid").to_owned())
        .collect()
}

fn seconds(from: crate::model::Time, to: crate::model::Time) -> f64 {
    ((to.as_microsecond() - from.as_microsecond()) as f64 / 1e6).max(0.0)
}

fn flag(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}
