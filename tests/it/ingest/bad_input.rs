//! Bodies and connections that mean no good: a clear 4xx, or an event whose odd text stays what it is.
//!
//! Invariant: nothing is half-stored.

use super::rig::*;
use nightshift::catalog::CatalogSnapshot;
use nightshift::server::ListenerTimeouts;
use serde_json::{Value, json};
use std::io::Write as _;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

#[tokio::test]
async fn malformed_deep_and_foreign_bodies_are_refused_and_nothing_is_stored() {
    let rig = rig().await;
    let deep_list = format!(r#"{{"version":"4","alerts":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let deep_label =
        format!(r#"{{"version":"4","alerts":[{{"labels":{}1{}}}]}}"#, r#"{"a":"#.repeat(40), "}".repeat(40));
    let mut not_utf8 = bytes(&body(&[alert("A", "firing")]));
    let at = not_utf8.windows(5).position(|w| w == b"gpu-3").unwrap();
    not_utf8[at] = 0xff;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "not an Alertmanager"),
        ("cut", bytes(&body(&[alert("A", "firing")]))[..200].to_vec(), "not an Alertmanager"),
        ("two values", b"{}{}".to_vec(), "not an Alertmanager"),
        ("a number", b"7".to_vec(), "not an Alertmanager"),
        ("doubled key", br#"{"version":"4","alerts":[],"alerts":[]}"#.to_vec(), "duplicate"),
        ("deep list", deep_list.into_bytes(), "nested deeper"),
        ("deep label", deep_label.into_bytes(), "nested deeper"),
        ("not UTF-8", not_utf8, "not UTF-8"),
        ("UTF-16", "{\"version\":\"4\"}".encode_utf16().flat_map(u16::to_le_bytes).collect(), "not"),
        ("lone surrogate", br#"{"version":"4","alerts":[{"labels":{"a":"\ud800"}}]}"#.to_vec(), "could not be read"),
    ];
    for (name, bytes, word) in cases {
        let answer = rig.post(AM, &bytes).await;
        assert_eq!(answer.status, 400, "{name}");
        assert!(answer.error().contains(word), "{name}: {}", answer.error());
        assert!(answer.body["hint"].is_string(), "{name}");
    }
    assert!(rig.store.batches.lock().unwrap().is_empty());
}

#[tokio::test]
async fn ten_thousand_labels_and_too_many_alerts_are_refused() {
    let rig = rig().await;
    let labels: serde_json::Map<String, Value> = (0..10_000).map(|at| (format!("l{at}"), json!("v"))).collect();
    let answer = rig.post(AM, &bytes(&body(&[json!({ "status": "firing", "labels": labels })]))).await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("10000 labels, 64 are allowed"), "{}", answer.error());
    let alerts: Vec<Value> = (0..5001).map(|at| json!({ "labels": { "a": at.to_string() } })).collect();
    let answer = rig.post(AM, &bytes(&body(&alerts))).await;
    assert_eq!(answer.status, 413);
    assert!(answer.error().contains("5001 alerts"), "{}", answer.error());
    assert!(rig.store.batches.lock().unwrap().is_empty());
    assert_eq!(rig.post(AM, &bytes(&body(&alerts[..5000]))).await.body["opened"], 5000);
}

#[tokio::test]
async fn huge_bodies_are_refused_by_their_length_by_their_bytes_and_unpacked() {
    let rig = rig().await;
    // By the length alone: the body is never sent.
    let head = |length: &str| {
        format!(
            "POST {AM} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SOURCE_TOKEN}\r\n\
                 Content-Type: application/json\r\n{length}\r\n\r\n"
        )
    };
    assert_eq!(rig.raw(head("Content-Length: 8388609").as_bytes()).await.status, 413);
    assert_eq!(rig.raw(head("Content-Length: 2097153\r\nContent-Encoding: gzip").as_bytes()).await.status, 413);
    // By its bytes, when it does not say how long it is.
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20));
    let chunked = head("Transfer-Encoding: chunked") + &chunk.repeat(9) + "0\r\n\r\n";
    assert_eq!(rig.raw(chunked.as_bytes()).await.status, 413);
    // A small body that unpacks to a huge one.
    let gz = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    let bomb = gzip(&vec![b' '; 9 * 1024 * 1024]);
    assert!(bomb.len() < 20_000);
    assert_eq!(rig.request("POST", AM, SOURCE_TOKEN, &gz, &bomb).await.status, 413);
    assert!(rig.store.batches.lock().unwrap().is_empty());
    // What is within the bounds is taken, packed or not.
    let good = bytes(&body(&[alert("A", "firing")]));
    assert_eq!(rig.request("POST", AM, SOURCE_TOKEN, &gz, &gzip(&good)).await.status, 200);
    assert_eq!(rig.request("POST", AM, SOURCE_TOKEN, &gz, &good).await.status, 400, "not gzip");
    assert_eq!(rig.request("POST", AM, SOURCE_TOKEN, &gz, &gzip(&good)[..40]).await.status, 400, "cut gzip");
    let mut padded = good.clone();
    padded.extend(vec![b' '; 3 * 1024 * 1024]);
    assert_eq!(rig.post(AM, &padded).await.status, 200);
}

#[tokio::test]
async fn bytes_under_way_are_bounded_and_the_answer_is_503() {
    let rig = rig().await;
    let head = format!(
        "POST {AM} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SOURCE_TOKEN}\r\nContent-Length: 8388608\r\n\r\n"
    );
    let good = bytes(&body(&[alert("A", "firing")]));
    let open = async |announced_only: bool| {
        let mut held = Vec::new();
        for _ in 0..if announced_only { 8 } else { 3 } {
            let mut stream = TcpStream::connect(rig.address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            if !announced_only {
                // What does not fit any more is not read, so this may end early.
                let _ = stream.write_all(&vec![b' '; 8_388_607]).await;
            }
            held.push(stream);
        }
        held
    };
    let announced = open(true).await;
    assert_eq!(rig.post(AM, &good).await.status, 200, "what was only announced takes no room");
    drop(announced);
    let held = open(false).await;
    eventually(async || rig.post(AM, &good).await.status == 503).await;
    assert!(rig.metrics.render().contains(r#"nightshift_ingest_shed_total{reason="bytes"}"#));
    drop(held);
    eventually(async || rig.post(AM, &good).await.status == 200).await;
}

#[tokio::test]
async fn a_slow_loris_is_cut_at_the_headers_and_at_the_body() {
    let pace = ListenerTimeouts {
        headers: Duration::from_millis(60),
        body: Duration::from_millis(60),
        ..ListenerTimeouts::default()
    };
    let rig = rig_with(pace, CatalogSnapshot::default()).await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(b"POST /in/alertmanager/prod HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let answer = read_answer(stream).await;
    assert!(matches!(answer.status, 0 | 408), "closed, with or without a word: {}", answer.status);
    for path in [AM, "/api/v1/tokens/t1/revoke"] {
        let slow_body = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SOURCE_TOKEN}\r\nContent-Length: 500\r\n\r\n{{"
        );
        let answer = rig.raw(slow_body.as_bytes()).await;
        assert_eq!(answer.status, 408, "{path}");
    }
    assert!(rig.store.batches.lock().unwrap().is_empty());
    assert_eq!(rig.post(AM, &bytes(&body(&[alert("A", "firing")]))).await.status, 200, "others are served");
}

#[tokio::test]
async fn hostile_texts_are_stored_as_they_are_and_change_nothing_else() {
    let rig = rig().await;
    let texts = [
        "nul \0 in the middle",
        "\u{202e}gnp.exe\u{2066}",
        "a\u{0301}\u{fffd}\u{10ffff}💥",
        "<script>alert(1)</script><!channel> <@U1> *bold*",
        "{{ .Labels }} ${7*7} {% raw %} #{x} `$(reboot)`; DROP TABLE episodes;--",
        "line\r\nX-Injected: 1\u{1b}[2J",
        "../../../../etc/passwd",
    ];
    for text in texts {
        let hostile = json!({ "status": "firing", "labels": { "alertname": text, "node": text, text: "name" },
            "annotations": { "summary": text } });
        let answer = rig.post(AM, &bytes(&body(&[hostile]))).await;
        assert_eq!(answer.status, 200, "{text:?}");
        let event = rig.store.events().pop().unwrap();
        assert_eq!(
            (event.labels.get("alertname"), event.summary.as_str(), event.labels.get(text)),
            (text, text, "name")
        );
        assert_eq!(event.subject.node.as_deref(), Some(text));
    }
}

#[tokio::test]
async fn words_of_a_refusal_hold_no_control_characters_of_the_sender() {
    let rig = rig().await;
    let odd = json!({ "version": "4", "alerts": [{ "status": "\u{1b}[31m\u{202e}\r\n<b>", "labels": { "a": "b" } }] });
    let answer = rig.post(AM, &bytes(&odd)).await;
    assert_eq!(answer.status, 400);
    assert!(!answer.error().contains(['\u{1b}', '\n', '\r', '\u{202e}']), "{:?}", answer.error());
}
