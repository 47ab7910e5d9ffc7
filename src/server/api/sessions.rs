//! The sessions on the pages, and how an admin ends one.
//!
//! Invariant: no name of a session leaves the process; the end of a session is in the ledger.

use super::{Allowed, App, Body, Problem, refuse};
use crate::api::{SessionList, SessionRequest, SessionsEndedAnswer, SubjectsUnlinkedAnswer};
use crate::model::{About, Actor, EntryKind};
use crate::store::Control;
use axum::Json;
use axum::extract::State;

/// A user, the mail of a sign-in, or `oidc:SUBJECT`.
pub(super) async fn list(_: Allowed, State(app): State<App>) -> Json<SessionList> {
    Json(SessionList { sessions: app.web.signed_in(app.parts.clock.now()) })
}

pub(super) async fn end(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Body(body): Body<SessionRequest>,
) -> Result<Json<SessionsEndedAnswer>, Problem> {
    caller.need_everywhere("a session")?;
    let (who, why) = (refuse::reason(&body.name)?, refuse::reason(&body.why)?);
    let now = app.parts.clock.now();
    let sessions = app.web.end_sessions(&who, now);
    if sessions == 0 {
        return Err(refuse::missing(format!("session of `{}`", who.escape_debug()), "see `nightshift sessions`"));
    }
    let entry = EntryKind::SessionsEnded { who: who.clone(), sessions, by: caller.name.clone(), why };
    app.parts.store.note(Actor::person(&caller.name), About::default(), entry, now).await.map_err(refuse::store)?;
    Ok(Json(SessionsEndedAnswer { ended: sessions, of: who }))
}

pub(super) async fn unlink(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Body(body): Body<SessionRequest>,
) -> Result<Json<SubjectsUnlinkedAnswer>, Problem> {
    caller.need_everywhere("user identities")?;
    let (person, why) = (refuse::reason(&body.name)?, refuse::reason(&body.why)?);
    let now = app.parts.clock.now();
    let control = Control::UnlinkSubjects { person: person.clone(), by: caller.name, why };
    app.parts.store.control(control, now).await.map_err(refuse::store)?;
    Ok(Json(SubjectsUnlinkedAnswer { unlinked: person }))
}
