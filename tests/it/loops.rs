//! Loops of faults against the real process under load: kills, I/O errors, full disks, restores, stops. Short here, long by
//! `make loops`; loops of clock steps are in `clock.rs`.
//!
//! Invariant: effects are counted at the target, by the alert that asked for them, and the ledger is compared with that count.

mod bed;
mod full_disks;
mod io_errors;
mod kills;
mod restores;
mod stops;

use crate::harness::Draw;
use std::io::Write as _;

/// What a loop came to.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Faults.
    pub rounds: usize,
    /// Alerts that were answered with 200.
    pub acknowledged: usize,
    /// … and whose effect the target has not seen, although no person is asked about it.
    pub lost: usize,
    /// As the target counted them.
    pub effects: usize,
    /// More than one for one alert.
    pub doubled: usize,
    /// Begun when the process died, without an answer, and not repeatable: a person decides, and the target has none.
    pub in_doubt: usize,
    /// Steps that the ledger has as done, and the target has not seen.
    pub unfounded: usize,
    /// How much later than two seconds after the kill switch an effect came.
    pub late_seconds: f64,
    /// Faults that neither `/readyz` nor the log nor the ledger shows.
    pub silent: usize,
}

impl Tally {
    /// Adds what another world of the same loop came to.
    pub fn add(&mut self, other: &Tally) {
        self.rounds += other.rounds;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.effects += other.effects;
        self.doubled += other.doubled;
        self.in_doubt += other.in_doubt;
        self.unfounded += other.unfounded;
        self.late_seconds = self.late_seconds.max(other.late_seconds);
        self.silent += other.silent;
    }

    /// A line for the table of `make loops`, and the bars.
    pub fn report(&self, kind: &str) {
        let Tally { rounds, acknowledged, lost, effects, doubled, in_doubt, unfounded, late_seconds, silent } = self;
        let line = format!(
            "{kind:<14} {rounds:>6} {acknowledged:>12} {lost:>5} {effects:>8} {doubled:>8} {in_doubt:>9} {unfounded:>10} \
             {late_seconds:>9.3} {silent:>7}"
        );
        println!("{line}");
        if let Some(path) = std::env::var_os("LOOPS_TABLE") {
            let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
            writeln!(file, "{line}").unwrap();
        }
        assert_eq!((*lost, *doubled, *unfounded, *silent), (0, 0, 0, 0), "{kind}: {self:?}");
        assert!(*late_seconds <= 0.0, "{kind}: an effect {late_seconds} s beyond the bar");
        assert!(*effects > 0 && *acknowledged > 0, "{kind}: nothing was done, so nothing was tested: {self:?}");
    }
}

/// How many rounds: from the environment, or the short loop of `make test`.
fn rounds(name: &str, short: usize) -> usize {
    std::env::var(name).ok().map_or(short, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// The draw of a loop. `LOOPS_SEED` repeats one.
fn draw(kind: &str) -> Draw {
    let seed = std::env::var("LOOPS_SEED").ok().map_or_else(
        || u64::try_from(nightshift::model::Time::now().as_microsecond()).unwrap_or(1),
        |text| text.parse().unwrap_or_else(|_| panic!("LOOPS_SEED={text} is no number")),
    );
    println!("{kind}: LOOPS_SEED={seed}");
    Draw(seed)
}
