//! The ledger for auditors: checkpoints, inclusion proofs, raw entries.
//!
//! Invariant: read only; a verifier needs nothing from here but bytes, and trusts none of them.

use super::{Allowed, App, Asked, Problem, act, refuse};
use crate::api::{CheckpointList, InclusionProof, PageQuery, RawEntryAnswer, RawEntryList};
use crate::model::EntryNo;
use crate::store::ledger::LeafHash;
use axum::Json;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A page of checkpoints, the smallest first; `after` is the size of the last one of the page before.
pub(super) async fn checkpoints(
    _: Allowed,
    State(app): State<App>,
    Asked(page): Asked<PageQuery>,
) -> Result<Json<CheckpointList>, Problem> {
    let after = page.after.map_or(0, |after| u64::try_from(after).unwrap_or_default());
    let limit = page.limit.unwrap_or(crate::limits::READ_LIMIT);
    let checkpoints = app.parts.store.checkpoints(after, limit).await.map_err(refuse::store)?;
    Ok(Json(CheckpointList { checkpoints }))
}

/// The path from one entry to the root of the newest checkpoint that covers it.
pub(super) async fn proof(
    _: Allowed,
    State(app): State<App>,
    Path(no): Path<String>,
) -> Result<Json<InclusionProof>, Problem> {
    let no = act::entry_no(&no)?;
    let store = &app.parts.store;
    let counts = store.counts().await.map_err(refuse::store)?;
    let (entries, signed) = (counts.entries, counts.signed);
    if no.0 as u64 >= entries {
        return Err(refuse::missing(format!("entry {no}"), format!("the ledger has {entries}, from #0")));
    }
    let newest = store.checkpoints(signed.saturating_sub(1), 1).await.map_err(refuse::store)?.pop();
    let Some(checkpoint) = newest.filter(|checkpoint| checkpoint.size > no.0 as u64) else {
        let every = crate::limits::CHECKPOINT_EVERY.as_secs();
        return Err(refuse::conflict(
            format!("entry {no} is not signed yet"),
            format!("a checkpoint is signed every {every} s: try again then"),
        ));
    };
    let (leaf, path) = store.inclusion(no, checkpoint.size).await.map_err(refuse::store)?;
    let before = EntryNo(no.0 - 1);
    let raw = store.raw_entries((no.0 > 0).then_some(before), 1).await.map_err(refuse::store)?;
    let raw = raw.into_iter().next().filter(|raw| raw.no == no);
    Ok(Json(InclusionProof {
        entry: no,
        leaf: leaf.to_string(),
        path: path.iter().map(LeafHash::to_string).collect(),
        checkpoint,
        raw: raw.as_ref().map(raw_answer),
    }))
}

pub(super) async fn raw(
    _: Allowed,
    State(app): State<App>,
    Asked(page): Asked<PageQuery>,
) -> Result<Json<RawEntryList>, Problem> {
    let limit = page.limit.unwrap_or(crate::limits::READ_LIMIT).min(crate::limits::READ_LIMIT);
    let entries = app.parts.store.raw_entries(page.after.map(EntryNo), limit).await.map_err(refuse::store)?;
    Ok(Json(RawEntryList { raw: entries.iter().map(raw_answer).collect() }))
}

fn raw_answer(raw: &crate::store::RawEntry) -> RawEntryAnswer {
    let bytes = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| STANDARD.encode(bytes));
    RawEntryAnswer {
        no: raw.no,
        at: raw.at,
        commit: raw.commit.to_string(),
        salt: bytes(&raw.salt),
        body: bytes(&raw.body),
    }
}
