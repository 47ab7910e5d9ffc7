//! `cargo +nightly fuzz run alertmanager_body`: see `alertmanager_body` in targets.rs.
#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::alertmanager_body(data));
