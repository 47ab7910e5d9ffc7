//! Commands that need the GPU node itself; used by the agent alone. Each verb of the closed list is one line in
//! `VERBS`, each watcher one line in `WATCHERS`.
//!
//! Invariant: no code here connects to the engine or decides; a verb does its command, or returns why it did not.

pub mod cache;
mod clock;
mod collect;
mod faults;
mod holders;
mod join;
mod kmsg;
mod mig;
mod nvml;
mod program;
mod reboot;
mod reset;
mod sight;
mod waiter;

pub(crate) use clock::moved_by;
pub use clock::{NodeClock, NodeClockWatch};
pub use faults::{FaultTracker, MemoryError};
pub use join::{FaultCorrelator, GpuNames, OpenCondition};
pub use kmsg::{KMSG, KernelLog, KernelLogRead, KmsgError, follow, read_bytes};
pub use nvml::{NvmlClient, NvmlReleaseGuard, findings_page};
pub use sight::{FaultObservation, ObservationSource, recovery_finding, xid_finding};
pub use waiter::is_meant;

use crate::config::AgentConfig;
use crate::model::{AgentCommand, CommandStatus, FailureKind, Finding, Outcome, StepFailure};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The node as its verbs and watchers see it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// The node's name, in Kubernetes or in the configuration.
    pub name: String,
    /// The kernel's boot id; another one means that the node was rebooted.
    pub boot: String,
    pub settings: Arc<AgentConfig>,
    pub clock: NodeClock,
    /// The way to the watcher of the GPUs through NVML.
    pub nvml: NvmlClient,
    /// The faults of the GPUs, from all watchers together. A watcher of GPU faults reports everything here first, and
    /// sends on the returned findings.
    pub faults: Arc<FaultTracker>,
    /// This program's own binary, which also waits for the programs that it starts.
    pub own: PathBuf,
}

impl Machine {
    /// This machine, under that name.
    pub fn here(name: String, settings: Arc<AgentConfig>) -> Machine {
        let boot = boot_id(&settings.boot_id);
        let clock = NodeClock::default();
        let faults = FaultTracker::open(&settings.data_dir.join("faults.json"), &boot, clock.now());
        // The boot is the same where anything is left to be moved.
        clock.was_moved(faults.reckon(clock.offset()));
        Machine {
            name,
            boot,
            settings,
            clock,
            nvml: NvmlClient::default(),
            faults: Arc::new(faults),
            own: PathBuf::from(OWN),
        }
    }
}

/// Right also if the file was replaced by a newer one since.
const OWN: &str = "/proc/self/exe";

/// The kernel's boot id; empty where there is none to read.
fn boot_id(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Something that an agent can do. Effects are the action's matter; a verb must be right when called again for one
/// command whose answer was lost: the agent calls it again when it was begun and its end is not on disk.
#[async_trait::async_trait]
pub trait AgentVerb: Send + Sync {
    /// As in the catalog of actions: `gpu::reset`.
    fn name(&self) -> &'static str;

    /// Changes nothing: may be repeated at will, is not journaled, and is not stopped by the kill file.
    fn reads(&self) -> bool {
        false
    }

    /// The agent's own limit: on this node, one command of this verb within so long.
    fn at_most_every(&self) -> Option<Duration> {
        None
    }

    /// May be left off in its middle when its run is cancelled: nothing is half done then.
    fn stops(&self) -> bool {
        false
    }

    /// Does it; `progress` receives the state that users may see meanwhile.
    async fn perform(
        &self,
        machine: &Machine,
        command: &AgentCommand,
        progress: &(dyn Fn(Value) + Sync),
    ) -> CommandStatus;
}

/// Something that listens to the hardware for as long as the agent runs.
#[async_trait::async_trait]
pub trait NodeWatcher: Send + Sync {
    /// For logs: `kmsg`.
    fn name(&self) -> &'static str;

    /// Returns when `stop` turns true, or when there is nothing to listen to on this machine (in words in the log). It
    /// may wait where `out` is full: the spool behind it decides which findings are dropped, and reports it.
    async fn watch(&self, machine: &Machine, out: mpsc::Sender<Finding>, stop: watch::Receiver<bool>);
}

/// One line a verb, in alphabetic order of their names.
static VERBS: &[&dyn AgentVerb] = &[
    &cache::verbs::CacheStatusVerb,
    &cache::verbs::CacheVerifyVerb,
    &cache::verbs::CacheWarmVerb,
    &mig::MigApplyVerb,
    &mig::MigInventoryVerb,
    &nvml::GpuHealthVerb,
    &nvml::GpuProcessesVerb,
    &nvml::GpuRecoveryVerb,
    &reset::GpuResetVerb,
    &collect::NodeCollectVerb,
    &reboot::NodeRebootVerb,
];

/// One line a watcher.
static WATCHERS: [&dyn NodeWatcher; 3] = [&kmsg::KernelWatch, &mig::LayoutAtBoot, &nvml::NvmlWatch];

/// The verb of that name.
pub fn find(name: &str) -> Option<&'static dyn AgentVerb> {
    VERBS.iter().find(|verb| verb.name() == name).copied()
}

/// The names of all verbs, for messages.
pub fn verbs() -> impl Iterator<Item = &'static str> {
    VERBS.iter().map(|verb| verb.name())
}

/// Every watcher, in the order in which they start.
pub fn watchers() -> impl Iterator<Item = &'static dyn NodeWatcher> {
    WATCHERS.iter().copied()
}

/// An answer that is settled well.
pub fn ended(value: Value) -> CommandStatus {
    CommandStatus::Ended { outcome: Outcome::Ok(value) }
}

/// An answer that is a failure, in words.
pub fn failed(kind: FailureKind, why: impl Into<String>) -> CommandStatus {
    CommandStatus::Ended { outcome: Outcome::Failed(StepFailure::new(kind, why)) }
}
