//! What the outbox has nothing of for a destination is passed over where nothing may go to it, so that the outbox can be
//! shortened. The first entry with a release that it has not confirmed stops that, unless such releases are given up, and so
//! does one that cannot be read: the destination's release may be put back.

use crate::storage::{Lsn, Reader};

use super::runner::{Delivery, TICK};

/// Passes entries over.
pub(super) struct Passing {
    reader: Reader,
    /// The next entry may hold a release for the destination.
    is_held: bool,
    /// What may not leave is given up.
    gives_up: bool,
}

impl Passing {
    /// While nothing may go to the destination.
    pub(super) fn new(delivery: &Delivery) -> Self {
        let reader = delivery.context.outbox.reader(delivery.cursor.through + 1);
        Self { reader, is_held: false, gives_up: delivery.gives_up_denied() }
    }

    /// The same from the cursor on.
    fn anew(&self, delivery: &Delivery) -> Self {
        Self { gives_up: self.gives_up, ..Self::new(delivery) }
    }

    /// Passes all that it can. Whether it was stopped just now.
    pub(super) fn pass(&mut self, delivery: &mut Delivery) -> bool {
        let mut has_stopped = false;
        while !self.is_held && !delivery.is_cut() {
            match self.reader.next() {
                Ok(Some(entry)) if is_next(delivery, entry.lsn) && delivery.has_all(entry.lsn, &entry.payload) => {
                    delivery.cursor.through = entry.lsn;
                    delivery.passed();
                }
                Ok(Some(entry)) if self.gives_up && is_next(delivery, entry.lsn) => {
                    let releases = delivery.unconfirmed(entry.lsn, &entry.payload);
                    let Some(releases) = releases.filter(|releases| delivery.gives_up(releases)) else {
                        (self.is_held, has_stopped) = (true, true);
                        continue;
                    };
                    // A policy has let something go there again: that is no business of this.
                    if !delivery.allowed().is_empty() {
                        *self = self.anew(delivery);
                        break;
                    }
                    if let Err(error) = delivery.say_denied(&releases, entry.lsn) {
                        delivery.failed(error);
                        *self = self.anew(delivery);
                        break;
                    }
                    delivery.cursor.through = entry.lsn;
                    delivery.passed();
                    delivery.gave_up(releases.len());
                }
                Ok(Some(_)) => (self.is_held, has_stopped) = (true, true),
                Ok(None) => break,
                Err(error) => {
                    delivery.failed(error);
                    *self = self.anew(delivery);
                    break;
                }
            }
        }
        delivery.passed();
        has_stopped
    }
}

/// Whether nothing is missing before an entry that the outbox still had.
fn is_next(delivery: &Delivery, lsn: Lsn) -> bool {
    lsn == delivery.cursor.through + 1 || lsn == delivery.context.outbox.usage().oldest
}

/// Of a dry run: nothing is ever sent, and what an earlier run left stays.
pub(super) fn run(delivery: &mut Delivery) {
    let mut passing = Passing { gives_up: false, ..Passing::new(delivery) };
    while !delivery.is_cut() {
        if passing.pass(delivery) {
            tracing::info!(
                destination = delivery.name.as_str(),
                "releases of an earlier run wait for the destination: a dry run does not send them"
            );
        }
        if delivery.is_draining() {
            return;
        }
        let beyond = if passing.is_held { Lsn::MAX } else { delivery.cursor.through };
        let _ = delivery.context.outbox.wait_beyond(beyond, TICK);
    }
}
