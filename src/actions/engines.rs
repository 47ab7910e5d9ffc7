//! Shared parts of `inference::health` and `inference::restart`: two looks at engines, Prometheus' answers, and the
//! count of both.
//!
//! Invariant: signals are read fresh by the step that needs them; agreeing and disagreeing ones are listed in words.

use super::answer::ActionResult;
use super::args::{self, invalid};
use crate::limits;
use crate::model::{ActionCall, FailureKind, ParamSpec, ParamType, Span, Step, StepFailure};
use crate::world::{
    EngineLook, EnginePoint, EngineSignal, KubeClient, SignalGroup, TokenProbeResult, World, engine_signals,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(super) const WINDOW: ParamSpec = args::optional(
    "window",
    ParamType::Duration,
    "time between the two readings that show whether it makes progress (15s)",
);
pub(super) const ALSO: ParamSpec = args::optional(
    "also",
    ParamType::Any,
    "PromQL, or a list of it: each query that has a result, as long as the fault is there, is one more signal",
);

pub(super) const ASK: ParamSpec = args::optional(
    "ask",
    ParamType::Bool,
    "also send a request of one token (vLLM, TGI): no answer in time (`probe.ask_within`, 10s) is one more signal (false)",
);

/// The engines and queries to read.
pub(super) struct SignalQuery {
    pub points: Vec<EnginePoint>,
    pub window: Span,
    also: Vec<String>,
    asks: bool,
}

/// The signals found.
#[derive(Default)]
pub(super) struct SignalSummary {
    /// Independent signals for the engine that has most of them, and Prometheus'.
    pub count: usize,
    pub agree: Vec<String>,
    pub against: Vec<String>,
    pub engines: Vec<Value>,
}

impl SignalQuery {
    /// The engines and queries of a call; `about` names them in errors.
    ///
    /// # Errors
    ///
    /// Fails when there is neither an engine nor a query, or an argument is invalid.
    pub fn of(call: &ActionCall, points: Vec<EnginePoint>, about: &str) -> Result<SignalQuery, StepFailure> {
        let also = queries(call)?;
        if points.is_empty() && also.is_empty() {
            return Err(StepFailure::new(
                FailureKind::NotFound,
                format!(
                    "no inference engine of {about} is configured: give its pods the label nightshift.dev/probe, name it \
                     under `probe.targets` of a source of kind inference, or query Prometheus with `also`"
                ),
            ));
        }
        Ok(SignalQuery {
            points,
            window: args::span(call, "window", limits::ENGINE_WINDOW)?,
            also,
            asks: args::flag(call, "ask"),
        })
    }

    /// One look at each engine, all at once.
    pub async fn look(&self, world: &World) -> Vec<EngineLook> {
        let looks = self.points.iter().map(|point| world.look_at(point, world.engine_manner(point).within));
        futures::future::join_all(looks).await
    }

    /// The second look, and the signals of both. Engines that were not there at the first one give none yet.
    pub async fn judge(&self, world: &World, first: &[(String, EngineLook)]) -> SignalSummary {
        let mut found = SignalSummary::default();
        let second = self.look(world).await;
        let asked = if self.asks { self.ask_for_tokens(world, &second).await } else { Vec::new() };
        let mut most = 0;
        for (at, (point, now)) in self.points.iter().zip(&second).enumerate() {
            let Some((_, before)) = first.iter().find(|(name, _)| *name == point.endpoint) else {
                found.against.push(format!("{} has just come", point.name()));
                continue;
            };
            let mut signals = engine_signals(before, now, &world.engine_manner(point).limits);
            signals.extend(asked.get(at).map(token));
            let groups: BTreeSet<SignalGroup> =
                signals.iter().filter(|signal| signal.agrees).map(|signal| signal.group).collect();
            most = most.max(groups.len());
            for signal in &signals {
                let line = format!("{} ({}): {}", point.name(), signal.group.word(), signal.words);
                if signal.agrees { found.agree.push(line) } else { found.against.push(line) }
            }
            found.engines.push(shown(point, now, &groups));
        }
        found.count = most + self.ask(world, &mut found).await;
        found
    }

    async fn ask_for_tokens(&self, world: &World, looks: &[EngineLook]) -> Vec<TokenProbeResult> {
        let asked = self
            .points
            .iter()
            .zip(looks)
            .map(|(point, look)| world.ask_for_a_token(point, look, world.engine_manner(point).ask_within));
        futures::future::join_all(asked).await
    }

    async fn ask(&self, world: &World, found: &mut SignalSummary) -> usize {
        let mut agreed = 0;
        for query in &self.also {
            let answer = match &world.prometheus {
                Some(prometheus) => prometheus.query(query).await.map_err(|error| error.to_string()),
                None => Err("no `prometheus` is configured".to_owned()),
            };
            match answer {
                Ok(samples) if samples.is_empty() => found.against.push(format!("prometheus: `{query}` has no result")),
                Ok(_) => {
                    agreed += 1;
                    found.agree.push(format!("prometheus: `{query}` has a result"));
                }
                Err(why) => found.against.push(format!("prometheus: `{query}`: {why}")),
            }
        }
        agreed
    }
}

impl SignalSummary {
    /// A signal that comes from elsewhere; one of a group that agrees already is none more.
    pub fn add(&mut self, group: SignalGroup, words: String) {
        let mark = format!("({})", group.word());
        if !self.agree.iter().any(|line| line.contains(&mark)) {
            self.count += 1;
        }
        self.agree.push(format!("{words} {mark}"));
    }

    /// In one sentence, for a refusal.
    pub fn words(&self) -> String {
        let list = |lines: &[String]| lines.join("; ");
        match (self.agree.as_slice(), self.against.as_slice()) {
            ([], against) => format!("no signal calls for it: {}", list(against)),
            (agree, []) => format!("for it: {}", list(agree)),
            (agree, against) => format!("for it: {}. Against it: {}", list(agree), list(against)),
        }
    }
}

/// Looks as a step carries them: each with the engine's address.
pub(super) fn carried(points: &[EnginePoint], looks: Vec<EngineLook>) -> Value {
    let pairs = points.iter().zip(looks);
    pairs.map(|(point, look)| json!([point.endpoint, look])).collect()
}

/// The looks that a step carries, if it carries any.
pub(super) fn first_looks(step: &Step) -> Option<Vec<(String, EngineLook)>> {
    serde_json::from_value(step.carry.get("first")?.clone()).ok()
}

/// The engine of a pod: by its labels, else by the configuration.
pub(super) fn of_pod(world: &World, pod: &crate::world::Pod) -> ActionResult<Option<EnginePoint>> {
    if let Some(point) = world.engines.of_pod(&pod.namespace, &pod.name) {
        return Ok(Some(point.clone()));
    }
    match EnginePoint::of_pod(pod) {
        None => Ok(None),
        Some(Ok(point)) => Ok(Some(point)),
        Some(Err(why)) => Err(invalid(format!("pod {}/{}: {why}", pod.namespace, pod.name)).into()),
    }
}

/// The engines of a workload: those of its pods, and those that the configuration names.
pub(super) async fn of_workload(
    world: &World,
    kube: &KubeClient,
    namespace: &str,
    name: &str,
) -> ActionResult<Vec<EnginePoint>> {
    let mut points: Vec<EnginePoint> = world.engines.of_workload(namespace, name).cloned().collect();
    let workload = kube.workload(namespace, name).await?;
    if !workload.selector.is_empty() {
        for pod in kube.pods(namespace, &workload.selector).await? {
            let named = points.iter().any(|point| point.pod == pod.name);
            points.extend(if named { None } else { of_pod(world, &pod)? });
        }
    }
    if points.len() > limits::ENGINES_PER_STEP {
        let most = limits::ENGINES_PER_STEP;
        return Err(invalid(format!("{namespace}/{name} has {} engines, more than {most}", points.len())).into());
    }
    Ok(points)
}

fn token(asked: &TokenProbeResult) -> EngineSignal {
    let (agrees, words) = match asked {
        TokenProbeResult::Answered => (false, "a request of one token was answered".to_owned()),
        TokenProbeResult::Silent(why) => (true, format!("a request of one token was not answered: {why}")),
        TokenProbeResult::Refused(why) => (false, format!("the request for one token gave no signal: {why}")),
    };
    EngineSignal { group: SignalGroup::Request, agrees, words }
}

fn queries(call: &ActionCall) -> Result<Vec<String>, StepFailure> {
    let wrong = || invalid(format!("{}: `also` must be PromQL, or a list of it", call.action));
    let list = match call.args.get("also") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(query)) => vec![query.clone()],
        Some(Value::Array(list)) => {
            list.iter().map(|query| query.as_str().map(str::to_owned).ok_or_else(wrong)).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(wrong()),
    };
    if list.len() > limits::ENGINE_QUERIES {
        let most = limits::ENGINE_QUERIES;
        return Err(invalid(format!("{}: `also` has {} queries, more than {most}", call.action, list.len())));
    }
    Ok(list)
}

fn shown(point: &EnginePoint, look: &EngineLook, groups: &BTreeSet<SignalGroup>) -> Value {
    let reading = look.reading();
    json!({
        "engine": point.kind.word(),
        "endpoint": point.endpoint,
        "pod": if point.pod.is_empty() { String::new() } else { format!("{}/{}", point.namespace, point.pod) },
        "ready": look.unready.is_none(),
        "readable": reading.is_some(),
        "running": reading.map(|reading| reading.running()),
        "waiting": reading.map(|reading| reading.waiting()),
        "cache": reading.and_then(|reading| reading.cache),
        "signals": groups.iter().map(|group| group.word()).collect::<Vec<_>>(),
    })
}
