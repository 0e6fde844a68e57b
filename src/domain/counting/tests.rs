use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// 1 November 2026, noon UTC, in microseconds since the Unix epoch.
const START: i64 = 1_793_534_400_000_000;
const DAY_MICROS: i64 = DAY_SECONDS * 1_000_000;

fn tally(name: &str, period: Period, most: u64) -> Arc<Tally> {
    let name = Arc::new(Name { counter: name.to_owned(), to: "all".to_owned() });
    Arc::new(Tally { name, period, ahead_seconds: 8 * 3_600, most })
}

fn begun(chance: u8) -> Counts {
    Counts::new(PersonKey([7; 16]), [chance; 16])
}

fn person(number: u8) -> Option<Person> {
    Some(Person([number; 16]))
}

/// What must have room, one way or another.
fn claim(ways: &[&[&Arc<Tally>]]) -> Claim {
    let ways: Vec<Vec<Arc<Tally>>> =
        ways.iter().map(|way| way.iter().map(|tally| Arc::clone(tally)).collect()).collect();
    let mut counted: Vec<Arc<Tally>> = ways.iter().flatten().cloned().collect();
    counted.dedup();
    Claim { counted, ways }
}

/// What somebody does with the counters.
#[derive(Debug, Clone)]
enum Step {
    /// A record of a person, or of nobody, by one of the ways.
    Go(Option<u8>, usize),
    /// So many hours pass; below 0, the clock is turned back.
    Hours(i64),
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
        3 => (1..1_500_i64).prop_map(Step::Hours),
        1 => (-3_000..0_i64).prop_map(Step::Hours),
        2 => Just(Step::Write),
        1 => Just(Step::Kill),
        1 => Just(Step::Tidy),
    ];
    prop::collection::vec(step, 0..120)
}

/// The obvious way: every record that went, with its person and its day.
#[derive(Default)]
struct Slow {
    went: Vec<(Person, Day)>,
    /// The first of them that are not on disk.
    on_disk: usize,
    /// Whether more went than may be counted, so that they are not told apart.
    is_beyond: bool,
    /// Those of `went` that were not in a period when everything was written anew: they are forgotten for good, also if the
    /// clock was ahead.
    forgotten: BTreeSet<(usize, Period)>,
}

impl Slow {
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

    fn counted(&self, period: Period, today: Day) -> BTreeSet<Person> {
        let first_day = if period == Period::Ever { 0 } else { Self::first_day(period, today) };
        let went = self.went.iter().enumerate();
        let counts = went.filter(|(at, (_, day))| *day >= first_day && !self.forgotten.contains(&(*at, period)));
        counts.map(|(_, (person, _))| *person).collect()
    }

    /// All that is known on a day is written anew.
    fn tidy(&mut self, today: Day) {
        for period in [Period::CalendarYear, Period::TwelveMonths] {
            let first_day = Self::first_day(period, today);
            let before = self.went.iter().enumerate().filter(|(_, (_, day))| *day < first_day);
            self.forgotten.extend(before.map(|(at, _)| (at, period)));
        }
        self.on_disk = self.went.len();
    }

    fn has_room(&self, tally: &Tally, today: Day, person: Option<Person>) -> bool {
        let counted = self.counted(tally.period, today);
        // With this person, there are no more than may be.
        let with = counted.len() + usize::from(person.is_none_or(|person| !counted.contains(&person)));
        with as u64 <= tally.most
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Over restarts, kills, replays in any order and the turns of years: nobody goes for whom there is no room, and who may
    /// go, goes.
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
        let (mut wall, mut starts, mut today, mut nameless) = (START, 0_u8, 0, 200_u8);
        for step in steps {
            match step {
                Step::Go(number, claim) => {
                    today = today.max(year.day(wall));
                    let who = number.and_then(person);
                    let claim = &claims[claim];
                    let may = claim.ways.iter().any(|way| way.iter().all(|tally| slow.has_room(tally, today, who)));
                    let went = counts.admit(std::slice::from_ref(claim), who, wall);
                    prop_assert!(may || !went, "{:?} went by {:?}", number, claim.ways);
                    prop_assert!(slow.is_beyond || went == may, "{:?} did not go by {:?}", number, claim.ways);
                    if went {
                        nameless = nameless.wrapping_add(1).max(200);
                        let who = who.unwrap_or(Person([nameless, slow.went.len() as u8, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]));
                        slow.went.push((who, today));
                        let is_beyond =
                            |tally: &Arc<Tally>| slow.counted(tally.period, today).len() as u64 > tally.most;
                        slow.is_beyond |= counted.iter().any(is_beyond);
                    }
                }
                Step::Hours(hours) => wall += hours * 3_600 * 1_000_000,
                Step::Write => {
                    disk.extend_from_slice(counts.news());
                    counts.written(usize::MAX);
                    slow.on_disk = slow.went.len();
                }
                Step::Kill => {
                    // Who was not on disk was told to nobody.
                    slow.went.truncate(slow.on_disk);
                    starts += 1;
                    counts = begun(starts);
                    let mut order: Vec<usize> = (0..disk.len() * 2).collect();
                    order.sort_by_key(|at| (*at as u64 + 1).wrapping_mul(shuffle | 1).rotate_left(17));
                    order.iter().for_each(|at| counts.merge(&disk[at % disk.len()]));
                    // A day that nobody on disk went on may come again.
                    today = slow.went.iter().map(|(_, day)| *day).max().unwrap_or(0);
                }
                Step::Tidy => {
                    slow.tidy(today);
                    disk = counts.all();
                    counts.written(usize::MAX);
                }
            }
        }
    }
}

#[test]
fn the_first_person_over_the_limit_stays_and_those_who_were_counted_go_on() {
    let year = tally("year", Period::CalendarYear, 2);
    let claims = [claim(&[&[&year]])];
    let mut counts = begun(0);
    assert_eq!(
        [1, 2, 1, 3, 2].map(|number| counts.admit(&claims, person(number), START)),
        [true, true, true, false, true]
    );
    assert_eq!(counts.used(&year, START), 100);
    // Without a name everybody is somebody else.
    assert!(!counts.admit(&claims, None, START));
    // Half past 16 o'clock UTC of 31 December is the new year in Beijing.
    let new_year = START + 60 * DAY_MICROS + (4 * 3_600 + 1_800) * 1_000_000;
    assert!(!counts.admit(&claims, person(3), new_year - 3_600_000_000));
    assert_eq!(counts.used(&year, new_year), 0);
    assert!(counts.admit(&claims, None, new_year));
    assert!(counts.admit(&claims, None, new_year));
    assert!(!counts.admit(&claims, None, new_year));
    // A clock that is turned back frees no place, and the old year's persons have none.
    assert!(!counts.admit(&claims, person(1), START));
}

#[test]
fn a_clock_that_is_turned_back_over_a_restart_frees_no_place() {
    let year = tally("year", Period::CalendarYear, 1);
    let claims = [claim(&[&[&year]])];
    let mut before = begun(0);
    assert!(before.admit(&claims, person(1), START));
    assert!(before.admit(&claims, person(2), START + 90 * DAY_MICROS));
    let mut after = begun(1);
    before.news().iter().for_each(|news| after.merge(news));
    assert!(!after.admit(&claims, person(1), START));
    assert!(after.admit(&claims, person(2), START));
}

#[test]
fn twelve_months_go_by_the_last_time_that_a_person_went() {
    let months = tally("months", Period::TwelveMonths, 1);
    let claims = [claim(&[&[&months]])];
    let mut counts = begun(0);
    assert!(counts.admit(&claims, person(1), START));
    assert!(counts.admit(&claims, person(1), START + 100 * DAY_MICROS));
    // The same day of the next year still counts.
    assert!(!counts.admit(&claims, person(2), START + (100 + 365) * DAY_MICROS));
    assert!(counts.admit(&claims, person(2), START + (100 + 366) * DAY_MICROS));
}

#[test]
fn whom_a_counter_does_not_list_keeps_it_full_until_they_have_left_the_period() {
    let year = tally("year", Period::CalendarYear, 1);
    let (counted, free) = ([claim(&[&[&year]])], [Claim { ways: vec![vec![]], ..claim(&[&[&year]]) }]);
    let mut before = begun(0);
    assert_eq!([1, 2, 3].map(|number| before.admit(&free, person(number), START)), [true; 3]);
    assert_eq!(before.news().len(), 2, "one is listed, and the day of the others");
    // With a greater share there is no telling how many went.
    let more = tally("year", Period::CalendarYear, 10);
    let mut after = begun(1);
    before.news().iter().for_each(|news| after.merge(news));
    let claims = [claim(&[&[&more]])];
    assert!(!after.admit(&claims, person(1), START), "beyond the limit, nobody goes by the counter, whoever is listed");
    assert!(!after.admit(&claims, person(4), START));
    assert_eq!(after.used(&more, START), 100);
    assert!(after.admit(&claims, person(4), START + 90 * DAY_MICROS));
    assert!(!before.admit(&counted, person(4), START));
}

#[test]
fn beyond_a_smaller_share_not_even_those_go_who_were_counted() {
    let (year, less) = (tally("year", Period::CalendarYear, 3), tally("year", Period::CalendarYear, 2));
    let (claims, fewer) = ([claim(&[&[&year]])], [claim(&[&[&less]])]);
    let mut counts = begun(0);
    assert_eq!([1, 2].map(|number| counts.admit(&claims, person(number), START)), [true; 2]);
    assert!(counts.admit(&fewer, person(1), START), "at the limit, who was counted goes on");
    assert!(counts.admit(&claims, person(3), START));
    assert_eq!([1, 2, 3, 4].map(|number| counts.admit(&fewer, person(number), START)), [false; 4]);
    assert!(counts.admit(&claims, person(3), START), "with the share that there was, they are at the limit again");
}

#[test]
fn counts_that_were_lost_leave_no_room_until_their_period_is_over() {
    let year = tally("year", Period::CalendarYear, 5);
    let claims = [claim(&[&[&year]])];
    let mut before = begun(0);
    before.lose(START);
    let mut after = begun(1);
    after.merge(&before.news()[0]);
    for mut counts in [before, after] {
        assert!(!counts.admit(&claims, person(1), START));
        assert_eq!(counts.used(&year, START), 100);
        assert_eq!(counts.lost(&year, START).and_then(date_of), Some(Date::constant(2026, 11, 2)));
        assert!(counts.admit(&claims, person(1), START + 70 * DAY_MICROS));
        assert_eq!(counts.lost(&year, START + 70 * DAY_MICROS), None);
    }
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
