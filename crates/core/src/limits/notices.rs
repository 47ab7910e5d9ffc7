//! Notices, and the limits of those who carry them: their bounds.
//!
//! Invariant: each number has its reason beside it, where its name does not give it.

use crate::model::Span;
use std::time::Duration;

// ── notices ──
/// Bytes of a text that a runbook sends or notes: Slack's section takes 3,000 characters.
pub const TELL_BYTES: usize = 8 * 1024;
/// Between two editions of one message: Slack takes about one a second for a channel, and users read slower.
pub const NOTICE_PACE: Duration = Duration::from_secs(2);
/// How long a channel may wait for automation: less hardly suppresses any page.
pub const PATIENCE_MIN: Span = Span::seconds(10);
/// Longest time a channel may wait for automation: beyond a day a page would never be sent.
pub const PATIENCE_MAX: Span = Span::seconds(86_400);
/// Incidents that may open on a channel within a minute before a digest takes over.
pub const NOTICES_PER_MINUTE: usize = 20;
/// Critical incidents of one source that have messages of their own within a minute while a digest is open.
pub const CRITICAL_IN_STORM: usize = 3;
/// Lines of a list (steps, alerts, timeline entries) in one message or page; the rest is a number.
pub const HEADLINES: usize = 12;
/// Lines of a thread that are written at once; older ones become one line with their number.
pub const STORY_LINES: usize = 200;
/// Deliveries under way at once, over all channels.
pub const DELIVERIES_AT_ONCE: usize = 8;
/// After an outage messages arrive within a minute; one call a minute troubles no vendor.
pub const DELIVERY_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// One attempt to deliver, whatever the notifier does; longer than `HTTP_TIMEOUT` times the calls one attempt makes.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// A test message and the message that resolves it; shorter than the command line's own timeout.
pub const CHANNEL_TEST: Duration = Duration::from_secs(20);
/// Between two looks at the secret of a channel that is off: reading a file costs little, and its messages wait.
pub const CHANNEL_OFF_RETRY: Duration = Duration::from_secs(5);
/// Longest `Retry-After` that is followed, so that a broken header cannot silence a channel for a day.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// Due notices taken up in one pass.
pub const NOTICES_BATCH: usize = 1_024;
/// A channel takes up no further message after this before it is asked again what is due, so that a critical incident waits for
/// one message and not for a minute's.
pub const LANE_TURN: Duration = Duration::from_millis(500);
/// Between two editions of one digest.
pub const DIGEST_PACE: Duration = Duration::from_secs(5);
/// Time that urgent messages may borrow from the turns of others.
pub const TURNS_DEBT_MAX: Duration = Duration::from_secs(60);
/// How far ahead a turn is reserved.
pub const TURNS_AHEAD_MAX: Duration = Duration::from_secs(3_600);
/// A message waits so long for the count of the fleet, and goes without it.
pub const BUDGET_PATIENCE: Duration = Duration::from_millis(200);
/// In mode approve the first page waits so long for the plan, so that it carries the question; with the 2 s of any other
/// first message it is still out before a user could have opened a laptop.
pub const FIRST_PAGE_WAIT: Duration = Duration::from_secs(5);
/// A guard that holds a run for so long needs a user: most holds (a budget, a lock of another run) end sooner.
pub const HELD_LONG: Duration = Duration::from_secs(600);
/// Reasons why users are needed that one message lists.
pub const NEEDS: usize = 8;
/// Incidents named in a digest; the rest is a number and a command.
pub const DIGEST_ITEMS: usize = 20;
/// Alerts named in one message, links under them, and characters of a description and of an address.
pub const ALERTS_SHOWN: usize = 5;
/// Links under one alert.
pub const LINKS_SHOWN: usize = 5;
/// Characters of an alert's description.
pub const DESCRIPTION_CHARS: usize = 600;
/// Bytes of one link's address; a longer one is left out.
pub const LINK_BYTES: usize = 2_000;
/// Alerts that are read for the title and the lines of one message.
pub const ALERTS_READ: usize = 200;
/// Incidents of one list whose title is made from all their alerts; the others keep the title of the first one.
pub const TITLES_READ: usize = 50;
/// Deadline for predicting the guards' decisions on a plan; the approval request is sent without them after it.
pub const FORETELL_PATIENCE: Duration = Duration::from_secs(3);
/// Questions shown in one message; the rest is a number and a command.
pub const ASKS: usize = 4;
/// Unjudged plans that one message offers to judge.
pub const SUGGESTIONS: usize = 2;
/// Characters of one story line, so that a hostile label cannot push the others out.
pub const STORY_LINE_CHARS: usize = 400;
/// Messages whose place is remembered between a failed attempt and the next one.
pub const MESSAGES_REMEMBERED: usize = 4_096;

// ── vendors' own rate limits ── edits and thread lines wait for a turn; first messages have `NOTICES_PER_MINUTE`
/// Slack edits some 50 times a minute for a workspace and posts once a second to a channel. An edit is both, so a minute has
/// at most 40 of each, and 20 first messages.
pub const SLACK_PACE: Duration = Duration::from_secs(2);
/// Slack calls that may be made at once after a quiet time.
pub const SLACK_BURST: u32 = 10;
/// PagerDuty takes some 120 events a minute for an integration: 60, a burst of 20, and 20 new incidents.
pub const PAGERDUTY_PACE: Duration = Duration::from_secs(1);
/// PagerDuty events that may be sent at once after a quiet time.
pub const PAGERDUTY_BURST: u32 = 20;

// ── vendors' own limits ── exceeding one loses the message
/// Blocks of one message.
pub const SLACK_BLOCKS: usize = 50;
/// Characters of a section block's text.
pub const SLACK_SECTION_CHARS: usize = 3_000;
/// Characters of a header block.
pub const SLACK_HEADER_CHARS: usize = 150;
/// One text of a context block, which Slack bounds at 2,000.
pub const SLACK_CONTEXT_CHARS: usize = 1_800;
/// Undocumented: blocks of more than about 13,200 characters in all fail.
pub const SLACK_TOTAL_CHARS: usize = 13_000;
/// Slack waits three seconds for an answer; a request that takes longer than this is answered later.
pub const SLACK_PATIENCE: Duration = Duration::from_millis(1_500);
/// How far the time of a signed request may be from ours, and signatures remembered for so long.
pub const SLACK_SKEW: Duration = Duration::from_secs(300);
/// Signatures remembered, so that a replayed request is refused.
pub const SLACK_SEEN: usize = 8_192;
/// Buttons in one request; Slack sends one.
pub const SLACK_PRESSES: usize = 5;
/// Lines of a story in one answer to a chat.
pub const CHAT_LINES: usize = 25;
/// Incidents in one answer to a chat.
pub const CHAT_ROWS: usize = 20;
/// Characters of a message's fallback text.
pub const SLACK_TEXT_CHARS: usize = 1_000;
/// Bytes of one PagerDuty webhook; PagerDuty itself drops deliveries over 256 KB.
pub const PAGERDUTY_WEBHOOK_BYTES: usize = 256 * 1024;
/// Signatures of one delivery that are looked at; there are two while a secret is rotated.
pub const PAGERDUTY_SIGNATURES: usize = 5;
/// Deliveries remembered, so that a repeat counts once.
pub const PAGERDUTY_HEARD: usize = 8_192;
/// What was done in PagerDuty so long ago does nothing here any more; longer than it tries to deliver.
pub const PAGERDUTY_OLD: Duration = Duration::from_secs(2 * 86_400);
/// Characters of an event's summary.
pub const PAGERDUTY_SUMMARY_CHARS: usize = 1_024;
/// Characters of a dedup key.
pub const PAGERDUTY_KEY_CHARS: usize = 255;
/// As Alertmanager counts; PagerDuty documents 512 KB.
pub const PAGERDUTY_BODY_BYTES: usize = 512_000;
/// Characters of a mail's subject.
pub const MAIL_SUBJECT_CHARS: usize = 150;
/// Timeout of an SMTP connection.
pub const SMTP_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of a receipt: it is a row of the store, so the value that a shape returns must stay small.
pub const RECEIPT_BYTES: usize = 16 * 1024;
