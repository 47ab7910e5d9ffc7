//! The unhealthy object and the objects that contain it: cluster ⊃ node ⊃ GPU ⊃ slice; cluster ⊃ namespace ⊃ workload ⊃
//! pod; container; model.
//!
//! Invariant: a part that is unknown is absent, never the empty string.

use super::Labels;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What an event, an incident or a call is about. Unknown parts are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gpu: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slice: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pod: Option<String>,
    /// Of a Docker engine, by name; containers of pods are their pods' matter.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
}

/// For each part of a subject, the labels that may name it, the first non-empty one wins. Data, so that a site whose
/// exporters use other names sets them in its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LabelMap {
    /// Labels that name the cluster.
    pub cluster: Vec<String>,
    /// Labels that name the node.
    pub node: Vec<String>,
    /// Labels that name the GPU.
    pub gpu: Vec<String>,
    /// Labels that name the MIG slice.
    pub slice: Vec<String>,
    /// Labels that name the namespace.
    pub namespace: Vec<String>,
    /// Labels that name the workload.
    pub workload: Vec<String>,
    /// Labels that name the pod.
    pub pod: Vec<String>,
    /// Labels that name the container.
    pub container: Vec<String>,
    /// Labels that name the model.
    pub model: Vec<String>,
}

impl Default for LabelMap {
    fn default() -> Self {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        LabelMap {
            cluster: names(&["cluster"]),
            // dcgm-exporter writes Hostname or hostname by version; kube-state-metrics writes node.
            node: names(&["node", "Hostname", "hostname", "kubernetes_node", "nodename"]),
            gpu: names(&["gpu", "GPU", "UUID", "gpu_uuid"]),
            slice: names(&["GPU_I_ID"]),
            // Prometheus renames colliding labels to exported_*: those are the workload's, the plain ones the exporter's.
            namespace: names(&["exported_namespace", "namespace"]),
            workload: names(&["deployment", "statefulset", "daemonset", "workload"]),
            pod: names(&["exported_pod", "pod"]),
            // Not `container`: exporters on Kubernetes write that of every pod.
            container: names(&["docker_container"]),
            model: names(&["model_name", "model"]),
        }
    }
}

impl Subject {
    /// The names of all parts, containers before their contents.
    pub const PARTS: [&str; 9] =
        ["cluster", "node", "gpu", "slice", "namespace", "workload", "pod", "container", "model"];

    /// A node, without its cluster.
    pub fn node(name: impl Into<String>) -> Subject {
        Subject { node: Some(name.into()), ..Subject::default() }
    }

    /// A pod, without its cluster.
    pub fn pod(namespace: impl Into<String>, name: impl Into<String>) -> Subject {
        Subject { namespace: Some(namespace.into()), pod: Some(name.into()), ..Subject::default() }
    }

    /// A workload, without its cluster.
    pub fn workload(namespace: impl Into<String>, name: impl Into<String>) -> Subject {
        Subject { namespace: Some(namespace.into()), workload: Some(name.into()), ..Subject::default() }
    }

    /// A container of this machine.
    pub fn container(name: impl Into<String>) -> Subject {
        Subject { container: Some(name.into()), ..Subject::default() }
    }

    /// Reads a subject out of labels.
    pub fn from_labels(labels: &Labels, map: &LabelMap) -> Subject {
        let first = |names: &[String]| {
            names.iter().map(|name| labels.get(name)).find(|value| !value.is_empty()).map(str::to_owned)
        };
        Subject {
            cluster: first(&map.cluster),
            node: first(&map.node),
            gpu: first(&map.gpu),
            slice: first(&map.slice),
            namespace: first(&map.namespace),
            workload: first(&map.workload),
            pod: first(&map.pod),
            container: first(&map.container),
            model: first(&map.model),
        }
    }

    /// The part named by a word of the design (`node`, `gpu`, …), or `None` if it is absent or no such part exists.
    pub fn part(&self, name: &str) -> Option<&str> {
        match name {
            "cluster" => self.cluster.as_deref(),
            "node" => self.node.as_deref(),
            "gpu" => self.gpu.as_deref(),
            "slice" => self.slice.as_deref(),
            "namespace" => self.namespace.as_deref(),
            "workload" => self.workload.as_deref(),
            "pod" => self.pod.as_deref(),
            "container" => self.container.as_deref(),
            "model" => self.model.as_deref(),
            _ => None,
        }
    }

    /// The parts that both have with the same value: the common ground of two faults.
    pub fn common(&self, other: &Subject) -> Subject {
        let same = |a: &Option<String>, b: &Option<String>| a.clone().filter(|_| a == b);
        Subject {
            cluster: same(&self.cluster, &other.cluster),
            node: same(&self.node, &other.node),
            gpu: same(&self.gpu, &other.gpu),
            slice: same(&self.slice, &other.slice),
            namespace: same(&self.namespace, &other.namespace),
            workload: same(&self.workload, &other.workload),
            pod: same(&self.pod, &other.pod),
            container: same(&self.container, &other.container),
            model: same(&self.model, &other.model),
        }
    }

    /// Whether every part is unknown.
    pub fn is_empty(&self) -> bool {
        *self == Subject::default()
    }

    /// In words: `gpu-3, GPU 5`, `llama-70b (inference)`, `cluster prod, gpu-3`; `the fleet` where it is empty.
    pub fn words(&self) -> String {
        let named = |name: &String| match &self.namespace {
            Some(namespace) => format!("{name} ({namespace})"),
            None => name.clone(),
        };
        let mut parts: Vec<String> = self.cluster.iter().map(|cluster| format!("cluster {cluster}")).collect();
        parts.extend(self.node.clone());
        let is_named = |gpu: &str| gpu.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("gpu"));
        parts.extend(self.gpu.iter().map(|gpu| if is_named(gpu) { gpu.clone() } else { format!("GPU {gpu}") }));
        parts.extend(self.slice.iter().map(|slice| format!("slice {slice}")));
        match (&self.workload, &self.pod) {
            (Some(workload), pod) => {
                parts.push(named(workload));
                parts.extend(pod.iter().map(|pod| format!("pod {pod}")));
            }
            (None, Some(pod)) => parts.push(named(pod)),
            (None, None) => parts.extend(self.namespace.iter().map(|namespace| format!("namespace {namespace}"))),
        }
        parts.extend(self.container.iter().map(|container| format!("container {container}")));
        if self.workload.is_none() && self.pod.is_none() {
            parts.extend(self.model.clone());
        }
        if parts.is_empty() { "the fleet".to_owned() } else { parts.join(", ") }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("fleet");
        }
        let mut space = "";
        for name in Subject::PARTS {
            if let Some(value) = self.part(name) {
                write!(f, "{space}{name} {value}")?;
                space = " ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_from_the_spelling_of_several_exporters() {
        let labels: Labels =
            [("Hostname", "gpu-3"), ("gpu", "1"), ("exported_pod", "llm-0"), ("pod", "dcgm-x")].into_iter().collect();
        let subject = Subject::from_labels(&labels, &LabelMap::default());
        assert_eq!(subject.to_string(), "node gpu-3 gpu 1 pod llm-0");
        assert_eq!(subject.part("pod"), Some("llm-0"));
    }

    #[test]
    fn a_subject_is_named_as_people_name_it() {
        let gpu = |gpu: &str| Subject { gpu: Some(gpu.to_owned()), ..Subject::node("gpu-3") }.words();
        assert_eq!([gpu("5"), gpu("GPU-8f3a")], ["gpu-3, GPU 5", "gpu-3, GPU-8f3a"]);
        let model = Some("meta-llama/Llama-70B".to_owned());
        let workload = Subject { model, ..Subject::workload("inference", "llama-70b") };
        assert_eq!(workload.words(), "llama-70b (inference)");
        assert_eq!(Subject { cluster: Some("prod".into()), ..Subject::node("gpu-3") }.words(), "cluster prod, gpu-3");
        assert_eq!(Subject::default().words(), "the fleet");
    }
}
