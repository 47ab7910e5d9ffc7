//! One source floods, and the critical incident of another is notified as if it did not: the real process, over the network.
//!
//! Invariant: when a notification has come is seen at the vendor's end, and what is acknowledged is counted at the end.

use crate::harness::{Site, alertmanager_body, eventually_within, number_of, secret};
use crate::night::NIGHT;
use crate::recording::Recording;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PER_BODY: usize = 1_000;
const SENDERS: usize = 4;
/// Incidents of the other source, spread over the flood; the last one comes when all of it is in. While a digest is open a source
/// has as many messages of its own in a minute.
const PROBES: usize = 3;

/// Takes what `FLOOD_ALERTS` says (100,000 is the bar) from `NIGHTSHIFT_BINARY`, or a few from the build of the tests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_one_source_floods_a_critical_incident_of_another_is_notified() {
    let flood = number_of("FLOOD_ALERTS", 4_000);
    let hook = Recording::start(200, |_, _| json!({})).await;
    let extra = format!(
        "sources: {{ lab: {{ kind: alertmanager }}, prod: {{ kind: alertmanager }} }}\n\
         channels:\n  hook: {{ kind: webhook, shape: webhook-json, url: {{ env: HOOK_URL }} }}\n\
         default: {{ tell: [hook] }}\nhttp_allow: ['private+{}/']\n",
        hook.url
    );
    let rules = "rules:\n  - name: all\n    when: ['alertname=~\".+\"']\n    tell: [hook]\n    group_by: [id]\n";
    let site = Site::new(&extra, rules, &[]);
    let shape = site.path().join("integrations/webhook-json");
    std::fs::create_dir_all(&shape).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations/webhook-json/encode.rhai");
    std::fs::copy(shipped, shape.join("encode.rhai")).unwrap();
    for source in ["lab", "prod"] {
        site.add_token(source, "source", &format!(", sources: [{source}]"));
    }
    let engine = site.start(&[("HOOK_URL", format!("{}/hook", hook.url))]).await;
    let engine = engine.unwrap_or_else(|| panic!("{}", site.log()));

    let (next, sent) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let senders: Vec<_> =
        (0..SENDERS).map(|_| tokio::spawn(send(engine.url.clone(), flood, next.clone(), sent.clone()))).collect();
    let client = crate::harness::client();
    let mut took = Vec::new();
    for probe in 0..PROBES {
        let due = flood * probe / (PROBES - 1);
        eventually_within(Duration::from_secs(600), "the flood to go on", async || {
            (sent.load(Ordering::Relaxed) >= due).then_some(())
        })
        .await;
        let name = format!("ProdDown{probe}");
        let body =
            alertmanager_body("firing", NIGHT, &[&[("alertname", &name), ("id", &name), ("severity", "critical")]]);
        let begun = Instant::now();
        let post = client.post(format!("{}/in/alertmanager/prod", engine.url)).bearer_auth(secret("prod"));
        assert_eq!(post.json(&body).send().await.unwrap().status().as_u16(), 200);
        eventually_within(Duration::from_secs(60), "the notification", async || {
            hook.seen().iter().any(|seen| seen.text.contains(&name)).then_some(())
        })
        .await;
        took.push(begun.elapsed());
    }
    for sender in senders {
        sender.await.unwrap();
    }
    let open = engine.get("/api/v1/status").await.unwrap()["episodes_open"].as_u64();
    eprintln!("{flood} alerts of one source; the other's critical incident was notified after {took:?}");
    assert_eq!(open, Some((flood + PROBES) as u64), "nothing that was acknowledged is lost");
    let slowest = took.iter().max().unwrap();
    // The build that ships is held to the bar. The one of the tests takes in a tenth of the alerts in the same time, and each message
    // of a channel waits for commits among theirs: while the flood comes in, what is told waits with it.
    let bar = if std::env::var_os("NIGHTSHIFT_BINARY").is_some() { 2 } else { 20 };
    assert!(*slowest <= Duration::from_secs(bar), "{took:?}");
}

/// Bodies of the flood, one after another, until there are no more; one that is put off is sent again.
async fn send(url: String, flood: usize, next: Arc<AtomicUsize>, sent: Arc<AtomicUsize>) {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
    loop {
        let first = next.fetch_add(PER_BODY, Ordering::Relaxed);
        if first >= flood {
            return;
        }
        let names: Vec<(String, String)> =
            (first..(first + PER_BODY).min(flood)).map(|no| (format!("Flood{no}"), format!("lab-{no}"))).collect();
        let labels: Vec<[(&str, &str); 3]> = names
            .iter()
            .map(|(name, id)| [("alertname", name.as_str()), ("id", id.as_str()), ("severity", "critical")])
            .collect();
        let alerts: Vec<&[(&str, &str)]> = labels.iter().map(|labels| labels.as_slice()).collect();
        let body = alertmanager_body("firing", NIGHT, &alerts);
        loop {
            let post = client.post(format!("{url}/in/alertmanager/lab")).bearer_auth(secret("lab")).json(&body);
            let status = post.send().await.map(|answer| answer.status().as_u16());
            match status {
                Ok(200) => break,
                Ok(429 | 503) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await, // polls
                Ok(other) => panic!("a body of the flood is answered with {other}"),
            }
        }
        sent.fetch_add(names.len(), Ordering::Relaxed);
    }
}
