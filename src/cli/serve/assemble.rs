//! From a configuration to the parts that loops and server share.
//!
//! Invariant: either all parts exist, or the error names the fix.

use crate::catalog::{Catalog, CatalogFolders, CatalogProblem};
use crate::cli::stop::CliError;
use crate::clock::{Clock, RealClock};
use crate::config::{Config, SecretSource};
use crate::engine::{ConfigConflict, EngineParts, EventLog, WakeSender, misfits};
use crate::limits;
use crate::notifiers::{self, slack::ButtonSeal};
use crate::store::ledger::SigningKey;
use crate::store::{self, CheckpointMark, Filter, Ledger, OnFatal, RunJournal, SqliteOptions, SqliteStore, StoreError};
use crate::telemetry::Metrics;
use crate::world::{
    AgentMailbox, DockerClient, HttpClient, HttpSecret, KillSwitch, KubeClient, ProbedEngines, PrometheusClient, World,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Opens and builds everything. Asks nothing outside this machine, so that a start depends on nothing else. `accept_loss`: a ledger
/// that is smaller than the signed one is taken as it is, and a lost key is replaced.
pub(super) async fn assemble(config: Config, accept_loss: bool) -> Result<(EngineParts, EventLog), CliError> {
    let data = &config.data_dir;
    make_private(data)?;
    for (what, secret) in config.secrets() {
        if let Some(careless) = secret.careless() {
            tracing::warn!(secret = %what, "{careless}");
        }
    }
    say_what_is_missing(&config);
    let metrics = Arc::new(Metrics::new());
    let read = Catalog::load(folders(&config));
    // An engine that ran before has kept its last good files: from then on no file stops a start.
    let is_first = std::fs::metadata(config.store_path()).map_or(0, |meta| meta.len()) == 0;
    match &read {
        Ok((catalog, _)) => refuse_misfits(&config, catalog, is_first)?,
        Err(problems) if is_first => return Err(refused(problems)),
        Err(_) => {}
    }
    let clock: Arc<dyn Clock> = Arc::new(RealClock);
    let world = assemble_world(&config, Arc::clone(&clock)).await?;
    let signed = refuse_lost_key(&config, accept_loss)?;
    let log = EventLog::start().map_err(|error| CliError::failure(format!("no thread for the log: {error}"), ""))?;
    let store = open_store(&config, &log, &metrics, &world, accept_loss, clock.now())?;
    let key = Arc::new(signing_key(&config, signed)?);
    publish(&config.public_key_path(), &key)?;
    store.sign_at_once_with(key.clone());
    // From the first entry on an older copy is noticed.
    if let Err(error) = store.checkpoint(key.clone(), clock.now()).await {
        tracing::error!(%error, "cannot sign a checkpoint of the ledger; retrying in 1 min");
    }
    let (catalog, problems) = match read {
        Ok(read) => read,
        Err(problems) => last_good(&config, &store, &problems).await?,
    };
    let loaded = catalog.current();
    let sealing = seal(&key, &config);
    let notifiers = notifiers::build(&config.channels, &loaded.encoders, &world.http, &config.install, &sealing)
        .map_err(|wrong| CliError::usage(wrong.join("\n  "), "fix `channels`, then run `nightshift doctor`"))?;
    metrics.know_sources(config.sources.keys().map(String::as_str));
    let epoch = match store.health().await {
        Ok(epoch) => epoch,
        // A full disk stops no start: runs under way go on, and a freeze gets through.
        Err(StoreError::Busy(why)) => {
            tracing::error!(%why, "started on a full disk; free some space");
            store.epoch()
        }
        Err(error) => return Err(CliError::failure(error, "the store does not answer")),
    };
    world.agents.set_epoch(epoch);
    let parts = EngineParts {
        config: Arc::new(config),
        store: Arc::new(store),
        catalog: Arc::new(catalog),
        world,
        notifiers: Arc::new(notifiers),
        clock,
        metrics,
        nudge: WakeSender::default(),
        key,
    };
    let open = || Filter { open: true, limit: limits::READ_LIMIT, ..Filter::default() };
    if let (Ok(runs), Ok(incidents)) = (parts.store.runs(open()).await, parts.store.incidents(open()).await) {
        log.know(runs, incidents);
    }
    for problem in problems.iter().filter(|problem| !problem.fatal) {
        parts.metrics.catalog_refused();
        tracing::warn!(file = %problem.file, "{}", problem.text);
    }
    crate::engine::take_in(&parts).await;
    crate::engine::refused(&parts, &problems).await;
    Ok((parts, log))
}

/// Refuses mismatches between configuration and files. Of an engine that ran before, a rule that does not fit is logged
/// and no reason to stay away: at night the file is the same as by day.
fn refuse_misfits(config: &Config, catalog: &Catalog, is_first: bool) -> Result<(), CliError> {
    let (fatal, odd): (Vec<ConfigConflict>, Vec<ConfigConflict>) = misfits(config, &catalog.current())
        .into_iter()
        .partition(|misfit| misfit.fatal && (is_first || misfit.place.is_none()));
    for misfit in odd {
        match misfit.fatal {
            true => tracing::error!("{}; the engine starts anyway", misfit.text),
            false => tracing::warn!("{}", misfit.text),
        }
    }
    if fatal.is_empty() {
        return Ok(());
    }
    let fatal: Vec<String> = fatal.into_iter().map(|misfit| misfit.text).collect();
    Err(CliError::usage(fatal.join("\n  "), "fix the configuration or the rules, then `nightshift check`"))
}

/// The catalog of the last good files, where the folders hold one that is wrong.
async fn last_good(
    config: &Config,
    store: &dyn RunJournal,
    problems: &[CatalogProblem],
) -> Result<(Catalog, Vec<CatalogProblem>), CliError> {
    let kept = store.kept_catalog().await.unwrap_or_default();
    let folders = folders(config);
    let loading = tokio::task::spawn_blocking(move || Catalog::load_kept(folders, kept)).await;
    let Ok(Some((catalog, problems))) = loading else { return Err(refused(problems)) };
    for problem in problems.iter().filter(|problem| problem.fatal) {
        tracing::error!(
            file = %problem.file, problem = %problem.text,
            "file rejected; the engine starts with its last good version; fix it, then run `nightshift check`"
        );
    }
    refuse_misfits(config, &catalog, false)?;
    Ok((catalog, problems))
}

/// How many entries a key has signed that is missing: it is not replaced silently, since its signatures could never be verified
/// again.
fn refuse_lost_key(config: &Config, accept_loss: bool) -> Result<u64, CliError> {
    let path = config.key_path();
    if path.exists() {
        return Ok(0);
    }
    let marks = config.mark_paths();
    let mark = marks.iter().filter_map(|path| CheckpointMark::read(path).ok().flatten()).map(|mark| mark.size).max();
    let signed = store::signed_entries(&config.store_path()).unwrap_or_default().max(mark.unwrap_or_default());
    if signed > 0 && !accept_loss {
        return Err(CliError::failure(
            format!("signing key {} is missing, although it has signed {signed} entries", path.display()),
            "restore it from a backup (`nightshift restore FILE` includes it); if there is none, start once with \
             --accept-loss: a new key is created, which cannot verify entries signed by the old one (docs/backup.md, A lost key)",
        ));
    }
    Ok(signed)
}

/// The key that signs the ledger, made once there is one: a key without a ledger means that the ledger was lost. `signed`: how
/// many entries another key has signed that is lost.
fn signing_key(config: &Config, signed: u64) -> Result<SigningKey, CliError> {
    let path = config.key_path();
    if !path.exists() && signed > 0 {
        let old = config.public_key_path().with_extension("pub.old");
        // For audits of earlier exports; where it is gone, too, there is nothing to keep.
        let _ = std::fs::rename(config.public_key_path(), old);
        tracing::error!(signed, "signing key lost; a new one is created because of --accept-loss");
    }
    SigningKey::open_or_create(&path, &config.install)
        .map_err(|error| CliError::failure(error, "the key signs the ledger's checkpoints"))
}

fn open_store(
    config: &Config,
    log: &EventLog,
    metrics: &Arc<Metrics>,
    world: &World,
    accept_loss: bool,
    now: crate::model::Time,
) -> Result<SqliteStore, CliError> {
    let failpoint = std::env::var("NIGHTSHIFT_FAILPOINT").ok().map(|text| text.parse()).transpose();
    let failpoint =
        failpoint.map_err(|why| CliError::usage(why, "unset NIGHTSHIFT_FAILPOINT: it is for tests of crashes"))?;
    let end = |why: &str| {
        tracing::error!(
            why,
            "the store is no longer writable; the engine exits so that it is restarted; check the disk (`dmesg`)"
        );
        std::process::exit(1);
    };
    let options = SqliteOptions {
        follower: Some(log.follower(metrics.clone())),
        on_fatal: Some(OnFatal::new(end)),
        marks: config.mark_paths(),
        key: Some(config.key_path()),
        accept_loss: accept_loss.then(|| format!("{} (--accept-loss)", crate::cli::client::user())),
        ballast: Some(config.ballast_path()),
        ceiling: config.mode_ceiling,
        failpoint,
        home: world.default_cluster.clone(),
        channels: config.channels.keys().cloned().collect(),
        unmatched_tell: config.unmatched_tell(),
        resolve_after: config.incidents.resolve_after,
        group_wait: config.incidents.group_wait,
        ..SqliteOptions::new(config.store_path())
    };
    SqliteStore::open(options, now).map_err(|error| CliError::failure(&error, store::advice(&error)))
}

/// One ERROR line for each secret and kubeconfig that cannot be read: the function that is off without it, and the fix.
fn say_what_is_missing(config: &Config) {
    for missing in config.missing().iter().filter(|missing| !missing.stops) {
        tracing::error!(setting = %missing.path, why = %missing.why, "{}; {}", missing.off, missing.fix);
    }
}

/// The key that seals our buttons, and opens them when they come back.
pub(super) fn seal(key: &SigningKey, config: &Config) -> Arc<ButtonSeal> {
    Arc::new(ButtonSeal::new(&key.secret_for("nightshift slack buttons"), &config.install))
}

/// The clients; none of them connects yet. A cluster with wrong settings is logged, and tried again by itself.
///
/// # Errors
///
/// Fails when the settings of another client are wrong.
pub(crate) async fn assemble_world(config: &Config, clock: Arc<dyn Clock>) -> Result<World, CliError> {
    let identity = format!("nightshift/{}", config.install);
    let mut clusters = BTreeMap::new();
    for (name, cluster) in &config.clusters {
        let kube = match KubeClient::connect(cluster, &identity).await {
            Ok(kube) => kube,
            Err(error) => {
                // A file that is not there has its line in the log already.
                let is_missing = config.missing().iter().any(|one| one.path.starts_with(&format!("clusters.{name}.")));
                if !is_missing {
                    tracing::error!(
                        cluster = %name, %error,
                        "the cluster cannot be reached with these settings; it is not watched and steps that need it are on \
                         hold; fix `clusters.{name}`; retrying automatically"
                    );
                }
                KubeClient::late(cluster, &identity)
            }
        };
        kube.keep_labels(config.guards.labels());
        kube.protect(config.guards.protected.namespaces.clone());
        clusters.insert(name.clone(), kube);
    }
    let prometheus = match &config.prometheus {
        None => None,
        Some(settings) => {
            let wrong = |why: String| CliError::usage(format!("prometheus: {why}"), "fix `prometheus`");
            let token = settings.token.clone();
            let read = move || token.as_ref().map(SecretSource::read).transpose();
            Some(PrometheusClient::connect_with(&settings.url, read).map_err(|error| wrong(error.to_string()))?)
        }
    };
    let http = HttpClient::new(&identity, &config.http_allow)
        .map_err(|error| CliError::usage(format!("http_allow: {error}"), "fix `http_allow`"))?
        .with_secrets(runbook_secrets(config));
    let kill = Arc::new(KillSwitch::new(config.kill_switch.clone()));
    let default_cluster = config.home_cluster().to_owned();
    let docker = config.docker.as_ref().map(DockerClient::new);
    let agents = AgentMailbox::default();
    let probed = config.sources.values().filter_map(|source| {
        let cluster = source.cluster.as_deref().unwrap_or(&default_cluster);
        Some((source.probe.as_deref()?, cluster, source.namespaces.as_slice()))
    });
    let engines = ProbedEngines::seen_by(probed);
    Ok(World { clusters, default_cluster, prometheus, http, docker, agents, engines, clock, kill, identity })
}

/// The catalog's folders, as configured.
pub(crate) fn folders(config: &Config) -> CatalogFolders {
    CatalogFolders {
        runbooks: config.runbooks_dir.clone(),
        rules: config.rules_dir.clone(),
        integrations: config.integrations_dir.clone(),
    }
}

/// The folder holds a signing key and an admin's token: no other user may read it.
fn make_private(folder: &Path) -> Result<(), CliError> {
    crate::cli::private::folder(folder)
        .map_err(|why| CliError::failure(format!("data_dir: {why}"), "make the folder, or set `data_dir`"))
}

/// The public half, for auditors.
fn publish(path: &Path, key: &SigningKey) -> Result<(), CliError> {
    let text = format!("{}\n", key.public());
    if std::fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    std::fs::write(path, text).map_err(|error| CliError::failure(format!("{}: {error}", path.display()), ""))
}

fn refused(problems: &[CatalogProblem]) -> CliError {
    let texts: Vec<String> = problems.iter().map(|problem| format!("{}: {}", problem.file, problem.text)).collect();
    CliError::failure(format!("the files cannot be used\n\n{}\n", texts.join("\n\n")), "see `nightshift check`")
}

/// The secrets that headers of runbooks may name, each read when it is sent.
fn runbook_secrets(config: &Config) -> BTreeMap<String, HttpSecret> {
    let given = config.http_secrets.iter();
    given
        .map(|(name, given)| {
            let secret = given.secret.clone();
            let read = Arc::new(move || secret.read());
            (name.clone(), HttpSecret { read, hosts: given.hosts.clone() })
        })
        .collect()
}
