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
use invocation::{GlobalArgs, Invocation};
use std::process::ExitCode;
use stop::CliError;

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
    global: GlobalArgs,
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Run the engine
    Serve(serve::ServeArgs),
    /// Run the agent on a GPU node
    Agent(agent::AgentArgs),
    /// List the agents on GPU nodes; create a join token or remove an agent
    Agents(agents::AgentsArgs),
    /// Check runbooks, rules and integrations without running anything
    Check(check::CheckArgs),
    /// Write a backup of the store and its keys to one file, also while the engine runs
    #[command(after_help = backup::EXAMPLES)]
    Backup(backup::BackupArgs),
    /// Replace the store with a backup; the engine must not be running
    Restore(backup::RestoreArgs),
    /// Show the steps a runbook would take now, from live read-only data
    Simulate(simulate::SimulateArgs),
    /// Start a runbook by hand
    #[command(after_help = run::EXAMPLES)]
    Run(run::RunArgs),
    /// Show the timeline of a run, an incident or an approval
    Show(show::ShowArgs),
    /// Explain why an action was taken or not taken
    Why(why::WhyArgs),
    /// Approve a pending request; without an ID, list the pending requests
    #[command(after_help = approve::EXAMPLES)]
    Approve(approve::ApproveArgs),
    /// Deny a pending request
    Deny(approve::DenyArgs),
    /// List incidents: the open ones, or all
    #[command(after_help = incidents::EXAMPLES)]
    Incidents(incidents::IncidentsArgs),
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
    Runs(runs::RunsArgs),
    /// Cancel an unfinished run
    Cancel(runs::CancelArgs),
    /// Freeze automation at once: everywhere, in one cluster, or for one rule
    #[command(after_help = freeze::EXAMPLES)]
    Freeze(freeze::FreezeArgs),
    /// Release a freeze
    Unfreeze(freeze::UnfreezeArgs),
    /// Show how each rule has performed and its current mode
    Scorecard(ladder::ScorecardArgs),
    /// Review a run: right or wrong
    Judge(ladder::JudgeArgs),
    /// Promote a rule to the next mode, based on its statistics
    Promote(ladder::PromoteArgs),
    /// Demote a rule to a lower mode, at once
    Demote(ladder::DemoteArgs),
    /// List guards with their levels, limits and holders; reset a breaker
    Guards(guards::GuardsArgs),
    /// List, create and revoke tokens
    Tokens(tokens::TokensArgs),
    /// List web sessions; end sessions at once
    Sessions(sessions::SessionsArgs),
    /// Activate break-glass access: admin rights for at most an hour; all channels are notified
    BreakGlass(break_glass::BreakGlassArgs),
    /// Show the engine's status: counts, guards, freezes
    Status(status::StatusArgs),
    /// Read and verify the ledger; export, prove or redact entries
    Audit(audit::AuditArgs),
    /// List channels with their status; send a test message
    Channels(channels::ChannelsArgs),
    /// Show, warm and verify cached models on this machine
    Cache(cache::CacheArgs),
    /// Check everything this installation needs, and print a fix for each problem
    Doctor(doctor::DoctorArgs),
    /// Print the Kubernetes roles this installation needs, from its enabled actions
    Rbac(rbac::RbacArgs),
    /// Run a demo: a simulated fleet, a real Prometheus and Alertmanager, and a series of faults
    Demo(demo::DemoArgs),
    /// Serve a simulated fleet to try rules and runbooks; inject faults
    Sim(sim::SimArgs),
    /// Print the configuration
    Config(config::ConfigArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
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
            return ExitCode::from(
                if error.use_stderr() { stop::CliExitCode::Usage } else { stop::CliExitCode::Ok } as u8
            );
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

fn dispatch(command: CliCommand, invocation: &Invocation) -> Result<(), CliError> {
    match command {
        CliCommand::Serve(args) => serve::run(&args, invocation),
        CliCommand::Agent(args) => agent::run(&args, invocation),
        CliCommand::Agents(args) => agents::run(&args, invocation),
        CliCommand::Check(args) => check::run(&args, invocation),
        CliCommand::Simulate(args) => simulate::run(&args, invocation),
        CliCommand::Run(args) => run::run(&args, invocation),
        CliCommand::Show(args) => show::run(&args, invocation),
        CliCommand::Why(args) => why::run(&args, invocation),
        CliCommand::Approve(args) => approve::run(&args, invocation),
        CliCommand::Deny(args) => approve::deny(&args, invocation),
        CliCommand::Incidents(args) => incidents::run(&args, invocation),
        CliCommand::Ack(args) => incidents::ack(&args, invocation),
        CliCommand::Assign(args) => incidents::assign(&args, invocation),
        CliCommand::Silence(args) => incidents::silence(&args, invocation),
        CliCommand::Resolve(args) => incidents::resolve(&args, invocation),
        CliCommand::Runs(args) => runs::run(&args, invocation),
        CliCommand::Cancel(args) => runs::cancel(&args, invocation),
        CliCommand::Freeze(args) => freeze::run(&args, invocation),
        CliCommand::Unfreeze(args) => freeze::unfreeze(&args, invocation),
        CliCommand::Guards(args) => guards::run(&args, invocation),
        CliCommand::Tokens(args) => tokens::run(&args, invocation),
        CliCommand::Sessions(args) => sessions::run(&args, invocation),
        CliCommand::BreakGlass(args) => break_glass::run(&args, invocation),
        CliCommand::Scorecard(args) => ladder::run(&args, invocation),
        CliCommand::Judge(args) => ladder::judge(&args, invocation),
        CliCommand::Promote(args) => ladder::promote(&args, invocation),
        CliCommand::Demote(args) => ladder::demote(&args, invocation),
        CliCommand::Status(args) => status::run(&args, invocation),
        CliCommand::Backup(args) => backup::run(&args, invocation),
        CliCommand::Restore(args) => backup::restore(&args, invocation),
        CliCommand::Audit(args) => audit::run(&args, invocation),
        CliCommand::Channels(args) => channels::run(&args, invocation),
        CliCommand::Cache(args) => cache::run(&args, invocation),
        CliCommand::Doctor(args) => doctor::run(&args, invocation),
        CliCommand::Rbac(args) => rbac::run(&args, invocation),
        CliCommand::Demo(args) => demo::run(args),
        CliCommand::Sim(args) => sim::run(&args, invocation),
        CliCommand::Config(args) => config::run(&args, invocation),
        CliCommand::Completions(args) => completions::run::<Cli>(&args, invocation),
        CliCommand::Version => version(invocation),
    }
}

fn version(invocation: &Invocation) -> Result<(), CliError> {
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
