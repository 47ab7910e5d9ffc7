//! Slack's payloads as types: the same over HTTP and over Socket Mode.
//!
//! Invariant: only ids identify; fields that are not needed are not read.

use crate::notifiers::slack::FormField;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A slash command.
#[derive(Deserialize)]
pub(super) struct SlashCommand {
    #[serde(default)]
    pub(super) team_id: String,
    #[serde(default)]
    pub(super) api_app_id: String,
    pub(super) user_id: String,
    #[serde(default)]
    pub(super) text: String,
    #[serde(default)]
    pub(super) response_url: String,
    #[serde(default)]
    pub(super) trigger_id: String,
}

/// Something pressed, or a form that was sent.
#[derive(Deserialize)]
pub(super) struct SlackInteraction {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) user: SlackId,
    #[serde(default)]
    pub(super) team: Option<SlackId>,
    #[serde(default)]
    pub(super) api_app_id: String,
    #[serde(default)]
    pub(super) actions: Vec<ButtonPress>,
    #[serde(default)]
    pub(super) response_url: String,
    #[serde(default)]
    pub(super) trigger_id: String,
    #[serde(default)]
    pub(super) view: Option<SlackView>,
}

#[derive(Deserialize)]
pub(super) struct SlackId {
    pub(super) id: String,
}

#[derive(Deserialize)]
pub(super) struct ButtonPress {
    pub(super) action_id: String,
    #[serde(default)]
    pub(super) value: String,
}

#[derive(Deserialize)]
pub(super) struct SlackView {
    #[serde(default)]
    private_metadata: String,
    #[serde(default)]
    state: ViewState,
}

#[derive(Deserialize, Default)]
struct ViewState {
    #[serde(default)]
    values: BTreeMap<String, BTreeMap<String, Value>>,
}

/// The answers of a form by field; one that was left empty is not there.
pub(super) type FormAnswers = BTreeMap<String, String>;

impl SlackInteraction {
    pub(super) fn team(&self) -> &str {
        self.team.as_ref().map_or("", |team| team.id.as_str())
    }
}

impl SlackView {
    /// The opaque id of the form, and its values.
    pub(super) fn answers(&self) -> (&str, FormAnswers) {
        let value = |element: &Value| {
            let value = element["value"].as_str().or_else(|| element["selected_option"]["value"].as_str());
            value.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let fields = self.state.values.iter();
        let answers = fields.filter_map(|(id, elements)| Some((id.clone(), value(elements.get(FormField::VALUE)?)?)));
        (&self.private_metadata, answers.collect())
    }
}

/// An event of the Events API.
#[derive(Deserialize)]
pub(super) struct EventCallback {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) challenge: String,
    #[serde(default)]
    pub(super) team_id: String,
    #[serde(default)]
    pub(super) api_app_id: String,
    #[serde(default)]
    pub(super) event_id: String,
    #[serde(default)]
    pub(super) event: Option<SlackEvent>,
}

#[derive(Deserialize)]
pub(super) struct SlackEvent {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) user: String,
    /// `home`, or `messages`.
    #[serde(default)]
    pub(super) tab: String,
}

/// A frame of Socket Mode.
#[derive(Deserialize)]
pub(super) struct SocketEnvelope {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) envelope_id: String,
    #[serde(default)]
    pub(super) payload: Value,
    /// Of a `disconnect`.
    #[serde(default)]
    pub(super) reason: String,
    /// Of a `hello`.
    #[serde(default)]
    pub(super) connection_info: ConnectionInfo,
}

#[derive(Deserialize, Default)]
pub(super) struct ConnectionInfo {
    #[serde(default)]
    pub(super) app_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_answers_of_a_form_are_texts_and_choices_and_empty_ones_are_none() {
        let view = json!({ "private_metadata": "0123", "state": { "values": {
            "why": { "value": { "type": "plain_text_input", "value": "  new fan " } },
            "lasts": { "value": { "type": "static_select", "selected_option": { "value": "2h" } } },
            "left": { "value": { "type": "plain_text_input", "value": null } },
            "blank": { "value": { "type": "plain_text_input", "value": "  " } },
            "unpicked": { "value": { "type": "static_select", "selected_option": null } },
            "foreign": { "other": { "value": "x" } },
        } } });
        let view: SlackView = serde_json::from_value(view).unwrap();
        let (id, answers) = view.answers();
        assert_eq!(id, "0123");
        assert_eq!(json!(answers), json!({ "why": "new fan", "lasts": "2h" }));
    }
}
