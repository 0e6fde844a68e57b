//! What is known outside: borders, networks, registries.
//!
//! Everything is read whole, checked, and kept in memory; a lookup does no IO.

pub mod geoip;
pub mod places;
pub mod registry;
