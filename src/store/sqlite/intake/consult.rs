//! What the rules make of one event: its incident, its runs, and the reasons for all that is not done.
//!
//! Invariant: every rule that has a say leaves a run or a reason; a muted one makes no incident.

use super::{Intake, Say};
use crate::model::{About, Actor, EpisodeId, Event, IncidentId, Mode, Reason, ReasonCode, Rule, RunId, Terms};
use crate::policy::{Change, Chosen, Selected, Start};
use crate::store::sqlite::sql::{self, exec, micros};
use crate::store::sqlite::{incidents, ladder, record, runs};
use crate::store::{Batch, StoreError};
use rusqlite::params;

impl Intake<'_> {
    /// Asks the rules, and does what they say.
    pub(super) fn consult(
        &mut self,
        batch: &Batch,
        event: &Event,
        episode: EpisodeId,
        before: Option<IncidentId>,
        change: Change,
    ) -> Result<Say, StoreError> {
        let selected = batch.rules.select(event);
        let mut say = Say { incident: before, ..Say::default() };
        if selected.is_empty() {
            say.reasons.push(Reason::new(ReasonCode::NoRuleMatched, "no rule matches this event"));
        }
        for Selected { rule, chosen, terms } in &selected {
            if let Chosen::Nothing(reason) = chosen {
                say.reasons.push(reason.clone());
                if reason.code == ReasonCode::Muted {
                    continue;
                }
            }
            let incident = match say.incident {
                Some(incident) => incident,
                None => self.join(event, rule)?,
            };
            say.incident = Some(incident);
            let early = match chosen {
                Chosen::Run(_) => self.not_yet(rule, event, change)?,
                Chosen::Tell | Chosen::Nothing(_) => None,
            };
            // Below the number of times that the rule asks for, the complaint is not there by the rule's own words.
            if let Chosen::Run(start) = chosen
                && early.is_none()
            {
                self.came_back(rule, start)?;
            }
            if self.mode(rule, *terms)? >= Mode::Suggest || rule.run.is_none() {
                self.told.extend(rule.tell.iter().map(|channel| (incident, channel.clone())));
            }
            if let Chosen::Run(start) = chosen {
                let not = match self.handled(rule, episode, change)? {
                    None => early,
                    handled => handled,
                };
                let started = match not {
                    None => self.start(rule, start, episode, incident)?,
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

    /// How far the rule goes, read once in this transaction.
    fn mode(&mut self, rule: &Rule, terms: Option<&Terms>) -> Result<Mode, StoreError> {
        let Some(terms) = terms else { return Ok(rule.mode.min(self.tx.ceiling)) };
        if let Some(mode) = self.modes.get(&rule.name) {
            return Ok(*mode);
        }
        let mode = ladder::effective(self.tx, &rule.name, terms)?;
        self.modes.insert(rule.name.clone(), mode);
        Ok(mode)
    }

    /// What a run of this rule had mended within its bake time was not mended; that may bring the rule down.
    fn came_back(&mut self, rule: &Rule, start: &Start) -> Result<(), StoreError> {
        let news = record::came_back(self.tx, &rule.name, &start.terms.content, &start.subject, self.now)?;
        if !news.is_empty() {
            self.modes.remove(&rule.name);
            self.later.extend(news.entries);
            self.told.extend(news.told);
        }
        Ok(())
    }

    /// The open incident that the event belongs to, or a new one.
    fn join(&mut self, event: &Event, rule: &Rule) -> Result<IncidentId, StoreError> {
        let key = crate::policy::incident_key(event, &rule.group_by);
        if let Some(incident) = self.open.get(&key) {
            return Ok(*incident);
        }
        let incident = match incidents::open_with(&self.tx.conn, &key)? {
            Some(incident) => incident,
            None => {
                let title = crate::policy::incident_title(event);
                let (incident, entry) =
                    incidents::create(self.tx, &key, &title, &event.subject, event.severity, self.now)?;
                self.later.push((Actor::engine(), About { incident: Some(incident), run: None }, entry));
                self.began.insert(incident);
                incident
            }
        };
        self.open.insert(key, incident);
        Ok(incident)
    }

    /// An ended incident opens again with its episode, unless another one has taken its place.
    pub(super) fn reopen(&mut self, incident: IncidentId) -> Result<IncidentId, StoreError> {
        let (incident, entry) = incidents::reopen(self.tx, incident)?;
        if let Some(entry) = entry {
            self.later.push((Actor::engine(), About { incident: Some(incident), run: None }, entry));
        }
        Ok(incident)
    }

    /// An episode that opens again has had its run.
    fn handled(&self, rule: &Rule, episode: EpisodeId, change: Change) -> Result<Option<Reason>, StoreError> {
        if change != Change::Reopened {
            return Ok(None);
        }
        let run = runs::of_episode(&self.tx.conn, &rule.name, episode)?;
        Ok(run.map(|run| {
            let text = format!("{run} of rule {} was for this same episode", rule.name);
            Reason::new(ReasonCode::AlreadyHandled, text)
        }))
    }

    /// Creates the run that a rule wants, or says why not.
    fn start(
        &mut self,
        rule: &Rule,
        start: &Start,
        episode: EpisodeId,
        incident: IncidentId,
    ) -> Result<Result<RunId, Reason>, StoreError> {
        if let Some(run) = runs::unfinished(&self.tx.conn, incident, &rule.name, &start.bucket)? {
            // It is not over for this run while one of those who wanted it is open.
            runs::back(&self.tx.conn, run, episode)?;
            let text = format!("{run} of rule {} does the same for {incident} already", rule.name);
            return Ok(Err(Reason::new(ReasonCode::AlreadyRunning, text)));
        }
        let new = runs::New {
            pin: &start.pin,
            input: &start.input,
            subject: &start.subject,
            mode: self.mode(rule, Some(&start.terms))?,
            rule: Some(&rule.name),
            terms: Some(&start.terms),
            requested_by: "rule",
            once: None,
            bucket: Some(&start.bucket),
            incident: Some(incident),
            episode: Some(episode),
            cooldown: rule.cooldown,
            attempts: rule.attempts,
        };
        let (run, entry) = runs::create(self.tx, &new, self.now)?;
        let about = About { incident: Some(incident), run: Some(run) };
        self.later.push((Actor(format!("rule:{}", rule.name)), about, entry));
        self.heard.runs.push(run);
        Ok(Ok(run))
    }

    /// A rule with `repeat` acts only at the n-th time.
    fn not_yet(&mut self, rule: &Rule, event: &Event, change: Change) -> Result<Option<Reason>, StoreError> {
        let Some(repeat) = &rule.repeat else { return Ok(None) };
        let about: Vec<&str> =
            repeat.by.iter().map(|name| event.subject.part(name).unwrap_or_else(|| event.labels.get(name))).collect();
        let about = sql::to_json(&about)?;
        let now = micros(self.now);
        if change == Change::Opened {
            let sql = "INSERT INTO hit (rule, about, at) VALUES (?1, ?2, ?3)";
            exec(&self.tx.conn, sql, params![rule.name, about, now])?;
        }
        let since = now.saturating_sub(i64::try_from(repeat.within.0.as_micros()).unwrap_or(i64::MAX));
        let sql = "SELECT count(*) FROM hit WHERE rule = ?1 AND about = ?2 AND at > ?3";
        let count = sql::number(&self.tx.conn, sql, params![rule.name, about, since])?;
        Ok((count < i64::from(repeat.count)).then(|| {
            let text = format!("{count} of {} within {} so far", repeat.count, repeat.within);
            Reason::new(ReasonCode::NotYetRepeated, text)
        }))
    }
}
