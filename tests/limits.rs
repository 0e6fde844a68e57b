//! Memory has a bound, whatever arrives. The gateway runs as a process that may have 512 MiB of data (`RLIMIT_DATA`; its
//! address space is larger than what it uses, so `RLIMIT_AS` would say nothing); one attack at a time comes in, and beside
//! it a good producer sends. The gateway must live, say why it refuses, and take everything that the good producer sends.
//!
//! How much longer the good producer waits is printed, and has a bound that a noisy machine keeps too: no request waits for
//! longer than `GOOD_WITHIN`, and of a hundred ninety-nine come soon.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test may panic")]

mod common;
#[allow(dead_code, reason = "the unit tests use the rest")]
#[path = "../src/scoring/made.rs"]
mod made;

mod limits {
    mod decoding;
    mod descriptors;
    mod flight;
    mod gateway;
    mod holding;
    mod models;
    mod payloads;
    mod raw;
    mod state;
}
