//! Readings of an inference engine's own pages, and the conditions they show: readings in, findings out.
//!
//! Invariant: pure; a value that a page lacks changes nothing, and a page that cannot be read is a finding of its own.

mod checks;
mod judge;
mod page;
mod signals;

pub use checks::{EngineCheck, SignalGroup, inference_page};
pub use judge::{EngineJudge, EngineTrouble};
pub use page::parse_engine_page;
pub use signals::{EngineSignal, engine_signals};

use crate::model::{Span, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which program serves the model.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum EngineKind {
    Vllm,
    Tgi,
    Triton,
}

impl EngineKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: &'static [EngineKind] = <EngineKind as strum::VariantArray>::VARIANTS;

    /// The kind's name in labels and in the configuration.
    pub const fn word(self) -> &'static str {
        self.into_str()
    }

    /// The kind of this name; none where no kind has it. The inverse of [`EngineKind::word`].
    pub fn named(word: &str) -> Option<EngineKind> {
        word.parse().ok()
    }

    /// The path of its readiness.
    pub const fn ready_path(self) -> &'static str {
        match self {
            EngineKind::Vllm | EngineKind::Tgi => "/health",
            EngineKind::Triton => "/v2/health/ready",
        }
    }

    /// The default ports: of its API, and of its metrics.
    pub const fn ports(self) -> (u16, u16) {
        match self {
            EngineKind::Vllm => (8_000, 8_000),
            EngineKind::Tgi => (80, 80),
            EngineKind::Triton => (8_000, 8_002),
        }
    }
}

/// Which readings are alerts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EngineLimits {
    /// Polls in a row in which it is not ready, or cannot be read.
    pub looks: u32,
    /// A new engine loads its weights; for so long it may be not ready, if it never was.
    pub starting: Span,
    /// Requests wait, and no engine step was made, for so long.
    pub frozen_for: Span,
    /// More requests wait than this, for so long.
    pub queue: f64,
    /// How long more than `queue` requests must wait.
    pub queue_for: Span,
    /// The share of the KV cache in use is above this, for so long.
    pub cache: f64,
    /// How long it must be above `cache`.
    pub cache_for: Span,
    /// This share of requests gets its first token later than this, for so long.
    pub first_token: Span,
    /// The percentile: 0.95 is the 95th.
    pub first_token_quantile: f64,
    /// How long it must be later than `first_token`.
    pub first_token_for: Span,
}

impl Default for EngineLimits {
    fn default() -> Self {
        EngineLimits {
            looks: 3,
            starting: Span::minutes(15),
            frozen_for: Span::minutes(2),
            queue: 50.0,
            queue_for: Span::minutes(2),
            cache: 0.95,
            cache_for: Span::minutes(5),
            first_token: Span::seconds(10),
            first_token_quantile: 0.95,
            first_token_for: Span::minutes(5),
        }
    }
}

impl EngineLimits {
    /// After so long a look at everything has had the time to begin each condition.
    pub fn longest(&self) -> Span {
        [self.frozen_for, self.queue_for, self.cache_for, self.first_token_for].into_iter().max().unwrap_or_default()
    }
}

/// One queue of an engine: an engine core of vLLM, a model of Triton.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineQueue {
    pub running: f64,
    pub waiting: f64,
    /// The sum of counters that only grow while it works: steps and tokens. None where the page has no such counter.
    pub steps: Option<f64>,
}

impl EngineQueue {
    /// Whether requests run or wait.
    pub fn has_work(&self) -> bool {
        self.running + self.waiting > 0.0
    }
}

/// How long first tokens took: requests by the upper bound of their bucket, in seconds, and all of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FirstTokens {
    pub buckets: Vec<(f64, f64)>,
    pub total: f64,
}

/// The values of a metrics page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineReading {
    pub lanes: BTreeMap<String, EngineQueue>,
    /// The share of the KV cache in use, of the fullest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cache: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_tokens: Option<FirstTokens>,
    /// When the process began, in seconds since 1970, where the page has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub began: Option<f64>,
}

impl EngineReading {
    /// Requests that run, over all models or engine cores.
    pub fn running(&self) -> f64 {
        self.lanes.values().map(|lane| lane.running).sum()
    }

    /// Requests that wait, over all models or engine cores.
    pub fn waiting(&self) -> f64 {
        self.lanes.values().map(|lane| lane.waiting).sum()
    }

    /// Whether it has begun anew since that reading: a counter fell, or the process is another one.
    pub fn is_anew(&self, before: &EngineReading) -> bool {
        let fell = |(name, lane): (&String, &EngineQueue)| {
            let was = before.lanes.get(name).and_then(|was| was.steps);
            was.zip(lane.steps).is_some_and(|(was, is)| is < was)
        };
        let another = before.began.zip(self.began).is_some_and(|(was, is)| is > was + 1.0);
        another || self.lanes.iter().any(fell)
    }
}

/// Why there is no reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum EngineReadError {
    /// The connection is refused.
    Unreached,
    /// No answer in time, or one that broke off.
    Silent,
    TooLarge,
    /// Another status than 200.
    Status,
    /// No metrics page, or of another program.
    Garbage,
}

impl EngineReadError {
    /// The reason's name in findings.
    pub const fn word(self) -> &'static str {
        self.into_str()
    }
}

/// One look at an engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineLook {
    pub at: Time,
    /// Why it is not ready; none: it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unready: Option<String>,
    pub page: Result<EngineReading, (EngineReadError, String)>,
}

impl EngineLook {
    /// The reading; none where the page could not be read.
    pub fn reading(&self) -> Option<&EngineReading> {
        self.page.as_ref().ok()
    }
}

#[cfg(test)]
mod tests;
