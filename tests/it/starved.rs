//! What hangs keeps its own runs waiting and no others; what may have happened is in doubt, whether a crash or a silence says so.

use crate::harness::eventually;
use crate::night::Night;
use nightshift::engine::Runner;
use nightshift::model::{Input, Mode, ReasonCode, RunId, RunState, Subject};
use nightshift::policy::RuleSet;
use nightshift::store::NewRun;
use nightshift::world::sim::{ApiFault, Trouble};
use nightshift::world::{Kube, KubeConfig};
use serde_json::json;

const CORDON: &str = "//! Cordons.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: never\n\n\
                      k8s::cordon(node, \"a test\");\n";

/// A run by hand about a node of that cluster.
async fn begin(night: &Night, cluster: &str, node: &str) -> RunId {
    let loaded = night.parts.catalog.current();
    let runbook = &loaded.runbooks["cordon"];
    let given = json!({ "node": node }).as_object().cloned().unwrap();
    let input: Input = RuleSet::bind(&runbook.header, &given, None).unwrap();
    let new = NewRun {
        pin: runbook.pin.clone(),
        subject: Subject { cluster: Some(cluster.to_owned()), ..Subject::node(node) },
        input,
        mode: Mode::Auto,
        rule: None,
        terms: None,
        requested_by: "a test".to_owned(),
        once: None,
        now: night.now(),
    };
    night.parts.store.start(new).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_cluster_whose_api_hangs_keeps_no_run_of_another_cluster_waiting() {
    let mut night = Night::fall("rules: []\n", &[("cordon", CORDON)]).await;
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = KubeConfig { url: format!("http://{}", hanging.local_addr().unwrap()), ..KubeConfig::default() };
    // Connections are taken and never answered.
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = hanging.accept().await {
            kept.push(stream);
        }
    });
    night.parts.world.clusters.insert("hangs".to_owned(), Kube::late(&config, "nightshift/test"));
    let mut hung = Vec::new();
    for number in 0..100 {
        hung.push(begin(&night, "hangs", &format!("n{number}")).await);
    }
    let well = begin(&night, "sim", "gpu-1").await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(Runner::new(night.parts.clone()).run(stopped));
    eventually("the run in the healthy cluster", async || {
        (night.run(well).await.state == RunState::Done).then_some(())
    })
    .await;
    assert_eq!(night.effects().get("patch nodes gpu-1"), Some(&1));
    // It had no slot of a run that hangs: not one of those has come back yet.
    for run in hung {
        assert_eq!(night.run(run).await.state, RunState::Ready, "{run}");
    }
    let _ = stop.send(true);
    running.abort();
}

#[tokio::test]
async fn a_blind_post_without_an_answer_is_in_doubt_as_after_a_crash_and_is_never_sent_twice() {
    let text = "//! Posts.\n//!\n//! params:\n//!   url: String\n//! scope: pod\n//! undo: never\n\n\
                try { http::post(url, \"x\"); } catch { http::post(url, \"x\"); }\n";
    let night = Night::fall("rules: []\n", &[("post", text)]).await;
    night.fleet.fault(ApiFault::next(5, "POST", "/hook", Trouble::LoseReply)).unwrap();
    let run = night.start("post", Mode::Auto, json!({ "url": format!("{}/hook", night.fleet.url()) })).await;
    let ended = night.until_rest(run, std::time::Duration::from_secs(600)).await;
    let RunState::Stuck { reason } = &ended.state else { panic!("{:?}", ended.state) };
    assert!(reason.code == ReasonCode::InDoubt && reason.text.contains("it may have happened"), "{reason}");
    let posts = night.fleet.requests().iter().filter(|asked| asked.path == "/hook").count();
    assert_eq!(posts, 1, "counted at the target");
}
