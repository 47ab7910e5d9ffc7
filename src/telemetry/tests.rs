//! The table of metrics against the page that is served.
//!
//! Invariant: what one names the other has, and nothing more.

use super::*;
use crate::policy::EngineReadError;

#[test]
fn the_table_and_the_page_name_the_same_metrics() {
    let metrics = Metrics::new();
    metrics.shed(Shed::Busy);
    metrics.refused(Refused::Slow);
    metrics.acked(100, Duration::from_millis(3));
    metrics.heard(100, 40, 10);
    metrics.know_sources(["prod"]);
    metrics.unmatched("prod", 2);
    metrics.unmatched("made-up-by-a-sender", 1);
    metrics.step(Phase::Begin, Duration::from_millis(2));
    metrics.effect(EffectClass::Keyed, Ended::Ok);
    metrics.ambiguous(EffectClass::Blind, Settled::Asked);
    metrics.fenced(Fence::Store);
    metrics.invariant_violated();
    metrics.action_refused(ReasonCode::BlastRadius);
    metrics.run_ended("done");
    metrics.judged(Verdict::Right);
    metrics.set_levels(&StoreGauges::default());
    metrics.set_agents(3, 1);
    metrics.budget(Budget::AtOnce, 1.0, 2.0);
    metrics.delivery(ChannelKind::Slack, Delivered::Retry);
    metrics.slack_answered(SlackDoor::Command, Duration::from_millis(3));
    metrics.slack_opened(false);
    metrics.probed(EngineKind::Vllm, ProbeResult::Unread(EngineReadError::Garbage));
    metrics.set_probes(EngineKind::Vllm, &ProbeLevels { targets: 2, up: 1, oldest_seconds: 3.0 });
    metrics.warmed(Via::Job, Ended::Ok, 30.0, 1 << 30, Some(1.0));
    let page = metrics.render();
    for metric in TABLE {
        let line = format!("# HELP nightshift_{} ", metric.name);
        assert!(page.contains(&line), "{} is not on the page", metric.name);
    }
    assert_eq!(page.matches("# HELP ").count(), TABLE.len());
    assert!(page.contains("nightshift_events_stored_total 50"), "{page}");
    assert!(page.contains("nightshift_events_duplicate_total 40"), "{page}");
    assert!(page.contains(r#"nightshift_ingest_shed_total{reason="busy"} 1"#), "{page}");
    assert!(page.contains(r#"nightshift_events_unmatched_total{source="prod"} 2"#), "{page}");
    assert!(page.contains(r#"nightshift_events_unmatched_total{source="other"} 1"#), "{page}");
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn the_reference_lists_every_metric_once() {
    let text = reference();
    for metric in TABLE {
        let cell = format!("| `nightshift_{}", metric.name);
        assert_eq!(text.matches(&cell).count(), TABLE.iter().filter(|m| m.name.starts_with(metric.name)).count());
    }
}
