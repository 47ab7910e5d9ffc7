//! Sessions: a random name in a cookie, here only as its hash, with its user and its beginning.
//!
//! Invariant: a session identifies a user, and never has their rights; the name of one is new at each sign-in.

use super::oidc::Identity;
use crate::api::SessionSummary;
use crate::limits;
use crate::model::{Time, identity};
use crate::server::auth::digest;
use crate::server::secret;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The identity of a user, as proven at the sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    /// By a token with this hash.
    Token([u8; 32]),
    /// By the claims of an identity provider.
    Person(Identity),
}

impl Who {
    /// Whether both are one token, or one account of the provider.
    fn same(&self, other: &Who) -> bool {
        match (self, other) {
            (Who::Person(one), Who::Person(other)) => one.same(other),
            (one, other) => one == other,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Session {
    pub who: Who,
    /// Their name at the sign-in, and the auth method.
    pub name: String,
    pub way: String,
    /// Stands in every form of this session.
    pub csrf: String,
    began: Time,
    seen: Time,
}

/// A session as an admin sees it.
fn summary(session: &Session) -> SessionSummary {
    let Session { name, way, began, seen, .. } = session.clone();
    SessionSummary { name, by: way, since: began, used: seen }
}

impl Session {
    fn is_of(&self, who: &str) -> bool {
        let known = match &self.who {
            Who::Person(identity) => {
                identity.subject == who
                    || identity.verified_mail.as_deref().is_some_and(|mail| mail.eq_ignore_ascii_case(who))
            }
            Who::Token(_) => false,
        };
        known || identity(&self.name) == identity(who)
    }

    fn lives(&self, now: Time) -> bool {
        now < self.began + limits::WEB_SESSION && now < self.seen + limits::WEB_IDLE
    }
}

/// By the hash of the name in the cookie.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<[u8; 32], Session>>);

impl Sessions {
    /// A new session; the returned text is for the cookie, and is kept nowhere else.
    pub fn begin(&self, who: Who, name: &str, way: &str, now: Time) -> String {
        let cookie = secret::text::<32>();
        let mut all = self.lock();
        all.retain(|_, session| session.lives(now));
        if all.values().filter(|session| session.who.same(&who)).count() >= limits::WEB_SESSIONS_EACH {
            drop_oldest(&mut all, |session| session.who.same(&who));
        }
        if all.len() >= limits::WEB_SESSIONS {
            drop_oldest(&mut all, |_| true);
        }
        all.insert(digest(&cookie), {
            let (name, way) = (name.to_owned(), way.to_owned());
            Session { who, name, way, csrf: secret::text::<32>(), began: now, seen: now }
        });
        cookie
    }

    /// The session of that name, if it lives. A user's own request keeps it alive, a script's look does not.
    pub fn find(&self, name: &str, now: Time, by_hand: bool) -> Option<Session> {
        let hash = digest(name);
        let mut all = self.lock();
        let session = all.get_mut(&hash)?;
        if !session.lives(now) {
            all.remove(&hash);
            return None;
        }
        if by_hand {
            session.seen = now;
        }
        Some(session.clone())
    }

    /// The session that ended, if it was there.
    pub fn end(&self, name: &str) -> Option<Session> {
        self.lock().remove(&digest(name))
    }

    /// Who is signed in, longest first: name, auth method, since when and last used when.
    pub fn list(&self, now: Time) -> Vec<SessionSummary> {
        let mut all = self.lock();
        all.retain(|_, session| session.lives(now));
        let mut list: Vec<SessionSummary> = all.values().map(summary).collect();
        list.sort_by(|one, other| (one.since, &one.name).cmp(&(other.since, &other.name)));
        list
    }

    /// Ends every session of this name, subject or mail; how many there were.
    pub fn end_of(&self, who: &str, now: Time) -> u64 {
        let mut all = self.lock();
        all.retain(|_, session| session.lives(now));
        let before = all.len();
        all.retain(|_, session| !session.is_of(who));
        (before - all.len()) as u64
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drop_oldest(all: &mut HashMap<[u8; 32], Session>, of: impl Fn(&Session) -> bool) {
    let oldest = all.iter().filter(|(_, session)| of(session)).min_by_key(|(_, session)| session.seen);
    if let Some(hash) = oldest.map(|(hash, _)| *hash) {
        all.remove(&hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: &str = "2026-11-23T03:00:00Z";

    fn at(minutes: u64) -> Time {
        NOW.parse::<Time>().unwrap() + Duration::from_secs(minutes * 60)
    }

    #[test]
    fn a_session_ends_by_time_by_idleness_and_by_hand() {
        let sessions = Sessions::default();
        let name = sessions.begin(Who::Token([1; 32]), "ann", "token ann", at(0));
        for hour in 1..12 {
            assert!(sessions.find(&name, at(hour * 60), true).is_some(), "{hour}");
        }
        assert!(sessions.find(&name, at(12 * 60), true).is_none(), "twelve hours, however busy");
        let name = sessions.begin(Who::Token([1; 32]), "ann", "token ann", at(0));
        assert!(sessions.find(&name, at(119), false).is_some());
        assert!(sessions.find(&name, at(120), false).is_none(), "a script that looks is nobody");
        let name = sessions.begin(Who::Token([1; 32]), "ann", "token ann", at(0));
        sessions.end(&name);
        assert!(sessions.find(&name, at(0), true).is_none());
        assert!(sessions.find("", at(0), true).is_none());
    }

    #[test]
    fn sessions_are_bounded_and_one_person_cannot_push_out_the_others() {
        let sessions = Sessions::default();
        let ann = sessions.begin(Who::Token([1; 32]), "ann", "token ann", at(0));
        let first = sessions.begin(Who::Token([2; 32]), "ann", "token ann", at(0));
        for _ in 0..limits::WEB_SESSIONS_EACH {
            sessions.begin(Who::Token([2; 32]), "ann", "token ann", at(1));
        }
        assert!(sessions.find(&ann, at(2), true).is_some());
        assert!(sessions.find(&first, at(2), true).is_none());
        for other in 0..=limits::WEB_SESSIONS as u64 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&other.to_le_bytes());
            sessions.begin(Who::Token(hash), "ann", "token ann", at(3));
        }
        assert_eq!(sessions.lock().len(), limits::WEB_SESSIONS);
        assert!(sessions.find(&ann, at(3), true).is_none());
    }
}
