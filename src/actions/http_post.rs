//! `http::post`: sends something to a URL of the allow-list.
//!
//! Invariant: once bytes may have left, it is never sent again; a person decides.

use super::answer::{Settled, done, failed, foresee, settle};
use super::declare::*;
use super::http_get::shown;
use super::{Action, Performed, args, rights};
use crate::model::{Call, Failure, Outcome, Step};
use crate::world::{HttpRequest, World, WorldError};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) struct HttpPost;

static SPEC: ActionSpec = ActionSpec {
    name: "http::post",
    doc: "POSTs to a URL that `http_allow` names. Any status is an answer; look at it. Nobody can tell whether a POST \
          without an answer happened, so a crash in its middle stops the run for a person.",
    params: &[
        args::required("url", ParamType::String, "the URL"),
        args::required("body", ParamType::Any, "sent as JSON, or as it is if it is a text"),
    ],
    options: &[args::optional("headers", ParamType::Any, "a map of texts")],
    returns: "#{status, body, json}; json is the body parsed, or () if it is not JSON",
    effect: Effect::Blind,
    // What a POST does is its receiver's affair; a single pod is the least that is worth a look.
    reach: Reach::Pod,
    disruptive: false,
    target: TargetKind::Nothing,
    takes: Capacity::Nothing,
    scheduling: Scheduling::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: Phrases { todo: "post to {target}{details}", done: Some("posted to {target}{details}") },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(30),
};

#[async_trait::async_trait]
impl Action for HttpPost {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, world: &World, step: &Step) -> Performed {
        settle(perform(world, step).await)
    }

    async fn predict(&self, _world: &World, call: &Call) -> Outcome {
        foresee(request(call).map(|_| json!({ "status": 200, "body": "", "json": null })).map_err(Performed::from))
    }
}

async fn perform(world: &World, step: &Step) -> Settled<Performed> {
    let request = request(&step.call)?;
    match world.http.send_for_runbook(&request).await {
        Ok(answer) => match done(shown(&answer)) {
            Performed::Done(Outcome::Failed(too_large)) => Ok(Performed::Done(failed(
                too_large.kind,
                format!("answered {}, so it happened, but {}", answer.status, too_large.message),
            ))),
            kept => Ok(kept),
        },
        Err(WorldError::Unavailable(why)) => Ok(Performed::InDoubt { why: format!("{why}; it may have happened") }),
        // Never connected (a retry), or refused before anything was sent (final).
        Err(error) => Err(error.into()),
    }
}

fn request(call: &Call) -> Result<HttpRequest, Failure> {
    let headers = match call.args.get("headers") {
        None | Some(Value::Null) => BTreeMap::new(),
        Some(Value::Object(map)) => map
            .iter()
            .map(|(name, value)| match value {
                Value::String(text) => Ok((name.clone(), text.clone())),
                other => Err(args::invalid(format!("http::post: header `{name}` is {other}, but must be a text"))),
            })
            .collect::<Result<_, _>>()?,
        Some(other) => {
            return Err(args::invalid(format!("http::post: `headers` is {other}, but must be a map of texts")));
        }
    };
    Ok(HttpRequest {
        method: "POST".to_owned(),
        url: args::text(call, "url")?.to_owned(),
        headers,
        body: call.args.get("body").cloned().unwrap_or_default(),
    })
}
