//! Every bound in the program, named, with its reason. A number that limits something lives here or nowhere.
//!
//! Invariant: nothing that comes from outside grows without one of these. They are used as `limits::NAME`, whichever
//! file below defines them, so no two may share a name.

mod agents;
mod cache;
mod chat;
mod engines;
mod gpu;
mod intake;
mod notices;
mod program;
mod runs;
mod scripts;
mod store;
mod tokens;
mod world;

pub use agents::*;
pub use cache::*;
pub use chat::*;
pub use engines::*;
pub use gpu::*;
pub use intake::*;
pub use notices::*;
pub use program::*;
pub use runs::*;
pub use scripts::*;
pub use store::*;
pub use tokens::*;
pub use world::*;
