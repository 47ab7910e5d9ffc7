//! One address of PagerDuty's Events API, and the key of one integration.
//!
//! Invariant: an event is taken when PagerDuty confirms it, not at every 2xx; the key is in no message.

use crate::model::DeliveryResult;
use crate::notifiers::{answer, text};
use crate::world::{HttpClient, HttpRequest};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) struct PagerDutyClient {
    http: HttpClient,
    pub routing_key: String,
    api: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PagerDutyResponse {
    status: String,
    message: String,
    errors: Vec<String>,
}

impl PagerDutyClient {
    /// An endpoint with this routing key; white space around the key is removed.
    ///
    /// # Errors
    ///
    /// Fails when the key is not 32 letters and digits; the message hints at the likely mistake.
    pub fn new(http: HttpClient, routing_key: String, api: String) -> Result<PagerDutyClient, String> {
        let routing_key = routing_key.trim().to_owned();
        let good = routing_key.len() == 32 && routing_key.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !good {
            let hint = match routing_key.len() {
                20 => {
                    "it has 20 characters, like a REST API key: make an integration of the type Events API V2 and take its integration key"
                }
                _ => "take the integration key of an integration of the type Events API V2",
            };
            return Err(format!("`routing_key` must be 32 letters and digits; {hint}"));
        }
        Ok(PagerDutyClient { http, routing_key, api })
    }

    /// Sends one event. PagerDuty takes it with 202; whether it pages is PagerDuty's decision.
    ///
    /// # Errors
    ///
    /// Fails with the delivery's result: a retry where PagerDuty may take it later, a refusal where it never will.
    pub async fn send(&self, body: Value) -> Result<(), DeliveryResult> {
        let request = HttpRequest { method: "POST".to_owned(), url: self.api.clone(), headers: BTreeMap::new(), body };
        let sent = self.http.send(&request).await.map_err(|error| answer::no_answer("PagerDuty", &error));
        let answered = sent.map_err(|delivery| answer::without(&self.routing_key, delivery))?;
        let said: PagerDutyResponse = serde_json::from_str(&answered.body).unwrap_or_default();
        match answered.status {
            202 if said.status == "success" => Ok(()),
            200..=299 => Err(DeliveryResult::Retry {
                after: None,
                why: format!(
                    "PagerDuty answered {} but not that it took the event{}",
                    answered.status,
                    answer::quote(&answered.body)
                ),
            }),
            400 => {
                let errors = if said.errors.is_empty() {
                    answer::quote(&answered.body)
                } else {
                    format!(": {}", said.errors.join("; "))
                };
                let why = format!("PagerDuty refused the event: {}{errors}", said.message);
                Err(DeliveryResult::Refused { why: text::plain(&why, 500) })
            }
            _ => Err(answer::unaccepted("PagerDuty", &answered)),
        }
    }
}
