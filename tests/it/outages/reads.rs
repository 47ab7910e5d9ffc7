//! What the person on call reads in Slack at three in the morning, from the alert to the end, when all is well with Slack.
//!
//! Invariant: the words are compared whole, as people see them: one message that says how it stands, and its thread.

use super::Scene;
use super::slack::{does, messages};
use super::vendor::Posted;
use crate::night::Night;
use nightshift::config::{ChannelConfig, SecretSource};
use nightshift::engine::Runner;
use nightshift::store::Filter;
use nightshift::world::sim::{SimFleet, SimOptions};
use nightshift::world::{KubeClient, KubeConfig};
use serde_json::Value;
use std::fmt::Write as _;

const RULE: &str = "rules: [{ name: gpu-fell-off-the-bus, when: ['alertname=\"GpuXid\"', 'xid=\"79\"'], \
                    run: gpu-fell-off-the-bus, mode: approve, tell: [oncall] }]";
const XID: &[(&str, &str)] = &[("alertname", "GpuXid"), ("xid", "79"), ("node", "gpu-2"), ("gpu", "3")];

/// The text as Slack shows it to a reader in UTC: times and links as their words.
fn in_utc(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some((before, sequence)) = rest.split_once('<') {
        shown.push_str(before);
        let (sequence, after) = sequence.split_once('>').unwrap();
        let (address, words) = sequence.rsplit_once('|').unwrap();
        match address.starts_with("!date^") {
            true => shown.push_str(words),
            false => shown.push_str(&format!("[{words}]({address})")),
        }
        rest = after;
    }
    (shown + rest).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// A message as a phone shows it.
fn shown(body: &Value) -> String {
    let mut text = String::new();
    let words = |element: &Value| in_utc(element["text"].as_str().unwrap_or_default());
    for block in body["blocks"].as_array().unwrap() {
        let elements = || block["elements"].as_array().unwrap().iter();
        let _ = match block["type"].as_str().unwrap() {
            "header" => writeln!(text, "# {}", words(&block["text"])),
            "section" => writeln!(text, "{}", words(&block["text"])),
            "context" => writeln!(text, "({})", elements().map(words).collect::<Vec<_>>().join(" | ")),
            "actions" => {
                writeln!(text, "[{}]", elements().map(|one| words(&one["text"])).collect::<Vec<_>>().join("] ["))
            }
            other => panic!("{other}"),
        };
    }
    text
}

pub(super) fn channel(token: SecretSource, url: &str) -> ChannelConfig {
    ChannelConfig::Slack { channel: "C1".into(), token, api: url.to_owned(), buttons: true }
}

pub(super) struct Reader {
    pub scene: Scene,
}

impl Reader {
    fn board(&self) -> Vec<Posted> {
        self.scene.vendor.board()
    }

    /// The message as it is now.
    pub fn message(&self) -> String {
        let board = self.board();
        let all = messages(&board);
        assert_eq!(all.len(), 1);
        shown(all.values().next().unwrap().last())
    }

    /// Everything that the thread says.
    fn thread(&self) -> String {
        let board = self.board();
        let replies = board.iter().filter(|posted| posted.thread.is_some()).map(Posted::last);
        let mark = |body: &Value| if body["reply_broadcast"] == true { "> " } else { "  " };
        let lines =
            |body: &Value| shown(body).lines().map(|line| format!("{}{line}\n", mark(body))).collect::<String>();
        replies.map(lines).collect()
    }

    /// Seconds in which the engine works and the courier tells.
    pub async fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            self.scene.night.settle().await;
            self.scene.pass(1).await;
        }
    }
}

#[tokio::test]
async fn the_message_says_what_is_ill_since_when_what_was_done_and_what_comes_next() {
    let night = Night::fall_on_shipped(RULE).await;
    let reader = Reader { scene: Scene::of(night, does, channel).await };
    let scene = &reader.scene;
    let mut read = String::new();
    let mut page = |what: &str, text: &str| read.push_str(&format!("=== {what}\n{text}\n"));
    scene.night.hear("firing", XID).await;
    scene.tell().await;
    page("03:00, at once", &reader.message());
    reader.pass(5).await;
    page("03:00, its question is an edit", &reader.message());
    reader.pass(55).await;
    scene.acknowledge(2).await;
    reader.pass(60).await;
    let open = Filter { open: true, limit: 10, ..Filter::default() };
    let approval = scene.store().approvals(open).await.unwrap().remove(0).id;
    scene.store().decide(approval, true, "bob", "seen it", scene.now()).await.unwrap();
    reader.pass(60).await;
    page("03:03, it has done what it can", &reader.message());
    scene.night.hear("resolved", XID).await;
    reader.pass(10).await;
    page("03:03, the alert has ended", &reader.message());
    page("its thread; > shows in the channel, too", &reader.thread());
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/outages/night.txt");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(file, &read).unwrap();
    }
    let expected = std::fs::read_to_string(file).unwrap();
    assert_eq!(read, expected, "UPDATE_DOCS=1 writes it anew: then read it as if it were night");
    assert!(!read.contains(" episode"), "a word of ours, not of people's");
}

#[tokio::test]
async fn what_may_still_be_taken_is_said_of_the_cluster_that_it_is_about() {
    let mut night = Night::fall_on_shipped(RULE).await;
    let far = SimFleet::start(SimOptions { nodes: 9, clock: night.clock.clone(), ..SimOptions::default() }).unwrap();
    let kube =
        KubeClient::connect(&KubeConfig { url: far.url(), ..KubeConfig::default() }, "nightshift/test").await.unwrap();
    kube.keep_labels(night.parts.config.guards.labels());
    night.parts.world.clusters.insert("far".to_owned(), kube);
    // The engine has its clients from its parts.
    night.runner = Runner::new(night.parts.clone());
    let reader = Reader { scene: Scene::of(night, does, channel).await };
    let labels: Vec<_> = XID.iter().copied().chain([("cluster", "far")]).collect();
    reader.scene.night.hear("firing", &labels).await;
    reader.pass(10).await;
    assert!(reader.message().contains("0 of 9 GPU nodes out of service"), "{}", reader.message());
}
