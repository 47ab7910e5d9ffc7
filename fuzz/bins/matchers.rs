//! `cargo +nightly fuzz run matchers`: see `matchers` in targets.rs.
#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::matchers(data));
