//! MIG on the node: the layout of its GPUs, and its replacement by another one.
//!
//! Invariant: a change either ends at the requested layout, or restores the old one and returns the error; an instance
//! that a process holds is never destroyed.

mod apply;
mod boot;
mod pods;
mod raw;

pub(super) use boot::LayoutAtBoot;

use super::{AgentVerb, Machine, ended, failed};
use crate::limits;
use crate::model::{AgentCommand, CommandStatus, FailureKind, MigGpu};
use serde_json::{Value, json};
use std::path::PathBuf;

pub(super) struct MigInventoryVerb;

#[async_trait::async_trait]
impl AgentVerb for MigInventoryVerb {
    fn name(&self) -> &'static str {
        "mig::inventory"
    }

    fn reads(&self) -> bool {
        true
    }

    async fn perform(
        &self,
        machine: &Machine,
        _command: &AgentCommand,
        _progress: &(dyn Fn(Value) + Sync),
    ) -> CommandStatus {
        let machine = machine.clone();
        match bounded(move || inventory(&machine)).await {
            Ok(value) => ended(value),
            Err(why) => failed(FailureKind::Unavailable, why),
        }
    }
}

pub(super) struct MigApplyVerb;

#[async_trait::async_trait]
impl AgentVerb for MigApplyVerb {
    fn name(&self) -> &'static str {
        "mig::apply"
    }

    async fn perform(
        &self,
        machine: &Machine,
        command: &AgentCommand,
        progress: &(dyn Fn(Value) + Sync),
    ) -> CommandStatus {
        let orders: apply::MigApplyRequest = match serde_json::from_value(Value::Object(command.args.clone())) {
            Ok(orders) => orders,
            Err(error) => return failed(FailureKind::Invalid, format!("mig::apply: {error}")),
        };
        progress(json!({ "doing": format!("changing the layout of {} GPUs", orders.changes.len()) }));
        // The agent's own watch would keep an instance from being destroyed as any other client does.
        let _released = match machine.nvml.release().await {
            Ok(released) => released,
            Err(why) => return failed(FailureKind::Unavailable, why),
        };
        let machine = machine.clone();
        match bounded(move || Ok(apply::apply(&machine, &orders))).await {
            Ok(answer) => answer,
            // A call that hangs has perhaps done its work; a repeat finds out from the layout.
            Err(why) => failed(FailureKind::Unavailable, why),
        }
    }
}

/// NVML can hang on a sick GPU; the thread is then left behind, and the agent goes on.
async fn bounded<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    match tokio::time::timeout(limits::MIG_WITHIN, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(result)) => result,
        Ok(Err(bug)) => Err(format!("reading MIG ended by a bug: {bug}")),
        Err(_) => Err(format!("NVML did not answer within {} s", limits::MIG_WITHIN.as_secs())),
    }
}

/// NVML, as the agent's watch loads it.
fn library(machine: &Machine) -> PathBuf {
    machine.settings.nvml.library.clone().unwrap_or_else(|| PathBuf::from("libnvidia-ml.so.1"))
}

/// A GPU as NVML reads it, with the agent's record of it: an open fault shuts it.
fn looked_at(machine: &Machine, mut gpu: MigGpu) -> MigGpu {
    if gpu.ill.is_none() {
        gpu.ill = machine.faults.open_on(&gpu.gpu);
    }
    gpu
}

fn inventory(machine: &Machine) -> Result<Value, String> {
    let session = raw::MigSession::open(&library(machine)).map_err(|error| error.to_string())?;
    let mut gpus: Vec<MigGpu> = Vec::new();
    for gpu in session.gpus().map_err(|error| error.to_string())? {
        gpus.push(looked_at(machine, gpu.read().map_err(|error| error.to_string())?));
    }
    drop(session);
    let known = pods::assign(&mut gpus, &machine.settings.kubelet_checkpoint);
    Ok(json!({ "gpus": gpus, "pods": known }))
}
