//! Reading the folders: which files count, how big they may be, and where a link may lead.
//!
//! Invariant: nothing outside a folder is read, and nothing beyond a bound is held.

use super::CatalogProblem;
use crate::limits;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// One file as it was read.
#[derive(Debug, Clone)]
pub(super) struct FileContent {
    /// As users see it: the folder as configured, and the name in it.
    pub path: String,
    /// Its name in the catalog: the stem, or the vendor's folder.
    pub name: String,
    pub text: String,
    pub hash: [u8; 32],
}

/// The content of a folder.
#[derive(Debug, Default)]
pub(super) struct FolderListing {
    pub files: Vec<FileContent>,
    /// Files that could not be read, and why.
    pub broken: Vec<CatalogProblem>,
    /// Why the folder itself could not be listed; then nothing is known about its files.
    pub unlisted: Option<CatalogProblem>,
}

/// Files directly in a folder with one of these endings, in order of their names. Hidden files and `*.test.yaml` do not
/// count, nor do folders: `rules/prometheus/` is not ours to read.
pub(super) fn flat(root: &Path, endings: &[&str], bytes: usize) -> FolderListing {
    let mut listing = FolderListing::default();
    let Some((real, names)) = list(root, &mut listing) else { return listing };
    for file in names {
        let stem = endings.iter().find_map(|ending| file.strip_suffix(ending)?.strip_suffix('.'));
        match stem {
            Some(stem) if !file.ends_with(".test.yaml") => {
                listing.take(root, &real, Path::new(&file), stem, bytes);
            }
            _ => {}
        }
    }
    listing
}

/// One file of this name in each folder below the root: `acme/decode.rhai`.
pub(super) fn nested(root: &Path, file: &str, bytes: usize) -> FolderListing {
    let mut listing = FolderListing::default();
    let Some((real, vendors)) = list(root, &mut listing) else { return listing };
    for vendor in vendors {
        let inner = Path::new(&vendor).join(file);
        if fs::symlink_metadata(root.join(&inner)).is_ok() {
            listing.take(root, &real, &inner, &vendor, bytes);
        }
    }
    listing
}

impl FolderListing {
    /// Two listings of one folder: the files of these names, and the others.
    pub fn split(self, names: &[&str]) -> (FolderListing, FolderListing) {
        let stem = |path: &str| Path::new(path).file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
        let (files, other_files) = self.files.into_iter().partition(|file| names.contains(&file.name.as_str()));
        let (broken, other_broken) = self
            .broken
            .into_iter()
            .partition(|broken| stem(&broken.file).is_some_and(|stem| names.contains(&stem.as_str())));
        let (unlisted, other_unlisted) = (self.unlisted.clone(), self.unlisted);
        let others = FolderListing { files: other_files, broken: other_broken, unlisted: other_unlisted };
        (FolderListing { files, broken, unlisted }, others)
    }

    fn take(&mut self, root: &Path, real: &Path, inner: &Path, name: &str, bytes: usize) {
        let path = root.join(inner).display().to_string();
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        let read = if name.is_empty() || !name.chars().all(good) {
            Err(format!("the name `{name}` may hold lower-case letters, digits, `-`, `_` and `.` only: rename it"))
        } else if self.files.len() + self.broken.len() >= limits::CATALOG_FILES {
            Err(format!("this folder holds more than {} files: the rest is not read", limits::CATALOG_FILES))
        } else {
            read(real, inner, bytes)
        };
        match read {
            Ok(text) => {
                let hash = Sha256::digest(text.as_bytes()).into();
                self.files.push(FileContent { path, name: name.to_owned(), text, hash });
            }
            Err(text) => self.broken.push(CatalogProblem { file: path, text, fatal: true }),
        }
    }
}

/// The folder's real place and the names in it, sorted, without hidden ones.
fn list(root: &Path, listing: &mut FolderListing) -> Option<(PathBuf, Vec<String>)> {
    let read = || -> std::io::Result<(PathBuf, Vec<String>)> {
        let real = fs::canonicalize(root)?;
        let mut names = Vec::new();
        for (at, entry) in fs::read_dir(&real)?.enumerate() {
            if at >= limits::CATALOG_ENTRIES {
                let text = format!("it holds more than {} names", limits::CATALOG_ENTRIES);
                return Err(std::io::Error::other(text));
            }
            // A name that is not UTF-8 cannot end in one of our endings.
            names.extend(entry?.file_name().into_string().ok().filter(|name| !name.starts_with('.')));
        }
        names.sort();
        Ok((real, names))
    };
    match read() {
        Ok(found) => Some(found),
        Err(error) => {
            let missing = error.kind() == ErrorKind::NotFound;
            let text = match missing {
                true => "this folder does not exist, so no files are read: create it or change the path".to_owned(),
                false => format!("this folder cannot be read: {error}"),
            };
            listing.unlisted = Some(CatalogProblem { file: root.display().to_string(), text, fatal: !missing });
            None
        }
    }
}

fn read(real_root: &Path, inner: &Path, bytes: usize) -> Result<String, String> {
    // ConfigMaps are mounted as links into a hidden folder beside them; a link that leads out of the folder is not
    // followed, for it could hand us any file of the machine.
    let real = fs::canonicalize(real_root.join(inner)).map_err(|error| format!("cannot be read: {error}"))?;
    if !real.starts_with(real_root) {
        return Err("is a link that leads out of its folder, so it is not read: copy the file instead".to_owned());
    }
    let meta = fs::metadata(&real).map_err(|error| format!("cannot be read: {error}"))?;
    if !meta.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut content = Vec::new();
    fs::File::open(&real)
        .and_then(|file| file.take(bytes as u64 + 1).read_to_end(&mut content))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if content.len() > bytes {
        return Err(format!("is larger than {} KiB: split it", bytes / 1024));
    }
    let text = String::from_utf8(content).map_err(|error| {
        format!("is not UTF-8: byte {} does not start a character; save it as UTF-8", error.utf8_error().valid_up_to())
    })?;
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}
