//! Agents: how far their reports are durable, who they are, and the tokens by which they join.
//!
//! Invariant: a report is taken in and its mark moved in one transaction, so that the same one again changes nothing.

use super::intake::{self, Prepared};
use super::sql::{all, exec, json, micros, one, time, to_json, to_word, word};
use super::tx::Tx;
use crate::limits;
use crate::model::{About, Actor, EntryKind, Standing, Time};
use crate::store::{AgentRow, Heard, JoinToken, NewAgent, Numbered, StoreError};
use rusqlite::{Connection, params};

pub(super) fn reports(tx: &mut Tx, numbered: Numbered) -> Result<(u64, Heard), StoreError> {
    let Numbered { mut batch, node, boot, spool, numbers, of_events } = numbered;
    let sql = "SELECT upto FROM agent_mark WHERE node = ?1 AND boot = ?2 AND spool = ?3";
    let mark = one(&tx.conn, sql, params![node, boot, spool], |row| row.get::<_, i64>(0))?;
    let mark = mark.unwrap_or_default().unsigned_abs();
    let mut next = mark + 1;
    for number in numbers.iter().copied().filter(|number| *number > mark) {
        if number > next {
            let last = number - 1;
            batch.gaps.push(format!(
                "{} findings of the agent on {node} never came (numbers {next} to {last} of its spool {spool}): lost there",
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
    let sql = "INSERT INTO agent (node, how, family, since, seen_at, standing) VALUES (?1, ?2, ?3, ?4, ?4, ?5) \
               ON CONFLICT (node) DO UPDATE SET how = excluded.how, family = excluded.family, seen_at = excluded.seen_at, \
               standing = excluded.standing";
    let values = params![agent.node, to_word(&agent.how)?, agent.family, micros(now), to_json(standing)?];
    exec(&tx.conn, sql, values).map(drop)
}

pub(super) fn rows(conn: &Connection) -> Result<Vec<AgentRow>, StoreError> {
    let sql = "SELECT node, how, family, since, seen_at, standing FROM agent ORDER BY node LIMIT ?1";
    all(conn, sql, [i64::from(limits::NODES)], |row| {
        Ok(AgentRow {
            node: row.get(0)?,
            how: word(row, 1)?,
            family: row.get(2)?,
            since: time(row, 3)?,
            seen_at: time(row, 4)?,
            standing: json(row, 5)?,
        })
    })
}

pub(super) fn family(conn: &Connection, node: &str) -> Result<Option<String>, StoreError> {
    one(conn, "SELECT family FROM agent WHERE node = ?1 AND how = 'certificate'", [node], |row| row.get(0))
}

pub(super) fn remove(tx: &mut Tx, node: &str, by: &str, why: &str, now: Time) -> Result<(), StoreError> {
    if exec(&tx.conn, "DELETE FROM agent WHERE node = ?1", [node])? == 0 {
        return Err(StoreError::NotFound { what: format!("agent of node {node}") });
    }
    let entry = EntryKind::AgentRemoved { node: node.to_owned(), by: by.to_owned(), why: why.to_owned() };
    tx.append(&Actor::person(by), About::default(), &entry, now).map(drop)
}

pub(super) fn join_token(tx: &mut Tx, token: &JoinToken, now: Time) -> Result<(), StoreError> {
    let sql = "DELETE FROM agent_join WHERE expires_at < ?1";
    exec(&tx.conn, sql, [micros(now) - 7 * 86_400_000_000])?;
    let sql = "INSERT INTO agent_join (hash, node, made_by, expires_at) VALUES (?1, ?2, ?3, ?4)";
    exec(&tx.conn, sql, params![token.hash, token.node, token.by, micros(token.expires_at)]).map(drop)
}

/// Uses a token up and enters the agent, or says why not. A refused token stays as it is.
pub(super) fn join(tx: &mut Tx, hash: &str, agent: &NewAgent, now: Time) -> Result<(), StoreError> {
    let sql = "SELECT node, made_by, expires_at, used_at, used_by FROM agent_join WHERE hash = ?1";
    let found = one(&tx.conn, sql, [hash], |row| {
        let (bound, by): (Option<String>, String) = (row.get(0)?, row.get(1)?);
        Ok((bound, by, time(row, 2)?, super::sql::time_opt(row, 3)?, row.get::<_, Option<String>>(4)?))
    })?;
    let refused = |why: String| Err(StoreError::Refused(why));
    let Some((bound, by, expires_at, used_at, used_by)) = found else {
        return refused("this join token is not known here: make one with `nightshift agents join-token`".to_owned());
    };
    if let Some(used_at) = used_at {
        let who = used_by.unwrap_or_default();
        return refused(format!("this join token was used by {who} at {used_at}: each is good for one agent"));
    }
    if expires_at <= now {
        return refused(format!("this join token expired at {expires_at}: make another one"));
    }
    let node = &agent.node;
    if let Some(bound) = bound.as_ref().filter(|bound| *bound != node) {
        return refused(format!("this join token was made for node {bound}, not for {node}"));
    }
    // A token for anybody must not push out an agent that is there.
    if bound.is_none() && family(&tx.conn, node)?.is_some() {
        return refused(format!(
            "node {node} has an agent already: `nightshift agents remove {node}`, or make the token with `--node {node}`"
        ));
    }
    let sql = "UPDATE agent_join SET used_at = ?2, used_by = ?3 WHERE hash = ?1";
    exec(&tx.conn, sql, params![hash, micros(now), node])?;
    exec(&tx.conn, "DELETE FROM agent WHERE node = ?1", [node])?;
    seen(tx, agent, &Standing::default(), now)?;
    let entry = EntryKind::AgentJoined { node: node.clone(), token_by: by };
    tx.append(&Actor::engine(), About::default(), &entry, now).map(drop)
}
