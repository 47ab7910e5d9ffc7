//! Weight caches: their bounds.
//!
//! Invariant: each number has its reason beside it, where its name does not give it.

use crate::model::Span;
use std::time::Duration;

// ── weight caches ──
/// Files of one model; the largest have some hundred shards.
pub const CACHE_FILES: usize = 10_000;
/// Folders below a model's own: pipelines of several models have one level.
pub const CACHE_DEPTH: usize = 4;
/// An index of 100,000 tensors has some 10 MB; also the bound on a list of hashes.
pub const CACHE_INDEX_BYTES: u64 = 64 * 1024 * 1024;
/// As the format itself limits it.
pub const SAFETENSORS_HEADER_BYTES: u64 = 100_000_000;
/// Tensors of one shard.
pub const CACHE_TENSORS: usize = 1_000_000;
/// Readers of one warm; more do not help any disk that was measured.
pub const CACHE_READERS: usize = 16;
/// Bytes that one reader takes on at a time.
pub const CACHE_CHUNK_BYTES: u64 = 16 * 1024 * 1024;
/// One read: as fast as 4 MiB when measured, and a reader looks often enough whether to stop.
pub const CACHE_READ_BYTES: usize = 1024 * 1024;
/// The share of pages in memory from which a model counts as warm.
pub const CACHE_RESIDENT: f64 = 0.999;
/// Passes over the pages that were evicted from the page cache meanwhile.
pub const CACHE_PASSES: usize = 3;
/// How often progress is reported, and how often a waiting reader checks whether to stop.
pub const CACHE_LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often memory pressure is looked at; the kernel's own averages move every two seconds.
pub const CACHE_PRESSURE_LOOK: Duration = Duration::from_secs(1);
/// Percent of time in which all tasks waited for memory: nothing is begun then.
pub const CACHE_PRESSURE_FULL: f64 = 5.0;
/// Percent of time in which some task waited for memory: readers stand back.
pub const CACHE_PRESSURE_SOME: f64 = 20.0;
/// Pressure that lasts longer than this comes from other programs, and the warm gives up.
pub const CACHE_PRESSURE_WAIT: Duration = Duration::from_secs(60);
/// Memory that a warm leaves to others, in MiB.
pub const CACHE_RESERVE_MIB: u64 = 4 * 1024;
/// How long a warm may take: 1 TiB at 600 MB/s.
pub const CACHE_WITHIN: Span = Span::minutes(30);
/// Bytes that one mapping covers where resident pages are counted with `mincore`: its vector then has 256 KiB.
pub const CACHE_MINCORE_WINDOW: u64 = 1024 * 1024 * 1024;
/// How long a warm waits for a node's agent to connect.
pub const CACHE_AGENT_WAIT: Duration = Duration::from_secs(60);
/// How long a warm that may be a Job waits for the node's agent: longer than an agent's own pause between tries to connect.
pub const CACHE_JOB_AFTER: Duration = Duration::from_secs(15);
/// A Job of ours that has no pod after so long is kept from having one.
pub const CACHE_JOB_POD: Duration = Duration::from_secs(120);
/// Time that a Job may take beside its own: scheduling and fetching its image.
pub const CACHE_JOB_SLACK: Duration = Duration::from_secs(300);
/// How long a Job that has ended can be looked at; Kubernetes takes it away then.
pub const CACHE_JOB_KEPT: Duration = Duration::from_secs(3_600);
/// One line of a pod's log, which is a progress of some 200 bytes.
pub const POD_LINE_BYTES: usize = 4_096;
/// Time for the kubelet to return it; without it the step waits with the pod's phase alone.
pub const POD_LINE_WAIT: Duration = Duration::from_secs(3);
/// A Job whose making a crash cut off, or that another hand is at: when to look again whether it can be stopped.
pub const CANCEL_AGAIN: Duration = Duration::from_secs(2);
/// Bytes that the kubelet keeps of a container's termination message.
pub const TERMINATION_BYTES: usize = 4_096;
/// Models that one step warms; a node serves a few.
pub const CACHE_MODELS: usize = 64;
/// Files that a status names one by one.
pub const CACHE_FILES_SHOWN: usize = 100;
/// Roots that a configuration may name.
pub const CACHE_ROOTS: usize = 32;
/// As the kernel's own limit on a path.
pub const PATH_BYTES: usize = 4_096;
/// Control groups above our own that are looked at.
pub const CGROUP_DEPTH: usize = 32;
/// Files under /proc and /sys are small; one that is not is not read to its end.
pub const PROC_FILE_BYTES: u64 = 64 * 1024;
