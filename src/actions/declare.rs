//! The words that a declaration of an action is made of, for the files of actions to import at once.
//!
//! Invariant: nothing is defined here.

pub(super) use crate::model::{
    ActionPhrases, ActionSpec, ApprovalNeed, CapacityKind, EffectClass, ImpactScope, ParamType, SchedulingEffect, Span,
    TargetKind,
};
