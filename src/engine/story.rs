//! The story: ledger entries as lines that an on-call user reads, the same in Slack, in mail and in `nightshift show`.
//!
//! Invariant: every kind of entry has words; a line is one line, bounded and free of invisible characters.

mod phrase;
mod plan;

pub use plan::{brief, cannot, planned_steps, planned_words, predicted, question};

use crate::limits::STORY_LINE_CHARS;
use crate::model::{
    ActionCall, AgentName, EffectClass, Entry, EntryKind, EntryNo, EventOutcome, Mode, Outcome, RunId, RunState,
    Subject, Time, TimelineEntry, VerificationResult,
};
use crate::notifiers::one_line;
use std::collections::HashMap;

/// The line of one entry by itself; none for an entry without meaning to users (a read that went well).
pub fn line(entry: &Entry) -> Option<TimelineEntry> {
    TimelineState::default().line(entry)
}

/// A line for each entry that has words, in any order: none is left out because another line repeats it.
pub fn each(entries: &[Entry]) -> Vec<TimelineEntry> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by_key(|entry| entry.no);
    let mut teller = TimelineState::default();
    sorted.into_iter().filter_map(|entry| teller.line(entry)).collect()
}

/// The lines of entries in ascending order: the end of a step has the words of its beginning, and an entry that only
/// repeats the line before (a hold that goes on) has none.
pub fn lines(entries: &[Entry]) -> Vec<TimelineEntry> {
    let mut teller = TimelineState::default();
    let mut told: Vec<TimelineEntry> = Vec::new();
    let mut notified: Option<NotifiedChannels> = None;
    for entry in entries {
        match &entry.kind {
            // "begins: drain gpu-3" has done its duty once "drained gpu-3" is there.
            EntryKind::StepEnded { step, .. } => {
                if let Some(begun) = teller.begun_at(entry.about.run, *step) {
                    told.retain(|line| line.no.0 != begun);
                }
            }
            // The suggestion repeats the plan, in clearer words.
            EntryKind::RunEnded { state: RunState::Planned } => {
                if let Some(planned) = teller.planned_at(entry.about.run) {
                    told.retain(|line| line.no.0 != planned);
                }
            }
            // One line for all deliveries: a channel's notification has a line once, where it was first.
            EntryKind::Delivered { channel, .. } => {
                let (no, at) = (entry.no, entry.at);
                let notified = notified.get_or_insert_with(|| NotifiedChannels { no, at, channels: Vec::new() });
                if !notified.channels.contains(channel) {
                    notified.channels.push(channel.clone());
                }
                continue;
            }
            _ => {}
        }
        let Some(line) = teller.line(entry) else { continue };
        told.push(line);
    }
    if let Some(notified) = notified {
        let place = told.iter().position(|line| line.no > notified.no).unwrap_or(told.len());
        told.insert(place, notified.line());
    }
    told
}

/// The channels that were notified, in the order in which they were first.
struct NotifiedChannels {
    no: EntryNo,
    at: Time,
    channels: Vec<String>,
}

impl NotifiedChannels {
    fn line(self) -> TimelineEntry {
        let text = one_line(&format!("notified: {}", self.channels.join(", ")), STORY_LINE_CHARS);
        TimelineEntry { no: self.no, at: self.at, text, headline: false, change: false }
    }
}

/// The fields of earlier entries that later lines need.
#[derive(Default)]
struct TimelineState {
    steps: HashMap<(Option<RunId>, u32), BegunStep>,
    runbooks: HashMap<RunId, String>,
    /// Of each run: its latest plan's entry, and the plan in half a sentence.
    plans: HashMap<RunId, (i64, String)>,
    held: HashMap<Option<RunId>, String>,
}

struct BegunStep {
    no: i64,
    call: ActionCall,
    effect: EffectClass,
    target: Subject,
}

impl TimelineState {
    fn planned_at(&self, run: Option<RunId>) -> Option<i64> {
        self.plans.get(&run?).map(|(no, _)| *no)
    }

    fn begun_at(&self, run: Option<RunId>, step: u32) -> Option<i64> {
        self.steps.get(&(run, step)).map(|begun| begun.no)
    }

    fn line(&mut self, entry: &Entry) -> Option<TimelineEntry> {
        let change = self.is_change(entry);
        let (text, headline) = self.words(entry)?;
        Some(TimelineEntry { no: entry.no, at: entry.at, text: one_line(&text, STORY_LINE_CHARS), headline, change })
    }

    /// The good end of a step that has changed something in the world.
    fn is_change(&self, entry: &Entry) -> bool {
        let EntryKind::StepEnded { step, outcome: Outcome::Ok(value) } = &entry.kind else { return false };
        let begun = self.steps.get(&(entry.about.run, *step));
        let acts = begun.is_some_and(|begun| phrase::announced(&begun.call, begun.effect));
        acts && value["changed"] != false
    }

    fn words(&mut self, entry: &Entry) -> Option<(String, bool)> {
        use EntryKind::*;
        let run = entry.about.run;
        if let StepHeld { call, reason, .. } = &entry.kind {
            let text = format!("on hold, {}: {}", phrase::todo(call, None), reason.text);
            // A hold is written down each time it is checked; users are notified when it changes.
            let before = self.held.insert(run, text.clone());
            return (before.as_ref() != Some(&text)).then_some((text, true));
        }
        if run.is_some() {
            self.held.remove(&run);
        }
        Some(match &entry.kind {
            RunCreated { runbook, subject, mode, requested_by, rule, .. } => {
                if let Some(id) = run {
                    self.runbooks.insert(id, runbook.name.clone());
                }
                let by = match rule {
                    Some(rule) if *rule == runbook.name => String::new(),
                    Some(rule) => format!(", rule {rule}"),
                    None => format!(", by {requested_by}"),
                };
                let text = format!("{} started for {}, mode {mode}{by}", self.name(run), subject.words());
                (text, *mode != Mode::Observe)
            }
            RunPlanned { plan } => {
                if let Some(id) = run {
                    self.plans.insert(id, (entry.no.0, plan::brief(plan)));
                }
                (plan::planned(plan), true)
            }
            StepBegun { step, call, effect, target, undoes } => {
                let back = if undoes.is_some() { "undoes: " } else { "begins: " };
                let what = phrase::todo(call, Some(target));
                let line = phrase::announced(call, *effect).then(|| (format!("{back}{what}"), true));
                let begun = BegunStep { no: entry.no.0, call: call.clone(), effect: *effect, target: target.clone() };
                self.steps.insert((run, *step), begun);
                return line;
            }
            StepEnded { step, outcome } => return self.ended(run, *step, outcome),
            StepHeld { .. } => return None,
            StepDenied { call, reason } => (format!("not done: {}: {}", phrase::todo(call, None), reason.text), true),
            RunEnded { state } => (self.run_state(run, state), true),
            ApprovalAsked { approval, question, expires_at, .. } => {
                let question = gist(question);
                (format!("approval requested ({approval}): {question} {}", deadline(*expires_at, entry.at)), true)
            }
            ApprovalDecided { approval, approved, by, why } => {
                let verdict = if *approved { "approved" } else { "denied" };
                (format!("{approval} {verdict} by {by}{}", after(why)), true)
            }
            ApprovalExpired { approval } => {
                (format!("{approval} expired without an answer: it counts as denied"), true)
            }
            other => return of_incident(entry, other),
        })
    }

    fn ended(&mut self, run: Option<RunId>, step: u32, outcome: &Outcome) -> Option<(String, bool)> {
        let Some(begun) = self.steps.remove(&(run, step)) else {
            return match outcome {
                Outcome::Ok(_) => Some((format!("step {} done", step + 1), false)),
                Outcome::Failed(failure) => Some((format!("step {} failed: {}", step + 1, failure.message), true)),
            };
        };
        match outcome {
            Outcome::Ok(value) => {
                let unchanged = if value["changed"] == false { "; no change was needed" } else { "" };
                let what = || phrase::done(&begun.call, &begun.target, value);
                phrase::reported(&begun.call, begun.effect).then(|| (format!("{}{unchanged}", what()), true))
            }
            Outcome::Failed(failure) => {
                let what = phrase::todo(&begun.call, None);
                // A failed read is often part of the runbook; the run's end has its meaning.
                let headline = begun.effect != EffectClass::Read;
                Some((format!("could not {what}: {}", failure.message), headline))
            }
        }
    }

    fn run_state(&self, run: Option<RunId>, state: &RunState) -> String {
        let name = self.name(run);
        match (state, run.and_then(|id| self.plans.get(&id))) {
            (RunState::Planned, Some((_, brief))) => suggestion(&name, brief),
            _ => run_words(&name, state),
        }
    }

    fn name(&self, run: Option<RunId>) -> String {
        match (run, run.and_then(|id| self.runbooks.get(&id))) {
            (Some(id), Some(runbook)) => format!("{runbook} ({id})"),
            (Some(id), None) => id.to_string(),
            (None, _) => "the run".to_owned(),
        }
    }
}

fn suggestion(name: &str, brief: &str) -> String {
    match brief {
        "" => format!("suggestion only: {name} would make no change"),
        brief => format!("suggestion only: {name} would {brief}; no action taken"),
    }
}

/// Where a run stands, in words; `name` is how it is called in the sentence.
pub fn run_words(name: &str, state: &RunState) -> String {
    match state {
        RunState::Ready => format!("{name} is at its next step"),
        RunState::Waiting { why } => format!("{name} is waiting: {why}"),
        RunState::Held { reason } => format!("{name} is on hold: {}", reason.text),
        RunState::Asking { approval } => format!("{name} waits for an answer ({approval})"),
        RunState::Done => format!("{name} is done"),
        RunState::Stopped { why } => match over_to_you(why) {
            Some(what) => format!("{name} is finished, over to you: {what}"),
            None => format!("{name} stopped itself{}", after(why)),
        },
        RunState::Failed { why, undone: true } => format!("{name} failed and undid its steps: {}", cause(why)),
        RunState::Failed { why, undone: false } => format!("{name} failed; its steps stay as they are: {}", cause(why)),
        RunState::Stuck { reason } => format!("{name} is stuck and needs an operator: {}", reason.text),
        RunState::Planned => format!("{name} made a suggestion only; no action taken"),
        RunState::Denied { reason } if reason.text.starts_with("denied by ") => format!("{name} was {}", reason.text),
        RunState::Denied { reason } => format!("{name} {}: {}", not_run(state), reason.text),
    }
}

/// Why a run never acted, in a word that names the decider.
fn not_run(state: &RunState) -> &'static str {
    match state.name() {
        "withdrawn" => "was withdrawn",
        "cancelled" => "was cancelled",
        "expired" => "expired",
        "denied" => "was denied",
        _ => "was refused by a guard",
    }
}

/// The work left to users, where a runbook stopped with it: `needs hands: reset GPU 5` is `reset GPU 5`.
pub fn over_to_you(why: &str) -> Option<&str> {
    why.strip_prefix("needs hands:").map(str::trim).filter(|what| !what.is_empty())
}

/// The words of a failure without the place in the script that raised it and its code: those are in `nightshift show`.
pub fn cause(why: &str) -> &str {
    let rest = match why.split_once(".rhai:") {
        Some((file, rest)) if !file.contains(' ') => rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':'),
        _ => return why,
    };
    let rest = rest.trim_start();
    match rest.rsplit_once(" [") {
        Some((words, code)) if code.ends_with(']') && !code.contains(' ') => words,
        _ => rest,
    }
}

/// `Expires 03:40 UTC; without an answer it counts as denied.`
pub fn deadline(expires_at: Time, now: Time) -> String {
    format!("Expires {}; without an answer it counts as denied.", moment(expires_at, now))
}

fn of_incident(entry: &Entry, kind: &EntryKind) -> Option<(String, bool)> {
    use EntryKind::*;
    Some(match kind {
        IncidentOpened { title, .. } => (format!("opened: {title}"), true),
        IncidentResolved { why } => (format!("resolved{}", after(why)), true),
        IncidentRecovering { until } => {
            (format!("all alerts have ended; closes at {} unless one fires again", moment(*until, entry.at)), false)
        }
        IncidentRecurred { alert } => (format!("{alert} fires; the incident continues"), false),
        IncidentGrouped { why, merged, .. } if merged.is_empty() => (why.clone(), true),
        IncidentGrouped { why, merged, .. } => {
            let merged: Vec<String> = merged.iter().map(ToString::to_string).collect();
            (format!("{why}; {} became part of it", merged.join(", ")), true)
        }
        AlertsJoined { alerts, more, title, raised } => {
            let more = if *more > 0 { format!(" and {more} more") } else { String::new() };
            let now = title.as_ref().map(|title| format!("; now {title}")).unwrap_or_default();
            let graver = raised.map(|severity| format!("; severity is now {severity}")).unwrap_or_default();
            // Of a group the title has as much.
            (format!("{}{more} joined{now}{graver}", alerts.join(", ")), title.is_none() || raised.is_some())
        }
        IncidentAcknowledged { by } => (format!("acknowledged by {by}"), true),
        IncidentAssigned { owner, by } if owner == by => (format!("{owner} takes it"), true),
        IncidentAssigned { owner, by } => (format!("{by} gives it to {owner}"), true),
        SilenceAsked { alerts, until, by, why } => {
            let until = moment(*until, entry.at);
            (format!("{by} silenced {} until {until}{}", count(*alerts, "alert"), after(why)), true)
        }
        SilenceMade { source, silence, until, .. } => {
            (format!("{source} created silence {silence} until {}", moment(*until, entry.at)), false)
        }
        Heard { source, events, via } => {
            // Of an ordinary sender the source is enough.
            let by = via.as_ref().filter(|via| via.person);
            let by = by.map(|via| format!(", posted by {}", via.by)).unwrap_or_default();
            (format!("{}{by}", heard(entry, source, events)), false)
        }
        Gap { source, text } => (format!("gap in the alerts from {source}: {text}"), true),
        Told { channel, text } => (format!("message to {channel}: {text}"), true),
        Delivered { channel, .. } => (format!("notified: {channel}"), false),
        DeliveryFailed { channel, why, final_ } => {
            let given_up = if *final_ { "; no further attempt until the incident changes" } else { "; trying again" };
            (format!("could not notify {channel}: {why}{given_up}"), *final_)
        }
        PageJudged { channel, paged: true, why, .. } => (format!("{channel} is paged: {why}"), false),
        PageJudged { channel, why, until: Some(until), .. } => {
            let until = moment(*until, entry.at);
            (format!("{channel} is not paged before {until} unless an operator is needed: {why}"), false)
        }
        PageJudged { channel, why, until: None, .. } => (format!("page to {channel} suppressed: {why}"), false),
        other => return of_engine(entry, other),
    })
}

/// Freezes, breakers, rules and the catalog.
fn of_engine(entry: &Entry, kind: &EntryKind) -> Option<(String, bool)> {
    use EntryKind::*;
    Some(match kind {
        Frozen { freeze } => {
            let until = freeze.until.map(|_| format!(" {}", freeze.lasts())).unwrap_or_default();
            (format!("frozen: {} by {}{until}{}", freeze.scope, freeze.by, after(&freeze.why)), true)
        }
        Unfrozen { scope, by, why } => (format!("no longer frozen: {scope}, released by {by}{}", after(why)), true),
        ReleaseAsked { scope, by, why } => {
            (format!("{by} requests the release of {scope}{}; a second person must confirm", after(why)), true)
        }
        ApprovalSeconded { approval, by, given, needed } => {
            (format!("{approval}: {by} approved, {given} of {needed} approvals"), true)
        }
        BreakerTripped { breaker } => (
            format!(
                "breaker {} tripped: {}; no new step of it starts until an operator resets it",
                breaker.scope, breaker.why
            ),
            true,
        ),
        BreakerReset { scope, by, why } => (format!("breaker {scope} reset by {by}{}", after(why)), true),
        RunProved { aftermath, bake, .. } => match aftermath {
            VerificationResult::Held => (format!("{}fixed it: the alert stayed away for {bake}", of_run(entry)), false),
            VerificationResult::Back => {
                (format!("{}did not fix it: the alert came back within {bake}", of_run(entry)), true)
            }
            VerificationResult::Lingers => {
                (format!("{}did not help: the alert still fired after {bake}", of_run(entry)), false)
            }
            VerificationResult::Unknown => {
                let text = "result unknown: the source stopped reporting within";
                (format!("{}{text} {bake}", of_run(entry)), false)
            }
        },
        RunJudged { right, by, why, .. } => {
            let word = if *right { "right" } else { "wrong" };
            (format!("{}reviewed as {word} by {by}{}", of_run(entry), after(why)), true)
        }
        RulePromoted { rule, from, to, by, why, card, .. } => {
            (format!("rule {rule} promoted from {from} to {to} by {by} on {}{}", card.words(), after(why)), true)
        }
        RuleDemoted { rule, from, to, why, content, past: true, .. } => {
            let content = crate::model::short_content(content);
            let now = "its current version keeps its level";
            (
                format!(
                    "the earlier version of rule {rule} (content {content}) is demoted from {from} to {to}; {now}{}",
                    after(why)
                ),
                true,
            )
        }
        RuleDemoted { rule, from, to, by, why, .. } if by == "engine" => {
            (format!("rule {rule} demoted from {from} to {to} until an operator promotes it{}", after(why)), true)
        }
        RuleDemoted { rule, from, to, by, why, .. } => {
            (format!("rule {rule} demoted from {from} to {to} by {by}{}", after(why)), true)
        }
        Started { version, epoch } => (format!("Nightshift {version} started (epoch {epoch})"), false),
        CatalogLoaded { rules, runbooks, .. } => {
            (format!("{} and {} in force", count(*rules, "rule"), count(*runbooks, "runbook")), false)
        }
        CatalogRefused { file, why } => (format!("{file} rejected; its last good version stays active: {why}"), true),
        other => return of_access(entry, other),
    })
}

/// Kinds that have their words in the functions above. A pattern, so that the compiler names a new kind that has none.
#[rustfmt::skip]
macro_rules! worded_above {
    () => {
        IncidentOpened { .. } | IncidentResolved { .. } | IncidentRecovering { .. }
            | IncidentRecurred { .. } | IncidentGrouped { .. } | AlertsJoined { .. }
            | IncidentAcknowledged { .. } | IncidentAssigned { .. } | SilenceAsked { .. }
            | SilenceMade { .. } | Heard { .. } | Gap { .. } | Told { .. } | Delivered { .. }
            | DeliveryFailed { .. } | PageJudged { .. } | Frozen { .. } | Unfrozen { .. }
            | ReleaseAsked { .. } | ApprovalSeconded { .. } | BreakerTripped { .. } | BreakerReset { .. }
            | RunProved { .. } | RunJudged { .. } | RulePromoted { .. } | RuleDemoted { .. }
            | Started { .. } | CatalogLoaded { .. } | CatalogRefused { .. } | RunCreated { .. }
            | RunPlanned { .. } | StepBegun { .. } | StepEnded { .. } | StepHeld { .. } | StepDenied { .. }
            | RunEnded { .. } | ApprovalAsked { .. } | ApprovalDecided { .. } | ApprovalExpired { .. }
    };
}

/// Who may do what, agents, and the rest.
fn of_access(entry: &Entry, kind: &EntryKind) -> Option<(String, bool)> {
    use EntryKind::*;
    Some(match kind {
        TokenMade { token, name, grant, expires_at, by, .. } => {
            let until = expires_at.strftime("%Y-%m-%d");
            (format!("{by} created {token} `{name}`, role {}, valid until {until}", grant.role), true)
        }
        TokenRevoked { token, name, by, why } => (format!("{by} revoked {token} `{name}`{}", after(why)), true),
        BreakGlass { token, by, why, until } => {
            let by = by.strip_prefix("uid 0 on ").map_or(by.clone(), |host| format!("root on {host}"));
            let reason = if why.is_empty() { String::new() } else { format!(" Reason: {why}") };
            (format!("break-glass: {by} has admin rights until {} ({token}).{reason}", moment(*until, entry.at)), true)
        }
        BreakGlassUsed { by, what, times: 1, .. } => (format!("{by}: {what}"), true),
        BreakGlassUsed { by, what, times, .. } => (format!("{by}: {what}, {times} more times"), false),
        Refused { who, what, why, times } if why.is_empty() => {
            (format!("denied for {who} {times} more times: {what}"), false)
        }
        Refused { who, why, .. } => (format!("denied for {who}: {why}"), false),
        PeopleChanged { changes } => (format!("access rights changed: {}", changes.join("; ")), true),
        SubjectLinked { person, subject, mail, .. } => {
            (format!("{person} signed in for the first time as subject {subject}{}", known_by(mail.as_deref())), true)
        }
        SubjectRefused { person, subject, mail, .. } => (
            format!(
                "sign-in denied for subject {subject}: {mail} is the mail of {person}, and another subject has signed in as {person}"
            ),
            false,
        ),
        SubjectMailChanged { person, subject, mail, .. } => {
            (format!("{person} (subject {subject}) signed in with another mail{}", known_by(mail.as_deref())), true)
        }
        SubjectsUnlinked { person, subjects, by, why } => (
            format!(
                "{by} unlinked {subjects} of {person}'s subjects, so the next one with their mail is linked{}",
                after(why)
            ),
            true,
        ),
        SessionsEnded { who, sessions, by, why } => {
            (format!("{by} ended {sessions} sessions of {who}{}", after(why)), true)
        }
        Swept { table, rows } => (format!("removed {rows} old rows of {table}"), false),
        Redacted { entry, by, why } => (format!("{entry} was redacted by {by}{}", after(why)), true),
        NodesReleased { nodes, by, why } => {
            (format!("{by} released {} for other runs{}", nodes.join(", "), after(why)), true)
        }
        AgentTokenMade { cluster, node, expires_at, by } => {
            let of = match (node, cluster) {
                (Some(node), cluster) => {
                    format!(" for {}", AgentName::new(cluster.as_deref().unwrap_or_default(), node))
                }
                (None, Some(cluster)) => format!(" for cluster {cluster}"),
                (None, None) => String::new(),
            };
            (format!("{by} created a join token{of}, valid until {expires_at}"), true)
        }
        AgentRenewed { cluster, node, generation } => {
            let name = AgentName::new(cluster, node);
            (format!("the agent of {name} renewed its certificate (generation {generation})"), false)
        }
        AgentJoined { cluster, node, token_by } => {
            let name = AgentName::new(cluster, node);
            (format!("the agent of {name} joined, by a token of {token_by}"), true)
        }
        AgentRemoved { cluster, node, by, why } => {
            (format!("{by} removed the agent of {}{}", AgentName::new(cluster, node), after(why)), true)
        }
        Remarked { by, text } => (format!("{by} {text}"), true),
        Trouble { text } => (format!("trouble: {text}"), true),
        worded_above!() => return None,
    })
}

/// The question itself; its explanation stands where it is answered.
fn gist(question: &str) -> &str {
    question.split_once("? ").map_or(question, |(asked, _)| &question[..=asked.len()])
}

fn heard(entry: &Entry, source: &str, events: &[EventOutcome]) -> String {
    let ours: Vec<&EventOutcome> = events
        .iter()
        .filter(|heard| entry.about.incident.is_none() || heard.incident == entry.about.incident)
        .collect();
    let Some(first) = ours.first() else { return format!("{source} sent no new alerts") };
    let more = if ours.len() > 1 { format!(" and {} more", ours.len() - 1) } else { String::new() };
    let started: Vec<String> = ours.iter().flat_map(|heard| &heard.runs).map(RunId::to_string).collect();
    let led = match (started.as_slice(), first.reasons.first()) {
        ([], Some(reason)) => format!("; no run started: {}", reason.text),
        ([], None) => String::new(),
        (runs, _) => format!("; started {}", runs.join(", ")),
    };
    format!("{source}: alert {}: {}{more}{led}", first.change, first.event.summary)
}

fn of_run(entry: &Entry) -> String {
    entry.about.run.map(|run| format!("{run} ")).unwrap_or_default()
}

/// `03:40 UTC`, with its day where that is not the day of `now`.
pub fn moment(at: Time, now: Time) -> String {
    let day = |at: Time| at.strftime("%Y-%m-%d").to_string();
    at.strftime(if day(at) == day(now) { "%H:%M UTC" } else { "%-d %b %H:%M UTC" }).to_string()
}

fn after(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

fn known_by(mail: Option<&str>) -> String {
    mail.map(|mail| format!(" ({mail})")).unwrap_or_default()
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests;
