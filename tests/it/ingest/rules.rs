//! The twenty rules that a receiver of Alertmanager's webhook must honour, one test each, its number in the name.
//!
//! Invariant: none of them is only read in the code; each is seen at the store or in the answer.

use super::rig::*;
use nightshift::model::{EventStatus, Severity, Time};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;

fn set(mut value: Value, field: &str, to: Value) -> Value {
    value[field] = to;
    value
}

#[tokio::test]
async fn rule_01_unknown_fields_are_ignored_and_a_body_without_version_or_alerts_is_refused_in_words() {
    let rig = rig().await;
    let mut odd = body(&[set(alert("A", "firing"), "silenceURL", json!({ "deep": [null] }))]);
    for (field, value) in [("numFiring", json!(1)), ("notification_reason", json!(7)), ("routeLabels", json!(null))] {
        odd[field] = value;
    }
    assert_eq!(rig.post(AM, &bytes(&odd)).await.status, 200);
    let least = json!({ "version": "4", "alerts": [{ "labels": { "alertname": "Least" } }] });
    assert_eq!(rig.post(AM, &bytes(&least)).await.status, 200);
    let least = rig.store.events().pop().unwrap();
    assert_eq!((least.status, least.starts_at, least.ends_at), (EventStatus::Firing, now(), None));

    let good = body(&[alert("A", "firing")]);
    let without = |field: &str| {
        let mut value = good.clone();
        value.as_object_mut().unwrap().remove(field);
        value
    };
    for (value, word) in [
        (without("version"), "no `version`"),
        (without("alerts"), "no `alerts`"),
        (set(good.clone(), "version", json!(4)), "only version"),
        (set(good.clone(), "version", json!("3")), "only version"),
        (set(good.clone(), "version", json!("1")), "Grafana"),
        (set(good.clone(), "alerts", json!("none")), "list of alerts"),
        (json!({ "text": "a custom payload" }), "payload"),
        (json!([]), "no JSON object"),
        (json!(["4", [alert("A", "firing")]]), "no JSON object"),
        (set(good.clone(), "alerts", json!([["firing", { "alertname": "A" }]])), "no JSON object"),
    ] {
        let answer = rig.post(AM, &bytes(&value)).await;
        assert_eq!(answer.status, 400, "{value}");
        assert!(answer.error().contains(word), "{} lacks {word}", answer.error());
    }
    assert_eq!(rig.store.events().len(), 2, "nothing of a refused body is stored");
}

#[tokio::test]
async fn rule_02_the_label_set_is_the_identity_and_the_fingerprint_is_recomputed() {
    let rig = rig().await;
    let labels = json!({ "severity": "critical", "job": "node", "instance": "localhost:8081", "group": "production",
        "alertname": "InstanceDown", "pod": "" });
    let missing = json!({ "status": "firing", "labels": labels });
    let wrong = json!({ "status": "firing", "labels": labels, "fingerprint": "ffffffffffffffff" });
    let answer = rig.post(AM, &bytes(&body(&[missing, wrong]))).await;
    assert_eq!((&answer.body["opened"], &answer.body["refreshed"]), (&json!(1), &json!(1)), "the same complaint");
    for event in rig.store.events() {
        assert_eq!(event.fingerprint, "f404ecabc8dd5cd7");
        assert_eq!(event.labels.len(), 5, "an empty label does not exist");
    }
    // Other annotations and another start are still the same complaint.
    let later = json!({ "status": "firing", "labels": labels, "annotations": { "summary": "still" },
        "startsAt": "2026-11-02T02:59:00Z" });
    assert_eq!(rig.post(AM, &bytes(&body(&[later]))).await.body["refreshed"], 1);
}

#[tokio::test]
async fn rule_03_another_start_of_an_open_alert_opens_no_second_episode() {
    let rig = rig().await;
    let at = |time: &str, status: &str| bytes(&body(&[set(alert("A", status), "startsAt", json!(time))]));
    assert_eq!(rig.post(AM, &at("2026-11-02T02:50:00Z", "firing")).await.body["opened"], 1);
    for other in ["2026-11-02T02:40:00Z", "2026-11-02T02:55:00Z"] {
        assert_eq!(rig.post(AM, &at(other, "firing")).await.body["refreshed"], 1, "{other}");
    }
    assert_eq!(rig.post(AM, &at("2026-11-02T02:40:00Z", "resolved")).await.body["resolved"], 1);
    assert_eq!(rig.post(AM, &at("2026-11-02T02:58:00Z", "firing")).await.body["opened"], 1);
    // The same labels from another Alertmanager are another source's complaint.
    let lab = rig.request("POST", "/in/alertmanager/lab", LAB_TOKEN, &[], &at("2026-11-02T02:58:00Z", "firing")).await;
    assert_eq!(lab.body["opened"], 1);
}

#[tokio::test]
async fn rule_04_the_group_key_decides_nothing() {
    let rig = rig().await;
    for (at, key) in [json!("{}:{}"), json!("x".repeat(20_000)), json!("\"quotes\" ünïcode"), json!(17), json!(null)]
        .into_iter()
        .enumerate()
    {
        let answer = rig.post(AM, &bytes(&set(body(&[alert("A", "firing")]), "groupKey", key))).await;
        assert_eq!(answer.body[if at == 0 { "opened" } else { "refreshed" }], 1);
    }
}

#[tokio::test]
async fn rule_05_the_receivers_name_is_unquoted() {
    let rig = rig().await;
    let cut = set(body(&[alert("A", "firing")]), "truncatedAlerts", json!(3));
    rig.post(AM, &bytes(&cut)).await;
    assert!(rig.store.gaps()[0].contains("\"web.hook\""), "{:?}", rig.store.gaps());
    let plain = nightshift::sources::alertmanager::receiver_name;
    assert_eq!(plain(r"team\-x\.a\(b\)\\c"), r"team\-x.a(b)\c");
    assert_eq!(plain(r"ends with \"), r"ends with \");
}

#[tokio::test]
async fn rule_06_each_alert_has_its_own_status_whatever_the_group_says() {
    let rig = rig().await;
    rig.post(AM, &bytes(&body(&[alert("A", "firing"), alert("B", "firing")]))).await;
    let mixed = set(body(&[alert("A", "resolved"), alert("B", "firing")]), "status", json!("firing"));
    let answer = rig.post(AM, &bytes(&mixed)).await;
    assert_eq!((&answer.body["resolved"], &answer.body["refreshed"]), (&json!(1), &json!(1)));
    let lying = set(body(&[alert("B", "firing")]), "status", json!("resolved"));
    assert_eq!(rig.post(AM, &bytes(&lying)).await.body["refreshed"], 1);
}

#[tokio::test]
async fn rule_07_an_alert_that_is_absent_is_not_resolved() {
    let rig = rig().await;
    rig.post(AM, &bytes(&body(&[alert("A", "firing"), alert("B", "firing")]))).await;
    let answer = rig.post(AM, &bytes(&body(&[alert("B", "resolved")]))).await;
    assert_eq!(answer.body["resolved"], 1);
    let empty = rig.post(AM, &bytes(&body(&[]))).await;
    assert_eq!((empty.status, &empty.body["resolved"]), (200, &json!(0)));
    assert_eq!(rig.post(AM, &bytes(&body(&[alert("A", "firing")]))).await.body["refreshed"], 1, "A was open all along");
}

#[tokio::test]
async fn rule_08_a_truncated_list_is_a_gap() {
    let rig = rig().await;
    let cut = set(body(&[alert("A", "firing")]), "truncatedAlerts", json!(17));
    let answer = rig.post(AM, &bytes(&cut)).await;
    assert_eq!((answer.status, &answer.body["gaps"]), (200, &json!(1)));
    assert!(rig.store.gaps()[0].contains("cut 17 alerts"), "{:?}", rig.store.gaps());
    // Absent before 0.21, and zero, say that nothing is missing.
    let mut old = body(&[alert("A", "firing")]);
    old.as_object_mut().unwrap().remove("truncatedAlerts");
    rig.post(AM, &bytes(&old)).await;
    assert_eq!(rig.store.gaps().len(), 1);
    // A list that was cut to nothing still says so.
    let answer = rig.post(AM, &bytes(&set(body(&[]), "truncatedAlerts", json!(2)))).await;
    assert_eq!((answer.status, rig.store.gaps().len()), (200, 2));
}

#[tokio::test]
async fn rule_09_the_zero_time_is_no_end_and_times_keep_what_the_store_keeps() {
    let rig = rig().await;
    rig.post(AM, &bytes(&body(&[alert("A", "firing"), alert("B", "resolved")]))).await;
    let events = rig.store.events();
    assert_eq!(events[0].ends_at, None);
    assert_eq!(events[1].ends_at, Some("2026-11-02T02:59:30.5Z".parse::<Time>().unwrap()));
    assert_eq!(events[0].starts_at, "2026-11-02T02:50:00.123456Z".parse::<Time>().unwrap());
    for same in ["2026-11-02T04:50:00.123456+02:00", "2026-11-01T19:20:00.1234560-07:30"] {
        rig.post(AM, &bytes(&body(&[set(alert("A", "firing"), "startsAt", json!(same))]))).await;
        assert_eq!(rig.store.events().pop().unwrap().starts_at, events[0].starts_at, "{same}");
    }
}

#[tokio::test]
async fn rule_10_without_resolved_messages_an_episode_outlives_two_repeats_before_it_is_stale() {
    let source: nightshift::config::SourceConfig = serde_json::from_value(json!({ "kind": "alertmanager" })).unwrap();
    assert!(source.stale_after.0.as_secs() > 2 * 4 * 3600, "Alertmanager repeats each 4 h by default");
    let rig = rig().await;
    // A resolve of what was never told to us as firing opens nothing.
    assert_eq!(rig.post(AM, &bytes(&body(&[alert("A", "resolved")]))).await.body["late"], 1);
}

#[tokio::test]
async fn rule_11_a_repeat_is_only_a_refresh() {
    let rig = rig().await;
    let once = bytes(&body(&[alert("A", "firing")]));
    assert_eq!(rig.post(AM, &once).await.body["opened"], 1);
    for _ in 0..3 {
        let answer = rig.post(AM, &once).await;
        assert_eq!((&answer.body["opened"], &answer.body["refreshed"]), (&json!(0), &json!(1)));
    }
}

#[tokio::test]
async fn rule_12_overload_is_503_and_never_429_and_what_cannot_be_accepted_is_4xx() {
    use nightshift::store::StoreError;
    let rig = rig().await;
    let good = bytes(&body(&[alert("A", "firing")]));
    let failures: [fn() -> StoreError; 3] = [
        || StoreError::Busy("the queue is full".into()),
        || StoreError::Database("disk I/O error at /secret/path".into()),
        || StoreError::Damaged("page 7".into()),
    ];
    for failure in failures {
        *rig.store.error.lock().unwrap() = Some(failure);
        let answer = rig.post(AM, &good).await;
        assert_eq!(answer.status, 503);
        assert!(answer.head.to_lowercase().contains("retry-after:"), "{}", answer.head);
        assert!(!answer.error().contains("secret"), "the words of the database stay here: {}", answer.error());
    }
    *rig.store.error.lock().unwrap() = None;
    assert_eq!(rig.post(AM, b"{").await.status, 400);
    assert_eq!(rig.request("POST", AM, "", &[], &good).await.status, 401);
    assert_eq!(rig.request("POST", AM, VIEWER_TOKEN, &[], &good).await.status, 403);
    assert_eq!(rig.post(AM, &good).await.status, 200);
}

#[tokio::test]
async fn rule_13_the_answer_comes_after_the_commit_and_not_before() {
    let rig = rig().await;
    let gate = Arc::new(Semaphore::new(0));
    *rig.store.gate.lock().unwrap() = Some(Arc::clone(&gate));
    let mut waiting = rig.store.waiting.subscribe();
    let good = bytes(&body(&[alert("A", "firing")]));
    let mut answer = Box::pin(rig.post(AM, &good));
    tokio::select! {
        biased;
        early = &mut answer => panic!("answered {} before the commit", early.status),
        _ = waiting.wait_for(|count| *count == 1) => {}
    }
    gate.add_permits(1);
    assert_eq!(answer.await.status, 200);
    assert_eq!(rig.store.events().len(), 1);
}

#[tokio::test]
async fn rule_14_duplicates_from_several_senders_change_only_a_counter() {
    let rig = rig().await;
    let one = bytes(&set(body(&[alert("A", "firing")]), "externalURL", json!("http://am-1")));
    let two = bytes(&set(body(&[alert("A", "firing")]), "externalURL", json!("http://am-2")));
    let answers = futures::future::join_all([rig.post(AM, &one), rig.post(AM, &two), rig.post(AM, &one)]).await;
    let opened: u64 = answers.iter().map(|a| a.body["opened"].as_u64().unwrap()).sum();
    assert_eq!(opened, 1);
    let page = rig.metrics.render();
    assert!(page.contains("nightshift_events_acked_total 3"), "{page}");
    assert!(page.contains("nightshift_events_stored_total 1"), "{page}");
    assert!(page.contains("nightshift_events_duplicate_total 2"), "{page}");
}

#[tokio::test]
async fn rule_15_firing_with_the_same_start_after_a_resolve_reopens() {
    let rig = rig().await;
    rig.post(AM, &bytes(&body(&[alert("A", "firing")]))).await;
    rig.post(AM, &bytes(&body(&[alert("A", "resolved")]))).await;
    assert_eq!(rig.post(AM, &bytes(&body(&[alert("A", "firing")]))).await.body["reopened"], 1);
    rig.post(AM, &bytes(&body(&[alert("A", "resolved")]))).await;
    let later = set(alert("A", "firing"), "startsAt", json!("2026-11-02T02:59:59Z"));
    assert_eq!(rig.post(AM, &bytes(&body(&[later]))).await.body["opened"], 1);
}

#[tokio::test]
async fn rule_16_a_storm_of_single_notifications_and_one_of_400_are_all_taken() {
    let rig = rig().await;
    let name = |at: usize| format!("Storm{at}");
    let bodies: Vec<Vec<u8>> = (0..300).map(|at| bytes(&body(&[alert(&name(at), "firing")]))).collect();
    let answers = futures::future::join_all(bodies.iter().map(|body| rig.post(AM, body))).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body["opened"] == 1));
    let many: Vec<Value> = (0..400).map(|at| alert(&name(at), "firing")).collect();
    let answer = rig.post(AM, &bytes(&body(&many))).await;
    assert_eq!((&answer.body["refreshed"], &answer.body["opened"]), (&json!(300), &json!(100)));
}

#[tokio::test]
async fn rule_17_a_resolve_that_is_listed_again_changes_nothing() {
    let rig = rig().await;
    rig.post(AM, &bytes(&body(&[alert("A", "firing")]))).await;
    assert_eq!(rig.post(AM, &bytes(&body(&[alert("A", "resolved")]))).await.body["resolved"], 1);
    let again = rig.post(AM, &bytes(&body(&[alert("A", "resolved")]))).await;
    assert_eq!((again.status, &again.body["late"], &again.body["resolved"]), (200, &json!(1), &json!(0)));
}

#[tokio::test]
async fn rule_18_the_token_and_not_the_path_says_who_it_is() {
    let rig = rig().await;
    let good = bytes(&body(&[alert("A", "firing")]));
    assert_eq!(rig.request("POST", AM, LAB_TOKEN, &[], &good).await.status, 403, "another source's token");
    assert_eq!(rig.request("POST", &format!("{AM}?token={SOURCE_TOKEN}"), "", &[], &good).await.status, 401);
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("alertmanager:{SOURCE_TOKEN}"));
    let header = format!("Basic {basic}");
    assert_eq!(rig.request("POST", AM, "", &[("Authorization", &header)], &good).await.status, 200);
    // What a source adds is set by the site and not by the sender.
    let claims = set(alert("B", "firing"), "labels", json!({ "alertname": "B", "cluster": "prod-1" }));
    rig.request("POST", "/in/alertmanager/lab", LAB_TOKEN, &[], &bytes(&body(&[claims]))).await;
    let event = rig.store.events().pop().unwrap();
    assert_eq!(event.subject.cluster.as_deref(), Some("lab-1"));
}

#[tokio::test]
async fn rule_19_prometheus_itself_may_post_and_the_good_of_a_mixed_batch_is_kept() {
    let rig = rig().await;
    let path = format!("{AM}/api/v2/alerts");
    let post = |value: Value| bytes(&value);
    let firing = json!({ "labels": { "alertname": "A", "pod": "" }, "startsAt": "2026-11-02T02:50:00Z",
        "endsAt": "2026-11-02T03:04:00Z", "generatorURL": "http://p" });
    let resolved = set(firing.clone(), "endsAt", json!("2026-11-02T02:59:00Z"));
    let answer = rig.post(&path, &post(json!([firing]))).await;
    assert_eq!((answer.status, &answer.body["opened"]), (200, &json!(1)));
    let event = rig.store.events().pop().unwrap();
    assert_eq!((event.status, event.ends_at, event.labels.len()), (EventStatus::Firing, None, 1));

    // Said again within the window it does not reach the disk, but is acknowledged; after it, it does.
    let again = set(firing.clone(), "endsAt", json!("2026-11-02T03:05:00Z"));
    let answer = rig.post(&path, &post(json!([again, again]))).await;
    assert_eq!((answer.status, &answer.body["accepted"], rig.store.events().len()), (200, &json!(2), 1));
    rig.clock.advance(std::time::Duration::from_secs(241));
    assert_eq!(
        rig.post(&path, &post(json!([set(firing.clone(), "endsAt", json!("2026-11-02T03:10:00Z"))]))).await.status,
        200
    );
    assert_eq!(rig.store.events().len(), 2);

    // A change is never a repeat.
    assert_eq!(rig.post(&path, &post(json!([resolved]))).await.body["resolved"], 1);

    let other = json!({ "labels": { "alertname": "B" } });
    let bad = json!([{ "labels": {} }, other, { "labels": { "x": "y" }, "startsAt": "soon" },
        { "labels": { "x": "y" }, "startsAt": "2026-11-02T02:00:00Z", "endsAt": "2026-11-02T01:00:00Z" }]);
    let answer = rig.post(&path, &post(bad)).await;
    assert_eq!((answer.status, &answer.body["opened"]), (400, &json!(1)), "kept, and 400 all the same");
    for at in ["alert 1 of 4", "alert 3 of 4", "alert 4 of 4"] {
        assert!(answer.error().contains(at), "{}", answer.error());
    }
    assert!(rig.store.gaps().is_empty());
}

#[tokio::test]
async fn rule_19_what_was_not_committed_is_not_taken_for_a_repeat() {
    let rig = rig().await;
    let path = format!("{AM}/api/v2/alerts");
    let firing = bytes(&json!([{ "labels": { "alertname": "A" }, "startsAt": "2026-11-02T02:50:00Z" }]));
    *rig.store.error.lock().unwrap() = Some(|| nightshift::store::StoreError::Busy("full".into()));
    assert_eq!(rig.post(&path, &firing).await.status, 503);
    *rig.store.error.lock().unwrap() = None;
    assert_eq!(rig.post(&path, &firing).await.body["opened"], 1);
}

#[tokio::test]
async fn rule_20_a_body_of_the_event_recorder_is_refused_in_words_and_not_taken_for_alerts() {
    let rig = rig().await;
    let recorder = json!({ "events": [{ "alertCreated": { "alert": { "labels": { "alertname": "A" } } } }] });
    let answer = rig.post(AM, &bytes(&recorder)).await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("not Alertmanager's own notification"), "{}", answer.error());
    assert!(rig.store.events().is_empty());
}

#[tokio::test]
async fn an_event_carries_subject_severity_summary_and_url() {
    let rig = rig().await;
    rig.post(AM, &bytes(&body(&[alert("XidError", "firing")]))).await;
    let event = rig.store.events().pop().unwrap();
    assert_eq!(event.subject.to_string(), "node gpu-3 gpu 1");
    assert_eq!(event.severity, Severity::Critical);
    assert_eq!(event.summary, "XidError on gpu-3");
    assert_eq!(event.url, "http://prometheus:9090/graph?g0.expr=up");
    for (annotations, summary) in [
        (json!({ "description": "d", "message": "m" }), "d"),
        (json!({ "message": "m" }), "m"),
        (json!({ "summary": "" }), "XidError"),
        (json!(null), "XidError"),
    ] {
        let alert = set(alert("XidError", "firing"), "annotations", annotations);
        rig.post(AM, &bytes(&body(&[alert]))).await;
        assert_eq!(rig.store.events().pop().unwrap().summary, summary);
    }
}

#[tokio::test]
async fn one_bad_alert_is_a_gap_and_costs_no_other() {
    let rig = rig().await;
    let bad = [
        json!({ "status": "firing", "labels": { "alertname": 7 } }),
        json!({ "status": "odd", "labels": { "alertname": "B" } }),
        json!("not an alert"),
        set(alert("C", "firing"), "startsAt", json!("yesterday")),
        set(alert("D", "firing"), "labels", json!({ "x".repeat(300): "y" })),
        set(alert("E", "firing"), "labels", json!({ "x": "y".repeat(5000) })),
    ];
    for bad in bad {
        let before = rig.store.gaps().len();
        let answer = rig.post(AM, &bytes(&body(&[alert("A", "firing"), bad.clone()]))).await;
        assert_eq!(
            (answer.status, &answer.body["accepted"], &answer.body["gaps"]),
            (200, &json!(1), &json!(1)),
            "{bad}"
        );
        assert!(rig.store.gaps()[before].starts_with("alert 2 of 2 could not be read"), "{:?}", rig.store.gaps());
        assert_eq!(rig.post(AM, &bytes(&body(&[bad]))).await.status, 400, "alone it is refused");
    }
    let long = set(alert("F", "firing"), "annotations", json!({ "summary": "ü".repeat(4000) }));
    let answer = rig.post(AM, &bytes(&body(&[long]))).await;
    assert_eq!((answer.status, &answer.body["gaps"]), (200, &json!(1)), "a long text is cut, and said");
    assert!(rig.store.events().pop().unwrap().summary.len() <= 4096);
}
