//! The shapes that are shipped, each with its samples.
//!
//! Invariant: every folder in `integrations/` with a `decode.rhai` has samples, and every sample its expected events.

use super::rig::*;
use nightshift::catalog::CatalogSnapshot;
use nightshift::config::SourceConfig;
use nightshift::script::ShapeScript;
use nightshift::server::ListenerTimeouts;
use nightshift::sources::{self, DecodedBody};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations");
    let mut list: Vec<_> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|p| decodes(p)).collect();
    list.sort();
    list
}

/// Other folders hold notifiers.
fn decodes(folder: &Path) -> bool {
    folder.join("decode.rhai").exists() || folder.ends_with("alertmanager")
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn shape(vendor: &str) -> ShapeScript {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations").join(vendor).join("decode.rhai");
    ShapeScript::compile(&format!("{vendor}/decode.rhai"), &fs::read_to_string(path).unwrap(), "decode").unwrap()
}

fn source(kind: &str) -> SourceConfig {
    serde_json::from_value(json!({ "kind": kind })).unwrap()
}

fn decode(vendor: &str, body: &[u8]) -> DecodedBody {
    let cfg = source(vendor);
    match vendor {
        "alertmanager" => sources::alertmanager::decode(body, vendor, &cfg, now()),
        _ => sources::shape::decode(&shape(vendor), body, serde_json::Map::new(), vendor, &cfg, now()),
    }
    .unwrap_or_else(|refusal| panic!("{vendor}: {refusal}"))
}

#[test]
fn every_sample_gives_the_events_beside_it() {
    let mut seen = 0;
    for folder in folders() {
        let vendor = name(&folder);
        if !folder.join("samples").is_dir() {
            assert!(!folder.join("decode.rhai").exists(), "{vendor} has a decoder and no samples");
            continue;
        }
        assert!(folder.join("README.md").exists(), "{vendor} has no README.md");
        for sample in fs::read_dir(folder.join("samples")).unwrap() {
            let sample = sample.unwrap().path();
            if !name(&sample).ends_with(".json") || name(&sample).ends_with(".events.json") {
                continue;
            }
            let decoded = decode(&vendor, &fs::read(&sample).unwrap());
            let told = json!({ "events": decoded.events, "gaps": decoded.gaps });
            let beside = sample.with_extension("events.json");
            // UPDATE_SAMPLES=1 writes what is decoded now; the diff is then read by a person.
            if std::env::var_os("UPDATE_SAMPLES").is_some() {
                fs::write(&beside, serde_json::to_string_pretty(&told).unwrap() + "\n").unwrap();
            }
            let expected = fs::read_to_string(&beside).unwrap_or_else(|e| panic!("{}: {e}", beside.display()));
            assert_eq!(told, serde_json::from_str::<Value>(&expected).unwrap(), "{}", sample.display());
            seen += 1;
        }
    }
    assert!(seen >= 9, "{seen} samples");
}

#[test]
fn what_is_not_the_vendors_is_refused_in_words() {
    for vendor in ["grafana", "datadog", "newrelic", "cloudevents"] {
        for body in ["{}", "[1]", "7", "null", r#"{"version":"4","alerts":[]}"#] {
            let decoded = sources::shape::decode(
                &shape(vendor),
                body.as_bytes(),
                serde_json::Map::new(),
                vendor,
                &source(vendor),
                now(),
            );
            let refusal = decoded.expect_err(&format!("{vendor} took {body}"));
            assert!(refusal.to_string().len() > 20, "{vendor} {body}: {refusal}");
        }
    }
}

fn loaded() -> CatalogSnapshot {
    let decoders = ["grafana", "datadog", "newrelic", "cloudevents"];
    CatalogSnapshot {
        decoders: decoders.into_iter().map(|vendor| (vendor.to_owned(), Arc::new(shape(vendor)))).collect(),
        hash: "h".to_owned(),
        ..CatalogSnapshot::default()
    }
}

#[tokio::test]
async fn a_vendor_posts_and_its_dedup_key_joins_trigger_and_recovery() {
    let rig = rig_with(ListenerTimeouts::default(), loaded()).await;
    let sample = |path: &str| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations").join(path)).unwrap();
    for (path, first, last) in [
        ("/in/datadog/dd", "datadog/samples/triggered.json", "datadog/samples/recovered-unset.json"),
        ("/in/newrelic/nr", "newrelic/samples/activated.json", "newrelic/samples/closed-texts.json"),
        ("/in/cloudevents/ce", "cloudevents/samples/structured.json", "cloudevents/samples/batch.json"),
    ] {
        assert_eq!(rig.post(path, &sample(first)).await.body["opened"], 1, "{path}");
        assert_eq!(rig.post(path, &sample(last)).await.body["resolved"], 1, "{path}");
    }
}

#[tokio::test]
async fn cloudevents_come_in_binary_mode_and_ask_before_they_come() {
    let rig = rig_with(ListenerTimeouts::default(), loaded()).await;
    let headers = [
        ("Content-Type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "a-9"),
        ("ce-source", "/fleet/gpu%2D3"),
        ("ce-type", "com.example.gpu.hot"),
        ("ce-time", "2026-11-02T02:50:00Z"),
    ];
    let data = br#"{"severity":"error","labels":{"node":"gpu-3"}}"#;
    let answer = rig.request("POST", "/in/cloudevents/ce", SOURCE_TOKEN, &headers, data).await;
    assert_eq!((answer.status, &answer.body["opened"]), (200, &json!(1)), "{}", answer.body);
    let event = rig.store.events().pop().unwrap();
    assert_eq!(event.labels.get("ce_source"), "/fleet/gpu-3");
    assert_eq!(event.subject.node.as_deref(), Some("gpu-3"));

    let ask = [("WebHook-Request-Origin", "eventemitter.example.com")];
    let answer = rig.request("OPTIONS", "/in/cloudevents/ce", SOURCE_TOKEN, &ask, b"").await;
    assert_eq!(answer.status, 204);
    assert!(answer.head.to_lowercase().contains("webhook-allowed-origin: eventemitter.example.com"), "{}", answer.head);
    assert_eq!(rig.request("OPTIONS", "/in/cloudevents/ce", "", &ask, b"").await.status, 401);
}

#[tokio::test]
async fn a_vendor_without_a_decoder_may_come_again() {
    let rig = rig().await;
    let answer = rig.post("/in/datadog/dd", b"{}").await;
    assert_eq!(answer.status, 503, "the file may be on its way: Datadog retries 5xx only");
    assert!(answer.body["hint"].as_str().unwrap().contains("integrations/datadog/decode.rhai"));
}
