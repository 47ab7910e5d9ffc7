//! An incident in Slack: the one message that changes, the lines of its thread, a digest.
//!
//! Invariant: every text that came from outside passes `Text::outside` or `text::slack`.

use super::blocks::{ConfirmDialog, SlackButton, SlackMessage, SlackText};
use super::seal::ButtonSeal;
use crate::limits::{ASKS, SLACK_BUTTON_LIFE, SLACK_SECTION_CHARS, SLACK_TOTAL_CHARS, STORY_LINE_CHARS};
use crate::model::{
    Incident, IncidentDigest, IncidentNotice, IncidentState, PendingApproval, PlanSuggestion, Time, TimelineEntry,
};
use crate::notifiers::text::{self, SlackTime};
use crate::notifiers::{alert_words, answerers, date_time, firing, mark, plan_lines, standing, suggested};

/// The message that is posted once and edited from then on.
pub fn incident(notice: &IncidentNotice, seal: Option<&ButtonSeal>) -> SlackMessage {
    let mut message = brief(notice);
    for ask in notice.asks.iter().take(ASKS) {
        ask_blocks(&mut message, ask, seal);
    }
    if notice.asks.len() > ASKS {
        message.section(SlackText::ours(format!(
            "… and {} more questions: `nightshift incidents`",
            notice.asks.len() - ASKS
        )));
    }
    for suggestion in &notice.suggestions {
        suggestion_blocks(&mut message, suggestion, notice, seal);
    }
    let left_out = message.timeline(&lines(&notice.headlines), SLACK_TOTAL_CHARS / 2);
    if let Some(seal) = seal {
        message.buttons(hands(notice, seal));
    }
    ending(&mut message, notice, left_out);
    message
}

/// The same in few words, for when Slack finds the other one too long.
pub fn compact(notice: &IncidentNotice) -> SlackMessage {
    let mut message = brief(notice);
    for ask in notice.asks.iter().take(1) {
        message.section(SlackText::outside(&ask.question, 300));
        message.section(answer_line(ask));
        message.context(vec![SlackText::outside(&answerers(ask), STORY_LINE_CHARS)]);
    }
    ending(&mut message, notice, notice.headlines.len());
    message
}

/// Lines that the channel has not seen, for the thread. None: nothing that the message does not show already.
pub fn thread(notice: &IncidentNotice, first_post: FirstPost) -> Option<SlackMessage> {
    let shown =
        |line: &TimelineEntry| first_post == FirstPost::Yes && notice.headlines.iter().any(|head| head.no == line.no);
    let fresh: Vec<TimelineEntry> = notice.fresh.iter().filter(|line| !shown(line)).cloned().collect();
    let last = fresh.last()?;
    let mut message = SlackMessage::new(&last.text);
    let left_out = message.timeline(&lines(&fresh), usize::MAX);
    if left_out > 0 {
        message.tail(&format!("{left_out} earlier lines: `nightshift why {}`", notice.incident.id));
    }
    Some(message)
}

/// Whether a message is the first one of its incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstPost {
    Yes,
    No,
}

/// The message of a digest.
pub fn digest(digest: &IncidentDigest) -> SlackMessage {
    let since = date_time(digest.since);
    let told = format!("{} incidents since {since}, worst: {}", digest.total, digest.worst);
    let mut message = SlackMessage::new(&told);
    message.header(&format!("{} {} incidents at once", mark(IncidentState::Open, digest.worst), digest.total));
    let resolved = match digest.resolved {
        0 => String::new(),
        resolved => format!(" {resolved} of them are resolved already."),
    };
    let now = if digest.over {
        "The storm is over; each new incident gets its own message again."
    } else {
        "More may follow; this message is edited."
    };
    let since = text::slack_time(digest.since, SlackTime::Day);
    message.section(SlackText::ours(format!("Since {since}, worst: *{}*.{resolved} {now}", digest.worst)));
    let shown: Vec<String> = digest
        .shown
        .iter()
        .map(|item| {
            let line = if item.line.is_empty() { String::new() } else { format!(" — {}", item.line) };
            text::slack(&format!("{} {}{line}", mark(IncidentState::Open, item.severity), item.title), STORY_LINE_CHARS)
        })
        .collect();
    let unfit = message.story(&shown, SLACK_TOTAL_CHARS / 2);
    let more = digest.total.saturating_sub(digest.own + digest.resolved + shown.len() - unfit);
    message.tail(&format!(
        "{}All of them: `nightshift incidents`",
        if more > 0 { format!("… and {more} more. ") } else { String::new() }
    ));
    message
}

/// The posts of an incoming webhook, which cannot edit: the news, below the incident's title.
pub fn simple(notice: &IncidentNotice) -> SlackMessage {
    let mut message = brief(notice);
    for ask in notice.asks.iter().take(ASKS) {
        ask_blocks(&mut message, ask, None);
    }
    let fresh: Vec<TimelineEntry> = notice.fresh.iter().filter(|line| line.headline).cloned().collect();
    for suggestion in &notice.suggestions {
        suggestion_blocks(&mut message, suggestion, notice, None);
    }
    let left_out = message.timeline(&lines(&fresh), SLACK_TOTAL_CHARS / 2);
    ending(&mut message, notice, left_out);
    message
}

fn brief(notice: &IncidentNotice) -> SlackMessage {
    let incident = &notice.incident;
    let asks = match (notice.asks.is_empty(), &notice.hands) {
        (false, _) => "Needs an answer · ",
        (true, Some(_)) => "Over to you · ",
        (true, None) => "",
    };
    let title = format!("{} {asks}{}", mark(incident.state, incident.severity), incident.title);
    let now = if notice.now.is_empty() { String::new() } else { format!(" — {}", notice.now) };
    let mut message = SlackMessage::new(&format!("{}{now}", text::plain(&title, SLACK_SECTION_CHARS)));
    message.header(&title);
    message.section(SlackText::outside(&notice.now, 2 * STORY_LINE_CHARS));
    if let Some(frozen) = &notice.frozen {
        message.section(SlackText::outside(&format!("❄️ {frozen}"), STORY_LINE_CHARS));
    }
    message.context(vec![
        SlackText::ours(state_line(incident)),
        SlackText::outside(&incident.subject.words(), STORY_LINE_CHARS),
        by(incident),
    ]);
    if let Some(budget) = &notice.budget {
        message.context(vec![SlackText::outside(budget, STORY_LINE_CHARS)]);
    }
    alert_blocks(&mut message, notice);
    if notice.maybe_repeat {
        message
            .context(vec![SlackText::ours("_Nightshift was interrupted while it sent this; you may see it twice._")]);
    }
    message
}

/// The alerts' text beyond the title, and their links.
fn alert_blocks(message: &mut SlackMessage, notice: &IncidentNotice) {
    let words: Vec<String> = alert_words(notice).iter().map(|line| text::slack(line, 2 * STORY_LINE_CHARS)).collect();
    message.story(&words, SLACK_SECTION_CHARS);
    let mut row = String::new();
    for link in notice.links.iter().filter_map(|link| text::slack_link(&link.url, &plain_label(&link.label))) {
        if row.len() + link.len() < SLACK_SECTION_CHARS {
            row.push_str(if row.is_empty() { "" } else { " · " });
            row.push_str(&link);
        }
    }
    message.section(SlackText::ours(row));
}

/// The words of a link are ours; whatever they are, they cannot end it.
fn plain_label(label: &str) -> String {
    label.chars().filter(|c| c.is_alphanumeric() || *c == ' ').take(40).collect()
}

fn state_line(incident: &Incident) -> String {
    let mut parts = vec![format!("*{}*", standing(incident)), incident.severity.to_string()];
    let opened = text::slack_time(incident.opened_at, SlackTime::Day);
    match incident.closed_at {
        Some(closed) => parts.push(format!("{opened} – {}", text::slack_time(closed, SlackTime::Clock))),
        None => {
            parts.push(firing(incident.firing, incident.episodes));
            parts.push(format!("since {opened}"));
        }
    }
    parts.join(" · ")
}

fn by(incident: &Incident) -> SlackText {
    let by = incident.acknowledged_by.as_ref().map(|by| format!(" · acknowledged by {by}")).unwrap_or_default();
    let owner = incident.owner.as_ref().map(|owner| format!(" · owner {owner}")).unwrap_or_default();
    SlackText::outside(&format!("{}{by}{owner}", incident.shown_id()), 200)
}

pub(super) fn ask_blocks(message: &mut SlackMessage, ask: &PendingApproval, seal: Option<&ButtonSeal>) {
    message.section(SlackText::outside(&format!("❓ {}", ask.question), 600));
    let plan: Vec<String> = plan_lines(ask).iter().map(|line| text::slack(line, STORY_LINE_CHARS)).collect();
    let unfit = message.story(&plan, 2_000);
    if unfit > 0 {
        message.section(SlackText::ours(format!(
            "… {unfit} earlier lines of the plan are not shown: `nightshift show {}`",
            ask.approval
        )));
    }
    message.section(answer_line(ask));
    message.context(vec![SlackText::outside(&answerers(ask), STORY_LINE_CHARS)]);
    if let Some(seal) = seal {
        message.buttons(answers(ask, seal));
    }
}

/// The buttons of an incident that goes on.
fn hands(notice: &IncidentNotice, seal: &ButtonSeal) -> Vec<SlackButton> {
    let incident = &notice.incident;
    if incident.is_test() {
        return Vec::new();
    }
    let latest = notice.headlines.last().map_or(incident.opened_at, |line| line.at);
    let id = incident.id.to_string();
    let button =
        |action, words| SlackButton::new(action, words, seal.close(action, &id, "", latest + SLACK_BUTTON_LIFE));
    let freeze = || SlackButton { style: Some("danger"), ..button("freeze", "Freeze …") };
    match incident.state {
        IncidentState::Open => vec![button("ack", "Acknowledge"), button("silence", "Silence …"), freeze()],
        IncidentState::Acknowledged => vec![button("silence", "Silence …"), freeze()],
        IncidentState::Resolved => Vec::new(),
    }
}

/// A plan that was only shown; one press reviews it as right or wrong, the first one counts.
fn suggestion_blocks(
    message: &mut SlackMessage,
    suggestion: &PlanSuggestion,
    notice: &IncidentNotice,
    seal: Option<&ButtonSeal>,
) {
    let run = suggestion.run.to_string();
    let said = suggested(suggestion);
    if !notice.now.contains(&said) {
        message.section(SlackText::outside(&format!("{} ({run}): {said}", suggestion.runbook), 600));
    }
    if !suggestion.review {
        return;
    }
    let Some(seal) = seal else {
        message.section(SlackText::ours(format!(
            "Right or wrong? `nightshift judge {run} right` or `nightshift judge {run} wrong`"
        )));
        return;
    };
    message.section(SlackText::outside(&format!("{} ({run}): would that have been right?", suggestion.runbook), 300));
    let until = suggestion.created_at + SLACK_BUTTON_LIFE;
    let button = |action, words| SlackButton::new(action, words, seal.close(action, &run, "", until));
    message.buttons(vec![button("right", "Right"), button("wrong", "Wrong")]);
}

/// Yes and no, each for the plan that is shown here.
fn answers(ask: &PendingApproval, seal: &ButtonSeal) -> Vec<SlackButton> {
    // The engine decides when the question is over, and names the approver; the seal only ends after it.
    let until = ask.expires_at + SLACK_BUTTON_LIFE;
    let button = |action, words| {
        SlackButton::new(action, words, seal.close(action, &ask.approval.to_string(), &ask.plan_hash, until))
    };
    let plain = |words: &str| SlackText::outside(words, 100);
    let confirm = ConfirmDialog {
        title: plain("Approve this plan?"),
        text: SlackText::outside(&ask.question, 290),
        confirm: plain("Approve"),
        deny: plain("Not now"),
    };
    let yes = SlackButton { style: Some("primary"), confirm: Some(confirm), ..button("approve", "Approve") };
    let no = SlackButton { style: Some("danger"), ..button("deny", "Deny") };
    vec![yes, no]
}

fn answer_line(ask: &PendingApproval) -> SlackText {
    let style =
        if ask.expires_at.as_second() - ask.asked_at.as_second() < 86_400 { SlackTime::Clock } else { SlackTime::Day };
    let expires = text::slack_time(ask.expires_at, style);
    SlackText::ours(format!(
        "`nightshift approve {0}` or `nightshift deny {0}`  ·  expires {expires}; without an answer it counts as denied",
        ask.approval
    ))
}

fn ending(message: &mut SlackMessage, notice: &IncidentNotice, left_out: usize) {
    if notice.incident.is_test() {
        return;
    }
    let id = notice.incident.id;
    let earlier = if left_out > 0 { format!("{left_out} earlier lines · ") } else { String::new() };
    let link = notice.link.as_deref().filter(|link| link.len() < 120);
    let more = match link.and_then(|link| text::slack_link(link, "Open incident")) {
        Some(link) => format!("{earlier}{link}"),
        None => format!("{earlier}`nightshift show {id}`"),
    };
    message.tail(&more);
}

fn lines(story: &[TimelineEntry]) -> Vec<(Time, String)> {
    story.iter().map(|line| (line.at, text::slack(&line.text, STORY_LINE_CHARS))).collect()
}
