//! HTTP: ingest, API, health, metrics. Bounds before work, authentication before everything.
//!
//! Invariant: no route without a role but `/healthz` and `/readyz`.

mod api;
mod ingest;
