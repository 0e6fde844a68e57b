//! What the ledger says of quarantine: how many records were held, taken in later, or discarded, in the steps in which the
//! metrics tell it. Quarantine is in memory: what a crash takes of these entries it takes of the records, too.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::ledger::Ledger;
use crate::ledger::entry::What;
use crate::telemetry::{Telemetry, declared};

/// How often it is said at most.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Says what came of records in quarantine.
pub(super) struct Quarantined {
    ledger: Arc<Ledger>,
    telemetry: Arc<Telemetry>,
    said: Mutex<Said>,
}

/// The numbers that were said, all entries together, and when.
#[derive(Default)]
struct Said {
    held: u64,
    taken_in: u64,
    discarded: u64,
    at: Duration,
}

impl Quarantined {
    pub(super) fn new(ledger: Arc<Ledger>, telemetry: Arc<Telemetry>) -> Self {
        Self { ledger, telemetry, said: Mutex::default() }
    }

    /// Says what is new, if it was not said just now.
    pub(super) fn look(&self, now: Duration) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(said.at) >= SAID_EVERY {
            self.say(&mut said, now);
        }
    }

    /// Says what is new, before a stop.
    pub(super) fn end(&self, now: Duration) {
        self.say(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner), now);
    }

    fn say(&self, said: &mut Said, at: Duration) {
        let counts = &self.telemetry.gateway;
        let [held, taken_in, discarded] = [
            (declared::RECORDS_QUARANTINED, &counts.quarantined),
            (declared::QUARANTINE_RELEASED, &counts.quarantine_taken_in),
            (declared::QUARANTINE_EXPIRED, &counts.quarantine_expired),
        ]
        .map(|(declared, count)| self.telemetry.shown(declared, "", count.load(Ordering::Relaxed)));
        let new = (held - said.held, taken_in - said.taken_in, discarded - said.discarded);
        if new != (0, 0, 0) {
            self.ledger.note(What::Quarantine { held: new.0, released: new.1, discarded: new.2 });
        }
        *said = Said { held, taken_in, discarded, at };
    }
}
