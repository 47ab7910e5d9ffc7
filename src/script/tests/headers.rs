//! (tests of headers)
