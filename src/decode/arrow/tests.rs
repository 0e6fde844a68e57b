//! What is read directly is what Arrow's reader reads, of good payloads and of spoiled ones; and what is refused before
//! it is held.

use std::panic::{self, AssertUnwindSafe};

use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int16Type, Int32Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Date32Array, Date64Array, DictionaryArray, Float32Array, Float64Array, Int8Array,
    Int32Array, Int64Array, LargeStringArray, NullArray, RecordBatchOptions, StringArray, StringViewArray,
    TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::{DictionaryHandling, IpcWriteOptions, StreamWriter};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

use crate::domain::refusal::Reason;
use crate::domain::stream::{FieldType, Undeclared};

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
    let zone = prop::sample::select(vec!["UTC", "Z", "+05:30"]);
    (values, any::<u8>(), zone).prop_map(|(values, with_nulls, zone)| {
        let column = |(position, field_type): (usize, FieldType)| -> ArrayRef {
            let valid = |nulls: u8| (with_nulls & nulls) >> position & 1 == 0;
            let values = values.iter().map(|value| valid(value.3).then_some(value));
            match field_type {
                FieldType::Timestamp => {
                    let times = values.map(|value| value.map(|value| value.0)).collect::<TimestampMicrosecondArray>();
                    Arc::new(times.with_timezone(zone))
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
fn reference(payload: &[u8]) -> Option<Vec<RecordBatch>> {
    let mut rest = Buffer::from_slice_ref(payload);
    let read = || {
        let (mut decoder, mut batches) = (StreamDecoder::new(), Vec::new());
        while !rest.is_empty() {
            batches.extend(decoder.decode(&mut rest).ok()?);
        }
        decoder.finish().ok()?;
        Some(batches)
    };
    panic::catch_unwind(AssertUnwindSafe(read)).ok()?
}

/// The stream's columns, out of those of a batch with the same names and types. Their times are points in time, without
/// the zone that they were shown in.
fn in_order(stream: &Stream, batch: &RecordBatch) -> Option<RecordBatch> {
    let columns = stream.fields.iter().map(|field| {
        let column = batch.column_by_name(&field.name)?;
        let DataType::Timestamp(TimeUnit::Microsecond, zone) = column.data_type() else { return Some(column.clone()) };
        let times = column.as_primitive::<TimestampMicrosecondType>().clone();
        zone.is_some().then(|| Arc::new(times.with_timezone_opt::<Arc<str>>(None)) as ArrayRef)
    });
    RecordBatch::try_new(Arc::clone(&stream.schema), columns.collect::<Option<_>>()?).ok()
}

fn reference_columns(stream: &Stream, payload: &[u8]) -> Option<RecordBatch> {
    in_order(stream, reference(payload)?.first()?)
}

/// The columns, read directly.
fn read_directly(layout: &mut Layout, stream: &Arc<Stream>, payload: &[u8], rows_max: usize) -> Option<RecordBatch> {
    let direct = direct::read(layout, stream, &Bytes::copy_from_slice(payload), rows_max)?;
    Some(Direct::columns(stream, &[&direct]).unwrap())
}

const LIMITS: Limits = Limits { rows_max: 100, bytes_max: 1 << 20 };

/// The columns and the refusals, read the long way.
fn cast_any(stream: &Arc<Stream>, payload: Vec<u8>, limits: Limits) -> Result<Cast, Undecodable> {
    let opened =
        expected(AssertUnwindSafe(|| read_any(stream, payload.into(), limits))).unwrap_or_else(|_| Err(malformed()))?;
    limits.check(opened.bytes)?;
    let Batches::Any { columns, batches, .. } = opened.batches else { return Err(malformed()) };
    cast(stream, &columns, &batches)
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
            let found = read_directly(&mut layout, &stream, &payload, 20).unwrap();
            prop_assert_eq!(printed(&found), printed(&reference_columns(&stream, &payload).unwrap()));
        }
        prop_assert!(read_directly(&mut layout, &stream, &encoded(&first, &order, end), first[0].len() - 1).is_none());
        prop_assert!(read_directly(&mut layout, &stream, &encoded(&first, &order[1..], end), 20).is_none());
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
            if let Some(found) = read_directly(&mut layout, &stream, payload, 100) {
                let expected = reference_columns(&stream, payload);
                prop_assert_eq!(Some(printed(&found)), expected.as_ref().map(printed));
            }
            // Of one batch that is read the long way comes what Arrow's reader gives, or nothing.
            let batches = reference(payload).unwrap_or_default();
            if let (Ok((found, refusals)), [batch]) = (cast_any(&stream, payload.clone(), LIMITS), batches.as_slice())
                && batch.num_rows() > 0
                && let Some(expected) = in_order(&stream, batch)
            {
                prop_assert!(refusals.is_empty());
                prop_assert_eq!(printed(&found), printed(&expected));
            }
        }
    }
}

/// A stream of one text `f1` of at most 64 bytes and one number `f2`.
fn short(undeclared: Undeclared) -> Arc<Stream> {
    test_stream(&[(1, FieldType::String), (2, FieldType::Int64)], undeclared)
}

fn written(batches: &[RecordBatch]) -> Vec<u8> {
    written_with(batches, IpcWriteOptions::default())
}

fn written_with(batches: &[RecordBatch], options: IpcWriteOptions) -> Vec<u8> {
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batches[0].schema(), options).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn texts(texts: &[Option<&str>]) -> [ArrayRef; 4] {
    let mut dictionary = StringDictionaryBuilder::<Int16Type>::new();
    texts.iter().for_each(|text| dictionary.append_option(*text));
    [
        Arc::new(dictionary.finish()),
        Arc::new(texts.iter().collect::<StringViewArray>()),
        Arc::new(texts.iter().collect::<LargeStringArray>()),
        Arc::new(texts.iter().collect::<StringArray>()),
    ]
}

#[test]
fn a_word_that_is_too_long_is_refused_and_never_copied() {
    const ROWS: usize = 65_536;
    let (stream, word) = (short(Undeclared::Refuse), "w".repeat(32_760));
    let limits = Limits { rows_max: ROWS, bytes_max: 16 << 20 };
    let keys = Int32Array::from(vec![0; ROWS]);
    let dictionary = DictionaryArray::new(keys, Arc::new(StringArray::from(vec![word.as_str()])));
    let mut views = arrow_array::builder::StringViewBuilder::new().with_deduplicate_strings();
    (0..ROWS).for_each(|_| views.append_value(&word));
    for column in [Arc::new(dictionary) as ArrayRef, Arc::new(views.finish())] {
        let payload = written(&[batch(vec![("f1", column)])]);
        assert!(payload.len() < 2 << 20);
        let opened = open(&mut Layout::default(), &stream, payload.into(), limits).unwrap();
        assert!(opened.bytes() < 10 << 20, "{}", opened.bytes());
        let (columns, refusals) = match opened.batches {
            Batches::Any { columns, batches, .. } => cast(&stream, &columns, &batches).unwrap(),
            Batches::Direct(_) => panic!("not the stream's own columns"),
        };
        assert_eq!((columns.num_rows(), columns.column(0).null_count(), refusals.len()), (ROWS, ROWS, ROWS));
        assert!(refusals.iter().all(|refusal| refusal.reason == Reason::TooLong));
    }
}

#[test]
fn words_that_are_together_too_much_are_refused_before_they_are_copied() {
    let stream = short(Undeclared::Refuse);
    let keys = Int32Array::from(vec![0; 60_000]);
    let dictionary = DictionaryArray::new(keys, Arc::new(StringArray::from(vec!["w".repeat(64)])));
    let payload = written(&[batch(vec![("f1", Arc::new(dictionary))])]);
    let limits = Limits { rows_max: 65_536, bytes_max: 4 << 20 };
    let refused = open(&mut Layout::default(), &stream, payload.into(), limits).err().unwrap();
    assert_eq!(refused.reason, Reason::TooLarge);
}

#[test]
fn columns_that_are_missing_or_null_are_nulls_and_are_charged() {
    let stream = short(Undeclared::Refuse);
    let options = RecordBatchOptions::new().with_row_count(Some(100));
    let none = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap();
    let nulls = batch(vec![("f2", Arc::new(NullArray::new(100))), ("f1", Arc::new(NullArray::new(100)))]);
    for batch in [none, nulls] {
        let payload = written(&[batch]);
        let (columns, refusals) = cast_any(&stream, payload.clone(), LIMITS).unwrap();
        assert_eq!(
            (columns.num_rows(), columns.column(0).null_count(), columns.column(1).null_count()),
            (100, 100, 100)
        );
        assert!(refusals.is_empty());
        let tight = Limits { bytes_max: 100 * ROW_BYTES, ..LIMITS };
        assert_eq!(cast_any(&stream, payload, tight).err().unwrap().reason, Reason::TooLarge);
    }
}

#[test]
fn a_column_that_stands_twice_is_refused_by_name() {
    let column = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    for (name, undeclared) in [("f2", Undeclared::Refuse), ("f2", Undeclared::Drop), ("other", Undeclared::Drop)] {
        let fields = vec![Field::new(name, DataType::Int64, true), Field::new(name, DataType::Int64, true)];
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![column(), column()]).unwrap();
        let refused = cast_any(&short(undeclared), written(&[batch]), LIMITS).err().unwrap();
        assert_eq!((refused.reason, refused.field.as_deref()), (Reason::Malformed, Some(name)));
    }
}

#[test]
fn compressed_buffers_are_refused_by_the_name_of_their_method() {
    // Arrow's writer cannot compress here: the table is written by hand.
    let plain = written(&[batch(vec![("f2", Arc::new(Int64Array::from(vec![1, 2, 3])))])]);
    for (codec, name) in [(0_i8, "lz4"), (1, "zstd")] {
        let mut builder = flatbuffers::FlatBufferBuilder::new();
        let compression = {
            let mut compression = arrow_ipc::BodyCompressionBuilder::new(&mut builder);
            compression.add_codec(arrow_ipc::CompressionType(codec));
            compression.finish()
        };
        let nodes = builder.create_vector(&[arrow_ipc::FieldNode::new(3, 0)]);
        let buffers = builder.create_vector(&[arrow_ipc::Buffer::new(0, 0), arrow_ipc::Buffer::new(0, 24)]);
        let header = {
            let mut batch = arrow_ipc::RecordBatchBuilder::new(&mut builder);
            batch.add_length(3);
            batch.add_nodes(nodes);
            batch.add_buffers(buffers);
            batch.add_compression(compression);
            batch.finish().as_union_value()
        };
        let mut message = arrow_ipc::MessageBuilder::new(&mut builder);
        message.add_version(arrow_ipc::MetadataVersion::V5);
        message.add_header_type(MessageHeader::RecordBatch);
        message.add_bodyLength(24);
        message.add_header(header);
        let root = message.finish();
        builder.finish(root, None);
        let schema = &plain[..8 + u32::from_le_bytes(plain[4..8].try_into().unwrap()) as usize];
        let metadata = builder.finished_data();
        let padding = metadata.len().next_multiple_of(8) - metadata.len();
        let length = (metadata.len() + padding) as u32;
        let payload = [schema, &[0xff; 4], &length.to_le_bytes(), metadata, &vec![0; padding], &[0; 24]].concat();
        let refused = cast_any(&short(Undeclared::Refuse), payload, LIMITS).err().unwrap();
        assert_eq!(refused.reason, Reason::Malformed);
        assert!(refused.message.contains(name), "{}", refused.message);
    }
}

#[test]
fn many_batches_of_little_and_dictionaries_that_grow_are_refused_before_they_are_held() {
    let stream = short(Undeclared::Drop);
    let limits = Limits { rows_max: usize::MAX, bytes_max: usize::MAX };
    // Batches without a record cost nothing.
    let empty = batch(vec![("f2", Arc::new(Int64Array::from(Vec::<i64>::new())))]);
    assert!(cast_any(&stream, written(&vec![empty; 2_000]), limits).is_ok_and(|(columns, _)| columns.num_rows() == 0));
    // A dictionary that each batch adds a word to is copied each time.
    let word = "w".repeat(100_000);
    let words = |count: usize| {
        let mut dictionary = StringDictionaryBuilder::<Int32Type>::new();
        dictionary.append_value(&word);
        (0..count).for_each(|word| dictionary.append_value(format!("{word}")));
        batch(vec![("f1", Arc::new(dictionary.finish()) as ArrayRef)])
    };
    let batches: Vec<RecordBatch> = (0..100).map(words).collect();
    let delta = IpcWriteOptions::default().with_dictionary_handling(DictionaryHandling::Delta);
    let payload = written_with(&batches, delta);
    assert!(payload.len() < 200_000, "{}", payload.len());
    assert_eq!(cast_any(&stream, payload, limits).err().unwrap().reason, Reason::TooLarge);
    let delta = IpcWriteOptions::default().with_dictionary_handling(DictionaryHandling::Delta);
    let (columns, refusals) = cast_any(&stream, written_with(&batches[..2], delta), limits).unwrap();
    assert_eq!((columns.num_rows(), refusals.len(), columns.column(0).as_string::<i32>().value(2)), (3, 2, "0"));
}

#[test]
fn a_schema_that_stands_for_more_than_its_bytes_is_refused() {
    // 60,000 fields that are one and the same table, whose name has 50,000 bytes.
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let name = builder.create_string(&"n".repeat(50_000));
    let kind = arrow_ipc::NullBuilder::new(&mut builder).finish().as_union_value();
    let field = {
        let mut field = arrow_ipc::FieldBuilder::new(&mut builder);
        field.add_name(name);
        field.add_type_type(arrow_ipc::Type::Null);
        field.add_type_(kind);
        field.finish()
    };
    let fields = builder.create_vector(&vec![field; 60_000]);
    let schema = {
        let mut schema = arrow_ipc::SchemaBuilder::new(&mut builder);
        schema.add_fields(fields);
        schema.finish().as_union_value()
    };
    let mut message = arrow_ipc::MessageBuilder::new(&mut builder);
    message.add_version(arrow_ipc::MetadataVersion::V5);
    message.add_header_type(MessageHeader::Schema);
    message.add_header(schema);
    let root = message.finish();
    builder.finish(root, None);
    let refused = Reader::new(&short(Undeclared::Drop), builder.finished_data()).err().unwrap();
    assert_eq!(refused, malformed());
}

#[test]
fn nanoseconds_are_floored() {
    let stream = test_stream(&[(1, FieldType::Timestamp)], Undeclared::Refuse);
    let times = TimestampNanosecondArray::from(vec![Some(-1), Some(-1_000), Some(1_999), None]).with_timezone("+02:00");
    let (columns, refusals) = cast_any(&stream, written(&[batch(vec![("f1", Arc::new(times))])]), LIMITS).unwrap();
    let expected = TimestampMicrosecondArray::from(vec![Some(-1), Some(-1), Some(1), None]);
    assert_eq!(columns.column(0).as_primitive(), &expected);
    assert!(refusals.is_empty());
}

#[test]
fn times_without_a_zone_are_refused_with_what_to_add() {
    let stream = test_stream(&[(1, FieldType::Timestamp)], Undeclared::Refuse);
    let micros = TimestampMicrosecondArray::from(vec![7]);
    let dictionary = |times: ArrayRef| Arc::new(DictionaryArray::new(Int32Array::from(vec![0]), times)) as ArrayRef;
    let naive: [ArrayRef; 5] = [
        Arc::new(micros.clone()),
        Arc::new(TimestampNanosecondArray::from(vec![7_000])),
        Arc::new(Date32Array::from(vec![0])),
        Arc::new(Date64Array::from(vec![0])),
        dictionary(Arc::new(micros.clone())),
    ];
    for column in naive {
        // However often the same request comes.
        let (payload, mut layout) = (written(&[batch(vec![("f1", Arc::clone(&column))])]), Layout::default());
        for _ in 0..2 {
            let refused = open(&mut layout, &stream, payload.clone().into(), LIMITS).err().unwrap();
            assert_eq!((refused.reason, refused.field.as_deref()), (Reason::WrongType, Some("f1")));
            assert!(
                refused.message.contains("time zone") && refused.message.contains("tz='UTC'"),
                "{}",
                refused.message
            );
        }
    }
    for zone in ["UTC", "+02:00", "America/New_York"] {
        let zoned: ArrayRef = Arc::new(micros.clone().with_timezone(zone));
        for column in [Arc::clone(&zoned), dictionary(zoned)] {
            let payload = written(&[batch(vec![("f1", column)])]);
            let opened = open(&mut Layout::default(), &stream, payload.into(), LIMITS).unwrap();
            let columns = match opened.batches {
                Batches::Direct(direct) => Direct::columns(&stream, &[&direct]).unwrap(),
                Batches::Any { columns, batches, .. } => cast(&stream, &columns, &batches).unwrap().0,
            };
            assert_eq!(columns.column(0).as_primitive(), &micros, "{zone}");
        }
    }
}

#[test]
fn buffers_that_lie_upon_each_other_are_refused() {
    let stream = short(Undeclared::Refuse);
    let text: ArrayRef = Arc::new(LargeStringArray::from(vec!["a", "b"]));
    let payload = written(&[batch(vec![("f1", text), ("f2", Arc::new(Int64Array::from(vec![1, 2])))])]);
    assert!(cast_any(&stream, payload.clone(), LIMITS).is_ok());
    // The last buffer is said to begin where the first does.
    let mut rest = Buffer::from_slice_ref(&payload);
    direct::next_metadata(&mut rest).unwrap().unwrap();
    let metadata = direct::next_metadata(&mut rest).unwrap().unwrap();
    let message = message(&metadata).unwrap();
    let buffers = message.header_as_record_batch().unwrap().buffers().unwrap();
    let (first, last) = (buffers.get(1), buffers.get(buffers.len() - 1));
    let entry = |buffer: &arrow_ipc::Buffer| [buffer.offset().to_le_bytes(), buffer.length().to_le_bytes()].concat();
    let at = payload.windows(16).rposition(|bytes| bytes == entry(last)).unwrap();
    let mut spoiled = payload.clone();
    spoiled[at..at + 16].copy_from_slice(&entry(&arrow_ipc::Buffer::new(first.offset(), message.bodyLength())));
    let refused = cast_any(&stream, spoiled, LIMITS).err().unwrap();
    assert!(refused.message.contains("upon each other"), "{}", refused.message);
}

proptest! {
    /// Texts of every layout, numbers of every width, cut into batches anyhow: the values, and a refusal for each text
    /// that is too long. And never more memory than was said.
    #[test]
    fn columns_of_every_layout_come_to_the_same(
        values in prop::collection::vec((prop::option::of("[a-zä€]{0,9}"), any::<i8>(), any::<bool>()), 1..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let stream = short(Undeclared::Refuse);
        let long = "x".repeat(65);
        let strings: Vec<Option<&str>> =
            values.iter().map(|(text, _, is_long)| if *is_long { Some(long.as_str()) } else { text.as_deref() }).collect();
        let kept: StringArray = strings.iter().map(|text| text.filter(|text| text.len() <= 64)).collect();
        let numbers: ArrayRef = Arc::new(values.iter().map(|value| Some(value.1)).collect::<Int8Array>());
        let is_long: Vec<u32> = (0..).zip(&values).filter(|(_, value)| value.2).map(|(row, _)| row).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(values.len())).collect();
        cuts.extend([0, values.len()]);
        cuts.sort_unstable();
        for column in texts(&strings) {
            // A plain text that is too long is refused when the batch is checked, like those of rows.
            let is_plain = *column.data_type() == DataType::Utf8;
            let all = batch(vec![("f2", Arc::clone(&numbers)), ("f1", column)]);
            let parts: Vec<RecordBatch> = cuts.windows(2).map(|cut| all.slice(cut[0], cut[1] - cut[0])).collect();
            let (columns, refusals) = cast_any(&stream, written(&parts), LIMITS).unwrap();
            let refused: Vec<u32> = refusals.iter().map(|refusal| refusal.index).collect();
            prop_assert_eq!(&refused, if is_plain { &[][..] } else { &is_long[..] });
            let found = columns.column(0).as_string::<i32>();
            prop_assert!(is_plain || *found == kept);
            let found = columns.column(1).as_primitive::<arrow_array::types::Int64Type>().values().to_vec();
            prop_assert_eq!(found, values.iter().map(|value| i64::from(value.1)).collect::<Vec<_>>());
        }
    }
}
