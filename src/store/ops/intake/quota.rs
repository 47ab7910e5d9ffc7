//! How many incidents each sender has opened lately. Beyond its quota everything new of it is part of one incident.
//!
//! Invariant: bounded; alerts are never refused for it, and critical ones have a quota of their own.

use super::BatchIntake;
use crate::limits;
use crate::model::{Actor, EntryLinks, Event, IncidentId, Severity, Subject, Time};
use crate::planted::planted;
use crate::store::StoreError;
use crate::store::ops::incidents;
use std::collections::HashMap;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// By sender and whether it was critical: since when, and how many.
#[derive(Default)]
pub(crate) struct IncidentQuotas(HashMap<(String, bool), (Time, usize)>);

impl IncidentQuotas {
    /// Whether the sender may open one more incident; it is counted then.
    fn admits(&mut self, sender: &str, severity: Severity, now: Time) -> bool {
        let fresh = |since: Time| since <= now && now < since + MINUTE;
        let key = (sender.to_owned(), severity == Severity::Critical);
        if self.0.len() >= limits::SENDERS_COUNTED && !self.0.contains_key(&key) {
            self.0.retain(|_, (since, _)| fresh(*since));
        }
        let window = self.0.entry(key).or_insert((now, 0));
        if !fresh(window.0) {
            *window = (now, 0);
        }
        window.1 += 1;
        window.1 <= limits::INCIDENTS_PER_SOURCE
    }
}

impl BatchIntake<'_> {
    /// Whether the sender of this batch may open an incident of its own for this event. The engine's own findings are
    /// bounded where it is found.
    pub(super) fn may_open(&mut self, event: &Event) -> bool {
        let Some(sender) = &self.sender else { return true };
        self.tx.sole.quotas.admits(sender, event.severity, self.now) || planted("floods-have-no-quota")
    }

    /// The one incident of everything that a sender opens beyond its quota.
    pub(super) fn flooded(&mut self, event: &Event) -> Result<IncidentId, StoreError> {
        let sender = self.sender.clone().unwrap_or_else(|| event.source.clone());
        let key = format!("flood/{sender}");
        let incident = match self.open_incident(&key)? {
            Some(incident) => incident,
            None => {
                let title = format!(
                    "{sender} floods: more than {} new incidents within a minute, the rest is here",
                    limits::INCIDENTS_PER_SOURCE
                );
                let subject = Subject::default();
                let (incident, opened) = incidents::create(self.tx, &key, &title, &subject, event.severity, self.now)?;
                self.later.push((Actor::engine(), EntryLinks { incident: Some(incident), run: None }, opened));
                self.open.insert(key, incident);
                incident
            }
        };
        self.joins(incident, event);
        Ok(incident)
    }
}
