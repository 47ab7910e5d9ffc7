//! The cluster's administrator: what a test reads and prepares, as JSON, past the code under test.
//!
//! Invariant: it is a client of the runtime that asked for it; what fails panics with the API server's words.

use http::{Method, Request};
use kube::client::Body;
use serde_json::{Value, json};
use std::path::Path;

#[derive(Clone)]
pub struct Admin {
    client: kube::Client,
}

/// Kinds without a namespace that tests use.
const CLUSTER_WIDE: &[&str] = &[
    "Namespace",
    "Node",
    "ClusterRole",
    "ClusterRoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "CustomResourceDefinition",
    "PriorityClass",
    "RuntimeClass",
    "StorageClass",
    "PersistentVolume",
];

impl Admin {
    pub async fn of(kubeconfig: &Path) -> Admin {
        nightshift::world::install_tls();
        let file = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
        config.default_retry = false;
        Admin { client: kube::Client::try_from(config).unwrap() }
    }

    pub fn with(client: kube::Client) -> Admin {
        Admin { client }
    }

    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The status and the body, whatever they are; an error is that nobody answered.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value), String> {
        let kind = match (&method, path.contains("force=true")) {
            (&Method::PATCH, true) => "application/apply-patch+yaml",
            (&Method::PATCH, false) => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request =
            Request::builder().method(method).uri(path).header("content-type", kind).body(Body::from(body)).unwrap();
        let answer = self.client.send(request).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let bytes = http_body_util::BodyExt::collect(answer.into_body()).await.map_err(|error| error.to_string())?;
        let bytes = bytes.to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_else(|_| text())))
    }

    async fn must(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.ask(method.clone(), path, body).await.unwrap();
        assert!(status < 300, "{method} {path}: {status}: {answer}");
        answer
    }

    pub async fn get(&self, path: &str) -> Value {
        self.must(Method::GET, path, None).await
    }

    /// `None` for a 404.
    pub async fn find(&self, path: &str) -> Option<Value> {
        let (status, answer) = self.ask(Method::GET, path, None).await.unwrap();
        assert!(status < 300 || status == 404, "GET {path}: {status}: {answer}");
        (status < 300).then_some(answer)
    }

    pub async fn create(&self, path: &str, body: &Value) -> Value {
        self.must(Method::POST, path, Some(body)).await
    }

    /// A JSON merge patch.
    pub async fn patch(&self, path: &str, body: &Value) -> Value {
        self.must(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) {
        let (status, answer) = self.ask(Method::DELETE, path, None).await.unwrap();
        assert!(status < 300 || status == 404, "DELETE {path}: {status}: {answer}");
    }

    /// Server-side apply as a person would want it in review: an unknown or doubled field is refused.
    pub async fn apply_strictly(&self, object: &Value) -> Value {
        let path = format!("{}?fieldManager=test&force=true&fieldValidation=Strict", object_path(object));
        self.must(Method::PATCH, &path, Some(object)).await
    }

    /// Server-side apply of an object of any kind.
    pub async fn apply(&self, object: &Value) -> Value {
        let path = format!("{}?fieldManager=test&force=true", object_path(object));
        self.must(Method::PATCH, &path, Some(object)).await
    }

    /// A namespace in which pods can be made: its ServiceAccount is there, which a controller makes.
    pub async fn namespace(&self, name: &str) {
        self.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })).await;
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        crate::harness::eventually("the default ServiceAccount", async || self.find(&account).await).await;
    }

    /// A token of a ServiceAccount, which is made if it is not there. The API server grants ten minutes at least.
    pub async fn token(&self, namespace: &str, account: &str, seconds: u64) -> String {
        let metadata = json!({ "name": account, "namespace": namespace });
        self.apply(&json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata })).await;
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": { "expirationSeconds": seconds },
        });
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let answer = self.create(&path, &request).await;
        answer["status"]["token"].as_str().unwrap().to_owned()
    }

    /// Gives a ServiceAccount these rights in the whole cluster: (group, resource, verb).
    pub async fn grant(&self, namespace: &str, account: &str, rights: &[(&str, &str, &str)]) {
        let rules: Vec<Value> = rights
            .iter()
            .map(|(group, resource, verb)| json!({ "apiGroups": [group], "resources": [resource], "verbs": [verb] }))
            .collect();
        let name = format!("{namespace}-{account}");
        let group = "rbac.authorization.k8s.io";
        self.apply(&json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules,
        }))
        .await;
        self.apply(&json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": { "name": name },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": name },
            "subjects": [{ "kind": "ServiceAccount", "namespace": namespace, "name": account }],
        }))
        .await;
    }
}

/// Where the API keeps an object, from what it says of itself.
pub fn object_path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no name or kind: {object}")).to_owned();
    let (version, kind, name) = (text(&object["apiVersion"]), text(&object["kind"]), text(&object["metadata"]["name"]));
    let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let lower = kind.to_lowercase();
    let plural = match lower.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if lower.ends_with('s') => format!("{lower}es"),
        None => format!("{lower}s"),
    };
    if CLUSTER_WIDE.contains(&kind.as_str()) {
        return format!("{root}/{plural}/{name}");
    }
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    format!("{root}/namespaces/{namespace}/{plural}/{name}")
}
