//! Levels: the modes of rules, raised by users on evidence, and lowered by users or by bad outcomes.
//!
//! Invariant: a level moves in the transaction that saw the reason, and never up without an entry of who did it and why.

use super::tx::Tx;
use super::{incidents, persons, record};
use crate::limits;
use crate::model::{
    Actor, DemotionLimits, EntryKind, EntryLinks, IncidentId, Mode, RuleLevel, RuleSnapshot, RuleStats, Run, RunId,
    Severity, Subject, Time, short_content,
};
use crate::planted::planted;
use crate::policy;
use crate::store::db::{Db, DbRow, all, exec, json, micros, number, one, params, time, to_json, to_word, word};
use crate::store::{PromotionRequest, StoreError};
use std::collections::BTreeMap;

/// Entries that follow from something, and channels that must be notified of an incident among them; the caller appends
/// them where the ledger has its place for them.
#[derive(Default)]
pub(crate) struct FollowUpEntries {
    pub entries: Vec<(Actor, EntryLinks, EntryKind)>,
    pub told: Vec<(IncidentId, String)>,
}

impl FollowUpEntries {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Writes the entries, and the news for the channels.
    ///
    /// # Errors
    ///
    /// Fails when the database does; the transaction is undone then.
    pub fn append(self, tx: &mut Tx, now: Time) -> Result<(), StoreError> {
        let mut last = BTreeMap::new();
        for (actor, about, entry) in self.entries {
            let no = tx.append(&actor, about, &entry, now)?;
            last.extend(about.incident.map(|incident| (incident, no)));
        }
        for (incident, channel) in self.told {
            if let Some(no) = last.get(&incident) {
                tx.want(incident, &channel, *no, now)?;
            }
        }
        Ok(())
    }
}

/// A move of a rule, with every channel to notify. Where no channel would be by the incident that it is about, it is
/// sent by an incident of its own, which is over at once: one message, and no page.
fn told(
    tx: &mut Tx,
    (actor, mut about, entry): (Actor, EntryLinks, EntryKind),
    tell: &[String],
    now: Time,
) -> Result<FollowUpEntries, StoreError> {
    let heard = match about.incident {
        Some(incident) => number(&tx.conn, "SELECT count(*) FROM outbox WHERE incident = ?1", [incident.0])? > 0,
        None => false,
    };
    let channels = if tell.is_empty() { tx.channels.clone() } else { tell.to_vec() };
    let (rule, title, severity) = match &entry {
        EntryKind::RulePromoted { rule, from, to, by, .. } => {
            (rule, format!("rule {rule} promoted from {from} to {to} by {by}"), Severity::Info)
        }
        EntryKind::RuleDemoted { rule, from, to, why, content, past: true, .. } => {
            let content = short_content(content);
            (
                rule,
                format!("the earlier version of rule {rule} (content {content}) is demoted from {from} to {to}: {why}"),
                Severity::Info,
            )
        }
        EntryKind::RuleDemoted { rule, from, to, by, why, .. } if by == ENGINE => {
            (rule, format!("rule {rule} demoted from {from} to {to}: {why}"), Severity::Warning)
        }
        EntryKind::RuleDemoted { rule, from, to, by, .. } => {
            (rule, format!("rule {rule} demoted from {from} to {to} by {by}"), Severity::Info)
        }
        _ => return Ok(FollowUpEntries { entries: vec![(actor, about, entry)], told: Vec::new() }),
    };
    if heard || channels.is_empty() {
        return Ok(FollowUpEntries { entries: vec![(actor, about, entry)], told: Vec::new() });
    }
    let key = format!("{MOVES}{rule}");
    let title: String = title.chars().take(limits::STORY_LINE_CHARS).collect();
    let (incident, opened) = incidents::create(tx, &key, &title, &Subject::default(), severity, now)?;
    exec(&tx.conn, "UPDATE incident SET closed_at = ?2 WHERE id = ?1", params![incident.0, micros(now)])?;
    let alone = EntryLinks { incident: Some(incident), run: None };
    about.incident = about.incident.or(Some(incident));
    let over = EntryKind::IncidentResolved { why: "this is a notification only; no step is left".to_owned() };
    let entries = vec![(Actor::engine(), alone, opened), (actor, about, entry), (Actor::engine(), alone, over)];
    Ok(FollowUpEntries { entries, told: channels.into_iter().map(|channel| (incident, channel)).collect() })
}

/// The prefix of the keys of incidents about a rule's move.
const MOVES: &str = "rule-moved/";
/// Who moves a rule by itself.
const ENGINE: &str = "engine";

const LEVEL: &str = "rule, content, mode, file, down, by, why, at, from_run, evidence_from, card";

fn read(row: &DbRow<'_>) -> Result<RuleLevel, StoreError> {
    Ok(RuleLevel {
        rule: row.get(0)?,
        content: row.get(1)?,
        mode: word(row, 2)?,
        file: word(row, 3)?,
        down: row.get(4)?,
        by: row.get(5)?,
        why: row.get(6)?,
        at: time(row, 7)?,
        from_run: RunId(row.get(8)?),
        evidence_from: RunId(row.get(9)?),
        card: json(row, 10)?,
    })
}

/// Every level, the latest move first.
pub(crate) fn levels(conn: &dyn Db) -> Result<Vec<RuleLevel>, StoreError> {
    let sql = format!("SELECT {LEVEL} FROM level ORDER BY at DESC, rule LIMIT ?1");
    all(conn, &sql, [crate::limits::READ_LIMIT as i64], read)
}

fn level(conn: &dyn Db, rule: &str, content: &str) -> Result<Option<RuleLevel>, StoreError> {
    one(conn, &format!("SELECT {LEVEL} FROM level WHERE rule = ?1 AND content = ?2"), [rule, content], read)
}

/// The statistics that count for the rule now.
pub(crate) fn card(conn: &dyn Db, rule: &str, content: &str) -> Result<RuleStats, StoreError> {
    let from = level(conn, rule, content)?.map_or(RunId(0), |level| level.evidence_from);
    record::card(conn, rule, content, from)
}

/// How far the rule goes now: the one place where that is decided.
pub(crate) fn effective(tx: &Tx, rule: &str, terms: &RuleSnapshot) -> Result<Mode, StoreError> {
    let level = level(&tx.conn, rule, &terms.content)?;
    Ok(policy::effective(terms.file, level.as_ref(), tx.ceiling))
}

/// How far a run may go that began as it did: a ceiling that was lowered and a rule that was brought down hold for it, too.
pub(crate) fn mode_now(tx: &Tx, run: &Run) -> Result<Mode, StoreError> {
    let mut mode = run.mode.min(tx.ceiling);
    if let Some(rule) = run.rule.as_deref().filter(|_| !planted("cached-mode")) {
        // A bad outcome of one content is no evidence about another; a user who demotes a rule means any content.
        let sql = "SELECT mode FROM level WHERE rule = ?1 AND from_run > ?2 \
                   AND (content = (SELECT content FROM record WHERE run = ?2) OR (down AND by <> ?3))";
        for level in all(&tx.conn, sql, params![rule, run.id.0, ENGINE], |row| word::<Mode>(row, 0))? {
            mode = mode.min(level);
        }
    }
    Ok(mode)
}

fn write(conn: &dyn Db, level: &RuleLevel) -> Result<(), StoreError> {
    let sql = "INSERT INTO level (rule, content, mode, file, down, by, why, at, from_run, evidence_from, card) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (rule, content) DO UPDATE SET \
               mode = excluded.mode, file = excluded.file, down = excluded.down, by = excluded.by, why = excluded.why, \
               at = excluded.at, from_run = excluded.from_run, evidence_from = excluded.evidence_from, card = excluded.card";
    let values = params![
        level.rule,
        level.content,
        to_word(&level.mode)?,
        to_word(&level.file)?,
        level.down,
        level.by,
        level.why,
        micros(level.at),
        level.from_run.0,
        level.evidence_from.0,
        to_json(&level.card)?
    ];
    exec(conn, sql, values).map(drop)
}

/// The rule and run of a bad outcome.
struct BadOutcome {
    rule: String,
    content: String,
    file: Mode,
    demote: DemotionLimits,
    tell: Vec<String>,
}

/// A run ended badly: whether its rule has had too many of those at this level. Then its mode is lowered, here and now;
/// and only as it was for this run. `in_force`: the content of the rule in force, where it is known; else its last one.
pub(crate) fn weigh(tx: &mut Tx, run: RunId, in_force: Option<&str>, now: Time) -> Result<FollowUpEntries, StoreError> {
    let sql = "SELECT rule, content, file, demote_auto, demote_approve, tell FROM record WHERE run = ?1";
    let seen = one(&tx.conn, sql, [run.0], |row| {
        let demote = DemotionLimits { auto: row.get(3)?, approve: row.get(4)? };
        Ok(BadOutcome { rule: row.get(0)?, content: row.get(1)?, file: word(row, 2)?, demote, tell: json(row, 5)? })
    })?;
    let Some(seen) = seen else { return Ok(FollowUpEntries::default()) };
    let level = level(&tx.conn, &seen.rule, &seen.content)?;
    let from = policy::effective(seen.file, level.as_ref(), tx.ceiling);
    let most = match from {
        Mode::Auto => seen.demote.auto,
        Mode::Approve => seen.demote.approve,
        // It does nothing that could be bad.
        Mode::Observe | Mode::Suggest => 0,
    };
    let since = level.as_ref().map_or(RunId(0), |level| level.from_run);
    let bad = record::bad_since(&tx.conn, &seen.rule, &seen.content, since)?;
    let (Some(to), true) = (from.down(), most > 0 && bad >= most && run >= since) else {
        return Ok(FollowUpEntries::default());
    };
    let why = format!("{}; {bad} of {most} bad outcomes in {from}", in_words(tx, run)?);
    let card = record::card(&tx.conn, &seen.rule, &seen.content, level.map_or(RunId(0), |level| level.evidence_from))?;
    let past = match in_force {
        Some(content) => content != seen.content,
        None => {
            let sql = "SELECT content FROM record WHERE rule = ?1 ORDER BY run DESC LIMIT 1";
            one(&tx.conn, sql, [&seen.rule], |row| row.get::<String>(0))?.is_some_and(|last| last != seen.content)
        }
    };
    let next = RunId(tx.sole.next.run);
    let moved = RuleLevel {
        rule: seen.rule.clone(),
        content: seen.content.clone(),
        mode: to,
        file: seen.file,
        down: true,
        by: ENGINE.to_owned(),
        why: why.clone(),
        at: now,
        from_run: next,
        evidence_from: next,
        card: card.clone(),
    };
    write(&tx.conn, &moved)?;
    let entry = EntryKind::RuleDemoted {
        rule: seen.rule,
        from,
        to,
        by: ENGINE.to_owned(),
        why,
        content: seen.content,
        card: Box::new(card),
        past,
    };
    let about = EntryLinks { incident: record::incident(&tx.conn, run)?, run: Some(run) };
    told(tx, (Actor::engine(), about, entry), &seen.tell, now)
}

/// The bad outcome of a run, in words.
fn in_words(tx: &Tx, run: RunId) -> Result<String, StoreError> {
    let sql = format!(
        "SELECT coalesce(aftermath, '') = 'back', acted AND coalesce(ended, '') IN ('failed', 'stuck'), ended, undone, \
         (SELECT {}(who, ', ') FROM judgement WHERE judgement.run = record.run AND verdict = 0), answer_by \
         FROM record WHERE run = ?1",
        tx.conn.dialect().joined
    );
    let found = one(&tx.conn, &sql, [run.0], |row| {
        let (back, broke, undone) = (row.get::<bool>(0)?, row.get::<bool>(1)?, row.get::<bool>(3)?);
        let blamed: Option<String> = row.get(4)?;
        Ok(match (blamed, back, broke) {
            (Some(who), ..) => format!("{run} was reviewed as wrong by {who}"),
            (None, true, _) => format!("after {run} the alert came back within the bake time"),
            (None, false, true) if undone => format!("{run} failed and undid its steps"),
            (None, false, true) => format!("{run} {}", row.get::<Option<String>>(2)?.unwrap_or_default()),
            (None, false, false) => {
                format!("{run} was denied by {}", row.get::<Option<String>>(5)?.unwrap_or_default())
            }
        })
    })?;
    Ok(found.unwrap_or_default())
}

/// One level up, or a refusal that lists the missing evidence.
pub(crate) fn promote(tx: &mut Tx, climb: &PromotionRequest, now: Time) -> Result<(), StoreError> {
    let (rule, terms) = (&climb.rule, &climb.terms);
    let refused = |text: String| Err(StoreError::Refused(text));
    let before = level(&tx.conn, rule, &terms.content)?;
    let from = policy::effective(terms.file, before.as_ref(), tx.ceiling);
    let Some(to) = from.up() else { return refused(format!("rule {rule} is in auto: this is the highest level")) };
    if let Some(wanted) = climb.to.filter(|wanted| *wanted != to) {
        return refused(format!(
            "rule {rule} is in {from}: promotion goes one level at a time, and the next level is {to}, not {wanted}"
        ));
    }
    if to > tx.ceiling {
        return refused(format!("{to} is above this installation's `mode_ceiling`, {}", tx.ceiling));
    }
    let evidence_from = before.map_or(RunId(0), |level| level.evidence_from);
    let card = record::card(&tx.conn, rule, &terms.content, evidence_from)?;
    let mut others = false;
    for judge in &card.judges {
        others |= !persons::same(&tx.conn, judge, &climb.by)?;
    }
    let missing = policy::missing(&climb.promote, &card, to, &climb.by, others, now);
    if !missing.is_empty() {
        return refused(format!("rule {rule} has not shown enough for {to}: {}", missing.join("; ")));
    }
    let moved = ModeChange { climb, from, to, down: to < terms.file, evidence_from, card };
    let entry = |moved: &ModeChange<'_>| EntryKind::RulePromoted {
        rule: rule.clone(),
        from,
        to,
        by: climb.by.clone(),
        why: climb.why.clone(),
        content: terms.content.clone(),
        card: Box::new(moved.card.clone()),
    };
    by_hand(tx, &moved, entry(&moved), now)
}

/// Down, at a user's request: no evidence is required.
pub(crate) fn demote(tx: &mut Tx, climb: &PromotionRequest, now: Time) -> Result<(), StoreError> {
    let (rule, terms) = (&climb.rule, &climb.terms);
    let before = level(&tx.conn, rule, &terms.content)?;
    let from = policy::effective(terms.file, before.as_ref(), tx.ceiling);
    let Some(to) = climb.to.or(from.down()) else {
        return Err(StoreError::Refused(format!("rule {rule} is in observe, the lowest level")));
    };
    if to >= from {
        return Err(StoreError::Refused(format!("rule {rule} is in {from}: {to} is not below that")));
    }
    let evidence_from = before.map_or(RunId(0), |level| level.evidence_from);
    let card = record::card(&tx.conn, rule, &terms.content, evidence_from)?;
    let entry = EntryKind::RuleDemoted {
        rule: rule.clone(),
        from,
        to,
        by: climb.by.clone(),
        why: climb.why.clone(),
        content: terms.content.clone(),
        card: Box::new(card.clone()),
        past: false,
    };
    let evidence_from = RunId(tx.sole.next.run);
    by_hand(tx, &ModeChange { climb, from, to, down: true, evidence_from, card }, entry, now)
}

struct ModeChange<'a> {
    climb: &'a PromotionRequest,
    from: Mode,
    to: Mode,
    down: bool,
    evidence_from: RunId,
    card: RuleStats,
}

fn by_hand(tx: &mut Tx, moved: &ModeChange<'_>, entry: EntryKind, now: Time) -> Result<(), StoreError> {
    debug_assert!(moved.from != moved.to, "a move goes somewhere");
    let climb = moved.climb;
    let level = RuleLevel {
        rule: climb.rule.clone(),
        content: climb.terms.content.clone(),
        mode: moved.to,
        file: climb.terms.file,
        down: moved.down,
        by: climb.by.clone(),
        why: climb.why.clone(),
        at: now,
        from_run: RunId(tx.sole.next.run),
        evidence_from: moved.evidence_from,
        card: moved.card.clone(),
    };
    write(&tx.conn, &level)?;
    // The channels of the rule's last news get this, too.
    let sql = "SELECT run.incident FROM record JOIN run ON run.id = record.run WHERE record.rule = ?1 \
               AND run.incident IS NOT NULL ORDER BY record.run DESC LIMIT 1";
    let incident = one(&tx.conn, sql, [&climb.rule], |row| Ok(IncidentId(row.get(0)?)))?;
    let about = EntryLinks { incident, run: None };
    told(tx, (Actor::person(&climb.by), about, entry), &climb.terms.tell, now)?.append(tx, now)?;
    wake(tx, &climb.rule, now)
}

/// Runs of the rule that wait look at their mode now.
fn wake(tx: &Tx, rule: &str, now: Time) -> Result<(), StoreError> {
    if number(&tx.conn, "SELECT count(*) FROM record WHERE rule = ?1 AND ended IS NULL", [rule])? == 0 {
        return Ok(());
    }
    let sql = format!(
        "UPDATE run SET wake_at = ?2 WHERE rule = ?1 AND final = 0 AND {} = 'held'",
        tx.conn.dialect().state_is
    );
    exec(&tx.conn, &sql, params![rule, micros(now)]).map(drop)
}
