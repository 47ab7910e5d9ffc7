//! `cache::warm` by a Job, on a real API server with its Job controller, scheduler and pod security.
//!
//! Invariant: what the API server refuses or lets pass is what a user's cluster would.

use super::kube_cases::{cache_job, call};
use super::*;
use nightshift::world::CacheJob;

fn warm(stage: &Stage) -> ActionCall {
    call("cache::warm", &[("models", json!("/models/llama")), ("node", json!(stage.node(1))), ("via", json!("job"))])
}

/// The stage with its namespace held to a standard, and Jobs that are made with these settings.
async fn held_to(standard: &str, change: impl FnOnce(&mut CacheJob)) -> Stage {
    let mut stage = Stage::with(vec![Server::new("mistral-7b", 1)]).await;
    let labels = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": standard } } });
    stage.admin.patch(&format!("/api/v1/namespaces/{}", stage.id), &labels).await;
    let mut settings = cache_job(&stage.id);
    change(&mut settings);
    let accounts = accounts(stage.plane, &stage.admin).await;
    let token_file = Some(accounts.engine.clone());
    let config = KubeConfig { url: stage.proxy.url(), token_file, cache_job: Some(settings), ..KubeConfig::default() };
    let kube = KubeClient::connect(&config, &stage.world.identity).await.unwrap();
    stage.world.clusters = [("default".to_owned(), kube)].into();
    stage
}

#[tokio::test]
async fn with_a_claim_a_job_holds_to_the_restricted_standard_and_runs_on_the_node_that_was_named() {
    let stage = held_to("restricted", |job| {
        job.host_path = None;
        job.claim = Some("models".to_owned());
    })
    .await;
    let spec = json!({
        "capacity": { "storage": "1Gi" }, "accessModes": ["ReadOnlyMany"], "storageClassName": "",
        "hostPath": { "path": "/models" }, "claimRef": { "namespace": stage.id, "name": "models" },
    });
    let volume =
        json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": stage.id }, "spec": spec });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "namespace": stage.id, "name": "models" },
        "spec": {
            "accessModes": ["ReadOnlyMany"], "storageClassName": "", "volumeName": stage.id,
            "resources": { "requests": { "storage": "1Gi" } },
        },
    });
    stage.admin.apply_strictly(&volume).await;
    stage.admin.apply_strictly(&claim).await;
    let value = ok(stage.run(warm(&stage)).await);
    assert_eq!((&value["resident"], &value["via"]), (&json!(1.0), &json!("job")));
    let pods =
        stage.admin.get(&format!("/api/v1/namespaces/{0}/pods?labelSelector=nightshift.dev/job", stage.id)).await;
    let [pod] = pods["items"].as_array().unwrap().as_slice() else { panic!("{pods}") };
    assert_eq!((&pod["spec"]["nodeName"], &pod["status"]["phase"]), (&json!(stage.node(1)), &json!("Succeeded")));
    // The manifest as it is, in the API server's strictest reading.
    let jobs = stage.admin.get(&format!("/apis/batch/v1/namespaces/{}/jobs", stage.id)).await;
    assert_eq!(jobs["items"].as_array().unwrap().len(), 1);
    stage.admin.delete(&format!("/api/v1/persistentvolumes/{}", stage.id)).await;
}

#[tokio::test]
async fn a_cancelled_run_takes_its_job_and_the_pod_away() {
    let stage = held_to("privileged", |_| {}).await;
    // So that the pod does not end before it is stopped.
    stage.plane.kubelet().treat(&stage.node(1), |manners| manners.silent = true).await;
    let mut step = stage.begin(warm(&stage)).await;
    // The way is chosen, the Job is made, and it is looked at once more.
    for _ in 0..3 {
        let performed = find("cache::warm").unwrap().perform(&stage.world, &step).await;
        let PerformResult::Again { carry, .. } = performed else { break };
        step.carry = carry;
    }
    assert_eq!(step.carry["made"], true, "{}", step.carry);
    refused(stopped(&stage, &step).await, FailureKind::Refused, "was deleted");
    refused(stopped(&stage, &step).await, FailureKind::Refused, "is not there");
    let jobs = stage.admin.get(&format!("/apis/batch/v1/namespaces/{}/jobs", stage.id)).await;
    assert_eq!(jobs["items"].as_array().unwrap().len(), 0, "{jobs}");
    stage.plane.kubelet().treat(&stage.node(1), |manners| manners.silent = false).await;
}

async fn stopped(stage: &Stage, step: &Step) -> Outcome {
    loop {
        match find("cache::warm").unwrap().stop(&stage.world, step).await {
            Some(PerformResult::Done(outcome)) => return outcome,
            Some(PerformResult::Again { after, .. }) => stage.clock.advance(after),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_folder_of_the_node_in_a_restricted_namespace_is_refused_with_the_label_to_set() {
    let stage = held_to("restricted", |_| {}).await;
    refused(stage.run(warm(&stage)).await, FailureKind::Refused, "pod-security.kubernetes.io/enforce: privileged");
}

#[tokio::test]
async fn a_job_that_fails_is_told_in_the_last_words_of_its_pod() {
    let stage = held_to("privileged", |_| {}).await;
    let said = r#"{"failed":{"kind":"refused","message":"the model needs 9 GiB of memory"}}"#;
    stage.plane.kubelet().treat(&stage.node(1), |manners| manners.job = Some((1, said))).await;
    refused(stage.run(warm(&stage)).await, FailureKind::Refused, "the model needs 9 GiB of memory (Job ");
}
