//! An open ledger: entries go into its log in groups, each with the signed checkpoint that covers it, and from there into
//! tiles.

use std::sync::Arc;

use super::entry::{BYTES_MAX, Entry};
use super::files::Files;
use super::group::Group;
use super::note::Signer;
use super::opening::{Opened, Settings};
use super::publisher::Publisher;
use super::tree::{Frontier, leaf};
use crate::storage::{Log, Lsn, State};

/// Why a ledger cannot be written at the end.
pub(super) const CLOSED: &str = "the gateway stops";

/// A group takes no further entry when it would grow beyond this. The log takes entries of several times as much.
pub(super) const GROUP_BYTES_MAX: usize = 1 << 20;

/// An open ledger.
pub(super) struct Book {
    pub(super) log: Arc<Log>,
    pub(super) signer: Signer,
    frontier: Frontier,
    /// The position of the newest group in the log.
    pub(super) last: Lsn,
    /// Entries that are not given to the publisher, oldest first.
    pub(super) unpublished: Vec<Vec<u8>>,
    /// The newest signed checkpoint.
    pub(super) checkpoint: String,
    pub(super) publisher: Option<Publisher>,
}

impl Book {
    pub(super) fn new(opened: Opened, files: Files, settings: &Settings) -> Self {
        let Opened { log, last, signer, audit, .. } = opened;
        let publisher = Publisher::new(files, settings.seen.clone(), audit.tiles);
        let checkpoint = audit.checkpoint.unwrap_or_else(|| signer.sign(0, Frontier::default().root()));
        Self {
            log: Arc::new(log),
            signer,
            frontier: audit.frontier,
            last,
            unpublished: audit.unpublished,
            checkpoint,
            publisher: Some(publisher),
        }
    }

    /// Whether not all of it is durable yet. What is published must be: else a crash would take from the log what the
    /// checkpoint covers.
    pub(super) fn is_behind(&self) -> bool {
        self.log.durable() < self.last
    }

    /// Why its log cannot be written, as far as the log knows.
    pub(super) fn trouble(&self) -> Option<Arc<str>> {
        match self.log.state() {
            State::Healthy => None,
            State::Full => Some("its disk is full, or its log is: free some space".into()),
            State::Failing { message } => Some(message.into()),
            State::Closed => Some(CLOSED.into()),
            State::Broken => Some("its thread has panicked; start the gateway again".into()),
        }
    }

    /// Gives entries to the log, as many groups as they take. How many of them it took; if not all, why. What it took stays.
    pub(super) fn append<'e>(&mut self, entries: impl IntoIterator<Item = &'e Entry>) -> (usize, Option<Arc<str>>) {
        let mut entries = entries.into_iter().map(Entry::encode).peekable();
        let mut taken = 0;
        while entries.peek().is_some() {
            let (mut group, mut bytes) = (Vec::new(), 0);
            while let Some(entry) = entries.next_if(|entry| group.is_empty() || bytes + entry.len() <= GROUP_BYTES_MAX)
            {
                bytes += entry.len();
                group.push(entry);
            }
            let count = group.len();
            if let Err(why) = self.append_group(group) {
                return (taken, Some(why));
            }
            taken += count;
        }
        (taken, None)
    }

    fn append_group(&mut self, entries: Vec<Vec<u8>>) -> Result<(), Arc<str>> {
        if entries.iter().any(|entry| entry.len() > BYTES_MAX) {
            return Err("an entry is too long: a fault in bailiwick; please report this line".into());
        }
        let mut frontier = self.frontier.clone();
        entries.iter().for_each(|entry| frontier.push(leaf(entry)));
        let checkpoint = self.signer.sign(frontier.size(), frontier.root());
        let group = Group { first: self.frontier.size(), entries, checkpoint };
        let payload = group.encode();
        let room = self
            .log
            .reserve(payload.len() as u64)
            .map_err(|error| self.trouble().unwrap_or_else(|| error.to_string().into()))?;
        self.last += 1;
        self.log.submit(self.last, payload, room, None);
        self.frontier = frontier;
        self.checkpoint = group.checkpoint;
        self.unpublished.extend(group.entries);
        Ok(())
    }
}
