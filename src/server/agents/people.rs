//! Users' views and decisions on agents: the list, a join token, a removal.
//!
//! Invariant: the text of a join token is in the answer to who made it and nowhere else.

use super::routes;
use crate::api::{AgentList, AgentRemoved, AgentSummary, JoinTokenMade, JoinTokenRequest};
use crate::limits;
use crate::model::AgentName;
use crate::server::{App, Caller, Problem, Way, secret};
use crate::store::{JoinToken, StoreError};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Every agent that ever connected and was not removed, with its present state.
///
/// # Errors
///
/// Fails when the store cannot be read.
pub async fn list(app: &App) -> Result<AgentList, StoreError> {
    let seen = app.parts.world.agents.list();
    let rows = app.parts.store.agents().await?;
    let agents = rows.into_iter().map(|row| {
        let now = seen.iter().find(|seen| seen.name == row.name);
        AgentSummary {
            node: row.name.node,
            cluster: row.name.cluster,
            how: row.how,
            connected: now.is_some_and(|seen| seen.here),
            seen_at: now.map_or(row.seen_at, |seen| app.parts.clock.now() - seen.silent_for),
            since: row.since,
            commands: now.map_or(0, |seen| seen.commands as u64),
            standing: now.map_or(row.standing, |seen| seen.standing.clone()),
        }
    });
    Ok(AgentList { agents: agents.collect() })
}

/// Makes a join token; the answer has its text, which is stored nowhere.
///
/// # Errors
///
/// Fails when the caller's clusters or the terms forbid it, agents cannot join here, or the store refuses.
pub async fn join_token(app: &App, caller: &Caller, wanted: JoinTokenRequest) -> Result<JoinTokenMade, Problem> {
    scoped(caller, wanted.cluster.as_deref())?;
    let authority = app.agents.authority.clone().ok_or_else(routes::no_door)?;
    if let Way::BreakGlass(id, _) = &caller.way {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!("{id} is break-glass access, and an agent joined with it would outlive it"),
            "make the join token with this machine's own token, or with an admin's",
        ));
    }
    let bad = |why: String| Problem::new(StatusCode::BAD_REQUEST, why, "see `nightshift agents join-token --help`");
    if let Some(node) = wanted.node.as_deref().filter(|node| !routes::is_node_name(node)) {
        return Err(bad(format!("`{}` is no name of a node", node.escape_debug())));
    }
    if let Some(cluster) = wanted.cluster.as_deref().filter(|name| !routes::is_node_name(name)) {
        return Err(bad(format!("`{}` is no name of a cluster", cluster.escape_debug())));
    }
    let expires = wanted.expires.unwrap_or(limits::JOIN_TOKEN_LIFE);
    if expires > limits::JOIN_TOKEN_LIFE_MAX {
        return Err(bad(format!("a join token lasts {} at most", limits::JOIN_TOKEN_LIFE_MAX)));
    }
    let token = format!("nsj1.{}.{}", secret::text::<32>(), URL_SAFE_NO_PAD.encode(authority.der()));
    let now = app.parts.clock.now();
    if let Some(until) = caller.until.filter(|until| now + expires.0 > *until) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!("the token that you came with ends at {until}, and a join token that it makes cannot outlive it"),
            "make it with a token that lasts longer, or with a shorter `expires`",
        ));
    }
    let kept = JoinToken {
        hash: routes::hash_of(&token),
        cluster: wanted.cluster,
        node: wanted.node,
        by: caller.name.clone(),
        made_with: match caller.way {
            Way::Made(id) => Some(id),
            _ => None,
        },
        expires_at: now + expires.0,
    };
    let expires_at = kept.expires_at;
    app.parts.store.join_token(kept, now).await.map_err(|error| match error {
        StoreError::Refused(why) => Problem::new(StatusCode::CONFLICT, why, "each is good for one agent"),
        _ => Problem::busy("the store is busy"),
    })?;
    Ok(JoinTokenMade { token, expires_at })
}

/// Who may act in some clusters alone must name one of them.
///
/// # Errors
///
/// Fails with 403 when the caller may not act in that cluster, or in every one where none is named.
pub fn scoped(caller: &Caller, cluster: Option<&str>) -> Result<(), Problem> {
    match cluster {
        Some(cluster) => caller.need_cluster(Some(cluster)),
        None => caller.need_everywhere("an agent of any cluster"),
    }
}

/// Removes an agent. `cluster` may be left out where one agent has that node's name.
///
/// # Errors
///
/// Fails when no agent has the name, agents of several clusters have it, or the store refuses.
pub async fn remove(
    app: &App,
    caller: &Caller,
    node: &str,
    cluster: Option<&str>,
    why: &str,
) -> Result<AgentRemoved, StoreError> {
    let name = match cluster {
        Some(cluster) => AgentName::new(cluster, node),
        None => {
            let rows = app.parts.store.agents().await?;
            let mut named = rows.into_iter().map(|row| row.name).filter(|name| name.node == node);
            match (named.next(), named.next()) {
                (Some(_), Some(_)) => {
                    let why = format!("agents of several clusters have the name {node}: choose one with `cluster`");
                    return Err(StoreError::Refused(why));
                }
                (only, _) => only.unwrap_or_else(|| AgentName::from(node)),
            }
        }
    };
    app.parts.store.agent_remove(&name, &caller.name, why, app.parts.clock.now()).await?;
    app.parts.world.agents.forget(&name);
    Ok(AgentRemoved { removed: node.to_owned(), cluster: name.cluster })
}
