//! What the outbox has nothing of for a destination is passed over where nothing may go to it, so that the outbox can be
//! shortened. The first entry with a release that it has not confirmed stops that.

use crate::storage::Reader;

use super::runner::Delivery;

/// Passes entries over.
pub(super) struct Passing {
    reader: Reader,
    /// The next entry holds a release for the destination.
    is_held: bool,
}

impl Passing {
    pub(super) fn new(delivery: &Delivery) -> Self {
        Self { reader: delivery.context.outbox.reader(delivery.cursor.through + 1), is_held: false }
    }

    /// Passes all that it can. Whether it was stopped by a release just now.
    pub(super) fn pass(&mut self, delivery: &mut Delivery) -> bool {
        let mut has_found = false;
        while !self.is_held && !delivery.is_cut() {
            match self.reader.next() {
                Ok(Some(entry)) => {
                    let releases = delivery.releases(entry.lsn, &entry.payload);
                    if releases.iter().all(|released| delivery.cursor.has(released.dataset(), entry.lsn)) {
                        delivery.cursor.through = entry.lsn;
                        delivery.passed();
                    } else {
                        (self.is_held, has_found) = (true, true);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    delivery.failed(error);
                    *self = Self::new(delivery);
                    break;
                }
            }
        }
        delivery.passed();
        has_found
    }
}

/// Of a dry run: nothing is ever sent, and what an earlier run left stays.
pub(super) fn run(delivery: &mut Delivery) {
    let mut passing = Passing::new(delivery);
    loop {
        passing.pass(delivery);
        if delivery.is_draining() || !delivery.pause() {
            return;
        }
    }
}
