//! The way of a batch through the gateway.
//!
//! A request waits in an [`inbox`] until its worker takes it, together with all others that have arrived meanwhile: they
//! share one batch, whoever sent them. The `worker` has the batch judged (`judge`: decoded into one set of columns, checked,
//! decided, scored), writes its entry, and gets a position for it from the `sequencer`. Then it folds the records into its
//! `windows`, and each request is answered when the journal says that the entry is on disk.

pub mod budget;
mod closings;
mod collector;
pub mod counting;
pub mod inbox;
pub mod intake;
mod judge;
pub mod noise;
pub mod noising;
mod open_windows;
mod order;
pub mod pipeline;
mod progress;
pub mod quarantine;
pub mod request;
mod scores;
pub mod sequencer;
pub mod supervision;
pub mod versions;
mod windows;
mod worker;
