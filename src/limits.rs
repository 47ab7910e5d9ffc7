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
pub const SCRIPT_OPERATIONS: u64 = 1_000_000;
pub const SCRIPT_CALL_LEVELS: usize = 32;
pub const SCRIPT_EXPR_DEPTH: usize = 64;
pub const SCRIPT_STRING_BYTES: usize = 64 * 1024;
pub const SCRIPT_ARRAY_ITEMS: usize = 10_000;
pub const SCRIPT_MAP_ITEMS: usize = 1_000;
pub const SCRIPT_VARIABLES: usize = 500;
pub const SCRIPT_FUNCTIONS: usize = 200;
pub const SCRIPT_WALL: Duration = Duration::from_millis(250);
pub const SCRIPT_STACK_BYTES: usize = 16 * 1024 * 1024;
pub const SCRIPT_BYTES: usize = 256 * 1024;
pub const STEPS_PER_RUN: usize = 1_000;
pub const OUTCOME_BYTES: usize = 256 * 1024;

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
/// Objects in one page of a list, as kubectl asks; a page of node objects stays far below the bound on a body.
pub const KUBE_PAGE: usize = 500;
pub const KUBE_BODY_BYTES: usize = 64 * 1024 * 1024;
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests to one API server that a single step has in flight, so that a drain does not crowd out the others.
pub const KUBE_AT_ONCE: usize = 8;
/// Evictions in one pass of a drain: a pass must end well before the step's deadline.
pub const EVICTIONS_PER_PASS: usize = 32;
/// After a drain has forced pods out, how long they may take to end before the step gives up.
pub const FORCED_GRACE: Span = Span::minutes(15);
/// A larger number of replicas is a slip of the keyboard.
pub const REPLICAS: u32 = 10_000;
/// Nodes whose pods are counted to find one with free GPUs.
pub const SPARE_CANDIDATES: usize = 16;
/// Waiting for pods to go or a rollout to end: quick at first, since most are, then gentle to the API server.
pub const POLL_FIRST: Duration = Duration::from_secs(1);
pub const POLL_MAX: Duration = Duration::from_secs(10);
/// No step waits longer, however it was asked to: a forgotten run must surface within a week.
pub const STEP_WAIT_MAX: Span = Span::seconds(7 * 86_400);
/// The words kept of a reason in an annotation, and of a target's message in ours.
pub const REASON_CHARS: usize = 256;
/// Changes that the simulated fleet remembers for stale reads: more than a watch cache lags in practice.
pub const SIM_HISTORY: usize = 256;
/// Requests that the simulated fleet remembers for tests to count.
pub const SIM_REQUESTS: usize = 10_000;
/// As the real API server's limit on a request body.
pub const SIM_BODY_BYTES: usize = 3 * 1024 * 1024;

// ── notices ──
/// A text that a runbook says or notes: Slack's section takes 3,000 characters.
pub const TELL_BYTES: usize = 8 * 1024;
/// Incidents that may open on a channel within a minute before a digest takes over.
pub const NOTICES_PER_MINUTE: usize = 20;
pub const HEADLINES: usize = 12;
pub const STORY_LINES: usize = 200;
pub const DELIVERIES_AT_ONCE: usize = 8;
pub const DELIVERY_BACKOFF_MAX: Duration = Duration::from_secs(300);
