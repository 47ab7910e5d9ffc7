//! A mail about an incident or a storm: subject, text part, HTML part.
//!
//! Invariant: both parts have the same content.

use crate::limits::{MAIL_SUBJECT_CHARS, STORY_LINE_CHARS, STORY_LINES};
use crate::model::{IncidentDigest, IncidentNotice, IncidentState, TimelineEntry};
use crate::notifiers::{alert_words, date_time, firing, how_to_answer, mark, plan_lines, standing, suggested, text};
use maud::{Markup, PreEscaped, html};

/// A mail: its subject, and its body as plain text and as HTML.
pub struct EmailContent {
    pub subject: String,
    pub text: String,
    pub html: String,
}

const GREY: &str = "color:#666;margin:4px 0";
const MONO: &str = "font-family:monospace";
const BODY: &str = "font-family:sans-serif;font-size:15px;line-height:1.4";

/// Written once for both parts.
#[derive(Default)]
struct EmailDraft {
    text: String,
    html: String,
}

impl EmailDraft {
    fn add(&mut self, node: Markup) {
        self.html.push_str(&node.into_string());
    }

    fn title(&mut self, title: &str) {
        self.text.push_str(&text::plain(title, STORY_LINE_CHARS));
        self.text.push('\n');
        self.add(html! { h2 style="margin:0" { (text::plain(title, STORY_LINE_CHARS)) } });
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(&text::plain(line, STORY_LINE_CHARS));
        self.text.push('\n');
        self.add(html! { p style=(GREY) { (text::plain(line, STORY_LINE_CHARS)) } });
    }

    /// The sentence that counts.
    fn strong(&mut self, line: &str) {
        self.text.push_str(&text::plain(line, 2 * STORY_LINE_CHARS));
        self.text.push('\n');
        self.add(html! { p style="margin:4px 0" { strong { (text::plain(line, 2 * STORY_LINE_CHARS)) } } });
    }

    /// Lines as they stand, with their indent.
    fn paragraphs(&mut self, lines: &[String]) {
        for line in lines {
            let line = text::plain(line, 2 * STORY_LINE_CHARS);
            self.text.push_str(&line);
            self.text.push('\n');
            let indent = if line.starts_with("    ") { "margin:2px 0 2px 32px" } else { "margin:4px 0" };
            self.add(html! { p style=(indent) { (line.trim()) } });
        }
    }

    /// An address that was checked, with our words.
    fn link(&mut self, href: &str, label: &str) {
        self.text.push_str(&format!("{label}: {href}\n"));
        self.add(html! { p style="margin:4px 0" { a href=(href) { (text::plain(label, 200)) } } });
    }

    fn list(&mut self, items: impl Iterator<Item = String>) {
        let items: Vec<String> = items.map(|item| text::plain(&item, STORY_LINE_CHARS)).collect();
        for item in &items {
            self.text.push_str(&format!("  {item}\n"));
        }
        self.add(html! { ul style="padding-left:20px" { @for item in &items { li { (item) } } } });
    }

    fn command(&mut self, command: &str, note: &str) {
        self.text.push_str(&format!("\n    {command}\n    ({note})\n"));
        self.add(html! { p style=(MONO) { (text::plain(command, 200)) } });
        self.add(html! { p style=(GREY) { (text::plain(note, 200)) } });
    }

    fn gap(&mut self) {
        self.text.push('\n');
    }

    fn mail(self, subject: &str) -> EmailContent {
        let page = html! {
            (PreEscaped("<!doctype html>"))
            html { head { meta charset="utf-8"; } body style=(BODY) { (PreEscaped(self.html)) } }
        };
        EmailContent { subject: text::plain(subject, MAIL_SUBJECT_CHARS), text: self.text, html: page.into_string() }
    }
}

/// `[Nightshift i3] Needs an answer: gpu-3: GPU 5 fell off the bus (XID 79)`. Mail programs keep an incident's mails
/// together by `References`.
pub fn subject(notice: &IncidentNotice) -> String {
    let incident = &notice.incident;
    let word = match (incident.state, notice.asks.is_empty(), &notice.hands) {
        (IncidentState::Resolved, ..) => "Resolved: ",
        (_, false, _) => "Needs an answer: ",
        (_, true, Some(_)) => "Over to you: ",
        (_, true, None) => "",
    };
    text::plain(&format!("[Nightshift {}] {word}{}", incident.shown_id(), incident.title), MAIL_SUBJECT_CHARS)
}

/// The mail of an incident in its present state.
pub fn incident(notice: &IncidentNotice) -> EmailContent {
    let incident = &notice.incident;
    let mut draft = EmailDraft::default();
    draft.title(&format!("{} {}", mark(incident.state, incident.severity), incident.title));
    if !notice.now.is_empty() {
        draft.strong(&notice.now);
    }
    if let Some(frozen) = &notice.frozen {
        draft.strong(frozen);
    }
    draft.line(&facts(notice));
    if let Some(by) = &incident.acknowledged_by {
        draft.line(&format!("Acknowledged by {by}"));
    }
    if let Some(budget) = &notice.budget {
        draft.line(budget);
    }
    let alerts = alert_words(notice);
    if !alerts.is_empty() {
        draft.gap();
        draft.paragraphs(&alerts);
    }
    for found in &notice.links {
        if let Some(href) = text::link(&found.url) {
            draft.link(href, &found.label);
        }
    }
    for ask in &notice.asks {
        draft.gap();
        draft.title(&format!("Needs an answer: {}", ask.question));
        draft.paragraphs(&plan_lines(ask).into_iter().take(STORY_LINES).collect::<Vec<_>>());
        let (commands, deadline) = how_to_answer(ask);
        draft.command(&commands, &deadline);
    }
    for suggestion in &notice.suggestions {
        let said = suggested(suggestion);
        if !notice.now.contains(&said) {
            draft.gap();
            draft.line(&format!("{} ({}): {said}", suggestion.runbook, suggestion.run));
        }
        if suggestion.review {
            let run = suggestion.run;
            draft.command(
                &format!("nightshift judge {run} right  or  nightshift judge {run} wrong"),
                "would it have been right?",
            );
        }
    }
    let story = story(notice);
    if !story.is_empty() {
        draft.gap();
        draft.list(story.into_iter().map(|line| format!("{}  {}", date_time(line.at), line.text)));
    }
    draft.gap();
    if !incident.is_test() {
        draft.line(&format!("Details: nightshift show {}", incident.id));
    }
    if let Some(href) = notice.link.as_deref().and_then(text::link) {
        draft.link(href, "Open incident");
    }
    draft.mail(&subject(notice))
}

/// `open · critical · 1 alert firing · since 23 Nov 03:00 UTC · gpu-3, GPU 5`.
fn facts(notice: &IncidentNotice) -> String {
    let incident = &notice.incident;
    let mut facts = vec![standing(incident), incident.severity.to_string()];
    if incident.state != IncidentState::Resolved {
        facts.push(firing(incident.firing, incident.episodes));
    }
    facts.push(format!("since {}", date_time(incident.opened_at)));
    if let Some(closed) = incident.closed_at {
        facts.push(format!("until {}", date_time(closed)));
    }
    facts.push(incident.subject.words());
    facts.join(" · ")
}

/// The mail of a digest, at its beginning and at its end.
pub fn digest(digest: &IncidentDigest, install: &str) -> EmailContent {
    let mut draft = EmailDraft::default();
    draft.title(&format!("{} incidents at once, worst: {}", digest.total, digest.worst));
    let over = "The storm is over; each new incident gets its own mail again.";
    let more = "More may follow; the next mail is sent when the storm is over.";
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
fn story(notice: &IncidentNotice) -> Vec<&TimelineEntry> {
    let mut lines: Vec<&TimelineEntry> = notice.headlines.iter().chain(&notice.fresh).collect();
    lines.sort_by_key(|line| line.no);
    lines.dedup_by_key(|line| line.no);
    lines.split_off(lines.len().saturating_sub(STORY_LINES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stays_text_in_every_place() {
        let hostile = "</p><script>alert(1)</script>\" onclick='x'";
        let mut draft = EmailDraft::default();
        draft.title(hostile);
        draft.line(hostile);
        draft.strong(hostile);
        draft.paragraphs(&[hostile.to_owned()]);
        draft.link(hostile, hostile);
        draft.list([hostile.to_owned()].into_iter());
        draft.command(hostile, hostile);
        let page = draft.mail(hostile).html;
        assert!(!page.contains("<script") && !page.contains("\" onclick") && !page.contains("' onclick"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;").count(), 9);
    }
}
