//! What is asked of the parts and the sums of a cell.

use crate::domain::binary::{Reader, Writer};

/// When a part of a cell may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartRule {
    /// It has at least so many distinct contributors.
    pub least: usize,
    /// Or none at all, unless that says too much: whom nothing of a special category is said of is named by it too.
    pub not_empty: bool,
    /// A sum leaves if what all but the two largest contributors add is at least so many percent of what the largest one adds
    /// (`portions`). 0: sums leave whatever they are of.
    pub percent: u32,
    /// The contributors are as many without the records of any single producer too.
    pub beyond_one: bool,
    /// Of a thousand contributors of a cell at least so many are brought by others than any single producer, and of what is
    /// added to a sum as much. 0: that is not asked.
    pub beside: u32,
}

impl PartRule {
    /// Whether it matters who brought a contributor.
    pub(super) fn asks_for_producers(self) -> bool {
        self.beyond_one || self.beside > 0
    }

    /// The stricter of each of the two rules' values.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        Self {
            least: self.least.max(other.least),
            not_empty: self.not_empty || other.not_empty,
            percent: self.percent.max(other.percent),
            beyond_one: self.beyond_one || other.beyond_one,
            beside: self.beside.max(other.beside),
        }
    }

    /// The laxer of each of the two rules' values.
    #[must_use]
    pub fn laxer(self, other: Self) -> Self {
        Self {
            least: self.least.min(other.least),
            not_empty: self.not_empty && other.not_empty,
            percent: self.percent.min(other.percent),
            beyond_one: self.beyond_one && other.beyond_one,
            beside: self.beside.min(other.beside),
        }
    }

    /// Adds the rule to bytes under construction.
    pub fn encode(&self, writer: &mut Writer) {
        let Self { least, not_empty, percent, beyond_one, beside } = *self;
        writer.u32(u32::try_from(least).unwrap_or(u32::MAX)).u8(not_empty.into());
        writer.u32(percent).u8(beyond_one.into()).u32(beside);
    }

    /// Reads what [`PartRule::encode`] wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let (least, not_empty) = (reader.u32()? as usize, reader.u8()? != 0);
        Some(Self { least, not_empty, percent: reader.u32()?, beyond_one: reader.u8()? != 0, beside: reader.u32()? })
    }
}
