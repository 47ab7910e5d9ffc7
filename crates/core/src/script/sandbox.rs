//! The sandbox: one raw engine with every limit set, and the fuel that stops a script wherever it hides.
//!
//! Invariant: a script can neither wait, read a clock or a random source, load code, nor go on once its fuel is gone.

use crate::limits;
use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicFnPackage, BasicIteratorPackage, BasicMapPackage, BasicMathPackage,
    BasicStringPackage, BitFieldPackage, LogicPackage, MoreStringPackage, Package,
};
use rhai::{AST, Dynamic, Engine, OptimizationLevel, Scope};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

/// Names of closures are made from hashes; with a fixed seed they are equal in every process.
const HASHING_SEED: [u64; 4] = [0x6e69_6768, 0x7473_6869, 0x6674_2072, 0x756e_626b];

thread_local! {
    /// Operations left to the script on this thread. Rhai counts operations itself, but forgets those made inside
    /// closures that a native function calls (`map`, `filter`), so a nest of them could run almost for ever.
    static FUEL: Cell<u64> = const { Cell::new(0) };
    /// The brake of another thread on the script of this thread.
    static BRAKE: RefCell<Option<ScriptBrake>> = const { RefCell::new(None) };
}

/// Operations between two looks at the brake; one operation can take a tenth of a millisecond.
const BRAKE_EVERY: u64 = 64;

/// Ends a script that takes too long: operations bound a script, but a few of them can be slow ones, and this layer reads no
/// clock. It acts once it is pulled from another thread, or once `spent` returns true on the script's own.
#[derive(Clone, Default)]
pub struct ScriptBrake {
    pulled: Arc<AtomicBool>,
    spent: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl ScriptBrake {
    /// A brake that acts by itself once `spent` returns true; it is called on the script's thread, every few operations.
    pub fn once(spent: impl Fn() -> bool + Send + Sync + 'static) -> ScriptBrake {
        ScriptBrake { spent: Some(Arc::new(spent)), ..ScriptBrake::default() }
    }

    /// Pulls the brake: the script stops at its next operation.
    pub fn pull(&self) {
        self.pulled.store(true, Ordering::Relaxed);
    }

    /// Whether the brake was pulled, or the CPU time is spent.
    pub fn pulled(&self) -> bool {
        self.pulled.load(Ordering::Relaxed) || self.spent.as_ref().is_some_and(|spent| spent())
    }
}

/// Runs `body` with the brake at hand for every script on this thread.
pub(super) fn with_brake<T>(brake: &ScriptBrake, body: impl FnOnce() -> T) -> T {
    let before = BRAKE.replace(Some(brake.clone()));
    let result = body();
    BRAKE.set(before);
    result
}

fn braked() -> bool {
    BRAKE.with_borrow(|brake| brake.as_ref().is_some_and(ScriptBrake::pulled))
}

/// A raw engine without any host function. Costs some hundred microseconds; make one and share it.
pub(super) fn engine() -> Engine {
    static SEED: Once = Once::new();
    // A seed that was set before us stays; it is fixed all the same.
    SEED.call_once(|| rhai::config::hashing::set_hashing_seed(Some(HASHING_SEED)).unwrap_or_default());
    let mut engine = Engine::new_raw();
    // Left out on purpose: LanguageCorePackage (its `sleep` blocks the thread, `exit` ends a run out of a closure),
    // BasicTimePackage (a clock), BasicBlobPackage (JSON has no blobs).
    ArithmeticPackage::new().register_into_engine(&mut engine);
    LogicPackage::new().register_into_engine(&mut engine);
    BitFieldPackage::new().register_into_engine(&mut engine);
    BasicMathPackage::new().register_into_engine(&mut engine);
    BasicFnPackage::new().register_into_engine(&mut engine);
    BasicIteratorPackage::new().register_into_engine(&mut engine);
    BasicStringPackage::new().register_into_engine(&mut engine);
    MoreStringPackage::new().register_into_engine(&mut engine);
    BasicArrayPackage::new().register_into_engine(&mut engine);
    BasicMapPackage::new().register_into_engine(&mut engine);
    engine
        .set_optimization_level(OptimizationLevel::None)
        .set_strict_variables(true)
        .set_fail_on_invalid_map_property(true)
        .set_max_operations(limits::SCRIPT_OPERATIONS)
        .set_max_call_levels(limits::SCRIPT_CALL_LEVELS)
        .set_max_expr_depths(limits::SCRIPT_EXPR_DEPTH, limits::SCRIPT_EXPR_DEPTH)
        .set_max_string_size(limits::SCRIPT_STRING_BYTES)
        .set_max_array_size(limits::SCRIPT_ARRAY_ITEMS)
        .set_max_map_size(limits::SCRIPT_MAP_ITEMS)
        .set_max_variables(limits::SCRIPT_VARIABLES)
        .set_max_functions(limits::SCRIPT_FUNCTIONS)
        .set_max_modules(0);
    engine.disable_symbol("eval");
    // A script's prints are dropped: a replay would print them again.
    engine.on_print(|_| ()).on_debug(|_, _, _| ());
    engine.on_progress(|_| match FUEL.get() {
        0 => Some(Dynamic::UNIT),
        left if left % BRAKE_EVERY == 0 && braked() => {
            FUEL.set(0);
            Some(Dynamic::UNIT)
        }
        left => {
            FUEL.set(left - 1);
            None
        }
    });
    engine
}

/// Takes all fuel away: the script ends at its next operation, and no `catch` can hold it.
pub(super) fn halt() {
    FUEL.set(0);
}

/// The result of running a script.
pub(super) enum SandboxResult<T> {
    Ended(Result<T, Box<rhai::EvalAltResult>>),
    /// It used up its operations; the result means nothing.
    OutOfFuel,
    /// The brake was pulled.
    Braked,
    Panicked(String),
}

/// Gives fuel, runs, takes the fuel back. A panic inside becomes data.
pub(super) fn run<T>(body: impl FnOnce() -> Result<T, Box<rhai::EvalAltResult>>) -> SandboxResult<T> {
    FUEL.set(limits::SCRIPT_OPERATIONS);
    let result = catch_unwind(AssertUnwindSafe(body));
    let left = FUEL.replace(0);
    match result {
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            SandboxResult::Panicked(text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default())
        }
        Ok(_) if left == 0 && braked() => SandboxResult::Braked,
        Ok(_) if left == 0 => SandboxResult::OutOfFuel,
        Ok(Err(error)) if matches!(error.unwrap_inner(), rhai::EvalAltResult::ErrorTooManyOperations(..)) => {
            SandboxResult::OutOfFuel
        }
        Ok(result) => SandboxResult::Ended(result),
    }
}

/// Runs the top-level statements.
pub(super) fn run_ast(engine: &Engine, scope: &mut Scope<'_>, ast: &AST) -> SandboxResult<Dynamic> {
    run(|| engine.eval_ast_with_scope::<Dynamic>(scope, ast))
}
