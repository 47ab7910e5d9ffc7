//! The story: ledger entries as lines that an on-call person reads, the same in Slack, in mail and in `nightshift show`.
//!
//! Invariant: every kind of entry has words; a line is one line, bounded and free of invisible characters.

mod phrase;

use crate::limits::STORY_LINE_CHARS;
use crate::model::{
    Aftermath, AgentName, Call, Effect, Entry, EntryKind, HeardEvent, Mode, Outcome, Plan, PlanEnd, Reach, RunId,
    RunState, StoryLine, Subject, Time,
};
use crate::notifiers::one_line;
use std::collections::HashMap;

/// The line of one entry by itself; none for what only machines care about (a read that went well).
pub fn line(entry: &Entry) -> Option<StoryLine> {
    Teller::default().line(entry)
}

/// A line for each entry that has words, in any order: nothing is left out because another line says it too.
pub fn each(entries: &[Entry]) -> Vec<StoryLine> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by_key(|entry| entry.no);
    let mut teller = Teller::default();
    sorted.into_iter().filter_map(|entry| teller.line(entry)).collect()
}

/// The lines of entries in ascending order: the end of a step is told in the words of its beginning, and what only
/// repeats the line before (a hold that goes on) is told once.
pub fn lines(entries: &[Entry]) -> Vec<StoryLine> {
    let mut teller = Teller::default();
    let mut told: Vec<StoryLine> = Vec::new();
    for entry in entries {
        // "begins: drain gpu-3" has done its duty once "drained gpu-3" is there.
        if let EntryKind::StepEnded { step, .. } = &entry.kind
            && let Some(begun) = teller.begun_at(entry.about.run, *step)
        {
            told.retain(|line| line.no.0 != begun);
        }
        let Some(line) = teller.line(entry) else { continue };
        told.push(line);
    }
    told
}

/// What must be remembered from one entry to the next, to tell them well.
#[derive(Default)]
struct Teller {
    steps: HashMap<(Option<RunId>, u32), Begun>,
    runbooks: HashMap<RunId, String>,
    held: HashMap<Option<RunId>, String>,
}

struct Begun {
    no: i64,
    call: Call,
    effect: Effect,
    what: String,
}

impl Teller {
    fn begun_at(&self, run: Option<RunId>, step: u32) -> Option<i64> {
        self.steps.get(&(run, step)).map(|begun| begun.no)
    }

    fn line(&mut self, entry: &Entry) -> Option<StoryLine> {
        let change = self.is_change(entry);
        let (text, headline) = self.words(entry)?;
        Some(StoryLine { no: entry.no, at: entry.at, text: one_line(&text, STORY_LINE_CHARS), headline, change })
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
            let text = format!("held {}: {reason}", phrase::todo(call, None));
            // A hold is written down each time it is looked at; people hear of it when it changes.
            let before = self.held.insert(run, text.clone());
            return (before.as_ref() != Some(&text)).then_some((text, true));
        }
        if run.is_some() {
            self.held.remove(&run);
        }
        Some(match &entry.kind {
            RunCreated { runbook, subject, mode, requested_by, rule, .. } => {
                let id = run.map(|id| format!("{id} ")).unwrap_or_default();
                if let Some(id) = run {
                    self.runbooks.insert(id, runbook.name.clone());
                }
                let by = match rule {
                    Some(rule) => format!("rule {rule}"),
                    None => requested_by.clone(),
                };
                (format!("{id}{} for {subject}, mode {mode}, by {by}", runbook.name), *mode != Mode::Observe)
            }
            RunPlanned { plan } => (planned(plan), true),
            StepBegun { step, call, effect, target, undoes } => {
                let back = if undoes.is_some() { "takes back: " } else { "begins: " };
                let what = phrase::todo(call, Some(target));
                let line = phrase::announced(call, *effect).then(|| (format!("{back}{what}"), true));
                let begun =
                    Begun { no: entry.no.0, call: call.clone(), effect: *effect, what: phrase::done(call, target) };
                self.steps.insert((run, *step), begun);
                return line;
            }
            StepEnded { step, outcome } => return self.ended(run, *step, outcome),
            StepHeld { .. } => return None,
            StepDenied { call, reason } => (format!("not done: {}: {reason}", phrase::todo(call, None)), true),
            RunEnded { state } => (self.run_state(run, state), true),
            ApprovalAsked { approval, question, expires_at, .. } => {
                let question = gist(question);
                (format!("asked ({approval}): {question} — no answer until {} is no", clock_time(*expires_at)), true)
            }
            ApprovalDecided { approval, approved, by, why } => {
                let verdict = if *approved { "approved" } else { "denied" };
                (format!("{approval} {verdict} by {by}{}", after(why)), true)
            }
            ApprovalExpired { approval } => (format!("{approval} expired: nobody answered, so it is not done"), true),
            other => return incident_or_engine(entry, other),
        })
    }

    fn ended(&mut self, run: Option<RunId>, step: u32, outcome: &Outcome) -> Option<(String, bool)> {
        let Some(begun) = self.steps.remove(&(run, step)) else {
            return match outcome {
                Outcome::Ok(_) => Some((format!("step {step} done"), false)),
                Outcome::Failed(failure) => Some((format!("step {step} failed: {failure}"), true)),
            };
        };
        match outcome {
            Outcome::Ok(value) => {
                let unchanged = if value["changed"] == false { "; nothing had to change" } else { "" };
                phrase::reported(&begun.call, begun.effect).then(|| (format!("{}{unchanged}", begun.what), true))
            }
            Outcome::Failed(failure) => {
                let what = phrase::todo(&begun.call, None);
                // A failed read is often what the runbook asks; the words of its end say what came of it.
                let headline = begun.effect != Effect::Read;
                Some((format!("could not {what}: {failure}"), headline))
            }
        }
    }

    fn run_state(&self, run: Option<RunId>, state: &RunState) -> String {
        let name = match (run, run.and_then(|id| self.runbooks.get(&id))) {
            (Some(id), Some(runbook)) => format!("{runbook} ({id})"),
            (Some(id), None) => id.to_string(),
            (None, _) => "the run".to_owned(),
        };
        run_words(&name, state)
    }
}

/// Where a run stands, in words; `name` is how it is called in the sentence.
pub fn run_words(name: &str, state: &RunState) -> String {
    match state {
        RunState::Ready => format!("{name} goes on"),
        RunState::Waiting { why } => format!("waiting: {why}"),
        RunState::Held { reason } => format!("held: {reason}"),
        RunState::Asking { approval } => format!("{name} waits for an answer ({approval})"),
        RunState::Done => format!("{name} done"),
        RunState::Stopped { why } => format!("{name} stopped itself{}", after(why)),
        RunState::Failed { why, undone: true } => format!("{name} failed and took back what it did: {why}"),
        RunState::Failed { why, undone: false } => format!("{name} failed; what it did stands: {why}"),
        RunState::Stuck { reason } => format!("{name} is stuck and needs a human: {reason}"),
        RunState::Planned => format!("{name} was only planned; nothing was done"),
        RunState::Denied { reason } => format!("{name} {}: {reason}", state.words()),
    }
}

/// A call of a plan as people read it: `drain gpu-3 (within 30m)`.
pub fn planned_words(call: &Call, target: &Subject) -> String {
    one_line(&phrase::todo(call, Some(target)), STORY_LINE_CHARS)
}

fn incident_or_engine(entry: &Entry, kind: &EntryKind) -> Option<(String, bool)> {
    use EntryKind::*;
    Some(match kind {
        IncidentOpened { title, subject, .. } => (format!("opened: {title} ({subject})"), true),
        IncidentResolved { why } => (format!("resolved{}", after(why)), true),
        IncidentRecovering { until } => {
            (format!("all alerts have ended; closes at {} unless one fires again", clock_time(*until)), false)
        }
        IncidentRecurred { alert } => (format!("{alert} fires; the incident goes on"), false),
        IncidentGrouped { why, merged, .. } if merged.is_empty() => (why.clone(), true),
        IncidentGrouped { why, merged, .. } => {
            let merged: Vec<String> = merged.iter().map(ToString::to_string).collect();
            (format!("{why}; {} became part of it", merged.join(", ")), true)
        }
        AlertsJoined { alerts, more, title } => {
            let more = if *more > 0 { format!(" and {more} more") } else { String::new() };
            let now = title.as_ref().map(|title| format!("; now {title}")).unwrap_or_default();
            // Of a group the title says as much.
            (format!("{}{more} joined{now}", alerts.join(", ")), title.is_none())
        }
        IncidentAcknowledged { by } => (format!("acknowledged by {by}"), true),
        IncidentAssigned { owner, by } if owner == by => (format!("{owner} takes it"), true),
        IncidentAssigned { owner, by } => (format!("{by} gives it to {owner}"), true),
        SilenceAsked { alerts, until, by, why } => {
            (format!("{by} silences {} until {}{}", count(*alerts, "alert"), clock_time(*until), after(why)), true)
        }
        SilenceMade { source, silence, until, .. } => {
            (format!("{source} is silent about it until {} (silence {silence})", clock_time(*until)), false)
        }
        Heard { source, events } => (heard(entry, source, events), false),
        Gap { source, text } => (format!("gap in what {source} told us: {text}"), true),
        Told { channel, text } => (format!("said to {channel}: {text}"), true),
        Delivered { channel, .. } => (format!("{channel} was told"), false),
        DeliveryFailed { channel, why, final_ } => {
            let given_up = if *final_ { "; given up until something new happens" } else { "; trying again" };
            (format!("could not tell {channel}: {why}{given_up}"), *final_)
        }
        PageJudged { channel, paged: true, why, .. } => (format!("{channel} is told: {why}"), false),
        PageJudged { channel, why, until: Some(until), .. } => {
            (format!("{channel} is not told before {}, unless it is needed: {why}", clock_time(*until)), false)
        }
        PageJudged { channel, why, until: None, .. } => (format!("{channel} was spared: {why}"), false),
        Frozen { freeze } => {
            let until = freeze.until.map(|_| format!(" {}", freeze.lasts())).unwrap_or_default();
            (format!("frozen: {} by {}{until}{}", freeze.scope, freeze.by, after(&freeze.why)), true)
        }
        Unfrozen { scope, by, why } => (format!("no longer frozen: {scope}, by {by}{}", after(why)), true),
        ReleaseAsked { scope, by, why } => {
            (format!("{by} wants {scope} released{}; a second person must agree", after(why)), true)
        }
        ApprovalSeconded { approval, by, given, needed } => {
            (format!("{approval}: {by} said yes, {given} of {needed} persons"), true)
        }
        BreakerTripped { breaker } => (
            format!(
                "breaker {} tripped: {}; nothing new of it begins until a person resets it",
                breaker.scope, breaker.why
            ),
            true,
        ),
        BreakerReset { scope, by, why } => (format!("breaker {scope} reset by {by}{}", after(why)), true),
        RunProved { aftermath, bake, .. } => match aftermath {
            Aftermath::Held => (format!("{}held: the complaint stayed gone for {bake}", of_run(entry)), false),
            Aftermath::Back => (format!("{}did not hold: the complaint came back within {bake}", of_run(entry)), true),
            Aftermath::Lingers => {
                (format!("{}did not help: the complaint was there after {bake}", of_run(entry)), false)
            }
            Aftermath::Unknown => {
                (format!("{}held or not, nobody knows: the source fell silent within {bake}", of_run(entry)), false)
            }
        },
        RunJudged { right, by, why, .. } => {
            let word = if *right { "right" } else { "wrong" };
            (format!("{}judged {word} by {by}{}", of_run(entry), after(why)), true)
        }
        RulePromoted { rule, from, to, by, why, card, .. } => {
            (format!("rule {rule} goes from {from} to {to}, promoted by {by} on {}{}", card.words(), after(why)), true)
        }
        RuleDemoted { rule, from, to, why, content, past: true, .. } => {
            let content = crate::model::short_content(content);
            let now = "as it is now it stays where it is";
            (
                format!("rule {rule} as it was (content {content}) goes down from {from} to {to}; {now}{}", after(why)),
                true,
            )
        }
        RuleDemoted { rule, from, to, by, why, .. } if by == "engine" => {
            (format!("rule {rule} goes down from {from} to {to} until a person promotes it{}", after(why)), true)
        }
        RuleDemoted { rule, from, to, by, why, .. } => {
            (format!("rule {rule} goes down from {from} to {to}, by {by}{}", after(why)), true)
        }
        Started { version, epoch } => (format!("Nightshift {version} started (epoch {epoch})"), false),
        CatalogLoaded { rules, runbooks, .. } => {
            (format!("{} and {} in force", count(*rules, "rule"), count(*runbooks, "runbook")), false)
        }
        CatalogRefused { file, why } => (format!("{file} is refused, the last good one stays in force: {why}"), true),
        TokenMade { token, name, grant, expires_at, by, .. } => {
            let until = expires_at.strftime("%Y-%m-%d");
            (format!("{by} made {token} `{name}`, role {}, good until {until}", grant.role), true)
        }
        TokenRevoked { token, name, by, why } => (format!("{by} revoked {token} `{name}`{}", after(why)), true),
        BreakGlass { token, by, why, until } => {
            (format!("{by} broke the glass until {} ({token}){}", clock_time(*until), after(why)), true)
        }
        BreakGlassUsed { by, what, times: 1, .. } => (format!("{by}: {what}"), true),
        BreakGlassUsed { by, what, times, .. } => (format!("{by}: {what}, {times} more times"), false),
        Refused { who, what, why, times } if why.is_empty() => {
            (format!("refused to {who} {times} more times: {what}"), false)
        }
        Refused { who, why, .. } => (format!("refused to {who}: {why}"), false),
        PeopleChanged { changes } => (format!("who may what has changed: {}", changes.join("; ")), true),
        Swept { table, rows } => (format!("removed {rows} old rows of {table}"), false),
        Redacted { entry, by, why } => (format!("{entry} was redacted by {by}{}", after(why)), true),
        NodesReleased { nodes, by, why } => {
            (format!("{by} gave {} free for other runs{}", nodes.join(", "), after(why)), true)
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
        RunCreated { .. }
        | RunPlanned { .. }
        | StepBegun { .. }
        | StepEnded { .. }
        | StepHeld { .. }
        | StepDenied { .. }
        | RunEnded { .. }
        | ApprovalAsked { .. }
        | ApprovalDecided { .. }
        | ApprovalExpired { .. } => {
            return None;
        }
    })
}

/// The question itself; what explains it stands where it is answered.
fn gist(question: &str) -> &str {
    question.split_once("? ").map_or(question, |(asked, _)| &question[..=asked.len()])
}

fn planned(plan: &Plan) -> String {
    let calls: Vec<String> = plan
        .calls
        .iter()
        .filter(|planned| planned.reach > Reach::None)
        .map(|planned| phrase::todo(&planned.call, Some(&planned.target)))
        .collect();
    let list = match calls.as_slice() {
        [] => "nothing would change".to_owned(),
        few if few.len() <= 4 => few.join(", "),
        many => format!("{} and {} more", many[..3].join(", "), many.len() - 3),
    };
    match &plan.end {
        PlanEnd::Done => format!("plan: {list}"),
        PlanEnd::Stopped(why) => format!("plan: {list}; then it would stop{}", after(why)),
        PlanEnd::Failed(why) => format!("plan: {list}; then it would fail{}", after(why)),
        PlanEnd::Cut(reason) => format!("plan: {list}; cut short: {reason}"),
    }
}

fn heard(entry: &Entry, source: &str, events: &[HeardEvent]) -> String {
    let ours: Vec<&HeardEvent> = events
        .iter()
        .filter(|heard| entry.about.incident.is_none() || heard.incident == entry.about.incident)
        .collect();
    let Some(first) = ours.first() else { return format!("{source} said nothing new") };
    let more = if ours.len() > 1 { format!(" and {} more", ours.len() - 1) } else { String::new() };
    let started: Vec<String> = ours.iter().flat_map(|heard| &heard.runs).map(RunId::to_string).collect();
    let led = match (started.as_slice(), first.reasons.first()) {
        ([], Some(reason)) => format!("; nothing started: {reason}"),
        ([], None) => String::new(),
        (runs, _) => format!("; started {}", runs.join(", ")),
    };
    format!("{source} says {}: {}{more}{led}", first.change, first.event.summary)
}

fn of_run(entry: &Entry) -> String {
    entry.about.run.map(|run| format!("{run} ")).unwrap_or_default()
}

fn clock_time(at: Time) -> String {
    at.strftime("%H:%M UTC").to_string()
}

fn after(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests;
