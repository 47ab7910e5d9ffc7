//! The engine against its bars: a storm, the overhead of a step, sleeping runs, an idle process. Prints a table.
//!
//! Invariant: each part runs in a process of its own, so that its resident size and its time are its own; the store is a
//! real one on a real disk, and what was done to the fleet is counted by the fleet. `cargo bench --bench engine -- storm`.

mod idle;
mod rig;
mod slack;
mod sleepers;
mod steps;
mod storm;
mod table;
mod watching;

use std::process::Command;
use table::{ms, row, share, time_row};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Each measures one thing, in a process of its own.
const PARTS: [(&str, fn()); 6] = [
    ("storm", storm::measure),
    ("steps", steps::measure),
    ("sleepers", sleepers::measure),
    ("idle", idle::measure),
    ("slack", slack::measure),
    ("watching", watching::measure),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if words.first().is_some_and(|word| word == "part=api-server") {
        return watching::api_server();
    }
    if let Some(part) = words.first().and_then(|word| word.strip_prefix("part=")) {
        let (_, measure) = PARTS.iter().find(|(name, _)| *name == part).expect("a part of this bench");
        return measure();
    }
    println!("| what | figure | bar | of bar |\n|---|---|---|---|");
    let bench = std::env::current_exe().expect("this program has a path");
    for (name, _) in PARTS.iter().filter(|(name, _)| words.is_empty() || words.iter().any(|word| word == name)) {
        let ended = Command::new(&bench).arg(format!("part={name}")).status().expect("the bench starts itself");
        assert!(ended.success(), "`{name}` ended with {ended}");
    }
}
