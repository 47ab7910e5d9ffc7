//! Whole nights with real parts: Prometheus scrapes the fleet, Alertmanager groups and retries, the real engine acts.
//!
//! Invariant: a story passes by what the fleet, Slack, PagerDuty and the mail server counted, not by our own journal.

pub mod scene;
mod silences;

use crate::harness::{client, eventually};
use scene::{Heard, Repeats, Scene, episodes, incidents, runs, sum};
use serde_json::json;

/// The page of a resolved incident: one trigger, one resolve, one key.
fn check_pages(scene: &Scene) {
    let mut pages = scene.pages();
    // A word whose answer came too late is said again, with the same key: PagerDuty takes it for the same.
    pages.dedup();
    let actions: Vec<&str> = pages.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(actions, ["trigger", "resolve"]);
    assert_eq!(pages[0].1, pages[1].1, "the resolve must name the incident that was triggered");
    assert!(!pages[0].1.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_becomes_one_cordon_one_message_one_page_and_one_mail_until_it_is_repaired() {
    let scene = Scene::set(Heard::ByAlertmanager, Repeats::Hourly).await;
    let engine = scene.engine().await;
    let here = scene.fleet.pods_on("gpu-2").len();
    scene.xid("gpu-2", 3, 79);
    scene.run_ends(&engine).await;
    assert_eq!(scene.cordons("gpu-2"), 1);
    let evictions = scene.evictions();
    assert!(!evictions.is_empty() && evictions.len() <= here, "{evictions:?}");
    assert!(evictions.values().all(|times| *times == 1), "{evictions:?}");
    let mails = eventually("the mail", async || Some(scene.mail.messages()).filter(|mails| !mails.is_empty())).await;
    assert_eq!(mails.len(), 1, "{mails:#?}");
    for part in ["multipart/alternative", "text/plain\n", "text/html\n", "gpu-2"] {
        assert!(mails[0].contains(part), "no {part} in {}", mails[0]);
    }
    scene.verify_ledger();

    scene.repaired(&engine, "gpu-2").await;
    eventually("PagerDuty to hear of the end", async || {
        scene.pages().iter().any(|(action, _)| action == "resolve").then_some(())
    })
    .await;
    check_pages(&scene);
    eventually("the message to say that it is over", async || {
        let mut edits = scene.slack.seen().into_iter().filter(|seen| seen.path == "/chat.update");
        edits.next_back().filter(|edit| edit.text.contains("resolved")).map(|_| ())
    })
    .await;
    assert_eq!(scene.messages().len(), 1, "{:#?}", scene.messages());
    assert!(scene.messages()[0].text.contains("gpu-2"));
    let mails = eventually("the mail of the end", async || Some(scene.mail.messages()).filter(|m| m.len() >= 2)).await;
    assert!(
        mails.len() == 2 && mails.iter().any(|mail| mail.starts_with("subject: [Nightshift i1] Resolved: ")),
        "{mails:#?}"
    );
    assert_eq!(scene.cordons("gpu-2"), 1, "repair by people is not ours to act upon");
    assert_eq!(engine.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_reads_from_alertmanager_whether_its_messages_arrive() {
    let scene = Scene::set(Heard::ByAlertmanager, Repeats::Always).await;
    let said = || scene.cli(&["doctor"]).1;
    let before = said();
    assert!(before.contains("has a webhook") && before.contains("has not sent to any webhook yet"), "{before}");
    scene.xid("gpu-2", 3, 79);
    let failed = "alertmanager_notification_requests_failed_total";
    eventually("a delivery that fails, for nobody listens", async || {
        (scene.alertmanager.metric(failed, "webhook").await > 0.0).then_some(())
    })
    .await;
    let after = said();
    assert!(after.contains("deliveries of Alertmanager to webhooks have failed"), "{after}");
    assert!(after.contains("/in/alertmanager/"), "the receiver to paste: {after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plug_is_pulled_at_the_first_eviction_and_the_night_ends_the_same() {
    let scene = Scene::set(Heard::ByAlertmanager, Repeats::Always).await;
    let engine = scene.engine().await;
    scene.xid("gpu-2", 3, 79);
    eventually("the first eviction", async || (!scene.evictions().is_empty()).then_some(())).await;
    engine.kill();
    // Alertmanager finds nobody at home, and tries again.
    let failed = "alertmanager_notification_requests_failed_total";
    eventually("a delivery that fails", async || {
        (scene.alertmanager.metric(failed, "webhook").await > 0.0).then_some(())
    })
    .await;

    let engine = scene.engine().await;
    scene.run_ends(&engine).await;
    assert_eq!(scene.cordons("gpu-2"), 1);
    let evictions = scene.evictions();
    assert!(evictions.len() > 1, "the drain was over before the plug was pulled: {evictions:?}");
    assert!(evictions.values().all(|times| *times == 1), "{evictions:?}");
    let list = incidents(&engine).await.unwrap();
    assert_eq!(list.len(), 1, "{list:#?}");
    let incident = list[0]["id"].as_str().unwrap().to_owned();
    eventually("Alertmanager's repeats", async || {
        let episodes = episodes(&engine, &incident).await?;
        assert_eq!(episodes.len(), 1, "{episodes:#?}");
        (episodes[0]["seen"].as_u64()? >= 3).then_some(())
    })
    .await;
    assert_eq!(runs(&engine).await.unwrap().len(), 1);

    scene.repaired(&engine, "gpu-2").await;
    eventually("PagerDuty to hear of the end", async || {
        scene.pages().iter().any(|(action, _)| action == "resolve").then_some(())
    })
    .await;
    let keys: std::collections::BTreeSet<String> = scene.pages().into_iter().map(|(_, key)| key).collect();
    assert_eq!(keys.len(), 1, "{:?}", scene.pages());
    let messages = scene.messages();
    assert!(matches!(messages.len(), 1 | 2), "{messages:#?}");
    assert!(messages.iter().skip(1).all(|again| again.text.contains("you may see it twice")), "{messages:#?}");
    scene.verify_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_that_fires_while_the_engine_is_away_is_delivered_when_it_comes() {
    let scene = Scene::set(Heard::ByAlertmanager, Repeats::Hourly).await;
    // It was there once, so the token is; then it goes.
    assert_eq!(scene.engine().await.stop(), Some(0));
    scene.xid("gpu-1", 0, 79);
    let failed = "alertmanager_notification_requests_failed_total";
    eventually("a delivery that fails", async || {
        (scene.alertmanager.metric(failed, "webhook").await > 0.0).then_some(())
    })
    .await;
    assert_eq!(scene.changes().len(), 0);
    let engine = scene.engine().await;
    scene.run_ends(&engine).await;
    assert_eq!(scene.cordons("gpu-1"), 1);
    assert_eq!(incidents(&engine).await.unwrap().len(), 1);
    eventually("PagerDuty to be told", async || (!scene.pages().is_empty()).then_some(())).await;
    // That the run has stopped for people is sent under the same key.
    let pages = scene.pages();
    assert!(pages.iter().all(|page| *page == pages[0]), "{pages:?}");
    scene.verify_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prometheus_that_speaks_to_us_itself_repeats_and_only_a_counter_grows() {
    let scene = Scene::set(Heard::Directly, Repeats::Hourly).await;
    let engine = scene.engine().await;
    scene.xid("gpu-3", 1, 79);
    scene.run_ends(&engine).await;
    let client = client();
    let token = std::fs::read_to_string(scene.site.path().join("data/token")).unwrap();
    let acked = async || {
        let request = client.get(format!("{}/metrics", engine.url)).bearer_auth(token.trim());
        let page = request.send().await.ok()?.text().await.ok()?;
        Some(sum(&page, "nightshift_events_acked_total", ""))
    };
    let before = acked().await.unwrap();
    eventually("Prometheus to repeat itself", async || (acked().await? >= before + 3.0).then_some(())).await;
    let list = incidents(&engine).await.unwrap();
    assert_eq!(list.len(), 1, "{list:#?}");
    let episodes = episodes(&engine, list[0]["id"].as_str().unwrap()).await.unwrap();
    assert_eq!(episodes.len(), 1, "{episodes:#?}");
    assert_eq!(runs(&engine).await.unwrap().len(), 1);
    let heard = engine.get("/api/v1/entries?kind=heard").await.unwrap();
    assert_eq!(heard["entries"].as_array().unwrap().len(), 1, "a repeat is no entry: {heard:#}");
    assert_eq!(scene.cordons("gpu-3"), 1);
    scene.repaired(&engine, "gpu-3").await;
    eventually("PagerDuty to hear of the end", async || {
        scene.pages().iter().any(|(action, _)| action == "resolve").then_some(())
    })
    .await;
    check_pages(&scene);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_that_was_silenced_before_it_fired_starts_nothing_until_the_silence_ends() {
    let scene = Scene::set(Heard::ByAlertmanager, Repeats::Hourly).await;
    let engine = scene.engine().await;
    let client = client();
    let silences = format!("{}/api/v2/silences", scene.alertmanager.url);
    let now = jiff::Timestamp::now();
    let silence = json!({
        "matchers": [{"name": "node", "value": "gpu-2", "isRegex": false, "isEqual": true}],
        "startsAt": now.to_string(), "endsAt": (now + jiff::SignedDuration::from_hours(1)).to_string(),
        "createdBy": "ana", "comment": "the board is being replaced",
    });
    let made = client.post(&silences).json(&silence).send().await.unwrap();
    assert!(made.status().is_success(), "{made:?}");
    let made: serde_json::Value = made.json().await.unwrap();
    scene.xid("gpu-2", 3, 79);
    eventually("Alertmanager to hold the alert back", async || {
        let alerts = scene.alertmanager.get("/api/v2/alerts?silenced=true").await?;
        let silenced = |alert: &serde_json::Value| alert["status"]["state"] == "suppressed";
        alerts.as_array()?.iter().any(silenced).then_some(())
    })
    .await;
    // A later alert, of another node, has come through: so the silenced one would have come before it.
    scene.xid("gpu-4", 0, 31);
    eventually("the alert of another node", async || {
        let heard = engine.get("/api/v1/entries?kind=heard").await?;
        heard["entries"].as_array()?.first().map(|_| ())
    })
    .await;
    let heard = engine.get("/api/v1/entries?kind=heard").await.unwrap().to_string();
    assert!(heard.contains("gpu-4") && !heard.contains("gpu-2"), "{heard}");
    assert_eq!(runs(&engine).await.unwrap().len(), 0);
    // No rule here matches the other one: it is an incident by the catch-all, and its message is the only one.
    assert_eq!((scene.changes().len(), scene.pages().len()), (0, 0));
    assert!(scene.messages().iter().all(|seen| !seen.text.contains("gpu-2")), "{:?}", scene.messages());

    let id = made["silenceID"].as_str().unwrap();
    let ended = client.delete(format!("{}/api/v2/silence/{id}", scene.alertmanager.url)).send().await.unwrap();
    assert!(ended.status().is_success(), "{ended:?}");
    scene.run_ends(&engine).await;
    assert_eq!(scene.cordons("gpu-2"), 1);
    scene.verify_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_alertmanagers_that_both_say_it_are_one_episode_one_run_and_one_page() {
    let scene = Scene::set(Heard::ByTwo, Repeats::Always).await;
    let engine = scene.engine().await;
    scene.xid("gpu-2", 3, 79);
    scene.run_ends(&engine).await;
    let second = scene.second.as_ref().unwrap();
    let sent = "alertmanager_notification_requests_total";
    eventually("both to have said it", async || {
        let (one, other) = (scene.alertmanager.metric(sent, "webhook").await, second.metric(sent, "webhook").await);
        (one >= 2.0 && other >= 2.0).then_some(())
    })
    .await;
    scene.repaired(&engine, "gpu-2").await;
    eventually("PagerDuty to hear of the end", async || {
        scene.pages().iter().any(|(action, _)| action == "resolve").then_some(())
    })
    .await;
    // Both have said that it is over: neither holds an alert any more that it would repeat.
    eventually("both to have forgotten it", async || {
        let (one, other) = (scene.alertmanager.get("/api/v2/alerts").await?, second.get("/api/v2/alerts").await?);
        (one == json!([]) && other == json!([])).then_some(())
    })
    .await;
    check_pages(&scene);
    let list = incidents(&engine).await.unwrap();
    assert_eq!(list.len(), 1, "{list:#?}");
    assert_eq!(episodes(&engine, list[0]["id"].as_str().unwrap()).await.unwrap().len(), 1);
    assert_eq!(runs(&engine).await.unwrap().len(), 1);
    assert_eq!(scene.cordons("gpu-2"), 1);
    assert_eq!(scene.messages().len(), 1, "{:#?}", scene.messages());
}
