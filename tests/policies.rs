//! A running gateway whose policies, registries and databases change, through its socket.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test may panic")]

mod common;

mod policies {
    #[allow(dead_code, reason = "the tests of the gateway use the rest")]
    #[path = "../gateway/broker.rs"]
    mod broker;
    mod changes;
    mod closed;
    mod coarser;
    mod contributors;
    mod counters;
    mod decisions;
    mod deferral;
    mod denied;
    mod deployment;
    mod drawn;
    mod dry_run;
    mod full_outbox;
    mod knowledge;
    mod load;
    mod longer;
    mod parts;
    mod pooled;
    mod private;
    mod quarantine;
    mod rations;
    mod reload;
    mod replayed;
    mod rolled;
    mod rounded;
    #[path = "../../src/domain/policy/release/tests/row_space.rs"]
    mod row_space;
    mod sliding;
    mod strictest;
    mod together;
    mod treatments;
    mod versions;
}
