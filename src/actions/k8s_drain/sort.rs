//! Which pods of a node a drain means, which it may not touch, and which it leaves alone.
//!
//! Invariant: every pod on the node is in exactly one of the lists.

use super::{DrainOptions, name};
use crate::world::Pod;

/// The pods of a node.
#[derive(Default)]
pub(super) struct SortedPods {
    /// To be evicted, or on their way out; also those that end or are not ready and still hold a GPU.
    pub meant: Vec<Pod>,
    /// Meant, but evicting them loses something that the runbook did not give up: with the reason.
    pub stuck: Vec<(Pod, &'static str)>,
    /// Not meant: `namespace/name` and why.
    pub left: Vec<(String, &'static str)>,
}

pub(super) fn sort(pods: Vec<Pod>, orders: &DrainOptions<'_>, protects: impl Fn(&str) -> bool) -> SortedPods {
    let mut sorted = SortedPods::default();
    for pod in pods {
        let leave = if pod.owner.as_ref().is_some_and(|(kind, _)| kind == "DaemonSet") {
            Some("belongs to a DaemonSet")
        } else if pod.mirror || pod.owner.as_ref().is_some_and(|(kind, _)| kind == "Node") {
            Some("is run by the kubelet itself")
        } else if pod.phase == "Succeeded" || pod.phase == "Failed" {
            Some("has finished")
        } else if orders.gpu_only && pod.gpus == 0 {
            Some("holds no GPU")
        } else if protects(&pod.namespace) {
            Some("is in a protected namespace")
        } else {
            None
        };
        // A pod that is already ending loses nothing more by our doing.
        let loss = if pod.terminating {
            None
        } else if pod.owner.is_none() && !orders.evict_bare {
            Some("would not be started again (evict_bare)")
        } else if pod.empty_dir && !orders.delete_empty_dir {
            Some("would lose an emptyDir (delete_empty_dir)")
        } else {
            None
        };
        match (leave, loss) {
            (Some(why), _) => sorted.left.push((name(&pod), why)),
            (None, Some(why)) => sorted.stuck.push((pod, why)),
            (None, None) => sorted.meant.push(pod),
        }
    }
    sorted
}

pub(super) fn names(pods: &[Pod]) -> Vec<String> {
    pods.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::super::orders;
    use super::*;
    use crate::model::ActionCall;
    use serde_json::json;

    fn pod(name: &str, change: impl FnOnce(&mut Pod)) -> Pod {
        let mut pod = Pod {
            namespace: "prod".to_owned(),
            name: name.to_owned(),
            resource_version: String::new(),
            ip: String::new(),
            marks: [].into(),
            uid: name.to_owned(),
            node: "gpu-1".to_owned(),
            phase: "Running".to_owned(),
            ready: true,
            terminating: false,
            labels: [].into(),
            owner: Some(("ReplicaSet".to_owned(), "llm".to_owned())),
            mirror: false,
            empty_dir: false,
            gpus: 1,
            priority: 0,
        };
        change(&mut pod);
        pod
    }

    #[test]
    fn every_kind_of_pod_goes_where_it_belongs() {
        let all = || {
            vec![
                pod("llm", |_| {}),
                pod("ending", |pod| (pod.terminating, pod.empty_dir, pod.ready) = (true, true, false)),
                pod("web", |pod| pod.gpus = 0),
                pod("ds", |pod| pod.owner = Some(("DaemonSet".to_owned(), "dcgm".to_owned()))),
                pod("mirror", |pod| pod.mirror = true),
                pod("over", |pod| pod.phase = "Succeeded".to_owned()),
                pod("bare", |pod| pod.owner = None),
                pod("scratch", |pod| pod.empty_dir = true),
                pod("dns", |pod| (pod.namespace, pod.gpus, pod.empty_dir) = ("kube-system".to_owned(), 0, true)),
            ]
        };
        let check = |options: &[(&'static str, serde_json::Value)], meant: &[&str], stuck: usize, left: usize| {
            let call =
                ActionCall::new("k8s::drain", [("node", json!("gpu-1"))].into_iter().chain(options.iter().cloned()));
            let sorted = sort(all(), &orders(&call).unwrap(), |namespace| namespace == "kube-system");
            let is: Vec<&str> = sorted.meant.iter().map(|pod| pod.name.as_str()).collect();
            assert_eq!((is.as_slice(), sorted.stuck.len(), sorted.left.len()), (meant, stuck, left), "{options:?}");
        };
        check(&[], &["llm", "ending"], 2, 5);
        check(&[("only", json!("all"))], &["llm", "ending", "web"], 2, 4);
        check(&[("evict_bare", json!(true))], &["llm", "ending", "bare"], 1, 5);
        let both = [("evict_bare", json!(true)), ("delete_empty_dir", json!(true))];
        check(&both, &["llm", "ending", "bare", "scratch"], 0, 5);
    }
}
