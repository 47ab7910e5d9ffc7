//! The data of pages: requested from the API in the visitor's name, so that its table of roles decides here too.
//!
//! Invariant: nothing here changes anything.

use super::pages::{self, guards, home, incident, incidents, run, why};
use super::visitor::Visitor;
use crate::model::{Approval, Incident, Plan, Run};
pub(super) use crate::server::api::segment;
use crate::server::{App, Problem, api};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(super) async fn home(State(app): State<App>, visitor: Visitor) -> Response {
    home_page(&app, &visitor, None).await
}

pub(super) async fn incident(State(app): State<App>, Path(id): Path<String>, visitor: Visitor) -> Response {
    incident_page(&app, &visitor, &id, None).await
}

/// Incidents, open and resolved, the newest first.
pub(super) async fn incidents(State(app): State<App>, Query(wanted): Query<Wanted>, visitor: Visitor) -> Response {
    let rows = crate::limits::WEB_ROWS;
    let mut path = format!("incidents?limit={rows}");
    for (name, value) in [("state", &wanted.state), ("severity", &wanted.severity), ("node", &wanted.node)] {
        if !value.is_empty() {
            path.push_str(&format!("&{name}={}", segment(value)));
        }
    }
    let found = match ask(&app, &visitor, path).await {
        Ok(answer) => take::<Vec<Incident>>(answer, "incidents"),
        Err(problem) => Err(problem),
    };
    let now = app.parts.clock.now();
    match found {
        Ok(found) => {
            let body = incidents::body(&found, &wanted, now);
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

pub(super) async fn guards(State(app): State<App>, visitor: Visitor) -> Response {
    match ask(&app, &visitor, "guards".to_owned()).await {
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
    match ask(&app, &visitor, format!("why?subject={}", segment(&subject))).await {
        Ok(answer) => pages::show(&app, &visitor, None, &format!("Why {subject}"), why::body(&subject, &answer)).await,
        Err(problem) => pages::problem(&app, &visitor, &problem).await,
    }
}

/// The first page: pending requests, open incidents, runs, the state of the guards.
pub(super) async fn home_page(app: &App, visitor: &Visitor, said: Option<&Problem>) -> Response {
    let data = async {
        let rows = crate::limits::WEB_ROWS;
        let get = |path: String| ask(app, visitor, path);
        Ok(home::Home {
            status: get("status".to_owned()).await?,
            guards: get("guards".to_owned()).await?,
            approvals: take(get(format!("approvals?open=true&limit={rows}")).await?, "approvals")?,
            incidents: take(get(format!("incidents?open=true&limit={rows}")).await?, "incidents")?,
            runs: take(get(format!("runs?open=true&limit={rows}")).await?, "runs")?,
        })
    };
    match data.await {
        Ok(data) => pages::show(app, visitor, said, "Now", home::body(&data, visitor, app.parts.clock.now())).await,
        Err(problem) => pages::problem(app, visitor, &problem).await,
    }
}

pub(super) async fn incident_page(app: &App, visitor: &Visitor, id: &str, said: Option<&Problem>) -> Response {
    let data = async {
        let answer = ask(app, visitor, format!("incidents/{}", segment(id))).await?;
        Ok(incident::Story {
            incident: take::<Incident>(answer.clone(), "incident")?,
            episodes: take(answer.clone(), "episodes")?,
            runs: take(answer.clone(), "runs")?,
            approvals: take(answer.clone(), "approvals")?,
            story: take(answer, "story")?,
            guards: ask(app, visitor, "guards".to_owned()).await?,
        })
    };
    match data.await {
        Ok(data) => {
            let title = format!("{} {}", data.incident.id, data.incident.title);
            pages::show(app, visitor, said, &title, incident::body(&data, visitor, app.parts.clock.now())).await
        }
        Err(problem) => pages::problem(app, visitor, &problem).await,
    }
}

pub(super) async fn run_page(app: &App, visitor: &Visitor, id: &str, said: Option<&Problem>) -> Response {
    let data = async {
        let answer = ask(app, visitor, format!("runs/{}", segment(id))).await?;
        let run = take::<Run>(answer.clone(), "run")?;
        let may_judge = api::may(&visitor.caller, "POST", "runs/{id}/judge")
            .and_then(|()| visitor.caller.need_subject(app, &run.subject));
        Ok(run::Telling {
            may_judge: answer["can_be_judged"] == true && may_judge.is_ok(),
            judgements: take(answer.clone(), "judgements")?,
            planned: planned(&answer),
            run,
            approvals: take::<Vec<Approval>>(answer.clone(), "approvals")?,
            steps: take(answer.clone(), "steps")?,
            story: take(answer, "story")?,
            guards: ask(app, visitor, "guards".to_owned()).await?,
        })
    };
    match data.await {
        Ok(data) => {
            let title = format!("{} {}", data.run.id, data.run.runbook.name);
            pages::show(app, visitor, said, &title, run::body(&data, visitor, app.parts.clock.now())).await
        }
        Err(problem) => pages::problem(app, visitor, said.unwrap_or(&problem)).await,
    }
}

/// The plan that a run made last.
fn planned(answer: &Value) -> Option<Plan> {
    let entries = answer["entries"].as_array().into_iter().flatten();
    let plan = entries.rev().find(|entry| entry["kind"] == "run_planned")?["plan"].clone();
    serde_json::from_value(plan).ok()
}

async fn ask(app: &App, visitor: &Visitor, path: String) -> Result<Value, Problem> {
    api::ask(app, visitor.caller.clone(), "GET", path, Value::Null).await
}

/// One part of an answer, as the type that the API made it from.
fn take<T: DeserializeOwned>(mut answer: Value, name: &str) -> Result<T, Problem> {
    serde_json::from_value(answer[name].take()).map_err(|error| {
        let error = format!("the answer cannot be shown: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error, "use the command line, and report this")
    })
}
