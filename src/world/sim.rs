//! A simulated fleet that speaks the Kubernetes API, Prometheus' API and a metrics endpoint over HTTP, below the actions.
//!
//! Invariant: it counts every effect itself, so a test never has to believe our own journal.
