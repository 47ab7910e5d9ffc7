//! The kill switch outside the store: a file on this machine and a ConfigMap. They work when the disk is full, too.
//!
//! Invariant: a switch that cannot be read, or was not read lately, is engaged.

use super::World;
use crate::limits;
use crate::planted::planted;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// Where to look for it, besides `nightshift freeze`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct KillSwitchConfig {
    /// Everything is stopped as long as this file exists.
    pub file: Option<PathBuf>,
    /// Everything is stopped as long as this ConfigMap has a key `stop` that is neither empty nor `false`.
    pub config_map: Option<ConfigMapName>,
}

/// The ConfigMap whose key `stop` is the kill switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfigMapName {
    /// Left out: the default cluster.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The last reading of the ConfigMap.
#[derive(Debug, Default)]
struct SwitchReading {
    /// When the request was sent that brought the answer, by the running clock: a reading is as old as its request.
    at: Option<Duration>,
    stop: Option<String>,
    unread: String,
}

/// The kill switch outside the store, with its last reading.
#[derive(Debug, Default)]
pub struct KillSwitch {
    config: KillSwitchConfig,
    seen: Mutex<SwitchReading>,
}

impl KillSwitch {
    /// A switch that was not read yet, and so is engaged where a ConfigMap is configured.
    pub fn new(config: KillSwitchConfig) -> KillSwitch {
        KillSwitch { config, seen: Mutex::default() }
    }

    /// Why everything is stopped, if it is. Looks at the file each time; the ConfigMap is looked at by `look`.
    /// `running`: the time by the clock that only runs, so setting the wall clock makes no reading younger or older.
    pub fn engaged(&self, running: Duration) -> Option<String> {
        self.config.file.as_deref().and_then(file).or_else(|| {
            let map = self.config.config_map.as_ref()?;
            let shown = format!("ConfigMap {}/{}", map.namespace, map.name);
            let seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match seen.at {
                Some(at)
                    if (at <= running || planted("kill-switch-age-by-wall-clock"))
                        && running.saturating_sub(at) < limits::KILL_STALE =>
                {
                    seen.stop.as_ref().map(|why| format!("stop file {shown}: {why}"))
                }
                _ if planted("unreadable-kill-switch-is-off") => None,
                _ => Some(format!("{shown} was not read for {} s{}", limits::KILL_STALE.as_secs(), seen.unread)),
            }
        })
    }

    /// Whether `look` must be called again and again.
    pub fn watches(&self) -> bool {
        self.config.config_map.is_some()
    }

    /// Reads the ConfigMap once.
    pub async fn look(&self, world: &World) {
        let Some(map) = &self.config.config_map else { return };
        let read = async { world.kube(map.cluster.as_deref())?.config_map(&map.namespace, &map.name).await };
        let asked = world.running();
        let answer = tokio::time::timeout(limits::KILL_STALE, read).await;
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match answer {
            Ok(Ok(data)) => {
                let stop = data.get("stop").map(String::as_str).filter(|text| !matches!(*text, "" | "false"));
                *seen = SwitchReading { at: Some(asked), stop: stop.map(said), unread: String::new() };
            }
            // It is made to stop everything; that there is none is an answer.
            Ok(Err(super::WorldError::NotFound(_))) => {
                *seen = SwitchReading { at: Some(asked), ..SwitchReading::default() };
            }
            Ok(Err(error)) => seen.unread = format!(": {error}"),
            Err(_) => seen.unread = ": no answer".to_owned(),
        }
    }
}

fn file(path: &Path) -> Option<String> {
    let shown = path.display();
    match std::fs::symlink_metadata(path) {
        Ok(_) => Some(format!("the file {shown} exists; remove it to go on")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let gone = folder.is_some_and(|folder| !folder.is_dir());
            gone.then(|| format!("the folder of {shown} does not exist, so the stop file cannot be created"))
        }
        Err(error) => Some(format!("{shown} cannot be read: {error}")),
    }
}

fn said(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(limits::REASON_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Duration {
        Duration::from_secs(1_000)
    }

    #[test]
    fn the_file_stops_everything_as_long_as_it_exists_or_cannot_be_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stop");
        let switch = |path: PathBuf| KillSwitch::new(KillSwitchConfig { file: Some(path), config_map: None });
        assert_eq!(switch(path.clone()).engaged(now()), None);
        std::fs::write(&path, "").unwrap();
        assert!(switch(path.clone()).engaged(now()).unwrap().contains("exists"));
        // A file where a folder should be cannot be looked into.
        assert!(switch(path.join("stop")).engaged(now()).unwrap().contains("cannot be read"));
        assert!(switch(dir.path().join("gone/stop")).engaged(now()).unwrap().contains("does not exist"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(switch(path).engaged(now()), None);
        assert_eq!(KillSwitch::default().engaged(now()), None);
    }

    #[test]
    fn a_config_map_that_was_not_read_lately_stops_everything() {
        let map = ConfigMapName { cluster: None, namespace: "ops".into(), name: "nightshift-stop".into() };
        let switch = KillSwitch::new(KillSwitchConfig { file: None, config_map: Some(map) });
        assert!(switch.engaged(now()).unwrap().contains("was not read"));
        *switch.seen.lock().unwrap() = SwitchReading { at: Some(now()), stop: None, unread: String::new() };
        assert_eq!(switch.engaged(now()), None);
        assert!(switch.engaged(now() + limits::KILL_STALE).is_some());
        assert!(switch.engaged(now() - Duration::from_secs(1)).is_some(), "a reading from the future is no reading");
    }
}
