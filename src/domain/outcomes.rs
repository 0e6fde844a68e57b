//! What the last requests of a producer came to. Requests in a row that came to the same take the space of one.

use std::collections::VecDeque;
use std::sync::Arc;

use super::binary::{Reader, Writer};
use super::outcome::{Outcome, Taken};

/// How many of a producer's last requests are remembered at least. As many as one call may have in work.
pub const REMEMBERED: u64 = 64;

/// The most bytes that the outcomes of one producer take. What no longer fits is forgotten, the oldest first.
pub const BYTES_MAX: usize = 256 << 10;

/// Two runs without refusals.
const PLAIN_BYTES: usize = 2 * (size_of::<Run>() + 8);

/// The outcomes of one producer's last requests, in one epoch. A copy shares them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcomes(Runs);

/// Ascending, without overlaps. What can be `Plain` is nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Runs {
    /// One run without refusals, of `last` and as many requests `before` it. Most producers have no more, and this takes no
    /// memory beside the producer's own.
    Plain { last: u64, before: u32, accepted: u32, dropped_values: u32 },
    /// Any others.
    Any(Arc<Many>),
}

impl Default for Runs {
    fn default() -> Self {
        Self::Any(Arc::default())
    }
}

/// Runs, and what they take in memory, roughly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Many {
    runs: VecDeque<Run>,
    bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    first: u64,
    last: u64,
    outcome: Packed,
}

/// An outcome in little space. A copy shares it, and takes nothing of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packed {
    /// No record was refused: most are like this.
    Plain {
        /// How many records are counted.
        accepted: u32,
        /// Values of undeclared fields that were dropped.
        dropped_values: u32,
    },
    /// Any other, by [`Outcome::encode`].
    Other(Arc<[u8]>),
}

impl Packed {
    fn of(outcome: &Outcome) -> Self {
        Self::plain(outcome).unwrap_or_else(|| Self::Other(outcome.encode().into()))
    }

    fn plain(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Taken(Taken { accepted, dropped_values, refusals }) if refusals.runs().is_empty() => {
                Some(Self::Plain { accepted: *accepted, dropped_values: *dropped_values })
            }
            _ => None,
        }
    }

    /// The outcome, which may take many times as much.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Plain { accepted, dropped_values } => {
                let (accepted, dropped_values) = (*accepted, *dropped_values);
                Some(Outcome::Taken(Taken { accepted, dropped_values, ..Taken::default() }))
            }
            Self::Other(bytes) => Outcome::decode(bytes),
        }
    }

    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Plain { accepted, dropped_values } => Outcome::encode_plain(*accepted, *dropped_values, writer),
            Self::Other(bytes) => {
                writer.short_bytes(bytes);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let bytes = reader.short_bytes()?;
        let outcome = Outcome::decode(bytes)?;
        Some(Self::plain(&outcome).unwrap_or_else(|| Self::Other(bytes.into())))
    }
}

impl Run {
    /// Whether requests from one on that came to this go on with it.
    fn goes_on(&self, first: u64, outcome: &Packed) -> bool {
        self.last.checked_add(1) == Some(first) && self.outcome == *outcome
    }

    /// What it takes in memory, roughly.
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.outcome {
                Packed::Plain { .. } => 0,
                Packed::Other(bytes) => bytes.len(),
            }
    }
}

impl Many {
    fn push(&mut self, run: Run) {
        if self.runs.len() == self.runs.capacity() {
            // Most producers have few runs: little room is left over.
            self.runs.reserve_exact(1 + self.runs.len() / 2);
        }
        self.bytes += run.bytes();
        self.runs.push_back(run);
    }

    /// Forgets the oldest ones, for as long as one is to be forgotten.
    fn forget_while(&mut self, is_over: impl Fn(&Run, usize) -> bool) {
        while let Some(run) = self.runs.pop_front_if(|run| is_over(run, self.bytes)) {
            self.bytes -= run.bytes();
        }
    }
}

impl FromIterator<Run> for Many {
    fn from_iter<T: IntoIterator<Item = Run>>(runs: T) -> Self {
        let mut many = Self::default();
        runs.into_iter().for_each(|run| many.push(run));
        many
    }
}

impl From<Arc<Many>> for Runs {
    fn from(many: Arc<Many>) -> Self {
        match many.runs.front() {
            Some(&Run { first, last, outcome: Packed::Plain { accepted, dropped_values } }) if many.runs.len() == 1 => {
                match u32::try_from(last - first) {
                    Ok(before) => Self::Plain { last, before, accepted, dropped_values },
                    Err(_) => Self::Any(many),
                }
            }
            _ => Self::Any(many),
        }
    }
}

impl Runs {
    fn many(self) -> Arc<Many> {
        match self {
            Self::Plain { last, before, accepted, dropped_values } => {
                let outcome = Packed::Plain { accepted, dropped_values };
                Arc::new(Many::from_iter([Run { first: last - u64::from(before), last, outcome }]))
            }
            Self::Any(many) => many,
        }
    }

    /// Makes the last run longer, if what comes goes on with it and nothing need be forgotten for it. Whether it does.
    fn go_on(&mut self, from: u64, through: u64, came_to: &Packed) -> bool {
        match self {
            Self::Plain { last, before, accepted, dropped_values } => {
                let same = Packed::Plain { accepted: *accepted, dropped_values: *dropped_values } == *came_to;
                let more = through.checked_sub(*last).and_then(|more| u32::try_from(more).ok());
                let longer = more.and_then(|more| before.checked_add(more));
                let (true, Some(longer)) = (same && last.checked_add(1) == Some(from), longer) else { return false };
                (*last, *before) = (through, longer);
                true
            }
            Self::Any(many) => {
                let is_kept = many.runs.front().is_some_and(|run| run.last >= oldest(through));
                if !is_kept || !many.runs.back().is_some_and(|run| run.goes_on(from, came_to)) {
                    return false;
                }
                if let Some(run) = Arc::make_mut(many).runs.back_mut() {
                    run.last = through;
                }
                true
            }
        }
    }
}

/// The oldest request that must be remembered.
fn oldest(last: u64) -> u64 {
    last.saturating_sub(REMEMBERED - 1)
}

impl Outcomes {
    /// What a request came to. `None`: that is not remembered.
    #[must_use]
    pub fn of(&self, sequence: u64) -> Option<Packed> {
        let many = self.0.clone().many();
        let at = many.runs.partition_point(|run| run.last < sequence);
        Some(many.runs.get(at).filter(|run| run.first <= sequence)?.outcome.clone())
    }

    /// Requests from `first` through `last`, which come after all that are known, came to this.
    pub fn push(&mut self, first: u64, last: u64, outcome: &Outcome) {
        let outcome = Packed::of(outcome);
        if self.0.go_on(first, last, &outcome) {
            return;
        }
        let mut many = std::mem::take(&mut self.0).many();
        let runs = Arc::make_mut(&mut many);
        runs.forget_while(|run, _| run.last < oldest(last) && !run.goes_on(first, &outcome));
        match runs.runs.back_mut() {
            Some(run) if run.goes_on(first, &outcome) => run.last = last,
            _ => runs.push(Run { first, last, outcome }),
        }
        runs.forget_while(|_, bytes| bytes > BYTES_MAX);
        self.0 = many.into();
    }

    /// A request came to something else than was said when it was taken: its model failed, say.
    pub fn correct(&mut self, sequence: u64, outcome: &Outcome) {
        let mut runs: Vec<Run> = self.0.clone().many().runs.iter().cloned().collect();
        let at = runs.partition_point(|run| run.last < sequence);
        let Some(run) = runs.get(at).filter(|run| run.first <= sequence).cloned() else { return };
        let outcome = Packed::of(outcome);
        let parts = [
            (sequence > run.first).then(|| Run { last: sequence - 1, ..run.clone() }),
            Some(Run { first: sequence, last: sequence, outcome }),
            (sequence < run.last).then(|| Run { first: sequence + 1, ..run }),
        ];
        runs.splice(at..=at, parts.into_iter().flatten());
        self.0 = Arc::new(Many::from_iter(runs)).into();
    }

    /// Forgets what every request came to.
    pub fn forget(&mut self) {
        self.0 = Runs::default();
    }

    /// What they take in memory, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Runs::Plain { .. } => size_of::<Run>(),
            Runs::Any(many) => many.bytes,
        }
    }

    /// What they take beyond what every producer's may take: many producers whose requests are all taken in are no
    /// burden.
    #[must_use]
    pub fn extra_bytes(&self) -> usize {
        self.bytes().saturating_sub(PLAIN_BYTES)
    }

    /// Adds them to a checkpoint.
    pub fn encode(&self, writer: &mut Writer) {
        let many = self.0.clone().many();
        writer.varint(many.runs.len() as u64);
        let mut end = 0;
        for run in &many.runs {
            writer.varint(run.first.saturating_sub(end)).varint(run.last - run.first);
            run.outcome.encode(writer);
            end = run.last;
        }
    }

    /// Reads them from a checkpoint.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let (mut many, mut end) = (Many::default(), 0_u64);
        for _ in 0..reader.short_count(3)? {
            let first = end.checked_add(reader.varint()?)?;
            end = first.checked_add(reader.varint()?)?;
            many.push(Run { first, last: end, outcome: Packed::decode(reader)? });
        }
        Some(Self(Arc::new(many).into()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::outcome::Refusals;
    use crate::domain::refusal::{Reason, Refusal};

    fn accepted(accepted: u32) -> Outcome {
        Outcome::Taken(Taken { accepted, ..Taken::default() })
    }

    /// Some of each kind.
    fn any(kind: u32) -> Outcome {
        let refused = |reason| {
            Outcome::Taken(Taken { refusals: Refusals::of(&[Refusal::new(kind, reason)]), ..Taken::default() })
        };
        match kind {
            0 => refused(Reason::TooLong),
            1 => refused(Reason::NoRegime),
            _ => accepted(kind),
        }
    }

    #[test]
    fn a_run_without_refusals_takes_no_memory_of_its_own() {
        let mut outcomes = Outcomes::default();
        outcomes.push(1, 1, &accepted(1));
        for sequence in 2..1_000 {
            outcomes.push(sequence, sequence, &accepted(1));
        }
        assert!(matches!(outcomes.0, Runs::Plain { last: 999, before: 998, .. }) && size_of::<Outcomes>() == 24);
        // A run that is too long for it is kept as any other.
        outcomes.push(1_000, 1 << 40, &accepted(1));
        assert!(matches!(outcomes.0, Runs::Any(_)));
        let plain = Some(Packed::of(&accepted(1)));
        assert_eq!((outcomes.of(1), outcomes.of(1 << 40)), (plain.clone(), plain));
    }

    proptest! {
        /// Against the obvious model: a map of everything, of which the last ones must be known, and nothing wrong may.
        #[test]
        fn the_last_ones_are_known_and_none_is_wrong(
            steps in prop::collection::vec((1_u64..4, 0_u32..4, prop::option::of(0_u64..80)), 1..200),
        ) {
            let (mut outcomes, mut all, mut last) = (Outcomes::default(), BTreeMap::new(), 0);
            for (count, kind, corrected) in steps {
                outcomes.push(last + 1, last + count, &any(kind));
                all.extend((last + 1..=last + count).map(|sequence| (sequence, any(kind))));
                let runs = outcomes.0.clone().many();
                prop_assert_eq!(outcomes.bytes(), runs.runs.iter().map(Run::bytes).sum::<usize>());
                prop_assert!(runs.runs.iter().all(|run| run.last >= oldest(last)), "what is old is forgotten");
                last += count;
                if let Some(sequence) = corrected.and_then(|back| last.checked_sub(back)).filter(|sequence| *sequence > 0) {
                    let failed = Outcome::refused(Reason::ModelFailed);
                    if outcomes.of(sequence).is_some() {
                        all.insert(sequence, failed.clone());
                    }
                    outcomes.correct(sequence, &failed);
                }
            }
            for sequence in 1..=last + 2 {
                let known = outcomes.of(sequence).and_then(|known| known.outcome());
                let is_recent = sequence <= last && sequence + REMEMBERED > last;
                prop_assert!(known.is_some() || !is_recent, "{sequence} of {last}");
                prop_assert!(known.is_none() || known.as_ref() == all.get(&sequence));
            }
            let mut writer = Writer::default();
            outcomes.encode(&mut writer);
            let bytes = writer.finish();
            prop_assert_eq!(Outcomes::decode(&mut Reader::new(&bytes)), Some(outcomes));
        }
    }

    #[test]
    fn alike_ones_take_the_space_of_one() {
        let mut outcomes = Outcomes::default();
        (1..=10_000).for_each(|sequence| outcomes.push(sequence, sequence, &accepted(1)));
        assert!(outcomes.bytes() < 64, "{}", outcomes.bytes());
        assert_eq!(outcomes.of(10_000), Some(Packed::of(&accepted(1))));
        assert_eq!(outcomes.of(10_001), None);
    }

    #[test]
    fn a_plain_one_is_written_like_any_other() {
        for (accepted, dropped_values) in [(0, 0), (1, 127), (128, 16_383), (16_384, u32::MAX), (u32::MAX, 1)] {
            let outcome = Outcome::Taken(Taken { accepted, dropped_values, ..Taken::default() });
            let (mut plain, mut any) = (Writer::default(), Writer::default());
            Packed::of(&outcome).encode(&mut plain);
            any.short_bytes(&outcome.encode());
            assert_eq!(plain.finish(), any.finish());
        }
        assert_eq!(size_of::<Run>(), 32);
    }

    #[test]
    fn their_size_is_bounded() {
        let mut outcomes = Outcomes::default();
        let field = "x".repeat(100_000);
        for sequence in 1..=64 {
            let reason = if sequence % 2 == 0 { Reason::TooLarge } else { Reason::Malformed };
            let refused = crate::domain::outcome::Refused { reason, field: Some(field.as_str().into()) };
            outcomes.push(sequence, sequence, &Outcome::Refused(refused));
            assert!(outcomes.bytes() <= BYTES_MAX);
        }
        assert!(outcomes.of(64).is_some());
        assert_eq!(outcomes.of(1), None);
    }
}
