//! Freezes: set, released by one or two users, ended by their own time; each with an incident that notifies channels.
//!
//! Invariant: a second freeze of a scope never makes the first one shorter; until the end is in the ledger it holds.

use super::tx::Tx;
use super::{incidents, persons};
use crate::limits;
use crate::model::{Actor, EntryKind, EntryLinks, Freeze, IncidentId, Severity, Subject, Time};
use crate::planted::planted;
use crate::store::StoreError;
use crate::store::db::{Db, all, exec, micros, one, params, time, time_opt};

/// How the keys of incidents begin that notify of a freeze.
const FREEZE: &str = "freeze/";

pub(crate) fn freeze(tx: &mut Tx, mut freeze: Freeze, notify: &[String], now: Time) -> Result<(), StoreError> {
    let named =
        ["cluster:", "rule:"].iter().any(|kind| freeze.scope.strip_prefix(kind).is_some_and(|name| !name.is_empty()));
    if freeze.scope != "all" && !named {
        let wrong = format!("`{}` cannot be frozen: write `all`, `cluster:<name>` or `rule:<name>`", freeze.scope);
        return Err(StoreError::Refused(wrong));
    }
    let sql = format!(
        "INSERT INTO freeze (scope, by, why, since, until) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (scope) DO UPDATE SET by = excluded.by, why = excluded.why, since = excluded.since, \
         until = CASE WHEN freeze.until IS NULL OR excluded.until IS NULL THEN NULL \
         ELSE {}(freeze.until, excluded.until) END, release_by = NULL, release_at = NULL RETURNING until",
        tx.conn.dialect().greatest
    );
    let values = params![freeze.scope, freeze.by, freeze.why, micros(freeze.since), freeze.until.map(micros)];
    freeze.until = one(&tx.conn, &sql, values, |row| time_opt(row, 0))?.flatten();
    let actor = Actor::person(&freeze.by);
    // Where no channel is to be notified, the ledger and the pages are enough.
    let incident = match notify {
        [] => incident_of(tx, &freeze.scope)?,
        _ => Some(announce(tx, &freeze, &actor, now)?),
    };
    let about = EntryLinks { incident, run: None };
    let no = tx.append(&actor, about, &EntryKind::Frozen { freeze }, now)?;
    for channel in notify {
        if let Some(incident) = incident {
            tx.want(incident, channel, no, now)?;
        }
    }
    Ok(())
}

/// The incident of a freeze: the one that is open, with the newest words, or a new one.
fn announce(tx: &mut Tx, freeze: &Freeze, actor: &Actor, now: Time) -> Result<IncidentId, StoreError> {
    let key = format!("{FREEZE}{}", freeze.scope);
    let title = format!("Automation frozen ({}) by {} {}: {}", freeze.scope, freeze.by, freeze.lasts(), freeze.why);
    let incident = match incidents::open_with(&tx.conn, &key)? {
        Some(open) => {
            exec(&tx.conn, "UPDATE incident SET title = ?2 WHERE id = ?1", params![open.0, title])?;
            open
        }
        None => {
            let (new, opened) = incidents::create(tx, &key, &title, &Subject::default(), Severity::Warning, now)?;
            tx.append(actor, EntryLinks { incident: Some(new), run: None }, &opened, now)?;
            new
        }
    };
    exec(&tx.conn, "UPDATE freeze SET incident = ?2 WHERE scope = ?1", params![freeze.scope, incident.0])?;
    Ok(incident)
}

fn incident_of(tx: &Tx, scope: &str) -> Result<Option<IncidentId>, StoreError> {
    let sql = "SELECT incident FROM freeze WHERE scope = ?1";
    Ok(one(&tx.conn, sql, [scope], |row| row.get::<Option<i64>>(0))?.flatten().map(IncidentId))
}

pub(crate) struct FreezeRelease {
    pub scope: String,
    pub by: String,
    pub why: String,
    pub persons: u32,
}

/// Where two users must agree, the first one's word is kept for a while and the second one's releases.
pub(crate) fn unfreeze(tx: &mut Tx, release: FreezeRelease, now: Time) -> Result<(), StoreError> {
    let FreezeRelease { scope, by, why, persons } = release;
    let sql = "SELECT release_by, release_at FROM freeze WHERE scope = ?1";
    let found = one(&tx.conn, sql, [&scope], |row| Ok((row.get::<Option<String>>(0)?, time_opt(row, 1)?)))?;
    let (first, asked_at) = found.ok_or_else(|| StoreError::NotFound { what: format!("freeze of `{scope}`") })?;
    if persons > 1 && !planted("one-person-releases") {
        if persons::is_unnamed(&tx.conn, &by)? {
            return Err(StoreError::Refused(format!("{by} {}", persons::UNNAMED)));
        }
        let fresh = asked_at.is_some_and(|at| at + limits::RELEASE_WINDOW.0 > now);
        match first.filter(|_| fresh) {
            Some(first) if persons::same(&tx.conn, &first, &by)? => {
                let also = if first == by { String::new() } else { format!(", as {first}") };
                let text =
                    format!("{by} already requested the release of `{scope}`{also}: a second person must confirm");
                return Err(StoreError::Refused(text));
            }
            Some(_) => {}
            None => {
                let about = EntryLinks { incident: incident_of(tx, &scope)?, run: None };
                let sql = "UPDATE freeze SET release_by = ?2, release_at = ?3 WHERE scope = ?1";
                exec(&tx.conn, sql, params![scope, by, micros(now)])?;
                let asked = EntryKind::ReleaseAsked { scope, by: by.clone(), why };
                return tx.append(&Actor::person(&by), about, &asked, now).map(drop);
            }
        }
    }
    let actor = Actor::person(&by);
    lift(tx, scope, by, why, &actor, now)
}

/// The freeze is over: its row goes, the ledger has an entry, and its incident is resolved.
fn lift(tx: &mut Tx, scope: String, by: String, why: String, actor: &Actor, now: Time) -> Result<(), StoreError> {
    let incident = incident_of(tx, &scope)?;
    if exec(&tx.conn, "DELETE FROM freeze WHERE scope = ?1", [&scope])? == 0 {
        return Err(StoreError::NotFound { what: format!("freeze of `{scope}`") });
    }
    let about = EntryLinks { incident, run: None };
    let released = format!("`{scope}` was released by {by}");
    tx.append(actor, about, &EntryKind::Unfrozen { scope, by, why }, now)?;
    let Some(incident) = incident else { return Ok(()) };
    let sql = "UPDATE incident SET closed_at = ?2 WHERE id = ?1 AND closed_at IS NULL";
    if exec(&tx.conn, sql, params![incident.0, micros(now)])? > 0 {
        tx.append(actor, about, &EntryKind::IncidentResolved { why: released }, now)?;
    }
    Ok(())
}

/// A release that no second user agreed to in time is no longer requested, on no page either.
pub(crate) fn forget_releases(tx: &Tx, now: Time) -> Result<(), StoreError> {
    let sql = "UPDATE freeze SET release_by = NULL, release_at = NULL WHERE release_at <= ?1";
    exec(&tx.conn, sql, [micros(now - limits::RELEASE_WINDOW.0)]).map(drop)
}

/// The scopes of freezes whose time has come.
pub(crate) fn due(conn: &dyn Db, now: Time) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT scope FROM freeze WHERE until <= ?1 ORDER BY until";
    all(conn, sql, [micros(now)], |row| row.get(0))
}

/// Ends one of them, if it is due still.
pub(crate) fn end(tx: &mut Tx, scope: &str, now: Time) -> Result<(), StoreError> {
    let sql = "SELECT by, until FROM freeze WHERE scope = ?1 AND until <= ?2";
    let found = one(&tx.conn, sql, params![scope, micros(now)], |row| Ok((row.get::<String>(0)?, time(row, 1)?)))?;
    let Some((by, until)) = found else { return Ok(()) };
    let why = format!("its end has come: {by} froze it until {}", until.strftime("%Y-%m-%d %H:%M UTC"));
    lift(tx, scope.to_owned(), "engine".to_owned(), why, &Actor::engine(), now)
}
