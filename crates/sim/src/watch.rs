//! Watches: the changes of one kind of object as a stream of lines, from a version on.
//!
//! Invariant: a watch sends every change after its version in order, or sends 410 and ends; it never leaves one out.

use super::object::{ObjectKey, ObjectKind, text};
use super::selector::ObjectSelector;
use super::serve::SharedFleet;
use super::state::{FleetState, ObjectChange};
use super::{answer::SimResponse, api};
use crate::limits;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use hyper::{Response, header};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The body of every answer of the fleet: whole, or sent bit by bit.
pub(super) type ResponseStream = UnsyncBoxBody<Bytes, Infallible>;

/// The options of a watch.
pub(super) struct SimWatchOptions {
    pub kind: ObjectKind,
    pub namespace: String,
    pub labels: ObjectSelector,
    pub fields: ObjectSelector,
    pub from: u64,
    pub seconds: u64,
    pub bookmarks: bool,
}

/// One watch under way.
struct SimWatch {
    shared: SharedFleet,
    watched: SimWatchOptions,
    age: u64,
    until: Instant,
    told: Instant,
    is_stalled: bool,
    is_over: bool,
}

/// Answers with a stream that ends when its time is up, when watches are cut, or with 410.
pub(super) fn stream(shared: SharedFleet, watched: SimWatchOptions, is_stalled: bool) -> Response<ResponseStream> {
    let age = shared.lock().watch_age;
    let until = Instant::now() + Duration::from_secs(watched.seconds);
    let watch = SimWatch { shared, watched, age, until, told: Instant::now(), is_stalled, is_over: false };
    let lines = futures::stream::unfold(watch, |mut watch| async move {
        let bytes = watch.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), watch))
    });
    let mut response = Response::new(StreamBody::new(lines).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

impl SimWatch {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.is_over || Instant::now() >= self.until {
                return None;
            }
            if !self.is_stalled {
                let shared = self.shared.clone();
                let state = shared.lock();
                if state.watch_age != self.age {
                    return None;
                }
                if let Some(lines) = self.tell(&state) {
                    return Some(lines);
                }
            }
            tokio::time::sleep(limits::SIM_WATCH_LOOK).await;
        }
    }

    fn tell(&mut self, state: &FleetState) -> Option<Bytes> {
        let mut lines = String::new();
        let oldest = state.changes.front().map_or(state.version + 1, |change| change.version);
        let is_behind = self.watched.from < state.version;
        if is_behind && self.watched.from + 1 < oldest {
            let gone = SimResponse::refusal(410, "Expired", "too old resource version", Value::Null);
            if let super::answer::SimBody::Json(status) = gone.body {
                push(&mut lines, "ERROR", &status);
            }
            self.is_over = true;
            return Some(Bytes::from(lines));
        }
        if is_behind {
            let first = state.changes.partition_point(|change| change.version <= self.watched.from);
            for change in state.changes.range(first..).filter(|change| self.is_meant(&change.key)) {
                self.line(&mut lines, state, change);
            }
            self.watched.from = state.version;
        }
        if lines.is_empty() && self.watched.bookmarks && self.told.elapsed() >= limits::SIM_BOOKMARK {
            let object = json!({"kind": self.watched.kind.resource().name,
                "metadata": {"resourceVersion": self.watched.from.to_string()}});
            push(&mut lines, "BOOKMARK", &object);
        }
        if lines.is_empty() {
            return None;
        }
        self.told = Instant::now();
        Some(Bytes::from(lines))
    }

    fn is_meant(&self, key: &ObjectKey) -> bool {
        key.kind == self.watched.kind && (self.watched.namespace.is_empty() || self.watched.namespace == key.namespace)
    }

    /// An object that enters or leaves the selection is added or deleted for this watch.
    fn line(&self, lines: &mut String, state: &FleetState, change: &ObjectChange) {
        let selected = |object: &Option<Arc<Value>>| {
            object.clone().filter(|object| {
                self.watched.labels.matches(&object["metadata"]["labels"]) && self.watched.fields.matches_fields(object)
            })
        };
        let (word, object) = match (selected(&change.old), selected(&change.new)) {
            (None, Some(new)) => ("ADDED", new),
            (Some(_), Some(new)) => ("MODIFIED", new),
            (Some(old), None) => ("DELETED", old),
            (None, None) => return,
        };
        let mut object = api::shown(state, change.key.kind, &object);
        if word == "DELETED" {
            object["metadata"]["resourceVersion"] = change.version.to_string().into();
        }
        debug_assert!(!text(&object, "/metadata/name").is_empty());
        push(lines, word, &object);
    }
}

fn push(lines: &mut String, word: &str, object: &Value) {
    lines.push_str(&json!({"type": word, "object": object}).to_string());
    lines.push('\n');
}
