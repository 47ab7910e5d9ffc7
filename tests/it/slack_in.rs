//! Slack's doors from outside: who may, what a button is bound to, and where the answer goes.
//!
//! Invariant: what was done is counted by the fleet; what was said is read where Slack would show it.

use crate::night::Night;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use nightshift::config::{Config, Person, Role, SlackApp};
use nightshift::model::RunState;
use nightshift::server::{App, Door, PagerDutyDoor, Tokens, router};
use nightshift::store::Filter;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tower::ServiceExt;

const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
const MINUTE: Duration = Duration::from_secs(60);
const RULE: &str = "rules:\n  - name: r\n    when: ['alertname=\"GpuXid\"']\n    run: cordon\n    mode: approve\n";
const CORDON: &str =
    "//! Cordon a node.\n//!\n//! params:\n//!   node: Node\n//! reach: node\n\nk8s::cordon(node, \"test\");\n";
const XID: &[(&str, &str)] = &[("alertname", "GpuXid"), ("node", "gpu-2")];

/// An engine with Slack's door, and a place where Slack would take the answers.
pub struct Chat {
    pub night: Night,
    pub app: App,
    router: Router,
    said: Arc<Mutex<Vec<Value>>>,
    hooks: String,
}

impl Chat {
    async fn begin() -> Chat {
        Chat::begin_with(Tokens::default(), |_| {}).await
    }

    /// With tokens besides, and the configuration as a test wants it.
    pub async fn begin_with(tokens: Tokens, change: impl FnOnce(&mut Config)) -> Chat {
        let said: Arc<Mutex<Vec<Value>>> = Arc::default();
        let heard = Arc::clone(&said);
        let taking = axum::routing::post(move |axum::Json(body): axum::Json<Value>| {
            heard.lock().unwrap().push(body);
            std::future::ready("ok")
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hooks = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/answer", taking)).await });
        let mut night = Night::fall(RULE, &[("cordon", CORDON)]).await;
        let config = Arc::make_mut(&mut night.parts.config);
        let person = |name: &str, role, id: &str| Person {
            slack: Some(id.into()),
            pagerduty: Some(id.replace("U0", "P0")),
            ..Person::new(name, role)
        };
        config.people = vec![
            person("ada", Role::Approver, "U0ADA"),
            person("bob", Role::Approver, "U0BOB"),
            person("vic", Role::Viewer, "U0VIC"),
        ];
        config.slack = Some(SlackApp {
            signing_secret: nightshift::config::Secret::Env("UNUSED".into()),
            team: Some("T0".into()),
            hooks: hooks.clone(),
        });
        night.configure(change);
        let door = Door { signing_secret: SECRET.into(), hooks: hooks.parse().unwrap() };
        let app = App::new(night.parts.clone(), tokens)
            .with_slack(door)
            .with_pagerduty(PagerDutyDoor::new(&[SECRET.to_owned()]));
        Chat { night, router: router(app.clone()), app, said, hooks }
    }

    fn request(&self, path: &str, body: &str, secret: &str) -> Request<Body> {
        let stamp = self.night.now().as_second();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
        let tag = ring::hmac::sign(&key, format!("v0:{stamp}:{body}").as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Request::post(path)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("x-slack-request-timestamp", stamp.to_string())
            .header("x-slack-signature", format!("v0={hex}"))
            .body(Body::from(body.to_owned()))
            .unwrap()
    }

    /// A request to the API with a token.
    pub async fn posts(&self, token: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::post(path).header("authorization", format!("Bearer {token}"));
        let answer = self.router.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
        let status = answer.status();
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// What the person sees after a slash command.
    pub async fn types(&self, user: &str, text: &str) -> String {
        let fields = [("team_id", "T0"), ("user_id", user), ("text", text), ("trigger_id", &format!("{user}{text}"))];
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let answer = self.router.clone().oneshot(self.request("/slack/command", &body, SECRET)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "Slack shows an error for anything else");
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(answer["response_type"], "ephemeral");
        let text = answer["blocks"][0]["text"]["text"].as_str().unwrap();
        assert_eq!(answer["blocks"][0]["text"]["type"], "plain_text");
        text.to_owned()
    }

    pub async fn presses(&self, user: &str, action: &str, value: &str) -> StatusCode {
        let payload = json!({
            "type": "block_actions", "user": { "id": user, "name": "ada" }, "team": { "id": "T0" },
            "actions": [{ "action_id": action, "value": value, "action_ts": user }],
            "response_url": format!("{}answer", self.hooks),
        });
        let body =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload.to_string()).finish();
        self.router.clone().oneshot(self.request("/slack/interact", &body, SECRET)).await.unwrap().status()
    }

    /// The answers that Slack got, once there are so many.
    pub async fn answers(&self, count: usize) -> Vec<String> {
        for _ in 0..2_000 {
            if self.said.lock().unwrap().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await; // polls
        }
        let said = self.said.lock().unwrap();
        let text = |answer: &Value| answer["blocks"][0]["text"]["text"].as_str().unwrap().to_owned();
        assert!(said.len() >= count, "{said:?}");
        said.iter().map(text).collect()
    }

    /// A run that asks, and what its button carries.
    pub async fn asking(&self) -> (nightshift::model::RunId, String) {
        let heard = self.night.hear("firing", XID).await;
        let run = self.night.until_rest(heard.runs[0], MINUTE).await;
        assert!(matches!(run.state, RunState::Asking { .. }), "{:?}", run.state);
        let open = Filter { open: true, limit: 10, ..Filter::default() };
        let approval = self.night.parts.store.approvals(open).await.unwrap().remove(0);
        (run.id, format!("{} {}", approval.id, approval.plan_hash))
    }
}

#[tokio::test]
async fn a_command_is_answered_to_the_one_who_typed_it() {
    let chat = Chat::begin().await;
    assert!(chat.types("U0VIC", "status").await.contains("0 incidents open"));
    assert!(chat.types("U0VIC", "").await.contains("\napprove a4"), "one line a command");
    chat.asking().await;
    let open = chat.types("U0VIC", "incidents").await;
    assert!(open.starts_with("i1 "), "{open}");
    assert!(
        chat.types("U0VIC", "why i1").await.contains("matched") || !chat.types("U0VIC", "show i1").await.is_empty()
    );
    assert!(chat.types("U0ADA", "aprove a1").await.contains("did you mean `approve`?"));
    assert!(chat.types("U0ADA", "approve a9").await.contains("there is no approval a9"));
}

#[tokio::test]
async fn who_is_not_known_or_has_no_right_is_told_so_and_nothing_is_done() {
    let chat = Chat::begin().await;
    let (run, value) = chat.asking().await;
    assert!(chat.types("U0EVE", "status").await.contains("nobody in `people` has the Slack user id U0EVE"));
    assert!(chat.types("U0VIC", "approve a1 sure").await.contains("`vic` has role viewer"));
    assert_eq!(chat.presses("U0VIC", "approve", &value).await, StatusCode::OK);
    assert!(chat.answers(1).await[0].contains("`vic` has role viewer"));
    chat.night.settle().await;
    assert!(matches!(chat.night.run(run).await.state, RunState::Asking { .. }));
    assert!(chat.night.effects().is_empty());
}

#[tokio::test]
async fn a_forged_request_is_not_even_read() {
    let chat = Chat::begin().await;
    let body = "team_id=T0&user_id=U0ADA&text=freeze+now";
    for path in ["/slack/command", "/slack/interact"] {
        let answer = chat.router.clone().oneshot(chat.request(path, body, "another secret")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
    let once = || chat.request("/slack/command", body, SECRET);
    assert_eq!(chat.router.clone().oneshot(once()).await.unwrap().status(), StatusCode::OK);
    let replayed = chat.router.clone().oneshot(once()).await.unwrap().status();
    assert_eq!(replayed, StatusCode::UNAUTHORIZED, "the same bytes again are somebody else's");
}

#[tokio::test]
async fn a_button_approves_the_plan_that_was_shown_and_no_other() {
    let chat = Chat::begin().await;
    let (run, value) = chat.asking().await;
    let (id, _) = value.split_once(' ').unwrap();
    for stale in [id.to_owned(), format!("{id} {}", "0".repeat(64)), "a9 x".to_owned(), "<!channel>".to_owned()] {
        chat.presses("U0ADA", "approve", &stale).await;
    }
    let refusals = chat.answers(4).await;
    assert!(
        refusals.iter().all(|text| text.contains("is not the question")
            || text.contains("there is no")
            || text.contains("is not an approval")),
        "{refusals:?}"
    );
    assert!(matches!(chat.night.run(run).await.state, RunState::Asking { .. }));
    chat.presses("U0ADA", "approve", &value).await;
    assert_eq!(chat.answers(5).await[4], format!("{id} is approved by ada"));
    assert_eq!(chat.night.until_rest(run, MINUTE).await.state, RunState::Done);
    assert_eq!(chat.night.effects()["patch nodes gpu-2"], 1);
}

#[tokio::test]
async fn two_who_press_in_the_same_moment_hear_who_was_first() {
    let chat = Chat::begin().await;
    let (run, value) = chat.asking().await;
    tokio::join!(chat.presses("U0ADA", "approve", &value), chat.presses("U0BOB", "deny", &value));
    let answers = chat.answers(2).await;
    assert_eq!(answers.iter().filter(|text| text.contains("already (by ")).count(), 1, "{answers:?}");
    let state = chat.night.until_rest(run, MINUTE).await.state;
    let done = chat.night.effects().get("patch nodes gpu-2").copied().unwrap_or_default();
    assert_eq!(done, u64::from(state == RunState::Done) as usize, "{state:?}");
}

/// What PagerDuty posts when somebody does something there.
async fn pages(chat: &Chat, id: &str, kind: &str, agent: Value, data: Value) -> StatusCode {
    let body =
        json!({ "event": { "id": id, "event_type": kind, "resource_type": "incident", "agent": agent, "data": data } });
    let body = body.to_string();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = ring::hmac::sign(&key, body.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let request = Request::post("/pagerduty/webhook")
        .header("x-pagerduty-signature", format!("v1={hex}"))
        .body(Body::from(body))
        .unwrap();
    chat.router.clone().oneshot(request).await.unwrap().status()
}

#[tokio::test]
async fn what_people_do_in_pagerduty_is_the_same_here_once_and_our_echo_is_nothing() {
    let chat = Chat::begin().await;
    chat.asking().await;
    let ours = |key: &str| json!({ "id": "Q1", "type": "incident", "incident_key": key });
    let ada = json!({ "id": "P0ADA", "type": "user_reference", "summary": "Ada L." });
    let incident = || async {
        let filter = Filter { limit: 1, ..Filter::default() };
        chat.night.parts.store.incidents(filter).await.unwrap().remove(0)
    };
    let key = "nightshift/nightshift/i1";
    for (id, agent) in [("1", Value::Null), ("2", json!({ "id": "I1", "type": "integration_reference" }))] {
        assert_eq!(pages(&chat, id, "incident.acknowledged", agent, ours(key)).await, StatusCode::OK);
        assert_eq!(incident().await.acknowledged_by, None, "our own event that comes back");
    }
    for foreign in ["nightshift/other/i1", "nightshift/nightshift/i99", "x", ""] {
        let status = pages(&chat, foreign, "incident.acknowledged", ada.clone(), ours(foreign)).await;
        assert_eq!(status, StatusCode::OK, "a 4xx thrice would switch the subscription off");
    }
    for _ in 0..2 {
        assert_eq!(pages(&chat, "3", "incident.acknowledged", ada.clone(), ours(key)).await, StatusCode::OK);
        let note = json!({ "content": "looks like <!channel> the switch", "incident": ours(key) });
        let bob = json!({ "id": "P9", "type": "user_reference", "summary": "Bob <b>" });
        assert_eq!(pages(&chat, "4", "incident.annotated", bob, note).await, StatusCode::OK);
    }
    assert_eq!(incident().await.acknowledged_by.as_deref(), Some("ada"));
    let remarks: Vec<String> = chat
        .night
        .entries()
        .await
        .iter()
        .filter(|entry| entry.kind.name() == "remarked")
        .filter_map(|entry| nightshift::engine::story::line(entry).map(|line| line.text))
        .collect();
    assert_eq!(remarks, ["Bob <b> (PagerDuty) noted in PagerDuty: looks like <!channel> the switch"]);
}

#[tokio::test]
async fn an_incident_is_given_to_a_person_and_a_silence_that_cannot_be_made_says_why() {
    let chat = Chat::begin().await;
    chat.asking().await;
    assert_eq!(chat.types("U0ADA", "assign i1 <@U0BOB>").await, "i1 is bob's");
    assert!(chat.types("U0VIC", "incidents").await.contains("bob's"));
    assert_eq!(chat.types("U0BOB", "assign i1 me").await, "i1 is bob's");
    for (user, line, words) in [
        ("U0VIC", "assign i1 me", "viewer"),
        ("U0ADA", "assign i1 <!channel>", "no person"),
        ("U0ADA", "assign i1 <@U0MALLORY>", "no person"),
        ("U0ADA", "silence i1 2h", "a reason is missing"),
        ("U0ADA", "silence i1 soon \"new fan\"", "no length of time"),
        ("U0ADA", "silence i1 2h \"new fan\"", "has no Alertmanager to ask"),
        ("U0ADA", "silence i1 900h why", "a silence lasts from"),
    ] {
        let said = chat.types(user, line).await;
        assert!(said.contains(words), "{line}: {said}");
    }
    let kinds: Vec<&str> = chat.night.entries().await.iter().map(|entry| entry.kind.name()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "incident_assigned").count(), 1, "{kinds:?}");
}

#[tokio::test]
async fn who_asked_for_a_run_cannot_approve_it_as_somebody_else() {
    let chat = Chat::begin().await;
    let night = &chat.night;
    let loaded = night.parts.catalog.current();
    let runbook = &loaded.runbooks["cordon"];
    let params = json!({ "node": "gpu-2" }).as_object().unwrap().clone();
    let input = nightshift::policy::RuleSet::bind(&runbook.header, &params, None).unwrap();
    // Asked for with a token, which bears the same name as the person in Slack.
    let new = nightshift::store::NewRun {
        pin: runbook.pin.clone(),
        subject: nightshift::policy::subject_of(&runbook.header, &input.params, None),
        input,
        mode: nightshift::model::Mode::Approve,
        rule: None,
        terms: None,
        requested_by: "ada".into(),
        once: None,
        now: night.now(),
    };
    let run = night.parts.store.start(new).await.unwrap().unwrap();
    assert!(matches!(night.until_rest(run, MINUTE).await.state, RunState::Asking { .. }));
    let said = chat.types("U0ADA", "approve a1 go").await;
    assert!(said.contains("cannot approve it too"), "{said}");
    assert!(night.effects().is_empty(), "{:?}", night.effects());
    chat.types("U0BOB", "approve a1 go").await;
    night.until_rest(run, MINUTE).await;
    assert_eq!(night.effects().get("patch nodes gpu-2"), Some(&1));
}

#[tokio::test]
async fn one_press_judges_a_plan_and_the_latest_press_of_a_person_counts() {
    let chat = Chat::begin().await;
    let (run, _) = chat.asking().await;
    chat.presses("U0VIC", "right", &run.to_string()).await;
    assert!(chat.answers(1).await[0].contains("`vic` has role viewer"));
    chat.presses("U0ADA", "wrong", &run.to_string()).await;
    chat.answers(2).await;
    chat.presses("U0ADA", "right", &run.to_string()).await;
    let answers = chat.answers(3).await;
    assert!(answers[1].starts_with(&format!("{run}: wrong, says ada")), "{answers:?}");
    assert!(answers[2].contains("on record: 1 matches, 1 right, 0 wrong"), "{answers:?}");
    let typed = chat.types("U0BOB", &format!("judge {run} wrong the fan was loose")).await;
    assert!(typed.contains("0 right, 1 wrong"), "one who says wrong is enough: {typed}");
    assert!(chat.types("U0BOB", "judge r1 perhaps").await.contains("say `right` or `wrong`"));
    assert!(chat.types("U0VIC", "scorecard r").await.contains("rule r is in approve because its file says approve"));
}
