//! Nanoseconds per record of each stage, and of the whole gateway over loopback beside its bare parts.
//!
//! Each figure is a line `figure<TAB>name<TAB>value<TAB>unit<TAB>ratio to the bare part`, `-` where there is
//! none. Stages run in this process on one thread; the gateway and the bare echo are processes of their
//! own, whose CPU time the system counts. `cargo bench -- PART...` runs, besides the stages, only
//! some of `policy`, `knowledge`, `watermark`, `contributors`, `producers`, `rules`, `journal`, `ledger`, `recovery`,
//! `end-to-end`, `speakers`, `storm`; `-- stages` none of them, `-- policy`, `-- knowledge`, `-- watermark`, `-- ledger`, `-- contributors`, `-- deleting`,
//! `-- producers`, `-- rules`, `-- speakers` and `-- storm` that alone. `-- batches`, `-- one_record`, `-- many_calls`, `-- latency`, `-- memory` and
//! `-- known` run alone too: the gateway beside the comparator, under the load of `bailiwick bench`. The records are the card-fraud example's (34 fields, 30 of them float64) and the model is
//! its MLP 30-64-32-1.
//!
//! What goes to disk goes to the directory for temporary files (`TMPDIR`), whose file system is printed: figures of
//! durability mean something only if that is a disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a benchmark reads clocks and may panic"
)]

#[path = "../comparator/mod.rs"]
mod comparator;
mod contributors;
mod deleting;
mod end_to_end;
mod journal;
mod knowledge;
mod ledger;
mod policy;
mod process;
mod producers;
mod records;
mod recovery;
mod rules;
mod side_by_side;
mod speakers;
mod stages;
mod storm;
mod watermark;

use std::time::{Duration, Instant};

/// The gateway's allocator. The stages are measured with it, and the echo, the comparator and the load have it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records per request: the batch.
const BATCH: usize = 256;

fn main() {
    if std::env::var_os(end_to_end::ECHO).is_some() {
        return end_to_end::echo();
    }
    if let Ok(mode) = std::env::var(comparator::COMPARATOR) {
        return comparator::serve(&mode);
    }
    if let Some(directory) = std::env::var_os(speakers::BARE) {
        return speakers::bare(std::path::Path::new(&directory));
    }
    if let Ok(target) = std::env::var(storm::STORM) {
        return storm::rage(&target);
    }
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    if parts == ["knowledge"] {
        return knowledge::run();
    }
    if parts == ["watermark"] {
        return watermark::run();
    }
    if parts == ["deleting"] {
        return deleting::run();
    }
    if parts == ["ledger"] {
        return ledger::run();
    }
    if parts == ["producers"] {
        return producers::run();
    }
    if parts == ["speakers"] {
        return speakers::run();
    }
    if parts == ["storm"] {
        return storm::run();
    }
    if parts == ["policy"] {
        return policy::run();
    }
    if !parts.is_empty() && parts.iter().all(|part| side_by_side::is_line(part)) {
        return side_by_side::run(is_wanted);
    }
    let records = records::Prepared::load(BATCH);
    if parts == ["contributors"] {
        return contributors::run(&records);
    }
    if parts == ["rules"] {
        return rules::run(&records);
    }
    let staged = stages::run(&records);
    if is_wanted("policy") {
        policy::run();
    }
    if is_wanted("knowledge") {
        knowledge::run();
    }
    if is_wanted("watermark") {
        watermark::run();
    }
    if is_wanted("contributors") {
        contributors::run(&records);
    }
    if is_wanted("producers") {
        producers::run();
    }
    if is_wanted("rules") {
        rules::run(&records);
    }
    if is_wanted("journal") {
        journal::run(&staged.entry);
    }
    if is_wanted("ledger") {
        ledger::run();
    }
    if is_wanted("recovery") {
        recovery::run(&records);
    }
    if is_wanted("end-to-end") {
        end_to_end::run(&records, staged.bare_score);
    }
    if is_wanted("speakers") {
        speakers::run();
    }
    if is_wanted("storm") {
        storm::run();
    }
    side_by_side::run(is_wanted);
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

/// The value in the middle.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A percentile of times, in microseconds.
fn at(times: &[Duration], share: f64) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
}
