//! HTTP: ingest, API, pages, health, metrics. Bounds before work, authentication before everything.
//!
//! Invariant: no route without a role or an agent's identity but `/healthz`, `/readyz`, requests that Slack and
//! PagerDuty have signed, the use of a join token and the page where users sign in; no body is decoded before its
//! sender is known.

mod access;
pub mod agents;
mod api;
mod auth;
mod body;
mod coalesce;
mod command;
mod gates;
mod health;
mod heard;
mod ingest;
mod listen;
mod metrics_page;
mod pagerduty;
mod problem;
mod rejected;
mod roster;
mod seats;
mod secret;
mod signed;
mod slack;
mod web;
mod witness;

pub use access::{Answer, Cell, Relation, access_page, cells};
pub use auth::{Caller, GivenToken, Tokens, USER_HEADER, Way, local_token};
pub use gates::{Gate, gates, roles_page};
pub use listen::{Pace, check_listen, serve};
pub use pagerduty::PagerDutyDoor;
pub use problem::Problem;
pub use roster::{Live, Roster, watch as watch_roster};
pub use slack::{Door, SlackDoor, listen_to_slack};
pub use web::{Provider, look_at_provider};

use crate::catalog::Loaded;
use crate::engine::Parts;
use crate::model::Subject;
use crate::store::{Intake, Origin};
use axum::Router;
use axum::routing::get;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The catalog in force; a function, so that a test needs no folders.
pub type Current = Arc<dyn Fn() -> Arc<Loaded> + Send + Sync>;

/// The state of every handler. Cheap to clone.
#[derive(Clone)]
pub struct App {
    pub parts: Parts,
    /// The principals and their rights.
    pub roster: Arc<Live>,
    pub current: Current,
    /// Where events of sources are stored.
    pub intake: Arc<dyn Intake>,
    pub pace: Pace,
    pub agents: Arc<agents::Door>,
    /// One permit for each byte of a body that is read, decoded or waits for its commit.
    pools: Arc<body::Pools>,
    /// Plans that are made for users at the same time.
    simulations: Arc<Semaphore>,
    repeats: Arc<coalesce::Repeats>,
    used: Arc<auth::made::Used>,
    witness: Arc<witness::Witness>,
    rejected: Arc<rejected::Rejected>,
    slack: Option<Arc<SlackDoor>>,
    pagerduty: Option<Arc<PagerDutyDoor>>,
    web: Arc<web::Front>,
}

impl App {
    /// The state of a server with these parts and tokens; everything else is empty or at its default.
    pub fn new(parts: Parts, tokens: Tokens) -> App {
        let catalog = Arc::clone(&parts.catalog);
        let roster = Roster::new(parts.config.people.clone(), tokens).with_groups(&parts.config.server);
        let front = web::Front::new(&parts.config.server, None);
        App {
            intake: parts.store.clone(),
            parts,
            roster: Arc::new(Live::new(roster)),
            current: Arc::new(move || catalog.current()),
            pace: Pace::default(),
            agents: Arc::default(),
            pools: Arc::default(),
            simulations: Arc::new(Semaphore::new(crate::limits::SIMULATIONS)),
            repeats: Arc::default(),
            used: Arc::default(),
            witness: Arc::default(),
            rejected: Arc::default(),
            slack: None,
            pagerduty: None,
            web: Arc::new(front),
        }
    }

    /// The cluster that something is in: the one it names, else the one that is meant where none is named.
    pub fn cluster_of<'a>(&'a self, subject: &'a Subject) -> Option<&'a str> {
        let home = Some(self.parts.world.default_cluster.as_str()).filter(|home| !home.is_empty());
        subject.cluster.as_deref().or(home)
    }

    /// The kind of the source of that name, as rules match it; empty where none is known.
    pub fn kind_of(&self, source: &str) -> &str {
        match self.parts.config.sources.get(source) {
            Some(found) => &found.kind,
            None if source == crate::sources::agent::SOURCE => Origin::AGENT,
            None => "",
        }
    }

    /// The same with a door for Slack.
    pub fn with_slack(self, door: Door) -> App {
        App { slack: Some(Arc::new(SlackDoor::new(door))), ..self }
    }

    /// The Socket Mode connection; none where it is not configured.
    fn slack_connection(&self) -> Option<crate::api::SlackConnection> {
        let wanted = self.parts.config.slack.as_ref().is_some_and(|slack| slack.app_token.is_some());
        self.slack.as_ref().filter(|_| wanted).map(|door| door.standing.connection())
    }

    /// The same with a door for PagerDuty's webhook.
    pub fn with_pagerduty(self, door: PagerDutyDoor) -> App {
        App { pagerduty: Some(Arc::new(door)), ..self }
    }

    /// The same with an identity provider that users sign in with.
    pub fn with_provider(self, provider: Provider) -> App {
        App { web: Arc::new(web::Front::new(&self.parts.config.server, Some(provider))), ..self }
    }

    /// The same with another source of rules and decoders.
    pub fn with_current(self, current: Current) -> App {
        App { current, ..self }
    }

    /// The same with another place where events of sources are stored.
    pub fn with_intake(self, intake: Arc<dyn Intake>) -> App {
        App { intake, ..self }
    }

    /// The same with an authority for agents' certificates.
    pub fn with_agents(self, door: agents::Door) -> App {
        App { agents: Arc::new(door), ..self }
    }

    /// The same with other patience for slow clients.
    pub fn with_pace(self, pace: Pace) -> App {
        App { pace, ..self }
    }
}

/// The OpenAPI document of the API, as `GET /api/v1/openapi.json` answers it.
pub fn openapi() -> &'static serde_json::Value {
    api::document()
}

/// The reference page of the API.
pub fn api_page() -> String {
    api::reference(openapi())
}

/// The reference page of the ledger's entries.
pub fn ledger_page() -> String {
    api::ledger()
}

/// Every route, ready to serve.
pub fn router(app: App) -> Router {
    let witness = axum::middleware::from_fn_with_state(app.clone(), witness::watch);
    let rejected = axum::middleware::from_fn_with_state(app.clone(), rejected::watch);
    Router::new()
        .merge(ingest::routes(&app))
        .merge(api::routes(&app))
        .merge(agents::routes())
        .merge(slack::routes())
        .merge(pagerduty::routes())
        .merge(web::routes())
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics_page::show).route_layer(witness))
        .fallback(problem::no_such_page)
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(axum::middleware::from_fn(listen::bounded_headers))
        .layer(axum::middleware::from_fn(problem::harden))
        .layer(axum::middleware::from_fn_with_state(app.clone(), problem::require_tls))
        .layer(rejected)
        .with_state(app)
}
