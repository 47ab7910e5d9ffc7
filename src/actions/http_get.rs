//! `http::get`: reads a URL of the allow-list.
//!
//! Invariant: any HTTP status is an answer; only silence is a failure.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, http_headers, rights};
use crate::model::{ActionCall, Outcome, Step};
use crate::world::{HttpAnswer, HttpRequest, World};
use serde_json::{Value, json};

pub(super) struct HttpGet;

static SPEC: ActionSpec = ActionSpec {
    name: "http::get",
    doc: "GETs a URL that `http_allow` names. Any status is an answer; check it.",
    params: &[args::required("url", ParamType::String, "the URL")],
    options: &[http_headers::HEADERS],
    returns: "#{status, body, json}; json is the body parsed, or () if it is not JSON",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Nothing,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "{call}", done: None },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for HttpGet {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(read(world, &step.call).await.map(done))
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(read(world, call).await)
    }
}

async fn read(world: &World, call: &ActionCall) -> ActionResult<Value> {
    let headers = http_headers::of(call)?;
    let request = HttpRequest {
        method: "GET".to_owned(),
        url: args::text(call, "url")?.to_owned(),
        headers: headers.plain,
        ..HttpRequest::default()
    };
    Ok(shown(&world.http.send_with_secrets(&request, &headers.secret).await?))
}

/// An answer as a script sees it: the body once, as JSON where it is JSON.
pub(super) fn shown(answer: &HttpAnswer) -> Value {
    match serde_json::from_str::<Value>(&answer.body) {
        Ok(parsed) => json!({ "status": answer.status, "body": "", "json": parsed }),
        Err(_) => json!({ "status": answer.status, "body": answer.body, "json": null }),
    }
}
