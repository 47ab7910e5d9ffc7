//! `cache::status`: how much of a model's files is in a node's memory.
//!
//! Invariant: reads headers and the kernel's counts only; nothing is brought into memory.

use super::declare::*;
use super::on_node::AgentReadAction;
use super::{args, rights};

pub(super) static CACHE_STATUS: AgentReadAction = AgentReadAction { spec: &SPEC };

static SPEC: ActionSpec = ActionSpec {
    name: "cache::status",
    doc: "Reads from the node's agent how much of a model's files is in memory, and whether headers and sizes are right.",
    params: &[args::NODE, args::MODEL_PATH],
    options: &[],
    returns: "#{path, files, bytes, resident: 0.0 to 1.0, sound, flaws: [#{file, what}], missing: [#{file, bytes, resident}], …}",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Node,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "read the cached weights on {target}", done: None },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};
