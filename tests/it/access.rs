//! Route × role × cluster: the request of each cell of `docs/access.md`, sent to a running engine before two clusters.
//!
//! Invariant: each request names a real object of the cluster that its cell is about, so that 2xx means done and 403 means refused.

use crate::harness::{Engine, Site, alertmanager_body, eventually, free_port, secret};
use crate::night::NIGHT;
use axum::Json;
use axum::routing::{get, post};
use nightshift::config::Role;
use nightshift::model::Right;
use nightshift::server::{AccessAnswer, AccessCell, RoutePolicy, TokenRelation, cells, gates};
use nightshift::world::sim::{SimFleet, SimOptions};
use regex::Regex;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The cluster of the limited tokens, and the other one, which is the default.
const OWN: &str = "main";
const OTHER: &str = "east";
/// Objects of each kind that are used up by the cells that act, in each cluster.
const OBJECTS: usize = 14;

const CORDON: &str =
    "//! Cordon a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n\nk8s::cordon(node, \"test\");\n";

fn rules() -> String {
    let mut rules =
        "rules:\n  - name: r\n    when: ['alertname=\"GpuXid\"']\n    run: cordon\n    mode: approve\n    tell: [ops]\n".to_owned();
    for number in 0..8 {
        let name = format!("step-{number}");
        rules += &format!(
            "  - name: {name}\n    when: ['alertname=\"{name}\"']\n    run: cordon\n    mode: observe\n    tell: [ops]\n"
        );
    }
    rules
}

/// An alert of a node, with what came of it.
#[derive(Debug, Clone)]
struct Object {
    incident: String,
    run: String,
    approval: String,
    plan_hash: String,
}

/// A signed-in browser: its cookie, and the word that its forms carry.
#[derive(Clone)]
struct Session {
    cookie: String,
    csrf: String,
}

struct Table {
    engine: Engine,
    site: Site,
    client: reqwest::Client,
    /// By cluster; the last one of each is never used up.
    objects: BTreeMap<&'static str, Vec<Object>>,
    sessions: BTreeMap<String, Session>,
    count: AtomicUsize,
    _fleets: (SimFleet, SimFleet),
}

/// An Alertmanager that has the alerts of `make_objects`, silenced by nothing, and takes every silence.
async fn alertmanager() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let nodes = (1..=OBJECTS).map(|number| format!("gpu-{number}"));
    let alerts: Value = nodes.map(|node| json!({ "labels": { "alertname": "GpuXid", "node": node } })).collect();
    let list = move |uri: axum::http::Uri| {
        let active = uri.query().unwrap_or_default().contains("active=true");
        let list = if active { alerts.clone() } else { json!([]) };
        async move { Json(list) }
    };
    let silences = post(|| async { Json(json!({ "silenceID": "s-1" })) }).get(|| async { Json(json!([])) });
    let routes = axum::Router::new()
        .route("/api/v2/silences", silences)
        .route("/api/v2/status", get(|| async { Json(json!({})) }))
        .route("/api/v2/alerts", get(list));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

impl Table {
    async fn lay() -> Table {
        let fleet = || SimFleet::start(SimOptions { nodes: 40, ..SimOptions::default() }).unwrap();
        let fleets = (fleet(), fleet());
        let (api, port) = (alertmanager().await, free_port());
        let extra = format!(
            "clusters:\n  {OTHER}: {{ url: '{}' }}\n  {OWN}: {{ url: '{}' }}\ndefault_cluster: {OTHER}\n\
             guards: {{ nodes_at_once: 40, share_at_once: 1.0, share_per_hour: 1.0, share_per_day: 1.0, correlated_share: 1.0, \
             release_persons: 1, domains: [] }}\n\
             agents: {{ listen: '127.0.0.1:{port}' }}\nchannels: {{ ops: {{ kind: log }} }}\nsources:\n\
             \x20 {OTHER}: {{ kind: alertmanager, api: '{api}', add_labels: {{ cluster: {OTHER} }} }}\n\
             \x20 {OWN}: {{ kind: alertmanager, api: '{api}', add_labels: {{ cluster: {OWN} }} }}\n\
             \x20 both: {{ kind: alertmanager, clusters: [{OTHER}, {OWN}] }}\n",
            fleets.0.url(),
            fleets.1.url()
        );
        let site = Site::new(&extra, &rules(), &[("cordon", CORDON)]);
        site.add_token("feed", "source", &format!(", sources: [{OTHER}, {OWN}]"));
        for name in ["root", "spare"] {
            site.add_token(name, "admin", "");
        }
        for role in Role::ALL {
            if role == Role::Source {
                site.add_token(role.name(), role.name(), &format!(", sources: [{OTHER}]"));
                continue;
            }
            site.add_token(role.name(), role.name(), "");
            site.add_token(&limited(role), role.name(), &format!(", clusters: [{OWN}]"));
        }
        let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let (objects, sessions) = (BTreeMap::new(), BTreeMap::new());
        let count = AtomicUsize::new(0);
        let mut table = Table { engine, site, client, objects, sessions, count, _fleets: fleets };
        for cluster in [OTHER, OWN] {
            let objects = table.make_objects(cluster).await;
            table.objects.insert(cluster, objects);
        }
        table.make_agents();
        table
    }

    /// Alerts whose runs ask for approval.
    async fn make_objects(&self, cluster: &str) -> Vec<Object> {
        let nodes: Vec<String> = (1..=OBJECTS).map(|number| format!("gpu-{number}")).collect();
        for node in &nodes {
            let body = alertmanager_body("firing", NIGHT, &[&[("alertname", "GpuXid"), ("node", node)]]);
            let (status, said) =
                self.engine.ask("POST", &format!("/in/alertmanager/{cluster}"), Some(&secret("feed")), &body).await;
            assert_eq!(status, 200, "{said}");
        }
        eventually("every run of the cluster asks", async || {
            let runs = self.engine.get("/api/v1/runs?limit=200").await?;
            let approvals = self.engine.get("/api/v1/approvals?limit=200").await?;
            let ours = runs["runs"].as_array()?.iter().filter(|run| run["subject"]["cluster"] == cluster);
            let objects = ours.filter_map(|run| {
                let mut asked = approvals["approvals"].as_array()?.iter();
                let approval = asked.find(|approval| approval["run"] == run["id"] && approval["state"] == "open")?;
                let text = |value: &Value| value.as_str().map(str::to_owned);
                Some(Object {
                    incident: text(&run["incident"])?,
                    run: text(&run["id"])?,
                    approval: text(&approval["id"])?,
                    plan_hash: text(&approval["plan_hash"])?,
                })
            });
            let objects: Vec<Object> = objects.collect();
            (objects.len() == OBJECTS).then_some(objects)
        })
        .await
    }

    fn database(&self) -> rusqlite::Connection {
        let file = rusqlite::Connection::open(self.site.path().join("data/nightshift.db")).unwrap();
        file.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        file
    }

    /// Agents of nodes that no agent joins for: only their names matter here.
    fn make_agents(&self) {
        let file = self.database();
        let sql = "INSERT INTO agent (cluster, node, how, family, since, seen_at, standing) \
                   VALUES (?1, ?2, 'certificate', ?2 || ?1, 4102444800000000, 4102444800000000, '{}')";
        for cluster in [OTHER, OWN] {
            for number in 0..4 {
                file.execute(sql, rusqlite::params![cluster, format!("agent-{number}")]).unwrap();
            }
        }
    }

    fn trip(&self, scope: &str) {
        let sql = "INSERT INTO breaker (scope, why, since) VALUES (?1, 'a test', 1) ON CONFLICT (scope) DO UPDATE SET reset_at = NULL";
        self.database().execute(sql, [scope]).unwrap();
    }

    fn next(&self) -> usize {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    /// An object of that cluster: for a cell that acts and uses it up, its own one.
    fn object(&mut self, cluster: &str, used_up: bool) -> Object {
        let all = self.objects.get_mut(cluster).unwrap();
        if used_up && all.len() > 1 { all.remove(0) } else { all.last().unwrap().clone() }
    }

    async fn root(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, said) = self.engine.ask(method, path, Some(&secret("root")), &body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {said}");
        said
    }

    /// A token that is made for a cell, with its text and its id.
    async fn made_token(&self, role: Role, clusters: Option<&str>) -> (String, String) {
        let mut wanted = json!({ "name": format!("t-{}", self.next()), "role": role.name(), "expires": "2h" });
        match (role, clusters) {
            (Role::Source, _) => wanted["sources"] = json!([OTHER]),
            (_, Some(cluster)) => wanted["clusters"] = json!([cluster]),
            (_, None) => {}
        }
        let made = self.root("POST", "/api/v1/tokens", wanted).await;
        (made["token"].as_str().unwrap().to_owned(), made["made"]["id"].as_str().unwrap().to_owned())
    }

    /// Signs in with a token; none where it opens no session, with the status.
    async fn sign_in(&self, text: &str) -> Result<Session, u16> {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("token", text)
            .append_pair("to", "/")
            .finish();
        let answer = self.form("/login", form, None).await;
        let Some(cookie) = answer.headers().get(SET_COOKIE) else { return Err(answer.status().as_u16()) };
        let cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        let home = self.client.get(format!("{}/", self.engine.url)).header(COOKIE, &cookie).send().await.unwrap();
        let text = home.text().await.unwrap();
        let csrf = Regex::new(r#"name="csrf" value="([^"]+)""#).unwrap().captures(&text).unwrap()[1].to_owned();
        Ok(Session { cookie, csrf })
    }

    async fn form(&self, path: &str, body: String, session: Option<&Session>) -> reqwest::Response {
        let mut request = self.client.post(format!("{}{path}", self.engine.url)).header("origin", &self.engine.url);
        request = request.header("sec-fetch-site", "same-origin");
        request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        if let Some(session) = session {
            request = request.header(COOKIE, &session.cookie);
        }
        request.send().await.unwrap()
    }

    /// Sends the request of a cell; its status, and what was answered.
    async fn send(&mut self, cell: &AccessCell) -> (u16, String) {
        let done = cell.answer == AccessAnswer::Done;
        let cluster = match cell.relation {
            TokenRelation::Own => OWN,
            _ => OTHER,
        };
        let name = match cell.relation {
            TokenRelation::Unlimited | TokenRelation::Unlisted | TokenRelation::Itself => cell.role.name().to_owned(),
            TokenRelation::Own | TokenRelation::Other | TokenRelation::Every | TokenRelation::Limited => {
                limited(cell.role)
            }
        };
        let mut text = secret(&name);
        let asked = self.request(cell, cluster, done, &mut text).await;
        if cell.by_session {
            return self.send_by_session(cell, &name, asked).await;
        }
        let (status, said) = self.engine.ask(&cell.method.to_uppercase(), &asked.path, Some(&text), &asked.body).await;
        (status, said.to_string())
    }

    async fn send_by_session(&mut self, cell: &AccessCell, name: &str, asked: Asked) -> (u16, String) {
        // Signing out ends a session, so that one is not kept.
        let session = match self.sessions.get(name).filter(|_| cell.path != "/logout") {
            Some(known) => known.clone(),
            None => match self.sign_in(&secret(name)).await {
                Ok(session) => session,
                Err(status) => return (status, "no session began".to_owned()),
            },
        };
        if cell.path != "/logout" {
            self.sessions.insert(name.to_owned(), session.clone());
        }
        let answer = if cell.method == "get" {
            let url = format!("{}{}", self.engine.url, asked.path);
            self.client.get(url).header(COOKIE, &session.cookie).send().await.unwrap()
        } else {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("csrf", &session.csrf);
            for (field, value) in asked.body.as_object().unwrap() {
                form.append_pair(field, value.as_str().unwrap());
            }
            self.form(&asked.path, form.finish(), Some(&session)).await
        };
        let status = answer.status().as_u16();
        let to = answer.headers().get(LOCATION).map(|to| to.to_str().unwrap().to_owned());
        assert!(!to.is_some_and(|to| to.starts_with("/login?to")), "{cell:?}: the session did not hold");
        (status, answer.text().await.unwrap())
    }

    /// The scope that a cell names where it may be of one cluster or of all.
    fn scope(cell: &AccessCell, cluster: &str) -> String {
        match cell.relation {
            TokenRelation::Every => "all".to_owned(),
            _ => format!("cluster:{cluster}"),
        }
    }

    /// Path and body of a cell's request. A new route has no arm here, and fails.
    async fn request(&mut self, cell: &AccessCell, cluster: &str, done: bool, text: &mut String) -> Asked {
        let path = cell.path;
        let shared = self.object(cluster, false);
        let why = json!({ "why": "a test" });
        let to = |path: String, body: Value| Asked { path, body };
        let with = |from: &str, value: &str| path.replace(from, value);
        match (cell.method, path) {
            ("get", "/api/v1/why") => to(format!("{path}?subject={}", shared.run), Value::Null),
            ("get", "/why/{subject}") => to(with("{subject}", &shared.run), Value::Null),
            ("get", "/api/v1/audit/proof/{no}") => to(with("{no}", "0"), Value::Null),
            ("get", "/api/v1/rules/{rule}/scorecard") => to(with("{rule}", "r"), Value::Null),
            ("get", "/api/v1/incidents/{id}" | "/incidents/{id}") => to(with("{id}", &shared.incident), Value::Null),
            ("get", "/api/v1/runs/{id}" | "/runs/{id}") => to(with("{id}", &shared.run), Value::Null),
            ("get", "/api/v1/approvals/{id}") => to(with("{id}", &shared.approval), Value::Null),
            ("get", path) if !path.contains('{') => to(path.to_owned(), Value::Null),
            ("post", "/api/v1/incidents/{id}/ack" | "/web/incidents/{id}/ack") => {
                to(with("{id}", &shared.incident), json!({}))
            }
            ("post", "/api/v1/incidents/{id}/assign") => to(with("{id}", &shared.incident), json!({ "to": "me" })),
            ("post", "/api/v1/incidents/{id}/silence") => {
                to(with("{id}", &shared.incident), json!({ "lasts": "2h", "why": "a test" }))
            }
            ("post", "/api/v1/incidents/{id}/resolve") => to(with("{id}", &self.object(cluster, done).incident), why),
            ("post", "/api/v1/runs") => {
                let wish = json!({ "runbook": "cordon", "params": { "node": "gpu-30" }, "mode": "approve", "cluster": cluster });
                to(path.to_owned(), wish)
            }
            ("post", "/api/v1/simulate") => {
                to(path.to_owned(), json!({ "runbook": "cordon", "params": { "node": "gpu-30" }, "cluster": cluster }))
            }
            ("post", "/api/v1/runs/{id}/cancel") => to(with("{id}", &self.object(cluster, done).run), why),
            ("post", "/api/v1/runs/{id}/judge" | "/web/runs/{id}/judge") => {
                to(with("{id}", &shared.run), json!({ "verdict": "right", "why": "a test" }))
            }
            ("post", "/api/v1/rules/{rule}/promote") => {
                let rule = if done { format!("step-{}", self.next() % 8) } else { "step-0".to_owned() };
                if done {
                    // Whatever it was promoted to before: down again, so that there is a step up.
                    let demote = json!({ "to": "observe", "why": "a test" });
                    let path = format!("/api/v1/rules/{rule}/demote");
                    self.engine.ask("POST", &path, Some(&secret("root")), &demote).await;
                }
                to(with("{rule}", &rule), why)
            }
            ("post", "/api/v1/rules/{rule}/demote") => {
                if done {
                    // A rule that was promoted by one step.
                    let (_, said) =
                        self.engine.ask("POST", "/api/v1/rules/step-7/promote", Some(&secret("root")), &why).await;
                    assert!(said["scorecard"]["mode"] != "observe", "{said}");
                }
                to(with("{rule}", "step-7"), why)
            }
            ("post", "/api/v1/approvals/{id}") => {
                to(with("{id}", &self.object(cluster, done).approval), json!({ "approve": true, "why": "a test" }))
            }
            ("post", "/web/approvals/{id}") => {
                let object = self.object(cluster, done);
                let form =
                    json!({ "answer": "approve", "plan_hash": object.plan_hash, "run": object.run, "why": "a test" });
                to(with("{id}", &object.approval), form)
            }
            ("post", "/api/v1/breakers/reset") => {
                let scope = match cell.relation {
                    TokenRelation::Every => "symptom:r".to_owned(),
                    _ => format!("cluster:{cluster}"),
                };
                self.trip(&scope);
                to(path.to_owned(), json!({ "scope": scope, "why": "a test" }))
            }
            ("post", "/api/v1/freezes" | "/web/freezes") => {
                to(path.to_owned(), json!({ "scope": Table::scope(cell, cluster), "why": "a test" }))
            }
            ("post", "/api/v1/unfreeze" | "/web/unfreeze") => {
                let body = json!({ "scope": Table::scope(cell, cluster), "why": "a test" });
                self.root("POST", "/api/v1/freezes", body.clone()).await;
                to(path.to_owned(), body)
            }
            ("post", "/api/v1/agents/join-tokens") => {
                let body = match cell.relation {
                    TokenRelation::Every => json!({ "node": "gpu-31" }),
                    _ => json!({ "node": "gpu-31", "cluster": cluster }),
                };
                to(path.to_owned(), body)
            }
            ("post", "/api/v1/agents/{node}/remove") => {
                // The last one stays for those who are refused.
                let node = if done { format!("agent-{}", self.next() % 3) } else { "agent-3".to_owned() };
                let sql = "INSERT OR IGNORE INTO agent (cluster, node, how, family, since, seen_at, standing) \
                           VALUES (?1, ?2, 'certificate', ?2 || ?1 || ?3, 4102444800000000, 4102444800000000, '{}')";
                let unique = format!("{}", self.next());
                self.database().execute(sql, rusqlite::params![cluster, node, unique]).unwrap();
                let body = match cell.relation {
                    TokenRelation::Every => why,
                    _ => json!({ "why": "a test", "cluster": cluster }),
                };
                to(with("{node}", &node), body)
            }
            ("post", "/api/v1/channels/{name}/test") => to(with("{name}", "ops"), json!({})),
            ("post", "/api/v1/tokens") => {
                let name = format!("t-{}", self.next());
                let body = match cell.relation {
                    TokenRelation::Every => json!({ "name": name, "role": "viewer", "expires": "2h" }),
                    _ => json!({ "name": name, "role": "viewer", "expires": "2h", "clusters": [cluster] }),
                };
                to(path.to_owned(), body)
            }
            ("post", "/api/v1/tokens/{id}/revoke") => {
                let (made, id) = match cell.relation {
                    TokenRelation::Itself => self.made_token(cell.role, None).await,
                    TokenRelation::Own | TokenRelation::Other => self.made_token(Role::Viewer, Some(cluster)).await,
                    _ => self.made_token(Role::Viewer, None).await,
                };
                if cell.relation == TokenRelation::Itself {
                    *text = made;
                }
                to(with("{id}", &id), why)
            }
            ("post", "/api/v1/sessions/end") => {
                self.sign_in(&secret("spare")).await.unwrap_or_else(|status| panic!("{status}"));
                to(path.to_owned(), json!({ "name": "spare", "why": "a test" }))
            }
            ("post", "/api/v1/sessions/unlink") => {
                let sql = "INSERT OR REPLACE INTO subject_link (issuer, subject, name, person, via, mail, since, state) \
                           VALUES ('https://idp.example', 'sub-1', 'oidc:sub-1', 'lin', 'mail', 'lin@example.com', 1, 'live')";
                self.database().execute(sql, []).unwrap();
                to(path.to_owned(), json!({ "name": "lin", "why": "a test" }))
            }
            ("post", "/api/v1/audit/redact") => {
                let heard = self.engine.get("/api/v1/entries?kind=heard&limit=1").await.unwrap();
                let entry = heard["entries"][0]["no"].as_str().unwrap().to_owned();
                to(path.to_owned(), json!({ "entry": entry, "why": "a test" }))
            }
            ("post", "/logout") => to(path.to_owned(), json!({})),
            (method @ ("post" | "put" | "options"), path) if path.starts_with("/in/") => {
                let source = match cell.relation {
                    TokenRelation::Every => "both",
                    TokenRelation::Unlisted => OWN,
                    _ => cluster,
                };
                let node = format!("gpu-{}", 32 + self.next() % 8);
                let alert: &[(&str, &str)] = &[("alertname", "Posted"), ("node", &node), ("cluster", OWN)];
                let body = alertmanager_body("firing", NIGHT, &[alert]);
                let body = if path.ends_with("alerts") { body["alerts"].clone() } else { body };
                let path = path.replace("{kind}", "alertmanager").replace("{source}", source);
                to(path, if method == "options" { Value::Null } else { body })
            }
            (method, path) => panic!("{method} {path} has no request in tests/it/access.rs: write one"),
        }
    }

    /// What the engine has on record of what those callers did who may act in one cluster alone.
    async fn done_by_limited(&self) -> Vec<Value> {
        let mut found = Vec::new();
        let mut after = -1;
        loop {
            let page = self.engine.get(&format!("/api/v1/entries?after={after}&limit=500")).await.unwrap();
            let entries = page["entries"].as_array().unwrap().clone();
            let Some(last) = entries.last() else { return found };
            after = last["no"].as_str().unwrap().trim_start_matches('#').parse::<i64>().unwrap();
            found.extend(entries.into_iter().filter(|entry| {
                entry["kind"] != "refused"
                    && entry["actor"].as_str().is_some_and(|actor| actor.ends_with(&format!("-{OWN}")))
            }));
        }
    }
}

struct Asked {
    path: String,
    body: Value,
}

fn limited(role: Role) -> String {
    format!("{}-{OWN}", role.name())
}

/// Whether an answer is what the cell says. A proof waits until its entry is signed, which is not refused.
fn fits(cell: &AccessCell, status: u16, said: &str) -> bool {
    match cell.answer {
        AccessAnswer::Done if cell.by_session && cell.method == "post" => status == 303,
        AccessAnswer::Done => (200..300).contains(&status) || (status == 409 && said.contains("is not signed yet")),
        AccessAnswer::Refused => status == 403,
        AccessAnswer::Unknown => status == 401,
        AccessAnswer::Impossible => true,
    }
}

#[tokio::test]
async fn each_cell_of_route_role_and_cluster_gets_the_answer_that_the_page_names() {
    let mut table = Table::lay().await;
    let (mut asked, mut wrong) = (0, Vec::new());
    for cell in cells().iter().filter(|cell| cell.answer != AccessAnswer::Impossible) {
        let (status, said) = table.send(cell).await;
        asked += 1;
        if !fits(cell, status, &said) {
            let said: String = said.chars().take(300).collect();
            wrong.push(format!("{cell:?}: {status} {said}"));
        }
        // Nothing stays frozen for the next cell.
        if cell.path.ends_with("/freezes") && cell.answer == AccessAnswer::Done && cell.method == "post" {
            for scope in ["all", "cluster:east", "cluster:main"] {
                let body = json!({ "scope": scope, "why": "a test" });
                table.engine.ask("POST", "/api/v1/unfreeze", Some(&secret("root")), &body).await;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {asked} cells:\n{}", wrong.len(), wrong.join("\n"));
    assert!(asked > 1_000, "only {asked} cells");
    // What limited callers did is in their own cluster by the ledger's word, too.
    let mut about = BTreeSet::new();
    for entry in table.done_by_limited().await {
        if let Some(incident) = entry["about"]["incident"].as_str() {
            about.insert(incident.to_owned());
        }
    }
    assert!(!about.is_empty());
    for incident in about {
        let found = table.engine.get(&format!("/api/v1/incidents/{incident}")).await.unwrap();
        // A freeze is about no alert; its cluster is in its key.
        let own_freeze = found["incident"]["key"] == format!("freeze/cluster:{OWN}");
        assert!(own_freeze || found["incident"]["subject"]["cluster"] == OWN, "{found}");
    }
}

#[tokio::test]
async fn a_route_that_no_role_opens_answers_each_token_as_it_answers_none_and_no_path_takes_another_method() {
    let table = Table::lay().await;
    let listed: BTreeSet<(&str, &str)> = gates().iter().map(|(method, path, _)| (*method, *path)).collect();
    let filled = |path: &str| {
        let path = path.replace("{kind}", "alertmanager").replace("{source}", OWN);
        Regex::new(r"\{\w+\}").unwrap().replace_all(&path, "1").into_owned()
    };
    let texts: Vec<String> = Role::ALL.iter().flat_map(|role| [secret(role.name()), secret(&limited(*role))]).collect();
    for (method, path, gate) in gates() {
        let method = method.to_uppercase();
        let body = if method == "POST" { json!({}) } else { Value::Null };
        match gate {
            RoutePolicy::Local => {
                for role in Role::ALL {
                    for name in [role.name().to_owned(), limited(role)] {
                        let reason = json!({ "reason": "a test" });
                        let (status, _) = table.engine.ask(&method, path, Some(&secret(&name)), &reason).await;
                        let known = role != Role::Source || !name.ends_with(OWN);
                        assert_eq!(status, if known { 403 } else { 401 }, "{path} as {name}");
                    }
                }
            }
            RoutePolicy::Anybody | RoutePolicy::SignIn | RoutePolicy::Agent | RoutePolicy::Signed(..) => {
                let (without, _) = table.engine.ask(&method, &filled(path), None, &body).await;
                for text in &texts {
                    let (with, _) = table.engine.ask(&method, &filled(path), Some(text), &body).await;
                    assert_eq!(with, without, "{method} {path}");
                }
            }
            RoutePolicy::Role(_) | RoutePolicy::Source | RoutePolicy::Session(_) => {}
        }
    }
    // A method that a route takes beside those of the table would be a door that no cell is about.
    let mut open = Vec::new();
    for path in listed.iter().map(|(_, path)| *path).collect::<BTreeSet<_>>() {
        for method in ["get", "post", "put", "delete", "patch", "options"] {
            if !listed.contains(&(method, path)) {
                let (status, _) =
                    table.engine.ask(&method.to_uppercase(), &filled(path), Some(&secret("root")), &Value::Null).await;
                // A route with places in its path may be another one's name: `/login/provider` is no incident.
                if !matches!(status, 404 | 405) {
                    open.push(format!("{method} {path}: {status}"));
                }
            }
        }
    }
    assert!(open.is_empty(), "{open:#?}");
}

#[test]
fn the_table_has_a_cell_for_each_role_at_each_route_that_a_role_opens() {
    let all = cells();
    for (method, path, gate) in gates() {
        let opens = matches!(gate, RoutePolicy::Role(_) | RoutePolicy::Source | RoutePolicy::Session(_));
        let of: Vec<&AccessCell> = all.iter().filter(|cell| (cell.method, cell.path) == (method, path)).collect();
        assert_eq!(of.len() % Role::ALL.len(), 0, "{method} {path}");
        assert_eq!(!of.is_empty(), opens, "{method} {path}");
        // What changes something is limited for those who are limited.
        let acts = matches!(gate, RoutePolicy::Role(right) if !matches!(right, Right::Read | Right::Audit | Right::Measure | Right::Check));
        if acts {
            let elsewhere =
                of.iter().filter(|cell| matches!(cell.relation, TokenRelation::Other | TokenRelation::Every));
            let answers: Vec<AccessAnswer> = elsewhere.map(|cell| cell.answer).collect();
            assert!(!answers.is_empty(), "{method} {path} acts, and has no cell about another cluster");
            let passes =
                answers.iter().any(|answer| !matches!(answer, AccessAnswer::Refused | AccessAnswer::Impossible));
            assert!(!passes, "{method} {path}: {answers:?}");
        }
    }
}

/// A rule whose `group_by` leaves the cluster out makes one incident of alerts of two clusters.
#[tokio::test]
async fn an_incident_with_alerts_of_another_cluster_is_not_a_limited_callers_to_act_on() {
    let fleet = || SimFleet::start(SimOptions { nodes: 4, ..SimOptions::default() }).unwrap();
    let (east, main) = (fleet(), fleet());
    let extra = format!(
        "clusters:\n  {OTHER}: {{ url: '{}' }}\n  {OWN}: {{ url: '{}' }}\ndefault_cluster: {OTHER}\nchannels: {{ ops: {{ kind: log }} }}\nsources:\n\
         \x20 {OTHER}: {{ kind: alertmanager, add_labels: {{ cluster: {OTHER} }} }}\n\
         \x20 {OWN}: {{ kind: alertmanager, add_labels: {{ cluster: {OWN} }} }}\n",
        east.url(),
        main.url()
    );
    let rules =
        "rules:\n  - name: wide\n    when: ['alertname=\"Wide\"']\n    group_by: [alertname]\n    tell: [ops]\n";
    let site = Site::new(&extra, rules, &[]);
    site.add_token("root", "admin", "");
    site.add_token("op-main", "operator", &format!(", clusters: [{OWN}]"));
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    let fires = async |source: &str, node: &str| {
        let body = alertmanager_body("firing", NIGHT, &[&[("alertname", "Wide"), ("node", node)]]);
        let (status, said) =
            engine.ask("POST", &format!("/in/alertmanager/{source}"), Some(&secret("root")), &body).await;
        assert_eq!(status, 200, "{said}");
    };
    let acts = async |what: &str, body: Value| {
        engine.ask("POST", &format!("/api/v1/incidents/i1/{what}"), Some(&secret("op-main")), &body).await
    };
    fires(OWN, "gpu-1").await;
    assert_eq!(acts("ack", json!({})).await.0, 200, "all of it is in their cluster");
    fires(OTHER, "gpu-2").await;
    let all = engine.get("/api/v1/incidents/i1").await.unwrap();
    assert_eq!(all["incident"]["firing"], 2, "{all}");
    for (what, body) in [
        ("ack", json!({})),
        ("assign", json!({ "to": "me" })),
        ("silence", json!({ "lasts": "2h", "why": "a test" })),
        ("resolve", json!({ "why": "a test" })),
    ] {
        let (status, said) = acts(what, body).await;
        assert!(status == 403 && said.to_string().contains("this is in east"), "{what}: {status} {said}");
    }
    // The alert of the other cluster is over: it is theirs again.
    let body = alertmanager_body("resolved", NIGHT, &[&[("alertname", "Wide"), ("node", "gpu-2")]]);
    engine.ask("POST", &format!("/in/alertmanager/{OTHER}"), Some(&secret("root")), &body).await;
    assert_eq!(acts("resolve", json!({ "why": "a test" })).await.0, 200);
}
