//! Datasets with longer windows beside the finer one whose rows they add up. Each sum is held against the rows of the finer
//! one, all that leaves is pooled before the exact search, and what is added up is written down and read again in between, as
//! after a crash.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::coarser::{adds_up, countries, country_of};
use super::nobody::{Record, outlet, outlets, pool_of, pool_rows, runner};
use super::rolled::{self, Row, expected, in_cities, records, rows};
use super::*;
use crate::domain::binary::Reader;
use crate::planted::for_tests::plant;

const SHORT: Duration = Duration::from_secs(60);
/// Windows that a longer one has.
const WINDOWS: i64 = 3;
/// Of the first longer window, and the first one of the next.
const ALL_WINDOWS: usize = 4;

/// The finer dataset `d` of countries and cities; of longer windows `h` of the same keys, and `g` of countries.
fn family(both: bool) -> Arc<Dataset> {
    let finer = Dataset { min_contributors: 1, window: SHORT, ..rolled::dataset(both) };
    let longer = |name: &str, keys: usize| {
        let (coarser_than, keys) = (Some("d".parse().unwrap()), finer.keys[..keys].to_vec());
        let (name, window) = (name.parse().unwrap(), SHORT * u32::try_from(WINDOWS).unwrap());
        Arc::new(Dataset { name, window, coarser_than, keys, roll_up: Vec::new(), ..finer.clone() })
    };
    Dataset::counted_for(&[Arc::new(finer.clone()), longer("h", 2), longer("g", 1)]).unwrap()
}

/// `d` goes to the first outlet, `h` and `g` to the second one.
fn to(outlets: &[Outlet]) -> Vec<Outlet> {
    let of = |dataset: &str, outlet: &Outlet| Outlet { dataset: dataset.parse().unwrap(), ..outlet.clone() };
    vec![of("d", &outlets[0]), of("h", &outlets[1]), of("g", &outlets[1])]
}

fn policy() -> Digest {
    Digest::from_bytes([5; 32])
}

/// A run: what leaves of the finer dataset in each window, and of the longer ones.
struct Run {
    counted: Arc<Dataset>,
    longer: Longer,
    /// What closings did since there was a checkpoint, and what that has.
    since: Vec<Addition>,
    checkpoint: Addition,
    gateway: GatewayId,
    outlets: Vec<Outlet>,
}

impl Run {
    fn new(both: bool, outlets: &[Outlet]) -> Self {
        let (counted, gateway) = (family(both), "eu".parse().unwrap());
        assert!(counted.has_longer() && !rolled::dataset(both).has_longer());
        let (longer, since, checkpoint) = (Longer::default(), Vec::new(), Addition::default());
        Self { counted, longer, since, checkpoint, gateway, outlets: to(outlets) }
    }

    /// A window closes, or a part of it is released.
    fn window(&mut self, window: i64, records: &[Record]) -> Outcome {
        let cells = rolled::cells(&self.counted, records);
        let closed =
            ClosedWindow { gateway: &self.gateway, dataset: &self.counted, window, part: 0, cells, deferral: None };
        let mut outcome = release(&closed, &self.outlets, policy()).unwrap();
        let addition = Addition { added: std::mem::take(&mut outcome.longer), ..Addition::default() };
        self.longer.add(&addition);
        self.since.push(addition);
        outcome
    }

    /// The windows before one have closed. `None`: all that was added up leaves.
    fn ended(&mut self, before: Option<i64>) -> BTreeMap<String, Released> {
        let mut addition = Addition::default();
        let before = before.map(|window| window_start(window, SHORT));
        let ended = self.longer.ending(&self.counted, before, &mut addition);
        assert_eq!(addition.is_empty(), ended.is_empty());
        self.longer.add(&addition);
        self.since.push(addition);
        let of = |ended: &Ended| {
            let released = release_longer(&self.gateway, &self.counted, ended, 0, &self.outlets, policy()).unwrap();
            let [released] = <[Released; 1]>::try_from(released).ok().unwrap();
            (ended.dataset().to_string(), released)
        };
        ended.iter().map(of).collect()
    }

    fn checkpoint(&mut self) {
        self.checkpoint = self.longer.all();
        self.since.clear();
    }

    /// What was added up is what the checkpoint has, and then what closings did.
    fn start_again(&mut self) {
        let before = std::mem::take(&mut self.longer);
        for addition in std::iter::once(&self.checkpoint).chain(&self.since) {
            let mut writer = Writer::default();
            addition.encode(&mut writer);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            let read = Addition::decode(&mut reader).unwrap();
            assert!(reader.is_empty() && read == *addition);
            assert!((0..bytes.len()).step_by(7).all(|cut| Addition::decode(&mut Reader::new(&bytes[..cut])).is_none()));
            self.longer.add(&read);
        }
        assert_eq!(self.longer, before);
    }
}

/// What is known of a row of a longer dataset: rows of the finer one, in windows.
struct Sums<'s> {
    finer: &'s [(usize, RecordBatch)],
    told: &'s RefCell<BTreeMap<String, usize>>,
}

impl Sums<'_> {
    /// Rows of a release of a longer dataset are the sums of all rows of some windows that agree with them, and of no others.
    fn are<K>(
        &self,
        windows: &[usize],
        (of, rows_of): (&RecordBatch, &[K]),
        agrees: impl Fn(&K, Row) -> bool,
    ) -> Result<(), TestCaseError> {
        let batches: Vec<&RecordBatch> =
            self.finer.iter().filter(|(window, _)| windows.contains(window)).map(|(_, cells)| cells).collect();
        let all = arrow_select::concat::concat_batches(&batches[0].schema(), batches).unwrap();
        let finer = rows(&all);
        let mut seen = 0;
        for (at, row) in rows_of.iter().enumerate() {
            let parts: Vec<usize> = (0..finer.len()).filter(|part| agrees(row, finer[*part])).collect();
            prop_assert!(!parts.is_empty());
            seen += parts.len();
            adds_up(&all, &parts, (of, at), self.told)?;
        }
        prop_assert_eq!(seen, finer.len(), "each row is in one sum");
        Ok(())
    }
}

fn nobody(
    records: &[Vec<Record>],
    outlets: &[Outlet],
    (both, flushed_after, saved_after, again_after): (bool, usize, usize, usize),
    told: &RefCell<BTreeMap<String, usize>>,
) -> Result<(), TestCaseError> {
    let mut run = Run::new(both, outlets);
    let k = outlets.iter().map(|outlet| outlet.min_contributors).max().unwrap();
    let all: Vec<Record> = records.iter().flatten().cloned().collect();
    let mut pool = pool_of(&all);
    let (mut finer, mut row_of, mut first) = (Vec::new(), BTreeMap::new(), 0);
    // The windows of each release of longer ones.
    let (mut open, mut ended) = (Vec::new(), Vec::new());
    for (window, records) in records.iter().enumerate() {
        let number = i64::try_from(window).unwrap();
        let some: Vec<usize> = (first..first + records.len()).collect();
        let of_window = expected(&all, &[], &some, k, both);
        let outcome = run.window(number, records);
        prop_assert_eq!(outcome.released.is_empty(), of_window.is_empty());
        if let Some(released) = outcome.released.first() {
            let left = rows(released.cells());
            let is_of = |at: usize, record: usize| of_window.get(&record) == Some(&left[at]);
            pool_rows(&mut pool, &all, released.cells(), &is_of, &|_| true)?;
            finer.push((window, released.cells().clone()));
            open.push(window);
        }
        row_of.extend(of_window.into_iter().map(|(record, row)| (record, (window, row))));
        first += records.len();
        if window == saved_after {
            run.checkpoint();
        }
        if window == again_after {
            run.start_again();
        }
        if window == flushed_after {
            ended.push((std::mem::take(&mut open), run.ended(None)));
            prop_assert!(run.longer.is_empty());
        }
        let left = run.ended(Some(number + 1));
        prop_assert!(left.is_empty() || number == WINDOWS - 1);
        if number == WINDOWS - 1 {
            ended.push((std::mem::take(&mut open), left));
        }
    }
    ended.push((std::mem::take(&mut open), run.ended(None)));
    let sums = Sums { finer: &finer, told };
    for (windows, left) in &ended {
        prop_assert_eq!(left.len(), if windows.is_empty() { 0 } else { 2 });
        if windows.is_empty() {
            continue;
        }
        let [h, g] = ["h", "g"].map(|dataset| left[dataset].cells());
        let (of_h, of_g) = (rows(h), countries(g));
        sums.are(windows, (h, &of_h), |one, row| *one == row)?;
        sums.are(windows, (g, &of_g), |one, row| one == country_of(row))?;
        let row =
            |record: usize| row_of.get(&record).filter(|(window, _)| windows.contains(window)).map(|(_, row)| *row);
        pool_rows(&mut pool, &all, h, &|at, record| row(record) == Some(of_h[at]), &|_| true)?;
        pool_rows(
            &mut pool,
            &all,
            g,
            &|at, record| row(record).is_some_and(|row| country_of(row) == of_g[at]),
            &|_| true,
        )?;
    }
    let of_parts = outlets.iter().map(|outlet| outlet.parts.least).max().unwrap();
    let found = pool.singled_out(of_parts.min(k));
    prop_assert!(found.is_none(), "{:?} can be worked out", found);
    Ok(())
}

fn windows() -> impl Strategy<Value = Vec<Vec<Record>>> {
    let few = records().prop_map(|mut records| {
        records.truncate(14);
        records
    });
    prop::collection::vec(few, ALL_WINDOWS)
}

#[test]
fn sums_of_windows_single_out_nobody_beside_their_rows_and_are_their_sums() {
    let told = RefCell::new(BTreeMap::new());
    let after = || 0..2 * ALL_WINDOWS;
    let how = (any::<bool>(), after(), after(), after());
    runner(400)
        .run(&(windows(), outlets(), how), |(records, outlets, how)| nobody(&records, &outlets, how, &told))
        .unwrap();
    let told = told.into_inner();
    for name in ["n", "sum", "values", "levels"] {
        assert!(told.get(name).copied().unwrap_or(0) >= 20, "too little is added up: {told:?}");
    }
}

#[test]
fn a_sum_of_windows_that_tells_what_one_of_them_withholds_is_found() {
    for bug in ["sums-by-one-plan", "sums-of-all"] {
        let _planted = plant(bug);
        let after = || 0..2 * ALL_WINDOWS;
        let how = (any::<bool>(), after(), after(), after());
        let found = runner(2_000).run(&(windows(), outlets(), how), |(records, outlets, how)| {
            nobody(&records, &outlets, how, &RefCell::default())
        });
        assert!(found.is_err(), "`{bug}` is planted, and nobody noticed");
    }
}

/// How many sums leave of rows that were judged for the first outlet and the second one, by what is asked for the third one.
fn leave(first: &Outlet, second: &Outlet, now: &Outlet) -> usize {
    let mut run = Run::new(false, &[first.clone(), first.clone()]);
    run.window(0, &in_cities([8, 0, 0, 0]));
    run.outlets = to(&[second.clone(), second.clone()]);
    run.window(1, &in_cities([8, 0, 0, 0]));
    let ended = run.longer.ending(&run.counted, None, &mut Addition::default());
    assert_eq!((ended.len(), ended[0].rows(), ended[0].start(&run.counted)), (2, 1, 0));
    let outlets = to(&[now.clone(), now.clone()]);
    let released = |ended| release_longer(&run.gateway, &run.counted, ended, 0, &outlets, policy()).unwrap();
    ended.iter().map(released).map(|released| released.len()).sum()
}

#[test]
fn sums_leave_only_if_as_much_was_asked_of_each_row_as_is_asked_now() {
    let k = |k| outlet("a", k, 2, false);
    assert_eq!([leave(&k(5), &k(5), &k(5)), leave(&k(7), &k(5), &k(5)), leave(&k(7), &k(7), &k(5))], [2; 3]);
    assert_eq!([leave(&k(5), &k(5), &k(7)), leave(&k(5), &k(7), &k(7)), leave(&k(7), &k(5), &k(6))], [0; 3]);
    let parts = |change: fn(&mut PartRule)| {
        let mut outlet = k(5);
        change(&mut outlet.parts);
        outlet
    };
    let stricter: [fn(&mut PartRule); 5] = [
        |parts| parts.least = 3,
        |parts| parts.not_empty = true,
        |parts| parts.percent = 10,
        |parts| parts.beyond_one = true,
        |parts| parts.beside = 500,
    ];
    for change in stricter {
        let stricter = parts(change);
        assert_eq!([leave(&k(5), &stricter, &stricter), leave(&stricter, &k(5), &stricter)], [0; 2]);
        assert_eq!(leave(&stricter, &k(5), &k(5)), 2);
    }
}

#[test]
fn a_sum_goes_only_where_each_of_its_rows_could_go() {
    let to_other = outlet("b", 5, 2, false);
    let both = |run: &mut Run| {
        let other = run.outlets.iter().map(|outlet| Outlet { destination: "b".parse().unwrap(), ..outlet.clone() });
        run.outlets = run.outlets.iter().cloned().chain(other.collect::<Vec<_>>()).collect();
    };
    let mut run = Run::new(false, &[to_other.clone(), outlet("a", 5, 2, false)]);
    run.window(0, &in_cities([8, 0, 0, 0]));
    both(&mut run);
    run.window(1, &in_cities([8, 0, 0, 0]));
    let left = run.ended(None);
    assert_eq!(left.values().map(|released| released.destination().as_str()).collect::<Vec<_>>(), ["a"; 2]);
    // What can go nowhere is not kept.
    run.window(0, &in_cities([8, 0, 0, 0]));
    run.outlets.retain(|outlet| *outlet.destination == *to_other.destination);
    run.outlets.iter_mut().for_each(|outlet| outlet.destination = "c".parse().unwrap());
    run.window(1, &in_cities([8, 0, 0, 0]));
    let ended = run.longer.ending(&run.counted, None, &mut Addition::default());
    assert_eq!(ended.iter().map(Ended::rows).collect::<Vec<_>>(), [0; 2]);
    run.longer = Longer::default();
    // And where it may go now.
    run.outlets = to(&[to_other.clone(), outlet("a", 5, 2, false)]);
    both(&mut run);
    run.window(3, &in_cities([8, 0, 0, 0]));
    run.outlets.retain(|outlet| *outlet.destination == *to_other.destination);
    let left = run.ended(None);
    assert_eq!(left.values().map(|released| released.destination().as_str()).collect::<Vec<_>>(), ["b"; 2]);
}

#[test]
fn a_row_is_written_as_that_of_any_dataset_with_the_least_of_k_and_the_whole_sum_rounded() {
    let mut run = Run::new(false, &[outlet("a", 5, 5, false), outlet("b", 5, 5, false)]);
    let mut members: Vec<Arc<Dataset>> = run.counted.members.iter().map(|member| Arc::clone(&member.dataset)).collect();
    let mut g = Dataset::clone(&members[2]);
    (g.metrics[0].name, g.metrics[0].digits, g.tells_contributors) = ("about".into(), Some(1), true);
    members[2] = Arc::new(g);
    run.counted = Dataset::counted_for(&members).unwrap();
    run.outlets.iter_mut().for_each(|outlet| outlet.tells_contributors = true);
    // 14 and 14 are about 30, and not 10 and 10.
    for window in [3, 4] {
        run.window(window, &in_cities([14, 0, 0, 0]));
    }
    let left = run.ended(Some(6));
    let (h, g) = (&left["h"], &left["g"]);
    assert_ne!(h.id(), g.id());
    assert_eq!((g.window_start(), g.window_end()), (window_start(3, SHORT), window_start(6, SHORT)));
    assert_eq!((g.cells().num_rows(), rows(h.cells())), (1, vec![Row::Cell(0)]));
    let number = |name: &str| g.cells().column_by_name(name).unwrap().as_primitive::<Int64Type>().value(0);
    assert_eq!((number("about"), number(CONTRIBUTORS)), (30, 5));
}
