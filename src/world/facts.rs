//! What the guards must know about a target before a step begins.
//!
//! Invariant: an unreadable fact is unknown (`None`), never a default that allows.

use super::World;
use crate::model::Subject;
use crate::policy::Facts;

pub(super) async fn read(_world: &World, _target: &Subject) -> Facts {
    todo!("world")
}
