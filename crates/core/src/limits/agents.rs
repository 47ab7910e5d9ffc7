//! Agents, their link and their spool: their bounds.
//!
//! Invariant: each number says why it is this one, where its name does not.

use crate::model::Span;
use std::time::Duration;

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

/// An agent that speaks says each complaint again every `JOIN_REMIND_EVERY`; one that it has left out three times is not
/// among those that it knows.
pub const AGENT_FORGOTTEN: Span = Span::minutes(100);
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
/// An older certificate of an agent is still taken so long after a newer one was first shown: what was on its way then.
pub const AGENT_CERTIFICATES_OVERLAP: Duration = Duration::from_secs(120);
/// That two senders use one identity is said so often.
pub const AGENT_OLDER_SAID: Duration = Duration::from_secs(600);
/// Between two renewals of one certificate, so that no holder of it can fill the ledger.
pub const AGENT_RENEWED_EVERY: Duration = Duration::from_secs(60);
/// A request to join: a token, two names and a request for a certificate.
pub const AGENT_JOIN_BYTES: usize = 16 * 1024;
/// Requests to join that are looked at together; the others wait for their turn so long.
pub const AGENT_JOINS_AT_ONCE: usize = 16;
pub const AGENT_JOIN_WAIT: Duration = Duration::from_secs(5);
/// Before a refused token is answered: its place among those at once stays taken meanwhile.
pub const AGENT_JOIN_PAUSE: Duration = Duration::from_secs(1);
/// Connections to the agents' listener that have not shown yet who they are, and how long one may take to.
pub const AGENT_STRANGERS: usize = 256;
pub const AGENT_STRANGER_LIFE: Duration = Duration::from_secs(30);
/// Join tokens that are neither used nor expired: some more than nodes that join by hand in a day.
pub const JOIN_TOKENS: usize = 1_000;
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
