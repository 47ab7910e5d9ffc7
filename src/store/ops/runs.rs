//! Runs and their journals: created, claimed, parked, ended. Every write is conditional on the epoch.
//!
//! Invariant: a run in a final state never changes again, but for the outcome of a step that was open when it ended.

use super::incidents;
use super::tx::Tx;
use super::{ladder, people, record, rows};
use crate::limits;
use crate::model::{
    Actor, ApprovalId, EntryKind, EntryLinks, EpisodeId, EpisodeState, IncidentId, Mode, Outcome, Plan, Reason,
    ReasonCode, RuleSnapshot, Run, RunId, RunInput, RunState, RunbookPin, Severity, Span, Step, Subject, Time,
};
use crate::planted::planted;
use crate::store::db::{Db, all, exec, json, micros, number, one, params, time_opt, to_json, to_word};
use crate::store::{ClaimedRun, NewApproval, NewRun, StoreError};
use serde_json::Value;

/// The fields of a new run.
pub(crate) struct NewRunRow<'a> {
    pub pin: &'a RunbookPin,
    pub input: &'a RunInput,
    pub subject: &'a Subject,
    pub mode: Mode,
    pub rule: Option<&'a str>,
    pub terms: Option<&'a RuleSnapshot>,
    pub requested_by: &'a str,
    /// The user who posted the alert behind it.
    pub posted_by: Option<&'a str>,
    pub once: Option<&'a str>,
    pub bucket: Option<&'a str>,
    pub incident: Option<IncidentId>,
    pub episode: Option<EpisodeId>,
    pub cooldown: Span,
    pub attempts: u32,
}

/// Inserts a run that is due now; the caller appends the entry that comes back.
pub(crate) fn create(tx: &mut Tx, new: &NewRunRow<'_>, now: Time) -> Result<(RunId, EntryKind), StoreError> {
    let id = RunId(tx.sole.next.run);
    tx.sole.next.run += 1;
    exec(
        &tx.conn,
        "INSERT INTO run (id, rule, incident, episode, bucket, runbook, hash, input, subject, mode, state, final, wake_at, \
         epoch, created_at, requested_by, once, cooldown, attempts, posted_by) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0, ?12, 0, ?12, ?13, ?14, ?15, ?16, ?17)",
        params![
            id.0,
            new.rule,
            new.incident.map(|id| id.0),
            new.episode.map(|id| id.0),
            new.bucket,
            new.pin.name,
            new.pin.hash,
            to_json(new.input)?,
            to_json(new.subject)?,
            to_word(&new.mode)?,
            to_json(&RunState::Ready)?,
            micros(now),
            new.requested_by,
            new.once,
            i64::try_from(new.cooldown.0.as_micros()).unwrap_or(i64::MAX),
            new.attempts,
            new.posted_by
        ],
    )?;
    if let Some(rule) = new.rule {
        super::breakers::symptom(&tx.conn, rule, new.subject, now)?;
        if let Some(terms) = new.terms {
            record::begin(&tx.conn, id, rule, terms, new.subject, new.mode, now)?;
        }
    }
    let entry = EntryKind::RunCreated {
        runbook: new.pin.clone(),
        rule: new.rule.map(str::to_owned),
        episode: new.episode,
        subject: new.subject.clone(),
        mode: new.mode,
        requested_by: new.requested_by.to_owned(),
        content: new.terms.map(|terms| terms.content.clone()),
    };
    Ok((id, entry))
}

pub(crate) fn of_episode(conn: &dyn Db, rule: &str, episode: EpisodeId) -> Result<Option<RunId>, StoreError> {
    let sql = "SELECT id FROM run WHERE rule = ?1 AND episode = ?2 AND episode IS NOT NULL";
    one(conn, sql, params![rule, episode.0], |row| Ok(RunId(row.get(0)?)))
}

/// The same, also where another episode started the run.
pub(crate) fn for_episode(conn: &dyn Db, rule: &str, episode: EpisodeId) -> Result<Option<RunId>, StoreError> {
    let sql = "SELECT id FROM run WHERE rule = ?1 AND (episode = ?2 OR id IN (SELECT run FROM backs WHERE episode = ?2)) \
               ORDER BY id DESC LIMIT 1";
    one(conn, sql, params![rule, episode.0], |row| Ok(RunId(row.get(0)?)))
}

/// The latest run of a rule for this incident and purpose, however it ended.
pub(crate) fn last_of(
    conn: &dyn Db,
    incident: IncidentId,
    rule: &str,
    bucket: &str,
) -> Result<Option<RunId>, StoreError> {
    let sql =
        "SELECT id FROM run WHERE incident = ?1 AND rule = ?2 AND bucket = ?3 AND final = 1 ORDER BY id DESC LIMIT 1";
    one(conn, sql, params![incident.0, rule, bucket], |row| Ok(RunId(row.get(0)?)))
}

pub(crate) fn unfinished(
    conn: &dyn Db,
    incident: IncidentId,
    rule: &str,
    bucket: &str,
) -> Result<Option<RunId>, StoreError> {
    let sql = "SELECT id FROM run WHERE incident = ?1 AND rule = ?2 AND bucket = ?3 AND final = 0";
    one(conn, sql, params![incident.0, rule, bucket], |row| Ok(RunId(row.get(0)?)))
}

pub(crate) fn start(tx: &mut Tx, new: &NewRun) -> Result<Option<RunId>, StoreError> {
    if let Some(once) = &new.once
        && number(&tx.conn, "SELECT count(*) FROM run WHERE once = ?1 AND once IS NOT NULL", [once])? > 0
    {
        return Ok(None);
    }
    let mode = match (&new.rule, &new.terms) {
        (Some(rule), Some(terms)) => ladder::effective(tx, rule, terms)?,
        _ => new.mode.min(tx.ceiling),
    };
    // A rule's schedule is its own rate limit, and a user has chosen to run it: no cooldown, no cap on attempts.
    let row = NewRunRow {
        pin: &new.pin,
        input: &new.input,
        subject: &new.subject,
        mode,
        rule: new.rule.as_deref(),
        terms: new.terms.as_ref(),
        requested_by: &new.requested_by,
        posted_by: None,
        once: new.once.as_deref(),
        bucket: None,
        incident: None,
        episode: None,
        cooldown: Span::default(),
        attempts: u32::MAX,
    };
    let (run, entry) = create(tx, &row, new.now)?;
    let actor = match &new.rule {
        Some(_) => Actor(new.requested_by.clone()),
        // Also one whose token is called `rule`.
        None => Actor::person(&new.requested_by),
    };
    tx.append(&actor, EntryLinks { incident: None, run: Some(run) }, &entry, new.now)?;
    Ok(Some(run))
}

pub(crate) fn get(conn: &dyn Db, run: RunId) -> Result<Run, StoreError> {
    let sql = format!("SELECT {} FROM run WHERE id = ?1", rows::RUN);
    one(conn, &sql, [run.0], rows::run)?.ok_or_else(|| StoreError::NotFound { what: format!("run {run}") })
}

pub(crate) fn journal(conn: &dyn Db, run: RunId) -> Result<Vec<Step>, StoreError> {
    all(conn, &format!("SELECT {} FROM step WHERE run = ?1 ORDER BY no", rows::STEP), [run.0], rows::step)
}

/// The run, if this epoch owns it and it is not final.
pub(crate) fn owned(tx: &Tx, run: RunId, epoch: i64) -> Result<Run, StoreError> {
    let found = get(&tx.conn, run)?;
    if (found.epoch != epoch && !planted("old-epoch-accepted")) || found.state.is_final() {
        return Err(StoreError::Fenced { run });
    }
    Ok(found)
}

/// The same, and it does not wait for users: until they answer, nothing of it goes on.
pub(crate) fn at_work(tx: &Tx, run: RunId, epoch: i64) -> Result<Run, StoreError> {
    let found = owned(tx, run, epoch)?;
    if let RunState::Asking { approval } = found.state {
        return Err(StoreError::Refused(format!("{run} waits for the answer to {approval}")));
    }
    Ok(found)
}

pub(crate) fn about(run: &Run) -> EntryLinks {
    EntryLinks { incident: run.incident, run: Some(run.id) }
}

pub(crate) fn claim(tx: &mut Tx, id: RunId, now: Time) -> Result<Option<ClaimedRun>, StoreError> {
    let epoch = tx.epoch;
    let sql = "UPDATE run SET epoch = ?2 WHERE id = ?1 AND final = 0";
    if exec(&tx.conn, sql, params![id.0, epoch])? == 0 {
        return Ok(None);
    }
    let mut run = get(&tx.conn, id)?;
    run.mode = ladder::mode_now(tx, &run)?;
    let over = !has_acted(tx, id)? && episodes_over(&tx.conn, &run)?;
    let kept = if over { kept_until(tx, &run, now)? } else { None };
    // The column outlives the state: it goes with the next step that begins, so a crash in between forgets nothing.
    let noted = number(&tx.conn, "SELECT count(*) FROM run WHERE id = ?1 AND held IS NOT NULL", [id.0])? > 0;
    let held = noted || matches!(run.state, RunState::Held { .. });
    match run.state {
        // From now on an open step is in doubt if we die, so the row no longer has it as waiting. The owner receives
        // the earlier state: a step that waited was not on its way.
        RunState::Waiting { .. } | RunState::Held { .. } => {
            let sql = "UPDATE run SET state = ?2 WHERE id = ?1";
            exec(&tx.conn, sql, params![id.0, to_json(&RunState::Ready)?])?;
        }
        // A run with an open question still waits for it; it was only woken to see whether the question is moot.
        RunState::Asking { .. } => {
            let sql = "UPDATE run SET wake_at = ?2 WHERE id = ?1";
            exec(&tx.conn, sql, params![id.0, kept.map(micros)])?;
        }
        _ => {}
    }
    let journal = journal(&tx.conn, id)?;
    Ok(Some(ClaimedRun { run, journal, moot: over && kept.is_none(), kept, held }))
}

/// Until when a run waits whose episodes have all ended: its incident is kept open so long, and if one of them fires again the
/// same run goes on, with the answer that it was given.
pub(crate) fn kept_until(tx: &Tx, run: &Run, now: Time) -> Result<Option<Time>, StoreError> {
    let (Some(episode), Some(incident)) = (run.episode, run.incident) else { return Ok(None) };
    if tx.resolve_after == Span::default() {
        return Ok(None);
    }
    let sql = "SELECT max(last_seen) FROM episode WHERE state = 1 \
               AND (id = ?1 OR id IN (SELECT episode FROM backs WHERE run = ?2)) \
               AND EXISTS (SELECT 1 FROM incident WHERE id = ?3 AND closed_at IS NULL)";
    let ended = one(&tx.conn, sql, params![episode.0, run.id.0, incident.0], |row| time_opt(row, 0))?;
    let until = ended.flatten().and_then(|ended| ended.checked_add(tx.resolve_after.0).ok());
    Ok(until.filter(|until| *until > now))
}

/// An episode fires again: runs that waited for that go on.
pub(crate) fn resume(conn: &dyn Db, incident: IncidentId, episode: EpisodeId, now: Time) -> Result<bool, StoreError> {
    let state_code = conn.dialect().state_code;
    let sql = format!(
        "UPDATE run SET wake_at = ?3 WHERE incident = ?1 AND final = 0 AND {state_code} = 'episode_over' \
         AND (episode = ?2 OR id IN (SELECT run FROM backs WHERE episode = ?2))"
    );
    Ok(exec(conn, &sql, params![incident.0, episode.0, micros(now)])? > 0)
}

/// A rule's earlier decision for this incident, so that an alert that only comes back does not bring it up again: it
/// was planned (and may not go further in this mode), or it was denied, or it stopped itself without having changed
/// anything.
pub(crate) fn settled(
    tx: &Tx,
    incident: IncidentId,
    rule: &str,
    bucket: &str,
    mode: Mode,
) -> Result<Option<(RunId, &'static str)>, StoreError> {
    let sql = "SELECT id, state FROM run WHERE incident = ?1 AND rule = ?2 AND bucket = ?3 ORDER BY id DESC LIMIT 1";
    let last = one(&tx.conn, sql, params![incident.0, rule, bucket], |row| {
        Ok((RunId(row.get(0)?), json::<RunState>(row, 1)?))
    })?;
    let Some((run, state)) = last else { return Ok(None) };
    let what = match &state {
        RunState::Planned if mode < Mode::Approve => "has planned it",
        RunState::Denied { reason } => match reason.code {
            ReasonCode::NotApproved => "was denied by an approver",
            ReasonCode::Cancelled => "was cancelled by an operator",
            _ => return Ok(None),
        },
        RunState::Stopped { .. } if !has_acted(tx, run)? => "has stopped itself",
        _ => return Ok(None),
    };
    Ok(Some((run, what)))
}

/// Whether it has changed something in the world.
pub(crate) fn has_acted(tx: &Tx, run: RunId) -> Result<bool, StoreError> {
    Ok(number(&tx.conn, "SELECT count(*) FROM attempt WHERE run = ?1", [run.0])? > 0)
}

/// Whether every episode behind a run has ended; one that no episode started is behind nothing that could end.
pub(crate) fn episodes_over(conn: &dyn Db, run: &Run) -> Result<bool, StoreError> {
    Ok(run.episode.is_some() && !backed(conn, run, EpisodeState::Open)?)
}

/// Whether an episode behind a run is in this state.
pub(crate) fn backed(conn: &dyn Db, run: &Run, state: EpisodeState) -> Result<bool, StoreError> {
    let Some(episode) = run.episode else { return Ok(false) };
    let sql = "SELECT count(*) FROM episode WHERE state = ?3 \
               AND (id = ?1 OR id IN (SELECT episode FROM backs WHERE run = ?2))";
    Ok(number(conn, sql, params![episode.0, run.id.0, state as i64])? > 0)
}

/// Another episode shares the purpose of this run.
pub(crate) fn back(conn: &dyn Db, run: RunId, episode: EpisodeId) -> Result<(), StoreError> {
    let sql = "INSERT INTO backs (run, episode) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    exec(conn, sql, params![run.0, episode.0]).map(drop)
}

/// An episode has ended: runs of its incident that wait for users see whether their question is moot, and those that a
/// guard holds whether they are still needed.
pub(crate) fn wake_askers(
    conn: &dyn Db,
    incident: IncidentId,
    episode: EpisodeId,
    now: Time,
) -> Result<bool, StoreError> {
    let state_is = conn.dialect().state_is;
    let sql = format!(
        "UPDATE run SET wake_at = ?3 WHERE incident = ?1 AND final = 0 \
         AND (wake_at IS NULL OR (wake_at > ?3 AND {state_is} = 'held')) \
         AND (episode = ?2 OR id IN (SELECT run FROM backs WHERE episode = ?2))"
    );
    Ok(exec(conn, &sql, params![incident.0, episode.0, micros(now)])? > 0)
}

/// The open step of a run, which must have this number.
pub(crate) fn open_step(tx: &Tx, run: RunId, step: u32) -> Result<Step, StoreError> {
    let sql = format!("SELECT {} FROM step WHERE run = ?1 AND no = ?2", rows::STEP);
    let found = one(&tx.conn, &sql, params![run.0, step], rows::step)?;
    let found = found.ok_or_else(|| StoreError::NotFound { what: format!("step {step} of {run}") })?;
    if found.outcome.is_some() {
        return Err(StoreError::Refused(format!("step {step} of {run} has its outcome, and an outcome is final")));
    }
    Ok(found)
}

pub(crate) fn attempt(tx: &mut Tx, run: RunId, epoch: i64, step: u32, deadline: Time) -> Result<Step, StoreError> {
    owned(tx, run, epoch)?;
    open_step(tx, run, step)?;
    let sql = "UPDATE step SET attempt = attempt + 1, deadline = ?3 WHERE run = ?1 AND no = ?2";
    exec(&tx.conn, sql, params![run.0, step, micros(deadline)])?;
    open_step(tx, run, step)
}

pub(crate) fn park(
    tx: &mut Tx,
    run: RunId,
    epoch: i64,
    carry: Option<(u32, Value)>,
    state: &RunState,
    wake_at: Time,
    now: Time,
) -> Result<(), StoreError> {
    if state.is_final() {
        return Err(StoreError::Refused(format!("{run} cannot be parked as {}: that state is final", state.name())));
    }
    at_work(tx, run, epoch)?;
    if let Some((step, carry)) = carry {
        open_step(tx, run, step)?;
        let sql = "UPDATE step SET carry = ?3 WHERE run = ?1 AND no = ?2";
        exec(&tx.conn, sql, params![run.0, step, to_json(&carry)?])?;
    }
    let over = |reason: &crate::model::Reason| reason.code == ReasonCode::EpisodeOver;
    if let RunState::Held { reason } = state
        && over(reason)
        && !episodes_over(&tx.conn, &get(&tx.conn, run)?)?
    {
        // Its alert fires again since it was looked at: it goes on at once.
        return set_state(tx, run, &RunState::Ready, Some(now));
    }
    set_state(tx, run, state, Some(wake_at))
}

/// For states that are not final.
pub(crate) fn set_state(tx: &Tx, run: RunId, state: &RunState, wake_at: Option<Time>) -> Result<(), StoreError> {
    let sql = "UPDATE run SET state = ?2, wake_at = ?3 WHERE id = ?1 AND final = 0";
    exec(&tx.conn, sql, params![run.0, to_json(state)?, wake_at.map(micros)])?;
    Ok(())
}

pub(crate) fn end(
    tx: &mut Tx,
    id: RunId,
    epoch: i64,
    step: u32,
    outcome: Outcome,
    tell: Vec<(String, String)>,
    now: Time,
) -> Result<(), StoreError> {
    // A run that was cancelled while its step was on the way still learns how that ended.
    let mut run = get(&tx.conn, id)?;
    if run.epoch != epoch {
        return Err(StoreError::Fenced { run: id });
    }
    record(tx, &run, step, outcome, now)?;
    if run.state.is_final() && !matches!(run.state, RunState::Stuck { .. }) {
        release(tx, id, now)?;
    }
    for (channel, text) in tell {
        let incident = match run.incident {
            Some(incident) => incident,
            None => own_incident(tx, &mut run, now)?,
        };
        let told = EntryKind::Told { channel: channel.clone(), text };
        let no = tx.append(&Actor::engine(), about(&run), &told, now)?;
        tx.want(incident, &channel, no, now)?;
    }
    Ok(())
}

/// A run by hand or by schedule that sends messages gets an incident for them.
fn own_incident(tx: &mut Tx, run: &mut Run, now: Time) -> Result<IncidentId, StoreError> {
    let title = format!("{} ({})", run.runbook.name, run.subject);
    let key = format!("run={}", run.id);
    let (incident, entry) = incidents::create(tx, &key, &title, &run.subject, Severity::Info, now)?;
    exec(&tx.conn, "UPDATE run SET incident = ?2 WHERE id = ?1", params![run.id.0, incident.0])?;
    run.incident = Some(incident);
    tx.append(&Actor::engine(), about(run), &entry, now)?;
    Ok(incident)
}

/// Writes the outcome of an open step.
pub(crate) fn record(tx: &mut Tx, run: &Run, step: u32, outcome: Outcome, now: Time) -> Result<(), StoreError> {
    open_step(tx, run.id, step)?;
    let text = to_json(&outcome)?;
    if text.len() > limits::OUTCOME_BYTES {
        let (size, most) = (text.len(), limits::OUTCOME_BYTES);
        return Err(StoreError::Refused(format!(
            "the outcome of step {step} of {} has {size} bytes, {most} at most",
            run.id
        )));
    }
    let sql = "UPDATE step SET outcome = ?3, ended_at = ?4 WHERE run = ?1 AND no = ?2";
    exec(&tx.conn, sql, params![run.id.0, step, text, micros(now)])?;
    tx.append(&Actor::engine(), about(run), &EntryKind::StepEnded { step, outcome }, now)?;
    Ok(())
}

pub(crate) fn planned(tx: &mut Tx, run: RunId, epoch: i64, plan: Plan, now: Time) -> Result<(), StoreError> {
    let run = owned(tx, run, epoch)?;
    record::planned(&tx.conn, run.id, &plan)?;
    tx.append(&Actor::engine(), about(&run), &EntryKind::RunPlanned { plan }, now)?;
    Ok(())
}

pub(crate) fn ask(tx: &mut Tx, run: RunId, epoch: i64, new: NewApproval, now: Time) -> Result<ApprovalId, StoreError> {
    let run = owned(tx, run, epoch)?;
    if let Some(step) = new.step {
        open_step(tx, run.id, step)?;
    }
    people::void_approvals(tx, run.id, now)?;
    let id = ApprovalId(tx.sole.next.approval);
    tx.sole.next.approval += 1;
    exec(
        &tx.conn,
        "INSERT INTO approval (id, run, question, plan_hash, plan, step, state, asked_at, expires_at, approvers, needed, \
         foretold) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'open', ?7, ?8, ?9, ?10, ?11)",
        params![
            id.0,
            run.id.0,
            new.question,
            new.plan_hash,
            new.plan.as_ref().map(to_json).transpose()?,
            new.step,
            micros(now),
            micros(new.expires_at),
            to_json(&new.approvers)?,
            new.needed.max(1),
            to_json(&new.foretold)?
        ],
    )?;
    // Nothing wakes it but an answer, or `tick` when the question expires.
    set_state(tx, run.id, &RunState::Asking { approval: id }, None)?;
    let asked = EntryKind::ApprovalAsked {
        approval: id,
        question: new.question,
        plan_hash: new.plan_hash,
        expires_at: new.expires_at,
    };
    tx.append(&Actor::engine(), about(&run), &asked, now)?;
    Ok(id)
}

pub(crate) fn unwind(tx: &mut Tx, run: RunId, epoch: i64, why: String) -> Result<(), StoreError> {
    let run = owned(tx, run, epoch)?;
    if run.unwinding.is_none() {
        exec(&tx.conn, "UPDATE run SET unwinding = ?2 WHERE id = ?1", params![run.id.0, why])?;
    }
    Ok(())
}

pub(crate) fn finish(tx: &mut Tx, run: RunId, epoch: i64, state: RunState, now: Time) -> Result<(), StoreError> {
    if !state.is_final() {
        return Err(StoreError::Refused(format!("{run} cannot finish as {}: that state is not final", state.name())));
    }
    let run = owned(tx, run, epoch)?;
    conclude(tx, &run, state, &Actor::engine(), now)
}

/// The end of a run: its questions are moot, its nodes are free, users are notified.
pub(crate) fn conclude(tx: &mut Tx, run: &Run, state: RunState, actor: &Actor, now: Time) -> Result<(), StoreError> {
    people::void_approvals(tx, run.id, now)?;
    exec(
        &tx.conn,
        "UPDATE run SET state = ?2, final = 1, wake_at = NULL, ended_at = ?3 WHERE id = ?1 AND final = 0",
        params![run.id.0, to_json(&state)?, micros(now)],
    )?;
    // The state of a stuck run's nodes is unknown, so they stay with it until a user releases them.
    if !matches!(state, RunState::Stuck { .. }) {
        release(tx, run.id, now)?;
    }
    super::breakers::after(tx, run, &state, now)?;
    let bad = record::ended(tx, run, &state, now)?;
    tx.append(actor, about(run), &EntryKind::RunEnded { state }, now)?;
    if bad {
        ladder::weigh(tx, run.id, None, now)?.append(tx, now)?;
    }
    match run.incident {
        Some(incident) => incidents::resolve_bare(tx, incident, now),
        None => Ok(()),
    }
}

/// A user ends a run that cannot be read: nothing is taken back, and its nodes are free again.
pub(crate) fn cut_off(tx: &mut Tx, run: RunId, by: &str, why: String, now: Time) -> Result<(), StoreError> {
    let reason = Reason::new(ReasonCode::Cancelled, format!("cancelled by {by}: {why}"));
    let state = to_json(&RunState::Denied { reason })?;
    people::void_approvals(tx, run, now)?;
    let sql = "UPDATE run SET state = ?2, final = 1, wake_at = NULL, ended_at = ?3 WHERE id = ?1 AND final = 0";
    exec(&tx.conn, sql, params![run.0, state, micros(now)])?;
    let nodes = let_go(tx, run)?;
    let about = EntryLinks { incident: None, run: Some(run) };
    let entry = EntryKind::NodesReleased { nodes, by: by.to_owned(), why };
    tx.append(&Actor::person(by), about, &entry, now).map(drop)
}

/// A cancelled run with an open step stays due, so that the step's remaining work is stopped, whichever engine owns it
/// then.
pub(crate) fn abandon(tx: &Tx, run: RunId, now: Time) -> Result<(), StoreError> {
    let sql = "UPDATE run SET wake_at = ?2 WHERE id = ?1 AND final = 1 \
               AND EXISTS (SELECT 1 FROM step WHERE run = ?1 AND outcome IS NULL)";
    exec(&tx.conn, sql, params![run.0, micros(now)]).map(drop)
}

pub(crate) fn abandoned(tx: &Tx, run: RunId) -> Result<Option<(Run, Step)>, StoreError> {
    let sql = "UPDATE run SET epoch = ?2 WHERE id = ?1 AND final = 1 AND wake_at IS NOT NULL";
    if exec(&tx.conn, sql, params![run.0, tx.epoch])? == 0 {
        return Ok(None);
    }
    let sql = format!("SELECT {} FROM step WHERE run = ?1 AND outcome IS NULL", rows::STEP);
    let Some(step) = one(&tx.conn, &sql, [run.0], rows::step)? else {
        exec(&tx.conn, "UPDATE run SET wake_at = NULL WHERE id = ?1", [run.0])?;
        return Ok(None);
    };
    Ok(Some((get(&tx.conn, run)?, step)))
}

pub(crate) fn look_again(tx: &Tx, run: RunId, epoch: i64, at: Option<Time>) -> Result<(), StoreError> {
    let sql = "UPDATE run SET wake_at = ?3 WHERE id = ?1 AND final = 1 AND epoch = ?2";
    match exec(&tx.conn, sql, params![run.0, epoch, at.map(micros)])? {
        0 => Err(StoreError::Fenced { run }),
        _ => Ok(()),
    }
}

/// Frees the nodes of a run that is over, unless the effect of a step may still be under way.
pub(crate) fn release(tx: &Tx, run: RunId, now: Time) -> Result<u64, StoreError> {
    let sql = "DELETE FROM hold WHERE run = ?1 \
               AND NOT EXISTS (SELECT 1 FROM step WHERE run = ?1 AND ended_at IS NULL AND deadline > ?2)";
    Ok(exec(&tx.conn, sql, params![run.0, micros(now)])? as u64)
}

/// A user has checked the remains of a stuck run: its nodes are free again. Returns their names.
pub(crate) fn let_go(tx: &Tx, run: RunId) -> Result<Vec<String>, StoreError> {
    all(&tx.conn, "DELETE FROM hold WHERE run = ?1 RETURNING node", [run.0], |row| row.get(0))
}
