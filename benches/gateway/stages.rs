//! Each stage alone, on one thread.

use std::borrow::Cow;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, Float32Array};
use arrow_schema::{DataType, Field};
use bailiwick::config::{self, today};
use bailiwick::decode::{self, Decoded, Payload};
use bailiwick::domain::aggregate::{Cells, ContributorKey, Foldable, PartRule, Rows};
use bailiwick::domain::counting::NotCounted;
use bailiwick::domain::event_time::TimeBounds;
use bailiwick::domain::evidence::{Knowledge, Sender};
use bailiwick::domain::outcome::{Outcome, Taken};
use bailiwick::domain::policy::{ClosedWindow, Outlet, Resident, Version, release};
use bailiwick::domain::producer::Number;
use bailiwick::domain::rounding::Rounding;
use bailiwick::durable::entry::{BatchWriter, Sent};
use bailiwick::durable::seal::{KEY_BYTES, Key, Keys};
use bailiwick::scoring::{Runtime, Watch};
use ort::memory::Allocator;
use ort::session::{OutputSelector, RunOptions, Session};
use ort::value::{Tensor, TensorRef};
use zeroize::Zeroizing;

use super::records::{Prepared, example};
use super::{BATCH, figure, median, per_record};

/// What the model takes.
const FEATURES: usize = 30;

const ANY_TIME: TimeBounds = TimeBounds::ANY;

/// What the other parts of the benchmark need of the stages.
pub(super) struct Staged {
    /// The bare model's nanoseconds per record.
    pub(super) bare_score: f64,
    /// The entry of the journal for one batch.
    pub(super) entry: Vec<u8>,
}

/// Runs the stages.
pub(super) fn run(records: &Prepared) -> Staged {
    let config = config::load(&example().join("gateway.toml")).unwrap().config.unwrap();
    let plan = &config.policy.streams["payments"];
    let stream = &plan.stream;
    let mut layout = decode::arrow::Layout::default();
    let arrow = || Payload::ArrowIpc(records.arrow[0].clone());
    let limits = decode::Limits { rows_max: BATCH, bytes_max: 64 << 20 };
    let mut decode = |payload: Payload| {
        let opened = decode::Opened::new(&mut layout, stream, payload, limits);
        opened.and_then(|opened| opened.decode()).ok().unwrap()
    };
    figure("decode arrow", per_record(BATCH, || drop(black_box(decode(arrow())))), "ns/record", None);
    let rows = || Payload::Rows(records.rows[0].clone());
    figure("decode protobuf rows", per_record(BATCH, || drop(black_box(decode(rows())))), "ns/record", None);
    let events = || Payload::CloudEvents(records.events[0].clone());
    figure("decode cloudevents json", per_record(BATCH, || drop(black_box(decode(events())))), "ns/record", None);
    let mut decode_arrow = || decode(arrow());

    let (policy, here) = (Arc::clone(&config.policy), Arc::clone(&config.here));
    let version = Version::compile(policy, here, Knowledge::default(), today());
    let decided = |decoded: Decoded| -> Resident {
        let mut candidate = decoded.candidate;
        candidate.check(&ANY_TIME);
        version.decide(candidate, Sender::default(), &mut NotCounted).unwrap().resident.unwrap()
    };
    let both = per_record(BATCH, || drop(black_box(decided(decode_arrow()))));
    let alone = per_record(BATCH, || drop(black_box(decode_arrow())));
    figure("check, locate and decide", both - alone, "ns/record", None);

    let resident = decided(decode_arrow());
    let model = plan.model.as_ref().unwrap();
    let path = example().join("model.onnx");
    let watch = Watch::start(Duration::from_secs(5)).unwrap();
    let mut scorer = Runtime::load(None).unwrap().scorer(model, &path, &watch, 1_024).unwrap();
    let bare = score_beside_bare(&path, || drop(black_box(scorer.score(&[&resident]).unwrap())));

    let outputs: Vec<Field> =
        model.outputs.iter().map(|output| Field::new(&output.field, DataType::Float32, true)).collect();
    let mut writer = BatchWriter::new(stream, outputs.clone(), Arc::default());
    let scores = scorer.score(&[&resident]).unwrap().outputs;
    let number = Some(Number { epoch: 1, sequence: 1 });
    let outcome = Some(Cow::Owned(Outcome::Taken(Taken { accepted: BATCH as u32, ..Taken::default() })));
    let sent = [Sent { producer: "bench", number, rows: BATCH as u32, newest: Some(0), outcome }];
    let mut encode = || writer.encode(&resident, &scores, &sent, 0).unwrap();
    let entry = encode();
    let encoding = per_record(BATCH, || drop(black_box(encode())));
    let copy = per_record(BATCH, || drop(black_box(entry.clone())));
    figure("encode the entry of the journal", encoding, "ns/record", Some(encoding / copy));
    figure("bare copy of the entry", copy, "ns/record", None);
    let mut writer = BatchWriter::new(stream, outputs, Arc::new(bench_keys()));
    let sealing = per_record(BATCH, || drop(black_box(writer.encode(&resident, &scores, &sent, 0).unwrap())));
    figure("encode the entry of the journal, sealed", sealing, "ns/record", Some(sealing / copy));

    let dataset = &plan.datasets[0];
    let mut columns = resident.batch().columns().to_vec();
    columns.extend(scorer.score(&[&resident]).unwrap().outputs);
    let mut cells = Cells::new(dataset);
    let fold = per_record(BATCH, || {
        let contributors = ContributorKey([1; 16]).hash(&columns[stream.contributor]);
        let foldable = Foldable::new(dataset, &columns, &contributors);
        cells.fold(dataset, &foldable, &Rows::All);
    });
    figure("fold", fold, "ns/record", None);

    let count = cells.len();
    let closed = ClosedWindow {
        gateway: &"bench".parse().unwrap(),
        dataset: &Arc::clone(dataset),
        window: 0,
        part: 0,
        cells,
        deferral: None,
    };
    let parts = PartRule { least: 10, not_empty: false, percent: 10, beyond_one: false, beside: 0 };
    let destination = "fraud_desk".parse().unwrap();
    let name = dataset.name.clone();
    let outlets = [Outlet {
        dataset: name,
        destination,
        min_contributors: 10,
        parts,
        privacy: None,
        tells_contributors: false,
        rounding: Rounding::NONE,
        by_override: None,
    }];
    let releasing = per_record(count, || drop(black_box(release(&closed, &outlets, config.policy.digest).unwrap())));
    figure("release", releasing, "ns/cell", None);
    Staged { bare_score: bare, entry }
}

/// The columns of one batch that the EU gateway keeps, with scores.
pub(super) fn columns(records: &Prepared) -> Vec<ArrayRef> {
    let config = config::load(&example().join("gateway.toml")).unwrap().config.unwrap();
    let plan = &config.policy.streams["payments"];
    let mut layout = decode::arrow::Layout::default();
    let limits = decode::Limits { rows_max: BATCH, bytes_max: 64 << 20 };
    let payload = Payload::ArrowIpc(records.arrow[0].clone());
    let opened = decode::Opened::new(&mut layout, &plan.stream, payload, limits).ok().unwrap();
    let mut candidate = opened.decode().ok().unwrap().candidate;
    candidate.check(&ANY_TIME);
    let (policy, here) = (Arc::clone(&config.policy), Arc::clone(&config.here));
    let version = Version::compile(policy, here, Knowledge::default(), today());
    let resident = version.decide(candidate, Sender::default(), &mut NotCounted).unwrap().resident.unwrap();
    let mut columns = resident.batch().columns().to_vec();
    columns.push(Arc::new(Float32Array::from_iter_values((0..BATCH).map(|row| row as f32 / BATCH as f32))));
    columns
}

fn bench_keys() -> Keys {
    let key = Key::new(Box::new(Zeroizing::new([7; KEY_BYTES])));
    Keys::new([("eu-gdpr".to_owned(), key)].into())
}

/// How often scoring and the bare loops take turns.
const TURNS: usize = 5;

/// Scoring beside three loops around the model alone, all on one thread, in turns: the same input again and again,
/// which no caller has; another input each time; and the input's and the output's tensors kept, as the scorer keeps
/// them. The first one's nanoseconds per record.
fn score_beside_bare(path: &Path, mut score: impl FnMut()) -> f64 {
    let session = || {
        let builder = Session::builder(Runtime::load(None).unwrap().environment()).unwrap();
        builder.with_intra_threads(1).unwrap().commit_from_file(path).unwrap()
    };
    let mut bare = session();
    let mut run = |input: &[f32]| {
        let tensor = TensorRef::from_array_view(([BATCH, FEATURES], input)).unwrap();
        drop(black_box(bare.run(ort::inputs!["features" => tensor]).unwrap()));
    };
    let inputs: Vec<Vec<f32>> = (1..=16_u8).map(|input| vec![1.0 / f32::from(input); BATCH * FEATURES]).collect();
    let mut others = inputs.iter().cycle();
    let mut keeping = session();
    let kept = Tensor::from_array(([BATCH, FEATURES], vec![0.5_f32; BATCH * FEATURES])).unwrap();
    let output = Tensor::<f32>::new(&Allocator::default(), [BATCH, 1]).unwrap();
    let outputs = OutputSelector::no_default().with("score").preallocate("score", output);
    let options = RunOptions::new().unwrap().with_outputs(outputs);
    let turns: Vec<[f64; 4]> = (0..TURNS)
        .map(|_| {
            [
                per_record(BATCH, &mut score),
                per_record(BATCH, || run(&inputs[0])),
                per_record(BATCH, || run(others.next().unwrap())),
                per_record(BATCH, || {
                    drop(black_box(keeping.run_with_options(ort::inputs!["features" => &kept], &options).unwrap()));
                }),
            ]
        })
        .collect();
    let of = |which: usize| median(turns.iter().map(|turn| turn[which]));
    let ratio = |which: usize| Some(median(turns.iter().map(|turn| turn[0] / turn[which])));
    figure("score", of(0), "ns/record", ratio(1));
    figure("bare onnxruntime loop", of(1), "ns/record", None);
    figure("score, per the loop with another input each time", of(0), "ns/record", ratio(2));
    figure("bare loop, another input each time", of(2), "ns/record", None);
    figure("score, per the loop with kept tensors", of(0), "ns/record", ratio(3));
    figure("bare loop, kept tensors", of(3), "ns/record", None);
    of(1)
}
