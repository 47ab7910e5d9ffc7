//! `/api/v1`: what the CLI and people use.
//!
//! Invariant: every route names the role it needs.

use super::App;

pub fn routes() -> axum::Router<App> {
    axum::Router::new()
}
