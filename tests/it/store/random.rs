//! Random commands in random order: whatever comes, the invariants hold.
//!
//! Invariant: the checks after each sequence use nothing but reads of the trait.

use super::fixtures::*;
use nightshift::model::{DeliveryReceipt, EpisodeState, ImpactScope, IncidentState, Outcome, RunState, Span};
use nightshift::store::{ClaimedRun, ControlChange, DeliveryOutcome, NewApproval, SqliteOptions, SqliteStore, Store};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

#[derive(Debug, Clone, Copy)]
enum Do {
    Fire(u8, u8),
    Resolve(u8),
    Claim(u8),
    Begin(u8),
    End(u8),
    Ask(u8),
    Decide(u8, bool),
    Finish(u8),
    Cancel(u8),
    Deliver(u8),
    Silence(u8),
    Tick,
    Sweep,
    Reopen,
}

fn commands() -> impl Strategy<Value = Vec<Do>> {
    let small = || 0_u8..4;
    let one = prop_oneof![
        4 => (small(), 0_u8..3).prop_map(|(node, start)| Do::Fire(node, start)),
        2 => small().prop_map(Do::Resolve),
        4 => small().prop_map(Do::Claim),
        4 => small().prop_map(Do::Begin),
        4 => small().prop_map(Do::End),
        1 => small().prop_map(Do::Ask),
        1 => (small(), any::<bool>()).prop_map(|(which, yes)| Do::Decide(which, yes)),
        2 => small().prop_map(Do::Finish),
        1 => small().prop_map(Do::Cancel),
        2 => small().prop_map(Do::Deliver),
        1 => small().prop_map(Do::Silence),
        1 => Just(Do::Tick),
        1 => Just(Do::Sweep),
        1 => Just(Do::Reopen),
    ];
    prop::collection::vec(one, 1..60)
}

struct Play {
    dir: tempfile::TempDir,
    /// Opens the store of this sequence.
    opens: fn(&Path) -> Arc<dyn Store>,
    store: Arc<dyn Store>,
    second: u64,
    claimed: Vec<ClaimedRun>,
}

impl Play {
    /// Each command may be refused; what counts is what it leaves behind.
    async fn perform(&mut self, command: Do) {
        self.second += 7;
        let now = at(self.second);
        match command {
            Do::Fire(node, start) => {
                let mut event = event("Xid79", &format!("n{node}"));
                event.starts_at = at(u64::from(start) * 50);
                let heard = hear(&self.store, &auto(), vec![event], now).await;
                assert!(heard.runs.len() <= 1);
            }
            Do::Resolve(node) => {
                let mut event = resolved(event("Xid79", &format!("n{node}")));
                event.ends_at = Some(now);
                hear(&self.store, &auto(), vec![event], now).await;
            }
            Do::Claim(which) => {
                let due = self.store.due(now, 10).await.unwrap();
                if let Some(run) = due.runs.get(usize::from(which) % due.runs.len().max(1)) {
                    self.claimed.extend(self.store.claim(*run, now).await.unwrap());
                }
            }
            Do::Sweep => drop(self.store.sweep(hour(), hour(), now).await.unwrap()),
            Do::Tick => drop(self.store.tick(now).await.unwrap()),
            Do::Reopen => {
                self.store.close().await.unwrap();
                self.store = (self.opens)(self.dir.path());
            }
            Do::Silence(which) => {
                let open = self.store.unseen("am", now, None, 10).await.unwrap();
                if let Some(episode) = open.get(usize::from(which) % open.len().max(1)) {
                    let end = ControlChange::EndEpisodes {
                        episodes: vec![episode.id],
                        stale: true,
                        why: "silent".to_owned(),
                    };
                    self.store.control(end, now).await.unwrap();
                }
            }
            Do::Deliver(which) => {
                let due = self.store.due(now, 10).await.unwrap().notices;
                if let Some(notice) = due.get(usize::from(which) % due.len().max(1)) {
                    let what = DeliveryOutcome::Delivered { upto: notice.want, receipt: DeliveryReceipt(Value::Null) };
                    self.store.receipted(&notice.channel, notice.incident, what, now).await.unwrap();
                }
            }
            Do::Decide(which, yes) => {
                let asked = self.store.approvals(all()).await.unwrap();
                if let Some(approval) = asked.get(usize::from(which) % asked.len().max(1)) {
                    self.store.decide(approval.id, yes, "kim", "", now).await.unwrap();
                }
            }
            on_run => self.on_run(on_run, now).await,
        }
    }

    async fn on_run(&mut self, command: Do, now: nightshift::model::Time) {
        let (Do::Begin(which) | Do::End(which) | Do::Ask(which) | Do::Finish(which) | Do::Cancel(which)) = command
        else {
            panic!("{command:?} is not about a run");
        };
        let Some(claimed) = self.claimed.get(usize::from(which) % self.claimed.len().max(1)) else { return };
        let (run, epoch) = (claimed.run.id, claimed.run.epoch);
        let before = self.store.runs(of_run(run)).await.unwrap();
        let steps = self.store.steps(run).await.unwrap();
        let result = match command {
            Do::Begin(_) => {
                let node = claimed.run.subject.node.clone().unwrap_or_default();
                self.store.begin(cordon(claimed, &node), guards(), now).await.map(drop)
            }
            Do::End(_) => {
                let step = steps.len().saturating_sub(1) as u32;
                self.store.end(run, epoch, step, Outcome::Ok(Value::Null), Vec::new(), now).await
            }
            Do::Ask(_) => {
                let question = NewApproval {
                    question: "?".to_owned(),
                    plan: None,
                    foretold: Vec::new(),
                    plan_hash: String::new(),
                    step: None,
                    approvers: Vec::new(),
                    needed: 1,
                    expires_at: now + std::time::Duration::from_secs(30),
                };
                self.store.ask(run, epoch, question, now).await.map(drop)
            }
            Do::Finish(_) => self.store.finish(run, epoch, RunState::Done, now).await,
            _ => {
                self.store.control(ControlChange::Cancel { run, by: "kim".to_owned(), why: "x".to_owned() }, now).await
            }
        };
        let after = self.store.runs(of_run(run)).await.unwrap();
        if before.first().is_some_and(|run| run.state.is_final()) {
            assert!(after.is_empty() || after == before, "a final run changed");
        }
        if result.is_err() {
            assert_eq!(after, before, "{command:?} was refused and yet changed the run");
        }
    }

    async fn check(&self) {
        let store = &self.store;
        let (episodes, incidents) = (store.episodes(all()).await.unwrap(), store.incidents(all()).await.unwrap());
        let runs = store.runs(all()).await.unwrap();
        let open = |episode: &&nightshift::model::Episode| episode.state == EpisodeState::Open;
        let complaints: HashSet<_> = episodes.iter().filter(open).map(|e| e.event.fingerprint.clone()).collect();
        assert_eq!(complaints.len(), episodes.iter().filter(open).count(), "one open episode for a complaint");
        for incident in &incidents {
            let firing = episodes.iter().filter(open).filter(|e| e.incident == Some(incident.id)).count();
            assert_eq!(incident.firing as usize, firing, "{incident:?}");
            let recovers = incident.resolves_at.is_some();
            assert!(!recovers || (firing == 0 && incident.closed_at.is_none()), "{incident:?}");
            assert_eq!(incident.state == IncidentState::Resolved, firing == 0 && !recovers, "{incident:?}");
        }
        let keys: HashSet<_> = incidents.iter().filter(|i| i.closed_at.is_none()).map(|i| i.key.clone()).collect();
        assert_eq!(keys.len() as u64, store.counts().await.unwrap().incidents_open);
        let pairs: HashSet<_> = runs.iter().map(|run| (run.rule.clone(), run.episode)).collect();
        assert_eq!(pairs.len(), runs.len(), "one run for a rule and an episode");
        for run in &runs {
            assert_eq!(run.state.is_final(), run.ended_at.is_some());
            let steps = store.steps(run.id).await.unwrap();
            // One that was cancelled with a step under way stays due until somebody has looked at what that left.
            let cancelled = matches!(run.state, RunState::Denied { .. });
            assert!(!run.state.is_final() || run.wake_at.is_none() || cancelled);
            assert!(steps.iter().zip(0..).all(|(step, no)| step.no == no), "numbered without gaps");
            assert!(steps.iter().rev().skip(1).all(|step| step.outcome.is_some()), "only the last can be open");
        }
        let unfinished = runs.iter().filter(|run| !run.state.is_final()).count();
        assert_eq!(store.counts().await.unwrap().runs_unfinished as usize, unfinished);
        let asking = runs.iter().filter(|run| matches!(run.state, RunState::Asking { .. })).count() as u64;
        assert_eq!(store.counts().await.unwrap().approvals_open, asking, "a question is open while its run asks");
        store.health().await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_commands_breaks_an_invariant(commands in commands()) {
        play(super::sqlite, commands);
    }

    #[test]
    fn nor_does_one_with_flaps_and_storms(commands in commands()) {
        play(patient, commands);
    }
}

/// A store that keeps incidents open for a while, and groups what fires within a minute.
fn patient(dir: &Path) -> Arc<dyn Store> {
    let mut options = SqliteOptions::new(dir.join("store.db"));
    (options.resolve_after, options.group_wait) = (Span::seconds(30), Span::minutes(1));
    Arc::new(SqliteStore::open(options, start()).unwrap())
}

fn play(opens: fn(&Path) -> Arc<dyn Store>, commands: Vec<Do>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let store = opens(dir.path());
        store.pin(&pin(), TEXT, ImpactScope::Node, start()).await.unwrap();
        let mut play = Play { dir, opens, store, second: 0, claimed: Vec::new() };
        for command in commands {
            play.perform(command).await;
        }
        play.check().await;
    });
}
