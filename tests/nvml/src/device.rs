//! What a GPU is and how it fares.

use crate::live::{self, Object};
use crate::machine::{Gpu, Machine, Process, code};
use crate::{end, filled, on_gpu, put, put_text, slot_of, versioned};
use nvml_wrapper_sys::bindings::*;
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong};

// ── inventory ──

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> u32 {
    end(live::call(
        "nvmlDeviceGetCount_v2",
        |_| Ok(None),
        |live| unsafe { put(count, live.machine.present().count() as c_uint) },
    ))
}

fn give(name: &str, out: *mut nvmlDevice_t, find: impl Fn(&Machine) -> Option<u32>, missing: u32) -> u32 {
    end(live::call(
        name,
        |live| Ok(Some(find(&live.machine).ok_or(missing)?)),
        |live| {
            let slot = find(&live.machine).ok_or(missing)?;
            let handle = live.handle(Object::Gpu(slot));
            unsafe { put(out, handle as nvmlDevice_t) }
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, out: *mut nvmlDevice_t) -> u32 {
    let find = |machine: &Machine| machine.present().nth(index as usize).map(|gpu| gpu.slot);
    give("nvmlDeviceGetHandleByIndex_v2", out, find, code::INVALID)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, out: *mut nvmlDevice_t) -> u32 {
    if uuid.is_null() {
        return code::INVALID;
    }
    // SAFETY: not null; the caller gives a C string.
    let wanted = unsafe { CStr::from_ptr(uuid) }.to_string_lossy().into_owned();
    if wanted.starts_with("MIG-") {
        return crate::mig::give_by_uuid(&wanted, out);
    }
    let find = |machine: &Machine| machine.present().find(|gpu| gpu.uuid() == wanted).map(|gpu| gpu.slot);
    give("nvmlDeviceGetHandleByUUID", out, find, code::NOT_FOUND)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(id: *const c_char, out: *mut nvmlDevice_t) -> u32 {
    if id.is_null() {
        return code::INVALID;
    }
    // SAFETY: not null; the caller gives a C string.
    let wanted = unsafe { CStr::from_ptr(id) }.to_string_lossy().to_uppercase();
    let find = |machine: &Machine| machine.present().find(|gpu| gpu.bus_id().ends_with(&wanted)).map(|gpu| gpu.slot);
    give("nvmlDeviceGetHandleByPciBusId_v2", out, find, code::NOT_FOUND)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetIndex(device: nvmlDevice_t, index: *mut c_uint) -> u32 {
    end(on_gpu("nvmlDeviceGetIndex", device, |machine, gpu| {
        let at = machine.present().position(|held| held.slot == gpu.slot).ok_or(code::LOST)?;
        unsafe { put(index, at as c_uint) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMinorNumber(device: nvmlDevice_t, minor: *mut c_uint) -> u32 {
    end(on_gpu("nvmlDeviceGetMinorNumber", device, |_, gpu| unsafe { put(minor, gpu.slot) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: nvmlDevice_t, uuid: *mut c_char, length: c_uint) -> u32 {
    end(live::call(
        "nvmlDeviceGetUUID",
        |live| slot_of(live, device),
        |live| {
            let text = match live.object(device as usize)? {
                Object::Mig { slot, serial, .. } => live.gpu(slot)?.mig_uuid(serial),
                Object::Gpu(slot) => live.gpu(slot)?.uuid(),
                _ => return Err(code::INVALID),
            };
            unsafe { put_text(uuid, length, &text) }
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: nvmlDevice_t, name: *mut c_char, length: c_uint) -> u32 {
    end(on_gpu("nvmlDeviceGetName", device, |machine, _| unsafe { put_text(name, length, machine.model.name) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSerial(device: nvmlDevice_t, serial: *mut c_char, length: c_uint) -> u32 {
    end(on_gpu("nvmlDeviceGetSerial", device, |_, gpu| unsafe { put_text(serial, length, &gpu.serial()) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, pci: *mut nvmlPciInfo_t) -> u32 {
    end(on_gpu("nvmlDeviceGetPciInfo_v3", device, |_, gpu| {
        let info = nvmlPciInfo_t {
            busIdLegacy: filled(&gpu.bus_id()[4..]),
            domain: 0,
            bus: gpu.bus(),
            device: 0,
            pciDeviceId: 0x2330_10de,
            pciSubSystemId: 0x16c1_10de,
            busId: filled(&gpu.bus_id()),
        };
        unsafe { put(pci, info) }
    }))
}

const MIB: u64 = 1024 * 1024;

/// Memory that a device has and that its processes hold.
fn memory(live: &live::Live, device: nvmlDevice_t) -> Result<(u64, u64), u32> {
    match live.object(device as usize)? {
        Object::Mig { slot, gi, .. } => {
            let gpu = live.gpu(slot)?;
            let total = gpu.instance(gi).ok_or(code::NOT_FOUND)?.profile.memory_mib;
            let used: u64 = gpu.processes.iter().filter(|held| held.gi == gi).map(|held| held.mib).sum();
            Ok((total * MIB, used.min(total) * MIB))
        }
        Object::Gpu(slot) => {
            let used: u64 = live.gpu(slot)?.processes.iter().map(|held| held.mib).sum();
            let total = live.machine.model.memory_mib;
            Ok((total * MIB, used.min(total) * MIB))
        }
        _ => Err(code::INVALID),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, out: *mut nvmlMemory_t) -> u32 {
    end(live::call(
        "nvmlDeviceGetMemoryInfo",
        |live| slot_of(live, device),
        |live| {
            let (total, used) = memory(live, device)?;
            unsafe { put(out, nvmlMemory_t { total, free: total - used, used }) }
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, out: *mut nvmlMemory_v2_t) -> u32 {
    end(live::call(
        "nvmlDeviceGetMemoryInfo_v2",
        |live| slot_of(live, device),
        |live| {
            unsafe { versioned::<nvmlMemory_v2_t>(out.cast(), 2)? };
            let (total, used) = memory(live, device)?;
            let version = size_of::<nvmlMemory_v2_t>() as u32 | 2 << 24;
            unsafe { put(out, nvmlMemory_v2_t { version, total, reserved: 0, free: total - used, used }) }
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    infos: *mut nvmlProcessInfo_t,
) -> u32 {
    end(live::call(
        "nvmlDeviceGetComputeRunningProcesses_v3",
        |live| slot_of(live, device),
        |live| {
            let object = live.object(device as usize)?;
            let slot = slot_of(live, device)?.ok_or(code::INVALID)?;
            let here = |process: &&Process| match object {
                Object::Mig { gi, ci, .. } => process.gi == gi && process.ci == ci,
                _ => true,
            };
            let found: Vec<&Process> = live.gpu(slot)?.processes.iter().filter(here).collect();
            if count.is_null() {
                return Err(code::INVALID);
            }
            // SAFETY: the caller gives room for as many as `count` says.
            unsafe {
                let room = count.read() as usize;
                count.write(found.len() as c_uint);
                if found.len() > room || (infos.is_null() && !found.is_empty()) {
                    return Err(code::SIZE);
                }
                for (at, process) in found.iter().enumerate() {
                    infos.add(at).write(nvmlProcessInfo_t {
                        pid: process.pid,
                        usedGpuMemory: process.mib * MIB,
                        gpuInstanceId: process.gi,
                        computeInstanceId: process.ci,
                    });
                }
            }
            Ok(())
        },
    ))
}

// ── health ──

macro_rules! reads {
    ($($name:ident($machine:ident, $gpu:ident) -> $type:ty = $value:expr;)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(device: nvmlDevice_t, out: *mut $type) -> u32 {
            end(on_gpu(stringify!($name), device, |$machine: &Machine, $gpu: &Gpu| unsafe { put(out, $value) }))
        }
    )* };
}

reads! {
    nvmlDeviceGetCurrentClocksThrottleReasons(_machine, gpu) -> c_ulonglong = gpu.throttle;
    nvmlDeviceGetCurrentClocksEventReasons(_machine, gpu) -> c_ulonglong = gpu.throttle;
    nvmlDeviceGetPcieReplayCounter(_machine, gpu) -> c_uint = gpu.pcie_replay;
    nvmlDeviceGetCurrPcieLinkGeneration(_machine, gpu) -> c_uint = gpu.pcie_gen;
    nvmlDeviceGetMaxPcieLinkGeneration(machine, _gpu) -> c_uint = machine.model.pcie_gen;
    nvmlDeviceGetCurrPcieLinkWidth(_machine, gpu) -> c_uint = gpu.pcie_width;
    nvmlDeviceGetMaxPcieLinkWidth(_machine, _gpu) -> c_uint = 16;
    nvmlDeviceGetPowerUsage(_machine, gpu) -> c_uint = gpu.power_mw;
    nvmlDeviceGetUtilizationRates(_machine, gpu) -> nvmlUtilization_t =
        nvmlUtilization_t { gpu: if gpu.processes.is_empty() { 0 } else { 90 }, memory: 10 };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(device: nvmlDevice_t, _sensor: u32, out: *mut c_uint) -> u32 {
    end(on_gpu("nvmlDeviceGetTemperature", device, |_, gpu| unsafe { put(out, gpu.temp) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperatureThreshold(device: nvmlDevice_t, kind: u32, out: *mut c_uint) -> u32 {
    end(on_gpu("nvmlDeviceGetTemperatureThreshold", device, |machine, _| {
        let [slowdown, shutdown, memory, gpu] = machine.model.limits;
        let limit = *[shutdown, slowdown, memory, gpu].get(kind as usize).ok_or(code::UNSUPPORTED)?;
        unsafe { put(out, limit) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMarginTemperature(
    device: nvmlDevice_t,
    out: *mut nvmlMarginTemperature_t,
) -> u32 {
    end(on_gpu("nvmlDeviceGetMarginTemperature", device, |machine, gpu| {
        machine.model.tlimit.ok_or(code::UNSUPPORTED)?;
        unsafe { versioned::<nvmlMarginTemperature_t>(out.cast(), 1)? };
        let version = size_of::<nvmlMarginTemperature_t>() as u32 | 1 << 24;
        unsafe { put(out, nvmlMarginTemperature_t { version, marginTemperature: gpu.margin(machine.model) }) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEccMode(
    device: nvmlDevice_t,
    current: *mut nvmlEnableState_t,
    pending: *mut nvmlEnableState_t,
) -> u32 {
    end(on_gpu("nvmlDeviceGetEccMode", device, |_, _| unsafe {
        put(current, 1)?;
        put(pending, 1)
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    kind: u32,
    counter: u32,
    out: *mut c_ulonglong,
) -> u32 {
    end(on_gpu("nvmlDeviceGetTotalEccErrors", device, |_, gpu| {
        let counters = if counter == 0 { &gpu.volatile } else { &gpu.aggregate };
        let count = match kind {
            0 => counters.corrected + counters.sram_corrected,
            1 => counters.uncorrected + counters.sram_uncorrected,
            _ => return Err(code::INVALID),
        };
        unsafe { put(out, count) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryErrorCounter(
    device: nvmlDevice_t,
    kind: u32,
    counter: u32,
    location: u32,
    out: *mut c_ulonglong,
) -> u32 {
    end(on_gpu("nvmlDeviceGetMemoryErrorCounter", device, |_, gpu| {
        let counters = if counter == 0 { &gpu.volatile } else { &gpu.aggregate };
        // 2: device memory; 7: SRAM.
        let count = match (location, kind) {
            (2, 0) => counters.corrected,
            (2, 1) => counters.uncorrected,
            (7, 0) => counters.sram_corrected,
            (7, 1) => counters.sram_uncorrected,
            _ => return Err(code::UNSUPPORTED),
        };
        unsafe { put(out, count) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSramEccErrorStatus(
    device: nvmlDevice_t,
    out: *mut nvmlEccSramErrorStatus_t,
) -> u32 {
    end(on_gpu("nvmlDeviceGetSramEccErrorStatus", device, |_, gpu| {
        unsafe { versioned::<nvmlEccSramErrorStatus_t>(out.cast(), 1)? };
        let status = nvmlEccSramErrorStatus_t {
            version: size_of::<nvmlEccSramErrorStatus_t>() as u32 | 1 << 24,
            aggregateUncParity: 0,
            aggregateUncSecDed: gpu.aggregate.sram_uncorrected,
            aggregateCor: gpu.aggregate.sram_corrected,
            volatileUncParity: 0,
            volatileUncSecDed: gpu.volatile.sram_uncorrected,
            volatileCor: gpu.volatile.sram_corrected,
            aggregateUncBucketL2: gpu.aggregate.sram_uncorrected,
            aggregateUncBucketSm: 0,
            aggregateUncBucketPcie: 0,
            aggregateUncBucketMcu: 0,
            aggregateUncBucketOther: 0,
            bThresholdExceeded: gpu.sram_threshold.into(),
        };
        unsafe { put(out, status) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    device: nvmlDevice_t,
    corrected: *mut c_uint,
    uncorrected: *mut c_uint,
    pending: *mut c_uint,
    failed: *mut c_uint,
) -> u32 {
    end(on_gpu("nvmlDeviceGetRemappedRows", device, |_, gpu| {
        // Not with active instances: the kernel log is then the only source.
        if !gpu.instances.is_empty() {
            return Err(code::UNSUPPORTED);
        }
        unsafe {
            put(corrected, gpu.rows[0])?;
            put(uncorrected, gpu.rows[1])?;
            put(pending, gpu.rows[2])?;
            put(failed, gpu.rows[3])
        }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRowRemapperHistogram(
    device: nvmlDevice_t,
    out: *mut nvmlRowRemapperHistogramValues_t,
) -> u32 {
    end(on_gpu("nvmlDeviceGetRowRemapperHistogram", device, |_, gpu| {
        if !gpu.instances.is_empty() {
            return Err(code::UNSUPPORTED);
        }
        let [max, high, partial, low, none] = gpu.bank;
        unsafe { put(out, nvmlRowRemapperHistogramValues_t { max, high, partial, low, none }) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRepairStatus(device: nvmlDevice_t, out: *mut nvmlRepairStatus_t) -> u32 {
    end(on_gpu("nvmlDeviceGetRepairStatus", device, |machine, gpu| {
        if !machine.model.nvlink5 {
            return Err(code::UNSUPPORTED);
        }
        unsafe { versioned::<nvmlRepairStatus_t>(out.cast(), 1)? };
        let status = nvmlRepairStatus_t {
            version: size_of::<nvmlRepairStatus_t>() as u32 | 1 << 24,
            bChannelRepairPending: gpu.repair[0].into(),
            bTpcRepairPending: gpu.repair[1].into(),
        };
        unsafe { put(out, status) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(device: nvmlDevice_t, out: *mut nvmlGpuFabricInfoV_t) -> u32 {
    end(on_gpu("nvmlDeviceGetGpuFabricInfoV", device, |machine, gpu| {
        if !machine.model.fabric {
            return Err(code::UNSUPPORTED);
        }
        unsafe { versioned::<nvmlGpuFabricInfoV_t>(out.cast(), 3)? };
        let info = nvmlGpuFabricInfoV_t {
            version: size_of::<nvmlGpuFabricInfoV_t>() as u32 | 3 << 24,
            clusterUuid: [7; 16],
            status: gpu.fabric_status,
            cliqueId: 1,
            state: gpu.fabric_state as _,
            healthMask: gpu.fabric_mask,
            healthSummary: gpu.fabric_summary,
        };
        unsafe { put(out, info) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkState(device: nvmlDevice_t, link: c_uint, out: *mut u32) -> u32 {
    end(on_gpu("nvmlDeviceGetNvLinkState", device, |_, gpu| {
        let link = gpu.links.get(link as usize).ok_or(code::INVALID)?;
        unsafe { put(out, (!link.down).into()) }
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    device: nvmlDevice_t,
    link: c_uint,
    counter: u32,
    out: *mut c_ulonglong,
) -> u32 {
    end(on_gpu("nvmlDeviceGetNvLinkErrorCounter", device, |machine, gpu| {
        if machine.model.nvlink5 {
            return Err(code::UNSUPPORTED);
        }
        let link = gpu.links.get(link as usize).ok_or(code::INVALID)?;
        let count = match counter {
            0 => link.replay,
            1 => link.recovery,
            2 => link.crc,
            _ => return Err(code::UNSUPPORTED),
        };
        unsafe { put(out, count) }
    }))
}

/// One field: its type and value, or the code that stands in its place.
fn field(machine: &Machine, gpu: &Gpu, id: u32, scope: u32) -> Result<(u32, i64), u32> {
    const UINT: u32 = 1;
    const LONG: u32 = 3;
    const SIGNED: u32 = 5;
    let sum = |count: fn(&crate::machine::Link) -> u64| gpu.links.iter().map(count).sum::<u64>() as i64;
    let link = || gpu.links.get(scope as usize).ok_or(code::INVALID);
    let rows = |at: usize| if gpu.instances.is_empty() { Ok(gpu.rows[at].into()) } else { Err(code::UNSUPPORTED) };
    let older = !machine.model.nvlink5;
    let tlimit = |at: usize| machine.model.tlimit.map(|offsets| offsets[at].into()).ok_or(code::UNSUPPORTED);
    Ok(match id {
        38 if older => (LONG, sum(|link| link.crc)),
        52 if older => (LONG, sum(|link| link.replay)),
        59 if older => (LONG, sum(|link| link.recovery)),
        82 => (UINT, gpu.memory_temp.into()),
        91 => (UINT, machine.model.links.into()),
        94 => (UINT, gpu.pcie_replay.into()),
        142 => (UINT, rows(0)?),
        143 => (UINT, rows(1)?),
        144 => (UINT, rows(2)?),
        145 => (UINT, rows(3)?),
        165 => (UINT, (!link()?.down).into()),
        193..=196 => (SIGNED, tlimit(id as usize - 193)?),
        208 if !older => (LONG, link()?.crc as i64),
        213 | 215 if !older => (LONG, link()?.recovery as i64),
        214 if !older => (LONG, link()?.replay as i64),
        226 => (UINT, (gpu.reset_required || gpu.recovery == 1).into()),
        227 => (UINT, (gpu.recovery == 4).into()),
        230 => (UINT, gpu.recovery.into()),
        _ => return Err(code::UNSUPPORTED),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> u32 {
    end(on_gpu("nvmlDeviceGetFieldValues", device, |machine, gpu| {
        if values.is_null() || count < 0 {
            return Err(code::INVALID);
        }
        for at in 0..count as usize {
            // SAFETY: the caller gives `count` of them.
            let asked = unsafe { &mut *values.add(at) };
            match field(machine, gpu, asked.fieldId, asked.scopeId) {
                Ok((kind, value)) => {
                    asked.nvmlReturn = code::OK;
                    asked.valueType = kind;
                    asked.value = match kind {
                        1 => nvmlValue_t { uiVal: value as c_uint },
                        5 => nvmlValue_t { siVal: value as c_int },
                        _ => nvmlValue_t { ullVal: value as c_ulonglong },
                    };
                }
                Err(why) => asked.nvmlReturn = why,
            }
        }
        Ok(())
    }))
}
