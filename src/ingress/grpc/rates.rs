//! How many of something may begin in a second: of one network address, and in all.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::domain::addresses::Network;

/// So many in a second. Those of one second may come at once.
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// The time that each takes up.
    every: Duration,
}

/// What comes at once may be that of so much time.
const AHEAD: Duration = Duration::from_secs(1);

impl Rate {
    fn new(per_second: usize) -> Self {
        Self { every: AHEAD / u32::try_from(per_second).unwrap_or(u32::MAX).max(1) }
    }

    /// Takes a place. `taken` is the moment until which all places are taken. How long it is until the place comes; `None`:
    /// longer than may be waited, and nothing is taken.
    fn take(self, taken: &mut Duration, now: Duration, wait_max: Duration) -> Option<Duration> {
        let from = (*taken).max(now);
        let wait = (from + self.every).saturating_sub(now + AHEAD);
        if wait > wait_max {
            return None;
        }
        *taken = from + self.every;
        Some(wait)
    }
}

/// The rate of all together. What comes too early waits for its turn.
pub(super) struct Turns {
    rate: Rate,
    taken: Mutex<Duration>,
}

impl Turns {
    /// At most so many in a second.
    pub(super) fn new(per_second: usize) -> Self {
        Self { rate: Rate::new(per_second), taken: Mutex::default() }
    }

    /// How long it is until the next turn. `None`: longer than may be waited.
    pub(super) fn next(&self, now: Duration, wait_max: Duration) -> Option<Duration> {
        self.rate.take(&mut self.taken.lock().unwrap_or_else(PoisonError::into_inner), now, wait_max)
    }
}

/// A rate for each network address.
pub(super) struct OfAddresses {
    rate: Rate,
    known: Mutex<Known>,
}

/// Addresses whose second is not over.
#[derive(Default)]
struct Known {
    taken: HashMap<Network, Duration, RandomState>,
    swept: Duration,
}

/// So many addresses are remembered. Of those beyond them only the rate of all together is limited.
const KNOWN_MAX: usize = 8_192;

impl OfAddresses {
    /// At most so many of each in a second.
    pub(super) fn new(per_second: usize) -> Self {
        Self { rate: Rate::new(per_second), known: Mutex::default() }
    }

    /// Whether one more may begin.
    pub(super) fn allow(&self, of: Network, now: Duration) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.taken.len() >= KNOWN_MAX {
            if now >= known.swept + AHEAD {
                known.swept = now;
                known.taken.retain(|_, taken| *taken > now);
            }
            if known.taken.len() >= KNOWN_MAX && !known.taken.contains_key(&of) {
                return true;
            }
        }
        self.rate.take(known.taken.entry(of).or_default(), now, Duration::ZERO).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn network(number: u32) -> Network {
        Network::of(std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn an_address_has_its_rate_whatever_others_do() {
        let rates = OfAddresses::new(10);
        let begun = |of: u32, now: Duration, tries: usize| (0..tries).filter(|_| rates.allow(network(of), now)).count();
        assert_eq!(begun(1, SECOND, 100), 10);
        assert_eq!(begun(2, SECOND, 5), 5);
        assert_eq!(begun(1, SECOND * 3 / 2, 100), 5);
        assert_eq!(begun(1, SECOND * 10, 100), 10);
        let later: usize = (0..100).map(|tenth| begun(1, SECOND * 20 + SECOND / 10 * tenth, 3)).sum();
        assert!((100..=110).contains(&later), "{later}");
    }

    #[test]
    fn addresses_are_forgotten_and_never_more_than_a_bound() {
        let rates = OfAddresses::new(1);
        let size = || rates.known.lock().unwrap().taken.len();
        for number in 0..3 * KNOWN_MAX as u32 {
            assert!(rates.allow(network(number), SECOND));
        }
        assert_eq!(size(), KNOWN_MAX);
        assert!(!rates.allow(network(0), SECOND), "one that is known has its limit");
        assert!(rates.allow(network(u32::MAX), SECOND * 5));
        assert_eq!(size(), 1);
    }

    #[test]
    fn turns_are_waited_for_and_not_for_too_long() {
        let turns = Turns::new(10);
        let tenth = SECOND / 10;
        let waits: Vec<Option<Duration>> = (0..14).map(|_| turns.next(SECOND, tenth * 2)).collect();
        assert_eq!(waits[..10], [Some(Duration::ZERO); 10]);
        assert_eq!(waits[10..], [Some(tenth), Some(tenth * 2), None, None]);
        assert_eq!(turns.next(SECOND * 3, Duration::ZERO), Some(Duration::ZERO));
    }
}
