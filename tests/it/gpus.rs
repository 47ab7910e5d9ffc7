//! GPUs made of software, for any test: a folder with the imitated library, its `nvidia-smi` and the timeline that
//! plays them. `tests/nvml/README.md` says what the timeline understands.
//!
//! Invariant: each `Gpus` is a machine of its own, also within one process: the library is a copy, so it is loaded anew.

use std::io::Write;
use std::path::{Path, PathBuf};

/// One imitated machine.
pub struct Gpus {
    dir: tempfile::TempDir,
}

impl Gpus {
    /// `timeline`: `machine h100 gpus 8` and whatever else holds from the beginning.
    pub fn new(timeline: &str) -> Gpus {
        let gpus = Gpus { dir: tempfile::tempdir().unwrap() };
        let built = std::env::current_exe().unwrap().with_file_name("libnvml_imitation.so");
        std::fs::copy(&built, gpus.library())
            .unwrap_or_else(|error| panic!("{}: {error}; cargo builds it with the tests", built.display()));
        let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvml/nvidia-smi");
        std::fs::copy(stand_in, gpus.smi()).unwrap();
        std::fs::write(gpus.machine(), format!("{timeline}\n")).unwrap();
        gpus
    }

    /// What is loaded instead of `libnvidia-ml.so.1`.
    pub fn library(&self) -> PathBuf {
        self.dir.path().join("libnvidia-ml.so.1")
    }

    /// The program that resets these GPUs.
    pub fn smi(&self) -> PathBuf {
        self.dir.path().join("nvidia-smi")
    }

    /// The timeline.
    pub fn machine(&self) -> PathBuf {
        self.dir.path().join("machine.txt")
    }

    /// Appends a line (or several) to the timeline: it happens now.
    pub fn say(&self, lines: &str) {
        let mut file = std::fs::File::options().append(true).open(self.machine()).unwrap();
        file.write_all(format!("{lines}\n").as_bytes()).unwrap();
    }

    /// The lines that the library itself wrote, too.
    pub fn timeline(&self) -> String {
        std::fs::read_to_string(self.machine()).unwrap()
    }
}
