//! Watches: a list, then each change that the API server sends, resumed by version after a break.
//!
//! Invariant: a consumer receives every object that exists and every one that went, whatever broke in between; a watch
//! that keeps breaking is opened ever more rarely, at times that no two watches share.

use super::answer::{KubeRequest, not_yet, refusal, unanswered};
use super::fleet::version;
use super::wire::{EventWire, NodeWire, PodWire, WatchLine};
use super::{EventSeen, KubeClient, LeaseSeen, NodeSeen, PodSeen, wire};
use crate::clock::Clock;
use crate::limits;
use crate::policy::backoff;
use crate::world::WorldError;
use http::Request;
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::time::Duration;

/// An event of a watch.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent<T> {
    /// A list begins: an object that is not named before `Whole` no longer exists.
    Restart,
    /// It is there, like this.
    Is(T),
    Gone(T),
    /// The list is complete; from here on each change is sent.
    Whole,
    /// Nothing new, but the watch lives.
    Alive,
    /// It broke, and is taken up again after a while.
    Broken(WorldError),
}

/// The watched resource, also in the words of RBAC.
struct WatchTarget {
    asked: KubeRequest<'static>,
    path: &'static str,
    filter: &'static str,
    most: usize,
}

const NODES: WatchTarget = WatchTarget {
    asked: KubeRequest::new("watch", "", "nodes", ""),
    path: "/api/v1/nodes",
    filter: "",
    most: limits::NODES as usize,
};
const PODS: WatchTarget = WatchTarget {
    asked: KubeRequest::new("watch", "", "pods", ""),
    path: "/api/v1/pods",
    filter: "",
    most: limits::PODS,
};
const WARNINGS: WatchTarget = WatchTarget {
    asked: KubeRequest::new("watch", "", "events", ""),
    path: "/api/v1/events",
    filter: "fieldSelector=type%3DWarning",
    most: limits::PODS,
};

/// How one stretch of a watch ended.
enum WatchEnd {
    /// The server closed it, as it does every few minutes.
    Closed,
    /// 410: changes since our version are forgotten, so everything is listed again.
    TooOld,
    Failed(WorldError),
}

impl KubeClient {
    /// Follows the nodes, for the guards' memory and for `tell`. Ends only by being dropped.
    pub async fn watch_nodes(
        &self,
        clock: &dyn Clock,
        tell: &mut (dyn FnMut(WatchEvent<NodeSeen>) + Send),
    ) -> Infallible {
        let mut listing: Option<(crate::model::Time, Vec<super::Node>)> = None;
        let mut told = |told: WatchEvent<NodeSeen>, list_version: &str| {
            let now = clock.now();
            match &told {
                WatchEvent::Restart => listing = Some((now, Vec::new())),
                WatchEvent::Is(seen) => match &mut listing {
                    Some((_, nodes)) => nodes.push(seen.node.slim(self.fleet.kept())),
                    None => self.fleet.changed(&seen.node, now),
                },
                WatchEvent::Gone(seen) => self.fleet.gone(&seen.node.name, now),
                WatchEvent::Whole => {
                    if let Some((began, nodes)) = listing.take() {
                        self.fleet.listed(nodes.iter(), version(list_version), began);
                    }
                }
                WatchEvent::Alive => self.fleet.alive(now),
                WatchEvent::Broken(error) => self.fleet.broken(error.to_string(), now),
            }
            tell(told);
        };
        self.follow::<NodeWire, NodeSeen>(&NODES, clock, &mut told).await
    }

    /// Follows the pods of the cluster, and calls `tell` with each change. Never returns.
    pub async fn watch_pods(
        &self,
        clock: &dyn Clock,
        tell: &mut (dyn FnMut(WatchEvent<PodSeen>) + Send),
    ) -> Infallible {
        self.follow::<PodWire, PodSeen>(&PODS, clock, &mut |told, _| tell(told)).await
    }

    /// Kubernetes' own events of type Warning.
    pub async fn watch_warnings(
        &self,
        clock: &dyn Clock,
        tell: &mut (dyn FnMut(WatchEvent<EventSeen>) + Send),
    ) -> Infallible {
        self.follow::<EventWire, EventSeen>(&WARNINGS, clock, &mut |told, _| tell(told)).await
    }

    /// The heartbeats of all kubelets. Listed, not watched: a watch would receive each beat of each node.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses.
    pub async fn leases(&self) -> Result<Vec<LeaseSeen>, WorldError> {
        let asked = KubeRequest::new("list", "coordination.k8s.io", "leases", "").within("kube-node-lease");
        let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        self.list::<wire::LeaseWire, LeaseSeen>(asked, path, "", limits::NODES as usize).await
    }

    /// Since when there is no watch of the nodes, and why; none while there is one, or none is needed.
    pub fn trouble(&self) -> Option<(crate::model::Time, String)> {
        self.fleet.trouble()
    }

    async fn follow<W, T>(
        &self,
        watched: &WatchTarget,
        clock: &dyn Clock,
        tell: &mut (dyn FnMut(WatchEvent<T>, &str) + Send),
    ) -> Infallible
    where
        W: DeserializeOwned + Into<T> + Send,
        T: Send,
    {
        let seed = version(&format!("{}", self.manager.len())) ^ (std::ptr::from_ref(&*self.fleet) as usize as u64);
        let (mut failures, mut relists) = (0_u32, 0_u32);
        loop {
            tell(WatchEvent::Restart, "");
            let list = watched.asked.with_verb("list");
            let mut each = |item: W| tell(WatchEvent::Is(item.into()), "");
            let listed = self.pages::<W>(list, watched.path, watched.filter, watched.most, &mut each).await;
            let mut from = match listed {
                Ok(from) => from,
                Err(error) => {
                    failures += 1;
                    tell(WatchEvent::Broken(error.clone()), "");
                    pause(clock, failures, &error, seed).await;
                    continue;
                }
            };
            tell(WatchEvent::Whole, &from);
            loop {
                let began = clock.monotonic();
                let ended = self.stretch::<W, T>(watched, &mut from, tell).await;
                let lasted = clock.monotonic().saturating_sub(began);
                if lasted >= limits::WATCH_SETTLED {
                    (failures, relists) = (0, 0);
                }
                match ended {
                    WatchEnd::Closed if lasted >= limits::WATCH_SETTLED => {}
                    WatchEnd::Closed => {
                        failures += 1;
                        let wait = backoff(failures, limits::WATCH_AGAIN, limits::WATCH_BACKOFF_MAX, seed);
                        clock.sleep_for(wait).await;
                    }
                    WatchEnd::TooOld => {
                        relists += 1;
                        let wait = backoff(relists, limits::RELIST_FIRST, limits::WATCH_BACKOFF_MAX, seed);
                        tell(WatchEvent::Broken(WorldError::Unavailable("its version is too old".to_owned())), "");
                        clock.sleep_for(wait).await;
                        break;
                    }
                    WatchEnd::Failed(error) => {
                        failures += 1;
                        tell(WatchEvent::Broken(error.clone()), "");
                        pause(clock, failures, &error, seed).await;
                    }
                }
            }
        }
    }

    /// One request: until the server closes it, falls silent, or reports that our version is forgotten.
    async fn stretch<W, T>(
        &self,
        watched: &WatchTarget,
        from: &mut String,
        tell: &mut (dyn FnMut(WatchEvent<T>, &str) + Send),
    ) -> WatchEnd
    where
        W: DeserializeOwned + Into<T> + Send,
    {
        let asked = watched.asked;
        let mut path = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
            watched.path,
            limits::WATCH_STRETCH.as_secs(),
            super::escape(from)
        );
        if !watched.filter.is_empty() {
            path.push('&');
            path.push_str(watched.filter);
        }
        let mut body = match self.open(&asked, path).await {
            Ok(Some(body)) => body,
            Ok(None) => return WatchEnd::TooOld,
            Err(error) => return WatchEnd::Failed(error),
        };
        tell(WatchEvent::Alive, "");
        let mut held: Vec<u8> = Vec::new();
        loop {
            let frame = match tokio::time::timeout(limits::WATCH_SILENCE, body.frame()).await {
                // Bookmarks come each minute, so the other end of this connection is gone.
                Err(_) => {
                    let seconds = limits::WATCH_SILENCE.as_secs();
                    return WatchEnd::Failed(WorldError::Unavailable(format!("{asked}: silent for {seconds} s")));
                }
                Ok(None) => return WatchEnd::Closed,
                Ok(Some(Err(error))) => {
                    return WatchEnd::Failed(WorldError::Unavailable(format!("{asked}: the watch broke off: {error}")));
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            held.extend_from_slice(&data);
            let mut begin = 0;
            while let Some(length) = held[begin..].iter().position(|byte| *byte == b'\n') {
                let line = &held[begin..begin + length];
                begin += length + 1;
                if line.is_empty() {
                    continue;
                }
                if let Err(ended) = read_line::<W, T>(&asked, line, from, tell) {
                    return ended;
                }
            }
            held.drain(..begin);
            if held.len() > limits::WATCH_LINE_BYTES {
                return WatchEnd::Failed(WorldError::Invalid(format!("{asked}: a line without an end")));
            }
        }
    }

    /// The stream of a watch; `None` where the server answers at once that our version is too old.
    async fn open(&self, asked: &KubeRequest<'_>, path: String) -> Result<Option<Body>, WorldError> {
        let request = Request::get(path)
            .header(http::header::ACCEPT, "application/json")
            .body(Body::empty())
            .map_err(|error| WorldError::Invalid(format!("{asked}: {error}")))?;
        let client = self.link.client().await?;
        let sent = tokio::time::timeout(limits::KUBE_TIMEOUT, client.send(request)).await;
        let answer = match sent {
            Ok(answer) => answer.map_err(|error| unanswered(asked, &error)),
            Err(_) => Err(WorldError::Unavailable(format!("{asked}: no answer"))),
        };
        let (head, body) = answer.inspect_err(|error| self.note_away(error))?.into_parts();
        self.note_date(&head.headers);
        if head.status.is_success() {
            return Ok(Some(body));
        }
        if head.status == http::StatusCode::GONE {
            return Ok(None);
        }
        let said = tokio::time::timeout(limits::KUBE_TIMEOUT, Limited::new(body, limits::HTTP_BODY_BYTES).collect());
        let bytes = said.await.ok().and_then(Result::ok).map(|bytes| bytes.to_bytes()).unwrap_or_default();
        let not_yet = not_yet(asked, head.status, &bytes).filter(|_| self.was_away());
        Err(not_yet.unwrap_or_else(|| refusal(asked, head.status, &head.headers, &bytes)))
    }
}

/// One line: `{"type": "MODIFIED", "object": {…}}`.
fn read_line<W, T>(
    asked: &KubeRequest<'_>,
    line: &[u8],
    from: &mut String,
    tell: &mut (dyn FnMut(WatchEvent<T>, &str) + Send),
) -> Result<(), WatchEnd>
where
    W: DeserializeOwned + Into<T>,
{
    let odd = |error: serde_json::Error| {
        WatchEnd::Failed(WorldError::Unavailable(format!("{asked}: a line is not a valid watch event: {error}")))
    };
    let head: WatchLine<wire::VersionedObject> = serde_json::from_slice(line).map_err(odd)?;
    if head.r#type == "ERROR" {
        return match head.object.code {
            410 => Err(WatchEnd::TooOld),
            code => {
                let said: String = head.object.message.chars().take(limits::REASON_CHARS).collect();
                Err(WatchEnd::Failed(WorldError::Unavailable(format!("{asked}: {code}: {said}"))))
            }
        };
    }
    match head.r#type.as_str() {
        "ADDED" | "MODIFIED" => {
            tell(WatchEvent::Is(serde_json::from_slice::<WatchLine<W>>(line).map_err(odd)?.object.into()), "");
        }
        "DELETED" => {
            tell(WatchEvent::Gone(serde_json::from_slice::<WatchLine<W>>(line).map_err(odd)?.object.into()), "")
        }
        _ => tell(WatchEvent::Alive, ""),
    }
    // Only after `tell`: a consumer that panics must receive it again.
    *from = head.object.metadata.resource_version;
    Ok(())
}

/// A right that is missing does not come back in a second; everything else is tried again soon at first.
async fn pause(clock: &dyn Clock, failures: u32, error: &WorldError, seed: u64) {
    let attempt = if matches!(error, WorldError::Forbidden(_)) { u32::MAX } else { failures };
    let wait = backoff(attempt, limits::WATCH_AGAIN, limits::WATCH_BACKOFF_MAX, seed);
    let wait = wait.max(error.after().unwrap_or(Duration::ZERO)).min(limits::WATCH_BACKOFF_MAX);
    clock.sleep_for(wait).await;
}
