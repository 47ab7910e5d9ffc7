//! Every answer is what its type says: no member more, none less, in an engine where something happens.
//!
//! Invariant: a type that drops or adds a member fails here with the route that answers it.

use super::{Api, fire};
use nightshift::api;
use nightshift::model::Mode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The answer read as `T` and written again is the answer.
async fn is<T: DeserializeOwned + Serialize>(api: &Api, path: &str) -> T {
    let answer = api.get(path).await;
    let read: T = serde_json::from_value(answer.clone()).unwrap_or_else(|error| panic!("{path}: {error}\n{answer:#}"));
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(written, answer, "{path}");
    read
}

#[tokio::test]
async fn answers_are_the_types_that_clients_read() {
    let api = Api::open().await;
    fire(&api, 0..2).await;
    let run = api.night.start("cordon", Mode::Approve, json!({ "node": "gpu-1" })).await;
    api.night.settle().await;
    let freeze = json!({ "scope": "all", "why": "a test", "for": "2h" });
    assert_eq!(api.ask("POST", "/api/v1/freezes", "ada", &freeze).await.status, 201);
    let token = json!({ "name": "robot", "role": "viewer", "expires": "1d" });
    assert_eq!(api.ask("POST", "/api/v1/tokens", "ada", &token).await.status, 201);

    let status: api::EngineStatus = is(&api, "status").await;
    assert_eq!((status.incidents_open, status.freezes), (2, 1));
    let guards: api::GuardLevels = is(&api, "guards").await;
    assert_eq!(guards.freezes.len(), 1);
    assert_eq!(is::<api::IncidentList>(&api, "incidents").await.incidents.len(), 2);
    is::<api::IncidentDetail>(&api, "incidents/i1").await;
    is::<api::RunList>(&api, "runs").await;
    assert!(!is::<api::RunDetail>(&api, &format!("runs/{run}")).await.entries.is_empty());
    is::<api::RunbookList>(&api, "runbooks").await;
    is::<api::RuleList>(&api, "rules").await;
    is::<api::ScorecardList>(&api, "scorecards").await;
    assert_eq!(is::<api::ApprovalList>(&api, "approvals").await.approvals.len(), 1);
    is::<api::ApprovalAnswer>(&api, "approvals/a1").await;
    assert!(!is::<api::EntryList>(&api, "entries").await.story.is_empty());
    assert!(!is::<api::Explanation>(&api, &format!("why?subject={run}")).await.blocks.is_empty());
    is::<api::FreezeList>(&api, "freezes").await;
    is::<api::AgentList>(&api, "agents").await;
    is::<api::ChannelList>(&api, "channels").await;
    is::<api::CheckpointList>(&api, "audit/checkpoints").await;
    assert!(!is::<api::RawEntryList>(&api, "audit/raw?limit=3").await.raw.is_empty());
    let tokens: api::TokenList = is(&api, "tokens").await;
    assert_eq!((tokens.tokens.len(), tokens.tokens[0].state), (1, api::TokenState::Good));
    is::<api::SessionList>(&api, "sessions").await;
}

/// Scripts of before test for null: a member that was there stays there.
#[tokio::test]
async fn an_answer_says_null_where_a_client_of_before_reads_null() {
    let api = Api::open().await;
    let status = api.get("status").await;
    for member in ["oldest_notice", "slack"] {
        assert_eq!(status.get(member), Some(&Value::Null), "{member} is there and null");
    }
    assert!(api.get("guards").await.as_object().unwrap().contains_key("symptom"));
    assert!(api.get("incidents").await.get("next").is_none(), "one page has no next");
}
