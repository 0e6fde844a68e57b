//! Cells as bytes, for checkpoints: what was counted outlives the process. They begin with their version.
//!
//! Version 3: the policies; each cell's number, records and contributors; of each metric what it keeps, cell by cell; of
//! each field that a record may be without, who has a value and who has none, cell by cell. Contributors are a set, or the
//! word that they are enough: at least 1,000.
//!
//! Version 2, which is still read, kept every set whole. Version 1, which is still read, kept squares of 61 bits, of a fraction only the matches, and nobody apart who has no
//! value. So a metric of a field that a record may be without is null in a window that version 1 began.

use super::contributors::{Contributors, ENOUGH, Presence, Split};
use super::moments::Moments;
use super::state::{Share, State};
use super::wide::Squares;
use super::{Cells, Contributor};
use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::{Dataset, Metric};
use crate::domain::policy::Digest;

const VERSION: u8 = 3;
const _: () = assert!(ENOUGH == 1_000, "what is enough is part of the version");

const FEW: u8 = 0;
const MANY: u8 = 1;

const NOTHING: u8 = 0;
const MOMENTS: u8 = 1;
const HISTOGRAM: u8 = 2;
const SHARES: u8 = 3;

const WHOLE: u8 = 0;
const SPLIT: u8 = 1;
const UNKNOWN: u8 = 2;

/// Cells of a checkpoint from before cells had a version, with the version that they are of.
#[must_use]
pub fn as_version_1(cells: &[u8]) -> Vec<u8> {
    [&[1], cells].concat()
}

impl Cells {
    /// Adds the cells to a checkpoint.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u8(VERSION).count(self.policies.len());
        for policy in &self.policies {
            writer.raw(policy.bytes());
        }
        writer.count(self.numbers.len());
        for ((number, records), contributors) in self.numbers.iter().zip(&self.records).zip(&self.contributors) {
            writer.u32(*number).u64(*records);
            encode_set(contributors, writer);
        }
        self.metrics.iter().for_each(|state| state.encode(writer));
        for presence in self.optional.iter().flat_map(|optional| &optional.presences) {
            match presence {
                Presence::Whole => {
                    writer.u8(WHOLE);
                }
                Presence::Split(split) => {
                    writer.u8(SPLIT);
                    encode_set(&split.with, writer);
                    encode_set(&split.without, writer);
                }
                Presence::Unknown => {
                    writer.u8(UNKNOWN);
                }
            }
        }
    }

    /// Reads cells of a dataset of the very same shape.
    pub fn decode(dataset: &Dataset, reader: &mut Reader<'_>) -> Option<Self> {
        Self::decode_up_to(dataset, ENOUGH, reader)
    }

    /// The same with sets that end at another number.
    pub(super) fn decode_up_to(dataset: &Dataset, enough: usize, reader: &mut Reader<'_>) -> Option<Self> {
        let version = reader.u8()?;
        let mut cells = Self::up_to(dataset, enough);
        for _ in 0..reader.count(32)? {
            cells.policies.insert(Digest::from_bytes(reader.array()?));
        }
        for _ in 0..reader.count(4 + 8 + 1)? {
            let number = reader.u32()?;
            if !cells.slots.can_be(number) || cells.slots.get(number).is_some() {
                return None;
            }
            let slot = cells.slot(number);
            cells.records[slot] = reader.u64()?;
            cells.contributors[slot] = decode_set(version, enough, reader)?;
        }
        for (metric, state) in dataset.metrics.iter().zip(&mut cells.metrics) {
            match version {
                1 => state.decode_version_1(metric, &cells.records, reader)?,
                2 | VERSION => state.decode(reader)?,
                _ => return None,
            }
        }
        for presence in cells.optional.iter_mut().flat_map(|optional| &mut optional.presences) {
            *presence = match version {
                1 => Presence::Unknown,
                _ => decode_presence(version, enough, reader)?,
            };
        }
        cells.set_bytes = (0..cells.len()).map(|slot| cells.sets_of(slot)).sum();
        Some(cells)
    }
}

fn encode_set(contributors: &Contributors, writer: &mut Writer) {
    match contributors {
        Contributors::Few(set) => {
            writer.u8(FEW).count(set.len());
            for contributor in set {
                writer.u128(*contributor);
            }
        }
        Contributors::Enough => {
            writer.u8(MANY);
        }
    }
}

/// Up to version 2 there were only sets.
fn decode_set(version: u8, enough: usize, reader: &mut Reader<'_>) -> Option<Contributors> {
    match if version < 3 { FEW } else { reader.u8()? } {
        FEW => {
            let mut contributors = Contributors::default();
            for _ in 0..reader.count(size_of::<Contributor>())? {
                contributors.insert(reader.u128()?, enough);
            }
            Some(contributors)
        }
        MANY => Some(Contributors::Enough),
        _ => None,
    }
}

fn decode_presence(version: u8, enough: usize, reader: &mut Reader<'_>) -> Option<Presence> {
    Some(match reader.u8()? {
        WHOLE => Presence::Whole,
        SPLIT => {
            let with = decode_set(version, enough, reader)?;
            Presence::Split(Box::new(Split { with, without: decode_set(version, enough, reader)? }))
        }
        UNKNOWN => Presence::Unknown,
        _ => return None,
    })
}

impl State {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Count | Self::Same(_) => {
                writer.u8(NOTHING);
            }
            Self::Moments(moments) => {
                writer.u8(MOMENTS);
                for moments in moments {
                    let (low, high) = moments.squares.parts();
                    writer.u64(moments.values).i128(moments.sum).u128(low).u64(high);
                }
            }
            Self::Histogram { counts, .. } => {
                writer.u8(HISTOGRAM);
                for count in counts {
                    writer.u64(*count);
                }
            }
            Self::Shares(shares) => {
                writer.u8(SHARES);
                for share in shares {
                    writer.u64(share.values).u64(share.matches);
                }
            }
        }
    }

    /// Reads what was kept of the cells that there are.
    fn decode(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        match (reader.u8()?, self) {
            (NOTHING, Self::Count | Self::Same(_)) => {}
            (MOMENTS, Self::Moments(moments)) => {
                for moments in moments {
                    let (values, sum) = (reader.u64()?, reader.i128()?);
                    *moments = Moments { values, sum, squares: Squares::new(reader.u128()?, reader.u64()?) };
                }
            }
            (HISTOGRAM, Self::Histogram { counts, .. }) => {
                for count in counts {
                    *count = reader.u64()?;
                }
            }
            (SHARES, Self::Shares(shares)) => {
                for share in shares {
                    *share = Share { values: reader.u64()?, matches: reader.u64()? };
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn decode_version_1(&mut self, metric: &Metric, records: &[u64], reader: &mut Reader<'_>) -> Option<()> {
        match (reader.u8()?, self, metric.function.measure()) {
            (NOTHING, Self::Count | Self::Same(_), _) => {}
            (MOMENTS, Self::Moments(moments), Some(measure)) => {
                for moments in moments {
                    let (values, sum, squares) = (reader.u64()?, reader.i128()?, reader.i128()?);
                    *moments = Moments::of_version_1(measure, values, sum, squares)?;
                }
            }
            (HISTOGRAM, Self::Histogram { counts, .. }, _) => {
                for count in counts {
                    *count = reader.u64()?;
                }
            }
            (SHARES, Self::Shares(shares), _) => {
                // A null counted as a value that does not match.
                for (share, records) in shares.iter_mut().zip(records) {
                    *share = Share { values: *records, matches: reader.u64()? };
                }
            }
            _ => return None,
        }
        Some(())
    }
}
