//! A whole sign-in with a real, certified OpenID provider, whose own pages a browser goes through, and the real engine.
//!
//! Invariant: what an approval does is counted by the fleet, once.

use super::browser::{Browser, Page};
use super::desk::{CORDON, RULE, XID};
use crate::harness::{Engine, Site, alertmanager_body, client, eventually, free_port, secret, tool, tools};
use nightshift::world::sim::{SimFleet, SimOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use url::Url;

/// What the script of tests/oidc knows too; encoded as RFC 6749 says, or it is not the same.
const SECRET: &str = "a secret that only the two know: 1/2+3 %";

struct Scene {
    site: Site,
    fleet: SimFleet,
    provider: Child,
    url: Url,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.provider.kill();
        let _ = self.provider.wait();
    }
}

impl Scene {
    async fn set() -> Scene {
        let fleet = SimFleet::start(SimOptions::default()).unwrap();
        let theirs = free_port();
        let people = "people:\n  - { name: ada, role: approver, oidc: ada@example.com }\n";
        let extra =
            format!("{people}sources:\n  test:\n    kind: alertmanager\nclusters:\n  sim:\n    url: {}\n", fleet.url());
        let site = Site::new(&extra, RULE, &[("cordon", CORDON)]);
        let url = format!("http://127.0.0.1:{}", site.port);
        let file = site.path().join("nightshift.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        let oidc = format!(
            "server:\n  public_url: {url}\n  oidc:\n    issuer: http://127.0.0.1:{theirs}\n    client_id: nightshift\n    \
             client_secret: {{ env: OIDC_SECRET }}\n    scopes: [openid, email, groups]\n    roles: {{ sre: viewer }}\n"
        );
        std::fs::write(&file, text.replace("server:\n", &oidc)).unwrap();
        // The machine's own token may be anyone's, also hers who approves what it posted.
        site.add_token("am", "source", ", sources: [test]");
        let provider = start_provider(theirs, &format!("{url}/login/callback"), site.path()).await;
        Scene { site, fleet, provider, url: url.parse().unwrap() }
    }

    async fn engine(&self) -> Engine {
        let engine = self.site.start(&[("OIDC_SECRET", SECRET.to_owned())]).await;
        engine.unwrap_or_else(|| panic!("no engine; its log:\n{}", self.site.log()))
    }

    fn at(&self, path: &str) -> Url {
        self.url.join(path).unwrap()
    }

    /// Follows a link of ours, signs in at the provider's own pages, and comes back.
    async fn sign_in(&self, login: &str, path: &str) -> (Browser, Page) {
        let mut browser = Browser::new();
        let page = browser.open(&self.at(path)).await;
        assert!(
            page.url.path() == "/login" && page.text.contains(&format!("/login/provider?to={path}")),
            "{}",
            page.text
        );
        let page = browser.open(&self.at(&format!("/login/provider?to={path}"))).await;
        assert_ne!(page.url.port(), self.url.port(), "the provider's own page: {}", page.url);
        let there = page.url.path().to_owned();
        let page = browser.send(&page.form(&there).with("login", login).with("password", "any")).await;
        let there = page.url.path().to_owned();
        // "Nightshift would like to know your mail": yes.
        let page = browser.send(&page.form(&there)).await;
        (browser, page)
    }

    /// What `nightshift doctor` finds here.
    fn doctor(&self) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
        command.arg("--config").arg(self.site.path().join("nightshift.yaml")).args(["doctor", "-o", "json"]);
        let output = command.env("OIDC_SECRET", SECRET).env_remove("NIGHTSHIFT_TOKEN").output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        said["findings"].to_string()
    }

    fn cordons(&self) -> usize {
        let all = self.fleet.effects();
        all.iter().filter(|effect| effect.changed && effect.verb == "patch" && effect.resource == "nodes").count()
    }
}

async fn start_provider(port: u16, redirect: &str, log: &Path) -> Child {
    let folder = tools().join("oidc");
    assert!(folder.join("node_modules/oidc-provider").exists(), "{} is missing: run `make tools`", folder.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc/provider.mjs");
    let log = std::fs::File::create(log.join("provider.log")).unwrap();
    let mut command = Command::new(tool("node"));
    command.arg(script).arg(&folder).arg(port.to_string()).arg(redirect);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let child = command.spawn().expect("the node that `make tools` brings starts");
    let url = format!("http://127.0.0.1:{port}/.well-known/openid-configuration");
    eventually("the provider", async || {
        client().get(&url).send().await.ok().filter(|answer| answer.status().is_success())
    })
    .await;
    child
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_link_in_a_message_through_the_provider_to_one_cordon() {
    let scene = Scene::set().await;
    let engine = scene.engine().await;
    let body = alertmanager_body("firing", "2026-11-23T03:00:00Z", &[XID]);
    let post = client().post(scene.at("/in/alertmanager/test")).bearer_auth(secret("am")).json(&body);
    assert_eq!(post.send().await.unwrap().status(), 200);
    eventually("the question", async || {
        let open = engine.get("/api/v1/approvals?open=true").await?;
        open["approvals"].as_array().filter(|list| !list.is_empty()).map(|_| ())
    })
    .await;
    let (mut ada, page) = scene.sign_in("u-ada", "/runs/r1").await;
    assert_eq!((page.status, page.url.path()), (200, "/runs/r1"), "{}", page.words());
    assert!(page.words().contains("ada · approver"), "{}", page.words());
    let form = page.form("/web/approvals/a1").with("answer", "approve").with("why", "seen it");
    assert_eq!(scene.cordons(), 0);
    let mut twice = ada.clone();
    let (first, second) = tokio::join!(ada.send(&form), twice.send(&form));
    let mut answers = [first.status, second.status];
    answers.sort_unstable();
    assert_eq!(answers, [200, 409], "one click counts, the other is told");
    eventually("the run to end", async || {
        let run = engine.get("/api/v1/runs/r1").await?;
        (run["run"]["state"]["is"] == "done").then_some(())
    })
    .await;
    assert_eq!(scene.cordons(), 1);
    // Out, here and at once, also for whoever kept the cookie.
    let mut copy = ada.clone();
    let home = ada.open(&scene.at("/")).await;
    assert_eq!(ada.send(&home.form("/logout")).await.url.path(), "/login");
    assert_eq!(copy.open(&scene.at("/runs/r1")).await.url.path(), "/login");
    // A restart opens nothing: whoever was in signs in anew.
    let (mut ada, _) = scene.sign_in("u-ada", "/").await;
    assert_eq!(engine.stop(), Some(0));
    assert!(scene.site.log().contains("signed out"), "{}", scene.site.log());
    let engine = scene.engine().await;
    assert_eq!(ada.open(&scene.at("/")).await.url.path(), "/login");
    let log = scene.site.log();
    assert!(!log.contains(SECRET) && !log.contains("eyJ"), "a secret or a token in the log:\n{log}");
    assert_eq!(engine.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_in_a_named_group_is_let_in_and_who_only_says_a_mail_is_not() {
    let scene = Scene::set().await;
    let engine = scene.engine().await;
    let (mut bob, page) = scene.sign_in("u-bob", "/").await;
    assert!(page.status == 200 && page.words().contains("bob@example.com · viewer"), "{}", page.words());
    let (browser, page) = scene.sign_in("u-eve", "/").await;
    assert_eq!((page.status, browser.session()), (403, None));
    assert!(page.words().contains("your subject at the provider is `u-eve`"), "{}", page.words());
    assert!(!page.words().contains("Open incidents"));
    let doctor = scene.doctor();
    assert!(doctor.contains("answers, with") && !doctor.contains("identity provider: ID tokens"), "{doctor}");
    // A group that is taken out of the file is out within a second, without a restart.
    let file = scene.site.path().join("nightshift.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("roles: { sre: viewer }", "roles: { sre: none }")).unwrap();
    eventually("bob to be out", async || (bob.open(&scene.at("/")).await.url.path() == "/login").then_some(())).await;
    let (browser, page) = scene.sign_in("u-bob", "/").await;
    assert_eq!((page.status, browser.session()), (403, None));
    assert!(page.words().contains("access is blocked"), "{}", page.words());
    let log = scene.site.log();
    for line in ["signed in", "bob@example.com (oidc:u-bob)", "group sre: viewer → none", "sign-in denied"] {
        assert!(log.contains(line), "{line}:\n{log}");
    }
    assert_eq!(engine.stop(), Some(0));
}

/// Stopped between two sign-ins: the browser stays with us, and a token opens the page meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_provider_is_stopped_our_own_page_says_so_at_once_and_a_token_opens_it() {
    let mut scene = Scene::set().await;
    scene.site.add_token("ops", "viewer", "");
    let engine = scene.engine().await;
    assert_eq!(scene.sign_in("u-ada", "/").await.1.status, 200);
    scene.provider.kill().unwrap();
    scene.provider.wait().unwrap();
    let begin = scene.at("/login/provider?to=/incidents/i1");
    // Until then it has answered a moment ago.
    let page = eventually("our own page", async || {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await; // polls
        let answer = client_that_stays().get(begin.clone()).send().await.ok()?;
        (answer.status() == 502).then_some(answer)
    })
    .await;
    let text = page.text().await.unwrap();
    for words in ["you cannot sign in with your organization now", "does not answer", "nightshift break-glass"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let asked = std::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(client_that_stays().get(begin.clone()).send().await.unwrap().status(), 502);
    }
    assert!(asked.elapsed() < std::time::Duration::from_secs(5), "each of them is told at once: {:?}", asked.elapsed());
    let mut browser = Browser::new();
    let page = browser.open(&begin).await;
    let page = browser.send(&page.form("/login").with("token", &secret("ops"))).await;
    assert!(page.words().contains("ops"), "{}", page.words());
    assert_eq!(engine.stop(), Some(0));
}

/// Follows nothing: a redirect to the provider is an answer like another.
fn client_that_stays() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}
