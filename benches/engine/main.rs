//! The engine against its bars: a storm, the overhead of a step, sleeping runs, an idle process. Prints a table.
//!
//! Invariant: each part runs in a process of its own, so that its resident size and its time are its own; the store is a
//! real one on a real disk, and what was done to the fleet is counted by the fleet. `cargo bench --bench engine -- storm`.

mod idle;
mod rig;
mod sleepers;
mod steps;
mod storm;
mod watching;

use std::process::Command;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Each measures one thing, in a process of its own.
const PARTS: [(&str, fn()); 5] = [
    ("storm", storm::measure),
    ("steps", steps::measure),
    ("sleepers", sleepers::measure),
    ("idle", idle::measure),
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

/// One line of the table. `of`: figure divided by bar, so that less than 1 has met it.
fn row(what: &str, figure: String, bar: &str, of: Option<f64>) {
    let of = of.map_or(String::new(), |of| format!("{of:.2}{}", if of > 1.0 { " missed" } else { "" }));
    println!("| {what} | {figure} | {bar} | {of} |");
}

fn time_row(what: &str, figure: Duration, bar: Duration) {
    row(what, ms(figure), &ms(bar), Some(figure.as_secs_f64() / bar.as_secs_f64()));
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// The value below which this share of all lies.
fn share<T: Copy + Ord + Default>(values: &mut [T], share: f64) -> T {
    values.sort_unstable();
    values.get((values.len() as f64 * share) as usize).or(values.last()).copied().unwrap_or_default()
}
