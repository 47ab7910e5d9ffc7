//! Reading: what pages, messages and loops ask for, put together from a filter.
//!
//! Invariant: a read sees only committed rows, and returns at most `limits::READ_LIMIT` rows.

use super::parked::{self, UnreadableRows, readable};
use super::rows;
use super::tx::StoredTree;
use crate::limits;
use crate::model::{
    Approval, DeliveryReceipt, Entry, EntryNo, Episode, EpisodeId, Freeze, Incident, IncidentId, Run, RunId, RunState,
    Span, Step, Time,
};
use crate::store::db::{Db, DbRow, Param, SqlDialect, all, json_opt, micros, number, one, params, time_opt};
use crate::store::ledger::{Checkpoint, EntryLeaf, LeafHash, consistency_proof, inclusion_proof};
use crate::store::{DueNotice, DueWork, Filter, GuardCounts, HeldNode, RawEntry, StoreCounts, StoreError};

/// Clusters take turns, so that those of one do not hide those of another; within one the longest due come first.
fn due_runs(dialect: &SqlDialect) -> String {
    format!(
        "SELECT id, cluster FROM (SELECT id, wake_at, cluster, \
         row_number() OVER (PARTITION BY cluster ORDER BY wake_at) AS place FROM \
         (SELECT id, wake_at, coalesce({}, '') AS cluster FROM run WHERE wake_at <= ?1 \
         AND NOT EXISTS (SELECT 1 FROM parked WHERE tab = 'run' AND row = CAST(run.id AS TEXT)))) \
         ORDER BY place, wake_at LIMIT ?2",
        dialect.subject_cluster
    )
}

const DUE_NOTICES: &str = "SELECT channel, incident, want, shown, receipt, attempts, sending, \
     coalesce((SELECT substr(key, 1, 12) = 'break-glass/' OR substr(key, 1, 7) = 'freeze/' \
     OR substr(key, 1, 10) = 'redaction/' FROM incident \
     WHERE incident.id = outbox.incident), 0), \
     urgent > coalesce(shown, -1), \
     coalesce((SELECT severity FROM incident WHERE incident.id = outbox.incident), 0), \
     coalesce((SELECT source FROM episode WHERE episode.incident = outbox.incident ORDER BY id LIMIT 1), '') \
     FROM outbox WHERE want > done AND next_at <= ?1 \
     AND NOT EXISTS (SELECT 1 FROM parked WHERE tab = 'outbox' AND row = incident || '/' || channel) \
     ORDER BY next_at LIMIT ?2";
const NEXT_DUE: [&str; 4] = [
    "SELECT min(wake_at) FROM run WHERE wake_at > ?1",
    "SELECT min(next_at) FROM outbox WHERE want > done AND next_at > ?1",
    "SELECT min(expires_at) FROM approval WHERE state = 'open' AND expires_at > ?1",
    "SELECT min(resolves_at) FROM incident WHERE resolves_at IS NOT NULL AND resolves_at > ?1",
];

pub(crate) fn due(conn: &dyn Db, now: Time, limit: usize, unreadable: &UnreadableRows) -> Result<DueWork, StoreError> {
    let limit = limit.min(limits::READ_LIMIT) as i64;
    let now = micros(now);
    let due = all(conn, &due_runs(conn.dialect()), params![now, limit], |row| {
        Ok((RunId(row.get(0)?), row.get::<String>(1)?))
    })?;
    let (runs, clusters) = due.into_iter().unzip();
    let place = |row: &DbRow<'_>| Ok(format!("{}/{}", row.get::<i64>(1)?, row.get::<String>(0)?));
    let notice = |row: &DbRow<'_>| {
        Ok(DueNotice {
            channel: row.get(0)?,
            incident: IncidentId(row.get(1)?),
            want: EntryNo(row.get(2)?),
            shown: row.get::<Option<i64>>(3)?.map(EntryNo),
            receipt: json_opt::<DeliveryReceipt>(row, 4)?,
            attempts: row.get(5)?,
            maybe_sent: row.get(6)?,
            alone: row.get(7)?,
            urgent: row.get(8)?,
            severity: super::rows::severity(row.get(9)?),
            source: row.get(10)?,
        })
    };
    let notices = readable(conn, DUE_NOTICES, params![now, limit], ("outbox", &place), notice, unreadable)?;
    let mut next: Option<Time> = None;
    for sql in NEXT_DUE {
        let at = one(conn, sql, [now], |row| time_opt(row, 0))?.flatten();
        next = [next, at].into_iter().flatten().min();
    }
    Ok(DueWork { runs, clusters, notices, next })
}

/// A `SELECT` that a filter puts together.
struct SelectQuery {
    sql: String,
    terms: Vec<String>,
    values: Vec<Box<dyn Param>>,
}

impl SelectQuery {
    fn new(columns: &str, from: &str) -> SelectQuery {
        SelectQuery { sql: format!("SELECT {columns} FROM {from}"), terms: Vec::new(), values: Vec::new() }
    }

    /// A term with one `?`.
    fn with(mut self, term: &str, value: Option<i64>) -> SelectQuery {
        if let Some(value) = value {
            self.terms.push(term.to_owned());
            self.values.push(Box::new(value));
        }
        self
    }

    fn only(mut self, term: &str, wanted: bool) -> SelectQuery {
        if wanted {
            self.terms.push(term.to_owned());
        }
        self
    }

    fn with_text(mut self, term: &str, value: Option<&String>) -> SelectQuery {
        if let Some(value) = value {
            self.terms.push(term.to_owned());
            self.values.push(Box::new(value.clone()));
        }
        self
    }

    /// The rows, newest first, or in order after `filter.after`. One that cannot be read is left out and noted, and others
    /// take its place, so that fewer than `limit` rows are the last ones; where it is the requested one (`alone`), that is
    /// an error.
    fn rows<T>(
        mut self,
        conn: &dyn Db,
        filter: &Filter,
        (table, key, alone): (&'static str, &str, bool),
        mut map: impl FnMut(&DbRow<'_>) -> Result<T, StoreError>,
        unreadable: &UnreadableRows,
    ) -> Result<Vec<T>, StoreError> {
        self = self.with(&format!("{key} > ?"), filter.after).with(&format!("{key} < ?"), filter.before);
        let (order, beyond) = if filter.after.is_some() { ("ASC", '>') } else { ("DESC", '<') };
        let limit = filter.limit.min(limits::READ_LIMIT);
        if alone {
            return all(conn, &self.sql_of(key, order, limit), self.values, map);
        }
        let mut good: Vec<T> = Vec::new();
        let (terms, mut wanted) = (self.terms.len(), limit);
        loop {
            let (mut seen, mut last) = (0, 0);
            let counted = |row: &DbRow<'_>| {
                (seen, last) = (seen + 1, row.get::<i64>(0)?);
                map(row)
            };
            let sql = self.sql_of(key, order, wanted);
            let values: Vec<&dyn Param> = self.values.iter().map(|value| &**value).collect();
            let read = readable(conn, &sql, values.as_slice(), (table, &parked::number), counted, unreadable)?;
            let rest = read.len() < seen && seen == wanted;
            good.extend(read);
            good.truncate(limit);
            if !rest || good.len() == limit {
                return Ok(good);
            }
            // Many rows in a row may be unreadable.
            wanted = (limit - good.len()).max(limits::READ_AT_LEAST);
            self.terms.truncate(terms);
            self = self.only(&format!("{key} {beyond} {last}"), true);
        }
    }

    fn sql_of(&self, key: &str, order: &str, limit: usize) -> String {
        let and = if self.terms.is_empty() { "" } else { " WHERE " };
        format!("{}{and}{} ORDER BY {key} {order} LIMIT {limit}", self.sql, self.terms.join(" AND "))
    }
}

/// An incident is about a node by its own subject, by that of a run, or as a group that the node is part of.
fn of_node(dialect: &SqlDialect) -> String {
    let SqlDialect { subject_node, position, .. } = dialect;
    format!(
        "EXISTS (SELECT 1 FROM (SELECT ? AS node) AS asked WHERE {subject_node} = asked.node \
         OR EXISTS (SELECT 1 FROM run WHERE run.incident = incident.id AND {subject_node} = asked.node) \
         OR EXISTS (SELECT 1 FROM grouped WHERE grouped.incident = incident.id \
                    AND {position}(',' || grouped.key || ',', ',node=' || asked.node || ',') > 0))"
    )
}

pub(crate) fn incidents(
    conn: &dyn Db,
    filter: &Filter,
    unreadable: &UnreadableRows,
) -> Result<Vec<Incident>, StoreError> {
    SelectQuery::new(rows::INCIDENT, "incident")
        .with("id = ?", filter.incident.map(|id| id.0))
        .with("id = (SELECT incident FROM run WHERE id = ?)", filter.run.map(|id| id.0))
        .only("closed_at IS NULL", filter.open)
        .only("closed_at IS NULL AND acknowledged_by IS NULL", filter.state == Some("open"))
        .only("closed_at IS NULL AND acknowledged_by IS NOT NULL", filter.state == Some("acknowledged"))
        .only("closed_at IS NOT NULL", filter.state == Some("resolved"))
        .with("severity >= ?", filter.severity.map(|severity| severity as i64))
        .with_text(&of_node(conn.dialect()), filter.node.as_ref())
        .with_text("id IN (SELECT incident FROM run WHERE rule = ?)", filter.rule.as_ref())
        .with("opened_at >= ?", filter.since.map(micros))
        .rows(conn, filter, ("incident", "id", filter.incident.is_some()), rows::incident, unreadable)
}

pub(crate) fn episodes(
    conn: &dyn Db,
    filter: &Filter,
    unreadable: &UnreadableRows,
) -> Result<Vec<Episode>, StoreError> {
    SelectQuery::new(&rows::episode_columns(conn.dialect()), rows::EPISODE_FROM)
        .with("e.incident = ?", filter.incident.map(|id| id.0))
        .with("e.id = (SELECT episode FROM run WHERE id = ?)", filter.run.map(|id| id.0))
        .only("e.state = 0", filter.open)
        .rows(conn, filter, ("episode", "e.id", false), rows::episode, unreadable)
}

pub(crate) fn runs(conn: &dyn Db, filter: &Filter, unreadable: &UnreadableRows) -> Result<Vec<Run>, StoreError> {
    let dialect = conn.dialect();
    SelectQuery::new(rows::RUN, "run")
        .with("incident = ?", filter.incident.map(|id| id.0))
        .with("id = ?", filter.run.map(|id| id.0))
        .only("final = 0", filter.open)
        .only(&filter.state.map(|word| in_state(dialect, word)).unwrap_or_default(), filter.state.is_some())
        .with_text(&format!("{} = ?", dialect.subject_node), filter.node.as_ref())
        .with_text("rule = ?", filter.rule.as_ref())
        .with("created_at >= ?", filter.since.map(micros))
        .rows(conn, filter, ("run", "id", filter.run.is_some()), rows::run, unreadable)
}

/// Runs in a state, by its word. Older rows have `denied` for each that was not done, and only the reason tells them
/// apart.
fn in_state(dialect: &SqlDialect, word: &'static str) -> String {
    let SqlDialect { state_is, state_code, .. } = dialect;
    let codes = RunState::codes(word);
    if word == "denied" {
        return format!("{state_is} IN ('denied', 'expired', 'cancelled', 'withdrawn', 'refused')");
    }
    if codes.is_empty() {
        return format!("{state_is} = '{word}'");
    }
    let codes: Vec<String> = codes.iter().map(|code| format!("'{}'", code.name())).collect();
    let codes = codes.join(", ");
    format!("({state_is} = '{word}' OR ({state_is} = 'denied' AND {state_code} IN ({codes})))")
}

/// What is about a run is about the node of the run's subject.
fn runs_of_node(dialect: &SqlDialect) -> String {
    format!("run IN (SELECT id FROM run WHERE {} = ?)", dialect.subject_node)
}

pub(crate) fn approvals(
    conn: &dyn Db,
    filter: &Filter,
    unreadable: &UnreadableRows,
) -> Result<Vec<Approval>, StoreError> {
    SelectQuery::new(&rows::approval_columns(conn.dialect()), "approval")
        .with("run IN (SELECT id FROM run WHERE incident = ?)", filter.incident.map(|id| id.0))
        .with("run = ?", filter.run.map(|id| id.0))
        .only("state = 'open'", filter.open)
        .with_text("state = ?", filter.state.map(str::to_owned).as_ref())
        .with_text(&runs_of_node(conn.dialect()), filter.node.as_ref())
        .with_text("run IN (SELECT id FROM run WHERE rule = ?)", filter.rule.as_ref())
        .with("asked_at >= ?", filter.since.map(micros))
        .rows(conn, filter, ("approval", "id", false), rows::approval, unreadable)
}

/// `Heard` entries are about many incidents; for one of them they are found only when requested by kind.
pub(crate) fn entries(conn: &dyn Db, filter: &Filter, unreadable: &UnreadableRows) -> Result<Vec<Entry>, StoreError> {
    let mut query =
        SelectQuery::new(rows::RAW, "entry").only("body IS NOT NULL", true).with("run = ?", filter.run.map(|id| id.0));
    query = match filter.incident {
        Some(id) if filter.kinds.contains(&"heard") => {
            let (about, heard) =
                ("SELECT no FROM entry WHERE incident = ?", "SELECT heard FROM episode WHERE incident = ?");
            query = query.with(&format!("no IN ({about} UNION {heard})"), Some(id.0));
            query.values.push(Box::new(id.0));
            query
        }
        incident => query.with("incident = ?", incident.map(|id| id.0)),
    };
    query = query
        .with_text(&runs_of_node(conn.dialect()), filter.node.as_ref())
        .with_text("run IN (SELECT id FROM run WHERE rule = ?)", filter.rule.as_ref())
        .with("at >= ?", filter.since.map(micros));
    if !filter.kinds.is_empty() {
        query.terms.push(format!("kind IN ({})", vec!["?"; filter.kinds.len()].join(", ")));
        query.values.extend(filter.kinds.iter().map(|kind| Box::new(*kind) as Box<dyn Param>));
    }
    query.rows(conn, filter, ("entry", "no", false), |row| entry(rows::raw(row)?), unreadable)
}

/// An entry from its row: number and time stand outside the body.
pub(crate) fn entry(raw: RawEntry) -> Result<Entry, StoreError> {
    let damaged = |what: String| StoreError::Damaged(format!("entry {}: {what}", raw.no));
    let body = raw.body.as_deref().unwrap_or_default();
    let body: super::tx::StoredEntry = serde_json::from_slice(body).map_err(|error| damaged(error.to_string()))?;
    let at = Time::from_microsecond(raw.at).map_err(|error| damaged(error.to_string()))?;
    Ok(Entry { no: raw.no, at, actor: body.actor, about: body.about, kind: body.kind })
}

pub(crate) fn freezes(conn: &dyn Db) -> Result<Vec<Freeze>, StoreError> {
    all(conn, rows::FREEZES, [], rows::freeze)
}

pub(crate) fn counts(conn: &dyn Db) -> Result<StoreCounts, StoreError> {
    let count = |sql: &str| Ok::<u64, StoreError>(number(conn, sql, [])? as u64);
    Ok(StoreCounts {
        episodes_open: count("SELECT count(*) FROM episode WHERE state = 0")?,
        incidents_open: count("SELECT count(*) FROM incident WHERE closed_at IS NULL")?,
        runs_unfinished: count("SELECT count(*) FROM run WHERE final = 0")?,
        approvals_open: count("SELECT count(*) FROM approval WHERE state = 'open'")?,
        notices_due: count("SELECT count(*) FROM outbox WHERE want > done")?,
        oldest_notice: one(conn, "SELECT min(next_at) FROM outbox WHERE want > done", [], |row| time_opt(row, 0))?
            .flatten(),
        entries: count("SELECT coalesce(max(no), -1) + 1 FROM entry")?,
        signed: count("SELECT coalesce(max(size), 0) FROM checkpoint")?,
        freezes: count("SELECT count(*) FROM freeze")?,
        nodes_held: count("SELECT count(*) FROM hold")?,
    })
}

pub(crate) fn holds(conn: &dyn Db) -> Result<Vec<HeldNode>, StoreError> {
    let sql = "SELECT hold.cluster, hold.node, run.id, run.runbook FROM hold JOIN run ON run.id = hold.run \
               ORDER BY 1, 2 LIMIT ?1";
    all(conn, sql, [i64::from(limits::NODES)], |row| {
        Ok(HeldNode { cluster: row.get(0)?, node: row.get(1)?, run: RunId(row.get(2)?), runbook: row.get(3)? })
    })
}

pub(crate) fn pressure(conn: &dyn Db, now: Time) -> Result<GuardCounts, StoreError> {
    let since = |span: Span| micros(now).saturating_sub(i64::try_from(span.0.as_micros()).unwrap_or(i64::MAX));
    let taken = |span: Span| {
        let sql = "SELECT DISTINCT cluster, node FROM taken WHERE at > ?1 ORDER BY 1, 2 LIMIT ?2";
        all(conn, sql, [since(span), i64::from(limits::NODES)], |row| Ok((row.get(0)?, row.get(1)?)))
    };
    // Symptoms before the reset of the rule's breaker do not count.
    let greatest = conn.dialect().greatest;
    let sql = format!(
        "SELECT rule, count(DISTINCT node) AS nodes FROM symptom WHERE at > {greatest}(?1, \
         coalesce((SELECT max(reset_at) FROM breaker WHERE scope = 'symptom:' || symptom.rule), ?1)) \
         GROUP BY rule ORDER BY nodes DESC, rule LIMIT 1"
    );
    Ok(GuardCounts {
        taken_hour: taken(limits::HOUR)?,
        taken_day: taken(limits::DAY)?,
        symptom: one(conn, &sql, [since(limits::SYMPTOM_WINDOW)], |row| Ok((row.get(0)?, row.get(1)?)))?,
    })
}

pub(crate) fn unseen(
    conn: &dyn Db,
    source: &str,
    before: Time,
    after: Option<(Time, EpisodeId)>,
    limit: usize,
    unreadable: &UnreadableRows,
) -> Result<Vec<Episode>, StoreError> {
    let sql = format!(
        "SELECT {} FROM {} WHERE e.source = ?1 AND e.state = 0 AND e.last_seen < ?2 AND (e.last_seen, e.id) > (?3, ?4) \
         ORDER BY e.last_seen, e.id LIMIT ?5",
        rows::episode_columns(conn.dialect()),
        rows::EPISODE_FROM
    );
    let (seen, id) = after.map_or((i64::MIN, i64::MIN), |(seen, id)| (micros(seen), id.0));
    let values = params![source, micros(before), seen, id, limit.min(limits::READ_LIMIT) as i64];
    readable(conn, &sql, values, ("episode", &parked::number), rows::episode, unreadable)
}

pub(crate) fn steps(conn: &dyn Db, run: RunId) -> Result<Vec<Step>, StoreError> {
    super::runs::journal(conn, run)
}

pub(crate) fn pinned(conn: &dyn Db, hash: &str) -> Result<Option<String>, StoreError> {
    one(conn, "SELECT text FROM pin WHERE hash = ?1", [hash], |row| row.get(0))
}

pub(crate) fn raw_entries(conn: &dyn Db, after: Option<EntryNo>, limit: usize) -> Result<Vec<RawEntry>, StoreError> {
    let sql = format!("SELECT {} FROM entry WHERE no > ?1 ORDER BY no LIMIT ?2", rows::RAW);
    let after = after.map_or(-1, |no| no.0);
    all(conn, &sql, params![after, limit.min(limits::READ_LIMIT) as i64], rows::raw)
}

pub(crate) fn checkpoints(conn: &dyn Db, after: u64, limit: usize) -> Result<Vec<Checkpoint>, StoreError> {
    let sql = "SELECT size, note FROM checkpoint WHERE size > ?1 ORDER BY size LIMIT ?2";
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    all(conn, sql, params![after, limit.min(limits::READ_LIMIT) as i64], |row| {
        Ok(Checkpoint { size: row.get::<i64>(0)?.unsigned_abs(), note: row.get(1)? })
    })
}

/// That the tree holds so many entries.
fn has(conn: &dyn Db, size: u64) -> Result<(), StoreError> {
    let there = number(conn, "SELECT coalesce(max(no), -1) + 1 FROM entry", [])? as u64;
    if size > there {
        return Err(StoreError::Refused(format!("the ledger has {there} entries, not {size}")));
    }
    Ok(())
}

pub(crate) fn inclusion(conn: &dyn Db, no: EntryNo, size: u64) -> Result<(LeafHash, Vec<LeafHash>), StoreError> {
    has(conn, size)?;
    let index = u64::try_from(no.0).ok().filter(|index| *index < size);
    let index = index.ok_or_else(|| StoreError::Refused(format!("{no} is not among the first {size} entries")))?;
    let leaf = one(conn, "SELECT no, at, commitment FROM entry WHERE no = ?1", [no.0], |row| {
        Ok(EntryLeaf { no, at: row.get(1)?, commit: LeafHash(row.get(2)?) }.hash())
    })?;
    let leaf = leaf.ok_or_else(|| StoreError::Damaged(format!("entry {no} is missing")))?;
    Ok((leaf, inclusion_proof(&mut StoredTree { conn }, index, size)?))
}

pub(crate) fn consistency(conn: &dyn Db, old: u64, new: u64) -> Result<Vec<LeafHash>, StoreError> {
    has(conn, new)?;
    if old == 0 || old > new {
        return Err(StoreError::Refused(format!(
            "a consistency proof needs a smaller tree first: {old} is larger than {new}"
        )));
    }
    consistency_proof(&mut StoredTree { conn }, old, new)
}
