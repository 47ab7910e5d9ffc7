//! `nightshift sessions`: who is signed in on the pages; end it, and unlink a person from an account.
//!
//! Invariant: the output holds no secret; the end of a session is in the ledger.

use super::client::Client;
use super::invocation::Invocation;
use super::page;
use super::stop::Stop;
use crate::api::{SessionList, SessionRequest, SessionSummary, SessionsEndedAnswer, SubjectsUnlinkedAnswer};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Subcommand)]
enum What {
    /// List web sessions (default of `nightshift sessions`)
    List,
    /// End all sessions of a user at once
    ///
    /// They can sign in again: to block them, give their entry or their group `role: none` in nightshift.yaml.
    End {
        /// A user, the mail of a sign-in, or a subject of the identity provider
        name: String,
        /// Reason; recorded in the ledger
        #[arg(short, long, visible_alias = "reason")]
        why: String,
    },
    /// Unlink a user from their account at the identity provider
    ///
    /// The first account that signs in with the mail of an entry is linked to it, and other accounts are refused. Use this
    /// when a user has a new account; the next account with that mail is linked.
    Unlink {
        /// The name of the entry under `people`
        name: String,
        /// Reason; recorded in the ledger
        #[arg(short, long, visible_alias = "reason")]
        why: String,
    },
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let client = || Client::new(invocation);
    match &args.what {
        None | Some(What::List) => list(invocation),
        Some(What::End { name, why }) => {
            let wish = SessionRequest { name: name.clone(), why: why.clone() };
            let answer = client()?.post::<SessionsEndedAnswer>("sessions/end", &wish)?;
            if invocation.json() {
                return invocation.print_json(&answer.raw);
            }
            invocation.line(&format!("{} sessions of {} ended", answer.read()?.ended, page::text(name)))?;
            invocation.say("they can sign in again: to block them, write `role: none` in their entry or their group");
            Ok(())
        }
        Some(What::Unlink { name, why }) => {
            let wish = SessionRequest { name: name.clone(), why: why.clone() };
            let answer = client()?.post::<SubjectsUnlinkedAnswer>("sessions/unlink", &wish)?;
            if invocation.json() {
                return invocation.print_json(&answer.raw);
            }
            let name = page::text(name);
            invocation
                .line(&format!("the next account that signs in with the mail of {name}'s entry is linked to {name}"))
        }
    }
}

fn list(invocation: &Invocation) -> Result<(), Stop> {
    let answer = Client::new(invocation)?.get::<SessionList>("sessions", &())?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let sessions = answer.read()?.sessions;
    if sessions.is_empty() {
        invocation.say("no one is signed in on the pages");
        return Ok(());
    }
    let row = |session: &SessionSummary| {
        [
            page::text(&session.name),
            page::text(&session.by),
            invocation.when(session.since),
            invocation.age(session.used),
        ]
    };
    invocation.table(["USER", "SIGNED IN BY", "SINCE", "LAST USED"], sessions.iter().map(row).collect())
}
