//! Guards: that the numbers can be meant.
//!
//! Invariant: a longer window allows at least as much as a shorter one.

use super::ConfigFindings;
use crate::config::Config;

pub(super) fn check_guards(config: &Config, found: &mut ConfigFindings) {
    let guards = &config.guards;
    if guards.nodes_at_once == 0 {
        found.say(
            "guards.nodes_at_once",
            "0 allows no step",
            "write at least 1; to forbid all actions write `mode_ceiling: suggest`, to stop now use `nightshift freeze`",
        );
    }
    if let Err(why) = guards.protected.check() {
        found.say(
            "guards.protected",
            why,
            "write each name out, or give the nodes the label nightshift.dev/opt-out=true",
        );
    }
    let shares = [
        ("guards.share_at_once", guards.share_at_once),
        ("guards.share_per_hour", guards.share_per_hour),
        ("guards.share_per_day", guards.share_per_day),
    ];
    for (path, share) in shares {
        if !(0.0..=1.0).contains(&share) {
            found.say(path, format!("{share} is not a share"), "write a number from 0 to 1: 0.05 is 5 %");
        }
    }
    for pair in shares.windows(2) {
        if pair[0].1 > pair[1].1 {
            found.say(
                pair[1].0,
                format!("{} is less than {} ({})", pair[1].1, pair[0].0, pair[0].1),
                "a longer time allows at least as much as a shorter one",
            );
        }
    }
}
