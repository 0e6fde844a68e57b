//! How often one kind of line is written. A client that sends rubbish as fast as it can must not fill the disk that the
//! log is on, nor hide what else is said.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::callsite::Identifier;

/// So many lines of one kind are written at once.
pub const BURST: u32 = 100;
/// After them, one in this time.
pub const EVERY: Duration = Duration::from_secs(10);
/// How often it is said what was left out.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// The kinds of lines, each with what it may still write. A kind is a place in the code, so there are few.
#[derive(Debug)]
pub struct Limiter<K = Identifier>(Mutex<HashMap<K, Kind>>);

impl<K> Default for Limiter<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[derive(Debug)]
struct Kind {
    message: String,
    left: u32,
    refilled: Duration,
    left_out: u64,
    said: Duration,
}

impl<K: Hash + Eq> Limiter<K> {
    /// Whether a line of this kind may be written now. `message` is what such lines say, without their values.
    pub fn allow(&self, kind: K, now: Duration, message: impl FnOnce() -> String) -> bool {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = kinds.entry(kind).or_insert_with(|| Kind {
            message: message(),
            left: BURST,
            refilled: now,
            left_out: 0,
            said: now,
        });
        let earned = now.saturating_sub(kind.refilled).as_nanos() / EVERY.as_nanos();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            kind.left = kind.left.saturating_add(earned).min(BURST);
            kind.refilled += EVERY.saturating_mul(earned);
        }
        if kind.left == 0 {
            kind.left_out += 1;
            return false;
        }
        kind.left -= 1;
        true
    }

    /// What was left out since it was asked last: the messages, each with how many lines.
    pub fn left_out(&self, now: Duration) -> Vec<(String, u64)> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = kinds.values_mut().filter(|kind| kind.left_out > 0 && now >= kind.said + SAID_EVERY);
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
        (0..lines).filter(|_| limiter.allow(kind, at, || format!("kind {kind}"))).count()
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
}
