//! `k8s::taint`: keeps pods off a node, or drives them away, by a taint of our own.
//!
//! Invariant: the other taints are sent back exactly as they came, in a patch conditional on the node that was read.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, k8s_untaint, keys, rights};
use crate::model::{ActionCall, CapacityLoss, Outcome, Step, StepFailure};
use crate::world::{Node, World, WorldError};
use serde_json::{Value, json};

pub(super) struct K8sTaint;

pub(super) const NAME: &str = "k8s::taint";

static SPEC: ActionSpec = ActionSpec {
    name: NAME,
    doc: "Sets a taint on a node. With `NoExecute` the pods that do not tolerate it are driven away at once; the chart's \
          admission policy allows that only for keys of `admissionPolicy.extraKeys`.",
    params: &[
        args::NODE,
        args::required("key", ParamType::String, "the key, as `domain/name`"),
        args::required("value", ParamType::String, "the value; may be empty"),
        args::required("effect", ParamType::String, "`NoSchedule`, `PreferNoSchedule` or `NoExecute`"),
    ],
    options: &[],
    returns: "#{changed, before}; before is the taint of that key and effect, or ()",
    effect: EffectClass::Converge,
    reach: ImpactScope::Node,
    disruptive: true,
    target: TargetKind::Node,
    takes: CapacityKind::Node("emptying it by a taint"),
    scheduling: SchedulingEffect::Withdraw,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "taint {target}{details}", done: Some("tainted {target}{details}") },
    permissions: rights::PATCH_NODE,
    undo: Some(k8s_untaint::NAME),
    deadline: Span::seconds(45),
};

pub(super) const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

#[async_trait::async_trait]
impl Action for K8sTaint {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    fn takes(&self, call: &ActionCall) -> CapacityLoss {
        // The others only keep new pods away.
        if call.text("effect") == "NoExecute" { args::takes_of_node(call, false) } else { CapacityLoss::Nothing }
    }

    async fn witness(&self, world: &World, call: &ActionCall) -> Result<Value, WorldError> {
        let node = world.kube(None)?.node(call.text("node")).await?;
        Ok(json!({ "before": found(&node, call.text("key"), call.text("effect")) }))
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(
            async {
                let wanted = wanted(call)?;
                let node = world.kube(None)?.node(args::text(call, "node")?).await?;
                let before = found(&node, call.text("key"), call.text("effect"));
                let missing = wanted.iter().any(|taint| !is_there(&node, taint));
                Ok(json!({ "changed": missing, "before": before }))
            }
            .await,
        )
    }

    fn undo(&self, step: &Step) -> Option<ActionCall> {
        let before = super::changed_from(step)?;
        let arg = |name: &str| step.call.args.get(name).cloned().unwrap_or_default();
        let (node, key, effect) = (arg("node"), arg("key"), arg("effect"));
        Some(if before.is_null() {
            let args = [("node", node), ("key", key), ("effect", effect), ("if_value", arg("value"))];
            ActionCall::new(k8s_untaint::NAME, args)
        } else {
            let value = before.get("value").cloned().unwrap_or_else(|| json!(""));
            ActionCall::new(NAME, [("node", node), ("key", key), ("value", value), ("effect", effect)])
        })
    }
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let kube = world.kube(None)?;
    let name = args::text(&step.call, "node")?;
    let wanted = wanted(&step.call)?;
    let node = kube.node(name).await?;
    let now = found(&node, step.call.text("key"), step.call.text("effect"));
    if wanted.iter().all(|taint| is_there(&node, taint)) {
        let before = step.carry.get("before").unwrap_or(&now);
        let changed = !before.is_object() || before["value"].as_str() != now["value"].as_str();
        let changed = changed && step.carry.get("before").is_some();
        return Ok(done(json!({ "changed": changed, "before": before })));
    }
    let same = |a: &Value, b: &Value| a["key"] == b["key"] && a["effect"] == b["effect"];
    let mut taints: Vec<Value> =
        node.taints_sent.iter().filter(|taint| !wanted.iter().any(|w| same(w, taint))).cloned().collect();
    taints.extend(wanted);
    kube.patch_node(name, json!({ "spec": { "taints": taints } }), Some(&node.resource_version)).await?;
    Ok(done(json!({ "changed": true, "before": now })))
}

/// The taints to set: one, or those that an undo of `k8s::untaint` puts back.
fn wanted(call: &ActionCall) -> Result<Vec<Value>, StepFailure> {
    let key = args::text(call, "key")?;
    keys::check_key(key)?;
    if let Some(Value::Array(restore)) = call.args.get("restore") {
        return Ok(restore.iter().filter(|taint| taint["key"] == json!(key)).cloned().collect());
    }
    let value = call.text("value");
    keys::check_label_value(value)?;
    args::text(call, "effect")?;
    let effect = args::choice(call, "effect", &EFFECTS)?;
    Ok(vec![json!({ "key": key, "value": value, "effect": effect })])
}

fn found(node: &Node, key: &str, effect: &str) -> Value {
    let it = node.taints_sent.iter().find(|taint| taint["key"] == json!(key) && taint["effect"] == json!(effect));
    it.cloned().unwrap_or_default()
}

fn is_there(node: &Node, wanted: &Value) -> bool {
    let text = |name: &str| wanted[name].as_str().unwrap_or_default();
    node.taints.iter().any(|(k, v, e)| k == text("key") && v == text("value") && e == text("effect"))
}
