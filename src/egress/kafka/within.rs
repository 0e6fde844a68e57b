//! How long the messages of a transaction may take.
//!
//! A batch is cut to what the line carries in a short time, but not below a least size, and a message is not cut: on a
//! slow line a batch can take longer than is waited for, again and again. So whenever one that is as small as it gets was
//! waited for in vain, the next one may take twice as long.

use std::time::Duration;

/// At first.
const LEAST: Duration = Duration::from_secs(50);
/// librdkafka waits no longer for the answer to one request.
const MOST: Duration = Duration::from_secs(300);
/// How much longer than that the broker keeps a transaction open that it hears nothing of.
const AFTERWARDS: Duration = Duration::from_secs(10);
/// A batch that took less than this part of the least time shows that the line is not slow.
const QUICK: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Within {
    delivery: Duration,
    most: Duration,
}

impl Default for Within {
    fn default() -> Self {
        Self { delivery: LEAST, most: MOST }
    }
}

impl Within {
    /// How long messages may wait for the broker.
    pub(super) fn delivery(self) -> Duration {
        self.delivery
    }

    /// How long the broker keeps a transaction open.
    pub(super) fn transaction(self) -> Duration {
        self.delivery + AFTERWARDS
    }

    /// A batch did not arrive in time, which is as small as one gets or not.
    pub(super) fn failed(&mut self, is_least: bool) {
        if is_least {
            self.delivery = (self.delivery * 2).min(self.most);
        }
    }

    /// A batch took so long.
    pub(super) fn took(&mut self, time: Duration) {
        if time * QUICK < LEAST {
            self.delivery = LEAST;
        }
    }

    /// The broker keeps no transaction open for so long.
    pub(super) fn refused(&mut self) {
        self.most = (self.delivery / 2).max(LEAST);
        self.delivery = self.most;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_least_batch_that_was_waited_for_in_vain_may_take_twice_as_long_up_to_a_limit() {
        let mut within = Within::default();
        assert_eq!((within.delivery(), within.transaction()), (seconds(50), seconds(60)));
        within.failed(false);
        assert_eq!(within.delivery(), seconds(50), "fewer at a time may be enough");
        for expected in [100, 200, 300, 300] {
            within.failed(true);
            assert_eq!((within.delivery(), within.transaction()), (seconds(expected), seconds(expected + 10)));
        }
    }

    #[test]
    fn a_line_that_is_quick_again_is_waited_for_as_at_first_and_one_that_is_slow_goes_on() {
        let mut within = Within::default();
        within.failed(true);
        within.took(seconds(70));
        assert_eq!(within.delivery(), seconds(100));
        within.took(seconds(12));
        assert_eq!(within.delivery(), seconds(50));
    }

    #[test]
    fn what_the_broker_refuses_is_not_asked_for_again() {
        let mut within = Within::default();
        (0..3).for_each(|_| within.failed(true));
        within.refused();
        assert_eq!(within.delivery(), seconds(150));
        within.failed(true);
        assert_eq!(within.delivery(), seconds(150));
    }
}
