//! Inference engines: whether each configured one answers, and its readings.
//!
//! Invariant: one look at each, as a probe does it; so many at once, however many there are.

use super::DoctorFindings;
use crate::config::{Config, INFERENCE, SourceConfig};
use crate::limits;
use crate::model::Span;
use crate::world::{EngineLook, EnginePoint, PROBE_LABEL, World, WorldError};
use futures::StreamExt as _;

pub(super) async fn all(config: &Config, world: &World, findings: &mut DoctorFindings) {
    for (name, source) in config.sources.iter().filter(|(_, source)| source.kind == INFERENCE) {
        let area = format!("engines {name}");
        let probe = source.probe.as_deref().cloned().unwrap_or_default();
        let mut points: Vec<EnginePoint> = probe.targets.iter().filter_map(|target| target.point().ok()).collect();
        if probe.pods && !config.clusters.is_empty() {
            found(&area, source, world, &mut points, findings).await;
        }
        if points.is_empty() {
            let mend = format!(
                "kubectl label: add `{PROBE_LABEL}: vllm` (or tgi, triton) to the pod template; or name it under `sources.{name}.probe.targets`"
            );
            findings.odd(&area, "there is no engine to poll", mend);
        }
        let left = points.len().saturating_sub(limits::PROBES);
        if left > 0 {
            findings.odd(
                &area,
                format!("{left} engines more than one installation polls"),
                "narrow it with `namespaces`",
            );
        }
        let looks = points.into_iter().take(limits::PROBES).map(|point| async move {
            let look = world.look_at(&point, probe.within).await;
            (point, look)
        });
        let looks: Vec<_> = futures::stream::iter(looks).buffered(limits::PROBES_AT_ONCE).collect().await;
        for (point, look) in looks {
            say(&area, &point, &look, probe.within, findings);
        }
    }
}

/// Engines in pods, and pods whose labels make no sense.
async fn found(
    area: &str,
    source: &SourceConfig,
    world: &World,
    points: &mut Vec<EnginePoint>,
    findings: &mut DoctorFindings,
) {
    let listed: Result<_, WorldError> =
        async { world.kube(source.cluster.as_deref())?.pods_with(PROBE_LABEL, limits::PODS).await }.await;
    match listed {
        Ok(pods) => {
            let ours =
                pods.iter().filter(|pod| source.namespaces.is_empty() || source.namespaces.contains(&pod.namespace));
            for pod in ours {
                match EnginePoint::of_pod(pod) {
                    None => {}
                    Some(Ok(point)) => points.push(point),
                    Some(Err(why)) => {
                        findings.bad(area, format!("pod {}/{}: {why}", pod.namespace, pod.name), "fix its labels")
                    }
                }
            }
        }
        Err(error) => findings.bad(area, format!("pods cannot be listed: {error}"), "see the cluster above"),
    }
}

fn say(area: &str, point: &EnginePoint, look: &EngineLook, within: Span, findings: &mut DoctorFindings) {
    let name = format!("{} {}", point.kind.word(), point.name());
    match &look.page {
        Ok(reading) => {
            let (running, waiting) = (reading.running(), reading.waiting());
            findings.good(area, format!("{name}: its page is read; {running} requests run, {waiting} wait"));
        }
        Err((_, why)) => {
            let mend = format!("curl --max-time {} {}      # from here", within.0.as_secs().max(1), point.metrics);
            findings.bad(area, format!("{name}: its metrics page cannot be read: {why}"), mend);
        }
    }
    if let Some(why) = &look.unready {
        let mend = format!(
            "curl --max-time {} -i {}      # a new engine loads its weights first",
            within.0.as_secs().max(1),
            point.ready
        );
        findings.odd(area, format!("{name}: not ready: {why}"), mend);
    }
}
