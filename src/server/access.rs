//! Which answer each role gets at each route, by how the clusters of its token lie to what the route acts on.
//!
//! Invariant: `docs/access.md` is made from here, and a test sends the request of each cell of it to a running engine.

use super::api;
use super::gates::{RoutePolicy, gates};
use crate::model::{Right, Role};

/// What a route acts on, as far as clusters go. Declared beside the right in the table of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ActsOn {
    /// It only reads, or what it acts on lies in no cluster.
    Nothing,
    /// One object, which lies in one cluster.
    Object,
    /// What the request names: of one cluster, or of all.
    Named,
    /// Something that is about every cluster.
    AllClusters,
    /// A token: the caller's own, or another one.
    Token,
    /// Events of one source.
    Source,
}

/// How the token of a request lies to what the request acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRelation {
    /// A token without `clusters`, and an object in any of them.
    Unlimited,
    /// A token with `clusters`, and an object in one of these.
    Own,
    /// A token with `clusters`, and an object in another one.
    Other,
    /// A token with `clusters`, and something about every cluster.
    Every,
    /// A token with `clusters` where clusters do not matter: the object lies in another one, or in none.
    Limited,
    /// A token acts on itself.
    Itself,
    /// A source that the token does not list.
    Unlisted,
}

/// The answer of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessAnswer {
    /// Done: 2xx, or for a form 303 to the page that shows it.
    Done,
    /// 403.
    Refused,
    /// 401: with such a token no session begins.
    Unknown,
    /// There is no such token: the configuration is refused.
    Impossible,
}

/// One request and the answer that it must get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessCell {
    pub method: &'static str,
    pub path: &'static str,
    /// By a session of the pages, begun with the role's token, rather than by the token itself.
    pub by_session: bool,
    pub relation: TokenRelation,
    pub role: Role,
    pub answer: AccessAnswer,
}

impl TokenRelation {
    const fn words(self) -> &'static str {
        match self {
            TokenRelation::Unlimited => "no limit",
            TokenRelation::Own => "limited, in its own cluster",
            TokenRelation::Other => "limited, in another cluster",
            TokenRelation::Every => "limited, about every cluster",
            TokenRelation::Limited => "limited (no cluster, or only read)",
            TokenRelation::Itself => "itself",
            TokenRelation::Unlisted => "a source that it does not list",
        }
    }
}

impl ActsOn {
    const fn relations(self) -> &'static [TokenRelation] {
        use TokenRelation::*;
        match self {
            ActsOn::Nothing => &[Unlimited, Limited],
            ActsOn::Object => &[Unlimited, Own, Other],
            ActsOn::Named => &[Unlimited, Own, Other, Every],
            ActsOn::AllClusters => &[Unlimited, Every],
            ActsOn::Token => &[Itself, Unlimited, Own, Other, Every],
            ActsOn::Source => &[Unlimited, Unlisted, Own, Other, Every],
        }
    }
}

/// What a gate's route acts on: for a form of the pages, what the route of the API acts on that it stands for.
fn acts_on(method: &str, path: &str, gate: RoutePolicy) -> ActsOn {
    match gate {
        RoutePolicy::Source => ActsOn::Source,
        RoutePolicy::Session(_) => api::acts_on(method, &api_path(path)),
        _ => api::acts_on(method, path),
    }
}

fn api_path(path: &str) -> String {
    path.replacen("/web/", "/api/v1/", 1)
}

/// The right that a route needs of a role; none where roles do not open it.
fn right(method: &str, path: &str, gate: RoutePolicy) -> Option<Right> {
    match gate {
        RoutePolicy::Role(right) => Some(right),
        RoutePolicy::Source => Some(Right::Post),
        RoutePolicy::Session(_) if path.starts_with("/web/") => Some(api::right_of(method, &api_path(path))),
        RoutePolicy::Session(_) => Some(Right::Read),
        RoutePolicy::Anybody
        | RoutePolicy::Local
        | RoutePolicy::Agent
        | RoutePolicy::SignIn
        | RoutePolicy::Signed(..) => None,
    }
}

fn answer(gate: RoutePolicy, acts_on: ActsOn, right: Right, relation: TokenRelation, role: Role) -> AccessAnswer {
    let limited = !matches!(relation, TokenRelation::Unlimited | TokenRelation::Itself | TokenRelation::Unlisted);
    if limited && role == Role::Source {
        return AccessAnswer::Impossible;
    }
    if matches!(gate, RoutePolicy::Session(_)) && !role.may(Right::Read) {
        return AccessAnswer::Unknown;
    }
    let may = match (acts_on, relation) {
        // Everyone may give up their own token; another one is an admin's.
        (ActsOn::Token, TokenRelation::Itself) => role.may(right),
        (ActsOn::Token, _) => role.may(Right::Administer),
        (ActsOn::Source, TokenRelation::Unlimited) => role.may(right) || role == Role::Source,
        _ => role.may(right),
    };
    match relation {
        _ if !may => AccessAnswer::Refused,
        TokenRelation::Other | TokenRelation::Every => AccessAnswer::Refused,
        _ => AccessAnswer::Done,
    }
}

/// Every cell: of each route that a role opens, for each relation that it can have, for each role.
pub fn cells() -> Vec<AccessCell> {
    let mut cells = Vec::new();
    for (method, path, gate) in gates() {
        let Some(right) = right(method, path, gate) else { continue };
        let acts_on = acts_on(method, path, gate);
        for relation in acts_on.relations() {
            for role in Role::ALL {
                let answer = answer(gate, acts_on, right, *relation, role);
                let by_session = matches!(gate, RoutePolicy::Session(_));
                cells.push(AccessCell { method, path, by_session, relation: *relation, role, answer });
            }
        }
    }
    cells
}

const HEAD: &str = "\
# Access by route, role and cluster

Made from the table of the API in `src/server/api.rs`, from `src/server/gates.rs` and `src/server/access.rs`. A test sends the request of each
cell to a running engine with two clusters, with a real object in each of them.

A token (or a person) without `clusters` has no limit. One with `clusters` is limited: it reads everything and acts in these
clusters alone. `2xx`: done. `303`: done by a form of the pages, which then shows the result. `403`: refused, with the reason
and what to do. `401`: no session begins with such a token. `·`: there is no such token, because `role: source` has no `clusters`.
What is about every cluster (`all`, `rule:NAME`, a source without a cluster, a token for every cluster) needs a caller without
a limit. `POST /api/v1/agents/{node}/remove` without `cluster` counts as that.
";

/// Whether a cell is one of a section of the page.
type CellFilter = fn(&AccessCell) -> bool;

/// The page of routes, roles and clusters.
pub fn access_page() -> String {
    let names: Vec<&str> = Role::ALL.iter().map(|role| role.name()).collect();
    let head = format!("| route | token | {} |\n{}|\n", names.join(" | "), "|---".repeat(names.len() + 2));
    let sections: [(&str, CellFilter); 3] = [
        ("The HTTP API", |cell| !cell.by_session && !cell.path.starts_with("/in/")),
        ("Posts of events", |cell| cell.path.starts_with("/in/")),
        ("The pages, in a session that was begun with the token", |cell| cell.by_session),
    ];
    let (mut page, cells) = (HEAD.to_owned(), cells());
    for (title, belongs) in sections {
        page += &format!("\n## {title}\n\n{head}");
        let of_section: Vec<&AccessCell> = cells.iter().filter(|cell| belongs(cell)).collect();
        for row in of_section.chunks(Role::ALL.len()) {
            let Some(first) = row.first() else { continue };
            let words: Vec<&str> = row.iter().map(|cell| shown(cell)).collect();
            let route = format!("`{} {}`", first.method.to_uppercase(), first.path);
            page += &format!("| {route} | {} | {} |\n", first.relation.words(), words.join(" | "));
        }
    }
    page += "\n## Routes that no role opens\n\nThe answer is the same with every token and without one, in whatever cluster.\n\n";
    for (method, path, gate) in gates().into_iter().filter(|(method, path, gate)| right(method, path, *gate).is_none())
    {
        page += &format!("- `{} {path}`: {}\n", method.to_uppercase(), super::gates::words(gate));
    }
    page
}

const fn shown(cell: &AccessCell) -> &'static str {
    match cell.answer {
        AccessAnswer::Done if cell.by_session && matches!(cell.method.as_bytes(), b"post") => "303",
        AccessAnswer::Done => "2xx",
        AccessAnswer::Refused => "403",
        AccessAnswer::Unknown => "401",
        AccessAnswer::Impossible => "·",
    }
}
