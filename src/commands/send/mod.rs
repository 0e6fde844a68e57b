//! `bailiwick send`: records from files or stdin to a gateway.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use crate::intake::wall_clock;

use super::Failure;

mod line;
mod records;
mod stream;

pub use records::{Input, Records};
pub use stream::publish;

/// What to send, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The gateway's endpoint.
    pub endpoint: String,
    /// The stream.
    pub stream: String,
    /// The producer's name.
    pub producer: String,
    /// Whether records that belong elsewhere are sent to the gateway named in the refusal.
    pub follow: bool,
    /// Records per request.
    pub batch: usize,
    /// CSV columns that are text even where they look like numbers.
    pub text: Vec<String>,
    /// Whether the input is all there is: windows need not wait for later records.
    pub complete: bool,
    /// The number of this sending: the same inputs sent again under it are counted once.
    pub epoch: u64,
    /// How long a gateway may be away.
    pub patience: Duration,
}

/// What came of it.
#[derive(Debug, Default, Clone)]
pub struct Totals {
    /// Records read from the input.
    pub read: u64,
    /// Records taken in, by whichever gateway.
    pub accepted: u64,
    /// Records that were sent again and were durable already.
    pub durable_before: u64,
    /// Records refused for good, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Records that were sent on, by gateway.
    pub redirected: BTreeMap<String, u64>,
    /// Bytes of payload sent.
    pub bytes: u64,
}

/// Totals that grow while records are sent.
pub type SharedTotals = Arc<Mutex<Totals>>;

/// Sends files, or stdin when there are none. The summary for stdout.
///
/// # Errors
/// When an input cannot be read or the gateway goes away.
pub async fn send(files: Vec<PathBuf>, options: Options) -> Result<String, Failure> {
    let totals = SharedTotals::default();
    let bar = ProgressBar::new_spinner().with_style(style());
    let shown = tokio::spawn(show(bar.clone(), Arc::clone(&totals)));
    let epoch = options.epoch;
    let inputs = if files.is_empty() { vec![Input::Stdin] } else { files.into_iter().map(Input::File).collect() };
    let result = publish(inputs, &options, &totals).await;
    shown.abort();
    bar.finish_and_clear();
    let again = || format!("to send the rest, and nothing twice, send the same with `--epoch {epoch}`");
    result.with_context(again)?;
    Ok(summary(&snapshot(&totals)))
}

/// A number for a sending that is greater than those before: the time, in microseconds.
#[must_use]
pub fn epoch_now() -> u64 {
    u64::try_from(wall_clock().as_microsecond()).unwrap_or(1)
}

/// The totals so far.
#[must_use]
pub fn snapshot(totals: &SharedTotals) -> Totals {
    totals.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {pos} records  {per_sec}  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

async fn show(bar: ProgressBar, totals: SharedTotals) {
    let mut interval = tokio::time::interval(Duration::from_millis(100));
    loop {
        interval.tick().await;
        let totals = snapshot(&totals);
        bar.set_position(totals.read);
        bar.set_message(refusals(&totals));
    }
}

fn refusals(totals: &Totals) -> String {
    let refused = totals.refused.iter().map(|(reason, count)| format!("{reason} {count}"));
    refused.collect::<Vec<_>>().join("  ")
}

fn summary(totals: &Totals) -> String {
    let mut lines =
        vec![format!("{} records read, {} accepted, {} bytes sent", totals.read, totals.accepted, totals.bytes)];
    if totals.durable_before > 0 {
        lines.push(format!("  durable already: {}", totals.durable_before));
    }
    lines.extend(totals.redirected.iter().map(|(gateway, count)| format!("  sent on to {gateway}: {count}")));
    lines.extend(totals.refused.iter().map(|(reason, count)| format!("  refused, {reason}: {count}")));
    lines.join("\n") + "\n"
}
