//! `/metrics`: every metric in the format that the client accepts, levels read from the store at that moment.
//!
//! Invariant: a store that does not answer costs the levels, never the page.

use super::{App, Caller};
use crate::actions;
use crate::limits;
use crate::model::Right;
use crate::policy::nodes_at_once;
use crate::telemetry::{Budget, ExpositionFormat, StoreGauges};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::collections::HashSet;

pub(super) async fn show(State(app): State<App>, caller: Caller, headers: HeaderMap) -> Response {
    if let Err(problem) = caller.need(Right::Measure) {
        return problem.into_response();
    }
    measure_budget(&app).await;
    if let Ok(Ok(counts)) = tokio::time::timeout(limits::READY_TIMEOUT, app.parts.store.counts()).await {
        let now = app.parts.clock.now();
        let at_work = app.parts.world.agents.at_work();
        let bytes_of = |verb: &str, progress: &Value| actions::find(verb)?.bytes_read(progress);
        let warming: Vec<_> = at_work.iter().filter_map(|(_, verb, progress)| bytes_of(verb, progress)).collect();
        let cards = super::api::places(&app).await.unwrap_or_default();
        let mut rules = [0; 4];
        for (_, mode) in &cards {
            rules[*mode as usize] += 1;
        }
        let waiting = counts.oldest_notice.map_or(0, |since| (now.as_microsecond() - since.as_microsecond()).max(0));
        app.parts.metrics.set_levels(&StoreGauges {
            episodes_open: counts.episodes_open,
            incidents_open: counts.incidents_open,
            runs_unfinished: counts.runs_unfinished,
            approvals_open: counts.approvals_open,
            notices_due: counts.notices_due,
            oldest_notice_seconds: waiting as f64 / 1e6,
            entries: counts.entries,
            unsigned: counts.entries.saturating_sub(counts.signed),
            freezes: counts.freezes,
            nodes_held: counts.nodes_held,
            warming: warming.len() as u64,
            warming_bytes: warming.iter().map(|(all, _)| all).sum(),
            warming_done: warming.iter().map(|(_, done)| done).sum(),
            rules,
            rules_lowered: cards.iter().filter(|(file, mode)| mode < file).count() as u64,
            clusters_lost: app.parts.world.lost_clusters().len() as u64,
        });
    }
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = ExpositionFormat::accepted(&accept.join(","));
    let answer = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")];
    (answer, app.parts.metrics.page(format)).into_response()
}

/// The blast radius as the guard counts it; nothing where the fleet is not counted quickly.
async fn measure_budget(app: &App) {
    let parts = &app.parts;
    let Ok(facts) = tokio::time::timeout(limits::BUDGET_PATIENCE, parts.world.fleet()).await else { return };
    let Some(total) = facts.nodes_total else { return };
    let Ok(Ok(held)) = tokio::time::timeout(limits::READY_TIMEOUT, parts.store.holds()).await else { return };
    let home = &parts.world.default_cluster;
    let held = held.iter().filter(|hold| hold.cluster.is_empty() || hold.cluster == *home).map(|hold| &hold.node);
    let out = facts.nodes_out.iter().chain(held).collect::<HashSet<_>>().len();
    let most = nodes_at_once(&parts.config.guards, total).min(total.saturating_sub(1));
    parts.metrics.budget(Budget::AtOnce, out as f64, f64::from(most));
}
