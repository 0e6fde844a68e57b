//! How the gateway does, told over HTTP on a port of its own: `/healthz`, `/readyz`, `/status` and `/metrics`.
//!
//! - Everything runs on a thread of its own with a low priority: whoever floods this port takes no time from records. Only
//!   what takes locks of the gateway's parts runs on another one ([`looking`]).
//! - It has few connections, small requests, and an end to each wait. What is costly is made at most a few times a second,
//!   however often it is asked for.
//! - `/healthz` and `/readyz` say a word to anybody. With TLS, the rest is for identities that a rule lets read `metrics`.
//!
//! It knows nothing of the gateway's parts: [`Observed`] tells it what there is to say.

mod answer;
mod health;
mod looking;
mod observed;
mod places;
pub mod process;
mod server;

pub use health::{Check, Health, State};
pub use observed::Observed;
pub use places::CONNECTIONS_MAX;
pub use server::Server;
