//! What gateways worked and took in, in a span of time: each entry counts for the time that it is about, and not for when it was
//! written.

use std::collections::BTreeMap;

use jiff::{Timestamp, ToSpan as _, Unit};

use super::span::Span;
use crate::ledger::entry::What;

/// What gateways worked.
#[derive(Default)]
pub(super) struct Worked {
    /// Entries of which something counts.
    pub(super) entries: u64,
    /// Those of which not all counts: the share of their time that is in the span.
    pub(super) in_part: u64,
    /// The latest time that one of them is about.
    pub(super) until: Option<Timestamp>,
    /// What the process took of all cores.
    cpu_milliseconds: u64,
    /// Records that were taken in meanwhile, in steps.
    pub(super) records: u64,
    /// Bytes of payloads that came in meanwhile, in steps, and how many entries say so: an older version does not.
    bytes_in: u64,
    entries_with_bytes: u64,
    /// Bytes of the payloads of accepted records by stream, in the same way.
    bytes_accepted: BTreeMap<String, u64>,
    entries_by_stream: u64,
    /// Until when the entries so far say what the run worked that is being heard of, those before the span too.
    said_until: Option<Timestamp>,
}

impl Worked {
    /// A gateway starts.
    pub(super) fn starts(&mut self, at: Timestamp) {
        self.said_until = Some(at);
    }

    /// Hears an entry, of whatever time.
    pub(super) fn hear(&mut self, span: &Span, written: Timestamp, what: &What) {
        let What::Work { since, until, cpu_seconds, cpu_milliseconds, records, bytes_in, bytes_accepted } = what else {
            return;
        };
        let time = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<Timestamp>().ok());
        let (since, until) = time(since).zip(time(until)).unwrap_or_else(|| self.before(written));
        self.said_until = Some(until);
        let share = span.share(since, until);
        if share <= 0.0 {
            return;
        }
        self.entries += 1;
        self.in_part += u64::from(share < 1.0);
        self.until = self.until.max(Some(span.to.map_or(until, |to| to.min(until))));
        let part = |of: u64| if share < 1.0 { (of as f64 * share).round() as u64 } else { of };
        self.cpu_milliseconds +=
            part(cpu_milliseconds.unwrap_or_else(|| cpu_seconds.unwrap_or(0).saturating_mul(1_000)));
        self.records += part(*records);
        self.entries_with_bytes += u64::from(bytes_in.is_some());
        self.bytes_in += part(bytes_in.unwrap_or(0));
        self.entries_by_stream += u64::from(bytes_accepted.is_some());
        for (stream, bytes) in bytes_accepted.iter().flatten() {
            *self.bytes_accepted.entry(stream.clone()).or_default() += part(*bytes);
        }
    }

    /// What an entry of an earlier version is about: the time since the start, or since the last such entry of the run. It was
    /// written at a stop, or at the first moment of a day, and then says what the day before came to.
    fn before(&self, written: Timestamp) -> (Timestamp, Timestamp) {
        let day_before = |time: Timestamp| time.checked_sub(24.hours()).unwrap_or(time);
        let since = self.said_until.unwrap_or_else(|| day_before(written));
        let midnight = written
            .round(jiff::TimestampRound::new().smallest(Unit::Hour).increment(24).mode(jiff::RoundMode::Floor))
            .unwrap_or(written);
        let until = if since < midnight { midnight } else { written };
        (since.max(day_before(until)).min(until), until)
    }

    /// How many CPU seconds.
    pub(super) fn cpu_seconds(&self) -> f64 {
        self.cpu_milliseconds as f64 / 1_000.0
    }

    /// How many bytes of payloads came in, in steps. `None`: not all entries say so.
    pub(super) fn bytes_in(&self) -> Option<u64> {
        (self.entries > 0 && self.entries_with_bytes == self.entries).then_some(self.bytes_in)
    }

    /// How many bytes the payloads of accepted records had, by stream and in steps. `None`: not all entries say so.
    pub(super) fn bytes_accepted(&self) -> Option<&BTreeMap<String, u64>> {
        (self.entries > 0 && self.entries_by_stream == self.entries).then_some(&self.bytes_accepted)
    }

    /// CPU seconds for a million records.
    pub(super) fn per_million(&self) -> Option<f64> {
        (self.records > 0).then(|| self.cpu_seconds() * 1e6 / self.records as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn span(from: &str, to: &str) -> Span {
        Span { from: Some(time(from)), to: Some(time(to)) }
    }

    fn work(part: Option<(&str, &str)>, records: u64) -> What {
        let (since, until) = part.map(|(since, until)| (since.to_owned(), until.to_owned())).unzip();
        let of_now = part.is_some();
        What::Work {
            since,
            until,
            cpu_seconds: (!of_now).then_some(1),
            cpu_milliseconds: of_now.then_some(250),
            records,
            bytes_in: Some(records * 100),
            bytes_accepted: of_now.then(|| [("a".to_owned(), records * 60), ("b".to_owned(), records * 30)].into()),
        }
    }

    /// Entries, each with the time when it was written; `None` is a start.
    type Heard = Vec<(&'static str, Option<What>)>;

    fn worked(span: &Span, heard: &Heard) -> Worked {
        let mut worked = Worked::default();
        for (at, what) in heard {
            match what {
                Some(what) => worked.hear(span, time(at), what),
                None => worked.starts(time(at)),
            }
        }
        worked
    }

    const MIDNIGHTS: [&str; 4] =
        ["2026-11-26T00:00:00Z", "2026-11-27T00:00:00Z", "2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z"];

    /// A run from the evening of the 26th over the 27th to the 28th, as this version says it.
    fn run() -> Heard {
        vec![
            ("2026-11-26T23:50:00Z", None),
            ("2026-11-27T00:00:00.1Z", Some(work(Some(("2026-11-26T23:50:00Z", MIDNIGHTS[1])), 600))),
            ("2026-11-28T00:00:00.1Z", Some(work(Some((MIDNIGHTS[1], MIDNIGHTS[2])), 2_400))),
            ("2026-11-28T15:00:00Z", Some(work(Some((MIDNIGHTS[2], "2026-11-28T15:00:00Z")), 1_500))),
        ]
    }

    #[test]
    fn what_was_worked_before_midnight_counts_on_the_day_that_ended() {
        // Also of versions that did not say since when.
        let without = |heard: Heard| -> Heard {
            let old = |what| if let What::Work { records, .. } = what { work(None, records) } else { what };
            heard.into_iter().map(|(at, what)| (at, what.map(old))).collect()
        };
        for (heard, milliseconds) in [(run(), 250), (without(run()), 1_000)] {
            let days = [0, 1, 2].map(|day| worked(&span(MIDNIGHTS[day], MIDNIGHTS[day + 1]), &heard));
            assert_eq!(days.each_ref().map(|day| day.records), [600, 2_400, 1_500]);
            assert_eq!(days.each_ref().map(|day| day.bytes_in()), [60_000, 240_000, 150_000].map(Some));
            assert!(days.iter().all(|day| day.cpu_milliseconds == milliseconds && day.in_part == 0));
            assert_eq!(days[0].until, Some(time(MIDNIGHTS[1])));
            assert!(worked(&span("2026-11-25T00:00:00Z", MIDNIGHTS[0]), &heard).bytes_in().is_none());
        }
        assert_eq!(worked(&Span::default(), &run()).bytes_accepted().unwrap()["a"], 4_500 * 60);
        assert_eq!(worked(&Span::default(), &without(run())).bytes_accepted(), None);
    }

    #[test]
    fn of_an_entry_that_reaches_over_an_edge_the_share_of_its_time_counts_and_spans_add_up() {
        let noon = "2026-11-27T12:00:00Z";
        let before = worked(&span("2026-11-26T12:00:00Z", noon), &run());
        assert_eq!((before.entries, before.in_part, before.records), (2, 1, 600 + 1_200));
        assert_eq!((before.cpu_milliseconds, before.until), (250 + 125, Some(time(noon))));
        let after = worked(&Span { from: Some(time(noon)), to: None }, &run());
        assert_eq!((after.entries, after.in_part, after.records), (2, 1, 1_200 + 1_500));
        // A quarter of the day.
        let quarter = worked(&span("2026-11-27T06:00:00Z", noon), &run());
        assert_eq!((quarter.records, quarter.bytes_in(), quarter.in_part), (600, Some(60_000), 1));
    }

    /// The gateway stood still after a crash, and the next run says nothing of that time.
    #[test]
    fn an_old_entry_is_about_no_time_before_its_run() {
        let heard: Heard = vec![
            ("2026-11-26T01:00:00Z", None),
            ("2026-11-27T22:00:00Z", None),
            ("2026-11-28T00:00:00.1Z", Some(work(None, 700))),
            ("2026-11-28T00:00:00.3Z", Some(work(None, 40))),
        ];
        let days = [0, 1, 2].map(|day| worked(&span(MIDNIGHTS[day], MIDNIGHTS[day + 1]), &heard).records);
        assert_eq!(days, [0, 700, 40]);
        // What came before is not there: no more than a day.
        let heard: Heard = vec![("2026-11-28T00:00:00.1Z", Some(work(None, 700)))];
        assert_eq!(worked(&span(MIDNIGHTS[1], MIDNIGHTS[2]), &heard).records, 700);
    }
}
