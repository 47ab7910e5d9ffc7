//! NVML's MIG calls, made directly: the safe wrapper lists no placements and has no life cycle of instances.
//!
//! The library is opened for one question or one change and closed after it, because an open handle would itself keep
//! an instance from being destroyed.
//!
//! Invariant: every return code is looked at; a handle never outlives the session that gave it.

// C functions through pointers: the library guarantees its header, and each call gives it room for its answer.
#![allow(unsafe_code)]

use crate::limits;
use crate::model::{GpuName, MigCompute, MigGpu, MigInstance, MigProfile};
use nvml_wrapper_sys::bindings::*;
use std::ffi::{CStr, c_char, c_uint};
use std::path::Path;
use std::ptr;

/// NVML's error: the call, its code and its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("NVML: {call}: {text} (code {code})")]
pub(super) struct NvmlError {
    pub call: &'static str,
    pub code: u32,
    pub text: String,
}

const SUCCESS: u32 = 0;
const NOT_SUPPORTED: u32 = 3;
const NOT_FOUND: u32 = 6;
/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`; newer drivers renumber only the fields from 251 on.
const RECOVERY_ACTION: u32 = 230;

/// An open library.
pub(super) struct MigSession {
    lib: NvmlLib,
}

/// Calls a function of the library, if it has it.
macro_rules! nvml {
    ($session:expr, $name:ident ( $($arg:expr),* )) => {
        match &$session.lib.$name {
            // SAFETY: the signature is NVML's own header; every pointer is to a live local of the caller.
            Ok(function) => $session.check(stringify!($name), unsafe { function($($arg),*) }),
            Err(_) => Err(NvmlError {
                call: stringify!($name),
                code: 13,
                text: "this driver's library has no such function".to_owned(),
            }),
        }
    };
}

/// A GPU of a session.
#[derive(Clone, Copy)]
pub(super) struct SessionGpu<'s> {
    session: &'s MigSession,
    handle: nvmlDevice_t,
    index: u32,
}

impl MigSession {
    /// Loads the library and starts NVML; dropping the session ends it.
    ///
    /// # Errors
    ///
    /// Fails when the library cannot be loaded, or NVML cannot be started.
    pub fn open(library: &Path) -> Result<MigSession, NvmlError> {
        // SAFETY: loading runs the library's initialisers; the path is the operator's own setting.
        let lib = unsafe { NvmlLib::new(library) }.map_err(|error| NvmlError {
            call: "dlopen",
            code: 12,
            text: format!("{}: {error}", library.display()),
        })?;
        let session = MigSession { lib };
        nvml!(session, nvmlInit_v2())?;
        Ok(session)
    }

    /// The GPUs of the node, by index.
    ///
    /// # Errors
    ///
    /// Fails when NVML cannot count the GPUs, or refuses one of them.
    pub fn gpus(&self) -> Result<Vec<SessionGpu<'_>>, NvmlError> {
        let mut count: c_uint = 0;
        nvml!(self, nvmlDeviceGetCount_v2(&mut count))?;
        let mut gpus = Vec::new();
        for index in 0..count.min(limits::GPUS_OF_NODE as c_uint) {
            let mut handle = ptr::null_mut();
            nvml!(self, nvmlDeviceGetHandleByIndex_v2(index, &mut handle))?;
            gpus.push(SessionGpu { session: self, handle, index });
        }
        Ok(gpus)
    }

    fn check(&self, call: &'static str, code: u32) -> Result<(), NvmlError> {
        if code == SUCCESS {
            return Ok(());
        }
        let text = match &self.lib.nvmlErrorString {
            // SAFETY: the library returns a static text for every code, or null.
            Ok(function) => unsafe {
                let text = function(code);
                if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
            },
            Err(_) => String::new(),
        };
        // The wrapper's list ends at 22; this one comes when no slot fits.
        let text = match (code, text.as_str()) {
            (23, _) => "insufficient resources: no instance of this size fits there".to_owned(),
            (_, "") => "unknown".to_owned(),
            _ => text,
        };
        Err(NvmlError { call, code, text })
    }
}

impl Drop for MigSession {
    fn drop(&mut self) {
        if let Ok(shutdown) = &self.lib.nvmlShutdown {
            // SAFETY: takes nothing; its result changes nothing any more.
            unsafe { shutdown() };
        }
    }
}

impl<'s> SessionGpu<'s> {
    /// Everything about its MIG side.
    ///
    /// # Errors
    ///
    /// Fails when NVML refuses one of the reads.
    pub fn read(&self) -> Result<MigGpu, NvmlError> {
        let (enabled, pending) = self.mode()?;
        let profiles = if enabled { self.profiles()? } else { Vec::new() };
        let instances = if enabled { self.instances(&profiles)? } else { Vec::new() };
        Ok(MigGpu {
            gpu: self.name()?,
            product: self.text("nvmlDeviceGetName", &self.session.lib.nvmlDeviceGetName)?,
            enabled,
            pending,
            profiles,
            instances,
            ill: self.illness().or_else(|| self.remapping()),
        })
    }

    /// The GPU's index, UUID and PCI address; an address that cannot be read is empty.
    ///
    /// # Errors
    ///
    /// Fails when NVML does not give the UUID.
    pub fn name(&self) -> Result<GpuName, NvmlError> {
        let uuid = self.text("nvmlDeviceGetUUID", &self.session.lib.nvmlDeviceGetUUID)?;
        // SAFETY: a C structure of numbers and texts, for which all zeroes is a value.
        let mut pci: nvmlPciInfo_t = unsafe { std::mem::zeroed() };
        let known = nvml!(self.session, nvmlDeviceGetPciInfo_v3(self.handle, &mut pci));
        let pci = if known.is_ok() { short_address(&text_of(&pci.busId)) } else { String::new() };
        Ok(GpuName { index: Some(self.index), uuid, pci })
    }

    /// The driver's required recovery action, or why it could not be read.
    fn illness(&self) -> Option<String> {
        // SAFETY: as above: a plain structure.
        let mut field: nvmlFieldValue_t = unsafe { std::mem::zeroed() };
        field.fieldId = RECOVERY_ACTION;
        match nvml!(self.session, nvmlDeviceGetFieldValues(self.handle, 1, &mut field)) {
            Err(error) if error.code == NOT_SUPPORTED || error.code == 13 => None,
            Err(error) => Some(error.to_string()),
            // A driver without the field returns that in the field.
            Ok(()) if field.nvmlReturn != SUCCESS => None,
            // SAFETY: every variant of the union is a number of at most eight bytes, and all of it was zeroed.
            Ok(()) => match unsafe { field.value.uiVal } {
                0 => None,
                1 => Some("recovery action: GPU reset".to_owned()),
                2 => Some("recovery action: node reboot".to_owned()),
                3 => Some("recovery action: drain peer-to-peer traffic".to_owned()),
                4 => Some("recovery action: drain and reset".to_owned()),
                other => Some(format!("recovery action: {other}")),
            },
        }
    }

    /// Rows of its memory that wait for a reset to be remapped, or could not be.
    fn remapping(&self) -> Option<String> {
        let (mut corrected, mut uncorrected, mut pending, mut failed): (c_uint, c_uint, c_uint, c_uint) = (0, 0, 0, 0);
        let asked = nvml!(
            self.session,
            nvmlDeviceGetRemappedRows(self.handle, &mut corrected, &mut uncorrected, &mut pending, &mut failed)
        );
        match asked {
            // Older GPUs have none, and with instances in use the driver does not return it.
            Err(_) => None,
            Ok(()) if failed != 0 => Some("rows of its memory could not be remapped".to_owned()),
            Ok(()) if pending != 0 => Some("rows of its memory wait for a reset to be remapped".to_owned()),
            Ok(()) => None,
        }
    }

    /// Partitioned now, and whether that is about to change with a reset.
    fn mode(&self) -> Result<(bool, bool), NvmlError> {
        let (mut current, mut pending): (c_uint, c_uint) = (0, 0);
        match nvml!(self.session, nvmlDeviceGetMigMode(self.handle, &mut current, &mut pending)) {
            Err(error) if error.code == NOT_SUPPORTED => Ok((false, false)),
            Err(error) => Err(error),
            Ok(()) => Ok((current == 1, current != pending)),
        }
    }

    fn profiles(&self) -> Result<Vec<MigProfile>, NvmlError> {
        let mut profiles = Vec::new();
        for index in 0..NVML_GPU_INSTANCE_PROFILE_COUNT {
            // SAFETY: a plain structure.
            let mut info: nvmlGpuInstanceProfileInfo_v2_t = unsafe { std::mem::zeroed() };
            info.version = size_of::<nvmlGpuInstanceProfileInfo_v2_t>() as u32 | 2 << 24;
            match nvml!(self.session, nvmlDeviceGetGpuInstanceProfileInfoV(self.handle, index, &mut info)) {
                // This GPU has no such profile.
                Err(error) if matches!(error.code, 2 | NOT_SUPPORTED) => continue,
                other => other?,
            }
            let (starts, width) = self.placements(info.id)?;
            if starts.is_empty() {
                continue;
            }
            let name = text_of(&info.name).trim_start_matches("MIG ").to_owned();
            profiles.push(MigProfile {
                name,
                id: info.id,
                slices: info.sliceCount,
                width,
                starts,
                most: info.instanceCount,
            });
        }
        Ok(profiles)
    }

    fn placements(&self, profile: u32) -> Result<(Vec<u32>, u32), NvmlError> {
        let mut count: c_uint = 0;
        let lib = self.session;
        nvml!(lib, nvmlDeviceGetGpuInstancePossiblePlacements_v2(self.handle, profile, ptr::null_mut(), &mut count))?;
        count = count.min(limits::MIG_PLACES);
        let mut list = vec![nvmlGpuInstancePlacement_t { start: 0, size: 0 }; count as usize];
        nvml!(lib, nvmlDeviceGetGpuInstancePossiblePlacements_v2(self.handle, profile, list.as_mut_ptr(), &mut count))?;
        list.truncate(count as usize);
        let width = list.first().map_or(0, |place| place.size);
        let mut starts: Vec<u32> = list.iter().map(|place| place.start).collect();
        starts.sort_unstable();
        Ok((starts, width))
    }

    fn instances(&self, profiles: &[MigProfile]) -> Result<Vec<MigInstance>, NvmlError> {
        let devices = self.devices()?;
        let mut list = Vec::new();
        for profile in profiles {
            for handle in self.handles(profile)? {
                let info = self.info(handle)?;
                // Names that share a profile number cannot exist; the number is the driver's own key.
                let mut compute = self.computes(handle)?;
                for one in &mut compute {
                    if let Some((_, _, found)) = devices.iter().find(|(gi, ci, _)| (*gi, *ci) == (info.id, one.id)) {
                        one.uuid.clone_from(&found.uuid);
                        one.processes.clone_from(&found.processes);
                    }
                }
                let (start, width) = (info.placement.start, info.placement.size);
                list.push(MigInstance { profile: profile.name.clone(), start, width, id: info.id, compute });
            }
        }
        list.sort_by_key(|instance| instance.start);
        Ok(list)
    }

    fn handles(&self, profile: &MigProfile) -> Result<Vec<nvmlGpuInstance_t>, NvmlError> {
        // The library writes as many as there are, and takes no size: there is always room for more than a GPU can have.
        let mut list = vec![ptr::null_mut(); limits::MIG_PLACES as usize];
        let mut count: c_uint = 0;
        nvml!(self.session, nvmlDeviceGetGpuInstances(self.handle, profile.id, list.as_mut_ptr(), &mut count))?;
        list.truncate(count as usize);
        Ok(list)
    }

    fn info(&self, handle: nvmlGpuInstance_t) -> Result<nvmlGpuInstanceInfo_t, NvmlError> {
        // SAFETY: a plain structure.
        let mut info: nvmlGpuInstanceInfo_t = unsafe { std::mem::zeroed() };
        nvml!(self.session, nvmlGpuInstanceGetInfo(handle, &mut info))?;
        Ok(info)
    }

    fn computes(&self, instance: nvmlGpuInstance_t) -> Result<Vec<MigCompute>, NvmlError> {
        let mut list = Vec::new();
        for (profile, _) in self.compute_profiles(instance)? {
            let mut handles: Vec<nvmlComputeInstance_t> = vec![ptr::null_mut(); limits::MIG_PLACES as usize];
            let mut count: c_uint = 0;
            let lib = self.session;
            nvml!(lib, nvmlGpuInstanceGetComputeInstances(instance, profile, handles.as_mut_ptr(), &mut count))?;
            for handle in handles.into_iter().take(count as usize) {
                // SAFETY: a plain structure.
                let mut info: nvmlComputeInstanceInfo_t = unsafe { std::mem::zeroed() };
                nvml!(lib, nvmlComputeInstanceGetInfo_v2(handle, &mut info))?;
                list.push(MigCompute { id: info.id, ..MigCompute::default() });
            }
        }
        Ok(list)
    }

    /// Number and slices of each profile of compute instances.
    fn compute_profiles(&self, instance: nvmlGpuInstance_t) -> Result<Vec<(u32, u32)>, NvmlError> {
        let mut list = Vec::new();
        for index in 0..NVML_COMPUTE_INSTANCE_PROFILE_COUNT {
            // SAFETY: a plain structure.
            let mut info: nvmlComputeInstanceProfileInfo_t = unsafe { std::mem::zeroed() };
            let shared = NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED;
            match nvml!(self.session, nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, index, shared, &mut info))
            {
                Err(error) if matches!(error.code, 2 | NOT_SUPPORTED) => {}
                other => {
                    other?;
                    list.push((info.id, info.sliceCount));
                }
            }
        }
        Ok(list)
    }

    /// The MIG devices: ids of GPU instance and compute instance, with UUID and processes.
    fn devices(&self) -> Result<Vec<(u32, u32, MigCompute)>, NvmlError> {
        let lib = self.session;
        let mut most: c_uint = 0;
        nvml!(lib, nvmlDeviceGetMaxMigDeviceCount(self.handle, &mut most))?;
        let mut list = Vec::new();
        for index in 0..most.min(limits::MIG_PLACES) {
            let mut handle = ptr::null_mut();
            match nvml!(lib, nvmlDeviceGetMigDeviceHandleByIndex(self.handle, index, &mut handle)) {
                // Indices are sparse.
                Err(error) if error.code == NOT_FOUND => continue,
                other => other?,
            }
            let (mut gi, mut ci): (c_uint, c_uint) = (0, 0);
            nvml!(lib, nvmlDeviceGetGpuInstanceId(handle, &mut gi))?;
            nvml!(lib, nvmlDeviceGetComputeInstanceId(handle, &mut ci))?;
            let device = SessionGpu { session: self.session, handle, index };
            let uuid = device.text("nvmlDeviceGetUUID", &lib.lib.nvmlDeviceGetUUID)?;
            list.push((gi, ci, MigCompute { id: ci, uuid, processes: device.processes()?, pod: None }));
        }
        Ok(list)
    }

    fn processes(&self) -> Result<Vec<u32>, NvmlError> {
        // SAFETY: a plain structure.
        let empty: nvmlProcessInfo_t = unsafe { std::mem::zeroed() };
        let mut list = vec![empty; limits::GPU_PROCESSES];
        let mut count = limits::GPU_PROCESSES as c_uint;
        nvml!(self.session, nvmlDeviceGetComputeRunningProcesses_v3(self.handle, &mut count, list.as_mut_ptr()))?;
        Ok(list.into_iter().take(count as usize).map(|process| process.pid).collect())
    }

    fn text<E>(&self, call: &'static str, function: &Result<TextCall, E>) -> Result<String, NvmlError> {
        let mut room = [0 as c_char; 96];
        let Ok(function) = function else {
            return Err(NvmlError { call, code: 13, text: "this driver's library has no such function".to_owned() });
        };
        // SAFETY: the room and its length are those of the local above.
        let code = unsafe { function(self.handle, room.as_mut_ptr(), room.len() as c_uint) };
        self.session.check(call, code)?;
        Ok(text_of(&room))
    }

    // ── changes ──

    /// Destroys an instance with its compute instances. Fails where a process, or a monitor, holds it.
    ///
    /// # Errors
    ///
    /// Fails also where NVML does not find the instance; compute instances that were destroyed by then are gone.
    pub fn destroy(&self, id: u32) -> Result<(), NvmlError> {
        let lib = self.session;
        let mut handle = ptr::null_mut();
        nvml!(lib, nvmlDeviceGetGpuInstanceById(self.handle, id, &mut handle))?;
        for compute in self.computes(handle)? {
            let mut part = ptr::null_mut();
            nvml!(lib, nvmlGpuInstanceGetComputeInstanceById(handle, compute.id, &mut part))?;
            nvml!(lib, nvmlComputeInstanceDestroy(part))?;
        }
        nvml!(lib, nvmlGpuInstanceDestroy(handle))
    }

    /// Creates an instance at a place, with one compute instance that takes all of it.
    ///
    /// # Errors
    ///
    /// Fails when NVML has no room at that place, or refuses the compute instance.
    pub fn create(&self, profile: &MigProfile, start: u32) -> Result<(), NvmlError> {
        let lib = self.session;
        let place = nvmlGpuInstancePlacement_t { start, size: profile.width };
        let mut handle = ptr::null_mut();
        nvml!(lib, nvmlDeviceCreateGpuInstanceWithPlacement(self.handle, profile.id, &place, &mut handle))?;
        self.complete_handle(handle, profile.slices)
    }

    /// Gives an instance that has none its compute instance.
    ///
    /// # Errors
    ///
    /// Fails when NVML does not find the instance, or refuses the compute instance.
    pub fn complete(&self, id: u32, slices: u32) -> Result<(), NvmlError> {
        let mut handle = ptr::null_mut();
        nvml!(self.session, nvmlDeviceGetGpuInstanceById(self.handle, id, &mut handle))?;
        self.complete_handle(handle, slices)
    }

    fn complete_handle(&self, handle: nvmlGpuInstance_t, slices: u32) -> Result<(), NvmlError> {
        let whole = self.compute_profiles(handle)?.into_iter().find(|(_, size)| *size == slices);
        let Some((profile, _)) = whole else {
            return Err(NvmlError {
                call: "nvmlGpuInstanceGetComputeInstanceProfileInfo",
                code: NOT_SUPPORTED,
                text: format!("no compute instance takes all {slices} slices"),
            });
        };
        let mut part = ptr::null_mut();
        nvml!(self.session, nvmlGpuInstanceCreateComputeInstance(handle, profile, &mut part))
    }
}

type TextCall = unsafe extern "C" fn(nvmlDevice_t, *mut c_char, c_uint) -> nvmlReturn_t;

fn text_of(field: &[c_char]) -> String {
    let bytes: Vec<u8> = field.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `00000000:65:00.0` → `0000:65:00.0`, in small letters.
fn short_address(address: &str) -> String {
    let small = address.to_lowercase();
    match small.split_once(':') {
        Some((domain, rest)) if domain.len() > 4 => format!("{}:{rest}", &domain[domain.len() - 4..]),
        _ => small,
    }
}
