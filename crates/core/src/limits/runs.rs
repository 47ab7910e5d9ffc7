//! Rules, matchers and runs: their bounds.
//!
//! Invariant: each number says why it is this one, where its name does not.

use crate::model::Span;
use std::time::Duration;

// ── rules and matchers ──
/// One line of matchers; Alertmanager's own silences stay far below.
pub const MATCHER_BYTES: usize = 4 * 1024;
/// Memory of one compiled regular expression, so that `(\w{500}){500}` is refused and not served.
pub const REGEX_BYTES: usize = 1024 * 1024;
pub const RULES: usize = 2_000;
pub const RULE_NAME_CHARS: usize = 100;
/// One line on a phone.
pub const TITLE_CHARS: usize = 160;
/// Names in a title, and characters of one of them: a label must not push the others out.
pub const TITLE_NAMES: usize = 4;
pub const NAME_SHOWN_CHARS: usize = 60;
/// A longer key ends in a hash, so that a hostile label cannot fill the index.
pub const INCIDENT_KEY_BYTES: usize = 256;
/// Characters of a label's value that a reason repeats.
pub const QUOTE_CHARS: usize = 80;
/// The window in which attempts on one subject are counted.
pub const ATTEMPTS_WINDOW: Span = Span::seconds(86_400);
/// A budget over an hour or a day frees up slowly, so it is asked less often than a lock.
pub const HOLD_RECHECK_BUDGET: Span = Span::minutes(5);
/// Names that a reason lists before it says how many more there are.
pub const NAMES_SHOWN: usize = 5;

// ── runs ──
/// Runs that are advanced or perform a step at the same time.
pub const RUNS_AT_ONCE: usize = 64;
/// Of one cluster at least so many, however many clusters there are.
pub const RUNS_PER_CLUSTER: usize = 8;
pub const DUE_BATCH: usize = 256;
/// Attempts of one step on a target that does not answer before the step has failed.
pub const STEP_ATTEMPTS: u32 = 8;
pub const BACKOFF_FIRST: Duration = Duration::from_millis(250);
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// While something is performed, how often the kill switch is looked at: two seconds after it, nothing is sent.
pub const FREEZE_LOOK_EVERY: Duration = Duration::from_secs(1);
/// What blast radius counts by the hour.
pub const HOUR: Span = Span::minutes(60);
/// What it counts by the day.
pub const DAY: Span = Span::minutes(24 * 60);
/// Sets of replicas that one step may touch: a node holds some tens of pods that hold GPUs.
pub const SERVING_SETS: usize = 64;
/// Characters of a label by which nodes are grouped; Kubernetes allows 63.
pub const GROUP_CHARS: usize = 63;
/// What an Alertmanager said of its silences is believed for so long.
pub const SILENCES_FRESH: Duration = Duration::from_secs(5);
/// A silence that a person asks for here, and the alerts of one incident that it may be for.
pub const SILENCE_MIN: Span = Span::minutes(1);
pub const SILENCE_MAX: Span = Span::minutes(7 * 24 * 60);
pub const SILENCED_ALERTS: usize = 20;
pub const HOLD_RECHECK: Span = Span::seconds(15);
pub const COOLDOWN: Span = Span::minutes(30);
pub const ATTEMPTS_PER_DAY: u32 = 3;
pub const APPROVAL_EXPIRY: Span = Span::minutes(30);
/// Remedies of one scope that failed, or ended in doubt, within the window: then a person must look.
pub const OUTCOME_WINDOW: Span = Span::minutes(60);
pub const OUTCOME_FAILED: u32 = 3;
pub const OUTCOME_STUCK: u32 = 2;
/// Within this time, one symptom on many nodes has one cause.
pub const SYMPTOM_WINDOW: Span = Span::minutes(5);
/// A complaint that came back so often within the window flaps: that is, it changed four times.
pub const FLAP_WINDOW: Span = Span::minutes(15);
pub const FLAPS: u32 = 2;
/// The kill switch outside the store is looked at so often, and what was not read for the second span is engaged.
pub const KILL_LOOK_EVERY: Duration = Duration::from_millis(500);
pub const KILL_STALE: Duration = Duration::from_secs(2);
/// After a run has done its work, the complaint must stay gone for so long before that counts as held.
pub const BAKE: Span = Span::minutes(60);
pub const BAKE_MAX: Span = Span::minutes(7 * 24 * 60);
/// What a rule asks for by default before it goes further; "20 matches and nothing wrong" is what others ask for, too.
pub const PROMOTE_MATCHES: u32 = 20;
pub const PROMOTE_RIGHT: u32 = 10;
pub const PROMOTE_WRONG: u32 = 0;
pub const PROMOTE_HELD: u32 = 5;
/// One storm is one piece of evidence, so the matches must lie apart.
pub const PROMOTE_OVER: Span = Span::minutes(7 * 24 * 60);
/// Bad outcomes that bring a rule one rung down. In approve a person has looked at each plan first.
pub const DEMOTE_AUTO: u32 = 1;
pub const DEMOTE_APPROVE: u32 = 3;
/// What a rule may ask for; more than this it could never show.
pub const EVIDENCE_MAX: u32 = 10_000;
/// The record of a rule's runs outlives the runs: faults that come once a month are evidence, too.
pub const RECORD_KEPT: Span = Span::minutes(400 * 24 * 60);
/// Answers behind a median; with fewer the time saved is not known.
pub const ANSWERS_MIN: u32 = 3;
/// The newest answers that count for the median.
pub const ANSWERS_READ: usize = 500;
/// Persons whom a scorecard names.
pub const JUDGES_NAMED: usize = 20;
/// Two persons release a freeze within this time, or the first one's word is forgotten.
pub const RELEASE_WINDOW: Span = Span::minutes(30);
/// Of a path that no page has, so much is repeated.
pub const WEB_PATH_CHARS: usize = 200;
/// A freeze that ends by itself: shorter is over before anybody has looked, longer is a decision to be made again.
pub const FREEZE_MIN: Span = Span::minutes(1);
pub const FREEZE_MAX: Span = Span::minutes(30 * 24 * 60);
/// Calls in a plan; longer ones are cut and say so.
pub const PLAN_CALLS: usize = 200;
/// Calls of a plan of which is foretold what the guards would say: each is read from the world.
pub const FORETOLD_CALLS: usize = 50;
/// Texts of old runbooks kept compiled for runs that still hold them.
pub const OLD_RUNBOOKS: usize = 64;
/// A step that is under way is not looked at more often than this.
pub const AGAIN_MIN: Duration = Duration::from_millis(50);
