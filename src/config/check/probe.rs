//! The rules of a source of kind `inference`: engines to probe, addresses that can be reached, limits that make sense.
//!
//! Invariant: pure over the configuration; whether an engine answers is `doctor`'s part.

use super::ConfigFindings;
use crate::config::{Config, INFERENCE, SourceConfig};
use crate::limits;
use crate::world::{EngineTarget, ProbeConfig};
use std::collections::BTreeSet;

pub(super) fn check(name: &str, source: &SourceConfig, config: &Config, found: &mut ConfigFindings) {
    let path = format!("sources.{name}.probe");
    let is_ours = source.kind == INFERENCE;
    let Some(probe) = &source.probe else {
        if is_ours && config.clusters.is_empty() {
            found.say(&path, "there is no engine to poll", "add `probe: { targets: [{ url: 'http://10.0.3.7:8000', engine: vllm }] }`, or a cluster whose pods have the label nightshift.dev/probe");
        }
        return;
    };
    if !is_ours {
        let what = format!("a source of kind `{}` polls no engine", source.kind);
        return found.say(&path, what, "remove `probe`, or set `kind: inference`");
    }
    if !source.pod_labels.is_empty() {
        let mend = "remove it; engines are found by their label nightshift.dev/probe, and `namespaces` narrows that";
        found.say(&format!("sources.{name}.pod_labels"), "is for `kind: kubernetes`", mend);
    }
    if probe.targets.is_empty() && (!probe.pods || config.clusters.is_empty()) {
        found.say(&path, "there is no engine to poll", "add `targets`, or `pods: true` and a cluster");
    }
    times(&path, probe, found);
    targets(&path, &probe.targets, found);
    limits_of(&path, probe, found);
}

fn times(path: &str, probe: &ProbeConfig, found: &mut ConfigFindings) {
    if probe.every < limits::PROBE_EVERY_MIN {
        let mend = format!("write at least {}; {} is right", limits::PROBE_EVERY_MIN, limits::PROBE_EVERY);
        found.say(&format!("{path}.every"), format!("{} is too often", probe.every), mend);
    }
    if probe.within.0.is_zero() || probe.within > limits::PROBE_WITHIN_MAX {
        let mend = format!("write 1s to {}; {} is right", limits::PROBE_WITHIN_MAX, limits::PROBE_WITHIN);
        found.say(&format!("{path}.within"), format!("no engine is given {} to answer", probe.within), mend);
    }
    if probe.ask_within.0.is_zero() || probe.ask_within > limits::PROBE_ASK_WITHIN_MAX {
        let mend = format!("write 1s to {}", limits::PROBE_ASK_WITHIN_MAX);
        let what = format!("no engine is given {} for a request of one token", probe.ask_within);
        found.say(&format!("{path}.ask_within"), what, mend);
    }
}

fn targets(path: &str, targets: &[EngineTarget], found: &mut ConfigFindings) {
    let mut seen = BTreeSet::new();
    for (at, target) in targets.iter().enumerate() {
        let path = format!("{path}.targets[{at}]");
        match target.point() {
            Err(why) => found.say(&path, why, "write `http://host:port`, as in `http://10.0.3.7:8000`"),
            Ok(point) if !seen.insert((point.ready.clone(), point.model.clone())) => {
                found.say(&path, format!("{} is there twice", point.endpoint), "keep one of them");
            }
            Ok(_) => {}
        }
        let inside = target.workload.is_some() || target.pod.is_some();
        if inside && target.namespace.is_none() {
            let mend = "add `namespace`, so that runbooks can name the pod they restart";
            found.say(&path, "names a workload or a pod, but no namespace", mend);
        }
    }
    if targets.len() > limits::PROBES {
        found.say(&format!("{path}.targets"), "are too many", format!("name at most {}", limits::PROBES));
    }
}

fn limits_of(path: &str, probe: &ProbeConfig, found: &mut ConfigFindings) {
    let limits = &probe.limits;
    let share = |key: &str, value: f64, found: &mut ConfigFindings| {
        if !(0.0..=1.0).contains(&value) {
            found.say(&format!("{path}.limits.{key}"), format!("{value} is not a share"), "write a number from 0 to 1");
        }
    };
    share("cache", limits.cache, found);
    share("first_token_quantile", limits.first_token_quantile, found);
    if limits.looks == 0 {
        let mend = "write at least 1; 3 forgives a hiccup";
        found.say(&format!("{path}.limits.looks"), "0 polls give no result: write at least 1", mend);
    }
    if limits.frozen_for < probe.every {
        let mend = format!("write at least {}, which is `every`; 2m is right", probe.every);
        found.say(&format!("{path}.limits.frozen_for"), "is shorter than the time between two polls", mend);
    }
    if !limits.queue.is_finite() || limits.queue < 0.0 {
        let mend = "write how many requests may wait, as in 50";
        found.say(&format!("{path}.limits.queue"), format!("{} is no number of requests", limits.queue), mend);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn paths(text: &str) -> Vec<String> {
        let config = Config::parse("x", text).unwrap();
        config.check().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn a_probe_names_engines_that_can_be_asked_and_limits_that_can_be_meant() {
        let good =
            "sources:\n  s: { kind: inference, probe: { targets: [{ url: 'http://10.0.3.7:8000', engine: vllm }] } }\n";
        assert_eq!(paths(good), [""; 0]);
        assert_eq!(paths("clusters: { a: {} }\nsources: { s: { kind: inference, namespaces: [x] } }\n"), [""; 0]);
        let bad = "
sources:
  a: { kind: inference }
  b: { kind: alertmanager, probe: {} }
  c:
    kind: inference
    probe:
      every: 10ms
      within: 0s
      targets:
        - { url: 'llm:8000', engine: vllm }
        - { url: 'http://llm:8000', engine: vllm, workload: llama }
        - { url: 'http://llm:8000', engine: vllm }
      limits: { cache: 95, looks: 0, queue: -1, frozen_for: 1ms }
";
        let expect = [
            "sources.a.probe",
            "sources.b.probe",
            "sources.c.probe.every",
            "sources.c.probe.within",
            "sources.c.probe.targets[0]",
            "sources.c.probe.targets[1]",
            "sources.c.probe.targets[2]",
            "sources.c.probe.limits.cache",
            "sources.c.probe.limits.looks",
            "sources.c.probe.limits.frozen_for",
            "sources.c.probe.limits.queue",
        ];
        assert_eq!(paths(bad), expect);
    }
}
