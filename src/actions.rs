//! The catalog of actions: the acts of a runbook on the world. One file each, one line in `actions!`.
//!
//! Invariant: `perform` is the only way to touch the world, and is called only after a committed `begin`.

mod answer;
mod args;
mod declare;
mod engines;
mod http_headers;
mod keys;
mod metadata;
mod on_node;
mod on_pod;
mod rights;
mod traffic;

pub use rights::rights;

use crate::model::{ActionCall, ActionSpec, CapacityLoss, EffectClass, FailureKind, Outcome, Step, Subject};
use crate::telemetry::Metrics;
use crate::world::{World, WorldError};
use serde_json::Value;
use std::time::Duration;

/// The result of performing a step once.
#[derive(Debug, Clone, PartialEq)]
pub enum PerformResult {
    /// Settled: done or failed.
    Done(Outcome),
    /// Settled, with a message for these channels: (channel, text).
    Tell(Outcome, Vec<(String, String)>),
    /// Under way: perform again after this long, with `carry`. Not counted as a failed attempt.
    Again { after: Duration, why: String, carry: Value },
    /// The target did not answer: try again, a bounded number of times.
    Retry { why: String, after: Option<Duration> },
    /// It was sent, and whether it happened is not known; it can be neither checked nor repeated. The same verdict as
    /// after a crash at that point.
    InDoubt { why: String },
}

/// One action. The engine alone calls these.
#[async_trait::async_trait]
pub trait Action: Send + Sync {
    fn spec(&self) -> &'static ActionSpec;

    /// Whether it can only be done in a cluster.
    fn needs_cluster(&self) -> bool {
        !self.spec().permissions.is_empty()
    }

    /// The object that the call touches, from its arguments alone.
    fn target(&self, call: &ActionCall) -> Subject {
        args::target(self.spec().target, call)
    }

    /// What the call takes away from those who serve, from its arguments alone: never more than is declared.
    fn takes(&self, call: &ActionCall) -> CapacityLoss {
        args::takes(self.spec().takes, call)
    }

    /// Reads the precondition that `perform` will compare with; null where there is none.
    ///
    /// # Errors
    ///
    /// Fails when the target is not reached or refuses the read.
    async fn witness(&self, _world: &World, _call: &ActionCall) -> Result<Value, WorldError> {
        Ok(Value::Null)
    }

    /// Does it, or settles it if a crash left it open. Must be right however often it is called for one step.
    async fn perform(&self, world: &World, step: &Step) -> PerformResult;

    /// A user has cancelled the run while this step was open: stops work that goes on without us. None: there is none.
    /// Must be right however often it is called; whatever it settles is the step's outcome.
    async fn stop(&self, _world: &World, _step: &Step) -> Option<PerformResult> {
        None
    }

    /// The answer that `perform` would most likely give, without touching anything. Reads are performed instead.
    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome;

    /// `{details}` of its phrases where a list of the other arguments by name reads badly; of an ended step with its value.
    fn details(&self, _call: &ActionCall, _value: Option<&Value>) -> Option<String> {
        None
    }

    /// Counts an ended step, besides the counters that each step has.
    fn measure(&self, _metrics: &Metrics, _step: &Step, _outcome: &Outcome) {}

    /// The bytes that its agent is to read for a step under way, and those that it has read.
    fn bytes_read(&self, _progress: &Value) -> Option<(u64, u64)> {
        None
    }

    /// The call that takes an ended step back, if one does and it changed something, or may have.
    fn undo(&self, _step: &Step) -> Option<ActionCall> {
        None
    }
}

/// Declares each module and puts its action into the catalog. `cargo fmt` does not look into it: `make fmt` does.
macro_rules! actions {
    ($($(#[$when:meta])? $module:ident :: $action:ident,)*) => {
        $($(#[$when])? mod $module;)*
        static CATALOG: &[&dyn Action] = &[$($(#[$when])? &$module::$action),*];
    };
}

// One line an action, in alphabetic order of their names.
actions! {
    approve::Approve,
    cache_status::CACHE_STATUS,
    cache_verify::CacheVerify,
    cache_warm::CacheWarm,
    docker_containers::DockerContainers,
    docker_restart::DockerRestart,
    gpu_health::GPU_HEALTH,
    gpu_processes::GPU_PROCESSES,
    gpu_recovery_action::GPU_RECOVERY_ACTION,
    gpu_reset::GpuReset,
    gpu_sharing::GpuSharing,
    http_get::HttpGet,
    http_post::HttpPost,
    inference_drain_traffic::InferenceDrainTraffic,
    inference_health::InferenceHealth,
    inference_models_on::InferenceModelsOn,
    inference_restart::InferenceRestart,
    inference_return_traffic::InferenceReturnTraffic,
    k8s_annotate::K8sAnnotate,
    k8s_cordon::K8sCordon,
    k8s_delete_pod::K8sDeletePod,
    k8s_drain::K8sDrain,
    k8s_evict::K8sEvict,
    k8s_label::K8sLabel,
    k8s_node::K8sNode,
    k8s_pods_on::K8sPodsOn,
    k8s_ready_replicas::K8sReadyReplicas,
    k8s_rollout_restart::K8sRolloutRestart,
    k8s_scale::K8sScale,
    k8s_spare_node::K8sSpareNode,
    k8s_taint::K8sTaint,
    k8s_uncordon::K8sUncordon,
    k8s_untaint::K8sUntaint,
    mig_plan::MigPlanning,
    mig_rebalance::MigRebalance,
    node_collect::NodeCollect,
    node_reboot::NodeReboot,
    note::Note,
    now::Now,
    prom_query::PromQuery,
    prom_value::PromValue,
    sleep::Sleep,
    tell::Tell,
    #[cfg(test)] trial_shelve::TrialShelve,
}

/// Every action, in alphabetic order.
pub fn catalog() -> Vec<&'static dyn Action> {
    CATALOG.to_vec()
}

/// The action of that name.
pub fn find(name: &str) -> Option<&'static dyn Action> {
    CATALOG.binary_search_by(|action| action.spec().name.cmp(name)).ok().map(|at| CATALOG[at])
}

/// Whether an ended step changed something, or may have: the first check of `undo`.
fn changed(step: &Step) -> bool {
    matches!(&step.outcome, Some(Outcome::Ok(value)) if value["changed"] == Value::Bool(true)) || is_doubtful(step)
}

/// A write whose target never answered may have happened all the same; taking it back must be tried.
fn is_doubtful(step: &Step) -> bool {
    let silent = matches!(&step.outcome, Some(Outcome::Failed(failure)) if failure.kind == FailureKind::Unavailable);
    silent && step.effect != EffectClass::Read && !step.carry.is_null()
}

/// The state before an ended step, if the step changed it.
fn changed_from(step: &Step) -> Option<&Value> {
    match &step.outcome {
        Some(Outcome::Ok(value)) if changed(step) => value.get("before"),
        // The witness was read before the first attempt.
        Some(Outcome::Failed(_)) if is_doubtful(step) => step.carry.get("before"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CapacityKind, ImpactScope, SchedulingEffect};
    use std::path::Path;

    #[test]
    fn the_catalog_is_sorted_and_each_action_is_found_by_its_name() {
        let names: Vec<&str> = catalog().iter().map(|action| action.spec().name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
        for name in names {
            assert_eq!(find(name).map(|action| action.spec().name), Some(name));
        }
        assert!(find("k8s::reboot").is_none());
    }

    #[test]
    fn each_action_has_the_file_of_its_name() {
        for action in catalog() {
            let file = format!("src/actions/{}.rs", action.spec().name.replace("::", "_"));
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file).is_file(), "{file}");
        }
    }

    /// A call with a meaningful value for each argument.
    fn example(name: &str) -> ActionCall {
        let args = [
            ("node", "gpu-1"),
            ("pod", "llm/chat-0"),
            ("workload", "llm/chat"),
            ("container", "vllm"),
            ("effect", "NoExecute"),
        ];
        let args = args.map(|(name, value)| (name, Value::from(value)));
        ActionCall::new(name, args.into_iter().chain([("replicas", Value::from(1))]))
    }

    /// The names in braces of a phrase.
    fn slots(phrase: &'static str) -> impl Iterator<Item = &'static str> {
        phrase.split('{').skip(1).map(|rest| rest.split('}').next().unwrap_or_default())
    }

    #[test]
    fn every_declaration_makes_sense() {
        const VERBS: [&str; 5] = ["get", "list", "create", "patch", "delete"];
        for action in catalog() {
            let spec = action.spec();
            let name = spec.name;
            let first_optional = spec.params.iter().position(|param| !param.required).unwrap_or(spec.params.len());
            assert!(spec.params[first_optional..].iter().all(|param| !param.required), "{name}: required ones first");
            assert!(spec.options.iter().all(|option| !option.required), "{name}: an option may be left out");
            for param in spec.params.iter().chain(spec.options) {
                assert!(!param.doc.is_empty(), "{name}: {} has no words", param.name);
            }
            assert!(!spec.doc.is_empty() && !spec.returns.is_empty(), "{name} has no words");
            for right in spec.permissions {
                assert!(VERBS.contains(&right.verb), "{name}: {}", right.verb);
                assert!(
                    matches!(right.group, "" | "apps" | "batch" | "policy" | "resource.k8s.io"),
                    "{name}: {}",
                    right.group
                );
                let writes = !matches!(right.verb, "get" | "list");
                assert!(!writes || spec.mutates(), "{name} reads, but wants to {}", right.verb);
            }
            assert!(spec.permissions.is_sorted(), "{name}: permissions in order");
            assert!(!spec.disruptive || spec.reach > ImpactScope::None, "{name} disrupts, so it reaches something");
            let takes = action.takes(&example(name)) != CapacityLoss::Nothing;
            assert_eq!(takes, !spec.takes.doing().is_empty(), "{name}: what it takes from those who serve");
            assert!(spec.disruptive || spec.takes == CapacityKind::Nothing, "{name} takes something, so it disrupts");
            // What ends no pod is disruptive only in that it keeps new ones away, or makes a GPU useless for a moment.
            let keeps_away = spec.scheduling == SchedulingEffect::Cordon || spec.takes == CapacityKind::Gpu;
            assert!(!spec.disruptive || takes || keeps_away, "{name} disrupts, so it takes something");
            assert!(!spec.scheduling.gives_back() || !spec.disruptive, "{name} gives back, so it takes nothing");
            for slot in [spec.phrases.todo, spec.phrases.done.unwrap_or_default()].into_iter().flat_map(slots) {
                let is_argument = spec.params.iter().chain(spec.options).any(|param| param.name == slot);
                assert!(is_argument || ["target", "details", "call"].contains(&slot), "{name}: {{{slot}}} is nothing");
            }
            // An effect without a line in the timeline has entries of its own in the ledger.
            let silent = spec.phrases.done.is_none();
            assert!(
                !silent || !spec.mutates() || spec.reach == ImpactScope::None,
                "{name} acts, so the timeline shows it"
            );
            assert!(spec.effect != EffectClass::Read || spec.undo.is_none(), "{name} reads, so nothing is undone");
            assert!(spec.undo.is_none_or(|undo| find(undo).is_some()), "{name}: its undo is an action");
            assert!(
                spec.deadline.0 >= std::time::Duration::from_secs(10),
                "{name}: a deadline that one attempt fits in"
            );
            // Besides these only actions that change a node by way of the cluster and its agent need rights.
            let kube = ["k8s::", "mig::", "inference::", "gpu::sharing", "cache::warm"]
                .iter()
                .any(|start| spec.name.starts_with(start));
            assert_eq!(kube, !spec.permissions.is_empty(), "{name}: rights on the cluster");
        }
    }
}
