//! What anybody can make a witness log is logged once a minute at most, with how often it came meanwhile.

use std::collections::HashMap;
use std::mem::Discriminant;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::ledger::witness::Refusal;

/// How long the next line of a kind waits.
const EVERY: Duration = Duration::from_secs(60);

/// A kind of line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A request was refused.
    Refused(Discriminant<Refusal>),
    /// What was cosigned could not be remembered.
    NotRemembered,
    /// An address has its share of the places.
    Crowded,
}

/// When each kind was logged last.
#[derive(Default)]
pub(super) struct Seldom {
    last: Mutex<HashMap<Kind, Last>>,
}

struct Last {
    /// By the monotonic clock.
    at: Duration,
    /// How many lines were left out since then.
    left_out: u64,
}

impl Seldom {
    /// Whether a line of a kind is logged now, by the monotonic clock: how many like it were left out before it. `None`: it
    /// is left out.
    pub(super) fn log(&self, kind: Kind, now: Duration) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.get_mut(&kind) {
            Some(last) if now.saturating_sub(last.at) < EVERY => {
                last.left_out += 1;
                None
            }
            _ => {
                let before = last.insert(kind, Last { at: now, left_out: 0 });
                Some(before.map_or(0, |before| before.left_out))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_logged_once_a_minute_and_the_others_beside_it() {
        let (seldom, at) = (Seldom::default(), Duration::from_secs);
        let kind = |refusal: Refusal| Kind::Refused(std::mem::discriminant(&refusal));
        assert_eq!(seldom.log(kind(Refusal::OtherSize(1)), at(5)), Some(0));
        assert_eq!(seldom.log(kind(Refusal::OtherSize(2)), at(6)), None);
        assert_eq!(seldom.log(kind(Refusal::OtherRoot(2)), at(6)), Some(0), "it is not hidden by another kind");
        assert_eq!(seldom.log(kind(Refusal::OtherSize(1)), at(64)), None);
        assert_eq!(seldom.log(kind(Refusal::OtherSize(1)), at(65)), Some(2));
        assert_eq!(seldom.log(kind(Refusal::OtherSize(1)), at(125)), Some(0));
    }
}
