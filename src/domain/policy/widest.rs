//! The largest cell that a dataset can have. It is known before any record comes.

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;

use crate::domain::aggregate::{ENOUGH, Value};
use crate::domain::dataset::{Dataset, Function, KeyDomain};
use crate::domain::name::{DatasetName, GatewayId};
use crate::domain::table::Change;

use super::Digest;
use super::release::{Beside, Head, assemble};

/// The latest time that there can be, in microseconds since the Unix epoch. No other time is written longer.
const LATEST: i64 = 253_402_207_199_999_999;
/// How many characters the id of a release has.
const ID_LENGTH: usize = 32;

/// The largest cell that a dataset can have, however cells are written. It holds nothing of any record.
#[derive(Debug)]
pub struct Widest {
    id: String,
    gateway: GatewayId,
    dataset: DatasetName,
    cells: RecordBatch,
}

impl Widest {
    /// The largest cell of a dataset at a gateway.
    ///
    /// # Errors
    /// When Arrow cannot assemble the columns, which no valid dataset causes.
    pub fn of(dataset: &Dataset, gateway: &GatewayId) -> Result<Self, ArrowError> {
        let id = "0".repeat(ID_LENGTH);
        let policy = Digest::from_bytes([0; 32]);
        let head = Head { id: &id, gateway, dataset, policy, start: LATEST, end: LATEST };
        let labels = |domain: &KeyDomain| vec!["x".repeat(longest(domain))];
        let values = |metric: usize| match dataset.metrics.get(metric).map(|metric| &metric.function) {
            Some(Function::Count) | None => vec![Value::Count(u64::MAX)],
            Some(Function::Histogram { edges, .. }) => vec![Value::Counts(vec![Some(u64::MAX); edges.len()])],
            Some(_) => vec![Value::Number(-f64::MAX)],
        };
        let beside = Beside {
            windows: &[dataset.max_defer.saturating_add(1)],
            changes: &[Change::Gone],
            contributors: &[Value::Count(ENOUGH as u64)],
        };
        let cells = assemble(&head, beside, |_, domain| labels(domain), values)?;
        Ok(Self { gateway: gateway.clone(), dataset: dataset.name.clone(), cells, id })
    }

    /// The cell.
    #[must_use]
    pub fn cells(&self) -> &RecordBatch {
        &self.cells
    }

    /// An id as long as that of any release.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The gateway's id.
    #[must_use]
    pub fn gateway(&self) -> &GatewayId {
        &self.gateway
    }

    /// The dataset's name.
    #[must_use]
    pub fn dataset(&self) -> &DatasetName {
        &self.dataset
    }

    /// An end of a window that is written as long as any.
    #[must_use]
    pub fn window_end(&self) -> i64 {
        LATEST
    }
}

/// The bytes of the longest label of a key, as JSON writes it; nothing else writes it longer.
fn longest(domain: &KeyDomain) -> usize {
    let written = |letter: char| match letter {
        '"' | '\\' => 2,
        control if control < ' ' => 6,
        letter => letter.len_utf8(),
    };
    let length = |position| domain.label(position).chars().map(written).sum();
    (0..domain.size()).map(length).max().unwrap_or(0)
}
