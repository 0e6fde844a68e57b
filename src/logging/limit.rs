//! How often one kind of line is written. A client that sends rubbish as fast as it can must not fill the disk that the
//! log is on, nor hide what else is said.
//!
//! A line that somebody outside causes is counted for its reason and for the network that it came from: so one that floods
//! the log hides neither what others cause nor what it causes for another reason.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::callsite::Identifier;

use crate::domain::addresses::Network;

/// So many lines of one kind are written at once.
pub const BURST: u32 = 100;
/// After them, one in this time.
pub const EVERY: Duration = Duration::from_secs(10);
/// The same for lines of one reason and network.
pub const CAUSED_BURST: u32 = 10;
/// After them, one in this time.
pub const CAUSED_EVERY: Duration = Duration::from_secs(60);
/// So many reasons and networks are told apart. The lines of more are counted for their kind.
const CAUSES_MAX: usize = 256;
/// How often it is said what was left out.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Why a line is written, and from where that was caused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cause {
    /// The reason's name, of a closed list.
    pub reason: String,
    /// Where it came from.
    pub from: Network,
}

/// The kinds of lines, each with what it may still write. A kind is a place in the code, so there are few.
#[derive(Debug)]
pub struct Limiter<K = Identifier>(Mutex<Counted<K>>);

#[derive(Debug)]
struct Counted<K> {
    kinds: HashMap<K, Kind>,
    causes: HashMap<(K, Cause), Room>,
}

impl<K> Default for Limiter<K> {
    fn default() -> Self {
        Self(Mutex::new(Counted { kinds: HashMap::new(), causes: HashMap::new() }))
    }
}

#[derive(Debug)]
struct Kind {
    message: String,
    room: Room,
    left_out: u64,
    said: Duration,
}

/// How many lines may still be written.
#[derive(Debug)]
struct Room {
    left: u32,
    refilled: Duration,
}

impl Room {
    fn full(burst: u32, now: Duration) -> Self {
        Self { left: burst, refilled: now }
    }

    /// Gives back what the time since then has earned.
    fn refill(&mut self, burst: u32, every: Duration, now: Duration) {
        let earned = now.saturating_sub(self.refilled).as_nanos() / every.as_nanos();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(earned).min(burst);
            self.refilled += every.saturating_mul(earned);
        }
    }

    fn take(&mut self) -> bool {
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

impl<K: Hash + Eq + Clone> Counted<K> {
    /// The room of a cause. `None`: there are too many of them.
    fn caused(&mut self, kind: &K, cause: Cause, now: Duration) -> Option<&mut Room> {
        let key = (kind.clone(), cause);
        if self.causes.len() >= CAUSES_MAX && !self.causes.contains_key(&key) {
            self.causes.retain(|_, room| {
                room.refill(CAUSED_BURST, CAUSED_EVERY, now);
                room.left < CAUSED_BURST
            });
            if self.causes.len() >= CAUSES_MAX {
                return None;
            }
        }
        let room = self.causes.entry(key).or_insert_with(|| Room::full(CAUSED_BURST, now));
        room.refill(CAUSED_BURST, CAUSED_EVERY, now);
        Some(room)
    }
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    /// Whether a line of this kind may be written now. `message` is what such lines say, without their values; `cause` is
    /// there for lines that somebody outside causes.
    pub fn allow(&self, kind: K, cause: Option<Cause>, now: Duration, message: impl FnOnce() -> String) -> bool {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_cause = cause.and_then(|cause| counted.caused(&kind, cause, now).map(Room::take));
        let kind = counted.kinds.entry(kind).or_insert_with(|| Kind {
            message: message(),
            room: Room::full(BURST, now),
            left_out: 0,
            said: now,
        });
        let is_allowed = of_cause.unwrap_or_else(|| {
            kind.room.refill(BURST, EVERY, now);
            kind.room.take()
        });
        kind.left_out += u64::from(!is_allowed);
        is_allowed
    }

    /// What was left out since it was asked last: the messages, each with how many lines.
    pub fn left_out(&self, now: Duration) -> Vec<(String, u64)> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = counted.kinds.values_mut().filter(|kind| kind.left_out > 0 && now >= kind.said + SAID_EVERY);
        let said = due.map(|kind| {
            kind.said = now;
            (kind.message.clone(), std::mem::take(&mut kind.left_out))
        });
        said.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn written(limiter: &Limiter<u8>, kind: u8, at: Duration, lines: usize) -> usize {
        (0..lines).filter(|_| limiter.allow(kind, None, at, || format!("kind {kind}"))).count()
    }

    #[test]
    fn a_flood_is_bounded_and_said_and_hides_nothing_else() {
        let limiter = Limiter::default();
        assert_eq!(written(&limiter, 1, SECOND, 5_000), BURST as usize);
        assert_eq!(written(&limiter, 2, SECOND, 3), 3);
        assert_eq!(limiter.left_out(SECOND), vec![]);
        assert_eq!(limiter.left_out(SECOND + SAID_EVERY), [("kind 1".to_owned(), 4_900)]);
        assert_eq!(limiter.left_out(SECOND + SAID_EVERY * 2), vec![]);
        // A day of one a second: one in ten seconds.
        let day = (0..8_640).map(|step| written(&limiter, 1, SECOND + EVERY * (step + 1), 10)).sum::<usize>();
        assert_eq!(day, 8_640);
    }

    #[test]
    fn after_a_quiet_time_all_may_be_said_again() {
        let limiter = Limiter::default();
        assert_eq!(written(&limiter, 1, SECOND, 1_000), BURST as usize);
        assert_eq!(written(&limiter, 1, SECOND + EVERY * 5 + SECOND, 1_000), 5);
        assert_eq!(written(&limiter, 1, SECOND * 1_000_000, 1_000), BURST as usize);
    }

    #[test]
    fn who_floods_hides_neither_others_nor_another_reason() {
        let limiter = Limiter::default();
        let caused = |reason: &str, from: u32, at: Duration| {
            let from = Network::of(std::net::Ipv4Addr::from_bits(from).into());
            limiter.allow(1_u8, Some(Cause { reason: reason.to_owned(), from }), at, || "turned away".to_owned())
        };
        let written = |reason: &str, from: u32, at: Duration| (0..1_000).filter(|_| caused(reason, from, at)).count();
        assert_eq!(written("flood", 1, SECOND), CAUSED_BURST as usize);
        assert!(caused("expired", 1, SECOND) && caused("flood", 2, SECOND));
        assert_eq!(written("flood", 1, SECOND + CAUSED_EVERY), 1);
        // Ever so many networks take ever so little memory and room in the log.
        let all = (10..10_000).filter(|from| caused("flood", *from, SECOND)).count();
        assert_eq!(limiter.0.lock().unwrap().causes.len(), CAUSES_MAX);
        assert!(all <= CAUSES_MAX + BURST as usize, "{all}");
        // Whoever was quiet for long is forgotten.
        assert!(caused("flood", 99_999, SECOND * 100_000));
        assert_eq!(limiter.0.lock().unwrap().causes.len(), 1);
        let said: u64 = limiter.left_out(SECOND * 100_000).iter().map(|(_, lines)| lines).sum();
        assert_eq!(said, 990 + 999 + (9_990 - all as u64));
    }
}
