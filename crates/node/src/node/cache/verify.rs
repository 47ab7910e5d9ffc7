//! Whether a model is intact. Headers and sizes always; every byte against its hash on request.
//!
//! Invariant: hashing leaves the page cache as it was: pages that were not in memory before are released again.

use super::memory::size;
use super::model::{ModelFile, ModelFlaw, ModelFolder, reopen, without_reading_ahead};
use super::read::ReadProgress;
use super::residency;
use super::roots::{ModelRoots, failed, trouble};
use super::warm::CacheSettings;
use crate::limits;
use crate::model::{FailureKind, StepFailure};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerifyReport {
    pub path: String,
    pub files: usize,
    pub bytes: u64,
    pub sound: bool,
    pub flaws: Vec<ModelFlaw>,
    pub remarks: Vec<String>,
    /// Files whose every byte was compared with a hash.
    pub hashed: usize,
}

/// Looks at headers and sizes; with `hash` also at every byte of files whose SHA-256 is known: from `SHA256SUMS` in the
/// folder, or from the name that the hub's cache gives a file.
///
/// # Errors
///
/// Fails when the model cannot be opened, a file of hashes cannot be read, or `cancel` is set; flaws are in the result.
pub fn verify(
    settings: &CacheSettings,
    path: &Path,
    hash: bool,
    cancel: &AtomicBool,
    progress: &(dyn Fn(ReadProgress) + Sync),
) -> Result<VerifyReport, StepFailure> {
    let mut model = ModelFolder::resolve(&settings.roots, path)?;
    model.check(&settings.roots);
    let mut hashed = 0;
    if hash {
        let known = known(&settings.roots, &model)?;
        if known.is_empty() {
            model.remarks.push("no SHA-256 is available for any file: add a SHA256SUMS file to the folder".to_owned());
        }
        let (count, flaws) = hash_all(settings, &model, &known, cancel, progress)?;
        hashed = count;
        model.flaws.extend(flaws);
        model.flaws.sort_by(|a, b| a.file.cmp(&b.file));
    }
    Ok(VerifyReport {
        path: model.dir.display().to_string(),
        files: model.shards.len(),
        bytes: model.bytes(),
        sound: model.flaws.is_empty(),
        flaws: model.flaws,
        remarks: model.remarks,
        hashed,
    })
}

const SUMS: &str = "SHA256SUMS";

/// By the file's name: the hash that it should have.
fn known(roots: &ModelRoots, model: &ModelFolder) -> Result<BTreeMap<String, String>, StepFailure> {
    let mut known = BTreeMap::new();
    for shard in &model.shards {
        let blob = shard.real.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if is_hash(blob) && shard.real.parent().is_some_and(|folder| folder.ends_with("blobs")) {
            known.insert(shard.name.clone(), blob.to_owned());
        }
    }
    let path = model.dir.join(SUMS);
    if path.exists() {
        let (file, ..) = roots.open(&path)?;
        let mut text = String::new();
        file.take(limits::CACHE_INDEX_BYTES).read_to_string(&mut text).map_err(|error| trouble(&path, &error))?;
        for line in text.lines() {
            let Some((hash, name)) = line.split_once(char::is_whitespace) else { continue };
            let name = name.trim_start_matches([' ', '*']).trim_start_matches("./");
            if is_hash(hash) {
                known.insert(name.to_owned(), hash.to_ascii_lowercase());
            }
        }
    }
    Ok(known)
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn hash_all(
    settings: &CacheSettings,
    model: &ModelFolder,
    known: &BTreeMap<String, String>,
    cancel: &AtomicBool,
    progress: &(dyn Fn(ReadProgress) + Sync),
) -> Result<(usize, Vec<ModelFlaw>), StepFailure> {
    let work: Vec<(&ModelFile, &str)> =
        model.shards.iter().filter_map(|shard| Some((shard, known.get(&shard.name)?.as_str()))).collect();
    let total: u64 = work.iter().map(|(shard, _)| shard.bytes).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let flaws = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(settings.readers).clamp(1, limits::CACHE_READERS) {
            scope.spawn(|| {
                while let Some((shard, wanted)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let step = |bytes| {
                        let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                        progress(ReadProgress { done, total, read: done, waits: None });
                        !cancel.load(Ordering::Relaxed)
                    };
                    let what = match hash(&settings.roots, shard, &step) {
                        Ok(hash) if hash == *wanted => continue,
                        Ok(hash) => format!("has the SHA-256 {hash}, and should have {wanted}"),
                        Err(failure) => failure.message,
                    };
                    let flaw = ModelFlaw { file: shard.name.clone(), what };
                    flaws.lock().unwrap_or_else(PoisonError::into_inner).push(flaw);
                }
            });
        }
    });
    if cancel.load(Ordering::Relaxed) {
        let what = format!("it was cancelled at {} of {}", size(done.into_inner()), size(total));
        return Err(failed(FailureKind::Refused, what));
    }
    Ok((work.len(), flaws.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// The SHA-256 of a file in hexadecimal; `step` returns whether to go on.
fn hash(roots: &ModelRoots, shard: &ModelFile, step: &dyn Fn(u64) -> bool) -> Result<String, StepFailure> {
    let file = reopen(roots, shard)?;
    // Else pages that are read ahead of a piece would look as if they had been there before.
    without_reading_ahead(&file);
    let wrong = |error: std::io::Error| trouble(Path::new(&shard.name), &error);
    let mut sum = Sha256::new();
    let mut buffer = vec![0_u8; limits::CACHE_READ_BYTES];
    let mut at = 0;
    while at < shard.bytes {
        let want = buffer.len().min((shard.bytes - at) as usize);
        let was_there = residency::resident(&file, at, want as u64).unwrap_or(1) > 0;
        file.read_exact_at(&mut buffer[..want], at).map_err(wrong)?;
        sum.update(&buffer[..want]);
        if !was_there && let Some(bytes) = NonZeroU64::new(want as u64) {
            // Advice: where it is refused, the pages merely stay.
            let _ = rustix::fs::fadvise(&file, at, Some(bytes), rustix::fs::Advice::DontNeed);
        }
        at += want as u64;
        if !step(want as u64) {
            break;
        }
    }
    Ok(hex::encode(sum.finalize()))
}
