//! What a test knows of its own run: which records it sent, of whom, in which window each counts, and what has closed. It is
//! kept by what the documents say, and by nothing that the gateway says.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::deployment::at;

/// The word of a key for all values that its domain does not have.
pub(super) const OTHER: &str = "other";
/// The edges of the histogram.
pub(super) const EDGES: [u64; 4] = [0, 2, 4, 6];

/// What holds when something is decided: how many contributors the law asks for, and how long the windows are. Policies that
/// agree in both are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) k: usize,
    pub(super) size: u32,
}

/// Where a record counts: a window, by the minutes from and to, after so many flushes. What comes of a window after a flush
/// is another part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) flushes: usize,
    pub(super) from: u32,
    pub(super) to: u32,
}

/// A record that was taken in.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) person: String,
    pub(super) country: &'static str,
    pub(super) city: &'static str,
    /// Optional, and unlike those of others: a sum says of whom it is.
    pub(super) amount: Option<u64>,
    /// Optional.
    pub(super) channel: Option<&'static str>,
    pub(super) size: u64,
    pub(super) minute: u32,
    /// It is only there so that its cell leaves: then its window has been released.
    pub(super) is_filler: bool,
    pub(super) part: Part,
    pub(super) version: Version,
}

/// Parts of windows that were released at once, in their order.
#[derive(Debug, Clone)]
pub(super) struct Closing {
    pub(super) parts: Vec<Part>,
    pub(super) is_flush: bool,
    /// The minute before which all windows had closed then.
    pub(super) closed: u32,
    pub(super) version: Version,
    /// The lines of the finer dataset that came with it, of each destination.
    pub(super) lines: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
pub(super) struct Book {
    pub(super) sent: Vec<Sent>,
    pub(super) closings: Vec<Closing>,
    /// All windows that began before this minute have closed.
    pub(super) closed: u32,
    pub(super) flushes: usize,
    pub(super) version: Version,
    /// What an override asks for at the hub.
    pub(super) relaxed: Option<usize>,
    /// Parts that hold records and are open.
    open: BTreeSet<Part>,
    pub(super) late: usize,
}

impl Sent {
    /// The key of the city, as a release has it.
    pub(super) fn city_key(&self) -> &'static str {
        if ["a", "b", "c"].contains(&self.city) { self.city } else { OTHER }
    }

    pub(super) fn key(&self) -> (&'static str, &'static str) {
        (self.country, self.city_key())
    }

    /// As it is sent.
    pub(super) fn json(&self) -> Value {
        let mut record = json!({
            "at": at(self.minute, 30), "person": self.person, "country": self.country, "city": self.city,
            "size": self.size,
        });
        if let Some(amount) = self.amount {
            record["amount"] = json!(amount);
        }
        if let Some(channel) = self.channel {
            record["channel"] = json!(channel);
        }
        record
    }
}

impl Book {
    pub(super) fn new(version: Version, relaxed: Option<usize>) -> Self {
        let (sent, closings, open) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { sent, closings, closed: 1, flushes: 0, version, relaxed, open, late: 0 }
    }

    /// Where a record of a minute counts: in its window, or if that has closed, in the oldest open one.
    pub(super) fn part_of(&self, minute: u32) -> Part {
        let size = self.version.size;
        let own = minute / size * size;
        let from = if own < self.closed { self.closed.next_multiple_of(size) } else { own };
        Part { flushes: self.flushes, from, to: from + size }
    }

    /// A record is taken in.
    pub(super) fn take(&mut self, record: Sent) {
        self.late += usize::from(record.minute / self.version.size * self.version.size < self.closed);
        self.open.insert(record.part);
        self.sent.push(record);
    }

    /// Whether a part has what its release can be told by.
    pub(super) fn has_filler(&self, part: Part) -> bool {
        self.sent.iter().any(|record| record.is_filler && record.part == part)
    }

    /// The windows that end by a minute close.
    pub(super) fn close(&mut self, minute: u32) {
        let closed = minute / self.version.size * self.version.size;
        self.closed = self.closed.max(closed);
        let still_open = self.open.iter().copied().filter(|part| part.to > minute).collect();
        let parts = std::mem::replace(&mut self.open, still_open).into_iter().filter(|part| part.to <= minute);
        let parts: Vec<Part> = parts.collect();
        self.end(parts, false);
    }

    /// What is open is released as it is.
    pub(super) fn flush(&mut self) {
        let parts = std::mem::take(&mut self.open).into_iter().collect();
        self.end(parts, true);
        self.flushes += 1;
    }

    fn end(&mut self, parts: Vec<Part>, is_flush: bool) {
        let (closed, version, lines) = (self.closed, self.version, Vec::new());
        self.closings.push(Closing { parts, is_flush, closed, version, lines });
    }

    /// The records of a part.
    pub(super) fn of_part(&self, part: Part) -> Vec<usize> {
        (0..self.sent.len()).filter(|record| self.sent[*record].part == part).collect()
    }
}
