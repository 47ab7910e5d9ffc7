//! The rules' decisions on one event: its incident, its runs, and the reasons for all that is not done.
//!
//! Invariant: every rule that matches leaves a run or a reason; a muted one makes no incident; an event without a rule
//! makes one.

use super::{BatchIntake, EventDecision, OpeningEpisode, storm};
use crate::model::{
    Actor, EntryKind, EntryLinks, EpisodeId, Event, IncidentId, Mode, Reason, ReasonCode, Rule, RuleSnapshot, RunId,
    Span,
};
use crate::policy::{self, EpisodeChange, RuleDecision, RuleSelection, RunSpec};
use crate::store::StoreError;
use crate::store::db::{exec, micros, number, params, to_json};
use crate::store::ops::incidents::group;
use crate::store::ops::{incidents, ladder, record, runs};

impl BatchIntake<'_> {
    /// Applies the rules that match, or the catch-all where none does.
    pub(super) fn consult(
        &mut self,
        event: &Event,
        selected: &[RuleSelection<'_>],
        coming: &OpeningEpisode,
    ) -> Result<EventDecision, StoreError> {
        let change = coming.change;
        let mut say = EventDecision { incident: coming.before, ..EventDecision::default() };
        if selected.is_empty() {
            self.unmatched(event, coming, &mut say)?;
        }
        for one in selected {
            let RuleSelection { rule, chosen, terms } = one;
            if let RuleDecision::Nothing(reason) = chosen {
                say.reasons.push(reason.clone());
            }
            if !one.speaks() {
                continue;
            }
            let incident = match say.incident {
                Some(incident) => incident,
                None => self.join(event, Some(rule), coming.back)?,
            };
            say.incident = Some(incident);
            let early = match chosen {
                RuleDecision::Run(_) => self.not_yet(rule, event, change)?,
                RuleDecision::Tell | RuleDecision::Nothing(_) => None,
            };
            // Below the rule's own number of repeats, the alert does not count yet.
            if let RuleDecision::Run(start) = chosen
                && early.is_none()
                && change != EpisodeChange::Refreshed
            {
                self.came_back(rule, start, event)?;
            }
            // The mode governs acting; a rule that is to be silent declares it.
            if rule.run.is_none() || self.mode(rule, *terms)? >= rule.tell_in {
                self.told.extend(rule.tell.iter().map(|channel| (incident, channel.clone())));
            }
            if let RuleDecision::Run(start) = chosen {
                let not = match self.handled(rule, start, coming, incident)? {
                    None => early,
                    handled => handled,
                };
                let started = match not {
                    None => self.start(rule, start, coming.episode, incident)?,
                    Some(reason) => Err(reason),
                };
                match started {
                    Ok(run) => say.runs.push(run),
                    Err(reason) => say.reasons.push(reason),
                }
            }
        }
        Ok(say)
    }

    /// No rule matches: an incident without a run, and the catch-all's channels are notified.
    fn unmatched(&mut self, event: &Event, coming: &OpeningEpisode, say: &mut EventDecision) -> Result<(), StoreError> {
        let incident = match say.incident {
            Some(incident) => incident,
            None => self.join(event, None, coming.back)?,
        };
        say.incident = Some(incident);
        self.heard.unmatched += 1;
        let text = match self.tx.unmatched_tell.as_slice() {
            [] => "no rule matches this event: it opens an incident, and `default.tell` names no channel".to_owned(),
            tell => format!("no rule matches this event: by `default` it is an incident, for {}", tell.join(", ")),
        };
        say.reasons.push(Reason::new(ReasonCode::NoRuleMatched, text));
        let channels = &self.tx.unmatched_tell;
        self.told.extend(channels.iter().map(|channel| (incident, channel.clone())));
        Ok(())
    }

    /// How far the rule goes, read once in this transaction.
    fn mode(&mut self, rule: &Rule, terms: Option<&RuleSnapshot>) -> Result<Mode, StoreError> {
        let Some(terms) = terms else { return Ok(rule.mode.min(self.tx.ceiling)) };
        if let Some(mode) = self.modes.get(&rule.name) {
            return Ok(*mode);
        }
        let mode = ladder::effective(self.tx, &rule.name, terms)?;
        self.modes.insert(rule.name.clone(), mode);
        Ok(mode)
    }

    /// An alert that a run of this rule had fixed came back within its bake time; that may demote the rule.
    fn came_back(&mut self, rule: &Rule, start: &RunSpec, event: &Event) -> Result<(), StoreError> {
        let key = policy::incident_key(event, storm::group_by(Some(rule)));
        let what = (&start.subject, key.as_str());
        let news = record::came_back(self.tx, &rule.name, &start.terms.content, what, self.now)?;
        if !news.is_empty() {
            self.modes.remove(&rule.name);
            self.later.extend(news.entries);
            self.told.extend(news.told);
        }
        Ok(())
    }

    /// The open incident that the event belongs to, or a new one. `back`: the alert comes back to that one, still open.
    fn join(&mut self, event: &Event, rule: Option<&Rule>, back: Option<IncidentId>) -> Result<IncidentId, StoreError> {
        if let Some(incident) = back {
            return Ok(incident);
        }
        let groups = self.tx.group_wait > Span::default();
        let storm = groups.then(|| policy::group_key(event, rule.map(|rule| rule.name.as_str())));
        let group_by = storm::group_by(rule);
        let key = policy::incident_key(event, group_by);
        if let Some(incident) = self.open_incident(&key)? {
            group::mixed(&self.tx.conn, incident, storm.as_deref())?;
            self.joins(incident, event);
            return Ok(incident);
        }
        let part = policy::incident_part(event, group_by);
        if let Some(storm) = &storm
            && let Some(group) = self.open_incident(storm)?
        {
            group::add(&self.tx.conn, group, &key, part)?;
            self.joins_group(group, event);
            return Ok(group);
        }
        if !self.may_open(event) {
            return self.flooded(event);
        }
        let title = policy::incident_title(event);
        let (incident, mut entry) = incidents::create(self.tx, &key, &title, &event.subject, event.severity, self.now)?;
        if let EntryKind::IncidentOpened { alert, .. } = &mut entry {
            *alert = Some(event.name().to_owned());
        }
        if let Some(storm) = &storm {
            group::mark(&self.tx.conn, incident, storm, part)?;
        }
        self.later.push((Actor::engine(), EntryLinks { incident: Some(incident), run: None }, entry));
        self.open.insert(key, incident);
        Ok(incident)
    }

    /// The open incident with this key.
    pub(super) fn open_incident(&mut self, key: &str) -> Result<Option<IncidentId>, StoreError> {
        if let Some(incident) = self.open.get(key) {
            return Ok(Some(*incident));
        }
        let found = incidents::open_with(&self.tx.conn, key)?;
        if let Some(incident) = found {
            self.open.insert(key.to_owned(), incident);
        }
        Ok(found)
    }

    /// An ended incident opens again with its episode, unless another one has taken its place.
    pub(super) fn reopen(&mut self, incident: IncidentId) -> Result<IncidentId, StoreError> {
        let (incident, entry) = incidents::reopen(self.tx, incident)?;
        if let Some(entry) = entry {
            self.later.push((Actor::engine(), EntryLinks { incident: Some(incident), run: None }, entry));
        }
        Ok(incident)
    }

    /// An episode that opens again has had its run; and an alert that comes back to its open incident brings up nothing that was
    /// decided there.
    fn handled(
        &mut self,
        rule: &Rule,
        start: &RunSpec,
        coming: &OpeningEpisode,
        incident: IncidentId,
    ) -> Result<Option<Reason>, StoreError> {
        if coming.change == EpisodeChange::Opened {
            if coming.back != Some(incident) {
                return Ok(None);
            }
            let mode = self.mode(rule, Some(&start.terms))?;
            let settled = runs::settled(self.tx, incident, &rule.name, &start.bucket, mode)?;
            return Ok(settled.map(|(run, what)| {
                let text = format!("{run} of rule {} {what} for {incident}, and the alert only came back", rule.name);
                Reason::new(ReasonCode::AlreadyHandled, text)
            }));
        }
        let run = match coming.change {
            // An edit of the rule repeats nothing: neither for this alert, nor for another one of the incident that the run was for.
            EpisodeChange::Refreshed => {
                let own = runs::for_episode(&self.tx.conn, &rule.name, coming.episode)?;
                match own {
                    None => runs::last_of(&self.tx.conn, incident, &rule.name, &start.bucket)?,
                    own => own,
                }
            }
            _ => runs::of_episode(&self.tx.conn, &rule.name, coming.episode)?,
        };
        Ok(run.map(|run| {
            let text = format!("{run} of rule {} was for this same alert or incident", rule.name);
            Reason::new(ReasonCode::AlreadyHandled, text)
        }))
    }

    /// Creates a rule's run, or returns why not.
    fn start(
        &mut self,
        rule: &Rule,
        start: &RunSpec,
        episode: EpisodeId,
        incident: IncidentId,
    ) -> Result<Result<RunId, Reason>, StoreError> {
        if let Some(run) = runs::unfinished(&self.tx.conn, incident, &rule.name, &start.bucket)? {
            // It is not over for this run while one of its alerts is open.
            runs::back(&self.tx.conn, run, episode)?;
            self.woken |= runs::resume(&self.tx.conn, incident, episode, self.now)?;
            let text = format!("{run} of rule {} does the same for {incident} already", rule.name);
            return Ok(Err(Reason::new(ReasonCode::AlreadyRunning, text)));
        }
        let new = runs::NewRunRow {
            pin: &start.pin,
            input: &start.input,
            subject: &start.subject,
            mode: self.mode(rule, Some(&start.terms))?,
            rule: Some(&rule.name),
            terms: Some(&start.terms),
            requested_by: "rule",
            posted_by: self.poster.as_deref(),
            once: None,
            bucket: Some(&start.bucket),
            incident: Some(incident),
            episode: Some(episode),
            cooldown: rule.cooldown,
            attempts: rule.attempts,
        };
        let (run, entry) = runs::create(self.tx, &new, self.now)?;
        let about = EntryLinks { incident: Some(incident), run: Some(run) };
        self.later.push((Actor(format!("rule:{}", rule.name)), about, entry));
        self.heard.runs.push(run);
        Ok(Ok(run))
    }

    /// A rule with `repeat` acts only at the n-th time.
    fn not_yet(&mut self, rule: &Rule, event: &Event, change: EpisodeChange) -> Result<Option<Reason>, StoreError> {
        let Some(repeat) = &rule.repeat else { return Ok(None) };
        let about: Vec<&str> =
            repeat.by.iter().map(|name| event.subject.part(name).unwrap_or_else(|| event.labels.get(name))).collect();
        let about = to_json(&about)?;
        let now = micros(self.now);
        if change == EpisodeChange::Opened {
            let sql = "INSERT INTO hit (rule, about, at) VALUES (?1, ?2, ?3)";
            exec(&self.tx.conn, sql, params![rule.name, about, now])?;
        }
        let since = now.saturating_sub(i64::try_from(repeat.within.0.as_micros()).unwrap_or(i64::MAX));
        let sql = "SELECT count(*) FROM hit WHERE rule = ?1 AND about = ?2 AND at > ?3";
        let count = number(&self.tx.conn, sql, params![rule.name, about, since])?;
        Ok((count < i64::from(repeat.count)).then(|| {
            let text = format!("{count} of {} within {} so far", repeat.count, repeat.within);
            Reason::new(ReasonCode::NotYetRepeated, text)
        }))
    }
}
