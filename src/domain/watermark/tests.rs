use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MAX: ActiveMax = ActiveMax { in_all: usize::MAX, per_address: usize::MAX, per_identity: usize::MAX };
const IDLE_AFTER: Duration = Duration::from_millis(30);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn event(seconds: i64) -> i64 {
    seconds * 1_000_000
}

fn watermark() -> Watermark {
    Watermark::new(seconds(30), MAX)
}

fn heard(producer: &str, event_time: Option<i64>) -> Heard<'_> {
    Heard { producer, address: None, identity: None, event_time }
}

#[test]
fn the_slowest_producer_holds_the_watermark() {
    let mut watermark = watermark();
    watermark.observe(heard("a", Some(event(100))), seconds(0));
    watermark.observe(heard("b", Some(event(40))), seconds(0));
    assert_eq!(watermark.at(seconds(1)), Some(event(40)));
    watermark.observe(heard("b", Some(event(120))), seconds(2));
    assert_eq!(watermark.at(seconds(2)), Some(event(100)));
}

#[test]
fn a_producer_that_has_not_sent_holds_the_watermark_until_it_is_idle() {
    let mut watermark = watermark();
    watermark.observe(heard("silent", None), seconds(0));
    watermark.observe(heard("a", Some(event(100))), seconds(0));
    assert_eq!(watermark.at(seconds(30)), None);
    watermark.observe(heard("a", Some(event(130))), seconds(31));
    assert_eq!(watermark.at(seconds(31)), Some(event(130)));
}

#[test]
fn an_idle_producer_does_not_hold_an_active_one_back() {
    let mut watermark = watermark();
    watermark.observe(heard("gone", Some(event(10))), seconds(0));
    watermark.observe(heard("a", Some(event(500))), seconds(31));
    assert_eq!(watermark.at(seconds(31)), Some(event(500)));
}

#[test]
fn when_all_are_idle_the_watermark_goes_on_with_the_clock() {
    let mut watermark = watermark();
    watermark.observe(heard("a", Some(event(100))), seconds(0));
    assert_eq!(watermark.at(seconds(30)), Some(event(100)));
    assert_eq!(watermark.at(seconds(45)), Some(event(145)));
}

#[test]
fn the_watermark_never_goes_back() {
    let mut watermark = watermark();
    watermark.observe(heard("a", Some(event(100))), seconds(0));
    assert_eq!(watermark.at(seconds(1)), Some(event(100)));
    watermark.observe(heard("late joiner", Some(event(10))), seconds(2));
    assert_eq!(watermark.at(seconds(2)), Some(event(100)));
}

#[test]
fn a_million_names_that_came_once_leave_nothing_behind() {
    let mut watermark = watermark();
    for name in 0..1_000_000 {
        watermark.observe(heard(&format!("invented-{name}"), Some(event(1))), seconds(0));
    }
    assert_eq!(watermark.active(), 1_000_000);
    watermark.observe(heard("good", Some(event(50))), seconds(31));
    assert_eq!(watermark.at(seconds(31)), Some(event(50)));
    assert_eq!((watermark.active(), watermark.times.len()), (1, 1));
    assert!(!watermark.active.is_sparse(), "the memory is given back");
    let mut writer = Writer::default();
    watermark.encode(&mut writer);
    assert!(writer.len() < 100, "nor do they stay in checkpoints");
}

#[test]
fn one_address_cannot_use_up_all_names_and_the_limit_is_named() {
    let mut watermark = Watermark::new(seconds(30), ActiveMax { in_all: 5, per_address: 2, ..MAX });
    let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    let mut come = |producer: &str, from: &str, now: u64| {
        let heard = Heard { producer, address: address(from), identity: None, event_time: Some(1) };
        watermark.admit(heard, seconds(now), &Newcomers::default())?;
        watermark.observe(heard, seconds(now));
        Ok::<(), TooMany>(())
    };
    assert_eq!(come("a", "2001:db8::1", 0), Ok(()));
    assert_eq!(come("b", "2001:db8::2", 0), Ok(()));
    let refused = come("c", "2001:db8::3", 0).unwrap_err();
    assert_eq!(refused, TooMany::ActiveOfAddress { max: 2 });
    assert!(refused.to_string().contains("2 "), "{refused}");
    assert_eq!(come("a", "2001:db8::3", 1), Ok(()), "one that is active goes on");
    assert_eq!(come("c", "192.0.2.1", 1), Ok(()));
    assert_eq!(come("d", "::ffff:192.0.2.1", 1), Ok(()));
    assert_eq!(come("e", "::ffff:192.0.2.1", 1), Err(TooMany::ActiveOfAddress { max: 2 }), "the same address");
    assert_eq!(come("e", "192.0.2.2", 1), Ok(()));
    assert_eq!(come("f", "192.0.2.3", 1), Err(TooMany::Active { max: 5 }));
    assert_eq!(come("f", "192.0.2.3", 31), Ok(()), "`b` is idle");
    assert_eq!(come("b", "2001:db8::2", 32), Ok(()), "and so are `a` and those of 192.0.2.1");
}

/// However many addresses it has. Who has proved nothing has that of its address alone.
#[test]
fn one_identity_cannot_use_up_all_names_and_the_limit_is_named() {
    let mut watermark = Watermark::new(seconds(30), ActiveMax { in_all: 5, per_identity: 2, ..MAX });
    let mut come = |producer: &str, identity: Option<&str>, now: u64| {
        let address = Some([192, 0, 2, producer.as_bytes()[0]].into());
        let heard = Heard { producer, address, identity, event_time: Some(1) };
        watermark.admit(heard, seconds(now), &Newcomers::default())?;
        watermark.observe(heard, seconds(now));
        Ok::<(), TooMany>(())
    };
    let (office, till) = (Some("spiffe://corp/office"), Some("spiffe://corp/till"));
    assert_eq!(come("a", office, 0), Ok(()));
    assert_eq!(come("b", office, 0), Ok(()));
    let refused = come("c", office, 0).unwrap_err();
    assert_eq!(refused, TooMany::ActiveOfIdentity { max: 2 });
    assert!(refused.to_string().contains("limits.producers_per_identity_max"), "{refused}");
    assert_eq!(come("a", office, 1), Ok(()), "one that is active goes on");
    assert_eq!(come("c", till, 1), Ok(()));
    assert_eq!(come("d", None, 1), Ok(()));
    assert_eq!(come("e", None, 1), Ok(()));
    assert_eq!(come("f", till, 1), Err(TooMany::Active { max: 5 }));
    assert_eq!(come("f", office, 31), Ok(()), "`b` is idle");
}

#[test]
fn a_producer_that_is_gone_becomes_idle_however_often_the_gateway_is_started() {
    let mut watermark = watermark();
    watermark.observe(heard("gone", Some(event(10))), seconds(0));
    for restart in 1..=4_u64 {
        // Each run lasts for 10 seconds.
        watermark.observe(heard("a", Some(event(10 + restart.cast_signed() * 10))), seconds(10));
        watermark.at(seconds(10));
        watermark = started_again(&watermark, seconds(0));
    }
    assert_eq!(watermark.active(), 1);
    assert_eq!(watermark.at(seconds(0)), Some(event(50)));
}

fn started_again(watermark: &Watermark, now: Duration) -> Watermark {
    let mut writer = Writer::default();
    watermark.encode(&mut writer);
    let bytes = writer.finish();
    let mut restored = Watermark::new(Duration::from_nanos(watermark.idle_after.cast_unsigned()), MAX);
    let mut reader = Reader::new(&bytes);
    restored.decode(&mut reader, now).unwrap();
    assert!(reader.is_empty());
    restored
}

#[test]
fn a_checkpoint_of_version_3_is_read_and_everybody_counts_as_heard_now() {
    let mut writer = Writer::default();
    writer.option(Some(event(5))).count(2).text("a").option(Some(event(9))).text("b").option(None);
    let bytes = writer.finish();
    let mut watermark = watermark();
    let mut reader = Reader::new(&bytes);
    watermark.decode_v3(&mut reader, seconds(7)).unwrap();
    assert!(reader.is_empty());
    assert_eq!(watermark.at(seconds(37)), Some(event(5)));
    assert_eq!(watermark.at(seconds(38)), Some(event(40)));
}

/// The rule, as slowly as it can be written down: every time that a producer was active, for ever.
#[derive(Default)]
struct Reference {
    sessions: Vec<Session>,
    reached: Option<i64>,
}

struct Session {
    producer: u8,
    newest: Option<i64>,
    heard: Duration,
}

impl Session {
    fn silent(&self, now: Duration) -> Duration {
        now - self.heard
    }
}

impl Reference {
    fn observe(&mut self, producer: u8, event_time: Option<i64>, now: Duration) {
        let active = self.sessions.iter_mut().find(|it| it.producer == producer && it.silent(now) <= IDLE_AFTER);
        match active {
            Some(session) => (session.newest, session.heard) = (session.newest.max(event_time), now),
            None => self.sessions.push(Session { producer, newest: event_time, heard: now }),
        }
    }

    fn at(&mut self, now: Duration) -> Option<i64> {
        let (active, idle): (Vec<_>, Vec<_>) = self.sessions.iter().partition(|it| it.silent(now) <= IDLE_AFTER);
        let come_to = if active.is_empty() {
            let line = |it: &Session| Some(it.newest?.saturating_add(it.silent(now).as_micros() as i64));
            idle.into_iter().filter_map(line).max()
        } else {
            active.iter().map(|it| it.newest).collect::<Option<Vec<_>>>().and_then(|times| times.into_iter().min())
        };
        self.reached = self.reached.max(come_to);
        self.reached
    }
}

/// The implementation that walked all producers for every request.
#[derive(Default)]
struct Walking {
    producers: BTreeMap<u8, (Option<i64>, Duration)>,
    reached: Option<i64>,
}

impl Walking {
    fn observe(&mut self, producer: u8, event_time: Option<i64>, now: Duration) {
        let progress = self.producers.entry(producer).or_insert((event_time, now));
        *progress = (progress.0.max(event_time), now);
    }

    fn is_idle(&self, producer: u8, now: Duration) -> bool {
        self.producers.get(&producer).is_some_and(|(_, heard)| now - *heard > IDLE_AFTER)
    }

    fn at(&mut self, now: Duration) -> Option<i64> {
        let (mut active, mut idle): (Option<i64>, Option<i64>) = (None, None);
        for (newest, heard) in self.producers.values() {
            let silent = now - *heard;
            if silent > IDLE_AFTER {
                let micros = silent.as_micros() as i64;
                idle = idle.max(newest.map(|newest| newest.saturating_add(micros)));
            } else if let Some(newest) = *newest {
                active = Some(active.map_or(newest, |least| least.min(newest)));
            } else {
                return self.reached;
            }
        }
        self.reached = self.reached.max(active.or(idle));
        self.reached
    }
}

#[derive(Debug, Clone)]
enum Step {
    Heard { producer: u8, event_time: Option<i64>, after: Duration },
    Look { after: Duration },
    Restart,
}

/// Event times near the ends of what can be counted too; intervals that fall just before, at and just after the limit.
fn step() -> impl Strategy<Value = Step> {
    let after = prop_oneof![
        4 => (0_u64..15_000_000).prop_map(Duration::from_nanos),
        1 => Just(IDLE_AFTER),
        1 => (29_990_000_u64..30_010_000).prop_map(Duration::from_nanos),
        1 => (0_u64..200_000_000).prop_map(Duration::from_nanos),
    ];
    let time = prop_oneof![
        8 => (-100_000_i64..100_000).prop_map(Some),
        2 => Just(None),
        1 => prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(-(1_i64 << 62))].prop_map(Some),
    ];
    prop_oneof![
        6 => (0_u8..6, time, after.clone()).prop_map(|(producer, event_time, after)| Step::Heard { producer, event_time, after }),
        3 => after.prop_map(|after| Step::Look { after }),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn it_is_what_the_rule_says(steps in prop::collection::vec(step(), 0..80)) {
        let mut watermark = Watermark::new(IDLE_AFTER, MAX);
        let mut reference = Reference::default();
        let mut now = Duration::ZERO;
        for step in steps {
            match step {
                Step::Heard { producer, event_time, after } => {
                    now += after;
                    watermark.observe(heard(&producer.to_string(), event_time), now);
                    reference.observe(producer, event_time, now);
                }
                Step::Look { after } => now += after,
                Step::Restart => {}
            }
            prop_assert_eq!(watermark.at(now), reference.at(now));
        }
    }

    /// The two differ only in what they make of a producer that comes back after it was idle: it used to be as if it
    /// had never been away.
    #[test]
    fn it_is_what_walking_all_producers_gave(steps in prop::collection::vec(step(), 0..80)) {
        let mut watermark = Watermark::new(IDLE_AFTER, MAX);
        let mut walking = Walking::default();
        let mut now = Duration::ZERO;
        for step in steps {
            match step {
                Step::Heard { producer, event_time, after } => {
                    now += after;
                    if !walking.is_idle(producer, now) {
                        watermark.observe(heard(&producer.to_string(), event_time), now);
                        walking.observe(producer, event_time, now);
                    }
                }
                Step::Look { after } => now += after,
                Step::Restart => {}
            }
            prop_assert_eq!(watermark.at(now), walking.at(now));
        }
    }

    /// A watermark that was stopped and started, at once, goes on as one that was not.
    #[test]
    fn a_restart_changes_nothing(steps in prop::collection::vec(step(), 0..60)) {
        let mut here = Watermark::new(IDLE_AFTER, MAX);
        let mut there = Watermark::new(IDLE_AFTER, MAX);
        let (mut now, mut started) = (Duration::ZERO, Duration::ZERO);
        for step in steps {
            match step {
                Step::Heard { producer, event_time, after } => {
                    now += after;
                    here.observe(heard(&producer.to_string(), event_time), now);
                    there.observe(heard(&producer.to_string(), event_time), now - started);
                }
                Step::Look { after } => now += after,
                Step::Restart => {
                    there.at(now - started);
                    there = started_again(&there, Duration::ZERO);
                    started = now;
                }
            }
            prop_assert_eq!(there.at(now - started), here.at(now));
            prop_assert_eq!(here.active(), there.active());
        }
    }
}
