//! One ledger entry as one log line: what happened; consequence; what to do.
//!
//! Invariant: the match over the kinds is complete, so a new kind of entry gets its line, or its reason to have none, here.

use super::LineFields;
use crate::engine::story::planned_words;
use crate::limits::{FLAPS_IN_LOG, STORY_LINE_CHARS};
use crate::model::{
    ActionCall, EffectClass, Entry, EntryKind, IncidentId, Mode, Outcome, RunId, RunState, Subject, Time,
    VerificationResult,
};
use crate::notifiers::one_line;
use tracing::field::display;

/// How loud a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Info,
    Warn,
    Error,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub loud: LogLevel,
    pub text: String,
    pub incident: Option<IncidentId>,
    pub run: Option<RunId>,
    pub node: Option<String>,
    pub rule: Option<String>,
    pub why: Option<String>,
}

impl LogLine {
    /// A line of this level; its text becomes one line of bounded length.
    pub fn new(loud: LogLevel, text: impl Into<String>) -> LogLine {
        let text = one_line(&text.into(), STORY_LINE_CHARS);
        LogLine { loud, text, incident: None, run: None, node: None, rule: None, why: None }
    }

    fn why(mut self, why: &str) -> LogLine {
        self.why = Some(one_line(why, STORY_LINE_CHARS)).filter(|why| !why.is_empty());
        self
    }

    /// Writes the line to the log, with its fields.
    pub fn emit(&self) {
        let incident = self.incident.map(display);
        let run = self.run.map(display);
        let (node, rule, why) = (self.node.as_deref(), self.rule.as_deref(), self.why.as_deref());
        match self.loud {
            LogLevel::Info => {
                tracing::info!(target: "nightshift::events", incident, run, node, rule, why, "{}", self.text)
            }
            LogLevel::Warn => {
                tracing::warn!(target: "nightshift::events", incident, run, node, rule, why, "{}", self.text)
            }
            LogLevel::Error => {
                tracing::error!(target: "nightshift::events", incident, run, node, rule, why, "{}", self.text)
            }
        }
    }
}

/// Decisions, controls and failures have lines of their own budget: an alert storm cannot crowd them out.
pub(super) fn is_important(kind: &EntryKind) -> bool {
    use EntryKind::*;
    match kind {
        RunEnded { state } => !matches!(state, RunState::Done | RunState::Planned),
        IncidentOpened { .. } | RunCreated { .. } | RunPlanned { .. } | StepBegun { .. } | StepEnded { .. } => false,
        IncidentResolved { .. } | StepHeld { .. } | Delivered { .. } | DeliveryFailed { .. } | PageJudged { .. } => {
            false
        }
        IncidentRecovering { .. } | IncidentRecurred { .. } | IncidentGrouped { .. } | AlertsJoined { .. } => false,
        Told { .. } | RunProved { .. } | Gap { .. } => false,
        _ => true,
    }
}

/// Whether it would have a line; for the count of lines that a storm leaves out.
pub(super) fn has_line(kind: &EntryKind) -> bool {
    use EntryKind::*;
    match kind {
        StepBegun { effect, .. } => *effect != EffectClass::Read,
        Started { .. } | Heard { .. } | CatalogLoaded { .. } | CatalogRefused { .. } | Swept { .. } => false,
        Delivered { .. } | StepEnded { .. } => false,
        _ => true,
    }
}

/// None: it has no line, or none of its own.
pub(super) fn line(entry: &Entry, known: &mut LineFields) -> Option<LogLine> {
    let mut line = words(entry, known)?;
    (line.incident, line.run) = (entry.about.incident, entry.about.run);
    let about = entry.about.run.and_then(|run| known.runs.get(&run));
    let of_incident = || entry.about.incident.and_then(|incident| known.incidents.get(&incident).cloned().flatten());
    line.node = line.node.or_else(|| about.and_then(|about| about.node.clone())).or_else(of_incident);
    line.rule = line.rule.or_else(|| about.and_then(|about| about.rule.clone()));
    line.node = line.node.map(|node| one_line(&node, STORY_LINE_CHARS));
    Some(line)
}

fn info(text: impl Into<String>) -> LogLine {
    LogLine::new(LogLevel::Info, text)
}

fn warn(text: impl Into<String>) -> LogLine {
    LogLine::new(LogLevel::Warn, text)
}

fn words(entry: &Entry, known: &mut LineFields) -> Option<LogLine> {
    use EntryKind::*;
    match &entry.kind {
        // `serve` and the reload log these themselves, with more than the ledger keeps.
        Started { .. } | CatalogLoaded { .. } | CatalogRefused { .. } | Swept { .. } => None,
        // A batch of alerts: its results have lines of their own.
        Heard { .. } => None,
        Gap { .. }
        | IncidentOpened { .. }
        | IncidentResolved { .. }
        | IncidentRecovering { .. }
        | IncidentRecurred { .. }
        | IncidentGrouped { .. }
        | AlertsJoined { .. }
        | IncidentAcknowledged { .. }
        | IncidentAssigned { .. }
        | SilenceAsked { .. }
        | SilenceMade { .. }
        | Told { .. }
        | Remarked { .. }
        | Trouble { .. } => of_incident(entry, known),
        RunCreated { .. } | RunPlanned { .. } | RunEnded { .. } | RunProved { .. } | RunJudged { .. } => {
            of_run(entry, known)
        }
        StepBegun { .. } | StepEnded { .. } | StepHeld { .. } | StepDenied { .. } => of_step(entry, known),
        ApprovalAsked { .. } | ApprovalDecided { .. } | ApprovalExpired { .. } | ApprovalSeconded { .. } => {
            of_approval(&entry.kind)
        }
        Delivered { .. } | DeliveryFailed { .. } | PageJudged { .. } => of_channel(entry, known),
        RulePromoted { .. }
        | RuleDemoted { .. }
        | Frozen { .. }
        | Unfrozen { .. }
        | ReleaseAsked { .. }
        | BreakerTripped { .. }
        | BreakerReset { .. }
        | TokenMade { .. }
        | TokenRevoked { .. }
        | BreakGlass { .. }
        | BreakGlassUsed { .. }
        | Refused { .. }
        | PeopleChanged { .. }
        | SubjectLinked { .. }
        | SubjectRefused { .. }
        | SubjectMailChanged { .. }
        | SubjectsUnlinked { .. }
        | SessionsEnded { .. }
        | NodesReleased { .. }
        | AgentTokenMade { .. }
        | AgentRenewed { .. }
        | AgentJoined { .. }
        | AgentRemoved { .. }
        | Redacted { .. } => of_people(&entry.kind),
    }
}

fn of_incident(entry: &Entry, known: &mut LineFields) -> Option<LogLine> {
    use EntryKind::*;
    Some(match &entry.kind {
        Gap { source, text } => warn(format!("source {source} is incomplete; some alerts may be missing")).why(text),
        IncidentOpened { title, alert, .. } => {
            let named = alert.as_ref().filter(|alert| !title.contains(alert.as_str()));
            let named = named.map(|alert| format!(" (alert {alert})")).unwrap_or_default();
            info(format!("incident opened: {title}{named}"))
        }
        IncidentResolved { why } if why.starts_with("it is part of ") => {
            info("incident merged into a group; no channel has shown it").why(why)
        }
        IncidentResolved { why } => info("incident resolved").why(why),
        IncidentRecovering { .. } if !known.says_flap(entry.about.incident) => return None,
        IncidentRecovering { until } => info(format!(
            "incident recovering: its alerts have ended; it resolves at {} unless one fires again",
            clock(*until)
        )),
        IncidentRecurred { .. } if !known.says_flap(entry.about.incident) => return None,
        IncidentRecurred { alert } => match known.flaps_of(entry.about.incident) {
            times if times <= FLAPS_IN_LOG => {
                info(format!("incident open again: {alert} fires; the same incident continues"))
            }
            times => {
                info(format!("incident open again for the {times}th time: {alert} flaps; the same incident continues"))
            }
        },
        IncidentGrouped { title, why, .. } => info(format!("incidents grouped: {title}")).why(why),
        AlertsJoined { alerts, more, raised, title } => {
            let more = if *more > 0 { format!(" and {more} more") } else { String::new() };
            let graver = raised.map(|severity| format!("; severity is now {severity}")).unwrap_or_default();
            let now = title.as_ref().map(|title| format!("; now {title}")).unwrap_or_default();
            info(format!("alerts joined: {}{more}{graver}{now}", alerts.join(", ")))
        }
        IncidentAcknowledged { by } => info(format!("incident acknowledged by {by}")),
        IncidentAssigned { owner, by } => info(format!("incident assigned to {owner} by {by}")),
        SilenceAsked { alerts, until, by, why } => {
            info(format!("silence of {alerts} alerts until {} requested by {by}", clock(*until))).why(why)
        }
        SilenceMade { source, until, .. } => {
            info(format!("silence created at source {source} until {}", clock(*until)))
        }
        Told { channel, text } => info(format!("runbook message to channel {channel}: {text}")),
        Remarked { by, text } => info(format!("remark by {by}: {text}")),
        Trouble { text } => warn(text.clone()),
        _ => return None,
    })
}

fn of_run(entry: &Entry, known: &LineFields) -> Option<LogLine> {
    use EntryKind::*;
    let name = runbook(entry, known);
    Some(match &entry.kind {
        RunCreated { runbook, mode, rule, requested_by, .. } => {
            let by = if rule.is_some() { String::new() } else { format!(" by {requested_by}") };
            let then = match mode {
                Mode::Observe | Mode::Suggest => "; it is planned only",
                Mode::Approve => "; it waits for approval before it changes anything",
                Mode::Auto => "; it acts within the guards",
            };
            info(format!("run created{by}: {} in mode {mode}{then}", runbook.name))
        }
        RunPlanned { plan } => {
            let calls: Vec<String> = plan
                .calls
                .iter()
                .filter(|call| call.effect != EffectClass::Read)
                .map(|call| planned_words(&call.call, &call.target))
                .collect();
            let list = if calls.is_empty() { "no changes".to_owned() } else { calls.join(", ") };
            info(format!("run planned: {name}: {list}"))
        }
        RunEnded { state } => match state {
            RunState::Done => info(format!("run ended: {name} done")),
            RunState::Planned => info(format!("run ended: {name} was only planned; no action taken")),
            RunState::Denied { reason } => info(format!("run ended: {name} not done")).why(&reason.to_string()),
            RunState::Stopped { why } => warn(format!("run ended: {name} stopped; an operator must continue")).why(why),
            RunState::Failed { why, undone: true } => {
                warn(format!("run ended: {name} failed; its changes were undone; an operator must continue")).why(why)
            }
            RunState::Failed { why, undone: false } => {
                warn(format!("run ended: {name} failed; its changes stand; an operator must continue")).why(why)
            }
            RunState::Stuck { reason } => {
                warn(format!("run ended: {name} is stuck; its nodes stay reserved until `nightshift cancel`"))
                    .why(&reason.to_string())
            }
            other => info(format!("run ended: {name} {}", other.name())),
        },
        RunProved { rule, aftermath, bake } => {
            let mut line = match aftermath {
                VerificationResult::Held => info(format!("fix confirmed: {name}: the alert stayed away for {bake}")),
                VerificationResult::Back => warn(format!("fix failed: {name}: the alert came back within {bake}")),
                VerificationResult::Lingers => warn(format!("fix failed: {name}: the alert still fires after {bake}")),
                VerificationResult::Unknown => {
                    info(format!("fix not confirmed: {name}: the source was silent within {bake}"))
                }
            };
            line.rule = Some(rule.clone());
            line
        }
        RunJudged { rule, right, by, why } => {
            let word = if *right { "right" } else { "wrong" };
            let mut line = info(format!("run reviewed as {word} by {by}")).why(why);
            line.rule = Some(rule.clone());
            line
        }
        _ => return None,
    })
}

fn of_step(entry: &Entry, known: &mut LineFields) -> Option<LogLine> {
    use EntryKind::*;
    let run = entry.about.run?;
    Some(match &entry.kind {
        StepBegun { effect: EffectClass::Read, .. } => return None,
        StepBegun { step, call, target, undoes, .. } => {
            let what = planned_words(call, target);
            known.steps.insert((run, *step), what.clone());
            let word = if undoes.is_some() { "undo" } else { "step" };
            let mut line = info(format!("{word} started: {what}"));
            line.node.clone_from(&target.node);
            line
        }
        StepEnded { step, outcome } => {
            let what = known.steps.remove(&(run, *step))?;
            match outcome {
                Outcome::Ok(value) if value["changed"] == false => {
                    info(format!("step ended: {what}; nothing to change"))
                }
                Outcome::Ok(_) => info(format!("step ended: {what}")),
                Outcome::Failed(failure) => warn(format!("step failed: {what}")).why(&failure.to_string()),
            }
        }
        StepHeld { call, reason, until } => {
            info(format!("step on hold: {}; checked again at {}", short(call), clock(*until))).why(&reason.to_string())
        }
        StepDenied { call, reason } => warn(format!("step denied: {}", short(call))).why(&reason.to_string()),
        _ => return None,
    })
}

fn of_approval(kind: &EntryKind) -> Option<LogLine> {
    use EntryKind::*;
    Some(match kind {
        ApprovalAsked { approval, question, expires_at, .. } => info(format!(
            "approval requested: {question}; denied unless answered by {}; `nightshift approve {approval}` or `nightshift deny {approval}`",
            clock(*expires_at)
        )),
        ApprovalDecided { approval, approved: true, by, why } => {
            info(format!("approval {approval} given by {by}")).why(why)
        }
        ApprovalDecided { approval, approved: false, by, why } => {
            info(format!("approval {approval} denied by {by}; the run ends")).why(why)
        }
        ApprovalSeconded { approval, by, given, needed } => {
            info(format!("approval {approval} given by {by}; {given} of {needed} approvers so far"))
        }
        ApprovalExpired { approval } => warn(format!("approval {approval} expired without an answer; the run ends")),
        _ => return None,
    })
}

fn of_channel(entry: &Entry, known: &mut LineFields) -> Option<LogLine> {
    use EntryKind::*;
    Some(match &entry.kind {
        // The first of each incident; edits and thread lines are in the ledger.
        Delivered { channel, .. } => {
            let first = known.notified.entry(entry.about.incident?).or_default().insert(channel.clone());
            if known.failing.remove(channel) {
                info(format!("channel {channel} recovered; queued messages are being delivered"))
            } else {
                return first.then(|| info(format!("channel {channel} notified")));
            }
        }
        DeliveryFailed { channel, why, final_: false } => {
            known.failing.insert(channel.clone());
            warn(format!("delivery to channel {channel} failed; retrying")).why(why)
        }
        DeliveryFailed { channel, why, final_: true } => LogLine::new(
            LogLevel::Error,
            format!("delivery to channel {channel} refused; not retried until the incident changes; check the channel with `nightshift doctor`"),
        )
        .why(why),
        PageJudged { channel, paged: true, why, .. } => info(format!("page due on channel {channel}")).why(why),
        PageJudged { channel, until: Some(until), why, .. } => {
            info(format!("page on channel {channel} deferred until {}", clock(*until))).why(why)
        }
        PageJudged { channel, why, .. } => info(format!("page on channel {channel} suppressed")).why(why),
        _ => return None,
    })
}

fn of_people(kind: &EntryKind) -> Option<LogLine> {
    use EntryKind::*;
    let rule = |mut line: LogLine, rule: &str| {
        line.rule = Some(rule.to_owned());
        line
    };
    Some(match kind {
        RulePromoted { rule: name, from, to, by, why, .. } => {
            rule(info(format!("rule promoted from {from} to {to} by {by}")).why(why), name)
        }
        RuleDemoted { rule: name, from, to, by, why, .. } => {
            rule(warn(format!("rule demoted from {from} to {to} by {by}")).why(why), name)
        }
        Frozen { freeze } => {
            let way_back = format!("nightshift unfreeze --scope {} --why …", freeze.scope);
            warn(format!("automation frozen: {} by {}; no new step starts; `{way_back}`", freeze.scope, freeze.by))
                .why(&freeze.why)
        }
        Unfrozen { scope, by, why } => info(format!("automation no longer frozen: {scope} by {by}")).why(why),
        ReleaseAsked { scope, by, why } => {
            info(format!("release of freeze {scope} requested by {by}; a second person must confirm")).why(why)
        }
        BreakerTripped { breaker } => {
            warn(format!("breaker {} tripped; no new step of it starts until an operator resets it", breaker.scope))
                .why(&breaker.why)
        }
        BreakerReset { scope, by, why } => info(format!("breaker {scope} reset by {by}")).why(why),
        TokenMade { token, name, grant, by, .. } => {
            info(format!("token {token} ({name}) with role {} created by {by}", grant.role))
        }
        TokenRevoked { token, name, by, why } => info(format!("token {token} ({name}) revoked by {by}")).why(why),
        BreakGlass { token, by, why, until } => {
            warn(format!("break-glass access for {by} until {} ({token})", clock(*until))).why(why)
        }
        BreakGlassUsed { by, what, times, .. } => {
            warn(format!("break-glass access used by {by}, {times} times: {what}"))
        }
        Refused { who, what, why, times } => warn(format!("request by {who} denied, {times} times: {what}")).why(why),
        PeopleChanged { changes } => info(format!("access changed: {}", changes.join("; "))),
        SubjectLinked { person, subject, .. } => info(format!("subject {subject} of the provider linked to {person}")),
        SubjectRefused { person, subject, mail, .. } => warn(format!(
            "sign-in denied for subject {subject}: {mail} is the mail of {person}, who is linked to another subject"
        )),
        SubjectMailChanged { person, subject, .. } => {
            warn(format!("{person} (subject {subject}) signed in with another mail than before"))
        }
        SubjectsUnlinked { person, subjects, by, why } => {
            warn(format!("{subjects} subjects of the provider unlinked from {person} by {by}")).why(why)
        }
        SessionsEnded { who, sessions, by, why } => {
            info(format!("{sessions} sessions of {who} ended by {by}")).why(why)
        }
        NodesReleased { nodes, by, why } => info(format!("nodes released by {by}: {}", nodes.join(", "))).why(why),
        AgentTokenMade { expires_at, by, .. } => {
            info(format!("agent join token created by {by}, valid until {}", clock(*expires_at)))
        }
        AgentRenewed { node, generation, .. } => {
            on(node, info(format!("agent certificate renewed, generation {generation}")))
        }
        AgentJoined { node, token_by, .. } => on(node, info(format!("agent joined with a token of {token_by}"))),
        AgentRemoved { node, by, why, .. } => on(node, info(format!("agent removed by {by}")).why(why)),
        Redacted { entry, by, why } => info(format!("ledger entry {entry} redacted by {by}")).why(why),
        _ => return None,
    })
}

fn on(node: &str, mut line: LogLine) -> LogLine {
    line.node = Some(node.to_owned());
    line
}

fn runbook(entry: &Entry, known: &LineFields) -> String {
    let about = entry.about.run.and_then(|run| known.runs.get(&run));
    about.map_or_else(|| "the run".to_owned(), |about| about.runbook.clone())
}

fn short(call: &ActionCall) -> String {
    planned_words(call, &Subject::default())
}

fn clock(at: Time) -> String {
    at.strftime("%H:%M:%S UTC").to_string()
}
