//! The kernel log as one of the agent's watchers; it also sends findings that time alone brings: counts, and ends of
//! conditions.
//!
//! Invariant: the position in the log is stored only after all findings before it were taken and had time to be
//! written.

use super::{KernelLogRead, follow};
use crate::limits;
use crate::model::Finding;
use crate::node::{Machine, NodeWatcher};
use std::path::Path;
use std::time::Instant;
use tokio::sync::{mpsc, watch};

pub(in crate::node) struct KernelWatch;

/// Where the driver keeps a file for each GPU.
const GPU_FILES: &str = "/proc/driver/nvidia/gpus";

#[async_trait::async_trait]
impl NodeWatcher for KernelWatch {
    fn name(&self) -> &'static str {
        "kmsg"
    }

    async fn watch(&self, machine: &Machine, out: mpsc::Sender<Finding>, mut stop: watch::Receiver<bool>) {
        let faults = &machine.faults;
        faults.learn_from_files(Path::new(GPU_FILES));
        let Some(mut passes) = passes(machine) else { return };
        let mut last = faults.last();
        let mut committed = Instant::now();
        loop {
            let pass = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                pass = passes.recv() => pass,
                () = faults.due(machine.clock.now(), limits::KERNEL_WAIT) => Some(KernelLogRead::default()),
            };
            let Some(pass) = pass else { return };
            last = pass.last.max(last);
            faults.learn(pass.names);
            let now = machine.clock.now();
            let mut said: Vec<Finding> = pass.sights.into_iter().flat_map(|sight| faults.hear(sight, now)).collect();
            said.extend(faults.tick(now));
            for finding in said {
                if out.send(finding).await.is_err() {
                    return;
                }
            }
            let taken = out.capacity() == out.max_capacity();
            if taken && committed.elapsed() >= limits::FAULTS_SETTLE && faults.may_commit(last) {
                committed = Instant::now();
                if let Err(error) = faults.commit(last) {
                    tracing::warn!(%error, "trying again");
                }
            }
        }
    }
}

/// The log is followed in a thread of its own, since reading it may wait.
fn passes(machine: &Machine) -> Option<mpsc::Receiver<KernelLogRead>> {
    let (tell, told) = mpsc::channel::<KernelLogRead>(limits::KERNEL_PASSES);
    let (path, after, faults) = (machine.settings.kernel_log.clone(), machine.faults.last(), machine.faults.clone());
    let clock = machine.clock.clone();
    let work = move || {
        follow(&path, after, &clock, |pass| {
            faults.words_come(pass.readable);
            tell.blocking_send(pass).is_ok()
        });
    };
    match std::thread::Builder::new().name("kmsg".to_owned()).spawn(work) {
        Ok(_) => Some(told),
        Err(error) => {
            tracing::error!(%error, "cannot start the kernel log thread; the kernel log is not watched");
            None
        }
    }
}
