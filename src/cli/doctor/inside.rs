//! Checks on this machine: secrets, files, the catalog, tokens, the port.
//!
//! Invariant: reads only; the store is not opened, because a running engine owns it.

use super::Findings;
use super::reach::TOKEN_FILE;
use crate::catalog::{Catalog, Loaded};
use crate::cli::serve;
use crate::config::{Config, INFERENCE, KUBERNETES, Role, Source};
use crate::engine::misfits;
use crate::limits;
use crate::model::{ApiToken, Mode, Right};
use crate::notifiers::one_line;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

pub(super) fn secrets(config: &Config, findings: &mut Findings) {
    let missing = config.missing();
    for one in &missing {
        findings.bad("secrets", format!("{}: {}; {}", one.path, one.why, one.off), one.fix.clone());
    }
    let secrets = config.secrets();
    let mut good = 0;
    for (path, secret) in &secrets {
        match (secret.read(), secret.careless()) {
            (Err(_), _) => {}
            (Ok(_), Some(careless)) => findings.odd("secrets", format!("{path}: {careless}"), ""),
            (Ok(_), None) => good += 1,
        }
    }
    if good > 0 {
        findings.good("secrets", format!("{good} can be read here, as this user"));
    }
}

pub(super) fn files(config: &Config, findings: &mut Findings) {
    let data = &config.data_dir;
    let shown = data.display();
    match std::fs::metadata(data) {
        Err(_) => findings.odd("data_dir", format!("{shown} is not there yet; `serve` makes it"), ""),
        Ok(meta) if !meta.is_dir() => findings.bad("data_dir", format!("{shown} is not a folder"), "set `data_dir`"),
        Ok(meta) => {
            let mode = meta.permissions().mode() & 0o7777;
            if mode & 0o007 != 0 {
                let what = format!("{shown} is open to all users (mode {mode:04o}); it holds the signing key");
                findings.odd("data_dir", what, format!("chmod 700 {shown}"));
            }
            if rustix::fs::access(data, rustix::fs::Access::WRITE_OK).is_err() {
                findings.bad(
                    "data_dir",
                    format!("{shown} cannot be written by this user"),
                    format!("sudo chown -R $(id -un) {shown}"),
                );
            } else {
                space(data, findings);
            }
        }
    }
    for path in [config.key_path(), config.local_token_path()] {
        if let Ok(meta) = std::fs::metadata(&path) {
            let mode = meta.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                let path = path.display();
                findings.bad(
                    "files",
                    format!("{path} can be read by others (mode {mode:03o})"),
                    format!("chmod 600 {path}"),
                );
            }
        }
    }
    match std::fs::metadata(config.store_path()) {
        Ok(meta) => findings.good("store", format!("{}, {} KiB", config.store_path().display(), meta.len() / 1024)),
        Err(_) => {
            findings.odd("store", format!("{} is not there yet; `serve` makes it", config.store_path().display()), "")
        }
    }
}

fn space(data: &Path, findings: &mut Findings) {
    let Ok(disk) = rustix::fs::statvfs(data) else { return };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize) / (1024 * 1024);
    let what = format!("{} has {free} MiB free", data.display());
    if free < limits::DISK_FREE_MIB {
        findings.odd("data_dir", what, "make room: a full disk means 503 to every source");
    } else {
        findings.good("data_dir", what);
    }
}

pub(super) fn catalog(config: &Config, findings: &mut Findings) -> Option<Arc<Loaded>> {
    match Catalog::load(serve::folders(config)) {
        Err(problems) => {
            for problem in problems {
                let first = problem.text.lines().next().unwrap_or_default();
                findings.bad("catalog", format!("{}: {first}", problem.file), "nightshift check");
            }
            None
        }
        Ok((catalog, problems)) => {
            let loaded = catalog.current();
            let (rules, runbooks) = (loaded.rules.rules().count(), loaded.runbooks.len());
            findings.good("catalog", format!("{rules} rules, {runbooks} runbooks"));
            if rules == 0 {
                findings.odd(
                    "catalog",
                    format!("no rules in {}: events are stored without notifications", config.rules_dir.display()),
                    "rules:\n  - name: everything\n    when: ['severity=~\"critical|error\"']\n    tell: [<channel>]",
                );
            }
            self::rules(config, &loaded, findings);
            for problem in problems {
                let first = problem.text.lines().next().unwrap_or_default();
                findings.odd("catalog", format!("{}: {first}", problem.file), "nightshift check");
            }
            for misfit in misfits(config, &loaded) {
                // That there are no channels at all is said below, once.
                if misfit.fatal || !misfit.text.starts_with("no `channels`") {
                    let say = if misfit.fatal { Findings::bad } else { Findings::odd };
                    let place = misfit.place.map(|place| format!("{place}: ")).unwrap_or_default();
                    say(findings, "catalog", format!("{place}{}", misfit.text), "fix the configuration or the rules");
                }
            }
            Some(loaded)
        }
    }
}

/// Whether a token of its own may post to every source, and how to make one. `made`: tokens made here, by their role,
/// sources and name as the API says them.
pub(super) fn tokens(config: &Config, made: &[ApiToken], findings: &mut Findings) {
    let base = config.server.public_url.clone().unwrap_or_else(|| format!("http://{}", config.server.listen));
    let base = base.trim_end_matches('/');
    let is_posted_to = |source: &Source| source.kind != KUBERNETES && source.kind != INFERENCE;
    for (name, source) in config.sources.iter().filter(|(_, source)| is_posted_to(source)) {
        let opens = |token: &&crate::config::Token| match token.role {
            Role::Source => token.sources.contains(name),
            role => role.may(Right::Post),
        };
        let url = format!("{base}/in/{}/{name}", source.kind);
        let of_file = config.server.tokens.iter().find(opens).map(|token| token.name.clone());
        let of_here = || Some(made.iter().find(|token| token.sources.contains(name))?.name.clone());
        match of_file.or_else(of_here) {
            Some(token) => findings.good("sources", format!("{name}: `{}` may post to {url}", one_line(&token, 100))),
            None => {
                let what = format!(
                    "{name}: only this machine's own token ({}) may post to it, which may do everything and which other \
                     users cannot read",
                    config.local_token_path().display()
                );
                findings.odd("sources", what, token_to_make(name, source, &url));
            }
        }
    }
    if config.sources.is_empty() {
        findings.odd(
            "sources",
            "none is configured: no alerts are received",
            "sources:\n  prod: { kind: alertmanager, api: 'http://alertmanager:9093' }",
        );
    }
    if config.channels.is_empty() {
        findings.odd(
            "channels",
            "none is configured: notifications of rules go to the engine's log only",
            "channels:\n  oncall: { kind: log }   # or slack, pagerduty, email: see nightshift.example.yaml",
        );
    }
}

/// How to make a token that may post to one source and do nothing else, where its user can read it.
fn token_to_make(name: &str, source: &Source, url: &str) -> String {
    let made = format!("{}-{name}", source.kind);
    let make = format!(
        "nightshift tokens make {made} --role source --sources {name} --expires 365d > nightshift-token      # the engine runs"
    );
    match source.kind.as_str() {
        "alertmanager" => format!(
            "{make}\nsudo install -o alertmanager -m 0400 nightshift-token {TOKEN_FILE} && rm nightshift-token\nand in \
             alertmanager.yml: url: {url}, http_config: {{ authorization: {{ credentials_file: {TOKEN_FILE} }} }}"
        ),
        _ => format!("{make}\nand there: POST {url} with the header Authorization: Bearer TOKEN"),
    }
}

/// How many rules act in which mode, and which channels they notify.
pub(super) fn rules(config: &Config, loaded: &Loaded, findings: &mut Findings) {
    let (mut modes, mut told) = (BTreeMap::<Mode, usize>::new(), BTreeMap::<&str, usize>::new());
    let mut only_notify = 0;
    for rule in loaded.rules.rules() {
        match rule.run {
            Some(_) => *modes.entry(rule.mode.min(config.mode_ceiling)).or_default() += 1,
            None => only_notify += 1,
        }
        for channel in &rule.tell {
            *told.entry(channel).or_default() += 1;
        }
    }
    let count = loaded.rules.rules().count();
    if count == 0 {
        return;
    }
    let modes = modes.iter().map(|(mode, count)| format!("{count} {mode}"));
    let kinds: Vec<String> = modes.chain((only_notify > 0).then(|| format!("{only_notify} notify only"))).collect();
    let ceiling = format!("mode_ceiling {}", config.mode_ceiling);
    let channels: Vec<String> = told.iter().map(|(channel, count)| format!("{channel} ({count})")).collect();
    let text = format!("{count} rules in force ({ceiling}): {}", kinds.join(", "));
    match channels.is_empty() {
        false => findings.good("rules", format!("{text}; they notify {}", channels.join(", "))),
        true => {
            findings.odd("rules", format!("{text}; none of them notifies a channel"), "add `tell: [CHANNEL]` to rules")
        }
    }
}

/// Where this machine reaches an address that the engine listens on.
pub(super) fn local(listen: SocketAddr) -> SocketAddr {
    let mut local = listen;
    if listen.ip().is_unspecified() {
        local.set_ip(if listen.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    local
}

pub(super) fn port(config: &Config, findings: &mut Findings) {
    let listen = config.server.listen;
    if TcpStream::connect_timeout(&local(listen), limits::DOCTOR_CONNECT).is_ok() {
        findings.good("port", format!("something listens on {listen}"));
        return;
    }
    match TcpListener::bind(listen) {
        Ok(_) => findings.good("port", format!("{listen} is free; the engine is not running")),
        Err(error) => findings.bad("port", format!("{listen}: {error}"), "choose another `server.listen`"),
    }
}
