//! ServiceAccount tokens: Kubernetes says who speaks, and for which node. The API server here is a stand-in that answers
//! reviews as the real one does.

use super::*;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Vouches for tokens `<audience>|<account>|<node>`, and counts.
async fn api_server() -> (String, Arc<AtomicUsize>) {
    async fn review(
        State(count): State<Arc<AtomicUsize>>,
        Json(asked): Json<Value>,
    ) -> (http::StatusCode, Json<Value>) {
        count.fetch_add(1, Ordering::SeqCst);
        let token = asked["spec"]["token"].as_str().unwrap();
        let parts: Vec<&str> = token.split('|').collect();
        let good = parts.len() == 3 && asked["spec"]["audiences"][0] == parts[0];
        let status = if good {
            json!({
                "authenticated": true, "audiences": [parts[0]],
                "user": {
                    "username": format!("system:serviceaccount:{}", parts[1]),
                    "extra": { "authentication.kubernetes.io/node-name": [parts[2]] },
                },
            })
        } else {
            json!({ "authenticated": false, "error": "no such token" })
        };
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status });
        (http::StatusCode::CREATED, Json(body))
    }
    let count = Arc::new(AtomicUsize::new(0));
    let router =
        Router::new().route("/apis/authentication.k8s.io/v1/tokenreviews", post(review)).with_state(count.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, count)
}

#[tokio::test]
async fn an_agent_with_a_token_speaks_for_the_node_that_its_token_is_bound_to() {
    let (url, reviews) = api_server().await;
    let extra = format!("  service_accounts: [nightshift/agent]\nclusters:\n  eu-1:\n    url: {url}\n");
    let place = Place::new(&extra, "rules: []\n", &[]);
    let engine = place.site.start(&[]).await.unwrap();
    let client = crate::harness::client();
    let poll = async |token: &str| {
        let request = client.post(format!("{}/agent/v1/reports", engine.url)).bearer_auth(token);
        let reports = json!({
            "standing": { "boot": "b", "spool": "s" },
            "reports": [{ "no": 1, "finding": finding("xid-79 x") }],
        });
        let answer = request.json(&reports).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    for wrong in ["nightshift|kube-system:default|gpu-1", "other|nightshift:agent|gpu-1", "nonsense"] {
        assert_eq!(poll(wrong).await.0, 401, "{wrong}");
    }
    let asked = reviews.load(Ordering::SeqCst);
    for _ in 0..3 {
        let (status, taken) = poll("nightshift|nightshift:agent|gpu-1").await;
        assert_eq!((status, &taken["upto"]), (200, &json!(1)), "{taken}");
    }
    assert_eq!(reviews.load(Ordering::SeqCst), asked + 1, "a good review is remembered for a minute");
    assert_eq!(poll("nonsense").await.0, 401);
    assert_eq!(reviews.load(Ordering::SeqCst), asked + 2, "a bad one never is");
    assert_eq!(
        heard(&engine).await,
        [("gpu-1 xid-79 x".to_owned(), "gpu-1".to_owned())],
        "three deliveries, one event"
    );
    let events = engine.get("/api/v1/entries?kind=heard").await.unwrap().to_string();
    assert!(events.contains("\"cluster\":\"eu-1\"") && !events.contains("gpu-forged"), "{events}");
}

#[tokio::test]
async fn without_an_answer_of_kubernetes_an_agent_is_told_to_come_again() {
    let extra = "  service_accounts: [nightshift/agent]\nclusters:\n  eu-1:\n    url: http://127.0.0.1:1\n";
    let place = Place::new(extra, "rules: []\n", &[]);
    let engine = place.site.start(&[]).await.unwrap();
    let request = crate::harness::client().post(format!("{}/agent/v1/poll", engine.url)).bearer_auth("x");
    assert_eq!(request.json(&json!({})).send().await.unwrap().status().as_u16(), 503);
}
