//! Channels: how each stands, and a test message through one.
//!
//! Invariant: a test goes through the running engine's own notifier, and is in the ledger with who sent it and its answer.

use super::{Allowed, App, Problem, refuse};
use crate::api::{ChannelList, ChannelState, ChannelStatus, ChannelTest, LastDelivery, SwitchedOff};
use crate::limits;
use crate::model::{About, Actor, Entry, EntryKind, EntryNo};
use crate::notifiers::{self, ANYWHERE, Notifier, Trial};
use crate::store::Filter;
use axum::Json;
use axum::extract::{Path, State};
use std::sync::Arc;

pub(super) async fn list(_: Allowed, State(app): State<App>) -> Result<Json<ChannelList>, Problem> {
    let kinds = vec!["delivered", "delivery_failed"];
    let filter = Filter { kinds, limit: limits::READ_LIMIT, ..Filter::default() };
    let entries = app.parts.store.entries(filter).await.map_err(refuse::store)?;
    let channels =
        app.parts.notifiers.iter().map(|(name, notifier)| standing(name, notifier.as_ref(), &entries)).collect();
    Ok(Json(ChannelList { channels }))
}

/// `off`: no secret. `failing`: its latest delivery failed. `on`: neither.
fn standing(name: &str, notifier: &dyn Notifier, entries: &[Entry]) -> ChannelStatus {
    let of = |entry: &&Entry| match &entry.kind {
        EntryKind::Delivered { channel, .. } | EntryKind::DeliveryFailed { channel, .. } => channel == name,
        _ => false,
    };
    let is_delivery = |entry: &&Entry| matches!(entry.kind, EntryKind::Delivered { .. });
    let latest = entries.iter().filter(of).max_by_key(|entry| entry.no);
    let delivered = entries.iter().filter(of).filter(is_delivery).max_by_key(|entry| entry.no);
    let failed = latest.and_then(|entry| match &entry.kind {
        EntryKind::DeliveryFailed { why, .. } => Some(why.clone()),
        _ => None,
    });
    let (state, why) = match (notifier.off(), failed) {
        (Some(why), _) => (ChannelState::Off, Some(why)),
        (None, Some(why)) => (ChannelState::Failing, Some(why)),
        (None, None) => (ChannelState::On, None),
    };
    ChannelStatus {
        name: if name == ANYWHERE { "log" } else { name }.to_owned(),
        kind: notifier.kind().word().to_owned(),
        state,
        why,
        last_delivery: delivered.map(|entry| LastDelivery { at: entry.at, incident: entry.about.incident }),
    }
}

/// The parts of the running engine that are off: channels, and other settings whose secret or file cannot be read.
pub(super) fn off(app: &App) -> Vec<SwitchedOff> {
    let channels = app.parts.notifiers.iter().filter_map(|(name, notifier)| {
        let why = notifier.off()?;
        Some(SwitchedOff { what: format!("channel {name}"), why, off: "its messages wait".to_owned(), fix: None })
    });
    let others = app.parts.config.missing().into_iter();
    let others = others.filter(|missing| !missing.path.starts_with("channels.")).map(|missing| SwitchedOff {
        what: missing.path,
        why: missing.why,
        off: missing.off,
        fix: Some(missing.fix),
    });
    channels.chain(others).collect()
}

pub(super) async fn test(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<ChannelTest>, Problem> {
    caller.need_everywhere("a channel")?;
    let notifiers = Arc::clone(&app.parts.notifiers);
    if !notifiers.contains_key(&name) {
        let known = notifiers.keys().map(String::as_str).filter(|known| *known != ANYWHERE).collect::<Vec<_>>();
        let hint = match crate::config::closest(&name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "no channel is configured: add one under `channels`".to_owned(),
            None => format!("there are: {}", known.join(", ")),
        };
        return Err(refuse::missing(format!("channel `{}`", name.escape_debug()), hint));
    }
    let (install, by, now) = (app.parts.config.install.clone(), caller.name.clone(), app.parts.clock.now());
    // In a task of its own: a client that goes away must not leave an alert open at the other side.
    let (asked, sender) = (name.clone(), by.clone());
    let sent = tokio::spawn(async move {
        let notifier = notifiers.get(&asked)?;
        let sending = notifiers::test(notifier.as_ref(), &install, &sender, now);
        Some(tokio::time::timeout(limits::CHANNEL_TEST, sending).await.unwrap_or_else(|_| Trial {
            delivered: false,
            answer: format!("no answer within {} s", limits::CHANNEL_TEST.as_secs()),
        }))
    });
    let failed = || Trial { delivered: false, answer: "a bug ended the test; see the engine's log".to_owned() };
    let trial = sent.await.ok().flatten().unwrap_or_else(failed);
    let verdict = if trial.delivered { "delivered" } else { "not delivered" };
    let text = format!("sent a test message to channel {name}: {verdict}: {}", trial.answer);
    let entry = EntryKind::Remarked { by: by.clone(), text };
    let noted = app.parts.store.note(Actor::person(&by), About::default(), entry, app.parts.clock.now()).await;
    noted.map_err(refuse::store)?;
    // A delivery like another: the channel's state is the result of the last one.
    let became = match trial.delivered {
        true => EntryKind::Delivered { channel: name.clone(), upto: EntryNo(0) },
        false => EntryKind::DeliveryFailed { channel: name.clone(), why: trial.answer.clone(), final_: true },
    };
    let noted = app.parts.store.note(Actor::person(&by), About::default(), became, app.parts.clock.now()).await;
    noted.map_err(refuse::store)?;
    tracing::info!(channel = %name, %by, delivered = trial.delivered, answer = %trial.answer, "a test message was sent");
    Ok(Json(ChannelTest { channel: name, delivered: trial.delivered, answer: trial.answer }))
}
