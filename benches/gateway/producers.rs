//! What producers and open cells cost a checkpoint, what a producer takes in memory, and what a record costs that goes into
//! one of few or of many open cells.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, StringArray};
use bailiwick::domain::aggregate::{Cells, ContributorKey, Foldable, Rows};
use bailiwick::domain::binary::Writer;
use bailiwick::domain::dataset::{Dataset, Function, GroupKey, KeyDomain, Metric, OPEN_MAX};
use bailiwick::domain::outcome::{Outcome, Taken};
use bailiwick::domain::producer::{Came, Number, Producers, RememberedMax};
use bailiwick::domain::watermark::{ActiveMax, Heard, Watermark};

use super::{BATCH, figure, median};

/// How often each is measured.
const TURNS: usize = 7;

/// Prints the figures.
pub(super) fn run() {
    for count in [10_000, 1_000_000] {
        let names: Vec<String> = (0..count).map(|producer| format!("till-{producer:015}")).collect();
        let before = resident();
        let producers = producers(&names);
        let each = (resident() - before) / count as f64;
        figure(&format!("numbered producer in memory, of {count}"), each, "bytes", None);
        encoded(&format!("encode {count} numbered producers"), |writer| producers.encode(writer));
        let mut producers = producers;
        let mut turns = names.iter().cycle().zip(2..);
        let requests = median((0..TURNS).map(|_| {
            let start = Instant::now();
            for (name, lsn) in turns.by_ref().take(10_000) {
                take(&mut producers, name, 1 + lsn / count, lsn);
            }
            start.elapsed().as_nanos() as f64 / 1e4
        }));
        figure(&format!("a numbered request among {count} producers"), requests, "ns", None);
        let before = resident();
        let watermark = watermark(&names);
        let each = (resident() - before) / count as f64;
        figure(&format!("active producer in memory, of {count}"), each, "bytes", None);
        encoded(&format!("encode {count} active producers"), |writer| watermark.encode(writer));
    }
    folded();
    for cells in [1_000, 65_536, 1_000_000] {
        let mut windows = windows(cells);
        saved(&format!("{cells} open cells of 16 contributors"), &mut windows);
        encoded(&format!("encode {cells} open cells of 16 contributors"), |writer| {
            windows.iter().for_each(|window| window.encode(writer));
        });
    }
}

/// Folds batches of records, each of any open cell, into few cells and into many. The ratio is to the fewest.
fn folded() {
    const CELLS: [usize; 3] = [1_000, 65_536, 1_000_000];
    const BATCHES: usize = 2_000;
    let mut state = 7_u64;
    let mut any = move |of: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % of
    };
    let mut fewest = None;
    for cells in CELLS {
        let mut windows = windows(cells);
        let of_one = cells.min(CELLS_OF_ONE);
        let dataset = dataset(of_one);
        let mut turn = || {
            let batches: Vec<[ArrayRef; 2]> = (0..BATCHES)
                .map(|_| {
                    let people = StringArray::from_iter_values((0..BATCH).map(|_| format!("person-{}", any(16))));
                    let keys = StringArray::from_iter_values((0..BATCH).map(|_| any(of_one).to_string()));
                    [Arc::new(people) as ArrayRef, Arc::new(keys)]
                })
                .collect();
            let at: Vec<usize> = batches.iter().map(|_| any(windows.len())).collect();
            let start = Instant::now();
            for (columns, at) in batches.iter().zip(at) {
                let contributors = ContributorKey([1; 16]).hash(&columns[0]);
                windows[at].fold(&dataset, &Foldable::new(&dataset, columns, &contributors), &Rows::All);
            }
            start.elapsed().as_nanos() as f64 / (BATCHES * BATCH) as f64
        };
        let each = median((0..TURNS).map(|_| turn()).collect::<Vec<_>>());
        let fewest = *fewest.get_or_insert(each);
        figure(&format!("fold a record into one of {cells} open cells"), each, "ns", Some(each / fewest));
        let bytes: usize = windows.iter().map(Cells::bytes).sum();
        figure(&format!("an open cell in memory, of {cells}"), bytes as f64 / cells as f64, "bytes", None);
    }
}

/// Writes windows as a worker does while records come in: how long all of it takes, and the longest that a record waits.
fn saved(name: &str, windows: &mut [Cells]) {
    let times = (0..TURNS).map(|_| {
        let (mut all, mut longest) = (Duration::ZERO, Duration::ZERO);
        let mut step = |step: &mut dyn FnMut() -> bool| {
            let start = Instant::now();
            let is_done = step();
            let took = start.elapsed();
            (all, longest) = (all + took, longest.max(took));
            is_done
        };
        step(&mut || {
            windows.iter_mut().for_each(Cells::save);
            true
        });
        for window in &mut *windows {
            while !step(&mut || window.save_some(&mut (64 << 10))) {}
            black_box(window.take_saved());
        }
        (all.as_secs_f64() * 1e3, longest.as_secs_f64() * 1e3)
    });
    let (all, longest): (Vec<_>, Vec<_>) = times.unzip();
    figure(&format!("write {name} in steps"), median(all), "ms", None);
    figure(&format!("write {name} in steps: the longest"), median(longest), "ms", None);
}

fn encoded(name: &str, encode: impl Fn(&mut Writer)) {
    let mut bytes = 0;
    let times = (0..TURNS).map(|_| {
        let start = Instant::now();
        let mut writer = Writer::default();
        encode(&mut writer);
        bytes = black_box(writer.finish()).len();
        start.elapsed().as_secs_f64() * 1e3
    });
    figure(name, median(times.collect::<Vec<_>>()), "ms", None);
    figure(&format!("{name}: bytes"), bytes as f64 / 1024.0, "KiB", None);
}

fn take(producers: &mut Producers, name: &str, sequence: u64, lsn: u64) {
    let taken = Outcome::Taken(Taken { accepted: 256, ..Taken::default() });
    let came = Came { at: Some(1_700_000_000_000_000), from: Some([127, 0, 0, 1].into()), of: None };
    producers.take(name, Number { epoch: 1_700_000_000, sequence }, lsn, Some(&taken), came);
}

fn producers(names: &[String]) -> Producers {
    let mut producers = Producers::new(RememberedMax::default());
    for (name, lsn) in names.iter().zip(1..) {
        take(&mut producers, name, 1, lsn);
    }
    producers
}

fn watermark(names: &[String]) -> Watermark {
    let mut watermark = Watermark::new(Duration::from_secs(30), ActiveMax::default());
    for (name, event_time) in names.iter().zip(1..) {
        let heard = Heard {
            producer: name,
            address: Some([127, 0, 0, 1].into()),
            identity: None,
            event_time: Some(event_time),
        };
        watermark.observe(heard, Duration::ZERO);
    }
    watermark
}

/// The most cells that a window has here.
const CELLS_OF_ONE: usize = 65_536;

/// The words of a key of so many cells; all others are one more.
fn words(cells: usize) -> Vec<String> {
    (0..cells - 1).map(|word| word.to_string()).collect()
}

/// Windows of at most 65,536 cells, each of 16 contributors, without metrics but a count.
fn windows(cells: usize) -> Vec<Cells> {
    let of_one = cells.min(CELLS_OF_ONE);
    let (dataset, words) = (dataset(of_one), words(of_one));
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values(words.iter().map(String::as_str).chain(["other"])));
    let window = |_| {
        let mut window = Cells::new(&dataset);
        for person in 0..16 {
            let people = StringArray::from_iter_values((0..of_one).map(|_| format!("person-{person}")));
            let columns = [Arc::new(people) as ArrayRef, Arc::clone(&keys)];
            let contributors = ContributorKey([1; 16]).hash(&columns[0]);
            let foldable = Foldable::new(&dataset, &columns, &contributors);
            window.fold(&dataset, &foldable, &Rows::All);
        }
        assert_eq!(window.len(), of_one);
        window
    };
    (0..cells.div_ceil(of_one)).map(window).collect()
}

/// One of so many cells, without metrics but a count.
fn dataset(cells: usize) -> Dataset {
    Dataset {
        name: "d".parse().unwrap(),
        stream: "s".parse().unwrap(),
        contributor: "person".into(),
        window: Duration::from_secs(60),
        overlap: Duration::ZERO,
        grace: Duration::ZERO,
        open_max: OPEN_MAX,
        min_contributors: 5,
        bounds: None,
        keeps_all: false,
        max_defer: 0,
        roll_up: Vec::new(),
        only_on_change: false,
        coarser_than: None,
        tells_contributors: false,
        keys: vec![GroupKey { name: "key".into(), column: 1, domain: KeyDomain::text(words(cells)) }],
        metrics: vec![Metric { name: "n".into(), function: Function::Count, digits: None }],
        privacy: None,
        members: Vec::new(),
    }
}

/// Bytes of memory that the process has.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4_096.0
}
