//! `nightshift doctor`, the real binary, against the simulated fleet: what it finds, and what it says to paste.
//!
//! Invariant: every finding that is not good says what to do about it.

use crate::engines::{Engine, Manner};
use crate::harness::Site;
use nightshift::world::sim::{SimFault, SimFleet, SimOptions};
use serde_json::Value;
use std::process::Command;

struct Case {
    fleet: SimFleet,
    site: Site,
}

impl Case {
    fn new(extra: &str) -> Case {
        let fleet = SimFleet::start(SimOptions::default()).unwrap();
        let extra = format!("clusters: {{ main: {{ url: '{}' }} }}\n{extra}", fleet.url());
        let runbook = include_str!("../../runbooks/gpu-fell-off-the-bus.rhai");
        let site = Site::new(&extra, "rules: []\n", &[("gpu-fell-off-the-bus", runbook)]);
        Case { fleet, site }
    }

    fn deny(&self, verb: &str, resource: &str) {
        self.fleet.fault(SimFault::Deny { verb: verb.to_owned(), resource: resource.to_owned() }).unwrap();
    }

    /// (health, what, mend) of an area.
    fn findings(&self, area: &str) -> Vec<(String, String, String)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
        command.arg("--config").arg(self.site.path().join("nightshift.yaml")).args(["doctor", "-o", "json"]);
        let output = command.env_remove("NIGHTSHIFT_TOKEN").output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = said["findings"].as_array().unwrap().iter();
        all.filter(|one| one["area"] == area)
            .map(|one| (text(&one["health"]), text(&one["what"]), text(&one["mend"])))
            .collect()
    }
}

#[test]
fn a_cluster_in_order_is_good_in_version_clock_rights_and_nodes() {
    let case = Case::new("");
    let found = case.findings("cluster main");
    assert!(found.iter().all(|(health, ..)| health == "good"), "{found:#?}");
    for words in ["answers in", "clock agrees", "rights that are needed", "32 GPUs"] {
        assert!(found.iter().any(|(_, what, _)| what.contains(words)), "{words}: {found:#?}");
    }
}

#[test]
fn a_missing_right_is_said_with_who_needs_it_and_the_rule_to_paste() {
    let case = Case::new("");
    case.deny("patch", "nodes");
    case.deny("create", "pods/eviction");
    let found = case.findings("cluster main");
    let (_, what, mend) = found.iter().find(|(health, ..)| health == "bad").unwrap_or_else(|| panic!("{found:#?}"));
    assert!(what.contains("patch nodes (") && what.contains("k8s::cordon"), "{what}");
    assert!(what.contains("create pods/eviction (k8s::drain)"), "{what}");
    for line in [
        r#"- {apiGroups: [""], resources: ["nodes"], verbs: ["patch"]}"#,
        r#"- {apiGroups: [""], resources: ["pods/eviction"], verbs: ["create"]}"#,
    ] {
        assert!(mend.lines().any(|one| one == line), "{mend}");
    }
}

#[test]
fn an_engine_that_may_not_act_and_an_action_that_is_off_need_no_right_to_write() {
    let observes = Case::new("mode_ceiling: observe\n");
    observes.deny("patch", "nodes");
    let found = observes.findings("cluster main");
    assert!(found.iter().all(|(health, ..)| health == "good"), "{found:#?}");
    let off = Case::new("actions: { deny: ['k8s::drain'] }\n");
    off.deny("create", "pods/eviction");
    let found = off.findings("cluster main");
    assert!(found.iter().all(|(health, ..)| health == "good"), "{found:#?}");
    let warned = off.findings("catalog");
    assert!(warned.iter().any(|(_, what, _)| what.contains("calls `k8s::drain`, off by `actions`")), "{warned:#?}");
}

#[test]
fn an_address_that_leads_nowhere_is_bad_and_says_what_to_check() {
    // Port 9 of this machine: nothing listens there.
    let case = Case::new("");
    let config = case.site.path().join("nightshift.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("server:\n", "server:\n  public_url: http://127.0.0.1:9\n")).unwrap();
    let found = case.findings("reachable");
    assert!(
        matches!(&found[..], [(health, what, mend)] if health == "bad" && what.contains(":9/healthz") && !mend.is_empty()),
        "{found:#?}"
    );
}

#[tokio::test]
async fn an_engine_that_runs_is_found_ready_and_reachable() {
    let case = Case::new("");
    let config = case.site.path().join("nightshift.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    let url = format!("http://127.0.0.1:{}", case.site.port);
    std::fs::write(&config, text.replace("server:\n", &format!("server:\n  public_url: {url}\n"))).unwrap();
    let _engine = case.site.start(&[]).await.unwrap();
    let found = [case.findings("port"), case.findings("reachable")].concat();
    for words in ["something listens", "is ready", "leads to an engine"] {
        assert!(found.iter().any(|(health, what, _)| health == "good" && what.contains(words)), "{words}: {found:#?}");
    }
}

#[test]
fn every_engine_that_probes_would_look_at_is_asked_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (good, bad) = runtime.block_on(async { (Engine::start("vllm").await, Engine::start("triton").await) });
    bad.set(|page| (page.ready, page.manner) = (false, Manner::Garbage));
    let target = |engine: &Engine| serde_json::to_string(&engine.target(&[])).unwrap();
    let case = Case::new(&format!(
        "sources: {{ serving: {{ kind: inference, probe: {{ targets: [{}, {}] }} }} }}\n",
        target(&good),
        target(&bad)
    ));
    let found = case.findings("engines serving");
    let health: Vec<&str> = found.iter().map(|(health, ..)| health.as_str()).collect();
    assert_eq!(health, ["good", "bad", "odd"], "{found:#?}");
    assert!(found[1].1.contains("no metric of triton") && found[1].2.contains("curl"), "{found:#?}");
    assert!(found[2].1.contains("it answers 503"), "{found:#?}");
    assert_eq!(case.findings("sources"), [], "nothing is posted to it");
}

#[tokio::test]
async fn an_image_without_ca_certificates_starts_where_all_is_plain_http_and_https_says_what_is_missing() {
    let nothing = tempfile::tempdir().unwrap();
    let file = nothing.path().join("no-certificates.pem");
    std::fs::write(&file, "").unwrap();
    let env = [("SSL_CERT_FILE", file.display().to_string()), ("SSL_CERT_DIR", nothing.path().display().to_string())];
    let (fleet, port) = (SimFleet::start(SimOptions::default()).unwrap(), crate::harness::free_port());
    let extra = format!(
        "clusters: {{ main: {{ url: '{url}' }} }}\nprometheus: {{ url: '{url}' }}\nhttp_allow: ['private+{url}/']\n\
         agents: {{ listen: '127.0.0.1:{port}' }}\n",
        url = fleet.url()
    );
    let site = Site::new(&extra, "rules: []\n", &[]);
    let engine = site.start(&env).await.unwrap_or_else(|| panic!("{}", site.log()));
    assert!(site.log().contains("install the package ca-certificates"), "{}", site.log());
    let run = |config: &std::path::Path, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
        command.arg("--config").arg(config).args(args).env_remove("NIGHTSHIFT_TOKEN");
        command.envs(env.iter().map(|(name, value)| (*name, value.as_str()))).output().unwrap()
    };
    let config = site.path().join("nightshift.yaml");
    let status = run(&config, &["status"]);
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    // The agents' door speaks TLS: as good as any server whose authority nobody here knows.
    let text = std::fs::read_to_string(&config).unwrap();
    let secure = site.path().join("secure.yaml");
    let https = format!("prometheus: {{ url: 'https://127.0.0.1:{port}' }}");
    std::fs::write(&secure, text.replace(&format!("prometheus: {{ url: '{}' }}", fleet.url()), &https)).unwrap();
    let said = run(&secure, &["doctor", "-o", "json"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("this system has no CA certificates: install the package ca-certificates"), "{said}");
    assert_eq!(engine.stop(), Some(0));
}

#[tokio::test]
async fn another_engine_on_the_port_is_not_taken_for_this_one() {
    let (ours, theirs) = (Case::new(""), Case::new(""));
    let _engine = theirs.site.start(&[]).await.unwrap_or_else(|| panic!("{}", theirs.site.log()));
    let port = format!("127.0.0.1:{}", ours.site.port);
    ours.site.edit(|config| config.replace(&port, &format!("127.0.0.1:{}", theirs.site.port)));
    let is_another = |found: &[(String, String, String)]| {
        found.iter().any(|(health, what, fix)| health == "bad" && what.contains("is another one") && !fix.is_empty())
    };
    let found = ours.findings("port");
    assert!(is_another(&found), "no token of ours yet: {found:#?}");
    std::fs::write(ours.site.path().join("data/token"), "x".repeat(64)).unwrap();
    let found = ours.findings("port");
    assert!(is_another(&found), "it does not know our token: {found:#?}");
    let found = theirs.findings("port");
    assert!(!is_another(&found) && found.iter().any(|(_, what, _)| what.contains("is ready")), "{found:#?}");
}

#[tokio::test]
async fn a_source_gets_a_token_of_its_own_in_a_file_that_alertmanager_can_read_and_never_the_admins() {
    let case = Case::new("sources: { prod: { kind: alertmanager } }\n");
    let engine = case.site.start(&[]).await.unwrap_or_else(|| panic!("{}", case.site.log()));
    let fixes =
        |found: &[(String, String, String)]| found.iter().map(|(_, _, fix)| fix.clone()).collect::<Vec<_>>().join("\n");
    let found = case.findings("sources");
    let text = fixes(&found);
    assert!(text.contains("nightshift tokens make alertmanager-prod --role source --sources prod"), "{text}");
    assert!(text.contains("credentials_file: /etc/alertmanager/nightshift-token"), "{text}");
    assert!(!text.contains("data/token") && !text.contains("server:"), "{text}");
    let wanted = serde_json::json!({ "name": "am", "role": "source", "expires": "30d", "sources": ["prod"] });
    assert_eq!(engine.post("/api/v1/tokens", &wanted).await.unwrap().0, 201);
    let found = case.findings("sources");
    assert!(found.iter().any(|(health, what, _)| health == "good" && what.contains("`am` may post")), "{found:#?}");
}

#[test]
fn doctor_says_how_many_rules_act_in_which_mode_and_whom_they_notify() {
    let case = Case::new("mode_ceiling: suggest\nchannels: { oncall: { kind: log } }\n");
    let rules = "rules:\n  - { name: a, when: ['alertname=\"A\"'], run: gpu-fell-off-the-bus, mode: auto, tell: [oncall], with: { node: gpu-1, gpu: '1' } }\n  \
                 - { name: b, when: ['alertname=\"B\"'], tell: [oncall] }\n";
    std::fs::write(case.site.path().join("rules/test.yaml"), rules).unwrap();
    let found = case.findings("rules");
    let what =
        found.first().map(|(_, what, _)| what.clone()).unwrap_or_else(|| panic!("{:#?}", case.findings("catalog")));
    assert!(
        what.contains("2 rules in force (mode_ceiling suggest): 1 suggest, 1 notify only; they notify oncall (2)"),
        "{what}"
    );
}

/// A provider whose answers are dated that far from this machine's time.
async fn provider_of_another_time(ahead: i64) -> String {
    use axum::response::IntoResponse;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let dated = move |body: Value| async move {
        let at = nightshift::model::Time::now() + jiff::SignedDuration::from_secs(ahead);
        let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap();
        ([("date", date)], axum::Json(body)).into_response()
    };
    let at = |path: &str| format!("{url}{path}");
    let described = serde_json::json!({
        "issuer": url, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"), "jwks_uri": at("/jwks"),
    });
    let keys = serde_json::json!({ "keys": [{
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }] });
    let app = axum::Router::new()
        .route("/.well-known/openid-configuration", axum::routing::get(move || dated(described.clone())))
        .route("/jwks", axum::routing::get(move || dated(keys.clone())));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_whose_clock_differs_is_named_with_the_seconds_and_the_way_and_one_in_time_is_not() {
    for (ahead, said) in [(0, None), (20, None), (-20, None), (300, Some("behind")), (-300, Some("ahead of"))] {
        let issuer = provider_of_another_time(ahead).await;
        let case = Case::new("");
        let oidc = format!(
            "server:\n  public_url: http://127.0.0.1:{}\n  oidc: {{ issuer: '{issuer}', client_id: nightshift, roles: {{ sre: viewer }} }}\n",
            case.site.port
        );
        case.site.edit(|config| config.replace("server:\n", &oidc));
        let (clock, oidc) =
            tokio::task::spawn_blocking(move || (case.findings("clock"), case.findings("oidc"))).await.unwrap();
        assert!(
            oidc.iter().any(|(health, what, _)| health == "good" && what.contains("answers, with 1 keys")),
            "{oidc:#?}"
        );
        let found: Vec<_> = clock.iter().filter(|(_, what, _)| what.contains("the identity provider")).collect();
        match (said, found.as_slice()) {
            (None, []) => {}
            (Some(way), [(health, what, fix)]) => {
                let seconds: i64 = what.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
                assert!((298..=302).contains(&seconds), "{what}");
                assert!(
                    health == "bad"
                        && what.contains(&format!(" s {way} the identity provider: ID tokens will be refused")),
                    "{what}"
                );
                assert!(fix.contains("timedatectl set-ntp true"), "{fix}");
            }
            other => panic!("{ahead} s: {other:?}"),
        }
    }
}
