//! Files and variables that the configuration refers to and this machine does not have now: secrets and kubeconfigs.
//!
//! Invariant: only the server's own secrets stop a start; everything else is off until it is there, and is reported.

use super::{ChannelConfig, Config, SecretSource};
use std::path::Path;

/// One reference that leads nowhere now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MissingReference {
    /// As written in the file: `channels.oncall.token`.
    pub path: String,
    /// Names the place, never the content.
    pub why: String,
    /// The function that is off meanwhile.
    pub off: String,
    /// The fix.
    pub fix: String,
    /// `serve` does not start: a server without its own secrets must stay closed.
    pub stops: bool,
}

impl Config {
    /// Every reference to a secret, with its path.
    pub fn secrets(&self) -> Vec<(String, &SecretSource)> {
        let mut found: Vec<(String, &SecretSource)> = Vec::new();
        for token in &self.server.tokens {
            found.push((format!("server.tokens `{}`", token.name), &token.secret));
        }
        if let Some(secret) = self.server.oidc.as_ref().and_then(|oidc| oidc.client_secret.as_ref()) {
            found.push(("server.oidc.client_secret".to_owned(), secret));
        }
        for secret in self.pagerduty.iter().flat_map(|webhook| &webhook.signing_secrets) {
            found.push(("pagerduty.signing_secrets".to_owned(), secret));
        }
        if let Some(slack) = &self.slack {
            let secrets =
                [("signing_secret", &slack.signing_secret), ("app_token", &slack.app_token), ("token", &slack.token)];
            let given =
                secrets.into_iter().filter_map(|(name, secret)| Some((format!("slack.{name}"), secret.as_ref()?)));
            found.extend(given);
        }
        for (name, source) in &self.sources {
            found.extend(source.api_token.iter().map(|secret| (format!("sources.{name}.api_token"), secret)));
        }
        for (name, channel) in &self.channels {
            of_channel(name, channel, &mut found);
        }
        if let Some(prometheus) = &self.prometheus {
            found.extend(prometheus.token.iter().map(|secret| ("prometheus.token".to_owned(), secret)));
        }
        let of_runbooks = self.http_secrets.iter();
        found.extend(of_runbooks.map(|(name, given)| (format!("http_secrets.{name}.secret"), &given.secret)));
        found
    }

    /// Everything that cannot be read here and now, as this user.
    pub fn missing(&self) -> Vec<MissingReference> {
        let mut found = Vec::new();
        for (path, secret) in self.secrets() {
            if let Err(why) = secret.read() {
                let (off, again) = consequence(&path);
                let fix = match secret {
                    SecretSource::File(file) => format!("write it to {}, readable by this user{again}", file.display()),
                    SecretSource::Env(name) => format!("set {name} in the environment of the engine and restart it"),
                };
                found.push(MissingReference { stops: path.starts_with("server."), path, why, off, fix });
            }
        }
        for (name, cluster) in &self.clusters {
            let files = [
                ("kubeconfig", &cluster.kubeconfig),
                ("token_file", &cluster.token_file),
                ("ca_file", &cluster.ca_file),
            ];
            for (key, file) in files {
                let Some((file, why)) = file.as_deref().and_then(|file| Some((file, unreadable(file)?))) else {
                    continue;
                };
                found.push(MissingReference {
                    path: format!("clusters.{name}.{key}"),
                    why,
                    off: format!("cluster `{name}` is not watched, and steps that need it are on hold"),
                    fix: format!("write it to {}, readable by this user; it is reloaded automatically", file.display()),
                    stops: false,
                });
            }
        }
        found
    }
}

fn of_channel<'c>(name: &str, channel: &'c ChannelConfig, found: &mut Vec<(String, &'c SecretSource)>) {
    match channel {
        ChannelConfig::Slack { token, .. } => found.push((format!("channels.{name}.token"), token)),
        ChannelConfig::SlackWebhook { url } => found.push((format!("channels.{name}.url"), url)),
        ChannelConfig::PagerDuty { routing_key, .. } | ChannelConfig::PagerDutyChanges { routing_key, .. } => {
            found.push((format!("channels.{name}.routing_key"), routing_key))
        }
        ChannelConfig::Email { password, .. } => {
            found.extend(password.iter().map(|secret| (format!("channels.{name}.password"), secret)));
        }
        ChannelConfig::Webhook { url, headers, .. } => {
            found.push((format!("channels.{name}.url"), url));
            found.extend(headers.iter().map(|(header, secret)| (format!("channels.{name}.headers.{header}"), secret)));
        }
        ChannelConfig::Log => {}
    }
}

/// The function that is off without the secret of this path, and whether it is read again without a restart.
fn consequence(path: &str) -> (String, &'static str) {
    let again = "; it is reloaded automatically";
    let restart = ", and restart the engine";
    let mut parts = path.split('.');
    match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
        ("channels", name) => (format!("channel `{name}` is off: its messages wait"), again),
        ("sources", name) => (
            format!("source `{name}`: lost resolves are found late, and silences cannot be read, so steps hold"),
            again,
        ),
        ("prometheus", _) => {
            ("queries of runbooks and of rules fail, so steps that need one are on hold".to_owned(), again)
        }
        ("http_secrets", name) => (format!("requests of runbooks that send the secret `{name}` are refused"), again),
        ("slack", "signing_secret") => ("Slack's HTTP requests are refused".to_owned(), again),
        ("slack", "app_token") => ("there is no connection with Slack (Socket Mode)".to_owned(), again),
        ("slack", _) => ("Slack has no forms and no page of the app".to_owned(), restart),
        ("pagerduty", _) => ("PagerDuty's webhook is refused".to_owned(), again),
        _ => ("the engine does not start: without its own secrets it stays closed".to_owned(), ""),
    }
}

/// Why a file cannot be opened by this user; none where it can.
fn unreadable(file: &Path) -> Option<String> {
    std::fs::File::open(file).err().map(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_file_is_named_with_what_is_off_and_only_the_servers_own_stop_a_start() {
        let text = "
server: { tokens: [{ name: am, role: viewer, secret: { file: /nowhere/am } }] }
sources: { prod: { kind: alertmanager, api: 'http://a:9093', api_token: { file: /nowhere/api } } }
channels:
  oncall: { kind: slack, channel: C1, token: { file: /nowhere/slack } }
  hook: { kind: webhook, shape: x, url: { env: NIGHTSHIFT_NOT_SET }, headers: { A: { file: /nowhere/header } } }
prometheus: { url: 'http://p:9090', token: { file: /nowhere/prom } }
clusters: { main: { kubeconfig: /nowhere/kubeconfig }, other: { url: 'http://k:1', token_file: /nowhere/token } }
slack: { signing_secret: { file: /nowhere/sign } }
pagerduty: { signing_secrets: [{ file: /nowhere/pd }] }
";
        let config = Config::parse("x", text).unwrap();
        let missing = config.missing();
        let paths: Vec<&str> = missing.iter().map(|one| one.path.as_str()).collect();
        let expect = [
            "server.tokens `am`",
            "pagerduty.signing_secrets",
            "slack.signing_secret",
            "sources.prod.api_token",
            "channels.hook.url",
            "channels.hook.headers.A",
            "channels.oncall.token",
            "prometheus.token",
            "clusters.main.kubeconfig",
            "clusters.other.token_file",
        ];
        assert_eq!(paths, expect);
        let stops: Vec<&str> = missing.iter().filter(|one| one.stops).map(|one| one.path.as_str()).collect();
        assert_eq!(stops, ["server.tokens `am`"]);
        assert!(missing.iter().all(|one| !one.off.is_empty() && !one.fix.is_empty()), "{missing:#?}");
        assert!(missing[6].off.contains("channel `oncall` is off") && missing[6].fix.contains("/nowhere/slack"));
    }
}
