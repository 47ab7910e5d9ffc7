//! The one configuration file: `nightshift.yaml`. Unknown keys are refused; secrets come from files or the environment.
//!
//! Invariant: a `Config` that exists has been checked; a secret never prints.

mod agents;
mod check;
pub mod deprecated;
#[cfg(test)]
mod docs;
mod effective;
mod missing;
mod oidc;
mod read;
mod secret;
mod slack;

pub use crate::model::Role;
pub use agents::AgentsConfig;
pub use check::ConfigProblem;
pub use check::wrong_name;
pub use missing::MissingReference;
pub use nightshift_node::config::{AgentConfig, LogConfig, ModelCacheConfig, NvmlConfig};
pub use oidc::OidcConfig;
pub use read::{ConfigError, ConfigOrigin, closest, nearest};
pub use slack::SlackApp;

use crate::model::{LabelMap, RoleGrant, Schedule, Span};
use crate::policy::GuardLimits;
use crate::world::{DockerConfig, KillSwitchConfig, KubeConfig, ProbeConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a secret comes from. Written as `{ file: /run/secrets/x }` or `{ env: NAME }`, never as the text itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretSource {
    File(PathBuf),
    Env(String),
}

/// The configuration: one YAML file; each key is optional.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Database, lock file, signing key and this machine's own token. Created at the first start, readable only by its owner.
    pub data_dir: PathBuf,
    /// A second copy of `data_dir`'s `signing.mark`, on another disk or volume: with it a start is also refused when all of `data_dir`
    /// is an older copy. Its folder must exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark_file: Option<PathBuf>,
    /// Runbooks, `*.rhai`. Read again when they change.
    pub runbooks_dir: PathBuf,
    /// Routing rules, `*.yaml`. Read again when they change.
    pub rules_dir: PathBuf,
    /// Vendors' shapes, a folder each. Read again when they change.
    pub integrations_dir: PathBuf,
    /// The name of this installation: part of dedup keys, checkpoints and annotations. Do not change it later.
    pub install: String,
    /// The engine's HTTP server: address, tokens, sign-in.
    pub server: ListenerConfig,
    /// Where alerts come from. The name is part of the address: `POST /in/alertmanager/prod`.
    pub sources: BTreeMap<String, SourceConfig>,
    /// Notification channels; rules name these under `tell`.
    pub channels: BTreeMap<String, ChannelConfig>,
    /// Users, their identities in Slack, PagerDuty, the pages and tokens, and their role. Reloaded within a second when the
    /// file changes.
    pub people: Vec<PersonConfig>,
    /// Slack's slash command, buttons, forms and page of the app.
    pub slack: Option<SlackApp>,
    /// PagerDuty's webhook: acknowledgements and notes from there.
    pub pagerduty: Option<PagerDutyWebhook>,
    /// Kubernetes clusters by name. `{}`: the cluster where the engine runs, else the current context of `~/.kube/config`.
    pub clusters: BTreeMap<String, KubeConfig>,
    /// The cluster of alerts and requests that name none; required if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_cluster: Option<String>,
    /// For `prom::query`, `prom::value` and `verify` in runbooks, and `confirm_query` in rules.
    pub prometheus: Option<PrometheusConfig>,
    /// The Docker engine of this machine, for `docker::restart`.
    pub docker: Option<DockerConfig>,
    /// URL prefixes that runbooks may reach with `http::get` and `http::post`; `private+http://…` where the address is private.
    pub http_allow: Vec<String>,
    /// Secrets that runbooks may send in a header, as `#{ headers: #{ Authorization: #{ secret: "NAME" } } }`: read when the request is
    /// sent, and in no plan, ledger, log or answer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub http_secrets: BTreeMap<String, RunbookSecret>,
    /// Which actions of the catalog runbooks may call here.
    pub actions: ActionsConfig,
    /// How much may be out of service at once. An unknown level holds a step.
    pub guards: GuardLimits,
    /// Further switches that stop everything, in addition to `nightshift freeze`.
    pub kill_switch: KillSwitchConfig,
    /// Highest mode of any rule: a rule with a higher `mode` stays at this one. Raise this first, then the rule's `mode`.
    pub mode_ceiling: crate::model::Mode,
    /// When actions are held, or only allowed.
    pub windows: Vec<WindowRule>,
    /// How long data that is over is kept.
    pub retention: RetentionConfig,
    /// For events that no rule matches.
    pub default: DefaultRoute,
    /// When incidents end, and when many are one.
    pub incidents: IncidentsConfig,
    /// The listener for agents on GPU nodes.
    pub agents: AgentsConfig,
    /// The agent inside `serve --with-agent`; `nightshift agent` has the same settings at the top of agent.yaml.
    pub agent: AgentConfig,
    /// The engine's own log.
    pub log: LogConfig,
}

/// The API's and the pages' listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ListenerConfig {
    /// Loopback by default; any other address requires `behind_tls: true`, for a TLS proxy in front of it.
    pub listen: SocketAddr,
    /// A TLS proxy stands before it, so that tokens do not travel in the clear.
    pub behind_tls: bool,
    /// The engine's public address, for links in messages.
    pub public_url: Option<String>,
    /// Tokens with a role each; docs/roles.md lists their rights. `nightshift tokens make` needs no entry here.
    pub tokens: Vec<TokenConfig>,
    /// The identity provider (OpenID Connect) for the pages; left out: users sign in with a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OidcConfig>,
}

/// A static token of the API, with a role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// Shown in the ledger.
    pub name: String,
    /// Its rights.
    pub role: Role,
    /// For role `source`: the sources it may post to.
    #[serde(default)]
    pub sources: Vec<String>,
    /// It may act only in these clusters; left out: in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<Vec<String>>,
    /// The token's text. Missing, it stops the start.
    pub secret: SecretSource,
}

/// A user, with everything by which they are known: whatever they come by, they are one, with this role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PersonConfig {
    /// As in `approvers:`, and in the ledger: one name for each person. A token of that name belongs to them too.
    pub name: String,
    /// Their role with every auth method.
    pub role: Role,
    /// They may act only in these clusters; left out: in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<Vec<String>>,
    /// `U0123ABCD`: the member ID of their profile, never a display name.
    #[serde(default)]
    pub slack: Option<String>,
    /// `P0ABCDE`: the user ID in PagerDuty.
    #[serde(default)]
    pub pagerduty: Option<String>,
    /// Names of their tokens, from `server.tokens` or created with `nightshift tokens make`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<String>,
    /// Their identity at the provider: the subject, or a verified mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<String>,
}

impl PersonConfig {
    /// A user without an identity in another system.
    pub fn new(name: impl Into<String>, role: Role) -> PersonConfig {
        PersonConfig {
            name: name.into(),
            role,
            clusters: None,
            slack: None,
            pagerduty: None,
            tokens: Vec::new(),
            oidc: None,
        }
    }

    /// The token's role in the token's clusters.
    pub fn grant(&self) -> RoleGrant {
        RoleGrant { role: self.role, clusters: self.clusters.clone() }
    }
}

/// PagerDuty's webhook subscription: an act of a user there counts as the same act here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PagerDutyWebhook {
    /// Two while one is rotated.
    pub signing_secrets: Vec<SecretSource>,
}

/// A source of events; its name is in the URL: `POST /in/<kind>/<name>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// `alertmanager`, or the name of a folder in `integrations/` with a `decode.rhai`.
    pub kind: String,
    /// Alertmanager's API, for the reconciler: `http://alertmanager:9093`.
    #[serde(default)]
    pub api: Option<String>,
    /// A bearer token for `api`.
    #[serde(default)]
    pub api_token: Option<SecretSource>,
    /// An open episode not repeated for this long is checked at the source, then marked stale.
    #[serde(default = "SourceConfig::default_stale_after")]
    pub stale_after: Span,
    /// Which labels name the node, the GPU and so on; the first that is not empty counts.
    #[serde(default)]
    pub labels: LabelMap,
    /// Set on every event of this source, e.g. `cluster: eu-1`, before the subject is read.
    #[serde(default)]
    pub add_labels: BTreeMap<String, String>,
    /// The clusters that its events may be about; others are refused. With several clusters a source that is posted to needs this,
    /// or a `cluster` in `add_labels`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<String>,
    /// For `kind: kubernetes` and `inference`: which of `clusters` it watches, or finds engines in; left out: the default cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// For `kind: kubernetes`: also report pods without GPUs in these namespaces; for `inference`: find engines only in
    /// these …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// … and where they bear all of these labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,
    /// For `kind: inference`: which engines are probed, how often, and which readings are alerts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Box<ProbeConfig>>,
}

/// The kind of the source that watches a cluster; nothing is posted to it.
pub const KUBERNETES: &str = "kubernetes";
/// The kind of the source that looks at inference engines; nothing is posted to it.
pub const INFERENCE: &str = "inference";

impl SourceConfig {
    /// The clusters that its events can be about; empty: any.
    pub fn about(&self) -> Vec<&str> {
        // Only the label that is read first: another one could be outdone by the sender's.
        match self.labels.cluster.first().and_then(|label| self.add_labels.get(label)) {
            Some(cluster) => vec![cluster],
            None => self.clusters.iter().map(String::as_str).collect(),
        }
    }

    /// Whether events are posted to it; the others are looked at by the engine itself.
    pub fn is_posted_to(&self) -> bool {
        self.kind != KUBERNETES && self.kind != INFERENCE
    }

    fn default_stale_after() -> Span {
        // Twice Alertmanager's default repeat_interval of 4 h, and a little.
        Span::minutes(8 * 60 + 30)
    }
}

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum ChannelConfig {
    /// A Slack app: one message per incident, edited, details in its thread.
    Slack {
        /// The channel's id (`C0123ABCD`) or name (`#gpu`).
        channel: String,
        /// The bot token, `xoxb-…`.
        token: SecretSource,
        /// Slack's API.
        #[serde(default = "ChannelConfig::slack_api")]
        api: String,
        /// Approve, Deny and Acknowledge as buttons; needs `slack`, by which the engine receives them.
        #[serde(default)]
        buttons: bool,
    },
    /// A Slack incoming webhook: the simple form, cannot edit.
    #[serde(rename = "slack-webhook")]
    SlackWebhook {
        /// Address of the webhook; it is a secret, because anyone with it can post.
        url: SecretSource,
    },
    /// PagerDuty's Events API v2: one alert per incident.
    PagerDuty {
        /// The integration key of an Events API v2 integration.
        routing_key: SecretSource,
        /// PagerDuty's address for events.
        #[serde(default = "ChannelConfig::pagerduty_api")]
        api: String,
        /// Time for automation before this channel is notified; it is notified at once if automation fails, is denied, or needs
        /// an operator. Left out: always at once.
        #[serde(default, rename = "notify_after", alias = "patience")]
        patience: Option<Span>,
    },
    /// Nightshift's actions as change events of a PagerDuty service. They send no page.
    #[serde(rename = "pagerduty-changes")]
    PagerDutyChanges {
        /// The integration key of a service.
        routing_key: SecretSource,
        /// PagerDuty's address for change events.
        #[serde(default = "ChannelConfig::pagerduty_changes_api")]
        api: String,
    },
    /// Mail over SMTP: one thread per incident.
    Email {
        /// `smtp://host:587` (STARTTLS, required), `smtps://host:465`, or `smtp+plain://127.0.0.1:1025` (loopback only).
        server: String,
        /// The sender: `Nightshift <nightshift@example.com>`.
        from: String,
        /// The recipients.
        to: Vec<String>,
        /// For servers that require a login; with `password`.
        #[serde(default)]
        username: Option<String>,
        /// The password of `username`.
        #[serde(default)]
        password: Option<SecretSource>,
        /// PEM file of a certificate authority to trust in addition to the system's, for your own mail server.
        #[serde(default)]
        ca_file: Option<PathBuf>,
    },
    /// `integrations/<shape>/encode.rhai` makes the request.
    Webhook {
        /// A folder of `integrations_dir` with an `encode.rhai`.
        shape: String,
        /// The address to post to.
        url: SecretSource,
        /// Headers with secrets in them, such as `Authorization`.
        #[serde(default)]
        headers: BTreeMap<String, SecretSource>,
        /// As PagerDuty's, for shapes that page.
        #[serde(default, rename = "notify_after", alias = "patience")]
        patience: Option<Span>,
    },
    /// The engine's own log.
    Log,
}

impl ChannelConfig {
    fn slack_api() -> String {
        "https://slack.com/api".to_owned()
    }

    fn pagerduty_api() -> String {
        "https://events.pagerduty.com/v2/enqueue".to_owned()
    }

    fn pagerduty_changes_api() -> String {
        "https://events.pagerduty.com/v2/change/enqueue".to_owned()
    }

    /// How long automation may work before this channel is notified; none: it is notified at once.
    pub fn patience(&self) -> Option<Span> {
        match self {
            ChannelConfig::PagerDuty { patience, .. } | ChannelConfig::Webhook { patience, .. } => *patience,
            _ => None,
        }
    }
}

/// The effect of a window on actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum WindowKind {
    /// Nothing begins inside it.
    Hold,
    /// Nothing begins outside it.
    Only,
}

/// A time of the calendar that comes again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WindowRule {
    /// Shown where it holds a step.
    pub name: String,
    /// `hold`: no step starts inside it. `only`: no step starts outside it.
    pub kind: WindowKind,
    /// `all`, `cluster:<name>` or `rule:<name>`.
    #[serde(default = "WindowRule::everywhere")]
    pub scope: String,
    /// Its start: `{ cron: '0 9 * * 1-5', zone: Europe/Berlin }`.
    pub at: Schedule,
    /// How long it lasts from there.
    pub lasts: Span,
}

impl WindowRule {
    fn everywhere() -> String {
        "all".to_owned()
    }
}

/// A Prometheus that runbooks and guards query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PrometheusConfig {
    /// Its address: `http://prometheus:9090`.
    pub url: String,
    /// A bearer token.
    #[serde(default)]
    pub token: Option<SecretSource>,
}

/// A secret for headers of `http::get` and `http::post`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RunbookSecret {
    /// The header's value, at least 8 bytes. Read again for each request.
    pub secret: SecretSource,
    /// The hosts that it may be sent to: `api.example.com`, or `api.example.com:8443` where the port is not the scheme's. To a public
    /// address it goes by https alone.
    pub hosts: Vec<String>,
}

/// The actions in use: everything in `allow` that is not in `deny`. A pattern is a name, a family (`k8s::*`) or `*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ActionsConfig {
    /// Names, families (`k8s::*`) or `*`.
    pub allow: Vec<String>,
    /// Disabled, even if allowed above.
    pub deny: Vec<String>,
}

impl ActionsConfig {
    /// Whether an action of this name is allowed and not denied.
    pub fn lets(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| ActionsConfig::fits(pattern, name));
        any(&self.allow) && !any(&self.deny)
    }

    /// Whether a pattern means this action.
    pub fn fits(pattern: &str, name: &str) -> bool {
        match pattern.strip_suffix('*') {
            Some(family) => family.is_empty() || family.ends_with("::") && name.starts_with(family),
            None => pattern == name,
        }
    }
}

/// How long records are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Ended episodes, runs and incidents in the tables.
    pub episodes: Span,
    /// Bodies of ledger entries; their hashes stay for ever.
    pub bodies: Span,
}

/// The catch-all: an event that no rule matches is an incident all the same, and these channels are notified of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DefaultRoute {
    /// Names of channels; an empty list means an incident without a message.
    pub tell: Vec<String>,
}

/// When incidents end, and when many are one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct IncidentsConfig {
    /// Time an incident stays open after all its alerts have ended; an alert that fires again belongs to the same incident. 0s: at
    /// once.
    pub resolve_after: Span,
    /// Alerts of one name that fire within this time on more than three subjects are one incident. 0s: never.
    pub group_wait: Span,
}

impl Config {
    /// The cluster that is meant where none is named; empty: there is none.
    pub fn home_cluster(&self) -> &str {
        self.default_cluster.as_deref().or_else(|| self.clusters.keys().next().map(String::as_str)).unwrap_or_default()
    }

    /// The channels that are notified of events that no rule matches. Where only the built-in channel is named and there is
    /// none of that name, every channel is: an alert must not be lost because of a name.
    pub fn unmatched_tell(&self) -> Vec<String> {
        let built_in = self.default == DefaultRoute::default() && !self.channels.is_empty();
        match built_in && !self.channels.contains_key(DefaultRoute::BUILT_IN) {
            true => self.channels.keys().cloned().collect(),
            false => self.default.tell.clone(),
        }
    }

    /// Names of clusters by which anything can be: those that are reached, and those in sources.
    pub fn cluster_names(&self) -> Vec<&str> {
        let labelled = self.sources.values().filter_map(|source| source.add_labels.get("cluster"));
        self.clusters.keys().chain(labelled).map(String::as_str).collect()
    }

    /// The file of the database.
    pub fn store_path(&self) -> PathBuf {
        self.data_dir.join("nightshift.db")
    }

    /// The token that the command line on this machine uses; written by `serve` on its first start, role admin.
    pub fn local_token_path(&self) -> PathBuf {
        self.data_dir.join("token")
    }

    /// The Ed25519 key that signs checkpoints; written by `serve` on its first start.
    pub fn key_path(&self) -> PathBuf {
        self.data_dir.join("signing.key")
    }

    /// The files with the newest signed checkpoint, outside the database: a ledger that is smaller is refused. The first one is
    /// beside it.
    pub fn mark_paths(&self) -> Vec<PathBuf> {
        std::iter::once(self.data_dir.join("signing.mark")).chain(self.mark_file.clone()).collect()
    }

    /// The room that is given up when the disk is full.
    pub fn ballast_path(&self) -> PathBuf {
        self.data_dir.join("ballast")
    }

    /// The files that a backup includes beside the database, where they exist.
    pub fn kept_keys(&self) -> Vec<PathBuf> {
        ["signing.key", "signing.pub", "agents-ca.key", "agents-ca.pem", "token"]
            .map(|name| self.data_dir.join(name))
            .into()
    }

    /// The public half of it, for auditors.
    pub fn public_key_path(&self) -> PathBuf {
        self.data_dir.join("signing.pub")
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: PathBuf::from("data"),
            mark_file: None,
            runbooks_dir: PathBuf::from("runbooks"),
            rules_dir: PathBuf::from("rules"),
            integrations_dir: PathBuf::from("integrations"),
            install: "nightshift".to_owned(),
            server: ListenerConfig::default(),
            sources: BTreeMap::new(),
            channels: BTreeMap::new(),
            people: Vec::new(),
            slack: None,
            pagerduty: None,
            clusters: BTreeMap::new(),
            default_cluster: None,
            prometheus: None,
            docker: None,
            http_allow: Vec::new(),
            http_secrets: BTreeMap::new(),
            actions: ActionsConfig::default(),
            guards: GuardLimits::default(),
            kill_switch: KillSwitchConfig::default(),
            mode_ceiling: crate::model::Mode::Auto,
            windows: Vec::new(),
            retention: RetentionConfig::default(),
            default: DefaultRoute::default(),
            incidents: IncidentsConfig::default(),
            agents: AgentsConfig::default(),
            agent: AgentConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Default for ListenerConfig {
    fn default() -> Self {
        ListenerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 7676)),
            behind_tls: false,
            public_url: None,
            tokens: Vec::new(),
            oidc: None,
        }
    }
}

impl Default for ActionsConfig {
    fn default() -> Self {
        ActionsConfig { allow: vec!["*".to_owned()], deny: Vec::new() }
    }
}

impl Default for RetentionConfig {
    fn default() -> Self {
        RetentionConfig { episodes: crate::limits::RETENTION_EPISODES, bodies: crate::limits::RETENTION_BODIES }
    }
}

impl Default for DefaultRoute {
    fn default() -> Self {
        DefaultRoute { tell: vec![DefaultRoute::BUILT_IN.to_owned()] }
    }
}

impl DefaultRoute {
    /// The channel that the shipped rules notify.
    pub const BUILT_IN: &'static str = "oncall";
}

impl Default for IncidentsConfig {
    fn default() -> Self {
        IncidentsConfig { resolve_after: crate::limits::RESOLVE_AFTER, group_wait: crate::limits::GROUP_WAIT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unmatched_event_reaches_a_channel_unless_silence_is_written_down() {
        let tell = |text: &str| Config::parse("x", text).unwrap().unmatched_tell();
        assert_eq!(tell(""), ["oncall"]);
        assert_eq!(tell("channels: { ops: { kind: log }, oncall: { kind: log } }"), ["oncall"]);
        assert_eq!(tell("channels: { ops: { kind: log }, dev: { kind: log } }"), ["dev", "ops"]);
        assert_eq!(tell("channels: { ops: { kind: log } }\ndefault: { tell: [] }"), [""; 0]);
        assert_eq!(tell("channels: { ops: { kind: log } }\ndefault: { tell: [ops] }"), ["ops"]);
    }

    #[test]
    fn an_action_is_on_if_it_is_allowed_and_not_denied() {
        let list = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let lets =
            |allow: &[&str], deny: &[&str], name| ActionsConfig { allow: list(allow), deny: list(deny) }.lets(name);
        assert!(ActionsConfig::default().lets("k8s::drain"));
        assert!(lets(&["k8s::*"], &["k8s::delete_pod"], "k8s::drain"));
        assert!(!lets(&["k8s::*"], &["k8s::delete_pod"], "k8s::delete_pod"));
        assert!(!lets(&["k8s::*"], &[], "note"));
        assert!(!lets(&["note"], &["*"], "note"));
        assert!(!lets(&["k8s*"], &[], "k8s::drain"), "half a name is no family");
        assert!(!lets(&[], &[], "note"));
    }
}
