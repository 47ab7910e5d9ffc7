//! Random moves in random order: no rule ever goes above its ceiling, nor further without an entry that says who let it.
//!
//! Invariant: what is checked is what runs are started with, and what the ledger says.

use crate::store::fixtures::*;
use nightshift::model::{
    DemotionLimits, EntryKind, ImpactScope, Mode, Outcome, PromotionCriteria, RuleSnapshot, RunState, Span,
};
use nightshift::policy::{GuardLimits, effective};
use nightshift::store::{ClaimedRun, ControlChange, Filter, PromotionRequest, SqliteOptions, SqliteStore, Store};
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;

const RUNGS: [Mode; 4] = [Mode::Observe, Mode::Suggest, Mode::Approve, Mode::Auto];

#[derive(Debug, Clone, Copy)]
enum Do {
    Start(u8),
    Finish(u8, bool),
    Judge(u8, u8, bool),
    Promote(u8),
    Demote(u8),
    /// The author writes another mode.
    Write(u8),
    Edit,
    /// The process dies and starts again, perhaps with another ceiling.
    Restart(u8),
}

fn commands() -> impl Strategy<Value = Vec<Do>> {
    let small = || 0_u8..4;
    let one = prop_oneof![
        5 => small().prop_map(Do::Start),
        4 => (small(), any::<bool>()).prop_map(|(which, well)| Do::Finish(which, well)),
        4 => (small(), small(), any::<bool>()).prop_map(|(which, who, right)| Do::Judge(which, who, right)),
        5 => small().prop_map(Do::Promote),
        1 => small().prop_map(Do::Demote),
        1 => small().prop_map(Do::Write),
        1 => Just(Do::Edit),
        1 => small().prop_map(Do::Restart),
    ];
    prop::collection::vec(one, 1..60)
}

struct Play {
    dir: tempfile::TempDir,
    store: Arc<dyn Store>,
    ceiling: Mode,
    file: Mode,
    content: u32,
    second: u64,
    runs: Vec<ClaimedRun>,
    /// What the rule may go to by everything that was said in the open so far.
    last: Mode,
    seen: i64,
}

fn open(dir: &std::path::Path, ceiling: Mode) -> Arc<dyn Store> {
    let options = SqliteOptions { ceiling, ..SqliteOptions::new(dir.join("store.db")) };
    Arc::new(SqliteStore::open(options, start()).unwrap())
}

impl Play {
    fn terms(&self) -> RuleSnapshot {
        let content = self.content.to_string();
        RuleSnapshot {
            content,
            file: self.file,
            bake: Span::minutes(1),
            demote: DemotionLimits { auto: 1, approve: 2 },
            tell: Vec::new(),
        }
    }

    fn climb(&self, who: u8) -> PromotionRequest {
        let promote =
            PromotionCriteria { to: Mode::Auto, matches: 1, judged_right: 1, wrong: 1, held: 0, over: Span::default() };
        let (by, why) = (format!("p{who}"), "x".to_owned());
        PromotionRequest { rule: "xid".to_owned(), terms: self.terms(), promote, to: None, by, why }
    }

    async fn mode(&self) -> Mode {
        let levels = self.store.levels().await.unwrap();
        let terms = self.terms();
        effective(self.file, levels.iter().find(|level| level.content == terms.content), self.ceiling)
    }

    async fn perform(&mut self, command: Do) {
        self.second += 20;
        let now = at(self.second);
        let mut author = false;
        match command {
            Do::Start(node) => {
                let new = nightshift::store::NewRun {
                    pin: pin(),
                    input: Default::default(),
                    subject: nightshift::model::Subject::node(format!("n{node}")),
                    mode: Mode::Auto,
                    rule: Some("xid".to_owned()),
                    terms: Some(self.terms()),
                    requested_by: "rule".to_owned(),
                    once: None,
                    now,
                };
                let expected = self.mode().await;
                let run = self.store.start(new).await.unwrap().unwrap();
                let claimed = self.store.claim(run, now).await.unwrap().unwrap();
                assert_eq!(claimed.run.mode, expected, "a run starts as far as its rule goes");
                self.runs.push(claimed);
            }
            Do::Finish(which, well) => self.finish(which, well).await,
            Do::Judge(which, who, right) => {
                if let Some(claimed) = self.runs.get(usize::from(which)) {
                    let word = ControlChange::Judge {
                        run: claimed.run.id,
                        right,
                        by: format!("p{who}"),
                        why: String::new(),
                        first: false,
                        in_force: Some(self.content.to_string()),
                    };
                    // Refused where there is nothing to judge yet.
                    let _ = self.store.control(word, now).await;
                }
            }
            Do::Promote(who) => drop(self.store.control(ControlChange::Promote(self.climb(who)), now).await),
            Do::Demote(who) => drop(self.store.control(ControlChange::Demote(self.climb(who)), now).await),
            Do::Write(rung) => (self.file, author) = (RUNGS[usize::from(rung)], true),
            Do::Edit => (self.content, author) = (self.content + 1, true),
            Do::Restart(rung) => {
                let epoch_ends = std::mem::take(&mut self.runs);
                self.store.close().await.unwrap();
                self.ceiling = RUNGS[usize::from(rung)];
                self.store = open(self.dir.path(), self.ceiling);
                for claimed in epoch_ends {
                    self.runs.extend(self.store.claim(claimed.run.id, now).await.unwrap());
                }
                author = true;
            }
        }
        self.check(command, author).await;
    }

    async fn finish(&mut self, which: u8, well: bool) {
        if self.runs.is_empty() {
            return;
        }
        let claimed = self.runs.remove(usize::from(which) % self.runs.len());
        let (run, epoch, now) = (claimed.run.id, claimed.run.epoch, at(self.second));
        let plan =
            nightshift::model::Plan { calls: Vec::new(), end: nightshift::model::PlanEnd::Done, hash: "0".repeat(64) };
        self.store.planned(run, epoch, plan, now).await.unwrap();
        let node = claimed.run.subject.node.clone().unwrap_or_default();
        let wide = GuardLimits { nodes_at_once: 50, share_at_once: 1.0, share_per_hour: 1.0, ..GuardLimits::default() };
        let goes = self.store.claim(run, now).await.unwrap().unwrap().run.mode;
        let begun = self.store.begin(cordon(&claimed, &node), Arc::new(wide), now).await.unwrap();
        let acted = matches!(begun, nightshift::store::BeginOutcome::Step(_));
        assert!(!acted || goes == Mode::Auto, "it acted in {goes} without anybody's leave");
        if acted {
            let done = Outcome::Ok(json!({ "changed": true }));
            self.store.end(run, epoch, 0, done, Vec::new(), now).await.unwrap();
        }
        let state = match well {
            true => RunState::Done,
            false => RunState::Failed { why: "x".to_owned(), undone: false },
        };
        self.store.finish(run, epoch, state, now).await.unwrap();
    }

    async fn check(&mut self, command: Do, author: bool) {
        let mode = self.mode().await;
        assert!(mode <= self.ceiling, "{command:?}: {mode} is above {}", self.ceiling);
        let after = Filter { after: Some(self.seen), limit: 1_000, ..Filter::default() };
        let entries = self.store.entries(after).await.unwrap();
        self.seen = entries.last().map_or(self.seen, |entry| entry.no.0);
        let promoted = entries.iter().any(|entry| match &entry.kind {
            EntryKind::RulePromoted { from, to, by, .. } => {
                assert_eq!(from.up(), Some(*to), "one level at a time");
                assert!(by.starts_with('p'), "only people promote: {by}");
                *to == mode
            }
            _ => false,
        });
        let demoted = entries.iter().any(|entry| matches!(entry.kind, EntryKind::RuleDemoted { .. }));
        assert!(mode <= self.last || promoted || author, "{command:?}: up from {} to {mode} by nobody", self.last);
        assert!(
            mode >= self.last || demoted || author,
            "{command:?}: down from {} to {mode} without a word",
            self.last
        );
        self.last = mode;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_rule_goes_above_its_ceiling_or_further_without_an_entry(commands in commands(), file in 0_usize..4) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = open(dir.path(), Mode::Auto);
            store.pin(&pin(), TEXT, ImpactScope::Node, start()).await.unwrap();
            let (file, seen) = (RUNGS[file], -1);
            let mut play =
                Play { dir, store, ceiling: Mode::Auto, file, content: 1, second: 0, runs: Vec::new(), last: file, seen };
            for command in commands {
                play.perform(command).await;
            }
        });
    }
}
