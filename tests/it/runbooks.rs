//! Every `runbooks/*.test.yaml`: a world, a run, the expected story. The format is described in `runbooks/README.md`.
//!
//! Invariant: a case runs the shipped runbook through the real engine against the simulated fleet; nothing is skipped.

use crate::engines::Engine;
use crate::night::Night;
use nightshift::model::{
    AgentStatus, CommandStatus, FailureKind, Labels, Mode, Outcome, Run, RunState, Span, StepFailure,
};
use nightshift::world::AgentMailbox;
use nightshift::world::sim::{SimFault, SimSample};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    params: Map<String, Value>,
    #[serde(default = "auto")]
    mode: Mode,
    #[serde(default)]
    faults: Vec<SimFault>,
    /// PromQL → what Prometheus answers from the beginning.
    #[serde(default)]
    prometheus: BTreeMap<String, f64>,
    /// Engines that the configuration names, each of one workload.
    #[serde(default)]
    engines: Vec<Served>,
    /// The node's agent, and what it answers to each verb.
    #[serde(default)]
    agent: Option<Agent>,
    /// What happens later.
    #[serde(default)]
    later: Vec<Later>,
    expect: Expect,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agent {
    node: String,
    answers: BTreeMap<String, Value>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Served {
    workload: String,
    #[serde(default)]
    waiting: u32,
    /// Whether it makes steps.
    moves: bool,
    #[serde(default = "yes")]
    ready: bool,
}

fn yes() -> bool {
    true
}

impl Served {
    fn tell(&self, engine: &Engine) {
        engine.set(|page| (page.waiting, page.moves, page.ready) = (self.waiting, self.moves, self.ready));
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Later {
    after: Span,
    #[serde(default)]
    repair: Option<String>,
    /// What people answer to the question that is open then.
    #[serde(default)]
    approve: Option<bool>,
    #[serde(default)]
    prometheus: BTreeMap<String, f64>,
    /// As the same engines are then.
    #[serde(default)]
    engines: Vec<Served>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    state: String,
    /// A part of the final state's words.
    #[serde(default)]
    says: Option<String>,
    /// The actions in order; `now`, `sleep` and repetitions of one action are left out.
    calls: Vec<String>,
    /// Real changes that the fleet counted. Exactly these.
    #[serde(default)]
    effects: BTreeMap<String, usize>,
    /// The fleet counted so many evictions.
    #[serde(default)]
    evictions: Option<usize>,
}

fn auto() -> Mode {
    Mode::Auto
}

#[tokio::test]
async fn every_shipped_runbook_behaves_as_its_cases_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks");
    let mut cases = 0;
    let mut broken = Vec::new();
    for file in std::fs::read_dir(&folder).unwrap().flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let Some(runbook) = name.strip_suffix(".test.yaml") else { continue };
        let text = std::fs::read_to_string(file.path()).unwrap();
        let list: Vec<Case> = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!list.is_empty(), "{name} has no case");
        for case in list {
            cases += 1;
            println!("{name}: {}", case.name);
            for wrong in play(runbook, &case).await {
                broken.push(format!("{name}: {}: {wrong}", case.name));
            }
        }
    }
    assert!(cases >= 8, "only {cases} cases were found");
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

async fn play(runbook: &str, case: &Case) -> Vec<String> {
    let mut night = Night::fall_on_shipped("rules: []").await;
    let mut engines = BTreeMap::new();
    for served in &case.engines {
        let engine = Engine::start("vllm").await;
        served.tell(&engine);
        engines.insert(served.workload.clone(), engine);
    }
    night.know(engines.iter().map(|(workload, engine)| engine.target(&[("workload", workload)])).collect());
    answer(&night, &case.prometheus);
    for fault in &case.faults {
        night.fleet.fault(fault.clone()).unwrap();
    }
    let _agent =
        case.agent.clone().map(|agent| AbortOnDrop(tokio::spawn(serve(night.parts.world.agents.clone(), agent))));
    let run = night.start(runbook, case.mode, Value::Object(case.params.clone())).await;
    let mut passed = Span::default();
    for later in &case.later {
        let now = night.until_rest(run, later.after.0 - passed.0).await;
        passed = later.after;
        if let Some(node) = &later.repair {
            night.fleet.repair(node, None).unwrap();
        }
        if let (Some(approve), RunState::Asking { approval }) = (later.approve, &now.state) {
            night.parts.store.decide(*approval, approve, "ada", "a test", night.now()).await.unwrap();
        }
        answer(&night, &later.prometheus);
        for served in &later.engines {
            served.tell(&engines[&served.workload]);
        }
    }
    let ended = night.until_rest(run, Span::minutes(240).0).await;
    compare(&night, &ended, &case.expect).await
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Takes commands as an agent does, and answers what the case says. After a reboot it speaks from another boot.
async fn serve(agents: AgentMailbox, agent: Agent) {
    // After a boot it is handed again what it was at, and knows it.
    let mut booted = std::collections::BTreeSet::new();
    loop {
        let standing = AgentStatus { boot: format!("boot-{}", booted.len()), ..AgentStatus::default() };
        let commands = agents.take(agent.node.as_str(), standing, std::time::Duration::from_secs(5)).await;
        for command in commands {
            if command.verb == "node::reboot" {
                booted.insert(command.key());
            }
            let outcome = match agent.answers.get(&command.verb) {
                Some(value) => Outcome::Ok(value.clone()),
                None => {
                    Outcome::Failed(StepFailure::new(FailureKind::Invalid, format!("no answer to {}", command.verb)))
                }
            };
            agents.answered(agent.node.as_str(), &command.key(), CommandStatus::Ended { outcome });
        }
    }
}

fn answer(night: &Night, answers: &BTreeMap<String, f64>) {
    for (expression, value) in answers {
        night.fleet.set_prometheus(expression, vec![SimSample { labels: Labels::default(), value: *value }]);
    }
}

async fn compare(night: &Night, run: &Run, expect: &Expect) -> Vec<String> {
    let mut wrong = Vec::new();
    let words = serde_json::to_string(&run.state).unwrap();
    let says = expect.says.as_ref().is_none_or(|part| words.contains(part.as_str()));
    if run.state.name() != expect.state || !says {
        wrong.push(format!("ended {words}, expected {} {:?}", expect.state, expect.says));
    }
    let steps = night.steps(run.id).await;
    let mut calls: Vec<String> = steps.iter().map(|step| step.call.action.clone()).collect();
    calls.retain(|action| !matches!(action.as_str(), "now" | "sleep"));
    calls.dedup();
    if calls != expect.calls {
        let failed = steps.iter().filter_map(|step| match &step.outcome {
            Some(Outcome::Failed(failure)) => Some(format!("{}: {failure}", step.call)),
            _ => None,
        });
        wrong.push(format!(
            "called {calls:?}, expected {:?}; failures: {:?}",
            expect.calls,
            failed.collect::<Vec<_>>()
        ));
    }
    let mut effects = night.effects();
    let evicted: usize = effects.iter().filter(|(what, _)| what.contains("evict")).map(|(_, count)| count).sum();
    effects.retain(|what, _| !what.contains("evict"));
    if effects != expect.effects {
        wrong.push(format!("the fleet counted {effects:?}, expected {:?}", expect.effects));
    }
    if expect.evictions.is_some_and(|wanted| wanted != evicted) {
        wrong.push(format!("the fleet counted {evicted} evictions, expected {:?}", expect.evictions));
    }
    if !matches!(run.state, RunState::Asking { .. }) && !run.state.is_final() {
        wrong.push("it has not ended".to_owned());
    }
    wrong
}
