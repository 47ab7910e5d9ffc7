//! Which waiting pods could run on a node, were there room: as the scheduler filters nodes by selector, required node
//! affinity and taints. Constraints between pods (anti-affinity, spread) and plain CPU and memory are not read.
//!
//! Invariant: a constraint that is not understood keeps a pod away, so that room is made only for one that can take it.

use serde_json::Value;
use std::collections::BTreeMap;

/// A node as the scheduler sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MigNode {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// key, value, effect
    pub taints: Vec<(String, String, String)>,
    /// Cordoned, and not by us, who give it back.
    pub shut: bool,
}

/// The nodes that a pod may run on, from its `spec`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeConstraints {
    pub selector: BTreeMap<String, String>,
    /// `nodeSelectorTerms` that are required; none: any node will do.
    pub terms: Option<Vec<Value>>,
    pub tolerations: Vec<Value>,
}

/// The taint that a cordon adds; the node controller writes it, and removes it again.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

impl NodeConstraints {
    /// The constraints in a pod's spec.
    pub fn of(spec: &Value) -> NodeConstraints {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let selector = spec["nodeSelector"].as_object().into_iter().flatten();
        let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        NodeConstraints {
            selector: selector.map(|(key, value)| (key.clone(), text(value).to_owned())).collect(),
            terms: (!required.is_null()).then(|| list(&required["nodeSelectorTerms"])),
            tolerations: list(&spec["tolerations"]),
        }
    }

    /// Whether the scheduler's filters would let the pod run on the node.
    pub fn allows(&self, node: &MigNode) -> bool {
        let same = self.selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
        let wanted = self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| meets(term, node)));
        let shut = node.shut.then(|| (UNSCHEDULABLE.to_owned(), String::new(), "NoSchedule".to_owned()));
        let kept = |(key, ..): &&(String, String, String)| key != UNSCHEDULABLE;
        let mut taints = node.taints.iter().filter(kept).chain(shut.iter());
        let welcome = taints.all(|taint| self.tolerations.iter().any(|one| tolerates(one, taint)) || is_mild(taint));
        same && wanted && welcome
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn is_mild((_, _, effect): &(String, String, String)) -> bool {
    effect == "PreferNoSchedule"
}

/// One term: all of it must hold, and an empty one holds nowhere.
fn meets(term: &Value, node: &MigNode) -> bool {
    let of = |name: &str| term[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let (labels, fields) = (of("matchExpressions"), of("matchFields"));
    let own_name = |rule: &Value| (text(&rule["key"]) == "metadata.name").then_some(node.name.as_str());
    let of_label = |rule: &Value| node.labels.get(text(&rule["key"])).map(String::as_str);
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|rule| holds(rule, of_label(rule)))
        && fields.iter().all(|rule| own_name(rule).is_some_and(|name| holds(rule, Some(name))))
}

fn holds(rule: &Value, found: Option<&str>) -> bool {
    let values = rule["values"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |found: &str| values.iter().any(|value| value.as_str() == Some(found));
    let compare = |right: fn(i64, i64) -> bool| match (found.map(str::parse), values) {
        (Some(Ok(found)), [bound]) => text(bound).parse().is_ok_and(|bound| right(found, bound)),
        _ => false,
    };
    match text(&rule["operator"]) {
        "In" => found.is_some_and(named),
        "NotIn" => !found.is_some_and(named),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(|found, bound| found > bound),
        "Lt" => compare(|found, bound| found < bound),
        _ => false,
    }
}

fn tolerates(toleration: &Value, (key, value, effect): &(String, String, String)) -> bool {
    let said = |name: &str| text(&toleration[name]);
    let any_key = said("key").is_empty() && said("operator") == "Exists";
    let same_value = match said("operator") {
        "Exists" => true,
        "" | "Equal" => said("value") == value,
        _ => false,
    };
    (any_key || said("key") == key) && same_value && (said("effect").is_empty() || said("effect") == effect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> MigNode {
        let labels = [("pool", "h100"), ("gpus", "8"), ("zone", "a")];
        MigNode {
            name: "gpu-1".to_owned(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..MigNode::default()
        }
    }

    fn rules(rules: &[Value]) -> Value {
        affinity(&json!([{ "matchExpressions": rules }]))
    }

    fn affinity(terms: &Value) -> Value {
        let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } });
        json!({ "affinity": { "nodeAffinity": required } })
    }

    #[test]
    fn selectors_and_required_affinity_are_read_as_the_scheduler_reads_them() {
        let check =
            |spec: Value, expect: bool| assert_eq!(NodeConstraints::of(&spec).allows(&node()), expect, "{spec}");
        let rule =
            |key: &str, operator: &str, values: &[&str]| json!({ "key": key, "operator": operator, "values": values });
        check(json!({}), true);
        check(json!({ "nodeSelector": { "pool": "h100", "zone": "a" } }), true);
        check(json!({ "nodeSelector": { "pool": "h100", "zone": "b" } }), false);
        check(rules(&[rule("pool", "In", &["a100", "h100"])]), true);
        check(rules(&[rule("pool", "In", &["a100"])]), false);
        check(rules(&[rule("pool", "NotIn", &["h100"])]), false);
        check(rules(&[rule("rack", "NotIn", &["7"])]), true);
        check(rules(&[rule("rack", "Exists", &[])]), false);
        check(rules(&[rule("rack", "DoesNotExist", &[])]), true);
        check(rules(&[rule("gpus", "Gt", &["4"])]), true);
        check(rules(&[rule("gpus", "Gt", &["8"])]), false);
        check(rules(&[rule("gpus", "Lt", &["9"])]), true);
        check(rules(&[rule("pool", "Lt", &["9"])]), false);
        check(rules(&[rule("pool", "Resembles", &["h100"])]), false);
        // All of a term, any of the terms; an empty term and an empty list hold nowhere.
        check(rules(&[rule("pool", "Exists", &[]), rule("zone", "In", &["b"])]), false);
        check(
            affinity(
                &json!([{ "matchExpressions": [rule("zone", "In", &["b"])] }, { "matchExpressions": [rule("pool", "Exists", &[])] }]),
            ),
            true,
        );
        check(affinity(&json!([{}])), false);
        check(affinity(&json!([])), false);
        check(affinity(&json!([{ "matchFields": [rule("metadata.name", "In", &["gpu-1"])] }])), true);
        check(affinity(&json!([{ "matchFields": [rule("metadata.name", "NotIn", &["gpu-1"])] }])), false);
        check(affinity(&json!([{ "matchFields": [rule("metadata.uid", "NotIn", &["x"])] }])), false);
        // A preference excludes no pod.
        check(
            json!({ "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{}] } } }),
            true,
        );
    }

    #[test]
    fn a_taint_keeps_away_who_does_not_tolerate_it() {
        let check = |tolerations: Value, taint: (&str, &str, &str), expect: bool| {
            let (key, value, effect) = taint;
            let node = MigNode { taints: vec![(key.to_owned(), value.to_owned(), effect.to_owned())], ..node() };
            let spec = json!({ "tolerations": tolerations });
            assert_eq!(NodeConstraints::of(&spec).allows(&node), expect, "{spec} {taint:?}");
        };
        let gpu = ("nvidia.com/gpu", "present", "NoSchedule");
        check(json!([]), gpu, false);
        check(json!([]), ("nvidia.com/gpu", "present", "NoExecute"), false);
        check(json!([]), ("nvidia.com/gpu", "present", "PreferNoSchedule"), true);
        check(json!([{ "key": "nvidia.com/gpu", "operator": "Exists" }]), gpu, true);
        check(json!([{ "operator": "Exists" }]), gpu, true);
        check(json!([{ "operator": "Exists", "effect": "NoExecute" }]), gpu, false);
        check(json!([{ "key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule" }]), gpu, true);
        check(json!([{ "key": "nvidia.com/gpu", "operator": "Equal", "value": "absent" }]), gpu, false);
        check(json!([{ "key": "nvidia.com/gpu", "operator": "Near", "value": "present" }]), gpu, false);
        check(json!([{ "key": "other", "operator": "Exists" }]), gpu, false);
    }

    #[test]
    fn a_cordon_keeps_pods_away_unless_it_is_ours_to_lift() {
        let taint = (UNSCHEDULABLE.to_owned(), String::new(), "NoSchedule".to_owned());
        let ours = MigNode { taints: vec![taint], ..node() };
        let theirs = MigNode { shut: true, ..ours.clone() };
        let plain = NodeConstraints::default();
        assert!(plain.allows(&ours) && !plain.allows(&theirs));
        let daemon = NodeConstraints::of(&json!({ "tolerations": [{ "key": UNSCHEDULABLE, "operator": "Exists" }] }));
        assert!(daemon.allows(&theirs));
    }

    proptest::proptest! {
        /// A demand more never makes room elsewhere: whatever more a pod asks for, it may run on no more nodes.
        #[test]
        fn asking_for_more_never_opens_a_node(key in "[a-c]", value in "[xy]", operator in "In|NotIn|Exists|DoesNotExist|Gt|Lt|Odd", label in "[a-c]") {
            let node = MigNode { labels: [(label, "x".to_owned())].into(), ..node() };
            let rule = json!({ "key": key, "operator": operator, "values": [value] });
            let once = NodeConstraints::of(&rules(std::slice::from_ref(&rule)));
            let more = NodeConstraints::of(&rules(&[rule.clone(), json!({ "key": "a", "operator": "In", "values": ["x"] })]));
            proptest::prop_assert!(once.allows(&node) || !more.allows(&node));
            // And what is asked for is what is met: the opposite never holds as well.
            let opposite = match operator.as_str() { "In" => "NotIn", "NotIn" => "In", "Exists" => "DoesNotExist", "DoesNotExist" => "Exists", _ => return Ok(()) };
            let other = NodeConstraints::of(&rules(&[json!({ "key": key, "operator": opposite, "values": [value] })]));
            proptest::prop_assert_ne!(once.allows(&node), other.allows(&node));
        }
    }
}
