//! A whole row of racks goes dark: 100,000 alerts from 1,000 nodes over HTTP, with rules that act and tell.
//!
//! Invariant: what was acknowledged is counted again in the store, what people heard in the channel, what was done in
//! the fleet.

use crate::rig::{Rig, TOKEN, block_on, memory, until};
use crate::{row, share, time_row};
use nightshift::policy::GuardLimits;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ALERTS: u64 = 100_000;
const NODES: u64 = 1_000;
const PER_REQUEST: u64 = 100;
const CONNECTIONS: usize = 4;
/// Of 1,000 nodes, 10 at once and 5 % are both allowed; the smaller one holds.
const AT_ONCE: u32 = 10;

const RULES: &str = "rules:
  - name: storm
    when: ['alertname=\"GpuXid\"']
    run: cordon
    mode: auto
    tell: [people]
    group_by: [node]
";
const CORDON: &str = "//! Cordon a node.
//!
//! params:
//!   node: Node
//! scope: node

k8s::cordon(node, \"the storm\");
";

pub fn measure() {
    block_on(storm());
}

async fn storm() {
    // A thousand nodes with one symptom would trip the breaker, and nothing would be taken at all.
    let guards = GuardLimits { nodes_at_once: AT_ONCE, correlated_share: 1.0, ..GuardLimits::default() };
    let rig = Rig::new(NODES as usize, guards, RULES, &[("cordon", CORDON)]).await;
    let before = memory("self", "VmRSS");
    let (address, stop) = rig.start().await;
    let next = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS).map(|_| tokio::spawn(client(address, Arc::clone(&next)))).collect();
    let mut acks = Vec::new();
    for client in clients {
        acks.extend(client.await.expect("a client ends"));
    }
    let acked = begun.elapsed();
    let incidents = || {
        let first = rig.told.first.lock().expect("no panic").len();
        first + rig.told.digests.lock().expect("no panic").1
    };
    let all_told = until(Duration::from_secs(60), async || incidents() >= NODES as usize).await;
    let told = begun.elapsed();
    // Some more seconds, in which nothing may be told twice and nothing done beyond the budget.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let counts = rig.parts.store.counts().await.expect("counts");
    // Events tell of every run that is held; what counts is what was taken out of service.
    let cordons = rig.fleet.changes().into_iter().filter(|done| !done.change["spec"].is_null());
    let cordoned = cordons.filter(|done| done.resource == "nodes").count();
    let _ = stop.send(true);

    time_row("storm: 100,000 alerts acknowledged", acked, Duration::from_secs(15));
    time_row("storm: and every incident told", told, Duration::from_secs(15));
    row("storm: ack p99", crate::ms(share(&mut acks, 0.99)), "", None);
    let lost = ALERTS.saturating_sub(counts.episodes_open);
    row("storm: alerts lost", lost.to_string(), "0", Some(if lost == 0 { 0.0 } else { f64::INFINITY }));
    let peak = memory("self", "VmHWM") / 1024;
    row(
        "storm: peak resident, generator and fleet of 1,000 nodes included",
        format!("{peak} MiB ({} MiB before)", before / 1024),
        "300 MiB",
        Some(peak as f64 / 300.0),
    );
    let twice = rig.told.first.lock().expect("no panic").values().filter(|times| **times > 1).count();
    let (digests, in_digest) = *rig.told.digests.lock().expect("no panic");
    let single = rig.told.first.lock().expect("no panic").len();
    row(
        "storm: one message per incident, or a digest",
        format!("{single} messages, {twice} twice, {digests} digest of {in_digest}"),
        "1,000 incidents, none twice",
        Some(if all_told && twice == 0 && digests <= 1 { 1.0 } else { f64::INFINITY }),
    );
    row(
        "storm: actions within budget",
        format!("{cordoned} nodes cordoned"),
        &format!("{AT_ONCE} at once"),
        Some(cordoned as f64 / f64::from(AT_ONCE)),
    );
}

async fn client(address: SocketAddr, next: Arc<AtomicU64>) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let (mut body, mut request, mut answer, mut times) = (String::new(), String::new(), vec![0; 16 * 1024], Vec::new());
    loop {
        let first = next.fetch_add(PER_REQUEST, Ordering::Relaxed);
        if first >= ALERTS {
            return times;
        }
        body.clear();
        write_body(&mut body, first);
        request.clear();
        let _ = write!(
            request,
            "POST /in/alertmanager/bench HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).await.expect("a request is sent");
        let read = stream.read(&mut answer).await.expect("an answer");
        let head = String::from_utf8_lossy(&answer[..read.min(32)]).into_owned();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        times.push(begun.elapsed());
    }
}

/// Each node complains of a hundred things, one after another with all the others, as a failing switch has it.
fn write_body(body: &mut String, first: u64) {
    body.push_str(r#"{"version":"4","status":"firing","receiver":"bench","alerts":["#);
    for no in first..first + PER_REQUEST {
        let comma = if no == first { "" } else { "," };
        let _ = write!(
            body,
            r#"{comma}{{"status":"firing","labels":{{"alertname":"GpuXid","node":"gpu-{}","gpu":"{}","severity":"critical","job":"dcgm","no":"{no}"}},"annotations":{{"summary":"XID 79 on a GPU"}},"startsAt":"2026-11-02T02:50:00.123Z"}}"#,
            no % NODES + 1,
            no % 8
        );
    }
    body.push_str("]}");
}
