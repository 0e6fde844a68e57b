//! How many of something came from which network address.

use std::collections::HashMap;
use std::net::IpAddr;

/// A count for each network address.
#[derive(Debug, Default, Clone)]
pub struct Addresses {
    counts: HashMap<Network, usize>,
}

/// What counts as one address. Whoever has one IPv6 address most often has its whole network of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(Bits);

/// Sixteen bytes instead of the seventeen of an address, which would take twenty-four beside numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Bits {
    V4(u32),
    V6(u64),
}

impl Network {
    /// The network of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => Bits::V4(address.to_bits()),
            IpAddr::V6(address) => Bits::V6((address.to_bits() >> 64) as u64),
        })
    }
}

impl Addresses {
    /// How many came from an address.
    #[must_use]
    pub fn count(&self, network: Network) -> usize {
        self.counts.get(&network).copied().unwrap_or(0)
    }

    /// How many came from the address that most came from.
    #[must_use]
    pub fn greatest(&self) -> usize {
        self.counts.values().copied().max().unwrap_or(0)
    }

    /// One more came.
    pub fn add(&mut self, network: Network) {
        *self.counts.entry(network).or_default() += 1;
    }

    /// One of those that came is gone.
    pub fn remove(&mut self, network: Network) {
        let Some(count) = self.counts.get_mut(&network) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.counts.remove(&network);
        }
    }

    /// Gives back memory that is not needed any more.
    pub fn shrink(&mut self) {
        self.counts.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_address_and_an_address_written_both_ways_too() {
        let network = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8:0:0:ffff::7"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        let mut addresses = Addresses::default();
        let here = network("192.0.2.1");
        addresses.add(here);
        addresses.add(here);
        addresses.remove(here);
        assert_eq!(addresses.count(here), 1);
        addresses.add(network("192.0.2.2"));
        addresses.add(network("192.0.2.2"));
        assert_eq!(addresses.greatest(), 2);
        addresses.remove(network("192.0.2.2"));
        addresses.remove(network("192.0.2.2"));
        assert_eq!(addresses.greatest(), 1);
        addresses.remove(here);
        addresses.remove(here);
        assert_eq!((addresses.count(here), addresses.counts.len()), (0, 0));
    }
}
