//! Slack's views as types: a form with fields, a form with text, and a user's page.
//!
//! Invariant: a view never has more blocks, fields or characters than Slack takes, and carries nothing but an opaque id.

use super::blocks::{SlackBlock, SlackMessage, SlackText};
use crate::limits;
use serde::Serialize;

/// A form that opens over the chat, or replaces one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "modal")]
pub struct ModalView {
    title: SlackText,
    close: SlackText,
    #[serde(skip_serializing_if = "Option::is_none")]
    submit: Option<SlackText>,
    /// Opens nothing by itself: the engine keeps its meaning and its owner.
    #[serde(skip_serializing_if = "String::is_empty")]
    private_metadata: String,
    blocks: Vec<ModalBlock>,
}

/// A user's page of the app.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "home")]
pub struct HomeView {
    blocks: Vec<SlackBlock>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
enum ModalBlock {
    Shown(SlackBlock),
    Asked(InputBlock),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "input")]
struct InputBlock {
    block_id: String,
    label: SlackText,
    element: InputElement,
    optional: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<SlackText>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum InputElement {
    PlainTextInput {
        action_id: &'static str,
        multiline: bool,
        max_length: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        initial_value: Option<String>,
    },
    StaticSelect {
        action_id: &'static str,
        options: Vec<SelectOption>,
        #[serde(skip_serializing_if = "Option::is_none")]
        initial_option: Option<SelectOption>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct SelectOption {
    text: SlackText,
    value: String,
}

/// One field of a form. Its id is the field of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct FormField {
    id: String,
    label: String,
    hint: String,
    optional: bool,
    long: bool,
    initial: Option<String>,
    /// (shown, meant); empty: any text.
    choices: Vec<(String, String)>,
}

impl FormField {
    /// The name of each field's value in Slack's payload.
    pub const VALUE: &'static str = "value";

    /// A required field of one line.
    pub fn new(id: &str, label: &str) -> FormField {
        FormField {
            id: id.to_owned(),
            label: label.to_owned(),
            hint: String::new(),
            optional: false,
            long: false,
            initial: None,
            choices: Vec::new(),
        }
    }

    /// Sets the text under the field.
    pub fn hint(self, words: impl Into<String>) -> FormField {
        FormField { hint: words.into(), ..self }
    }

    /// Sets whether the field may stay empty.
    pub fn optional(self, optional: bool) -> FormField {
        FormField { optional, ..self }
    }

    /// Several lines.
    pub fn long(self) -> FormField {
        FormField { long: true, ..self }
    }

    /// Sets the value that the field opens with.
    pub fn initial(self, value: Option<String>) -> FormField {
        FormField { initial: value, ..self }
    }

    /// One of these, each as (shown, meant). Slack takes a hundred.
    pub fn of(self, choices: impl IntoIterator<Item = (String, String)>) -> FormField {
        FormField { choices: choices.into_iter().take(limits::SLACK_OPTIONS).collect(), ..self }
    }

    fn input(self) -> InputBlock {
        let plain = |words: &str, max| SlackText::outside(words, max);
        // Slack gives meant values back to us; one that it would not take as it is cannot be offered.
        let fits = |(_, meant): &(String, String)| (1..=limits::SLACK_OPTION_CHARS).contains(&meant.len());
        let choice = |(shown, meant): (String, String)| SelectOption {
            text: plain(&shown, limits::SLACK_OPTION_CHARS),
            value: meant,
        };
        let options: Vec<SelectOption> = self.choices.into_iter().filter(fits).map(choice).collect();
        let initial = self.initial.filter(|value| (1..=limits::SLACK_FIELD_CHARS).contains(&value.len()));
        let element = if options.is_empty() {
            InputElement::PlainTextInput {
                action_id: FormField::VALUE,
                multiline: self.long,
                max_length: limits::SLACK_FIELD_CHARS,
                initial_value: initial,
            }
        } else {
            let initial_option = options.iter().find(|option| Some(&option.value) == initial.as_ref()).cloned();
            InputElement::StaticSelect { action_id: FormField::VALUE, options, initial_option }
        };
        InputBlock {
            block_id: self.id,
            label: plain(if self.label.is_empty() { "value" } else { &self.label }, limits::SLACK_LABEL_CHARS),
            element,
            optional: self.optional,
            hint: (!self.hint.is_empty()).then(|| plain(&self.hint, limits::SLACK_HINT_CHARS)),
        }
    }
}

impl ModalView {
    /// A form: its words, its button, and the opaque id that comes back with the answer.
    pub fn form(title: &'static str, submit: &'static str, id: &str) -> ModalView {
        let plain = |words: &str| SlackText::outside(words, limits::SLACK_TITLE_CHARS);
        ModalView {
            title: plain(title),
            close: plain("Not now"),
            submit: Some(plain(submit)),
            private_metadata: id.to_owned(),
            blocks: Vec::new(),
        }
    }

    /// Only words, with a button to close them.
    pub fn words(title: &'static str, words: &str) -> ModalView {
        let plain = |words: &str| SlackText::outside(words, limits::SLACK_TITLE_CHARS);
        let empty = ModalView {
            title: plain(title),
            close: plain("Close"),
            submit: None,
            private_metadata: String::new(),
            blocks: Vec::new(),
        };
        empty.says(words)
    }

    /// Lines that may come from outside.
    pub fn says(mut self, words: &str) -> ModalView {
        let mut message = SlackMessage::new("");
        message.says(words, limits::SLACK_SECTION_CHARS);
        let room = limits::SLACK_VIEW_BLOCKS.saturating_sub(self.blocks.len());
        self.blocks.extend(message.blocks.into_iter().take(room).map(ModalBlock::Shown));
        self
    }

    /// False where it is full, or the field's name is none that Slack returns: then it is not added.
    pub fn asks(&mut self, field: FormField) -> bool {
        let asked = self.blocks.iter().filter(|part| matches!(part, ModalBlock::Asked(_))).count();
        let named = (1..=limits::SLACK_ID_CHARS).contains(&field.id.encode_utf16().count());
        let room = asked < limits::SLACK_FIELDS && self.blocks.len() < limits::SLACK_VIEW_BLOCKS && named;
        if room {
            self.blocks.push(ModalBlock::Asked(field.input()));
        }
        room
    }
}

impl HomeView {
    pub(super) fn of(message: SlackMessage) -> HomeView {
        HomeView { blocks: message.blocks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_form_of_hostile_and_endless_words_is_one_that_slack_takes() {
        let hostile = "<!channel> *x* & ".repeat(1_000);
        let mut modal = ModalView::form("Silence", "Silence", "0123").says(&hostile);
        let many = (0..500).map(|no| (format!("{hostile}{no}"), no.to_string()));
        assert!(
            modal.asks(FormField::new("pick", &hostile).hint(hostile.as_str()).of(many).initial(Some("3".to_owned())))
        );
        assert!(!modal.asks(FormField::new(&"x".repeat(256), "too long a name")));
        assert!(!modal.asks(FormField::new("", "no name")));
        let mut fields = 1;
        while modal.asks(FormField::new(&format!("f{fields}"), "").initial(Some(hostile.clone()))) {
            fields += 1;
        }
        assert_eq!(fields, limits::SLACK_FIELDS);
        let view = json!(modal);
        let blocks = view["blocks"].as_array().unwrap();
        assert!(blocks.len() <= 100);
        let chars = |value: &Value| value.as_str().unwrap().encode_utf16().count();
        for block in blocks {
            match block["type"].as_str().unwrap() {
                "section" => assert!(chars(&block["text"]["text"]) <= 3_000 && block["text"]["type"] == "plain_text"),
                "input" => {
                    assert!((1..=2_000).contains(&chars(&block["label"]["text"])), "{block}");
                    assert!(chars(&block["block_id"]) <= 255);
                    assert!(block["hint"].is_null() || chars(&block["hint"]["text"]) <= 2_000);
                    let options = block["element"]["options"].as_array().cloned().unwrap_or_default();
                    assert!(options.len() <= 100);
                    assert!(options.iter().all(|option| chars(&option["text"]["text"]) <= 75));
                }
                other => panic!("{other}"),
            }
        }
        assert_eq!(
            blocks.iter().find(|block| block["type"] == "input").unwrap()["element"]["initial_option"]["value"],
            "3"
        );
        assert!(!view.to_string().contains("<!channel>"));
        assert!(chars(&view["title"]["text"]) <= 24 && view["private_metadata"] == "0123");
        let said = json!(ModalView::words("Deny", "no\nsuch thing"));
        assert!(said.get("submit").is_none() && said.get("private_metadata").is_none(), "{said}");
    }
}
