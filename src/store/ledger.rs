//! The Merkle log: RFC 6962 hashing, inclusion and consistency proofs, signed checkpoints (C2SP signed notes, Ed25519).
//!
//! Invariant: pure arithmetic over hashes; a proof that does not verify is refused, whatever made it.

mod export;
mod note;
mod tree;

pub use export::{Report, VerifyError, verify_export, write_export};
pub use note::{KeyError, NoteError, PublicKey, SigningKey, Statement, verify_note};
pub use tree::{
    Frontier, NodeSource, TILE, Tile, consistency_proof, hash_leaf, inclusion_proof, subtree_hash, tree_hash,
    verify_consistency, verify_inclusion,
};

use crate::model::EntryNo;
use ring::digest;
use serde::{Deserialize, Serialize};
use std::fmt;

/// 32 bytes of SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeafHash(pub [u8; 32]);

impl fmt::Display for LeafHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A signed statement: this many entries, with this root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Checkpoint {
    pub size: u64,
    /// The whole signed note, as text.
    pub note: String,
}

/// The tree's part of one entry. The body itself stands beside the tree, so that it can be removed without breaking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryLeaf {
    pub no: EntryNo,
    /// Microseconds since 1970.
    pub at: i64,
    /// `commitment(salt, body)`.
    pub commit: LeafHash,
}

impl EntryLeaf {
    /// `no` (8 bytes, big endian), `at` (8 bytes, big endian), commitment (32 bytes).
    pub fn data(&self) -> [u8; 48] {
        let mut data = [0; 48];
        data[..8].copy_from_slice(&self.no.0.to_be_bytes());
        data[8..16].copy_from_slice(&self.at.to_be_bytes());
        data[16..].copy_from_slice(&self.commit.0);
        data
    }

    /// The hash of the leaf in the tree.
    pub fn hash(&self) -> LeafHash {
        hash_leaf(&self.data())
    }
}

/// SHA-256 of salt and body: without the salt it reveals nothing about the body.
pub fn commitment(salt: &[u8], body: &[u8]) -> LeafHash {
    sha256(&[salt, body])
}

fn sha256(parts: &[&[u8]]) -> LeafHash {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    LeafHash(hash)
}
