//! The catalog of notifiers: how users are notified. One file each, one line in the catalog.
//!
//! Invariant: a notifier shows the incident's present state, edits its earlier message, and never decides whether to
//! send.

mod answer;
mod email;
mod late;
mod log;
mod pagerduty;
pub mod slack;
mod text;
mod trial;
mod webhook;

/// Text from outside as one line of at most that many characters, with nothing invisible in it.
pub use text::{link as web_link, plain as one_line};
pub use trial::{TestMessageResult, test};

use crate::config::{ChannelConfig, SecretSource};
use crate::model::{
    DeliveryReceipt, DeliveryResult, Incident, IncidentDigest, IncidentNotice, IncidentState, PendingApproval,
    PlanSuggestion, Severity, Time,
};
use crate::script::ShapeScript;
use crate::telemetry::ChannelKind;
use crate::world::HttpClient;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// One configured channel.
#[async_trait::async_trait]
pub trait Notifier: Send + Sync {
    /// The kind under which deliveries are counted.
    fn kind(&self) -> ChannelKind;

    /// Sends it; `prior` is the receipt of the last delivery for this incident.
    async fn deliver(&self, notice: &IncidentNotice, prior: Option<&DeliveryReceipt>) -> DeliveryResult;

    /// Sends one message in place of too many; `prior` is the receipt of the last edition of this digest.
    async fn digest(&self, digest: &IncidentDigest, prior: Option<&DeliveryReceipt>) -> DeliveryResult;

    /// The vendor's rate limit for messages that can wait. None: unlimited.
    fn pace(&self) -> Option<&ChannelRateLimit> {
        None
    }

    /// Whether anything would be sent for this; otherwise it waits for no turn.
    fn speaks(&self, _notice: &IncidentNotice, _prior: Option<&DeliveryReceipt>) -> bool {
        true
    }

    /// Whether its first message about an incident waits a moment for the approval request of a run that plans: for a
    /// channel whose first message wakes the on-call, and which cannot take it back.
    fn waits_for_plan(&self) -> bool {
        false
    }

    /// Why this channel is off: its secret cannot be read. Read again at each call; none: it is on.
    fn off(&self) -> Option<String> {
        None
    }

    /// For `doctor`: whether the channel works. Sends nothing that pages anyone.
    ///
    /// # Errors
    ///
    /// Fails with the fault and its fix when the channel does not work.
    async fn probe(&self) -> Result<String, String>;
}

/// A burst, and then one at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRateLimit {
    /// The key that shares it: the vendor counts by workspace or integration, whatever channels there are. No secret.
    pub key: String,
    pub every: Duration,
    pub burst: u32,
}

impl ChannelRateLimit {
    /// Of everything that uses this secret at this address.
    fn of(address: &str, secret: &str, every: Duration, burst: u32) -> ChannelRateLimit {
        let hash = Sha256::digest(format!("{address}\n{secret}").as_bytes());
        ChannelRateLimit { key: hex::encode(&hash[..8]), every, burst }
    }
}

/// The receiver of messages while no channel is configured: notices fail open, so a first day without any account has
/// them in the log. It is there only while no channel is configured at all; no channel can have this name.
pub const ANYWHERE: &str = "*";

/// Why a channel cannot be made.
enum ChannelError {
    /// A secret cannot be read, or is none of that kind: it may be another one later.
    Secret(String),
    /// The configuration cannot be meant so.
    Setting(String),
}

/// Makes a notifier of every configured channel. A channel whose secret cannot be read is made all the same and is `off`
/// until it can be. `encoders`: the `encode.rhai` of `integrations/`, by folder; `seal`: for the values of buttons.
/// Call it inside a tokio runtime: a mail channel keeps connections.
///
/// # Errors
///
/// Fails with a line for each channel with a wrong setting: the setting and its fix.
pub fn build(
    channels: &BTreeMap<String, ChannelConfig>,
    encoders: &HashMap<String, Arc<ShapeScript>>,
    http: &HttpClient,
    install: &str,
    seal: &Arc<slack::ButtonSeal>,
) -> Result<BTreeMap<String, Box<dyn Notifier>>, Vec<String>> {
    let mut built = BTreeMap::new();
    let mut wrong = Vec::new();
    for (name, channel) in channels {
        match one(name, channel, encoders, http, install, seal) {
            Ok(notifier) => drop(built.insert(name.clone(), notifier)),
            Err(ChannelError::Setting(why)) => wrong.push(format!("channel `{name}`: {why}")),
            Err(ChannelError::Secret(_)) => {
                let (name_again, channel, encoders) = (name.clone(), channel.clone(), encoders.clone());
                let (http, install, seal) = (http.clone(), install.to_owned(), seal.clone());
                let kind = kind_of(&channel);
                let again = move || one(&name_again, &channel, &encoders, &http, &install, &seal);
                built.insert(name.clone(), Box::new(late::DeferredNotifier::new(kind, again)));
            }
        }
    }
    if channels.is_empty() {
        built.insert(ANYWHERE.to_owned(), Box::new(log::LogNotifier { channel: "log".to_owned() }));
    }
    if wrong.is_empty() { Ok(built) } else { Err(wrong) }
}

/// The value that [`Notifier::kind`] of that channel returns.
fn kind_of(channel: &ChannelConfig) -> ChannelKind {
    match channel {
        ChannelConfig::Slack { .. } => ChannelKind::Slack,
        ChannelConfig::SlackWebhook { .. } => ChannelKind::SlackWebhook,
        ChannelConfig::PagerDuty { .. } => ChannelKind::PagerDuty,
        ChannelConfig::PagerDutyChanges { .. } => ChannelKind::PagerDutyChanges,
        ChannelConfig::Email { .. } => ChannelKind::Email,
        ChannelConfig::Webhook { .. } => ChannelKind::Webhook,
        ChannelConfig::Log => ChannelKind::Log,
    }
}

/// The catalog: a line a kind.
fn one(
    name: &str,
    channel: &ChannelConfig,
    encoders: &HashMap<String, Arc<ShapeScript>>,
    http: &HttpClient,
    install: &str,
    seal: &Arc<slack::ButtonSeal>,
) -> Result<Box<dyn Notifier>, ChannelError> {
    let read = |secret: &SecretSource| secret.read().map_err(ChannelError::Secret);
    Ok(match channel {
        ChannelConfig::Slack { channel, token, api, buttons } => {
            let seal = buttons.then(|| seal.clone());
            Box::new(slack::SlackAppNotifier::new(http.clone(), channel.clone(), &read(token)?, api, seal))
        }
        ChannelConfig::SlackWebhook { url } => {
            Box::new(slack::SlackWebhookNotifier::new(http.clone(), read(url)?).map_err(ChannelError::Secret)?)
        }
        ChannelConfig::PagerDuty { routing_key, api, .. } => {
            let key = read(routing_key)?;
            Box::new(
                pagerduty::PagerDutyNotifier::new(http.clone(), key, api.clone(), install)
                    .map_err(ChannelError::Secret)?,
            )
        }
        ChannelConfig::PagerDutyChanges { routing_key, api } => {
            let key = read(routing_key)?;
            Box::new(
                pagerduty::PagerDutyChangeNotifier::new(http.clone(), key, api.clone(), install)
                    .map_err(ChannelError::Secret)?,
            )
        }
        ChannelConfig::Email { server, from, to, username, password, ca_file } => {
            if let Some(file) = ca_file
                && let Err(error) = std::fs::File::open(file)
            {
                return Err(ChannelError::Secret(format!("`ca_file: {}`: {error}", file.display())));
            }
            let settings = email::EmailSettings {
                server,
                from,
                to,
                username: username.as_deref(),
                password: password.as_ref().map(read).transpose()?,
                ca_file: ca_file.as_deref(),
                install,
            };
            Box::new(email::EmailNotifier::new(settings).map_err(ChannelError::Setting)?)
        }
        ChannelConfig::Webhook { shape, url, headers, .. } => {
            let encode = encoders.get(shape).ok_or_else(|| {
                let known: Vec<&str> = encoders.keys().map(String::as_str).collect();
                let known = sorted(known).join(", ");
                ChannelError::Setting(format!("there is no `integrations/{shape}/encode.rhai`; available: {known}"))
            })?;
            let headers = headers
                .iter()
                .map(|(header, secret)| Ok((header.clone(), read(secret)?)))
                .collect::<Result<BTreeMap<_, _>, ChannelError>>()?;
            Box::new(
                webhook::WebhookNotifier::new(http.clone(), encode.clone(), read(url)?, headers)
                    .map_err(ChannelError::Secret)?,
            )
        }
        ChannelConfig::Log => Box::new(log::LogNotifier { channel: name.to_owned() }),
    })
}

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names
}

/// The state of an incident in messages.
fn word(state: IncidentState) -> &'static str {
    match state {
        IncidentState::Open => "open",
        IncidentState::Acknowledged => "acknowledged",
        IncidentState::Resolved => "resolved",
    }
}

/// The state in messages; while nothing of the incident fires, when it closes.
fn standing(incident: &Incident) -> String {
    incident.recovery().unwrap_or_else(|| word(incident.state).to_owned())
}

/// A mark that is clear at arm's length.
fn mark(state: IncidentState, severity: Severity) -> &'static str {
    match (state, severity) {
        (IncidentState::Resolved, _) => "✅",
        (IncidentState::Acknowledged, _) => "👀",
        (IncidentState::Open, Severity::Critical) => "🔴",
        (IncidentState::Open, Severity::Error) => "🟠",
        (IncidentState::Open, Severity::Warning) => "🟡",
        (IncidentState::Open, Severity::Info) => "🔵",
    }
}

/// `03:12`, in UTC.
fn clock_time(at: Time) -> String {
    at.strftime("%H:%M").to_string()
}

/// `23 Nov 03:12 UTC`.
fn date_time(at: Time) -> String {
    at.strftime("%-d %b %H:%M UTC").to_string()
}

/// How to answer, where there is no button: the commands, and who may, until when.
fn how_to_answer(ask: &PendingApproval) -> (String, String) {
    let commands = format!("nightshift approve {0}  or  nightshift deny {0}", ask.approval);
    let day = |at: Time| at.strftime("%Y-%m-%d").to_string();
    let same_day = day(ask.expires_at) == day(ask.asked_at);
    let expires = if same_day { format!("{} UTC", clock_time(ask.expires_at)) } else { date_time(ask.expires_at) };
    let deadline = format!("expires {expires}; without an answer it counts as denied. {}", answerers(ask));
    (commands, deadline)
}

/// Who may answer: the role that is needed, or the names, and how many of them.
fn answerers(ask: &PendingApproval) -> String {
    let who = match ask.approvers.as_slice() {
        [] => "Needs the role approver.".to_owned(),
        names => format!("Only {} may answer.", names.join(", ")),
    };
    if ask.needed > 1 { format!("{who} {} different approvers are required.", ask.needed) } else { who }
}

/// The plan of an approval request: each step, its cost, and the guards that would hold it.
fn plan_lines(ask: &PendingApproval) -> Vec<String> {
    if ask.steps.is_empty() {
        return ask.plan.iter().enumerate().map(|(at, call)| format!("{}. {call}", at + 1)).collect();
    }
    let mut lines = Vec::new();
    for (at, step) in ask.steps.iter().enumerate() {
        lines.push(format!("{}. {}", at + 1, step.what));
        lines.extend(step.cost.iter().map(|cost| format!("    → {cost}")));
        lines.extend(step.held.iter().map(|held| format!("    ⚠ {held}")));
    }
    lines
}

/// A plan that was only shown: `Suggestion only: would cordon gpu-1 and drain it (4 pods move). Nothing was done.`
pub fn suggested(suggestion: &PlanSuggestion) -> String {
    match suggestion.brief.as_str() {
        "" => format!("Suggestion only: {} would make no change. No action taken.", suggestion.runbook),
        brief => format!("Suggestion only: would {brief}. No action taken."),
    }
}

/// The alerts' text beyond the title: a line each where there are several, and descriptions.
fn alert_words(notice: &IncidentNotice) -> Vec<String> {
    let mut words = Vec::new();
    let several = notice.alerts.len() > 1 || notice.alerts_left_out > 0;
    for alert in &notice.alerts {
        let over = if alert.firing || notice.incident.state == IncidentState::Resolved { "" } else { " (resolved)" };
        if several || alert.what != notice.incident.title {
            words.push(format!("• {}{over}", alert.what));
        }
        if !alert.description.is_empty() {
            words.push(alert.description.clone());
        }
    }
    match notice.alerts_left_out {
        0 => {}
        1 => words.push("… and 1 more alert".to_owned()),
        more => words.push(format!("… and {more} more alerts")),
    }
    words
}

/// `2 alerts firing`.
fn firing(firing: u32, ever: u32) -> String {
    match (firing, ever) {
        (0, _) => "no alert firing".to_owned(),
        (1, 1) => "1 alert firing".to_owned(),
        (firing, ever) if firing == ever => format!("{firing} alerts firing"),
        (firing, ever) => format!("{firing} of {ever} alerts firing"),
    }
}
