//! The alerts of an incident in words: a title with all its subjects, one line per alert, and their links.
//!
//! Invariant: a link is an http or https address without credentials, checked as data; its words are our own.

use super::NotificationDispatcher;
use crate::limits::{ALERTS_READ, ALERTS_SHOWN, DESCRIPTION_CHARS, LINKS_SHOWN, STORY_LINE_CHARS};
use crate::model::{AlertLine, Episode, EpisodeState, Event, Incident, NoticeLink};
use crate::notifiers::{one_line, web_link};
use crate::policy::{incident_title, title_of};
use crate::store::{Filter, StoreError};

/// The part of a message about the alerts of an incident.
#[derive(Debug, Default)]
pub(super) struct AlertSection {
    /// With all subjects; none where no alert is stored.
    pub title: Option<String>,
    pub lines: Vec<AlertLine>,
    pub left_out: u32,
    pub links: Vec<NoticeLink>,
}

impl NotificationDispatcher {
    pub(super) async fn alerts(&self, incident: &Incident) -> Result<AlertSection, StoreError> {
        let about = |open| Filter { incident: Some(incident.id), open, limit: ALERTS_READ, ..Filter::default() };
        let mut episodes = self.views.episodes(about(true)).await?;
        if episodes.is_empty() {
            episodes = self.views.episodes(about(false)).await?;
        }
        episodes.sort_by_key(|episode| episode.id);
        Ok(alerts(&episodes, incident))
    }
}

/// The title of an incident with all its subjects: of firing alerts, or of ended ones where none fires. None where no
/// alert is stored.
pub fn alert_title(episodes: &[Episode]) -> Option<String> {
    let mut sorted: Vec<&Episode> = episodes.iter().filter(|episode| episode.state == EpisodeState::Open).collect();
    if sorted.is_empty() {
        sorted = episodes.iter().collect();
    }
    sorted.sort_by_key(|episode| episode.id);
    title_of(&sorted.into_iter().map(|episode| &episode.event).collect::<Vec<_>>())
}

fn alerts(episodes: &[Episode], incident: &Incident) -> AlertSection {
    let events: Vec<&Event> = episodes.iter().map(|episode| &episode.event).collect();
    let title = alert_title(episodes);
    let mut all: Vec<AlertLine> = Vec::new();
    for episode in episodes {
        let line = line(episode);
        // Two sources that report one condition are one line.
        if !all.iter().any(|other| other.what == line.what && other.description == line.description) {
            all.push(line);
        }
    }
    all.sort_by_key(|line| std::cmp::Reverse(line.severity));
    let firing = u32::try_from(all.len()).unwrap_or(u32::MAX).max(incident.firing.min(incident.episodes));
    all.truncate(ALERTS_SHOWN);
    for at in (1..all.len()).rev() {
        let (before, line) = all.split_at_mut(at);
        if before.iter().any(|other| other.description == line[0].description) {
            line[0].description.clear();
        }
    }
    let unread = episodes.len() >= ALERTS_READ;
    let distinct = if unread { firing } else { u32::try_from(distinct(episodes)).unwrap_or(u32::MAX) };
    let shown = u32::try_from(all.len()).unwrap_or(u32::MAX);
    AlertSection { title, left_out: distinct.saturating_sub(shown), lines: all, links: alert_links(&events) }
}

fn distinct(episodes: &[Episode]) -> usize {
    let mut seen: Vec<(String, String)> = episodes.iter().map(line).map(|line| (line.what, line.description)).collect();
    seen.sort_unstable();
    seen.dedup();
    seen.len()
}

fn line(episode: &Episode) -> AlertLine {
    let event = &episode.event;
    let what = one_line(&incident_title(event), STORY_LINE_CHARS);
    let description = ["description", "message"]
        .into_iter()
        .map(|name| event.annotations.get(name))
        .find(|text| !text.trim().is_empty())
        .map(|text| one_line(text.trim(), DESCRIPTION_CHARS))
        .filter(|text| *text != what && *text != event.summary)
        .unwrap_or_default();
    AlertLine {
        what,
        name: one_line(event.name(), STORY_LINE_CHARS),
        severity: event.severity,
        firing: episode.state == EpisodeState::Open,
        since: event.starts_at,
        description,
    }
}

/// Runbooks first, then dashboards, then where the alerts come from; each address once.
pub fn alert_links(events: &[&Event]) -> Vec<NoticeLink> {
    let mut found: Vec<(u8, NoticeLink)> = Vec::new();
    let mut add = |rank: u8, label: &str, text: &str| {
        if let Some(url) = web_link(text.trim())
            && !found.iter().any(|(_, link)| link.url == url)
        {
            found.push((rank, NoticeLink { label: label.to_owned(), url: url.to_owned() }));
        }
    };
    for event in events {
        for (name, value) in event.annotations.iter() {
            match name.to_ascii_lowercase().as_str() {
                "runbook_url" | "runbook" | "runbookurl" => add(0, "Runbook", value),
                name if name.starts_with("dashboard") || name.ends_with("dashboard_url") => add(1, "Dashboard", value),
                _ => {}
            }
        }
        add(2, "Alert source", &event.url);
    }
    found.sort_by_key(|(rank, _)| *rank);
    found.truncate(LINKS_SHOWN);
    found.into_iter().map(|(_, link)| link).collect()
}
