//! `nightshift audit verify` over a ledger with more checkpoints than one page holds, against a server that counts its pages.
//!
//! Invariant: the ledger is a real one, signed with a real key; only its server is made up.

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nightshift::limits;
use nightshift::model::EntryNo;
use nightshift::store::ledger::{Checkpoint, EntryLeaf, SigningKey, TreeFrontier, commitment};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const ENTRIES: u64 = 2_500;

struct Ledger {
    raw: Vec<Value>,
    checkpoints: Vec<Checkpoint>,
    /// What was asked for: where a page begins, and how many rows it has.
    pages: Mutex<Vec<(&'static str, u64, usize)>>,
}

impl Ledger {
    fn page<T: Clone>(&self, of: &'static str, all: &[T], from: u64, asked: &BTreeMap<String, String>) -> Vec<T> {
        let limit = asked["limit"].parse::<usize>().unwrap();
        let page: Vec<T> = all.iter().skip(usize::try_from(from).unwrap()).take(limit).cloned().collect();
        self.pages.lock().unwrap().push((of, from, page.len()));
        page
    }
}

fn after(asked: &BTreeMap<String, String>) -> Option<u64> {
    asked.get("after").map(|after| after.parse().unwrap())
}

fn ledger(key: &SigningKey) -> Ledger {
    let (mut frontier, mut raw, mut checkpoints) = (TreeFrontier::default(), Vec::new(), Vec::new());
    for no in 0..ENTRIES as i64 {
        let leaf = EntryLeaf { no: EntryNo(no), at: no, commit: commitment(b"salt", b"{}") };
        frontier.push(leaf.hash());
        checkpoints.push(key.sign(frontier.size(), frontier.root()));
        raw.push(json!({
            "no": EntryNo(no), "at": no, "commit": leaf.commit.to_string(),
            "salt": STANDARD.encode(b"salt"), "body": STANDARD.encode(b"{}"),
        }));
    }
    Ledger { raw, checkpoints, pages: Mutex::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_with_thousands_of_checkpoints_is_verified_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::open_or_create(&dir.path().join("key"), "nightshift").unwrap();
    std::fs::write(dir.path().join("key.pub"), key.public().to_string()).unwrap();
    let ledger = Arc::new(ledger(&key));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    type Asked = Query<BTreeMap<String, String>>;
    let app = Router::new()
        .route("/api/v1/status", get(|| async { Json(json!({ "entries": ENTRIES })) }))
        .route(
            "/api/v1/audit/raw",
            get(|State(ledger): State<Arc<Ledger>>, Query(asked): Asked| async move {
                let from = after(&asked).map_or(0, |after| after + 1);
                Json(json!({ "raw": ledger.page("raw", &ledger.raw, from, &asked) }))
            }),
        )
        .route(
            "/api/v1/audit/checkpoints",
            get(|State(ledger): State<Arc<Ledger>>, Query(asked): Asked| async move {
                // The first of them is over one entry.
                let from = after(&asked).unwrap_or_default();
                Json(json!({ "checkpoints": ledger.page("checkpoints", &ledger.checkpoints, from, &asked) }))
            }),
        )
        .with_state(ledger.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nightshift"));
    command.args(["audit", "verify", "-o", "json", "--key"]).arg(dir.path().join("key.pub")).current_dir(dir.path());
    command.env("NIGHTSHIFT_SERVER", url).env("NIGHTSHIFT_TOKEN", "t".repeat(64));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&said["ok"], &said["checkpoints"], &said["signed"]),
        (&json!(true), &json!(ENTRIES), &json!(ENTRIES)),
        "{said}"
    );
    let pages = ledger.pages.lock().unwrap().clone();
    let of = |what: &str| pages.iter().filter(|page| page.0 == what).map(|page| (page.1, page.2)).collect::<Vec<_>>();
    let limit = limits::READ_LIMIT;
    assert_eq!(of("checkpoints")[..3], [(0, limit), (1_000, limit), (2_000, 500)], "each once, none beyond a page");
    assert_eq!(of("raw")[..3], [(0, limit), (1_000, limit), (2_000, 500)]);
    let first = pages.iter().position(|page| page.0 == "checkpoints").unwrap();
    assert_eq!(first, 3, "none is fetched before it is needed: {pages:?}");
}
