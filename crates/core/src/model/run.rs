//! One execution of a pinned runbook: for one incident, by hand, or by schedule.
//!
//! Invariant: a run in a final state never changes again, and one that waits is only a row.

use crate::planted::planted;

use super::{ApprovalId, EpisodeId, Foretold, IncidentId, Mode, Pin, Plan, Reason, ReasonCode, RunId, Subject, Time};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// What a run was started with; frozen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Input {
    /// The header's parameters, by name.
    pub params: Map<String, Value>,
    /// The event that started it, as the script sees it (`event.labels.alertname`); null when started by hand.
    #[serde(default)]
    pub event: Value,
}

/// Where a run stands. In JSON `is` is `name()`; rows and entries of before say `denied` for every run that was not done.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, strum::IntoStaticStr)]
#[serde(tag = "is", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum RunState {
    /// To be advanced now.
    Ready,
    /// A step is to be performed again later: a timer, a drain, a retry.
    Waiting {
        why: String,
    },
    /// A guard holds it for now.
    Held {
        reason: Reason,
    },
    /// It waits for an approver.
    Asking {
        approval: ApprovalId,
    },
    // final states
    Done,
    /// The runbook stopped itself, on purpose.
    Stopped {
        why: String,
    },
    /// A call failed and the runbook did not catch it; `undone`: whether its effects were undone.
    Failed {
        why: String,
        undone: bool,
    },
    /// Needs a user: see the reason's page.
    Stuck {
        reason: Reason,
    },
    /// The plan is recorded; nothing was done (observe, suggest).
    Planned,
    /// Not done: denied by a user, expired, cancelled, withdrawn, refused by a guard. The reason's code distinguishes
    /// these.
    #[serde(alias = "cancelled", alias = "withdrawn", alias = "expired", alias = "refused")]
    Denied {
        reason: Reason,
    },
}

impl RunState {
    /// Whether the run has ended; a final state never changes.
    pub fn is_final(&self) -> bool {
        !matches!(self, RunState::Ready | RunState::Waiting { .. } | RunState::Held { .. } | RunState::Asking { .. })
    }

    /// The words of final states.
    pub const FINAL_NAMES: [&'static str; 10] =
        ["done", "stopped", "failed", "stuck", "planned", "denied", "cancelled", "expired", "withdrawn", "refused"];

    /// The word for tables and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            RunState::Denied { reason } => not_done(reason.code),
            _ => self.into_str(),
        }
    }

    /// The same with who denied it or which guard refused it: `denied by ann`, `refused by protected`.
    pub fn words(&self) -> String {
        match self {
            RunState::Denied { reason } => match (self.name(), who_denied(&reason.text)) {
                ("denied", Some(who)) => format!("denied by {who}"),
                ("refused", _) => format!("refused by {}", reason.code.name()),
                (name, _) => name.to_owned(),
            },
            _ => self.name().to_owned(),
        }
    }

    /// Whether a filter by this word means the state. `denied` was the word for every run that was not done, and stays
    /// an alias of all of them for one release.
    pub fn is_named(&self, word: &str) -> bool {
        self.name() == word || (word == "denied" && matches!(self, RunState::Denied { .. }))
    }

    /// The reasons with which a run that was not done has this name; none for other states.
    pub fn codes(name: &str) -> Vec<ReasonCode> {
        ReasonCode::ALL.iter().copied().filter(|code| not_done(*code) == name).collect()
    }

    /// Every word that `name` has.
    pub const NAMES: [&str; 14] = [
        "ready",
        "waiting",
        "held",
        "asking",
        "done",
        "stopped",
        "failed",
        "stuck",
        "planned",
        "denied",
        "expired",
        "cancelled",
        "withdrawn",
        "refused",
    ];
}

/// The word for a run that was not done, by the reason's code.
fn not_done(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::NotApproved => "denied",
        ReasonCode::ApprovalExpired => "expired",
        ReasonCode::Cancelled => "cancelled",
        ReasonCode::EpisodeOver | ReasonCode::NoLongerNeeded | ReasonCode::NoRuleMatched => "withdrawn",
        _ => "refused",
    }
}

/// The name in the reason of a run that a user denied.
fn who_denied(text: &str) -> Option<&str> {
    let who = match text.strip_prefix("denied by ") {
        Some(said) => said.split_once(": ").map_or(said, |(who, _)| who),
        // As it was written before.
        None => text.split_once(" said no")?.0,
    };
    Some(who).filter(|who| !who.is_empty())
}

impl Serialize for RunState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("is", self.name())?;
        match self {
            RunState::Ready | RunState::Done | RunState::Planned => {}
            RunState::Waiting { why } | RunState::Stopped { why } => map.serialize_entry("why", why)?,
            RunState::Held { reason } | RunState::Stuck { reason } | RunState::Denied { reason } => {
                map.serialize_entry("reason", reason)?;
            }
            RunState::Asking { approval } => map.serialize_entry("approval", approval)?,
            RunState::Failed { why, undone } => {
                map.serialize_entry("why", why)?;
                map.serialize_entry("undone", undone)?;
            }
        }
        map.end()
    }
}

/// The shape that `Serialize` above writes: the derived one would be that of the reader.
impl schemars::JsonSchema for RunState {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RunState".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let (reason, approval) = (generator.subschema_for::<Reason>(), generator.subschema_for::<ApprovalId>());
        schemars::json_schema!({
            "type": "object",
            "description": "The state of a run: its name in `is`, and the members that belong to that state.",
            "properties": {
                "is": { "type": "string", "enum": RunState::NAMES },
                "why": { "type": "string", "description": "Of waiting, stopped and failed." },
                "reason": reason,
                "approval": approval,
                "undone": { "type": "boolean", "description": "Of failed: whether the steps were undone." },
            },
            "required": ["is"],
        })
    }
}

/// One execution of a runbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Run {
    pub id: RunId,
    /// The rule that started it; none when by hand.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub incident: Option<IncidentId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub episode: Option<EpisodeId>,
    pub runbook: Pin,
    pub input: Input,
    /// Its subject, for locks, cooldowns and messages.
    pub subject: Subject,
    pub mode: Mode,
    pub state: RunState,
    /// When to look at it again, for states that are not final.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wake_at: Option<Time>,
    /// Who owns it; every write to its journal is conditional on this.
    pub epoch: i64,
    /// The plan that was approved, once one was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub approved: Option<Plan>,
    /// Set once the runbook has failed and its steps are being taken back: the words of the failure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unwinding: Option<String>,
    pub created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_at: Option<Time>,
    /// Its origin: `rule`, `schedule` or a user's name.
    pub requested_by: String,
    /// The user who posted the alert that started it, where a user did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub posted_by: Option<String>,
}

impl Run {
    /// The users who caused it, by starting it or by posting its alert: none of them approves it.
    pub fn requesters(&self) -> impl Iterator<Item = &str> {
        let by_hand = self.rule.is_none().then_some(self.requested_by.as_str());
        by_hand.into_iter().chain(self.posted_by.as_deref().filter(|_| !planted("poster-approves")))
    }
}

/// The state of one approval request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApprovalState {
    Open,
    Approved,
    Denied,
    Expired,
    /// The plan changed or the run ended: the question is moot.
    Void,
}

/// One question to a human: single use, expiring, bound to the hash of what was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Approval {
    pub id: ApprovalId,
    pub run: RunId,
    pub question: String,
    pub plan_hash: String,
    pub plan: Option<Plan>,
    /// The guards' predicted decisions on the plan's calls at the time of the request.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub foretold: Vec<Foretold>,
    /// The step of the request, for `approve(...)` in a runbook; none for the plan of a run in mode approve.
    pub step: Option<u32>,
    pub state: ApprovalState,
    pub asked_at: Time,
    pub expires_at: Time,
    pub approvers: Vec<String>,
    /// The number of different approvers that are needed, and those so far.
    #[serde(default = "one_person")]
    pub needed: u32,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub given: Vec<String>,
    pub decided_by: Option<String>,
    pub decided_at: Option<Time>,
}

fn one_person() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_done(code: ReasonCode, text: &str) -> RunState {
        RunState::Denied { reason: Reason::new(code, text) }
    }

    #[test]
    fn a_run_that_was_not_done_says_why_in_its_state_and_old_rows_are_read_as_before() {
        for (code, text, name, words) in [
            (ReasonCode::Cancelled, "cancelled by ann: x", "cancelled", "cancelled"),
            (ReasonCode::EpisodeOver, "the alert ended", "withdrawn", "withdrawn"),
            (ReasonCode::NoLongerNeeded, "it came back", "withdrawn", "withdrawn"),
            (ReasonCode::Protected, "hands off", "refused", "refused by protected"),
            (ReasonCode::NotApproved, "ann said no: not tonight", "denied", "denied by ann"),
            (ReasonCode::ApprovalExpired, "no answer", "expired", "expired"),
        ] {
            let state = not_done(code, text);
            assert_eq!((state.name(), state.words().as_str()), (name, words));
            assert!(RunState::NAMES.contains(&name));
            let json = serde_json::to_value(&state).unwrap();
            assert_eq!(json["is"], name);
            assert_eq!(serde_json::from_value::<RunState>(json.clone()).unwrap(), state);
            // As it was written before there were words for each.
            let mut old = json;
            old["is"] = Value::from("denied");
            assert_eq!(serde_json::from_value::<RunState>(old).unwrap(), state);
            assert!(state.is_named(name) && state.is_named("denied") && !state.is_named("done"));
        }
    }

    #[test]
    fn every_other_state_is_written_and_read_as_it_always_was() {
        for text in [
            r#"{"is":"ready"}"#,
            r#"{"is":"waiting","why":"w"}"#,
            r#"{"is":"held","reason":{"code":"frozen","text":"t"}}"#,
            r#"{"is":"asking","approval":"a5"}"#,
            r#"{"is":"done"}"#,
            r#"{"is":"stopped","why":"w"}"#,
            r#"{"is":"failed","why":"w","undone":true}"#,
            r#"{"is":"stuck","reason":{"code":"in_doubt","text":"t"}}"#,
            r#"{"is":"planned"}"#,
        ] {
            let state: RunState = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&state).unwrap(), text);
        }
    }
}
