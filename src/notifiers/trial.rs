//! A test message through one channel: marked as a test, with a dedup key of its own, ended where it would page.
//!
//! Invariant: it goes the way of a real message, and leaves nothing open on the other side.

use super::{Notifier, one_line};
use crate::model::{
    DeliveryReceipt, DeliveryResult, EntryNo, Incident, IncidentId, IncidentNotice, IncidentState, Severity, Subject,
    Time, TimelineEntry,
};
use crate::telemetry::ChannelKind;
use serde::Serialize;

/// A channel's answer to a test message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TestMessageResult {
    pub delivered: bool,
    /// The channel's answer, or why it took nothing.
    pub answer: String,
}

/// Sends a test message; where the channel opens something by it (an alert, a message with a state), ends that too.
pub async fn test(notifier: &dyn Notifier, install: &str, by: &str, now: Time) -> TestMessageResult {
    let opened = notice(IncidentState::Open, install, by, now);
    let receipt = match notifier.deliver(&opened, None).await {
        DeliveryResult::Delivered(receipt) => receipt,
        DeliveryResult::Nothing(_) => {
            let answer = "this channel cannot be tested: it carries change events only".to_owned();
            return TestMessageResult { delivered: false, answer };
        }
        DeliveryResult::Retry { why, .. } | DeliveryResult::Refused { why } => {
            return TestMessageResult { delivered: false, answer: one_line(&why, crate::limits::STORY_LINE_CHARS) };
        }
    };
    // A mail or a plain post is not edited: a second one would only be a second message.
    if !matches!(notifier.kind(), ChannelKind::PagerDuty | ChannelKind::Webhook | ChannelKind::Slack) {
        return taken(&receipt, "");
    }
    match notifier.deliver(&notice(IncidentState::Resolved, install, by, now), Some(&receipt)).await {
        DeliveryResult::Delivered(_) | DeliveryResult::Nothing(_) => taken(&receipt, ", and resolved"),
        DeliveryResult::Retry { why, .. } | DeliveryResult::Refused { why } => TestMessageResult {
            delivered: false,
            answer: one_line(
                &format!("opened, but not resolved: {why}; resolve the test alert there"),
                crate::limits::STORY_LINE_CHARS,
            ),
        },
    }
}

fn taken(receipt: &DeliveryReceipt, then: &str) -> TestMessageResult {
    let answer = format!("taken{then}: {}", receipt.0);
    TestMessageResult { delivered: true, answer: one_line(&answer, crate::limits::STORY_LINE_CHARS) }
}

fn notice(state: IncidentState, install: &str, by: &str, now: Time) -> IncidentNotice {
    let over = state == IncidentState::Resolved;
    let text = match over {
        false => format!("test message, sent by {by} with `nightshift channels test`; no action is needed"),
        true => "the test is over".to_owned(),
    };
    let line =
        TimelineEntry { no: EntryNo(i64::from(over)), at: now, text: text.clone(), headline: true, change: !over };
    IncidentNotice {
        incident: Incident {
            id: IncidentId(0),
            key: "test".to_owned(),
            title: format!("TEST from Nightshift ({install}): this channel works"),
            subject: Subject::default(),
            severity: Severity::Info,
            state,
            opened_at: now,
            closed_at: over.then_some(now),
            acknowledged_by: None,
            owner: None,
            resolves_at: None,
            firing: u32::from(!over),
            episodes: 1,
            incarnation: String::new(),
        },
        fresh: vec![line.clone()],
        headlines: vec![line],
        asks: Vec::new(),
        suggestions: Vec::new(),
        dedup_key: format!("nightshift/{install}/test/{}", now.as_microsecond()),
        link: None,
        because: None,
        now: text,
        alerts: Vec::new(),
        alerts_left_out: 0,
        links: Vec::new(),
        frozen: None,
        budget: None,
        hands: None,
        needs: Vec::new(),
        needs_people: false,
        maybe_repeat: false,
    }
}
