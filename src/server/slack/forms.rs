//! Forms: they request the open parameters of a button or a command, and the answer is joined to its purpose.
//!
//! Invariant: the purpose of a form stays here; Slack carries a random id, which counts once, for one user, for a
//! while.

use super::said::Answers;
use super::{Caller, Chat, Problem};
use crate::api::ListQuery;
use crate::limits;
use crate::model::{Param, ParamType, Time};
use crate::notifiers::slack::{Field, Modal};
use crate::script::Runbook;
use crate::server::api::{self, Inside, segment};
use crate::server::secret;
use axum::http::StatusCode;
use serde_json::{Map, Value};
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// The purpose of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Purpose {
    Deny {
        approval: String,
        shown: String,
    },
    /// Empty: the form has a field for it.
    Silence {
        incident: String,
    },
    Freeze {
        scope: String,
    },
    /// The form selects the part of an incident to freeze.
    FreezeAround {
        incident: String,
    },
    /// Which runbook; its own form follows.
    Pick,
    Run {
        runbook: String,
        given: Map<String, Value>,
    },
}

impl Purpose {
    /// The API route that sends it, whose right is checked first, so that no user fills in a form for nothing.
    fn route(&self) -> &'static str {
        match self {
            Purpose::Deny { .. } => "approvals/{id}",
            Purpose::Silence { .. } => "incidents/{id}/silence",
            Purpose::Freeze { .. } | Purpose::FreezeAround { .. } => "freezes",
            Purpose::Pick | Purpose::Run { .. } => "runs",
        }
    }

    /// The same with its subject in its place.
    fn path(&self) -> String {
        let id = match self {
            Purpose::Deny { approval, .. } => approval,
            Purpose::Silence { incident } => incident,
            _ => "",
        };
        format!("/api/v1/{}", self.route().replace("{id}", &segment(id)))
    }
}

/// A form that a user has open.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) id: String,
    pub(super) user: String,
    pub(super) purpose: Purpose,
    /// Where the answer goes; empty: to the user's page.
    pub(super) reply_to: String,
    pub(super) until: Time,
}

/// The open forms, oldest first.
#[derive(Default)]
pub(super) struct Forms(Mutex<VecDeque<Form>>);

impl Forms {
    pub(super) fn open(&self, form: Form, now: Time) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|form| form.until > now);
        if open.len() >= limits::SLACK_FORMS {
            open.pop_front();
        }
        open.push_back(form);
    }

    /// Takes it out, for the one who may send it: from two who send it at once, one gets it.
    pub(super) fn take(&self, id: &str, user: &str, now: Time) -> Option<Form> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|form| form.until > now);
        let at = open.iter().position(|form| form.id == id && form.user == user)?;
        open.remove(at)
    }
}

impl Chat {
    /// Opens a form in the name of this user. False where the engine has no token to do so with.
    pub(super) async fn ask(
        &self,
        caller: &Caller,
        user: &str,
        trigger: &str,
        reply_to: &str,
        purpose: Purpose,
    ) -> Result<bool, Problem> {
        let Some(web) = &self.door.web else { return Ok(false) };
        if trigger.is_empty() {
            return Ok(false);
        }
        if let Err(problem) = api::may(caller, "POST", purpose.route()) {
            // Requests to the API are recorded there; this one was never sent.
            let what = format!("POST /api/v1/{}", purpose.route());
            let why = format!("POST {}, by {}: {}", purpose.path(), caller.way, problem.error);
            self.app.witness.refused(&self.app, &caller.name, &what, &purpose.path(), &why).await;
            return Err(problem);
        }
        let (form, modal) = self.form(caller, user, reply_to, purpose).await?;
        self.door.forms.open(form, self.app.parts.clock.now());
        web.open(trigger, &modal).await.map(|()| true).map_err(|refusal| {
            Problem::new(StatusCode::BAD_GATEWAY, refusal.why, "press again, or write everything in the command")
        })
    }

    /// A form with its random id, and how it looks.
    pub(super) async fn form(
        &self,
        caller: &Caller,
        user: &str,
        reply_to: &str,
        purpose: Purpose,
    ) -> Result<(Form, Modal), Problem> {
        let id = secret::text::<16>();
        let modal = self.modal(caller, &purpose, &id).await?;
        let until = self.app.parts.clock.now() + limits::SLACK_FORM_LIFE;
        let (user, reply_to) = (user.to_owned(), reply_to.to_owned());
        Ok((Form { id, user, purpose, reply_to, until }, modal))
    }

    async fn modal(&self, caller: &Caller, purpose: &Purpose, id: &str) -> Result<Modal, Problem> {
        Ok(match purpose {
            Purpose::Deny { approval, .. } => {
                let question = self.api(caller).approval(approval).await?.approval.question;
                let mut modal = Modal::form("Say no", "Say no", id).says(&format!("{approval}: {question}"));
                modal.asks(
                    Field::new(WHY, "Why not?").long().optional(true).hint("Recorded in the ledger and the thread."),
                );
                modal
            }
            Purpose::Silence { incident } => self.silence(caller, incident, id).await?,
            Purpose::Freeze { scope } => {
                let mut modal = Modal::form("Freeze", "Freeze", id)
                    .says(&format!("Stops all actions of `{scope}` within two seconds; running steps finish first."));
                modal.asks(Field::new(WHY, "Why?").long());
                modal
            }
            Purpose::FreezeAround { incident } => self.freeze_around(caller, incident, id).await?,
            Purpose::Pick => {
                let loaded = (self.app.current)();
                let mut names: Vec<(String, String)> = loaded
                    .runbooks
                    .values()
                    .map(|runbook| {
                        (format!("{}: {}", runbook.pin.name, runbook.header.title), runbook.pin.name.clone())
                    })
                    .collect();
                names.sort();
                if names.is_empty() {
                    return Err(Problem::not_found(
                        "there are no runbooks here",
                        "an author adds one to `runbooks_dir`",
                    ));
                }
                let mut modal = Modal::form("Run a runbook", "Next", id);
                modal.asks(Field::new(RUNBOOK, "Which one?").of(names));
                modal
            }
            Purpose::Run { runbook, given } => run(&*self.runbook(runbook)?, given, id)?,
        })
    }

    async fn silence(&self, caller: &Caller, incident: &str, id: &str) -> Result<Modal, Problem> {
        let mut modal = Modal::form("Silence alerts", "Silence", id);
        if incident.is_empty() {
            let list = ListQuery { open: true, limit: Some(limits::SLACK_OPTIONS), ..ListQuery::default() };
            let open = self.api(caller).incidents(list).await?.incidents;
            if open.is_empty() {
                return Err(Problem::new(StatusCode::CONFLICT, "no open incidents", "there are no alerts to silence"));
            }
            let choices = open.iter().map(|open| (format!("{} {}", open.id, open.title), open.id.to_string()));
            modal.asks(Field::new(INCIDENT, "Which incident?").of(choices));
        } else {
            let title = self.api(caller).incident(incident).await?.incident.title;
            modal = modal.says(&format!("{incident}: {title}"));
        }
        modal.asks(Field::new(LASTS, "For how long?").hint("30m, 2h, 1d …").initial(Some("2h".to_owned())));
        modal.asks(Field::new(WHY, "Why?").hint("Alertmanager shows it, and the ledger."));
        Ok(modal)
    }

    /// From the narrowest on: the rules that act for the incident, its cluster, everything.
    async fn freeze_around(&self, caller: &Caller, incident: &str, id: &str) -> Result<Modal, Problem> {
        let detail = self.api(caller).incident(incident).await?;
        let title = &detail.incident.title;
        let rules: BTreeSet<&str> = detail.runs.iter().filter_map(|run| run.rule.as_deref()).collect();
        let rules = rules.into_iter().map(|rule| (format!("the rule {rule}"), format!("rule:{rule}")));
        let ours = &self.app.parts.world.default_cluster;
        let cluster = detail.incident.subject.cluster.as_deref().unwrap_or(ours);
        let cluster = (!cluster.is_empty()).then(|| (format!("the cluster {cluster}"), format!("cluster:{cluster}")));
        let choices: Vec<(String, String)> =
            rules.chain(cluster).chain([("everything".to_owned(), "all".to_owned())]).collect();
        let narrowest = choices.first().map(|(_, scope)| scope.clone());
        let mut modal = Modal::form("Freeze", "Freeze", id)
            .says(&format!("{incident}: {title}"))
            .says("Stops all actions within two seconds; running steps finish first.");
        modal.asks(Field::new(SCOPE, "What?").of(choices).initial(narrowest));
        modal.asks(Field::new(WHY, "Why?").long().hint("Recorded in the ledger."));
        Ok(modal)
    }

    pub(super) fn runbook(&self, name: &str) -> Result<Arc<Runbook>, Problem> {
        let loaded = (self.app.current)();
        loaded.runbooks.get(name).cloned().ok_or_else(|| {
            let near = crate::config::closest(name, loaded.runbooks.keys().map(String::as_str));
            let hint =
                near.map_or_else(|| "see `nightshift runbooks`".to_owned(), |near| format!("did you mean `{near}`?"));
            Problem::not_found(format!("there is no runbook `{}`", name.escape_debug()), hint)
        })
    }

    fn api<'a>(&'a self, caller: &'a Caller) -> Inside<'a> {
        Inside::new(&self.app, caller)
    }

    /// The omitted parts of a command that a form can request.
    pub(super) fn left_open(&self, line: &str) -> Option<Purpose> {
        self.door.web.as_ref()?;
        let mut words = line.split_whitespace();
        let verb = words.next()?.to_ascii_lowercase();
        let rest: Vec<&str> = words.collect();
        match (verb.as_str(), &rest[..]) {
            ("silence", []) => Some(Purpose::Silence { incident: String::new() }),
            ("silence", [incident]) => Some(Purpose::Silence { incident: (*incident).to_owned() }),
            ("freeze", []) => Some(Purpose::Freeze { scope: "all".to_owned() }),
            ("run", []) => Some(Purpose::Pick),
            ("run", [name, given @ ..]) => {
                let runbook = self.runbook(name).ok()?;
                let given: Map<String, Value> = given
                    .iter()
                    .map(|word| word.split_once('='))
                    .map(|word| word.map(|(name, value)| (name.to_owned(), Value::from(value))))
                    .collect::<Option<_>>()?;
                let missing = |param: &Param| param.default.is_none() && !given.contains_key(&param.name);
                let some = runbook.header.params.iter().any(missing);
                some.then(|| Purpose::Run { runbook: (*name).to_owned(), given })
            }
            _ => None,
        }
    }
}

pub(super) const WHY: &str = "why";
pub(super) const LASTS: &str = "lasts";
pub(super) const INCIDENT: &str = "incident";
pub(super) const SCOPE: &str = "scope";
pub(super) const RUNBOOK: &str = "runbook";

/// A form with a field for each parameter of a runbook.
fn run(runbook: &Runbook, given: &Map<String, Value>, id: &str) -> Result<Modal, Problem> {
    let header = &runbook.header;
    let mut modal = Modal::form("Run a runbook", "Start", id).says(&format!("{}: {}", runbook.pin.name, header.title));
    for param in &header.params {
        let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let initial = given.get(&param.name).or(param.default.as_ref()).map(word);
        let label = format!("{} ({})", param.name, param.ty.name());
        let field =
            Field::new(&param.name, &label).hint(param.doc.as_str()).optional(param.default.is_some()).initial(initial);
        let both = ["true", "false"].map(|word| (word.to_owned(), word.to_owned()));
        let field = if param.ty == ParamType::Bool { field.of(both) } else { field };
        if !modal.asks(field) {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                format!("`{}` has more parameters than a form takes", runbook.pin.name),
                format!("write them: `run {} name=value …`", runbook.pin.name),
            ));
        }
    }
    Ok(modal)
}

/// The parameters in a form: texts, except those of another type.
pub(super) fn params(runbook: &Runbook, answers: &Answers) -> Map<String, Value> {
    let value = |param: &Param| {
        let text = answers.get(&param.name)?;
        let parsed = match param.ty {
            ParamType::Int | ParamType::Float | ParamType::Bool | ParamType::Any | ParamType::Gpu => {
                serde_json::from_str(text).ok()
            }
            _ => None,
        };
        Some((param.name.clone(), parsed.unwrap_or_else(|| Value::from(text.as_str()))))
    };
    runbook.header.params.iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(id: &str, user: &str, until: Time) -> Form {
        let purpose = Purpose::Freeze { scope: "all".to_owned() };
        Form { id: id.to_owned(), user: user.to_owned(), purpose, reply_to: String::new(), until }
    }

    #[test]
    fn a_form_counts_once_for_its_person_until_its_time_and_the_oldest_is_forgotten() {
        let forms = Forms::default();
        let now: Time = "2026-11-23T03:00:00Z".parse().unwrap();
        let later = now + limits::SLACK_FORM_LIFE;
        forms.open(form("x", "U1", later), now);
        assert!(forms.take("x", "U2", now).is_none(), "another user's");
        assert!(forms.take("x", "U1", now).is_some());
        assert!(forms.take("x", "U1", now).is_none(), "sent before");
        forms.open(form("y", "U1", later), now);
        assert!(forms.take("y", "U1", later).is_none(), "too old");
        for no in 0..=limits::SLACK_FORMS {
            forms.open(form(&no.to_string(), "U1", later), now);
        }
        assert!(forms.take("0", "U1", now).is_none());
        assert!(forms.take("1", "U1", now).is_some());
    }
}
