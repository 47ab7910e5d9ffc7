//! The entry of a Slack user here.
//!
//! Invariant: a user is a user id of our workspace and our app, with the role that holds now; a user without an entry
//! is refused with that reason, and the ledger has it.

use super::SlackReceiver;
use crate::planted::planted;
use crate::server::{AuthMethod, Caller, Problem};
use axum::http::StatusCode;

impl SlackReceiver {
    /// The user behind a user id, with the role that holds now.
    pub(super) async fn person(&self, team: &str, app: &str, user: &str) -> Result<Caller, Problem> {
        if let Some(caller) = self.known(team, app, user) {
            return Ok(caller);
        }
        self.app.parts.metrics.auth_failed();
        let shown: String = user.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
        let problem = if self.at_home(team, app) {
            let error = format!("no entry of `people` has the Slack user ID {shown}");
            Problem::new(StatusCode::FORBIDDEN, error, "an operator adds `slack: …` to your entry under `people`")
        } else {
            Problem::new(
                StatusCode::FORBIDDEN,
                "this workspace, or this app, is not the one that is set up here",
                "an operator compares `slack.team` and `slack.app` in nightshift.yaml with Slack's IDs",
            )
        };
        let who = format!("Slack user {shown}");
        self.app.witness.refused(&self.app, &who, "this in Slack", "", &problem.error).await;
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
        Some(Caller { name: format!("{}{second}", person.name), ..Caller::of(person, AuthMethod::Slack) })
    }

    /// Whether it is our workspace and our app, as far as the configuration names them.
    fn at_home(&self, team: &str, app: &str) -> bool {
        let slack = self.app.parts.config.slack.as_ref();
        let ours = |set: Option<&String>, given: &str| set.is_none_or(|set| set == given);
        ours(slack.and_then(|slack| slack.team.as_ref()), team) && ours(slack.and_then(|slack| slack.app.as_ref()), app)
    }
}
