//! A flood of bad input at the real process with its real store: each is refused in words, and memory stays flat.
//!
//! Invariant: what was not acknowledged is nowhere in the store, and the next good alert is taken.

use crate::harness::{Engine, Site, alertmanager_body};
use serde_json::{Value, json};
use std::io::Write as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DOOR: &str = "/in/alertmanager/test";
const MIB: usize = 1024 * 1024;
/// Rounds of the whole battery after the first, each with several at once of everything.
const ROUNDS: usize = 3;
const AT_ONCE: usize = 2;
const LORISES: usize = 200;

/// One bad request and the answer that it must get.
struct Bad {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    status: u16,
}

fn bad(name: &'static str, status: u16, body: impl Into<Vec<u8>>) -> Bad {
    let headers = vec![("content-type", "application/json")];
    Bad { name, method: "POST", path: DOOR, headers, body: body.into(), status }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn notification(alerts: &Value) -> Vec<u8> {
    json!({ "version": "4", "status": "firing", "alerts": alerts }).to_string().into_bytes()
}

fn battery() -> Vec<Bad> {
    let packed = vec![("content-type", "application/json"), ("content-encoding", "gzip")];
    let labels: serde_json::Map<String, Value> = (0..10_000).map(|no| (format!("l{no}"), json!("v"))).collect();
    let many: Vec<Value> = (0..5_001).map(|no| json!({ "labels": { "a": no.to_string() } })).collect();
    let long = json!([{ "status": "firing", "labels": { "alertname": "x".repeat(7 * MIB) } }]);
    let unclosed = [b"{\"version\":\"4\",\"alerts\":[".as_slice(), &b"{},".repeat(2 * MIB)].concat();
    vec![
        bad("empty", 400, ""),
        bad("cut", 400, &b"{\"version\":\"4\",\"alerts\":[{\"labels\":{\"a"[..]),
        bad("not UTF-8", 400, b"\xff".repeat(MIB)),
        bad("NUL", 400, vec![0; MIB]),
        bad("deep", 400, "[".repeat(4 * MIB)),
        bad("unclosed", 400, unclosed),
        bad("no JSON", 400, "<html>".repeat(MIB)),
        bad("version", 400, &b"{\"version\":\"3\",\"alerts\":[]}"[..]),
        bad("10,000 labels", 400, notification(&json!([{ "labels": labels }]))),
        bad("5,001 alerts", 413, notification(&Value::from(many))),
        bad("over 8 MiB", 413, vec![b' '; 8 * MIB + 1]),
        bad("surrogate", 400, br#"{"version":"4","alerts":[{"labels":{"a":"\ud800"}}]}"#.to_vec()),
        Bad { headers: packed.clone(), ..bad("bomb", 413, gzip(&vec![b' '; 32 * MIB])) },
        Bad { headers: packed.clone(), ..bad("no gzip", 400, "x".repeat(MIB)) },
        Bad { headers: packed, ..bad("a label of 7 MiB, packed", 400, gzip(&notification(&long))) },
        Bad { headers: vec![("content-type", "text/plain")], ..bad("a text", 415, "hello") },
        Bad { headers: vec![("content-encoding", "br")], ..bad("Brotli", 415, "x") },
        Bad { method: "DELETE", ..bad("method", 405, "") },
        Bad { path: "/in/alertmanager/nobody", ..bad("source", 404, "{}") },
        Bad { path: "/in/grafana/test", ..bad("kind", 404, "{}") },
        Bad { path: "/api/v1/runs/r999999999999999999999", ..bad("path", 405, "{}") },
    ]
}

/// A request with this token; the status and the words.
async fn send(
    client: &reqwest::Client,
    engine: &Engine,
    token: &str,
    bad: &Bad,
) -> Result<(u16, Value), reqwest::Error> {
    let method = reqwest::Method::from_bytes(bad.method.as_bytes()).unwrap();
    let mut request = client.request(method, format!("{}{}", engine.url, bad.path)).bearer_auth(token);
    for (name, value) in &bad.headers {
        request = request.header(*name, *value);
    }
    let answer = request.body(bad.body.clone()).send().await?;
    let status = answer.status().as_u16();
    Ok((status, answer.json().await.unwrap_or(Value::Null)))
}

async fn round(client: &reqwest::Client, engine: &Engine, token: &str, battery: &[Bad]) {
    let each = battery.iter().flat_map(|bad| std::iter::repeat_n(bad, AT_ONCE));
    let sent: Vec<_> = each.map(async |bad| (bad, send(client, engine, token, bad).await)).collect();
    for chunk in futures::future::join_all(sent).await {
        let (bad, answer) = chunk;
        let (status, words) = match answer {
            Ok(answer) => answer,
            // One that is refused (too long, or too many under way) is not read; the connection closes while we speak.
            Err(error) if bad.body.len() > 64 * 1024 && !error.is_timeout() => continue,
            Err(error) => panic!("{}: {error:?}", bad.name),
        };
        assert!(status == bad.status || status == 503, "{}: {status} {words}", bad.name);
        if !words.is_null() {
            let text = words["error"].as_str().unwrap_or_default();
            assert!(!text.is_empty() && text.len() < 1_000, "{}: {words}", bad.name);
        }
    }
}

/// Bytes that are no HTTP, or HTTP that breaks off.
async fn talk_nonsense(engine: &Engine) {
    let address = engine.url.trim_start_matches("http://").to_owned();
    let lies: [Vec<u8>; 6] = [
        vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        [b"POST / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; MIB]].concat(),
        format!("POST {DOOR} HTTP/1.1\r\n{}\r\n", "X-A: b\r\n".repeat(10_000)).into_bytes(),
        format!("POST {DOOR} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nfff")
            .into_bytes(),
        format!("POST {DOOR} HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n").into_bytes(),
    ];
    for lie in lies {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        // It may hang up before it has heard everything.
        let _ = stream.write_all(&lie).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
}

/// Kilobytes of a process by their name in its status file.
fn memory(engine: &Engine, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", engine.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_bad_input_is_refused_in_words_and_memory_stays_flat() {
    let site = Site::new("sources:\n  test:\n    kind: alertmanager\n", "rules: []\n", &[]);
    // What the allocator keeps back for a moment, and rounds up to huge pages, differs by 100 MiB from run to run and hides
    // what the program holds: it gives back at once here.
    let frugal = [("MIMALLOC_PURGE_DELAY", "0".to_owned()), ("MIMALLOC_ALLOW_THP", "0".to_owned())];
    let engine = site.start(&frugal).await.unwrap_or_else(|| panic!("{}", site.log()));
    let token = std::fs::read_to_string(site.path().join("data/token")).unwrap().trim().to_owned();
    let battery = battery();
    // A connection that a refusal closes is not used again.
    nightshift::world::install_tls();
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let stranger = send(&client, &engine, "somebody-elses-token-0123456789", &battery[0]).await.unwrap();
    assert_eq!(stranger.0, 401, "{}", stranger.1);

    // Connections that never finish their headers are there all the time, and cost the others nothing.
    let address = engine.url.trim_start_matches("http://").to_owned();
    let mut lorises = Vec::new();
    for _ in 0..LORISES {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(format!("POST {DOOR} HTTP/1.1\r\nHost: x\r\nX-Slow: ").as_bytes()).await.unwrap();
        lorises.push(stream);
    }
    round(&client, &engine, &token, &battery).await;
    talk_nonsense(&engine).await;
    // Its own pages: those of the program file, not optimised here, say nothing.
    let own = || memory(&engine, "RssAnon:");
    let mut kept = vec![own()];
    for _ in 0..ROUNDS {
        round(&client, &engine, &token, &battery).await;
        talk_nonsense(&engine).await;
        kept.push(own());
    }
    let peak = memory(&engine, "VmHWM:");
    eprintln!("KiB of its own after each round: {kept:?}; at most {peak}, files and all");
    assert!(peak < 300 * 1024, "{peak} KiB at the worst moment");
    // A round sends some 100 MiB, of which none may stay behind.
    let plateau = kept[..2].iter().max().unwrap() + 32 * 1024;
    assert!(kept[ROUNDS] <= plateau, "memory grows: {kept:?} KiB");
    for mut stream in lorises {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(std::time::Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "a slow loris is still connected");
    }

    let heard = engine.get("/api/v1/entries?kind=heard").await.unwrap();
    assert_eq!(heard["entries"], json!([]), "something of it was stored");
    let hostile = "\u{202e}\0<script>{{ .Labels }} <!channel> '; DROP TABLE episodes;--";
    let good = alertmanager_body("firing", "2026-11-23T03:00:00Z", &[&[("alertname", "GpuXid"), ("node", hostile)]]);
    let (status, answer) = engine.post(DOOR, &good).await.unwrap();
    assert_eq!((status, &answer["opened"]), (200, &json!(1)), "{answer}");
    let heard = engine.get("/api/v1/entries?kind=heard").await.unwrap();
    assert_eq!(heard["entries"][0]["events"][0]["event"]["labels"]["node"], hostile, "{heard:#}");
    assert_eq!(engine.stop(), Some(0));
}
