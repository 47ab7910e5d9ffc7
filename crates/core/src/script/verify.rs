//! `verify(|| condition, #{hold, within, every})`: look, wait, look again, until it held or time is up.
//!
//! Invariant: it reads the time only by journaled calls of `now`, so a replay decides as the first run did.

use super::arguments::{ArgumentMismatch, normal, wants};
use super::failure;
use super::host::ScriptHost;
use super::near::nearest;
use super::session;
use super::value::{kind_of, to_json};
use crate::limits;
use crate::model::{ActionCall, ParamType, Reason, ReasonCode, Span, Time};
use rhai::{Dynamic, EvalAltResult, FnPtr, Map, NativeCallContext};
use serde_json::Value;
use std::time::Duration;

type VerifyEvalError = Box<EvalAltResult>;

/// Its options, for checks and docs: name and meaning.
pub(super) const OPTIONS: [(&str, &str); 3] = [
    ("hold", "how long the condition must stay true; default: seeing it true once is enough"),
    ("within", "when to give up; default: 15m and `hold`"),
    ("every", "polling interval; default: a tenth of `hold`, at least 15s"),
];

struct VerifyTiming {
    hold: Duration,
    within: Duration,
    every: Duration,
}

/// True once the condition held; otherwise throws `#{kind: "unverified", …}`.
pub(super) fn verify(
    host: &ScriptHost,
    context: &NativeCallContext,
    condition: &FnPtr,
    options: Option<&Map>,
) -> Result<Dynamic, VerifyEvalError> {
    let at = context.call_position();
    let terms = VerifyTiming::read(options).map_err(|why| failure::throw("verify", failure::INVALID, &why, at))?;
    let (mut started, mut held_since) = (None, None);
    loop {
        let (holds, seen) = look(context, condition)?;
        // A plan never waits: the condition's reads are shown, and then the plan goes on.
        if session::planning() || (holds && terms.hold.is_zero()) {
            return Ok(Dynamic::TRUE);
        }
        let now = now(host, context)?;
        let elapsed = since(*started.get_or_insert(now), now);
        let held = match holds {
            true => since(*held_since.get_or_insert(now), now),
            false => Duration::ZERO,
        };
        if holds && held >= terms.hold {
            return Ok(Dynamic::TRUE);
        }
        if !holds {
            held_since = None;
        }
        if elapsed >= terms.within {
            return Err(failure::throw("verify", "unverified", &terms.sentence(holds, held, &seen), at));
        }
        let mut nap = terms.every.min(terms.within - elapsed);
        if holds {
            nap = nap.min(terms.hold - held);
        }
        sleep(host, context, nap)?;
    }
}

/// Evaluates the condition. A read that failed is not a condition that holds; a mistake in the script is thrown on.
fn look(context: &NativeCallContext, condition: &FnPtr) -> Result<(bool, String), VerifyEvalError> {
    match condition.call_within_context::<Dynamic>(context, ()) {
        _ if session::ended() => Err(session::stop(String::new(), context.call_position())),
        Ok(value) => match value.as_bool() {
            Ok(holds) => Ok((holds, format!("it was {holds}"))),
            Err(_) => {
                let why = format!("the condition must be true or false, not {}", kind_of(&value));
                Err(failure::throw("verify", failure::INVALID, &why, context.call_position()))
            }
        },
        Err(error) if failure::is_answer(&error) => Ok((false, failure::message(error.unwrap_inner()))),
        Err(error) => Err(error),
    }
}

fn now(host: &ScriptHost, context: &NativeCallContext) -> Result<Time, VerifyEvalError> {
    let at = context.call_position();
    let value = session::ask(known(host, "now", context)?, ActionCall::new("now", []), at)?;
    let moment = match to_json(&value) {
        Ok(Value::String(text)) => text.parse::<Time>().ok(),
        Ok(Value::Number(seconds)) => seconds.as_f64().and_then(|s| Time::from_microsecond((s * 1e6) as i64).ok()),
        _ => None,
    };
    moment.ok_or_else(|| {
        let text = format!("`now` returned {value}, which is not a time; verify cannot measure how long it waited");
        session::break_off(Reason::new(ReasonCode::ScriptBroken, text), at)
    })
}

fn sleep(host: &ScriptHost, context: &NativeCallContext, nap: Duration) -> Result<(), VerifyEvalError> {
    // Whole seconds, upwards: a journal that users can read, and never a nap of nothing.
    let seconds = nap.as_secs() + u64::from(nap.subsec_nanos() > 0);
    let text = Span::seconds(seconds.max(1)).to_string();
    let call = ActionCall::new("sleep", [("duration", Value::String(text))]);
    session::ask(known(host, "sleep", context)?, call, context.call_position()).map(drop)
}

fn known(host: &ScriptHost, name: &str, context: &NativeCallContext) -> Result<usize, VerifyEvalError> {
    host.find(name).ok_or_else(|| {
        let text = format!("verify needs the action `{name}`, which this host does not have");
        session::break_off(Reason::new(ReasonCode::ScriptBroken, text), context.call_position())
    })
}

fn since(start: Time, now: Time) -> Duration {
    // A clock that went back has let no time pass.
    Duration::try_from(now.duration_since(start)).unwrap_or_default()
}

impl VerifyTiming {
    fn read(options: Option<&Map>) -> Result<VerifyTiming, String> {
        let mut given = [None; 3];
        for (key, value) in options.into_iter().flatten() {
            let Some(at) = OPTIONS.iter().position(|(name, _)| *name == key.as_str()) else {
                return Err(unknown_option(key));
            };
            given[at] = Some(duration(key, value)?);
        }
        let hold = given[0].unwrap_or_default();
        Ok(VerifyTiming {
            hold,
            within: given[1].unwrap_or(limits::VERIFY_WITHIN.0 + hold),
            every: given[2].unwrap_or((hold / 10).max(limits::VERIFY_EVERY.0)),
        })
    }

    fn sentence(&self, holds: bool, held: Duration, seen: &str) -> String {
        let within = Span(self.within);
        match (self.hold.is_zero(), holds) {
            (true, _) => format!("the condition did not come true within {within}: {seen}"),
            (false, false) => format!("the condition did not hold for {} within {within}: {seen}", Span(self.hold)),
            (false, true) => {
                format!("the condition did not hold for {} within {within}: so far for {}", Span(self.hold), Span(held))
            }
        }
    }
}

pub(super) fn unknown_option(key: &str) -> String {
    match nearest(key, OPTIONS.map(|(name, _)| name)) {
        Some(near) => format!("there is no option `{key}`; did you mean `{near}`?"),
        None => format!("there is no option `{key}`; it takes hold, within, every"),
    }
}

fn duration(key: &str, value: &Dynamic) -> Result<Duration, String> {
    let json = to_json(value).map_err(|why| format!("`{key}`: {why}"))?;
    match normal(ParamType::Duration, json) {
        Ok(text) => text.as_str().and_then(|text| text.parse::<Span>().ok()).map(|span| span.0).ok_or_else(String::new),
        Err(ArgumentMismatch::Type) => {
            Err(format!("`{key}` must be {}, not {}", wants(ParamType::Duration), kind_of(value)))
        }
        Err(ArgumentMismatch::Value(why)) => Err(format!("`{key}`: {why}")),
    }
}
