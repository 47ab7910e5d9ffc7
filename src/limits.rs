//! Every bound in the program, named, with its reason. A number that limits something lives here or nowhere.
//!
//! Invariant: nothing that comes from outside grows without one of these.

use crate::model::Span;
use std::time::Duration;

// ── ingest ── figures from the security checklist of alert receivers; Alertmanager's own bodies stay far below
pub const BODY_COMPRESSED_BYTES: usize = 2 * 1024 * 1024;
pub const BODY_BYTES: usize = 8 * 1024 * 1024;
pub const ALERTS_PER_BODY: usize = 5_000;
pub const LABELS_PER_ALERT: usize = 64;
pub const LABEL_NAME_BYTES: usize = 256;
pub const LABEL_VALUE_BYTES: usize = 4 * 1024;
pub const JSON_DEPTH: usize = 16;
/// A client that cannot send its headers in this time is a slow loris.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
pub const CONNECTIONS: usize = 1_024;
/// Batches waiting for the writer; beyond it the answer is 503, which Alertmanager retries.
pub const INTAKE_QUEUE: usize = 1_024;
/// Bytes of bodies being decoded or waiting; beyond it the answer is 503.
pub const INTAKE_BYTES: usize = 64 * 1024 * 1024;

// ── store ──
/// Operations that share one commit at most; the time is how long the first one waits for company at most.
pub const GROUP_COMMIT_OPS: usize = 512;
/// SQLite before this version can corrupt a WAL file that two connections write.
pub const SQLITE_VERSION_MIN: i32 = 3_051_003;
pub const READ_LIMIT: usize = 1_000;
pub const RETENTION_EPISODES: Span = Span::seconds(30 * 86_400);
pub const RETENTION_BODIES: Span = Span::seconds(400 * 86_400);
/// Rows removed in one transaction by the janitor, so that intake never waits for it.
pub const SWEEP_ROWS: usize = 1_000;
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);

// ── scripts ── measured with rhai 1.27: these survive hostile recursion in a 16 MiB stack
/// A replay of 1000 steps takes some 20,000; an empty loop of this many is over in 10 ms.
pub const SCRIPT_OPERATIONS: u64 = 250_000;
pub const SCRIPT_CALL_LEVELS: usize = 32;
pub const SCRIPT_EXPR_DEPTH: usize = 64;
pub const SCRIPT_STRING_BYTES: usize = 64 * 1024;
pub const SCRIPT_ARRAY_ITEMS: usize = 10_000;
/// Counted over all maps inside a value: the pods of a full node are some thousand items.
pub const SCRIPT_MAP_ITEMS: usize = 10_000;
pub const SCRIPT_VARIABLES: usize = 500;
pub const SCRIPT_FUNCTIONS: usize = 200;
pub const SCRIPT_WALL: Duration = Duration::from_millis(250);
pub const SCRIPT_STACK_BYTES: usize = 16 * 1024 * 1024;
pub const SCRIPT_BYTES: usize = 256 * 1024;
pub const STEPS_PER_RUN: usize = 1_000;
pub const OUTCOME_BYTES: usize = 256 * 1024;
/// Nesting of a value that a script hands over; serde_json reads back no more than 128 levels.
pub const SCRIPT_VALUE_DEPTH: usize = 32;
/// A shape sees a whole body at once: the items and bytes of a body with many alerts.
pub const SHAPE_ITEMS: usize = 200_000;
pub const SHAPE_STRING_BYTES: usize = BODY_BYTES;
/// Compiled hosts that are kept for reuse; a program has one, tests have a few.
pub const SCRIPT_HOSTS: usize = 16;
/// Diagnostics of one runbook; a file that is wrong everywhere need not be told so a thousand times.
pub const DIAGNOSTICS: usize = 100;
/// How long `verify` waits for its condition, beside the time it must hold.
pub const VERIFY_WITHIN: Span = Span::minutes(15);
/// `verify` looks at most this often; with `hold` it looks ten times within it, so journals stay small.
pub const VERIFY_EVERY: Span = Span::seconds(15);

// ── runs ──
/// Runs that are advanced or perform a step at the same time.
pub const RUNS_AT_ONCE: usize = 64;
pub const DUE_BATCH: usize = 256;
/// Attempts of one step on a target that does not answer before the step has failed.
pub const STEP_ATTEMPTS: u32 = 8;
pub const BACKOFF_FIRST: Duration = Duration::from_millis(250);
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
pub const HOLD_RECHECK: Span = Span::seconds(15);
pub const COOLDOWN: Span = Span::minutes(30);
pub const ATTEMPTS_PER_DAY: u32 = 3;
pub const APPROVAL_EXPIRY: Span = Span::minutes(30);

// ── the world ──
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
pub const HTTP_BODY_BYTES: usize = 1024 * 1024;
pub const KUBE_TIMEOUT: Duration = Duration::from_secs(15);
pub const PODS_PER_NODE: usize = 512;
pub const NODES: u32 = 20_000;

// ── notices ──
/// Incidents that may open on a channel within a minute before a digest takes over.
pub const NOTICES_PER_MINUTE: usize = 20;
pub const HEADLINES: usize = 12;
pub const STORY_LINES: usize = 200;
pub const DELIVERIES_AT_ONCE: usize = 8;
pub const DELIVERY_BACKOFF_MAX: Duration = Duration::from_secs(300);
