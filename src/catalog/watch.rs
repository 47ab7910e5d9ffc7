//! Noticing that files changed: events of the file system, waited out until quiet, and a slow look for those that lie.
//!
//! Invariant: after a change there is a call, never two at once, and none where nothing changed; reading is no change.

use super::CatalogFolders;
use crate::limits;
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecursiveMode, Watcher};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};

/// Watches until it is dropped.
pub struct FolderWatch {
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
}

/// Why files cannot be watched; the catalog then reads them every `RELOAD_POLL`.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("files cannot be watched: {0}; on Linux, check fs.inotify.max_user_instances")]
    Notify(#[from] notify::Error),
    #[error("files cannot be watched: no thread ({0})")]
    Thread(#[from] std::io::Error),
}

/// Calls `on_change`, on a thread of its own: once at the start, for changes since the files were read, and then each
/// time after files in the folders changed and were quiet for a moment. Editors that save by renaming, `git checkout`
/// and the link swap of a Kubernetes ConfigMap are each one change. Folders that cannot be watched (not there yet, a
/// network file system) are read every half minute.
///
/// # Errors
///
/// Fails when the system gives no watch, or the thread cannot be started.
pub fn watch(folders: CatalogFolders, mut on_change: impl FnMut() + Send + 'static) -> Result<FolderWatch, WatchError> {
    let (wake, woken) = sync_channel(1);
    let events = wake.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if is_news(&event) {
            // Full means that a look is due already, which is all that an event means.
            let _ = events.try_send(());
        }
    })?;
    let roots = [folders.runbooks, folders.rules, folders.integrations];
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let mut watched = BTreeMap::new();
    follow(&mut watcher, &roots, &mut watched);
    let mut last = stamp(&roots);
    std::thread::Builder::new().name("files".to_owned()).spawn(move || {
        on_change();
        while wait(&woken, &stopped) {
            follow(&mut watcher, &roots, &mut watched);
            let now = stamp(&roots);
            if now == last {
                continue;
            }
            last = quiet(now, &roots, &stopped);
            if !stopped.load(Ordering::Acquire) {
                on_change();
            }
        }
    })?;
    Ok(FolderWatch { stop, wake })
}

impl Drop for FolderWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.wake.try_send(());
    }
}

/// Whether a file may have changed. To be opened and read is an event too, and our own look at the folders does just
/// that: taken for news, each look would be the reason for the next one, for ever.
fn is_news(event: &notify::Result<Event>) -> bool {
    match event {
        Ok(event) => match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            _ => true,
        },
        // Events were lost, perhaps.
        Err(_) => true,
    }
}

/// Waits for an event or for the slow look; `false` when it is over.
fn wait(woken: &Receiver<()>, stopped: &AtomicBool) -> bool {
    match woken.recv_timeout(limits::FILES_LOOK_EVERY) {
        Err(RecvTimeoutError::Disconnected) => false,
        Ok(()) | Err(RecvTimeoutError::Timeout) => !stopped.load(Ordering::Acquire),
    }
}

/// Looks again until two looks agree, or until enough is enough: then the last look counts.
fn quiet(mut seen: FolderStamp, roots: &[PathBuf], stopped: &AtomicBool) -> FolderStamp {
    for _ in 0..limits::FILES_QUIET_LOOKS {
        std::thread::sleep(limits::FILES_QUIET);
        let now = stamp(roots);
        if now == seen || stopped.load(Ordering::Acquire) {
            break;
        }
        seen = now;
    }
    seen
}

/// Watches each folder that is there, anew where another one stands in its place.
fn follow(watcher: &mut impl Watcher, roots: &[PathBuf], watched: &mut BTreeMap<PathBuf, (u64, u64)>) {
    for root in roots {
        let identity = fs::metadata(root).ok().map(|meta| (meta.dev(), meta.ino()));
        if identity.as_ref() == watched.get(root) {
            continue;
        }
        if watched.remove(root).is_some() {
            // The folder it stood for is gone, so this may well fail.
            let _ = watcher.unwatch(root);
        }
        if let (Some(identity), Ok(())) = (identity, watcher.watch(root, RecursiveMode::Recursive)) {
            watched.insert(root.clone(), identity);
        }
    }
}

/// Distinguishes one state of the folders from another: for each file its place, inode, size and times, links followed.
type FolderStamp = BTreeMap<PathBuf, FileStamp>;

/// Inode, size, and the times of content and inode in seconds and nanoseconds.
type FileStamp = (u64, u64, (i64, i64), (i64, i64));

fn stamp(roots: &[PathBuf]) -> FolderStamp {
    let mut stamp = FolderStamp::new();
    for root in roots {
        for path in children(root) {
            if path.is_dir() {
                stamp.extend(children(&path).into_iter().filter_map(|inner| Some((inner.clone(), look(&inner)?))));
            }
            if let Some(look) = look(&path) {
                stamp.insert(path, look);
            }
        }
    }
    stamp
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let visible = |path: &PathBuf| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."));
    entries.take(limits::CATALOG_ENTRIES).filter_map(|entry| Some(entry.ok()?.path())).filter(visible).collect()
}

fn look(path: &Path) -> Option<FileStamp> {
    let meta = fs::metadata(path).ok()?;
    // A folder's own times change with every editor's scratch file; its files have their own.
    let times = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    (!meta.is_dir()).then(|| (meta.ino(), meta.size(), times.0, times.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn our_own_look_is_no_reason_to_look_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.rhai"), "1").unwrap();
        let (events, heard) = std::sync::mpsc::channel();
        let mut watcher = notify::recommended_watcher(move |event| events.send(event).unwrap()).unwrap();
        watcher.watch(dir.path(), RecursiveMode::Recursive).unwrap();
        let roots = [dir.path().to_owned()];
        for _ in 0..10 {
            assert_eq!(stamp(&roots).len(), 1);
            fs::read(dir.path().join("a.rhai")).unwrap();
        }
        let last = dir.path().join("last.rhai");
        fs::write(&last, "2").unwrap();
        let news = || loop {
            let event = heard.recv_timeout(Duration::from_secs(10)).expect("a file that is written is news");
            if is_news(&event) {
                return event.unwrap();
            }
        };
        assert_eq!(news().paths, [last], "reading came before it and was none");
    }
}
