//! The real binary as a child process, its configuration, and a client, for tests that start, kill and ask it.
//!
//! Invariant: a child never outlives its test.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again until the answer is there; the panic says what was waited for.
pub async fn eventually<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, ask).await
}

/// The same for what takes longer than other things do.
pub async fn eventually_within<T>(patience: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + patience;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < give_up, "waited {patience:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await; // polls
    }
}

/// A folder with a configuration, rules and runbooks for one engine.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub port: u16,
}

/// One running engine.
pub struct Engine {
    child: Child,
    pub url: String,
    token: String,
    client: reqwest::Client,
}

impl Site {
    /// `extra` is YAML appended to the configuration; rules and runbooks are (name, text).
    pub fn new(extra: &str, rules: &str, runbooks: &[(&str, &str)]) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        for folder in ["data", "rules", "runbooks", "integrations"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        // What is over is over at once, but where a test is about that.
        let incidents = match extra.contains("incidents:") {
            true => "",
            false => "incidents: { resolve_after: 0s, group_wait: 0s }\n",
        };
        let config = format!(
            "data_dir: {d}/data\nrules_dir: {d}/rules\nrunbooks_dir: {d}/runbooks\nintegrations_dir: {d}/integrations\n\
             server:\n  listen: 127.0.0.1:{port}\nlog:\n  level: info\n{incidents}{extra}",
            d = dir.path().display()
        );
        std::fs::write(dir.path().join("nightshift.yaml"), config).unwrap();
        std::fs::write(dir.path().join("rules/test.yaml"), rules).unwrap();
        for (name, text) in runbooks {
            std::fs::write(dir.path().join(format!("runbooks/{name}.rhai")), text).unwrap();
        }
        Site { dir, port }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A token of the configuration: its text is `secret(name)`. `more` is what else its entry says.
    pub fn add_token(&self, name: &str, role: &str, more: &str) {
        let file = self.path().join(format!("{name}.token"));
        std::fs::write(&file, secret(name)).unwrap();
        let entry =
            format!("    - {{ name: {name}, role: {role}, secret: {{ file: '{}' }} {more} }}\n", file.display());
        self.edit(|config| match config.contains("  tokens:\n") {
            true => config.replacen("  tokens:\n", &format!("  tokens:\n{entry}"), 1),
            false => config.replacen("log:\n", &format!("  tokens:\n{entry}log:\n"), 1),
        });
    }

    /// Writes the configuration anew, in one go, as an editor does.
    pub fn edit(&self, change: impl FnOnce(String) -> String) {
        let (file, new) = (self.path().join("nightshift.yaml"), self.path().join("nightshift.yaml.new"));
        std::fs::write(&new, change(std::fs::read_to_string(&file).unwrap())).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// Starts the engine with these environment variables and waits until it is ready, or has died.
    pub async fn start(&self, env: &[(&str, String)]) -> Option<Engine> {
        self.start_with(&[], env).await
    }

    /// The same with more arguments of `serve`.
    pub async fn start_with(&self, args: &[&str], env: &[(&str, String)]) -> Option<Engine> {
        let mut child = self.spawn(args, env);
        let client = client();
        let url = format!("http://127.0.0.1:{}", self.port);
        let give_up = Instant::now() + PATIENCE;
        loop {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            let ready = client.get(format!("{url}/readyz")).send().await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                break;
            }
            assert!(Instant::now() < give_up, "the engine was not ready in time; its log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await; // polls
        }
        Some(Engine { child, url, token: self.token(), client })
    }

    /// This machine's own token, once an engine has made it.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.path().join("data/token")).unwrap().trim().to_owned()
    }

    /// The process alone, which is not waited for; see that it ends.
    pub fn spawn(&self, args: &[&str], env: &[(&str, String)]) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(self.path().join("log")).unwrap();
        let mut command = Command::new(binary());
        command.arg("--config").arg(self.path().join("nightshift.yaml")).arg("serve").args(args);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.env_remove("NIGHTSHIFT_TOKEN").envs(env.iter().map(|(name, value)| (*name, value.as_str())));
        command.spawn().unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }
}

impl Engine {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_dead(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// How it ended, once it has: the exit code, none after a signal.
    pub fn exit(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().unwrap().map(|status| status.code())
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap().code()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// `None` if nobody answered.
    pub async fn get(&self, path: &str) -> Option<Value> {
        let answer = self.client.get(format!("{}{path}", self.url)).bearer_auth(&self.token).send().await.ok()?;
        answer.json().await.ok()
    }

    /// Any request with any token, or none: the status and body.
    pub async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if !body.is_null() {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    /// A page that is no JSON.
    pub async fn text(&self, path: &str) -> Option<String> {
        let answer = self.client.get(format!("{}{path}", self.url)).bearer_auth(&self.token).send().await.ok()?;
        answer.text().await.ok()
    }

    /// The status and body, or `None` if nobody answered.
    pub async fn post(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(&self.token).json(body);
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.json().await.unwrap_or(Value::Null)))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The engine that these tests start: the one that was built with them, or the one of `NIGHTSHIFT_BINARY`, so that a bar is
/// measured with the build that ships.
pub fn binary() -> PathBuf {
    std::env::var_os("NIGHTSHIFT_BINARY").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_nightshift")), PathBuf::from)
}

/// A number of the environment, for what is short in `make test` and long by itself.
pub fn number_of(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The text of a test's token.
pub fn secret(name: &str) -> String {
    name.repeat(64)[..64].to_owned()
}

pub fn client() -> reqwest::Client {
    nightshift::world::install_tls();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap()
}

/// A port that nobody listens on and that no outgoing connection is given: those have the ports from 32768 on, so a
/// client that knocks while the server is away cannot take its place.
pub fn free_port() -> u16 {
    static ASKED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    loop {
        let number = ASKED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = 20_000 + u16::try_from((std::process::id().wrapping_mul(131) + number) % 12_000).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Alertmanager's body for alerts of one group, each given by its labels.
pub fn alertmanager_body(status: &str, starts_at: &str, alerts: &[&[(&str, &str)]]) -> Value {
    let list: Vec<Value> = alerts
        .iter()
        .map(|labels| {
            let labels: serde_json::Map<String, Value> =
                labels.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
            let ends = if status == "firing" { "0001-01-01T00:00:00Z" } else { "2026-11-23T04:00:00Z" };
            serde_json::json!({
                "status": status, "labels": labels, "annotations": {"summary": "a test"},
                "startsAt": starts_at, "endsAt": ends, "generatorURL": "",
            })
        })
        .collect();
    serde_json::json!({
        "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": status, "receiver": "nightshift",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "", "alerts": list,
    })
}

/// The folder of tools that the Makefile fetches.
pub fn tools() -> PathBuf {
    std::env::var_os("NIGHTSHIFT_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/tools"), PathBuf::from)
}

/// One of them; a missing one fails the test, it never skips it.
pub fn tool(name: &str) -> PathBuf {
    let path = tools().join("bin").join(name);
    assert!(path.exists(), "{} is missing: run `make tools` first", path.display());
    path
}

/// A reproducible draw (splitmix64).
pub struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` up to, not including, `high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }
}
