//! Readings in, findings out: each check begins and ends where the table says, and nothing flaps.

use super::*;
use crate::node::nvml::raw::Code;
use crate::node::nvml::raw::DeviceHandle;
use crate::node::nvml::reading::{FabricState, MigState, PcieLink, RowRemapHistogram};

fn gpu(index: u32) -> GpuName {
    GpuName { index: Some(index), uuid: format!("GPU-{index}"), pci: format!("0000:0{index}:00.0") }
}

fn at(second: i64) -> Time {
    Time::from_second(1_800_000_000 + second).unwrap()
}

/// A GPU with nothing wrong, and everything known.
fn well() -> GpuReading {
    GpuReading {
        recovery: Some(0),
        temperature: Some(50),
        memory_temperature: Some(60),
        throttle: Some(0x1),
        ecc_volatile: Some(0),
        rows_pending: Some(false),
        rows_failed: Some(false),
        pcie_replays: Some(7),
        nvlink_recoveries: Some(3),
        nvlink_crc: Some(1_000),
        sram_threshold: Some(false),
        banks: Some(RowRemapHistogram { max: 640, ..RowRemapHistogram::default() }),
        repair_pending: Some(false),
        margin: Some(30),
        slowdown_margin: Some(-2),
        links_up: Some(18),
        pcie: Some(PcieLink { width: 16, most_width: 16, generation: 1, most_generation: 5 }),
        fabric: Some(FabricState { state: 3, status: 0, health: 0x1aa, summary: 1 }),
        mig: Some(MigState::default()),
        limits: TemperatureLimits { gpu_max: Some(87), memory_max: Some(95) },
        ..GpuReading::default()
    }
}

/// What each check is made ill by.
fn ill(key: &str) -> GpuPollResult {
    let mut reading = well();
    match key {
        "recovery-action" => reading.recovery = Some(1),
        "gpu-lost" => return GpuPollResult::Lost,
        "gpu-reset-required" => return GpuPollResult::ResetRequired,
        "gpu-hangs" => return GpuPollResult::Hangs,
        "nvml-error" => return GpuPollResult::Failed("temperature", Code(999)),
        "ecc-uncorrected" => reading.ecc_volatile = Some(2),
        "row-remap-pending" => reading.rows_pending = Some(true),
        "row-remap-failed" => reading.rows_failed = Some(true),
        "row-remap-banks" => {
            reading.banks = Some(RowRemapHistogram { max: 639, none: 1, ..RowRemapHistogram::default() })
        }
        "sram-threshold" => reading.sram_threshold = Some(true),
        "repair-pending" => reading.repair_pending = Some(true),
        "thermal-throttle" => reading.throttle = Some(0x40 | 0x8),
        "power-throttle" => reading.throttle = Some(0x80 | 0x8),
        "hot" => reading.temperature = Some(87),
        "memory-hot" => reading.memory_temperature = Some(95),
        "margin" => reading.margin = Some(-2),
        "nvlink-down" => reading.links_up = Some(17),
        "nvlink-errors" => reading.nvlink_recoveries = Some(4),
        "pcie-replays" => reading.pcie_replays = Some(17),
        "pcie-width" => reading.pcie = Some(PcieLink { width: 8, ..well().pcie.unwrap() }),
        "fabric" => reading.fabric = Some(FabricState { state: 1, ..FabricState::default() }),
        "mig-pending" => reading.mig = Some(MigState { pending: true, ..MigState::default() }),
        other => panic!("this test does not know how to make {other} ill"),
    }
    GpuPollResult::Read(Box::new(reading))
}

fn said(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| format!("{:?} {}", finding.status, finding.complaint)).collect()
}

#[test]
fn each_check_begins_after_as_many_looks_as_its_line_says_and_ends_so_too() {
    for check in checks::all() {
        let mut judge = FaultDetector::default();
        let healthy = GpuPollResult::Read(Box::new(well()));
        assert!(judge.look(&gpu(1), &healthy, true, at(0)).is_empty(), "{}: a GPU that is well", check.key);
        // A counter is ill while it grows, so each look must be after a lower one.
        let counts = matches!(check.key, "nvlink-errors" | "pcie-replays");
        for turn in 1..=check.begins {
            let told = judge.look(&gpu(1), &ill(check.key), true, at(1));
            let wanted = format!("Firing {} 0000:01:00.0", check.key);
            let expect: &[String] = if turn == check.begins { &[wanted] } else { &[] };
            assert_eq!(said(&told), expect, "{}: look {turn} of {}", check.key, check.begins);
            let action = told.first().map(|finding| finding.labels.get("action").cloned().unwrap_or_default());
            assert!(action.is_none_or(|action| action == check.action), "{}", check.key);
        }
        if !counts {
            assert!(judge.look(&gpu(1), &ill(check.key), true, at(2)).is_empty(), "{}: told twice", check.key);
        }
        assert_eq!(judge.complaints(&gpu(1)).len(), 1, "{}", check.key);
        for turn in 1..=check.ends {
            let told = judge.look(&gpu(1), &healthy, true, at(3));
            let wanted = format!("Resolved {} 0000:01:00.0", check.key);
            let expect: &[String] = if turn == check.ends { &[wanted] } else { &[] };
            assert_eq!(said(&told), expect, "{}: good look {turn} of {}", check.key, check.ends);
        }
        assert!(judge.complaints(&gpu(1)).is_empty(), "{}", check.key);
    }
}

#[test]
fn a_temperature_between_its_two_thresholds_changes_nothing_either_way() {
    let mut judge = FaultDetector::default();
    let degrees = |degrees| GpuPollResult::Read(Box::new(GpuReading { temperature: Some(degrees), ..well() }));
    let mut told = Vec::new();
    for now in [86, 85, 86, 88, 86, 88, 86, 88, 86, 85, 86, 85, 86, 85, 85, 85, 85, 85] {
        told.extend(judge.look(&gpu(1), &degrees(now), false, at(0)));
    }
    assert_eq!(said(&told), ["Firing hot 0000:01:00.0"], "at 85 it is neither ill nor well");
    for _ in 0..5 {
        told.extend(judge.look(&gpu(1), &degrees(84), false, at(0)));
    }
    assert_eq!(said(&told).last().unwrap(), "Resolved hot 0000:01:00.0");
}

#[test]
fn what_cannot_be_seen_leaves_every_complaint_as_it_is() {
    let mut judge = FaultDetector::default();
    let mut reading = well();
    (reading.rows_pending, reading.ecc_volatile) = (Some(true), Some(1));
    judge.look(&gpu(1), &GpuPollResult::Read(Box::new(reading)), true, at(0));
    assert_eq!(judge.complaints(&gpu(1)).len(), 2);
    for looked in [GpuPollResult::Hangs, GpuPollResult::Lost, GpuPollResult::Read(Box::default())] {
        for _ in 0..10 {
            let told = judge.look(&gpu(1), &looked, true, at(1));
            assert!(said(&told).iter().all(|said| said.contains("gpu-")), "{:?}", said(&told));
        }
    }
    assert_eq!(judge.complaints(&gpu(1)).len(), 2, "both stand, and what hid them is over");
}

#[test]
fn advice_that_changes_is_told_again_and_ends_once() {
    let mut judge = FaultDetector::default();
    let advice = |action| GpuPollResult::Read(Box::new(GpuReading { recovery: Some(action), ..well() }));
    let mut words = Vec::new();
    for action in [0, 1, 1, 2, 4, 4, 0, 0] {
        let told = judge.look(&gpu(1), &advice(action), false, at(0));
        words.extend(told.iter().map(|finding| format!("{:?} {}", finding.status, finding.labels["recovery"])));
    }
    assert_eq!(words, ["Firing gpu-reset", "Firing node-reboot", "Firing drain-and-reset", "Resolved drain-and-reset"]);
}

#[test]
fn the_software_power_cap_is_no_complaint_and_a_margin_that_was_never_above_zero_is_none_either() {
    let mut judge = FaultDetector::default();
    let looked = GpuPollResult::Read(Box::new(GpuReading {
        throttle: Some(0x4),
        margin: Some(-5),
        slowdown_margin: Some(-2),
        ..well()
    }));
    for _ in 0..20 {
        assert!(judge.look(&gpu(1), &looked, true, at(0)).is_empty());
    }
}

#[test]
fn a_link_that_is_down_from_the_beginning_shows_beside_the_other_gpus() {
    let mut judge = FaultDetector::default();
    let links = |up| GpuPollResult::Read(Box::new(GpuReading { links_up: Some(up), ..well() }));
    let mut told = Vec::new();
    for _ in 0..3 {
        told.extend(judge.look(&gpu(1), &links(18), true, at(0)));
        told.extend(judge.look(&gpu(2), &links(16), true, at(0)));
    }
    assert_eq!(said(&told), ["Firing nvlink-down 0000:02:00.0"]);
}

#[test]
fn an_alarm_is_told_once_and_over_when_it_was_quiet() {
    let mut judge = FaultDetector::default();
    let told = NvmlEvent { handle: DeviceHandle(1), kind: 0x2000, data: 0, instance: Some(3), part: None };
    let begun = judge.alarm(&gpu(1), &told, at(0));
    assert_eq!(said(&begun), ["Firing poison-fatal 0000:01:00.0"]);
    assert_eq!(begun[0].labels["GPU_I_ID"], "3");
    assert!(judge.alarm(&gpu(1), &told, at(300)).is_empty());
    assert!(judge.tick(at(700)).is_empty(), "it was told again meanwhile");
    assert_eq!(said(&judge.tick(at(901))), ["Resolved poison-fatal 0000:01:00.0"]);
}

#[test]
fn a_counter_that_began_anew_is_no_growth() {
    let mut judge = FaultDetector::default();
    let replays = |count| GpuPollResult::Read(Box::new(GpuReading { pcie_replays: Some(count), ..well() }));
    let mut told = Vec::new();
    for count in [5_000, 0, 3] {
        told.extend(judge.look(&gpu(1), &replays(count), false, at(0)));
    }
    assert!(told.is_empty(), "{:?}", said(&told));
}

#[test]
fn a_counter_that_only_some_looks_ask_is_compared_with_the_look_that_asked_it_last() {
    let mut judge = FaultDetector::default();
    let look = |recoveries| {
        GpuPollResult::Read(Box::new(GpuReading { nvlink_recoveries: recoveries, nvlink_crc: None, ..well() }))
    };
    let mut told = Vec::new();
    for recoveries in [Some(1), None, None, Some(1), None, Some(2)] {
        told.extend(judge.look(&gpu(1), &look(recoveries), false, at(0)));
    }
    assert_eq!(said(&told), ["Firing nvlink-errors 0000:01:00.0"]);
}

#[test]
fn what_the_last_run_said_ends_when_the_looks_say_so_and_an_alarm_when_it_is_quiet() {
    let mut before = FaultDetector::default();
    let mut said = before.look(&gpu(1), &ill("ecc-uncorrected"), true, at(0));
    let told = NvmlEvent { handle: DeviceHandle(1), kind: 0x1000, data: 0, instance: None, part: None };
    said.extend(before.alarm(&gpu(1), &told, at(0)));
    assert_eq!(said.len(), 2, "{said:?}");
    let mut judge = FaultDetector::default();
    judge.restore(said.clone(), at(100));
    assert_eq!(judge.look(&gpu(1), &ill("ecc-uncorrected"), true, at(100)), [], "it was said");
    let look = |judge: &mut FaultDetector, second| {
        judge.look(&gpu(1), &GpuPollResult::Read(Box::new(well())), true, at(second))
    };
    assert_eq!(look(&mut judge, 101), []);
    let over = look(&mut judge, 102);
    assert_eq!((over.len(), over[0].status, &over[0].complaint), (1, EventStatus::Resolved, &said[0].complaint));
    let quiet = i64::try_from(limits::GPU_ALARM_QUIET.as_secs()).unwrap();
    assert_eq!(judge.tick(at(quiet)), []);
    assert_eq!(judge.tick(at(100 + quiet))[0].complaint, said[1].complaint);
}
