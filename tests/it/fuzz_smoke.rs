//! The fuzz targets without a fuzzer: each is fed some thousand mutations of its seeds, the same ones in every run.
//! `FUZZ_SEED=7 FUZZ_SECONDS=60` feeds others for longer.
//!
//! Invariant: an input that breaks a target is printed whole, so that it can become a seed.

#[path = "../../fuzz/targets.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// Inputs for each target; a slow machine does fewer, but never less than `FEWEST`.
const INPUTS: usize = 4_000;
const FEWEST: usize = 50;
const TIME: Duration = Duration::from_millis(1_300);
/// An input does not grow beyond this.
const BYTES: usize = 64 * 1024;

/// Pieces on which parsers stumble.
const PIECES: [&[u8]; 40] = [
    b"\"",
    b"'",
    b"`",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"(",
    b")",
    b"${",
    b",",
    b":",
    b"=",
    b"=~",
    b"!~",
    b"|",
    b"||",
    b"\n",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\xe2\x80\xae",
    b"\xc3",
    b"\xf0\x9f\x92\xa9",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"-1",
    b"1e999",
    b"9223372036854775807",
    b"18446744073709551616",
    b"0001-01-01T00:00:00Z",
    b"9999-12-31T23:59:60Z",
    b"//",
    b"/*",
    b"#{",
    b"&a *a",
    b"loop {",
    b"*/0",
];

/// xorshift64*: numbers that only look as if by chance.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        usize::try_from(number).unwrap() % bound.max(1)
    }
}

/// The files of these folders and files.
fn seeds(places: &[&str]) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for place in places {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(place);
        let mut files: Vec<_> = match std::fs::read_dir(&path) {
            Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => vec![path],
        };
        files.retain(|file| file.extension().is_none_or(|ending| ending != "md"));
        files.sort();
        seeds.extend(files.into_iter().filter(|file| file.is_file()).map(|file| std::fs::read(file).unwrap()));
    }
    assert!(!seeds.is_empty(), "no seeds in {places:?}");
    seeds
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], chance: &mut Chance) {
    let at = chance.below(input.len() + 1);
    let end = at + chance.below((input.len() - at).min(64) + 1);
    match chance.below(8) {
        0 if at < input.len() => input[at] ^= 1 << chance.below(8),
        1 if at < input.len() => input[at] = u8::try_from(chance.below(256)).unwrap(),
        2 => drop(input.drain(at..end)),
        3 => {
            let piece: Vec<u8> = input[at..end].to_vec();
            let times = 1 + chance.below(40);
            input.splice(at..at, piece.repeat(times));
        }
        4 => {
            let other = &seeds[chance.below(seeds.len())];
            let from = chance.below(other.len() + 1);
            let to = from + chance.below((other.len() - from).min(200) + 1);
            input.splice(at..end, other[from..to].iter().copied());
        }
        5 => input.truncate(at),
        _ => {
            let piece = PIECES[chance.below(PIECES.len())];
            let times = if chance.below(8) == 0 { 1 + chance.below(200) } else { 1 };
            input.splice(at..if chance.below(2) == 0 { at } else { end }, piece.repeat(times));
        }
    }
    input.truncate(BYTES);
}

fn feed(target: fn(&[u8]), places: &[&str]) {
    let seeds = seeds(places);
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mut chance = Chance(asked("FUZZ_SEED").map_or(0x6e69_6768_7473_6869, |seed| seed.wrapping_mul(2) + 1));
    let (inputs, time) = asked("FUZZ_SECONDS").map_or((INPUTS, TIME), |s| (usize::MAX, Duration::from_secs(s)));
    let until = Instant::now() + time;
    let bare = seeds.iter().cloned();
    let mut feed = bare.chain(std::iter::repeat_with(|| {
        let mut input = seeds[chance.below(seeds.len())].clone();
        for _ in 0..=chance.below(4) {
            mutate(&mut input, &seeds, &mut chance);
        }
        input
    }));
    for done in 0..inputs {
        if done >= FEWEST.max(seeds.len()) && Instant::now() > until {
            eprintln!("{done} inputs in {time:?}");
            return;
        }
        let Some(input) = feed.next() else { return };
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            panic!(
                "input {done} breaks it:\n{}\n{:?}",
                String::from_utf8_lossy(&input),
                input.escape_ascii().to_string()
            );
        }
    }
}

#[test]
fn no_body_of_an_alertmanager_breaks_the_decoder() {
    feed(targets::alertmanager_body, &["fuzz/seeds/alertmanager_body", "integrations/alertmanager/samples"]);
}

#[test]
fn no_line_of_matchers_breaks_the_parser_or_is_printed_otherwise() {
    feed(targets::matchers, &["fuzz/seeds/matchers"]);
}

#[test]
fn no_runbook_breaks_the_sandbox() {
    feed(targets::runbook, &["fuzz/seeds/runbook", "runbooks"]);
}

#[test]
fn no_body_of_a_vendor_breaks_its_shape() {
    feed(targets::shape_events, &["fuzz/seeds/shape_events"]);
}

#[test]
fn no_line_of_the_kernel_log_breaks_its_reader() {
    feed(targets::kernel_lines, &["fuzz/seeds/kernel_lines"]);
}

#[test]
fn no_crontab_line_breaks_the_schedule() {
    feed(targets::cron, &["fuzz/seeds/cron"]);
}

#[test]
fn no_export_of_a_ledger_breaks_the_verifier_or_deceives_it() {
    feed(targets::ledger_export, &["fuzz/seeds/ledger_export"]);
}

#[test]
fn no_configuration_breaks_its_reader_or_prints_as_another() {
    feed(targets::config_yaml, &["fuzz/seeds/config_yaml", "nightshift.example.yaml"]);
}
