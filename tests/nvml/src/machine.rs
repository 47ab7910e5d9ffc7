//! The machine: what its GPUs are and what became of them. It is the fold of the lines of the timeline, nothing else,
//! so that every process that reads the file sees one machine.

use crate::profile::{self, COMPUTE_SLICES, Model, Profile, SLOTS};
use std::collections::BTreeMap;

/// `NVML_ERROR_*`, by the names this crate uses.
pub mod code {
    pub const OK: u32 = 0;
    pub const UNINITIALIZED: u32 = 1;
    pub const INVALID: u32 = 2;
    pub const UNSUPPORTED: u32 = 3;
    pub const NOT_FOUND: u32 = 6;
    pub const SIZE: u32 = 7;
    pub const NO_DRIVER: u32 = 9;
    pub const TIMEOUT: u32 = 10;
    pub const LOST: u32 = 15;
    pub const RESET_REQUIRED: u32 = 16;
    pub const MISMATCH: u32 = 18;
    pub const IN_USE: u32 = 19;
    pub const NO_ROOM: u32 = 23;
    pub const VERSION: u32 = 25;
}

/// Something that an event set is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// `None`: the wait itself ends with `data` as its code.
    pub gpu: Option<u32>,
    pub kind: u64,
    pub data: u64,
    pub gi: u32,
    pub ci: u32,
}

pub const NO_INSTANCE: u32 = u32::MAX;

#[derive(Debug, Clone)]
pub struct Process {
    pub pid: u32,
    pub name: String,
    pub mib: u64,
    pub gi: u32,
    pub ci: u32,
}

#[derive(Debug, Clone)]
pub struct ComputeInstance {
    pub id: u32,
    pub slices: u32,
    pub start: u32,
    /// Creations before this one on the machine: its UUID is new each time.
    pub serial: u64,
}

#[derive(Debug, Clone)]
pub struct GpuInstance {
    pub id: u32,
    pub profile: &'static Profile,
    pub start: u32,
    pub parts: Vec<ComputeInstance>,
}

#[derive(Debug, Clone, Default)]
pub struct Counters {
    pub corrected: u64,
    pub uncorrected: u64,
    pub sram_corrected: u64,
    pub sram_uncorrected: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Link {
    pub down: bool,
    pub crc: u64,
    pub replay: u64,
    pub recovery: u64,
}

#[derive(Debug, Clone)]
pub struct Gpu {
    /// Its place on the board, from 0. Not what NVML calls its index when others are gone.
    pub slot: u32,
    pub off_bus: bool,
    pub lost: bool,
    pub reset_required: bool,
    pub hang: bool,
    pub reset_fails: bool,
    pub resets: u64,
    pub recovery: u32,
    pub volatile: Counters,
    pub aggregate: Counters,
    pub sram_threshold: bool,
    pub rows: [u32; 4],
    pub bank: [u32; 5],
    pub repair: [bool; 2],
    pub temp: u32,
    pub memory_temp: u32,
    pub margin: Option<i32>,
    pub throttle: u64,
    pub power_mw: u32,
    pub links: Vec<Link>,
    pub pcie_replay: u32,
    pub pcie_width: u32,
    pub pcie_gen: u32,
    pub fabric_state: u32,
    pub fabric_status: u32,
    pub fabric_mask: u32,
    pub fabric_summary: u8,
    pub mig: bool,
    pub mig_pending: bool,
    pub instances: Vec<GpuInstance>,
    pub processes: Vec<Process>,
    /// By call (or `ALL`): the code that it answers.
    pub errors: BTreeMap<String, u32>,
}

#[derive(Debug, Clone)]
pub struct Machine {
    pub model: &'static Model,
    pub gpus: Vec<Gpu>,
    pub driver: String,
    pub library: String,
    pub loaded: bool,
    /// Sessions opened before the last one of these are answered `reload_code`.
    pub reloads: u64,
    pub reload_code: u32,
    pub errors: BTreeMap<String, u32>,
    /// Calls that do not come back while they stand here.
    pub hanging: Vec<String>,
    pub made: u64,
    pub events: Vec<Event>,
}

const BUSES: [u32; 8] = [0x0f, 0x2d, 0x44, 0x5b, 0x89, 0xa8, 0xc0, 0xd8];

impl Gpu {
    fn new(slot: u32, model: &Model) -> Gpu {
        Gpu {
            slot,
            off_bus: false,
            lost: false,
            reset_required: false,
            hang: false,
            reset_fails: false,
            resets: 0,
            recovery: 0,
            volatile: Counters::default(),
            aggregate: Counters::default(),
            sram_threshold: false,
            rows: [0; 4],
            bank: [640, 0, 0, 0, 0],
            repair: [false; 2],
            temp: 45,
            memory_temp: 50,
            margin: None,
            throttle: 0,
            power_mw: 300_000,
            links: vec![Link::default(); model.links as usize],
            pcie_replay: 0,
            pcie_width: 16,
            pcie_gen: model.pcie_gen,
            fabric_state: if model.fabric { 3 } else { 0 },
            fabric_status: 0,
            // Every sub-state "false": two bits each, and no misconfiguration.
            fabric_mask: 0x1aa,
            fabric_summary: 1,
            mig: false,
            mig_pending: false,
            instances: Vec::new(),
            processes: Vec::new(),
            errors: BTreeMap::new(),
        }
    }

    /// What is written in `GetPciInfo`: `00000000:0F:00.0`.
    pub fn bus_id(&self) -> String {
        format!("00000000:{:02X}:00.0", self.bus())
    }

    pub fn bus(&self) -> u32 {
        BUSES.get(self.slot as usize).copied().unwrap_or(0x10 + self.slot)
    }

    pub fn uuid(&self) -> String {
        format!("GPU-4e564d4c-0000-4000-8000-{:012x}", self.slot)
    }

    pub fn serial(&self) -> String {
        format!("16502410{:05}", self.slot)
    }

    pub fn mig_uuid(&self, serial: u64) -> String {
        format!("MIG-4e564d4c-{:04x}-5000-8000-{serial:012x}", self.slot)
    }

    /// The margin to where the GPU slows down, as newer products report it.
    pub fn margin(&self, model: &Model) -> i32 {
        self.margin.unwrap_or(model.limits[3] as i32 - self.temp as i32)
    }

    pub fn instance(&self, id: u32) -> Option<&GpuInstance> {
        self.instances.iter().find(|instance| instance.id == id)
    }

    fn instance_mut(&mut self, id: u32) -> Option<&mut GpuInstance> {
        self.instances.iter_mut().find(|instance| instance.id == id)
    }

    /// Where one more of a profile would fit, in the order of its starts.
    pub fn free_starts(&self, profile: &Profile) -> Vec<u32> {
        let same = self.instances.iter().filter(|held| held.profile.id == profile.id).count();
        let media = profile.id == 20 && self.instances.iter().any(|held| held.profile.media);
        let slices: u32 = self.instances.iter().map(|held| held.profile.slices).sum();
        if same >= profile.at_most as usize || media || slices + profile.slices > COMPUTE_SLICES {
            return Vec::new();
        }
        let free = |start: u32| {
            start + profile.width <= SLOTS
                && self
                    .instances
                    .iter()
                    .all(|held| start + profile.width <= held.start || held.start + held.profile.width <= start)
        };
        profile.starts.iter().copied().filter(|start| free(*start)).collect()
    }

    /// How many more of a profile fit.
    pub fn room_for(&self, profile: &'static Profile) -> u32 {
        let mut trial = self.clone();
        let mut count = 0;
        while let Some(start) = trial.free_starts(profile).first().copied() {
            trial.instances.push(GpuInstance { id: 1_000 + count, profile, start, parts: Vec::new() });
            count += 1;
        }
        count
    }

    /// The id that the next GPU instance gets: 0 is the whole GPU.
    pub fn next_instance_id(&self, profile: &Profile) -> u32 {
        if profile.width == SLOTS {
            return 0;
        }
        (1..).find(|id| self.instance(*id).is_none()).unwrap_or(1)
    }

    pub fn busy(&self, gi: u32, ci: Option<u32>) -> bool {
        self.processes.iter().any(|process| process.gi == gi && ci.is_none_or(|ci| process.ci == ci))
    }

    /// What a reset changes.
    fn reset(&mut self) {
        self.resets += 1;
        self.lost = false;
        self.reset_required = false;
        self.hang = false;
        if self.recovery != 2 {
            self.recovery = 0;
        }
        self.volatile = Counters::default();
        self.rows[2] = 0;
        self.repair = [false; 2];
        self.throttle = 0;
        self.instances.clear();
        self.mig = self.mig_pending;
        for link in &mut self.links {
            *link = Link::default();
        }
    }
}

impl GpuInstance {
    /// Where one more compute instance of so many slices fits.
    pub fn free_part(&self, slices: u32) -> Option<u32> {
        (0..=self.profile.slices.checked_sub(slices)?).find(|start| self.part_fits(*start, slices))
    }

    pub fn part_fits(&self, start: u32, slices: u32) -> bool {
        start + slices <= self.profile.slices
            && self.parts.iter().all(|held| start + slices <= held.start || held.start + held.slices <= start)
    }
}

impl Machine {
    pub fn new(model: &'static Model, gpus: u32) -> Machine {
        Machine {
            model,
            gpus: (0..gpus).map(|slot| Gpu::new(slot, model)).collect(),
            driver: "570.133.20".to_owned(),
            library: "570.133.20".to_owned(),
            loaded: true,
            reloads: 0,
            reload_code: code::NO_DRIVER,
            errors: BTreeMap::new(),
            hanging: Vec::new(),
            made: 0,
            events: Vec::new(),
        }
    }

    /// GPUs that are counted, in the order of their indices.
    pub fn present(&self) -> impl Iterator<Item = &Gpu> {
        self.gpus.iter().filter(|gpu| !gpu.off_bus)
    }

    /// Applies one line (without its `at`). What it does not understand it says, with the words that it knows.
    pub fn apply(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["machine", word, rest @ ..] => {
                let model = profile::model(word)
                    .ok_or_else(|| format!("no model `{word}`; there are a100, a100-80, h100, h200, b200"))?;
                let count = match rest {
                    ["gpus", count] => number(count)?,
                    [] => 8,
                    _ => return Err("`machine MODEL gpus N`".to_owned()),
                };
                if count > 64 {
                    return Err("at most 64 GPUs".to_owned());
                }
                *self = Machine::new(model, u32::try_from(count).unwrap_or(8));
                Ok(())
            }
            ["driver", rest @ ..] => self.driver_line(rest),
            ["library", "version", version] => {
                self.library = (*version).to_owned();
                Ok(())
            }
            ["call", call, "hang"] => {
                self.hanging.push((*call).to_owned());
                Ok(())
            }
            ["call", call, "wake"] => {
                self.hanging.retain(|held| held != call);
                Ok(())
            }
            ["call", call, "none"] => {
                self.errors.remove(*call);
                Ok(())
            }
            ["call", call, value] => {
                self.errors.insert((*call).to_owned(), code_of(value)?);
                Ok(())
            }
            ["wait", "error", value] => {
                let data = u64::from(code_of(value)?);
                self.events.push(Event { gpu: None, kind: 0, data, gi: NO_INSTANCE, ci: NO_INSTANCE });
                Ok(())
            }
            ["reboot"] => {
                for slot in 0..self.gpus.len() {
                    let keeps = self.model.mode_needs_reset;
                    let gpu = &mut self.gpus[slot];
                    gpu.off_bus = false;
                    gpu.recovery = 0;
                    gpu.processes.clear();
                    gpu.mig_pending &= keeps;
                    gpu.reset();
                }
                self.reloads += 1;
                self.loaded = true;
                Ok(())
            }
            ["gpu", slot, rest @ ..] => {
                let slot = number(slot)? as usize;
                if slot >= self.gpus.len() {
                    return Err(format!("there is no GPU {slot}; there are {}", self.gpus.len()));
                }
                self.gpu_line(slot, rest)
            }
            [] => Ok(()),
            _ => Err("a line begins with machine, gpu, driver, library, call, wait or reboot".to_owned()),
        }
    }

    fn driver_line(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["version", version] => self.driver = (*version).to_owned(),
            ["unload"] => {
                self.loaded = false;
                self.reloads += 1;
            }
            ["load"] => self.loaded = true,
            ["reload", rest @ ..] => {
                self.loaded = true;
                self.reloads += 1;
                self.reload_code = match rest {
                    [] => code::NO_DRIVER,
                    [value] => code_of(value)?,
                    _ => return Err("`driver reload [CODE]`".to_owned()),
                };
            }
            _ => return Err("`driver version V`, `driver unload`, `driver load`, `driver reload [CODE]`".to_owned()),
        }
        Ok(())
    }

    fn gpu_line(&mut self, slot: usize, words: &[&str]) -> Result<(), String> {
        let at = u32::try_from(slot).unwrap_or(0);
        let event = |kind: u64, data: u64, gi: u32, ci: u32| Event { gpu: Some(at), kind, data, gi, ci };
        let made = self.made;
        let model = self.model;
        let gpu = &mut self.gpus[slot];
        match words {
            ["xid", xid, rest @ ..] => {
                let (gi, ci) = instances(rest)?;
                let told = event(0x8, number(xid)?, gi, ci);
                self.events.push(told);
            }
            ["event", kind, rest @ ..] => {
                let (data, rest) = match rest {
                    ["data", data, rest @ ..] => (number(data)?, rest),
                    rest => (0, rest),
                };
                let (gi, ci) = instances(rest)?;
                let told = event(number(kind)?, data, gi, ci);
                self.events.push(told);
            }
            ["ecc", "sbe", count] => {
                let count = number(count)?;
                gpu.volatile.corrected += count;
                gpu.aggregate.corrected += count;
                self.events.push(event(0x1, 0, NO_INSTANCE, NO_INSTANCE));
            }
            ["ecc", "dbe", count] => {
                let count = number(count)?;
                gpu.volatile.uncorrected += count;
                gpu.aggregate.uncorrected += count;
                self.events.push(event(0x2, 0, NO_INSTANCE, NO_INSTANCE));
            }
            ["sram", "corrected", count] => {
                let count = number(count)?;
                gpu.volatile.sram_corrected += count;
                gpu.aggregate.sram_corrected += count;
            }
            ["sram", "uncorrected", count] => {
                let count = number(count)?;
                gpu.volatile.sram_uncorrected += count;
                gpu.aggregate.sram_uncorrected += count;
            }
            ["sram", "threshold", state] => gpu.sram_threshold = switch(state)?,
            ["rows", "none"] => gpu.rows = [0; 4],
            ["rows", "pending"] => gpu.rows[2] = 1,
            ["rows", "failed"] => gpu.rows[3] = 1,
            ["rows", "corrected", count] => gpu.rows[0] = number(count)? as u32,
            ["rows", "uncorrected", count] => gpu.rows[1] = number(count)? as u32,
            ["rows", "banks", max, high, partial, low, none] => {
                for (to, word) in gpu.bank.iter_mut().zip([max, high, partial, low, none]) {
                    *to = number(word)? as u32;
                }
            }
            ["repair", "channel"] => gpu.repair[0] = true,
            ["repair", "tpc"] => gpu.repair[1] = true,
            ["repair", "none"] => gpu.repair = [false; 2],
            ["temp", degrees] => gpu.temp = number(degrees)? as u32,
            ["memtemp", degrees] => gpu.memory_temp = number(degrees)? as u32,
            ["margin", "none"] => gpu.margin = None,
            ["margin", degrees] => gpu.margin = Some(degrees.parse().map_err(|_| format!("`{degrees}` is no number"))?),
            ["power", watts] => gpu.power_mw = number(watts)? as u32 * 1_000,
            ["throttle", "none"] => gpu.throttle = 0,
            ["throttle", reasons @ ..] if !reasons.is_empty() => {
                gpu.throttle = reasons.iter().try_fold(0, |mask, word| Ok::<u64, String>(mask | throttle(word)?))?;
            }
            ["recovery", word] => {
                gpu.recovery = recovery(word)?;
                let data = u64::from(gpu.recovery);
                self.events.push(event(0x8000, data, NO_INSTANCE, NO_INSTANCE));
            }
            ["nvlink", link, rest @ ..] => {
                let link = number(link)? as usize;
                let link = gpu.links.get_mut(link).ok_or("there is no such link")?;
                match rest {
                    ["down"] => link.down = true,
                    ["up"] => link.down = false,
                    ["crc", count] => link.crc += number(count)?,
                    ["replay", count] => link.replay += number(count)?,
                    ["recovery", count] => link.recovery += number(count)?,
                    _ => return Err("`gpu N nvlink L down|up|crc N|replay N|recovery N`".to_owned()),
                }
            }
            ["pcie", "replay", count] => gpu.pcie_replay += number(count)? as u32,
            ["pcie", "width", lanes] => gpu.pcie_width = number(lanes)? as u32,
            ["pcie", "gen", generation] => gpu.pcie_gen = number(generation)? as u32,
            ["fabric", "state", word] => {
                gpu.fabric_state = ["unsupported", "not-started", "in-progress", "completed"]
                    .iter()
                    .position(|known| known == word)
                    .ok_or("fabric state is unsupported, not-started, in-progress or completed")?
                    as u32;
            }
            ["fabric", "status", value] => gpu.fabric_status = code_of(value)?,
            ["fabric", "mask", value] => gpu.fabric_mask = number(value)? as u32,
            ["fabric", "health", word] => {
                gpu.fabric_summary = ["unsupported", "healthy", "unhealthy", "limited"]
                    .iter()
                    .position(|known| known == word)
                    .ok_or("fabric health is unsupported, healthy, unhealthy or limited")?
                    as u8;
            }
            ["hang"] => gpu.hang = true,
            ["wake"] => gpu.hang = false,
            ["lost"] => gpu.lost = true,
            ["found"] => gpu.lost = false,
            ["off-bus"] => gpu.off_bus = true,
            ["on-bus"] => gpu.off_bus = false,
            ["reset-required"] => gpu.reset_required = true,
            ["reset-fails"] => gpu.reset_fails = true,
            ["reset-works"] => gpu.reset_fails = false,
            ["reset"] => gpu.reset(),
            ["error", call, "none"] => drop(gpu.errors.remove(*call)),
            ["error", call, value] => drop(gpu.errors.insert((*call).to_owned(), code_of(value)?)),
            ["process", pid, "gone"] => {
                let pid = number(pid)? as u32;
                gpu.processes.retain(|process| process.pid != pid);
            }
            ["process", pid, name, mib, rest @ ..] => {
                let (gi, ci) = instances(rest)?;
                let pid = number(pid)? as u32;
                gpu.processes.push(Process { pid, name: (*name).to_owned(), mib: number(mib)?, gi, ci });
            }
            ["mig", state] => {
                let on = switch(state)?;
                gpu.mig = on;
                gpu.mig_pending = on;
                if !on {
                    gpu.instances.clear();
                }
            }
            ["mig-pending", state] => gpu.mig_pending = switch(state)?,
            ["gi", id, "gone"] => {
                let id = number(id)? as u32;
                gpu.instances.retain(|instance| instance.id != id);
            }
            ["gi", id, "profile", profile, "start", start] => {
                let profile = model.by_id(number(profile)? as u32).ok_or("there is no such profile")?;
                let (id, start) = (number(id)? as u32, number(start)? as u32);
                if !gpu.free_starts(profile).contains(&start) {
                    return Err(format!("{} does not fit at {start}", profile.name));
                }
                gpu.instances.push(GpuInstance { id, profile, start, parts: Vec::new() });
            }
            ["ci", gi, id, "gone"] => {
                let (gi, id) = (number(gi)? as u32, number(id)? as u32);
                let instance = gpu.instance_mut(gi).ok_or("there is no such GPU instance")?;
                instance.parts.retain(|part| part.id != id);
            }
            ["ci", gi, id, "slices", slices, "start", start] => {
                let (gi, id) = (number(gi)? as u32, number(id)? as u32);
                let (slices, start) = (number(slices)? as u32, number(start)? as u32);
                let instance = gpu.instance_mut(gi).ok_or("there is no such GPU instance")?;
                instance.parts.push(ComputeInstance { id, slices, start, serial: made });
                self.made += 1;
            }
            _ => return Err(format!("`{}` is nothing that a GPU does here; see the README", words.join(" "))),
        }
        Ok(())
    }
}

fn number(word: &str) -> Result<u64, String> {
    let read = match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => word.parse(),
    };
    read.map_err(|_| format!("`{word}` is no number"))
}

fn code_of(word: &str) -> Result<u32, String> {
    Ok(match word {
        "lost" => code::LOST,
        "reset-required" => code::RESET_REQUIRED,
        "mismatch" => code::MISMATCH,
        "in-use" => code::IN_USE,
        "unsupported" => code::UNSUPPORTED,
        "unknown" => 999,
        _ => u32::try_from(number(word)?).map_err(|_| format!("`{word}` is no return code"))?,
    })
}

fn switch(word: &str) -> Result<bool, String> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{word}` is neither on nor off")),
    }
}

fn recovery(word: &str) -> Result<u32, String> {
    ["none", "reset", "reboot", "drain-p2p", "drain-reset"]
        .iter()
        .position(|known| *known == word)
        .map(|at| at as u32)
        .ok_or_else(|| format!("`{word}`: recovery is none, reset, reboot, drain-p2p or drain-reset"))
}

fn throttle(word: &str) -> Result<u64, String> {
    Ok(match word {
        "idle" => 0x1,
        "power-cap" => 0x4,
        "hw-slowdown" => 0x8,
        "sw-thermal" => 0x20,
        "hw-thermal" => 0x40,
        "power-brake" => 0x80,
        _ => {
            return Err(format!(
                "`{word}`: throttle is idle, power-cap, hw-slowdown, sw-thermal, hw-thermal, power-brake"
            ));
        }
    })
}

fn instances(words: &[&str]) -> Result<(u32, u32), String> {
    match words {
        [] => Ok((NO_INSTANCE, NO_INSTANCE)),
        ["gi", gi] => Ok((number(gi)? as u32, NO_INSTANCE)),
        ["gi", gi, "ci", ci] => Ok((number(gi)? as u32, number(ci)? as u32)),
        _ => Err(format!("`{}`: say `gi N` or `gi N ci M`", words.join(" "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h100() -> Gpu {
        Machine::new(profile::model("h100").unwrap(), 1).gpus[0].clone()
    }

    /// All sets of placements that the rules allow, the double-memory 1g among them and the media variant not.
    fn layouts(gpu: &Gpu, profiles: &'static [Profile], from: (usize, u32)) -> usize {
        let mut count = 1;
        for (at, profile) in profiles.iter().enumerate().filter(|(_, profile)| profile.id != 20) {
            for start in gpu.free_starts(profile) {
                if (at, start) < from {
                    continue;
                }
                let mut next = gpu.clone();
                next.instances.push(GpuInstance { id: 1, profile, start, parts: Vec::new() });
                count += layouts(&next, profiles, (at, start + 1));
            }
        }
        count
    }

    #[test]
    fn the_placement_rules_allow_as_many_layouts_as_the_hardware_is_said_to() {
        assert_eq!(layouts(&h100(), profile::model("h100").unwrap().profiles, (0, 0)), 723);
    }

    #[test]
    fn a_line_that_says_nothing_is_refused_with_what_could_be_said() {
        let mut machine = Machine::new(profile::model("h100").unwrap(), 2);
        assert!(machine.apply("gpu 7 lost").unwrap_err().contains("there are 2"));
        assert!(machine.apply("gpu 0 dance").unwrap_err().contains("README"));
        assert!(machine.apply("machine tpu").unwrap_err().contains("h100"));
        assert!(machine.apply("gpu 0 throttle cold").unwrap_err().contains("hw-thermal"));
    }
}
