//! Agents as the chart's DaemonSet would run them: its account, a token bound to each pod, its `agent.yaml`; and the shipped
//! runbooks that need a node's own hands, or a mig-manager.
//!
//! Invariant: who speaks for which node is what the API server says of the token; GPUs are software, the rest is real.

use super::{NAMESPACE, Release, render, run};
use crate::engines::Engine as Page;
use crate::gpus::Gpus;
use crate::harness::{Engine, Site, client, eventually, free_port};
use crate::plane::{Admin, ControlPlane, NodeSpec};
use nightshift::world::ProbeConfig;
use nightshift::world::sim::{SimFleet, SimOptions};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Who answers what is asked; the runs are started by another user.
const ADA: &str = "0123456789abcdef0123456789abcdef";
const SETS: [&str; 2] = ["--set", "agent.enabled=true,agent.tlsSecret=agents"];

/// One agent process, with GPUs of its own.
struct Agent {
    child: Child,
    gpus: Gpus,
    node: String,
    folder: PathBuf,
}

impl Agent {
    /// The container of the DaemonSet's pod: it has the node's name from its pod, the rest from its file.
    fn container(node: &str, folder: &Path) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
        command.arg("--config").arg(folder.join("agent.yaml")).arg("agent").env("NIGHTSHIFT_NODE", node);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// As a boot does it: everything ends, the node is gone for a moment, and another boot speaks.
    async fn boots(&mut self, plane: &ControlPlane, boot: &str) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        plane.kubelet().not_ready(&self.node).await;
        std::fs::write(self.folder.join("boot"), boot).unwrap();
        plane.kubelet().patch_status(&self.node, json!({ "status": { "nodeInfo": { "bootID": boot } } })).await;
        plane.kubelet().ready(&self.node).await;
        self.child = Agent::container(&self.node, &self.folder);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the chart wrote into a ConfigMap.
fn file_of(map: &str, file: &str) -> Value {
    let objects = render(&SETS);
    let found = objects.iter().find(|object| object["kind"] == "ConfigMap" && object["metadata"]["name"] == map);
    serde_saphyr::from_str(found.unwrap()["data"][file].as_str().unwrap()).unwrap()
}

/// The certificate that cert-manager would have put into the Secret: this one is good for 127.0.0.1.
fn certificate(plane: &ControlPlane, name: &str) -> PathBuf {
    plane.ca_file().with_file_name(name)
}

/// The engine as the chart configures its door for agents, but on a port of this machine.
async fn engine(release: &Release, fleet: &SimFleet, door: u16, probe: Value) -> (Site, Engine) {
    let mut agents = file_of("nightshift-config", "nightshift.yaml")["agents"].clone();
    agents["listen"] = json!(format!("127.0.0.1:{door}"));
    agents["cert_file"] = json!(certificate(&release.plane, "apiserver.crt"));
    agents["key_file"] = json!(certificate(&release.plane, "apiserver.key"));
    // Whose the machine's own token is, which starts the runs: Ada is another person, so she may approve them.
    let more = format!(
        "agents: {agents}\nsources: {{ serving: {{ kind: inference, probe: {probe} }} }}\n\
         people: [{{ name: grace, role: admin, tokens: [local] }}]\n"
    );
    let site = release.site_with("nightshift-write", fleet, &more).await;
    std::fs::write(site.path().join("ada"), ADA).unwrap();
    let file = site.path().join("nightshift.yaml");
    let ada = json!([{ "name": "ada", "role": "approver", "secret": { "file": site.path().join("ada") } }]);
    let text = std::fs::read_to_string(&file).unwrap().replace("server:\n", &format!("server:\n  tokens: {ada}\n"));
    std::fs::write(file, text).unwrap();
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    (site, engine)
}

/// The DaemonSet's pod on a node, and the token that the kubelet would mount for it.
async fn token(admin: &Admin, node: &str) -> String {
    let path = format!(
        "/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io/component=agent&fieldSelector=spec.nodeName={node}"
    );
    let pod = eventually(&format!("the agent's pod on {node}"), async || {
        let pod = admin.get(&path).await["items"][0].clone();
        (pod["status"]["phase"] == "Running").then_some(pod)
    })
    .await;
    let account = pod["spec"]["serviceAccountName"].as_str().unwrap();
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let projected = volumes.iter().find(|volume| volume["name"] == "token").unwrap();
    let wanted = &projected["projected"]["sources"][0]["serviceAccountToken"];
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": [wanted["audience"]], "expirationSeconds": wanted["expirationSeconds"],
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"],
            },
        },
    });
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token");
    admin.create(&path, &request).await["status"]["token"].as_str().unwrap().to_owned()
}

/// The container of that pod: the chart's `agent.yaml`, with this machine's paths for the mounted ones.
async fn agent(release: &Release, site: &Site, door: u16, node: &str) -> Agent {
    let folder = site.path().join(node);
    std::fs::create_dir_all(&folder).unwrap();
    let gpus = Gpus::new("machine h100 gpus 2");
    let mut config = file_of("nightshift-agent", "agent.yaml");
    let at = |name: &str| json!(folder.join(name));
    std::fs::write(folder.join("token"), token(&release.admin, node).await).unwrap();
    std::fs::write(folder.join("kernel.log"), "").unwrap();
    config["engine"] = json!(format!("https://127.0.0.1:{door}"));
    config["ca_file"] = json!(release.plane.ca_file());
    config["token_file"] = at("token");
    config["data_dir"] = at("data");
    config["kill_file"] = at("stop");
    config["kernel_log"] = at("kernel.log");
    config["kubelet_checkpoint"] = at("checkpoint");
    config["nvidia_smi"] = json!(gpus.smi());
    config["nvml"]["library"] = json!(gpus.library());
    // The chart asks process 1, which on this machine is not ours to ask. What that does is shown in tests/it/agent/programs.rs.
    assert_eq!(config["reboot"], json!(["init"]));
    let script = format!("#!/bin/sh\necho \"$@\" >>{}\n", folder.join("reboots").display());
    std::fs::write(folder.join("reboot"), script).unwrap();
    std::fs::set_permissions(folder.join("reboot"), std::fs::Permissions::from_mode(0o755)).unwrap();
    config["reboot"] = json!([folder.join("reboot"), "now"]);
    std::fs::write(folder.join("boot"), "boot-1").unwrap();
    config["boot_id"] = at("boot");
    std::fs::write(folder.join("agent.yaml"), config.to_string()).unwrap();
    Agent { child: Agent::container(node, &folder), gpus, node: node.to_owned(), folder }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runbooks_that_need_a_nodes_own_hands_work_with_the_charts_agents() {
    let release = Release::install(&SETS).await;
    let Release { plane, admin, .. } = &release;
    // As NOTES.txt asks for where the agent is on; and what the GPU operator brings.
    let label = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "privileged" } } });
    admin.patch(&format!("/api/v1/namespaces/{NAMESPACE}"), &label).await;
    let class = json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": "nvidia" }, "handler": "nvidia",
    });
    admin.apply(&class).await;
    let present = |name: &str| NodeSpec::gpu(name, 2).label("nvidia.com/gpu.present", "true").label("pool", name);
    plane.kubelet().add(["hands-1", "hands-2"].map(present)).await;
    let sliced = NodeSpec::gpu("sliced-1", 0).label("nvidia.com/mig.config", "all-disabled");
    plane.kubelet().add([sliced.label("nvidia.com/mig.config.state", "success")]).await;

    let fleet = SimFleet::start(SimOptions::default()).unwrap();
    let door = free_port();
    // Two engines of one model: the page of the first is what the test freezes.
    serve(&release).await;
    let pods = pods_of(admin, "wedged").await;
    let page = Page::start("vllm").await;
    let pod = format!("llm/{}", pods.first().unwrap());
    let targets = vec![page.target(&[("pod", &pod), ("workload", "llm/wedged"), ("model", "m")])];
    let probe = serde_json::to_value(ProbeConfig { targets, ..ProbeConfig::default() }).unwrap();
    let (site, engine) = engine(&release, &fleet, door, probe).await;
    let mut one = agent(&release, &site, door, "hands-1").await;
    let _two = agent(&release, &site, door, "hands-2").await;
    for node in ["hands-1", "hands-2"] {
        eventually(&format!("the agent of {node}"), async || {
            let agents = engine.get("/api/v1/agents").await?["agents"].as_array()?.clone();
            let found = agents.into_iter().find(|agent| agent["node"] == node && agent["connected"] == true)?;
            (found["how"] == "token").then_some(())
        })
        .await;
    }
    what_its_kernel_says_is_heard_about_the_node_of_the_token(&engine, &one).await;

    let state = run(&engine, "gpu-suspect", json!({ "node": "hands-1", "gpu": "0" })).await;
    assert_eq!(state["is"], "done", "{state}");
    a_gpu_is_reset_and_its_node_given_back(&release, &engine, &one).await;
    a_node_gets_another_mig_layout(&release, &engine).await;

    a_node_is_booted_after_a_yes(&release, &engine, &mut one).await;
    an_engine_that_is_stuck_is_replaced(&release, &engine, &page, &pods).await;

    // A container is restarted by the engine of its own machine; on a cluster it says what is missing.
    let params = json!({ "container": "vllm", "model": "acme/llm" });
    fleet.set_prometheus(
        r#"sum(vllm:num_requests_waiting{model_name="acme/llm"})"#,
        vec![nightshift::world::sim::SimSample::value(3.0)],
    );
    fleet.set_prometheus(
        r#"sum(rate(vllm:iteration_tokens_total_sum{model_name="acme/llm"}[2m]))"#,
        vec![nightshift::world::sim::SimSample::value(0.0)],
    );
    let state = run(&engine, "container-no-progress", params).await;
    assert!(state.to_string().contains("no Docker engine is configured"), "{state}");
    let asked = plane.audit().of_agent("nightshift/nightshift").into_iter();
    let refused: Vec<String> =
        asked.filter(|asked| asked.code == 403).map(|asked| format!("{} {}", asked.verb, asked.resource)).collect();
    assert_eq!(refused, [""; 0], "nothing that the engine asked was forbidden");
    assert_eq!(engine.stop(), Some(0));
}

async fn what_its_kernel_says_is_heard_about_the_node_of_the_token(engine: &Engine, agent: &Agent) {
    let line = "6,1,1000,-;NVRM: Xid (PCI:0000:01:00): 94, pid=77, name=python, Contained: SM (0x1)\n";
    std::fs::write(agent.folder.join("kernel.log"), line).unwrap();
    eventually("the fault", async || {
        let entries = engine.get("/api/v1/entries?kind=heard&limit=100").await?.to_string();
        (entries.contains("\"node\":\"hands-1\"") && entries.contains("\"xid\":\"94\"")).then_some(())
    })
    .await;
}

async fn a_gpu_is_reset_and_its_node_given_back(release: &Release, engine: &Engine, agent: &Agent) {
    agent.gpus.say("gpu 1 recovery reset");
    let state = run(engine, "gpu-reset", json!({ "node": "hands-1", "gpu": "1", "hold": "1s" })).await;
    assert_eq!(state["is"], "done", "{state}");
    let resets = agent.gpus.timeline().lines().filter(|line| line.ends_with("gpu 1 reset")).count();
    assert_eq!(resets, 1, "{}", agent.gpus.timeline());
    let node = release.admin.get("/api/v1/nodes/hands-1").await;
    assert!(node["spec"].get("unschedulable").is_none(), "{node}");
}

async fn a_node_is_booted_after_a_yes(release: &Release, engine: &Engine, agent: &mut Agent) {
    let Release { plane, admin, .. } = release;
    let calls = agent.folder.join("reboots");
    // A pod that the drain of all pods must leave: the policy would refuse its eviction.
    let mut dns = super::deployment("dns", 1, "hands-1", json!({}));
    dns["metadata"]["namespace"] = json!("kube-system");
    dns["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({});
    admin.apply_strictly(&dns).await;
    let of_dns = "/api/v1/namespaces/kube-system/pods?labelSelector=app=dns&fieldSelector=status.phase=Running";
    let before = eventually("the pod of kube-system", async || {
        admin.get(of_dns).await["items"].as_array()?.first().map(|pod| pod["metadata"]["uid"].clone())
    })
    .await;
    let boots = async {
        let question = eventually("the question", async || {
            let answer = engine.get("/api/v1/approvals?open=true").await?;
            answer["approvals"].as_array()?.first().cloned()
        })
        .await;
        assert!(question.to_string().contains("node::reboot"), "{question}");
        assert!(!calls.exists(), "nothing is done before the answer");
        let path = format!("{}/api/v1/approvals/{}", engine.url, question["id"].as_str().unwrap());
        let answer = json!({ "approve": true, "why": "a test" });
        let answered = client().post(path).bearer_auth(ADA).json(&answer).send().await.unwrap();
        assert_eq!(answered.status(), 200, "{}", answered.text().await.unwrap());
        eventually("the node is asked to go down", async || calls.exists().then_some(())).await;
        assert_eq!(admin.get("/api/v1/nodes/hands-1").await["spec"]["unschedulable"], true);
        assert_eq!(admin.get(of_dns).await["items"][0]["metadata"]["uid"], before, "it was not evicted");
        agent.boots(plane, "boot-2").await;
    };
    let params = json!({ "node": "hands-1", "gpu": "1", "hold": "1s" });
    let (state, ()) = tokio::join!(run(engine, "node-reboot", params), boots);
    assert_eq!(state["is"], "done", "{state}");
    assert_eq!(std::fs::read_to_string(&calls).unwrap(), "now\n", "one boot");
    let node = admin.get("/api/v1/nodes/hands-1").await;
    assert!(node["spec"].get("unschedulable").is_none(), "{node}");
    assert_eq!(node["status"]["nodeInfo"]["bootID"], "boot-2");
}

/// A Deployment of two on a node of their own, whose Service goes by the label that traffic is taken with.
async fn serve(release: &Release) {
    let Release { plane, admin, .. } = release;
    admin.namespace("llm").await;
    plane.kubelet().add([NodeSpec::gpu("serves-1", 8).label("pool", "serves")]).await;
    let mut deployment = super::deployment("wedged", 2, "serves", json!({}));
    deployment["spec"]["template"]["metadata"]["labels"]["nightshift.dev/traffic"] = json!("on");
    admin.apply(&deployment).await;
    let selector = json!({ "app": "wedged", "nightshift.dev/traffic": "on" });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "llm", "name": "wedged" },
        "spec": { "selector": selector, "ports": [{ "port": 8000 }] },
    });
    admin.apply(&service).await;
    super::running(admin, "wedged", 2).await;
}

async fn pods_of(admin: &Admin, app: &str) -> BTreeSet<String> {
    let list = admin.get(&format!("/api/v1/namespaces/llm/pods?labelSelector=app={app}")).await;
    list["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

async fn an_engine_that_is_stuck_is_replaced(
    release: &Release,
    engine: &Engine,
    page: &Page,
    before: &BTreeSet<String>,
) {
    let admin = &release.admin;
    let stuck = before.first().unwrap();
    page.freeze(12);
    page.set(|page| page.ready = false);
    let replaced = async {
        let path = format!("/api/v1/namespaces/llm/pods/{stuck}");
        let mut without = false;
        eventually("it is asked to leave", async || {
            let pod = admin.find(&path).await;
            let label = |pod: &Value| pod["metadata"]["labels"]["nightshift.dev/traffic"].clone();
            without |= pod.as_ref().is_some_and(|pod| label(pod) == "off");
            pod.is_none().then_some(())
        })
        .await;
        assert!(without, "it was sent requests until its end");
        page.thaw();
        page.set(|page| page.ready = true);
    };
    let params = json!({
        "pod": format!("llm/{stuck}"), "workload": "llm/wedged", "ask": false, "drain": "1s", "between": "1s", "hold": "1s",
    });
    let (state, ()) = tokio::join!(run(engine, "inference-engine-restart", params), replaced);
    assert_eq!(state["is"], "done", "{state}");
    let after = pods_of(admin, "wedged").await;
    let stayed: Vec<&String> = before.intersection(&after).collect();
    assert_eq!((stayed, after.len()), (before.iter().skip(1).collect(), 2), "one of two was replaced");
}

/// The mig-manager here is a few lines that act on the label as the GPU operator's does.
async fn a_node_gets_another_mig_layout(release: &Release, engine: &Engine) {
    let Release { plane, admin, .. } = release;
    let path = "/api/v1/nodes/sliced-1";
    let manager = async {
        let wanted = eventually("another label", async || {
            let label = admin.get(path).await["metadata"]["labels"]["nvidia.com/mig.config"].clone();
            (label == "all-1g.10gb").then_some(label)
        })
        .await;
        let state = |word: &str| json!({ "metadata": { "labels": { "nvidia.com/mig.config.state": word } } });
        admin.patch(path, &state("pending")).await;
        let devices = json!({ "nvidia.com/mig-1g.10gb": "14" });
        let patch = json!({ "status": { "capacity": devices, "allocatable": devices } });
        plane.kubelet().patch_status("sliced-1", patch).await;
        // A real one takes minutes; a `success` that comes at once would be taken for the one of before.
        eventually("the engine sees it at work", async || {
            let runs = engine.get("/api/v1/runs").await?.to_string();
            runs.contains("at work on all-1g.10gb: `pending`").then_some(())
        })
        .await;
        admin.patch(path, &state("success")).await;
        wanted
    };
    let params = json!({
        "node": "sliced-1", "config": "all-1g.10gb", "resource": "nvidia.com/mig-1g.10gb", "count": 14,
    });
    let (state, _) = tokio::join!(run(engine, "mig-rebalance", params), manager);
    assert_eq!(state["is"], "done", "{state}");
    let node = admin.get(path).await;
    assert!(node["spec"].get("unschedulable").is_none(), "{node}");
    assert_eq!(node["metadata"]["labels"]["nvidia.com/mig.config"], "all-1g.10gb");
}
