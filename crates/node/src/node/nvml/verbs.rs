//! `gpu::health`, `gpu::processes`, `gpu::recovery_action`: NVML's data, for a user's or a runbook's request.
//!
//! Invariant: they only read, and where NVML cannot be read they return that failure instead of "healthy" or "none".

use super::door::GpuQuery;
use crate::model::{AgentCommand, CommandStatus, FailureKind};
use crate::node::{AgentVerb, Machine, ended, failed};
use serde_json::Value;

pub(in crate::node) struct GpuHealthVerb;
pub(in crate::node) struct GpuProcessesVerb;
pub(in crate::node) struct GpuRecoveryVerb;

async fn answer(machine: &Machine, command: &AgentCommand, question: GpuQuery) -> CommandStatus {
    let gpu = match command.args.get("gpu") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(other) => return failed(FailureKind::Invalid, format!("{other} names no GPU")),
    };
    match machine.nvml.ask(question, gpu).await {
        Ok(value) => ended(value),
        Err(why) => failed(FailureKind::Unavailable, why),
    }
}

#[async_trait::async_trait]
impl AgentVerb for GpuHealthVerb {
    fn name(&self) -> &'static str {
        "gpu::health"
    }

    fn reads(&self) -> bool {
        true
    }

    async fn perform(
        &self,
        machine: &Machine,
        command: &AgentCommand,
        _progress: &(dyn Fn(Value) + Sync),
    ) -> CommandStatus {
        answer(machine, command, GpuQuery::Health).await
    }
}

#[async_trait::async_trait]
impl AgentVerb for GpuProcessesVerb {
    fn name(&self) -> &'static str {
        "gpu::processes"
    }

    fn reads(&self) -> bool {
        true
    }

    async fn perform(
        &self,
        machine: &Machine,
        command: &AgentCommand,
        _progress: &(dyn Fn(Value) + Sync),
    ) -> CommandStatus {
        answer(machine, command, GpuQuery::Processes).await
    }
}

#[async_trait::async_trait]
impl AgentVerb for GpuRecoveryVerb {
    fn name(&self) -> &'static str {
        "gpu::recovery_action"
    }

    fn reads(&self) -> bool {
        true
    }

    async fn perform(
        &self,
        machine: &Machine,
        command: &AgentCommand,
        _progress: &(dyn Fn(Value) + Sync),
    ) -> CommandStatus {
        answer(machine, command, GpuQuery::Recovery).await
    }
}
