//! From the present layout to the requested one, and back if that fails.
//!
//! Invariant: each act follows from the present layout, so a change that was cut short is ended, not begun anew.

use super::super::{Machine, ended, failed};
use super::boot;
use super::raw::{MigSession, NvmlError, SessionGpu};
use crate::model::{CommandStatus, FailureKind, MigGpu, MigPlace};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One GPU's change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayoutChange {
    /// UUID, index or PCI address.
    pub gpu: String,
    /// The layout that the plan was made for.
    pub before: Vec<MigPlace>,
    pub after: Vec<MigPlace>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct MigApplyRequest {
    pub changes: Vec<LayoutChange>,
}

/// A GPU that is to change, as it was found.
struct LayoutWork<'s> {
    gpu: SessionGpu<'s>,
    found: MigGpu,
    change: LayoutChange,
}

pub(super) fn apply(machine: &Machine, orders: &MigApplyRequest) -> CommandStatus {
    let session = match MigSession::open(&super::library(machine)) {
        Ok(session) => session,
        Err(error) => return failed(FailureKind::Unavailable, error.to_string()),
    };
    let work = match prepare(machine, &session, orders) {
        Ok(work) => work,
        Err((kind, why)) => return failed(kind, why),
    };
    let changed = work.iter().any(|one| !same(&places(&one.found), &one.change.after));
    for (at, one) in work.iter().enumerate() {
        if let Err(error) = lead_to(&one.gpu, &one.found, &one.change.after) {
            let name = &one.found.gpu.uuid;
            return failed(FailureKind::Conflict, format!("GPU {name}: {error}; {}", roll_back(&work[..=at])));
        }
    }
    match verify(&work) {
        Ok(after) => {
            let kept = boot::keep(machine, &after).err();
            let note = kept.map(|error| format!("the layout is not kept for the next boot: {error}"));
            ended(json!({ "changed": changed, "gpus": after, "note": note }))
        }
        Err(why) => failed(FailureKind::Conflict, format!("{why}; {}", roll_back(&work))),
    }
}

/// Reads every GPU and refuses before anything is touched.
fn prepare<'s>(
    machine: &Machine,
    session: &'s MigSession,
    orders: &MigApplyRequest,
) -> Result<Vec<LayoutWork<'s>>, (FailureKind, String)> {
    let unread = |error: NvmlError| (FailureKind::Unavailable, error.to_string());
    let gpus = session.gpus().map_err(unread)?;
    let mut work: Vec<LayoutWork<'s>> = Vec::new();
    for change in &orders.changes {
        let mut found = None;
        for gpu in &gpus {
            let name = gpu.name().map_err(unread)?;
            let index = name.index.map(|index| index.to_string());
            if name.uuid == change.gpu || name.pci == change.gpu || index.as_deref() == Some(change.gpu.as_str()) {
                found = Some(*gpu);
            }
        }
        let gpu = found.ok_or_else(|| (FailureKind::NotFound, format!("GPU {} is not on this node", change.gpu)))?;
        let found = super::looked_at(machine, gpu.read().map_err(unread)?);
        refuse(&found, change)?;
        work.push(LayoutWork { gpu, found, change: change.clone() });
    }
    Ok(work)
}

fn refuse(found: &MigGpu, change: &LayoutChange) -> Result<(), (FailureKind, String)> {
    let name = &found.gpu.uuid;
    let refused = |why: String| Err((FailureKind::Refused, format!("GPU {name} is not touched: {why}")));
    if let Some(ill) = &found.ill {
        return refused(ill.clone());
    }
    if found.pending {
        return refused("its MIG mode waits for a reset".to_owned());
    }
    if !found.enabled {
        return refused("it is not partitioned; turning MIG on is not done here".to_owned());
    }
    let now = places(found);
    if let Some(other) = now.iter().find(|place| !change.before.contains(place) && !change.after.contains(place)) {
        let why = format!(
            "GPU {name} has a {} at {}, which is not in the plan: the layout was changed by another user or tool; plan again",
            other.profile, other.start
        );
        return Err((FailureKind::Conflict, why));
    }
    for instance in &found.instances {
        let place = MigPlace { profile: instance.profile.clone(), start: instance.start };
        let held: Vec<u32> = instance.compute.iter().flat_map(|compute| compute.processes.clone()).collect();
        if !change.after.contains(&place) && !held.is_empty() {
            return refused(format!("processes {held:?} hold its {} at {}", place.profile, place.start));
        }
    }
    if let Some(unknown) = change.after.iter().find(|place| found.profiles.iter().all(|p| p.name != place.profile)) {
        return Err((FailureKind::Invalid, format!("GPU {name} offers no profile {}", unknown.profile)));
    }
    Ok(())
}

/// Destroys unwanted instances, creates missing ones, and completes those without a compute instance.
fn lead_to(gpu: &SessionGpu<'_>, now: &MigGpu, wanted: &[MigPlace]) -> Result<(), NvmlError> {
    let of = |place: &MigPlace| now.profiles.iter().find(|profile| profile.name == place.profile);
    for instance in &now.instances {
        let place = MigPlace { profile: instance.profile.clone(), start: instance.start };
        if !wanted.contains(&place) {
            gpu.destroy(instance.id)?;
        } else if let (true, Some(profile)) = (instance.compute.is_empty(), of(&place)) {
            gpu.complete(instance.id, profile.slices)?;
        }
    }
    let there = places(now);
    for place in wanted.iter().filter(|place| !there.contains(place)) {
        if let Some(profile) = of(place) {
            gpu.create(profile, place.start)?;
        }
    }
    Ok(())
}

fn verify(work: &[LayoutWork<'_>]) -> Result<Vec<MigGpu>, String> {
    let mut after = Vec::new();
    for one in work {
        let read = one.gpu.read().map_err(|error| error.to_string())?;
        let name = &read.gpu.uuid;
        if !same(&places(&read), &one.change.after) {
            return Err(format!("GPU {name} does not have the requested layout, but {:?}", places(&read)));
        }
        if let Some(bare) = read.instances.iter().find(|instance| instance.compute.is_empty()) {
            return Err(format!("GPU {name}: the {} at {} has no compute instance", bare.profile, bare.start));
        }
        after.push(read);
    }
    Ok(after)
}

/// Restores the layouts that were found, and returns the result in words.
fn roll_back(work: &[LayoutWork<'_>]) -> String {
    let mut failures = Vec::new();
    for one in work.iter().rev() {
        let back = one.gpu.read().and_then(|now| lead_to(&one.gpu, &now, &one.change.before));
        if let Err(error) = back {
            failures.push(format!("GPU {}: {error}", one.found.gpu.uuid));
        }
    }
    if failures.is_empty() {
        return "the old layout is back".to_owned();
    }
    format!("and the old layout could NOT be restored; an operator must check it: {}", failures.join("; "))
}

pub(super) fn places(gpu: &MigGpu) -> Vec<MigPlace> {
    gpu.instances.iter().map(|one| MigPlace { profile: one.profile.clone(), start: one.start }).collect()
}

fn same(a: &[MigPlace], b: &[MigPlace]) -> bool {
    a.len() == b.len() && a.iter().all(|place| b.contains(place))
}

/// For a GPU that came up empty: everything that is missing, nothing destroyed.
pub(super) fn restore(gpu: &SessionGpu<'_>, wanted: &[MigPlace]) -> Result<Value, String> {
    let now = gpu.read().map_err(|error| error.to_string())?;
    if let Some(ill) = now.ill {
        return Err(ill);
    }
    if !now.enabled || now.pending {
        return Err("it is not partitioned".to_owned());
    }
    if !now.instances.is_empty() {
        return Ok(Value::Bool(false));
    }
    lead_to(gpu, &now, wanted).map_err(|error| error.to_string())?;
    Ok(Value::Bool(true))
}
