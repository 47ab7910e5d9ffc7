//! The spool of one start: a folder of segments, each a file of lines, and the findings that could not be written yet.
//!
//! Invariant: a line is `<checksum> <json>`; a segment ends for its reader where that does not hold; numbers only grow.

use crate::limits;
use crate::model::{Finding, NumberedFinding, Time};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub(super) struct SpoolPart {
    pub boot: String,
    pub name: String,
    folder: PathBuf,
    /// In order; the last one may be written.
    segments: VecDeque<SpoolSegment>,
    open: Option<File>,
    /// The number that the next finding gets, the last one that is taken, and the last one that was given to the disk.
    next: u64,
    taken: u64,
    on_disk: u64,
    /// The newest findings: all that are not on disk, and those last written, so that a quick engine costs no reads.
    recent: VecDeque<(u64, String)>,
    recent_bytes: usize,
    broken: Option<String>,
    /// Where the reader stands: (segment's first number, bytes read, number of the next line).
    at: (u64, u64, u64),
}

struct SpoolSegment {
    first: u64,
    bytes: u64,
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct PartIdentity {
    boot: String,
    name: String,
}

impl SpoolPart {
    /// A new part in `folder`. A folder that cannot be made is reported by [`Part::broken`].
    pub fn begin(folder: PathBuf, boot: &str, now: Time) -> SpoolPart {
        let mut part = SpoolPart::empty(folder, PartIdentity { boot: boot.to_owned(), name: random_name(now) });
        if let Err(error) = part.make_folder() {
            part.broken = Some(error.to_string());
        }
        part
    }

    /// The part that an earlier start left; none: it is no part, or was never finished being made.
    pub fn reopen(folder: PathBuf) -> Option<SpoolPart> {
        let birth: PartIdentity = serde_json::from_slice(&std::fs::read(folder.join("birth")).ok()?).ok()?;
        let mut part = SpoolPart::empty(folder, birth);
        let mut found: Vec<SpoolSegment> =
            std::fs::read_dir(&part.folder).ok()?.flatten().filter_map(segment_of).collect();
        found.sort_by_key(|segment| segment.first);
        part.taken = found.first().map_or(0, |segment| segment.first - 1);
        part.segments = found.into();
        // How many lines the last one has is known by reading it.
        let last = part.segments.back().map(|segment| (segment.first, lines_in(&segment.path)));
        part.next = last.map_or(1, |(first, lines)| first + lines);
        part.on_disk = part.next - 1;
        Some(part)
    }

    fn empty(folder: PathBuf, birth: PartIdentity) -> SpoolPart {
        SpoolPart {
            boot: birth.boot,
            name: birth.name,
            folder,
            segments: VecDeque::new(),
            open: None,
            next: 1,
            taken: 0,
            on_disk: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            broken: None,
            at: (0, 0, 1),
        }
    }

    fn make_folder(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let birth = PartIdentity { boot: self.boot.clone(), name: self.name.clone() };
        let path = self.folder.join("birth");
        let mut file = File::create(&path)?;
        serde_json::to_writer(&mut file, &birth)?;
        file.sync_all()?;
        sync_folder(&self.folder)?;
        self.folder.parent().map_or(Ok(()), sync_folder)
    }

    /// Returns how many of the oldest were dropped, because neither disk nor memory had room.
    pub fn append(&mut self, findings: Vec<Finding>) -> u64 {
        for finding in findings {
            let report = NumberedFinding { no: self.next, finding: bounded(finding) };
            let Ok(json) = serde_json::to_string(&report) else { continue };
            self.next += 1;
            self.recent_bytes += json.len();
            self.recent.push_back((report.no, json));
        }
        self.flush();
        self.forget_recent()
    }

    /// Writes findings that are not on disk yet, and waits until they are.
    pub fn flush(&mut self) {
        if self.on_disk + 1 == self.next {
            return;
        }
        self.broken = match self.write() {
            Ok(()) => None,
            Err(error) => {
                // A half-written line must not be read; the next try begins a new segment.
                if let (Some(file), Some(segment)) = (self.open.take(), self.segments.back()) {
                    let _ = file.set_len(segment.bytes);
                }
                Some(error.to_string())
            }
        };
    }

    fn write(&mut self) -> std::io::Result<()> {
        if self.broken.is_some() {
            self.make_folder()?;
        }
        let full = self.segments.back().is_none_or(|segment| segment.bytes >= limits::SPOOL_SEGMENT_BYTES);
        if self.open.is_none() || full {
            self.begin_segment()?;
        }
        let mut lines = String::new();
        for (_, json) in self.recent.iter().filter(|(no, _)| *no > self.on_disk) {
            lines.push_str(&checksum(json));
            lines.push(' ');
            lines.push_str(json);
            lines.push('\n');
        }
        let (Some(file), Some(segment)) = (self.open.as_mut(), self.segments.back_mut()) else { return Ok(()) };
        file.write_all(lines.as_bytes())?;
        file.sync_data()?;
        segment.bytes += lines.len() as u64;
        self.on_disk = self.next - 1;
        Ok(())
    }

    fn begin_segment(&mut self) -> std::io::Result<()> {
        // Findings that were dropped from memory are not written any more.
        let first = self.recent.front().map_or(self.next, |(no, _)| (*no).max(self.on_disk + 1));
        let path = self.folder.join(format!("{first:020}.seg"));
        let file = File::create(&path)?;
        sync_folder(&self.folder)?;
        self.open = Some(file);
        self.segments.push_back(SpoolSegment { first, bytes: 0, path });
        Ok(())
    }

    /// Keeps memory within its bound. Findings on disk can be read there; the others are lost, and counted.
    fn forget_recent(&mut self) -> u64 {
        let mut lost = 0;
        while self.recent.len() > limits::SPOOL_MEMORY || self.recent_bytes > limits::SPOOL_MEMORY_BYTES {
            let Some((no, json)) = self.recent.pop_front() else { break };
            self.recent_bytes -= json.len();
            if no > self.on_disk {
                lost += u64::from(no > self.taken);
                self.on_disk = no;
                self.taken = self.taken.max(no);
            }
        }
        lost
    }

    /// Why the disk cannot be written; none where it can.
    pub fn broken(&self) -> Option<String> {
        self.broken.clone()
    }

    /// Findings that the engine has not taken yet.
    pub fn waiting(&self) -> u64 {
        (self.next - 1).saturating_sub(self.taken)
    }

    /// Bytes of all segments on disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Whether the engine has taken every finding.
    pub fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    /// Whether there is a segment that is not being written.
    pub fn can_drop(&self) -> bool {
        self.segments.len() > usize::from(self.open.is_some())
    }

    /// Drops the oldest segment; returns how many findings that lost.
    pub fn drop_oldest(&mut self) -> u64 {
        let Some(segment) = self.segments.pop_front() else { return 0 };
        let _ = std::fs::remove_file(&segment.path);
        let end = self.segments.front().map_or(self.next, |next| next.first) - 1;
        let lost = end.saturating_sub(self.taken.max(segment.first - 1));
        self.taken = self.taken.max(end);
        lost
    }

    /// Drops findings up to this number: the engine has them.
    pub fn taken(&mut self, upto: u64) {
        self.taken = self.taken.max(upto.min(self.next - 1));
        while self.recent.front().is_some_and(|(no, _)| *no <= self.taken && *no <= self.on_disk) {
            let Some((_, json)) = self.recent.pop_front() else { break };
            self.recent_bytes -= json.len();
        }
        // A segment goes once all of it is taken. The one being written stays until it is worth a new file.
        while let Some(segment) = self.segments.front() {
            let end = self.segments.get(1).map_or(self.next, |next| next.first) - 1;
            let last = self.segments.len() == 1;
            if end > self.taken || (last && self.open.is_some() && segment.bytes < limits::SPOOL_SEGMENT_BYTES) {
                break;
            }
            let _ = std::fs::remove_file(&segment.path);
            self.segments.pop_front();
            if last {
                self.open = None;
            }
        }
    }

    /// The next reports that are not taken.
    pub fn read(&mut self, most: usize, bytes: usize) -> Vec<NumberedFinding> {
        let from = self.taken + 1;
        if self.recent.front().is_some_and(|(no, _)| *no <= from) {
            let mut room = bytes;
            let lines = self.recent.iter().skip_while(|(no, _)| *no < from).take(most);
            let fits = lines.take_while(|(_, json)| {
                let fits = room >= json.len() || room == bytes;
                room = room.saturating_sub(json.len());
                fits
            });
            return fits.filter_map(|(_, json)| serde_json::from_str(json).ok()).collect();
        }
        self.read_disk(from, most, bytes)
    }

    fn read_disk(&mut self, from: u64, most: usize, bytes: usize) -> Vec<NumberedFinding> {
        let mut found = Vec::new();
        let mut room = bytes;
        for at in 0..self.segments.len() {
            let (first, path) = (self.segments[at].first, self.segments[at].path.clone());
            let end = self.segments.get(at + 1).map_or(self.next, |next| next.first);
            if end <= from {
                continue;
            }
            if self.at.0 != first || self.at.2 > from {
                self.at = (first, 0, first);
            }
            let Ok(mut reader) = open_at(&path, self.at.1) else { continue };
            let mut line = Vec::new();
            while found.len() < most && room > 0 {
                line.clear();
                let limit = limits::SPOOL_MEMORY_BYTES as u64;
                let Ok(count) = reader.by_ref().take(limit).read_until(b'\n', &mut line) else { break };
                let Some(report) = parse(&line) else { break };
                if report.no >= from {
                    if count > room && !found.is_empty() {
                        return found;
                    }
                    room = room.saturating_sub(count);
                    found.push(report);
                } else {
                    // Only taken findings may be passed over for good.
                    self.at = (first, self.at.1 + count as u64, report.no + 1);
                }
            }
            if !found.is_empty() {
                return found;
            }
        }
        // Nothing of it can be read: findings in memory come next.
        let rest = self.recent.iter().take(most).filter_map(|(_, json)| serde_json::from_str(json).ok());
        rest.filter(|report: &NumberedFinding| report.no >= from).collect()
    }

    /// Removes the part's folder; where that fails, the next start finds the part again.
    pub fn remove(self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot remove an old spool; the next start tries again");
        }
    }
}

/// Kernel lines and words have bounds of their own; this one keeps a slip of theirs from filling the spool.
fn bounded(mut finding: Finding) -> Finding {
    for text in [&mut finding.complaint, &mut finding.summary, &mut finding.detail] {
        if text.len() > limits::LABEL_VALUE_BYTES {
            let end = (0..=limits::LABEL_VALUE_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
        }
    }
    finding
}

fn segment_of(entry: std::fs::DirEntry) -> Option<SpoolSegment> {
    let path = entry.path();
    let first = path.file_name()?.to_str()?.strip_suffix(".seg")?.parse().ok().filter(|first| *first > 0)?;
    Some(SpoolSegment { first, bytes: entry.metadata().ok()?.len(), path })
}

/// Lines that can be read; lines after a broken one cannot.
fn lines_in(path: &Path) -> u64 {
    let Ok(file) = File::open(path) else { return 0 };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut count = 0;
    loop {
        line.clear();
        match reader.by_ref().take(limits::SPOOL_MEMORY_BYTES as u64).read_until(b'\n', &mut line) {
            Ok(1..) if parse(&line).is_some() => count += 1,
            _ => return count,
        }
    }
}

fn open_at(path: &Path, offset: u64) -> std::io::Result<BufReader<File>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    Ok(BufReader::new(file))
}

fn parse(line: &[u8]) -> Option<NumberedFinding> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (sum, json) = text.split_once(' ')?;
    (sum == checksum(json)).then(|| serde_json::from_str(json).ok())?
}

fn checksum(text: &str) -> String {
    hex::encode(&Sha256::digest(text.as_bytes())[..4])
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

fn random_name(now: Time) -> String {
    use ring::rand::SecureRandom;
    let mut bytes = [0_u8; 8];
    // Without random numbers the time distinguishes two starts.
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        bytes = now.as_microsecond().to_be_bytes();
    }
    hex::encode(bytes)
}
