//! Event sets, with 64-bit types and the ids of the instances.

use crate::live::{self, Object};
use crate::machine::code;
use crate::{end, on_gpu, put, slot_of};
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t};
use std::ffi::c_uint;
use std::time::Duration;

/// Every type that a driver of the R575 line can tell.
const SUPPORTED: u64 = 0xff9f;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) -> u32 {
    end(live::call(
        "nvmlEventSetCreate",
        |_| Ok(None),
        |live| {
            let token = live::set_create(live)?;
            unsafe { put(set, token as nvmlEventSet_t) }
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> u32 {
    end(live::call("nvmlEventSetFree", |_| Ok(None), |live| live::set_free(live, set as usize)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(device: nvmlDevice_t, types: *mut u64) -> u32 {
    end(on_gpu("nvmlDeviceGetSupportedEventTypes", device, |_, _| unsafe { put(types, SUPPORTED) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceRegisterEvents(device: nvmlDevice_t, types: u64, set: nvmlEventSet_t) -> u32 {
    end(live::call(
        "nvmlDeviceRegisterEvents",
        |live| slot_of(live, device),
        |live| {
            // Only whole GPUs can be registered.
            let Object::Gpu(slot) = live.object(device as usize)? else { return Err(code::UNSUPPORTED) };
            if types & !SUPPORTED != 0 {
                return Err(code::UNSUPPORTED);
            }
            live::set_register(live, set as usize, slot, types)
        },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout_ms: c_uint,
) -> u32 {
    let wait = || {
        let event = live::set_wait("nvmlEventSetWait_v2", set as usize, Duration::from_millis(timeout_ms.into()))?;
        let device = live::call("", |_| Ok(None), |live| Ok(live.handle(Object::Gpu(event.gpu.unwrap_or(0)))))?;
        let told = nvmlEventData_t {
            device: device as nvmlDevice_t,
            eventType: event.kind,
            eventData: event.data,
            gpuInstanceId: event.gi,
            computeInstanceId: event.ci,
        };
        unsafe { put(data, told) }
    };
    end(wait())
}
