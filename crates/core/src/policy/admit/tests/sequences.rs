//! Budgets under any sequence of proposals.
//!
//! Invariant: whatever the sequence, the level at once is never above its limit.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Every kind of proposal, most of them odd.
fn proposals() -> impl Strategy<Value = StepProposal> {
    let effect = prop::sample::select(vec![
        EffectClass::Read,
        EffectClass::Converge,
        EffectClass::Keyed,
        EffectClass::Witnessed,
        EffectClass::Probed,
        EffectClass::Blind,
    ]);
    let reach = prop::sample::select(vec![
        ImpactScope::None,
        ImpactScope::Pod,
        ImpactScope::Workload,
        ImpactScope::Node,
        ImpactScope::Cluster,
    ]);
    let action = prop::sample::select(vec!["k8s::cordon", "k8s::uncordon", "k8s::drain", "tell", "k8s::scale"]);
    let total = prop::option::of(0u32..6);
    let node = prop::option::of(0u32..6);
    let out = prop::collection::vec(0u32..6, 0..5);
    let words = (prop::option::of(Just("why".to_owned())), prop::option::of(Just("bob".to_owned())));
    (effect, reach, action, any::<bool>(), (total, node, out), words, prop::option::of(0u32..3)).prop_map(
        |(effect, reach, action, disruptive, (nodes_total, node, out), (protected, foreign_cordon), undoes)| {
            let nodes_out = out.iter().map(|n| format!("gpu-{n}")).collect();
            StepProposal {
                call: ActionCall::new(action, []),
                scheduling: match action {
                    "k8s::cordon" => SchedulingEffect::Cordon,
                    "k8s::uncordon" => SchedulingEffect::Uncordon,
                    "k8s::drain" => SchedulingEffect::Withdraw,
                    _ => SchedulingEffect::Unchanged,
                },
                effect,
                reach,
                disruptive,
                target: node.map(|n| Subject::node(format!("gpu-{n}"))).unwrap_or_default(),
                undoes,
                facts: WorldFacts { nodes_total, nodes_out, protected, foreign_cordon, ..WorldFacts::default() },
                ..cordon("x")
            }
        },
    )
}

proptest! {
    #[test]
    fn every_refusal_has_words_and_reads_are_never_refused(
        proposal in proposals(), mode in prop::sample::select(vec![Mode::Observe, Mode::Suggest, Mode::Approve, Mode::Auto]),
        attempts in prop::collection::vec(-2000i64..2000, 0..5), holder in prop::option::of(1i64..3),
        nodes_hour in 0u32..4, acted in any::<bool>(),
    ) {
        let levels = GuardInputs {
            mode, attempts: attempts.into_iter().map(ago).collect(), node_holder: holder.map(RunId), nodes_hour, acted, ..levels()
        };
        match admit(&GuardLimits::default(), &levels, &proposal, now()) {
            GuardDecision::Allow => {
                let unknown = proposal.facts.nodes_total.is_none_or(|total| total == 0);
                prop_assert!(
                    proposal.effect == EffectClass::Read || proposal.undoes.is_some() || !(proposal.disruptive && unknown)
                );
                // A rule that was brought down in the middle must not leave things half done.
                let back = matches!(proposal.call.action.as_str(), "k8s::uncordon" | "k8s::untaint") && acted;
                let passes = proposal.effect == EffectClass::Read || proposal.undoes.is_some() || back;
                prop_assert!(passes || mode >= Mode::Approve);
            }
            GuardDecision::Hold { reason, until } => {
                prop_assert!(!reason.text.is_empty() && until > now());
                prop_assert!(proposal.effect != EffectClass::Read);
            }
            GuardDecision::Deny { reason } => {
                prop_assert!(!reason.text.is_empty());
                prop_assert!(proposal.effect != EffectClass::Read);
            }
        }
    }

    /// A tiny ledger: runs take nodes and give them back, nodes fall ill and recover by themselves, in any order.
    #[test]
    fn no_sequence_exceeds_the_budget(
        total in 1u32..30,
        at_once in 0u32..6,
        share in 0.0f64..0.5,
        steps in prop::collection::vec((0u8..4, 0u32..30), 1..80),
    ) {
        let limits = GuardLimits {
            nodes_at_once: at_once, share_at_once: share, share_per_hour: 0.5, share_per_day: 0.6,
            ..GuardLimits::default()
        };
        let (mut held, mut unhealthy) = (BTreeSet::new(), BTreeSet::new());
        // One window for the whole sequence: nothing ages out of it.
        let mut taken = BTreeSet::new();
        for (what, node) in steps {
            let name = format!("gpu-{}", node % total);
            match what {
                0 => drop(unhealthy.insert(name)),
                1 => drop(unhealthy.remove(&name)),
                2 => drop(held.remove(&name)),
                _ => {
                    let counted = |set: &BTreeSet<String>| set.iter().filter(|other| **other != name).count() as u32;
                    let levels = GuardInputs {
                        nodes_held: held.iter().filter(|other| **other != name).cloned().collect(),
                        nodes_hour: counted(&taken), nodes_day: counted(&taken), ..levels()
                    };
                    let facts = WorldFacts {
                        nodes_total: Some(total), nodes_out: unhealthy.iter().chain(&held).cloned().collect(), ..WorldFacts::default()
                    };
                    if admit(&limits, &levels, &StepProposal { facts, ..cordon(&name) }, now()) == GuardDecision::Allow {
                        held.insert(name.clone());
                        taken.insert(name);
                        let out = held.union(&unhealthy).count() as f64;
                        let most = (share * f64::from(total) + 1e-9).floor().max(1.0).min(f64::from(at_once));
                        prop_assert!(out <= most, "{out} out, {most} allowed");
                        prop_assert!(share > 0.0 && out < f64::from(total), "the last node was taken");
                        prop_assert!(taken.len() as f64 <= (0.5 * f64::from(total)).floor().max(1.0));
                    }
                }
            }
        }
    }
}
