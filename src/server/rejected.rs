//! Requests to `/in/…` that were turned away for their token or their address: the commonest mistakes of a set-up,
//! logged with peer and source.
//!
//! Invariant: one line a minute for each status and source, with the count of the requests that it stands for; a
//! stranger's text is bounded and escaped, and grows nothing.

use super::{App, Problem};
use crate::limits::{REJECTED_EVERY, REJECTED_KINDS, REJECTED_SOURCE_CHARS};
use crate::model::Time;
use crate::notifiers::one_line;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

/// The other end of the connection that a request came by.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerAddress(pub SocketAddr);

/// Refused requests by status and source, with the time of their last line in the log.
#[derive(Default)]
pub struct RejectedRequests(Mutex<HashMap<(u16, String), RejectionCount>>);

struct RejectionCount {
    said_at: Time,
    /// Since then.
    silent: u64,
}

impl RejectedRequests {
    /// How many requests a line stands for that is to be written now; none: it is only counted.
    fn count(&self, status: u16, source: &str, now: Time) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |seen: &RejectionCount| seen.said_at <= now && now < seen.said_at + REJECTED_EVERY;
        let key = (status, source.to_owned());
        if !all.contains_key(&key) && all.len() >= REJECTED_KINDS {
            all.retain(|_, seen| fresh(seen));
        }
        // Beyond the bound all others share one place.
        let key = if all.contains_key(&key) || all.len() < REJECTED_KINDS { key } else { (status, String::new()) };
        match all.get_mut(&key) {
            Some(seen) if fresh(seen) => {
                seen.silent += 1;
                None
            }
            Some(seen) => {
                let stands_for = seen.silent + 1;
                *seen = RejectionCount { said_at: now, silent: 0 };
                Some(stands_for)
            }
            None => {
                all.insert(key, RejectionCount { said_at: now, silent: 0 });
                Some(1)
            }
        }
    }
}

pub(super) async fn watch(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(path) = request.uri().path().strip_prefix("/in/") else { return elsewhere(app, request, next).await };
    // `<kind>/<source>`, whatever follows.
    let named: Vec<&str> = path.splitn(3, '/').take(2).collect();
    let source = one_line(&named.join("/"), REJECTED_SOURCE_CHARS);
    let peer = request.extensions().get::<PeerAddress>().map(|peer| peer.0);
    let response = next.run(request).await;
    let status = response.status();
    if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND) {
        return response;
    }
    if let Some(requests) = app.rejected.count(status.as_u16(), &source, app.parts.clock.now()) {
        let peer = peer.map(tracing::field::display);
        let (status, source) = (status.as_u16(), source.as_str());
        match status {
            401 => tracing::warn!(
                status,
                peer,
                source,
                requests,
                "events rejected: no valid token; they are lost unless they are sent again; check the token in the sender's configuration"
            ),
            _ => tracing::warn!(
                status,
                peer,
                source,
                requests,
                "events rejected: no such source; they are lost unless they are sent again; check the URL of the sender and `sources:` in nightshift.yaml"
            ),
        }
    }
    response
}

/// Refused requests of all other routes: an invalid token, a signature that does not fit, a certificate that is no
/// longer known.
async fn elsewhere(app: App, request: Request, next: Next) -> Response {
    // The first two segments name the endpoint, and bound how many lines there are.
    let endpoint: Vec<&str> = request.uri().path().split('/').skip(1).take(2).collect();
    let endpoint = one_line(&format!("/{}", endpoint.join("/")), REJECTED_SOURCE_CHARS);
    let peer = request.extensions().get::<PeerAddress>().map(|peer| peer.0);
    let response = next.run(request).await;
    if response.status() != StatusCode::UNAUTHORIZED {
        return response;
    }
    if let Some(requests) = app.rejected.count(401, &endpoint, app.parts.clock.now()) {
        let peer = peer.map(tracing::field::display);
        let why = response.extensions().get::<Problem>().map_or("", |problem| problem.error.as_str());
        let why = one_line(why, REJECTED_SOURCE_CHARS);
        tracing::warn!(
            endpoint,
            peer,
            requests,
            why,
            "requests rejected: no valid token, signature or certificate; repeats within a minute are counted"
        );
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_wrong_token_is_one_line_a_minute_with_its_count_and_strangers_grow_nothing() {
        let rejected = RejectedRequests::default();
        let start: Time = "2026-11-23T03:00:00Z".parse().unwrap();
        assert_eq!(rejected.count(401, "alertmanager/prod", start), Some(1));
        for second in 1..60 {
            assert_eq!(rejected.count(401, "alertmanager/prod", start + Duration::from_secs(second)), None);
        }
        assert_eq!(rejected.count(404, "alertmanager/prod", start), Some(1), "another reason is another line");
        assert_eq!(rejected.count(401, "alertmanager/prod", start + Duration::from_secs(60)), Some(60));
        let lines = (0..100_000).filter(|no| rejected.count(404, &format!("x/{no}"), start).is_some()).count();
        assert!(lines <= REJECTED_KINDS, "{lines}");
        assert!(rejected.0.lock().unwrap().len() <= REJECTED_KINDS + 2);
        assert!(rejected.count(401, "alertmanager/dev", start + Duration::from_secs(3_600)).is_some());
    }
}
