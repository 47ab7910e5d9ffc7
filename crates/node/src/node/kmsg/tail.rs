//! Following the log: `/dev/kmsg`, one record a read; or a plain file or FIFO, line by line.
//!
//! Invariant: a record is given once, in order; records that were overwritten before they could be read are given as a
//! number. Only records that were read before are skipped: where the numbers begin anew it is another log, and is read.

use super::record::KernelRecord;
use crate::limits;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the kernel log cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum KmsgError {
    #[error(
        "the kernel log {path} cannot be opened: {source}; the agent needs CAP_SYSLOG, and in a pod the host's \
         /dev/kmsg and `privileged`"
    )]
    Open { path: String, source: std::io::Error },
    #[error("the kernel log {path} cannot be read: {source}")]
    Read { path: String, source: std::io::Error },
}

/// One thing that was read.
pub(super) enum TailItem<'r> {
    Record(KernelRecord<'r>),
    /// So many records are gone; `None` if their number cannot be known.
    Lost(Option<u64>),
}

/// An open log.
pub(super) struct KernelLogTail {
    file: File,
    path: PathBuf,
    place: TailPosition,
}

/// How far a log was read.
struct TailPosition {
    marks: DeliveredRecords,
    buffer: Vec<u8>,
    /// In a plain file: the beginning of a line whose end has not come.
    torn: Vec<u8>,
    /// The kernel reported that records were overwritten; the next record's number shows how many.
    overwritten: bool,
}

/// Which records were given.
struct DeliveredRecords {
    kind: KernelLogKind,
    /// The number of the last record that was given, also by an earlier run.
    last: Option<u64>,
    /// Nothing was given yet since it was opened; and the highest number that was skipped.
    resuming: bool,
    skipped: Option<u64>,
}

#[derive(Clone, Copy, PartialEq)]
enum KernelLogKind {
    /// A read is a record, and records are numbered.
    Device,
    /// Records are lines; it can be waited for.
    Stream,
    /// Records are lines; its end always seems readable, so it is looked at again after a while.
    Plain,
}

impl KernelLogTail {
    /// Opens at the oldest record that is still there; those up to `after` are skipped.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be opened or its type cannot be read.
    pub fn open(path: &Path, after: Option<u64>) -> Result<KernelLogTail, KmsgError> {
        let wrong = |source: std::io::Error| KmsgError::Open { path: path.display().to_string(), source };
        let flags = i32::try_from((OFlags::NONBLOCK | OFlags::CLOEXEC).bits()).unwrap_or_default();
        // Opened for writing as well, a FIFO does not end when its writer goes.
        let is_fifo = std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo());
        let file = File::options().read(true).write(is_fifo).custom_flags(flags).open(path).map_err(wrong)?;
        let stat = rustix::fs::fstat(&file).map_err(|error| wrong(error.into()))?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => KernelLogKind::Device,
            FileType::RegularFile => KernelLogKind::Plain,
            _ => KernelLogKind::Stream,
        };
        Ok(KernelLogTail { file, path: path.to_owned(), place: TailPosition::new(kind, after) })
    }

    /// Whether the file is `/dev/kmsg`, whose records have numbers and times.
    pub fn is_device(&self) -> bool {
        self.place.marks.kind == KernelLogKind::Device
    }

    /// The number of the last record that was read.
    pub fn last(&self) -> Option<u64> {
        self.place.marks.last
    }

    /// Waits until there is something to read, at most so long.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be polled.
    pub fn wait(&self, most: Duration) -> Result<(), KmsgError> {
        if self.place.marks.kind == KernelLogKind::Plain {
            std::thread::sleep(most.min(limits::KERNEL_FILE_LOOK));
            return Ok(());
        }
        let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
        let most = Timespec { tv_sec: most.as_secs().cast_signed(), tv_nsec: i64::from(most.subsec_nanos()) };
        match poll(&mut fds, Some(&most)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(self.unread(error.into())),
        }
    }

    /// Gives the available records, at most `most`. `true` if there may be more.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read.
    pub fn read(&mut self, most: usize, take: impl FnMut(TailItem<'_>)) -> Result<bool, KmsgError> {
        let more = self.place.read(&mut &self.file, most, take).map_err(|error| self.unread(error))?;
        if more || !self.place.marks.of_another_log() {
            return Ok(more);
        }
        tracing::warn!(path = %self.path.display(), "the log file was replaced; reading it from the beginning");
        (&self.file).rewind().map_err(|error| self.unread(error))?;
        self.place = TailPosition::new(KernelLogKind::Plain, None);
        Ok(true)
    }

    fn unread(&self, source: std::io::Error) -> KmsgError {
        KmsgError::Read { path: self.path.display().to_string(), source }
    }
}

impl TailPosition {
    fn new(kind: KernelLogKind, last: Option<u64>) -> TailPosition {
        let marks = DeliveredRecords { kind, last, resuming: true, skipped: None };
        TailPosition { marks, buffer: vec![0; limits::KERNEL_RECORD_BYTES], torn: Vec::new(), overwritten: false }
    }

    fn read(&mut self, log: &mut impl Read, most: usize, mut take: impl FnMut(TailItem<'_>)) -> std::io::Result<bool> {
        let mut taken = 0;
        while taken < most {
            match log.read(&mut self.buffer) {
                Ok(0) => return Ok(false),
                Ok(length) if self.marks.kind == KernelLogKind::Device => {
                    taken += 1;
                    self.record(length, &mut take);
                }
                Ok(length) => taken += self.lines(length, &mut take),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The kernel has moved us to the oldest record that is left.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => self.overwritten = true,
                // A record that is longer than the kernel allows itself: it steps over it, and its number will be missing.
                Err(error) if error.kind() == ErrorKind::InvalidInput && self.marks.kind == KernelLogKind::Device => {
                    taken += 1
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn record(&mut self, length: usize, take: &mut impl FnMut(TailItem<'_>)) {
        let overwritten = std::mem::take(&mut self.overwritten);
        if let Some(record) = KernelRecord::parse(&self.buffer[..length]) {
            self.marks.give(record, overwritten, take);
        }
    }

    /// Splits the bytes read into lines, and returns their number; of a line that is too long its first part is given.
    fn lines(&mut self, length: usize, take: &mut impl FnMut(TailItem<'_>)) -> usize {
        let mut count = 0;
        for part in self.buffer[..length].split_inclusive(|byte| *byte == b'\n') {
            let body = part.strip_suffix(b"\n").unwrap_or(part);
            let room = limits::KERNEL_RECORD_BYTES.saturating_sub(self.torn.len());
            self.torn.extend_from_slice(&body[..body.len().min(room)]);
            if body.len() < part.len() {
                count += 1;
                if let Some(record) = KernelRecord::parse(&self.torn) {
                    self.marks.give(record, false, take);
                }
                self.torn.clear();
            }
        }
        count
    }
}

impl DeliveredRecords {
    /// Skips records that were given before, and reports missing ones.
    fn give(&mut self, record: KernelRecord<'_>, overwritten: bool, take: &mut impl FnMut(TailItem<'_>)) {
        let Some(seq) = record.seq else { return take(TailItem::Record(record)) };
        match self.last {
            Some(last) if seq <= last => {
                if self.was_read(seq) {
                    self.skipped = Some(seq);
                    return;
                }
                tracing::warn!(seq, last, "the kernel log's sequence numbers restarted; reading the new records");
            }
            Some(last) if seq > last + 1 => take(TailItem::Lost(Some(seq - last - 1))),
            None if overwritten => take(TailItem::Lost(None)),
            _ => {}
        }
        (self.last, self.resuming) = (Some(seq), false);
        take(TailItem::Record(record));
    }

    /// The kernel numbers for as long as it runs. A plain file is read again from its beginning, a stream never.
    fn was_read(&self, seq: u64) -> bool {
        match self.kind {
            KernelLogKind::Device => true,
            KernelLogKind::Plain => self.resuming && self.skipped.is_none_or(|skipped| skipped < seq),
            KernelLogKind::Stream => false,
        }
    }

    /// The end of a plain file has come before the record up to which it was read.
    fn of_another_log(&self) -> bool {
        let cut = self.skipped.zip(self.last).is_some_and(|(skipped, last)| skipped < last);
        self.kind == KernelLogKind::Plain && self.resuming && cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that answers as the kernel may.
    struct Script(std::vec::IntoIter<Result<&'static str, ErrorKind>>);

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let answer = self.0.next().unwrap_or(Err(ErrorKind::WouldBlock))?;
            buffer[..answer.len()].copy_from_slice(answer.as_bytes());
            Ok(answer.len())
        }
    }

    fn heard(kind: KernelLogKind, after: Option<u64>, answers: Vec<Result<&'static str, ErrorKind>>) -> String {
        let mut place = TailPosition::new(kind, after);
        let mut heard = Vec::new();
        let end = place.read(&mut Script(answers.into_iter()), 100, |piece| {
            heard.push(match piece {
                TailItem::Record(record) => record.text().into_owned(),
                TailItem::Lost(count) => format!("lost {count:?}"),
            });
        });
        format!(
            "{} | {:?} {}",
            heard.join(", "),
            place.marks.last,
            end.map_or_else(|e| e.to_string(), |more| more.to_string())
        )
    }

    #[test]
    fn records_that_were_overwritten_are_counted_by_the_gap_in_their_numbers() {
        let said = heard(
            KernelLogKind::Device,
            Some(3),
            vec![Ok("6,2,1,-;old\n"), Ok("6,4,1,-;a\n"), Err(ErrorKind::BrokenPipe), Ok("6,90,1,-;b\n D=1\n")],
        );
        assert_eq!(said, "a, lost Some(85), b | Some(90) false");
        let first = heard(KernelLogKind::Device, None, vec![Err(ErrorKind::BrokenPipe), Ok("6,90,1,-;b\n")]);
        assert_eq!(first, "lost None, b | Some(90) false", "nothing is known of what came before");
        let gap = heard(KernelLogKind::Device, Some(1), vec![Err(ErrorKind::InvalidInput), Ok("6,3,1,-;c\n")]);
        assert_eq!(gap, "lost Some(1), c | Some(3) false");
    }

    #[test]
    fn a_plain_file_is_read_line_by_line_wherever_the_reads_are_cut() {
        let said = heard(
            KernelLogKind::Plain,
            None,
            vec![Ok("6,1,1,-;fir"), Ok("st\n D=1\nno header\n6,5,1,-;la"), Ok("st\n6,6")],
        );
        assert_eq!(said, "first, no header, lost Some(3), last | Some(5) false");
    }

    #[test]
    fn only_what_was_read_before_is_skipped_and_a_log_whose_numbers_begin_anew_is_read() {
        let stream = heard(KernelLogKind::Stream, Some(30), vec![Ok("6,1,1,-;a\n6,2,1,-;b\n6,1,1,-;again\n")]);
        assert_eq!(stream, "a, b, again | Some(1) false");
        let plain =
            heard(KernelLogKind::Plain, Some(2), vec![Ok("6,1,1,-;a\n6,2,1,-;b\n6,1,1,-;anew\n6,2,1,-;next\n")]);
        assert_eq!(plain, "anew, next | Some(2) false");
        let device =
            heard(KernelLogKind::Device, Some(2), vec![Ok("6,1,1,-;a\n"), Ok("6,2,1,-;b\n"), Ok("6,3,1,-;c\n")]);
        assert_eq!(device, "c | Some(3) false");

        // The same address, another file: its end comes before the place up to which the first one was read.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "6,1,1,-;a\n6,2,1,-;b\n").unwrap();
        let mut heard = Vec::new();
        for after in [Some(30), Some(2)] {
            let mut tail = KernelLogTail::open(&path, after).unwrap();
            let mut more = true;
            while more {
                let take = |piece: TailItem<'_>| {
                    if let TailItem::Record(record) = piece {
                        heard.push(record.text().into_owned());
                    }
                };
                more = tail.read(100, take).unwrap();
            }
        }
        assert_eq!(heard, ["a", "b"], "the first is another log, the second was read");
    }

    #[test]
    fn another_error_is_an_error() {
        assert_eq!(
            heard(KernelLogKind::Device, None, vec![Err(ErrorKind::PermissionDenied)]),
            " | None permission denied"
        );
    }
}
