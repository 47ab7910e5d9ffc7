//! The real program against a Slack that is pretended: whom it trusts, what its status says, and what doctor finds.
//!
//! Invariant: what is wrong is said with what to do, and no token is in any word.

use super::rig::{Line, Slack};
use crate::harness::{Engine, Site, eventually};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const OPEN: &str = "apps.connections.open";
const ALL: &str = "chat:write,channels:history,commands";

/// An authority of this test alone: the file that names it, and what a server of it speaks TLS with.
fn authority(folder: &Path, name: &str) -> (PathBuf, TlsAcceptor) {
    nightshift::world::install_tls();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let file = folder.join(format!("{name}.pem"));
    std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    (file, TlsAcceptor::from(Arc::new(config)))
}

struct Place {
    site: Site,
    slack: Slack,
    lines: mpsc::Receiver<Line>,
    secrets: TempDir,
}

impl Place {
    async fn new() -> Place {
        Place::at(tempfile::tempdir().unwrap(), Slack::start().await)
    }

    fn at(secrets: TempDir, (slack, lines): (Slack, mpsc::Receiver<Line>)) -> Place {
        for (name, text) in [("app", "xapp-s3cret"), ("bot", "xoxb-s3cret")] {
            std::fs::write(secrets.path().join(name), text).unwrap();
        }
        let (dir, url) = (secrets.path().display(), &slack.url);
        let extra = format!(
            "slack:\n  app_token: {{ file: '{dir}/app' }}\n  team: T0\n  app: A0\n  hooks: '{url}'\n  api: '{url}api'\n\
             channels:\n  oncall: {{ kind: slack, channel: C1, token: {{ file: '{dir}/bot' }}, api: '{url}api', buttons: true }}\n\
             people:\n  - {{ name: ada, role: operator, slack: U0ADA }}\n"
        );
        Place { site: Site::new(&extra, "rules: []\n", &[]), slack, lines, secrets }
    }

    async fn start(&self, env: &[(&str, String)]) -> Engine {
        self.site.start(env).await.unwrap_or_else(|| panic!("{}", self.site.log()))
    }

    /// The next connection of the engine, greeted.
    async fn line(&mut self) -> Line {
        let next = tokio::time::timeout(std::time::Duration::from_secs(60), self.lines.recv());
        let mut line = next.await.expect("the engine connects").expect("the listener lives");
        line.greet().await;
        line
    }

    /// What the program prints.
    async fn prints(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
        command.arg("--config").arg(self.site.path().join("nightshift.yaml")).args(args);
        command.env_remove("NIGHTSHIFT_TOKEN");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!said.contains("s3cret"), "{said}");
        assert!(!said.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    /// The line of the status about Slack, once it says this.
    async fn status(&self, words: &str) -> String {
        eventually(words, async || {
            let said = self.prints(&["status"]).await;
            let line = said.lines().find(|line| line.trim_start().starts_with("slack "))?.to_owned();
            line.contains(words).then_some(line)
        })
        .await
    }

    /// (health, what, mend) of the areas that are about Slack.
    async fn findings(&self) -> Vec<(String, String, String)> {
        let said: Value = serde_json::from_str(&self.prints(&["doctor", "-o", "json"]).await).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of = |finding: &&Value| finding["area"] == "slack" || finding["area"] == "channel oncall";
        let found = said["findings"].as_array().unwrap().iter().filter(of);
        found.map(|one| (text(&one["health"]), text(&one["what"]), text(&one["mend"]))).collect()
    }

    /// That one finding is of this health and has these words, and what to do.
    async fn finds(&self, health: &str, words: &str, mend: &str) {
        let found = self.findings().await;
        let one = found.iter().find(|(is, what, _)| is == health && what.contains(words));
        let (.., said) = one.unwrap_or_else(|| panic!("{words}: {found:#?}"));
        assert!(said.contains(mend), "{said}");
    }
}

#[tokio::test]
async fn over_tls_the_engine_trusts_whom_ssl_cert_file_names() {
    let secrets = tempfile::tempdir().unwrap();
    let (file, tls) = authority(secrets.path(), "ours");
    let mut place = Place::at(secrets, Slack::start_with(Some(tls.clone()), Some(tls)).await);
    let engine = place.start(&[("SSL_CERT_FILE", file.display().to_string())]).await;
    let mut line = place.line().await;
    let slash = json!({
        "team_id": "T0", "api_app_id": "A0", "user_id": "U0ADA", "text": "status", "trigger_id": "1",
        "response_url": format!("{}answer", place.slack.url),
    });
    line.deliver("e1", "slash_commands", slash).await;
    assert!(place.slack.answers(1).await[0].contains("0 open incidents"));
    place.status("connected since").await;
    assert_eq!(engine.stop(), Some(0));
}

#[tokio::test]
async fn an_authority_that_nobody_named_is_not_trusted_and_the_status_says_how_to_name_it() {
    let secrets = tempfile::tempdir().unwrap();
    let (_, theirs) = authority(secrets.path(), "theirs");
    let (ours, _) = authority(secrets.path(), "ours");
    let env = [("SSL_CERT_FILE", ours.display().to_string())];
    // Its API is in the clear here, so that the socket alone is what is not trusted; then the API, too.
    for (api, words) in [(None, "Slack's socket: "), (Some(theirs.clone()), "UnknownIssuer")] {
        let place = Place::at(tempfile::tempdir().unwrap(), Slack::start_with(api, Some(theirs.clone())).await);
        let engine = place.start(&env).await;
        let line = place.status(words).await;
        assert!(line.contains("not connected since") && line.contains("SSL_CERT_FILE"), "{line}");
        assert!(!line.contains("ticket"), "{line}");
        assert!(place.slack.said() == 0);
        drop(engine);
    }
}

#[tokio::test]
async fn status_and_doctor_say_how_the_connection_stands_and_what_to_do_about_it() {
    let mut place = Place::new().await;
    let _engine = place.start(&[]).await;
    let line = place.status("not connected since").await;
    assert!(line.contains("it is connecting"), "{line}");
    let line = place.line().await;
    place.status("connected since").await;
    let found = place.findings().await;
    assert!(found.iter().all(|(health, ..)| health == "good"), "{found:#?}");
    for words in ["app token is valid", "is connected since", "of the workspace T0", "nightshift in Night"] {
        assert!(found.iter().any(|(_, what, _)| what.contains(words)), "{words}: {found:#?}");
    }
    place.slack.down(Some(503));
    drop(line);
    let said = place.status("503").await;
    assert!(said.contains("not connected since"), "{said}");
    place.finds("bad", "the engine that runs here is not connected since", "port 443").await;
    place.slack.down(None);
    let _line = place.line().await;
    place.status("connected since").await;
}

#[tokio::test]
async fn doctor_says_of_a_bad_token_a_missing_right_and_a_foreign_workspace_what_to_mend() {
    let place = Place::new().await;
    place.slack.then(OPEN, 200, None, json!({ "ok": false, "error": "invalid_auth" }));
    place.finds("bad", "make one with `connections:write`", "slack.app_token").await;
    place.slack.then(OPEN, 200, None, json!({ "ok": false, "error": "socket_mode_not_enabled" }));
    place.finds("bad", "switch it on at api.slack.com", "app's settings").await;
    place.slack.then(OPEN, 429, Some(30), json!({ "ok": false, "error": "ratelimited" }));
    place.finds("bad", "limits our rate", "port 443").await;
    // Asked twice: for forms and pages, and for the channel.
    for _ in 0..2 {
        place.slack.then("auth.test", 200, None, json!({ "ok": false, "error": "token_revoked" }));
    }
    let found = place.findings().await;
    assert_eq!(
        found.iter().filter(|(_, what, _)| what.contains("the bot token is not valid")).count(),
        2,
        "{found:#?}"
    );
    place.slack.bot("commands,channels:history", "T0");
    place.finds("bad", "lacks `chat:write`", "channels.oncall").await;
    place.slack.bot("chat:write", "T0");
    place.finds("bad", "no /nightshift in the workspace", "reinstall the app").await;
    place.finds("good", "may be sent twice after a crash", "").await;
    place.slack.bot(ALL, "T9");
    place.finds("bad", "`slack.team` is T0, and the bot token is of T9", "team: T9").await;
    place.slack.bot(ALL, "T0");
    std::fs::write(place.secrets.path().join("app"), "").unwrap();
    let said = place.prints(&["doctor"]).await;
    assert!(said.contains("slack.app_token"), "{said}");
}
