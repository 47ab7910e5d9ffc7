//! `k8s::drain`: moves pods off a cordoned node by eviction, as one step, however long that takes.
//!
//! Invariant: a pod is evicted by its uid, never against a disruption budget unless the runbook has `then: "force"`,
//! and success means that every selected pod is gone.

mod sort;

use super::answer::{ActionResult, done, failed, foresee, patient, poll, settle, spoken, waited};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::limits;
use crate::model::{ActionCall, CapacityLoss, FailureKind, Outcome, Step, StepFailure};
use crate::world::{EvictAnswer, KubeClient, Pod, World, WorldError};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sort::{SortedPods, names, sort};
use std::collections::BTreeSet;
use std::time::Duration;

pub(super) struct K8sDrain;

static SPEC: ActionSpec = ActionSpec {
    name: "k8s::drain",
    doc: "Evicts the pods of a cordoned node and waits until they are gone, patient with disruption budgets. \
          DaemonSet, mirror and finished pods stay, and so do those of protected namespaces. A node that is not (or no \
          longer) cordoned fails with `conflict`.",
    params: &[args::NODE],
    options: &[
        args::optional("within", ParamType::Duration, "how long it may take (30m)"),
        args::optional(
            "only",
            ParamType::String,
            "`gpu-pods` (those that hold GPUs or MIG slices) or `all` (gpu-pods)",
        ),
        args::optional(
            "then",
            ParamType::String,
            "when the time is up: `fail`; `hold`: keep waiting, at most a week; `force`: delete despite budgets (fail)",
        ),
        args::optional("grace", ParamType::Duration, "grace period of a pod (the pod's own)"),
        args::optional("delete_empty_dir", ParamType::Bool, "also pods that lose an emptyDir on disk (false)"),
        args::optional("evict_bare", ParamType::Bool, "also pods without a controller that restarts them (false)"),
    ],
    returns: "#{evicted, forced, left, waited}; left lists the pods that were not meant",
    effect: EffectClass::Converge,
    reach: ImpactScope::Node,
    disruptive: true,
    target: TargetKind::Node,
    takes: CapacityKind::Node("draining it"),
    scheduling: SchedulingEffect::Withdraw,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "drain {target}{details}", done: Some("drained {target}{details}") },
    permissions: rights::DRAIN,
    undo: None,
    deadline: Span::seconds(120),
};

/// The runbook's arguments.
struct DrainOptions<'a> {
    node: &'a str,
    within: Span,
    gpu_only: bool,
    then: &'static str,
    grace: Option<i64>,
    delete_empty_dir: bool,
    evict_bare: bool,
}

/// Where a drain stands, carried from one pass to the next.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct DrainProgress {
    /// `namespace/name` of pods whose eviction was accepted.
    evicted: BTreeSet<String>,
    /// Deleted against their budgets, after the time was up.
    forced: BTreeSet<String>,
}

#[async_trait::async_trait]
impl Action for K8sDrain {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    fn takes(&self, call: &ActionCall) -> CapacityLoss {
        args::takes_of_node(call, call.text("only") != "all")
    }

    /// `: 4 GPU pods moved in 5s` once it has ended; before, ` (GPU pods only, up to 30m)`, with the options that allow more
    /// than the gentle way.
    fn details(&self, call: &ActionCall, value: Option<&Value>) -> Option<String> {
        let moved = value.and_then(|value| value["evicted"].as_array().map(|moved| (value, moved.len())));
        Some(moved.map_or_else(|| options(call), |(value, moved)| result(call, value, moved)))
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(predict(world, call).await)
    }
}

fn result(call: &ActionCall, value: &Value, moved: usize) -> String {
    let gpu = if call.text("only") == "all" { "" } else { "GPU " };
    let noun = if moved == 1 { "pod" } else { "pods" };
    let within = value["waited"].as_str().map(|waited| format!(" in {waited}")).unwrap_or_default();
    let forced = match value["forced"].as_array().map_or(0, Vec::len) {
        0 => String::new(),
        forced => format!(", {forced} deleted against their disruption budget"),
    };
    format!(": {moved} {gpu}{noun} moved{within}{forced}")
}

fn options(call: &ActionCall) -> String {
    let mut parts = vec![if call.text("only") == "all" { "all pods" } else { "GPU pods only" }.to_owned()];
    let within = call.text("within");
    if !within.is_empty() {
        parts.push(format!("up to {within}"));
    }
    match call.text("then") {
        "force" => parts.push("then deleted despite disruption budgets".to_owned()),
        "hold" => parts.push("then waits on".to_owned()),
        _ => {}
    }
    for (option, words) in [("delete_empty_dir", "also pods that lose local data"), ("evict_bare", "also bare pods")] {
        if call.args.get(option) == Some(&Value::Bool(true)) {
            parts.push(words.to_owned());
        }
    }
    format!(" ({})", parts.join(", "))
}

async fn predict(world: &World, call: &ActionCall) -> ActionResult<Value> {
    let orders = orders(call)?;
    let kube = world.kube(None)?;
    let sorted = sort(kube.pods_on(orders.node).await?, &orders, |namespace| kube.protects(namespace));
    refuse_stuck(&orders, &sorted)?;
    Ok(json!({ "evicted": names(&sorted.meant), "forced": [], "left": sorted.left, "waited": "0s" }))
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let orders = orders(&step.call)?;
    let kube = world.kube(None)?;
    let spent = waited(world, step);
    let mut progress: DrainProgress = serde_json::from_value(step.carry.clone()).unwrap_or_default();
    // The API server may well be silent for a while in half an hour; only the drain's own time ends it.
    let latest = if orders.then == "hold" { limits::STEP_WAIT_MAX } else { orders.within };
    let silent = |error: WorldError, progress: &DrainProgress| patient(error, spent, latest, json!(progress));

    let pods = kube.pods_on(orders.node).await;
    let pods = pods.map_err(|error| silent(error, &progress))?;
    let sorted = sort(pods, &orders, |namespace| kube.protects(namespace));
    if sorted.meant.is_empty() && sorted.stuck.is_empty() {
        return Ok(done(report(&progress, &sorted, spent)));
    }
    if sorted.stuck.is_empty() && sorted.meant.iter().all(|pod| pod.terminating) && spent < orders.within.0 {
        // No eviction is needed, so the node need not be read: one list a pass.
        return Ok(poll(spent, why(&sorted, &EvictionResults::default(), ""), json!(progress)));
    }
    let node = kube.node(orders.node).await.map_err(|error| silent(error, &progress))?;
    if !node.unschedulable {
        // Evicted pods would come straight back; and a user who uncordons a node during a drain means "stop".
        let what = format!("node {} is not cordoned (or no longer is), so it is not drained", node.name);
        return Ok(PerformResult::Done(failed(FailureKind::Conflict, what)));
    }
    refuse_stuck(&orders, &sorted)?;
    if spent >= orders.within.0 {
        return overdue(kube, &orders, sorted, progress, spent).await;
    }
    let asked = ask(kube, &orders, &sorted, &mut progress).await?;
    Ok(poll(spent, why(&sorted, &asked, ""), json!(progress)))
}

/// Pods that need an opt-in that the runbook lacks: refused before anything is evicted. Only `hold` waits for them to
/// end by themselves.
fn refuse_stuck(orders: &DrainOptions<'_>, sorted: &SortedPods) -> Result<(), StepFailure> {
    if sorted.stuck.is_empty() || orders.then == "hold" {
        return Ok(());
    }
    let list: Vec<String> = sorted.stuck.iter().take(5).map(|(pod, why)| format!("{} {why}", name(pod))).collect();
    let more = sorted.stuck.len().saturating_sub(list.len());
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(StepFailure::new(
        FailureKind::Refused,
        format!(
            "node {} is not drained: {}{tail}; the runbook may allow it in the options",
            orders.node,
            list.join("; ")
        ),
    ))
}

/// The answers to the evictions of one pass.
#[derive(Default)]
struct EvictionResults {
    blocked: Vec<String>,
    misconfigured: Vec<String>,
    silent: Vec<String>,
}

/// Evicts pods that do not go yet, a bounded number at once.
async fn ask(
    kube: &KubeClient,
    orders: &DrainOptions<'_>,
    sorted: &SortedPods,
    progress: &mut DrainProgress,
) -> ActionResult<EvictionResults> {
    // Built first and run after: a stream that borrows in its closure is not `Send` for every lifetime.
    let mut requests = Vec::new();
    for pod in sorted.meant.iter().filter(|pod| !pod.terminating).take(limits::EVICTIONS_PER_PASS) {
        requests.push(evict(kube, pod, orders.grace));
    }
    let answers: Vec<_> = futures::stream::iter(requests).buffer_unordered(limits::KUBE_AT_ONCE).collect().await;
    let mut asked = EvictionResults::default();
    let mut refused = None;
    for (pod, answer) in answers {
        match answer {
            Ok(EvictAnswer::Accepted) => drop(progress.evicted.insert(name(pod))),
            Ok(EvictAnswer::Gone) => {}
            Ok(EvictAnswer::Blocked { why }) => asked.blocked.push(format!("{}: {why}", name(pod))),
            Ok(EvictAnswer::Misconfigured { why }) => asked.misconfigured.push(format!("{}: {why}", name(pod))),
            Err(error @ (WorldError::Forbidden(_) | WorldError::Invalid(_))) => refused = Some(error),
            Err(error) => asked.silent.push(error.to_string()),
        }
    }
    // A missing right does not come by waiting, but the answers above are looked at first.
    match refused {
        Some(error) => Err(error.into()),
        None => Ok(asked),
    }
}

async fn evict<'a>(kube: &KubeClient, pod: &'a Pod, grace: Option<i64>) -> (&'a Pod, Result<EvictAnswer, WorldError>) {
    (pod, kube.evict(&pod.namespace, &pod.name, &pod.uid, grace).await)
}

/// The time is up.
async fn overdue(
    kube: &KubeClient,
    orders: &DrainOptions<'_>,
    sorted: SortedPods,
    mut progress: DrainProgress,
    spent: Duration,
) -> ActionResult<PerformResult> {
    let grace = limits::FORCED_GRACE;
    match orders.then {
        "hold" if spent < limits::STEP_WAIT_MAX.0 => {
            let asked = ask(kube, orders, &sorted, &mut progress).await?;
            let late = format!("overdue: {} were given; ", orders.within);
            Ok(poll(spent, why(&sorted, &asked, &late), json!(progress)))
        }
        "force" if spent < orders.within.0 + grace.0 => {
            for pod in sorted.meant.iter().filter(|pod| !pod.terminating).take(limits::EVICTIONS_PER_PASS) {
                match kube.delete_pod(&pod.namespace, &pod.name, &pod.uid).await {
                    Ok(()) => drop(progress.forced.insert(name(pod))),
                    // Gone, or another pod bears the name: either way this one is no more.
                    Err(WorldError::NotFound(_) | WorldError::Conflict(_)) => {}
                    Err(error) => return Err(patient(error, spent, Span(orders.within.0 + grace.0), json!(progress))),
                }
            }
            let late = format!("overdue: {} were given, so pods are deleted; ", orders.within);
            Ok(poll(Duration::ZERO, why(&sorted, &EvictionResults::default(), &late), json!(progress)))
        }
        _ => {
            let still: Vec<String> =
                sorted.meant.iter().chain(sorted.stuck.iter().map(|(pod, _)| pod)).map(describe).collect();
            let count = still.len();
            let list = still.into_iter().take(8).collect::<Vec<_>>().join(", ");
            let what =
                format!("node {} is not empty after {}: {count} still there: {list}", orders.node, spoken(spent));
            Ok(PerformResult::Done(failed(FailureKind::Timeout, what)))
        }
    }
}

fn orders(call: &ActionCall) -> Result<DrainOptions<'_>, StepFailure> {
    let grace = call.args.get("grace").filter(|grace| !grace.is_null());
    let grace = grace.map(|_| args::span(call, "grace", Span::default())).transpose()?;
    Ok(DrainOptions {
        node: args::text(call, "node")?,
        within: args::span(call, "within", Span::minutes(30))?,
        gpu_only: args::choice(call, "only", &["gpu-pods", "all"])? == "gpu-pods",
        then: args::choice(call, "then", &["fail", "hold", "force"])?,
        grace: grace.map(|grace| i64::try_from(grace.0.as_secs()).unwrap_or(i64::MAX)),
        delete_empty_dir: args::flag(call, "delete_empty_dir"),
        evict_bare: args::flag(call, "evict_bare"),
    })
}

fn why(sorted: &SortedPods, asked: &EvictionResults, late: &str) -> String {
    let going = sorted.meant.iter().filter(|pod| pod.terminating).count();
    let left = sorted.meant.len() + sorted.stuck.len();
    let pods = if left == 1 { "pod" } else { "pods" };
    let mut why = format!("{late}{left} {pods} to go, {going} of them ending");
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    if !asked.misconfigured.is_empty() {
        why.push_str(&format!("; AN OPERATOR MUST FIX a disruption budget: {}", first(&asked.misconfigured)));
    }
    if !asked.blocked.is_empty() {
        why.push_str(&format!("; {} blocked by a disruption budget: {}", asked.blocked.len(), first(&asked.blocked)));
    }
    if !asked.silent.is_empty() {
        why.push_str(&format!("; {}", first(&asked.silent)));
    }
    if let Some((pod, reason)) = sorted.stuck.first() {
        why.push_str(&format!("; waiting for {} to end by itself: it {reason}", name(pod)));
    }
    why
}

fn report(progress: &DrainProgress, sorted: &SortedPods, spent: Duration) -> Value {
    json!({
        "evicted": progress.evicted,
        "forced": progress.forced,
        "left": sorted.left,
        "waited": spoken(spent).to_string(),
    })
}

fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

fn describe(pod: &Pod) -> String {
    let state = if pod.terminating { " (ending)" } else { "" };
    format!("{}{state}", name(pod))
}
