//! Consequences of an agent's event stay on the agent's node: a step whose target lies elsewhere is refused.
//!
//! Invariant: the target's node is read from the cluster, never from the event; a target that cannot be read is not on
//! the node.

use super::EngineParts;
use crate::model::{Run, Subject};
use crate::planted::planted;
use crate::sources::agent::SOURCE;
use crate::store::Filter;
use crate::world::World;

/// Why a step about `target` is not for the agent whose event began the run; none where no agent did, or it lies on its node.
pub(super) async fn refusal(parts: &EngineParts, world: &World, run: &Run, target: &Subject) -> Option<String> {
    run.episode?;
    let filter = Filter { run: Some(run.id), limit: 1, ..Filter::default() };
    let event = match parts.store.episodes(filter).await {
        Ok(episodes) => episodes.into_iter().next()?.event,
        Err(error) => return Some(format!("the alert behind the run could not be read: {error}")),
    };
    if event.source != SOURCE || planted("agent-speaks-for-other-nodes") {
        return None;
    }
    let own = event.labels.get("node");
    let elsewhere = |what: String| Some(format!("{what}, and an agent's alert is about its own node {own} alone"));
    if let Some(node) = &target.node {
        return if node == own { None } else { elsewhere(format!("node {node} is another one")) };
    }
    match (&target.namespace, &target.pod, &target.workload) {
        (Some(namespace), Some(pod), _) => {
            let found = match world.kube(target.cluster.as_deref()) {
                Ok(kube) => kube.pod(namespace, pod).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(pod) if pod.node == own => None,
                Ok(found) => elsewhere(format!("pod {namespace}/{pod} runs on node {}", found.node)),
                Err(error) => elsewhere(format!("where pod {namespace}/{pod} runs could not be read ({error})")),
            }
        }
        (Some(namespace), None, Some(workload)) => {
            elsewhere(format!("workload {namespace}/{workload} lies on no single node"))
        }
        _ => None,
    }
}
