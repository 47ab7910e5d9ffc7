//! Agents: how far their reports are durable, who they are, and the tokens by which they join.
//!
//! Invariant: a report is taken in and its mark moved in one transaction, so that the same one again changes nothing.

use super::intake::{self, Prepared};
use super::sql::{all, exec, json, micros, one, time, to_json, to_word, word};
use super::tx::Tx;
use crate::limits;
use crate::model::{About, Actor, AgentName, EntryKind, Standing, Time};
use crate::store::{AgentRow, Heard, JoinToken, NewAgent, Numbered, StoreError};
use rusqlite::{Connection, params};

pub(super) fn reports(tx: &mut Tx, numbered: Numbered) -> Result<(u64, Heard), StoreError> {
    let Numbered { mut batch, agent, boot, spool, numbers, of_events } = numbered;
    let node = agent.key();
    // It may have been written before agents were known by their cluster too.
    let sql = "SELECT max(upto) FROM agent_mark WHERE node IN (?1, ?4) AND boot = ?2 AND spool = ?3";
    let mark =
        one(&tx.conn, sql, params![node, boot, spool, agent.node], |row| row.get::<_, Option<i64>>(0))?.flatten();
    let mark = mark.unwrap_or_default().unsigned_abs();
    let mut next = mark + 1;
    for number in numbers.iter().copied().filter(|number| *number > mark) {
        if number > next {
            let last = number - 1;
            batch.gaps.push(format!(
                "{} findings of the agent on {agent} never came (numbers {next} to {last} of its spool {spool}): lost there",
                number - next
            ));
        }
        next = next.max(number.saturating_add(1));
    }
    let upto = next - 1;
    if upto == mark {
        return Ok((upto, Heard::default()));
    }
    let mut at = of_events.iter();
    batch.events.retain(|_| at.next().is_some_and(|number| *number > mark));
    let now = batch.now;
    let heard = match batch.events.is_empty() && batch.gaps.is_empty() {
        true => Heard::default(),
        false => intake::intake(tx, &Prepared::new(batch)?)?,
    };
    let sql = "INSERT INTO agent_mark (node, boot, spool, upto, at) VALUES (?1, ?2, ?3, ?4, ?5) \
               ON CONFLICT (node, boot, spool) DO UPDATE SET upto = excluded.upto, at = excluded.at";
    exec(&tx.conn, sql, params![node, boot, spool, upto as i64, micros(now)])?;
    if mark == 0 {
        // A new start of this agent: of those long before nothing can come any more.
        let sql = "DELETE FROM agent_mark WHERE node = ?1 AND (boot, spool) NOT IN \
                   (SELECT boot, spool FROM agent_mark WHERE node = ?1 ORDER BY at DESC LIMIT ?2)";
        exec(&tx.conn, sql, params![node, limits::AGENT_SPOOLS as i64])?;
    }
    Ok((upto, heard))
}

/// An agent that joined keeps its family; one that speaks with a token, or from within, needs no row before.
pub(super) fn seen(tx: &mut Tx, agent: &NewAgent, standing: &Standing, now: Time) -> Result<(), StoreError> {
    let sql = "INSERT INTO agent (cluster, node, how, family, since, seen_at, standing) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6) ON CONFLICT (cluster, node) DO UPDATE SET how = excluded.how, family = excluded.family, seen_at = excluded.seen_at, \
               standing = excluded.standing";
    let values = params![
        agent.name.cluster,
        agent.name.node,
        to_word(&agent.how)?,
        agent.family,
        micros(now),
        to_json(standing)?
    ];
    exec(&tx.conn, sql, values).map(drop)
}

pub(super) fn rows(conn: &Connection) -> Result<Vec<AgentRow>, StoreError> {
    let sql = "SELECT cluster, node, how, family, since, seen_at, standing FROM agent ORDER BY cluster, node LIMIT ?1";
    all(conn, sql, [i64::from(limits::NODES)], |row| {
        Ok(AgentRow {
            name: AgentName { cluster: row.get(0)?, node: row.get(1)? },
            how: word(row, 2)?,
            family: row.get(3)?,
            since: time(row, 4)?,
            seen_at: time(row, 5)?,
            standing: json(row, 6)?,
        })
    })
}

pub(super) fn family(conn: &Connection, agent: &AgentName) -> Result<Option<String>, StoreError> {
    let sql = "SELECT family FROM agent WHERE cluster = ?1 AND node = ?2 AND how = 'certificate'";
    one(conn, sql, [&agent.cluster, &agent.node], |row| row.get(0))
}

fn delete(conn: &Connection, agent: &AgentName) -> Result<usize, StoreError> {
    exec(conn, "DELETE FROM agent WHERE cluster = ?1 AND node = ?2", [&agent.cluster, &agent.node])
}

pub(super) fn remove(tx: &mut Tx, agent: &AgentName, by: &str, why: &str, now: Time) -> Result<(), StoreError> {
    if delete(&tx.conn, agent)? == 0 {
        return Err(StoreError::NotFound { what: format!("agent of node {agent}") });
    }
    let AgentName { cluster, node } = agent.clone();
    let entry = EntryKind::AgentRemoved { cluster, node, by: by.to_owned(), why: why.to_owned() };
    tx.append(&Actor::person(by), About::default(), &entry, now).map(drop)
}

pub(super) fn join_token(tx: &mut Tx, token: &JoinToken, now: Time) -> Result<(), StoreError> {
    let sql = "DELETE FROM agent_join WHERE expires_at < ?1";
    exec(&tx.conn, sql, [micros(now) - 7 * 86_400_000_000])?;
    let sql = "INSERT INTO agent_join (hash, node, made_by, expires_at, cluster) VALUES (?1, ?2, ?3, ?4, ?5)";
    exec(&tx.conn, sql, params![token.hash, token.node, token.by, micros(token.expires_at), token.cluster]).map(drop)
}

/// Uses a token up and enters the agent, or says why not. A refused token stays as it is.
pub(super) fn join(tx: &mut Tx, hash: &str, agent: &NewAgent, now: Time) -> Result<(), StoreError> {
    let sql = "SELECT node, made_by, expires_at, used_at, used_by, cluster FROM agent_join WHERE hash = ?1";
    let found = one(&tx.conn, sql, [hash], |row| {
        let (bound, by): (Option<String>, String) = (row.get(0)?, row.get(1)?);
        let used = (super::sql::time_opt(row, 3)?, row.get::<_, Option<String>>(4)?);
        Ok((bound, by, time(row, 2)?, used, row.get::<_, Option<String>>(5)?))
    })?;
    let refused = |why: String| Err(StoreError::Refused(why));
    let Some((bound, by, expires_at, (used_at, used_by), cluster)) = found else {
        return refused("this join token is not known here: make one with `nightshift agents join-token`".to_owned());
    };
    if let Some(used_at) = used_at {
        let who = used_by.unwrap_or_default();
        return refused(format!("this join token was used by {who} at {used_at}: each is good for one agent"));
    }
    if expires_at <= now {
        return refused(format!("this join token expired at {expires_at}: make another one"));
    }
    let AgentName { cluster: of, node } = &agent.name;
    if let Some(bound) = cluster.as_ref().filter(|bound| *bound != of) {
        let says = if of.is_empty() { "the agent names none".to_owned() } else { format!("not for {of}") };
        return refused(format!(
            "this join token was made for cluster {bound}, {says}: set `cluster: {bound}` in agent.yaml"
        ));
    }
    if let Some(bound) = bound.as_ref().filter(|bound| *bound != node) {
        return refused(format!("this join token was made for node {bound}, not for {node}"));
    }
    // A token for anybody must not push out an agent that is there.
    if bound.is_none() && family(&tx.conn, &agent.name)?.is_some() {
        return refused(format!(
            "node {node} has an agent already: `nightshift agents remove {node}`, or make the token with `--node {node}`"
        ));
    }
    let sql = "UPDATE agent_join SET used_at = ?2, used_by = ?3 WHERE hash = ?1";
    exec(&tx.conn, sql, params![hash, micros(now), agent.name.to_string()])?;
    delete(&tx.conn, &agent.name)?;
    seen(tx, agent, &Standing::default(), now)?;
    let entry = EntryKind::AgentJoined { cluster: of.clone(), node: node.clone(), token_by: by };
    tx.append(&Actor::engine(), About::default(), &entry, now).map(drop)
}
