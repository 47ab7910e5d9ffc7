//! The Merkle log: RFC 6962 hashing, inclusion and consistency proofs, signed checkpoints (C2SP signed notes, Ed25519).
//!
//! Invariant: pure arithmetic over hashes; a proof that does not verify is refused, whatever made it.

/// 32 bytes of SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeafHash(pub [u8; 32]);

/// A signed statement: this many entries, with this root.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Checkpoint {
    pub size: u64,
    /// The whole signed note, as text.
    pub note: String,
}

/// An Ed25519 key pair for checkpoints.
pub struct SigningKey {
    // ring key pair, name
}
