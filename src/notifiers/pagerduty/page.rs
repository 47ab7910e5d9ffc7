//! PagerDuty's view of an incident: summary, source, component and details.
//!
//! Invariant: the summary is the title with the reason why a user is needed, never the latest line of the timeline.

use crate::limits::{ASKS, DIGEST_ITEMS, PAGERDUTY_SUMMARY_CHARS, STORY_LINE_CHARS, STORY_LINES};
use crate::model::{AttentionKind, AttentionReason, IncidentDigest, IncidentNotice, PendingApproval, Severity, Time};
use crate::notifiers::{alert_words, clock_time, how_to_answer, plan_lines, text};
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Serialize)]
pub(super) struct PagerDutyPayload {
    summary: String,
    source: String,
    severity: Severity,
    timestamp: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    custom_details: Value,
}

pub(super) fn payload(notice: &IncidentNotice, install: &str) -> PagerDutyPayload {
    let incident = &notice.incident;
    let part = |name: &str| incident.subject.part(name).map(|value| text::plain(value, 200));
    let component = part("gpu").map(gpu).or_else(|| part("model")).or_else(|| part("workload"));
    PagerDutyPayload {
        summary: text::plain(&summary(notice), PAGERDUTY_SUMMARY_CHARS),
        source: part("node").or_else(|| part("cluster")).unwrap_or_else(|| text::plain(install, 200)),
        severity: incident.severity,
        timestamp: incident.opened_at,
        component,
        group: part("cluster"),
        custom_details: details(notice),
    }
}

/// One alert for many incidents.
pub(super) fn storm(digest: &IncidentDigest, install: &str) -> PagerDutyPayload {
    let shown: Vec<String> = digest
        .shown
        .iter()
        .take(DIGEST_ITEMS)
        .map(|item| text::plain(&format!("{}: {} {}", item.severity, item.title, item.line), STORY_LINE_CHARS))
        .collect();
    let asking = match digest.asking {
        0 => String::new(),
        1 => "; 1 needs an answer".to_owned(),
        many => format!("; {many} need an answer"),
    };
    let paged = digest.own.min(digest.total);
    let rest = match digest.over {
        true => "alert storm over",
        false => "further incidents are not paged one by one",
    };
    PagerDutyPayload {
        summary: format!(
            "{} incidents at once, worst: {}{asking} ({paged} of them paged separately; {rest})",
            digest.total, digest.worst
        ),
        source: text::plain(install, 200),
        severity: digest.worst,
        timestamp: digest.since,
        component: None,
        group: None,
        custom_details: json!({ "incidents": shown, "resolved": digest.resolved, "all": "nightshift incidents" }),
    }
}

/// `[needs approval] gpu-3: GPU 5 fell off the bus (XID 79) – approve: cordon gpu-3 and drain it (4 pods move)?`
fn summary(notice: &IncidentNotice) -> String {
    let title = &notice.incident.title;
    let Some(need) = notice.needs.first() else {
        return if notice.now.is_empty() { title.clone() } else { format!("{title} – {}", notice.now) };
    };
    let (mark, rest) = match need.kind {
        AttentionKind::Approval => {
            let brief = notice.asks.iter().find(|ask| ask.approval.to_string() == need.key).map(brief);
            ("needs approval", brief.unwrap_or_else(|| need.text.clone()))
        }
        AttentionKind::Stuck => ("stuck", need.text.clone()),
        AttentionKind::Failed => ("failed", need.text.clone()),
        AttentionKind::Stopped => ("needs hands", need.text.clone()),
        AttentionKind::Held => ("on hold", need.text.clone()),
    };
    format!("[{mark}] {title} – {rest}")
}

/// The request of the question, as short as it can be: `approve: cordon gpu-3 and drain it (4 pods move)?`, or the
/// question's own first sentence.
fn brief(ask: &PendingApproval) -> String {
    match ask.brief.as_str() {
        "" => ask.question.split_once("? ").map_or(ask.question.clone(), |(first, _)| format!("{first}?")),
        brief => format!("approve: {brief}?"),
    }
}

/// `5` is no name of a component; `GPU 5` is. A UUID stays as it is.
fn gpu(value: String) -> String {
    if value.bytes().all(|byte| byte.is_ascii_digit()) { format!("GPU {value}") } else { value }
}

fn details(notice: &IncidentNotice) -> Value {
    let incident = &notice.incident;
    let line = |line: &str| text::plain(line, STORY_LINE_CHARS);
    let story: Vec<String> =
        notice.headlines.iter().map(|of| line(&format!("{} {}", clock_time(of.at), of.text))).collect();
    let questions: Vec<String> = notice
        .asks
        .iter()
        .take(ASKS)
        .map(|ask| {
            let (command, deadline) = how_to_answer(ask);
            format!("{} [{command}] {deadline}", line(&ask.question))
        })
        .collect();
    let plan: Vec<String> =
        notice.asks.iter().take(ASKS).flat_map(plan_lines).map(|step| line(&step)).take(STORY_LINES).collect();
    let alerts: Vec<String> = alert_words(notice).iter().map(|said| line(said)).collect();
    let mut details = json!({
        "incident": incident.shown_id(),
        "subject": line(&incident.subject.words()),
        "alerts_firing": incident.firing,
        "story": story,
        "questions": questions,
    });
    if !notice.now.is_empty() {
        details["now"] = json!(line(&notice.now));
    }
    if let Some(frozen) = &notice.frozen {
        details["frozen"] = json!(line(frozen));
    }
    if !alerts.is_empty() {
        details["alerts"] = json!(alerts);
    }
    let needs: Vec<String> = notice.needs.iter().map(|AttentionReason { text, .. }| line(text)).collect();
    if !needs.is_empty() {
        details["needs_people"] = json!(needs);
    }
    if !plan.is_empty() {
        details["plan"] = json!(plan);
    }
    // Why a channel that waits for automation is notified now.
    if let Some(because) = &notice.because {
        details["why_told_now"] = json!(line(because));
    }
    details
}
