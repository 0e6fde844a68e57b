//! Frames: what one commit writes. The format stands in the module above.

use std::io::{self, IoSlice};
use std::ops::Range;

use super::Lsn;
use super::fs::{File, write_full};

/// The fixed part of a frame, before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The LSN of the first entry; of a frame without entries, the one that will come next.
    pub(super) first: Lsn,
    pub(super) count: u32,
    /// Everything through this LSN was durable when the frame was written.
    pub(super) durable: Lsn,
    pub(super) body_bytes: u32,
    body_crc: u32,
}

impl Header {
    /// The LSN after the last entry. Decoding has made sure that there is one.
    pub(super) fn next(&self) -> Lsn {
        self.first.saturating_add(self.count.into())
    }

    /// The bytes from this frame's start to the next one's.
    pub(super) fn frame_bytes(&self) -> u64 {
        frame_bytes(self.body_bytes.into())
    }

    /// Whether this is the body, and holds as many entries as the header says.
    pub(super) fn body_is_whole(&self, body: &[u8], seed: u32) -> bool {
        if body.len() != self.body_bytes as usize || crc32c::crc32c_append(seed, body) != self.body_crc {
            return false;
        }
        let (count, bytes) =
            payloads(body).fold((0, 0), |(count, bytes), payload| (count + 1, bytes + 4 + payload.len()));
        count == u64::from(self.count) && bytes == body.len()
    }

    #[expect(clippy::indexing_slicing, reason = "the header has a constant length, with the check sum at its end")]
    fn encode(&self, seed: u32) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        let fields: [&[u8]; 7] = [
            &MAGIC,
            &self.body_bytes.to_le_bytes(),
            &self.first.to_le_bytes(),
            &self.durable.to_le_bytes(),
            &self.count.to_le_bytes(),
            &self.body_crc.to_le_bytes(),
            &[0; 4],
        ];
        let mut rest: &mut [u8] = &mut bytes;
        for field in fields {
            let (place, after) = rest.split_at_mut(field.len());
            place.copy_from_slice(field);
            rest = after;
        }
        let crc = crc32c::crc32c_append(seed, &bytes[..HEADER_BYTES as usize - 4]);
        bytes[HEADER_BYTES as usize - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header that starts these bytes, if it is one, of the segment with this seed.
    pub(super) fn decode(bytes: &[u8], seed: u32) -> Option<Self> {
        let (bytes, _) = bytes.split_at_checked(HEADER_BYTES as usize)?;
        let (fields, crc) = bytes.split_last_chunk()?;
        if !fields.starts_with(&MAGIC) || crc32c::crc32c_append(seed, fields) != u32::from_le_bytes(*crc) {
            return None;
        }
        let header = Self {
            body_bytes: u32_at(fields, 4)?,
            first: u64_at(fields, 8)?,
            durable: u64_at(fields, 16)?,
            count: u32_at(fields, 24)?,
            body_crc: u32_at(fields, 28)?,
        };
        (header.first > 0 && header.first.checked_add(header.count.into()).is_some()).then_some(header)
    }
}

/// The entries of a frame's body, which has been found whole.
pub(super) fn payloads(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let bytes = u32_at(rest, 0)? as usize;
        let (payload, after) = rest.get(4..)?.split_at_checked(bytes)?;
        rest = after;
        Some(payload)
    })
}

/// Frames to be written one after the other. Large payloads are referred to, not copied.
pub(super) struct Frames<'a> {
    seed: u32,
    copied: Vec<u8>,
    parts: Vec<Part<'a>>,
    bytes: u64,
}

enum Part<'a> {
    Copied(Range<usize>),
    Payload(&'a [u8]),
}

impl<'a> Frames<'a> {
    /// None yet, for the segment with this seed.
    pub(super) fn new(seed: u32) -> Self {
        Self { seed, copied: Vec::new(), parts: Vec::new(), bytes: 0 }
    }

    /// Adds one frame. The caller has seen to it that it is not too large: [`Plan`].
    pub(super) fn push(&mut self, first: Lsn, durable: Lsn, payloads: impl IntoIterator<Item = &'a [u8]>) {
        let start = self.copied.len();
        self.copy(&[0; HEADER_BYTES as usize]);
        let (mut crc, mut body_bytes, mut count) = (self.seed, 0_u64, 0_u32);
        for payload in payloads {
            let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
            crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &length), payload);
            self.copy(&length);
            if payload.len() < COPY_BELOW {
                self.copy(payload);
            } else {
                self.parts.push(Part::Payload(payload));
            }
            body_bytes += entry_bytes(payload.len() as u64);
            count += 1;
        }
        let padding = frame_bytes(body_bytes) - HEADER_BYTES - body_bytes;
        self.copy([0; 7].get(..padding as usize).unwrap_or_default());
        let body_bytes_32 = u32::try_from(body_bytes).unwrap_or(u32::MAX);
        let header = Header { first, count, durable, body_bytes: body_bytes_32, body_crc: crc };
        if let Some(place) = self.copied.get_mut(start..start + HEADER_BYTES as usize) {
            place.copy_from_slice(&header.encode(self.seed));
        }
        self.bytes += frame_bytes(body_bytes);
    }

    /// How many bytes they take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes them.
    pub(super) fn write(&self, file: &dyn File, offset: u64) -> io::Result<()> {
        let mut slices: Vec<_> = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Copied(range) => IoSlice::new(self.copied.get(range.clone()).unwrap_or_default()),
                Part::Payload(payload) => IoSlice::new(payload),
            })
            .collect();
        write_full(file, &mut slices, offset).map(|_| ())
    }

    fn copy(&mut self, bytes: &[u8]) {
        let start = self.copied.len();
        self.copied.extend_from_slice(bytes);
        match self.parts.last_mut() {
            Some(Part::Copied(range)) if range.end == start => range.end = self.copied.len(),
            _ => self.parts.push(Part::Copied(start..self.copied.len())),
        }
    }
}

/// Which entries go into which frame.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Entries per frame.
    pub(super) frames: Vec<usize>,
    /// Entries in all.
    pub(super) entries: usize,
    /// Bytes in all.
    pub(super) bytes: u64,
}

impl Plan {
    /// Takes as many entries, by their sizes, as fit into this many bytes. A frame's body is no larger than
    /// `body_bytes_max` unless it holds one entry.
    pub(super) fn fitting(sizes: impl IntoIterator<Item = u64>, bytes_max: u64, body_bytes_max: u64) -> Self {
        let mut plan = Self::default();
        let (mut closed_bytes, mut body) = (0, 0);
        for size in sizes {
            let entry = entry_bytes(size);
            let starts_frame = plan.frames.is_empty() || body + entry > body_bytes_max;
            let (before, grown) = if starts_frame { (plan.bytes, entry) } else { (closed_bytes, body + entry) };
            let bytes = before + frame_bytes(grown);
            if bytes > bytes_max {
                break;
            }
            if starts_frame {
                plan.frames.push(0);
            }
            if let Some(last) = plan.frames.last_mut() {
                *last += 1;
            }
            (closed_bytes, body) = (before, grown);
            plan.bytes = bytes;
            plan.entries += 1;
        }
        plan
    }
}

/// The most bytes that an entry and its share of frames can take, the frame after it without entries included.
pub(super) const fn entry_cost(payload_bytes: u64) -> u64 {
    frame_bytes(entry_bytes(payload_bytes)).saturating_add(HEADER_BYTES)
}

const fn entry_bytes(payload_bytes: u64) -> u64 {
    payload_bytes.saturating_add(4)
}

const fn frame_bytes(body_bytes: u64) -> u64 {
    body_bytes.div_ceil(8).saturating_mul(8).saturating_add(HEADER_BYTES)
}

/// The little-endian number at an offset.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|number| u32::from_le_bytes(*number))
}

/// The little-endian number at an offset.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|number| u64::from_le_bytes(*number))
}

/// A frame's header, and so the smallest frame.
pub(super) const HEADER_BYTES: u64 = 40;

/// What a frame starts with.
pub(super) const MAGIC: [u8; 4] = *b"\xb1FRM";

/// Copying less than this is cheaper than handing the system one more address.
const COPY_BELOW: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_takes_what_fits_and_starts_frames_when_they_are_full() {
        let plan = Plan::fitting([10, 10, 10], 1000, 30);
        assert_eq!(plan.frames, [2, 1]);
        assert_eq!(plan.bytes, 40 + 32 + 40 + 16);
        let plan = Plan::fitting([10, 10, 10], plan.bytes - 1, 30);
        assert_eq!((plan.frames, plan.entries, plan.bytes), (vec![2], 2, 72));
        assert_eq!(Plan::fitting([100], 143, 10), Plan::default());
        assert_eq!(Plan::fitting([100], 144, 10).frames, [1]);
    }

    #[test]
    fn a_plan_never_costs_more_than_its_entries_promise() {
        for sizes in [vec![0_u64; 9], vec![1, 4000, 3, 900], vec![7; 100]] {
            let cost: u64 = sizes.iter().map(|size| entry_cost(*size)).sum();
            assert_eq!(Plan::fitting(sizes.clone(), cost, 50).entries, sizes.len());
        }
    }

    #[test]
    fn a_header_is_read_back_and_only_with_its_seed() {
        let header = Header { first: 7, count: 2, durable: 6, body_bytes: 9, body_crc: 5 };
        let bytes = header.encode(1);
        assert_eq!(Header::decode(&bytes, 1), Some(header));
        assert_eq!(Header::decode(&bytes, 2), None);
        assert_eq!(Header::decode(&bytes[..39], 1), None);
        let last = Header { first: u64::MAX, ..header };
        assert_eq!(Header::decode(&last.encode(1), 1), None);
    }
}
