//! The integration tests, one binary. Each module is one story line; nothing here sleeps on the wall clock.

// Tests say what they expect by unwrapping, in the functions they share as well.
#![allow(clippy::unwrap_used)]

mod actions;
mod agent;
mod cache;
mod camp;
mod channels;
mod chart;
mod cli;
mod clusters;
mod crash;
mod docker;
mod docs;
mod doctor;
mod engine;
mod engines;
mod event_log;
mod first_hour;
mod flood;
mod fuzz_smoke;
mod gpus;
mod guards;
mod harness;
mod incidents;
mod ingest;
mod kmsg;
mod ladder;
mod metrics;
mod mig;
mod night;
mod notifiers;
mod nvml_imitation;
mod nvml_watch;
mod one_machine;
mod outages;
mod pagerduty_in;
mod patience;
mod peers;
mod posts;
mod probes;
mod real;
mod recording;
mod roles;
mod runbooks;
mod scheduler;
mod seeds;
mod sim;
mod slack_in;
mod store;
mod strangers;
mod tidy;
mod tokens;
mod watch;
mod web;
mod xids;
