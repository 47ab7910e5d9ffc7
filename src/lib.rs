//! Nightshift takes the night shift for a fleet of GPU inference servers: it receives alerts, decides by rules, runs
//! checked runbooks within guards, notifies users, and keeps a ledger that cannot be altered unseen. This page is THE
//! MAP.
//!
//! ```text
//!   vendor JSON                                                                     a user
//!       │                                                                             ▲
//!       ▼                                                                             │
//!  ┌─────────┐ decode ┌────────┐  one transaction   ╔═══════════════════════╗  due ┌─────────┐ encode
//!  │ source  │───────▶│ intake │═══════════════════▶║  STORE                ║─────▶│ courier │───────▶ notifier
//!  └─────────┘        └────────┘                    ║  ledger (append-only) ║      └─────────┘
//!               correlate·select·mute               ║  + what is current    ║
//!                                                   ╚═══════════════════════╝
//!                                                        │ due        ▲ begin / end
//!                                                        ▼            ║
//!                                                   ┌────────┐   ┌────────┐
//!                     what next, given all this? ◀──│ runner │──▶│ action │──▶ the world (Kubernetes, Prometheus, HTTP)
//!                          script::advance          └────────┘   └────────┘
//! ```
//!
//! # One alert, through five files
//!
//! 1. `server/ingest.rs`: `POST /in/alertmanager/prod`. The sender, the size, the source; the answer is 2xx after the
//!    commit.
//! 2. `sources/alertmanager.rs`: the body becomes [`model::Event`]s. Pure.
//! 3. `store/ops/intake.rs`: one transaction: the episode, its incident, the runs that the rules start, the notices that
//!    are due, and one ledger entry with the reasons. The decisions come from [`policy`], which is pure.
//! 4. `engine/runner/slice.rs`: the heart. Open step? Perform it. Else [`script::advance`] returns the next turn: a
//!    call is begun (guards, reservation and entry in one commit), performed by an [`actions::Action`], ended; a wait is a row.
//! 5. `engine/courier.rs`: the incident as it is now becomes one message on each channel, edited when it changes.
//!
//! # The laws
//!
//! - **One ledger.** A run's journal and the audit trail are two readings of it; there is no call that writes a log.
//! - **One question.** Loops read due work from the store; the first pass after a crash is the recovery.
//! - **A runbook is a pure function** from its journal to its next call; replaying a finished run makes no call.
//! - **One door.** The world is touched only in `Action::perform` and `Notifier::deliver`, after a committed record.
//! - **Notices fail open, actions fail closed.** Rather notified twice than never; rather not done than done twice.
//! - **Nothing silent, nothing unbounded.** Every refusal has a [`model::Reason`]; every bound stands in [`limits`].
//! - A module imports only from rows below it (`tests/it/tidy.rs` keeps the table).
//!
//! Invariant: outside a folder only its mouth (`x.rs` for `x/`) is visible.

// ── 0, 1 ── `crates/core`: types, bounds, decisions, runbooks; pure, and kept so by its manifest
pub use nightshift_core::{limits, model, planted, policy, script};
pub use nightshift_node::{agent, node};
pub use nightshift_runtime::clock;

// ── 2 ── disk, clock, network
pub mod config;
/// The current state and the due work; the ledger. SQLite behind `trait Store`.
pub mod store;
pub mod telemetry;
/// The only code that opens connections: Kubernetes, Prometheus, HTTP; and the simulated fleet.
pub mod world;

// ── 3 ── catalogs: one file each, add yours
/// The actions of runbooks, each with its effect, scope, prediction and undo.
pub mod actions;
/// Rules, runbooks and integrations from their folders, reloaded on change.
pub mod catalog;
/// How users are notified.
pub mod notifiers;
/// The sources of alerts.
pub mod sources;

// ── 4 ── the loops: runner, courier, janitor, scheduler; and the story that they leave behind
pub mod engine;

// ── 5 ── what `/api/v1` takes and answers, for the server, the command line, pages, chat and tests
pub mod api;

// ── 6, 7 ── faces: HTTP, and the command line, which puts the parts together (`cli/serve/assemble.rs`)
pub mod cli;
pub mod server;
