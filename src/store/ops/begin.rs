//! The door to the world: guards, reservation, step and ledger entry, in one transaction.
//!
//! Invariant: a step exists only together with its entry and its reservation; a hold or a denial leaves its reason.

use super::breakers;
use super::ladder;
use super::replicas;
use super::runs::{about, at_work, episodes_over, has_acted, open_step};
use super::tx::Tx;
use crate::limits;
use crate::model::{
    Actor, EffectClass, EntryKind, Freeze, GuardDecision, ImpactScope, Reason, ReasonCode, Run, RunId, RunState,
    SchedulingEffect, Span, Step, Time,
};
use crate::planted::planted;
use crate::policy::{GuardInputs, GuardLimits, StepProposal, admit, admit_again};
use crate::store::db::{Db, all, exec, micros, number, one, params, time, to_json, to_word, word};
use crate::store::{BeginOutcome, PreflightRun, StoreError};
use std::time::Duration;

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

pub(crate) fn begin(
    tx: &mut Tx,
    proposal: StepProposal,
    limits: &GuardLimits,
    now: Time,
) -> Result<BeginOutcome, StoreError> {
    let run = at_work(tx, proposal.run, proposal.epoch)?;
    let sql = "SELECT count(*), count(*) - count(ended_at) FROM step WHERE run = ?1";
    let counted = one(&tx.conn, sql, [run.id.0], |row| Ok((row.get::<u32>(0)?, row.get::<u32>(1)?)))?;
    let (no, open) = counted.unwrap_or_default();
    if open > 0 {
        return Err(StoreError::Refused(format!("{} has an open step: settle that one first", run.id)));
    }
    // Steps that take others back come on top of those that the runbook may make.
    if no as usize >= 2 * limits::STEPS_PER_RUN {
        return Err(StoreError::Refused(format!("{} has {no} steps: that is the limit", run.id)));
    }
    let levels = levels(tx, &run, &proposal, now)?;
    match admit(limits, &levels, &proposal, now) {
        GuardDecision::Allow => allow(tx, &run, no, &levels, proposal, now).map(BeginOutcome::Step),
        GuardDecision::Hold { reason, until } => {
            hold(tx, &run, &proposal, &reason, until, now)?;
            if reason.code == ReasonCode::Correlated {
                breakers::correlated(tx, &run, &reason.text, now)?;
            }
            Ok(BeginOutcome::Held { reason, until })
        }
        GuardDecision::Deny { reason } => {
            let entry = EntryKind::StepDenied { call: proposal.call, reason: reason.clone() };
            tx.append(&Actor::engine(), about(&run), &entry, now)?;
            Ok(BeginOutcome::Denied { reason })
        }
    }
}

/// The guards' predicted decisions on the steps of a run that was not started: over the levels of this moment, each
/// step as if those before it had been made.
pub(crate) fn foretell(
    tx: &mut Tx,
    prospect: PreflightRun,
    limits: &GuardLimits,
    now: Time,
) -> Result<Vec<GuardDecision>, StoreError> {
    // The number that comes next: it would be the youngest.
    let run = Run { id: RunId(tx.sole.next.run), epoch: tx.epoch, ..prospect.run };
    let mut verdicts = Vec::new();
    for (at, proposal) in prospect.proposals.iter().enumerate() {
        let mut levels = levels(tx, &run, proposal, now)?;
        levels.declared_reach = prospect.reach;
        for before in &prospect.proposals[..at] {
            as_if_made(&mut levels, before, proposal);
        }
        verdicts.push(admit(limits, &levels, &StepProposal { run: run.id, ..proposal.clone() }, now));
    }
    Ok(verdicts)
}

/// The step before is taken for made: its node is this run's, and out of service for the steps on other nodes.
fn as_if_made(levels: &mut GuardInputs, before: &StepProposal, step: &StepProposal) {
    levels.acted = true;
    let Some(node) = before.target.node.as_ref().filter(|_| before.disruptive) else { return };
    if before.target.cluster != step.target.cluster {
        return;
    }
    if step.target.node.as_ref() == Some(node) {
        levels.is_holder = true;
    } else if !levels.nodes_held.contains(node) {
        levels.nodes_held.push(node.clone());
        levels.nodes_hour += 1;
        levels.nodes_day += 1;
    }
}

/// The open step is to be performed once more: users may have stopped everything since.
pub(crate) fn again(
    tx: &mut Tx,
    proposal: StepProposal,
    step: u32,
    limits: &GuardLimits,
    now: Time,
) -> Result<BeginOutcome, StoreError> {
    let run = at_work(tx, proposal.run, proposal.epoch)?;
    let mut open = open_step(tx, run.id, step)?;
    let levels = levels(tx, &run, &proposal, now)?;
    match admit_again(limits, &levels, &proposal, now) {
        GuardDecision::Allow => {
            let sql = "UPDATE step SET deadline = ?3 WHERE run = ?1 AND no = ?2";
            exec(&tx.conn, sql, params![run.id.0, step, micros(proposal.deadline)])?;
            exec(&tx.conn, "UPDATE run SET held = NULL WHERE id = ?1 AND held IS NOT NULL", [run.id.0])?;
            open.deadline = proposal.deadline;
            Ok(BeginOutcome::Step(open))
        }
        GuardDecision::Hold { reason, until } => {
            hold(tx, &run, &proposal, &reason, until, now)?;
            Ok(BeginOutcome::Held { reason, until })
        }
        GuardDecision::Deny { reason } => {
            let entry = EntryKind::StepDenied { call: proposal.call, reason: reason.clone() };
            tx.append(&Actor::engine(), about(&run), &entry, now)?;
            Ok(BeginOutcome::Denied { reason })
        }
    }
}

/// Everything that the guards weigh, as it stands in this transaction.
fn levels(tx: &mut Tx, run: &Run, proposal: &StepProposal, now: Time) -> Result<GuardInputs, StoreError> {
    let conn = &tx.conn;
    let sql = "SELECT cooldown, attempts FROM run WHERE id = ?1";
    let set = one(conn, sql, [run.id.0], |row| Ok((row.get::<i64>(0)?, row.get::<u32>(1)?)))?;
    let (cooldown, attempts_max) = set.unwrap_or_default();
    let cluster = proposal.target.cluster.as_deref().unwrap_or_default();
    let node = proposal.target.node.as_deref().unwrap_or_default();
    let (came_back, came_back_at) = breakers::flaps(conn, run.episode, now)?;
    let (at, now) = (now, micros(now));
    let sql = "SELECT run FROM hold WHERE cluster = ?1 AND node = ?2 AND run <> ?3";
    let node_holder = one(conn, sql, params![cluster, node, run.id.0], |row| Ok(RunId(row.get(0)?)))?;
    // A read of the world may be older than the end of a run that took a node just before.
    let read_at = proposal.facts.read_at.map_or(i64::MAX, micros);
    let sql = "SELECT node FROM hold WHERE cluster = ?1 AND node <> ?2 UNION \
               SELECT taken.node FROM run JOIN taken ON taken.run = run.id \
               WHERE run.ended_at >= ?3 AND taken.cluster = ?1 AND taken.node <> ?2 ORDER BY 1";
    let mut nodes_held = all(conn, sql, params![cluster, node, read_at], |row| row.get(0))?;
    if planted("budget-outside-the-transaction") {
        nodes_held.clear();
    }
    let sql = "SELECT hold.node, hold.run FROM hold JOIN run ON run.id = hold.run \
               WHERE hold.cluster = ?1 AND hold.run <> ?2 ORDER BY hold.node";
    let holders = all(conn, sql, params![cluster, run.id.0], |row| Ok((row.get::<String>(0)?, RunId(row.get(1)?))))?;
    let sql = "SELECT count(*) FROM hold WHERE cluster = ?1 AND node = ?2 AND run = ?3";
    let is_holder = number(conn, sql, params![cluster, node, run.id.0])? > 0;
    let sql = "SELECT node, max(at) FROM taken WHERE at > ?3 AND cluster = ?1 AND node <> ?2 GROUP BY node";
    let grouped = proposal.disruptive && !proposal.facts.groups.is_empty();
    let taken_lately = if grouped {
        all(conn, sql, params![cluster, node, now - DAY], |row| Ok((row.get::<String>(0)?, time(row, 1)?)))?
    } else {
        Vec::new()
    };
    let sql = "SELECT at FROM attempt WHERE runbook = ?1 AND subject = ?2 AND at > ?3 AND run <> ?4 ORDER BY at";
    let tried = params![run.runbook.name, run.subject.to_string(), now - DAY, run.id.0];
    let attempts = all(conn, sql, tried, |row| time(row, 0))?;
    let over = episodes_over(conn, run)?;
    Ok(GuardInputs {
        mode: ladder::mode_now(tx, run)?,
        rule: run.rule.clone(),
        cooldown: Span(Duration::from_micros(cooldown.unsigned_abs())),
        attempts_max,
        declared_reach: declared_reach(conn, &run.runbook.hash)?,
        approved: run.approved.clone(),
        freezes: freezes(conn, at)?,
        node_holder,
        nodes_held,
        holders,
        is_holder,
        replicas_taken: replicas::taken(conn, cluster, run.id, &proposal.facts)?,
        taken_lately,
        nodes_hour: taken_since(conn, cluster, node, now - HOUR)?,
        nodes_day: taken_since(conn, cluster, node, now - DAY)?,
        attempts,
        acted: has_acted(tx, run.id)?,
        cordoned: has_cordoned(conn, run.id, node)?,
        over,
        kept: if over { super::runs::kept_until(tx, run, at)? } else { None },
        breakers: breakers::covering(tx, run)?,
        symptom_nodes: breakers::symptoms(tx, run, at)?,
        came_back,
        came_back_at,
    })
}

fn freezes(conn: &dyn Db, now: Time) -> Result<Vec<Freeze>, StoreError> {
    let mut freezes = all(conn, super::rows::FREEZES, [], super::rows::freeze)?;
    if planted("cached-kill-switch") {
        freezes.retain(|freeze| freeze.since + limits::HOUR.0 < now);
    }
    Ok(freezes)
}

/// Whether the last thing that this run did to the node's schedulability was to cordon it.
fn has_cordoned(conn: &dyn Db, run: RunId, node: &str) -> Result<bool, StoreError> {
    let sql = "SELECT scheduling FROM step WHERE run = ?1 AND scheduling IN (?3, ?4) \
               AND json_extract(call, '$.args.node') = ?2 AND json_extract(outcome, '$.ok') IS NOT NULL \
               ORDER BY no DESC LIMIT 1";
    let cordon = to_word(&SchedulingEffect::Cordon)?;
    let asked = params![run.0, node, cordon, to_word(&SchedulingEffect::Uncordon)?];
    Ok(one(conn, sql, asked, |row| row.get::<String>(0))?.is_some_and(|last| last == cordon))
}

fn taken_since(conn: &dyn Db, cluster: &str, node: &str, since: i64) -> Result<u32, StoreError> {
    let sql = "SELECT count(DISTINCT node) FROM taken WHERE at > ?3 AND cluster = ?1 AND node <> ?2";
    Ok(number(conn, sql, params![cluster, node, since])? as u32)
}

/// The reach that was pinned with the runbook; none where none was, so that nothing is allowed by accident.
fn declared_reach(conn: &dyn Db, hash: &str) -> Result<ImpactScope, StoreError> {
    if planted("pinned-reach-not-read") {
        return Ok(ImpactScope::Cluster);
    }
    Ok(one(conn, "SELECT reach FROM pin WHERE hash = ?1", [hash], |row| word(row, 0))?.unwrap_or_default())
}

fn allow(
    tx: &mut Tx,
    run: &Run,
    no: u32,
    levels: &GuardInputs,
    proposal: StepProposal,
    now: Time,
) -> Result<Step, StoreError> {
    if let (true, Some(node)) = (proposal.disruptive, &proposal.target.node) {
        reserve(tx, run.id, proposal.target.cluster.as_deref().unwrap_or_default(), node, now)?;
    }
    replicas::reserve(tx, proposal.target.cluster.as_deref().unwrap_or_default(), run.id, &proposal.facts, now)?;
    // Speaking to users is not acting on the subject.
    if proposal.effect != EffectClass::Read && proposal.reach > ImpactScope::None && !levels.acted {
        let sql = "INSERT INTO attempt (run, runbook, subject, at) VALUES (?1, ?2, ?3, ?4)";
        exec(&tx.conn, sql, params![run.id.0, run.runbook.name, run.subject.to_string(), micros(now)])?;
    }
    let forgets = planted("step-forgets-its-cordon");
    let scheduling = if forgets { SchedulingEffect::Unchanged } else { proposal.scheduling };
    let step = Step {
        run: run.id,
        no,
        call: proposal.call,
        effect: proposal.effect,
        undoes: proposal.undoes,
        begun_at: now,
        deadline: proposal.deadline,
        attempt: 1,
        carry: proposal.carry,
        outcome: None,
        ended_at: None,
        incarnation: tx.incarnation.clone(),
    };
    exec(
        &tx.conn,
        "INSERT INTO step (run, no, call, effect, undoes, begun_at, deadline, attempt, carry, incarnation, scheduling) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, ?9, ?10)",
        params![
            run.id.0,
            no,
            to_json(&step.call)?,
            to_word(&step.effect)?,
            step.undoes,
            micros(now),
            micros(step.deadline),
            to_json(&step.carry)?,
            step.incarnation,
            to_word(&scheduling)?
        ],
    )?;
    exec(
        &tx.conn,
        "UPDATE run SET held = NULL, state = ?2 WHERE id = ?1",
        params![run.id.0, to_json(&RunState::Ready)?],
    )?;
    let begun = EntryKind::StepBegun {
        step: no,
        call: step.call.clone(),
        effect: step.effect,
        target: proposal.target,
        undoes: step.undoes,
    };
    tx.append(&Actor::engine(), about(run), &begun, now)?;
    Ok(step)
}

/// Takes the node for this run. Policy has checked that no other run holds it; the primary key ensures it once more.
fn reserve(tx: &Tx, run: RunId, cluster: &str, node: &str, now: Time) -> Result<(), StoreError> {
    let sql = "INSERT INTO hold (cluster, node, run) VALUES (?1, ?2, ?3) ON CONFLICT (cluster, node) DO NOTHING";
    if exec(&tx.conn, sql, params![cluster, node, run.0])? > 0 {
        let sql = "INSERT INTO taken (cluster, node, run, at) VALUES (?1, ?2, ?3, ?4)";
        exec(&tx.conn, sql, params![cluster, node, run.0, micros(now)])?;
        return Ok(());
    }
    let sql = "SELECT count(*) FROM hold WHERE cluster = ?1 AND node = ?2 AND run = ?3";
    if number(&tx.conn, sql, params![cluster, node, run.0])? == 0 {
        return Err(StoreError::Refused(format!("node {node} is held by another run")));
    }
    Ok(())
}

/// Parks the run; the same reason again is no second entry.
fn hold(
    tx: &mut Tx,
    run: &Run,
    proposal: &StepProposal,
    reason: &Reason,
    until: Time,
    now: Time,
) -> Result<(), StoreError> {
    let seen = to_json(&(reason.code, &proposal.call))?;
    let long = to_json(&(reason.code, &proposal.call, "for long"))?;
    let entry = EntryKind::StepHeld { call: proposal.call.clone(), reason: reason.clone(), until };
    let sql = "UPDATE run SET held = ?2 WHERE id = ?1 AND held IS DISTINCT FROM ?2 AND held IS DISTINCT FROM ?3";
    if exec(&tx.conn, sql, params![run.id.0, seen, long])? > 0 {
        tx.append(&Actor::engine(), about(run), &entry, now)?;
    } else {
        // Once more when it has lasted: by then it is a matter for users.
        let sql = "UPDATE run SET held = ?3 WHERE id = ?1 AND held = ?2 \
                   AND (SELECT max(at) FROM entry WHERE run = ?1 AND kind = 'step_held') <= ?4";
        let since = micros(now - limits::HELD_LONG);
        if exec(&tx.conn, sql, params![run.id.0, seen, long, since])? > 0 {
            let no = tx.append(&Actor::engine(), about(run), &entry, now)?;
            tx.urge(run.incident, no, now)?;
        }
    }
    super::runs::set_state(tx, run.id, &RunState::Held { reason: reason.clone() }, Some(until))
}
