//! `node::reboot`: reboots the machine.
//!
//! Invariant: requested for one boot, done to that boot alone: a copy that comes after the reboot finds another one.

use super::program::{EarlierStart, ProgramFiles};
use super::waiter::ASK_INIT;
use super::{AgentVerb, Machine, ended, failed};
use crate::limits;
use crate::model::{AgentCommand, CommandStatus, FailureKind};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

pub(super) struct NodeRebootVerb;

#[async_trait::async_trait]
impl AgentVerb for NodeRebootVerb {
    fn name(&self) -> &'static str {
        "node::reboot"
    }

    fn at_most_every(&self) -> Option<Duration> {
        Some(limits::REBOOT_EVERY)
    }

    async fn perform(
        &self,
        machine: &Machine,
        command: &AgentCommand,
        progress: &(dyn Fn(Value) + Sync),
    ) -> CommandStatus {
        let before = command.args.get("carry").and_then(|carry| carry["boot"].as_str()).unwrap_or_default();
        if before.is_empty() {
            return failed(FailureKind::Invalid, "the command does not name the boot it is for");
        }
        if before != machine.boot {
            return ended(json!({ "changed": true, "before": before, "boot": machine.boot }));
        }
        let program = ProgramFiles::of(machine, &command.key());
        if matches!(program.earlier(), EarlierStart::Ended(_) | EarlierStart::Running) {
            return ended(json!({ "asked": true, "before": before }));
        }
        let Some((name, args)) = machine.settings.reboot.split_first() else {
            let why = "`reboot` in agent.yaml is empty: this agent does not reboot the node; write `[systemctl, reboot]`, or `[init]` in a container";
            return failed(FailureKind::Invalid, why);
        };
        let (name, args) = match (name.as_str(), args) {
            // The way of a container without `systemctl`.
            ("init", []) => (machine.own.as_path(), &[ASK_INIT.to_owned(), "1".to_owned()][..]),
            (name, args) => (Path::new(name), args),
        };
        progress(json!({ "doing": format!("running {} to reboot", machine.name) }));
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        match program.run(name, &args, limits::REBOOT_WITHIN).await {
            Ok(how) if how.code == 0 => ended(json!({ "asked": true, "before": before })),
            Ok(how) => failed(
                FailureKind::Unavailable,
                format!("{} ended with code {}: {}", machine.settings.reboot[0], how.code, how.said),
            ),
            Err(why) => failed(FailureKind::Timeout, why),
        }
    }
}
