//! The data of pages: requested from the API in the visitor's name, so that its table of roles decides here too.
//!
//! Invariant: nothing here changes anything.

use super::pages::{self, guards, home, incident, incidents, run, why};
use super::visitor::Visitor;
use crate::api::ListQuery;
use crate::model::{Entry, EntryKind, Plan};
pub(super) use crate::server::api::segment;
use crate::server::api::{self, Inside};
use crate::server::{App, Problem};
use axum::extract::{Path, Query, State};
use axum::response::Response;

pub(super) async fn home(State(app): State<App>, visitor: Visitor) -> Response {
    home_page(&app, &visitor, None).await
}

pub(super) async fn incident(State(app): State<App>, Path(id): Path<String>, visitor: Visitor) -> Response {
    incident_page(&app, &visitor, &id, None).await
}

/// Incidents, open and resolved, the newest first.
pub(super) async fn incidents(State(app): State<App>, Query(wanted): Query<Wanted>, visitor: Visitor) -> Response {
    let found = match wanted.query() {
        Ok(query) => Inside::new(&app, &visitor.caller).incidents(query).await,
        Err(problem) => Err(problem),
    };
    let now = app.parts.clock.now();
    match found {
        Ok(found) => {
            let body = incidents::body(&found.incidents, &wanted, now);
            pages::show(&app, &visitor, None, "Incidents", body).await
        }
        Err(problem) => pages::problem(&app, &visitor, &problem).await,
    }
}

/// The values of the form above the list of incidents; empty means any.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
pub(super) struct Wanted {
    pub state: String,
    pub severity: String,
    pub node: String,
}

impl Wanted {
    fn query(&self) -> Result<ListQuery, Problem> {
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Ok(ListQuery {
            limit: Some(crate::limits::WEB_ROWS),
            state: given(&self.state),
            severity: given(&self.severity).map(|word| api::severity(&word)).transpose()?,
            node: given(&self.node),
            ..ListQuery::default()
        })
    }
}

pub(super) async fn guards(State(app): State<App>, visitor: Visitor) -> Response {
    match Inside::new(&app, &visitor.caller).guards().await {
        Ok(answer) => {
            let body = guards::body(&answer, app.parts.clock.now());
            pages::show(&app, &visitor, None, "Guards", body).await
        }
        Err(problem) => pages::problem(&app, &visitor, &problem).await,
    }
}

pub(super) async fn run(State(app): State<App>, Path(id): Path<String>, visitor: Visitor) -> Response {
    run_page(&app, &visitor, &id, None).await
}

pub(super) async fn why(State(app): State<App>, Path(subject): Path<String>, visitor: Visitor) -> Response {
    match Inside::new(&app, &visitor.caller).why(&subject).await {
        Ok(answer) => pages::show(&app, &visitor, None, &format!("Why {subject}"), why::body(&subject, &answer)).await,
        Err(problem) => pages::problem(&app, &visitor, &problem).await,
    }
}

/// The first page: pending requests, open incidents, runs, the state of the guards.
pub(super) async fn home_page(app: &App, visitor: &Visitor, said: Option<&Problem>) -> Response {
    let data = async {
        let api = Inside::new(app, &visitor.caller);
        let open = || ListQuery { open: true, limit: Some(crate::limits::WEB_ROWS), ..ListQuery::default() };
        Ok::<_, Problem>(home::Home {
            status: api.status().await?,
            guards: api.guards().await?,
            approvals: api.approvals(open()).await?.approvals,
            incidents: api.incidents(open()).await?.incidents,
            runs: api.runs(open()).await?.runs,
        })
    };
    match data.await {
        Ok(data) => pages::show(app, visitor, said, "Now", home::body(&data, visitor, app.parts.clock.now())).await,
        Err(problem) => pages::problem(app, visitor, &problem).await,
    }
}

pub(super) async fn incident_page(app: &App, visitor: &Visitor, id: &str, said: Option<&Problem>) -> Response {
    let data = async {
        let api = Inside::new(app, &visitor.caller);
        Ok::<_, Problem>(incident::Story { detail: api.incident(id).await?, guards: api.guards().await? })
    };
    match data.await {
        Ok(data) => {
            let title = format!("{} {}", data.detail.incident.id, data.detail.incident.title);
            pages::show(app, visitor, said, &title, incident::body(&data, visitor, app.parts.clock.now())).await
        }
        Err(problem) => pages::problem(app, visitor, &problem).await,
    }
}

pub(super) async fn run_page(app: &App, visitor: &Visitor, id: &str, said: Option<&Problem>) -> Response {
    let data = async {
        let api = Inside::new(app, &visitor.caller);
        let detail = api.run(id).await?;
        let may_judge = api::may(&visitor.caller, "POST", "runs/{id}/judge")
            .and_then(|()| visitor.caller.need_subject(app, &detail.run.subject));
        Ok::<_, Problem>(run::Telling {
            may_judge: detail.can_be_judged && may_judge.is_ok(),
            planned: planned(&detail.entries),
            guards: api.guards().await?,
            detail,
        })
    };
    match data.await {
        Ok(data) => {
            let title = format!("{} {}", data.detail.run.id, data.detail.run.runbook.name);
            pages::show(app, visitor, said, &title, run::body(&data, visitor, app.parts.clock.now())).await
        }
        Err(problem) => pages::problem(app, visitor, said.unwrap_or(&problem)).await,
    }
}

/// The plan that a run made last.
fn planned(entries: &[Entry]) -> Option<Plan> {
    entries.iter().rev().find_map(|entry| match &entry.kind {
        EntryKind::RunPlanned { plan } => Some(plan.clone()),
        _ => None,
    })
}
