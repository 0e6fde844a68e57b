//! Models that mean harm, or are not what is declared, given to ONNX Runtime itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::made::*;
use super::*;
use crate::domain::binary::hex;
use crate::domain::model::{Encoding, Feature, ModelInput, ModelOutput, OutputKind, OutsideRange};

struct File {
    _directory: TempDir,
    path: PathBuf,
    model: Model,
}

/// A file, and a declaration of one input and one output that names it.
fn declared(bytes: &[u8]) -> File {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("model.onnx");
    fs::write(&path, bytes).unwrap();
    let sha256 = hex(&Sha256::digest(bytes));
    let features = vec![Feature { column: 0, encoding: Encoding::Number }];
    let output = ModelOutput {
        tensor: "y".to_owned(),
        field: "risk".to_owned(),
        kind: OutputKind::Score,
        column: None,
        classes: BTreeSet::new(),
        range: None,
        outside_range: OutsideRange::Refuse,
    };
    let inputs = vec![ModelInput { name: "x".to_owned(), features }];
    let model = Model { name: "m".to_owned(), sha256, inputs, outputs: vec![output] };
    File { _directory: directory, path, model }
}

fn load(file: &File, deadline: Duration, bytes_max: u64) -> Result<Scorer, Error> {
    let watch = Watch::start(deadline).unwrap();
    let runtime = Runtime::load(None).unwrap();
    runtime.scorer_within(&file.model, &file.path, &watch, 16, bytes_max)
}

const PATIENT: Duration = Duration::from_secs(60);

#[test]
fn a_model_without_an_end_is_ended_and_the_next_is_not() {
    let endless = declared(&endless());
    let error = load(&endless, Duration::from_millis(200), RUN_BYTES_MAX).err().unwrap();
    assert!(matches!(error, Error::Late { .. }), "{error}");
    assert!(error.to_string().contains("200ms"), "{error}");
    // The deadline of one run is none of the next, with the same options. On a busy machine a run may be late by itself,
    // and one that is late may not be looked at.
    let good = declared(&identity());
    let watch = Watch::start(Duration::from_millis(100)).unwrap();
    let runtime = Runtime::load(None).unwrap();
    let mut scorer = (0..100).find_map(|_| runtime.scorer(&good.model, &good.path, &watch, 16).ok()).unwrap();
    assert!((0..100).any(|_| scorer.watched.run(|_| std::thread::sleep(Duration::from_millis(500))).1));
    let mut tensors = scorer.shelf.take(&scorer.model, &scorer.session, 3).unwrap();
    tensors.feed_zeros(&scorer.model.inputs).unwrap();
    let (session, binding) = (&mut scorer.session, &tensors.binding);
    let is_in_time = |_| {
        let (ran, is_late) = scorer.watched.run(|options| session.run_binding_with_options(binding, options).map(drop));
        ran.is_ok() && !is_late
    };
    assert!((0..100).any(is_in_time));
}

#[test]
fn memory_that_a_model_takes_is_measured_before_a_record_comes() {
    // The shape is worked out, so that nothing shows it in the file.
    let shape: Vec<u8> = [6_000_i64, 6_000].iter().flat_map(|length| length.to_le_bytes()).collect();
    let axis = tensor("axis", &[1], 7, &1_i64.to_le_bytes());
    let nodes = [
        node("Identity", &["shape"], &["worked_out"], &[]),
        node("ConstantOfShape", &["worked_out"], &["large"], &[]),
        node("ReduceSum", &["large"], &["zero"], &[[bytes(1, b"keepdims"), number(3, 0), number(20, 2)].concat()]),
        node("Add", &["x", "zero"], &["y"], &[]),
    ];
    let model = declared(&of_one(&nodes, &[tensor("shape", &[2], 7, &shape), axis]));
    let error = load(&model, PATIENT, 100 << 20).err().unwrap();
    assert!(matches!(error, Error::TooMuch { rows: 1, bytes, .. } if bytes > 137 << 20), "{error}");
    assert!(load(&model, PATIENT, RUN_BYTES_MAX).is_ok());
}

#[test]
fn a_small_file_that_makes_gigabytes_is_refused_before_it_is_loaded() {
    let shape: Vec<u8> = [23_170_i64, 23_170].iter().flat_map(|length| length.to_le_bytes()).collect();
    let nodes = [
        node("ConstantOfShape", &["shape"], &["large"], &[]),
        node("ReduceSum", &["large"], &["zero"], &[[bytes(1, b"keepdims"), number(3, 0), number(20, 2)].concat()]),
        node("Add", &["x", "zero"], &["y"], &[]),
    ];
    let model = declared(&of_one(&nodes, &[tensor("shape", &[2], 7, &shape)]));
    let error = load(&model, PATIENT, RUN_BYTES_MAX).err().unwrap();
    assert!(matches!(&error, Error::Unfit { source: Unfit::Huge { .. }, .. }), "{error}");
    assert!(error.to_string().contains("node `large` makes a tensor of 536848900 elements"), "{error}");
}

/// `y`, of two columns.
fn of_two_columns() -> Vec<u8> {
    let nodes = [node("Concat", &["x", "x"], &["y"], &[[bytes(1, b"axis"), number(3, 1), number(20, 2)].concat()])];
    model(&graph(&nodes, &[], &[value("x", 1, &[-1, 1])], &[value("y", 1, &[-1, 2])]))
}

#[test]
fn of_an_output_of_several_columns_one_is_named() {
    let mut file = declared(&of_two_columns());
    let error = load(&file, PATIENT, RUN_BYTES_MAX).err().unwrap();
    let wanted = "output `y` has 2 columns, and `column` does not say which becomes `risk`: write one of `column = 0` \
                  to `column = 1`";
    assert!(matches!(&error, Error::Mismatch { message, .. } if message.contains(wanted)), "{error}");
    for (column, is_taken) in [(Some(0), true), (Some(1), true), (Some(2), false)] {
        file.model.outputs[0].column = column;
        assert_eq!(load(&file, PATIENT, RUN_BYTES_MAX).is_ok(), is_taken, "{column:?}");
    }
}

#[test]
fn what_is_no_file_of_a_model_is_refused_by_what_it_is() {
    let mut file = declared(&identity());
    let pipe = file.path.with_file_name("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let zero = PathBuf::from("/dev/zero");
    for (path, found) in [(pipe, "a named pipe"), (zero, "a character device"), ("/".into(), "a directory")] {
        file.path = path;
        let error = load(&file, PATIENT, RUN_BYTES_MAX).err().unwrap();
        assert!(matches!(&error, Error::File { source, .. } if source.to_string().contains(found)), "{error}");
    }
}
