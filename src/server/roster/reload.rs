//! Takes in changed users, tokens and secrets of doors while the engine runs: the file that names them, and the files that
//! they lie in.
//!
//! Invariant: every change that is taken in is an entry in the ledger, and a file that cannot be used changes nothing and is
//! one too.

use super::PrincipalSet;
use crate::config::{Config, SecretSource};
use crate::limits;
use crate::model::{Actor, EntryKind, EntryLinks};
use crate::server::{App, ConfiguredTokens};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The fields of a file that show a change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileMark {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

fn mark(path: &Path) -> Option<FileMark> {
    use std::os::unix::fs::MetadataExt;
    let about = std::fs::metadata(path).ok()?;
    Some(FileMark { modified: about.modified().ok(), bytes: about.len(), inode: about.ino() })
}

/// Every file with principals and rights: the configuration, and the secrets that it names and that can be read anew.
/// Those of endpoints are the running configuration's: other ones are opened at the next start.
fn files(path: &Path, running: &Config, read: &Config) -> Vec<PathBuf> {
    let tokens = read.server.tokens.iter().map(|token| &token.secret);
    let secrets = tokens.chain(door_secrets(running)).filter_map(|secret| match secret {
        SecretSource::File(path) => Some(path.clone()),
        SecretSource::Env(_) => None,
    });
    std::iter::once(path.to_owned()).chain(secrets).collect()
}

/// The secrets of doors that can be exchanged under way.
fn door_secrets(config: &Config) -> impl Iterator<Item = &SecretSource> {
    let slack = config.slack.iter().filter_map(|slack| slack.signing_secret.as_ref());
    let pagerduty = config.pagerduty.iter().flat_map(|webhook| &webhook.signing_secrets);
    let oidc = config.server.oidc.iter().filter_map(|oidc| oidc.client_secret.as_ref());
    slack.chain(pagerduty).chain(oidc)
}

fn marks(files: &[PathBuf]) -> Vec<Option<FileMark>> {
    files.iter().map(|file| mark(file)).collect()
}

/// Looks at the files until shutdown.
pub async fn watch(app: App, path: PathBuf, mut shutdown: watch::Receiver<bool>) {
    let running = app.parts.config.clone();
    let mut looked = files(&path, &running, &running);
    let mut seen = marks(&looked);
    // Files are looked at anyway; SIGHUP reads them at once, whether they show a change or not.
    let mut hangup = signal(SignalKind::hangup()).ok();
    while !*shutdown.borrow() {
        let mut asked = false;
        tokio::select! {
            () = tokio::time::sleep(limits::ROSTER_LOOK_EVERY) => {}
            _ = shutdown.changed() => {}
            () = async { match &mut hangup { Some(signal) => drop(signal.recv().await), None => std::future::pending().await } } => {
                asked = true;
                tracing::info!("SIGHUP received; reloading users, tokens and secrets");
            }
        }
        let now = marks(&looked);
        if now == seen && !asked {
            continue;
        }
        seen = now;
        if let Some(read) = take_in(&app, &path).await {
            let next = files(&path, &running, &read);
            if next != looked {
                // New files have no mark yet, so they are read once more: they may have changed since a moment ago.
                let known = |file: &PathBuf| looked.iter().position(|other| other == file).and_then(|at| seen[at]);
                seen = next.iter().map(known).collect();
                looked = next;
            }
        }
    }
}

/// The content that was read of the files.
struct ReloadedFiles {
    config: Config,
    tokens: ConfiguredTokens,
    doors: EndpointSecrets,
}

/// The secrets of endpoints besides tokens, as they are now. A secret that cannot be read leaves its endpoint as it
/// was: a change of rights must not wait for it.
struct EndpointSecrets {
    slack: Option<String>,
    pagerduty: Option<Vec<String>>,
    oidc: Option<Option<String>>,
    unread: Vec<String>,
}

impl EndpointSecrets {
    fn read(config: &Config) -> EndpointSecrets {
        let mut unread = Vec::new();
        let slack = config.slack.as_ref().and_then(|slack| slack.signing_secret.as_ref());
        let pagerduty = config.pagerduty.as_ref().map(|webhook| webhook.signing_secrets.iter().map(SecretSource::read));
        let oidc =
            config.server.oidc.as_ref().map(|oidc| oidc.client_secret.as_ref().map(SecretSource::read).transpose());
        EndpointSecrets {
            slack: slack.and_then(|secret| or_say(secret.read(), &mut unread)),
            pagerduty: pagerduty.and_then(|secrets| or_say(secrets.collect(), &mut unread)),
            oidc: oidc.and_then(|secret| or_say(secret, &mut unread)),
            unread,
        }
    }

    /// From now on these open; which doors were given another secret.
    fn take_effect(self, app: &App) -> Vec<String> {
        let slack = app.slack.as_ref().zip(self.slack).is_some_and(|(door, secret)| door.renew(&secret));
        let pagerduty = app.pagerduty.as_ref().zip(self.pagerduty).is_some_and(|(door, secrets)| door.renew(&secrets));
        let oidc = self.oidc.is_some_and(|secret| app.web.renew(secret));
        let told = [
            (slack, "Slack's signing secret"),
            (pagerduty, "PagerDuty's signing secrets"),
            (oidc, "the secret of `server.oidc`"),
        ];
        told.iter().filter(|(new, _)| *new).map(|(_, what)| format!("{what} is another one")).collect()
    }
}

fn or_say<T>(read: Result<T, String>, unread: &mut Vec<String>) -> Option<T> {
    read.map_err(|why| unread.push(why)).ok()
}

/// Reads the files again; users, tokens and secrets hold from then on. Returns the configuration; none where it cannot
/// be used.
async fn take_in(app: &App, path: &Path) -> Option<Config> {
    let (file, running) = (path.to_owned(), app.parts.config.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let config = Config::load(&file).map_err(|error| error.to_string())?;
        let tokens = ConfiguredTokens::load(&config.server, &config.data_dir)?;
        Ok(ReloadedFiles { config, tokens, doors: EndpointSecrets::read(&running) })
    });
    let read: Result<ReloadedFiles, String> = match reading.await {
        Ok(read) => read,
        Err(bug) => Err(format!("a bug ended the reading: {bug}")),
    };
    let ReloadedFiles { config, tokens, doors } = match read {
        Ok(read) => read,
        Err(why) => {
            tracing::error!(%why, "access configuration not reloaded; the previous version stays active; fix the file");
            refused(app, path, &why).await;
            return None;
        }
    };
    if needs_a_restart(&app.parts.config, &config) {
        tracing::warn!("configuration changed; users, groups and tokens are reloaded now; the rest at the next start");
    }
    let next = PrincipalSet::new(config.people.clone(), tokens).with_groups(&config.server);
    let mut changes = app.roster.now().changes(&next);
    // In force first: a role that was taken away must not wait for a disk.
    app.roster.replace(next);
    for why in &doors.unread {
        tracing::error!(%why, "secret not reloaded; the previous one stays active; fix the file");
        refused(app, path, why).await;
    }
    changes.extend(doors.take_effect(app));
    if changes.is_empty() {
        return Some(config);
    }
    let more = changes.len().saturating_sub(limits::ROSTER_CHANGES);
    changes.truncate(limits::ROSTER_CHANGES);
    if more > 0 {
        changes.push(format!("and {more} more"));
    }
    tracing::info!(changes = %changes.join("; "), "users and tokens reloaded");
    note(app, EntryKind::PeopleChanged { changes }).await;
    Some(config)
}

fn needs_a_restart(running: &Config, read: &Config) -> bool {
    let rest = |config: &Config| {
        let mut rest = config.clone();
        rest.people.clear();
        rest.server.tokens.clear();
        if let Some(oidc) = &mut rest.server.oidc {
            oidc.roles.clear();
            oidc.group_clusters.clear();
        }
        // A port given on the command line is no change of the file.
        rest.server.listen = running.server.listen;
        rest
    };
    rest(running) != rest(read)
}

async fn refused(app: &App, path: &Path, why: &str) {
    let why = crate::notifiers::one_line(why, limits::STORY_LINE_CHARS);
    note(app, EntryKind::CatalogRefused { file: path.display().to_string(), why }).await;
}

async fn note(app: &App, kind: EntryKind) {
    if let Err(error) = app.parts.store.note(Actor::engine(), EntryLinks::default(), kind, app.parts.clock.now()).await
    {
        tracing::error!(%error, "cannot write to the ledger");
    }
}
