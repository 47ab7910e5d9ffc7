//! Sources: their kind, the objects they watch, the address for reconciliation.
//!
//! Invariant: a key that the kind does not read is a mistake, and is reported.

use super::ConfigFindings;
use super::words::{check_name, check_secret, check_url};
use crate::config::{self, Config, SourceConfig};

/// Keys that only a source that watches a cluster has.
pub(super) fn check_watched(name: &str, source: &SourceConfig, config: &Config, found: &mut ConfigFindings) {
    let path = format!("sources.{name}");
    let watches = source.kind == config::KUBERNETES;
    let probes = source.kind == config::INFERENCE;
    let set = source.cluster.is_some() || !source.namespaces.is_empty() || !source.pod_labels.is_empty();
    if set && !watches && !probes {
        let mend = "remove `cluster`, `namespaces` and `pod_labels`, or set `kind: kubernetes`";
        found.say(&path, format!("a source of kind `{}` watches no cluster", source.kind), mend);
    }
    if !watches && !probes {
        return;
    }
    if config.clusters.is_empty() && watches {
        found.say(&path, "there is no cluster to watch", "add one under `clusters:`");
    } else if let Some(cluster) = source.cluster.as_ref().filter(|name| !config.clusters.contains_key(*name)) {
        let mend = match config::closest(cluster, config.clusters.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "add it under `clusters:`".to_owned(),
        };
        found.say(&format!("{path}.cluster"), format!("there is no cluster `{cluster}`"), mend);
    }
}

/// Which cluster events are about that are posted here: with several clusters the sender must not choose among all of them.
pub(super) fn check_clusters(name: &str, source: &SourceConfig, config: &Config, found: &mut ConfigFindings) {
    let path = format!("sources.{name}.clusters");
    for cluster in source.clusters.iter().filter(|name| !config.clusters.contains_key(*name)) {
        let fix = match config::closest(cluster, config.clusters.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "add it under `clusters:`".to_owned(),
        };
        found.say(&path, format!("there is no cluster `{cluster}`"), fix);
    }
    if !source.is_posted_to() {
        if !source.clusters.is_empty() {
            found.say(&path, "this source accepts no posts", "remove it; `cluster` sets the watched cluster");
        }
    } else if config.clusters.len() > 1 && source.about().is_empty() {
        let known = config.clusters.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        found.say(
            &format!("sources.{name}"),
            format!("its events may name any cluster ({known}), so its token can start runs in all of them"),
            "add `add_labels: { cluster: NAME }` if it is about one cluster, or `clusters: [NAME, …]`",
        );
    }
}

pub(super) fn check_source(name: &str, source: &SourceConfig, found: &mut ConfigFindings) {
    let path = format!("sources.{name}");
    check_name(&path, name, found);
    check_name(&format!("{path}.kind"), &source.kind, found);
    if let Some(api) = &source.api {
        check_url(&format!("{path}.api"), api, found);
        if source.kind != "alertmanager" {
            found.say(
                &format!("{path}.api"),
                format!("a source of kind `{}` has no API to query", source.kind),
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
