//! What is written is what prost reads.

use std::sync::Arc;

use arrow_array::{Float32Array, Int64Array};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::domain::outcome::{Refusals, Refused};
use crate::domain::refusal::{Reason, Refusal};
use crate::ingress::proto::ingest::PublishResponse;
use crate::telemetry::StreamCounts;

fn served(outputs: &[&str]) -> Served {
    let stream = crate::decode::test_stream(&[], crate::domain::stream::Undeclared::Drop);
    let outputs = outputs.iter().map(|output| (*output).to_owned()).collect();
    Served { stream, outputs, counts: Arc::new(StreamCounts::default()) }
}

/// The message behind the header of gRPC.
fn read(bytes: &[u8]) -> PublishResponse {
    let (header, message) = bytes.split_at(HEADER_BYTES);
    assert_eq!(header[0], 0);
    assert_eq!(u32::from_be_bytes(header[1..].try_into().unwrap()) as usize, message.len());
    PublishResponse::decode(message).unwrap()
}

fn said(Run { first, count, why }: &Run) -> wire::Refusal {
    wire::Refusal { index: *first, count: *count, ..because(why, None) }
}

proptest! {
    #[test]
    fn prost_reads_what_is_written(
        scores in prop::collection::vec(any::<f32>().prop_filter("equal to itself", |score| !score.is_nan()), 0..40),
        labels in prop::collection::vec(any::<i64>(), 40),
        from in 0..40_usize,
        (sequence, epoch, durable) in any::<(u64, u64, u64)>(),
        (dropped, is_duplicate) in any::<(u32, bool)>(),
        refused in prop::collection::btree_map(0..50_u32, (0..3_usize, 0..4_usize), 0..20),
    ) {
        let rows = from.min(scores.len())..scores.len();
        let labels = labels[..scores.len()].to_vec();
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Float32Array::from(scores.clone())), Arc::new(Int64Array::from(labels.clone()))];
        let (served, outputs) = (served(&["fraud", "class"]), Outputs { columns: columns.into(), rows: rows.clone() });
        let refusals = refused.iter().map(|(&index, &(reason, field))| {
            let reason = [Reason::TooLong, Reason::WrongType, Reason::NotFinite][reason];
            let field = ["", "a", "b", "c"][field];
            Refusal { field: (!field.is_empty()).then(|| field.into()), ..Refusal::new(index, reason) }
        });
        let refusals: Vec<Refusal> = refusals.collect();
        let taken = Taken { accepted: rows.len() as u32, dropped_values: dropped, refusals: Refusals::of(&refusals) };
        let mark = Mark { epoch, sequence: durable, ..Mark::default() };
        let accepted = Accepted { taken: &taken, mark, outputs: Some((&served, &outputs)), intake: None };
        let mut bytes = vec![1, 2, 3];
        Response { sequence, is_duplicate, taken: Some(accepted), rejection: None }.encode(&mut bytes);
        let output = |field: &str, values| wire::Output { field: field.to_owned(), values: Some(values) };
        let expected = PublishResponse {
            sequence,
            accepted: rows.len() as u32,
            refusals: taken.refusals.runs().iter().map(said).collect(),
            outputs: vec![
                output("fraud", wire::output::Values::Scores(wire::Floats { values: scores[rows.clone()].to_vec() })),
                output("class", wire::output::Values::Labels(wire::Integers { values: labels[rows].to_vec() })),
            ],
            dropped_values: dropped,
            epoch,
            durable_through: durable,
            duplicate: is_duplicate,
            error: None,
        };
        prop_assert_eq!(&bytes[..3], [1, 2, 3]);
        prop_assert_eq!(read(&bytes[3..]), expected);
    }
}

#[test]
fn a_refusal_of_the_whole_says_so() {
    let rejection = Rejection::repeated(Refused { reason: Reason::ModelFailed, field: None }, false);
    let error = rejection.message();
    let mut bytes = Vec::new();
    Response { sequence: 7, is_duplicate: true, taken: None, rejection: Some(rejection) }.encode(&mut bytes);
    let expected = PublishResponse { sequence: 7, duplicate: true, error: Some(error), ..Default::default() };
    assert_eq!(read(&bytes), expected);
}
