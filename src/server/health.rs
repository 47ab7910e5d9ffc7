//! `/healthz`: the process lives. `/readyz`: it can do its work, or lists the parts that it cannot.
//!
//! Invariant: ready means that the writer answered just now and rules are loaded. A lost cluster is reported, but must
//! not stop sending us events: they are kept, and runs are held until it is back.

use super::App;
use crate::limits;
use crate::store::StoreError;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

pub(super) async fn alive() -> &'static str {
    "ok\n"
}

pub(super) async fn ready(State(app): State<App>) -> Response {
    let store = match tokio::time::timeout(limits::READY_TIMEOUT, app.parts.store.health()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(StoreError::Busy(_))) => Err("the disk is full, alerts are refused until there is room"),
        Ok(Err(error)) => {
            // The text may hold paths, and the caller has shown no token: it goes to the log.
            tracing::error!(%error, "the store is unhealthy");
            Err("the store returns an error; see the log")
        }
        Err(_) => Err("the writer of the store did not answer in time"),
    };
    let loaded = (app.current)();
    let catalog = if loaded.hash.is_empty() { Err("no rules or runbooks were loaded") } else { Ok(()) };
    let refused = app.parts.catalog.refused();
    let ready = store.is_ok() && catalog.is_ok();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = |part: Result<(), &'static str>| part.err().unwrap_or("ok");
    let mut said = json!({ "ready": ready, "store": word(store), "catalog": word(catalog) });
    if refused > 0 && catalog.is_ok() {
        // It works, with what was good: that is to be seen, and no reason to send events elsewhere.
        said["catalog"] = json!(format!("{refused} files rejected, their last good version is active; see the log"));
    }
    let world = &app.parts.world;
    if !world.clusters.is_empty() {
        // The reason is in the log and in `nightshift doctor`: it may name addresses, and the caller has shown no
        // token.
        let lost = world.lost_clusters();
        let only_watched = |name: &String| world.clusters.get(name).is_some_and(|kube| kube.only_watched().is_some());
        let word = |name: &String| match lost.get(name) {
            Some((since, _)) => format!("not watched since {since}; see the log"),
            None if only_watched(name) => "only watched: this engine starts no steps there; see the log".to_owned(),
            None => "ok".to_owned(),
        };
        said["clusters"] = world.clusters.keys().map(|name| (name.clone(), json!(word(name)))).collect();
    }
    let channels = &app.parts.notifiers;
    let off = channels.iter().filter(|(_, notifier)| notifier.off().is_some());
    let off: serde_json::Map<_, _> =
        off.map(|(name, _)| (name.clone(), json!("off: its secret cannot be read; see the log"))).collect();
    if !off.is_empty() {
        said["channels"] = off.into();
    }
    if let Some(step) = app.parts.clock.step() {
        let by = step.by / 1_000_000;
        said["clock"] =
            json!(format!("the machine's clock was set by {by} s; the engine keeps its own time until it settles"));
    }
    (status, Json(said)).into_response()
}
