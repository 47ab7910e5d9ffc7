//! What is read, asked, sent and said: Prometheus, HTTP, people, time; and the facts that guards ask for.
//!
//! Invariant: no data is a failure or an empty list, and a request that may have happened is not sent twice.

use super::cases::{call, cordon};
use super::*;
use nightshift::model::Subject;
use nightshift::world::WorldError;
use nightshift::world::sim::SimSample;
use serde_json::json;

fn query(name: &str, promql: &str) -> ActionCall {
    call(name, &[("query", json!(promql))])
}

#[tokio::test]
async fn a_value_is_one_finite_number_or_a_failure() {
    let stage = Stage::new().await;
    let series = |labels: &[(&str, &str)], value| SimSample { labels: labels.iter().copied().collect(), value };
    stage.fleet.set_prometheus("one", vec![SimSample::value(0.25)]);
    stage.fleet.set_prometheus("none", vec![]);
    stage.fleet.set_prometheus("two", vec![series(&[("a", "1")], 1.0), series(&[("a", "2")], f64::INFINITY)]);
    stage.fleet.set_prometheus("nan", vec![SimSample::value(f64::NAN)]);
    stage.fleet.set_prometheus("inf", vec![SimSample::value(f64::INFINITY)]);

    assert_eq!(ok(stage.run(query("prom::value", "one")).await), json!(0.25));
    refused(stage.run(query("prom::value", "none")).await, FailureKind::NotFound, "no data");
    refused(stage.run(query("prom::value", "nan")).await, FailureKind::NotFound, "NaN");
    refused(stage.run(query("prom::value", "two")).await, FailureKind::Invalid, "2 series");
    refused(stage.run(query("prom::value", "inf")).await, FailureKind::Invalid, "inf");
    refused(stage.run(query("prom::value", "rate(((")).await, FailureKind::Invalid, "refused the query");

    assert_eq!(ok(stage.run(query("prom::query", "none")).await), json!([]));
    let two = json!([{ "labels": { "a": "1" }, "value": 1.0 }, { "labels": { "a": "2" }, "value": "+Inf" }]);
    assert_eq!(ok(stage.run(query("prom::query", "two")).await), two);
    // Longer than a URL may be: it goes as a form.
    let long = format!("one{}", " ".repeat(5_000));
    assert_eq!(ok(stage.run(query("prom::value", &long)).await), json!(0.25));
}

#[tokio::test]
async fn a_prometheus_that_is_silent_is_asked_again_and_never_read_as_zero() {
    let mut stage = Stage::new().await;
    stage.trouble(100, "GET", "/api/v1/query", RequestFault::Status { code: 503, retry_after: None });
    refused(stage.run(query("prom::value", "one")).await, FailureKind::Unavailable, "503");
    stage.fleet.calm();
    stage.trouble(100, "GET", "/api/v1/query", RequestFault::Garbage);
    refused(stage.run(query("prom::value", "one")).await, FailureKind::Unavailable, "not in its own words");
    stage.world.prometheus = None;
    refused(stage.run(query("prom::value", "one")).await, FailureKind::Invalid, "no Prometheus is configured");
}

#[tokio::test]
async fn any_status_of_a_get_is_an_answer_and_the_allow_list_decides() {
    let stage = Stage::new().await;
    let get = |url: String| call("http::get", &[("url", json!(url))]);
    let node = ok(stage.run(get(format!("{}/api/v1/nodes/gpu-1", stage.fleet.url()))).await);
    assert_eq!((&node["status"], &node["json"]["metadata"]["name"]), (&json!(200), &json!("gpu-1")));
    let missing = ok(stage.run(get(format!("{}/api/v1/nodes/gpu-9", stage.fleet.url()))).await);
    assert_eq!(missing["status"], json!(404));
    refused(stage.run(get("http://169.254.169.254/latest".to_owned())).await, FailureKind::Forbidden, "http_allow");
    refused(stage.run(get("file:///etc/passwd".to_owned())).await, FailureKind::Invalid, "not http");
}

#[tokio::test]
async fn a_post_is_sent_once_whatever_becomes_of_its_answer() {
    let stage = Stage::new().await;
    let post =
        || call("http::post", &[("url", json!(format!("{}/hook", stage.fleet.url()))), ("body", json!({ "a": 1 }))]);
    let count = || stage.fleet.requests().iter().filter(|asked| asked.path == "/hook").count();
    for trouble in [RequestFault::LoseReply, RequestFault::Cut] {
        let before = count();
        stage.trouble(5, "POST", "/hook", trouble);
        refused(stage.run(post()).await, FailureKind::Unavailable, "it may have happened");
        assert_eq!(count(), before + 1);
        stage.fleet.calm();
    }
    let before = count();
    stage.trouble(5, "POST", "/hook", RequestFault::Status { code: 503, retry_after: None });
    assert_eq!(ok(stage.run(post()).await)["status"], json!(503), "a refusal is an answer");
    assert_eq!(count(), before + 1);
}

#[tokio::test]
async fn a_post_that_never_connected_is_tried_again() {
    let stage = Stage::new().await;
    let url = stage.fleet.url();
    let post = call("http::post", &[("url", json!(format!("{url}/hook"))), ("body", json!("x"))]);
    let step = stage.begin(post).await;
    let Stage { fleet, world, .. } = stage;
    drop(fleet);
    let performed = action("http::post").perform(&world, &step).await;
    assert!(matches!(performed, PerformResult::Retry { .. }), "{performed:?}");
}

#[tokio::test]
async fn sleep_ends_at_its_time_and_not_before_even_after_a_restart() {
    let stage = Stage::new().await;
    let step = stage.begin(call("sleep", &[("duration", json!("10m"))])).await;
    let sleep = action("sleep");
    let left = |performed: PerformResult| match performed {
        PerformResult::Again { after, .. } => after,
        other => panic!("{other:?}"),
    };
    assert_eq!(left(sleep.perform(&stage.world, &step).await), minutes(10));
    stage.clock.advance(minutes(7));
    assert_eq!(left(sleep.perform(&stage.world, &step).await), minutes(3));
    stage.clock.set(step.begun_at - minutes(60));
    assert_eq!(left(sleep.perform(&stage.world, &step).await), minutes(10), "a clock that steps back does not wake it");
    stage.clock.set(step.begun_at + minutes(10));
    assert_eq!(sleep.perform(&stage.world, &step).await, PerformResult::Done(Outcome::Ok(Value::Null)));
    refused(stage.run(call("sleep", &[("duration", json!("8d"))])).await, FailureKind::Invalid, "7d at most");
}

#[tokio::test]
async fn tell_hands_its_words_to_the_engine_and_approve_never_says_yes_by_itself() {
    let stage = Stage::new().await;
    let step = stage.begin(call("tell", &[("channel", json!("hardware")), ("text", json!("<!channel> hi"))])).await;
    let told = action("tell").perform(&stage.world, &step).await;
    let words = vec![("hardware".to_owned(), "<!channel> hi".to_owned())];
    assert_eq!(told, PerformResult::Tell(Outcome::Ok(Value::Null), words));
    let question = call("approve", &[("question", json!("Reset?"))]);
    refused(stage.run(question).await, FailureKind::Invalid, "only the engine");
    assert_eq!(ok(stage.run(call("now", &[])).await), json!("2026-03-29T00:30:00Z"));
}

#[tokio::test]
async fn reads_of_the_cluster_say_what_is_there() {
    let stage = Stage::new().await;
    let of = |name: &str, node: &str| call(name, &[("node", json!(node))]);
    let node = ok(stage.run(of("k8s::node", "gpu-1")).await);
    assert_eq!((&node["gpus"], &node["ready"], &node["cordoned_by"]), (&json!(8), &json!(true), &json!("")));
    ok(stage.run(cordon("gpu-1")).await);
    let node = ok(stage.run(of("k8s::node", "gpu-1")).await);
    assert_eq!(node["cordoned_by"], json!("nightshift/test r7 XID 79 on gpu 3"));
    let pods = ok(stage.run(of("k8s::pods_on", "gpu-1")).await);
    assert_eq!(pods.as_array().unwrap().len(), stage.fleet.pods_on("gpu-1").len());
    refused(stage.run(of("k8s::node", "gpu-9")).await, FailureKind::NotFound, "nodes gpu-9");
    refused(stage.run(of("k8s::node", "../secrets")).await, FailureKind::Invalid, "is not a valid node");

    let spare = ok(stage.run(of("k8s::spare_node", "gpu-1")).await);
    assert!(["gpu-2", "gpu-3", "gpu-4"].contains(&spare.as_str().unwrap()), "{spare}");
    for other in ["gpu-2", "gpu-3", "gpu-4"] {
        ok(stage.run(cordon(other)).await);
    }
    assert_eq!(ok(stage.run(of("k8s::spare_node", "gpu-1")).await), json!(""));
}

#[tokio::test]
async fn keys_of_kubernetes_are_not_a_runbooks_to_change() {
    let stage = Stage::new().await;
    let key = ("key", json!("node.kubernetes.io/unschedulable"));
    let node = ("node", json!("gpu-1"));
    let value = ("value", json!("x"));
    for name in ["k8s::label", "k8s::annotate"] {
        let args = [node.clone(), key.clone(), value.clone()];
        refused(stage.run(call(name, &args)).await, FailureKind::Refused, "belongs to Kubernetes");
    }
    let taint = [node.clone(), key.clone(), value, ("effect", json!("NoSchedule"))];
    refused(stage.run(call("k8s::taint", &taint)).await, FailureKind::Refused, "belongs to Kubernetes");
    refused(stage.run(call("k8s::untaint", &[node, key])).await, FailureKind::Refused, "belongs to Kubernetes");
    assert_eq!(stage.changes(), [""; 0]);
}

#[tokio::test]
async fn facts_count_gpu_nodes_and_those_that_are_out_whoever_did_it() {
    let stage = Stage::new().await;
    let facts = stage.world.facts(&Subject::node("gpu-1")).await;
    assert_eq!((facts.nodes_total, facts.nodes_out.len()), (Some(4), 0), "the control plane is no GPU node");
    assert_eq!((facts.protected, facts.foreign_cordon), (None, None));

    ok(stage.run(cordon("gpu-2")).await);
    stage.fleet.fault(SimFault::NodeNotReady { node: "gpu-3".to_owned() }).unwrap();
    stage.kube().patch_node("gpu-1", json!({ "spec": { "unschedulable": true } }), None).await.unwrap();
    // The kubelet's silence is noticed after a while.
    stage.clock.advance(minutes(5));
    let facts = stage.world.facts(&Subject::node("gpu-1")).await;
    assert_eq!(facts.nodes_out, ["gpu-1", "gpu-2", "gpu-3"]);
    assert_eq!(facts.foreign_cordon.as_deref(), Some("another user or tool"));
    assert_eq!(stage.world.facts(&Subject::node("gpu-2")).await.foreign_cordon, None, "ours");
}

#[tokio::test]
async fn facts_say_what_is_protected_and_know_nothing_when_the_api_is_silent() {
    let stage = Stage::new().await;
    let protected = async |subject: Subject| stage.world.facts(&subject).await.protected.unwrap_or_default();
    assert!(protected(Subject::node("control-1")).await.contains("control plane"));
    assert!(protected(Subject::pod("kube-system", "kube-apiserver-control-1")).await.contains("kube-system"));
    assert_eq!(protected(Subject::node("gpu-9")).await, "", "the action will say that it is not there");
    let label = json!({ "metadata": { "labels": { "nightshift.dev/opt-out": "true" } } });
    stage.kube().patch_node("gpu-4", label, None).await.unwrap();
    assert!(protected(Subject::node("gpu-4")).await.contains("opt-out"));
    assert!(protected(Subject::pod("research", "notebook-ada")).await.contains("opt-out"), "by the node it runs on");

    stage.trouble(100, "GET", "/nodes", RequestFault::Status { code: 503, retry_after: None });
    let facts = stage.world.facts(&Subject::node("gpu-1")).await;
    assert_eq!(facts.nodes_total, None);
    assert!(facts.unread.is_some() && facts.protected.is_none(), "silence is waited for: {facts:?}");
    assert_eq!(stage.world.facts(&Subject::default()).await, Default::default(), "nothing is asked for no target");
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_told_from_one_that_does_not_answer() {
    let stage = Stage::new().await;
    let kube = stage.kube().clone();
    assert!(kube.may("", "pods/eviction", "create").await.unwrap());
    stage.fleet.fault(SimFault::Deny { verb: "create".to_owned(), resource: "pods/eviction".to_owned() }).unwrap();
    assert!(!kube.may("", "pods/eviction", "create").await.unwrap());
    stage.trouble(1, "GET", "/nodes", RequestFault::Cut);
    assert!(matches!(kube.node("gpu-1").await, Err(WorldError::Unavailable(_))));
    stage.trouble(1, "GET", "/nodes", RequestFault::Status { code: 429, retry_after: Some(7) });
    let busy = kube.node("gpu-1").await;
    assert!(matches!(&busy, Err(WorldError::TooMany { after: Some(after), .. }) if after.as_secs() == 7), "{busy:?}");
    let asked = stage.fleet.requests().len();
    stage.trouble(1, "GET", "/nodes", RequestFault::Status { code: 503, retry_after: None });
    assert!(matches!(kube.node("gpu-1").await, Err(WorldError::Unavailable(_))));
    assert_eq!(stage.fleet.requests().len(), asked + 1, "no silent retry");
    drop(stage);
    assert!(matches!(kube.node("gpu-1").await, Err(WorldError::Unreached(_) | WorldError::Unavailable(_))));
}
