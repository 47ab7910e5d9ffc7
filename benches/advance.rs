//! How long one `advance` takes, for journals of 10, 200 and 1000 steps, against the bars.
//!
//! Invariant: what is timed is the public function on a runbook as people write it; the figure is the median.

use nightshift::limits;
use nightshift::model::{
    ActionCall, ActionPhrases, ActionSpec, ApprovalNeed, CapacityKind, EffectClass, ImpactScope, Outcome, ParamSpec,
    ParamType, RunId, RunInput, SchedulingEffect, Span, Step, TargetKind, Time,
};
use nightshift::script::{HostApi, Runbook, ScriptBrake, ScriptTurn, advance, advance_with, check, compile};
use serde_json::{Value, json};
use std::hint::black_box;
use std::time::{Duration, Instant};

const NODE: ParamSpec = ParamSpec { name: "node", ty: ParamType::Node, required: true, doc: "" };
const TEXT: ParamSpec = ParamSpec { name: "text", ty: ParamType::String, required: true, doc: "" };
const WITHIN: ParamSpec = ParamSpec { name: "within", ty: ParamType::Duration, required: false, doc: "" };

const fn action(name: &'static str, params: &'static [ParamSpec], options: &'static [ParamSpec]) -> ActionSpec {
    ActionSpec {
        name,
        doc: "",
        params,
        options,
        returns: "",
        effect: EffectClass::Read,
        reach: ImpactScope::None,
        disruptive: false,
        target: TargetKind::Nothing,
        takes: CapacityKind::Nothing,
        scheduling: SchedulingEffect::Unchanged,
        approval: ApprovalNeed::ByMode,
        phrases: ActionPhrases { todo: "{call}", done: None },
        permissions: &[],
        undo: None,
        deadline: Span::seconds(1),
    }
}

static SPECS: [ActionSpec; 6] = [
    action("k8s::cordon", &[NODE, TEXT], &[]),
    action("k8s::drain", &[NODE], &[WITHIN]),
    action("k8s::uncordon", &[NODE], &[]),
    action("k8s::pods_on", &[NODE], &[]),
    action("prom::value", &[TEXT], &[]),
    action("note", &[TEXT], &[]),
];

/// Thirty lines; `ROUNDS` says how many looks it takes, four steps beside them.
const RUNBOOK: &str = r#"//! GPU fell off the bus: empty the node, look, give it back.
//!
//! params:
//!   node: Node
//!   gpu: Gpu
//!   rounds: Int
//! scope: node

fn worst(pods) {
    let most = 0;
    for pod in pods {
        if pod.gpus > most {
            most = pod.gpus;
        }
    }
    most
}

k8s::cordon(node, `XID ${event.labels.xid} on ${gpu}`);
let pods = k8s::pods_on(node);
if worst(pods) == 0 {
    note(`nothing to drain on ${node}`);
    return;
}
k8s::drain(node, #{ within: "30m" });
let sum = 0.0;
for round in 0..rounds {
    try { sum += prom::value(`gpu_errors{node="${node}",gpu="${gpu}",round="${round}"}`); } catch { sum += 1.0; }
}
if sum > 1000.0 { stop("needs hands"); }
k8s::uncordon(node);
"#;

struct Case {
    steps: usize,
    bar: Duration,
}

fn main() {
    let api = HostApi { specs: SPECS.iter().collect() };
    let deep = std::thread::Builder::new().stack_size(limits::SCRIPT_STACK_BYTES);
    deep.spawn(move || measure(&api)).expect("a thread for the bench").join().expect("the bench does not panic");
}

fn measure(api: &HostApi) {
    let runbook = compile("bench", RUNBOOK, api).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    println!("{:>6} {:>12} {:>12} {:>8}", "steps", "median", "bar", "of bar");
    let micros = Duration::from_micros;
    // The bar for 1000 is ours: linear in the steps, as 200 has it.
    for case in [(10, micros(50)), (200, micros(1_000)), (1_000, micros(5_000))].map(|(steps, bar)| Case { steps, bar })
    {
        let (input, journal) = played(&runbook, case.steps);
        let open = median(|| drop(black_box(advance(&runbook, &input, black_box(&journal[..case.steps - 1])))));
        let whole = median(|| drop(black_box(advance(&runbook, &input, black_box(&journal)))));
        let worst = open.max(whole);
        let share = worst.as_secs_f64() / case.bar.as_secs_f64();
        println!("{:>6} {:>9.1} us {:>9.0} us {:>7.2}x", case.steps, us(worst), us(case.bar), share);
    }
    let first = played(&runbook, 10).0;
    println!("first call of a run: {:.1} us", us(median(|| drop(black_box(advance(&runbook, &first, &[]))))));
    println!("compile and check:   {:.1} us", us(median(|| drop(black_box(compile("bench", RUNBOOK, api))))));
    println!("check alone:         {:.1} us", us(median(|| drop(black_box(check("bench", RUNBOOK, api))))));
    hostile(api);
}

/// How long scripts that mean harm keep the thread, with a brake pulled after the limit.
fn hostile(api: &HostApi) {
    let bodies = [
        ("empty loop", "loop { if false { break; } }"),
        (
            "nested map",
            "let a = []; a.pad(90, 1); let b = a; let c = a; a.map(|x| b.map(|y| c.some(|z| x + y + z < 0)));",
        ),
        (
            "string search",
            "let s = \"\"; s.pad(60000, 'a'); let t = s + \"b\"; loop { t.index_of(\"aab\"); if false { break; } }",
        ),
        ("string copy", "let s = \"\"; s.pad(60000, 'a'); loop { s.to_upper(); if false { break; } }"),
        ("array push", "let a = []; loop { a.push(a.len()); if false { break; } }"),
        ("array copy", "let a = []; a.pad(9999, 1); loop { let b = a + []; if false { break; } }"),
        ("array sort", "let a = []; a.pad(9999, 1); loop { a.sort(); if false { break; } }"),
    ];
    for (what, body) in bodies {
        let runbook = compile("hostile", body, api).unwrap_or_else(|wrong| panic!("{wrong:?}"));
        let start = Instant::now();
        let brake = ScriptBrake::default();
        let watch = brake.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(250));
            watch.pull();
        });
        let turn = advance_with(&runbook, &RunInput::default(), &[], &brake);
        let end = match turn {
            ScriptTurn::Broken(_) | ScriptTurn::Braked(_) => "stopped",
            _ => "ended",
        };
        println!("hostile, {what:<14} {end} after {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    }
}

/// Input and journal of a finished run with so many steps.
fn played(runbook: &Runbook, steps: usize) -> (RunInput, Vec<Step>) {
    let params = json!({"node": "gpu-017", "gpu": "3", "rounds": steps - 4});
    let event =
        json!({"labels": {"alertname": "GpuFellOffBus", "xid": "79", "node": "gpu-017", "severity": "critical"}});
    let input = RunInput { params: params.as_object().cloned().unwrap_or_default(), event };
    let mut journal = Vec::new();
    while let ScriptTurn::Call(call) = advance(runbook, &input, &journal) {
        let answer = match call.action.as_str() {
            "k8s::pods_on" => json!([{"name": "inference/vllm-0", "gpus": 8}, {"name": "inference/vllm-1", "gpus": 4}]),
            "prom::value" => json!(0.25),
            _ => Value::Null,
        };
        journal.push(step(journal.len() as u32, call, answer));
    }
    assert_eq!(journal.len(), steps, "the bench runbook makes as many steps as it says");
    (input, journal)
}

fn step(no: u32, call: ActionCall, answer: Value) -> Step {
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
        outcome: Some(Outcome::Ok(answer)),
        ended_at: Some(Time::UNIX_EPOCH),
        incarnation: String::new(),
    }
}

fn median(mut body: impl FnMut()) -> Duration {
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < 20 || (start.elapsed() < Duration::from_secs(1) && times.len() < 20_000) {
        let one = Instant::now();
        body();
        times.push(one.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
