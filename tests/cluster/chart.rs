//! The Helm chart on the real control plane: every object is taken as it is written, and the engine, with exactly the
//! ServiceAccount's token that the chart gives it, does what its runbooks need and can do nothing else.
//!
//! Invariant: what is allowed is asked of the API server, twice: by review, and by trying.

mod monitoring;
mod nodes;
mod policies;

use crate::harness::{Engine, Site, eventually, tool};
use crate::plane::{Admin, ControlPlane, NodeSpec, Options};
use http::Method;
use nightshift::actions;
use nightshift::world::sim::{SimFleet, SimOptions, SimSample};
use nightshift::world::{KubeClient, KubeConfig};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const NAMESPACE: &str = "nightshift-system";

/// A cluster with the chart in it, in mode auto.
struct Release {
    plane: ControlPlane,
    admin: Admin,
}

impl Release {
    async fn install(sets: &[&str]) -> Release {
        let plane = ControlPlane::start(Options::default()).await;
        let admin = plane.admin().await;
        admin.namespace(NAMESPACE).await;
        // The engine's pod is held to the restricted standard by the API server itself.
        let labels = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
        admin.patch(&format!("/api/v1/namespaces/{NAMESPACE}"), &labels).await;
        let objects = render(sets);
        let namespaces: BTreeSet<&str> =
            objects.iter().filter_map(|object| object["metadata"]["namespace"].as_str()).collect();
        for namespace in namespaces.into_iter().filter(|namespace| *namespace != NAMESPACE) {
            admin.namespace(namespace).await;
        }
        for object in &objects {
            admin.apply_strictly(object).await;
        }
        Release { plane, admin }
    }

    /// How the account of that name reaches the cluster.
    async fn reach(&self, account: &str) -> KubeConfig {
        let reach = self.plane.reach(&self.admin.token(NAMESPACE, account, 3_600).await);
        // As in its pod, where it is the namespace of the pod.
        KubeConfig { lease_namespace: Some(NAMESPACE.to_owned()), ..reach }
    }

    /// The cluster as that account sees it.
    async fn client(&self, account: &str) -> Admin {
        let reach = self.reach(account).await;
        let mut config = kube::Config::new(reach.url.parse().unwrap());
        config.root_cert_file = reach.ca_file;
        config.auth_info.token_file = reach.token_file.map(|file| file.display().to_string());
        config.default_retry = false;
        Admin::with(kube::Client::try_from(config).unwrap())
    }

    /// A site whose engine has that account's token, the shipped runbooks, and a Prometheus that says what `fleet` is told.
    async fn site(&self, account: &str, fleet: &SimFleet) -> Site {
        self.site_with(account, fleet, "").await
    }

    async fn site_with(&self, account: &str, fleet: &SimFleet, more: &str) -> Site {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks");
        let runbooks: Vec<(String, String)> = std::fs::read_dir(folder)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "rhai"))
            .map(|path| (path.file_stem().unwrap().display().to_string(), std::fs::read_to_string(&path).unwrap()))
            .collect();
        let runbooks: Vec<(&str, &str)> = runbooks.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        self.site_reached(self.reach(account).await, fleet, more, &runbooks)
    }

    /// A site with these runbooks, whose engine reaches the cluster so.
    fn site_reached(&self, reach: KubeConfig, fleet: &SimFleet, more: &str, runbooks: &[(&str, &str)]) -> Site {
        let config = json!({ "main": reach });
        let extra = format!(
            "clusters: {config}\nprometheus: {{ url: '{}' }}\nchannels: {{ oncall: {{ kind: log }} }}\n\
             guards: {{ nodes_at_once: 100, share_at_once: 1.0, share_per_hour: 1.0, share_per_day: 1.0 }}\n\
             kill_switch: {{ config_map: {{ namespace: {NAMESPACE}, name: nightshift-stop }} }}\n{more}",
            fleet.url()
        );
        Site::new(&extra, "rules: []\n", runbooks)
    }
}

fn render(sets: &[&str]) -> Vec<Value> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/helm/nightshift");
    let mut command = Command::new(tool("helm"));
    command.args(["template", "nightshift", ".", "--namespace", NAMESPACE, "--set", "mode=auto"]).args(sets);
    let output = command.current_dir(chart).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = text.split("\n---\n").filter(|part| part.lines().any(|line| !line.starts_with(['#', '-'])));
    documents.map(|part| serde_saphyr::from_str(part).unwrap()).collect()
}

/// Starts a run by hand and waits until it is over; its state.
async fn run(engine: &Engine, runbook: &str, params: Value) -> Value {
    let body = json!({ "runbook": runbook, "params": params, "mode": "auto" });
    let (status, answer) = engine.post("/api/v1/runs", &body).await.unwrap();
    assert!(status < 300, "{runbook}: {status}: {answer}");
    let id = answer["run"]["id"].as_str().unwrap().to_owned();
    let mut last = Value::Null;
    eventually(&format!("the end of {runbook}"), async || {
        let run = engine.get(&format!("/api/v1/runs/{id}")).await?["run"].clone();
        if last != run["state"] {
            // What it waited for, should it never end.
            println!("{runbook}: {}", run["state"]);
            last = run["state"].clone();
        }
        let state = run["state"]["is"].as_str()?.to_owned();
        (!["ready", "waiting", "asking", "held", "running"].contains(&state.as_str())).then(|| run["state"].clone())
    })
    .await
}

/// (verb, group, resource) of all that is asked about: everything that a cluster owner would worry about.
fn worries() -> Vec<(&'static str, &'static str, &'static str)> {
    const RESOURCES: [(&str, &str); 24] = [
        ("", "nodes"),
        ("", "nodes/status"),
        ("", "nodes/proxy"),
        ("", "pods"),
        ("", "pods/eviction"),
        ("", "pods/exec"),
        ("", "pods/log"),
        ("", "pods/status"),
        ("", "secrets"),
        ("", "configmaps"),
        ("", "services"),
        ("", "events"),
        ("events.k8s.io", "events"),
        ("", "namespaces"),
        ("", "serviceaccounts/token"),
        ("apps", "deployments"),
        ("apps", "deployments/scale"),
        ("apps", "statefulsets"),
        ("apps", "statefulsets/scale"),
        ("apps", "daemonsets"),
        ("batch", "jobs"),
        ("coordination.k8s.io", "leases"),
        ("rbac.authorization.k8s.io", "clusterroles"),
        ("authentication.k8s.io", "tokenreviews"),
    ];
    const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    RESOURCES.iter().flat_map(|(group, resource)| VERBS.iter().map(move |verb| (*verb, *group, *resource))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_does_what_its_runbooks_need_with_the_charts_account_and_everything_else_is_forbidden() {
    let release = Release::install(&[]).await;
    rights_are_those_of_the_table(&release).await;
    what_is_not_in_the_table_is_forbidden_when_it_is_tried(&release).await;
    of_a_node_only_our_part_can_be_patched(&release).await;
    every_shipped_runbook_works(&release).await;
    doctor_finds_all_in_order_and_then_what_was_taken_away(&release).await;
}

async fn rights_are_those_of_the_table(release: &Release) {
    // Those for Jobs are given in a namespace alone, and here none was asked for.
    let mut rights = actions::rights(|_| true);
    rights.retain(|right, _| !right.home());
    let table: BTreeSet<(&str, &str, &str)> =
        rights.keys().map(|right| (right.verb, right.group, right.resource)).collect();
    let kube = KubeClient::connect(&release.reach("nightshift-write").await, "nightshift/chart").await.unwrap();
    eventually("the roles to be known", async || kube.may("", "nodes", "patch").await.ok().filter(|may| *may)).await;
    let asked: BTreeSet<_> = worries().into_iter().chain(table.iter().copied()).collect();
    let mut lines = Vec::new();
    let mut wrong = Vec::new();
    for (verb, group, resource) in asked {
        let allowed = kube.may(group, resource, verb).await.unwrap();
        if allowed {
            lines.push(format!("{verb:<8}  {group:<22}  {resource}"));
        }
        if allowed != table.contains(&(verb, group, resource)) {
            wrong.push(format!("{verb} {group}/{resource}: allowed is {allowed}"));
        }
    }
    println!("allowed to nightshift-write, of {} asked:\n{}", worries().len(), lines.join("\n"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // All that the API server knows of its rights in a namespace, less what an account has that nobody gave anything.
    let (all, everybodys) = (rules(release, "nightshift-write").await, rules(release, "nobody").await);
    let own: BTreeSet<(&str, &str, &str)> = all
        .difference(&everybodys)
        .map(|(verb, group, resource)| (verb.as_str(), group.as_str(), resource.as_str()))
        .collect();
    assert_eq!(own, table);
    let reader = KubeClient::connect(&release.reach("nightshift-read").await, "nightshift/chart").await.unwrap();
    for right in rights.keys() {
        let allowed = reader.may(right.group, right.resource, right.verb).await.unwrap();
        assert_eq!(allowed, !right.writes(), "{right:?}");
    }
}

/// (verb, group, resource) of what that account may do in the namespace `default`, as the API server lists it.
async fn rules(release: &Release, account: &str) -> BTreeSet<(String, String, String)> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": { "namespace": "default" },
    });
    let client = release.client(account).await;
    let answer = client.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &review).await;
    let list = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    let mut found = BTreeSet::new();
    for rule in answer["status"]["resourceRules"].as_array().unwrap() {
        for group in list(&rule["apiGroups"]) {
            for resource in list(&rule["resources"]) {
                for verb in list(&rule["verbs"]) {
                    found.insert((verb, group.clone(), resource.clone()));
                }
            }
        }
    }
    found
}

async fn what_is_not_in_the_table_is_forbidden_when_it_is_tried(release: &Release) {
    let client = release.client("nightshift-write").await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "x" },
        "spec": { "containers": [{ "name": "x", "image": "x" }] },
    });
    let tries = [
        (Method::GET, "/api/v1/namespaces/kube-system/secrets".to_owned(), None),
        (Method::GET, format!("/api/v1/namespaces/{NAMESPACE}/configmaps"), None),
        (Method::GET, format!("/api/v1/namespaces/{NAMESPACE}/configmaps/nightshift-config"), None),
        (Method::POST, "/api/v1/namespaces/default/pods".to_owned(), Some(&pod)),
        (Method::POST, "/api/v1/namespaces/default/pods/x/exec?command=id".to_owned(), None),
        (Method::GET, "/api/v1/nodes/x/proxy/metrics".to_owned(), None),
        (Method::DELETE, "/api/v1/nodes/x".to_owned(), None),
        (Method::DELETE, "/api/v1/namespaces/default/pods".to_owned(), None),
        (Method::DELETE, "/apis/apps/v1/namespaces/default/deployments/x".to_owned(), None),
        (Method::GET, "/apis/rbac.authorization.k8s.io/v1/clusterroles".to_owned(), None),
    ];
    for (method, path, body) in tries {
        let (status, answer) = client.ask(method.clone(), &path, body).await.unwrap();
        assert_eq!(status, 403, "{method} {path}: {answer}");
    }
    // The one ConfigMap that it may read is the kill switch.
    let stop = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/nightshift-stop");
    assert_eq!(client.ask(Method::GET, &stop, None).await.unwrap().0, 404);
}

async fn of_a_node_only_our_part_can_be_patched(release: &Release) {
    let Release { plane, admin, .. } = release;
    plane.kubelet().add([NodeSpec::gpu("policed", 8).label("pool", "x")]).await;
    let path = "/api/v1/nodes/policed";
    let client = release.client("nightshift-write").await;
    let patch = async |body: Value| client.ask(Method::PATCH, path, Some(&body)).await.unwrap();
    let ours = json!({ "key": "nightshift.dev/sick", "effect": "NoSchedule" });
    let allowed = [
        json!({ "metadata": { "annotations": { "nightshift.dev/cordoned-by": "x" } }, "spec": { "unschedulable": true } }),
        json!({ "metadata": { "annotations": { "nightshift.dev/cordoned-by": null } }, "spec": { "unschedulable": null } }),
        json!({ "metadata": { "labels": { "nightshift.dev/quarantine": "yes" } } }),
    ];
    for body in allowed {
        let (status, answer) = patch(body.clone()).await;
        assert_eq!(status, 200, "{body}: {answer}");
    }
    // The taints that others set, a controller among them, must be sent back as they are: ours are added and taken away.
    let taints = || async { admin.get(path).await["spec"]["taints"].as_array().cloned().unwrap_or_default() };
    eventually("a taint of ours", async || {
        let mut all = taints().await;
        all.push(ours.clone());
        (patch(json!({ "spec": { "taints": all } })).await.0 == 200).then_some(())
    })
    .await;
    eventually("its end", async || {
        let rest: Vec<Value> = taints().await.into_iter().filter(|taint| taint["key"] != ours["key"]).collect();
        (patch(json!({ "spec": { "taints": rest } })).await.0 == 200).then_some(())
    })
    .await;
    // A policy holds once the API server has heard of it, moments after it was written.
    let dry = format!("{path}?dryRun=All");
    eventually("the policy to hold", async || {
        let evil = json!({ "metadata": { "labels": { "pool": "y" } } });
        let (status, _) = client.ask(Method::PATCH, &dry, Some(&evil)).await.unwrap();
        (status == 403).then_some(())
    })
    .await;
    let refused = [
        json!({ "metadata": { "labels": { "pool": "y" } } }),
        json!({ "metadata": { "labels": { "pool": null } } }),
        json!({ "metadata": { "labels": { "nightshift.dev/opt-out": "true" } } }),
        json!({ "metadata": { "annotations": { "example.com/x": "y" } } }),
        json!({ "metadata": { "finalizers": ["example.com/x"] } }),
        json!({ "spec": { "podCIDR": "10.9.0.0/24" } }),
        json!({ "spec": { "providerID": "elsewhere://x" } }),
        json!({ "spec": { "taints": [{ "key": "example.com/evil", "effect": "NoExecute" }] } }),
    ];
    for body in refused {
        let (status, answer) = patch(body.clone()).await;
        let words = answer["message"].as_str().unwrap_or_default();
        assert!(status == 403 && words.contains("denied request"), "{body}: {status}: {answer}");
    }
    // In the engine's words this is no missing right.
    let kube = KubeClient::connect(&release.reach("nightshift-write").await, "nightshift/chart").await.unwrap();
    let said = kube.patch_node("policed", json!({ "metadata": { "labels": { "pool": "y" } } }), None).await;
    let said = said.unwrap_err().to_string();
    assert!(said.contains("admission policy") && !said.contains("add to the role"), "{said}");
    // Others are not held to it.
    admin.patch(path, &json!({ "metadata": { "labels": { "pool": "z" } } })).await;
    plane.kubelet().remove(&["policed".to_owned()]).await;
}

async fn of_a_pod_only_its_traffic_can_be_patched(release: &Release) {
    let list = release.admin.get("/api/v1/namespaces/llm/pods?labelSelector=app=stalled").await;
    let path = format!("/api/v1/namespaces/llm/pods/{}", list["items"][0]["metadata"]["name"].as_str().unwrap());
    let client = release.client("nightshift-write").await;
    let patch = async |body: &Value| client.ask(Method::PATCH, &path, Some(body)).await.unwrap();
    for (label, mark) in [(json!("off"), json!("x r1 y=on")), (json!(null), json!(null))] {
        let body = json!({ "metadata": {
            "labels": { "nightshift.dev/traffic": label }, "annotations": { "nightshift.dev/traffic-taken-by": mark },
        } });
        let (status, answer) = patch(&body).await;
        assert_eq!(status, 200, "{body}: {answer}");
    }
    let refused = [
        json!({ "metadata": { "labels": { "app": "mine" } } }),
        json!({ "metadata": { "labels": { "nightshift.dev/probe": "vllm" } } }),
        json!({ "metadata": { "annotations": { "example.com/x": "y" } } }),
        json!({ "metadata": { "ownerReferences": null } }),
        json!({ "spec": { "activeDeadlineSeconds": 1 } }),
    ];
    for body in refused {
        let (status, answer) = patch(&body).await;
        let words = answer["message"].as_str().unwrap_or_default();
        assert!(status == 403 && words.contains("denied request"), "{body}: {status}: {answer}");
    }
}

fn deployment(name: &str, replicas: u32, node: &str, annotations: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        // Its pods are on the one node that is drained, which the serving floor would forbid.
        "metadata": { "namespace": "llm", "name": name, "annotations": { "nightshift.dev/serving-floor": "0" } },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name }, "annotations": annotations },
                "spec": {
                    "nodeSelector": { "pool": node },
                    "containers": [{
                        "name": "server", "image": "example/server", "resources": { "limits": { "nvidia.com/gpu": "1" } },
                    }],
                },
            },
        },
    })
}

async fn running(admin: &Admin, name: &str, replicas: u32) {
    let path = format!("/api/v1/namespaces/llm/pods?labelSelector=app={name}&fieldSelector=status.phase=Running");
    eventually(&format!("{replicas} pods of {name}"), async || {
        let pods = admin.get(&path).await["items"].as_array().unwrap().len();
        (pods == replicas as usize).then_some(())
    })
    .await;
}

/// Those that ask Kubernetes (and Prometheus) alone; a reset or a MIG layout need an agent or the GPU operator: `nodes`.
async fn every_shipped_runbook_works(release: &Release) {
    let Release { plane, admin, .. } = release;
    admin.namespace("llm").await;
    let node = |name: &str, gpus| NodeSpec::gpu(name, gpus).label("pool", name);
    plane.kubelet().add(["ill-1", "ill-2", "ill-5"].map(|name| node(name, 2))).await;
    plane.kubelet().add(["ill-3", "ill-4", "well-1"].map(|name| node(name, 8))).await;
    // Two of three replicas fill the ill node; the third serves elsewhere, or the serving floor would hold the drain.
    for (name, ill) in [("fell", "ill-1"), ("faulty", "ill-2"), ("switched", "ill-5")] {
        admin.apply(&deployment(name, 3, ill, json!({}))).await;
        running(admin, name, 2).await;
        plane.kubelet().add([NodeSpec::gpu(&format!("beside-{ill}"), 8).label("pool", ill)]).await;
        running(admin, name, 3).await;
    }
    admin.apply(&deployment("stalled", 2, "well-1", json!({}))).await;
    running(admin, "stalled", 2).await;
    let fleet = SimFleet::start(SimOptions::default()).unwrap();
    let of = |metric: &str| metric.replace("MODEL", "acme/stalled");
    // What the runbook asks: requests wait, and for two minutes there were neither tokens nor answers.
    let still = |counter: &str| {
        let waits = "sum(vllm:num_requests_waiting{model_name=\"MODEL\"}) > 0";
        of(&format!("{waits} and sum(rate(vllm:{counter}{{model_name=\"MODEL\"}}[2m])) == 0"))
    };
    let tokens = of("sum(rate(vllm:iteration_tokens_total_sum{model_name=\"MODEL\"}[2m]))");
    for counter in ["iteration_tokens_total_sum", "request_success_total"] {
        fleet.set_prometheus(&still(counter), vec![SimSample::value(9.0)]);
    }
    fleet.set_prometheus(&tokens, vec![SimSample::value(0.0)]);
    let site = release.site("nightshift-write", &fleet).await;
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));

    let state = run(&engine, "gpu-fell-off-the-bus", json!({ "node": "ill-1", "gpu": "3" })).await;
    assert_eq!(state["is"], "stopped", "{state}");
    let node = admin.get("/api/v1/nodes/ill-1").await;
    assert_eq!(node["spec"]["unschedulable"], true);
    let on = "/api/v1/namespaces/llm/pods?fieldSelector=spec.nodeName=ill-1";
    assert_eq!(admin.get(on).await["items"], json!([]), "the node is empty");

    for (runbook, node) in [("node-fault", "ill-2"), ("nvswitch-fatal", "ill-5")] {
        let state = run(&engine, runbook, json!({ "node": node })).await;
        assert_eq!(state["is"], "stopped", "{runbook}: {state}");
        assert_eq!(admin.get(&format!("/api/v1/nodes/{node}")).await["spec"]["unschedulable"], true, "{runbook}");
    }

    let state = run(&engine, "gpu-contained-memory-error", json!({ "node": "well-1", "gpu": "0" })).await;
    assert_eq!(state["is"], "stopped", "nothing is broken there: {state}");
    admin.apply(&deployment("broken", 1, "ill-3", json!({ "kubelet/never-ready": "yes" }))).await;
    running(admin, "broken", 1).await;
    let of_broken = "/api/v1/namespaces/llm/pods?labelSelector=app=broken";
    let before = admin.get(of_broken).await["items"][0]["metadata"]["uid"].clone();
    // What comes in its place is well.
    let mended = json!({ "spec": { "template": { "metadata": { "annotations": { "kubelet/never-ready": null } } } } });
    let mends = async {
        eventually("the broken pod is evicted", async || {
            let pods = admin.get(of_broken).await["items"].clone();
            pods.as_array().unwrap().iter().all(|pod| pod["metadata"]["uid"] != before).then_some(())
        })
        .await;
        admin.patch("/apis/apps/v1/namespaces/llm/deployments/broken", &mended).await;
    };
    let params = json!({ "node": "ill-3", "gpu": "0", "hold": "1s" });
    let (state, ()) = tokio::join!(run(&engine, "gpu-contained-memory-error", params), mends);
    assert_eq!(state["is"], "done", "{state}");

    plane.kubelet().not_ready("ill-4").await;
    let state = run(&engine, "node-not-ready", json!({ "node": "ill-4", "patience": "2s", "hold": "1s" })).await;
    assert_eq!(state["is"], "stopped", "{state}");
    assert_eq!(admin.get("/api/v1/nodes/ill-4").await["spec"]["unschedulable"], true);

    let restart = run(
        &engine,
        "inference-no-progress",
        json!({ "workload": "llm/stalled", "model": "acme/stalled", "hold": "1s" }),
    );
    let flows = async {
        let path = "/apis/apps/v1/namespaces/llm/deployments/stalled";
        eventually("the restart", async || {
            let template = admin.get(path).await["spec"]["template"]["metadata"]["annotations"].clone();
            template.get("kubectl.kubernetes.io/restartedAt").map(|_| ())
        })
        .await;
        fleet.set_prometheus(&tokens, vec![SimSample::value(900.0)]);
    };
    let (state, ()) = tokio::join!(restart, flows);
    assert_eq!(state["is"], "done", "{state}");
    of_a_pod_only_its_traffic_can_be_patched(release).await;
    let refused: Vec<String> = plane
        .audit()
        .of_agent("nightshift/nightshift")
        .into_iter()
        .filter(|asked| asked.code == 403)
        .map(|asked| format!("{} {}", asked.verb, asked.resource))
        .collect();
    assert_eq!(refused, [""; 0], "nothing that the engine asked was forbidden");
    assert_eq!(engine.stop(), Some(0));
    a_right_that_is_missing_is_said_with_the_line_to_add(release, &fleet).await;
}

async fn a_right_that_is_missing_is_said_with_the_line_to_add(release: &Release, fleet: &SimFleet) {
    // The account that observes, in an engine that means to act.
    let site = release.site("nightshift-read", fleet).await;
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    let state = run(&engine, "gpu-fell-off-the-bus", json!({ "node": "well-1", "gpu": "3" })).await;
    assert_eq!(state["is"], "failed", "{state}");
    let why = state["why"].as_str().unwrap();
    let line = r#"add to the role: - {apiGroups: [""], resources: ["nodes"], verbs: ["patch"]}"#;
    assert!(why.contains(line) && why.contains("nightshift-system:nightshift-read"), "{why}");
    assert!(release.admin.get("/api/v1/nodes/well-1").await["spec"].get("unschedulable").is_none());
    assert_eq!(engine.stop(), Some(0));
}

async fn doctor_finds_all_in_order_and_then_what_was_taken_away(release: &Release) {
    let fleet = SimFleet::start(SimOptions::default()).unwrap();
    let site = release.site("nightshift-write", &fleet).await;
    let findings = || -> Vec<(String, String)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
        command.arg("--config").arg(site.path().join("nightshift.yaml")).args(["doctor", "-o", "json"]);
        let output = command.output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let cluster = said["findings"].as_array().unwrap().iter().filter(|one| one["area"] == "cluster main");
        cluster.map(|one| (one["health"].as_str().unwrap().to_owned(), one.to_string())).collect()
    };
    let well = findings();
    assert!(well.len() >= 4 && well.iter().all(|(health, _)| health == "good"), "{well:#?}");
    release.admin.delete("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/nightshift-write").await;
    let ill = eventually("the lost rights are known", async || {
        findings().into_iter().find(|(health, _)| health == "bad").map(|(_, text)| text)
    })
    .await;
    for words in
        ["patch nodes", "create pods/eviction", "k8s::cordon", "resources: [\\\"nodes\\\"], verbs: [\\\"patch\\\"]"]
    {
        assert!(ill.contains(words), "{words}: {ill}");
    }
}
