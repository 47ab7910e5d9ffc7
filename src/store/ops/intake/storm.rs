//! Storms: which events of a batch are one incident, decided before any event of it is written.
//!
//! Invariant: a group is formed only here, so that no event of the batch belongs to an incident that is gone.

use super::{BatchIntake, EventChange};
use crate::limits;
use crate::model::{Actor, EntryKind, EntryLinks, Event, IncidentId, Rule, Subject};
use crate::policy::{
    EpisodeChange, RuleSelection, alert_place, group_key, incident_key, incident_part, incident_title,
};
use crate::store::db::one;
use crate::store::ops::incidents::{self, group};
use crate::store::{EventBatch, StoreError};
use std::collections::BTreeMap;

/// The rule that decides which incident an event belongs to: the first that decides at all. `Some(None)`: the
/// catch-all; `None`: it belongs to none.
pub(super) fn decides<'a>(selected: &[RuleSelection<'a>]) -> Option<Option<&'a Rule>> {
    match selected.is_empty() {
        true => Some(None),
        false => selected.iter().find(|one| one.speaks()).map(|one| Some(one.rule)),
    }
}

pub(super) fn group_by(rule: Option<&Rule>) -> &[String] {
    rule.map_or(&[], |rule| rule.group_by.as_slice())
}

/// Alerts that open in this batch, by their own key, with the part of the subject that distinguishes them.
type FreshAlerts<'b> = BTreeMap<String, (&'b Event, &'b str)>;

/// A group to which alerts of this batch belong.
pub(super) struct GroupMember {
    /// It was formed in this batch, and its opening has its number.
    pub formed: bool,
    pub alert: String,
    pub single: String,
    pub subject: Subject,
}

/// Alerts that joined an incident in this batch.
#[derive(Default)]
pub(super) struct JoinedAlerts {
    alerts: Vec<String>,
    more: usize,
}

impl BatchIntake<'_> {
    /// Finds the storms of a batch, together with alerts that opened just before, and forms their groups.
    pub(super) fn storms(&mut self, batch: &EventBatch, found: &[EventChange<'_>]) -> Result<(), StoreError> {
        let wait = self.tx.group_wait;
        let Some(since) = self.now.checked_sub(wait.0).ok().filter(|_| wait.0.as_micros() > 0) else { return Ok(()) };
        let mut storms: BTreeMap<String, FreshAlerts<'_>> = BTreeMap::new();
        for (event, found) in batch.events.iter().zip(found) {
            let Some(rule) = decides(&found.selected).filter(|_| found.change == EpisodeChange::Opened) else {
                continue;
            };
            if self.returns_to(found.known.as_ref())?.is_some() {
                continue;
            }
            let key = incident_key(event, group_by(rule));
            if self.open_incident(&key)?.is_none() {
                let storm = group_key(event, rule.map(|rule| rule.name.as_str()));
                let part = incident_part(event, group_by(rule));
                storms.entry(storm).or_default().entry(key).or_insert((event, part));
            }
        }
        for (storm, fresh) in storms {
            if self.open_incident(&storm)?.is_some() {
                continue;
            }
            let recent = group::recent(&self.tx.conn, &storm, since)?;
            if fresh.len() + recent.len() <= limits::GROUP_SUBJECTS {
                continue;
            }
            if let Some((event, _)) = fresh.values().next().copied()
                && self.may_open(event)
            {
                self.form(storm, &fresh, &recent)?;
            }
        }
        Ok(())
    }

    /// Opens the group; incidents that no one has seen yet become part of it.
    fn form(
        &mut self,
        storm: String,
        fresh: &FreshAlerts<'_>,
        recent: &[group::StormCandidate],
    ) -> Result<(), StoreError> {
        let Some((first, _)) = fresh.values().next() else { return Ok(()) };
        let unseen: Vec<&group::StormCandidate> = recent.iter().filter(|one| one.unseen).collect();
        let mut subject = first.subject.clone();
        let others = fresh.values().map(|(event, _)| &event.subject).chain(unseen.iter().map(|one| &one.subject));
        others.for_each(|other| subject = subject.common(other));
        let single = incident_title(first);
        let severity = fresh.values().map(|(event, _)| event.severity).max().unwrap_or_default();
        let (incident, opened) = incidents::create(self.tx, &storm, &single, &subject, severity, self.now)?;
        for one in &unseen {
            for channel in group::absorb(self.tx, one.incident, incident, self.now)? {
                self.told.insert((incident, channel));
            }
            self.absorbed.insert(one.incident, incident);
        }
        self.open.retain(|_, known| !self.absorbed.contains_key(known));
        for (key, (_, part)) in fresh {
            group::add(&self.tx.conn, incident, key, part)?;
        }
        let alert = first.name().to_owned();
        let title = group::retitle(&self.tx.conn, incident, &alert, &single, &subject)?.unwrap_or(single.clone());
        let EntryKind::IncidentOpened { key, .. } = opened else { return Ok(()) };
        let about = EntryLinks { incident: Some(incident), run: None };
        let (count, wait, seen) = (fresh.len() + recent.len(), self.tx.group_wait, recent.len() - unseen.len());
        let rest =
            if seen > 0 { format!("; {seen} of them were shown before and stay as they are") } else { String::new() };
        let why = format!("{alert} fires on {count} subjects within {wait}: they are one incident{rest}");
        let merged: Vec<IncidentId> = unseen.iter().map(|one| one.incident).collect();
        for old in &merged {
            let why = format!("it is part of {incident} now ({title})");
            let about = EntryLinks { incident: Some(*old), run: None };
            self.later.push((Actor::engine(), about, EntryKind::IncidentResolved { why }));
        }
        let opened = EntryKind::IncidentOpened { key, title: title.clone(), subject: subject.clone(), alert: None };
        self.later.push((Actor::engine(), about, opened));
        self.later.push((Actor::engine(), about, EntryKind::IncidentGrouped { title, why, merged }));
        self.open.insert(storm, incident);
        self.groups.insert(incident, GroupMember { formed: true, alert, single, subject });
        Ok(())
    }

    /// An alert joins an incident that was open before it.
    pub(super) fn joins(&mut self, incident: IncidentId, event: &Event) {
        // Which source holds an incident open must be seen where another one opened it.
        let sql = "SELECT source FROM episode WHERE incident = ?1 ORDER BY id LIMIT 1";
        let first = one(&self.tx.conn, sql, [incident.0], |row| row.get::<String>(0)).ok().flatten();
        let place = match first {
            Some(first) if first != event.source => format!("{} (source {})", alert_place(event), event.source),
            _ => alert_place(event),
        };
        let joined = self.joined.entry(incident).or_default();
        match joined.alerts.len() < limits::NAMES_SHOWN {
            true => joined.alerts.push(place),
            false => joined.more += 1,
        }
    }

    /// An alert is part of a group, whose title follows.
    pub(super) fn joins_group(&mut self, incident: IncidentId, event: &Event) {
        let formed = self.groups.get(&incident).is_some_and(|member| member.formed);
        if !formed {
            self.joins(incident, event);
        }
        let member = self.groups.entry(incident).or_insert_with(|| GroupMember {
            formed: false,
            alert: event.name().to_owned(),
            single: incident_title(event),
            subject: event.subject.clone(),
        });
        member.subject = member.subject.common(&event.subject);
    }

    /// Entries of joined alerts, one for each incident, and the titles of groups.
    pub(super) fn write_joined(&mut self) -> Result<(), StoreError> {
        let mut titles = BTreeMap::new();
        for (incident, member) in std::mem::take(&mut self.groups) {
            let conn = &self.tx.conn;
            let title = group::retitle(conn, incident, &member.alert, &member.single, &member.subject)?;
            titles.extend(title.map(|title| (incident, title)));
        }
        for (incident, JoinedAlerts { alerts, more }) in std::mem::take(&mut self.joined) {
            let graver = self.touched.get(&incident).and_then(|touched| touched.severity);
            let before = incidents::severity(&self.tx.conn, incident)?;
            let raised = graver.filter(|graver| before.is_some_and(|before| *graver > before));
            let entry = EntryKind::AlertsJoined { alerts, more, title: titles.remove(&incident), raised };
            self.later.push((Actor::engine(), EntryLinks { incident: Some(incident), run: None }, entry));
        }
        Ok(())
    }
}
