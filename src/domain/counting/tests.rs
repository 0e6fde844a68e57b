use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// 1 November 2026, noon UTC, in microseconds since the Unix epoch.
const START: i64 = 1_793_534_400_000_000;
const HOUR_MICROS: i64 = 3_600 * 1_000_000;
const DAY_MICROS: i64 = 24 * HOUR_MICROS;

fn tally(name: &str, period: Period, most: u64) -> Arc<Tally> {
    named(&format!("law/counters/{name}"), "all", period, most)
}

fn named(counter: &str, to: &str, period: Period, most: u64) -> Arc<Tally> {
    let name = Arc::new(Name { counter: counter.to_owned(), to: to.to_owned() });
    Arc::new(Tally { name, about: About { period, ahead_seconds: 8 * 3_600 }, most })
}

fn begun(chance: u8) -> Counts {
    let mut counts = Counts::new(PersonKey([7; 16]), [chance; 16]);
    counts.see(Reading { ran: 0, wall: START });
    counts
}

/// The clocks of a gateway, and its counts.
struct Gateway {
    counts: Counts,
    /// What earlier starts have put on disk.
    disk: Vec<News>,
    ran: u64,
    wall: i64,
}

impl Gateway {
    fn begin() -> Self {
        Self { counts: begun(0), disk: Vec::new(), ran: 0, wall: START }
    }

    /// So many hours pass.
    fn live(&mut self, hours: u64) {
        for _ in 0..hours {
            self.ran += 3_600;
            self.wall += HOUR_MICROS;
            self.look();
        }
    }

    /// The clock is set.
    fn set(&mut self, wall: i64) {
        self.wall = wall;
        self.look();
    }

    fn look(&mut self) {
        self.counts.see(Reading { ran: self.ran, wall: self.wall });
    }

    /// The process is killed when all was on disk, and started again.
    fn kill(&mut self) {
        let mut after = Counts::new(PersonKey([7; 16]), [9; 16]);
        self.disk.extend_from_slice(self.counts.news());
        self.disk.iter().rev().for_each(|news| after.merge(news));
        self.counts = after;
        self.ran = self.counts.ran();
        self.look();
    }

    fn go(&mut self, tally: &Arc<Tally>, number: u8) -> bool {
        go(&mut self.counts, &[claim(&[&[tally]])], Some(number))
    }
}

/// Whether the record of a person, or of nobody, may go.
fn go(counts: &mut Counts, claims: &[Claim], number: Option<u8>) -> bool {
    let series = counts.begin();
    asked(number, |whose| counts.admit(claims, whose, series))
}

fn asked<T>(number: Option<u8>, ask: impl FnOnce(Whose<'_>) -> T) -> T {
    let contributors: ArrayRef = Arc::new(arrow_array::Int64Array::from(vec![number.map(i64::from)]));
    ask(Whose { stream: &"visits".parse().unwrap(), contributors: Some(&contributors), row: 0 })
}

/// What must have room, one way or another.
fn claim(ways: &[&[&Arc<Tally>]]) -> Claim {
    let ways: Vec<Vec<Arc<Tally>>> =
        ways.iter().map(|way| way.iter().map(|tally| Arc::clone(tally)).collect()).collect();
    let mut counted: Vec<Arc<Tally>> = ways.iter().flatten().cloned().collect();
    counted.dedup();
    Claim { counted, ways, tells_apart: true }
}

/// What somebody does with the counters.
#[derive(Debug, Clone)]
enum Step {
    /// A record of a person, or of nobody, by one of the ways.
    Go(Option<u8>, usize),
    /// So many hours pass.
    Hours(u16),
    /// The clock is set, so many hours on or back.
    Set(i64),
    /// What was counted goes to the disk.
    Write,
    /// The process is killed and started again: what is not on disk is gone.
    Kill,
    /// All that is known is written anew.
    Tidy,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (prop::option::weighted(0.9, 0..12_u8), 0..4_usize).prop_map(|(person, way)| Step::Go(person, way)),
        3 => (1..1_500_u16).prop_map(Step::Hours),
        1 => (-3_000..3_000_i64).prop_map(Step::Set),
        2 => Just(Step::Write),
        1 => Just(Step::Kill),
        1 => Just(Step::Tidy),
    ];
    prop::collection::vec(step, 0..120)
}

/// The obvious way: every record that went, with its person and its day, and all that the clocks have shown.
#[derive(Default)]
struct Slow {
    went: Vec<(u64, Day)>,
    seen: Vec<Reading>,
    /// The first of them that are on disk.
    on_disk: (usize, usize),
    /// The time that held when everything was written anew.
    held: Option<i64>,
    /// Whether more went than may be counted, so that they are not told apart.
    is_beyond: bool,
}

impl Slow {
    fn see(&mut self, reading: Reading) {
        if self.seen.last() != Some(&reading) {
            self.seen.push(reading);
        }
    }

    /// The latest time after which the machine has run on for two days without an earlier one.
    fn held(&self) -> Option<i64> {
        let holds = |(at, first): (usize, &Reading)| {
            let after = self.seen.iter().skip(at + 1).take_while(|later| later.wall >= first.wall);
            after.into_iter().any(|later| later.ran - first.ran >= 48 * 3_600).then_some(first.wall)
        };
        self.seen.iter().enumerate().filter_map(holds).max().max(self.held)
    }

    fn first_day(period: Period, today: Day) -> Day {
        // Day by day, by the calendar.
        let date = |day: Day| Date::constant(1970, 1, 1).checked_add(i64::from(day).days()).unwrap();
        let counts = |day: Day| match period {
            Period::CalendarYear => date(day).year() == date(today).year(),
            Period::TwelveMonths => date(day) >= date(today).checked_sub(1.year()).unwrap(),
            Period::Ever => true,
        };
        (0..=today).rev().take_while(|day| today - day < 800 && counts(*day)).last().unwrap_or(today)
    }

    fn counted(&self, about: About, held: Option<i64>) -> BTreeSet<u64> {
        let first_day = match held {
            Some(held) if about.period != Period::Ever => Self::first_day(about.period, about.day(held)),
            _ => 0,
        };
        self.went.iter().filter(|(_, day)| *day >= first_day).map(|(person, _)| *person).collect()
    }

    fn has_room(&self, tally: &Tally, held: Option<i64>, person: Option<u64>) -> bool {
        let counted = self.counted(tally.about, held);
        // With this person, there are no more than may be.
        let with = counted.len() + usize::from(person.is_none_or(|person| !counted.contains(&person)));
        with as u64 <= tally.most
    }

    fn kill(&mut self) {
        // Who was not on disk was told to nobody.
        self.went.truncate(self.on_disk.0);
        self.seen.truncate(self.on_disk.1);
        // Of what was seen at once, the earlier time is taken for the later word.
        self.seen.sort_by_key(|reading| (reading.ran, std::cmp::Reverse(reading.wall)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Over restarts, kills, replays in any order, clocks that are set and the turns of years: nobody goes for whom there is no
    /// room, and who may go, goes.
    #[test]
    fn the_counters_are_those_of_the_slow_way(steps in steps(), most in (0..8_u64, 0..8_u64, 0..12_u64), shuffle in any::<u64>()) {
        let year = tally("year", Period::CalendarYear, most.0);
        let months = tally("months", Period::TwelveMonths, most.1);
        let ever = tally("ever", Period::Ever, most.2);
        let counted = vec![Arc::clone(&year), Arc::clone(&months), Arc::clone(&ever)];
        let way = |ways: &[&[&Arc<Tally>]]| Claim { counted: counted.clone(), ..claim(ways) };
        let claims = [
            way(&[&[&year]]),
            way(&[&[&year, &months]]),
            way(&[&[&ever], &[&months]]),
            way(&[&[&year], &[]]),
        ];
        let (mut counts, mut disk, mut slow) = (begun(0), Vec::new(), Slow::default());
        let (mut now, mut starts, mut nameless) = (Reading { ran: 0, wall: START }, 0_u8, 1_000);
        slow.see(now);
        for step in steps {
            match step {
                Step::Go(number, claim) => {
                    let today = slow.seen.iter().map(|reading| year.about.day(reading.wall));
                    let today = today.chain(slow.went.iter().map(|(_, day)| *day)).max().unwrap();
                    let (who, held, claim) = (number.map(u64::from), slow.held(), &claims[claim]);
                    let may = claim.ways.iter().any(|way| way.iter().all(|tally| slow.has_room(tally, held, who)));
                    let looked = asked(number, |whose| counts.would_admit(std::slice::from_ref(claim), whose));
                    let went = go(&mut counts, std::slice::from_ref(claim), number);
                    prop_assert_eq!(looked, went);
                    prop_assert!(may || !went, "{:?} went by {:?}", number, claim.ways);
                    prop_assert!(slow.is_beyond || went == may, "{:?} did not go by {:?}", number, claim.ways);
                    if went {
                        nameless += 1;
                        slow.went.push((who.unwrap_or(nameless), today));
                        let is_beyond = |tally: &Arc<Tally>| slow.counted(tally.about, held).len() as u64 > tally.most;
                        slow.is_beyond |= counted.iter().any(is_beyond);
                    }
                }
                Step::Hours(hours) => {
                    now.wall += i64::from(hours) * HOUR_MICROS;
                    now.ran += u64::from(hours) * 3_600;
                }
                Step::Set(hours) => now.wall += hours * HOUR_MICROS,
                Step::Write => {
                    disk.extend_from_slice(counts.news());
                    counts.written(usize::MAX);
                    slow.on_disk = (slow.went.len(), slow.seen.len());
                }
                Step::Kill => {
                    slow.kill();
                    starts += 1;
                    counts = Counts::new(PersonKey([7; 16]), [starts; 16]);
                    let mut order: Vec<usize> = (0..disk.len() * 2).collect();
                    order.sort_by_key(|at| (*at as u64 + 1).wrapping_mul(shuffle | 1).rotate_left(17));
                    order.iter().for_each(|at| counts.merge(&disk[at % disk.len()]));
                    now.ran = slow.seen.last().map_or(0, |last| last.ran);
                    prop_assert_eq!(counts.ran(), now.ran);
                }
                Step::Tidy => {
                    slow.held = slow.held();
                    slow.on_disk = (slow.went.len(), slow.seen.len());
                    counts.forget();
                    disk = counts.all();
                    counts.written(usize::MAX);
                }
            }
            counts.see(now);
            slow.see(now);
        }
    }
}

#[test]
fn the_first_person_over_the_limit_stays_and_those_who_were_counted_go_on() {
    let year = tally("year", Period::CalendarYear, 2);
    let mut gateway = Gateway::begin();
    assert_eq!([1, 2, 1, 3, 2].map(|number| gateway.go(&year, number)), [true, true, true, false, true]);
    assert_eq!(gateway.counts.used(&year), 100);
    // Without a name everybody is somebody else.
    assert!(!go(&mut gateway.counts, &[claim(&[&[&year]])], None));
    // 16 o'clock UTC of 31 December is the new year in Beijing, and two days later it holds.
    gateway.live(60 * 24 + 4 + 47);
    assert!(!gateway.go(&year, 3));
    gateway.live(1);
    assert_eq!(gateway.counts.used(&year), 0);
    assert_eq!([3, 4, 5].map(|number| gateway.go(&year, number)), [true, true, false]);
    // A clock that is turned back frees no place, and the old year's persons have none.
    gateway.set(START);
    assert!(!gateway.go(&year, 1));
}

#[test]
fn a_clock_that_runs_ahead_over_the_turn_of_a_period_forgets_nobody_and_frees_no_place() {
    let (year, months) = (tally("year", Period::CalendarYear, 2), tally("months", Period::TwelveMonths, 2));
    for tally in [year, months] {
        for kills in [false, true] {
            let mut gateway = Gateway::begin();
            assert!(gateway.go(&tally, 1));
            gateway.live(10);
            let right = gateway.wall;
            gateway.set(right + 400 * DAY_MICROS);
            assert!(gateway.go(&tally, 2), "the second of two");
            assert!(!gateway.go(&tally, 3), "while the clock is ahead");
            gateway.live(40);
            assert!(!gateway.go(&tally, 3), "a day later, too");
            if kills {
                gateway.kill();
            }
            gateway.set(right + 40 * HOUR_MICROS);
            gateway.live(60);
            gateway.counts.forget();
            assert_eq!(
                [3, 1, 2].map(|number| gateway.go(&tally, number)),
                [false, true, true],
                "and when it is right again"
            );
        }
    }
}

#[test]
fn at_a_turn_persons_count_in_both_periods_until_the_new_one_holds() {
    let year = tally("year", Period::CalendarYear, 3);
    let mut gateway = Gateway::begin();
    assert_eq!([1, 2].map(|number| gateway.go(&year, number)), [true; 2]);
    gateway.live(60 * 24 + 5);
    // 1 goes in both years, 3 in the new one.
    assert_eq!([1, 3, 4].map(|number| gateway.go(&year, number)), [true, true, false]);
    gateway.kill();
    gateway.live(60);
    assert_eq!([4, 2].map(|number| gateway.go(&year, number)), [true, false], "2 went in the old year alone");
}

#[test]
fn who_went_on_the_first_day_of_a_period_is_not_forgotten_with_those_before() {
    let year = tally("year", Period::CalendarYear, 2);
    let mut gateway = Gateway::begin();
    assert!(gateway.go(&year, 1));
    gateway.live(60 * 24 + 5);
    assert!(gateway.go(&year, 2));
    // How it is kept is on disk, whoever asked for it.
    gateway.kill();
    gateway.live(60);
    assert_eq!((gateway.counts.listed(), gateway.counts.forgettable()), (2, 1));
    gateway.counts.forget();
    assert_eq!((gateway.counts.listed(), gateway.counts.forgettable()), (1, 0));
    assert_eq!([3, 4].map(|number| gateway.go(&year, number)), [true, false]);
}

#[test]
fn persons_of_a_new_period_do_not_keep_it_without_room_because_the_old_one_is_full() {
    let year = tally("year", Period::CalendarYear, 2);
    let free = [Claim { ways: vec![vec![]], ..claim(&[&[&year]]) }];
    let mut gateway = Gateway::begin();
    assert_eq!([1, 2].map(|number| gateway.go(&year, number)), [true; 2]);
    gateway.live(60 * 24 + 5);
    assert!(go(&mut gateway.counts, &free, Some(3)), "by another row");
    gateway.live(60);
    assert_eq!([4, 5].map(|number| gateway.go(&year, number)), [true, false]);
}

#[test]
fn a_clock_that_is_turned_back_over_a_restart_frees_no_place() {
    let year = tally("year", Period::CalendarYear, 1);
    let mut gateway = Gateway::begin();
    assert!(gateway.go(&year, 1));
    gateway.live(90 * 24);
    assert!(gateway.go(&year, 2));
    gateway.kill();
    gateway.set(START);
    assert_eq!([1, 2].map(|number| gateway.go(&year, number)), [false, true]);
}

#[test]
fn twelve_months_go_by_the_last_time_that_a_person_went() {
    let months = tally("months", Period::TwelveMonths, 1);
    let mut gateway = Gateway::begin();
    assert!(gateway.go(&months, 1));
    gateway.live(100 * 24);
    assert!(gateway.go(&months, 1));
    // The same day of the next year still counts.
    gateway.live((365 + 2) * 24);
    assert!(!gateway.go(&months, 2));
    gateway.live(24);
    assert!(gateway.go(&months, 2));
}

#[test]
fn whom_a_counter_does_not_list_keeps_it_full_until_they_have_left_the_period() {
    let year = tally("year", Period::CalendarYear, 1);
    let free = [Claim { ways: vec![vec![]], ..claim(&[&[&year]]) }];
    let mut gateway = Gateway::begin();
    assert_eq!([1, 2, 3].map(|number| go(&mut gateway.counts, &free, Some(number))), [true; 3]);
    let news = gateway.counts.news().iter().filter(|news| matches!(news, News::Went(..) | News::Unlisted(..)));
    assert_eq!(news.count(), 2, "one is listed, and the day of the others");
    // With a greater share there is no telling how many went.
    let more = tally("year", Period::CalendarYear, 10);
    gateway.kill();
    assert!(!gateway.go(&more, 1), "beyond the limit, nobody goes by the counter, whoever is listed");
    assert!(!gateway.go(&more, 4));
    assert_eq!(gateway.counts.used(&more), 100);
    gateway.live(90 * 24);
    assert!(gateway.go(&more, 4));
}

#[test]
fn contributors_who_may_be_several_persons_leave_no_room_for_anybody() {
    let year = tally("year", Period::CalendarYear, 10);
    let crowd = Claim { ways: vec![vec![]], tells_apart: false, ..claim(&[&[&year]]) };
    let mut gateway = Gateway::begin();
    assert!(gateway.go(&year, 1));
    assert!(go(&mut gateway.counts, &[crowd], Some(2)), "another row lets it go");
    gateway.kill();
    assert!(!gateway.go(&year, 1));
    assert_eq!(gateway.counts.used(&year), 100);
}

#[test]
fn beyond_a_smaller_share_not_even_those_go_who_were_counted() {
    let (year, less) = (tally("year", Period::CalendarYear, 3), tally("year", Period::CalendarYear, 2));
    let mut gateway = Gateway::begin();
    assert_eq!([1, 2].map(|number| gateway.go(&year, number)), [true; 2]);
    assert!(gateway.go(&less, 1), "at the limit, who was counted goes on");
    assert!(gateway.go(&year, 3));
    assert_eq!([1, 2, 3, 4].map(|number| gateway.go(&less, number)), [false; 4]);
    assert!(gateway.go(&year, 3), "with the share that there was, they are at the limit again");
}

#[test]
fn counts_that_were_lost_leave_no_room_until_their_period_is_over() {
    let year = tally("year", Period::CalendarYear, 5);
    let mut gateway = Gateway::begin();
    gateway.counts.lose();
    for _ in 0..2 {
        assert!(!gateway.go(&year, 1));
        assert_eq!(gateway.counts.used(&year), 100);
        assert_eq!(gateway.counts.lost(&year).and_then(date_of), Some(Date::constant(2026, 11, 2)));
        gateway.kill();
    }
    gateway.live(70 * 24);
    assert!(gateway.go(&year, 1));
    assert_eq!(gateway.counts.lost(&year), None);
}

#[test]
fn a_record_without_a_contributor_is_one_person_however_often_it_is_asked_about_under_one_number() {
    let year = tally("year", Period::CalendarYear, 2);
    let (claims, mut counts) = ([claim(&[&[&year]])], begun(0));
    let series = counts.begin();
    let stream = "visits".parse().unwrap();
    let whose = |row| Whose { stream: &stream, contributors: None, row };
    assert!((0..5).all(|_| counts.admit(&claims, whose(0), series)));
    assert!(counts.admit(&claims, whose(1), series));
    let other = counts.begin();
    assert!(!counts.admit(&claims, whose(0), other));
}

/// A count under another name begins with those who were counted under the old one.
#[test]
fn who_was_counted_under_a_name_that_no_policy_has_any_more_counts_under_the_new_one() {
    let year = Period::CalendarYear;
    let old = named("law/counters/few", "all", year, 2);
    for new in [
        named("law/counters/few", "us-1", year, 2),
        named("law-2/counters/few", "all", year, 2),
        named("law/counters/fewer", "all", year, 2),
        named("law/counters/few", "fr-1", Period::TwelveMonths, 2),
    ] {
        let mut gateway = Gateway::begin();
        assert_eq!(gateway.counts.ask(&[Tally::clone(&old)]), []);
        assert!(gateway.go(&old, 1));
        gateway.kill();
        let (from, to) = (Arc::clone(&old.name), Arc::clone(&new.name));
        assert_eq!(gateway.counts.ask(&[Tally::clone(&new)]), [Noticed::CountedOn { from, to }]);
        gateway.kill();
        assert_eq!([2, 3, 1].map(|number| gateway.go(&new, number)), [true, false, true]);
        // And those of the new name count under the old one, when it comes back.
        gateway.counts.ask(&[Tally::clone(&old)]);
        assert_eq!([3, 2].map(|number| gateway.go(&old, number)), [false, true]);
    }
}

#[test]
fn a_name_that_is_like_none_is_told_and_dropped_when_its_period_is_over() {
    let (old, new) = (
        named("law/counters/few", "all", Period::CalendarYear, 2),
        named("law-2/counters/other", "all", Period::Ever, 2),
    );
    let mut gateway = Gateway::begin();
    gateway.counts.ask(&[Tally::clone(&old)]);
    assert!(gateway.go(&old, 1));
    assert_eq!(gateway.counts.ask(&[Tally::clone(&new)]), [Noticed::Unasked(Arc::clone(&old.name))]);
    assert!(gateway.go(&new, 2));
    gateway.live(50 * 24);
    gateway.counts.forget();
    assert_eq!(gateway.counts.listed(), 2);
    gateway.live(20 * 24);
    gateway.counts.forget();
    assert_eq!(gateway.counts.listed(), 1);
    assert_eq!(gateway.counts.counts(), [(Arc::clone(&new.name), 1, false)]);
    assert_eq!(gateway.counts.ask(&[Tally::clone(&new)]), []);
    let all = gateway.counts.all();
    assert!(!all.iter().any(|news| matches!(news, News::Kept(name, _) if *name == old.name)), "nothing of it is left");
}

/// Of those who were counted in a calendar year only the first day in it is known: by twelve months they count from today.
#[test]
fn another_period_of_a_law_is_told_and_forgets_nobody() {
    let (year, months) = (tally("few", Period::CalendarYear, 1), tally("few", Period::TwelveMonths, 1));
    let mut gateway = Gateway::begin();
    gateway.counts.ask(&[Tally::clone(&year)]);
    assert!(gateway.go(&year, 1));
    gateway.live(50 * 24);
    assert!(gateway.go(&year, 1));
    assert_eq!(gateway.counts.ask(&[Tally::clone(&months)]), [Noticed::KeptOtherwise(Arc::clone(&months.name))]);
    gateway.kill();
    assert_eq!(gateway.counts.ask(&[Tally::clone(&months)]), []);
    gateway.live(340 * 24);
    assert!(!gateway.go(&months, 2));
    gateway.live(50 * 24);
    assert!(gateway.go(&months, 2));
}

/// A period that is shorter than the one before: each start, in whatever order it reads, knows which of them came last.
#[test]
fn another_period_is_told_once_and_persons_are_dated_once() {
    let (ever, months) = (tally("few", Period::Ever, 1), tally("few", Period::TwelveMonths, 1));
    let mut gateway = Gateway::begin();
    gateway.counts.ask(&[Tally::clone(&ever)]);
    assert!(gateway.go(&ever, 1));
    assert_eq!(gateway.counts.ask(&[Tally::clone(&months)]), [Noticed::KeptOtherwise(Arc::clone(&months.name))]);
    assert_eq!(gateway.counts.ask(&[Tally::clone(&months)]), []);
    for _ in 0..4 {
        gateway.live(92 * 24);
        gateway.kill();
        assert_eq!(gateway.counts.ask(&[Tally::clone(&months)]), []);
    }
    assert!(gateway.go(&months, 2), "the place is free");
}

/// Persons of a count that no policy asks for any more, and that ends never, are not dated anew at each start.
#[test]
fn those_of_an_old_name_leave_the_new_count_when_its_period_is_over() {
    let ever = named("law/counters/few", "all", Period::Ever, 1);
    let months = named("law/counters/fewer", "all", Period::TwelveMonths, 1);
    let on = || [Noticed::CountedOn { from: Arc::clone(&ever.name), to: Arc::clone(&months.name) }];
    let mut gateway = Gateway::begin();
    gateway.counts.ask(&[Tally::clone(&ever)]);
    assert!(gateway.go(&ever, 1));
    gateway.live(100 * 24);
    assert!(gateway.go(&ever, 1), "once more, of which there is no word");
    assert_eq!(gateway.counts.ask(&[Tally::clone(&months)]), on());
    for _ in 0..3 {
        gateway.live(121 * 24);
        gateway.kill();
        assert_eq!(gateway.counts.ask(&[Tally::clone(&months)]), on());
        assert!(!gateway.go(&months, 2), "twelve months back, somebody went");
    }
    gateway.live(6 * 24);
    assert!(gateway.go(&months, 2), "the place is free");
    // Under the name that comes back, nobody is forgotten, and who goes on goes on.
    assert_eq!(gateway.counts.ask(&[Tally::clone(&ever)]).len(), 1);
    gateway.kill();
    assert!(!gateway.go(&ever, 3));
    let kept = |gateway: &Gateway| {
        gateway.counts.all().into_iter().find_map(|news| match news {
            News::Kept(name, kept) if name == ever.name => Some(kept.stopped),
            _ => None,
        })
    };
    assert_eq!(kept(&gateway), Some(None), "it goes on");
}

#[test]
fn a_person_is_a_name_in_a_stream() {
    let key = PersonKey([1; 16]);
    let names: ArrayRef =
        Arc::new(arrow_array::StringArray::from(vec![Some("ann"), Some("ann"), Some("bob"), None, Some("")]));
    let of = |stream: &str, row| key.person(stream, &names, row);
    assert_eq!(of("s", 0), of("s", 1));
    let distinct = BTreeMap::from([(of("s", 0), 0), (of("s", 2), 0), (of("t", 0), 0)]);
    assert_eq!(distinct.len(), 3);
    assert_eq!([of("s", 3), of("s", 4), of("s", 5)], [None; 3]);
    let numbers: ArrayRef = Arc::new(arrow_array::Int64Array::from(vec![1, 1, 2]));
    assert_eq!(key.person("s", &numbers, 0), key.person("s", &numbers, 1));
    assert_ne!(key.person("s", &numbers, 0), key.person("s", &numbers, 2));
    assert_ne!(PersonKey([2; 16]).person("s", &names, 0), of("s", 0), "a key hides who it is");
}
