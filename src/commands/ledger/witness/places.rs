//! How many connections a witness serves at a time, and how many of them one address may have.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most connections at a time.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// The most of them from one address.
pub(super) const OF_ONE_ADDRESS_MAX: usize = CONNECTIONS_MAX / 4;

/// The places for connections.
pub(super) struct Places {
    free: Arc<Semaphore>,
    taken: Mutex<BTreeMap<IpAddr, usize>>,
}

/// A place for a connection from an address, until it is dropped.
pub(super) struct Place {
    address: IpAddr,
    places: Arc<Places>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(CONNECTIONS_MAX)), taken: Mutex::default() })
    }

    /// Waits until there is a place for whoever comes next. `None`: there never is.
    pub(super) async fn free(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).acquire_owned().await.ok()
    }

    /// Gives a free place to an address. `None`: it has its share.
    pub(super) fn take(self: &Arc<Self>, free: OwnedSemaphorePermit, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = taken.entry(address).or_default();
        if *of_address >= OF_ONE_ADDRESS_MAX {
            return None;
        }
        *of_address += 1;
        Some(Place { address, places: Arc::clone(self), _permit: free })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_address) = taken.get_mut(&self.address) {
            *of_address = of_address.saturating_sub(1);
            if *of_address == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn one_address_has_a_quarter_of_the_places_and_gets_one_back_when_it_leaves_one() {
        let places = Places::new();
        let (greedy, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut held = Vec::new();
        for _ in 0..OF_ONE_ADDRESS_MAX {
            held.push(places.take(places.free().await.unwrap(), greedy).unwrap());
        }
        assert!(places.take(places.free().await.unwrap(), greedy).is_none());
        let mapped = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert!(places.take(places.free().await.unwrap(), mapped).is_none(), "the same address in IPv6");
        assert!(places.take(places.free().await.unwrap(), other).is_some());
        held.pop();
        assert!(places.take(places.free().await.unwrap(), greedy).is_some());
        drop(held);
        assert!(places.taken.lock().unwrap().is_empty());
        assert_eq!(places.free.available_permits(), CONNECTIONS_MAX);
    }
}
