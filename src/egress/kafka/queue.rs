//! The entries of the outbox that a sink has taken and that are not confirmed yet, oldest first.

use std::collections::VecDeque;

use crate::storage::Lsn;

use super::Confirmed;
use super::limit::Message;

/// An entry of the outbox.
pub(super) struct Item {
    pub(super) lsn: Lsn,
    /// What its progress record calls it; empty when none is written.
    pub(super) mark: String,
    /// What it calls the messages that the entry is cut into.
    pub(super) cut: String,
    pub(super) releases: usize,
    /// How many messages it is in all.
    pub(super) of: usize,
    /// Those that were not handed to the client yet, in order.
    pub(super) unsent: VecDeque<Message>,
    /// Those that were, and are not confirmed.
    pub(super) unconfirmed: usize,
    /// Bytes of those that were confirmed.
    pub(super) bytes: usize,
}

impl Item {
    /// An entry of so many releases, all of whose messages are to be sent, and which no progress record names.
    pub(super) fn new(lsn: Lsn, releases: usize, messages: Vec<Message>) -> Self {
        let (mark, cut, of) = (String::new(), String::new(), messages.len());
        Self { lsn, mark, cut, releases, of, unsent: messages.into(), unconfirmed: 0, bytes: 0 }
    }
}

/// Entries, oldest first.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) items: VecDeque<Item>,
    /// Of messages that were not handed to the client yet.
    unsent_bytes: usize,
}

impl Queue {
    pub(super) fn push(&mut self, item: Item) {
        self.unsent_bytes += item.unsent.iter().map(|message| message.bytes).sum::<usize>();
        self.items.push_back(item);
    }

    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The next message to be sent, if it has at most so many bytes, with its entry's position.
    pub(super) fn next(&mut self, room: usize) -> Option<(Lsn, Message)> {
        let item = self.items.iter_mut().find(|item| !item.unsent.is_empty())?;
        let message = item.unsent.pop_front_if(|message| message.bytes <= room)?;
        item.unconfirmed += 1;
        self.unsent_bytes -= message.bytes;
        Some((item.lsn, message))
    }

    /// A message of an entry was confirmed.
    pub(super) fn confirmed(&mut self, lsn: Lsn, bytes: usize) {
        if let Ok(at) = self.items.binary_search_by_key(&lsn, |item| item.lsn)
            && let Some(item) = self.items.get_mut(at)
        {
            item.unconfirmed = item.unconfirmed.saturating_sub(1);
            item.bytes += bytes;
        }
    }

    /// Takes the entries from the front that are confirmed as a whole.
    pub(super) fn finished(&mut self) -> Option<Confirmed> {
        let mut confirmed: Option<Confirmed> = None;
        while let Some(item) = self.items.pop_front_if(|item| item.unsent.is_empty() && item.unconfirmed == 0) {
            let so_far = confirmed.get_or_insert_default();
            so_far.through = item.lsn;
            so_far.releases += item.releases;
            so_far.bytes += item.bytes;
        }
        confirmed
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::OwnedHeaders;

    use super::*;

    fn message(bytes: usize) -> Message {
        Message { key: String::new(), value: Vec::new(), headers: OwnedHeaders::new(), bytes }
    }

    #[test]
    fn only_what_has_no_gap_before_it_is_finished() {
        let mut queue = Queue::default();
        queue.push(Item::new(3, 1, vec![message(10)]));
        queue.push(Item::new(5, 2, vec![message(20), message(30)]));
        queue.push(Item::new(6, 0, Vec::new()));
        assert_eq!(queue.unsent_bytes(), 60);
        let sent: Vec<Lsn> = std::iter::from_fn(|| queue.next(100)).map(|(lsn, _)| lsn).collect();
        assert_eq!((sent.as_slice(), queue.unsent_bytes()), (&[3, 5, 5][..], 0));
        queue.confirmed(5, 20);
        queue.confirmed(5, 30);
        assert_eq!(queue.finished(), None, "the first is missing");
        queue.confirmed(3, 10);
        assert_eq!(queue.finished(), Some(Confirmed { through: 6, releases: 3, bytes: 60 }));
        assert!(queue.is_empty());
    }

    #[test]
    fn what_has_no_room_waits_and_so_does_what_comes_after_it() {
        let mut queue = Queue::default();
        queue.push(Item::new(3, 1, vec![message(50)]));
        queue.push(Item::new(4, 1, vec![message(10)]));
        assert!(queue.next(49).is_none());
        assert_eq!(queue.next(50).map(|(lsn, _)| lsn), Some(3));
    }
}
