//! What a destination was told last of each dataset, where releases may leave as what has changed since then: a release that
//! left whole, or as what had changed. What was shed since, or left in another form, does not count: its receiver does not
//! have the rows.
//!
//! It is on disk with each payment which releases these are. Their rows are in the outbox, for as long as it has them: if it
//! does not have them any more after a start, the next release leaves whole, or in another form.

use std::collections::BTreeMap;
use std::fmt;

use crate::domain::binary::{Reader, Writer};
use crate::domain::name::DatasetName;
use crate::domain::policy::{LastTold, Released};
use crate::storage::Lsn;

/// So many bytes are on disk of it, at most. Of datasets beyond that, a start knows nothing.
pub(super) const BYTES_MAX: usize = 8 << 10;

/// By dataset.
#[derive(Clone, Default)]
pub(super) struct Told(BTreeMap<DatasetName, Last>);

/// A release that a destination was told.
#[derive(Clone)]
struct Last {
    /// Where the outbox has it.
    at: Lsn,
    /// Its id there.
    id: String,
    /// The id under which it left.
    left_as: String,
    /// `None`: it was not looked for yet, or is not there.
    whole: Option<Released>,
}

/// Releases that leave, and what they are in the outbox, in the same order.
#[derive(Clone, Copy, Default)]
pub struct Leaving<'l> {
    /// In the outbox.
    pub whole: &'l [Released],
    /// As they leave.
    pub left: &'l [Released],
}

impl Told {
    /// What was told last of a dataset before a position.
    pub(super) fn before(&self, dataset: &DatasetName, lsn: Lsn) -> Option<LastTold<'_>> {
        let last = self.0.get(dataset).filter(|last| last.at < lsn)?;
        Some(LastTold { id: &last.left_as, whole: last.whole.as_ref()? })
    }

    /// What is told once releases have left, which end at a position. What is sent again changes nothing, but for the id of what
    /// leaves whole that had left otherwise: some of it may have left before in a form that is not known any more, or may have
    /// been forgotten ([`Budget::forget`](super::Budget::forget)).
    pub(super) fn after(&self, lsn: Lsn, leaving: Leaving<'_>, is_sent_again: bool) -> Self {
        let mut told = self.clone();
        for (whole, left) in leaving.whole.iter().zip(leaving.left) {
            let dataset = whole.dataset();
            let before = self.0.get(dataset).map(|last| last.at);
            if before.is_some_and(|at| lsn < at) || is_sent_again && before != Some(lsn) {
                continue;
            }
            let is_told = match left.made_smaller() {
                None => true,
                Some(smaller) => match &smaller.since {
                    None => continue,
                    Some(since) => told.0.get(dataset).is_some_and(|last| last.left_as == *since),
                },
            };
            if is_told {
                let (id, left_as) = (whole.id().to_owned(), left.id().to_owned());
                told.0.insert(dataset.clone(), Last { at: lsn, id, left_as, whole: Some(whole.clone()) });
            } else if before != Some(lsn) {
                told.0.remove(dataset);
            }
        }
        told
    }

    /// Without what was told of datasets. `None`: nothing was.
    pub(super) fn without<'d>(&self, datasets: impl Iterator<Item = &'d DatasetName>) -> Option<Self> {
        let mut told = self.clone();
        for dataset in datasets {
            told.0.remove(dataset);
        }
        (told.0.len() < self.0.len()).then_some(told)
    }

    /// The datasets.
    pub(super) fn datasets(&self) -> impl Iterator<Item = &DatasetName> {
        self.0.keys()
    }

    /// What the outbox has through a position.
    pub(super) fn through(mut self, last: Lsn) -> Self {
        self.0.retain(|_, of_dataset| of_dataset.at <= last);
        self
    }

    /// Looks for the releases. `find` has those of the destination at a position of the outbox.
    pub(super) fn recall(&mut self, find: &dyn Fn(Lsn) -> Vec<Released>) {
        self.0.retain(|_, last| {
            last.whole = find(last.at).into_iter().find(|released| released.id() == last.id);
            last.whole.is_some()
        });
    }

    pub(super) fn encode(&self, writer: &mut Writer) {
        let mut newest: Vec<(&DatasetName, &Last)> = self.0.iter().collect();
        newest.sort_by_key(|(_, last)| std::cmp::Reverse(last.at));
        let mut room = BYTES_MAX;
        newest.retain(|(dataset, Last { id, left_as, .. })| {
            let bytes = 4 * size_of::<u64>() + dataset.len() + id.len() + left_as.len();
            let fits = bytes <= room;
            room = room.saturating_sub(bytes);
            fits
        });
        writer.count(newest.len());
        for (dataset, Last { at, id, left_as, .. }) in newest {
            writer.text(dataset).u64(*at).text(id).text(left_as);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let each = 0..reader.count(4 * size_of::<u64>())?;
        let each = each.map(|_| {
            let (dataset, at) = (DatasetName::read(reader)?, reader.u64()?);
            let (id, left_as) = (reader.text()?.to_owned(), reader.text()?.to_owned());
            Some((dataset, Last { at, id, left_as, whole: None }))
        });
        each.collect::<Option<_>>().map(Self)
    }
}

impl Last {
    /// What is on disk of it: all but the release.
    fn kept(&self) -> (Lsn, &str, &str) {
        (self.at, &self.id, &self.left_as)
    }
}

/// What is on disk of it is the same.
impl PartialEq for Told {
    fn eq(&self, other: &Self) -> bool {
        self.0.keys().eq(other.0.keys()) && self.0.values().map(Last::kept).eq(other.0.values().map(Last::kept))
    }
}

impl Eq for Told {}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(dataset, last)| (dataset, last.kept()))).finish()
    }
}

#[cfg(test)]
mod tests;
