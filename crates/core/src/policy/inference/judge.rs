//! From looks to conditions: begun when enough looks agree, over when enough agree again.
//!
//! Invariant: pure, and each answer lists all present conditions of the engine; the caller compares with the previous
//! answer.

use super::checks::{CHECKS, EngineCheck, EngineCheckInput, EngineCheckResult, OnsetThreshold, came};
use super::{EngineLimits, EngineLook, EngineReading, FirstTokens};
use crate::model::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// The state kept for one engine.
#[derive(Debug, Default)]
pub struct EngineJudge {
    before: Option<(Time, EngineReading)>,
    /// First tokens as they were when they were judged last.
    counted: Option<FirstTokens>,
    first_seen: Option<Time>,
    was_ready: bool,
    runs: BTreeMap<&'static str, CheckHistory>,
}

/// The results of the last looks for one check.
#[derive(Debug, Default)]
struct CheckHistory {
    unhealthy: u32,
    healthy: u32,
    since: Option<Time>,
    last_ill: Option<Time>,
    words: String,
    is_open: bool,
}

/// One thing that is wrong with an engine now.
#[derive(Clone)]
pub struct EngineTrouble {
    pub check: &'static EngineCheck,
    pub words: String,
    pub since: Time,
}

impl EngineJudge {
    /// One look; returns everything that is wrong after it.
    pub fn look(&mut self, look: &EngineLook, limits: &EngineLimits) -> Vec<EngineTrouble> {
        let first_seen = *self.first_seen.get_or_insert(look.at);
        self.was_ready |= look.unready.is_none();
        let compared = look.reading().zip(self.before.as_ref());
        let is_anew = compared.is_some_and(|(now, (_, before))| now.is_anew(before));
        if is_anew {
            (self.before, self.counted) = (None, None);
        }
        let now = look.reading().and_then(|reading| reading.first_tokens.as_ref());
        let first_tokens = now.zip(self.counted.as_ref()).and_then(|(now, before)| came(now, before));
        let is_starting = !self.was_ready && look.at < first_seen + limits.starting.0;
        let before = self.before.as_ref().map(|(at, reading)| (*at, reading));
        let reading = before.map(|(_, reading)| reading);
        let view = EngineCheckInput { look, before: reading, is_anew, first_tokens: first_tokens.as_ref(), limits };
        for check in CHECKS.iter().filter(|check| !(is_starting && check.waits_for_start)) {
            let run = self.runs.entry(check.key).or_default();
            // A condition that compares two looks has lasted since the first of them.
            let since = if check.key == "no-progress" { before.map_or(look.at, |(at, _)| at) } else { look.at };
            run.take(check, (check.judge)(&view), look.at, since, limits);
        }
        if let Some(reading) = look.reading() {
            if self.counted.is_none() || first_tokens.is_some() {
                self.counted.clone_from(&reading.first_tokens);
            }
            self.before = Some((look.at, reading.clone()));
        }
        self.open()
    }

    fn open(&self) -> Vec<EngineTrouble> {
        let open = CHECKS.iter().filter_map(|check| Some((check, self.runs.get(check.key).filter(|run| run.is_open)?)));
        open.map(|(check, run)| EngineTrouble {
            check,
            words: run.words.clone(),
            since: run.since.unwrap_or(Time::UNIX_EPOCH),
        })
        .collect()
    }
}

impl CheckHistory {
    fn take(&mut self, check: &EngineCheck, verdict: EngineCheckResult, now: Time, since: Time, limits: &EngineLimits) {
        match verdict {
            EngineCheckResult::Same => {}
            EngineCheckResult::Over => *self = CheckHistory::default(),
            EngineCheckResult::Healthy => {
                (self.unhealthy, self.healthy) = (0, self.healthy.saturating_add(1));
                if !self.is_open {
                    self.since = None;
                } else if self.healthy >= check.ends {
                    *self = CheckHistory::default();
                }
            }
            EngineCheckResult::Unhealthy(words) => {
                let hold = match check.begins {
                    OnsetThreshold::After(span) => span(limits).0,
                    OnsetThreshold::Looks(_) => Duration::MAX,
                };
                // A sighting of long ago, with none in between, is no part of this.
                let is_stale = self.last_ill.is_some_and(|last| lasted(last, now) > hold.max(Duration::from_secs(60)));
                if is_stale && !self.is_open {
                    *self = CheckHistory::default();
                }
                (self.unhealthy, self.healthy) = (self.unhealthy.saturating_add(1), 0);
                self.last_ill = Some(now);
                let since = *self.since.get_or_insert(since);
                self.words = words;
                self.is_open |= match check.begins {
                    OnsetThreshold::Looks(looks) => self.unhealthy >= looks(limits),
                    OnsetThreshold::After(_) => lasted(since, now) >= hold,
                };
            }
        }
    }
}

fn lasted(from: Time, to: Time) -> Duration {
    Duration::from_micros(u64::try_from(to.as_microsecond().saturating_sub(from.as_microsecond())).unwrap_or(0))
}
