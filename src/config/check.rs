//! What a configuration must also be, once it parses: every problem at once, each with its path and its cure.
//!
//! Invariant: pure over the configuration; nothing is opened or resolved here (that is `doctor`'s part).

mod job;
mod people;
mod windows;

use super::{Cache, Channel, Config, Role, Secret, Source, Token};
use crate::world::KubeConfig;
use std::collections::BTreeMap;
use std::fmt;
use url::Url;

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// As written in the file: `sources.prod.api`.
    pub path: String,
    pub what: String,
    /// What to write instead.
    pub mend: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.what, self.mend)
    }
}

impl Config {
    /// Everything that cannot be meant so. Empty: good.
    pub fn check(&self) -> Vec<Problem> {
        let mut found = Findings::default();
        check_install(self, &mut found);
        check_server(self, &mut found);
        check_tokens(self, &mut found);
        for (name, source) in &self.sources {
            check_source(name, source, &mut found);
            check_watched(name, source, self, &mut found);
        }
        for (name, channel) in &self.channels {
            check_name(&format!("channels.{name}"), name, &mut found);
            check_channel(&format!("channels.{name}"), channel, &mut found);
        }
        for (name, cluster) in &self.clusters {
            check_name(&format!("clusters.{name}"), name, &mut found);
            check_cluster(&format!("clusters.{name}"), cluster, &mut found);
        }
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
        check_cache(&self.agent.cache, &mut found);
        check_guards(self, &mut found);
        windows::check(self, &mut found);
        people::check(self, &mut found);
        check_rest(self, &mut found);
        found.0
    }
}

#[derive(Default)]
struct Findings(Vec<Problem>);

impl Findings {
    fn say(&mut self, path: &str, what: impl Into<String>, mend: impl Into<String>) {
        self.0.push(Problem { path: path.to_owned(), what: what.into(), mend: mend.into() });
    }
}

fn check_install(config: &Config, found: &mut Findings) {
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

fn check_cache(cache: &Cache, found: &mut Findings) {
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
        found.say("agent.cache.mib_per_second", "nothing would ever be read", "leave it out for no limit");
    }
}

fn check_server(config: &Config, found: &mut Findings) {
    let server = &config.server;
    if !server.listen.ip().is_loopback() && !server.behind_tls {
        found.say(
            "server.listen",
            format!("{} can be reached from other machines, and this server speaks plain HTTP", server.listen),
            "listen on 127.0.0.1:7676, or put a TLS proxy before it and say `behind_tls: true`",
        );
    }
    if let Some(url) = &server.public_url {
        check_url("server.public_url", url, found);
    }
}

fn check_tokens(config: &Config, found: &mut Findings) {
    let mut names: BTreeMap<&str, &Token> = BTreeMap::new();
    let mut places: Vec<&Secret> = Vec::new();
    for (at, token) in config.server.tokens.iter().enumerate() {
        let path = format!("server.tokens[{at}]");
        check_name(&format!("{path}.name"), &token.name, found);
        if token.name == "local" {
            found.say(
                &format!("{path}.name"),
                "`local` is the name of this machine's own token",
                "choose another name",
            );
        }
        // Two secrets for one name are how a token is rotated; two meanings for one name are a mistake.
        if let Some(other) = names.insert(&token.name, token)
            && (other.role, &other.sources) != (token.role, &token.sources)
        {
            found.say(
                &format!("{path}.name"),
                format!("`{}` is there twice with different rights", token.name),
                "a name tells who did it: choose another one, or give both the same role and sources",
            );
        }
        check_secret(&format!("{path}.secret"), Some(&token.secret), found);
        if places.contains(&&token.secret) {
            found.say(
                &format!("{path}.secret"),
                format!("{} is used by another token too", token.secret),
                "give each token its own secret, or the ledger cannot tell them apart",
            );
        }
        places.push(&token.secret);
        match (token.role, token.sources.is_empty()) {
            (Role::Source, true) => {
                found.say(
                    &format!("{path}.sources"),
                    "a token of role source must say where it may post",
                    "list its sources: `sources: [prod]`",
                );
            }
            (Role::Source, false) => {
                for source in token.sources.iter().filter(|name| !config.sources.contains_key(*name)) {
                    let near = super::closest(source, config.sources.keys().map(String::as_str));
                    let mend = match near {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!(
                            "add it under `sources:`, as in `sources: {{ {source}: {{ kind: alertmanager }} }}`"
                        ),
                    };
                    found.say(&format!("{path}.sources"), format!("there is no source `{source}`"), mend);
                }
            }
            (_, false) => found.say(
                &format!("{path}.sources"),
                "only a token of role source has sources",
                "remove the key, or make it `role: source`",
            ),
            (_, true) => {}
        }
    }
}

/// What only a source that watches a cluster has.
fn check_watched(name: &str, source: &Source, config: &Config, found: &mut Findings) {
    let path = format!("sources.{name}");
    let watches = source.kind == super::KUBERNETES;
    let set = source.cluster.is_some() || !source.namespaces.is_empty() || !source.pod_labels.is_empty();
    if set && !watches {
        let mend = "remove `cluster`, `namespaces` and `pod_labels`, or set `kind: kubernetes`";
        found.say(&path, format!("a source of kind `{}` watches no cluster", source.kind), mend);
    }
    if !watches {
        return;
    }
    if config.clusters.is_empty() {
        found.say(&path, "there is no cluster to watch", "add one under `clusters:`");
    } else if let Some(cluster) = source.cluster.as_ref().filter(|name| !config.clusters.contains_key(*name)) {
        let mend = match super::closest(cluster, config.clusters.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "add it under `clusters:`".to_owned(),
        };
        found.say(&format!("{path}.cluster"), format!("there is no cluster `{cluster}`"), mend);
    }
}

fn check_source(name: &str, source: &Source, found: &mut Findings) {
    let path = format!("sources.{name}");
    check_name(&path, name, found);
    check_name(&format!("{path}.kind"), &source.kind, found);
    if let Some(api) = &source.api {
        check_url(&format!("{path}.api"), api, found);
        if source.kind != "alertmanager" {
            found.say(
                &format!("{path}.api"),
                format!("a source of kind `{}` has no API to ask", source.kind),
                "remove `api`; only `kind: alertmanager` is reconciled",
            );
        }
    }
    check_secret(&format!("{path}.api_token"), source.api_token.as_ref(), found);
    if source.api_token.is_some() && source.api.is_none() {
        found.say(
            &format!("{path}.api_token"),
            "is of no use without `api`",
            "add `api: http://alertmanager:9093`, or remove the token",
        );
    }
    if source.stale_after < crate::limits::STALE_AFTER_MIN {
        found.say(
            &format!("{path}.stale_after"),
            format!(
                "{} is shorter than any source repeats itself, so live alerts would be called stale",
                source.stale_after
            ),
            format!("write at least {}; twice the source's repeat interval is right", crate::limits::STALE_AFTER_MIN),
        );
    }
}

fn check_channel(path: &str, channel: &Channel, found: &mut Findings) {
    match channel {
        Channel::Slack { channel, token, api, buttons: _ } => {
            if channel.trim().is_empty() {
                found.say(
                    &format!("{path}.channel"),
                    "is empty",
                    "write the channel's id (`C0123ABCD`) or name (`#gpu-oncall`)",
                );
            }
            check_secret(&format!("{path}.token"), Some(token), found);
            check_safe_url(&format!("{path}.api"), api, found);
        }
        Channel::SlackWebhook { url } => check_secret(&format!("{path}.url"), Some(url), found),
        Channel::PagerDuty { routing_key, api } => {
            check_secret(&format!("{path}.routing_key"), Some(routing_key), found);
            check_safe_url(&format!("{path}.api"), api, found);
        }
        Channel::Email { server, from, to, username, password, .. } => {
            check_mail_server(&format!("{path}.server"), server, found);
            check_address(&format!("{path}.from"), from, found);
            if to.is_empty() {
                found.say(
                    &format!("{path}.to"),
                    "nobody would get the mail",
                    "list at least one address: `to: [oncall@example.com]`",
                );
            }
            for (at, address) in to.iter().enumerate() {
                check_address(&format!("{path}.to[{at}]"), address, found);
            }
            check_secret(&format!("{path}.password"), password.as_ref(), found);
            if username.is_some() != password.is_some() {
                found.say(path, "has one of `username` and `password`", "give both, or neither");
            }
        }
        Channel::Webhook { shape, url, headers } => {
            check_name(&format!("{path}.shape"), shape, found);
            check_secret(&format!("{path}.url"), Some(url), found);
            for (name, secret) in headers {
                check_secret(&format!("{path}.headers.{name}"), Some(secret), found);
            }
        }
        Channel::Log => {}
    }
}

fn check_cluster(path: &str, cluster: &KubeConfig, found: &mut Findings) {
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

/// A prefix that runbooks may reach; `private+` says that private addresses behind it are meant.
fn check_allow(path: &str, entry: &str, found: &mut Findings) {
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

fn check_guards(config: &Config, found: &mut Findings) {
    let guards = &config.guards;
    if guards.nodes_at_once == 0 {
        found.say(
            "guards.nodes_at_once",
            "0 lets no step begin",
            "write at least 1; to forbid all action say `mode_ceiling: suggest`, to stop now use `nightshift freeze`",
        );
    }
    if let Err(why) = guards.protected.check() {
        found.say(
            "guards.protected",
            why,
            "write each name out, or give the nodes the label nightshift.dev/opt-out=true",
        );
    }
    let shares = [
        ("guards.share_at_once", guards.share_at_once),
        ("guards.share_per_hour", guards.share_per_hour),
        ("guards.share_per_day", guards.share_per_day),
    ];
    for (path, share) in shares {
        if !(0.0..=1.0).contains(&share) {
            found.say(path, format!("{share} is not a share"), "write a number from 0 to 1: 0.05 is 5 %");
        }
    }
    for pair in shares.windows(2) {
        if pair[0].1 > pair[1].1 {
            found.say(
                pair[1].0,
                format!("{} is less than {} ({})", pair[1].1, pair[0].0, pair[0].1),
                "a longer time allows at least as much as a shorter one",
            );
        }
    }
}

fn check_rest(config: &Config, found: &mut Findings) {
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
            "keep the story at least as long as what it is about",
        );
    }
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&config.log.level) {
        found.say(
            "log.level",
            format!("`{}` is not a filter ({error})", config.log.level),
            "write `info`, or `info,nightshift=debug`",
        );
    }
}

/// Names are part of URLs, metrics and annotations.
fn check_name(path: &str, name: &str, found: &mut Findings) {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 63 || !name.chars().all(good) || name.starts_with(['-', '.', '_']) {
        found.say(
            path,
            format!("`{}` is not a name", name.escape_debug()),
            "use up to 63 of a-z, 0-9, `-`, `_` and `.`, starting with a letter or digit",
        );
    }
}

fn check_address(path: &str, address: &str, found: &mut Findings) {
    if address.parse::<lettre::message::Mailbox>().is_err() {
        found.say(
            path,
            format!("`{}` is not a mail address", address.escape_debug()),
            "write `name@example.com` or `Name <name@example.com>`",
        );
    }
}

fn check_mail_server(path: &str, server: &str, found: &mut Findings) {
    let mend = "write `smtp://host:587` (STARTTLS), `smtps://host:465`, or `smtp+plain://127.0.0.1:1025` for a server on this machine";
    match Url::parse(server) {
        Ok(url) if !url.has_host() => found.say(path, format!("`{server}` names no host"), mend),
        Ok(url) if url.password().is_some() || !url.username().is_empty() => {
            found.say(path, "has a user or password in it", "use `username` and `password: { file: … }`");
        }
        Ok(url) => match url.scheme() {
            "smtp" | "smtps" => {}
            "smtp+plain" if is_loopback(&url) => {}
            "smtp+plain" => found.say(path, "would send mail and password in the clear over a network", mend),
            _ => found.say(path, format!("`{server}` is not a mail server"), mend),
        },
        Err(_) => found.say(path, format!("`{}` is not a mail server", server.escape_debug()), mend),
    }
}

fn check_url(path: &str, text: &str, found: &mut Findings) -> Option<Url> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            if url.password().is_some() {
                found.say(path, "has a password in it", "give it as a secret reference instead");
            }
            Some(url)
        }
        _ => {
            found.say(
                path,
                format!("`{}` is not an HTTP address", text.escape_debug()),
                "write `http://host:port` or `https://host`",
            );
            None
        }
    }
}

/// Where our secrets are sent: never in the clear over a network.
fn check_safe_url(path: &str, text: &str, found: &mut Findings) {
    let Some(url) = check_url(path, text, found) else { return };
    if url.scheme() == "http" && !is_loopback(&url) {
        found.say(
            path,
            format!("`{text}` would carry our token in the clear"),
            "use https (plain http is for 127.0.0.1 only)",
        );
    }
}

fn is_loopback(url: &Url) -> bool {
    // As text: for schemes that the URL standard does not know, the host is never parsed as an address.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn check_secret(path: &str, secret: Option<&Secret>, found: &mut Findings) {
    match secret {
        Some(Secret::File(file)) if file.as_os_str().is_empty() => {
            found.say(path, "names no file", "write `{ file: /run/secrets/name }`")
        }
        Some(Secret::Env(name)) if name.is_empty() || name.contains(['=', '\0']) => {
            found.say(
                path,
                format!("`{}` is not the name of an environment variable", name.escape_debug()),
                "write `{ env: NAME }`",
            );
        }
        _ => {}
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
