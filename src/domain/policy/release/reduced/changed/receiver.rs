//! For tests: small releases, and a receiver that keeps a table of what it was told. It sees the columns of what left, and
//! nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

use super::{CHANGE, DEGRADED, ON_CHANGE, SINCE, WINDOWS};
use crate::domain::policy::{Digest, Released, ReleasedParts};

/// By country and city: how many windows, a count, and a mean in quarters.
pub(crate) type Table = BTreeMap<[String; 2], (i64, i64, Option<i64>)>;

/// A release of a dataset for the desk.
pub(crate) fn released(dataset: &str, id: &str, table: &Table) -> Released {
    let rows = table.len();
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text; rows])) };
    let time = |time: i64| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from_value(time, rows)) };
    let key = |key: usize| -> ArrayRef { Arc::new(StringArray::from_iter_values(table.keys().map(|keys| &keys[key]))) };
    let means = table.values().map(|(.., mean)| mean.map(|quarters| quarters as f64 / 4.0));
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("release", text(id), false),
        ("gateway", text("eu-1"), false),
        ("dataset", text(dataset), false),
        ("policy", text("0123456789ab"), false),
        ("window_start", time(0), false),
        ("window_end", time(60_000_000), false),
        (WINDOWS, Arc::new(Int64Array::from_iter_values(table.values().map(|(windows, ..)| *windows))), false),
        ("country", key(0), false),
        ("city", key(1), false),
        ("n", Arc::new(Int64Array::from_iter_values(table.values().map(|(_, n, _)| *n))), false),
        ("mean", Arc::new(means.collect::<Float64Array>()), true),
    ];
    Released::for_tests(ReleasedParts {
        id: id.to_owned(),
        destination: "desk".parse().unwrap(),
        dataset: dataset.parse().unwrap(),
        gateway: "eu-1".parse().unwrap(),
        window_start: 0,
        window_end: 60_000_000,
        policy: Digest::from_bytes([7; 32]),
        cells: RecordBatch::try_from_iter_with_nullable(columns).unwrap(),
    })
}

/// What it was told of one dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Receiver {
    /// The id of the release that its table is of.
    pub(crate) release: Option<String>,
    pub(crate) table: Table,
}

impl Receiver {
    /// Hears of a release. Whether it has the whole table of it then.
    pub(crate) fn hear(&mut self, released: &Released) -> bool {
        let cells = released.cells();
        let text = |name: &str, row: usize| {
            let column = cells.column_by_name(name)?.as_string::<i32>().clone();
            column.is_valid(row).then(|| column.value(row).to_owned())
        };
        let whole = |name: &str, row: usize| cells.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(row);
        let release = text("release", 0);
        let is_again = release == self.release;
        match text(DEGRADED, 0).as_deref() {
            None => self.table.clear(),
            Some(ON_CHANGE) if is_again || text(SINCE, 0) == self.release => {}
            Some(_) => return false,
        }
        for row in 0..cells.num_rows() {
            assert_eq!((text("release", row), text(SINCE, row)), (release.clone(), text(SINCE, 0)));
            let keys = ["country", "city"].map(|key| text(key, row).unwrap());
            let means = cells.column_by_name("mean").unwrap().as_primitive::<Float64Type>();
            let mean = means.is_valid(row).then(|| (means.value(row) * 4.0) as i64);
            if text(CHANGE, row).as_deref() == Some("gone") {
                assert!(mean.is_none() && cells.column_by_name("n").unwrap().is_null(row));
                assert!(self.table.remove(&keys).is_some() || is_again, "it was there");
            } else {
                self.table.insert(keys, (whole(WINDOWS, row), whole("n", row), mean));
            }
        }
        self.release = release;
        true
    }
}
