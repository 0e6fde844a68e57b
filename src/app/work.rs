//! What the ledger says of the gateway's work: CPU seconds, records and bytes, once a day (UTC) and at a stop. After a crash,
//! the ledger does not say what the gateway worked since the last entry.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::civil::Date;

use crate::clock::cpu_time;
use crate::ledger::Ledger;
use crate::ledger::entry::What;
use crate::telemetry::{Telemetry, declared};

/// Says what the gateway worked.
pub(super) struct Work {
    ledger: Arc<Ledger>,
    telemetry: Arc<Telemetry>,
    said: Mutex<Said>,
}

/// What was said, all entries of this run together, and through which day.
struct Said {
    cpu_seconds: u64,
    records: u64,
    bytes_in: u64,
    day: Date,
}

impl Work {
    /// Of a gateway that starts on a day.
    pub(super) fn new(ledger: Arc<Ledger>, telemetry: Arc<Telemetry>, day: Date) -> Self {
        Self { ledger, telemetry, said: Mutex::new(Said { cpu_seconds: 0, records: 0, bytes_in: 0, day }) }
    }

    /// Says what is new, if a day has begun since it was said.
    pub(super) fn look(&self, today: Date) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.begins(today) {
            self.say(&mut said);
        }
    }

    /// Says what is new, before a stop.
    pub(super) fn end(&self) {
        self.say(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn say(&self, said: &mut Said) {
        let telemetry = &self.telemetry;
        let records = telemetry.shown(declared::RECORDS_ACCEPTED, "", telemetry.total(|counts| &counts.accepted));
        let bytes_in = telemetry.shown(declared::PAYLOAD_IN, "", telemetry.total(|counts| &counts.bytes_in));
        self.ledger.note(said.news(cpu_time().as_secs(), records, bytes_in));
    }
}

impl Said {
    /// Whether a day begins that is later than all before.
    fn begins(&mut self, today: Date) -> bool {
        let begins = today > self.day;
        self.day = self.day.max(today);
        begins
    }

    /// What is new, when the run came to so much in all.
    fn news(&mut self, cpu_seconds: u64, records: u64, bytes_in: u64) -> What {
        let news = What::Work {
            cpu_seconds: cpu_seconds.saturating_sub(self.cpu_seconds),
            records: records.saturating_sub(self.records),
            bytes_in: Some(bytes_in.saturating_sub(self.bytes_in)),
        };
        *self = Self { cpu_seconds, records, bytes_in, day: self.day };
        news
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn what_is_new_is_said_once_a_day_and_adds_up() {
        let mut said = Said { cpu_seconds: 0, records: 0, bytes_in: 0, day: date(2026, 11, 26) };
        let days = [26, 27, 27, 26, 27, 29].map(|day| said.begins(date(2026, 11, day)));
        // A clock that is set back begins no day again.
        assert_eq!(days, [false, true, false, false, false, true]);
        let news = [(7, 400, 9_000), (7, 400, 9_000), (9, 1_000, 12_000)];
        let news = news.map(|(seconds, records, bytes)| said.news(seconds, records, bytes));
        let work = |cpu_seconds, records, bytes| What::Work { cpu_seconds, records, bytes_in: Some(bytes) };
        assert_eq!(news, [work(7, 400, 9_000), work(0, 0, 0), work(2, 600, 3_000)]);
    }
}
