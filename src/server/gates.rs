//! Every route of the server and who may come through it: the table of the API, and the doors that are not in it.
//!
//! Invariant: `docs/roles.md` is made from here, and a test compares it with the running server.

use super::api;
use crate::model::{Right, Role};

/// The authentication of a route that is not part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutePolicy {
    /// No authentication: the answer is public.
    Anybody,
    /// A token whose role has this right.
    Role(Right),
    /// A token of that very source, or the right to post to every source.
    Source,
    /// This machine's own token alone.
    Local,
    /// An agent's certificate or ServiceAccount token.
    Agent,
    /// Where users sign in: nothing is shown but the way in.
    SignIn,
    /// The rights of a session: by a provider or a token.
    Session(&'static str),
    /// A signature of that service, and the rights that it gives.
    Signed(&'static str, &'static str),
}

const SLACK: RoutePolicy = RoutePolicy::Signed("Slack", "with the rights of the linked user");

const PAGE: RoutePolicy = RoutePolicy::Session("the same data as the API for that user");
const FORM: RoutePolicy = RoutePolicy::Session("the same actions as the API for that user");

const DOORS: &[(&str, &str, RoutePolicy)] = &[
    ("get", "/healthz", RoutePolicy::Anybody),
    ("get", "/readyz", RoutePolicy::Anybody),
    ("get", "/metrics", RoutePolicy::Role(Right::Measure)),
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
    ("get", "/login", RoutePolicy::SignIn),
    ("post", "/login", RoutePolicy::SignIn),
    ("get", "/login/provider", RoutePolicy::SignIn),
    ("get", "/login/callback", RoutePolicy::SignIn),
    ("get", "/login/provider/end", RoutePolicy::SignIn),
    ("get", "/web/style.css", RoutePolicy::Anybody),
    ("get", "/web/live.js", RoutePolicy::Anybody),
    ("get", "/web/icon.svg", RoutePolicy::Anybody),
    ("post", api::BREAK_GLASS, RoutePolicy::Local),
    ("post", "/in/{kind}/{source}", RoutePolicy::Source),
    ("put", "/in/{kind}/{source}", RoutePolicy::Source),
    ("options", "/in/{kind}/{source}", RoutePolicy::Source),
    ("post", "/in/alertmanager/{source}/api/v2/alerts", RoutePolicy::Source),
    ("post", "/agent/v1/reports", RoutePolicy::Agent),
    ("post", "/agent/v1/poll", RoutePolicy::Agent),
    ("post", "/agent/v1/answers", RoutePolicy::Agent),
    ("post", "/agent/v1/renew", RoutePolicy::Agent),
    ("post", "/slack/command", SLACK),
    ("post", "/slack/interact", SLACK),
    ("post", "/slack/events", SLACK),
    (
        "post",
        "/pagerduty/webhook",
        RoutePolicy::Signed("PagerDuty", "acknowledges with the rights of the linked user, and records"),
    ),
];

/// Method, path and gate of every route that there is.
pub fn gates() -> Vec<(&'static str, &'static str, RoutePolicy)> {
    let api = api::rights().iter().map(|(method, path, right)| (*method, *path, RoutePolicy::Role(*right)));
    api.chain(DOORS.iter().copied()).collect()
}

const HEAD: &str = "\
# Roles

Generated from `crates/core/src/model/role.rs` and `src/server/gates.rs`; a test checks every line against the server. `docs/access.md` has the answer
to each role at each route by cluster.

A role has the rights of its row and no others. It is given to a person under `people`, or to a token under `server.tokens`
or by `nightshift tokens make`. A person has the same rights with every auth method (Slack, PagerDuty, tokens, the web): no method
gives more rights, and the requester of a run, or the sender of the alert that started it, cannot approve it through another one.
This machine's own token and break-glass access do not count as an approver where several are required, unless `people` names
the owner of `local`. `clusters` limits a person or a token to these clusters: they read everything, act only there, and post
only to sources limited to these clusters (`add_labels.cluster`, or `clusters` of the source). Denied requests are in the
ledger.
Users, groups, tokens and the secrets of these endpoints are reloaded within a second when their file changes. `role: none`
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
    for &right in Right::ALL {
        page += &format!("| {} | {} |\n", right.words(), marks(right));
    }
    page += &format!("\n## The HTTP API\n\n| route | {} |\n{}", names.join(" | "), rule(names.len() + 1));
    let (mut api, mut doors) = (String::new(), String::new());
    for (method, path, gate) in gates() {
        let route = format!("`{} {path}`", method.to_uppercase());
        match gate {
            RoutePolicy::Role(right) => api += &format!("| {route} | {} |\n", marks(right)),
            other => doors += &format!("| {route} | {} |\n", words(other)),
        }
    }
    page + &api + "\n## Other endpoints\n\n| route | authentication |\n|---|---|\n" + &doors
}

pub(super) fn words(gate: RoutePolicy) -> String {
    match gate {
        RoutePolicy::Anybody => "no authentication; public".to_owned(),
        RoutePolicy::SignIn => {
            "no authentication; the sign-in page without data, forms only from our own pages".to_owned()
        }
        RoutePolicy::Session(may) => format!("a session of the pages; {may}"),
        RoutePolicy::Role(right) => format!("the right to {}", right.words()),
        RoutePolicy::Source => format!("a token of that source, or of role {}", Right::Post.holders()),
        RoutePolicy::Local => "this machine's own token only (`nightshift break-glass`)".to_owned(),
        RoutePolicy::Agent => "an agent's certificate or ServiceAccount token".to_owned(),
        RoutePolicy::Signed(service, may) => format!("a signature of {service}; {may}"),
    }
}
