//! The places of connections. Those that have not proved who they are have places of their own, so that they cannot take
//! those of others. When all of these are taken, one that holds a place has to end for the next ([`Crowd`] says which): so
//! whoever says nothing, or begins and says no more, keeps nobody else out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::domain::addresses::Network;
use crate::domain::crowd::{Choice, Crowd, STALLED};

/// All places of a listener.
#[derive(Clone)]
pub(super) struct Places {
    served: Arc<Semaphore>,
    /// For connections that have to prove who they are. `None`: nobody has to.
    unproved: Option<Arc<Unproved>>,
}

/// The places of connections that have not proved who they are.
struct Unproved {
    free: Arc<Semaphore>,
    held: Mutex<Held>,
}

/// Who holds them.
#[derive(Default)]
struct Held {
    crowd: Crowd,
    /// How each is told to end.
    told: HashMap<u64, Arc<Notify>>,
}

/// The place of a connection; it is free again when this is dropped.
pub(super) struct Place {
    places: Places,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    /// Its number in the crowd.
    number: u64,
    /// It was told to end.
    told: Arc<Notify>,
}

/// So often it is waited for a place. Who ends for another one does so at once, unless its thread has much to do.
const TRIES: usize = 3;

impl Unproved {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place for a connection that comes. `None`: it gets none.
    async fn wait(&self, from: Network, now: &impl Fn() -> Duration) -> Option<OwnedSemaphorePermit> {
        for _ in 0..TRIES {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return Some(permit);
            }
            let wait = match self.choose(from, now()) {
                Choice::Ends(_) => STALLED,
                Choice::Waits(wait) => wait,
                Choice::Refused => return None,
            };
            if let Ok(permit) = timeout(wait, Arc::clone(&self.free).acquire_owned()).await {
                return permit.ok();
            }
        }
        None
    }

    /// Chooses what becomes of a connection that comes, and tells the one that has to end for it.
    fn choose(&self, from: Network, now: Duration) -> Choice {
        let mut held = self.held();
        let choice = held.crowd.choose(from, now);
        if let Choice::Ends(number) = choice
            && let Some(told) = held.told.remove(&number)
        {
            told.notify_one();
        }
        choice
    }

    fn enter(&self, from: Network, now: Duration, told: &Arc<Notify>) -> u64 {
        let mut held = self.held();
        let number = held.crowd.enter(from, now);
        held.told.insert(number, Arc::clone(told));
        number
    }

    fn leave(&self, number: u64) {
        let mut held = self.held();
        held.crowd.leave(number);
        held.told.remove(&number);
    }
}

impl Places {
    /// So many for connections that are served, and so many for those that have to prove who they are first, if they have
    /// to.
    pub(super) fn new(served: usize, unproved: Option<usize>) -> Self {
        let unproved =
            unproved.map(|most| Arc::new(Unproved { free: Arc::new(Semaphore::new(most)), held: Mutex::default() }));
        Self { served: Arc::new(Semaphore::new(served)), unproved }
    }

    /// Waits for a place for a connection that has come from a network. `None`: it gets none, because its network holds
    /// most of them, or nobody ends.
    pub(super) async fn enter(&self, from: Network, now: &impl Fn() -> Duration) -> Option<Place> {
        let told = Arc::default();
        let (permit, number) = match &self.unproved {
            None => (Arc::clone(&self.served).acquire_owned().await.ok()?, 0),
            Some(unproved) => {
                let permit = unproved.wait(from, now).await?;
                (permit, unproved.enter(from, now(), &told))
            }
        };
        Some(Place { places: self.clone(), permit: Mutex::new(Some(permit)), number, told })
    }
}

impl Place {
    /// The client has said what it has to, and waits for the gateway.
    pub(super) fn spoken(&self) {
        if let Some(unproved) = &self.places.unproved {
            unproved.held().crowd.spoken(self.number);
        }
    }

    /// The gateway has answered, and waits for the client.
    pub(super) fn answered(&self, now: Duration) {
        if let Some(unproved) = &self.places.unproved {
            unproved.held().crowd.answered(self.number, now);
        }
    }

    /// Comes when the connection is to end, because another one has to have its place.
    pub(super) async fn told_to_end(&self) {
        self.told.notified().await;
    }

    /// It is not told to end any more.
    fn leave(&self) {
        if let Some(unproved) = &self.places.unproved {
            unproved.leave(self.number);
        }
    }

    fn put(&self, permit: OwnedSemaphorePermit) {
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
    }

    /// It has proved who it is: waits for a place among those that are served.
    pub(super) async fn proved(&self) {
        self.leave();
        if let Ok(permit) = Arc::clone(&self.places.served).acquire_owned().await {
            self.put(permit);
        }
    }

    /// The same without waiting. Whether there is a place.
    pub(super) fn try_proved(&self) -> bool {
        let Ok(permit) = Arc::clone(&self.places.served).try_acquire_owned() else { return false };
        self.leave();
        self.put(permit);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // First the place is free, so that nobody else is told to end for it.
        drop(self.permit.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures::FutureExt;

    use super::*;

    async fn enter(places: &Places, from: u32) -> Option<Place> {
        places.enter(Network::of(Ipv4Addr::from_bits(from).into()), &|| Duration::ZERO).await
    }

    fn is_told(place: &Place) -> bool {
        place.told_to_end().now_or_never().is_some()
    }

    #[tokio::test]
    async fn who_has_proved_nothing_takes_no_place_of_those_who_have() {
        let places = Places::new(1, Some(2));
        let (first, second) = (enter(&places, 1).await.unwrap(), enter(&places, 2).await.unwrap());
        first.spoken();
        second.spoken();
        assert!(enter(&places, 3).now_or_never().is_none(), "a third one");
        first.proved().await;
        let third = enter(&places, 3).await.unwrap();
        assert!(!second.try_proved() && third.proved().now_or_never().is_none(), "there is one place");
        drop(first);
        assert!(second.try_proved());
        drop((second, third));
        let plain = Places::new(1, None);
        let only = enter(&plain, 1).await.unwrap();
        assert!(enter(&plain, 2).now_or_never().is_none());
        drop(only);
        assert!(enter(&plain, 2).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_ends_for_the_next_and_who_has_proved_itself_does_not() {
        let places = Places::new(2, Some(3));
        let unproved = Arc::clone(places.unproved.as_ref().unwrap());
        let (first, second, third) = (enter(&places, 1).await, enter(&places, 1).await, enter(&places, 2).await);
        let [first, second, third] = [first, second, third].map(Option::unwrap);
        for place in [&first, &second, &third] {
            place.answered(Duration::ZERO);
        }
        assert!(enter(&places, 1).await.is_none(), "its own network holds most");
        let mut coming = Box::pin(enter(&places, 3));
        assert!(coming.as_mut().now_or_never().is_none());
        assert!(is_told(&first) && !is_told(&second) && !is_told(&third));
        drop(first);
        let fourth = coming.await.unwrap();
        // Who is not asked to end any more keeps what it has.
        second.proved().await;
        third.proved().await;
        let (fifth, sixth) = (enter(&places, 4).await.unwrap(), enter(&places, 5).await.unwrap());
        assert!(enter(&places, 6).now_or_never().is_none());
        assert!(!is_told(&second) && !is_told(&third) && is_told(&fourth));
        // One that was told and has no end gets nobody else in, and nothing waits for ever.
        assert!(enter(&places, 6).await.is_none());
        drop((second, third, fourth, fifth, sixth));
        let held = unproved.held();
        assert_eq!((unproved.free.available_permits(), held.crowd.len(), held.told.len()), (3, 0, 0));
    }
}
