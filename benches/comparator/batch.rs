//! From messages to scores and cells: one batch of whatever arrived together.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::ops::Range;

use bailiwick::scoring::Runtime;
use bytes::Bytes;
use foldhash::fast::FixedState;
use ort::session::Session;
use ort::value::TensorRef;

use super::disk::Commit;
use super::wire::{Fields, Value, answer};
use super::{Answers, Arrived};
use crate::records::example;

/// What the model takes of a record: the fields from this number on, all of them doubles.
const FEATURES: usize = 30;
const FIRST_FEATURE: u64 = 5;
/// The most records of one run of the model.
const RUN: usize = 1_024;
/// A set of contributors stops here: it is large enough to be released.
const CONTRIBUTORS: usize = 20;
/// The bars of a cell's histogram of scores.
const BARS: usize = 5;

/// What is counted of a country and a channel.
#[derive(Default)]
struct Cell {
    records: u64,
    /// Cents, so that sums are exact.
    sum: i128,
    squares: i128,
    scores: [u64; BARS],
    contributors: HashSet<u64, FixedState>,
}

/// Whose records these are in the batch, and how they are answered.
struct Part {
    answers: Answers,
    sequence: u64,
    records: Range<usize>,
    wants_scores: bool,
}

/// The model, the cells, and room for a batch that is used over and over.
pub(super) struct Batches {
    session: Session,
    input: String,
    matrix: Vec<f32>,
    amounts: Vec<f64>,
    /// Of each record its cell and its contributor.
    keys: Vec<(u64, u64)>,
    cells: HashMap<u64, Cell, FixedState>,
    hasher: FixedState,
}

impl Batches {
    pub(super) fn new() -> Self {
        let builder = Session::builder(Runtime::load(None).unwrap().environment()).unwrap();
        let model = example().join("model.onnx");
        let session = builder.with_intra_threads(1).unwrap().commit_from_file(model).unwrap();
        let input = session.inputs()[0].name().to_owned();
        let (matrix, amounts, keys) = (Vec::new(), Vec::new(), Vec::new());
        Self { session, input, matrix, amounts, keys, cells: HashMap::default(), hasher: FixedState::default() }
    }

    /// Scores and counts a batch. What is to be written and then answered.
    pub(super) fn work(&mut self, arrived: Vec<Arrived>) -> Commit {
        self.matrix.clear();
        self.amounts.clear();
        self.keys.clear();
        let mut messages = Vec::with_capacity(arrived.len());
        let mut parts = Vec::with_capacity(arrived.len());
        for Arrived { message, answers } in arrived {
            parts.push(self.walk(&message, answers));
            messages.push(message);
        }
        let scores = self.score();
        self.fold(&scores);
        Commit { messages, answers: parts.into_iter().map(|part| answered(part, &scores)).collect() }
    }

    /// The records of a message, behind those that are there.
    fn walk(&mut self, message: &[u8], answers: Answers) -> Part {
        let first = self.keys.len();
        let (mut sequence, mut wants_scores) = (0, false);
        for (number, value) in Fields(message) {
            match (number, value) {
                (3, Value::Varint(number)) => sequence = number,
                (7, Value::Varint(wants)) => wants_scores = wants != 0,
                (4, Value::Bytes(rows)) => Fields(rows).for_each(|(_, row)| self.walk_row(row)),
                _ => {}
            }
        }
        Part { answers, sequence, records: first..self.keys.len(), wants_scores }
    }

    fn walk_row(&mut self, row: Value<'_>) {
        let Value::Bytes(row) = row else { panic!("a row is a message") };
        let start = self.matrix.len();
        self.matrix.resize(start + FEATURES, 0.0);
        let features = &mut self.matrix[start..];
        let (mut cell, mut contributor, mut amount) = (0, 0, 0.0);
        for (number, value) in Fields(row) {
            match (number, value) {
                (2, Value::Bytes(card)) => contributor = self.hasher.hash_one(card),
                (3 | 4, Value::Bytes(key)) => cell = self.hasher.hash_one((cell, key)),
                (number, Value::Double(value)) => {
                    features[(number - FIRST_FEATURE) as usize] = value as f32;
                    // The amount is the last of them.
                    amount = value;
                }
                _ => {}
            }
        }
        self.amounts.push(amount);
        self.keys.push((cell, contributor));
    }

    fn score(&mut self) -> Vec<f32> {
        let mut scores = Vec::with_capacity(self.keys.len());
        for run in self.matrix.chunks(RUN * FEATURES) {
            let records = run.len() / FEATURES;
            let input = TensorRef::from_array_view(([records, FEATURES], run)).unwrap();
            let outputs = self.session.run(ort::inputs![self.input.as_str() => input]).unwrap();
            let (_, values) = outputs[outputs.len() - 1].try_extract_tensor::<f32>().unwrap();
            // Of several values of a record, the last one is the score.
            let width = values.len() / records;
            scores.extend(values.iter().skip(width - 1).step_by(width));
        }
        scores
    }

    fn fold(&mut self, scores: &[f32]) {
        for (((key, contributor), amount), score) in self.keys.iter().zip(&self.amounts).zip(scores) {
            let cell = self.cells.entry(*key).or_default();
            let cents = (amount * 100.0).round() as i128;
            cell.records += 1;
            cell.sum += cents;
            cell.squares += cents * cents;
            cell.scores[((score * BARS as f32) as usize).min(BARS - 1)] += 1;
            if cell.contributors.len() < CONTRIBUTORS {
                cell.contributors.insert(*contributor);
            }
        }
    }
}

fn answered(part: Part, scores: &[f32]) -> (Answers, Bytes) {
    let own = if part.wants_scores { &scores[part.records.clone()] } else { &[] };
    (part.answers, answer(part.sequence, part.records.len(), own))
}
