//! The page of metrics in the two formats that Prometheus reads: OpenMetrics 1.0, and the text format 0.0.4.
//!
//! Invariant: both name the same series with the same values; OpenMetrics is sent only to a client that accepts it.

use super::table::{MetricKind, TABLE};

/// A format of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpositionFormat {
    Text,
    OpenMetrics,
}

impl ExpositionFormat {
    /// The format for an `Accept` header: OpenMetrics where it is named and not liked less than plain text.
    pub fn accepted(accept: &str) -> ExpositionFormat {
        let (mut open, mut text) = (0, 0);
        for range in accept.split(',').take(crate::limits::ACCEPT_RANGES) {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1_000, thousandths);
            match name.as_str() {
                "application/openmetrics-text" => open = weight.max(open),
                "text/plain" | "text/*" => text = weight.max(text),
                _ => {}
            }
        }
        if open > 0 && open >= text { ExpositionFormat::OpenMetrics } else { ExpositionFormat::Text }
    }

    /// The value of the header `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            ExpositionFormat::Text => "text/plain; version=0.0.4; charset=utf-8",
            ExpositionFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// `0.5` as 500; a text that is no weight counts as 0, so that it selects nothing.
fn thousandths(weight: &str) -> u32 {
    let weight: f64 = weight.trim().parse().unwrap_or(0.0);
    if (0.0..=1.0).contains(&weight) { (weight * 1_000.0) as u32 } else { 0 }
}

/// From OpenMetrics to the text format 0.0.4: there help and type stand under the name of the samples (`…_total`), and there
/// is no end mark and no unit.
pub(super) fn to_text(open: &str) -> String {
    let mut page = String::with_capacity(open.len() + 2_048);
    for line in open.lines() {
        let Some(rest) = line.strip_prefix("# ") else {
            page.push_str(line);
            page.push('\n');
            continue;
        };
        let mut words = rest.splitn(3, ' ');
        let (word, name, rest) = (words.next(), words.next(), words.next());
        if let (Some(word @ ("HELP" | "TYPE")), Some(name), Some(rest)) = (word, name, rest) {
            let total = if is_counter(name) { "_total" } else { "" };
            page.push_str(&format!("# {word} {name}{total} {rest}\n"));
        }
    }
    page
}

fn is_counter(name: &str) -> bool {
    let name = name.strip_prefix("nightshift_").unwrap_or(name);
    TABLE.iter().any(|metric| metric.name == name && metric.kind == MetricKind::Counter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_sent_only_to_a_client_that_asks_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,\
                          text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, format) in [
            (prometheus, ExpositionFormat::OpenMetrics),
            ("application/openmetrics-text", ExpositionFormat::OpenMetrics),
            ("application/openmetrics-text; q=0.2, text/plain; q=0.9", ExpositionFormat::Text),
            ("application/openmetrics-text;q=0", ExpositionFormat::Text),
            ("application/openmetrics-text;q=nan", ExpositionFormat::Text),
            ("text/plain;version=0.0.4", ExpositionFormat::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", ExpositionFormat::Text),
            ("*/*", ExpositionFormat::Text),
            ("", ExpositionFormat::Text),
        ] {
            assert_eq!(ExpositionFormat::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn help_and_type_of_a_counter_stand_under_the_name_of_its_samples() {
        let open = "# HELP nightshift_events_acked Events.\n# TYPE nightshift_events_acked counter\n\
                    nightshift_events_acked_total 3\n# HELP nightshift_connections Open.\n\
                    # TYPE nightshift_connections gauge\n# UNIT x y\nnightshift_connections 1\n# EOF\n";
        assert_eq!(
            to_text(open),
            "# HELP nightshift_events_acked_total Events.\n# TYPE nightshift_events_acked_total counter\n\
             nightshift_events_acked_total 3\n# HELP nightshift_connections Open.\n\
             # TYPE nightshift_connections gauge\nnightshift_connections 1\n"
        );
    }
}
