//! `/api/v1`: what the CLI and people use.
