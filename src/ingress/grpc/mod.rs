//! gRPC: the ingest service, Arrow Flight, health and reflection on one listener.

mod answers;
mod arrivals;
mod caps;
pub mod client;
pub(in crate::ingress) mod codec;
mod connection;
mod door;
mod flight;
mod frames;
mod guest;
mod ingest;
mod listener;
mod messages;
mod places;
mod rates;
mod replies;
mod response;
mod server;
mod socket;
mod speaker;
mod status;
mod watch;

pub use door::{Entrance, Handshakes};
pub use listener::{Limits as ListenerLimits, Listener};
pub use server::{Health, Server, serve};
