//! Events in: one transaction decides and stores a whole batch, with one ledger entry for all of it.
//!
//! Invariant: each event leaves either a counter (refreshed, late) or a line in the batch's `Heard` entry with its
//! consequences; the event's bytes are kept there and nowhere else.

mod consult;
mod quota;
mod storm;

pub(crate) use quota::IncidentQuotas;

use super::breakers;
use super::incidents::{self, IncidentChanges};
use super::recent::AlertKey;
use super::tx::Tx;
use crate::limits;
use crate::model::{
    Actor, EntryKind, EntryLinks, EntryNo, EpisodeId, EpisodeState, Event, IncidentId, Mode, Reason, RunId, Span, Time,
};
use crate::policy::{EpisodeChange, PriorEpisode, RuleSelection, alert_place, hear};
use crate::store::db::{Db, DbRow, exec, micros, one, params, time, to_json};
use crate::store::{BatchOrigin, EventBatch, IntakeResult, StoreError};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Write;

/// A batch with all the work done that needs no database.
pub(crate) struct PreparedBatch {
    batch: EventBatch,
    /// The JSON of all events, one behind the other, and where each ends.
    json: Vec<u8>,
    ends: Vec<usize>,
    complaints: Vec<AlertKey>,
    /// Rules that are evaluated for alerts that are open already; none: an ordinary batch.
    changed: Option<BTreeSet<String>>,
}

impl PreparedBatch {
    /// Reviews the batch's fault codes and writes its events as JSON, outside of the transaction.
    ///
    /// # Errors
    ///
    /// Fails with `Refused` when an event cannot be written as JSON.
    pub fn new(mut batch: EventBatch) -> Result<PreparedBatch, StoreError> {
        for event in &mut batch.events {
            batch.rules.judge(event);
        }
        let mut json = Vec::with_capacity(batch.events.len() * 768);
        let mut ends = Vec::with_capacity(batch.events.len());
        for event in &batch.events {
            serde_json::to_writer(&mut json, event)
                .map_err(|error| StoreError::Refused(format!("an event that is not JSON: {error}")))?;
            ends.push(json.len());
        }
        let complaints = batch.events.iter().map(|event| AlertKey::of(&event.source, &event.fingerprint)).collect();
        Ok(PreparedBatch { batch, json, ends, complaints, changed: None })
    }

    /// From now on it is a batch of alerts that are open, for these rules alone.
    pub fn for_open_alerts(self, changed: BTreeSet<String>) -> PreparedBatch {
        PreparedBatch { changed: Some(changed), ..self }
    }
}

/// The latest episode of an alert.
struct KnownEpisode {
    id: EpisodeId,
    prior: PriorEpisode,
    incident: Option<IncidentId>,
}

/// The change of an event, before anything is written.
struct EventChange<'b> {
    known: Option<KnownEpisode>,
    change: EpisodeChange,
    /// The rules that match; only for events that open or reopen.
    selected: Vec<RuleSelection<'b>>,
}

/// The rules' decisions on one event.
#[derive(Default)]
struct EventDecision {
    incident: Option<IncidentId>,
    runs: Vec<RunId>,
    reasons: Vec<Reason>,
}

/// An event that fires anew: its episode, and the incident that it comes from.
struct OpeningEpisode {
    episode: EpisodeId,
    /// It belongs to this incident, whatever the rules are.
    before: Option<IncidentId>,
    /// The alert has come back to this incident, which is still open.
    back: Option<IncidentId>,
    change: EpisodeChange,
}

/// The latest episode of an alert, among those that are filed.
const FILED: &str = "SELECT e.id, e.state, e.starts_at, e.incident FROM complaint c JOIN episode e ON e.id = c.episode \
     WHERE c.key = ?1 AND e.fingerprint = ?2 AND e.source = ?3 ORDER BY c.episode DESC LIMIT 1";

/// One batch on its way.
struct BatchIntake<'t> {
    tx: &'t mut Tx,
    /// Only these rules are evaluated, and only for alerts that are open.
    changed: Option<&'t BTreeSet<String>>,
    now: Time,
    actor: Actor,
    /// The number that the `Heard` entry will have, and its body as far as it is written.
    no: EntryNo,
    body: Vec<u8>,
    /// Its consequences: entries written behind it.
    later: Vec<(Actor, EntryLinks, EntryKind)>,
    touched: BTreeMap<IncidentId, IncidentChanges>,
    open: HashMap<String, IncidentId>,
    told: BTreeSet<(IncidentId, String)>,
    /// Incidents that have become part of a group, and of which.
    absorbed: HashMap<IncidentId, IncidentId>,
    groups: BTreeMap<IncidentId, storm::GroupMember>,
    joined: BTreeMap<IncidentId, storm::JoinedAlerts>,
    /// How far the rules of this batch go.
    modes: HashMap<String, Mode>,
    heard: IntakeResult,
    /// A run that waits for users must look at its question again.
    woken: bool,
    /// The user who posted the batch, where a user did.
    poster: Option<String>,
    /// The batch is an agent's, which may say how often it has seen an alert.
    counts: bool,
    /// The sender whose quota new incidents take: the source, or the agent; none for the engine's own findings.
    sender: Option<String>,
}

pub(crate) fn intake<'t>(tx: &'t mut Tx, prepared: &'t PreparedBatch) -> Result<IntakeResult, StoreError> {
    let batch = &prepared.batch;
    let actor = Actor::source(&batch.source);
    let mut body = Vec::with_capacity(prepared.json.len() + prepared.ends.len() * 64 + 128);
    let quoted = |value: &str| to_json(&value);
    let via = match &batch.origin.via {
        Some(poster) => format!(r#""via":{},"#, to_json(poster)?),
        None => String::new(),
    };
    let head = format!(
        r#"{{"actor":{},"about":{{}},"kind":"heard","source":{},{via}"events":["#,
        quoted(&actor.0)?,
        quoted(&batch.source)?
    );
    body.extend_from_slice(head.as_bytes());
    let no = tx.next_no();
    let mut intake = BatchIntake {
        tx,
        changed: prepared.changed.as_ref(),
        now: batch.now,
        actor,
        no,
        body,
        later: Vec::new(),
        touched: BTreeMap::new(),
        open: HashMap::new(),
        told: BTreeSet::new(),
        absorbed: HashMap::new(),
        groups: BTreeMap::new(),
        joined: BTreeMap::new(),
        modes: HashMap::new(),
        heard: IntakeResult::default(),
        woken: false,
        counts: batch.origin.kind == BatchOrigin::AGENT,
        sender: batch.origin.via.as_ref().map(|via| match batch.origin.kind == BatchOrigin::AGENT {
            true => via.by.clone(),
            false => format!("source {}", batch.source),
        }),
        poster: batch.origin.via.as_ref().filter(|poster| poster.person).map(|poster| poster.by.clone()),
    };
    let complaints = batch.events.iter().zip(&prepared.complaints);
    let mut found = complaints
        .map(|(event, complaint)| intake.find(batch, event, *complaint))
        .collect::<Result<Vec<EventChange<'_>>, StoreError>>()?;
    intake.storms(batch, &found)?;
    let mut start = 0;
    let mut seen = HashSet::with_capacity(found.len());
    for (at, mut found) in found.drain(..).enumerate() {
        let (event, complaint, end) = (&batch.events[at], prepared.complaints[at], prepared.ends[at]);
        if !seen.insert(complaint) {
            // An earlier event of this batch was about the same.
            found = intake.find(batch, event, complaint)?;
        }
        intake.event(event, &prepared.json[start..end], complaint, found)?;
        start = end;
    }
    intake.finish(batch)
}

impl BatchIntake<'_> {
    fn find<'b>(
        &self,
        batch: &'b EventBatch,
        event: &Event,
        complaint: AlertKey,
    ) -> Result<EventChange<'b>, StoreError> {
        let known = self.known(event, complaint)?;
        let change = hear(known.as_ref().map(|known| &known.prior), event);
        if let Some(changed) = self.changed {
            let mut selected = match change {
                EpisodeChange::Refreshed => batch.rules.select_from(event, &batch.origin.kind),
                _ => Vec::new(),
            };
            selected.retain(|selected| changed.contains(&selected.rule.name));
            return Ok(EventChange { known, change, selected });
        }
        let selected = match change {
            EpisodeChange::Opened | EpisodeChange::Reopened => batch.rules.select_from(event, &batch.origin.kind),
            EpisodeChange::Refreshed | EpisodeChange::Resolved | EpisodeChange::Late => Vec::new(),
        };
        Ok(EventChange { known, change, selected })
    }

    fn event(
        &mut self,
        event: &Event,
        json: &[u8],
        complaint: AlertKey,
        found: EventChange<'_>,
    ) -> Result<(), StoreError> {
        let EventChange { mut known, change, selected } = found;
        if let Some(known) = &mut known {
            // It was read before groups were formed.
            known.incident = known.incident.map(|old| self.absorbed.get(&old).copied().unwrap_or(old));
        }
        if self.changed.is_some() {
            return match known {
                Some(known) if !selected.is_empty() => self.reconsidered(event, json, &selected, &known),
                // It has ended meanwhile.
                _ => Ok(()),
            };
        }
        if known.is_some() && matches!(change, EpisodeChange::Opened | EpisodeChange::Reopened) {
            breakers::came_back(&self.tx.conn, complaint.key, self.now)?;
        }
        match (change, known) {
            (EpisodeChange::Opened, known) => self.opened(event, json, complaint, &selected, known.as_ref()),
            (EpisodeChange::Reopened, Some(known)) => self.reopened(event, json, &selected, &known),
            (EpisodeChange::Resolved, Some(known)) => self.resolved(event, json, &known),
            (EpisodeChange::Refreshed, Some(known)) => {
                // An agent counts for itself in a flood, and sends its own count; of other senders it is a label.
                let counted = if self.counts { event.labels.get("seen").parse::<u32>().unwrap_or(0) } else { 0 };
                exec(
                    &self.tx.conn,
                    "UPDATE episode SET last_seen = ?2, seen = CASE WHEN seen + 1 < ?4 THEN ?4 ELSE seen + 1 END, \
                     starts_at = CASE WHEN ?3 < starts_at THEN ?3 ELSE starts_at END WHERE id = ?1",
                    params![known.id.0, micros(self.now), micros(event.starts_at), counted],
                )?;
                self.heard.refreshed += 1;
                Ok(())
            }
            (EpisodeChange::Late, _) => {
                self.heard.late += 1;
                Ok(())
            }
            (EpisodeChange::Reopened | EpisodeChange::Refreshed | EpisodeChange::Resolved, None) => {
                unreachable!("policy changes an episode that is not there")
            }
        }
    }

    fn opened(
        &mut self,
        event: &Event,
        json: &[u8],
        complaint: AlertKey,
        selected: &[RuleSelection<'_>],
        known: Option<&KnownEpisode>,
    ) -> Result<(), StoreError> {
        let start = self.quote(json);
        let episode = EpisodeId(self.tx.sole.next.episode);
        self.tx.sole.next.episode += 1;
        let back = self.returns_to(known)?;
        let say = self.consult(
            event,
            selected,
            &OpeningEpisode { episode, before: None, back, change: EpisodeChange::Opened },
        )?;
        self.touch(say.incident, |touched| {
            touched.firing += 1;
            touched.episodes += i64::from(say.incident != back);
            touched.severity = touched.severity.max(Some(event.severity));
            touched.alert = alert_place(event);
        });
        self.insert(event, complaint, episode, say.incident, start, json.len())?;
        self.tx.sole.recent.opened(complaint, episode.0);
        self.heard.opened += 1;
        self.unquote(episode, EpisodeChange::Opened.name(), &say)
    }

    fn reopened(
        &mut self,
        event: &Event,
        json: &[u8],
        selected: &[RuleSelection<'_>],
        known: &KnownEpisode,
    ) -> Result<(), StoreError> {
        let start = self.quote(json);
        let before = match known.incident {
            Some(incident) => Some(self.reopen(incident)?),
            None => None,
        };
        let coming = OpeningEpisode { episode: known.id, before, back: None, change: EpisodeChange::Reopened };
        let say = self.consult(event, selected, &coming)?;
        self.touch(say.incident, |touched| {
            touched.firing += 1;
            touched.episodes += i64::from(say.incident != known.incident);
            touched.severity = touched.severity.max(Some(event.severity));
            touched.alert = alert_place(event);
        });
        exec(
            &self.tx.conn,
            "UPDATE episode SET state = 0, incident = ?2, last_seen = ?3, seen = seen + 1, reopened = reopened + 1, \
             heard = ?4, start = ?5, length = ?6 WHERE id = ?1",
            params![known.id.0, say.incident.map(|id| id.0), micros(self.now), self.no.0, start, json.len() as i64],
        )?;
        if let Some(incident) = say.incident {
            self.woken |= super::runs::resume(&self.tx.conn, incident, known.id, self.now)?;
        }
        self.heard.reopened += 1;
        self.unquote(known.id, EpisodeChange::Reopened.name(), &say)
    }

    /// Rules that are new, or are others, decide on an alert that is open: as if it had fired now, within its incident.
    fn reconsidered(
        &mut self,
        event: &Event,
        json: &[u8],
        selected: &[RuleSelection<'_>],
        known: &KnownEpisode,
    ) -> Result<(), StoreError> {
        self.quote(json);
        self.poster = poster_of(&self.tx.conn, known.id)?;
        let coming =
            OpeningEpisode { episode: known.id, before: known.incident, back: None, change: EpisodeChange::Refreshed };
        let say = self.consult(event, selected, &coming)?;
        if known.incident.is_none() && say.incident.is_some() {
            self.touch(say.incident, |touched| {
                touched.firing += 1;
                touched.episodes += 1;
                touched.severity = touched.severity.max(Some(event.severity));
                touched.alert = alert_place(event);
            });
            let sql = "UPDATE episode SET incident = ?2 WHERE id = ?1";
            exec(&self.tx.conn, sql, params![known.id.0, say.incident.map(|id| id.0)])?;
        }
        self.unquote(known.id, "reconsidered", &say)
    }

    fn resolved(&mut self, event: &Event, json: &[u8], known: &KnownEpisode) -> Result<(), StoreError> {
        let start = self.quote(json);
        exec(
            &self.tx.conn,
            "UPDATE episode SET state = 1, last_seen = ?2, starts_at = CASE WHEN ?3 < starts_at THEN ?3 ELSE starts_at END, \
             heard = ?4, start = ?5, length = ?6 WHERE id = ?1",
            params![known.id.0, micros(self.now), micros(event.starts_at), self.no.0, start, json.len() as i64],
        )?;
        self.touch(known.incident, |touched| touched.firing -= 1);
        if let Some(incident) = known.incident {
            self.woken |= super::runs::wake_askers(&self.tx.conn, incident, known.id, self.now)?;
        }
        self.heard.resolved += 1;
        self.unquote(
            known.id,
            EpisodeChange::Resolved.name(),
            &EventDecision { incident: known.incident, ..EventDecision::default() },
        )
    }

    /// The incident of the alert's last episode, if it is still open: then the alert has only come back.
    fn returns_to(&self, known: Option<&KnownEpisode>) -> Result<Option<IncidentId>, StoreError> {
        match known.and_then(|known| known.incident) {
            Some(incident) if incidents::is_open(&self.tx.conn, incident)? => Ok(Some(incident)),
            _ => Ok(None),
        }
    }

    /// Two alerts may share a key on disk, so their texts are compared there.
    fn known(&self, event: &Event, complaint: AlertKey) -> Result<Option<KnownEpisode>, StoreError> {
        let known = |row: &DbRow<'_>| {
            let state = super::rows::episode_state(row.get(1)?);
            Ok(KnownEpisode {
                id: EpisodeId(row.get(0)?),
                prior: PriorEpisode { state, starts_at: time(row, 2)? },
                incident: row.get::<Option<i64>>(3)?.map(IncidentId),
            })
        };
        if let Some(id) = self.tx.sole.recent.get(complaint) {
            let sql = "SELECT id, state, starts_at, incident FROM episode WHERE id = ?1";
            let found = one(&self.tx.conn, sql, [id], known)?;
            // One that was swept away is as if it had never been.
            if found.is_some() {
                return Ok(found);
            }
        }
        if !self.tx.sole.recent.has_filed() {
            return Ok(None);
        }
        one(&self.tx.conn, FILED, params![complaint.key, event.fingerprint, event.source], known)
    }

    fn insert(
        &self,
        event: &Event,
        complaint: AlertKey,
        id: EpisodeId,
        incident: Option<IncidentId>,
        start: i64,
        length: usize,
    ) -> Result<(), StoreError> {
        exec(
            &self.tx.conn,
            "INSERT INTO episode (id, complaint, state, incident, starts_at, opened_at, last_seen, seen, reopened, heard, \
             start, length, source, fingerprint) VALUES (?1, ?2, 0, ?3, ?4, ?5, ?5, 1, 0, ?6, ?7, ?8, ?9, ?10)",
            params![
                id.0,
                complaint.key,
                incident.map(|id| id.0),
                micros(event.starts_at),
                micros(self.now),
                self.no.0,
                start,
                length as i64,
                event.source,
                event.fingerprint
            ],
        )?;
        Ok(())
    }

    /// Begins the event's line in the body; returns where its own bytes begin.
    fn quote(&mut self, json: &[u8]) -> i64 {
        if self.body.last() != Some(&b'[') {
            self.body.push(b',');
        }
        self.body.extend_from_slice(br#"{"event":"#);
        let start = self.body.len();
        self.body.extend_from_slice(json);
        start as i64
    }

    /// Ends the event's line with its consequences.
    fn unquote(&mut self, episode: EpisodeId, change: &str, say: &EventDecision) -> Result<(), StoreError> {
        let broken =
            |error: &dyn std::fmt::Display| StoreError::Refused(format!("a decision that is not JSON: {error}"));
        let body = &mut self.body;
        write!(body, r#","episode":"{episode}""#).map_err(|error| broken(&error))?;
        if let Some(incident) = say.incident {
            write!(body, r#","incident":"{incident}""#).map_err(|error| broken(&error))?;
        }
        write!(body, r#","change":"{change}""#).map_err(|error| broken(&error))?;
        if !say.runs.is_empty() {
            body.extend_from_slice(br#","runs":"#);
            serde_json::to_writer(&mut *body, &say.runs).map_err(|error| broken(&error))?;
        }
        if !say.reasons.is_empty() {
            body.extend_from_slice(br#","reasons":"#);
            serde_json::to_writer(&mut *body, &say.reasons).map_err(|error| broken(&error))?;
        }
        body.push(b'}');
        Ok(())
    }

    fn touch(&mut self, incident: Option<IncidentId>, change: impl FnOnce(&mut IncidentChanges)) {
        if let Some(incident) = incident {
            change(self.touched.entry(incident).or_default());
        }
    }

    /// Writes the entries, the incidents' counters, and the channels' news.
    fn finish(mut self, batch: &EventBatch) -> Result<IntakeResult, StoreError> {
        self.write_joined()?;
        let hold = self.tx.resolve_after;
        for (incident, touched) in std::mem::take(&mut self.touched) {
            if let Some(entry) = incidents::settle(self.tx, incident, &touched, hold, self.now)? {
                self.later.push((Actor::engine(), EntryLinks { incident: Some(incident), run: None }, entry));
            }
        }
        if self.body.last() != Some(&b'[') {
            self.body.extend_from_slice(b"]}");
            self.tx.append_body("heard", EntryLinks::default(), &self.body, self.now)?;
        }
        for text in &batch.gaps {
            let gap = EntryKind::Gap { source: batch.source.clone(), text: text.clone() };
            self.tx.append_quietly(&self.actor, EntryLinks::default(), &gap, self.now)?;
        }
        let mut last: BTreeMap<IncidentId, EntryNo> = BTreeMap::new();
        for (actor, about, kind) in &self.later {
            let no = self.tx.append_quietly(actor, *about, kind, self.now)?;
            last.extend(about.incident.map(|incident| (incident, no)));
        }
        // Where storms are one incident, a first message waits a moment for the rest of its storm.
        let waits = self.tx.group_wait > Span::default() && !self.told.is_empty();
        let first = if waits { self.now + limits::GROUP_SETTLE } else { self.now };
        for (incident, channel) in &self.told {
            self.tx.want(*incident, channel, *last.get(incident).unwrap_or(&self.no), first)?;
        }
        let mut bumped = false;
        for (incident, no) in last {
            bumped |= self.tx.bump(incident, no, self.now)?;
        }
        self.tx.sole.recent.file(&self.tx.conn, self.heard.opened, self.tx.sole.next.episode - 1)?;
        self.heard.nudge = bumped || self.woken || !self.told.is_empty() || !self.heard.runs.is_empty();
        Ok(self.heard)
    }
}

/// The user who posted the alert that opened this episode, where a user did: a run that it starts later is theirs as well.
fn poster_of(conn: &dyn Db, episode: EpisodeId) -> Result<Option<String>, StoreError> {
    let sql = "SELECT entry.body FROM episode JOIN entry ON entry.no = episode.heard WHERE episode.id = ?1";
    let body = one(conn, sql, [episode.0], |row| row.get::<Option<Vec<u8>>>(0))?.flatten();
    let Some(body) = body else { return Ok(None) };
    let stored: super::tx::StoredEntry = serde_json::from_slice(&body)
        .map_err(|error| StoreError::Damaged(format!("the entry of {episode}: {error}")))?;
    let EntryKind::Heard { via, .. } = stored.kind else { return Ok(None) };
    Ok(via.filter(|poster| poster.person).map(|poster| poster.by))
}

const _: () = assert!(
    EpisodeState::Open as u8 == 0 && EpisodeState::Resolved as u8 == 1 && EpisodeState::Stale as u8 == 2,
    "as written in the statements"
);
