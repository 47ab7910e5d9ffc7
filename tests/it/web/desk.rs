//! The pages of a whole engine in a box, served on a real port.
//!
//! Invariant: what was done is counted by the fleet, and what was shown is what a browser got.

use super::browser::{Browser, Form, Page};
use crate::night::Night;
use axum::Router;
use nightshift::config::{Config, Role};
use nightshift::model::{RunId, RunState};
use nightshift::server::{App, ConfiguredTokens, GivenToken, router};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tower::ServiceExt;
use url::Url;

pub const MINUTE: Duration = Duration::from_secs(60);
pub const RULE: &str = "rules:\n  - name: r\n    when: ['alertname=\"GpuXid\"']\n    run: cordon\n    mode: approve\n";
pub const CORDON: &str =
    "//! Cordon a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n\nk8s::cordon(node, \"test\");\n";
pub const XID: &[(&str, &str)] = &[("alertname", "GpuXid"), ("node", "gpu-2")];

pub struct Desk {
    pub night: Night,
    pub app: App,
    pub url: Url,
    router: Arc<Mutex<Router>>,
    heard: Arc<AtomicUsize>,
}

pub fn token(of: &str) -> String {
    format!("{of}-0123456789abcdef0123456789abcdef")
}

pub fn given(name: &str, role: Role) -> GivenToken {
    let sources = if role == Role::Source { vec!["test".to_owned()] } else { Vec::new() };
    GivenToken { name: name.into(), role, sources, clusters: None, text: token(name) }
}

pub fn tokens() -> Vec<GivenToken> {
    let people = [
        ("ada", Role::Approver),
        ("bob", Role::Approver),
        ("vic", Role::Viewer),
        ("am", Role::Source),
        // This machine's own token.
        ("local", Role::Admin),
    ];
    people.map(|(name, role)| given(name, role)).to_vec()
}

impl Desk {
    pub async fn set(change: impl FnOnce(&mut Config, &Url)) -> Desk {
        let mut night = Night::fall(RULE, &[("cordon", CORDON)]).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url: Url = format!("http://{address}/").parse().unwrap();
        night.configure(|config| {
            config.server.listen = address;
            change(config, &url);
        });
        let app = App::new(night.parts.clone(), ConfiguredTokens::new(tokens()).unwrap());
        let current = Arc::new(Mutex::new(router(app.clone())));
        let (serving, heard) = (Arc::clone(&current), Arc::new(AtomicUsize::new(0)));
        let hears = Arc::clone(&heard);
        let front = Router::new().fallback(move |request: axum::extract::Request| {
            hears.fetch_add(1, Ordering::SeqCst);
            let router = serving.lock().unwrap().clone();
            router.oneshot(request)
        });
        tokio::spawn(async move { axum::serve(listener, front).await });
        Desk { night, app, url, router: current, heard }
    }

    /// From now on the same pages, with the same sessions, have these settings.
    pub fn become_app(&self, app: App) {
        *self.router.lock().unwrap() = router(app);
    }

    /// From now on nothing answers but 503, as a proxy does before an engine that is gone.
    pub fn fall_silent(&self) {
        let gone = || async { axum::http::StatusCode::SERVICE_UNAVAILABLE };
        *self.router.lock().unwrap() = Router::new().fallback(gone);
    }

    /// Requests that have come in so far.
    pub fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }

    pub fn at(&self, path: &str) -> Url {
        self.url.join(path).unwrap()
    }

    /// A browser in which this person has signed in, and the page they came to.
    pub async fn signed_in(&self, name: &str) -> (Browser, Page) {
        self.signed_in_by(&token(name)).await
    }

    /// The same with the text of a token.
    pub async fn signed_in_by(&self, text: &str) -> (Browser, Page) {
        let mut browser = Browser::new();
        let page = browser.open(&self.at("/login")).await;
        let page = browser.send(&page.form("/login").with("token", text)).await;
        assert_eq!(page.status, 200, "{}", page.words());
        (browser, page)
    }

    /// What this machine's own token asks of the API.
    pub async fn posts(&self, path: &str, body: &serde_json::Value) -> serde_json::Value {
        let request = crate::harness::client().post(self.at(&format!("/api/v1/{path}"))).bearer_auth(token("local"));
        let answer = request.json(body).send().await.unwrap();
        let status = answer.status();
        let said = answer.json().await.unwrap();
        assert!(status.is_success(), "{status} {said}");
        said
    }

    /// A run that asks.
    pub async fn asking(&self) -> RunId {
        let heard = self.night.hear("firing", XID).await;
        let run = self.night.until_rest(heard.runs[0], MINUTE).await;
        assert!(matches!(run.state, RunState::Asking { .. }), "{:?}", run.state);
        run.id
    }

    /// The form that answers what the run asks, as the page shows it.
    pub async fn question(&self, browser: &mut Browser, run: RunId) -> Form {
        let page = browser.open(&self.at(&format!("/runs/{run}"))).await;
        assert_eq!(page.status, 200, "{}", page.words());
        page.form("/web/approvals/a1")
    }

    pub async fn waits(&self, run: RunId) -> bool {
        self.night.settle().await;
        assert!(self.night.effects().is_empty(), "{:?}", self.night.effects());
        matches!(self.night.run(run).await.state, RunState::Asking { .. })
    }

    /// The lines of the ledger that say who tried what.
    pub async fn remarks(&self) -> Vec<String> {
        let entries = self.night.entries().await;
        let remarks = entries.iter().filter(|entry| entry.kind.name() == "refused");
        remarks.filter_map(|entry| nightshift::engine::story::line(entry).map(|line| line.text)).collect()
    }
}
