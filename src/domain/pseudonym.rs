//! Pseudonyms: what stands for an identifier while a scope lasts. The keys are in memory and nowhere else, and the key of a
//! scope that is over cannot be worked out again, so that nobody can link two scopes, or a pseudonym to its identifier.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::Hasher;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use siphasher::sip128::{Hasher128, SipHasher24};
use zeroize::Zeroizing;

/// How long a pseudonym stands for the same identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// In records of one UTC day of the event time.
    Day,
    /// Until the gateway is restarted.
    Run,
}

impl Span {
    /// Every span with its name in the policy language.
    pub const NAMES: [(&'static str, Self); 2] = [("day", Self::Day), ("run", Self::Run)];
}

/// The most days whose keys are kept; a further one takes the place of the earliest, whose pseudonyms end with it.
const DAYS_MAX: usize = 1_000;

const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

/// The keys of the scopes that are not over.
pub struct Pseudonyms {
    run: Zeroizing<[u8; 16]>,
    days: Mutex<Days>,
}

struct Days {
    /// What the next key is made of. It is replaced with every key, so earlier ones cannot be made again.
    next: Zeroizing<[u8; 32]>,
    keys: BTreeMap<i64, DayKey>,
}

struct DayKey {
    key: Zeroizing<[u8; 16]>,
    used: bool,
}

impl Pseudonyms {
    /// Keys made from a secret seed.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        let mut days = Days { next: Zeroizing::new(seed), keys: BTreeMap::new() };
        let run = days.key();
        Self { run, days: Mutex::new(days) }
    }

    /// What stands for an identifier in a record of this event time, in microseconds since the Unix epoch: 32 hex digits.
    #[must_use]
    pub fn of(&self, identifier: &str, span: Span, event_time: i64) -> String {
        let mut hash = match span {
            Span::Run => SipHasher24::new_with_key(&self.run),
            Span::Day => {
                let mut days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
                SipHasher24::new_with_key(days.of(event_time.div_euclid(DAY_MICROS)))
            }
        };
        hash.write(identifier.as_bytes());
        let mut hex = String::with_capacity(32);
        // Writing to a string does not fail.
        let _ = write!(hex, "{:032x}", hash.finish128().as_u128());
        hex
    }

    /// Forgets the keys of days, other than that of a time, that were not used since it was last called.
    pub fn forget(&self, now: i64) {
        let today = now.div_euclid(DAY_MICROS);
        let mut days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
        days.keys.retain(|day, key| std::mem::take(&mut key.used) || *day == today);
    }
}

impl Days {
    fn of(&mut self, day: i64) -> &[u8; 16] {
        if !self.keys.contains_key(&day) {
            if self.keys.len() >= DAYS_MAX {
                self.keys.pop_first();
            }
            let key = self.key();
            self.keys.insert(day, DayKey { key, used: true });
        }
        let key = self.keys.entry(day).or_insert_with(|| DayKey { key: Zeroizing::default(), used: true });
        key.used = true;
        &key.key
    }

    fn key(&mut self) -> Zeroizing<[u8; 16]> {
        let derive = |label: &[u8]| -> [u8; 32] {
            let mut hash = Sha256::new();
            hash.update(*self.next);
            hash.update(label);
            hash.finalize().into()
        };
        let (made, next) = (Zeroizing::new(derive(b"key")), Zeroizing::new(derive(b"next")));
        let mut key = Zeroizing::new([0; 16]);
        key.iter_mut().zip(made.iter()).for_each(|(to, from)| *to = *from);
        self.next = next;
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = DAY_MICROS / 2;

    #[test]
    fn a_pseudonym_is_the_same_within_a_day_and_another_one_in_every_other_scope() {
        let pseudonyms = Pseudonyms::new([7; 32]);
        let of = |identifier, span, time| pseudonyms.of(identifier, span, time);
        let first = of("device-1", Span::Day, NOON);
        assert_eq!(first, of("device-1", Span::Day, DAY_MICROS - 1));
        let others = [
            of("device-2", Span::Day, NOON),
            of("device-1", Span::Day, DAY_MICROS),
            of("device-1", Span::Day, -1),
            of("device-1", Span::Run, NOON),
            Pseudonyms::new([8; 32]).of("device-1", Span::Day, NOON),
        ];
        assert!(others.iter().all(|other| *other != first && other.len() == 32));
        assert_eq!(of("device-1", Span::Run, 0), of("device-1", Span::Run, 10 * DAY_MICROS));
    }

    #[test]
    fn the_key_of_a_day_that_is_over_is_gone() {
        let pseudonyms = Pseudonyms::new([7; 32]);
        let (first, today) = (pseudonyms.of("device-1", Span::Day, NOON), 3 * DAY_MICROS);
        let kept = pseudonyms.of("device-1", Span::Day, today);
        pseudonyms.forget(today);
        assert_eq!(pseudonyms.of("device-1", Span::Day, NOON), first, "it was used since the last time");
        pseudonyms.forget(today);
        pseudonyms.forget(today);
        assert_ne!(pseudonyms.of("device-1", Span::Day, NOON), first);
        assert_eq!(pseudonyms.of("device-1", Span::Day, today), kept);
    }

    #[test]
    fn whoever_makes_up_days_fills_no_memory() {
        let pseudonyms = Pseudonyms::new([7; 32]);
        for day in 0..3 * DAYS_MAX as i64 {
            drop(pseudonyms.of("device-1", Span::Day, day * DAY_MICROS));
        }
        assert_eq!(pseudonyms.days.lock().unwrap().keys.len(), DAYS_MAX);
    }
}
