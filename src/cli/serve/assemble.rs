//! From a configuration to the parts that loops and server share.
//!
//! Invariant: either all parts stand, or the words say what to mend.

use crate::catalog::{Catalog, Folders, Problem};
use crate::cli::stop::Stop;
use crate::clock::{Clock, RealClock};
use crate::config::{Channel, Config, Secret};
use crate::engine::{EventLog, Misfit, Nudge, Parts, misfits};
use crate::limits;
use crate::notifiers::{self, slack::Seal};
use crate::store::ledger::SigningKey;
use crate::store::{Filter, SqliteOptions, SqliteStore, Store};
use crate::telemetry::Metrics;
use crate::world::{Agents, Docker, Engines, Http, KillSwitch, Kube, Prometheus, World};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Opens and builds everything. Asks nothing outside this machine, so that a start depends on nobody.
pub(super) async fn assemble(config: Config) -> Result<(Parts, EventLog), Stop> {
    let data = &config.data_dir;
    make_private(data)?;
    for (what, secret) in secrets(&config) {
        if let Some(careless) = secret.careless() {
            tracing::warn!(secret = %what, "{careless}");
        }
    }
    let (catalog, problems) = Catalog::load(folders(&config)).map_err(|problems| refused(&problems))?;
    let metrics = Arc::new(Metrics::new());
    for problem in problems {
        metrics.catalog_refused();
        tracing::warn!(file = %problem.file, "{}", problem.text);
    }
    let loaded = catalog.current();
    let (fatal, odd): (Vec<Misfit>, Vec<Misfit>) =
        misfits(&config, &loaded).into_iter().partition(|misfit| misfit.fatal);
    for misfit in odd {
        tracing::warn!("{}", misfit.text);
    }
    if !fatal.is_empty() {
        let fatal: Vec<String> = fatal.into_iter().map(|misfit| misfit.text).collect();
        return Err(Stop::usage(fatal.join("\n  "), "mend the configuration or the rules, then `nightshift check`"));
    }
    let clock: Arc<dyn Clock> = Arc::new(RealClock);
    let world = assemble_world(&config, Arc::clone(&clock)).await?;
    let key = SigningKey::open_or_create(&config.key_path(), &config.install)
        .map_err(|error| Stop::failure(error, "the key signs the ledger's checkpoints"))?;
    publish(&config.public_key_path(), &key)?;
    let sealing = seal(&key, &config);
    let notifiers = notifiers::build(&config.channels, &loaded.encoders, &world.http, &config.install, &sealing)
        .map_err(|wrong| Stop::usage(wrong.join("\n  "), "mend `channels`, then look with `nightshift doctor`"))?;
    metrics.know_sources(config.sources.keys().map(String::as_str));
    let failpoint = std::env::var("NIGHTSHIFT_FAILPOINT").ok().map(|text| text.parse()).transpose();
    let failpoint =
        failpoint.map_err(|why| Stop::usage(why, "unset NIGHTSHIFT_FAILPOINT: it is for tests of crashes"))?;
    let log = EventLog::start().map_err(|error| Stop::failure(format!("no thread for the log: {error}"), ""))?;
    let options = SqliteOptions {
        follower: Some(log.follower(metrics.clone())),
        ceiling: config.mode_ceiling,
        failpoint,
        home: world.default_cluster.clone(),
        channels: config.channels.keys().cloned().collect(),
        unmatched_tell: config.unmatched_tell(),
        resolve_after: config.incidents.resolve_after,
        group_wait: config.incidents.group_wait,
        ..SqliteOptions::new(config.store_path())
    };
    let store = SqliteStore::open(options, clock.now())
        .map_err(|error| Stop::failure(error, "is another engine using this `data_dir`? One process, one store"))?;
    let epoch = store.health().await.map_err(|error| Stop::failure(error, "the store does not answer"))?;
    world.agents.set_epoch(epoch);
    let parts = Parts {
        config: Arc::new(config),
        store: Arc::new(store),
        catalog: Arc::new(catalog),
        world,
        notifiers: Arc::new(notifiers),
        clock,
        metrics,
        nudge: Nudge::default(),
        key: Arc::new(key),
    };
    let open = || Filter { open: true, limit: limits::READ_LIMIT, ..Filter::default() };
    if let (Ok(runs), Ok(incidents)) = (parts.store.runs(open()).await, parts.store.incidents(open()).await) {
        log.know(runs, incidents);
    }
    crate::engine::take_in(&parts).await;
    Ok((parts, log))
}

/// What seals our buttons, and opens them when they come back.
pub(super) fn seal(key: &SigningKey, config: &Config) -> Arc<Seal> {
    Arc::new(Seal::new(&key.secret_for("nightshift slack buttons"), &config.install))
}

/// The clients; none of them connects yet.
pub(crate) async fn assemble_world(config: &Config, clock: Arc<dyn Clock>) -> Result<World, Stop> {
    let identity = format!("nightshift/{}", config.install);
    let mut clusters = BTreeMap::new();
    for (name, cluster) in &config.clusters {
        let kube = Kube::connect(cluster, &identity).await.map_err(|error| {
            Stop::usage(
                format!("cluster `{name}`: {error}"),
                format!("mend `clusters.{name}`, then look with `nightshift doctor`"),
            )
        })?;
        kube.keep_labels(config.guards.labels());
        clusters.insert(name.clone(), kube);
    }
    let prometheus = match &config.prometheus {
        None => None,
        Some(settings) => {
            let wrong = |why: String| Stop::usage(format!("prometheus: {why}"), "mend `prometheus`");
            let token = settings.token.as_ref().map(Secret::read).transpose().map_err(wrong)?;
            Some(Prometheus::connect(&settings.url, token).map_err(|error| wrong(error.to_string()))?)
        }
    };
    let http = Http::new(&identity, &config.http_allow)
        .map_err(|error| Stop::usage(format!("http_allow: {error}"), "mend `http_allow`"))?;
    let kill = Arc::new(KillSwitch::new(config.kill_switch.clone()));
    let default_cluster = clusters.keys().next().cloned().unwrap_or_default();
    let docker = config.docker.as_ref().map(Docker::new);
    let agents = Agents::default();
    let probed = config.sources.values().filter_map(|source| {
        let cluster = source.cluster.as_deref().unwrap_or(&default_cluster);
        Some((source.probe.as_deref()?, cluster, source.namespaces.as_slice()))
    });
    let engines = Engines::seen_by(probed);
    Ok(World { clusters, default_cluster, prometheus, http, docker, agents, engines, clock, kill, identity })
}

pub(crate) fn folders(config: &Config) -> Folders {
    Folders {
        runbooks: config.runbooks_dir.clone(),
        rules: config.rules_dir.clone(),
        integrations: config.integrations_dir.clone(),
    }
}

/// Every secret reference of a configuration, with its path.
pub(crate) fn secrets(config: &Config) -> Vec<(String, &Secret)> {
    let mut found: Vec<(String, &Secret)> = Vec::new();
    for token in &config.server.tokens {
        found.push((format!("server.tokens `{}`", token.name), &token.secret));
    }
    if let Some(secret) = config.server.oidc.as_ref().and_then(|oidc| oidc.client_secret.as_ref()) {
        found.push(("server.oidc.client_secret".to_owned(), secret));
    }
    for secret in config.pagerduty.iter().flat_map(|webhook| &webhook.signing_secrets) {
        found.push(("pagerduty.signing_secrets".to_owned(), secret));
    }
    if let Some(slack) = &config.slack {
        let secrets =
            [("signing_secret", &slack.signing_secret), ("app_token", &slack.app_token), ("token", &slack.token)];
        let given = secrets.into_iter().filter_map(|(name, secret)| Some((format!("slack.{name}"), secret.as_ref()?)));
        found.extend(given);
    }
    for (name, source) in &config.sources {
        found.extend(source.api_token.iter().map(|secret| (format!("sources.{name}.api_token"), secret)));
    }
    for (name, channel) in &config.channels {
        match channel {
            Channel::Slack { token, .. } => found.push((format!("channels.{name}.token"), token)),
            Channel::SlackWebhook { url } => found.push((format!("channels.{name}.url"), url)),
            Channel::PagerDuty { routing_key, .. } | Channel::PagerDutyChanges { routing_key, .. } => {
                found.push((format!("channels.{name}.routing_key"), routing_key))
            }
            Channel::Email { password, .. } => {
                found.extend(password.iter().map(|secret| (format!("channels.{name}.password"), secret)));
            }
            Channel::Webhook { url, headers, .. } => {
                found.push((format!("channels.{name}.url"), url));
                found.extend(
                    headers.iter().map(|(header, secret)| (format!("channels.{name}.headers.{header}"), secret)),
                );
            }
            Channel::Log => {}
        }
    }
    if let Some(prometheus) = &config.prometheus {
        found.extend(prometheus.token.iter().map(|secret| ("prometheus.token".to_owned(), secret)));
    }
    found
}

/// The folder holds a signing key and an admin's token: nobody else may look.
fn make_private(folder: &Path) -> Result<(), Stop> {
    use std::os::unix::fs::DirBuilderExt;
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        Stop::failure(format!("data_dir {}: {error}", folder.display()), "make the folder, or set `data_dir`")
    })
}

/// The public half, for auditors.
fn publish(path: &Path, key: &SigningKey) -> Result<(), Stop> {
    let text = format!("{}\n", key.public());
    if std::fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    std::fs::write(path, text).map_err(|error| Stop::failure(format!("{}: {error}", path.display()), ""))
}

fn refused(problems: &[Problem]) -> Stop {
    let texts: Vec<String> = problems.iter().map(|problem| format!("{}: {}", problem.file, problem.text)).collect();
    Stop::failure(format!("the files cannot be used\n\n{}\n", texts.join("\n\n")), "see `nightshift check`")
}
