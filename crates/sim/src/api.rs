//! The served part of the Kubernetes API: the meaning of each path, reads, and the special subresources.
//!
//! Invariant: a request is answered wholly under the fleet's lock, so readers see whole changes alone.

use super::answer::SimResponse;
use super::controllers::{repair, terminate};
use super::disruption;
use super::health::SimFault;
use super::object::{ApiResource, ObjectKey, ObjectKind, RESOURCES, list, number, text};
use super::selector::ObjectSelector;
use super::state::FleetState;
use super::watch::SimWatchOptions;
use super::write::{self, WriteOptions};
use serde_json::{Value, json};
use std::sync::Arc;

/// A request as far as the fleet cares.
#[derive(Debug, Clone, Default)]
pub(super) struct SimRequest {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub content_type: String,
    pub user_agent: String,
    pub body: Vec<u8>,
}

impl SimRequest {
    /// The value of a query parameter; empty where it is absent.
    pub fn query(&self, name: &str) -> &str {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).unwrap_or_default()
    }

    /// The body as JSON; an empty one reads as null.
    ///
    /// # Errors
    ///
    /// Fails with a 400 when the body is no JSON.
    pub fn json(&self) -> Result<Value, SimResponse> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body).map_err(|e| {
            SimResponse::bad_request(format!("the object provided is unrecognized (must be of type JSON): {e}"))
        })
    }

    fn is_dry_run(&self) -> bool {
        self.query("dryRun") == "All"
    }

    fn writer<'a>(&'a self, verb: &'a str) -> WriteOptions<'a> {
        let manager = self.query("fieldManager");
        let by = if manager.is_empty() { &self.user_agent } else { manager };
        WriteOptions { verb, by, dry_run: self.is_dry_run(), status: self.path.ends_with("/status") }
    }
}

/// The terms of a watch request, if it may watch; `None` if it is no watch.
pub(super) fn watched(state: &FleetState, request: &SimRequest) -> Option<Result<SimWatchOptions, SimResponse>> {
    let asks = request.method == "GET" && matches!(request.query("watch"), "true" | "1");
    let target = target(request.path.trim_matches('/')).filter(|target| asks && target.name.is_none())?;
    let resource = target.resource;
    if state.health.denied.contains(&("watch".to_owned(), resource.plural.to_owned())) {
        return Some(Err(SimResponse::forbidden(resource.kind, "", "watch")));
    }
    let read = |name: &str| ObjectSelector::parse(request.query(name)).map_err(SimResponse::bad_request);
    let (labels, fields) = match (read("labelSelector"), read("fieldSelector")) {
        (Ok(labels), Ok(fields)) => (labels, fields),
        (Err(refusal), _) | (_, Err(refusal)) => return Some(Err(refusal)),
    };
    let number = |name: &str| request.query(name).parse::<u64>().ok();
    Some(Ok(SimWatchOptions {
        kind: resource.kind,
        namespace: target.namespace,
        labels,
        fields,
        from: number("resourceVersion").unwrap_or(state.version),
        seconds: number("timeoutSeconds").unwrap_or(300),
        bookmarks: request.query("allowWatchBookmarks") == "true",
    }))
}

/// The object or list that a path names.
struct RequestTarget {
    resource: &'static ApiResource,
    namespace: String,
    name: Option<String>,
    subresource: Option<String>,
}

/// Answers one request of the Kubernetes API; reads see the fleet as it was `back` changes ago.
pub(super) fn handle(state: &mut FleetState, request: &SimRequest, back: usize) -> SimResponse {
    let path = request.path.trim_matches('/');
    match path {
        "readyz" | "livez" | "healthz" => return SimResponse::text("text/plain; charset=utf-8", "ok".to_owned()),
        "version" => return SimResponse::ok(version()),
        "apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => return review(state, request),
        _ => {}
    }
    let Some(target) = target(path) else { return SimResponse::no_such_path() };
    let verb = verb(request, &target);
    let resource = match &target.subresource {
        Some(sub) => format!("{}/{sub}", target.resource.plural),
        None => target.resource.plural.to_owned(),
    };
    if state.health.denied.contains(&(verb.to_owned(), resource)) {
        return SimResponse::forbidden(target.resource.kind, target.name.as_deref().unwrap_or_default(), verb);
    }
    route(state, request, &target, back).unwrap_or_else(|refusal| refusal)
}

fn route(
    state: &mut FleetState,
    request: &SimRequest,
    target: &RequestTarget,
    back: usize,
) -> Result<SimResponse, SimResponse> {
    let kind = target.resource.kind;
    let Some(name) = &target.name else {
        return match request.method.as_str() {
            "GET" => list_objects(state, request, target, back),
            "POST" => write::create(state, kind, &target.namespace, request.json()?, &request.writer("create")),
            _ => Err(method_not_allowed()),
        };
    };
    let key = ObjectKey::new(kind, &target.namespace, name);
    match (request.method.as_str(), target.subresource.as_deref()) {
        ("GET", None | Some("status")) => {
            let found = state.get_stale(&key, back).ok_or_else(|| SimResponse::not_found(kind, name))?;
            Ok(SimResponse::ok(shown(state, kind, &found)))
        }
        ("GET", Some("log")) if kind == ObjectKind::Pod => {
            let pod = state.get(&key).ok_or_else(|| SimResponse::not_found(kind, name))?;
            Ok(SimResponse::text("text/plain", super::jobs::log(pod)))
        }
        ("PATCH", None | Some("status")) => {
            let (content, body) = (&request.content_type, request.json()?);
            write::patch(state, &key, content, &body, &request.writer("patch"))
        }
        ("PUT", None) => write::update(state, &key, request.json()?, &request.writer("update")),
        ("DELETE", None) => delete(state, request, &key),
        ("POST", Some("eviction")) if kind == ObjectKind::Pod => evict(state, request, &key),
        (method, Some("scale")) if matches!(kind, ObjectKind::Deployment | ObjectKind::StatefulSet) => {
            scale(state, request, &key, method)
        }
        _ => Err(method_not_allowed()),
    }
}

fn method_not_allowed() -> SimResponse {
    let message = "the server does not allow this method on the requested resource";
    SimResponse::refusal(405, "MethodNotAllowed", message, json!({}))
}

fn verb(request: &SimRequest, target: &RequestTarget) -> &'static str {
    match (request.method.as_str(), &target.name) {
        ("GET", Some(_)) => "get",
        ("GET", None) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        _ => "delete",
    }
}

fn target(path: &str) -> Option<RequestTarget> {
    let parts: Vec<&str> = path.split('/').collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, None, None),
        [plural, name] => (*plural, Some((*name).to_owned()), None),
        [plural, name, sub] => (*plural, Some((*name).to_owned()), Some((*sub).to_owned())),
        _ => return None,
    };
    let resource = RESOURCES.iter().find(|r| r.group == group && r.version == version && r.plural == plural)?;
    if !resource.namespaced && !namespace.is_empty() || resource.namespaced && namespace.is_empty() && name.is_some() {
        return None;
    }
    Some(RequestTarget { resource, namespace: namespace.to_owned(), name, subresource })
}

/// The object as the API shows it, with its type on it.
pub(super) fn shown(state: &FleetState, kind: ObjectKind, object: &Value) -> Value {
    let resource = kind.resource();
    let mut object = match kind {
        ObjectKind::DisruptionBudget => disruption::with_status(state, object.clone()),
        _ => object.clone(),
    };
    object["kind"] = resource.name.into();
    object["apiVersion"] = api_version(resource).into();
    object
}

fn api_version(resource: &ApiResource) -> String {
    if resource.group.is_empty() {
        resource.version.to_owned()
    } else {
        format!("{}/{}", resource.group, resource.version)
    }
}

fn list_objects(
    state: &FleetState,
    request: &SimRequest,
    target: &RequestTarget,
    back: usize,
) -> Result<SimResponse, SimResponse> {
    let resource = target.resource;
    let read = |name: &str| ObjectSelector::parse(request.query(name)).map_err(SimResponse::bad_request);
    let (labels, fields) = (read("labelSelector")?, read("fieldSelector")?);
    let matches = |object: &Arc<Value>| labels.matches(&object["metadata"]["labels"]) && fields.matches_fields(object);
    let found: Vec<Arc<Value>> =
        state.list(resource.kind, &target.namespace, back).into_iter().filter(matches).collect();
    let offset = request.query("continue").parse().unwrap_or(0).min(found.len());
    let limit = request.query("limit").parse().ok().filter(|n| *n > 0).unwrap_or(usize::MAX);
    let end = offset.saturating_add(limit).min(found.len());
    let items: Vec<Value> = found[offset..end].iter().map(|o| shown(state, resource.kind, o)).collect();
    let mut metadata = json!({"resourceVersion": state.version.to_string()});
    if end < found.len() {
        metadata["continue"] = end.to_string().into();
        metadata["remainingItemCount"] = (found.len() - end).into();
    }
    Ok(SimResponse::ok(json!({
        "kind": format!("{}List", resource.name), "apiVersion": api_version(resource),
        "metadata": metadata, "items": items,
    })))
}

fn delete(state: &mut FleetState, request: &SimRequest, key: &ObjectKey) -> Result<SimResponse, SimResponse> {
    let options = request.json()?;
    let object = state.get(key).ok_or_else(|| SimResponse::not_found(key.kind, &key.name))?.clone();
    for (field, pointer, label) in
        [("uid", "/metadata/uid", "UID"), ("resourceVersion", "/metadata/resourceVersion", "ResourceVersion")]
    {
        let wanted = text(&options["preconditions"], &format!("/{field}"));
        let found = text(&object, pointer);
        if !wanted.is_empty() && wanted != found {
            return Err(SimResponse::precondition(key.kind, &key.name, label, wanted, found));
        }
    }
    let was_terminating = super::object::is_terminating(&object);
    if !request.is_dry_run() {
        if key.kind == ObjectKind::Pod {
            let in_query = request.query("gracePeriodSeconds").parse().ok();
            terminate(state, key, in_query.or_else(|| options["gracePeriodSeconds"].as_i64()));
        } else {
            state.remove(key);
            state.dirty.insert(key.clone());
        }
        let gone = state.get(key).is_none();
        let changed = !was_terminating || gone;
        write::note(state, key, json!({"uid": object["metadata"]["uid"]}), changed, &request.writer("delete"));
    }
    let details = json!({"name": key.name, "kind": key.kind.resource().plural, "uid": object["metadata"]["uid"]});
    Ok(match state.get(key) {
        Some(ending) => SimResponse::ok(shown(state, key.kind, ending)),
        None => SimResponse::success(200, details),
    })
}

fn evict(state: &mut FleetState, request: &SimRequest, key: &ObjectKey) -> Result<SimResponse, SimResponse> {
    let body = request.json()?;
    let uid = state.get(key).map(|pod| pod["metadata"]["uid"].clone()).unwrap_or_default();
    let (answer, changed) = disruption::evict(state, key, &body);
    if answer.code == 201 && !request.is_dry_run() {
        write::note(state, key, json!({"uid": uid}), changed, &request.writer("evict"));
    }
    Ok(answer)
}

fn scale(
    state: &mut FleetState,
    request: &SimRequest,
    key: &ObjectKey,
    method: &str,
) -> Result<SimResponse, SimResponse> {
    let object = state.get(key).ok_or_else(|| SimResponse::not_found(key.kind, &key.name))?;
    if method != "GET" {
        let body = request.json()?;
        let body = match method {
            "PUT" => {
                json!({"spec": {"replicas": body["spec"]["replicas"]}, "metadata": {"resourceVersion": body["metadata"]["resourceVersion"]}})
            }
            "PATCH" => body,
            _ => return Err(method_not_allowed()),
        };
        if object["spec"]["replicas"].is_null()
            || body.pointer("/spec/replicas").and_then(Value::as_i64).is_none_or(|n| n < 0)
        {
            return Err(SimResponse::invalid(
                key.kind,
                &key.name,
                "spec.replicas",
                "must be a number greater than or equal to 0",
            ));
        }
        write::patch(state, key, "application/merge-patch+json", &without_nulls(body), &request.writer("scale"))?;
    }
    let object = state.get(key).ok_or_else(|| SimResponse::not_found(key.kind, &key.name))?;
    let selector = super::object::texts(object, "/spec/selector/matchLabels");
    let selector: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let metadata = &object["metadata"];
    Ok(SimResponse::ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"]},
        "spec": {"replicas": object["spec"]["replicas"]},
        "status": {"replicas": number(object, "/status/replicas"), "selector": selector.join(",")},
    })))
}

/// A null in a PUT means "not given", in a merge patch it would mean "remove".
fn without_nulls(mut body: Value) -> Value {
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, value| !value.is_null());
    }
    body
}

fn review(state: &FleetState, request: &SimRequest) -> SimResponse {
    let body = match request.json() {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let asked = |field: &str| text(&body, &format!("/spec/resourceAttributes/{field}")).to_owned();
    let resource = match asked("subresource") {
        sub if sub.is_empty() => asked("resource"),
        sub => format!("{}/{sub}", asked("resource")),
    };
    // The fleet allows every verb that it serves; these it does not serve, and no caller has a right to them.
    let never = matches!(resource.as_str(), "secrets" | "nodes/proxy" | "pods/exec")
        || matches!(asked("verb").as_str(), "impersonate" | "escalate" | "bind");
    let denied = never || state.health.denied.contains(&(asked("verb"), resource));
    let mut answer = body;
    answer["kind"] = "SelfSubjectAccessReview".into();
    answer["apiVersion"] = "authorization.k8s.io/v1".into();
    answer["metadata"] = json!({});
    answer["status"] =
        json!({"allowed": !denied, "reason": if denied { "" } else { "RBAC: allowed by the simulated fleet" }});
    SimResponse::json(201, answer)
}

fn version() -> Value {
    json!({"major": "1", "minor": "33", "gitVersion": "v1.33.0-nightshift-sim", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64"})
}

/// Injects a fault. The error names the object that does not exist.
pub(super) fn inject(state: &mut FleetState, fault: SimFault) -> Result<(), String> {
    match fault {
        SimFault::Xid { node, gpu, code } => {
            let ill = gpu_of(state, &node, gpu)?;
            *ill.xids.entry(code).or_default() += 1;
            ill.last_xid = code;
            state.dirty.insert(ObjectKey::node(&node));
        }
        SimFault::Ecc { node, gpu } => {
            gpu_of(state, &node, gpu)?.ecc += 1;
            state.dirty.insert(ObjectKey::node(&node));
        }
        SimFault::Hot { node, gpu } => {
            gpu_of(state, &node, gpu)?.hot = true;
            state.dirty.insert(ObjectKey::node(&node));
        }
        SimFault::NodeNotReady { node } => {
            known_node(state, &node)?;
            state.dirty.insert(ObjectKey::node(&node));
            state.health.not_ready.insert(node);
        }
        SimFault::Stalled { namespace, deployment } => {
            let now = state.now;
            let pods = super::metrics::pods_of(state, &namespace, &deployment);
            if pods.is_empty() {
                return Err(format!("no deployment {namespace}/{deployment} with pods"));
            }
            state.health.stalled.extend(pods.into_iter().map(|uid| (uid, now)));
        }
        SimFault::WeightsStale { node, model } => {
            known_node(state, &node)?;
            state.health.stale_weights.insert((node, model));
        }
        SimFault::MigManager { node, behaviour } => super::mig::install(state, &node, behaviour)?,
        SimFault::Jobs { exit, message } => {
            use super::jobs::JobEnding;
            state.health.jobs = Some(exit.map_or(JobEnding::Never, |code| JobEnding::Exit(code, message)));
        }
        SimFault::Deny { verb, resource } => {
            state.health.denied.insert((verb, resource));
        }
        SimFault::Forgotten => state.changes.clear(),
        SimFault::WatchesCut => state.watch_age += 1,
        SimFault::Api(fault) => state.health.add_api(fault)?,
    }
    Ok(())
}

/// Ends all illness of a node, or of one of its GPUs.
pub(super) fn mend(state: &mut FleetState, node: &str, gpu: Option<u32>) -> Result<(), String> {
    known_node(state, node)?;
    repair(state, node, gpu);
    Ok(())
}

pub(super) fn known_node(state: &FleetState, node: &str) -> Result<(), String> {
    state.get(&ObjectKey::node(node)).map(drop).ok_or_else(|| format!("no node `{node}` in the fleet"))
}

fn gpu_of<'a>(state: &'a mut FleetState, node: &str, gpu: u32) -> Result<&'a mut super::health::GpuFaults, String> {
    known_node(state, node)?;
    let gpus = state.seats.get(node).map_or(0, |seat| seat.slots.len());
    if gpu as usize >= gpus {
        return Err(format!("node `{node}` has {gpus} GPUs, so there is no GPU {gpu}"));
    }
    Ok(state.health.gpus.entry((node.to_owned(), gpu)).or_default())
}

/// Drops values that the API server would not keep: false, and empty lists and maps.
pub(super) fn tidy_node(node: &mut Value) {
    if let Some(spec) = node.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|_, value| !value.is_null() && *value != false && value.as_array().is_none_or(|a| !a.is_empty()));
    }
    if let Some(metadata) = node.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, value| !value.is_null() && value.as_object().is_none_or(|o| !o.is_empty()));
    }
}

/// Whether a taint is one that the API server would take.
pub(super) fn taint_error(node: &Value) -> Option<String> {
    list(node, "/spec/taints").iter().find_map(|taint| {
        let effect = text(taint, "/effect");
        let known = matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute");
        (!known || text(taint, "/key").is_empty()).then(|| format!("Unsupported value: \"{effect}\""))
    })
}
