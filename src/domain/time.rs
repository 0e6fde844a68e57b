//! Times and durations as texts and as numbers of other units: the one place that reads them.
//!
//! An event time is a point in time, in microseconds since the Unix epoch. A text names one only with its zone:
//! without it, the same text is another time in another country. What is finer than a microsecond is floored, also
//! before 1970, so that every payload puts a record into the same window.

use jiff::civil::DateTime;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// Why a text is no point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoTime {
    /// It is a date and a time without a zone.
    ZoneMissing,
    /// It is something else.
    Unreadable,
}

/// Reads a time in the format of RFC 3339, such as `2026-11-23T12:00:00Z` or `2026-11-23T13:00:00+01:00`. Microseconds
/// since the Unix epoch.
///
/// # Errors
/// When the text is no such time, or names no zone.
pub fn parse(text: &str) -> Result<i64, NoTime> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return i64::try_from(time.as_nanosecond().div_euclid(1_000)).map_err(|_| NoTime::Unreadable);
    }
    Err(if text.parse::<DateTime>().is_ok() { NoTime::ZoneMissing } else { NoTime::Unreadable })
}

/// Nanoseconds as microseconds.
#[must_use]
pub fn from_nanos(nanos: i64) -> i64 {
    nanos.div_euclid(1_000)
}

/// Seconds and nanoseconds, which may both be negative, as microseconds. `None` when they are too many.
#[must_use]
pub fn from_seconds(seconds: i64, nanos: i64) -> Option<i64> {
    seconds.checked_mul(1_000_000)?.checked_add(from_nanos(nanos))
}

/// A time in microseconds since the Unix epoch as RFC 3339, UTC.
#[must_use]
pub fn rfc3339(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map_or_else(|_| micros.to_string(), |time| time.to_string())
}

/// Reads a duration in the format of ISO 8601, such as `PT30S`, `P1D` or `P1W`. A day has 24 hours. Months and years
/// have no fixed length and are not taken; neither is a negative duration.
#[must_use]
pub fn parse_duration(text: &str) -> Option<SignedDuration> {
    let span: Span = text.parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    (!duration.is_negative()).then_some(duration)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_needs_its_zone() {
        assert_eq!(parse("1970-01-01T00:00:01Z"), Ok(1_000_000));
        assert_eq!(parse("1970-01-01T01:00:01+01:00"), Ok(1_000_000));
        assert_eq!(parse("1970-01-01T00:00:01"), Err(NoTime::ZoneMissing));
        assert_eq!(parse("1970-01-01 00:00:01.5"), Err(NoTime::ZoneMissing));
        assert_eq!(parse("1970-01-01"), Err(NoTime::ZoneMissing));
        for text in ["", "yesterday", "1970-13-01T00:00:00Z", "12"] {
            assert_eq!(parse(text), Err(NoTime::Unreadable), "{text}");
        }
    }

    #[test]
    fn what_is_finer_than_a_microsecond_is_floored_before_1970_too() {
        assert_eq!(parse("1969-12-31T23:59:59.999999999Z"), Ok(-1));
        assert_eq!(parse("1970-01-01T00:00:00.000000999Z"), Ok(0));
        assert_eq!((from_nanos(-1), from_nanos(999), from_nanos(-1_000)), (-1, 0, -1));
        assert_eq!((from_seconds(0, -1), from_seconds(-1, 999_999_999)), (Some(-1), Some(-1)));
        assert_eq!(from_seconds(i64::MAX, 0), None);
    }

    #[test]
    fn a_duration_may_have_days_and_weeks_and_may_be_zero() {
        let hours = |text| parse_duration(text).map(|duration| duration.as_hours());
        assert_eq!((hours("P1D"), hours("P1W"), hours("P1DT1H")), (Some(24), Some(168), Some(25)));
        assert_eq!(parse_duration("PT0S"), Some(SignedDuration::ZERO));
        assert_eq!(parse_duration("PT0.25S"), Some(SignedDuration::from_millis(250)));
        assert_eq!(hours("PT8760H"), Some(8_760));
        for text in ["", "P", "P1M", "P1Y", "-PT1S", "1", "PT", "P1D1H"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    proptest! {
        /// A time is read back from what it is written as; the zone changes the text and not the time.
        #[test]
        fn a_written_time_is_read_back(nanos in -6_000_000_000_000_000_000_i64..6_000_000_000_000_000_000) {
            let time = Timestamp::from_nanosecond(nanos.into()).unwrap();
            prop_assert_eq!(parse(&time.to_string()), Ok(from_nanos(nanos)));
            let seconds = nanos.div_euclid(1_000_000_000);
            prop_assert_eq!(from_seconds(seconds, nanos.rem_euclid(1_000_000_000)), Some(from_nanos(nanos)));
            prop_assert_eq!(from_seconds(nanos / 1_000_000_000, nanos % 1_000_000_000), Some(from_nanos(nanos)));
        }
    }
}
