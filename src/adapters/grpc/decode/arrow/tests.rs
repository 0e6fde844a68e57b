//! What is read directly is what Arrow's reader reads, of good payloads and of spoiled ones.

use std::sync::Arc;

use arrow_array::{BooleanArray, Float32Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{Field, Schema};
use proptest::prelude::*;

use super::super::test_stream;
use super::*;

const FIELDS: [FieldType; 7] = [
    FieldType::Timestamp,
    FieldType::String,
    FieldType::Float64,
    FieldType::Bool,
    FieldType::Int64,
    FieldType::Float32,
    FieldType::Float64,
];

fn stream() -> Arc<Stream> {
    test_stream(&(1..).zip(FIELDS).collect::<Vec<_>>(), Undeclared::Drop)
}

/// Columns f1, f2, ... of the declared types, some of them with nulls.
fn columns(rows: usize) -> impl Strategy<Value = Vec<ArrayRef>> {
    let values = prop::collection::vec((any::<i64>(), any::<f64>(), "[a-zä€]{0,5}", any::<u8>()), rows);
    (values, any::<u8>()).prop_map(|(values, with_nulls)| {
        let column = |(position, field_type): (usize, FieldType)| -> ArrayRef {
            let valid = |nulls: u8| (with_nulls & nulls) >> position & 1 == 0;
            let values = values.iter().map(|value| valid(value.3).then_some(value));
            match field_type {
                FieldType::Timestamp => {
                    Arc::new(values.map(|value| value.map(|value| value.0)).collect::<TimestampMicrosecondArray>())
                }
                FieldType::Int64 => Arc::new(values.map(|value| value.map(|value| value.0)).collect::<Int64Array>()),
                FieldType::Float64 => {
                    Arc::new(values.map(|value| value.map(|value| value.1)).collect::<Float64Array>())
                }
                FieldType::Float32 => {
                    Arc::new(values.map(|value| value.map(|value| value.1 as f32)).collect::<Float32Array>())
                }
                FieldType::Bool => {
                    Arc::new(values.map(|value| value.map(|value| value.0 & 1 == 1)).collect::<BooleanArray>())
                }
                FieldType::String => {
                    Arc::new(values.map(|value| value.map(|value| value.2.as_str())).collect::<StringArray>())
                }
            }
        };
        FIELDS.into_iter().enumerate().map(column).collect()
    })
}

/// The columns in this order, as IPC bytes.
fn encoded(columns: &[ArrayRef], order: &[usize], end: bool) -> Vec<u8> {
    let fields = order.iter().map(|&position| {
        let column = &columns[position];
        Field::new(format!("f{}", position + 1), column.data_type().clone(), column.null_count() > 0)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = order.iter().map(|&position| Arc::clone(&columns[position])).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    writer.write(&batch).unwrap();
    if end {
        writer.finish().unwrap();
    }
    writer.into_inner().unwrap()
}

/// What Arrow's reader makes of it; its panics are errors.
fn reference(stream: &Stream, payload: &[u8]) -> Option<RecordBatch> {
    let payload = Bytes::copy_from_slice(payload);
    panic::catch_unwind(|| columns_of(stream, &read(payload, 100)?)).ok()?.ok().map(|(columns, ..)| columns)
}

fn order() -> impl Strategy<Value = Vec<usize>> {
    Just((0..FIELDS.len()).collect::<Vec<_>>()).prop_shuffle()
}

/// Equal to the last bit: `Debug` prints NaN as NaN.
fn printed(batch: &RecordBatch) -> String {
    format!("{batch:?}")
}

proptest! {
    #[test]
    fn a_good_payload_is_read_directly(
        first in (1..20_usize).prop_flat_map(columns), second in (1..20_usize).prop_flat_map(columns),
        order in order(), end in any::<bool>(),
    ) {
        let (stream, mut layout) = (stream(), Layout::default());
        for columns in [&first, &first, &second] {
            let payload = encoded(columns, &order, end);
            let found = direct::read(&mut layout, &stream, &payload, 20).unwrap();
            prop_assert_eq!(printed(&found), printed(&reference(&stream, &payload).unwrap()));
        }
        prop_assert!(direct::read(&mut layout, &stream, &encoded(&first, &order, end), first[0].len() - 1).is_none());
        prop_assert!(direct::read(&mut layout, &stream, &encoded(&first, &order[1..], end), 20).is_none());
    }

    #[test]
    fn what_is_read_of_a_spoiled_payload_is_what_arrow_reads(
        columns in (0..12_usize).prop_flat_map(columns),
        order in order(),
        spoiled in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let (stream, mut layout) = (stream(), Layout::default());
        let good = encoded(&columns, &order, true);
        let mut payload = good.clone();
        for (at, byte) in spoiled {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        payload.truncate(cut.map_or(payload.len(), |cut| cut.index(payload.len())));
        for payload in [&good, &payload] {
            if let Some(found) = direct::read(&mut layout, &stream, payload, 100) {
                let expected = reference(&stream, payload);
                prop_assert_eq!(Some(printed(&found)), expected.as_ref().map(printed));
            }
        }
    }
}
