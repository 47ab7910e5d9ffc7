//! A step as it would be proposed to the store: its action's declaration, and the guards' facts about the world.
//!
//! Invariant: a step that begins and one that is only predicted are read in the same way.

use super::EngineParts;
use super::{confirm, own_node};
use crate::actions::Action;
use crate::model::{ActionCall, EffectClass, ImpactScope, Run};
use crate::policy::{StepProposal, WorldFacts};
use crate::world::World;
use std::future::Future;

/// The step as its action declares it, with nothing read yet.
pub(super) fn proposal(
    parts: &EngineParts,
    run: &Run,
    action: &dyn Action,
    call: ActionCall,
    undoes: Option<u32>,
) -> StepProposal {
    let spec = action.spec();
    let mut target = action.target(&call);
    target.cluster = target.cluster.or_else(|| Some(parts.world.default_cluster.clone()));
    target.cluster = target.cluster.filter(|name| !name.is_empty());
    let facts = WorldFacts { stopped: parts.world.stopped(), ..WorldFacts::default() };
    StepProposal { undoes, facts, ..StepProposal::new(spec, (run.id, run.epoch), call, target, parts.clock.now()) }
}

/// The facts that the guards need, read live. `silenced` is read only where it counts.
pub(super) async fn facts(
    parts: &EngineParts,
    world: &World,
    run: &Run,
    action: &dyn Action,
    proposal: &StepProposal,
    silenced: impl Future<Output = Option<String>>,
) -> WorldFacts {
    let facts = proposal.facts.clone();
    if proposal.reach == ImpactScope::None {
        return facts;
    }
    let facts = WorldFacts { stopped: facts.stopped, ..world.facts(&proposal.target).await };
    if proposal.effect == EffectClass::Read || proposal.undoes.is_some() {
        return facts;
    }
    let elsewhere = own_node::refusal(parts, world, run, &proposal.target).await;
    let facts = WorldFacts { protected: elsewhere.or(facts.protected), ..facts };
    let takes = action.takes(&proposal.call);
    let facts = world.serving(&proposal.target, &takes, &parts.config.guards, facts).await;
    let facts = WorldFacts { silenced: silenced.await, ..facts };
    confirm::confirm(parts, run, &proposal.target, facts).await
}
