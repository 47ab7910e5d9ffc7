//! `nightshift config`: checks the configuration and prints it.
//!
//! Invariant: secrets are printed as references, never read.

use super::invocation::Invocation;
use super::stop::Stop;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Print it as YAML with every default filled in; parses back to the same
    #[arg(long)]
    effective: bool,
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let (config, found) = invocation.config()?;
    invocation.say(&format!("{found}: good"));
    if invocation.json() {
        return invocation.print_json(&config);
    }
    if args.effective {
        let text = config.effective().map_err(|why| Stop::failure(why, ""))?;
        return invocation.print(&text);
    }
    invocation.say("--effective prints it with every default filled in");
    Ok(())
}
