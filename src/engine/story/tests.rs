//! Every kind of entry, in words, in one picture.
//!
//! Invariant: a kind without a sample here fails `every_kind_of_entry_has_words`.

use super::*;
use crate::model::*;
use serde_json::json;

fn at(minute: i64) -> Time {
    "2026-11-23T03:00:00Z".parse::<Time>().unwrap() + jiff::SignedDuration::from_mins(minute)
}

fn entry(no: i64, run: Option<i64>, kind: EntryKind) -> Entry {
    let about = EntryLinks { incident: Some(IncidentId(3)), run: run.map(RunId) };
    Entry { no: EntryNo(no), at: at(no), actor: Actor::engine(), about, kind }
}

fn call(action: &str, args: serde_json::Value) -> ActionCall {
    let serde_json::Value::Object(args) = args else { panic!("arguments are a map") };
    ActionCall { action: action.to_owned(), args }
}

fn event() -> Event {
    Event {
        source: "am".into(),
        fingerprint: "f".into(),
        status: EventStatus::Firing,
        starts_at: at(0),
        ends_at: None,
        labels: Labels::default(),
        annotations: Labels::default(),
        subject: Subject::node("gpu-3"),
        severity: Severity::Critical,
        summary: "XID 79 on gpu-3".into(),
        url: String::new(),
    }
}

fn heard(reason: Option<Reason>, runs: Vec<RunId>) -> EventOutcome {
    EventOutcome {
        event: event(),
        episode: EpisodeId(1),
        incident: Some(IncidentId(3)),
        change: "opened".into(),
        runs,
        reasons: reason.into_iter().collect(),
    }
}

fn held(limit: &str) -> EntryKind {
    EntryKind::StepHeld {
        call: call("k8s::cordon", json!({ "node": "gpu-3", "why": "XID 79" })),
        reason: Reason::new(
            ReasonCode::BlastRadius,
            format!("1 of 4 nodes is out (gpu-2); the limit is {limit} at once"),
        ),
        until: at(9),
    }
}

/// The call, as begun.
fn begun(step: u32, call: ActionCall, effect: EffectClass, undoes: Option<u32>) -> EntryKind {
    let target = Subject::node(call.text("node"));
    EntryKind::StepBegun { step, call, effect, target, undoes }
}

fn story() -> Vec<(Option<i64>, EntryKind)> {
    use EntryKind::*;
    let cordon = call("k8s::cordon", json!({ "node": "gpu-3", "why": "XID 79 on GPU 1" }));
    let drain = call("k8s::drain", json!({ "node": "gpu-3", "within": "30m", "only": "gpu-pods" }));
    let uncordon = call("k8s::uncordon", json!({ "node": "gpu-3" }));
    let read = call("k8s::node", json!({ "node": "gpu-3" }));
    let odd = call("acme::poke", json!({ "where": "rack 7" }));
    let pin = RunbookPin { name: "xid-79".into(), hash: "0".repeat(64) };
    let plan = Plan {
        calls: [&cordon, &drain]
            .map(|call| PlannedCall {
                call: call.clone(),
                effect: EffectClass::Converge,
                reach: ImpactScope::Node,
                target: Subject::node("gpu-3"),
                predicted: Outcome::Ok(json!(null)),
            })
            .to_vec(),
        end: PlanEnd::Stopped("needs hands".into()),
        hash: "1".repeat(64),
    };
    let freeze = Freeze {
        scope: "all".into(),
        by: "ana".into(),
        why: "storage upgrade".into(),
        since: at(0),
        until: None,
        release_by: None,
    };
    let ok = |step| StepEnded { step, outcome: Outcome::Ok(json!({ "changed": true })) };
    let stuck = RunState::Stuck { reason: Reason::new(ReasonCode::InDoubt, "the reboot may have happened") };
    let no_rule = Reason::new(ReasonCode::NoRuleMatched, "none of 3 rules matches");
    vec![
        (None, Started { version: "0.1.0".into(), epoch: 4 }),
        (None, CatalogLoaded { rules: 1, runbooks: 5, hash: "2".repeat(64) }),
        (
            None,
            TokenMade {
                token: TokenId(3),
                name: "ci".into(),
                grant: RoleGrant::everywhere(Role::Operator),
                sources: Vec::new(),
                expires_at: at(40),
                by: "ana".into(),
            },
        ),
        (None, TokenRevoked { token: TokenId(3), name: "ci".into(), by: "ana".into(), why: "it leaked".into() }),
        (None, BreakGlass { token: TokenId(4), by: "ana".into(), why: "no login".into(), until: at(40) }),
        (None, BreakGlassUsed { token: TokenId(4), by: "break-glass (ana)".into(), what: "POST /x".into(), times: 1 }),
        (None, BreakGlassUsed { token: TokenId(4), by: "break-glass (ana)".into(), what: "POST /x".into(), times: 7 }),
        (None, Refused { who: "vic".into(), what: "POST /x".into(), why: "POST /x, by Slack: no".into(), times: 1 }),
        (None, Refused { who: "vic".into(), what: "POST /x".into(), why: String::new(), times: 9 }),
        (None, PeopleChanged { changes: vec!["ada: approver → viewer".into()] }),
        (
            None,
            SubjectLinked {
                person: "ada".into(),
                issuer: "https://login.example".into(),
                subject: "00u1".into(),
                mail: Some("ada@example.com".into()),
            },
        ),
        (
            None,
            SubjectRefused {
                person: "ada".into(),
                issuer: "https://login.example".into(),
                subject: "00u2".into(),
                mail: "ada@example.com".into(),
            },
        ),
        (
            None,
            SubjectMailChanged {
                person: "ada".into(),
                issuer: "https://login.example".into(),
                subject: "00u1".into(),
                mail: None,
            },
        ),
        (None, SubjectsUnlinked { person: "ada".into(), subjects: 1, by: "ana".into(), why: "new account".into() }),
        (None, SessionsEnded { who: "bob".into(), sessions: 2, by: "ana".into(), why: "he left".into() }),
        (None, CatalogRefused { file: "rules/a.yaml".into(), why: "line 3: unknown key `wen`".into() }),
        (
            None,
            Heard { source: "am".into(), via: None, events: vec![heard(None, vec![RunId(17)]), heard(None, vec![])] },
        ),
        (None, Heard { source: "am".into(), via: None, events: vec![heard(Some(no_rule), vec![])] }),
        (None, Gap { source: "am".into(), text: "40 alerts were cut off".into() }),
        (
            None,
            IncidentOpened {
                key: "node=gpu-3".into(),
                title: "XID 79 on gpu-3".into(),
                subject: Subject::node("gpu-3"),
                alert: Some("GpuXid".into()),
            },
        ),
        (
            None,
            AlertsJoined {
                alerts: vec!["gpu-3: GPU 5 fell off the bus (XID 79)".into(), "GpuHot".into()],
                more: 3,
                title: None,
                raised: None,
            },
        ),
        (
            Some(17),
            RunCreated {
                runbook: pin,
                rule: Some("xid79".into()),
                episode: Some(EpisodeId(1)),
                subject: Subject::node("gpu-3"),
                mode: Mode::Approve,
                requested_by: "rule".into(),
                content: None,
            },
        ),
        (Some(17), RunPlanned { plan }),
        (
            Some(17),
            ApprovalAsked {
                approval: ApprovalId(3),
                question: "run xid-79 on gpu-3?".into(),
                plan_hash: "1".repeat(64),
                expires_at: at(40),
            },
        ),
        (Some(17), ApprovalDecided { approval: ApprovalId(3), approved: true, by: "ana".into(), why: "go".into() }),
        (Some(17), ApprovalDecided { approval: ApprovalId(4), approved: false, by: "bo".into(), why: String::new() }),
        (Some(17), ApprovalExpired { approval: ApprovalId(5) }),
        (Some(17), held("1")),
        (Some(17), held("1")),
        (Some(17), held("2")),
        (Some(17), begun(0, cordon.clone(), EffectClass::Converge, None)),
        (Some(17), ok(0)),
        (Some(17), begun(1, read.clone(), EffectClass::Read, None)),
        (Some(17), ok(1)),
        (Some(17), begun(2, drain, EffectClass::Converge, None)),
        (
            Some(17),
            StepEnded {
                step: 2,
                outcome: Outcome::Failed(StepFailure::new(
                    FailureKind::Timeout,
                    "2 pods are left after 30m: a/llm-0, a/llm-1",
                )),
            },
        ),
        (Some(17), begun(3, uncordon, EffectClass::Converge, Some(0))),
        (Some(17), StepEnded { step: 3, outcome: Outcome::Ok(json!({ "changed": false })) }),
        (Some(17), begun(4, odd, EffectClass::Keyed, None)),
        (Some(17), begun(5, call("note", json!({ "text": "rack 7 is warm" })), EffectClass::Read, None)),
        (Some(17), ok(5)),
        (Some(17), ok(9)),
        (
            Some(17),
            StepDenied { call: cordon, reason: Reason::new(ReasonCode::Protected, "gpu-3 runs Nightshift itself") },
        ),
        (Some(17), Told { channel: "hardware".into(), text: "GPU 1 did not come back".into() }),
        (
            Some(17),
            RunEnded {
                state: RunState::Waiting { why: "PodDisruptionBudget llama-70b allows no eviction now".into() },
            },
        ),
        (Some(17), RunEnded { state: RunState::Failed { why: "drain timed out".into(), undone: true } }),
        (Some(18), RunEnded { state: stuck }),
        (Some(18), RunEnded { state: RunState::Done }),
        (None, IncidentAcknowledged { by: "ana".into() }),
        (None, Delivered { channel: "oncall".into(), upto: EntryNo(9) }),
        (None, DeliveryFailed { channel: "mail".into(), why: "550 no such user".into(), final_: true }),
        (None, Frozen { freeze }),
        (None, Unfrozen { scope: "all".into(), by: "ana".into(), why: String::new() }),
        (None, IncidentResolved { why: "all alerts have ended".into() }),
        (None, Swept { table: "episode".into(), rows: 12 }),
        (None, Redacted { entry: EntryNo(7), by: "ana".into(), why: "a password in a label".into() }),
        (None, Trouble { text: "the disk is 95 % full".into() }),
    ]
}

fn entries() -> Vec<Entry> {
    story().into_iter().enumerate().map(|(no, (run, kind))| entry(no as i64, run, kind)).collect()
}

#[test]
fn every_kind_of_entry_has_words() {
    let shown: Vec<String> = lines(&entries())
        .iter()
        .map(|line| format!("{} {}", if line.headline { "*" } else { " " }, line.text))
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
      Nightshift 0.1.0 started (epoch 4)
      1 rule and 5 runbooks in force
    * ana created t3 `ci`, role operator, valid until 2026-11-23
    * ana revoked t3 `ci`: it leaked
    * break-glass: ana has admin rights until 03:40 UTC (t4). Reason: no login
    * break-glass (ana): POST /x
      break-glass (ana): POST /x, 7 more times
      denied for vic: POST /x, by Slack: no
      denied for vic 9 more times: POST /x
    * access rights changed: ada: approver → viewer
    * ada signed in for the first time as subject 00u1 (ada@example.com)
      sign-in denied for subject 00u2: ada@example.com is the mail of ada, and another subject has signed in as ada
    * ada (subject 00u1) signed in with another mail
    * ana unlinked 1 of ada's subjects, so the next one with their mail is linked: new account
    * ana ended 2 sessions of bob: he left
    * rules/a.yaml rejected; its last good version stays active: line 3: unknown key `wen`
      am: alert opened: XID 79 on gpu-3 and 1 more; started r17
      am: alert opened: XID 79 on gpu-3; no run started: none of 3 rules matches
    * gap in the alerts from am: 40 alerts were cut off
    * opened: XID 79 on gpu-3
    * gpu-3: GPU 5 fell off the bus (XID 79), GpuHot and 3 more joined
    * xid-79 (r17) started for gpu-3, mode approve, rule xid79
    * plan: cordon gpu-3 and drain it; then it would stop: needs hands
    * approval requested (a3): run xid-79 on gpu-3? Expires 03:40 UTC; without an answer it counts as denied.
    * a3 approved by ana: go
    * a4 denied by bo
    * a5 expired without an answer: it counts as denied
    * on hold, cordon gpu-3 (XID 79): 1 of 4 nodes is out (gpu-2); the limit is 1 at once
    * on hold, cordon gpu-3 (XID 79): 1 of 4 nodes is out (gpu-2); the limit is 2 at once
    * cordoned gpu-3 (XID 79 on GPU 1)
    * could not drain gpu-3 (GPU pods only, up to 30m): 2 pods are left after 30m: a/llm-0, a/llm-1
    * uncordoned gpu-3; no change was needed
    * begins: acme::poke(where: rack 7)
    * note: rack 7 is warm
      step 10 done
    * not done: cordon gpu-3 (XID 79 on GPU 1): gpu-3 runs Nightshift itself
    * message to hardware: GPU 1 did not come back
    * xid-79 (r17) is waiting: PodDisruptionBudget llama-70b allows no eviction now
    * xid-79 (r17) failed and undid its steps: drain timed out
    * r18 is stuck and needs an operator: the reboot may have happened
    * r18 is done
    * acknowledged by ana
      notified: oncall
    * could not notify mail: 550 no such user; no further attempt until the incident changes
    * frozen: all by ana: storage upgrade
    * no longer frozen: all, released by ana
    * resolved: all alerts have ended
      removed 12 old rows of episode
    * #7 was redacted by ana: a password in a label
    * trouble: the disk is 95 % full
    ");
    let mut kinds: Vec<&str> = entries().iter().map(|entry| entry.kind.name()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), 38, "a kind of entry has no sample here");
}

/// What people read of a night, whatever is repeated in the ledger.
#[test]
fn deliveries_are_one_line_and_a_plan_that_was_only_shown_is_one_suggestion() {
    use EntryKind::*;
    let pin = RunbookPin { name: "gpu-reset".into(), hash: "0".repeat(64) };
    let told = |channel: &str| Delivered { channel: channel.into(), upto: EntryNo(1) };
    let planned = |action: &str, args: serde_json::Value, target: Subject, value: serde_json::Value| PlannedCall {
        call: call(action, args),
        effect: EffectClass::Converge,
        reach: ImpactScope::Node,
        target,
        predicted: Outcome::Ok(value),
    };
    let node = || Subject::node("gpu-1");
    let gpu = Subject { gpu: Some("2".into()), ..node() };
    let four = json!({ "evicted": ["a/1", "a/2", "a/3", "a/4"] });
    let plan = Plan {
        calls: vec![
            planned("k8s::cordon", json!({ "node": "gpu-1", "why": "XID 48" }), node(), json!({})),
            planned("k8s::drain", json!({ "node": "gpu-1", "only": "gpu-pods" }), node(), four),
            planned("gpu::reset", json!({ "node": "gpu-1", "gpu": "2" }), gpu.clone(), json!({})),
        ],
        end: PlanEnd::Done,
        hash: String::new(),
    };
    let created = RunCreated {
        runbook: pin,
        rule: Some("gpu-reset".into()),
        episode: None,
        subject: gpu,
        mode: Mode::Suggest,
        requested_by: "rule".into(),
        content: None,
    };
    let kinds = vec![
        (None, IncidentOpened { key: "k".into(), title: "gpu-1: XID 48".into(), subject: node(), alert: None }),
        (Some(3), created),
        (None, told("oncall")),
        (Some(3), RunPlanned { plan }),
        (None, told("pager")),
        (None, told("oncall")),
        (Some(3), RunEnded { state: RunState::Planned }),
        (None, told("mail")),
        (None, told("oncall")),
    ];
    let entries: Vec<Entry> =
        kinds.into_iter().enumerate().map(|(no, (run, kind))| entry(no as i64, run, kind)).collect();
    let texts: Vec<String> = lines(&entries).into_iter().map(|line| line.text).collect();
    assert_eq!(
        texts,
        [
            "opened: gpu-1: XID 48",
            "gpu-reset (r3) started for gpu-1, GPU 2, mode suggest",
            "notified: oncall, pager, mail",
            "suggestion only: gpu-reset (r3) would cordon gpu-1, drain it (4 pods move) and reset GPU 2; no action taken",
        ]
    );
}

#[test]
fn a_drain_says_how_many_pods_moved_and_a_plan_that_cannot_run_says_which_step_and_why() {
    let drain = call("k8s::drain", json!({ "node": "gpu-3", "within": "30m", "only": "gpu-pods" }));
    let value = json!({ "evicted": ["a/1", "a/2", "a/3", "a/4"], "forced": [], "left": [], "waited": "5s" });
    let words = phrase::done(&drain, &Subject::node("gpu-3"), &value);
    assert_eq!(words, "drained gpu-3: 4 GPU pods moved in 5s");
    let message = "not reached: no Nightshift agent is connected on gpu-1; start it";
    let reset = PlannedCall {
        call: call("gpu::reset", json!({ "node": "gpu-1", "gpu": "2" })),
        effect: EffectClass::Converge,
        reach: ImpactScope::Node,
        target: Subject::node("gpu-1"),
        predicted: Outcome::Failed(StepFailure::new(FailureKind::Unavailable, message)),
    };
    let why = format!("gpu-reset.rhai:30:6: gpu::reset: {message} [unavailable]");
    let plan = Plan { calls: vec![reset], end: PlanEnd::Failed(why.clone()), hash: String::new() };
    assert_eq!(cannot(&plan).unwrap(), "step 1 cannot run: no Nightshift agent is connected on gpu-1; start it");
    assert_eq!(cause(&why), format!("gpu::reset: {message}"));
    assert_eq!(cause("the drain timed out"), "the drain timed out");
    let held = RunState::Stopped { why: "needs hands: reset GPU 5 or reboot gpu-3, then uncordon it".into() };
    let over = "x (r1) is finished, over to you: reset GPU 5 or reboot gpu-3, then uncordon it";
    assert_eq!(run_words("x (r1)", &held), over);
    let late = "2026-11-24T00:20:00Z".parse().unwrap();
    assert_eq!(deadline(late, at(0)), "Expires 24 Nov 00:20 UTC; without an answer it counts as denied.");
}

#[test]
fn one_entry_alone_still_has_words() {
    for entry in entries() {
        let quiet = matches!(&entry.kind, EntryKind::StepBegun { effect: EffectClass::Read, .. });
        assert_eq!(line(&entry).is_none(), quiet, "{:?}", entry.kind);
    }
}

#[test]
fn a_hostile_label_stays_one_bounded_line() {
    let title = format!("a\nb\u{202e}{}", "x".repeat(100_000));
    let kind = EntryKind::IncidentOpened { key: "k".into(), title, subject: Subject::default(), alert: None };
    let line = line(&entry(0, None, kind)).unwrap();
    assert!(line.text.starts_with("opened: a b\\u{202e}xxx") && line.text.ends_with('…'));
    assert_eq!(line.text.chars().count(), STORY_LINE_CHARS);
}

/// `src/actions/trial_shelve.rs` and its line in `actions!` are all that there is of this action.
#[test]
fn an_action_of_one_file_and_one_line_is_known_to_guards_plans_timelines_undo_and_metrics() {
    use crate::policy::{AffectedReplicas, GuardInputs, GuardLimits, ReadyReplica, StepProposal, WorldFacts, admit};
    let action = crate::actions::find("trial::shelve").unwrap();
    let spec = action.spec();
    let shelve = call("trial::shelve", json!({ "node": "gpu-3", "why": "a fan" }));
    let target = action.target(&shelve);
    assert_eq!(target, Subject::node("gpu-3"));
    assert_eq!(action.takes(&shelve), CapacityLoss::Node { name: "gpu-3".into(), gpu_only: false });

    assert!(phrase::announced(&shelve, spec.effect) && phrase::reported(&shelve, spec.effect));
    assert_eq!(phrase::todo(&shelve, Some(&target)), "shelve gpu-3 (a fan)");
    assert_eq!(phrase::done(&shelve, &target, &json!({})), "shelved gpu-3 (a fan)");
    let predicted = Outcome::Ok(json!({ "evicted": ["llm/chat-0"] }));
    let planned =
        PlannedCall { call: shelve.clone(), effect: spec.effect, reach: spec.reach, target: target.clone(), predicted };
    assert_eq!(phrase::brief(std::slice::from_ref(&planned)), "shelve gpu-3 (1 pod moves)");

    let replica = ReadyReplica { pod: "llm/chat-0".into(), node: "gpu-3".into() };
    let serving = AffectedReplicas {
        set: "llm/chat".into(),
        floor: 1,
        takes: vec![replica.pod.clone()],
        ready: vec![replica],
        ..AffectedReplicas::default()
    };
    let facts = WorldFacts { nodes_total: Some(40), serving: vec![serving], ..WorldFacts::default() };
    let proposal = StepProposal { facts, ..StepProposal::new(spec, (RunId(1), 1), shelve.clone(), target, at(0)) };
    let auto = GuardInputs { mode: Mode::Auto, declared_reach: ImpactScope::Node, ..GuardInputs::default() };
    let verdict =
        |levels: &GuardInputs, proposal: &StepProposal| match admit(&GuardLimits::default(), levels, proposal, at(0)) {
            GuardDecision::Deny { reason } | GuardDecision::Hold { reason, .. } => reason.to_string(),
            GuardDecision::Allow => "allowed".to_owned(),
        };
    let refused = verdict(&auto, &proposal);
    assert!(refused.contains("requires an approved plan"), "a last resort asks in mode auto: {refused}");
    let plan = Plan { calls: vec![planned], end: PlanEnd::Done, hash: String::new() };
    let approved = GuardInputs { approved: Some(plan), ..auto };
    let floor = verdict(&approved, &proposal);
    assert!(floor.contains("shelving it leaves 0; the floor is 1"), "{floor}");
    let busy = GuardInputs { node_holder: Some(RunId(7)), ..approved };
    let gentle = StepProposal { disruptive: false, facts: WorldFacts::default(), ..proposal.clone() };
    assert!(verdict(&busy, &gentle).contains("r7 works on gpu-3 already"), "it touches the node's schedule");

    let outcome = Some(Outcome::Ok(json!({ "changed": true })));
    let step = Step {
        run: RunId(1),
        no: 0,
        call: shelve,
        effect: spec.effect,
        undoes: None,
        begun_at: at(0),
        deadline: at(1),
        attempt: 1,
        carry: serde_json::Value::Null,
        outcome,
        ended_at: Some(at(1)),
        incarnation: String::new(),
    };
    assert_eq!(action.undo(&step), Some(call("trial::shelve", json!({ "node": "gpu-3", "back": true }))));
    assert_eq!(action.bytes_read(&json!({ "all": 4, "read": 3 })), Some((4, 3)));
}
