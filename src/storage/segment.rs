//! Segment files: their names and headers. The format stands in the module above.

use std::fmt;
use std::sync::Arc;

use super::Lsn;
use super::frame::{u32_at, u64_at};

/// The name of a segment file. In order: by first LSN, then by when they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name {
    pub(super) first: Lsn,
    pub(super) id: Id,
}

impl Name {
    /// Reads a file's name; `None` if it is not a segment's.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (first, id) = name.strip_suffix(".segment")?.split_once('-')?;
        let parsed = Self { first: first.parse().ok()?, id: Id(u64::from_str_radix(id, 16).ok()?) };
        // Only the one spelling: no signs, no missing zeros.
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:020}-{:016x}.segment", self.first, self.id.0)
    }
}

/// What tells segments apart: a count in the upper half, chance in the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Id(pub(super) u64);

impl Id {
    /// The next one; `None` when they are used up.
    pub(super) fn next(self, random: u32) -> Option<Self> {
        let count = u32::try_from(self.0 >> 32).ok()?.checked_add(1)?;
        Some(Self(u64::from(count) << 32 | u64::from(random)))
    }

    /// What the frames' check sums start from, so that another segment's bytes never pass.
    pub(super) fn seed(self) -> u32 {
        if crate::planted::planted("unseeded-checksums") {
            return 0;
        }
        crc32c::crc32c(&self.0.to_le_bytes())
    }
}

/// What a segment starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: Name,
    pub(super) context: Arc<[u8]>,
    /// Inclusive ranges of LSNs that are known to be lost.
    pub(super) gaps: Vec<(Lsn, Lsn)>,
}

/// What the first bytes of a file are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// The header, and how many bytes it takes.
    Header(Header, u64),
    /// Perhaps, when there are as many bytes.
    Incomplete(u64),
    /// A header of another version.
    OtherVersion(u32),
    /// No header, or a damaged one.
    Damaged,
}

impl Header {
    /// The bytes; a multiple of eight.
    pub(super) fn encode(&self) -> Vec<u8> {
        let bytes = self.bytes();
        let mut header = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
        header.extend_from_slice(&u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes());
        header.extend_from_slice(&u32::try_from(self.context.len()).unwrap_or(u32::MAX).to_le_bytes());
        header.extend_from_slice(&self.name.id.0.to_le_bytes());
        header.extend_from_slice(&self.name.first.to_le_bytes());
        header.extend_from_slice(&u32::try_from(self.gaps.len()).unwrap_or(u32::MAX).to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        for (first, last) in &self.gaps {
            header.extend_from_slice(&first.to_le_bytes());
            header.extend_from_slice(&last.to_le_bytes());
        }
        header.extend_from_slice(&self.context);
        header.resize(usize::try_from(bytes).unwrap_or_default(), 0);
        let crc = checksum(&header);
        if let Some(place) = header.get_mut(CRC_AT..FIXED_BYTES) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        header
    }

    /// How many bytes it takes.
    pub(super) fn bytes(&self) -> u64 {
        header_bytes(self.context.len() as u64, self.gaps.len() as u64)
    }

    /// Reads the header of a file with this name from its first bytes.
    pub(super) fn decode(bytes: &[u8], name: Name) -> Decoded {
        Self::try_decode(bytes, name).unwrap_or(Decoded::Damaged)
    }

    fn try_decode(bytes: &[u8], name: Name) -> Option<Decoded> {
        let preamble = bytes.get(..12)?;
        if !preamble.starts_with(MAGIC) || u32_at(bytes, 12)? != crc32c::crc32c(preamble) {
            return None;
        }
        let version = u32_at(bytes, 8)?;
        if version != VERSION {
            return Some(Decoded::OtherVersion(version));
        }
        let length = u32_at(bytes, 16)?;
        let Some(header) = bytes.get(..length as usize) else { return Some(Decoded::Incomplete(length.into())) };
        if header.len() < FIXED_BYTES || u32_at(header, CRC_AT)? != checksum(header) {
            return None;
        }
        let (context_bytes, gap_count) = (u32_at(header, 20)?, u32_at(header, 40)?);
        if u64::from(length) != header_bytes(context_bytes.into(), gap_count.into()) {
            return None;
        }
        let (gaps, context) = header.get(FIXED_BYTES..)?.split_at_checked(gap_count as usize * 16)?;
        let gaps = gaps.chunks_exact(16).map(|gap| Some((u64_at(gap, 0)?, u64_at(gap, 8)?)));
        let header = Self {
            name: Name { id: Id(u64_at(header, 24)?), first: u64_at(header, 32)? },
            context: context.get(..context_bytes as usize)?.into(),
            gaps: gaps.collect::<Option<_>>()?,
        };
        (header.name == name).then_some(Decoded::Header(header, length.into()))
    }
}

/// How many bytes a header takes.
pub(super) const fn header_bytes(context_bytes: u64, gaps: u64) -> u64 {
    let bytes = FIXED_BYTES as u64 + gaps.saturating_mul(16).saturating_add(context_bytes);
    bytes.div_ceil(8) * 8
}

/// Over all but the preamble, which has its own, and the place of the check sum.
fn checksum(header: &[u8]) -> u32 {
    let before = crc32c::crc32c(header.get(16..CRC_AT).unwrap_or_default());
    crc32c::crc32c_append(before, header.get(FIXED_BYTES..).unwrap_or_default())
}

/// The version of the format that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// What a segment starts with, in every version; version and their check sum follow it in every version.
const MAGIC: &[u8; 8] = b"bailiwal";

/// The longest context that a header takes.
pub(super) const CONTEXT_BYTES_MAX: u64 = 16 << 20;

const CRC_AT: usize = 44;
const FIXED_BYTES: usize = 48;

/// The name of a segment that is not in use yet.
pub(super) fn spare_name(id: Id) -> String {
    format!("{SPARE_PREFIX}{:016x}{SPARE_SUFFIX}", id.0)
}

/// Whether a file is a segment that was never in use.
pub(super) fn is_spare(file: &str) -> bool {
    file.starts_with(SPARE_PREFIX) && file.ends_with(SPARE_SUFFIX)
}

const SPARE_PREFIX: &str = "spare-";
const SPARE_SUFFIX: &str = ".part";

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let name = Name { first: 12, id: Id(1 << 32 | 7) };
        Header { name, context: b"seven b".as_slice().into(), gaps: vec![(12, 13), (20, 20)] }
    }

    #[test]
    fn a_name_is_read_back_and_nothing_else_is_one() {
        let name = Name { first: 12, id: Id(0xabc) };
        assert_eq!(name.to_string(), "00000000000000000012-0000000000000abc.segment");
        assert_eq!(Name::parse(&name.to_string()), Some(name));
        for other in ["", "12-abc.segment", "+0000000000000000012-0000000000000abc.segment", "lock", "spare.part"] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn names_sort_by_first_lsn_and_then_by_age() {
        let id = Id::default().next(u32::MAX).unwrap();
        let later = id.next(0).unwrap();
        assert!(Name { first: 9, id: later } < Name { first: 10, id });
        assert!(Name { first: 9, id }.to_string() < Name { first: 9, id: later }.to_string());
        assert_eq!(Id(u64::MAX).next(0), None);
    }

    #[test]
    fn a_header_is_read_back() {
        let header = header();
        let bytes = header.encode();
        assert_eq!(bytes.len() as u64, header.bytes());
        assert_eq!(Header::decode(&bytes, header.name), Decoded::Header(header.clone(), header.bytes()));
        assert_eq!(Header::decode(&bytes[..40], header.name), Decoded::Incomplete(header.bytes()));
        let other = Name { first: 13, ..header.name };
        assert_eq!(Header::decode(&bytes, other), Decoded::Damaged);
    }

    #[test]
    fn a_flipped_bit_is_damage_and_never_another_version() {
        let header = header();
        let bytes = header.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match Header::decode(&flipped, header.name) {
                Decoded::Damaged => {}
                Decoded::Incomplete(_) => assert!((16..20).contains(&(bit / 8))),
                other => panic!("bit {bit}: {other:?}"),
            }
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = b"bailiwal".to_vec();
        bytes.extend_from_slice(&9_u32.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        assert_eq!(Header::decode(&bytes, header().name), Decoded::OtherVersion(9));
    }
}
