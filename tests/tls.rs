//! A gateway that stands on a hostile network: who gets in, what they may do, and what is said of the others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test may panic")]

mod common;

mod tls {
    mod attacks;
    mod files;
    mod handshakes;
    mod listener;
    mod monitor;
    mod permissions;
    mod producers;
    mod redirects;
    mod rotation;
    mod tokens;
}
