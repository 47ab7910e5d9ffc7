//! Runs a script on a thread whose stack it may use up, and brakes it when it uses too much CPU time.
//!
//! Invariant: no script uses more CPU than its share, and none runs on a thread that serves requests. Time that it spends
//! in a queue, or without a CPU, never counts: a busy machine makes turns late and nothing else.

use crate::limits;
use crate::model::{Reason, ReasonCode, RunInput, Step};
use crate::planted::planted;
use crate::script::{self, Runbook, ScriptBrake, ScriptTurn};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The purpose of running the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EvaluationPurpose {
    Real,
    Plan,
}

pub(super) async fn advance(
    runbook: &Arc<Runbook>,
    input: &RunInput,
    journal: Vec<Step>,
    aim: EvaluationPurpose,
) -> ScriptTurn {
    let (runbook, input, queued) = (runbook.clone(), input.clone(), Instant::now());
    let evaluation = tokio::task::spawn_blocking(move || {
        let brake = match planted("turn-bounded-by-wall-time") {
            true => ScriptBrake::once(move || queued.elapsed() > Duration::from_millis(250)),
            false => cpu_brake(),
        };
        match aim {
            EvaluationPurpose::Real => script::advance_with(&runbook, &input, &journal, &brake),
            EvaluationPurpose::Plan => script::advance_plan_with(&runbook, &input, &journal, &brake),
        }
    });
    evaluation.await.unwrap_or_else(|panic| {
        ScriptTurn::Broken(Reason::new(ReasonCode::ScriptBroken, format!("the evaluator died: {panic}")))
    })
}

/// Acts once this thread has used its share from here on.
fn cpu_brake() -> ScriptBrake {
    let began = cpu_time();
    ScriptBrake::once(move || cpu_time().saturating_sub(began) > limits::SCRIPT_CPU)
}

/// The CPU time that the calling thread has used.
fn cpu_time() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or(0))
}
