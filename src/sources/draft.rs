//! The end of every decoder: bounds on labels and texts, the subject, the event.
//!
//! Invariant: a label that breaks a bound costs its alert (it is identity); an annotation that does is cut, and both are gaps.

use crate::config::SourceConfig;
use crate::limits;
use crate::model::{Event, EventStatus, Labels, Severity, Subject, Time};

/// Gaps of one body, bounded in number.
#[derive(Debug, Default)]
pub(super) struct DecodeGaps {
    list: Vec<String>,
    more: usize,
}

impl DecodeGaps {
    /// Adds a gap; beyond `GAPS_PER_BODY` only their number is kept.
    pub fn push(&mut self, text: String) {
        if self.list.len() < limits::GAPS_PER_BODY {
            self.list.push(text);
        } else {
            self.more += 1;
        }
    }

    /// The gaps, with a line for the number of further ones.
    pub fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            self.list.push(format!("and {} more of the kind", self.more));
        }
        self.list
    }
}

/// An event before its bounds were checked.
pub(super) struct EventDraft {
    /// The source's own identity; none: the labels are the identity.
    pub key: Option<String>,
    pub status: EventStatus,
    pub starts_at: Time,
    pub ends_at: Option<Time>,
    pub labels: Labels,
    pub annotations: Labels,
    pub severity: Option<Severity>,
    pub summary: Option<String>,
    pub url: String,
}

impl EventDraft {
    /// The event, or why there is none.
    ///
    /// # Errors
    ///
    /// Fails when there are no labels, or one breaks a bound; the message names it.
    pub fn finish(self, source: &str, cfg: &SourceConfig, gaps: &mut DecodeGaps) -> Result<Event, String> {
        check_labels(&self.labels)?;
        if self.labels.is_empty() {
            return Err("it has no labels".to_owned());
        }
        // Before the site's own labels: the identity is the source's own, so that its API can be queried by it.
        let fingerprint = match self.key {
            Some(key) => bounded_key(key),
            None => format!("{:016x}", self.labels.fingerprint()),
        };
        let mut labels = self.labels;
        for (name, value) in &cfg.add_labels {
            labels.set(name.as_str(), value.as_str());
        }
        let annotations = bounded_annotations(self.annotations, &labels, gaps);
        let mut url = self.url;
        if url.len() > limits::LABEL_VALUE_BYTES {
            gaps.push(format!("{}: its URL was too long and was left out", name_of(&labels)));
            url.clear();
        }
        let severity = self.severity.unwrap_or_else(|| Severity::from_label(labels.get("severity")));
        let summary = self.summary.filter(|text| !text.is_empty()).unwrap_or_else(|| {
            ["summary", "description", "message"]
                .into_iter()
                .map(|name| annotations.get(name))
                .find(|text| !text.is_empty())
                .unwrap_or_else(|| labels.get("alertname"))
                .to_owned()
        });
        Ok(Event {
            source: source.to_owned(),
            fingerprint,
            status: self.status,
            starts_at: whole_micros(self.starts_at),
            ends_at: self.ends_at.map(whole_micros),
            subject: Subject::from_labels(&labels, &cfg.labels),
            severity,
            summary: cut(summary, limits::LABEL_VALUE_BYTES),
            url,
            labels,
            annotations,
        })
    }
}

/// A text from outside, short and without control characters, in quotes.
pub(super) fn quote(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{dots}")
}

/// RFC 3339 with any offset and 0 to 9 digits of a second; Go's zero time is no time. Errors are for users.
pub(super) fn time(text: &str) -> Result<Option<Time>, String> {
    // Go prints the zero time in this form alone.
    if text.is_empty() || text.starts_with("0001-01-01T00:00:00") {
        return Ok(None);
    }
    text.parse::<Time>().map(Some).map_err(|_| format!("{} is not a time as in RFC 3339", quote(text)))
}

/// Brackets deeper than this cost stack wherever they are read. One pass, before any allocation.
pub(super) fn too_deep(text: &str) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limits::JSON_DEPTH {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The error in the JSON, without more of its content than a line can hold.
pub(super) fn json_error(error: &serde_json::Error) -> String {
    let text: String = error.to_string().chars().take(200).collect();
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn check_labels(labels: &Labels) -> Result<(), String> {
    if labels.len() > limits::LABELS_PER_ALERT {
        return Err(format!("it has {} labels, {} are allowed", labels.len(), limits::LABELS_PER_ALERT));
    }
    for (name, value) in labels.iter() {
        if name.is_empty() {
            return Err("it has a label without a name".to_owned());
        }
        if name.len() > limits::LABEL_NAME_BYTES {
            return Err(format!("the label {} has a name of {} bytes", quote(name), name.len()));
        }
        if value.len() > limits::LABEL_VALUE_BYTES {
            return Err(format!("the label {} has a value of {} bytes", quote(name), value.len()));
        }
    }
    Ok(())
}

fn bounded_annotations(given: Labels, labels: &Labels, gaps: &mut DecodeGaps) -> Labels {
    let fits = given.len() <= limits::LABELS_PER_ALERT
        && given.iter().all(|(n, v)| n.len() <= limits::LABEL_NAME_BYTES && v.len() <= limits::LABEL_VALUE_BYTES);
    if fits {
        return given;
    }
    gaps.push(format!("{}: some of its annotations were too long or too many and were cut", name_of(labels)));
    given
        .iter()
        .filter(|(name, _)| name.len() <= limits::LABEL_NAME_BYTES)
        .take(limits::LABELS_PER_ALERT)
        .map(|(name, value)| (name.to_owned(), cut(value.to_owned(), limits::LABEL_VALUE_BYTES)))
        .collect()
}

fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let mut end = most - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

fn name_of(labels: &Labels) -> String {
    match labels.get("alertname") {
        "" => "an alert without a name".to_owned(),
        name => format!("alert {}", quote(name)),
    }
}

fn bounded_key(key: String) -> String {
    use sha2::{Digest, Sha256};
    if key.len() <= limits::FINGERPRINT_BYTES && !key.chars().any(char::is_control) {
        return key;
    }
    format!("sha256-{}", hex::encode(Sha256::digest(key.as_bytes())))
}

/// The store keeps microseconds; a time that is compared with a stored one must have no more.
fn whole_micros(time: Time) -> Time {
    Time::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_with_any_digits_and_offset_and_gos_zero_is_none() {
        for text in [
            "2026-11-02T03:00:00Z",
            "2026-11-02T03:00:00.0Z",
            "2026-11-02T03:00:00.000000000Z",
            "2026-11-02T04:00:00+01:00",
            "2026-11-01T19:30:00.0-07:30",
        ] {
            assert_eq!(time(text).unwrap().unwrap().to_string(), "2026-11-02T03:00:00Z", "{text}");
        }
        assert_eq!(time("2026-11-02T03:00:00.123456789Z").unwrap().unwrap().subsec_nanosecond(), 123_456_789);
        for none in ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z", ""] {
            assert_eq!(time(none).unwrap(), None, "{none}");
        }
        for wrong in ["yesterday", "2026-13-01T00:00:00Z", "2026-11-02", "1730516400", "2026-11-02T03:00:00"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn depth_counts_brackets_outside_of_texts() {
        assert!(!too_deep(r#"{"a":"[[[[[[[[[[[[[[[[[[[[[[","b":"\"[[[[[[[[[[[[[[[[[[["}"#));
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(!too_deep(&deep(limits::JSON_DEPTH)));
        assert!(too_deep(&deep(limits::JSON_DEPTH + 1)));
        assert!(!too_deep(&"[]".repeat(1000)));
    }

    #[test]
    fn a_long_key_is_hashed_and_a_short_one_kept() {
        assert_eq!(bounded_key("monitor-17".into()), "monitor-17");
        assert!(bounded_key("x".repeat(129)).starts_with("sha256-"));
        assert!(bounded_key("a\nb".into()).starts_with("sha256-"));
    }
}
