//! How many connections there may be. Those of this machine have places of their own, so that whoever fills all others
//! cannot make the gateway look dead to what watches it here.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::addresses::{Addresses, Network};

/// The most connections of this machine, of all others together, and of one address among these.
const HERE_MAX: usize = 16;
const OTHERS_MAX: usize = 64;
const OF_ADDRESS_MAX: usize = 16;

/// Counts the connections that are open.
#[derive(Default)]
pub(super) struct Places(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    here: usize,
    others: usize,
    by_address: Addresses,
}

/// The place of one connection; given back when it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    /// A place for a connection from an address, if there is one.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if address.is_loopback() {
            if taken.here == HERE_MAX {
                return None;
            }
            taken.here += 1;
        } else {
            let network = Network::of(address);
            if taken.others == OTHERS_MAX || taken.by_address.count(network) == OF_ADDRESS_MAX {
                return None;
            }
            taken.others += 1;
            taken.by_address.add(network);
        }
        Some(Place { places: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.address.is_loopback() {
            taken.here -= 1;
        } else {
            taken.others -= 1;
            taken.by_address.remove(Network::of(self.address));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_leave_places_for_this_machine_and_one_address_leaves_some_for_others() {
        let places = Arc::new(Places::default());
        let enter = |address: &str| places.enter(address.parse().unwrap());
        let mut inside: Vec<Place> = Vec::new();
        for network in 0..8 {
            for _ in 0..2 * OF_ADDRESS_MAX {
                inside.extend(enter(&format!("192.0.2.{network}")));
            }
        }
        assert_eq!(inside.len(), OTHERS_MAX);
        assert!(enter("192.0.2.99").is_none());
        inside.extend((0..2 * HERE_MAX).filter_map(|_| enter("127.0.0.1")));
        assert_eq!(inside.len(), OTHERS_MAX + HERE_MAX);
        drop(inside);
        assert!(enter("192.0.2.99").is_some() && enter("::1").is_some());
        let of_one: Vec<Place> = (0..OTHERS_MAX).filter_map(|_| enter("192.0.2.1")).collect();
        assert_eq!(of_one.len(), OF_ADDRESS_MAX);
    }
}
