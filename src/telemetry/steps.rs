//! Counts of what may be in a cell, shown in steps.
//!
//! Whoever reads exact counts of records each second, and gets the released cells, can subtract: what was taken in and did
//! not leave is in the cells that were withheld. If that is one cell, its count is told, and a count below k must not be.
//! So a count is shown in steps that are at least twice k. At which counts the shown number changes is chosen by chance at
//! each start. When k grows, so do the steps. docs/metrics.md says what this does not stop.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use siphasher::sip::SipHasher24;

/// A secret that chances come from: one for each thing that has a name, and who knows some of them cannot work out another.
#[derive(Clone, Copy, Default)]
pub struct Chances(pub [u8; 16]);

impl Chances {
    /// The chance of what has this name.
    pub(super) fn of(&self, name: &str) -> u64 {
        SipHasher24::new_with_key(&self.0).hash(name.as_bytes())
    }
}

impl fmt::Debug for Chances {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Chances")
    }
}

/// How counts of one stream are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    size: u64,
    phase: u64,
}

impl Default for Steps {
    /// Every count as it is.
    fn default() -> Self {
        Self { size: 1, phase: 0 }
    }
}

/// So many bytes of payload stand for one record: more than most records have.
const BYTES_OF_RECORD: u64 = 16 << 10;

impl Steps {
    /// Steps for counts of contributors to cells of which at least `k` leave together. `chance` is any number.
    #[must_use]
    pub fn new(k: usize, chance: u64) -> Self {
        let size = (k as u64).saturating_mul(2).max(1);
        Self { size, phase: chance % size }
    }

    /// The size of a step.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A count of records as these steps show it: within one step of what it is, and never going back.
    #[must_use]
    pub fn records(&self, count: u64) -> u64 {
        count.saturating_add(self.phase) / self.size * self.size
    }

    /// The same for counts of bytes.
    #[must_use]
    pub fn of_bytes(&self) -> Self {
        Self { size: self.size.saturating_mul(BYTES_OF_RECORD), phase: self.phase.saturating_mul(BYTES_OF_RECORD) }
    }

    /// Steps for a greater k. A step is made of whole ones of before: so a count that is shown in both is within one of those,
    /// and nothing narrower. Which of them a step begins with is up to `chance`.
    #[must_use]
    fn grown(&self, k: usize, chance: u64) -> Self {
        let times = Self::new(k, 0).size.div_ceil(self.size);
        let size = self.size.saturating_mul(times);
        Self { size, phase: self.phase.saturating_add(self.size.saturating_mul(chance % times)) }
    }
}

/// The steps of a running gateway: those of the greatest k that there was.
#[derive(Debug, Default)]
pub struct Growing(Mutex<Steps>);

impl Growing {
    pub(super) fn new(steps: Steps) -> Self {
        Self(Mutex::new(steps))
    }

    /// Steps for a k, if they are not large enough for it. Where they begin is up to the chance of what has this name.
    pub(super) fn grow(&self, k: usize, chances: &Chances, name: &str) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if Steps::new(k, 0).size > steps.size {
            *steps = steps.grown(k, chances.of(&format!("{name} {k}")));
        }
    }

    /// As they are now.
    #[must_use]
    pub fn now(&self) -> Steps {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is shown of one count. When its steps have grown, it goes on from what was shown before, and the next change is where a
/// new step begins: to show at once what the new steps say would tell with which of the old ones they begin.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shown {
    steps: Option<Steps>,
    /// What was shown last.
    last: u64,
    /// What was shown when its steps had grown, and what the steps said then.
    from: (u64, u64),
}

impl Shown {
    /// The count as it is shown.
    pub(super) fn of(&mut self, steps: Steps, count: u64) -> u64 {
        match self.steps {
            // Somebody else reads at the same time, and has the greater ones already.
            Some(before) if before.size > steps.size => return self.last,
            Some(before) if before != steps => {
                // What came since it was shown last, in whole new steps.
                let since = self.says(before, count).saturating_sub(self.last);
                self.last = self.last.saturating_add(since / steps.size * steps.size);
                self.from = (self.last, steps.records(count));
            }
            _ => {}
        }
        self.steps = Some(steps);
        self.last = self.last.max(self.says(steps, count));
        self.last
    }

    /// What steps say of a count, going on from when they had grown.
    fn says(&self, steps: Steps, count: u64) -> u64 {
        let (shown_then, said_then) = self.from;
        shown_then.saturating_add(steps.records(count).saturating_sub(said_then))
    }
}

/// What is shown of all counts, by what each is called and whose it is: the same to all who read it.
#[derive(Debug, Default)]
pub(super) struct AllShown(Mutex<BTreeMap<(&'static str, String), Shown>>);

impl AllShown {
    /// A count as it is shown.
    pub(super) fn of(&self, count: &'static str, whose: &str, steps: Steps, value: u64) -> u64 {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.entry((count, whose.to_owned())).or_default().of(steps, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_count_never_goes_back_and_is_within_a_step() {
        for chance in 0..40 {
            let steps = Steps::new(10, chance);
            let mut last = 0;
            for count in 0..500 {
                let shown = steps.records(count);
                assert!(shown >= last && shown.is_multiple_of(20) && shown.abs_diff(count) < 20, "{count} {shown}");
                last = shown;
            }
            assert_eq!((steps.records(0), steps.of_bytes().records(0)), (0, 0));
        }
    }

    #[test]
    fn each_shown_count_stands_for_at_least_twice_k_counts() {
        let steps = Steps::new(10, 7);
        let mut each = BTreeMap::new();
        (0..1_000).for_each(|count| *each.entry(steps.records(count)).or_insert(0) += 1);
        // But for the first and the last, of which a part is not there.
        let whole: Vec<usize> = each.values().skip(1).take(each.len() - 2).copied().collect();
        assert!(whole.iter().all(|counts| *counts == 20), "{whole:?}");
    }

    #[test]
    fn steps_that_grow_show_no_count_more_narrowly_than_those_of_before() {
        for (k, chance) in [(11, 0), (15, 1), (25, 2), (25, 4), (10, 3)].into_iter().cycle().zip(0..200) {
            let ((k, growth), phase) = (k, chance);
            let old = Steps::new(10, phase);
            let new = if k > 10 { old.grown(k, growth) } else { old };
            assert!(new.size >= 2 * k as u64 && new.size.is_multiple_of(old.size) && new.phase < new.size);
            for count in 1..300 {
                let begins = new.records(count) != new.records(count - 1);
                assert!(!begins || old.records(count) != old.records(count - 1), "{old:?} {new:?} {count}");
            }
        }
    }

    #[test]
    fn a_count_goes_on_from_what_was_shown_when_its_steps_grow_and_changes_once_in_a_step() {
        for chance in 0..60 {
            for grown_at in [0, 1, 9, 20, 35, 77] {
                let (old, mut shown) = (Steps::new(10, chance), Shown::default());
                let (mut last, mut changed_at) = (0, Vec::new());
                for count in 0..=grown_at {
                    last = shown.of(old, count);
                }
                assert_eq!(last, old.records(grown_at));
                let new = old.grown(25, chance);
                assert_eq!(shown.of(new, grown_at), last, "what is shown then tells nothing");
                assert_eq!(shown.of(old, grown_at + 500), last, "whoever still has the old steps gets no new number");
                for count in grown_at..grown_at + 500 {
                    let next = shown.of(new, count);
                    assert!(next == last || next == last + 60, "{last} {next}");
                    assert!(next.abs_diff(count) < 80, "within a step, and one of those before");
                    if next != last {
                        changed_at.push(count);
                    }
                    last = next;
                }
                assert!(changed_at.windows(2).all(|two| two[1] - two[0] == 60), "{changed_at:?}");
                assert_eq!(new.size, 60);
            }
        }
    }

    #[test]
    fn a_count_that_nobody_looked_at_while_its_steps_grew_is_not_left_behind() {
        for (chance, came) in (0..40).flat_map(|chance| [0, 19, 59, 61, 1_000, 1_234].map(|came| (chance, came))) {
            let (old, mut shown) = (Steps::new(10, chance), Shown::default());
            let last = shown.of(old, 55);
            let next = shown.of(old.grown(25, chance), 55 + came);
            assert!((next - last).is_multiple_of(60) && next.abs_diff(55 + came) < 20 + 60, "{last} {next} {came}");
            let later = shown.of(old.grown(25, chance), 2_000);
            assert!(later.abs_diff(2_000) < 20 + 2 * 60, "{later}");
        }
    }

    #[test]
    fn steps_only_grow() {
        let (growing, chances) = (Growing::new(Steps::new(10, 3)), Chances([7; 16]));
        for (k, size) in [(5, 20), (10, 20), (11, 40), (20, 40), (3, 40), (21, 80)] {
            growing.grow(k, &chances, "s");
            assert_eq!(growing.now().size, size, "{k}");
        }
    }
}
