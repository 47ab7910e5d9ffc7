//! A GPU machine made of software: `libnvidia-ml.so.1` for tests, played by a text file that is read again while it
//! runs. See the README for what the file can say.
//!
//! The exported functions are C's: they take raw pointers that the caller vouches for, as NVML itself does.

#![allow(non_snake_case, clippy::missing_safety_doc, clippy::not_unsafe_ptr_arg_deref)]

mod device;
mod events;
mod live;
mod machine;
mod mig;
mod profile;
mod system;

use live::{Live, Object};
use machine::{Gpu, Machine, code};
use nvml_wrapper_sys::bindings::nvmlDevice_t;
use std::ffi::{c_char, c_uint};

/// Writes an answer to where the caller wants it.
unsafe fn put<T>(out: *mut T, value: T) -> Result<(), u32> {
    if out.is_null() {
        return Err(code::INVALID);
    }
    // SAFETY: not null, and the caller of the C function vouches for it.
    unsafe { out.write(value) };
    Ok(())
}

/// Writes a string with its NUL, or says that it does not fit.
unsafe fn put_text(out: *mut c_char, length: c_uint, text: &str) -> Result<(), u32> {
    if out.is_null() {
        return Err(code::INVALID);
    }
    if text.len() + 1 > length as usize {
        return Err(code::SIZE);
    }
    // SAFETY: the caller vouches for `length` bytes, and the text with its NUL fits in them.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len());
        out.add(text.len()).write(0);
    }
    Ok(())
}

/// A text in a field of fixed size.
fn filled<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(text.bytes().take(N - 1)) {
        *to = from as c_char;
    }
    field
}

/// Checks the version word of a versioned structure: its size and its version in the top byte.
unsafe fn versioned<T>(version: *const u32, wanted: u32) -> Result<(), u32> {
    if version.is_null() {
        return Err(code::INVALID);
    }
    // SAFETY: not null, and each versioned structure begins with this word.
    let given = unsafe { version.read() };
    if given == (size_of::<T>() as u32 | wanted << 24) { Ok(()) } else { Err(code::VERSION) }
}

fn end(result: Result<(), u32>) -> u32 {
    result.err().unwrap_or(code::OK)
}

/// The GPU that a handle stands for; a MIG device stands on its GPU.
fn slot_of(live: &Live, device: nvmlDevice_t) -> Result<Option<u32>, u32> {
    match live.object(device as usize)? {
        Object::Gpu(slot) | Object::Mig { slot, .. } => Ok(Some(slot)),
        _ => Err(code::INVALID),
    }
}

/// A call that only reads a GPU.
fn on_gpu<T>(name: &str, device: nvmlDevice_t, then: impl FnOnce(&Machine, &Gpu) -> Result<T, u32>) -> Result<T, u32> {
    live::call(
        name,
        |live| slot_of(live, device),
        |live| {
            let slot = slot_of(live, device)?.ok_or(code::INVALID)?;
            then(&live.machine, live.gpu(slot)?)
        },
    )
}
