//! One source of kind `inference`: its engines, and its conditions.
//!
//! Invariant: the labels of a condition are the engine's own names, so that it is the same condition at the next look.

use crate::config::{INFERENCE, SourceConfig};
use crate::engine::EngineParts;
use crate::limits;
use crate::model::{Severity, Time};
use crate::policy::EngineTrouble;
use crate::sources::kubernetes::{ConditionTracker, ObjectCondition};
use crate::world::{EnginePoint, KubeClient, PROBE_LABEL, Pod, ProbeConfig, WorldError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) struct ProbeSource {
    pub source: String,
    pub probe: ProbeConfig,
    /// Engines are found in these alone; empty: in all.
    namespaces: Vec<String>,
    /// Where pods are looked for.
    kube: Option<KubeClient>,
    pub board: Mutex<ConditionTracker>,
    began: Time,
    /// All engines there are have been named once.
    listed: AtomicBool,
}

/// The result of a list of pods: engines by key, and pods whose labels make no sense, with the reason.
#[derive(Default)]
pub(super) struct DiscoveredEngines {
    pub engines: BTreeMap<String, EnginePoint>,
    pub odd: BTreeMap<String, ObjectCondition>,
}

impl ProbeSource {
    /// A desk for each source that looks at engines.
    pub fn all(parts: &EngineParts) -> Vec<ProbeSource> {
        let sources = parts.config.sources.iter().filter(|(_, source)| source.kind == INFERENCE);
        sources.map(|(name, source)| ProbeSource::new(parts, name, source)).collect()
    }

    fn new(parts: &EngineParts, name: &str, source: &SourceConfig) -> ProbeSource {
        let probe = source.probe.as_deref().cloned().unwrap_or_default();
        let cluster = source.cluster.as_deref().unwrap_or(&parts.world.default_cluster);
        let kube = parts.world.clusters.get(cluster).filter(|_| probe.pods).cloned();
        // Where there is one cluster, subjects name none, as those of other sources do not.
        let label = if parts.world.clusters.len() > 1 { cluster } else { "" };
        ProbeSource {
            source: name.to_owned(),
            namespaces: source.namespaces.clone(),
            board: Mutex::new(ConditionTracker::new(name, source, label)),
            began: parts.clock.now(),
            listed: AtomicBool::new(kube.is_none()),
            kube,
            probe,
        }
    }

    /// The board of conditions, locked.
    pub fn board(&self) -> MutexGuard<'_, ConditionTracker> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether engines are found by the labels of pods.
    pub fn finds_pods(&self) -> bool {
        self.kube.is_some()
    }

    /// Whether a condition that was not reported by now does not hold: everything had the time to last as long as it
    /// must.
    pub fn is_whole(&self, now: Time) -> bool {
        let patience = self.probe.limits.longest().0 + 4 * (self.probe.every.0 + self.probe.within.0);
        self.listed.load(Ordering::Relaxed) && now >= self.began + patience
    }

    /// The engines that the configuration names.
    pub fn named(&self) -> BTreeMap<String, EnginePoint> {
        let points = self.probe.targets.iter().filter_map(|target| target.point().ok());
        points.map(|point| (format!("{} {}", point.ready, point.model), point)).collect()
    }

    /// The engines among the pods of the cluster.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses.
    pub async fn find(&self) -> Result<DiscoveredEngines, WorldError> {
        let Some(kube) = &self.kube else { return Ok(DiscoveredEngines::default()) };
        let pods = kube.pods_with(PROBE_LABEL, limits::PODS).await?;
        let mut found = DiscoveredEngines::default();
        for pod in pods.iter().filter(|pod| self.namespaces.is_empty() || self.namespaces.contains(&pod.namespace)) {
            let key = format!("{}/{} {}", pod.namespace, pod.name, pod.uid);
            match EnginePoint::of_pod(pod) {
                None => {}
                Some(Ok(point)) => drop(found.engines.insert(key, point)),
                Some(Err(why)) => drop(found.odd.insert(key, odd(pod, &why))),
            }
        }
        self.listed.store(true, Ordering::Relaxed);
        Ok(found)
    }
}

/// Everything that is wrong with an engine, as conditions.
pub(super) fn complaints(point: &EnginePoint, troubles: &[EngineTrouble]) -> Vec<ObjectCondition> {
    let complaint = |trouble: &EngineTrouble| ObjectCondition {
        name: trouble.check.alertname,
        labels: labels(point),
        severity: trouble.check.severity,
        summary: format!("{} {}: {}", point.kind.word(), point.name(), trouble.words),
        message: trouble.words.clone(),
        since: Some(trouble.since),
        linger: Duration::ZERO,
        occurrence: None,
    };
    troubles.iter().map(complaint).collect()
}

fn labels(point: &EnginePoint) -> Vec<(&'static str, String)> {
    let all = [
        ("engine", point.kind.word().to_owned()),
        ("endpoint", point.endpoint.clone()),
        ("model_name", point.model.clone()),
        ("namespace", point.namespace.clone()),
        ("workload", point.workload.clone()),
        ("pod", point.pod.clone()),
        ("node", point.node.clone()),
        ("docker_container", point.container.clone()),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn odd(pod: &Pod, why: &str) -> ObjectCondition {
    let labels = vec![("namespace", pod.namespace.clone()), ("pod", pod.name.clone())];
    let summary = format!("pod {}/{} cannot be polled: {why}", pod.namespace, pod.name);
    plain("InferenceProbeWrong", labels, summary)
}

/// More engines than are looked at.
pub(super) fn left_out(source: &str, count: usize) -> ObjectCondition {
    let summary =
        format!("{count} engines of source {source} are not polled: one installation polls at most {}", limits::PROBES);
    plain("InferenceProbesLeftOut", vec![("probes", source.to_owned())], summary)
}

fn plain(name: &'static str, labels: Vec<(&'static str, String)>, summary: String) -> ObjectCondition {
    ObjectCondition {
        name,
        labels,
        severity: Severity::Warning,
        message: summary.clone(),
        summary,
        since: None,
        linger: Duration::ZERO,
        occurrence: None,
    }
}
