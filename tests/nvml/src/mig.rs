//! MIG: modes, profiles, placements, and the life of instances. What is made or destroyed is a line of the timeline.

use crate::live::{self, Live, Object};
use crate::machine::{ComputeInstance, Gpu, GpuInstance, Machine, code};
use crate::profile::{COMPUTE_SLICES, Profile};
use crate::{end, filled, on_gpu, put, slot_of, versioned};
use nvml_wrapper_sys::bindings::*;
use std::ffi::c_uint;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(device: nvmlDevice_t, current: *mut c_uint, pending: *mut c_uint) -> u32 {
    end(on_gpu("nvmlDeviceGetMigMode", device, |_, gpu| unsafe {
        put(current, gpu.mig.into())?;
        put(pending, gpu.mig_pending.into())
    }))
}

/// Success with an activation status that is not success: in use, or only after a reset.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceSetMigMode(device: nvmlDevice_t, mode: c_uint, activation: *mut u32) -> u32 {
    end(live::change(
        "nvmlDeviceSetMigMode",
        |live| slot_of(live, device),
        |live| {
            let Object::Gpu(slot) = live.object(device as usize)? else { return Err(code::INVALID) };
            let gpu = live.gpu(slot)?;
            let word = match mode {
                0 => "off",
                1 => "on",
                _ => return Err(code::INVALID),
            };
            let same = gpu.mig == (mode == 1);
            let (status, line) = if !same && (!gpu.processes.is_empty() || !gpu.instances.is_empty()) {
                (code::IN_USE, String::new())
            } else if !same && live.machine.model.mode_needs_reset {
                (code::RESET_REQUIRED, format!("gpu {slot} mig-pending {word}"))
            } else if same {
                (code::OK, format!("gpu {slot} mig-pending {word}"))
            } else {
                (code::OK, format!("gpu {slot} mig {word}"))
            };
            unsafe { put(activation, status)? };
            Ok((line, ()))
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, count: *mut c_uint) -> u32 {
    end(on_gpu("nvmlDeviceGetMaxMigDeviceCount", device, |_, _| unsafe { put(count, COMPUTE_SLICES) }))
}

/// MIG devices in the order of their instances. Indices are sparse on hardware; here the first is free after a
/// destruction, too: an index is the lowest slice of its compute instance.
fn mig_devices(gpu: &Gpu) -> Vec<(u32, &GpuInstance, &ComputeInstance)> {
    let mut found = Vec::new();
    for instance in &gpu.instances {
        for part in &instance.parts {
            found.push(((instance.start + part.start).min(COMPUTE_SLICES - 1), instance, part));
        }
    }
    found.sort_by_key(|(index, instance, part)| (*index, instance.id, part.id));
    for at in 1..found.len() {
        found[at].0 = found[at].0.max(found[at - 1].0 + 1);
    }
    found
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: nvmlDevice_t,
    index: c_uint,
    out: *mut nvmlDevice_t,
) -> u32 {
    end(live::call(
        "nvmlDeviceGetMigDeviceHandleByIndex",
        |live| slot_of(live, device),
        |live| {
            let slot = slot_of(live, device)?.ok_or(code::INVALID)?;
            let gpu = live.gpu(slot)?;
            if index >= COMPUTE_SLICES {
                return Err(code::INVALID);
            }
            let found = mig_devices(gpu).into_iter().find(|(at, ..)| *at == index);
            let (_, instance, part) = found.ok_or(code::NOT_FOUND)?;
            let object = Object::Mig { slot, gi: instance.id, ci: part.id, serial: part.serial };
            let handle = live.handle(object);
            unsafe { put(out, handle as nvmlDevice_t) }
        },
    ))
}

/// By `MIG-…`: any GPU's.
pub fn give_by_uuid(uuid: &str, out: *mut nvmlDevice_t) -> u32 {
    end(live::call(
        "nvmlDeviceGetHandleByUUID",
        |_| Ok(None),
        |live| {
            let mut all = live.machine.present().flat_map(|gpu| {
                mig_devices(gpu).into_iter().map(move |(_, instance, part)| {
                    (
                        gpu.mig_uuid(part.serial),
                        Object::Mig { slot: gpu.slot, gi: instance.id, ci: part.id, serial: part.serial },
                    )
                })
            });
            let (_, object) = all.find(|(name, _)| name == uuid).ok_or(code::NOT_FOUND)?;
            drop(all);
            let handle = live.handle(object);
            unsafe { put(out, handle as nvmlDevice_t) }
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceIsMigDeviceHandle(device: nvmlDevice_t, out: *mut c_uint) -> u32 {
    end(live::call(
        "nvmlDeviceIsMigDeviceHandle",
        |_| Ok(None),
        |live| {
            let is = matches!(live.object(device as usize)?, Object::Mig { .. });
            unsafe { put(out, is.into()) }
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    device: nvmlDevice_t,
    out: *mut nvmlDevice_t,
) -> u32 {
    end(live::call(
        "nvmlDeviceGetDeviceHandleFromMigDeviceHandle",
        |_| Ok(None),
        |live| {
            let (slot, ..) = mig_of(live, device)?;
            let handle = live.handle(Object::Gpu(slot));
            unsafe { put(out, handle as nvmlDevice_t) }
        },
    ))
}

/// A MIG device that still exists.
fn mig_of(live: &Live, device: nvmlDevice_t) -> Result<(u32, u32, u32), u32> {
    let Object::Mig { slot, gi, ci, serial } = live.object(device as usize)? else { return Err(code::INVALID) };
    let parts = &live.gpu(slot)?.instance(gi).ok_or(code::NOT_FOUND)?.parts;
    let alive = parts.iter().any(|part| part.id == ci && part.serial == serial);
    if alive { Ok((slot, gi, ci)) } else { Err(code::NOT_FOUND) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(device: nvmlDevice_t, id: *mut c_uint) -> u32 {
    end(live::call(
        "nvmlDeviceGetGpuInstanceId",
        |live| slot_of(live, device),
        |live| {
            let (_, gi, _) = mig_of(live, device)?;
            unsafe { put(id, gi) }
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeInstanceId(device: nvmlDevice_t, id: *mut c_uint) -> u32 {
    end(live::call(
        "nvmlDeviceGetComputeInstanceId",
        |live| slot_of(live, device),
        |live| {
            let (_, _, ci) = mig_of(live, device)?;
            unsafe { put(id, ci) }
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetAttributes_v2(device: nvmlDevice_t, out: *mut nvmlDeviceAttributes_t) -> u32 {
    end(live::call(
        "nvmlDeviceGetAttributes_v2",
        |live| slot_of(live, device),
        |live| {
            let (slot, gi, ci) = mig_of(live, device)?;
            let sms = live.machine.model.slice_sms;
            let instance = live.gpu(slot)?.instance(gi).ok_or(code::NOT_FOUND)?;
            let slices = instance.parts.iter().find(|part| part.id == ci).map_or(0, |part| part.slices);
            let attributes = nvmlDeviceAttributes_t {
                multiprocessorCount: slices * sms,
                sharedCopyEngineCount: instance.profile.slices,
                sharedDecoderCount: 0,
                sharedEncoderCount: 0,
                sharedJpegCount: instance.profile.media.into(),
                sharedOfaCount: instance.profile.media.into(),
                gpuInstanceSliceCount: instance.profile.slices,
                computeInstanceSliceCount: slices,
                memorySizeMB: instance.profile.memory_mib,
            };
            unsafe { put(out, attributes) }
        },
    ))
}

// ── profiles and placements ──

fn profile_info(machine: &Machine, profile: &Profile) -> nvmlGpuInstanceProfileInfo_t {
    nvmlGpuInstanceProfileInfo_t {
        id: profile.id,
        isP2pSupported: 0,
        sliceCount: profile.slices,
        instanceCount: profile.at_most,
        multiprocessorCount: profile.slices * machine.model.slice_sms,
        copyEngineCount: profile.slices,
        decoderCount: profile.slices.min(5),
        encoderCount: 0,
        jpegCount: profile.media.into(),
        ofaCount: profile.media.into(),
        memorySizeMB: profile.memory_mib,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceProfileInfo(
    device: nvmlDevice_t,
    index: c_uint,
    info: *mut nvmlGpuInstanceProfileInfo_t,
) -> u32 {
    end(on_gpu("nvmlDeviceGetGpuInstanceProfileInfo", device, |machine, _| {
        let profile = indexed(machine, index)?;
        unsafe { put(info, profile_info(machine, profile)) }
    }))
}

fn indexed(machine: &Machine, index: u32) -> Result<&'static Profile, u32> {
    if index >= NVML_GPU_INSTANCE_PROFILE_COUNT {
        return Err(code::INVALID);
    }
    machine.model.by_index(index).ok_or(code::UNSUPPORTED)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceProfileInfoV(
    device: nvmlDevice_t,
    index: c_uint,
    info: *mut nvmlGpuInstanceProfileInfo_v2_t,
) -> u32 {
    end(on_gpu("nvmlDeviceGetGpuInstanceProfileInfoV", device, |machine, _| {
        let profile = indexed(machine, index)?;
        let plain = profile_info(machine, profile);
        let name = filled(&format!("MIG {}", profile.name));
        // SAFETY: the version word says which of the two structures the caller gave.
        unsafe {
            if versioned::<nvmlGpuInstanceProfileInfo_v3_t>(info.cast(), 3).is_ok() {
                let full = nvmlGpuInstanceProfileInfo_v3_t {
                    version: info.cast::<u32>().read(),
                    id: plain.id,
                    sliceCount: plain.sliceCount,
                    instanceCount: plain.instanceCount,
                    multiprocessorCount: plain.multiprocessorCount,
                    copyEngineCount: plain.copyEngineCount,
                    decoderCount: plain.decoderCount,
                    encoderCount: plain.encoderCount,
                    jpegCount: plain.jpegCount,
                    ofaCount: plain.ofaCount,
                    memorySizeMB: plain.memorySizeMB,
                    name,
                    capabilities: 0,
                };
                return put(info.cast(), full);
            }
            versioned::<nvmlGpuInstanceProfileInfo_v2_t>(info.cast(), 2)?;
            let full = nvmlGpuInstanceProfileInfo_v2_t {
                version: info.cast::<u32>().read(),
                id: plain.id,
                isP2pSupported: 0,
                sliceCount: plain.sliceCount,
                instanceCount: plain.instanceCount,
                multiprocessorCount: plain.multiprocessorCount,
                copyEngineCount: plain.copyEngineCount,
                decoderCount: plain.decoderCount,
                encoderCount: plain.encoderCount,
                jpegCount: plain.jpegCount,
                ofaCount: plain.ofaCount,
                memorySizeMB: plain.memorySizeMB,
                name,
            };
            put(info, full)
        }
    }))
}

fn with_id(machine: &Machine, id: u32) -> Result<&'static Profile, u32> {
    machine.model.by_id(id).ok_or(code::INVALID)
}

/// All placements of a profile, taken or not. With no room given, only their number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(
    device: nvmlDevice_t,
    id: c_uint,
    placements: *mut nvmlGpuInstancePlacement_t,
    count: *mut c_uint,
) -> u32 {
    end(on_gpu("nvmlDeviceGetGpuInstancePossiblePlacements_v2", device, |machine, _| {
        let profile = with_id(machine, id)?;
        let all = profile.starts.iter().map(|start| nvmlGpuInstancePlacement_t { start: *start, size: profile.width });
        unsafe { put_list(placements, count, all.collect()) }
    }))
}

/// Writes a list the way NVML does: with nowhere to write, only the number; with too little room, that it does not fit.
unsafe fn put_list<T>(out: *mut T, count: *mut c_uint, list: Vec<T>) -> Result<(), u32> {
    if count.is_null() {
        return Err(code::INVALID);
    }
    // SAFETY: the caller gives room for as many as `count` says.
    unsafe {
        let room = count.read() as usize;
        count.write(list.len() as c_uint);
        if out.is_null() {
            return Ok(());
        }
        if list.len() > room {
            return Err(code::SIZE);
        }
        for (at, item) in list.into_iter().enumerate() {
            out.add(at).write(item);
        }
    }
    Ok(())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceRemainingCapacity(
    device: nvmlDevice_t,
    id: c_uint,
    count: *mut c_uint,
) -> u32 {
    end(on_gpu("nvmlDeviceGetGpuInstanceRemainingCapacity", device, |machine, gpu| {
        if !gpu.mig {
            return Err(code::UNSUPPORTED);
        }
        let room = gpu.room_for(with_id(machine, id)?);
        unsafe { put(count, room) }
    }))
}

// ── GPU instances ──

/// Unlike the others, this one wants room for all of a profile and has no size to check.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstances(
    device: nvmlDevice_t,
    id: c_uint,
    instances: *mut nvmlGpuInstance_t,
    count: *mut c_uint,
) -> u32 {
    end(live::call(
        "nvmlDeviceGetGpuInstances",
        |live| slot_of(live, device),
        |live| {
            let slot = slot_of(live, device)?.ok_or(code::INVALID)?;
            with_id(&live.machine, id)?;
            let gpu = live.gpu(slot)?;
            if !gpu.mig {
                return Err(code::UNSUPPORTED);
            }
            let ids: Vec<u32> = gpu.instances.iter().filter(|held| held.profile.id == id).map(|held| held.id).collect();
            if instances.is_null() {
                return Err(code::INVALID);
            }
            for (at, gi) in ids.iter().enumerate() {
                let handle = live.handle(Object::GpuInstance { slot, gi: *gi });
                // SAFETY: the caller gives room for `instanceCount` of the profile, which bounds this list.
                unsafe { instances.add(at).write(handle as nvmlGpuInstance_t) };
            }
            unsafe { put(count, ids.len() as c_uint) }
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceById(
    device: nvmlDevice_t,
    gi: c_uint,
    out: *mut nvmlGpuInstance_t,
) -> u32 {
    end(live::call(
        "nvmlDeviceGetGpuInstanceById",
        |live| slot_of(live, device),
        |live| {
            let slot = slot_of(live, device)?.ok_or(code::INVALID)?;
            live.gpu(slot)?.instance(gi).ok_or(code::NOT_FOUND)?;
            let handle = live.handle(Object::GpuInstance { slot, gi });
            unsafe { put(out, handle as nvmlGpuInstance_t) }
        },
    ))
}

fn create(
    name: &str,
    device: nvmlDevice_t,
    id: u32,
    wanted: Option<(u32, u32)>,
    out: *mut nvmlGpuInstance_t,
) -> Result<(), u32> {
    let (slot, gi) = live::change(
        name,
        |live| slot_of(live, device),
        |live| {
            let Object::Gpu(slot) = live.object(device as usize)? else { return Err(code::INVALID) };
            let profile = with_id(&live.machine, id)?;
            let gpu = live.gpu(slot)?;
            if !gpu.mig {
                return Err(code::UNSUPPORTED);
            }
            let free = gpu.free_starts(profile);
            let start = match wanted {
                None => *free.first().ok_or(code::NO_ROOM)?,
                Some((start, size)) if size == profile.width && profile.starts.contains(&start) => {
                    if !free.contains(&start) {
                        return Err(code::NO_ROOM);
                    }
                    start
                }
                Some(_) => return Err(code::INVALID),
            };
            let gi = gpu.next_instance_id(profile);
            Ok((format!("gpu {slot} gi {gi} profile {id} start {start}"), (slot, gi)))
        },
    )?;
    live::call(
        "",
        |_| Ok(None),
        |live| {
            let handle = live.handle(Object::GpuInstance { slot, gi });
            unsafe { put(out, handle as nvmlGpuInstance_t) }
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceCreateGpuInstance(
    device: nvmlDevice_t,
    id: c_uint,
    out: *mut nvmlGpuInstance_t,
) -> u32 {
    end(create("nvmlDeviceCreateGpuInstance", device, id, None, out))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceCreateGpuInstanceWithPlacement(
    device: nvmlDevice_t,
    id: c_uint,
    placement: *const nvmlGpuInstancePlacement_t,
    out: *mut nvmlGpuInstance_t,
) -> u32 {
    if placement.is_null() {
        return code::INVALID;
    }
    // SAFETY: not null; the caller vouches for it.
    let wanted = unsafe { placement.read() };
    end(create("nvmlDeviceCreateGpuInstanceWithPlacement", device, id, Some((wanted.start, wanted.size)), out))
}

fn instance_of(live: &Live, instance: nvmlGpuInstance_t) -> Result<(u32, &GpuInstance), u32> {
    let Object::GpuInstance { slot, gi } = live.object(instance as usize)? else { return Err(code::INVALID) };
    Ok((slot, live.gpu(slot)?.instance(gi).ok_or(code::NOT_FOUND)?))
}

fn instance_slot(live: &Live, instance: nvmlGpuInstance_t) -> Result<Option<u32>, u32> {
    Ok(Some(instance_of(live, instance)?.0))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceGetInfo(instance: nvmlGpuInstance_t, info: *mut nvmlGpuInstanceInfo_t) -> u32 {
    end(live::call(
        "nvmlGpuInstanceGetInfo",
        |live| instance_slot(live, instance),
        |live| {
            let (slot, held) = instance_of(live, instance)?;
            let (id, profile, start) = (held.id, held.profile, held.start);
            let device = live.handle(Object::Gpu(slot)) as nvmlDevice_t;
            let placement = nvmlGpuInstancePlacement_t { start, size: profile.width };
            unsafe { put(info, nvmlGpuInstanceInfo_t { device, id, profileId: profile.id, placement }) }
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceDestroy(instance: nvmlGpuInstance_t) -> u32 {
    end(live::change(
        "nvmlGpuInstanceDestroy",
        |live| instance_slot(live, instance),
        |live| {
            let (slot, held) = instance_of(live, instance)?;
            if !held.parts.is_empty() || live.gpu(slot)?.busy(held.id, None) {
                return Err(code::IN_USE);
            }
            Ok((format!("gpu {slot} gi {} gone", held.id), ()))
        },
    ))
}

// ── compute instances: profile N takes N + 1 slices, but the fifth takes 7 ──

fn part_slices(profile: u32) -> Result<u32, u32> {
    Ok(match profile {
        0 | 7 => 1,
        1 => 2,
        2 => 3,
        3 => 4,
        4 => 7,
        5 => 8,
        6 => 6,
        _ => return Err(code::INVALID),
    })
}

fn part_profile(slices: u32) -> u32 {
    match slices {
        7 => 4,
        _ => slices - 1,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
    instance: nvmlGpuInstance_t,
    profile: c_uint,
    _engine: c_uint,
    info: *mut nvmlComputeInstanceProfileInfo_t,
) -> u32 {
    end(live::call(
        "nvmlGpuInstanceGetComputeInstanceProfileInfo",
        |live| instance_slot(live, instance),
        |live| {
            let sms = live.machine.model.slice_sms;
            let (_, held) = instance_of(live, instance)?;
            let slices = part_slices(profile)?;
            if slices > held.profile.slices || profile >= 5 {
                return Err(code::UNSUPPORTED);
            }
            let answer = nvmlComputeInstanceProfileInfo_t {
                id: profile,
                sliceCount: slices,
                instanceCount: held.profile.slices / slices,
                multiprocessorCount: slices * sms,
                sharedCopyEngineCount: held.profile.slices,
                sharedDecoderCount: 0,
                sharedEncoderCount: 0,
                sharedJpegCount: held.profile.media.into(),
                sharedOfaCount: held.profile.media.into(),
            };
            unsafe { put(info, answer) }
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceGetComputeInstanceRemainingCapacity(
    instance: nvmlGpuInstance_t,
    profile: c_uint,
    count: *mut c_uint,
) -> u32 {
    end(live::call(
        "nvmlGpuInstanceGetComputeInstanceRemainingCapacity",
        |live| instance_slot(live, instance),
        |live| {
            let (_, held) = instance_of(live, instance)?;
            let slices = part_slices(profile)?;
            let mut trial = held.clone();
            let mut room = 0;
            while let Some(start) = trial.free_part(slices) {
                trial.parts.push(ComputeInstance { id: 100 + room, slices, start, serial: 0 });
                room += 1;
            }
            unsafe { put(count, room) }
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceGetComputeInstancePossiblePlacements(
    instance: nvmlGpuInstance_t,
    profile: c_uint,
    placements: *mut nvmlComputeInstancePlacement_t,
    count: *mut c_uint,
) -> u32 {
    end(live::call(
        "nvmlGpuInstanceGetComputeInstancePossiblePlacements",
        |live| instance_slot(live, instance),
        |live| {
            let (_, held) = instance_of(live, instance)?;
            let size = part_slices(profile)?;
            let last = held.profile.slices.checked_sub(size).ok_or(code::UNSUPPORTED)?;
            let all = (0..=last).map(|start| nvmlComputeInstancePlacement_t { start, size });
            unsafe { put_list(placements, count, all.collect()) }
        },
    ))
}

fn create_part(
    name: &str,
    instance: nvmlGpuInstance_t,
    profile: u32,
    wanted: Option<(u32, u32)>,
    out: *mut nvmlComputeInstance_t,
) -> Result<(), u32> {
    let (slot, gi, ci) = live::change(
        name,
        |live| instance_slot(live, instance),
        |live| {
            let (slot, held) = instance_of(live, instance)?;
            let slices = part_slices(profile)?;
            if slices > held.profile.slices {
                return Err(code::UNSUPPORTED);
            }
            let start = match wanted {
                None => held.free_part(slices).ok_or(code::NO_ROOM)?,
                Some((start, size)) if size == slices && start + size <= held.profile.slices => {
                    if !held.part_fits(start, slices) {
                        return Err(code::NO_ROOM);
                    }
                    start
                }
                Some(_) => return Err(code::INVALID),
            };
            let free = (0..).find(|id| held.parts.iter().all(|part| part.id != *id)).unwrap_or(0);
            let line = format!("gpu {slot} ci {} {free} slices {slices} start {start}", held.id);
            Ok((line, (slot, held.id, free)))
        },
    )?;
    live::call(
        "",
        |_| Ok(None),
        |live| {
            let handle = live.handle(Object::ComputeInstance { slot, gi, ci });
            unsafe { put(out, handle as nvmlComputeInstance_t) }
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceCreateComputeInstance(
    instance: nvmlGpuInstance_t,
    profile: c_uint,
    out: *mut nvmlComputeInstance_t,
) -> u32 {
    end(create_part("nvmlGpuInstanceCreateComputeInstance", instance, profile, None, out))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceCreateComputeInstanceWithPlacement(
    instance: nvmlGpuInstance_t,
    profile: c_uint,
    placement: *const nvmlComputeInstancePlacement_t,
    out: *mut nvmlComputeInstance_t,
) -> u32 {
    if placement.is_null() {
        return code::INVALID;
    }
    // SAFETY: not null; the caller vouches for it.
    let wanted = unsafe { placement.read() };
    let wanted = Some((wanted.start, wanted.size));
    end(create_part("nvmlGpuInstanceCreateComputeInstanceWithPlacement", instance, profile, wanted, out))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceGetComputeInstances(
    instance: nvmlGpuInstance_t,
    profile: c_uint,
    parts: *mut nvmlComputeInstance_t,
    count: *mut c_uint,
) -> u32 {
    end(live::call(
        "nvmlGpuInstanceGetComputeInstances",
        |live| instance_slot(live, instance),
        |live| {
            let (slot, held) = instance_of(live, instance)?;
            let gi = held.id;
            let slices = part_slices(profile)?;
            let ids: Vec<u32> = held.parts.iter().filter(|part| part.slices == slices).map(|part| part.id).collect();
            if parts.is_null() {
                return Err(code::INVALID);
            }
            for (at, ci) in ids.iter().enumerate() {
                let handle = live.handle(Object::ComputeInstance { slot, gi, ci: *ci });
                // SAFETY: the caller gives room for `instanceCount` of the profile, which bounds this list.
                unsafe { parts.add(at).write(handle as nvmlComputeInstance_t) };
            }
            unsafe { put(count, ids.len() as c_uint) }
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceGetComputeInstanceById(
    instance: nvmlGpuInstance_t,
    ci: c_uint,
    out: *mut nvmlComputeInstance_t,
) -> u32 {
    end(live::call(
        "nvmlGpuInstanceGetComputeInstanceById",
        |live| instance_slot(live, instance),
        |live| {
            let (slot, held) = instance_of(live, instance)?;
            let gi = held.id;
            if held.parts.iter().all(|part| part.id != ci) {
                return Err(code::NOT_FOUND);
            }
            let handle = live.handle(Object::ComputeInstance { slot, gi, ci });
            unsafe { put(out, handle as nvmlComputeInstance_t) }
        },
    ))
}

fn part_of(live: &Live, part: nvmlComputeInstance_t) -> Result<(u32, u32, &ComputeInstance), u32> {
    let Object::ComputeInstance { slot, gi, ci } = live.object(part as usize)? else { return Err(code::INVALID) };
    let instance = live.gpu(slot)?.instance(gi).ok_or(code::NOT_FOUND)?;
    let found = instance.parts.iter().find(|held| held.id == ci).ok_or(code::NOT_FOUND)?;
    Ok((slot, gi, found))
}

fn part_slot(live: &Live, part: nvmlComputeInstance_t) -> Result<Option<u32>, u32> {
    Ok(Some(part_of(live, part)?.0))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlComputeInstanceGetInfo_v2(
    part: nvmlComputeInstance_t,
    info: *mut nvmlComputeInstanceInfo_t,
) -> u32 {
    end(live::call(
        "nvmlComputeInstanceGetInfo_v2",
        |live| part_slot(live, part),
        |live| {
            let (slot, gi, held) = part_of(live, part)?;
            let (id, slices, start) = (held.id, held.slices, held.start);
            let device = live.handle(Object::Gpu(slot)) as nvmlDevice_t;
            let instance = live.handle(Object::GpuInstance { slot, gi }) as nvmlGpuInstance_t;
            let answer = nvmlComputeInstanceInfo_t {
                device,
                gpuInstance: instance,
                id,
                profileId: part_profile(slices),
                placement: nvmlComputeInstancePlacement_t { start, size: slices },
            };
            unsafe { put(info, answer) }
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlComputeInstanceDestroy(part: nvmlComputeInstance_t) -> u32 {
    end(live::change(
        "nvmlComputeInstanceDestroy",
        |live| part_slot(live, part),
        |live| {
            let (slot, gi, held) = part_of(live, part)?;
            if live.gpu(slot)?.busy(gi, Some(held.id)) {
                return Err(code::IN_USE);
            }
            Ok((format!("gpu {slot} ci {gi} {} gone", held.id), ()))
        },
    ))
}
