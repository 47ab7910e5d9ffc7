//! NVML: NVIDIA's library reports on the GPUs of this node, and is watched as long as the agent runs.
//!
//! ```text
//!   nvml-events thread ── events ──┐
//!                                  ├──▶ watch (the loop) ──▶ judge (pure) ──▶ findings
//!   nvml thread ◀── one look ──────┤
//!        │  a look that hangs keeps its thread: the GPU is marked, another thread goes on with the others
//!   verbs ── door: health, recovery, processes, release ┘
//! ```
//!
//! Invariant: no call of NVML is made on a thread of the runtime; at most one thread more than GPUs hang in it; nothing in
//! here holds the library while it is released.

mod answer;
mod checks;
mod door;
mod judge;
mod listen;
mod probe;
mod raw;
mod reading;
mod session;
mod verbs;
mod watch;
mod worker;

pub use door::{NvmlClient, NvmlReleaseGuard};
pub use judge::findings_page;
pub(super) use verbs::{GpuHealthVerb, GpuProcessesVerb, GpuRecoveryVerb};
pub(super) use watch::NvmlWatch;
