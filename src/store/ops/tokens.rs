//! Tokens that were made here: kept as a hash, made and revoked with a ledger entry, ended by time.
//!
//! Invariant: a token is read from the database in the request that shows it, so a revoked one is refused at once.

use super::incidents;
use super::tx::Tx;
use crate::limits;
use crate::model::{
    Actor, ApiToken, BreakGlass, EntryKind, EntryLinks, IncidentId, RoleGrant, Severity, Subject, Time, TokenId,
};
use crate::store::db::{
    Db, DbRow, all, exec, json, json_opt, micros, number, one, params, time, time_opt, to_json, to_word, word,
};
use crate::store::{NewToken, StoreError};

const COLUMNS: &str = "id, name, role, clusters, sources, made_by, made_at, expires_at, revoked_at, used_at, why, incident, person, root, \
     made_with";

fn token(row: &DbRow<'_>) -> Result<ApiToken, StoreError> {
    let incident: Option<i64> = row.get(11)?;
    let why: Option<String> = row.get(10)?;
    Ok(ApiToken {
        id: TokenId(row.get(0)?),
        name: row.get(1)?,
        grant: RoleGrant { role: word(row, 2)?, clusters: json_opt(row, 3)? },
        sources: json(row, 4)?,
        made_by: row.get(5)?,
        made_at: time(row, 6)?,
        expires_at: time(row, 7)?,
        revoked_at: time_opt(row, 8)?,
        used_at: time_opt(row, 9)?,
        person: row.get(12)?,
        root: row.get(13)?,
        made_with: row.get::<Option<i64>>(14)?.map(TokenId),
        break_glass: why.zip(incident).map(|(why, incident)| BreakGlass { why, incident: IncidentId(incident) }),
    })
}

pub(crate) fn by_hash(conn: &dyn Db, hash: &str) -> Result<Option<ApiToken>, StoreError> {
    one(conn, &format!("SELECT {COLUMNS} FROM api_token WHERE hash = ?1"), [hash], token)
}

/// As many as may be in force: whatever has ended, none of those is left out.
pub(crate) fn list(conn: &dyn Db, now: Time) -> Result<Vec<ApiToken>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM api_token ORDER BY revoked_at IS NULL AND expires_at > ?1 DESC, id DESC LIMIT ?2"
    );
    all(conn, &sql, [micros(now), limits::TOKENS as i64], token)
}

pub(crate) fn find(conn: &dyn Db, id: TokenId) -> Result<Option<ApiToken>, StoreError> {
    one(conn, &format!("SELECT {COLUMNS} FROM api_token WHERE id = ?1"), [id.0], token)
}

fn get(conn: &dyn Db, id: TokenId) -> Result<ApiToken, StoreError> {
    find(conn, id)?.ok_or_else(|| StoreError::NotFound { what: format!("token {id}") })
}

pub(crate) fn make(tx: &mut Tx, new: &NewToken, now: Time) -> Result<ApiToken, StoreError> {
    let live = "SELECT count(*) FROM api_token WHERE revoked_at IS NULL AND expires_at > ?1";
    if number(&tx.conn, live, [micros(now)])? >= limits::TOKENS as i64 {
        let text = format!("{} tokens are in force, which is as many as there may be: revoke some", limits::TOKENS);
        return Err(StoreError::Refused(text));
    }
    // Two of one name and one meaning are how a token is rotated; with two meanings a name would be ambiguous.
    let sql = format!("SELECT {COLUMNS} FROM api_token WHERE name = ?1 AND revoked_at IS NULL AND expires_at > ?2");
    let same_name = all(&tx.conn, &sql, params![new.name, micros(now)], token)?;
    if let Some(other) = same_name.iter().find(|other| other.grant != new.grant || other.sources != new.sources) {
        let text = format!("`{}` is the name of {} already, which may other things", new.name, other.id);
        return Err(StoreError::Refused(text));
    }
    let id = insert(tx, new, None, now)?;
    let entry = EntryKind::TokenMade {
        token: id,
        name: new.name.clone(),
        grant: new.grant.clone(),
        sources: new.sources.clone(),
        expires_at: new.expires_at,
        by: new.by.clone(),
    };
    tx.append(&Actor::person(&new.by), EntryLinks::default(), &entry, now)?;
    get(&tx.conn, id)
}

fn insert(tx: &Tx, new: &NewToken, incident: Option<(&str, IncidentId)>, now: Time) -> Result<TokenId, StoreError> {
    let sql = "INSERT INTO api_token (name, role, clusters, sources, hash, made_by, made_at, expires_at, why, incident, \
               person, root, made_with) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) RETURNING id";
    let values = params![
        new.name,
        to_word(&new.grant.role)?,
        new.grant.clusters.as_ref().map(to_json).transpose()?,
        to_json(&new.sources)?,
        new.hash,
        new.by,
        micros(now),
        micros(new.expires_at),
        incident.map(|(why, _)| why),
        incident.map(|(_, id)| id.0),
        new.person,
        new.root,
        new.made_with.map(|id| id.0),
    ];
    number(&tx.conn, sql, values).map(TokenId)
}

/// A token for everything, the incident that notifies everyone, and the ledger's entry, in one commit.
pub(crate) fn break_glass(
    tx: &mut Tx,
    new: &NewToken,
    why: &str,
    channels: &[String],
    now: Time,
) -> Result<ApiToken, StoreError> {
    let title = format!("break-glass used by {}, because {why}", new.by);
    let key = format!("{BREAK_GLASS}{}", new.hash.get(..12).unwrap_or_default());
    let (incident, opened) = incidents::create(tx, &key, &title, &Subject::default(), Severity::Critical, now)?;
    let id = insert(tx, new, Some((why, incident)), now)?;
    let about = EntryLinks { incident: Some(incident), run: None };
    let actor = Actor::person(&new.by);
    tx.append(&actor, about, &opened, now)?;
    let until = new.expires_at;
    let entry = EntryKind::BreakGlass { token: id, by: new.by.clone(), why: why.to_owned(), until };
    let no = tx.append(&actor, about, &entry, now)?;
    for channel in channels {
        tx.want(incident, channel, no, now)?;
    }
    get(&tx.conn, id)
}

/// The prefix of the keys of incidents about break-glass access.
pub(crate) const BREAK_GLASS: &str = "break-glass/";

/// The token and all that it made, and these made, that are in force.
const FAMILY: &str = "WITH RECURSIVE family (id) AS (SELECT ?1 UNION \
    SELECT api_token.id FROM api_token JOIN family ON api_token.made_with = family.id) \
    SELECT id FROM api_token WHERE id IN family AND id != ?1 AND revoked_at IS NULL AND expires_at > ?2 ORDER BY id";

pub(crate) fn revoke(tx: &mut Tx, id: TokenId, by: &str, why: &str, now: Time) -> Result<Vec<ApiToken>, StoreError> {
    if let Some(at) = get(&tx.conn, id)?.revoked_at {
        return Err(StoreError::Refused(format!("{id} was revoked already, at {at}")));
    }
    let mut gone = vec![revoke_one(tx, id, by, why, now)?];
    for made in all(&tx.conn, FAMILY, [id.0, micros(now)], |row| Ok(TokenId(row.get(0)?)))? {
        gone.push(revoke_one(tx, made, by, &format!("made with {id}, which was revoked"), now)?);
    }
    Ok(gone)
}

fn revoke_one(tx: &mut Tx, id: TokenId, by: &str, why: &str, now: Time) -> Result<ApiToken, StoreError> {
    exec(&tx.conn, "UPDATE api_token SET revoked_at = ?2 WHERE id = ?1", params![id.0, micros(now)])?;
    let found = get(&tx.conn, id)?;
    let about = EntryLinks { incident: found.break_glass.as_ref().map(|glass| glass.incident), run: None };
    let entry = EntryKind::TokenRevoked { token: id, name: found.name.clone(), by: by.to_owned(), why: why.to_owned() };
    tx.append(&Actor::person(by), about, &entry, now)?;
    super::agents::revoked(tx, id, by, now)?;
    Ok(found)
}

pub(crate) fn used(tx: &mut Tx, id: TokenId, now: Time) -> Result<(), StoreError> {
    exec(&tx.conn, "UPDATE api_token SET used_at = ?2 WHERE id = ?1", params![id.0, micros(now)]).map(drop)
}

const OVER: &str = "SELECT incident.id, api_token.id, api_token.revoked_at FROM api_token \
    JOIN incident ON incident.id = api_token.incident \
    WHERE incident.closed_at IS NULL AND (api_token.revoked_at IS NOT NULL OR api_token.expires_at <= ?1)";

/// Whether `tick` has anything to do.
pub(crate) fn is_due(conn: &dyn Db, now: Time) -> Result<bool, StoreError> {
    Ok(one(conn, OVER, [micros(now)], |_| Ok(()))?.is_some())
}

/// The incident of a broken glass ends with its token.
pub(crate) fn tick(tx: &mut Tx, now: Time) -> Result<u64, StoreError> {
    let over = all(&tx.conn, OVER, [micros(now)], |row| {
        Ok((IncidentId(row.get(0)?), TokenId(row.get(1)?), row.get::<Option<i64>>(2)?.is_some()))
    })?;
    for (incident, token, revoked) in &over {
        exec(&tx.conn, "UPDATE incident SET closed_at = ?2 WHERE id = ?1", params![incident.0, micros(now)])?;
        let why = if *revoked { format!("{token} was revoked") } else { format!("{token} has expired") };
        let about = EntryLinks { incident: Some(*incident), run: None };
        tx.append(&Actor::engine(), about, &EntryKind::IncidentResolved { why }, now)?;
    }
    Ok(over.len() as u64)
}
