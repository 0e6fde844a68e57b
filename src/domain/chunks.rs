//! A list in chunks that copies of it share: a copy costs a pointer per chunk, and the first change of a chunk after that
//! copies this chunk alone. It grows without moving what it holds.

use std::sync::Arc;

/// The list, of chunks of `N`.
#[derive(Debug)]
pub(super) struct Chunks<T, const N: usize> {
    chunks: Vec<Arc<Vec<T>>>,
}

impl<T, const N: usize> Default for Chunks<T, N> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T, const N: usize> Clone for Chunks<T, N> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone() }
    }
}

impl<T: Clone, const N: usize> Chunks<T, N> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * N + last.len())
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at / N)?.get(at % N)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        own::<T, N>(self.chunks.get_mut(at / N)?).get_mut(at % N)
    }

    /// Adds one at the end.
    pub(super) fn push(&mut self, value: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < N => own::<T, N>(last).push(value),
            _ => {
                let mut chunk = Vec::with_capacity(N);
                chunk.push(value);
                self.chunks.push(Arc::new(chunk));
            }
        }
    }
}

/// Makes the chunk unshared, with room for all its values.
fn own<T: Clone, const N: usize>(chunk: &mut Arc<Vec<T>>) -> &mut Vec<T> {
    if Arc::get_mut(chunk).is_none() {
        let mut copy = Vec::with_capacity(N);
        copy.extend_from_slice(chunk);
        *chunk = Arc::new(copy);
    }
    Arc::make_mut(chunk)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against lists that are copied whole.
        #[test]
        fn a_copy_stays_what_it_was(
            steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>(), any::<u16>()), 0..100),
        ) {
            let (mut chunks, mut list) = (Chunks::<u16, 3>::default(), Vec::new());
            let mut copies = Vec::new();
            for (kind, at, value) in steps {
                match kind {
                    0 | 1 => {
                        chunks.push(value);
                        list.push(value);
                    }
                    2 if !list.is_empty() => {
                        let at = at.index(list.len());
                        *chunks.get_mut(at).unwrap() = value;
                        list[at] = value;
                    }
                    _ => copies.push((chunks.clone(), list.clone())),
                }
                prop_assert_eq!(chunks.len(), list.len());
                prop_assert!(chunks.chunks.iter().all(|chunk| chunk.capacity() == 3));
            }
            copies.push((chunks, list));
            for (chunks, list) in copies {
                let held: Vec<u16> = (0..chunks.len()).map(|at| *chunks.get(at).unwrap()).collect();
                prop_assert_eq!(held, list);
                prop_assert!(chunks.get(chunks.len()).is_none());
            }
        }
    }
}
