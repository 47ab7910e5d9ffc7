//! Connections and bodies of strangers: however many and however slow, they cost no other sender an answer.
//!
//! Invariant: the real server is asked over new connections, as senders and people do, while the strangers hold theirs.

use crate::harness::{Engine, Site, alertmanager_body, free_port, secret};
use crate::night::NIGHT;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// More than the server has places.
const STRANGERS: usize = 1_500;

fn resident_mib(engine: &Engine) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", engine.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Idle, half a head, or the head of a request whose body never comes: by turns.
async fn stranger(port: u16, at: usize) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let said = match at % 4 {
        0 => String::new(),
        1 => "POST /in/alertmanager/prod HTTP/1.1\r\nHost: x\r\nX-Slow: ".to_owned(),
        2 => format!(
            "POST /pagerduty/webhook HTTP/1.1\r\nHost: x\r\nX-PagerDuty-Signature: v1={}\r\nContent-Length: 60000\r\n\r\n",
            "0".repeat(64)
        ),
        _ => format!(
            "POST /login HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\nContent-Type: \
             application/x-www-form-urlencoded\r\nContent-Length: 4000\r\n\r\ntoken="
        ),
    };
    let _ = stream.write_all(said.as_bytes()).await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_and_half_open_strangers_cost_no_signed_request_its_answer() {
    let agents = free_port();
    let extra = format!(
        "sources: {{ prod: {{ kind: alertmanager }} }}\nagents: {{ listen: 127.0.0.1:{agents} }}\n\
         pagerduty: {{ signing_secrets: [{{ env: PAGER }}] }}\n"
    );
    let site = Site::new(&extra, "rules: []", &[]);
    site.add_token("am", "source", ", sources: [prod]");
    let env = [("PAGER", "p".repeat(64))];
    let engine = site.start(&env).await.unwrap_or_else(|| panic!("{}", site.log()));
    let before = resident_mib(&engine);
    let mut held = Vec::new();
    for at in 0..STRANGERS {
        held.push(stranger(site.port, at).await);
        if at % 2 == 0 {
            held.push(TcpStream::connect(("127.0.0.1", agents)).await.unwrap());
        }
    }
    let mut took = Vec::new();
    for no in 0..200 {
        // They renew what was cut while the others ask.
        held.push(stranger(site.port, no).await);
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
        let begun = Instant::now();
        let (path, token) = match no % 2 {
            0 => ("/in/alertmanager/prod", Some(secret("am"))),
            _ => ("/healthz", None),
        };
        let request = match token {
            Some(token) => {
                let node = format!("gpu-{no}");
                let body = alertmanager_body("firing", NIGHT, &[&[("alertname", "A"), ("node", &node)]]);
                client.post(format!("{}{path}", engine.url)).bearer_auth(token).json(&body)
            }
            None => client.get(format!("{}{path}", engine.url)),
        };
        let answer = request.send().await.unwrap_or_else(|error| panic!("{no} {path}: {error}"));
        assert_eq!(answer.status().as_u16(), 200, "{no} {path}");
        took.push(begun.elapsed());
    }
    took.sort();
    let p99 = took[took.len() * 99 / 100];
    let after = resident_mib(&engine);
    eprintln!(
        "{} strangers: signed requests p50 {:.1} ms, p99 {:.1} ms, slowest {:.1} ms; {} MiB more ({before} to {after})",
        held.len(),
        took[took.len() / 2].as_secs_f64() * 1e3,
        p99.as_secs_f64() * 1e3,
        took[took.len() - 1].as_secs_f64() * 1e3,
        after.saturating_sub(before)
    );
    assert!(p99 <= Duration::from_secs(1), "p99 is {p99:?}");
    assert!(after <= before + 64, "{before} MiB before, {after} MiB with {} strangers", held.len());
    // Sign-in has a pool of its own, which the strangers of PagerDuty's webhook do not fill.
    let client = crate::harness::client();
    let form = client.post(format!("{}/login", engine.url)).header("origin", &engine.url);
    let answer =
        form.body("token=wrong").header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
    assert_ne!(answer.status().as_u16(), 503);
}
