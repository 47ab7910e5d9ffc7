//! Subjects of the identity provider, and the users that they signed in as.
//!
//! Invariant: a subject that signed in as a user is that user until an admin unlinks it, and no second subject becomes
//! that user by the same mail.

use super::tx::Tx;
use crate::model::{Actor, EntryKind, EntryLinks, Time, subject_name};
use crate::planted::planted;
use crate::store::db::{Db, all, exec, micros, number, one, params};
use crate::store::{LinkOutcome, StoreError, SubjectLink};
use std::collections::BTreeSet;

pub(crate) fn links(conn: &dyn Db, issuer: &str, subject: &str) -> Result<Vec<SubjectLink>, StoreError> {
    let sql = "SELECT person, via, mail FROM subject_link WHERE issuer = ?1 AND subject = ?2 AND state = 'live' \
               ORDER BY since, person";
    all(conn, sql, [issuer, subject], |row| {
        Ok(SubjectLink {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            person: row.get(0)?,
            via: row.get(1)?,
            mail: row.get(2)?,
        })
    })
}

pub(crate) fn link(tx: &mut Tx, new: &SubjectLink, now: Time) -> Result<LinkOutcome, StoreError> {
    let sql = "SELECT via, mail, state FROM subject_link WHERE issuer = ?1 AND subject = ?2 AND person = ?3";
    let key = params![new.issuer, new.subject, new.person];
    let known = one(&tx.conn, sql, key, |row| {
        Ok((row.get::<String>(0)?, row.get::<Option<String>>(1)?, row.get::<String>(2)?))
    })?;
    let live = known.as_ref().filter(|(_, _, state)| state == "live");
    if live.is_none() && taken(tx, new)? && !planted("mail-moves-a-person") {
        // Once in the ledger, however often it is tried.
        if known.is_none() {
            write(tx, new, "refused", now)?;
            append(tx, refused(new), now)?;
        }
        return Ok(LinkOutcome::Taken);
    }
    match live {
        None => {
            write(tx, new, "live", now)?;
            append(tx, linked(new), now)?;
        }
        Some((via, mail, _)) if (via, mail) != (&new.via, &new.mail) => {
            write(tx, new, "live", now)?;
            if *mail != new.mail {
                append(tx, mail_changed(new), now)?;
            }
        }
        Some(_) => {}
    }
    Ok(LinkOutcome::Yes)
}

/// Whether another subject is the user by the same mail. An entry that names a subject is an admin's word.
fn taken(tx: &Tx, new: &SubjectLink) -> Result<bool, StoreError> {
    if !new.via.contains('@') {
        return Ok(false);
    }
    let sql = "SELECT count(*) FROM subject_link WHERE person = ?1 AND state = 'live' AND lower(via) = lower(?2) \
               AND issuer = ?3 AND subject <> ?4";
    Ok(number(&tx.conn, sql, params![new.person, new.via, new.issuer, new.subject])? > 0)
}

fn write(tx: &Tx, new: &SubjectLink, state: &str, now: Time) -> Result<(), StoreError> {
    let sql = "INSERT INTO subject_link (issuer, subject, name, person, via, mail, since, state) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (issuer, subject, person) \
               DO UPDATE SET via = excluded.via, mail = excluded.mail, state = excluded.state";
    let name = subject_name(&new.subject);
    let values = params![new.issuer, new.subject, name, new.person, new.via, new.mail, micros(now), state];
    exec(&tx.conn, sql, values).map(drop)
}

fn append(tx: &mut Tx, entry: EntryKind, now: Time) -> Result<(), StoreError> {
    tx.append(&Actor::engine(), EntryLinks::default(), &entry, now).map(drop)
}

fn linked(new: &SubjectLink) -> EntryKind {
    let SubjectLink { issuer, subject, person, mail, .. } = new.clone();
    EntryKind::SubjectLinked { person, issuer, subject, mail }
}

fn refused(new: &SubjectLink) -> EntryKind {
    let SubjectLink { issuer, subject, person, via, .. } = new.clone();
    EntryKind::SubjectRefused { person, issuer, subject, mail: via }
}

fn mail_changed(new: &SubjectLink) -> EntryKind {
    let SubjectLink { issuer, subject, person, mail, .. } = new.clone();
    EntryKind::SubjectMailChanged { person, issuer, subject, mail }
}

/// Decisions of before stay those of one human: the rows remain.
pub(crate) fn unlink(tx: &mut Tx, person: String, by: String, why: String, now: Time) -> Result<(), StoreError> {
    exec(&tx.conn, "DELETE FROM subject_link WHERE person = ?1 AND state = 'refused'", [&person])?;
    let sql = "UPDATE subject_link SET state = 'removed' WHERE person = ?1 AND state = 'live'";
    let subjects = exec(&tx.conn, sql, [&person])? as u64;
    if subjects == 0 {
        return Err(StoreError::NotFound { what: format!("subject of the identity provider that is `{person}`") });
    }
    let actor = Actor::person(&by);
    tx.append(&actor, EntryLinks::default(), &EntryKind::SubjectsUnlinked { person, subjects, by, why }, now).map(drop)
}

/// Other names of the same human: the user that a subject signed in as, and the subjects that are a user.
pub(crate) fn names(conn: &dyn Db, name: &str) -> Result<BTreeSet<String>, StoreError> {
    if planted("subject-is-dropped") {
        return Ok(BTreeSet::new());
    }
    let sql = "SELECT person FROM subject_link WHERE name = ?1 AND state <> 'refused' \
               UNION SELECT name FROM subject_link WHERE person = ?1 AND state = 'live' \
               UNION SELECT other.person FROM subject_link mine JOIN subject_link other \
               ON other.issuer = mine.issuer AND other.subject = mine.subject \
               WHERE mine.person = ?1 AND mine.state = 'live' AND other.state = 'live'";
    Ok(all(conn, sql, [name], |row| row.get::<String>(0))?.into_iter().collect())
}
