//! Words of a configuration that must be something: a name, an address, a URL, a secret.
//!
//! Invariant: an error quotes the word, unless the word may be a secret.

use super::ConfigFindings;
use crate::config::{Config, SecretSource, closest};
use url::Url;

/// Where a role holds: clusters that exist, and never an empty list, which would look like everywhere and be nowhere.
pub(super) fn check_scope(path: &str, clusters: Option<&[String]>, config: &Config, found: &mut ConfigFindings) {
    let Some(clusters) = clusters else { return };
    if clusters.is_empty() {
        found.say(
            path,
            "is an empty list, which would be nowhere",
            "name clusters, or leave the key out for every one",
        );
    }
    let known = config.cluster_names();
    for cluster in clusters.iter().filter(|cluster| !known.contains(&cluster.as_str())) {
        let mend = match closest(cluster, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known names: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") }),
        };
        found.say(path, format!("there is no cluster `{}`", cluster.escape_debug()), mend);
    }
}

/// The allowed characters of a name, where this is none. Names are part of URLs, metrics and annotations.
pub fn wrong_name(name: &str) -> Option<&'static str> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    let wrong = name.is_empty() || name.len() > 63 || !name.chars().all(good) || name.starts_with(['-', '.', '_']);
    wrong.then_some("use up to 63 of a-z, 0-9, `-`, `_` and `.`, starting with a letter or digit")
}

pub(super) fn check_name(path: &str, name: &str, found: &mut ConfigFindings) {
    if let Some(mend) = wrong_name(name) {
        found.say(path, format!("`{}` is not a name", name.escape_debug()), mend);
    }
}

pub(super) fn check_address(path: &str, address: &str, found: &mut ConfigFindings) {
    if address.parse::<lettre::message::Mailbox>().is_err() {
        found.say(
            path,
            format!("`{}` is not a mail address", address.escape_debug()),
            "write `name@example.com` or `Name <name@example.com>`",
        );
    }
}

pub(super) fn check_mail_server(path: &str, server: &str, found: &mut ConfigFindings) {
    let mend = "write `smtp://host:587` (STARTTLS), `smtps://host:465`, or `smtp+plain://127.0.0.1:1025` for a server on this machine";
    match Url::parse(server) {
        Ok(url) if !url.has_host() => found.say(path, format!("`{server}` names no host"), mend),
        Ok(url) if url.password().is_some() || !url.username().is_empty() => {
            found.say(path, "has a user or password in it", "use `username` and `password: { file: … }`");
        }
        Ok(url) => match url.scheme() {
            "smtp" | "smtps" => {}
            "smtp+plain" if is_loopback(&url) => {}
            "smtp+plain" => found.say(path, "would send mail and password unencrypted over a network", mend),
            _ => found.say(path, format!("`{server}` is not a mail server"), mend),
        },
        Err(_) => found.say(path, format!("`{}` is not a mail server", server.escape_debug()), mend),
    }
}

pub(super) fn check_url(path: &str, text: &str, found: &mut ConfigFindings) -> Option<Url> {
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
pub(super) fn check_safe_url(path: &str, text: &str, found: &mut ConfigFindings) {
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
    // As text: for schemes outside of the URL standard, the host is never parsed as an address.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

pub(super) fn check_secret(path: &str, secret: Option<&SecretSource>, found: &mut ConfigFindings) {
    match secret {
        Some(SecretSource::File(file)) if file.as_os_str().is_empty() => {
            found.say(path, "names no file", "write `{ file: /run/secrets/name }`")
        }
        Some(SecretSource::Env(name)) if name.is_empty() || name.contains(['=', '\0']) => {
            found.say(
                path,
                format!("`{}` is not the name of an environment variable", name.escape_debug()),
                "write `{ env: NAME }`",
            );
        }
        _ => {}
    }
}
