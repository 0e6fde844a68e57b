//! What the rules of release cost: folding the records of a window under each bound, deciding which of its cells may
//! leave, joining a window with one that waits; and what noise costs, per number.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, Float64Array, StringArray};
use bailiwick::config;
use bailiwick::domain::aggregate::{Cells, ContributorKey, Foldable, Lot, PartRule, Producer, Request, Rows};
use bailiwick::domain::dataset::{Bounds, Dataset, Function, Measure, Metric, Source};
use bailiwick::domain::policy::{ClosedWindow, Digest, Outlet, release};
use bailiwick::domain::privacy::{Mechanism, Noise as _, Sensitivity, Spread};
use bailiwick::domain::producer::Number;
use bailiwick::domain::rounding::Rounding;
use bailiwick::domain::stream::ValueRange;
use bailiwick::engine::noise::OpenDp;

use super::records::{Prepared, example};
use super::stages::columns;
use super::{BATCH, figure, median, per_record};

/// Batches in a window: 512,000 records.
const BATCHES: usize = 2_000;
const PEOPLE: usize = 20_000;
/// How often all take turns.
const TURNS: usize = 5;
/// Numbers that get noise at once.
const NUMBERS: usize = 1_000;

/// The batches of a window: who each record is about, who brought it, and its lot.
struct Batch {
    columns: Vec<ArrayRef>,
    contributors: ArrayRef,
    producers: Vec<Producer>,
    lots: Vec<Lot>,
}

/// What a window costs.
struct Cost {
    /// A record, in nanoseconds.
    fold: f64,
    /// The window, in milliseconds, when it closes.
    release: f64,
    /// The window, in milliseconds, joined with one that waits; each has a tenth of the records.
    join: f64,
}

/// Prints the figures, those of each rule with their ratio to a window without.
pub(super) fn run(records: &Prepared) {
    let config = config::load(&example().join("gateway.toml")).unwrap().config.unwrap();
    let plan = &config.policy.streams["payments"];
    let plain = Dataset { bounds: None, keeps_all: false, ..Dataset::clone(&plan.datasets[0]) };
    let outlets = config.policy.outlets(&plain.name, &config.here.serves, config::today());
    assert!(!outlets.is_empty(), "the example lets its cells go somewhere");
    let batches = batches(records, plan.stream.contributor);
    let bounds = |cells_per_window| Some(Bounds { records_per_cell: 4, cells_per_window });
    let rules = [
        ("no further rule", plain.clone()),
        ("a largest share of one producer", Dataset { keeps_all: true, ..plain.clone() }),
        ("4 records of a contributor in a cell", Dataset { bounds: bounds(None), ..plain.clone() }),
        ("and that in 3 cells", Dataset { bounds: bounds(Some(3)), ..plain.clone() }),
    ];
    let turns: Vec<Vec<Cost>> =
        (0..TURNS).map(|_| rules.iter().map(|(_, dataset)| window(dataset, &batches, &outlets)).collect()).collect();
    for (name, unit, of) in [
        ("fold", "ns/record", (|cost| cost.fold) as fn(&Cost) -> f64),
        ("close and release", "ms/window", |cost| cost.release),
        ("join with what waits", "ms/window", |cost| cost.join),
    ] {
        for (at, (rule, _)) in rules.iter().enumerate() {
            let ratio = median(turns.iter().map(|turn| of(&turn[at]) / of(&turn[0])));
            figure(
                &format!("{name}, {rule}"),
                median(turns.iter().map(|turn| of(&turn[at]))),
                unit,
                (at > 0).then_some(ratio),
            );
        }
    }
    sums(&plain);
    for mechanism in [Mechanism::DiscreteGaussian, Mechanism::DiscreteLaplace] {
        let spread = Spread { mechanism, sensitivity: Sensitivity { each: 4, cells: 3 }, rho: 0.01 };
        let added = per_record(NUMBERS, || drop(black_box(OpenDp.added(vec![40; NUMBERS], &spread).unwrap())));
        figure(&format!("noise, {}", mechanism.name()), added, "ns/number", None);
    }
}

/// Prints what a cell costs when it closes, by how many contributors it has and how many fields are summed: with the rules of
/// sums, and its ratio to one without them. Each contributor has one record, with values of its own.
fn sums(plain: &Dataset) {
    for (people, fields) in [(20, 1), (20, 3), (200, 1), (200, 3), (200, 8), (2_000, 3)] {
        let dataset = summed(plain, fields);
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 12) as f64 / (1_u64 << 52) as f64
        };
        let names: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..people).map(|person| format!("card-{person:012}"))));
        let mut columns = vec![Arc::clone(&names)];
        columns.extend(
            (0..fields).map(|_| -> ArrayRef { Arc::new((0..people).map(|_| Some(next())).collect::<Float64Array>()) }),
        );
        let contributors = ContributorKey([1; 16]).hash(&names);
        let mut cells = Cells::new(&dataset);
        cells.fold(&dataset, &Foldable::new(&dataset, &columns, &contributors), &Rows::All);
        let gateway = "eu".parse().unwrap();
        let closed = ClosedWindow { gateway: &gateway, dataset: &dataset, window: 0, part: 0, cells, deferral: None };
        let cost = |percent| {
            let parts = PartRule { least: 10, not_empty: false, percent, beyond_one: false, beside: 0 };
            let outlet = Outlet {
                destination: "desk".parse().unwrap(),
                dataset: dataset.name.clone(),
                min_contributors: 10,
                parts,
                privacy: None,
                by_override: None,
                tells_contributors: false,
                rounding: Rounding::NONE,
            };
            let outlets = [outlet];
            per_record(1, || drop(black_box(release(&closed, &outlets, Digest::from_bytes([5; 32])).unwrap()))) / 1e3
        };
        let (with, without) = (cost(10), cost(0));
        let name = format!("close a cell of {people} contributors, {fields} summed");
        figure(&name, with, "us/cell", Some(with / without));
    }
}

/// A dataset of one cell that sums so many fields from 0 to 1.
fn summed(plain: &Dataset, fields: usize) -> Dataset {
    let sum = |field: usize| {
        let source = Source { column: field, field: format!("v{field}"), may_be_missing: false };
        let function = Function::Sum(Measure { source, range: ValueRange { low: 0.0, high: 1.0 } });
        Metric { name: format!("sum_{field}"), function, digits: None }
    };
    Dataset { keys: Vec::new(), metrics: (1..=fields).map(sum).collect(), ..plain.clone() }
}

fn batches(records: &Prepared, contributor: usize) -> Vec<Batch> {
    let key = ContributorKey([1; 16]);
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("card-{:012}", (state >> 33) as usize % PEOPLE)
    };
    let shared = columns(records);
    (0..BATCHES as u64)
        .map(|at| {
            let mut columns = shared.clone();
            let contributors: ArrayRef = Arc::new(StringArray::from_iter_values((0..BATCH).map(|_| next())));
            columns[contributor] = Arc::clone(&contributors);
            let number = Number { epoch: 1, sequence: at };
            let request = Request::Numbered { series: "producer", number };
            Batch {
                columns,
                contributors,
                producers: vec![key.producer("producer"); BATCH],
                lots: key.lots(request).take(BATCH).collect(),
            }
        })
        .collect()
}

fn window(dataset: &Dataset, batches: &[Batch], outlets: &[Outlet]) -> Cost {
    let fold = |batches: &[Batch]| {
        let mut cells = Cells::new(dataset);
        for Batch { columns, contributors, producers, lots } in batches {
            let contributors = ContributorKey([1; 16]).hash(contributors);
            let foldable = Foldable::new(dataset, columns, &contributors).brought_by(producers).drawn_by(lots);
            cells.fold(dataset, &foldable, &Rows::All);
        }
        cells
    };
    let start = Instant::now();
    let cells = fold(batches);
    let folded = start.elapsed();
    let (one, other) = (fold(&batches[..BATCHES / 10]), fold(&batches[BATCHES / 10..BATCHES / 5]));
    let (mut one, other) = (one.bounded(dataset), other.bounded(dataset));
    let start = Instant::now();
    one.merge(other);
    let join = start.elapsed().as_secs_f64() * 1e3;
    drop(one);
    let start = Instant::now();
    let cells = cells.bounded(dataset);
    let gateway = "eu".parse().unwrap();
    let closed = ClosedWindow { gateway: &gateway, dataset, window: 0, part: 0, cells, deferral: None };
    black_box(release(&closed, outlets, Digest::from_bytes([5; 32])).unwrap().cells_released);
    Cost {
        fold: folded.as_nanos() as f64 / (BATCHES * BATCH) as f64,
        release: start.elapsed().as_secs_f64() * 1e3,
        join,
    }
}
