//! Socket Mode: the engine connects to Slack and receives there the requests of HTTP. Keeps one connection open, and
//! opens its successor before it closes.
//!
//! Invariant: between two attempts there is always a wait with jitter, at least Slack's own; an error is in the status,
//! with its fix.

use super::link::{Left, Link};
use super::{App, Chat};
use crate::api::SlackConnection;
use crate::clock::Clock;
use crate::limits;
use crate::model::Time;
use crate::notifiers::slack::Refusal;
use crate::policy::backoff;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Whether Slack is connected, for the status and the metric.
#[derive(Default)]
pub(in crate::server) struct Standing(Mutex<State>);

#[derive(Default)]
struct State {
    links: usize,
    since: Option<Time>,
    /// The error, and its fix.
    why: String,
}

impl Standing {
    fn set(&self, links: usize, why: &str, now: Time) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if (state.links == 0) != (links == 0) || state.since.is_none() {
            state.since = Some(now);
        }
        (state.links, state.why) = (links, why.to_owned());
    }

    pub(in crate::server) fn connection(&self) -> SlackConnection {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let why = (state.links == 0).then(|| match state.why.as_str() {
            "" => "it is connecting",
            why => why,
        });
        SlackConnection { connected: state.links > 0, since: state.since, why: why.map(str::to_owned) }
    }
}

type Opening = BoxFuture<'static, Result<Box<Link>, Refusal>>;

/// Keeps the engine connected where the configuration has an app token; otherwise only waits for the end.
pub async fn listen(app: App, mut stopped: watch::Receiver<bool>) {
    let wanted = app.parts.config.slack.as_ref().is_some_and(|slack| slack.app_token.is_some());
    let Some(chat) = Chat::of(&app).ok().filter(|_| wanted) else {
        let _ = stopped.wait_for(|stopped| *stopped).await;
        return;
    };
    let mut keeper = Keeper {
        clock: Arc::clone(&app.parts.clock),
        // Engines that lost Slack together must not come back together.
        seed: app.parts.clock.now().as_microsecond().unsigned_abs() ^ u64::from(std::process::id()),
        chat,
        links: FuturesUnordered::new(),
        opening: None,
        live: 0,
        fresh: 0,
        failures: 0,
    };
    keeper.open_after(Duration::ZERO);
    tokio::select! {
        () = keeper.keep() => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

struct Keeper {
    chat: Chat,
    clock: Arc<dyn Clock>,
    seed: u64,
    links: FuturesUnordered<BoxFuture<'static, Left>>,
    opening: Option<Opening>,
    /// Connections that receive, and those of them that Slack has not called off.
    live: usize,
    fresh: usize,
    /// Attempts and short-lived connections since the last good one.
    failures: u32,
}

enum Next {
    Opened(Result<Box<Link>, Refusal>),
    Left(Left),
}

impl Keeper {
    async fn keep(&mut self) {
        loop {
            let Keeper { opening, links, .. } = self;
            let opened = async {
                match opening {
                    Some(opening) => opening.await,
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                opened = opened => Next::Opened(opened),
                Some(left) = links.next() => Next::Left(left),
            };
            match next {
                Next::Opened(opened) => {
                    self.opening = None;
                    self.opened(opened);
                }
                Next::Left(left) => self.left(left),
            }
        }
    }

    fn opened(&mut self, opened: Result<Box<Link>, Refusal>) {
        self.chat.app.parts.metrics.slack_opened(opened.is_ok());
        match opened {
            Ok(link) => {
                tracing::info!("Slack is connected (Socket Mode)");
                (self.live, self.fresh) = (self.live + 1, self.fresh + 1);
                self.links.push(Box::pin(link.listen()));
                self.say("");
            }
            Err(refusal) => {
                tracing::warn!(why = %refusal.why, "Slack is not connected");
                self.say(&refusal.why);
                let wait = self.wait(refusal.after, refusal.lasting);
                self.open_after(wait);
            }
        }
    }

    fn left(&mut self, left: Left) {
        match left {
            Left::CalledOff { link, born } => {
                // It goes on hearing until its successor is there.
                self.fresh = self.fresh.saturating_sub(1);
                self.links.push(Box::pin(link.listen()));
                let wait = self.after_life(born);
                self.open_if_none(wait);
            }
            Left::Ended { born, called_off, why, lasting } => {
                self.live = self.live.saturating_sub(1);
                if !called_off {
                    self.fresh = self.fresh.saturating_sub(1);
                    tracing::warn!(%why, "a connection with Slack ended");
                }
                let wait = match lasting {
                    true => self.wait(None, true),
                    false => self.after_life(born),
                };
                self.say(&why);
                self.open_if_none(wait);
            }
        }
    }

    fn say(&self, why: &str) {
        self.chat.door.standing.set(self.live, why, self.clock.now());
        self.chat.app.parts.metrics.set_slack_connected(self.live > 0);
    }

    /// A connection that lived was a good one, and its successor comes at once; one that did not is a failed attempt.
    fn after_life(&mut self, born: Time) -> Duration {
        if self.clock.now() >= born + limits::SLACK_QUIET {
            self.failures = 0;
            return Duration::ZERO;
        }
        self.wait(None, false)
    }

    fn wait(&mut self, after: Option<Duration>, lasting: bool) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let most = if lasting { limits::SLACK_AGAIN_MENDED } else { limits::SLACK_AGAIN_MAX };
        let first = if lasting { most } else { limits::SLACK_AGAIN_FIRST };
        let asked = after.unwrap_or_default().min(limits::RETRY_AFTER_MAX);
        asked + backoff(self.failures, first, most, self.seed)
    }

    fn open_if_none(&mut self, wait: Duration) {
        if self.opening.is_none() && self.fresh == 0 {
            self.open_after(wait);
        }
    }

    fn open_after(&mut self, wait: Duration) {
        let (chat, clock) = (self.chat.clone(), Arc::clone(&self.clock));
        let at = clock.monotonic() + wait;
        self.opening = Some(Box::pin(async move {
            clock.sleep_until_monotonic(at).await;
            Link::open(chat).await
        }));
    }
}
