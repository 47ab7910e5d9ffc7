//! `docs/api.md`, the OpenAPI document as a page that people read, and `docs/ledger.md`, the kinds of entries.
//!
//! Invariant: everything on them comes from the types; a test keeps both up to date.

use crate::model::EntryKind;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

const HEAD: &str = "\
# API

Made from `docs/openapi.json`, which is made from `src/api/` and the table of routes; a running engine serves it at
`GET /api/v1/openapi.json`.

Send a token with each request: `Authorization: Bearer …`. Requests and answers are JSON. Times are RFC 3339 in UTC, durations
are texts such as `90s` or `2h`. An answer may get new members in any release: ignore those that you do not know. A member
whose type ends in `?` may be null or absent.

An error is `application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`, and `hint`, which says what to do. `error`
repeats `detail` for clients of earlier releases and goes away in the next one.

Lists give the newest rows first. A full page has `next`: the `cursor` of the next one. Follow it until a page has none. Rows that
arrive meanwhile are on no later page, so that a walk meets each row once.

";

/// The page, out of the document.
pub(in crate::server) fn page(document: &Value) -> String {
    let mut page = HEAD.to_owned();
    let paths = document["paths"].as_object().into_iter().flatten();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            page += &route(method, path, operation);
        }
    }
    page += "## Errors\n\n| status | meaning |\n|---|---|\n";
    for (status, name) in ERRORS {
        let text = text(&document["components"]["responses"][name]["description"]);
        page += &format!("| {status} | {text} |\n");
    }
    page += "\n## Types\n";
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        page += &format!("\n### {name}\n\n{}", described(schema));
    }
    page
}

const LEDGER: &str = "\
# Ledger entries

Made from `EntryKind` in `crates/core/src/model/entry.rs`. `nightshift audit log --kind KIND` lists entries of one kind, and
`GET /api/v1/entries?kind=KIND` answers them as JSON. Each entry also has `no`, `at`, `actor` and `about` (its incident, its run).
A member whose type ends in `?` may be null or absent. The types are described in `docs/api.md`.

";

/// `docs/ledger.md`: every kind of entry with its members.
pub(in crate::server) fn ledger() -> String {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let schema = settings.into_generator().into_root_schema_for::<EntryKind>();
    let mut page = LEDGER.to_owned();
    for option in schema.as_value()["oneOf"].as_array().into_iter().flatten() {
        let mut option = option.clone();
        let name = text(&option["properties"]["kind"]["const"]).to_owned();
        if let Some(properties) = option["properties"].as_object_mut() {
            properties.remove("kind");
        }
        page += &format!("## {name}\n\n{}\n\n", text(&option["description"]));
        if option["properties"] != json!({}) {
            page += &format!("{}\n", members(&option));
        }
    }
    page
}

const ERRORS: [(&str, &str); 9] = [
    ("400", "BadRequest"),
    ("401", "Unauthorized"),
    ("403", "Forbidden"),
    ("404", "NotFound"),
    ("408", "RequestTimeout"),
    ("409", "Conflict"),
    ("413", "ContentTooLarge"),
    ("500", "InternalError"),
    ("503", "ServiceUnavailable"),
];

fn route(method: &str, path: &str, operation: &Value) -> String {
    let mut part = format!(
        "## {} {path}\n\n{}. {}\n\n",
        method.to_uppercase(),
        text(&operation["summary"]),
        text(&operation["description"])
    );
    let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !parameters.is_empty() {
        part += "| parameter | in | type | |\n|---|---|---|---|\n";
        for parameter in parameters {
            let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
            let kind = kind(&parameter["schema"]);
            part += &format!("| `{name}` | {place} | {kind} | {} |\n", line(&parameter["description"]));
        }
        part += "\n";
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if !body.is_null() {
        part += &format!("Body:\n\n{}\n", members(body));
    }
    let answers = operation["responses"].as_object().into_iter().flatten();
    let (done, errors): (Vec<_>, Vec<_>) = answers.partition(|(status, _)| status.starts_with('2'));
    for (status, answer) in done {
        part += &format!("Answers {status} with {}. ", kind(&answer["content"]["application/json"]["schema"]));
    }
    let errors: Vec<&str> = errors.into_iter().map(|(status, _)| status.as_str()).collect();
    part + &format!("Errors: {}.\n\n", errors.join(", "))
}

fn described(schema: &Value) -> String {
    let mut part = String::new();
    let about = text(&schema["description"]);
    if !about.is_empty() {
        part += &format!("{about}\n\n");
    }
    for (which, options) in [("One of", "oneOf"), ("Any of", "anyOf")] {
        let Some(options) = schema[options].as_array() else { continue };
        part += &format!("{which}:\n\n");
        for option in options {
            part += &format!("- {}: {}\n", variant(option), line(&option["description"]));
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words.iter().map(|word| format!("`{}`", text(word))).collect();
        part += &format!("{}.\n", words.join(", "));
    }
    if schema["properties"].is_object() {
        part += &members(schema);
    }
    part
}

/// A variant by its constants, or its type.
fn variant(option: &Value) -> String {
    if !option["const"].is_null() {
        return format!("`{}`", text(&option["const"]));
    }
    let Some(properties) = option["properties"].as_object() else { return kind(option) };
    let names = properties.iter().map(|(name, schema)| match &schema["const"] {
        Value::Null => format!("`{name}` {}", kind(schema)),
        word => format!("`{name}: {}`", text(word)),
    });
    names.collect::<Vec<_>>().join(", ")
}

fn members(schema: &Value) -> String {
    let needed: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut part = "| member | type | |\n|---|---|---|\n".to_owned();
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let mark = if needed.contains(&name.as_str()) || kind(member).ends_with('?') { "" } else { "?" };
        part += &format!("| `{name}` | {}{mark} | {} |\n", kind(member), line(&member["description"]));
    }
    part
}

/// The type in a word or two.
fn kind(schema: &Value) -> String {
    if let Some(at) = schema["$ref"].as_str() {
        let name = at.rsplit('/').next().unwrap_or_default();
        return match at.starts_with("#/components/") {
            true => format!("[{name}](#{})", name.to_ascii_lowercase()),
            false => name.to_owned(),
        };
    }
    if let Some(options) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let null = options.iter().any(|option| option["type"] == "null");
        let rest: Vec<String> = options.iter().filter(|option| option["type"] != "null").map(kind).collect();
        return rest.join(" or ") + if null { "?" } else { "" };
    }
    match &schema["type"] {
        Value::Array(kinds) => {
            let null = kinds.iter().any(|kind| kind == "null");
            let mut only = schema.clone();
            only["type"] = kinds.iter().find(|kind| *kind != "null").cloned().unwrap_or_default();
            kind(&only) + if null { "?" } else { "" }
        }
        Value::String(word) if word == "array" => format!("list of {}", kind(&schema["items"])),
        Value::String(word) if word == "string" && schema["format"] == "date-time" => "time".to_owned(),
        Value::String(word) => match schema["const"].as_str() {
            Some(word) => format!("`{word}`"),
            None => word.clone(),
        },
        _ => "any".to_owned(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// One line, for a cell of a table.
fn line(value: &Value) -> String {
    text(value).replace('\n', " ").replace('|', "\\|")
}
