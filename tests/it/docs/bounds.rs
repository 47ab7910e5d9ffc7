//! `docs/limits.md`: every constant of `crates/core/src/limits`, with its value and its reason.
//!
//! Invariant: the page comes from the source's syntax; a value that this file cannot write in words fails here.

use std::fmt::Write as _;
use std::path::Path;
use syn::{BinOp, Expr, Lit, Meta};

const HEAD: &str = "\
# Limits

Made from `crates/core/src/limits/`; a test fails when it is out of date. Every bound of the program, with its reason. A limit
that users can set has its key on [configuration.md](configuration.md); the value here is then the default. All others are fixed:
to change one is a change of the program.

";

pub fn page(root: &Path) -> String {
    let mut files: Vec<_> = std::fs::read_dir(root.join("crates/core/src/limits"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    files.sort();
    let mut page = HEAD.to_owned();
    for path in files {
        let file = syn::parse_file(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let about = docs(&file.attrs);
        let title =
            about.split(". ").next().unwrap_or_default().trim_end_matches('.').trim_end_matches(": their bounds");
        let _ = write!(page, "## {title}\n\n| limit | value | meaning |\n|---|---|---|\n");
        for item in &file.items {
            let syn::Item::Const(constant) = item else { continue };
            let value = value(&constant.expr)
                .unwrap_or_else(|| panic!("{}: {}: a kind of value that is new", path.display(), constant.ident));
            let bytes = constant.ident.to_string().contains("BYTES");
            let text = value.text(bytes);
            let _ = writeln!(page, "| `{}` | {text} | {} |", constant.ident, docs(&constant.attrs).replace('|', "\\|"));
        }
        page.push('\n');
    }
    page.trim_end().to_owned() + "\n"
}

/// A doc comment on one line.
fn docs(attributes: &[syn::Attribute]) -> String {
    let lines = attributes.iter().filter(|attribute| attribute.path().is_ident("doc")).filter_map(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else { return None };
        let Expr::Lit(text) = &pair.value else { return None };
        let Lit::Str(text) = &text.lit else { return None };
        Some(text.value())
    });
    lines.collect::<Vec<_>>().join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
}

enum Bound {
    Number(u128),
    Fraction(f64),
    Milliseconds(u128),
    Text(String),
}

impl Bound {
    fn text(&self, bytes: bool) -> String {
        match self {
            Bound::Number(number) if bytes => size(*number),
            Bound::Number(number) => grouped(*number),
            Bound::Fraction(number) => number.to_string(),
            Bound::Milliseconds(number) => time(*number),
            Bound::Text(text) => text.clone(),
        }
    }
}

/// Evaluates an expression as the sources write limits: literals, products, and constructors of times.
fn value(expr: &Expr) -> Option<Bound> {
    match expr {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(number) => number.base10_parse().ok().map(Bound::Number),
            Lit::Float(number) => number.base10_parse().ok().map(Bound::Fraction),
            Lit::Str(text) => Some(Bound::Text(format!("`{}`", text.value()))),
            _ => None,
        },
        Expr::Binary(product) => match (value(&product.left)?, &product.op, value(&product.right)?) {
            (Bound::Number(left), BinOp::Mul(_), Bound::Number(right)) => Some(Bound::Number(left * right)),
            (left, BinOp::Mul(_), right) => Some(Bound::Text(format!("{} × {}", left.text(false), right.text(false)))),
            _ => None,
        },
        Expr::Call(call) => {
            let name = path(&call.func)?;
            let argument = value(call.args.first()?)?;
            let scale = match (name.as_str(), &argument) {
                ("Duration::from_secs" | "Span::seconds", Bound::Number(_)) => 1_000,
                ("Duration::from_millis", Bound::Number(_)) => 1,
                ("Span::minutes", Bound::Number(_)) => 60_000,
                ("Span", _) => return Some(argument),
                _ => return None,
            };
            let Bound::Number(number) = argument else { return None };
            Some(Bound::Milliseconds(number * scale))
        }
        // Another limit, by its name.
        Expr::Path(_) => path(expr).map(|name| Bound::Text(format!("`{}`", name.trim_start_matches("super::")))),
        Expr::Reference(inner) => value(&inner.expr),
        Expr::Array(items) => {
            let items: Option<Vec<String>> =
                items.elems.iter().map(|item| value(item).map(|value| value.text(false))).collect();
            items.map(|items| Bound::Text(items.join(", ")))
        }
        Expr::Cast(inner) => value(&inner.expr),
        _ => None,
    }
}

fn path(expr: &Expr) -> Option<String> {
    let Expr::Path(path) = expr else { return None };
    let parts: Vec<String> = path.path.segments.iter().map(|part| part.ident.to_string()).collect();
    let from = parts.iter().rposition(|part| part == "Duration" || part == "Span").unwrap_or_default();
    Some(parts[from..].join("::"))
}

fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn size(bytes: u128) -> String {
    for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{} {unit}", grouped(bytes / factor));
        }
    }
    format!("{} bytes", grouped(bytes))
}

fn time(milliseconds: u128) -> String {
    for (unit, factor) in [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)] {
        // Ninety minutes are not one and a half hours on a page.
        if milliseconds >= factor && milliseconds.is_multiple_of(factor) {
            return format!("{} {unit}", grouped(milliseconds / factor));
        }
    }
    format!("{milliseconds} ms")
}
