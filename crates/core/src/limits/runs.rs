//! Rules, matchers and runs: their bounds.
//!
//! Invariant: each number has its reason beside it, where its name does not give it.

use crate::model::Span;
use std::time::Duration;

// ── rules and matchers ──
/// One line of matchers; Alertmanager's own silences stay far below.
pub const MATCHER_BYTES: usize = 4 * 1024;
/// Memory of one compiled regular expression, so that `(\w{500}){500}` is refused and not served.
pub const REGEX_BYTES: usize = 1024 * 1024;
/// Rules in one catalog.
pub const RULES: usize = 2_000;
/// Characters of a rule's name.
pub const RULE_NAME_CHARS: usize = 100;
/// One line on a phone.
pub const TITLE_CHARS: usize = 160;
/// Names in a title, and characters of one of them: a label must not push the others out.
pub const TITLE_NAMES: usize = 4;
/// Characters of one name in a title.
pub const NAME_SHOWN_CHARS: usize = 60;
/// A longer key ends in a hash, so that a hostile label cannot fill the index.
pub const INCIDENT_KEY_BYTES: usize = 256;
/// Characters of a label's value that a reason repeats.
pub const QUOTE_CHARS: usize = 80;
/// The window in which attempts on one subject are counted.
pub const ATTEMPTS_WINDOW: Span = Span::seconds(86_400);
/// A budget over an hour or a day frees up slowly, so it is checked less often than a lock.
pub const HOLD_RECHECK_BUDGET: Span = Span::minutes(5);
/// Names that a reason lists before it gives the number of further ones.
pub const NAMES_SHOWN: usize = 5;

// ── runs ──
/// Runs that are advanced or perform a step at the same time.
pub const RUNS_AT_ONCE: usize = 64;
/// Of one cluster at least so many, however many clusters there are.
pub const RUNS_PER_CLUSTER: usize = 8;
/// Due runs taken up in one pass.
pub const DUE_BATCH: usize = 256;
/// Attempts of one step on a target that does not answer before the step has failed.
pub const STEP_ATTEMPTS: u32 = 8;
/// Wait after the first failed attempt of a step.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// Longest wait between two attempts of a step.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// While something is performed, how often the kill switch is looked at: two seconds after it, nothing is sent.
pub const FREEZE_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Window of the hourly blast radius.
pub const HOUR: Span = Span::minutes(60);
/// Window of the daily blast radius.
pub const DAY: Span = Span::minutes(24 * 60);
/// Sets of replicas that one step may touch: a node holds some tens of pods that hold GPUs.
pub const SERVING_SETS: usize = 64;
/// Characters of a label by which nodes are grouped; Kubernetes allows 63.
pub const GROUP_CHARS: usize = 63;
/// An Alertmanager's list of silences is used for this time before it is read again.
pub const SILENCES_FRESH: Duration = Duration::from_secs(5);
/// Shortest silence that a user may request here.
pub const SILENCE_MIN: Span = Span::minutes(1);
/// Longest silence that a user may request here.
pub const SILENCE_MAX: Span = Span::minutes(7 * 24 * 60);
/// Alerts of one incident that a request may silence.
pub const SILENCED_ALERTS: usize = 20;
/// A held run is checked again after this.
pub const HOLD_RECHECK: Span = Span::seconds(15);
/// Default time between two runs of one rule on one subject.
pub const COOLDOWN: Span = Span::minutes(30);
/// Default number of attempts on one subject within `ATTEMPTS_WINDOW`.
pub const ATTEMPTS_PER_DAY: u32 = 3;
/// Default validity of an approval request.
pub const APPROVAL_EXPIRY: Span = Span::minutes(30);
/// Window in which failed and stuck runs of one scope count for its breaker.
pub const OUTCOME_WINDOW: Span = Span::minutes(60);
/// Failed runs within the window that trip the breaker.
pub const OUTCOME_FAILED: u32 = 3;
/// Stuck runs within the window that trip the breaker.
pub const OUTCOME_STUCK: u32 = 2;
/// Within this time, one symptom on many nodes has one cause.
pub const SYMPTOM_WINDOW: Span = Span::minutes(5);
/// An alert that came back so often within the window flaps: that is, it changed four times.
pub const FLAP_WINDOW: Span = Span::minutes(15);
/// Times that an alert comes back within the window before it counts as flapping.
pub const FLAPS: u32 = 2;
/// How often the kill switch outside the store is read.
pub const KILL_LOOK_EVERY: Duration = Duration::from_millis(500);
/// A kill switch that was not read for this time counts as engaged.
pub const KILL_STALE: Duration = Duration::from_secs(2);
/// After a run has done its work, the alert must stay gone for so long before that counts as held.
pub const BAKE: Span = Span::minutes(60);
/// Longest bake time: an alert that returns after a week is another fault.
pub const BAKE_MAX: Span = Span::minutes(7 * 24 * 60);
/// Matches that a rule needs by default before promotion; "20 matches and nothing wrong" is the usual bar elsewhere,
/// too.
pub const PROMOTE_MATCHES: u32 = 20;
/// Runs reviewed as right that a rule needs by default before promotion.
pub const PROMOTE_RIGHT: u32 = 10;
/// Runs reviewed as wrong that a rule may have by default.
pub const PROMOTE_WRONG: u32 = 0;
/// Runs whose alert stayed resolved that a rule needs by default before promotion.
pub const PROMOTE_HELD: u32 = 5;
/// One storm is one piece of evidence, so the matches must lie apart.
pub const PROMOTE_OVER: Span = Span::minutes(7 * 24 * 60);
/// Bad outcomes that demote a rule in mode auto.
pub const DEMOTE_AUTO: u32 = 1;
/// Bad outcomes that demote a rule in mode approve, where an approver has read each plan first.
pub const DEMOTE_APPROVE: u32 = 3;
/// Largest evidence that a rule may require; it could never show more than this.
pub const EVIDENCE_MAX: u32 = 10_000;
/// The record of a rule's runs outlives the runs: faults that come once a month are evidence, too.
pub const RECORD_KEPT: Span = Span::minutes(400 * 24 * 60);
/// Answers behind a median; with fewer the time saved is not known.
pub const ANSWERS_MIN: u32 = 3;
/// The newest answers that count for the median.
pub const ANSWERS_READ: usize = 500;
/// Users that a scorecard names.
pub const JUDGES_NAMED: usize = 20;
/// Two users release a freeze within this time, or the first one's word is forgotten.
pub const RELEASE_WINDOW: Span = Span::minutes(30);
/// Of a path that no page has, so much is repeated.
pub const WEB_PATH_CHARS: usize = 200;
/// A freeze that ends by itself: a shorter one is over before it was noticed, a longer one is a decision to be made
/// again.
pub const FREEZE_MIN: Span = Span::minutes(1);
/// Longest freeze with an end.
pub const FREEZE_MAX: Span = Span::minutes(30 * 24 * 60);
/// Calls in a plan; longer ones are cut and marked as such.
pub const PLAN_CALLS: usize = 200;
/// Calls of a plan for which the guards' decisions are predicted: each needs reads of the world.
pub const FORETOLD_CALLS: usize = 50;
/// Texts of old runbooks kept compiled for runs that still hold them.
pub const OLD_RUNBOOKS: usize = 64;
/// A step that is under way is not looked at more often than this.
pub const AGAIN_MIN: Duration = Duration::from_millis(50);
