//! The identity provider: that its tokens can be checked, and that it sends users back to us.
//!
//! Invariant: a code or a token of the provider never travels in the clear over a network.

use super::ConfigFindings;
use super::words::{check_safe_url, check_scope, check_secret};
use crate::config::{Config, Role};
use url::Url;

pub(super) fn check(config: &Config, found: &mut ConfigFindings) {
    let Some(oidc) = &config.server.oidc else { return };
    check_safe_url("server.oidc.issuer", &oidc.issuer, found);
    if Url::parse(&oidc.issuer).is_ok_and(|url| url.query().is_some() || url.fragment().is_some()) {
        found.say("server.oidc.issuer", "has a query or fragment", "copy `issuer` from the provider's discovery page");
    }
    check_secret("server.oidc.client_secret", oidc.client_secret.as_ref(), found);
    if oidc.client_id.trim().is_empty() {
        found.say("server.oidc.client_id", "is empty", "register an application with the provider and copy its id");
    }
    if !oidc.scopes.iter().any(|scope| scope == "openid") {
        found.say("server.oidc.scopes", "has no `openid`", "without that scope there is no identity: add it");
    }
    for (group, role) in &oidc.roles {
        if *role == Role::Source {
            found.say(&format!("server.oidc.roles.{group}"), "`source` is for machines", "give a role for users");
        }
    }
    for (group, clusters) in &oidc.group_clusters {
        let path = format!("server.oidc.group_clusters.{group}");
        if !oidc.roles.contains_key(group) {
            found.say(&path, "has no role under `server.oidc.roles`", "give the group a role there");
        }
        check_scope(&path, Some(clusters), config, found);
    }
    match &config.server.public_url {
        None => found.say(
            "server.public_url",
            "is missing, and the provider redirects users to it",
            "write `https://…` and register `https://…/login/callback` with the provider",
        ),
        Some(url) => {
            // A name under `localhost` is the browser's own machine.
            let own = Url::parse(url).is_ok_and(|url| url.host_str().is_some_and(|host| host.ends_with(".localhost")));
            if !own {
                check_safe_url("server.public_url", url, found);
            }
            if Url::parse(url).is_ok_and(|url| url.path() != "/" || url.query().is_some()) {
                found.say(
                    "server.public_url",
                    "has a path",
                    "the pages stand at the root: give them a host of their own",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        Config::parse("x", text).unwrap().check().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn a_provider_is_reached_by_tls_and_sends_people_back() {
        let with = |public: &str, rest: &str| {
            paths(&format!("server:\n  public_url: '{public}'\n  oidc: {{ client_id: ns, {rest} }}\n"))
        };
        let good = "issuer: 'https://login.example/realms/main', client_secret: { env: S }, roles: { sre: approver }";
        assert_eq!(with("https://ns.example", good), Vec::<String>::new());
        assert_eq!(with("http://127.0.0.1:7676", "issuer: 'http://localhost:9/'"), Vec::<String>::new());
        assert_eq!(with("http://nightshift.localhost:7676", good), Vec::<String>::new());
        assert_eq!(with("http://ns.example", good), ["server.public_url"]);
        let groups = "issuer: 'https://l.example', roles: { sre: viewer }, group_clusters: { sre: [eu-9], ops: [] }";
        let path = |group: &str| format!("server.oidc.group_clusters.{group}");
        assert_eq!(with("https://ns.example", groups), [path("ops"), path("ops"), path("sre")]);
        assert_eq!(with("https://ns.example/night", good), ["server.public_url"]);
        assert_eq!(with("https://ns.example", "issuer: 'http://login.example'"), ["server.oidc.issuer"]);
        assert_eq!(with("https://ns.example", "issuer: 'https://l.example?x=1'"), ["server.oidc.issuer"]);
        let scopes = "issuer: 'https://l.example', scopes: [email], roles: { x: source }";
        assert_eq!(with("https://ns.example", scopes), ["server.oidc.scopes", "server.oidc.roles.x"]);
        assert_eq!(
            paths("server: { oidc: { client_id: '', issuer: 'https://l.example' } }"),
            ["server.oidc.client_id", "server.public_url"]
        );
    }
}
