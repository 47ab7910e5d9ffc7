//! Who posts events: what it gives them, where it reaches, and what the ledger keeps of it.
//!
//! Invariant: the real server is asked over HTTP, and effects are counted by the fleet.

use crate::harness::{Engine, Site, alertmanager_body, eventually, secret};
use crate::night::NIGHT;
use crate::roles::{chat, token};
use crate::slack_in::XID;
use nightshift::config::Role;
use nightshift::model::{EntryKind, RunState};
use nightshift::server::GivenToken;
use nightshift::world::sim::{SimFleet, SimOptions};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

#[tokio::test]
async fn the_poster_of_an_alert_cannot_approve_the_run_that_it_starts() {
    let machine = GivenToken { sources: vec!["test".into()], ..token("prometheus", Role::Source, None) };
    let chat = chat(vec![machine]).await;
    let body = alertmanager_body("firing", NIGHT, &[XID]);
    let (status, said) = chat.posts(&secret("ada"), "/in/alertmanager/test", body).await;
    assert_eq!(status, 200, "{said}");
    let run = chat.night.runs().await.pop().unwrap();
    assert_eq!(run.posted_by.as_deref(), Some("ada"));
    let rest = chat.night.until_rest(run.id, Duration::from_secs(60)).await;
    assert!(matches!(rest.state, RunState::Asking { .. }), "{:?}", rest.state);
    for theirs in ["ada", "laptop"] {
        let (status, said) = chat.posts(&secret(theirs), "/api/v1/approvals/a1", json!({ "approve": true })).await;
        assert_eq!(status, 403, "{said}");
        assert!(said["error"].as_str().unwrap().starts_with("ada posted the alert that started r1"), "{said}");
    }
    let said = chat.types("U0ADA", "approve a1").await;
    assert!(said.contains("cannot approve it too"), "{said}");
    chat.night.settle().await;
    assert!(chat.night.effects().is_empty(), "{:?}", chat.night.effects());
    let entries = chat.night.entries().await;
    let via = entries.iter().find_map(|entry| match &entry.kind {
        EntryKind::Heard { via, .. } => via.clone(),
        _ => None,
    });
    let via = via.expect("the entry names its sender");
    assert_eq!((via.by.as_str(), via.with.as_str(), via.person), ("ada", "token ada", true));
    let (status, said) = chat.posts(&secret("bob"), "/api/v1/approvals/a1", json!({ "approve": true })).await;
    assert_eq!(status, 200, "{said}");
    chat.night.settle().await;
    assert_eq!(chat.night.effects().get("patch nodes gpu-2"), Some(&1), "{:?}", chat.night.effects());

    // What a machine posts has no requester: anyone with the role approves it.
    let body = alertmanager_body("firing", NIGHT, &[&[("alertname", "GpuXid"), ("node", "gpu-3")]]);
    let (status, said) = chat.posts(&secret("prometheus"), "/in/alertmanager/test", body).await;
    assert_eq!(status, 200, "{said}");
    let run = chat.night.runs().await.into_iter().find(|run| run.id.0 == 2).unwrap();
    assert_eq!(run.posted_by, None);
    chat.night.until_rest(run.id, Duration::from_secs(60)).await;
    let (status, said) = chat.posts(&secret("ada"), "/api/v1/approvals/a2", json!({ "approve": true })).await;
    assert_eq!(status, 200, "{said}");
}

const CORDON: &str =
    "//! Cordon a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n\nk8s::cordon(node, \"test\");\n";
const RULE: &str =
    "rules:\n  - name: r\n    when: ['alertname=\"GpuXid\"']\n    run: cordon\n    mode: approve\n    tell: []\n";

/// Two clusters; `east` is the default. Tokens: an operator, an admin and an approver of `main` alone, and an operator of both.
async fn two_clusters() -> (SimFleet, SimFleet, Site, Engine) {
    let fleet = || SimFleet::start(SimOptions { nodes: 40, ..SimOptions::default() }).unwrap();
    let fleets = (fleet(), fleet());
    let extra = format!(
        "clusters:\n  east: {{ url: '{}' }}\n  main: {{ url: '{}' }}\ndefault_cluster: east\nguards: {{ nodes_at_once: 5, domains: [] }}\nsources:\n\
         \x20 east: {{ kind: alertmanager, add_labels: {{ cluster: east }} }}\n\
         \x20 main: {{ kind: alertmanager, add_labels: {{ cluster: main }} }}\n\
         \x20 both: {{ kind: alertmanager, clusters: [east, main] }}\n\
         \x20 odd: {{ kind: alertmanager, labels: {{ cluster: [site, cluster] }}, add_labels: {{ cluster: main }}, clusters: [main] }}\n",
        fleets.0.url(),
        fleets.1.url()
    );
    let site = Site::new(&extra, RULE, &[("cordon", CORDON)]);
    site.add_token("op", "operator", "");
    site.add_token("boss", "approver", ", clusters: [main]");
    site.add_token("op-main", "operator", ", clusters: [main]");
    site.add_token("admin-main", "admin", ", clusters: [main]");
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    (fleets.0, fleets.1, site, engine)
}

async fn post(engine: &Engine, who: &str, source: &str, alerts: &[&[(&str, &str)]]) -> (u16, Value) {
    let body = alertmanager_body("firing", NIGHT, alerts);
    engine.ask("POST", &format!("/in/alertmanager/{source}"), Some(&secret(who)), &body).await
}

#[tokio::test]
async fn a_principal_of_one_cluster_posts_only_about_that_cluster_by_every_route() {
    let (_east, _main, _site, engine) = two_clusters().await;
    let gpu = |node: &'static str| [("alertname", "GpuXid"), ("node", node)];
    for who in ["op-main", "admin-main"] {
        for source in ["east", "both"] {
            for path in [format!("/in/alertmanager/{source}"), format!("/in/alertmanager/{source}/api/v2/alerts")] {
                let body = alertmanager_body("firing", NIGHT, &[&gpu("gpu-1")]);
                let body = if path.ends_with("alerts") { body["alerts"].clone() } else { body };
                let (status, said) = engine.ask("POST", &path, Some(&secret(who)), &body).await;
                assert_eq!(status, 403, "{who} {path}: {said}");
                assert!(said["error"].as_str().unwrap().contains("may act only in main"), "{said}");
            }
        }
        // The label of the cluster is the site's own: what the sender writes there counts for nothing.
        let forged = [("alertname", "GpuXid"), ("node", "gpu-1"), ("cluster", "east")];
        let (status, said) = post(&engine, who, "main", &[&forged]).await;
        assert_eq!(status, 200, "{said}");
        // A source whose label of the cluster is read second: each event is looked at.
        let (status, said) =
            post(&engine, who, "odd", &[&[("alertname", "GpuXid"), ("node", "gpu-2"), ("site", "east")]]).await;
        assert_eq!(status, 403, "{said}");
        assert!(said["error"].as_str().unwrap().contains("is about cluster east and was refused"), "{said}");
    }
    let elsewhere = [("alertname", "GpuXid"), ("node", "gpu-2"), ("site", "east")];
    let (status, said) = post(&engine, "op-main", "odd", &[&elsewhere, &gpu("gpu-3")]).await;
    assert_eq!((status, &said["accepted"], &said["gaps"]), (200, &json!(1), &json!(1)), "{said}");
    let runs = engine.get("/api/v1/runs?limit=50").await.unwrap();
    let subjects: Vec<&Value> = runs["runs"].as_array().unwrap().iter().map(|run| &run["subject"]["cluster"]).collect();
    assert_eq!(subjects, [&json!("main"), &json!("main")], "{runs}");
    // Without a limit: everywhere that the source is about.
    let (status, said) =
        post(&engine, "op", "both", &[&[("alertname", "GpuXid"), ("node", "gpu-4"), ("cluster", "west")]]).await;
    assert!(status == 403 && said.to_string().contains("source `both` is about east, main alone"), "{status} {said}");
    let (status, said) =
        post(&engine, "op", "both", &[&[("alertname", "GpuXid"), ("node", "gpu-4"), ("cluster", "east")]]).await;
    assert_eq!(status, 200, "{said}");
    let refused = eventually("refusals in the ledger", async || {
        let entries = engine.get("/api/v1/entries?kind=refused&limit=50").await?;
        let text = entries.to_string();
        (text.contains("op-main") && text.contains("admin-main")).then_some(text)
    })
    .await;
    assert!(refused.contains("/in/alertmanager/east"), "{refused}");
}

#[tokio::test]
async fn limited_approvers_and_operators_work_in_their_own_cluster_although_another_one_is_the_default() {
    let (east, main, _site, engine) = two_clusters().await;
    let (status, said) = post(&engine, "op", "main", &[&[("alertname", "GpuXid"), ("node", "gpu-2")]]).await;
    assert_eq!(status, 200, "{said}");
    let asked = async |id: &str| {
        eventually("a question", async || {
            let found = engine.get(&format!("/api/v1/approvals/{id}")).await?;
            (found["approval"]["state"] == "open").then_some(())
        })
        .await;
    };
    let done = async |fleet: &SimFleet, node: &str| {
        eventually("the effect", async || {
            fleet.effects().iter().any(|effect| effect.changed && effect.name == node).then_some(())
        })
        .await;
    };
    asked("a1").await;
    let (status, said) =
        engine.ask("POST", "/api/v1/approvals/a1", Some(&secret("boss")), &json!({ "approve": true })).await;
    assert_eq!(status, 200, "{said}");
    done(&main, "gpu-2").await;
    // By hand: the cluster is named, and another one is refused.
    let wish = |cluster: Option<&str>| {
        let mut wish = json!({ "runbook": "cordon", "params": { "node": "gpu-3" }, "mode": "approve" });
        if let Some(cluster) = cluster {
            wish["cluster"] = json!(cluster);
        }
        wish
    };
    for cluster in [None, Some("east")] {
        let (status, said) = engine.ask("POST", "/api/v1/runs", Some(&secret("op-main")), &wish(cluster)).await;
        assert!(status == 403 && said.to_string().contains("this is in east"), "{status} {said}");
    }
    let (status, said) = engine.ask("POST", "/api/v1/runs", Some(&secret("op-main")), &wish(Some("mian"))).await;
    assert!(status == 404 && said.to_string().contains("did you mean `main`?"), "{status} {said}");
    let (status, said) = engine.ask("POST", "/api/v1/runs", Some(&secret("op-main")), &wish(Some("main"))).await;
    assert_eq!(status, 201, "{said}");
    assert_eq!(said["run"]["subject"]["cluster"], "main");
    asked("a2").await;
    let (status, said) =
        engine.ask("POST", "/api/v1/approvals/a2", Some(&secret("boss")), &json!({ "approve": true })).await;
    assert_eq!(status, 200, "{said}");
    done(&main, "gpu-3").await;
    assert!(east.effects().iter().all(|effect| !effect.changed), "{:?}", east.effects());
}

/// The body of `label-also.json` as it was found: an alert whose labels are named as parameters of the shipped runbook.
#[tokio::test]
async fn a_label_named_as_a_parameter_is_no_query_of_the_shipped_runbook() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = |path: &str| std::fs::read_to_string(home.join(path)).unwrap();
    let runbook = |name: &'static str| (name, shipped(&format!("runbooks/{name}.rhai")));
    let (one, other) = (runbook("inference-engine-restart"), runbook("inference-no-progress"));
    let books = [(one.0, one.1.as_str()), (other.0, other.1.as_str())];
    let site = Site::new("sources: { prod: { kind: alertmanager } }\n", &shipped("rules/inference.yaml"), &books);
    site.add_token("src", "source", ", sources: [prod]");
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    let labels = [
        ("alertname", "InferenceNoProgress"),
        ("engine", "vllm"),
        ("namespace", "inference"),
        ("pod", "mistral-7b-0"),
        ("deployment", "mistral-7b"),
        ("also", "vector(1)"),
        ("drain", "0s"),
        ("signals", "0"),
    ];
    let (status, said) = post(&engine, "src", "prod", &[&labels]).await;
    assert_eq!(status, 200, "{said}");
    let runs = engine.get("/api/v1/runs?limit=50").await.unwrap();
    let runs = runs["runs"].as_array().unwrap();
    let run = runs.iter().find(|run| run["runbook"]["name"] == "inference-engine-restart").unwrap();
    let params = &run["input"]["params"];
    assert_eq!(
        (&params["also"], &params["drain"], &params["signals"]),
        (&json!(""), &json!("30s"), &json!(2)),
        "{params}"
    );
    assert_eq!(params["pod"], "inference/mistral-7b-0");
}

#[tokio::test]
async fn a_senders_label_named_seen_is_no_count_of_its_alert() {
    let site = Site::new("sources: { prod: { kind: alertmanager } }\n", "rules: []", &[]);
    site.add_token("src", "source", ", sources: [prod]");
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    let labels = [("alertname", "A"), ("node", "gpu-1"), ("seen", "4000000000")];
    for _ in 0..2 {
        let (status, said) = post(&engine, "src", "prod", &[&labels]).await;
        assert_eq!(status, 200, "{said}");
    }
    let found = engine.get("/api/v1/incidents/i1").await.unwrap();
    assert!(found.to_string().contains("\"seen\":2,") || found.to_string().contains("\"seen\":2}"), "{found}");
}
