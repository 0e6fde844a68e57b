//! How far apart the open windows of a dataset may be. Cells cost memory for as long as their window is open, and one
//! old record can keep a window open for long; so the number of windows from the oldest that holds records to the
//! newest has a limit.

use super::window::Grid;

/// The open windows of a dataset: where the oldest and the newest lie, and how many there may be from one to the other.
/// Windows without records in between count too; so does the oldest open window, after older ones with records closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSpan {
    grid: Grid,
    max: u64,
    /// The number of the oldest window that may take records: what is earlier is counted in it.
    first: i64,
    /// The numbers of the oldest and of the newest window with records.
    ends: Option<(i64, i64)>,
}

impl WindowSpan {
    /// No window is open.
    #[must_use]
    pub fn new(grid: Grid, max: u64) -> Self {
        Self { grid, max: max.max(1), first: i64::MIN, ends: None }
    }

    /// Where the windows lie.
    #[must_use]
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// Whether the windows of some event times may be open.
    #[must_use]
    pub fn has_room(&self, oldest: i64, newest: i64) -> bool {
        let ends = self.with(oldest, newest);
        // The distance of two numbers of 64 bits is below 2^64.
        ends.0.abs_diff(ends.1) < self.max
    }

    /// Opens the windows of some event times, if there may be so many.
    pub fn open(&mut self, oldest: i64, newest: i64) -> bool {
        let fits = self.has_room(oldest, newest);
        if fits {
            self.ends = Some(self.with(oldest, newest));
        }
        fits
    }

    /// Opens the windows of some event times in all of these, if there may be so many in each; else in none.
    pub fn open_in_all<'s>(spans: impl Iterator<Item = &'s mut Self>, oldest: i64, newest: i64) -> bool {
        let spans: Vec<&mut Self> = spans.collect();
        let fits = spans.iter().all(|span| span.has_room(oldest, newest));
        spans.into_iter().filter(|_| fits).for_each(|span| span.ends = Some(span.with(oldest, newest)));
        fits
    }

    /// A window was open before a crash: its number.
    pub fn restore(&mut self, window: i64) {
        let window = window.max(self.first);
        self.ends = Some(self.with_windows(window, window));
    }

    /// The windows of an event time were open before a crash, whether there may be so many or not.
    pub fn restore_event_time(&mut self, event_time: i64) {
        self.ends = Some(self.with(event_time, event_time));
    }

    /// How far windows close together, of those that began before a time: no two of them hold records.
    #[must_use]
    pub fn closes_together(&self, before: i64) -> i64 {
        match self.ends {
            Some((oldest, newest)) if oldest < newest => before.min(self.grid.begins(oldest.saturating_add(1))),
            _ => before,
        }
    }

    /// The windows that began before an event time have closed.
    pub fn close(&mut self, before: i64) {
        self.first = self.first.max(self.grid.first_from(before));
        let first = self.first;
        self.ends =
            self.ends.filter(|(_, newest)| *newest >= first).map(|(oldest, newest)| (oldest.max(first), newest));
    }

    /// How many windows there are from the oldest that holds records to the newest.
    #[must_use]
    pub fn windows(&self) -> u64 {
        self.ends.map_or(0, |(oldest, newest)| oldest.abs_diff(newest).saturating_add(1))
    }

    fn with(&self, oldest: i64, newest: i64) -> (i64, i64) {
        let of = |event_time| self.grid.windows(event_time, self.first);
        self.with_windows(*of(oldest).start(), *of(newest).end())
    }

    fn with_windows(&self, oldest: i64, newest: i64) -> (i64, i64) {
        self.ends.map_or((oldest, newest), |(first, last)| (first.min(oldest), last.max(newest)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::window::tests::by_definition;

    const SIZE: i64 = 10_000_000;

    #[test]
    fn one_old_record_does_not_let_windows_pile_up() {
        let mut span = WindowSpan::new(Grid::new(Duration::from_secs(10), Duration::ZERO), 4_096);
        assert!(span.open(-(1 << 62), -(1 << 62)));
        assert!(!span.open(0, 0));
        assert_eq!(span.windows(), 1);
        span.close(0);
        assert_eq!(span.windows(), 0);
        assert!(span.open(-(1 << 62), 4_095 * SIZE), "what is late is counted in the oldest open window");
        assert!(!span.open(4_096 * SIZE, 4_096 * SIZE));
        assert_eq!(span.windows(), 4_096);
    }

    #[test]
    fn what_does_not_fit_into_one_opens_nothing_in_the_others() {
        let mut spans = [100, 10].map(|max| WindowSpan::new(Grid::new(Duration::from_secs(10), Duration::ZERO), max));
        assert!(WindowSpan::open_in_all(spans.iter_mut(), 0, 5 * SIZE));
        assert!(!WindowSpan::open_in_all(spans.iter_mut(), 0, 50 * SIZE));
        assert_eq!(spans.map(|span| span.windows()), [6, 6]);
        assert!(WindowSpan::open_in_all(spans.iter_mut(), 0, 9 * SIZE));
        assert_eq!(spans.map(|span| span.windows()), [10, 10]);
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let mut span = WindowSpan::new(Grid::new(Duration::from_micros(1), Duration::ZERO), u64::MAX);
        assert!(!span.open(i64::MIN, i64::MAX), "2^64 windows are one too many");
        assert!(span.open(i64::MIN + 1, i64::MAX));
        assert_eq!(span.windows(), u64::MAX);
    }

    proptest! {
        /// Against the windows themselves. Time goes over a midnight.
        #[test]
        fn a_record_is_refused_exactly_when_its_windows_would_be_too_far(
            max in 1_u64..12,
            times_as_long in 1_u32..5,
            steps in prop::collection::vec((any::<bool>(), -20 * SIZE..20 * SIZE), 0..60),
        ) {
            let step = Duration::from_secs(10);
            let grid = Grid::new(step, step * (times_as_long - 1));
            let mut span = WindowSpan::new(grid, max);
            let mut open: BTreeSet<i64> = BTreeSet::new();
            // The first one that was open, or where the closed ones end: what lies from there on counts.
            let (mut first, mut from) = (i64::MIN, i64::MIN);
            for (is_record, time) in steps {
                if is_record {
                    let length = SIZE * i64::from(times_as_long);
                    let windows = by_definition(time, SIZE, length, |window| window >= first);
                    let (oldest, newest) = (windows[0], windows[windows.len() - 1]);
                    let least = if open.is_empty() { oldest } else { from.min(oldest) };
                    let most = open.last().copied().unwrap_or(newest).max(newest);
                    let fits = most - least < max.cast_signed();
                    prop_assert_eq!(span.open(time, time), fits);
                    if fits {
                        open.extend(windows);
                        from = least;
                    }
                } else {
                    first = first.max(time.div_euclid(SIZE));
                    from = from.max(first);
                    open = open.split_off(&first);
                    span.close(time.div_euclid(SIZE) * SIZE);
                }
                let windows = open.last().map_or(0, |last| last - from + 1);
                prop_assert_eq!(span.windows(), windows.cast_unsigned());
                prop_assert!(open.last().unwrap_or(&0) - open.first().unwrap_or(&0) < max.cast_signed());
                let mut restored = WindowSpan::new(grid, max);
                restored.close(first.saturating_mul(SIZE));
                open.iter().for_each(|window| restored.restore(*window));
                let held = open.last().map_or(0, |last| last - open.first().unwrap_or(last) + 1);
                prop_assert_eq!(restored.windows(), held.cast_unsigned());
            }
        }
    }
}
