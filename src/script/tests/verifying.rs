//! (tests of verifying)
