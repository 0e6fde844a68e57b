//! What outlives the process: the journal of what was accepted, the checkpoints of what was counted, the
//! outbox of what was released.
//!
//! The windows are a fold over the journal. Memory may be ahead of the disk; what shows outside is not: an
//! answer waits until its entry is on disk, a release until the entry that closed its window is, and its
//! first byte until the outbox holds it. So a crash takes away only what nobody was told, and a replay of
//! the journal from the last checkpoint on leads to the same windows and the same releases, byte for byte.
//!
//! | on disk, below `[journal] directory` | what |
//! | --- | --- |
//! | `log/` | the journal: entries ([`entry`]) in a [`Log`](crate::storage::Log) |
//! | `checkpoints/` | the state at a position of the journal ([`checkpoint`]) |
//! | `outbox/` | releases ([`outbox`]) in a log of their own |
//! | `counters/` | whom the counters of laws have counted ([`counting`]) in a log of their own |
//! | `privacy/` | what is spent of the budgets of differential privacy ([`spending`]) in a log of their own |
//! | `begun` | that the first segments of `log/` and `outbox/` were made: without one, they were emptied |
//! | `policies/` | the policies that were in force ([`policies`]), written before they come into force |
//! | `cursors/` | how far each destination is in the outbox |
//! | `budgets/` | what is left of the budgets of destinations ([`budget`](crate::egress::budget)) |

mod batch;
pub mod catalog;
pub mod checkpoint;
mod columns;
pub mod counting;
pub mod entry;
pub mod outbox;
pub mod policies;
pub mod recovery;
pub mod seal;
pub mod spending;
