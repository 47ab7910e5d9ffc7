//! Acts on an incident besides acknowledging it: assigning an owner, silencing its alerts at their source.
//!
//! Invariant: an owner is a user of the configuration, and a silence ends by itself.

use super::{Allowed, App, Body, Problem, read, refuse};
use crate::api::{AssignRequest, IncidentAnswer, ResolveRequest, SilenceAnswer, SilenceMade, SilenceRequest};
use crate::config::closest;
use crate::limits;
use crate::model::{Incident, IncidentId, Span};
use crate::planted::planted;
use crate::server::{Caller, Roster};
use crate::store::{Control, Filter};
use axum::Json;
use axum::extract::{Path, State};

/// The incident, where the caller may act on it: by its subject, and by that of each alert that fires, because a rule's `group_by`
/// may leave the cluster out.
///
/// # Errors
/// 403 where one of them lies in a cluster in which the caller may not act, 404 without such an incident.
pub(super) async fn for_caller(app: &App, caller: &Caller, id: IncidentId) -> Result<Incident, Problem> {
    let incident = read::find_incident(app, id).await?;
    caller.need_subject(app, &incident.subject)?;
    if caller.need_everywhere("the incident").is_ok() || planted("incident-of-two-clusters") {
        return Ok(incident);
    }
    let limit = limits::READ_LIMIT;
    let filter = Filter { incident: Some(id), open: true, limit, ..Filter::default() };
    let firing = app.parts.store.episodes(filter).await.map_err(refuse::store)?;
    if firing.len() >= limit {
        caller.need_everywhere(&format!("an incident of {limit} alerts or more"))?;
    }
    firing.iter().try_for_each(|episode| caller.need_subject(app, &episode.event.subject))?;
    Ok(incident)
}

pub(super) async fn assign(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Path(id): Path<String>,
    Body(body): Body<AssignRequest>,
) -> Result<Json<IncidentAnswer>, Problem> {
    let id: IncidentId = refuse::id(&id)?;
    for_caller(&app, &caller, id).await?;
    let owner = person(&app.roster.now(), &body.to, &caller.name)?;
    let parts = &app.parts;
    let assign = Control::Assign { incident: id, owner, by: caller.name };
    let done = parts.store.control(assign, parts.clock.now()).await;
    parts.nudge.nudge();
    done.map_err(refuse::store)?;
    Ok(Json(IncidentAnswer { incident: read::find_incident(&app, id).await? }))
}

/// A user who is known here.
fn person(roster: &Roster, to: &str, caller: &str) -> Result<String, Problem> {
    let to = to.trim();
    if to.eq_ignore_ascii_case("me") {
        return Ok(caller.to_owned());
    }
    if let Some(mention) = to.strip_prefix("<@").and_then(|rest| rest.strip_suffix('>')) {
        let user = mention.split('|').next().unwrap_or_default();
        return roster.by_slack(user).map(|person| person.name.clone()).ok_or_else(|| {
            let user = user.escape_debug();
            refuse::missing(format!("person with the Slack id `{user}`"), "an operator adds them under `people`")
        });
    }
    let name = to.trim_start_matches('@');
    let known = roster.names();
    if let Some(found) = known.iter().find(|known| known.eq_ignore_ascii_case(name)) {
        return Ok(found.clone());
    }
    let hint = match closest(name, known.iter().map(|known| known.as_str())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "write `me`, or a name of `people` in the configuration".to_owned(),
    };
    Err(refuse::missing(format!("person called `{}`", name.escape_debug()), hint))
}

/// Ends the open episodes of an incident: a source that will never report the end must not keep it open.
pub(super) async fn resolve(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Path(id): Path<String>,
    Body(body): Body<ResolveRequest>,
) -> Result<Json<IncidentAnswer>, Problem> {
    let id: IncidentId = refuse::id(&id)?;
    for_caller(&app, &caller, id).await?;
    let why = refuse::reason(&body.why)?;
    let parts = &app.parts;
    let over = Control::Resolve { incident: id, source: body.source, by: caller.name, why };
    let done = parts.store.control(over, parts.clock.now()).await;
    parts.nudge.nudge();
    done.map_err(refuse::store)?;
    Ok(Json(IncidentAnswer { incident: read::find_incident(&app, id).await? }))
}

pub(super) async fn silence(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Path(id): Path<String>,
    Body(body): Body<SilenceRequest>,
) -> Result<Json<SilenceAnswer>, Problem> {
    let id: IncidentId = refuse::id(&id)?;
    for_caller(&app, &caller, id).await?;
    let why = refuse::reason(&body.why)?;
    let lasts: Span = body.lasts.parse().map_err(|error| {
        refuse::bad(format!("`lasts` is no length of time: {error}"), "write for example `30m` or `2h`")
    })?;
    let done = crate::engine::silence(&app.parts, id, lasts, &caller.name, &why).await.map_err(refuse::store)?;
    if done.made.is_empty() {
        return Err(refuse::conflict(
            format!("no alert was silenced: {}", done.left.join("; ")),
            "silence it in Alertmanager, or set `sources.NAME.api` so that it can be done from here",
        ));
    }
    let silences = done.made.into_iter().map(|(source, silence)| SilenceMade { source, silence }).collect();
    Ok(Json(SilenceAnswer { incident: id, until: done.until, silences, left: done.left }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Person, Role};
    use crate::server::Tokens;

    #[test]
    fn an_owner_is_somebody_whom_the_configuration_knows() {
        let ada = Person { slack: Some("U0ADA".into()), ..Person::new("ada", Role::Operator) };
        let roster = Roster::new(vec![ada], Tokens::default());
        let named = |to: &str| person(&roster, to, "kim").map_err(|problem| format!("{problem:?}"));
        for to in ["ada", "@Ada", "<@U0ADA>", "<@U0ADA|ada.l>"] {
            assert_eq!(named(to).as_deref(), Ok("ada"), "{to}");
        }
        assert_eq!(named("me").as_deref(), Ok("kim"));
        for to in ["", "adda", "<@U0BOB>", "<!channel>"] {
            assert!(named(to).is_err(), "{to}");
        }
    }
}
