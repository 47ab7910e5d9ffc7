//! The declaration of an action: the table that `check`, the guards, the docs and the RBAC all read.
//!
//! Invariant: an effect has no default; each action must declare the state that a crash in its middle leaves behind.

use super::Span;
use serde::{Deserialize, Serialize};

/// What may be done when a crash or a lost reply leaves a step open.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    strum::Display,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum Effect {
    /// No effect: perform again.
    Read,
    /// Declarative: perform again, the world converges.
    Converge,
    /// The target de-duplicates by the step's key: perform again with the same key.
    Keyed,
    /// Compare-and-set on a witness read before: changed means it happened, same means do it.
    Witnessed,
    /// Can be checked afterwards: check, then decide.
    Probed,
    /// None of it: stop, a user decides.
    Blind,
}

impl Effect {
    pub const fn name(self) -> &'static str {
        self.into_str()
    }
}

/// How much a call can hurt, from nothing to the whole cluster.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    strum::Display,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Reach {
    /// Changes nothing, or only messages to users.
    #[default]
    None,
    /// One pod, or one container of a Docker engine.
    Pod,
    /// One workload, such as all replicas of a model.
    Workload,
    /// One node and all that runs on it.
    Node,
    /// More than one node.
    Cluster,
}

/// The capacity that a call takes away from serving, computed from its arguments alone; the serving floor counts it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Takes {
    #[default]
    Nothing,
    /// The pods of a node: all that could serve, or only those that hold GPUs.
    Node {
        name: String,
        gpu_only: bool,
    },
    Pod {
        namespace: String,
        name: String,
    },
    /// A workload is left with so many replicas.
    Scale {
        namespace: String,
        name: String,
        to: u32,
    },
    /// A workload replaces its pods, as many at once as its own strategy lets go.
    Rollout {
        namespace: String,
        name: String,
    },
    /// A container of this machine.
    Container {
        name: String,
    },
}

/// The thing that a call is about, from its arguments of the same name: what `Action::target` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    Nothing,
    Node,
    /// A GPU of a node; all of them where the call names none.
    Gpu,
    Pod,
    Workload,
    Container,
}

/// What a call may take from those who serve, with the words for it in a sentence: `draining it` leaves 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    /// Ends no pod; a disruptive action may still keep new ones away.
    Nothing,
    /// A GPU that no process holds, so no replica with it.
    Gpu,
    /// The pods of a node.
    Node(&'static str),
    Pod(&'static str),
    /// The replicas above the number that a workload is scaled to.
    Replicas(&'static str),
    /// As many at once as the workload's own strategy lets go.
    Rollout(&'static str),
    Container(&'static str),
}

impl Capacity {
    /// The words for taking it; empty where no replica goes.
    pub fn doing(self) -> &'static str {
        match self {
            Capacity::Nothing | Capacity::Gpu => "",
            Capacity::Node(doing)
            | Capacity::Pod(doing)
            | Capacity::Replicas(doing)
            | Capacity::Rollout(doing)
            | Capacity::Container(doing) => doing,
        }
    }
}

/// What an action does to a node's place in the scheduler. Kept with each step, so that the store can tell whether a run
/// has cordoned a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheduling {
    Unchanged,
    /// Marks the node unschedulable.
    Cordon,
    /// Removes that mark.
    Uncordon,
    /// Keeps pods away, or moves them, by other means.
    Withdraw,
    /// Ends that.
    Return,
}

impl Scheduling {
    /// Whether it only gives the node back.
    pub fn gives_back(self) -> bool {
        matches!(self, Scheduling::Uncordon | Scheduling::Return)
    }
}

/// When people must agree before a call of it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalNeed {
    /// As the run's mode requires.
    ByMode,
    /// In every mode: there is nothing left to try if it fails.
    LastResort,
    /// The call is itself the question, which the engine puts to people instead of performing anything.
    Requests,
}

/// An action in words. `{target}` is the thing that the call is about, `{details}` its other arguments in brackets, `{call}`
/// the call as a runbook writes it, and any other name in braces the argument of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phrases {
    /// `drain {target}{details}`.
    pub todo: &'static str,
    /// `drained {target}{details}`, for the timeline of an incident; none where the timeline has no line for it: a read, or
    /// a step that the ledger has other entries for.
    pub done: Option<&'static str>,
}

/// The type of a parameter of a runbook or an action. Names of things are validated against the world before use.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
)]
#[strum(const_into_str)]
pub enum ParamType {
    /// The name of an existing node.
    Node,
    /// A GPU of a node: an index, a UUID or a PCI address.
    Gpu,
    /// `namespace/name` of an existing pod.
    Pod,
    /// `namespace/name` of an existing Deployment or StatefulSet.
    Workload,
    Namespace,
    /// The served name of a model.
    Model,
    /// A text such as `30m`.
    Duration,
    String,
    /// A query of Prometheus. It comes from a rule, a header or a user, never from an event.
    Query,
    Int,
    Float,
    Bool,
    /// Any JSON value.
    Any,
}

impl ParamType {
    /// Every type, in the order of the documentation.
    pub const NAMES: &'static [&'static str] = <ParamType as strum::VariantNames>::VARIANTS;

    /// The type's name in a runbook's header.
    pub fn name(self) -> &'static str {
        self.into_str()
    }

    /// The type of this name; none where no type has it. The inverse of [`ParamType::name`].
    pub fn from_name(name: &str) -> Option<ParamType> {
        name.parse().ok()
    }
}

/// One parameter of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamSpec {
    pub name: &'static str,
    pub ty: ParamType,
    pub required: bool,
    pub doc: &'static str,
}

/// A right on the Kubernetes API that an action needs; the source of the generated RBAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission {
    /// The API group; empty for core.
    pub group: &'static str,
    pub resource: &'static str,
    pub verb: &'static str,
}

impl Permission {
    /// One right in Kubernetes' RBAC: `verb` on `resource` of the API group.
    pub const fn new(group: &'static str, resource: &'static str, verb: &'static str) -> Permission {
        Permission { group, resource, verb }
    }

    /// Whether it changes something. A watch is a read that goes on, and a review is a question that is sent by `create`.
    pub fn writes(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch") && self.group != "authentication.k8s.io"
    }

    /// Whether it is given in one namespace alone, the one that the configuration names for Jobs: who may make a Job
    /// anywhere may do anything there.
    pub fn home(&self) -> bool {
        self.group == "batch" || self.resource == "pods/log"
    }

    /// The line to add under `rules:` of a role.
    pub fn rule(&self) -> String {
        format!("- {{apiGroups: [\"{}\"], resources: [\"{}\"], verbs: [\"{}\"]}}", self.group, self.resource, self.verb)
    }
}

/// The declaration of one action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionSpec {
    /// The Rhai name, audit name and docs heading: `k8s::cordon`.
    pub name: &'static str,
    /// One line for the reference.
    pub doc: &'static str,
    /// Positional parameters, required ones first.
    pub params: &'static [ParamSpec],
    /// Keys of a trailing `#{…}` map; empty: no such map is taken.
    pub options: &'static [ParamSpec],
    /// The value that the script receives, in words.
    pub returns: &'static str,
    pub effect: Effect,
    pub reach: Reach,
    /// Takes serving capacity away: counted by the blast radius and serialised per node.
    pub disruptive: bool,
    pub target: TargetKind,
    pub takes: Capacity,
    pub scheduling: Scheduling,
    pub approval: ApprovalNeed,
    pub phrases: Phrases,
    pub permissions: &'static [Permission],
    /// The action that reverses it, where one does.
    pub undo: Option<&'static str>,
    /// After this long a begun effect is surely over; a successor settles the step only then.
    pub deadline: Span,
}

impl ActionSpec {
    /// Whether it leaves a trace in the world.
    pub fn mutates(&self) -> bool {
        self.effect != Effect::Read
    }
}
