//! What a hostile URL, name or server can try, one line each.
//!
//! Invariant: every refusal here happens before a byte is sent, but for the bounds on what comes back.

use super::*;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn space(allow: &str, url: &str) -> Result<AddressSpace, WorldError> {
    reach::space_of(&[AllowEntry::parse(allow).unwrap()], &parse(url)?)
}

#[test]
fn an_entry_covers_its_own_scheme_host_port_and_path_alone() {
    let allow = "https://api.example.com/v1";
    for yes in ["https://api.example.com/v1", "https://api.example.com:443/v1/x?y=1", "https://API.example.com/v1/"] {
        assert_eq!(space(allow, yes), Ok(AddressSpace::Public), "{yes}");
    }
    for no in [
        "http://api.example.com/v1",
        "https://api.example.com:8443/v1",
        "https://api.example.com.evil.net/v1",
        "https://evil.net/https://api.example.com/v1",
        "https://api.example.com/v10",
        "https://api.example.com/v1/../admin",
        "https://api.example.com/v1/%2e%2e/admin",
        "https://api.example.com/v1/..%2fadmin",
        "https://api.example.com/v1/%252e%252e/admin",
        "https://api.example.com/v1\\..\\admin",
        "https://api.example.com@evil.net/v1",
        "https://evil.net#@api.example.com/v1",
        "https://api.example.com./v1",
        "https://api.example.com/",
    ] {
        assert!(matches!(space(allow, no), Err(WorldError::Forbidden(_) | WorldError::Invalid(_))), "{no}");
    }
    let with_user = space(allow, "https://me:secret@api.example.com/v1").unwrap_err().to_string();
    assert!(!with_user.contains("secret"), "{with_user}");
}

#[test]
fn every_spelling_of_a_forbidden_address_is_refused() {
    for host in [
        "127.0.0.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "0x7f000001",
        "127.1",
        "0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "2852039166",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:8.8.8.8]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::a00:1]",
        "[2002:7f00:1::]",
        "[2001:0:1::]",
        "[fe80::1]",
        "[fec0::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
    ] {
        let url = format!("http://{host}/");
        assert!(matches!(space(&url, &url), Err(WorldError::Forbidden(_))), "{host}");
    }
    for host in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "[2606:4700::1111]"] {
        let url = format!("http://{host}/");
        assert_eq!(space(&url, &url), Ok(AddressSpace::Public), "{host}");
    }
}

#[test]
fn a_private_entry_opens_private_networks_and_never_the_metadata_address() {
    for host in ["127.0.0.1", "10.1.2.3", "100.64.0.1", "[::1]", "[fd00::1]", "[::ffff:10.0.0.1]"] {
        let url = format!("http://{host}/");
        assert_eq!(space(&format!("private+{url}"), &url), Ok(AddressSpace::Private), "{host}");
    }
    for host in ["169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "[fe80::1]", "0.0.0.0", "224.0.0.1"]
    {
        let url = format!("http://{host}/");
        assert!(matches!(space(&format!("private+{url}"), &url), Err(WorldError::Forbidden(_))), "{host}");
    }
}

#[test]
fn a_bad_entry_of_the_allow_list_says_what_to_write() {
    for entry in ["", "api.example.com", "ftp://x/", "https://u:p@x/", "https://x/?a=1", "https://x/#a"] {
        let error = AllowEntry::parse(entry).unwrap_err().to_string();
        assert!(error.contains("write scheme, host, port and path"), "{error}");
    }
}

/// A name server whose every name has these addresses.
fn answering(addresses: &[&str]) -> DnsLookup {
    let found: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    Arc::new(move |_| {
        let found = found.clone();
        Box::pin(async move { Ok(found) })
    })
}

/// Answers each connection with these bytes; says where, and how many came.
async fn server(answer: &'static [u8]) -> (SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let seen = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(answer).await;
        }
    });
    (at, count)
}

fn get(url: String) -> HttpRequest {
    HttpRequest { method: "GET".to_owned(), url, ..HttpRequest::default() }
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_refused_before_connecting() {
    let (at, count) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let url = format!("http://innocent.example:{}/", at.port());
    for answers in [&["127.0.0.1"][..], &["8.8.8.8", "127.0.0.1"], &["::1"], &["::ffff:127.0.0.1"]] {
        let http = HttpClient::with_lookup("test", std::slice::from_ref(&url), answering(answers)).unwrap();
        let refused = http.send_for_runbook(&get(url.clone())).await;
        assert!(matches!(&refused, Err(WorldError::Forbidden(why)) if why.contains("private+")), "{refused:?}");
    }
    assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 0);
    let http = HttpClient::with_lookup("test", &[format!("private+{url}")], answering(&["127.0.0.1"])).unwrap();
    assert_eq!(http.send_for_runbook(&get(url)).await.unwrap().body, "ok");
    assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let (target, count) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let answer: &'static str = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://{target}/\r\nset-cookie: a=b\r\ncontent-length: 0\r\nretry-after: 7\r\n\r\n"
    )
    .leak();
    let (at, _) = server(answer.as_bytes()).await;
    let http = HttpClient::new("test", &[format!("private+http://{at}/")]).unwrap();
    let answer = http.send_for_runbook(&get(format!("http://{at}/"))).await.unwrap();
    assert_eq!((answer.status, answer.retry_after), (302, Some(7)));
    assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_body_over_the_bound_is_not_read_whether_announced_or_not() {
    let http = HttpClient::new("test", &[]).unwrap();
    let (announced, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n").await;
    let endless: &'static str =
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", "x".repeat(limits::HTTP_BODY_BYTES + 1)).leak();
    let (unannounced, _) = server(endless.as_bytes()).await;
    for at in [announced, unannounced] {
        let answer = http.send(&get(format!("http://{at}/"))).await;
        assert!(matches!(&answer, Err(WorldError::Invalid(why)) if why.contains("more than 1 MiB")), "{answer:?}");
    }
}

#[tokio::test]
async fn never_connected_and_silence_after_sending_are_told_apart() {
    let http = HttpClient::new("test", &[]).unwrap();
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = http.send(&get(format!("http://{free}/very-secret?token=very-secret"))).await.unwrap_err();
    assert!(matches!(&refused, WorldError::Unreached(_)), "{refused:?}");
    let (at, _) = server(b"").await;
    let silent = http.send(&get(format!("http://{at}/very-secret?token=very-secret"))).await.unwrap_err();
    assert!(matches!(&silent, WorldError::Unavailable(_)), "{silent:?}");
    assert!(!format!("{refused}{silent}").contains("very-secret"), "a URL may be a secret");
}

#[tokio::test]
async fn a_runbook_cannot_set_the_headers_that_route_a_request() {
    let http = HttpClient::new("test", &["private+http://127.0.0.1/".to_owned()]).unwrap();
    for name in ["Host", "Content-Length", "transfer-encoding", "Proxy-Authorization", "Connection"] {
        let mut request = get("http://127.0.0.1/".to_owned());
        request.headers.insert(name.to_owned(), "x".to_owned());
        assert!(matches!(http.send_for_runbook(&request).await, Err(WorldError::Invalid(_))), "{name}");
    }
}

#[test]
fn a_secret_goes_to_its_hosts_alone_and_never_in_the_clear_to_a_public_one() {
    let secrets = BTreeMap::from([(
        "key".to_owned(),
        HttpSecret {
            read: Arc::new(|| Ok("0123456789".to_owned())),
            hosts: vec!["api.example.com".into(), "b.example:8443".into()],
        },
    )]);
    let wanted = |secret: &str| {
        SecretHeaders::from([("x-key".to_owned(), SecretHeader { secret: secret.to_owned(), prefix: String::new() })])
    };
    let open =
        |url: &str, public: bool, name: &str| secrets::open(&secrets, &parse(url).unwrap(), public, &wanted(name));
    for yes in ["https://api.example.com/x", "https://API.example.com:443/", "https://b.example:8443/"] {
        assert_eq!(
            open(yes, true, "key").map(|opened| opened.headers["x-key"].clone()).unwrap(),
            "0123456789",
            "{yes}"
        );
    }
    for no in [
        "https://api.example.com.evil.net/",
        "https://evil.api.example.com/",
        "https://api.example.com:8443/",
        "https://b.example/",
        "https://api.example.com./",
    ] {
        assert!(matches!(open(no, true, "key"), Err(WorldError::Forbidden(_))), "{no}");
    }
    let clear = open("http://api.example.com/", true, "key").err().unwrap().to_string();
    assert!(clear.contains("in the clear"), "{clear}");
    assert!(open("http://api.example.com/", false, "key").is_ok());
    assert!(open("https://api.example.com/", true, "kay").err().unwrap().to_string().contains("there are: key"));
}

#[test]
fn a_secret_that_is_no_headers_value_is_refused_unseen() {
    let open = |text: &'static str| {
        let secrets = BTreeMap::from([(
            "key".to_owned(),
            HttpSecret { read: Arc::new(move || Ok(text.to_owned())), hosts: vec!["a.example".into()] },
        )]);
        let wanted =
            SecretHeaders::from([("x".to_owned(), SecretHeader { secret: "key".into(), prefix: "Bearer ".into() })]);
        secrets::open(&secrets, &parse("https://a.example/").unwrap(), true, &wanted)
            .err()
            .map(|error| error.to_string())
    };
    assert!(open("0123456").unwrap().contains("shorter than 8 bytes"));
    for text in ["01234567\nInjected: x", "01234567\u{0}"] {
        let error = open(text).unwrap();
        assert!(error.contains("no header's value") && !error.contains("01234567"), "{error}");
    }
    assert_eq!(open("01234567"), None);
}
