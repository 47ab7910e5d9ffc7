//! Titles of incidents and the line of one alert, from the events' fields: the place, the symptom and the code.
//!
//! Invariant: a title is one line of at most `TITLE_CHARS` characters, never empty, without control characters.

use super::{cut, one_line, place_of};
use crate::limits;
use crate::model::Event;
use std::collections::BTreeSet;

/// The symptom of a GPU by XID, for common codes. Others have the name in the table (`xid_name`).
const XID_WORDS: &[(u32, &str)] = &[
    (13, "had a graphics engine exception"),
    (31, "had a memory page fault"),
    (43, "stopped processing an application"),
    (45, "ended an application's work"),
    (46, "stopped processing"),
    (48, "has an uncorrectable memory error"),
    (62, "had an internal controller halt"),
    (63, "remapped a memory row"),
    (64, "failed to remap a memory row"),
    (74, "has an NVLink error"),
    (79, "fell off the bus"),
    (92, "has many correctable memory errors"),
    (94, "had a contained memory error"),
    (95, "had an uncontained memory error"),
    (119, "firmware (GSP) does not answer"),
    (120, "firmware (GSP) has an error"),
];

/// A title for users, from the first event: one line, bounded, with where it is.
pub fn incident_title(event: &Event) -> String {
    let place = one_line(&place_of(event));
    if let Some(what) = xid_words(event).filter(|_| !place.is_empty()) {
        return cut(&format!("{place}: {what}"), limits::TITLE_CHARS);
    }
    let nameless = event.labels.get("alertname").is_empty() && event.summary == event.fingerprint;
    let said = if nameless { "" } else { event.summary.as_str() };
    let without = format!("an alert without a name from {}", event.source);
    let what = [said, event.labels.get("alertname"), &without]
        .into_iter()
        .map(one_line)
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    if place.is_empty() || what.contains(&place) {
        return cut(&what, limits::TITLE_CHARS);
    }
    // The words name the node already, so only the cluster is missing.
    if let Some(cluster) = event.subject.cluster.as_deref().filter(|_| says_node(&what, event)) {
        return cut(&format!("{}: {what}", one_line(cluster)), limits::TITLE_CHARS);
    }
    cut(&format!("{place}: {what}"), limits::TITLE_CHARS)
}

/// The title of an incident with all its alerts: `gpu-1: 2 faults (XID 74 on GPU 4, XID 48 on GPU 2)`,
/// `GpuHot on 30 nodes (gpu-1, gpu-2 and 28 more)`. None where there are no events.
pub fn title_of(events: &[&Event]) -> Option<String> {
    // The worst is named first, and never among those that are only counted.
    let mut events = events.to_vec();
    events.sort_by_key(|event| std::cmp::Reverse(event.severity));
    let first = *events.first()?;
    let mut faults: Vec<(String, String)> = Vec::new();
    for event in &events {
        let fault = (one_line(&place_of(event)), short(event));
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    if faults.len() == 1 {
        return Some(incident_title(first));
    }
    let places: Vec<&str> = distinct(faults.iter().map(|(place, _)| place.as_str()));
    let names: Vec<&str> = distinct(events.iter().map(|event| event.name()));
    let title = match (places.as_slice(), names.as_slice()) {
        ([place], _) => {
            let noun = if first.subject.node.is_some() { "faults" } else { "alerts" };
            let at = if place.is_empty() { String::new() } else { format!("{place}: ") };
            let shorts: Vec<&str> = faults.iter().map(|(_, short)| short.as_str()).collect();
            format!("{at}{} {noun} ({})", faults.len(), some_of(&shorts))
        }
        (places, [name]) => format!("{name} on {} ({})", counted(places.len(), first), some_of(places)),
        (places, _) => format!("{} alerts on {} ({})", faults.len(), counted(places.len(), first), some_of(places)),
    };
    Some(cut(&one_line(&title), limits::TITLE_CHARS))
}

fn counted(number: usize, event: &Event) -> String {
    let subject = &event.subject;
    let what = match (subject.node.is_some(), subject.pod.is_some(), subject.workload.is_some()) {
        (true, ..) => "nodes",
        (_, _, true) => "workloads",
        (_, true, _) => "pods",
        _ => "places",
    };
    format!("{number} {what}")
}

fn distinct<'e>(all: impl Iterator<Item = &'e str>) -> Vec<&'e str> {
    let mut seen = BTreeSet::new();
    all.filter(|one| seen.insert(*one)).collect()
}

/// `a, b and 28 more`.
fn some_of(all: &[&str]) -> String {
    let shown = limits::TITLE_NAMES.min(all.len());
    match all.len() - shown {
        0 => all.join(", "),
        more => format!("{} and {more} more", all[..shown].join(", ")),
    }
}

/// The alert in two or three words, without its node: `XID 74 on GPU 4`, `GpuHot on GPU 1`.
fn short(event: &Event) -> String {
    let what = match (number(event.labels.get("xid")), number(event.labels.get("sxid"))) {
        (Some(code), _) => format!("XID {code}"),
        (None, Some(code)) => format!("SXid {code}"),
        (None, None) => cut(&one_line(event.name()), limits::NAME_SHOWN_CHARS),
    };
    match &event.subject.gpu {
        Some(gpu) => format!("{what} on {}", gpu_words(gpu)),
        None => what,
    }
}

/// `GPU 5 fell off the bus (XID 79)`; none where the event names no code or no GPU.
fn xid_words(event: &Event) -> Option<String> {
    let code = number(event.labels.get("xid"))?;
    let gpu = gpu_words(event.subject.gpu.as_deref()?);
    let known = XID_WORDS.iter().find(|(known, _)| *known == code).map(|(_, words)| *words);
    Some(match (known, event.labels.get("xid_name")) {
        (Some(words), _) => format!("{gpu} {words} (XID {code})"),
        (None, "") => format!("{gpu} reports XID {code}"),
        (None, name) => format!("{gpu} reports XID {code} ({})", cut(&one_line(name), limits::NAME_SHOWN_CHARS)),
    })
}

/// `GPU 5`; an identifier stays as it is.
fn gpu_words(gpu: &str) -> String {
    let gpu = cut(&one_line(gpu), limits::NAME_SHOWN_CHARS);
    if gpu.to_ascii_uppercase().starts_with("GPU") { gpu } else { format!("GPU {gpu}") }
}

/// Whether the words name the node already.
fn says_node(what: &str, event: &Event) -> bool {
    event.subject.node.as_deref().is_some_and(|node| what.contains(node))
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventStatus, Labels, Severity, Subject};

    fn event(name: &str, node: &str, gpu: Option<&str>, labels: &[(&str, &str)]) -> Event {
        let mut all: Labels = labels.iter().copied().collect();
        all.set("alertname", name);
        Event {
            source: "am".into(),
            fingerprint: "f".into(),
            status: EventStatus::Firing,
            starts_at: "2026-11-23T03:00:00Z".parse().unwrap(),
            ends_at: None,
            labels: all,
            annotations: Labels::default(),
            subject: Subject { gpu: gpu.map(str::to_owned), ..Subject::node(node) },
            severity: Severity::Critical,
            summary: format!("{name} somewhere"),
            url: String::new(),
        }
    }

    fn xid(node: &str, gpu: &str, code: &str) -> Event {
        event("GpuXid", node, Some(gpu), &[("xid", code), ("xid_name", "NAME_OF_TABLE")])
    }

    #[test]
    fn a_code_is_said_in_words_and_an_unknown_one_by_the_tables_name() {
        assert_eq!(incident_title(&xid("gpu-3", "5", "79")), "gpu-3: GPU 5 fell off the bus (XID 79)");
        assert_eq!(incident_title(&xid("gpu-3", "5", "155")), "gpu-3: GPU 5 reports XID 155 (NAME_OF_TABLE)");
        let mut hot = event("GpuHot", "gpu-2", Some("1"), &[]);
        hot.summary = "GPU 1 on gpu-2 is at 96 °C".to_owned();
        assert_eq!(incident_title(&hot), "GPU 1 on gpu-2 is at 96 °C");
        hot.subject.cluster = Some("prod".to_owned());
        assert_eq!(incident_title(&hot), "prod: GPU 1 on gpu-2 is at 96 °C");
        let bare = Event { labels: Labels::default(), subject: Subject::default(), summary: "f".into(), ..hot };
        assert_eq!(incident_title(&bare), "an alert without a name from am");
        assert_eq!(incident_title(&xid("gpu-3", "GPU-8f3a", "79")), "gpu-3: GPU-8f3a fell off the bus (XID 79)");
    }

    #[test]
    fn a_title_names_all_faults_of_a_node_and_counts_nodes() {
        let (a, b, hot) = (xid("gpu-1", "4", "74"), xid("gpu-1", "2", "48"), event("GpuHot", "gpu-1", Some("1"), &[]));
        assert_eq!(title_of(&[&a, &b]).unwrap(), "gpu-1: 2 faults (XID 74 on GPU 4, XID 48 on GPU 2)");
        assert_eq!(
            title_of(&[&a, &b, &hot]).unwrap(),
            "gpu-1: 3 faults (XID 74 on GPU 4, XID 48 on GPU 2, GpuHot on GPU 1)"
        );
        assert_eq!(title_of(&[&a, &a]).unwrap(), "gpu-1: GPU 4 has an NVLink error (XID 74)", "two sources, one fault");
        let many: Vec<Event> = (1..=30).map(|no| event("GpuHot", &format!("gpu-{no}"), Some("0"), &[])).collect();
        let title = title_of(&many.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(title, "GpuHot on 30 nodes (gpu-1, gpu-2, gpu-3, gpu-4 and 26 more)");
        assert_eq!(title_of(&[&a, &many[4]]).unwrap(), "2 alerts on 2 nodes (gpu-1, gpu-5)");
        assert_eq!(title_of(&[]), None);
    }
}
