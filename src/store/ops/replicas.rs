//! Replicas that runs take away: reserved with the step that takes them, counted by steps that take others of the set.
//!
//! Invariant: a reservation is written in the transaction that begins its step, and counts as long as the run is not
//! over, and after that for every step whose look at the world is older than its end.

use super::tx::Tx;
use crate::limits;
use crate::model::{RunId, Time};
use crate::planted::planted;
use crate::policy::{TakenReplica, WorldFacts};
use crate::store::StoreError;
use crate::store::db::{Db, all, exec, micros, params};

/// The replicas that other runs take of the sets that these facts name.
pub(crate) fn taken(
    conn: &dyn Db,
    cluster: &str,
    run: RunId,
    facts: &WorldFacts,
) -> Result<Vec<TakenReplica>, StoreError> {
    let read_at = facts.read_at.map_or(i64::MAX, micros);
    let sql = "SELECT replica.run, replica.pod, replica.count, run.final FROM replica JOIN run ON run.id = replica.run \
               WHERE replica.cluster = ?1 AND replica.sets = ?2 AND replica.run <> ?3 \
               AND (run.final = 0 OR run.ended_at >= ?4) ORDER BY replica.run, replica.pod";
    let mut found = Vec::new();
    for serving in facts.serving.iter().filter(|_| !planted("replicas-counted-outside-the-transaction")) {
        let rows = all(conn, sql, params![cluster, serving.set, run.0, read_at], |row| {
            Ok(TakenReplica {
                run: RunId(row.get(0)?),
                set: serving.set.clone(),
                pod: row.get(1)?,
                count: row.get(2)?,
                is_open: row.get::<i64>(3)? == 0,
            })
        })?;
        found.extend(rows);
    }
    Ok(found)
}

/// Records the replicas that a step takes.
pub(crate) fn reserve(tx: &Tx, cluster: &str, run: RunId, facts: &WorldFacts, now: Time) -> Result<(), StoreError> {
    let sql = format!(
        "INSERT INTO replica (cluster, run, sets, pod, count, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (cluster, sets, pod, run) DO UPDATE SET count = {}(replica.count, excluded.count), at = excluded.at",
        tx.conn.dialect().greatest
    );
    for serving in &facts.serving {
        let named = serving.ready.iter().filter(|replica| serving.takes.contains(&replica.pod));
        for replica in named {
            exec(&tx.conn, &sql, params![cluster, run.0, serving.set, replica.pod, 1, micros(now)])?;
        }
        if serving.takes_any > 0 {
            exec(&tx.conn, &sql, params![cluster, run.0, serving.set, "", serving.takes_any, micros(now)])?;
        }
    }
    Ok(())
}

/// The replicas that unfinished runs take, for display.
pub(crate) fn open(conn: &dyn Db) -> Result<Vec<TakenReplica>, StoreError> {
    let sql = "SELECT replica.run, replica.sets, replica.pod, replica.count FROM replica \
               JOIN run ON run.id = replica.run WHERE run.final = 0 ORDER BY 2, 3 LIMIT ?1";
    all(conn, sql, [limits::READ_LIMIT as i64], |row| {
        let (run, set, pod, count) = (RunId(row.get(0)?), row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(TakenReplica { run, set, pod, count, is_open: true })
    })
}
