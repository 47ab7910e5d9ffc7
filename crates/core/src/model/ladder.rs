//! Promotion: the evidence of a rule, the level that it allows, and the outcomes that lower it again.
//!
//! Invariant: evidence and levels belong to one content, the hash of a rule's behavior; other content has none of them.

use super::{Mode, RunId, Span, Time};
use crate::limits;
use serde::{Deserialize, Serialize};

/// What a rule asks for before it goes further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Promote {
    /// The highest mode that it can be promoted to.
    pub to: Mode,
    /// Matches with a whole plan or a run that acted: from `approve` on.
    pub matches: u32,
    /// Of them judged right by a user, or approved: from `approve` on.
    pub judged_right: u32,
    /// At most so many reviewed as wrong or that ended badly: for every mode.
    pub wrong: u32,
    /// Runs after which the alert stayed gone for the bake time: for `auto`.
    pub held: u32,
    /// The first match must be so long ago: for `auto`.
    pub over: Span,
}

impl Default for Promote {
    fn default() -> Self {
        Promote {
            to: Mode::Auto,
            matches: limits::PROMOTE_MATCHES,
            judged_right: limits::PROMOTE_RIGHT,
            wrong: limits::PROMOTE_WRONG,
            held: limits::PROMOTE_HELD,
            over: limits::PROMOTE_OVER,
        }
    }
}

/// A person's word on a run, as it counts: of each person the latest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Judgement {
    pub by: String,
    pub right: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    pub at: Time,
}

/// So many bad outcomes at a rung bring a rule one rung down; 0: none ever does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Demote {
    /// Bad outcomes that take it from auto to approve.
    pub auto: u32,
    /// Bad outcomes that take it from approve to suggest.
    pub approve: u32,
}

impl Default for Demote {
    fn default() -> Self {
        Demote { auto: limits::DEMOTE_AUTO, approve: limits::DEMOTE_APPROVE }
    }
}

/// What a run needs to know of the rule that started it, frozen with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Terms {
    /// 32 hex digits over the rule's behavior and the runbook's hash.
    pub content: String,
    /// The mode in the rule's file.
    pub file: Mode,
    pub bake: Span,
    pub demote: Demote,
    /// Channels of its moves; empty: every channel.
    pub tell: Vec<String>,
}

/// A rule's level and its statistics, as pages and the API show them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Scorecard {
    pub rule: String,
    pub runbook: String,
    /// How far it goes now.
    pub mode: Mode,
    /// The file's mode, and this installation's ceiling.
    pub file: Mode,
    pub ceiling: Mode,
    /// Everything here is about this content: another runbook text or other matchers begin anew.
    pub content: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub level: Option<Level>,
    pub card: Card,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<NextRung>,
}

/// The rung above, and what is missing for it; nothing: it may be promoted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NextRung {
    pub to: Mode,
    pub missing: Vec<String>,
}

impl Scorecard {
    /// Why it goes as far as it does, as one sentence.
    pub fn because(&self) -> String {
        let ceiling = match self.ceiling {
            low if self.mode == low && low < self.wanted() => ", limited by `mode_ceiling`",
            _ => "",
        };
        match &self.level {
            Some(level) if level.mode.min(self.ceiling) == self.mode => {
                let verb = if level.by == "engine" {
                    "demoted by the engine".to_owned()
                } else if level.down && level.mode < level.file {
                    format!("held below its file by {}", level.by)
                } else if level.down {
                    format!("demoted by {}", level.by)
                } else {
                    format!("promoted by {}", level.by)
                };
                let why = if level.why.is_empty() { String::new() } else { format!(": {}", level.why) };
                let on = level.at.strftime("%Y-%m-%d %H:%M UTC");
                format!("{} because it was {verb} on {on} with {}{why}{ceiling}", self.mode, level.card.words())
            }
            _ => format!("{} because of its file's mode {}{ceiling}", self.mode, self.file),
        }
    }

    fn wanted(&self) -> Mode {
        self.level.as_ref().map_or(self.file, |level| level.mode)
    }
}

impl Card {
    /// The numbers that count, in one line.
    pub fn words(&self) -> String {
        format!(
            "{} matches, {} right, {} wrong, {} held, {} bad",
            self.matches, self.right, self.wrong, self.held, self.bad
        )
    }
}

/// What became of a complaint after a run had done its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aftermath {
    /// It went away and stayed away for the bake time.
    Held,
    /// It came back within the bake time.
    Back,
    /// It was still there at the end of the bake time.
    Lingers,
    /// Its source fell silent within the bake time; its state is unknown.
    Unknown,
}

/// How far a rule may go, as a move up or down left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Level {
    pub rule: String,
    pub content: String,
    pub mode: Mode,
    /// The mode in the rule's file at that time.
    pub file: Mode,
    /// It was demoted, or is still below the file's mode of that time: a file with a higher mode does not lift it.
    pub down: bool,
    /// A user, or `engine`.
    pub by: String,
    pub why: String,
    pub at: Time,
    /// Runs from this number on were started under it.
    pub from_run: RunId,
    /// Evidence counts from this run on: a way down begins it anew.
    pub evidence_from: RunId,
    /// The rule's statistics when it moved.
    pub card: Card,
}

/// The part of a content's hash that suffices to distinguish it.
pub fn short_content(content: &str) -> &str {
    content.get(..8).unwrap_or(content)
}

/// What a rule has on record for one content: counts of its runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Card {
    /// The first match that counts.
    pub since: Option<Time>,
    /// Runs that the rule started.
    pub started: u32,
    /// Of them those with a whole plan, or that acted.
    pub matches: u32,
    /// Reviewed as right or approved, and never reviewed as wrong.
    pub right: u32,
    /// Reviewed as wrong, or denied with a reason and never reviewed as right.
    pub wrong: u32,
    pub approved: u32,
    pub denied: u32,
    /// Runs that changed something in the world, and how they ended.
    pub acted: u32,
    pub done: u32,
    pub failed: u32,
    /// Of those that failed: what they did was taken back.
    pub taken_back: u32,
    pub stuck: u32,
    /// After those that were done: the alert stayed resolved, came back, never resolved, or it is too early to decide.
    pub held: u32,
    pub back: u32,
    pub lingers: u32,
    pub baking: u32,
    /// Judged wrong, failed or stuck after acting, or followed by the alert coming back: each run once.
    pub bad: u32,
    /// Users who judged right or approved, a few of them.
    pub judges: Vec<String>,
    /// Answers to this rule's questions, of any content, and the median time from question to yes.
    pub answers: u32,
    pub answer_median: Option<Span>,
    /// Runs in auto that were done and not bad, each the median wait for a user; none where too few answers are known.
    pub saved: Option<Span>,
}
