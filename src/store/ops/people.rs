//! Users: answers to questions, controls, bare notes; and the end of questions without an answer.
//!
//! Invariant: an approval is decided once; no answer in time is no.

use super::record::ReviewRecord;
use super::tx::Tx;
use super::{breakers, freezes, incidents, ladder, parked, persons, record, redact, rows, runs, subjects, tokens};
use crate::limits;
use crate::model::{
    Actor, Approval, ApprovalId, ApprovalState, EntryKind, EntryLinks, EpisodeId, FailureKind, IncidentId, Outcome,
    Reason, ReasonCode, RunId, RunState, Span, StepFailure, Time, identity,
};
use crate::planted::planted;
use crate::store::db::{all, exec, micros, one, params, to_word};
use crate::store::{ControlChange, DecisionOutcome, StoreError};
use serde_json::json;
use std::collections::BTreeMap;

/// An answer of a user.
pub(crate) struct UserAnswer {
    pub approval: ApprovalId,
    pub approved: bool,
    pub by: String,
    pub why: String,
}

pub(crate) fn decide(tx: &mut Tx, answer: &UserAnswer, now: Time) -> Result<DecisionOutcome, StoreError> {
    let found = get(tx, answer.approval)?;
    if found.state != ApprovalState::Open {
        return Ok(DecisionOutcome::Already(found));
    }
    if found.expires_at <= now {
        expire(tx, found.id, now)?;
        return Ok(DecisionOutcome::Already(get(tx, answer.approval)?));
    }
    if !found.approvers.is_empty() && !found.approvers.iter().any(|name| name == identity(&answer.by)) {
        let names = found.approvers.join(", ");
        return Err(StoreError::Refused(format!("{} may not decide {}: only {names} may", answer.by, found.id)));
    }
    let run = runs::get(&tx.conn, found.run)?;
    for requester in run.requesters().filter(|_| answer.approved) {
        if persons::same(&tx.conn, requester, &answer.by)? {
            let (by, run) = (&answer.by, run.id);
            let text = match identity(requester) != identity(by) && persons::is_unnamed(&tx.conn, requester)? {
                true => format!("{by} cannot approve {run}: its requester {requester} {}", persons::UNNAMED),
                false => format!("{by} requested {run} and cannot approve it too: another approver must"),
            };
            return Err(StoreError::Refused(text));
        }
    }
    if answer.approved && found.needed > 1 {
        if persons::is_unnamed(&tx.conn, &answer.by)? {
            let text = format!("{} {}", answer.by, persons::UNNAMED);
            return Err(StoreError::Refused(text));
        }
        if let Some(before) = persons::again(&tx.conn, &found.given, &answer.by)?.filter(|before| **before != answer.by)
        {
            let text = format!("{} already approved {}, as {before}: a different approver must", answer.by, found.id);
            return Err(StoreError::Refused(text));
        }
        let sql = "INSERT INTO decision (approval, who, at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        let again = if planted("double-click-counts-twice") { now.to_string() } else { String::new() };
        let who = format!("{}{again}", answer.by);
        let fresh = exec(&tx.conn, sql, params![found.id.0, who, micros(now)])? > 0;
        let so_far = get(tx, found.id)?;
        let given = so_far.given.len() as u32;
        if given < found.needed {
            if !fresh {
                let text = format!(
                    "{} already approved {}: {} different approvers are required, and there is {given}",
                    answer.by, found.id, found.needed
                );
                return Err(StoreError::Refused(text));
            }
            let seconded =
                EntryKind::ApprovalSeconded { approval: found.id, by: answer.by.clone(), given, needed: found.needed };
            tx.append(&Actor::person(&answer.by), runs::about(&run), &seconded, now)?;
            return Ok(DecisionOutcome::Seconded(so_far));
        }
    }
    let state = if answer.approved { ApprovalState::Approved } else { ApprovalState::Denied };
    settle(tx, found.id, state, Some(&answer.by), now)?;
    let actor = Actor::person(&answer.by);
    let decided = EntryKind::ApprovalDecided {
        approval: found.id,
        approved: answer.approved,
        by: answer.by.clone(),
        why: answer.why.clone(),
    };
    tx.append(&actor, runs::about(&run), &decided, now)?;
    record::answered(tx, &found, answer, now)?.append(tx, now)?;
    let why = if answer.why.is_empty() { String::new() } else { format!(": {}", answer.why) };
    let reason = Reason::new(ReasonCode::NotApproved, format!("denied by {}{why}", answer.by));
    let asked = question(tx, found.id)?;
    resume(tx, &asked, answer.approved, &answer.by, reason, now)?;
    Ok(DecisionOutcome::Now(get(tx, answer.approval)?))
}

fn get(tx: &Tx, approval: ApprovalId) -> Result<Approval, StoreError> {
    let sql = format!("SELECT {} FROM approval WHERE id = ?1", rows::approval_columns(tx.conn.dialect()));
    let found = one(&tx.conn, &sql, [approval.0], rows::approval)?;
    found.ok_or_else(|| StoreError::NotFound { what: format!("approval {approval}") })
}

fn settle(tx: &Tx, approval: ApprovalId, state: ApprovalState, by: Option<&str>, now: Time) -> Result<(), StoreError> {
    let sql = "UPDATE approval SET state = ?2, decided_by = ?3, decided_at = ?4 WHERE id = ?1 AND state = 'open'";
    exec(&tx.conn, sql, params![approval.0, to_word(&state)?, by, micros(now)])?;
    Ok(())
}

/// The fields of a question that an answer needs; its plan as the stored text, so that a no needs no readable plan.
struct ApprovalQuestion {
    run: RunId,
    step: Option<u32>,
    plan: Option<String>,
}

fn question(tx: &Tx, approval: ApprovalId) -> Result<ApprovalQuestion, StoreError> {
    let sql = "SELECT run, step, plan FROM approval WHERE id = ?1";
    let found = one(&tx.conn, sql, [approval.0], |row| {
        Ok(ApprovalQuestion { run: RunId(row.get(0)?), step: row.get(1)?, plan: row.get(2)? })
    })?;
    found.ok_or_else(|| StoreError::NotFound { what: format!("approval {approval}") })
}

/// The effect of an answer on the run: a step gets its outcome; a plan is approved, or the run ends.
fn resume(
    tx: &mut Tx,
    approval: &ApprovalQuestion,
    approved: bool,
    by: &str,
    reason: Reason,
    now: Time,
) -> Result<(), StoreError> {
    let run = runs::get(&tx.conn, approval.run)?;
    if run.state.is_final() {
        return Ok(());
    }
    match (approval.step, approved) {
        (Some(step), _) => {
            // A no is thrown where the question stands, so that a runbook that does not look at the answer stops.
            let outcome = match approved {
                true => Outcome::Ok(json!({ "approved": true, "by": by })),
                false => Outcome::Failed(StepFailure::new(FailureKind::Refused, reason.text)),
            };
            runs::record(tx, &run, step, outcome, now)?;
            runs::set_state(tx, run.id, &RunState::Ready, Some(now))
        }
        (None, true) => {
            exec(&tx.conn, "UPDATE run SET approved = ?2 WHERE id = ?1", params![run.id.0, approval.plan])?;
            runs::set_state(tx, run.id, &RunState::Ready, Some(now))
        }
        // It has acted already: its steps are undone if the runbook declares it, and then it ends.
        (None, false) if runs::has_acted(tx, run.id)? => {
            let sql = "UPDATE run SET unwinding = ?2 WHERE id = ?1 AND unwinding IS NULL";
            exec(&tx.conn, sql, params![run.id.0, reason.to_string()])?;
            runs::set_state(tx, run.id, &RunState::Ready, Some(now))
        }
        (None, false) => runs::conclude(tx, &run, RunState::Denied { reason }, &Actor::engine(), now),
    }
}

/// No answer in time is no, also where plan or run cannot be read: then the run is parked, and never goes on.
fn expire(tx: &mut Tx, id: ApprovalId, now: Time) -> Result<(), StoreError> {
    let question = question(tx, id)?;
    settle(tx, id, ApprovalState::Expired, None, now)?;
    let run = runs::get(&tx.conn, question.run);
    let about = run.as_ref().map_or(EntryLinks { incident: None, run: Some(question.run) }, runs::about);
    tx.append(&Actor::engine(), about, &EntryKind::ApprovalExpired { approval: id }, now)?;
    match run {
        Err(StoreError::Damaged(why)) => parked::park(tx, "run", &question.run.0.to_string(), &why, now).map(drop),
        Err(error) => Err(error),
        Ok(_) => {
            let reason = Reason::new(ReasonCode::ApprovalExpired, format!("{id} was not answered in time"));
            resume(tx, &question, planted("expiry-is-yes"), "nobody", reason, now)
        }
    }
}

/// The plan changed or the run ended: open questions are moot.
pub(crate) fn void_approvals(tx: &Tx, run: RunId, now: Time) -> Result<(), StoreError> {
    let sql = "UPDATE approval SET state = 'void', decided_at = ?2 WHERE run = ?1 AND state = 'open'";
    exec(&tx.conn, sql, params![run.0, micros(now)])?;
    Ok(())
}

/// One thing that time has made due. Each is an operation of its own, so that one that fails costs no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MaintenanceTask {
    Expire(ApprovalId),
    /// The nodes of a run that is over.
    Release(RunId),
    Resolve(IncidentId),
    /// The incidents of tokens that have ended.
    Tokens,
    Thaw(String),
    Bake(RunId),
}

impl MaintenanceTask {
    /// The row that is parked if the chore cannot read it.
    fn place(&self) -> parked::RowKey {
        match self {
            MaintenanceTask::Expire(approval) => ("approval", approval.0.to_string()),
            MaintenanceTask::Release(run) => ("run", run.0.to_string()),
            MaintenanceTask::Resolve(incident) => ("incident", incident.0.to_string()),
            MaintenanceTask::Tokens => ("api_token", "all".to_owned()),
            MaintenanceTask::Thaw(scope) => ("freeze", scope.clone()),
            MaintenanceTask::Bake(run) => ("record", run.0.to_string()),
        }
    }
}

/// The work that is due now, by numbers and names alone: no row is read whole here. Parks rows that readers could not
/// read.
pub(crate) fn chores(
    tx: &mut Tx,
    unreadable: BTreeMap<parked::RowKey, String>,
    now: Time,
) -> Result<Vec<MaintenanceTask>, StoreError> {
    for ((table, row), why) in unreadable {
        parked::park(tx, table, &row, &why, now)?;
    }
    let most = limits::DUE_BATCH as i64;
    let mut chores = Vec::new();
    // Parked ones, too: a no needs nothing that cannot be read.
    let sql = "SELECT id FROM approval WHERE state = 'open' AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2";
    let values = params![micros(now), most];
    chores.extend(all(&tx.conn, sql, values, |row| Ok(MaintenanceTask::Expire(ApprovalId(row.get(0)?))))?);
    let sql = format!(
        "SELECT DISTINCT hold.run FROM hold JOIN run ON run.id = hold.run WHERE run.final = 1 AND {} <> 'stuck'",
        tx.conn.dialect().state_is
    );
    let sql = if planted("lock-released-by-time-alone") { "SELECT DISTINCT run FROM hold" } else { &sql };
    chores.extend(all(&tx.conn, sql, [], |row| Ok(MaintenanceTask::Release(RunId(row.get(0)?))))?);
    chores.extend(incidents::due(&tx.conn, now)?.into_iter().map(MaintenanceTask::Resolve));
    if tokens::is_due(&tx.conn, now)? {
        chores.push(MaintenanceTask::Tokens);
    }
    freezes::forget_releases(tx, now)?;
    chores.extend(freezes::due(&tx.conn, now)?.into_iter().map(MaintenanceTask::Thaw));
    chores.extend(record::due(&tx.conn, now)?.into_iter().map(MaintenanceTask::Bake));
    Ok(chores)
}

/// Does one of them. One whose row cannot be read is parked instead. Returns how much it changed.
pub(crate) fn perform(tx: &mut Tx, chore: &MaintenanceTask, now: Time) -> Result<u64, StoreError> {
    match chore {
        MaintenanceTask::Expire(approval) => expire(tx, *approval, now).map(|()| 1),
        MaintenanceTask::Release(run) => runs::release(tx, *run, now),
        MaintenanceTask::Resolve(incident) => incidents::resolve(tx, *incident, now).map(|()| 1),
        MaintenanceTask::Tokens => tokens::tick(tx, now),
        MaintenanceTask::Thaw(scope) => freezes::end(tx, scope, now).map(|()| 1),
        MaintenanceTask::Bake(run) => record::baked(tx, *run, now).map(|()| 1),
    }
}

/// Sets aside the row of a chore that could not read it.
pub(crate) fn give_up(tx: &mut Tx, chore: &MaintenanceTask, why: &str, now: Time) -> Result<(), StoreError> {
    let (table, row) = chore.place();
    if let MaintenanceTask::Bake(run) = chore {
        exec(&tx.conn, "UPDATE record SET bake_until = NULL WHERE run = ?1", [run.0])?;
    }
    parked::park(tx, table, &row, why, now).map(drop)
}

pub(crate) fn control(tx: &mut Tx, control: ControlChange, now: Time) -> Result<(), StoreError> {
    match control {
        ControlChange::Freeze(freeze, notify) => freezes::freeze(tx, freeze, &notify, now),
        ControlChange::Unfreeze { scope, by, why, persons } => {
            freezes::unfreeze(tx, freezes::FreezeRelease { scope, by, why, persons }, now)
        }
        ControlChange::ResetBreaker { scope, by, why } => breakers::reset(tx, scope, by, why, now),
        ControlChange::Acknowledge { incident, by } => acknowledge(tx, incident, by, now),
        ControlChange::UnlinkSubjects { person, by, why } => subjects::unlink(tx, person, by, why, now),
        ControlChange::Assign { incident, owner, by } => assign(tx, incident, owner, by, now),
        ControlChange::Cancel { run, by, why } => {
            let run = match runs::get(&tx.conn, run) {
                Err(StoreError::Damaged(_)) => return runs::cut_off(tx, run, &by, why, now),
                found => found?,
            };
            if let RunState::Stuck { .. } = run.state {
                let nodes = runs::let_go(tx, run.id)?;
                if nodes.is_empty() {
                    return Err(StoreError::Refused(format!(
                        "{} is stuck and holds no node, so there is no node to release",
                        run.id
                    )));
                }
                let entry = EntryKind::NodesReleased { nodes, by: by.clone(), why };
                return tx.append(&Actor::person(&by), runs::about(&run), &entry, now).map(drop);
            }
            if run.state.is_final() {
                return Err(StoreError::Refused(format!("{} is over already: {}", run.id, run.state.name())));
            }
            let reason = Reason::new(ReasonCode::Cancelled, format!("cancelled by {by}: {why}"));
            runs::conclude(tx, &run, RunState::Denied { reason }, &Actor::person(&by), now)?;
            runs::abandon(tx, run.id, now)
        }
        ControlChange::Judge { run, right, by, why, first, in_force } => {
            record::judge(tx, run, &ReviewRecord { right, by, why, first, in_force }, now)
        }
        ControlChange::Promote(climb) => ladder::promote(tx, &climb, now),
        ControlChange::Demote(climb) => ladder::demote(tx, &climb, now),
        ControlChange::EndEpisodes { episodes, stale, why } => end_episodes(tx, &episodes, stale, &why, now),
        ControlChange::Redact { entry, by, why, persons, notify } => {
            redact::redact(tx, &redact::EntryRedaction { entry, by, why, persons, notify }, now)
        }
        ControlChange::Resolve { incident, source, by, why } => {
            resolve(tx, incident, source.as_deref(), (&by, &why), now)
        }
    }
}

fn acknowledge(tx: &mut Tx, incident: IncidentId, by: String, now: Time) -> Result<(), StoreError> {
    let sql = "SELECT closed_at IS NOT NULL, acknowledged_by FROM incident WHERE id = ?1";
    let found = one(&tx.conn, sql, [incident.0], |row| Ok((row.get::<bool>(0)?, row.get::<Option<String>>(1)?)))?;
    match found {
        None => Err(StoreError::NotFound { what: format!("incident {incident}") }),
        Some((true, _)) => Err(StoreError::Refused(format!("{incident} is resolved already"))),
        // Twice is once; who was first stays named.
        Some((false, Some(_))) => Ok(()),
        Some((false, None)) => {
            exec(&tx.conn, "UPDATE incident SET acknowledged_by = ?2 WHERE id = ?1", params![incident.0, by])?;
            let about = EntryLinks { incident: Some(incident), run: None };
            tx.append(&Actor::person(&by.clone()), about, &EntryKind::IncidentAcknowledged { by }, now)?;
            Ok(())
        }
    }
}

fn assign(tx: &mut Tx, incident: IncidentId, owner: String, by: String, now: Time) -> Result<(), StoreError> {
    let sql = "SELECT closed_at IS NOT NULL, owner FROM incident WHERE id = ?1";
    let found = one(&tx.conn, sql, [incident.0], |row| Ok((row.get::<bool>(0)?, row.get::<Option<String>>(1)?)))?;
    match found {
        None => Err(StoreError::NotFound { what: format!("incident {incident}") }),
        Some((true, _)) => Err(StoreError::Refused(format!("{incident} is resolved already"))),
        Some((false, Some(now))) if now == owner => Ok(()),
        Some((false, _)) => {
            exec(&tx.conn, "UPDATE incident SET owner = ?2 WHERE id = ?1", params![incident.0, owner])?;
            let about = EntryLinks { incident: Some(incident), run: None };
            tx.append(&Actor::person(&by.clone()), about, &EntryKind::IncidentAssigned { owner, by }, now)?;
            Ok(())
        }
    }
}

fn resolve(
    tx: &mut Tx,
    incident: IncidentId,
    source: Option<&str>,
    (by, why): (&str, &str),
    now: Time,
) -> Result<(), StoreError> {
    let sql = "SELECT id FROM episode WHERE incident = ?1 AND state = 0 AND (?2 IS NULL OR source = ?2) ORDER BY id";
    let open = all(&tx.conn, sql, params![incident.0, source], |row| Ok(EpisodeId(row.get(0)?)))?;
    if open.is_empty() {
        let whose = source.map(|source| format!(" of source {source}")).unwrap_or_default();
        return Err(StoreError::Refused(format!("no alert{whose} holds {incident} open")));
    }
    end_as(tx, &Actor::person(by), &open, false, &format!("ended by {by}: {why}"), now)
}

fn end_episodes(tx: &mut Tx, episodes: &[EpisodeId], stale: bool, why: &str, now: Time) -> Result<(), StoreError> {
    end_as(tx, &Actor::engine(), episodes, stale, why, now)
}

fn end_as(
    tx: &mut Tx,
    actor: &Actor,
    episodes: &[EpisodeId],
    stale: bool,
    why: &str,
    now: Time,
) -> Result<(), StoreError> {
    let mut touched: BTreeMap<IncidentId, incidents::IncidentChanges> = BTreeMap::new();
    let mut ended: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for id in episodes {
        let sql = "UPDATE episode SET state = ?2 WHERE id = ?1 AND state = 0 RETURNING incident, source";
        let values = params![id.0, if stale { 2 } else { 1 }];
        let row = one(&tx.conn, sql, values, |row| Ok((row.get::<Option<i64>>(0)?, row.get::<String>(1)?)))?;
        let Some((incident, source)) = row else { continue };
        ended.entry(source).or_default().push(id.to_string());
        if let Some(incident) = incident {
            runs::wake_askers(&tx.conn, IncidentId(incident), *id, now)?;
            touched.entry(IncidentId(incident)).or_default().firing -= 1;
        }
    }
    for (source, ids) in ended {
        let state = if stale { "stale" } else { "ended" };
        let text = format!("{} now {state}, {why}: {}", ids.len(), ids.join(" "));
        tx.append(actor, EntryLinks::default(), &EntryKind::Gap { source, text }, now)?;
    }
    for (incident, touched) in touched {
        // Nothing of these is received any more, so there is no flap to wait for.
        if incidents::settle(tx, incident, &touched, Span::default(), now)?.is_some() {
            let about = EntryLinks { incident: Some(incident), run: None };
            tx.append(actor, about, &EntryKind::IncidentResolved { why: why.to_owned() }, now)?;
        }
    }
    Ok(())
}
