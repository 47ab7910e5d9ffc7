//! `nightshift break-glass`: access for the hour in which no other auth method works. Every channel is notified.
//!
//! Invariant: it needs the file of this machine's own token, a reason, and a running engine, which tells people first.

use super::client::Client;
use super::invocation::{Invocation, Paint};
use super::page;
use super::stop::Stop;
use crate::api::{BreakGlassMade, BreakGlassRequest};
use crate::model::ApiToken;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Reason; sent to all channels and recorded in the ledger
    #[arg(short, long, visible_alias = "why")]
    reason: String,
    /// Lifetime: 15m, 45m; an hour at most
    #[arg(long, value_name = "TIME", default_value = "1h")]
    expires: String,
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let wanted =
        BreakGlassRequest { reason: args.reason.clone(), expires: Some(args.expires.clone()), by: Some(who()) };
    let answer = Client::of_this_machine(invocation)?.post::<BreakGlassMade>("break-glass", &wanted)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let BreakGlassMade { token: text, made: token, told } = answer.read()?;
    invocation.line(&text)?;
    invocation.say(&format!(
        "{}: admin until {}, and every use of it is in the ledger. Take it away with `nightshift tokens revoke {}`.",
        token.id,
        invocation.when(token.expires_at),
        token.id
    ));
    match told.as_slice() {
        [] => invocation.warn(
            "no `channels` are configured, so no notification is sent: it is recorded in the ledger and shown by `nightshift status`",
        ),
        told => invocation.say(&format!("notifying: {}", page::text(&told.join(", ")))),
    }
    Ok(())
}

/// Who they are on this machine, as far as it says.
fn who() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let uid = rustix::process::getuid().as_raw();
    named.filter(|name| !name.is_empty()).map_or_else(|| format!("uid {uid}"), |name| format!("{name}, uid {uid}"))
}

/// Lines for `nightshift status`.
pub(super) fn broken(invocation: &Invocation, tokens: &[ApiToken]) -> Result<(), Stop> {
    for token in tokens {
        let why = token.break_glass.as_ref().map(|glass| page::text(&glass.why)).unwrap_or_default();
        let line = format!(
            "break-glass access {} is active until {}, by {}: {why}",
            token.id,
            invocation.when(token.expires_at),
            page::text(&token.made_by)
        );
        invocation.line(&invocation.paint(Paint::Bad, &line))?;
    }
    Ok(())
}
