//! Answers to the verbs that read: some from the last look, some from NVML at once.
//!
//! Invariant: calls of the library here are made on the worker's thread, within the time that any call gets.

use super::checks::recovery_word;
use super::judge::FaultDetector;
use super::raw::{self, NvmlField};
use super::reading::GpuReading;
use super::session::{NvmlDevice, NvmlSession};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The health of all GPUs, or of the named one.
pub(super) fn health(
    session: &NvmlSession,
    judge: &FaultDetector,
    last: &BTreeMap<String, GpuReading>,
    gpu: Option<&str>,
) -> Result<Value, String> {
    let wanted = gpu.map(|gpu| session.find(gpu).ok_or_else(|| unknown(gpu, session))).transpose()?;
    let all = session.gpus.iter().enumerate();
    let list: Vec<Value> = all
        .filter(|(at, _)| wanted.is_none_or(|wanted| wanted == *at))
        .map(|(_, gpu)| one(gpu, judge, last.get(&gpu.name.uuid)))
        .collect();
    Ok(json!({ "driver": session.driver, "complaints": judge.of_node(), "gpus": list }))
}

fn one(gpu: &NvmlDevice, judge: &FaultDetector, reading: Option<&GpuReading>) -> Value {
    let complaints = judge.complaints(&gpu.name);
    let mut value = json!({
        "index": gpu.name.index, "uuid": gpu.name.uuid, "pci": gpu.name.pci, "name": gpu.product,
        "ok": complaints.is_empty() && reading.is_some(), "complaints": complaints,
    });
    let seen = reading.and_then(|reading| serde_json::to_value(reading).ok());
    if let (Value::Object(value), Some(Value::Object(mut seen))) = (&mut value, seen) {
        if let Some(action) = reading.and_then(|reading| reading.recovery) {
            seen.insert("recovery".to_owned(), json!(recovery_word(action)));
        }
        value.insert("seen".to_owned(), Value::Object(seen));
    }
    value
}

pub(super) fn unknown(gpu: &str, session: &NvmlSession) -> String {
    format!("this node has no GPU `{gpu}`; NVML names {}", session.gpus.len())
}

/// The driver's advice for one GPU, now.
pub(super) fn recovery(session: &NvmlSession, at: usize) -> Result<Value, String> {
    let gpu = session.gpus.get(at).ok_or("no such GPU")?;
    let asked = [NvmlField { id: 230, scope: 0 }];
    let values = raw::fields(&session.nvml, gpu.handle, &asked)
        .map_err(|code| format!("NVML does not report the recovery action of GPU {}: {code}", gpu.name.pci))?;
    let action = values.first().copied().flatten().and_then(|value| u32::try_from(value).ok());
    let action = action.ok_or("this driver does not report a recovery action")?;
    Ok(json!(recovery_word(action)))
}

/// Who computes on one GPU, or on all of them.
pub(super) fn processes(session: &NvmlSession, at: Option<usize>) -> Result<Value, String> {
    let all = session.gpus.iter().enumerate().filter(|(index, _)| at.is_none_or(|at| at == *index));
    let mut list = Vec::new();
    for (_, gpu) in all {
        let found = raw::processes(&session.nvml, gpu.handle)
            .map_err(|code| format!("NVML does not list the processes on GPU {}: {code}", gpu.name.pci))?;
        for process in found {
            let mut entry = Map::new();
            entry.insert("gpu".to_owned(), json!(gpu.name.index));
            entry.insert("pid".to_owned(), json!(process.pid));
            entry.insert("name".to_owned(), json!(name(session, process.pid)));
            entry.insert("memory_mib".to_owned(), json!(process.memory.map(|bytes| bytes >> 20)));
            for (key, id) in [("gpu_instance", process.instance), ("compute_instance", process.part)] {
                if let Some(id) = id {
                    entry.insert(key.to_owned(), json!(id));
                }
            }
            list.push(Value::Object(entry));
        }
    }
    Ok(Value::Array(list))
}

/// NVML's name, else the kernel's; a process in another namespace may have no name here.
fn name(session: &NvmlSession, pid: u32) -> String {
    raw::process_name(&session.nvml, pid)
        .ok()
        .or_else(|| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok())
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}
