//! The admission policies of the chart: with the account that acts, each action does its work, and a patch that no action
//! sends is refused by the API server itself.
//!
//! Invariant: the hostile requests are sent with the very token that the engine has, past the engine and its guards.

use super::{NAMESPACE, Release, deployment, render, run, running};
use crate::harness::{Engine, Site, eventually};
use crate::plane::{Admin, NodeSpec};
use http::Method;
use nightshift::world::sim::{SimFleet, SimOptions};
use nightshift::world::{CacheJob, KubeConfig};
use serde_json::{Value, json};

const JOBS: &str = "warmers";
const SETS: [&str; 2] = ["--set", "cacheJob.enabled=true,cacheJob.hostPath=/models,cacheJob.namespace=warmers"];
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/llm/deployments/served";
const STATEFUL_SET: &str = "/apis/apps/v1/namespaces/llm/statefulsets/kept";

/// Each action that changes a workload, a pod or a Job.
const WORKLOADS: &str = "//! Every change of workloads.\n//!\n//! params:\n//!   pod: Pod\n//!   other: Pod\n//!   node: Node\n\
    //! scope: node\n//! undo: never\n\n\
    k8s::scale(\"llm/kept\", 2);\nk8s::rollout_restart(\"llm/kept\", #{ within: \"2m\" });\n\
    k8s::evict(pod);\nk8s::delete_pod(other);\nk8s::scale(\"llm/served\", 4);\n\
    k8s::rollout_restart(\"llm/served\", #{ within: \"2m\" });\n\
    cache::warm(\"/models/llama\", node, #{ via: \"job\" });\n";

/// Each action that changes a node.
const NODES: &str = "//! Every change of a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: never\n\n\
    k8s::cordon(node, \"a test\");\nk8s::taint(node, \"nightshift.dev/faulty\", \"x\", \"NoSchedule\");\n\
    k8s::label(node, \"nightshift.dev/quarantine\", \"yes\");\nk8s::annotate(node, \"nightshift.dev/note\", \"x\");\n\
    k8s::untaint(node, \"nightshift.dev/faulty\");\nk8s::uncordon(node);\n";

/// One that a policy refuses.
const EXPEL: &str = "//! A taint that throws pods out.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: never\n\n\
    k8s::taint(node, \"nightshift.dev/faulty\", \"x\", \"NoExecute\");\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_token_of_the_engine_can_send_what_actions_send_and_nothing_else() {
    let release = Release::install(&SETS).await;
    let Release { plane, admin } = &release;
    let label = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "privileged" } } });
    admin.patch(&format!("/api/v1/namespaces/{JOBS}"), &label).await;
    admin.namespace("llm").await;
    plane.kubelet().add(["policed-1", "policed-2"].map(|name| NodeSpec::gpu(name, 8).label("pool", "policed"))).await;
    for namespace in ["llm", "kube-system"] {
        let mut served = deployment("served", 3, "policed", json!({}));
        served["metadata"]["namespace"] = json!(namespace);
        served["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({});
        let mut kept = served.clone();
        kept["kind"] = json!("StatefulSet");
        kept["metadata"]["name"] = json!("kept");
        kept["spec"]["serviceName"] = json!("kept");
        for part in ["/spec/selector/matchLabels/app", "/spec/template/metadata/labels/app"] {
            *kept.pointer_mut(part).unwrap() = json!("kept");
        }
        kept["spec"]["replicas"] = json!(1);
        admin.apply_strictly(&served).await;
        admin.apply_strictly(&kept).await;
    }
    running(admin, "served", 3).await;
    running(admin, "kept", 1).await;
    policies_are_read_without_a_warning(&release).await;
    every_action_that_changes_something_is_let_through(&release).await;

    let client = release.client("nightshift-write").await;
    of_a_workload_only_the_marks_of_a_restart_can_be_patched(&client).await;
    in_a_protected_namespace_nothing_can_be_changed(admin, &client).await;
    of_taints_none_that_throws_pods_out_can_be_set(admin, &client).await;
    of_leases_only_the_engines_own_can_be_kept(admin, &client).await;
    of_jobs_only_the_one_that_warms_models_can_be_made(admin, &client).await;
    // Others are not held to it.
    let image =
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "server", "image": "other" }] } } } });
    admin.patch(DEPLOYMENT, &image).await;
}

/// The API server's own type check of every expression.
async fn policies_are_read_without_a_warning(release: &Release) {
    let path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let policies = eventually("the type check of every policy", async || {
        let list = release.admin.get(path).await["items"].as_array().unwrap().clone();
        list.iter().all(|policy| policy["status"].get("typeChecking").is_some()).then_some(list)
    })
    .await;
    let mut names: Vec<&str> = policies.iter().map(|policy| policy["metadata"]["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["jobs", "lease", "nodes", "pods", "protected", "workloads"].map(|name| format!("nightshift-{name}"))
    );
    for policy in policies {
        assert_eq!(policy["status"]["typeChecking"], json!({}), "{}", policy["metadata"]["name"]);
    }
}

/// The engine with the chart's settings for Jobs, and a runbook for each kind of change.
async fn engine(release: &Release, fleet: &SimFleet) -> (Site, Engine) {
    let objects = render(&SETS);
    let map = |object: &&Value| object["kind"] == "ConfigMap" && object["metadata"]["name"] == "nightshift-config";
    let text = objects.iter().find(map).unwrap()["data"]["nightshift.yaml"].as_str().unwrap();
    let config: Value = serde_saphyr::from_str(text).unwrap();
    let cache_job: CacheJob = serde_json::from_value(config["clusters"]["main"]["cache_job"].clone()).unwrap();
    let reach = KubeConfig { cache_job: Some(cache_job), ..release.reach("nightshift-write").await };
    let runbooks = [("workloads", WORKLOADS), ("nodes", NODES), ("expel", EXPEL)];
    let site = release.site_reached(reach, fleet, "", &runbooks);
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    (site, engine)
}

async fn every_action_that_changes_something_is_let_through(release: &Release) {
    let Release { plane, admin } = release;
    let fleet = SimFleet::start(SimOptions::default()).unwrap();
    let (_site, engine) = engine(release, &fleet).await;
    let list = admin.get("/api/v1/namespaces/llm/pods?labelSelector=app=served").await;
    let pods: Vec<String> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| format!("llm/{}", pod["metadata"]["name"].as_str().unwrap()))
        .collect();
    let params = json!({ "pod": pods[0], "other": pods[1], "node": "policed-1" });
    let state = run(&engine, "workloads", params).await;
    assert_eq!(state["is"], "done", "{state}");
    for (path, replicas) in [(DEPLOYMENT, 4), (STATEFUL_SET, 2)] {
        let workload = admin.get(path).await;
        assert_eq!(workload["spec"]["replicas"], replicas, "{workload}");
        let marks = &workload["spec"]["template"]["metadata"]["annotations"];
        assert!(marks["kubectl.kubernetes.io/restartedAt"].is_string(), "{workload}");
        assert_eq!(
            marks["nightshift.dev/restarted-by"],
            workload["metadata"]["annotations"]["nightshift.dev/restarted-by"]
        );
    }
    let jobs = admin.get(&format!("/apis/batch/v1/namespaces/{JOBS}/jobs")).await;
    assert_eq!(jobs["items"].as_array().unwrap().len(), 1, "{jobs}");
    let state = run(&engine, "nodes", json!({ "node": "policed-1" })).await;
    assert_eq!(state["is"], "done", "{state}");
    let refused = plane.audit().of_agent("nightshift/nightshift").into_iter().filter(|asked| asked.code == 403);
    let refused: Vec<String> = refused.map(|asked| format!("{} {}", asked.verb, asked.resource)).collect();
    assert_eq!(refused, [""; 0], "no policy stood in the way of an action");

    let state = run(&engine, "expel", json!({ "node": "policed-1" })).await;
    assert!(state["is"] == "failed" && state.to_string().contains("NoExecute"), "{state}");
    assert_eq!(engine.stop(), Some(0));
}

/// Sends it with the engine's token: refused, by a policy and not for want of a right. Dry, so that one that slips through
/// leaves the others as they are.
async fn refused(client: &Admin, method: Method, path: &str, body: &Value) {
    let dry = format!("{path}?dryRun=All");
    let (status, answer) = client.ask(method.clone(), &dry, Some(body)).await.unwrap();
    let words = answer["message"].as_str().unwrap_or_default();
    let by_policy = words.contains("ValidatingAdmissionPolicy 'nightshift-") && words.contains("denied request");
    assert!(status == 403 && by_policy, "{method} {path} {body}: {status}: {answer}");
}

fn marks(mark: &str) -> Value {
    json!({
        "metadata": { "annotations": { "nightshift.dev/restarted-by": mark } },
        "spec": { "template": { "metadata": { "annotations": {
            "nightshift.dev/restarted-by": mark, "kubectl.kubernetes.io/restartedAt": mark,
        } } } },
    })
}

async fn of_a_workload_only_the_marks_of_a_restart_can_be_patched(client: &Admin) {
    let pod = |spec: Value| json!({ "spec": { "template": { "spec": spec } } });
    let image = json!([{ "name": "server", "image": "example/hostile" }]);
    let mut with_marks = marks("r1 1");
    with_marks["spec"]["template"]["spec"] = json!({ "containers": image });
    let hostile = [
        pod(json!({ "containers": image })),
        pod(
            json!({ "containers": [{ "name": "server", "image": "example/server", "securityContext": { "privileged": true } }] }),
        ),
        pod(json!({ "initContainers": [{ "name": "first", "image": "example/hostile" }] })),
        pod(json!({ "serviceAccountName": "cluster-admin" })),
        pod(json!({ "volumes": [{ "name": "root", "hostPath": { "path": "/" } }] })),
        pod(json!({ "hostPID": true })),
        pod(json!({ "hostNetwork": true })),
        pod(json!({ "nodeName": "control-plane" })),
        with_marks,
        json!({ "spec": { "template": { "metadata": { "annotations": { "sidecar.istio.io/inject": "true" } } } } }),
        json!({ "spec": { "template": { "metadata": { "labels": { "app.kubernetes.io/part-of": "x" } } } } }),
        json!({ "spec": { "replicas": 0 } }),
        json!({ "spec": { "minReadySeconds": 9 } }),
        json!({ "metadata": { "labels": { "app": "other" } } }),
        json!({ "metadata": { "annotations": { "nightshift.dev/serving-floor": "9" } } }),
        json!({ "metadata": { "finalizers": ["example.com/x"] } }),
        json!({ "metadata": { "ownerReferences": [
            { "apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "00000000-0000-0000-0000-000000000000" },
        ] } }),
    ];
    for path in [DEPLOYMENT, STATEFUL_SET] {
        for body in &hostile {
            refused(client, Method::PATCH, path, body).await;
        }
        let (status, answer) = client.ask(Method::PATCH, path, Some(&marks("r9 1"))).await.unwrap();
        assert_eq!(status, 200, "{answer}");
    }
}

async fn in_a_protected_namespace_nothing_can_be_changed(admin: &Admin, client: &Admin) {
    for kind in ["deployments/served", "statefulsets/kept"] {
        let path = format!("/apis/apps/v1/namespaces/kube-system/{kind}");
        refused(client, Method::PATCH, &path, &marks("r1 1")).await;
        refused(client, Method::PATCH, &format!("{path}/scale"), &json!({ "spec": { "replicas": 0 } })).await;
    }
    // The engine itself is in one of them.
    let own = format!("/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets/nightshift");
    refused(client, Method::PATCH, &own, &marks("r1 1")).await;
    let list = admin.get("/api/v1/namespaces/kube-system/pods?labelSelector=app=served").await;
    let name = list["items"][0]["metadata"]["name"].as_str().unwrap();
    let path = format!("/api/v1/namespaces/kube-system/pods/{name}");
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "namespace": "kube-system", "name": name },
    });
    refused(client, Method::POST, &format!("{path}/eviction"), &eviction).await;
    refused(client, Method::DELETE, &path, &json!({ "apiVersion": "v1", "kind": "DeleteOptions" })).await;
    refused(client, Method::PATCH, &path, &json!({ "metadata": { "labels": { "nightshift.dev/traffic": "off" } } }))
        .await;
    assert!(admin.find(&path).await.is_some());
}

async fn of_taints_none_that_throws_pods_out_can_be_set(admin: &Admin, client: &Admin) {
    let path = "/api/v1/nodes/policed-1";
    let set = async |key: &str| {
        let mut taints = admin.get(path).await["spec"]["taints"].as_array().cloned().unwrap_or_default();
        taints.push(json!({ "key": key, "effect": "NoExecute" }));
        json!({ "spec": { "taints": taints } })
    };
    // The second is a key that the policy lets pass as a label.
    for key in ["nightshift.dev/faulty", "nvidia.com/mig.config"] {
        refused(client, Method::PATCH, path, &set(key).await).await;
    }
}

async fn of_leases_only_the_engines_own_can_be_kept(admin: &Admin, client: &Admin) {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");
    // The engine has made its own, with this account.
    admin.get(&format!("{path}/nightshift-engine-nightshift")).await;
    let mut lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "namespace": NAMESPACE, "name": "other" },
        "spec": { "holderIdentity": "hostile" },
    });
    refused(client, Method::POST, &path, &lease).await;
    let made = admin.create(&path, &lease).await;
    lease["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    refused(client, Method::PUT, &format!("{path}/other"), &lease).await;
}

async fn of_jobs_only_the_one_that_warms_models_can_be_made(admin: &Admin, client: &Admin) {
    let path = format!("/apis/batch/v1/namespaces/{JOBS}/jobs");
    // The one that the engine made, as it was sent.
    let made = admin.get(&path).await["items"][0].clone();
    let name = made["metadata"]["name"].as_str().unwrap().to_owned();
    let mut good = json!({ "apiVersion": "batch/v1", "kind": "Job", "spec": made["spec"] });
    good["metadata"] = json!({
        "name": "again", "namespace": JOBS, "labels": made["metadata"]["labels"], "annotations": made["metadata"]["annotations"],
    });
    for key in ["selector", "suspend"] {
        good["spec"].as_object_mut().unwrap().remove(key);
    }
    good["spec"]["template"]["metadata"]["labels"]
        .as_object_mut()
        .unwrap()
        .retain(|key, _| key.starts_with("app.kubernetes.io/") || key == "nightshift.dev/job");
    let (status, answer) = client.ask(Method::POST, &format!("{path}?dryRun=All"), Some(&good)).await.unwrap();
    assert_eq!(status, 201, "{answer}");

    let pod = "/spec/template/spec";
    let container = "/spec/template/spec/containers/0";
    let hostile = [
        (container, "image", json!("example/hostile")),
        (container, "command", json!(["/bin/sh"])),
        (container, "args", json!(["serve", "--with-agent", "x"])),
        (container, "env", json!([{ "name": "x", "valueFrom": { "secretKeyRef": { "name": "x", "key": "y" } } }])),
        (container, "securityContext", json!({ "privileged": true })),
        (container, "resources", json!({ "limits": { "nvidia.com/gpu": "8" } })),
        (container, "volumeMounts", json!([{ "name": "models", "mountPath": "/models" }])),
        (pod, "volumes", json!([{ "name": "models", "hostPath": { "path": "/", "type": "Directory" } }])),
        (pod, "volumes", json!([{ "name": "models", "secret": { "secretName": "x" } }])),
        (
            pod,
            "volumes",
            json!([{ "name": "models", "projected": { "sources": [{ "serviceAccountToken": { "path": "t" } }] } }]),
        ),
        (pod, "automountServiceAccountToken", json!(true)),
        (pod, "serviceAccountName", json!("default")),
        (pod, "hostPID", json!(true)),
        (pod, "hostNetwork", json!(true)),
        (pod, "priorityClassName", json!("system-node-critical")),
        (pod, "initContainers", json!([{ "name": "first", "image": "example/hostile" }])),
        (pod, "imagePullSecrets", json!([{ "name": "x" }])),
        (pod, "securityContext", json!({ "runAsUser": 0 })),
        ("/spec/template/metadata", "annotations", json!({ "sidecar.istio.io/inject": "true" })),
        ("/spec/template/metadata", "labels", json!({ "app": "served" })),
        ("/spec", "parallelism", json!(100)),
    ];
    for (part, key, value) in hostile {
        let mut job = good.clone();
        job.pointer_mut(part).unwrap()[key] = value;
        refused(client, Method::POST, &path, &job).await;
    }
    let mut two = good.clone();
    let containers = two.pointer_mut("/spec/template/spec/containers").unwrap().as_array_mut().unwrap();
    let mut second = containers[0].clone();
    second["name"] = json!("second");
    containers.push(second);
    refused(client, Method::POST, &path, &two).await;

    // A Job of another owner stays, ours may go.
    let mut other = good.clone();
    other["metadata"] = json!({ "name": "other", "namespace": JOBS });
    admin.create(&path, &other).await;
    let options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background" });
    refused(client, Method::DELETE, &format!("{path}/other"), &options).await;
    let (status, answer) = client.ask(Method::DELETE, &format!("{path}/{name}"), Some(&options)).await.unwrap();
    assert_eq!(status, 200, "{answer}");
}
