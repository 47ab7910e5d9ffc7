//! The machine while it runs in this process: the file read again when it changes, lines that are due, handles, sets.
//!
//! Nothing here blocks with the lock held; what hangs or waits does so outside of it.

use crate::machine::{Event, Gpu, Machine, code};
use crate::profile;
use rustix::fs::{FlockOperation, inotify};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a handle stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    Gpu(u32),
    /// A MIG device: the compute instance `ci` of GPU instance `gi`, made as the `serial`th.
    Mig {
        slot: u32,
        gi: u32,
        ci: u32,
        serial: u64,
    },
    GpuInstance {
        slot: u32,
        gi: u32,
    },
    ComputeInstance {
        slot: u32,
        gi: u32,
        ci: u32,
    },
}

#[derive(Debug)]
struct EventSet {
    masks: Vec<u64>,
    seen: usize,
    wakes: Arc<OwnedFd>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

#[derive(Debug)]
pub struct Live {
    path: PathBuf,
    stamp: Stamp,
    text: String,
    born: Option<u64>,
    later: Vec<(u64, String)>,
    pub machine: Machine,
    sessions: u32,
    generation: u64,
    opened_at: u64,
    /// What this loaded image is; another comes only with another load.
    library: Option<String>,
    handles: Vec<Object>,
    sets: Vec<Option<EventSet>>,
}

static LIVE: Mutex<Option<Live>> = Mutex::new(None);

/// Calls that a GPU answers even while it hangs or waits for a reset: they are answered from what was read at the start.
const IDENTITY: [&str; 8] = [
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetHandleByPciBusId_v2",
    "nvmlDeviceGetIndex",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetName",
];

const LOOK_AGAIN: Duration = Duration::from_millis(5);

fn milliseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as u64)
}

/// The library's own file, as the loader mapped it.
fn own_file() -> Option<PathBuf> {
    let here = own_file as fn() -> Option<PathBuf> as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let from = usize::from_str_radix(from, 16).ok()?;
        let to = usize::from_str_radix(to, 16).ok()?;
        let path = rest.find('/').map(|at| &rest[at..])?;
        (from..to).contains(&here).then(|| PathBuf::from(path))
    })
}

/// `machine.txt` beside the library, else what `NVML_IMITATION` names.
fn timeline() -> Option<PathBuf> {
    let beside = own_file().and_then(|file| Some(file.parent()?.join("machine.txt")));
    beside.filter(|path| path.exists()).or_else(|| std::env::var_os("NVML_IMITATION").map(PathBuf::from))
}

fn lock() -> MutexGuard<'static, Option<Live>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `2s`, `250ms`, `1m` in milliseconds.
fn span(word: &str) -> Option<u64> {
    let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let count: u64 = word[..digits].parse().ok()?;
    match &word[digits..] {
        "ms" => Some(count),
        "s" => Some(count * 1_000),
        "m" => Some(count * 60_000),
        _ => None,
    }
}

impl Live {
    fn open(path: PathBuf) -> Live {
        let model = profile::model("h100").expect("h100 is in the table");
        Live {
            path,
            stamp: Stamp::default(),
            text: String::new(),
            born: None,
            later: Vec::new(),
            machine: Machine::new(model, 8),
            sessions: 0,
            generation: 0,
            opened_at: 0,
            library: None,
            handles: Vec::new(),
            sets: Vec::new(),
        }
    }

    /// Takes in what was written since, and what has become due.
    pub fn look(&mut self) {
        if let Ok(found) = std::fs::metadata(&self.path) {
            let stamp = Stamp { inode: found.ino(), length: found.len(), changed: (found.mtime(), found.mtime_nsec()) };
            if stamp != self.stamp {
                self.read();
                self.stamp = stamp;
            }
        }
        if self.later.is_empty() {
            return;
        }
        let now = milliseconds();
        let due: Vec<(u64, String)> = self.later.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, line) in due {
            self.apply(&line);
        }
    }

    fn read(&mut self) {
        let Ok(bytes) = std::fs::read(&self.path) else { return };
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
        let taken = if text.starts_with(&self.text) { self.text.len() } else { 0 };
        if taken == 0 {
            // Another file, another machine; what came with this load stays.
            self.machine = Machine::new(self.machine.model, 8);
            self.born = None;
            self.later.clear();
            for set in self.sets.iter_mut().flatten() {
                set.seen = 0;
            }
        }
        let fresh = text[taken..].to_owned();
        // The time of birth first: the library may write it behind the lines that count from it.
        let born = fresh.lines().find_map(|line| line.strip_prefix("born ")?.trim().parse().ok());
        self.born = self.born.or(born);
        for line in fresh.lines() {
            self.take(line.split('#').next().unwrap_or_default().trim());
        }
        self.later.sort_by_key(|(at, _)| *at);
        self.text = text;
    }

    fn take(&mut self, line: &str) {
        if line.starts_with("born ") {
            return;
        }
        let Some(rest) = line.strip_prefix("at ") else { return self.apply(line) };
        match rest.split_once(' ').and_then(|(when, what)| Some((span(when)?, what))) {
            Some((after, what)) => {
                let born = *self.born.get_or_insert_with(milliseconds);
                self.later.push((born + after, what.to_owned()));
            }
            None => eprintln!("{}: `{line}`: say `at 2s gpu 3 xid 79`", self.path.display()),
        }
    }

    fn apply(&mut self, line: &str) {
        if let Err(why) = self.machine.apply(line) {
            eprintln!("{}: `{line}`: {why}", self.path.display());
        }
    }

    /// Writes lines for every process that plays this machine, this one too.
    fn append(&mut self, line: &str) -> Result<(), u32> {
        let mut file = File::options().append(true).open(&self.path).map_err(|_| 999u32)?;
        file.write_all(format!("{line}\n").as_bytes()).map_err(|_| 999u32)?;
        self.look();
        Ok(())
    }

    /// Who has the library open, as the stand-in for nvidia-smi sees it.
    fn client_file(&self) -> PathBuf {
        let folder = self.path.parent().unwrap_or(Path::new(".")).join("clients");
        folder.join(std::process::id().to_string())
    }

    pub fn handle(&mut self, object: Object) -> usize {
        let at = self.handles.iter().position(|held| *held == object).unwrap_or_else(|| {
            self.handles.push(object);
            self.handles.len() - 1
        });
        0x4e56_0000_0000_0000 | (self.generation as usize & 0xffff) << 32 | (at + 1) << 4
    }

    pub fn object(&self, handle: usize) -> Result<Object, u32> {
        let ours = handle >> 48 == 0x4e56 && (handle >> 32) as u64 & 0xffff == self.generation & 0xffff;
        let at = (handle & 0xffff_ffff) >> 4;
        if !ours || at == 0 || handle & 0xf != 0 {
            return Err(code::INVALID);
        }
        self.handles.get(at - 1).copied().ok_or(code::INVALID)
    }

    pub fn gpu(&self, slot: u32) -> Result<&Gpu, u32> {
        self.machine.gpus.get(slot as usize).ok_or(code::INVALID)
    }

    /// What this call is answered instead, if anything; `Ok(true)`: it does not come back for now.
    fn fault(&self, call: &str, slot: Option<u32>) -> Result<bool, u32> {
        if self.sessions == 0 {
            return Err(code::UNINITIALIZED);
        }
        self.driver_fault(call)?;
        if self.machine.hanging.iter().any(|held| held == call) {
            return Ok(true);
        }
        let Some(slot) = slot else { return Ok(false) };
        let gpu = self.gpu(slot)?;
        if let Some(answer) = gpu.errors.get(call).or_else(|| gpu.errors.get("ALL")) {
            return Err(*answer);
        }
        if gpu.off_bus || gpu.lost {
            return Err(code::LOST);
        }
        let identity = IDENTITY.contains(&call);
        if gpu.hang && !identity {
            return Ok(true);
        }
        if gpu.reset_required && !identity && call != "nvmlDeviceGetFieldValues" {
            return Err(code::RESET_REQUIRED);
        }
        Ok(false)
    }

    fn driver_fault(&self, call: &str) -> Result<(), u32> {
        if !self.machine.loaded {
            return Err(code::NO_DRIVER);
        }
        if self.sessions > 0 && self.opened_at < self.machine.reloads {
            return Err(self.machine.reload_code);
        }
        if self.library.as_ref().is_some_and(|library| *library != self.machine.driver) {
            return Err(code::MISMATCH);
        }
        let errors = &self.machine.errors;
        errors.get(call).or_else(|| errors.get("ALL")).map_or(Ok(()), |answer| Err(*answer))
    }
}

/// Runs a call on the machine, after its faults had their say.
pub fn call<T>(
    name: &str,
    slot: impl Fn(&Live) -> Result<Option<u32>, u32>,
    then: impl FnOnce(&mut Live) -> Result<T, u32>,
) -> Result<T, u32> {
    loop {
        {
            let mut held = lock();
            let live = held.as_mut().ok_or(code::UNINITIALIZED)?;
            live.look();
            let slot = slot(live)?;
            if !live.fault(name, slot)? {
                return then(live);
            }
        }
        std::thread::sleep(LOOK_AGAIN); // polls: a call that hangs until a line wakes it
    }
}

/// A call that changes the machine for all processes: decides on the newest state, under a lock that all of them take.
/// `then` gives the line to write.
pub fn change<T>(
    name: &str,
    slot: impl Fn(&Live) -> Result<Option<u32>, u32>,
    then: impl FnOnce(&mut Live) -> Result<(String, T), u32>,
) -> Result<T, u32> {
    call(name, slot, |live| {
        let file = File::open(&live.path).map_err(|_| 999u32)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|_| 999u32)?;
        live.look();
        let (line, value) = then(live)?;
        live.append(&line)?;
        Ok(value)
    })
}

pub fn init() -> Result<(), u32> {
    loop {
        {
            let mut held = lock();
            if held.is_none() {
                *held = Some(Live::open(timeline().filter(|path| path.exists()).ok_or(code::NO_DRIVER)?));
            }
            let live = held.as_mut().ok_or(code::NO_DRIVER)?;
            live.look();
            if live.born.is_none() {
                live.append(&format!("born {}", milliseconds()))?;
            }
            live.library.get_or_insert_with(|| live.machine.library.clone());
            if !live.machine.hanging.iter().any(|held| held == "nvmlInit_v2") {
                return live.begin();
            }
        }
        std::thread::sleep(LOOK_AGAIN); // polls: an init that hangs until a line wakes it
    }
}

impl Live {
    fn begin(&mut self) -> Result<(), u32> {
        if self.sessions == 0 {
            self.driver_fault("nvmlInit_v2")?;
            self.generation += 1;
            self.opened_at = self.machine.reloads;
            self.handles.clear();
            self.sets.clear();
            let file = self.client_file();
            if let Some(folder) = file.parent() {
                let _ = std::fs::create_dir_all(folder);
            }
            let _ = std::fs::write(file, "");
        }
        self.sessions += 1;
        Ok(())
    }
}

pub fn shutdown() -> Result<(), u32> {
    let mut held = lock();
    let live = held.as_mut().ok_or(code::UNINITIALIZED)?;
    live.sessions = live.sessions.checked_sub(1).ok_or(code::UNINITIALIZED)?;
    if live.sessions == 0 {
        live.handles.clear();
        live.sets.clear();
        let _ = std::fs::remove_file(live.client_file());
    }
    Ok(())
}

// ── event sets ──

fn set_token(at: usize) -> usize {
    0x4e57_0000_0000_0000 | (at + 1) << 4
}

fn set_of(live: &mut Live, token: usize) -> Result<&mut EventSet, u32> {
    let at = (token & 0xffff_ffff) >> 4;
    if token >> 48 != 0x4e57 || at == 0 {
        return Err(code::INVALID);
    }
    live.sets.get_mut(at - 1).and_then(Option::as_mut).ok_or(code::INVALID)
}

pub fn set_create(live: &mut Live) -> Result<usize, u32> {
    let wakes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(|_| 999u32)?;
    let folder = live.path.parent().unwrap_or(Path::new("."));
    let changes = inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE;
    inotify::add_watch(&wakes, folder, changes).map_err(|_| 999u32)?;
    let set =
        EventSet { masks: vec![0; live.machine.gpus.len()], seen: live.machine.events.len(), wakes: Arc::new(wakes) };
    live.sets.push(Some(set));
    Ok(set_token(live.sets.len() - 1))
}

pub fn set_free(live: &mut Live, token: usize) -> Result<(), u32> {
    set_of(live, token)?;
    live.sets[((token & 0xffff_ffff) >> 4) - 1] = None;
    Ok(())
}

pub fn set_register(live: &mut Live, token: usize, slot: u32, kinds: u64) -> Result<(), u32> {
    let set = set_of(live, token)?;
    let mask = set.masks.get_mut(slot as usize).ok_or(code::INVALID)?;
    *mask |= kinds;
    Ok(())
}

/// The next event for a set, or the code that ends the wait.
pub fn set_wait(name: &str, token: usize, timeout: Duration) -> Result<Event, u32> {
    let deadline = Instant::now() + timeout;
    loop {
        let (found, wakes, due) = call(
            name,
            |_| Ok(None),
            |live| {
                let events = live.machine.events.clone();
                let due = live.later.first().map(|(at, _)| *at);
                let set = set_of(live, token)?;
                let wakes = Arc::clone(&set.wakes);
                let wanted = |event: &Event| {
                    event.gpu.is_none_or(|gpu| set.masks.get(gpu as usize).is_some_and(|mask| mask & event.kind != 0))
                };
                let at = (set.seen..events.len()).find(|at| wanted(&events[*at]));
                set.seen = at.map_or(events.len(), |at| at + 1);
                Ok((at.map(|at| events[at]), wakes, due))
            },
        )?;
        match found {
            Some(Event { gpu: None, data, .. }) => return Err(data as u32),
            Some(event) => return Ok(event),
            None => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(code::TIMEOUT);
        }
        let until_due = due.map_or(left, |due| Duration::from_millis(due.saturating_sub(milliseconds()) + 1));
        sleep_on(&wakes, left.min(until_due));
    }
}

/// Until the folder of the timeline changes, or the time is over.
fn sleep_on(wakes: &OwnedFd, at_most: Duration) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let time = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: at_most.subsec_nanos() as _ };
    let _ = poll(&mut [PollFd::new(wakes, PollFlags::IN)], Some(&time));
    let mut buffer = [0u8; 4096];
    while rustix::io::read(wakes, &mut buffer).is_ok_and(|read| read > 0) {}
}
