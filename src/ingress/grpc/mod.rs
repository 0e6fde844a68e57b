//! gRPC: the ingest service, Arrow Flight, health and reflection on one listener.

mod answers;
mod arrivals;
pub mod client;
pub(in crate::ingress) mod codec;
mod flight;
mod ingest;
mod listener;
mod messages;
mod replies;
mod response;
mod server;
mod status;

pub use listener::{Limits as ListenerLimits, Listener};
pub use server::{Health, Server, serve};
