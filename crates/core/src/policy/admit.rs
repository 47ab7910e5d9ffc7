//! May this step begin? The guards in order, over the levels that the store read in the same transaction.
//!
//! Invariant: pure; an unknown level is a hold, never an allow. Undo passes cooldown and budgets but not the kill switch.

mod serving;

pub use serving::{AffectedReplicas, NodeGroup, ReadyReplica, TakenReplica};

use super::guards;
use crate::model::{
    ActionCall, ActionSpec, ApprovalNeed, Breaker, EffectClass, Freeze, GuardDecision, ImpactScope, Mode, Plan, Reason,
    ReasonCode, RunId, SchedulingEffect, Span, Subject, Time,
};
use serde::{Deserialize, Serialize};

/// Limits that a site may set; docs/configuration.md has the defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GuardLimits {
    /// Nodes out of service at once, for any reason: at most this many …
    pub nodes_at_once: u32,
    /// … and at most this share of all GPU nodes (0.05 is 5 %), but never less than one node.
    pub share_at_once: f64,
    /// The share of nodes that our runs may take out of service within an hour.
    pub share_per_hour: f64,
    /// The same within a day.
    pub share_per_day: f64,
    /// From this share of all nodes (and never fewer than `correlated_nodes`) on, one symptom is not the nodes' fault;
    /// 1 and more switches this off.
    pub correlated_share: f64,
    /// Below so many nodes a symptom never counts as shared.
    pub correlated_nodes: u32,
    /// Whether the only node of a site may be taken out of service: a GPU of it may in any case.
    pub only_node: bool,
    /// Users who must agree before a freeze is released; left out: two, where two have the right.
    pub release_persons: Option<u32>,
    /// A plan that touches so many nodes needs two users to approve it; 0: none does.
    pub two_person_nodes: u32,
    /// Objects that no runbook may touch.
    pub protected: ProtectedObjects,
    /// Ready replicas that no step may go below, where the workload's annotation does not set another number.
    pub serving_floor: u32,
    /// A label of pods by which several workloads are one set: they serve the same model.
    pub model_label: Option<String>,
    /// Labels of nodes: those with the same value fail together, so one run at a time disturbs them.
    pub domains: Vec<String>,
    /// Labels of nodes that name their pool, the first one that a node has counts. A limit for all nodes also holds for
    /// those of a pool too.
    pub pools: Vec<String>,
}

/// Objects that no runbook may touch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProtectedObjects {
    /// Nodes by name.
    pub nodes: Vec<String>,
    /// Namespaces whose pods are never moved.
    pub namespaces: Vec<String>,
}

impl Default for GuardLimits {
    fn default() -> Self {
        GuardLimits {
            nodes_at_once: 1,
            share_at_once: 0.05,
            share_per_hour: 0.10,
            share_per_day: 0.20,
            correlated_share: 0.15,
            correlated_nodes: 3,
            only_node: false,
            release_persons: None,
            two_person_nodes: 2,
            protected: ProtectedObjects::default(),
            serving_floor: 1,
            model_label: None,
            domains: DOMAINS.map(str::to_owned).to_vec(),
            pools: POOLS.map(str::to_owned).to_vec(),
        }
    }
}

/// The rack as most sites write it, the NVLink domain as GPU feature discovery does, racks and blocks of NVIDIA's topograph.
const DOMAINS: [&str; 4] = [
    "topology.kubernetes.io/rack",
    "nvidia.com/gpu.clique",
    "network.topology.nvidia.com/accelerator",
    "cloud.google.com/gce-topology-subblock",
];
/// As the usual clouds and provisioners write them.
const POOLS: [&str; 6] = [
    "karpenter.sh/nodepool",
    "eks.amazonaws.com/nodegroup",
    "cloud.google.com/gke-nodepool",
    "kubernetes.azure.com/agentpool",
    "node.kubernetes.io/pool",
    "node-pool",
];

impl GuardLimits {
    /// The labels of nodes that the guards look at.
    pub fn labels(&self) -> Vec<String> {
        self.domains.iter().chain(&self.pools).cloned().collect()
    }

    /// From how many nodes on a symptom counts as shared; none where this is switched off.
    pub fn correlated_limit(&self, total: u32) -> Option<u32> {
        if self.correlated_share.is_nan() || self.correlated_share >= 1.0 {
            return None;
        }
        let share = (self.correlated_share.max(0.0) * f64::from(total)).ceil() as u32;
        Some(share.max(self.correlated_nodes))
    }
}

impl ProtectedObjects {
    /// Refuses names that look like a pattern: they would protect nothing.
    ///
    /// # Errors
    ///
    /// Fails when a name is empty or contains `*` or a space; the message names it.
    pub fn check(&self) -> Result<(), String> {
        let names = self.nodes.iter().chain(&self.namespaces);
        match names.into_iter().find(|name| name.is_empty() || name.contains(['*', ' '])) {
            Some(name) => Err(format!("`{name}` is no whole name; patterns are not known here")),
            None => Ok(()),
        }
    }
}

/// A time at which nothing may be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedWindow {
    pub why: String,
    pub until: Time,
}

/// Facts that the engine read from the live world just before: `None` where the read failed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WorldFacts {
    /// The number of all GPU nodes, and names of those out of service (cordoned or not ready) for any reason.
    pub nodes_total: Option<u32>,
    pub nodes_out: Vec<String>,
    /// Why the target is protected: opt-out label, control plane, the node we run on. In words.
    pub protected: Option<String>,
    /// The other owner of the target node's cordon, if there is one.
    pub foreign_cordon: Option<String>,
    /// Whether the target node bears a cordon of ours; none where no node was read.
    pub our_cordon: Option<bool>,
    /// Why the target could not be read just now: then nothing is known of it, and the step waits.
    pub unread: Option<String>,
    /// The window of the calendar that forbids acting now.
    pub closed: Option<ClosedWindow>,
    /// Why the rule's second signal does not confirm the alert.
    pub unconfirmed: Option<String>,
    /// Why the kill switch outside the store is engaged (its file, its ConfigMap, or that one of them cannot be read).
    pub stopped: Option<String>,
    /// The silence that covers the alert behind the run, or why that could not be read; in words.
    pub silenced: Option<String>,
    /// Sets of replicas that the step takes some from; empty where it takes none.
    pub serving: Vec<AffectedReplicas>,
    /// Why the remaining replicas could not be read.
    pub serving_unread: Option<String>,
    /// The groups that the target node shares with others, by the labels that the guards read.
    pub groups: Vec<NodeGroup>,
    /// When reading began. Nodes whose runs ended since count as out: the names above may be older than that.
    pub read_at: Option<Time>,
}

/// The step to begin.
#[derive(Debug, Clone, PartialEq)]
pub struct StepProposal {
    pub run: RunId,
    pub epoch: i64,
    pub call: ActionCall,
    pub effect: EffectClass,
    pub reach: ImpactScope,
    pub disruptive: bool,
    pub scheduling: SchedulingEffect,
    pub approval: ApprovalNeed,
    /// The words for what it takes from those who serve; empty where it takes nothing.
    pub doing: &'static str,
    pub target: Subject,
    /// Set when this takes back step number so.
    pub undoes: Option<u32>,
    pub deadline: Time,
    /// The witness, read before.
    pub carry: serde_json::Value,
    pub facts: WorldFacts,
}

/// Counts that the store read in the transaction that would begin the step.
impl StepProposal {
    /// The step as its action declares it, with nothing read yet.
    pub fn new(
        spec: &ActionSpec,
        (run, epoch): (RunId, i64),
        call: ActionCall,
        target: Subject,
        now: Time,
    ) -> StepProposal {
        StepProposal {
            run,
            epoch,
            call,
            effect: spec.effect,
            reach: spec.reach,
            disruptive: spec.disruptive,
            scheduling: spec.scheduling,
            approval: spec.approval,
            doing: spec.takes.doing(),
            target,
            undoes: None,
            deadline: now + spec.deadline.0,
            carry: serde_json::Value::Null,
            facts: WorldFacts::default(),
        }
    }
}

/// What the store read in the transaction that would begin the step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GuardInputs {
    pub mode: Mode,
    pub rule: Option<String>,
    pub cooldown: Span,
    /// Zero means no cap, and is only so where no rule is behind the run (a user started it).
    pub attempts_max: u32,
    /// The reach that the runbook's header declares.
    pub declared_reach: ImpactScope,
    pub approved: Option<Plan>,
    pub freezes: Vec<Freeze>,
    /// The run that holds the target's node, if another one does.
    pub node_holder: Option<RunId>,
    /// Nodes that our runs hold now (the target's own hold not counted), for the level at once.
    pub nodes_held: Vec<String>,
    /// Who holds them, as far as their runs are not over, this run not counted.
    pub holders: Vec<(String, RunId)>,
    /// This run holds the target's node.
    pub is_holder: bool,
    /// Replicas that other runs take, or took since the facts were read.
    pub replicas_taken: Vec<TakenReplica>,
    /// Names of the nodes that our runs took in the last day and when, the target not counted.
    pub taken_lately: Vec<(String, Time)>,
    /// Distinct nodes that our runs took in the last hour and day, the target not counted.
    pub nodes_hour: u32,
    pub nodes_day: u32,
    /// When earlier runs of this runbook began acting on this subject, within 24 h, oldest first, this run not counted.
    pub attempts: Vec<Time>,
    /// This run has acted before, so cooldown and attempts are settled.
    pub acted: bool,
    /// This run has cordoned the target node and has not uncordoned it.
    pub cordoned: bool,
    /// Every episode behind the run has ended.
    pub over: bool,
    /// … and until then its incident is kept open: it goes on if the alert fires again before.
    pub kept: Option<Time>,
    /// Tripped breakers whose scope covers the step.
    pub breakers: Vec<Breaker>,
    /// Nodes that runs of the same rule were started about within `SYMPTOM_WINDOW`, since its breaker was reset.
    pub symptom_nodes: u32,
    /// How often the run's alert came back within `FLAP_WINDOW`, and when it last did.
    pub came_back: u32,
    pub came_back_at: Option<Time>,
}

/// The verdict of all guards, first refusal wins: cheap and absolute ones first, budgets last.
pub fn admit(limits: &GuardLimits, levels: &GuardInputs, proposal: &StepProposal, now: Time) -> GuardDecision {
    let asked = GuardCheck { limits, levels, proposal, now };
    guards::ALL.iter().find_map(|guard| guard(&asked)).unwrap_or(GuardDecision::Allow)
}

/// Decides whether a begun step may be performed once more. Its reservation stands; only decisions of users since then
/// count.
pub fn admit_again(limits: &GuardLimits, levels: &GuardInputs, proposal: &StepProposal, now: Time) -> GuardDecision {
    let asked = GuardCheck { limits, levels, proposal, now };
    guards::AGAIN.iter().find_map(|guard| guard(&asked)).unwrap_or(GuardDecision::Allow)
}

/// The input of every guard.
pub(super) struct GuardCheck<'a> {
    pub limits: &'a GuardLimits,
    pub levels: &'a GuardInputs,
    pub proposal: &'a StepProposal,
    pub now: Time,
}

impl GuardCheck<'_> {
    pub(super) fn reads(&self) -> bool {
        self.proposal.effect == EffectClass::Read
    }

    /// Whether it changes more than messages to users. Messages fail open, acts fail closed.
    pub(super) fn acts(&self) -> bool {
        let proposal = self.proposal;
        !self.reads()
            && (proposal.reach > ImpactScope::None || proposal.disruptive || proposal.effect == EffectClass::Blind)
    }

    pub(super) fn undoes(&self) -> bool {
        self.proposal.undoes.is_some()
    }

    /// Whether it only gives a node back.
    pub(super) fn gives_back(&self) -> bool {
        self.proposal.scheduling.gives_back()
    }

    /// Whether it takes the node from the scheduler or gives it back.
    pub(super) fn schedules(&self) -> bool {
        self.proposal.scheduling != SchedulingEffect::Unchanged
    }

    /// Not now; check again after this long.
    pub(super) fn hold(&self, code: ReasonCode, after: Span, text: String) -> Option<GuardDecision> {
        // At the end of time there is no later moment; then it is held until now.
        let until = self.now.checked_add(after.0).unwrap_or(self.now);
        Some(GuardDecision::Hold { reason: Reason::new(code, text), until })
    }

    pub(super) fn deny(&self, code: ReasonCode, text: String) -> Option<GuardDecision> {
        Some(GuardDecision::Deny { reason: Reason::new(code, text) })
    }
}

#[cfg(test)]
mod tests;
