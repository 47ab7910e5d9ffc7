//! A user's page of the app: pending requests, open incidents, the state of the guards.
//!
//! Invariant: it consists of the message's own blocks, so a label's content is text here, too.

use super::blocks::{SlackButton, SlackMessage, SlackText};
use super::render::ask_blocks;
use super::seal::ButtonSeal;
use super::view::HomeView;
use crate::limits::{SLACK_BUTTON_LIFE, SLACK_HOME_ROWS, STORY_LINE_CHARS};
use crate::model::{Incident, PendingApproval, Time};
use crate::notifiers::mark;
use crate::notifiers::text::{self, SlackTime};

/// The content of the page.
#[derive(Debug, Clone)]
pub struct HomeContent {
    pub install: String,
    pub person: String,
    pub role: String,
    /// The last act from this page.
    pub note: String,
    /// Questions that this user may answer, and how many more there are for others.
    pub asks: Vec<PendingApproval>,
    pub others: usize,
    pub incidents: Vec<Incident>,
    pub open: u64,
    /// How the guards stand, a line each.
    pub guards: Vec<String>,
    /// Freezes and switches that stop automation now, a line each: it stands at the top.
    pub frozen: Vec<String>,
    pub at: Time,
    pub link: Option<String>,
}

/// The page as Slack publishes it; `seal` seals its buttons.
pub fn page(page: &HomeContent, seal: &ButtonSeal) -> HomeView {
    let mut message = SlackMessage::new("Nightshift");
    message.header(&format!("Nightshift · {}", page.install));
    message
        .says(&page.frozen.iter().map(|line| format!(":rotating_light: {line}")).collect::<Vec<_>>().join("\n"), 1_000);
    message.says(&page.note, 1_000);
    message.section(SlackText::ours("*Waiting for you*"));
    for ask in page.asks.iter().take(SLACK_HOME_ROWS) {
        ask_blocks(&mut message, ask, Some(seal));
    }
    let more = page.asks.len().saturating_sub(SLACK_HOME_ROWS);
    let waits = match (page.asks.len(), page.others) {
        (0, 0) => "Nothing.".to_owned(),
        (0, others) => format!("No requests for you; {others} for others."),
        (_, 0) if more == 0 => String::new(),
        (_, others) => format!("… and {more} more for you, {others} for others: `/nightshift incidents`"),
    };
    message.section(SlackText::ours(waits));
    message.section(SlackText::ours(format!("*Open incidents: {}*", page.open)));
    let line = |incident: &Incident| {
        let owner = incident.owner.as_ref().map(|owner| format!(" · {owner}'s")).unwrap_or_default();
        let line = format!("{} {} {}{owner}", mark(incident.state, incident.severity), incident.id, incident.title);
        text::slack(&line, STORY_LINE_CHARS)
    };
    let lines: Vec<String> = page.incidents.iter().take(SLACK_HOME_ROWS).map(line).collect();
    message.story(&lines, usize::MAX);
    message.section(SlackText::ours("*Guards*"));
    message.says(&page.guards.join("\n"), 2_000);
    message.buttons(vec![SlackButton {
        style: Some("danger"),
        ..SlackButton::new(
            "freeze",
            "Freeze everything …",
            seal.close("freeze", "all", "", page.at + SLACK_BUTTON_LIFE),
        )
    }]);
    let link = page.link.as_deref().and_then(|link| text::slack_link(link, "Open Nightshift"));
    let link = link.map(|link| format!(" · {link}")).unwrap_or_default();
    let who = text::slack(&page.person, 60).replace(['*', '_', '~', '`'], " ");
    message.tail(&format!("{who}, {} · as of {}{link}", page.role, text::slack_time(page.at, SlackTime::Day)));
    HomeView::of(message)
}

/// For a member of the workspace without an entry here.
pub fn stranger(user: &str) -> HomeView {
    let mut message = SlackMessage::new("Nightshift");
    message.header("Your Slack account is not linked");
    message.section(SlackText::ours(
        "Your rights depend on your entry under `people` in nightshift.yaml. Ask an operator to add your member ID \
         to it:",
    ));
    message.section(SlackText::outside(&format!("slack: {user}"), 100));
    HomeView::of(message)
}
