//! `nightshift tokens`: who has a token that was made here; make one, revoke one.
//!
//! Invariant: a token is printed once, on stdout, alone on its line, and kept nowhere.

use super::client::Client;
use super::invocation::{Invocation, Paint};
use super::page;
use super::show::understood;
use super::stop::Stop;
use crate::model::ApiToken;
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
            let answer: Value =
                Client::new(invocation)?.post(&format!("tokens/{id}/revoke"), &json!({ "why": why }))?;
            if invocation.json() {
                return invocation.print_json(&answer);
            }
            let token: ApiToken = understood(answer["revoked"].clone())?;
            invocation.line(&format!("{} ({}) is revoked", token.id, page::text(&token.name)))?;
            let more: Vec<ApiToken> = understood(answer["made_by_it"].clone())?;
            more.iter().try_for_each(|token| {
                invocation.line(&format!("{} ({}), which it made, too", token.id, page::text(&token.name)))
            })
        }
    }
}

fn list(invocation: &Invocation) -> Result<(), Stop> {
    let answer: Value = Client::new(invocation)?.get("tokens", &[])?;
    if invocation.json() {
        return invocation.print_json(&answer);
    }
    let rows = answer["tokens"].as_array().cloned().unwrap_or_default();
    if rows.is_empty() {
        invocation.say(
            "none was made here yet: `nightshift tokens make NAME --role viewer --expires 30d`; those of the configuration stand in its file",
        );
        return Ok(());
    }
    let row = |said: &Value| -> Result<[String; 8], Stop> {
        let token: ApiToken = understood(said.clone())?;
        let (paint, state) = match said["state"].as_str().unwrap_or_default() {
            "good" => (Paint::Good, "good"),
            "expired" => (Paint::Odd, "expired"),
            _ => (Paint::Bad, "revoked"),
        };
        let places = match (&token.grant.clusters, token.sources.is_empty()) {
            (_, false) => token.sources.join(", "),
            (Some(clusters), _) => clusters.join(", "),
            (None, _) => "everywhere".to_owned(),
        };
        let whose = said["person"].as_str().filter(|person| *person != token.name);
        Ok([
            token.id.to_string(),
            page::text(&match whose {
                Some(person) => format!("{} ({person}'s)", token.name),
                None => token.name.clone(),
            }),
            token.grant.role.to_string(),
            page::text(&places),
            page::text(&token.made_by),
            invocation.when(token.expires_at),
            token.used_at.map_or_else(|| "never".to_owned(), |at| invocation.age(at)),
            invocation.paint(paint, state),
        ])
    };
    let rows = rows.iter().map(row).collect::<Result<_, Stop>>()?;
    invocation.table(["TOKEN", "NAME", "ROLE", "WHERE", "MADE BY", "UNTIL", "USED", "STATE"], rows)
}

fn make(wanted: &Value, invocation: &Invocation) -> Result<(), Stop> {
    let made: Value = Client::new(invocation)?.post("tokens", wanted)?;
    if invocation.json() {
        return invocation.print_json(&made);
    }
    let token: ApiToken = understood(made["made"].clone())?;
    let whose = match made["person"].as_str() {
        Some(person) => format!("for {}", page::text(person)),
        None => "not linked to an entry in `people`, so it counts as a separate person".to_owned(),
    };
    invocation.line(made["token"].as_str().unwrap_or_default())?;
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
