//! `GET /api/v1/why?subject=`: action and inaction explained from the ledger.
//!
//! Invariant: every sentence comes from an entry, but for the near misses, which are marked as about the present rules.

mod moves;

use super::{App, AuthorizedCaller, Problem, QueryParams, read, refuse};
use crate::api::{ExplainedOutcome as What, Explanation, ExplanationBlock as Block, ExplanationLine as Line, WhyQuery};
use crate::model::{
    EffectClass, Entry, EntryKind, EntryLinks, EntryNo, Event, EventOutcome, IncidentId, Mode, Reason, ReasonCode,
    RunId, Subject,
};
use crate::policy::{RuleDecision, RuleSet};
use crate::store::Filter;
use axum::Json;
use axum::extract::State;

/// Events of one subject that are explained: the newest ones.
const EVENTS: usize = 5;
/// Rules whose first failed matcher is shown when none matched.
const NEAR_MISSES: usize = 12;

pub(super) async fn why(
    _: AuthorizedCaller,
    State(app): State<App>,
    QueryParams(question): QueryParams<WhyQuery>,
) -> Result<Json<Explanation>, Problem> {
    let subject = question.subject.trim().to_owned();
    if subject.is_empty() {
        return Err(refuse::bad("`subject` is empty", "name a run, an incident, an alert's fingerprint or a node"));
    }
    let rules = (app.current)().rules.clone();
    let mut blocks = match parse(&subject) {
        WhySubject::Run(id) => {
            let run = read::find_run(&app, id).await?;
            let entries = read::oldest_first(&app, about(None, Some(id))).await?;
            let mut blocks = Vec::new();
            if let (Some(incident), Some(episode)) = (run.incident, run.episode) {
                let around = heard_since(&app, incident).await?;
                blocks.extend(heard(&app, &around, |heard| heard.episode == episode));
            }
            blocks.extend(runs(&entries));
            moves::because(&app, &mut blocks, &entries).await?;
            blocks
        }
        WhySubject::Incident(id) => {
            read::find_incident(&app, id).await?;
            let entries = read::oldest_first(&app, about(Some(id), None)).await?;
            let mut blocks = heard(&app, &heard_since(&app, id).await?, |heard| heard.incident == Some(id));
            blocks.extend(runs(&entries));
            moves::because(&app, &mut blocks, &entries).await?;
            blocks
        }
        WhySubject::Words(words) if rules.rule(&words).is_some() => scope(&app, &format!("rule:{words}")).await?,
        WhySubject::Words(words) if is_scope(&words) => scope(&app, &words).await?,
        WhySubject::Words(words) => search(&app, &words).await?,
    };
    // Of one moment an event stands below its consequences: the sort is stable, and the blocks come in that order.
    blocks.reverse();
    blocks.sort_by_key(|block| std::cmp::Reverse(block.at));
    if blocks.is_empty() {
        return Err(refuse::missing(
            format!("event, run or incident named `{}`", subject.escape_debug()),
            "no event about it was received, so no action was taken: does its source send to Nightshift? See `nightshift audit log --kind heard`",
        ));
    }
    Ok(Json(Explanation { subject, blocks }))
}

enum WhySubject {
    Run(RunId),
    Incident(IncidentId),
    Words(String),
}

fn parse(subject: &str) -> WhySubject {
    let lower = subject.to_ascii_lowercase();
    if let Ok(id) = lower.parse() {
        return WhySubject::Run(id);
    }
    match lower.parse() {
        Ok(id) => WhySubject::Incident(id),
        Err(_) => WhySubject::Words(subject.to_owned()),
    }
}

/// Whether it can be frozen, or has a breaker.
fn is_scope(words: &str) -> bool {
    words == "all" || ["cluster:", "rule:", "symptom:"].iter().any(|kind| words.starts_with(kind))
}

/// The freezes and releases of a scope, and the runs that tripped its breaker.
async fn scope(app: &App, words: &str) -> Result<Vec<Block>, Problem> {
    let kinds = [["breaker_tripped", "breaker_reset", "frozen", "unfrozen", "release_asked"].as_slice(), &moves::MOVES]
        .concat();
    let entries = read::oldest_first(app, Filter { kinds, ..about(None, None) }).await?;
    let loaded = (app.current)();
    let mut lines = Vec::new();
    let mut since = None;
    for entry in &entries {
        let Some((scope, mut line)) = explain_scope(entry) else { continue };
        if scope != words {
            continue;
        }
        since = since.or(Some(entry.at));
        line.text = format!("{}: {}", entry.at.strftime("%Y-%m-%d %H:%M UTC"), line.text);
        lines.push(line);
    }
    if let Some(rule) = words.strip_prefix("rule:")
        && let Some(card) = super::ladder::standing(app, rule).await?
    {
        since = since.or(Some(app.parts.clock.now()));
        lines.extend(moves::stands(&card));
    } else if let Some(rule) = words.strip_prefix("rule:").and_then(|name| loaded.rules.rule(name)) {
        // It runs nothing, so it has no statistics: only its settings can be listed.
        since = since.or(Some(app.parts.clock.now()));
        let channels = if rule.tell.is_empty() { "no channel".to_owned() } else { rule.tell.join(", ") };
        let text = format!("it matches alerts and notifies {channels}; it runs no runbook");
        lines.push(Line { no: None, what: What::Now, text, code: None });
        let text =
            "for its matches: `nightshift incidents --all`, then `nightshift why` with an alert's name".to_owned();
        lines.push(Line { no: None, what: What::Now, text, code: None });
    }
    let block = since.map(|at| Block { title: words.to_owned(), at, incident: None, run: None, lines });
    Ok(block.into_iter().collect())
}

fn explain_scope(entry: &Entry) -> Option<(String, Line)> {
    let line = |what: What, text: String, code: Option<String>| Line { no: Some(entry.no), what, text, code };
    let run = entry.about.run.map(|run| format!(" (seen by {run})")).unwrap_or_default();
    Some(match &entry.kind {
        EntryKind::BreakerTripped { breaker } => {
            let code = Some(ReasonCode::BreakerTripped.name().to_owned());
            (breaker.scope.clone(), line(What::DidNot, format!("the breaker tripped{run}: {}", breaker.why), code))
        }
        EntryKind::BreakerReset { scope, by, why } => {
            (scope.clone(), line(What::Decided, format!("{by} reset the breaker: {why}"), None))
        }
        EntryKind::Frozen { freeze } => {
            let until = freeze.until.map(|_| format!(" {}", freeze.lasts())).unwrap_or_default();
            let text = format!("{} froze it{until}: {}", freeze.by, freeze.why);
            (freeze.scope.clone(), line(What::Decided, text, Some(ReasonCode::Frozen.name().to_owned())))
        }
        EntryKind::ReleaseAsked { scope, by, why } => (
            scope.clone(),
            line(What::Decided, format!("{by} requests its release, and a second person must confirm: {why}"), None),
        ),
        EntryKind::Unfrozen { scope, by, why } => {
            (scope.clone(), line(What::Decided, format!("{by} released it: {why}"), None))
        }
        EntryKind::RulePromoted { rule, from, to, by, why, card, .. } => {
            let text = format!("{by} promoted it from {from} to {to} with {}: {why}", card.words());
            (format!("rule:{rule}"), line(What::Decided, text, None))
        }
        EntryKind::RuleDemoted { rule, from, to, by, why, card, content, past } => {
            let it = match past {
                true => format!("it, as it was then (content {}),", crate::model::short_content(content)),
                false => "it".to_owned(),
            };
            let text = format!("{by} brought {it} down from {from} to {to} with {}{run}: {why}", card.words());
            (format!("rule:{rule}"), line(What::Decided, text, None))
        }
        _ => return None,
    })
}

fn about(incident: Option<IncidentId>, run: Option<RunId>) -> Filter {
    Filter { incident, run, limit: crate::limits::READ_LIMIT, ..Filter::default() }
}

/// The alerts received since an incident began. One `heard` entry belongs to many incidents and so to none: it stands
/// before the entries of its batch, never farther than a batch can reach.
async fn heard_since(app: &App, id: IncidentId) -> Result<Vec<Entry>, Problem> {
    let first = Filter { kinds: vec!["incident_opened"], limit: 1, ..about(Some(id), None) };
    let opened = read::oldest_first(app, first).await?.first().map_or(0, |entry| entry.no.0);
    let reach = 4 * crate::limits::ALERTS_PER_BODY as i64;
    let filter = Filter { kinds: vec!["heard"], after: Some((opened - reach).max(-1)), ..about(None, None) };
    read::oldest_first(app, filter).await
}

/// The newest events that are about these words (fingerprint, part of the subject, name, label value), with their runs.
async fn search(app: &App, words: &str) -> Result<Vec<Block>, Problem> {
    let filter = Filter { kinds: vec!["heard", "run_created"], ..about(None, None) };
    let entries = read::oldest_first(app, filter).await?;
    let mut blocks = heard(app, &entries, |heard| speaks_of(&heard.event, heard, words));
    let skip = blocks.len().saturating_sub(EVENTS);
    blocks.drain(..skip);
    let mut ids: Vec<RunId> = entries.iter().filter_map(|entry| started(entry, words, &blocks)).collect();
    ids.sort();
    ids.dedup();
    let skip = ids.len().saturating_sub(EVENTS);
    for id in ids.split_off(skip) {
        blocks.extend(runs(&read::oldest_first(app, about(None, Some(id))).await?));
    }
    Ok(blocks)
}

fn speaks_of(event: &Event, heard: &EventOutcome, words: &str) -> bool {
    event.fingerprint == words
        || event.name() == words
        || heard.episode.to_string() == words
        || event.labels.iter().any(|(_, value)| value == words)
        || Subject::PARTS.iter().any(|part| event.subject.part(part) == Some(words))
}

/// The run that this entry created, if it is about the words or belongs to an incident that was found.
fn started(entry: &Entry, words: &str, blocks: &[Block]) -> Option<RunId> {
    let EntryKind::RunCreated { subject, .. } = &entry.kind else { return None };
    let ours = entry.about.incident.is_some_and(|id| blocks.iter().any(|block| block.incident == Some(id)));
    let parts = ["cluster", "node", "gpu", "namespace", "workload", "pod", "model"];
    let named = parts.iter().any(|part| subject.part(part) == Some(words));
    if ours || named { entry.about.run } else { None }
}

fn heard(app: &App, entries: &[Entry], wanted: impl Fn(&EventOutcome) -> bool) -> Vec<Block> {
    let rules = (app.current)().rules.clone();
    let mut blocks = Vec::new();
    for entry in entries {
        let EntryKind::Heard { source, events, .. } = &entry.kind else { continue };
        for heard in events.iter().filter(|heard| wanted(heard)) {
            blocks.push(explain_event(entry, source, heard, (&rules, app.kind_of(source))));
        }
    }
    blocks
}

fn explain_event(entry: &Entry, source: &str, heard: &EventOutcome, (rules, kind): (&RuleSet, &str)) -> Block {
    let event = &heard.event;
    let mut lines: Vec<Line> = Vec::new();
    for run in &heard.runs {
        lines.push(Line { no: Some(entry.no), what: What::Did, text: format!("run {run} was started"), code: None });
    }
    lines.extend(heard.reasons.iter().map(|reason| refusal(entry.no, reason)));
    // A resolve starts nothing by its nature; the rules' reasons for it would only be noise.
    if ["opened", "reopened", "reconsidered"].contains(&heard.change.as_str()) {
        let now = |text: String| Line { no: None, what: What::Now, text, code: None };
        for told in rules.select_from(event, kind).iter().filter(|selected| selected.chosen == RuleDecision::Tell) {
            let channels = told.rule.tell.join(", ");
            let text = format!(
                "rule `{}`, in its current version matches: it notifies {channels} and runs no runbook",
                told.rule.name
            );
            lines.push(now(text));
        }
        // Where a rule did match, those that did not are only counted.
        let matched = lines.iter().any(|line| line.code.as_deref() != Some(ReasonCode::NoRuleMatched.name()));
        let misses = rules.near_misses(event, kind);
        let shown = if matched { 0 } else { NEAR_MISSES };
        let rest = misses.len().saturating_sub(shown);
        for (rule, why) in misses.into_iter().take(shown) {
            lines.push(now(format!("rule `{rule}`, as it is now, does not match: {why}")));
        }
        if rest > 0 {
            let rules = if rest == 1 { "1 other rule does".to_owned() } else { format!("{rest} other rules do") };
            lines.push(now(format!("{rules} not match, as they are now")));
        }
    }
    if lines.is_empty() {
        let text = format!("it {} its episode {}; that starts no run", heard.change, heard.episode);
        lines.push(Line { no: Some(entry.no), what: What::DidNot, text, code: None });
    }
    let title = format!("{source} reported: {} ({}, fingerprint {})", event.summary, heard.change, event.fingerprint);
    Block { title, at: entry.at, incident: heard.incident, run: None, lines }
}

/// A block for each run in these entries.
fn runs(entries: &[Entry]) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for entry in entries {
        let EntryLinks { incident, run: Some(run) } = entry.about else { continue };
        let Some(line) = explain_run(entry) else { continue };
        match blocks.iter_mut().find(|block| block.run == Some(run)) {
            Some(block) => block.lines.push(line),
            None => blocks.push(Block {
                title: format!("run {run}"),
                at: entry.at,
                incident,
                run: Some(run),
                lines: vec![line],
            }),
        }
    }
    blocks
}

fn explain_run(entry: &Entry) -> Option<Line> {
    let line = |what: What, text: String| Some(Line { no: Some(entry.no), what, text, code: None });
    match &entry.kind {
        EntryKind::RunCreated { runbook, rule, subject, mode, requested_by, .. } => {
            let by = rule.as_ref().map_or(format!("by hand ({requested_by})"), |rule| format!("by rule `{rule}`"));
            let far = match mode {
                Mode::Observe => "observe: plans are recorded, no action is taken",
                Mode::Suggest => "suggest: users are notified of the plan",
                Mode::Approve => "approve: an approval is required first",
                Mode::Auto => "auto: it acts within the guards",
            };
            line(What::Did, format!("started {by}: runbook `{}` on {subject}, mode {far}", runbook.name))
        }
        EntryKind::RunPlanned { plan } => {
            let acts = plan.calls.iter().filter(|call| call.effect != EffectClass::Read).count();
            let list = crate::engine::story::line(entry).map(|line| line.text).unwrap_or_default();
            line(What::Did, if acts == 0 { "planned: no changes".to_owned() } else { list })
        }
        EntryKind::ApprovalAsked { approval, question, expires_at, .. } => line(
            What::Decided,
            format!(
                "approval {approval} was requested: {question}. {}",
                crate::engine::story::deadline(*expires_at, entry.at)
            ),
        ),
        EntryKind::ApprovalDecided { approval, approved, by, why } => {
            let word = if *approved { "approved" } else { "denied" };
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            line(What::Decided, format!("{by} {word} {approval}{why}"))
        }
        EntryKind::ApprovalExpired { approval } => {
            line(What::DidNot, format!("{approval} expired without an answer: it counts as denied"))
        }
        EntryKind::StepBegun { effect: EffectClass::Read, .. } => None,
        EntryKind::StepBegun { step, call, .. } => {
            line(What::Did, format!("step {}: {call}; all guards allowed it", step + 1))
        }
        EntryKind::StepHeld { call, reason, until } => {
            let held = refusal(entry.no, reason);
            Some(Line {
                text: format!("{call} was held until {}: {}", until.strftime("%H:%M:%S UTC"), reason.text),
                ..held
            })
        }
        EntryKind::StepDenied { call, reason } => {
            let denied = refusal(entry.no, reason);
            Some(Line { text: format!("{call} was denied: {}", reason.text), ..denied })
        }
        EntryKind::BreakerTripped { breaker } => Some(Line {
            no: Some(entry.no),
            what: What::DidNot,
            text: format!("breaker {} tripped: {}; `why {0}` shows its timeline", breaker.scope, breaker.why),
            code: Some(ReasonCode::BreakerTripped.name().to_owned()),
        }),
        EntryKind::RunProved { .. } | EntryKind::RunJudged { .. } => {
            line(What::Decided, crate::engine::story::line(entry).map(|line| line.text).unwrap_or_default())
        }
        EntryKind::RuleDemoted { rule, .. } => {
            let (_, demoted) = explain_scope(entry)?;
            Some(Line { text: format!("rule `{rule}`: {}", demoted.text), ..demoted })
        }
        EntryKind::RunEnded { state } => {
            use crate::model::RunState::{Denied, Failed, Stopped, Stuck};
            match state {
                Stuck { reason } | Denied { reason } => {
                    let ended = refusal(entry.no, reason);
                    Some(Line { text: format!("ended {}: {}", state.words(), reason.text), ..ended })
                }
                Failed { why, undone } => {
                    let undone = if *undone { ", and its steps were undone" } else { "" };
                    line(What::Did, format!("ended failed: {why}{undone}"))
                }
                Stopped { why } => line(What::Did, format!("stopped itself: {why}")),
                other => line(What::Did, format!("ended {}", other.name())),
            }
        }
        _ => None,
    }
}

fn refusal(no: EntryNo, reason: &Reason) -> Line {
    Line { no: Some(no), what: What::DidNot, text: reason.text.clone(), code: Some(reason.code.name().to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ActionCall, Actor, Time};
    use serde_json::Value;

    #[test]
    fn a_denied_step_is_explained_with_its_code_and_numbers() {
        let entry = Entry {
            no: EntryNo(7),
            at: Time::UNIX_EPOCH,
            actor: Actor::engine(),
            about: EntryLinks { incident: None, run: Some(RunId(3)) },
            kind: EntryKind::StepDenied {
                call: ActionCall::new("k8s::cordon", [("node", Value::from("gpu-3"))]),
                reason: Reason::new(ReasonCode::BlastRadius, "2 of 4 nodes are out, 1 is allowed"),
            },
        };
        let blocks = runs(&[entry]);
        assert_eq!(blocks.len(), 1);
        assert_eq!(blocks[0].lines[0].code.as_deref(), Some("blast_radius"));
        assert_eq!(blocks[0].lines[0].text, "k8s::cordon(node: gpu-3) was denied: 2 of 4 nodes are out, 1 is allowed");
    }

    #[test]
    fn a_breaker_is_explained_with_the_run_that_saw_it_and_the_numbers_at_that_time() {
        let breaker = crate::model::Breaker {
            scope: "cluster:eu".into(),
            why: "3 remedies failed and 0 ended in doubt within 1h".into(),
            since: Time::UNIX_EPOCH,
        };
        let entry = Entry {
            no: EntryNo(9),
            at: Time::UNIX_EPOCH,
            actor: Actor::engine(),
            about: EntryLinks { incident: None, run: Some(RunId(3)) },
            kind: EntryKind::BreakerTripped { breaker },
        };
        let (scope, line) = explain_scope(&entry).unwrap();
        assert_eq!((scope.as_str(), line.code.as_deref()), ("cluster:eu", Some("breaker_tripped")));
        assert_eq!(line.text, "the breaker tripped (seen by r3): 3 remedies failed and 0 ended in doubt within 1h");
        assert!(runs(&[entry])[0].lines[0].text.starts_with("breaker cluster:eu tripped: 3 remedies failed"));
        assert!(is_scope("symptom:xid") && is_scope("all") && !is_scope("gpu-3"));
    }

    #[test]
    fn an_identifier_is_told_from_a_name() {
        assert!(matches!(parse("R17"), WhySubject::Run(RunId(17))));
        assert!(matches!(parse("i3"), WhySubject::Incident(IncidentId(3))));
        assert!(matches!(parse("gpu-3"), WhySubject::Words(_)));
    }
}
