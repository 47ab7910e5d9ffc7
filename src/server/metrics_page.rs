//! `/metrics`: every metric in OpenMetrics text, levels read from the store at that moment.
//!
//! Invariant: a store that does not answer costs the levels, never the page.

use super::{App, Caller};
use crate::limits;
use crate::telemetry::Levels;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// What an agent says of a warm.
fn warm_of((_, verb, progress): (String, String, Value)) -> Option<Value> {
    (verb == "cache::warm").then_some(progress)
}

pub(super) async fn show(State(app): State<App>, _caller: Caller) -> Response {
    if let Ok(Ok(counts)) = tokio::time::timeout(limits::READY_TIMEOUT, app.parts.store.counts()).await {
        let now = app.parts.clock.now();
        let warming: Vec<Value> = app.parts.world.agents.at_work().into_iter().filter_map(warm_of).collect();
        let bytes = |name: &str| warming.iter().filter_map(|progress| progress[name].as_u64()).sum();
        let cards = super::api::places(&app).await.unwrap_or_default();
        let mut rules = [0; 4];
        for (_, mode) in &cards {
            rules[*mode as usize] += 1;
        }
        let waiting = counts.oldest_notice.map_or(0, |since| (now.as_microsecond() - since.as_microsecond()).max(0));
        app.parts.metrics.set_levels(&Levels {
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
            warming_bytes: bytes("bytes"),
            warming_done: bytes("done_bytes"),
            rules,
            rules_lowered: cards.iter().filter(|(file, mode)| mode < file).count() as u64,
            clusters_lost: app.parts.world.lost_clusters().len() as u64,
        });
    }
    let text = app.parts.metrics.render();
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}
