//! Tokens as users make, list and revoke them, and the broken glass.
//!
//! Invariant: the text of a token is in the answer to who made it and nowhere else, and gives nothing that they have not.

use super::{Allowed, App, Body, Created, Problem, refuse};
use crate::api::{
    BreakGlassMade, BreakGlassRequest, ReasonRequest, TokenList, TokenMade, TokenRequest, TokenState, TokenStatus,
    TokensRevoked,
};
use crate::limits;
use crate::model::{ApiToken, Grant, Right, Role, Span, TokenId};
use crate::server::auth::{LOCAL, made};
use crate::server::{Caller, Way};
use crate::store::NewToken;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;

/// The caller's own claim; only the machine's token is certain.
pub(super) async fn list(_: Allowed, State(app): State<App>) -> Result<Json<TokenList>, Problem> {
    let now = app.parts.clock.now();
    let roster = app.roster.now();
    let tokens = app.parts.store.tokens(now).await.map_err(refuse::store)?;
    let status = |token: ApiToken| {
        let person = roster.of_token(&token.name).map(|person| person.name.clone());
        let state = match (token.revoked_at, token.opens(now)) {
            (Some(_), _) => TokenState::Revoked,
            (None, true) => TokenState::Good,
            (None, false) => TokenState::Expired,
        };
        TokenStatus { token: ApiToken { person: None, ..token }, state, person }
    };
    Ok(Json(TokenList { tokens: tokens.into_iter().map(status).collect() }))
}

pub(super) async fn make(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Body(wanted): Body<TokenRequest>,
) -> Result<Created<TokenMade>, Problem> {
    let now = app.parts.clock.now();
    if let Way::BreakGlass(id, _) = &caller.way {
        return Err(refuse::with(
            StatusCode::FORBIDDEN,
            format!("{id} is break-glass access, and a token created with it would outlive it"),
            "make the token with this machine's own one, or with an admin's",
        ));
    }
    let lasts = life(&wanted.expires, limits::TOKEN_LIFE_MAX)?;
    let person = check_name(&app, &caller, &wanted)?;
    check_places(&app, &wanted)?;
    let grant = Grant { role: wanted.role, clusters: wanted.clusters };
    if !caller.covers(&grant) {
        return Err(refuse::with(
            StatusCode::FORBIDDEN,
            format!("`{}` cannot grant rights they do not have: role {}{}", caller.name, grant.role, places(&grant)),
            "give it a role and clusters that you have yourself",
        ));
    }
    if let Some(until) = caller.until.filter(|until| now + lasts.0 > *until) {
        return Err(refuse::with(
            StatusCode::FORBIDDEN,
            format!("your token expires at {until}, and tokens it creates cannot outlive it"),
            "make it with a token that lasts longer",
        ));
    }
    let (text, hash) = made::draw()?;
    let new = NewToken {
        name: wanted.name,
        grant,
        sources: wanted.sources,
        hash,
        root: person.is_none().then(|| caller.root().to_owned()),
        person: person.clone(),
        made_with: match caller.way {
            Way::Made(id) => Some(id),
            _ => None,
        },
        by: caller.name,
        expires_at: now + lasts.0,
    };
    let token = app.parts.store.token_make(new, now).await.map_err(refuse::store)?;
    Ok(Created(TokenMade { token: text, made: token, person }))
}

pub(super) async fn revoke(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Path(id): Path<String>,
    Body(body): Body<ReasonRequest>,
) -> Result<Json<TokensRevoked>, Problem> {
    let id: TokenId = refuse::id(&id)?;
    let why = refuse::bounded(&body.why)?;
    let Some(token) = app.parts.store.token_by_id(id).await.map_err(refuse::store)? else {
        return Err(refuse::missing(format!("token {id}"), "see `nightshift tokens`"));
    };
    if !is_theirs(&app, &caller, &token) {
        caller.need(Right::Administer)?;
        if !caller.covers(&token.grant) {
            caller.need_everywhere(&format!("token {id}"))?;
        }
    }
    let done = app.parts.store.token_revoke(id, &caller.name, &why, app.parts.clock.now()).await;
    app.parts.nudge.nudge();
    let mut gone = done.map_err(refuse::store)?.into_iter();
    Ok(Json(TokensRevoked { revoked: gone.next(), made_by_it: gone.collect() }))
}

/// The very token, or one that bears their name.
fn is_theirs(app: &App, caller: &Caller, token: &ApiToken) -> bool {
    match caller.way {
        Way::Made(id) | Way::BreakGlass(id, _) if id == token.id => true,
        _ => token.break_glass.is_none() && app.roster.now().same(&token.name, &caller.name),
    }
}

pub(super) async fn break_glass(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Body(glass): Body<BreakGlassRequest>,
) -> Result<Created<BreakGlassMade>, Problem> {
    if caller.way != Way::Local {
        return Err(refuse::with(
            StatusCode::FORBIDDEN,
            "break-glass access is activated on the engine's own machine, with its own token",
            "run `nightshift break-glass --reason '…'` there, as the user who runs the engine",
        ));
    }
    let why = refuse::reason(&glass.reason)?;
    let lasts = life(glass.expires.as_deref().unwrap_or("1h"), limits::BREAK_GLASS_LIFE)?;
    let now = app.parts.clock.now();
    let (text, hash) = made::draw()?;
    let said = crate::notifiers::one_line(glass.by.as_deref().unwrap_or("an unknown user"), 60);
    let by = format!("{said} on {}", app.parts.config.install);
    let new = NewToken {
        name: format!("break-glass ({said})"),
        grant: Grant::everywhere(Role::Admin),
        sources: Vec::new(),
        hash,
        by,
        root: Some(LOCAL.to_owned()),
        person: None,
        made_with: None,
        expires_at: now + lasts.0,
    };
    let channels: Vec<String> = app.parts.config.channels.keys().cloned().collect();
    let made = app.parts.store.break_glass(new, why, channels.clone(), now).await.map_err(refuse::store)?;
    app.parts.nudge.nudge();
    tracing::warn!(token = %made.id, by = %made.made_by, until = %made.expires_at, "break-glass access activated");
    Ok(Created(BreakGlassMade { token: text, made, told: channels }))
}

/// Tokens of broken glasses that are good now.
pub(super) async fn broken(app: &App) -> Result<Vec<ApiToken>, Problem> {
    let now = app.parts.clock.now();
    let tokens = app.parts.store.tokens(now).await.map_err(refuse::store)?;
    Ok(tokens.into_iter().filter(|token| token.break_glass.is_some() && token.opens(now)).collect())
}

fn life(text: &str, most: Span) -> Result<Span, Problem> {
    let example = if most < Span::minutes(24 * 60) { "`15m` or `45m`" } else { "`12h` or `30d`" };
    let hint = || format!("write for example {example}; from {} to {most}", limits::TOKEN_LIFE_MIN);
    let lasts: Span =
        text.parse().map_err(|error| refuse::bad(format!("`expires` is no length of time: {error}"), hint()))?;
    if !(limits::TOKEN_LIFE_MIN..=most).contains(&lasts) {
        return Err(refuse::bad(format!("a token of this kind cannot last {lasts}"), hint()));
    }
    Ok(lasts)
}

/// Whose it will be, where it is a user's.
fn check_name(app: &App, caller: &Caller, wanted: &TokenRequest) -> Result<Option<String>, Problem> {
    let name = &wanted.name;
    if let Some(why) = crate::config::wrong_name(name) {
        return Err(refuse::bad(format!("`{}` is not a name", name.escape_debug()), why));
    }
    let roster = app.roster.now();
    if name == LOCAL || roster.has_token(name) {
        return Err(refuse::conflict(
            format!("`{name}` is a token of the configuration already"),
            "choose another name: it identifies the actor in the ledger",
        ));
    }
    let Some(person) = roster.of_token(name) else { return Ok(None) };
    // No other caller acts in a user's name; a holder of this machine's own token can write any name anyway.
    if caller.way != Way::Local && caller.name != person.name {
        return Err(refuse::with(
            StatusCode::FORBIDDEN,
            format!("`{name}` belongs to {}, and the holder of a token acts in its owner's name", person.name),
            "run `nightshift tokens make` on the engine's own machine, or give it a machine's name",
        ));
    }
    if wanted.role == Role::Source {
        return Err(refuse::conflict(format!("`{name}` is a person's, {}", person.name), "name it as the source"));
    }
    let given = Grant { role: wanted.role, clusters: wanted.clusters.clone().or_else(|| person.clusters.clone()) };
    if !given.within(&person.grant()) {
        return Err(refuse::conflict(
            format!("`{name}` belongs to {}, with role {}: a token cannot have more rights", person.name, person.role),
            format!("make it with `--role {}`", person.role),
        ));
    }
    Ok(Some(person.name.clone()))
}

fn check_places(app: &App, wanted: &TokenRequest) -> Result<(), Problem> {
    let config = &app.parts.config;
    let too_many = wanted.sources.len().max(wanted.clusters.as_ref().map_or(0, Vec::len)) > limits::TOKEN_LIST;
    if too_many {
        return Err(refuse::bad("that list is too long", format!("name at most {}", limits::TOKEN_LIST)));
    }
    match (wanted.role, wanted.sources.is_empty()) {
        (Role::Source, true) => {
            return Err(refuse::bad(
                "a token with role source must list the sources it may post to",
                "add `--sources prod`",
            ));
        }
        (Role::Source, false) if wanted.clusters.is_some() => {
            return Err(refuse::bad("a token with role source takes no action", "leave the clusters out"));
        }
        (Role::Source, false) => {}
        (_, false) => return Err(refuse::bad("only a token of role source has sources", "write `--role source`")),
        (_, true) => {}
    }
    let known = |what: &str, name: &String, all: Vec<&str>| match all.contains(&name.as_str()) {
        true => Ok(()),
        false => {
            let hint = match crate::config::closest(name, all.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are: {}", if all.is_empty() { "none".to_owned() } else { all.join(", ") }),
            };
            Err(refuse::missing(format!("{what} `{}`", name.escape_debug()), hint))
        }
    };
    for source in &wanted.sources {
        known("source", source, config.sources.keys().map(String::as_str).collect())?;
    }
    let Some(clusters) = &wanted.clusters else { return Ok(()) };
    if clusters.is_empty() {
        return Err(refuse::bad("an empty list of clusters would be nowhere", "name some, or leave it out"));
    }
    clusters.iter().try_for_each(|cluster| known("cluster", cluster, config.cluster_names()))
}

fn places(grant: &Grant) -> String {
    match &grant.clusters {
        None => " in every cluster".to_owned(),
        Some(clusters) => format!(" in {}", clusters.join(", ")),
    }
}
