//! The outbox: the entry up to which each channel should show each incident, and the results of sending it.
//!
//! Invariant: a channel that failed keeps wanting; its next attempt is later, and nothing behind it waits. Changes
//! between the read behind a report and the report itself (`want` or `urgent` beyond its `upto`) is due at once.

use super::tx::Tx;
use crate::model::{Actor, EntryKind, EntryLinks, EntryNo, IncidentId, Time};
use crate::store::db::{exec, micros, one, params, to_json};
use crate::store::{DeliveryOutcome, StoreError};

pub(crate) fn receipted(
    tx: &mut Tx,
    channel: &str,
    incident: IncidentId,
    what: DeliveryOutcome,
    now: Time,
) -> Result<(), StoreError> {
    let attempts = attempts(tx, channel, incident)?;
    let greatest = tx.conn.dialect().greatest;
    match what {
        DeliveryOutcome::Sending => {
            let sql = "UPDATE outbox SET sending = 1 WHERE incident = ?1 AND channel = ?2";
            exec(&tx.conn, sql, params![incident.0, channel])?;
            Ok(())
        }
        DeliveryOutcome::Delivered { upto, receipt } => {
            let sql = format!(
                "UPDATE outbox SET sending = 0, attempts = 0, done = {greatest}(done, ?3), \
                 shown = {greatest}(coalesce(shown, -1), ?3), receipt = ?4, \
                 next_at = CASE WHEN urgent > ?3 THEN ?6 ELSE ?5 END WHERE incident = ?1 AND channel = ?2"
            );
            let receipt = to_json(&receipt)?;
            // Changes of the next moments go into one more edit, not into one each.
            let next = now + crate::limits::NOTICE_PACE;
            exec(&tx.conn, &sql, params![incident.0, channel, upto.0, receipt, micros(next), micros(now)])?;
            record(tx, incident, EntryKind::Delivered { channel: channel.to_owned(), upto }, now)
        }
        DeliveryOutcome::Nothing { upto, receipt } => {
            let sql = format!(
                "UPDATE outbox SET sending = 0, attempts = 0, done = {greatest}(done, ?3), \
                 shown = {greatest}(coalesce(shown, -1), ?3), receipt = coalesce(?4, receipt), \
                 next_at = CASE WHEN urgent > ?3 THEN ?6 ELSE ?5 END WHERE incident = ?1 AND channel = ?2"
            );
            let receipt = receipt.as_ref().map(to_json).transpose()?;
            // An incident without a message on the channel is looked at no more often than one with a message.
            let next = now + crate::limits::NOTICE_PACE;
            exec(&tx.conn, &sql, params![incident.0, channel, upto.0, receipt, micros(next), micros(now)])?;
            Ok(())
        }
        DeliveryOutcome::Retry { why, at } => {
            let sql = "UPDATE outbox SET sending = 0, attempts = attempts + 1, next_at = ?3 \
                       WHERE incident = ?1 AND channel = ?2";
            exec(&tx.conn, sql, params![incident.0, channel, micros(at)])?;
            // One line for a series of failures: the attempts are counted in the row.
            if attempts > 0 {
                return Ok(());
            }
            record(tx, incident, EntryKind::DeliveryFailed { channel: channel.to_owned(), why, final_: false }, now)
        }
        DeliveryOutcome::Later { upto, at } => {
            // A first message waits for nothing but news, as in `Tx::bump`.
            let sql = "UPDATE outbox SET next_at = CASE WHEN urgent > ?3 OR (shown IS NULL AND want > ?3) THEN ?5 ELSE ?4 END \
                       WHERE incident = ?1 AND channel = ?2";
            exec(&tx.conn, sql, params![incident.0, channel, upto.0, micros(at), micros(now)])?;
            Ok(())
        }
        DeliveryOutcome::Judged { upto, paged, why, until, news } => {
            if !paged {
                let sql = format!(
                    "UPDATE outbox SET sending = 0, done = CASE WHEN ?4 THEN done ELSE {greatest}(done, ?3) END, \
                     next_at = CASE WHEN want > ?3 THEN ?6 ELSE ?5 END WHERE incident = ?1 AND channel = ?2"
                );
                let at = micros(until.unwrap_or(now));
                exec(&tx.conn, &sql, params![incident.0, channel, upto.0, until.is_some(), at, micros(now)])?;
            }
            if !news {
                return Ok(());
            }
            record(tx, incident, EntryKind::PageJudged { channel: channel.to_owned(), paged, why, until }, now)
        }
        DeliveryOutcome::Refused { upto, why } => {
            let sql = format!(
                "UPDATE outbox SET sending = 0, attempts = 0, done = {greatest}(done, ?3), next_at = ?4 \
                 WHERE incident = ?1 AND channel = ?2"
            );
            exec(&tx.conn, &sql, params![incident.0, channel, upto.0, micros(now)])?;
            record(tx, incident, EntryKind::DeliveryFailed { channel: channel.to_owned(), why, final_: true }, now)
        }
    }
}

fn attempts(tx: &Tx, channel: &str, incident: IncidentId) -> Result<u32, StoreError> {
    let sql = "SELECT attempts FROM outbox WHERE incident = ?1 AND channel = ?2";
    let attempts = one(&tx.conn, sql, params![incident.0, channel], |row| row.get::<u32>(0))?;
    attempts.ok_or_else(|| StoreError::NotFound { what: format!("notice of {incident} for channel `{channel}`") })
}

fn record(tx: &mut Tx, incident: IncidentId, kind: EntryKind, now: Time) -> Result<(), StoreError> {
    let about = EntryLinks { incident: Some(incident), run: None };
    let _: EntryNo = tx.append(&Actor::engine(), about, &kind, now)?;
    Ok(())
}
