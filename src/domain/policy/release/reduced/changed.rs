//! A release that leaves as what has changed since what its receiver was told last: rows that say something else, and keys of
//! rows that are gone. Whoever has both releases as a whole can make it.
//!
//! Of releases of a dataset that leave together, each is compared with the one before it. The first of them is compared with
//! what left earlier, and that need not be there any more when it is sent again. So what was found then is a part of the form
//! ([`Delta`]), and is kept with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use arrow_select::concat::concat;
use arrow_select::take::take;

use super::{DEGRADED, Named, RELEASE_COLUMNS, Reduced, Released, id_of, said};
use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::{CELLS_MAX, CHANGE, WINDOWS};
use crate::domain::name::DatasetName;
use crate::domain::table::Change;

/// The name of the step that leaves only what has changed.
pub const ON_CHANGE: &str = "on_change";

/// The column of a release that leaves as what has changed: the id of the release that its receiver was told last, as it left.
/// It stands behind [`DEGRADED`].
pub const SINCE: &str = "since";

/// What has changed of releases that leave together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Of the first release of each dataset of which that can be told. The first one of another dataset leaves whole.
    first: BTreeMap<DatasetName, Delta>,
}

/// What a receiver was told last of a dataset.
#[derive(Clone, Copy)]
pub struct LastTold<'t> {
    /// The id under which it left.
    pub id: &'t str,
    /// The whole release.
    pub whole: &'t Released,
}

/// What has changed of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Delta {
    /// The id of the whole release.
    of: String,
    /// The id under which that left which its receiver was told last.
    since: String,
    /// The rows that are told.
    set: BTreeSet<u32>,
    /// The keys of each row that is gone.
    gone: Vec<Vec<String>>,
}

impl Changes {
    /// What has changed of the first release of each dataset since what its receiver was told last.
    #[must_use]
    pub fn since<'t>(told: impl Fn(&DatasetName) -> Option<LastTold<'t>>, releases: &[Released]) -> Self {
        let (mut seen, mut first) = (BTreeSet::new(), BTreeMap::new());
        for released in releases {
            if !seen.insert(released.dataset()) {
                continue;
            }
            let delta = told(released.dataset()).and_then(|told| Delta::between(told, released));
            first.extend(delta.map(|delta| (released.dataset().clone(), delta)));
        }
        Self { first }
    }

    /// The releases as they leave.
    pub(super) fn applied(&self, releases: &[Released]) -> Result<Vec<Released>, ArrowError> {
        let mut left: Vec<Released> = Vec::with_capacity(releases.len());
        let mut last: BTreeMap<&DatasetName, usize> = BTreeMap::new();
        for (at, whole) in releases.iter().enumerate() {
            let dataset = &whole.dataset;
            let before = last.insert(dataset, at);
            let before = before.and_then(|at| Some(LastTold { id: left.get(at)?.id(), whole: releases.get(at)? }));
            let delta = match before {
                Some(told) => Delta::between(told, whole),
                None => self.first.get(dataset).filter(|delta| delta.of == whole.id).cloned(),
            };
            let leaves = delta.map(|delta| delta.applied(whole)).transpose()?.flatten();
            left.push(leaves.unwrap_or_else(|| whole.clone()));
        }
        Ok(left)
    }

    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.count(self.first.len());
        for (dataset, Delta { of, since, set, gone }) in &self.first {
            writer.text(dataset).text(of).text(since);
            let mut bits = vec![0_u8; set.last().map_or(0, |last| *last as usize / 8 + 1)];
            for row in set {
                if let Some(bits) = bits.get_mut(*row as usize / 8) {
                    *bits |= 1 << (row % 8);
                }
            }
            writer.bytes(&bits).count(gone.len());
            for keys in gone {
                writer.count(keys.len());
                keys.iter().for_each(|key| {
                    writer.short_text(key);
                });
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let mut first = BTreeMap::new();
        for _ in 0..reader.count(8)? {
            let dataset = DatasetName::read(reader)?;
            let (of, since, bits) = (reader.text()?.to_owned(), reader.text()?.to_owned(), reader.bytes()?);
            // Twice as many rows as a window has cells: remainders are rows too.
            if bits.len() > 2 * CELLS_MAX / 8 {
                return None;
            }
            let bits = bits.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
            let set = (0_u32..).zip(bits).filter(|(_, is_set)| *is_set).map(|(row, _)| row).collect();
            let gone = (0..reader.count(8)?).map(|_| {
                let keys = 0..reader.count(1)?;
                keys.map(|_| reader.short_text().map(str::to_owned)).collect::<Option<Vec<String>>>()
            });
            let gone = gone.collect::<Option<_>>()?;
            first.insert(dataset, Delta { of, since, set, gone });
        }
        Some(Self { first })
    }
}

impl Delta {
    /// What has changed of a release since another one; `None`: it leaves whole, because that takes no more rows, or because
    /// the two have other columns, or rows that are not told apart by their keys. Where nothing has changed, the first row is
    /// told again: a release without rows is none.
    fn between(told: LastTold<'_>, now: &Released) -> Option<Self> {
        let (before, after) = (Rows::of(&told.whole.cells)?, Rows::of(&now.cells)?);
        if before.fields != after.fields {
            return None;
        }
        let (of_before, of_after) = (before.by_keys()?, after.by_keys()?);
        let is_same =
            |keys: &Vec<&str>, row: usize| of_before.get(keys).is_some_and(|was| before.says(*was, &after, row));
        let changed = of_after.iter().filter(|(keys, row)| !is_same(keys, **row)).map(|(_, row)| *row);
        let mut set = changed.map(|row| u32::try_from(row).ok()).collect::<Option<BTreeSet<u32>>>()?;
        let gone = of_before.keys().filter(|keys| !of_after.contains_key(*keys));
        let gone: Vec<Vec<String>> = gone.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect()).collect();
        if set.is_empty() && gone.is_empty() {
            set.insert(0);
        }
        let is_less = set.len() + gone.len() < now.cells.num_rows();
        is_less.then(|| Self { of: now.id.clone(), since: told.id.to_owned(), set, gone })
    }

    /// The release as it leaves; `None` if it is another one.
    fn applied(&self, whole: &Released) -> Result<Option<Released>, ArrowError> {
        let rows = whole.cells.num_rows();
        let Some(of_whole) = Rows::of(&whole.cells) else { return Ok(None) };
        let have_keys = self.gone.iter().all(|keys| keys.len() == of_whole.keys.len());
        if !have_keys || rows == 0 || self.set.iter().any(|row| *row as usize >= rows) {
            return Ok(None);
        }
        let (set, gone) = (UInt32Array::from_iter_values(self.set.iter().copied()), self.gone.len());
        let (mut fields, mut columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
        let (mut key, mut has_change) = (0, false);
        for (field, column) in whole.cells.schema_ref().fields().iter().zip(whole.cells.columns()) {
            let is_of_release = RELEASE_COLUMNS.contains(&field.name().as_str());
            if !is_of_release && field.name() != WINDOWS && !has_change {
                has_change = true;
                fields.push(Arc::new(Field::new(CHANGE, DataType::Utf8, true)));
                let changes = set.iter().map(|_| Change::Set.name()).chain((0..gone).map(|_| Change::Gone.name()));
                columns.push(Arc::new(StringArray::from_iter_values(changes)));
            }
            let (of_gone, is_nullable): (ArrayRef, bool) = if is_of_release {
                (take(column, &UInt32Array::from(vec![0; gone]), None)?, field.is_nullable())
            } else if field.name() == WINDOWS {
                (Arc::new(Int64Array::from(vec![1; gone])), field.is_nullable())
            } else if is_key(field) {
                let labels = StringArray::from_iter_values(self.gone.iter().filter_map(|keys| keys.get(key)));
                key += 1;
                (Arc::new(labels), field.is_nullable())
            } else {
                (new_null_array(column.data_type(), gone), true)
            };
            fields.push(Arc::new(field.as_ref().clone().with_nullable(is_nullable)));
            columns.push(concat(&[&take(column, &set, None)?, &of_gone])?);
        }
        let cells = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        let mut id = Writer::default();
        id.text(ON_CHANGE).text(&self.since);
        let (id, steps) = (id_of(whole, &id.finish()), vec![ON_CHANGE]);
        let columns = [Named { name: DEGRADED, text: ON_CHANGE }, Named { name: SINCE, text: &self.since }];
        let cells = said(&cells, &id, &columns)?;
        let since = Some(self.since.clone());
        let reduced = Reduced { steps, whole: whole.id.clone(), cells: rows as u64, since };
        Ok(Some(Released { id, cells, reduced: Some(reduced), ..whole.clone() }))
    }
}

/// Whether a column that is not one of all releases has a key.
fn is_key(field: &Field) -> bool {
    field.data_type() == &DataType::Utf8
}

/// The rows of a release, apart into keys and what they say.
struct Rows<'r> {
    fields: Vec<(&'r str, &'r DataType)>,
    keys: Vec<&'r StringArray>,
    values: Vec<&'r ArrayRef>,
    rows: usize,
}

impl<'r> Rows<'r> {
    /// `None`: the release is no whole one, or it tells only what has changed.
    fn of(cells: &'r RecordBatch) -> Option<Self> {
        let mut rows = Self { fields: Vec::new(), keys: Vec::new(), values: Vec::new(), rows: cells.num_rows() };
        for (field, column) in cells.schema_ref().fields().iter().zip(cells.columns()) {
            let name = field.name().as_str();
            if [DEGRADED, SINCE, CHANGE].contains(&name) {
                return None;
            }
            if RELEASE_COLUMNS.contains(&name) {
                continue;
            }
            rows.fields.push((name, field.data_type()));
            if is_key(field) {
                rows.keys.push(column.as_string_opt()?);
            } else {
                rows.values.push(column);
            }
        }
        Some(rows)
    }

    /// Where each is; `None` if two have the same keys.
    fn by_keys(&self) -> Option<BTreeMap<Vec<&'r str>, usize>> {
        let keys = |row: usize| self.keys.iter().map(|column| column.value(row)).collect();
        let by_keys: BTreeMap<Vec<&str>, usize> = (0..self.rows).map(|row| (keys(row), row)).collect();
        (by_keys.len() == self.rows).then_some(by_keys)
    }

    /// Whether a row says the same as one of others that have the same columns.
    fn says(&self, row: usize, others: &Self, of_others: usize) -> bool {
        let mut values = self.values.iter().zip(&others.values);
        values.all(|(one, other)| one.slice(row, 1).to_data() == other.slice(of_others, 1).to_data())
    }
}

#[cfg(test)]
pub(crate) mod receiver;
#[cfg(test)]
mod tests;
