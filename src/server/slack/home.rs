//! A user's page: published when they open it, and after their acts.
//!
//! Invariant: at most one publication of a page each `SLACK_HOME_EVERY`, and the last one shows the state then.

use super::Chat;
use super::said::EventCallback;
use crate::api::ListQuery;
use crate::limits;
use crate::model::{Approval, ApprovalState, Time};
use crate::notifiers::slack::{Home, Page, page, stranger};
use crate::server::api::{self, Inside};
use crate::server::{Caller, Problem, command};
use crate::store::Filter;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// When each user's page was published last, and the note on the next publication.
#[derive(Default)]
pub(super) struct Homes(Mutex<HashMap<String, Shown>>);

struct Shown {
    at: Time,
    /// One is on its way, and takes this along.
    waiting: bool,
    note: Option<String>,
}

impl Homes {
    /// When the page may be published; none: one is on its way already, and takes the note along.
    fn wanted(&self, user: &str, note: Option<String>, now: Time) -> Option<Time> {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.len() >= limits::SLACK_HOMES && !shown.contains_key(user) {
            shown.retain(|_, shown| shown.waiting || shown.at + limits::SLACK_HOME_EVERY > now);
            if shown.len() >= limits::SLACK_HOMES {
                return None;
            }
        }
        let long_ago = Shown { at: now - limits::SLACK_HOME_EVERY, waiting: false, note: None };
        let shown = shown.entry(user.to_owned()).or_insert(long_ago);
        if note.is_some() {
            shown.note = note;
        }
        if shown.waiting {
            return None;
        }
        shown.waiting = true;
        Some((shown.at + limits::SLACK_HOME_EVERY).max(now))
    }

    /// It is being published now: its note.
    fn going(&self, user: &str, now: Time) -> Option<String> {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = shown.get_mut(user)?;
        (shown.at, shown.waiting) = (now, false);
        shown.note.take()
    }
}

impl Chat {
    /// An event: a user has opened their page.
    pub(super) fn event(&self, said: EventCallback) {
        let Some(event) = &said.event else { return };
        let opened = said.kind == "event_callback" && event.kind == "app_home_opened" && event.tab != "messages";
        if opened && !self.door.heard.again(&said.event_id) {
            self.publish(said.team_id.clone(), said.api_app_id.clone(), event.user.clone(), None);
        }
    }

    /// Brings a user's page up to date after an act of theirs. They were identified then.
    pub(super) fn stir(&self, user: &str, note: Option<String>) {
        let slack = self.app.parts.config.slack.as_ref();
        let ours =
            |of: fn(&crate::config::SlackApp) -> Option<&String>| slack.and_then(of).cloned().unwrap_or_default();
        let (team, app) = (ours(|slack| slack.team.as_ref()), ours(|slack| slack.app.as_ref()));
        self.publish(team, app, user.to_owned(), note);
    }

    fn publish(&self, team: String, app: String, user: String, note: Option<String>) {
        let Some(web) = self.door.web.clone() else { return };
        let clock = std::sync::Arc::clone(&self.app.parts.clock);
        let Some(at) = self.door.homes.wanted(&user, note, clock.now()) else { return };
        let chat = self.clone();
        tokio::spawn(async move {
            clock.sleep_until(at).await;
            let note = chat.door.homes.going(&user, clock.now());
            let home = match chat.known(&team, &app, &user) {
                Some(caller) => chat.page(&caller, note.unwrap_or_default()).await,
                None => Ok(stranger(&user)),
            };
            let published = match home {
                Ok(home) => web.publish(&user, &home).await.map_err(|refusal| refusal.why),
                Err(problem) => Err(problem.error),
            };
            if let Err(why) = published {
                tracing::warn!(%why, "app home page not published");
            }
        });
    }

    async fn page(&self, caller: &Caller, note: String) -> Result<Home, Problem> {
        let api = Inside::new(&self.app, caller);
        let open = |limit| ListQuery { open: true, limit: Some(limit), ..ListQuery::default() };
        let status = api.status().await?;
        let incidents = api.incidents(open(limits::SLACK_HOME_ROWS)).await?.incidents;
        let approvals = api.approvals(open(limits::LIST_ROWS)).await?.approvals;
        let all = approvals.len();
        let mut asks = Vec::new();
        for approval in approvals {
            if self.may_answer(caller, &approval).await {
                asks.push(crate::engine::story::question(&approval));
            }
        }
        let guards = api.guards().await?;
        let (frozen, guards) = (command::frozen(&guards), command::guards(&guards));
        let shown = Page {
            install: self.app.parts.config.install.clone(),
            person: caller.name.clone(),
            role: caller.grant.role.to_string(),
            note,
            others: all - asks.len(),
            asks,
            incidents,
            open: status.incidents_open,
            frozen,
            guards: guards.lines().map(str::to_owned).collect(),
            at: self.app.parts.clock.now(),
            link: self.app.parts.config.server.public_url.clone(),
        };
        Ok(page(&shown, &self.door.seal))
    }

    /// Whether this user's answer would count: the page shows no button whose press is refused.
    async fn may_answer(&self, caller: &Caller, approval: &Approval) -> bool {
        let listed = approval.approvers.is_empty() || approval.approvers.contains(&caller.name);
        if approval.state != ApprovalState::Open
            || api::may(caller, "POST", "approvals/{id}").is_err()
            || !listed
            || approval.given.contains(&caller.name)
        {
            return false;
        }
        let filter = Filter { run: Some(approval.run), limit: 1, ..Filter::default() };
        let runs = self.app.parts.store.runs(filter).await.unwrap_or_default();
        runs.iter()
            .find(|run| run.id == approval.run)
            .is_some_and(|run| run.requesters().all(|name| name != caller.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_published_at_once_then_once_an_interval_with_the_latest_note() {
        let homes = Homes::default();
        let now: Time = "2026-11-23T03:00:00Z".parse().unwrap();
        assert_eq!(homes.wanted("U1", None, now), Some(now));
        assert_eq!(homes.wanted("U1", Some("done".to_owned()), now), None, "one is on its way");
        assert_eq!(homes.going("U1", now), Some("done".to_owned()));
        assert_eq!(homes.wanted("U1", None, now), Some(now + limits::SLACK_HOME_EVERY));
        assert_eq!(homes.wanted("U1", Some("a".to_owned()), now), None);
        assert_eq!(homes.wanted("U1", Some("b".to_owned()), now), None);
        assert_eq!(homes.wanted("U2", None, now), Some(now), "others do not wait for it");
        assert_eq!(homes.going("U1", now + limits::SLACK_HOME_EVERY), Some("b".to_owned()));
        for user in 0..limits::SLACK_HOMES + 10 {
            homes.wanted(&user.to_string(), None, now);
        }
        assert!(homes.0.lock().unwrap().len() <= limits::SLACK_HOMES);
    }
}
