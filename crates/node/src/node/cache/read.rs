//! Reading files into the page cache with several readers: throttled, held back under pressure, stopped at once.
//!
//! Invariant: resident pages are not read again, so a warm that was cut off goes on from its end.

use super::memory::MemoryProbe;
use super::model::{ModelFile, ModelFolder, reopen, without_reading_ahead};
use super::roots::{ModelRoots, failed};
use super::{residency, sys};
use crate::limits;
use crate::model::{FailureKind, StepFailure};
use rustix::fs::{Advice, fadvise, sendfile};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadOptions {
    pub readers: usize,
    pub bytes_per_second: Option<u64>,
    /// Not a byte is read after this.
    pub until: Instant,
}

/// How far it is; looked at from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadProgress {
    /// Bytes that are in memory by now, read or found there.
    pub done: u64,
    pub total: u64,
    pub read: u64,
    /// Why nothing moves just now.
    pub waits: Option<String>,
}

impl ReadProgress {
    /// As steps carry it, and as a Job's pod writes it into its log.
    pub fn shown(&self) -> Value {
        let percent = self.done.saturating_mul(100).checked_div(self.total).unwrap_or(0);
        let mut value =
            json!({ "done_bytes": self.done, "bytes": self.total, "read_bytes": self.read, "percent": percent });
        let mut doing = format!("reading: {percent} % of {}", super::memory::size(self.total));
        if let Some(waits) = &self.waits {
            value["waits"] = json!(waits);
            doing = format!("{doing}; {waits}");
        }
        value["doing"] = json!(doing);
        value
    }
}

struct FileChunk {
    shard: usize,
    from: u64,
    bytes: u64,
}

struct ReaderState<'a> {
    roots: &'a ModelRoots,
    shards: &'a [ModelFile],
    chunks: Vec<FileChunk>,
    next: AtomicUsize,
    done: AtomicU64,
    read: AtomicU64,
    paused: AtomicBool,
    stop: AtomicBool,
    cancel: &'a AtomicBool,
    pace: Option<ReadThrottle>,
    until: Instant,
    trouble: Mutex<Option<StepFailure>>,
    running: Mutex<usize>,
    ended: Condvar,
}

/// Reads pages that are not resident; returns the bytes read.
pub(super) fn read(
    roots: &ModelRoots,
    model: &ModelFolder,
    manner: ReadOptions,
    memory: &MemoryProbe,
    cancel: &AtomicBool,
    progress: &(dyn Fn(ReadProgress) + Sync),
) -> Result<u64, StepFailure> {
    let readers = manner.readers.clamp(1, limits::CACHE_READERS);
    let shared = ReaderState {
        roots,
        shards: &model.shards,
        chunks: chunks(&model.shards),
        next: AtomicUsize::new(0),
        done: AtomicU64::new(0),
        read: AtomicU64::new(0),
        paused: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        cancel,
        pace: manner.bytes_per_second.filter(|rate| *rate > 0).map(ReadThrottle::new),
        until: manner.until,
        trouble: Mutex::new(None),
        running: Mutex::new(readers),
        ended: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 0..readers {
            scope.spawn(|| shared.reader());
        }
        shared.watch(model.bytes(), memory, progress);
    });
    let trouble = shared.trouble.into_inner().unwrap_or_else(PoisonError::into_inner);
    match trouble {
        Some(failure) => Err(failure),
        None => Ok(shared.read.into_inner()),
    }
}

fn chunks(shards: &[ModelFile]) -> Vec<FileChunk> {
    let size = limits::CACHE_CHUNK_BYTES;
    let of = |(shard, file): (usize, &ModelFile)| {
        let bytes = file.bytes;
        (0..bytes.div_ceil(size)).map(move |at| FileChunk {
            shard,
            from: at * size,
            bytes: size.min(bytes - at * size),
        })
    };
    shards.iter().enumerate().flat_map(of).collect()
}

impl ReaderState<'_> {
    fn reader(&self) {
        sys::yield_the_disk();
        let mut drain = ReadSink::new();
        let mut open: Option<(usize, File)> = None;
        while !self.is_over() {
            let Some(chunk) = self.chunks.get(self.next.fetch_add(1, Ordering::Relaxed)) else { break };
            if let Err(failure) = self.chunk(chunk, &mut open, &mut drain) {
                self.give_up(failure);
            }
        }
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.ended.notify_all();
    }

    fn chunk(
        &self,
        chunk: &FileChunk,
        open: &mut Option<(usize, File)>,
        drain: &mut ReadSink,
    ) -> Result<(), StepFailure> {
        let shard = &self.shards[chunk.shard];
        if open.as_ref().is_none_or(|(at, _)| *at != chunk.shard) {
            let file = reopen(self.roots, shard)?;
            match self.pace {
                // Pages that the kernel reads ahead would not be counted.
                Some(_) => without_reading_ahead(&file),
                // Advice: twice the device's own window, for disks whose window is small.
                None => drop(fadvise(&file, 0, None, Advice::Sequential)),
            }
            *open = Some((chunk.shard, file));
        }
        let Some((_, file)) = open else { return Ok(()) };
        let resident = residency::resident(file, chunk.from, chunk.bytes).map_err(|error| unread(shard, &error))?;
        if resident >= residency::pages(chunk.bytes) {
            self.done.fetch_add(chunk.bytes, Ordering::Relaxed);
            return Ok(());
        }
        let (mut at, end) = (chunk.from, chunk.from + chunk.bytes);
        while at < end {
            let want = limits::CACHE_READ_BYTES.min((end - at) as usize);
            self.stand_back(want as u64);
            if self.is_over() {
                return Ok(());
            }
            let came = drain.read(file, at, want).map_err(|error| unread(shard, &error))?;
            match came {
                0 => {
                    let what = format!("{} became shorter while it was read", shard.name);
                    return Err(failed(FailureKind::Conflict, what));
                }
                count => {
                    at += count as u64;
                    self.read.fetch_add(count as u64, Ordering::Relaxed);
                    self.done.fetch_add(count as u64, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.cancel.load(Ordering::Relaxed)
    }

    fn give_up(&self, failure: StepFailure) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the throttle and for pressure to pass.
    fn stand_back(&self, bytes: u64) {
        let turn = self.pace.as_ref().map(|pace| pace.turn(bytes));
        loop {
            let wait = turn.map(|turn| turn.saturating_duration_since(Instant::now())).unwrap_or_default();
            let paused = self.paused.load(Ordering::Relaxed);
            if self.is_over() || (wait.is_zero() && !paused) {
                return;
            }
            let nap = if paused { limits::CACHE_LOOK_EVERY } else { wait.min(limits::CACHE_LOOK_EVERY) };
            std::thread::sleep(nap);
        }
    }

    /// Until the readers have ended: reports their progress, and holds them back or stops them.
    fn watch(&self, total: u64, memory: &MemoryProbe, progress: &(dyn Fn(ReadProgress) + Sync)) {
        let mut pressed_since: Option<Instant> = None;
        let mut looked = Instant::now();
        let mut waits = None;
        loop {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            let (running, _) = self
                .ended
                .wait_timeout_while(running, limits::CACHE_LOOK_EVERY, |running| *running > 0)
                .unwrap_or_else(PoisonError::into_inner);
            let over = *running == 0;
            drop(running);
            let (done, read) = (self.done.load(Ordering::Relaxed), self.read.load(Ordering::Relaxed));
            progress(ReadProgress { done, total, read, waits: waits.clone() });
            if over {
                break;
            }
            if Instant::now() >= self.until {
                self.give_up(failed(FailureKind::Timeout, self.so_far("the time that was given is up", total)));
            }
            if looked.elapsed() < limits::CACHE_PRESSURE_LOOK {
                continue;
            }
            looked = Instant::now();
            waits = memory.pressed();
            self.paused.store(waits.is_some(), Ordering::Relaxed);
            pressed_since = waits.as_ref().map(|_| pressed_since.unwrap_or(looked));
            if pressed_since.is_some_and(|since| since.elapsed() > limits::CACHE_PRESSURE_WAIT) {
                let why = "memory stayed short";
                self.give_up(failed(FailureKind::Unavailable, self.so_far(why, total)));
            }
        }
        if self.cancel.load(Ordering::Relaxed) {
            self.give_up(failed(FailureKind::Refused, self.so_far("it was cancelled", total)));
        }
    }

    fn so_far(&self, why: &str, total: u64) -> String {
        let done = self.done.load(Ordering::Relaxed);
        let (done, total) = (super::memory::size(done), super::memory::size(total));
        format!("{why} at {done} of {total}; the same call goes on from there")
    }
}

/// The sink of the bytes read: from the page cache to /dev/null, which copies nothing and maps nothing; or into a
/// buffer where a file system cannot do that.
struct ReadSink {
    null: Option<File>,
    buffer: Vec<u8>,
}

impl ReadSink {
    fn new() -> ReadSink {
        // A container without /dev/null reads the other way.
        ReadSink { null: File::options().write(true).open("/dev/null").ok(), buffer: Vec::new() }
    }

    /// Returns once so many bytes (or fewer) from there on are in the page cache; 0 at the file's end.
    fn read(&mut self, file: &File, at: u64, want: usize) -> std::io::Result<usize> {
        let mut offset = at;
        match self.null.as_ref().map(|null| sendfile(null, file, Some(&mut offset), want)) {
            Some(Ok(count)) => return Ok(count),
            // Not on this file system, or by this sandbox.
            Some(Err(_)) => self.null = None,
            None => {}
        }
        // A bad disk then returns its own error, too.
        self.buffer.resize(limits::CACHE_READ_BYTES, 0);
        file.read_at(&mut self.buffer[..want], at)
    }
}

fn unread(shard: &ModelFile, error: &std::io::Error) -> StepFailure {
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied => FailureKind::Forbidden,
        _ => FailureKind::Unavailable,
    };
    failed(kind, format!("{}: {error}", shard.name))
}

/// Gives every piece its turn, so that all readers together keep one rate.
struct ReadThrottle {
    bytes_per_second: f64,
    next: Mutex<Instant>,
}

impl ReadThrottle {
    fn new(bytes_per_second: u64) -> ReadThrottle {
        ReadThrottle { bytes_per_second: bytes_per_second as f64, next: Mutex::new(Instant::now()) }
    }

    fn turn(&self, bytes: u64) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(Instant::now());
        *next = turn + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        turn
    }
}
