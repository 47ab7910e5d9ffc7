//! An engine with all its loops, in this process, on the real clock: for stories that need its parts at hand.
//!
//! Invariant: it is struck before its folder goes, so that nothing writes into a folder that is not there.

use crate::harness::eventually;
use nightshift::catalog::{Catalog, CatalogFolders};
use nightshift::clock::RealClock;
use nightshift::config::Config;
use nightshift::engine::{self, EngineParts, WakeSender};
use nightshift::model::{Episode, EpisodeState, Time};
use nightshift::store::{Filter, SqliteOptions, SqliteStore, Store, ledger::SigningKey};
use nightshift::telemetry::Metrics;
use nightshift::world::World;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::watch;

pub struct Camp {
    pub parts: EngineParts,
    dir: TempDir,
    stop: watch::Sender<bool>,
    loops: tokio::task::JoinHandle<()>,
}

/// What an engine is to work with.
pub struct Gear<'a> {
    pub rules: &'a str,
    /// Names and texts; none: those that are shipped.
    pub runbooks: &'a [(&'a str, &'a str)],
    pub sources: Value,
    pub world: World,
}

impl Camp {
    /// In a folder that may hold what an earlier engine has left.
    pub async fn pitch(dir: TempDir, gear: Gear<'_>) -> Camp {
        let at = |name: &str| dir.path().join(name);
        for folder in ["rules", "runbooks", "integrations"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::fs::write(at("rules/test.yaml"), gear.rules).unwrap();
        for (name, text) in gear.runbooks {
            std::fs::write(at("runbooks").join(format!("{name}.rhai")), text).unwrap();
        }
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks");
        let runbooks = if gear.runbooks.is_empty() { shipped } else { at("runbooks") };
        let folders = CatalogFolders { runbooks, rules: at("rules"), integrations: at("integrations") };
        let loading = tokio::task::spawn_blocking(move || Catalog::load(folders)).await.unwrap();
        let (catalog, _) = loading.unwrap_or_else(|problems| panic!("{problems:#?}"));
        let mut config = Config { sources: serde_json::from_value(gear.sources).unwrap(), ..Config::default() };
        config.guards.share_per_hour = 1.0;
        config.guards.share_per_day = 1.0;
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(SqliteOptions::new(at("nightshift.db")), Time::now()).unwrap());
        let parts = EngineParts {
            config: Arc::new(config),
            store,
            catalog: Arc::new(catalog),
            world: gear.world,
            notifiers: Arc::default(),
            clock: Arc::new(RealClock),
            metrics: Arc::new(Metrics::default()),
            nudge: WakeSender::default(),
            key: Arc::new(SigningKey::open_or_create(&at("key"), "test").unwrap()),
        };
        engine::take_in(&parts).await;
        let (stop, stopped) = watch::channel(false);
        let loops = tokio::spawn(engine::run(parts.clone(), stopped));
        Camp { parts, dir, stop, loops }
    }

    /// Stops the engine, and gives back its folder for the next one.
    pub async fn strike(self) -> TempDir {
        self.stop.send(true).unwrap();
        self.loops.await.unwrap();
        self.parts.store.close().await.unwrap();
        self.dir
    }

    pub async fn episodes(&self) -> Vec<Episode> {
        let filter = Filter { after: Some(-1), limit: 1_000, ..Filter::default() };
        self.parts.store.episodes(filter).await.unwrap()
    }

    pub async fn episode(&self, name: &str, is_open: bool) -> Episode {
        eventually(&format!("{name}, open: {is_open}"), async || {
            let all = self.episodes().await.into_iter().rev();
            all.into_iter()
                .find(|episode| episode.event.name() == name && (episode.state == EpisodeState::Open) == is_open)
        })
        .await
    }
}
