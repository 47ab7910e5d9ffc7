//! Stories of the ladder: what a rule shows, who lets it go further, and what brings it down.
//!
//! Invariant: how far a rule goes is seen by what is done to the fleet; why, by what the ledger says.

mod evidence;
mod moves;
mod names;
mod random;

use crate::night::Night;
use axum::body::Body;
use axum::http::Request;
use nightshift::config::Role;
use nightshift::engine::NotificationDispatcher;
use nightshift::model::{EntryKind, Mode, Run, RunId, RunState};
use nightshift::server::{App, ConfiguredTokens, GivenToken, router};
use nightshift::store::ControlChange;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const CORDON: &str = "//! Cordon a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: on-failure\n\n\
     k8s::cordon(node, \"test\");\n";
/// Changes something, and then cannot go on.
const FAILS: &str = "//! Fails.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: on-failure\n\n\
     k8s::cordon(node, \"test\");\nk8s::scale(\"inference/no-such-thing\", 2);\n";
/// Two changes with time between them.
const SLOW: &str = "//! Slow.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: on-failure\n\n\
     k8s::cordon(node, \"test\");\nsleep(\"10m\");\nk8s::label(node, \"nightshift.dev/test\", \"yes\");\n";

fn rule(mode: &str, more: &str) -> String {
    format!(
        "rules:\n  - name: xid\n    when: ['alertname=\"GpuXid\"']\n    run: remedy\n    mode: {mode}\n    cooldown: 1s\n{more}"
    )
}

/// Little is asked for, so that the stories stay short.
const SOON: &str = "    promote: { matches: 2, judged_right: 1, held: 1, over: 1h }\n";

/// An engine with people who may do different things.
struct House {
    night: Night,
    router: axum::Router,
}

fn token(name: &str) -> String {
    format!("{name}-0123456789abcdef0123456789abcdef")
}

impl House {
    async fn open(rules: &str, runbook: &str) -> House {
        House::of(Night::fall(rules, &[("remedy", runbook)]).await)
    }

    fn of(night: Night) -> House {
        let people =
            [("vic", Role::Viewer), ("rae", Role::Responder), ("ann", Role::Approver), ("ops", Role::Operator)];
        let given = people.map(|(name, role)| GivenToken {
            name: name.to_owned(),
            role,
            sources: Vec::new(),
            clusters: None,
            text: token(name),
        });
        let router = router(App::new(night.parts.clone(), ConfiguredTokens::new(given.to_vec()).unwrap()));
        House { night, router }
    }

    async fn ask(&self, who: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = Request::builder().method(method).uri(format!("/api/v1/{path}"));
        let request = request.header("authorization", format!("Bearer {}", token(who)));
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let answer = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 22).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn promote(&self, who: &str, body: Value) -> (u16, Value) {
        self.ask(who, "POST", "rules/xid/promote", body).await
    }

    async fn promoted(&self, who: &str, to: &str) {
        let (status, answer) = self.promote(who, json!({ "why": "it was right" })).await;
        assert_eq!((status, &answer["scorecard"]["mode"]), (200, &json!(to)), "{answer:#}");
    }

    async fn refused(&self, who: &str) -> String {
        let (status, answer) = self.promote(who, json!({ "why": "let it" })).await;
        assert_eq!(status, 409, "{answer:#}");
        answer["error"].as_str().unwrap().to_owned()
    }

    async fn judge(&self, who: &str, run: RunId, verdict: &str) {
        let body = json!({ "verdict": verdict });
        let (status, answer) = self.ask(who, "POST", &format!("runs/{run}/judge"), body).await;
        assert_eq!(status, 200, "{answer:#}");
    }

    async fn card(&self) -> Value {
        self.ask("vic", "GET", "rules/xid/scorecard", Value::Null).await.1["scorecard"].clone()
    }

    async fn mode(&self) -> String {
        self.card().await["mode"].as_str().unwrap().to_owned()
    }

    async fn why(&self, about: &str) -> String {
        self.ask("vic", "GET", &format!("why?subject={about}"), Value::Null).await.1.to_string()
    }

    /// The alert fires about this node; its run goes as far as it goes by itself.
    async fn fires(&self, node: &str, boot: &str) -> Run {
        let heard = self.night.hear("firing", &[("alertname", "GpuXid"), ("node", node), ("boot", boot)]).await;
        self.night.until_rest(heard.runs[0], MINUTE * 5).await
    }

    /// It is over, and a person gives the node back.
    async fn is_over(&self, node: &str, boot: &str) {
        self.night.hear("resolved", &[("alertname", "GpuXid"), ("node", node), ("boot", boot)]).await;
        self.night.by_hand(node, false).await;
    }

    async fn yes(&self, run: &Run) -> Run {
        let RunState::Asking { approval } = run.state else { panic!("{:?}", run.state) };
        let body = json!({ "approve": true, "why": "go" });
        assert_eq!(self.ask("ann", "POST", &format!("approvals/{approval}"), body).await.0, 200);
        self.night.until_rest(run.id, MINUTE * 5).await
    }

    /// The moves that the ledger knows.
    async fn moves(&self) -> Vec<(Mode, Mode, String, String)> {
        let moves = self.night.entries().await.into_iter().filter_map(|entry| match entry.kind {
            EntryKind::RulePromoted { from, to, by, why, .. } | EntryKind::RuleDemoted { from, to, by, why, .. } => {
                Some((from, to, by, why))
            }
            _ => None,
        });
        moves.collect()
    }
}

#[tokio::test]
async fn a_rule_climbs_one_rung_at_a_time_on_what_it_has_shown() {
    let house = House::open(&rule("observe", SOON), CORDON).await;
    let first = house.fires("gpu-1", "a").await;
    assert_eq!((first.mode, &first.state), (Mode::Observe, &RunState::Planned));
    let (status, answer) = house.promote("ops", json!({ "to": "auto", "why": "now" })).await;
    assert_eq!(status, 409);
    assert!(
        answer["error"].as_str().unwrap().contains("promotion goes one level at a time, and the next level is suggest"),
        "{answer:#}"
    );
    house.promoted("ops", "suggest").await;

    assert_eq!(
        house.refused("ops").await,
        "rule xid has not shown enough for approve: requires 2 matches, has 1; requires 1 reviewed as right, has 0"
    );
    house.fires("gpu-2", "a").await;
    assert!(house.refused("ops").await.ends_with("enough for approve: requires 1 reviewed as right, has 0"));
    let told = house.fires("gpu-3", "a").await;
    assert_eq!((told.mode, &told.state), (Mode::Suggest, &RunState::Planned));
    house.judge("rae", told.id, "right").await;
    house.promoted("ops", "approve").await;
    assert!(house.night.effects().is_empty(), "{:?}", house.night.effects());

    for node in ["gpu-1", "gpu-2", "gpu-3"] {
        house.is_over(node, "a").await;
    }
    let asks = house.fires("gpu-1", "b").await;
    assert_eq!(house.yes(&asks).await.state, RunState::Done);
    house.is_over("gpu-1", "b").await;
    assert!(house.refused("ops").await.contains("requires 1 outcomes that held, has 0"));
    house.night.pass(HOUR + MINUTE).await;
    house.night.settle().await;
    let card = house.card().await;
    assert_eq!((&card["card"]["held"], &card["card"]["baking"]), (&json!(1), &json!(0)), "{card:#}");
    house.promoted("ops", "auto").await;

    let acts = house.fires("gpu-2", "b").await;
    assert_eq!((acts.mode, &acts.state), (Mode::Auto, &RunState::Done));
    let rungs: Vec<Mode> = house.moves().await.into_iter().map(|(_, to, ..)| to).collect();
    assert_eq!(rungs, [Mode::Suggest, Mode::Approve, Mode::Auto]);
    let why = house.why(&acts.id.to_string()).await;
    assert!(
        why.contains("was in auto because, on 2026-11-23") && why.contains("ops promoted it from approve"),
        "{why}"
    );
    let why = house.why("xid").await;
    assert!(why.contains("auto because it was promoted by ops on 2026-11-23") && why.contains("it was right"), "{why}");
    assert_eq!(house.promote("ops", json!({ "why": "more" })).await.0, 409, "there is nothing above auto");
}

#[tokio::test]
async fn who_may_judge_and_who_may_move_a_rule() {
    let house = House::open(&rule("observe", "    promote: { matches: 1 }\n"), CORDON).await;
    let run = house.fires("gpu-1", "a").await.id;
    let judge = |who: &'static str| house.ask(who, "POST", "runs/r1/judge", json!({ "verdict": "right" }));
    assert_eq!((run, judge("vic").await.0, judge("rae").await.0), (RunId(1), 403, 200));
    for who in ["vic", "rae", "ann"] {
        assert_eq!(house.promote(who, json!({ "why": "x" })).await.0, 403, "{who}");
    }
    assert_eq!(house.promote("ops", json!({ "why": " " })).await.0, 400, "a move has a reason");
    house.promoted("ops", "suggest").await;
    let demote = |who: &'static str, body| house.ask(who, "POST", "rules/xid/demote", body);
    assert_eq!(demote("vic", json!({ "why": "x" })).await.0, 403);
    assert_eq!(demote("rae", json!({ "why": "noise", "to": "auto" })).await.0, 409, "down is down");
    assert_eq!(demote("rae", json!({ "why": "noise" })).await.0, 200);
    assert_eq!(house.mode().await, "observe");
    let unknown = house.ask("ops", "POST", "rules/xida/promote", json!({ "why": "x" })).await;
    assert_eq!((unknown.0, unknown.1["hint"].as_str()), (404, Some("did you mean `xid`?")));
}

#[tokio::test]
async fn the_latest_word_of_each_person_counts_and_one_wrong_is_enough() {
    let house = House::open(&rule("observe", SOON), CORDON).await;
    let run = house.fires("gpu-1", "a").await.id;
    for (who, verdict, right, wrong) in
        [("rae", "right", 1, 0), ("rae", "wrong", 0, 1), ("ann", "right", 0, 1), ("rae", "right", 1, 0)]
    {
        house.judge(who, run, verdict).await;
        let card = house.card().await["card"].clone();
        assert_eq!((&card["right"], &card["wrong"]), (&json!(right), &json!(wrong)), "{who} {verdict}: {card:#}");
    }
    let words = house.night.entries().await.into_iter().filter(|entry| entry.kind.name() == "run_judged").count();
    assert_eq!(words, 4, "each word is in the ledger");
    let by_hand = house.night.start("remedy", Mode::Observe, json!({ "node": "gpu-2" })).await;
    let (status, answer) =
        house.ask("rae", "POST", &format!("runs/{by_hand}/judge"), json!({ "verdict": "right" })).await;
    assert_eq!(status, 409);
    assert!(answer["error"].as_str().unwrap().contains("was started by hand"), "{answer:#}");
    assert_eq!(house.ask("rae", "POST", "runs/r1/judge", json!({ "verdict": "fine" })).await.0, 400);
}

#[tokio::test]
async fn nobody_promotes_a_rule_to_auto_on_their_own_word_alone() {
    let alone = "    promote: { matches: 1, judged_right: 1, held: 0, over: 0s }\n";
    let house = House::open(&rule("approve", alone), CORDON).await;
    let run = house.fires("gpu-1", "a").await.id;
    house.judge("ops", run, "right").await;
    assert!(house.refused("ops").await.ends_with("requires a review or approval by a user other than ops, has none"));
    // Nor with the word of a token that they made.
    let bot = nightshift::store::NewToken {
        name: "bot".to_owned(),
        grant: nightshift::model::RoleGrant::everywhere(Role::Approver),
        sources: Vec::new(),
        hash: "0".repeat(64),
        by: "ops".to_owned(),
        root: Some("ops".to_owned()),
        person: None,
        made_with: None,
        expires_at: house.night.now() + HOUR,
    };
    house.night.parts.store.token_make(bot, house.night.now()).await.unwrap();
    let word = ControlChange::Judge {
        run,
        right: true,
        by: "bot".to_owned(),
        why: String::new(),
        first: false,
        in_force: None,
    };
    house.night.parts.store.control(word, house.night.now()).await.unwrap();
    assert!(house.refused("ops").await.ends_with("requires a review or approval by a user other than ops, has none"));
    house.judge("rae", run, "right").await;
    house.promoted("ops", "auto").await;
}

#[tokio::test]
async fn a_rule_whose_file_says_auto_acts_at_once_as_it_always_did() {
    let house = House::open(&rule("auto", ""), CORDON).await;
    assert_eq!(house.fires("gpu-1", "a").await.state, RunState::Done);
    let card = house.card().await;
    assert_eq!((&card["mode"], &card["level"], &card["next"]), (&json!("auto"), &Value::Null, &Value::Null));
    assert!(house.why("r1").await.contains("because of its file"));
}

#[tokio::test]
async fn a_complaint_that_is_back_within_the_bake_time_brings_its_rule_down() {
    let house = House::open(&rule("auto", "    bake: 30m\n"), CORDON).await;
    let first = house.fires("gpu-1", "a").await;
    house.is_over("gpu-1", "a").await;
    house.night.pass(MINUTE * 29).await;
    let second = house.fires("gpu-1", "b").await;
    assert_eq!(second.mode, Mode::Approve, "the run that it is back with is asked about already");
    assert!(matches!(second.state, RunState::Asking { .. }), "{:?}", second.state);
    assert_eq!(house.night.effects()["patch nodes gpu-1"], 1, "{:?}", house.night.effects());
    let why = format!("after {} the alert came back within the bake time; 1 of 1 bad outcomes in auto", first.id);
    assert_eq!(house.moves().await, [(Mode::Auto, Mode::Approve, "engine".to_owned(), why)]);
    let said = house.why("rule:xid").await;
    assert!(said.contains("approve because it was demoted by the engine"), "{said}");
    let (_, status) = house.ask("vic", "GET", "status", Value::Null).await;
    assert_eq!(status["moved"][0]["mode"], "approve", "{status:#}");
    assert_eq!(house.ask("vic", "GET", "guards", Value::Null).await.1["moved"][0]["file"], "auto");
}

#[tokio::test]
async fn a_complaint_that_is_back_later_is_another_one() {
    let house = House::open(&rule("auto", "    bake: 30m\n"), CORDON).await;
    house.fires("gpu-1", "a").await;
    house.is_over("gpu-1", "a").await;
    house.night.pass(MINUTE * 31).await;
    house.night.settle().await;
    assert_eq!(house.fires("gpu-1", "b").await.state, RunState::Done);
    let card = house.card().await["card"].clone();
    assert_eq!((&card["held"], &card["back"], &card["bad"]), (&json!(1), &json!(0), &json!(0)), "{card:#}");
    assert!(house.moves().await.is_empty());
}

#[tokio::test]
async fn another_alert_of_the_rule_about_the_same_node_is_not_the_one_that_was_fixed() {
    // The rule tells alerts apart by `boot`: each is an incident of its own.
    let house = House::open(&rule("auto", "    bake: 30m\n    group_by: [boot]\n"), CORDON).await;
    house.fires("gpu-1", "a").await;
    house.is_over("gpu-1", "a").await;
    house.night.pass(MINUTE * 10).await;
    assert_eq!(house.fires("gpu-1", "b").await.mode, Mode::Auto);
    assert!(house.moves().await.is_empty(), "{:?}", house.moves().await);
    house.is_over("gpu-1", "b").await;
    house.night.pass(MINUTE).await;
    let again =
        house.night.hear("firing", &[("alertname", "GpuXid"), ("node", "gpu-1"), ("boot", "b"), ("x", "1")]).await;
    house.night.until_rest(again.runs[0], MINUTE * 5).await;
    assert_eq!(house.moves().await.len(), 1, "that one is back");
}

#[tokio::test]
async fn what_never_went_away_has_neither_held_nor_come_back() {
    let house = House::open(&rule("auto", ""), CORDON).await;
    house.fires("gpu-1", "a").await;
    house.night.pass(HOUR * 2).await;
    house.night.settle().await;
    let card = house.card().await["card"].clone();
    assert_eq!((&card["held"], &card["lingers"], &card["bad"]), (&json!(0), &json!(1), &json!(0)), "{card:#}");
}

#[tokio::test]
async fn a_remedy_that_fails_brings_its_rule_down_and_evidence_begins_anew() {
    let house = House::open(&rule("auto", SOON), FAILS).await;
    let failed = house.fires("gpu-1", "a").await;
    assert!(matches!(failed.state, RunState::Failed { undone: true, .. }), "{:?}", failed.state);
    assert_eq!(house.mode().await, "approve");
    let card = house.card().await["card"].clone();
    assert_eq!((&card["matches"], &card["bad"]), (&json!(0), &json!(0)), "{card:#}");
    let kept = house.card().await["level"]["card"].clone();
    assert_eq!((&kept["failed"], &kept["taken_back"]), (&json!(1), &json!(1)), "what it rested on is kept: {kept:#}");
    assert!(house.refused("ops").await.contains("requires 2 matches, has 0"));
    let why = house.why(&failed.id.to_string()).await;
    assert!(why.contains("r1 failed and undid its steps; 1 of 1 bad outcomes in auto"), "{why}");
}

#[tokio::test]
async fn one_that_was_judged_wrong_brings_it_down_too_and_three_denials_with_a_reason() {
    let house = House::open(&rule("auto", ""), CORDON).await;
    let run = house.fires("gpu-1", "a").await.id;
    house.judge("rae", run, "wrong").await;
    assert_eq!(house.mode().await, "approve");
    house.is_over("gpu-1", "a").await;
    for (at, node) in ["gpu-2", "gpu-3", "gpu-4"].into_iter().enumerate() {
        assert_eq!(house.mode().await, "approve", "after {at} denials");
        let asks = house.fires(node, "a").await;
        let RunState::Asking { approval } = asks.state else { panic!("{:?}", asks.state) };
        let no = json!({ "approve": false, "why": "that node is fine" });
        assert_eq!(house.ask("ann", "POST", &format!("approvals/{approval}"), no).await.0, 200);
    }
    assert_eq!(house.mode().await, "suggest");
    let (.., by, why) = house.moves().await.pop().unwrap();
    assert_eq!((by.as_str(), why.as_str()), ("engine", "r4 was denied by ann; 3 of 3 bad outcomes in approve"));
}

#[tokio::test]
async fn a_rule_that_is_brought_down_in_the_middle_of_a_run_does_nothing_more() {
    let house = House::open(&rule("auto", ""), SLOW).await;
    let heard = house.night.hear("firing", &[("alertname", "GpuXid"), ("node", "gpu-1")]).await;
    house.night.settle().await;
    assert_eq!(house.night.effects()["patch nodes gpu-1"], 1);
    let body = json!({ "to": "suggest", "why": "the driver is new" });
    assert_eq!(house.ask("rae", "POST", "rules/xid/demote", body).await.0, 200);
    let run = house.night.until_rest(heard.runs[0], MINUTE * 15).await;
    let story = house.night.story(run.id).await;
    assert!(!story.iter().any(|line| line.contains("label")), "{story:#?}");
    assert!(story.last().unwrap().starts_with("undo: k8s::uncordon"), "taking back passes: {story:#?}");
    let RunState::Failed { why, undone: true } = run.state else { panic!("{:?}", run.state) };
    assert!(why.contains("the mode is suggest now"), "{why}");
}

#[tokio::test]
async fn a_run_whose_rule_went_down_to_approve_asks_before_its_next_step() {
    let house = House::open(&rule("auto", ""), SLOW).await;
    let heard = house.night.hear("firing", &[("alertname", "GpuXid"), ("node", "gpu-1")]).await;
    house.night.settle().await;
    assert_eq!(house.ask("rae", "POST", "rules/xid/demote", json!({ "why": "unsure" })).await.0, 200);
    let run = house.night.until_rest(heard.runs[0], MINUTE * 15).await;
    let done = house.yes(&run).await;
    assert_eq!(done.state, RunState::Done);
    assert_eq!(house.night.effects()["patch nodes gpu-1"], 2);
}

#[tokio::test]
async fn a_changed_runbook_has_shown_nothing_yet() {
    let house = House::open(&rule("observe", "    promote: { matches: 1 }\n"), CORDON).await;
    house.fires("gpu-1", "a").await;
    house.promoted("ops", "suggest").await;
    let before = house.card().await["content"].clone();
    std::fs::write(house.night.path().join("runbooks/remedy.rhai"), CORDON.replace("test", "another")).unwrap();
    nightshift::engine::reload(&house.night.parts).await;
    let card = house.card().await;
    assert_ne!(card["content"], before);
    assert_eq!((&card["mode"], &card["card"]["matches"]), (&json!("observe"), &json!(0)), "{card:#}");
    house.promoted("ops", "suggest").await;
    assert!(house.refused("ops").await.contains("enough for approve: requires 1 matches, has 0"));
    // Put back as it was, it has what it had.
    std::fs::write(house.night.path().join("runbooks/remedy.rhai"), CORDON).unwrap();
    nightshift::engine::reload(&house.night.parts).await;
    let card = house.card().await;
    assert_eq!((&card["mode"], &card["card"]["matches"]), (&json!("suggest"), &json!(1)), "{card:#}");
}

#[tokio::test]
async fn who_is_told_and_the_mode_itself_are_no_other_content_but_a_new_mode_is_the_authors_word() {
    let house = House::open(&rule("observe", "    promote: { matches: 1 }\n"), CORDON).await;
    house.fires("gpu-1", "a").await;
    house.promoted("ops", "suggest").await;
    let write = async |text: String| {
        std::fs::write(house.night.path().join("rules/test.yaml"), text).unwrap();
        nightshift::engine::reload(&house.night.parts).await;
    };
    write(rule("observe", "    promote: { matches: 1 }\n    tell: [somewhere]\n    approvers: [ann]\n")).await;
    assert_eq!(house.mode().await, "suggest");
    write(rule("auto", "    promote: { matches: 1 }\n")).await;
    assert_eq!(house.mode().await, "auto", "reviewed in git");
    assert_eq!(house.ask("rae", "POST", "rules/xid/demote", json!({ "why": "no" })).await.0, 200);
    write(rule("approve", "")).await;
    assert_eq!(house.mode().await, "approve");
    write(rule("observe", "")).await;
    assert_eq!(house.mode().await, "observe", "a file that says less is obeyed at once");
    write(rule("auto", "")).await;
    assert_eq!(house.mode().await, "approve", "and one that says more lifts nobody who was brought down");
}

#[tokio::test]
async fn the_time_saved_is_unknown_until_people_have_answered_often_enough() {
    let soon = "    promote: { matches: 1, judged_right: 1, held: 0, over: 0s }\n";
    let house = House::open(&rule("approve", soon), CORDON).await;
    for node in ["gpu-1", "gpu-2", "gpu-3"] {
        assert_eq!(house.card().await["card"]["saved"], Value::Null);
        let asks = house.fires(node, "a").await;
        house.night.pass(MINUTE * 6).await;
        house.yes(&asks).await;
        house.is_over(node, "a").await;
    }
    house.promoted("ops", "auto").await;
    assert_eq!(house.card().await["card"]["saved"], "0s");
    assert_eq!(house.fires("gpu-4", "a").await.state, RunState::Done);
    let card = house.card().await["card"].clone();
    assert!(card["saved"].as_str().is_some_and(|saved| saved.starts_with("6m")), "{card:#}");
}

#[tokio::test]
async fn a_suggestion_in_slack_can_be_judged_with_one_press_until_somebody_has() {
    let house = House::open(&rule("suggest", "    tell: [oncall]\n"), CORDON).await;
    let server = crate::recording::Recording::slack().await;
    let told = BTreeMap::from([("oncall".to_owned(), crate::notifiers::slack_with_buttons(&server))]);
    let parts = &house.night.parts;
    let clock = parts.clock.clone();
    let courier = NotificationDispatcher::with(
        parts.store.clone(),
        parts.store.clone(),
        Arc::new(told),
        clock,
        parts.nudge.clone(),
        "test",
        None,
    );
    let buttons = || {
        let body = server.seen().into_iter().rfind(|seen| seen.body["metadata"]["event_payload"]["rev"].is_string());
        let blocks = body.unwrap().body["blocks"].as_array().unwrap().clone();
        let elements = blocks.iter().filter_map(|block| block["elements"].as_array()).flatten().cloned();
        let text = |element: &Value, name: &str| element[name].as_str().unwrap_or_default().to_owned();
        let judges =
            elements.map(|element| (text(&element, "action_id"), text(&element, "value"))).filter(|(action, value)| {
                crate::night::seal().open(action, value, parts.clock.now()).is_ok_and(|one| one.id == "r1")
            });
        judges.map(|(action, _)| action).collect::<Vec<_>>()
    };
    let run = house.fires("gpu-1", "a").await;
    courier.pass().await.unwrap();
    assert_eq!(buttons(), ["right", "wrong"]);
    house.judge("rae", run.id, "right").await;
    house.night.pass(MINUTE).await;
    courier.pass().await.unwrap();
    assert_eq!(buttons(), Vec::<String>::new());
    let thread = server.seen().into_iter().any(|seen| seen.text.contains("r1 reviewed as right by rae"));
    assert!(thread, "{:#?}", server.seen());
}

#[tokio::test]
async fn a_redacted_reason_is_gone_from_the_level_too() {
    let house = House::open(&rule("auto", ""), CORDON).await;
    let secret = json!({ "why": "password hunter2" });
    assert_eq!(house.ask("rae", "POST", "rules/xid/demote", secret).await.0, 200);
    let entry = house.night.entries().await.into_iter().find(|entry| entry.kind.name() == "rule_demoted").unwrap();
    let redact = ControlChange::Redact {
        entry: entry.no,
        by: "ops".into(),
        why: "a secret".into(),
        persons: 1,
        notify: Vec::new(),
    };
    house.night.parts.store.control(redact, house.night.now()).await.unwrap();
    assert!(!house.card().await.to_string().contains("hunter2"));
    assert!(!house.why("rule:xid").await.contains("hunter2"));
}
