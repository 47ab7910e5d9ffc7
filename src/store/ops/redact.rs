//! Redaction: the body of an entry goes, its hash stays; requested by two users, and shown to every channel.
//!
//! Invariant: only entries with text from outside can go; entries about acts of users, and about refusals, stay.

use super::tx::Tx;
use super::{incidents, persons};
use crate::limits;
use crate::model::{Actor, EntryKind, EntryLinks, EntryNo, IncidentId, RunId, Severity, Subject, Time};
use crate::planted::planted;
use crate::store::StoreError;
use crate::store::db::{exec, micros, one, params, time};

/// How the keys of incidents begin that notify of a redaction.
const REDACTION: &str = "redaction/";

/// Kinds of entries with text from outside: from senders of alerts, the world, chats and runbooks, and the free words of a change
/// of a rule's mode. Everything else is evidence.
const FROM_OUTSIDE: [&str; 12] = [
    "heard",
    "gap",
    "incident_opened",
    "incident_grouped",
    "incident_recurred",
    "alerts_joined",
    "step_ended",
    "told",
    "delivery_failed",
    "remarked",
    "rule_promoted",
    "rule_demoted",
];

pub(crate) struct EntryRedaction {
    pub entry: EntryNo,
    pub by: String,
    pub why: String,
    pub persons: u32,
    pub notify: Vec<String>,
}

/// Where two users must agree, the first one's word is kept for a while, and the second one's redacts.
pub(crate) fn redact(tx: &mut Tx, wish: &EntryRedaction, now: Time) -> Result<(), StoreError> {
    let EntryRedaction { entry, by, why, .. } = wish;
    let sql = "SELECT body IS NULL, kind FROM entry WHERE no = ?1";
    let found = one(&tx.conn, sql, [entry.0], |row| Ok((row.get::<bool>(0)?, row.get::<String>(1)?)))?;
    match found {
        None => return Err(StoreError::NotFound { what: format!("entry {entry}") }),
        Some((true, _)) => return Err(StoreError::Refused(format!("the body of {entry} is gone already"))),
        Some((false, kind)) if !FROM_OUTSIDE.contains(&kind.as_str()) && !planted("evidence-can-be-redacted") => {
            let text = format!(
                "{entry} is of kind {kind}, which is evidence of actions and is never redacted: only text from outside \
                 is ({})",
                FROM_OUTSIDE.join(", ")
            );
            return Err(StoreError::Refused(text));
        }
        Some(_) => {}
    }
    let about = EntryLinks { incident: announced(tx, wish, now)?, run: None };
    if wish.persons > 1 {
        if persons::is_unnamed(&tx.conn, by)? {
            return Err(StoreError::Refused(format!("{by} {}", persons::UNNAMED)));
        }
        let sql = "SELECT by, at FROM redaction WHERE entry = ?1";
        let first = one(&tx.conn, sql, [entry.0], |row| Ok((row.get::<String>(0)?, time(row, 1)?)))?;
        match first.filter(|(_, at)| *at + limits::RELEASE_WINDOW.0 > now) {
            Some((first, _)) if persons::same(&tx.conn, &first, by)? => {
                let text = format!("{by} already requested the redaction of {entry}: a second person must confirm");
                return Err(StoreError::Refused(text));
            }
            Some(_) => {}
            None => {
                let sql = "INSERT INTO redaction (entry, by, at) VALUES (?1, ?2, ?3) \
                           ON CONFLICT (entry) DO UPDATE SET by = excluded.by, at = excluded.at";
                return exec(&tx.conn, sql, params![entry.0, by, micros(now)]).map(drop);
            }
        }
    }
    forget_copies(tx, *entry)?;
    exec(&tx.conn, "UPDATE entry SET body = NULL, salt = NULL WHERE no = ?1", [entry.0])?;
    exec(&tx.conn, "DELETE FROM redaction WHERE entry = ?1", [entry.0])?;
    let done = EntryKind::Redacted { entry: *entry, by: by.clone(), why: why.clone() };
    tx.append(&Actor::person(by), about, &done, now)?;
    let Some(incident) = about.incident else { return Ok(()) };
    let sql = "UPDATE incident SET closed_at = ?2 WHERE id = ?1 AND closed_at IS NULL";
    exec(&tx.conn, sql, params![incident.0, micros(now)])?;
    let over = EntryKind::IncidentResolved { why: format!("{entry} was redacted by {by}") };
    tx.append(&Actor::person(by), about, &over, now).map(drop)
}

/// The incident that shows every channel which entry is to go, and at whose request; none where neither a channel nor a
/// second user is to see it.
fn announced(tx: &mut Tx, wish: &EntryRedaction, now: Time) -> Result<Option<IncidentId>, StoreError> {
    if wish.notify.is_empty() && wish.persons < 2 {
        return Ok(None);
    }
    let key = format!("{REDACTION}{}", wish.entry);
    if let Some(open) = incidents::open_with(&tx.conn, &key)? {
        return Ok(Some(open));
    }
    let title = format!("Redaction of ledger entry {} requested by {}: {}", wish.entry, wish.by, wish.why);
    let (incident, opened) = incidents::create(tx, &key, &title, &Subject::default(), Severity::Warning, now)?;
    let about = EntryLinks { incident: Some(incident), run: None };
    let no = tx.append(&Actor::person(&wish.by), about, &opened, now)?;
    for channel in &wish.notify {
        tx.want(incident, channel, no, now)?;
    }
    Ok(Some(incident))
}

/// A run keeps the event that started it, for its script. Once it is over nothing needs that any more; before, the event
/// cannot go, because the script's replay would differ.
fn forget_copies(tx: &Tx, entry: EntryNo) -> Result<(), StoreError> {
    const SAID: &str = "episode IN (SELECT CAST(substr(json_extract(value, '$.episode'), 2) AS INTEGER) FROM \
        json_each((SELECT CAST(body AS TEXT) FROM entry WHERE no = ?1 AND kind = 'heard'), '$.events'))";
    let sql = format!("SELECT id FROM run WHERE final = 0 AND {SAID} LIMIT 1");
    if let Some(run) = one(&tx.conn, &sql, [entry.0], |row| Ok(RunId(row.get(0)?)))? {
        let text = format!("{run} still uses {entry}: cancel the run, or wait for its end");
        return Err(StoreError::Refused(text));
    }
    let words = "UPDATE level SET why = '(redacted)' WHERE at = \
                 (SELECT at FROM entry WHERE no = ?1 AND kind IN ('rule_promoted', 'rule_demoted'))";
    exec(&tx.conn, words, [entry.0])?;
    let sql = format!("UPDATE run SET input = json_set(input, '$.event', json('null')) WHERE final = 1 AND {SAID}");
    exec(&tx.conn, &sql, [entry.0]).map(drop)
}
