//! Which pods a node could take that wait for slices: as this program says it, and as a real scheduler then places them.
//!
//! Invariant: the two agree on every pod of the table, in both directions.

use super::*;
use nightshift::world::mig_node;
use std::collections::BTreeSet;

const SLICE: &str = "nvidia.com/mig-1g.10gb";

fn rule(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({ "key": key, "operator": operator, "values": values })
}

fn terms(terms: &[Value]) -> Value {
    let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } });
    json!({ "affinity": { "nodeAffinity": required } })
}

fn labels(rules: &[Value]) -> Value {
    terms(&[json!({ "matchExpressions": rules })])
}

/// What pods ask of their node, by name.
fn table(node: &str) -> Vec<(&'static str, Value)> {
    let named =
        |operator: &str, name: &str| terms(&[json!({ "matchFields": [rule("metadata.name", operator, &[name])] })]);
    vec![
        ("plain", json!({})),
        ("selector", json!({ "nodeSelector": { "pool": "h100" } })),
        ("selector-of-another", json!({ "nodeSelector": { "pool": "a100" } })),
        ("in", labels(&[rule("pool", "In", &["a100", "h100"])])),
        ("not-in", labels(&[rule("pool", "NotIn", &["h100"])])),
        ("not-in-absent", labels(&[rule("rack", "NotIn", &["h100"])])),
        ("exists", labels(&[rule("pool", "Exists", &[])])),
        ("does-not-exist", labels(&[rule("pool", "DoesNotExist", &[])])),
        ("more", labels(&[rule("gpus", "Gt", &["4"])])),
        ("not-more", labels(&[rule("gpus", "Gt", &["8"])])),
        ("less", labels(&[rule("gpus", "Lt", &["9"])])),
        ("less-than-no-number", labels(&[rule("pool", "Lt", &["9"])])),
        ("both", labels(&[rule("pool", "Exists", &[]), rule("gpus", "Lt", &["8"])])),
        (
            "either",
            terms(&[
                json!({ "matchExpressions": [rule("pool", "In", &["a100"])] }),
                json!({ "matchExpressions": [rule("gpus", "Exists", &[])] }),
            ]),
        ),
        ("by-name", named("In", node)),
        ("by-another-name", named("In", "nowhere")),
        ("not-by-name", named("NotIn", node)),
    ]
}

/// How a pod stands to the taint of the node, by name.
fn tolerations() -> Vec<(&'static str, Value)> {
    vec![
        ("of-all", json!([{ "operator": "Exists" }])),
        ("of-the-key", json!([{ "key": "example.com/gpu", "operator": "Exists" }])),
        (
            "of-the-value",
            json!([{ "key": "example.com/gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule" }]),
        ),
        ("of-another-value", json!([{ "key": "example.com/gpu", "value": "no", "effect": "NoSchedule" }])),
        ("of-another-effect", json!([{ "key": "example.com/gpu", "operator": "Exists", "effect": "NoExecute" }])),
        ("none", json!([])),
    ]
}

#[tokio::test]
async fn a_real_scheduler_places_just_those_pods_that_were_said_to_fit() {
    let stage = Stage::with(vec![]).await;
    stage.admin.namespace(&stage.id).await;
    let node = stage.node(1);
    let path = format!("/api/v1/nodes/{node}");
    let taint = json!([{ "key": "example.com/gpu", "value": "yes", "effect": "NoSchedule" }]);
    let change = json!({ "metadata": { "labels": { "pool": "h100", "gpus": "8" } }, "spec": { "taints": taint } });
    stage.admin.patch(&path, &change).await;
    let all = json!([{ "operator": "Exists" }]);
    let pod = |name: &str, mut spec: Value, tolerations: &Value| {
        spec["tolerations"] = tolerations.clone();
        let limits = json!({ SLICE: 1 });
        spec["containers"] =
            json!([{ "name": "server", "image": "x", "resources": { "limits": limits, "requests": limits } }]);
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": stage.id, "name": name }, "spec": spec })
    };
    let mut pods: Vec<Value> = table(&node).into_iter().map(|(name, spec)| pod(name, spec, &all)).collect();
    pods.extend(
        tolerations().iter().map(|(name, tolerations)| pod(&format!("tolerates-{name}"), json!({}), tolerations)),
    );
    for pod in &pods {
        stage.admin.apply(pod).await;
    }
    // No node offers slices yet, so all of them wait.
    let waiting = eventually("all wait", async || {
        let waiting = stage.kube().waiting_for_mig().await.ok()?;
        let ours: Vec<_> = waiting.into_iter().filter(|pod| pod.namespace == stage.id).collect();
        (ours.len() == pods.len()).then_some(ours)
    })
    .await;
    let seen = mig_node(&stage.kube().node(&node).await.unwrap(), &stage.world.identity);
    let fit: BTreeSet<String> =
        waiting.iter().filter(|pod| pod.seating.allows(&seen)).map(|pod| pod.name.clone()).collect();
    assert!(fit.contains("plain") && fit.len() < pods.len());

    let devices = json!({ SLICE: "100" });
    let status = json!({ "status": { "capacity": devices, "allocatable": devices } });
    stage.plane.kubelet().patch_status(&node, status).await;
    let placed = async || {
        let list = stage.admin.get(&format!("/api/v1/namespaces/{}/pods", stage.id)).await;
        let on_node = |pod: &&Value| pod["spec"]["nodeName"] == json!(node);
        let names = list["items"].as_array().unwrap().iter().filter(on_node);
        names.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    eventually("those that fit are placed", async || fit.is_subset(&placed().await).then_some(())).await;
    // One that comes last is placed after all others were looked at.
    stage.admin.apply(&pod("last", json!({}), &all)).await;
    eventually("the last one is placed", async || placed().await.contains("last").then_some(())).await;
    let mut expected = fit.clone();
    expected.insert("last".to_owned());
    assert_eq!(placed().await, expected);
}
