//! The segments of a log, as its writer, its readers and `let_go` share them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::error;

use super::scan::without;
use super::segment::Name;
use super::{Damage, Lsn};

/// What a log's files hold.
pub(super) struct Table {
    pub(super) directory: PathBuf,
    durable: AtomicU64,
    segments: Mutex<Vec<Segment>>,
    damage: Mutex<Vec<Damage>>,
}

#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) name: Name,
    /// `None`: its header cannot be read.
    pub(super) header: Option<Readable>,
    /// Bytes on disk.
    pub(super) bytes: u64,
    /// To be set aside, not deleted.
    pub(super) is_damaged: bool,
    /// Being deleted; readers look elsewhere.
    pub(super) is_leaving: bool,
}

/// What is needed to read a segment.
#[derive(Debug, Clone)]
pub(super) struct Readable {
    pub(super) context: Arc<[u8]>,
    /// Where the frames begin.
    pub(super) header_bytes: u64,
    /// LSNs that are known to be lost.
    pub(super) gaps: Arc<[(Lsn, Lsn)]>,
}

impl Table {
    /// The segments in order, and what is wrong with them.
    pub(super) fn new(directory: PathBuf, segments: Vec<Segment>, damage: Vec<Damage>, durable: Lsn) -> Self {
        Self { directory, durable: AtomicU64::new(durable), segments: Mutex::new(segments), damage: Mutex::new(damage) }
    }

    pub(super) fn durable(&self) -> Lsn {
        self.durable.load(Ordering::Acquire)
    }

    pub(super) fn set_durable(&self, lsn: Lsn) {
        self.durable.store(lsn, Ordering::Release);
    }

    /// The segments in order. The last one is being written.
    pub(super) fn segments(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment in which an LSN is to be looked for, or the first one after it, and the first LSN of the next.
    pub(super) fn segment_of(&self, lsn: Lsn) -> Option<(Segment, Option<Lsn>)> {
        let segments = self.segments();
        let is_behind = |segment: &Segment| segment.name.first > lsn;
        let mut at = segments.iter().position(is_behind).unwrap_or(segments.len()).saturating_sub(1);
        while segments.get(at)?.is_leaving {
            at += 1;
        }
        Some((segments.get(at)?.clone(), segments.get(at + 1).map(|next| next.name.first)))
    }

    /// Bytes of all segments on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments().iter().map(|segment| segment.bytes).sum()
    }

    pub(super) fn path(&self, name: Name) -> PathBuf {
        self.directory.join(name.to_string())
    }

    /// All damage known.
    pub(super) fn damage(&self) -> Vec<Damage> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what a reader found, and logs it unless it is known.
    pub(super) fn found_damage(&self, name: Name, damage: Damage) {
        let mut known = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        let ranges: Vec<_> = known.iter().map(|known| known.lsns).collect();
        let news = without(damage.lsns.0, damage.lsns.1, &ranges);
        if news.is_empty() {
            return;
        }
        for lsns in news {
            let damage = Damage { lsns, ..damage.clone() };
            report(&damage);
            known.push(damage);
        }
        drop(known);
        for segment in &mut *self.segments() {
            segment.is_damaged |= segment.name == name;
        }
    }
}

/// Logs damage, which a person must look at.
pub(super) fn report(damage: &Damage) {
    let Damage { file, bytes, lsns: (first_lsn, last_lsn), what } = damage;
    error!(%file, from = bytes.start, to = bytes.end, first_lsn, last_lsn, ?what, "entries of the log are damaged: stop the gateway, run `bailiwick journal verify`, then `repair`");
}

/// What a file of this length takes, once it is trimmed.
pub(super) fn on_disk(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

const BLOCK_BYTES: u64 = 4096;
