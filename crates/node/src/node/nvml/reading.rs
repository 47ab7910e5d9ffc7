//! The values of one look at one GPU. Plain values; `checks` has their meaning.
//!
//! Invariant: a value that was not read, or that this product or driver cannot give, is `None`, never zero.

use super::raw::Code;
use serde::Serialize;

/// How a look ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum GpuPollResult {
    Read(Box<GpuReading>),
    /// 15: fallen off the bus, or otherwise out of reach.
    Lost,
    /// 16: nothing works until a reset.
    ResetRequired,
    /// Another code, and which call gave it.
    Failed(&'static str, Code),
    /// The call has not come back.
    Hangs,
}

/// The values of a look. The first group is read each time, the second now and then.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct GpuReading {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_temperature: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc_volatile: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_pending: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_failed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_remapped: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcie_replays: Option<u64>,
    /// Links that had to be recovered or replayed, and flits with a bad CRC, all links together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvlink_recoveries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvlink_crc: Option<u64>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc_life: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc_corrected: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sram_threshold: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub banks: Option<RowRemapHistogram>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair_pending: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowdown_margin: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links_up: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcie: Option<PcieLink>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fabric: Option<FabricState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig: Option<MigState>,
    pub limits: TemperatureLimits,
}

/// Banks of memory by the spare rows that they have left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct RowRemapHistogram {
    pub max: u32,
    pub high: u32,
    pub partial: u32,
    pub low: u32,
    pub none: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct PcieLink {
    pub width: u32,
    pub most_width: u32,
    /// Drops by itself while the GPU idles, so it is reported and not judged.
    pub generation: u32,
    pub most_generation: u32,
}

/// The NVSwitch fabric as this GPU sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct FabricState {
    /// 0 not supported, 1 not started, 2 in progress, 3 completed.
    pub state: u32,
    /// A return code: how the registration ended.
    pub status: u32,
    pub health: u32,
    /// 0 not supported, 1 healthy, 2 unhealthy, 3 limited capacity.
    pub summary: u8,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct MigState {
    pub on: bool,
    pub pending: bool,
    pub devices: Vec<MigDevice>,
}

/// One MIG device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct MigDevice {
    pub uuid: String,
    pub gpu_instance: u32,
    pub compute_instance: u32,
    pub slices: u32,
    pub memory_mib: u64,
}

/// The temperatures above which it is too hot: the GPU's own maximum of operation, and its memory's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct TemperatureLimits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_max: Option<u32>,
}

impl TemperatureLimits {
    /// Takes in known values, and keeps the rest.
    pub fn learn(&mut self, newer: &TemperatureLimits) {
        self.gpu_max = newer.gpu_max.or(self.gpu_max);
        self.memory_max = newer.memory_max.or(self.memory_max);
    }
}

impl GpuReading {
    /// Lays a newer reading over this one: values that it did not read stay.
    pub fn learn(&mut self, newer: GpuReading) {
        macro_rules! take {
            ($($field:ident)*) => { $( if newer.$field.is_some() { self.$field = newer.$field; } )* };
        }
        take!(recovery temperature memory_temperature throttle ecc_volatile rows_pending rows_failed rows_remapped
              pcie_replays nvlink_recoveries nvlink_crc ecc_life ecc_corrected sram_threshold banks repair_pending
              margin slowdown_margin links_up pcie fabric mig);
        self.limits.learn(&newer.limits);
    }
}
