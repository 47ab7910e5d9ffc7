//! Weight caches: is a model's folder whole, how much of it is in memory, and read the rest in.
//!
//! The page cache is charged to the control group that first touches a page. An agent in a pod with a memory limit would
//! evict pages that it has just read: run it (or the Job) without a limit, and look at `charged_to` in the answer.
//! More in docs/caches.md.
//!
//! Invariant: only files under the configured roots are opened, whatever a command or a link names.

mod memory;
mod model;
mod read;
mod residency;
mod roots;
mod safetensors;
mod sys;
pub(in crate::node) mod verbs;
mod verify;
mod warm;

pub use memory::{MemoryProbe, size};
pub use model::{ModelFile, ModelFlaw, ModelFolder};
pub use read::ReadProgress;
pub use residency::ResidencyMethod;
pub use roots::ModelRoots;
pub use verify::{VerifyReport, verify};
pub use warm::{CacheSettings, ModelResidency, PartialFile, WarmReport, WarmSummary, status, warm, warm_all};
