//! The ledger through the trait: proofs, checkpoints, exports, redaction, retention.
//!
//! Invariant: what verifies does so with the public key and the export alone.

use super::Open;
use super::fixtures::*;
use nightshift::model::{EntryNo, RunId, RunState, Span};
use nightshift::store::ledger::{
    Checkpoint, LeafHash, PublicKey, SigningKey, VerifyError, verify_consistency, verify_export, verify_inclusion,
    verify_note, write_export,
};
use nightshift::store::{ControlChange, Store, StoreError};
use std::sync::Arc;

fn key() -> Arc<SigningKey> {
    let dir = tempfile::tempdir().unwrap();
    Arc::new(SigningKey::open_or_create(&dir.path().join("key"), "nightshift.test").unwrap())
}

async fn export(store: &Arc<dyn Store>, key: &PublicKey) -> Vec<u8> {
    let mut entries = Vec::new();
    loop {
        let page =
            store.raw_entries(entries.last().map(|entry: &nightshift::store::RawEntry| entry.no), 100).await.unwrap();
        if page.is_empty() {
            break;
        }
        entries.extend(page);
    }
    let mut out = Vec::new();
    let size = entries.len() as u64;
    write_export(&mut out, key, size, entries, store.checkpoints(0, 1_000).await.unwrap()).unwrap();
    out
}

async fn signed(store: &Arc<dyn Store>, key: &Arc<SigningKey>) -> (Checkpoint, LeafHash) {
    let checkpoint = store.checkpoint(key.clone(), at(9)).await.unwrap().unwrap();
    let said = verify_note(&checkpoint.note, key.public()).unwrap();
    assert_eq!(said.size, checkpoint.size);
    (checkpoint, said.root)
}

pub async fn checkpoints_proofs_and_export_verify(open: Open<'_>) {
    let store = open();
    let key = key();
    for no in 0..5 {
        hear(&store, &auto(), vec![event("Xid79", &format!("a{no}"))], at(no)).await;
    }
    let (first, old_root) = signed(&store, &key).await;
    assert_eq!(signed(&store, &key).await.0, first, "nothing new, no new checkpoint");
    let rules = auto();
    let many = (0..300).map(|no| event("Xid79", &format!("b{no}"))).collect();
    hear(&store, &rules, many, at(6)).await;
    store.close().await.unwrap();
    drop(store);
    let store = open();
    let (second, new_root) = signed(&store, &key).await;
    assert!(second.size > 600, "over more than one tile and a restart");
    for no in [0, 3, 255, 256, 511, second.size as i64 - 1] {
        let (leaf, path) = store.inclusion(EntryNo(no), second.size).await.unwrap();
        assert!(verify_inclusion(leaf, no as u64, second.size, &path, new_root), "#{no}");
    }
    let path = store.consistency(first.size, second.size).await.unwrap();
    assert!(verify_consistency(first.size, old_root, second.size, new_root, &path));
    assert!(store.inclusion(EntryNo(3), second.size + 1).await.is_err());
    assert!(store.inclusion(EntryNo(3), 3).await.is_err());
    let report = verify_export(export(&store, key.public()).await.as_slice(), key.public()).unwrap();
    assert_eq!((report.entries, report.signed, report.checkpoints), (second.size, second.size, 2));
    assert_eq!((report.root, report.redacted), (new_root, 0));
}

pub async fn every_changed_byte_of_an_export_is_noticed_and_named(open: Open<'_>) {
    let store = open();
    let key = key();
    hear(&store, &auto(), vec![event("Xid79", "gpu-3")], at(1)).await;
    hear(&store, &auto(), vec![resolved(event("Xid79", "gpu-3"))], at(2)).await;
    signed(&store, &key).await;
    let good = export(&store, key.public()).await;
    verify_export(good.as_slice(), key.public()).unwrap();
    let mut line = 0_u64;
    let entries = good.iter().filter(|byte| **byte == b'\n').count() as u64 - 2;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let error = verify_export(bad.as_slice(), key.public()).expect_err(&format!("byte {at}"));
        // A header that lies about the number of entries may make any line the first bad one.
        match error {
            VerifyError::BadEntry { no, .. } => assert!(line == 0 || no == line - 1, "byte {at}: {error}"),
            VerifyError::WrongRoot { after, upto } => {
                assert!(after < line as i64 && line <= upto + 1, "byte {at} of line {line}: {error}");
            }
            _ => assert!(line == 0 || line > entries, "byte {at} of line {line}: {error}"),
        }
        line += u64::from(good[at] == b'\n');
    }
    let lines: Vec<&[u8]> = good.split_inclusive(|byte| *byte == b'\n').collect();
    let without = |skip: usize| {
        let kept = lines.iter().enumerate().filter(|(no, _)| *no != skip);
        kept.flat_map(|(_, line)| line.to_vec()).collect::<Vec<u8>>()
    };
    let cut = verify_export(without(2).as_slice(), key.public());
    assert!(matches!(cut, Err(VerifyError::BadEntry { no: 1, .. })), "{cut:?}");
    let unsigned = verify_export(without(lines.len() - 1).as_slice(), key.public());
    assert!(matches!(unsigned, Err(VerifyError::Unsigned)), "{unsigned:?}");
    let other = self::key();
    assert!(verify_export(good.as_slice(), other.public()).is_err(), "signed by another user");
}

pub async fn a_redacted_body_is_gone_everywhere_and_the_proof_holds(open: Open<'_>) {
    let store = open();
    let key = key();
    hear(&store, &auto(), vec![event("Xid79", "secret-node")], at(1)).await;
    let (checkpoint, root) = signed(&store, &key).await;
    let redact = |no| ControlChange::Redact {
        entry: EntryNo(no),
        by: "kim".to_owned(),
        why: "a name".to_owned(),
        persons: 1,
        notify: Vec::new(),
    };
    let early = store.control(redact(1), at(2)).await;
    assert!(matches!(&early, Err(StoreError::Refused(why)) if why.contains("r1")), "its run still needs it: {early:?}");
    let cancel = ControlChange::Cancel { run: RunId(1), by: "kim".to_owned(), why: "a name".to_owned() };
    store.control(cancel, at(2)).await.unwrap();
    store.control(redact(1), at(2)).await.unwrap();
    assert!(store.control(redact(1), at(3)).await.is_err(), "once");
    assert!(store.control(redact(99), at(3)).await.is_err(), "no such entry");
    let raw = store.raw_entries(None, 100).await.unwrap();
    assert_eq!((&raw[1].body, &raw[1].salt), (&None, &None));
    assert_eq!(story(&store).await, ["started", "incident_opened", "run_created", "run_ended", "redacted"]);
    let episode = store.episodes(all()).await.unwrap().remove(0);
    assert!(episode.event.labels.is_empty() && episode.event.summary.contains("removed"), "{episode:?}");
    let (leaf, path) = store.inclusion(EntryNo(1), checkpoint.size).await.unwrap();
    assert!(verify_inclusion(leaf, 1, checkpoint.size, &path, root));
    signed(&store, &key).await;
    let report = verify_export(export(&store, key.public()).await.as_slice(), key.public()).unwrap();
    assert_eq!(report.redacted, 1);
}

pub async fn old_rows_are_swept_and_the_ledger_still_verifies(open: Open<'_>) {
    let store = open();
    let key = key();
    for node in ["a", "b", "c"] {
        let claimed = running(&store, node).await;
        store.begin(cordon(&claimed, node), guards(), at(1)).await.unwrap();
        let (run, epoch) = (claimed.run.id, claimed.run.epoch);
        let nothing = nightshift::model::Outcome::Ok(serde_json::Value::Null);
        store.end(run, epoch, 0, nothing, Vec::new(), at(1)).await.unwrap();
        store.finish(run, epoch, RunState::Done, at(2)).await.unwrap();
    }
    hear(&store, &auto(), vec![resolved(event("Xid79", "a")), resolved(event("Xid79", "b"))], at(3)).await;
    let later = at(400 * 86_400);
    while store.sweep(hour(), hour(), later).await.unwrap() > 0 {
        let swept = story(&store).await;
        assert!(swept.len() < 100, "sweeping makes no end of entries to sweep");
    }
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.episodes_open, counts.incidents_open), (1, 1), "what is open stays");
    assert_eq!(store.episodes(all()).await.unwrap().len(), 1);
    assert_eq!(store.episodes(all()).await.unwrap()[0].event.subject.node.as_deref(), Some("c"));
    assert_eq!(store.runs(all()).await.unwrap().len(), 1, "the newest number is not given again");
    signed(&store, &key).await;
    let report = verify_export(export(&store, key.public()).await.as_slice(), key.public()).unwrap();
    assert!(report.redacted > 5, "{report:?}");
    assert_eq!(store.sweep(Span::seconds(0), hour(), at(0)).await.unwrap(), 0);
}
