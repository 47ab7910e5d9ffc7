//! Actions that take one pod away from serving: their common parts.
//!
//! Invariant: the pod's uid is read before the first attempt, so that another pod of the name is never taken for it.

use super::answer::{ActionResult, foresee, settle};
use super::{Action, PerformResult, args};
use crate::model::{ActionCall, ActionSpec, Outcome, Step};
use crate::world::{KubeClient, Pod, World, WorldError};
use serde_json::{Value, json};

/// An action about the pod that its argument `pod` names.
#[async_trait::async_trait]
pub(super) trait OnPod: Send + Sync {
    fn declares(&self) -> &'static ActionSpec;

    /// More than the pod's uid, where it must be known.
    fn noted(&self, _world: &World, pod: &Pod) -> Value {
        json!({ "uid": pod.uid })
    }

    async fn work(&self, world: &World, step: &Step) -> ActionResult<PerformResult>;

    async fn foresee(&self, world: &World, kube: &KubeClient, call: &ActionCall, pod: &Pod) -> ActionResult<Value>;

    fn back(&self, _step: &Step) -> Option<ActionCall> {
        None
    }
}

#[async_trait::async_trait]
impl<T: OnPod> Action for T {
    fn spec(&self) -> &'static ActionSpec {
        self.declares()
    }

    async fn witness(&self, world: &World, call: &ActionCall) -> Result<Value, WorldError> {
        let pod = find(world, call).await?;
        Ok(self.noted(world, &pod))
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(self.work(world, step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        let foreseen = async {
            let pod = find(world, call).await?;
            self.foresee(world, world.kube(None)?, call, &pod).await
        };
        foresee(foreseen.await)
    }

    fn undo(&self, step: &Step) -> Option<ActionCall> {
        self.back(step)
    }
}

/// The pod that the call names.
async fn find(world: &World, call: &ActionCall) -> Result<Pod, WorldError> {
    let (namespace, name) = args::pair(call, "pod").map_err(|failure| WorldError::Invalid(failure.message))?;
    world.kube(None)?.pod(namespace, name).await
}

/// The pod's uid, for a step that was begun without it: a lost answer could cost a second pod, so it is noted first.
pub(super) async fn witness(world: &World, call: &ActionCall) -> Result<Value, WorldError> {
    Ok(json!({ "uid": find(world, call).await?.uid }))
}
