//! One session with NVML: the library loaded, begun, and its GPUs by all their names. Dropping it lets go of everything.
//!
//! Invariant: dropping the last share of a session shuts NVML down and unloads the library; no handle outlives it.

use super::raw::{self, Code, DeviceHandle};
use crate::limits;
use crate::model::GpuName;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use std::path::Path;

#[derive(Debug)]
pub(super) struct NvmlSession {
    pub nvml: Nvml,
    pub driver: String,
    pub gpus: Vec<NvmlDevice>,
    /// Counted, but without a handle.
    pub unopened: Vec<u32>,
    pub count: u32,
}

#[derive(Debug, Clone)]
pub(super) struct NvmlDevice {
    pub handle: DeviceHandle,
    pub name: GpuName,
    pub product: String,
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NvmlAbsence {
    /// No library: on a machine without GPUs that is how it should be.
    Library(String),
    Code(Code),
    Other(String),
}

impl std::fmt::Display for NvmlAbsence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NvmlAbsence::Library(why) => write!(f, "NVIDIA's management library cannot be loaded: {why}"),
            NvmlAbsence::Code(Code::MISMATCH) => {
                write!(f, "NVML and the kernel driver do not match (18): the driver was upgraded; reload it, or reboot")
            }
            NvmlAbsence::Code(code) => write!(f, "NVML cannot be initialized: {code}"),
            NvmlAbsence::Other(why) => write!(f, "NVML cannot be initialized: {why}"),
        }
    }
}

/// Loads, begins, and names the GPUs. May block for as long as the driver does.
pub(super) fn open(library: Option<&Path>) -> Result<NvmlSession, NvmlAbsence> {
    let mut builder = Nvml::builder();
    if let Some(path) = library {
        builder.lib_path(path.as_os_str());
    }
    let nvml = builder.init().map_err(absent)?;
    let count = raw::count(&nvml).map_err(NvmlAbsence::Code)?.min(u32::try_from(limits::GPUS_OF_NODE).unwrap_or(64));
    let driver = raw::driver(&nvml).unwrap_or_default();
    let (mut gpus, mut unopened) = (Vec::new(), Vec::new());
    for index in 0..count {
        match device(&nvml, index) {
            Ok(device) => gpus.push(device),
            Err(code) if code.ends_session() => return Err(NvmlAbsence::Code(code)),
            Err(code) => {
                tracing::warn!(index, %code, "NVML counts a GPU that cannot be opened");
                unopened.push(index);
            }
        }
    }
    Ok(NvmlSession { nvml, driver, gpus, unopened, count })
}

fn device(nvml: &Nvml, index: u32) -> Result<NvmlDevice, Code> {
    let handle = raw::by_index(nvml, index)?;
    let uuid = raw::uuid(nvml, handle)?;
    let pci = raw::pci(nvml, handle)?;
    let product = raw::name(nvml, handle).unwrap_or_default();
    Ok(NvmlDevice { handle, name: GpuName { index: Some(index), uuid, pci }, product })
}

fn absent(error: NvmlError) -> NvmlAbsence {
    match error {
        NvmlError::LibloadingError(why) => NvmlAbsence::Library(why.to_string()),
        NvmlError::DriverNotLoaded => NvmlAbsence::Code(Code::NO_DRIVER),
        NvmlError::LibRmVersionMismatch => NvmlAbsence::Code(Code::MISMATCH),
        NvmlError::GpuLost => NvmlAbsence::Code(Code::LOST),
        NvmlError::ResetRequired => NvmlAbsence::Code(Code::RESET_REQUIRED),
        NvmlError::Unknown => NvmlAbsence::Code(Code(999)),
        NvmlError::UnexpectedVariant(code) => NvmlAbsence::Code(Code(code)),
        other => NvmlAbsence::Other(other.to_string()),
    }
}

impl NvmlSession {
    /// The GPU with this index, UUID or address.
    pub fn find(&self, wanted: &str) -> Option<usize> {
        let wanted = wanted.to_ascii_lowercase();
        self.gpus.iter().position(|gpu| {
            gpu.name.index.is_some_and(|index| index.to_string() == wanted)
                || gpu.name.uuid.eq_ignore_ascii_case(&wanted)
                || same_address(&gpu.name.pci, &wanted)
        })
    }

    /// The position of the GPU with this handle in `gpus`.
    pub fn by_handle(&self, handle: DeviceHandle) -> Option<usize> {
        self.gpus.iter().position(|gpu| gpu.handle == handle)
    }
}

/// `00000000:65:00.0` and `0000:65:00.0` are one address.
fn same_address(ours: &str, theirs: &str) -> bool {
    let split = |text: &str| {
        let (domain, rest) = text.split_once(':')?;
        Some((domain.trim_start_matches('0').to_owned(), rest.to_owned()))
    };
    match (split(ours), split(theirs)) {
        (Some(ours), Some(theirs)) => ours == theirs && theirs.1.contains(':'),
        _ => false,
    }
}
