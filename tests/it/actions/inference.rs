//! `inference::models_on` and `inference::restart`: who serves what, and never the last one.
//!
//! Invariant: a refused restart evicts nobody.

use super::cases::call;
use super::*;
use serde_json::json;

#[tokio::test]
async fn a_node_says_which_models_its_pods_serve() {
    let stage = Stage::new().await;
    let mut all = Vec::new();
    for node in ["gpu-1", "gpu-2", "gpu-3", "gpu-4"] {
        let models = ok(stage.run(call("inference::models_on", &[("node", json!(node))])).await);
        all.extend(models.as_array().unwrap().clone());
    }
    let count = |model: &str| -> usize {
        let of = all.iter().filter(|one| one["model"] == model);
        of.map(|one| one["pods"].as_array().unwrap().len()).sum()
    };
    assert_eq!((count("Mistral-7B-Instruct-v0.3"), count("Llama-3.3-70B-Instruct"), count("notebook")), (4, 2, 1));
    let by_app = call("inference::models_on", &[("node", json!("gpu-1")), ("label", json!("app"))]);
    assert!(
        ok(stage.run(by_app).await).as_array().unwrap().iter().all(|one| one["model"].as_str().unwrap().contains('-'))
    );
}

#[tokio::test]
async fn a_server_is_restarted_while_another_one_serves_and_the_last_one_is_not() {
    let stage = Stage::new().await;
    let pod = stage.pod_of("llama-70b");
    for query in ["stuck", "silent"] {
        stage.fleet.set_prometheus(query, vec![nightshift::world::sim::SimSample::value(1.0)]);
    }
    let also = ("also", json!(["stuck", "silent"]));
    let restart = |pod: &str| call("inference::restart", &[("pod", json!(pod)), also.clone()]);
    assert_eq!(ok(stage.run(restart(&pod)).await)["changed"], true);
    stage.clock.advance(minutes(5));
    let scale = [("workload", json!("inference/llama-70b")), ("replicas", json!(1))];
    ok(stage.run(call("k8s::scale", &scale)).await);
    stage.clock.advance(minutes(5));
    let before = stage.fleet.changes().len();
    let last = stage.pod_of("llama-70b");
    refused(stage.run(restart(&last)).await, FailureKind::Refused, "is the last one that serves");
    refused(stage.run(restart("research/notebook-ada")).await, FailureKind::Refused, "no controller would start");
    refused(
        action("inference::restart").predict(&stage.world, &restart(&last)).await,
        FailureKind::Refused,
        "last one",
    );
    assert_eq!(stage.fleet.changes().len(), before);
}

fn restart(stage: &Stage, options: &[(&'static str, serde_json::Value)]) -> nightshift::model::ActionCall {
    let mut args = vec![("pod", json!(stage.pod_of("mistral-7b")))];
    args.extend(options.iter().cloned());
    call("inference::restart", &args)
}

#[tokio::test]
async fn one_signal_is_refused_with_what_speaks_for_and_against_and_two_restart_it() {
    let stage = Stage::ready_for("inference::restart").await;
    stage.engine().freeze(9);
    let Outcome::Failed(failure) = stage.run(restart(&stage, &[])).await else { panic!("one signal restarted it") };
    assert_eq!(failure.kind, FailureKind::Refused);
    for words in [
        "is not restarted: 1 of 2 independent signals agree",
        "(progress): 9 requests wait and 0 run of m/0, and no step was made",
        "(readiness): it reports ready",
        "(cache): its KV cache is not full",
    ] {
        assert!(failure.message.contains(words), "{words}: {failure}");
    }
    assert_eq!(stage.changes(), [""; 0]);
    stage.engine().set(|page| page.ready = false);
    let mut step = stage.begin(restart(&stage, &[])).await;
    let (outcome, waits) = stage.finish(&mut step).await;
    assert_eq!(ok(outcome)["changed"], true);
    assert!(waits.iter().any(|why| why.starts_with("2 independent signals agree: ")), "{waits:?}");
    assert_eq!(stage.changes(), ["evict pods"]);
}

#[tokio::test]
async fn a_busy_engine_is_never_restarted_and_the_number_is_the_authors_but_never_none() {
    let stage = Stage::ready_for("inference::restart").await;
    // Late to answer, a full cache and a long queue: but it makes steps.
    stage.engine().set(|page| (page.waiting, page.running, page.cache, page.ready) = (300, 40, 0.99, true));
    refused(stage.run(restart(&stage, &[])).await, FailureKind::Refused, "1 of 2");
    stage.engine().freeze(4);
    stage.engine().set(|page| page.cache = 0.2);
    refused(stage.run(restart(&stage, &[("signals", json!(3))])).await, FailureKind::Refused, "1 of 3");
    refused(stage.run(restart(&stage, &[("signals", json!(0))])).await, FailureKind::Invalid, "from 1 to 8");
    refused(stage.run(restart(&stage, &[("also", json!(7))])).await, FailureKind::Invalid, "must be PromQL");
    assert_eq!(stage.changes(), [""; 0]);
    assert_eq!(ok(stage.run(restart(&stage, &[("signals", json!(1))])).await)["changed"], true);
}

#[tokio::test]
async fn prometheus_counts_as_often_as_it_is_asked_and_an_engine_that_nobody_knows_is_refused() {
    let stage = Stage::new().await;
    refused(
        stage.run(restart(&stage, &[])).await,
        FailureKind::NotFound,
        "give its pods the label nightshift.dev/probe",
    );
    stage.fleet.set_prometheus("stuck", vec![nightshift::world::sim::SimSample::value(1.0)]);
    stage.fleet.set_prometheus("calm", vec![]);
    let also = ("also", json!(["stuck", "calm"]));
    refused(stage.run(restart(&stage, &[also])).await, FailureKind::Refused, "`calm` has no result");
    assert_eq!(stage.changes(), [""; 0]);
}

#[tokio::test]
async fn a_workloads_health_is_that_of_its_engines() {
    let stage = Stage::ready_for("inference::health").await;
    let health = || call("inference::health", &[("workload", json!("inference/mistral-7b"))]);
    let well = ok(stage.run(health()).await);
    assert_eq!((&well["signals"], &well["engines"][0]["ready"]), (&json!(0), &json!(true)), "{well}");
    stage.engine().freeze(2);
    stage.engine().set(|page| (page.ready, page.cache) = (false, 0.97));
    let ill = ok(stage.run(health()).await);
    assert_eq!(ill["engines"][0]["signals"], json!(["progress", "readiness", "cache"]), "{ill}");
    assert_eq!((&ill["signals"], &ill["engines"][0]["waiting"]), (&json!(3), &json!(2.0)));
    assert_eq!(stage.changes(), [""; 0]);
}

/// The labels of a pod, and whether it bears our mark.
fn traffic(stage: &Stage, pod: &str) -> (String, bool) {
    let (namespace, name) = pod.split_once('/').unwrap();
    let metadata = &stage.fleet.pod(namespace, name).unwrap()["metadata"];
    let label = metadata["labels"]["nightshift.dev/traffic"].as_str().unwrap_or_default().to_owned();
    (label, metadata["annotations"].get("nightshift.dev/traffic-taken-by").is_some())
}

fn drain(pod: &str, options: &[(&'static str, serde_json::Value)]) -> nightshift::model::ActionCall {
    let mut args = vec![("pod", json!(pod))];
    args.extend(options.iter().cloned());
    call("inference::drain_traffic", &args)
}

#[tokio::test]
async fn traffic_goes_the_pod_stays_its_deployments_and_the_step_ends_when_its_requests_have() {
    let stage = Stage::ready_for("inference::drain_traffic").await;
    let pod = stage.pod_of("mistral-7b");
    stage.engine().set(|page| (page.running, page.waiting) = (3, 1));
    let mut step = stage.begin(drain(&pod, &[])).await;
    let action = action("inference::drain_traffic");
    // Its requests end one after another.
    let mut waits = Vec::new();
    let outcome = loop {
        match action.perform(&stage.world, &step).await {
            PerformResult::Done(outcome) => break outcome,
            PerformResult::Again { after, why, carry } => {
                waits.push(why);
                step.carry = carry;
                stage.clock.advance(after);
                stage.engine().set(|page| page.running = page.running.saturating_sub(1));
                stage.engine().set(|page| page.waiting = 0);
            }
            other => panic!("{other:?}"),
        }
    };
    let came = ok(outcome.clone());
    assert_eq!(
        (&came["drained"], &came["changed"], &came["before"]),
        (&json!(true), &json!(true), &json!("on")),
        "{came}"
    );
    assert_eq!(waits[0], "it gets no new requests");
    assert!(waits.contains(&"1 requests run and 0 wait".to_owned()), "{waits:?}");
    assert_eq!(traffic(&stage, &pod), ("off".to_owned(), true));
    // The Deployment neither lets go of it nor makes another one.
    stage.clock.advance(minutes(10));
    assert_eq!(
        ok(stage.run(call("k8s::ready_replicas", &[("workload", json!("inference/mistral-7b"))])).await),
        json!(4)
    );
    assert_eq!(stage.changes(), ["patch pods"]);
    step.outcome = Some(outcome);
    let undo = action.undo(&step).unwrap();
    assert_eq!(ok(stage.run(undo.clone()).await)["changed"], true);
    assert_eq!(traffic(&stage, &pod), ("on".to_owned(), false));
    assert_eq!(ok(stage.run(undo).await)["changed"], false);
}

#[tokio::test]
async fn when_the_time_is_up_it_says_so_and_an_engine_that_falls_silent_is_not_taken_for_empty() {
    let stage = Stage::ready_for("inference::drain_traffic").await;
    let pod = stage.pod_of("mistral-7b");
    stage.engine().set(|page| page.running = 2);
    let late = ok(stage.run(drain(&pod, &[("within", json!("1m"))])).await);
    assert_eq!((&late["drained"], &late["running"]), (&json!(false), &json!(2.0)));
    assert!(late["why"].as_str().unwrap().contains("after 1m: 2 requests run"), "{late}");
    assert_eq!(traffic(&stage, &pod).0, "off", "the runbook decides what then");
    stage.engine().set(|page| page.manner = crate::engines::Manner::Garbage);
    let mut again = stage.begin(drain(&pod, &[("within", json!("1m"))])).await;
    let silent = ok(stage.finish(&mut again).await.0);
    assert_eq!(
        (&silent["drained"], &silent["running"], &silent["changed"]),
        (&json!(false), &json!(null), &json!(false))
    );
    assert!(silent["why"].as_str().unwrap().contains("cannot be read"), "{silent}");
}

#[tokio::test]
async fn what_would_orphan_a_pod_stop_a_model_or_only_look_drained_is_refused_before_anything_changes() {
    let stage = Stage::ready_for("inference::drain_traffic").await;
    let pod = stage.pod_of("mistral-7b");
    let check = async |call: nightshift::model::ActionCall, kind, words: &str| {
        refused(stage.run(call.clone()).await, kind, words);
        refused(action("inference::drain_traffic").predict(&stage.world, &call).await, kind, words);
    };
    check(drain(&pod, &[("label", json!("app"))]), FailureKind::Refused, "would release").await;
    check(drain(&pod, &[("label", json!("tier"))]), FailureKind::Refused, "has no label tier").await;
    check(drain(&pod, &[("label", json!("kubernetes.io/x"))]), FailureKind::Refused, "belongs to Kubernetes").await;
    check(drain("inference/gone", &[]), FailureKind::NotFound, "gone").await;
    let llama = stage.pod_of("llama-70b");
    check(drain(&llama, &[]), FailureKind::NotFound, "the end of its requests cannot be seen").await;
    // Another Service reaches it without the label: nothing would be drained.
    let other = json!({ "metadata": { "name": "side" }, "spec": { "selector": { "app": "mistral-7b" } } });
    let url = format!("{}/api/v1/namespaces/inference/services", stage.fleet.url());
    let made = crate::harness::client().post(url).body(other.to_string()).send().await.unwrap();
    assert!(made.status().is_success(), "{}", made.status());
    let before = stage.mark();
    check(drain(&pod, &[]), FailureKind::Refused, "do not select the label nightshift.dev/traffic: side").await;
    assert_eq!(stage.since(before), [""; 0]);
    assert_eq!(ok(stage.run(drain(&pod, &[("except", json!(["side"]))])).await)["drained"], true);
    // The last one that has its traffic keeps it.
    let scale = [("workload", json!("inference/mistral-7b")), ("replicas", json!(1))];
    ok(stage.run(call("k8s::scale", &scale)).await);
    stage.clock.advance(minutes(5));
    let before = stage.mark();
    let left = stage.pod_of("mistral-7b");
    if left != pod {
        refused(
            stage.run(call("inference::restart", &[("pod", json!(left)), ("also", json!("x"))])).await,
            FailureKind::Refused,
            "last one that serves",
        );
    }
    assert_eq!(stage.since(before), [""; 0]);
}

#[tokio::test]
async fn traffic_that_somebody_else_took_or_a_label_that_a_person_has_set_since_is_left_alone() {
    let stage = Stage::ready_for("inference::drain_traffic").await;
    let pod = stage.pod_of("mistral-7b");
    let (namespace, name) = pod.split_once('/').unwrap();
    let set = async |metadata: serde_json::Value| {
        let url = format!("{}/api/v1/namespaces/{namespace}/pods/{name}", stage.fleet.url());
        let request = crate::harness::client().patch(url).header("content-type", "application/merge-patch+json");
        let body = json!({ "metadata": metadata }).to_string();
        assert!(request.body(body).send().await.unwrap().status().is_success());
    };
    let back = || call("inference::return_traffic", &[("pod", json!(pod))]);
    ok(stage.run(drain(&pod, &[])).await);
    set(json!({ "labels": { "nightshift.dev/traffic": "canary" } })).await;
    assert_eq!(ok(stage.run(back()).await)["changed"], false, "theirs by now");
    assert_eq!(traffic(&stage, &pod), ("canary".to_owned(), false));
    let mark = "nightshift/other r9 nightshift.dev/traffic=on";
    set(json!({ "labels": { "nightshift.dev/traffic": "off" }, "annotations": { "nightshift.dev/traffic-taken-by": mark } })).await;
    refused(stage.run(drain(&pod, &[])).await, FailureKind::Conflict, "removed by nightshift/other");
    refused(stage.run(back()).await, FailureKind::Conflict, "only they may");
    assert_eq!(
        ok(stage.run(call("inference::return_traffic", &[("pod", json!("inference/gone"))])).await)["changed"],
        false
    );
}

#[tokio::test]
async fn a_lost_answer_of_the_patch_neither_takes_twice_nor_forgets_that_it_took() {
    let stage = Stage::ready_for("inference::drain_traffic").await;
    let pod = stage.pod_of("mistral-7b");
    for trouble in [RequestFault::LoseReply, RequestFault::Cut, RequestFault::Status { code: 409, retry_after: None }] {
        let before = stage.mark();
        let mut step = stage.begin(drain(&pod, &[])).await;
        stage.trouble(1, "PATCH", "/pods/", trouble.clone());
        assert_eq!(ok(stage.finish(&mut step).await.0)["changed"], true, "{trouble:?}");
        assert_eq!(stage.since(before), ["patch pods"], "{trouble:?}");
        let mut back = stage.begin(action("inference::drain_traffic").undo(&step).unwrap()).await;
        stage.trouble(1, "PATCH", "/pods/", trouble.clone());
        assert_eq!(ok(stage.finish(&mut back).await.0)["changed"], true, "{trouble:?}");
        assert_eq!(traffic(&stage, &pod), ("on".to_owned(), false));
    }
}

#[tokio::test]
async fn a_request_of_one_token_tells_a_wedged_engine_from_a_busy_one_where_nobody_else_looks() {
    let stage = Stage::ready_for("inference::restart").await;
    let asking = || restart(&stage, &[("ask", json!(true))]);
    // A full cache, and it answers.
    stage.engine().set(|page| (page.waiting, page.cache) = (300, 0.99));
    refused(stage.run(asking()).await, FailureKind::Refused, "(request): a request of one token was answered");
    stage.engine().set(|page| page.cache = 0.2);
    stage.engine().freeze(4);
    let mut step = stage.begin(asking()).await;
    let (outcome, waits) = stage.finish(&mut step).await;
    assert_eq!(ok(outcome)["changed"], true);
    let words = "(request): a request of one token was not answered";
    assert!(waits.iter().any(|why| why.contains(words)), "{waits:?}");
}

#[tokio::test]
async fn what_counts_as_trouble_is_what_the_source_says_that_watches_the_engine() {
    let mut stage = Stage::ready_for("inference::restart").await;
    stage.engine().freeze(2);
    stage.engine().set(|page| page.cache = 0.6);
    // By the usual limits a cache of 60 % is no trouble.
    refused(stage.run(restart(&stage, &[])).await, FailureKind::Refused, "1 of 2 independent signals agree");
    let targets = vec![stage.engine().target(&[("pod", &stage.pod_of("mistral-7b"))])];
    let mut probe = ProbeConfig { targets, ..ProbeConfig::default() };
    probe.limits.cache = 0.5;
    stage.world.engines = ProbedEngines::of([&probe]);
    let mut step = stage.begin(restart(&stage, &[])).await;
    let (outcome, waits) = stage.finish(&mut step).await;
    assert_eq!(ok(outcome)["changed"], true);
    assert!(waits.iter().any(|why| why.contains("(cache)")), "{waits:?}");
}

#[tokio::test]
async fn how_long_a_request_of_one_token_may_take_is_configured() {
    let mut stage = Stage::ready_for("inference::restart").await;
    stage.engine().freeze(1);
    let targets = vec![stage.engine().target(&[("pod", &stage.pod_of("mistral-7b"))])];
    let ask_within = nightshift::model::Span(Duration::from_millis(50));
    stage.world.engines = ProbedEngines::of([&ProbeConfig { targets, ask_within, ..ProbeConfig::default() }]);
    let mut step = stage.begin(restart(&stage, &[("ask", json!(true)), ("signals", json!(1))])).await;
    let (outcome, waits) = stage.finish(&mut step).await;
    assert_eq!(ok(outcome)["changed"], true);
    assert!(waits.iter().any(|why| why.contains("was not answered: no answer within 50ms")), "{waits:?}");
}
