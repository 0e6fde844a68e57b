//! Named values in the order in which they were last used, to be dropped oldest first.
//!
//! Every operation takes constant time. A value is found again by its [`Id`] as long as it is not removed and the
//! values are not [compacted](Recency::compact).

use std::collections::HashMap;
use std::sync::Arc;

/// The place of a value.
pub type Id = u32;

/// No place.
const NONE: Id = Id::MAX;
/// Fewer places than these are not worth being given back.
const SPARSE_MIN: usize = 1_024;

/// Named values, by name and by when they were last used.
#[derive(Debug, Clone)]
pub struct Recency<V> {
    ids: HashMap<Arc<str>, Id>,
    slots: Vec<Slot<V>>,
    vacant: Vec<Id>,
    oldest: Id,
    newest: Id,
}

#[derive(Debug, Clone)]
struct Slot<V> {
    entry: Option<(Arc<str>, V)>,
    /// The one that was used before it, and the one that was used after it.
    before: Id,
    after: Id,
}

impl<V> Default for Recency<V> {
    fn default() -> Self {
        Self { ids: HashMap::new(), slots: Vec::new(), vacant: Vec::new(), oldest: NONE, newest: NONE }
    }
}

/// The same names with the same values in the same order.
impl<V: PartialEq> PartialEq for Recency<V> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.iter().map(|(_, name, value)| (name, value)).eq(other.iter().map(|(_, name, value)| (name, value)))
    }
}

impl<V> Recency<V> {
    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The place of a name's value.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Id> {
        self.ids.get(name).copied()
    }

    /// The value at a place.
    #[must_use]
    pub fn get(&self, id: Id) -> Option<&V> {
        self.slots.get(id as usize)?.entry.as_ref().map(|(_, value)| value)
    }

    /// The value at a place.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut V> {
        self.slots.get_mut(id as usize)?.entry.as_mut().map(|(_, value)| value)
    }

    /// Adds a value as the one used last. A name that is there already gets the new value. `None` when there are more
    /// than can be numbered.
    pub fn insert(&mut self, name: &str, value: V) -> Option<Id> {
        if let Some(id) = self.find(name) {
            *self.get_mut(id)? = value;
            self.touch(id);
            return Some(id);
        }
        let name: Arc<str> = name.into();
        let slot = Slot { entry: Some((Arc::clone(&name), value)), before: NONE, after: NONE };
        let id = match self.vacant.pop() {
            Some(id) => {
                *self.slots.get_mut(id as usize)? = slot;
                id
            }
            None => {
                let id = Id::try_from(self.slots.len()).ok().filter(|id| *id != NONE)?;
                self.slots.push(slot);
                id
            }
        };
        self.ids.insert(name, id);
        self.append(id);
        Some(id)
    }

    /// The value at a place was used now.
    pub fn touch(&mut self, id: Id) {
        if id != self.newest && self.get(id).is_some() {
            self.unlink(id);
            self.append(id);
        }
    }

    /// The value that was not used for the longest time.
    #[must_use]
    pub fn oldest(&self) -> Option<(Id, &V)> {
        self.get(self.oldest).map(|value| (self.oldest, value))
    }

    /// Removes the value at a place.
    pub fn remove(&mut self, id: Id) -> Option<(Arc<str>, V)> {
        let (name, value) = self.slots.get_mut(id as usize)?.entry.take()?;
        self.unlink(id);
        self.vacant.push(id);
        self.ids.remove(&name);
        Some((name, value))
    }

    /// The values with their names and places; the one that was not used for the longest time comes first.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &str, &V)> {
        let mut next = self.oldest;
        std::iter::from_fn(move || {
            let id = next;
            let slot = self.slots.get(id as usize)?;
            next = slot.after;
            slot.entry.as_ref().map(|(name, value)| (id, &**name, value))
        })
    }

    /// Whether most of the places are empty.
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        self.slots.len() >= SPARSE_MIN && self.len() < self.slots.len() / 4
    }

    /// Gives the empty places back. Every value may get another place.
    pub fn compact(&mut self) {
        let mut before = std::mem::take(self);
        self.ids.reserve(before.len());
        self.slots.reserve(before.len());
        while let Some((name, value)) = before.remove(before.oldest) {
            self.insert(&name, value);
        }
    }

    /// The values, in no order.
    pub fn values_mut(&mut self) -> impl Iterator<Item = (&str, &mut V)> {
        self.slots.iter_mut().filter_map(|slot| slot.entry.as_mut()).map(|(name, value)| (&**name, value))
    }

    fn append(&mut self, id: Id) {
        let newest = std::mem::replace(&mut self.newest, id);
        if let Some(slot) = self.slots.get_mut(id as usize) {
            (slot.before, slot.after) = (newest, NONE);
        }
        match self.slots.get_mut(newest as usize) {
            Some(slot) => slot.after = id,
            None => self.oldest = id,
        }
    }

    fn unlink(&mut self, id: Id) {
        let Some((before, after)) = self.slots.get(id as usize).map(|slot| (slot.before, slot.after)) else { return };
        match self.slots.get_mut(before as usize) {
            Some(slot) => slot.after = after,
            None => self.oldest = after,
        }
        match self.slots.get_mut(after as usize) {
            Some(slot) => slot.before = before,
            None => self.newest = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u8, u32),
        Touch(u8),
        Remove(u8),
        RemoveOldest,
        Compact,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u8..12, any::<u32>()).prop_map(|(name, value)| Step::Insert(name, value)),
            3 => (0_u8..12).prop_map(Step::Touch),
            2 => (0_u8..12).prop_map(Step::Remove),
            1 => Just(Step::RemoveOldest),
            1 => Just(Step::Compact),
        ]
    }

    proptest! {
        /// Against a list in which whatever is used goes to the end.
        #[test]
        fn it_is_a_list_in_the_order_of_use(steps in prop::collection::vec(step(), 0..120)) {
            let mut recency = Recency::default();
            let mut list: Vec<(String, u32)> = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(name, value) => {
                        let name = name.to_string();
                        recency.insert(&name, value);
                        list.retain(|(other, _)| *other != name);
                        list.push((name, value));
                    }
                    Step::Touch(name) => {
                        let name = name.to_string();
                        if let Some(id) = recency.find(&name) {
                            recency.touch(id);
                        }
                        if let Some(position) = list.iter().position(|(other, _)| *other == name) {
                            let entry = list.remove(position);
                            list.push(entry);
                        }
                    }
                    Step::Remove(name) => {
                        let name = name.to_string();
                        let removed = recency.find(&name).and_then(|id| recency.remove(id));
                        let position = list.iter().position(|(other, _)| *other == name);
                        let expected = position.map(|position| list.remove(position));
                        prop_assert_eq!(removed.map(|(name, value)| (name.to_string(), value)), expected);
                    }
                    Step::RemoveOldest => {
                        let oldest = recency.oldest().map(|(id, _)| id);
                        let removed = oldest.and_then(|id| recency.remove(id)).map(|(_, value)| value);
                        let expected = (!list.is_empty()).then(|| list.remove(0).1);
                        prop_assert_eq!(removed, expected);
                    }
                    Step::Compact => recency.compact(),
                }
                let held: Vec<(String, u32)> = recency.iter().map(|(_, name, value)| (name.to_owned(), *value)).collect();
                prop_assert_eq!(&held, &list);
                prop_assert_eq!(recency.len(), list.len());
                for (id, name, _) in recency.iter() {
                    prop_assert_eq!(recency.find(name), Some(id));
                }
            }
        }
    }

    #[test]
    fn places_that_many_left_are_given_back() {
        let mut recency = Recency::default();
        for name in 0..10_000 {
            recency.insert(&name.to_string(), name);
        }
        while recency.len() > 10 {
            let (id, _) = recency.oldest().unwrap();
            recency.remove(id);
        }
        assert!(recency.is_sparse());
        recency.compact();
        assert_eq!(recency.slots.len(), 10);
        assert!(recency.ids.capacity() < 100 && recency.vacant.is_empty());
    }
}
