//! All that leaves of a run to all destinations, pooled, singles out nobody: random runs of a gateway, with late records,
//! repeats, kills, stops, flushes, reloads, windows that change, remainders, cells that wait, longer windows, an override,
//! histograms, fractions and fields that may be missing.
//!
//! [`run`] drives the gateway and reads what it left in files, as anybody could. [`book`] knows what was sent. [`told`] works
//! out which records each number must be of, by what the documents say of its row, and that it is the number of these records.
//! Then all these sets of records are pooled, and [`row_space`](super::row_space) looks for anything that can be made of
//! them, by adding, subtracting and multiplying, that is about fewer contributors than were asked for.

mod book;
mod run;
mod told;

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use self::run::{Kind, Run};
use self::told::Told;
use super::row_space::Pool;

/// How often each thing must occur in all runs together, at least: else they show nothing.
const SEEN: [(&str, usize); 23] = [
    ("late records", 100),
    ("duplicates", 20),
    ("kills", 15),
    ("stops", 5),
    ("flushes", 15),
    ("reloads", 40),
    ("reloads that are refused", 15),
    ("starts with other policies", 10),
    ("changed windows", 10),
    ("cells", 300),
    ("cells that only one destination has", 10),
    ("remainders", 100),
    ("remainders of all", 15),
    ("rows with cells that waited", 15),
    ("rows of what was flushed", 100),
    ("sums of rows", 150),
    ("sums of several windows", 50),
    ("ranges", 1_000),
    ("ranges that were merged", 300),
    ("fractions", 200),
    ("fractions that are null", 200),
    ("sums of an optional field", 10),
    ("sums that are null", 100),
];
/// So many runs are made, unless `BAILIWICK_TEST_POOLED` says another number.
const SEEDS: u64 = 18;
/// So many runs are made at a time.
const LANES: usize = 3;

/// Bugs of the gateway that must be found.
#[cfg(feature = "planted-bugs")]
const PLANTED: [&str; 21] = [
    "bins-free",
    "cells-in-records",
    "datasets-judged-apart",
    "deferred-also-alone",
    "deferred-covers-one",
    "deferred-twice-after-restart",
    "differences-free",
    "k-in-records",
    "late-restated",
    "no-dedup",
    "nulls-by-subtraction",
    "overlaps-let-through",
    "partitions-let-through",
    "parts-alone",
    "remainder-of-all",
    "remainder-of-each-destination",
    "remainder-of-full-cells",
    "replay-twice",
    "rolled-up-waits",
    "sums-by-one-plan",
    "sums-of-all",
];

/// What left of a run, each number held against what was sent, and whether it singles out anybody.
fn judged(run: &Run) -> Result<Told, String> {
    let mut told = Told::default();
    let max_defer = if let Kind::Defers(windows) = run.kind { windows } else { 0 };
    told.finer(&run.book, max_defer)?;
    told.apart()?;
    match run.kind {
        Kind::Parted(_) => told.parted(&run.book, &run.others)?,
        _ => told.sums(&run.book, &run.others)?,
    }
    let pool_of = || Pool::new(run.book.sent.iter().map(|record| Some(record.person.clone())));
    let (mut numbers, mut rows) = (pool_of(), pool_of());
    told.numbers.iter().for_each(|number| numbers.left(number.iter().copied()));
    told.rows.iter().for_each(|row| rows.left(row.records.iter().copied()));
    match rows.singled_out(run.k).or_else(|| numbers.singled_out(run.part)) {
        Some(found) => Err(format!("{found:?} can be worked out")),
        None => Ok(told),
    }
}

/// How often each thing occurred.
type Seen = BTreeMap<&'static str, usize>;

/// A run, and what it told; or what is wrong with it.
async fn ran(seed: u64, bug: &'static str) -> Result<Seen, String> {
    // It says of which run a test is about, whatever fails.
    eprintln!("seed {seed}");
    let mut run = Run::new(seed, bug);
    let told = match run.go().await {
        Ok(()) => judged(&run),
        Err(what) => Err(what),
    };
    let mut seen = told.map_err(|what| format!("seed {seed}, {:?}: {what}", run.kind))?.seen;
    seen.append(&mut run.seen);
    Ok(seen)
}

/// Runs of all seeds, some at a time: what they told, or what is wrong with some.
async fn all_ran(bug: &'static str) -> Result<Seen, String> {
    let seeds = std::env::var("BAILIWICK_TEST_POOLED").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let lane = |first: u64| async move {
        let mut seen = Seen::new();
        for seed in (first..=seeds).step_by(LANES) {
            ran(seed, bug).await?.into_iter().for_each(|(what, times)| *seen.entry(what).or_default() += times);
        }
        Ok::<Seen, String>(seen)
    };
    // The others end when one of them has found something.
    let mut lanes: JoinSet<_> = (1..=LANES as u64).map(lane).collect();
    let mut all = Seen::new();
    while let Some(lane) = lanes.join_next().await {
        lane.unwrap()?.into_iter().for_each(|(what, times)| *all.entry(what).or_default() += times);
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_singled_out_by_all_that_a_run_releases() {
    let seen = all_ran("").await.unwrap();
    eprintln!("{seen:#?}");
    for (what, least) in SEEN {
        assert!(seen.get(what).is_some_and(|times| *times >= least), "too little of `{what}`: {seen:#?}");
    }
}

/// A gateway with one of these bugs, which it must be built for.
#[cfg(feature = "planted-bugs")]
#[tokio::test(flavor = "multi_thread")]
async fn each_planted_bug_is_found() {
    let mut missed = Vec::new();
    for bug in PLANTED {
        match all_ran(bug).await {
            Ok(_) => missed.push(bug),
            Err(found) => eprintln!("{bug}: {found}"),
        }
    }
    assert!(missed.is_empty(), "nobody noticed {missed:?}");
}
