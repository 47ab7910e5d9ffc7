//! What can be seen on this machine: secrets, files, the catalog, tokens, the port.
//!
//! Invariant: reads only; the store is not opened, because a running engine owns it.

use super::Findings;
use crate::catalog::{Catalog, Loaded};
use crate::cli::serve;
use crate::config::{Config, INFERENCE, KUBERNETES, Role, Source};
use crate::engine::misfits;
use crate::limits;
use crate::model::Right;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

pub(super) fn secrets(config: &Config, findings: &mut Findings) {
    let secrets = serve::secrets(config);
    let mut good = 0;
    for (path, secret) in &secrets {
        match (secret.read(), secret.careless()) {
            (Err(why), _) => findings.bad("secrets", format!("{path}: {why}"), ""),
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
                let what = format!("{shown} is open to everybody (mode {mode:04o}); it holds the signing key");
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
                    format!("no rules in {}: events are kept and nobody is told", config.rules_dir.display()),
                    "rules:\n  - name: everything\n    when: ['severity=~\"critical|error\"']\n    tell: [<channel>]",
                );
            }
            for problem in problems {
                let first = problem.text.lines().next().unwrap_or_default();
                findings.odd("catalog", format!("{}: {first}", problem.file), "nightshift check");
            }
            for misfit in misfits(config, &loaded) {
                // That there are no channels at all is said below, once.
                if misfit.fatal || !misfit.text.starts_with("no `channels`") {
                    let say = if misfit.fatal { Findings::bad } else { Findings::odd };
                    say(findings, "catalog", misfit.text, "mend the configuration or the rules");
                }
            }
            Some(loaded)
        }
    }
}

/// Whether somebody may post to every source, and what to paste on the other side.
pub(super) fn tokens(config: &Config, findings: &mut Findings) {
    let base = config.server.public_url.clone().unwrap_or_else(|| format!("http://{}", config.server.listen));
    let base = base.trim_end_matches('/');
    let is_posted_to = |source: &Source| source.kind != KUBERNETES && source.kind != INFERENCE;
    for (name, source) in config.sources.iter().filter(|(_, source)| is_posted_to(source)) {
        let opens = |token: &&crate::config::Token| match token.role {
            Role::Source => token.sources.contains(name),
            role => role.may(Right::Post),
        };
        let url = format!("{base}/in/{}/{name}", source.kind);
        match config.server.tokens.iter().find(opens) {
            Some(token) => findings.good("sources", format!("{name}: `{}` may post to {url}", token.name)),
            None => findings.odd(
                "sources",
                format!(
                    "{name}: only this machine's own token ({}) may post to it, and that one may do everything",
                    config.local_token_path().display()
                ),
                format!(
                    "openssl rand -hex 32 > {name}.token && chmod 600 {name}.token\nserver:\n  tokens:\n    - {{ name: {name}, role: source, sources: [{name}], secret: {{ file: {name}.token }} }}\nand there: url: {url}, http_config: {{ authorization: {{ credentials_file: {name}.token }} }}"
                ),
            ),
        }
    }
    if config.sources.is_empty() {
        findings.odd(
            "sources",
            "none is configured: nothing is heard",
            "sources:\n  prod: { kind: alertmanager, api: 'http://alertmanager:9093' }",
        );
    }
    if config.channels.is_empty() {
        findings.odd(
            "channels",
            "none is configured: what rules tell people goes to the engine's log only",
            "channels:\n  oncall: { kind: log }   # or slack, pagerduty, email: see nightshift.example.yaml",
        );
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
