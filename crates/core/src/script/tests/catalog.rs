//! A small catalog of actions for tests, and a world that answers them.
//!
//! Invariant: it has one action of every kind that the host treats differently.

use crate::limits;
use crate::model::{
    ActionCall, ActionPhrases, ActionSpec, ApprovalNeed, CapacityKind, EffectClass, FailureKind, ImpactScope,
    KubePermission, Outcome, ParamSpec, ParamType, RunId, RunInput, SchedulingEffect, Span, Step, StepFailure,
    TargetKind, Time,
};
use crate::script::{HostApi, Runbook, ScriptTurn, advance, compile};
use serde_json::{Value, json};

const fn param(name: &'static str, ty: ParamType, required: bool) -> ParamSpec {
    ParamSpec { name, ty, required, doc: "as its name says" }
}

const fn action(
    name: &'static str,
    params: &'static [ParamSpec],
    options: &'static [ParamSpec],
    effect: EffectClass,
    reach: ImpactScope,
) -> ActionSpec {
    ActionSpec {
        name,
        doc: "Does what its name says.",
        params,
        options,
        returns: "nothing",
        effect,
        reach,
        disruptive: false,
        target: TargetKind::Nothing,
        takes: CapacityKind::Nothing,
        scheduling: SchedulingEffect::Unchanged,
        approval: ApprovalNeed::ByMode,
        phrases: ActionPhrases { todo: "{call}", done: None },
        permissions: &[],
        undo: None,
        deadline: Span::seconds(30),
    }
}

const NODE: ParamSpec = param("node", ParamType::Node, true);

static SPECS: [ActionSpec; 14] = [
    ActionSpec {
        undo: Some("k8s::uncordon"),
        permissions: &[KubePermission { group: "", resource: "nodes", verb: "patch" }],
        ..action(
            "k8s::cordon",
            &[NODE, param("reason", ParamType::String, false)],
            &[],
            EffectClass::Converge,
            ImpactScope::Node,
        )
    },
    action("k8s::uncordon", &[NODE], &[], EffectClass::Converge, ImpactScope::Node),
    ActionSpec {
        disruptive: true,
        ..action(
            "k8s::drain",
            &[NODE],
            &[param("within", ParamType::Duration, false), param("only", ParamType::String, false)],
            EffectClass::Converge,
            ImpactScope::Node,
        )
    },
    action("k8s::pods_on", &[NODE], &[], EffectClass::Read, ImpactScope::None),
    action(
        "k8s::scale",
        &[param("workload", ParamType::Workload, true), param("replicas", ParamType::Int, true)],
        &[],
        EffectClass::Converge,
        ImpactScope::Workload,
    ),
    action("k8s::rebuild", &[], &[], EffectClass::Blind, ImpactScope::Cluster),
    action("gpu::reset", &[NODE, param("gpu", ParamType::Gpu, true)], &[], EffectClass::Witnessed, ImpactScope::Node),
    action("prom::value", &[param("query", ParamType::String, true)], &[], EffectClass::Read, ImpactScope::None),
    action(
        "http::post",
        &[param("url", ParamType::String, true), param("body", ParamType::Any, true)],
        &[param("timeout", ParamType::Duration, false)],
        EffectClass::Blind,
        ImpactScope::None,
    ),
    action(
        "tell",
        &[param("channel", ParamType::String, true), param("text", ParamType::String, true)],
        &[],
        EffectClass::Probed,
        ImpactScope::None,
    ),
    action("note", &[param("text", ParamType::String, true)], &[], EffectClass::Keyed, ImpactScope::None),
    action("sleep", &[param("duration", ParamType::Duration, true)], &[], EffectClass::Read, ImpactScope::None),
    action("now", &[], &[], EffectClass::Read, ImpactScope::None),
    action(
        "approve",
        &[param("question", ParamType::String, true)],
        &[param("within", ParamType::Duration, false)],
        EffectClass::Keyed,
        ImpactScope::None,
    ),
];

pub(super) fn api() -> HostApi {
    HostApi { specs: SPECS.iter().collect() }
}

/// A runbook with the usual header, which may reach a node.
pub(super) fn runbook(body: &str) -> Runbook {
    whole(&format!("//! A test.\n//!\n//! params:\n//!   node: Node\n//! scope: cluster\n\n{body}"))
}

pub(super) fn whole(text: &str) -> Runbook {
    compile("test", text, &api())
        .unwrap_or_else(|wrong| panic!("{}", super::super::render("test", text, &wrong, false)))
}

pub(super) fn input() -> RunInput {
    let params = [("node".to_owned(), json!("n1"))].into_iter().collect();
    RunInput { params, event: json!({"labels": {"alertname": "GpuFell", "gpu": "3"}}) }
}

/// On a thread with the stack that `advance` asks for.
pub(super) fn deep<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(limits::SCRIPT_STACK_BYTES).spawn_scoped(scope, body);
        thread.unwrap().join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(super) fn step(no: u32, call: ActionCall, outcome: Outcome) -> Step {
    Step {
        run: RunId(1),
        no,
        call,
        effect: EffectClass::Read,
        undoes: None,
        begun_at: Time::UNIX_EPOCH,
        deadline: Time::UNIX_EPOCH,
        attempt: 1,
        carry: Value::Null,
        outcome: Some(outcome),
        ended_at: Some(Time::UNIX_EPOCH),
        incarnation: String::new(),
    }
}

pub(super) fn failed(kind: FailureKind, message: &str) -> Outcome {
    Outcome::Failed(StepFailure::new(kind, message))
}

/// Advances until the run is over; `world` answers each call. The last turn, and the journal.
pub(super) fn play(
    runbook: &Runbook,
    mut world: impl FnMut(u32, &ActionCall) -> Outcome + Send,
) -> (ScriptTurn, Vec<Step>) {
    deep(|| {
        let mut journal: Vec<Step> = Vec::new();
        loop {
            match advance(runbook, &input(), &journal) {
                ScriptTurn::Call(call) => {
                    let no = journal.len() as u32;
                    let outcome = world(no, &call);
                    // Through text, as a store would keep it.
                    let kept = serde_json::to_string(&step(no, call, outcome)).unwrap();
                    journal.push(serde_json::from_str(&kept).unwrap());
                }
                last => return (last, journal),
            }
        }
    })
}

/// The same, every call answered with nothing.
pub(super) fn play_fine(body: &str) -> (ScriptTurn, Vec<Step>) {
    play(&runbook(body), |_, _| Outcome::Ok(Value::Null))
}

/// What was called, as people read it.
pub(super) fn calls(journal: &[Step]) -> Vec<String> {
    journal.iter().map(|step| step.call.to_string()).collect()
}

/// The first turn of a fresh run.
pub(super) fn first(body: &str) -> ScriptTurn {
    let runbook = runbook(body);
    deep(|| advance(&runbook, &input(), &[]))
}
