//! One file of rules: `rules: [ … ]`, and the line of each, so that a problem has a place.
//!
//! Invariant: an unknown key is refused; a misspelt `unless` must not silently never mute.

use super::CatalogProblem;
use super::files::FileContent;
use crate::limits;
use crate::model::Rule;
use crate::sources::cron;
use serde::Deserialize;
use serde_saphyr::Spanned;

/// The rules of a file, each with its line.
pub(super) type NumberedRules = Vec<(u64, Rule)>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleDocument {
    rules: Vec<Spanned<Rule>>,
}

/// Parses a file; the parser's own words show the source line and a caret.
pub(super) fn parse(file: &FileContent) -> (Option<NumberedRules>, Vec<CatalogProblem>) {
    let options = serde_saphyr::options! {
        // Rules are written out: an anchor that is replayed a million times is not a rule.
        budget: serde_saphyr::budget! { max_nodes: limits::RULE_FILE_NODES, max_depth: limits::RULE_FILE_DEPTH },
    };
    match serde_saphyr::from_str_with_options::<RuleDocument>(&file.text, options) {
        Ok(document) => {
            let rules: NumberedRules =
                document.rules.into_iter().map(|rule| (rule.referenced.line(), rule.value)).collect();
            let problems: Vec<CatalogProblem> =
                rules.iter().filter_map(|(line, rule)| schedule(file, *line, rule)).collect();
            (problems.is_empty().then_some(rules), problems)
        }
        Err(error) => {
            let said = error.to_string().replace("<input>", &file.path);
            let text = format!("{said}\na file of rules looks like this:\n{EXAMPLE}");
            (None, vec![CatalogProblem { file: file.path.clone(), text, fatal: true }])
        }
    }
}

/// A schedule that cannot be followed is reported now, not on the night when nothing happens.
fn schedule(file: &FileContent, line: u64, rule: &Rule) -> Option<CatalogProblem> {
    let why = cron::parse(rule.at.as_ref()?).err()?;
    let text = format!("rule `{}`, `at`: {why}", rule.name);
    Some(CatalogProblem { file: format!("{}:{line}", file.path), text, fatal: true })
}

const EXAMPLE: &str = r#"  rules:
    - name: gpu-fell-off-the-bus
      when: ['alertname="GpuXid"', 'xid="79"']
      run: gpu-fell-off-the-bus
      tell: [oncall]"#;
