//! A real Chromium without a screen, led over its own protocol: keys are pressed, nothing is clicked by a script.
//!
//! Invariant: whatever its console calls an error, and whatever a policy stops, is kept for the test to look at.

use crate::harness::{eventually, tool};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};
use url::Url;

pub struct Chromium {
    child: Child,
    wire: WebSocketStream<TcpStream>,
    session: String,
    count: u64,
    /// What its console and its log called an error.
    pub errors: Vec<String>,
    loads: u64,
    _profile: TempDir,
}

impl Chromium {
    /// A window of this size in CSS pixels, as a phone has it.
    pub async fn phone(width: u32, height: u32) -> Chromium {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(tool("chromium"));
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--disable-background-networking", "--no-proxy-server", "--remote-debugging-port=0"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        // Read to its end, so that the browser is never stopped by a full pipe.
        std::thread::spawn(move || said.lines().map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        let address = async {
            while let Some(line) = told.recv().await {
                if let Some(address) = line.strip_prefix("DevTools listening on ") {
                    return address.trim().to_owned();
                }
            }
            panic!("chromium ended before it listened")
        };
        let address = tokio::time::timeout(Duration::from_secs(60), address).await.expect("chromium listens");
        let url: Url = address.parse().unwrap();
        let stream = TcpStream::connect(("127.0.0.1", url.port().unwrap())).await.unwrap();
        let (wire, _) = client_async(address, stream).await.unwrap();
        let (session, errors) = (String::new(), Vec::new());
        let mut chromium = Chromium { child, wire, session, count: 0, errors, loads: 0, _profile: profile };
        let target = chromium.ask("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = chromium.ask("Target.attachToTarget", attach).await["sessionId"].as_str().unwrap().to_owned();
        chromium.session = session;
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            chromium.ask(domain, json!({})).await;
        }
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 2, "mobile": true });
        chromium.ask("Emulation.setDeviceMetricsOverride", size).await;
        chromium
    }

    /// One command and its result; what happens meanwhile is taken in.
    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.count += 1;
        let id = self.count;
        let mut frame = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            frame["sessionId"] = json!(self.session);
        }
        self.wire.send(Message::text(frame.to_string())).await.unwrap();
        let answer = async {
            loop {
                let Some(Ok(message)) = self.wire.next().await else { panic!("chromium hung up at {method}") };
                let Message::Text(text) = message else { continue };
                let frame: Value = serde_json::from_str(&text).unwrap();
                if frame["id"] == id {
                    assert!(frame["error"].is_null(), "{method}: {frame}");
                    return frame["result"].clone();
                }
                match frame["method"].as_str().unwrap_or_default() {
                    "Page.loadEventFired" => self.loads += 1,
                    "Runtime.exceptionThrown" => self.errors.push(frame["params"].to_string()),
                    "Runtime.consoleAPICalled" if frame["params"]["type"] == "error" => {
                        self.errors.push(frame["params"].to_string());
                    }
                    "Log.entryAdded" if frame["params"]["entry"]["level"] == "error" => {
                        self.errors.push(frame["params"]["entry"].to_string());
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), answer).await.unwrap_or_else(|_| panic!("{method} ends"))
    }

    pub async fn open(&mut self, url: &Url) {
        let before = self.loads;
        self.ask("Page.navigate", json!({ "url": url.as_str() })).await;
        self.loaded(before + 1).await;
    }

    /// From the next page on, what a script does every ten seconds it does every tenth of one.
    pub async fn hurry(&mut self) {
        let faster =
            "{ const every = window.setInterval; window.setInterval = (work, wait) => every(work, wait / 100); }";
        self.ask("Page.addScriptToEvaluateOnNewDocument", json!({ "source": faster })).await;
    }

    /// So many pages have come since it began.
    pub fn loads(&self) -> u64 {
        self.loads
    }

    pub async fn loaded(&mut self, count: u64) {
        eventually("that the page has come", async || {
            // Asks nothing of the page, which may just be going away.
            self.ask("Page.enable", json!({})).await;
            (self.loads >= count).then_some(())
        })
        .await;
    }

    /// What an expression comes to in the page.
    pub async fn says(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        self.ask("Runtime.evaluate", params).await["result"]["value"].clone()
    }

    pub async fn text(&mut self) -> String {
        self.says("document.body.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    /// A key as a finger presses it.
    pub async fn key(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            other => panic!("{other}"),
        };
        let mut down = json!({ "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code });
        if !text.is_empty() {
            down["text"] = json!(text);
        }
        self.ask("Input.dispatchKeyEvent", down).await;
        let up = json!({ "type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code });
        self.ask("Input.dispatchKeyEvent", up).await;
    }

    pub async fn types(&mut self, text: &str) {
        self.ask("Input.insertText", json!({ "text": text })).await;
    }

    /// Tab after tab, until the focus is where this expression about it (`e`) holds.
    pub async fn tabs_to(&mut self, what: &str) {
        for _ in 0..60 {
            if self.says(&format!("(e => Boolean({what}))(document.activeElement)")).await == true {
                return;
            }
            self.key("Tab").await;
        }
        panic!("no tab leads to {what}: {}", self.text().await);
    }

    /// How many CSS pixels of the page lie beyond its right edge.
    pub async fn beyond(&mut self) -> i64 {
        let wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        self.says(wide).await.as_i64().unwrap()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
