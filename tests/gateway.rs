//! The whole gateway through its socket: stock clients, an outside oracle, refusals, rubbish.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test may panic")]

mod common;

mod gateway {
    mod files;
    mod fuzz;
    mod kafka;
    mod oracle;
    mod refusals;
    mod routes;
}
