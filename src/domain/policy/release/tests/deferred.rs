//! Cells that wait: random runs of a gateway with late records, crashes before and after the outbox, checkpoints, other
//! policies, flushes. All that leaves of a run to all destinations is pooled, before the same exact search.
//!
//! What a row must be of is worked out from what was sent, when windows closed, and how many windows the row says that it
//! covers: nothing of the code that defers is asked.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use proptest::prelude::*;
use proptest::test_runner::TestError;

use super::nobody::{Record, columns, dataset, least, outlets, pool_cells, pool_of, records, runner};
use super::*;
use crate::domain::binary::{Reader, Writer};
use crate::domain::deferral::{Decided, Dropped, Gone, Joined};
use crate::planted::for_tests::plant;

/// What happens to a gateway.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// The next so many records come, for the oldest open window (late ones are of it, too) or the one after it.
    Records(usize, i64),
    /// So many windows close.
    Close(i64),
    /// The same, and it crashes before the outbox has what is released.
    CloseAndCrash(i64),
    /// It crashes.
    Crash,
    /// It writes a checkpoint.
    Checkpoint,
    /// Another version of the policies is put in force.
    Reload,
    /// The open windows are released as they are.
    Flush,
    /// It starts again, and cells wait for so many windows.
    Restart(u64),
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let records = || (1..6_usize, 0..2_i64).prop_map(|(records, ahead)| Step::Records(records, ahead));
    let step = prop_oneof![
        6 => records(),
        6 => (1..3_i64).prop_map(Step::Close),
        1 => (1..3_i64).prop_map(Step::CloseAndCrash),
        2 => Just(Step::Crash),
        2 => Just(Step::Checkpoint),
        1 => (0..20_u8).prop_map(|one| match one {
            0..4 => Step::Reload,
            4..7 => Step::Flush,
            _ => Step::Close(1),
        }),
    ];
    prop::collection::vec(step, 10..50)
}

/// What the journal holds.
#[derive(Debug, Clone)]
enum Entry {
    Records {
        records: Vec<usize>,
        window: i64,
        policy: Digest,
    },
    /// Windows before this one are closed. `None`: all are released as they are.
    Closed {
        before: Option<i64>,
    },
}

/// Records of the windows that are open, by the policies that they were decided under.
type Open = BTreeMap<i64, Vec<(usize, Digest)>>;

/// The window that each record counts in, and the position that closed it.
type Counted = BTreeMap<usize, (i64, usize)>;

/// A gateway, with what it has on disk.
pub(super) struct Model<'m> {
    dataset: Dataset,
    columns: fn(&[Record]) -> Vec<ArrayRef>,
    records: &'m [Record],
    outlets: &'m [Outlet],
    journal: Vec<Entry>,
    /// What was released and decided at a position of the journal.
    pub(super) outbox: BTreeMap<usize, (Vec<Released>, Vec<Decided>)>,
    /// The same of closings that the outbox has nothing of until the next one that something leaves with.
    quiet: BTreeMap<usize, (Vec<Released>, Vec<Decided>)>,
    /// What was decided last at a position, for whoever looks on.
    pub(super) decided: BTreeMap<usize, Vec<Decided>>,
    /// The position, the first open window, the open windows, what waited.
    checkpoint: (usize, i64, Open, Vec<u8>),
    in_force: Digest,
    /// For how many windows cells waited under each version of the policies.
    max_defer: BTreeMap<Digest, u64>,
    /// How many cells of a window left, or were told as withheld, with what the outbox has of a position.
    settled: BTreeMap<usize, usize>,
    first: i64,
    open: Open,
    deferral: Deferral,
}

impl<'m> Model<'m> {
    fn new(records: &'m [Record], outlets: &'m [Outlet], max_defer: u64) -> Self {
        Self::of(Dataset { max_defer, ..dataset() }, columns, records, outlets)
    }

    /// Of a dataset that counts these columns of the records.
    pub(super) fn of(
        dataset: Dataset,
        columns: fn(&[Record]) -> Vec<ArrayRef>,
        records: &'m [Record],
        outlets: &'m [Outlet],
    ) -> Self {
        let max_defer = dataset.max_defer;
        let in_force = Digest::from_bytes([1; 32]);
        let mut model = Self {
            dataset,
            columns,
            max_defer: [(in_force, max_defer)].into(),
            settled: BTreeMap::new(),
            records,
            outlets,
            journal: Vec::new(),
            outbox: BTreeMap::new(),
            quiet: BTreeMap::new(),
            decided: BTreeMap::new(),
            checkpoint: (0, 0, Open::new(), Vec::new()),
            in_force,
            first: 0,
            open: Open::new(),
            deferral: Deferral::new(max_defer, i64::MIN),
        };
        model.write_checkpoint();
        model
    }

    fn write_checkpoint(&mut self) {
        let mut writer = Writer::default();
        self.deferral.encode(&mut writer);
        self.checkpoint = (self.journal.len(), self.first, self.open.clone(), writer.finish());
    }

    fn take(&mut self, entry: Entry) {
        self.journal.push(entry);
        self.apply(self.journal.len() - 1, true);
    }

    /// Counts or closes what stands at a position of the journal. What it releases may be lost on the way to the outbox.
    fn apply(&mut self, position: usize, reaches_outbox: bool) {
        match self.journal[position].clone() {
            Entry::Records { records, window, policy } => {
                if !records.is_empty() {
                    self.open.entry(window).or_default().extend(records.into_iter().map(|record| (record, policy)));
                }
            }
            Entry::Closed { before } => {
                let still_open = before.map_or_else(Open::new, |before| self.open.split_off(&before));
                let closed = std::mem::replace(&mut self.open, still_open);
                let last = closed.keys().next_back().copied();
                let known = self.outbox.get(&position).cloned();
                let (mut put_out, mut settled) = ((Vec::new(), Vec::new()), 0);
                for (window, records) in closed {
                    match &known {
                        Some((_, decided)) => {
                            let cells = self.cells(&records);
                            let decided = decided.iter().find(|decided| decided.window == window);
                            let max = decided.and_then(|decided| self.max_defer.get(&decided.under?)).copied();
                            self.deferral.again(window, cells, decided, max);
                        }
                        None => settled += self.close(window, position as u64, &records, &mut put_out),
                    }
                }
                let dropped = match before {
                    Some(before) => {
                        self.first = before;
                        self.deferral.closed_before(before)
                    }
                    None => self.deferral.flushed(last),
                };
                if known.is_none() && reaches_outbox {
                    // Of a closing of which nothing leaves there is no entry until the next one.
                    let leaves = |decided: &Decided| !decided.left.is_empty() || !decided.rolled_up.is_empty();
                    let is_quiet = put_out.0.is_empty() && !put_out.1.iter().any(leaves);
                    self.decided.insert(position, put_out.1.clone());
                    self.quiet.insert(position, put_out);
                    if !is_quiet {
                        self.outbox.append(&mut self.quiet);
                    }
                    self.settled.insert(position, settled + cells_of(&dropped));
                }
            }
        }
    }

    fn cells(&self, records: &[(usize, Digest)]) -> Cells {
        let chosen: Vec<Record> = records.iter().map(|(record, _)| self.records[*record].clone()).collect();
        let columns = (self.columns)(&chosen);
        let contributors = ContributorKey([7; 16]).hash(&columns[0]);
        let mut cells = Cells::new(&self.dataset);
        cells.fold(&self.dataset, &Foldable::new(&self.dataset, &columns, &contributors), &Rows::All);
        records.iter().for_each(|(_, policy)| cells.decided_under(*policy));
        cells
    }

    /// How many cells, of a window each, left or wait no more.
    fn close(
        &mut self,
        window: i64,
        part: u64,
        records: &[(usize, Digest)],
        (releases, decided): &mut (Vec<Released>, Vec<Decided>),
    ) -> usize {
        let cells = self.cells(records);
        let all = self.deferral.waiting() + cells.len();
        let under = Some(self.in_force).filter(|in_force| cells.policies().iter().all(|policy| policy == in_force));
        self.deferral.as_declared();
        self.deferral.close(window, under);
        let Joined { cells, own } = self.deferral.join(window, cells);
        let (gateway, deferral) = ("eu".parse().unwrap(), Some(&self.deferral));
        let closed = ClosedWindow { gateway: &gateway, dataset: &self.dataset, window, part, cells, deferral };
        let outcome = release(&closed, self.outlets, self.in_force).unwrap();
        let cells = closed.cells;
        self.deferral.settle(
            window,
            &Joined { cells, own },
            Gone { left: &outcome.left, rolled_up: &outcome.rolled_up },
        );
        releases.extend(outcome.released);
        decided.push(Decided { window, under, left: outcome.left, rolled_up: outcome.rolled_up });
        all - self.deferral.waiting()
    }

    fn put_in_force(&mut self, version: u8, max_defer: u64) {
        self.in_force = Digest::from_bytes([version; 32]);
        self.max_defer.insert(self.in_force, max_defer);
        self.dataset.max_defer = max_defer;
    }

    /// Begins again from the checkpoint, and reads the journal after it.
    fn crash(&mut self) {
        let (position, first, open, deferred) = self.checkpoint.clone();
        self.quiet.clear();
        (self.first, self.open) = (first, open);
        self.deferral = Deferral::decode(&self.dataset, &mut Reader::new(&deferred)).unwrap();
        (position..self.journal.len()).for_each(|position| self.apply(position, true));
    }

    pub(super) fn run(&mut self, steps: &[Step]) {
        let mut sent = 0..self.records.len();
        let mut reloads = 1;
        for step in steps {
            match *step {
                Step::Records(count, ahead) => {
                    let records: Vec<usize> = sent.by_ref().take(count).collect();
                    if !records.is_empty() {
                        self.take(Entry::Records { records, window: self.first + ahead, policy: self.in_force });
                    }
                }
                Step::Close(windows) => self.take(Entry::Closed { before: Some(self.first + windows) }),
                Step::CloseAndCrash(windows) => {
                    self.journal.push(Entry::Closed { before: Some(self.first + windows) });
                    self.apply(self.journal.len() - 1, false);
                    self.crash();
                }
                Step::Crash => self.crash(),
                Step::Checkpoint => self.write_checkpoint(),
                Step::Reload => {
                    reloads += 1;
                    self.put_in_force(reloads, self.dataset.max_defer);
                }
                Step::Restart(max_defer) => {
                    reloads += 1;
                    self.put_in_force(reloads, max_defer);
                    self.crash();
                }
                Step::Flush => self.take(Entry::Closed { before: None }),
            }
        }
        self.take(Entry::Closed { before: Some(self.first + 3) });
    }

    /// In which window each record counts, and at which position it was closed or flushed; and where there were flushes, each
    /// with the first window that nothing was released of.
    pub(super) fn counted(&self) -> (Counted, Vec<(usize, i64)>) {
        let (mut open, mut counted, mut flushes) = (BTreeMap::<usize, i64>::new(), BTreeMap::new(), Vec::new());
        let mut first = 0;
        for (position, entry) in self.journal.iter().enumerate() {
            match entry {
                Entry::Records { records, window, .. } => open.extend(records.iter().map(|record| (*record, *window))),
                Entry::Closed { before } => {
                    first = before.unwrap_or(first);
                    let untouched = open.values().map(|window| window + 1).fold(first, i64::max);
                    flushes.extend(before.is_none().then_some((position, untouched)));
                    let closes = |window: i64| before.is_none_or(|before| window < before);
                    counted.extend(
                        open.extract_if(.., |_, window| closes(*window))
                            .map(|(record, window)| (record, (window, position))),
                    );
                }
            }
        }
        (counted, flushes)
    }
}

fn cells_of(dropped: &[Dropped]) -> usize {
    dropped.iter().map(|dropped| dropped.cells.len()).sum()
}

/// How much of a run shows anything.
#[derive(Debug, Default)]
struct Shown {
    rows: usize,
    /// Rows with records of several windows.
    of_several: usize,
    /// Rows that say that they cover more windows than they have records of.
    of_empty: usize,
}

/// Nobody is singled out by all that left of a run, and each row is of what it says.
fn nobody(model: &Model<'_>, shown: &RefCell<Shown>) -> Result<(), TestCaseError> {
    let (counted, flushes) = model.counted();
    let mut pool = pool_of(model.records);
    let mut left_with: BTreeMap<usize, (usize, i64)> = BTreeMap::new();
    // Each window as it closed, with the policies that it may wait under.
    let closed_under: Vec<(i64, usize, Option<Digest>)> = model
        .decided
        .iter()
        .flat_map(|(position, decided)| decided.iter().map(move |one| (one.window, *position, one.under)))
        .collect();
    let waits_for = |own: (i64, usize), other: (i64, usize)| {
        let place = |closed| closed_under.iter().position(|(window, position, _)| (*window, *position) == closed);
        let (Some(from), Some(to)) = (place(own), place(other)) else { return false };
        let under = closed_under[from].2;
        from < to && under.is_some() && closed_under[from..=to].iter().all(|(.., of)| *of == under)
    };
    for (position, (releases, _)) in &model.outbox {
        for released in releases {
            let window = released.window_start().div_euclid(micros(model.dataset.window));
            let cells = released.cells();
            let windows = cells.column_by_name("windows").unwrap().as_primitive::<Int64Type>();
            let is_of = |row: usize, record: usize| {
                let Some((own, closed)) = counted.get(&record) else { return false };
                let was_flushed = flushes.iter().any(|(flush, _)| closed <= flush && flush < position);
                // What comes of a window later than some of it was flushed does not wait.
                let may_wait = flushes.iter().all(|(flush, untouched)| flush >= closed || own >= untouched);
                let is_joined = (*own, *closed) == (window, *position)
                    || may_wait && waits_for((*own, *closed), (window, *position));
                (window - windows.value(row) + 1..=window).contains(own) && is_joined && !was_flushed
            };
            pool_cells(&mut pool, model.records, cells, &is_of, &|_| true)?;
            for row in 0..cells.num_rows() {
                let group =
                    usize::from(cells.column_by_name("group").unwrap().as_string::<i32>().value(row) == "other");
                let of_row = (0..model.records.len()).filter(|record| is_of(row, *record));
                let of_row: Vec<usize> = of_row.filter(|record| model.records[*record].group == group).collect();
                for record in &of_row {
                    let before = *left_with.entry(*record).or_insert((*position, window));
                    prop_assert_eq!(before, (*position, window), "a record left twice");
                }
                let of: BTreeSet<i64> = of_row.iter().map(|record| counted[record].0).collect();
                let mut shown = shown.borrow_mut();
                shown.rows += 1;
                shown.of_several += usize::from(of.len() > 1);
                shown.of_empty += usize::from((of.len() as i64) < windows.value(row));
            }
        }
    }
    let found = pool.singled_out(least(model.outlets));
    prop_assert!(found.is_none(), "{:?} can be worked out", found);
    Ok(())
}

/// Records, outlets, for how many windows cells wait, and what happens.
type Run = (Vec<Record>, Vec<Outlet>, u64, Vec<Step>);

fn runs() -> impl Strategy<Value = Run> {
    (records(), outlets(), 1..4_u64, steps())
}

#[test]
fn nothing_that_leaves_of_a_run_singles_out_fewer_than_k() {
    let shown = RefCell::new(Shown::default());
    runner(600)
        .run(&runs(), |(records, outlets, max_defer, steps)| {
            let mut model = Model::new(&records, &outlets, max_defer);
            model.run(&steps);
            nobody(&model, &shown)
        })
        .unwrap();
    let shown = shown.into_inner();
    assert!(shown.rows > 600 && shown.of_several > 100 && shown.of_empty > 100, "too little leaves: {shown:?}");
}

/// A gateway starts again and again with another number of windows that cells wait for, from a checkpoint of before or of
/// after. Nobody is singled out, and each cell that closed left once or was told once.
#[test]
fn another_number_of_windows_forgets_no_cell_and_tells_none_twice() {
    let restarts = || {
        let step =
            prop_oneof![2 => (1..4_u64).prop_map(Step::Restart), 1 => Just(Step::Checkpoint), 1 => Just(Step::Crash)];
        prop::collection::vec((step, 0..50_usize), 1..6)
    };
    let shown = RefCell::new(Shown::default());
    runner(600)
        .run(&(runs(), restarts()), |((records, outlets, max_defer, mut steps), restarts)| {
            for (step, at) in restarts {
                steps.insert(at.min(steps.len()), step);
            }
            let mut model = Model::new(&records, &outlets, max_defer);
            model.run(&steps);
            model.take(Entry::Closed { before: None });
            nobody(&model, &shown)?;
            let (counted, _) = model.counted();
            let cells = counted.iter().map(|(record, closed)| (closed, model.records[*record].group));
            prop_assert_eq!(model.settled.values().sum::<usize>(), cells.collect::<BTreeSet<_>>().len());
            Ok(())
        })
        .unwrap();
    let shown = shown.into_inner();
    assert!(shown.rows > 600 && shown.of_several > 50, "too little leaves: {shown:?}");
}

#[test]
fn each_bug_in_what_waits_is_found() {
    for bug in ["deferred-also-alone", "deferred-twice-after-restart", "deferred-covers-one", "deferred-forgets-left"] {
        let _planted = plant(bug);
        let found = runner(2_000).run(&runs(), |(records, outlets, max_defer, steps)| {
            let mut model = Model::new(&records, &outlets, max_defer);
            model.run(&steps);
            nobody(&model, &RefCell::default())
        });
        assert!(found.is_err(), "`{bug}` is planted, and nobody noticed");
    }
}

/// All that left, as bytes.
fn left(model: &Model<'_>) -> Vec<(usize, String, RecordBatch)> {
    let releases =
        model.outbox.iter().flat_map(|(position, (releases, _))| releases.iter().map(move |one| (*position, one)));
    releases.map(|(position, one)| (position, one.destination().to_string(), one.cells().clone())).collect()
}

/// Suppressed and empty look alike, also in what later cells say that they cover: without the records that never left, the
/// very same leaves. A run without crashes gives the same as one with crashes.
fn no_trace() -> Result<usize, TestError<Run>> {
    let is_same_policy = |step: &Step| !matches!(step, Step::Reload | Step::Flush);
    let shown = RefCell::new(0);
    runner(300)
        .run(&runs(), |(records, outlets, max_defer, steps)| {
            let steps: Vec<Step> = steps.into_iter().filter(is_same_policy).collect();
            let mut model = Model::new(&records, &outlets, max_defer);
            model.run(&steps);
            let (counted, _) = model.counted();
            let gone: BTreeSet<usize> = gone(&model, &counted);
            let mut without = Model::new(&records, &outlets, max_defer);
            for entry in &model.journal {
                without.take(match entry {
                    Entry::Records { records, window, policy } => {
                        let records = records.iter().copied().filter(|record| gone.contains(record)).collect();
                        Entry::Records { records, window: *window, policy: *policy }
                    }
                    closed @ Entry::Closed { .. } => closed.clone(),
                });
            }
            prop_assert_eq!(left(&model), left(&without));
            *shown.borrow_mut() += usize::from(!gone.is_empty() && gone.len() < counted.len());
            Ok(())
        })
        .map(|()| shown.into_inner())
}

#[test]
fn what_never_left_and_crashes_leave_no_trace() {
    assert!(no_trace().unwrap() > 100);
    let _planted = plant("deferred-tells-of-empty");
    assert!(no_trace().is_err());
}

/// The records that left.
fn gone(model: &Model<'_>, counted: &Counted) -> BTreeSet<usize> {
    let mut gone = BTreeSet::new();
    for (position, (releases, _)) in &model.outbox {
        for released in releases {
            let window = released.window_start().div_euclid(micros(model.dataset.window));
            let windows = released.cells().column_by_name("windows").unwrap().as_primitive::<Int64Type>().clone();
            let groups = released.cells().column_by_name("group").unwrap().as_string::<i32>().clone();
            for row in 0..windows.len() {
                let group = usize::from(groups.value(row) == "other");
                let of_row = counted.iter().filter(|(record, (own, closed))| {
                    let is_in = (window - windows.value(row) + 1..=window).contains(own);
                    is_in && closed <= position && model.records[**record].group == group
                });
                gone.extend(of_row.map(|(record, _)| *record));
            }
        }
    }
    gone
}
