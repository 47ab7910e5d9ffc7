//! Silences of a real Alertmanager: made from here, seen there, and respected while they last.
//!
//! Invariant: what is silenced is read from Alertmanager, what was done is counted by the fleet.

use super::scene::Part;
use crate::harness::{client, free_port};
use crate::night::{NIGHT, Night};
use nightshift::model::{IncidentId, ReasonCode, RunId, RunState, Span, Time};
use serde_json::json;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const RULE: &str = "rules:\n  - name: r\n    when: ['alertname=\"GpuXid\"']\n    run: cordon\n    mode: auto\n";
const CORDON: &str =
    "//! Cordon a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n\nk8s::cordon(node, \"test\");\n";
const XID: &[(&str, &str)] = &[("alertname", "GpuXid"), ("node", "gpu-2"), ("gpu", "3")];

/// A night whose alerts come from this Alertmanager, at today's time, because its silences end by the real clock.
async fn night(alertmanager: &Part) -> Night {
    let mut night = Night::fall(RULE, &[("cordon", CORDON)]).await;
    let began: Time = NIGHT.parse().unwrap();
    night.pass(Duration::from_secs((Time::now().as_second() - began.as_second()).unsigned_abs())).await;
    night.configure(|config| {
        let source = config.sources.get_mut("test").unwrap();
        source.api = Some(alertmanager.url.clone());
        // A label that Alertmanager does not have must not spoil the silence.
        source.add_labels.insert("site".into(), "berlin".into());
    });
    night
}

async fn fires(alertmanager: &Part) {
    let labels: serde_json::Map<String, serde_json::Value> =
        XID.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let alerts = json!([{ "labels": labels, "startsAt": Time::now(), "generatorURL": "" }]);
    let answer = client().post(format!("{}/api/v2/alerts", alertmanager.url)).json(&alerts).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

async fn held(night: &Night, run: RunId) -> String {
    match night.run(run).await.state {
        RunState::Held { reason } if reason.code == ReasonCode::Silenced => reason.text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silence_that_a_person_makes_here_holds_the_run_until_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("alertmanager.yml"), "route: { receiver: none }\nreceivers: [{ name: none }]\n")
        .unwrap();
    let flags = [
        format!("--storage.path={}", dir.path().join("alertmanager").display()),
        "--cluster.listen-address=".to_owned(),
    ];
    let alertmanager = Part::start("alertmanager", dir.path(), free_port(), &flags).await;
    fires(&alertmanager).await;
    let night = night(&alertmanager).await;
    let heard = night.hear("firing", XID).await;
    let incident: IncidentId = night.run(heard.runs[0]).await.incident.unwrap();

    let two_hours = Span::minutes(120);
    let done = nightshift::engine::silence(&night.parts, incident, two_hours, "ada", "new fan").await.unwrap();
    assert_eq!((done.made.len(), done.left.len()), (1, 0), "{done:?}");
    let there = alertmanager.get("/api/v2/silences").await.unwrap();
    assert_eq!(there.as_array().unwrap().len(), 1, "{there:#}");
    assert_eq!(there[0]["id"].as_str(), Some(done.made[0].1.as_str()));
    assert_eq!(
        (&there[0]["createdBy"], &there[0]["comment"]),
        (&json!(format!("ada (Nightshift {incident})")), &json!("new fan"))
    );
    let silenced = alertmanager.get("/api/v2/alerts?active=false&silenced=true").await.unwrap();
    assert_eq!(silenced.as_array().unwrap().len(), 1, "exactly the alert is covered: {silenced:#}");

    night.settle().await;
    let words = held(&night, heard.runs[0]).await;
    assert!(
        words.starts_with(&format!("alert GpuXid is silenced at test by ada (Nightshift {incident}) until ")),
        "{words}"
    );
    assert!(words.contains("new fan"), "{words}");
    assert!(night.effects().is_empty(), "{:?}", night.effects());
    let kinds: Vec<&str> = night.entries().await.iter().map(|entry| entry.kind.name()).collect();
    assert!(kinds.contains(&"silence_asked") && kinds.contains(&"silence_made"), "{kinds:?}");

    // It is held, not ended: when the silence is over, what it wanted is done.
    let gone = client().delete(format!("{}/api/v2/silence/{}", alertmanager.url, done.made[0].1)).send().await.unwrap();
    assert!(gone.status().is_success(), "{gone:?}");
    assert_eq!(night.until_rest(heard.runs[0], MINUTE * 5).await.state, RunState::Done);
    assert_eq!(night.effects().get("patch nodes gpu-2"), Some(&1));

    // Nobody there to ask: that is no leave.
    night.by_hand("gpu-2", false).await;
    let second = night.hear("firing", &[("alertname", "GpuXid"), ("node", "gpu-3")]).await;
    drop(alertmanager);
    night.pass(MINUTE).await;
    night.settle().await;
    assert!(held(&night, second.runs[0]).await.contains("could not be read"));
    let wrong = nightshift::engine::silence(&night.parts, incident, Span::minutes(60 * 24 * 30), "ada", "x").await;
    assert!(wrong.unwrap_err().to_string().contains("a silence lasts from"));
}
