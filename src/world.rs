//! The clients that an action may use: the only code that opens a socket to an object that it reads or changes.
//!
//! Invariant: nothing here decides or retries on its own; an answer, a refusal or a silence is returned as it came.

mod agents;
mod docker;
mod facts;
mod gate;
mod http;
mod inference;
mod kill;
mod kube;
mod mig;
mod prometheus;
mod rights;
mod serving;
mod socket;

pub use agents::{AgentMailbox, AgentSeen};
pub use docker::{DockerClient, DockerConfig, DockerContainer};
pub use facts::{CORDONED_BY, CordonState, NO_OWNER, OPT_OUT, cordon, cordon_mark};
pub use gate::KillSwitchGate;
pub use http::{HttpAnswer, HttpClient, HttpRequest, HttpSecret, SecretHeader, SecretHeaders, built, wrong_host};
pub use inference::{
    EngineKind, EngineLimits, EngineLook, EnginePoint, EngineReadError, EngineSignal, EngineTarget, METRICS_PORT,
    PROBE_LABEL, PROBE_PORT, ProbeConfig, ProbedEngines, SignalGroup, TRAFFIC_TAKEN_BY, TokenProbeResult,
    engine_signals,
};
pub use kill::{ConfigMapName, KillSwitch, KillSwitchConfig};
pub use kube::{
    ApiHealth, CacheJob, ConditionSeen, ContainerSeen, DisruptionBudget, EngineLease, EventNote, EventSeen,
    EvictAnswer, Job, JobPod, KubeClient, KubeConfig, LeaseSeen, NIGHTSHIFT_CONDITION, Node, NodeSeen, Pod, PodSeen,
    ReviewedToken, TrafficSelector, WaitingPod, WatchEvent, Workload,
};
pub use mig::{MigAround, MigInventory, MigWish, mig_demand, mig_node, mig_plan, mig_waiting};
pub use nightshift_runtime::{NO_AUTHORITIES, install_tls};
pub use nightshift_sim as sim;
pub use prometheus::{PromSample, PrometheusClient};
pub use rights::{OWN_RIGHTS, OwnRight};
pub use serving::SERVING_FLOOR;
pub use socket::{SocketFrame, WebSocketClient};

use crate::clock::Clock;
use crate::model::{CapacityLoss, FailureKind, StepFailure, Subject};
pub use crate::policy::MigPlan;
use crate::policy::{GuardLimits, NodeGroup, WorldFacts};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The error of a request to the world.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    #[error("{0} is not there")]
    NotFound(String),
    /// A precondition (resourceVersion, uid) did not hold, or the object exists already.
    #[error("conflict: {0}")]
    Conflict(String),
    /// Names the right that is missing, as in RBAC: `patch nodes`.
    #[error("forbidden: {0}")]
    Forbidden(String),
    #[error("invalid: {0}")]
    Invalid(String),
    /// 429: a limit or a disruption budget; `after` if the target sent a time.
    #[error("refused for now: {why}")]
    TooMany { why: String, after: Option<std::time::Duration> },
    /// No connection: nothing was sent, so nothing happened.
    #[error("not reached: {0}")]
    Unreached(String),
    /// No answer, or 5xx: it may or may not have happened.
    #[error("no answer: {0}")]
    Unavailable(String),
}

impl WorldError {
    /// As a step's failure, once retries are used up.
    pub fn failure(&self) -> StepFailure {
        let kind = match self {
            WorldError::NotFound(_) => FailureKind::NotFound,
            WorldError::Conflict(_) => FailureKind::Conflict,
            WorldError::Forbidden(_) => FailureKind::Forbidden,
            WorldError::Invalid(_) => FailureKind::Invalid,
            WorldError::TooMany { .. } | WorldError::Unreached(_) | WorldError::Unavailable(_) => {
                FailureKind::Unavailable
            }
        };
        StepFailure::new(kind, self.to_string())
    }

    /// Whether asking again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, WorldError::TooMany { .. } | WorldError::Unreached(_) | WorldError::Unavailable(_))
    }

    /// The wait that the target requested, if it did.
    pub fn after(&self) -> Option<std::time::Duration> {
        match self {
            WorldError::TooMany { after, .. } => *after,
            _ => None,
        }
    }
}

/// All clients. Built by `cli::serve` (and tests) alone.
#[derive(Clone)]
pub struct World {
    /// By cluster name; the first is the default.
    pub clusters: BTreeMap<String, KubeClient>,
    pub default_cluster: String,
    pub prometheus: Option<PrometheusClient>,
    pub http: HttpClient,
    /// The Docker engine of this machine, where one is configured.
    pub docker: Option<DockerClient>,
    /// Connections to the agents, which act on the nodes themselves.
    pub agents: AgentMailbox,
    /// The inference engines that the configuration names.
    pub engines: ProbedEngines,
    pub clock: Arc<dyn Clock>,
    /// Stops everything, whatever is in the store.
    pub kill: Arc<KillSwitch>,
    /// `nightshift/<install>`: field manager, annotation values, user agent.
    pub identity: String,
}

impl World {
    /// The cluster that a subject or call names, or the default one.
    ///
    /// # Errors
    ///
    /// Fails with [`WorldError::Invalid`] when no cluster of this name is configured.
    pub fn kube(&self, cluster: Option<&str>) -> Result<&KubeClient, WorldError> {
        let name = cluster.unwrap_or(&self.default_cluster);
        self.clusters.get(name).ok_or_else(|| {
            WorldError::Invalid(format!(
                "no cluster `{name}` is configured; add it under `clusters:` in the configuration"
            ))
        })
    }

    /// The Docker engine.
    ///
    /// # Errors
    ///
    /// Fails with [`WorldError::Invalid`] when none is configured; the message has the key to add.
    pub fn docker(&self) -> Result<&DockerClient, WorldError> {
        self.docker.as_ref().ok_or_else(|| {
            WorldError::Invalid(
                "no Docker engine is configured; add `docker: {}` to the configuration of the engine on that machine"
                    .to_owned(),
            )
        })
    }

    /// The same clients for a run about another cluster: a call without a cluster means that one. A cluster that is not
    /// configured is never mistaken for the default one; then every call fails with that reason.
    pub fn within(&self, cluster: Option<&str>) -> World {
        let default_cluster = cluster.filter(|name| !name.is_empty()).unwrap_or(&self.default_cluster).to_owned();
        let agents = self.agents.within(&default_cluster);
        World { default_cluster, agents, ..self.clone() }
    }

    /// The same clients for the reads before one step: a node that the guards have read is not read again for the
    /// precondition.
    pub fn noting(&self) -> World {
        let clusters = self.clusters.iter().map(|(name, kube)| (name.clone(), kube.noting())).collect();
        World { clusters, ..self.clone() }
    }

    /// The same clients, which return the reads that were noted and note nothing more: for the first performance of
    /// that step.
    pub fn handing_on(&self) -> World {
        let clusters = self.clusters.iter().map(|(name, kube)| (name.clone(), kube.handing_on())).collect();
        World { clusters, ..self.clone() }
    }

    /// The same clients for a step that acts: each request that changes something passes the gate before it is sent.
    pub fn gated(&self) -> (World, KillSwitchGate) {
        let outside = self.clone();
        let gate = KillSwitchGate::new(move || outside.stopped());
        let clusters = self.clusters.iter().map(|(name, kube)| (name.clone(), kube.gated(&gate))).collect();
        let (http, agents) = (self.http.gated(&gate), self.agents.gated(&gate));
        let docker = self.docker.as_ref().map(|docker| docker.gated(&gate));
        (World { clusters, http, agents, docker, ..self.clone() }, gate)
    }

    /// Why everything is stopped from outside the store, if it is: the kill switch, or another engine acts on the cluster
    /// that is meant where none is named.
    pub fn stopped(&self) -> Option<String> {
        self.kill.engaged(self.running()).or_else(|| self.kube(None).ok()?.only_watched())
    }

    /// By which the kill switch judges how old a reading is.
    pub(in crate::world) fn running(&self) -> std::time::Duration {
        if crate::planted::planted("kill-switch-age-by-wall-clock") {
            return std::time::Duration::from_micros(self.clock.wall().as_microsecond().unsigned_abs());
        }
        self.clock.monotonic()
    }

    /// The clusters whose nodes cannot be watched now: since when, and why.
    pub fn lost_clusters(&self) -> BTreeMap<String, (crate::model::Time, String)> {
        let lost = self.clusters.iter().filter_map(|(name, kube)| Some((name.clone(), kube.trouble()?)));
        lost.collect()
    }

    /// How many GPU nodes the first cluster has and which are out of service: the same count as the guards', for users.
    pub async fn fleet(&self) -> WorldFacts {
        facts::fleet(self).await
    }

    /// Adds to the facts the replicas in service that a call would take.
    pub async fn serving(
        &self,
        target: &Subject,
        takes: &CapacityLoss,
        limits: &GuardLimits,
        facts: WorldFacts,
    ) -> WorldFacts {
        match serving::read(self, target, takes, limits).await {
            Ok(serving) => WorldFacts { serving, ..facts },
            Err(error) => WorldFacts { serving_unread: Some(error.to_string()), ..facts },
        }
    }

    /// Racks, links and pools of the first cluster, with the nodes of each that are out: as the guards count them, for
    /// users.
    pub async fn groups(&self) -> Vec<NodeGroup> {
        facts::groups(self).await
    }

    /// The facts about a target that the guards need, read live. Never fails: a fact that cannot be read is left
    /// unknown.
    pub async fn facts(&self, target: &Subject) -> WorldFacts {
        facts::read(self, target).await
    }
}
