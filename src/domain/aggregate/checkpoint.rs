//! Cells as bytes, for checkpoints: what was counted outlives the process. They begin with their version.

use super::{Cells, Moments, NO_SLOT, State};
use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::Dataset;
use crate::domain::policy::Digest;

const VERSION: u8 = 1;

const NOTHING: u8 = 0;
const MOMENTS: u8 = 1;
const HISTOGRAM: u8 = 2;
const MATCHES: u8 = 3;

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
            writer.u32(*number).u64(*records).count(contributors.len());
            for contributor in contributors {
                writer.u128(*contributor);
            }
        }
        for state in &self.metrics {
            match state {
                State::Count | State::Same(_) => {
                    writer.u8(NOTHING);
                }
                State::Moments(moments) => {
                    writer.u8(MOMENTS);
                    for moments in moments {
                        writer.u64(moments.values).i128(moments.sum).i128(moments.squares);
                    }
                }
                State::Histogram { counts, .. } => {
                    writer.u8(HISTOGRAM);
                    for count in counts {
                        writer.u64(*count);
                    }
                }
                State::Matches(matches) => {
                    writer.u8(MATCHES);
                    for count in matches {
                        writer.u64(*count);
                    }
                }
            }
        }
    }

    /// Reads cells of a dataset of the very same keys and metrics.
    pub fn decode(dataset: &Dataset, reader: &mut Reader<'_>) -> Option<Self> {
        if reader.u8()? != VERSION {
            return None;
        }
        let mut cells = Self::new(dataset);
        for _ in 0..reader.count(32)? {
            cells.policies.insert(Digest::from_bytes(reader.array()?));
        }
        let count = reader.count(20)?;
        for _ in 0..count {
            let number = reader.u32()?;
            if *cells.slots.get(number as usize)? != NO_SLOT {
                return None;
            }
            let slot = cells.slot(number);
            cells.records[slot] = reader.u64()?;
            let contributors = reader.count(16)?;
            cells.contributors[slot].reserve(contributors);
            for _ in 0..contributors {
                cells.contributors[slot].insert(reader.u128()?);
            }
        }
        for state in &mut cells.metrics {
            match (reader.u8()?, state) {
                (NOTHING, State::Count | State::Same(_)) => {}
                (MOMENTS, State::Moments(moments)) => {
                    for moments in moments {
                        *moments = Moments { values: reader.u64()?, sum: reader.i128()?, squares: reader.i128()? };
                    }
                }
                (HISTOGRAM, State::Histogram { counts, .. }) | (MATCHES, State::Matches(counts)) => {
                    for count in counts {
                        *count = reader.u64()?;
                    }
                }
                _ => return None,
            }
        }
        Some(cells)
    }
}
