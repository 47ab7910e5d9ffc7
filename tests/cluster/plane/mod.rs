//! A real Kubernetes control plane for tests: etcd, API server, controllers and scheduler, and kubelets that only pretend.
//!
//! ```text
//! let plane = shared().await;                     // one for all tests; they keep apart by namespace and node
//! let plane = ControlPlane::start(Options::default()).await;   // one of your own, when you mean to break it
//!
//! plane.url()                  https://127.0.0.1:PORT            plane.ca_file()   its authority
//! plane.admin().await          reads, creates, patches and applies JSON as the cluster's administrator
//!   .namespace("x")            … in which pods can be made
//!   .apply(&json)              server-side apply of any object
//!   .token("x", "account", s)  a ServiceAccount and a token of it; .grant(…) gives it rights
//! plane.reach(&token)          what goes under `clusters:` in the configuration, with that token in a file
//! plane.admin_kubeconfig()     for kubectl, or for an engine that may do everything
//! plane.kubelet()              .add(NodeSpec::gpu("n1", 8)), .hang, .crash, .not_ready, … and pods run by themselves
//! plane.audit()                .of_agent("nightshift/x"): every request, as the API server saw it
//! plane.stop_api(), plane.start_api().await
//! ```
//!
//! RBAC is on, certificates are made here, ports are free ones, several stand side by side. Pods on nodes of the kubelet
//! become Running and Ready, end when they are deleted, and do what the annotations in `kubelet.rs` say.
//!
//! Invariant: everything is killed by its pid when the plane is dropped or the test process dies, whatever kills it.

mod admin;
mod audit;
mod certs;
mod kubelet;
mod process;

pub use admin::Admin;
pub use audit::{Asked, Audit};
pub use kubelet::{Kubelet, NodeSpec};

use certs::Authority;
use nightshift::world::KubeConfig;
use process::Process;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// How long it may take until it answers, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(240);

#[derive(Debug, Clone)]
pub struct Options {
    /// A kubelet silent for so long is given up by the node controller; they speak four times as often.
    pub node_grace: Duration,
    /// etcd waits for the disk, as in production. Tests do without.
    pub durable: bool,
    /// Where its files are; in the system's folder for such if `None`.
    pub folder: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options { node_grace: Duration::from_secs(40), durable: false, folder: None }
    }
}

pub struct ControlPlane {
    folder: PathBuf,
    programs: PathBuf,
    ports: Ports,
    options: Options,
    tokens: AtomicU32,
    audit: Audit,
    // In the order in which they are stopped.
    kubelet: Option<Kubelet>,
    controllers: Vec<Process>,
    api: Mutex<Option<Process>>,
    etcd: Option<Process>,
}

#[derive(Clone, Copy)]
struct Ports {
    api: u16,
    etcd: u16,
    peers: u16,
}

/// The control plane that all tests of this program share. It goes when the program does.
pub async fn shared() -> &'static ControlPlane {
    static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
    SHARED.get_or_init(|| ControlPlane::start(Options::default())).await
}

impl ControlPlane {
    pub async fn start(options: Options) -> ControlPlane {
        let made = match &options.folder {
            Some(folder) => tempfile::tempdir_in(folder),
            None => tempfile::Builder::new().prefix("plane-").tempdir(),
        };
        let folder = made.unwrap().keep();
        let ports = Ports {
            api: crate::harness::free_port(),
            etcd: crate::harness::free_port(),
            peers: crate::harness::free_port(),
        };
        let mut plane = ControlPlane {
            audit: Audit::of(folder.join("audit.log")),
            programs: programs(),
            tokens: AtomicU32::new(0),
            kubelet: None,
            controllers: Vec::new(),
            api: Mutex::new(None),
            etcd: None,
            folder,
            ports,
            options,
        };
        plane.write_files();
        plane.etcd = Some(plane.start_etcd());
        plane.launch_api();
        plane.api_is_up().await;
        // Only then: the controllers give up after ten seconds without an API server, which a busy machine takes.
        plane.controllers = vec![plane.start_controllers(), plane.start_scheduler()];
        let admin = plane.admin().await;
        plane
            .until("the node leases' namespace", async || admin.find("/api/v1/namespaces/kube-node-lease").await)
            .await;
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        plane.until("the controllers", async || admin.find(account).await).await;
        plane.kubelet = Some(Kubelet::start(plane.file("kubelet.kubeconfig"), plane.options.node_grace / 4));
        plane
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.api)
    }

    pub fn ca_file(&self) -> PathBuf {
        self.file("ca.crt")
    }

    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.file("admin.kubeconfig")
    }

    /// A client of the runtime that this is called in: one test cannot use another one's.
    pub async fn admin(&self) -> Admin {
        Admin::of(&self.admin_kubeconfig()).await
    }

    pub fn kubelet(&self) -> &Kubelet {
        self.kubelet.as_ref().expect("it is there once the plane has started")
    }

    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// How an engine reaches this cluster with a token, which is put into a file of its own.
    pub fn reach(&self, token: &str) -> KubeConfig {
        let file = self.file(&format!("token-{}", self.tokens.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&file, token).unwrap();
        KubeConfig { url: self.url(), token_file: Some(file), ca_file: Some(self.ca_file()), ..KubeConfig::default() }
    }

    /// A token of a ServiceAccount as the API server would have signed it, whose time is up.
    pub async fn expired_token(&self, namespace: &str, account: &str) -> String {
        let admin = self.admin().await;
        admin.namespace(namespace).await;
        admin.token(namespace, account, 600).await;
        let account = admin.get(&format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}")).await;
        certs::expired_token(&self.folder, ISSUER, &account["metadata"])
    }

    /// Kills the API server; etcd keeps what it knew.
    pub fn stop_api(&self) {
        drop(self.api.lock().unwrap_or_else(|broken| broken.into_inner()).take());
    }

    pub async fn start_api(&self) {
        self.launch_api();
        self.api_is_up().await;
    }

    async fn api_is_up(&self) {
        let admin = self.admin().await;
        let ready = async || {
            let answer = admin.ask(http::Method::GET, "/readyz", None).await;
            answer.is_ok_and(|(status, _)| status == 200).then_some(())
        };
        self.until("the API server", ready).await;
    }

    async fn until<T>(&self, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            if Instant::now() > give_up || self.anybody_died() {
                panic!("the control plane never got as far as {what}:\n{}", self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(50)).await; // polls
        }
    }

    fn anybody_died(&self) -> bool {
        let api = self.api.lock().unwrap_or_else(|broken| broken.into_inner());
        self.controllers.iter().chain(api.as_ref()).chain(self.etcd.as_ref()).any(Process::has_died)
    }

    fn last_words(&self) -> String {
        let api = self.api.lock().unwrap_or_else(|broken| broken.into_inner());
        let all = self.etcd.iter().chain(api.as_ref()).chain(&self.controllers);
        all.map(Process::last_words).collect::<Vec<_>>().join("\n---\n")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write_files(&self) {
        let authority = Authority::new(&self.folder);
        authority.server();
        let url = self.url();
        authority.client(&url, "admin", "test-admin", "system:masters");
        authority.client(&url, "kubelet", "test-kubelet", "system:masters");
        // Its many controllers have accounts of their own in production; here they may share all rights.
        authority.client(&url, "controllers", "system:kube-controller-manager", "system:masters");
        let scheduler = authority.client(&url, "scheduler", "system:kube-scheduler", "");
        // Who prepares the stage is not of interest, and those who run it speak all the time.
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [
                { "level": "None", "userGroups": ["system:masters"] },
                { "level": "None", "users": ["system:kube-controller-manager", "system:kube-scheduler", "system:apiserver"] },
                { "level": "None", "userGroups": ["system:serviceaccounts:kube-system"] },
                { "level": "Metadata" },
            ],
        });
        std::fs::write(self.file("audit.yaml"), policy.to_string()).unwrap();
        let scheduling = json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
            "leaderElection": { "leaderElect": false },
            "clientConnection": { "kubeconfig": scheduler, "qps": 2_000, "burst": 4_000 },
            "podInitialBackoffSeconds": 1, "podMaxBackoffSeconds": 2,
        });
        std::fs::write(self.file("scheduling.yaml"), scheduling.to_string()).unwrap();
    }

    fn start_etcd(&self) -> Process {
        let Ports { etcd, peers, .. } = self.ports;
        let mut args = vec![
            format!("--data-dir={}", self.file("etcd").display()),
            format!("--listen-client-urls=http://127.0.0.1:{etcd}"),
            format!("--advertise-client-urls=http://127.0.0.1:{etcd}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peers}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peers}"),
            format!("--initial-cluster=default=http://127.0.0.1:{peers}"),
            "--log-level=warn".to_owned(),
        ];
        if !self.options.durable {
            args.push("--unsafe-no-fsync".to_owned());
        }
        Process::start(&self.programs.join("etcd"), &args, self.file("etcd.log"), Some(&self.folder))
    }

    fn launch_api(&self) {
        let at = |name: &str| self.file(name).display().to_string();
        let args = [
            format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd),
            format!("--secure-port={}", self.ports.api),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--tls-cert-file={}", at("apiserver.crt")),
            format!("--tls-private-key-file={}", at("apiserver.key")),
            format!("--client-ca-file={}", at("ca.crt")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            format!("--service-account-issuer={ISSUER}"),
            format!("--service-account-key-file={}", at("sa.pub")),
            format!("--service-account-signing-key-file={}", at("sa.key")),
            format!("--audit-policy-file={}", at("audit.yaml")),
            format!("--audit-log-path={}", at("audit.log")),
            "--allow-privileged=true".to_owned(),
            "--profiling=false".to_owned(),
            "--event-ttl=1h".to_owned(),
        ];
        let process = Process::start(&self.programs.join("kube-apiserver"), &args, self.file("api.log"), None);
        *self.api.lock().unwrap_or_else(|broken| broken.into_inner()) = Some(process);
    }

    fn start_controllers(&self) -> Process {
        let at = |name: &str| self.file(name).display().to_string();
        let args = [
            format!("--kubeconfig={}", at("controllers.kubeconfig")),
            format!("--service-account-private-key-file={}", at("sa.key")),
            format!("--root-ca-file={}", at("ca.crt")),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            "--kube-api-qps=2000".to_owned(),
            "--kube-api-burst=4000".to_owned(),
            "--node-monitor-period=1s".to_owned(),
            format!("--node-monitor-grace-period={}s", self.options.node_grace.as_secs()),
            "--profiling=false".to_owned(),
        ];
        Process::start(&self.programs.join("kube-controller-manager"), &args, self.file("controllers.log"), None)
    }

    fn start_scheduler(&self) -> Process {
        let args = [format!("--config={}", self.file("scheduling.yaml").display()), "--secure-port=0".to_owned()];
        Process::start(&self.programs.join("kube-scheduler"), &args, self.file("scheduler.log"), None)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        drop(self.kubelet.take());
        self.controllers.clear();
        self.stop_api();
        drop(self.etcd.take());
    }
}

/// Who signs the tokens of ServiceAccounts.
const ISSUER: &str = "https://kubernetes.default.svc";

/// The folder with the four programs, as the build script names it.
fn programs() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/build-control-plane.sh");
    let output = Command::new(&script).arg("--where").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", script.display());
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let lacks = folder.join("kube-apiserver");
    assert!(lacks.exists(), "{} is missing: run `make control-plane` first", lacks.display());
    folder
}
