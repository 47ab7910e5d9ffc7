//! Silences of Alertmanager: those that hold are respected, and a user can make one from here.
//!
//! Invariant: a request to a source is in the ledger first; a missing answer of a source is a doubt in words, not a no.

use super::EngineParts;
use crate::config::{SecretSource, SourceConfig};
use crate::limits;
use crate::model::{Actor, EntryKind, EntryLinks, Episode, EpisodeState, IncidentId, Labels, Run, Span, Time};
use crate::sources::alertmanager_api::{self as api, Silence};
use crate::store::{Filter, StoreError};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// By fingerprint of the alert, or why that could not be read.
type SilenceResult = Result<Arc<HashMap<String, Silence>>, String>;

/// The sources' recent lists of silences, so that a thousand held runs read them once.
#[derive(Default)]
pub(super) struct SilenceCache {
    known: Mutex<HashMap<String, SilenceSlot>>,
}

/// One source's last answer and its time. Locked while that source is read, so that a source that hangs keeps the runs
/// of its own alerts alone.
type SilenceSlot = Arc<tokio::sync::Mutex<Option<(Time, SilenceResult)>>>;

impl SilenceCache {
    /// Why the alert behind a run is left to others, if a silence covers it, or if that is unknown.
    pub async fn about(&self, parts: &EngineParts, run: &Run) -> Option<String> {
        run.episode?;
        if parts.config.sources.values().all(|source| source.api.is_none()) {
            return None;
        }
        let filter = Filter { run: Some(run.id), limit: 1, ..Filter::default() };
        let episodes = match parts.store.episodes(filter).await {
            Ok(episodes) => episodes,
            Err(error) => return Some(format!("the alert behind the run could not be read: {error}")),
        };
        let event = episodes.into_iter().next()?.event;
        let source = parts.config.sources.get(&event.source)?;
        let base = source.api.as_deref()?;
        match self.ask(parts, &event.source, source, base).await {
            Ok(silenced) => {
                let Silence { id, by, why, until } = silenced.get(&event.fingerprint)?;
                let shown = |text: &str| text.chars().take(limits::REASON_CHARS).collect::<String>();
                let until = until.strftime("%Y-%m-%d %H:%M UTC");
                let (name, by, why, at) = (event.name(), shown(by), shown(why), &event.source);
                Some(format!("alert {name} is silenced at {at} by {by} until {until}: {why} (silence {})", shown(id)))
            }
            Err(why) => {
                Some(format!("whether alert {} is silenced at {} could not be read: {why}", event.name(), event.source))
            }
        }
    }

    async fn ask(&self, parts: &EngineParts, name: &str, source: &SourceConfig, base: &str) -> SilenceResult {
        let asked = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            SilenceSlot::clone(known.entry(name.to_owned()).or_default())
        };
        let mut asked = asked.lock().await;
        let now = parts.clock.now();
        if let Some((at, answer)) = asked.as_ref()
            && *at <= now
            && *at + limits::SILENCES_FRESH > now
        {
            return answer.clone();
        }
        let answer = match token(source) {
            Ok(token) => {
                let fetched = api::fetch_silenced(&parts.world.http, base, token.as_deref()).await;
                fetched.map(Arc::new).map_err(|error| error.to_string())
            }
            Err(why) => Err(why),
        };
        *asked = Some((parts.clock.now(), answer.clone()));
        answer
    }
}

fn token(source: &SourceConfig) -> Result<Option<String>, String> {
    source.api_token.as_ref().map(SecretSource::read).transpose()
}

/// The result of a request for a silence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SilenceOutcome {
    /// Source and id of each silence that was made.
    pub made: Vec<(String, String)>,
    /// Alerts that could not be silenced, and why.
    pub left: Vec<String>,
    pub until: Time,
}

/// Silences the alerts of an incident that still fire, each at its own Alertmanager, in the words of a user.
///
/// # Errors
///
/// Fails with `Refused` when the span is out of bounds, no alert fires or too many do, and when the store cannot be
/// read or written.
pub async fn silence(
    parts: &EngineParts,
    incident: IncidentId,
    lasts: Span,
    by: &str,
    why: &str,
) -> Result<SilenceOutcome, StoreError> {
    let refused = |why: String| Err(StoreError::Refused(why));
    if lasts < limits::SILENCE_MIN || lasts > limits::SILENCE_MAX {
        return refused(format!(
            "a silence lasts from {} to {}, not {lasts}",
            limits::SILENCE_MIN,
            limits::SILENCE_MAX
        ));
    }
    let most = limits::SILENCED_ALERTS + 1;
    let filter = Filter { incident: Some(incident), open: true, limit: most, ..Filter::default() };
    let episodes = parts.store.episodes(filter).await?;
    let firing: Vec<Episode> = episodes.into_iter().filter(|episode| episode.state == EpisodeState::Open).collect();
    if firing.is_empty() {
        return refused(format!("no alert of {incident} fires any more"));
    }
    if firing.len() > limits::SILENCED_ALERTS {
        let text = format!("{incident} has more than {} alerts", limits::SILENCED_ALERTS);
        return refused(format!("{text}: silence them in Alertmanager by their common labels"));
    }
    let now = parts.clock.now();
    let until = now.checked_add(lasts.0).map_err(|_| StoreError::Refused("there is no such time".to_owned()))?;
    let about = EntryLinks { incident: Some(incident), run: None };
    let asked = EntryKind::SilenceAsked { alerts: firing.len(), until, by: by.to_owned(), why: why.to_owned() };
    parts.store.note(Actor::person(by), about, asked, now).await?;
    let mut silenced = SilenceOutcome { until, ..SilenceOutcome::default() };
    let mut sources: BTreeMap<String, Vec<Episode>> = BTreeMap::new();
    for episode in firing {
        sources.entry(episode.event.source.clone()).or_default().push(episode);
    }
    let wish = Silence { id: String::new(), by: format!("{by} (Nightshift {incident})"), why: why.to_owned(), until };
    for (name, episodes) in sources {
        match at_source(parts, &name, &episodes, &wish, now).await {
            Ok((made, left)) => {
                silenced.left.extend(left);
                for id in made {
                    let (source, by) = (name.clone(), by.to_owned());
                    let entry = EntryKind::SilenceMade { source, silence: id.clone(), until, by };
                    parts.store.note(Actor::engine(), about, entry, parts.clock.now()).await?;
                    silenced.made.push((name.clone(), id));
                }
            }
            Err(why) => silenced.left.push(why),
        }
    }
    if !silenced.left.is_empty() {
        let text = format!("not silenced: {}", silenced.left.join("; "));
        parts.store.note(Actor::engine(), about, EntryKind::Trouble { text }, parts.clock.now()).await?;
    }
    parts.nudge.nudge();
    Ok(silenced)
}

/// The ids of the silences made, and the alerts that were not silenced, with the reason.
async fn at_source(
    parts: &EngineParts,
    name: &str,
    episodes: &[Episode],
    wish: &Silence,
    now: Time,
) -> Result<(Vec<String>, Vec<String>), String> {
    let source = parts.config.sources.get(name);
    let Some((source, base)) = source.and_then(|source| Some((source, source.api.as_deref()?))) else {
        return Err(format!("source {name} has no Alertmanager API configured (`sources.{name}.api`)"));
    };
    let (http, token) = (&parts.world.http, token(source)?);
    // Labels as Alertmanager has them: ours may have some that the configuration added.
    let snapshot = api::fetch(http, base, token.as_deref()).await.map_err(|error| format!("{name}: {error}"))?;
    let (mut made, mut left) = (Vec::new(), Vec::new());
    for episode in episodes {
        let labels: Option<&Labels> = snapshot.alerts.get(&episode.event.fingerprint).map(|(labels, _)| labels);
        let Some(labels) = labels else {
            left.push(format!("{name} does not have the alert {} any more", episode.event.name()));
            continue;
        };
        match api::create_silence(http, base, token.as_deref(), labels, wish, now).await {
            Ok(id) => made.push(id),
            Err(error) => left.push(format!("{}: {error}", episode.event.name())),
        }
    }
    Ok((made, left))
}
