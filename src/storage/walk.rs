//! Walks over the frames of one segment, past what is no frame. Holds a window of the file, not the file.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::frame::{HEADER_BYTES, Header, MAGIC};
use super::fs::{File, read_full};
use crate::planted::planted;

/// A walk over one segment.
pub(super) struct Walk {
    file: Arc<dyn File>,
    seed: u32,
    /// Of the file, as it was when last looked at.
    length: u64,
    /// Where the next frame is looked for.
    offset: u64,
    buffer: Vec<u8>,
    /// Which bytes of the file the buffer holds.
    window: Range<u64>,
}

/// What comes next in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole frame, and where.
    Frame(u64, Header),
    /// Bytes that are no whole frame.
    Bad(Bad),
    /// The file's end.
    End,
}

/// Bytes that are no whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) bytes: Range<u64>,
    /// The frame's header, if that is whole: then they are exactly one frame.
    pub(super) header: Option<Header>,
    /// Whether a whole sector is missing, as it is when power fails.
    pub(super) is_torn: bool,
}

enum Look {
    Whole(Header),
    BodyBad(Header),
    NoHeader,
}

impl Walk {
    /// A walk from an offset on, a multiple of eight.
    pub(super) fn new(file: Arc<dyn File>, seed: u32, offset: u64) -> io::Result<Self> {
        let length = file.length()?;
        Ok(Self { file, seed, length, offset, buffer: Vec::new(), window: 0..0 })
    }

    /// The next thing.
    pub(super) fn next(&mut self) -> io::Result<Found> {
        let start = self.offset;
        if start >= self.length {
            return Ok(Found::End);
        }
        match self.look(start)? {
            Look::Whole(header) => {
                self.offset = start.saturating_add(header.frame_bytes());
                Ok(Found::Frame(start, header))
            }
            Look::BodyBad(header) => {
                let end = start.saturating_add(header.frame_bytes());
                self.offset = end.min(self.length);
                let body = start.saturating_add(HEADER_BYTES);
                let body = body..body.saturating_add(header.body_bytes.into());
                let is_torn = body.end > self.length || self.misses_sector(body)?;
                Ok(Found::Bad(Bad { bytes: start..self.offset, header: Some(header), is_torn }))
            }
            Look::NoHeader => {
                let end = self.resynchronise(start)?;
                self.offset = end;
                // A header that is all there is never zeros, so a flipped bit in one is told from a torn write.
                let is_torn = end - start < HEADER_BYTES || self.misses_sector(start..start + HEADER_BYTES)?;
                Ok(Found::Bad(Bad { bytes: start..end, header: None, is_torn }))
            }
        }
    }

    /// The body of the frame that was found last.
    pub(super) fn body(&self, start: u64, header: &Header) -> &[u8] {
        let from = start.saturating_add(HEADER_BYTES).saturating_sub(self.window.start) as usize;
        self.buffer.get(from..from.saturating_add(header.body_bytes as usize)).unwrap_or_default()
    }

    /// Looks at the file anew from an offset on: it may have grown.
    pub(super) fn refresh(&mut self, offset: u64) -> io::Result<()> {
        self.length = self.file.length()?;
        self.offset = offset;
        self.window = 0..0;
        Ok(())
    }

    /// Whether a path leads to the file.
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.file.is_at(path)
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Where the next frame is looked for.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    fn look(&mut self, start: u64) -> io::Result<Look> {
        let seed = self.seed;
        let Some(header) = Header::decode(self.bytes(start, HEADER_BYTES)?, seed) else { return Ok(Look::NoHeader) };
        // Nothing is made room for that the file does not have.
        let end = start.saturating_add(HEADER_BYTES).saturating_add(header.body_bytes.into());
        if end > self.length {
            return Ok(Look::BodyBad(header));
        }
        let frame = self.bytes(start, end - start)?;
        let body = frame.get(HEADER_BYTES as usize..).unwrap_or_default();
        let is_whole = header.body_is_whole(body, seed);
        Ok(if is_whole || planted("trust-torn-frame") { Look::Whole(header) } else { Look::BodyBad(header) })
    }

    /// Where the next frame's header is after this offset, or the file's end.
    fn resynchronise(&mut self, start: u64) -> io::Result<u64> {
        let mut at = start + ALIGNMENT;
        while at < self.length {
            let chunk = self.bytes(at, CHUNK_BYTES)?;
            let mut places = chunk.chunks_exact(ALIGNMENT as usize);
            match places.position(|place| place.starts_with(&MAGIC)) {
                None => at += (chunk.len() as u64 / ALIGNMENT * ALIGNMENT).max(ALIGNMENT),
                Some(position) => {
                    at += position as u64 * ALIGNMENT;
                    if !matches!(self.look(at)?, Look::NoHeader) {
                        return Ok(at);
                    }
                    at += ALIGNMENT;
                }
            }
        }
        Ok(self.length)
    }

    /// Whether the part of some sector that lies in the range is nothing but zeros.
    fn misses_sector(&mut self, range: Range<u64>) -> io::Result<bool> {
        let mut at = range.start;
        while at < range.end.min(self.length) {
            let end = (at / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES).min(range.end);
            if self.bytes(at, end - at)?.iter().all(|byte| *byte == 0) {
                return Ok(true);
            }
            at = end;
        }
        Ok(false)
    }

    /// These bytes of the file, or fewer at its end.
    fn bytes(&mut self, start: u64, count: u64) -> io::Result<&[u8]> {
        let end = start.saturating_add(count).min(self.length);
        if start < self.window.start || end > self.window.end {
            self.fill(start, (end.saturating_sub(start)).max(CHUNK_BYTES).min(self.length.saturating_sub(start)))?;
        }
        let end = end.min(self.window.end);
        let range = start.saturating_sub(self.window.start) as usize..end.saturating_sub(self.window.start) as usize;
        Ok(self.buffer.get(range).unwrap_or_default())
    }

    /// Moves the window. What is in it already is not read again.
    fn fill(&mut self, start: u64, count: u64) -> io::Result<()> {
        let mut kept = 0;
        if self.window.contains(&start) {
            let from = (start - self.window.start) as usize;
            kept = (self.window.end - start) as usize;
            self.buffer.copy_within(from..from + kept, 0);
        }
        self.window = start..start;
        let count = usize::try_from(count).map_err(io::Error::other)?;
        if self.buffer.len() < count {
            self.buffer.resize(count, 0);
        }
        let rest = self.buffer.get_mut(kept..count).unwrap_or_default();
        let read = read_around_holes(&*self.file, rest, start + kept as u64)?;
        self.window.end = start + (kept + read) as u64;
        Ok(())
    }
}

/// Reads what can be read: a page that the disk cannot read any more is taken for zeros, which the check sums notice.
fn read_around_holes(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let is_hole = |error: &io::Error| error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    match read_full(file, buffer, offset) {
        Err(error) if is_hole(&error) => {}
        result => return result,
    }
    let mut filled = 0;
    for page in buffer.chunks_mut(PAGE_BYTES) {
        let count = page.len();
        match read_full(file, page, offset + filled as u64) {
            Err(error) if is_hole(&error) => page.fill(0),
            Ok(read) if read < count => return Ok(filled + read),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        filled += count;
    }
    Ok(filled)
}

/// Where frames begin.
const ALIGNMENT: u64 = 8;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

const PAGE_BYTES: usize = 4096;

/// How much is read at once, at least.
const CHUNK_BYTES: u64 = 512 << 10;
