//! A step as it would be proposed to the store: its action's declaration, and the guards' facts about the world.
//!
//! Invariant: a step that begins and one that is only predicted are read in the same way.

use super::Parts;
use super::{confirm, own_node};
use crate::actions::Action;
use crate::model::{Call, Effect, Reach, Run};
use crate::policy::{Facts, Proposal};
use crate::world::World;
use std::future::Future;

/// The step as its action declares it, with nothing read yet.
pub(super) fn proposal(parts: &Parts, run: &Run, action: &dyn Action, call: Call, undoes: Option<u32>) -> Proposal {
    let spec = action.spec();
    let mut target = action.target(&call);
    target.cluster = target.cluster.or_else(|| Some(parts.world.default_cluster.clone()));
    target.cluster = target.cluster.filter(|name| !name.is_empty());
    let facts = Facts { stopped: parts.world.stopped(), ..Facts::default() };
    Proposal { undoes, facts, ..Proposal::new(spec, (run.id, run.epoch), call, target, parts.clock.now()) }
}

/// The facts that the guards need, read live. `silenced` is read only where it counts.
pub(super) async fn facts(
    parts: &Parts,
    world: &World,
    run: &Run,
    action: &dyn Action,
    proposal: &Proposal,
    silenced: impl Future<Output = Option<String>>,
) -> Facts {
    let facts = proposal.facts.clone();
    if proposal.reach == Reach::None {
        return facts;
    }
    let facts = Facts { stopped: facts.stopped, ..world.facts(&proposal.target).await };
    if proposal.effect == Effect::Read || proposal.undoes.is_some() {
        return facts;
    }
    let elsewhere = own_node::refusal(parts, world, run, &proposal.target).await;
    let facts = Facts { protected: elsewhere.or(facts.protected), ..facts };
    let takes = action.takes(&proposal.call);
    let facts = world.serving(&proposal.target, &takes, &parts.config.guards, facts).await;
    let facts = Facts { silenced: silenced.await, ..facts };
    confirm::confirm(parts, run, &proposal.target, facts).await
}
