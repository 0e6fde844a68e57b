//! The whole gateway through its socket: stock clients, an outside oracle, refusals, rubbish.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test may panic")]

mod common;
mod crowd;
#[allow(dead_code, reason = "the unit tests use the rest")]
#[path = "../src/scoring/made.rs"]
mod made;

mod gateway {
    mod away;
    mod bounds;
    mod broker;
    mod budgets;
    mod closings;
    mod crowd;
    mod denied;
    mod exactly_once;
    mod files;
    mod flight;
    mod fuzz;
    mod guarded;
    mod guards;
    mod kafka;
    mod kernel;
    mod messages;
    mod models;
    mod oracle;
    mod parts;
    mod process;
    mod proxy;
    mod refusals;
    mod routes;
    mod sent;
    mod shared;
    mod sizes;
    mod times;
}
