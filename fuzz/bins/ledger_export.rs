//! `cargo +nightly fuzz run ledger_export`: see `ledger_export` in targets.rs.
#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::ledger_export(data));
