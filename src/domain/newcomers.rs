//! The producers that the requests of one batch bring anew: each takes a place before the next one is looked at.

use std::collections::HashSet;
use std::net::IpAddr;

use super::addresses::{Addresses, Network};
use super::identities::Identities;

/// Producers that are to be taken in together.
#[derive(Debug, Default)]
pub struct Newcomers<'p> {
    producers: HashSet<&'p str>,
    addresses: Addresses,
    identities: Identities,
}

impl<'p> Newcomers<'p> {
    /// Whether a producer is among them.
    #[must_use]
    pub fn contains(&self, producer: &str) -> bool {
        self.producers.contains(producer)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.producers.len()
    }

    /// How many there are from a network address.
    #[must_use]
    pub fn from(&self, network: Network) -> usize {
        self.addresses.count(network)
    }

    /// How many there are of an identity.
    #[must_use]
    pub fn of(&self, identity: &str) -> usize {
        self.identities.count(identity)
    }

    /// One more. Each is added once.
    pub fn add(&mut self, producer: &'p str, address: Option<IpAddr>, identity: Option<&str>) {
        if self.producers.insert(producer) {
            address.into_iter().for_each(|address| self.addresses.add(Network::of(address)));
            identity.into_iter().for_each(|identity| drop(self.identities.add(identity)));
        }
    }
}
