//! Agents: how far their reports are durable, who they are, and the tokens by which they join.
//!
//! Invariant: a report is taken in and its mark moved in one transaction, so that the same one again changes nothing; only
//! `join` enters an agent with a certificate.

use super::intake::{self, PreparedBatch};
use super::tx::Tx;
use crate::limits;
use crate::model::{Actor, AgentName, AgentStatus, EntryKind, EntryLinks, Time, TokenId};
use crate::planted::planted;
use crate::store::db::{
    Db, DbRow, all, exec, json, micros, number, one, params, time, time_opt, to_json, to_word, word,
};
use crate::store::{AgentIdentity, AgentProof, AgentRow, IntakeResult, JoinToken, NewAgent, NumberedBatch, StoreError};

pub(crate) fn reports(tx: &mut Tx, numbered: NumberedBatch) -> Result<(u64, IntakeResult), StoreError> {
    let NumberedBatch { mut batch, agent, boot, spool, numbers, of_events } = numbered;
    let node = agent.key();
    // It may have been written before agents were known by their cluster too.
    let sql = "SELECT max(upto) FROM agent_mark WHERE node IN (?1, ?4) AND boot = ?2 AND spool = ?3";
    let mark = one(&tx.conn, sql, params![node, boot, spool, agent.node], |row| row.get::<Option<i64>>(0))?.flatten();
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
        return Ok((upto, IntakeResult::default()));
    }
    let mut at = of_events.iter();
    batch.events.retain(|_| at.next().is_some_and(|number| *number > mark));
    let now = batch.now;
    let heard = match batch.events.is_empty() && batch.gaps.is_empty() {
        true => IntakeResult::default(),
        false => intake::intake(tx, &PreparedBatch::new(batch)?)?,
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

/// Records that an agent is connected. One with a certificate must have joined, by that very family; one with a token
/// or from within needs no row before. An agent's proof of identity never changes here.
pub(crate) fn seen(tx: &mut Tx, agent: &NewAgent, standing: &AgentStatus, now: Time) -> Result<(), StoreError> {
    let insert = "INSERT INTO agent (cluster, node, how, family, since, seen_at, standing) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6) ON CONFLICT (cluster, node) DO UPDATE SET seen_at = excluded.seen_at, \
                  standing = excluded.standing WHERE how = excluded.how AND family = excluded.family";
    let update = "UPDATE agent SET seen_at = ?5, standing = ?6 \
                  WHERE cluster = ?1 AND node = ?2 AND how = ?3 AND family = ?4";
    let must_be_there = agent.how == AgentProof::Certificate && !planted("removed-agent-comes-back");
    let values = params![
        agent.name.cluster,
        agent.name.node,
        to_word(&agent.how)?,
        agent.family,
        micros(now),
        to_json(standing)?
    ];
    match exec(&tx.conn, if must_be_there { update } else { insert }, values)? {
        0 => Err(StoreError::Refused(unknown(&tx.conn, agent)?)),
        _ => Ok(()),
    }
}

/// Why an agent is not the one that is known for its node.
fn unknown(conn: &dyn Db, agent: &NewAgent) -> Result<String, StoreError> {
    let name = &agent.name;
    if agent.how != AgentProof::Certificate {
        return Ok(format!(
            "node {name} is served by an agent with another auth method: run `nightshift agents remove {}` to admit this \
             one",
            name.node
        ));
    }
    let sql = "SELECT at, why FROM agent_removed WHERE family = ?1";
    let removed = one(conn, sql, [&agent.family], |row| Ok((time(row, 0)?, row.get::<String>(1)?)))?;
    Ok(match removed {
        Some((at, why)) => format!("the certificate of node {name} was revoked at {at}: {why}"),
        None => format!("the certificate of node {name} was revoked, or another agent has joined for it"),
    })
}

/// The newest generation that was shown. A step back is not taken.
pub(crate) fn used(tx: &mut Tx, agent: &NewAgent, now: Time) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE agent SET used = ?4, used_since = ?5, issued = {}(issued, ?4) \
         WHERE cluster = ?1 AND node = ?2 AND family = ?3 AND used < ?4",
        tx.conn.dialect().greatest
    );
    let AgentName { cluster, node } = &agent.name;
    exec(&tx.conn, &sql, params![cluster, node, agent.family, agent.generation as i64, micros(now)]).map(drop)
}

pub(crate) fn renewed(tx: &mut Tx, agent: &NewAgent, now: Time) -> Result<u64, StoreError> {
    let sql =
        "SELECT issued, issued_at FROM agent WHERE cluster = ?1 AND node = ?2 AND how = 'certificate' AND family = ?3";
    let AgentName { cluster, node } = agent.name.clone();
    let map = |row: &DbRow<'_>| Ok((row.get::<i64>(0)?.unsigned_abs(), time(row, 1)?));
    let Some((issued, at)) = one(&tx.conn, sql, params![cluster, node, agent.family], map)? else {
        return Err(StoreError::Refused(unknown(&tx.conn, agent)?));
    };
    // A clock that was set back does not make it longer.
    if at <= now && now < at + limits::AGENT_RENEWED_EVERY {
        return Err(StoreError::Busy(format!("the certificate of node {} was renewed a moment ago", agent.name)));
    }
    let generation = issued.max(agent.generation) + 1;
    let sql = "UPDATE agent SET issued = ?3, issued_at = ?4 WHERE cluster = ?1 AND node = ?2";
    exec(&tx.conn, sql, params![cluster, node, generation as i64, micros(now)])?;
    let entry = EntryKind::AgentRenewed { cluster, node, generation };
    tx.append(&Actor::engine(), EntryLinks::default(), &entry, now)?;
    Ok(generation)
}

pub(crate) fn rows(conn: &dyn Db) -> Result<Vec<AgentRow>, StoreError> {
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

pub(crate) fn identity(conn: &dyn Db, agent: &AgentName) -> Result<Option<AgentIdentity>, StoreError> {
    let sql = "SELECT family, used, used_since FROM agent WHERE cluster = ?1 AND node = ?2 AND how = 'certificate'";
    one(conn, sql, [&agent.cluster, &agent.node], |row| {
        let used = row.get::<i64>(1)?.unsigned_abs();
        Ok(AgentIdentity { family: row.get(0)?, used, used_since: time(row, 2)? })
    })
}

/// Takes the row away and remembers its family for as long as a certificate of it lasts.
fn delete(tx: &Tx, agent: &AgentName, why: &str, now: Time) -> Result<usize, StoreError> {
    let AgentName { cluster, node } = agent;
    let kept = micros(now) - 2 * limits::AGENT_CERTIFICATE.as_micros() as i64;
    exec(&tx.conn, "DELETE FROM agent_removed WHERE at < ?1", [kept])?;
    let sql = "INSERT INTO agent_removed (family, cluster, node, at, why) SELECT family, cluster, node, ?3, ?4 FROM agent \
               WHERE cluster = ?1 AND node = ?2 AND how = 'certificate' ON CONFLICT (family) DO NOTHING";
    exec(&tx.conn, sql, params![cluster, node, micros(now), why])?;
    exec(&tx.conn, "DELETE FROM agent WHERE cluster = ?1 AND node = ?2", [cluster, node])
}

pub(crate) fn remove(tx: &mut Tx, agent: &AgentName, by: &str, why: &str, now: Time) -> Result<(), StoreError> {
    if delete(tx, agent, why, now)? == 0 {
        return Err(StoreError::NotFound { what: format!("agent of node {agent}") });
    }
    let AgentName { cluster, node } = agent.clone();
    let entry = EntryKind::AgentRemoved { cluster, node, by: by.to_owned(), why: why.to_owned() };
    tx.append(&Actor::person(by), EntryLinks::default(), &entry, now).map(drop)
}

/// A token was revoked: join tokens that it made are void, and agents that joined by them are removed.
pub(crate) fn revoked(tx: &mut Tx, token: TokenId, by: &str, now: Time) -> Result<(), StoreError> {
    exec(&tx.conn, "DELETE FROM agent_join WHERE made_with = ?1 AND used_at IS NULL", [token.0])?;
    let sql = "SELECT cluster, node FROM agent WHERE made_with = ?1 ORDER BY cluster, node LIMIT ?2";
    let made = all(&tx.conn, sql, params![token.0, i64::from(limits::NODES)], |row| {
        Ok(AgentName { cluster: row.get(0)?, node: row.get(1)? })
    })?;
    let why = format!("it joined by a token made with {token}, which was revoked");
    made.iter().try_for_each(|agent| remove(tx, agent, by, &why, now))
}

pub(crate) fn join_token(tx: &mut Tx, token: &JoinToken, now: Time) -> Result<(), StoreError> {
    let sql = "DELETE FROM agent_join WHERE expires_at < ?1";
    exec(&tx.conn, sql, [micros(now) - 7 * 86_400_000_000])?;
    let open = "SELECT count(*) FROM agent_join WHERE used_at IS NULL AND expires_at > ?1";
    if number(&tx.conn, open, [micros(now)])? >= limits::JOIN_TOKENS as i64 {
        let most = limits::JOIN_TOKENS;
        return Err(StoreError::Refused(format!(
            "{most} join tokens are open, which is as many as there may be: use them, or wait until they expire"
        )));
    }
    let sql = "INSERT INTO agent_join (hash, node, made_by, expires_at, cluster, made_with) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let made_with = token.made_with.map(|id| id.0);
    let values = params![token.hash, token.node, token.by, micros(token.expires_at), token.cluster, made_with];
    exec(&tx.conn, sql, values)?;
    let entry = EntryKind::AgentTokenMade {
        cluster: token.cluster.clone(),
        node: token.node.clone(),
        expires_at: token.expires_at,
        by: token.by.clone(),
    };
    tx.append(&Actor::person(&token.by), EntryLinks::default(), &entry, now).map(drop)
}

/// Who made a join token, and by which token of theirs.
pub(crate) struct MadeBy {
    by: String,
    with: Option<TokenId>,
    /// For one node alone: the admin who made it has named the node.
    pub is_bound: bool,
}

/// Whether the token is good for this agent now, or why not. A refused token stays as it is.
pub(crate) fn join_check(conn: &dyn Db, hash: &str, agent: &AgentName, now: Time) -> Result<MadeBy, StoreError> {
    let sql = "SELECT node, made_by, expires_at, used_at, used_by, cluster, made_with FROM agent_join WHERE hash = ?1";
    let found = one(conn, sql, [hash], |row| {
        let bound: Option<String> = row.get(0)?;
        let with = row.get::<Option<i64>>(6)?.map(TokenId);
        let made = MadeBy { by: row.get(1)?, with, is_bound: bound.is_some() };
        let used = (time_opt(row, 3)?, row.get::<Option<String>>(4)?);
        Ok((bound, made, time(row, 2)?, used, row.get::<Option<String>>(5)?))
    })?;
    let refused = |why: String| Err(StoreError::Refused(why));
    let Some((bound, made, expires_at, (used_at, used_by), cluster)) = found else {
        return refused("unknown join token: create one with `nightshift agents join-token`".to_owned());
    };
    if let Some(used_at) = used_at {
        let who = used_by.unwrap_or_default();
        return refused(format!("this join token was used by {who} at {used_at}: each is good for one agent"));
    }
    if expires_at <= now {
        return refused(format!("this join token expired at {expires_at}: make another one"));
    }
    let AgentName { cluster: of, node } = agent;
    if let Some(bound) = cluster.as_ref().filter(|bound| *bound != of) {
        let says = if of.is_empty() { "the agent names none".to_owned() } else { format!("not for {of}") };
        return refused(format!(
            "this join token was made for cluster {bound}, {says}: set `cluster: {bound}` in agent.yaml"
        ));
    }
    if let Some(bound) = bound.as_ref().filter(|bound| *bound != node) {
        return refused(format!("this join token was made for node {bound}, not for {node}"));
    }
    // A token for any node must not push out an agent that is there, however that one shows who it is.
    let there = "SELECT count(*) FROM agent WHERE cluster = ?1 AND node = ?2";
    if bound.is_none() && number(conn, there, [of, node])? > 0 {
        return refused(format!(
            "node {node} has an agent already: `nightshift agents remove {node}`, or make the token with `--node {node}`"
        ));
    }
    Ok(made)
}

/// Uses a token up and enters the agent, or returns why not.
pub(crate) fn join(tx: &mut Tx, hash: &str, agent: &NewAgent, now: Time) -> Result<(), StoreError> {
    let made = join_check(&tx.conn, hash, &agent.name, now)?;
    let AgentName { cluster, node } = agent.name.clone();
    let sql = "UPDATE agent_join SET used_at = ?2, used_by = ?3 WHERE hash = ?1";
    exec(&tx.conn, sql, params![hash, micros(now), agent.name.to_string()])?;
    delete(tx, &agent.name, "another agent has joined for the node", now)?;
    let sql = "INSERT INTO agent (cluster, node, how, family, since, seen_at, standing, issued, made_with) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7, ?8)";
    let values = params![
        cluster,
        node,
        to_word(&agent.how)?,
        agent.family,
        micros(now),
        to_json(&AgentStatus::default())?,
        agent.generation as i64,
        made.with.map(|id| id.0),
    ];
    exec(&tx.conn, sql, values)?;
    let entry = EntryKind::AgentJoined { cluster, node, token_by: made.by };
    tx.append(&Actor::engine(), EntryLinks::default(), &entry, now).map(drop)
}
