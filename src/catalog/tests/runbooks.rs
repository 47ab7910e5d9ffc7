//! Runbooks and shapes in the catalog: last good texts, and rules that fit them.
//!
//! Invariant: a rule in force starts exactly the text in force.

use super::shipped::event;
use super::*;
use crate::model::Labels;
use crate::policy::RuleDecision;

const BUS: &str = "//! The GPU fell off the bus.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n\n";

fn bus(site: &Site, body: &str) {
    site.write("runbooks/bus.rhai", format!("{BUS}{body}\n"));
}

fn real(site: &Site) -> Result<(Catalog, Vec<CatalogProblem>), Vec<CatalogProblem>> {
    Catalog::load(site.folders())
}

const RUNS_BUS: &str = "rules:\n  - name: r\n    when: [alertname=X]\n    run: bus\n";

#[test]
fn a_runbook_that_breaks_keeps_its_last_good_text_and_says_where() {
    let site = Site::new();
    bus(&site, "k8s::cordon(node, \"why\");");
    site.write("rules/r.yaml", RUNS_BUS);
    let (catalog, problems) = real(&site).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert!(problems.iter().all(|problem| !problem.fatal), "{problems:#?}");
    let first = catalog.current();
    bus(&site, "k8s::corden(node, \"why\");");
    let (changed, problems) = catalog.reload();
    assert!(!changed);
    fatal(&problems, "runbooks/bus.rhai", "corden");
    assert_eq!(catalog.current().runbooks["bus"].pin, first.runbooks["bus"].pin);
    bus(&site, "k8s::cordon(node, \"because\");");
    assert!(catalog.reload().0);
    let now = catalog.current();
    assert_ne!(now.runbooks["bus"].pin, first.runbooks["bus"].pin);
    let labels: Labels = [("alertname", "X"), ("node", "gpu-3")].into_iter().collect();
    let event = event(labels);
    let RuleDecision::Run(start) = &now.rules.select(&event)[0].chosen else { panic!("no run") };
    assert_eq!(start.pin, now.runbooks["bus"].pin, "rules start the text that is in force");
}

#[test]
fn a_runbook_that_no_longer_fits_its_rule_waits_until_the_rule_follows() {
    let site = Site::new();
    bus(&site, "k8s::cordon(node, \"why\");");
    site.write("runbooks/other.rhai", format!("{BUS}note(\"one\");\n"));
    site.write("rules/r.yaml", RUNS_BUS);
    let (catalog, _) = real(&site).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let before = catalog.current();
    let wants_more = BUS.replace("//! scope", "//!   count: Int\n//! scope");
    site.write("runbooks/bus.rhai", format!("{wants_more}k8s::cordon(node, `${{count}}`);\n"));
    site.write("runbooks/other.rhai", format!("{BUS}note(\"two\");\n"));
    let (changed, problems) = catalog.reload();
    assert!(changed, "the other runbook does not wait");
    fatal(&problems, "rules/r.yaml:2", "`count` (Int) is never given");
    let now = catalog.current();
    assert_eq!(now.runbooks["bus"].pin, before.runbooks["bus"].pin);
    assert_ne!(now.runbooks["other"].pin, before.runbooks["other"].pin);
    site.write("rules/r.yaml", format!("{RUNS_BUS}    with: {{count: 3}}\n"));
    let (changed, problems) = catalog.reload();
    assert!(changed && problems.iter().all(|problem| !problem.fatal), "{problems:#?}");
    assert_ne!(catalog.current().runbooks["bus"].pin, before.runbooks["bus"].pin);
}

#[test]
fn a_runbook_that_a_rule_still_runs_is_kept_when_its_file_is_gone() {
    let site = Site::new();
    bus(&site, "k8s::cordon(node, \"why\");");
    site.write("rules/r.yaml", RUNS_BUS);
    let (catalog, _) = real(&site).unwrap_or_else(|problems| panic!("{problems:#?}"));
    fs::remove_file(site.path("runbooks/bus.rhai")).unwrap();
    let (changed, problems) = catalog.reload();
    assert!(!changed && catalog.current().runbooks.contains_key("bus"));
    fatal(&problems, "rules/r.yaml:2", "there is no runbook `bus`");
    fs::remove_file(site.path("rules/r.yaml")).unwrap();
    assert_eq!(catalog.reload(), (true, vec![]));
    assert!(catalog.current().runbooks.is_empty());
}

#[test]
fn shapes_are_known_by_their_vendors_folder() {
    let site = Site::new();
    site.write("integrations/acme/decode.rhai", "fn decode(body) { body }");
    site.write("integrations/acme/encode.rhai", "fn encode(notice) { notice }");
    site.write("integrations/acme/README.md", "# Acme");
    site.write("integrations/README.md", "# Vendors");
    let (catalog, problems) = real(&site).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(problems, []);
    let loaded = catalog.current();
    assert!(loaded.decoders.contains_key("acme") && loaded.encoders.contains_key("acme"));
    site.write("integrations/acme/decode.rhai", "fn decode( { }");
    site.write("integrations/beta/decode.rhai", "fn decode(body) { [] }");
    let (changed, problems) = catalog.reload();
    assert!(changed && catalog.current().decoders.len() == 2);
    fatal(&problems, "integrations/acme/decode.rhai", "acme");
}

#[test]
fn a_hostile_runbook_costs_one_file_and_not_the_process() {
    let site = Site::new();
    site.write("runbooks/deep.rhai", format!("{BUS}{}1{};\n", "(".repeat(50_000), ")".repeat(50_000)));
    site.write("runbooks/latin.rhai", b"//! caf\xe9");
    let problems = real(&site).err().unwrap();
    fatal(&problems, "deep.rhai", "");
    fatal(&problems, "latin.rhai", "not UTF-8");
}
