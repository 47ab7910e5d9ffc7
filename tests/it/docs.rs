//! Generated pages say what the code says. `make docs` writes them again.
//!
//! Invariant: a page that is out of date fails here, with the command that mends it.

use std::path::Path;

fn page(name: &str, truth: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, truth).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == truth, "docs/{name} is out of date: run `make docs`");
}

#[test]
fn the_page_of_actions_is_the_catalog() {
    page("actions.md", &nightshift::script::reference(nightshift::catalog::host_api()));
}

#[test]
fn the_page_of_metrics_is_the_table() {
    page("metrics.md", &nightshift::telemetry::reference());
}
