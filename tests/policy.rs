//! The policy engine against a slow, obvious reference, and against its own promises; policies that are hostile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test may panic")]

mod policy {
    mod before;
    mod engine;
    mod generate;
    mod hostile;
    mod invariants;
    mod model;
    mod reference;
    mod render;
    mod tighten;
}
