//! One worker's models. Records of many requests are scored together; a run that fails is made again for each request
//! alone, and for each half of what fails then, so that a record that a model cannot take is refused alone.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef};
use arrow_select::concat::concat;

use crate::clock::Clock;
use crate::domain::name::StreamName;
use crate::domain::policy::Resident;
use crate::scoring::{Error, Scored, Scorer};
use crate::telemetry::{Histogram, Telemetry, Times};

/// A worker's scorers, by stream.
pub(super) struct Scores {
    scorers: BTreeMap<StreamName, Scorer>,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    times: Arc<Times>,
}

/// What a model said about the records of a batch.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    /// A column for each output. Empty: the stream has no model, or it has failed on all records.
    pub(super) columns: Vec<ArrayRef>,
    /// Records, by their positions, whose values cannot be used, in ascending order.
    pub(super) unusable: Vec<u32>,
    /// Records that the model has failed on.
    pub(super) failed: Vec<Range<usize>>,
    /// So many runs failed that some requests were not tried: for each to be judged by itself, each has to be alone.
    pub(super) is_given_up: bool,
}

/// How many runs of a batch may fail before what is left is given up: each may take as long as a run may.
const LATE_MAX: usize = 3;
const FAILED_MAX: usize = 64;

enum Failed {
    Late,
    Otherwise,
}

impl Scores {
    pub(super) fn new(
        scorers: BTreeMap<StreamName, Scorer>,
        telemetry: Arc<Telemetry>,
        clock: Clock,
        times: Arc<Times>,
    ) -> Self {
        Self { scorers, telemetry, clock, times }
    }

    /// Scores a batch. `requests` are the records of each request, one after the other.
    pub(super) fn score(&mut self, resident: &Resident, requests: &[Range<usize>]) -> Outputs {
        let rows = resident.batch().rows();
        let stream = resident.batch().stream();
        let Some(scorer) = self.scorers.get_mut(&stream.name) else { return Outputs::default() };
        let mut scoring = Scoring {
            scorer,
            stream: &stream.name,
            resident,
            parts: Vec::new(),
            left: FAILED_MAX,
            clock: self.clock,
            times: self.times.model(&stream.name),
        };
        match scoring.run(0..rows) {
            Ok(scored) => scoring.parts.push((0..rows, Some(scored))),
            Err(failed) if !scoring.apart(requests, &failed) => {
                return Outputs { is_given_up: true, ..Outputs::default() };
            }
            Err(_) => {}
        }
        let outputs = scoring.outputs();
        let scored = rows - outputs.failed.iter().map(ExactSizeIterator::len).sum::<usize>();
        if !outputs.columns.is_empty() {
            Telemetry::add(&self.telemetry.of(&stream.name).scored, scored);
        }
        outputs
    }
}

struct Scoring<'s> {
    scorer: &'s mut Scorer,
    stream: &'s str,
    resident: &'s Resident,
    /// What came of the records so far; `None`: the model has failed on them.
    parts: Vec<(Range<usize>, Option<Scored>)>,
    /// How many runs may fail yet.
    left: usize,
    clock: Clock,
    /// Where it is said how long each run takes.
    times: Option<&'s Histogram>,
}

impl Scoring<'_> {
    /// What panics in the library or on the way to it concerns these records, and no others.
    fn run(&mut self, rows: Range<usize>) -> Result<Scored, Failed> {
        let (scorer, stream) = (&mut *self.scorer, self.stream);
        let part;
        let records = if rows.len() == self.resident.batch().rows() {
            self.resident
        } else {
            part = self.resident.slice(rows.start, rows.len());
            &part
        };
        let records = [records];
        let began = self.clock.now();
        let scored = catch_unwind(AssertUnwindSafe(|| scorer.score(&records)));
        if let Some(times) = self.times {
            times.add(self.clock.now().saturating_sub(began), 1);
        }
        match scored {
            Ok(Ok(scored)) => {
                if !scored.unusable.is_empty() {
                    let (records, output) = (scored.records_unusable(), scorer.output(scored.unusable.first()));
                    tracing::warn!(%stream, records, output, "the model's values for records are not finite, or outside the range, and the records are refused: check \
                         the model, and the `range` of its output");
                }
                Ok(scored)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, %stream, records = rows.len(), "records could not be scored. Check the model \
                 with `bailiwick check`");
                Err(if matches!(error, Error::Late { .. }) { Failed::Late } else { Failed::Otherwise })
            }
            Err(_) => {
                tracing::error!(%stream, records = rows.len(), "scoring records panicked. A fault in bailiwick or in \
                 the model: please report this line");
                Err(Failed::Otherwise)
            }
        }
    }

    /// Scores each request alone. `false`: there were too many failures to try all of them.
    fn apart(&mut self, requests: &[Range<usize>], failed: &Failed) -> bool {
        if matches!(failed, Failed::Late) {
            self.left = self.left.min(LATE_MAX);
        }
        let requests = requests.iter().filter(|rows| !rows.is_empty());
        let is_alone = requests.clone().count() == 1;
        for rows in requests {
            if self.left == 0 {
                return false;
            }
            self.halve(rows.clone(), is_alone.then_some(failed));
        }
        // What failed when nothing was left may have been given up untried.
        is_alone || self.left > 0
    }

    /// Scores records that failed before, or may fail.
    fn halve(&mut self, rows: Range<usize>, known: Option<&Failed>) {
        let tried = match known {
            Some(Failed::Late) => Err(Failed::Late),
            Some(Failed::Otherwise) => Err(Failed::Otherwise),
            None if self.left == 0 => Err(Failed::Otherwise),
            None => self.run(rows.clone()),
        };
        match tried {
            Ok(scored) => self.parts.push((rows, Some(scored))),
            Err(failed) => {
                self.left = self.left.saturating_sub(1);
                if matches!(failed, Failed::Late) {
                    self.left = self.left.min(LATE_MAX);
                }
                let is_given_up = self.left == 0 || matches!(failed, Failed::Late);
                if rows.len() == 1 || is_given_up {
                    return self.parts.push((rows, None));
                }
                let middle = rows.start + rows.len() / 2;
                self.halve(rows.start..middle, None);
                self.halve(middle..rows.end, None);
            }
        }
    }

    fn outputs(self) -> Outputs {
        let mut outputs = Outputs::default();
        let mut columns: Vec<Vec<ArrayRef>> = Vec::new();
        let known = self.parts.iter().find_map(|(_, scored)| scored.as_ref());
        let types: Vec<_> = known
            .map(|scored| scored.outputs.iter().map(|column| column.data_type().clone()).collect())
            .unwrap_or_default();
        columns.resize_with(types.len(), Vec::new);
        for (rows, scored) in self.parts {
            match scored {
                Some(scored) => {
                    let first = u32::try_from(rows.start).unwrap_or(u32::MAX);
                    outputs.unusable.extend(scored.unusable.iter().map(|unusable| unusable.row + first));
                    columns.iter_mut().zip(scored.outputs).for_each(|(column, part)| column.push(part));
                }
                None => {
                    for (column, data_type) in columns.iter_mut().zip(&types) {
                        column.push(arrow_array::new_null_array(data_type, rows.len()));
                    }
                    outputs.failed.push(rows);
                }
            }
        }
        outputs.unusable.dedup();
        outputs.columns = columns.into_iter().filter_map(joined).collect();
        outputs
    }
}

/// Parts of a column as one.
fn joined(mut parts: Vec<ArrayRef>) -> Option<ArrayRef> {
    if parts.len() == 1 {
        return parts.pop();
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    concat(&parts).ok()
}
