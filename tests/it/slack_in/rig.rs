//! An engine with its ways in for Slack, and a Slack that is pretended: its Web API, the place where answers go, and the
//! other end of Socket Mode.
//!
//! Invariant: what Slack was told is kept in order; its connections are real WebSockets.

use crate::harness::eventually;
use crate::night::{Night, seal};
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::{SinkExt, StreamExt};
use nightshift::config::{Config, PersonConfig, Role, SecretSource, SlackApp};
use nightshift::model::{RunId, RunState};
use nightshift::notifiers::slack::SlackWebClient;
use nightshift::server::{
    App, AuthMethod, Caller, ConfiguredTokens, PagerDutyDoor, PrincipalSet, SlackEndpoint, listen_to_slack, router,
};
use nightshift::store::Filter;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tower::ServiceExt;

pub const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
pub const MINUTE: Duration = Duration::from_secs(60);
const RULE: &str = "rules:\n  - name: r\n    when: ['alertname=\"GpuXid\"']\n    run: cordon\n    mode: approve\n";
const CORDON: &str =
    "//! Cordon a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n\nk8s::cordon(node, \"test\");\n";
pub const XID: &[(&str, &str)] = &[("alertname", "GpuXid"), ("node", "gpu-2")];

/// What Slack was told, and what it will answer.
#[derive(Default)]
struct Told {
    /// Calls of the Web API: method, token, arguments.
    calls: Vec<(String, String, Value)>,
    /// Answers that are not the usual one, by method: status, `Retry-After`, body.
    next: HashMap<String, VecDeque<(u16, Option<u64>, Value)>>,
    /// While set, every call of the Web API gets this status.
    down: Option<u16>,
    /// What was said to people at a `response_url`.
    said: Vec<Value>,
    socket: String,
    /// What a bot token may do, and of which workspace it is.
    scopes: String,
    team: String,
}

/// What bytes go over: in the clear, or in TLS.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// HTTP in TLS.
struct Secured {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl axum::serve::Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = self.tcp.accept().await.unwrap();
            // Who does not trust us hangs up here.
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// A Slack that is pretended.
#[derive(Clone)]
pub struct Slack {
    pub url: String,
    told: Arc<Mutex<Told>>,
}

impl Slack {
    pub async fn start() -> (Slack, mpsc::Receiver<Line>) {
        Slack::start_with(None, None).await
    }

    /// In TLS where there is a certificate: its API, and the sockets that it names.
    pub async fn start_with(api: Option<TlsAcceptor>, links: Option<TlsAcceptor>) -> (Slack, mpsc::Receiver<Line>) {
        let scopes = "chat:write,channels:history,commands".to_owned();
        let told = Arc::new(Mutex::new(Told { scopes, team: "T0".to_owned(), ..Told::default() }));
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let url = format!("{}://localhost:{port}/", if api.is_some() { "https" } else { "http" });
        let routes =
            Router::new().route("/answer", post(hook)).route("/api/{method}", post(call)).with_state(told.clone());
        match api {
            Some(tls) => drop(tokio::spawn(async move { axum::serve(Secured { tcp, tls }, routes).await })),
            None => drop(tokio::spawn(async move { axum::serve(tcp, routes).await })),
        }
        let sockets = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (scheme, port) = (if links.is_some() { "wss" } else { "ws" }, sockets.local_addr().unwrap().port());
        told.lock().unwrap().socket = format!("{scheme}://localhost:{port}/link/?ticket=once");
        let (lines, accepted) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((stream, _)) = sockets.accept().await {
                let stream: Box<dyn Wire> = match &links {
                    None => Box::new(stream),
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => continue,
                    },
                };
                let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { continue };
                if lines.send(Line(socket)).await.is_err() {
                    return;
                }
            }
        });
        (Slack { url, told }, accepted)
    }

    /// The next call of this method is answered so.
    pub fn then(&self, method: &str, status: u16, retry_after: Option<u64>, body: Value) {
        let mut told = self.told.lock().unwrap();
        told.next.entry(method.to_owned()).or_default().push_back((status, retry_after, body));
    }

    pub fn down(&self, status: Option<u16>) {
        self.told.lock().unwrap().down = status;
    }

    /// What bot tokens may do from now on, and of which workspace they are.
    pub fn bot(&self, scopes: &str, team: &str) {
        let mut told = self.told.lock().unwrap();
        (told.scopes, told.team) = (scopes.to_owned(), team.to_owned());
    }

    /// Token and arguments of the calls of this method so far.
    pub fn calls(&self, method: &str) -> Vec<(String, Value)> {
        let told = self.told.lock().unwrap();
        let of = told.calls.iter().filter(|(called, ..)| called == method);
        of.map(|(_, token, body)| (token.clone(), body.clone())).collect()
    }

    /// The arguments of so many calls of this method, once there are so many.
    pub async fn called(&self, method: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} calls of {method}"), async || {
            let calls = self.calls(method);
            (calls.len() >= count).then(|| calls.into_iter().map(|(_, body)| body).collect())
        })
        .await
    }

    /// The answers that people got at a `response_url`, once there are so many.
    pub async fn answers(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} answers"), async || {
            let told = self.told.lock().unwrap();
            let text = |answer: &Value| answer["blocks"][0]["text"]["text"].as_str().unwrap().to_owned();
            (told.said.len() >= count).then(|| told.said.iter().map(text).collect())
        })
        .await
    }

    pub fn said(&self) -> usize {
        self.told.lock().unwrap().said.len()
    }
}

async fn hook(State(told): State<Arc<Mutex<Told>>>, Json(body): Json<Value>) -> &'static str {
    told.lock().unwrap().said.push(body);
    "ok"
}

async fn call(
    State(told): State<Arc<Mutex<Told>>>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let mut told = told.lock().unwrap();
    told.calls.push((method.clone(), token, body));
    if let Some(status) = told.down {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let usual = match method.as_str() {
        "apps.connections.open" => json!({ "ok": true, "url": told.socket }),
        "auth.test" => json!({ "ok": true, "user": "nightshift", "team": "Night", "team_id": told.team }),
        _ => json!({ "ok": true, "channel": "C1", "ts": format!("1700.{:04}", told.calls.len()) }),
    };
    let scripted = told.next.get_mut(&method).and_then(VecDeque::pop_front);
    let (status, after, body) = scripted.unwrap_or((200, None, usual));
    let mut response = (StatusCode::from_u16(status).unwrap(), Json(body)).into_response();
    response.headers_mut().insert("x-oauth-scopes", told.scopes.parse().unwrap());
    if let Some(after) = after {
        response.headers_mut().insert("retry-after", after.into());
    }
    response
}

/// Slack's end of one Socket Mode connection.
pub struct Line(pub WebSocketStream<Box<dyn Wire>>);

impl Line {
    pub async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// As the service greets.
    pub async fn greet(&mut self) {
        let info = json!({ "app_id": "A0" });
        self.say(json!({ "type": "hello", "num_connections": 1, "connection_info": info })).await;
    }

    /// The next text that the engine sends.
    pub async fn heard(&mut self) -> Value {
        let next = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                    Some(Ok(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), next).await.expect("an acknowledgement")
    }

    /// Sends an envelope and waits for its acknowledgement.
    pub async fn deliver(&mut self, id: &str, kind: &str, payload: Value) -> Value {
        self.say(json!({ "type": kind, "envelope_id": id, "payload": payload })).await;
        let ack = self.heard().await;
        assert_eq!(ack["envelope_id"], id, "{ack}");
        ack
    }

    /// Until the engine hangs up.
    pub async fn gone(mut self) {
        let end = async { while let Some(Ok(_)) = self.0.next().await {} };
        tokio::time::timeout(Duration::from_secs(60), end).await.expect("the engine hangs up");
    }
}

/// An engine with its ways in for Slack.
pub struct Chat {
    pub night: Night,
    pub router: Router,
    pub app: App,
    pub slack: Slack,
    pub lines: mpsc::Receiver<Line>,
    stop: watch::Sender<bool>,
    count: AtomicU64,
}

impl Chat {
    pub async fn begin() -> Chat {
        Chat::begin_with(ConfiguredTokens::default(), |_| {}).await
    }

    /// With tokens besides, and the configuration as a test wants it.
    pub async fn begin_with(tokens: ConfiguredTokens, change: impl FnOnce(&mut Config)) -> Chat {
        let (slack, lines) = Slack::start().await;
        let mut night = Night::fall(RULE, &[("cordon", CORDON)]).await;
        let token = night.path().join("app-token");
        std::fs::write(&token, "xapp-first\n").unwrap();
        let config = Arc::make_mut(&mut night.parts.config);
        let person = |name: &str, role, id: &str| PersonConfig {
            slack: Some(id.into()),
            pagerduty: Some(id.replace("U0", "P0")),
            ..PersonConfig::new(name, role)
        };
        config.people = vec![
            person("ada", Role::Approver, "U0ADA"),
            person("bob", Role::Approver, "U0BOB"),
            person("vic", Role::Viewer, "U0VIC"),
            person("oli", Role::Operator, "U0OLI"),
        ];
        config.slack = Some(SlackApp {
            signing_secret: None,
            app_token: Some(SecretSource::File(token)),
            token: None,
            team: Some("T0".into()),
            app: Some("A0".into()),
            hooks: slack.url.clone(),
            api: format!("{}api", slack.url),
        });
        night.configure(change);
        let app = Chat::app(&night, &slack, tokens);
        let (stop, count) = (watch::Sender::new(false), AtomicU64::new(0));
        Chat { router: router(app.clone()), app, night, slack, lines, stop, count }
    }

    fn app(night: &Night, slack: &Slack, tokens: ConfiguredTokens) -> App {
        let web = SlackWebClient::new(night.parts.world.http.clone(), &format!("{}api", slack.url), "xoxb-bot");
        let hooks = slack.url.parse().unwrap();
        let door = SlackEndpoint { signing_secret: Some(SECRET.into()), hooks, web: Some(web), seal: seal() };
        App::new(night.parts.clone(), tokens).with_slack(door).with_pagerduty(PagerDutyDoor::new(&[SECRET.to_owned()]))
    }

    /// From now on the configuration says something else; what was shown before is still there.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        self.night.configure(change);
        self.app.parts.config = self.night.parts.config.clone();
        self.app.roster.replace(PrincipalSet::new(self.app.parts.config.people.clone(), ConfiguredTokens::default()));
        self.router = router(self.app.clone());
    }

    /// Begins Socket Mode.
    pub fn connect(&self) {
        tokio::spawn(listen_to_slack(self.app.clone(), self.stop.subscribe()));
    }

    /// The next connection of the engine, greeted.
    pub async fn line(&mut self) -> Line {
        let next = tokio::time::timeout(Duration::from_secs(60), self.lines.recv());
        let mut line = next.await.expect("the engine connects").expect("the listener lives");
        line.greet().await;
        line
    }

    /// How the status says that Slack stands.
    pub async fn standing(&self) -> Value {
        let request = Request::get("/api/v1/status")
            .extension(Caller::of(&PersonConfig::new("ada", Role::Viewer), AuthMethod::Slack));
        let answer = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()["slack"].clone()
    }

    /// Until the status says so.
    pub async fn stands(&self, connected: bool) -> Value {
        eventually("how Slack stands", async || {
            let standing = self.standing().await;
            (standing["connected"] == connected).then_some(standing)
        })
        .await
    }

    pub fn answer_url(&self) -> String {
        format!("{}answer", self.slack.url)
    }

    fn trigger(&self) -> String {
        format!("trigger-{}", self.count.fetch_add(1, Ordering::Relaxed))
    }

    pub fn request(&self, path: &str, body: &str, secret: &str) -> Request<Body> {
        self.request_at(path, body, secret, self.night.now().as_second())
    }

    pub fn request_at(&self, path: &str, body: &str, secret: &str, stamp: i64) -> Request<Body> {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
        let tag = ring::hmac::sign(&key, format!("v0:{stamp}:{body}").as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Request::post(path)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("x-slack-request-timestamp", stamp.to_string())
            .header("x-slack-signature", format!("v0={hex}"))
            .body(Body::from(body.to_owned()))
            .unwrap()
    }

    async fn send(&self, path: &str, body: &str) -> Value {
        let answer = self.router.clone().oneshot(self.request(path, body, SECRET)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "Slack shows an error for anything else");
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() }
    }

    /// A slash command as Slack sends it, in either way.
    pub fn slash(&self, user: &str, text: &str) -> Value {
        json!({
            "team_id": "T0", "api_app_id": "A0", "user_id": user, "text": text, "trigger_id": self.trigger(),
            "response_url": self.answer_url(),
        })
    }

    /// A request to the API with a token.
    pub async fn posts(&self, token: &str, path: &str, body: Value) -> (StatusCode, Value) {
        self.asks("POST", token, path, body).await
    }

    pub async fn asks(&self, method: &str, token: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        let answer = self.router.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
        let status = answer.status();
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// What Slack shows for a command; null: nothing.
    pub async fn commands(&self, user: &str, text: &str) -> Value {
        let fields = self.slash(user, text);
        let fields = fields.as_object().unwrap().iter().map(|(name, value)| (name, value.as_str().unwrap()));
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.send("/slack/command", &body).await
    }

    /// What the person sees after a slash command.
    pub async fn types(&self, user: &str, text: &str) -> String {
        let answer = self.commands(user, text).await;
        assert_eq!(answer["response_type"], "ephemeral");
        let text = answer["blocks"][0]["text"]["text"].as_str().unwrap();
        assert_eq!(answer["blocks"][0]["text"]["type"], "plain_text");
        text.to_owned()
    }

    /// What our button of this action carries, for an hour: an id and what was shown with it.
    pub fn sealed(&self, action: &str, value: &str) -> String {
        let (id, shown) = value.split_once(' ').unwrap_or((value, ""));
        seal().close(action, id, shown, self.night.now() + 60 * MINUTE)
    }

    /// A press of a button that is ours, as Slack sends it, in either way.
    pub fn press(&self, user: &str, action: &str, value: &str) -> Value {
        self.press_as_it_is(user, action, &self.sealed(action, value))
    }

    /// A press of a button that carries this.
    pub fn press_as_it_is(&self, user: &str, action: &str, value: &str) -> Value {
        json!({
            "type": "block_actions", "user": { "id": user, "name": "ada" }, "team": { "id": "T0" }, "api_app_id": "A0",
            "actions": [{ "action_id": action, "value": value, "action_ts": user }], "trigger_id": self.trigger(),
            "response_url": self.answer_url(),
        })
    }

    /// What Slack shows for what was pressed or sent; null: nothing.
    pub async fn interacts(&self, payload: &Value) -> Value {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("payload", &payload.to_string())
            // Two requests of Slack are never the same bytes in the same second.
            .append_pair("n", &self.trigger())
            .finish();
        self.send("/slack/interact", &body).await
    }

    pub async fn presses(&self, user: &str, action: &str, value: &str) {
        assert_eq!(self.interacts(&self.press(user, action, value)).await, Value::Null, "a press is only acknowledged");
    }

    pub async fn event(&self, event: &Value) -> Value {
        let mut event = event.clone();
        event["n"] = json!(self.trigger());
        self.send("/slack/events", &event.to_string()).await
    }

    /// A run that asks, and what its button carries.
    pub async fn asking(&self) -> (RunId, String) {
        self.asking_about(XID).await
    }

    pub async fn asking_about(&self, labels: &[(&str, &str)]) -> (RunId, String) {
        let heard = self.night.hear("firing", labels).await;
        let run = self.night.until_rest(heard.runs[0], MINUTE).await;
        assert!(matches!(run.state, RunState::Asking { .. }), "{:?}", run.state);
        let open = Filter { open: true, limit: 10, ..Filter::default() };
        let approvals = self.night.parts.store.approvals(open).await.unwrap();
        let approval = approvals.into_iter().find(|approval| approval.run == run.id).unwrap();
        (run.id, format!("{} {}", approval.id, approval.plan_hash))
    }

    /// The words of what people were refused, as the ledger has them.
    pub async fn refusals(&self) -> Vec<String> {
        let entries = self.night.entries().await;
        let refusals = entries.iter().filter(|entry| entry.kind.name() == "refused");
        refusals.filter_map(|entry| nightshift::engine::story::line(entry).map(|line| line.text)).collect()
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}
