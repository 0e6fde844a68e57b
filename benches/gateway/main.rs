//! Nanoseconds per record of each stage, and of the whole gateway over loopback beside its bare parts.
//!
//! Each figure is a line `figure<TAB>name<TAB>value<TAB>unit<TAB>ratio to the bare part`, `-` where there is
//! none. Stages run in this process on one thread; the gateway and the bare echo are processes of their
//! own, whose CPU time the system counts. `cargo bench -- stages` leaves the processes out. The records are the card-fraud example's (34 fields, 30 of them
//! float64) and the model is its MLP 30-64-32-1.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a benchmark reads clocks and may panic"
)]

mod end_to_end;
mod records;
mod stages;

use std::time::{Duration, Instant};

/// Records per request: the batch.
const BATCH: usize = 256;

fn main() {
    if std::env::var_os(end_to_end::ECHO).is_some() {
        return end_to_end::echo();
    }
    let records = records::Prepared::load();
    let bare_score = stages::run(&records);
    if !std::env::args().any(|argument| argument == "stages") {
        end_to_end::run(&records, bare_score);
    }
}

/// Prints a figure.
fn figure(name: &str, value: f64, unit: &str, ratio: Option<f64>) {
    let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    let digits = if value.abs() < 1.0 { 9 } else { 1 };
    println!("figure\t{name}\t{value:.digits$}\t{unit}\t{ratio}");
}

/// The median time of one call per record, in nanoseconds, over enough calls to matter.
fn per_record(records: usize, mut call: impl FnMut()) -> f64 {
    let deadline = Instant::now() + Duration::from_millis(800);
    let mut times = Vec::new();
    while Instant::now() < deadline || times.len() < 20 {
        let start = Instant::now();
        call();
        times.push(start.elapsed());
    }
    times.sort();
    times[times.len() / 2].as_nanos() as f64 / records as f64
}
