//! `k8s::scale`: sets the number of replicas of a workload.
//!
//! Invariant: the number before is in the outcome, and nothing is scaled to zero by accident.

use super::answer::{Settled, done, foresee, settle};
use super::args::invalid;
use super::{Action, Performed, args, rights};
use crate::limits;
use crate::model::{
    ActionSpec, Call, Effect, Failure, FailureKind, Outcome, ParamType, Reach, Span, Step, Subject, Takes,
};
use crate::world::{World, WorldError};
use serde_json::{Value, json};

pub(super) struct K8sScale;

static SPEC: ActionSpec = ActionSpec {
    name: "k8s::scale",
    doc: "Sets the number of replicas of a workload; does not wait for them.",
    params: &[args::WORKLOAD, args::required("replicas", ParamType::Int, "how many")],
    options: &[args::optional("allow_zero", ParamType::Bool, "zero is meant (false)")],
    returns: "#{changed, before}; before is the previous desired number",
    effect: Effect::Converge,
    reach: Reach::Workload,
    disruptive: true,
    permissions: rights::SCALE,
    undo: Some("k8s::scale"),
    deadline: Span::seconds(60),
};

#[async_trait::async_trait]
impl Action for K8sScale {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    fn target(&self, call: &Call) -> Subject {
        args::workload_target(call)
    }

    fn takes(&self, call: &Call) -> Takes {
        match (args::pair(call, "workload"), replicas(call)) {
            (Ok((namespace, name)), Ok(to)) => {
                Takes::Scale { namespace: namespace.to_owned(), name: name.to_owned(), to }
            }
            // It will be refused as nonsense.
            _ => Takes::Nothing,
        }
    }

    async fn witness(&self, world: &World, call: &Call) -> Result<Value, WorldError> {
        let (namespace, name) = args::pair(call, "workload").map_err(|failure| WorldError::Invalid(failure.message))?;
        let workload = world.kube(None)?.workload(namespace, name).await?;
        Ok(json!({ "before": workload.replicas }))
    }

    async fn perform(&self, world: &World, step: &Step) -> Performed {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &Call) -> Outcome {
        foresee(
            async {
                let (namespace, name) = args::pair(call, "workload")?;
                let wanted = replicas(call)?;
                let now = world.kube(None)?.workload(namespace, name).await?.replicas;
                Ok(json!({ "changed": now != wanted, "before": now }))
            }
            .await,
        )
    }

    fn undo(&self, step: &Step) -> Option<Call> {
        let before = super::changed_from(step)?;
        let workload = json!(step.call.text("workload"));
        // It may have been zero before, and then zero is meant.
        Some(Call::new(
            "k8s::scale",
            [("workload", workload), ("replicas", before.clone()), ("allow_zero", json!(true))],
        ))
    }
}

async fn perform(world: &World, step: &Step) -> Settled<Performed> {
    let (namespace, name) = args::pair(&step.call, "workload")?;
    let wanted = replicas(&step.call)?;
    let kube = world.kube(None)?;
    let now = kube.workload(namespace, name).await?.replicas;
    let before = step.carry["before"].as_u64().unwrap_or(u64::from(now));
    if now != wanted {
        kube.scale(namespace, name, wanted).await?;
    }
    let changed = before != u64::from(wanted);
    Ok(done(json!({ "changed": changed, "before": before })))
}

fn replicas(call: &Call) -> Result<u32, Failure> {
    let given = call.args.get("replicas").and_then(Value::as_i64);
    let wanted = given
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| *number <= limits::REPLICAS)
        .ok_or_else(|| invalid(format!("k8s::scale: `replicas` must be from 0 to {}", limits::REPLICAS)))?;
    if wanted == 0 && !args::flag(call, "allow_zero") {
        return Err(Failure::new(
            FailureKind::Refused,
            "k8s::scale to 0 takes the workload away; write `#{ allow_zero: true }` if that is meant",
        ));
    }
    Ok(wanted)
}
