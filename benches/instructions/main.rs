//! The way of a batch from its payloads to the cells, for `scripts/instructions.py`, which counts the instructions that it
//! takes. An argument says how many records the batch has. The model's run is in it; the script leaves it out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark may panic")]

#[path = "../gateway/records.rs"]
#[allow(dead_code, reason = "CloudEvents would outweigh the rest")]
mod records;

use std::borrow::Cow;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::{DataType, Field};
use bailiwick::config::{self, today};
use bailiwick::decode::arrow::Layout;
use bailiwick::decode::{Limits, Opened, Payload, Together};
use bailiwick::domain::aggregate::{Cells, ContributorKey, Foldable, Rows};
use bailiwick::domain::counting::NotCounted;
use bailiwick::domain::dataset::Dataset;
use bailiwick::domain::event_time::TimeBounds;
use bailiwick::domain::evidence::{Knowledge, Sender};
use bailiwick::domain::outcome::{Outcome, Taken};
use bailiwick::domain::policy::Version;
use bailiwick::domain::producer::Number;
use bailiwick::domain::stream::Stream;
use bailiwick::durable::entry::{BatchWriter, Sent};
use bailiwick::scoring::{Runtime, Scorer, Watch};

/// The gateway's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often the way is gone: what happens only once should not weigh.
const TIMES: usize = 64;

struct Way {
    stream: Arc<Stream>,
    layout: Layout,
    version: Version,
    scorer: Scorer,
    writer: BatchWriter,
    dataset: Arc<Dataset>,
    cells: Cells,
}

fn main() {
    let argument = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let records: usize = argument.expect("the number of records of a batch");
    let prepared = records::Prepared::load(records);
    let config = config::load(&records::example().join("gateway.toml")).unwrap().config.unwrap();
    let plan = &config.policy.streams["payments"];
    let model = plan.model.as_ref().unwrap();
    let watch = Watch::start(Duration::from_secs(600)).unwrap();
    let path = records::example().join("model.onnx");
    let outputs: Vec<Field> =
        model.outputs.iter().map(|output| Field::new(&output.field, DataType::Float32, true)).collect();
    let mut way = Way {
        stream: Arc::clone(&plan.stream),
        layout: Layout::default(),
        version: Version::compile(Arc::clone(&config.policy), Arc::clone(&config.here), Knowledge::default(), today()),
        scorer: Runtime::load(None).unwrap().scorer(model, &path, &watch, 1_024).unwrap(),
        writer: BatchWriter::new(&plan.stream, outputs, Arc::default()),
        dataset: Arc::clone(&plan.datasets[0]),
        cells: Cells::new(&plan.datasets[0]),
    };
    for round in 0..TIMES {
        let (rows, arrow) = (round % prepared.rows.len(), round % prepared.arrow.len());
        the_way_of_a_batch(&mut way, [Payload::Rows(prepared.rows[rows].clone())]);
        the_way_of_a_batch(&mut way, [Payload::ArrowIpc(prepared.arrow[arrow].clone())]);
    }
}

/// What is counted.
#[inline(never)]
fn the_way_of_a_batch<const N: usize>(way: &mut Way, payloads: [Payload; N]) {
    let limits = Limits { rows_max: 65_536, bytes_max: 64 << 20 };
    let opened = payloads.map(|payload| Opened::new(&mut way.layout, &way.stream, payload, limits).ok().unwrap());
    let Together { mut candidate, shares } = Together::decode(&way.stream, &opened);
    candidate.check(&TimeBounds::ANY);
    let resident = way.version.decide(candidate, Sender::default(), &mut NotCounted).unwrap().resident.unwrap();
    let scores = way.scorer.score(&[&resident]).unwrap().outputs;
    let sent = shares.iter().enumerate().map(|(position, share)| {
        let rows = share.as_ref().unwrap().rows as u32;
        let outcome = Some(Cow::Owned(Outcome::Taken(Taken { accepted: rows, ..Taken::default() })));
        let number = Some(Number { epoch: 1, sequence: position as u64 + 1 });
        Sent { producer: "till-7", number, rows, newest: Some(0), outcome }
    });
    let sent: Vec<Sent<'_>> = sent.collect();
    black_box(way.writer.encode(&resident, &scores, &sent, 0).unwrap());
    let mut columns = resident.batch().columns().to_vec();
    columns.extend(scores);
    let contributors = ContributorKey([1; 16]).hash(&columns[way.stream.contributor]);
    let foldable = Foldable::new(&way.dataset, &columns, &contributors);
    way.cells.fold(&way.dataset, &foldable, &Rows::All);
}
