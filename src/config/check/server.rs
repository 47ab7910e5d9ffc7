//! The server: where it listens, and the tokens that open it.
//!
//! Invariant: a token has its own name, its own secret and one meaning.

use super::ConfigFindings;
use super::words::{check_name, check_scope, check_secret, check_url};
use crate::config::{self, Config, Role, SecretSource, TokenConfig};
use std::collections::BTreeMap;

pub(super) fn check_server(config: &Config, found: &mut ConfigFindings) {
    let server = &config.server;
    if !server.listen.ip().is_loopback() && !server.behind_tls {
        found.say(
            "server.listen",
            format!("{} can be reached from other machines, and this server speaks plain HTTP", server.listen),
            "listen on 127.0.0.1:7676, or put a TLS proxy before it and write `behind_tls: true`",
        );
    }
    if let Some(url) = &server.public_url {
        check_url("server.public_url", url, found);
    }
}

pub(super) fn check_tokens(config: &Config, found: &mut ConfigFindings) {
    let mut names: BTreeMap<&str, &TokenConfig> = BTreeMap::new();
    let mut places: Vec<&SecretSource> = Vec::new();
    for (at, token) in config.server.tokens.iter().enumerate() {
        let path = format!("server.tokens[{at}]");
        check_name(&format!("{path}.name"), &token.name, found);
        if token.name == "local" {
            found.say(
                &format!("{path}.name"),
                "`local` is the name of this machine's own token",
                "choose another name",
            );
        }
        // Two secrets for one name are how a token is rotated; two meanings for one name are a mistake.
        if let Some(other) = names.insert(&token.name, token)
            && (other.role, &other.sources, &other.clusters) != (token.role, &token.sources, &token.clusters)
        {
            found.say(
                &format!("{path}.name"),
                format!("`{}` is there twice with different rights", token.name),
                "the name identifies the actor in the ledger: choose another one, or give both the same role, sources and clusters",
            );
        }
        check_secret(&format!("{path}.secret"), Some(&token.secret), found);
        check_scope(&format!("{path}.clusters"), token.clusters.as_deref(), config, found);
        if places.contains(&&token.secret) {
            found.say(
                &format!("{path}.secret"),
                format!("{} is used by another token too", token.secret),
                "give each token its own secret, so that the ledger can distinguish them",
            );
        }
        places.push(&token.secret);
        if token.role == Role::Source && token.clusters.is_some() {
            let mend = "leave `clusters` out; the source's `add_labels` sets its cluster";
            found.say(&format!("{path}.clusters"), "a token with role source takes no action", mend);
        }
        match (token.role, token.sources.is_empty()) {
            (Role::Source, true) => {
                found.say(
                    &format!("{path}.sources"),
                    "a token with role source must list the sources it may post to",
                    "list its sources: `sources: [prod]`",
                );
            }
            (Role::Source, false) => {
                for source in token.sources.iter().filter(|name| !config.sources.contains_key(*name)) {
                    let near = config::closest(source, config.sources.keys().map(String::as_str));
                    let mend = match near {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!(
                            "add it under `sources:`, as in `sources: {{ {source}: {{ kind: alertmanager }} }}`"
                        ),
                    };
                    found.say(&format!("{path}.sources"), format!("there is no source `{source}`"), mend);
                }
            }
            (_, false) => found.say(
                &format!("{path}.sources"),
                "only a token of role source has sources",
                "remove the key, or make it `role: source`",
            ),
            (_, true) => {}
        }
    }
}
