//! Agents, their link and their spool: their bounds.
//!
//! Invariant: each number has its reason beside it, where its name does not give it.

use crate::model::Span;
use std::time::Duration;

// ── agents ──
/// How long a step waits for an agent's answer before it comes back later.
pub const AGENT_ASK_WAIT: Duration = Duration::from_secs(2);
/// How long a reading action waits for an agent in all; below the deadlines of these actions.
pub const AGENT_READ_WAIT: Duration = Duration::from_secs(30);
/// A long poll of an agent; shorter than the idle time of proxies.
pub const AGENT_POLL: Duration = Duration::from_secs(20);
/// An agent that has sent nothing for two polls and a little counts as disconnected.
pub const AGENT_HERE: Duration = Duration::from_secs(45);
/// A command without an answer for so long is handed over again: it may have been lost on its way.
pub const AGENT_RESEND: Duration = Duration::from_secs(3);
/// A command without a waiting step for so long is dropped.
pub const AGENT_LETTER_KEPT: Duration = Duration::from_secs(3_600);
/// A command that no step has polled for so long is not waited for just now: longer than a step's own pauses.
pub const AGENT_ASKED_ABOUT: Duration = Duration::from_secs(30);
/// Commands that wait at one agent: a node has one disruptive run, and a few that read.
pub const AGENT_COMMANDS: usize = 256;

/// A connected agent repeats each open condition every `JOIN_REMIND_EVERY`; one that it has left out three times is no
/// longer open for it.
pub const AGENT_FORGOTTEN: Span = Span::minutes(100);
/// How often the engine looks for silent agents.
pub const AGENTS_LOOK_EVERY: Duration = Duration::from_secs(5);
/// Nodes of silent agents that Kubernetes is asked for at once, and how long all of them take together: those without an
/// answer by then count as nodes that exist.
pub const AGENT_NODES_AT_ONCE: usize = 32;
/// Longest time for the nodes of all agents that have fallen silent.
pub const AGENT_NODES_WITHIN: Duration = Duration::from_secs(5);
/// How often it writes down that an agent is there.
pub const AGENT_WRITTEN_EVERY: Duration = Duration::from_secs(60);
/// Starts of one agent whose marks are kept; of older ones nothing can come any more.
pub const AGENT_SPOOLS: usize = 16;
/// Agents' connections; each has one, or two while it changes its certificate.
pub const AGENT_CONNECTIONS: usize = 32_768;
/// Requests that one agent has under way: a poll, a delivery, a few answers.
pub const AGENT_STREAMS: u32 = 32;
/// Bytes of one delivery of findings, or of one command's outcome with its context.
pub const AGENT_BODY_BYTES: usize = 1024 * 1024;
/// Bytes that an agent reads of one response: a poll's commands, each with small arguments.
pub const AGENT_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// A successful TokenReview of Kubernetes is cached for this time.
pub const REVIEW_KEPT: Duration = Duration::from_secs(60);
/// An agent's certificate, renewed after a third of it. Taking it away works at once, whatever this is.
pub const AGENT_CERTIFICATE: Duration = Duration::from_secs(7 * 86_400);
/// The door's own certificate, made anew at each start.
pub const DOOR_CERTIFICATE: Duration = Duration::from_secs(2 * 365 * 86_400);
/// Validity of the authority that signs the certificates of agents and of their listener.
pub const AUTHORITY_CERTIFICATE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// An older certificate of an agent is accepted for so long after a newer one was first shown: requests on their way
/// bear it.
pub const AGENT_CERTIFICATES_OVERLAP: Duration = Duration::from_secs(120);
/// Minimum time between two log lines about two senders that share one identity.
pub const AGENT_OLDER_SAID: Duration = Duration::from_secs(600);
/// Between two renewals of one certificate, so that no holder of it can fill the ledger.
pub const AGENT_RENEWED_EVERY: Duration = Duration::from_secs(60);
/// A request to join: a token, two names and a request for a certificate.
pub const AGENT_JOIN_BYTES: usize = 16 * 1024;
/// Requests to join that are looked at together; the others wait for their turn so long.
pub const AGENT_JOINS_AT_ONCE: usize = 16;
/// A request to join that finds no free place within this time is refused.
pub const AGENT_JOIN_WAIT: Duration = Duration::from_secs(5);
/// Before a refused token is answered: its place among those at once stays taken meanwhile.
pub const AGENT_JOIN_PAUSE: Duration = Duration::from_secs(1);
/// Connections to the agents' listener that have not shown yet who they are, and how long one may take to.
pub const AGENT_STRANGERS: usize = 256;
/// A connection that has not authenticated within this time is closed.
pub const AGENT_STRANGER_LIFE: Duration = Duration::from_secs(30);
/// Join tokens that are neither used nor expired: some more than nodes that join by hand in a day.
pub const JOIN_TOKENS: usize = 1_000;
/// Validity of a join token unless the request names one.
pub const JOIN_TOKEN_LIFE: Span = Span::minutes(15);
/// Longest validity that a request for a join token may name.
pub const JOIN_TOKEN_LIFE_MAX: Span = Span::seconds(86_400);
/// Findings between watchers and the spool; a watcher waits when it is full.
pub const FINDINGS_QUEUE: usize = 1_024;
/// Findings that share one fsync.
pub const FINDINGS_AT_ONCE: usize = 256;
/// Findings in one delivery, and their bytes: well below `AGENT_BODY_BYTES`.
pub const REPORTS_PER_BODY: usize = 500;
/// Bytes of findings in one delivery.
pub const REPORTS_BYTES: usize = 512 * 1024;
/// A file of the spool.
pub const SPOOL_SEGMENT_BYTES: u64 = 256 * 1024;
/// Findings in memory, where the disk cannot be written or was just written.
pub const SPOOL_MEMORY: usize = 2_048;
/// Bytes of findings in memory, beside their number (`SPOOL_MEMORY`).
pub const SPOOL_MEMORY_BYTES: usize = 1024 * 1024;
/// How often a disk that could not be written is tried again.
pub const SPOOL_RETRY: Duration = Duration::from_secs(2);
/// Commands that an agent remembers.
pub const BOOK_COMMANDS: usize = 256;
/// Bytes of the outcomes that an agent remembers.
pub const BOOK_BYTES: usize = 2 * 1024 * 1024;
/// Size in bytes at which the journal of commands is written anew.
pub const BOOK_FILE_BYTES: u64 = 8 * 1024 * 1024;
/// How often an agent reports the progress of a command.
pub const AGENT_PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// Tries to deliver one answer; the engine sends the command again anyway.
pub const AGENT_ANSWER_TRIES: u32 = 5;
/// Between tries while the engine is away; short, so that nothing waits long once it is back.
pub const AGENT_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Between tries while the engine refuses us: a user has to do something.
pub const AGENT_REFUSED_WAIT: Duration = Duration::from_secs(30);
/// Threads of an agent that may block: the spool's disk, and looks into `/proc`.
pub const AGENT_THREADS: usize = 8;
/// Time for an agent's tasks to end after the signal.
pub const AGENT_SHUTDOWN: Duration = Duration::from_secs(5);

/// The agent's own limit: one GPU reset on a node within this time.
pub const RESET_EVERY: Duration = Duration::from_secs(600);
/// The agent's own limit: one reboot of a node within this time.
pub const REBOOT_EVERY: Duration = Duration::from_secs(3_600);
/// The program that requests a reboot returns at once.
pub const REBOOT_WITHIN: Duration = Duration::from_secs(60);
/// NVIDIA's bug report takes minutes on a large machine.
pub const BUG_REPORT_WITHIN: Duration = Duration::from_secs(900);
/// Bytes of the newest kernel lines in a bundle.
pub const BUNDLE_KERNEL_BYTES: usize = 1024 * 1024;
/// Bytes of one file in a bundle.
pub const BUNDLE_FILE_BYTES: u64 = 256 * 1024 * 1024;
/// Bundles that stay on a node; the oldest is removed.
pub const BUNDLES: usize = 5;
/// A reset takes seconds; one that takes longer hangs.
pub const RESET_WITHIN: Duration = Duration::from_secs(300);
/// Bytes of a program's output that are kept: its end, where its error is.
pub const PROGRAM_OUTPUT_BYTES: u64 = 4 * 1024;
/// How often an agent looks whether a program that its predecessor started has ended.
pub const PROGRAM_LOOK_EVERY: Duration = Duration::from_millis(200);
