//! `nightshift completions SHELL`.
//!
//! Invariant: generated from the same definition that parses the arguments.

use super::invocation::Invocation;
use super::stop::CliError;

#[derive(clap::Args)]
pub(super) struct CompletionsArgs {
    /// Shell; to install: `nightshift completions bash > /etc/bash_completion.d/nightshift`
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(super) fn run<C: clap::CommandFactory>(args: &CompletionsArgs, invocation: &Invocation) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "nightshift", &mut script);
    invocation.print(&String::from_utf8_lossy(&script))
}
