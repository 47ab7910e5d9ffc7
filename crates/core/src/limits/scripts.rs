//! Scripts: their bounds.
//!
//! Invariant: each number has its reason beside it, where its name does not give it.

use crate::model::Span;
use std::time::Duration;

// ── scripts ── measured with rhai 1.27: these survive hostile recursion in a 16 MiB stack
/// A replay of 1000 steps takes some 20,000; an empty loop of this many is over in 10 ms.
pub const SCRIPT_OPERATIONS: u64 = 250_000;
/// Nesting of function calls.
pub const SCRIPT_CALL_LEVELS: usize = 32;
/// Nesting of one expression.
pub const SCRIPT_EXPR_DEPTH: usize = 64;
/// Bytes of one string.
pub const SCRIPT_STRING_BYTES: usize = 64 * 1024;
/// Items of one array.
pub const SCRIPT_ARRAY_ITEMS: usize = 10_000;
/// Counted over all maps inside a value: the pods of a full node are some thousand items.
pub const SCRIPT_MAP_ITEMS: usize = 10_000;
/// Variables in scope at once.
pub const SCRIPT_VARIABLES: usize = 500;
/// Functions of one script.
pub const SCRIPT_FUNCTIONS: usize = 200;
/// CPU time of the script's own thread, so a turn that waits for a busy machine is as good as any other. A turn takes some
/// milliseconds; 250,000 operations that each copy an array would take half a minute.
pub const SCRIPT_CPU: Duration = Duration::from_secs(1);
/// Turns of one run in a row that use this up before the run is stuck; until then it is tried again later.
pub const SCRIPT_BRAKED: u32 = 5;
/// Stack of the thread that evaluates scripts.
pub const SCRIPT_STACK_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of one script's text.
pub const SCRIPT_BYTES: usize = 256 * 1024;
/// Steps of one run; one more ends it with that reason.
pub const STEPS_PER_RUN: usize = 1_000;
/// Bytes of one step's outcome.
pub const OUTCOME_BYTES: usize = 256 * 1024;
/// Nesting of a value that a script hands over; serde_json reads back no more than 128 levels.
pub const SCRIPT_VALUE_DEPTH: usize = 32;
/// A shape sees a whole body at once: the items and bytes of a body with many alerts.
pub const SHAPE_ITEMS: usize = 200_000;
/// Bytes of one string in a shape.
pub const SHAPE_STRING_BYTES: usize = super::BODY_BYTES;
/// Compiled hosts that are kept for reuse; a program has one, tests have a few.
pub const SCRIPT_HOSTS: usize = 16;
/// Diagnostics of one runbook; a file that is wrong everywhere need not list it a thousand times.
pub const DIAGNOSTICS: usize = 100;
/// How long `verify` waits for its condition, beside the time it must hold.
pub const VERIFY_WITHIN: Span = Span::minutes(15);
/// `verify` looks at most this often; with `hold` it looks ten times within it, so journals stay small.
pub const VERIFY_EVERY: Span = Span::seconds(15);
