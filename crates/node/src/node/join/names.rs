//! Which GPU is at which address: the kernel uses addresses, NVML indices and UUIDs, users all of them.
//!
//! Invariant: a name that is known is never overwritten by one that is empty.

use crate::limits;
use crate::model::GpuName;
use crate::node::kmsg;
use std::fs;
use std::io::Read;
use std::path::Path;

/// The GPUs of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuNames(Vec<GpuName>);

impl GpuNames {
    /// Takes in names from NVML's inventory, the kernel's line or the driver's files.
    pub fn learn(&mut self, names: impl IntoIterator<Item = GpuName>) {
        for mut name in names {
            spell(&mut name);
            match self.0.iter().position(|known| same(known, &name)) {
                Some(at) => {
                    let known = &mut self.0[at];
                    // A driver that was loaded anew may count otherwise.
                    known.index = name.index.or(known.index);
                    fill(&mut known.uuid, &name.uuid);
                    fill(&mut known.pci, &name.pci);
                }
                None if self.0.len() < limits::GPUS_PER_NODE => self.0.push(name),
                None => {}
            }
        }
    }

    /// Fills in the known parts of an incomplete name.
    pub fn complete(&self, gpu: &mut GpuName) {
        spell(gpu);
        let Some(known) = self.0.iter().find(|known| same(known, gpu)) else { return };
        gpu.index = gpu.index.or(known.index);
        fill(&mut gpu.uuid, &known.uuid);
        fill(&mut gpu.pci, &known.pci);
    }

    /// Whether it stands at an address without a known GPU, although NVML has listed them.
    pub fn is_stranger(&self, gpu: &GpuName) -> bool {
        let listed = self.0.iter().any(|known| known.index.is_some() && !known.pci.is_empty());
        listed && !gpu.pci.is_empty() && !self.0.iter().any(|known| same(known, gpu))
    }

    /// Reads the driver's files, which exist without NVML: `/proc/driver/nvidia/gpus/<address>/information`.
    pub fn learn_from_files(&mut self, gpus: &Path) {
        let Ok(entries) = fs::read_dir(gpus) else { return };
        for entry in entries.flatten().take(limits::GPUS_PER_NODE) {
            let Some(pci) = entry.file_name().to_str().and_then(kmsg::pci) else { continue };
            let mut text = String::new();
            let read = fs::File::open(entry.path().join("information"))
                .and_then(|file| file.take(limits::KERNEL_RECORD_BYTES as u64).read_to_string(&mut text));
            if read.is_err() {
                continue;
            }
            let uuid = text.lines().find_map(|line| line.strip_prefix("GPU UUID:")).unwrap_or_default().trim();
            let uuid = if uuid.contains('?') { "" } else { uuid };
            self.learn([GpuName { index: None, uuid: uuid.to_owned(), pci }]);
        }
    }
}

fn spell(gpu: &mut GpuName) {
    if let Some(pci) = kmsg::pci(&gpu.pci) {
        gpu.pci = pci;
    }
}

fn fill(known: &mut String, new: &str) {
    if known.is_empty() {
        new.clone_into(known);
    }
}

/// By address, else by UUID, else by index.
fn same(a: &GpuName, b: &GpuName) -> bool {
    let both = |a: &str, b: &str| !a.is_empty() && !b.is_empty();
    if both(&a.pci, &b.pci) {
        return a.pci == b.pci;
    }
    if both(&a.uuid, &b.uuid) {
        return a.uuid == b.uuid;
    }
    a.index.is_some() && a.index == b.index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: Option<u32>, uuid: &str, pci: &str) -> GpuName {
        GpuName { index, uuid: uuid.to_owned(), pci: pci.to_owned() }
    }

    #[test]
    fn a_part_of_a_name_finds_the_others() {
        let mut names = GpuNames::default();
        names.learn([gpu(Some(0), "GPU-a", "00000000:65:00.0"), gpu(Some(1), "GPU-b", "00000000:B3:00.0")]);
        names.learn([gpu(None, "GPU-b", "0000:b3:00.0"), gpu(None, "", "0000:c0:00.0")]);
        let complete = |mut name: GpuName| {
            names.complete(&mut name);
            name
        };
        assert_eq!(complete(gpu(None, "", "0000:B3:00.0")), gpu(Some(1), "GPU-b", "0000:b3:00.0"));
        assert_eq!(complete(gpu(None, "GPU-a", "")), gpu(Some(0), "GPU-a", "0000:65:00.0"));
        assert_eq!(complete(gpu(Some(1), "", "")), gpu(Some(1), "GPU-b", "0000:b3:00.0"));
        assert_eq!(complete(gpu(None, "", "0000:01:00.0")), gpu(None, "", "0000:01:00.0"));
        assert!(names.is_stranger(&gpu(None, "", "0000:01:00.0")));
        for known in [gpu(None, "", "0000:c0:00.0"), gpu(None, "GPU-a", ""), gpu(Some(1), "", "")] {
            assert!(!names.is_stranger(&known), "{known:?}");
        }
        let mut unlisted = GpuNames::default();
        unlisted.learn([gpu(None, "", "0000:c0:00.0")]);
        assert!(!unlisted.is_stranger(&gpu(None, "", "0000:01:00.0")), "nothing was compared with NVML's list");
    }

    #[test]
    fn the_drivers_files_name_gpus_when_nvml_cannot() {
        let folder = tempfile::tempdir().unwrap();
        for (pci, text) in [
            ("0000:65:00.0", "Model: \t\t NVIDIA H100\nGPU UUID: \t GPU-1d2c\nBus Location: \t 0000:65:00.0\n"),
            ("0000:66:00.0", "GPU UUID: \t GPU-????????-????\n"),
        ] {
            std::fs::create_dir(folder.path().join(pci)).unwrap();
            std::fs::write(folder.path().join(pci).join("information"), text).unwrap();
        }
        std::fs::create_dir(folder.path().join("other")).unwrap();
        let mut names = GpuNames::default();
        names.learn_from_files(folder.path());
        names.learn_from_files(&folder.path().join("gone"));
        let mut first = gpu(None, "", "0000:65:00.0");
        names.complete(&mut first);
        assert_eq!(first.uuid, "GPU-1d2c");
        assert_eq!(names.0.len(), 2);
    }
}
