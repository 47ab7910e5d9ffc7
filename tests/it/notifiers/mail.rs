//! Mail against a real SMTP server (aiosmtpd), with and without STARTTLS; the message is read back from its maildir.
//!
//! Invariant: where aiosmtpd is missing these tests fail and say how to get it.

use super::{ask, build, delivered, notice, open, unsent};
use nightshift::config::{ChannelConfig, SecretSource};
use nightshift::model::*;
use nightshift::notifiers::Notifier;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn python() -> PathBuf {
    let python = crate::harness::tools().join("venv/bin/python");
    let there = Command::new(&python).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
    assert!(
        there.is_ok_and(|status| status.success()),
        "aiosmtpd is missing: run `make tools`, or tools/fetch-python.sh"
    );
    python
}

/// A server on a free port that keeps what it gets in a maildir; with a certificate for `localhost` if `tls`.
pub(crate) fn server(tls: bool) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let port = crate::harness::free_port();
    let mut command = Command::new(python());
    command.args(["-m", "aiosmtpd", "-n", "-l", &format!("127.0.0.1:{port}")]);
    if tls {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(&dir)
            .stderr(Stdio::null())
            .status();
        assert!(made.is_ok_and(|status| status.success()), "openssl is needed to make a certificate");
        command.arg("--tlscert").arg(dir.path().join("cert.pem")).arg("--tlskey").arg(dir.path().join("key.pem"));
    }
    command.args(["-c", "aiosmtpd.handlers.Mailbox"]).arg(dir.path().join("mail"));
    let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server { process, port, dir };
    let end = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < end, "the SMTP server does not answer");
        std::thread::yield_now();
    }
    server
}

impl Server {
    fn channel(&self, scheme: &str, host: &str, ca: bool) -> Box<dyn Notifier> {
        let email = |_: SecretSource| ChannelConfig::Email {
            server: format!("{scheme}://{host}:{}", self.port),
            from: "Nightshift <night@ns.example>".into(),
            to: vec!["ana@ns.example".into(), "bo@ns.example".into()],
            username: None,
            password: None,
            ca_file: ca.then(|| self.dir.path().join("cert.pem")),
        };
        build(email, "").unwrap()
    }

    /// The messages as Python's own mail library reads them: header lines, then the decoded text and HTML parts.
    pub(crate) fn messages(&self) -> Vec<String> {
        let read = r#"
import sys, os, email, email.policy
box = os.path.join(sys.argv[1], "new")
found = [email.message_from_binary_file(open(os.path.join(box, name), "rb"), policy=email.policy.default) for name in os.listdir(box)]
found.sort(key=lambda m: m["message-id"])
for m in found:
    for name in ["subject", "to", "message-id", "in-reply-to", "references", "auto-submitted", "x-evil"]:
        print(name + ": " + str(m[name]))
    print(m.get_content_type())
    for part in m.iter_parts():
        print(part.get_content_type()); print(part.get_content())
    print("\0", end="")
"#;
        let out = Command::new(python()).args(["-c", read]).arg(self.dir.path().join("mail")).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        text.split('\0').filter(|message| !message.is_empty()).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn an_incident_is_a_thread_of_few_mails_in_two_parts() {
    let server = server(false);
    let mail = server.channel("smtp+plain", "127.0.0.1", false);
    let title = "</p><script>alert(1)</script>\r\nX-Evil: yes \u{202e}";
    let mut receipt = delivered(mail.deliver(&notice(IncidentState::Open, title, &[(1, title)]), None).await);
    for event in 2..50 {
        let fresh = [(event, "one more line")];
        receipt =
            unsent(mail.deliver(&notice(IncidentState::Open, title, &fresh), Some(&receipt)).await, Some(&receipt));
    }
    let mut asking = notice(IncidentState::Open, title, &[]);
    asking.asks.push(ask("drain gpu-3?"));
    receipt = delivered(mail.deliver(&asking, Some(&receipt)).await);
    receipt = unsent(mail.deliver(&asking, Some(&receipt)).await, Some(&receipt));
    delivered(mail.deliver(&notice(IncidentState::Resolved, title, &[]), Some(&receipt)).await);
    let messages = server.messages();
    assert_eq!(messages.len(), 3, "opened, asked, resolved: not one a line");
    let subject = "subject: [Nightshift i3] </p><script>alert(1)</script>  X-Evil: yes \\u{202e}\n";
    assert!(messages[0].starts_with(subject), "{}", messages[0]);
    assert!(messages[1].starts_with(&subject.replace("i3] ", "i3] Needs an answer: ")), "{}", messages[1]);
    assert!(messages[2].starts_with(&subject.replace("i3] ", "i3] Resolved: ")), "{}", messages[2]);
    let root = receipt.0["root"].as_str().unwrap();
    assert!(messages[0].contains(&format!("message-id: {root}\nin-reply-to: None")));
    assert!(messages[1].contains(&format!("in-reply-to: {root}\nreferences: {root}\n")));
    assert!(messages[2].contains(&format!("references: {root} ")));
    assert!(messages[1].contains("nightshift approve a3  or  nightshift deny a3"));
    assert!(messages[1].contains("expires 03:40 UTC; without an answer it counts as denied. Needs the role approver."));
    for message in &messages {
        assert!(message.contains("to: ana@ns.example, bo@ns.example\n"), "{message}");
        assert!(message.contains("auto-submitted: auto-generated\nx-evil: None\nmultipart/alternative\ntext/plain\n"));
        let html = message.split("text/html\n").nth(1).unwrap();
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script"), "{html}");
    }
}

#[tokio::test]
async fn mail_goes_over_starttls_to_a_server_whose_certificate_is_trusted_and_no_other() {
    let server = server(true);
    delivered(server.channel("smtp", "localhost", true).deliver(&open(&[(1, "opened")]), None).await);
    assert_eq!(server.messages().len(), 1);
    match server.channel("smtp", "localhost", false).deliver(&open(&[(1, "opened")]), None).await {
        DeliveryResult::Retry { why, .. } => assert!(why.contains("ca_file"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(server.messages().len(), 1, "nothing was sent to a stranger");
}

#[tokio::test]
async fn a_server_without_starttls_gets_no_mail() {
    let server = server(false);
    let delivery = server.channel("smtp", "localhost", false).deliver(&open(&[(1, "opened")]), None).await;
    assert!(!matches!(delivery, DeliveryResult::Delivered(_)), "{delivery:?}");
}

#[tokio::test]
async fn a_mail_says_where_it_stands_what_it_costs_what_holds_it_and_how_to_answer() {
    let server = server(false);
    let mail = server.channel("smtp+plain", "127.0.0.1", false);
    delivered(mail.deliver(&super::full(), None).await);
    let sent = server.messages().remove(0);
    let subject = "subject: [Nightshift i3] Needs an answer: gpu-1: 2 faults (XID 74 on GPU 4, XID 48 on GPU 2)\n";
    assert!(sent.starts_with(subject), "{sent}");
    let (text, html) = sent.split_once("text/html\n").unwrap();
    for words in super::FULL {
        assert!(text.contains(words) && html.contains(words), "the mail does not say `{words}`: {sent}");
    }
    assert!(text.contains("Runbook: https://wiki.example/xid?a=1&b=2\n"), "{text}");
    assert!(html.contains("<a href=\"https://wiki.example/xid?a=1&amp;b=2\">Runbook</a>"), "{html}");
    assert!(!sent.contains("javascript"), "{sent}");
    assert!(text.contains("Only ana, bo may answer. 2 different approvers are required."), "{text}");
    let (_, body) = text.split_once("text/plain\n").unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/notifiers/question.txt");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(file, body).unwrap();
    }
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    assert_eq!(body, expected, "UPDATE_DOCS=1 writes it anew: then read it as if it were night");
}
