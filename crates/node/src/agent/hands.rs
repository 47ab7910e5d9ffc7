//! Takes a command, does it once, and answers. The engine may hand over the same command as often as it likes.
//!
//! Invariant: an older epoch is refused, a written outcome is the answer, and nothing new begins while the kill file
//! exists or a limit of this node is used up; each refusal has a reason in words.

use super::book::{CommandJournal, CommandState};
use super::{EngineLink, LinkError};
use crate::limits;
use crate::model::{AgentCommand, CommandReport, CommandStatus, FailureKind, Outcome, Span, StepFailure, Time};
use crate::node::{self, AgentVerb, Machine};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) struct CommandExecutor {
    machine: Machine,
    book: Mutex<CommandJournal>,
    link: Arc<dyn EngineLink>,
    /// Commands under way, each with its progress as users may see it.
    at_work: Mutex<HashMap<String, Value>>,
}

/// The decision on a command.
enum CommandDecision {
    Answer(CommandStatus),
    Do(&'static dyn AgentVerb),
}

impl CommandExecutor {
    /// An executor of commands that writes to `book` and answers over `link`.
    pub fn new(machine: Machine, book: CommandJournal, link: Arc<dyn EngineLink>) -> CommandExecutor {
        CommandExecutor { machine, book: Mutex::new(book), link, at_work: Mutex::default() }
    }

    /// The time was moved by so many microseconds: a limit of this node ends when it would have.
    pub fn shift(&self, by: i64) {
        if let Err(error) = self.book().shift(by) {
            tracing::error!(%error, "the times of commands cannot be written down as the clock has them now; they are kept in memory");
        }
    }

    /// Returns at once; the answer goes to the engine when there is one.
    pub fn take(self: &Arc<Self>, command: AgentCommand) {
        let hands = Arc::clone(self);
        tokio::spawn(async move {
            let answer = hands.work(&command).await;
            hands.say(&command.key(), answer).await;
        });
    }

    async fn work(self: &Arc<Self>, command: &AgentCommand) -> CommandStatus {
        let verb = match self.decide(command, self.machine.clock.now()) {
            CommandDecision::Answer(answer) => return answer,
            CommandDecision::Do(verb) => verb,
        };
        let answer = self.perform(verb, command).await;
        self.at_work().remove(&command.key());
        if let (CommandStatus::Ended { outcome }, false) = (&answer, verb.reads())
            && let Err(error) = self.book().end(command, outcome)
        {
            tracing::error!(%error, command = %command.key(), "cannot write a command's outcome to the journal; it stays in memory");
        }
        answer
    }

    /// The checks before a command begins. A final decision is written down.
    fn decide(&self, command: &AgentCommand, now: Time) -> CommandDecision {
        let Some(verb) = node::find(&command.verb) else {
            let known: Vec<&str> = node::verbs().collect();
            let why = format!(
                "the agent of {} (version {}) has no verb `{}`; it has {}",
                self.machine.name,
                env!("CARGO_PKG_VERSION"),
                command.verb,
                known.join(", ")
            );
            return CommandDecision::Answer(node::failed(FailureKind::Invalid, why));
        };
        if verb.reads() {
            return self.claim(command, verb);
        }
        let mut book = self.book();
        if command.epoch < book.epoch() {
            let why = format!(
                "epoch {} is older than {}, which this agent has accepted: another engine has taken over. If the \
                 engine's store was recreated, remove {} on {}",
                command.epoch,
                book.epoch(),
                self.machine.settings.data_dir.join("commands").display(),
                self.machine.name
            );
            return CommandDecision::Answer(node::failed(FailureKind::Conflict, why));
        }
        let unwritten = |error: std::io::Error| {
            let why = format!("the command was not started because the journal cannot be written: {error}");
            CommandDecision::Answer(node::failed(FailureKind::Unavailable, why))
        };
        if let Err(error) = book.epoch_seen(command.epoch) {
            return unwritten(error);
        }
        let killed = self.machine.settings.kill_file.exists();
        match book.known(command) {
            // Not written down: the key's entry stays as it is.
            CommandState::Other { verb } => {
                let why = format!(
                    "command {} is in the journal of the agent of {} as `{verb}` with other arguments, so it is \
                     not run as `{}`: the engine's store was restored from a copy, or two engines run on copies of one \
                     store; keep one engine and run the runbook again",
                    command.key(),
                    self.machine.name,
                    command.verb
                );
                return CommandDecision::Answer(node::failed(FailureKind::Conflict, why));
            }
            CommandState::Ended(outcome) => return CommandDecision::Answer(CommandStatus::Ended { outcome }),
            // It may have happened, so it is not refused; but it is not touched either.
            CommandState::Begun if killed => {
                let why = format!("{} stops a running command", self.machine.settings.kill_file.display());
                return CommandDecision::Answer(CommandStatus::Working { why, progress: Value::Null });
            }
            CommandState::Begun => return self.claim(command, verb),
            CommandState::New => {}
        }
        if let Some(failure) = self.refusal(&book, verb, command, now) {
            let outcome = Outcome::Failed(failure);
            // Written down, so that a copy of it that comes late is refused too.
            return match book.end(command, &outcome) {
                Ok(()) => CommandDecision::Answer(CommandStatus::Ended { outcome }),
                Err(error) => unwritten(error),
            };
        }
        match book.begin(command, now) {
            Ok(()) => self.claim(command, verb),
            Err(error) => unwritten(error),
        }
    }

    fn refusal(
        &self,
        book: &CommandJournal,
        verb: &dyn AgentVerb,
        command: &AgentCommand,
        now: Time,
    ) -> Option<StepFailure> {
        let refused = |why: String| Some(StepFailure::new(FailureKind::Refused, why));
        let name = &self.machine.name;
        if self.machine.settings.kill_file.exists() {
            let file = self.machine.settings.kill_file.display();
            return refused(format!("{file} exists on {name}: this agent runs no commands until the file is removed"));
        }
        if now > command.deadline {
            let why = format!(
                "it arrived after its deadline {} (the clock of {name} shows {now}); not started",
                command.deadline
            );
            return Some(StepFailure::new(FailureKind::Timeout, why));
        }
        let every = verb.at_most_every()?;
        let last = book.last(verb.name(), &command.key())?;
        let free = last.checked_add(every).unwrap_or(Time::MAX);
        // A clock that was set back does not lengthen it beyond once more the time.
        if now >= free || last > now.checked_add(every).unwrap_or(Time::MAX) {
            return None;
        }
        refused(format!(
            "the agent of {name} did `{}` at {last} and does so at most once in {}: not before {free}",
            verb.name(),
            Span(every)
        ))
    }

    /// Claims the command, so that it is not performed twice at the same time.
    fn claim(&self, command: &AgentCommand, verb: &'static dyn AgentVerb) -> CommandDecision {
        let mut at_work = self.at_work();
        if let Some(progress) = at_work.get(&command.key()) {
            return CommandDecision::Answer(working(command, progress.clone()));
        }
        if at_work.len() >= limits::AGENT_COMMANDS {
            let why = format!("{} commands are under way already", at_work.len());
            return CommandDecision::Answer(CommandStatus::Working { why, progress: Value::Null });
        }
        at_work.insert(command.key(), Value::Null);
        CommandDecision::Do(verb)
    }

    async fn perform(self: &Arc<Self>, verb: &'static dyn AgentVerb, command: &AgentCommand) -> CommandStatus {
        let (hands, asked) = (Arc::clone(self), command.clone());
        // A verb that breaks must not take the agent with it.
        let doing = tokio::spawn(async move {
            let progress = |value: Value| {
                if let Some(seen) = hands.at_work().get_mut(&asked.key()) {
                    *seen = value;
                }
            };
            verb.perform(&hands.machine, &asked, &progress).await
        });
        let mut doing = std::pin::pin!(doing);
        loop {
            match tokio::time::timeout(limits::AGENT_PROGRESS_EVERY, doing.as_mut()).await {
                Ok(Ok(answer)) => return bounded(answer),
                Ok(Err(bug)) => {
                    let why =
                        format!("`{}` broke at the agent, so it may or may not have happened: {bug}", command.verb);
                    return node::failed(FailureKind::Unavailable, why);
                }
                Err(_) => {
                    let progress = self.at_work().get(&command.key()).cloned().unwrap_or_default();
                    let wanted = self.say(&command.key(), working(command, progress)).await;
                    if !wanted && verb.stops() {
                        doing.abort();
                        let why =
                            format!("the run was cancelled during `{}`; no change was left half done", command.verb);
                        return node::failed(FailureKind::Refused, why);
                    }
                }
            }
        }
    }

    /// The engine requests a lost answer again, so a few tries are enough. Returns whether a step waits for more.
    async fn say(&self, key: &str, answer: CommandStatus) -> bool {
        let answered = CommandReport { key: key.to_owned(), answer };
        for attempt in 1..=limits::AGENT_ANSWER_TRIES {
            match self.link.answer(&answered).await {
                Ok(wanted) => return wanted,
                Err(LinkError::Refused(why)) => {
                    tracing::warn!(why, key, "the engine rejected a command's result");
                    return true;
                }
                Err(error) => {
                    tracing::debug!(%error, key, attempt, "an answer was not taken; trying again");
                    tokio::time::sleep(limits::BACKOFF_FIRST * attempt).await;
                }
            }
        }
        true
    }

    fn book(&self) -> MutexGuard<'_, CommandJournal> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at_work(&self) -> MutexGuard<'_, HashMap<String, Value>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn working(command: &AgentCommand, progress: Value) -> CommandStatus {
    let doing = progress["doing"].as_str().unwrap_or_default();
    let why = if doing.is_empty() { format!("the agent is at `{}`", command.verb) } else { doing.to_owned() };
    CommandStatus::Working { why, progress }
}

/// An outcome is kept on disk and sent; one that is too large becomes a failure with that reason.
fn bounded(answer: CommandStatus) -> CommandStatus {
    let size = match &answer {
        CommandStatus::Ended { outcome } => serde_json::to_vec(outcome).map_or(0, |bytes| bytes.len()),
        CommandStatus::Working { .. } => 0,
    };
    if size <= limits::OUTCOME_BYTES {
        return answer;
    }
    let why = json!({ "bytes": size, "most": limits::OUTCOME_BYTES });
    node::failed(FailureKind::Invalid, format!("it was done, but its answer is too large to keep: {why}"))
}

#[cfg(test)]
mod tests;
