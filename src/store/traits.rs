//! The seam of the store: seven narrow traits, each for one kind of caller, and their sum.
//!
//! A part of the program takes the narrowest trait that it needs, so that a test's fake implements that and nothing else. The
//! engine and the server share one `Arc<dyn Store>`, which coerces to each of the seven.
//!
//! Errors that every method may return, besides those that it names:
//! [`StoreError::Database`](super::StoreError::Database) where the database refuses, the disk is full or the store is closed,
//! and [`StoreError::Damaged`](super::StoreError::Damaged) where a row that is needed cannot be read back.
//!
//! Invariant: no trait has more than twenty methods, and no method has a default that does nothing.

mod decisions;
mod intake;
mod ledger;
mod outbox;
mod registry;
mod run_journal;
mod views;

pub use decisions::Decisions;
pub use intake::Intake;
pub use ledger::Ledger;
pub use outbox::Outbox;
pub use registry::Registry;
pub use run_journal::RunJournal;
pub use views::Views;

/// Everything that is durable. Whatever implements the seven is a store.
pub trait Store: Intake + RunJournal + Outbox + Decisions + Ledger + Registry + Views {}

impl<T: Intake + RunJournal + Outbox + Decisions + Ledger + Registry + Views> Store for T {}
