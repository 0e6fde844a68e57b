//! The way of a batch through the gateway: what a request may hold ([`budget`]), how it is checked and decided
//! ([`intake`], [`versions`], [`quarantine`]), and the order and the threads in which it is scored, written and counted
//! ([`pipeline`], [`supervision`]).

pub mod budget;
pub mod intake;
pub mod pipeline;
pub mod quarantine;
pub mod supervision;
pub mod versions;
