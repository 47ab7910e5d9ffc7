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
        [("eu-1/gpu-1 xid-79 x".to_owned(), "gpu-1".to_owned())],
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

#[tokio::test]
async fn nodes_of_one_name_in_two_clusters_are_two_agents_and_neither_is_taken_for_the_other() {
    let ((eu, asked_eu), (us, asked_us)) = (api_server().await, api_server().await);
    let clusters = format!("clusters:\n  eu-1:\n    url: {eu}\n  us-1:\n    url: {us}\ndefault_cluster: eu-1\n");
    let place = Place::new(&format!("  service_accounts: [nightshift/agent]\n{clusters}"), "rules: []\n", &[]);
    let engine = place.site.start(&[]).await.unwrap();
    let client = crate::harness::client();
    let report = async |cluster: Option<&str>| {
        let mut request = client.post(format!("{}/agent/v1/reports", engine.url));
        request = request.bearer_auth("nightshift|nightshift:agent|gpu-1");
        if let Some(cluster) = cluster {
            request = request.header("nightshift-cluster", cluster);
        }
        let reports = json!({
            "standing": { "boot": cluster.unwrap_or("b"), "spool": "s" },
            "reports": [{ "no": 1, "finding": finding("xid-79 x") }],
        });
        let answer = request.json(&reports).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    // The default cluster is meant where none is named; each is asked itself.
    for (cluster, counts) in [(None, (1, 0)), (Some("us-1"), (1, 1)), (Some("eu-1"), (1, 1))] {
        let (status, words) = report(cluster).await;
        assert_eq!(status, 200, "{words}");
        assert_eq!((asked_eu.load(Ordering::SeqCst), asked_us.load(Ordering::SeqCst)), counts, "{cluster:?}");
    }
    let (status, words) = report(Some("nowhere")).await;
    assert!(status == 401 && words.contains("no cluster `nowhere` is configured"), "{status} {words}");
    let open = engine.get("/api/v1/status").await.unwrap()["episodes_open"].as_u64();
    assert_eq!(open, Some(2), "the same complaint of two nodes");

    // By certificate: which cluster must be said, and is in the certificate.
    let token = async |wanted| super::token(&engine, wanted).await;
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let unsaid = place.join("gpu-1", &token(json!({})).await);
    assert!(!unsaid.status.success() && said(&unsaid).contains("eu-1, us-1"), "{}", said(&unsaid));
    for (folder, cluster) in [("gpu-1", "eu-1"), ("gpu-1-us", "us-1")] {
        place.write_config(folder, &format!("cluster: {cluster}\n"));
        let config = place.folder(folder).join("agent.yaml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(config, text.replace(&format!("node: {folder}\n"), "node: gpu-1\n")).unwrap();
        let other = if cluster == "eu-1" { "us-1" } else { "eu-1" };
        let wrong = place.join(folder, &token(json!({ "cluster": other })).await);
        assert!(
            !wrong.status.success() && said(&wrong).contains(&format!("made for cluster {other}")),
            "{}",
            said(&wrong)
        );
        let joined = place.join(folder, &token(json!({ "cluster": cluster, "node": "gpu-1" })).await);
        assert!(joined.status.success(), "{}", said(&joined));
    }
    let (_eu, _us) = (place.start("gpu-1"), place.start("gpu-1-us"));
    eventually("both", async || {
        let answer = engine.get("/api/v1/agents").await?;
        let agents = answer["agents"].as_array()?;
        let here = |cluster: &str| {
            agents.iter().any(|agent| {
                agent["node"] == "gpu-1"
                    && agent["cluster"] == cluster
                    && agent["how"] == "certificate"
                    && agent["connected"] == true
            })
        };
        (here("eu-1") && here("us-1") && agents.len() == 2).then_some(())
    })
    .await;
    // Who is to go must be said too.
    let remove = "/api/v1/agents/gpu-1/remove";
    let (status, words) = engine.post(remove, &json!({ "why": "sold" })).await.unwrap();
    assert!(
        (400..500).contains(&status) && words.to_string().contains("choose one with `cluster`"),
        "{status} {words}"
    );
    let (status, words) = engine.post(remove, &json!({ "why": "sold", "cluster": "us-1" })).await.unwrap();
    assert_eq!(status, 200, "{words}");
    eventually("a refusal", async || place.log("gpu-1-us").contains("was revoked").then_some(())).await;
    assert!(!place.log("gpu-1").contains("was revoked"), "{}", place.log("gpu-1"));
}

/// An API server that vouches for agents and answers nothing about nodes, until it says that they do not exist.
async fn hung_about_nodes() -> (String, Arc<std::sync::atomic::AtomicBool>) {
    use std::sync::atomic::AtomicBool;
    async fn review(Json(asked): Json<Value>) -> (http::StatusCode, Json<Value>) {
        let token = asked["spec"]["token"].as_str().unwrap().to_owned();
        let user = json!({
            "username": "system:serviceaccount:nightshift:agent",
            "extra": { "authentication.kubernetes.io/node-name": [token] },
        });
        let status = json!({ "authenticated": true, "audiences": ["nightshift"], "user": user });
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status });
        (http::StatusCode::CREATED, Json(body))
    }
    async fn node(State(answers): State<Arc<AtomicBool>>) -> (http::StatusCode, Json<Value>) {
        if !answers.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let body =
            json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404 });
        (http::StatusCode::NOT_FOUND, Json(body))
    }
    let answers = Arc::new(AtomicBool::new(false));
    let router = Router::new()
        .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
        .route("/api/v1/nodes/{name}", axum::routing::get(node))
        .with_state(answers.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, answers)
}

/// Whether each one's node still exists is asked before it is reported, and 40 answers that never come must not be waited for
/// one after another.
#[tokio::test]
async fn an_api_server_that_hangs_keeps_no_silent_agent_from_being_reported() {
    let (url, answers) = hung_about_nodes().await;
    let extra = format!(
        "  service_accounts: [nightshift/agent]\nclusters:\n  eu-1:\n    url: {url}\n    lease_namespace: ''\n"
    );
    let rules = "rules:\n  - name: silent\n    when: ['alertname=\"NightshiftAgentSilent\"']\n    group_by: [node]\n    tell: [log]\n";
    let place = Place::new(&format!("{extra}channels:\n  log:\n    kind: log\n"), rules, &[]);
    let engine = place.site.start(&[]).await.unwrap();
    let client = crate::harness::client();
    let polls = (0..40).map(|node| {
        let request = client.post(format!("{}/agent/v1/poll", engine.url)).bearer_auth(format!("gpu-{node}"));
        request.json(&json!({ "boot": "b", "spool": "s" })).timeout(std::time::Duration::from_secs(3)).send()
    });
    // A poll without a command waits for one; what counts is that the agent was here.
    futures::future::join_all(polls).await;
    let agents = engine.get("/api/v1/agents").await.unwrap();
    assert_eq!(agents["agents"].as_array().map(Vec::len), Some(40), "{agents}");
    let open = async || engine.get("/api/v1/status").await?["episodes_open"].as_u64();
    let began = std::time::Instant::now();
    eventually("each silent agent", async || (open().await? == 40).then_some(())).await;
    assert!(began.elapsed() < nightshift::limits::KUBE_TIMEOUT * 2, "{:?}", began.elapsed());
    // Once it answers that the nodes are gone, so are their agents, and their silence is over.
    answers.store(true, Ordering::SeqCst);
    eventually("their end", async || (open().await? == 0).then_some(())).await;
    let agents = engine.get("/api/v1/agents").await.unwrap();
    assert_eq!(agents["agents"].as_array().map(Vec::len), Some(0), "{agents}");
}
