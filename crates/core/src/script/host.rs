//! The host: the functions that a runbook may call, registered once per set of actions and shared by all its runbooks.
//!
//! Invariant: a host function never acts; it passes the call to the session, which answers from the journal or stops
//! the script.

use super::{HostApi, arguments, failure, sandbox, session, verify};
use crate::limits;
use crate::model::{ActionCall, ActionSpec};
use rhai::{Dynamic, Engine, EvalAltResult, FnPtr, FuncRegistration, Map, Module, NativeCallContext, RhaiFunc};
use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Functions of the host that are no actions: they end or shape a run, and leave no step of their own.
pub(super) const BUILT_IN: [&str; 2] = ["stop", "verify"];

/// More arguments than this no action takes; one more is registered, so that the message is ours.
const SURPLUS: usize = 2;

type NativeFunction =
    dyn Fn(Option<NativeCallContext>, &mut [&mut Dynamic]) -> Result<Dynamic, Box<EvalAltResult>> + Send + Sync;

pub(super) struct ScriptHost {
    pub(super) engine: Engine,
    pub(super) specs: Vec<&'static ActionSpec>,
    by_name: HashMap<&'static str, usize>,
    /// Names and numbers of arguments of all that a script may call without a namespace.
    pub(super) functions: BTreeSet<(String, usize)>,
}

/// The host for these actions; made once and kept.
pub(super) fn of(api: &HostApi) -> Arc<ScriptHost> {
    static KEPT: Mutex<Vec<Arc<ScriptHost>>> = Mutex::new(Vec::new());
    // A list of finished values cannot be left half-changed by a panic.
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(host) = kept.iter().find(|host| host.specs == api.specs) {
        return host.clone();
    }
    let host = ScriptHost::new(api.specs.clone());
    if kept.len() == limits::SCRIPT_HOSTS {
        kept.remove(0);
    }
    kept.push(host.clone());
    host
}

impl ScriptHost {
    fn new(specs: Vec<&'static ActionSpec>) -> Arc<ScriptHost> {
        // `verify` must reach the table of actions, which owns the engine that owns `verify`: hence the weak link.
        Arc::new_cyclic(|link| {
            let mut engine = sandbox::engine();
            let by_name = specs.iter().enumerate().map(|(at, spec)| (spec.name, at)).collect();
            register_actions(&mut engine, &specs);
            register_built_in(&mut engine, link.clone());
            let functions = engine.collect_fn_metadata(
                None,
                |info| {
                    let plain = info.namespace.is_empty();
                    plain.then(|| (info.metadata.name.to_string(), info.metadata.num_params))
                },
                true,
            );
            ScriptHost { engine, specs, by_name, functions: functions.into_iter().collect() }
        })
    }

    /// The number of an action.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Every name that a runbook may write before a `(`.
    pub(super) fn callable(&self) -> impl Iterator<Item = &str> {
        self.specs.iter().map(|spec| spec.name).chain(BUILT_IN)
    }
}

fn register_actions(engine: &mut Engine, specs: &[&'static ActionSpec]) {
    let mut modules: BTreeMap<&str, Module> = BTreeMap::new();
    for (at, spec) in specs.iter().enumerate().filter(|(_, spec)| !BUILT_IN.contains(&spec.name)) {
        let (namespace, name) = spec.name.rsplit_once("::").unwrap_or(("", spec.name));
        register_action(modules.entry(namespace).or_default(), name, at, spec);
    }
    for (namespace, module) in modules {
        match namespace {
            "" => engine.register_global_module(module.into()),
            _ => engine.register_static_module(namespace, module.into()),
        };
    }
}

/// All numbers of arguments lead to one place, because our message is clearer than "function not found".
fn register_action(module: &mut Module, name: &str, at: usize, spec: &'static ActionSpec) {
    let call = move |context: Option<NativeCallContext>, args: &mut [&mut Dynamic]| {
        let place = context.map(|context| context.call_position()).unwrap_or_default();
        match arguments::named(spec, args) {
            Ok(named) => session::ask(at, ActionCall { action: spec.name.to_owned(), args: named }, place),
            Err(_) if session::ended() => Err(session::stop(String::new(), place)),
            Err(why) => Err(failure::throw(spec.name, failure::INVALID, &why, place)),
        }
    };
    let call: Arc<NativeFunction> = Arc::new(call);
    for count in 0..=spec.params.len() + SURPLUS {
        let types = vec![TypeId::of::<Dynamic>(); count];
        let function = RhaiFunc::Pure { func: call.clone(), has_context: true, is_pure: false, is_volatile: true };
        FuncRegistration::new(name).set_into_module_raw(module, types, function);
    }
}

fn register_built_in(engine: &mut Engine, link: Weak<ScriptHost>) {
    engine.register_fn("stop", |context: NativeCallContext, reason: Dynamic| -> Result<(), Box<EvalAltResult>> {
        Err(session::stop(reason.to_string(), context.call_position()))
    });
    let same = link.clone();
    let gone = "the host outlives the engine that it owns";
    engine.register_fn("verify", move |context: NativeCallContext, condition: FnPtr| {
        verify::verify(&same.upgrade().expect(gone), &context, &condition, None)
    });
    engine.register_fn("verify", move |context: NativeCallContext, condition: FnPtr, options: Map| {
        verify::verify(&link.upgrade().expect(gone), &context, &condition, Some(&options))
    });
}
