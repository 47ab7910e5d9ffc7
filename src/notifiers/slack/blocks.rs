//! Block Kit as types: only these shapes can be sent, so a label can never become a mention or a button.
//!
//! Invariant: a `Message` never has more blocks or characters than Slack takes; its last line states an omission.

use crate::limits::{
    SLACK_BLOCKS, SLACK_CONTEXT_CHARS, SLACK_HEADER_CHARS, SLACK_SECTION_CHARS, SLACK_TEXT_CHARS, SLACK_TOTAL_CHARS,
    STORY_LINE_CHARS,
};
use crate::model::Time;
use crate::notifiers::text::{self, SlackTime};
use serde::Serialize;

/// A block of a message.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SlackBlock {
    Header { text: SlackText },
    Section { text: SlackText },
    Context { elements: Vec<SlackText> },
    Actions { elements: Vec<SlackButton> },
}

/// A button. Its action and its value are ours; only the words of `confirm` may be from outside.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "button")]
pub struct SlackButton {
    pub action_id: &'static str,
    pub text: SlackText,
    /// The state that was shown, sealed; it opens nothing by itself.
    pub value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub style: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm: Option<ConfirmDialog>,
}

/// A confirmation before it is sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConfirmDialog {
    pub title: SlackText,
    pub text: SlackText,
    pub confirm: SlackText,
    pub deny: SlackText,
}

impl SlackButton {
    fn size(&self) -> usize {
        let confirm = self.confirm.as_ref().map_or(0, |confirm| confirm.text.size());
        self.text.size() + self.value.len() + confirm
    }

    /// A button without style and confirmation.
    pub fn new(action_id: &'static str, words: &'static str, value: String) -> SlackButton {
        let text = SlackText::Plain { text: words.to_owned(), emoji: false };
        SlackButton { action_id, text, value, style: None, confirm: None }
    }
}

/// Text from outside is `plain_text`, which Slack shows as it stands. Only our own words are mrkdwn.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type")]
pub enum SlackText {
    #[serde(rename = "plain_text")]
    Plain { text: String, emoji: bool },
    #[serde(rename = "mrkdwn")]
    Marked { text: String, verbatim: bool },
}

impl SlackText {
    /// Text from outside. Escaped too: Slack reads `&lt;` in plain text as `<`.
    pub fn outside(words: &str, max: usize) -> SlackText {
        SlackText::Plain { text: text::slack(words, max), emoji: false }
    }

    /// Lines of text from outside, each escaped before.
    fn lines(escaped: String) -> SlackText {
        SlackText::Plain { text: escaped, emoji: false }
    }

    /// Our own words with formatting; nothing from outside may be in them.
    pub fn ours(words: impl Into<String>) -> SlackText {
        SlackText::Marked { text: words.into(), verbatim: true }
    }

    fn size(&self) -> usize {
        match self {
            SlackText::Plain { text, .. } | SlackText::Marked { text, .. } => text.encode_utf16().count(),
        }
    }
}

/// The body of `chat.postMessage`, `chat.update` and incoming webhooks.
#[derive(Debug, Clone, PartialEq)]
pub struct SlackMessage {
    /// Shown in notifications and by clients without blocks; already escaped.
    pub text: String,
    pub blocks: Vec<SlackBlock>,
    left: usize,
    closing: bool,
}

/// Kept free for the line that states an omission.
const TAIL: usize = 200;

/// Blocks that a timeline leaves free for buttons and the last line.
const KEPT_BLOCKS: usize = 4;

impl SlackMessage {
    /// A message without blocks; `fallback` is shown in notifications.
    pub fn new(fallback: &str) -> SlackMessage {
        SlackMessage {
            text: text::slack(fallback, SLACK_TEXT_CHARS),
            blocks: Vec::new(),
            left: SLACK_TOTAL_CHARS - TAIL,
            closing: false,
        }
    }

    /// Adds a header.
    pub fn header(&mut self, words: &str) {
        self.push(SlackBlock::Header { text: SlackText::outside(words, SLACK_HEADER_CHARS) });
    }

    /// Adds a section; false where it did not fit.
    pub fn section(&mut self, text: SlackText) -> bool {
        self.push(SlackBlock::Section { text })
    }

    /// Buttons in one row.
    pub fn buttons(&mut self, elements: Vec<SlackButton>) -> bool {
        self.push(SlackBlock::Actions { elements })
    }

    /// Adds a line of small text; false where it did not fit.
    pub fn context(&mut self, elements: Vec<SlackText>) -> bool {
        self.push(SlackBlock::Context { elements })
    }

    /// The newest lines that fit into `budget` characters, oldest first, in as few sections as possible.
    /// Returns how many older lines were left out.
    pub fn story(&mut self, lines: &[String], budget: usize) -> usize {
        let budget = budget.min(self.left);
        let mut used = 0;
        let mut first = lines.len();
        while first > 0 {
            let size = lines[first - 1].encode_utf16().count() + 1;
            if used + size > budget {
                break;
            }
            used += size;
            first -= 1;
        }
        let mut page = String::new();
        for line in &lines[first..] {
            let full = page.encode_utf16().count() + line.encode_utf16().count() + 1 > SLACK_SECTION_CHARS;
            if full && !page.is_empty() {
                self.section(SlackText::lines(std::mem::take(&mut page)));
            }
            if !page.is_empty() {
                page.push('\n');
            }
            page.push_str(line);
        }
        if !page.is_empty() {
            self.section(SlackText::lines(page));
        }
        first
    }

    /// The newest lines that fit into `budget` characters, oldest first, each minute under its time, which every reader
    /// sees in their own zone. Returns how many older lines were left out.
    pub fn timeline(&mut self, lines: &[(Time, String)], budget: usize) -> usize {
        let budget = budget.min(self.left);
        let room = SLACK_BLOCKS.saturating_sub(self.blocks.len() + KEPT_BLOCKS);
        let day = |at: Time| at.as_second().div_euclid(86_400);
        let today = lines.last().map(|(at, _)| day(*at));
        let mut groups: Vec<(String, Vec<&str>, usize)> = Vec::new();
        let (mut used, mut first) = (0, lines.len());
        while first > 0 {
            let (at, line) = &lines[first - 1];
            let style = if Some(day(*at)) == today { SlackTime::Clock } else { SlackTime::Day };
            let time = text::slack_time(Time::from_second(at.as_second().div_euclid(60) * 60).unwrap_or(*at), style);
            let size = line.encode_utf16().count() + 1;
            let fits =
                |(of, _, taken): &mut (String, Vec<&str>, usize)| *of == time && *taken + size <= SLACK_CONTEXT_CHARS;
            let joins = groups.last_mut().is_some_and(fits);
            let cost = size + if joins { 0 } else { time.len() };
            if used + cost > budget || (!joins && groups.len() >= room) {
                break;
            }
            used += cost;
            match groups.last_mut().filter(|_| joins) {
                Some((_, texts, taken)) => {
                    texts.push(line);
                    *taken += size;
                }
                None => groups.push((time, vec![line], size)),
            }
            first -= 1;
        }
        for (time, mut texts, _) in groups.into_iter().rev() {
            texts.reverse();
            self.context(vec![SlackText::ours(time), SlackText::lines(texts.join("\n"))]);
        }
        first
    }

    /// Lines from outside, the newest that fit. Returns how many were left out.
    pub fn says(&mut self, words: &str, budget: usize) -> usize {
        let lines: Vec<String> = words.lines().map(|line| text::slack(line, STORY_LINE_CHARS)).collect();
        self.story(&lines, budget)
    }

    /// The last line; there is always room for it.
    pub fn tail(&mut self, words: &str) {
        self.left += TAIL;
        self.closing = true;
        self.context(vec![SlackText::ours(text::plain(words, TAIL))]);
        self.left = 0;
    }

    fn push(&mut self, block: SlackBlock) -> bool {
        let size = match &block {
            SlackBlock::Header { text } | SlackBlock::Section { text } => text.size(),
            SlackBlock::Context { elements } => elements.iter().map(SlackText::size).sum(),
            SlackBlock::Actions { elements } => elements.iter().map(SlackButton::size).sum(),
        };
        // Slack refuses an empty text, and a section over its own bound.
        let fits = size > 0
            && size <= self.left
            && self.blocks.len() < SLACK_BLOCKS - 1 + usize::from(self.closing)
            && size <= SLACK_SECTION_CHARS;
        if fits {
            self.left -= size;
            self.blocks.push(block);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_amount_of_text_makes_a_message_that_slack_refuses() {
        let mut message = SlackMessage::new(&"x<".repeat(100_000));
        message.header(&"<!channel>".repeat(10_000));
        let lines: Vec<String> = (0..5_000).map(|n| text::slack(&format!("line {n} <&>").repeat(20), 400)).collect();
        let left_out = message.story(&lines, usize::MAX);
        assert!(left_out > 4_900 && left_out < 5_000, "{left_out}");
        for _ in 0..100 {
            message.section(SlackText::outside("more", 100));
        }
        message.tail("the end");
        let total: usize = message
            .blocks
            .iter()
            .map(|block| match block {
                SlackBlock::Header { text } | SlackBlock::Section { text } => text.size(),
                SlackBlock::Context { elements } => elements.iter().map(SlackText::size).sum(),
                SlackBlock::Actions { elements } => elements.iter().map(SlackButton::size).sum(),
            })
            .sum();
        assert!(message.blocks.len() <= 50 && total <= 13_000, "{} blocks, {total} characters", message.blocks.len());
        assert!(message.text.encode_utf16().count() <= SLACK_TEXT_CHARS);
        assert!(matches!(message.blocks.last(), Some(SlackBlock::Context { .. })), "the tail has its room");
    }

    #[test]
    fn an_empty_text_is_no_block() {
        let mut message = SlackMessage::new("x");
        assert!(!message.section(SlackText::outside("", 10)));
        assert!(message.blocks.is_empty());
    }
}
