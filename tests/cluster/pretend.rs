//! The stage itself: what real controllers make of kubelets that only pretend.
//!
//! Invariant: if a test here fails, the harness is wrong, and no other test says anything.

use crate::harness::eventually;
use crate::plane::{ControlPlane, NodeSpec, Options, shared};
use crate::rig::deployment;
use serde_json::{Value, json};

#[tokio::test]
async fn a_deployment_runs_moves_off_a_node_and_its_budget_is_kept() {
    let plane = shared().await;
    let admin = plane.admin().await;
    admin.namespace("pretend").await;
    plane.kubelet().add(["pretend-1", "pretend-2"].map(|name| NodeSpec::gpu(name, 4).label("pool", "pretend"))).await;
    admin.apply(&deployment("pretend", "llm", 4, 1, "pretend")).await;
    let path = "/apis/apps/v1/namespaces/pretend/deployments/llm";
    let ready = async || {
        let status = admin.get(path).await["status"].clone();
        (status["readyReplicas"] == 4).then_some(())
    };
    eventually("four replicas", ready).await;

    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": { "namespace": "pretend", "name": "llm" },
        "spec": { "minAvailable": 4, "selector": { "matchLabels": { "app": "llm" } } },
    });
    admin.apply(&budget).await;
    let budget = "/apis/policy/v1/namespaces/pretend/poddisruptionbudgets/llm";
    eventually("the budget is counted", async || {
        (admin.get(budget).await["status"]["currentHealthy"] == 4).then_some(())
    })
    .await;
    let pods = admin.get("/api/v1/namespaces/pretend/pods").await;
    let pod = pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod } });
    let path = format!("/api/v1/namespaces/pretend/pods/{pod}/eviction");
    let (status, said) = admin.ask(http::Method::POST, &path, Some(&eviction)).await.unwrap();
    assert_eq!(status, 429, "{said}");
    admin.patch(budget, &json!({ "spec": { "minAvailable": 3 } })).await;
    eventually("the eviction is allowed", async || {
        let (status, _) = admin.ask(http::Method::POST, &path, Some(&eviction)).await.unwrap();
        (status == 201).then_some(())
    })
    .await;
    eventually("the pod is gone", async || {
        admin.find(&format!("/api/v1/namespaces/pretend/pods/{pod}")).await.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_daemon_set_and_a_job_run_and_a_pod_hangs_on_demand() {
    let plane = shared().await;
    let admin = plane.admin().await;
    admin.namespace("demand").await;
    plane.kubelet().add([NodeSpec::gpu("demand-1", 2).label("pool", "demand")]).await;
    let template = |annotations: Value, policy: &str| {
        json!({
            "metadata": { "labels": { "app": "x" }, "annotations": annotations },
            "spec": {
                "nodeSelector": { "pool": "demand" }, "restartPolicy": policy,
                "containers": [{ "name": "x", "image": "example/x" }],
            },
        })
    };
    let selector = json!({ "matchLabels": { "app": "x" } });
    admin
        .apply(&json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "namespace": "demand", "name": "exporter" },
            "spec": { "selector": selector, "template": template(json!({ "kubelet/hang": "yes" }), "Always") },
        }))
        .await;
    admin
        .apply(&json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": { "namespace": "demand", "name": "warm" },
            "spec": { "template": template(json!({ "kubelet/exit": "0" }), "Never") },
        }))
        .await;
    eventually("the job is done", async || {
        (admin.get("/apis/batch/v1/namespaces/demand/jobs/warm").await["status"]["succeeded"] == 1).then_some(())
    })
    .await;
    let daemon = eventually("the DaemonSet's pod runs", async || {
        let pods = admin.get("/api/v1/namespaces/demand/pods?fieldSelector=status.phase=Running").await;
        pods["items"][0]["metadata"]["name"].as_str().map(str::to_owned)
    })
    .await;
    let path = format!("/api/v1/namespaces/demand/pods/{daemon}");
    admin.delete(&path).await;
    let state = admin.get(&path).await;
    assert!(state["metadata"]["deletionTimestamp"].is_string(), "it hangs: {state}");
    plane.kubelet().crash("demand", &daemon, "CrashLoopBackOff").await;
    let waiting = admin.get(&path).await["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    assert_eq!(waiting, "CrashLoopBackOff");
}

#[tokio::test]
async fn a_second_plane_stands_beside_the_first_and_comes_back_after_its_api_server_died() {
    let first = shared().await;
    let plane =
        ControlPlane::start(Options { node_grace: std::time::Duration::from_secs(4), ..Options::default() }).await;
    assert_ne!(plane.url(), first.url());
    plane.kubelet().add([NodeSpec::gpu("lonely", 8)]).await;
    let admin = plane.admin().await;
    assert!(first.admin().await.find("/api/v1/nodes/lonely").await.is_none());
    plane.stop_api();
    assert!(admin.ask(http::Method::GET, "/readyz", None).await.is_err());
    plane.start_api().await;
    plane.kubelet().treat("lonely", |manners| manners.silent = true).await;
    eventually("the node controller gives up a silent kubelet", async || {
        let conditions = admin.get("/api/v1/nodes/lonely").await["status"]["conditions"].as_array().unwrap().clone();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "Unknown").then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_service_account_asks_is_in_the_audit_log_and_rights_hold() {
    let plane = shared().await;
    let admin = plane.admin().await;
    admin.namespace("rights").await;
    let token = admin.token("rights", "reader", 3_600).await;
    admin.grant("rights", "reader", &[("", "nodes", "list")]).await;
    let kube = nightshift::world::KubeClient::connect(&plane.reach(&token), "nightshift/rights").await.unwrap();
    eventually("the right is known", async || kube.nodes().await.ok()).await;
    let refused = kube.node("nothing").await.unwrap_err().to_string();
    assert!(refused.contains("get"), "{refused}");
    let asked = plane.audit().of_agent("nightshift/rights");
    let last = asked.last().unwrap();
    assert_eq!((last.verb.as_str(), last.resource.as_str(), last.code), ("get", "nodes", 403));
    assert_eq!(last.user, "system:serviceaccount:rights:reader");
}
