//! What counts as evidence, and for what: not a first sign, not a silence, and not what the rule does no more.
//!
//! Invariant: as in `ladder.rs`: seen by what is done to the fleet, and by what the ledger says.

use super::{CORDON, House, MINUTE, SLOW, rule};
use nightshift::model::{EntryKind, Mode, Run, RunState};
use nightshift::store::ControlChange;
use serde_json::json;
use std::time::Duration;

const OFTEN: &str = "    bake: 3h\n    repeat: { count: 3, within: 10m, by: [node] }\n";

impl House {
    /// The alert fires about gpu-1 and is over again; what was begun with it.
    async fn flickers(&self, boot: &str) -> Option<Run> {
        let labels = [("alertname", "GpuXid"), ("node", "gpu-1"), ("boot", boot)];
        let heard = self.night.hear("firing", &labels).await;
        let run = match heard.runs.first() {
            Some(run) => Some(self.night.until_rest(*run, MINUTE * 5).await),
            None => None,
        };
        self.is_over("gpu-1", boot).await;
        run
    }

    /// The rule has another runbook from now on.
    async fn does_now(&self, runbook: &str) {
        std::fs::write(self.night.path().join("runbooks/remedy.rhai"), runbook).unwrap();
        nightshift::engine::reload(&self.night.parts).await;
    }

    /// What the ledger says of moves down, as people read it.
    async fn downs(&self) -> Vec<String> {
        let entries = self.night.entries().await;
        let downs = entries.iter().filter(|entry| matches!(entry.kind, EntryKind::RuleDemoted { .. }));
        downs.map(|entry| nightshift::engine::story::line(entry).unwrap().text).collect()
    }
}

#[tokio::test]
async fn a_rule_that_acts_at_the_third_time_is_not_brought_down_by_the_first() {
    let house = House::open(&rule("auto", OFTEN), CORDON).await;
    assert!(house.flickers("a").await.is_none() && house.flickers("b").await.is_none());
    assert_eq!(house.flickers("c").await.unwrap().state, RunState::Done);
    house.night.pass(MINUTE * 20).await;
    assert!(house.flickers("d").await.is_none() && house.flickers("e").await.is_none());
    assert_eq!((house.moves().await, house.mode().await.as_str()), (vec![], "auto"), "once or twice is not back");
    let back = house.flickers("f").await.unwrap();
    assert_eq!(back.mode, Mode::Approve, "the third time within ten minutes is, by the rule's own words");
    assert_eq!(house.moves().await.len(), 1);
    assert_eq!(house.night.effects()["patch nodes gpu-1"], 1, "{:?}", house.night.effects());
}

#[tokio::test]
async fn a_source_that_fell_silent_has_not_said_that_it_held() {
    let house = House::open(&rule("auto", "    bake: 30m\n"), CORDON).await;
    let run = house.fires("gpu-1", "a").await;
    let episodes = vec![run.episode.unwrap()];
    let silent = ControlChange::EndEpisodes { episodes, stale: true, why: "not heard of".into() };
    house.night.parts.store.control(silent, house.night.now()).await.unwrap();
    house.night.pass(MINUTE * 31).await;
    house.night.settle().await;
    let card = house.card().await["card"].clone();
    assert_eq!(
        (&card["done"], &card["held"], &card["baking"], &card["lingers"], &card["bad"]),
        (&json!(1), &json!(0), &json!(0), &json!(0), &json!(0)),
        "{card:#}"
    );
    let why = house.why(&run.id.to_string()).await;
    assert!(why.contains("result unknown: the source stopped reporting within 30m"), "{why}");
}

#[tokio::test]
async fn a_late_word_on_what_a_rule_did_before_leaves_it_where_it_is_now() {
    let house = House::open(&rule("auto", ""), CORDON).await;
    let before = house.fires("gpu-1", "a").await;
    house.is_over("gpu-1", "a").await;
    let content = house.card().await["content"].as_str().unwrap()[..8].to_owned();
    house.does_now(SLOW).await;
    // A run of the new content is under way, and has acted once.
    let heard = house.night.hear("firing", &[("alertname", "GpuXid"), ("node", "gpu-2")]).await;
    house.night.settle().await;
    house.night.pass(MINUTE).await;
    house.night.settle().await;
    assert_eq!(house.night.effects().get("patch nodes gpu-2"), Some(&1), "{:?}", house.night.run(heard.runs[0]).await);
    house.judge("rae", before.id, "wrong").await;
    let as_it_was = format!(
        "the earlier version of rule xid (content {content}) is demoted from auto to approve; its current version keeps its level: \
         r1 was reviewed as wrong by rae; 1 of 1 bad outcomes in auto"
    );
    assert_eq!(house.downs().await, [as_it_was]);
    assert_eq!(house.mode().await, "auto");
    let run = house.night.until_rest(heard.runs[0], MINUTE * 15).await;
    assert_eq!((run.mode, run.state), (Mode::Auto, RunState::Done), "nobody was asked");
    assert_eq!(house.night.effects()["patch nodes gpu-2"], 2);
    let why = house.why("rule:xid").await;
    assert!(why.contains(&format!("brought it, as it was then (content {content}), down from auto")), "{why}");
    house.does_now(CORDON).await;
    assert_eq!(house.mode().await, "approve", "put back as it was, it is where that was brought");
}

#[tokio::test]
async fn what_was_edited_and_has_not_run_yet_is_not_said_to_come_down_either() {
    let house = House::open(&rule("auto", ""), CORDON).await;
    let before = house.fires("gpu-1", "a").await;
    house.does_now(SLOW).await;
    house.judge("rae", before.id, "wrong").await;
    let said = house.downs().await;
    assert!(said.len() == 1 && said[0].contains("its current version keeps its level"), "{said:?}");
    assert_eq!(house.mode().await, "auto");
}

#[tokio::test]
async fn a_person_who_brings_a_rule_down_means_what_it_did_before_too() {
    let house = House::open(&rule("auto", ""), SLOW).await;
    let heard = house.night.hear("firing", &[("alertname", "GpuXid"), ("node", "gpu-1")]).await;
    house.night.settle().await;
    house.does_now(CORDON).await;
    assert_eq!(house.ask("rae", "POST", "rules/xid/demote", json!({ "why": "unsure" })).await.0, 200);
    let run = house.night.until_rest(heard.runs[0], Duration::from_secs(900)).await;
    assert!(matches!(run.state, RunState::Asking { .. }), "{:?}", run.state);
    assert_eq!(house.night.effects()["patch nodes gpu-1"], 1);
}
