//! The facts about a target that the guards need before a step begins.
//!
//! Invariant: an unreadable fact is unknown (`None`), never a default that allows.

use super::kube::{FleetCount, FleetScope, belongs_to_kubernetes};
use super::{KubeClient, Node, World, WorldError};
use crate::limits;
use crate::model::Subject;
use crate::policy::{NodeGroup, WorldFacts};
use std::sync::OnceLock;

/// The annotation with a cordon's owner: `<identity> <run> <why>`, written in the same patch as the cordon.
pub const CORDONED_BY: &str = "nightshift.dev/cordoned-by";
/// The label that takes a node out of our hands for good: `nightshift.dev/opt-out=true`.
pub const OPT_OUT: &str = "nightshift.dev/opt-out";
/// Who a cordon belongs to when nothing on the node says so.
pub const NO_OWNER: &str = "another user or tool";

/// Whether a node is cordoned, and whose that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CordonState {
    Open,
    /// By this installation, in that run.
    Ours {
        run: String,
    },
    Foreign {
        who: String,
    },
}

/// The annotation's value for a cordon of ours.
pub fn cordon_mark(identity: &str, run: &str, why: &str) -> String {
    let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(limits::REASON_CHARS).collect();
    format!("{identity} {run} {why}").trim_end().to_owned()
}

/// Whose cordon a node bears.
pub fn cordon(node: &Node, identity: &str) -> CordonState {
    if !node.unschedulable {
        return CordonState::Open;
    }
    match node.annotations.get(CORDONED_BY).map(|mark| mark.split_once(' ').unwrap_or((mark, ""))) {
        Some((by, rest)) if by == identity => {
            CordonState::Ours { run: rest.split(' ').next().unwrap_or_default().to_owned() }
        }
        Some((by, _)) => CordonState::Foreign { who: by.to_owned() },
        None => CordonState::Foreign { who: foreign_owner(node).to_owned() },
    }
}

pub(super) async fn read(world: &World, target: &Subject) -> WorldFacts {
    if let Some(name) = &target.container {
        return of_container(world, name).await;
    }
    let elsewhere = target.node.is_none() && target.pod.is_none() && target.namespace.is_none();
    let Ok(kube) = world.kube(target.cluster.as_deref()) else { return without_cluster(world) };
    if elsewhere {
        return WorldFacts::default();
    }
    let about = target.node.as_deref().map_or(FleetScope::Fleet, FleetScope::Node);
    let (node, level) = tokio::join!(node_of(kube, target), kube.level(&*world.clock, about));
    let mut facts = counted(level);
    facts.protected = target.namespace.as_deref().and_then(protected_namespace);
    match &node {
        Ok(Some(node)) => {
            facts.protected = facts.protected.or_else(|| protected_node(node, own_node()));
            // A pod may be moved off a node that another owner cordoned; the node itself is theirs.
            if target.node.is_some() {
                let cordon = cordon(node, &world.identity);
                facts.our_cordon = Some(matches!(cordon, CordonState::Ours { .. }));
                if let CordonState::Foreign { who } = cordon {
                    facts.foreign_cordon = Some(who);
                }
            }
        }
        Ok(None) => {}
        // It does not exist, so nothing can be done to it, and the action will report it.
        Err(WorldError::NotFound(_)) => {}
        // A missing right does not come back by waiting; silence, or nonsense, proves nothing: the step waits for an
        // answer.
        Err(error) if !matches!(error, WorldError::Forbidden(_)) => {
            facts.unread = Some(error.to_string());
            facts.nodes_total = None;
        }
        Err(error) => {
            // Whether it is protected is unknown, and without a total the guards hold.
            facts.protected = facts.protected.or_else(|| Some(format!("it cannot be read: {error}")));
            facts.nodes_total = None;
        }
    }
    facts
}

/// A container is alone on its machine: no fleet whose level could be exceeded, but its own labels count.
async fn of_container(world: &World, name: &str) -> WorldFacts {
    let mut facts = WorldFacts { read_at: Some(world.clock.now()), nodes_total: Some(1), ..WorldFacts::default() };
    let read = async { world.docker()?.container(name).await };
    match read.await {
        Ok(container) => facts.protected = container.protected(),
        // It does not exist, or there is no engine to read from: the action will report it.
        Err(WorldError::NotFound(_) | WorldError::Invalid(_)) => {}
        Err(error) => {
            facts.unread = Some(error.to_string());
            facts.nodes_total = None;
        }
    }
    facts
}

pub(super) async fn fleet(world: &World) -> WorldFacts {
    let Ok(kube) = world.kube(None) else { return without_cluster(world) };
    counted(kube.level(&*world.clock, FleetScope::Fleet).await)
}

/// Every group of nodes that the guards look at, of the first cluster; none where they could not be read.
pub(super) async fn groups(world: &World) -> Vec<NodeGroup> {
    let Ok(kube) = world.kube(None) else { return Vec::new() };
    kube.level(&*world.clock, FleetScope::Groups).await.map(|level| level.groups).unwrap_or_default()
}

/// Where no cluster is configured the fleet is the nodes whose agents have connected; silent ones are out.
fn without_cluster(world: &World) -> WorldFacts {
    let agents = if world.clusters.is_empty() { world.agents.list() } else { Vec::new() };
    if agents.is_empty() {
        return WorldFacts::default();
    }
    let out = agents.iter().filter(|agent| !agent.here).map(|agent| agent.name.node.clone());
    WorldFacts { nodes_total: Some(agents.len() as u32), nodes_out: out.collect(), ..WorldFacts::default() }
}

/// A level that could not be listed is unknown.
fn counted(level: Result<FleetCount, WorldError>) -> WorldFacts {
    match level {
        Ok(FleetCount { total, out, groups, read_at }) => WorldFacts {
            nodes_total: Some(total),
            nodes_out: out,
            groups,
            read_at: Some(read_at),
            ..WorldFacts::default()
        },
        Err(_) => WorldFacts::default(),
    }
}

/// The node that the target is or runs on; a workload runs on several, and none of them is meant.
async fn node_of(kube: &KubeClient, target: &Subject) -> Result<Option<Node>, WorldError> {
    if let Some(name) = &target.node {
        return kube.node(name).await.map(Some);
    }
    let (Some(namespace), Some(pod)) = (&target.namespace, &target.pod) else { return Ok(None) };
    let pod = kube.pod(namespace, pod).await?;
    if pod.node.is_empty() { Ok(None) } else { kube.node(&pod.node).await.map(Some) }
}

fn protected_namespace(namespace: &str) -> Option<String> {
    belongs_to_kubernetes(namespace).then(|| format!("namespace {namespace} belongs to Kubernetes itself"))
}

fn protected_node(node: &Node, own: Option<&str>) -> Option<String> {
    if node.labels.get(OPT_OUT).is_some_and(|value| value == "true") {
        return Some(format!("node {} has the label {OPT_OUT}=true", node.name));
    }
    const ROLES: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
    let is_role = |key: &str| ROLES.contains(&key);
    if node.labels.keys().any(|key| is_role(key)) || node.taints.iter().any(|(key, _, _)| is_role(key)) {
        return Some(format!("node {} is part of the control plane", node.name));
    }
    (own == Some(node.name.as_str())).then(|| format!("node {} is where Nightshift itself runs", node.name))
}

/// The node that we run on, from the downward API.
fn own_node() -> Option<&'static str> {
    static OWN: OnceLock<Option<String>> = OnceLock::new();
    OWN.get_or_init(|| std::env::var("NIGHTSHIFT_NODE_NAME").ok().filter(|name| !name.is_empty())).as_deref()
}

/// Traces of other tools on a node that they cordon: a part of a label's, annotation's or taint's key, and the tool.
const TRACES: [(&str, &str); 9] = [
    ("weave.works/kured", "kured"),
    ("ToBeDeletedByClusterAutoscaler", "the cluster autoscaler"),
    ("karpenter.sh/disrupted", "Karpenter"),
    ("medik8s.io/", "medik8s"),
    ("quarantineHealthEvent", "NVSentinel"),
    ("k8saas.nvidia.com/cordon-by", "NVSentinel"),
    ("draino/", "draino"),
    ("upgrade.cattle.io/", "the Rancher upgrade controller"),
    ("maintenance.nvidia.com/", "the NVIDIA maintenance operator"),
];

fn foreign_owner(node: &Node) -> &'static str {
    let keys = || {
        let taints = node.taints.iter().map(|(key, _, _)| key.as_str());
        node.annotations.keys().chain(node.labels.keys()).map(String::as_str).chain(taints)
    };
    if let Some((_, who)) = TRACES.iter().find(|(trace, _)| keys().any(|key| key.contains(trace))) {
        return who;
    }
    // The GPU operator keeps this label for ever, so only its value counts.
    match node.labels.get("nvidia.com/gpu-driver-upgrade-state").map(String::as_str) {
        None | Some("" | "upgrade-done" | "upgrade-required" | "unknown") => NO_OWNER,
        Some(_) => "the GPU operator's driver upgrade",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node {
            name: "gpu-1".to_owned(),
            uid: "u".to_owned(),
            resource_version: "1".to_owned(),
            labels: [].into(),
            annotations: [].into(),
            unschedulable: true,
            taints: vec![],
            taints_sent: vec![],
            ready: true,
            boot_id: "b".to_owned(),
            gpus: 8,
            gpus_allocatable: 8,
        }
    }

    #[test]
    fn a_cordon_is_ours_only_with_our_mark() {
        let mut node = node();
        assert_eq!(cordon(&node, "nightshift/a"), CordonState::Foreign { who: NO_OWNER.to_owned() });
        node.annotations.insert(CORDONED_BY.to_owned(), cordon_mark("nightshift/a", "r7", "XID 79\non gpu 3"));
        assert_eq!(cordon(&node, "nightshift/a"), CordonState::Ours { run: "r7".to_owned() });
        assert_eq!(cordon(&node, "nightshift/ab"), CordonState::Foreign { who: "nightshift/a".to_owned() });
        node.unschedulable = false;
        assert_eq!(cordon(&node, "nightshift/a"), CordonState::Open);
    }

    #[test]
    fn others_are_known_by_what_they_leave_on_a_node() {
        let mut node = node();
        node.labels.insert("nvidia.com/gpu-driver-upgrade-state".to_owned(), "upgrade-done".to_owned());
        assert_eq!(foreign_owner(&node), NO_OWNER);
        node.labels.insert("nvidia.com/gpu-driver-upgrade-state".to_owned(), "drain-required".to_owned());
        assert_eq!(foreign_owner(&node), "the GPU operator's driver upgrade");
        node.taints.push(("karpenter.sh/disrupted".to_owned(), String::new(), "NoSchedule".to_owned()));
        assert_eq!(foreign_owner(&node), "Karpenter");
    }

    #[test]
    fn what_nobody_may_touch_says_why() {
        let mut node = node();
        assert_eq!(protected_node(&node, Some("gpu-2")), None);
        assert!(protected_node(&node, Some("gpu-1")).unwrap().contains("Nightshift itself"));
        node.taints.push(("node-role.kubernetes.io/control-plane".to_owned(), String::new(), "NoSchedule".to_owned()));
        assert!(protected_node(&node, None).unwrap().contains("control plane"));
        node.labels.insert(OPT_OUT.to_owned(), "true".to_owned());
        assert!(protected_node(&node, None).unwrap().contains("opt-out"));
        assert!(protected_namespace("kube-system").is_some());
        assert!(protected_namespace("prod").is_none());
    }
}
