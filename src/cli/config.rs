//! `nightshift config`: checks the configuration and prints it.
//!
//! Invariant: secrets are printed as references, never read.

use super::invocation::Invocation;
use super::stop::CliError;

#[derive(clap::Args)]
pub(super) struct ConfigArgs {
    /// Print it as YAML with every default filled in and marked `# default`; parses back to the same
    #[arg(long)]
    effective: bool,
}

pub(super) fn run(args: &ConfigArgs, invocation: &Invocation) -> Result<(), CliError> {
    let (config, found) = invocation.config()?;
    invocation.say(&format!("{found}: good"));
    if invocation.json() {
        return invocation.print_json(&config);
    }
    if args.effective {
        // It was read a moment ago; one that is gone again marks everything.
        let file = found.path().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let text = config.effective_marked(&file).map_err(|why| CliError::failure(why, ""))?;
        return invocation.print(&text);
    }
    invocation
        .say("--effective prints it with every default filled in and marked; each setting is in docs/configuration.md");
    Ok(())
}
