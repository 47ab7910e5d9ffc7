//! How rows become nouns again.
//!
//! Invariant: one list of columns and one reader for each noun.

use crate::model::{
    Approval, ApprovalId, EntryNo, Episode, EpisodeId, EpisodeState, Event, EventStatus, Freeze, Incident, IncidentId,
    IncidentState, Labels, Run, RunId, RunbookPin, Severity, Step, Subject,
};
use crate::store::db::{DbRow, SqlDialect, json, json_opt, time, time_opt, word};
use crate::store::ledger::LeafHash;
use crate::store::{RawEntry, StoreError};
use serde_json::Value;

pub(crate) const RUN: &str = "id, rule, incident, episode, runbook, hash, input, subject, mode, state, wake_at, epoch, \
     approved, unwinding, created_at, ended_at, requested_by, posted_by";

pub(crate) fn run(row: &DbRow<'_>) -> Result<Run, StoreError> {
    Ok(Run {
        id: RunId(row.get(0)?),
        rule: row.get(1)?,
        incident: row.get::<Option<i64>>(2)?.map(IncidentId),
        episode: row.get::<Option<i64>>(3)?.map(EpisodeId),
        runbook: RunbookPin { name: row.get(4)?, hash: row.get(5)? },
        input: json(row, 6)?,
        subject: json(row, 7)?,
        mode: word(row, 8)?,
        state: json(row, 9)?,
        wake_at: time_opt(row, 10)?,
        epoch: row.get(11)?,
        approved: json_opt(row, 12)?,
        unwinding: row.get(13)?,
        created_at: time(row, 14)?,
        ended_at: time_opt(row, 15)?,
        requested_by: row.get(16)?,
        posted_by: row.get(17)?,
    })
}

pub(crate) const STEP: &str = "run, no, call, effect, undoes, begun_at, deadline, attempt, carry, outcome, ended_at, \
     incarnation";

pub(crate) fn step(row: &DbRow<'_>) -> Result<Step, StoreError> {
    Ok(Step {
        run: RunId(row.get(0)?),
        no: row.get(1)?,
        call: json(row, 2)?,
        effect: word(row, 3)?,
        undoes: row.get(4)?,
        begun_at: time(row, 5)?,
        deadline: time(row, 6)?,
        attempt: row.get(7)?,
        carry: json::<Value>(row, 8)?,
        outcome: json_opt(row, 9)?,
        ended_at: time_opt(row, 10)?,
        incarnation: row.get(11)?,
    })
}

pub(crate) fn approval_columns(dialect: &SqlDialect) -> String {
    format!(
        "id, run, question, plan_hash, plan, step, state, asked_at, expires_at, approvers, decided_by, decided_at, needed, \
         foretold, (SELECT {}(who) FROM decision WHERE decision.approval = approval.id)",
        dialect.json_list
    )
}

pub(crate) fn approval(row: &DbRow<'_>) -> Result<Approval, StoreError> {
    Ok(Approval {
        id: ApprovalId(row.get(0)?),
        run: RunId(row.get(1)?),
        question: row.get(2)?,
        plan_hash: row.get(3)?,
        plan: json_opt(row, 4)?,
        step: row.get(5)?,
        state: word(row, 6)?,
        asked_at: time(row, 7)?,
        expires_at: time(row, 8)?,
        approvers: json(row, 9)?,
        decided_by: row.get(10)?,
        decided_at: time_opt(row, 11)?,
        needed: row.get(12)?,
        foretold: json_opt(row, 13)?.unwrap_or_default(),
        given: json(row, 14)?,
    })
}

pub(crate) const INCIDENT: &str = "id, key, title, subject, severity, opened_at, closed_at, acknowledged_by, firing, episodes, owner, \
     resolves_at, incarnation";

pub(crate) fn incident(row: &DbRow<'_>) -> Result<Incident, StoreError> {
    let (closed_at, acknowledged_by) = (time_opt(row, 6)?, row.get::<Option<String>>(7)?);
    let state = match (&closed_at, &acknowledged_by) {
        (Some(_), _) => IncidentState::Resolved,
        (None, Some(_)) => IncidentState::Acknowledged,
        (None, None) => IncidentState::Open,
    };
    Ok(Incident {
        id: IncidentId(row.get(0)?),
        key: row.get(1)?,
        title: row.get(2)?,
        subject: json(row, 3)?,
        severity: severity(row.get(4)?),
        state,
        opened_at: time(row, 5)?,
        closed_at,
        acknowledged_by,
        firing: row.get(8)?,
        episodes: row.get(9)?,
        owner: row.get(10)?,
        resolves_at: time_opt(row, 11)?,
        incarnation: row.get(12)?,
    })
}

/// The severity of a stored rank.
pub fn severity(rank: i64) -> Severity {
    match rank {
        0 => Severity::Info,
        1 => Severity::Warning,
        2 => Severity::Error,
        _ => Severity::Critical,
    }
}

/// The event is cut out of the body of its `Heard` entry; none once that body is gone.
pub(crate) fn episode_columns(dialect: &SqlDialect) -> String {
    format!(
        "e.id, e.state, e.incident, e.opened_at, e.last_seen, e.seen, e.reopened, e.source, e.fingerprint, e.starts_at, {}",
        dialect.event_text
    )
}

pub(crate) const EPISODE_FROM: &str = "episode e JOIN entry n ON n.no = e.heard";

pub(crate) fn episode(row: &DbRow<'_>) -> Result<Episode, StoreError> {
    let state = episode_state(row.get(1)?);
    let mut event = match json_opt::<Event>(row, 10)? {
        Some(event) => event,
        None => Event {
            source: row.get(7)?,
            fingerprint: row.get(8)?,
            status: if state == EpisodeState::Open { EventStatus::Firing } else { EventStatus::Resolved },
            starts_at: time(row, 9)?,
            ends_at: None,
            labels: Labels::default(),
            annotations: Labels::default(),
            subject: Subject::default(),
            severity: Severity::default(),
            summary: Event::REMOVED.to_owned(),
            url: String::new(),
        },
    };
    // Replicas of a source need not agree on the start: the earliest one counts.
    event.starts_at = time(row, 9)?;
    Ok(Episode {
        id: EpisodeId(row.get(0)?),
        state,
        incident: row.get::<Option<i64>>(2)?.map(IncidentId),
        opened_at: time(row, 3)?,
        last_seen: time(row, 4)?,
        seen: row.get(5)?,
        reopened: row.get(6)?,
        event,
    })
}

pub(crate) fn episode_state(number: i64) -> EpisodeState {
    match number {
        0 => EpisodeState::Open,
        1 => EpisodeState::Resolved,
        _ => EpisodeState::Stale,
    }
}

pub(crate) const RAW: &str = "no, at, commitment, salt, body";

pub(crate) fn raw(row: &DbRow<'_>) -> Result<RawEntry, StoreError> {
    Ok(RawEntry {
        no: EntryNo(row.get(0)?),
        at: row.get(1)?,
        commit: LeafHash(row.get(2)?),
        salt: row.get(3)?,
        body: row.get(4)?,
    })
}

pub(crate) const FREEZES: &str = "SELECT scope, by, why, since, release_by, until FROM freeze ORDER BY scope";

pub(crate) fn freeze(row: &DbRow<'_>) -> Result<Freeze, StoreError> {
    Ok(Freeze {
        scope: row.get(0)?,
        by: row.get(1)?,
        why: row.get(2)?,
        since: time(row, 3)?,
        release_by: row.get(4)?,
        until: time_opt(row, 5)?,
    })
}
