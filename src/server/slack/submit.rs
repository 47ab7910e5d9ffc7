//! A form that was sent: done at once where that is quick, and answered in place where it cannot be done.
//!
//! Invariant: a form counts once; it comes back to life only where nothing was done and the user can correct the error.

use super::forms::{Form, INCIDENT, LASTS, Purpose, RUNBOOK, SCOPE, WHY, params};
use super::said::{Answers, Interaction};
use super::{BUG, Chat, command, words};
use crate::api::RunRequest;
use crate::limits;
use crate::model::Span;
use crate::notifiers::slack::{Modal, private};
use crate::policy::RuleSet;
use crate::server::{Caller, Problem};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The result of a form.
enum Filled {
    Done(String),
    /// The field that is wrong, and how: the user may send it again.
    Wrong(&'static str, String),
    Field(String, String),
    /// Another form follows.
    Next(Box<Modal>),
    Refused(Problem),
}

impl Chat {
    /// Slack's answer in place of the form: errors at its fields, words, or nothing (it closes).
    pub(super) async fn submitted(&self, from: Interaction) -> Value {
        let Some(view) = &from.view else { return Value::Null };
        let (id, answers) = view.answers();
        let Some(form) = self.door.forms.take(id, &from.user.id, self.app.parts.clock.now()) else {
            return in_place(
                "This form has expired: it was already sent, is older than half an hour, or the engine has restarted.\nPress the button again.",
            );
        };
        let caller = match self.person(from.team(), &from.api_app_id, &from.user.id).await {
            Ok(caller) => caller,
            Err(problem) => return in_place(&words(&problem)),
        };
        let Ok(place) = Arc::clone(&self.door.places).try_acquire_owned() else {
            self.door.forms.open(form, self.app.parts.clock.now());
            return in_place("Too many Slack requests are in progress. Press the button again in a moment.");
        };
        let (chat, kept) = (self.clone(), form.clone());
        let mut work = tokio::spawn(async move {
            let _place = place;
            chat.fill(&caller, &kept, &answers).await
        });
        match tokio::time::timeout(limits::SLACK_PATIENCE, &mut work).await {
            Ok(Ok(filled)) => self.shown(form, filled),
            Ok(Err(_)) => in_place(BUG),
            Err(_) => {
                let chat = self.clone();
                tokio::spawn(async move {
                    let Ok(filled) = work.await else { return };
                    chat.told_later(&form, filled).await;
                });
                in_place("Working on it …\nThe answer comes where you pressed the button.")
            }
        }
    }

    /// The answer while the form is still there.
    fn shown(&self, form: Form, filled: Filled) -> Value {
        match filled {
            Filled::Done(text) => {
                self.stir(&form.user, form.reply_to.is_empty().then(|| text.clone()));
                if form.reply_to.is_empty() {
                    return json!({ "response_action": "clear" });
                }
                let chat = self.clone();
                tokio::spawn(async move { chat.reply(&form.reply_to, private(&text)).await });
                json!({ "response_action": "clear" })
            }
            Filled::Next(modal) => json!({ "response_action": "update", "view": modal }),
            Filled::Wrong(field, why) => self.again(form, field, &why),
            Filled::Field(field, why) => self.again(form, &field, &why),
            Filled::Refused(problem) => in_place(&words(&problem)),
        }
    }

    /// Nothing was done: the same form, with the error beside its field.
    fn again(&self, form: Form, field: &str, why: &str) -> Value {
        self.door.forms.open(form, self.app.parts.clock.now());
        let why: String = why.chars().take(limits::SLACK_HINT_CHARS).collect();
        json!({ "response_action": "errors", "errors": BTreeMap::from([(field, why)]) })
    }

    async fn told_later(&self, form: &Form, filled: Filled) {
        let text = match filled {
            Filled::Done(text) | Filled::Wrong(_, text) | Filled::Field(_, text) => text,
            Filled::Refused(problem) => words(&problem),
            Filled::Next(_) => return,
        };
        self.stir(&form.user, form.reply_to.is_empty().then(|| text.clone()));
        if !form.reply_to.is_empty() {
            self.reply(&form.reply_to, private(&text)).await;
        }
    }

    async fn fill(&self, caller: &Caller, form: &Form, answers: &Answers) -> Filled {
        let text = |field: &str| answers.get(field).map_or("", String::as_str);
        let done = match &form.purpose {
            Purpose::Deny { approval, shown } => match self.still_the_same(caller, approval, shown).await {
                Ok(_) => {
                    let why = if text(WHY).is_empty() { "by a button in Slack" } else { text(WHY) };
                    self.perform_line(caller, &format!("deny {approval} {why}")).await
                }
                Err(problem) => Err(problem),
            },
            Purpose::Silence { incident } => {
                let (least, most) = (limits::SILENCE_MIN, limits::SILENCE_MAX);
                match text(LASTS).parse::<Span>() {
                    Err(error) => return Filled::Wrong(LASTS, format!("{error}: write for example 30m or 2h")),
                    Ok(lasts) if lasts < least || lasts > most => {
                        return Filled::Wrong(LASTS, format!("a silence lasts from {least} to {most}"));
                    }
                    Ok(_) => {}
                }
                if text(WHY).is_empty() {
                    return Filled::Wrong(WHY, "a reason is missing".to_owned());
                }
                let incident = if incident.is_empty() { text(INCIDENT) } else { incident };
                self.perform_line(caller, &format!("silence {incident} {} {}", text(LASTS), text(WHY))).await
            }
            Purpose::Freeze { .. } | Purpose::FreezeAround { .. } if text(WHY).is_empty() => {
                return Filled::Wrong(WHY, "a reason is missing".to_owned());
            }
            Purpose::Freeze { scope } => self.perform_line(caller, &format!("freeze {scope} {}", text(WHY))).await,
            Purpose::FreezeAround { .. } if text(SCOPE).is_empty() => {
                return Filled::Wrong(SCOPE, "choose a scope to freeze".to_owned());
            }
            Purpose::FreezeAround { .. } => {
                self.perform_line(caller, &format!("freeze {} {}", text(SCOPE), text(WHY))).await
            }
            Purpose::Pick => return self.picked(caller, form, text(RUNBOOK)).await,
            Purpose::Run { runbook, .. } => match self.runbook(runbook) {
                Err(problem) => Err(problem),
                Ok(found) => {
                    let params = params(&found, answers);
                    if let Err(why) = RuleSet::bind(&found.header, &params, None) {
                        let named = found.header.params.iter().find(|param| why.contains(&format!("`{}`", param.name)));
                        let Some(param) = named.or(found.header.params.first()) else {
                            return Filled::Wrong(RUNBOOK, why);
                        };
                        return Filled::Field(param.name.clone(), why);
                    }
                    let request = RunRequest { runbook: runbook.clone(), params, ..RunRequest::default() };
                    command::start(&self.app, caller, request).await
                }
            },
        };
        match done {
            Ok(text) => Filled::Done(text),
            Err(problem) => {
                match (&form.purpose, problem.status) {
                    // The API's errors in the words themselves.
                    (Purpose::Silence { .. }, StatusCode::BAD_REQUEST) => Filled::Wrong(LASTS, words(&problem)),
                    (
                        Purpose::Deny { .. } | Purpose::Freeze { .. } | Purpose::FreezeAround { .. },
                        StatusCode::BAD_REQUEST,
                    ) => Filled::Wrong(WHY, words(&problem)),
                    _ => Filled::Refused(problem),
                }
            }
        }
    }

    async fn perform_line(&self, caller: &Caller, line: &str) -> Result<String, Problem> {
        command::perform(&self.app, caller, line).await
    }

    /// The runbook is chosen: now its parameters.
    async fn picked(&self, caller: &Caller, form: &Form, runbook: &str) -> Filled {
        let purpose = Purpose::Run { runbook: runbook.to_owned(), given: serde_json::Map::new() };
        match self.form(caller, &form.user, &form.reply_to, purpose).await {
            Ok((next, modal)) => {
                self.door.forms.open(next, self.app.parts.clock.now());
                Filled::Next(Box::new(modal))
            }
            Err(problem) => Filled::Refused(problem),
        }
    }
}

fn in_place(words: &str) -> Value {
    json!({ "response_action": "update", "view": Modal::words("Nightshift", words) })
}
