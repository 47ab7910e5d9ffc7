//! The values of labels, and the gauges that are read for each scrape.
//!
//! Invariant: every label is one of these; none comes from outside the program.

use crate::policy::EngineReadError;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }
        impl $name {
            pub const fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }
    };
}

words!(
    /// Why events were not taken now: the answer was 503.
    Shed { Bytes => "bytes", Busy => "busy", Store => "store" }
);
words!(
    /// Why a body was refused for good: the answer was 4xx.
    Refused { Malformed => "malformed", TooLarge => "too_large", MediaType => "media_type", Slow => "slow" }
);
words!(
    /// How a step ended.
    Ended { Ok => "ok", Failed => "failed" }
);
words!(
    /// How a step that a crash left open was settled.
    Settled { Again => "performed_again", Witness => "witnessed", Asked => "asked_human" }
);
words!(
    /// Where a write under an old epoch was turned away.
    Fence { Store => "store" }
);
words!(
    /// The parts of a step that are timed.
    Phase { Advance => "advance", Begin => "begin", Perform => "perform", End => "end" }
);
words!(
    /// The result of one attempt to deliver a notice.
    Delivered { Delivered => "delivered", Retry => "retry", Refused => "refused" }
);
words!(
    /// Kinds of channels.
    ChannelKind {
        Slack => "slack", SlackWebhook => "slackwebhook", PagerDuty => "pagerduty",
        PagerDutyChanges => "pagerduty-changes", Email => "email", Webhook => "webhook", Log => "log",
    }
);
words!(
    /// The endpoints of Slack whose answer a user waits for.
    SlackDoor { Command => "command", Interaction => "interaction" }
);
words!(
    /// Which program warms models.
    Via { Agent => "agent", Job => "job" }
);
words!(
    /// A user's review of a run.
    Verdict { Right => "right", Wrong => "wrong" }
);
words!(
    /// A budget that a guard keeps.
    Budget { AtOnce => "at_once" }
);

/// The result of one probe of an inference engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    Up,
    NotReady,
    Unread(EngineReadError),
}

impl ProbeResult {
    pub(super) const fn word(self) -> &'static str {
        match self {
            ProbeResult::Up => "up",
            ProbeResult::NotReady => "not-ready",
            ProbeResult::Unread(why) => why.word(),
        }
    }
}

/// The inference engines of one kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProbeLevels {
    pub targets: usize,
    /// Ready and read at their last look.
    pub up: usize,
    /// Since the look that is the longest ago.
    pub oldest_seconds: f64,
}

/// The current state, read from the store for each scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoreGauges {
    pub episodes_open: u64,
    pub incidents_open: u64,
    pub runs_unfinished: u64,
    pub approvals_open: u64,
    pub notices_due: u64,
    pub oldest_notice_seconds: f64,
    pub entries: u64,
    pub unsigned: u64,
    pub freezes: u64,
    pub nodes_held: u64,
    /// Warms that agents are at, and the bytes of their models: all, and in memory by now.
    pub warming: u64,
    pub warming_bytes: u64,
    pub warming_done: u64,
    pub clusters_lost: u64,
    /// Rules with a runbook, by their mode now, lowest first; and those below their file's mode.
    pub rules: [u64; 4],
    pub rules_lowered: u64,
}
