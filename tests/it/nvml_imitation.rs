//! The GPU machine made of software behaves as its README says, seen through the crate that the agent uses.

// Most of NVML's MIG and event calls exist only as raw functions.
#![allow(unsafe_code)]

use crate::gpus::Gpus;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::*;
use std::process::Command;

fn load(gpus: &Gpus) -> Result<Nvml, NvmlError> {
    Nvml::builder().lib_path(gpus.library().as_os_str()).init()
}

/// A raw call that exists in the library.
macro_rules! raw {
    ($nvml:expr, $name:ident($($argument:expr),*)) => {
        unsafe { $nvml.lib().$name($($argument),*) }
    };
}

fn instance(nvml: &Nvml, gpu: nvmlDevice_t, profile: u32, at: Option<(u32, u32)>) -> Result<nvmlGpuInstance_t, u32> {
    let mut out = std::ptr::null_mut();
    let code = match at {
        None => raw!(nvml, nvmlDeviceCreateGpuInstance(gpu, profile, &mut out)),
        Some((start, size)) => {
            let place = nvmlGpuInstancePlacement_t { start, size };
            raw!(nvml, nvmlDeviceCreateGpuInstanceWithPlacement(gpu, profile, &place, &mut out))
        }
    };
    if code == 0 { Ok(out) } else { Err(code) }
}

#[test]
fn every_model_has_its_gpus_their_names_and_their_memory() {
    for (model, name, gib) in [
        ("a100", "A100", 40),
        ("a100-80", "A100", 80),
        ("h100", "H100", 79),
        ("h200", "H200", 140),
        ("b200", "B200", 179),
    ] {
        let gpus = Gpus::new(&format!("machine {model} gpus 8"));
        let nvml = load(&gpus).unwrap();
        assert_eq!(nvml.device_count().unwrap(), 8, "{model}");
        let last = nvml.device_by_index(7).unwrap();
        assert!(last.name().unwrap().contains(name), "{model}");
        assert_eq!(last.memory_info().unwrap().total >> 30, gib, "{model}");
        assert_eq!(nvml.device_by_uuid(last.uuid().unwrap()).unwrap().index().unwrap(), 7);
        assert_eq!(nvml.device_by_pci_bus_id("0000:d8:00.0").unwrap().index().unwrap(), 7);
        assert_eq!(last.pci_info().unwrap().bus, 0xd8);
    }
}

#[test]
fn a_line_that_is_appended_is_seen_by_the_next_call() {
    let gpus = Gpus::new("machine h100 gpus 2");
    let nvml = load(&gpus).unwrap();
    let gpu = nvml.device_by_index(1).unwrap();
    assert_eq!(gpu.temperature(TemperatureSensor::Gpu).unwrap(), 45);
    gpus.say("gpu 1 temp 95\ngpu 1 ecc dbe 3");
    assert_eq!(gpu.temperature(TemperatureSensor::Gpu).unwrap(), 95);
    assert_eq!(gpu.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).unwrap(), 3);
    assert_eq!(nvml.device_by_index(0).unwrap().temperature(TemperatureSensor::Gpu).unwrap(), 45);
}

#[test]
fn each_code_that_nvml_gives_for_a_sick_gpu_can_be_had_and_taken_back() {
    let gpus = Gpus::new("machine h100 gpus 2");
    let nvml = load(&gpus).unwrap();
    let gpu = nvml.device_by_index(1).unwrap();
    let temperature = || gpu.temperature(TemperatureSensor::Gpu).map_err(|error| format!("{error:?}"));
    for (on, off, words) in [
        ("gpu 1 lost", "gpu 1 found", "gpulost"),
        ("gpu 1 reset-required", "gpu 1 reset", "resetrequired"),
        ("gpu 1 error nvmlDeviceGetTemperature 999", "gpu 1 error nvmlDeviceGetTemperature none", "unknown"),
        ("gpu 1 error ALL in-use", "gpu 1 error ALL none", "inuse"),
        ("call nvmlDeviceGetTemperature 23", "call nvmlDeviceGetTemperature none", "23"),
    ] {
        gpus.say(on);
        let said = temperature().unwrap_err();
        assert!(said.to_lowercase().contains(words), "{on}: {said}");
        gpus.say(off);
        assert_eq!(temperature().unwrap(), 45, "{off}");
    }
    gpus.say("gpu 0 off-bus");
    assert_eq!(nvml.device_count().unwrap(), 1);
}

#[test]
fn a_handle_of_nobody_is_an_invalid_argument_and_not_a_crash() {
    let gpus = Gpus::new("machine h100 gpus 1");
    let nvml = load(&gpus).unwrap();
    let mut degrees = 0;
    for handle in [0usize, 1, 0xdead_beef, usize::MAX] {
        let code = raw!(nvml, nvmlDeviceGetTemperature(handle as nvmlDevice_t, 0, &mut degrees));
        assert_eq!(code, nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT, "{handle:x}");
    }
}

#[test]
fn the_driver_goes_and_comes_and_a_new_library_needs_a_new_load() {
    let gpus = Gpus::new("machine h100 gpus 2");
    let nvml = load(&gpus).unwrap();
    gpus.say("driver unload");
    assert!(matches!(nvml.device_count(), Err(NvmlError::DriverNotLoaded)));
    drop(nvml);
    assert!(matches!(load(&gpus), Err(NvmlError::DriverNotLoaded)));
    gpus.say("driver load");
    let nvml = load(&gpus).unwrap();
    assert_eq!(nvml.device_count().unwrap(), 2);
    gpus.say("driver version 580.95.05");
    assert!(matches!(nvml.device_count(), Err(NvmlError::LibRmVersionMismatch)));
    drop(nvml);
    assert!(matches!(load(&gpus), Err(NvmlError::LibRmVersionMismatch)));
    gpus.say("library version 580.95.05");
    assert_eq!(load(&gpus).unwrap().sys_driver_version().unwrap(), "580.95.05");
}

#[test]
fn events_come_with_64_bit_types_and_the_ids_of_the_instances() {
    let gpus = Gpus::new("machine h100 gpus 2");
    let nvml = load(&gpus).unwrap();
    let mut set = std::ptr::null_mut();
    assert_eq!(raw!(nvml, nvmlEventSetCreate(&mut set)), 0);
    for index in 0..2 {
        let gpu = unsafe { nvml.device_by_index(index).unwrap().handle() };
        assert_eq!(raw!(nvml, nvmlDeviceRegisterEvents(gpu, 0x8008, set)), 0);
    }
    let wait = |milliseconds| {
        let mut data: nvmlEventData_t = unsafe { std::mem::zeroed() };
        let code = raw!(nvml, nvmlEventSetWait_v2(set, &mut data, milliseconds));
        (code, data.eventType, data.eventData, data.gpuInstanceId, data.computeInstanceId)
    };
    assert_eq!(wait(1).0, nvmlReturn_enum_NVML_ERROR_TIMEOUT);
    gpus.say("gpu 1 xid 94 gi 3 ci 0\ngpu 0 ecc sbe 1\ngpu 0 recovery drain-reset");
    assert_eq!(wait(1_000), (0, 0x8, 94, 3, 0));
    assert_eq!(wait(1_000), (0, 0x8000, 4, u32::MAX, u32::MAX), "what is not registered is not told");
    gpus.say("wait error lost");
    assert_eq!(wait(1_000).0, nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST);
    gpus.say("at 0ms gpu 1 xid 79");
    assert_eq!(wait(5_000), (0, 0x8, 79, u32::MAX, u32::MAX));
    assert_eq!(raw!(nvml, nvmlEventSetFree(set)), 0);
    assert_eq!(wait(1).0, nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
}

#[test]
fn mig_goes_from_mode_to_instances_and_back() {
    let gpus = Gpus::new("machine h100 gpus 1");
    let nvml = load(&gpus).unwrap();
    let device = nvml.device_by_index(0).unwrap();
    let gpu = unsafe { device.handle() };
    assert_eq!(instance(&nvml, gpu, 19, None), Err(3), "MIG is off");
    assert_eq!(device.set_mig_mode(true).unwrap(), 0);
    let (wide, narrow) =
        (instance(&nvml, gpu, 9, Some((4, 4))).unwrap(), instance(&nvml, gpu, 19, Some((0, 1))).unwrap());
    assert_eq!(instance(&nvml, gpu, 9, Some((0, 4))), Err(23), "overlaps the 1g at 0");
    assert_eq!(instance(&nvml, gpu, 14, Some((1, 2))), Err(2), "no 2g begins at 1");
    assert_eq!(instance(&nvml, gpu, 5, None), Err(23), "the only place of a 4g is taken");
    let mut left = 0;
    assert_eq!(raw!(nvml, nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, 19, &mut left)), 0);
    assert_eq!(left, 3);

    let mut part = std::ptr::null_mut();
    assert_eq!(raw!(nvml, nvmlGpuInstanceCreateComputeInstance(wide, 2, &mut part)), 0);
    assert_eq!(raw!(nvml, nvmlGpuInstanceDestroy(wide)), 19, "its compute instance is in it");
    let mig = (0..7).find_map(|index| device.mig_device_by_index(index).ok()).unwrap();
    let first = mig.uuid().unwrap();
    assert!(first.starts_with("MIG-"));
    assert_eq!(mig.memory_info().unwrap().total >> 20, 40_448);
    gpus.say("gpu 0 process 4711 vllm 30000 gi 1 ci 0");
    assert_eq!(raw!(nvml, nvmlComputeInstanceDestroy(part)), 19, "a process runs in it");
    assert_eq!(device.set_mig_mode(false).unwrap(), 19, "the crate calls it a success");
    gpus.say("gpu 0 process 4711 gone");
    assert_eq!(raw!(nvml, nvmlComputeInstanceDestroy(part)), 0);
    assert!((0..7).all(|index| device.mig_device_by_index(index).is_err()));
    assert_eq!(raw!(nvml, nvmlGpuInstanceCreateComputeInstance(wide, 2, &mut part)), 0);
    let second = (0..7).find_map(|index| device.mig_device_by_index(index).ok()).unwrap().uuid().unwrap();
    assert_ne!(first, second, "a MIG device that is made again is another");
    assert_eq!(raw!(nvml, nvmlComputeInstanceDestroy(part)), 0);
    assert_eq!(raw!(nvml, nvmlGpuInstanceDestroy(wide)), 0);
    assert_eq!(raw!(nvml, nvmlGpuInstanceDestroy(narrow)), 0);
    assert_eq!(raw!(nvml, nvmlGpuInstanceDestroy(narrow)), 6, "it is gone");
    assert_eq!(device.set_mig_mode(false).unwrap(), 0);
}

#[test]
fn an_a100_changes_its_mode_only_with_a_reset() {
    let gpus = Gpus::new("machine a100 gpus 1");
    let nvml = load(&gpus).unwrap();
    let device = nvml.device_by_index(0).unwrap();
    assert_eq!(device.set_mig_mode(true).unwrap(), 16, "only after a reset");
    let mode = device.mig_mode().unwrap();
    assert_eq!((mode.current, mode.pending), (0, 1));
    drop(nvml);
    assert!(Command::new(gpus.smi()).args(["--gpu-reset", "-i", "0"]).status().unwrap().success());
    assert_eq!(load(&gpus).unwrap().device_by_index(0).unwrap().mig_mode().unwrap().current, 1);
}

#[test]
fn the_stand_in_for_nvidia_smi_resets_only_what_nobody_holds() {
    let gpus = Gpus::new("machine h100 gpus 4\ngpu 2 reset-required\ngpu 2 process 812 vllm 100");
    let reset = |which: &str| {
        let out = Command::new(gpus.smi()).args(["--gpu-reset", "-i", which]).output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap())
    };
    let nvml = load(&gpus).unwrap();
    let (code, said) = reset("2");
    assert!(code == 255 && said.contains("in use by another process"), "{code}: {said}");
    gpus.say("gpu 2 process 812 gone");
    assert_eq!(reset("2").0, 255, "this test still holds the library open");
    drop(nvml);
    let (code, said) = reset("0000:44:00.0");
    assert!(code == 0 && said.contains("00000000:44:00.0 was successfully reset"), "{code}: {said}");
    let nvml = load(&gpus).unwrap();
    assert_eq!(nvml.device_by_index(2).unwrap().temperature(TemperatureSensor::Gpu).unwrap(), 45);
    drop(nvml);
    gpus.say("gpu 3 reset-fails\ngpu 1 off-bus");
    assert_eq!(reset("GPU-4e564d4c-0000-4000-8000-000000000003").0, 3);
    assert_eq!(reset("1").0, 6);
    assert_eq!(reset("9").0, 6);
}

#[test]
fn a_call_on_a_gpu_that_hangs_comes_back_when_it_wakes() {
    let gpus = Gpus::new("machine h100 gpus 2\ngpu 1 hang");
    let nvml = load(&gpus).unwrap();
    assert_eq!(nvml.device_by_index(0).unwrap().temperature(TemperatureSensor::Gpu).unwrap(), 45);
    let (told, hears) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| told.send(nvml.device_by_index(1).unwrap().temperature(TemperatureSensor::Gpu)).unwrap());
        assert!(hears.recv_timeout(std::time::Duration::from_millis(30)).is_err());
        gpus.say("gpu 1 wake");
        assert_eq!(hears.recv().unwrap().unwrap(), 45);
    });
}

#[test]
fn two_processes_see_one_machine() {
    // Another process is played by another copy of the library on the same timeline.
    let gpus = Gpus::new("machine h100 gpus 1\ngpu 0 mig on");
    let nvml = load(&gpus).unwrap();
    let copy = gpus.machine().with_file_name("another.so");
    std::fs::copy(gpus.library(), &copy).unwrap();
    let other = Nvml::builder().lib_path(copy.as_os_str()).init().unwrap();
    let here = unsafe { nvml.device_by_index(0).unwrap().handle() };
    let there = unsafe { other.device_by_index(0).unwrap().handle() };
    instance(&nvml, here, 5, None).unwrap();
    assert_eq!(instance(&other, there, 5, None), Err(23));
    instance(&other, there, 9, None).unwrap();
    assert_eq!(instance(&nvml, here, 19, None), Err(23), "all seven slices are taken");
    assert!(gpus.timeline().contains("gpu 0 gi 2 profile 9 start 4"));
}
