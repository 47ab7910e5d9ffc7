//! (tests of checks)
