//! Label and field selectors as Kubernetes writes them in URLs and objects.
//!
//! Invariant: an empty selector in a URL matches everything; a selector that cannot be read is refused, never ignored.

use super::object::text;
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ObjectSelector {
    terms: Vec<SelectorTerm>,
}

#[derive(Debug, Clone, PartialEq)]
enum SelectorTerm {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl ObjectSelector {
    /// `a=b,c!=d,e in (f,g),h notin (i),j,!k`
    ///
    /// # Errors
    ///
    /// Fails when a requirement cannot be parsed; the message quotes it.
    pub fn parse(text: &str) -> Result<ObjectSelector, String> {
        let mut terms = Vec::new();
        for part in split(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            terms.push(Self::term(part).ok_or_else(|| format!("unable to parse requirement: `{part}`"))?);
        }
        Ok(ObjectSelector { terms })
    }

    fn term(part: &str) -> Option<SelectorTerm> {
        let one = |v: &str| vec![v.trim().to_owned()];
        let set = |v: &str| {
            let inner = v.trim().strip_prefix('(')?.strip_suffix(')')?;
            Some(inner.split(',').map(|s| s.trim().to_owned()).collect::<Vec<_>>())
        };
        if let Some((key, values)) = part.split_once(" notin ") {
            Some(SelectorTerm::NotIn(key.trim().to_owned(), set(values)?))
        } else if let Some((key, values)) = part.split_once(" in ") {
            Some(SelectorTerm::In(key.trim().to_owned(), set(values)?))
        } else if let Some((key, value)) = part.split_once("!=") {
            Some(SelectorTerm::NotIn(key.trim().to_owned(), one(value)))
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            Some(SelectorTerm::In(key.trim().to_owned(), one(value)))
        } else if let Some(key) = part.strip_prefix('!') {
            Some(SelectorTerm::Absent(key.trim().to_owned()))
        } else {
            (!part.contains([' ', '('])).then(|| SelectorTerm::Exists(part.to_owned()))
        }
    }

    /// `spec.selector` of a workload or budget.
    pub fn from_object(selector: &Value) -> ObjectSelector {
        let mut terms: Vec<SelectorTerm> = super::object::texts(selector, "/matchLabels")
            .into_iter()
            .map(|(key, value)| SelectorTerm::In(key, vec![value]))
            .collect();
        for expression in super::object::list(selector, "/matchExpressions") {
            let key = text(expression, "/key").to_owned();
            let values = super::object::list(expression, "/values");
            let values = values.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
            terms.push(match text(expression, "/operator") {
                "In" => SelectorTerm::In(key, values),
                "NotIn" => SelectorTerm::NotIn(key, values),
                "DoesNotExist" => SelectorTerm::Absent(key),
                _ => SelectorTerm::Exists(key),
            });
        }
        ObjectSelector { terms }
    }

    /// Whether these labels meet every term.
    pub fn matches(&self, labels: &Value) -> bool {
        self.terms.iter().all(|term| match term {
            SelectorTerm::In(key, values) => labels[key].as_str().is_some_and(|v| values.iter().any(|w| w == v)),
            SelectorTerm::NotIn(key, values) => labels[key].as_str().is_none_or(|v| values.iter().all(|w| w != v)),
            SelectorTerm::Exists(key) => labels.get(key).is_some(),
            SelectorTerm::Absent(key) => labels.get(key).is_none(),
        })
    }

    /// As a field selector: the keys are paths such as `spec.nodeName`.
    pub fn matches_fields(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| match term {
            SelectorTerm::In(path, values) => values.iter().any(|v| v == field(object, path)),
            SelectorTerm::NotIn(path, values) => values.iter().all(|v| v != field(object, path)),
            SelectorTerm::Exists(_) | SelectorTerm::Absent(_) => false,
        })
    }
}

fn field<'a>(object: &'a Value, path: &str) -> &'a str {
    text(object, &format!("/{}", path.replace('.', "/")))
}

/// Splits at commas that stand outside brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_selector_matches_as_in_kubernetes() {
        let labels = json!({"app": "llama", "tier": "gpu"});
        let check = |text: &str, expect: bool| {
            assert_eq!(ObjectSelector::parse(text).unwrap().matches(&labels), expect, "{text}")
        };
        check("", true);
        check("app=llama", true);
        check("app==llama,tier!=cpu", true);
        check("app in (a, llama),tier notin (cpu)", true);
        check("app notin (llama)", false);
        check("missing!=x", true);
        check("missing notin (x)", true);
        check("tier,!missing", true);
        check("!tier", false);
        assert!(ObjectSelector::parse("app in llama").is_err());
        let pod = json!({"spec": {"nodeName": "gpu-1"}, "status": {"phase": "Running"}});
        assert!(ObjectSelector::parse("spec.nodeName=gpu-1,status.phase!=Failed").unwrap().matches_fields(&pod));
    }
}
