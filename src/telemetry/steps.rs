//! Counts of what may be in a cell, shown in steps.
//!
//! Whoever reads exact counts of records each second, and gets the released cells, can subtract: what was taken in and did
//! not leave is in the cells that were withheld. If that is one cell, its count is told, and a count below k must not be.
//! So a count is shown in steps that are twice k. At which counts the shown number changes is left to chance, for each step
//! anew: were they one step apart, an exact count that goes into the shown one, such as that of refused requests, would be a
//! vernier. Whoever watches both would know how much else there was between two changes, to the record. When k grows, so do
//! the steps. docs/metrics.md says what this does not stop.

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
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    size: u64,
    /// What says at which counts the steps begin.
    chance: u64,
}

impl Default for Steps {
    /// Every count as it is.
    fn default() -> Self {
        Self { size: 1, chance: 0 }
    }
}

impl fmt::Debug for Steps {
    /// Where they begin is secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Steps of {}", self.size)
    }
}

/// So many bytes of payload stand for one record: more than most records have.
const BYTES_OF_RECORD: u64 = 16 << 10;

impl Steps {
    /// Steps for counts of contributors to cells of which at least `k` leave together. `chance` is any number.
    #[must_use]
    pub fn new(k: usize, chance: u64) -> Self {
        Self { size: (k as u64).saturating_mul(2).max(1), chance }
    }

    /// Steps of the same size that begin elsewhere, for what has this name.
    #[must_use]
    pub(super) fn apart(&self, name: &str) -> Self {
        Self { chance: self.hash(name.as_bytes()), ..*self }
    }

    fn hash(&self, of: &[u8]) -> u64 {
        SipHasher24::new_with_keys(self.chance, self.size).hash(of)
    }

    /// The count at which the shown number gets to so many steps: one that is not more than they are, by less than a step.
    fn begins(&self, steps: u64) -> u64 {
        (steps.saturating_mul(self.size)).saturating_sub(self.hash(&steps.to_le_bytes()) % self.size)
    }

    /// The size of a step.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A count of records as these steps show it: within one step of what it is, and never going back.
    #[must_use]
    pub fn records(&self, count: u64) -> u64 {
        let whole = count / self.size;
        let has_begun = count >= self.begins(whole.saturating_add(1));
        whole.saturating_add(u64::from(has_begun)).saturating_mul(self.size)
    }

    /// The same for counts of bytes.
    #[must_use]
    pub fn of_bytes(&self) -> Self {
        Self { size: self.size.saturating_mul(BYTES_OF_RECORD), ..self.apart("bytes") }
    }

    /// Steps for a greater k, of a size that is a multiple of theirs: so what was shown before and what comes to it are whole
    /// steps.
    #[must_use]
    fn grown(&self, k: usize, chance: u64) -> Self {
        let times = Self::new(k, 0).size.div_ceil(self.size);
        Self { size: self.size.saturating_mul(times), chance }
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
    fn each_shown_count_stands_for_twice_k_counts_on_an_average_and_for_how_many_is_left_to_chance() {
        let steps = Steps::new(10, 7);
        let mut each = BTreeMap::new();
        (0..20_000).for_each(|count| *each.entry(steps.records(count)).or_insert(0_u64) += 1);
        assert!((999..=1_001).contains(&each.len()), "{}", each.len());
        let mut times = BTreeMap::new();
        each.values().for_each(|counts| *times.entry(*counts).or_insert(0) += 1);
        // The difference of two numbers below 20: any from 1 to 39, those in the middle most often.
        assert!(times.len() > 30 && times.values().all(|times| *times < 100), "{times:?}");
        assert!(times.keys().all(|counts| (1..40).contains(counts)), "{times:?}");
    }

    /// Somebody watches a count in steps, and knows exactly how much of it was refused. Between two changes, all but that was
    /// taken in.
    #[test]
    fn an_exact_count_that_goes_into_a_shown_one_is_no_vernier() {
        let mut found = BTreeMap::new();
        for chance in 0..200 {
            let steps = Steps::new(10, chance);
            // Three are taken in while one after the other is refused.
            let (mut count, mut refused_at) = (0, Vec::new());
            for refused in 0..200 {
                let shown = steps.records(count);
                count += if refused == 90 { 4 } else { 1 };
                if steps.records(count) != shown {
                    refused_at.push(refused);
                }
            }
            let around = refused_at.windows(2).find(|two| two[0] < 90 && two[1] >= 90).unwrap();
            *found.entry(20 - (around[1] - around[0])).or_insert(0) += 1;
        }
        // Were each step 20, it would be three each time.
        assert!(found.len() > 20 && found.values().all(|times| *times < 40), "{found:?}");
    }

    /// The count of bytes at which a step begins can be any: else payloads of known lengths would measure one of another.
    #[test]
    fn steps_of_bytes_begin_anywhere() {
        let begin = |chance| Steps::new(10, chance).of_bytes().begins(1);
        let rests: std::collections::BTreeSet<u64> = (0..100).map(|chance| begin(chance) % BYTES_OF_RECORD).collect();
        assert!(rests.len() > 90, "{rests:?}");
        assert!((0..100).all(|chance| (1..=20 * BYTES_OF_RECORD).contains(&begin(chance))));
    }

    #[test]
    fn steps_that_grow_are_multiples_of_those_of_before() {
        for (k, size) in [(11, 40), (15, 40), (25, 60), (40, 80)] {
            let old = Steps::new(10, 3);
            let new = old.grown(k, 4);
            assert_eq!(new.size, size);
            assert!((1..50).any(|steps| old.begins(steps * size / 20) != new.begins(steps)));
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
                    assert!(next.abs_diff(count) < 20 + 2 * 60, "within two steps, and one of those before");
                    if next != last {
                        changed_at.push(count);
                    }
                    last = next;
                }
                assert!(changed_at.windows(2).all(|two| two[1] - two[0] < 120), "{changed_at:?}");
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
