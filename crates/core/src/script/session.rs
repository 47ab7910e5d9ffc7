//! One advance: the journal's answers, the script's calls, and the turn that follows.
//!
//! Invariant: the session decides the turn, never the script's result, because a script can swallow the stop.

use super::sandbox::{self, SandboxResult};
use super::value::{maps_alike, to_dynamic, to_json};
use super::{ScriptTurn, failure};
use crate::limits;
use crate::model::{ActionCall, Outcome, Reason, ReasonCode, Step, StepFailure};
use rhai::{Dynamic, EvalAltResult, Position};
use serde_json::Value;
use std::cell::RefCell;
use std::mem;
use std::sync::Arc;

type SessionEvalError = Box<EvalAltResult>;

thread_local! {
    /// The session of the script that runs on this thread. Rhai hands no borrowed state to host functions.
    static SESSION: RefCell<Option<ScriptSession>> = const { RefCell::new(None) };
}

/// Whether a script runs for real or to compute a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScriptPurpose {
    Advance,
    Plan,
}

struct ScriptSession {
    intent: ScriptPurpose,
    /// By the number of the action: whether the runbook's reviewed list has it.
    allowed: Arc<[bool]>,
    /// The journal's answers, in order.
    answers: Vec<Result<Dynamic, StepFailure>>,
    /// The calls that the script made and the journal answered, in order, and their places.
    asked: Vec<(ActionCall, Position)>,
    end: Option<SessionEnd>,
}

enum SessionEnd {
    Ask(ActionCall),
    Stopped(String),
    Broken(Reason),
}

/// Runs `script` with the journal's answers and returns the next turn.
pub(super) fn turn(
    name: &str,
    intent: ScriptPurpose,
    allowed: Arc<[bool]>,
    journal: &[Step],
    script: impl FnOnce() -> SandboxResult<Dynamic>,
) -> ScriptTurn {
    let answers: Vec<_> = journal.iter().map_while(|step| step.outcome.as_ref()).map(answer).collect();
    let asked = Vec::with_capacity(answers.len());
    SESSION.set(Some(ScriptSession { intent, allowed, answers, asked, end: None }));
    let ran = script();
    // A panic cannot leave it borrowed: the guard is dropped while unwinding.
    let session = SESSION.take().unwrap_or_else(|| unreachable!("set above; no other handler takes it"));
    session.settle(name, journal, ran)
}

fn answer(outcome: &Outcome) -> Result<Dynamic, StepFailure> {
    match outcome {
        Outcome::Ok(value) => Ok(to_dynamic(value)),
        Outcome::Failed(failure) => Err(failure.clone()),
    }
}

/// A call of the script: the journal's answer, or the end of this run of the script.
pub(super) fn ask(action: usize, call: ActionCall, at: Position) -> Result<Dynamic, SessionEvalError> {
    with(|session| {
        let no = session.asked.len();
        if session.end.is_some() {
            return Err(stop_here(at));
        }
        if !session.allowed.get(action).is_some_and(|allowed| *allowed) {
            let text = format!("the runbook calls {call} by a computed name; its list of actions does not have it");
            return Err(session.end(SessionEnd::Broken(Reason::new(ReasonCode::ScriptBroken, text)), at));
        }
        if no >= limits::STEPS_PER_RUN {
            let text = format!("the runbook makes more than {} steps; the next would be {call}", limits::STEPS_PER_RUN);
            return Err(session.end(SessionEnd::Broken(Reason::new(ReasonCode::StepLimit, text)), at));
        }
        let Some(answer) = session.answers.get_mut(no) else {
            return Err(session.end(SessionEnd::Ask(call), at));
        };
        let answer = mem::replace(answer, Ok(Dynamic::UNIT));
        let thrown = answer.map_err(|failure| failure::thrown(&call.action, &failure, at));
        session.asked.push((call, at));
        thrown
    })
}

/// `stop(reason)`: the runbook ends itself, and nothing in it can hold that up.
pub(super) fn stop(reason: String, at: Position) -> SessionEvalError {
    with(|session| match session.end {
        Some(_) => stop_here(at),
        None => session.end(SessionEnd::Stopped(reason), at),
    })
}

/// The run cannot go on, for a reason that a user must look at.
pub(super) fn break_off(reason: Reason, at: Position) -> SessionEvalError {
    with(|session| match session.end {
        Some(_) => stop_here(at),
        None => session.end(SessionEnd::Broken(reason), at),
    })
}

/// Whether this run of the script is over, whatever it still does.
pub(super) fn ended() -> bool {
    with(|session| session.end.is_some())
}

pub(super) fn planning() -> bool {
    with(|session| session.intent == ScriptPurpose::Plan)
}

/// The error that ends the script: not catchable where it is raised, and the fuel is gone where it is swallowed.
fn stop_here(at: Position) -> SessionEvalError {
    sandbox::halt();
    EvalAltResult::ErrorTerminated(Dynamic::UNIT, at).into()
}

fn with<T>(use_it: impl FnOnce(&mut ScriptSession) -> T) -> T {
    SESSION.with_borrow_mut(|session| {
        use_it(session.as_mut().unwrap_or_else(|| unreachable!("host functions run only inside `turn`")))
    })
}

impl ScriptSession {
    fn end(&mut self, end: SessionEnd, at: Position) -> SessionEvalError {
        self.end = Some(end);
        stop_here(at)
    }

    /// Order matters: an answer to another call than the script's makes all that follows it meaningless.
    fn settle(mut self, name: &str, journal: &[Step], ran: SandboxResult<Dynamic>) -> ScriptTurn {
        if let Some(reason) = self.diverged(name, journal) {
            return ScriptTurn::Broken(reason);
        }
        if let SandboxResult::Panicked(text) = &ran {
            return broken(format!("the interpreter of {name}.rhai panicked: {text}"));
        }
        match self.end.take() {
            Some(SessionEnd::Ask(call)) => return ScriptTurn::Call(call),
            Some(SessionEnd::Broken(reason)) => return ScriptTurn::Broken(reason),
            Some(SessionEnd::Stopped(why)) => {
                return self.answers_used(name, journal, "stopped itself", ScriptTurn::Stopped(why));
            }
            None => {}
        }
        match ran {
            SandboxResult::Ended(Ok(value)) => {
                // A last value that JSON cannot hold (a closure, for example) is not needed: the run is done all the
                // same.
                let done = ScriptTurn::Done(to_json(&value).unwrap_or(Value::Null));
                self.answers_used(name, journal, "came to its end", done)
            }
            SandboxResult::Ended(Err(error)) if failure::is_limit(&error) => broken(failure::words(name, error)),
            SandboxResult::Ended(Err(error)) => {
                let words = failure::words(name, error);
                self.answers_used(name, journal, "failed", ScriptTurn::Failed(words))
            }
            SandboxResult::OutOfFuel => {
                let last =
                    self.asked.last().map(|(call, at)| format!("; its last call was {call} at {}", place(name, *at)));
                let last = last.unwrap_or_default();
                broken(format!(
                    "{name}.rhai ran for more than {} operations without end{last}",
                    limits::SCRIPT_OPERATIONS
                ))
            }
            SandboxResult::Braked => {
                let text = format!("{name}.rhai used more than {:?} of CPU time for one turn", limits::SCRIPT_CPU);
                ScriptTurn::Braked(Reason::new(ReasonCode::ScriptBroken, text))
            }
            SandboxResult::Panicked(_) => unreachable!("returned above"),
        }
    }

    /// The first place where the script's call differs from the journal's.
    fn diverged(&self, name: &str, journal: &[Step]) -> Option<Reason> {
        let differs = |(_, (step, (call, _))): &(usize, (&Step, &(ActionCall, Position)))| {
            step.call.action != call.action || !maps_alike(&step.call.args, &call.args)
        };
        let (no, (step, (call, at))) = journal.iter().zip(&self.asked).enumerate().find(differs)?;
        let text = format!(
            "step {no} of the journal is {}, but the script now calls {call} at {}",
            step.call,
            place(name, *at)
        );
        Some(Reason::new(ReasonCode::Diverged, text))
    }

    /// The script ended: right only if it made every call in the journal.
    fn answers_used(&self, name: &str, journal: &[Step], how: &str, turn: ScriptTurn) -> ScriptTurn {
        let asked = self.asked.len();
        if asked == self.answers.len() {
            return turn;
        }
        let text = format!(
            "{name}.rhai {how} after {asked} calls, but the journal holds {}: step {asked} is {}",
            self.answers.len(),
            journal[asked].call
        );
        ScriptTurn::Broken(Reason::new(ReasonCode::Diverged, text))
    }
}

fn broken(text: String) -> ScriptTurn {
    ScriptTurn::Broken(Reason::new(ReasonCode::ScriptBroken, text))
}

fn place(name: &str, at: Position) -> String {
    failure::place(name, at)
}
