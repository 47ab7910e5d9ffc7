//! Planted bugs: faults that a test switches on, to show that a named test catches each of them (`tests/planted.txt`).
//!
//! Invariant: without the feature `planted-bugs` this is `false` when compiled, and with it no release can be built.

#[cfg(all(feature = "planted-bugs", not(debug_assertions)))]
compile_error!("planted bugs are for tests, never for a release");

/// Whether the bug of that name is switched on.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn planted(_bug: &str) -> bool {
    false
}

/// Whether the bug of that name is switched on, by `NIGHTSHIFT_PLANT`.
#[cfg(feature = "planted-bugs")]
pub fn planted(bug: &str) -> bool {
    static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    PLANTED.get_or_init(|| std::env::var("NIGHTSHIFT_PLANT").ok()).as_deref() == Some(bug)
}
