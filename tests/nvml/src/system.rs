//! The library itself: begin, end, versions, words for codes.

use crate::{end, live, put, put_text};
use std::ffi::{c_char, c_int, c_uint};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInit_v2() -> u32 {
    end(live::init())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> u32 {
    end(live::init())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlShutdown() -> u32 {
    end(live::shutdown())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlErrorString(result: u32) -> *const c_char {
    let text = match result {
        0 => c"Success",
        1 => c"Uninitialized",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        4 => c"Insufficient Permissions",
        6 => c"Not Found",
        7 => c"Insufficient Size",
        9 => c"Driver Not Loaded",
        10 => c"Timeout",
        15 => c"GPU is lost",
        16 => c"GPU requires reset",
        18 => c"Driver/library version mismatch",
        19 => c"In use by another client",
        23 => c"Insufficient Resources",
        25 => c"Version mismatch",
        28 => c"GPU not found",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> u32 {
    end(live::call(
        "nvmlSystemGetDriverVersion",
        |_| Ok(None),
        |live| unsafe { put_text(version, length, &live.machine.driver) },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> u32 {
    end(live::call(
        "nvmlSystemGetNVMLVersion",
        |_| Ok(None),
        |live| unsafe { put_text(version, length, &format!("12.{}", live.machine.library)) },
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> u32 {
    end(live::call("nvmlSystemGetCudaDriverVersion_v2", |_| Ok(None), |_| unsafe { put(version, 12_080) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetProcessName(pid: c_uint, name: *mut c_char, length: c_uint) -> u32 {
    end(live::call(
        "nvmlSystemGetProcessName",
        |_| Ok(None),
        |live| {
            let all = live.machine.gpus.iter().flat_map(|gpu| &gpu.processes);
            let found = all.into_iter().find(|process| process.pid == pid).ok_or(6u32)?;
            unsafe { put_text(name, length, &found.name) }
        },
    ))
}
