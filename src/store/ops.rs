//! The operations of the store: every decision that is made within a transaction, written once over `Db`, for any database.
//!
//! A module for each noun. Functions that write take a [`Tx`](tx::Tx), those that only read a `&dyn Db`.
//!
//! Invariant: no database is named here, and its words come from `Dialect`; a test holds that.

pub(crate) mod agents;
pub(crate) mod begin;
pub(crate) mod breakers;
pub(crate) mod catalog;
pub(crate) mod freezes;
pub(crate) mod incidents;
pub(crate) mod intake;
pub(crate) mod ladder;
pub(crate) mod notices;
pub(crate) mod parked;
pub(crate) mod people;
pub(crate) mod persons;
pub(crate) mod read;
pub(crate) mod recent;
pub(crate) mod record;
pub(crate) mod redact;
pub(crate) mod replicas;
pub(crate) mod rows;
pub(crate) mod runs;
pub(crate) mod sole_writer;
pub(crate) mod subjects;
pub(crate) mod sweep;
pub(crate) mod timers;
pub(crate) mod tokens;
pub(crate) mod tx;
