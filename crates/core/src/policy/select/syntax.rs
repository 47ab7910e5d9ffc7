//! The syntax of a value of each parameter type. Whether the object exists is checked against the world later.
//!
//! Invariant: a value that passes contains no character with a special meaning to its receiver.

use crate::limits;
use crate::model::{ParamType, Span};
use regex::Regex;
use serde_json::Value;

/// The value in its canonical form, or why it is none; the words continue a sentence: "…, which is not the name of …".
pub(super) fn check(ty: ParamType, pattern: Option<&Regex>, value: &Value) -> Result<Value, String> {
    match ty {
        ParamType::Any => Ok(value.clone()),
        ParamType::Int => whole(value),
        ParamType::Float => float(value),
        ParamType::Bool => boolean(value),
        // An index is written as a number in YAML and on the command line; so may a short name be.
        ParamType::Gpu | ParamType::Node | ParamType::Namespace | ParamType::Model if value.is_u64() => {
            named(ty, pattern, &value.to_string())
        }
        _ => {
            let text = value.as_str().ok_or_else(|| format!("is not a text; a {} is written in quotes", ty.name()))?;
            named(ty, pattern, text)
        }
    }
}

/// A value as a reason repeats it: quoted, escaped, short.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(limits::QUOTE_CHARS) {
        None => format!("{text:?}"),
        Some((at, _)) => format!("{:?}…", &text[..at]),
    }
}

fn named(ty: ParamType, pattern: Option<&Regex>, text: &str) -> Result<Value, String> {
    let good = match ty {
        ParamType::Node => is_dns_name(text),
        ParamType::Namespace => is_dns_label(text),
        ParamType::Pod | ParamType::Workload => {
            text.split_once('/').is_some_and(|(namespace, name)| is_dns_label(namespace) && is_dns_name(name))
        }
        ParamType::Gpu => is_gpu(text),
        ParamType::Model => is_model(text),
        ParamType::Duration => {
            return text
                .parse::<Span>()
                .map(|span| Value::from(span.to_string()))
                .map_err(|_| "is not a length of time; write a number and a unit, as in `30s` or `1h 30m`".to_owned());
        }
        _ => return string(pattern, text),
    };
    if good { Ok(Value::from(text)) } else { Err(wanted(ty).to_owned()) }
}

fn wanted(ty: ParamType) -> &'static str {
    match ty {
        ParamType::Node => "is not the name of a node: lower-case letters, digits, `-` and `.`, as in `gpu-3`",
        ParamType::Namespace => "is not the name of a namespace: lower-case letters, digits and `-`",
        ParamType::Pod => "does not name a pod: `namespace/name` in lower-case letters, digits, `-` and `.`",
        ParamType::Workload => "does not name a workload: `namespace/name` in lower-case letters, digits, `-` and `.`",
        ParamType::Gpu => "does not name a GPU: an index, `GPU-…`, `MIG-…` or a PCI address such as `0000:3b:00.0`",
        _ => "is not the name of a model: letters, digits and `._-/:@+`",
    }
}

fn string(pattern: Option<&Regex>, text: &str) -> Result<Value, String> {
    if text.len() > limits::LABEL_VALUE_BYTES {
        return Err(format!("is longer than {} bytes", limits::LABEL_VALUE_BYTES));
    }
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err("contains control characters".to_owned());
    }
    match pattern {
        // The pattern is anchored when it is compiled.
        Some(pattern) if !pattern.is_match(text) => {
            Err("does not match the pattern of the runbook's header".to_owned())
        }
        _ => Ok(Value::from(text)),
    }
}

fn whole(value: &Value) -> Result<Value, String> {
    let number = match value {
        Value::String(text) => text.trim().parse::<i64>().ok(),
        other => other.as_i64(),
    };
    number.map(Value::from).ok_or_else(|| "is not a whole number".to_owned())
}

fn float(value: &Value) -> Result<Value, String> {
    let number = match value {
        Value::String(text) => text.trim().parse::<f64>().ok(),
        other => other.as_f64(),
    };
    // JSON has no infinities: `from_f64` refuses them and NaN.
    number.and_then(serde_json::Number::from_f64).map(Value::Number).ok_or_else(|| "is not a finite number".to_owned())
}

fn boolean(value: &Value) -> Result<Value, String> {
    match value {
        Value::Bool(_) => Ok(value.clone()),
        Value::String(text) if text == "true" => Ok(Value::Bool(true)),
        Value::String(text) if text == "false" => Ok(Value::Bool(false)),
        _ => Err("is neither `true` nor `false`".to_owned()),
    }
}

/// A DNS-1123 label, at most 63 characters.
fn is_dns_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A DNS-1123 subdomain, at most 253 characters.
fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

fn is_gpu(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix("GPU-") {
        return is_uuid(rest);
    }
    if let Some(rest) = text.strip_prefix("MIG-") {
        // Older drivers name a slice by its GPU and two instance numbers: `MIG-GPU-<uuid>/1/0`.
        return match rest.strip_prefix("GPU-").map(|old| old.splitn(3, '/').collect::<Vec<_>>()) {
            None => is_uuid(rest),
            Some(parts) => matches!(parts[..], [uuid, gi, ci] if is_uuid(uuid) && is_index(gi) && is_index(ci)),
        };
    }
    is_index(text) || is_pci(text)
}

fn is_index(text: &str) -> bool {
    (1..=3).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
}

fn is_uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    text.split('-').count() == 5 && text.split('-').zip(lengths).all(|(part, length)| is_hex(part, length))
}

/// `[domain:]bus:device[.function]`, the domain in four or eight digits; the kernel log leaves the function out.
fn is_pci(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let (domain, bus, slot) = match parts[..] {
        [bus, slot] => (None, bus, slot),
        [domain, bus, slot] => (Some(domain), bus, slot),
        _ => return false,
    };
    let (device, function) = slot.split_once('.').unwrap_or((slot, "0"));
    domain.is_none_or(|domain| is_hex(domain, 4) || is_hex(domain, 8))
        && is_hex(bus, 2)
        && is_hex(device, 2)
        && matches!(function.as_bytes(), [b'0'..=b'7'])
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|c| c.is_ascii_hexdigit())
}

fn is_model(text: &str) -> bool {
    let good = |c: u8| c.is_ascii_alphanumeric() || b"._-/:@+".contains(&c);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ParamType::*;

    fn good(ty: ParamType, value: impl Into<Value>, canonical: impl Into<Value>) {
        let value = value.into();
        assert_eq!(check(ty, None, &value), Ok(canonical.into()), "{} {value}", ty.name());
    }

    fn bad(ty: ParamType, values: &[&str]) {
        for value in values {
            assert!(check(ty, None, &Value::from(*value)).is_err(), "{} {value:?}", ty.name());
        }
    }

    #[test]
    fn names_that_kubernetes_would_take_are_taken() {
        for name in ["gpu-3", "ip-10-0-0-1.eu-west-1.compute.internal", "a", "3"] {
            good(Node, name, name);
        }
        good(Namespace, "serve", "serve");
        good(Pod, "serve/llama-0", "serve/llama-0");
        good(Workload, "serve/llama", "serve/llama");
        good(Model, "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B");
    }

    #[test]
    fn hostile_names_are_refused() {
        bad(Node, &["", "-a", "a-", "A", "a_b", "a b", "gpu-3:9100", "../x", "a/b", "a..b", "ä", "a\n", "$(reboot)"]);
        bad(Namespace, &["", "a.b", "a/b", &"x".repeat(64)]);
        bad(Pod, &["llama-0", "a/b/c", "/b", "a/", "a/../b", "a/b?x=1"]);
        bad(Model, &["", "a b", "a\"}", "a\u{0}", "x;y"]);
        bad(Node, &[&["a"; 200].join(".")]);
    }

    #[test]
    fn a_gpu_goes_by_index_uuid_slice_or_address() {
        for name in [
            "0",
            "15",
            "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c",
            "MIG-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c",
            "MIG-GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c/1/0",
            "00000000:3B:00.0",
            "0000:3b:00",
            "3b:00.0",
        ] {
            good(Gpu, name, name);
        }
        good(Gpu, 3, "3");
        bad(Gpu, &["", "01", "1234", "-1", "GPU-", "GPU-x", "0000:3b:00.9", "nvidia0", "0; rm", "MIG-GPU-x/1"]);
    }

    #[test]
    fn numbers_come_as_numbers_or_as_text() {
        good(Int, "42", 42);
        good(Int, -7, -7);
        good(Float, "0.5", 0.5);
        good(Bool, "true", true);
        good(Duration, "90m", "1h 30m");
        bad(Int, &["", "1.5", "x", "99999999999999999999"]);
        bad(Float, &["NaN", "inf", ""]);
        bad(Bool, &["yes", "1"]);
        bad(Duration, &["5", "-5m"]);
    }

    #[test]
    fn a_string_matches_its_pattern_as_a_whole_and_holds_no_control_characters() {
        let pattern = Regex::new("^(?:[a-z]+)$").unwrap();
        assert!(check(String, Some(&pattern), &Value::from("abc")).is_ok());
        assert!(check(String, Some(&pattern), &Value::from("abc1")).is_err());
        bad(String, &["a\u{0}b", "\u{1b}[31m"]);
        assert!(check(String, None, &Value::from(3)).is_err());
    }
}
