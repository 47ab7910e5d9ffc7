//! A large cluster watched: 5,000 nodes and 50,000 pods, listed page by page by another process.
//!
//! Invariant: what is measured is this process; the objects are as large as real ones, and the last pod is ill, so that it
//! shows when all were read.

use crate::rig::{Rig, block_on, memory, until};
use crate::row;
use nightshift::engine;
use nightshift::policy::GuardLimits;
use nightshift::store::Filter;
use nightshift::world::{KubeClient, KubeConfig};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const NODES: usize = 5_000;
const PODS: usize = 50_000;

pub fn measure() {
    let bench = std::env::current_exe().expect("this program has a path");
    let mut server =
        Command::new(bench).arg("part=api-server").stdout(Stdio::piped()).spawn().expect("it starts itself");
    let mut url = String::new();
    BufReader::new(server.stdout.take().expect("its output")).read_line(&mut url).expect("its address");
    block_on(watching(url.trim()));
    let _ = server.kill();
    let _ = server.wait();
}

async fn watching(url: &str) {
    let mut rig = Rig::new(1, GuardLimits::default(), "rules: []\n", &[]).await;
    let before = memory("self", "VmRSS");
    let kube = KubeConfig { url: url.to_owned(), ..KubeConfig::default() };
    let kube = KubeClient::connect(&kube, "nightshift/bench").await.expect("a client");
    rig.parts.world.clusters = BTreeMap::from([("big".to_owned(), kube)]);
    "big".clone_into(&mut rig.parts.world.default_cluster);
    let mut config = (*rig.parts.config).clone();
    let source = serde_json::from_value(json!({ "kind": "kubernetes" })).expect("a source");
    config.sources = BTreeMap::from([("k8s".to_owned(), source)]);
    rig.parts.config = Arc::new(config);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let begun = Instant::now();
    tokio::spawn(engine::run(rig.parts.clone(), stopped));
    let all = until(Duration::from_secs(240), async || {
        let open = rig.parts.store.episodes(Filter { open: true, limit: 10, ..Filter::default() }).await;
        open.is_ok_and(|open| open.iter().any(|episode| episode.event.name() == "PodCrashLooping"))
    })
    .await;
    let took = begun.elapsed();
    let (now, peak) = (memory("self", "VmRSS") / 1024, memory("self", "VmHWM") / 1024);
    let total = rig.parts.world.fleet().await.nodes_total;
    let _ = stop.send(true);
    assert!(all && total == Some(NODES as u32), "all was read: {all}, {total:?} nodes");
    let figure =
        format!("{now} MiB, at most {peak} MiB ({} MiB before; read in {:.1} s)", before / 1024, took.as_secs_f64());
    row("watching: 5,000 nodes and 50,000 pods, resident", figure, "200 MiB", Some(peak as f64 / 200.0));
}

/// Another process: lists, and watches that say nothing.
pub fn api_server() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("http://{}", listener.local_addr().expect("an address"));
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || connection(stream));
    }
}

fn connection(stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let mut stream = stream;
    loop {
        let (mut first, mut line) = (String::new(), String::new());
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        while reader.read_line(&mut line).unwrap_or(0) > 2 {
            line.clear();
        }
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        if path.contains("watch=true") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n");
            loop {
                std::thread::sleep(Duration::from_secs(2));
                let line = b"{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"9\"}}}\n";
                if stream.write_all(line).is_err() {
                    return;
                }
            }
        }
        let body = page(&path).to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).is_err() {
            return;
        }
    }
}

fn page(path: &str) -> Value {
    let (total, make): (usize, fn(usize) -> Value) = match path {
        path if path.starts_with("/api/v1/nodes?") => (NODES, node),
        path if path.starts_with("/api/v1/pods?") => (PODS, pod),
        _ => (0, pod),
    };
    let from: usize = path.split("continue=").nth(1).and_then(|from| from.parse().ok()).unwrap_or(0);
    let end = (from + 500).min(total);
    let more = if end < total { end.to_string() } else { String::new() };
    let items: Vec<Value> = (from..end).map(make).collect();
    json!({ "metadata": { "resourceVersion": "9", "continue": more }, "items": items })
}

/// What a real object has and we do not read.
fn ballast(count: usize) -> Vec<Value> {
    (0..count)
        .map(|no| json!({ "manager": format!("kubelet-{no}"), "fieldsV1": { "f:status": "x".repeat(200) } }))
        .collect()
}

fn node(no: usize) -> Value {
    json!({
        "metadata": { "name": format!("gpu-{no}"), "uid": format!("{no}"), "resourceVersion": "5", "managedFields": ballast(10),
            "labels": { "nvidia.com/gpu.count": "8", "topology.kubernetes.io/zone": "z" } },
        "status": { "capacity": { "nvidia.com/gpu": "8" }, "allocatable": { "nvidia.com/gpu": "8" }, "images": ballast(20),
            "conditions": [{ "type": "Ready", "status": "True" }, { "type": "MemoryPressure", "status": "False" }] },
    })
}

fn pod(no: usize) -> Value {
    let waiting = if no + 1 == PODS { json!({ "waiting": { "reason": "CrashLoopBackOff" } }) } else { json!({}) };
    json!({
        "metadata": { "name": format!("llm-{no}"), "namespace": "serve", "uid": format!("{no}"), "resourceVersion": "5",
            "managedFields": ballast(10), "labels": { "app": "llm" } },
        "spec": { "nodeName": format!("gpu-{}", no % NODES), "containers": [{ "name": "vllm",
            "resources": { "limits": { "nvidia.com/gpu": "1" } } }] },
        "status": { "phase": "Running", "containerStatuses": [{ "name": "vllm", "restartCount": 3, "state": waiting }] },
    })
}
