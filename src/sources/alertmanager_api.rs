//! Alertmanager's API, for facts that its webhook lacks: silenced, inhibited, gone.
//!
//! Invariant: an answer that is not whole, or from an Alertmanager that has just begun, ends nothing.

use crate::limits;
use crate::model::{Episode, EpisodeId, EpisodeState, Labels, Span, Time};
use crate::world::{HttpClient, HttpRequest, WorldError};
use serde::Deserialize;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};

/// How an alert stands at Alertmanager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertmanagerState {
    Active,
    /// Ids of the silences.
    Silenced(Vec<String>),
    /// Fingerprints of the alerts that inhibit it.
    Inhibited(Vec<String>),
}

/// The API's answers at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AlertSnapshot {
    /// By fingerprint, computed over the labels as everywhere.
    pub alerts: HashMap<String, (Labels, AlertmanagerState)>,
    /// Since when this Alertmanager runs: it keeps no alerts over a restart.
    pub up_since: Option<Time>,
}

/// A finding about an open episode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpisodeFinding {
    pub episode: EpisodeId,
    pub found: EpisodeAlertState,
}

/// The state of an open episode's alert at its Alertmanager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpisodeAlertState {
    StillActive,
    /// It holds, and notifications of it are suppressed.
    Silenced {
        by: Vec<String>,
    },
    Inhibited {
        by: Vec<String>,
    },
    /// Alertmanager has it no more: its resolve was never sent.
    Gone,
}

/// Reads all alerts. `base` as configured: `http://alertmanager:9093`, with any path prefix.
///
/// # Errors
///
/// Fails when Alertmanager is not reached, refuses, or its answer cannot be read.
pub async fn fetch(http: &HttpClient, base: &str, token: Option<&str>) -> Result<AlertSnapshot, WorldError> {
    let base = base.trim_end_matches('/');
    let all = format!("{base}/api/v2/alerts?active=true&silenced=true&inhibited=true&unprocessed=true");
    let alerts = parse_alerts(&get(http, &all, token).await?).map_err(WorldError::Invalid)?;
    let status = get(http, &format!("{base}/api/v2/status"), token).await?;
    Ok(AlertSnapshot { alerts, up_since: parse_up_since(&status) })
}

/// A silence that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    pub id: String,
    pub by: String,
    pub why: String,
    pub until: Time,
}

/// The alerts that are silenced now, by fingerprint, each with the silence that ends last. Which silence matches which
/// alert is Alertmanager's own judgement.
///
/// # Errors
///
/// Fails when Alertmanager is not reached, refuses, or an answer cannot be read.
pub async fn fetch_silenced(
    http: &HttpClient,
    base: &str,
    token: Option<&str>,
) -> Result<HashMap<String, Silence>, WorldError> {
    let base = base.trim_end_matches('/');
    let alerts = format!("{base}/api/v2/alerts?active=false&silenced=true&inhibited=false&unprocessed=false");
    let alerts = parse_alerts(&get(http, &alerts, token).await?).map_err(WorldError::Invalid)?;
    if alerts.is_empty() {
        return Ok(HashMap::new());
    }
    let silences = parse_silences(&get(http, &format!("{base}/api/v2/silences"), token).await?);
    let silences = silences.map_err(WorldError::Invalid)?;
    let mut found = HashMap::new();
    for (fingerprint, (_, standing)) in alerts {
        let AlertmanagerState::Silenced(ids) = standing else { continue };
        let last = silences.iter().filter(|silence| ids.contains(&silence.id)).max_by_key(|silence| silence.until);
        // It ended between the two answers.
        if let Some(last) = last {
            found.insert(fingerprint, last.clone());
        }
    }
    Ok(found)
}

/// Reads the answer of `GET /api/v2/silences`; those that are over are left out.
///
/// # Errors
///
/// Fails when the body is no such list, or the end of a silence is no time.
pub fn parse_silences(body: &str) -> Result<Vec<Silence>, String> {
    let list: Vec<ApiSilence> = serde_json::from_str(body)
        .map_err(|e| format!("Alertmanager's list of silences cannot be read: {}", super::draft::json_error(&e)))?;
    let holds = list.into_iter().filter(|silence| silence.status.state == "active");
    holds
        .map(|silence| {
            let until: Time = silence.ends_at.parse().map_err(|_| {
                format!("the end of silence {} is no time: {}", silence.id, silence.ends_at.escape_debug())
            })?;
            Ok(Silence { id: silence.id, by: silence.created_by, why: silence.comment, until })
        })
        .collect()
}

/// Silences exactly the alert with these labels, from now on. Returns the silence's id.
///
/// # Errors
///
/// Fails when there are no labels, or Alertmanager is not reached, refuses, or returns no id.
pub async fn create_silence(
    http: &HttpClient,
    base: &str,
    token: Option<&str>,
    labels: &Labels,
    silence: &Silence,
    now: Time,
) -> Result<String, WorldError> {
    let matcher =
        |(name, value): (&str, &str)| json!({ "name": name, "value": value, "isRegex": false, "isEqual": true });
    let matchers: Vec<serde_json::Value> = labels.iter().map(matcher).collect();
    if matchers.is_empty() {
        return Err(WorldError::Invalid(
            "an alert without labels cannot be silenced: it would silence everything".into(),
        ));
    }
    let body = json!({
        "matchers": matchers, "startsAt": now, "endsAt": silence.until, "createdBy": silence.by, "comment": silence.why,
    });
    let url = format!("{}/api/v2/silences", base.trim_end_matches('/'));
    let answer = send(http, "POST", &url, token, body).await?;
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    answer["silenceID"].as_str().map(str::to_owned).ok_or_else(|| {
        WorldError::Unavailable("Alertmanager accepted the silence but returned no silence ID".to_owned())
    })
}

/// Compares open episodes of one source with its Alertmanager's answers. An episode without a finding is one without a
/// certain result yet.
pub fn reconcile(open: &[Episode], snapshot: &AlertSnapshot, now: Time) -> Vec<EpisodeFinding> {
    // After a restart Alertmanager has no alerts until every Prometheus has sent them again.
    let knows = snapshot.up_since.is_some_and(|since| older(since, now, limits::RECONCILE_GRACE));
    let mut findings = Vec::with_capacity(open.len());
    for episode in open.iter().filter(|episode| episode.state == EpisodeState::Open) {
        let found = match snapshot.alerts.get(&episode.event.fingerprint) {
            Some((_, AlertmanagerState::Active)) => EpisodeAlertState::StillActive,
            Some((_, AlertmanagerState::Silenced(by))) => EpisodeAlertState::Silenced { by: by.clone() },
            Some((_, AlertmanagerState::Inhibited(by))) => EpisodeAlertState::Inhibited { by: by.clone() },
            // Received just now: its end, if it is one, is still on its way to us.
            None if knows && older(episode.last_seen, now, limits::RECONCILE_GRACE) => EpisodeAlertState::Gone,
            None => continue,
        };
        findings.push(EpisodeFinding { episode: episode.id, found });
    }
    findings
}

/// Reads the answer of `GET /api/v2/alerts`. One alert that cannot be read spoils the answer: it might be the one.
///
/// # Errors
///
/// Fails when the body is no such list.
pub fn parse_alerts(body: &str) -> Result<HashMap<String, (Labels, AlertmanagerState)>, String> {
    let list: Vec<ApiAlert> = serde_json::from_str(body)
        .map_err(|e| format!("Alertmanager's list of alerts cannot be read: {}", super::draft::json_error(&e)))?;
    let known = list.into_iter().map(|alert| {
        let status = alert.status;
        let standing = if !status.silenced_by.is_empty() {
            AlertmanagerState::Silenced(status.silenced_by)
        } else if !status.inhibited_by.is_empty() {
            AlertmanagerState::Inhibited(status.inhibited_by)
        } else {
            // `suppressed` by nothing we can name (a mute time of a newer version) still holds.
            AlertmanagerState::Active
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

async fn get(http: &HttpClient, url: &str, token: Option<&str>) -> Result<String, WorldError> {
    send(http, "GET", url, token, serde_json::Value::Null).await
}

async fn send(
    http: &HttpClient,
    method: &str,
    url: &str,
    token: Option<&str>,
    body: serde_json::Value,
) -> Result<String, WorldError> {
    let mut headers = BTreeMap::from([("Accept".to_owned(), "application/json".to_owned())]);
    if let Some(token) = token {
        headers.insert("Authorization".to_owned(), format!("Bearer {token}"));
    }
    let request = HttpRequest { method: method.to_owned(), url: url.to_owned(), headers, body };
    let answer = http.send(&request).await?;
    match answer.status {
        200 => Ok(answer.body),
        400..=499 => {
            let said: String = answer.body.chars().take(crate::limits::REASON_CHARS).collect();
            Err(WorldError::Invalid(format!("Alertmanager answered {} to {method} {url}: {said}", answer.status)))
        }
        status => Err(WorldError::Unavailable(format!("Alertmanager answered {status} to {method} {url}"))),
    }
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApiSilence {
    id: String,
    #[serde(default)]
    created_by: String,
    #[serde(default)]
    comment: String,
    ends_at: String,
    status: ApiSilenceStatus,
}

#[derive(Deserialize)]
struct ApiSilenceStatus {
    state: String,
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
    use crate::model::{Event, EventStatus, Severity, Subject};

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
                status: EventStatus::Firing,
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
        let found = reconcile(&open, &AlertSnapshot { alerts: alerts.clone(), up_since }, NOW.parse().unwrap());
        let found: Vec<_> = found.into_iter().map(|f| (f.episode.0, f.found)).collect();
        assert_eq!(
            found,
            [
                (1, EpisodeAlertState::StillActive),
                (2, EpisodeAlertState::Silenced { by: vec!["s-1".into(), "s-2".into()] }),
                (3, EpisodeAlertState::Inhibited { by: vec!["f404ecabc8dd5cd7".into()] }),
                (4, EpisodeAlertState::Gone),
            ]
        );
        // One that has just begun, or without a start time, ends nothing.
        for up_since in [None, Some("2026-11-02T02:58:00Z".parse().unwrap())] {
            let found = reconcile(&open, &AlertSnapshot { alerts: alerts.clone(), up_since }, NOW.parse().unwrap());
            assert!(found.iter().all(|f| f.found != EpisodeAlertState::Gone), "{found:?}");
        }
    }

    #[test]
    fn silences_that_are_over_are_left_out_and_a_torn_answer_is_an_error() {
        let body = r#"[
          {"id":"s-1","createdBy":"ada","comment":"new fan","startsAt":"2026-11-02T02:00:00.000Z",
           "endsAt":"2026-11-02T05:00:00.000Z","status":{"state":"active"},"matchers":[]},
          {"id":"s-0","createdBy":"bob","comment":"","endsAt":"2026-11-01T05:00:00.000Z","status":{"state":"expired"}}]"#;
        let found = parse_silences(body).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].by.as_str(), found[0].until.to_string().as_str()), ("ada", "2026-11-02T05:00:00Z"));
        for wrong in ["", "{}", "[{}]", r#"[{"id":"s","endsAt":"soon","status":{"state":"active"}}]"#] {
            assert!(parse_silences(wrong).is_err(), "{wrong}");
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
