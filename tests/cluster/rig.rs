//! The real program before a real control plane, with a ServiceAccount's token and a rule that acts.
//!
//! Invariant: a test asks it over HTTP only, and counts what it did in the API server's audit log.

use crate::harness::{Engine, Site, alertmanager_body, eventually};
use crate::plane::{Asked, ControlPlane, NodeSpec};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A runbook that only cordons.
pub const CORDON: &str = "//! Cordon a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n\n\
                          k8s::cordon(node, \"a test\");\n";

/// Guards that let a thousand nodes be taken at once: for tests of speed.
pub const OPEN: &str = "guards:\n  nodes_at_once: 100000\n  share_at_once: 1.0\n  share_per_hour: 1.0\n  \
                        share_per_day: 1.0\n  correlated_share: 1.0\n";

/// Empties a node and gives it back.
pub const REMEDIATE: &str = "//! Cordon, drain, uncordon.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n\n\
                             k8s::cordon(node, \"a test\");\nk8s::drain(node);\nk8s::uncordon(node);\n";

/// A Deployment of pods that hold GPUs, on the nodes of a pool. All of them may be on the node that is drained, which the
/// serving floor would forbid.
pub fn deployment(namespace: &str, name: &str, replicas: usize, gpus: u32, pool: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "namespace": namespace, "name": name, "annotations": { "nightshift.dev/serving-floor": "0" } },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": {
                    "nodeSelector": { "pool": pool },
                    "containers": [{
                        "name": "server", "image": "example/server",
                        "resources": { "limits": { "nvidia.com/gpu": gpus.to_string() } },
                    }],
                },
            },
        },
    })
}

/// Two nodes `{pool}-1` and `{pool}-2` and a Deployment in the namespace `pool`: so many of its pods fill the first, and one
/// serves on the second, so that the serving floor lets the others go.
pub async fn crowded(plane: &ControlPlane, pool: &str, pods: usize) {
    let admin = plane.admin().await;
    admin.namespace(pool).await;
    let node = |number: u32, gpus| NodeSpec::gpu(&format!("{pool}-{number}"), gpus).label("pool", pool);
    plane.kubelet().add([node(1, u32::try_from(pods).unwrap())]).await;
    admin.apply(&deployment(pool, "llm", pods + 1, 1, pool)).await;
    let path = format!("/apis/apps/v1/namespaces/{pool}/deployments/llm");
    let ready = async |count: usize| {
        eventually("the pods", async || (admin.get(&path).await["status"]["readyReplicas"] == count).then_some(()))
            .await;
    };
    ready(pods).await;
    plane.kubelet().add([node(2, 8)]).await;
    ready(pods + 1).await;
}

pub struct Rig {
    pub site: Site,
    pub engine: Engine,
    name: String,
    /// Where it reads its token.
    pub token_file: std::path::PathBuf,
}

impl Rig {
    /// An engine that may do everything that actions declare, and what its watches ask for.
    pub async fn new(plane: &ControlPlane, name: &str, runbook: &str, extra: &str) -> Rig {
        let declared = nightshift::actions::catalog().into_iter().flat_map(|action| action.spec().permissions);
        let mut rights: Vec<_> = declared.map(|right| (right.group, right.resource, right.verb)).collect();
        for (group, resource) in [("", "nodes"), ("", "pods"), ("", "events"), ("coordination.k8s.io", "leases")] {
            rights.extend(["get", "list", "watch"].map(|verb| (group, resource, verb)));
        }
        rights.extend([("", "nodes/status", "patch"), ("events.k8s.io", "events", "create"), ("", "events", "create")]);
        rights.push(("", "events", "patch"));
        Rig::with_rights(plane, name, runbook, extra, &rights).await
    }

    pub async fn with_rights(
        plane: &ControlPlane,
        name: &str,
        runbook: &str,
        extra: &str,
        rights: &[(&str, &str, &str)],
    ) -> Rig {
        let admin = plane.admin().await;
        admin.namespace(name).await;
        let token = admin.token(name, "engine", 3_600).await;
        admin.grant(name, "engine", rights).await;
        let kube = nightshift::world::KubeClient::connect(&plane.reach(&token), "nightshift/rig").await.unwrap();
        eventually("the rights are known", async || kube.nodes().await.ok()).await;
        Rig::with_token(plane, name, runbook, extra, &token).await
    }

    /// `name` is the installation's, so that its requests are told from others'; `extra` is YAML.
    pub async fn with_token(plane: &ControlPlane, name: &str, runbook: &str, extra: &str, token: &str) -> Rig {
        let reach = plane.reach(token);
        let file = |path: &Option<std::path::PathBuf>| path.as_ref().unwrap().display().to_string();
        let config = format!(
            "install: {name}\nsources:\n  test:\n    kind: alertmanager\nchannels:\n  people: {{ kind: log }}\n\
             clusters:\n  real:\n    url: {}\n    ca_file: {}\n    token_file: {}\n{extra}",
            reach.url,
            file(&reach.ca_file),
            file(&reach.token_file),
        );
        let rules = "rules:\n  - name: acts\n    when: ['alertname=\"GpuXid\"']\n    run: act\n    mode: auto\n    \
                     tell: [people]\n    group_by: [node]\n";
        let site = Site::new(&config, rules, &[("act", runbook)]);
        let engine = site.start(&[]).await.unwrap_or_else(|| panic!("the engine did not start:\n{}", site.log()));
        Rig { site, engine, name: name.to_owned(), token_file: reach.token_file.clone().unwrap() }
    }

    /// The user agent by which the audit log knows it.
    pub fn agent(&self) -> String {
        format!("nightshift/{}", self.name)
    }

    /// Tells the engine that these nodes are ill; returns when it has acknowledged that.
    pub async fn complain(&self, nodes: &[&str]) {
        let labels: Vec<[(&str, &str); 3]> =
            nodes.iter().map(|node| [("alertname", "GpuXid"), ("node", *node), ("severity", "critical")]).collect();
        let alerts: Vec<&[(&str, &str)]> = labels.iter().map(|labels| labels.as_slice()).collect();
        let starts = format!("{:.3}", jiff::Timestamp::now());
        let body = alertmanager_body("firing", &starts, &alerts);
        let (status, answer) = self.engine.post("/in/alertmanager/test", &body).await.unwrap();
        assert_eq!(status, 200, "{answer}");
    }

    /// Waits until the run about a node is in such a state; returns the run with its steps.
    pub async fn until_run(&self, node: &str, wanted: impl Fn(&str) -> bool) -> Value {
        let found = async || {
            let runs = self.engine.get("/api/v1/runs?limit=1000").await?;
            let run = runs["runs"]
                .as_array()?
                .iter()
                .find(|run| run["subject"].to_string().contains(&format!("\"{node}\"")))?;
            wanted(run["state"]["is"].as_str()?).then(|| run.clone())
        };
        eventually(&format!("the run about {node}"), found).await
    }

    /// Waits until it has patched a node; if it never does, says what became of the run.
    pub async fn until_patched(&self, plane: &ControlPlane, node: &str) -> Asked {
        let (agent, give_up) = (self.agent(), Instant::now() + Duration::from_secs(30));
        loop {
            let patch = |asked: &Asked| asked.agent == agent && asked.name == node && asked.is_patch_of_node();
            if let Some(found) = plane.audit().last(patch) {
                return found;
            }
            if Instant::now() > give_up {
                let run = self.until_run(node, |_| true).await;
                panic!("{node} was not patched: {:#}", run["state"]);
            }
            tokio::time::sleep(Duration::from_millis(1)).await; // polls
        }
    }

    /// All that it asked of the API server, in order.
    pub fn asked(&self, plane: &ControlPlane) -> Vec<Asked> {
        let agent = self.agent();
        plane.audit().select(|asked| asked.agent == agent)
    }

    /// The nodes that it has patched, in order.
    pub fn patched(&self, plane: &ControlPlane) -> Vec<String> {
        let patches = self.asked(plane).into_iter().filter(Asked::is_patch_of_node);
        patches.map(|asked| asked.name).collect()
    }
}
