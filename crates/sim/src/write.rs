//! Writes of the API: create, update and patch, with their preconditions, their checks and their line in the effects.
//!
//! Invariant: a write that changes nothing bumps no version, and is written down as no change.

use super::answer::SimResponse;
use super::api::{shown, taint_error, tidy_node};
use super::effects::AppliedChange;
use super::object::{ObjectKey, ObjectKind, short_hash, text, texts};
use super::patch::{difference, json_patch, merge, strategic};
use super::state::FleetState;
use serde_json::{Value, json};

/// The verb, the client and the options of a write.
pub(super) struct WriteOptions<'a> {
    pub verb: &'a str,
    pub by: &'a str,
    pub dry_run: bool,
    /// Through the status subresource.
    pub status: bool,
}

pub(super) fn create(
    state: &mut FleetState,
    kind: ObjectKind,
    namespace: &str,
    mut object: Value,
    writer: &WriteOptions<'_>,
) -> Result<SimResponse, SimResponse> {
    if !object.is_object() {
        return Err(SimResponse::bad_request("the body must be an object"));
    }
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let prefix = text(&object, "/metadata/generateName");
    if text(&object, "/metadata/name").is_empty() && !prefix.is_empty() {
        let suffix = short_hash(&format!("{prefix}{}", state.version));
        object["metadata"]["name"] = format!("{prefix}{}", &suffix[..5]).into();
    }
    let name = text(&object, "/metadata/name").to_owned();
    if name.is_empty() {
        return Err(SimResponse::invalid(
            kind,
            "",
            "metadata.name",
            "Required value: name or generateName is required",
        ));
    }
    if kind.resource().namespaced {
        object["metadata"]["namespace"] = namespace.into();
    }
    let key = ObjectKey::of(kind, &object);
    if state.get(&key).is_some() {
        return Err(SimResponse::exists(kind, &name));
    }
    check(kind, &object)?;
    object["metadata"]["uid"] = state.uid().into();
    object["metadata"]["creationTimestamp"] = state.stamp().into();
    strip_type(&mut object);
    if matches!(kind, ObjectKind::Deployment | ObjectKind::StatefulSet) {
        object["metadata"]["generation"] = 1.into();
    }
    if !writer.dry_run {
        state.put(kind, object.clone());
        note(state, &key, object.clone(), true, writer);
        if kind == ObjectKind::Node {
            let daemons: Vec<ObjectKey> = state.keys(ObjectKind::DaemonSet, "").map(|(k, _)| k.clone()).collect();
            state.dirty.extend(daemons);
        }
    }
    let object = state.get(&key).cloned().unwrap_or(object);
    Ok(SimResponse::json(201, shown(state, kind, &object)))
}

/// PUT: the whole object anew.
pub(super) fn update(
    state: &mut FleetState,
    key: &ObjectKey,
    mut new: Value,
    writer: &WriteOptions<'_>,
) -> Result<SimResponse, SimResponse> {
    let old = state.get(key).ok_or_else(|| SimResponse::not_found(key.kind, &key.name))?.clone();
    strip_type(&mut new);
    precondition(key, &old, &new)?;
    new["status"] = old["status"].clone();
    store(state, key, &old, new, writer)
}

/// PATCH in any of the four content types; server-side apply is taken as a strategic merge.
pub(super) fn patch(
    state: &mut FleetState,
    key: &ObjectKey,
    content: &str,
    body: &Value,
    writer: &WriteOptions<'_>,
) -> Result<SimResponse, SimResponse> {
    let old = state.get(key).ok_or_else(|| SimResponse::not_found(key.kind, &key.name))?.clone();
    let mut new = old.clone();
    match content.split(';').next().unwrap_or_default().trim() {
        "application/json-patch+json" => json_patch(&mut new, body).map_err(|why| {
            SimResponse::refusal(422, "Invalid", format!("the server rejected our request: {why}"), Value::Null)
        })?,
        "application/merge-patch+json" => merge(&mut new, body),
        "application/strategic-merge-patch+json" | "application/apply-patch+yaml" => strategic(&mut new, body),
        other => {
            let message = format!("the body of the request was in an unknown format: {other}");
            return Err(SimResponse::refusal(415, "UnsupportedMediaType", message, json!({})));
        }
    }
    precondition(key, &old, &new)?;
    strip_type(&mut new);
    store(state, key, &old, new, writer)
}

fn strip_type(object: &mut Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

fn precondition(key: &ObjectKey, old: &Value, new: &Value) -> Result<(), SimResponse> {
    let (had, wants) = (text(old, "/metadata/resourceVersion"), text(new, "/metadata/resourceVersion"));
    if !wants.is_empty() && had != wants {
        return Err(SimResponse::modified(key.kind, &key.name));
    }
    let (had, wants) = (text(old, "/metadata/uid"), text(new, "/metadata/uid"));
    if !wants.is_empty() && had != wants {
        return Err(SimResponse::precondition(key.kind, &key.name, "UID", wants, had));
    }
    Ok(())
}

fn store(
    state: &mut FleetState,
    key: &ObjectKey,
    old: &Value,
    mut new: Value,
    writer: &WriteOptions<'_>,
) -> Result<SimResponse, SimResponse> {
    if text(&new, "/metadata/name") != key.name {
        return Err(SimResponse::bad_request("the name of the object does not match the name on the URL"));
    }
    for fixed in ["uid", "creationTimestamp", "generation", "namespace", "resourceVersion"] {
        match old["metadata"].get(fixed) {
            Some(value) => new["metadata"][fixed] = value.clone(),
            None => drop(new["metadata"].as_object_mut().map(|m| m.remove(fixed))),
        }
    }
    if key.kind == ObjectKind::Node {
        // An unschedulable node gets its taint from a controller, whatever the writer sends.
        tidy_node(&mut new);
    }
    check(key.kind, &new)?;
    let change = difference(old, &new);
    if !writer.dry_run {
        let changed = state.put(key.kind, new.clone());
        note(state, key, change.unwrap_or(Value::Null), changed, writer);
        new = state.get(key).cloned().unwrap_or(new);
    }
    Ok(SimResponse::ok(shown(state, key.kind, &new)))
}

fn check(kind: ObjectKind, object: &Value) -> Result<(), SimResponse> {
    let name = text(object, "/metadata/name");
    for (key, value) in texts(object, "/metadata/labels") {
        if !is_label_value(&value) || key.is_empty() || key.len() > 317 {
            let why = format!(
                "Invalid value: \"{value}\": a valid label must be an empty string or consist of alphanumeric \
                 characters, '-', '_' or '.', and must start and end with an alphanumeric character"
            );
            return Err(SimResponse::invalid(kind, name, "metadata.labels", &why));
        }
    }
    for field in ["labels", "annotations"] {
        let map = object["metadata"].get(field).and_then(Value::as_object);
        if map.is_some_and(|map| map.values().any(|value| !value.is_string())) {
            let message =
                format!("json: cannot unmarshal into Go struct field ObjectMeta.metadata.{field} of type string");
            return Err(SimResponse::bad_request(message));
        }
    }
    match taint_error(object).filter(|_| kind == ObjectKind::Node) {
        Some(why) => Err(SimResponse::invalid(kind, name, "spec.taints", &why)),
        None => Ok(()),
    }
}

fn is_label_value(value: &str) -> bool {
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    value.len() <= 63
        && ends(value.chars().next())
        && ends(value.chars().next_back())
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Writes an accepted change down.
pub(super) fn note(state: &mut FleetState, key: &ObjectKey, change: Value, changed: bool, writer: &WriteOptions<'_>) {
    // Renewals are no effects: kubelets and engines make them all the time.
    if writer.dry_run || key.kind == ObjectKind::Lease {
        return;
    }
    let plural = key.kind.resource().plural;
    let applied = AppliedChange {
        sequence: 0,
        at: state.now,
        verb: writer.verb.to_owned(),
        resource: if writer.status { format!("{plural}/status") } else { plural.to_owned() },
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        change: if changed { change } else { Value::Null },
        changed,
        by: writer.by.to_owned(),
        reply_lost: false,
    };
    state.effects.add(applied);
}
