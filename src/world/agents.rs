//! The mailbox between steps and the agents on nodes: an action puts a command in, an agent takes it out and answers.
//! Agents connect to us, so there is nothing to dial: the agents' door (or an agent in this process) empties the box.
//!
//! Invariant: an answer reaches only the command that it was given for; nothing here is remembered over a restart,
//! because the step asks again and the agent remembers.

use super::WorldError;
use crate::limits;
use crate::model::{Answer, Command, RunId, Standing, Time};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// All agents. Clones are the same box.
#[derive(Clone, Default)]
pub struct Agents(Arc<Post>);

#[derive(Default)]
struct Post {
    epoch: AtomicI64,
    reads: AtomicU32,
    desks: Mutex<BTreeMap<String, Desk>>,
}

/// One node's part of the box.
struct Desk {
    seen: Instant,
    /// Polls that wait here now.
    polls: usize,
    standing: Standing,
    /// By `Command::key`.
    letters: BTreeMap<String, Letter>,
    /// Keys of commands whose run people have cancelled, oldest first.
    unwanted: VecDeque<String>,
    /// Moves when a command wants to be taken.
    post: watch::Sender<u64>,
    /// Moves when an answer has come.
    mail: watch::Sender<u64>,
}

struct Letter {
    command: Command,
    asked: Instant,
    /// When an agent last took it; none: it waits.
    taken: Option<Instant>,
    answer: Option<Answer>,
}

/// An agent as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSeen {
    pub node: String,
    pub here: bool,
    pub silent_for: Duration,
    pub standing: Standing,
    /// Commands that it was given and has not ended.
    pub commands: usize,
}

impl Agents {
    /// The epoch that commands carry: an agent refuses those of an older one.
    pub fn set_epoch(&self, epoch: i64) {
        self.0.epoch.store(epoch, Ordering::Release);
    }

    pub fn epoch(&self) -> i64 {
        self.0.epoch.load(Ordering::Acquire)
    }

    /// A command that only reads and belongs to no step: its key is never used twice in this process.
    pub fn question(&self, verb: &str, args: Map<String, Value>, deadline: Time) -> Command {
        let step = self.0.reads.fetch_add(1, Ordering::Relaxed);
        Command { run: RunId(0), step, epoch: self.epoch(), verb: verb.to_owned(), args, deadline }
    }

    /// Whether an agent of that node has spoken lately.
    pub fn is_here(&self, node: &str) -> bool {
        self.desks().get(node).is_some_and(Desk::is_here)
    }

    /// How the node's agent stands, if it is connected.
    pub fn standing(&self, node: &str) -> Result<Standing, WorldError> {
        let desks = self.desks();
        let desk = desks.get(node).filter(|desk| desk.is_here()).ok_or_else(|| unreached(node))?;
        Ok(desk.standing.clone())
    }

    /// Hands a command to the node's agent and waits a moment for its answer. `Working` says: ask again with the same
    /// command. `Unreached`: no agent of that node is connected, so nothing was given to anybody.
    pub async fn ask(&self, node: &str, command: &Command) -> Result<Answer, WorldError> {
        let key = command.key();
        let mut mail = self.put(node, &key, command)?;
        let ended = async {
            loop {
                // Marks what is there as seen, so that an answer between the look and the wait is not missed.
                mail.borrow_and_update();
                if let Some(answer) = self.collect(node, &key) {
                    return answer;
                }
                if mail.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        if let Ok(answer) = tokio::time::timeout(limits::AGENT_ASK_WAIT, ended).await {
            return Ok(answer);
        }
        let desks = self.desks();
        let letter = desks.get(node).and_then(|desk| desk.letters.get(&key));
        Ok(letter.and_then(|letter| letter.answer.clone()).unwrap_or_else(|| Answer::Working {
            why: format!("the agent of {node} has not answered yet"),
            progress: Value::Null,
        }))
    }

    /// An agent asks for its commands: those that wait, or none after `wait`. Proves that it is here.
    pub async fn take(&self, node: &str, standing: Standing, wait: Duration) -> Vec<Command> {
        let mut post = self.greet(node, standing).post.subscribe();
        let _here = Waiting::begin(self, node);
        let some = async {
            loop {
                post.borrow_and_update();
                let commands = self.waiting(node);
                if !commands.is_empty() {
                    return commands;
                }
                if post.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(wait.min(limits::AGENT_POLL), some).await.unwrap_or_default()
    }

    /// What an agent says of a command; whether anybody waits for more. One that nobody asks about any more is let go.
    pub fn answered(&self, node: &str, key: &str, answer: Answer) -> bool {
        let mut desks = self.desks();
        let Some(desk) = desks.get_mut(node) else { return true };
        desk.seen = Instant::now();
        if let Some(letter) = desk.letters.get_mut(key) {
            letter.answer = Some(answer);
            desk.mail.send_modify(|moves| *moves += 1);
        }
        !desk.unwanted.iter().any(|unwanted| unwanted == key)
    }

    /// People have cancelled a run: its agents hear so with their next word, and stop what may be stopped.
    pub fn cancel(&self, run: RunId) {
        for desk in self.desks().values_mut() {
            let (gone, kept) =
                std::mem::take(&mut desk.letters).into_iter().partition(|(_, one)| one.command.run == run);
            desk.letters = kept;
            let gone: BTreeMap<String, Letter> = gone;
            desk.unwanted.extend(gone.into_keys());
            while desk.unwanted.len() > limits::AGENT_COMMANDS {
                desk.unwanted.pop_front();
            }
        }
    }

    /// What agents are at and somebody waits for: the node, the verb, and what the agent last said of it.
    pub fn at_work(&self) -> Vec<(String, String, Value)> {
        let desks = self.desks();
        let letters = desks.iter().flat_map(|(node, desk)| desk.letters.values().map(move |letter| (node, letter)));
        let waited_for = letters.filter(|(_, letter)| letter.asked.elapsed() < limits::AGENT_ASKED_ABOUT);
        let working = waited_for.filter_map(|(node, letter)| match &letter.answer {
            Some(Answer::Working { progress, .. }) => {
                Some((node.clone(), letter.command.verb.clone(), progress.clone()))
            }
            _ => None,
        });
        working.collect()
    }

    /// An agent has spoken: it is here, and this is how it stands.
    pub fn heard(&self, node: &str, standing: Standing) {
        drop(self.greet(node, standing));
    }

    /// Its certificate was taken away, or it said goodbye.
    pub fn forget(&self, node: &str) {
        self.desks().remove(node);
    }

    /// Every agent that spoke since this process started, in order of the nodes' names.
    pub fn list(&self) -> Vec<AgentSeen> {
        let desks = self.desks();
        let seen = desks.iter().map(|(node, desk)| AgentSeen {
            node: node.clone(),
            here: desk.is_here(),
            silent_for: if desk.polls > 0 { Duration::ZERO } else { desk.seen.elapsed() },
            standing: desk.standing.clone(),
            commands: desk.letters.len(),
        });
        seen.collect()
    }

    fn put(&self, node: &str, key: &str, command: &Command) -> Result<watch::Receiver<u64>, WorldError> {
        let mut desks = self.desks();
        let desk = desks.get_mut(node).filter(|desk| desk.is_here()).ok_or_else(|| unreached(node))?;
        desk.letters.retain(|_, letter| letter.asked.elapsed() < limits::AGENT_LETTER_KEPT);
        if desk.letters.len() >= limits::AGENT_COMMANDS && !desk.letters.contains_key(key) {
            let why = format!("{} commands wait at the agent of {node}", desk.letters.len());
            return Err(WorldError::TooMany { why, after: None });
        }
        let now = Instant::now();
        let letter = desk.letters.entry(key.to_owned()).or_insert_with(|| Letter {
            command: command.clone(),
            asked: now,
            taken: None,
            answer: None,
        });
        letter.command.clone_from(command);
        letter.asked = now;
        // It may have been lost on its way, or the agent has started anew: it recognises what it has seen.
        if letter.taken.is_some_and(|taken| taken.elapsed() >= limits::AGENT_RESEND) {
            letter.taken = None;
        }
        desk.post.send_modify(|moves| *moves += 1);
        Ok(desk.mail.subscribe())
    }

    /// The final answer, once.
    fn collect(&self, node: &str, key: &str) -> Option<Answer> {
        let mut desks = self.desks();
        let desk = desks.get_mut(node)?;
        let ended = matches!(desk.letters.get(key)?.answer, Some(Answer::Ended { .. }));
        if ended { desk.letters.remove(key)?.answer } else { None }
    }

    fn waiting(&self, node: &str) -> Vec<Command> {
        let mut desks = self.desks();
        let Some(desk) = desks.get_mut(node) else { return Vec::new() };
        let letters = desk.letters.values_mut().filter(|letter| letter.taken.is_none());
        letters
            .map(|letter| {
                letter.taken = Some(Instant::now());
                letter.command.clone()
            })
            .collect()
    }

    /// The desk of a node, made if need be. The guard must not be held over an await.
    fn greet(&self, node: &str, standing: Standing) -> Greeted {
        let mut desks = self.desks();
        let desk = desks.entry(node.to_owned()).or_insert_with(|| Desk {
            seen: Instant::now(),
            polls: 0,
            standing: Standing::default(),
            letters: BTreeMap::new(),
            unwanted: VecDeque::new(),
            post: watch::Sender::new(0),
            mail: watch::Sender::new(0),
        });
        // Another boot or process has no memory of what it was handed but not yet wrote down.
        if desk.standing.boot != standing.boot {
            desk.letters.values_mut().for_each(|letter| letter.taken = None);
        }
        desk.seen = Instant::now();
        desk.standing = standing;
        Greeted { post: desk.post.clone() }
    }

    fn desks(&self) -> MutexGuard<'_, BTreeMap<String, Desk>> {
        self.0.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreached(node: &str) -> WorldError {
    WorldError::Unreached(format!(
        "no agent of node {node} is connected: is `nightshift agent` running there? See `nightshift agents`"
    ))
}

struct Greeted {
    post: watch::Sender<u64>,
}

/// A poll that waits; also when its connection breaks it is counted off.
struct Waiting<'a> {
    agents: &'a Agents,
    node: &'a str,
}

impl<'a> Waiting<'a> {
    fn begin(agents: &'a Agents, node: &'a str) -> Waiting<'a> {
        if let Some(desk) = agents.desks().get_mut(node) {
            desk.polls += 1;
        }
        Waiting { agents, node }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(desk) = self.agents.desks().get_mut(self.node) {
            desk.polls = desk.polls.saturating_sub(1);
            desk.seen = Instant::now();
        }
    }
}

impl Desk {
    fn is_here(&self) -> bool {
        self.polls > 0 || self.seen.elapsed() < limits::AGENT_HERE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Outcome;

    fn command(agents: &Agents, step: u32) -> Command {
        Command { run: RunId(7), step, ..agents.question("gpu::reset", Map::new(), Time::UNIX_EPOCH) }
    }

    fn ended(value: Value) -> Answer {
        Answer::Ended { outcome: Outcome::Ok(value) }
    }

    #[tokio::test]
    async fn a_node_without_an_agent_is_not_reached_and_nothing_is_kept_for_it() {
        let agents = Agents::default();
        let asked = agents.ask("gpu-1", &command(&agents, 0)).await;
        assert!(matches!(&asked, Err(WorldError::Unreached(why)) if why.contains("gpu-1")), "{asked:?}");
        assert_eq!(agents.take("gpu-1", Standing::default(), Duration::ZERO).await, []);
    }

    #[tokio::test]
    async fn a_command_is_taken_once_and_its_answer_reaches_who_asked() {
        let agents = Agents::default();
        agents.heard("gpu-1", Standing::default());
        let asked = command(&agents, 3);
        let (answer, taken) = tokio::join!(agents.ask("gpu-1", &asked), async {
            let taken = agents.take("gpu-1", Standing::default(), Duration::from_secs(20)).await;
            assert_eq!(agents.take("gpu-1", Standing::default(), Duration::ZERO).await, []);
            agents.answered("gpu-1", "r7/2", ended(Value::from("of another step")));
            agents.answered("gpu-1", &taken[0].key(), ended(Value::from(1)));
            taken
        });
        assert_eq!(taken, [asked]);
        assert_eq!(answer, Ok(ended(Value::from(1))));
        assert_eq!(agents.list()[0].commands, 0);
    }

    #[tokio::test]
    async fn a_cancelled_command_is_told_to_its_agent_and_no_other() {
        let agents = Agents::default();
        agents.heard("gpu-1", Standing::default());
        let (ours, theirs) = (command(&agents, 3), Command { run: RunId(8), ..command(&agents, 3) });
        let working = || Answer::Working { why: "reading".to_owned(), progress: serde_json::json!({ "percent": 40 }) };
        for asked in [&ours, &theirs] {
            let left = tokio::time::timeout(Duration::from_millis(5), agents.ask("gpu-1", asked)).await;
            assert!(left.is_err() && agents.answered("gpu-1", &asked.key(), working()));
        }
        assert_eq!(agents.at_work().len(), 2);
        agents.cancel(RunId(7));
        assert!(!agents.answered("gpu-1", &ours.key(), working()));
        assert!(agents.answered("gpu-1", &theirs.key(), working()));
        assert_eq!(agents.at_work()[0].2["percent"], 40);
        assert_eq!(agents.list()[0].commands, 1);
    }

    #[tokio::test]
    async fn an_agent_at_work_is_asked_again_and_one_that_started_anew_is_handed_it_again() {
        let agents = Agents::default();
        let standing = |boot: &str| Standing { boot: boot.to_owned(), ..Standing::default() };
        agents.heard("gpu-1", standing("a"));
        let asked = command(&agents, 3);
        // Who asks may go away at any moment: the command stays.
        let left = tokio::time::timeout(Duration::from_millis(20), agents.ask("gpu-1", &asked)).await;
        assert!(left.is_err(), "{left:?}");
        assert_eq!(agents.take("gpu-1", standing("a"), Duration::ZERO).await.len(), 1);
        assert_eq!(agents.take("gpu-1", standing("b"), Duration::ZERO).await, [asked]);
    }
}
