//! Alertmanager's API, read to learn what its webhook does not say: silenced, inhibited, gone.
//!
//! Invariant: an answer that is not whole, or from an Alertmanager that has just begun, ends nothing.

use crate::limits;
use crate::model::{Episode, EpisodeId, EpisodeState, Labels, Span, Time};
use crate::world::{Http, HttpRequest, WorldError};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};

/// How an alert stands at Alertmanager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Active,
    /// Ids of the silences.
    Silenced(Vec<String>),
    /// Fingerprints of the alerts that inhibit it.
    Inhibited(Vec<String>),
}

/// What the API said at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// By fingerprint, computed over the labels as everywhere.
    pub alerts: HashMap<String, (Labels, Standing)>,
    /// Since when this Alertmanager runs: it keeps no alerts over a restart.
    pub up_since: Option<Time>,
}

/// What is to be said about an open episode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub episode: EpisodeId,
    pub found: Found,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    StillActive,
    /// It holds, and nobody is to hear of it.
    Silenced {
        by: Vec<String>,
    },
    Inhibited {
        by: Vec<String>,
    },
    /// Alertmanager does not know it any more: its resolve was never sent.
    Gone,
}

/// Asks for all alerts. `base` as configured: `http://alertmanager:9093`, with any path prefix.
pub async fn fetch(http: &Http, base: &str, token: Option<&str>) -> Result<Snapshot, WorldError> {
    let base = base.trim_end_matches('/');
    let all = format!("{base}/api/v2/alerts?active=true&silenced=true&inhibited=true&unprocessed=true");
    let alerts = parse_alerts(&get(http, &all, token).await?).map_err(WorldError::Invalid)?;
    let status = get(http, &format!("{base}/api/v2/status"), token).await?;
    Ok(Snapshot { alerts, up_since: parse_up_since(&status) })
}

/// Compares open episodes of one source with what its Alertmanager says. An episode without a finding is one of which
/// nothing certain can be said yet.
pub fn reconcile(open: &[Episode], snapshot: &Snapshot, now: Time) -> Vec<Finding> {
    // After a restart Alertmanager knows nothing until every Prometheus has spoken again.
    let knows = snapshot.up_since.is_some_and(|since| older(since, now, limits::RECONCILE_GRACE));
    let mut findings = Vec::with_capacity(open.len());
    for episode in open.iter().filter(|episode| episode.state == EpisodeState::Open) {
        let found = match snapshot.alerts.get(&episode.event.fingerprint) {
            Some((_, Standing::Active)) => Found::StillActive,
            Some((_, Standing::Silenced(by))) => Found::Silenced { by: by.clone() },
            Some((_, Standing::Inhibited(by))) => Found::Inhibited { by: by.clone() },
            // Heard of just now: its end, if it is one, is still on its way to us.
            None if knows && older(episode.last_seen, now, limits::RECONCILE_GRACE) => Found::Gone,
            None => continue,
        };
        findings.push(Finding { episode: episode.id, found });
    }
    findings
}

/// Reads the answer of `GET /api/v2/alerts`. One alert that cannot be read spoils the answer: it might be the one.
pub fn parse_alerts(body: &str) -> Result<HashMap<String, (Labels, Standing)>, String> {
    let list: Vec<ApiAlert> = serde_json::from_str(body)
        .map_err(|e| format!("Alertmanager's list of alerts cannot be read: {}", super::draft::json_error(&e)))?;
    let known = list.into_iter().map(|alert| {
        let status = alert.status;
        let standing = if !status.silenced_by.is_empty() {
            Standing::Silenced(status.silenced_by)
        } else if !status.inhibited_by.is_empty() {
            Standing::Inhibited(status.inhibited_by)
        } else {
            // `suppressed` by nothing we can name (a mute time of a newer version) still holds.
            Standing::Active
        };
        let labels: Labels = alert.labels.into_iter().collect();
        (format!("{:016x}", labels.fingerprint()), (labels, standing))
    });
    Ok(known.collect())
}

/// The start of the process in the answer of `GET /api/v2/status`.
pub fn parse_up_since(body: &str) -> Option<Time> {
    let status: serde_json::Value = serde_json::from_str(body).ok()?;
    super::draft::time(status.get("uptime")?.as_str()?).ok()?
}

async fn get(http: &Http, url: &str, token: Option<&str>) -> Result<String, WorldError> {
    let mut headers = BTreeMap::from([("Accept".to_owned(), "application/json".to_owned())]);
    if let Some(token) = token {
        headers.insert("Authorization".to_owned(), format!("Bearer {token}"));
    }
    let request = HttpRequest { method: "GET".to_owned(), url: url.to_owned(), headers, ..HttpRequest::default() };
    let answer = http.send(&request).await?;
    if answer.status == 200 {
        return Ok(answer.body);
    }
    Err(WorldError::Unavailable(format!("Alertmanager answered {} to {url}", answer.status)))
}

fn older(time: Time, now: Time, than: Span) -> bool {
    let age = now.as_microsecond().saturating_sub(time.as_microsecond());
    i128::from(age) >= than.0.as_micros() as i128
}

#[derive(Deserialize)]
struct ApiAlert {
    labels: BTreeMap<String, String>,
    #[serde(default)]
    status: ApiStatus,
}

#[derive(Deserialize, Default)]
struct ApiStatus {
    #[serde(default, rename = "silencedBy", deserialize_with = "null_is_empty")]
    silenced_by: Vec<String>,
    #[serde(default, rename = "inhibitedBy", deserialize_with = "null_is_empty")]
    inhibited_by: Vec<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Event, Severity, Status, Subject};

    const NOW: &str = "2026-11-02T03:00:00Z";

    fn episode(id: i64, name: &str, last_seen: &str) -> Episode {
        let labels: Labels = [("alertname", name)].into_iter().collect();
        let seen: Time = last_seen.parse().unwrap();
        Episode {
            id: EpisodeId(id),
            state: EpisodeState::Open,
            incident: None,
            opened_at: seen,
            last_seen: seen,
            seen: 1,
            reopened: 0,
            event: Event {
                source: "prod".into(),
                fingerprint: format!("{:016x}", labels.fingerprint()),
                status: Status::Firing,
                starts_at: seen,
                ends_at: None,
                labels,
                annotations: Labels::default(),
                subject: Subject::default(),
                severity: Severity::Warning,
                summary: String::new(),
                url: String::new(),
            },
        }
    }

    const ALERTS: &str = r#"[
      {"annotations":{},"endsAt":"2026-11-02T03:04:00.000Z","fingerprint":"x","receivers":[{"name":"n"}],
       "startsAt":"2026-11-02T02:00:00.000Z","status":{"inhibitedBy":[],"silencedBy":[],"state":"active"},
       "updatedAt":"2026-11-02T03:00:00.000Z","generatorURL":"","labels":{"alertname":"Active"}},
      {"status":{"inhibitedBy":null,"silencedBy":["s-1","s-2"],"mutedBy":[],"state":"suppressed"},"labels":{"alertname":"Silenced"}},
      {"status":{"inhibitedBy":["f404ecabc8dd5cd7"],"silencedBy":[],"state":"suppressed"},"labels":{"alertname":"Inhibited"}}
    ]"#;

    #[test]
    fn each_open_episode_gets_the_finding_that_the_api_supports() {
        let alerts = parse_alerts(ALERTS).unwrap();
        let long_ago = "2026-11-02T01:00:00Z";
        let open = [
            episode(1, "Active", long_ago),
            episode(2, "Silenced", long_ago),
            episode(3, "Inhibited", long_ago),
            episode(4, "Vanished", long_ago),
            episode(5, "JustHeard", "2026-11-02T02:59:00Z"),
        ];
        let up_since = parse_up_since(r#"{"uptime":"2026-11-01T00:00:00.000Z","cluster":{}}"#);
        let found = reconcile(&open, &Snapshot { alerts: alerts.clone(), up_since }, NOW.parse().unwrap());
        let found: Vec<_> = found.into_iter().map(|f| (f.episode.0, f.found)).collect();
        assert_eq!(
            found,
            [
                (1, Found::StillActive),
                (2, Found::Silenced { by: vec!["s-1".into(), "s-2".into()] }),
                (3, Found::Inhibited { by: vec!["f404ecabc8dd5cd7".into()] }),
                (4, Found::Gone),
            ]
        );
        // One that has just begun, or does not say when it did, ends nothing.
        for up_since in [None, Some("2026-11-02T02:58:00Z".parse().unwrap())] {
            let found = reconcile(&open, &Snapshot { alerts: alerts.clone(), up_since }, NOW.parse().unwrap());
            assert!(found.iter().all(|f| f.found != Found::Gone), "{found:?}");
        }
    }

    #[test]
    fn an_answer_that_is_not_whole_is_an_error() {
        for wrong in ["", "null", "{}", "[{}]", r#"[{"labels":{"a":1}}]"#, "[", "<html>"] {
            assert!(parse_alerts(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_alerts("[]").unwrap().len(), 0);
        for wrong in ["", "{}", r#"{"uptime":7}"#, r#"{"uptime":"x"}"#, r#"{"uptime":"0001-01-01T00:00:00Z"}"#] {
            assert_eq!(parse_up_since(wrong), None, "{wrong}");
        }
    }
}
