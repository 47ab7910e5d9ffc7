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
/// Gaps that one body may leave in the ledger; the rest become one line with their number.
pub const GAPS_PER_BODY: usize = 20;
/// An identity that a source gives itself (a dedup key); a longer one is hashed.
pub const FINGERPRINT_BYTES: usize = 128;
/// Headers that one request may have, and the bytes of all of them.
pub const HEADERS: usize = 64;
pub const HEADER_BYTES: usize = 16 * 1024;
/// Bodies larger than this are decoded off the threads that serve requests.
pub const DECODE_INLINE_BYTES: usize = 256 * 1024;
/// Prometheus says the same each minute; within this time a word-for-word repeat need not reach the disk. Far below
/// any sensible `stale_after`, so that an episode never goes stale because of it.
pub const REPEAT_WINDOW: Span = Span::minutes(4);
/// Repeats that are remembered; beyond it they simply reach the disk.
pub const REPEATS: usize = 65_536;
/// A shorter token can be guessed.
pub const TOKEN_BYTES_MIN: usize = 16;
/// How long requests under way may take to end once the server stops.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// The writer must answer within this time, or we are not ready.
pub const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence of an alert in Alertmanager's API counts only when neither we nor it are fresh: after its restart it knows
/// nothing until Prometheus has spoken again.
pub const RECONCILE_GRACE: Span = Span::minutes(5);

/// Complaints of one cluster that are open at once; more than that is one problem, and it has been heard.
pub const COMPLAINTS: usize = 20_000;
/// New warnings of Kubernetes (and killed pods) taken in a minute, so that a storm of Events cannot fill the store.
pub const WARNINGS_PER_MINUTE: usize = 200;
/// A warning that was not repeated for so long is over.
pub const WARNING_QUIET: Duration = Duration::from_secs(15 * 60);
/// Kubernetes waits at most 5 minutes between two starts of a container that crashes.
pub const POD_CALM: Duration = Duration::from_secs(6 * 60);
/// Kubelets renew their Lease each 10 s, and Kubernetes calls a node Unknown after 50 s.
pub const LEASE_STALE: Duration = Duration::from_secs(60);
pub const LEASES_EVERY: Duration = Duration::from_secs(20);
/// Lists of Leases further apart than this say nothing about what lay between: the API server, or we, were away.
pub const LEASES_GAP: Duration = Duration::from_secs(45);
/// Complaints of a cluster in one request to the store, and how often there is one.
pub const COMPLAINTS_BATCH: usize = 500;
pub const COMPLAINTS_EVERY: Duration = Duration::from_millis(250);
/// How often the nodes' own condition is compared with what our runs hold.
pub const BESIDE_EVERY: Duration = Duration::from_secs(2);
/// Conditions and Events written in one pass; the rest waits for the next one.
pub const BESIDE_BATCH: usize = 64;
/// Events about steps that wait, in a minute: a thousand held runs must not fill the API server with what `nightshift runs`
/// says as well.
pub const HELD_EVENTS_PER_MINUTE: u32 = 100;
/// Kubernetes keeps Events for an hour, so an older story is not told any more.
pub const BESIDE_BACK: Span = Span::minutes(55);
/// An Event's note, by the API's own limit.
pub const EVENT_NOTE_BYTES: usize = 1_024;

// ── rules and matchers ──
/// One line of matchers; Alertmanager's own silences stay far below.
pub const MATCHER_BYTES: usize = 4 * 1024;
/// Memory of one compiled regular expression, so that `(\w{500}){500}` is refused and not served.
pub const REGEX_BYTES: usize = 1024 * 1024;
pub const RULES: usize = 2_000;
pub const RULE_NAME_CHARS: usize = 100;
/// One line on a phone.
pub const TITLE_CHARS: usize = 160;
/// A longer key ends in a hash, so that a hostile label cannot fill the index.
pub const INCIDENT_KEY_BYTES: usize = 256;
/// Characters of a label's value that a reason repeats.
pub const QUOTE_CHARS: usize = 80;
/// The window in which attempts on one subject are counted.
pub const ATTEMPTS_WINDOW: Span = Span::seconds(86_400);
/// A budget over an hour or a day frees up slowly, so it is asked less often than a lock.
pub const HOLD_RECHECK_BUDGET: Span = Span::minutes(5);
/// Names that a reason lists before it says how many more there are.
pub const NAMES_SHOWN: usize = 5;

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
/// A transaction takes in no more operations after this, so that the first one is not kept waiting by those behind it.
pub const GROUP_COMMIT_TIME: Duration = Duration::from_millis(20);
/// Pages in the write-ahead log before the writer folds them back: 16 MiB, so that pages written often are copied once.
pub const WAL_PAGES: i64 = 4_096;
/// Page caches: the writer's holds the inner pages of its indexes, a reader's one page of a screen.
pub const WRITER_CACHE_KIB: i64 = 32 * 1024;
pub const READER_CACHE_KIB: i64 = 2 * 1024;
/// Complaints in the writer's memory before their index is written: 2 MiB, and an index of a million of them is then
/// written ten to a page.
pub const RECENT_COMPLAINTS: usize = 32_768;
pub const READERS: usize = 4;
/// Prepared statements kept for each connection; there are fewer.
pub const STATEMENTS: usize = 256;
/// Nobody else writes, so this only covers another program's look into the file.
pub const SQLITE_BUSY: Duration = Duration::from_secs(5);

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
/// While something is performed, how often the kill switch is looked at: two seconds after it, nothing is sent.
pub const FREEZE_LOOK_EVERY: Duration = Duration::from_secs(1);
/// What blast radius counts by the hour.
pub const HOUR: Span = Span::minutes(60);
/// Sets of replicas that one step may touch: a node holds some tens of pods that hold GPUs.
pub const SERVING_SETS: usize = 64;
/// Characters of a label by which nodes are grouped; Kubernetes allows 63.
pub const GROUP_CHARS: usize = 63;
/// What an Alertmanager said of its silences is believed for so long.
pub const SILENCES_FRESH: Duration = Duration::from_secs(5);
/// A silence that a person asks for here, and the alerts of one incident that it may be for.
pub const SILENCE_MIN: Span = Span::minutes(1);
pub const SILENCE_MAX: Span = Span::minutes(7 * 24 * 60);
pub const SILENCED_ALERTS: usize = 20;
pub const HOLD_RECHECK: Span = Span::seconds(15);
pub const COOLDOWN: Span = Span::minutes(30);
pub const ATTEMPTS_PER_DAY: u32 = 3;
pub const APPROVAL_EXPIRY: Span = Span::minutes(30);
/// Remedies of one scope that failed, or ended in doubt, within the window: then a person must look.
pub const OUTCOME_WINDOW: Span = Span::minutes(60);
pub const OUTCOME_FAILED: u32 = 3;
pub const OUTCOME_STUCK: u32 = 2;
/// Within this time, one symptom on many nodes has one cause.
pub const SYMPTOM_WINDOW: Span = Span::minutes(5);
/// A complaint that came back so often within the window flaps: that is, it changed four times.
pub const FLAP_WINDOW: Span = Span::minutes(15);
pub const FLAPS: u32 = 2;
/// The kill switch outside the store is looked at so often, and what was not read for the second span is engaged.
pub const KILL_LOOK_EVERY: Duration = Duration::from_millis(500);
pub const KILL_STALE: Duration = Duration::from_secs(2);
/// Two persons release a freeze within this time, or the first one's word is forgotten.
pub const RELEASE_WINDOW: Span = Span::minutes(30);
/// Calls in a plan; longer ones are cut and say so.
pub const PLAN_CALLS: usize = 200;
/// Texts of old runbooks kept compiled for runs that still hold them.
pub const OLD_RUNBOOKS: usize = 64;
/// A step that is under way is not looked at more often than this.
pub const AGAIN_MIN: Duration = Duration::from_millis(50);

// ── the world ──
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
pub const HTTP_BODY_BYTES: usize = 1024 * 1024;
pub const KUBE_TIMEOUT: Duration = Duration::from_secs(15);
pub const PODS_PER_NODE: usize = 512;
pub const NODES: u32 = 20_000;
/// Changes that the simulated fleet remembers for stale reads: more than a watch cache lags in practice.
pub const SIM_HISTORY: usize = 256;
/// Changes that the simulated fleet tells to a watch that resumes; an older one hears 410.
pub const SIM_CHANGES: usize = 20_000;
/// How often the simulated fleet looks for something to tell, and says that there is nothing.
pub const SIM_WATCH_LOOK: Duration = Duration::from_millis(20);
pub const SIM_BOOKMARK: Duration = Duration::from_secs(5);
/// Requests that the simulated fleet remembers for tests to count.
pub const SIM_REQUESTS: usize = 10_000;
/// As the real API server's limit on a request body.
pub const SIM_BODY_BYTES: usize = 3 * 1024 * 1024;
/// Pods (or Events) of one cluster that a list may have.
pub const PODS: usize = 300_000;
/// What a watch has told of the nodes counts as true for so long after it last spoke; then the cluster is listed.
pub const FLEET_FRESH: Duration = Duration::from_secs(10);
/// One request of a watch; the server closes it then and we ask again from where we are.
pub const WATCH_STRETCH: Duration = Duration::from_secs(290);
/// Bookmarks come about each minute; a watch that is silent for longer has nobody at the other end.
pub const WATCH_SILENCE: Duration = Duration::from_secs(130);
/// A read that guards made is handed on to the step that follows for so long; a commit lies between them.
pub const NOTED_FOR: Duration = Duration::from_millis(500);
/// A watch that held for so long was well, so its next break is its first.
pub const WATCH_SETTLED: Duration = Duration::from_secs(30);
/// For so long after it was away, an API server's refusals are asked about again: longer than a watch waits at most.
pub const API_SETTLES: Duration = Duration::from_secs(75);
pub const WATCH_AGAIN: Duration = Duration::from_millis(500);
pub const RELIST_FIRST: Duration = Duration::from_secs(1);
pub const WATCH_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// etcd takes objects of 1.5 MiB; as JSON on one line that is less than this.
pub const WATCH_LINE_BYTES: usize = 4 * 1024 * 1024;
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
pub const POLL_FIRST: Duration = Duration::from_millis(200);
pub const POLL_MAX: Duration = Duration::from_secs(10);
/// No step waits longer, however it was asked to: a forgotten run must surface within a week.
pub const STEP_WAIT_MAX: Span = Span::seconds(7 * 86_400);
/// The words kept of a reason in an annotation, and of a target's message in ours.
pub const REASON_CHARS: usize = 256;

// ── inference engines ──
/// A metrics page: vLLM's are some hundred KiB, Triton's grow with its models.
pub const ENGINE_PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Models, or engine cores, on one page.
pub const ENGINE_LANES: usize = 256;
/// Buckets of the histogram of first tokens; vLLM has 23.
pub const ENGINE_BUCKETS: usize = 128;
/// Fewer first tokens than this say nothing of a share of them.
pub const ENGINE_FIRST_TOKENS: f64 = 10.0;
/// Engines that one installation looks at.
pub const PROBES: usize = 4_096;
/// Looks under way at engines that answer promptly; those that do not have as many of their own, so that engines that hang
/// never delay the others.
pub const PROBES_AT_ONCE: usize = 64;
pub const PROBE_PROMPT: Duration = Duration::from_secs(1);
/// One answer of an engine, unless the configuration says otherwise, and at most.
pub const PROBE_WITHIN: Span = Span::seconds(5);
pub const PROBE_WITHIN_MAX: Span = Span::seconds(60);
/// Between two looks at one engine, unless the configuration says otherwise, and at least.
pub const PROBE_EVERY: Span = Span::seconds(15);
pub const PROBE_EVERY_MIN: Span = Span::seconds(1);
/// How often pods with the label of an engine are listed.
pub const PROBE_LIST_EVERY: Duration = Duration::from_secs(30);
/// Characters of what an engine said, in a reason.
pub const PROBE_WORDS: usize = 160;
/// Between the two looks of `inference::health` and `inference::restart`: several steps of any engine that works.
pub const ENGINE_WINDOW: Span = Span::seconds(15);
/// And of a prediction, which must not keep people waiting.
pub const ENGINE_FORESIGHT: Duration = Duration::from_secs(2);
/// Engines of one workload that one step looks at.
pub const ENGINES_PER_STEP: usize = 64;
/// Between two looks at an engine whose traffic was taken away, and looks without a request before it counts as empty:
/// what a proxy still sends arrives within seconds.
pub const ENGINE_DRAIN_EVERY: Duration = Duration::from_secs(5);
pub const ENGINE_DRAIN_LOOKS: u64 = 2;
/// Queries beside the engine's own pages that one step asks.
pub const ENGINE_QUERIES: usize = 8;

// ── MIG ──
/// Disruption budgets of one cluster: one a workload.
pub const BUDGETS: usize = 50_000;
/// Pods that one rebalance may move unless the runbook says otherwise, and at most then.
pub const MIG_MOVES: u32 = 1;
pub const MIG_MOVES_MAX: u32 = 8;
/// A mig-manager that was not seen at work for so long after its label changed found nothing to do.
pub const MIG_NOTICED: Span = Span::minutes(2);
/// Profiles in one question: a fleet of one family has seven.
pub const MIG_PROFILES_AT_ONCE: usize = 16;
/// Instances asked for in one question.
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
// ── agents ──
/// How long a step waits for an agent's answer before it comes back later.
pub const AGENT_ASK_WAIT: Duration = Duration::from_secs(2);
/// How long a reading action waits for an agent in all; below the deadlines of these actions.
pub const AGENT_READ_WAIT: Duration = Duration::from_secs(30);
/// A long poll of an agent; shorter than the idle time of proxies.
pub const AGENT_POLL: Duration = Duration::from_secs(20);
/// An agent that has said nothing for two polls and a little is not there.
pub const AGENT_HERE: Duration = Duration::from_secs(45);
/// A command without an answer for so long is handed over again: it may have been lost on its way.
pub const AGENT_RESEND: Duration = Duration::from_secs(3);
/// A command that nobody asked about for so long is let go.
pub const AGENT_LETTER_KEPT: Duration = Duration::from_secs(3_600);
/// A command that was not asked about for so long is not waited for just now: longer than a step's own pauses.
pub const AGENT_ASKED_ABOUT: Duration = Duration::from_secs(30);
/// Commands that wait at one agent: a node has one disruptive run, and a few that read.
pub const AGENT_COMMANDS: usize = 256;

/// How often the engine looks for silent agents.
pub const AGENTS_LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often it writes down that an agent is there.
pub const AGENT_WRITTEN_EVERY: Duration = Duration::from_secs(60);
/// Starts of one agent whose marks are kept; of older ones nothing can come any more.
pub const AGENT_SPOOLS: usize = 16;
/// Agents' connections; each has one, or two while it changes its certificate.
pub const AGENT_CONNECTIONS: usize = 32_768;
/// Requests that one agent has under way: a poll, a delivery, a few answers.
pub const AGENT_STREAMS: u32 = 32;
/// A delivery of findings, or an outcome with what is around it.
pub const AGENT_BODY_BYTES: usize = 1024 * 1024;
/// What an agent reads of an answer: a poll's commands, each with small arguments.
pub const AGENT_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// A good look of Kubernetes at a token is remembered for so long.
pub const REVIEW_KEPT: Duration = Duration::from_secs(60);
/// An agent's certificate, renewed after a third of it. Taking it away works at once, whatever this is.
pub const AGENT_CERTIFICATE: Duration = Duration::from_secs(7 * 86_400);
/// The door's own certificate, made anew at each start.
pub const DOOR_CERTIFICATE: Duration = Duration::from_secs(2 * 365 * 86_400);
pub const AUTHORITY_CERTIFICATE: Duration = Duration::from_secs(10 * 365 * 86_400);
pub const JOIN_TOKEN_LIFE: Span = Span::minutes(15);
pub const JOIN_TOKEN_LIFE_MAX: Span = Span::seconds(86_400);
/// Findings between watchers and the spool; a watcher waits when it is full.
pub const FINDINGS_QUEUE: usize = 1_024;
/// Findings that share one fsync.
pub const FINDINGS_AT_ONCE: usize = 256;
/// Findings in one delivery, and their bytes: well below `AGENT_BODY_BYTES`.
pub const REPORTS_PER_BODY: usize = 500;
pub const REPORTS_BYTES: usize = 512 * 1024;
/// A file of the spool.
pub const SPOOL_SEGMENT_BYTES: u64 = 256 * 1024;
/// Findings in memory, where the disk cannot be written or was just written.
pub const SPOOL_MEMORY: usize = 2_048;
pub const SPOOL_MEMORY_BYTES: usize = 1024 * 1024;
/// How often a disk that could not be written is tried again.
pub const SPOOL_RETRY: Duration = Duration::from_secs(2);
/// Commands that an agent remembers, their outcomes' bytes, and the file's before it is written anew.
pub const BOOK_COMMANDS: usize = 256;
pub const BOOK_BYTES: usize = 2 * 1024 * 1024;
pub const BOOK_FILE_BYTES: u64 = 8 * 1024 * 1024;
/// How often an agent says how far a command is.
pub const AGENT_PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// Tries to deliver one answer; the engine asks again anyway.
pub const AGENT_ANSWER_TRIES: u32 = 5;
/// Between tries while the engine is away; short, so that nothing waits long once it is back.
pub const AGENT_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Between tries while the engine refuses us: a person has to do something.
pub const AGENT_REFUSED_WAIT: Duration = Duration::from_secs(30);
/// Threads of an agent that may block: the spool's disk, and looks into `/proc`.
pub const AGENT_THREADS: usize = 8;
/// For an agent's tasks to end once it is told to.
pub const AGENT_SHUTDOWN: Duration = Duration::from_secs(5);

/// The agent's own limit: one GPU reset on a node within this time.
pub const RESET_EVERY: Duration = Duration::from_secs(600);
/// The agent's own limit: one reboot of a node within this time.
pub const REBOOT_EVERY: Duration = Duration::from_secs(3_600);
/// The program that asks for a reboot returns at once.
pub const REBOOT_WITHIN: Duration = Duration::from_secs(60);
/// NVIDIA's bug report takes minutes on a large machine.
pub const BUG_REPORT_WITHIN: Duration = Duration::from_secs(900);
/// The newest kernel lines of a bundle, one file of it, and the bundles that stay on a node.
pub const BUNDLE_KERNEL_BYTES: usize = 1024 * 1024;
pub const BUNDLE_FILE_BYTES: u64 = 256 * 1024 * 1024;
pub const BUNDLES: usize = 5;
/// A reset takes seconds; one that takes longer hangs.
pub const RESET_WITHIN: Duration = Duration::from_secs(300);
/// The end of what a program printed: enough for its error.
pub const PROGRAM_OUTPUT_BYTES: u64 = 4 * 1024;
/// How often an agent looks whether a program that its predecessor started has ended.
pub const PROGRAM_LOOK_EVERY: Duration = Duration::from_millis(200);

// ── NVML ──
/// One wait for events; also the time that a release for a reset waits for it at most.
pub const NVML_EVENT_WAIT: Duration = Duration::from_millis(500);
/// Events that wait for the loop; the thread that hears them waits beyond that, and the driver keeps the rest.
pub const NVML_EVENTS: usize = 1_024;
/// Questions of verbs that wait for the loop.
pub const NVML_ASKS: usize = 32;
/// The stack of a thread that calls NVML: the library's own needs, not ours.
pub const NVML_STACK: usize = 512 * 1024;
/// NVML that does not begin is tried again after this, and then after twice as long each time.
pub const NVML_RETRY_FIRST: Duration = Duration::from_millis(250);
pub const NVML_RETRY_MAX: Duration = Duration::from_secs(60);
/// Looks closer together than this cost more than they tell.
pub const NVML_POLL_MIN: Duration = Duration::from_millis(10);
/// Every so many looks ask everything, not only what is cheap and urgent.
pub const NVML_WHOLE_EVERY: u64 = 10;
/// Turns in which every look failed before the session is given up.
pub const NVML_BAD_TURNS: usize = 3;
/// Waits for events that fail in a row before it is told.
pub const NVML_DEAF_TURNS: u32 = 3;
/// A verb waits no longer for an answer; below what the engine waits for the agent.
pub const NVML_ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Letting go takes as long as a wait for events and a call that is under way.
pub const NVML_RELEASE_WITHIN: Duration = Duration::from_secs(30);
/// An alarm that the driver told once is over when it was not told again for so long.
pub const GPU_ALARM_QUIET: Duration = Duration::from_secs(600);
/// The largest machines have 16.
pub const GPUS_OF_NODE: usize = 64;
/// A GPU has at most seven MIG devices today.
pub const MIG_DEVICES: u32 = 64;
/// Processes of one GPU that are listed.
pub const GPU_PROCESSES: usize = 1_024;

// ── notices ──
/// A text that a runbook says or notes: Slack's section takes 3,000 characters.
pub const TELL_BYTES: usize = 8 * 1024;
/// Between two editions of one message: Slack takes about one a second for a channel, and people read slower.
pub const NOTICE_PACE: Duration = Duration::from_secs(2);
/// Incidents that may open on a channel within a minute before a digest takes over.
pub const NOTICES_PER_MINUTE: usize = 20;
pub const HEADLINES: usize = 12;
pub const STORY_LINES: usize = 200;
pub const DELIVERIES_AT_ONCE: usize = 8;
pub const DELIVERY_BACKOFF_MAX: Duration = Duration::from_secs(300);
/// One attempt to deliver, whatever the notifier does; longer than `HTTP_TIMEOUT` times the calls one attempt makes.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// What a vendor may ask us to wait at most, so that a broken header cannot silence a channel for a day.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// Due notices taken up in one pass.
pub const NOTICES_BATCH: usize = 1_024;
/// Incidents named in a digest; the rest is a number and a command.
pub const DIGEST_ITEMS: usize = 20;
/// Questions shown in one message; the rest is a number and a command.
pub const ASKS: usize = 4;
/// Characters of one story line, so that a hostile label cannot push the others out.
pub const STORY_LINE_CHARS: usize = 400;
/// Messages whose place is remembered between a failed attempt and the next one.
pub const MESSAGES_REMEMBERED: usize = 4_096;

// ── vendors' own limits ── exceeding one loses the message
pub const SLACK_BLOCKS: usize = 50;
pub const SLACK_SECTION_CHARS: usize = 3_000;
pub const SLACK_HEADER_CHARS: usize = 150;
/// Undocumented: blocks of more than about 13,200 characters in all fail.
pub const SLACK_TOTAL_CHARS: usize = 13_000;
/// Slack wants an answer within three seconds; what takes longer than this is answered later.
pub const SLACK_PATIENCE: Duration = Duration::from_millis(1_500);
/// How far the time of a signed request may be from ours, and signatures remembered for so long.
pub const SLACK_SKEW: Duration = Duration::from_secs(300);
pub const SLACK_SEEN: usize = 8_192;
/// Buttons in one request; Slack sends one.
pub const SLACK_PRESSES: usize = 5;
/// Lines of a story in one answer to a chat.
pub const CHAT_LINES: usize = 25;
pub const SLACK_TEXT_CHARS: usize = 1_000;
/// PagerDuty drops what is over 256 KB itself.
pub const PAGERDUTY_WEBHOOK_BYTES: usize = 256 * 1024;
/// Signatures of one delivery that are looked at; there are two while a secret is rotated.
pub const PAGERDUTY_SIGNATURES: usize = 5;
/// Deliveries remembered, so that a repeat counts once.
pub const PAGERDUTY_HEARD: usize = 8_192;
pub const PAGERDUTY_SUMMARY_CHARS: usize = 1_024;
pub const PAGERDUTY_KEY_CHARS: usize = 255;
/// As Alertmanager counts; PagerDuty says 512 KB.
pub const PAGERDUTY_BODY_BYTES: usize = 512_000;
pub const MAIL_SUBJECT_CHARS: usize = 150;
pub const SMTP_TIMEOUT: Duration = Duration::from_secs(20);
/// A receipt is a row of the store: what a shape gives back must stay small.
pub const RECEIPT_BYTES: usize = 16 * 1024;

// ── files ── runbooks, rules and shapes
pub const RULE_FILE_BYTES: usize = 1024 * 1024;
/// YAML nodes of one file of rules: some fifty for each of `RULES`.
pub const RULE_FILE_NODES: usize = 100_000;
/// Nesting of one file of rules; a value for a runbook is the deepest thing in it.
pub const RULE_FILE_DEPTH: usize = 32;
/// Files of one folder that are read.
pub const CATALOG_FILES: usize = 1_000;
/// Names of one folder that are looked at.
pub const CATALOG_ENTRIES: usize = 10_000;
/// Files that changed are read when they were quiet for so long …
pub const FILES_QUIET: Duration = Duration::from_millis(150);
/// … or after so many looks, so that a file that never rests cannot keep the others out.
pub const FILES_QUIET_LOOKS: usize = 20;
/// For file systems that report no events.
pub const FILES_LOOK_EVERY: Duration = Duration::from_secs(30);

// ── upkeep ──
pub const JANITOR_EVERY: Duration = Duration::from_secs(1);
pub const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
pub const RELOAD_POLL: Duration = Duration::from_secs(60);
pub const SCHEDULE_POLL: Duration = Duration::from_secs(30);
pub const RECONCILE_EVERY: Duration = Duration::from_secs(60);

// ── configuration, command line, API ──
/// The configuration is one hand-written file.
pub const CONFIG_BYTES: u64 = 1024 * 1024;
/// Alertmanager's shortest sensible repeat interval; anything shorter calls live alerts stale.
pub const STALE_AFTER_MIN: Span = Span::minutes(5);
/// What `why` must be able to look back on.
pub const RETENTION_MIN: Span = Span::minutes(60);
/// Tokens and keys are short; a longer file is the wrong file.
pub const SECRET_BYTES: u64 = 64 * 1024;
/// A request to `/api/v1` carries parameters and a reason, never a document.
pub const API_BODY_BYTES: usize = 64 * 1024;
/// Words that people give as a reason; they go into the ledger and into messages.
pub const WHY_BYTES: usize = 2 * 1024;
/// Rows of a list that a request gets when it does not say how many.
pub const LIST_ROWS: usize = 50;
/// What the command line waits for one answer of the engine.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// A body that the command line reads from the engine: a full page of entries stays far below.
pub const CLIENT_BODY_BYTES: usize = 64 * 1024 * 1024;
/// How often `run --wait` looks.
pub const WAIT_POLL: Duration = Duration::from_millis(500);
/// From the signal to the end of the process; Kubernetes gives 30 s.
pub const SHUTDOWN: Duration = Duration::from_secs(10);
/// For threads that still hold a blocking call when everything is closed.
pub const SHUTDOWN_SIGN: Duration = Duration::from_secs(1);
/// Below this, `doctor` warns: a day of a busy ledger and its WAL need as much.
pub const DISK_FREE_MIB: u64 = 1_024;
/// On this machine a listener answers at once.
pub const DOCTOR_CONNECT: Duration = Duration::from_millis(500);
/// Times that `doctor` asks an API server, to tell a slow one from a slow first answer.
pub const DOCTOR_PULSES: usize = 5;
/// An API server that takes longer for its version makes every step of a run slow.
pub const KUBE_SLOW: Duration = Duration::from_millis(300);
/// More than this and certificates, silences and people's memory no longer agree.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5);

// ── the GPU node ──
/// The kernel's own bound on a record of `/dev/kmsg` with its dictionary.
pub const KERNEL_RECORD_BYTES: usize = 8 * 1024;
/// Of one record's text; the driver's lines are far shorter.
pub const KERNEL_LINE_BYTES: usize = 2 * 1024;
/// Records read in one pass: a burst is taken in bites, so that what it says goes out meanwhile.
pub const KERNEL_RECORDS_PER_PASS: usize = 4_096;
/// How long a look at a quiet log lasts.
pub const KERNEL_WAIT: Duration = Duration::from_secs(1);
/// A plain file does not say when it grows.
pub const KERNEL_FILE_LOOK: Duration = Duration::from_millis(50);
/// Between two attempts to open a log that cannot be read.
pub const KERNEL_REOPEN: Duration = Duration::from_secs(5);
/// Larger than any machine; a bound for what a hostile log could name.
pub const GPUS_PER_NODE: usize = 64;
/// Bytes of the driver's words in a summary, and of the line itself.
pub const FINDING_WORDS: usize = 160;
pub const FINDING_DETAIL: usize = 1_024;
/// Complaints of one node that are open at once: every code on every GPU stays below.
pub const COMPLAINTS_PER_NODE: usize = 4_096;
/// How long an NVML event waits for the kernel's words: they are a few milliseconds apart.
pub const JOIN_WORDS: Span = Span(Duration::from_millis(300));
/// Sights of one fault that are counted before their number is told.
pub const JOIN_COUNT_EVERY: Span = Span::minutes(1);
/// A complaint that lasts is said again, so that the engine does not take it for forgotten.
pub const JOIN_REMIND_EVERY: Span = Span::minutes(30);
/// A look that began before the kernel told the driver's wish is back by then.
pub const WISH_SETTLES: Duration = Duration::from_secs(5);
/// Without another sight of it a fault that heals by itself is over; the driver's bursts are shorter.
pub const JOIN_QUIET: Span = Span::minutes(3);
/// What the agent remembers of open complaints.
pub const MEMORY_BYTES: u64 = 16 * 1024 * 1024;
/// Passes of the kernel log that wait to be taken; then its reader waits, and the kernel's ring holds the rest.
pub const KERNEL_PASSES: usize = 4;
/// What was given to the spool is on the disk after this; only then is the place in the log remembered.
pub const FAULTS_SETTLE: Duration = Duration::from_secs(2);

// ── weight caches ──
/// Files of one model; the largest have some hundred shards.
pub const CACHE_FILES: usize = 10_000;
/// Folders below a model's own: pipelines of several models have one level.
pub const CACHE_DEPTH: usize = 4;
/// An index of 100,000 tensors has some 10 MB; also the bound on a list of hashes.
pub const CACHE_INDEX_BYTES: u64 = 64 * 1024 * 1024;
/// As the format itself limits it.
pub const SAFETENSORS_HEADER_BYTES: u64 = 100_000_000;
/// Tensors of one shard.
pub const CACHE_TENSORS: usize = 1_000_000;
/// Readers of one warm; more do not help any disk that was measured.
pub const CACHE_READERS: usize = 16;
/// What one reader takes on at a time.
pub const CACHE_CHUNK_BYTES: u64 = 16 * 1024 * 1024;
/// One read: as fast as 4 MiB when measured, and eight readers' buffers stay small.
pub const CACHE_READ_BYTES: usize = 1024 * 1024;
/// The share of pages in memory from which a model counts as warm.
pub const CACHE_RESIDENT: f64 = 0.999;
/// Times that what was pushed out meanwhile is read again.
pub const CACHE_PASSES: usize = 3;
/// How often progress is said, and a reader that waits looks whether to stop.
pub const CACHE_LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often memory pressure is looked at; the kernel's own averages move every two seconds.
pub const CACHE_PRESSURE_LOOK: Duration = Duration::from_secs(1);
/// Percent of time in which all tasks waited for memory: nothing is begun then.
pub const CACHE_PRESSURE_FULL: f64 = 5.0;
/// Percent of time in which some task waited for memory: readers stand back.
pub const CACHE_PRESSURE_SOME: f64 = 20.0;
/// Pressure that lasts longer than this is somebody else's, and the warm gives up.
pub const CACHE_PRESSURE_WAIT: Duration = Duration::from_secs(60);
/// Memory that a warm leaves to others, in MiB.
pub const CACHE_RESERVE_MIB: u64 = 4 * 1024;
/// How long a warm may take: 1 TiB at 600 MB/s.
pub const CACHE_WITHIN: Span = Span::minutes(30);
/// What one mapping covers where pages are counted the old way: its vector has 256 KiB then.
pub const CACHE_MINCORE_WINDOW: u64 = 1024 * 1024 * 1024;
/// How long a warm waits for a node's agent to connect.
pub const CACHE_AGENT_WAIT: Duration = Duration::from_secs(60);
/// How long a warm that may be a Job waits for the node's agent: longer than an agent's own pause between tries to connect.
pub const CACHE_JOB_AFTER: Duration = Duration::from_secs(15);
/// A Job of ours that has no pod after so long is kept from having one.
pub const CACHE_JOB_POD: Duration = Duration::from_secs(120);
/// What a Job may take beside its own time: to be scheduled, to fetch its image.
pub const CACHE_JOB_SLACK: Duration = Duration::from_secs(300);
/// How long a Job that has ended can be looked at; Kubernetes takes it away then.
pub const CACHE_JOB_KEPT: Duration = Duration::from_secs(3_600);
/// What the kubelet keeps of a container's termination message.
pub const TERMINATION_BYTES: usize = 4_096;
/// Models that one step warms; a node serves a few.
pub const CACHE_MODELS: usize = 64;
/// Files that a status names one by one.
pub const CACHE_FILES_SHOWN: usize = 100;
/// Roots that a configuration may name.
pub const CACHE_ROOTS: usize = 32;
/// As the kernel's own limit on a path.
pub const PATH_BYTES: usize = 4_096;
/// Control groups above our own that are looked at.
pub const CGROUP_DEPTH: usize = 32;
/// Files under /proc and /sys are small; one that is not is not read to its end.
pub const PROC_FILE_BYTES: u64 = 64 * 1024;

// ── Docker ──
/// Containers of one machine that are looked at.
pub const CONTAINERS: usize = 512;
/// One question to the engine of this machine.
pub const DOCKER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a container may take to end by itself before it is killed; a restart fits into one attempt of a step.
pub const CONTAINER_GRACE: Duration = Duration::from_secs(60);
/// What a restart takes beside the grace: the kill, the unmount, the start.
pub const CONTAINER_RESTART_SLACK: Duration = Duration::from_secs(20);
