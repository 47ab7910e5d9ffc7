//! From a configuration to the parts that loops and server share.
//!
//! Invariant: either all parts stand, or the words say what to mend.

use crate::catalog::{Catalog, Folders, Problem};
use crate::cli::stop::Stop;
use crate::clock::{Clock, RealClock};
use crate::config::{Config, Secret};
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
    for (what, secret) in config.secrets() {
        if let Some(careless) = secret.careless() {
            tracing::warn!(secret = %what, "{careless}");
        }
    }
    say_what_is_missing(&config);
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

/// One ERROR line for each secret and kubeconfig that cannot be read: what is off without it, and the fix.
fn say_what_is_missing(config: &Config) {
    for missing in config.missing().iter().filter(|missing| !missing.stops) {
        tracing::error!(setting = %missing.path, why = %missing.why, "{}; {}", missing.off, missing.fix);
    }
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
        let kube = match Kube::connect(cluster, &identity).await {
            Ok(kube) => kube,
            Err(error) => {
                // A file that is not there has its line in the log already.
                let is_missing = config.missing().iter().any(|one| one.path.starts_with(&format!("clusters.{name}.")));
                if !is_missing {
                    tracing::error!(
                        cluster = %name, %error,
                        "the cluster cannot be reached with these settings; it is not watched and steps that need it are on \
                         hold; fix `clusters.{name}`, it is tried again by itself"
                    );
                }
                Kube::late(cluster, &identity)
            }
        };
        kube.keep_labels(config.guards.labels());
        kube.protect(config.guards.protected.namespaces.clone());
        clusters.insert(name.clone(), kube);
    }
    let prometheus = match &config.prometheus {
        None => None,
        Some(settings) => {
            let wrong = |why: String| Stop::usage(format!("prometheus: {why}"), "mend `prometheus`");
            let token = settings.token.clone();
            let read = move || token.as_ref().map(Secret::read).transpose();
            Some(Prometheus::connect_with(&settings.url, read).map_err(|error| wrong(error.to_string()))?)
        }
    };
    let http = Http::new(&identity, &config.http_allow)
        .map_err(|error| Stop::usage(format!("http_allow: {error}"), "mend `http_allow`"))?;
    let kill = Arc::new(KillSwitch::new(config.kill_switch.clone()));
    let default_cluster = config.home_cluster().to_owned();
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

/// The folder holds a signing key and an admin's token: nobody else may look.
fn make_private(folder: &Path) -> Result<(), Stop> {
    crate::cli::private::folder(folder)
        .map_err(|why| Stop::failure(format!("data_dir: {why}"), "make the folder, or set `data_dir`"))
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
