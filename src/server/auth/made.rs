//! Tokens that were made here: their text, and their owner.
//!
//! Invariant: a text that does not look like one never reaches the store, and the store is read in every request.

use super::{App, AuthMethod, Caller, Problem};
use crate::limits;
use crate::model::{ApiToken, Time, TokenId};
use crate::planted::planted;
use crate::store::StoreError;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// By which a leaked one is recognised, in a log or by a scanner of repositories.
const PREFIX: &str = "nst_";
/// 256 bits in URL-safe letters.
const LETTERS: usize = 43;

/// A new one: its text, to be shown once, and the hash to store.
pub(in crate::server) fn draw() -> Result<(String, String), Problem> {
    let mut secret = [0_u8; 32];
    SystemRandom::new().fill(&mut secret).map_err(|_| Problem::busy("the system has no randomness"))?;
    let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
    let hash = hash_of(&text);
    Ok((text, hash))
}

fn hash_of(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

pub(in crate::server) fn looks_like_one(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.strip_prefix(PREFIX).is_some_and(|rest| rest.len() == LETTERS && rest.chars().all(letter))
}

/// When the use of each token was last written down.
#[derive(Default)]
pub struct TokenUses(Mutex<HashMap<TokenId, Time>>);

impl TokenUses {
    /// Whether it is time to write it down again.
    fn is_news(&self, token: &ApiToken, now: Time) -> bool {
        let fresh = |at: Time| at <= now && now < at + limits::TOKEN_USED_EVERY;
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if token.used_at.is_some_and(fresh) || written.get(&token.id).is_some_and(|at| fresh(*at)) {
            return false;
        }
        if written.len() >= limits::TOKENS_USED {
            written.clear();
        }
        written.insert(token.id, now);
        true
    }
}

/// Who comes with this text; none where it is no token of the store.
pub(super) async fn caller(app: &App, text: &str) -> Result<Option<Caller>, Problem> {
    if !looks_like_one(text) {
        return Ok(None);
    }
    by_hash(app, &hash_of(text)).await
}

/// The same by the hash of a text, for a session.
pub(in crate::server) async fn by_hash(app: &App, hash: &str) -> Result<Option<Caller>, Problem> {
    let store = &app.parts.store;
    // The hash of 256 random bits reveals nothing to a timing attack on its look-up.
    let found = store.token(hash).await.map_err(|error| match error {
        StoreError::Busy(why) => Problem::busy(format!("the store is busy: {why}")),
        other => {
            tracing::error!(error = %other, "cannot look up a token");
            Problem::busy("the token could not be read")
        }
    })?;
    let Some(token) = found else { return Ok(None) };
    let now = app.parts.clock.now();
    if !token.opens(now) && !planted("revoked-token-opens") {
        app.parts.metrics.auth_failed();
        let error = match token.revoked_at {
            Some(at) => format!("token {} (`{}`) was revoked at {at}", token.id, token.name),
            None => format!("token {} (`{}`) expired at {}", token.id, token.name, token.expires_at),
        };
        // It is still in use: a lost laptop, a leaked secret, a job with its old configuration.
        let what = format!("a request with token {}, which is dead", token.id);
        app.witness.refused(app, &token.name, &what, "", &error).await;
        let hint = "ask an admin for another one (`nightshift tokens make`), or sign in again";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, error, hint));
    }
    if app.used.is_news(&token, now) {
        let (store, id) = (store.clone(), token.id);
        tokio::spawn(async move {
            if let Err(error) = store.token_used(id, now).await {
                tracing::warn!(%error, token = %id, "cannot record the use of a token");
            }
        });
    }
    who(app, token).map(Some)
}

fn who(app: &App, token: ApiToken) -> Result<Caller, Problem> {
    let glass = token.break_glass.map(|glass| glass.incident);
    let way = match glass {
        Some(incident) => AuthMethod::BreakGlass(token.id, incident),
        None => AuthMethod::Made(token.id),
    };
    let caller = match glass {
        // It has no owner, whatever the users' names are.
        Some(_) => Caller::with(&token.name, token.grant, way),
        None => {
            let roster = app.roster.now();
            if let Some(person) = token.person.as_ref().filter(|person| roster.by_name(person).is_none()) {
                app.parts.metrics.auth_failed();
                let error = format!("token {} belongs to {person}, who is no longer in `people`", token.id);
                let hint = "ask an admin for a token of your own (`nightshift tokens make`)";
                return Err(Problem::new(StatusCode::UNAUTHORIZED, error, hint));
            }
            let name = token.person.as_ref().unwrap_or(&token.name);
            roster.caller_by(name, token.grant, token.sources, way)
        }
    };
    Ok(Caller { until: Some(token.expires_at), behind: token.root, ..caller })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_recognised_and_anything_else_costs_no_question() {
        let (text, hash) = draw().unwrap();
        assert!(text.starts_with("nst_") && text.len() == 47 && looks_like_one(&text), "{text}");
        assert_eq!(hash.len(), 64);
        assert_ne!(draw().unwrap().0, text);
        let long = "a".repeat(44);
        for wrong in [
            "",
            "nst_",
            "nst_abc",
            &text[1..],
            &format!("nst_{long}"),
            &text.replace("nst_", "nsj_"),
            &format!("{text}="),
        ] {
            assert!(!looks_like_one(wrong), "{wrong}");
        }
    }
}
