//! Files, upkeep, configuration, command line, API: their bounds.
//!
//! Invariant: each number has its reason beside it, where its name does not give it.

use crate::model::Span;
use std::time::Duration;

// ── files ── runbooks, rules and shapes
/// Bytes of one file of rules.
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
/// A wall clock that moves by more than this against the running clock was set. Time servers slew below it.
pub const CLOCK_STEP: Duration = Duration::from_secs(5);
/// How often it is looked whether the wall clock was set.
pub const CLOCK_LOOK_EVERY: Duration = Duration::from_secs(1);
/// A loop that wakes so much later than it wanted says that the whole process did not run.
pub const PAUSE_TOLD: Duration = Duration::from_secs(2);
/// From this on the ledger has it too.
pub const PAUSE_NOTED: Duration = Duration::from_secs(10);
/// A step that lasts as long is no mistake that is corrected soon: the engine's time and its timers follow it then.
pub const CLOCK_SETTLE: Duration = Duration::from_secs(600);
/// Of a clock that is set again and again, no more is written than one entry in this time.
pub const CLOCK_TOLD_EVERY: Duration = Duration::from_secs(60);
/// Nothing is removed for so long after the wall clock was last seen away from the engine's time.
pub const CLOCK_QUIET: Duration = Duration::from_secs(3_600);
/// Retention moves on by at most this many days in a day that the engine has lived.
pub const SWEEP_SPEED: u32 = 2;
/// Time between two runs of maintenance.
pub const JANITOR_EVERY: Duration = Duration::from_secs(1);
/// Time between two sweeps that remove rows past their retention.
pub const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
/// How often the catalog's folders are read where the file system cannot be watched.
pub const RELOAD_POLL: Duration = Duration::from_secs(60);
/// Longest wait of the scheduler between two checks for due times.
pub const SCHEDULE_POLL: Duration = Duration::from_secs(30);
/// Time between two comparisons of all stored alerts of a source with a complete reading of it.
pub const RECONCILE_EVERY: Duration = Duration::from_secs(60);

// ── configuration, command line, API ──
/// The configuration is one hand-written file.
pub const CONFIG_BYTES: u64 = 1024 * 1024;
/// Alertmanager's shortest sensible repeat interval; anything shorter calls live alerts stale.
pub const STALE_AFTER_MIN: Span = Span::minutes(5);
/// Shortest retention: `why` must be able to look back this far.
pub const RETENTION_MIN: Span = Span::minutes(60);
/// Tokens and keys are short; a longer file is the wrong file.
pub const SECRET_BYTES: u64 = 64 * 1024;
/// A request to `/api/v1` carries parameters and a reason, never a document.
pub const API_BODY_BYTES: usize = 64 * 1024;
/// Words that users give as a reason; they go into the ledger and into messages.
pub const WHY_BYTES: usize = 2 * 1024;
/// A session of the pages ends after this, however active it is …
pub const WEB_SESSION: Duration = Duration::from_secs(12 * 3_600);
/// … and after this without a click: a phone that was left on a table.
pub const WEB_IDLE: Duration = Duration::from_secs(2 * 3_600);
/// Sessions at once, of all and of one user; the one that was used longest ago makes room.
pub const WEB_SESSIONS: usize = 4_096;
/// Sessions of one user.
pub const WEB_SESSIONS_EACH: usize = 16;
/// Cookies of one name that are tried: one is ours, others may have been set by another port of this host.
pub const WEB_COOKIES: usize = 4;
/// Sign-ins that one browser has begun and not ended, each in a tab of its own.
pub const OIDC_TABS: usize = 6;
/// Characters of a provider's error description that are shown and logged …
pub const OIDC_WORDS: usize = 200;
/// … and so many names of groups are logged where none of them counts.
pub const OIDC_GROUPS_SHOWN: usize = 5;
/// From leaving for an identity provider to coming back: a password, a second factor, a phone that is searched for.
pub const OIDC_SIGN_IN: Duration = Duration::from_secs(600);
/// Sign-ins that came back within that time and are remembered: no installation has more, and the oldest makes room.
pub const OIDC_TICKETS: usize = 4_096;
/// Codes that are exchanged at once …
pub const OIDC_EXCHANGES: usize = 16;
/// … and how long one waits for its place: as long as a user waits for a page.
pub const OIDC_PLACE: Duration = Duration::from_secs(3);
/// Requests that wait at once for a provider's metadata: each holds a connection, and they are not authenticated.
pub const OIDC_WAITING: usize = 16;
/// One answer of a provider.
pub const OIDC_TIMEOUT: Duration = Duration::from_secs(5);
/// A provider's metadata and keys are fetched again after this …
pub const OIDC_KNOWN: Duration = Duration::from_secs(3_600);
/// … its keys sooner where a token names one that is new, but not for each forged token …
pub const OIDC_KEYS_PACE: Duration = Duration::from_secs(60);
/// A browser is sent to a provider that has answered within this; to another it is asked first whether it answers, so long at most.
pub const OIDC_HERE: Duration = Duration::from_secs(15);
/// Deadline for a check that a provider answers at all, before a browser is sent to it.
pub const OIDC_LOOK: Duration = Duration::from_secs(2);
/// … and one that does not answer is left alone for a moment.
pub const OIDC_RETRY: Duration = Duration::from_secs(5);
/// Clocks of provider and engine apart.
pub const OIDC_SKEW: Duration = Duration::from_secs(60);
/// Keys of one provider that are kept.
pub const OIDC_KEYS: usize = 64;
/// An ID token travels in one body; those with hundreds of groups have some 20 KiB.
pub const OIDC_TOKEN_BYTES: usize = 64 * 1024;
/// As OpenID Connect bounds a subject.
pub const OIDC_SUBJECT_BYTES: usize = 255;
/// Groups that are kept with a session, of those that mean something here.
pub const OIDC_GROUPS: usize = 100;
/// A name or text on a page, so that a hostile label cannot push the buttons out of sight.
pub const WEB_TEXT_CHARS: usize = 400;
/// Rows of a table on a page; the rest is a number and a command.
pub const WEB_ROWS: usize = 200;
/// How often the file of users and tokens is looked at, so that a role that was taken away is gone at once.
pub const ROSTER_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Changes of users and tokens that one entry names.
pub const ROSTER_CHANGES: usize = 20;
/// Rows of a list for a request without `limit`.
pub const LIST_ROWS: usize = 50;
/// Timeout of one request from the command line to the engine.
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
/// Requests of `doctor` to an API server, to tell a slow one from a slow first answer.
pub const DOCTOR_PULSES: usize = 5;
/// An API server that takes longer for its version makes every step of a run slow.
pub const KUBE_SLOW: Duration = Duration::from_millis(300);
/// More than this and certificates, silences and users' memory no longer agree.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// A sender with a wrong token or address is one line in so long, for each source as it names it.
pub const REJECTED_EVERY: Duration = Duration::from_secs(60);
/// Kinds of refused requests (status and source) that are counted apart; further sources share one count.
pub const REJECTED_KINDS: usize = 64;
/// Characters of a refused source's name in the log.
pub const REJECTED_SOURCE_CHARS: usize = 80;
/// Media ranges of one `Accept` header that are looked at; Prometheus sends five.
pub const ACCEPT_RANGES: usize = 16;

// ── the log of events ──
/// Lines in one second, for decisions and failures and for all others alike: a reader can follow it and no disk fills
/// up; the rest is counted in one line.
pub const LOG_LINES_PER_SECOND: usize = 50;
/// Runs, incidents, steps and channels whose names later lines repeat.
pub const LOG_CACHE: usize = 4_096;
/// Turns of a flapping alert that have a line each in the log; later each tenth has one.
pub const FLAPS_IN_LOG: u32 = 3;
/// Commits that wait for the log; a commit never waits for it.
pub const LOG_QUEUE: usize = 1_024;

/// Connections that cannot be accepted are logged so often, with their count.
pub const UNACCEPTED_SAID_EVERY: Duration = Duration::from_secs(10);
