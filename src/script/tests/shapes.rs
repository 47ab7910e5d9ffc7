//! (tests of shapes)
