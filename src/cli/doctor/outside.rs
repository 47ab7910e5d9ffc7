//! Checks over the network: clusters, Prometheus and the clock, the ways to us, channels.
//!
//! Invariant: sends only requests that change nothing; each has its own time limit.

use super::{DoctorFindings, cluster, engines, inside, provider, reach, slack};
use crate::catalog::CatalogSnapshot;
use crate::cli::stop::CliError;
use crate::cli::{rbac, serve};
use crate::clock::{Clock, RealClock};
use crate::config::Config;
use crate::limits;
use crate::notifiers::{self, slack::ButtonSeal};
use crate::world::World;
use std::sync::Arc;
use tokio::time::timeout;

pub(super) async fn all(
    config: &Config,
    loaded: Option<&CatalogSnapshot>,
    findings: &mut DoctorFindings,
) -> Result<(), CliError> {
    let world = match serve::assemble_world(config, Arc::new(RealClock)).await {
        Ok(world) => world,
        Err(stop) => {
            findings.bad("world", stop.message, stop.hint);
            return Ok(());
        }
    };
    let made = reach::made_tokens(config, &world.http).await;
    inside::tokens(config, &made, findings);
    let rights = rbac::needed(config, loaded);
    for (name, kube) in &world.clusters {
        cluster::look(name, kube, config, &rights, findings).await;
    }
    cluster::kill_switch(config, &world, findings).await;
    if world.clusters.is_empty() {
        findings.odd(
            "clusters",
            "none is configured: runbooks that touch Kubernetes cannot run",
            "clusters:\n  main: {}      # in-cluster, else ~/.kube/config",
        );
    }
    prometheus(config, &world, findings).await;
    reach::all(config, &world, findings).await;
    engines::all(config, &world, findings).await;
    provider::look(config, &world, findings).await;
    slack::all(config, &world, findings).await;
    channels(config, loaded, &world, findings).await;
    Ok(())
}

/// Prometheus, and with its answer the clock.
async fn prometheus(config: &Config, world: &World, findings: &mut DoctorFindings) {
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

async fn channels(config: &Config, loaded: Option<&CatalogSnapshot>, world: &World, findings: &mut DoctorFindings) {
    let encoders = loaded.map(|loaded| loaded.encoders.clone()).unwrap_or_default();
    // Nothing is posted, so nothing is sealed with it.
    let seal = Arc::new(ButtonSeal::new(&[0; 32], &config.install));
    // One by one, so that a bad channel does not hide the others.
    for (name, channel) in &config.channels {
        let area = format!("channel {name}");
        let alone = [(name.clone(), channel.clone())].into_iter().collect();
        let built = match notifiers::build(&alone, &encoders, &world.http, &config.install, &seal) {
            Ok(built) => built,
            Err(wrong) => {
                findings.bad(&area, wrong.join("; "), format!("fix `channels.{name}`"));
                continue;
            }
        };
        for notifier in built.values() {
            if let Some(why) = notifier.off() {
                let fix = format!("write the secret of `channels.{name}`; it is reloaded automatically");
                findings.bad(&area, format!("off, its messages wait: {why}"), fix);
                continue;
            }
            match timeout(limits::KUBE_TIMEOUT, notifier.probe()).await {
                Ok(Ok(what)) => findings.good(&area, what),
                Ok(Err(why)) => findings.bad(&area, why, format!("fix `channels.{name}`")),
                Err(_) => findings.bad(&area, "does not answer in time", "check the address and the firewall"),
            }
        }
    }
}
