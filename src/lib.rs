//! bailiwick: a streaming edge gateway. One binary per region takes events in over gRPC, works out which
//! laws each record falls under, scores it with an ONNX model on the spot, writes it to its journal, answers
//! with the score, and lets only aggregates of enough people leave.
//!
//! # The way of a batch
//!
//! 1. [`ingress::grpc`] reads a request and puts it into its worker's [`engine::inbox`].
//! 2. The worker takes what waits there as one batch, whoever sent it. [`decode`] makes one set of columns of all payloads
//!    ([`domain::batch`]). The records are checked against the stream's declaration and decided under the policies in force
//!    ([`engine::versions`], [`domain::policy::Version::decide_shared`]): evidence ([`domain::evidence`]) gives facts
//!    ([`domain::fact`]), facts give regimes, regimes a verdict: resident, foreign, held in [`engine::quarantine`], or
//!    refused with a reason.
//! 3. Resident records are scored ([`scoring`]) and written into the journal with their scores ([`durable::entry`],
//!    [`storage`]). The batch gets its position in the order of everything, and is folded into the open event-time windows
//!    ([`domain::aggregate`]). When the entry is on disk, each request is answered.
//! 4. [`domain::gateway`] moves the watermark; when a window closes, the workers' parts are merged,
//!    [`domain::policy::release`] lets go the cells with enough contributors, and [`durable::outbox`] holds them.
//! 5. [`egress::delivery`] gives [`domain::policy::Released`], and nothing else, to [`egress::file`] and
//!    [`egress::kafka`], until it is confirmed. Before the first byte leaves, the [`ledger`] says on disk that it will.
//!
//! [`config`] says where things are, the policies say what is allowed, [`app`] puts it all together.

// Here and not in Cargo.toml: tests and benchmarks may index.
#![warn(clippy::indexing_slicing)]

pub mod app;
pub mod clock;
pub mod commands;
pub mod config;
pub mod decode;
pub mod domain;
pub mod durable;
pub mod egress;
pub mod engine;
pub mod files;
pub mod identity;
pub mod ingress;
pub mod knowledge;
pub mod ledger;
pub mod logging;
pub mod monitor;
pub(crate) mod planted;
pub mod scoring;
pub mod storage;
pub mod telemetry;
