//! The caller, for the length of one request: by a token (bearer, or as the password of basic authentication), or by a
//! signature or a session.
//!
//! Invariant: a `Caller` exists only for credentials of this very request; nothing is cached.

pub(in crate::server) mod made;
mod tokens;

pub(super) use tokens::digest;
pub use tokens::{ConfiguredTokens, GivenToken, LOCAL, local_token};

use super::{App, Problem, seats};
use crate::config::{PersonConfig, SourceConfig};
use crate::model::{EventSender, IncidentId, Right, Role, RoleGrant, Subject, Time, TokenId, identity, local_user};
use crate::planted::planted;
use axum::extract::FromRequestParts;
use axum::http::request::Parts as RequestParts;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use std::fmt;

/// The user at the command line, by its own claim: `root (uid 0)`.
pub const USER_HEADER: &str = "x-nightshift-user";

/// The caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user's name where the credential's owner is known; it stands in the ledger.
    pub name: String,
    /// The rights of the credential.
    pub grant: RoleGrant,
    /// The rights of the user: no credential gives more.
    pub person: Option<RoleGrant>,
    /// For role `source`: where it may post.
    pub sources: Vec<String>,
    pub way: AuthMethod,
    /// When the token ends that they came with, where it was made here.
    pub until: Option<Time>,
    /// Who is behind that token in the end.
    pub behind: Option<String>,
}

/// The auth method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthMethod {
    /// This machine's own token: its holder may read its file.
    Local,
    /// A token of the configuration, by its name.
    Token(String),
    /// A token that was made here.
    Made(TokenId),
    /// The token of break-glass access, and its incident.
    BreakGlass(TokenId, IncidentId),
    Slack,
    PagerDuty,
    /// By an identity provider, as this subject of this issuer: who it is, whatever they are called here.
    Oidc {
        issuer: String,
        subject: String,
    },
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuthMethod::Local => f.write_str("the token of this machine"),
            AuthMethod::Token(name) => write!(f, "token {name}"),
            AuthMethod::Made(id) | AuthMethod::BreakGlass(id, _) => write!(f, "token {id}"),
            AuthMethod::Slack => f.write_str("Slack"),
            AuthMethod::PagerDuty => f.write_str("PagerDuty"),
            AuthMethod::Oidc { subject, .. } => write!(f, "OpenID Connect, subject {}", subject.escape_debug()),
        }
    }
}

impl Caller {
    /// A user that an outside service has identified.
    pub fn of(person: &PersonConfig, way: AuthMethod) -> Caller {
        Caller::with(&person.name, person.grant(), way)
    }

    /// A caller with that name and those rights, by that auth method.
    pub fn with(name: &str, grant: RoleGrant, way: AuthMethod) -> Caller {
        Caller { name: name.to_owned(), grant, person: None, sources: Vec::new(), way, until: None, behind: None }
    }

    /// The rights of the credential, and of the user.
    fn grants(&self) -> impl Iterator<Item = &RoleGrant> {
        std::iter::once(&self.grant).chain(self.person.iter().filter(|_| !planted("token-outranks-its-person")))
    }

    /// With this machine's own token: the user that the command line names, for the ledger and for users. It gives no
    /// right and makes no second user: `identity` takes it off again.
    fn named_by(mut self, headers: &HeaderMap) -> Caller {
        let said = headers.get(USER_HEADER).and_then(|value| value.to_str().ok());
        if let (AuthMethod::Local, Some(name)) = (&self.way, said.and_then(local_user))
            && self.name == LOCAL
        {
            self.name = name;
        }
        self
    }

    /// The identity behind the caller's own requests.
    pub fn root(&self) -> &str {
        identity(self.behind.as_deref().filter(|_| self.person.is_none()).unwrap_or(&self.name))
    }

    /// As the sender of events: every role but `source` is a user's.
    pub fn as_poster(&self) -> EventSender {
        EventSender {
            by: self.name.clone(),
            with: self.way.to_string(),
            person: !matches!(self.grant.role, Role::Source | Role::Metrics),
        }
    }

    /// Whether the caller has the right, by the credential and as a user.
    pub fn may(&self, right: Right) -> bool {
        self.grants().all(|grant| grant.role.may(right))
    }

    /// Whether everything that this grant gives is theirs to give.
    pub fn covers(&self, given: &RoleGrant) -> bool {
        self.grants().all(|grant| given.within(grant))
    }

    /// Requires the right.
    ///
    /// # Errors
    ///
    /// Fails with 403 when the credential or the user lacks it.
    pub fn need(&self, right: Right) -> Result<(), Problem> {
        let Some(lacking) = self.grants().find(|grant| !grant.role.may(right)) else { return Ok(()) };
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!("`{}` has role {}, this needs the right to {}", self.name, lacking.role, right.words()),
            format!(
                "roles that have it: {}; roles are given under `people` and `server.tokens` in nightshift.yaml",
                right.holders()
            ),
        ))
    }

    /// Requires that the caller may act in that cluster; an unknown one counts as any.
    ///
    /// # Errors
    ///
    /// Fails with 403 when the credential or the user is limited to other clusters.
    pub fn need_cluster(&self, cluster: Option<&str>) -> Result<(), Problem> {
        let Some(lacking) = self.grants().find(|grant| !grant.holds_in(cluster)) else { return Ok(()) };
        let clusters = lacking.clusters.as_deref().unwrap_or_default().join(", ");
        let there = match cluster {
            Some(cluster) => format!("this is in {}", cluster.escape_debug()),
            None => "its cluster is unknown".to_owned(),
        };
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!("`{}` may act only in {clusters}, and {there}", self.name),
            "ask a user with rights there; they are set by `clusters` under `people` and `server.tokens`",
        ))
    }

    /// Requires that the caller may act on this subject.
    ///
    /// # Errors
    ///
    /// Fails with 403 as [`Caller::need_cluster`] does, for the subject's cluster.
    pub fn need_subject(&self, app: &App, subject: &Subject) -> Result<(), Problem> {
        self.need_cluster(app.cluster_of(subject))
    }

    /// Requires that the caller may act in every cluster.
    ///
    /// # Errors
    ///
    /// Fails with 403 when the credential or the user is limited to some clusters.
    pub fn need_everywhere(&self, what: &str) -> Result<(), Problem> {
        let Some(lacking) = self.grants().find(|grant| grant.clusters.is_some()) else { return Ok(()) };
        let clusters = lacking.clusters.as_deref().unwrap_or_default();
        let hint = match clusters.first() {
            Some(first) => {
                format!("name a cluster of yours, as in `cluster:{first}`, or ask a user without that limit")
            }
            None => "ask a user without that limit".to_owned(),
        };
        let clusters = clusters.join(", ");
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!("`{}` may act only in {clusters}, and {what} affects every cluster", self.name),
            hint,
        ))
    }

    /// Requires that the caller may post events to this source: their own one, or any with the right to; with a limit
    /// to clusters only one that is known to be about these alone.
    ///
    /// # Errors
    ///
    /// Fails with 403 when the caller may not post to it, or the source is about other clusters.
    pub fn need_source(&self, source: &str, configured: Option<&SourceConfig>) -> Result<(), Problem> {
        if self.may(Right::Post) || self.sources.iter().any(|name| name == source) {
            let Some(configured) = configured else { return Ok(()) };
            let about = configured.about();
            let holds =
                |grant: &RoleGrant| !about.is_empty() && about.iter().all(|cluster| grant.holds_in(Some(cluster)));
            let lacking = self.grants().find(|grant| grant.clusters.is_some() && !holds(grant));
            let Some(lacking) = lacking.filter(|_| !planted("cluster-limit-ignored-for-posts")) else { return Ok(()) };
            let clusters = lacking.clusters.as_deref().unwrap_or_default().join(", ");
            let about = if about.is_empty() { "every cluster".to_owned() } else { about.join(", ") };
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                format!("`{}` may act only in {clusters}, and source `{source}` is about {about}", self.name),
                format!(
                    "post to a source of one of these clusters, or set `sources.{source}.add_labels: {{ cluster: NAME }}` in \
                     nightshift.yaml"
                ),
            ));
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!("`{}` may not post events to source `{source}`", self.name),
            "list the source under the token's `sources:` in nightshift.yaml",
        ))
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut RequestParts, app: &App) -> Result<Caller, Problem> {
        // Put there by our own code alone, for callers that a signature has identified.
        if let Some(inside) = parts.extensions.get::<Caller>() {
            return Ok(inside.clone());
        }
        let found = match presented(&parts.headers) {
            Some(token) => match app.roster.now().caller(&token) {
                Some(caller) => Some(caller.named_by(&parts.headers)),
                None => made::caller(app, &token).await?,
            },
            None => None,
        };
        if found.is_some() {
            seats::proven(&parts.extensions);
        }
        found.ok_or_else(|| {
            app.parts.metrics.auth_failed();
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "no valid token came with the request",
                "send `Authorization: Bearer <token>`, or basic authentication with the token as password",
            )
        })
    }
}

/// The token in the `Authorization` header; one header only, so that no second one can be smuggled past a proxy.
fn presented(headers: &HeaderMap) -> Option<String> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let value = all.next()?.to_str().ok()?;
    if all.next().is_some() {
        return None;
    }
    let (scheme, rest) = value.split_once(' ')?;
    let token = if scheme.eq_ignore_ascii_case("bearer") {
        rest.trim().to_owned()
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
        String::from_utf8(decoded).ok()?.split_once(':')?.1.to_owned()
    } else {
        return None;
    };
    Some(token).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn bearer_and_basic_carry_the_same_token() {
        assert_eq!(presented(&headers("Bearer abc")), Some("abc".to_owned()));
        assert_eq!(presented(&headers("bearer abc")), Some("abc".to_owned()));
        // user:abc and a token that holds a colon
        assert_eq!(presented(&headers("Basic dXNlcjphYmM=")), Some("abc".to_owned()));
        assert_eq!(presented(&headers("Basic dXNlcjphOmI=")), Some("a:b".to_owned()));
        for wrong in ["abc", "Bearer ", "Basic !!!", "Basic dXNlcg==", "Digest abc", "Basic dXNlcjo="] {
            assert_eq!(presented(&headers(wrong)), None, "{wrong}");
        }
        let mut two = headers("Bearer abc");
        two.append(header::AUTHORIZATION, "Bearer def".parse().unwrap());
        assert_eq!(presented(&two), None);
    }

    fn caller(role: Role, clusters: Option<&[&str]>) -> Caller {
        let clusters = clusters.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        Caller::with("kim", RoleGrant { role, clusters }, AuthMethod::Token("kim".into()))
    }

    #[test]
    fn a_source_posts_only_where_it_is_listed_and_reads_nothing() {
        let source = Caller { sources: vec!["prod".into()], ..caller(Role::Source, None) };
        assert!(source.need_source("prod", None).is_ok());
        assert_eq!(source.need_source("lab", None).unwrap_err().status, StatusCode::FORBIDDEN);
        assert_eq!(source.need(Right::Read).unwrap_err().status, StatusCode::FORBIDDEN);
        assert!(caller(Role::Viewer, None).need_source("prod", None).is_err());
        assert!(caller(Role::Operator, None).need_source("prod", None).is_ok());
    }

    #[test]
    fn a_limit_to_clusters_holds_for_posts_by_every_role() {
        let about = |text: &str| serde_json::from_str::<SourceConfig>(text).unwrap();
        let open = about(r#"{"kind":"alertmanager"}"#);
        let eu = about(r#"{"kind":"alertmanager","add_labels":{"cluster":"eu-1"}}"#);
        let both = about(r#"{"kind":"alertmanager","clusters":["eu-1","us-1"]}"#);
        let operator = caller(Role::Operator, Some(&["eu-1"]));
        let machine = Caller { sources: vec!["p".into()], ..caller(Role::Source, Some(&["eu-1"])) };
        for limited in [&operator, &machine] {
            assert!(limited.need_source("p", Some(&eu)).is_ok());
            for wider in [&open, &both] {
                assert!(limited.need_source("p", Some(wider)).unwrap_err().error.contains("may act only in eu-1"));
            }
        }
        assert!(caller(Role::Operator, Some(&["us-1", "eu-1"])).need_source("p", Some(&both)).is_ok());
        assert!(caller(Role::Operator, None).need_source("p", Some(&open)).is_ok());
    }

    #[test]
    fn a_way_in_never_gives_more_than_the_person_has() {
        let strong = caller(Role::Admin, None);
        let held =
            Caller { person: Some(RoleGrant { role: Role::Responder, clusters: Some(vec!["eu-1".into()]) }), ..strong };
        assert!(held.may(Right::Respond) && !held.may(Right::Operate));
        assert!(held.need(Right::Approve).unwrap_err().error.contains("has role responder"));
        assert!(held.need_cluster(Some("eu-1")).is_ok());
        assert!(held.need_cluster(Some("us-1")).unwrap_err().error.contains("may act only in eu-1"));
        assert!(held.need_cluster(None).is_err(), "what is not known may be elsewhere");
        assert!(held.need_everywhere("a freeze of all").is_err());
        assert!(!held.covers(&RoleGrant::everywhere(Role::Viewer)));
        assert!(held.covers(&RoleGrant { role: Role::Viewer, clusters: Some(vec!["eu-1".into()]) }));
    }
}
