//! The layout that was applied last, kept on disk and put back after a boot: the driver forgets instances with a reset.
//!
//! Invariant: only a GPU that came up empty is given its layout, and only one that this agent itself gave it.

use super::super::{Machine, NodeWatcher};
use super::apply::{places, restore};
use super::raw::MigSession;
use crate::model::{EventStatus, Finding, GpuName, MigGpu, MigPlace, Severity, Time};
use nightshift_runtime::file::replace;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::sync::{mpsc, watch};

/// By the GPU's UUID.
type SavedLayouts = BTreeMap<String, Vec<MigPlace>>;

fn path(machine: &Machine) -> PathBuf {
    machine.settings.data_dir.join("mig-layout.json")
}

/// Remembers the layouts of these GPUs beside those of others.
pub(super) fn keep(machine: &Machine, gpus: &[MigGpu]) -> std::io::Result<()> {
    let mut all = read(machine);
    for gpu in gpus {
        all.insert(gpu.gpu.uuid.clone(), places(gpu));
    }
    let text = serde_json::to_vec_pretty(&all).map_err(std::io::Error::other)?;
    replace(&path(machine), &text, 0o666)
}

fn read(machine: &Machine) -> SavedLayouts {
    // No file: no layout was ever applied here. A torn one cannot be, by the rename.
    let text = std::fs::read(path(machine)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Looks once, when the agent starts.
pub(in super::super) struct LayoutAtBoot;

#[async_trait::async_trait]
impl NodeWatcher for LayoutAtBoot {
    fn name(&self) -> &'static str {
        "mig-layout"
    }

    async fn watch(&self, machine: &Machine, out: mpsc::Sender<Finding>, _stop: watch::Receiver<bool>) {
        let layouts = read(machine);
        if layouts.is_empty() {
            return;
        }
        let library = super::library(machine);
        let restored = super::bounded(move || {
            let session = MigSession::open(&library).map_err(|error| error.to_string())?;
            let mut results = Vec::new();
            for gpu in session.gpus().map_err(|error| error.to_string())? {
                let name = gpu.name().map_err(|error| error.to_string())?;
                let Some(wanted) = layouts.get(&name.uuid) else { continue };
                results.push((name, restore(&gpu, wanted)));
            }
            Ok(results)
        });
        let results = restored.await.unwrap_or_else(|why| vec![(GpuName::default(), Err(why))]);
        for (gpu, result) in results {
            let finding = match result {
                Ok(Value::Bool(true)) => {
                    tracing::info!(gpu = gpu.uuid, "MIG layout from before the reboot restored");
                    continue;
                }
                Ok(_) => continue,
                Err(why) => told(gpu, &why, machine.clock.now()),
            };
            // The receiver is gone only when the agent ends.
            let _ = out.send(finding).await;
        }
    }
}

fn told(gpu: GpuName, why: &str, at: Time) -> Finding {
    let labels = [("alertname", "MigLayoutNotRestored")];
    Finding {
        complaint: format!("mig-layout {}", gpu.uuid),
        status: EventStatus::Firing,
        at,
        severity: Severity::Warning,
        labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        summary: format!("the MIG layout of GPU {} was not put back after the boot: {why}", gpu.uuid),
        gpu: Some(gpu),
        detail: String::new(),
    }
}
