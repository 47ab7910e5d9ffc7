//! Delivers due notices: asks the store, tells the notifier, records the receipt.
//!
//! Invariant: one message per incident and channel, edited; a failing channel never blocks another.

/// The loop.
pub struct Courier {}
