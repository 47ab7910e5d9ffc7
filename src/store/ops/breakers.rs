//! Breakers, symptoms and flaps: recent failures, counted where they are written.
//!
//! Invariant: a breaker trips in the transaction that saw the reason, and is reset by a user alone; failures before the
//! reset never count again.

use super::runs::about;
use super::tx::Tx;
use crate::limits;
use crate::model::{Actor, Breaker, EntryKind, EntryLinks, EpisodeId, Run, RunState, Span, Subject, Time};
use crate::store::StoreError;
use crate::store::db::{Db, SqlDialect, all, exec, micros, number, one, params, time, time_opt};

/// Every breaker that has tripped, the longest first.
pub(crate) fn tripped(conn: &dyn Db) -> Result<Vec<Breaker>, StoreError> {
    let sql = "SELECT scope, why, since FROM breaker WHERE reset_at IS NULL ORDER BY since, scope";
    all(conn, sql, [], |row| Ok(Breaker { scope: row.get(0)?, why: row.get(1)?, since: time(row, 2)? }))
}

/// Those that cover a run.
pub(crate) fn covering(tx: &Tx, run: &Run) -> Result<Vec<Breaker>, StoreError> {
    // As it was written while the home cluster's name was not known to the store.
    let unnamed = (run.subject.cluster.is_none()).then(|| "cluster:default".to_owned());
    let ours =
        [Some(cluster_scope(cluster_of(tx, run))), run.rule.as_deref().map(rule_scope), symptom_scope(run), unnamed];
    let mut tripped = tripped(&tx.conn)?;
    tripped.retain(|breaker| ours.iter().flatten().any(|scope| *scope == breaker.scope));
    Ok(tripped)
}

/// The cluster that a run is about: the home cluster where it names none.
fn cluster_of<'a>(tx: &'a Tx, run: &'a Run) -> &'a str {
    run.subject.cluster.as_deref().filter(|name| !name.is_empty()).unwrap_or_else(|| home(tx))
}

fn home(tx: &Tx) -> &str {
    if tx.home.is_empty() { "default" } else { &tx.home }
}

fn cluster_scope(cluster: &str) -> String {
    format!("cluster:{cluster}")
}

fn rule_scope(rule: &str) -> String {
    format!("rule:{rule}")
}

fn symptom_scope(run: &Run) -> Option<String> {
    run.rule.as_deref().map(|rule| format!("symptom:{rule}"))
}

/// Records it once; users are notified in the incident of the run that saw it.
fn trip(tx: &mut Tx, scope: String, why: String, about: EntryLinks, now: Time) -> Result<(), StoreError> {
    let sql = "INSERT INTO breaker (scope, why, since) VALUES (?1, ?2, ?3) ON CONFLICT (scope) DO UPDATE \
               SET why = excluded.why, since = excluded.since, reset_at = NULL WHERE reset_at IS NOT NULL";
    if exec(&tx.conn, sql, params![scope, why, micros(now)])? > 0 {
        let breaker = Breaker { scope, why, since: now };
        tx.append(&Actor::engine(), about, &EntryKind::BreakerTripped { breaker }, now)?;
    }
    Ok(())
}

/// A guard has seen one symptom on many nodes.
pub(crate) fn correlated(tx: &mut Tx, run: &Run, why: &str, now: Time) -> Result<(), StoreError> {
    match symptom_scope(run) {
        Some(scope) => trip(tx, scope, why.to_owned(), about(run), now),
        None => Ok(()),
    }
}

/// A run has ended: whether too many of its cluster or its rule went wrong lately.
pub(crate) fn after(tx: &mut Tx, run: &Run, state: &RunState, now: Time) -> Result<(), StoreError> {
    if !matches!(state, RunState::Failed { .. } | RunState::Stuck { .. }) || !super::runs::has_acted(tx, run.id)? {
        return Ok(());
    }
    let rule = run.rule.as_deref();
    let (cluster, home) = (cluster_of(tx, run).to_owned(), home(tx).to_owned());
    for scope in [Some(cluster_scope(&cluster)), rule.map(rule_scope)].into_iter().flatten() {
        let since = since(&tx.conn, &scope, limits::OUTCOME_WINDOW, now)?;
        let of_rule = scope.starts_with("rule:");
        let SqlDialect { state_is, subject_cluster, .. } = tx.conn.dialect();
        let sql = format!(
            "SELECT coalesce(sum({state_is} = 'failed'), 0), coalesce(sum({state_is} = 'stuck'), 0) FROM run \
             WHERE ended_at > ?1 AND CASE WHEN ?2 THEN rule = ?3 ELSE coalesce({subject_cluster}, ?5) = ?4 END \
             AND EXISTS (SELECT 1 FROM attempt WHERE attempt.run = run.id)"
        );
        let counted = one(&tx.conn, &sql, params![since, of_rule, rule, cluster, home], |row| {
            Ok((row.get::<u32>(0)?, row.get::<u32>(1)?))
        })?;
        let (failed, stuck) = counted.unwrap_or_default();
        if failed >= limits::OUTCOME_FAILED || stuck >= limits::OUTCOME_STUCK {
            let why = format!("{failed} remedies failed and {stuck} ended in doubt within {}", limits::OUTCOME_WINDOW);
            trip(tx, scope, why, about(run), now)?;
        }
    }
    Ok(())
}

/// A user has found the cause: earlier failures do not count any more.
pub(crate) fn reset(tx: &mut Tx, scope: String, by: String, why: String, now: Time) -> Result<(), StoreError> {
    let sql = "UPDATE breaker SET reset_at = ?2 WHERE scope = ?1 AND reset_at IS NULL";
    if exec(&tx.conn, sql, params![scope, micros(now)])? == 0 {
        return Err(StoreError::NotFound { what: format!("tripped breaker `{scope}`") });
    }
    // Those that wait for it need not wait out their time.
    let state_code = tx.conn.dialect().state_code;
    let sql = format!("UPDATE run SET wake_at = ?1 WHERE final = 0 AND {state_code} = 'breaker_tripped'");
    exec(&tx.conn, &sql, [micros(now)])?;
    tx.append(
        &Actor::person(&by),
        EntryLinks::default(),
        &EntryKind::BreakerReset { scope, by: by.clone(), why },
        now,
    )?;
    Ok(())
}

/// The beginning of a window, or the reset of its breaker where that is later.
fn since(conn: &dyn Db, scope: &str, window: Span, now: Time) -> Result<i64, StoreError> {
    let begin = micros(now).saturating_sub(i64::try_from(window.0.as_micros()).unwrap_or(i64::MAX));
    let reset =
        number(conn, "SELECT coalesce(max(reset_at), ?2) FROM breaker WHERE scope = ?1", params![scope, begin])?;
    Ok(begin.max(reset))
}

/// A rule has started a run about a node.
pub(crate) fn symptom(conn: &dyn Db, rule: &str, subject: &Subject, now: Time) -> Result<(), StoreError> {
    let Some(node) = &subject.node else { return Ok(()) };
    let cluster = subject.cluster.as_deref().unwrap_or_default();
    let sql = "INSERT INTO symptom (rule, cluster, node, at) VALUES (?1, ?2, ?3, ?4)";
    exec(conn, sql, params![rule, cluster, node, micros(now)]).map(drop)
}

/// Nodes that the run's rule was started about lately.
pub(crate) fn symptoms(tx: &Tx, run: &Run, now: Time) -> Result<u32, StoreError> {
    let (Some(rule), Some(scope)) = (run.rule.as_deref(), symptom_scope(run)) else { return Ok(0) };
    let since = since(&tx.conn, &scope, limits::SYMPTOM_WINDOW, now)?;
    // Those that name no cluster are about the home cluster, as those are that name it.
    let cluster = cluster_of(tx, run);
    let unnamed = if cluster == home(tx) { "" } else { cluster };
    let sql = "SELECT count(DISTINCT node) FROM symptom WHERE rule = ?1 AND cluster IN (?2, ?4) AND at > ?3";
    Ok(number(&tx.conn, sql, params![rule, cluster, since, unnamed])? as u32)
}

/// An alert that had ended is back.
pub(crate) fn came_back(conn: &dyn Db, complaint: i64, now: Time) -> Result<(), StoreError> {
    exec(conn, "INSERT INTO flap (complaint, at) VALUES (?1, ?2)", params![complaint, micros(now)]).map(drop)
}

/// How often an episode's alert came back within the window, and when last.
pub(crate) fn flaps(conn: &dyn Db, episode: Option<EpisodeId>, now: Time) -> Result<(u32, Option<Time>), StoreError> {
    let Some(episode) = episode else { return Ok((0, None)) };
    let since = micros(now).saturating_sub(i64::try_from(limits::FLAP_WINDOW.0.as_micros()).unwrap_or(i64::MAX));
    let sql = "SELECT count(*), max(at) FROM flap WHERE complaint = (SELECT complaint FROM episode WHERE id = ?1) \
               AND at > ?2";
    let found = one(conn, sql, params![episode.0, since], |row| Ok((row.get::<u32>(0)?, time_opt(row, 1)?)))?;
    Ok(found.unwrap_or_default())
}
