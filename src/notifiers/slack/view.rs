//! Slack's views as types: a form with fields, a form with text, and a user's page.
//!
//! Invariant: a view never has more blocks, fields or characters than Slack takes, and carries nothing but an opaque id.

use super::blocks::{Block, Message, Text};
use crate::limits;
use serde::Serialize;

/// A form that opens over the chat, or replaces one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "modal")]
pub struct Modal {
    title: Text,
    close: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    submit: Option<Text>,
    /// Opens nothing by itself: the engine keeps its meaning and its owner.
    #[serde(skip_serializing_if = "String::is_empty")]
    private_metadata: String,
    blocks: Vec<Part>,
}

/// A user's page of the app.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "home")]
pub struct Home {
    blocks: Vec<Block>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
enum Part {
    Shown(Block),
    Asked(Input),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "input")]
struct Input {
    block_id: String,
    label: Text,
    element: Element,
    optional: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<Text>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Element {
    PlainTextInput {
        action_id: &'static str,
        multiline: bool,
        max_length: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        initial_value: Option<String>,
    },
    StaticSelect {
        action_id: &'static str,
        options: Vec<Choice>,
        #[serde(skip_serializing_if = "Option::is_none")]
        initial_option: Option<Choice>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Choice {
    text: Text,
    value: String,
}

/// One field of a form. Its id is the field of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    id: String,
    label: String,
    hint: String,
    optional: bool,
    long: bool,
    initial: Option<String>,
    /// (shown, meant); empty: any text.
    choices: Vec<(String, String)>,
}

impl Field {
    /// The name of each field's value in Slack's payload.
    pub const VALUE: &'static str = "value";

    /// A required field of one line.
    pub fn new(id: &str, label: &str) -> Field {
        Field {
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
    pub fn hint(self, words: impl Into<String>) -> Field {
        Field { hint: words.into(), ..self }
    }

    /// Sets whether the field may stay empty.
    pub fn optional(self, optional: bool) -> Field {
        Field { optional, ..self }
    }

    /// Several lines.
    pub fn long(self) -> Field {
        Field { long: true, ..self }
    }

    /// Sets the value that the field opens with.
    pub fn initial(self, value: Option<String>) -> Field {
        Field { initial: value, ..self }
    }

    /// One of these, each as (shown, meant). Slack takes a hundred.
    pub fn of(self, choices: impl IntoIterator<Item = (String, String)>) -> Field {
        Field { choices: choices.into_iter().take(limits::SLACK_OPTIONS).collect(), ..self }
    }

    fn input(self) -> Input {
        let plain = |words: &str, max| Text::outside(words, max);
        // Slack gives meant values back to us; one that it would not take as it is cannot be offered.
        let fits = |(_, meant): &(String, String)| (1..=limits::SLACK_OPTION_CHARS).contains(&meant.len());
        let choice =
            |(shown, meant): (String, String)| Choice { text: plain(&shown, limits::SLACK_OPTION_CHARS), value: meant };
        let options: Vec<Choice> = self.choices.into_iter().filter(fits).map(choice).collect();
        let initial = self.initial.filter(|value| (1..=limits::SLACK_FIELD_CHARS).contains(&value.len()));
        let element = if options.is_empty() {
            Element::PlainTextInput {
                action_id: Field::VALUE,
                multiline: self.long,
                max_length: limits::SLACK_FIELD_CHARS,
                initial_value: initial,
            }
        } else {
            let initial_option = options.iter().find(|option| Some(&option.value) == initial.as_ref()).cloned();
            Element::StaticSelect { action_id: Field::VALUE, options, initial_option }
        };
        Input {
            block_id: self.id,
            label: plain(if self.label.is_empty() { "value" } else { &self.label }, limits::SLACK_LABEL_CHARS),
            element,
            optional: self.optional,
            hint: (!self.hint.is_empty()).then(|| plain(&self.hint, limits::SLACK_HINT_CHARS)),
        }
    }
}

impl Modal {
    /// A form: its words, its button, and the opaque id that comes back with the answer.
    pub fn form(title: &'static str, submit: &'static str, id: &str) -> Modal {
        let plain = |words: &str| Text::outside(words, limits::SLACK_TITLE_CHARS);
        Modal {
            title: plain(title),
            close: plain("Not now"),
            submit: Some(plain(submit)),
            private_metadata: id.to_owned(),
            blocks: Vec::new(),
        }
    }

    /// Only words, with a button to close them.
    pub fn words(title: &'static str, words: &str) -> Modal {
        let plain = |words: &str| Text::outside(words, limits::SLACK_TITLE_CHARS);
        let empty = Modal {
            title: plain(title),
            close: plain("Close"),
            submit: None,
            private_metadata: String::new(),
            blocks: Vec::new(),
        };
        empty.says(words)
    }

    /// Lines that may come from outside.
    pub fn says(mut self, words: &str) -> Modal {
        let mut message = Message::new("");
        message.says(words, limits::SLACK_SECTION_CHARS);
        let room = limits::SLACK_VIEW_BLOCKS.saturating_sub(self.blocks.len());
        self.blocks.extend(message.blocks.into_iter().take(room).map(Part::Shown));
        self
    }

    /// False where it is full, or the field's name is none that Slack returns: then it is not added.
    pub fn asks(&mut self, field: Field) -> bool {
        let asked = self.blocks.iter().filter(|part| matches!(part, Part::Asked(_))).count();
        let named = (1..=limits::SLACK_ID_CHARS).contains(&field.id.encode_utf16().count());
        let room = asked < limits::SLACK_FIELDS && self.blocks.len() < limits::SLACK_VIEW_BLOCKS && named;
        if room {
            self.blocks.push(Part::Asked(field.input()));
        }
        room
    }
}

impl Home {
    pub(super) fn of(message: Message) -> Home {
        Home { blocks: message.blocks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_form_of_hostile_and_endless_words_is_one_that_slack_takes() {
        let hostile = "<!channel> *x* & ".repeat(1_000);
        let mut modal = Modal::form("Silence", "Silence", "0123").says(&hostile);
        let many = (0..500).map(|no| (format!("{hostile}{no}"), no.to_string()));
        assert!(modal.asks(Field::new("pick", &hostile).hint(hostile.as_str()).of(many).initial(Some("3".to_owned()))));
        assert!(!modal.asks(Field::new(&"x".repeat(256), "too long a name")));
        assert!(!modal.asks(Field::new("", "no name")));
        let mut fields = 1;
        while modal.asks(Field::new(&format!("f{fields}"), "").initial(Some(hostile.clone()))) {
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
        let said = json!(Modal::words("Deny", "no\nsuch thing"));
        assert!(said.get("submit").is_none() && said.get("private_metadata").is_none(), "{said}");
    }
}
