//! Replicas in service that a step would take: for each set of replicas the ready ones, those that go, and its floor.
//!
//! Invariant: a set that cannot be read whole is an error in words, never a smaller set.

use super::inference::TRAFFIC_TAKEN_BY;
use super::kube::{KubeClient, Pod};
use super::{World, WorldError};
use crate::limits;
use crate::model::{CapacityLoss, Subject};
use crate::planted::planted;
use crate::policy::{AffectedReplicas, GuardLimits, ReadyReplica};
use futures::StreamExt;
use std::collections::BTreeMap;

/// On a Deployment or StatefulSet, or as a label on a container: never fewer ready replicas than this.
pub const SERVING_FLOOR: &str = "nightshift.dev/serving-floor";

/// The key that joins several pods into one set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum ServingSet {
    Owner { namespace: String, kind: String, name: String },
    Model(String),
}

/// The pods of one set that go.
#[derive(Default)]
struct LeavingPods {
    pods: Vec<String>,
    any: Option<ReplicaChange>,
    /// The workload whose annotation sets the floor, where a label makes the set.
    owner: Option<(String, String)>,
}

#[derive(Clone, Copy)]
enum ReplicaChange {
    DownTo(u32),
    ByRollout,
}

pub(super) async fn read(
    world: &World,
    target: &Subject,
    takes: &CapacityLoss,
    limits: &GuardLimits,
) -> Result<Vec<AffectedReplicas>, WorldError> {
    if let CapacityLoss::Container { name } = takes {
        return of_container(world, name, limits).await;
    }
    if *takes == CapacityLoss::Nothing || world.clusters.is_empty() {
        return Ok(Vec::new());
    }
    let kube = world.kube(target.cluster.as_deref())?;
    let sets = match going(kube, takes, limits).await {
        // Nothing of that name exists, so nothing goes; the action will report it.
        Err(WorldError::NotFound(_)) => return Ok(Vec::new()),
        sets => sets?,
    };
    if sets.len() > limits::SERVING_SETS {
        let why = format!("{} replica sets are affected; the limit is {}", sets.len(), limits::SERVING_SETS);
        return Err(WorldError::Invalid(why));
    }
    let asked = sets.into_iter().map(|(set, going)| of_set(kube, set, going, limits)).collect::<Vec<_>>();
    let read: Vec<_> = futures::stream::iter(asked).buffered(limits::KUBE_AT_ONCE).collect().await;
    read.into_iter().collect()
}

/// The sets that a call touches.
async fn going(
    kube: &KubeClient,
    takes: &CapacityLoss,
    limits: &GuardLimits,
) -> Result<BTreeMap<ServingSet, LeavingPods>, WorldError> {
    let mut sets: BTreeMap<ServingSet, LeavingPods> = BTreeMap::new();
    let mut add = |pod: &Pod| {
        let Some(set) = set_of(pod, limits) else { return };
        let going = sets.entry(set).or_default();
        going.pods.push(format!("{}/{}", pod.namespace, pod.name));
        going.owner = going.owner.take().or_else(|| owner_of(pod).map(|(_, name)| (pod.namespace.clone(), name)));
    };
    match takes {
        CapacityLoss::Node { name, gpu_only } => {
            kube.pods_on(name).await?.iter().filter(|pod| serves(pod) && (!gpu_only || pod.gpus > 0)).for_each(add);
        }
        CapacityLoss::Pod { namespace, name } => {
            let pod = kube.pod(namespace, name).await?;
            if serves(&pod) {
                add(&pod);
            }
        }
        CapacityLoss::Scale { namespace, name, .. } | CapacityLoss::Rollout { namespace, name } => {
            let any = if let CapacityLoss::Scale { to, .. } = takes {
                ReplicaChange::DownTo(*to)
            } else {
                ReplicaChange::ByRollout
            };
            let kind = kube.workload(namespace, name).await?.kind;
            let set = ServingSet::Owner { namespace: namespace.clone(), kind, name: name.clone() };
            sets.insert(set, LeavingPods { any: Some(any), ..LeavingPods::default() });
        }
        CapacityLoss::Nothing | CapacityLoss::Container { .. } => {}
    }
    Ok(sets)
}

async fn of_set(
    kube: &KubeClient,
    set: ServingSet,
    going: LeavingPods,
    limits: &GuardLimits,
) -> Result<AffectedReplicas, WorldError> {
    let (namespace, name) = match &set {
        ServingSet::Owner { namespace, name, .. } => (namespace.clone(), name.clone()),
        ServingSet::Model(_) => going.owner.clone().unwrap_or_default(),
    };
    let has_controller = match &set {
        ServingSet::Owner { kind, .. } => matches!(kind.as_str(), "Deployment" | "StatefulSet"),
        ServingSet::Model(_) => !name.is_empty(),
    };
    let workload = if has_controller {
        match kube.workload(&namespace, &name).await {
            Ok(workload) => Some(workload),
            // Deleted, or of a kind of its own that has a Deployment's name in front of its pods.
            Err(WorldError::NotFound(_)) => None,
            Err(error) => return Err(error),
        }
    } else {
        None
    };
    let mark = workload.as_ref().and_then(|workload| workload.annotations.get(SERVING_FLOOR));
    let label = limits.model_label.as_deref().unwrap_or_default();
    let (shown, pods) = match &set {
        ServingSet::Model(value) => (format!("model {value}"), kube.pods_labelled(label, value).await?),
        ServingSet::Owner { .. } => {
            let selector = workload.as_ref().map(|workload| workload.selector.clone()).unwrap_or_default();
            (format!("{namespace}/{name}"), kube.pods(&namespace, &selector).await?)
        }
    };
    let (floor, floor_from) = floor(mark, &shown, limits)?;
    let is_of = |pod: &&Pod| match &set {
        ServingSet::Model(_) => true,
        ServingSet::Owner { kind, name, .. } => {
            owner_of(pod).is_some_and(|owner| owner == (kind.clone(), name.clone()))
        }
    };
    let replica = |pod: &Pod| ReadyReplica { pod: format!("{}/{}", pod.namespace, pod.name), node: pod.node.clone() };
    let ready: Vec<ReadyReplica> = pods.iter().filter(|pod| serves(pod)).filter(is_of).map(replica).collect();
    let takes_any = match going.any {
        None => 0,
        Some(ReplicaChange::DownTo(to)) => (ready.len() as u32).saturating_sub(to),
        Some(ReplicaChange::ByRollout) => workload.as_ref().map_or(ready.len() as u32, |workload| workload.may_lack),
    };
    Ok(AffectedReplicas { set: shown, floor, floor_from, ready, takes: going.pods, takes_any })
}

fn floor(mark: Option<&String>, of: &str, limits: &GuardLimits) -> Result<(u32, String), WorldError> {
    match mark {
        None => Ok((limits.serving_floor, "guards.serving_floor".to_owned())),
        Some(text) => match text.parse() {
            Ok(floor) => Ok((floor, format!("{SERVING_FLOOR} on it"))),
            Err(_) => {
                let shown: String = text.chars().take(limits::GROUP_CHARS).collect();
                Err(WorldError::Invalid(format!(
                    "{SERVING_FLOOR} of {of} is `{}`, which is no number",
                    shown.escape_debug()
                )))
            }
        },
    }
}

/// Ready, not on its way out, and not without its traffic.
fn serves(pod: &Pod) -> bool {
    let has_traffic = !pod.marks.contains_key(TRAFFIC_TAKEN_BY);
    (pod.ready || planted("floor-counts-unready-replicas")) && !pod.terminating && !pod.mirror && has_traffic
}

fn set_of(pod: &Pod, limits: &GuardLimits) -> Option<ServingSet> {
    let owner = owner_of(pod);
    if let Some(model) = limits.model_label.as_ref().and_then(|label| pod.labels.get(label)) {
        return Some(ServingSet::Model(model.clone()));
    }
    owner.map(|(kind, name)| ServingSet::Owner { namespace: pod.namespace.clone(), kind, name })
}

/// Kind and name of the controller that keeps the pod's replicas; none for jobs, daemons, lone pods.
fn owner_of(pod: &Pod) -> Option<(String, String)> {
    let (kind, name) = pod.owner.as_ref()?;
    match kind.as_str() {
        "DaemonSet" | "Node" | "Job" => None,
        // A Deployment names its sets after itself and the hash that it puts on their pods.
        "ReplicaSet" => {
            let hash = pod.labels.get("pod-template-hash").map(String::as_str).unwrap_or_default();
            let deployment =
                name.strip_suffix(hash).and_then(|rest| rest.strip_suffix('-')).filter(|_| !hash.is_empty());
            Some(match deployment {
                Some(deployment) => ("Deployment".to_owned(), deployment.to_owned()),
                None => (kind.clone(), name.clone()),
            })
        }
        _ => Some((kind.clone(), name.clone())),
    }
}

/// Containers of one machine that bear the same model are one set. One without a health check is not known to be ready.
async fn of_container(world: &World, name: &str, limits: &GuardLimits) -> Result<Vec<AffectedReplicas>, WorldError> {
    // Without an engine to read from, the action will report it.
    let Ok(docker) = world.docker() else { return Ok(Vec::new()) };
    let containers = docker.containers().await?;
    let Some(target) = containers.iter().find(|container| container.name == name || container.id == name) else {
        return Ok(Vec::new());
    };
    let shown = format!("model {}", target.model());
    let (floor, floor_from) = floor(target.labels.get(SERVING_FLOOR), &shown, limits)?;
    let same =
        containers.iter().filter(|container| container.model() == target.model() && container.health == "healthy");
    let ready = same.map(|container| ReadyReplica { pod: container.name.clone(), node: String::new() }).collect();
    Ok(vec![AffectedReplicas { set: shown, floor, floor_from, ready, takes: vec![target.name.clone()], takes_any: 0 }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(kind: &str, name: &str, hash: &str) -> Pod {
        let mut labels = BTreeMap::new();
        if !hash.is_empty() {
            labels.insert("pod-template-hash".to_owned(), hash.to_owned());
        }
        Pod {
            resource_version: String::new(),
            ip: String::new(),
            marks: [].into(),
            namespace: "llm".to_owned(),
            name: "chat-x".to_owned(),
            uid: "u".to_owned(),
            node: "gpu-1".to_owned(),
            phase: "Running".to_owned(),
            ready: true,
            terminating: false,
            labels,
            owner: Some((kind.to_owned(), name.to_owned())),
            mirror: false,
            empty_dir: false,
            gpus: 1,
            priority: 0,
        }
    }

    #[test]
    fn a_pod_belongs_to_what_keeps_its_replicas() {
        let owner = |kind: &str, name: &str, hash: &str| owner_of(&pod(kind, name, hash)).map(|(_, name)| name);
        assert_eq!(owner("ReplicaSet", "chat-7f9c", "7f9c").as_deref(), Some("chat"));
        assert_eq!(owner("ReplicaSet", "chat-7f9c", "").as_deref(), Some("chat-7f9c"), "a set of nobody's");
        assert_eq!(owner("ReplicaSet", "7f9c", "7f9c").as_deref(), Some("7f9c"));
        assert_eq!(owner("StatefulSet", "chat", "").as_deref(), Some("chat"));
        assert_eq!(owner("DaemonSet", "dcgm", ""), None);
        assert_eq!(owner("Job", "train", ""), None);
    }

    #[test]
    fn a_floor_that_is_no_number_is_said_and_not_guessed() {
        let limits = GuardLimits::default();
        let read = |mark: Option<&str>| floor(mark.map(str::to_owned).as_ref(), "llm/chat", &limits);
        assert_eq!(read(None).unwrap().0, 1);
        assert_eq!(read(Some("0")).unwrap().0, 0);
        for wrong in ["", "-1", "two", "1.5"] {
            assert!(read(Some(wrong)).unwrap_err().to_string().contains("no number"), "{wrong}");
        }
    }
}
