//! What the chart makes for the Prometheus operator, taken by the operator's own definitions.
//!
//! Invariant: strictly applied, so a field that the operator does not know is refused.

use super::{NAMESPACE, render};
use crate::harness::{eventually, tools};
use crate::plane::{ControlPlane, Options};
use serde_json::Value;

#[tokio::test]
async fn a_service_monitor_and_the_alert_rules_are_what_the_prometheus_operator_defines() {
    let plane = ControlPlane::start(Options::default()).await;
    let admin = plane.admin().await;
    admin.namespace(NAMESPACE).await;
    for kind in ["servicemonitors", "prometheusrules"] {
        let file = tools().join("crds").join(format!("{kind}.yaml"));
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}: run `tools/fetch-crds.sh` first", file.display()));
        let definition: Value = serde_saphyr::from_str(&text).unwrap();
        admin.apply(&definition).await;
        let path = format!("/apis/monitoring.coreos.com/v1/namespaces/{NAMESPACE}/{kind}");
        eventually("the kind is served", async || {
            let (status, _) = admin.ask(http::Method::GET, &path, None).await.unwrap();
            (status == 200).then_some(())
        })
        .await;
    }
    let sets = [
        "--set",
        "exposure=mesh,serviceMonitor.enabled=true,prometheusRule.enabled=true",
        "--set",
        "serviceMonitor.token.name=tokens,serviceMonitor.token.key=prometheus",
    ];
    let objects = render(&sets);
    let made: Vec<&Value> =
        objects.iter().filter(|object| object["apiVersion"] == "monitoring.coreos.com/v1").collect();
    assert_eq!(made.iter().map(|object| object["kind"].as_str().unwrap()).collect::<Vec<_>>().len(), 2, "{made:#?}");
    for object in made {
        admin.apply_strictly(object).await;
    }
    let rules = admin.get(&format!("/apis/monitoring.coreos.com/v1/namespaces/{NAMESPACE}/prometheusrules")).await;
    let groups = rules["items"][0]["spec"]["groups"].as_array().unwrap();
    assert!(groups.len() >= 4, "the four layers: {groups:#?}");
}
