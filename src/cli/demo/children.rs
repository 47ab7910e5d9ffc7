//! The child processes: a real Prometheus, a real Alertmanager, and the engine, in a folder of their own.
//!
//! Invariant: no child and no folder outlives the demo.

use super::{Narrator, people::People};
use crate::api::EntryList;
use crate::model::{Entry, EntryKind, Outcome};
use anyhow::{Context as _, bail};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(super) struct Children {
    dir: PathBuf,
    config: PathBuf,
    engine: Arc<Mutex<Option<Child>>>,
    others: Vec<Child>,
    url: String,
    client: reqwest::Client,
}

/// Ports of the children on loopback.
struct Ports {
    engine: u16,
    prometheus: u16,
    alertmanager: u16,
}

impl Children {
    pub(super) async fn start(
        tools: &Path,
        home: &Path,
        fleet: &str,
        people: &People,
        say: &Narrator,
    ) -> anyhow::Result<Children> {
        let dir = std::env::temp_dir().join(format!("nightshift-demo-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("data")).with_context(|| format!("cannot make {}", dir.display()))?;
        let ports = Ports { engine: free_port()?, prometheus: free_port()?, alertmanager: free_port()? };
        let config = write_configs(&dir, home, fleet, people, &ports)?;
        crate::world::install_tls();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        let url = format!("http://127.0.0.1:{}", ports.engine);
        let mut children = Children { dir, config, engine: Arc::default(), others: Vec::new(), url, client };
        children.start_engine(say).await?;
        let alertmanager = children.spawn(tools, "alertmanager", &alertmanager_flags(&children.dir, &ports))?;
        children.others.push(alertmanager);
        children.answering("Alertmanager", &format!("http://127.0.0.1:{}/-/ready", ports.alertmanager), say).await?;
        let prometheus = children.spawn(tools, "prometheus", &prometheus_flags(&children.dir, &ports))?;
        children.others.push(prometheus);
        children.answering("Prometheus", &format!("http://127.0.0.1:{}/-/ready", ports.prometheus), say).await?;
        Ok(children)
    }

    /// Starts the engine (again) and waits until it is ready.
    pub(super) async fn start_engine(&self, say: &Narrator) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("engine.log"))?;
        let began = Instant::now();
        let child = Command::new(std::env::current_exe()?)
            .arg("--config")
            .arg(&self.config)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the engine")?;
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        self.answering("engine", &format!("{}/readyz", self.url), &Narrator { began: say.began }).await?;
        say.say("engine", &format!("ready after {} ms", began.elapsed().as_millis()));
        Ok(())
    }

    /// SIGKILL: no goodbye, no flush.
    pub(super) fn pull_the_plug(&self) {
        if let Some(mut child) = self.engine.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let token = std::fs::read_to_string(self.dir.join("data/token")).ok()?;
        let request = self.client.get(format!("{}{path}", self.url)).bearer_auth(token.trim());
        request.send().await.ok()?.json().await.ok()
    }

    /// Runs this program as a user would, and returns its output.
    pub(super) async fn cli(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--config").arg(&self.config).args(args).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        if !output.status.success() {
            bail!("`nightshift {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// As `kubectl uncordon` does it: not through us, and not as us.
    pub(super) async fn uncordon_by_hand(&self, fleet: &str, node: &str) -> Result<(), String> {
        let request = self.client.patch(format!("{fleet}/api/v1/nodes/{node}"));
        let request = request.header("content-type", "application/merge-patch+json").header("user-agent", "kubectl");
        let answer =
            request.body(r#"{"spec":{"unschedulable":null}}"#).send().await.map_err(|error| error.to_string())?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(format!("uncordoning {node} by hand: {}", answer.status()))
        }
    }

    pub(super) fn engine_log(&self) -> String {
        tail(&std::fs::read_to_string(self.dir.join("engine.log")).unwrap_or_default())
    }

    pub(super) fn command_line(&self, command: &str) -> String {
        let program = std::env::current_exe().map_or_else(|_| "nightshift".into(), |path| path.display().to_string());
        format!("{program} --config {} {command}", self.config.display())
    }

    /// Prints each new line of the ledger's story as it is written.
    pub(super) fn follow_the_ledger(&self, say: &Narrator) {
        let (client, url, token_file, say) =
            (self.client.clone(), self.url.clone(), self.dir.join("data/token"), say.clone());
        tokio::spawn(async move {
            let mut after = -1_i64;
            loop {
                if let Some(entries) = read_story(&client, &url, &token_file, after).await {
                    for (no, line) in entries {
                        after = after.max(no);
                        if let Some(line) = line {
                            say.say("ledger", &line);
                        }
                    }
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }

    fn spawn(&self, tools: &Path, name: &str, flags: &[String]) -> anyhow::Result<Child> {
        let path = tools.join("bin").join(name);
        if !path.exists() {
            bail!("{} is missing: run `make tools`, or name their folder with --tools", path.display());
        }
        let log = std::fs::File::create(self.dir.join(format!("{name}.log")))?;
        let mut command = Command::new(&path);
        command.args(flags).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("cannot start {}", path.display()))
    }

    async fn answering(&self, what: &str, url: &str, say: &Narrator) -> anyhow::Result<()> {
        let give_up = Instant::now() + Duration::from_secs(60);
        while Instant::now() < give_up {
            if self.client.get(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                if what != "engine" {
                    say.say(what, &format!("ready at {}", url.trim_end_matches("/-/ready")));
                }
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let log = std::fs::read_to_string(self.dir.join(format!("{}.log", what.to_lowercase()))).unwrap_or_default();
        bail!("{what} did not answer at {url} within a minute; its log ends:\n{}", tail(&log))
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.pull_the_plug();
        for child in &mut self.others {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Entries after a number, each with its line of story if it has one; `None` while the engine is away.
async fn read_story(
    client: &reqwest::Client,
    url: &str,
    token_file: &Path,
    after: i64,
) -> Option<Vec<(i64, Option<String>)>> {
    let token = std::fs::read_to_string(token_file).ok()?;
    let request = client.get(format!("{url}/api/v1/entries?after={after}&limit=200")).bearer_auth(token.trim());
    let EntryList { entries, story, .. } = request.send().await.ok()?.json().await.ok()?;
    let read = |entry: &Entry| {
        let about = entry.about;
        let whose = about.run.map(|id| id.to_string()).or(about.incident.map(|id| id.to_string())).unwrap_or_default();
        // Messages show in the inboxes, and a step that went well in the next one's beginning.
        let is_noise =
            matches!(entry.kind, EntryKind::Delivered { .. } | EntryKind::StepEnded { outcome: Outcome::Ok(_), .. });
        let line = story.iter().find(|line| line.no == entry.no).filter(|_| !is_noise);
        let line = line.map(|line| format!("{whose:<4} {}", line.text.trim_start_matches(whose.as_str()).trim_start()));
        (entry.no.0, line)
    };
    Some(entries.iter().map(read).collect())
}

fn write_configs(dir: &Path, home: &Path, fleet: &str, people: &People, ports: &Ports) -> anyhow::Result<PathBuf> {
    let home = home.canonicalize().with_context(|| format!("{} is not a folder", home.display()))?;
    let fill = |text: String| {
        text.replace("@FLEET@", fleet.trim_start_matches("http://"))
            .replace("@PEOPLE@", &people.address.to_string())
            .replace("@NIGHTSHIFT@", &format!("127.0.0.1:{}", ports.engine))
            .replace("@PROMETHEUS@", &format!("127.0.0.1:{}", ports.prometheus))
            .replace("@ALERTMANAGER@", &format!("127.0.0.1:{}", ports.alertmanager))
            .replace("@RULES@", &home.join("deploy/demo/rules.yml").display().to_string())
            .replace("@TOKEN_FILE@", &dir.join("alertmanager-token").display().to_string())
            .replace("@DIR@", &dir.display().to_string())
            .replace("@HOME@", &home.display().to_string())
    };
    for name in ["prometheus.yml", "alertmanager.yml", "nightshift.yaml"] {
        let from = home.join("deploy/demo").join(format!("{name}.in"));
        let text = std::fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
        std::fs::write(dir.join(name), fill(text))?;
    }
    // Alertmanager's own, as in any installation: alerts posted with this machine's token may be anyone's, and no one
    // could approve a run of them.
    write_secret(&dir.join("alertmanager-token"), &draw_secret()?)?;
    write_secret(&dir.join("slack-token"), "xoxb-demo\n")?;
    write_secret(&dir.join("pagerduty-key"), "0123456789abcdef0123456789abcdef\n")?;
    Ok(dir.join("nightshift.yaml"))
}

/// 256 random bits.
fn draw_secret() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system has no randomness"))?;
    Ok(hex::encode(bytes))
}

fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(std::io::Write::write_all(&mut file, text.as_bytes())?)
}

fn prometheus_flags(dir: &Path, ports: &Ports) -> Vec<String> {
    vec![
        format!("--config.file={}", dir.join("prometheus.yml").display()),
        format!("--storage.tsdb.path={}", dir.join("prometheus").display()),
        format!("--web.listen-address=127.0.0.1:{}", ports.prometheus),
        // An alert that fires before Alertmanager was discovered is otherwise sent again only after a minute.
        "--rules.alert.resend-delay=1s".to_owned(),
    ]
}

fn alertmanager_flags(dir: &Path, ports: &Ports) -> Vec<String> {
    vec![
        format!("--config.file={}", dir.join("alertmanager.yml").display()),
        format!("--storage.path={}", dir.join("alertmanager").display()),
        format!("--web.listen-address=127.0.0.1:{}", ports.alertmanager),
        "--cluster.listen-address=".to_owned(),
    ]
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
