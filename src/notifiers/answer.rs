//! The meaning of an HTTP answer for a delivery: sent, retry, or fix the configuration.
//!
//! Invariant: only an answer that cannot change by itself is a refusal; every doubt is a retry.

use super::text;
use crate::model::DeliveryResult;
use crate::world::{HttpAnswer, WorldError};
use std::time::Duration;

/// An answer with a 2xx. `name` is the vendor's name in messages.
///
/// # Errors
///
/// Fails with the delivery's result when no answer came, or one outside 2xx.
pub fn accepted(name: &str, sent: Result<HttpAnswer, WorldError>) -> Result<HttpAnswer, DeliveryResult> {
    let answer = sent.map_err(|error| no_answer(name, &error))?;
    match answer.status {
        200..=299 => Ok(answer),
        _ => Err(unaccepted(name, &answer)),
    }
}

/// The delivery's result for an answer outside 2xx.
pub fn unaccepted(name: &str, answer: &HttpAnswer) -> DeliveryResult {
    let after = answer.retry_after.map(Duration::from_secs);
    let said = quote(&answer.body);
    match answer.status {
        429 => DeliveryResult::Retry { after, why: format!("{name} limits our rate (429){said}") },
        408 | 425 | 500..=599 => {
            DeliveryResult::Retry { after, why: format!("{name} answered {}{said}", answer.status) }
        }
        300..=399 => DeliveryResult::Refused {
            why: format!(
                "{name} answered {}, a redirect; redirects are not followed: write the final address into the configuration",
                answer.status
            ),
        },
        401 | 403 => DeliveryResult::Refused {
            why: format!("{name} rejected our credentials ({}){said}: check the secret of this channel", answer.status),
        },
        404 | 410 => DeliveryResult::Refused {
            why: format!("{name} has no such address ({}){said}: check the URL of this channel", answer.status),
        },
        status => DeliveryResult::Refused { why: format!("{name} refused the message ({status}){said}") },
    }
}

/// No answer, or no request at all.
pub fn no_answer(name: &str, error: &WorldError) -> DeliveryResult {
    let why = format!("{name}: {}", text::plain(&error.to_string(), 300));
    match error {
        WorldError::TooMany { after, .. } => DeliveryResult::Retry { after: *after, why },
        WorldError::Invalid(_) | WorldError::Forbidden(_) => DeliveryResult::Refused { why },
        // Everything else may pass by itself.
        _ => DeliveryResult::Retry { after: None, why },
    }
}

/// The delivery with a secret (such as a webhook's URL) removed from its words.
pub fn without(secret: &str, delivery: DeliveryResult) -> DeliveryResult {
    let scrub = |why: String| if secret.is_empty() { why } else { why.replace(secret, "(secret)") };
    match delivery {
        DeliveryResult::Retry { after, why } => DeliveryResult::Retry { after, why: scrub(why) },
        DeliveryResult::Refused { why } => DeliveryResult::Refused { why: scrub(why) },
        other @ (DeliveryResult::Delivered(_) | DeliveryResult::Nothing(_)) => other,
    }
}

/// The start of a body, for users, or nothing.
pub fn quote(body: &str) -> String {
    match text::plain(body.trim(), 200) {
        said if said.is_empty() => String::new(),
        said => format!(": {said}"),
    }
}
