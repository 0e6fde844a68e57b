//! The Merkle tree of RFC 6962: hashes, roots, proofs, and what checks them. SHA-256.

use sha2::{Digest as _, Sha256};

/// A node of the tree.
pub type Hash = [u8; 32];

/// The hash of an entry.
#[must_use]
pub fn leaf(entry: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

/// The hash of two nodes.
#[must_use]
pub fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of as many hashes as a power of two, in order.
#[must_use]
pub fn perfect(hashes: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    hashes.iter().for_each(|hash| frontier.push(*hash));
    frontier.root()
}

/// The right edge of a tree: all that is needed to add to it and to know its root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// The perfect trees that it is made of, with their levels, the largest first.
    peaks: Vec<(u32, Hash)>,
}

impl Frontier {
    /// Adds the hash of an entry.
    pub fn push(&mut self, leaf: Hash) {
        self.push_tree(0, leaf);
    }

    /// Adds a perfect tree of `2^level` entries. Everything before it must be made of trees at least as large.
    pub fn push_tree(&mut self, level: u32, root: Hash) {
        let (mut top, mut hash) = (level, root);
        while let Some((_, left)) = self.peaks.pop_if(|(peak, _)| *peak == top) {
            hash = node(&left, &hash);
            top += 1;
        }
        self.peaks.push((top, hash));
        self.size += 1 << level;
    }

    /// How many entries the tree has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The tree's root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev().map(|(_, hash)| *hash);
        let Some(last) = peaks.next() else { return Sha256::digest([]).into() };
        peaks.fold(last, |right, left| node(&left, &right))
    }
}

/// Gives the root of the perfect tree of `2^level` entries that begins at entry `index << level`; `None` if it is not known.
pub type Trees<'a> = &'a dyn Fn(u32, u64) -> Option<Hash>;

/// The hashes that show that an entry is in the tree of the first `size` entries. `None` if it is not, or a tree is not
/// known.
#[must_use]
pub fn inclusion(index: u64, size: u64, trees: Trees<'_>) -> Option<Vec<Hash>> {
    if index >= size {
        return None;
    }
    let (mut from, mut to, mut siblings) = (0, size, Vec::new());
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            siblings.push(root(middle, to, trees)?);
            to = middle;
        } else {
            siblings.push(root(from, middle, trees)?);
            from = middle;
        }
    }
    siblings.reverse();
    Some(siblings)
}

/// The hashes that show that the tree of the first `old` entries is the beginning of that of the first `new`.
#[must_use]
pub fn consistency(old: u64, new: u64, trees: Trees<'_>) -> Option<Vec<Hash>> {
    if old > new {
        return None;
    }
    if old == 0 || old == new {
        return Some(Vec::new());
    }
    let (mut from, mut to, mut siblings, mut is_left_edge) = (0, new, Vec::new(), true);
    while to != old {
        let middle = from + split(to - from);
        if old <= middle {
            siblings.push(root(middle, to, trees)?);
            to = middle;
        } else {
            siblings.push(root(from, middle, trees)?);
            from = middle;
            is_left_edge = false;
        }
    }
    if !is_left_edge {
        siblings.push(root(from, to, trees)?);
    }
    siblings.reverse();
    Some(siblings)
}

/// The largest power of two below a number of entries, which is 2 at least.
fn split(entries: u64) -> u64 {
    1 << (63 - (entries - 1).leading_zeros())
}

fn root(from: u64, to: u64, trees: Trees<'_>) -> Option<Hash> {
    let entries = to - from;
    if entries.is_power_of_two() {
        let level = entries.trailing_zeros();
        return trees(level, from >> level);
    }
    let middle = from + split(entries);
    Some(node(&root(from, middle, trees)?, &root(middle, to, trees)?))
}

/// A tree by its size and its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root<'h> {
    /// How many entries it has.
    pub size: u64,
    /// The hash of all of them.
    pub hash: &'h Hash,
}

/// Whether a proof shows that one tree is the beginning of another.
#[must_use]
pub fn is_consistent(old: Root<'_>, new: Root<'_>, proof: &[Hash]) -> bool {
    if old.size == 0 || old.size >= new.size {
        return proof.is_empty() && (old.size == 0 || old == new);
    }
    let (mut at, mut last) = (old.size - 1, new.size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let mut proof = proof.iter();
    // The old tree is perfect: its root is the first hash.
    let first = if at == 0 { Some(old.hash) } else { proof.next() };
    let Some(first) = first else { return false };
    let (mut before, mut after) = (*first, *first);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            before = node(sibling, &before);
            after = node(sibling, &after);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            after = node(&after, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && before == *old.hash && after == *new.hash
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::binary;

    /// RFC 6962, section 2.1, word by word.
    fn slow(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => *leaf,
            _ => {
                let middle = split(leaves.len() as u64) as usize;
                node(&slow(&leaves[..middle]), &slow(&leaves[middle..]))
            }
        }
    }

    /// Whether a proof shows that an entry with this hash is at `index` in the tree of `size` entries with this root.
    fn is_included(leaf: &Hash, index: u64, tree: Root<'_>, proof: &[Hash]) -> bool {
        if index >= tree.size {
            return false;
        }
        let (mut at, mut last, mut hash) = (index, tree.size - 1, *leaf);
        for sibling in proof {
            if last == 0 {
                return false;
            }
            if at & 1 == 1 || at == last {
                hash = node(sibling, &hash);
                while at & 1 == 0 && at != 0 {
                    at >>= 1;
                    last >>= 1;
                }
            } else {
                hash = node(&hash, sibling);
            }
            at >>= 1;
            last >>= 1;
        }
        last == 0 && hash == *tree.hash
    }

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|number| leaf(&number.to_be_bytes())).collect()
    }

    fn trees(leaves: &[Hash]) -> impl Fn(u32, u64) -> Option<Hash> + '_ {
        |level, index| {
            let from = usize::try_from(index << level).ok()?;
            leaves.get(from..from + (1 << level)).map(slow)
        }
    }

    #[test]
    fn known_hashes_come_out() {
        // The empty tree and the empty entry, of RFC 6962's own test data.
        let hex = |hash: Hash| binary::hex(&hash);
        assert_eq!(hex(Frontier::default().root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex(leaf(b"")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    }

    #[test]
    fn every_small_tree_and_every_proof_is_that_of_the_reference() {
        let all = leaves(40);
        let mut frontier = Frontier::default();
        for size in 0..=40_usize {
            let known = trees(&all[..size]);
            assert_eq!((frontier.root(), frontier.size()), (slow(&all[..size]), size as u64));
            for index in 0..size {
                let proof = inclusion(index as u64, size as u64, &known).unwrap();
                let tree = Root { size: size as u64, hash: &slow(&all[..size]) };
                assert!(is_included(&all[index], index as u64, tree, &proof), "{index} in {size}");
                for other in (0..size).filter(|other| *other != index) {
                    assert!(!is_included(&all[other], index as u64, tree, &proof), "{other} at {index} in {size}");
                }
            }
            assert!(inclusion(size as u64, size as u64, &known).is_none());
            for old in 0..=size {
                let proof = consistency(old as u64, size as u64, &known).unwrap();
                let (before, after) = (slow(&all[..old]), slow(&all[..size]));
                let new = Root { size: size as u64, hash: &after };
                let was = |hash| Root { size: old as u64, hash };
                assert!(is_consistent(was(&before), new, &proof), "{old} to {size}");
                if old > 0 {
                    assert!(!is_consistent(was(&leaf(b"another")), new, &proof), "{old} to {size}");
                }
            }
            if let Some(next) = all.get(size) {
                frontier.push(*next);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_proof_that_was_changed_shows_nothing(
            size in 2_u64..2_000, index in any::<prop::sample::Index>(), old in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(), bit in 0_usize..256,
        ) {
            let all = leaves(size);
            let (index, old) = (index.index(size as usize) as u64, 1 + old.index(size as usize - 1) as u64);
            let (root, known) = (slow(&all), trees(&all));
            let mut proof = inclusion(index, size, &known).unwrap();
            let tree = Root { size, hash: &root };
            prop_assert!(is_included(&all[index as usize], index, tree, &proof));
            let hash = at.index(proof.len());
            proof[hash][bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!is_included(&all[index as usize], index, tree, &proof));
            let before = slow(&all[..old as usize]);
            let mut proof = consistency(old, size, &known).unwrap();
            let was = Root { size: old, hash: &before };
            prop_assert!(is_consistent(was, tree, &proof));
            let hash = at.index(proof.len());
            proof[hash][bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!is_consistent(was, tree, &proof));
            proof.push(root);
            prop_assert!(!is_consistent(was, tree, &proof));
        }

        #[test]
        fn larger_trees_can_be_added_whole(blocks in 0_u64..40, rest in 0_u64..256) {
            let all = leaves(blocks * 256 + rest);
            let mut frontier = Frontier::default();
            let mut chunks = all.chunks_exact(256);
            chunks.by_ref().for_each(|chunk| frontier.push_tree(8, perfect(chunk)));
            chunks.remainder().iter().for_each(|leaf| frontier.push(*leaf));
            prop_assert_eq!(frontier.root(), slow(&all));
        }
    }
}
