//! Evidence for and against a restart of an engine, from two looks at it.
//!
//! Invariant: only facts that both looks show are a signal, and one group is one signal, however many of its members
//! agree.

use super::checks::{CHECKS, EngineCheckInput, EngineCheckResult, SignalGroup, came};
use super::{EngineLimits, EngineLook};
use crate::limits;

/// One signal, for a restart or against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSignal {
    pub group: SignalGroup,
    /// Whether it is evidence for a restart.
    pub agrees: bool,
    pub words: String,
}

/// All signals of two looks, a line for each group; `first` before `second`.
pub fn engine_signals(first: &EngineLook, second: &EngineLook, limits: &EngineLimits) -> Vec<EngineSignal> {
    let is_anew = second.reading().zip(first.reading()).is_some_and(|(now, before)| now.is_anew(before));
    let before = first.reading().filter(|_| !is_anew);
    let tokens = |look: &EngineLook| look.reading().and_then(|reading| reading.first_tokens.clone());
    let first_tokens = tokens(second).zip(tokens(first)).and_then(|(now, before)| came(&now, &before));
    let now = EngineCheckInput { look: second, before, is_anew, first_tokens: first_tokens.as_ref(), limits };
    let then = EngineCheckInput { look: first, before: None, is_anew: false, first_tokens: None, limits };
    let judged = CHECKS.iter().filter_map(|check| Some((check, check.group?)));
    judged
        .map(|(check, group)| {
            let verdict = (check.judge)(&now);
            let both = matches!(group, SignalGroup::Progress | SignalGroup::Latency)
                || matches!((check.judge)(&then), EngineCheckResult::Unhealthy(_));
            match verdict {
                EngineCheckResult::Unhealthy(words) if both => EngineSignal { group, agrees: true, words },
                other => EngineSignal { group, agrees: false, words: against(group, &other, second) },
            }
        })
        .collect()
}

fn against(group: SignalGroup, verdict: &EngineCheckResult, look: &EngineLook) -> String {
    let unknown = matches!(verdict, EngineCheckResult::Same);
    match group {
        SignalGroup::Progress => match look.page.as_ref() {
            Err((_, why)) => format!("its page cannot be read: {why}"),
            Ok(_) if matches!(verdict, EngineCheckResult::Healthy) => "no request waits".to_owned(),
            Ok(_) if unknown => "it is not yet known whether it makes progress".to_owned(),
            Ok(_) => "it makes progress, or has restarted".to_owned(),
        },
        SignalGroup::Readiness => {
            if look.unready.is_some() { "it was ready a moment ago" } else { "it reports ready" }.to_owned()
        }
        SignalGroup::Latency if unknown => {
            format!("fewer than {} requests got a first token in that time", limits::ENGINE_FIRST_TOKENS)
        }
        SignalGroup::Latency => "first tokens come in time".to_owned(),
        SignalGroup::Cache if unknown => "its metrics page has no KV cache value".to_owned(),
        SignalGroup::Cache => "its KV cache is not full".to_owned(),
        // These are no checks of looks.
        SignalGroup::Request | SignalGroup::Prometheus => String::new(),
    }
}
