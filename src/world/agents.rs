//! The mailbox between steps and the agents on nodes: an action puts a command in, an agent takes it out and answers.
//! Agents connect to us, so there is nothing to dial: the agents' door (or an agent in this process) empties the box.
//!
//! Invariant: an answer reaches only the command that it was given for, and a command only the agent of its own
//! cluster; nothing here is kept over a restart, because the step sends the command again and the agent has it on disk.

use super::WorldError;
use crate::limits;
use crate::model::{AgentCommand, AgentName, AgentStatus, CommandStatus, RunId, Time};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// All agents. Clones are the same box.
#[derive(Clone, Default)]
pub struct AgentMailbox {
    post: Arc<MailboxState>,
    /// The cluster whose nodes are meant where only a node is named.
    cluster: String,
    /// Of the step that this client is for; see `World::gated`.
    gate: Option<super::KillSwitchGate>,
}

#[derive(Default)]
struct MailboxState {
    epoch: AtomicI64,
    reads: AtomicU32,
    desks: Mutex<BTreeMap<AgentName, CommandQueue>>,
    /// Work for a node without its agent (a Job), by the step's key: when it was last checked, the node, the verb, the
    /// progress.
    elsewhere: Mutex<BTreeMap<String, (Instant, String, String, Value)>>,
}

/// One node's part of the box.
struct CommandQueue {
    seen: Instant,
    /// Polls that wait here now.
    polls: usize,
    standing: AgentStatus,
    /// By `Command::key`.
    letters: BTreeMap<String, PendingCommand>,
    /// Keys of commands whose run users have cancelled, oldest first.
    unwanted: VecDeque<String>,
    /// Moves when a command is ready to be taken.
    post: watch::Sender<u64>,
    /// Moves when an answer has come.
    mail: watch::Sender<u64>,
}

struct PendingCommand {
    command: AgentCommand,
    /// Of the step that gave it.
    gate: Option<super::KillSwitchGate>,
    asked: Instant,
    /// When an agent last took it; none: it waits.
    taken: Option<Instant>,
    answer: Option<CommandStatus>,
}

/// An agent as users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSeen {
    pub name: AgentName,
    pub here: bool,
    pub silent_for: Duration,
    pub standing: AgentStatus,
    /// Commands that it was given and has not ended.
    pub commands: usize,
}

impl AgentMailbox {
    /// The same box, for steps about this cluster.
    pub fn within(&self, cluster: &str) -> AgentMailbox {
        AgentMailbox { cluster: cluster.to_owned(), ..self.clone() }
    }

    /// The same box; what is put into it is handed over only while this gate is open.
    pub(super) fn gated(&self, gate: &super::KillSwitchGate) -> AgentMailbox {
        AgentMailbox { gate: Some(gate.clone()), ..self.clone() }
    }

    /// The epoch that commands carry: an agent refuses those of an older one.
    pub fn set_epoch(&self, epoch: i64) {
        self.post.epoch.store(epoch, Ordering::Release);
    }

    /// The engine's epoch, which every command bears.
    pub fn epoch(&self) -> i64 {
        self.post.epoch.load(Ordering::Acquire)
    }

    /// A command that only reads and belongs to no step: its key is never used twice in this process.
    pub fn question(&self, verb: &str, args: Map<String, Value>, deadline: Time) -> AgentCommand {
        let step = self.post.reads.fetch_add(1, Ordering::Relaxed);
        AgentCommand {
            run: RunId(0),
            step,
            epoch: self.epoch(),
            verb: verb.to_owned(),
            args,
            deadline,
            incarnation: String::new(),
        }
    }

    /// Whether the node's agent has connected lately.
    pub fn is_here(&self, node: &str) -> bool {
        let desks = self.desks();
        self.find(&desks, node).is_ok_and(|name| desks.get(&name).is_some_and(CommandQueue::is_here))
    }

    /// The state of the node's agent.
    ///
    /// # Errors
    ///
    /// Fails when no agent of the node is connected.
    pub fn standing(&self, node: &str) -> Result<AgentStatus, WorldError> {
        let desks = self.desks();
        let name = self.find(&desks, node)?;
        let desk = desks.get(&name).filter(|desk| desk.is_here()).ok_or_else(|| unreached(&name))?;
        Ok(desk.standing.clone())
    }

    /// Hands a command to the node's agent and waits a moment for its answer. `Working` means: ask again with the same
    /// command.
    ///
    /// # Errors
    ///
    /// Fails with `Unreached` when no agent of that node is connected, so the command was given to none, and when the
    /// agent's queue is full.
    pub async fn ask(&self, node: &str, command: &AgentCommand) -> Result<CommandStatus, WorldError> {
        let key = command.key();
        let name = self.find(&self.desks(), node)?;
        self.gate.as_ref().map_or(Ok(()), super::KillSwitchGate::pass)?;
        let mut mail = self.put(&name, &key, command)?;
        let ended = async {
            loop {
                // Marks the present value as seen, so that an answer between the look and the wait is not missed.
                mail.borrow_and_update();
                if let Some(answer) = self.collect(&name, &key) {
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
        let letter = desks.get(&name).and_then(|desk| desk.letters.get(&key));
        Ok(letter.and_then(|letter| letter.answer.clone()).unwrap_or_else(|| CommandStatus::Working {
            why: format!("the agent of {name} has not answered yet"),
            progress: Value::Null,
        }))
    }

    /// An agent polls for its commands: those that wait, or none after `wait`. Proves that it is here.
    pub async fn take(&self, agent: impl Into<AgentName>, standing: AgentStatus, wait: Duration) -> Vec<AgentCommand> {
        let name = agent.into();
        let mut post = self.greet(&name, standing).post.subscribe();
        let _here = WaitingPoll::begin(self, &name);
        let some = async {
            loop {
                post.borrow_and_update();
                let commands = self.waiting(&name);
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

    /// Takes an agent's answer to a command; returns whether a step waits for more. A command without a waiting step is
    /// dropped.
    pub fn answered(&self, agent: impl Into<AgentName>, key: &str, answer: CommandStatus) -> bool {
        let mut desks = self.desks();
        let Some(desk) = desks.get_mut(&agent.into()) else { return true };
        desk.seen = Instant::now();
        if let Some(letter) = desk.letters.get_mut(key) {
            letter.answer = Some(answer);
            desk.mail.send_modify(|moves| *moves += 1);
        }
        !desk.unwanted.iter().any(|unwanted| unwanted == key)
    }

    /// A user has cancelled a run: its agents receive it with their next response, and stop commands that may be
    /// stopped.
    pub fn cancel(&self, run: RunId) {
        for desk in self.desks().values_mut() {
            let (gone, kept) =
                std::mem::take(&mut desk.letters).into_iter().partition(|(_, one)| one.command.run == run);
            desk.letters = kept;
            let gone: BTreeMap<String, PendingCommand> = gone;
            gone.into_keys().for_each(|key| desk.unwant(key));
        }
    }

    /// The run of that command was cancelled: the node's agent receives it with its next response.
    ///
    /// # Errors
    ///
    /// Fails with `Unreached` when no agent of the node is connected.
    pub fn unwant(&self, node: &str, key: &str) -> Result<(), WorldError> {
        let mut desks = self.desks();
        let name = self.find(&desks, node)?;
        let desk = desks.get_mut(&name).filter(|desk| desk.is_here()).ok_or_else(|| unreached(&name))?;
        desk.letters.remove(key);
        desk.unwant(key.to_owned());
        Ok(())
    }

    /// The progress of a step that runs for a node without its agent (a Job, for example); null: it is over.
    pub fn elsewhere(&self, key: &str, node: &str, verb: &str, progress: Value) {
        let mut elsewhere = self.post.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        elsewhere.retain(|_, (looked, ..)| looked.elapsed() < limits::AGENT_ASKED_ABOUT);
        if progress.is_null() {
            elsewhere.remove(key);
        } else if elsewhere.len() < limits::RUNS_AT_ONCE || elsewhere.contains_key(key) {
            elsewhere.insert(key.to_owned(), (Instant::now(), node.to_owned(), verb.to_owned(), progress));
        }
    }

    /// Commands under way on nodes that a step waits for: the node, the verb, and the last reported progress.
    pub fn at_work(&self) -> Vec<(String, String, Value)> {
        let elsewhere = self.post.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = elsewhere.values().filter(|(looked, ..)| looked.elapsed() < limits::AGENT_ASKED_ABOUT);
        let elsewhere: Vec<_> =
            fresh.map(|(_, node, verb, progress)| (node.clone(), verb.clone(), progress.clone())).collect();
        let desks = self.desks();
        let letters = desks.iter().flat_map(|(node, desk)| desk.letters.values().map(move |letter| (node, letter)));
        let waited_for = letters.filter(|(_, letter)| letter.asked.elapsed() < limits::AGENT_ASKED_ABOUT);
        let working = waited_for.filter_map(|(node, letter)| match &letter.answer {
            Some(CommandStatus::Working { progress, .. }) => {
                Some((node.node.clone(), letter.command.verb.clone(), progress.clone()))
            }
            _ => None,
        });
        working.chain(elsewhere).collect()
    }

    /// An agent has connected: it is here, with this state.
    pub fn heard(&self, agent: impl Into<AgentName>, standing: AgentStatus) {
        drop(self.greet(&agent.into(), standing));
    }

    /// Its certificate was taken away, or it disconnected.
    pub fn forget(&self, agent: impl Into<AgentName>) {
        self.desks().remove(&agent.into());
    }

    /// Every agent that connected since this process started, in order of the clusters' and nodes' names.
    pub fn list(&self) -> Vec<AgentSeen> {
        let desks = self.desks();
        let seen = desks.iter().map(|(name, desk)| AgentSeen {
            name: name.clone(),
            here: desk.is_here(),
            silent_for: if desk.polls > 0 { Duration::ZERO } else { desk.seen.elapsed() },
            standing: desk.standing.clone(),
            commands: desk.letters.len(),
        });
        seen.collect()
    }

    /// The agent that is meant by a node's name: that of our cluster; else one that names no cluster, if there is no other
    /// of that name that could be meant as well.
    fn find(&self, desks: &BTreeMap<AgentName, CommandQueue>, node: &str) -> Result<AgentName, WorldError> {
        let own = AgentName::new(&self.cluster, node);
        if !own.cluster.is_empty() && desks.contains_key(&own) {
            return Ok(own);
        }
        let all: Vec<&AgentName> = desks.keys().filter(|name| name.node == node).collect();
        match all.as_slice() {
            [] => Err(unreached(&own)),
            [only] if only.cluster.is_empty() || self.cluster.is_empty() => Ok((*only).clone()),
            several if several[0].cluster.is_empty() || self.cluster.is_empty() => {
                let names: Vec<&str> = several.iter().map(|name| name.cluster.as_str()).map(or_none).collect();
                Err(WorldError::Invalid(format!(
                    "{} agents report as node {node} (cluster: {}), so the node is ambiguous: set `cluster` in each \
                     agent.yaml",
                    names.len(),
                    names.join(", ")
                )))
            }
            others => {
                let names: Vec<&str> = others.iter().map(|name| name.cluster.as_str()).collect();
                let WorldError::Unreached(why) = unreached(&own) else { return Err(unreached(&own)) };
                Err(WorldError::Unreached(format!("{why} (one of that name is in cluster {})", names.join(", "))))
            }
        }
    }

    fn put(&self, name: &AgentName, key: &str, command: &AgentCommand) -> Result<watch::Receiver<u64>, WorldError> {
        let mut desks = self.desks();
        let desk = desks.get_mut(name).filter(|desk| desk.is_here()).ok_or_else(|| unreached(name))?;
        desk.letters.retain(|_, letter| letter.asked.elapsed() < limits::AGENT_LETTER_KEPT);
        if desk.letters.len() >= limits::AGENT_COMMANDS && !desk.letters.contains_key(key) {
            let why = format!("{} commands wait at the agent of {name}", desk.letters.len());
            return Err(WorldError::TooMany { why, after: None });
        }
        let now = Instant::now();
        let letter = desk.letters.entry(key.to_owned()).or_insert_with(|| PendingCommand {
            command: command.clone(),
            gate: None,
            asked: now,
            taken: None,
            answer: None,
        });
        letter.command.clone_from(command);
        letter.gate.clone_from(&self.gate);
        letter.asked = now;
        // It may have been lost on its way, or the agent has started anew: an agent recognises commands that it has
        // seen.
        if letter.taken.is_some_and(|taken| taken.elapsed() >= limits::AGENT_RESEND) {
            letter.taken = None;
        }
        desk.post.send_modify(|moves| *moves += 1);
        Ok(desk.mail.subscribe())
    }

    /// The final answer, once.
    fn collect(&self, name: &AgentName, key: &str) -> Option<CommandStatus> {
        let mut desks = self.desks();
        let desk = desks.get_mut(name)?;
        let ended = matches!(desk.letters.get(key)?.answer, Some(CommandStatus::Ended { .. }));
        if ended { desk.letters.remove(key)?.answer } else { None }
    }

    fn waiting(&self, name: &AgentName) -> Vec<AgentCommand> {
        let mut desks = self.desks();
        let Some(desk) = desks.get_mut(name) else { return Vec::new() };
        let open = |letter: &PendingCommand| letter.gate.as_ref().is_none_or(|gate| gate.pass().is_ok());
        let letters = desk.letters.values_mut().filter(|letter| letter.taken.is_none() && open(letter));
        letters
            .map(|letter| {
                letter.taken = Some(Instant::now());
                letter.command.clone()
            })
            .collect()
    }

    /// The desk of an agent, made if need be. The guard must not be held over an await.
    fn greet(&self, name: &AgentName, standing: AgentStatus) -> GreetedAgent {
        let mut desks = self.desks();
        let desk = desks.entry(name.clone()).or_insert_with(|| CommandQueue {
            seen: Instant::now(),
            polls: 0,
            standing: AgentStatus::default(),
            letters: BTreeMap::new(),
            unwanted: VecDeque::new(),
            post: watch::Sender::new(0),
            mail: watch::Sender::new(0),
        });
        // Another boot or process has no memory of commands that it received but had not yet written down.
        if desk.standing.boot != standing.boot {
            desk.letters.values_mut().for_each(|letter| letter.taken = None);
        }
        desk.seen = Instant::now();
        desk.standing = standing;
        GreetedAgent { post: desk.post.clone() }
    }

    fn desks(&self) -> MutexGuard<'_, BTreeMap<AgentName, CommandQueue>> {
        self.post.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn or_none(cluster: &str) -> &str {
    if cluster.is_empty() { "none" } else { cluster }
}

fn unreached(name: &AgentName) -> WorldError {
    WorldError::Unreached(format!(
        "no Nightshift agent is connected on {name}; start `nightshift agent` there (`nightshift agents` lists those that are)"
    ))
}

struct GreetedAgent {
    post: watch::Sender<u64>,
}

/// A poll that waits; also when its connection breaks it is counted off.
struct WaitingPoll<'a> {
    agents: &'a AgentMailbox,
    name: &'a AgentName,
}

impl<'a> WaitingPoll<'a> {
    fn begin(agents: &'a AgentMailbox, name: &'a AgentName) -> WaitingPoll<'a> {
        if let Some(desk) = agents.desks().get_mut(name) {
            desk.polls += 1;
        }
        WaitingPoll { agents, name }
    }
}

impl Drop for WaitingPoll<'_> {
    fn drop(&mut self) {
        if let Some(desk) = self.agents.desks().get_mut(self.name) {
            desk.polls = desk.polls.saturating_sub(1);
            desk.seen = Instant::now();
        }
    }
}

impl CommandQueue {
    fn unwant(&mut self, key: String) {
        if !self.unwanted.contains(&key) {
            self.unwanted.push_back(key);
        }
        while self.unwanted.len() > limits::AGENT_COMMANDS {
            self.unwanted.pop_front();
        }
    }

    fn is_here(&self) -> bool {
        self.polls > 0 || self.seen.elapsed() < limits::AGENT_HERE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Outcome;

    fn command(agents: &AgentMailbox, step: u32) -> AgentCommand {
        AgentCommand { run: RunId(7), step, ..agents.question("gpu::reset", Map::new(), Time::UNIX_EPOCH) }
    }

    fn ended(value: Value) -> CommandStatus {
        CommandStatus::Ended { outcome: Outcome::Ok(value) }
    }

    #[tokio::test]
    async fn a_node_without_an_agent_is_not_reached_and_nothing_is_kept_for_it() {
        let agents = AgentMailbox::default();
        let asked = agents.ask("gpu-1", &command(&agents, 0)).await;
        assert!(matches!(&asked, Err(WorldError::Unreached(why)) if why.contains("gpu-1")), "{asked:?}");
        assert_eq!(agents.take("gpu-1", AgentStatus::default(), Duration::ZERO).await, []);
    }

    #[tokio::test]
    async fn a_command_is_taken_once_and_its_answer_reaches_who_asked() {
        let agents = AgentMailbox::default();
        agents.heard("gpu-1", AgentStatus::default());
        let asked = command(&agents, 3);
        let (answer, taken) = tokio::join!(agents.ask("gpu-1", &asked), async {
            let taken = agents.take("gpu-1", AgentStatus::default(), Duration::from_secs(20)).await;
            assert_eq!(agents.take("gpu-1", AgentStatus::default(), Duration::ZERO).await, []);
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
        let agents = AgentMailbox::default();
        agents.heard("gpu-1", AgentStatus::default());
        let (ours, theirs) = (command(&agents, 3), AgentCommand { run: RunId(8), ..command(&agents, 3) });
        let working =
            || CommandStatus::Working { why: "reading".to_owned(), progress: serde_json::json!({ "percent": 40 }) };
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
        let agents = AgentMailbox::default();
        let standing = |boot: &str| AgentStatus { boot: boot.to_owned(), ..AgentStatus::default() };
        agents.heard("gpu-1", standing("a"));
        let asked = command(&agents, 3);
        // The caller may go away at any moment: the command stays.
        let left = tokio::time::timeout(Duration::from_millis(20), agents.ask("gpu-1", &asked)).await;
        assert!(left.is_err(), "{left:?}");
        assert_eq!(agents.take("gpu-1", standing("a"), Duration::ZERO).await.len(), 1);
        assert_eq!(agents.take("gpu-1", standing("b"), Duration::ZERO).await, [asked]);
    }

    #[tokio::test]
    async fn two_clusters_may_have_a_node_of_one_name_and_a_command_never_goes_to_the_wrong_one() {
        let agents = AgentMailbox::default();
        let (eu, us) = (AgentName::new("eu-1", "gpu-1"), AgentName::new("us-1", "gpu-1"));
        agents.heard(&eu, AgentStatus::default());
        agents.heard(&us, AgentStatus::default());
        let asked = command(&agents, 3);
        let within = agents.within("us-1");
        let (answer, taken) = tokio::join!(within.ask("gpu-1", &asked), async {
            let taken = agents.take(&us, AgentStatus::default(), Duration::from_secs(20)).await;
            assert_eq!(agents.take(&eu, AgentStatus::default(), Duration::ZERO).await, []);
            // The other one cannot answer for it.
            agents.answered(&eu, &asked.key(), ended(Value::from("wrong")));
            agents.answered(&us, &asked.key(), ended(Value::from("right")));
            taken
        });
        assert_eq!((taken, answer), (vec![asked.clone()], Ok(ended(Value::from("right")))));
        let refused = |cluster: &str| agents.within(cluster).standing("gpu-1").unwrap_err();
        let of_neither = refused("ap-1");
        assert!(
            matches!(&of_neither, WorldError::Unreached(why) if why.contains("of cluster ap-1") && why.contains("eu-1, us-1"))
        );
        let unnamed = refused("");
        assert!(matches!(&unnamed, WorldError::Invalid(why) if why.contains("eu-1, us-1")), "{unnamed:?}");
        // One that names no cluster could be of either.
        agents.heard("gpu-1", AgentStatus::default());
        assert!(agents.within("eu-1").standing("gpu-1").is_ok());
        let doubtful = refused("ap-1");
        assert!(matches!(&doubtful, WorldError::Invalid(why) if why.contains("none, eu-1, us-1")), "{doubtful:?}");
        // A single agent of that name serves every cluster.
        agents.forget(&eu);
        agents.forget(&us);
        assert!(agents.within("ap-1").standing("gpu-1").is_ok() && agents.standing("gpu-1").is_ok());
    }
}
