//! `gpu::reset`: NVIDIA's tool resets one GPU that no process holds.
//!
//! Invariant: a GPU that a process holds is never reset; a reset that began and whose end was not seen is settled by
//! its traces: its exit code, another boot, or the driver's own advice that has gone.

use super::program::{EarlierStart, ProgramEnd, ProgramFiles};
use super::{AgentVerb, Machine, ended, failed};
use crate::limits;
use crate::model::{AgentCommand, CommandStatus, FailureKind};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::time::Duration;

pub(super) struct GpuResetVerb;

#[async_trait::async_trait]
impl AgentVerb for GpuResetVerb {
    fn name(&self) -> &'static str {
        "gpu::reset"
    }

    fn at_most_every(&self) -> Option<Duration> {
        Some(limits::RESET_EVERY)
    }

    async fn perform(
        &self,
        machine: &Machine,
        command: &AgentCommand,
        progress: &(dyn Fn(Value) + Sync),
    ) -> CommandStatus {
        let gpu = match gpu_of(command) {
            Ok(gpu) => gpu,
            Err(why) => return failed(FailureKind::Invalid, why),
        };
        let program = ProgramFiles::of(machine, &command.key());
        match program.wait(limits::RESET_WITHIN).await {
            EarlierStart::Never => {}
            EarlierStart::Ended(how) => return said(machine, &gpu, how),
            EarlierStart::Running => return failed(FailureKind::Timeout, format!("the reset of GPU {gpu} hangs")),
            EarlierStart::Unknown => {
                if let Some(how) = witnessed(machine, command, &gpu).await {
                    return ended(json!({ "changed": true, "settled": how }));
                }
            }
        }
        if let Err(why) = super::holders::none_hold(machine, &gpu).await {
            return failed(FailureKind::Refused, why);
        }
        // The tool refuses as long as any process, this agent too, has the library open.
        let _released = match machine.nvml.release().await {
            Ok(released) => released,
            Err(why) => return failed(FailureKind::Refused, why),
        };
        progress(json!({ "doing": format!("resetting GPU {gpu}") }));
        let tool = match super::program::tool(&machine.settings.nvidia_smi) {
            Ok(tool) => tool,
            Err(why) => return failed(FailureKind::NotFound, why),
        };
        let args: [OsString; 3] = ["--gpu-reset".into(), "-i".into(), gpu.clone().into()];
        match program.run(&tool, &args, limits::RESET_WITHIN).await {
            Ok(how) => said(machine, &gpu, how),
            Err(why) => failed(FailureKind::Timeout, why),
        }
    }
}

/// An index, a UUID or a PCI address, and nothing that the tool could take for an option.
pub(super) fn gpu_of(command: &AgentCommand) -> Result<String, String> {
    let gpu = match &command.args.get("gpu") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return Err("`gpu` is missing: an index, a UUID or a PCI address".to_owned()),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.');
    if gpu.is_empty() || gpu.len() > 64 || gpu.starts_with('-') || !gpu.chars().all(plain) {
        return Err(format!("{gpu:?} is no GPU: write an index, a UUID or a PCI address"));
    }
    Ok(gpu)
}

fn said(machine: &Machine, gpu: &str, how: ProgramEnd) -> CommandStatus {
    if how.code == 0 {
        machine.faults.healed(gpu, "the GPU was reset", machine.clock.now());
        return ended(json!({ "changed": true, "said": how.said }));
    }
    // The tool reports "in use by another client" in words only.
    let kind = if how.said.contains("in use") { FailureKind::Refused } else { FailureKind::Unavailable };
    failed(kind, format!("GPU {gpu} was not reset, code {}: {}", how.code, how.said))
}

/// The evidence that it happened although its end was not seen, in words; none: it did not.
async fn witnessed(machine: &Machine, command: &AgentCommand, gpu: &str) -> Option<String> {
    let before = &command.args.get("carry")?;
    let boot = before["boot"].as_str().unwrap_or_default();
    if !boot.is_empty() && boot != machine.boot {
        return Some("the node was rebooted since, which resets its GPUs".to_owned());
    }
    let advised = before["recovery"].as_str().filter(|advice| *advice != "none")?;
    let now = super::holders::recovery_action(machine, gpu).await?;
    (now == "none").then(|| format!("the driver requested {advised} before and requests nothing now"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunId;
    use serde_json::Map;

    #[test]
    fn a_gpu_is_named_in_one_of_three_ways_and_never_an_option() {
        let of = |gpu: Value| {
            let args = Map::from_iter([("gpu".to_owned(), gpu)]);
            gpu_of(&AgentCommand {
                run: RunId(1),
                step: 1,
                epoch: 1,
                verb: "gpu::reset".to_owned(),
                args,
                deadline: crate::model::Time::MAX,
                incarnation: String::new(),
            })
        };
        for good in [json!(3), json!("3"), json!("GPU-9e5e1c1a-1"), json!("0000:65:00.0")] {
            assert!(of(good.clone()).is_ok(), "{good}");
        }
        for bad in [json!(""), json!("-i"), json!("3;reboot"), json!("a b"), json!(null), json!("x".repeat(65))] {
            assert!(of(bad.clone()).is_err(), "{bad}");
        }
    }
}
