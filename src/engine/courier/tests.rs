//! The courier with a store in memory, channels that remember, and a clock that a test moves.
//!
//! Invariant: nothing here waits for the wall clock.

mod fake;

use super::*;
use crate::clock::SimClock;
use crate::limits::NOTICES_PER_MINUTE;
use crate::model::*;
use fake::{Ear, FakeChannel, FakeStore, later, night};
use serde_json::json;

struct Scene {
    store: Arc<FakeStore>,
    clock: Arc<SimClock>,
    courier: NotificationDispatcher,
    nudge: WakeSender,
    slack: Ear,
    mail: Ear,
    /// Leaves incidents to automation for 15 minutes.
    pager: Ear,
    /// Waits a moment for the question that its first message should carry.
    oncall: Ear,
}

/// Channels `slack`, `mail` and `pager`, and `dead`, which never answers.
fn scene() -> Scene {
    let (store, clock, nudge) = (Arc::new(FakeStore::default()), night(), WakeSender::default());
    let (slack, mail, pager, oncall) = (Ear::default(), Ear::default(), Ear::default(), Ear::default());
    let channel = |ear: &Ear, dead| Box::new(FakeChannel { ear: ear.clone(), dead, waits: false }) as Box<dyn Notifier>;
    let waiting = Box::new(FakeChannel { ear: oncall.clone(), dead: false, waits: true });
    let channels = BTreeMap::from([
        ("slack".to_owned(), channel(&slack, false)),
        ("mail".to_owned(), channel(&mail, false)),
        ("pager".to_owned(), channel(&pager, false)),
        ("dead".to_owned(), channel(&Ear::default(), true)),
        ("oncall".to_owned(), waiting),
    ]);
    let url = Some("https://ns.example/");
    let courier = NotificationDispatcher::with(
        store.clone(),
        store.clone(),
        Arc::new(channels),
        clock.clone(),
        nudge.clone(),
        "prod",
        url,
    )
    .patient([("pager".to_owned(), Span::minutes(15))]);
    Scene { store, clock, courier, nudge, slack, mail, pager, oncall }
}

fn acknowledged() -> EntryKind {
    EntryKind::IncidentAcknowledged { by: "ana".into() }
}

#[tokio::test]
async fn an_incident_is_posted_once_and_edited_from_then_on() {
    let s = scene();
    s.store.open(3, Severity::Critical, &["slack"], s.clock.now());
    assert_eq!(s.courier.pass().await.unwrap().sent, 1);
    for event in 0..100 {
        s.store.happen(3, EntryKind::Trouble { text: format!("event {event}") }, s.clock.now());
    }
    s.courier.pass().await.unwrap();
    s.store.resolve(3, later(&s.clock, 60));
    s.courier.pass().await.unwrap();
    assert_eq!(s.courier.pass().await.unwrap(), DispatchCounts::default(), "nothing is left to say");
    s.slack.with(|told| {
        assert_eq!(told.posts.len(), 3);
        let (first, prior) = &told.posts[0];
        assert_eq!(prior, &None);
        assert_eq!(first.dedup_key, "nightshift/prod/i3");
        assert_eq!(first.link.as_deref(), Some("https://ns.example/incidents/i3"));
        let (second, prior) = &told.posts[1];
        assert_eq!(prior, &Some(DeliveryReceipt(json!({ "ts": "i3" }))), "the second edits the first");
        assert_eq!(second.fresh.len(), 100);
        assert_eq!(second.headlines.len(), crate::limits::HEADLINES);
        assert_eq!(
            second.headlines[0].text, "trouble: event 0",
            "the beginning stays in sight; the title says what opened"
        );
        let (third, _) = &told.posts[2];
        assert_eq!(
            third.fresh.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(),
            ["resolved: all alerts have ended"]
        );
    });
    let words = s.store.with(|shelf| shelf.log.iter().map(|(.., word)| *word).collect::<Vec<_>>());
    assert_eq!(words, ["sending", "delivered", "sending", "delivered", "sending", "delivered"]);
}

#[tokio::test]
async fn a_channel_that_fails_is_tried_later_and_later_and_the_other_one_is_served() {
    let s = scene();
    s.slack.with(|told| told.answers.extend((0..3).map(|_| DeliveryResult::Retry { after: None, why: "503".into() })));
    s.store.open(1, Severity::Warning, &["slack", "mail"], s.clock.now());
    s.store.open(2, Severity::Warning, &["slack", "mail"], s.clock.now());
    let passed = s.courier.pass().await.unwrap();
    assert_eq!((passed.sent, passed.retried), (2, 2));
    assert_eq!(s.slack.with(|told| told.posts.len()), 1, "the second row would only get the same answer");
    assert_eq!(s.mail.with(|told| told.posts.len()), 2);
    assert_eq!(s.courier.pass().await.unwrap().due, 0, "not before its time");
    for _ in 0..3 {
        later(&s.clock, 300);
        s.courier.pass().await.unwrap();
    }
    assert_eq!(s.store.row(1, "slack").due.receipt, Some(DeliveryReceipt(json!({ "ts": "i1" }))));
    assert_eq!(s.store.row(2, "slack").due.receipt, Some(DeliveryReceipt(json!({ "ts": "i2" }))));
}

#[tokio::test]
async fn what_a_channel_asks_us_to_wait_is_obeyed_up_to_a_bound() {
    let s = scene();
    s.store.open(1, Severity::Warning, &["slack"], s.clock.now());
    for (asked, wait) in [(77, 77), (86_400, 3_600)] {
        let after = Some(Duration::from_secs(asked));
        s.slack.with(|told| told.answers.push_back(DeliveryResult::Retry { after, why: "429".into() }));
        s.courier.pass().await.unwrap();
        let at = s.store.row(1, "slack").at;
        let asked = s.clock.now() + Duration::from_secs(wait);
        assert!(asked < at && at <= asked + Duration::from_millis(1), "{at}: behind the others");
        // Who comes later is not tried before, either.
        s.store.open(wait as i64, Severity::Warning, &["slack"], s.clock.now());
        assert_eq!(s.courier.pass().await.unwrap().retried, 1);
        assert_eq!(s.store.row(wait as i64, "slack").at, asked);
        s.store.with(|shelf| drop(shelf.rows.remove(&(IncidentId(wait as i64), "slack".to_owned()))));
        later(&s.clock, wait + 1);
    }
}

#[tokio::test]
async fn a_channel_that_never_answers_is_given_up_after_a_while_and_blocks_nobody() {
    let s = scene();
    s.store.open(1, Severity::Critical, &["dead", "mail"], s.clock.now());
    let (stop, stopped) = watch::channel(false);
    let loop_ = tokio::spawn(s.courier.run(stopped));
    eventually(|| s.mail.with(|told| told.posts.len()) == 1).await;
    s.store.open(2, Severity::Critical, &["dead", "mail"], s.clock.now());
    s.nudge.nudge();
    eventually(|| s.mail.with(|told| told.posts.len()) == 2).await;
    assert!(s.store.row(1, "dead").due.maybe_sent, "it may have arrived");
    later(&s.clock, DELIVERY_TIMEOUT.as_secs() + 1);
    eventually(|| s.store.row(1, "dead").due.attempts == 1).await;
    stop.send_replace(true);
    later(&s.clock, DELIVERY_TIMEOUT.as_secs() + 1);
    loop_.await.unwrap();
}

#[tokio::test]
async fn a_crash_between_sending_and_recording_is_a_marked_repeat_and_counted() {
    let s = scene();
    s.store.open(1, Severity::Critical, &["slack"], s.clock.now());
    s.store.with(|shelf| shelf.rows.values_mut().for_each(|row| row.due.maybe_sent = true));
    assert_eq!(s.courier.pass().await.unwrap().repeats, 1);
    assert!(s.slack.with(|told| told.posts[0].0.maybe_repeat));
    s.store.happen(1, acknowledged(), s.clock.now());
    assert_eq!(s.courier.pass().await.unwrap().repeats, 0);
}

#[tokio::test]
async fn a_storm_is_one_digest_and_no_incident_is_lost() {
    let s = scene();
    for id in 0..10_000 {
        let severity = if id == 9_999 { Severity::Critical } else { Severity::Warning };
        s.store.open(id, severity, &["slack"], s.clock.now());
    }
    let mut all = DispatchCounts::default();
    loop {
        let passed = s.courier.pass().await.unwrap();
        all.add(&passed);
        if s.store.with(|shelf| shelf.rows.values().all(|row| row.due.want <= row.done)) {
            break;
        }
        later(&s.clock, 1);
    }
    s.slack.with(|told| {
        assert_eq!(told.posts.len(), NOTICES_PER_MINUTE);
        let editions = told.digests.len();
        assert!((2..=10_000 / NOTICES_BATCH + 1).contains(&editions), "{editions} editions");
        assert_eq!(told.digests[0].1, None);
        assert!(told.digests[1..].iter().all(|(_, prior)| prior.is_some()), "one message, edited");
        let last = &told.digests.last().unwrap().0;
        assert_eq!((last.total, last.own), (10_000, NOTICES_PER_MINUTE), "each is counted");
        assert_eq!(last.link.as_deref(), Some("https://ns.example/"));
        assert_eq!((last.worst, last.over), (Severity::Critical, false));
        assert_eq!(last.shown[0].severity, Severity::Critical, "the worst is named first");
        assert!(last.shown.len() <= crate::limits::DIGEST_ITEMS);
    });
    assert_eq!(all.digested + NOTICES_PER_MINUTE, 10_000);
    // An incident that has a message of its own is still edited in the storm; one of the digest waits.
    s.store.happen(0, acknowledged(), s.clock.now());
    s.store.happen(9_000, acknowledged(), s.clock.now());
    s.store.resolve(9_001, s.clock.now());
    let passed = s.courier.pass().await.unwrap();
    assert_eq!((passed.sent, passed.waiting), (1, 2));
    later(&s.clock, 61);
    s.courier.pass().await.unwrap();
    later(&s.clock, 61);
    s.courier.pass().await.unwrap();
    s.slack.with(|told| {
        assert!(told.digests.last().unwrap().0.over, "the digest says that it is over");
        let new: Vec<IncidentId> =
            told.posts[NOTICES_PER_MINUTE..].iter().map(|(notice, _)| notice.incident.id).collect();
        assert_eq!(new, [IncidentId(0), IncidentId(9_000)], "the open one is told now, the resolved one is not");
        assert_eq!(told.posts.last().unwrap().1, None, "its first message of its own");
    });
    assert_eq!(s.courier.pass().await.unwrap().due, 0);
}

#[tokio::test]
async fn a_broken_glass_has_a_message_of_its_own_in_the_worst_storm() {
    let s = scene();
    for id in 0..200 {
        s.store.open(id, Severity::Critical, &["slack"], s.clock.now());
    }
    s.store.with(|shelf| shelf.rows.get_mut(&(IncidentId(150), "slack".to_owned())).unwrap().due.alone = true);
    s.courier.pass().await.unwrap();
    s.slack.with(|told| {
        assert_eq!(told.posts.len(), NOTICES_PER_MINUTE + 1);
        let last = &told.digests.last().unwrap().0;
        assert_eq!((last.total, last.own), (200 - 1, NOTICES_PER_MINUTE));
    });
    assert_eq!(s.store.row(150, "slack").due.receipt, Some(DeliveryReceipt(json!({ "ts": "i150" }))));
}

#[tokio::test]
async fn a_digest_that_cannot_be_sent_loses_nobody() {
    let s = scene();
    for id in 0..30 {
        s.store.open(id, Severity::Warning, &["slack"], s.clock.now());
    }
    let fail = DeliveryResult::Retry { after: None, why: "503".into() };
    let good = |id: usize| DeliveryResult::Delivered(DeliveryReceipt(json!({ "ts": id })));
    s.slack.with(|told| told.answers.extend((0..NOTICES_PER_MINUTE).map(good).chain([fail])));
    assert_eq!(s.courier.pass().await.unwrap().retried, 10);
    later(&s.clock, 30);
    assert_eq!(s.courier.pass().await.unwrap().digested, 10);
    let last = s.slack.with(|told| told.digests.last().unwrap().0.clone());
    assert_eq!(last.total - last.own, 10, "counted once");
}

#[tokio::test]
async fn a_channel_nobody_configured_is_refused_in_words() {
    let s = scene();
    s.store.open(1, Severity::Warning, &["nobody"], s.clock.now());
    assert_eq!(s.courier.pass().await.unwrap().refused, 1);
    assert_eq!(s.courier.pass().await.unwrap().due, 0);
}

#[tokio::test]
async fn a_hold_that_goes_on_is_told_once() {
    let s = scene();
    s.store.open(1, Severity::Warning, &["slack"], s.clock.now());
    s.courier.pass().await.unwrap();
    for round in 0..5 {
        let call = ActionCall::new("k8s::cordon", [("node", json!("gpu-1"))]);
        let reason = Reason::new(ReasonCode::BlastRadius, "1 of 4 nodes is out (gpu-2); the limit is 1 at once");
        let until = later(&s.clock, 15);
        s.store.happen(1, EntryKind::StepHeld { call, reason, until }, until);
        let passed = s.courier.pass().await.unwrap();
        assert_eq!((passed.sent, passed.quiet), if round == 0 { (1, 0) } else { (0, 1) });
    }
    let text = s.slack.with(|told| told.posts[1].0.fresh[0].text.clone());
    assert_eq!(text, "on hold, cordon gpu-1: 1 of 4 nodes is out (gpu-2); the limit is 1 at once");
}

#[tokio::test]
async fn questions_and_waits_of_the_incidents_own_runs_are_shown() {
    let s = scene();
    s.store.open(1, Severity::Warning, &["slack"], s.clock.now());
    let now = s.clock.now();
    s.store.with(|shelf| {
        shelf.runs.push(run(1, RunState::Asking { approval: ApprovalId(3) }, now));
        shelf.runs.push(run(
            2,
            RunState::Waiting { why: "PodDisruptionBudget llama-70b allows no eviction now".into() },
            now,
        ));
        shelf.approvals.extend([approval(3, 1, now), approval(4, 99, now)]);
    });
    s.courier.pass().await.unwrap();
    s.slack.with(|told| {
        let notice = &told.posts[0].0;
        assert_eq!(
            notice.asks.iter().map(|ask| ask.approval).collect::<Vec<_>>(),
            [ApprovalId(3)],
            "not another run's"
        );
        let last = notice.headlines.last().unwrap();
        assert_eq!(last.text, "xid-79 (r2) is waiting: PodDisruptionBudget llama-70b allows no eviction now");
    });
}

fn judged(s: &Scene) -> Vec<(bool, String)> {
    s.store.with(|shelf| {
        let kinds = shelf.entries.iter().map(|entry| entry.kind.clone());
        kinds
            .filter_map(|kind| match kind {
                EntryKind::PageJudged { paged, why, .. } => Some((paged, why)),
                _ => None,
            })
            .collect()
    })
}

#[tokio::test]
async fn a_patient_channel_hears_once_automation_gives_up_and_both_decisions_are_written_down_once() {
    let s = scene();
    s.store.open(1, Severity::Critical, &["pager", "slack"], s.clock.now());
    let begun = s.clock.now();
    let at_work = |state: RunState| s.store.with(|shelf| shelf.runs = vec![run(7, state, begun)]);
    for left in ["3 pods left", "2 pods left", "1 pod left"] {
        at_work(RunState::Waiting { why: left.into() });
        s.store.happen(1, EntryKind::Trouble { text: left.into() }, later(&s.clock, 20));
        let passed = s.courier.pass().await.unwrap();
        assert_eq!((passed.sent, passed.spared), (1, 1), "slack hears at once");
    }
    assert_eq!(s.pager.with(|told| told.posts.len()), 0);
    at_work(RunState::Failed { why: "the drain timed out".into(), undone: false });
    s.store.happen(1, EntryKind::Trouble { text: "failed".into() }, later(&s.clock, 20));
    s.courier.pass().await.unwrap();
    let because = s.pager.with(|told| told.posts.iter().map(|(notice, _)| notice.because.clone()).collect::<Vec<_>>());
    assert_eq!(because, [Some("xid-79 (r7) failed: the drain timed out".to_owned())]);
    let words = judged(&s);
    assert_eq!(words.len(), 2, "{words:?}");
    assert_eq!(words[0], (false, "xid-79 (r7) is at work: 3 pods left".to_owned()));
    // From now on it hears everything.
    s.store.resolve(1, later(&s.clock, 20));
    s.courier.pass().await.unwrap();
    assert_eq!(s.pager.with(|told| told.posts.len()), 2);
}

#[tokio::test]
async fn what_automation_mended_wakes_nobody_and_what_takes_too_long_does() {
    let s = scene();
    let begun = s.clock.now();
    s.store.open(1, Severity::Critical, &["pager"], begun);
    s.store.with(|shelf| shelf.runs = vec![run(7, RunState::Ready, begun)]);
    assert_eq!(s.courier.pass().await.unwrap().spared, 1);
    assert_eq!(s.courier.pass().await.unwrap().due, 0, "it is not asked again and again");
    s.store.with(|shelf| shelf.runs = vec![run(7, RunState::Done, begun)]);
    s.store.resolve(1, later(&s.clock, 60));
    assert_eq!(s.courier.pass().await.unwrap().spared, 1);
    assert_eq!(judged(&s).last().unwrap(), &(false, "xid-79 (r7) fixed it".to_owned()));
    later(&s.clock, 3_600);
    assert_eq!(s.courier.pass().await.unwrap().due, 0);

    let begun = s.clock.now();
    s.store.open(2, Severity::Critical, &["pager"], begun);
    s.store.with(|shelf| {
        let mut held = run(8, RunState::Waiting { why: "a budget allows no eviction".into() }, begun);
        held.incident = Some(IncidentId(2));
        shelf.runs = vec![held];
    });
    s.courier.pass().await.unwrap();
    later(&s.clock, 14 * 60);
    assert_eq!(s.courier.pass().await.unwrap().due, 0);
    later(&s.clock, 60);
    assert_eq!(s.courier.pass().await.unwrap().sent, 1);
    let because = s.pager.with(|told| told.posts[0].0.because.clone().unwrap());
    assert!(because.starts_with("it is still open after 15m: xid-79 (r8) is at work"), "{because}");
}

#[tokio::test]
async fn incidents_that_wait_for_automation_are_no_storm() {
    let s = scene();
    let now = s.clock.now();
    for id in 1..=40 {
        s.store.open(id, Severity::Critical, &["pager"], now);
        s.store.with(|shelf| {
            let mut busy = run(id, RunState::Ready, now);
            busy.incident = Some(IncidentId(id));
            shelf.runs.push(busy);
        });
    }
    let passed = s.courier.pass().await.unwrap();
    assert_eq!((passed.spared, passed.sent, passed.digested), (40, 0, 0));
}

fn asked(run: i64, approval: i64, s: &Scene) {
    let kind = EntryKind::ApprovalAsked {
        approval: ApprovalId(approval),
        question: "Drain gpu-1?".into(),
        plan_hash: String::new(),
        expires_at: s.clock.now() + Duration::from_secs(1_800),
    };
    s.store.with(|shelf| {
        let now = s.clock.now();
        shelf.runs.iter_mut().find(|known| known.id == RunId(run)).unwrap().state =
            RunState::Asking { approval: ApprovalId(approval) };
        shelf.approvals.push(self::approval(approval, run, now));
    });
    s.store.happen(1, kind, s.clock.now());
}

#[tokio::test]
async fn a_first_page_waits_for_the_question_in_mode_approve_and_never_beyond_five_seconds() {
    let s = scene();
    let begun = s.clock.now();
    s.store.open(1, Severity::Critical, &["oncall", "slack"], begun);
    s.store.with(|shelf| shelf.runs = vec![run(1, RunState::Ready, begun)]);
    let passed = s.courier.pass().await.unwrap();
    assert_eq!((passed.sent, passed.waiting), (1, 1), "slack can be edited and does not wait");
    later(&s.clock, 2);
    assert_eq!(s.courier.pass().await.unwrap().due, 0);
    asked(1, 3, &s);
    s.courier.pass().await.unwrap();
    s.oncall.with(|told| {
        assert_eq!(told.posts.len(), 1);
        let keys: Vec<&str> = told.posts[0].0.needs.iter().map(|need| need.key.as_str()).collect();
        assert_eq!(keys, ["a3"]);
        assert_eq!(told.posts[0].0.needs[0].link.as_deref(), Some("https://ns.example/runs/r1"));
    });
    // A plan that takes long holds no page back.
    s.store.open(2, Severity::Critical, &["oncall"], s.clock.now());
    let mut slow = run(2, RunState::Ready, s.clock.now());
    slow.incident = Some(IncidentId(2));
    s.store.with(|shelf| shelf.runs = vec![slow]);
    assert_eq!(s.courier.pass().await.unwrap().waiting, 1);
    later(&s.clock, 5);
    s.courier.pass().await.unwrap();
    assert_eq!(s.oncall.with(|told| told.posts.len()), 2);
}

#[tokio::test]
async fn a_first_page_waits_in_no_other_mode() {
    for (id, mode) in [(1, Mode::Observe), (2, Mode::Suggest), (3, Mode::Auto)] {
        let s = scene();
        s.store.open(id, Severity::Critical, &["oncall"], s.clock.now());
        let mut other = run(id, RunState::Ready, s.clock.now());
        (other.mode, other.incident) = (mode, Some(IncidentId(id)));
        s.store.with(|shelf| shelf.runs = vec![other]);
        assert_eq!(s.courier.pass().await.unwrap().sent, 1, "{mode}");
    }
}

#[tokio::test]
async fn what_needs_people_is_named_as_long_as_it_holds() {
    let s = scene();
    let begun = s.clock.now();
    s.store.open(1, Severity::Critical, &["slack"], begun);
    let reason = Reason::new(ReasonCode::BlastRadius, "1 of 4 nodes is out (gpu-2)");
    s.store.with(|shelf| shelf.runs = vec![run(1, RunState::Held { reason: reason.clone() }, begun)]);
    let call = ActionCall::new("k8s::cordon", [("node", json!("gpu-1"))]);
    let held = EntryKind::StepHeld { call, reason, until: begun };
    s.store.happen(1, held.clone(), begun);
    let needs = || s.slack.with(|told| told.posts.last().unwrap().0.needs.clone());
    s.courier.pass().await.unwrap();
    assert_eq!(needs(), [], "most holds end soon");
    s.store.happen(1, held, later(&s.clock, 600));
    s.store.with(|shelf| shelf.rows.values_mut().for_each(|row| row.due.urgent = true));
    s.courier.pass().await.unwrap();
    let found = needs();
    assert_eq!((found[0].kind, found[0].key.as_str()), (AttentionKind::Held, "r1 held"));
    assert!(found[0].text.starts_with("xid-79 (r1) has been on hold since 03:00 UTC: "), "{found:?}");

    let created = |rule: &str| EntryKind::RunCreated {
        runbook: RunbookPin { name: "xid-79".into(), hash: "0".repeat(64) },
        rule: Some(rule.into()),
        episode: None,
        subject: Subject::node("gpu-1"),
        mode: Mode::Auto,
        requested_by: "rule".into(),
        content: None,
    };
    s.store.with(|shelf| shelf.runs.clear());
    s.store.happen(1, created("xid"), later(&s.clock, 5));
    let failed = RunState::Failed { why: "the drain timed out".into(), undone: false };
    s.store.happen(1, EntryKind::RunEnded { state: failed }, later(&s.clock, 5));
    s.courier.pass().await.unwrap();
    let found = needs();
    assert_eq!(found.iter().map(|need| need.key.as_str()).collect::<Vec<_>>(), ["r1 failed"]);
    assert_eq!(found[0].text, "xid-79 (r1) failed: the drain timed out");
    s.store.happen(1, created("xid"), later(&s.clock, 5));
    s.courier.pass().await.unwrap();
    assert_eq!(needs(), [], "another run does the same work again");
}

#[tokio::test]
async fn what_a_run_left_is_needed_of_the_group_that_its_incident_became_part_of() {
    let s = scene();
    let now = s.clock.now();
    s.store.open(1, Severity::Critical, &[], now);
    s.store.open(5, Severity::Critical, &["slack"], now);
    let created = || EntryKind::RunCreated {
        runbook: RunbookPin { name: "xid-79".into(), hash: "0".repeat(64) },
        rule: Some("xid".into()),
        episode: None,
        subject: Subject::node("gpu-1"),
        mode: Mode::Auto,
        requested_by: "rule".into(),
        content: None,
    };
    s.store.happen(1, created(), now);
    let (title, why) = ("GpuXid on 5 nodes".into(), "5 subjects within 10s".into());
    s.store.happen(5, EntryKind::IncidentGrouped { title, why, merged: vec![IncidentId(1)] }, now);
    let failed = RunState::Failed { why: "the drain timed out".into(), undone: false };
    s.store.happen_to(5, 1, EntryKind::RunEnded { state: failed }, later(&s.clock, 5));
    s.courier.pass().await.unwrap();
    let needs = || s.slack.with(|told| told.posts.last().unwrap().0.needs.clone());
    let found = needs();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].text, "xid-79 (r1) failed: the drain timed out", "its name is known from before");
    s.store.happen_to(5, 9, created(), later(&s.clock, 5));
    s.courier.pass().await.unwrap();
    assert_eq!(needs(), [], "another run does the same work again");
}

#[tokio::test]
async fn what_is_read_while_a_delivery_ends_is_not_sent_a_second_time() {
    let s = scene();
    let (delivery, reader) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    s.slack.with(|told| told.slow = Some(delivery.clone()));
    s.store.open(1, Severity::Critical, &["slack"], s.clock.now());
    let (stop, stopped) = watch::channel(false);
    let (store, slack, nudge) = (s.store.clone(), s.slack.clone(), s.nudge.clone());
    let running = tokio::spawn(s.courier.run(stopped));
    let words = || store.with(|shelf| shelf.log.iter().map(|(.., word)| *word).collect::<Vec<_>>());
    eventually(|| words() == ["sending"]).await;
    // What is due is read now, while the message is on its way; the answer of the store comes after the end of the delivery.
    store.with(|shelf| shelf.slow_reader = Some(reader.clone()));
    nudge.nudge();
    eventually(|| store.with(|shelf| shelf.slow_reader.is_none())).await;
    delivery.notify_one();
    eventually(|| words() == ["sending", "delivered"]).await;
    reader.notify_one();
    // News of later are sent, as an edit of the one message.
    store.happen(1, EntryKind::Trouble { text: "news".into() }, s.clock.now());
    nudge.nudge();
    eventually(|| words().len() == 4).await;
    stop.send(true).unwrap();
    running.await.unwrap();
    slack.with(|told| {
        let priors: Vec<bool> = told.posts.iter().map(|(_, prior)| prior.is_some()).collect();
        assert_eq!(priors, [false, true], "one message and its edit");
        assert!(told.posts.iter().all(|(notice, _)| !notice.maybe_repeat));
    });
}

#[tokio::test]
async fn a_question_in_a_storm_is_named_in_the_digest_at_once() {
    let s = scene();
    for id in 1..=40 {
        s.store.open(id, Severity::Critical, &["slack"], s.clock.now());
    }
    s.courier.pass().await.unwrap();
    let before = s.slack.with(|told| told.digests.last().unwrap().0.clone());
    assert_eq!((before.total, before.asking), (40, 0));
    let now = s.clock.now();
    s.store.with(|shelf| {
        let mut asking = run(33, RunState::Asking { approval: ApprovalId(3) }, now);
        asking.incident = Some(IncidentId(33));
        shelf.runs.push(asking);
    });
    let question = EntryKind::ApprovalAsked {
        approval: ApprovalId(3),
        question: "Drain gpu-33?".into(),
        plan_hash: String::new(),
        expires_at: now + Duration::from_secs(1_800),
    };
    s.store.happen(33, question, later(&s.clock, 6));
    s.courier.pass().await.unwrap();
    let after = s.slack.with(|told| told.digests.last().unwrap().0.clone());
    assert_eq!((after.total, after.asking), (40, 1), "counted once");
    assert!(after.shown[0].line.starts_with("needs an answer: nightshift approve a3 (i33,"), "{:?}", after.shown[0]);
    assert_eq!(after.shown.iter().filter(|item| item.line.contains("(i33,")).count(), 1);
}

#[tokio::test]
async fn a_critical_incident_waits_for_one_slow_message_and_not_for_all_that_were_due_before_it() {
    let s = scene();
    for id in 1..=5 {
        s.store.open(id, Severity::Warning, &["slack"], s.clock.now());
    }
    let delivery = Arc::new(tokio::sync::Notify::new());
    s.slack.with(|told| told.slow = Some(delivery.clone()));
    let (stop, stopped) = watch::channel(false);
    let (store, slack, clock) = (s.store.clone(), s.slack.clone(), s.clock.clone());
    let running = tokio::spawn(s.courier.run(stopped));
    eventually(|| store.with(|shelf| !shelf.log.is_empty())).await;
    store.open(9, Severity::Critical, &["slack"], later(&clock, 1));
    delivery.notify_one();
    eventually(|| slack.with(|told| told.posts.len() == 6)).await;
    let order: Vec<i64> = slack.with(|told| told.posts.iter().map(|(notice, _)| notice.incident.id.0).collect());
    assert_eq!(order, [1, 9, 2, 3, 4, 5], "and each is told once");
    stop.send(true).unwrap();
    running.await.unwrap();
}

#[tokio::test]
async fn a_slow_channel_with_many_edits_sends_the_digest_of_a_storm_all_the_same() {
    let s = scene();
    for id in 1..=20 {
        s.store.open(id, Severity::Warning, &["slack"], s.clock.now());
    }
    s.courier.pass().await.unwrap();
    assert_eq!(s.slack.with(|told| told.posts.len()), 20, "one message each: the minute's allowance");
    s.slack.with(|told| told.takes_a_second = Some(s.clock.clone()));
    let now = later(&s.clock, 10);
    for id in 1..=20 {
        s.store.happen(id, EntryKind::Trouble { text: "news".into() }, now);
    }
    for id in 21..=60 {
        s.store.open(id, Severity::Warning, &["slack"], now);
    }
    s.courier.pass().await.unwrap();
    s.slack.with(|told| {
        assert!(told.posts.len() < 40, "an edit of a known incident took the channel's time, and others are still due");
        assert_eq!(told.digests.iter().map(|(digest, _)| digest.total).collect::<Vec<_>>(), [60]);
    });
}

fn run(id: i64, state: RunState, now: Time) -> Run {
    Run {
        id: RunId(id),
        rule: None,
        incident: Some(IncidentId(1)),
        episode: None,
        runbook: RunbookPin { name: "xid-79".into(), hash: "0".repeat(64) },
        input: RunInput::default(),
        subject: Subject::default(),
        mode: Mode::Approve,
        state,
        wake_at: None,
        epoch: 1,
        approved: None,
        unwinding: None,
        created_at: now,
        ended_at: None,
        requested_by: "rule".into(),
        posted_by: None,
    }
}

fn approval(id: i64, run: i64, now: Time) -> Approval {
    Approval {
        id: ApprovalId(id),
        run: RunId(run),
        question: "drain gpu-1?".into(),
        plan_hash: String::new(),
        plan: None,
        foretold: Vec::new(),
        step: None,
        state: ApprovalState::Open,
        asked_at: now,
        expires_at: now + Duration::from_secs(1_800),
        approvers: Vec::new(),
        needed: 1,
        given: Vec::new(),
        decided_by: None,
        decided_at: None,
    }
}

/// Polls a condition, letting every other task run in between; fails after far more turns than it needs.
async fn eventually(condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it did not come to pass");
}
