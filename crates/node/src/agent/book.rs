//! The agent's journal of commands, on disk: the newest epoch, the commands that began, and their outcomes.
//!
//! Invariant: nothing is begun that is not written down and synced first; an outcome that is written is never changed.

use crate::limits;
use crate::model::{AgentCommand, Outcome, Time};
use crate::node::moved_by;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// The journal of commands, in memory and on disk.
pub struct CommandJournal {
    path: PathBuf,
    file: File,
    epoch: i64,
    noted: HashMap<String, JournalRecord>,
    /// Keys from the oldest to the newest.
    order: VecDeque<String>,
    bytes: usize,
}

#[derive(Debug, Clone, PartialEq)]
struct JournalRecord {
    verb: String,
    /// Of its arguments; empty in lines from before they were noted.
    args: String,
    begun_at: Option<Time>,
    outcome: Option<Outcome>,
    bytes: usize,
}

/// The journal's state of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum CommandState {
    New,
    /// Begun, and its end is not written: it may have happened.
    Begun,
    Ended(Outcome),
    /// A command of that key is known, and this is not it: another verb, or other arguments.
    Other {
        verb: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "is")]
enum JournalLine {
    Epoch {
        epoch: i64,
    },
    Begun {
        key: String,
        verb: String,
        at: Time,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        args: String,
    },
    Ended {
        key: String,
        verb: String,
        outcome: Outcome,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        args: String,
    },
}

/// A digest that distinguishes two commands' arguments. The part that a step carries along changes between requests.
fn digest(args: &Map<String, Value>) -> String {
    let mut hash = Sha256::new();
    for (name, value) in args.iter().filter(|(name, _)| *name != "carry") {
        // Neither can hold a zero byte: JSON escapes it.
        hash.update(format!("{}\0{value}\0", Value::from(name.as_str())));
    }
    hex::encode(&hash.finalize()[..16])
}

impl CommandJournal {
    /// Reads the file, drops the oldest commands beyond the bound, and writes the rest anew.
    ///
    /// # Errors
    ///
    /// Fails when the folder cannot be made, or the file cannot be read or written.
    pub fn open(path: &Path) -> std::io::Result<CommandJournal> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let lines = read(path)?;
        let new = path.with_extension("new");
        let mut book = CommandJournal {
            path: path.to_owned(),
            file: File::create(&new)?,
            epoch: 0,
            noted: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
        };
        for line in lines {
            book.take_in(line);
        }
        book.forget_oldest();
        book.write_all(&new)?;
        Ok(book)
    }

    /// The newest epoch of an engine that was seen.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// The command's state; [`Known::Other`] where its key belongs to another verb or other arguments.
    pub fn known(&self, command: &AgentCommand) -> CommandState {
        let is_same = |noted: &JournalRecord| {
            noted.verb == command.verb && (noted.args.is_empty() || noted.args == digest(&command.args))
        };
        match self.noted.get(&command.key()) {
            None => CommandState::New,
            Some(noted) if !is_same(noted) => CommandState::Other { verb: noted.verb.clone() },
            Some(JournalRecord { outcome: None, .. }) => CommandState::Begun,
            Some(JournalRecord { outcome: Some(outcome), .. }) => CommandState::Ended(outcome.clone()),
        }
    }

    /// When another command of that verb was last begun.
    pub fn last(&self, verb: &str, but: &str) -> Option<Time> {
        let others = self.noted.iter().filter(|(key, noted)| noted.verb == verb && *key != but);
        others.filter_map(|(_, noted)| noted.begun_at).max()
    }

    /// Moves the times of begun commands: the engine's time was moved by so many microseconds.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written anew.
    pub fn shift(&mut self, by: i64) -> std::io::Result<()> {
        for noted in self.noted.values_mut() {
            noted.begun_at = noted.begun_at.map(|at| moved_by(at, by));
        }
        let new = self.path.with_extension("new");
        self.file = File::create(&new)?;
        self.write_all(&new)
    }

    /// A newer engine has sent a command; older ones are refused from now on.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written and synced; the epoch is unchanged then.
    pub fn epoch_seen(&mut self, epoch: i64) -> std::io::Result<()> {
        if epoch > self.epoch { self.write(JournalLine::Epoch { epoch }) } else { Ok(()) }
    }

    /// Durable before anything is done.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written and synced; the command must not begin then.
    pub fn begin(&mut self, command: &AgentCommand, now: Time) -> std::io::Result<()> {
        let (verb, args) = (command.verb.clone(), digest(&command.args));
        self.write(JournalLine::Begun { key: command.key(), verb, at: now, args })
    }

    /// The command's outcome, for good. It is kept in memory even where the disk refuses it.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written and synced; the outcome is answered all the same.
    pub fn end(&mut self, command: &AgentCommand, outcome: &Outcome) -> std::io::Result<()> {
        let (verb, args) = (command.verb.clone(), digest(&command.args));
        let line = JournalLine::Ended { key: command.key(), verb, outcome: outcome.clone(), args };
        let written = self.append(&line);
        self.take_in(line);
        self.forget_oldest();
        written
    }

    fn write(&mut self, line: JournalLine) -> std::io::Result<()> {
        self.append(&line)?;
        self.take_in(line);
        Ok(())
    }

    fn append(&mut self, line: &JournalLine) -> std::io::Result<()> {
        let before = self.file.metadata()?.len();
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // Half a line would spoil the next one.
            let _ = self.file.set_len(before);
        }
        written?;
        if before > limits::BOOK_FILE_BYTES {
            let new = self.path.with_extension("new");
            self.file = File::create(&new)?;
            let path = new;
            self.write_all(&path)?;
        }
        Ok(())
    }

    fn take_in(&mut self, line: JournalLine) {
        match line {
            JournalLine::Epoch { epoch } => self.epoch = self.epoch.max(epoch),
            JournalLine::Begun { key, verb, at, args } => {
                let noted = JournalRecord { verb, args, begun_at: Some(at), outcome: None, bytes: 0 };
                if self.noted.insert(key.clone(), noted).is_none() {
                    self.order.push_back(key);
                }
            }
            JournalLine::Ended { key, verb, outcome, args } => {
                let bytes = serde_json::to_vec(&outcome).map_or(0, |text| text.len());
                let noted = self.noted.entry(key.clone()).or_insert_with(|| {
                    self.order.push_back(key);
                    JournalRecord { verb, args, begun_at: None, outcome: None, bytes: 0 }
                });
                if noted.outcome.is_none() {
                    (noted.outcome, noted.bytes) = (Some(outcome), bytes);
                    self.bytes += bytes;
                }
            }
        }
    }

    /// One that is not ended is never forgotten.
    fn forget_oldest(&mut self) {
        let mut at = 0;
        while (self.order.len() > limits::BOOK_COMMANDS || self.bytes > limits::BOOK_BYTES) && at < self.order.len() {
            if self.noted.get(&self.order[at]).is_some_and(|noted| noted.outcome.is_none()) {
                at += 1;
                continue;
            }
            if let Some(noted) = self.order.remove(at).and_then(|key| self.noted.remove(&key)) {
                self.bytes -= noted.bytes;
            }
        }
    }

    /// Writes everything to `self.file`, which is open at `new`, and puts it in the place of the old one.
    fn write_all(&mut self, new: &Path) -> std::io::Result<()> {
        let mut text = Vec::new();
        let mut push = |line: &JournalLine| -> std::io::Result<()> {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
            Ok(())
        };
        push(&JournalLine::Epoch { epoch: self.epoch })?;
        for key in &self.order {
            let Some(noted) = self.noted.get(key) else { continue };
            let (key, verb, args) = (key.clone(), noted.verb.clone(), noted.args.clone());
            if let Some(at) = noted.begun_at {
                push(&JournalLine::Begun { key: key.clone(), verb: verb.clone(), at, args: args.clone() })?;
            }
            if let Some(outcome) = noted.outcome.clone() {
                push(&JournalLine::Ended { key, verb, outcome, args })?;
            }
        }
        self.file.write_all(&text)?;
        self.file.sync_all()?;
        std::fs::rename(new, &self.path)?;
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

/// Every line that can be read. One that a crash cut off was never acted on, since it was not yet synced.
fn read(path: &Path) -> std::io::Result<Vec<JournalLine>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut lines = Vec::new();
    for line in BufReader::new(file.take(2 * limits::BOOK_FILE_BYTES)).split(b'\n') {
        match serde_json::from_slice(&line?) {
            Ok(line) => lines.push(line),
            Err(error) => tracing::warn!(%error, "command journal: unreadable line skipped"),
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunId;
    use serde_json::{Map, json};

    fn command(step: u32, verb: &str) -> AgentCommand {
        let verb = verb.to_owned();
        AgentCommand {
            run: RunId(7),
            step,
            epoch: 1,
            verb,
            args: Map::new(),
            deadline: Time::MAX,
            incarnation: String::new(),
        }
    }

    #[test]
    fn what_was_begun_and_ended_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("book");
        let done = Outcome::Ok(json!({ "changed": true }));
        let mut book = CommandJournal::open(&path).unwrap();
        book.epoch_seen(4).unwrap();
        book.epoch_seen(3).unwrap();
        book.begin(&command(0, "a"), Time::UNIX_EPOCH).unwrap();
        book.begin(&command(1, "b"), Time::UNIX_EPOCH).unwrap();
        book.end(&command(0, "a"), &done).unwrap();
        drop(book);
        // A line that a crash cut off.
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"{\"is\":\"begun\",\"key\":\"r7/").unwrap();
        for _ in 0..2 {
            let mut book = CommandJournal::open(&path).unwrap();
            assert_eq!((book.epoch(), book.known(&command(0, "a"))), (4, CommandState::Ended(done.clone())));
            assert_eq!(
                (book.known(&command(1, "b")), book.known(&command(2, "a"))),
                (CommandState::Begun, CommandState::New)
            );
            let other = AgentCommand { args: Map::from_iter([("gpu".to_owned(), json!(1))]), ..command(0, "a") };
            assert_eq!(book.known(&other), CommandState::Other { verb: "a".to_owned() });
            assert_eq!(book.last("a", "r7/9"), Some(Time::UNIX_EPOCH));
            assert_eq!(book.last("a", "r7/0"), None);
            book.end(&command(0, "a"), &Outcome::Ok(json!("another"))).unwrap();
            assert_eq!(book.known(&command(0, "a")), CommandState::Ended(done.clone()), "an outcome never changes");
        }
    }

    #[test]
    fn when_a_command_was_begun_moves_with_the_clock_also_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("book");
        let mut book = CommandJournal::open(&path).unwrap();
        book.begin(&command(0, "a"), Time::UNIX_EPOCH).unwrap();
        book.shift(60_000_000).unwrap();
        book.begin(&command(1, "b"), Time::UNIX_EPOCH).unwrap();
        for book in [book, CommandJournal::open(&path).unwrap()] {
            assert_eq!(book.last("a", "r7/9"), Some(Time::from_second(60).unwrap()));
            assert_eq!(book.last("b", "r7/9"), Some(Time::UNIX_EPOCH));
            assert_eq!(book.known(&command(0, "a")), CommandState::Begun);
        }
    }

    #[test]
    fn the_oldest_that_ended_are_forgotten_and_open_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = CommandJournal::open(&dir.path().join("book")).unwrap();
        book.begin(&command(0, "a"), Time::UNIX_EPOCH).unwrap();
        for step in 1..=u32::try_from(limits::BOOK_COMMANDS).unwrap() {
            book.end(&command(step, "a"), &Outcome::Ok(json!(step))).unwrap();
        }
        assert_eq!(
            (book.known(&command(0, "a")), book.known(&command(1, "a"))),
            (CommandState::Begun, CommandState::New)
        );
        assert_eq!(book.known(&command(2, "a")), CommandState::Ended(Outcome::Ok(json!(2))));
    }
}
