//! A finding of an agent: one condition of one piece of hardware, begun or over.
//!
//! Invariant: the same alert has the same `complaint` text for as long as it lasts, so that it is one episode.

use super::{Severity, Status, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Every alert that an agent may report. An engine takes no other from an agent, so that the holder of an agent's key
/// can report on its node's hardware alone. A test of the node's watchers holds them to it.
pub const AGENT_ALERTS: [&str; 39] = [
    "GpuDramRetirement",
    "GpuDramRetirementFailed",
    "GpuEccStorm",
    "GpuEccUncorrected",
    "GpuFabric",
    "GpuHangs",
    "GpuHot",
    "GpuLost",
    "GpuMemoryHot",
    "GpuMigModePending",
    "GpuMissing",
    "GpuNvlinkDown",
    "GpuNvlinkErrors",
    "GpuNvmlError",
    "GpuPcieReplays",
    "GpuPcieWidth",
    "GpuPoison",
    "GpuPoisonFatal",
    "GpuPowerBrake",
    "GpuRecoveryAction",
    "GpuRepairPending",
    "GpuResetRequired",
    "GpuRowRemapBanksUsedUp",
    "GpuRowRemapFailed",
    "GpuRowRemapPending",
    "GpuSramThreshold",
    "GpuThermalMargin",
    "GpuThermalThrottle",
    "GpuUnavailable",
    "GpuXid",
    "KernelLineUnread",
    "KernelLogLost",
    "KernelLogUnreadable",
    "MigLayoutNotRestored",
    "NightshiftAgentSpoolOverflow",
    "NvSwitchSxid",
    "NvmlEvents",
    "NvmlHangs",
    "NvmlUnavailable",
];

/// Every label that an agent may report, beside the names of its node and GPU, which the engine sets itself. None of them
/// names a workload, a pod or a container.
pub const AGENT_LABELS: [&str; 29] = [
    "GPU_CI_ID",
    "GPU_I_ID",
    "action",
    "alertname",
    "caused_by",
    "drain_rst",
    "expected",
    "fatal",
    "gpc",
    "gpu_known",
    "link",
    "pid",
    "process",
    "recovery",
    "registers",
    "row_remap",
    "rst",
    "seen",
    "severity",
    "sm",
    "source",
    "status",
    "subcode",
    "switch",
    "switch_pci",
    "sxid",
    "tpc",
    "unit",
    "xid",
];

/// A GPU by all its names; unknown ones are empty. The index may change with a boot, the UUID does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct GpuName {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub index: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub uuid: String,
    /// `0000:65:00.0`: domain in four digits, small letters.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub pci: String,
}

/// One statement about the hardware of one node. The agent numbers and spools these; the engine makes events of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Finding {
    /// Identity on this node: `xid-79 0000:65:00.0`, `row-remap-pending GPU-…`.
    pub complaint: String,
    pub status: Status,
    pub at: Time,
    pub severity: Severity,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gpu: Option<GpuName>,
    /// `alertname`, `xid`, `action`, … as rules match them. The engine adds `node` and the GPU's names.
    pub labels: BTreeMap<String, String>,
    /// One line for a user.
    pub summary: String,
    /// The source line as it was read (a kernel line), bounded; empty where there is none.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub detail: String,
}
