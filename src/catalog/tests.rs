//! Tests of the catalog: last good per file, what is refused, and that a change is noticed.
//!
//! Invariant: after any sequence of edits what is current is whole.

mod runbooks;
mod shipped;

use super::*;
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["runbooks", "rules", "integrations"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        Site { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn folders(&self) -> CatalogFolders {
        CatalogFolders {
            runbooks: self.path("runbooks"),
            rules: self.path("rules"),
            integrations: self.path("integrations"),
        }
    }

    fn load(&self) -> Result<(Catalog, Vec<CatalogProblem>), Vec<CatalogProblem>> {
        Catalog::load_with(self.folders(), HostApi { specs: Vec::new() })
    }

    fn good(&self) -> Catalog {
        let (catalog, problems) = self.load().unwrap_or_else(|problems| panic!("{problems:?}"));
        assert_eq!(problems, []);
        catalog
    }
}

fn tells(names: &[&str]) -> String {
    let rules = names.iter().map(|name| format!("  - name: {name}\n    when: [alertname={name}]\n    tell: [log]\n"));
    format!("rules:\n{}", rules.collect::<String>())
}

fn names(catalog: &Catalog) -> String {
    catalog.current().rules.rules().map(|rule| rule.name.as_str()).collect::<Vec<_>>().join(" ")
}

fn fatal(problems: &[CatalogProblem], file: &str, words: &str) {
    let hit = |problem: &CatalogProblem| problem.fatal && problem.file.contains(file) && problem.text.contains(words);
    assert!(problems.iter().any(hit), "{file} / {words} not in {problems:#?}");
}

#[test]
fn rules_of_all_files_are_read_in_order_and_other_files_are_not() {
    let site = Site::new();
    site.write("rules/b.yaml", tells(&["c"]));
    site.write("rules/a.yaml", tells(&["b", "a"]));
    site.write("rules/a.test.yaml", "not: rules");
    site.write("rules/.hidden.yaml", "not: rules");
    site.write("rules/readme.md", "# hello");
    site.write("rules/prometheus/alerts.yaml", "groups: []");
    let catalog = site.good();
    assert_eq!(names(&catalog), "b a c");
    assert_eq!(catalog.current().hash.len(), 64);
    assert_eq!(catalog.reload(), (false, vec![]));
}

#[test]
fn a_first_load_with_a_bad_file_is_an_error_that_shows_the_line() {
    let site = Site::new();
    site.write("rules/a.yaml", "rules:\n  - name: x\n    wenn: [a=b]\n");
    let problems = site.load().err().unwrap();
    fatal(&problems, "rules/a.yaml", "wenn");
    assert!(problems[0].text.contains("a.yaml:3:5"), "{}", problems[0].text);
}

#[test]
fn a_bad_rule_is_named_with_its_file_and_line() {
    let site = Site::new();
    site.write("rules/a.yaml", format!("{}  - name: y\n    when: ['a=~\"(\"']\n    tell: [log]\n", tells(&["x"])));
    fatal(&site.load().err().unwrap(), "rules/a.yaml:5", "rule `y`, `when`: bad regular expression");
}

#[test]
fn a_bad_edit_keeps_the_last_good_file_and_takes_the_others() {
    let site = Site::new();
    site.write("rules/a.yaml", tells(&["a"]));
    site.write("rules/b.yaml", tells(&["b"]));
    let catalog = site.good();
    site.write("rules/a.yaml", "rules: [");
    site.write("rules/b.yaml", tells(&["b2"]));
    let (changed, problems) = catalog.reload();
    assert!(changed);
    fatal(&problems, "rules/a.yaml", "");
    assert_eq!(names(&catalog), "a b2");
    // It parses but says nonsense: the same.
    site.write("rules/a.yaml", "rules:\n  - name: a3\n    when: [a=b]\n");
    let (changed, problems) = catalog.reload();
    assert!(!changed);
    fatal(&problems, "rules/a.yaml:2", "neither runs a runbook nor notifies a channel");
    assert_eq!(names(&catalog), "a b2");
    site.write("rules/a.yaml", tells(&["a4"]));
    assert_eq!(catalog.reload(), (true, vec![]));
    assert_eq!(names(&catalog), "a4 b2");
}

#[test]
fn a_sites_table_of_gpu_faults_lies_over_the_shipped_one_and_a_bad_one_keeps_the_last() {
    let site = Site::new();
    site.write("rules/a.yaml", tells(&["GpuXid"]));
    let catalog = site.good();
    let action = |catalog: &Catalog, xid: &str| {
        let mut event = shipped::event([("alertname", "GpuXid"), ("xid", xid)].into_iter().collect());
        catalog.current().rules.judge(&mut event);
        event.labels.get("action").to_owned()
    };
    assert_eq!((action(&catalog, "109"), action(&catalog, "300")), ("reset".to_owned(), "tell".to_owned()));
    site.write("rules/xid.yaml", "xid: {109: {action: tell}, 300: {severity: error, action: support}}");
    site.write("rules/xid.site.yaml", "xid: {109: {action: drain}}");
    assert_eq!(catalog.reload(), (true, vec![]));
    assert_eq!((action(&catalog, "109"), action(&catalog, "300")), ("drain".to_owned(), "support".to_owned()));
    assert_eq!(names(&catalog), "GpuXid");
    site.write("rules/xid.site.yaml", "xid: {109: {akcion: none}}");
    let (changed, problems) = catalog.reload();
    assert!(!changed);
    fatal(&problems, "rules/xid.site.yaml", "akcion");
    assert_eq!(action(&catalog, "109"), "drain");
    fs::remove_file(site.path("rules/xid.site.yaml")).unwrap();
    assert_eq!(catalog.reload(), (true, vec![]));
    assert_eq!(action(&catalog, "109"), "tell");
}

#[test]
fn a_name_used_in_two_files_holds_the_newcomer_back() {
    let site = Site::new();
    site.write("rules/a.yaml", tells(&["a"]));
    let catalog = site.good();
    site.write("rules/b.yaml", tells(&["a", "b"]));
    let (changed, problems) = catalog.reload();
    assert!(!changed);
    fatal(&problems, "rules/b.yaml", "used twice");
    assert_eq!(names(&catalog), "a");
}

#[test]
fn a_removed_file_takes_its_rules_with_it_but_a_lost_folder_does_not() {
    let site = Site::new();
    site.write("rules/a.yaml", tells(&["a"]));
    site.write("rules/b.yaml", tells(&["b"]));
    let catalog = site.good();
    fs::remove_file(site.path("rules/b.yaml")).unwrap();
    assert_eq!(catalog.reload(), (true, vec![]));
    assert_eq!(names(&catalog), "a");
    fs::rename(site.path("rules"), site.path("elsewhere")).unwrap();
    let (changed, problems) = catalog.reload();
    assert!(!changed && problems[0].text.contains("does not exist"), "{problems:?}");
    assert_eq!(names(&catalog), "a");
}

#[test]
fn links_out_of_the_folder_big_files_and_other_encodings_are_refused_in_words() {
    let site = Site::new();
    site.write("secret.yaml", tells(&["secret"]));
    std::os::unix::fs::symlink(site.path("secret.yaml"), site.path("rules/link.yaml")).unwrap();
    site.write("rules/big.yaml", vec![b'#'; crate::limits::RULE_FILE_BYTES + 1]);
    site.write("rules/latin.yaml", b"rules: [] # caf\xe9");
    site.write("rules/A b.yaml", tells(&["x"]));
    fs::create_dir(site.path("rules/folder.yaml")).unwrap();
    let problems = site.load().err().unwrap();
    fatal(&problems, "link.yaml", "leads out of its folder");
    fatal(&problems, "big.yaml", "larger than 1024 KiB");
    fatal(&problems, "latin.yaml", "not UTF-8: byte 15");
    fatal(&problems, "A b.yaml", "rename it");
    fatal(&problems, "folder.yaml", "not a regular file");
}

#[test]
fn a_config_map_is_read_through_its_links_and_its_swap_is_seen() {
    let site = Site::new();
    let mount = |version: &str, rule: &str| {
        site.write(&format!("rules/..{version}/a.yaml"), tells(&[rule]));
        let link = site.path("rules/..data_tmp");
        std::os::unix::fs::symlink(format!("..{version}"), &link).unwrap();
        fs::rename(link, site.path("rules/..data")).unwrap();
    };
    mount("1", "one");
    std::os::unix::fs::symlink("..data/a.yaml", site.path("rules/a.yaml")).unwrap();
    let catalog = site.good();
    assert_eq!(names(&catalog), "one");
    let (changes, _watch) = watched(&site);
    mount("2", "two");
    changes.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(catalog.reload(), (true, vec![]));
    assert_eq!(names(&catalog), "two");
}

#[test]
fn a_yaml_bomb_is_refused() {
    let site = Site::new();
    let mut bomb = "rules:\n  - name: x\n    when: [a=b]\n    run: y\n    with:\n".to_owned();
    bomb += "      a: &a [x,x,x,x,x,x,x,x,x]\n";
    for (one, other) in ["a", "b", "c", "d", "e", "f", "g", "h"].iter().zip(["b", "c", "d", "e", "f", "g", "h", "i"]) {
        bomb += &format!("      {other}: &{other} [{}]\n", vec![format!("*{one}"); 9].join(","));
    }
    site.write("rules/a.yaml", bomb);
    fatal(&site.load().err().unwrap(), "a.yaml", "budget breached");
}

#[test]
fn a_deep_file_is_refused_and_not_a_stack_overflow() {
    let site = Site::new();
    site.write("rules/flow.yaml", format!("rules: {}", "[".repeat(100_000)));
    site.write("rules/block.yaml", format!("rules:\n  {}x", "- ".repeat(100_000)));
    let problems = site.load().err().unwrap();
    fatal(&problems, "flow.yaml", "");
    fatal(&problems, "block.yaml", "");
    assert!(problems.iter().all(|problem| problem.text.len() < 10_000), "an error repeats only a little of the file");
}

/// Watches a site, and waits for the call at the start.
fn watched(site: &Site) -> (mpsc::Receiver<()>, FolderWatch) {
    let (send, changes) = mpsc::sync_channel(100);
    let on_change = move || {
        let _ = send.try_send(());
    };
    let watch = watch(site.folders(), on_change).unwrap();
    changes.recv_timeout(Duration::from_secs(20)).unwrap();
    (changes, watch)
}

#[test]
fn a_save_by_renaming_is_noticed_and_reading_is_not() {
    let site = Site::new();
    site.write("rules/a.yaml", tells(&["a"]));
    let catalog = site.good();
    let (changes, watch) = watched(&site);
    assert_eq!(catalog.reload(), (false, vec![]));
    site.write("rules/.a.yaml.swp", tells(&["b"]));
    fs::rename(site.path("rules/.a.yaml.swp"), site.path("rules/a.yaml")).unwrap();
    changes.recv_timeout(Duration::from_secs(20)).unwrap();
    catalog.reload();
    assert_eq!(names(&catalog), "b");
    // A change that is noticed comes after everything before it, so the reads above were no changes.
    site.write("acme/decode.rhai", "fn decode(x) { x }");
    fs::rename(site.path("acme"), site.path("integrations/acme")).unwrap();
    changes.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(changes.try_recv().is_err());
    drop(watch);
    assert!(matches!(changes.recv_timeout(Duration::from_secs(20)), Err(mpsc::RecvTimeoutError::Disconnected)));
}

#[test]
fn a_folder_in_place_of_another_is_watched_in_its_turn() {
    let site = Site::new();
    site.write("rules/a.yaml", tells(&["a"]));
    let (changes, _watch) = watched(&site);
    site.write("next/a.yaml", tells(&["b"]));
    let exchange = |from: &Path, to: &Path| fs::rename(from, to).unwrap();
    exchange(&site.path("rules"), &site.path("old"));
    exchange(&site.path("next"), &site.path("rules"));
    changes.recv_timeout(Duration::from_secs(60)).unwrap();
    site.write("rules/a.yaml", tells(&["c"]));
    changes.recv_timeout(Duration::from_secs(60)).unwrap();
}
