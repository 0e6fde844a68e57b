use proptest::prelude::*;

use super::*;
use crate::domain::dataset::samples::plain;
use crate::domain::dataset::{Function, Metric, OPEN_MAX};
use crate::domain::refusal::Reason;
use crate::domain::stream::{Field, FieldType, Undeclared};
use crate::domain::window::tests::by_definition;

/// 2026-11-25T12:00:00Z.
const NOW: i64 = 1_795_608_000_000_000;
const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

fn visits() -> StreamName {
    "visits".parse().unwrap()
}

fn by_minute() -> DatasetName {
    "by_minute".parse().unwrap()
}

fn gateway(history_from: Option<i64>, open_max: u64) -> Gateway {
    overlapping(history_from, open_max, 1)
}

/// A gateway whose windows begin every minute, and are so many minutes long.
fn overlapping(history_from: Option<i64>, open_max: u64, minutes: u32) -> Gateway {
    let field = |name: &str, field_type| Field {
        name: name.to_owned(),
        field_type,
        number: 1,
        class: "personal".to_owned(),
        required: true,
        allow_non_finite: false,
        bytes_max: 64,
        range: None,
    };
    let fields = vec![field("at", FieldType::Timestamp), field("who", FieldType::String)];
    let stream = Arc::new(Stream {
        name: visits(),
        event_time: 0,
        contributor: 1,
        undeclared: Undeclared::Refuse,
        model: None,
        future_max: Duration::from_secs(60),
        late_max: Duration::from_secs(60 * 60),
        history_from,
        idle_after: Duration::from_secs(30),
        schema: Stream::schema_of(&fields),
        fields,
    });
    let dataset = Arc::new(Dataset {
        name: by_minute(),
        stream: stream.name.clone(),
        overlap: Duration::from_secs(60) * (minutes - 1),
        grace: Duration::from_secs(10),
        open_max,
        min_contributors: 5,
        metrics: vec![Metric { name: "visits".to_owned(), function: Function::Count, digits: None }],
        ..plain()
    });
    Gateway::new([(&stream, std::slice::from_ref(&dataset))].into_iter())
}

/// A producer came to an event time, at a time since the start.
fn heard(gateway: &mut Gateway, producer: &str, event_time: i64, now: Duration) {
    let heard = Heard { producer, address: None, identity: None, event_time: Some(event_time) };
    gateway.hear(&visits(), heard, now);
    while closes(gateway, now).is_some() {}
}

/// The time before which windows close next.
fn closes(gateway: &mut Gateway, now: Duration) -> Option<i64> {
    let mut effects = Vec::new();
    gateway.advance(&visits(), now, &mut effects);
    effects.iter().map(|Effect::Close { before, .. }| *before).next()
}

fn is_taken(gateway: &Gateway, event_time: i64, wall: i64) -> bool {
    gateway.time_bounds(&visits(), wall).take(event_time).is_ok()
}

/// The oldest event time that is taken, found as a producer could find it: by asking.
fn probed(gateway: &Gateway, wall: i64) -> i64 {
    let (mut refused, mut taken) = (-(1 << 60), wall);
    while taken - refused > 1 {
        let middle = i64::midpoint(refused, taken);
        if is_taken(gateway, middle, wall) { taken = middle } else { refused = middle }
    }
    taken
}

#[test]
fn probing_a_stream_of_history_shows_no_more_than_which_windows_have_closed() {
    let mut gateway = gateway(Some(0), OPEN_MAX);
    let from = NOW - 500 * HOUR;
    for micros in [0, 1, 999_999, 7 * SECOND + 123_456] {
        heard(&mut gateway, "other", from + 12 * HOUR + 10 * SECOND + micros, Duration::ZERO);
        assert_eq!(probed(&gateway, NOW), from + 11 * HOUR, "nothing below a minute");
    }
}

#[test]
fn a_time_in_milliseconds_is_refused_before_anything_was_heard() {
    let gateway = gateway(None, OPEN_MAX);
    let refused = gateway.time_bounds(&visits(), NOW).take(NOW / 1_000).unwrap_err();
    assert_eq!(refused, (Reason::EventTimeTooOld, Some(crate::domain::refusal::Hint::LooksLikeMilliseconds)));
    assert!(!is_taken(&gateway, -(1 << 62), NOW));
}

#[test]
fn windows_that_a_checkpoint_holds_count_for_the_span() {
    let mut gateway = gateway(Some(0), 10);
    gateway.restore_window(&by_minute(), NOW / MINUTE);
    assert!(is_taken(&gateway, NOW - 9 * MINUTE, NOW));
    assert_eq!(gateway.time_bounds(&visits(), NOW).take(NOW - 10 * MINUTE), Err((Reason::TooManyWindows, None)));
    gateway.restore_closed(&by_minute(), NOW + MINUTE, NOW + MINUTE);
    assert!(is_taken(&gateway, NOW - 10 * MINUTE, NOW), "it is late, and goes into the open window");
}

#[test]
fn windows_that_overlap_close_at_their_end_and_are_known_by_it() {
    let mut gateway = overlapping(Some(0), OPEN_MAX, 10);
    let windows = |gateway: &Gateway| gateway.windows().map(|far| (far.closed, far.open)).collect::<Vec<_>>();
    assert!(gateway.open_windows(&visits(), NOW, NOW));
    assert_eq!(windows(&gateway), [(None, 10)]);
    heard(&mut gateway, "p", NOW + MINUTE + 10 * SECOND, Duration::ZERO);
    assert_eq!(gateway.closed_before(&by_minute()), Some(NOW - 8 * MINUTE), "the one from 11:51 to 12:01 has closed");
    assert_eq!(windows(&gateway), [(Some(NOW + MINUTE), 9)]);
    gateway.restore_window(&by_minute(), NOW / MINUTE + 1);
    assert_eq!(windows(&gateway), [(Some(NOW + MINUTE), 10)]);
}

/// The windows of an hour from 23:01 on would go on after midnight, so they do not exist: what is older than that is late by
/// the first one of the day.
#[test]
fn after_midnight_the_oldest_open_window_is_the_first_of_the_day() {
    let mut gateway = overlapping(Some(0), OPEN_MAX, 60);
    let midnight = NOW + 12 * HOUR;
    heard(&mut gateway, "p", midnight - MINUTE, Duration::ZERO);
    assert!(
        is_taken(&gateway, midnight - 2 * HOUR, midnight),
        "the window from 22:58 on is open, and late_max is an hour"
    );
    heard(&mut gateway, "p", midnight + 5 * MINUTE + 10 * SECOND, Duration::ZERO);
    assert!(is_taken(&gateway, midnight - HOUR, midnight + 6 * MINUTE));
    assert!(!is_taken(&gateway, midnight - HOUR - 1, midnight + 6 * MINUTE));
}

proptest! {
    /// Whatever others send and promise, a stream that replays no history takes what is plausible, and shows nothing.
    #[test]
    fn nobody_makes_the_records_of_others_too_old(
        steps in prop::collection::vec((0_u8..4, -70 * MINUTE..2 * MINUTE, 0_u64..40), 0..40),
    ) {
        let mut gateway = gateway(None, OPEN_MAX);
        let mut now = Duration::ZERO;
        for (producer, from_clock, seconds) in steps {
            now += Duration::from_secs(seconds);
            let wall = NOW + micros(now);
            // As the pipeline tells it: no further than the clock.
            heard(&mut gateway, &producer.to_string(), (wall + from_clock).min(wall), now);
            let bounds = gateway.time_bounds(&visits(), wall);
            prop_assert!(bounds.clone().take(wall - HOUR).is_ok());
            prop_assert!(bounds.clone().take(wall + MINUTE).is_ok());
            prop_assert_eq!(probed(&gateway, wall), wall - HOUR);
        }
    }

    /// Whatever requests come in, also at the same time, no more windows are open than may be.
    #[test]
    fn the_open_windows_never_span_more_than_they_may(
        requests in prop::collection::vec((prop::collection::vec(0..40 * MINUTE, 1..6), any::<bool>()), 0..40),
        open_max in 1_u64..12,
        minutes in 1_u32..4,
    ) {
        let mut gateway = overlapping(Some(0), open_max, minutes);
        let mut open = std::collections::BTreeSet::new();
        // The bounds of a request may be older than those that came in since.
        let mut before = gateway.time_bounds(&visits(), NOW);
        for (times, is_checked_late) in requests {
            let current = gateway.time_bounds(&visits(), NOW);
            let mut bounds = if is_checked_late { before } else { current.clone() };
            before = current;
            let times: Vec<i64> = times.into_iter().filter(|time| bounds.take(*time).is_ok()).collect();
            let (Some(oldest), Some(newest)) = (times.iter().min(), times.iter().max()) else { continue };
            if gateway.open_windows(&visits(), *oldest, *newest) {
                let length = MINUTE * i64::from(minutes);
                open.extend(times.iter().flat_map(|time| by_definition(*time, MINUTE, length, |_| true)));
            } else {
                prop_assert!(is_checked_late, "what was just checked is taken");
            }
            prop_assert!(open.last().unwrap_or(&0) - open.first().unwrap_or(&0) < open_max.cast_signed());
        }
    }
}

/// What leaves together is bounded by what a window holds, however many windows a slow producer held open.
#[test]
fn windows_with_records_close_one_after_the_other() {
    let mut gateway = gateway(Some(0), OPEN_MAX);
    for minute in [0, 1, 5] {
        assert!(gateway.open_windows(&visits(), NOW + minute * MINUTE, NOW + minute * MINUTE + SECOND));
    }
    let heard = Heard { producer: "till", address: None, identity: None, event_time: Some(NOW + 10 * MINUTE) };
    gateway.hear(&visits(), heard, Duration::ZERO);
    let closed: Vec<i64> = std::iter::from_fn(|| closes(&mut gateway, Duration::ZERO)).collect();
    // Nobody knows here that nothing is in minutes 2 to 4. After the last one with records, all that is empty closes at once.
    assert_eq!(closed, [1, 2, 3, 4, 5, 9].map(|minute| NOW + minute * MINUTE));
}

/// After a crash, the journal says of each request how new its records are.
#[test]
fn windows_of_before_a_crash_close_one_after_the_other() {
    let mut gateway = gateway(Some(0), OPEN_MAX);
    gateway.restore_closed(&by_minute(), NOW, NOW);
    for event_time in [NOW + SECOND, NOW + 2 * MINUTE, NOW - HOUR] {
        gateway.restore_event_time(&visits(), event_time);
    }
    let heard = Heard { producer: "till", address: None, identity: None, event_time: Some(NOW + 10 * MINUTE) };
    gateway.hear(&visits(), heard, Duration::ZERO);
    let closed: Vec<i64> = std::iter::from_fn(|| closes(&mut gateway, Duration::ZERO)).collect();
    assert_eq!(closed, [1, 2, 9].map(|minute| NOW + minute * MINUTE));
}
