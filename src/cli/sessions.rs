//! `nightshift sessions`: who is signed in on the pages; end it, and unlink a person from an account.
//!
//! Invariant: what is shown holds no secret; what is ended is in the ledger.

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
    /// List who is signed in on the pages (what `nightshift sessions` shows)
    List,
    /// End all sessions of a person at once
    ///
    /// They can sign in again: to block them, give their entry or their group `role: none` in nightshift.yaml.
    End {
        /// A person, the mail of a sign-in, or a subject of the identity provider
        name: String,
        /// Why; it goes into the ledger
        #[arg(short, long, visible_alias = "reason")]
        why: String,
    },
    /// Let the next account with a person's mail be that person
    ///
    /// The first account that signs in by the mail of an entry stays that person, and other accounts are refused. Use this
    /// where a person has a new account at the identity provider.
    Unlink {
        /// The name of the entry under `people`
        name: String,
        /// Why; it goes into the ledger
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
            invocation.line(&format!("the next account that signs in with the mail of {name}'s entry is {name}"))
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
