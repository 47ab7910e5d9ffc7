//! The record of a rule's runs: planned, judged, done, and whether it held. Written in the transactions that saw it.
//!
//! Invariant: a row belongs to one run and one content; it has the reviews and the outcome of that run, nothing else.

use super::ladder::{self, FollowUpEntries};
use super::people::UserAnswer;
use super::runs::{self, about, has_acted};
use super::tx::Tx;
use crate::limits;
use crate::model::{
    Actor, Approval, EntryKind, EntryLinks, EpisodeState, IncidentId, Mode, Plan, PlanEnd, RuleSnapshot, RuleStats,
    Run, RunId, RunState, Span, Subject, Time, VerificationResult,
};
use crate::planted::planted;
use crate::store::StoreError;
use crate::store::db::{Db, all, exec, micros, number, one, params, time_opt, to_json, to_word};
use std::time::Duration;

/// A rule has started a run.
pub(crate) fn begin(
    conn: &dyn Db,
    run: RunId,
    rule: &str,
    terms: &RuleSnapshot,
    subject: &Subject,
    mode: Mode,
    now: Time,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO record (run, rule, content, file, bake, demote_auto, demote_approve, subject, mode, at, tell) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let values = params![
        run.0,
        rule,
        terms.content,
        to_word(&terms.file)?,
        micros_of(terms.bake),
        terms.demote.auto,
        terms.demote.approve,
        to_json(subject)?,
        to_word(&mode)?,
        micros(now),
        to_json(&terms.tell)?
    ];
    exec(conn, sql, values).map(drop)
}

pub(crate) fn planned(conn: &dyn Db, run: RunId, plan: &Plan) -> Result<(), StoreError> {
    let whole = matches!(plan.end, PlanEnd::Done | PlanEnd::Stopped(_));
    exec(conn, "UPDATE record SET planned = ?2 WHERE run = ?1", params![run.0, whole]).map(drop)
}

/// A user has answered a question about a plan: that is a judgement, too; a no counts as one if it has a reason.
pub(crate) fn answered(
    tx: &mut Tx,
    asked: &Approval,
    answer: &UserAnswer,
    now: Time,
) -> Result<FollowUpEntries, StoreError> {
    if asked.step.is_some() {
        return Ok(FollowUpEntries::default());
    }
    let said = match (answer.approved, answer.why.trim().is_empty()) {
        (true, _) => 1,
        (false, false) => 0,
        (false, true) => -1,
    };
    let took = answer.approved.then(|| micros(now).saturating_sub(micros(asked.asked_at)).max(0));
    let sql = "UPDATE record SET answer = ?2, answer_by = ?3, answer_took = ?4 WHERE run = ?1";
    exec(&tx.conn, sql, params![asked.run.0, said, answer.by, took])?;
    if said == 0 { ladder::weigh(tx, asked.run, None, now) } else { Ok(FollowUpEntries::default()) }
}

/// A run is over. True: it ended badly after it had changed something.
pub(crate) fn ended(tx: &mut Tx, run: &Run, state: &RunState, now: Time) -> Result<bool, StoreError> {
    let acted = has_acted(tx, run.id)?;
    let undone = matches!(state, RunState::Failed { undone: true, .. });
    let bakes = acted && *state == RunState::Done;
    let sql = "UPDATE record SET ended = ?2, undone = ?3, acted = ?4, ended_at = ?5, \
               bake_until = CASE WHEN ?6 THEN ?5 + bake END WHERE run = ?1";
    let rows = exec(&tx.conn, sql, params![run.id.0, state.name(), undone, acted, micros(now), bakes])?;
    Ok(rows > 0 && acted && matches!(state, RunState::Failed { .. } | RunState::Stuck { .. }))
}

/// The problem is there again: whatever run of this rule had fixed it within its bake time has not. `key` is the incident's,
/// as the rule groups alerts: another alert about the same subject that is another incident is no evidence about that
/// run.
pub(crate) fn came_back(
    tx: &mut Tx,
    rule: &str,
    in_force: &str,
    (subject, key): (&Subject, &str),
    now: Time,
) -> Result<FollowUpEntries, StoreError> {
    let sql = "UPDATE record SET bake_until = NULL, aftermath = 'back' \
               WHERE rule = ?1 AND subject = ?2 AND bake_until > ?3 AND EXISTS (SELECT 1 FROM run \
               JOIN incident ON incident.id = run.incident WHERE run.id = record.run \
               AND (incident.key = ?4 OR substr(incident.key, 1, 6) = 'group/')) RETURNING run, bake";
    let found = all(&tx.conn, sql, params![rule, to_json(subject)?, micros(now), key], |row| {
        Ok((RunId(row.get(0)?), span(row.get(1)?)))
    })?;
    let mut news = FollowUpEntries::default();
    for (run, bake) in found {
        let about = EntryLinks { incident: incident(&tx.conn, run)?, run: Some(run) };
        let proved = EntryKind::RunProved { rule: rule.to_owned(), aftermath: VerificationResult::Back, bake };
        news.entries.push((Actor::engine(), about, proved));
        let moved = ladder::weigh(tx, run, Some(in_force), now)?;
        news.entries.extend(moved.entries);
        news.told.extend(moved.told);
    }
    Ok(news)
}

/// Runs whose bake time is over.
pub(crate) fn due(conn: &dyn Db, now: Time) -> Result<Vec<RunId>, StoreError> {
    let sql = "SELECT run FROM record WHERE bake_until <= ?1 ORDER BY bake_until LIMIT ?2";
    all(conn, sql, params![micros(now), limits::DUE_BATCH as i64], |row| Ok(RunId(row.get(0)?)))
}

/// Writes down how one of them turned out.
pub(crate) fn baked(tx: &mut Tx, run: RunId, now: Time) -> Result<(), StoreError> {
    let sql = "SELECT rule, bake FROM record WHERE run = ?1 AND bake_until <= ?2";
    let found = one(&tx.conn, sql, params![run.0, micros(now)], |row| Ok((row.get::<String>(0)?, span(row.get(1)?))))?;
    let Some((rule, bake)) = found else { return Ok(()) };
    let aftermath = match runs::get(&tx.conn, run) {
        Ok(run) if runs::backed(&tx.conn, &run, EpisodeState::Open)? => VerificationResult::Lingers,
        // A source that fell silent has not reported a recovery.
        Ok(run) if runs::backed(&tx.conn, &run, EpisodeState::Stale)? => VerificationResult::Unknown,
        // Or no alert was behind it, and none has come since.
        Ok(_) => VerificationResult::Held,
        // The run has left with its retention, and so has its alert.
        Err(StoreError::NotFound { .. }) => VerificationResult::Lingers,
        Err(error) => return Err(error),
    };
    let sql = "UPDATE record SET bake_until = NULL, aftermath = ?2 WHERE run = ?1";
    exec(&tx.conn, sql, params![run.0, to_word(&aftermath)?])?;
    let about = EntryLinks { incident: incident(&tx.conn, run)?, run: Some(run) };
    // Quietly: it is no news at three in the morning.
    let proved = EntryKind::RunProved { rule, aftermath, bake };
    tx.append_quietly(&Actor::engine(), about, &proved, now).map(drop)
}

/// A user's review of a run.
pub(crate) struct ReviewRecord {
    pub right: bool,
    pub by: String,
    pub why: String,
    /// Only where there is no review yet.
    pub first: bool,
    /// The content of the rule in force, where it still exists.
    pub in_force: Option<String>,
}

/// A user's word on a run; an earlier one of theirs does not count any more.
pub(crate) fn judge(tx: &mut Tx, id: RunId, word: &ReviewRecord, now: Time) -> Result<(), StoreError> {
    let ReviewRecord { right, by, why, first, in_force } = word;
    let run = runs::get(&tx.conn, id)?;
    let Some(rule) = run.rule.clone() else {
        return Err(StoreError::Refused(format!("{id} was started by hand: only runs of rules are reviewed")));
    };
    let found =
        one(&tx.conn, "SELECT planned IS NOT NULL FROM record WHERE run = ?1", [id.0], |row| row.get::<bool>(0))?;
    let Some(planned) = found else {
        return Err(StoreError::Refused(format!(
            "{id} is from a version without rule statistics, so it does not count"
        )));
    };
    if !planned && !has_acted(tx, id)? {
        return Err(StoreError::Refused(format!("{id} has no plan and no steps yet: there is nothing to review")));
    }
    if *first {
        let sql = "SELECT verdict, who FROM judgement WHERE run = ?1 ORDER BY at, who LIMIT 1";
        let before = one(&tx.conn, sql, [id.0], |row| Ok((row.get::<bool>(0)?, row.get::<String>(1)?)))?;
        if let Some((right, who)) = before {
            let verdict = if right { "right" } else { "wrong" };
            return Err(StoreError::Refused(format!("{id} is already reviewed as {verdict} (by {who})")));
        }
    }
    let sql = "INSERT INTO judgement (run, who, verdict, at) VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT (run, who) DO UPDATE SET verdict = excluded.verdict, at = excluded.at";
    exec(&tx.conn, sql, params![id.0, crate::model::identity(by), right, micros(now)])?;
    let judged = EntryKind::RunJudged { rule, right: *right, by: by.clone(), why: why.clone() };
    tx.append(&Actor::person(by), about(&run), &judged, now)?;
    if *right { Ok(()) } else { ladder::weigh(tx, id, in_force.as_deref(), now)?.append(tx, now) }
}

/// The runs of one content from one run on, each with its reviews and its outcome.
fn rows() -> String {
    let changed = if planted("evidence-of-a-changed-runbook") { "?2 = ?2" } else { "content = ?2" };
    format!(
        "WITH said AS (SELECT *, coalesce(answer, -1) = 1 AS yes, \
         EXISTS (SELECT 1 FROM judgement j WHERE j.run = record.run AND verdict = 1) AS praised, \
         EXISTS (SELECT 1 FROM judgement j WHERE j.run = record.run AND verdict = 0) AS blamed \
         FROM record WHERE rule = ?1 AND {changed} AND run >= ?3), \
         judged AS (SELECT *, blamed OR (coalesce(answer, -1) = 0 AND NOT praised) AS wrong FROM said), \
         known AS (SELECT *, wrong OR (acted AND ended IN ('failed', 'stuck')) OR coalesce(aftermath = 'back', 0) AS bad, \
         coalesce(planned, 0) OR acted AS matched FROM judged)"
    )
}

/// Runs from this one on that turned out badly.
pub(crate) fn bad_since(conn: &dyn Db, rule: &str, content: &str, from: RunId) -> Result<u32, StoreError> {
    let sql = format!("{} SELECT count(*) FROM known WHERE bad", rows());
    Ok(number(conn, &sql, params![rule, content, from.0])? as u32)
}

/// Everything that is on record from a run on.
pub(crate) fn card(conn: &dyn Db, rule: &str, content: &str, from: RunId) -> Result<RuleStats, StoreError> {
    let sums = "count(*), sum(matched), sum((praised OR yes) AND NOT wrong), sum(wrong), sum(yes), \
         sum(coalesce(answer, 1) < 1), sum(acted), sum(acted AND ended = 'done'), sum(acted AND ended = 'failed'), \
         sum(acted AND undone), sum(acted AND ended = 'stuck'), sum(aftermath = 'held'), sum(aftermath = 'back'), \
         sum(aftermath = 'lingers'), sum(bake_until IS NOT NULL), sum(bad), \
         sum(mode = 'auto' AND acted AND ended = 'done' AND answer IS NULL AND NOT bad)";
    let sql = format!("{} SELECT min(CASE WHEN matched THEN at END), {sums} FROM known", rows());
    let values = params![rule, content, from.0];
    let found = one(conn, &sql, values, |row| {
        let count = |column: usize| Ok::<u32, StoreError>(row.get::<Option<u32>>(column)?.unwrap_or(0));
        let card = RuleStats {
            since: time_opt(row, 0)?,
            started: count(1)?,
            matches: count(2)?,
            right: count(3)?,
            wrong: count(4)?,
            approved: count(5)?,
            denied: count(6)?,
            acted: count(7)?,
            done: count(8)?,
            failed: count(9)?,
            taken_back: count(10)?,
            stuck: count(11)?,
            held: count(12)?,
            back: count(13)?,
            lingers: count(14)?,
            baking: count(15)?,
            bad: count(16)?,
            ..RuleStats::default()
        };
        Ok((card, count(17)?))
    })?;
    let (mut card, spared) = found.unwrap_or_default();
    let sql = format!(
        "{} SELECT who FROM (SELECT who, judgement.run FROM judgement JOIN known ON known.run = judgement.run \
         WHERE verdict = 1 UNION ALL SELECT answer_by, run FROM known WHERE yes) GROUP BY who ORDER BY max(run) DESC LIMIT ?4",
        rows()
    );
    card.judges = all(conn, &sql, params![rule, content, from.0, limits::JUDGES_NAMED as i64], |row| row.get(0))?;
    let sql = "SELECT answer_took FROM record WHERE rule = ?1 AND answer = 1 ORDER BY run DESC LIMIT ?2";
    let mut took = all(conn, sql, params![rule, limits::ANSWERS_READ as i64], |row| row.get::<i64>(0))?;
    took.sort_unstable();
    card.answers = took.len() as u32;
    card.answer_median = took.get(took.len() / 2).map(|micros| span(*micros));
    // The rule's runs would each have waited so long for a user, in mode approve.
    let known = card.answer_median.filter(|_| card.answers >= limits::ANSWERS_MIN);
    card.saved = known.map(|median| Span(median.0.saturating_mul(spared)));
    Ok(card)
}

pub(crate) fn incident(conn: &dyn Db, run: RunId) -> Result<Option<IncidentId>, StoreError> {
    let found = one(conn, "SELECT incident FROM run WHERE id = ?1", [run.0], |row| row.get::<Option<i64>>(0))?;
    Ok(found.flatten().map(IncidentId))
}

fn micros_of(span: Span) -> i64 {
    i64::try_from(span.0.as_micros()).unwrap_or(i64::MAX)
}

fn span(micros: i64) -> Span {
    Span(Duration::from_micros(micros.unsigned_abs()))
}
