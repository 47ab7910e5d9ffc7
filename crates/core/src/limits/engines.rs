//! Inference engines: their bounds.
//!
//! Invariant: each number says why it is this one, where its name does not.

use crate::model::Span;
use std::time::Duration;

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
/// A request of one token, unless the configuration says otherwise, and at most: HTTP is given no longer than this, and a
/// step has a minute for all.
pub const PROBE_ASK_WITHIN: Span = Span::seconds(10);
pub const PROBE_ASK_WITHIN_MAX: Span = Span::seconds(10);
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
