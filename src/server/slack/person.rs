//! Who somebody in Slack is here, and the refusals that follow from it.
//!
//! Invariant: a person is a user id of our workspace and our app; every refusal is counted, and goes into the ledger as far
//! as nobody can fill it.

use super::Chat;
use crate::limits;
use crate::model::{About, Actor, EntryKind, Time};
use crate::notifiers::one_line;
use crate::planted::planted;
use crate::server::{Caller, Problem, Way};
use crate::store::Filter;
use axum::http::StatusCode;
use std::sync::{Mutex, PoisonError};

/// How many refusals this minute has seen.
#[derive(Default)]
pub(super) struct Refusals(Mutex<(i64, usize)>);

impl Refusals {
    /// Whether one more may be written down.
    fn take(&self, now: Time) -> bool {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let this = now.as_second() / 60;
        if minute.0 != this {
            *minute = (this, 0);
        }
        minute.1 += 1;
        minute.1 <= limits::SLACK_REFUSALS_PER_MINUTE
    }
}

impl Chat {
    /// The person behind a user id, with the role that the configuration gives now.
    pub(super) async fn person(&self, team: &str, app: &str, user: &str) -> Result<Caller, Problem> {
        if let Some(caller) = self.known(team, app, user) {
            return Ok(caller);
        }
        self.app.parts.metrics.auth_failed();
        let shown: String = user.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
        let problem = if self.at_home(team, app) {
            let error = format!("nobody in `people` has the Slack user id {shown}");
            Problem::new(StatusCode::FORBIDDEN, error, "an operator adds `slack: …` to your entry under `people`")
        } else {
            Problem::new(
                StatusCode::FORBIDDEN,
                "this workspace, or this app, is not the one that is set up here",
                "an operator compares `slack.team` and `slack.app` in nightshift.yaml with Slack's ids",
            )
        };
        self.note(format!("Slack user {shown}"), About::default(), &problem).await;
        Err(problem)
    }

    /// The same without a word about who is not known.
    pub(super) fn known(&self, team: &str, app: &str, user: &str) -> Option<Caller> {
        if !self.at_home(team, app) {
            return None;
        }
        let roster = self.app.roster.now();
        let person = roster.by_slack(user)?;
        let second = if planted("self-approval-by-a-second-identity") { " (Slack)" } else { "" };
        Some(Caller { name: format!("{}{second}", person.name), ..Caller::of(person, Way::Slack) })
    }

    /// Whether it is our workspace and our app, as far as the configuration names them.
    fn at_home(&self, team: &str, app: &str) -> bool {
        let slack = self.app.parts.config.slack.as_ref();
        let ours = |set: Option<&String>, given: &str| set.is_none_or(|set| set == given);
        ours(slack.and_then(|slack| slack.team.as_ref()), team) && ours(slack.and_then(|slack| slack.app.as_ref()), app)
    }

    /// Writes down who may not do what they tried, where that is what the problem says. `line`: the words of the command;
    /// the first two say what it was and what about.
    pub(super) async fn refused(&self, by: &str, line: &str, problem: &Problem) {
        if problem.status != StatusCode::FORBIDDEN {
            return;
        }
        let about = match line.split_whitespace().nth(1) {
            Some(id) => self.about(id).await,
            None => About::default(),
        };
        let tried: Vec<&str> = line.split_whitespace().take(2).collect();
        let by = format!("{by} tried `{}` in Slack,", one_line(&tried.join(" ").replace('`', "'"), 80));
        self.note(by, about, problem).await;
    }

    async fn note(&self, by: String, about: About, problem: &Problem) {
        let parts = &self.app.parts;
        let now = parts.clock.now();
        if !self.door.refusals.take(now) {
            return;
        }
        let text = one_line(&format!("and was refused: {}", problem.error), limits::STORY_LINE_CHARS);
        let noted = parts.store.note(Actor("slack".to_owned()), about, EntryKind::Remarked { by, text }, now).await;
        match noted {
            Ok(_) => parts.nudge.nudge(),
            Err(error) => tracing::error!(%error, "a refusal could not be written down"),
        }
    }

    /// The incident and run that an id belongs to, where there is one.
    async fn about(&self, id: &str) -> About {
        let store = &self.app.parts.store;
        let id = id.to_ascii_lowercase();
        let run = match id.parse() {
            Ok(run) => Some(run),
            Err(_) => match id.parse::<crate::model::ApprovalId>() {
                Ok(approval) => {
                    let filter = Filter { after: Some(approval.0 - 1), limit: 1, ..Filter::default() };
                    let found = store.approvals(filter).await.unwrap_or_default();
                    found.into_iter().find(|found| found.id == approval).map(|found| found.run)
                }
                Err(_) => None,
            },
        };
        let Some(run) = run else {
            let Ok(incident) = id.parse() else { return About::default() };
            let filter = Filter { incident: Some(incident), limit: 1, ..Filter::default() };
            let there = store.incidents(filter).await.is_ok_and(|found| found.iter().any(|found| found.id == incident));
            return About { incident: there.then_some(incident), run: None };
        };
        let found = store.runs(Filter { run: Some(run), limit: 1, ..Filter::default() }).await.unwrap_or_default();
        let found = found.into_iter().find(|found| found.id == run);
        About { incident: found.as_ref().and_then(|run| run.incident), run: found.map(|run| run.id) }
    }
}
