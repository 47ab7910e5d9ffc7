//! From a folder to the files that a server will load: a safetensors index, a snapshot of the Hugging Face hub, or plain files.
//!
//! Invariant: each file is listed once, however many names lead to it, and lies under a root.

use super::roots::{ModelRoots, failed, trouble};
use super::safetensors;
use crate::limits;
use crate::model::{FailureKind, StepFailure};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One file of a model.
#[derive(Debug, Clone)]
pub struct ModelFile {
    /// Relative to the model's folder.
    pub name: String,
    pub bytes: u64,
    /// Tensors lie in it; the others are small files beside them.
    pub weights: bool,
    pub(super) path: PathBuf,
    /// The target of the links: in a hub's cache the last part is the hash of the content.
    pub(super) real: PathBuf,
}

/// Something that makes a model unfit to be loaded.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ModelFlaw {
    pub file: String,
    pub what: String,
}

/// The content of a model's folder.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    /// By its real name.
    pub dir: PathBuf,
    /// Weights first, by name: as servers load them.
    pub shards: Vec<ModelFile>,
    pub flaws: Vec<ModelFlaw>,
    /// Oddities that do no harm.
    pub remarks: Vec<String>,
    /// The tensors that an index promises, by shard.
    promised: BTreeMap<String, HashSet<String>>,
    total_size: Option<u64>,
}

#[derive(Deserialize)]
struct SafetensorsIndex {
    weight_map: BTreeMap<String, String>,
    #[serde(default)]
    metadata: IndexMetadata,
}

#[derive(Deserialize, Default)]
struct IndexMetadata {
    #[serde(default)]
    total_size: Option<serde_json::Number>,
}

const INDEX: &str = ".safetensors.index.json";

impl ModelFolder {
    /// Lists the files, and the files that an index names but the folder lacks. Reads no weights.
    ///
    /// # Errors
    ///
    /// Fails when the folder lies under no root, or a file of it cannot be listed or opened.
    pub fn resolve(roots: &ModelRoots, folder: &Path) -> Result<ModelFolder, StepFailure> {
        let dir = snapshot(roots, roots.folder(folder)?)?;
        let mut model = ModelFolder {
            dir: dir.clone(),
            shards: Vec::new(),
            flaws: Vec::new(),
            remarks: Vec::new(),
            promised: BTreeMap::new(),
            total_size: None,
        };
        let mut found = Vec::new();
        list(&dir, &dir, 0, &mut found)?;
        for name in found.iter().filter(|name| name.ends_with(INDEX)) {
            model.read_index(roots, name)?;
        }
        let mut seen = BTreeSet::new();
        for name in found {
            model.take(roots, name, &mut seen)?;
        }
        for shard in model.promised.keys() {
            if !model.shards.iter().any(|there| there.name == *shard)
                && !model.flaws.iter().any(|flaw| flaw.file == *shard)
            {
                model.flaws.push(ModelFlaw { file: shard.clone(), what: "is in the index, but not there".to_owned() });
            }
        }
        if !model.shards.iter().any(|shard| shard.weights) && model.flaws.is_empty() {
            return Err(failed(
                FailureKind::NotFound,
                format!(
                    "{} holds no weights (*.safetensors, *.gguf, *.bin, *.pt, *.onnx, *.engine): name the model's own folder",
                    dir.display()
                ),
            ));
        }
        model.shards.sort_by(|a, b| b.weights.cmp(&a.weights).then_with(|| a.name.cmp(&b.name)));
        Ok(model)
    }

    /// Bytes of all shards.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }

    /// Looks into each file's header. Cheap: some kilobytes a file, whatever its size.
    pub fn check(&mut self, roots: &ModelRoots) {
        let mut data_bytes = 0;
        for shard in self.shards.iter().filter(|shard| shard.weights) {
            let mut wanted = self.promised.remove(&shard.name).unwrap_or_default();
            match inspect(roots, shard, &mut wanted) {
                Err(what) => self.flaws.push(ModelFlaw { file: shard.name.clone(), what }),
                Ok(bytes) => {
                    data_bytes += bytes;
                    if let Some(tensor) = wanted.iter().min() {
                        let tensor: String = tensor.chars().take(limits::QUOTE_CHARS).collect();
                        let what = format!("lacks tensor {tensor:?} that the index promises ({} in all)", wanted.len());
                        self.flaws.push(ModelFlaw { file: shard.name.clone(), what });
                    }
                }
            }
        }
        // Written wrongly by some exporters, so it is a remark and no flaw.
        if let Some(total) = self.total_size.filter(|total| *total != data_bytes && self.flaws.is_empty()) {
            self.remarks.push(format!("the index lists {total} bytes of tensors, the shards hold {data_bytes}"));
        }
        self.flaws.sort_by(|a, b| a.file.cmp(&b.file));
    }

    /// The flaws as a refusal, if there are any.
    ///
    /// # Errors
    ///
    /// Fails with the first flaw and the number of further ones, where there are any.
    pub fn sound(&self) -> Result<(), StepFailure> {
        let Some(first) = self.flaws.first() else { return Ok(()) };
        let more = match self.flaws.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        let ModelFlaw { file, what } = first;
        Err(failed(FailureKind::Invalid, format!("{}: {file} {what}{more}", self.dir.display())))
    }

    fn read_index(&mut self, roots: &ModelRoots, name: &str) -> Result<(), StepFailure> {
        let path = self.dir.join(name);
        let (file, meta, _) = roots.open(&path)?;
        let broken = |what: String| ModelFlaw { file: name.to_owned(), what };
        if meta.len() > limits::CACHE_INDEX_BYTES {
            self.flaws.push(broken(format!("has {} bytes, more than an index has", meta.len())));
            return Ok(());
        }
        let mut text = Vec::new();
        file.take(limits::CACHE_INDEX_BYTES).read_to_end(&mut text).map_err(|error| trouble(&path, &error))?;
        let index: SafetensorsIndex = match serde_json::from_slice(&text) {
            Ok(index) => index,
            Err(error) => {
                self.flaws.push(broken(format!("is no index of safetensors: {error}")));
                return Ok(());
            }
        };
        let folder = Path::new(name).parent().unwrap_or(Path::new(""));
        for (tensor, shard) in index.weight_map {
            if shard.is_empty() || shard.starts_with('/') || shard.split('/').any(|part| part == "..") {
                let shown: String = shard.chars().take(limits::QUOTE_CHARS).collect();
                self.flaws.push(broken(format!("names the shard {shown:?}, which leads elsewhere")));
                break;
            }
            self.promised.entry(folder.join(shard).display().to_string()).or_default().insert(tensor);
        }
        let size = index.metadata.total_size;
        // Newer exporters write a float.
        let size = size.and_then(|size| size.as_u64().or_else(|| size.as_f64().map(|size| size as u64)));
        self.total_size = Some(self.total_size.unwrap_or(0) + size.unwrap_or(0)).filter(|_| size.is_some());
        Ok(())
    }

    fn take(&mut self, roots: &ModelRoots, name: String, seen: &mut BTreeSet<(u64, u64)>) -> Result<(), StepFailure> {
        let path = self.dir.join(&name);
        let weights = is_weights(&name);
        if weights && name.ends_with(".safetensors") && !self.promised.is_empty() && !self.promised.contains_key(&name)
        {
            self.remarks.push(format!("{name} is in no index and is left out"));
            return Ok(());
        }
        let (_, meta, real) = match roots.open(&path) {
            Ok(opened) => opened,
            // A link that leads nowhere: a download that did not end.
            Err(failure) if failure.kind == FailureKind::NotFound => {
                self.flaws.push(ModelFlaw { file: name, what: "leads to a file that is not there".to_owned() });
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        if !seen.insert((meta.dev(), meta.ino())) {
            self.promised.remove(&name);
            return Ok(());
        }
        if self.shards.len() >= limits::CACHE_FILES {
            let what = format!("{} holds more than {} files", self.dir.display(), limits::CACHE_FILES);
            return Err(failed(FailureKind::Invalid, what));
        }
        self.shards.push(ModelFile { name, bytes: meta.len(), weights, path, real });
        Ok(())
    }
}

/// Opens a shard again, and sees that it is still the size that it was.
pub(super) fn reopen(roots: &ModelRoots, shard: &ModelFile) -> Result<File, StepFailure> {
    let (file, meta, _) = roots.open(&shard.path)?;
    if meta.len() != shard.bytes {
        let ModelFile { name, bytes, .. } = shard;
        let what = format!("{name} had {bytes} bytes and now has {}: the file is being written", meta.len());
        return Err(failed(FailureKind::Conflict, what));
    }
    Ok(file)
}

/// Further reads load only their own bytes and nothing ahead of them.
pub(super) fn without_reading_ahead(file: &File) {
    // Advice: where it is refused, a little more is read.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Random);
}

/// The folder of one revision, where the hub's cache folder of a model was named.
fn snapshot(roots: &ModelRoots, dir: PathBuf) -> Result<PathBuf, StepFailure> {
    let snapshots = dir.join("snapshots");
    if !snapshots.is_dir() || !dir.join("blobs").is_dir() {
        return Ok(dir);
    }
    let main = dir.join("refs/main");
    if main.exists() {
        let (file, ..) = roots.open(&main)?;
        let mut revision = String::new();
        file.take(128).read_to_string(&mut revision).map_err(|error| trouble(&main, &error))?;
        let revision = revision.trim();
        let plain = !revision.is_empty() && revision.bytes().all(|b| b.is_ascii_alphanumeric());
        if !plain {
            return Err(failed(FailureKind::Invalid, format!("{} holds no revision", main.display())));
        }
        return roots.folder(&snapshots.join(revision));
    }
    let mut revisions = names(&snapshots)?;
    match (revisions.pop(), revisions.len()) {
        (Some(only), 0) => roots.folder(&snapshots.join(only)),
        (None, _) => Err(failed(FailureKind::NotFound, format!("{} holds no snapshot", dir.display()))),
        (Some(_), more) => Err(failed(
            FailureKind::Invalid,
            format!("{} holds {} snapshots and no refs/main: name the folder of one", dir.display(), more + 1),
        )),
    }
}

/// The names in a folder, sorted, without hidden ones.
fn names(folder: &Path) -> Result<Vec<String>, StepFailure> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| trouble(folder, &error))? {
        let entry = entry.map_err(|error| trouble(folder, &error))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        if found.len() >= limits::CACHE_FILES {
            let what = format!("{} holds more than {} names", folder.display(), limits::CACHE_FILES);
            return Err(failed(FailureKind::Invalid, what));
        }
        found.push(name);
    }
    found.sort_unstable();
    Ok(found)
}

/// Every file below the model's folder. Links to folders are not followed: they could go round in circles.
fn list(top: &Path, folder: &Path, depth: usize, found: &mut Vec<String>) -> Result<(), StepFailure> {
    for name in names(folder)? {
        let path = folder.join(&name);
        let meta = std::fs::symlink_metadata(&path).map_err(|error| trouble(&path, &error))?;
        if meta.is_dir() {
            if depth < limits::CACHE_DEPTH {
                list(top, &path, depth + 1, found)?;
            }
        } else if (meta.is_file() || meta.is_symlink() && !path.is_dir()) && !is_scaffold(&name) {
            if found.len() >= limits::CACHE_FILES {
                let what = format!("{} holds more than {} files", top.display(), limits::CACHE_FILES);
                return Err(failed(FailureKind::Invalid, what));
            }
            let inner = path.strip_prefix(top).unwrap_or(&path);
            found.push(inner.display().to_string());
        }
    }
    Ok(())
}

/// Left by downloads; no server reads it.
fn is_scaffold(name: &str) -> bool {
    [".incomplete", ".lock", ".tmp", ".part"].iter().any(|ending| name.ends_with(ending))
}

fn is_weights(name: &str) -> bool {
    const ENDINGS: [&str; 10] =
        [".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx", ".onnx_data", ".engine", ".plan", ".npz"];
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Bytes of tensors, where the format has them.
fn inspect(roots: &ModelRoots, shard: &ModelFile, wanted: &mut HashSet<String>) -> Result<u64, String> {
    let mut file = reopen(roots, shard).map_err(|failure| failure.message)?;
    without_reading_ahead(&file);
    if shard.name.ends_with(".safetensors") {
        return safetensors::check(file, shard.bytes, wanted).map(|header| header.data_bytes);
    }
    let mut head = Vec::new();
    file.by_ref().take(8).read_to_end(&mut head).map_err(|error| format!("cannot be read: {error}"))?;
    if head.is_empty() {
        return Err("is empty".to_owned());
    }
    if head.starts_with(b"version ") {
        return Err("is a pointer of Git LFS, not the weights: run `git lfs pull`".to_owned());
    }
    if shard.name.ends_with(".gguf") && !head.starts_with(b"GGUF") {
        return Err("is not a GGUF file: it does not start with `GGUF`".to_owned());
    }
    // PyTorch writes zip archives, whose directory is at the end: cut off by a byte, it is no longer found.
    if head.starts_with(b"PK\x03\x04") && !ends_as_zip(&file, shard.bytes) {
        return Err("is a zip archive without its end: it was cut off".to_owned());
    }
    Ok(0)
}

/// Whether the record that ends a zip archive stands exactly at the end of the file.
fn ends_as_zip(file: &File, bytes: u64) -> bool {
    use std::os::unix::fs::FileExt;
    const END: usize = 22;
    let window = bytes.min((END + usize::from(u16::MAX)) as u64);
    let mut tail = vec![0; window as usize];
    if file.read_exact_at(&mut tail, bytes - window).is_err() {
        return false;
    }
    (0..=tail.len().saturating_sub(END)).rev().any(|at| {
        let record = &tail[at..];
        record.len() >= END
            && record.starts_with(b"PK\x05\x06")
            && at + END + usize::from(u16::from_le_bytes([record[20], record[21]])) == tail.len()
    })
}
