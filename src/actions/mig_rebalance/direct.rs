//! The direct route: evict the pods that are in the way, let the agent change the layout, see that it is offered.
//!
//! Invariant: the plan is frozen before the first eviction; a pod is evicted by its uid, and never against its budget.

use super::super::answer::{ActionResult, done, failed, patient, poll, waited};
use super::super::{PerformResult, mig_plan};
use super::{RebalanceOptions, RebalanceProgress, missing};
use crate::limits;
use crate::model::{AgentCommand, CommandStatus, FailureKind, MigPlace, Outcome, Step};
use crate::world::{EvictAnswer, KubeClient, MigPlan, Node, World, WorldError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// One GPU's change, as the agent takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GpuLayoutChange {
    pub gpu: String,
    pub before: Vec<MigPlace>,
    pub after: Vec<MigPlace>,
}

/// A pod that has to go first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MovingPod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

pub(super) async fn perform(
    world: &World,
    cluster: Option<(&KubeClient, &Node)>,
    step: &Step,
    orders: &RebalanceOptions<'_>,
    progress: RebalanceProgress,
) -> ActionResult<PerformResult> {
    let spent = waited(world, step);
    match progress.phase.as_str() {
        "" => begin(world, cluster, step, progress).await,
        "evicting" => match cluster {
            Some((kube, _)) => evict(kube, orders, progress, spent).await,
            None => Ok(next(progress, "changing")),
        },
        "changing" => change(world, step, orders, progress, spent).await,
        _ => offered(cluster, orders, progress, spent).await,
    }
}

fn next(mut progress: RebalanceProgress, phase: &str) -> PerformResult {
    phase.clone_into(&mut progress.phase);
    PerformResult::Again { after: Duration::ZERO, why: format!("{phase} the layout"), carry: json!(progress) }
}

async fn begin(
    world: &World,
    cluster: Option<(&KubeClient, &Node)>,
    step: &Step,
    mut progress: RebalanceProgress,
) -> ActionResult<PerformResult> {
    if let Some(layout) = step.call.args.get("layout").filter(|layout| !layout.is_null()) {
        let read = serde_json::from_value(layout.clone());
        progress.changes = read.map_err(|error| super::super::args::invalid(format!("`layout`: {error}")))?;
        return Ok(next(progress, "changing"));
    }
    let plan = mig_plan::plan(world, &step.call).await?;
    let served = plan.diffs.iter().any(|diff| !diff.serves.is_empty());
    if plan.cost.unserved > 0 && !(served && mig_plan::waits(&step.call)) {
        return Ok(PerformResult::Done(failed(FailureKind::Refused, refusal(&plan))));
    }
    let changed = plan.diffs.iter().filter(|diff| diff.before != diff.after);
    progress.changes = changed
        .map(|diff| GpuLayoutChange { gpu: diff.gpu.clone(), before: diff.before.clone(), after: diff.after.clone() })
        .collect();
    if progress.changes.is_empty() {
        return Ok(done(report(false, &progress)));
    }
    if let Some((kube, _)) = cluster {
        for moved in &plan.moves {
            let Some((namespace, name)) = moved.pod.split_once('/') else { continue };
            if kube.protects(namespace) {
                let what = format!("no change was made: pod {} is in the way, in a protected namespace", moved.pod);
                return Ok(PerformResult::Done(failed(FailureKind::Refused, what)));
            }
            let pod = kube.pod(namespace, name).await?;
            progress.moving.push(MovingPod { namespace: pod.namespace, name: pod.name, uid: pod.uid });
        }
    }
    Ok(next(progress, "evicting"))
}

fn refusal(plan: &MigPlan) -> String {
    let lines = plan.refused.iter().map(|refusal| format!("{} × {}: {}", refusal.count, refusal.profile, refusal.why));
    format!("no change was made, because not every request has room: {}", lines.collect::<Vec<_>>().join(" | "))
}

async fn evict(
    kube: &KubeClient,
    orders: &RebalanceOptions<'_>,
    progress: RebalanceProgress,
    spent: Duration,
) -> ActionResult<PerformResult> {
    let silent = |error: WorldError| patient(error, spent, orders.within, json!(progress));
    let mut waiting = Vec::new();
    for pod in &progress.moving {
        match kube.pod(&pod.namespace, &pod.name).await {
            Ok(found) if found.uid == pod.uid && found.terminating => {
                waiting.push(format!("{}/{} is ending", pod.namespace, pod.name));
            }
            Ok(found) if found.uid == pod.uid => {
                let answer = kube.evict(&pod.namespace, &pod.name, &pod.uid, None).await.map_err(silent)?;
                waiting.push(match answer {
                    EvictAnswer::Accepted | EvictAnswer::Gone => {
                        format!("{}/{} is being evicted", pod.namespace, pod.name)
                    }
                    EvictAnswer::Blocked { why } => format!("{}/{}: {why}", pod.namespace, pod.name),
                    EvictAnswer::Misconfigured { why } => {
                        format!("AN OPERATOR MUST FIX a disruption budget: {}/{}: {why}", pod.namespace, pod.name)
                    }
                });
            }
            Ok(_) | Err(WorldError::NotFound(_)) => {}
            Err(error) => return Err(silent(error)),
        }
    }
    if waiting.is_empty() {
        return Ok(next(progress, "changing"));
    }
    if spent >= orders.within.0 {
        let text = format!("the layout is as it was; not done within {}: {}", orders.within, waiting.join("; "));
        return Ok(PerformResult::Done(failed(FailureKind::Timeout, text)));
    }
    Ok(poll(spent, waiting.join("; "), json!(progress)))
}

async fn change(
    world: &World,
    step: &Step,
    orders: &RebalanceOptions<'_>,
    progress: RebalanceProgress,
    spent: Duration,
) -> ActionResult<PerformResult> {
    let command = AgentCommand {
        run: step.run,
        step: step.no,
        epoch: world.agents.epoch(),
        verb: "mig::apply".to_owned(),
        args: serde_json::Map::from_iter([("changes".to_owned(), json!(progress.changes))]),
        deadline: step.deadline,
        incarnation: step.incarnation.clone(),
    };
    let why = match world.agents.ask(orders.node, &command).await {
        Ok(CommandStatus::Ended { outcome: Outcome::Ok(_) }) => return Ok(next(progress, "offering")),
        // The agent has restored the old layout, or reports that it could not.
        Ok(CommandStatus::Ended { outcome }) => return Ok(PerformResult::Done(outcome)),
        Ok(CommandStatus::Working { why, .. }) => why,
        Err(error) if error.is_transient() => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    if spent >= orders.within.0 {
        let text = format!("not done within {}: {why}", orders.within);
        return Ok(PerformResult::Done(failed(FailureKind::Timeout, text)));
    }
    Ok(poll(spent, why, json!(progress)))
}

/// The device plugin reads the GPUs only when it starts, so it is restarted; then the node must offer the present
/// layout.
async fn offered(
    cluster: Option<(&KubeClient, &Node)>,
    orders: &RebalanceOptions<'_>,
    mut progress: RebalanceProgress,
    spent: Duration,
) -> ActionResult<PerformResult> {
    let Some((kube, _)) = cluster else { return Ok(done(report(true, &progress))) };
    let silent =
        |error: WorldError, progress: &RebalanceProgress| patient(error, spent, orders.within, json!(progress));
    if progress.phase == "offering" {
        let pods = kube.pods_on(orders.node).await.map_err(|error| silent(error, &progress))?;
        let is_plugin = |owner: &(String, String)| owner.0 == "DaemonSet" && owner.1.contains("nvidia-device-plugin");
        for pod in pods.iter().filter(|pod| pod.owner.as_ref().is_some_and(is_plugin) && !pod.terminating) {
            match kube.delete_pod(&pod.namespace, &pod.name, &pod.uid).await {
                Ok(()) | Err(WorldError::NotFound(_) | WorldError::Conflict(_)) => {}
                Err(error) => return Err(silent(error, &progress)),
            }
        }
        progress.phase = "offered".to_owned();
        let why = "the device plugin is being restarted".to_owned();
        return Ok(PerformResult::Again { after: limits::POLL_FIRST, why, carry: json!(progress) });
    }
    let lacking = missing(kube, orders).await.map_err(|error| silent(error, &progress))?;
    if lacking.is_empty() {
        return Ok(done(report(true, &progress)));
    }
    if spent >= orders.within.0 {
        let text = format!("the layout is new, but not offered within {}: {}", orders.within, lacking.join(", "));
        return Ok(PerformResult::Done(failed(FailureKind::Timeout, text)));
    }
    Ok(poll(spent, lacking.join(", "), json!(progress)))
}

fn report(changed: bool, progress: &RebalanceProgress) -> Value {
    let moved: Vec<String> = progress.moving.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    json!({ "changed": changed, "route": "direct", "diffs": progress.changes, "moved": moved })
}
