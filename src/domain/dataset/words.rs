//! Which word of a key's domain a text is, and which of its numbers a number is.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// The positions of a domain's words. Short ones are found by their bytes as one number, which is quicker than to hash and
/// compare texts: two keys of every record are looked up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Positions {
    short: HashMap<u64, u32, BuildHasherDefault<WordHasher>>,
    long: HashMap<String, u32, BuildHasherDefault<WordHasher>>,
}

impl Positions {
    /// Those of words. Of two that are the same it is that of the last.
    pub(super) fn of(words: &[String]) -> Self {
        let mut positions = Self::default();
        for (word, position) in words.iter().zip(0..) {
            match number(word.as_bytes()) {
                Some(number) => positions.short.insert(number, position),
                None => positions.long.insert(word.clone(), position),
            };
        }
        positions
    }

    /// That of a word, if it is one of these.
    #[inline]
    pub(super) fn get(&self, word: &str) -> Option<u32> {
        match number(word.as_bytes()) {
            Some(number) => self.short.get(&number).copied(),
            None => self.long.get(word).copied(),
        }
    }
}

/// Declared whole numbers. Many of them are not searched one by one: a key of every record is looked up.
#[derive(Debug, Clone, PartialEq)]
pub struct Integers {
    numbers: Vec<i64>,
    /// Where each of them stands; empty if they are few.
    positions: HashMap<u64, u32, BuildHasherDefault<WordHasher>>,
}

/// So many numbers are few.
const FEW: usize = 8;

impl From<Vec<i64>> for Integers {
    fn from(numbers: Vec<i64>) -> Self {
        let mut positions = HashMap::default();
        if numbers.len() > FEW {
            for (number, position) in numbers.iter().zip(0..) {
                positions.entry(number.cast_unsigned()).or_insert(position);
            }
        }
        Self { numbers, positions }
    }
}

impl Integers {
    /// All of them, in the order in which they are declared.
    pub(in crate::domain) fn all(&self) -> &[i64] {
        &self.numbers
    }

    /// The position of a number, if it is one of these. Of two that are the same it is that of the first.
    #[inline]
    pub(super) fn get(&self, number: i64) -> Option<u32> {
        if self.numbers.len() <= FEW {
            let position = self.numbers.iter().position(|known| *known == number);
            return position.map(|position| position as u32);
        }
        self.positions.get(&number.cast_unsigned()).copied()
    }
}

/// A word of at most seven bytes as a number: they and, above them, how many there are. `None`: it is longer.
#[inline]
fn number(word: &[u8]) -> Option<u64> {
    let length = word.len();
    let bytes = match length {
        0..4 => word.iter().rev().fold(0, |bytes, &byte| bytes << 8 | u64::from(byte)),
        // The first four and the last four: those that are in both are in the same place.
        4..8 => {
            let (first, last) = (u32::from_le_bytes(*word.first_chunk()?), u32::from_le_bytes(*word.last_chunk()?));
            u64::from(first) | u64::from(last) << (8 * (length - 4))
        }
        _ => return None,
    };
    Some((length as u64) << 56 | bytes)
}

/// A quick hash for words of the policy, which is trusted: what a record holds is only looked up, and no
/// lookup walks further than the words themselves collide.
#[derive(Debug, Clone, Copy, Default)]
struct WordHasher(u64);

const FACTOR: u64 = 0x517c_c1b7_2722_0a95;

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        // The table takes its bits from both ends.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0.rotate_left(5) ^ u64::from(byte)).wrapping_mul(FACTOR);
        }
    }

    fn write_u64(&mut self, number: u64) {
        // A product alone moves what differs in the last letters of a word out of the lower bits.
        let product = u128::from(self.0 ^ number) * u128::from(FACTOR);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_word_is_found_where_it_stands_last(
            words in prop::collection::vec("[ab\\x00é]{0,9}", 0..40),
            others in prop::collection::vec("[ab\\x00é]{0,9}", 0..40),
        ) {
            let positions = Positions::of(&words);
            for word in words.iter().chain(&others) {
                let slow = words.iter().rposition(|known| known == word);
                prop_assert_eq!(positions.get(word), slow.map(|position| position as u32), "{:?}", word);
            }
        }
    }

    proptest! {
        #[test]
        fn a_number_is_found_where_it_stands_first(
            numbers in prop::collection::vec(-20..20_i64, 0..30), others in prop::collection::vec(any::<i64>(), 0..5),
        ) {
            let integers = Integers::from(numbers.clone());
            for number in numbers.iter().chain(&others).chain(&[i64::MIN, -1, i64::MAX]) {
                let slow = numbers.iter().position(|known| known == number);
                prop_assert_eq!(integers.get(*number), slow.map(|position| position as u32), "{}", number);
            }
        }
    }

    /// A table of 128 places for words that differ in their last letters.
    #[test]
    fn words_that_differ_in_their_last_letters_begin_at_many_places() {
        let places = (0..100).map(|shop| {
            let mut hasher = WordHasher::default();
            hasher.write_u64(number(format!("store{shop:02}").as_bytes()).unwrap());
            hasher.finish() % 128
        });
        let places: std::collections::BTreeSet<u64> = places.collect();
        assert!(places.len() > 50, "{}", places.len());
    }

    #[test]
    fn words_of_other_bytes_or_lengths_have_other_numbers() {
        let words = [
            "", "\0", "\0\0", "a", "a\0", "ab", "ba", "abc", "abcd", "abcd\0", "abcde", "abcdef", "abcdefg", "gbcdefa",
        ];
        let numbers: std::collections::BTreeSet<_> =
            words.iter().map(|word| number(word.as_bytes()).unwrap()).collect();
        assert_eq!(numbers.len(), words.len());
        assert_eq!(number(b"abcdefg"), Some(0x07_67_66_65_64_63_62_61));
        assert_eq!(number(b"abcdefgh"), None);
    }
}
