//! Inference engines: their bounds.
//!
//! Invariant: each number has its reason beside it, where its name does not give it.

use crate::model::Span;
use std::time::Duration;

// ── inference engines ──
/// A metrics page: vLLM's are some hundred KiB, Triton's grow with its models.
pub const ENGINE_PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Models, or engine cores, on one page.
pub const ENGINE_LANES: usize = 256;
/// Buckets of the histogram of first tokens; vLLM has 23.
pub const ENGINE_BUCKETS: usize = 128;
/// Fewer first tokens than this are no base for a share of them.
pub const ENGINE_FIRST_TOKENS: f64 = 10.0;
/// Engines that one installation looks at.
pub const PROBES: usize = 4_096;
/// Looks under way at engines that answer promptly; those that do not have as many of their own, so that engines that hang
/// never delay the others.
pub const PROBES_AT_ONCE: usize = 64;
/// An engine that takes longer than this to answer counts as slow and is probed among the slow ones.
pub const PROBE_PROMPT: Duration = Duration::from_secs(1);
/// One answer of an engine, unless the configuration sets another one, and at most.
pub const PROBE_WITHIN: Span = Span::seconds(5);
/// Longest deadline for one answer that the configuration may set.
pub const PROBE_WITHIN_MAX: Span = Span::seconds(60);
/// A request of one token, unless the configuration sets another one, and at most: HTTP is given no longer than this,
/// and a step has a minute for all.
pub const PROBE_ASK_WITHIN: Span = Span::seconds(10);
/// Longest deadline for a request of one token that the configuration may set.
pub const PROBE_ASK_WITHIN_MAX: Span = Span::seconds(10);
/// Between two looks at one engine, unless the configuration sets another one, and at least.
pub const PROBE_EVERY: Span = Span::seconds(15);
/// Shortest time between two probes of one engine that the configuration may set.
pub const PROBE_EVERY_MIN: Span = Span::seconds(1);
/// How often pods with the label of an engine are listed.
pub const PROBE_LIST_EVERY: Duration = Duration::from_secs(30);
/// Characters of an engine's answer that a reason quotes.
pub const PROBE_WORDS: usize = 160;
/// Between the two looks of `inference::health` and `inference::restart`: several steps of any engine that works.
pub const ENGINE_WINDOW: Span = Span::seconds(15);
/// And of a prediction, which must not keep users waiting.
pub const ENGINE_FORESIGHT: Duration = Duration::from_secs(2);
/// Engines of one workload that one step looks at.
pub const ENGINES_PER_STEP: usize = 64;
/// Between two probes of an engine whose traffic was taken away: a proxy's late requests arrive within seconds.
pub const ENGINE_DRAIN_EVERY: Duration = Duration::from_secs(5);
/// Probes in a row without a request before the engine counts as drained.
pub const ENGINE_DRAIN_LOOKS: u64 = 2;
/// Queries beside the engine's own pages that one step sends.
pub const ENGINE_QUERIES: usize = 8;
