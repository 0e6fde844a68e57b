//! What the ledger says of the gateway's work: CPU time, records and bytes, when a day (UTC) has ended and at a stop. After a
//! crash, the ledger does not say what the gateway worked since the last entry.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::cpu_time;
use crate::domain::time::rfc3339;
use crate::ledger::Ledger;
use crate::ledger::entry::{STREAMS_MAX, What};
use crate::telemetry::{Telemetry, declared};

/// A day (UTC), in microseconds.
const DAY: i64 = 86_400_000_000;

/// Says what the gateway worked.
pub(super) struct Work {
    ledger: Arc<Ledger>,
    telemetry: Arc<Telemetry>,
    said: Mutex<Said>,
}

/// What was said, all entries of this run together, and the part of a day of which nothing is said yet.
struct Said {
    totals: Totals,
    part: Part,
}

/// What the run came to so far.
#[derive(Default)]
struct Totals {
    cpu_milliseconds: u64,
    records: u64,
    bytes_in: u64,
    bytes_accepted: BTreeMap<String, u64>,
}

/// A part of a day, in microseconds since the Unix epoch.
struct Part {
    since: i64,
    /// The latest time of it that the clock has shown.
    seen: i64,
}

impl Work {
    /// Of a gateway that starts now, by the wall clock.
    pub(super) fn new(ledger: Arc<Ledger>, telemetry: Arc<Telemetry>, wall: i64) -> Self {
        Self { ledger, telemetry, said: Mutex::new(Said { totals: Totals::default(), part: Part::new(wall) }) }
    }

    /// Says what is new, if it is another day.
    pub(super) fn look(&self, wall: i64) {
        self.look_at(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner), wall);
    }

    /// Says what is new, before a stop.
    pub(super) fn end(&self, wall: i64) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        self.look_at(&mut said, wall);
        let rest = said.part.since..said.part.seen;
        said.part = Part::new(rest.end);
        self.say(&mut said, rest);
    }

    fn look_at(&self, said: &mut Said, wall: i64) {
        if let Some(ended) = said.part.passes(wall) {
            self.say(said, ended);
        }
    }

    fn say(&self, said: &mut Said, part: Range<i64>) {
        let telemetry = &self.telemetry;
        let by_stream = telemetry.shown_by_stream(declared::PAYLOAD_ACCEPTED, |counts| &counts.bytes_accepted);
        let totals = Totals {
            cpu_milliseconds: u64::try_from(cpu_time().as_millis()).unwrap_or(u64::MAX),
            records: telemetry.shown(declared::RECORDS_ACCEPTED, "", telemetry.total(|counts| &counts.accepted)),
            bytes_in: telemetry.shown(declared::PAYLOAD_IN, "", telemetry.total(|counts| &counts.bytes_in)),
            bytes_accepted: by_stream.map(|(stream, bytes)| (stream.to_string(), bytes)).collect(),
        };
        self.ledger.note(said.news(totals, part));
    }
}

impl Said {
    /// What is new of a part of a day, when the run came to so much in all.
    fn news(&mut self, totals: Totals, part: Range<i64>) -> What {
        let before = &self.totals;
        let of_stream = |(stream, bytes): (&String, &u64)| {
            let new = bytes.saturating_sub(before.bytes_accepted.get(stream).copied().unwrap_or(0));
            (new > 0).then(|| (stream.clone(), new))
        };
        let by_stream: BTreeMap<_, _> = totals.bytes_accepted.iter().filter_map(of_stream).collect();
        let news = What::Work {
            since: Some(rfc3339(part.start)),
            until: Some(rfc3339(part.end)),
            cpu_seconds: None,
            cpu_milliseconds: Some(totals.cpu_milliseconds.saturating_sub(before.cpu_milliseconds)),
            records: totals.records.saturating_sub(before.records),
            bytes_in: Some(totals.bytes_in.saturating_sub(before.bytes_in)),
            bytes_accepted: Some(by_stream).filter(|by_stream| by_stream.len() <= STREAMS_MAX),
        };
        self.totals = totals;
        news
    }
}

impl Part {
    fn new(since: i64) -> Self {
        Self { since, seen: since }
    }

    /// The clock shows a time. If it is of another day, this part has ended, and another one begins: at midnight if the clock
    /// went on, so that what came in between the last look and midnight counts before it; and now if the clock was set back.
    fn passes(&mut self, wall: i64) -> Option<Range<i64>> {
        let (day, today) = (self.since.div_euclid(DAY), wall.div_euclid(DAY));
        let (until, next) = match today.cmp(&day) {
            std::cmp::Ordering::Equal => {
                self.seen = self.seen.max(wall);
                return None;
            }
            std::cmp::Ordering::Greater => ((day + 1) * DAY, today * DAY),
            std::cmp::Ordering::Less => (self.seen, wall),
        };
        let ended = self.since..until;
        *self = Self { since: next, seen: next.max(wall) };
        Some(ended)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::ledger::audit::audit;
    use crate::ledger::entry::Entry;
    use crate::ledger::note::Verifier;
    use crate::ledger::{Clocks, Files, Outbox, Settings, VERIFIER};
    use crate::storage::sim::Sim;
    use crate::telemetry::Names;

    /// 26 November 2026.
    const DAY_26: i64 = 20_783 * DAY;
    const HOUR: i64 = DAY / 24;

    #[test]
    fn each_part_is_of_one_day_and_they_follow_each_other() {
        let mut part = Part::new(DAY_26 + 23 * HOUR);
        let looks = [DAY_26 + DAY - 1, DAY_26 + DAY + 200_000, DAY_26 + DAY + HOUR];
        assert_eq!(looks.map(|wall| part.passes(wall)), [None, Some(DAY_26 + 23 * HOUR..DAY_26 + DAY), None]);
        assert_eq!((part.since, part.seen), (DAY_26 + DAY, DAY_26 + DAY + HOUR));
        // It did not look for days: what it worked since counts on the day when it looks again.
        assert_eq!(part.passes(DAY_26 + 4 * DAY + HOUR), Some(DAY_26 + DAY..DAY_26 + 2 * DAY));
        assert_eq!(part.since, DAY_26 + 4 * DAY);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_part_of_two_days_and_none_that_ends_before_it_begins() {
        let mut part = Part::new(DAY_26 + HOUR);
        assert_eq!([3 * HOUR, 2 * HOUR, 0].map(|hour| part.passes(DAY_26 + hour)), [None, None, None]);
        assert_eq!(part.passes(DAY_26 - HOUR), Some(DAY_26 + HOUR..DAY_26 + 3 * HOUR));
        assert_eq!(part.passes(DAY_26), Some(DAY_26 - HOUR..DAY_26));
        let (mut back, mut parts) = (Part::new(DAY_26), Vec::new());
        for step in 0..2_000_i64 {
            parts.extend(back.passes(DAY_26 + (step * 7_919 % 97 - 48) * HOUR));
        }
        assert!(parts.len() > 100);
        assert!(parts.iter().all(|part| part.start <= part.end && part.end - part.start.div_euclid(DAY) * DAY <= DAY));
    }

    #[test]
    fn what_is_new_adds_up_and_is_said_by_stream() {
        let mut said = Said { totals: Totals::default(), part: Part::new(DAY_26) };
        let totals = |cpu_milliseconds, records, bytes_in, accepted: &[(&str, u64)]| Totals {
            cpu_milliseconds,
            records,
            bytes_in,
            bytes_accepted: accepted.iter().map(|(stream, bytes)| ((*stream).to_owned(), *bytes)).collect(),
        };
        let all = [
            totals(7_250, 400, 9_000, &[("a", 5_000)]),
            totals(7_300, 400, 9_000, &[("a", 5_000)]),
            totals(9_000, 1_000, 12_000, &[("a", 5_500), ("b", 1_000)]),
        ];
        let news = all.map(|totals| said.news(totals, DAY_26..DAY_26 + DAY));
        let work = |cpu_milliseconds, records, bytes_in, accepted: &[(&str, u64)]| What::Work {
            since: Some("2026-11-26T00:00:00Z".to_owned()),
            until: Some("2026-11-27T00:00:00Z".to_owned()),
            cpu_seconds: None,
            cpu_milliseconds: Some(cpu_milliseconds),
            records,
            bytes_in: Some(bytes_in),
            bytes_accepted: Some(accepted.iter().map(|(stream, bytes)| ((*stream).to_owned(), *bytes)).collect()),
        };
        let expected = [
            work(7_250, 400, 9_000, &[("a", 5_000)]),
            work(50, 0, 0, &[]),
            work(1_700, 600, 3_000, &[("a", 500), ("b", 1_000)]),
        ];
        assert_eq!(news, expected);
    }

    /// A gateway that takes records in on two days.
    #[test]
    fn over_a_midnight_the_ledger_says_what_each_day_came_to() {
        let (fs, wall) = (Sim::default(), Arc::new(AtomicI64::new(DAY_26 + 23 * HOUR)));
        let (shown, outbox) = (Arc::clone(&wall), Outbox { last: 0, confirmed: Box::new(|_, _, _| false) });
        let clocks = Clocks { wall: Box::new(move || shown.load(Ordering::Relaxed)), now: Box::new(|| Duration::ZERO) };
        let settings = Settings {
            directory: "/ledger".into(),
            key: "/ledger.key".into(),
            origin: "test/ledger".to_owned(),
            seen: "/ledger-seen".into(),
        };
        let ledger = Arc::new(Ledger::new(settings, Arc::new(fs.clone()), clocks, outbox));
        ledger.open().unwrap();
        let streams = ["a", "b"].map(|name| (name.parse().unwrap(), (Vec::new(), 5)));
        let telemetry = Arc::new(Telemetry::new(Names { streams: streams.into(), ..Names::default() }));
        let step = 10 * (16 << 10);
        let takes = |stream: &str, records: usize| {
            let counts = telemetry.of(stream);
            Telemetry::add(&counts.accepted, records);
            Telemetry::add(&counts.bytes_in, records * (20 << 10));
            Telemetry::add(&counts.bytes_accepted, records * (16 << 10));
        };
        let work = Work::new(Arc::clone(&ledger), Arc::clone(&telemetry), wall.load(Ordering::Relaxed));
        let look = |at: i64| {
            wall.store(at, Ordering::Relaxed);
            work.look(at);
        };
        takes("a", 1_000);
        look(DAY_26 + DAY - 1);
        look(DAY_26 + DAY + 150_000);
        takes("a", 500);
        takes("b", 5_000);
        look(DAY_26 + DAY + HOUR);
        // It stops before it has looked on the next day.
        wall.store(DAY_26 + 2 * DAY + 50_000, Ordering::Relaxed);
        work.end(wall.load(Ordering::Relaxed));
        ledger.close();
        let verifier = fs.bytes(&Path::new("/ledger").join(VERIFIER)).unwrap();
        let verifier = Verifier::parse(&String::from_utf8(verifier).unwrap()).unwrap();
        let mut said = Vec::new();
        let mut hear = |_, bytes: &[u8], _: Option<&Entry>| said.push(Entry::decode(bytes).unwrap().what);
        audit(&Files::new(Arc::new(fs), Path::new("/ledger")), &verifier, &[], &mut hear).unwrap();
        let mut parts = Vec::new();
        for what in &said {
            if let What::Work { since, until, records, bytes_accepted, .. } = what {
                parts.push((since.as_deref().unwrap(), until.as_deref().unwrap()));
                let accepted = bytes_accepted.as_ref().unwrap();
                assert!(records.is_multiple_of(10) && accepted.values().all(|bytes| bytes.is_multiple_of(step)));
                let expected = [(1_000, 0), (500, 5_000), (0, 0)][parts.len() - 1];
                assert!(records.abs_diff(expected.0 + expected.1) <= 10, "{what:?}");
                for (stream, records) in [("a", expected.0), ("b", expected.1)] {
                    let bytes = accepted.get(stream).copied().unwrap_or(0);
                    assert!(bytes.abs_diff(records * (16 << 10)) <= step, "{what:?}");
                }
            }
        }
        let midnights = ["2026-11-27T00:00:00Z", "2026-11-28T00:00:00Z"];
        let expected = [
            ("2026-11-26T23:00:00Z", midnights[0]),
            (midnights[0], midnights[1]),
            (midnights[1], "2026-11-28T00:00:00.05Z"),
        ];
        assert_eq!(parts, expected);
    }
}
