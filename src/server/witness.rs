//! What happens at the door and belongs into the ledger: acts that were refused, and whatever a broken glass is used for.
//!
//! Invariant: nobody is let through by a broken glass before the ledger says so; and whoever knocks a thousand times is
//! an entry with a number, not a thousand entries.

use super::{App, Caller, Problem, Way};
use crate::limits;
use crate::model::{About, Actor, EntryKind, IncidentId, RunId, TokenId};
use crate::notifiers::one_line;
use crate::store::StoreError;
use axum::extract::{FromRequestParts as _, MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub struct Witness(Mutex<Window>);

/// What was seen since the window opened.
#[derive(Default)]
struct Window {
    open: bool,
    seen: HashMap<Kind, u64>,
    /// Of kinds that have no entry of their own any more.
    others: u64,
}

/// Who wants what, as it is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    who: String,
    what: String,
    glass: Option<(TokenId, IncidentId)>,
}

impl Witness {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this kind gets an entry now, and whether the window has just opened.
    fn see(&self, kind: &Kind) -> (bool, bool) {
        let mut window = self.window();
        let opened = !std::mem::replace(&mut window.open, true);
        let full = window.seen.len() >= limits::WITNESS_KINDS;
        let first = match window.seen.get_mut(kind) {
            Some(again) => {
                *again += 1;
                false
            }
            None if full => {
                window.others += 1;
                false
            }
            None => window.seen.insert(kind.clone(), 0).is_none(),
        };
        (first, opened)
    }

    /// Writes down the first of its kind, and leaves the others to the end of the window.
    async fn tell(&self, app: &App, kind: Kind, about: About, why: &str) -> Result<(), StoreError> {
        let (first, opened) = self.see(&kind);
        if opened {
            let app = app.clone();
            tokio::spawn(async move {
                app.parts.clock.sleep_until(app.parts.clock.now() + limits::WITNESS_WINDOW).await;
                app.witness.close(&app).await;
            });
        }
        if first { write(app, &kind, about, why, 1).await } else { Ok(()) }
    }

    /// The window ends: what came again is told with its number.
    async fn close(&self, app: &App) {
        let Window { seen, others, .. } = std::mem::take(&mut *self.window());
        let mut again: Vec<(Kind, u64)> = seen.into_iter().filter(|(_, times)| *times > 0).collect();
        again.sort_by(|one, other| (&one.0.who, &one.0.what).cmp(&(&other.0.who, &other.0.what)));
        if others > 0 {
            let kind = Kind { who: "several".to_owned(), what: "other requests".to_owned(), glass: None };
            again.push((kind, others));
        }
        for (kind, times) in again {
            if let Err(error) = write(app, &kind, About::default(), "", times).await {
                tracing::error!(%error, who = kind.who, what = kind.what, times, "refusals could not be written down");
            }
        }
    }

    /// An act that somebody was refused.
    ///
    /// `what` is how it is counted, `path` what it was about, `why` what they were told.
    pub async fn refused(&self, app: &App, who: &str, what: &str, path: &str, why: &str) {
        app.parts.metrics.forbidden();
        let kind = Kind { who: one_line(who, limits::WITNESS_CHARS), what: what.to_owned(), glass: None };
        let about = about(app, path).await;
        if let Err(error) = self.tell(app, kind, about, why).await {
            tracing::error!(%error, %who, %what, "a refusal could not be written down");
        }
    }
}

async fn write(app: &App, kind: &Kind, about: About, why: &str, times: u64) -> Result<(), StoreError> {
    let Kind { who, what, glass } = kind.clone();
    let (about, entry) = match glass {
        Some((token, incident)) => {
            let about = About { incident: Some(incident), run: None };
            (about, EntryKind::BreakGlassUsed { token, by: who.clone(), what, times })
        }
        None => {
            let why = one_line(why, limits::STORY_LINE_CHARS);
            (about, EntryKind::Refused { who: who.clone(), what, why, times })
        }
    };
    app.parts.store.note(Actor::person(&who), about, entry, app.parts.clock.now()).await.map(drop)
}

/// The incident or run that a path names, so that its story tells of it.
async fn about(app: &App, path: &str) -> About {
    let mut parts = path.split('/').skip_while(|part| *part != "v1").skip(1);
    let (list, id) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default().to_ascii_lowercase());
    let store = &app.parts.store;
    match list {
        "incidents" => About { incident: id.parse().ok(), run: None },
        "runs" => About { incident: None, run: id.parse::<RunId>().ok() },
        "approvals" => {
            let Ok(id) = id.parse::<crate::model::ApprovalId>() else { return About::default() };
            let filter = crate::store::Filter { after: Some(id.0 - 1), limit: 1, ..Default::default() };
            let found = store.approvals(filter).await.unwrap_or_default();
            About { incident: None, run: found.first().filter(|found| found.id == id).map(|found| found.run) }
        }
        _ => About::default(),
    }
}

/// Around every route that somebody's token opens.
pub(super) async fn watch(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let caller = match Caller::from_request_parts(&mut parts, &app).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let acts = !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
    let route = parts.extensions.get::<MatchedPath>().map_or_else(String::new, |path| path.as_str().to_owned());
    let (route, path) = (format!("{} {route}", parts.method), parts.uri.path().to_owned());
    let shown = one_line(&format!("{} {path}", parts.method), limits::WITNESS_CHARS);
    if let Way::BreakGlass(token, incident) = caller.way {
        let kind = Kind { who: caller.name.clone(), what: shown.clone(), glass: Some((token, incident)) };
        if let Err(error) = app.witness.tell(&app, kind, About::default(), "").await {
            tracing::error!(%error, "the use of a broken glass could not be written down, so it is refused");
            return Problem::busy("what a broken glass is used for must be in the ledger first, and it is not")
                .into_response();
        }
    }
    parts.extensions.insert(caller.clone());
    let response = next.run(Request::from_parts(parts, body)).await;
    if acts && response.status() == StatusCode::FORBIDDEN {
        let why = response.extensions().get::<Problem>().map_or_else(String::new, |problem| problem.error.clone());
        let why = format!("{shown}, by {}: {why}", caller.way);
        app.witness.refused(&app, &caller.name, &route, &path, &why).await;
    }
    response
}
