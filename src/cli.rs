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
  2    wrong usage, or an invalid configuration
  3    partly done, or only warnings with --strict
  4    not allowed: the token is missing, wrong, or its role lacks the right
  5    not found
  130  interrupted

Data goes to stdout, everything else to stderr. JSON has times in RFC 3339 (UTC) and stable keys.
Start with `make demo` in the source folder, `nightshift sim` without a fleet, or `nightshift doctor` on a real one.";

/// Receive alerts, run checked runbooks within guards, notify users, and keep a verifiable ledger.
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
    /// List the agents on GPU nodes; create a join token or remove an agent
    Agents(agents::Args),
    /// Check runbooks, rules and integrations without running anything
    Check(check::Args),
    /// Write a backup of the store and its keys to one file, also while the engine runs
    #[command(after_help = backup::EXAMPLES)]
    Backup(backup::Args),
    /// Replace the store with a backup; the engine must not be running
    Restore(backup::RestoreArgs),
    /// Show the steps a runbook would take now, from live read-only data
    Simulate(simulate::Args),
    /// Start a runbook by hand
    #[command(after_help = run::EXAMPLES)]
    Run(run::Args),
    /// Show the timeline of a run, an incident or an approval
    Show(show::Args),
    /// Explain why an action was taken or not taken
    Why(why::Args),
    /// Approve a pending request; without an ID, list the pending requests
    #[command(after_help = approve::EXAMPLES)]
    Approve(approve::Args),
    /// Deny a pending request
    Deny(approve::DenyArgs),
    /// List incidents: the open ones, or all
    #[command(after_help = incidents::EXAMPLES)]
    Incidents(incidents::Args),
    /// Acknowledge an incident
    Ack(incidents::AckArgs),
    /// Assign an incident to a user
    Assign(incidents::AssignArgs),
    /// Silence an incident's alerts in Alertmanager for a time
    #[command(after_help = incidents::SILENCE_EXAMPLES)]
    Silence(incidents::SilenceArgs),
    /// Close an incident's alerts when their source does not
    Resolve(incidents::ResolveArgs),
    /// List runs, unfinished ones first
    Runs(runs::Args),
    /// Cancel an unfinished run
    Cancel(runs::CancelArgs),
    /// Freeze automation at once: everywhere, in one cluster, or for one rule
    #[command(after_help = freeze::EXAMPLES)]
    Freeze(freeze::Args),
    /// Release a freeze
    Unfreeze(freeze::UnfreezeArgs),
    /// Show how each rule has performed and its current mode
    Scorecard(ladder::Args),
    /// Review a run: right or wrong
    Judge(ladder::JudgeArgs),
    /// Promote a rule to the next mode, based on its statistics
    Promote(ladder::PromoteArgs),
    /// Demote a rule to a lower mode, at once
    Demote(ladder::DemoteArgs),
    /// List guards with their levels, limits and holders; reset a breaker
    Guards(guards::Args),
    /// List, create and revoke tokens
    Tokens(tokens::Args),
    /// List web sessions; end sessions at once
    Sessions(sessions::Args),
    /// Activate break-glass access: admin rights for at most an hour; all channels are notified
    BreakGlass(break_glass::Args),
    /// Show the engine's status: counts, guards, freezes
    Status(status::Args),
    /// Read and verify the ledger; export, prove or redact entries
    Audit(audit::Args),
    /// List channels with their status; send a test message
    Channels(channels::Args),
    /// Show, warm and verify cached models on this machine
    Cache(cache::Args),
    /// Check everything this installation needs, and print a fix for each problem
    Doctor(doctor::Args),
    /// Print the Kubernetes roles this installation needs, from its enabled actions
    Rbac(rbac::Args),
    /// Run a demo: a simulated fleet, a real Prometheus and Alertmanager, and a series of faults
    Demo(demo::Args),
    /// Serve a simulated fleet to try rules and runbooks; inject faults
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
