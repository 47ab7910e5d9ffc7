//! Alertmanager's webhook (version "4"), and the requests of a Prometheus that takes us for an Alertmanager.
//!
//! Invariant: each alert stands for itself: its own status, its own times, and its label set as identity; the group's
//! status and common labels decide nothing, because truncation makes them lie.

use super::draft::{DecodeGaps, EventDraft, json_error, quote, time, too_deep};
use super::{BodyRefusal, DecodedBody};
use crate::config::SourceConfig;
use crate::limits;
use crate::model::{EventStatus, Labels, Time};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Decodes a notification. An alert that cannot be read is a gap and costs no other one; a body of which nothing can
/// be read is refused.
///
/// # Errors
///
/// Fails when the body is no notification, has too many alerts, or none of them can be read.
pub fn decode(body: &[u8], source: &str, cfg: &SourceConfig, now: Time) -> Result<DecodedBody, BodyRefusal> {
    let text = json_text(body)?;
    // Otherwise a list would be read as the fields in order.
    if !text.trim_start().starts_with('{') {
        return Err(BodyRefusal::Malformed("not an Alertmanager notification: it is no JSON object".to_owned()));
    }
    let body: AlertmanagerBody = serde_json::from_str(text)
        .map_err(|e| BodyRefusal::Malformed(format!("not an Alertmanager notification: {}", json_error(&e))))?;
    let alerts = check_shape(&body)?;
    let mut gaps = DecodeGaps::default();
    if let Some(hidden) = body.truncated() {
        gaps.push(format!(
            "Alertmanager cut {hidden} alerts from a notification to {}, so their state is unknown: \
             set `max_alerts: 0` for this receiver",
            quote(&body.receiver())
        ));
    }
    collect(alerts, source, cfg, now, AlertBodyForm::Webhook, gaps)
}

/// Decodes the body of a Prometheus' request to `/api/v2/alerts`: a bare array. The gaps name the alerts that are not
/// valid.
///
/// # Errors
///
/// Fails when the body is no list of alerts, or none of them can be read.
pub fn decode_direct(body: &[u8], source: &str, cfg: &SourceConfig, now: Time) -> Result<DecodedBody, BodyRefusal> {
    let text = json_text(body)?;
    let alerts: RawAlerts = serde_json::from_str(text)
        .map_err(|e| BodyRefusal::Malformed(format!("not a list of alerts: {}", json_error(&e))))?;
    collect(&alerts, source, cfg, now, AlertBodyForm::Direct, DecodeGaps::default())
}

/// A receiver's name as it is written in Alertmanager's configuration: it arrives quoted for a regular expression.
pub fn receiver_name(quoted: &str) -> String {
    let mut name = String::with_capacity(quoted.len());
    let mut rest = quoted.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\\' && rest.peek().is_some_and(|next| r"\.+*?()|[]{}^$".contains(*next)) {
            name.extend(rest.next());
        } else {
            name.push(c);
        }
    }
    name
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AlertBodyForm {
    /// An alert has a status.
    Webhook,
    /// An alert is over once its end has passed.
    Direct,
}

fn json_text(body: &[u8]) -> Result<&str, BodyRefusal> {
    let text = std::str::from_utf8(body).map_err(|e| {
        BodyRefusal::Malformed(format!("the body is not UTF-8 (first wrong byte at {})", e.valid_up_to()))
    })?;
    if too_deep(text) {
        return Err(BodyRefusal::Malformed(format!("the JSON is nested deeper than {}", limits::JSON_DEPTH)));
    }
    Ok(text)
}

fn check_shape<'b, 'a>(body: &'b AlertmanagerBody<'a>) -> Result<&'b RawAlerts<'a>, BodyRefusal> {
    let wrong = |why: &str| Err(BodyRefusal::Malformed(why.to_owned()));
    match body.version.map(RawValue::get) {
        Some("\"4\"") => {}
        Some("\"1\"") => {
            return wrong("version \"1\": this is a notification of Grafana, post it to /in/grafana/<source>");
        }
        Some(other) => {
            return wrong(&format!("version {}: only version \"4\" of Alertmanager's webhook is read", quote(other)));
        }
        None => {
            return wrong(
                "no `version`: this is not Alertmanager's own notification; \
                 remove `payload:` from the receiver, or add a shape in integrations/",
            );
        }
    }
    match &body.alerts {
        Some(alerts) => Ok(alerts),
        None => wrong("no `alerts`: this is not a whole Alertmanager notification"),
    }
}

fn collect(
    alerts: &RawAlerts,
    source: &str,
    cfg: &SourceConfig,
    now: Time,
    form: AlertBodyForm,
    mut gaps: DecodeGaps,
) -> Result<DecodedBody, BodyRefusal> {
    if alerts.count > limits::ALERTS_PER_BODY {
        return Err(BodyRefusal::TooLarge(format!(
            "{} alerts in one body, {} are allowed",
            alerts.count,
            limits::ALERTS_PER_BODY
        )));
    }
    let mut events = Vec::with_capacity(alerts.list.len());
    let mut first_bad = None;
    for (at, raw) in alerts.list.iter().enumerate() {
        let event = draft(raw, now, form).and_then(|draft| draft.finish(source, cfg, &mut gaps));
        match event {
            Ok(event) => events.push(event),
            Err(why) => {
                let why = format!("alert {} of {} could not be read: {why}", at + 1, alerts.count);
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

fn draft(raw: &RawValue, now: Time, form: AlertBodyForm) -> Result<EventDraft, String> {
    if !raw.get().starts_with('{') {
        return Err("it is no JSON object".to_owned());
    }
    let alert: RawAlert = serde_json::from_str(raw.get()).map_err(|e| json_error(&e))?;
    let labels = alert.labels.ok_or("it has no labels")?;
    labels.check("labels")?;
    let starts = optional_time(alert.starts_at.as_ref(), "startsAt")?;
    let ends = optional_time(alert.ends_at.as_ref(), "endsAt")?;
    let over = ends.is_some_and(|end| end <= now);
    let status = match (form, alert.status.as_ref().map(BorrowedText::get)) {
        (AlertBodyForm::Webhook, Some("firing")) => EventStatus::Firing,
        (AlertBodyForm::Webhook, Some("resolved")) => EventStatus::Resolved,
        (AlertBodyForm::Webhook, Some(other)) => {
            return Err(format!("its status {} is neither firing nor resolved", quote(other)));
        }
        (AlertBodyForm::Webhook, None) | (AlertBodyForm::Direct, _) if over => EventStatus::Resolved,
        (AlertBodyForm::Webhook, None) | (AlertBodyForm::Direct, _) => EventStatus::Firing,
    };
    if form == AlertBodyForm::Direct && starts.zip(ends).is_some_and(|(starts, ends)| starts > ends) {
        return Err("it ends before it starts".to_owned());
    }
    // A firing alert's end, where there is one, is only when Alertmanager will forget it.
    let ends_at = ends.filter(|_| status == EventStatus::Resolved);
    Ok(EventDraft {
        // The labels are the identity, whatever `fingerprint` is: the same labels are the same alert.
        key: None,
        status,
        starts_at: starts.or(ends_at).unwrap_or(now),
        ends_at,
        labels: labels.into_labels(),
        annotations: alert.annotations.map(RawLabels::into_labels).unwrap_or_default(),
        severity: None,
        summary: None,
        url: alert.generator_url.map(BorrowedText::into_string).unwrap_or_default(),
    })
}

fn optional_time(text: Option<&BorrowedText>, field: &str) -> Result<Option<Time>, String> {
    text.map_or(Ok(None), |text| time(text.get())).map_err(|why| format!("{field}: {why}"))
}

// ── the wire ── borrowed from the body wherever JSON has no escapes

/// Fields that decide nothing are kept raw, so that no odd value in them can cost a body.
#[derive(Deserialize)]
struct AlertmanagerBody<'a> {
    #[serde(borrow, default)]
    version: Option<&'a RawValue>,
    #[serde(borrow, default)]
    alerts: Option<RawAlerts<'a>>,
    #[serde(borrow, default, rename = "truncatedAlerts")]
    truncated_alerts: Option<&'a RawValue>,
    #[serde(borrow, default)]
    receiver: Option<&'a RawValue>,
}

impl AlertmanagerBody<'_> {
    /// How many alerts are hidden, in words that may be odd; none if the list is whole.
    fn truncated(&self) -> Option<String> {
        let raw = self.truncated_alerts?.get();
        match raw.parse::<f64>() {
            Ok(0.0) => None,
            Ok(_) => Some(raw.to_owned()),
            Err(_) if raw == "null" => None,
            Err(_) => Some("an unknown number of".to_owned()),
        }
    }

    fn receiver(&self) -> String {
        let text = self.receiver.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        receiver_name(&text.unwrap_or_default())
    }
}

#[derive(Deserialize)]
struct RawAlert<'a> {
    #[serde(borrow, default)]
    status: Option<BorrowedText<'a>>,
    #[serde(borrow, default)]
    labels: Option<RawLabels<'a>>,
    #[serde(borrow, default)]
    annotations: Option<RawLabels<'a>>,
    #[serde(borrow, default, rename = "startsAt")]
    starts_at: Option<BorrowedText<'a>>,
    #[serde(borrow, default, rename = "endsAt")]
    ends_at: Option<BorrowedText<'a>>,
    #[serde(borrow, default, rename = "generatorURL")]
    generator_url: Option<BorrowedText<'a>>,
}

/// A list that stops keeping, but not counting, at the bound.
struct RawAlerts<'a> {
    list: Vec<&'a RawValue>,
    count: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for RawAlerts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = RawAlerts<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of alerts")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawAlerts<'de>, A::Error> {
                let mut alerts = RawAlerts { list: Vec::new(), count: 0 };
                while alerts.list.len() < limits::ALERTS_PER_BODY {
                    let Some(raw) = seq.next_element::<&RawValue>()? else {
                        alerts.count = alerts.list.len();
                        return Ok(alerts);
                    };
                    alerts.list.push(raw);
                }
                alerts.count = alerts.list.len();
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    alerts.count += 1;
                }
                Ok(alerts)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// A text that borrows where it can; serde's own `Option<Cow<str>>` never does.
struct BorrowedText<'a>(Cow<'a, str>);

impl<'a> BorrowedText<'a> {
    fn get(&self) -> &str {
        &self.0
    }

    fn into_string(self) -> String {
        self.0.into_owned()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for BorrowedText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = BorrowedText<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<BorrowedText<'de>, E> {
                Ok(BorrowedText(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<BorrowedText<'de>, E> {
                Ok(BorrowedText(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Words)
    }
}

/// Names and values; stops keeping, but not counting, past the bound.
struct RawLabels<'a> {
    list: Vec<(BorrowedText<'a>, BorrowedText<'a>)>,
    count: usize,
}

impl RawLabels<'_> {
    fn check(&self, what: &str) -> Result<(), String> {
        if self.count > self.list.len() {
            return Err(format!("it has {} {what}, {} are allowed", self.count, limits::LABELS_PER_ALERT));
        }
        Ok(())
    }

    fn into_labels(self) -> Labels {
        self.list.into_iter().map(|(name, value)| (name.into_string(), value.into_string())).collect()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawLabels<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = RawLabels<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object whose values are texts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawLabels<'de>, A::Error> {
                // Twice the bound, because empty values do not count as labels.
                let most = 2 * limits::LABELS_PER_ALERT;
                let mut pairs = RawLabels { list: Vec::with_capacity(12), count: 0 };
                while pairs.list.len() < most {
                    let Some(pair) = map.next_entry::<BorrowedText<'de>, BorrowedText<'de>>()? else {
                        pairs.count = pairs.list.len();
                        return Ok(pairs);
                    };
                    pairs.list.push(pair);
                }
                pairs.count = pairs.list.len();
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    pairs.count += 1;
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Map)
    }
}
