//! Disruption budgets and pods that wait for devices: the input of a plan that moves pods.
//!
//! Invariant: a budget whose selector is not understood protects every pod of its namespace.

use super::answer::KubeRequest;
use super::{KubeClient, WorldError};
use crate::limits;
use crate::policy::NodeConstraints;
use serde_json::Value;
use std::collections::BTreeMap;

/// A disruption budget as it stands now.
#[derive(Debug, Clone, PartialEq)]
pub struct DisruptionBudget {
    pub namespace: String,
    /// `spec.selector`, as the API sent it.
    pub selector: Value,
    /// `status.disruptionsAllowed`.
    pub allowed: u32,
}

impl DisruptionBudget {
    /// Whether pods with these labels are protected by it.
    pub fn protects(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        // An empty selector means all pods, none at all means no pod.
        self.namespace == namespace && !self.selector.is_null() && matches(&self.selector, labels)
    }
}

/// A pod that no node has room for.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitingPod {
    pub namespace: String,
    pub name: String,
    pub seating: NodeConstraints,
    /// `nvidia.com/mig-…` in its requests.
    pub devices: BTreeMap<String, u32>,
}

impl KubeClient {
    /// All budgets.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses, or there are more than `BUDGETS`.
    pub async fn budgets(&self) -> Result<Vec<DisruptionBudget>, WorldError> {
        let asked = KubeRequest::new("list", "policy", "poddisruptionbudgets", "");
        let mut budgets = Vec::new();
        let mut each = |budget: Value| {
            budgets.push(DisruptionBudget {
                namespace: budget["metadata"]["namespace"].as_str().unwrap_or_default().to_owned(),
                selector: budget["spec"]["selector"].clone(),
                allowed: count(&budget["status"]["disruptionsAllowed"]).unwrap_or(0),
            });
        };
        self.pages(asked, "/apis/policy/v1/poddisruptionbudgets", "", limits::BUDGETS, &mut each).await?;
        Ok(budgets)
    }

    /// Pods that the scheduler has no place for and that request MIG devices.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses, or there are more than `PODS`.
    pub async fn waiting_for_mig(&self) -> Result<Vec<WaitingPod>, WorldError> {
        let asked = KubeRequest::new("list", "", "pods", "");
        let mut pods = Vec::new();
        let mut each = |pod: Value| pods.extend(waiting(&pod));
        self.pages(asked, "/api/v1/pods", "fieldSelector=status.phase%3DPending", limits::PODS, &mut each).await?;
        Ok(pods)
    }
}

fn count(value: &Value) -> Option<u32> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    u32::try_from(number).ok()
}

fn waiting(pod: &Value) -> Option<WaitingPod> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    // One that a gate holds back is not to be scheduled yet.
    let unseated = conditions
        .any(|one| one["type"] == "PodScheduled" && one["status"] == "False" && one["reason"] != "SchedulingGated");
    if !unseated || pod["metadata"]["deletionTimestamp"].is_string() {
        return None;
    }
    let mut devices: BTreeMap<String, u32> = BTreeMap::new();
    for (name, amount) in slices(&pod["spec"]["containers"]) {
        *devices.entry(name.clone()).or_insert(0) += amount;
    }
    // Those run one after another before the others, with the same devices.
    for (name, amount) in slices(&pod["spec"]["initContainers"]) {
        let most = devices.entry(name.clone()).or_insert(0);
        *most = amount.max(*most);
    }
    (!devices.is_empty()).then(|| WaitingPod {
        namespace: text(&pod["metadata"]["namespace"]),
        name: text(&pod["metadata"]["name"]),
        seating: NodeConstraints::of(&pod["spec"]),
        devices,
    })
}

fn slices(containers: &Value) -> impl Iterator<Item = (&String, u32)> {
    let all = containers.as_array().into_iter().flatten();
    let all = all.flat_map(|one| one["resources"]["limits"].as_object().into_iter().flatten());
    all.filter(|(name, _)| name.starts_with("nvidia.com/mig-"))
        .filter_map(|(name, amount)| Some((name, count(amount)?)))
}

/// A label selector, as in an object.
fn matches(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    let mut exact = selector["matchLabels"].as_object().into_iter().flatten();
    let same = exact.all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str());
    let mut rules = selector["matchExpressions"].as_array().into_iter().flatten();
    same && rules.all(|rule| {
        let found = labels.get(rule["key"].as_str().unwrap_or_default());
        let named =
            |found: &String| rule["values"].as_array().into_iter().flatten().any(|value| value == found.as_str());
        match rule["operator"].as_str().unwrap_or_default() {
            "In" => found.is_some_and(named),
            "NotIn" => !found.is_some_and(named),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_budget_protects_the_pods_that_its_selector_means() {
        let labels: BTreeMap<String, String> =
            [("app".to_owned(), "llama".to_owned()), ("tier".to_owned(), "gold".to_owned())].into();
        let check = |selector: Value, expect: bool| {
            let budget = DisruptionBudget { namespace: "prod".to_owned(), selector: selector.clone(), allowed: 0 };
            assert_eq!(budget.protects("prod", &labels), expect, "{selector}");
            assert!(!budget.protects("test", &labels));
        };
        let rule = |operator: &str, values: &[&str]| json!({ "matchExpressions": [{ "key": "tier", "operator": operator, "values": values }] });
        check(json!({}), true);
        check(Value::Null, false);
        check(json!({ "matchLabels": { "app": "llama" } }), true);
        check(json!({ "matchLabels": { "app": "mistral" } }), false);
        check(rule("In", &["gold", "silver"]), true);
        check(rule("In", &["silver"]), false);
        check(rule("NotIn", &["silver"]), true);
        check(rule("Exists", &[]), true);
        check(rule("DoesNotExist", &[]), false);
        check(rule("Resembles", &["x"]), true);
    }

    #[test]
    fn a_pod_waits_when_no_node_has_room_and_it_asks_for_slices() {
        let pod = |scheduled: &str, limits: Value| {
            waiting(&json!({
                "metadata": { "namespace": "prod", "name": "llm-0" },
                "spec": {
                    "nodeSelector": { "pool": "h100" },
                    "initContainers": [{ "resources": { "limits": { "nvidia.com/mig-1g.10gb": 2, "nvidia.com/mig-2g.20gb": 1 } } }],
                    "containers": [{ "resources": { "limits": limits } }, { "resources": { "limits": { "nvidia.com/mig-1g.10gb": 1 } } }],
                },
                "status": { "conditions": [{ "type": "PodScheduled", "status": scheduled }] },
            }))
        };
        let found =
            pod("False", json!({ "nvidia.com/mig-1g.10gb": "2", "nvidia.com/gpu": "1", "memory": "4Gi" })).unwrap();
        let slices = [("nvidia.com/mig-1g.10gb".to_owned(), 3), ("nvidia.com/mig-2g.20gb".to_owned(), 1)];
        assert_eq!(
            found.devices,
            BTreeMap::from(slices),
            "those of the first and of the later containers are the same"
        );
        assert_eq!(found.seating.selector["pool"], "h100");
        assert_eq!(pod("True", json!({})), None);
        let gated = json!({ "type": "PodScheduled", "status": "False", "reason": "SchedulingGated" });
        let asks = json!([{ "resources": { "limits": { "nvidia.com/mig-1g.10gb": 1 } } }]);
        assert_eq!(waiting(&json!({ "spec": { "containers": asks }, "status": { "conditions": [gated] } })), None);
    }
}
