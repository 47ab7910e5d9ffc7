//! What the engine itself asks of a cluster, whatever its runbooks do: the other half of the generated RBAC.
//!
//! Invariant: a request that no action makes is declared here with its reason, or the API server refuses it.

use crate::model::Permission;

/// One right, and what it is for, in the words that a reviewer of the role reads.
pub type OwnRight = (Permission, &'static str);

/// Keep it sorted.
pub static OWN_RIGHTS: [OwnRight; 1] =
    [(Permission::new("", "nodes", "list"), "the guards count nodes that are out of service")];
