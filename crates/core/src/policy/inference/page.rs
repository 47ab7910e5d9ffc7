//! A metrics page in Prometheus' text format, of vLLM, TGI or Triton, as one reading.
//!
//! Invariant: the reading is bounded by the page's own size and `limits`; a line that is not understood is skipped
//! unless it is one that counts, and a page without any that counts is refused.

use super::{EngineKind, EngineQueue, EngineReading, FirstTokens};
use crate::limits;
use std::collections::BTreeMap;

/// The meaning of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
enum MetricMeaning {
    Running,
    Waiting,
    Steps,
    Cache,
    /// A bucket of the histogram of first tokens, in these parts of a second.
    FirstToken(f64),
    Began,
}

/// (metric, meaning). Names and units as the engines' own documentation has them; older names beside newer ones.
const VLLM: [(&str, MetricMeaning); 10] = [
    ("vllm:num_requests_running", MetricMeaning::Running),
    ("vllm:num_requests_waiting", MetricMeaning::Waiting),
    ("vllm:iteration_tokens_total_sum", MetricMeaning::Steps),
    ("vllm:iteration_tokens_total_count", MetricMeaning::Steps),
    ("vllm:prompt_tokens_total", MetricMeaning::Steps),
    ("vllm:generation_tokens_total", MetricMeaning::Steps),
    ("vllm:kv_cache_usage_perc", MetricMeaning::Cache),
    ("vllm:gpu_cache_usage_perc", MetricMeaning::Cache),
    ("vllm:time_to_first_token_seconds_bucket", MetricMeaning::FirstToken(1.0)),
    ("process_start_time_seconds", MetricMeaning::Began),
];
const TGI: [(&str, MetricMeaning); 6] = [
    ("tgi_batch_current_size", MetricMeaning::Running),
    ("tgi_queue_size", MetricMeaning::Waiting),
    // Of ended requests; the others count each batch, so a long answer is progress too.
    ("tgi_request_generated_tokens_sum", MetricMeaning::Steps),
    ("tgi_batch_inference_count", MetricMeaning::Steps),
    ("tgi_batch_inference_success", MetricMeaning::Steps),
    ("tgi_batch_forward_duration_count", MetricMeaning::Steps),
];
const TRITON: [(&str, MetricMeaning); 4] = [
    ("nv_inference_pending_request_count", MetricMeaning::Waiting),
    ("nv_inference_count", MetricMeaning::Steps),
    ("nv_inference_exec_count", MetricMeaning::Steps),
    ("nv_inference_first_response_histogram_ms_bucket", MetricMeaning::FirstToken(0.001)),
];

/// Reads a page. `model`: of an engine that serves several, only this one counts.
///
/// # Errors
///
/// Fails when a line of a metric that counts cannot be read, or when the page has no such metric; the message names the
/// line.
pub fn parse_engine_page(kind: EngineKind, page: &str, model: Option<&str>) -> Result<EngineReading, String> {
    let metrics: &[(&str, MetricMeaning)] = match kind {
        EngineKind::Vllm => &VLLM,
        EngineKind::Tgi => &TGI,
        EngineKind::Triton => &TRITON,
    };
    let mut reading = EngineReading::default();
    let mut buckets: BTreeMap<u64, f64> = BTreeMap::new();
    for (at, line) in page.lines().enumerate() {
        let name = &line[..line.find(['{', ' ']).unwrap_or(line.len())];
        let Some((_, means)) = metrics.iter().find(|(metric, _)| *metric == name) else { continue };
        let wrong = |what: &str| format!("line {} ({name}) {what}", at + 1);
        let (labels, value) = sample(&line[name.len()..]).ok_or_else(|| wrong("cannot be read"))?;
        if value.is_nan() {
            continue;
        }
        let label = |wanted: &str| labels.iter().find(|(name, _)| *name == wanted).map(|(_, text)| text.as_str());
        if kind == EngineKind::Triton && model.is_some() && label("model") != model {
            continue;
        }
        match means {
            MetricMeaning::Began => reading.began = Some(value),
            MetricMeaning::Cache => reading.cache = Some(reading.cache.unwrap_or(0.0).max(value)),
            MetricMeaning::FirstToken(unit) => {
                let bound: f64 = label("le").and_then(|le| le.parse().ok()).ok_or_else(|| wrong("names no `le`"))?;
                // The bits of numbers above zero are in the numbers' order.
                if bound >= 0.0 && buckets.len() < limits::ENGINE_BUCKETS {
                    *buckets.entry((bound * unit).to_bits()).or_default() += value;
                }
            }
            means => {
                let lane = [label("model_name").or(label("model")), label("version"), label("engine")];
                let lane = lane.into_iter().flatten().collect::<Vec<_>>().join("/");
                // TGI's batches are counted by method, and are one queue.
                if !reading.lanes.contains_key(&lane) && reading.lanes.len() >= limits::ENGINE_LANES {
                    return Err(format!("it has more than {} models or engine cores", limits::ENGINE_LANES));
                }
                add(reading.lanes.entry(lane).or_default(), *means, value);
            }
        }
    }
    if reading.lanes.is_empty() {
        let of = if model.is_some() && kind == EngineKind::Triton { " of that model" } else { "" };
        return Err(format!("it has no metric of {}{of}: is it another program, or another release?", kind.word()));
    }
    reading.first_tokens = first_tokens(&buckets);
    Ok(reading)
}

fn add(lane: &mut EngineQueue, means: MetricMeaning, value: f64) {
    match means {
        MetricMeaning::Running => lane.running += value,
        MetricMeaning::Waiting => lane.waiting += value,
        _ => lane.steps = Some(lane.steps.unwrap_or(0.0) + value),
    }
}

fn first_tokens(buckets: &BTreeMap<u64, f64>) -> Option<FirstTokens> {
    let total = *buckets.get(&f64::INFINITY.to_bits())?;
    let finite = buckets.iter().map(|(bound, count)| (f64::from_bits(*bound), *count));
    Some(FirstTokens { buckets: finite.filter(|(bound, _)| bound.is_finite()).collect(), total })
}

type MetricLabels<'a> = Vec<(&'a str, String)>;

/// `{a="b",c="d"} 1.5 1700000000 # exemplar`, or only the value.
fn sample(rest: &str) -> Option<(MetricLabels<'_>, f64)> {
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next()?;
    Some((labels, value.parse().ok()?))
}

/// The labels up to the closing bracket, and the text after it.
fn labels(mut text: &str) -> Option<(MetricLabels<'_>, &str)> {
    let mut found = Vec::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((found, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut letters = rest.char_indices();
        let end = loop {
            match letters.next()? {
                (at, '"') => break at,
                (_, '\\') => match letters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, letter) => value.push(letter),
            }
        };
        if found.len() >= limits::LABELS_PER_ALERT || value.len() > limits::LABEL_VALUE_BYTES {
            return None;
        }
        found.push((name, value));
        text = &rest[end + 1..];
    }
}
