//! A pot of the budget: so many bytes, that are taken and given back.
//!
//! It is a semaphore that costs two additions while nobody waits: most requests are of one record, and each takes from
//! five pots. Who waits is served in turn, before anybody else.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

#[derive(Debug)]
pub(super) struct Pot {
    all: u32,
    free: AtomicU32,
    /// How many wait, counted before they are in the queue.
    waits: AtomicUsize,
    waiting: Mutex<VecDeque<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    bytes: u32,
    to: oneshot::Sender<Taken>,
}

/// Bytes that were taken for somebody who waits; given back if he is gone.
#[derive(Debug)]
struct Taken {
    pot: Arc<Pot>,
    bytes: u32,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.pot.give(self.bytes);
        }
    }
}

impl Pot {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        let all = super::size(bytes);
        Arc::new(Self { all, free: AtomicU32::new(all), waits: AtomicUsize::new(0), waiting: Mutex::default() })
    }

    /// How many bytes it has in all.
    pub(super) fn all(&self) -> u32 {
        self.all
    }

    /// Takes bytes, if they are there and nobody waits.
    pub(super) fn try_take(&self, bytes: u32) -> bool {
        self.waits.load(Ordering::SeqCst) == 0 && self.take_now(bytes)
    }

    /// Takes bytes, of which there must not be more than all. Waits for them in turn.
    pub(super) async fn take(self: &Arc<Self>, bytes: u32) {
        // Whoever goes away while he waits lets those behind him go on.
        let _serves = Serves(self);
        let (to, taken) = oneshot::channel();
        self.waits.fetch_add(1, Ordering::SeqCst);
        self.lock().push_back(Waiter { bytes, to });
        self.serve();
        // Nobody is taken out of the queue without being served.
        if let Ok(mut taken) = taken.await {
            taken.bytes = 0;
        }
    }

    pub(super) fn give(self: &Arc<Self>, bytes: u32) {
        self.free.fetch_add(bytes, Ordering::SeqCst);
        // Either this sees who began to wait, or he sees what was given.
        if self.waits.load(Ordering::SeqCst) > 0 {
            self.serve();
        }
    }

    fn take_now(&self, bytes: u32) -> bool {
        let less = |free: u32| free.checked_sub(bytes);
        self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }

    fn serve(self: &Arc<Self>) {
        while let Some(Waiter { bytes, to }) = self.next() {
            // Outside the lock: if he is gone by now, the bytes are given back here.
            drop(to.send(Taken { pot: Arc::clone(self), bytes }));
        }
    }

    /// The first who waits, if there is room for him; it is taken.
    fn next(&self) -> Option<Waiter> {
        let mut waiting = self.lock();
        while waiting.front().is_some_and(|first| first.to.is_closed()) {
            waiting.pop_front();
            self.waits.fetch_sub(1, Ordering::SeqCst);
        }
        let first = waiting.front().filter(|first| self.take_now(first.bytes)).is_some();
        let first = first.then(|| waiting.pop_front()).flatten();
        if first.is_some() {
            self.waits.fetch_sub(1, Ordering::SeqCst);
        }
        first
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> u32 {
        self.free.load(Ordering::SeqCst)
    }
}

struct Serves<'l>(&'l Arc<Pot>);

impl Drop for Serves<'_> {
    fn drop(&mut self) {
        if self.0.waits.load(Ordering::SeqCst) > 0 {
            self.0.serve();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    type Waits = std::pin::Pin<Box<dyn Future<Output = u32>>>;

    fn waits(pot: &Arc<Pot>, bytes: u32) -> Waits {
        let pot = Arc::clone(pot);
        Box::pin(async move {
            pot.take(bytes).await;
            bytes
        })
    }

    proptest! {
        /// Whoever takes, waits, goes away and gives back: those who wait are served in turn, as soon as there is room, and
        /// no byte is lost or made.
        #[test]
        fn who_waits_is_served_in_turn(
            steps in prop::collection::vec((0..4_u8, 1..=10_u32, any::<prop::sample::Index>()), 1..60),
        ) {
            let pot = Pot::new(10);
            let (mut held, mut waiting): (Vec<u32>, Vec<Waits>) = (Vec::new(), Vec::new());
            let mut wanted: Vec<u32> = Vec::new();
            for (step, bytes, at) in steps {
                match step {
                    0 => {
                        let free = 10 - held.iter().sum::<u32>();
                        prop_assert_eq!(pot.try_take(bytes), wanted.is_empty() && bytes <= free);
                        held.extend((wanted.is_empty() && bytes <= free).then_some(bytes));
                    }
                    1 => {
                        let mut future = waits(&pot, bytes);
                        match future.as_mut().now_or_never() {
                            Some(bytes) => held.push(bytes),
                            None => {
                                waiting.push(future);
                                wanted.push(bytes);
                            }
                        }
                    }
                    2 if !held.is_empty() => pot.give(held.swap_remove(at.index(held.len()))),
                    3 if !waiting.is_empty() => {
                        let at = at.index(waiting.len());
                        drop(waiting.remove(at));
                        wanted.remove(at);
                    }
                    _ => {}
                }
                // Those at the front for whom there is room now, and no others.
                while let Some(&first) = wanted.first().filter(|first| held.iter().sum::<u32>() + **first <= 10) {
                    prop_assert_eq!(waiting.remove(0).now_or_never(), Some(first));
                    wanted.remove(0);
                    held.push(first);
                }
                prop_assert!(waiting.iter_mut().all(|future| future.as_mut().now_or_never().is_none()));
                prop_assert_eq!(pot.free(), 10 - held.iter().sum::<u32>());
            }
            waiting.clear();
            held.drain(..).for_each(|bytes| pot.give(bytes));
            prop_assert_eq!(pot.free(), 10);
            prop_assert!(pot.try_take(10), "nobody waits any more");
        }
    }

    #[test]
    fn many_threads_neither_lose_a_byte_nor_wait_for_ever() {
        let pot = Pot::new(7);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let pot = &pot;
                scope.spawn(move || {
                    for round in 0..5_000_u32 {
                        let bytes = 1 + (round * 3 + thread) % 7;
                        if !pot.try_take(bytes) {
                            futures::executor::block_on(pot.take(bytes));
                        }
                        pot.give(bytes);
                    }
                });
            }
        });
        assert_eq!(pot.free(), 7);
        assert_eq!(pot.waits.load(Ordering::SeqCst), 0);
    }
}
