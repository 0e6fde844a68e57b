//! Reads entries in order, while the log is written or without one.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::frame::{Header, payloads};
use super::fs::{Access, FileSystem};
use super::scan::without;
use super::segment::Name;
use super::table::{Readable, Segment, Table};
use super::walk::{Found, Walk};
use super::{Damage, Log, Lsn, ReadError, Wrong};

/// An entry as it was submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number. If it is not the one after the last entry's, what is between is damaged or was let go.
    pub lsn: Lsn,
    /// The context of the segment that it lies in.
    pub context: Arc<[u8]>,
    /// What was submitted.
    pub payload: Vec<u8>,
}

/// Reads entries in order, up to what is durable. It stays usable when the log is closed.
pub struct Reader {
    fs: Arc<dyn FileSystem>,
    table: Arc<Table>,
    /// Another process may have the log open, and let go of segments.
    is_beside: bool,
    /// What is delivered next.
    next: Lsn,
    open: Option<Open>,
    /// The frame that holds it, if that was reached: where, and the bytes of its body already delivered.
    frame: Option<(u64, Header, usize)>,
}

/// The segment being read.
struct Open {
    name: Name,
    header: Readable,
    walk: Walk,
    /// Bad bytes since the last frame.
    hole: Option<Range<u64>>,
    /// The file was looked at anew since the last frame.
    is_fresh: bool,
}

impl Log {
    /// A reader from an LSN on; 0 and 1 are the beginning.
    #[must_use]
    pub fn reader(&self, from: Lsn) -> Reader {
        Reader::new(Arc::clone(&self.shared.fs), Arc::clone(&self.shared.table), false, from)
    }
}

impl Reader {
    pub(super) fn new(fs: Arc<dyn FileSystem>, table: Arc<Table>, is_beside: bool, from: Lsn) -> Self {
        Self { fs, table, is_beside, next: from.max(1), open: None, frame: None }
    }

    #[cfg(test)]
    pub(super) fn damage(&self) -> Vec<Damage> {
        self.table.damage()
    }

    /// The next entry; `None` at the end of what is durable, where it can be asked again later. Passes over what is
    /// damaged.
    ///
    /// # Errors
    /// When a segment cannot be opened or read for another reason than that its bytes are bad.
    // An iterator would promise that the end is the end.
    #[expect(clippy::should_implement_trait, reason = "see above")]
    pub fn next(&mut self) -> Result<Option<Entry>, ReadError> {
        loop {
            if self.next > self.table.durable() {
                return Ok(None);
            }
            if let Some(entry) = self.entry() {
                return Ok(Some(entry));
            }
            let Some((segment, limit)) = self.table.segment_of(self.next) else { return Ok(None) };
            let name = segment.name;
            self.advance(segment, limit).map_err(|source| ReadError { path: self.table.path(name), source })?;
        }
    }

    /// The next entry of the frame that is open.
    fn entry(&mut self) -> Option<Entry> {
        let (open, (at, header, delivered)) = (self.open.as_ref()?, self.frame.as_mut()?);
        if self.next >= header.next() {
            self.frame = None;
            return None;
        }
        let Some(payload) = payloads(open.walk.body(*at, header).get(*delivered..)?).next() else {
            // The walk has made sure that there are as many entries as LSNs.
            self.next = header.next();
            self.frame = None;
            return None;
        };
        *delivered += 4 + payload.len();
        let entry = Entry { lsn: self.next, context: Arc::clone(&open.header.context), payload: payload.to_vec() };
        self.next += 1;
        Some(entry)
    }

    /// Comes nearer to the frame that holds the next entry.
    fn advance(&mut self, segment: Segment, limit: Option<Lsn>) -> io::Result<()> {
        // Older ones were let go.
        self.next = self.next.max(segment.name.first);
        let end = limit.unwrap_or_else(|| self.table.durable().saturating_add(1));
        let Some(open) = self.open.take_if(|open| open.name == segment.name) else {
            return self.open(segment, end);
        };
        let open = self.open.insert(open);
        match open.walk.next()? {
            Found::Frame(_, header) if header.count == 0 || header.next() <= self.next => open.hole = None,
            Found::Frame(_, header) if header.first >= end => self.pass(end),
            Found::Frame(at, header) => {
                self.pass(header.first.max(self.next));
                let delivered = self.skipped_bytes(at, &header);
                self.frame = Some((at, header, delivered));
            }
            Found::Bad(bad) if open.is_fresh => {
                let hole = open.hole.get_or_insert(bad.bytes.clone());
                hole.end = bad.bytes.end;
            }
            // While the log is written there may be more in the file by now.
            Found::Bad(bad) => {
                open.walk.refresh(bad.bytes.start)?;
                open.is_fresh = true;
            }
            Found::End if open.is_fresh => self.pass(end),
            Found::End => {
                let offset = open.walk.offset();
                open.walk.refresh(offset)?;
                open.is_fresh = true;
            }
        }
        Ok(())
    }

    fn open(&mut self, segment: Segment, end: Lsn) -> io::Result<()> {
        let Some(header) = segment.header else {
            self.next = end;
            return Ok(());
        };
        let opened = self.fs.open(&self.table.path(segment.name), Access::Read);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_there(segment.name) => return Ok(()),
            file => file?,
        };
        let walk = Walk::new(file, segment.name.id.seed(), header.header_bytes)?;
        self.open = Some(Open { name: segment.name, header, walk, hole: None, is_fresh: true });
        Ok(())
    }

    /// Whether a segment was not let go meanwhile.
    fn is_there(&self, name: Name) -> bool {
        self.table.segments().iter().any(|segment| segment.name == name && !segment.is_leaving)
    }

    /// Whether a segment that is open was let go: then bytes of it may be missing. By this log, or by the process that
    /// has the log open.
    fn is_let_go(&self, open: &Open) -> bool {
        let is_at = || open.walk.is_at(&self.table.path(open.name));
        !self.is_there(open.name) || self.is_beside && is_at().is_ok_and(|is_at| !is_at)
    }

    /// Goes on at an LSN. What was not read before it is damaged, unless the segment was let go meanwhile.
    fn pass(&mut self, to: Lsn) {
        let is_gone = to > self.next && self.open.as_ref().is_some_and(|open| self.is_let_go(open));
        let Some(open) = &mut self.open else { return };
        let hole = open.hole.take();
        open.is_fresh = false;
        if is_gone {
            self.next = to;
        } else if to > self.next {
            let at = open.walk.offset();
            let what = if hole.is_some() { Wrong::Frames } else { Wrong::Missing };
            let bytes = hole.unwrap_or(at..at);
            for lsns in without(self.next, to - 1, &open.header.gaps) {
                let damage = Damage { file: open.name.to_string(), bytes: bytes.clone(), lsns, what };
                self.table.found_damage(open.name, damage);
            }
            self.next = to;
        }
    }

    /// How many bytes of a frame's body belong to entries that are not wanted.
    fn skipped_bytes(&self, at: u64, header: &Header) -> usize {
        let Some(open) = &self.open else { return 0 };
        let skipped = self.next.saturating_sub(header.first);
        payloads(open.walk.body(at, header)).zip(0..skipped).map(|(payload, _)| 4 + payload.len()).sum()
    }
}
