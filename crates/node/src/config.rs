//! The agent's configuration: `agent.yaml` for `nightshift agent`, or `agent:` in the engine's own file for `serve
//! --with-agent`.
//!
//! Invariant: every program that an agent may start is named here; nothing of it comes from the engine.

use crate::model::Span;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The agent's settings. Each capability adds its own below.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// The node's name as in Kubernetes; left out: NIGHTSHIFT_NODE, else the host's name.
    pub node: Option<String>,
    /// The node's cluster in the engine's configuration; required if there are several.
    pub cluster: Option<String>,
    /// Spool, memory of commands, key and certificate.
    pub data_dir: PathBuf,
    /// Where the engine is: `https://nightshift:7677`. Not used inside `serve --with-agent`.
    pub engine: Option<String>,
    /// PEM file of the authority that signed the engine's certificate; joining writes one into `data_dir`.
    pub ca_file: Option<PathBuf>,
    /// A projected ServiceAccount token, read again for each connection. Left out: the certificate from joining.
    pub token_file: Option<PathBuf>,
    /// While this file exists the agent reports but does not run commands.
    pub kill_file: PathBuf,
    /// Disk that findings may take while the engine is away.
    pub spool_mib: u64,
    /// The kernel's log; a file or FIFO serves for trying things out.
    pub kernel_log: PathBuf,
    /// Where the kubelet writes which pod has which device; it need not be there.
    pub kubelet_checkpoint: PathBuf,
    /// NVIDIA's tool that resets a GPU.
    pub nvidia_smi: PathBuf,
    /// NVIDIA's tool that writes a bug report; without it, `node::collect` records that and continues.
    pub bug_report: PathBuf,
    /// A report that takes longer is stopped, and the bundle is sent without it.
    pub bug_report_within: Span,
    /// Program that reboots the node; `[init]`: a signal to systemd, for a container that sees the node's processes;
    /// empty: reboots are disabled.
    pub reboot: Vec<String>,
    /// Path of the kernel's boot ID; use a file for tests.
    pub boot_id: PathBuf,
    /// Models on this node's disks.
    pub cache: ModelCacheConfig,
    /// The watch of the GPUs.
    pub nvml: NvmlConfig,
    /// The agent's log.
    pub log: LogConfig,
}

/// How the GPUs are watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NvmlConfig {
    /// NVIDIA's management library; left out: `libnvidia-ml.so.1`, where the loader finds it.
    pub library: Option<PathBuf>,
    /// GPUs that this node has; left out: as many as were counted since the agent began.
    pub expected: Option<u32>,
    /// Polling interval of each GPU; every tenth poll reads all values.
    pub poll: Span,
    /// A call that takes longer counts as hanging, and is reported.
    pub hang: Span,
}

impl Default for NvmlConfig {
    fn default() -> Self {
        NvmlConfig { library: None, expected: None, poll: Span::seconds(1), hang: Span::seconds(10) }
    }
}

impl Default for AgentConfig {
    fn default() -> Self {
        AgentConfig {
            node: None,
            cluster: None,
            data_dir: PathBuf::from("/var/lib/nightshift-agent"),
            engine: None,
            ca_file: None,
            token_file: None,
            kill_file: PathBuf::from("/etc/nightshift/agent.stop"),
            spool_mib: 64,
            kernel_log: PathBuf::from("/dev/kmsg"),
            kubelet_checkpoint: PathBuf::from("/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint"),
            nvidia_smi: PathBuf::from("nvidia-smi"),
            bug_report: PathBuf::from("nvidia-bug-report.sh"),
            bug_report_within: Span(crate::limits::BUG_REPORT_WITHIN),
            reboot: vec!["systemctl".to_owned(), "reboot".to_owned()],
            boot_id: PathBuf::from("/proc/sys/kernel/random/boot_id"),
            cache: ModelCacheConfig::default(),
            nvml: NvmlConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl AgentConfig {
    /// Reads and parses `agent.yaml`.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read, is larger than `CONFIG_BYTES`, or is no such configuration; the message has
    /// the place.
    pub fn load(path: &Path) -> Result<AgentConfig, String> {
        let read = |error: std::io::Error| format!("configuration {}: {error}", path.display());
        let size = std::fs::metadata(path).map_err(read)?.len();
        if size > crate::limits::CONFIG_BYTES {
            return Err(format!("configuration {}: {size} bytes is more than it may have", path.display()));
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        if text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#') || line == "---") {
            return Ok(AgentConfig::default());
        }
        serde_saphyr::from_str(&text).map_err(|error| format!("configuration {}: {error}", path.display()))
    }
}

/// Where models lie on this node, and how they may be read into memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelCacheConfig {
    /// Folders of models. Files outside them are never opened; empty: no models.
    pub roots: Vec<PathBuf>,
    /// Threads that read at once.
    pub readers: usize,
    /// Memory that is left to others.
    pub reserve_mib: u64,
    /// No warm reads faster; left out: as fast as the disk.
    pub mib_per_second: Option<u64>,
}

impl Default for ModelCacheConfig {
    fn default() -> Self {
        ModelCacheConfig {
            roots: Vec::new(),
            readers: 8,
            reserve_mib: crate::limits::CACHE_RESERVE_MIB,
            mib_per_second: None,
        }
    }
}

/// The log of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// As in `RUST_LOG`: `info`, `nightshift=debug`.
    pub level: String,
    /// Left out: plain lines on a terminal, JSON everywhere else.
    pub json: Option<bool>,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { level: "info".to_owned(), json: None }
    }
}
