//! A mail about an incident or a storm: subject, text part, HTML part.
//!
//! Invariant: both parts say the same.

use super::html::{Html, link, tag, words};
use crate::limits::{MAIL_SUBJECT_CHARS, STORY_LINE_CHARS, STORY_LINES};
use crate::model::{Digest, Incident, IncidentState, Notice, StoryLine};
use crate::notifiers::{date_time, firing, how_to_answer, mark, standing, text};

pub struct Mail {
    pub subject: String,
    pub text: String,
    pub html: String,
}

const GREY: &str = "color:#666;margin:4px 0";
const MONO: &str = "font-family:monospace";
const BODY: &str = "font-family:sans-serif;font-size:15px;line-height:1.4";

/// Written once for both parts.
#[derive(Default)]
struct Draft {
    text: String,
    html: Vec<Html>,
}

impl Draft {
    fn title(&mut self, title: &str) {
        self.text.push_str(&text::plain(title, STORY_LINE_CHARS));
        self.text.push('\n');
        self.html.push(tag("h2", "margin:0", vec![words(title, STORY_LINE_CHARS)]));
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(&text::plain(line, STORY_LINE_CHARS));
        self.text.push('\n');
        self.html.push(tag("p", GREY, vec![words(line, STORY_LINE_CHARS)]));
    }

    fn list(&mut self, items: impl Iterator<Item = String>) {
        let items: Vec<String> = items.map(|item| text::plain(&item, STORY_LINE_CHARS)).collect();
        for item in &items {
            self.text.push_str(&format!("  {item}\n"));
        }
        let items = items.iter().map(|item| tag("li", "", vec![words(item, STORY_LINE_CHARS)])).collect();
        self.html.push(tag("ul", "padding-left:20px", items));
    }

    fn command(&mut self, command: &str, note: &str) {
        self.text.push_str(&format!("\n    {command}\n    ({note})\n"));
        self.html.push(tag("p", MONO, vec![words(command, 200)]));
        self.html.push(tag("p", GREY, vec![words(note, 200)]));
    }

    fn gap(&mut self) {
        self.text.push('\n');
    }

    fn mail(self, subject: &str) -> Mail {
        Mail {
            subject: text::plain(subject, MAIL_SUBJECT_CHARS),
            text: self.text,
            html: tag("body", BODY, self.html).page(),
        }
    }
}

/// What the subject of every mail of the incident is, so that mail programs keep them together.
pub fn subject(incident: &Incident) -> String {
    text::plain(&format!("[Nightshift {}] {}", incident.id, incident.title), MAIL_SUBJECT_CHARS)
}

pub fn incident(notice: &Notice) -> Mail {
    let incident = &notice.incident;
    let mut draft = Draft::default();
    draft.title(&format!("{} {}", mark(incident.state, incident.severity), incident.title));
    let mut facts = vec![standing(incident), incident.severity.to_string()];
    if incident.state != IncidentState::Resolved {
        facts.push(firing(incident.firing, incident.episodes));
    }
    facts.push(format!("since {}", date_time(incident.opened_at)));
    if let Some(closed) = incident.closed_at {
        facts.push(format!("until {}", date_time(closed)));
    }
    draft.line(&facts.join(" · "));
    draft.line(&incident.subject.to_string());
    if let Some(by) = &incident.acknowledged_by {
        draft.line(&format!("acknowledged by {by}"));
    }
    if let Some(budget) = &notice.budget {
        draft.line(budget);
    }
    if let Some(hands) = &notice.hands {
        draft.gap();
        draft.title(&format!("Needs hands: {hands}"));
    }
    for ask in &notice.asks {
        draft.gap();
        draft.title(&format!("Needs an answer: {}", ask.question));
        draft.list(ask.plan.iter().take(STORY_LINES).enumerate().map(|(at, call)| format!("{}. {call}", at + 1)));
        let (command, deadline) = how_to_answer(ask);
        draft.command(&command, &deadline);
    }
    draft.gap();
    draft.list(story(notice).into_iter().map(|line| format!("{}  {}", date_time(line.at), line.text)));
    draft.gap();
    draft.line(&format!("More: nightshift why {}", incident.id));
    if let Some(href) = notice.link.as_deref().and_then(text::link) {
        draft.text.push_str(&format!("{href}\n"));
        draft.html.push(tag("p", "", vec![link(href, "The incident in Nightshift")]));
    }
    draft.mail(&subject(incident))
}

pub fn digest(digest: &Digest, install: &str) -> Mail {
    let mut draft = Draft::default();
    draft.title(&format!("{} incidents at once, worst: {}", digest.total, digest.worst));
    let over = "The storm is over; new incidents are told one by one again.";
    let more = "More may follow; the next mail comes when it is over.";
    draft.line(&format!("Since {}. {}", date_time(digest.since), if digest.over { over } else { more }));
    draft.list(digest.shown.iter().map(|item| format!("{}: {} {}", item.severity, item.title, item.line)));
    let more = digest.total.saturating_sub(digest.own + digest.shown.len());
    if more > 0 {
        draft.line(&format!("… and {more} more"));
    }
    draft.command("nightshift incidents", "lists all of them");
    draft.mail(&format!("[Nightshift {install}] storm since {}", date_time(digest.since)))
}

/// Headlines and fresh lines together, each once, in order.
fn story(notice: &Notice) -> Vec<&StoryLine> {
    let mut lines: Vec<&StoryLine> = notice.headlines.iter().chain(&notice.fresh).collect();
    lines.sort_by_key(|line| line.no);
    lines.dedup_by_key(|line| line.no);
    lines.split_off(lines.len().saturating_sub(STORY_LINES))
}
