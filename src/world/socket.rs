//! A WebSocket to a service of the configuration: text both ways, one message at a time.
//!
//! Invariant: TLS with the system's certificates, in the clear only to this machine; nothing larger than its bound is read.

use super::WorldError;
use crate::limits;
use futures::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use rustls_platform_verifier::ConfigVerifierExt;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use url::{Host, Url};

trait SocketStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> SocketStream for T {}

/// One open connection.
pub struct WebSocketClient(WebSocketStream<Box<dyn SocketStream>>);

/// A frame that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketFrame {
    Text(String),
    /// A ping (which is answered) or a pong: the other side is there.
    Alive,
    /// The end, and why.
    Closed(String),
}

impl WebSocketClient {
    /// Connects to `wss://…`, or to `ws://` of this machine. The address may hold a ticket, so errors name the host alone.
    ///
    /// # Errors
    ///
    /// Fails when the address is no such URL, or the server is not reached in time.
    pub async fn connect(address: &str) -> Result<WebSocketClient, WorldError> {
        let url = Url::parse(address).map_err(|error| WorldError::Invalid(format!("its address: {error}")))?;
        let place = super::http::place(&url);
        let opened = timeout(limits::CONNECT_TIMEOUT * 2, open(&url, address)).await;
        opened
            .unwrap_or_else(|_| Err(WorldError::Unreached("it does not answer in time".to_owned())))
            .map_err(|error| error.at(&place))
    }

    /// The next message. Safe to cancel and call again.
    pub async fn hear(&mut self) -> SocketFrame {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => SocketFrame::Text(text.as_str().to_owned()),
            Some(Ok(Message::Close(frame))) => {
                let why = frame.map(|frame| format!(" ({})", u16::from(frame.code))).unwrap_or_default();
                SocketFrame::Closed(format!("the other side closed it{why}"))
            }
            Some(Ok(_)) => SocketFrame::Alive,
            Some(Err(error)) => SocketFrame::Closed(words(&error)),
            None => SocketFrame::Closed("the connection broke off".to_owned()),
        }
    }

    /// Sends a text frame.
    ///
    /// # Errors
    ///
    /// Fails when the connection is broken, or the write takes longer than `SOCKET_WRITE`.
    pub async fn say(&mut self, text: String) -> Result<(), WorldError> {
        self.send(Message::text(text)).await
    }

    /// Sends a ping, to find out whether the server still answers.
    ///
    /// # Errors
    ///
    /// Fails when the connection is broken, or the write takes longer than `SOCKET_WRITE`.
    pub async fn ping(&mut self) -> Result<(), WorldError> {
        self.send(Message::Ping(bytes::Bytes::new())).await
    }

    /// Sends a close frame; does not wait for an answer.
    pub async fn close(mut self) {
        let _ = timeout(limits::SOCKET_WRITE, self.0.close(None)).await;
    }

    async fn send(&mut self, message: Message) -> Result<(), WorldError> {
        match timeout(limits::SOCKET_WRITE, self.0.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(WorldError::Unavailable(words(&error))),
            Err(_) => Err(WorldError::Unavailable("the other side accepts no data".to_owned())),
        }
    }
}

async fn open(url: &Url, address: &str) -> Result<WebSocketClient, WorldError> {
    let loopback = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return Err(WorldError::Invalid("its address names no host".to_owned())),
    };
    let secure = match url.scheme() {
        "wss" => true,
        "ws" if loopback => false,
        other => return Err(WorldError::Invalid(format!("`{other}` is not wss, so others could listen"))),
    };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port().unwrap_or(if secure { 443 } else { 80 });
    let unreached = |error: std::io::Error| WorldError::Unreached(error.to_string());
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(unreached)?;
    let _ = stream.set_nodelay(true);
    let wire: Box<dyn SocketStream> = if secure {
        super::install_tls();
        let wrong = |error: &dyn std::fmt::Display| WorldError::Invalid(format!("TLS: {error}"));
        let config = rustls::ClientConfig::with_platform_verifier().map_err(|error| wrong(&error))?;
        let name = ServerName::try_from(host).map_err(|error| wrong(&error))?;
        let distrusted = |error: std::io::Error| {
            let why = error.to_string();
            WorldError::Unreached(format!("{why}{}", super::http::distrust(&why)))
        };
        Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(distrusted)?)
    } else {
        Box::new(stream)
    };
    let bounds = WebSocketConfig::default()
        .max_message_size(Some(limits::SOCKET_MESSAGE_BYTES))
        .max_frame_size(Some(limits::SOCKET_MESSAGE_BYTES))
        .read_buffer_size(limits::SOCKET_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(limits::SOCKET_MESSAGE_BYTES);
    let (stream, _) = client_async_with_config(address, wire, Some(bounds)).await.map_err(|error| match error {
        Error::Http(answer) => WorldError::Unreached(format!("it answered {} instead", answer.status().as_u16())),
        other => WorldError::Unreached(words(&other)),
    })?;
    Ok(WebSocketClient(stream))
}

/// The error, without any text of the server's.
fn words(error: &Error) -> String {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => "the connection is closed".to_owned(),
        Error::Io(error) => error.to_string(),
        Error::Capacity(_) => {
            format!("a message has more than {} KiB, which is not read", limits::SOCKET_MESSAGE_BYTES / 1024)
        }
        Error::Protocol(error) => format!("it does not speak WebSocket: {error}"),
        Error::Utf8(_) => "a text is not UTF-8".to_owned(),
        _ => "the connection failed".to_owned(),
    }
}

impl WorldError {
    /// The same with where it happened.
    fn at(self, place: &str) -> WorldError {
        match self {
            WorldError::Invalid(why) => WorldError::Invalid(format!("{place}: {why}")),
            WorldError::Unreached(why) => WorldError::Unreached(format!("{place}: {why}")),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn words_go_in_the_clear_to_this_machine_alone() {
        for address in ["ws://wss-primary.slack.com/link/?ticket=s3cret", "http://127.0.0.1:1/", "ws:///x", "s3cret"] {
            let refused =
                WebSocketClient::connect(address).await.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(refused.starts_with("invalid: "), "{address}: {refused}");
            assert!(!refused.contains("s3cret"), "{refused}");
        }
    }

    #[tokio::test]
    async fn what_is_no_websocket_is_said_to_be_none() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
        let refused =
            WebSocketClient::connect(&format!("ws://{address}/link?ticket=s3cret")).await.err().unwrap().to_string();
        assert!(refused.contains("it answered 404") && !refused.contains("s3cret"), "{refused}");
        // The same listener without TLS.
        let refused = WebSocketClient::connect(&format!("wss://{address}/link")).await.err().unwrap().to_string();
        assert!(refused.starts_with("not reached: "), "{refused}");
    }
}
