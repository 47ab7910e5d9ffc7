//! A rule: matchers, a runbook, a mode and channels.
//!
//! Invariant: a rule is its file's content as pure data; matchers are text here and compiled by `policy`.

use super::{Demote, Promote, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How far a rule may go, from looking to acting.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    strum::Display,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Mode {
    /// Plan against the live world and write the plan down: nothing is done. Users are notified of the incident.
    #[default]
    Observe,
    /// The same, and users are asked to review the plan.
    Suggest,
    /// Freeze the plan, request approval, and perform only the approved calls.
    Approve,
    /// Do it, within the guards.
    Auto,
}

impl Mode {
    /// The next mode; none above auto.
    pub fn up(self) -> Option<Mode> {
        match self {
            Mode::Observe => Some(Mode::Suggest),
            Mode::Suggest => Some(Mode::Approve),
            Mode::Approve => Some(Mode::Auto),
            Mode::Auto => None,
        }
    }

    /// The mode below; none below observe.
    pub fn down(self) -> Option<Mode> {
        match self {
            Mode::Observe => None,
            Mode::Suggest => Some(Mode::Observe),
            Mode::Approve => Some(Mode::Suggest),
            Mode::Auto => Some(Mode::Approve),
        }
    }
}

/// Where a runbook's parameter comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Argument {
    /// `{ label: Hostname }`: the value of a label of the event.
    Label {
        /// The label's name.
        label: String,
    },
    /// Any other value, as it stands.
    Value(serde_json::Value),
}

/// Act only when it happens again: `count` episodes within `within`, on the same `by` parts of the subject or labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// So many episodes.
    pub count: u32,
    /// Within this time.
    pub within: Span,
    /// Counted for equal values of these parts of the subject or labels; empty: of the whole subject.
    #[serde(default)]
    pub by: Vec<String>,
}

/// Run on a schedule: a crontab line of five fields (or six with seconds) in a time zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// A crontab line of five fields, or six with seconds.
    pub cron: String,
    /// Its time zone.
    #[serde(default = "Schedule::utc")]
    pub zone: String,
}

impl Schedule {
    fn utc() -> String {
        "UTC".to_owned()
    }
}

/// One routing rule, as written in `rules/*.yaml`. Either `when` or `at` is given; `catalog` checks it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Unique in all files; freezes, promotions and statistics are kept by it.
    pub name: String,
    /// Alertmanager matchers, all of which must hold.
    #[serde(default)]
    pub when: Vec<String>,
    /// A schedule, instead of `when`.
    #[serde(default)]
    pub at: Option<Schedule>,
    /// Each of these lines is a set of matchers; one set that holds mutes the rule.
    #[serde(default)]
    pub unless: Vec<String>,
    /// The runbook's name; without one the rule only notifies.
    #[serde(default)]
    pub run: Option<String>,
    /// The runbook's parameters. Those that are left out come from the subject, else from the runbook's header.
    #[serde(default)]
    pub with: BTreeMap<String, Argument>,
    /// How far it may go, if `mode_ceiling` of the configuration and its own level allow that.
    #[serde(default)]
    pub mode: Mode,
    /// Names of channels from the configuration.
    #[serde(default)]
    pub tell: Vec<String>,
    /// The lowest mode in which it notifies these channels: the mode governs acting, and silence is always explicit.
    #[serde(default)]
    pub tell_in: Mode,
    /// Why these events need no incident and no message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<String>,
    /// The parts of the subject or the labels that join episodes into one incident. Empty: the built-in grouping.
    #[serde(default)]
    pub group_by: Vec<String>,
    /// Act only when it happens again.
    #[serde(default)]
    pub repeat: Option<Repeat>,
    /// After a run on a subject, the next one waits this long; doubled each time.
    #[serde(default = "Rule::default_cooldown")]
    pub cooldown: Span,
    /// Runs on one subject within 24 hours before a user is needed instead.
    #[serde(default = "Rule::default_attempts")]
    pub attempts: u32,
    /// How long users have to answer; no answer is no.
    #[serde(default = "Rule::default_approval")]
    pub approve_within: Span,
    /// A query to Prometheus that has a result as long as the alert holds; sent before each act. `$node`, `$gpu`, …
    /// stand for parts of the subject, as quoted texts.
    #[serde(default, rename = "confirm_query", alias = "still")]
    pub still: Option<String>,
    /// Number of different approvers.
    #[serde(default = "Rule::default_persons", rename = "min_approvers", alias = "persons")]
    pub persons: u32,
    /// Names of those who may approve; empty: everyone with the role.
    #[serde(default)]
    pub approvers: Vec<String>,
    /// The evidence that `nightshift promote` requires before the rule's mode goes beyond `mode`.
    #[serde(default)]
    pub promote: Promote,
    /// The number of bad outcomes that lower its mode.
    #[serde(default)]
    pub demote: Demote,
    /// How long the alert must stay gone after a run before that counts as held.
    #[serde(default = "Rule::default_bake")]
    pub bake: Span,
}

impl Rule {
    fn default_cooldown() -> Span {
        crate::limits::COOLDOWN
    }

    fn default_attempts() -> u32 {
        crate::limits::ATTEMPTS_PER_DAY
    }

    fn default_bake() -> Span {
        crate::limits::BAKE
    }

    fn default_persons() -> u32 {
        1
    }

    fn default_approval() -> Span {
        crate::limits::APPROVAL_EXPIRY
    }
}
