//! One look at one GPU: which calls, in which order, and the meaning of a refusal.
//!
//! Invariant: a call that the product lacks costs nothing but its own value; 15 and 16 end the look.

use super::raw::{self, Code, DeviceHandle, NvmlField};
use super::reading::{GpuPollResult, GpuReading, MigState, PcieLink};
use nvml_wrapper::Nvml;

/// Fields that one call answers, each look.
const FAST: [u32; 10] = [230, 82, 142, 143, 144, 145, 94, 38, 52, 59];
/// NVLink 5: for each link the recoveries that worked and those that did not, and errors received.
const LINK5: [u32; 3] = [213, 214, 208];
/// Where the slowdown begins on the scale of the margin.
const SLOWDOWN_MARGIN: u32 = 194;
const LINKS: u32 = 18;

/// A look. `whole` includes values that are expensive to read, or change slowly.
pub(super) fn look(nvml: &Nvml, gpu: DeviceHandle, whole: bool) -> GpuPollResult {
    let mut reading = GpuReading::default();
    let fast = read_fast(nvml, gpu, &mut reading);
    let all = if whole { fast.and_then(|()| read_slow(nvml, gpu, &mut reading)) } else { fast };
    match all {
        Ok(()) => GpuPollResult::Read(Box::new(reading)),
        Err((_, Code::LOST)) => GpuPollResult::Lost,
        Err((_, Code::RESET_REQUIRED)) => GpuPollResult::ResetRequired,
        Err((call, code)) => GpuPollResult::Failed(call, code),
    }
}

type CallResult<T> = Result<T, (&'static str, Code)>;

/// The value of a call, `None` where this product does not have it.
fn has<T>(call: &'static str, given: Result<T, Code>) -> CallResult<Option<T>> {
    match given {
        Ok(value) => Ok(Some(value)),
        Err(code) if code.is_absence() => Ok(None),
        Err(code) => Err((call, code)),
    }
}

fn count(value: Option<i64>) -> Option<u64> {
    value.and_then(|value| u64::try_from(value).ok())
}

fn read_fast(nvml: &Nvml, gpu: DeviceHandle, reading: &mut GpuReading) -> CallResult<()> {
    let asked = FAST.map(|id| NvmlField { id, scope: 0 });
    let values = has("field values", raw::fields(nvml, gpu, &asked))?.unwrap_or_default();
    let field = |id: u32| FAST.iter().position(|known| *known == id).and_then(|at| *values.get(at)?);
    let small = |id: u32| field(id).and_then(|value| u32::try_from(value).ok());
    reading.recovery = small(230);
    reading.memory_temperature = small(82).filter(|degrees| *degrees > 0);
    reading.rows_remapped = small(142).zip(small(143)).map(|(corrected, uncorrected)| corrected + uncorrected);
    reading.rows_pending = field(144).map(|flag| flag != 0);
    reading.rows_failed = field(145).map(|flag| flag != 0);
    reading.pcie_replays = count(field(94));
    reading.nvlink_crc = count(field(38));
    reading.nvlink_recoveries = match (count(field(52)), count(field(59))) {
        (None, None) => None,
        (replays, recoveries) => Some(replays.unwrap_or(0) + recoveries.unwrap_or(0)),
    };
    reading.temperature = has("temperature", raw::temperature(nvml, gpu))?;
    reading.throttle = has("throttle reasons", raw::throttle(nvml, gpu))?;
    reading.ecc_volatile = has("ECC errors", raw::ecc(nvml, gpu, true, false))?;
    Ok(())
}

fn read_slow(nvml: &Nvml, gpu: DeviceHandle, reading: &mut GpuReading) -> CallResult<()> {
    reading.ecc_life = has("ECC errors", raw::ecc(nvml, gpu, true, true))?;
    reading.ecc_corrected = has("ECC errors", raw::ecc(nvml, gpu, false, false))?;
    reading.sram_threshold = has("SRAM status", raw::sram_threshold(nvml, gpu))?;
    reading.banks = has("row remapper", raw::banks(nvml, gpu))?;
    reading.repair_pending = has("repair status", raw::repairs(nvml, gpu))?.map(|(channel, tpc)| channel || tpc);
    reading.margin = has("margin", raw::margin(nvml, gpu))?;
    let slowdown = has("field values", raw::fields(nvml, gpu, &[NvmlField { id: SLOWDOWN_MARGIN, scope: 0 }]))?;
    reading.slowdown_margin = slowdown.and_then(|values| *values.first()?).and_then(|value| i32::try_from(value).ok());
    let pcie = has("PCIe link", raw::pcie(nvml, gpu))?;
    reading.pcie = pcie.map(|[width, most_width, generation, most_generation]| PcieLink {
        width,
        most_width,
        generation,
        most_generation,
    });
    reading.limits.gpu_max = has("temperature limit", raw::threshold(nvml, gpu, 3))?;
    reading.limits.memory_max = has("temperature limit", raw::threshold(nvml, gpu, 2))?;
    reading.fabric = has("fabric state", raw::fabric(nvml, gpu))?;
    read_links(nvml, gpu, reading)?;
    if let Some((on, pending)) = has("MIG mode", raw::mig_mode(nvml, gpu))? {
        let devices = if on { has("MIG devices", raw::slices(nvml, gpu))?.unwrap_or_default() } else { Vec::new() };
        reading.mig = Some(MigState { on, pending, devices });
    }
    Ok(())
}

fn read_links(nvml: &Nvml, gpu: DeviceHandle, reading: &mut GpuReading) -> CallResult<()> {
    let mut up = None;
    for link in 0..LINKS {
        match raw::link_is_active(nvml, gpu, link) {
            Ok(active) => *up.get_or_insert(0) += u32::from(active),
            // Links are numbered without holes: the first that is refused is behind the last.
            Err(code) if code.is_absence() || code == Code(2) => break,
            Err(code) => return Err(("NVLink state", code)),
        }
    }
    reading.links_up = up;
    if up.is_none() || reading.nvlink_recoveries.is_some() {
        return Ok(());
    }
    let asked: Vec<NvmlField> = (0..LINKS).flat_map(|scope| LINK5.map(|id| NvmlField { id, scope })).collect();
    let values = has("field values", raw::fields(nvml, gpu, &asked))?.unwrap_or_default();
    let sum = |wanted: &[u32]| {
        let of = asked.iter().zip(&values).filter(|(field, _)| wanted.contains(&field.id));
        of.filter_map(|(_, value)| count(*value)).reduce(|sum, value| sum + value)
    };
    reading.nvlink_recoveries = sum(&[213, 214]);
    reading.nvlink_crc = sum(&[208]);
    Ok(())
}
