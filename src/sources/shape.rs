//! A vendor's webhook through its `integrations/<vendor>/decode.rhai`.
//!
//! Invariant: the value that a shape returns is checked field by field; a field that is unknown or of the wrong type is
//! reported, never guessed.

use super::draft::{DecodeGaps, EventDraft, json_error, quote, time, too_deep};
use super::{BodyRefusal, DecodedBody, cloudevents};
use crate::config::SourceConfig;
use crate::limits;
use crate::model::{EventStatus, Labels, Severity, Time};
use crate::script::ShapeScript;
use serde_json::{Map, Value};

const FIELDS: [&str; 10] =
    ["fingerprint", "key", "status", "starts_at", "ends_at", "labels", "annotations", "severity", "summary", "url"];

/// Decodes a body: JSON in, through the shape, events out. `attributes`: of a CloudEvent in binary mode, else empty.
/// The shape returns one event, a list of events, or `#{ events: […], gaps: ["…"] }`.
///
/// # Errors
///
/// Fails when the body is too deep, not UTF-8 or no JSON, or the shape fails or returns no events.
pub fn decode(
    shape: &ShapeScript,
    body: &[u8],
    attributes: Map<String, Value>,
    source: &str,
    cfg: &SourceConfig,
    now: Time,
) -> Result<DecodedBody, BodyRefusal> {
    let text = std::str::from_utf8(body);
    if text.as_ref().is_ok_and(|text| too_deep(text)) {
        return Err(BodyRefusal::Malformed(format!("the JSON is nested deeper than {}", limits::JSON_DEPTH)));
    }
    let input = if attributes.is_empty() {
        let text = text.map_err(|e| {
            BodyRefusal::Malformed(format!("the body is not UTF-8 (first wrong byte at {})", e.valid_up_to()))
        })?;
        serde_json::from_str(text).map_err(|e| BodyRefusal::Malformed(format!("not JSON: {}", json_error(&e))))?
    } else {
        cloudevents::structured(attributes, body)
    };
    let output = shape.call(&input).map_err(|e| BodyRefusal::Malformed(e.to_string()))?;
    events(output, source, cfg, now)
}

/// Checks the value that a shape returned. Public, so that the tests beside a shape can use it.
///
/// # Errors
///
/// Fails when the value is no event or list of events, or has more than `ALERTS_PER_BODY`.
pub fn events(output: Value, source: &str, cfg: &SourceConfig, now: Time) -> Result<DecodedBody, BodyRefusal> {
    let mut gaps = DecodeGaps::default();
    let list = match output {
        Value::Array(list) => list,
        Value::Object(mut map) if map.contains_key("events") || map.contains_key("gaps") => {
            for gap in strings(map.remove("gaps"))? {
                gaps.push(gap);
            }
            match map.remove("events") {
                Some(Value::Array(list)) => list,
                None | Some(Value::Null) => Vec::new(),
                Some(other) => {
                    return malformed(format!("the shape returned `events` as {}, not a list", kind(&other)));
                }
            }
        }
        event @ Value::Object(_) => vec![event],
        other => return malformed(format!("the shape returned {}, not an event or a list of events", kind(&other))),
    };
    if list.len() > limits::ALERTS_PER_BODY {
        return Err(BodyRefusal::TooLarge(format!(
            "{} events in one body, {} are allowed",
            list.len(),
            limits::ALERTS_PER_BODY
        )));
    }
    let count = list.len();
    let mut events = Vec::with_capacity(count);
    let mut first_bad = None;
    for (at, event) in list.into_iter().enumerate() {
        match draft(event, now).and_then(|draft| draft.finish(source, cfg, &mut gaps)) {
            Ok(event) => events.push(event),
            Err(why) => {
                let why = format!("event {} of {count} could not be read: {why}", at + 1);
                first_bad.get_or_insert_with(|| why.clone());
                gaps.push(why);
            }
        }
    }
    match first_bad {
        Some(why) if events.is_empty() => Err(BodyRefusal::Malformed(why)),
        _ => Ok(DecodedBody { events, gaps: gaps.finish() }),
    }
}

fn draft(event: Value, now: Time) -> Result<EventDraft, String> {
    let Value::Object(mut map) = event else { return Err(format!("it is {}, not a map", kind(&event))) };
    if let Some(unknown) = map.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(format!("`{unknown}` is no field of an event; the fields are {}", FIELDS.join(", ")));
    }
    let status = match text(&mut map, "status")?.as_deref() {
        Some("firing") => EventStatus::Firing,
        Some("resolved") => EventStatus::Resolved,
        Some(other) => return Err(format!("`status` is {}; write \"firing\" or \"resolved\"", quote(other))),
        None => return Err("`status` is missing; write \"firing\" or \"resolved\"".to_owned()),
    };
    let severity = match text(&mut map, "severity")?.as_deref() {
        None => None,
        Some("info") => Some(Severity::Info),
        Some("warning") => Some(Severity::Warning),
        Some("error") => Some(Severity::Error),
        Some("critical") => Some(Severity::Critical),
        Some(other) => {
            return Err(format!(
                "`severity` is {}; write \"info\", \"warning\", \"error\" or \"critical\"",
                quote(other)
            ));
        }
    };
    let fingerprint = text(&mut map, "fingerprint")?;
    let ends_at = moment(&mut map, "ends_at")?.filter(|_| status == EventStatus::Resolved);
    Ok(EventDraft {
        key: fingerprint.or(text(&mut map, "key")?).filter(|key| !key.is_empty()),
        status,
        starts_at: moment(&mut map, "starts_at")?.or(ends_at).unwrap_or(now),
        ends_at,
        labels: labels(&mut map, "labels")?,
        annotations: labels(&mut map, "annotations")?,
        severity,
        summary: text(&mut map, "summary")?,
        url: text(&mut map, "url")?.unwrap_or_default(),
    })
}

fn text(map: &mut Map<String, Value>, field: &str) -> Result<Option<String>, String> {
    match map.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("`{field}` is {}, not a text; `.to_string()` makes one", kind(&other))),
    }
}

/// RFC 3339, or a whole number: seconds since 1970, or milliseconds if it is that large.
fn moment(map: &mut Map<String, Value>, field: &str) -> Result<Option<Time>, String> {
    const FIRST_MILLIS: i64 = 100_000_000_000;
    match map.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => time(&text).map_err(|why| format!("`{field}`: {why}")),
        Some(Value::Number(number)) if number.is_i64() => {
            let number = number.as_i64().unwrap_or_default();
            let time = match number.abs() {
                0 => return Ok(None),
                size if size >= FIRST_MILLIS => Time::from_millisecond(number),
                _ => Time::from_second(number),
            };
            time.map(Some).map_err(|_| format!("`{field}`: {number} is no moment that a clock can show"))
        }
        Some(other) => Err(format!("`{field}` is {}, not a time (RFC 3339 text, or seconds since 1970)", kind(&other))),
    }
}

fn labels(map: &mut Map<String, Value>, field: &str) -> Result<Labels, String> {
    let given = match map.remove(field) {
        None | Some(Value::Null) => return Ok(Labels::default()),
        Some(Value::Object(given)) => given,
        Some(other) => return Err(format!("`{field}` is {}, not a map", kind(&other))),
    };
    let mut pairs = Vec::with_capacity(given.len().min(limits::LABELS_PER_ALERT + 1));
    for (name, value) in given {
        match value {
            Value::String(value) => pairs.push((name, value)),
            // As Prometheus has it: an empty label does not exist.
            Value::Null => {}
            other => {
                return Err(format!("`{field}.{}` is {}, not a text", name.escape_debug(), kind(&other)));
            }
        }
    }
    Ok(pairs.into_iter().collect())
}

fn strings(value: Option<Value>) -> Result<Vec<String>, BodyRefusal> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                other => malformed(format!("the shape returned a gap that is {}, not a text", kind(&other))),
            })
            .collect(),
        Some(other) => malformed(format!("the shape returned `gaps` as {}, not a list of texts", kind(&other))),
    }
}

fn malformed<T>(why: String) -> Result<T, BodyRefusal> {
    Err(BodyRefusal::Malformed(why))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cfg() -> SourceConfig {
        serde_json::from_value(json!({ "kind": "acme" })).unwrap()
    }

    fn check(output: Value) -> Result<DecodedBody, BodyRefusal> {
        events(output, "acme", &cfg(), "2026-11-02T03:00:00Z".parse().unwrap())
    }

    #[test]
    fn one_event_or_a_list_or_a_map_with_gaps_is_understood() {
        let event = json!({ "status": "firing", "labels": { "alertname": "A" }, "key": "k1" });
        assert_eq!(check(event.clone()).unwrap().events[0].fingerprint, "k1");
        assert_eq!(check(json!([event, event])).unwrap().events.len(), 2);
        let both = check(json!({ "events": [event], "gaps": ["the list was cut"] })).unwrap();
        assert_eq!((both.events.len(), both.gaps), (1, vec!["the list was cut".to_owned()]));
    }

    #[test]
    fn a_wrong_type_is_said_with_its_field() {
        let wrong = |patch: Value| {
            let mut event = json!({ "status": "firing", "labels": { "alertname": "A" } });
            event.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
            match check(event) {
                Err(BodyRefusal::Malformed(why)) => why,
                other => panic!("{other:?}"),
            }
        };
        assert!(wrong(json!({ "status": "ok" })).contains("write \"firing\" or \"resolved\""));
        assert!(wrong(json!({ "severity": "P1" })).contains("`severity`"));
        assert!(wrong(json!({ "labels": { "gpu": 1 } })).contains("`labels.gpu` is a number"));
        assert!(wrong(json!({ "labels": [] })).contains("a list, not a map"));
        assert!(wrong(json!({ "starts_at": 1.5 })).contains("`starts_at`"));
        assert!(wrong(json!({ "sumary": "x" })).contains("`sumary` is no field"));
        assert!(wrong(json!({ "summary": 7 })).contains(".to_string()"));
        assert!(matches!(check(json!("x")), Err(BodyRefusal::Malformed(_))));
    }

    #[test]
    fn times_are_read_as_text_seconds_or_milliseconds() {
        for time in [json!("2026-11-02T03:00:00Z"), json!(1_793_588_400), json!(1_793_588_400_000_i64)] {
            let event = json!({ "status": "resolved", "labels": { "a": "b" }, "starts_at": time, "ends_at": time });
            let event = check(event).unwrap().events.remove(0);
            assert_eq!(event.starts_at.to_string(), "2026-11-02T03:00:00Z");
            assert_eq!(event.ends_at, Some(event.starts_at));
        }
    }

    #[test]
    fn one_bad_event_is_a_gap_and_costs_no_other() {
        let good = json!({ "status": "firing", "labels": { "alertname": "A" } });
        let decoded = check(json!([good, { "status": "odd" }])).unwrap();
        assert_eq!(decoded.events.len(), 1);
        assert!(decoded.gaps[0].starts_with("event 2 of 2"), "{:?}", decoded.gaps);
    }
}
