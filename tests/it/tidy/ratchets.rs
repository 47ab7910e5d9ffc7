//! Ratchets: measures of the source that may get better and never worse.
//!
//! Invariant: a number here is today's measure. A change that makes one worse fails; one that makes it better by some
//! steps fails, too, and lowers the number.

use super::parsed::{self, is_for_tests};
use super::{is_test_file, refuse, root, short, sources};
use proc_macro2::{Delimiter, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Of a hundred types, those whose name is one word: terms of the field that no second type could mean.
const ONE_WORD_MOST: usize = 9;
/// The word "what" in 1,000 words of comment: a clause with it stands in the place of a noun.
const WHAT_MOST: f64 = 5.0;
/// Lines of one function.
const FUNCTION_LINES: usize = 80;
/// Functions that are longer today, by file and name.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];
/// Public methods without a caller in the program today, by type or trait and name: both are for tests.
const UNCALLED: &[(&str, &str)] = &[("Metrics", "render"), ("Ledger", "consistency")];

/// The measured facts of one file. Plain values, so that all tests share one reading of the source.
struct Measured {
    path: PathBuf,
    /// Types with their lines.
    types: Vec<(String, usize)>,
    /// Functions with their first lines and their lengths.
    functions: Vec<(String, usize, usize)>,
    calls: BTreeSet<Call>,
    /// The public methods of `Metrics`, and of each public trait.
    methods: Vec<(String, Vec<String>)>,
}

/// The files of the program that are not for tests alone.
fn program() -> &'static [Measured] {
    static PROGRAM: LazyLock<Vec<Measured>> = LazyLock::new(|| {
        let (mut files, mut for_tests) = (Vec::new(), BTreeSet::new());
        for path in sources().into_iter().filter(|path| !is_test_file(path)) {
            let file = parsed::parse(&path);
            for_tests.extend(parsed::test_modules(&path, &file));
            files.push(measure(path, &file));
        }
        files.retain(|file| !for_tests.contains(&file.path));
        files
    });
    &PROGRAM
}

fn measure(path: PathBuf, file: &syn::File) -> Measured {
    let (mut types, mut functions) = (TypeNames::default(), Functions::default());
    types.visit_file(file);
    functions.visit_file(file);
    let mut methods = public_traits(file);
    methods.push(("Metrics".to_owned(), public_methods(file, "Metrics")));
    Measured { path, types: types.found, functions: functions.found, calls: calls(file), methods }
}

#[test]
fn no_two_types_share_a_name_and_few_names_are_one_word() {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for file in program() {
        for (name, line) in &file.types {
            places.entry(name).or_default().push(format!("{}:{line}", short(&file.path)));
        }
    }
    let types: usize = places.values().map(Vec::len).sum();
    let words = |name: &&&str| name.chars().filter(char::is_ascii_uppercase).count() <= 1;
    let one_word: Vec<&&str> = places.keys().filter(words).collect();
    let share = one_word.len() * 100 / types;
    assert!(
        share <= ONE_WORD_MOST,
        "{one_word:?}\n{share} of a hundred type names are one word, at most {ONE_WORD_MOST}: say whose or of what kind"
    );
    places.retain(|_, places| places.len() > 1);
    let shared: Vec<String> = places.iter().map(|(name, places)| format!("{name}: {}", places.join(", "))).collect();
    assert!(shared.is_empty(), "\n{}\ntwo types share a name: give the new one another\n", shared.join("\n"));
}

#[test]
fn comments_describe_with_nouns() {
    let (mut words, mut found) = (0, Vec::new());
    for path in sources().into_iter().filter(|path| !is_test_file(path)) {
        let text = std::fs::read_to_string(&path).unwrap();
        for (at, line) in text.lines().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
            let of_line =
                comment.split(|c: char| !c.is_ascii_alphabetic() && c != '\'').filter(|word| !word.is_empty());
            for word in of_line {
                words += 1;
                if word.eq_ignore_ascii_case("what") {
                    found.push(format!("{}:{}: {}", short(&path), at + 1, line.trim()));
                }
            }
        }
    }
    let share = 1_000.0 * found.len() as f64 / f64::from(words);
    let list = found.join("\n");
    assert!(
        share <= WHAT_MOST,
        "\n{list}\n{share:.1} times \"what\" in 1,000 words of comment, at most {WHAT_MOST}: name the thing by a noun\n"
    );
}

#[test]
fn no_function_is_longer_than_a_screen_or_two() {
    let listed: BTreeSet<(String, String)> =
        LONG_FUNCTIONS.iter().map(|(file, name)| ((*file).to_owned(), (*name).to_owned())).collect();
    let (mut broken, mut long) = (Vec::new(), BTreeSet::new());
    for file in program() {
        for (name, line, length) in file.functions.iter().filter(|(_, _, length)| *length > FUNCTION_LINES) {
            let known = (short(&file.path), name.clone());
            if !listed.contains(&known) {
                broken.push(format!(
                    "{}:{line}: `{name}` has {length} lines, at most {FUNCTION_LINES}: give its parts names",
                    known.0
                ));
            }
            long.insert(known);
        }
    }
    let shorter = listed.difference(&long);
    broken.extend(shorter.map(|(file, name)| {
        format!("{file}: `{name}` has at most {FUNCTION_LINES} lines now: take it out of LONG_FUNCTIONS in {}", file!())
    }));
    refuse(broken);
}

#[test]
fn every_method_of_the_metrics_and_the_store_has_a_caller() {
    let store = root().join("src/store");
    let is_of_store = |path: &Path| path.starts_with(&store) || path == store.with_extension("rs");
    let mut methods: Vec<(&String, &Path, &Vec<String>)> = Vec::new();
    for file in program() {
        let is_seam = is_of_store(&file.path) && !file.path.starts_with(store.join("ledger"));
        let is_metrics = file.path == root().join("src/telemetry.rs");
        let of_file = file.methods.iter().filter(|(of, _)| if of == "Metrics" { is_metrics } else { is_seam });
        methods.extend(of_file.map(|(of, names)| (of, file.path.as_path(), names)));
    }
    let counted = |is_metrics: bool| -> usize {
        methods.iter().filter(|(of, ..)| (*of == "Metrics") == is_metrics).map(|(.., names)| names.len()).sum()
    };
    assert!(counted(true) > 20, "src/telemetry.rs has the methods of `Metrics`");
    assert!(counted(false) > 20, "src/store has the traits of the store");
    let listed: BTreeSet<(String, String)> =
        UNCALLED.iter().map(|(of, name)| ((*of).to_owned(), (*name).to_owned())).collect();
    let (mut broken, mut uncalled) = (Vec::new(), BTreeSet::new());
    for (of, own, names) in methods {
        // The store's own files implement its traits, and call each other's helpers by the same names.
        let is_elsewhere = |path: &Path| if of == "Metrics" { path != own } else { !is_of_store(path) };
        // Of the store the receivers have many names, so there the method's name alone counts.
        let is_receiver = |word: &str| of != "Metrics" || word == "metrics" || word == "Metrics";
        for name in names {
            let is_call = |call: &Call| call.name == *name && is_receiver(&call.on);
            if program().iter().any(|file| is_elsewhere(&file.path) && file.calls.iter().any(is_call)) {
                continue;
            }
            uncalled.insert((of.clone(), name.clone()));
            if !listed.contains(&(of.clone(), name.clone())) {
                broken
                    .push(format!("{}: `{of}::{name}` has no caller in the program: call it or delete it", short(own)));
            }
        }
    }
    broken.extend(listed.difference(&uncalled).map(|(of, name)| {
        format!("`{of}::{name}` has a caller now, or is gone: take it out of UNCALLED in {}", file!())
    }));
    refuse(broken);
}

/// A call of a method, or a path to one: `metrics.step(…)`, `self.metrics().step(…)`, `Metrics::new`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    /// The last word before the dot or the `::`; empty behind an expression without one.
    on: String,
    name: String,
}

/// The calls of methods in a file, in macros as well.
fn calls(file: &syn::File) -> BTreeSet<Call> {
    let tokens = parsed::tokens(file);
    let is = |at: Option<usize>, mark: char| {
        let token = at.and_then(|at| tokens.get(at));
        matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
    };
    let word = |at: Option<usize>| match at.and_then(|at| tokens.get(at)) {
        Some(TokenTree::Ident(word)) => word.to_string(),
        _ => String::new(),
    };
    let in_parentheses = |at: Option<usize>| match at.and_then(|at| tokens.get(at)) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => Some(group),
        _ => None,
    };
    let mut calls = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Ident(name) = token else { continue };
        let before = |count: usize| at.checked_sub(count);
        let on = if is(before(1), ':') && is(before(2), ':') {
            word(before(3))
        } else if is(before(1), '.') && (in_parentheses(Some(at + 1)).is_some() || is(Some(at + 1), ':')) {
            // `metrics().step(…)`: the empty group stands between the word and the dot.
            let has_empty_group = in_parentheses(before(2)).is_some_and(|group| group.stream().is_empty());
            if has_empty_group { word(before(3)) } else { word(before(2)) }
        } else {
            continue;
        };
        calls.insert(Call { on, name: name.to_string() });
    }
    calls
}

/// The public methods of a type, from its own `impl` blocks.
fn public_methods(file: &syn::File, of: &str) -> Vec<String> {
    let blocks = file.items.iter().filter_map(|item| match item {
        syn::Item::Impl(block) if block.trait_.is_none() && !is_for_tests(&block.attrs) => Some(block),
        _ => None,
    });
    let of_type = blocks.filter(|block| matches!(&*block.self_ty, syn::Type::Path(path) if path.path.is_ident(of)));
    let functions = of_type.flat_map(|block| &block.items).filter_map(|item| match item {
        syn::ImplItem::Fn(method) if !is_for_tests(&method.attrs) => Some(method),
        _ => None,
    });
    let public = functions.filter(|method| matches!(method.vis, syn::Visibility::Public(_)));
    public.map(|method| method.sig.ident.to_string()).collect()
}

/// The public traits of a file with the names of their methods.
fn public_traits(file: &syn::File) -> Vec<(String, Vec<String>)> {
    let traits = file.items.iter().filter_map(|item| match item {
        syn::Item::Trait(one) if matches!(one.vis, syn::Visibility::Public(_)) => Some(one),
        _ => None,
    });
    traits
        .map(|one| {
            let methods = one.items.iter().filter_map(|item| match item {
                syn::TraitItem::Fn(method) => Some(method.sig.ident.to_string()),
                _ => None,
            });
            (one.ident.to_string(), methods.collect())
        })
        .collect()
}

/// Structs, enums, unions, traits and aliases, with their lines.
#[derive(Default)]
struct TypeNames {
    found: Vec<(String, usize)>,
}

impl<'f> Visit<'f> for TypeNames {
    fn visit_item(&mut self, item: &'f syn::Item) {
        if is_for_tests(parsed::attributes(item)) {
            return;
        }
        let name = match item {
            syn::Item::Struct(item) => Some(&item.ident),
            syn::Item::Enum(item) => Some(&item.ident),
            syn::Item::Union(item) => Some(&item.ident),
            syn::Item::Trait(item) => Some(&item.ident),
            syn::Item::Type(item) => Some(&item.ident),
            _ => None,
        };
        self.found.extend(name.map(|name| (name.to_string(), name.span().start().line)));
        visit::visit_item(self, item);
    }
}

/// Functions with a body: name, first line, and length from the signature to the closing brace.
#[derive(Default)]
struct Functions {
    found: Vec<(String, usize, usize)>,
}

impl Functions {
    fn add(&mut self, name: &syn::Signature, block: &syn::Block) {
        let (first, last) = (name.span().start().line, block.span().end().line);
        self.found.push((name.ident.to_string(), first, last + 1 - first));
    }
}

impl<'f> Visit<'f> for Functions {
    fn visit_item(&mut self, item: &'f syn::Item) {
        if !is_for_tests(parsed::attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, function: &'f syn::ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'f syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            self.add(&function.sig, &function.block);
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_trait_item_fn(&mut self, function: &'f syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.add(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}
