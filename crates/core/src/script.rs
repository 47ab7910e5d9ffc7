//! Runbooks: a pure function from a journal to the next call. Rhai in a sandbox; stop and replay.
//!
//! Invariant: `advance` acts on nothing, and its turn depends on its arguments alone.

mod arguments;
mod check;
mod failure;
mod header;
mod host;
mod near;
mod reference;
mod render;
mod sandbox;
mod session;
mod shape;
mod value;
mod verify;

#[cfg(test)]
mod tests;

pub use check::{Diagnostic, DiagnosticLevel, check, render};
pub use sandbox::ScriptBrake;
pub use shape::{ShapeError, ShapeScript};

use crate::limits;
use crate::model::{ActionCall, ActionSpec, Reason, ReasonCode, RunInput, RunbookHeader, RunbookPin, Step};
use rhai::{AST, Scope};
use serde_json::Value;
use session::ScriptPurpose;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Part of every pin: a change in the host's reading of a text makes it another runbook.
pub const HOST_API_VERSION: &str = "nightshift-host-1";

/// The actions that scripts may call.
#[derive(Clone)]
pub struct HostApi {
    pub specs: Vec<&'static ActionSpec>,
}

/// A compiled runbook. Cheap to clone, safe to share.
#[derive(Clone)]
pub struct Runbook {
    pub pin: RunbookPin,
    pub text: String,
    pub header: RunbookHeader,
    compiled: Arc<CompiledScript>,
}

struct CompiledScript {
    host: Arc<host::ScriptHost>,
    ast: AST,
    /// By the number of the action in the host.
    allowed: Arc<[bool]>,
}

/// The next turn of a run, computed from all its entries.
#[derive(Debug, Clone, PartialEq)]
pub enum ScriptTurn {
    /// The journal does not answer this call: begin it as the next step.
    Call(ActionCall),
    Done(Value),
    /// `stop("why")`.
    Stopped(String),
    /// An uncaught failure or script error: message with `name.rhai:line:column` and the chain of calls.
    Failed(String),
    /// A human must look: diverged, over a limit, panicked.
    Broken(Reason),
    /// The brake ended it: the same turn may well end on another try.
    Braked(Reason),
}

/// Compiles and checks; errors prevent it, warnings do not (ask `check` for those).
///
/// # Errors
///
/// Fails with every diagnostic of the text when one of them is an error.
pub fn compile(name: &str, text: &str, api: &HostApi) -> Result<Runbook, Vec<Diagnostic>> {
    let host = host::of(api);
    let check::RunbookAnalysis { header, ast, actions, diagnostics } = check::analyse(text, &host);
    let ast = match ast {
        Some(ast) if diagnostics.iter().all(|one| one.level != DiagnosticLevel::Error) => ast,
        _ => return Err(diagnostics),
    };
    let allowed = (0..host.specs.len()).map(|number| actions.contains(&number)).collect();
    let pin = RunbookPin { name: name.to_owned(), hash: hash(text) };
    Ok(Runbook { pin, text: text.to_owned(), header, compiled: Arc::new(CompiledScript { host, ast, allowed }) })
}

impl Runbook {
    /// Every action that it can call, in alphabetic order: the list that a reviewer reads, and the only calls that a
    /// run may make.
    pub fn actions(&self) -> Vec<&'static ActionSpec> {
        let compiled = &self.compiled;
        let numbers = compiled.host.specs.iter().zip(compiled.allowed.iter());
        let mut specs: Vec<_> = numbers.filter(|(_, allowed)| **allowed).map(|(spec, _)| *spec).collect();
        specs.sort_by_key(|spec| spec.name);
        specs
    }
}

/// Runs the script from the top. `journal` holds the ended steps of the script in order (undo steps left out).
/// Needs a thread with `limits::SCRIPT_STACK_BYTES` of stack.
pub fn advance(runbook: &Runbook, input: &RunInput, journal: &[Step]) -> ScriptTurn {
    turn(runbook, input, journal, ScriptPurpose::Advance)
}

/// `advance`, ended early when the brake acts: then the turn is `Braked`. A script of slow
/// operations (copies of large arrays) can keep a thread for many seconds within its operations.
pub fn advance_with(runbook: &Runbook, input: &RunInput, journal: &[Step], brake: &ScriptBrake) -> ScriptTurn {
    sandbox::with_brake(brake, || advance(runbook, input, journal))
}

/// `advance_plan` with a brake.
pub fn advance_plan_with(runbook: &Runbook, input: &RunInput, journal: &[Step], brake: &ScriptBrake) -> ScriptTurn {
    sandbox::with_brake(brake, || advance_plan(runbook, input, journal))
}

/// The same for a plan, whose journal holds predictions: `verify` looks once and takes the condition as true, for in a
/// dry run no time passes and nothing gets better.
pub fn advance_plan(runbook: &Runbook, input: &RunInput, journal: &[Step]) -> ScriptTurn {
    turn(runbook, input, journal, ScriptPurpose::Plan)
}

/// The reference page of all actions, in Markdown.
pub fn reference(api: &HostApi) -> String {
    reference::reference(api)
}

fn turn(runbook: &Runbook, input: &RunInput, journal: &[Step], intent: ScriptPurpose) -> ScriptTurn {
    let name = runbook.pin.name.as_str();
    let mut scope = Scope::with_capacity(runbook.header.params.len() + 8);
    for param in &runbook.header.params {
        let Some(value) = input.params.get(&param.name).or(param.default.as_ref()) else {
            let text = format!("{name}.rhai needs the parameter `{}`, which the run was not given", param.name);
            return ScriptTurn::Broken(Reason::new(ReasonCode::ParameterMissing, text));
        };
        scope.push_dynamic(param.name.as_str(), value::to_dynamic(value));
    }
    scope.push_dynamic("event", value::to_dynamic(&input.event));
    let CompiledScript { host, ast, allowed } = &*runbook.compiled;
    session::turn(name, intent, allowed.clone(), journal, || sandbox::run_ast(&host.engine, &mut scope, ast))
}

/// SHA-256 over host API version and text, 64 hex digits.
fn hash(text: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(HOST_API_VERSION);
    hasher.update([0]);
    hasher.update(text);
    hex::encode(hasher.finalize())
}

/// Runs on a thread whose stack survives whatever text it parses; callers may sit on a small one.
fn on_stack<T: Send>(body: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(limits::SCRIPT_STACK_BYTES).spawn_scoped(scope, body);
        let thread = thread.map_err(|why| format!("no thread for the parser: {why}"))?;
        thread.join().map_err(|_| "the parser panicked on this text; please report it".to_owned())
    })
}
