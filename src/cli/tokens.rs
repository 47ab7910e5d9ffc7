//! `nightshift tokens`: who has a token that was made here; make one, revoke one.
//!
//! Invariant: a token is printed once, on stdout, alone on its line, and kept nowhere.

use super::client::Client;
use super::invocation::{Invocation, Paint};
use super::page;
use super::stop::Stop;
use crate::api::{ReasonRequest, TokenList, TokenMade, TokenState, TokenStatus, TokensRevoked};
use serde_json::{Value, json};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Subcommand)]
enum What {
    /// List tokens (default of `nightshift tokens`)
    List,
    /// Create a token; it is shown once
    Make {
        /// Owner: a user's name, one of their `tokens:`, or the name of a machine
        name: String,
        /// viewer, responder, approver, author, operator, admin, auditor, source or metrics
        #[arg(long)]
        role: String,
        /// Lifetime: 12h, 30d, 366d at most
        #[arg(long, value_name = "TIME")]
        expires: String,
        /// Restrict it to these clusters [default: all]
        #[arg(long, value_name = "NAMES", value_delimiter = ',')]
        clusters: Option<Vec<String>>,
        /// For role source: the sources it may post to
        #[arg(long, value_name = "NAMES", value_delimiter = ',')]
        sources: Vec<String>,
    },
    /// Revoke a token, from the next request on
    Revoke {
        /// ID of the token, such as t3
        id: String,
        /// Reason; recorded in the ledger
        #[arg(short, long, visible_alias = "reason", default_value = "")]
        why: String,
    },
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    match &args.what {
        None | Some(What::List) => list(invocation),
        Some(What::Make { name, role, expires, clusters, sources }) => {
            let wanted =
                json!({ "name": name, "role": role, "expires": expires, "clusters": clusters, "sources": sources });
            make(&wanted, invocation)
        }
        Some(What::Revoke { id, why }) => {
            let wish = ReasonRequest { why: why.clone() };
            let answer = Client::new(invocation)?.post::<TokensRevoked>(&format!("tokens/{id}/revoke"), &wish)?;
            if invocation.json() {
                return invocation.print_json(&answer.raw);
            }
            let TokensRevoked { revoked, made_by_it } = answer.read()?;
            if let Some(token) = revoked {
                invocation.line(&format!("{} ({}) is revoked", token.id, page::text(&token.name)))?;
            }
            made_by_it.iter().try_for_each(|token| {
                invocation.line(&format!("{} ({}), which it made, too", token.id, page::text(&token.name)))
            })
        }
    }
}

fn list(invocation: &Invocation) -> Result<(), Stop> {
    let answer = Client::new(invocation)?.get::<TokenList>("tokens", &())?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let tokens = answer.read()?.tokens;
    if tokens.is_empty() {
        invocation.say(
            "none was made here yet: `nightshift tokens make NAME --role viewer --expires 30d`; those of the configuration stand in its file",
        );
        return Ok(());
    }
    let row = |status: &TokenStatus| {
        let token = &status.token;
        let (paint, state) = match status.state {
            TokenState::Good => (Paint::Good, "good"),
            TokenState::Expired => (Paint::Odd, "expired"),
            TokenState::Revoked => (Paint::Bad, "revoked"),
        };
        let places = match (&token.grant.clusters, token.sources.is_empty()) {
            (_, false) => token.sources.join(", "),
            (Some(clusters), _) => clusters.join(", "),
            (None, _) => "everywhere".to_owned(),
        };
        [
            token.id.to_string(),
            page::text(&match status.person.as_ref().filter(|person| **person != token.name) {
                Some(person) => format!("{} ({person}'s)", token.name),
                None => token.name.clone(),
            }),
            token.grant.role.to_string(),
            page::text(&places),
            page::text(&token.made_by),
            invocation.when(token.expires_at),
            token.used_at.map_or_else(|| "never".to_owned(), |at| invocation.age(at)),
            invocation.paint(paint, state),
        ]
    };
    let head = ["TOKEN", "NAME", "ROLE", "WHERE", "MADE BY", "UNTIL", "USED", "STATE"];
    invocation.table(head, tokens.iter().map(row).collect())
}

fn make(wanted: &Value, invocation: &Invocation) -> Result<(), Stop> {
    let answer = Client::new(invocation)?.post::<TokenMade>("tokens", wanted)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let TokenMade { token: text, made: token, person } = answer.read()?;
    let whose = match &person {
        Some(person) => format!("for {}", page::text(person)),
        None => "not linked to an entry in `people`, so it counts as a separate person".to_owned(),
    };
    invocation.line(&text)?;
    invocation.say(&format!(
        "{} `{}`: {}, {whose}, until {}. It is shown only once: keep it in a file of mode 0600.",
        token.id,
        page::text(&token.name),
        token.grant.role,
        invocation.when(token.expires_at)
    ));
    invocation.say(&format!(
        "use it with NIGHTSHIFT_TOKEN or --token-file; take it away with `nightshift tokens revoke {}`",
        token.id
    ));
    Ok(())
}
