//! The pages of settings and of rules, and the JSON schemas for editors, made from the types of the files. For tests alone, so that
//! the program carries none of it.
//!
//! Invariant: a setting without a doc comment fails here; the page is never written by hand.

use super::Config;
use crate::model::Rule;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::path::Path;

const HEAD: &str = "# Configuration

Made from the types in `src/config.rs` and below it; a test fails when it is out of date. Every key of `nightshift.yaml`; an
empty file is a valid configuration. An example to copy is [nightshift.example.yaml](../nightshift.example.yaml). Unknown
keys are refused.

- `NAME` stands for a name that you choose, `[]` for each item of a list.
- A *time* is written `30s`, `10m`, `1h 30m`, `2d`.
- A *secret* is a reference, never the text itself: `{ file: /run/secrets/name }` or `{ env: NAME }`.
- `nightshift config --effective` prints what is in force, with defaults marked; `nightshift doctor` says what is missing.
- Editors that know YAML schemas complete and check the file with its first line
  `# yaml-language-server: $schema=docs/nightshift.schema.json` ([the schema](nightshift.schema.json)).
- Settings take effect at a start. People, tokens, and the files behind secrets of channels, Slack's and PagerDuty's doors
  are read again while the engine runs, as are runbooks, rules and integrations.

";

const RULES_HEAD: &str = "# Rules, key by key

Made from `Rule` in `crates/core/src/model/rule.rs`; a test fails when it is out of date. [rules/README.md](../rules/README.md)
explains rules with examples. Unknown keys are refused. A rule has `when` or `at`, not both.

- Every `*.yaml` file of `rules_dir` is a list under `rules`.
- A *time* is written `30s`, `10m`, `1h 30m`, `2d`.
- Editors that know YAML schemas complete and check a file with its first line
  `# yaml-language-server: $schema=../docs/rules.schema.json` ([the schema](rules.schema.json)).

| key | type | default | effect |
|---|---|---|---|
";

/// A file of rules as editors see it. `catalog::rules` reads it with the line of each rule.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct RuleFile {
    /// The rules of this file.
    rules: Vec<Rule>,
}

/// One line of the page.
struct Setting {
    path: String,
    kind: String,
    default: String,
    about: String,
}

struct Walk<'s> {
    definitions: &'s Map<String, Value>,
    settings: Vec<Setting>,
}

impl<'s> Walk<'s> {
    /// The schema itself, through references and nullable alternatives.
    fn behind(&self, schema: &'s Value) -> &'s Value {
        if let Some(name) = schema["$ref"].as_str() {
            return self.behind(&self.definitions[name.trim_start_matches("#/$defs/")]);
        }
        let some = schema["anyOf"].as_array().and_then(|either| either.iter().find(|one| one["type"] != "null"));
        some.map_or(schema, |some| self.behind(some))
    }

    fn object(&mut self, prefix: &str, schema: &'s Value) {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            // A tag is named in the heading of its kind.
            if property.get("const").is_none() {
                self.setting(&format!("{prefix}{name}"), property, required.contains(&name.as_str()));
            }
        }
    }

    fn setting(&mut self, path: &str, schema: &'s Value, required: bool) {
        let inner = self.behind(schema);
        let about = text(&schema["description"], &inner["description"]);
        let each = inner["additionalProperties"].as_object().map(|_| &inner["additionalProperties"]);
        let item = inner["items"].as_object().map(|_| &inner["items"]);
        let default = match schema.get("default") {
            _ if required => "*required*".to_owned(),
            Some(Value::Object(_)) | None => String::new(),
            Some(Value::Null) => "*left out*".to_owned(),
            Some(value) => format!("`{value}`"),
        };
        self.settings.push(Setting { path: path.to_owned(), kind: self.kind(inner), default, about });
        if let Some(each) = each {
            self.below(&format!("{path}.NAME"), each);
        } else if let Some(item) = item {
            self.below(&format!("{path}[]"), item);
        } else {
            self.below(path, inner);
        }
    }

    /// The settings inside one value; of a value that is one of several kinds, those of each.
    fn below(&mut self, path: &str, schema: &'s Value) {
        let schema = self.behind(schema);
        if schema["title"] == "secret" {
            return;
        }
        for kind in schema["oneOf"].as_array().into_iter().flatten() {
            let Some(word) = kind["properties"]["kind"]["const"].as_str() else { continue };
            let about = text(&kind["description"], &Value::Null);
            let (path_of, kind_of) = (format!("{path}.kind: {word}"), "kind".to_owned());
            self.settings.push(Setting { path: path_of, kind: kind_of, default: String::new(), about });
            self.object(&format!("{path}({word})."), kind);
        }
        self.object(&format!("{path}."), schema);
    }

    fn kind(&self, schema: &'s Value) -> String {
        if let Some(title @ ("secret" | "time")) = schema["title"].as_str() {
            return title.to_owned();
        }
        let words = |values: &[Value], key: Option<&str>| {
            let value = |one: &Value| key.map_or(one.clone(), |key| one[key].clone());
            let words: Vec<String> =
                values.iter().filter_map(|one| Some(format!("`{}`", value(one).as_str()?))).collect();
            words.join(", ")
        };
        if let Some(values) = schema["enum"].as_array() {
            return words(values, None);
        }
        if let Some(values) =
            schema["oneOf"].as_array().filter(|values| values.iter().all(|one| one.get("const").is_some()))
        {
            return words(values, Some("const"));
        }
        if let Some(items) = schema.get("items") {
            return format!("list of {}", self.kind(self.behind(items)));
        }
        if schema["additionalProperties"].is_object() {
            return format!("map of {}", self.kind(self.behind(&schema["additionalProperties"])));
        }
        let plain = |kind: &str| match kind {
            "string" => "text",
            "integer" | "number" => "number",
            "boolean" => "true or false",
            _ => "section",
        };
        match &schema["type"] {
            Value::String(kind) => plain(kind).to_owned(),
            Value::Array(kinds) => {
                kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").map_or("", plain).to_owned()
            }
            _ => "section".to_owned(),
        }
    }
}

/// A description on one line of a table.
fn text(own: &Value, behind: &Value) -> String {
    let words = own.as_str().or(behind.as_str()).unwrap_or_default();
    words.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn schema() -> Value {
    schema_of::<Config>()
}

fn schema_of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

fn settings(schema: &Value) -> Vec<Setting> {
    let none = Map::new();
    let mut walk = Walk { definitions: schema["$defs"].as_object().unwrap_or(&none), settings: Vec::new() };
    walk.object("", schema);
    walk.settings
}

fn page(settings: &[Setting]) -> String {
    let mut page = HEAD.to_owned();
    let mut section = String::new();
    for setting in settings {
        let top = setting.path.split(['.', '[', '(']).next().unwrap_or_default();
        if top != section {
            section = top.to_owned();
            let _ = write!(page, "## `{section}`\n\n| key | type | default | effect |\n|---|---|---|---|\n");
        }
        let Setting { path, kind, default, about } = setting;
        let _ = writeln!(page, "| `{path}` | {kind} | {default} | {about} |");
        let next = settings.iter().skip_while(|other| other.path != *path).nth(1);
        if next.is_none_or(|next| next.path.split(['.', '[', '(']).next() != Some(top)) {
            page.push('\n');
        }
    }
    page.trim_end().to_owned() + "\n"
}

fn is_written(name: &str, truth: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, truth).expect("docs/ can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == truth, "docs/{name} is out of date: run `make docs`");
}

#[test]
fn the_page_of_settings_is_the_types() {
    is_written("configuration.md", &page(&settings(&schema())));
}

#[test]
fn the_schema_for_editors_is_the_types() {
    is_written("nightshift.schema.json", &(serde_json::to_string_pretty(&schema()).expect("a schema is JSON") + "\n"));
}

#[test]
fn the_page_of_rules_and_their_schema_are_the_type() {
    let schema = schema_of::<RuleFile>();
    let rules = settings(&schema);
    let mut page = RULES_HEAD.to_owned();
    for Setting { path, kind, default, about } in rules.iter().filter(|one| one.path != "rules") {
        assert!(!about.is_empty(), "{path} has no doc comment");
        let _ = writeln!(page, "| `{}` | {kind} | {default} | {about} |", path.trim_start_matches("rules[]."));
    }
    assert!(rules.len() > 25, "{}", rules.len());
    is_written("rules.md", &page);
    is_written("rules.schema.json", &(serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n"));
}

#[test]
fn every_setting_says_what_it_does_and_each_is_there_once() {
    let schema = schema();
    let settings = settings(&schema);
    assert!(settings.len() > 150, "{}", settings.len());
    let silent: Vec<&str> = settings.iter().filter(|one| one.about.is_empty()).map(|one| one.path.as_str()).collect();
    assert!(silent.is_empty(), "these have no doc comment: {silent:#?}");
    let mut paths: Vec<&str> = settings.iter().map(|one| one.path.as_str()).collect();
    paths.sort_unstable();
    let all = paths.len();
    paths.dedup();
    assert_eq!(paths.len(), all);
    for known in
        ["guards.nodes_at_once", "channels.NAME(slack).token", "sources.NAME.probe.targets[].url", "people[].name"]
    {
        assert!(paths.contains(&known), "{known}: {paths:#?}");
    }
}
