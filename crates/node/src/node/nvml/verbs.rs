//! `gpu::health`, `gpu::processes`, `gpu::recovery_action`: NVML's data, for a user's or a runbook's request.
//!
//! Invariant: they only read, and where NVML cannot be read they return that failure instead of "healthy" or "none".

use super::door::Question;
use crate::model::{Answer, Command, FailureKind};
use crate::node::{Machine, Verb, ended, failed};
use serde_json::Value;

pub(in crate::node) struct GpuHealth;
pub(in crate::node) struct GpuProcesses;
pub(in crate::node) struct GpuRecoveryAction;

async fn answer(machine: &Machine, command: &Command, question: Question) -> Answer {
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
impl Verb for GpuHealth {
    fn name(&self) -> &'static str {
        "gpu::health"
    }

    fn reads(&self) -> bool {
        true
    }

    async fn perform(&self, machine: &Machine, command: &Command, _progress: &(dyn Fn(Value) + Sync)) -> Answer {
        answer(machine, command, Question::Health).await
    }
}

#[async_trait::async_trait]
impl Verb for GpuProcesses {
    fn name(&self) -> &'static str {
        "gpu::processes"
    }

    fn reads(&self) -> bool {
        true
    }

    async fn perform(&self, machine: &Machine, command: &Command, _progress: &(dyn Fn(Value) + Sync)) -> Answer {
        answer(machine, command, Question::Processes).await
    }
}

#[async_trait::async_trait]
impl Verb for GpuRecoveryAction {
    fn name(&self) -> &'static str {
        "gpu::recovery_action"
    }

    fn reads(&self) -> bool {
        true
    }

    async fn perform(&self, machine: &Machine, command: &Command, _progress: &(dyn Fn(Value) + Sync)) -> Answer {
        answer(machine, command, Question::Recovery).await
    }
}
