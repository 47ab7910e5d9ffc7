//! `cargo +nightly fuzz run kernel_lines`: see `kernel_lines` in targets.rs.
#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::kernel_lines(data));
