//! Tokens that are made here, refusals, and the broken glass: their bounds.
//!
//! Invariant: each number has its reason beside it, where its name does not give it.

use crate::model::Span;
use std::time::Duration;

/// Tokens in force at once; a fleet has tens.
pub const TOKENS: usize = 1_000;
/// A token that is not renewed within a year is a forgotten one.
pub const TOKEN_LIFE_MAX: Span = Span::minutes(366 * 24 * 60);
/// Shorter, and it would be over before it was pasted.
pub const TOKEN_LIFE_MIN: Span = Span::minutes(1);
/// Clusters or sources of one token.
pub const TOKEN_LIST: usize = 100;
/// How often it is written down that a token was used.
pub const TOKEN_USED_EVERY: Duration = Duration::from_secs(3_600);
/// Tokens of which it is remembered when their use was written down; beyond it, it is written down again.
pub const TOKENS_USED: usize = 4_096;
/// A broken glass is for the hour in which nothing else opens.
pub const BREAK_GLASS_LIFE: Span = Span::minutes(60);
/// Refusals (and reads with break-glass access) of one kind become one entry, and one more with their number after this
/// time …
pub const WITNESS_WINDOW: Duration = Duration::from_secs(600);
/// … and so many kinds of refusals of one caller have entries of their own in it, so that a flood cannot fill the ledger …
pub const WITNESS_KINDS: usize = 20;
/// … of so many callers; those of the others are one number.
pub const WITNESS_CALLERS: usize = 100;
/// Characters of a request that such an entry quotes.
pub const WITNESS_CHARS: usize = 200;
