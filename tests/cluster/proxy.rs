//! A proxy on loopback before the real API server, which mistreats the requests that a test names.
//!
//! Invariant: what it lets through reaches the API server once, and a lost reply is lost only after the API server has
//! answered in full.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nightshift::world::sim::RequestFault;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: Uri,
    tls: tokio_rustls::TlsConnector,
    plans: Mutex<Vec<Plan>>,
    /// Grows with each `cut_watches`; a watch that began before ends.
    cuts: tokio::sync::watch::Sender<u32>,
    /// Bodies that reads were answered with, by path: what a stale cache would still say.
    read: Mutex<BTreeMap<String, Vec<Bytes>>>,
}

struct Plan {
    times: u32,
    method: String,
    path: String,
    trouble: RequestFault,
}

type Answer = Response<Either<Full<Bytes>, Incoming>>;

impl Proxy {
    /// It lives as long as the runtime that starts it.
    pub async fn start(upstream: &str, ca: &Path) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream: upstream.parse().unwrap(),
            tls: connector(ca),
            plans: Mutex::default(),
            cuts: tokio::sync::watch::Sender::new(0),
            read: Mutex::default(),
        });
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serving.clone();
                let mut cuts = serving.cuts.subscribe();
                tokio::spawn(async move {
                    // One request at a time: the last one is a watch, or none is under way.
                    let watching = Arc::new(AtomicBool::new(false));
                    let seen = watching.clone();
                    let serve = service_fn(move |request: Request<Incoming>| {
                        seen.store(request.uri().to_string().contains("watch="), Ordering::Relaxed);
                        shared.clone().serve(request)
                    });
                    let serving =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve);
                    let cut = async {
                        while cuts.changed().await.is_ok() {
                            if watching.load(Ordering::Relaxed) {
                                return;
                            }
                        }
                        std::future::pending().await
                    };
                    // An error is a connection that we, or the client, have cut.
                    tokio::select! {
                        _ = serving => {}
                        () = cut => {}
                    }
                });
            }
        });
        Proxy { port, shared }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends every watch that is under way.
    pub fn cut_watches(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// The next `times` requests with this method whose path contains this.
    pub fn trouble(&self, times: u32, method: &str, path: &str, trouble: RequestFault) {
        let plan = Plan { times, method: method.to_owned(), path: path.to_owned(), trouble };
        self.shared.plans.lock().unwrap_or_else(PoisonError::into_inner).push(plan);
    }
}

impl Shared {
    fn next_trouble(&self, method: &Method, path: &str) -> Option<RequestFault> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |plan: &&mut Plan| plan.times > 0 && method == plan.method.as_str() && path.contains(&plan.path);
        let plan = plans.iter_mut().find(fits)?;
        plan.times -= 1;
        Some(plan.trouble.clone())
    }

    /// An error closes the connection without an answer.
    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, std::io::Error> {
        let (method, path) = (request.method().clone(), request.uri().to_string());
        let cut = || std::io::Error::other("cut, as the test asked");
        match self.next_trouble(&method, &path) {
            None => self.forward(request, &method, &path).await,
            // The watch says nothing, not even that it began; anything else is served.
            Some(RequestFault::Stall) if path.contains("watch=") => std::future::pending().await,
            Some(RequestFault::Stall) => self.forward(request, &method, &path).await,
            Some(RequestFault::Status { code, retry_after }) => Ok(refusal(code, retry_after)),
            Some(RequestFault::Cut) => Err(cut()),
            Some(RequestFault::LoseReply) => {
                self.whole(request).await?;
                Err(cut())
            }
            Some(RequestFault::Delay { millis }) => {
                let answer = self.whole(request).await?;
                tokio::time::sleep(Duration::from_millis(millis)).await; // polls: the delay that was asked for
                Ok(answer.map(Either::Left))
            }
            Some(RequestFault::Garbage) => {
                self.whole(request).await?;
                Ok(Response::new(Either::Left(Full::from("<html>hello</html>"))))
            }
            Some(RequestFault::Stale { versions }) => {
                let before = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
                let before = before.unwrap_or_default();
                assert!(!before.is_empty(), "{path} was never read, so no cache can be stale");
                Ok(Response::new(Either::Left(Full::new(before[before.len().saturating_sub(versions)].clone()))))
            }
        }
    }

    /// Watches are passed on as they come; what else is read is remembered for stale answers.
    async fn forward(&self, request: Request<Incoming>, method: &Method, path: &str) -> Result<Answer, std::io::Error> {
        if method != Method::GET || path.contains("watch=") {
            return Ok(self.send(request).await?.map(Either::Right));
        }
        let answer = self.whole(request).await?;
        if answer.status() == StatusCode::OK {
            let body = answer.body().clone().collect().await.unwrap_or_default().to_bytes();
            self.read.lock().unwrap_or_else(PoisonError::into_inner).entry(path.to_owned()).or_default().push(body);
        }
        Ok(answer.map(Either::Left))
    }

    async fn whole(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let (mut head, body) = self.send(request).await?.into_parts();
        head.headers.remove(http::header::TRANSFER_ENCODING);
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        Ok(Response::from_parts(head, Full::new(body)))
    }

    async fn send(&self, mut request: Request<Incoming>) -> Result<Response<Incoming>, std::io::Error> {
        let authority = self.upstream.authority().unwrap();
        let stream = TcpStream::connect(authority.as_str()).await?;
        let name = rustls::pki_types::ServerName::try_from(authority.host().to_owned()).unwrap();
        let stream = self.tls.connect(name, stream).await?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        let host = http::HeaderValue::from_str(authority.as_str()).unwrap();
        request.headers_mut().insert(http::header::HOST, host);
        sender.send_request(request).await.map_err(std::io::Error::other)
    }
}

/// As an API server, or a proxy before it, would refuse.
fn refusal(code: u16, retry_after: Option<u64>) -> Answer {
    let status = serde_json::json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": "as the test asked",
    });
    let mut answer = Response::new(Either::Left(Full::from(status.to_string())));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    }
    answer
}

fn connector(ca: &Path) -> tokio_rustls::TlsConnector {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    nightshift::world::install_tls();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Arc::new(config).into()
}
