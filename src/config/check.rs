//! The rules of a configuration, once it parses: every problem at once, each with its path and its fix.
//!
//! Invariant: pure over the configuration; nothing is opened or resolved here (that is `doctor`'s part).

mod channel;
mod guards;
mod job;
mod oidc;
mod people;
mod probe;
mod server;
mod source;
mod windows;
mod words;

pub use self::words::wrong_name;

use self::words::{check_name, check_safe_url, check_secret, check_url};
use super::{Config, ModelCacheConfig, RunbookSecret};
use crate::world::KubeConfig;
use std::fmt;
use url::Url;

/// One problem, with its fix.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ConfigProblem {
    /// As written in the file: `sources.prod.api`.
    pub path: String,
    pub what: String,
    /// The text to write instead.
    pub mend: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.what, self.mend)
    }
}

impl Config {
    /// Everything that cannot be meant so. Empty: good.
    pub fn check(&self) -> Vec<ConfigProblem> {
        let mut found = ConfigFindings::default();
        check_install(self, &mut found);
        server::check_server(self, &mut found);
        server::check_tokens(self, &mut found);
        oidc::check(self, &mut found);
        for (name, source) in &self.sources {
            source::check_source(name, source, &mut found);
            source::check_watched(name, source, self, &mut found);
            source::check_clusters(name, source, self, &mut found);
            probe::check(name, source, self, &mut found);
        }
        for (name, channel) in &self.channels {
            check_name(&format!("channels.{name}"), name, &mut found);
            channel::check_channel(&format!("channels.{name}"), channel, &mut found);
        }
        for (name, cluster) in &self.clusters {
            check_name(&format!("clusters.{name}"), name, &mut found);
            check_cluster(&format!("clusters.{name}"), cluster, &mut found);
        }
        check_default_cluster(self, &mut found);
        if let Some(prometheus) = &self.prometheus {
            check_url("prometheus.url", &prometheus.url, &mut found);
            check_secret("prometheus.token", prometheus.token.as_ref(), &mut found);
        }
        if let Some(docker) = &self.docker
            && !docker.socket.is_absolute()
        {
            let mend = "write the path of its socket, such as /var/run/docker.sock";
            found.say("docker.socket", format!("`{}` is no absolute path", docker.socket.display()), mend);
        }
        for (at, entry) in self.http_allow.iter().enumerate() {
            check_allow(&format!("http_allow[{at}]"), entry, &mut found);
        }
        for (name, secret) in &self.http_secrets {
            check_runbook_secret(&format!("http_secrets.{name}"), name, secret, &mut found);
        }
        check_cache(&self.agent.cache, &mut found);
        guards::check_guards(self, &mut found);
        windows::check(self, &mut found);
        people::check(self, &mut found);
        check_rest(self, &mut found);
        found.0
    }
}

#[derive(Default)]
struct ConfigFindings(Vec<ConfigProblem>);

impl ConfigFindings {
    fn say(&mut self, path: &str, what: impl Into<String>, mend: impl Into<String>) {
        self.0.push(ConfigProblem { path: path.to_owned(), what: what.into(), mend: mend.into() });
    }
}

fn check_install(config: &Config, found: &mut ConfigFindings) {
    check_name("install", &config.install, found);
    let folders = [
        ("data_dir", &config.data_dir),
        ("runbooks_dir", &config.runbooks_dir),
        ("rules_dir", &config.rules_dir),
        ("integrations_dir", &config.integrations_dir),
    ];
    for (path, folder) in folders {
        if folder.as_os_str().is_empty() {
            found.say(path, "is empty", "name a folder, or leave the key out for the default");
        }
    }
}

fn check_cache(cache: &ModelCacheConfig, found: &mut ConfigFindings) {
    for (at, root) in cache.roots.iter().enumerate() {
        let parts = root.components().count();
        if !root.is_absolute() || parts < 2 || root.components().any(|part| part == std::path::Component::ParentDir) {
            found.say(
                &format!("agent.cache.roots[{at}]"),
                format!("`{}` is no absolute path of a folder for models", root.display().to_string().escape_debug()),
                "write a folder such as /models, not `/` and nothing with `..`",
            );
        }
    }
    if cache.roots.len() > crate::limits::CACHE_ROOTS {
        found.say("agent.cache.roots", "has too many folders", format!("name at most {}", crate::limits::CACHE_ROOTS));
    }
    if !(1..=crate::limits::CACHE_READERS).contains(&cache.readers) {
        let mend = format!("write 1 to {}; 8 is right for most disks", crate::limits::CACHE_READERS);
        found.say("agent.cache.readers", format!("{} readers cannot be", cache.readers), mend);
    }
    if cache.mib_per_second == Some(0) {
        found.say("agent.cache.mib_per_second", "no file would ever be read", "leave it out for no limit");
    }
}

fn check_cluster(path: &str, cluster: &KubeConfig, found: &mut ConfigFindings) {
    if !cluster.url.is_empty() {
        check_safe_url(&format!("{path}.url"), &cluster.url, found);
        if cluster.kubeconfig.is_some() {
            found.say(path, "has both `url` and `kubeconfig`", "keep the one that is meant");
        }
    } else if cluster.token_file.is_some() || cluster.ca_file.is_some() {
        found.say(path, "has `token_file` or `ca_file` but no `url`", "add `url: https://…:6443`, or use `kubeconfig`");
    }
    if let Some(job) = &cluster.cache_job {
        job::check(&format!("{path}.cache_job"), job, found);
    }
}

/// Which cluster is meant where none is named must not depend on the order of names.
fn check_default_cluster(config: &Config, found: &mut ConfigFindings) {
    let names = || config.clusters.keys().map(String::as_str);
    match &config.default_cluster {
        Some(name) if !config.clusters.contains_key(name) => {
            let fix = super::closest(name, names())
                .map_or("name one of `clusters`".to_owned(), |near| format!("did you mean `{near}`?"));
            found.say("default_cluster", format!("there is no cluster `{name}`"), fix);
        }
        None if config.clusters.len() > 1 => found.say(
            "default_cluster",
            format!("is missing, and there are several clusters ({})", names().collect::<Vec<_>>().join(", ")),
            "name the one that is meant where an alert or a request names none",
        ),
        _ => {}
    }
}

fn check_runbook_secret(path: &str, name: &str, secret: &RunbookSecret, found: &mut ConfigFindings) {
    check_name(path, name, found);
    check_secret(&format!("{path}.secret"), Some(&secret.secret), found);
    let most = crate::limits::HTTP_SECRET_HOSTS;
    if !(1..=most).contains(&secret.hosts.len()) {
        let fix = "list the hosts that it may be sent to: `hosts: [api.example.com]`";
        found.say(&format!("{path}.hosts"), format!("from 1 to {most} hosts, not {}", secret.hosts.len()), fix);
    }
    for (at, host) in secret.hosts.iter().enumerate() {
        if let Some(fix) = crate::world::wrong_host(host) {
            found.say(&format!("{path}.hosts[{at}]"), format!("`{}` is no host", host.escape_debug()), fix);
        }
    }
}

/// A prefix that runbooks may reach; `private+` allows private addresses behind it.
fn check_allow(path: &str, entry: &str, found: &mut ConfigFindings) {
    let bare = entry.strip_prefix("private+").unwrap_or(entry);
    match Url::parse(bare) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            if !url.username().is_empty() || url.password().is_some() {
                found.say(path, "has a user or password in it", "remove them: an address is no place for a secret");
            }
            if url.query().is_some() || url.fragment().is_some() {
                found.say(
                    path,
                    "has a query or fragment",
                    "write a prefix: scheme, host, port and the start of the path",
                );
            }
        }
        _ => found.say(
            path,
            format!("`{entry}` is not a URL prefix"),
            "write `https://host/path`, or `private+http://host:port/path` where the address is a private one",
        ),
    }
}

fn check_rest(config: &Config, found: &mut ConfigFindings) {
    let retention = &config.retention;
    if retention.episodes < crate::limits::RETENTION_MIN {
        found.say(
            "retention.episodes",
            format!("{} is too short to answer `why`", retention.episodes),
            format!("write at least {}", crate::limits::RETENTION_MIN),
        );
    }
    if retention.bodies < retention.episodes {
        found.say(
            "retention.bodies",
            format!("{} is shorter than `retention.episodes` ({})", retention.bodies, retention.episodes),
            "keep ledger text at least as long as the incidents it describes",
        );
    }
    let incidents = &config.incidents;
    for (path, span, most) in [
        ("incidents.resolve_after", incidents.resolve_after, crate::limits::RESOLVE_AFTER_MAX),
        ("incidents.group_wait", incidents.group_wait, crate::limits::GROUP_WAIT_MAX),
    ] {
        if span > most {
            found.say(path, format!("{span} is longer than {most}"), format!("write 0s to {most}"));
        }
    }
    if config.default.tell.iter().any(|channel| channel.trim().is_empty()) {
        found.say("default.tell", "holds an empty channel name", "name channels, or write `[]` for no message at all");
    }
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&config.log.level) {
        found.say(
            "log.level",
            format!("`{}` is not a filter ({error})", config.log.level),
            "write `info`, or `info,nightshift=debug`",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let config = Config::parse("x", text).unwrap();
        config.check().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn the_defaults_are_good() {
        assert_eq!(Config::default().check(), []);
    }

    #[test]
    fn with_several_clusters_one_is_the_default_and_no_source_speaks_for_all_of_them() {
        let two = "clusters: { main: {}, aa: {} }\n";
        let posted = |more: &str| {
            paths(&format!("{two}default_cluster: main\nsources: {{ prod: {{ kind: alertmanager{more} }} }}\n"))
        };
        assert_eq!(paths(two), ["default_cluster"]);
        assert_eq!(paths(&format!("{two}default_cluster: mian\n")), ["default_cluster"]);
        assert_eq!(paths("clusters: { main: {} }\nsources: { prod: { kind: alertmanager } }\n"), [""; 0]);
        assert_eq!(posted(""), ["sources.prod"]);
        assert_eq!(posted(", add_labels: { team: ml }"), ["sources.prod"]);
        // The sender's own label would be read before this one.
        assert_eq!(posted(", labels: { cluster: [site, cluster] }, add_labels: { cluster: aa }"), ["sources.prod"]);
        assert_eq!(posted(", clusters: [aa, mani]"), ["sources.prod.clusters"]);
        assert_eq!(posted(", add_labels: { cluster: aa }"), [""; 0]);
        assert_eq!(posted(", clusters: [aa]"), [""; 0]);
        let watched = "sources: { k: { kind: kubernetes, cluster: aa, clusters: [aa] } }\n";
        assert_eq!(paths(&format!("{two}default_cluster: main\n{watched}")), ["sources.k.clusters"]);
        let config = Config::parse("x", &format!("{two}default_cluster: main\n")).unwrap();
        assert_eq!(config.home_cluster(), "main", "not the first by name");
    }

    #[test]
    fn all_problems_are_named_at_once_with_their_paths() {
        let text = "
install: Über
server:
  listen: 0.0.0.0:7676
  tokens:
    - { name: am, role: source, secret: { env: A } }
    - { name: am, role: source, sources: [prd], secret: { env: A } }
    - { name: local, role: viewer, sources: [prod], secret: { env: '' } }
sources:
  prod: { kind: alertmanager, api: 'alertmanager:9093', stale_after: 10s }
  dd: { kind: datadog, api_token: { env: X } }
http_allow: ['private+http://10.0.0.1/x', 'ftp://x', 'https://u:p@h/']
guards: { nodes_at_once: 0, share_at_once: 1.5, share_per_hour: 0.2, share_per_day: 0.1 }
retention: { episodes: 1m, bodies: 1s }
incidents: { resolve_after: 2h, group_wait: 1h }
default: { tell: [''] }
log: { level: 'a=b=c' }
";
        let expect = [
            "install",
            "server.listen",
            "server.tokens[0].sources",
            "server.tokens[1].name",
            "server.tokens[1].secret",
            "server.tokens[1].sources",
            "server.tokens[2].name",
            "server.tokens[2].secret",
            "server.tokens[2].sources",
            "sources.dd.api_token",
            "sources.prod.api",
            "sources.prod.stale_after",
            "http_allow[1]",
            "http_allow[2]",
            "guards.nodes_at_once",
            "guards.share_at_once",
            "guards.share_per_hour",
            "guards.share_per_day",
            "retention.episodes",
            "retention.bodies",
            "incidents.resolve_after",
            "incidents.group_wait",
            "default.tell",
            "log.level",
        ];
        assert_eq!(paths(text), expect);
    }

    #[test]
    fn mail_goes_in_the_clear_to_this_machine_only() {
        let channel = |server: &str| {
            paths(&format!("channels:\n  m: {{ kind: email, server: '{server}', from: a@b.c, to: [d@e.f] }}\n"))
        };
        for good in ["smtp://mail:587", "smtps://mail:465", "smtp+plain://127.0.0.1:1025", "smtp+plain://localhost:25"]
        {
            assert_eq!(channel(good), Vec::<String>::new(), "{good}");
        }
        for bad in ["smtp+plain://mail:25", "http://mail", "mail", "smtp://u:p@mail"] {
            assert_eq!(channel(bad), ["channels.m.server"], "{bad}");
        }
    }

    #[test]
    fn a_token_never_travels_in_the_clear() {
        let slack = |api: &str| {
            paths(&format!("channels:\n  s: {{ kind: slack, channel: C1, token: {{ env: T }}, api: '{api}' }}\n"))
        };
        assert_eq!(slack("http://slack.example"), ["channels.s.api"]);
        assert_eq!(slack("http://127.0.0.1:9"), Vec::<String>::new());
        assert_eq!(slack("https://slack.example"), Vec::<String>::new());
    }
}
