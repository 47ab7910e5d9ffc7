//! Email over SMTP: a mail when an incident opens, needs an answer, or is resolved; one thread an incident.
//!
//! Invariant: the connection is encrypted unless it stays on this machine, and a mail is never sent per line.

mod render;

use super::{Notifier, text, word};
use crate::limits::SMTP_TIMEOUT;
use crate::model::{DeliveryReceipt, DeliveryResult, IncidentDigest, IncidentNotice, IncidentState};
use crate::telemetry::ChannelKind;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use render::EmailContent;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use url::Url;

type MailTransport = AsyncSmtpTransport<Tokio1Executor>;

/// A channel that sends mail over SMTP.
pub struct EmailNotifier {
    transport: MailTransport,
    server: String,
    from: Mailbox,
    to: Vec<Mailbox>,
    install: String,
}

/// A channel's settings, secrets read.
pub struct EmailSettings<'a> {
    pub server: &'a str,
    pub from: &'a str,
    pub to: &'a [String],
    pub username: Option<&'a str>,
    pub password: Option<String>,
    pub ca_file: Option<&'a Path>,
    pub install: &'a str,
}

/// The thread so far: the receipt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct EmailThread {
    state: String,
    /// Approvals that were mailed.
    asks: Vec<String>,
    root: Option<String>,
    last: Option<String>,
    sent: u32,
}

impl EmailNotifier {
    /// The channel of these settings. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// Fails when an address cannot be parsed, `to` is empty, or the settings of the transport are wrong.
    pub fn new(settings: EmailSettings<'_>) -> Result<EmailNotifier, String> {
        let mailbox = |address: &str| {
            address
                .parse::<Mailbox>()
                .map_err(|error| format!("`{}` is not a mail address: {error}", text::plain(address, 100)))
        };
        if settings.to.is_empty() {
            return Err("`to` is empty: add an address".to_owned());
        }
        Ok(EmailNotifier {
            transport: transport(&settings)?,
            server: settings.server.to_owned(),
            from: mailbox(settings.from)?,
            to: settings.to.iter().map(|address| mailbox(address)).collect::<Result<_, _>>()?,
            install: settings.install.to_owned(),
        })
    }

    async fn send(&self, mail: EmailContent, ids: MessageIds<'_>) -> Result<(), DeliveryResult> {
        let mut builder = Message::builder()
            .from(self.from.clone())
            .message_id(Some(ids.own.to_owned()))
            .subject(mail.subject)
            .header(AutoSubmitted);
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        if let (Some(root), Some(last)) = (ids.root, ids.last) {
            let references = if root == last { root.to_owned() } else { format!("{root} {last}") };
            builder = builder.in_reply_to(last.to_owned()).references(references);
        }
        let message = builder
            .multipart(MultiPart::alternative_plain_html(mail.text, mail.html))
            .map_err(|error| DeliveryResult::Refused { why: format!("the mail could not be written: {error}") })?;
        self.transport.send(message).await.map(drop).map_err(|error| self.unsent(&error))
    }

    fn unsent(&self, error: &lettre::transport::smtp::Error) -> DeliveryResult {
        let said = text::plain(&error.to_string(), 300);
        let why = format!("{}: {said}", self.server);
        if error.is_permanent() {
            let hint = match error.status().map(u16::from) {
                Some(530 | 534 | 535 | 538) => "; check username and password of this channel",
                Some(550..=554) => "; check the addresses, and whether this server may send from them",
                _ => "",
            };
            return DeliveryResult::Refused { why: format!("{why}{hint}") };
        }
        // A failed handshake is a failed connection to lettre; only its words name the certificate.
        let hint = if error.is_tls() || said.contains("certificate") {
            "; is the certificate valid for this name, and its authority known (`ca_file`)?"
        } else {
            ""
        };
        DeliveryResult::Retry { after: None, why: format!("{why}{hint}") }
    }

    /// The same mail has the same id however often it is sent, so that mail programs show it once.
    fn message_id(&self, about: &str, number: u32) -> String {
        let hash = hex::encode(&Sha256::digest(about.as_bytes())[..8]);
        format!("<nightshift.{hash}.{number}@{}>", self.from.email.domain())
    }
}

struct MessageIds<'a> {
    own: &'a str,
    root: Option<&'a str>,
    last: Option<&'a str>,
}

#[async_trait::async_trait]
impl Notifier for EmailNotifier {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Email
    }

    async fn deliver(&self, notice: &IncidentNotice, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        let mut thread = prior.and_then(|receipt| EmailThread::deserialize(&receipt.0).ok()).unwrap_or_default();
        let state = word(notice.incident.state);
        let asks: Vec<String> = notice.asks.iter().map(|ask| ask.approval.to_string()).collect();
        let asked = asks.iter().any(|ask| !thread.asks.contains(ask));
        // An acknowledgement changes the thread's state but is no mail: its author needs none.
        let turned = state != thread.state && notice.incident.state != IncidentState::Acknowledged;
        let opened_again = turned && notice.incident.state == IncidentState::Open && thread.state == "acknowledged";
        let first = thread.root.is_none();
        let speaks = first || asked || (turned && !opened_again);
        if speaks {
            let mail = render::incident(notice);
            let own = self.message_id(&notice.dedup_key, thread.sent);
            let ids = MessageIds { own: &own, root: thread.root.as_deref(), last: thread.last.as_deref() };
            if let Err(delivery) = self.send(mail, ids).await {
                return delivery;
            }
            thread.root.get_or_insert_with(|| own.clone());
            thread.last = Some(own);
            thread.sent += 1;
        }
        thread.state = state.to_owned();
        thread.asks = asks;
        let receipt = DeliveryReceipt(json!(thread));
        if speaks { DeliveryResult::Delivered(receipt) } else { DeliveryResult::Nothing(Some(receipt)) }
    }

    /// One mail when the storm begins and one when it is over.
    async fn digest(&self, digest: &IncidentDigest, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        let about = format!("nightshift/{}/storm/{}", self.install, digest.since);
        if prior.is_none() || digest.over {
            let own = self.message_id(&about, u32::from(digest.over));
            let root = prior.and_then(|receipt| receipt.0["root"].as_str());
            let ids = MessageIds { own: &own, root, last: root };
            return match self.send(render::digest(digest, &self.install), ids).await {
                Ok(()) => DeliveryResult::Delivered(DeliveryReceipt(json!({ "root": self.message_id(&about, 0) }))),
                Err(delivery) => delivery,
            };
        }
        DeliveryResult::Nothing(None)
    }

    async fn probe(&self) -> Result<String, String> {
        match self.transport.test_connection().await {
            Ok(true) => Ok(format!("{} answers, encryption and login work; nothing was sent", self.server)),
            Ok(false) => Err(format!("{} answers, but is not a mail server", self.server)),
            Err(error) => match self.unsent(&error) {
                DeliveryResult::Retry { why, .. } | DeliveryResult::Refused { why } => Err(why),
                DeliveryResult::Delivered(_) | DeliveryResult::Nothing(_) => Err("no answer".to_owned()),
            },
        }
    }
}

/// `smtp://` demands STARTTLS, `smtps://` is encrypted from the first byte, `smtp+plain://` stays on this machine.
fn transport(settings: &EmailSettings<'_>) -> Result<MailTransport, String> {
    // The pool of connections starts a task of its own, and panics where it cannot.
    tokio::runtime::Handle::try_current()
        .map_err(|_| "a mail channel can only be built inside the engine's runtime")?;
    let shown = text::plain(settings.server, 200);
    let url = Url::parse(settings.server).map_err(|error| format!("`server: {shown}` is not an address: {error}"))?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(format!("`server: {shown}` names no host"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("`server` must not contain a password: use `username` and `password`".to_owned());
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let (tls, port) = match url.scheme() {
        "smtp" => (Tls::Required(tls(host, settings.ca_file)?), 587),
        "smtps" => (Tls::Wrapper(tls(host, settings.ca_file)?), 465),
        "smtp+plain" if is_loopback(host) => (Tls::None, 25),
        "smtp+plain" => {
            return Err(format!(
                "`{shown}` would send mail and password unencrypted over the network: use smtp:// (STARTTLS) or smtps://"
            ));
        }
        other => {
            return Err(format!(
                "`{other}://` is not supported: use smtp://, smtps:// or smtp+plain:// (loopback only)"
            ));
        }
    };
    let mut builder =
        MailTransport::builder_dangerous(host).port(url.port().unwrap_or(port)).tls(tls).timeout(Some(SMTP_TIMEOUT));
    match (settings.username, &settings.password) {
        (Some(user), Some(password)) => {
            builder = builder.credentials(Credentials::new(user.to_owned(), password.clone()))
        }
        (None, None) => {}
        _ => return Err("`username` and `password` go together".to_owned()),
    }
    Ok(builder.build())
}

fn tls(host: &str, ca_file: Option<&Path>) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(path) = ca_file {
        let pem = std::fs::read(path).map_err(|error| format!("`ca_file: {}`: {error}", path.display()))?;
        let wrong =
            |error: &dyn std::fmt::Display| format!("`ca_file: {}` is not a PEM certificate: {error}", path.display());
        builder = builder.add_root_certificate(Certificate::from_pem(&pem).map_err(|error| wrong(&error))?);
    }
    builder.build_rustls().map_err(|error| format!("encryption for {host}: {error}"))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// RFC 3834: keeps vacation replies from answering a machine.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(AutoSubmitted)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(server: &str) -> EmailSettings<'_> {
        EmailSettings {
            server,
            from: "n@x.example",
            to: &[],
            username: None,
            password: None,
            ca_file: None,
            install: "t",
        }
    }

    #[tokio::test]
    async fn plain_smtp_never_leaves_the_machine() {
        for good in ["smtp+plain://127.0.0.1:1025", "smtp+plain://localhost", "smtp+plain://[::1]:25"] {
            assert!(transport(&settings(good)).is_ok(), "{good}");
        }
        for wrong in [
            "smtp+plain://mail.example",
            "smtp+plain://10.0.0.1:25",
            "smtp+plain://127.0.0.1.example",
            "http://x",
            "mail",
            "smtp://u:p@x",
        ] {
            assert!(transport(&settings(wrong)).is_err(), "{wrong}");
        }
    }
}
