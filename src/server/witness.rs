//! Facts of the endpoints that belong into the ledger: refused acts, and every use of break-glass access.
//!
//! Invariant: no request passes by break-glass access before it is in the ledger; and a request refused a thousand
//! times is an entry with a number, not a thousand entries.

use super::{App, Caller, Problem, Way, api};
use crate::limits;
use crate::model::{About, Actor, EntryKind, IncidentId, RunId, TokenId};
use crate::notifiers::one_line;
use crate::planted::planted;
use crate::store::StoreError;
use axum::extract::{FromRequestParts as _, MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts refusals and uses of break-glass access, and writes them to the ledger.
#[derive(Default)]
pub struct Witness {
    window: Mutex<Window>,
    /// One request at a time writes a new use of a break-glass token, and the next waits until it is written.
    glass: tokio::sync::Mutex<()>,
}

/// The counts since the window opened.
#[derive(Default)]
struct Window {
    open: bool,
    /// Kinds with an entry, and how often each came again.
    seen: HashMap<Kind, u64>,
    /// Refusals that have no entry of their own, by caller; under `SEVERAL` those of callers beyond the bound.
    others: HashMap<String, u64>,
}

/// Callers beyond those that are counted by themselves.
const SEVERAL: &str = "several";

/// A caller and a request, as they are counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    who: String,
    /// Method and route, without the names in it: so few that each has its place.
    what: String,
    glass: Option<(TokenId, IncidentId)>,
}

impl Window {
    /// Whether this has its entry already; then it is counted.
    fn again(&mut self, kind: &Kind) -> bool {
        self.seen.get_mut(kind).map(|times| *times += 1).is_some()
    }

    /// Whether a refusal gets an entry now. Uses of a glass take no place from refusals, nor the other way round.
    fn first_refusal(&mut self, kind: &Kind) -> bool {
        if self.again(kind) {
            return false;
        }
        let refusals = || self.seen.keys().filter(|kind| kind.glass.is_none());
        let theirs = refusals().filter(|seen| seen.who == kind.who).count();
        // Each caller has room of their own, so that one cannot hide another's refusals.
        let place = match theirs {
            0 => {
                let callers: HashSet<&str> = refusals().map(|seen| seen.who.as_str()).collect();
                (callers.len() >= limits::WITNESS_CALLERS).then_some(SEVERAL)
            }
            limits::WITNESS_KINDS.. => Some(kind.who.as_str()),
            _ => None,
        };
        if let Some(place) = place {
            *self.others.entry(place.to_owned()).or_default() += 1;
            return false;
        }
        self.seen.insert(kind.clone(), 0);
        true
    }
}

impl Witness {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ensures that counts from now on are written.
    fn open(&self, app: &App) {
        if std::mem::replace(&mut self.window().open, true) {
            return;
        }
        let app = app.clone();
        tokio::spawn(async move {
            loop {
                app.parts.clock.sleep_for(limits::WITNESS_WINDOW).await;
                app.witness.close(&app).await;
                let mut window = app.witness.window();
                if window.seen.is_empty() && window.others.is_empty() {
                    window.open = false;
                    return;
                }
            }
        });
    }

    /// The window ends: repeats are written with their number, and a count that cannot be written now is written with
    /// the next one.
    pub(super) async fn close(&self, app: &App) {
        let (seen, others) = {
            let mut window = self.window();
            (std::mem::take(&mut window.seen), std::mem::take(&mut window.others))
        };
        let mut again: Vec<(Kind, u64)> = seen.into_iter().filter(|(_, times)| *times > 0).collect();
        again.sort_by(|one, other| (&one.0.who, &one.0.what).cmp(&(&other.0.who, &other.0.what)));
        for (kind, times) in again {
            if let Err(error) = write(app, &kind, &kind.what, About::default(), "", times).await {
                tracing::error!(%error, who = kind.who, what = kind.what, times, "cannot record a read in the ledger");
                *self.window().seen.entry(kind).or_default() += times;
            }
        }
        let mut others: Vec<(String, u64)> = others.into_iter().collect();
        others.sort();
        for (who, times) in others {
            let kind = Kind { who, what: "other requests".to_owned(), glass: None };
            if let Err(error) = write(app, &kind, &kind.what, About::default(), "", times).await {
                tracing::error!(%error, who = kind.who, times, "cannot record denied requests in the ledger");
                *self.window().others.entry(kind.who).or_default() += times;
            }
        }
    }

    /// Records a refused act.
    ///
    /// `what` is the kind under which it is counted, `path` its object, `why` the answer.
    pub async fn refused(&self, app: &App, who: &str, what: &str, path: &str, why: &str) {
        app.parts.metrics.forbidden();
        let kind = Kind { who: one_line(who, limits::WITNESS_CHARS), what: what.to_owned(), glass: None };
        let about = about(app, path).await;
        self.open(app);
        // Its place is taken before it is written, so that a thousand at once are one entry.
        if !self.window().first_refusal(&kind) {
            return;
        }
        tracing::warn!(
            who = kind.who,
            what,
            why = one_line(why, limits::STORY_LINE_CHARS),
            "request denied; repeats are counted"
        );
        if let Err(error) = write(app, &kind, what, about, why, 1).await {
            tracing::error!(%error, %who, %what, "cannot record a denied request in the ledger");
            let mut window = self.window();
            let times = 1 + window.seen.remove(&kind).unwrap_or_default();
            *window.others.entry(kind.who).or_default() += times;
        }
    }

    /// Records a use of break-glass access before it happens. Each act has an entry of its own; reads have one, with
    /// the names in it, and then a number.
    async fn used(&self, app: &App, kind: Kind, shown: &str, acts: bool) -> Result<(), StoreError> {
        if acts {
            return write(app, &kind, shown, About::default(), "", 1).await;
        }
        if self.window().again(&kind) {
            return Ok(());
        }
        let _one_at_a_time = self.glass.lock().await;
        if self.window().again(&kind) {
            return Ok(());
        }
        write(app, &kind, shown, About::default(), "", 1).await?;
        self.window().seen.insert(kind, 0);
        self.open(app);
        Ok(())
    }
}

async fn write(app: &App, kind: &Kind, what: &str, about: About, why: &str, times: u64) -> Result<(), StoreError> {
    let (who, what) = (kind.who.clone(), what.to_owned());
    let (about, entry) = match kind.glass {
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

/// The incident or run that a path names, so that its timeline includes it.
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

/// What a caller with a broken glass is about to do is written down first, or it is refused.
async fn before(app: &App, caller: &Caller, route: &str, shown: &str, acts: bool) -> Result<(), Problem> {
    let Way::BreakGlass(token, incident) = caller.way else { return Ok(()) };
    let kind = Kind { who: caller.name.clone(), what: route.to_owned(), glass: Some((token, incident)) };
    app.witness.used(app, kind, shown, acts).await.map_err(|error| {
        tracing::error!(%error, "cannot record the use of break-glass access, so the request is denied");
        Problem::busy("the use of break-glass access must be recorded in the ledger first, and that failed")
    })
}

fn is_act(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// The same audit around a call of the API from inside the process: method, route as in the table, and path.
pub(super) async fn within<T>(
    app: &App,
    caller: &Caller,
    (method, matched, path): (&str, &str, &str),
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let acts = method.parse::<Method>().is_ok_and(|method| is_act(&method));
    let (route, shown) = (format!("{method} {matched}"), one_line(&format!("{method} {path}"), limits::WITNESS_CHARS));
    before(app, caller, &route, &shown, acts).await?;
    let answer = work.await;
    if let Err(problem) = &answer
        && problem.status == StatusCode::FORBIDDEN
        && (acts || api::is_audit(method, matched))
        && !planted("refused-on-pages-unrecorded")
    {
        let why = format!("{shown}, by {}: {}", caller.way, problem.error);
        app.witness.refused(app, &caller.name, &route, path, &why).await;
    }
    answer
}

/// Around every route that a token opens.
pub(super) async fn watch(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let caller = match Caller::from_request_parts(&mut parts, &app).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let acts = is_act(&parts.method);
    let matched = parts.extensions.get::<MatchedPath>().map_or_else(String::new, |path| path.as_str().to_owned());
    let parts_method = parts.method.clone();
    let (route, path) = (format!("{} {matched}", parts.method), parts.uri.path().to_owned());
    let shown = one_line(&format!("{} {path}", parts.method), limits::WITNESS_CHARS);
    if let Err(problem) = before(&app, &caller, &route, &shown, acts).await {
        return problem.into_response();
    }
    parts.extensions.insert(caller.clone());
    let response = next.run(Request::from_parts(parts, body)).await;
    // Who tries to read the ledger's proofs or the list of tokens is on record, as who tries to act is.
    let guarded = acts || api::is_audit(parts_method.as_str(), &matched);
    if guarded && response.status() == StatusCode::FORBIDDEN {
        let why = response.extensions().get::<Problem>().map_or_else(String::new, |problem| problem.error.clone());
        let why = format!("{shown}, by {}: {why}", caller.way);
        app.witness.refused(&app, &caller.name, &route, &path, &why).await;
    }
    response
}
