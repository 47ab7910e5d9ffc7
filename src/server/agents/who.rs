//! The node of a request: by a certificate of our authority, or by a ServiceAccount token that Kubernetes accepts.
//!
//! Invariant: a `Speaker` names the node that proof names; a review is remembered by the token's hash for a minute, and only
//! if it was good.

use crate::agent::CLUSTER_HEADER;
use crate::limits;
use crate::model::{AgentName, EventStatus, Finding, Severity, Time};
use crate::planted::planted;
use crate::server::{App, Problem};
use crate::sources::agent as source;
use crate::store::{AgentIdentity, AgentProof, BatchOrigin, EventBatch, NewAgent};
use crate::world::{KubeClient, ReviewedToken, WorldError};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedSemaphorePermit;

/// The result of this connection's TLS handshake: a certificate of our authority, if one was shown.
#[derive(Debug, Clone, Default)]
pub struct PeerCertificate(pub Option<AgentCertificate>);

/// The certificate's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCertificate {
    pub name: AgentName,
    pub family: String,
    /// Counts the renewals since it joined.
    pub generation: u64,
}

/// A connection that has shown no certificate has one of a few places until a request on it proves a token.
#[derive(Debug, Clone, Default)]
pub struct UnprovenPeer(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl UnprovenPeer {
    /// A connection without an identity yet, which holds a place among `AGENT_STRANGERS`.
    pub fn holding(place: OwnedSemaphorePermit) -> UnprovenPeer {
        UnprovenPeer(Arc::new(Mutex::new(Some(place))))
    }

    fn is_proven(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Returns once the connection has had its time and nothing on it was proven.
    pub async fn overdue(&self) {
        tokio::time::sleep(limits::AGENT_STRANGER_LIFE).await;
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// An agent, for the length of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCaller {
    /// Its cluster is the one whose API server vouched, or the certificate's.
    pub agent: NewAgent,
}

/// A token's hash, and the cluster that reviewed it.
type ReviewKey = ([u8; 32], String);

/// Good reviews of the last minute: → (node, until).
#[derive(Default)]
pub struct TokenReviewCache(Mutex<HashMap<ReviewKey, (String, Time)>>);

impl FromRequestParts<App> for AgentCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<AgentCaller, Problem> {
        if let Some(PeerCertificate(Some(shown))) = parts.extensions.get::<PeerCertificate>() {
            return by_certificate(app, shown).await;
        }
        let Some(token) = bearer(&parts.headers) else {
            app.parts.metrics.auth_failed();
            return Err(unknown("neither a certificate nor a token came with the request"));
        };
        // Only a hint at the cluster to query: that cluster's own review of the token counts.
        let cluster = parts.headers.get(CLUSTER_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let speaker = by_token(app, token, cluster).await.inspect_err(|_| app.parts.metrics.auth_failed())?;
        if let Some(stranger) = parts.extensions.get::<UnprovenPeer>() {
            stranger.is_proven();
        }
        Ok(speaker)
    }
}

impl AgentCaller {
    /// Whether its certificate is good at this moment. Checked again once a body has arrived: it may have been taken
    /// away meanwhile. Of two holders of one identity the one that shows an older certificate is refused, loudly.
    pub(super) async fn confirm(&self, app: &App) -> Result<(), Problem> {
        let agent = &self.agent;
        if agent.how != AgentProof::Certificate || planted("removed-agent-comes-back") {
            return Ok(());
        }
        let identity = app.parts.store.agent_identity(&agent.name).await;
        let identity = identity.map_err(|_| Problem::busy("the store is busy"))?;
        let Some(identity) = identity.filter(|identity| identity.family == agent.family) else {
            app.parts.metrics.auth_failed();
            let why = format!("the certificate of node {} was revoked, or another agent has joined for it", agent.name);
            if !planted("dead-certificate-untold") {
                // It is still in use: a node that was sold, a disk that was copied, an agent with its old folder.
                let who = format!("agent {}", agent.name);
                app.witness
                    .refused(app, &who, "a request with a certificate that is not valid any more", "", &why)
                    .await;
            }
            return Err(unknown(why));
        };
        let now = app.parts.clock.now();
        if agent.generation > identity.used {
            let used = app.parts.store.agent_used(agent.clone(), now).await;
            return used.map_err(|_| Problem::busy("the store is busy"));
        }
        let lately = now < identity.used_since + limits::AGENT_CERTIFICATES_OVERLAP
            && now + limits::AGENT_CERTIFICATES_OVERLAP > identity.used_since;
        if agent.generation == identity.used || lately {
            return Ok(());
        }
        app.parts.metrics.auth_failed();
        tell_of_older(app, agent, &identity, now).await;
        Err(unknown(format!(
            "node {} has shown a newer certificate (generation {}) since {}, and this one is of generation {}: either its \
             agent was restored from a copy, or another sender has its key",
            agent.name, identity.used, identity.used_since, agent.generation
        )))
    }
}

/// Two senders have one identity: an incident, once in a while.
async fn tell_of_older(app: &App, agent: &NewAgent, identity: &AgentIdentity, now: Time) {
    {
        let mut older = app.agents.older.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = older.get(&agent.name).is_some_and(|at| now >= *at && now < *at + limits::AGENT_OLDER_SAID);
        if lately {
            return;
        }
        if older.len() >= limits::NODES as usize {
            older.clear();
        }
        older.insert(agent.name.clone(), now);
    }
    let node = &agent.name.node;
    let finding = Finding {
        complaint: "agent-certificate-reused".to_owned(),
        status: EventStatus::Firing,
        at: now,
        severity: Severity::Critical,
        gpu: None,
        labels: [("alertname".to_owned(), source::CERTIFICATE_REUSED.to_owned())].into(),
        summary: format!(
            "two senders use the identity of the agent on {}: a certificate of generation {} was shown after one of \
             generation {}",
            agent.name, agent.generation, identity.used
        ),
        detail: format!(
            "If the agent's folder was not restored from a copy, its key was taken: `nightshift agents remove {node}`, then \
             join again."
        ),
    };
    tracing::error!(agent = %agent.name, shown = agent.generation, newest = identity.used, "{}", finding.summary);
    let batch = EventBatch {
        source: source::SOURCE.to_owned(),
        events: source::about(finding, &agent.name).into_iter().collect(),
        gaps: Vec::new(),
        rules: (app.current)().rules.clone(),
        now,
        origin: BatchOrigin::of_kind(BatchOrigin::AGENT),
    };
    match app.parts.store.intake(batch).await {
        Ok(_) => app.parts.nudge.nudge(),
        Err(error) => tracing::error!(%error, "cannot store the alert about two senders with one identity"),
    }
}

async fn by_certificate(app: &App, shown: &AgentCertificate) -> Result<AgentCaller, Problem> {
    let AgentCertificate { name, family, generation } = shown.clone();
    let speaker = AgentCaller { agent: NewAgent { name, how: AgentProof::Certificate, family, generation } };
    speaker.confirm(app).await?;
    Ok(speaker)
}

async fn by_token(app: &App, token: &str, cluster: &str) -> Result<AgentCaller, Problem> {
    let accounts = &app.parts.config.agents.service_accounts;
    if accounts.is_empty() {
        return Err(unknown("no ServiceAccounts are listed under `agents.service_accounts`"));
    }
    let world = &app.parts.world;
    let cluster = if cluster.is_empty() { &world.default_cluster } else { cluster };
    let now = app.parts.clock.now();
    let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    let asked = (hash, cluster.to_owned());
    let reviews = &app.agents.reviews;
    let node = match reviews.node(&asked, now) {
        Some(node) => node,
        None => {
            let kube = world.kube(Some(cluster)).map_err(|error| unknown(error.to_string()))?;
            let reviewed = kube.review_token(token, &app.parts.config.agents.audience).await;
            let reviewed = reviewed.map_err(unreviewed)?.ok_or_else(|| {
                unknown(format!(
                    "Kubernetes (cluster `{cluster}`) does not vouch for this token (audience `{}`){}",
                    app.parts.config.agents.audience,
                    if world.clusters.len() > 1 {
                        "; an agent of another cluster needs `cluster` in its agent.yaml"
                    } else {
                        ""
                    }
                ))
            })?;
            let allowed = accounts.iter().filter_map(|account| account.split_once('/'));
            let mut users = allowed.map(|(space, name)| format!("system:serviceaccount:{space}:{name}"));
            if !users.any(|user| user == reviewed.user) {
                return Err(unknown(format!("`{}` is not listed under `agents.service_accounts`", reviewed.user)));
            }
            let node = node_of(kube, &reviewed).await?;
            reviews.remember(asked, node.clone(), now);
            node
        }
    };
    let agent =
        NewAgent { name: AgentName::new(cluster, &node), how: AgentProof::Token, family: String::new(), generation: 0 };
    Ok(AgentCaller { agent })
}

/// The node that the token is bound to; an older API server names only the pod.
async fn node_of(kube: &KubeClient, reviewed: &ReviewedToken) -> Result<String, Problem> {
    if !reviewed.node.is_empty() {
        return Ok(reviewed.node.clone());
    }
    let Some((namespace, name)) = &reviewed.pod else {
        return Err(unknown("the token is bound to no pod: mount it as a projected volume"));
    };
    let pod = kube.pod(namespace, name).await.map_err(unreviewed)?;
    if pod.node.is_empty() { Err(unknown(format!("pod {namespace}/{name} is on no node"))) } else { Ok(pod.node) }
}

impl TokenReviewCache {
    fn node(&self, asked: &ReviewKey, now: Time) -> Option<String> {
        let reviews = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (node, until) = reviews.get(asked)?;
        // A clock that was set back must not make it last.
        let lasts = now < *until && *until <= now + limits::REVIEW_KEPT;
        lasts.then(|| node.clone())
    }

    fn remember(&self, asked: ReviewKey, node: String, now: Time) {
        let mut reviews = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reviews.len() >= limits::NODES as usize {
            reviews.retain(|_, (_, until)| now < *until);
        }
        if reviews.len() < limits::NODES as usize {
            reviews.insert(asked, (node, now + limits::REVIEW_KEPT));
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    text.strip_prefix("Bearer ").map(str::trim).filter(|token| !token.is_empty())
}

pub(super) fn unknown(why: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, why, "see `nightshift agents --help` for the auth methods of agents")
}

/// Kubernetes did not answer: that is no proof against the agent.
fn unreviewed(error: WorldError) -> Problem {
    tracing::warn!(%error, "cannot check an agent's token");
    Problem::busy("Kubernetes could not review the token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_is_forgotten_after_a_minute_and_when_the_clock_goes_back() {
        let reviews = TokenReviewCache::default();
        let now = Time::from_second(1_000_000).unwrap();
        let asked = ([1; 32], "eu-1".to_owned());
        reviews.remember(asked.clone(), "gpu-1".to_owned(), now);
        assert_eq!(reviews.node(&asked, now).as_deref(), Some("gpu-1"));
        assert_eq!(reviews.node(&([2; 32], "eu-1".to_owned()), now), None);
        assert_eq!(reviews.node(&([1; 32], "us-1".to_owned()), now), None, "another cluster has not said so");
        assert_eq!(reviews.node(&asked, now + limits::REVIEW_KEPT), None);
        assert_eq!(reviews.node(&asked, now - std::time::Duration::from_secs(3_600)), None);
    }
}
