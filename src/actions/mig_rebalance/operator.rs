//! The GPU operator's route: the label, the mig-manager's states, and the way back.
//!
//! Invariant: a label that did not lead to `success` in time is put back, and clients that stay paused are named.

use super::super::PerformResult;
use super::super::answer::{ActionResult, done, failed, patient, poll, spoken, waited};
use super::{CONFIG, RebalanceOptions, RebalanceProgress, STATE, holders, missing, paused};
use crate::limits;
use crate::model::{FailureKind, Step, StepFailure, Time};
use crate::world::{KubeClient, Node, World, WorldError};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) async fn perform(
    world: &World,
    kube: &KubeClient,
    node: &Node,
    step: &Step,
    orders: &RebalanceOptions<'_>,
    config: &str,
    progress: RebalanceProgress,
) -> ActionResult<PerformResult> {
    let spent = waited(world, step);
    match progress.phase.as_str() {
        "" => begin(world, kube, node, orders, config, progress).await,
        "asked" => watch(world, kube, node, orders, config, progress, spent).await,
        "giving back" => give_back(world, kube, node, orders, progress).await,
        _ => end_back(world, node, orders, progress),
    }
}

fn label<'a>(node: &'a Node, name: &str) -> &'a str {
    node.labels.get(name).map_or("", String::as_str)
}

async fn begin(
    world: &World,
    kube: &KubeClient,
    node: &Node,
    orders: &RebalanceOptions<'_>,
    config: &str,
    mut progress: RebalanceProgress,
) -> ActionResult<PerformResult> {
    let (now, state) = (label(node, CONFIG), label(node, STATE));
    if now == config {
        if progress.before != config {
            // An attempt of this step whose answer was lost.
            return Ok(asked(world, progress));
        }
        if state == "success" && paused(node).is_empty() {
            return Ok(done(report(false, config, config)));
        }
        let why = format!(
            "{config} was already requested for {} and its state is `{state}`: the mig-manager only acts on a label that changes; \
             give another configuration first",
            orders.node
        );
        return Err(StepFailure::new(FailureKind::Conflict, why).into());
    }
    if matches!(state, "pending" | "rebooting") {
        let why = format!("the mig-manager of {} is at work on `{now}` (state `{state}`)", orders.node);
        return Err(StepFailure::new(FailureKind::Conflict, why).into());
    }
    let pods = holders(&kube.pods_on(orders.node).await?);
    if !pods.is_empty() {
        let list = pods.iter().take(limits::NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
        let why = format!(
            "{} pods on {} still hold GPUs ({list}): the mig-manager evicts no pods, so drain the node first",
            pods.len(),
            orders.node
        );
        return Err(StepFailure::new(FailureKind::Refused, why).into());
    }
    now.clone_into(&mut progress.before);
    set(kube, node, Some(config).filter(|config| !config.is_empty())).await?;
    Ok(asked(world, progress))
}

fn asked(world: &World, progress: RebalanceProgress) -> PerformResult {
    let carry =
        RebalanceProgress { phase: "asked".to_owned(), since: Some(world.clock.now()), busy: false, ..progress };
    PerformResult::Again {
        after: limits::POLL_FIRST,
        why: "the layout was requested from the mig-manager".to_owned(),
        carry: json!(carry),
    }
}

async fn set(kube: &KubeClient, node: &Node, config: Option<&str>) -> Result<(), WorldError> {
    let patch = json!({ "metadata": { "labels": { CONFIG: config } } });
    kube.patch_node(&node.name, patch, Some(&node.resource_version)).await.map(drop)
}

async fn watch(
    world: &World,
    kube: &KubeClient,
    node: &Node,
    orders: &RebalanceOptions<'_>,
    config: &str,
    mut progress: RebalanceProgress,
    spent: Duration,
) -> ActionResult<PerformResult> {
    let state = label(node, STATE).to_owned();
    if label(node, CONFIG) != config {
        let why = format!("another user or tool changed {CONFIG} of {} to `{}`", orders.node, label(node, CONFIG));
        return Ok(PerformResult::Done(failed(FailureKind::Conflict, why)));
    }
    progress.busy |= matches!(state.as_str(), "pending" | "rebooting");
    // Until the mig-manager has been seen at work, its state is the one of before.
    let fresh = progress.busy || since(world, &progress) >= limits::MIG_NOTICED.0;
    if state == "failed" && fresh {
        return give(progress, format!("the mig-manager of {} reports `failed` for {config}", orders.node));
    }
    let left = paused(node).join(", ");
    let mut why = format!("the mig-manager is at work on {config}: `{state}`");
    // Without a label there is nothing that a mig-manager would act on.
    if (state == "success" && fresh || config.is_empty()) && left.is_empty() {
        let lacking =
            missing(kube, orders).await.map_err(|error| patient(error, spent, orders.within, json!(progress)))?;
        if lacking.is_empty() {
            return Ok(done(report(true, &progress.before, config)));
        }
        why = format!("waiting until the node offers the requested resources: {}", lacking.join(", "));
    } else if !left.is_empty() {
        why = format!("{why}; paused: {left}");
    }
    if spent >= orders.within.0 {
        return give(progress, format!("not done within {}: {why}", orders.within));
    }
    Ok(poll(spent, why, json!(progress)))
}

/// From here on the old label is on its way back.
fn give(mut progress: RebalanceProgress, failure: String) -> ActionResult<PerformResult> {
    progress.phase = "giving back".to_owned();
    let why = format!("{failure}; putting `{}` back", progress.before);
    progress.failure = failure;
    Ok(PerformResult::Again { after: Duration::ZERO, why, carry: json!(progress) })
}

async fn give_back(
    world: &World,
    kube: &KubeClient,
    node: &Node,
    orders: &RebalanceOptions<'_>,
    mut progress: RebalanceProgress,
) -> ActionResult<PerformResult> {
    if label(node, CONFIG) != progress.before {
        // A change of the label also wakes a wedged mig-manager.
        set(kube, node, Some(progress.before.as_str()).filter(|before| !before.is_empty())).await?;
    }
    progress.phase = "given back".to_owned();
    progress.since = Some(world.clock.now());
    progress.busy = false;
    let why = format!("{}: `{}` is requested again", orders.node, progress.before);
    Ok(PerformResult::Again { after: limits::POLL_FIRST, why, carry: json!(progress) })
}

fn end_back(
    world: &World,
    node: &Node,
    orders: &RebalanceOptions<'_>,
    mut progress: RebalanceProgress,
) -> ActionResult<PerformResult> {
    let state = label(node, STATE).to_owned();
    progress.busy |= matches!(state.as_str(), "pending" | "rebooting");
    let gone = since(world, &progress);
    let settled =
        (progress.busy || gone >= limits::MIG_NOTICED.0) && !matches!(state.as_str(), "pending" | "rebooting");
    let left = paused(node);
    let over = gone >= orders.within.0 || progress.before.is_empty();
    let is_settled = settled && left.is_empty();
    if !(over || is_settled) {
        return Ok(poll(gone, format!("going back to `{}`: `{state}`", progress.before), json!(progress)));
    }
    let mut text = format!("{}; the label is `{}` again, its state `{state}`", progress.failure, progress.before);
    if !left.is_empty() {
        text.push_str(&format!(
            "; AN OPERATOR MUST CHECK: these are still paused after {}: {}",
            spoken(gone),
            left.join(", ")
        ));
    }
    Ok(PerformResult::Done(failed(FailureKind::Conflict, text)))
}

fn since(world: &World, progress: &RebalanceProgress) -> Duration {
    let begun: Time = progress.since.unwrap_or_else(|| world.clock.now());
    let micros = world.clock.now().as_microsecond().saturating_sub(begun.as_microsecond());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn report(changed: bool, before: &str, after: &str) -> Value {
    json!({ "changed": changed, "route": "operator", "before": before, "after": after, "moved": [] })
}
