//! How many connections there may be. Those of this machine have places of their own, so that whoever fills all others
//! cannot make the gateway look dead to what watches it here.
//!
//! When all places are taken, a connection that nobody has let read anything ends for the next ([`Crowd`] says which): so
//! whoever connects and stays keeps nobody else out. Whom a rule lets read keeps its place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::domain::addresses::{Addresses, Network};
use crate::domain::crowd::{Choice, Crowd};

/// The most connections of this machine, of all others together, and of one address among these.
const HERE_MAX: usize = 16;
const OTHERS_MAX: usize = 64;
const OF_ADDRESS_MAX: usize = 16;
/// The most connections that there may be.
pub const CONNECTIONS_MAX: usize = HERE_MAX + OTHERS_MAX;

/// Counts the connections that are open.
#[derive(Default)]
pub(super) struct Places(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    here: Group,
    others: Group,
    by_address: Addresses,
}

/// Connections that share their places.
#[derive(Default)]
struct Group {
    taken: usize,
    /// Those that end for others.
    crowd: Crowd,
    /// How each of them is told to.
    told: HashMap<u64, Arc<Notify>>,
}

/// The place of one connection; given back when it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    from: From,
    number: u64,
    told: Arc<Notify>,
}

/// Where a connection comes from.
#[derive(Clone, Copy)]
struct From {
    is_here: bool,
    network: Network,
}

impl From {
    fn of(address: IpAddr) -> Self {
        Self { is_here: address.to_canonical().is_loopback(), network: Network::of(address) }
    }

    fn most(self) -> usize {
        if self.is_here { HERE_MAX } else { OTHERS_MAX }
    }
}

impl Taken {
    fn group(&mut self, from: From) -> &mut Group {
        if from.is_here { &mut self.here } else { &mut self.others }
    }
}

impl Group {
    /// Makes room for one more if all places are taken. Whether there is room.
    fn make_room(&mut self, from: From, now: Duration) -> bool {
        if self.taken < from.most() {
            return true;
        }
        let Choice::Ends(number) = self.crowd.choose(from.network, now) else { return false };
        if let Some(told) = self.told.remove(&number) {
            told.notify_one();
        }
        true
    }
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from an address, if there is one. Another one may be told to end for it.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, now: Duration) -> Option<Place> {
        let (from, told) = (From::of(address), Arc::<Notify>::default());
        let mut taken = self.taken();
        if !from.is_here && taken.by_address.count(from.network) >= OF_ADDRESS_MAX {
            return None;
        }
        let group = taken.group(from);
        if !group.make_room(from, now) {
            return None;
        }
        group.taken += 1;
        let number = group.crowd.enter(from.network, now);
        group.told.insert(number, Arc::clone(&told));
        taken.by_address.add(from.network);
        drop(taken);
        Some(Place { places: Arc::clone(self), from, number, told })
    }
}

impl Place {
    /// Comes when the connection is to end, because another one has to have its place.
    pub(super) fn told_to_end(&self) -> impl Future<Output = ()> + Send + use<> {
        let told = Arc::clone(&self.told);
        async move { told.notified().await }
    }

    /// Somebody who may read speaks on it: it ends for nobody.
    pub(super) fn keep(&self) {
        let mut taken = self.places.taken();
        let group = taken.group(self.from);
        group.crowd.leave(self.number);
        group.told.remove(&self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.keep();
        let mut taken = self.places.taken();
        taken.group(self.from).taken -= 1;
        taken.by_address.remove(self.from.network);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn enter(places: &Arc<Places>, address: &str) -> Option<Place> {
        places.enter(address.parse().unwrap(), Duration::ZERO)
    }

    fn is_told(place: &Place) -> bool {
        place.told_to_end().now_or_never().is_some()
    }

    #[test]
    fn others_leave_places_for_this_machine_and_one_address_leaves_some_for_others() {
        let places = Arc::new(Places::default());
        let mut inside: Vec<Place> = (0..OTHERS_MAX).filter_map(|_| enter(&places, "192.0.2.1")).collect();
        assert_eq!(inside.len(), OF_ADDRESS_MAX);
        inside.extend((0..4).filter_map(|_| enter(&places, "::ffff:127.0.0.1")));
        inside.extend((4..HERE_MAX).filter_map(|_| enter(&places, "127.0.0.1")));
        assert_eq!(places.taken().here.taken, HERE_MAX, "an address of this machine written both ways");
        assert!(enter(&places, "192.0.2.9").is_some());
        drop(inside);
        let taken = places.taken();
        assert_eq!((taken.here.taken, taken.others.taken), (0, 0));
    }

    #[test]
    fn who_sits_on_all_places_keeps_nobody_out_and_who_may_read_keeps_its_own() {
        let places = Arc::new(Places::default());
        let of_network = |network: usize| enter(&places, &format!("192.0.2.{network}")).unwrap();
        let mut sitting: Vec<Place> = (0..OTHERS_MAX).map(|number| of_network(number / OF_ADDRESS_MAX)).collect();
        sitting[0].keep();
        let prometheus = enter(&places, "198.51.100.7").unwrap();
        let told: Vec<usize> = (0..OTHERS_MAX).filter(|number| is_told(&sitting[*number])).collect();
        assert_eq!(told.len(), 1);
        assert_ne!(told[0], 0, "it may read");
        drop(sitting.remove(told[0]));
        // However many come of those, the one of another address stays.
        for number in 0..10 * OTHERS_MAX {
            sitting.extend(enter(&places, &format!("192.0.2.{}", number % 4)));
            sitting.retain(|place| !is_told(place));
        }
        assert!(!is_told(&prometheus));
        sitting.iter().for_each(Place::keep);
        prometheus.keep();
        assert!(enter(&places, "198.51.100.8").is_none(), "all of them may read");
        let here: Vec<Place> = (0..HERE_MAX).map(|_| enter(&places, "127.0.0.1").unwrap()).collect();
        assert!(enter(&places, "127.0.0.1").is_some());
        assert!(is_told(&here[0]) && !here[1..].iter().any(is_told));
    }
}
