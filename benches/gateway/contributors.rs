//! What contributors cost: folding records into one window, and that window in a checkpoint, with 2,000 and with
//! 200,000 contributors.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, StringArray};
use bailiwick::config;
use bailiwick::domain::aggregate::{Cells, ContributorKey, Foldable, Rows};
use bailiwick::domain::binary::Writer;
use bailiwick::domain::dataset::Dataset;

use super::records::{Prepared, example};
use super::stages::columns;
use super::{BATCH, figure, median};

const FEW: usize = 2_000;
const MANY: usize = 200_000;
/// Batches in a window: 1,024,000 records, five of each of the many contributors.
const BATCHES: usize = 4_000;
/// How often both take turns.
const TURNS: usize = 5;

/// What one window cost.
struct Cost {
    /// Of all records, nanoseconds each.
    fold: f64,
    /// Of the last tenth of them.
    last: f64,
    /// Writing it for a checkpoint, milliseconds.
    encode: f64,
    /// How many bytes that are.
    written: usize,
    /// Bytes of memory that it counts as.
    held: usize,
}

/// Prints the figures, the many's with their ratio to the few's.
pub(super) fn run(records: &Prepared) {
    let config = config::load(&example().join("gateway.toml")).unwrap().config.unwrap();
    let plan = &config.policy.streams["payments"];
    let (dataset, at) = (&plan.datasets[0], plan.stream.contributor);
    let columns = columns(records);
    let few: Vec<ArrayRef> = people(FEW);
    let many: Vec<ArrayRef> = people(MANY);
    let turns: Vec<[Cost; 2]> =
        (0..TURNS).map(|_| [&few, &many].map(|people| window(dataset, &columns, at, people))).collect();
    for (name, unit, of) in [
        ("fold, a window of", "ns/record", (|cost| cost.fold) as fn(&Cost) -> f64),
        ("fold, the last tenth of it, of", "ns/record", |cost| cost.last),
        ("encode that window, of", "ms", |cost| cost.encode),
        ("bytes of it in a checkpoint, of", "KiB", |cost| cost.written as f64 / 1_024.0),
        ("bytes of it in memory, of", "KiB", |cost| cost.held as f64 / 1_024.0),
    ] {
        let ratio = median(turns.iter().map(|[few, many]| of(many) / of(few)));
        figure(&format!("{name} {FEW} contributors"), median(turns.iter().map(|[few, _]| of(few))), unit, None);
        figure(
            &format!("{name} {MANY} contributors"),
            median(turns.iter().map(|[_, many]| of(many))),
            unit,
            Some(ratio),
        );
    }
}

/// The contributors of the batches of a window, in an order that looks random.
fn people(of: usize) -> Vec<ArrayRef> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("card-{:012}", (state >> 33) as usize % of)
    };
    (0..BATCHES).map(|_| Arc::new(StringArray::from_iter_values((0..BATCH).map(|_| next()))) as ArrayRef).collect()
}

fn window(dataset: &Dataset, columns: &[ArrayRef], at: usize, people: &[ArrayRef]) -> Cost {
    let mut cells = Cells::new(dataset);
    let mut columns = columns.to_vec();
    let mut times = Vec::new();
    for person in people {
        columns[at] = Arc::clone(person);
        let start = Instant::now();
        let contributors = ContributorKey([1; 16]).hash(&columns[at]);
        let foldable = Foldable::new(dataset, &columns, &contributors);
        cells.fold(dataset, &foldable, &Rows::All);
        times.push(start.elapsed());
    }
    let each = |times: &[Duration]| times.iter().sum::<Duration>().as_nanos() as f64 / (times.len() * BATCH) as f64;
    let start = Instant::now();
    let mut writer = Writer::default();
    cells.encode(&mut writer);
    let written = black_box(writer.finish()).len();
    let encode = start.elapsed().as_secs_f64() * 1e3;
    Cost { fold: each(&times), last: each(&times[times.len() * 9 / 10..]), encode, written, held: cells.bytes() }
}
