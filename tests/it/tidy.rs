//! The laws that a compiler does not keep: layers, dead files, openings, names, bounds, generated pages.
//!
//! Invariant: a rule here names the file and the line that breaks it, and what to do instead.

mod door;
mod parsed;
mod ratchets;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Rows of the layer table, from the bottom; a module imports only from lower rows (or its own module).
const LAYERS: [&[&str]; 9] = [
    &["model", "limits", "planted"],
    &["policy", "script"],
    &["store", "world", "sim", "clock", "tls", "file", "config", "telemetry"],
    &["actions", "sources", "notifiers", "catalog", "node"],
    &["engine", "agent"],
    &["api"],
    &["server"],
    &["cli"],
    &["main"],
];

/// The folders of `crates/`. That a lower one imports nothing of a higher one is kept by their manifests.
const CRATES: [&str; 4] = ["core", "node", "runtime", "sim"];

const PURE_BANS: [&str; 9] = [
    "tokio::",
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "SystemRandom",
];

const BANNED_WORDS: [&str; 9] =
    ["manager", "handler", "helper", "util", "common", "context", "service", "processor", "base"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(folder: &str, ending: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, ending, found);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), ending, &mut found);
    found.sort();
    found
}

/// Every file of the program, whatever crate it is in.
fn sources() -> Vec<PathBuf> {
    let mut files = files_under("src", ".rs");
    files.extend(CRATES.iter().flat_map(|name| files_under(&format!("crates/{name}/src"), ".rs")));
    files
}

fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The code of a file without its items for tests, line by line with numbers from 1. Each file is parsed once for all tests.
fn code(path: &Path) -> Vec<(usize, String)> {
    static TEST_LINES: LazyLock<BTreeMap<PathBuf, Vec<RangeInclusive<usize>>>> = LazyLock::new(|| {
        let lines = |path: PathBuf| (path.clone(), parsed::test_lines(&parsed::parse(&path)));
        sources().into_iter().map(lines).collect()
    });
    let skipped = &TEST_LINES[path];
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.to_owned()));
    lines.filter(|(number, _)| !skipped.iter().any(|range| range.contains(number))).collect()
}

fn is_test_file(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests") || path.components().any(|part| part.as_os_str() == "tests")
}

/// The root of the crate that the file is in: `src`, or `crates/X/src`.
fn crate_root(path: &Path) -> PathBuf {
    path.ancestors().find(|folder| folder.ends_with("src")).expect("each source file lies below a `src`").to_owned()
}

fn top_module(path: &Path) -> String {
    let folder = crate_root(path);
    let inner = path.strip_prefix(&folder).unwrap();
    let first = inner.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    match first.trim_end_matches(".rs") {
        "lib" | "main" => first.trim_end_matches(".rs").to_owned(),
        // The simulated fleet's crate is one module.
        _ if folder == root().join("crates/sim/src") => "sim".to_owned(),
        first => first.to_owned(),
    }
}

fn row_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

fn refuse(broken: Vec<String>) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn a_module_imports_only_from_lower_rows() {
    let mut broken = Vec::new();
    for path in sources() {
        let module = top_module(&path);
        if module == "lib" || is_test_file(&path) {
            continue;
        }
        let Some(row) = row_of(&module) else {
            broken.push(format!("{}: module `{module}` is in no row of the layer table", short(&path)));
            continue;
        };
        for (number, line) in code(&path) {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for part in line.split("crate::").skip(1).chain(line.split("nightshift::").skip(1)) {
                let used: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(used_row) = row_of(&used) else { continue };
                if used != module
                    && used_row >= row
                    && !(row == 0 && used_row == 0)
                    && !same_row_allowed(&module, &used)
                {
                    broken.push(format!(
                        "{}:{number}: `{module}` (row {row}) imports `{used}` (row {used_row})",
                        short(&path)
                    ));
                }
                let row3_ban = row == 3 && (used == "store" || (used == "policy" && module != "catalog"));
                if row3_ban {
                    broken.push(format!("{}:{number}: `{module}` must not import `{used}`", short(&path)));
                }
            }
        }
    }
    refuse(broken);
}

/// Row 2 holds plain edges (a clock, settings, counters) that its clients and stores use, and the catalog reads the actions' table.
fn same_row_allowed(module: &str, used: &str) -> bool {
    matches!(
        (module, used),
        ("world" | "sim", "clock") | ("world", "config") | ("store", "clock") | ("config", "world")
    ) || matches!((module, used), ("catalog", "actions" | "sources"))
}

#[test]
fn the_core_names_no_io_no_clock_and_no_chance() {
    let mut broken = Vec::new();
    for path in sources() {
        // Which bug is planted is read from the environment, under a feature that no release has.
        let exempt = path.ends_with("core/src/planted.rs");
        if exempt || row_of(&top_module(&path)).is_none_or(|row| row > 1) || is_test_file(&path) {
            continue;
        }
        for (number, line) in code(&path) {
            if let Some(ban) = PURE_BANS.iter().find(|ban| line.contains(**ban) && !line.trim_start().starts_with("//"))
            {
                broken.push(format!("{}:{number}: the core must not name `{ban}`", short(&path)));
            }
        }
    }
    refuse(broken);
}

/// A clock that is set makes timers fire early or late wherever something reads it beside `src/clock.rs`.
#[test]
fn nothing_reads_the_wall_clock_but_the_clock() {
    let mut broken = Vec::new();
    for path in sources().into_iter().filter(|path| !path.ends_with("src/clock.rs") && !is_test_file(path)) {
        for (number, line) in code(&path) {
            let reads = ["Time::now()", "Timestamp::now()", "SystemTime::now()", "Zoned::now()"];
            if reads.iter().any(|read| line.contains(read)) && !line.trim_start().starts_with("//") {
                broken.push(format!("{}:{number}: the wall clock is read; take `Clock::now`", short(&path)));
            }
            let of_a_node = short(&path).starts_with("crates/node/") && !path.ends_with("node/clock.rs");
            if of_a_node && line.contains("RealClock") {
                broken.push(format!(
                    "{}:{number}: a node's time is `NodeClock`, which keeps to itself beside a step",
                    short(&path)
                ));
            }
            // It stands still while the machine is suspended, and the Lease does not.
            if path.ends_with("lease.rs") && line.contains("Instant") {
                broken.push(format!("{}:{number}: the age of a Lease is counted by `Clock::monotonic`", short(&path)));
            }
        }
    }
    refuse(broken);
}

#[test]
fn every_file_opens_with_what_it_is_and_an_invariant() {
    let mut broken = Vec::new();
    for path in sources().into_iter().chain(files_under("benches", ".rs")) {
        let text = fs::read_to_string(&path).unwrap();
        if !text.starts_with("//!") {
            broken.push(format!("{}: does not open with `//!`", short(&path)));
        }
        let opening: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let is_source = !path.starts_with(root().join("benches"));
        if is_source && !opening.contains("Invariant:") && !is_test_file(&path) {
            broken.push(format!("{}: its opening names no `Invariant:`", short(&path)));
        }
    }
    refuse(broken);
}

#[test]
fn every_source_file_is_part_of_the_program() {
    let files = sources();
    let mut broken = Vec::new();
    for path in &files {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let folder = path.parent().unwrap();
        if matches!(stem.as_str(), "main" | "lib") {
            continue;
        }
        let mouth = if folder == crate_root(path) { folder.join("lib.rs") } else { folder.with_extension("rs") };
        let text = fs::read_to_string(&mouth).unwrap_or_default();
        let in_list = |line: &str| line.split(' ').any(|word| word.starts_with(&format!("{stem}::")));
        let declared = text.lines().any(|line| {
            line.trim().ends_with(&format!("mod {stem};"))
                || (mouth.ends_with("src/actions.rs") && in_list(line.trim()))
        });
        if !declared {
            broken.push(format!("{}: declared by no `mod` in {}", short(path), short(&mouth)));
        }
    }
    refuse(broken);
}

/// What is true of an action stands in its declaration; whoever asks about one by name would miss the next one.
#[test]
fn no_action_is_named_outside_its_own_file() {
    let mut broken = Vec::new();
    for path in files_under("src", ".rs").into_iter().chain(files_under("crates/core/src", ".rs")) {
        if is_test_file(&path) {
            continue;
        }
        for (number, line) in code(&path).into_iter().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let is = |quote: char, name: &str| line.contains(&format!("{quote}{name}{quote}"));
            // A name of one word is also a word of other lists: there, only a comparison with an action's name counts.
            let named = |name: &str| match name.contains("::") {
                true => is('"', name) || is('\'', name),
                false => is('"', name) && (line.contains(".action ==") || line.contains(".action !=")),
            };
            for spec in
                nightshift::actions::catalog().iter().map(|action| action.spec()).filter(|spec| named(spec.name))
            {
                if path.file_stem().is_none_or(|stem| *stem != *spec.name.replace("::", "_")) {
                    let place = short(&path);
                    broken.push(format!(
                        "{place}:{number}: names `{}`; ask for what its `ActionSpec` declares",
                        spec.name
                    ));
                }
            }
        }
    }
    refuse(broken);
}

#[test]
fn no_file_or_type_is_named_by_a_word_that_says_nothing() {
    let mut broken = Vec::new();
    for path in sources() {
        let stem = path.file_stem().unwrap().to_string_lossy().to_lowercase();
        if stem.split('_').any(|part| BANNED_WORDS.contains(&part)) {
            broken.push(format!("{}: a banned word in a file name", short(&path)));
        }
        for (number, line) in code(&path) {
            let line = line.trim_start();
            let named = ["struct ", "enum ", "trait ", "type "].iter().find_map(|key| {
                let rest = line.strip_prefix("pub ").or(line.strip_prefix("pub(super) ")).unwrap_or(line);
                rest.strip_prefix(key)
            });
            let Some(rest) = named else { continue };
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
            if words(&name).iter().any(|word| BANNED_WORDS.contains(&word.as_str())) {
                broken.push(format!("{}:{number}: type `{name}` has a banned word", short(&path)));
            }
        }
    }
    refuse(broken);
}

fn words(camel: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in camel.chars() {
        if letter.is_uppercase() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(letter.to_lowercase());
        }
    }
    words
}

#[test]
fn nothing_is_unbounded_unfinished_or_unwrapped() {
    let bans = [
        ("unbounded_channel", "use a bounded channel with its size in limits.rs"),
        ("unbounded()", "use a bounded channel with its size in limits.rs"),
        ("mpsc::channel::<", "name the bound in limits.rs"),
        (".unwrap()", "return an error, or `expect` with the invariant in words"),
        ("todo!(", "finish it"),
        ("unimplemented!(", "finish it"),
        ("TODO", "finish it or write an issue"),
        ("FIXME", "finish it or write an issue"),
        ("dbg!(", "remove it"),
    ];
    let mut broken = Vec::new();
    for path in sources().into_iter().filter(|path| !is_test_file(path)) {
        for (number, line) in code(&path) {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for (ban, instead) in bans {
                if line.contains(ban) && !(ban == "mpsc::channel::<" && line.contains("limits::")) {
                    broken.push(format!("{}:{number}: `{ban}`: {instead}", short(&path)));
                }
            }
        }
    }
    refuse(broken);
}

#[test]
fn no_test_is_skipped_or_sleeps() {
    let mut broken = Vec::new();
    let files = files_under("tests", ".rs").into_iter().chain(sources());
    for path in files.filter(|path| path.file_name().is_none_or(|name| name != "tidy.rs")) {
        let text = fs::read_to_string(&path).unwrap();
        let in_tests = path.starts_with(root().join("tests"));
        for (at, line) in text.lines().enumerate() {
            if line.contains("#[ignore") {
                broken.push(format!("{}:{}: an ignored test", short(&path), at + 1));
            }
            let sleeps = line.contains("thread::sleep") || line.contains("time::sleep(");
            if in_tests && sleeps && !line.contains("// polls") {
                broken.push(format!("{}:{}: a test sleeps; wait for the condition instead", short(&path), at + 1));
            }
        }
    }
    refuse(broken);
}

#[test]
fn every_runbook_has_a_test_beside_it() {
    let runbooks = files_under("runbooks", ".rhai");
    assert!(runbooks.len() >= 4, "the shipped runbooks are missing");
    let missing: Vec<String> = runbooks
        .iter()
        .filter(|path| !path.with_extension("test.yaml").exists())
        .map(|path| format!("{}: no {} beside it", short(path), short(&path.with_extension("test.yaml"))))
        .collect();
    refuse(missing);
}

#[test]
fn every_reason_code_and_every_limit_is_used() {
    let (mut all, mut limits) = (String::new(), String::new());
    for path in sources() {
        if path.parent().is_some_and(|folder| folder.ends_with("limits")) {
            limits.push_str(&fs::read_to_string(path).unwrap());
        } else if !path.ends_with("verdict.rs") {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    assert!(!limits.is_empty(), "crates/core/src/limits/ has every bound");
    let names: BTreeSet<&str> = limits
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "))
        .filter_map(|rest| rest.split(':').next())
        .collect();
    let mut broken: Vec<String> = names
        .into_iter()
        .filter(|name| !all.contains(*name))
        .map(|name| format!("crates/core/src/limits/: `{name}` limits nothing"))
        .collect();
    for code in nightshift::model::ReasonCode::ALL {
        if !all.contains(&format!("{code:?}")) {
            broken.push(format!("crates/core/src/model/verdict.rs: no code gives the reason `{}`", code.name()));
        }
    }
    refuse(broken);
}

/// An image is built from what `COPY` names, and a file that the source includes from elsewhere would be missing there.
#[test]
fn an_image_is_built_with_every_file_that_the_source_includes() {
    let recipe = fs::read_to_string(root().join("deploy/Containerfile")).unwrap();
    let build = recipe.split("cargo build").next().unwrap();
    let copied: Vec<&str> =
        build.lines().filter_map(|line| line.strip_prefix("COPY ")).flat_map(str::split_whitespace).collect();
    let ignored = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let mut missing = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        for included in text.split("include_str!(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            let whole = path.parent().unwrap().join(included).canonicalize().unwrap();
            let inside = short(&whole);
            let top = inside.split('/').next().unwrap().to_owned();
            if !copied.contains(&top.as_str()) || !ignored.lines().any(|line| line == format!("!{top}")) {
                missing.push(format!(
                    "{} includes {inside}: `COPY {top} {top}`, and `!{top}` in .dockerignore",
                    short(&path)
                ));
            }
        }
    }
    assert!(missing.is_empty(), "deploy/Containerfile: {missing:#?}");
}

/// Words that one database alone has.
const SQLITE_WORDS: [&str; 8] =
    ["rusqlite", "json_extract", "json_each", "json_set", "json_valid", "group_concat", "rowid", "INSERT OR"];

/// Operations with statements that still use them, and in how many lines. It only gets shorter.
const STILL_SQLITE: [(&str, usize); 2] = [("begin.rs", 1), ("redact.rs", 3)];

#[test]
fn the_operations_of_the_store_name_no_database() {
    let mut broken = Vec::new();
    for path in files_under("src/store/ops", ".rs").into_iter().chain([root().join("src/store/ops.rs")]) {
        let lines: Vec<String> = code(&path)
            .into_iter()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .filter(|(_, line)| SQLITE_WORDS.iter().any(|word| line.contains(word)))
            .map(|(number, line)| format!("{}:{number}: {}", short(&path), line.trim()))
            .collect();
        let known = STILL_SQLITE.iter().find(|(name, _)| path.ends_with(name)).map_or(0, |(_, most)| *most);
        if lines.len() > known {
            broken.push(format!("{}: take the word from `Dialect`", lines.join("\n")));
        }
    }
    refuse(broken);
}

/// Methods of the store's traits that the program does not call. The conformance suite proves the stored tree by this one.
const CALLED_BY_TESTS: [&str; 1] = ["consistency"];

#[test]
fn the_traits_of_the_store_are_narrow_and_every_method_has_a_doc_and_a_caller() {
    let callers: String = files_under("src", ".rs")
        .into_iter()
        .filter(|path| !path.starts_with(root().join("src/store")) && !is_test_file(path))
        .flat_map(|path| code(&path))
        .map(|(_, line)| line + "\n")
        .collect();
    let mut broken = Vec::new();
    let files = files_under("src/store/traits", ".rs");
    assert_eq!(files.len(), 7, "intake, run journal, outbox, decisions, ledger, registry, views");
    for path in files {
        let lines = code(&path);
        let methods: Vec<(usize, String)> = lines
            .iter()
            .enumerate()
            .filter_map(|(at, (_, line))| {
                let rest = line.trim_start().strip_prefix("async fn ")?;
                Some((at, rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()))
            })
            .collect();
        if methods.is_empty() || methods.len() > 20 {
            broken.push(format!("{}: {} methods; a trait of the store has 20 at most", short(&path), methods.len()));
        }
        for (at, name) in methods {
            if !lines[at - 1].1.trim_start().starts_with("///") {
                broken.push(format!("{}: `{name}` has no doc: what it returns, when it fails", short(&path)));
            }
            if !callers.contains(&format!(".{name}(")) && !CALLED_BY_TESTS.contains(&name.as_str()) {
                broken.push(format!("{}: `{name}` has no caller", short(&path)));
            }
        }
    }
    refuse(broken);
}
