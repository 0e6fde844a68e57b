//! The places of connections. Those that have not proved who they are have places of their own, so that they cannot take
//! those of others. When all of these are taken, the one that has said nothing for longest is ended for the next: so
//! silent connections, however many, keep nobody out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// All places of a listener.
#[derive(Clone)]
pub(super) struct Places {
    served: Arc<Semaphore>,
    /// For connections that have to prove who they are. `None`: nobody has to.
    unproved: Option<Arc<Unproved>>,
}

/// The places of connections that have not proved who they are.
struct Unproved {
    most: usize,
    free: Arc<Semaphore>,
    /// Those that came, in their order; some have spoken or gone since.
    came: Mutex<VecDeque<Weak<Held>>>,
    /// How many were told to end and have not ended yet.
    ending: Arc<AtomicUsize>,
}

/// The place of a connection; it is free again when this is dropped.
pub(super) struct Place {
    places: Places,
    held: Arc<Held>,
}

struct Held {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    /// Whether it may be told to end.
    is_silent: AtomicBool,
    /// It was told to.
    told: Notify,
    /// Where it counts then.
    ending: OnceLock<Arc<AtomicUsize>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // First the place is free, then another one may be told to end.
        drop(self.permit.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(ending) = self.ending.get() {
            ending.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Unproved {
    /// Tells the one that has said nothing for longest to end, unless one was told to that is still there.
    fn end_oldest(&self) {
        let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        while self.ending.load(Ordering::Relaxed) == 0 {
            let Some(oldest) = came.pop_front() else { return };
            let Some(held) = oldest.upgrade().filter(|held| held.is_silent.load(Ordering::Relaxed)) else { continue };
            self.ending.fetch_add(1, Ordering::Relaxed);
            // Nobody else sets it: it was taken out of the list.
            let _ = held.ending.set(Arc::clone(&self.ending));
            held.told.notify_one();
        }
    }

    fn enter(&self, held: &Arc<Held>) {
        let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        if came.len() >= 2 * self.most {
            let is_silent =
                |held: &Weak<Held>| held.upgrade().is_some_and(|held| held.is_silent.load(Ordering::Relaxed));
            came.retain(is_silent);
        }
        came.push_back(Arc::downgrade(held));
    }

    async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(permit);
        }
        self.end_oldest();
        Arc::clone(&self.free).acquire_owned().await.ok()
    }
}

impl Places {
    /// So many for connections that are served, and so many for those that have to prove who they are first, if they have
    /// to.
    pub(super) fn new(served: usize, unproved: Option<usize>) -> Self {
        let unproved = unproved.map(|most| {
            let free = Arc::new(Semaphore::new(most));
            Arc::new(Unproved { most, free, came: Mutex::default(), ending: Arc::default() })
        });
        Self { served: Arc::new(Semaphore::new(served)), unproved }
    }

    /// Waits for a place for a connection that comes.
    pub(super) async fn enter(&self) -> Option<Place> {
        let permit = match &self.unproved {
            None => Arc::clone(&self.served).acquire_owned().await.ok()?,
            Some(unproved) => unproved.wait().await?,
        };
        let held = Arc::new(Held {
            permit: Mutex::new(Some(permit)),
            is_silent: AtomicBool::new(self.unproved.is_some()),
            told: Notify::new(),
            ending: OnceLock::new(),
        });
        Some(Place { places: self.clone(), held })
    }
}

impl Place {
    /// A connection has come for it.
    pub(super) fn taken(&self) {
        if let Some(unproved) = &self.places.unproved {
            unproved.enter(&self.held);
        }
    }

    /// The client has said something: it is not told to end any more.
    pub(super) fn spoken(&self) {
        self.held.is_silent.store(false, Ordering::Relaxed);
    }

    /// Comes when the connection is to end, because others wait for its place.
    pub(super) async fn told_to_end(&self) {
        self.held.told.notified().await;
    }

    fn put(&self, permit: OwnedSemaphorePermit) {
        *self.held.permit.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
    }

    /// It has proved who it is: waits for a place among those that are served.
    pub(super) async fn proved(&self) {
        if let Ok(permit) = Arc::clone(&self.places.served).acquire_owned().await {
            self.put(permit);
        }
    }

    /// The same without waiting. Whether there is a place.
    pub(super) fn try_proved(&self) -> bool {
        let permit = Arc::clone(&self.places.served).try_acquire_owned();
        permit.map(|permit| self.put(permit)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    async fn arrived(places: &Places) -> Place {
        let place = places.enter().await.unwrap();
        place.taken();
        place
    }

    #[tokio::test]
    async fn who_has_proved_nothing_takes_no_place_of_those_who_have() {
        let places = Places::new(1, Some(2));
        let (first, second) = (arrived(&places).await, arrived(&places).await);
        first.spoken();
        second.spoken();
        assert!(places.enter().now_or_never().is_none(), "a third one");
        first.proved().await;
        let third = arrived(&places).await;
        assert!(!second.try_proved() && third.proved().now_or_never().is_none(), "there is one place");
        drop(first);
        assert!(second.try_proved());
        drop((second, third));
        let plain = Places::new(1, None);
        let only = plain.enter().await.unwrap();
        assert!(plain.enter().now_or_never().is_none());
        drop(only);
        assert!(plain.enter().await.is_some());
    }

    #[tokio::test]
    async fn who_has_said_nothing_for_longest_ends_for_the_next() {
        let places = Places::new(1, Some(3));
        let unproved = Arc::clone(places.unproved.as_ref().unwrap());
        let (first, second, third) = (arrived(&places).await, arrived(&places).await, arrived(&places).await);
        first.spoken();
        // However often it is tried, one alone is told, until it has ended.
        for _ in 0..3 {
            assert!(places.enter().now_or_never().is_none());
        }
        assert!(second.told_to_end().now_or_never().is_some() && third.told_to_end().now_or_never().is_none());
        drop(second);
        let fourth = arrived(&places).await;
        assert!(first.told_to_end().now_or_never().is_none() && third.told_to_end().now_or_never().is_none());
        assert!(places.enter().now_or_never().is_none());
        assert!(third.told_to_end().now_or_never().is_some() && fourth.told_to_end().now_or_never().is_none());
        drop(third);
        for _ in 0..100 {
            drop(arrived(&places).await);
        }
        assert!(unproved.came.lock().unwrap().len() <= 6);
        drop((first, fourth));
        assert_eq!((unproved.free.available_permits(), unproved.ending.load(Ordering::Relaxed)), (3, 0));
    }
}
