//! The generated types of `proto/bailiwick/release`.
#![allow(
    warnings,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated from proto/, which documents it"
)]

include!(concat!(env!("OUT_DIR"), "/bailiwick.release.v1.rs"));
