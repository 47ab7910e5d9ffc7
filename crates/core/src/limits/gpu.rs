//! GPUs: NVML, the kernel log, MIG: their bounds.
//!
//! Invariant: each number has its reason beside it, where its name does not give it.

use crate::model::Span;
use std::time::Duration;

// ── MIG ──
/// Disruption budgets of one cluster: one a workload.
pub const BUDGETS: usize = 50_000;
/// Pods that one rebalance may move unless the runbook sets another number, and at most then.
pub const MIG_MOVES: u32 = 1;
/// Most pods that a runbook may let one rebalance move.
pub const MIG_MOVES_MAX: u32 = 8;
/// A mig-manager that was not seen at work for so long after its label changed found nothing to do.
pub const MIG_NOTICED: Span = Span::minutes(2);
/// Profiles in one question: a fleet of one family has seven.
pub const MIG_PROFILES_AT_ONCE: usize = 16;
/// Instances in one demand.
pub const MIG_DEMAND: u32 = 4_096;
/// Steps of the search over GPUs: some twenty milliseconds.
pub const MIG_SEARCH_STEPS: usize = 400_000;
/// States of the search that are kept however many GPUs there are.
pub const MIG_SEARCH_WIDTH_MIN: usize = 32;
/// From an eviction to the container's start, before any warm-up.
pub const MIG_RESTART: Span = Span::seconds(30);
/// Places (or instances) of one profile on one GPU: the library is never given more room.
pub const MIG_PLACES: u32 = 64;
/// One reading or change of layouts through NVML, which can hang on a sick GPU.
pub const MIG_WITHIN: Duration = Duration::from_secs(60);
/// The kubelet's list of devices given to pods.
pub const CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;

// ── NVML ──
/// One wait for events; also the time that a release for a reset waits for it at most.
pub const NVML_EVENT_WAIT: Duration = Duration::from_millis(500);
/// Events that wait for the loop; the thread that receives them waits beyond that, and the driver keeps the rest.
pub const NVML_EVENTS: usize = 1_024;
/// Questions of verbs that wait for the loop.
pub const NVML_ASKS: usize = 32;
/// The stack of a thread that calls NVML: the library's own needs, not ours.
pub const NVML_STACK: usize = 512 * 1024;
/// NVML that does not begin is tried again after this, and then after twice as long each time.
pub const NVML_RETRY_FIRST: Duration = Duration::from_millis(250);
/// Longest wait between two attempts to start NVML.
pub const NVML_RETRY_MAX: Duration = Duration::from_secs(60);
/// Looks closer together than this cost more than they are worth.
pub const NVML_POLL_MIN: Duration = Duration::from_millis(10);
/// Each n-th poll reads every value, not only those that are cheap and urgent.
pub const NVML_WHOLE_EVERY: u64 = 10;
/// Turns in which every look failed before the session is given up.
pub const NVML_BAD_TURNS: usize = 3;
/// Waits for events that fail in a row before it is reported.
pub const NVML_DEAF_TURNS: u32 = 3;
/// Longest wait of a verb for NVML's answer; shorter than the engine's wait for the agent.
pub const NVML_ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Letting go takes as long as a wait for events and a call that is under way.
pub const NVML_RELEASE_WITHIN: Duration = Duration::from_secs(30);
/// An alarm that the driver sent once is over when it was not repeated for so long.
pub const GPU_ALARM_QUIET: Duration = Duration::from_secs(600);
/// The largest machines have 16.
pub const GPUS_OF_NODE: usize = 64;
/// A GPU has at most seven MIG devices today.
pub const MIG_DEVICES: u32 = 64;
/// Processes of one GPU that are listed.
pub const GPU_PROCESSES: usize = 1_024;

// ── the GPU node ──
/// The kernel's own bound on a record of `/dev/kmsg` with its dictionary.
pub const KERNEL_RECORD_BYTES: usize = 8 * 1024;
/// Of one record's text; the driver's lines are far shorter.
pub const KERNEL_LINE_BYTES: usize = 2 * 1024;
/// Records read in one pass, so that the findings of a burst are sent before all of it is read.
pub const KERNEL_RECORDS_PER_PASS: usize = 4_096;
/// How long a look at a quiet log lasts.
pub const KERNEL_WAIT: Duration = Duration::from_secs(1);
/// A plain file gives no signal when it grows.
pub const KERNEL_FILE_LOOK: Duration = Duration::from_millis(50);
/// Between two attempts to open a log that cannot be read.
pub const KERNEL_REOPEN: Duration = Duration::from_secs(5);
/// More GPUs than any machine has; bounds the indexes that a hostile log could name.
pub const GPUS_PER_NODE: usize = 64;
/// Bytes of the driver's message in a summary.
pub const FINDING_WORDS: usize = 160;
/// Bytes of the kernel's line that a finding keeps in full.
pub const FINDING_DETAIL: usize = 1_024;
/// Alerts of one node that are open at once: every code on every GPU stays below.
pub const COMPLAINTS_PER_NODE: usize = 4_096;
/// How long an NVML event waits for the kernel's words: they are a few milliseconds apart.
pub const JOIN_WORDS: Span = Span(Duration::from_millis(300));
/// Observations of one fault that are counted before their number is sent.
pub const JOIN_COUNT_EVERY: Span = Span::minutes(1);
/// A lasting condition is sent again, so that the engine does not take it for forgotten.
pub const JOIN_REMIND_EVERY: Span = Span::minutes(30);
/// A look that began before the kernel logged the driver's request is back by then.
pub const WISH_SETTLES: Duration = Duration::from_secs(5);
/// Without another sight of it a fault that heals by itself is over; the driver's bursts are shorter.
pub const JOIN_QUIET: Span = Span::minutes(3);
/// Bytes of the agent's record of open alerts.
pub const MEMORY_BYTES: u64 = 16 * 1024 * 1024;
/// Passes of the kernel log that wait to be taken; then its reader waits, and the kernel's ring holds the rest.
pub const KERNEL_PASSES: usize = 4;
/// Findings given to the spool are on disk after this; only then is the position in the log stored.
pub const FAULTS_SETTLE: Duration = Duration::from_secs(2);
