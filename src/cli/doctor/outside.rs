//! What must be asked over the network: clusters and rights, Prometheus, Alertmanager, channels, the clock.
//!
//! Invariant: asks only what changes nothing; each question has its own time limit.

use super::Findings;
use crate::actions;
use crate::catalog::Loaded;
use crate::cli::serve;
use crate::cli::stop::Stop;
use crate::clock::{Clock, RealClock};
use crate::config::Config;
use crate::limits;
use crate::model::Permission;
use crate::notifiers;
use crate::world::{HttpRequest, Kube, World};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::time::timeout;

pub(super) async fn all(config: &Config, loaded: Option<&Loaded>, findings: &mut Findings) -> Result<(), Stop> {
    let world = match serve::assemble_world(config, Arc::new(RealClock)).await {
        Ok(world) => world,
        Err(stop) => {
            findings.bad("world", stop.message, stop.hint);
            return Ok(());
        }
    };
    let rights = needed(loaded);
    for (name, kube) in &world.clusters {
        cluster(name, kube, &rights, findings).await;
    }
    if world.clusters.is_empty() {
        findings.odd(
            "clusters",
            "none is configured: runbooks that touch Kubernetes cannot run",
            "clusters:\n  main: {}      # in-cluster, else ~/.kube/config",
        );
    }
    prometheus(config, &world, findings).await;
    alertmanagers(config, &world, findings).await;
    channels(config, loaded, &world, findings).await;
    Ok(())
}

/// The rights of every action that a loaded runbook names; of all actions where none is loaded.
fn needed(loaded: Option<&Loaded>) -> BTreeSet<Permission> {
    let texts: Vec<&str> =
        loaded.iter().flat_map(|loaded| loaded.runbooks.values()).map(|runbook| runbook.text.as_str()).collect();
    let used = |name: &str| texts.is_empty() || texts.iter().any(|text| text.contains(name));
    let specs = actions::catalog().into_iter().map(|action| action.spec());
    let mut rights: BTreeSet<Permission> =
        specs.filter(|spec| used(spec.name)).flat_map(|spec| spec.permissions.iter().copied()).collect();
    // The guards count nodes, whatever the runbooks do.
    rights.insert(Permission { group: "", resource: "nodes", verb: "list" });
    rights
}

async fn cluster(name: &str, kube: &Kube, rights: &BTreeSet<Permission>, findings: &mut Findings) {
    let area = format!("cluster {name}");
    match timeout(limits::KUBE_TIMEOUT, kube.nodes()).await {
        Ok(Ok(nodes)) => {
            let gpus: u32 = nodes.iter().map(|node| node.gpus).sum();
            findings.good(&area, format!("answers: {} nodes, {gpus} GPUs", nodes.len()));
        }
        Ok(Err(error)) => {
            findings.bad(
                &area,
                error.to_string(),
                format!("try `kubectl get nodes` with the same settings as `clusters.{name}`"),
            );
            return;
        }
        Err(_) => {
            findings.bad(
                &area,
                format!("does not answer within {} s", limits::KUBE_TIMEOUT.as_secs()),
                "check the address, the firewall and the API server",
            );
            return;
        }
    }
    let mut missing = Vec::new();
    for right in rights {
        match timeout(limits::KUBE_TIMEOUT, kube.may(right.group, right.resource, right.verb)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => missing.push(*right),
            Ok(Err(error)) => {
                findings.bad(&area, format!("cannot ask for rights: {error}"), "");
                return;
            }
            Err(_) => {
                findings.bad(&area, "does not answer when asked for rights", "");
                return;
            }
        }
    }
    if missing.is_empty() {
        findings.good(&area, format!("has all {} rights that the loaded runbooks need", rights.len()));
    } else {
        let words: Vec<String> = missing.iter().map(|right| format!("{} {}", right.verb, right.resource)).collect();
        findings.bad(&area, format!("misses rights: {}", words.join(", ")), rules(&missing));
    }
}

/// The rules to paste into a ClusterRole.
fn rules(missing: &[Permission]) -> String {
    let line = |right: &Permission| {
        format!(
            "- {{ apiGroups: [\"{}\"], resources: [\"{}\"], verbs: [\"{}\"] }}",
            right.group, right.resource, right.verb
        )
    };
    let lines: Vec<String> = missing.iter().map(line).collect();
    format!("rules:      # of a ClusterRole that is bound to this identity\n{}", lines.join("\n"))
}

/// Prometheus, and with its answer the clock.
async fn prometheus(config: &Config, world: &World, findings: &mut Findings) {
    let Some(client) = &world.prometheus else {
        findings.odd(
            "prometheus",
            "none is configured: `prom::` and `verify` by metrics cannot run",
            "prometheus:\n  url: http://prometheus:9090",
        );
        return;
    };
    let url = config.prometheus.as_ref().map_or("", |settings| settings.url.as_str());
    let asked = RealClock.now();
    match timeout(limits::HTTP_TIMEOUT, client.query("vector(time())")).await {
        Ok(Ok(samples)) => {
            findings.good("prometheus", format!("{url} answers"));
            if let Some(sample) = samples.first() {
                let skew = (sample.value - asked.as_second() as f64).abs();
                if skew > limits::CLOCK_SKEW.as_secs_f64() {
                    findings.bad(
                        "clock",
                        format!("this machine and Prometheus differ by {skew:.0} s"),
                        "timedatectl set-ntp true      # on the one that is wrong",
                    );
                } else {
                    findings.good("clock", "agrees with Prometheus");
                }
            }
        }
        Ok(Err(error)) => findings.bad("prometheus", format!("{url}: {error}"), "check `prometheus.url` and its token"),
        Err(_) => findings.bad("prometheus", format!("{url} does not answer in time"), "check `prometheus.url`"),
    }
}

async fn alertmanagers(config: &Config, world: &World, findings: &mut Findings) {
    for (name, source) in &config.sources {
        let Some(api) = &source.api else {
            if source.kind == "alertmanager" {
                findings.odd(
                    "sources",
                    format!("{name}: no `api`, so lost resolves are found only after {}", source.stale_after),
                    format!("sources:\n  {name}: {{ kind: alertmanager, api: 'http://alertmanager:9093' }}"),
                );
            }
            continue;
        };
        let mut request = HttpRequest {
            method: "GET".to_owned(),
            url: format!("{}/api/v2/status", api.trim_end_matches('/')),
            ..HttpRequest::default()
        };
        if let Some(Ok(token)) = source.api_token.as_ref().map(crate::config::Secret::read) {
            request.headers.insert("Authorization".to_owned(), format!("Bearer {token}"));
        }
        match timeout(limits::HTTP_TIMEOUT, world.http.send(&request)).await {
            Ok(Ok(answer)) if answer.status == 200 => {
                findings.good("sources", format!("{name}: Alertmanager's API answers"))
            }
            Ok(Ok(answer)) => findings.bad(
                "sources",
                format!("{name}: {api} said {}", answer.status),
                format!("check `sources.{name}.api` and `api_token`"),
            ),
            Ok(Err(error)) => {
                findings.bad("sources", format!("{name}: {error}"), format!("check `sources.{name}.api`"))
            }
            Err(_) => findings.bad(
                "sources",
                format!("{name}: {api} does not answer in time"),
                format!("check `sources.{name}.api`"),
            ),
        }
    }
}

async fn channels(config: &Config, loaded: Option<&Loaded>, world: &World, findings: &mut Findings) {
    let encoders = loaded.map(|loaded| loaded.encoders.clone()).unwrap_or_default();
    // One by one, so that a bad channel does not hide the others.
    for (name, channel) in &config.channels {
        let area = format!("channel {name}");
        let alone = [(name.clone(), channel.clone())].into_iter().collect();
        let built = match notifiers::build(&alone, &encoders, &world.http, &config.install) {
            Ok(built) => built,
            Err(wrong) => {
                findings.bad(&area, wrong.join("; "), format!("mend `channels.{name}`"));
                continue;
            }
        };
        for notifier in built.values() {
            match timeout(limits::KUBE_TIMEOUT, notifier.probe()).await {
                Ok(Ok(what)) => findings.good(&area, what),
                Ok(Err(why)) => findings.bad(&area, why, format!("mend `channels.{name}`")),
                Err(_) => findings.bad(&area, "does not answer in time", "check the address and the firewall"),
            }
        }
    }
}
