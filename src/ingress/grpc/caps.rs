//! How many connections one key may have at a time: a network address, an identity.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;

/// Counts what is inside, by key.
pub(super) struct Cap<K: Hash + Eq + Clone> {
    most: usize,
    inside: Mutex<HashMap<K, usize, RandomState>>,
}

/// One that is inside; goes out when it is dropped.
pub(super) struct Inside<K: Hash + Eq + Clone> {
    cap: Arc<Cap<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Cap<K> {
    /// At most so many of each key.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, inside: Mutex::default() })
    }

    /// One more, if there may be one.
    pub(super) fn enter(self: &Arc<Self>, key: K) -> Option<Inside<K>> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let count = inside.get(&key).copied().unwrap_or(0);
        if count >= self.most {
            return None;
        }
        inside.insert(key.clone(), count + 1);
        Some(Inside { cap: Arc::clone(self), key })
    }
}

impl<K: Hash + Eq + Clone> Drop for Inside<K> {
    fn drop(&mut self) {
        let mut inside = self.cap.inside.lock().unwrap_or_else(PoisonError::into_inner);
        match inside.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            // Nobody is remembered who is not here: keys come from outside.
            _ => drop(inside.remove(&self.key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_room_and_leaves_nothing_behind() {
        let cap = Cap::new(2);
        let (first, second) = (cap.enter("a"), cap.enter("a"));
        assert!(first.is_some() && second.is_some() && cap.enter("a").is_none());
        let other = cap.enter("b");
        assert!(other.is_some());
        drop(first);
        let third = cap.enter("a");
        assert!(third.is_some() && cap.enter("a").is_none());
        drop((second, third, other));
        assert!(cap.inside.lock().unwrap().is_empty());
    }
}
