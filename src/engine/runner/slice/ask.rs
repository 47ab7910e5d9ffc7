//! Approval requests: for the plan of a run in mode approve, and those that a runbook makes itself.
//!
//! Invariant: a question names who may answer it, and nothing that a rule adds lets more users answer than the header.

use super::{RunTurn, TurnFlow};
use crate::engine::{foretell, story};
use crate::limits;
use crate::model::{Plan, PlanEnd, PreflightDecision, Rule, Run, Step};
use crate::script::Runbook;
use crate::store::{NewApproval, StoreError};
use std::collections::BTreeSet;
use std::sync::Arc;

impl RunTurn<'_> {
    pub(super) async fn ask_for_plan(
        &self,
        run: &Run,
        runbook: &Arc<Runbook>,
        planned: Plan,
    ) -> Result<(), StoreError> {
        let title = runbook.header.title.trim_end_matches('.');
        let asked = format!("Run {} on {}? {title}", run.runbook.name, run.subject.words());
        let question = match &planned.end {
            PlanEnd::Done | PlanEnd::Stopped(_) => asked,
            PlanEnd::Failed(_) => {
                format!("{asked}. The preflight fails: {}", story::cannot(&planned).unwrap_or_default())
            }
            PlanEnd::Cut(reason) => format!("{asked}. The preflight covers only the first steps: {}", reason.text),
        };
        let foretold = self.foretold(run, runbook, &planned).await;
        let rules = self.parts.catalog.current();
        let rule = run.rule.as_deref().and_then(|name| rules.rules.rule(name));
        let within = rule.map_or(limits::APPROVAL_EXPIRY, |rule| rule.approve_within);
        let approvers = approvers(&runbook.header.approvers, rule.map_or(&[], |rule| &rule.approvers));
        let nodes: BTreeSet<&str> = planned.calls.iter().filter_map(|call| call.target.node.as_deref()).collect();
        let nodes = nodes.len();
        let question = NewApproval {
            question,
            plan_hash: planned.hash.clone(),
            plan: Some(planned),
            foretold,
            step: None,
            approvers,
            needed: self.persons(rule, nodes),
            expires_at: self.now() + within.0,
        };
        self.parts.store.ask(self.id, run.epoch, question, self.now()).await?;
        self.parts.nudge.nudge();
        Ok(())
    }

    /// The guards' predicted decisions on the plan; none where they could not be read in time: the question does not
    /// wait.
    async fn foretold(&self, run: &Run, runbook: &Runbook, planned: &Plan) -> Vec<PreflightDecision> {
        let reading = foretell::foretell_run(self.parts, runbook, run.clone(), planned);
        match tokio::time::timeout(limits::FORETELL_PATIENCE, reading).await {
            Ok(Ok(foretold)) => foretold,
            Ok(Err(error)) => {
                tracing::warn!(run = %run.id, %error, "cannot read the guards for an approval request; it is sent without them");
                Vec::new()
            }
            Err(_) => {
                tracing::warn!(run = %run.id, "reading the guards for an approval request took too long; it is sent without them");
                Vec::new()
            }
        }
    }

    /// The number of approvers: the rule's, and two where more than one node is touched.
    fn persons(&self, rule: Option<&Rule>, nodes: usize) -> u32 {
        let touched = self.parts.config.guards.two_person_nodes;
        let wide = touched > 0 && nodes >= touched as usize;
        rule.map_or(1, |rule| rule.persons).max(if wide { 2 } else { 1 })
    }

    /// `approve(…)` in a runbook: the answer ends the step; the request parks the run in the same commit, so it is made
    /// once.
    pub(super) async fn ask_for_step(&self, run: &Run, runbook: &Runbook, step: &Step) -> Result<TurnFlow, StoreError> {
        let rules = self.parts.catalog.current();
        let rule = run.rule.as_deref().and_then(|name| rules.rules.rule(name));
        let within = step.call.text("within").parse().unwrap_or(limits::APPROVAL_EXPIRY);
        let question = NewApproval {
            question: step.call.text("question").to_owned(),
            plan: None,
            foretold: Vec::new(),
            plan_hash: step.key(),
            step: Some(step.no),
            approvers: approvers(&runbook.header.approvers, rule.map_or(&[], |rule| &rule.approvers)),
            needed: self.persons(rule, 1),
            expires_at: self.now() + within.0,
        };
        self.parts.store.ask(self.id, run.epoch, question, self.now()).await?;
        self.parts.nudge.nudge();
        Ok(TurnFlow::Rest)
    }
}

/// The approvers, by the header and the rule; an empty list is everyone with the role. Named in both: those in both.
fn approvers(header: &[String], rule: &[String]) -> Vec<String> {
    let both: Vec<String> = header.iter().filter(|name| rule.contains(name)).cloned().collect();
    match (header, rule, both.as_slice()) {
        ([], rule, _) => rule.to_vec(),
        // Lists without a common name contradict each other: then the one that was reviewed with the runbook counts.
        (header, [], _) | (header, _, []) => header.to_vec(),
        _ => both,
    }
}

#[cfg(test)]
mod tests {
    use super::approvers;

    #[test]
    fn a_rule_narrows_who_may_approve_and_never_widens_it() {
        let check = |header: &[&str], rule: &[&str], expect: &[&str]| {
            let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            assert_eq!(approvers(&own(header), &own(rule)), own(expect), "{header:?} {rule:?}");
        };
        check(&[], &[], &[]);
        check(&["ada"], &[], &["ada"]);
        check(&[], &["bob"], &["bob"]);
        check(&["ada", "bob"], &["bob", "eve"], &["bob"]);
        check(&["ada"], &["eve"], &["ada"]);
    }
}
