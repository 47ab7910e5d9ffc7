//! NVML's own functions, through the table of the loaded library: those that the safe wrapper lacks, cuts short or gets
//! wrong.
//!
//! Invariant: a pointer that is handed to the library is valid for the whole call and for the size in the call; nothing
//! here keeps one.

// The library is C: each call below passes pointers to our own variables, and handles that only the library reads.
#![allow(unsafe_code)]

use super::reading::{FabricState, MigDevice, RowRemapHistogram};
use crate::limits;
use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::*;
use std::ffi::{CStr, c_char, c_uint};

/// A return code of NVML that is not success. The wrapper has 22 of them; this keeps them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code(pub u32);

impl Code {
    pub const UNINITIALIZED: Code = Code(1);
    pub const UNSUPPORTED: Code = Code(3);
    pub const NO_DRIVER: Code = Code(9);
    pub const TIMEOUT: Code = Code(10);
    pub const NO_SYMBOL: Code = Code(13);
    pub const LOST: Code = Code(15);
    pub const RESET_REQUIRED: Code = Code(16);
    pub const MISMATCH: Code = Code(18);

    /// The session, not the GPU, has come to its end: begin another.
    pub fn ends_session(self) -> bool {
        matches!(self, Code::UNINITIALIZED | Code::NO_DRIVER | Code::MISMATCH)
    }

    /// No fault: this driver or this product does not have it, or we may not read it.
    pub fn is_absence(self) -> bool {
        matches!(self.0, 3 | 4 | 6 | 13 | 21 | 25 | 26)
    }

    /// The code's meaning in words.
    pub fn words(self) -> &'static str {
        match self.0 {
            1 => "the session is over",
            2 => "invalid argument",
            3 => "not supported",
            4 => "no permission",
            6 => "not found",
            9 => "the driver is not loaded",
            10 => "timeout",
            12 => "a library is missing",
            13 => "the library lacks the function",
            14 => "the InfoROM is corrupt",
            15 => "the GPU is lost",
            16 => "the GPU needs a reset",
            17 => "the operating system refuses",
            18 => "library and driver do not match",
            19 => "in use",
            20 => "out of memory",
            23 => "insufficient resources",
            25 => "version mismatch of an argument",
            27 => "not ready",
            28 => "GPU not found",
            29 => "invalid state",
            30 => "this kind of reset is not supported",
            _ => "unknown error",
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.words(), self.0)
    }
}

/// A device's handle, kept as a number: it means something only to the library that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeviceHandle(pub usize);

impl DeviceHandle {
    fn get(self) -> nvmlDevice_t {
        self.0 as nvmlDevice_t
    }
}

/// An event set, in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NvmlEventSet(usize);

/// One event, with all of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NvmlEvent {
    pub handle: DeviceHandle,
    pub kind: u64,
    pub data: u64,
    pub instance: Option<u32>,
    pub part: Option<u32>,
}

/// One field to read, and its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct NvmlField {
    pub id: u32,
    /// The link, for NVLink 5; the safe wrapper always sends 0.
    pub scope: u32,
}

/// A process that computes on a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GpuProcess {
    pub pid: u32,
    pub memory: Option<u64>,
    pub instance: Option<u32>,
    pub part: Option<u32>,
}

/// Calls a function of the library if it has it; the bindings' own methods panic where it does not.
macro_rules! call {
    ($nvml:expr, $name:ident($($argument:expr),* $(,)?)) => {
        match $nvml.lib().$name.as_ref() {
            // SAFETY: the arguments are our own variables, valid for the call, with the sizes in the call.
            Ok(function) => match unsafe { function($($argument),*) } {
                0 => Ok(()),
                code => Err(Code(code)),
            },
            Err(_) => Err(Code::NO_SYMBOL),
        }
    };
}

/// A structure with nothing in it; all of NVML's are plain numbers.
fn empty<T: Copy>() -> T {
    // SAFETY: only used for NVML's structures of integers, for which all zeroes are a value.
    unsafe { std::mem::zeroed() }
}

fn version<T>(number: u32) -> c_uint {
    let size = u32::try_from(size_of::<T>()).unwrap_or(0);
    size | number << 24
}

fn present(id: u32) -> Option<u32> {
    (id != u32::MAX).then_some(id)
}

/// Text that a call wrote.
fn text(read: impl FnOnce(*mut c_char, c_uint) -> Result<(), Code>) -> Result<String, Code> {
    let mut buffer = [0 as c_char; 128];
    // The last byte is not offered, so that the text ends in any case.
    read(buffer.as_mut_ptr(), 127)?;
    // SAFETY: the buffer was zeroed and its last byte never written, so a NUL is in it.
    Ok(unsafe { CStr::from_ptr(buffer.as_ptr()) }.to_string_lossy().into_owned())
}

pub(super) fn count(nvml: &Nvml) -> Result<u32, Code> {
    let mut count = 0;
    call!(nvml, nvmlDeviceGetCount_v2(&mut count))?;
    Ok(count)
}

pub(super) fn by_index(nvml: &Nvml, index: u32) -> Result<DeviceHandle, Code> {
    let mut handle = std::ptr::null_mut();
    call!(nvml, nvmlDeviceGetHandleByIndex_v2(index, &mut handle))?;
    Ok(DeviceHandle(handle as usize))
}

pub(super) fn driver(nvml: &Nvml) -> Result<String, Code> {
    text(|to, room| call!(nvml, nvmlSystemGetDriverVersion(to, room)))
}

pub(super) fn uuid(nvml: &Nvml, gpu: DeviceHandle) -> Result<String, Code> {
    text(|to, room| call!(nvml, nvmlDeviceGetUUID(gpu.get(), to, room)))
}

pub(super) fn name(nvml: &Nvml, gpu: DeviceHandle) -> Result<String, Code> {
    text(|to, room| call!(nvml, nvmlDeviceGetName(gpu.get(), to, room)))
}

/// `0000:65:00.0`, as the kernel writes it.
pub(super) fn pci(nvml: &Nvml, gpu: DeviceHandle) -> Result<String, Code> {
    let mut info: nvmlPciInfo_t = empty();
    call!(nvml, nvmlDeviceGetPciInfo_v3(gpu.get(), &mut info))?;
    Ok(format!("{:04x}:{:02x}:{:02x}.0", info.domain, info.bus, info.device))
}

/// Several fields in one call, in the given order; a field that the product lacks is `None`.
pub(super) fn fields(nvml: &Nvml, gpu: DeviceHandle, asked: &[NvmlField]) -> Result<Vec<Option<i64>>, Code> {
    let mut values: Vec<nvmlFieldValue_t> = asked
        .iter()
        .map(|field| {
            let mut value: nvmlFieldValue_t = empty();
            (value.fieldId, value.scopeId) = (field.id, field.scope);
            // A field that the library passes over must not look answered.
            value.nvmlReturn = Code::UNSUPPORTED.0;
            value
        })
        .collect();
    let length = i32::try_from(values.len()).unwrap_or(0);
    call!(nvml, nvmlDeviceGetFieldValues(gpu.get(), length, values.as_mut_ptr()))?;
    Ok(values.iter().map(number).collect())
}

fn number(value: &nvmlFieldValue_t) -> Option<i64> {
    if value.nvmlReturn != 0 {
        return None;
    }
    // SAFETY: every member is a plain number at the same place, and the type names the one that was written.
    unsafe {
        match value.valueType {
            1 => Some(value.value.uiVal.into()),
            2 => i64::try_from(value.value.ulVal).ok(),
            3 => i64::try_from(value.value.ullVal).ok(),
            4 => Some(value.value.sllVal),
            5 => Some(value.value.siVal.into()),
            6 => Some(value.value.usVal.into()),
            _ => None,
        }
    }
}

pub(super) fn throttle(nvml: &Nvml, gpu: DeviceHandle) -> Result<u64, Code> {
    let mut reasons = 0;
    match call!(nvml, nvmlDeviceGetCurrentClocksEventReasons(gpu.get(), &mut reasons)) {
        // The name that older drivers have.
        Err(Code::NO_SYMBOL) => call!(nvml, nvmlDeviceGetCurrentClocksThrottleReasons(gpu.get(), &mut reasons))?,
        other => other?,
    }
    Ok(reasons)
}

pub(super) fn temperature(nvml: &Nvml, gpu: DeviceHandle) -> Result<u32, Code> {
    let mut degrees = 0;
    call!(nvml, nvmlDeviceGetTemperature(gpu.get(), 0, &mut degrees))?;
    Ok(degrees)
}

/// 0 shutdown, 1 slowdown, 2 memory's maximum, 3 the GPU's maximum.
pub(super) fn threshold(nvml: &Nvml, gpu: DeviceHandle, which: u32) -> Result<u32, Code> {
    let mut degrees = 0;
    call!(nvml, nvmlDeviceGetTemperatureThreshold(gpu.get(), which, &mut degrees))?;
    Ok(degrees)
}

pub(super) fn margin(nvml: &Nvml, gpu: DeviceHandle) -> Result<i32, Code> {
    let mut margin: nvmlMarginTemperature_t = empty();
    margin.version = version::<nvmlMarginTemperature_t>(1);
    call!(nvml, nvmlDeviceGetMarginTemperature(gpu.get(), &mut margin))?;
    Ok(margin.marginTemperature)
}

/// Errors of memory and caches: uncorrected or corrected, since the driver was loaded or in the GPU's life.
pub(super) fn ecc(nvml: &Nvml, gpu: DeviceHandle, uncorrected: bool, life: bool) -> Result<u64, Code> {
    let mut count = 0;
    call!(nvml, nvmlDeviceGetTotalEccErrors(gpu.get(), uncorrected.into(), life.into(), &mut count))?;
    Ok(count)
}

pub(super) fn sram_threshold(nvml: &Nvml, gpu: DeviceHandle) -> Result<bool, Code> {
    let mut status: nvmlEccSramErrorStatus_t = empty();
    status.version = version::<nvmlEccSramErrorStatus_t>(1);
    call!(nvml, nvmlDeviceGetSramEccErrorStatus(gpu.get(), &mut status))?;
    Ok(status.bThresholdExceeded != 0)
}

pub(super) fn banks(nvml: &Nvml, gpu: DeviceHandle) -> Result<RowRemapHistogram, Code> {
    let mut values: nvmlRowRemapperHistogramValues_t = empty();
    call!(nvml, nvmlDeviceGetRowRemapperHistogram(gpu.get(), &mut values))?;
    Ok(RowRemapHistogram {
        max: values.max,
        high: values.high,
        partial: values.partial,
        low: values.low,
        none: values.none,
    })
}

/// Repairs of a memory channel and of a TPC that wait for a reset.
pub(super) fn repairs(nvml: &Nvml, gpu: DeviceHandle) -> Result<(bool, bool), Code> {
    let mut status: nvmlRepairStatus_t = empty();
    status.version = version::<nvmlRepairStatus_t>(1);
    call!(nvml, nvmlDeviceGetRepairStatus(gpu.get(), &mut status))?;
    Ok((status.bChannelRepairPending != 0, status.bTpcRepairPending != 0))
}

pub(super) fn fabric(nvml: &Nvml, gpu: DeviceHandle) -> Result<FabricState, Code> {
    let mut info: nvmlGpuFabricInfoV_t = empty();
    info.version = version::<nvmlGpuFabricInfoV_t>(3);
    call!(nvml, nvmlDeviceGetGpuFabricInfoV(gpu.get(), &mut info))?;
    Ok(FabricState {
        state: info.state.into(),
        status: info.status,
        health: info.healthMask,
        summary: info.healthSummary,
    })
}

pub(super) fn link_is_active(nvml: &Nvml, gpu: DeviceHandle, link: u32) -> Result<bool, Code> {
    let mut state = 0;
    call!(nvml, nvmlDeviceGetNvLinkState(gpu.get(), link, &mut state))?;
    Ok(state != 0)
}

/// PCIe: width and generation now, and the most that both sides can.
pub(super) fn pcie(nvml: &Nvml, gpu: DeviceHandle) -> Result<[u32; 4], Code> {
    let (mut width, mut most_width, mut generation, mut most_generation) = (0, 0, 0, 0);
    call!(nvml, nvmlDeviceGetCurrPcieLinkWidth(gpu.get(), &mut width))?;
    call!(nvml, nvmlDeviceGetMaxPcieLinkWidth(gpu.get(), &mut most_width))?;
    call!(nvml, nvmlDeviceGetCurrPcieLinkGeneration(gpu.get(), &mut generation))?;
    call!(nvml, nvmlDeviceGetMaxPcieLinkGeneration(gpu.get(), &mut most_generation))?;
    Ok([width, most_width, generation, most_generation])
}

// ── MIG, as far as the watch looks at it ──

pub(super) fn mig_mode(nvml: &Nvml, gpu: DeviceHandle) -> Result<(bool, bool), Code> {
    let (mut current, mut pending) = (0, 0);
    call!(nvml, nvmlDeviceGetMigMode(gpu.get(), &mut current, &mut pending))?;
    Ok((current != 0, pending != 0))
}

/// The MIG devices that exist. Indices have holes, so all are read up to the most there can be.
pub(super) fn slices(nvml: &Nvml, gpu: DeviceHandle) -> Result<Vec<MigDevice>, Code> {
    let mut most = 0;
    call!(nvml, nvmlDeviceGetMaxMigDeviceCount(gpu.get(), &mut most))?;
    let mut found = Vec::new();
    for index in 0..most.min(limits::MIG_DEVICES) {
        let mut device = std::ptr::null_mut();
        match call!(nvml, nvmlDeviceGetMigDeviceHandleByIndex(gpu.get(), index, &mut device)) {
            Ok(()) => found.push(slice(nvml, DeviceHandle(device as usize))?),
            Err(code) if code.is_absence() => {}
            Err(code) => return Err(code),
        }
    }
    Ok(found)
}

fn slice(nvml: &Nvml, device: DeviceHandle) -> Result<MigDevice, Code> {
    let (mut instance, mut part) = (0, 0);
    call!(nvml, nvmlDeviceGetGpuInstanceId(device.get(), &mut instance))?;
    call!(nvml, nvmlDeviceGetComputeInstanceId(device.get(), &mut part))?;
    let mut attributes: nvmlDeviceAttributes_t = empty();
    call!(nvml, nvmlDeviceGetAttributes_v2(device.get(), &mut attributes))?;
    Ok(MigDevice {
        uuid: uuid(nvml, device)?,
        gpu_instance: instance,
        compute_instance: part,
        slices: attributes.gpuInstanceSliceCount,
        memory_mib: attributes.memorySizeMB,
    })
}

// ── processes ──

pub(super) fn processes(nvml: &Nvml, gpu: DeviceHandle) -> Result<Vec<GpuProcess>, Code> {
    // Processes come and go between the call for the number and the call for the list; a table of fixed size needs one
    // call.
    let mut infos: Vec<nvmlProcessInfo_t> = vec![empty(); limits::GPU_PROCESSES];
    let mut count = u32::try_from(infos.len()).unwrap_or(0);
    call!(nvml, nvmlDeviceGetComputeRunningProcesses_v3(gpu.get(), &mut count, infos.as_mut_ptr()))?;
    infos.truncate(count as usize);
    let process = |info: &nvmlProcessInfo_t| GpuProcess {
        pid: info.pid,
        // All ones: not available.
        memory: (info.usedGpuMemory != u64::MAX).then_some(info.usedGpuMemory),
        instance: present(info.gpuInstanceId),
        part: present(info.computeInstanceId),
    };
    Ok(infos.iter().map(process).collect())
}

pub(super) fn process_name(nvml: &Nvml, pid: u32) -> Result<String, Code> {
    text(|to, room| call!(nvml, nvmlSystemGetProcessName(pid, to, room)))
}

// ── events ──

pub(super) fn set_create(nvml: &Nvml) -> Result<NvmlEventSet, Code> {
    let mut set = std::ptr::null_mut();
    call!(nvml, nvmlEventSetCreate(&mut set))?;
    Ok(NvmlEventSet(set as usize))
}

pub(super) fn set_free(nvml: &Nvml, set: NvmlEventSet) -> Result<(), Code> {
    call!(nvml, nvmlEventSetFree(set.0 as nvmlEventSet_t))
}

/// Registers those of the wanted types that the GPU supports. The raw call leaves the set alone when it fails.
pub(super) fn set_register(nvml: &Nvml, set: NvmlEventSet, gpu: DeviceHandle, wanted: u64) -> Result<(), Code> {
    let mut supported = 0;
    call!(nvml, nvmlDeviceGetSupportedEventTypes(gpu.get(), &mut supported))?;
    call!(nvml, nvmlDeviceRegisterEvents(gpu.get(), supported & wanted, set.0 as nvmlEventSet_t))
}

/// The next event, or `None` when the time is over.
pub(super) fn set_wait(nvml: &Nvml, set: NvmlEventSet, milliseconds: u32) -> Result<Option<NvmlEvent>, Code> {
    let mut data: nvmlEventData_t = empty();
    match call!(nvml, nvmlEventSetWait_v2(set.0 as nvmlEventSet_t, &mut data, milliseconds)) {
        Ok(()) => Ok(Some(NvmlEvent {
            handle: DeviceHandle(data.device as usize),
            kind: data.eventType,
            data: data.eventData,
            instance: present(data.gpuInstanceId),
            part: present(data.computeInstanceId),
        })),
        Err(Code::TIMEOUT) => Ok(None),
        Err(code) => Err(code),
    }
}
