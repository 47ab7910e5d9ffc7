//! The simulated fleet, met from outside: what the kube crate and plain requests see, and what it counts.
//!
//! Invariant: time here is a clock that the test moves, so nothing waits.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams, Preconditions};
use nightshift::clock::SimClock;
use nightshift::world::sim::{
    ApiFault, RequestFault, SimFault, SimFleet, SimOptions, SimSample, SimWorkload, WorkloadKind,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Rig {
    fleet: SimFleet,
    clock: Arc<SimClock>,
    kube: kube::Client,
}

impl Rig {
    fn new() -> Rig {
        Rig::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut SimOptions)) -> Rig {
        // Every test may be the first to need a provider; the second one to install it changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = Arc::new(SimClock::new("2026-03-01T03:00:00Z".parse().unwrap()));
        let mut options = SimOptions { clock: clock.clone(), ..SimOptions::default() };
        change(&mut options);
        let fleet = SimFleet::start(options).unwrap();
        let mut config = kube::Config::new(fleet.url().parse().unwrap());
        config.default_retry = false;
        let kube = kube::Client::try_from(config).unwrap();
        Rig { fleet, clock, kube }
    }

    fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.kube.clone())
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.kube.clone(), "inference")
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.kube.clone(), "inference")
    }

    async fn pods_of(&self, app: &str) -> Vec<Pod> {
        self.pods().list(&ListParams::default().labels(&format!("app={app}"))).await.unwrap().items
    }

    async fn get(&self, path: &str) -> String {
        reqwest::get(format!("{}{path}", self.fleet.url())).await.unwrap().text().await.unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> u16 {
        let url = format!("{}{path}", self.fleet.url());
        reqwest::Client::new().post(url).json(&body).send().await.unwrap().status().as_u16()
    }
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap()
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|list| list.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
        && pod.metadata.deletion_timestamp.is_none()
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

fn refusal<T: std::fmt::Debug>(result: kube::Result<T>) -> kube::core::Status {
    match result.unwrap_err() {
        kube::Error::Api(status) => *status,
        other => panic!("expected an answer from the API, got {other:?}"),
    }
}

#[tokio::test]
async fn the_default_fleet_is_ready_when_it_starts() {
    let rig = Rig::new();
    let nodes = rig.nodes().list(&ListParams::default()).await.unwrap();
    let names: Vec<_> = nodes.iter().map(|n| n.metadata.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["control-1", "gpu-1", "gpu-2", "gpu-3", "gpu-4"]);
    for deployment in rig.deployments().list(&ListParams::default()).await.unwrap() {
        let status = deployment.status.unwrap();
        assert_eq!(status.ready_replicas, deployment.spec.unwrap().replicas);
    }
    let on_one = rig.pods().list(&ListParams::default().fields("spec.nodeName=gpu-1")).await.unwrap();
    assert!(on_one.iter().all(|pod| node_of(pod) == "gpu-1") && !on_one.items.is_empty());
    assert!(rig.fleet.effects().is_empty(), "building the fleet is nobody's effect");
}

#[tokio::test]
async fn a_patch_with_an_old_version_is_a_conflict_and_changes_nothing() {
    let rig = Rig::new();
    let seen = rig.nodes().get("gpu-1").await.unwrap().metadata.resource_version.unwrap();
    let patch = |version: &str, on: bool| json!({"metadata": {"resourceVersion": version, "annotations": {"a": "b"}}, "spec": {"unschedulable": on}});
    let params = PatchParams { field_manager: Some("nightshift/test".to_owned()), ..PatchParams::default() };
    let node = rig.nodes().patch("gpu-1", &params, &Patch::Merge(patch(&seen, true))).await.unwrap();
    assert_eq!(node.spec.unwrap().unschedulable, Some(true));

    let status = refusal(rig.nodes().patch("gpu-1", &params, &Patch::Merge(patch(&seen, false))).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert!(
        status.message.starts_with("Operation cannot be fulfilled on nodes \"gpu-1\": the object has been modified")
    );

    // The same wish again, without a version: accepted, and known to be no change.
    let again = json!({"spec": {"unschedulable": true}});
    rig.nodes().patch("gpu-1", &params, &Patch::Merge(again)).await.unwrap();
    let effects = rig.fleet.effects();
    assert_eq!(effects.iter().map(|e| e.changed).collect::<Vec<_>>(), [true, false]);
    assert_eq!((effects[0].verb.as_str(), effects[0].by.as_str()), ("patch", "nightshift/test"));
    assert_eq!(effects[0].change["spec"]["unschedulable"], true);
    let taints = rig.nodes().get("gpu-1").await.unwrap().spec.unwrap().taints.unwrap();
    assert_eq!(taints[0].key, "node.kubernetes.io/unschedulable");
}

#[tokio::test]
async fn an_eviction_is_refused_by_the_budget_and_allowed_once_a_replacement_is_ready() {
    let rig = Rig::new();
    let pods = rig.pods_of("llama-70b").await;
    let evict = |pod: &Pod| {
        let (api, name) = (rig.pods(), name(pod).to_owned());
        async move { api.evict(&name, &EvictParams::default()).await }
    };
    evict(&pods[0]).await.unwrap();
    let status = refusal(evict(&pods[1]).await);
    assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
    assert_eq!(status.message, "Cannot evict pod as it would violate the pod's disruption budget.");
    let cause = &status.details.unwrap().causes[0];
    assert_eq!(cause.message, "The disruption budget llama-70b needs 1 healthy pods and has 1 currently");

    let budgets: Api<PodDisruptionBudget> = Api::namespaced(rig.kube.clone(), "inference");
    assert_eq!(budgets.get("llama-70b").await.unwrap().status.unwrap().disruptions_allowed, 0);
    rig.wait(5);
    assert_eq!(budgets.get("llama-70b").await.unwrap().status.unwrap().disruptions_allowed, 1);
    evict(&pods[1]).await.unwrap();
    rig.wait(5);
    let now = rig.pods_of("llama-70b").await;
    assert!(now.len() == 2 && now.iter().all(is_ready));
    assert!(now.iter().all(|pod| pods.iter().all(|old| uid(old) != uid(pod))));
    assert_eq!(rig.fleet.changes().len(), 2, "the refused eviction is no effect");
    assert_eq!(refusal(evict(&pods[0]).await).code, 404);
}

#[tokio::test]
async fn two_budgets_over_one_pod_are_a_misconfiguration() {
    let rig = Rig::new();
    let second = json!({"metadata": {"name": "second"}, "spec": {"minAvailable": 0, "selector": {"matchLabels": {"app": "qwen-32b"}}}});
    assert_eq!(rig.post("/apis/policy/v1/namespaces/inference/poddisruptionbudgets", second).await, 201);
    let pods = rig.pods_of("qwen-32b").await;
    let status = refusal(rig.pods().evict(name(&pods[0]), &EvictParams::default()).await);
    assert_eq!(status.code, 500);
    assert!(status.message.starts_with("This pod has more than one PodDisruptionBudget"));
}

#[tokio::test]
async fn a_delete_with_another_uid_is_a_conflict() {
    let rig = Rig::new();
    let pods = rig.pods_of("mistral-7b").await;
    let with = |uid: &str| DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    assert_eq!(refusal(rig.pods().delete(name(&pods[0]), &with("another")).await).code, 409);
    assert!(rig.fleet.effects().is_empty());
    rig.pods().delete(name(&pods[0]), &with(&uid(&pods[0]))).await.unwrap();
    assert!(rig.pods().get(name(&pods[0])).await.unwrap().metadata.deletion_timestamp.is_some());
    rig.wait(2);
    assert_eq!(refusal(rig.pods().get(name(&pods[0])).await).code, 404);
}

#[tokio::test]
async fn a_lost_reply_is_an_error_here_and_an_effect_there() {
    let rig = Rig::new();
    let patch = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    let cordon = || async { rig.nodes().patch("gpu-2", &PatchParams::default(), &patch).await };

    rig.fleet.fault(ApiFault::next(1, "PATCH", "^/api/v1/nodes/gpu-2", RequestFault::Cut)).unwrap();
    assert!(!matches!(cordon().await, Err(kube::Error::Api(_)) | Ok(_)));
    assert!(rig.fleet.effects().is_empty());

    rig.fleet.fault(ApiFault::next(1, "PATCH", "^/api/v1/nodes/gpu-2", RequestFault::LoseReply)).unwrap();
    assert!(!matches!(cordon().await, Err(kube::Error::Api(_)) | Ok(_)));
    let effects = rig.fleet.effects();
    assert!(effects.len() == 1 && effects[0].changed && effects[0].reply_lost);

    cordon().await.unwrap();
    assert_eq!(rig.fleet.changes().len(), 1, "the second wish found it done");
    let codes: Vec<u16> = rig.fleet.requests().iter().map(|asked| asked.code).collect();
    assert_eq!(codes, [0, 200, 200]);
}

#[tokio::test]
async fn the_api_can_refuse_garble_and_answer_from_the_past() {
    let rig = Rig::new();
    let unavailable = RequestFault::Status { code: 503, retry_after: Some(7) };
    rig.fleet.fault(ApiFault::next(1, "GET", "/nodes/gpu-1", unavailable)).unwrap();
    let answer = reqwest::get(format!("{}/api/v1/nodes/gpu-1", rig.fleet.url())).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "7"));
    rig.fleet.fault(ApiFault::next(1, "GET", "/nodes/gpu-1", RequestFault::Garbage)).unwrap();
    assert!(rig.nodes().get("gpu-1").await.is_err());

    let label = Patch::Merge(json!({"metadata": {"labels": {"state": "new"}}}));
    rig.nodes().patch("gpu-1", &PatchParams::default(), &label).await.unwrap();
    rig.fleet.fault(ApiFault::next(2, "GET", "/nodes", RequestFault::Stale { versions: 1 })).unwrap();
    let has_label = |node: &Node| node.metadata.labels.as_ref().unwrap().contains_key("state");
    assert!(!has_label(&rig.nodes().get("gpu-1").await.unwrap()));
    let listed = rig.nodes().list(&ListParams::default()).await.unwrap();
    assert!(!listed.iter().any(has_label));
    assert!(has_label(&rig.nodes().get("gpu-1").await.unwrap()));

    rig.fleet.fault(SimFault::Deny { verb: "patch".to_owned(), resource: "nodes".to_owned() }).unwrap();
    let status = refusal(rig.nodes().patch("gpu-1", &PatchParams::default(), &label).await);
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
}

#[tokio::test]
async fn a_rolling_restart_completes_and_never_drops_below_its_limit() {
    let rig = Rig::new();
    let before = rig.pods_of("mistral-7b").await;
    rig.deployments().restart("mistral-7b").await.unwrap();
    let mut least = usize::MAX;
    for _ in 0..40 {
        least = least.min(rig.pods_of("mistral-7b").await.iter().filter(|pod| is_ready(pod)).count());
        rig.wait(1);
    }
    assert!(least >= 3, "maxUnavailable 25 % of 4 is one; {least} were ready");
    let deployment = rig.deployments().get("mistral-7b").await.unwrap();
    let status = deployment.status.unwrap();
    assert_eq!(status.observed_generation, deployment.metadata.generation);
    assert_eq!((status.updated_replicas, status.ready_replicas, status.replicas), (Some(4), Some(4), Some(4)));
    let after = rig.pods_of("mistral-7b").await;
    assert!(after.iter().all(|pod| before.iter().all(|old| name(old) != name(pod))));
    assert_eq!(rig.fleet.changes().len(), 1, "the controller's own deletions are not effects");
}

#[tokio::test]
async fn scaling_goes_through_the_subresource_and_waits_for_room() {
    let rig = Rig::new();
    let api = rig.deployments();
    let to = async |n: u32| {
        let patch = Patch::Merge(json!({"spec": {"replicas": n}}));
        api.patch_scale("llama-70b", &PatchParams::default(), &patch).await.unwrap();
    };
    assert_eq!(api.get_scale("llama-70b").await.unwrap().spec.unwrap().replicas, Some(2));
    to(8).await;
    rig.wait(10);
    let pods = rig.pods_of("llama-70b").await;
    let waiting = pods.iter().filter(|pod| node_of(pod).is_empty()).count();
    assert!(pods.len() == 8 && waiting > 0, "32 GPUs cannot seat eight replicas of four beside the others");
    to(1).await;
    rig.wait(10);
    let left = rig.pods_of("llama-70b").await;
    assert!(left.len() == 1 && is_ready(&left[0]));
}

#[tokio::test]
async fn a_stateful_set_keeps_its_names() {
    let rig = Rig::with(|options| {
        let workload = SimWorkload::deployment("router", "acme/router", 2, 1);
        options.workloads.push(SimWorkload { kind: WorkloadKind::StatefulSet, ..workload });
    });
    let old = rig.pods().get("router-1").await.unwrap();
    rig.pods().delete("router-1", &DeleteParams::default()).await.unwrap();
    rig.wait(10);
    let new = rig.pods().get("router-1").await.unwrap();
    assert!(is_ready(&new) && uid(&new) != uid(&old));
    let sets: Api<k8s_openapi::api::apps::v1::StatefulSet> = Api::namespaced(rig.kube.clone(), "inference");
    sets.restart("router").await.unwrap();
    for _ in 0..20 {
        rig.wait(1);
    }
    let status = sets.get("router").await.unwrap().status.unwrap();
    assert_eq!((status.updated_replicas, status.ready_replicas), (Some(2), Some(2)));
}

#[tokio::test]
async fn a_sick_gpu_leaves_the_pool_until_its_drained_node_heals() {
    let rig = Rig::with(|options| options.self_heal = Some(Duration::from_secs(5)));
    rig.fleet.fault(SimFault::Xid { node: "gpu-1".to_owned(), gpu: 3, code: 79 }).unwrap();
    let allocatable = || {
        let node = rig.fleet.node("gpu-1").unwrap();
        node["status"]["allocatable"]["nvidia.com/gpu"].as_str().unwrap().to_owned()
    };
    assert_eq!(allocatable(), "7");
    let page = rig.get("/metrics").await;
    let xid = page.lines().find(|line| line.starts_with("DCGM_EXP_XID_ERRORS_COUNT{")).unwrap();
    assert!(xid.contains("Hostname=\"gpu-1\"") && xid.contains("gpu=\"3\"") && xid.contains("xid=\"79\""), "{xid}");

    rig.wait(60);
    assert_eq!(allocatable(), "7", "it does not heal under load");
    let boot = rig.fleet.node("gpu-1").unwrap()["status"]["nodeInfo"]["bootID"].clone();
    let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    rig.nodes().patch("gpu-1", &PatchParams::default(), &cordon).await.unwrap();
    for (namespace, name) in rig.fleet.pods_on("gpu-1") {
        let api: Api<Pod> = Api::namespaced(rig.kube.clone(), &namespace);
        api.evict(&name, &EvictParams::default()).await.unwrap();
    }
    rig.wait(3);
    assert_eq!(allocatable(), "7");
    rig.wait(10);
    assert_eq!(allocatable(), "8");
    assert_ne!(rig.fleet.node("gpu-1").unwrap()["status"]["nodeInfo"]["bootID"], boot);
    assert!(!rig.get("/metrics").await.contains("DCGM_EXP_XID_ERRORS_COUNT{"));
}

#[tokio::test]
async fn pods_on_a_silent_node_stay_until_it_speaks_again() {
    let rig = Rig::new();
    rig.fleet.fault(SimFault::NodeNotReady { node: "gpu-1".to_owned() }).unwrap();
    let (namespace, pod) = rig.fleet.pods_on("gpu-1").into_iter().find(|(ns, _)| ns == "inference").unwrap();
    assert!(!is_ready(&rig.pods().get(&pod).await.unwrap()));
    rig.pods().delete(&pod, &DeleteParams::default()).await.unwrap();
    rig.wait(120);
    assert!(rig.fleet.pod(&namespace, &pod).is_some(), "nobody confirmed the end");
    assert_eq!(rig.post("/sim/repair", json!({"node": "gpu-1"})).await, 200);
    rig.wait(5);
    assert!(rig.fleet.pod(&namespace, &pod).is_none());
    let conditions = rig.nodes().get("gpu-1").await.unwrap().status.unwrap().conditions.unwrap();
    assert!(conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
}

#[tokio::test]
async fn a_stalled_deployment_counts_no_tokens_until_it_is_restarted() {
    let rig = Rig::new();
    let read = async |metric: &str| -> f64 {
        let query = format!("max({metric}{{deployment=\"qwen-32b\"}})");
        let answer = reqwest::Client::new()
            .get(format!("{}/api/v1/query", rig.fleet.url()))
            .query(&[("query", query)])
            .send()
            .await
            .unwrap();
        let answer: Value = answer.json().await.unwrap();
        answer["data"]["result"][0]["value"][1].as_str().unwrap().parse().unwrap()
    };
    rig.wait(60);
    let fault = json!({"fault": "stalled", "namespace": "inference", "deployment": "qwen-32b"});
    assert_eq!(rig.post("/sim/fault", fault).await, 200);
    let tokens = read("vllm:iteration_tokens_total_count").await;
    rig.wait(60);
    assert_eq!(read("vllm:iteration_tokens_total_count").await, tokens);
    assert!(tokens > 0.0 && read("vllm:num_requests_waiting").await > 100.0);
    rig.deployments().restart("qwen-32b").await.unwrap();
    for _ in 0..30 {
        rig.wait(1);
    }
    assert!(read("vllm:num_requests_waiting").await < 10.0);
}

#[tokio::test]
async fn prometheus_answers_what_was_set_and_refuses_what_it_does_not_know() {
    let rig = Rig::new();
    let expression = "sum by (node) (rate(errors_total[5m])) > 0";
    rig.fleet.set_prometheus(expression, vec![SimSample::value(0.25)]);
    let query = async |text: &str| -> (u16, Value) {
        let url = format!("{}/api/v1/query", rig.fleet.url());
        let answer = reqwest::Client::new().get(url).query(&[("query", text)]).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    };
    let (code, answer) = query("sum by (node)(rate(errors_total[5m]))>0").await;
    assert_eq!((code, &answer["data"]["result"][0]["value"][1]), (200, &json!("0.25")));
    let (code, answer) = query("no_such_metric{a=\"b\"}").await;
    assert_eq!((code, &answer["data"]["result"]), (200, &json!([])));
    let (code, answer) = query("histogram_quantile(0.9, x)").await;
    assert_eq!((code, &answer["errorType"]), (400, &json!("bad_data")));

    let client: prometheus_http_query::Client = rig.fleet.url().parse().unwrap();
    let answer = client.query("count(DCGM_FI_DEV_GPU_TEMP{Hostname=~\"gpu-[12]\"})").get().await.unwrap();
    assert_eq!(answer.data().as_vector().unwrap()[0].sample().value(), 16.0);
}

#[tokio::test]
async fn the_metrics_page_is_well_formed_and_names_each_family_once() {
    let rig = Rig::new();
    let page = rig.get("/metrics").await;
    let mut seen = std::collections::BTreeSet::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            current = rest.split(' ').next().unwrap().to_owned();
            assert!(seen.insert(current.clone()), "{current} has two headers");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let metric = series.split('{').next().unwrap();
            assert!(metric.starts_with(&current), "{metric} stands under {current}");
            value.parse::<f64>().unwrap();
        }
    }
    for family in ["DCGM_FI_DEV_GPU_TEMP", "kube_node_status_condition", "vllm:iteration_tokens_total"] {
        assert!(seen.contains(family), "{family} is missing");
    }
}

#[tokio::test]
async fn a_thousand_nodes_are_built_and_listed_quickly() {
    let start = Instant::now();
    let rig = Rig::with(|options| {
        let large = SimOptions::large(1_000);
        (options.nodes, options.workloads) = (large.nodes, large.workloads);
    });
    let nodes = rig.nodes().list(&ListParams::default().limit(400)).await.unwrap();
    assert_eq!((nodes.items.len(), nodes.metadata.remaining_item_count), (400, Some(601)));
    let next = ListParams::default().limit(800).continue_token(&nodes.metadata.continue_.unwrap());
    assert_eq!(rig.nodes().list(&next).await.unwrap().items.len(), 601);
    let pods = rig.pods().list(&ListParams::default()).await.unwrap();
    assert_eq!(pods.items.len(), 4_000);
    assert!(pods.iter().all(is_ready));
    // Generous, since the machine is shared: an algorithm that is quadratic in pods would take minutes.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_the_real_api_refuses_is_refused_here() {
    let rig = Rig::new();
    let patch = |body: Value| {
        let api = rig.nodes();
        async move { refusal(api.patch("gpu-1", &PatchParams::default(), &Patch::Merge(body)).await) }
    };
    let taint = patch(json!({"spec": {"taints": [{"key": "x", "effect": "Never"}]}})).await;
    assert_eq!((taint.code, taint.reason.as_str()), (422, "Invalid"));
    assert_eq!(patch(json!({"metadata": {"labels": {"x": "not a label!"}}})).await.code, 422);
    assert_eq!(refusal(rig.nodes().get("gpu-9").await).code, 404);
    assert_eq!(rig.post("/sim/fault", json!({"fault": "xid", "node": "gpu-9", "gpu": 0, "code": 79})).await, 400);
    assert_eq!(rig.post("/sim/fault", json!({"fault": "hot", "node": "gpu-1", "gpu": 8})).await, 400);
    assert!(rig.fleet.effects().is_empty());
}
