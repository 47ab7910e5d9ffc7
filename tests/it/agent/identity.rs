//! Who may speak: tokens are good once and for a while, certificates until they are taken away, and each for its own node.

use super::*;

fn refused(output: &Output, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(words), "`{words}` is not in: {said}");
}

#[tokio::test]
async fn a_join_token_is_good_once_for_its_node_and_for_its_time() {
    let place = Place::new("", "rules: []\n", &[]);
    let engine = place.site.start(&[]).await.unwrap();
    let good = token(&engine, json!({ "node": "gpu-1" })).await;
    refused(&place.join("gpu-2", &good), "was made for node gpu-1, not for gpu-2");
    assert!(place.join("gpu-1", &good).status.success());
    refused(&place.join("gpu-1", &good), "was used by gpu-1");
    refused(&place.join("gpu-2", &good), "was used by gpu-1");
    refused(&place.join("gpu-2", &token(&engine, json!({ "expires": "0s" })).await), "expired at");
    let any = token(&engine, json!({})).await;
    refused(&place.join("gpu-1", &any), "has an agent already");
    // The refusals did not use it up.
    assert!(place.join("gpu-2", &any).status.success());
    let forged: String = any.chars().rev().collect();
    refused(&place.join("gpu-3", &forged), "no join token");
    let mut parts: Vec<&str> = any.split('.').collect();
    parts[1] = "c29tZXRoaW5nLWVsc2U";
    refused(&place.join("gpu-3", &parts.join(".")), "unknown join token");
    let key = place.folder("gpu-1").join("data/identity/agent.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let joined = engine.get("/api/v1/entries?kind=agent_joined").await.unwrap();
    assert_eq!(joined["entries"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_agent_that_was_removed_is_refused_at_once_and_may_join_again() {
    let place = Place::new("", "rules: []\n", &[]);
    let engine = place.site.start(&[]).await.unwrap();
    let mut agent = place.agent(&engine, "gpu-1").await;
    connected(&engine, "gpu-1").await;
    let (status, _) = engine.post("/api/v1/agents/gpu-1/remove", &json!({ "why": "sold" })).await.unwrap();
    assert_eq!(status, 200);
    agent.hears(["xid-79 after".to_owned()]);
    eventually("a refusal", async || place.log("gpu-1").contains("was revoked").then_some(())).await;
    assert_eq!(heard(&engine).await, []);
    agent.kill();
    // What it heard meanwhile was kept, and is sent once it is trusted again.
    let agent = place.agent(&engine, "gpu-1").await;
    eventually("the finding", async || (heard(&engine).await.len() == 1).then_some(())).await;
    assert_eq!(heard(&engine).await[0].1, "gpu-1", "a report speaks for its agent's node, whatever it says");
    drop(agent);
}

#[tokio::test]
async fn the_door_answers_nobody_without_a_certificate_and_nothing_else_is_behind_it() {
    let place = Place::new("", "rules: []\n", &[]);
    let engine = place.site.start(&[]).await.unwrap();
    let ca = std::fs::read(place.site.path().join("data/agents-ca.pem")).unwrap();
    let ca = reqwest::Certificate::from_pem(&ca).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().unwrap();
    let door = format!("https://127.0.0.1:{}", place.door);
    let ask = async |path: &str| {
        let answer = client.post(format!("{door}{path}")).json(&json!({})).send().await.unwrap();
        assert_eq!(answer.version(), reqwest::Version::HTTP_2);
        answer.status().as_u16()
    };
    for path in ["/agent/v1/reports", "/agent/v1/poll", "/agent/v1/answers", "/agent/v1/renew"] {
        assert_eq!(ask(path).await, 401, "{path}");
    }
    assert_eq!(ask("/api/v1/runs").await, 404);
    // A client that trusts only the system's authorities does not talk to it at all.
    let stranger = crate::harness::client();
    assert!(stranger.post(format!("{door}/agent/v1/join")).send().await.is_err());
    // The plain door has the same routes, for tokens behind a proxy; without one they are shut.
    let (status, _) = engine.post("/agent/v1/poll", &json!({})).await.unwrap();
    assert_eq!(status, 401, "a person's token is no agent's");
}

#[tokio::test]
async fn the_hint_beside_a_join_token_keeps_it_out_of_ps_and_of_the_shells_history() {
    let place = Place::new("", "rules: []\n", &[]);
    let _engine = place.site.start(&[]).await.unwrap();
    let (code, out, err) = crate::tokens::nightshift(&place.site, &["agents", "join-token", "--node", "gpu-1"]);
    assert_eq!(code, 0, "{err}");
    let said = out + &err;
    assert!(said.contains("nsj1.") && said.contains("--join -"), "{said}");
    assert!(!said.contains("--join nsj1"), "{said}");
}

/// Strangers at the agents' listener: without a word, with half a handshake, and with a whole one but no certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_at_the_agents_listener_have_a_few_places_and_cost_no_agent_its_answer() {
    let place = Place::new("", "rules: []\n", &[]);
    let engine = place.site.start(&[]).await.unwrap();
    assert!(place.join("gpu-1", &token(&engine, json!({ "node": "gpu-1" })).await).status.success());
    let ca = std::fs::read(place.site.path().join("data/agents-ca.pem")).unwrap();
    let trusted = reqwest::Certificate::from_pem(&ca).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    for der in <rustls::pki_types::CertificateDer as rustls::pki_types::pem::PemObject>::pem_slice_iter(&ca) {
        roots.add(der.unwrap()).unwrap();
    }
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let (mut idle, mut whole) = (Vec::new(), Vec::new());
    for at in 0..900 {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", place.door)).await.unwrap();
        match at % 3 {
            0 => {}
            1 => tokio::io::AsyncWriteExt::write_all(&mut stream, &[0x16, 0x03, 0x01, 0x02, 0x00]).await.unwrap(),
            _ => {
                let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
                whole.extend(tls.connect(name, stream).await.ok());
                continue;
            }
        }
        idle.push(stream);
    }
    // Of those without a certificate only so many keep their connection; with TLS 1.3 the close comes behind the handshake.
    let most = nightshift::limits::AGENT_STRANGERS;
    assert!(whole.len() > most, "{} handshakes", whole.len());
    let kept = async |all: &mut Vec<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>| {
        let mut kept = 0;
        for stream in all.iter_mut() {
            let mut byte = [0; 1];
            let reading = tokio::io::AsyncReadExt::read(stream, &mut byte);
            let closed = tokio::time::timeout(std::time::Duration::from_millis(2), reading).await;
            // Frames of HTTP/2 are no end of the connection.
            kept += usize::from(!matches!(closed, Ok(Ok(0) | Err(_))));
        }
        kept
    };
    // Sooner than each of them would be closed for its age.
    let soon = nightshift::limits::AGENT_STRANGER_LIFE / 2;
    let closed = async || Some(kept(&mut whole).await).filter(|kept| *kept <= most);
    let kept = crate::harness::eventually_within(soon, "the others are closed", closed).await;
    assert!(kept > 0, "those with a place keep it for a while");
    // The agent, by new connections, while they all stay.
    let [key, certificate, _] = nightshift::agent::identity_paths(&place.folder("gpu-1").join("data"));
    let pem = [std::fs::read(key).unwrap(), std::fs::read(certificate).unwrap()].concat();
    let identity = reqwest::Identity::from_pem(&pem).unwrap();
    let mut took = Vec::new();
    for _ in 0..50 {
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([trusted.clone()]).identity(identity.clone());
        let begun = std::time::Instant::now();
        let body = json!({ "standing": { "boot": "b", "spool": "s" }, "reports": [] });
        let url = format!("https://127.0.0.1:{}/agent/v1/reports", place.door);
        let answer = client.build().unwrap().post(url).json(&body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        took.push(begun.elapsed());
    }
    took.sort();
    assert!(took[took.len() * 99 / 100] <= std::time::Duration::from_secs(1), "{took:?}");
    drop(idle);
}

/// The agent's certificate as the same engine would have granted it so long ago, for the same key.
fn aged(place: &Place, node: &str, age: std::time::Duration) {
    let [key, certificate, _] = nightshift::agent::identity_paths(&place.folder(node).join("data"));
    let pem = std::fs::read_to_string(&certificate).unwrap();
    let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let parsed = parsed.parse_x509().unwrap();
    let family = parsed.subject().iter_organizational_unit().next().unwrap().as_str().unwrap();
    let key = rcgen::KeyPair::from_pem(&std::fs::read_to_string(key).unwrap()).unwrap();
    let request = rcgen::CertificateParams::new(Vec::new()).unwrap().serialize_request(&key).unwrap().pem().unwrap();
    let then = nightshift::model::Time::now() - age;
    let data = place.site.path().join("data");
    let authority = nightshift::server::agents::AgentAuthority::open_or_create(&data, "x", then).unwrap();
    std::fs::write(certificate, authority.grant(&request, &node.into(), family, then).unwrap().certificate).unwrap();
}

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

#[tokio::test]
async fn an_agent_renews_its_certificate_by_itself_long_before_it_ends() {
    let place = Place::new("", "rules: []\n", &[]);
    let engine = place.site.start(&[]).await.unwrap();
    let token = token(&engine, json!({})).await;
    assert!(place.join("gpu-1", &token).status.success());
    aged(&place, "gpu-1", 3 * DAY);
    let files = || nightshift::agent::identity_paths(&place.folder("gpu-1").join("data"));
    let read = || files().map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let before = read();
    let mut agent = place.start("gpu-1");
    eventually("another key and certificate", async || {
        let now = read();
        (now[0] != before[0] && now[1] != before[1]).then_some(())
    })
    .await;
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&files()[0]).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // It speaks with the new one, and so does the next process.
    agent.hears(["xid-79 renewed".to_owned()]);
    eventually("a finding", async || (heard(&engine).await.len() == 1).then_some(())).await;
    agent.kill();
    let mut agent = place.start("gpu-1");
    agent.hears(["xid-79 again".to_owned()]);
    eventually("another", async || (heard(&engine).await.len() == 2).then_some(())).await;
    assert!(!place.log("gpu-1").contains("not renewed"), "{}", place.log("gpu-1"));
    // Taking it away works with the new certificate as it did with the old one.
    let (status, _) = engine.post("/api/v1/agents/gpu-1/remove", &json!({ "why": "sold" })).await.unwrap();
    assert_eq!(status, 200);
    agent.hears(["xid-79 after".to_owned()]);
    eventually("a refusal", async || place.log("gpu-1").contains("was revoked").then_some(())).await;
}

#[tokio::test]
async fn an_agent_whose_certificate_has_ended_says_what_to_do_and_loses_nothing() {
    let place = Place::new("", "rules: []\n", &[]);
    let engine = place.site.start(&[]).await.unwrap();
    assert!(place.join("gpu-1", &token(&engine, json!({})).await).status.success());
    aged(&place, "gpu-1", 8 * DAY);
    let mut agent = place.start("gpu-1");
    agent.hears(["xid-79 meanwhile".to_owned()]);
    eventually("words", async || {
        let log = place.log("gpu-1");
        (log.contains("certificate ended at") && log.contains("join-token --node gpu-1")).then_some(())
    })
    .await;
    assert_eq!(heard(&engine).await, []);
    let spool = place.folder("gpu-1").join("data/spool");
    eventually("the spool has it", async || {
        let found = Command::new("grep").args(["-rqs", "xid-79 meanwhile"]).arg(&spool).status().unwrap();
        found.success().then_some(())
    })
    .await;
    agent.kill();
    let bound = token(&engine, json!({ "node": "gpu-1" })).await;
    assert!(place.join("gpu-1", &bound).status.success());
    let _agent = place.start("gpu-1");
    eventually("what it heard meanwhile", async || (heard(&engine).await.len() == 1).then_some(())).await;
}

#[tokio::test]
async fn break_glass_access_makes_no_join_token_that_would_outlive_it() {
    let place = Place::new("", "rules: []\n", &[]);
    let engine = place.site.start(&[]).await.unwrap();
    let (status, glass) = engine.post("/api/v1/break-glass", &json!({ "reason": "x", "expires": "2m" })).await.unwrap();
    assert_eq!(status, 201, "{glass}");
    let text = glass["token"].as_str().unwrap();
    for wish in [json!({ "expires": "1d" }), json!({ "expires": "10s" }), json!({}), json!({ "node": "gpu-1" })] {
        let (status, said) = engine.ask("POST", "/api/v1/agents/join-tokens", Some(text), &wish).await;
        assert!(status == 403 && said["error"].to_string().contains("would outlive it"), "{wish}: {status} {said}");
    }
    let made = engine.get("/api/v1/entries?kind=agent_token_made").await.unwrap();
    assert_eq!(made["entries"].as_array().map(Vec::len), Some(0), "{made}");
    assert!(listed(&engine, "gpu-1").await.is_none());
}

#[tokio::test]
async fn what_a_token_makes_of_agents_ends_with_it() {
    let place = Place::new("", "rules: []\n", &[]);
    let engine = place.site.start(&[]).await.unwrap();
    let text = |made: &Value| made["token"].as_str().unwrap().to_owned();
    let wish = "/api/v1/agents/join-tokens";
    let wanted = json!({ "name": "ci", "role": "admin", "expires": "1h" });
    let (status, made) = engine.post("/api/v1/tokens", &wanted).await.unwrap();
    assert_eq!(status, 201, "{made}");
    let (id, ci) = (made["made"]["id"].as_str().unwrap().to_owned(), text(&made));
    let (status, said) = engine.ask("POST", wish, Some(&ci), &json!({ "expires": "1d" })).await;
    assert!(status == 403 && said["error"].to_string().contains("cannot outlive it"), "{status} {said}");
    let mut joins = Vec::new();
    for _ in 0..2 {
        let (status, made) = engine.ask("POST", wish, Some(&ci), &json!({})).await;
        assert_eq!(status, 201, "{made}");
        joins.push(text(&made));
    }
    assert!(place.join("gpu-1", &joins[0]).status.success());
    assert!(place.join("gpu-2", &token(&engine, json!({})).await).status.success());
    let (status, said) =
        engine.post(&format!("/api/v1/tokens/{id}/revoke"), &json!({ "why": "leaked" })).await.unwrap();
    assert_eq!(status, 200, "{said}");
    assert!(listed(&engine, "gpu-1").await.is_none() && listed(&engine, "gpu-2").await.is_some());
    refused(&place.join("gpu-3", &joins[1]), "unknown join token");
    let mut agent = place.start("gpu-1");
    agent.hears(["xid-79 after".to_owned()]);
    eventually("a refusal", async || place.log("gpu-1").contains("was revoked").then_some(())).await;
}
