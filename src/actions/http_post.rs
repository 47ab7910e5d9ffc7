//! `http::post`: sends something to a URL of the allow-list.
//!
//! Invariant: once bytes may have left, it is never sent again; a user decides.

use super::answer::{ActionResult, done, failed, foresee, settle};
use super::declare::*;
use super::http_get::shown;
use super::{Action, PerformResult, args, http_headers, rights};
use crate::model::{ActionCall, Outcome, Step, StepFailure};
use crate::world::{HttpRequest, SecretHeaders, World, WorldError};
use serde_json::{Value, json};

pub(super) struct HttpPost;

static SPEC: ActionSpec = ActionSpec {
    name: "http::post",
    doc: "POSTs to a URL that `http_allow` names. Any status is an answer; check it. A POST without an answer may \
          have happened or not, so a crash during one stops the run until an operator decides.",
    params: &[
        args::required("url", ParamType::String, "the URL"),
        args::required("body", ParamType::Any, "sent as JSON, or as it is if it is a text"),
    ],
    options: &[http_headers::HEADERS],
    returns: "#{status, body, json}; json is the body parsed, or () if it is not JSON",
    effect: EffectClass::Blind,
    // The effect of a POST is its receiver's affair; a single pod is the least that is worth a look.
    reach: ImpactScope::Pod,
    disruptive: false,
    target: TargetKind::Nothing,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "post to {target}{details}", done: Some("posted to {target}{details}") },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(30),
};

#[async_trait::async_trait]
impl Action for HttpPost {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(foreseen(world, call))
    }
}

fn foreseen(world: &World, call: &ActionCall) -> ActionResult<Value> {
    let (request, secrets) = request(call)?;
    world.http.check_secrets(&request, &secrets)?;
    Ok(json!({ "status": 200, "body": "", "json": null }))
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let (request, secrets) = request(&step.call)?;
    match world.http.send_with_secrets(&request, &secrets).await {
        Ok(answer) => match done(shown(&answer)) {
            PerformResult::Done(Outcome::Failed(too_large)) => Ok(PerformResult::Done(failed(
                too_large.kind,
                format!("answered {}, so it happened, but {}", answer.status, too_large.message),
            ))),
            kept => Ok(kept),
        },
        Err(WorldError::Unavailable(why)) => Ok(PerformResult::InDoubt { why: format!("{why}; it may have happened") }),
        // Never connected (a retry), or refused before anything was sent (final).
        Err(error) => Err(error.into()),
    }
}

/// The request, and its headers that name secrets.
fn request(call: &ActionCall) -> Result<(HttpRequest, SecretHeaders), StepFailure> {
    let headers = http_headers::of(call)?;
    let request = HttpRequest {
        method: "POST".to_owned(),
        url: args::text(call, "url")?.to_owned(),
        headers: headers.plain,
        body: call.args.get("body").cloned().unwrap_or_default(),
    };
    Ok((request, headers.secret))
}
