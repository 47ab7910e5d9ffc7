//! `cargo +nightly fuzz run shape_events`: see `shape_events` in targets.rs.
#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::shape_events(data));
