//! Runs a script on a thread whose stack it may use up, and pulls the brake when it takes too long.
//!
//! Invariant: no script keeps a thread for longer than its wall, and none runs on a thread that serves requests.

use crate::limits;
use crate::model::{Input, Reason, ReasonCode, Step};
use crate::script::{self, Brake, Runbook, Turn};
use std::sync::Arc;

/// What the script is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Real,
    Plan,
}

pub(super) async fn advance(runbook: &Arc<Runbook>, input: &Input, journal: Vec<Step>, aim: For) -> Turn {
    let (runbook, input, brake) = (runbook.clone(), input.clone(), Brake::default());
    let pulled = brake.clone();
    let mut evaluation = tokio::task::spawn_blocking(move || match aim {
        For::Real => script::advance_with(&runbook, &input, &journal, &brake),
        For::Plan => script::advance_plan_with(&runbook, &input, &journal, &brake),
    });
    let turn = match tokio::time::timeout(limits::SCRIPT_WALL, &mut evaluation).await {
        Ok(turn) => turn,
        Err(_) => {
            pulled.pull();
            evaluation.await
        }
    };
    turn.unwrap_or_else(|panic| {
        Turn::Broken(Reason::new(ReasonCode::ScriptBroken, format!("the evaluator died: {panic}")))
    })
}
