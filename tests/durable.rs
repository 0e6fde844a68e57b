//! What was acked is counted once, whatever happens: crashes, sending again, stops, disks, damage.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test may panic")]

mod common;
mod crowd;
#[allow(dead_code, reason = "the unit tests use the rest")]
#[path = "../src/scoring/made.rs"]
mod made;

mod durable {
    mod auditor;
    mod crash;
    mod crowd;
    mod declarations;
    mod deployment;
    mod ledger;
    mod losses;
    mod merkle;
    mod moved;
    mod numbers;
    mod operations;
    mod repeats;
    mod report;
    mod saved;
    mod seal;
    mod upgrade;
    mod witness;
}
