//! How long to wait before the next attempt: exponential, capped, with jitter that a seed fixes.
//!
//! Invariant: the wait never exceeds the cap, and never is zero.

use std::time::Duration;

/// The wait before attempt `attempt + 1` (attempts count from 1); `seed` spreads retries of different steps.
///
/// The wait lies between half and the whole of `first · 2^(attempt − 1)`, capped at `max`.
pub fn backoff(attempt: u32, first: Duration, max: Duration, seed: u64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(63);
    let full = nanos(first).saturating_mul(1 << doublings).min(nanos(max)).max(1);
    let half = full / 2;
    let jitter = mix(seed ^ u64::from(attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15)) % (full - half + 1);
    Duration::from_nanos((half + jitter).max(1))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// SplitMix64's finisher: a cheap hash whose bits all depend on all bits of the seed.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_and_stop_at_the_cap() {
        let wait = |attempt| backoff(attempt, Duration::from_millis(100), Duration::from_secs(1), 7).as_millis();
        assert!((50..=100).contains(&wait(1)), "{}", wait(1));
        assert!((100..=200).contains(&wait(2)), "{}", wait(2));
        assert!((500..=1000).contains(&wait(10)), "{}", wait(10));
        assert!((500..=1000).contains(&wait(u32::MAX)), "{}", wait(u32::MAX));
    }

    #[test]
    fn steps_with_other_seeds_wait_differently_and_one_seed_always_the_same() {
        let wait = |seed| backoff(3, Duration::from_secs(1), Duration::from_secs(60), seed);
        assert_eq!(wait(1), wait(1));
        let distinct: std::collections::HashSet<_> = (0..100).map(wait).collect();
        assert!(distinct.len() > 95, "{}", distinct.len());
    }

    proptest! {
        #[test]
        fn a_wait_is_never_zero_and_never_above_the_cap(
            attempt in any::<u32>(), first in 0u64..1 << 40, max in 1u64..1 << 40, seed in any::<u64>()
        ) {
            let wait = backoff(attempt, Duration::from_nanos(first), Duration::from_nanos(max), seed);
            prop_assert!(wait > Duration::ZERO && wait <= Duration::from_nanos(max));
        }
    }
}
