//! The bounds of `POST /api/v1/simulate`: how large a wish may be, how much a plan may compute and call, and how many are made at once.
//!
//! Invariant: each bound is tried at its value, where it must hold no one up, and beyond it, where the answer says which one it is.

use crate::harness::{Engine, Site, eventually, secret};
use nightshift::limits;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

fn book(body: &str) -> String {
    format!("//! A test.\n//!\n//! params:\n//!   n: Int = 0\n//!   url: String = \"\"\n//! scope: pod\n\n{body}\n")
}

const LOOPS: &str = "let total = 0;\nfor i in 0..n { total += i; }\nnote(`counted ${total}`);";
const NOTES: &str = "for i in 0..n { note(`${i}`); }";
const GET: &str = "let answer = http::get(url);\nnote(answer.body);";

async fn open(extra: &str) -> (Site, Engine) {
    let site = Site::new(extra, "rules: []", &[("loops", &book(LOOPS)), ("notes", &book(NOTES)), ("get", &book(GET))]);
    site.add_token("author", "author", "");
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    (site, engine)
}

async fn simulate(engine: &Engine, body: &Value) -> (u16, Value) {
    engine.ask("POST", "/api/v1/simulate", Some(&secret("author")), body).await
}

#[tokio::test]
async fn a_wish_to_simulate_is_so_large_and_no_larger() {
    let (_site, engine) = open("").await;
    // Blanks make the body so large.
    let sized = async |bytes: usize| {
        let text = json!({ "runbook": "loops" }).to_string();
        let text = format!("{text}{}", " ".repeat(bytes - text.len()));
        assert_eq!(text.len(), bytes);
        let request =
            crate::harness::client().post(format!("{}/api/v1/simulate", engine.url)).bearer_auth(secret("author"));
        let answer = request.body(text).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, said) = sized(limits::API_BODY_BYTES).await;
    assert_eq!(status, 200, "{said}");
    let (status, said) = sized(limits::API_BODY_BYTES + 1).await;
    assert!(
        status == 413 && said["hint"].as_str().unwrap().contains(&limits::API_BODY_BYTES.to_string()),
        "{status} {said}"
    );
    // An event is within the same bound, and one that is no event is refused in words.
    let event = json!({ "runbook": "loops", "event": { "labels": { "a": "x".repeat(limits::API_BODY_BYTES) } } });
    assert_eq!(simulate(&engine, &event).await.0, 413);
    let (status, said) = simulate(&engine, &json!({ "runbook": "loops", "event": [1] })).await;
    assert!(
        status == 400 && said["error"].as_str().unwrap().contains("the body does not match this route's schema"),
        "{status} {said}"
    );
    let (status, _) = simulate(&engine, &json!({ "runbook": "loops", "text": "note(1);" })).await;
    assert_eq!(status, 400, "a runbook is named, and no text of one is taken");
}

#[tokio::test]
async fn a_simulated_runbook_computes_so_much_and_calls_so_often_and_no_more() {
    let (site, engine) = open("").await;
    let n = |runbook: &str, n: u64| json!({ "runbook": runbook, "params": { "n": n } });
    let end = |said: &Value| said["plan"]["end"].to_string();
    let (status, said) = simulate(&engine, &n("notes", limits::PLAN_CALLS as u64 - 1)).await;
    assert_eq!((status, said["plan"]["calls"].as_array().unwrap().len()), (200, limits::PLAN_CALLS - 1));
    assert!(end(&said).contains("done"), "{}", end(&said));
    let (status, said) = simulate(&engine, &n("notes", limits::PLAN_CALLS as u64 + 1)).await;
    assert_eq!((status, said["plan"]["calls"].as_array().unwrap().len()), (200, limits::PLAN_CALLS));
    assert!(end(&said).contains(&format!("the plan has more than {} calls", limits::PLAN_CALLS)), "{}", end(&said));
    // Each turn of the loop is a few operations.
    let (_, said) = simulate(&engine, &n("loops", limits::SCRIPT_OPERATIONS / 50)).await;
    assert!(end(&said).contains("done"), "{}", end(&said));
    let begun = std::time::Instant::now();
    let (status, said) = simulate(&engine, &n("loops", limits::SCRIPT_OPERATIONS)).await;
    assert_eq!(status, 200, "{said}");
    assert!(end(&said).contains("operations") && !end(&said).contains("done"), "{}", end(&said));
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    // A text that is too large is no runbook, so that there is nothing to simulate.
    let mut large = book("note(\"x\");");
    while large.len() <= limits::SCRIPT_BYTES {
        writeln!(large, "// {}", "x".repeat(200)).unwrap();
    }
    std::fs::write(site.path().join("runbooks/large.rhai"), &large).unwrap();
    large.truncate(limits::SCRIPT_BYTES);
    let fits = &large[..large.rfind('\n').unwrap() + 1];
    std::fs::write(site.path().join("runbooks/fits.rhai"), fits).unwrap();
    let refused = eventually("the text is refused", async || {
        let page = engine.get("/api/v1/entries?kind=catalog_refused").await?.to_string();
        page.contains("large").then_some(page)
    })
    .await;
    assert!(refused.contains("large"), "{refused}");
    assert_eq!(simulate(&engine, &json!({ "runbook": "large" })).await.0, 404);
    std::fs::remove_file(site.path().join("runbooks/large.rhai")).unwrap();
    eventually("one of the bound's size is there", async || {
        (simulate(&engine, &json!({ "runbook": "fits" })).await.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn so_many_simulations_are_made_at_once_and_the_next_one_is_told_to_come_again() {
    // A server that answers nothing until it is let.
    let (let_go, held) = tokio::sync::watch::channel(false);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (count, came) =
        (std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)), std::sync::atomic::Ordering::SeqCst);
    let counting = count.clone();
    let routes = axum::Router::new().fallback(move || {
        counting.fetch_add(1, came);
        let mut held = held.clone();
        async move {
            let _ = held.wait_for(|go| *go).await;
            "ok"
        }
    });
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let (_site, engine) = open(&format!("http_allow: ['private+{url}/']\n")).await;
    let engine = std::sync::Arc::new(engine);
    let wish = json!({ "runbook": "get", "params": { "url": format!("{url}/x") } });
    let mut under_way = Vec::new();
    for _ in 0..limits::SIMULATIONS {
        let (engine, wish) = (engine.clone(), wish.clone());
        under_way.push(tokio::spawn(async move { simulate(&engine, &wish).await }));
    }
    eventually("all of them ask", async || (count.load(came) == limits::SIMULATIONS).then_some(())).await;
    let (status, said) = simulate(&engine, &json!({ "runbook": "loops" })).await;
    assert!(
        status == 503 && said["error"].as_str().unwrap().starts_with("8 plans are being made already"),
        "{status} {said}"
    );
    // What else people ask is answered meanwhile.
    assert_eq!(engine.ask("GET", "/api/v1/status", Some(&secret("author")), &Value::Null).await.0, 200);
    let_go.send(true).unwrap();
    for one in under_way {
        let (status, said) = one.await.unwrap();
        assert_eq!(status, 200, "{said}");
    }
    assert_eq!(simulate(&engine, &json!({ "runbook": "loops" })).await.0, 200, "the places are free again");
}
