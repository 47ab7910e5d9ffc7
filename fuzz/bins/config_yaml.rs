//! `cargo +nightly fuzz run config_yaml`: see `config_yaml` in targets.rs.
#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::config_yaml(data));
