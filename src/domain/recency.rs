//! Named values in the order in which they were last used, to be dropped oldest first.
//!
//! Every operation takes constant time. A value is found again by its [`Id`] as long as it is not removed and the
//! values are not [compacted](Recency::compact).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

use super::chunks::Chunks;

/// The place of a value.
pub type Id = u32;

/// No place.
const NONE: Id = Id::MAX;
/// Fewer places than these are not worth being given back.
const SPARSE_MIN: usize = 1_024;

/// Named values, by name and by when they were last used.
#[derive(Debug, Clone)]
pub struct Recency<V> {
    ids: HashTable<Key>,
    hasher: RandomState,
    values: Values<V>,
    vacant: Vec<Id>,
    newest: Id,
}

/// Where a name is, with its hash: a table that grows need not look at the names.
#[derive(Debug, Clone, Copy)]
struct Key {
    hash: u32,
    id: Id,
}

/// The values as they were at some time, for one who reads them while they change. To take them costs a pointer for
/// every 128 values.
#[derive(Debug)]
pub struct Values<V> {
    entries: Chunks<Option<(Arc<str>, V)>, 128>,
    /// Apart, because a use changes the links of others too.
    links: Chunks<Links, 1024>,
    oldest: Id,
    count: usize,
}

impl<V> Clone for Values<V> {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone(), links: self.links.clone(), oldest: self.oldest, count: self.count }
    }
}

/// The one that was used before, and the one that was used after.
#[derive(Debug, Clone, Copy)]
struct Links {
    before: Id,
    after: Id,
}

impl<V: Clone> Values<V> {
    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values with their names and places; the one that was not used for the longest time comes first.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &str, &V)> {
        let mut next = self.oldest;
        std::iter::from_fn(move || {
            let id = next;
            next = self.links.get(id as usize)?.after;
            self.entry(id).map(|(name, value)| (id, &**name, value))
        })
    }

    fn entry(&self, id: Id) -> Option<&(Arc<str>, V)> {
        self.entries.get(id as usize)?.as_ref()
    }

    fn link(&mut self, id: Id) -> Option<&mut Links> {
        self.links.get_mut(id as usize)
    }
}

impl<V> Default for Recency<V> {
    fn default() -> Self {
        Self {
            ids: HashTable::new(),
            hasher: RandomState::new(),
            values: Values { entries: Chunks::default(), links: Chunks::default(), oldest: NONE, count: 0 },
            vacant: Vec::new(),
            newest: NONE,
        }
    }
}

/// The same names with the same values in the same order.
impl<V: PartialEq + Clone> PartialEq for Recency<V> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.iter().map(|(_, name, value)| (name, value)).eq(other.iter().map(|(_, name, value)| (name, value)))
    }
}

impl<V: Clone> Recency<V> {
    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values as they are now, for one who reads them while they change.
    #[must_use]
    pub fn values(&self) -> Values<V> {
        self.values.clone()
    }

    fn hash(&self, name: &str) -> u32 {
        self.hasher.hash_one(name) as u32
    }

    fn find_hashed(&self, hash: u32, name: &str) -> Option<Id> {
        let is_it =
            |key: &Key| key.hash == hash && self.values.entry(key.id).is_some_and(|(known, _)| **known == *name);
        self.ids.find(widened(hash), is_it).map(|key| key.id)
    }

    /// The place of a name's value.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Id> {
        self.find_hashed(self.hash(name), name)
    }

    /// The value at a place.
    #[must_use]
    pub fn get(&self, id: Id) -> Option<&V> {
        self.values.entry(id).map(|(_, value)| value)
    }

    /// The value at a place.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut V> {
        self.values.entries.get_mut(id as usize)?.as_mut().map(|(_, value)| value)
    }

    /// Adds a value as the one used last. A name that is there already gets the new value. `None` when there are more
    /// than can be numbered.
    pub fn insert(&mut self, name: &str, value: V) -> Option<Id> {
        let hash = self.hash(name);
        if let Some(id) = self.find_hashed(hash, name) {
            *self.get_mut(id)? = value;
            self.touch(id);
            return Some(id);
        }
        self.add(hash, name.into(), value)
    }

    /// Adds a value under a name that is not there.
    fn add(&mut self, hash: u32, name: Arc<str>, value: V) -> Option<Id> {
        let entry = Some((name, value));
        let id = match self.vacant.pop() {
            Some(id) => {
                *self.values.entries.get_mut(id as usize)? = entry;
                id
            }
            None => {
                let id = Id::try_from(self.values.entries.len()).ok().filter(|id| *id != NONE)?;
                self.values.entries.push(entry);
                self.values.links.push(Links { before: NONE, after: NONE });
                id
            }
        };
        self.ids.insert_unique(widened(hash), Key { hash, id }, |key| widened(key.hash));
        self.values.count += 1;
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
        self.get(self.values.oldest).map(|value| (self.values.oldest, value))
    }

    /// Removes the value at a place.
    pub fn remove(&mut self, id: Id) -> Option<(Arc<str>, V)> {
        let (name, value) = self.values.entries.get_mut(id as usize)?.take()?;
        self.unlink(id);
        self.vacant.push(id);
        self.values.count -= 1;
        if let Ok(known) = self.ids.find_entry(widened(self.hash(&name)), |key| key.id == id) {
            known.remove();
        }
        Some((name, value))
    }

    /// The values with their names and places; the one that was not used for the longest time comes first.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &str, &V)> {
        self.values.iter()
    }

    /// Whether most of the places are empty.
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        let places = self.values.entries.len();
        places >= SPARSE_MIN && self.len() < places / 4
    }

    /// Gives the empty places back. Every value may get another place.
    pub fn compact(&mut self) {
        let mut before = std::mem::take(self);
        while let Some((name, value)) = before.remove(before.values.oldest) {
            self.add(self.hash(&name), name, value);
        }
    }

    fn append(&mut self, id: Id) {
        let newest = std::mem::replace(&mut self.newest, id);
        if let Some(links) = self.values.link(id) {
            *links = Links { before: newest, after: NONE };
        }
        match self.values.link(newest) {
            Some(links) => links.after = id,
            None => self.values.oldest = id,
        }
    }

    fn unlink(&mut self, id: Id) {
        let Some(Links { before, after }) = self.values.links.get(id as usize).copied() else { return };
        match self.values.link(before) {
            Some(links) => links.after = after,
            None => self.values.oldest = after,
        }
        match self.values.link(after) {
            Some(links) => links.before = before,
            None => self.newest = before,
        }
    }
}

/// The table takes its place from the lower bits and what it compares first from the upper ones.
fn widened(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
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
        Copy,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u8..12, any::<u32>()).prop_map(|(name, value)| Step::Insert(name, value)),
            3 => (0_u8..12).prop_map(Step::Touch),
            2 => (0_u8..12).prop_map(Step::Remove),
            1 => Just(Step::RemoveOldest),
            1 => Just(Step::Compact),
            1 => Just(Step::Copy),
        ]
    }

    proptest! {
        /// Against a list in which whatever is used goes to the end.
        #[test]
        fn it_is_a_list_in_the_order_of_use(steps in prop::collection::vec(step(), 0..120)) {
            let mut recency = Recency::default();
            let mut list: Vec<(String, u32)> = Vec::new();
            let mut copies = Vec::new();
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
                    Step::Copy => copies.push((recency.values(), list.clone())),
                }
                let held: Vec<(String, u32)> = recency.iter().map(|(_, name, value)| (name.to_owned(), *value)).collect();
                prop_assert_eq!(&held, &list);
                prop_assert_eq!(recency.len(), list.len());
                for (id, name, _) in recency.iter() {
                    prop_assert_eq!(recency.find(name), Some(id));
                }
            }
            // What was read at some time stays what it was then.
            for (values, list) in copies {
                let held: Vec<(String, u32)> = values.iter().map(|(_, name, value)| (name.to_owned(), *value)).collect();
                prop_assert_eq!(values.len(), list.len());
                prop_assert_eq!(held, list);
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
        assert_eq!(recency.values.entries.len(), 10);
        assert!(recency.ids.capacity() < 100 && recency.vacant.is_empty());
    }
}
