//! `mig::plan` and `mig::rebalance`: the routes, what each refuses, and the way back from a mig-manager's failures.
//!
//! Invariant: whatever went wrong, the label or the layout of before is what is there at the end.

use super::cases::{call, cordon};
use super::*;
use nightshift::model::{GpuName, MigCompute, MigGpu, MigInstance, MigProfile};
use nightshift::policy::profiles_of_product;
use nightshift::world::sim::MigBehaviour;
use serde_json::json;

fn profiles() -> Vec<MigProfile> {
    profiles_of_product("NVIDIA-H100-80GB-HBM3").unwrap()
}

/// An H100 with an instance in the middle of its upper half; `pod` has it.
fn gpu(uuid: &str, instances: &[(&str, u32, &str)]) -> MigGpu {
    let instance = |(at, (profile, start, pod)): (usize, &(&str, u32, &str))| MigInstance {
        profile: (*profile).to_owned(),
        start: *start,
        width: profiles().iter().find(|known| known.name == *profile).unwrap().width,
        id: u32::try_from(at).unwrap() + 7,
        compute: vec![MigCompute {
            id: 0,
            uuid: format!("MIG-{uuid}-{start}"),
            processes: vec![],
            pod: Some((*pod).to_owned()).filter(|pod| !pod.is_empty()),
        }],
    };
    MigGpu {
        gpu: GpuName { index: Some(0), uuid: uuid.to_owned(), pci: String::new() },
        product: "NVIDIA H100 80GB HBM3".to_owned(),
        enabled: true,
        pending: false,
        profiles: profiles(),
        instances: instances.iter().enumerate().map(instance).collect(),
        ill: None,
    }
}

pub(super) fn inventory() -> Value {
    json!({ "gpus": [gpu("GPU-a", &[("3g.40gb", 0, "")])], "pods": "read" })
}

fn rebalance(args: &[(&'static str, Value)]) -> ActionCall {
    let mut all = vec![("node", json!("gpu-1"))];
    all.extend(args.iter().cloned());
    call("mig::rebalance", &all)
}

async fn with_manager(behaviour: MigBehaviour) -> Stage {
    let stage = Stage::new().await;
    stage.fleet.fault(SimFault::MigManager { node: "gpu-1".to_owned(), behaviour }).unwrap();
    ok(stage.run(cordon("gpu-1")).await);
    ok(stage.run(call("k8s::drain", &[("node", json!("gpu-1"))])).await);
    stage
}

fn labels(stage: &Stage) -> Value {
    stage.fleet.node("gpu-1").unwrap()["metadata"]["labels"].clone()
}

#[tokio::test]
async fn the_label_becomes_a_layout_and_the_node_must_offer_what_was_asked_for() {
    let stage = with_manager(MigBehaviour::Works).await;
    let expect = ("expect", json!({ "nvidia.com/mig-1g.10gb": 56 }));
    let mut step = stage.begin(rebalance(&[("config", json!("all-1g.10gb")), expect])).await;
    let (outcome, waits) = stage.finish(&mut step).await;
    let value = ok(outcome);
    assert_eq!((&value["changed"], &value["before"]), (&json!(true), &json!("all-disabled")));
    // The `success` of before was not taken for an answer.
    assert!(waits.iter().any(|why| why.contains("`pending`")), "{waits:?}");
    assert_eq!(labels(&stage)["nvidia.com/mig.config"], "all-1g.10gb");

    // What the node does not come to offer is a failure in the end, and the old label comes back.
    let short = ("expect", json!({ "nvidia.com/mig-3g.40gb": 99 }));
    let call = rebalance(&[("config", json!("all-3g.40gb")), short, ("within", json!("5m"))]);
    refused(stage.run(call).await, FailureKind::Conflict, "nvidia.com/mig-3g.40gb is 16, not 99");
    assert_eq!(labels(&stage)["nvidia.com/mig.config"], "all-1g.10gb");
    assert_eq!(stage.kube().devices("gpu-1").await.unwrap()["nvidia.com/mig-1g.10gb"], 56);
}

#[tokio::test]
async fn a_mig_manager_that_fails_or_wedges_gets_its_old_label_back_and_nobody_stays_paused() {
    for (behaviour, words) in [
        (MigBehaviour::FailsOnce, "reports `failed` for all-1g.10gb"),
        (MigBehaviour::WedgesOnce, "not done within 20m"),
    ] {
        let stage = with_manager(behaviour).await;
        let call = rebalance(&[("config", json!("all-1g.10gb"))]);
        let outcome = stage.run(call).await;
        refused(outcome.clone(), FailureKind::Conflict, words);
        refused(outcome, FailureKind::Conflict, "the label is `all-disabled` again, its state `success`");
        let labels = labels(&stage);
        assert_eq!(labels["nvidia.com/mig.config"], "all-disabled");
        let paused = labels.as_object().unwrap().values().filter(|value| **value == "paused-for-mig-change");
        assert_eq!(paused.count(), 0, "{labels}");
        assert!(stage.kube().node("gpu-1").await.unwrap().unschedulable, "giving the node back is the runbook's to do");
    }
    // A name that the configuration does not have.
    let stage = with_manager(MigBehaviour::Works).await;
    refused(stage.run(rebalance(&[("config", json!("all-9g.90gb"))])).await, FailureKind::Conflict, "`failed`");
}

#[tokio::test]
async fn the_label_is_not_touched_while_pods_hold_gpus_or_the_node_is_not_ours() {
    let stage = Stage::new().await;
    let config = rebalance(&[("config", json!("all-1g.10gb"))]);
    refused(stage.run(config.clone()).await, FailureKind::Refused, "no mig-manager manages it");
    let node = stage.fleet.fault(SimFault::MigManager { node: "gpu-1".to_owned(), behaviour: MigBehaviour::Works });
    node.unwrap();
    refused(stage.run(config.clone()).await, FailureKind::Conflict, "is not cordoned");
    ok(stage.run(cordon("gpu-1")).await);
    refused(stage.run(config.clone()).await, FailureKind::Refused, "drain the node first");
    refused(
        stage.run(rebalance(&[("demand", json!({ "1g.10gb": 1 }))])).await,
        FailureKind::Refused,
        "the two would fight",
    );
    refused(stage.run(rebalance(&[])).await, FailureKind::Invalid, "give one of");
    assert_eq!(labels(&stage)["nvidia.com/mig.config"], "all-disabled");
}

/// A node without a mig-manager, one movable pod of which has a slice in the way.
async fn direct(answer: impl Fn(&nightshift::model::AgentCommand) -> Outcome + Send + 'static) -> (Stage, String) {
    let stage = Stage::new().await;
    let name = stage.pod_of("mistral-7b");
    let (space, pod) = name.split_once('/').unwrap();
    let object = stage.fleet.pod(space, pod).unwrap();
    let node: &'static str = Box::leak(object["spec"]["nodeName"].as_str().unwrap().to_owned().into_boxed_str());
    let uid = object["metadata"]["uid"].as_str().unwrap().to_owned();
    stage.agent(node, move |command| match command.verb.as_str() {
        "mig::inventory" => Outcome::Ok(json!({
            "gpus": [gpu("GPU-a", &[("3g.40gb", 0, "gone"), ("1g.10gb", 5, &uid)]), gpu("GPU-b", &[("7g.80gb", 0, "gone")])],
            "pods": "read",
        })),
        _ => answer(command),
    });
    ok(stage.run(cordon(node)).await);
    (stage, node.to_owned())
}

#[tokio::test]
async fn without_a_mig_manager_the_pod_in_the_way_is_evicted_and_the_agent_changes_the_layout() {
    let (stage, node) = direct(|command| {
        assert_eq!(command.verb, "mig::apply");
        let change = &command.args["changes"][0];
        assert_eq!(change["gpu"], "GPU-a");
        assert_eq!(
            change["after"],
            json!([{ "profile": "3g.40gb", "start": 0 }, { "profile": "2g.20gb", "start": 4 },
            { "profile": "1g.10gb", "start": 6 }])
        );
        Outcome::Ok(json!({ "changed": true }))
    })
    .await;
    let wish = [("node", json!(node)), ("demand", json!({ "nvidia.com/mig-2g.20gb": 1 }))];
    let mut step = stage.begin(call("mig::rebalance", &wish)).await;
    let value = ok(stage.finish(&mut step).await.0);
    assert_eq!(value["route"], "direct");
    assert_eq!(value["moved"].as_array().unwrap().len(), 1);
    assert_eq!(stage.fleet.changes().iter().filter(|change| change.verb == "evict").count(), 1);
    // Taken back by the same action, the layouts the other way round.
    let undo = action("mig::rebalance").undo(&step).unwrap();
    assert_eq!(undo.args["layout"][0]["before"], value["diffs"][0]["after"]);
}

#[tokio::test]
async fn what_has_no_place_changes_nothing_and_an_agents_failure_is_passed_on() {
    let (stage, node) = direct(|_| {
        Outcome::Failed(nightshift::model::StepFailure::new(FailureKind::Conflict, "in use; the old layout is back"))
    })
    .await;
    let before = stage.fleet.changes().len();
    let wish = |profile: &str| {
        call("mig::rebalance", &[("node", json!(node)), ("demand", json!({ profile: 1 })), ("within", json!("10m"))])
    };
    refused(stage.run(wish("7g.80gb")).await, FailureKind::Refused, "the cluster does not show it");
    assert_eq!(stage.fleet.changes().len(), before);
    refused(stage.run(wish("2g.20gb")).await, FailureKind::Conflict, "the old layout is back");
    let plan = ok(stage.run(call("mig::plan", &[("node", json!(node)), ("demand", json!({ "7g.80gb": 1 }))])).await);
    assert_eq!(plan["cost"]["unserved"], 1);
    assert!(plan["refused"][0]["why"].as_str().unwrap().contains("GPU-b"), "{plan}");
}

/// What a person or a driver would write into the cluster.
async fn write(stage: &Stage, method: reqwest::Method, path: &str, body: Value) {
    let request = crate::harness::client().request(method.clone(), format!("{}{path}", stage.fleet.url()));
    let request = match method {
        reqwest::Method::PATCH => request.header("content-type", "application/merge-patch+json"),
        _ => request.header("content-type", "application/json"),
    };
    let answer = request.body(body.to_string()).send().await.unwrap();
    assert!(answer.status().is_success(), "{method} {path}: {}", answer.text().await.unwrap());
}

#[tokio::test]
async fn where_a_dra_driver_hands_out_the_gpus_both_routes_are_refused_with_the_reason() {
    let stage = with_manager(MigBehaviour::Works).await;
    let slice = |driver: &str, node: &str| json!({ "metadata": { "name": format!("{driver}-{node}") }, "spec": { "driver": driver, "nodeName": node } });
    let path = "/apis/resource.k8s.io/v1/resourceslices";
    // Of another node, and of another driver on this one.
    write(&stage, reqwest::Method::POST, path, slice("gpu.nvidia.com", "gpu-2")).await;
    write(&stage, reqwest::Method::POST, path, slice("nic.example.com", "gpu-1")).await;
    ok(stage.run(rebalance(&[("config", json!("all-1g.10gb"))])).await);
    let mark = stage.mark();
    write(&stage, reqwest::Method::POST, path, slice("gpu.nvidia.com", "gpu-1")).await;
    let mark = mark + 1;
    for way in [("config", json!("all-3g.40gb")), ("demand", json!({ "1g.10gb": 1 }))] {
        let refusal = stage.run(rebalance(&[way])).await;
        refused(refusal.clone(), FailureKind::Refused, "the DRA driver gpu.nvidia.com hands out the GPUs of gpu-1");
        refused(refusal, FailureKind::Refused, "evict the claim's pod");
    }
    assert_eq!(stage.since(mark), [""; 0]);
    assert_eq!(labels(&stage)["nvidia.com/mig.config"], "all-1g.10gb");
}

/// A node with pods of two workloads, each with a slice in the way on a GPU of its own.
async fn two_in_the_way() -> (Stage, String, [String; 2]) {
    let stage = Stage::new().await;
    let workload = |pod: &str| ["llama-70b", "mistral-7b", "qwen-32b"].into_iter().find(|name| pod.contains(name));
    let pair = |node: &str| {
        let pods = stage.fleet.pods_on(node).into_iter().map(|(space, name)| format!("{space}/{name}"));
        let mut pods: Vec<String> = pods.filter(|pod| workload(pod).is_some()).collect();
        pods.dedup_by_key(|pod| workload(pod));
        (pods.len() >= 2).then(|| [pods.remove(0), pods.remove(0)])
    };
    let (node, pods) = ["gpu-1", "gpu-2", "gpu-3", "gpu-4"]
        .into_iter()
        .find_map(|node| pair(node).map(|pods| (node, pods)))
        .expect("a node with pods of two workloads");
    let uids = pods.clone().map(|pod| {
        let (space, name) = pod.split_once('/').unwrap();
        stage.fleet.pod(space, name).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
    });
    stage.agent(node, move |_| {
        // Room for a 2g is only where the pod is, and for the pod only on the other GPU.
        let board =
            |name: &str, uid: &str| gpu(name, &[("1g.10gb", 1, uid), ("2g.20gb", 2, "gone"), ("3g.40gb", 4, "gone")]);
        Outcome::Ok(json!({ "gpus": [board("GPU-a", &uids[0]), board("GPU-b", &uids[1])], "pods": "read" }))
    });
    (stage, node.to_owned(), pods)
}

#[tokio::test]
async fn who_moves_is_who_costs_least_by_priority_and_never_whom_a_budget_protects() {
    let (stage, node, pods) = two_in_the_way().await;
    let plan = async || {
        let call = call("mig::plan", &[("node", json!(node)), ("demand", json!({ "2g.20gb": 1 }))]);
        ok(stage.run(call).await)
    };
    let moved = |plan: &Value| plan["moves"][0]["pod"].as_str().map(str::to_owned);
    let first = plan().await;
    let chosen = moved(&first).unwrap_or_else(|| panic!("{first}"));
    let other = pods.iter().find(|pod| **pod != chosen).unwrap().clone();
    // More important than the other: the other one moves instead, and its price is as before.
    let path = |pod: &str| {
        let (space, name) = pod.split_once('/').unwrap();
        format!("/api/v1/namespaces/{space}/pods/{name}")
    };
    write(&stage, reqwest::Method::PATCH, &path(&chosen), json!({ "spec": { "priority": 1_000_000 } })).await;
    let second = plan().await;
    assert_eq!(moved(&second), Some(other.clone()), "{second}");
    assert_eq!(second["cost"]["moving"], first["cost"]["moving"]);
    // A budget that lets none go outweighs every price.
    let protect = |pod: &str| {
        let (space, name) = pod.split_once('/').unwrap();
        let workload = name.rsplitn(3, '-').last().unwrap();
        format!("/apis/policy/v1/namespaces/{space}/poddisruptionbudgets/{workload}")
    };
    let all = json!({ "spec": { "minAvailable": 99 } });
    write(&stage, reqwest::Method::PATCH, &protect(&other), all.clone()).await;
    let third = plan().await;
    assert_eq!(moved(&third), Some(chosen.clone()), "{third}");
    assert!(third["cost"]["moving"].as_u64() > first["cost"]["moving"].as_u64(), "{third}");
    write(&stage, reqwest::Method::PATCH, &protect(&chosen), all).await;
    let fourth = plan().await;
    assert_eq!(fourth["cost"]["unserved"], 1, "{fourth}");
    assert!(fourth["refused"][0]["why"].as_str().unwrap().contains("its disruption budget lets none go"), "{fourth}");
}

#[tokio::test]
async fn what_pods_wait_for_is_a_demand_as_far_as_this_node_could_serve_it() {
    let (stage, node, _) = two_in_the_way().await;
    let plan = async || {
        let call = call("mig::plan", &[("node", json!(node)), ("demand", json!("pending"))]);
        ok(stage.run(call).await)
    };
    let nothing = plan().await;
    assert_eq!((&nothing["steps"], &nothing["cost"]["unserved"]), (&json!([]), &json!(0)));
    // Nobody lands there meanwhile: the cordon is ours, and is lifted when the room is made.
    ok(stage.run(cordon(&node)).await);
    let pod = |name: &str, resource: &str, pool: Option<&str>| {
        let selector = pool.map(|pool| json!({ "pool": pool })).unwrap_or(json!({}));
        let limits = json!({ resource: "1" });
        let on = if name == "of-another-node" { "gpu-9" } else { node.as_str() };
        let only = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [on] }] }],
        } } });
        json!({ "metadata": { "name": name }, "status": { "phase": "Pending" }, "spec": {
            "affinity": only, "nodeSelector": selector,
            "containers": [{ "name": "server", "resources": { "limits": limits } }],
        } })
    };
    for (name, resource, pool) in [
        ("waits", "nvidia.com/mig-2g.20gb", None),
        ("of-another-pool", "nvidia.com/mig-2g.20gb", Some("a100")),
        ("of-another-node", "nvidia.com/mig-2g.20gb", None),
        ("of-another-kind", "nvidia.com/mig-2g.10gb", None),
        ("whole", "nvidia.com/gpu", None),
    ] {
        let path = "/api/v1/namespaces/research/pods";
        write(&stage, reqwest::Method::POST, path, pod(name, resource, pool)).await;
    }
    let planned = plan().await;
    let served: Vec<&Value> =
        planned["diffs"].as_array().unwrap().iter().flat_map(|diff| diff["serves"].as_array().unwrap()).collect();
    // The pod that moves has its new place among them.
    assert_eq!(served.iter().filter(|place| place["profile"] == "2g.20gb").count(), 1, "{planned}");
    assert_eq!(planned["moves"].as_array().unwrap().len(), 1);

    // A taint that they do not tolerate, or a cordon of another user's, and nobody waits for this node.
    let taint = call(
        "k8s::taint",
        &[("node", json!(node)), ("key", json!("example.com/ill")), ("effect", json!("NoSchedule"))],
    );
    ok(stage.run(taint).await);
    assert_eq!(plan().await["diffs"], json!([]));
}
