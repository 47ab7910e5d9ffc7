//! Nightshift on a GPU node: watch → spool → send; take a command → do it → answer. It connects out and listens on nothing.
//!
//! Invariant: a finding is on disk before it is sent and until the engine has it; a command is on disk before it is begun
//! and for ever after.

mod book;
mod hands;
mod http;
mod identity;
mod link;
mod send;
mod spool;

pub use http::{CLUSTER_HEADER, HttpLink};
pub use identity::{IssuedCertificate, JoinOutcome, JoinRequest, RenewalRequest, identity_paths, join, node_name};
pub use link::{EngineLink, LinkError};

use crate::limits;
use crate::model::{AgentStatus, Finding};
use crate::node::{self, Machine, NodeClockWatch};
use book::CommandJournal;
use hands::CommandExecutor;
use spool::Spool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// One agent, ready to run.
pub struct Agent {
    machine: Machine,
    link: Arc<dyn EngineLink>,
    spool: Arc<Mutex<Spool>>,
    hands: Arc<CommandExecutor>,
}

impl Agent {
    /// Opens spool and journal. The spool works without a disk; the journal does not, because nothing may be done
    /// unwritten.
    ///
    /// # Errors
    ///
    /// Fails when the journal of commands cannot be opened; the message names its path.
    pub fn new(machine: Machine, link: Arc<dyn EngineLink>) -> Result<Agent, String> {
        let data = &machine.settings.data_dir;
        let book = data.join("commands");
        let book = CommandJournal::open(&book)
            .map_err(|error| format!("the command journal {} cannot be opened: {error}", book.display()))?;
        let spool =
            Spool::open(&data.join("spool"), &machine.boot, machine.settings.spool_mib.max(1) << 20, &machine.clock);
        let hands = Arc::new(CommandExecutor::new(machine.clone(), book, Arc::clone(&link)));
        if machine.clock.moved() != 0 {
            hands.shift(machine.clock.moved());
        }
        Ok(Agent { machine, link, spool: Arc::new(Mutex::new(spool)), hands })
    }

    /// Runs until `stop` turns true; `extra` is one more source of findings, for tests and tools.
    pub async fn run(self, stop: watch::Receiver<bool>, extra: Option<mpsc::Receiver<Finding>>) {
        let (findings, heard) = mpsc::channel::<Finding>(limits::FINDINGS_QUEUE);
        let mut tasks = JoinSet::new();
        for watcher in node::watchers() {
            let (machine, out, stop) = (self.machine.clone(), findings.clone(), stop.clone());
            tasks.spawn(async move {
                watcher.watch(&machine, out, stop.clone()).await;
                tracing::debug!(watcher = watcher.name(), "a watcher has ended");
            });
        }
        if let Some(extra) = extra {
            tasks.spawn(pass_on(extra, findings.clone()));
        }
        tasks.spawn(watch_clock(self.machine.clone(), Arc::clone(&self.hands), stop.clone()));
        tasks.spawn(send::keep(Arc::clone(&self.spool), heard, stop.clone()));
        tasks.spawn(send::send(Arc::clone(&self.spool), Arc::clone(&self.link), stop.clone()));
        tasks.spawn(listen(self.spool, self.link, self.hands, self.machine, stop.clone()));
        drop(findings);
        let mut stopped = stop;
        // A sender that is gone means the same.
        let _ = stopped.wait_for(|stopped| *stopped).await;
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limits::AGENT_SHUTDOWN, all).await.is_err() {
            tracing::warn!("shutdown deadline passed with work open; the next start settles it");
        }
    }
}

async fn pass_on(mut from: mpsc::Receiver<Finding>, to: mpsc::Sender<Finding>) {
    while let Some(finding) = from.recv().await {
        if to.send(finding).await.is_err() {
            return;
        }
    }
}

/// Follows a step of this node's clock that lasts.
async fn watch_clock(machine: Machine, hands: Arc<CommandExecutor>, mut stop: watch::Receiver<bool>) {
    let mut clock = NodeClockWatch::default();
    while !*stop.borrow() {
        if let Some(by) = clock.pass(&machine.clock, &machine.faults) {
            hands.shift(by);
        }
        tokio::select! {
            () = machine.clock.rest() => {}
            _ = stop.changed() => return,
        }
    }
}

/// Polls for commands, one long poll after another.
async fn listen(
    spool: Arc<Mutex<Spool>>,
    link: Arc<dyn EngineLink>,
    hands: Arc<CommandExecutor>,
    machine: Machine,
    mut stop: watch::Receiver<bool>,
) {
    let mut patience = RetryBackoff::default();
    while !*stop.borrow() {
        let standing = standing(&spool, &machine);
        let polled = tokio::select! {
            polled = link.poll(&standing) => polled,
            _ = stop.changed() => return,
        };
        match polled {
            Ok(commands) => {
                patience.calm();
                for command in commands {
                    hands.take(command);
                }
            }
            Err(error) => {
                let wait = patience.wait(&error, "polling for commands");
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = stop.changed() => return,
                }
            }
        }
    }
}

fn standing(spool: &Mutex<Spool>, machine: &Machine) -> AgentStatus {
    let mut standing = spool.lock().unwrap_or_else(PoisonError::into_inner).standing();
    if machine.settings.kill_file.exists() {
        let words = format!("{} stops all commands", machine.settings.kill_file.display());
        standing.trouble =
            [words, standing.trouble].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
    }
    standing
}

/// The wait after a failure: short at first, and logged once, not each time.
#[derive(Default)]
struct RetryBackoff {
    failures: u32,
}

impl RetryBackoff {
    fn wait(&mut self, error: &LinkError, doing: &str) -> Duration {
        match (self.failures, error) {
            (0, error) => tracing::warn!(%error, "{doing} failed; nothing is lost; retrying"),
            (_, error) => tracing::debug!(%error, failures = self.failures, "{doing} failed again"),
        }
        self.failures = self.failures.saturating_add(1);
        let most =
            if matches!(error, LinkError::Refused(_)) { limits::AGENT_REFUSED_WAIT } else { limits::AGENT_BACKOFF_MAX };
        let seed = std::process::id().into();
        crate::policy::backoff(self.failures.min(16), limits::BACKOFF_FIRST, most, seed)
    }

    fn calm(&mut self) {
        if self.failures > 0 {
            tracing::info!(failures = self.failures, "connection to the engine restored");
        }
        self.failures = 0;
    }
}
