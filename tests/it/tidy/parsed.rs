//! Source files as syntax trees, without the items that exist in tests alone.
//!
//! Invariant: only an item that no build without tests has is left out, so that nothing after it goes unchecked.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Meta, Token};

/// Parses a file of the program.
pub fn parse(path: &Path) -> syn::File {
    let text = std::fs::read_to_string(path).unwrap();
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", super::short(path)))
}

/// Whether an item with these attributes exists in tests alone: `#[test]`, `#[tokio::test]`, `#[cfg(test)]`,
/// `#[cfg(all(test, …))]`.
pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        let is_test = path.segments.last().is_some_and(|segment| segment.ident == "test");
        is_test || path.is_ident("cfg") && attribute.parse_args::<Meta>().is_ok_and(|meta| needs_tests(&meta))
    })
}

fn needs_tests(condition: &Meta) -> bool {
    let parts = |list: &syn::MetaList| list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
    match condition {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => parts(list).is_ok_and(|all| all.iter().any(needs_tests)),
        Meta::List(list) if list.path.is_ident("any") => parts(list).is_ok_and(|any| any.iter().all(needs_tests)),
        _ => false,
    }
}

/// The lines of the items that exist in tests alone, attributes included; counted from 1.
pub fn test_lines(file: &syn::File) -> Vec<RangeInclusive<usize>> {
    let mut found = TestItems::default();
    found.visit_file(file);
    found.lines
}

/// The tokens of a file without its items for tests, groups opened: the content of macros such as `html!` counts, too.
pub fn tokens(file: &syn::File) -> Vec<TokenTree> {
    fn flatten(stream: TokenStream, into: &mut Vec<TokenTree>) {
        for token in stream {
            if let TokenTree::Group(group) = &token {
                into.push(token.clone());
                flatten(group.stream(), into);
            } else {
                into.push(token);
            }
        }
    }
    let skipped = test_lines(file);
    let mut all = Vec::new();
    flatten(file.to_token_stream(), &mut all);
    all.retain(|token| !skipped.iter().any(|range| range.contains(&token.span().start().line)));
    all
}

/// Modules that a file declares for tests alone (`#[cfg(test)] mod docs;`), as the paths of their files.
pub fn test_modules(path: &Path, file: &syn::File) -> BTreeSet<PathBuf> {
    let is_root = path.file_stem().is_some_and(|stem| stem == "lib" || stem == "main");
    let folder = if is_root { path.parent().unwrap().to_owned() } else { path.with_extension("") };
    let modules = file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) if module.content.is_none() && is_for_tests(&module.attrs) => Some(module),
        _ => None,
    });
    modules.map(|module| folder.join(format!("{}.rs", module.ident))).collect()
}

#[derive(Default)]
struct TestItems {
    lines: Vec<RangeInclusive<usize>>,
}

impl TestItems {
    /// Takes an item whose attributes make it one for tests; returns whether it did.
    fn takes(&mut self, attributes: &[Attribute], item: &impl Spanned) -> bool {
        let is_one = is_for_tests(attributes);
        if is_one {
            let first = attributes.iter().map(|attribute| attribute.span().start().line);
            let start = first.chain([item.span().start().line]).min().unwrap_or(1);
            self.lines.push(start..=item.span().end().line);
        }
        is_one
    }
}

impl<'f> Visit<'f> for TestItems {
    fn visit_item(&mut self, item: &'f syn::Item) {
        if !self.takes(attributes(item), item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'f syn::ImplItemFn) {
        if !self.takes(&item.attrs, item) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'f syn::TraitItemFn) {
        if !self.takes(&item.attrs, item) {
            visit::visit_trait_item_fn(self, item);
        }
    }

    fn visit_field(&mut self, field: &'f syn::Field) {
        self.takes(&field.attrs, field);
    }

    fn visit_variant(&mut self, variant: &'f syn::Variant) {
        if !self.takes(&variant.attrs, variant) {
            visit::visit_variant(self, variant);
        }
    }
}

/// The attributes of an item; none of one that has none.
pub fn attributes(item: &syn::Item) -> &[Attribute] {
    use syn::Item::*;
    match item {
        Const(item) => &item.attrs,
        Enum(item) => &item.attrs,
        ExternCrate(item) => &item.attrs,
        Fn(item) => &item.attrs,
        ForeignMod(item) => &item.attrs,
        Impl(item) => &item.attrs,
        Macro(item) => &item.attrs,
        Mod(item) => &item.attrs,
        Static(item) => &item.attrs,
        Struct(item) => &item.attrs,
        Trait(item) => &item.attrs,
        TraitAlias(item) => &item.attrs,
        Type(item) => &item.attrs,
        Union(item) => &item.attrs,
        Use(item) => &item.attrs,
        _ => &[],
    }
}

#[test]
fn only_items_for_tests_are_left_out() {
    let text = "#[cfg(test)]\nuse a::B;\nfn kept() {}\n#[cfg(all(test, unix))]\nmod tests {\n    fn x() {}\n}\n\
                #[cfg(any(test, feature = \"f\"))]\nfn kept_too() {}\nimpl S {\n    #[cfg(test)]\n    fn y() {}\n    fn z() {}\n}\n";
    let lines = test_lines(&syn::parse_file(text).unwrap());
    assert_eq!(lines, [1..=2, 4..=7, 11..=12]);
}
