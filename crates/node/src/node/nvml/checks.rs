//! The table of GPU faults that NVML shows: each line a condition, when it begins, and when it is over.
//! `docs/findings.md` is this table.
//!
//! Invariant: a check decides from readings alone; a value that it cannot see leaves its condition as it is.

use super::reading::{GpuPollResult, GpuReading, TemperatureLimits};
use crate::model::Severity;

/// The result of one check on one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CheckResult {
    /// In words for a user.
    Unhealthy(String),
    Healthy,
    /// Neither: the condition stays as it was.
    Same,
}

/// The input of a check.
pub(super) struct CheckInput<'a> {
    pub looked: &'a GpuPollResult,
    /// The values of the look before this one, where there was one.
    pub before: Option<&'a GpuReading>,
    pub limits: TemperatureLimits,
    /// The most active links that any GPU of this node has shown.
    pub usual_links: u32,
    /// Some products report a margin that is never above zero: it counts only once it was.
    pub margin_works: bool,
}

/// One line of the table.
pub(super) struct GpuCheck {
    /// The first word of the condition.
    pub key: &'static str,
    pub alertname: &'static str,
    pub severity: Severity,
    /// The remedy, for the label `action`: `reset`, `reboot`, `support`, `tell`.
    pub action: &'static str,
    /// Looks in a row that must agree before it begins, and before it is over.
    pub begins: u32,
    pub ends: u32,
    /// Only looks that read everything can decide it.
    pub whole: bool,
    pub when: &'static str,
    pub judge: fn(&CheckInput) -> CheckResult,
}

impl CheckInput<'_> {
    fn reading(&self) -> Option<&GpuReading> {
        match self.looked {
            GpuPollResult::Read(reading) => Some(reading),
            _ => None,
        }
    }

    /// How much a counter grew since the look before; a counter that fell began anew.
    fn grew(&self, of: fn(&GpuReading) -> Option<u64>) -> Option<u64> {
        let now = of(self.reading()?)?;
        Some(now.saturating_sub(of(self.before?)?))
    }
}

/// The driver's own names of the recovery actions, as field 230 numbers them.
pub(super) fn recovery_word(action: u32) -> &'static str {
    match action {
        0 => "none",
        1 => "gpu-reset",
        2 => "node-reboot",
        3 => "drain-p2p",
        4 => "drain-and-reset",
        _ => "unknown",
    }
}

/// A verdict from a flag; unknown changes nothing.
fn flag(flag: Option<bool>, words: &str) -> CheckResult {
    match flag {
        Some(true) => CheckResult::Unhealthy(words.to_owned()),
        Some(false) => CheckResult::Healthy,
        None => CheckResult::Same,
    }
}

/// Faulty above a limit, healthy again only some degrees below it.
fn hot(degrees: Option<u32>, limit: Option<u32>, what: &str) -> CheckResult {
    const LEEWAY: u32 = 3;
    match degrees.zip(limit.filter(|limit| *limit > 0)) {
        Some((now, limit)) if now >= limit => {
            CheckResult::Unhealthy(format!("{what} is at {now} °C, its limit of operation is {limit} °C"))
        }
        Some((now, limit)) if now + LEEWAY <= limit => CheckResult::Healthy,
        _ => CheckResult::Same,
    }
}

/// Faulty while a counter grows by at least so much from look to look.
fn growing(grew: Option<u64>, least: u64, what: &str) -> CheckResult {
    match grew {
        Some(by) if by >= least => CheckResult::Unhealthy(format!("{by} more {what} since the previous poll")),
        Some(_) => CheckResult::Healthy,
        None => CheckResult::Same,
    }
}

fn recovery(view: &CheckInput) -> CheckResult {
    match view.reading().and_then(|reading| reading.recovery) {
        Some(0) => CheckResult::Healthy,
        Some(action) => CheckResult::Unhealthy(format!("the driver requests `{}`", recovery_word(action))),
        None => CheckResult::Same,
    }
}

fn lost(view: &CheckInput) -> CheckResult {
    match view.looked {
        GpuPollResult::Lost => {
            CheckResult::Unhealthy("NVML reports it as lost: it has fallen off the bus or cannot be reached".into())
        }
        GpuPollResult::Hangs => CheckResult::Same,
        _ => CheckResult::Healthy,
    }
}

fn reset_required(view: &CheckInput) -> CheckResult {
    match view.looked {
        GpuPollResult::ResetRequired => CheckResult::Unhealthy("NVML refuses every call until it is reset".into()),
        GpuPollResult::Hangs | GpuPollResult::Lost => CheckResult::Same,
        _ => CheckResult::Healthy,
    }
}

fn hangs(view: &CheckInput) -> CheckResult {
    match view.looked {
        GpuPollResult::Hangs => CheckResult::Unhealthy("a call of NVML on it does not come back".into()),
        _ => CheckResult::Healthy,
    }
}

fn failed(view: &CheckInput) -> CheckResult {
    match view.looked {
        GpuPollResult::Failed(call, code) => CheckResult::Unhealthy(format!("NVML answers its {call} with: {code}")),
        GpuPollResult::Read(_) => CheckResult::Healthy,
        _ => CheckResult::Same,
    }
}

fn throttled(view: &CheckInput, mask: u64, what: &str) -> CheckResult {
    match view.reading().and_then(|reading| reading.throttle) {
        Some(reasons) if reasons & mask != 0 => CheckResult::Unhealthy(format!("its clocks are held down by {what}")),
        Some(_) => CheckResult::Healthy,
        None => CheckResult::Same,
    }
}

fn ecc(view: &CheckInput) -> CheckResult {
    match view.reading().and_then(|reading| reading.ecc_volatile) {
        Some(0) => CheckResult::Healthy,
        Some(count) => CheckResult::Unhealthy(format!(
            "{count} uncorrected ECC errors since the driver was loaded or it was reset"
        )),
        None => CheckResult::Same,
    }
}

fn banks(view: &CheckInput) -> CheckResult {
    match view.reading().and_then(|reading| reading.banks) {
        Some(banks) if banks.none > 0 => {
            CheckResult::Unhealthy(format!("{} banks of its memory have no spare row left", banks.none))
        }
        Some(_) => CheckResult::Healthy,
        None => CheckResult::Same,
    }
}

fn margin(view: &CheckInput) -> CheckResult {
    let Some(reading) = view.reading().filter(|_| view.margin_works) else { return CheckResult::Same };
    match reading.margin.zip(reading.slowdown_margin) {
        Some((margin, slowdown)) if margin <= slowdown => {
            CheckResult::Unhealthy(format!("its margin is {margin} °C, it slows down from {slowdown} °C on"))
        }
        Some((margin, slowdown)) if margin >= slowdown + 3 => CheckResult::Healthy,
        _ => CheckResult::Same,
    }
}

fn links(view: &CheckInput) -> CheckResult {
    match view.reading().and_then(|reading| reading.links_up) {
        Some(up) if up < view.usual_links => {
            CheckResult::Unhealthy(format!("{up} of its NVLinks are up, others of this node have {}", view.usual_links))
        }
        Some(_) => CheckResult::Healthy,
        None => CheckResult::Same,
    }
}

fn width(view: &CheckInput) -> CheckResult {
    match view.reading().and_then(|reading| reading.pcie) {
        Some(pcie) if pcie.width < pcie.most_width => {
            CheckResult::Unhealthy(format!("its PCIe link has {} lanes of {}", pcie.width, pcie.most_width))
        }
        Some(_) => CheckResult::Healthy,
        None => CheckResult::Same,
    }
}

fn fabric(view: &CheckInput) -> CheckResult {
    let Some(fabric) = view.reading().and_then(|reading| reading.fabric) else { return CheckResult::Same };
    match (fabric.state, fabric.status, fabric.summary) {
        (0, ..) => CheckResult::Same,
        (1, ..) => CheckResult::Unhealthy(
            "it has not started to join the NVSwitch fabric: is the fabric manager running?".into(),
        ),
        (2, ..) => CheckResult::Unhealthy("it is still joining the NVSwitch fabric".into()),
        (_, status, _) if status != 0 => {
            CheckResult::Unhealthy(format!("joining the NVSwitch fabric ended with: {}", super::raw::Code(status)))
        }
        (.., summary @ (2 | 3)) => {
            let word = if summary == 2 { "unhealthy" } else { "of limited capacity" };
            CheckResult::Unhealthy(format!("the NVSwitch fabric calls it {word} (health mask {:#x})", fabric.health))
        }
        _ => CheckResult::Healthy,
    }
}

fn mig_pending(view: &CheckInput) -> CheckResult {
    let mig = view.reading().and_then(|reading| reading.mig.as_ref());
    flag(mig.map(|mig| mig.on != mig.pending), "its MIG mode changes only with a reset")
}

const THERMAL: u64 = 0x20 | 0x40;
/// Hardware slowdown without a thermal reason is power: the brake, or too much drawn.
const POWER: u64 = 0x80;
const HARDWARE: u64 = 0x08;

/// One line a check.
#[rustfmt::skip]
pub(super) static CHECKS: [GpuCheck; 21] = [
    GpuCheck { key: "recovery-action", alertname: "GpuRecoveryAction", severity: Severity::Critical, action: "", begins: 1, ends: 1, whole: false,
        when: "the driver's recovery action (field 230) is not none; the label `recovery` names it, and it overrides every table", judge: recovery },
    GpuCheck { key: "gpu-lost", alertname: "GpuLost", severity: Severity::Critical, action: "reboot", begins: 1, ends: 2, whole: false,
        when: "NVML answers 15 for it", judge: lost },
    GpuCheck { key: "gpu-reset-required", alertname: "GpuResetRequired", severity: Severity::Critical, action: "reset", begins: 1, ends: 2, whole: false,
        when: "NVML answers 16 for it", judge: reset_required },
    GpuCheck { key: "gpu-hangs", alertname: "GpuHangs", severity: Severity::Critical, action: "reboot", begins: 1, ends: 1, whole: false,
        when: "a call of NVML on it takes longer than `nvml.hang`; it is not polled again until that call returns", judge: hangs },
    GpuCheck { key: "nvml-error", alertname: "GpuNvmlError", severity: Severity::Warning, action: "tell", begins: 3, ends: 2, whole: false,
        when: "NVML answers another error for it (999, 17, …)", judge: failed },
    GpuCheck { key: "ecc-uncorrected", alertname: "GpuEccUncorrected", severity: Severity::Error, action: "reset", begins: 1, ends: 2, whole: false,
        when: "uncorrected ECC errors are counted since the driver was loaded or it was reset", judge: ecc },
    GpuCheck { key: "row-remap-pending", alertname: "GpuRowRemapPending", severity: Severity::Warning, action: "reset", begins: 1, ends: 2, whole: false,
        when: "a row of its memory is to be remapped at the next reset", judge: |view| flag(view.reading().and_then(|reading| reading.rows_pending), "a row of its memory is remapped at the next reset") },
    GpuCheck { key: "row-remap-failed", alertname: "GpuRowRemapFailed", severity: Severity::Critical, action: "support", begins: 1, ends: 2, whole: false,
        when: "a row could not be remapped: the GPU is to be replaced", judge: |view| flag(view.reading().and_then(|reading| reading.rows_failed), "a row of its memory could not be remapped") },
    GpuCheck { key: "row-remap-banks", alertname: "GpuRowRemapBanksUsedUp", severity: Severity::Warning, action: "support", begins: 1, ends: 1, whole: true,
        when: "a bank of its memory has no spare row left", judge: banks },
    GpuCheck { key: "sram-threshold", alertname: "GpuSramThreshold", severity: Severity::Critical, action: "support", begins: 1, ends: 1, whole: true,
        when: "uncorrected SRAM errors have exceeded the driver's threshold", judge: |view| flag(view.reading().and_then(|reading| reading.sram_threshold), "its SRAM has had more errors than the driver tolerates") },
    GpuCheck { key: "repair-pending", alertname: "GpuRepairPending", severity: Severity::Warning, action: "reset", begins: 1, ends: 1, whole: true,
        when: "a memory channel or a TPC is repaired at the next reset (Blackwell)", judge: |view| flag(view.reading().and_then(|reading| reading.repair_pending), "a part of it is repaired at the next reset") },
    GpuCheck { key: "thermal-throttle", alertname: "GpuThermalThrottle", severity: Severity::Warning, action: "tell", begins: 5, ends: 10, whole: false,
        when: "software or hardware slows it down for its temperature", judge: |view| throttled(view, THERMAL, "its temperature") },
    GpuCheck { key: "power-throttle", alertname: "GpuPowerBrake", severity: Severity::Warning, action: "tell", begins: 5, ends: 10, whole: false,
        when: "the power brake or another hardware slowdown that is not thermal; the software power cap is normal under load and raises no alert", judge: power },
    GpuCheck { key: "hot", alertname: "GpuHot", severity: Severity::Warning, action: "tell", begins: 3, ends: 5, whole: false,
        when: "it is at or above its maximum of operation; over 3 °C below", judge: |view| hot(view.reading().and_then(|reading| reading.temperature), view.limits.gpu_max, "it") },
    GpuCheck { key: "memory-hot", alertname: "GpuMemoryHot", severity: Severity::Warning, action: "tell", begins: 3, ends: 5, whole: false,
        when: "its memory is at or above its maximum; over 3 °C below", judge: |view| hot(view.reading().and_then(|reading| reading.memory_temperature), view.limits.memory_max, "its memory") },
    GpuCheck { key: "margin", alertname: "GpuThermalMargin", severity: Severity::Warning, action: "tell", begins: 2, ends: 2, whole: true,
        when: "its margin (T.Limit) is used up to where it slows down; only where the margin was ever above zero", judge: margin },
    GpuCheck { key: "nvlink-down", alertname: "GpuNvlinkDown", severity: Severity::Error, action: "reset", begins: 2, ends: 2, whole: true,
        when: "it has fewer NVLinks up than another GPU of this node has, or than it had itself", judge: links },
    GpuCheck { key: "nvlink-errors", alertname: "GpuNvlinkErrors", severity: Severity::Warning, action: "tell", begins: 1, ends: 60, whole: false,
        when: "links are recovered or replayed, or 100 flits have a bad CRC within one poll", judge: nvlink_errors },
    GpuCheck { key: "pcie-replays", alertname: "GpuPcieReplays", severity: Severity::Warning, action: "tell", begins: 1, ends: 60, whole: false,
        when: "10 PCIe replays within one poll", judge: |view| growing(view.grew(|reading| reading.pcie_replays), 10, "PCIe replays") },
    GpuCheck { key: "pcie-width", alertname: "GpuPcieWidth", severity: Severity::Warning, action: "support", begins: 2, ends: 2, whole: true,
        when: "its PCIe link has fewer lanes than it could; the generation drops by itself at rest and is only reported", judge: width },
    GpuCheck { key: "fabric", alertname: "GpuFabric", severity: Severity::Critical, action: "tell", begins: 3, ends: 2, whole: true,
        when: "it has not joined the NVSwitch fabric, or the fabric calls it unhealthy or limited", judge: fabric },
];

/// Not about health: a mode that waits for a reset.
#[rustfmt::skip]
pub(super) static MIG_PENDING: GpuCheck = GpuCheck { key: "mig-pending", alertname: "GpuMigModePending", severity: Severity::Info, action: "reset", begins: 2, ends: 1, whole: true,
    when: "its MIG mode was changed and takes effect with the next reset", judge: mig_pending };

fn power(view: &CheckInput) -> CheckResult {
    match view.reading().and_then(|reading| reading.throttle) {
        Some(reasons) if reasons & POWER != 0 => {
            CheckResult::Unhealthy("its clocks are held down by the power brake".into())
        }
        Some(reasons) if reasons & HARDWARE != 0 && reasons & THERMAL == 0 => {
            CheckResult::Unhealthy("its clocks are held down by a hardware slowdown that is not thermal".into())
        }
        Some(_) => CheckResult::Healthy,
        None => CheckResult::Same,
    }
}

fn nvlink_errors(view: &CheckInput) -> CheckResult {
    let recovered = growing(view.grew(|reading| reading.nvlink_recoveries), 1, "NVLink recoveries and replays");
    match recovered {
        CheckResult::Unhealthy(words) => CheckResult::Unhealthy(words),
        other => match growing(view.grew(|reading| reading.nvlink_crc), 100, "NVLink flits with a bad CRC") {
            CheckResult::Same => other,
            crc => crc,
        },
    }
}

/// All lines, the one that is not about health last.
pub(super) fn all() -> impl Iterator<Item = &'static GpuCheck> {
    CHECKS.iter().chain(std::iter::once(&MIG_PENDING))
}

/// Faults that the driver reports at once, as events: bit, condition, alertname, severity, remedy, meaning.
pub(super) struct NvmlAlarm {
    pub bit: u64,
    pub key: &'static str,
    pub alertname: &'static str,
    pub severity: Severity,
    pub action: &'static str,
    pub when: &'static str,
}

#[rustfmt::skip]
pub(super) static ALARMS: [NvmlAlarm; 6] = [
    NvmlAlarm { bit: 0x200, key: "ecc-storm", alertname: "GpuEccStorm", severity: Severity::Warning, action: "tell", when: "a storm of single-bit ECC errors" },
    NvmlAlarm { bit: 0x400, key: "dram-retirement", alertname: "GpuDramRetirement", severity: Severity::Warning, action: "tell", when: "memory was retired" },
    NvmlAlarm { bit: 0x800, key: "dram-retirement-failed", alertname: "GpuDramRetirementFailed", severity: Severity::Critical, action: "support", when: "memory that should be retired could not be" },
    NvmlAlarm { bit: 0x1000, key: "poison", alertname: "GpuPoison", severity: Severity::Warning, action: "tell", when: "poisoned data was met and contained" },
    NvmlAlarm { bit: 0x2000, key: "poison-fatal", alertname: "GpuPoisonFatal", severity: Severity::Critical, action: "reset", when: "poisoned data was met and not contained" },
    NvmlAlarm { bit: 0x4000, key: "gpu-unavailable", alertname: "GpuUnavailable", severity: Severity::Critical, action: "reset", when: "the driver has given the GPU up" },
];
