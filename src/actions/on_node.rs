//! How an action sends a command to a node's agent: the verb of the same name, and the meaning of its answer for the
//! step.
//!
//! Invariant: the command's key is the step's, so that a crash, a retry and a second engine request one and the same.

use super::answer::{ActionResult, done, failed, foresee, patient, poll, settle, waited};
use super::{Action, PerformResult, args};
use crate::limits;
use crate::model::{ActionCall, ActionSpec, AgentCommand, CommandStatus, FailureKind, Outcome, Span, Step};
use crate::world::{World, WorldError};
use serde_json::{Value, json};

/// Performs the step's call by the verb of its name at the agent of the node that its argument `node` names. The step's
/// carried state (a precondition, say) is kept, and handed over as the argument `carry`. Not done `within` a time is a
/// failure.
pub(super) async fn perform(world: &World, step: &Step, within: Span) -> ActionResult<PerformResult> {
    let node = args::text(&step.call, "node")?;
    let mut given = step.call.args.clone();
    if !step.carry.is_null() {
        given.insert("carry".to_owned(), step.carry.clone());
    }
    let command = AgentCommand {
        run: step.run,
        step: step.no,
        epoch: world.agents.epoch(),
        verb: step.call.action.clone(),
        args: given,
        deadline: step.deadline,
        incarnation: step.incarnation.clone(),
    };
    let gone = waited(world, step);
    let (why, progress) = match world.agents.ask(node, &command).await {
        Ok(CommandStatus::Ended { outcome: Outcome::Ok(value) }) => return Ok(done(value)),
        Ok(CommandStatus::Ended { outcome }) => return Ok(PerformResult::Done(outcome)),
        Ok(CommandStatus::Working { why, progress }) => (why, progress),
        // Patience instead of attempts: a node that is rebooted comes back with its agent.
        Err(error) if error.is_transient() => (error.to_string(), Value::Null),
        Err(error) => return Err(error.into()),
    };
    if gone >= within.0 {
        let text = format!("not done within {within}: {why}");
        return Ok(PerformResult::Done(failed(FailureKind::Timeout, text)));
    }
    Ok(poll(gone, why, carried(&step.carry, progress)))
}

/// An action that only reads from the node's agent: the agent's answer is the outcome, and the prediction.
pub(super) struct AgentReadAction {
    pub spec: &'static ActionSpec,
}

#[async_trait::async_trait]
impl Action for AgentReadAction {
    fn spec(&self) -> &'static ActionSpec {
        self.spec
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(read(world, &step.call).await.map(done))
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(read(world, call).await)
    }
}

/// Sends the agent a command that changes nothing, and waits for its answer.
pub(super) async fn read(world: &World, call: &ActionCall) -> ActionResult<Value> {
    let node = args::text(call, "node")?;
    let deadline = world.clock.now() + limits::AGENT_READ_WAIT;
    let question = world.agents.question(&call.action, call.args.clone(), deadline);
    let answered = async {
        loop {
            if let CommandStatus::Ended { outcome } = world.agents.ask(node, &question).await? {
                return Ok::<_, WorldError>(outcome);
            }
        }
    };
    let silent = |_| {
        let why = format!("the agent of {node} did not answer within {}", Span(limits::AGENT_READ_WAIT));
        PerformResult::Retry { why, after: None }
    };
    match tokio::time::timeout(limits::AGENT_READ_WAIT, answered).await.map_err(silent)?? {
        Outcome::Ok(value) => Ok(value),
        Outcome::Failed(failure) => Err(failure.into()),
    }
}

/// The run was cancelled: the agent is notified to stop its work for this step.
pub(super) fn stop(world: &World, step: &Step, within: Span) -> ActionResult<PerformResult> {
    let node = args::text(&step.call, "node")?;
    match world.agents.unwant(node, &step.command_key()) {
        Ok(()) => {
            let what =
                format!("the run was cancelled: the agent of {node} stops reading; pages already read stay cached");
            Ok(PerformResult::Done(failed(FailureKind::Refused, what)))
        }
        // After a restart of ours an agent comes back in a moment; one that is gone has nothing under way.
        Err(error) => Ok(patient(error, waited(world, step), within, Value::Null)),
    }
}

/// Whether the node's agent is connected; else the failure of a plan that needs it.
pub(super) fn reachable(world: &World, call: &ActionCall) -> ActionResult<()> {
    let node = args::text(call, "node")?;
    world.agents.standing(node).map(drop).map_err(PerformResult::from)
}

/// The state before the first attempt: the node's boot, and under `name` the answer of a reading verb, if there is one.
pub(super) async fn witness(world: &World, call: &ActionCall, verb: &str, name: &str) -> Result<Value, WorldError> {
    let node = call.text("node");
    let boot = world.agents.standing(node)?.boot;
    let deadline = world.clock.now() + limits::AGENT_READ_WAIT;
    let question = world.agents.question(verb, call.args.clone(), deadline);
    let said = match world.agents.ask(node, &question).await? {
        CommandStatus::Ended { outcome: Outcome::Ok(value) } => value,
        CommandStatus::Ended { .. } | CommandStatus::Working { .. } => Value::Null,
    };
    Ok(json!({ "boot": boot, name: said }))
}

/// The step's carried state, with the agent's progress beside it.
fn carried(carry: &Value, progress: Value) -> Value {
    match carry {
        _ if progress.is_null() => carry.clone(),
        Value::Object(map) => {
            let mut map = map.clone();
            map.insert("progress".to_owned(), progress);
            Value::Object(map)
        }
        Value::Null => json!({ "progress": progress }),
        other => json!({ "witness": other, "progress": progress }),
    }
}
