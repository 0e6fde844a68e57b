//! When something ends that shows who somebody is, and how far ahead that is said.

use super::part::Which;

/// Something that ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The part.
    pub which: Which,
    /// What it is, for people: `the gateway's certificate`, `the authority CN=...`.
    pub what: String,
    /// The first second in which it holds, since the Unix epoch.
    pub from: i64,
    /// The last second in which it holds, since the Unix epoch.
    pub until: i64,
}

/// A day, in seconds.
const DAY: i64 = 86_400;
/// So long before its end a certificate is reported: 30 days, or a third of its life if that is less.
const NEAR: Stage = Stage { seconds: 30 * DAY, part: 3 };
/// The same for the times at which the log of a gateway that runs says it.
const STAGES: [Stage; 4] = [
    NEAR,
    Stage { seconds: 7 * DAY, part: 12 },
    Stage { seconds: DAY, part: 48 },
    Stage { seconds: 0, part: i64::MAX },
];

/// So many seconds before an end, or such a part of the whole time if that is less.
#[derive(Clone, Copy)]
struct Stage {
    seconds: i64,
    part: i64,
}

impl Expiry {
    /// So many seconds are left at a moment. Less than 0: it has ended.
    #[must_use]
    pub fn left(&self, now: i64) -> i64 {
        self.until.saturating_sub(now)
    }

    /// Whether its end is near, or over. A revocation list lives for a short time and is replaced late: only its end counts.
    #[must_use]
    pub fn is_near(&self, now: i64) -> bool {
        match self.which {
            Which::Revocation(_) => self.left(now) < 0,
            _ => self.left(now) < self.before(NEAR),
        }
    }

    /// How many of the times have come at which it is said that its end is near.
    #[must_use]
    pub fn stage(&self, now: i64) -> usize {
        match self.which {
            Which::Revocation(_) => usize::from(self.left(now) < 0),
            _ => STAGES.iter().filter(|stage| self.left(now) <= self.before(**stage)).count(),
        }
    }

    fn before(&self, stage: Stage) -> i64 {
        stage.seconds.min(self.until.saturating_sub(self.from) / stage.part)
    }

    /// When it ends or ended, in words: `ends in 12 days`.
    #[must_use]
    pub fn when(&self, now: i64) -> String {
        match self.left(now) {
            left @ ..0 => format!("ended {} ago", span(-left)),
            left => format!("ends in {}", span(left)),
        }
    }
}

/// A time in words.
pub(super) fn span(seconds: i64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "seconds"),
        120..7_200 => (seconds / 60, "minutes"),
        7_200..172_800 => (seconds / 3_600, "hours"),
        _ => (seconds / DAY, "days"),
    };
    format!("{count} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_said_at_a_few_times_before_it_and_sooner_for_what_lives_short() {
        let expiry = |life: i64| Expiry { which: Which::Certificate, what: String::new(), from: 0, until: life };
        let stages = |life: i64, left: &[i64]| -> Vec<usize> {
            left.iter().map(|left| expiry(life).stage(life - left)).collect()
        };
        assert_eq!(stages(365 * DAY, &[31 * DAY, 30 * DAY, 7 * DAY, DAY, 0, -1]), [0, 1, 2, 3, 4, 4]);
        assert_eq!(stages(3_600, &[1_201, 1_200, 300, 75, 0]), [0, 1, 2, 3, 4]);
        let hour = expiry(3_600);
        assert_eq!([2_400, 2_401].map(|now| hour.is_near(now)), [false, true]);
        assert_eq!(
            [2_401, 3_600, 3_601].map(|now| hour.when(now)),
            ["ends in 19 minutes", "ends in 0 seconds", "ended 1 seconds ago"]
        );
    }
}
