//! A message for users, and one attempt to send it.
//!
//! Invariant: a notice is the incident's present state plus the story since the last delivery; a later one replaces it.

use super::{ApprovalId, EntryNo, Incident, RunId, Severity, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// One line of an incident's story, made from one ledger entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StoryLine {
    pub no: EntryNo,
    pub at: Time,
    pub text: String,
    /// Worth the main message; the rest goes to the thread only.
    pub headline: bool,
    /// Something was changed in the world, or taken back.
    #[serde(default)]
    pub change: bool,
}

/// One planned step that changes something, with what it costs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PlannedStep {
    /// `drain gpu-3 (GPU pods only, up to 30m)`.
    pub what: String,
    /// `evicts 4 pods: inference/llm-0, …; the serving floor is kept`. None: it moves no pod.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cost: Option<String>,
    /// `would be held now: gpu-4 is already out of service and …`, from the guards at the time of the request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held: Option<String>,
}

/// A question that waits for an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Ask {
    pub approval: ApprovalId,
    pub question: String,
    /// The hash of the plan that an answer is bound to.
    pub plan_hash: String,
    /// The planned mutating calls, a line each.
    pub plan: Vec<String>,
    /// The same calls with their costs; empty for a question that a runbook asks in the middle.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub steps: Vec<PlannedStep>,
    /// The plan in half a sentence: `cordon gpu-3 and drain it (4 pods move)`. Empty where there is no plan.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub brief: String,
    pub asked_at: Time,
    pub expires_at: Time,
    /// The only users who may answer; empty: everyone with the role `approver` or more.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub approvers: Vec<String>,
    /// How many different users must approve.
    pub needed: u32,
}

/// A plan that was only shown: whether it would have been right, a person may say with one press.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Suggestion {
    pub run: RunId,
    pub runbook: String,
    pub created_at: Time,
    /// `cordon gpu-1, drain it (4 pods move) and reset GPU 2`.
    #[serde(default)]
    pub brief: String,
    /// The review of this plan counts for its rule (mode suggest); in observe it is only shown.
    #[serde(default)]
    pub review: bool,
}

/// An address that a reader may open; http or https alone, without credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Link {
    /// `Runbook`, `Dashboard`, `Alert source`: our own words, never a label.
    pub label: String,
    pub url: String,
}

/// One alert of an incident as a reader needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AlertLine {
    /// `gpu-3: GPU 5 fell off the bus (XID 79)`.
    pub what: String,
    pub name: String,
    pub severity: Severity,
    pub firing: bool,
    pub since: Time,
    /// The annotation `description`, where it is more than the line; empty otherwise.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub description: String,
}

/// Why automation cannot go on, or will not end an incident, without a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NeedKind {
    /// A question waits for an answer.
    Approval,
    /// A run is stuck: its effect is not known.
    Stuck,
    /// A run failed.
    Failed,
    /// A run stopped itself and leaves the rest to users.
    Stopped,
    /// A guard has held a run for long.
    Held,
}

/// One reason why people are needed, while it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Need {
    pub kind: NeedKind,
    /// Distinguishes it from every other one of the incident: `a2`, `r7 failed`.
    pub key: String,
    pub run: RunId,
    /// One line: `gpu-reset (r7) failed: the drain timed out`.
    pub text: String,
    /// The page of the run, if the engine has a public address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub link: Option<String>,
}

/// What one channel should show for one incident now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Notice {
    pub incident: Incident,
    /// Lines that this channel has not seen, oldest first.
    pub fresh: Vec<StoryLine>,
    /// The headlines so far, oldest first, bounded.
    pub headlines: Vec<StoryLine>,
    pub asks: Vec<Ask>,
    /// Plans without a review yet.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub suggestions: Vec<Suggestion>,
    /// Stable over the incident's life: `nightshift/<install>/i3`.
    pub dedup_key: String,
    /// Where a user can look closer, if the engine has a public address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub link: Option<String>,
    /// Why a channel that waits for automation is notified now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub because: Option<String>,
    /// Where it stands, in one or two sentences that follow the title: `Waiting for your OK to cordon gpu-3 and drain it
    /// (4 pods move).`, `There is no automation for this; an operator must look into it.`
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub now: String,
    /// Its alerts' lines, firing ones first, bounded; how many more there are.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub alerts: Vec<AlertLine>,
    #[serde(default)]
    pub alerts_left_out: u32,
    /// Runbook, dashboards and the source of the alerts, bounded.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub links: Vec<Link>,
    /// A freeze that stops the runs that wait or run here: `Frozen by ana since 03:12 UTC: storage upgrade. Approving
    /// will not start it.`
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub frozen: Option<String>,
    /// How many nodes are out of service and how many more may be, while a run is open.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub budget: Option<String>,
    /// Automation gave up, and nothing works on it: the words of its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hands: Option<String>,
    /// Why users are needed now, the most urgent first, bounded.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub needs: Vec<Need>,
    /// A user is needed since the last delivery: a question, or automation that gave up. An edit alone notifies no one.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub needs_people: bool,
    /// This exact state may have been sent before (a crash between sending and recording).
    pub maybe_repeat: bool,
}

/// One incident in a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DigestItem {
    pub title: String,
    pub severity: Severity,
    pub line: String,
}

/// One message for many incidents, when a storm would flood a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Digest {
    /// Incidents since the storm began, those with a message of their own included.
    pub total: usize,
    /// Of them with a message of their own on this channel.
    #[serde(default)]
    pub own: usize,
    /// Of those shown, how many wait for an answer.
    #[serde(default)]
    pub asking: usize,
    /// Of them over already.
    #[serde(default)]
    pub resolved: usize,
    pub worst: Severity,
    pub shown: Vec<DigestItem>,
    pub since: Time,
    /// The storm is over: nothing more is added to this digest.
    #[serde(default)]
    pub over: bool,
    /// Where all incidents are listed, if the engine has a public address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub link: Option<String>,
}

/// What the channel gave back, kept so that the next notice edits instead of repeating (e.g. Slack's `ts`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Receipt(pub Value);

/// What became of one attempt to say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The other side has answered that it took it.
    Delivered(Receipt),
    /// There was nothing to send, and nothing was; a receipt, where there is one, replaces the one before.
    Nothing(Option<Receipt>),
    /// Not now: the channel is slow, limited or down.
    Retry { after: Option<Duration>, why: String },
    /// Never with these settings: the configuration must be fixed.
    Refused { why: String },
}
