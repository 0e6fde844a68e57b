//! bailiwick.

pub mod domain;
