//! Shared parts of `k8s::label` and `k8s::annotate`: one key of a node's metadata, set, or removed to undo.
//!
//! Invariant: a write is conditional on the node that was read, and an undo changes only keys that are still as we left
//! them.

use super::PerformResult;
use super::answer::{ActionResult, done};
use super::{args, keys};
use crate::model::{ActionCall, Step, StepFailure};
use crate::world::{Node, World, WorldError};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Which part of the metadata.
#[derive(Clone, Copy)]
pub(super) enum MetadataKind {
    Labels,
    Annotations,
}

impl MetadataKind {
    fn name(self) -> &'static str {
        match self {
            MetadataKind::Labels => "labels",
            MetadataKind::Annotations => "annotations",
        }
    }

    fn of(self, node: &Node) -> &BTreeMap<String, String> {
        match self {
            MetadataKind::Labels => &node.labels,
            MetadataKind::Annotations => &node.annotations,
        }
    }
}

/// A checked call: set the key to the value, or remove it.
struct MetadataChange<'a> {
    node: &'a str,
    key: &'a str,
    value: Option<&'a str>,
    /// Only while the key has this value.
    if_value: Option<&'a str>,
}

fn wanted(part: MetadataKind, call: &ActionCall) -> Result<MetadataChange<'_>, StepFailure> {
    let key = args::text(call, "key")?;
    keys::check_key(key)?;
    let value = call.args.get("value").and_then(Value::as_str);
    match part {
        MetadataKind::Labels => keys::check_label_value(value.unwrap_or_default())?,
        MetadataKind::Annotations => keys::check_annotation_value(value.unwrap_or_default())?,
    }
    let if_value = call.args.get("if_value").and_then(Value::as_str);
    Ok(MetadataChange { node: args::text(call, "node")?, key, value, if_value })
}

pub(super) async fn witness(part: MetadataKind, world: &World, call: &ActionCall) -> Result<Value, WorldError> {
    let node = world.kube(None)?.node(call.text("node")).await?;
    Ok(json!({ "before": part.of(&node).get(call.text("key")) }))
}

pub(super) async fn perform(part: MetadataKind, world: &World, step: &Step) -> ActionResult<PerformResult> {
    let kube = world.kube(None)?;
    let wanted = wanted(part, &step.call)?;
    let node = kube.node(wanted.node).await?;
    let now = part.of(&node).get(wanted.key).map(String::as_str);
    if now == wanted.value {
        // So already: changed by an attempt of this step whose answer was lost if the witness saw another value.
        let before = step.carry.get("before").map_or(now, Value::as_str);
        return Ok(done(report(before != now, before)));
    }
    if moved_on(&wanted, now) {
        return Ok(done(report(false, now)));
    }
    let mut entry = serde_json::Map::new();
    entry.insert(wanted.key.to_owned(), json!(wanted.value));
    let patch = json!({ "metadata": { part.name(): entry } });
    kube.patch_node(wanted.node, patch, Some(&node.resource_version)).await?;
    Ok(done(report(true, now)))
}

pub(super) async fn predict(part: MetadataKind, world: &World, call: &ActionCall) -> ActionResult<Value> {
    let wanted = wanted(part, call)?;
    let node = world.kube(None)?.node(wanted.node).await?;
    let now = part.of(&node).get(wanted.key).map(String::as_str);
    Ok(report(now != wanted.value && !moved_on(&wanted, now), now))
}

pub(super) fn undo(step: &Step) -> Option<ActionCall> {
    let before = super::changed_from(step)?;
    let arg = |name: &str| step.call.args.get(name).cloned().unwrap_or_default();
    let args = [("node", arg("node")), ("key", arg("key")), ("value", before.clone()), ("if_value", arg("value"))];
    Some(ActionCall::new(&step.call.action, args))
}

fn moved_on(wanted: &MetadataChange<'_>, now: Option<&str>) -> bool {
    wanted.if_value.is_some() && wanted.if_value != now
}

fn report(changed: bool, before: Option<&str>) -> Value {
    json!({ "changed": changed, "before": before })
}
