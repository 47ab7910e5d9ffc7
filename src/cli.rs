//! The command line: one subcommand a file. Data goes to stdout, everything else to stderr.
//!
//! Invariant: every way out is one of the exit codes of `Code`, and every failure names its fix.

mod agent;
mod agents;
mod approve;
mod audit;
mod backup;
mod break_glass;
mod cache;
mod channels;
mod check;
mod client;
mod completions;
mod config;
mod demo;
mod doctor;
mod freeze;
mod guards;
mod incidents;
mod invocation;
mod ladder;
mod page;
mod pages;
mod private;
mod rbac;
mod reasons;
mod run;
mod runs;
mod serve;
mod sessions;
mod show;
mod sim;
mod simulate;
mod status;
mod stop;
mod tokens;
mod why;

use clap::{Parser, Subcommand};
use invocation::{Global, Invocation};
use std::process::ExitCode;
use stop::Stop;

const CODES: &str = "\
Exit codes:
  0    ok
  1    failure
  2    wrong usage, or a configuration that cannot be used
  3    partly done, or only warnings where --strict was asked
  4    not allowed: the token is missing, wrong, or its role is too small
  5    there is no such thing
  130  interrupted

Data goes to stdout, everything else to stderr. JSON has times in RFC 3339 (UTC) and keys that stay.
Start with `make demo` in the source folder, `nightshift sim` without a fleet, or `nightshift doctor` on a real one.";

/// Takes the night shift: hears alerts, runs checked runbooks within guards, tells people, and can prove what it did.
#[derive(Parser)]
#[command(name = "nightshift", version, after_help = CODES, propagate_version = false, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the engine
    Serve(serve::Args),
    /// Run the agent on a GPU node
    Agent(agent::Args),
    /// The agents on GPU nodes; let one join, or take it away
    Agents(agents::Args),
    /// Check runbooks, rules and integrations without running anything
    Check(check::Args),
    /// Write a backup of the store and its keys to one file, also while the engine runs
    #[command(after_help = backup::EXAMPLES)]
    Backup(backup::Args),
    /// Put a backup in the place of the store; the engine must not run
    Restore(backup::RestoreArgs),
    /// Show what a runbook would do now, against the live, read-only world
    Simulate(simulate::Args),
    /// Start a runbook by hand
    #[command(after_help = run::EXAMPLES)]
    Run(run::Args),
    /// The story of a run, an incident or an approval
    Show(show::Args),
    /// Why something was done, or was not
    Why(why::Args),
    /// Approve a pending request; without an ID, list the pending requests
    #[command(after_help = approve::EXAMPLES)]
    Approve(approve::Args),
    /// Deny a pending request
    Deny(approve::DenyArgs),
    /// List incidents: the open ones, or all
    #[command(after_help = incidents::EXAMPLES)]
    Incidents(incidents::Args),
    /// Acknowledge an incident: somebody looks at it
    Ack(incidents::AckArgs),
    /// Give an incident to somebody
    Assign(incidents::AssignArgs),
    /// Silence the alerts of an incident at their Alertmanager, for a while
    #[command(after_help = incidents::SILENCE_EXAMPLES)]
    Silence(incidents::SilenceArgs),
    /// End the alerts that hold an incident open, where their source does not
    Resolve(incidents::ResolveArgs),
    /// Runs, the unfinished ones first
    Runs(runs::Args),
    /// End a run that is not over
    Cancel(runs::CancelArgs),
    /// Freeze automation at once: everywhere, in one cluster, or for one rule
    #[command(after_help = freeze::EXAMPLES)]
    Freeze(freeze::Args),
    /// Release a freeze
    Unfreeze(freeze::UnfreezeArgs),
    /// What rules have on record, and how far they go for it
    Scorecard(ladder::Args),
    /// Say whether what a run of a rule did, or would have done, was right
    Judge(ladder::JudgeArgs),
    /// Let a rule go one rung further, on what it has on record
    Promote(ladder::PromoteArgs),
    /// Let a rule go less far, at once
    Demote(ladder::DemoteArgs),
    /// Each guard: its level, its limit, who holds it; and the reset of a breaker
    Guards(guards::Args),
    /// Tokens that were made here: list, make, revoke
    Tokens(tokens::Args),
    /// List who is signed in on the pages; end sessions at once
    Sessions(sessions::Args),
    /// A way in for the hour in which nothing else opens; everybody is told
    BreakGlass(break_glass::Args),
    /// How the engine stands: counts, guards, freezes
    Status(status::Args),
    /// The ledger: verify, export, proof, key, log, redact
    Audit(audit::Args),
    /// List channels and how each stands; send a test message through one
    Channels(channels::Args),
    /// Models on this machine: in memory or not, read them in, check them
    Cache(cache::Args),
    /// Look at everything this installation needs and say what to mend
    Doctor(doctor::Args),
    /// The Kubernetes roles that this installation needs, from the actions that are on
    Rbac(rbac::Args),
    /// See it work: a simulated fleet, a real Prometheus and Alertmanager, faults one after another
    Demo(demo::Args),
    /// Serve a simulated fleet, to try rules and runbooks against; make faults in it
    Sim(sim::Args),
    /// Print the configuration
    Config(config::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the version of this program
    Version,
}

/// Parses the arguments, runs the command, and returns its exit code.
pub fn main() -> ExitCode {
    if let Some(code) = crate::node::is_meant(std::env::args_os().skip(1)) {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors and go to stdout; clap knows which is which.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { stop::Code::Usage } else { stop::Code::Ok } as u8);
        }
    };
    let invocation = Invocation::new(cli.global);
    match dispatch(cli.command, &invocation) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            stop.print(&invocation);
            ExitCode::from(stop.code as u8)
        }
    }
}

fn dispatch(command: Command, invocation: &Invocation) -> Result<(), Stop> {
    match command {
        Command::Serve(args) => serve::run(&args, invocation),
        Command::Agent(args) => agent::run(&args, invocation),
        Command::Agents(args) => agents::run(&args, invocation),
        Command::Check(args) => check::run(&args, invocation),
        Command::Simulate(args) => simulate::run(&args, invocation),
        Command::Run(args) => run::run(&args, invocation),
        Command::Show(args) => show::run(&args, invocation),
        Command::Why(args) => why::run(&args, invocation),
        Command::Approve(args) => approve::run(&args, invocation),
        Command::Deny(args) => approve::deny(&args, invocation),
        Command::Incidents(args) => incidents::run(&args, invocation),
        Command::Ack(args) => incidents::ack(&args, invocation),
        Command::Assign(args) => incidents::assign(&args, invocation),
        Command::Silence(args) => incidents::silence(&args, invocation),
        Command::Resolve(args) => incidents::resolve(&args, invocation),
        Command::Runs(args) => runs::run(&args, invocation),
        Command::Cancel(args) => runs::cancel(&args, invocation),
        Command::Freeze(args) => freeze::run(&args, invocation),
        Command::Unfreeze(args) => freeze::unfreeze(&args, invocation),
        Command::Guards(args) => guards::run(&args, invocation),
        Command::Tokens(args) => tokens::run(&args, invocation),
        Command::Sessions(args) => sessions::run(&args, invocation),
        Command::BreakGlass(args) => break_glass::run(&args, invocation),
        Command::Scorecard(args) => ladder::run(&args, invocation),
        Command::Judge(args) => ladder::judge(&args, invocation),
        Command::Promote(args) => ladder::promote(&args, invocation),
        Command::Demote(args) => ladder::demote(&args, invocation),
        Command::Status(args) => status::run(&args, invocation),
        Command::Backup(args) => backup::run(&args, invocation),
        Command::Restore(args) => backup::restore(&args, invocation),
        Command::Audit(args) => audit::run(&args, invocation),
        Command::Channels(args) => channels::run(&args, invocation),
        Command::Cache(args) => cache::run(&args, invocation),
        Command::Doctor(args) => doctor::run(&args, invocation),
        Command::Rbac(args) => rbac::run(&args, invocation),
        Command::Demo(args) => demo::run(args),
        Command::Sim(args) => sim::run(&args, invocation),
        Command::Config(args) => config::run(&args, invocation),
        Command::Completions(args) => completions::run::<Cli>(&args, invocation),
        Command::Version => version(invocation),
    }
}

fn version(invocation: &Invocation) -> Result<(), Stop> {
    let version = env!("CARGO_PKG_VERSION");
    if invocation.json() {
        return invocation.print_json(&serde_json::json!({ "version": version, "name": "nightshift" }));
    }
    invocation.line(&format!("nightshift {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_and_every_option_says_what_it_is() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }
}
