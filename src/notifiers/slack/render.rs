//! What an incident looks like in Slack: the one message that changes, the lines of its thread, a digest.
//!
//! Invariant: every text that came from outside passes `Text::outside` or `text::slack`.

use super::blocks::{Button, Confirm, Message, Text};
use super::seal::Seal;
use crate::limits::{ASKS, SLACK_BUTTON_LIFE, SLACK_SECTION_CHARS, SLACK_TOTAL_CHARS, STORY_LINE_CHARS};
use crate::model::{Ask, Digest, Incident, IncidentState, Notice, StoryLine, Suggestion};
use crate::notifiers::{clock_time, date_time, firing, how_to_answer, mark, standing, text};

/// The message that is posted once and edited from then on.
pub fn incident(notice: &Notice, seal: Option<&Seal>) -> Message {
    let mut message = brief(notice);
    for ask in notice.asks.iter().take(ASKS) {
        ask_blocks(&mut message, ask, seal);
    }
    if notice.asks.len() > ASKS {
        message
            .section(Text::ours(format!("… and {} more questions: `nightshift incidents`", notice.asks.len() - ASKS)));
    }
    let left_out = message.story(&lines(&notice.headlines), SLACK_TOTAL_CHARS / 2);
    if let Some(seal) = seal {
        for suggestion in &notice.suggestions {
            judge_blocks(&mut message, suggestion, seal);
        }
        message.buttons(hands(notice, seal));
    }
    ending(&mut message, notice, left_out);
    message
}

/// The same in few words, for when Slack finds the other one too long.
pub fn compact(notice: &Notice) -> Message {
    let mut message = brief(notice);
    for ask in notice.asks.iter().take(1) {
        message.section(Text::outside(&ask.question, 300));
        message.section(answer_line(ask));
    }
    ending(&mut message, notice, notice.headlines.len());
    message
}

/// Lines that the channel has not seen, for the thread. None: nothing that the message does not show already.
pub fn thread(notice: &Notice, first_post: FirstPost) -> Option<Message> {
    let shown =
        |line: &StoryLine| first_post == FirstPost::Yes && notice.headlines.iter().any(|head| head.no == line.no);
    let fresh: Vec<StoryLine> = notice.fresh.iter().filter(|line| !shown(line)).cloned().collect();
    let last = fresh.last()?;
    let mut message = Message::new(&format!("{} {}", clock_time(last.at), last.text));
    let left_out = message.story(&lines(&fresh), usize::MAX);
    if left_out > 0 {
        message.tail(&format!("{left_out} earlier lines: `nightshift why {}`", notice.incident.id));
    }
    Some(message)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstPost {
    Yes,
    No,
}

pub fn digest(digest: &Digest) -> Message {
    let since = date_time(digest.since);
    let told = format!("{} incidents since {since}, worst: {}", digest.total, digest.worst);
    let mut message = Message::new(&told);
    message.header(&format!("{} {} incidents at once", mark(IncidentState::Open, digest.worst), digest.total));
    let resolved = match digest.resolved {
        0 => String::new(),
        resolved => format!(" {resolved} of them are over already."),
    };
    let now = if digest.over {
        "The storm is over; new incidents are told one by one again."
    } else {
        "More may follow; this message is edited."
    };
    message.section(Text::ours(format!("Since {since}, worst: *{}*.{resolved} {now}", digest.worst)));
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

/// The posts of an incoming webhook, which cannot edit: what is new, below what it is about.
pub fn simple(notice: &Notice) -> Message {
    let mut message = brief(notice);
    for ask in notice.asks.iter().take(ASKS) {
        ask_blocks(&mut message, ask, None);
    }
    let fresh: Vec<StoryLine> = notice.fresh.iter().filter(|line| line.headline).cloned().collect();
    let left_out = message.story(&lines(&fresh), SLACK_TOTAL_CHARS / 2);
    ending(&mut message, notice, left_out);
    message
}

fn brief(notice: &Notice) -> Message {
    let incident = &notice.incident;
    let asks = match (notice.asks.is_empty(), &notice.hands) {
        (false, _) => "needs an answer · ",
        (true, Some(_)) => "needs hands · ",
        (true, None) => "",
    };
    let title = format!("{} {asks}{}", mark(incident.state, incident.severity), incident.title);
    let latest = notice.headlines.last().map(|line| format!(" — {}", line.text)).unwrap_or_default();
    let mut message = Message::new(&format!("{}{latest}", text::plain(&title, SLACK_SECTION_CHARS)));
    message.header(&title);
    message.context(vec![
        Text::ours(state_line(incident)),
        Text::outside(&incident.subject.to_string(), STORY_LINE_CHARS),
        by(incident),
    ]);
    if let Some(budget) = &notice.budget {
        message.context(vec![Text::outside(budget, STORY_LINE_CHARS)]);
    }
    if let Some(hands) = notice.hands.as_ref().filter(|_| notice.asks.is_empty()) {
        message.section(Text::outside(&format!("✋ {hands}"), 600));
    }
    if notice.maybe_repeat {
        message.context(vec![Text::ours("_Nightshift was interrupted while it sent this; you may see it twice._")]);
    }
    message
}

fn state_line(incident: &Incident) -> String {
    let mut parts = vec![format!("*{}*", standing(incident)), incident.severity.to_string()];
    match incident.closed_at {
        Some(closed) => parts.push(format!("{} – {}", date_time(incident.opened_at), clock_time(closed))),
        None => {
            parts.push(firing(incident.firing, incident.episodes));
            parts.push(format!("since {}", date_time(incident.opened_at)));
        }
    }
    parts.join(" · ")
}

fn by(incident: &Incident) -> Text {
    let by = incident.acknowledged_by.as_ref().map(|by| format!(" · acknowledged by {by}")).unwrap_or_default();
    let owner = incident.owner.as_ref().map(|owner| format!(" · owner {owner}")).unwrap_or_default();
    Text::outside(&format!("{}{by}{owner}", incident.id), 200)
}

pub(super) fn ask_blocks(message: &mut Message, ask: &Ask, seal: Option<&Seal>) {
    message.section(Text::outside(&format!("❓ {}", ask.question), 600));
    let plan: Vec<String> =
        ask.plan.iter().enumerate().map(|(at, call)| text::slack(&format!("{}. {call}", at + 1), 200)).collect();
    let unfit = message.story(&plan, 1_500);
    if unfit > 0 {
        message.section(Text::ours(format!(
            "… {unfit} earlier steps of the plan are not shown: `nightshift why {}`",
            ask.approval
        )));
    }
    message.section(answer_line(ask));
    if let Some(seal) = seal {
        message.buttons(answers(ask, seal));
    }
}

/// What a person may do about an incident that goes on.
fn hands(notice: &Notice, seal: &Seal) -> Vec<Button> {
    let incident = &notice.incident;
    let latest = notice.headlines.last().map_or(incident.opened_at, |line| line.at);
    let id = incident.id.to_string();
    let button = |action, words| Button::new(action, words, seal.close(action, &id, "", latest + SLACK_BUTTON_LIFE));
    let freeze = || Button { style: Some("danger"), ..button("freeze", "Freeze …") };
    match incident.state {
        IncidentState::Open => vec![button("ack", "Acknowledge"), button("silence", "Silence …"), freeze()],
        IncidentState::Acknowledged => vec![button("silence", "Silence …"), freeze()],
        IncidentState::Resolved => Vec::new(),
    }
}

/// One press says whether that would have been right; the first one counts.
fn judge_blocks(message: &mut Message, suggestion: &Suggestion, seal: &Seal) {
    let run = suggestion.run.to_string();
    message.section(Text::outside(&format!("{run} {}: would that have been right?", suggestion.runbook), 300));
    let until = suggestion.created_at + SLACK_BUTTON_LIFE;
    let button = |action, words| Button::new(action, words, seal.close(action, &run, "", until));
    message.buttons(vec![button("right", "Right"), button("wrong", "Wrong")]);
}

/// Yes and no, each for the plan that is shown here.
fn answers(ask: &Ask, seal: &Seal) -> Vec<Button> {
    // The question knows itself when it is over, and says who answered; the seal only ends after it.
    let until = ask.expires_at + SLACK_BUTTON_LIFE;
    let button = |action, words| {
        Button::new(action, words, seal.close(action, &ask.approval.to_string(), &ask.plan_hash, until))
    };
    let plain = |words: &str| Text::outside(words, 100);
    let confirm = Confirm {
        title: plain("Approve this plan?"),
        text: Text::outside(&ask.question, 290),
        confirm: plain("Approve"),
        deny: plain("Not now"),
    };
    let yes = Button { style: Some("primary"), confirm: Some(confirm), ..button("approve", "Approve") };
    let no = Button { style: Some("danger"), ..button("deny", "Deny") };
    vec![yes, no]
}

fn answer_line(ask: &Ask) -> Text {
    let (command, deadline) = how_to_answer(ask);
    Text::ours(format!("`{command}`  {deadline}"))
}

fn ending(message: &mut Message, notice: &Notice, left_out: usize) {
    let id = notice.incident.id;
    let earlier = if left_out > 0 { format!("{left_out} earlier lines · ") } else { String::new() };
    let more = match notice.link.as_deref().and_then(text::link).filter(|link| link.len() < 120) {
        Some(link) => format!("{earlier}<{link}|look closer>"),
        None => format!("{earlier}`nightshift why {id}`"),
    };
    message.tail(&more);
}

fn lines(story: &[StoryLine]) -> Vec<String> {
    story.iter().map(|line| text::slack(&format!("{}  {}", clock_time(line.at), line.text), STORY_LINE_CHARS)).collect()
}
