//! Keycloak and Dex as people run them, and an engine with the block of docs/web.md: sign-ins through the providers' own pages.
//!
//! Invariant: what the page says of a provider is what is configured here; where a provider is not on this machine its test
//! is not run, and a line that no runner hides says so.

use super::browser::{Browser, Page};
use crate::harness::{Engine, Site, client, eventually_within, free_port, tools};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use url::Url;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PASSWORD: &str = "a password";

/// The block of docs/web.md, and the subject of its person.
fn block() -> (String, String) {
    let page = include_str!("../../../docs/web.md");
    let block = page.split("```yaml\n").find(|part| part.starts_with("server:\n") && part.contains("oidc:")).unwrap();
    let block = block.split("```").next().unwrap().to_owned();
    let subject = block.split(", oidc: ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    (block, subject)
}

/// Of the table of docs/web.md, what stands in the column `scopes` of a provider.
fn scopes_of(provider: &str) -> String {
    let page = include_str!("../../../docs/web.md");
    let row = page.lines().find(|line| line.starts_with(&format!("| {provider} |"))).unwrap();
    row.split('|').nth(3).unwrap().trim().trim_matches('`').to_owned()
}

/// Said past the runner, which keeps what a test that passes prints.
fn not_run(what: &str, script: &str) {
    let line = format!("NOT RUN (1 test): {what} is not on this machine; tools/{script} says why\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// A provider, and an engine that people reach at `url`.
struct Scene {
    provider: Child,
    site: Site,
    url: Url,
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Keycloak's script starts Java beside itself, so its whole group ends.
        if let Some(group) = i32::try_from(self.provider.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.provider.kill();
        let _ = self.provider.wait();
    }
}

/// An engine's folder with `config`: the block of docs/web.md with the addresses of a test's provider.
fn site_of(config: &str) -> Site {
    let (server, people) = config.split_once("people:\n").unwrap();
    let site = Site::new(&format!("people:\n{people}"), "rules: []\n", &[]);
    let secret = site.path().join("client-secret");
    std::fs::write(&secret, SECRET).unwrap();
    // The test's own port, and everything else of the page.
    let lines = server.lines().skip(1).filter(|line| !line.starts_with("  listen:"));
    let server: String = lines.map(|line| format!("{line}\n")).collect();
    let server = server
        .replace("/run/secrets/nightshift-oidc", &secret.display().to_string())
        .replace("https://nightshift.example.com", &format!("http://127.0.0.1:{}", site.port));
    site.edit(|text| text.replacen("server:\n", &format!("server:\n{server}"), 1));
    site
}

fn redirect(site: &Site) -> String {
    format!("http://127.0.0.1:{}/login/callback", site.port)
}

impl Scene {
    async fn set(site: Site, provider: Child, issuer: &str) -> Scene {
        let url = format!("http://127.0.0.1:{}", site.port).parse().unwrap();
        let mut scene = Scene { provider, site, url };
        scene.speaks(&format!("{issuer}/.well-known/openid-configuration")).await;
        scene
    }

    /// Waits for a provider that takes its time: Java on a busy machine.
    async fn speaks(&mut self, described: &str) {
        let client = client();
        eventually_within(Duration::from_secs(300), described, async || {
            assert!(self.provider.try_wait().unwrap().is_none(), "the provider has ended");
            client.get(described).send().await.ok().filter(|answer| answer.status().is_success())
        })
        .await;
    }

    async fn engine(&self) -> Engine {
        let engine = self.site.start(&[]).await;
        engine.unwrap_or_else(|| panic!("no engine; its log:\n{}", self.site.log()))
    }

    fn at(&self, path: &str) -> Url {
        self.url.join(path).unwrap()
    }

    /// Leaves for the provider: the page that it shows, or where it sends a user that it knows already.
    async fn leave(&self, browser: &mut Browser, path: &str) -> Page {
        browser.open(&self.at(path)).await
    }
}

fn keycloak(port: u16, redirect: &str, subject: &str, folder: &Path) -> Option<Child> {
    let from = tools().join("keycloak");
    let java = std::fs::read_to_string(from.join(".java")).ok()?;
    // A home of its own, so that two can run side by side: the same files, another `data`.
    let home = folder.join("keycloak");
    let data = home.join("data/import");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::create_dir_all(home.join("bin")).unwrap();
    // The script looks for the rest from where it stands itself.
    std::fs::copy(from.join("bin/kc.sh"), home.join("bin/kc.sh")).unwrap();
    for part in ["lib", "conf", "providers", "themes"] {
        std::os::unix::fs::symlink(from.join(part), home.join(part)).unwrap();
    }
    let realm = include_str!("../../oidc/realm.json");
    let realm = realm.replace("SUBJECT-OF-ANN", subject).replace("CLIENT-SECRET", SECRET).replace("REDIRECT", redirect);
    std::fs::write(data.join("main.json"), realm).unwrap();
    let log = std::fs::File::create(folder.join("keycloak.log")).unwrap();
    let mut command = Command::new(home.join("bin/kc.sh"));
    command.args(["start", "--optimized", "--http-enabled=true", "--http-host=127.0.0.1", "--hostname-strict=false"]);
    command.args([&format!("--http-port={port}"), "--import-realm"]);
    let java_home = PathBuf::from(java.trim()).parent().unwrap().parent().unwrap().to_owned();
    command.env("JAVA_HOME", java_home).env("JAVA_OPTS_KC_HEAP", "-Xms64m -Xmx512m");
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
    Some(command.spawn().expect("Keycloak starts"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docs_web_md_works_literally_with_keycloak() {
    let (block, subject) = block();
    let port = free_port();
    let issuer = format!("http://127.0.0.1:{port}/realms/main");
    let site = site_of(&block.replace("https://login.example.com/realms/main", &issuer));
    let Some(provider) = keycloak(port, &redirect(&site), &subject, site.path()) else {
        return not_run("Keycloak", "fetch-keycloak.sh");
    };
    assert!(block.contains(&format!("scopes: {}", scopes_of("Keycloak"))), "the block is the row of Keycloak");
    let scene = Scene::set(site, provider, &issuer).await;
    let engine = scene.engine().await;
    let password = async |browser: &mut Browser, page: &Page, user: &str| {
        let form = page.form_of("/login-actions/authenticate").with("username", user).with("password", PASSWORD);
        browser.send(&form).await
    };
    let signs_in = async |user: &str| {
        let mut browser = Browser::new();
        let page = scene.leave(&mut browser, "/login/provider?to=/incidents").await;
        let page = password(&mut browser, &page, user).await;
        (browser, page)
    };
    // By subject, although Keycloak has not verified the mail.
    let (_, page) = signs_in("ann").await;
    assert_eq!((page.status, page.url.path()), (200, "/incidents"), "{}", page.words());
    assert!(page.words().contains("ann · approver"), "{}", page.words());
    // By a group, by its whole path; the group of the same name elsewhere is another one.
    let (mut bob, page) = signs_in("bob").await;
    assert!(page.words().contains("bob@example.com · approver"), "{}", page.words());
    let (eve, page) = signs_in("eve").await;
    assert_eq!((page.status, eve.session()), (403, None), "{}", page.words());
    for part in ["(mail eve@example.com, not verified)", "1 group came, none of them under `server.oidc.roles`"] {
        assert!(page.words().contains(part), "{part}: {}", page.words());
    }
    // Signed out here, Keycloak still knows bob: one click and he is back, unless another user is asked for.
    let home = bob.open(&scene.at("/")).await;
    let out = bob.send(&home.form("/logout")).await;
    assert!(out.words().contains("Your session at the identity provider continues"), "{}", out.words());
    let mut next = bob.clone();
    assert!(scene.leave(&mut next, "/login/provider?to=/").await.words().contains("bob@example.com · approver"));
    let page = scene.leave(&mut bob.clone(), "/login/provider?to=/&other=1").await;
    assert!(page.text.contains("type=\"password\"") && page.url.port() == Some(port), "{}", page.words());
    // Or he ends that session too.
    let page = bob.open(&scene.at("/login/provider/end")).await;
    let page = bob.send(&page.form_of("/logout")).await;
    assert_eq!(page.status, 200, "{}", page.words());
    let page = scene.leave(&mut bob, "/login/provider?to=/").await;
    assert_eq!(page.url.port(), Some(port), "Keycloak asks who he is: {}", page.words());
    // A scope that Keycloak does not have: what an administrator needs is on the page and in the log.
    assert_eq!(engine.stop(), Some(0));
    scene.site.edit(|text| text.replace("scopes: [openid, email]", "scopes: [openid, email, groups]"));
    let engine = scene.engine().await;
    let page = scene.leave(&mut Browser::new(), "/login/provider?to=/incidents").await;
    for part in ["invalid_scope (Invalid scopes: openid email groups)", "does the provider allow all of them"] {
        assert!(page.words().contains(part), "{part}: {}", page.words());
    }
    assert!(scene.site.log().contains("Invalid scopes: openid email groups"), "{}", scene.site.log());
    assert_eq!(engine.stop(), Some(0));
}

fn dex(port: u16, redirect: &str, folder: &Path) -> Option<Child> {
    let program = tools().join("bin/dex");
    if !program.exists() {
        return None;
    }
    let log = std::fs::File::create(folder.join("dex.log")).unwrap();
    let mut command = Command::new(program);
    command.args([&port.to_string(), redirect, SECRET]);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Some(command.spawn().expect("dex starts"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docs_web_md_works_with_dex_by_its_row() {
    let (block, subject) = block();
    let port = free_port();
    let issuer = format!("http://127.0.0.1:{port}/dex");
    let config = block
        .replace("https://login.example.com/realms/main", &issuer)
        .replace("scopes: [openid, email]", &format!("scopes: {}", scopes_of("Dex")))
        .replace("roles: { /sre: approver, ", "roles: { team/sre: approver, ")
        // Dex has verified the mail, unless it is told otherwise.
        .replace(&subject, "ann@example.com");
    let site = site_of(&config);
    let Some(provider) = dex(port, &redirect(&site), site.path()) else { return not_run("Dex", "fetch-dex.sh") };
    let scene = Scene::set(site, provider, &issuer).await;
    let engine = scene.engine().await;
    let signs_in = async |user: &str| {
        let mut browser = Browser::new();
        let page = scene.leave(&mut browser, "/login/provider?to=/incidents").await;
        let login = format!("{user}@example.com");
        let form = page.form_of("/dex/auth/local").with("login", &login).with("password", "password");
        let page = browser.send(&form).await;
        (browser, page)
    };
    let (_, page) = signs_in("ann").await;
    assert_eq!((page.status, page.url.path()), (200, "/incidents"), "{}", page.words());
    assert!(page.words().contains("ann · approver"), "{}", page.words());
    let (_, page) = signs_in("bob").await;
    assert!(page.words().contains("bob@example.com · approver"), "{}", page.words());
    let (eve, page) = signs_in("eve").await;
    assert_eq!((page.status, eve.session()), (403, None), "{}", page.words());
    assert!(page.words().contains("1 group came, none of them"), "{}", page.words());
    assert_eq!(engine.stop(), Some(0));
}
