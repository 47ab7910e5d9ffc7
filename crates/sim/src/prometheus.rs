//! Prometheus' query API: answers that a test set, and instant selectors over the fleet's own metrics.
//!
//! Invariant: an expression that is not understood is a 400 with Prometheus' words, never an empty answer that reads
//! like "all is well".

use super::answer::SimResponse;
use super::api::SimRequest;
use super::metrics::{self, SimSeries};
use super::state::FleetState;
use crate::model::{Labels, Time};
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One series of a scripted answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimSample {
    #[serde(default)]
    pub labels: Labels,
    pub value: f64,
}

impl SimSample {
    /// A sample without labels.
    pub fn value(value: f64) -> SimSample {
        SimSample { labels: Labels::default(), value }
    }
}

/// Expression → its answer. White space does not count.
#[derive(Default)]
pub(super) struct QueryTable(BTreeMap<String, Vec<SimSample>>);

impl QueryTable {
    /// Sets the answer to this expression.
    pub fn set(&mut self, expression: &str, samples: Vec<SimSample>) {
        self.0.insert(bare(expression), samples);
    }
}

fn bare(expression: &str) -> String {
    expression.split_whitespace().collect()
}

/// GET or POST /api/v1/query.
pub(super) fn query(state: &FleetState, request: &SimRequest) -> SimResponse {
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&request.body).into_owned().collect();
    let find = |name: &str| {
        let body = form.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        body.unwrap_or_else(|| request.query(name)).to_owned()
    };
    let expression = find("query");
    let at: f64 = match find("time").as_str() {
        "" => seconds(state.now),
        text => match text.parse().ok().or_else(|| text.parse::<Time>().ok().map(seconds)) {
            Some(at) => at,
            None => return bad(&format!("invalid parameter \"time\": cannot parse {text:?} to a valid timestamp")),
        },
    };
    match evaluate(state, &expression) {
        Ok(samples) => {
            let result: Vec<Value> =
                samples.iter().map(|s| json!({"metric": s.labels, "value": [at, number(s.value)]})).collect();
            SimResponse::ok(json!({"status": "success", "data": {"resultType": "vector", "result": result}}))
        }
        Err(why) => bad(&why),
    }
}

fn bad(why: &str) -> SimResponse {
    SimResponse::json(400, json!({"status": "error", "errorType": "bad_data", "error": why}))
}

fn seconds(time: Time) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

/// A value as Prometheus writes it.
fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

fn evaluate(state: &FleetState, expression: &str) -> Result<Vec<SimSample>, String> {
    let expression = expression.trim();
    if let Some(samples) = state.table.0.get(&bare(expression)) {
        return Ok(samples.clone());
    }
    // The expression that a probe sends to see whether the server answers.
    if matches!(bare(expression).as_str(), "vector(time())" | "time()") {
        return Ok(vec![SimSample::value(seconds(state.now))]);
    }
    if let Ok(value) = expression.parse::<f64>() {
        return Ok(vec![SimSample::value(value)]);
    }
    for (word, fold) in FOLDS {
        let inner = expression.strip_prefix(word).map(str::trim).and_then(|s| s.strip_prefix('(')?.strip_suffix(')'));
        if let Some(inner) = inner.filter(|inner| !inner.contains([')', '('])) {
            let values: Vec<f64> = evaluate(state, inner)?.iter().map(|s| s.value).collect();
            return Ok(if values.is_empty() { Vec::new() } else { vec![SimSample::value(fold(&values))] });
        }
    }
    select(state, expression)
}

type FoldFunction = fn(&[f64]) -> f64;
const FOLDS: [(&str, FoldFunction); 4] = [
    ("sum", |v| v.iter().sum()),
    ("max", |v| v.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
    ("min", |v| v.iter().copied().fold(f64::INFINITY, f64::min)),
    ("count", |v| v.len() as f64),
];

/// `name{label="value",other=~"regex"}`; an expression of another kind is an empty answer if it parses as one that a
/// test could have set; only the caller can decide that, so it is refused.
fn select(state: &FleetState, expression: &str) -> Result<Vec<SimSample>, String> {
    let (name, matchers) = match expression.split_once('{') {
        Some((name, rest)) => (name.trim(), rest.strip_suffix('}').ok_or_else(|| unknown(expression))?),
        None => (expression, ""),
    };
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':')) {
        return Err(unknown(expression));
    }
    let mut tests = Vec::new();
    for part in matchers.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        tests.push(SeriesMatcher::parse(part).ok_or_else(|| unknown(expression))?);
    }
    let found = metrics::all(state).into_iter().filter(|s| s.name == name);
    Ok(found.filter(|s| tests.iter().all(|t| t.passes(s))).map(sample).collect())
}

fn unknown(expression: &str) -> String {
    format!(
        "invalid parameter \"query\": the simulated fleet has no answer set for {expression:?}; set one with \
         set_prometheus or POST /sim/prometheus"
    )
}

fn sample(series: SimSeries) -> SimSample {
    let name = std::iter::once(("__name__", series.name.to_owned()));
    SimSample { labels: name.chain(series.labels).collect(), value: series.value }
}

struct SeriesMatcher {
    label: String,
    regex: Regex,
    wanted: bool,
}

impl SeriesMatcher {
    fn parse(part: &str) -> Option<SeriesMatcher> {
        let at = part.find(['=', '!'])?;
        let (label, rest) = part.split_at(at);
        let (operator, value) = rest.split_at(rest.find('"')?);
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        let (wanted, pattern) = match operator.trim() {
            "=" => (true, regex::escape(value)),
            "!=" => (false, regex::escape(value)),
            "=~" => (true, value.to_owned()),
            "!~" => (false, value.to_owned()),
            _ => return None,
        };
        Some(SeriesMatcher {
            label: label.trim().to_owned(),
            regex: Regex::new(&format!("^(?:{pattern})$")).ok()?,
            wanted,
        })
    }

    fn passes(&self, series: &SimSeries) -> bool {
        let value = series.labels.iter().find(|(name, _)| *name == self.label).map_or("", |(_, value)| value);
        self.regex.is_match(value) == self.wanted
    }
}
