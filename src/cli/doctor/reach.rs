//! The ways to us: whether our own door answers, whether people's address leads to it, and whether Alertmanager's
//! messages arrive.
//!
//! Invariant: sends no alert; Alertmanager's own counters of its deliveries are the evidence.

use super::Findings;
use crate::api::{EngineStatus, TokenList, TokenState};
use crate::config::{Config, Secret, Source};
use crate::limits;
use crate::model::ApiToken;
use crate::world::{Http, HttpAnswer, HttpRequest, World};
use serde_json::Value;
use tokio::time::timeout;

/// Where Alertmanager's own user reads the token: an absolute path, since its folder is not ours.
pub(super) const TOKEN_FILE: &str = "/etc/alertmanager/nightshift-token";

pub(super) async fn all(config: &Config, world: &World, findings: &mut Findings) {
    door(config, &world.http, findings).await;
    for (name, source) in config.sources.iter().filter(|(_, source)| source.kind == "alertmanager") {
        match &source.api {
            Some(api) => alertmanager(config, name, source, api, &world.http, findings).await,
            None => findings.odd(
                "sources",
                format!("{name}: no `api`, so lost resolves are found only after {}", source.stale_after),
                format!("sources:\n  {name}: {{ kind: alertmanager, api: 'http://alertmanager:9093' }}"),
            ),
        }
    }
}

/// Whether the engine answers at home, and under the address that people and sources are given.
async fn door(config: &Config, http: &Http, findings: &mut Findings) {
    // Whether something listens at all has been looked at; here, whether it is our engine, and can work.
    if let Ok(answer) = get(http, &format!("http://{}/readyz", super::inside::local(config.server.listen)), None).await
    {
        if let Some(why) = another(config, http).await {
            let fix =
                "stop that engine, or choose another `server.listen`; is --config the file that it was started with?";
            findings.bad("port", format!("the engine that listens here is another one: {why}"), fix);
            return;
        }
        match answer.status {
            200 => findings.good("port", "the engine that listens here is ready"),
            code => {
                findings.bad("port", format!("/readyz here answers {code}: {}", answer.body.trim()), "look at its log")
            }
        }
    }
    let Some(public) = &config.server.public_url else { return };
    let url = format!("{}/healthz", public.trim_end_matches('/'));
    let mend =
        "check DNS, the proxy that ends TLS, and that it passes `/in/`, `/api/` and `/healthz` to `server.listen`";
    match get(http, &url, None).await {
        Ok(answer) if answer.status == 200 && answer.body == "ok\n" => {
            findings.good("reachable", format!("{public} leads to an engine"));
        }
        Ok(answer) => findings.bad(
            "reachable",
            format!("{url} answered {}, which is not an answer of an engine", answer.status),
            mend,
        ),
        Err(why) => findings.bad("reachable", format!("{url}: {why}"), mend),
    }
}

/// Why the engine that listens is not the one of this configuration; none where it is, or where that cannot be read.
async fn another(config: &Config, http: &Http) -> Option<String> {
    let data = config.data_dir.display();
    let token = match std::fs::read_to_string(config.local_token_path()) {
        Ok(token) => token,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Some(format!("data_dir {data} has no token yet, and an engine makes it at its first start"));
        }
        // Another user's engine may well be this one.
        Err(_) => return None,
    };
    let url = format!("http://{}/api/v1/status", super::inside::local(config.server.listen));
    let answer = get(http, &url, Some(token.trim())).await.ok()?;
    match answer.status {
        401 | 403 => Some(format!("it refuses the token of data_dir {data}")),
        200 => {
            let theirs = serde_json::from_str::<EngineStatus>(&answer.body).ok()?.key;
            let ours = std::fs::read_to_string(config.public_key_path()).ok()?;
            (ours.trim() != theirs.trim()).then(|| format!("its ledger is signed with another key than that of {data}"))
        }
        _ => None,
    }
}

/// Tokens that were made with `nightshift tokens make` and are good now, as far as the engine here says so.
pub(super) async fn made_tokens(config: &Config, http: &Http) -> Vec<ApiToken> {
    let Ok(token) = std::fs::read_to_string(config.local_token_path()) else { return Vec::new() };
    let url = format!("http://{}/api/v1/tokens", super::inside::local(config.server.listen));
    let Ok(answer) = get(http, &url, Some(token.trim())).await else { return Vec::new() };
    let Ok(TokenList { tokens }) = serde_json::from_str(&answer.body) else { return Vec::new() };
    tokens.into_iter().filter(|status| status.state == TokenState::Good).map(|status| status.token).collect()
}

async fn alertmanager(config: &Config, name: &str, source: &Source, api: &str, http: &Http, findings: &mut Findings) {
    let api = api.trim_end_matches('/');
    let token = source.api_token.as_ref().and_then(|secret| Secret::read(secret).ok());
    let mend = format!("check `sources.{name}.api` and `api_token`");
    let status = match get(http, &format!("{api}/api/v2/status"), token.as_deref()).await {
        Ok(answer) if answer.status == 200 => answer,
        Ok(answer) => return findings.bad("sources", format!("{name}: {api} said {}", answer.status), mend),
        Err(why) => return findings.bad("sources", format!("{name}: {api}: {why}"), mend),
    };
    let said: Value = serde_json::from_str(&status.body).unwrap_or_default();
    let written = said["config"]["original"].as_str().unwrap_or_default();
    if !written.contains("webhook_configs:") {
        findings.bad("sources", format!("{name}: Alertmanager sends to no webhook at all"), receiver(config, name));
        return;
    }
    findings.good("sources", format!("{name}: Alertmanager's API answers, and it has a webhook"));
    let Ok(metrics) = get(http, &format!("{api}/metrics"), token.as_deref()).await else { return };
    let (tried, failed) = deliveries(&metrics.body);
    if tried == 0.0 {
        findings.odd(
            "reachable",
            format!("{name}: Alertmanager has not sent to any webhook yet, so its connection to Nightshift is untested"),
            format!("amtool --alertmanager.url={api} alert add NightshiftTest severity=info      # then: nightshift incidents, and the channel"),
        );
    } else if failed > 0.0 {
        let what = format!("{name}: {failed:.0} of {tried:.0} deliveries of Alertmanager to webhooks have failed");
        findings.odd("reachable", what, format!("see Alertmanager's log; and there:\n{}", receiver(config, name)));
    } else {
        findings.good("reachable", format!("{name}: all {tried:.0} deliveries of Alertmanager to webhooks arrived"));
    }
}

/// Alertmanager's counters of requests to webhooks: all, and those that failed.
fn deliveries(metrics: &str) -> (f64, f64) {
    let sum = |name: &str| -> f64 {
        let lines = metrics.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('{') && rest.contains("integration=\"webhook\""))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    (sum("alertmanager_notification_requests_total"), sum("alertmanager_notification_requests_failed_total"))
}

/// The receiver to paste into alertmanager.yml.
fn receiver(config: &Config, name: &str) -> String {
    let base = config.server.public_url.clone().unwrap_or_else(|| format!("http://{}", config.server.listen));
    let base = base.trim_end_matches('/');
    format!(
        "receivers:      # of alertmanager.yml\n  - name: nightshift\n    webhook_configs:\n      - url: {base}/in/alertmanager/{name}\n        send_resolved: true\n        http_config: {{ authorization: {{ credentials_file: {TOKEN_FILE} }} }}"
    )
}

pub(super) async fn get(http: &Http, url: &str, token: Option<&str>) -> Result<HttpAnswer, String> {
    let mut request = HttpRequest { method: "GET".to_owned(), url: url.to_owned(), ..HttpRequest::default() };
    if let Some(token) = token {
        request.headers.insert("Authorization".to_owned(), format!("Bearer {token}"));
    }
    match timeout(limits::HTTP_TIMEOUT, http.send(&request)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("does not answer in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::deliveries;

    #[test]
    fn deliveries_to_webhooks_are_counted_from_alertmanagers_own_page() {
        let page = "# TYPE alertmanager_notification_requests_total counter\n\
                    alertmanager_notification_requests_total{integration=\"email\"} 9\n\
                    alertmanager_notification_requests_total{integration=\"webhook\",receiver_name=\"a\"} 5\n\
                    alertmanager_notification_requests_total{integration=\"webhook\",receiver_name=\"b\"} 2\n\
                    alertmanager_notification_requests_failed_total{integration=\"webhook\"} 3\n";
        assert_eq!(deliveries(page), (7.0, 3.0));
        assert_eq!(deliveries(""), (0.0, 0.0));
    }
}
