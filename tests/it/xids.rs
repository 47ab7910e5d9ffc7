//! XID 13 and 31, whose repeats decide whose fault they are, through the shipped rules and the real store.
//!
//! Invariant: what began is counted in runs; a fault ends before the next one begins, as the agent says it.

use crate::night::Night;
use nightshift::model::{Event, EventStatus, LabelMap, Labels, Severity, Subject, Time};
use std::path::Path;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);

async fn night() -> Night {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/gpu.yaml");
    Night::fall_on_shipped(&std::fs::read_to_string(file).unwrap()).await
}

/// One fault, from its beginning to its end: the runbooks that it began.
async fn fault(night: &Night, xid: &str, gpu: &str, place: Option<(&str, &str)>) -> Vec<String> {
    let mut labels = vec![("alertname", "GpuXid"), ("xid", xid), ("node", "gpu-2"), ("gpu", gpu)];
    if let Some((gpc, tpc)) = place {
        labels.extend([("gpc", gpc), ("tpc", tpc)]);
    }
    let begun = night.now();
    let heard = night.hear_events(vec![event(&labels, EventStatus::Firing, begun)]).await;
    night.pass(Duration::from_secs(60)).await;
    night.hear_events(vec![Event { ends_at: Some(night.now()), ..event(&labels, EventStatus::Resolved, begun) }]).await;
    let mut began = Vec::new();
    for run in heard.runs {
        began.push(night.run(run).await.runbook.name);
    }
    began
}

fn event(labels: &[(&str, &str)], status: EventStatus, starts_at: Time) -> Event {
    let labels: Labels = labels.iter().copied().collect();
    Event {
        source: "test".to_owned(),
        fingerprint: format!("{:016x}", labels.fingerprint()),
        status,
        starts_at,
        ends_at: None,
        subject: Subject::from_labels(&labels, &LabelMap::default()),
        labels,
        annotations: Labels::default(),
        severity: Severity::Warning,
        summary: "an XID".to_owned(),
        url: String::new(),
    }
}

#[tokio::test]
async fn a_graphics_exception_is_the_gpus_when_it_comes_back_in_the_same_tpc_within_a_day() {
    let night = night().await;
    assert!(fault(&night, "13", "1", Some(("1", "3"))).await.is_empty(), "the first is the application's");
    assert!(fault(&night, "13", "1", Some(("1", "4"))).await.is_empty(), "another TPC");
    assert!(fault(&night, "13", "2", Some(("1", "3"))).await.is_empty(), "another GPU");
    night.pass(23 * HOUR).await;
    assert_eq!(fault(&night, "13", "1", Some(("1", "3"))).await, ["gpu-suspect"]);
    night.pass(2 * HOUR).await;
    assert!(fault(&night, "13", "1", Some(("1", "4"))).await.is_empty(), "more than a day after its first");
}

#[tokio::test]
async fn a_page_fault_is_the_gpus_when_it_comes_back_on_it_within_a_day() {
    let night = night().await;
    assert!(fault(&night, "31", "1", None).await.is_empty());
    assert!(fault(&night, "31", "2", None).await.is_empty());
    night.pass(25 * HOUR).await;
    assert!(fault(&night, "31", "1", None).await.is_empty(), "a day is over");
    night.pass(HOUR).await;
    assert_eq!(fault(&night, "31", "1", None).await, ["gpu-suspect"]);
}

#[tokio::test]
async fn a_code_that_nobody_knows_is_told_and_nothing_is_done() {
    let night = night().await;
    assert!(fault(&night, "999", "1", None).await.is_empty());
    assert!(night.effects().is_empty(), "{:?}", night.effects());
    let told = night.entries().await.into_iter().filter(|entry| entry.kind.name() == "incident_opened").count();
    assert_eq!(told, 1);
}
