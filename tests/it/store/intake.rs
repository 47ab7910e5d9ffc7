//! What events do.
//!
//! Invariant: each case reads back what it wrote through the trait.

use super::Open;
use super::fixtures::*;
use nightshift::model::{
    Entry, EntryKind, EpisodeState, EventOutcome, IncidentState, Mode, ReasonCode, Role, RoleGrant, RunState, Severity,
};
use nightshift::store::{ControlChange, Filter, IntakeResult, NewToken, Store, StoreError};
use serde_json::json;
use std::sync::Arc;

pub async fn a_new_event_opens_an_episode_an_incident_a_run_and_a_notice(open: Open<'_>) {
    let store = open();
    let heard = hear(&store, &auto(), vec![event("Xid79", "gpu-3")], at(1)).await;
    assert_eq!((heard.opened, heard.runs.len(), heard.nudge), (1, 1, true));
    assert_eq!(story(&store).await, ["started", "heard", "incident_opened", "run_created"]);

    let episode = store.episodes(all()).await.unwrap().remove(0);
    assert_eq!((episode.state, episode.seen), (EpisodeState::Open, 1));
    assert_eq!(episode.event, event("Xid79", "gpu-3"));
    let incident = store.incidents(Filter { open: true, ..all() }).await.unwrap().remove(0);
    assert_eq!((incident.firing, incident.episodes, incident.state), (1, 1, IncidentState::Open));
    let run = store.runs(of_run(heard.runs[0])).await.unwrap().remove(0);
    assert_eq!((&run.state, run.mode, run.incident), (&RunState::Ready, Mode::Auto, Some(incident.id)));
    assert_eq!(run.episode, Some(episode.id));

    let due = store.due(at(1), 10).await.unwrap();
    assert_eq!(due.runs, heard.runs);
    assert_eq!((due.notices[0].channel.as_str(), due.notices[0].incident), ("slack", incident.id));
    let said = last_heard(&store).await;
    assert_eq!((said.incident, said.runs, said.change.as_str()), (Some(incident.id), heard.runs, "opened"));
}

async fn heard_entries(store: &Arc<dyn Store>) -> Vec<Vec<EventOutcome>> {
    let entries: Vec<Entry> = store.entries(Filter { kinds: vec!["heard"], ..all() }).await.unwrap();
    let events = entries.into_iter().map(|entry| match entry.kind {
        EntryKind::Heard { events, .. } => events,
        other => panic!("{other:?} is not what was asked for"),
    });
    events.collect()
}

async fn last_heard(store: &Arc<dyn Store>) -> EventOutcome {
    heard_entries(store).await.remove(0).pop().unwrap()
}

pub async fn the_same_event_again_changes_a_counter_and_nothing_else(open: Open<'_>) {
    let store = open();
    hear(&store, &auto(), vec![event("Xid79", "gpu-3")], at(1)).await;
    let before = (store.counts().await.unwrap(), story(&store).await);
    let again = hear(&store, &auto(), vec![event("Xid79", "gpu-3")], at(2)).await;
    assert_eq!(again, IntakeResult { refreshed: 1, ..IntakeResult::default() });
    assert_eq!((store.counts().await.unwrap(), story(&store).await), before);
    let episode = store.episodes(all()).await.unwrap().remove(0);
    assert_eq!((episode.seen, episode.last_seen), (2, at(2)));
    let late = hear(&store, &auto(), vec![resolved(event("Xid79", "gpu-9"))], at(3)).await;
    assert_eq!(late, IntakeResult { late: 1, ..IntakeResult::default() });
    assert_eq!(story(&store).await, before.1);
}

pub async fn an_end_and_the_same_start_again_reopen_the_episode_without_a_second_run(open: Open<'_>) {
    let store = open();
    let first = hear(&store, &auto(), vec![event("Xid79", "gpu-3")], at(1)).await;
    let ended = hear(&store, &auto(), vec![resolved(event("Xid79", "gpu-3"))], at(2)).await;
    assert_eq!(ended.resolved, 1);
    let incident = store.incidents(all()).await.unwrap().remove(0);
    assert_eq!((incident.state, incident.closed_at), (IncidentState::Resolved, Some(at(2))));

    let again = hear(&store, &auto(), vec![event("Xid79", "gpu-3")], at(3)).await;
    assert_eq!((again.reopened, again.runs.len()), (1, 0));
    assert_eq!(last_heard(&store).await.reasons[0].code, ReasonCode::AlreadyHandled);
    let episode = store.episodes(all()).await.unwrap().remove(0);
    assert_eq!((episode.state, episode.reopened, episode.incident), (EpisodeState::Open, 1, Some(incident.id)));
    let incident = store.incidents(all()).await.unwrap().remove(0);
    assert_eq!((incident.state, incident.firing, incident.episodes), (IncidentState::Open, 1, 1));
    assert_eq!(store.runs(all()).await.unwrap().len(), first.runs.len());
}

pub async fn a_newer_start_after_an_end_is_a_new_episode_with_a_new_run(open: Open<'_>) {
    let store = open();
    let first = hear(&store, &auto(), vec![event("Xid79", "gpu-3")], at(1)).await;
    hear(&store, &auto(), vec![resolved(event("Xid79", "gpu-3"))], at(2)).await;
    let claimed = store.claim(first.runs[0], at(2)).await.unwrap().unwrap();
    store.finish(claimed.run.id, claimed.run.epoch, RunState::Done, at(2)).await.unwrap();
    let mut newer = event("Xid79", "gpu-3");
    newer.starts_at = at(100);
    let second = hear(&store, &auto(), vec![newer], at(101)).await;
    assert_eq!((second.opened, second.runs.len()), (1, 1));
    assert_eq!(store.incidents(all()).await.unwrap().len(), 2);
}

pub async fn an_event_that_no_rule_matches_is_an_incident_by_the_catch_all(open: Open<'_>) {
    let store = open();
    let heard = hear(&store, &auto(), vec![event("Other", "gpu-3")], at(1)).await;
    assert_eq!((heard.opened, heard.unmatched, heard.nudge), (1, 1, true));
    let incident = store.incidents(all()).await.unwrap().remove(0);
    let said = last_heard(&store).await;
    assert_eq!((said.incident, said.reasons[0].code), (Some(incident.id), ReasonCode::NoRuleMatched));
    assert!(said.reasons[0].text.contains("for oncall"), "{}", said.reasons[0]);
    assert_eq!(store.episodes(all()).await.unwrap()[0].incident, Some(incident.id));
    assert!(store.runs(all()).await.unwrap().is_empty());
    let due = store.due(at(1), 10).await.unwrap();
    assert_eq!((due.notices.len(), due.notices[0].channel.as_str()), (1, "oncall"));
    // What ends is no second unmatched event, and what a rule matches is none.
    let over = hear(&store, &auto(), vec![resolved(event("Other", "gpu-3"))], at(2)).await;
    assert_eq!((over.resolved, over.unmatched), (1, 0));
}

pub async fn a_muted_event_makes_no_incident(open: Open<'_>) {
    let store = open();
    let mut rule = rule(Mode::Auto);
    rule["unless"] = json!(["node=\"gpu-3\""]);
    hear(&store, &rules(json!([rule])), vec![event("Xid79", "gpu-3")], at(1)).await;
    let said = last_heard(&store).await;
    assert_eq!((said.incident, said.reasons[0].code), (None, ReasonCode::Muted));
    assert!(store.runs(all()).await.unwrap().is_empty());
}

pub async fn a_rule_without_a_runbook_tells_in_any_mode(open: Open<'_>) {
    let store = open();
    let tell = json!({ "name": "tell", "when": ["alertname=\"Xid79\""], "tell": ["email"] });
    let both = rules(json!([rule(Mode::Observe), tell]));
    let heard = hear(&store, &both, vec![event("Xid79", "gpu-3")], at(1)).await;
    assert_eq!(heard.runs.len(), 1, "observe still plans");
    let due = store.due(at(1), 10).await.unwrap();
    let channels: Vec<&str> = due.notices.iter().map(|notice| notice.channel.as_str()).collect();
    assert_eq!(channels, ["email", "slack"], "the mode governs acting alone");
}

pub async fn a_rule_is_silent_below_the_mode_from_which_it_notifies(open: Open<'_>) {
    let store = open();
    let mut quiet = rule(Mode::Observe);
    quiet["tell_in"] = json!("suggest");
    hear(&store, &rules(json!([quiet.clone()])), vec![event("Xid79", "gpu-3")], at(1)).await;
    assert!(store.due(at(1), 10).await.unwrap().notices.is_empty());
    assert_eq!(store.incidents(all()).await.unwrap().len(), 1, "an incident all the same");
    quiet["mode"] = json!("suggest");
    hear(&store, &rules(json!([quiet])), vec![event("Xid79", "gpu-4")], at(2)).await;
    assert_eq!(store.due(at(2), 10).await.unwrap().notices.len(), 1);
}

pub async fn an_ignored_event_makes_no_incident_and_has_its_reason(open: Open<'_>) {
    let store = open();
    let watchdog = json!({ "name": "w", "when": ["alertname=\"Watchdog\""], "ignore": "it always fires" });
    let heard = hear(&store, &rules(json!([watchdog])), vec![event("Watchdog", "gpu-3")], at(1)).await;
    assert_eq!((heard.opened, heard.unmatched, heard.nudge), (1, 0, false));
    let said = last_heard(&store).await;
    assert_eq!((said.incident, said.reasons[0].code), (None, ReasonCode::Muted));
    assert!(said.reasons[0].text.contains("rule `w` ignores it: it always fires"), "{}", said.reasons[0]);
    assert!(store.incidents(all()).await.unwrap().is_empty());
}

pub async fn an_alert_that_joins_an_open_incident_leaves_a_line_and_raises_it(open: Open<'_>) {
    let store = open();
    let tell = json!([{ "name": "r", "when": ["node!=\"\""], "tell": ["slack"] }]);
    let mut first = event("GpuHot", "gpu-1");
    first.severity = Severity::Warning;
    hear(&store, &rules(tell.clone()), vec![first], at(1)).await;
    let mut second = event("GpuXid", "gpu-1");
    second.subject.gpu = Some("1".to_owned());
    hear(&store, &rules(tell), vec![second], at(2)).await;
    let incident = store.incidents(all()).await.unwrap().remove(0);
    assert_eq!((incident.firing, incident.severity), (2, Severity::Critical));
    let joined = store.entries(Filter { kinds: vec!["alerts_joined"], ..all() }).await.unwrap().remove(0);
    assert_eq!(joined.about.incident, Some(incident.id));
    let EntryKind::AlertsJoined { alerts, more: 0, title: None, raised: Some(Severity::Critical) } = joined.kind else {
        panic!("{joined:?}")
    };
    assert_eq!(alerts, ["GpuXid (GPU 1 of gpu-1)"]);
}

pub async fn two_events_with_one_bucket_share_a_run(open: Open<'_>) {
    let store = open();
    let mut second = event("Xid79", "gpu-3");
    second.labels.set("gpu", "5");
    second.fingerprint = "feedfacecafebeef".to_owned();
    let heard = hear(&store, &auto(), vec![event("Xid79", "gpu-3"), second], at(1)).await;
    assert_eq!((heard.opened, heard.runs.len()), (2, 1));
    let reason = last_heard(&store).await.reasons.remove(0);
    assert_eq!(reason.code, ReasonCode::AlreadyRunning);
    assert!(reason.text.contains(&heard.runs[0].to_string()), "{reason}");
    let incident = store.incidents(all()).await.unwrap().remove(0);
    assert_eq!((incident.firing, incident.episodes), (2, 2));
}

pub async fn a_rule_with_repeat_acts_at_the_nth_time(open: Open<'_>) {
    let store = open();
    let mut rule = rule(Mode::Auto);
    rule["repeat"] = json!({ "count": 3, "within": "10m", "by": ["node"] });
    let rules = rules(json!([rule]));
    let mut runs = Vec::new();
    for (no, (node, second)) in
        [("a", 0), ("a", 60), ("b", 61), ("a", 1_000), ("a", 1_001), ("a", 1_002)].iter().enumerate()
    {
        let mut event = event("Xid79", node);
        event.fingerprint = format!("{no:016x}");
        runs.push(hear(&store, &rules, vec![event], at(*second)).await.runs.len());
    }
    assert_eq!(runs, [0, 0, 0, 0, 0, 1], "the hits before the window are forgotten, and nodes are counted apart");
    let first = heard_entries(&store).await.pop().unwrap().remove(0);
    assert_eq!(first.reasons[0].code, ReasonCode::NotYetRepeated);
}

pub async fn gaps_are_entries(open: Open<'_>) {
    let store = open();
    let mut batch = batch(&auto(), Vec::new(), at(1));
    batch.gaps = vec!["3 alerts were cut off".to_owned()];
    store.intake(batch).await.unwrap();
    assert_eq!(story(&store).await, ["started", "gap"]);
}

pub async fn the_earliest_start_is_kept(open: Open<'_>) {
    let store = open();
    let mut later = event("Xid79", "gpu-3");
    later.starts_at = at(30);
    hear(&store, &auto(), vec![later], at(31)).await;
    hear(&store, &auto(), vec![event("Xid79", "gpu-3")], at(32)).await;
    assert_eq!(store.episodes(all()).await.unwrap()[0].event.starts_at, at(0));
}

pub async fn a_batch_with_duplicates_counts_each_once(open: Open<'_>) {
    let store = open();
    let one = event("Xid79", "gpu-3");
    let heard = hear(&store, &auto(), vec![one.clone(), one.clone(), resolved(one.clone()), one], at(1)).await;
    assert_eq!((heard.opened, heard.refreshed, heard.resolved, heard.reopened), (1, 1, 1, 1));
    let incident = store.incidents(all()).await.unwrap().remove(0);
    assert_eq!((incident.firing, incident.state), (1, IncidentState::Open));
    let episode = store.episodes(all()).await.unwrap().remove(0);
    assert_eq!((episode.state, episode.event.source.as_str()), (EpisodeState::Open, "am"));
}

pub async fn episodes_that_fell_silent_are_found_and_ended(open: Open<'_>) {
    let store = open();
    hear(&store, &auto(), vec![event("Xid79", "a"), event("Xid79", "b")], at(1)).await;
    hear(&store, &auto(), vec![event("Xid79", "b")], at(500)).await;
    let unseen = store.unseen("am", at(100), None, 10).await.unwrap();
    assert_eq!(unseen.len(), 1);
    assert_eq!(unseen[0].event.subject.node.as_deref(), Some("a"));
    assert!(store.unseen("other", at(100), None, 10).await.unwrap().is_empty());
    let end = ControlChange::EndEpisodes {
        episodes: vec![unseen[0].id],
        stale: true,
        why: "the source fell silent".to_owned(),
    };
    store.control(end.clone(), at(501)).await.unwrap();
    store.control(end, at(502)).await.unwrap();
    assert!(store.unseen("am", at(100), None, 10).await.unwrap().is_empty());
    let episodes = store.episodes(all()).await.unwrap();
    let states: Vec<EpisodeState> = episodes.iter().map(|episode| episode.state).collect();
    assert_eq!(states, [EpisodeState::Open, EpisodeState::Stale]);
    assert_eq!(store.counts().await.unwrap().incidents_open, 1);
    let kinds = story(&store).await;
    assert_eq!(kinds.iter().filter(|kind| **kind == "incident_resolved").count(), 1, "{kinds:?}");
}

pub async fn many_batches_at_once_are_all_kept(open: Open<'_>) {
    let store = open();
    let rules = auto();
    let tasks = (0..300).map(|no| {
        let (store, rules) = (store.clone(), rules.clone());
        tokio::spawn(async move { hear(&store, &rules, vec![event("Xid79", &format!("n{no}"))], at(1)).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap().opened, 1);
    }
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.episodes_open, counts.incidents_open, counts.runs_unfinished), (300, 300, 300));
    assert_eq!(counts.entries, 1 + 3 * 300);
}

/// Numbers are counted in memory; an operation that fails after it took one must not leave a hole.
pub async fn an_operation_that_was_undone_gives_no_number_away(open: Open<'_>) {
    let store = open();
    let token = NewToken {
        name: "ana".to_owned(),
        grant: RoleGrant { role: Role::Admin, clusters: None },
        sources: Vec::new(),
        hash: "a hash that is known already".to_owned(),
        by: "ana".to_owned(),
        root: None,
        person: None,
        made_with: None,
        expires_at: at(3_600),
    };
    let glass = |second| store.break_glass(token.clone(), "a test".to_owned(), vec!["slack".to_owned()], at(second));
    glass(1).await.unwrap();
    let twice = glass(2).await;
    assert!(matches!(twice, Err(StoreError::Database(_))), "its incident was created before it failed: {twice:?}");
    hear(&store, &auto(), vec![event("Xid79", "gpu-3")], at(3)).await;
    let mut numbers: Vec<i64> = store.incidents(all()).await.unwrap().iter().map(|incident| incident.id.0).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2]);
}
