//! Every guard under random interleavings of eight runs, with the store closed and opened between any two commits.
//!
//! Invariant: the oracle is a fleet of its own, which is told only of what begins and never reads the store's tables.

use crate::store::fixtures::{TEXT, all, at, pin, start};
use nightshift::model::{
    ActionCall, EffectClass, EntryKind, Freeze, ImpactScope, Mode, Outcome, Reason, ReasonCode, RunId, RunInput,
    RunState, Subject, Time,
};
use nightshift::policy::{
    AffectedReplicas, ClosedWindow, GuardLimits, NodeGroup, ReadyReplica, StepProposal, WorldFacts,
};
use nightshift::store::{
    BeginOutcome, ClaimedRun, ControlChange, Filter, NewRun, SqliteOptions, SqliteStore, Store, StoreError,
};
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const RUNS: usize = 8;
const NODES: usize = 8;
const SETS: usize = 4;
/// Also half of all, and so two of a pool.
const AT_ONCE: usize = 4;
const RACK: &str = "topology.kubernetes.io/rack";
const POOL: &str = "node-pool";

#[derive(Debug, Clone, Copy)]
enum Do {
    /// The run reads the world for a node; what others of our runs do after that it does not see.
    Look(usize, usize),
    Cordon(usize),
    Drain(usize),
    Evict(usize, usize),
    End(usize),
    Finish(usize, How),
    Freeze(bool),
    ByHand(usize),
    /// A fact that forbids: a window, a silence, no second signal, protection, the kill file, another user's cordon.
    Forbidden(usize, usize),
    Reset,
    Pass(u64),
    Reopen,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Done,
    Failed,
    Stuck,
    Cancelled,
}

fn commands() -> impl Strategy<Value = Vec<Do>> {
    let run = || 0..RUNS;
    let how =
        prop_oneof![4 => Just(How::Done), 2 => Just(How::Failed), 1 => Just(How::Stuck), 1 => Just(How::Cancelled)];
    let one = prop_oneof![
        6 => (run(), 0..NODES).prop_map(|(run, node)| Do::Look(run, node)),
        5 => run().prop_map(Do::Cordon),
        5 => run().prop_map(Do::Drain),
        3 => (run(), 0..SETS).prop_map(|(run, set)| Do::Evict(run, set)),
        4 => run().prop_map(Do::End),
        4 => (run(), how).prop_map(|(run, how)| Do::Finish(run, how)),
        1 => prop_oneof![1 => Just(true), 3 => Just(false)].prop_map(Do::Freeze),
        1 => prop_oneof![Just(0), Just(6)].prop_map(Do::ByHand),
        1 => (run(), 0..6_usize).prop_map(|(run, which)| Do::Forbidden(run, which)),
        1 => Just(Do::Reset),
        2 => prop_oneof![Just(1_u64), Just(20), Just(90)].prop_map(Do::Pass),
        2 => Just(Do::Reopen),
    ];
    prop::collection::vec(one, 20..90)
}

/// One of our runs, as the oracle sees it.
#[derive(Default)]
struct Ours {
    claimed: Option<ClaimedRun>,
    open: bool,
    steps: u32,
    acted: bool,
    nodes: BTreeSet<usize>,
    sets: BTreeSet<usize>,
    look: Option<(usize, WorldFacts)>,
}

struct Play {
    dir: tempfile::TempDir,
    store: Option<Arc<dyn Store>>,
    limits: Arc<GuardLimits>,
    second: u64,
    runs: Vec<Ours>,
    /// Held for ever by runs that are stuck.
    stuck: BTreeMap<usize, RunId>,
    by_hand: BTreeSet<usize>,
    /// What a failed run left out of service.
    left_out: BTreeSet<usize>,
    /// For each set its pods, the node of each, and whether it is there.
    pods: Vec<Vec<(String, usize)>>,
    born: usize,
    frozen: bool,
    taken: Vec<(usize, u64)>,
    failed: Vec<u64>,
    doubted: Vec<u64>,
    refusals: usize,
    begun: usize,
}

fn name(node: usize) -> String {
    format!("n{node}")
}

impl Play {
    fn new() -> Play {
        let shm = std::path::Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
        let limits = GuardLimits {
            nodes_at_once: AT_ONCE as u32,
            share_at_once: 0.5,
            share_per_hour: 0.75,
            share_per_day: 1.0,
            correlated_share: 1.0,
            ..GuardLimits::default()
        };
        let mut play = Play {
            dir,
            store: None,
            limits: Arc::new(limits),
            second: 0,
            runs: (0..RUNS).map(|_| Ours::default()).collect(),
            stuck: BTreeMap::new(),
            by_hand: BTreeSet::new(),
            left_out: BTreeSet::new(),
            pods: vec![Vec::new(); SETS],
            born: 0,
            frozen: false,
            taken: Vec::new(),
            failed: Vec::new(),
            doubted: Vec::new(),
            refusals: 0,
            begun: 0,
        };
        for set in 0..SETS {
            for replica in 0..2 {
                play.bear(set, (2 * set + 3 * replica) % NODES);
            }
        }
        play.open();
        play
    }

    fn open(&mut self) {
        // Dropped, not closed in order: what was committed is all that the next one may rely on.
        self.store = None;
        let path = self.dir.path().join("store.db");
        let open = || SqliteStore::open(SqliteOptions::new(path.clone()), self.now());
        // A process that another test is starting has our files, and so the lock, until it has become its program.
        let tries = std::iter::repeat_with(open).take(10_000);
        let opened = tries.inspect(|_| std::thread::yield_now()).find(|one| !matches!(one, Err(StoreError::Locked(_))));
        self.store = Some(Arc::new(opened.expect("nobody else has this store").unwrap()));
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().expect("the store is open between commands")
    }

    fn now(&self) -> Time {
        at(self.second)
    }

    fn bear(&mut self, set: usize, node: usize) {
        self.born += 1;
        self.pods[set].push((format!("llm/m{set}-{}", self.born), node));
    }

    /// Out of service as anybody can see it.
    fn out(&self) -> BTreeSet<usize> {
        let ours = self.runs.iter().flat_map(|run| &run.nodes).chain(self.stuck.keys());
        ours.chain(&self.by_hand).chain(&self.left_out).copied().collect()
    }

    fn holders(&self, but: usize) -> impl Iterator<Item = usize> {
        let others = self.runs.iter().enumerate().filter(move |(at, _)| *at != but).flat_map(|(_, run)| &run.nodes);
        others.chain(self.stuck.keys()).copied().collect::<Vec<_>>().into_iter()
    }

    fn facts(&self, node: usize, takes: impl Fn(&(String, usize)) -> bool) -> WorldFacts {
        let out = self.out();
        let group = |label: &str, size: usize| {
            let members: Vec<usize> = (0..NODES).filter(|other| other / size == node / size).collect();
            NodeGroup {
                label: label.to_owned(),
                value: format!("{label}-{}", node / size),
                out: members.iter().filter(|member| out.contains(member)).map(|member| name(*member)).collect(),
                members: members.into_iter().map(name).collect(),
            }
        };
        let serving = |(set, pods): (usize, &Vec<(String, usize)>)| {
            let going: Vec<String> = pods.iter().filter(|pod| takes(pod)).map(|(pod, _)| pod.clone()).collect();
            let ready = pods.iter().map(|(pod, node)| ReadyReplica { pod: pod.clone(), node: name(*node) }).collect();
            (!going.is_empty()).then(|| AffectedReplicas {
                set: format!("llm/m{set}"),
                floor: 1,
                floor_from: "guards.serving_floor".to_owned(),
                ready,
                takes: going,
                takes_any: 0,
            })
        };
        WorldFacts {
            nodes_total: Some(NODES as u32),
            nodes_out: out.iter().copied().map(name).collect(),
            groups: vec![group(RACK, 2), group(POOL, 4)],
            serving: self.pods.iter().enumerate().filter_map(serving).collect(),
            read_at: Some(self.now()),
            ..WorldFacts::default()
        }
    }

    async fn claimed(&mut self, which: usize) -> ClaimedRun {
        if let Some(claimed) = &self.runs[which].claimed {
            return claimed.clone();
        }
        let new = NewRun {
            pin: pin(),
            input: RunInput::default(),
            subject: Subject::node(name(which)),
            mode: Mode::Auto,
            rule: Some("xid".to_owned()),
            terms: None,
            requested_by: "rule".to_owned(),
            once: None,
            now: self.now(),
        };
        let id = self.store().start(new).await.unwrap().unwrap();
        let claimed = self.store().claim(id, self.now()).await.unwrap().unwrap();
        self.runs[which] =
            Ours { claimed: Some(claimed.clone()), look: self.runs[which].look.take(), ..Ours::default() };
        claimed
    }

    async fn perform(&mut self, command: Do) {
        self.second += 3;
        match command {
            Do::Look(run, node) => {
                let facts = self.facts(node, |(_, on)| *on == node);
                self.runs[run].look = Some((node, facts));
            }
            Do::Cordon(run) => self.take(run, "k8s::cordon", None).await,
            Do::Drain(run) => self.take(run, "k8s::drain", None).await,
            Do::Evict(run, set) => self.take(run, "k8s::evict", Some(set)).await,
            Do::End(run) => self.end(run).await,
            Do::Finish(run, how) => self.finish(run, how).await,
            Do::Freeze(on) => self.freeze(on).await,
            Do::ByHand(node) => {
                if !self.by_hand.remove(&node) {
                    self.by_hand.insert(node);
                }
                self.left_out.remove(&node);
                // Nobody could know of it who looked before.
                self.runs.iter_mut().for_each(|run| run.look = None);
            }
            Do::Forbidden(run, which) => self.forbidden(run, which).await,
            Do::Reset => {
                for breaker in self.store().breakers().await.unwrap() {
                    let reset =
                        ControlChange::ResetBreaker { scope: breaker.scope, by: "kim".into(), why: "found".into() };
                    self.store().control(reset, self.now()).await.unwrap();
                }
                self.failed.clear();
                self.doubted.clear();
            }
            Do::Pass(minutes) => self.second += 60 * minutes,
            Do::Reopen => {
                self.open();
                for which in 0..RUNS {
                    let Some(claimed) = &self.runs[which].claimed else { continue };
                    let again = self.store().claim(claimed.run.id, self.now()).await.unwrap();
                    self.runs[which].claimed = Some(again.expect("a run that is not over can be claimed"));
                }
            }
        }
    }

    fn proposal(&self, claimed: &ClaimedRun, action: &str, node: Option<usize>, facts: WorldFacts) -> StepProposal {
        let target = match node {
            Some(node) => Subject::node(name(node)),
            None => Subject::pod("llm", "some"),
        };
        let call = ActionCall::new(action, [("node", json!(target.node.clone().unwrap_or_default()))]);
        let spec = nightshift::actions::find(action).unwrap().spec();
        StepProposal {
            effect: EffectClass::Converge,
            reach: if node.is_some() { ImpactScope::Node } else { ImpactScope::Pod },
            disruptive: true,
            facts,
            ..StepProposal::new(spec, (claimed.run.id, claimed.run.epoch), call, target, self.now())
        }
    }

    async fn take(&mut self, which: usize, action: &str, set: Option<usize>) {
        if self.runs[which].open || self.runs[which].steps >= 12 {
            return;
        }
        let claimed = self.claimed(which).await;
        let (node, facts) = match set {
            Some(set) => {
                let Some(victim) = self.pods[set].first().map(|(pod, _)| pod.clone()) else { return };
                (None, self.facts(0, |(pod, _)| *pod == victim))
            }
            None => match self.runs[which].look.clone() {
                // A cordon ends no pod.
                Some((node, facts)) if action == "k8s::cordon" => (Some(node), WorldFacts { serving: vec![], ..facts }),
                Some((node, facts)) => (Some(node), facts),
                // As the engine does it: it looks just before.
                None => (Some(which), self.facts(which, |(_, on)| action == "k8s::drain" && *on == which)),
            },
        };
        let going: Vec<(usize, Vec<String>)> =
            facts.serving.iter().map(|s| (s.set[5..].parse().unwrap(), s.takes.clone())).collect();
        let proposal = self.proposal(&claimed, action, node, facts);
        match self.store().begin(proposal, self.limits.clone(), self.now()).await.unwrap() {
            BeginOutcome::Step(_) => {
                self.begun += 1;
                self.judge(which, node, &going);
                // What it did itself it sees: the engine reads anew before each step.
                self.runs[which].look = None;
                self.runs[which].open = true;
                self.runs[which].acted = true;
                self.runs[which].steps += 1;
                if let Some(node) = node
                    && self.runs[which].nodes.insert(node)
                {
                    self.taken.push((node, self.second));
                }
                for (set, pods) in going {
                    let before = self.pods[set].len();
                    self.pods[set].retain(|(pod, _)| !pods.contains(pod));
                    if self.pods[set].len() < before {
                        self.runs[which].sets.insert(set);
                        assert!(!self.pods[set].is_empty(), "the last replica of m{set} was taken");
                    }
                }
            }
            BeginOutcome::Held { reason, .. } => self.explained(&claimed, &reason).await,
            BeginOutcome::Denied { reason } => self.explained(&claimed, &reason).await,
        }
    }

    /// Whether what has begun was within every limit.
    fn judge(&self, which: usize, node: Option<usize>, going: &[(usize, Vec<String>)]) {
        assert!(!self.frozen, "begun while everything is frozen");
        let hour = |times: &[u64]| times.iter().filter(|at| **at + 3_600 > self.second).count();
        if !self.runs[which].acted {
            assert!(hour(&self.failed) < 3 && hour(&self.doubted) < 2, "begun against a breaker: {:?}", self.failed);
        }
        for (set, pods) in going.iter().filter(|(set, pods)| self.pods[*set].iter().any(|(pod, _)| pods.contains(pod)))
        {
            let other = self.runs.iter().enumerate().any(|(at, run)| at != which && run.sets.contains(set));
            assert!(!other, "two runs take replicas of m{set}: {pods:?}");
        }
        let Some(node) = node else { return };
        assert!(self.holders(which).all(|held| held != node), "two runs hold n{node}");
        if self.runs[which].nodes.contains(&node) {
            return;
        }
        assert!(self.holders(which).all(|held| held / 2 != node / 2), "two runs in the rack of n{node}");
        let out: BTreeSet<usize> = self.out().into_iter().filter(|other| *other != node).collect();
        assert!(out.len() < AT_ONCE, "n{node} is taken while {out:?} are out");
        let pool = out.iter().filter(|other| *other / 4 == node / 4).count();
        assert!(pool < 2, "n{node} is taken while {out:?} are out, {pool} of its pool");
        let lately: BTreeSet<usize> = self
            .taken
            .iter()
            .filter(|(other, at)| *other != node && at + 3_600 > self.second)
            .map(|(n, _)| *n)
            .collect();
        assert!(lately.len() < 6, "a seventh node within an hour: {lately:?}");
    }

    /// A refusal says in words why, in the answer, in the ledger and, for a hold, in the run.
    async fn explained(&mut self, claimed: &ClaimedRun, reason: &Reason) {
        self.refusals += 1;
        assert!(reason.text.len() > 20 && reason.text.contains(' '), "{reason}");
        let run = claimed.run.id;
        let entries = self.store().entries(Filter { run: Some(run), ..all() }).await.unwrap();
        let told = entries.iter().any(|entry| match &entry.kind {
            EntryKind::StepHeld { reason: told, .. } | EntryKind::StepDenied { reason: told, .. } => {
                told.code == reason.code
            }
            _ => false,
        });
        assert!(told, "{reason} is not in the ledger");
    }

    async fn end(&mut self, which: usize) {
        let Some(claimed) = self.runs[which].claimed.clone().filter(|_| self.runs[which].open) else { return };
        let (step, outcome) = (self.runs[which].steps - 1, Outcome::Ok(json!({ "changed": true })));
        self.store().end(claimed.run.id, claimed.run.epoch, step, outcome, vec![], self.now()).await.unwrap();
        self.runs[which].open = false;
    }

    async fn finish(&mut self, which: usize, how: How) {
        let Some(claimed) = self.runs[which].claimed.clone() else { return };
        self.end(which).await;
        let (id, epoch) = (claimed.run.id, claimed.run.epoch);
        let state = match how {
            How::Done => RunState::Done,
            How::Failed => RunState::Failed { why: "it did not help".into(), undone: false },
            How::Stuck => RunState::Stuck { reason: Reason::new(ReasonCode::InDoubt, "nobody knows") },
            How::Cancelled => RunState::Stopped { why: "a person said so".into() },
        };
        self.store().finish(id, epoch, state, self.now()).await.unwrap();
        let ours = std::mem::take(&mut self.runs[which]);
        match how {
            How::Failed if ours.acted => self.failed.push(self.second),
            How::Stuck if ours.acted => self.doubted.push(self.second),
            _ => {}
        }
        match how {
            // It gives its nodes back; the others leave them as they are.
            How::Done | How::Cancelled => {}
            How::Failed => self.left_out.extend(&ours.nodes),
            How::Stuck => self.stuck.extend(ours.nodes.iter().map(|node| (*node, id))),
        }
        for set in &ours.sets {
            while self.pods[*set].len() < 2 {
                let born = self.born;
                self.bear(*set, (born * 5 + *set) % NODES);
            }
        }
    }

    async fn freeze(&mut self, on: bool) {
        let scope = "all".to_owned();
        if on {
            let freeze = Freeze {
                scope,
                by: "kim".into(),
                why: "drill".into(),
                since: self.now(),
                until: None,
                release_by: None,
            };
            self.store().control(ControlChange::Freeze(freeze, Vec::new()), self.now()).await.unwrap();
        } else if self.frozen {
            let thaw = ControlChange::Unfreeze { scope, by: "kim".into(), why: "over".into(), persons: 1 };
            self.store().control(thaw, self.now()).await.unwrap();
        }
        self.frozen = on;
    }

    async fn forbidden(&mut self, which: usize, fact: usize) {
        if self.runs[which].open {
            return;
        }
        let claimed = self.claimed(which).await;
        let mut facts = self.facts(which, |_| false);
        let words = || Some("for a reason that is said".to_owned());
        match fact {
            0 => facts.closed = Some(ClosedWindow { why: "window night".into(), until: at(self.second + 60) }),
            1 => facts.silenced = words(),
            2 => facts.unconfirmed = words(),
            3 => facts.protected = words(),
            4 => facts.stopped = words(),
            _ => facts.foreign_cordon = words(),
        }
        let proposal = self.proposal(&claimed, "k8s::cordon", Some(which), facts);
        match self.store().begin(proposal, self.limits.clone(), self.now()).await.unwrap() {
            BeginOutcome::Step(step) => panic!("fact {fact} forbids it, and it has begun: {step:?}"),
            BeginOutcome::Held { reason, .. } | BeginOutcome::Denied { reason } => {
                self.explained(&claimed, &reason).await
            }
        }
    }

    /// What is counted is what is held: nothing below zero, nothing left over.
    async fn check(&self) {
        let held: BTreeSet<usize> =
            self.runs.iter().flat_map(|run| run.nodes.iter().copied()).chain(self.stuck.keys().copied()).collect();
        assert_eq!(self.store().counts().await.unwrap().nodes_held as usize, held.len(), "{held:?}");
        let holds = self.store().holds().await.unwrap();
        assert!(holds.iter().all(|hold| held.iter().any(|node| name(*node) == hold.node)), "{holds:?}");
    }
}

#[test]
fn no_interleaving_of_eight_runs_and_crashes_exceeds_a_guard() {
    let (begun, refused) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let config = ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() };
    let played = proptest::test_runner::TestRunner::new(config).run(&commands(), |commands| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut play = Play::new();
            play.store().pin(&pin(), TEXT, ImpactScope::Node, start()).await.unwrap();
            for command in commands {
                play.perform(command).await;
                play.check().await;
            }
            begun.set(begun.get() + play.begun);
            refused.set(refused.get() + play.refusals);
        });
        Ok(())
    });
    played.unwrap();
    // A play in which nothing begins, or nothing is refused, would show nothing.
    assert!(begun.get() > 300 && refused.get() > 300, "{} begun, {} refused", begun.get(), refused.get());
}

/// Two runs looked at the same moment, when each saw the other's replica stay. No node is taken, so nothing else counts.
#[tokio::test]
async fn two_runs_never_count_on_the_same_replica_to_stay() {
    let mut play = Play::new();
    play.store().pin(&pin(), TEXT, ImpactScope::Node, start()).await.unwrap();
    let other = play.pods[0][1].0.clone();
    let seen = play.facts(0, |(pod, _)| *pod == other);
    let claimed = play.claimed(1).await;
    play.perform(Do::Evict(0, 0)).await;
    assert_eq!((play.begun, play.pods[0].len()), (1, 1));
    let refused = async |play: &Play| {
        let proposal = play.proposal(&claimed, "k8s::evict", None, seen.clone());
        match play.store().begin(proposal, play.limits.clone(), play.now()).await.unwrap() {
            BeginOutcome::Held { reason, .. } => reason.code,
            begun => panic!("the last replica would go: {begun:?}"),
        }
    };
    assert_eq!(refused(&play).await, ReasonCode::DomainBusy);
    // Also where the first is over, when what was read is older than its end.
    play.perform(Do::Finish(0, How::Cancelled)).await;
    assert_eq!(refused(&play).await, ReasonCode::ServingFloor);
    play.perform(Do::Evict(1, 0)).await;
    assert_eq!(play.begun, 2, "who looks again sees the one that has followed");
}

#[tokio::test]
async fn two_runs_never_take_the_same_node() {
    let mut play = Play::new();
    play.store().pin(&pin(), TEXT, ImpactScope::Node, start()).await.unwrap();
    for run in 0..2 {
        play.perform(Do::Look(run, 5)).await;
    }
    play.perform(Do::Cordon(0)).await;
    let claimed = play.claimed(1).await;
    let (node, facts) = play.runs[1].look.clone().unwrap();
    let proposal = play.proposal(&claimed, "k8s::cordon", Some(node), WorldFacts { serving: vec![], ..facts });
    let begun = play.store().begin(proposal, play.limits.clone(), play.now()).await;
    let Ok(BeginOutcome::Held { reason, .. }) = begun else { panic!("not held by a guard: {begun:?}") };
    assert_eq!(reason.code, ReasonCode::NodeBusy);
}
