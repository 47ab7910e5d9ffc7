//! The document against the real program: schemathesis makes requests out of it, right ones and wrong ones, and checks each
//! answer against what the document allows.
//!
//! Invariant: every check of schemathesis is on but those in `LEFT_OUT`, each with its reason.

use crate::harness::{Site, alertmanager_body, secret, tools};
use serde_json::json;
use std::process::Command;

/// Checks that are off, and why.
const LEFT_OUT: [(&str, &str); 1] = [(
    "positive_data_acceptance",
    "a schema knows types, not meaning: a duration beyond its bound or a rule that does not exist is refused, in words",
)];

#[tokio::test(flavor = "multi_thread")]
async fn no_request_that_the_document_allows_or_forbids_gets_an_answer_that_it_does_not_describe() {
    let runbook =
        "//! Cordon a node.\n//!\n//! params:\n//!   node: Node\n//! reach: node\n\nk8s::cordon(node, \"test\");\n";
    let site = Site::new("sources:\n  prod: { kind: alertmanager }\n", "rules: []", &[("cordon", runbook)]);
    site.add_token("fuzz", "admin", "");
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    // Something of each kind, so that lists have rows whose schema can be checked.
    let alert = alertmanager_body("firing", "2026-11-23T03:00:00Z", &[&[("alertname", "Xid"), ("node", "gpu-1")]]);
    assert_eq!(engine.post("/in/alertmanager/prod", &alert).await.unwrap().0, 200);
    let run = json!({ "runbook": "cordon", "params": { "node": "gpu-1" } });
    assert_eq!(engine.post("/api/v1/runs", &run).await.unwrap().0, 201);
    let program = tools().join("schemathesis/bin/st");
    assert!(program.exists(), "{} is missing: run `make tools` first", program.display());
    let off: Vec<&str> = LEFT_OUT.iter().map(|(check, _)| *check).collect();
    let mut run = Command::new(program);
    run.current_dir(site.path()).env("PYTHONUTF8", "1").args([
        "run",
        &format!("{}/api/v1/openapi.json", engine.url),
        "--header",
        &format!("Authorization: Bearer {}", secret("fuzz")),
        "--checks",
        "all",
        "--exclude-checks",
        &off.join(","),
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        "8",
        "--generation-deterministic",
        // With two, Python 3.11 now and then fails to parse its own source in both threads at once.
        "--workers",
        "1",
        "--warnings",
        "off",
        "--no-color",
    ]);
    let done = tokio::task::spawn_blocking(move || run.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
    // It does not test the route that it reads the document from.
    let tested = openapi_operations() - 1;
    assert!(said.contains(&format!("{tested} selected / {tested} total")), "{said}");
}

fn openapi_operations() -> usize {
    let paths = nightshift::server::openapi()["paths"].as_object().unwrap();
    paths.values().map(|methods| methods.as_object().unwrap().len()).sum()
}
