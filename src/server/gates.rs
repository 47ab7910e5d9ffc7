//! Every route of the server and who may come through it: the table of the API, and the doors that are not in it.
//!
//! Invariant: `docs/roles.md` is made from here, and a test asks the running server whether it is true.

use super::api;
use crate::model::{Right, Role};

/// What opens a route that is not part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Nothing is asked: it says nothing that is not for everybody.
    Anybody,
    /// A token whose role has this right.
    Role(Right),
    /// A token of that very source, or the right to post to every source.
    Source,
    /// This machine's own token alone.
    Local,
    /// An agent's certificate or ServiceAccount token.
    Agent,
    /// Where people sign in: nothing is shown but the way in.
    SignIn,
    /// What somebody who has signed in may: by a provider or a token.
    Session(&'static str),
    /// A signature of that service, and what it then may.
    Signed(&'static str, &'static str),
}

const SLACK: Gate = Gate::Signed("Slack", "what it then may is what the person may");

const PAGE: Gate = Gate::Session("it shows what the API shows to them");
const FORM: Gate = Gate::Session("it does what the API does for them");

const DOORS: &[(&str, &str, Gate)] = &[
    ("get", "/healthz", Gate::Anybody),
    ("get", "/readyz", Gate::Anybody),
    ("get", "/metrics", Gate::Role(Right::Measure)),
    ("get", "/", PAGE),
    ("get", "/incidents", PAGE),
    ("get", "/incidents/{id}", PAGE),
    ("get", "/guards", PAGE),
    ("get", "/runs/{id}", PAGE),
    ("get", "/why/{subject}", PAGE),
    ("post", "/web/approvals/{id}", FORM),
    ("post", "/web/runs/{id}/judge", FORM),
    ("post", "/web/incidents/{id}/ack", FORM),
    ("post", "/web/freezes", FORM),
    ("post", "/web/unfreeze", FORM),
    ("post", "/logout", FORM),
    ("get", "/login", Gate::SignIn),
    ("post", "/login", Gate::SignIn),
    ("get", "/login/provider", Gate::SignIn),
    ("get", "/login/callback", Gate::SignIn),
    ("get", "/login/provider/end", Gate::SignIn),
    ("get", "/web/style.css", Gate::Anybody),
    ("get", "/web/live.js", Gate::Anybody),
    ("get", "/web/icon.svg", Gate::Anybody),
    ("post", api::BREAK_GLASS, Gate::Local),
    ("post", "/in/{kind}/{source}", Gate::Source),
    ("put", "/in/{kind}/{source}", Gate::Source),
    ("options", "/in/{kind}/{source}", Gate::Source),
    ("post", "/in/alertmanager/{source}/api/v2/alerts", Gate::Source),
    ("post", "/agent/v1/reports", Gate::Agent),
    ("post", "/agent/v1/poll", Gate::Agent),
    ("post", "/agent/v1/answers", Gate::Agent),
    ("post", "/agent/v1/renew", Gate::Agent),
    ("post", "/slack/command", SLACK),
    ("post", "/slack/interact", SLACK),
    ("post", "/slack/events", SLACK),
    ("post", "/pagerduty/webhook", Gate::Signed("PagerDuty", "it acknowledges what the person may, and notes")),
];

/// Method, path and gate of every route that there is.
pub fn gates() -> Vec<(&'static str, &'static str, Gate)> {
    let api = api::rights().iter().map(|(method, path, right)| (*method, *path, Gate::Role(*right)));
    api.chain(DOORS.iter().copied()).collect()
}

const HEAD: &str = "\
# Roles

Made from `crates/core/src/model/role.rs` and `src/server/gates.rs`; a test asks the server for every line of it. `docs/access.md` has the answer
to each role at each route by cluster.

A role has the rights of its row and no others. It is given to a person under `people`, or to a token under `server.tokens`
or by `nightshift tokens make`. A person is one, whatever they come by (Slack, PagerDuty, tokens, the web): no way in gives
more than the person has, and who asked for something, or posted the alert that started it, cannot approve it by another way.
This machine's own token and break-glass access count as no person where several must agree, unless `people` says whose `local`
is. `clusters` limits a person or a token to what is in these clusters: they read everything and act there alone, and post only
to sources that are about these clusters alone (`add_labels.cluster`, or `clusters` of the source). What a caller was refused is
in the ledger.
People, groups, tokens and the secrets of these doors are read again within a second when their file changes. `role: none`
blocks a person or a group by every auth method.

";

/// The page of roles and routes.
pub fn roles_page() -> String {
    let mut page = HEAD.to_owned();
    let names: Vec<&str> = Role::ALL.iter().map(|role| role.name()).collect();
    let rule = |columns: usize| format!("{}|\n", "|---".repeat(columns));
    page += &format!("| right to | {} |\n{}", names.join(" | "), rule(names.len() + 1));
    let marks = |right: Right| {
        let marks: Vec<&str> = Role::ALL.iter().map(|role| if role.may(right) { "yes" } else { "–" }).collect();
        marks.join(" | ")
    };
    for right in Right::ALL {
        page += &format!("| {} | {} |\n", right.words(), marks(right));
    }
    page += &format!("\n## The HTTP API\n\n| route | {} |\n{}", names.join(" | "), rule(names.len() + 1));
    let (mut api, mut doors) = (String::new(), String::new());
    for (method, path, gate) in gates() {
        let route = format!("`{} {path}`", method.to_uppercase());
        match gate {
            Gate::Role(right) => api += &format!("| {route} | {} |\n", marks(right)),
            other => doors += &format!("| {route} | {} |\n", words(other)),
        }
    }
    page + &api + "\n## The other doors\n\n| route | opened by |\n|---|---|\n" + &doors
}

pub(super) fn words(gate: Gate) -> String {
    match gate {
        Gate::Anybody => "nothing: it says nothing but what is for everybody".to_owned(),
        Gate::SignIn => "nothing: it shows the way in and no data; a form only from our own page".to_owned(),
        Gate::Session(may) => format!("a session of the pages; {may}"),
        Gate::Role(right) => format!("the right to {}", right.words()),
        Gate::Source => format!("a token of that source, or of role {}", Right::Post.holders()),
        Gate::Local => "this machine's own token alone (`nightshift break-glass`)".to_owned(),
        Gate::Agent => "an agent's certificate or ServiceAccount token".to_owned(),
        Gate::Signed(service, may) => format!("a signature of {service}; {may}"),
    }
}
