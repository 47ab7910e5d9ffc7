//! Tests of correlation: rules 3 and 15 of Alertmanager's delivery, keys and titles.
//!
//! Invariant: each row of the table is one thing that HA peers or timeouts really do.

use super::*;
use crate::model::{Labels, Severity};
use proptest::prelude::*;

fn at(second: i64) -> Time {
    Time::from_second(1_700_000_000 + second).unwrap()
}

fn event(status: EventStatus, starts: i64, ends: Option<i64>) -> Event {
    Event {
        source: "am".to_owned(),
        fingerprint: "00ff".to_owned(),
        status,
        starts_at: at(starts),
        ends_at: ends.map(at),
        labels: [("alertname", "GpuXid"), ("rack", "r7")].into_iter().collect(),
        annotations: Labels::default(),
        subject: Subject::default(),
        severity: Severity::Critical,
        summary: "GPU has fallen off the bus (XID 79)".to_owned(),
        url: String::new(),
    }
}

#[test]
fn an_event_changes_its_episode_as_decided() {
    use EpisodeChange::*;
    use EpisodeState::{Open, Resolved as Ended, Stale};
    use EventStatus::{Firing, Resolved as Over};
    #[rustfmt::skip]
    let table = [
        // prior               event               change     why
        (None,               (Firing, 10, None),     Opened,    "the first word"),
        (None,               (Over, 10, Some(20)),   Late,      "an end of what was never heard"),
        (Some((Open, 10)),   (Firing, 10, None),     Refreshed, "a repeat"),
        (Some((Open, 10)),   (Firing, 5, None),      Refreshed, "a replica that saw it earlier"),
        (Some((Open, 10)),   (Firing, 15, None),     Refreshed, "a Prometheus that restarted"),
        (Some((Open, 10)),   (Over, 10, Some(20)),   Resolved,  "its end"),
        (Some((Open, 10)),   (Over, 15, Some(20)),   Resolved,  "its end, told by a peer with another start"),
        (Some((Open, 10)),   (Over, 5, Some(20)),    Resolved,  "its end, told by a peer that saw it earlier"),
        (Some((Open, 10)),   (Over, 5, None),        Resolved,  "a source that names no end"),
        (Some((Open, 10)),   (Over, 5, Some(8)),     Late,      "the end of an earlier span, from a peer that lags"),
        (Some((Open, 10)),   (Over, 5, Some(10)),    Late,      "an earlier span that ended where ours began"),
        (Some((Ended, 10)),  (Over, 10, Some(20)),   Late,      "the same end from the other peer"),
        (Some((Ended, 10)),  (Firing, 10, None),     Reopened,  "a peer that lags, or an end that was only a timeout"),
        (Some((Ended, 10)),  (Firing, 5, None),      Reopened,  "the same, with an earlier start"),
        (Some((Ended, 10)),  (Firing, 11, None),     Opened,    "a later start is a new episode"),
        (Some((Stale, 10)),  (Firing, 10, None),     Reopened,  "the source speaks again"),
        (Some((Stale, 10)),  (Firing, 11, None),     Opened,    "and of something new"),
        (Some((Stale, 10)),  (Over, 10, Some(20)),   Late,      "nobody waits for this end any more"),
    ];
    for (prior, (status, starts, ends), change, why) in table {
        let prior = prior.map(|(state, starts)| PriorEpisode { state, starts_at: at(starts) });
        assert_eq!(hear(prior.as_ref(), &event(status, starts, ends)), change, "{why}");
    }
}

#[test]
fn an_incident_is_keyed_by_the_most_telling_container() {
    let check = |subject: Subject, expect: &str| {
        let event = Event { subject, ..event(EventStatus::Firing, 0, None) };
        assert_eq!(incident_key(&event, &[]), expect);
    };
    let some = |text: &str| Some(text.to_owned());
    check(Subject { gpu: some("1"), pod: some("llm-0"), ..Subject::node("gpu-3") }, "node=gpu-3");
    check(Subject { cluster: some("eu-1"), ..Subject::node("gpu-3") }, "cluster=eu-1,node=gpu-3");
    check(Subject { pod: some("llama-0"), ..Subject::workload("serve", "llama") }, "namespace=serve,workload=llama");
    check(Subject::pod("serve", "llama-0"), "namespace=serve,pod=llama-0");
    check(Subject { model: some("meta/llama 3"), ..Subject::default() }, "model=\"meta/llama 3\"");
    check(Subject { cluster: some("eu-1"), ..Subject::default() }, "cluster=eu-1,alertname=GpuXid");
    check(Subject::default(), "alertname=GpuXid");
}

#[test]
fn a_rule_may_group_by_parts_and_labels_but_never_by_nothing() {
    let event = Event { subject: Subject::node("gpu-3"), ..event(EventStatus::Firing, 0, None) };
    let key = |names: &[&str]| incident_key(&event, &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(key(&["rack", "node"]), "rack=r7,node=gpu-3");
    assert_eq!(key(&["rack", "zone"]), "rack=r7,zone=");
    assert_eq!(key(&["zone", "row"]), "node=gpu-3", "unknown values fall back to the default");
}

#[test]
fn a_title_is_one_line_that_says_where() {
    let check = |subject: Subject, summary: &str, expect: &str| {
        let event = Event { subject, summary: summary.to_owned(), ..event(EventStatus::Firing, 0, None) };
        assert_eq!(incident_title(&event), expect);
    };
    check(Subject::node("gpu-3"), "GPU has fallen off the bus (XID 79)", "gpu-3: GPU has fallen off the bus (XID 79)");
    check(Subject::node("gpu-3"), "XID 79 on gpu-3", "XID 79 on gpu-3");
    check(Subject::node("gpu-3"), " ", "gpu-3: GpuXid");
    check(Subject::workload("serve", "llama"), "no\nprogress\x1b[31m", "serve/llama: no progress [31m");
    check(Subject::default(), "abc\u{202e}def", "abcdef");
}

proptest! {
    #[test]
    fn keys_and_titles_are_bounded_and_titles_are_one_line(text in "(?s).{0,900}", node in "(?s).{1,600}") {
        let event = Event { summary: text, subject: Subject::node(node), ..event(EventStatus::Firing, 0, None) };
        let (key, title) = (incident_key(&event, &[]), incident_title(&event));
        prop_assert!(key.len() <= limits::INCIDENT_KEY_BYTES && !key.is_empty());
        prop_assert!(title.chars().count() <= limits::TITLE_CHARS && !title.is_empty());
        prop_assert!(!title.chars().any(char::is_control));
    }

    /// Any sequence, each event twice: the second time changes nothing, and nothing is open that was not said to fire.
    #[test]
    fn the_same_event_again_changes_a_counter_and_nothing_else(said in prop::collection::vec((any::<bool>(), 0i64..6), 1..30)) {
        let mut prior: Option<PriorEpisode> = None;
        for (firing, starts) in said {
            let event = match firing {
                true => event(EventStatus::Firing, starts, None),
                false => event(EventStatus::Resolved, starts, Some(starts + 1)),
            };
            for again in [false, true] {
                let change = hear(prior.as_ref(), &event);
                let quiet = matches!(change, EpisodeChange::Refreshed | EpisodeChange::Late);
                prop_assert!(!again || quiet, "{change:?} the second time");
                let earliest = |prior: &Option<PriorEpisode>| prior.as_ref().map_or(event.starts_at, |p| p.starts_at.min(event.starts_at));
                prior = match change {
                    EpisodeChange::Opened => Some(PriorEpisode { state: EpisodeState::Open, starts_at: event.starts_at }),
                    EpisodeChange::Reopened | EpisodeChange::Refreshed => {
                        Some(PriorEpisode { state: EpisodeState::Open, starts_at: earliest(&prior) })
                    }
                    EpisodeChange::Resolved => prior.map(|prior| PriorEpisode { state: EpisodeState::Resolved, ..prior }),
                    EpisodeChange::Late => prior,
                };
            }
            let open = prior.as_ref().is_some_and(|prior| prior.state == EpisodeState::Open);
            prop_assert!(!firing || open, "what fires is open");
        }
    }

    #[test]
    fn two_different_values_never_share_a_key(a in "[a,=\"\\\\ ]{0,6}", b in "[a,=\"\\\\ ]{0,6}", c in "[a,=\"\\\\ ]{0,6}", d in "[a,=\"\\\\ ]{0,6}") {
        let names = ["x".to_owned(), "y".to_owned()];
        let with = |x: &str, y: &str| Event {
            labels: [("x", x), ("y", y)].into_iter().collect(), ..event(EventStatus::Firing, 0, None)
        };
        prop_assume!((!a.is_empty() || !b.is_empty()) && (!c.is_empty() || !d.is_empty()));
        let same = incident_key(&with(&a, &b), &names) == incident_key(&with(&c, &d), &names);
        prop_assert_eq!(same, (a, b) == (c, d));
    }
}

#[test]
fn a_storm_has_a_key_of_its_alert_its_rule_and_its_cluster_and_a_title_that_counts() {
    let mut event = event(EventStatus::Firing, 10, None);
    assert_eq!(group_key(&event, Some("gpu hot")), "group/alertname=GpuXid,rule=\"gpu hot\"");
    assert_eq!(group_key(&event, None), "group/alertname=GpuXid");
    event.subject = Subject { cluster: Some("eu-1".to_owned()), gpu: Some("5".to_owned()), ..Subject::node("gpu-3") };
    assert_eq!(group_key(&event, None), "group/alertname=GpuXid,cluster=eu-1");
    assert_eq!(alert_place(&event), "GpuXid (GPU 5 of eu-1/gpu-3)");
    let by = ["cluster".to_owned(), "rack".to_owned(), "team".to_owned()];
    assert_eq!((incident_part(&event, &by), incident_part(&event, &[])), ("rack", "node"));
    assert_eq!(group_title("GpuHot", 30, Some("node")), "GpuHot on 30 nodes");
    assert_eq!(group_title("GpuHot", 4, Some("rack")), "GpuHot on 4 subjects");
    assert_eq!(group_title("Gpu\nHot", 4, None), "Gpu Hot on 4 subjects");
}
