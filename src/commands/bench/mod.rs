//! `bailiwick bench`: load on a gateway that runs, and how it answers.
//!
//! The records come from files and are sent over and over. Their event times are set to the moment of sending, so that a
//! live stream takes them. All messages are encoded before the clock starts ([`Pool`]); [`run`] sends them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::ingress::grpc::client::Dialer;

use super::send::{self, epoch_now};
use super::{Failure, load, records};

mod args;
mod call;
mod measured;
mod pace;
mod plot;
mod pool;
mod report;
mod run;
mod schedule;
mod wire;

pub use crate::monitor::process::{Process, Usage};
pub use args::Args;
pub use measured::{Latencies, Measured, Used};
pub use pool::{Pool, read};
pub use run::run;
pub use schedule::{End, Schedule};

/// How a message holds its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Payload {
    /// Protobuf rows.
    Rows,
    /// An Arrow IPC stream of one batch.
    Arrow,
}

/// The load to put on a gateway.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What connects to the gateway.
    pub dialer: Dialer,
    /// The gateway's endpoint.
    pub endpoint: String,
    /// The stream that the records are of.
    pub stream: String,
    /// What the producers' names begin with.
    pub producer: String,
    /// The series of the requests' numbers.
    pub epoch: u64,
    /// Calls of `Publish`.
    pub calls: usize,
    /// Connections that the calls are spread over.
    pub connections: usize,
    /// Producers that the calls send as. A producer sends on one call.
    pub producers: usize,
    /// Messages of a call that are sent and not answered, at most.
    pub in_flight: usize,
    /// When messages are due, and when the load ends.
    pub schedule: Schedule,
    /// Whether the answers are to carry the model's outputs.
    pub scores: bool,
    /// The gateway's process, whose CPU time and memory are read.
    pub pid: Option<u32>,
}

/// The most calls that a gateway takes on one connection.
pub const CALLS_PER_CONNECTION: usize = 100;
/// For how long no answer may come before the gateway is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Puts load on a gateway. The report for stdout.
///
/// # Errors
/// When the configuration or the files cannot be used, the gateway does not answer or refuses a message as a whole, or
/// records were refused.
pub async fn bench(args: Args) -> Result<String, Failure> {
    let config = load(&args.config)?;
    let stream = Arc::clone(&records::plan(&config.policy, &args.stream)?.stream);
    let (columns, skipped) = read(&stream, &args.files)?;
    let pool = Arc::new(Pool::new(&stream, &columns, args.records, args.payload)?);
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let plan = args.plan(format!("{scheme}://{}", config.listen), epoch_now(), pool.records_per_message())?;
    let interrupted = send::interrupted().context("signals cannot be heard")?;
    let measured = run(&plan, &pool, interrupted).await?;
    let report = report::Report { plan: &plan, pool: &pool, measured: &measured, skipped };
    let text = if args.json { report.json() } else { report.text() };
    match &measured.failure {
        Some(_) => Err(Failure::Found(text)),
        None if measured.refused() > 0 && !args.allow_refused => Err(Failure::Partly(text)),
        None => Ok(text),
    }
}
