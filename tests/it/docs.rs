//! Pages tell the truth: generated ones say what the code says, and what a page shows parses, exists and can be called.
//!
//! Invariant: a page that is out of date fails here, with what to mend.

mod bounds;

use nightshift::config::Config;
use nightshift::model::Rule;
use nightshift::{catalog, script};
use regex::Regex;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str, truth: &str) {
    let path = root().join("docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, truth).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == truth, "docs/{name} is out of date: run `make docs`");
}

#[test]
fn the_page_of_actions_is_the_catalog() {
    page("actions.md", &script::reference(catalog::host_api()));
}

#[test]
fn the_page_of_metrics_is_the_table() {
    page("metrics.md", &nightshift::telemetry::reference());
}

#[test]
fn the_page_of_roles_is_the_table_of_rights_and_routes() {
    page("roles.md", &nightshift::server::roles_page());
}

#[test]
fn the_page_of_access_is_the_table_of_routes_roles_and_clusters() {
    page("access.md", &nightshift::server::access_page());
}

#[test]
fn the_page_of_limits_is_the_constants() {
    let truth = bounds::page(root());
    page("limits.md", &truth);
    // The evaluation against the values that the program has.
    for line in [
        format!("| `READ_LIMIT` | {} |", "1,000"),
        format!("| `AGENT_ANSWER_BYTES` | {} MiB |", nightshift::limits::AGENT_ANSWER_BYTES >> 20),
        format!("| `AGENT_POLL` | {} s |", nightshift::limits::AGENT_POLL.as_secs()),
    ] {
        assert!(truth.contains(&line), "{line}");
    }
    assert_eq!(nightshift::limits::READ_LIMIT, 1_000);
}

#[test]
fn the_page_of_findings_is_the_table_of_checks() {
    page("findings.md", &nightshift::node::findings_page());
}

#[test]
fn the_page_of_inference_findings_is_the_table_of_checks() {
    page("inference.md", &nightshift::policy::inference_page());
}

#[test]
fn the_document_and_the_page_of_the_api_are_its_types_and_routes() {
    let document = nightshift::server::openapi();
    page("openapi.json", &(serde_json::to_string_pretty(document).unwrap() + "\n"));
    page("api.md", &nightshift::server::api_page());
}

#[test]
fn the_page_of_ledger_entries_is_the_enum() {
    let truth = nightshift::server::ledger_page();
    page("ledger.md", &truth);
    for kind in nightshift::model::EntryKind::NAMES {
        let text = truth.split(&format!("## {kind}\n\n")).nth(1).unwrap_or_else(|| panic!("{kind} is not on it"));
        assert!(text.chars().next().unwrap().is_uppercase(), "{kind} has no sentence");
    }
}

/// Every page that a person reads: those of the root, and the README of each folder.
fn pages() -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> = [
        "README",
        "ARCHITECTURE",
        "SECURITY",
        "CONTRIBUTING",
        "DECISIONS",
        "runbooks/README",
        "rules/README",
        "deploy/compose/README",
        "deploy/systemd/README",
        "deploy/helm/nightshift/README",
    ]
    .iter()
    .map(|name| root().join(name).with_extension("md"))
    .collect();
    for vendor in std::fs::read_dir(root().join("integrations")).unwrap().flatten() {
        files.push(vendor.path().join("README.md"));
    }
    let read =
        |file: &PathBuf| std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    files.iter().map(|file| (file.strip_prefix(root()).unwrap().display().to_string(), read(file))).collect()
}

/// The fenced blocks of one language, without the indentation of their fence.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(usize, Vec<&str>)> = None;
    for line in text.lines() {
        let fence = line.trim_start();
        open = match open.take() {
            Some((_, lines)) if fence.starts_with("```") => {
                found.push(lines.join("\n") + "\n");
                None
            }
            Some((indent, mut lines)) => {
                lines.push(line.get(indent..).unwrap_or_default());
                Some((indent, lines))
            }
            None => (fence == format!("```{language}")).then(|| (line.len() - fence.len(), Vec::new())),
        };
    }
    found
}

#[derive(Deserialize)]
struct Rules {
    rules: Vec<Rule>,
}

fn wrong_yaml(text: &str) -> Option<String> {
    let value: serde_json::Value = match serde_saphyr::from_str(text) {
        Ok(value) => value,
        Err(error) => return Some(error.to_string()),
    };
    let has = |key: &str| value.get(key).is_some();
    if has("rules") {
        return match serde_saphyr::from_str::<Rules>(text) {
            Ok(rules) => rules.rules.is_empty().then(|| "no rules in it".to_owned()),
            Err(error) => Some(error.to_string()),
        };
    }
    if has("xid") {
        return nightshift::policy::XidTable::default().overlaid(text).err().map(|error| error.to_string());
    }
    // What is pasted on the other side, and cases of a runbook's test, which have their own tests.
    if value.is_array() || has("receivers") || has("alerting") || has("rule_files") || has("services") {
        return None;
    }
    match Config::parse("page", text) {
        Err(error) => Some(error.to_string()),
        // A page shows parts: what it names elsewhere (a token's source) need not be in the same block.
        Ok(_) => None,
    }
}

#[test]
fn every_configuration_and_every_rule_on_a_page_parses() {
    let mut seen = 0;
    let mut broken = Vec::new();
    for (name, text) in pages() {
        for block in blocks(&text, "yaml") {
            seen += 1;
            broken.extend(wrong_yaml(&block).map(|why| format!("{name}: {why}\n{block}")));
        }
    }
    assert!(seen >= 10, "only {seen} blocks were found");
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_runbook_on_a_page_compiles() {
    let mut seen = 0;
    for (name, text) in
        pages().into_iter().filter(|(name, _)| matches!(name.as_str(), "README.md" | "runbooks/README.md"))
    {
        for block in blocks(&text, "rhai") {
            seen += 1;
            if let Err(found) = script::compile("example", &block, catalog::host_api()) {
                panic!("{name}:\n{}", script::render("example", &block, &found, false));
            }
        }
    }
    assert!(seen >= 2, "only {seen} runbooks were found");
}

#[test]
fn every_file_named_on_a_page_exists() {
    let place =
        Regex::new(r"`((?:src|tests|benches|docs|runbooks|rules|integrations|deploy|tools)/[\w./-]+)`").unwrap();
    let link = Regex::new(r"\]\(([\w./-]+)\)").unwrap();
    let mut missing = BTreeSet::new();
    for (name, text) in pages() {
        let folder = root().join(&name).parent().unwrap().to_owned();
        for found in place.captures_iter(&text).map(|found| found[1].to_owned()) {
            // `acme` and `name` stand for what the reader will write.
            let example = ["acme", "name.", "world_verb"].iter().any(|word| found.contains(word));
            if !example && !root().join(&found).exists() && !folder.join(&found).exists() {
                missing.insert(format!("{name}: `{found}`"));
            }
        }
        for found in link.captures_iter(&text).map(|found| found[1].to_owned()) {
            if !folder.join(&found).exists() {
                missing.insert(format!("{name}: a link to {found}"));
            }
        }
    }
    assert!(missing.is_empty(), "these do not exist:\n{}", missing.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_subcommand_on_a_page_exists() {
    let named = Regex::new(r"(?:\$ |`|&& |^  )nightshift ([a-z]+(?:-[a-z]+)*)").unwrap();
    let mut pages = pages();
    pages.push(("src/cli/reasons.md".to_owned(), include_str!("../../src/cli/reasons.md").to_owned()));
    let mut seen = BTreeSet::new();
    for (name, text) in pages {
        for found in text.lines().flat_map(|line| named.captures_iter(line)) {
            seen.insert((found[1].to_owned(), name.clone()));
        }
    }
    assert!(seen.len() >= 10, "only {seen:?} were found");
    let mut asked = BTreeSet::new();
    for (word, name) in &seen {
        if asked.insert(word) {
            let help =
                std::process::Command::new(env!("CARGO_BIN_EXE_nightshift")).args([word, "--help"]).output().unwrap();
            assert!(help.status.success(), "{name} speaks of `nightshift {word}`, which does not exist");
        }
    }
}
