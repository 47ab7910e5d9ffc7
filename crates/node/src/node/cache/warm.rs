//! Warming a model: check that it is whole and that it fits, read the missing pages, and count again.
//!
//! Invariant: success means that the kernel counts (nearly) every page in memory, not that something was read.

use super::memory::{MemoryProbe, size};
use super::model::{ModelFlaw, ModelFolder, reopen};
use super::read::{self, ReadOptions, ReadProgress};
use super::residency::{self, ResidencyMethod};
use super::roots::{ModelRoots, failed, trouble};
use crate::limits;
use crate::model::{FailureKind, StepFailure};
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// The limits of this node, from its configuration.
#[derive(Debug, Clone)]
pub struct CacheSettings {
    pub roots: ModelRoots,
    pub memory: MemoryProbe,
    pub readers: usize,
    /// Memory that is left to others.
    pub reserve: u64,
    /// No warm reads faster, whatever its argument.
    pub bytes_per_second: Option<u64>,
}

impl Default for CacheSettings {
    fn default() -> Self {
        CacheSettings::of(&crate::config::ModelCacheConfig::default())
    }
}

impl CacheSettings {
    /// The settings of this part of the configuration; MiB become bytes.
    pub fn of(config: &crate::config::ModelCacheConfig) -> CacheSettings {
        const MIB: u64 = 1024 * 1024;
        CacheSettings {
            roots: ModelRoots::new(&config.roots),
            memory: MemoryProbe::default(),
            readers: config.readers,
            reserve: config.reserve_mib.saturating_mul(MIB),
            bytes_per_second: config.mib_per_second.map(|rate| rate.saturating_mul(MIB)),
        }
    }
}

/// Pages in memory of all that there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct PageCount {
    resident: u64,
    all: u64,
}

impl PageCount {
    /// Four digits; 1 only where every page is there.
    fn ratio(self) -> f64 {
        if self.all == 0 {
            return 1.0;
        }
        let ratio = self.resident as f64 / self.all as f64;
        (ratio * 10_000.0).floor() / 10_000.0
    }
}

/// How a model stands in memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelResidency {
    pub path: String,
    pub files: usize,
    pub bytes: u64,
    /// 0 to 1.
    pub resident: f64,
    pub by: ResidencyMethod,
    /// The files have no flaw that headers and sizes show.
    pub sound: bool,
    pub flaws: Vec<ModelFlaw>,
    pub remarks: Vec<String>,
    /// The files that are not wholly in memory, the first ones.
    pub missing: Vec<PartialFile>,
}

/// A file that is only partly in memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartialFile {
    pub file: String,
    pub bytes: u64,
    pub resident: f64,
}

/// The result of a warm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WarmReport {
    pub path: String,
    pub files: usize,
    pub bytes: u64,
    pub resident_before: f64,
    pub resident: f64,
    pub by: ResidencyMethod,
    /// Something was read.
    pub changed: bool,
    pub read_bytes: u64,
    pub seconds: f64,
    pub bytes_per_second: u64,
    /// The control group that the page cache is charged to, where it is known.
    pub charged_to: Option<String>,
    pub remarks: Vec<String>,
}

/// Finds the model and looks at its headers.
fn open(settings: &CacheSettings, path: &Path) -> Result<ModelFolder, StepFailure> {
    let mut model = ModelFolder::resolve(&settings.roots, path)?;
    model.check(&settings.roots);
    Ok(model)
}

fn count(
    settings: &CacheSettings,
    model: &ModelFolder,
    missing: &mut Vec<PartialFile>,
) -> Result<PageCount, StepFailure> {
    let mut sum = PageCount::default();
    for shard in &model.shards {
        let file = reopen(&settings.roots, shard)?;
        let resident = residency::resident(&file, 0, shard.bytes)
            .map_err(|error| trouble(&model.dir.join(&shard.name), &error))?;
        let one = PageCount { resident, all: residency::pages(shard.bytes) };
        if one.resident < one.all && missing.len() < limits::CACHE_FILES_SHOWN {
            missing.push(PartialFile { file: shard.name.clone(), bytes: shard.bytes, resident: one.ratio() });
        }
        sum.resident += one.resident;
        sum.all += one.all;
    }
    Ok(sum)
}

/// How a model stands; reads nothing but headers.
///
/// # Errors
///
/// Fails when the model cannot be opened, or its pages cannot be counted.
pub fn status(settings: &CacheSettings, path: &Path) -> Result<ModelResidency, StepFailure> {
    let model = open(settings, path)?;
    let mut missing = Vec::new();
    let resident = count(settings, &model, &mut missing)?.ratio();
    Ok(ModelResidency {
        path: model.dir.display().to_string(),
        files: model.shards.len(),
        bytes: model.bytes(),
        resident,
        by: residency::by(),
        sound: model.flaws.is_empty(),
        flaws: model.flaws,
        remarks: model.remarks,
        missing,
    })
}

/// Reads pages that are missing. `within` bounds the reading; `cancel` stops it at the next piece.
///
/// # Errors
///
/// Fails when the model has a flaw or does not fit into memory, when its pages do not stay there, when time runs out, or when
/// `cancel` is set.
pub fn warm(
    settings: &CacheSettings,
    path: &Path,
    bytes_per_second: Option<u64>,
    within: Duration,
    cancel: &AtomicBool,
    progress: &(dyn Fn(ReadProgress) + Sync),
) -> Result<WarmReport, StepFailure> {
    let began = Instant::now();
    let model = open(settings, path)?;
    model.sound()?;
    let before = count(settings, &model, &mut Vec::new())?;
    let slower = [settings.bytes_per_second, bytes_per_second].into_iter().flatten().min();
    let manner = ReadOptions { readers: settings.readers, bytes_per_second: slower, until: began + within };
    let (mut now, mut read_bytes) = (before, 0);
    if !is_warm(now) {
        let missing = (before.all - before.resident) * residency::page();
        settings.memory.admit(model.bytes(), missing, settings.reserve)?;
    }
    // A page may be pushed out while others are read; once more helps unless memory is really short.
    for _ in 0..limits::CACHE_PASSES {
        if is_warm(now) {
            break;
        }
        read_bytes += read::read(&settings.roots, &model, manner, &settings.memory, cancel, progress)?;
        now = count(settings, &model, &mut Vec::new())?;
    }
    if !is_warm(now) {
        let text = format!(
            "{} of {} were read, and only {:.1} % stayed in memory: something pushes it out as fast as it is read{}",
            size(read_bytes),
            size(model.bytes()),
            now.ratio() * 100.0,
            settings.memory.group().map(|group| format!(" (control group {group})")).unwrap_or_default()
        );
        return Err(failed(FailureKind::Unverified, text));
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(WarmReport {
        path: model.dir.display().to_string(),
        files: model.shards.len(),
        bytes: model.bytes(),
        resident_before: before.ratio(),
        resident: now.ratio(),
        by: residency::by(),
        changed: read_bytes > 0,
        read_bytes,
        seconds: (seconds * 1000.0).round() / 1000.0,
        bytes_per_second: (read_bytes as f64 / seconds.max(0.001)) as u64,
        charged_to: settings.memory.group(),
        remarks: model.remarks,
    })
}

/// The sum of several warms.
#[derive(Debug, Clone, Serialize)]
pub struct WarmSummary {
    pub changed: bool,
    /// Of the model that is least in memory.
    pub resident: f64,
    pub bytes: u64,
    pub read_bytes: u64,
    pub seconds: f64,
    pub models: Vec<WarmReport>,
}

/// One model after another: the first that fails ends it; models that are warm by then stay so.
///
/// # Errors
///
/// Fails as [`warm`] does for the first model that fails; `within` bounds all of them together.
pub fn warm_all<P: AsRef<Path>>(
    settings: &CacheSettings,
    paths: &[P],
    bytes_per_second: Option<u64>,
    within: Duration,
    cancel: &AtomicBool,
    progress: &(dyn Fn(ReadProgress) + Sync),
) -> Result<WarmSummary, StepFailure> {
    let until = Instant::now() + within;
    let mut models = Vec::new();
    for path in paths {
        let left = until.saturating_duration_since(Instant::now());
        models.push(warm(settings, path.as_ref(), bytes_per_second, left, cancel, progress)?);
    }
    Ok(WarmSummary {
        changed: models.iter().any(|report| report.changed),
        resident: models.iter().map(|report| report.resident).fold(1.0, f64::min),
        bytes: models.iter().map(|report| report.bytes).sum(),
        read_bytes: models.iter().map(|report| report.read_bytes).sum(),
        seconds: models.iter().map(|report| report.seconds).sum(),
        models,
    })
}

fn is_warm(count: PageCount) -> bool {
    count.ratio() >= limits::CACHE_RESIDENT
}
