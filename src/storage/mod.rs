//! A segmented write-ahead log of opaque entries: nothing that was reported durable is ever lost. Entries are
//! numbered from 1 without gaps; the log knows nothing of what is in them.
//!
//! # What the disk is trusted with
//!
//! - Only what `fdatasync` covered before it returned 0 is there after a crash. Of everything else any part may be
//!   there, in units of 512 bytes; the rest reads as zeros or lies beyond the file's end.
//! - A name that was created, renamed or removed may come back or go until its directory was synced.
//! - After a failed sync the page cache shows what the disk does not have. So a file that failed is never written or
//!   synced again, and what is read from a file proves nothing about the disk.
//! - Bits flip. That is to be found and said, and must cost no more than the frame that was hit.
//!
//! # Format, version 1
//!
//! Numbers are little-endian, check sums CRC-32C. A directory holds `lock`, segments, `damaged/`, and perhaps
//! `spare-ID.part`, a segment that is not in use yet. A segment's name is `FIRST-ID.segment`: its first LSN in 20
//! decimal digits, its id in 16 hexadecimal ones. The id is a count (upper half) and chance (lower half), so names
//! sort by first LSN, then age. A segment is a header and frames; each begins on a multiple of 8.
//!
//! ```text
//! header   0 magic "bailiwal"        frame   0 magic B1 "FRM"
//!          8 version                         4 bytes in the body
//!         12 check sum of 0..12              8 first LSN
//!         16 bytes in the header            16 durable: everything through this LSN was durable
//!         20 bytes in the context              when the frame was written
//!         24 id                             24 entries
//!         32 first LSN                      28 check sum of the body
//!         40 gaps                           32 0
//!         44 check sum of 16.. without      36 check sum of 0..36
//!            this field                     40 body: per entry its length (4 bytes) and its bytes
//!         48 gaps: first and last LSN          zeros to a multiple of 8
//!            context, zeros
//! ```
//!
//! A frame's check sums start from that of the segment's id: bytes that another segment left on the disk are not
//! valid, nor is a frame that a producer hides in a payload. The context is the caller's; a gap is a range of LSNs
//! that was lost and has been dealt with (`repair`).
//!
//! # Writing
//!
//! One thread writes. Whatever was submitted while it synced is the next commit: frames in one vectored write, then
//! one `fdatasync`, then the callbacks. When nothing is waiting it adds a frame without entries, not synced, whose
//! only use is its `durable`.
//!
//! A new segment is written under its temporary name, with the entries that come first in it; then it is synced,
//! renamed, and the directory is synced. So a segment's existence proves everything before its first LSN. The next
//! one's space is claimed ahead (the spare): a full disk is met there, and `reserve` promises only what current
//! segment and spare hold together.
//!
//! A file can be written and synced although its name is gone. So after each sync, and before the callbacks, the writer
//! makes sure that the segment's name leads to the file that it wrote; before it makes a file, that the directory's name
//! leads to the directory that it opened; and with each new segment, and every second that is idle, that all segments
//! are there. If not, it takes nothing and reports nothing. When everything is back under its name it goes on where it
//! was: what it had synced is reported then.
//!
//! When a write or a sync fails, the segment is given up. The entries that were not reported are still in memory and
//! go into a new segment whose first LSN is theirs.
//!
//! # Reading back
//!
//! 1. **A segment is read up to the first LSN of the next one**; what follows in it is not looked at. So nothing has
//!    to be truncated or overwritten to be ignored: not a torn tail, not a segment that was given up.
//! 2. An open always begins a new segment. The entries at the end that no `durable` covers are written again into it,
//!    because the page cache may show them while the disk does not have them. When there is no space for that, the
//!    newest segment's bytes are written over themselves and synced: the only write to an older segment.
//! 3. **Torn**: bytes at the end of the newest segment that are no frame, where a whole sector is missing (zeros, or
//!    beyond the end of the file), and that neither a later `durable` nor the caller's `at_least` covers. The log ends
//!    before them, silently.
//! 4. **Damage** is everything else: an invalid frame elsewhere, LSNs missing between two frames or segments, an
//!    unreadable header. It is reported, and reading goes on at the next valid frame.
//! 5. Damaged segments are never deleted: `let_go` and `repair` move them to `damaged/`.
//! 6. **A segment that was let go has no name**, durably, before its bytes are freed, in steps (`freeing`). Whoever still
//!    has it open and finds bytes missing looks whether it was let go before calling that damage.
//!
//! One thing cannot be told from a torn write: a flipped bit in the very last commit, if the entries in it have a
//! sector of zeros and no frame that follows has reached the disk.
//!
//! # Deliberately absent
//!
//! No index, no compression, no encryption, no reuse of segments, no memory maps, no timer that gathers commits, no
//! truncation of what has a name, no record of what was let go (the caller's checkpoint knows), no repair without being asked.

mod durable;
mod error;
mod frame;
mod freeing;
mod fs;
mod inspect;
mod let_go;
mod log;
mod pace;
mod promises;
mod reader;
mod recover;
mod repair;
mod room;
mod scan;
mod segment;
mod shared;
mod slots;
mod table;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::PathBuf;

pub use durable::{
    create_directories, create_directories_below, parent, read_file, write_file_durably, write_shared_file_durably,
};
pub use error::{Error, NoRoom, ReadError};
#[cfg(test)]
pub(crate) use fs::sim;
pub use fs::{Access, Directory, File, FileSystem, Kind, Lock, RealFileSystem};
pub use inspect::{Report, SegmentReport, entries, inspect};
pub use log::{Log, Usage};
pub use pace::Pace;
pub use reader::{Entry, Reader};
pub use recover::hold;
pub use repair::repair;
pub use room::Room;
pub use segment::VERSION;
pub use shared::{State, Then, Timed};
pub use slots::{SLOT_BYTES_MAX, Slots, Stored};

/// The number of an entry. The first is 1.
pub type Lsn = u64;

/// Where a log is and how large it may get.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory; it is made if it is missing.
    pub directory: PathBuf,
    /// The size of a segment.
    pub segment_bytes: u64,
    /// The most bytes that all segments may take together. What was moved to `damaged/` is not counted.
    pub quota_bytes: u64,
    /// Stored in every segment that this process begins, and handed out with its entries.
    pub context: Vec<u8>,
    /// Everything through this LSN was durable once, as the caller knows from its own files. Numbering goes on after
    /// it; if the log ends before it, that is damage.
    pub at_least: Lsn,
}

/// The size of a segment where nothing else is asked for.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// The smallest segment and the largest.
pub const SEGMENT_BYTES_RANGE: Range<u64> = 512..(1 << 30) + 1;

/// What was found when a log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The oldest LSN that a segment was made for; `last + 1` if there is no entry.
    pub first: Lsn,
    /// The last LSN that was given out; the next is `last + 1`.
    pub last: Lsn,
    /// Entries that can be read.
    pub entries: u64,
    /// What could not be read back although it was durable once.
    pub damage: Vec<Damage>,
    /// Bytes at the end that a crash left incomplete; nobody was told that they were durable.
    pub torn_bytes: u64,
}

/// Something that was durable once and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment's file name.
    pub file: String,
    /// Where in the file. Empty when there are no bytes to point to.
    pub bytes: Range<u64>,
    /// First and last LSN lost. Where it cannot be told how many there were, as many as there can have been: an LSN
    /// that was given out once is not given out again.
    pub lsns: (Lsn, Lsn),
    /// What is wrong.
    pub what: Wrong,
}

/// What is wrong with a range of LSNs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// The segment's header: nothing in it can be read.
    Header,
    /// One or more frames.
    Frames,
    /// The log ends before it, or it lies between two segments: a file is missing or was cut.
    Missing,
}
