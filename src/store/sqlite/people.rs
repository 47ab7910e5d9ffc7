//! People: answers to questions, controls, bare notes; and what becomes of questions that nobody answered.
//!
//! Invariant: an approval is decided once; no answer in time is no.

use super::record::Judgement;
use super::sql::{all, exec, micros, one, to_json};
use super::tx::Tx;
use super::{breakers, freezes, incidents, ladder, persons, record, redact, rows, runs, tokens};
use crate::limits;
use crate::model::{
    About, Actor, Approval, ApprovalId, ApprovalState, EntryKind, EpisodeId, Failure, FailureKind, IncidentId, Outcome,
    Reason, ReasonCode, RunId, RunState, Span, Time, identity,
};
use crate::planted::planted;
use crate::store::{Control, Decided, StoreError};
use rusqlite::params;
use serde_json::json;
use std::collections::BTreeMap;

/// An answer of a person.
pub(super) struct Answer {
    pub approval: ApprovalId,
    pub approved: bool,
    pub by: String,
    pub why: String,
}

pub(super) fn decide(tx: &mut Tx, answer: &Answer, now: Time) -> Result<Decided, StoreError> {
    let found = get(tx, answer.approval)?;
    if found.state != ApprovalState::Open {
        return Ok(Decided::Already(found));
    }
    if found.expires_at <= now {
        expire(tx, &found, now)?;
        return Ok(Decided::Already(get(tx, answer.approval)?));
    }
    if !found.approvers.is_empty() && !found.approvers.iter().any(|name| name == identity(&answer.by)) {
        let names = found.approvers.join(", ");
        return Err(StoreError::Refused(format!("{} may not decide {}: only {names} may", answer.by, found.id)));
    }
    let run = runs::get(&tx.conn, found.run)?;
    for requester in run.requesters().filter(|_| answer.approved) {
        if persons::same(&tx.conn, requester, &answer.by)? {
            let text = format!("{} asked for {} and cannot approve it too: another person must", answer.by, run.id);
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
            let text = format!("{} said yes to {} already, as {before}: a different person must", answer.by, found.id);
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
                    "{} said yes to {} already: {} different persons must, and {given} has",
                    answer.by, found.id, found.needed
                );
                return Err(StoreError::Refused(text));
            }
            let seconded =
                EntryKind::ApprovalSeconded { approval: found.id, by: answer.by.clone(), given, needed: found.needed };
            tx.append(&Actor::person(&answer.by), runs::about(&run), &seconded, now)?;
            return Ok(Decided::Seconded(so_far));
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
    resume(tx, &found, answer.approved, &answer.by, reason, now)?;
    Ok(Decided::Now(get(tx, answer.approval)?))
}

fn get(tx: &Tx, approval: ApprovalId) -> Result<Approval, StoreError> {
    let sql = format!("SELECT {} FROM approval WHERE id = ?1", rows::APPROVAL);
    let found = one(&tx.conn, &sql, [approval.0], rows::approval)?;
    found.ok_or_else(|| StoreError::NotFound { what: format!("approval {approval}") })
}

fn settle(tx: &Tx, approval: ApprovalId, state: ApprovalState, by: Option<&str>, now: Time) -> Result<(), StoreError> {
    let sql = "UPDATE approval SET state = ?2, decided_by = ?3, decided_at = ?4 WHERE id = ?1 AND state = 'open'";
    exec(&tx.conn, sql, params![approval.0, super::sql::to_word(&state)?, by, micros(now)])?;
    Ok(())
}

/// What an answer does to the run: a step gets its outcome; a plan is approved, or the run ends.
fn resume(
    tx: &mut Tx,
    approval: &Approval,
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
                false => Outcome::Failed(Failure::new(FailureKind::Refused, reason.text)),
            };
            runs::record(tx, &run, step, outcome, now)?;
            runs::set_state(tx, run.id, &RunState::Ready, Some(now))
        }
        (None, true) => {
            let plan = approval.plan.as_ref().map(to_json).transpose()?;
            exec(&tx.conn, "UPDATE run SET approved = ?2 WHERE id = ?1", params![run.id.0, plan])?;
            runs::set_state(tx, run.id, &RunState::Ready, Some(now))
        }
        // It has done things already: they are taken back if the runbook says so, and then it ends.
        (None, false) if runs::has_acted(tx, run.id)? => {
            let sql = "UPDATE run SET unwinding = ?2 WHERE id = ?1 AND unwinding IS NULL";
            exec(&tx.conn, sql, params![run.id.0, reason.to_string()])?;
            runs::set_state(tx, run.id, &RunState::Ready, Some(now))
        }
        (None, false) => runs::conclude(tx, &run, RunState::Denied { reason }, &Actor::engine(), now),
    }
}

fn expire(tx: &mut Tx, approval: &Approval, now: Time) -> Result<(), StoreError> {
    settle(tx, approval.id, ApprovalState::Expired, None, now)?;
    let run = runs::get(&tx.conn, approval.run)?;
    tx.append(&Actor::engine(), runs::about(&run), &EntryKind::ApprovalExpired { approval: approval.id }, now)?;
    let reason = Reason::new(ReasonCode::ApprovalExpired, format!("{} was not answered in time", approval.id));
    resume(tx, approval, planted("expiry-is-yes"), "nobody", reason, now)
}

/// The plan changed or the run ended: open questions are moot.
pub(super) fn void_approvals(tx: &Tx, run: RunId, now: Time) -> Result<(), StoreError> {
    let sql = "UPDATE approval SET state = 'void', decided_at = ?2 WHERE run = ?1 AND state = 'open'";
    exec(&tx.conn, sql, params![run.0, micros(now)])?;
    Ok(())
}

pub(super) fn tick(tx: &mut Tx, now: Time) -> Result<u64, StoreError> {
    let sql = format!(
        "SELECT {} FROM approval WHERE state = 'open' AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2",
        rows::APPROVAL
    );
    let expired = all(&tx.conn, &sql, params![micros(now), limits::DUE_BATCH as i64], rows::approval)?;
    let mut changed = expired.len() as u64;
    for approval in &expired {
        expire(tx, approval, now)?;
    }
    let sql = "SELECT DISTINCT hold.run FROM hold JOIN run ON run.id = hold.run WHERE run.final = 1 \
               AND json_extract(run.state, '$.is') <> 'stuck'";
    let sql = if planted("lock-released-by-time-alone") { "SELECT DISTINCT run FROM hold" } else { sql };
    for run in all(&tx.conn, sql, [], |row| Ok(RunId(row.get(0)?)))? {
        changed += runs::release(tx, run, now)?;
    }
    changed += incidents::resolve_due(tx, now)?;
    changed += tokens::tick(tx, now)?;
    changed += freezes::tick(tx, now)?;
    changed += record::baked(tx, now)?;
    Ok(changed)
}

pub(super) fn control(tx: &mut Tx, control: Control, now: Time) -> Result<(), StoreError> {
    match control {
        Control::Freeze(freeze, notify) => freezes::freeze(tx, freeze, &notify, now),
        Control::Unfreeze { scope, by, why, persons } => {
            freezes::unfreeze(tx, freezes::Release { scope, by, why, persons }, now)
        }
        Control::ResetBreaker { scope, by, why } => breakers::reset(tx, scope, by, why, now),
        Control::Acknowledge { incident, by } => acknowledge(tx, incident, by, now),
        Control::Assign { incident, owner, by } => assign(tx, incident, owner, by, now),
        Control::Cancel { run, by, why } => {
            let run = runs::get(&tx.conn, run)?;
            if let RunState::Stuck { .. } = run.state {
                let nodes = runs::let_go(tx, run.id)?;
                if nodes.is_empty() {
                    return Err(StoreError::Refused(format!(
                        "{} is stuck and holds no node: nothing to let go",
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
        Control::Judge { run, right, by, why, first, in_force } => {
            record::judge(tx, run, &Judgement { right, by, why, first, in_force }, now)
        }
        Control::Promote(climb) => ladder::promote(tx, &climb, now),
        Control::Demote(climb) => ladder::demote(tx, &climb, now),
        Control::EndEpisodes { episodes, stale, why } => end_episodes(tx, &episodes, stale, &why, now),
        Control::Redact { entry, by, why, persons, notify } => {
            redact::redact(tx, &redact::Wish { entry, by, why, persons, notify }, now)
        }
        Control::Resolve { incident, source, by, why } => resolve(tx, incident, source.as_deref(), (&by, &why), now),
    }
}

fn acknowledge(tx: &mut Tx, incident: IncidentId, by: String, now: Time) -> Result<(), StoreError> {
    let sql = "SELECT closed_at IS NOT NULL, acknowledged_by FROM incident WHERE id = ?1";
    let found = one(&tx.conn, sql, [incident.0], |row| Ok((row.get::<_, bool>(0)?, row.get::<_, Option<String>>(1)?)))?;
    match found {
        None => Err(StoreError::NotFound { what: format!("incident {incident}") }),
        Some((true, _)) => Err(StoreError::Refused(format!("{incident} is resolved already"))),
        // Twice is once; who was first stays named.
        Some((false, Some(_))) => Ok(()),
        Some((false, None)) => {
            exec(&tx.conn, "UPDATE incident SET acknowledged_by = ?2 WHERE id = ?1", params![incident.0, by])?;
            let about = About { incident: Some(incident), run: None };
            tx.append(&Actor::person(&by.clone()), about, &EntryKind::IncidentAcknowledged { by }, now)?;
            Ok(())
        }
    }
}

fn assign(tx: &mut Tx, incident: IncidentId, owner: String, by: String, now: Time) -> Result<(), StoreError> {
    let sql = "SELECT closed_at IS NOT NULL, owner FROM incident WHERE id = ?1";
    let found = one(&tx.conn, sql, [incident.0], |row| Ok((row.get::<_, bool>(0)?, row.get::<_, Option<String>>(1)?)))?;
    match found {
        None => Err(StoreError::NotFound { what: format!("incident {incident}") }),
        Some((true, _)) => Err(StoreError::Refused(format!("{incident} is resolved already"))),
        Some((false, Some(now))) if now == owner => Ok(()),
        Some((false, _)) => {
            exec(&tx.conn, "UPDATE incident SET owner = ?2 WHERE id = ?1", params![incident.0, owner])?;
            let about = About { incident: Some(incident), run: None };
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
    let mut touched: BTreeMap<IncidentId, incidents::Touched> = BTreeMap::new();
    let mut ended: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for id in episodes {
        let sql = "UPDATE episode SET state = ?2 WHERE id = ?1 AND state = 0 RETURNING incident, source";
        let values = params![id.0, if stale { 2 } else { 1 }];
        let row = one(&tx.conn, sql, values, |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, String>(1)?)))?;
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
        tx.append(actor, About::default(), &EntryKind::Gap { source, text }, now)?;
    }
    for (incident, touched) in touched {
        // Nothing of these is heard any more, so there is no flap to wait for.
        if incidents::settle(tx, incident, &touched, Span::default(), now)?.is_some() {
            let about = About { incident: Some(incident), run: None };
            tx.append(actor, about, &EntryKind::IncidentResolved { why: why.to_owned() }, now)?;
        }
    }
    Ok(())
}
