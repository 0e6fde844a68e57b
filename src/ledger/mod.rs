//! The ledger: what left the gateway, to where, under which policies, and what was held back. An append-only Merkle log in
//! the form of C2SP, which an outsider can verify without the gateway and without secrets.
//!
//! # On disk
//!
//! ```text
//! verifier      the public key, as C2SP's signed notes have it: NAME+ID+KEY
//! checkpoint    the newest published checkpoint: the name, the number of entries, the root, a signature
//! tile/...      bundles of entries and tiles of hashes: C2SP's tlog-tiles
//! witness/      the newest checkpoint that each witness has cosigned, with its cosignature: a file named by the key's id
//! log/          entries that are durable and not in tiles yet: a log of the storage (`group` is their format)
//! ```
//!
//! An entry is one JSON object (`entry`). Entries become durable in groups, with one `fdatasync` for all that came while
//! the last one ran, and each group holds the signed checkpoint of the tree that ends with it. Every few seconds, and at a
//! stop, what is durable goes into tiles.
//!
//! # What is promised
//!
//! - The intent of a release is durable, under a signature, before its first byte leaves.
//! - While the ledger cannot be written, or is not as it was signed, nothing leaves, and nothing else stops.
//! - What an outsider holds, a checkpoint, is enough to find every change of what came before it.

mod appending;
pub mod audit;
mod book;
pub mod cosignature;
pub mod entry;
mod files;
mod group;
mod keeper;
pub mod note;
mod opening;
pub mod proof;
mod publisher;
pub mod tile;
pub mod tree;
pub mod witness;

pub use book::{Clocks, Closed, Confirmed, Intent, Ledger, Outbox, Unwritable, in_full};
pub use files::{CHECKPOINT, Files, VERIFIER, WITNESSED};
pub use opening::{KEY_LOST, Settings};

#[cfg(test)]
mod tests;
