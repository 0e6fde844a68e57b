//! The same values give the same columns and refuse the same records, whichever payload they come in.

use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::{Array, ArrayRef};
use arrow_array::{
    BooleanArray, DictionaryArray, Float32Array, Float64Array, Int64Array, LargeStringArray, StringArray,
    StringViewArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow_schema::{Field, Schema};
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use prost::encoding::{double, float, int64, string};

use super::super::columns::Columns;
use crate::domain::refusal::Reason;
use crate::domain::stream::{FieldType, Undeclared};

use super::super::{json, rows, test_stream};
use super::*;

const TYPES: [(u32, FieldType); 6] = [
    (1, FieldType::Timestamp),
    (2, FieldType::String),
    (3, FieldType::Int64),
    (4, FieldType::Float64),
    (5, FieldType::Float32),
    (6, FieldType::Bool),
];

/// The columns as text, to the last bit but for NaN, and the refused records with their fields.
type Shown = (String, Vec<(u32, Reason, Option<String>)>);

fn shown(columns: &RecordBatch, refusals: &[Refusal]) -> Shown {
    let refused = refusals.iter();
    let refused = refused.map(|refusal| (refusal.index, refusal.reason, refusal.field.as_deref().map(str::to_owned)));
    let refused: Vec<_> = refused.collect();
    // What a refused record holds is nobody's business.
    let kept = (0..).zip(0..columns.num_rows()).filter(|(index, _)| refused.iter().all(|refused| refused.0 != *index));
    let kept: Vec<String> = kept.map(|(_, row)| format!("{:?}", columns.slice(row, 1))).collect();
    (kept.join("\n"), refused)
}

fn columns_of(stream: &Arc<Stream>, batch: &RecordBatch) -> Result<Cast, Undecodable> {
    let reader = Reader::of(stream, batch.schema_ref().as_ref().clone())?;
    cast(stream, reader.columns(), &[batch.project(&reader.read).unwrap()])
}

fn of_arrow(columns: Vec<ArrayRef>) -> Shown {
    let stream = test_stream(&TYPES, Undeclared::Refuse);
    let fields = columns
        .iter()
        .zip(1..)
        .map(|(column, number)| Field::new(format!("f{number}"), column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let (columns, refusals) = columns_of(&stream, &RecordBatch::try_new(schema, columns).unwrap()).unwrap();
    shown(&columns, &refusals)
}

fn of_json(objects: &[String]) -> Shown {
    let stream = test_stream(&TYPES, Undeclared::Refuse);
    let mut columns = Columns::new(&stream, objects.len());
    for object in objects {
        json::row(&mut columns, object.as_bytes());
    }
    let (columns, refusals, _) = columns.into_parts().unwrap();
    shown(&columns, &refusals)
}

fn object(values: &[Option<String>]) -> String {
    let members = values
        .iter()
        .zip(1..)
        .filter_map(|(value, number)| value.as_ref().map(|value| format!("\"f{number}\": {value}")));
    format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
}

/// A text that may or may not be a value of a type.
fn spelling() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>().prop_map(|value| format!("{value:?}")),
        any::<f32>().prop_map(|value| format!("{value:e}")),
        (-40_i64..40).prop_map(|value| format!("{value}.0")),
        (any::<i16>(), -3_i8..8).prop_map(|(value, exponent)| format!("{value}e{exponent}")),
        prop::sample::select(vec![
            "",
            "1",
            "0",
            "true",
            "False",
            "NaN",
            "inf",
            "-0",
            "1e400",
            "00ff12e5",
            "1e5",
            "null",
            "2013-09-02T17:00:00Z",
            "2013-09-02T17:00:00.1234567+02:00",
            "2013-09-02T17:00:00",
            "1969-12-31T23:59:59.9999999Z",
        ])
        .prop_map(str::to_owned),
        "[0-9a-zé ]{0,6}",
    ]
}

/// A column of texts in one of the ways in which Arrow lays them out.
type Layout = fn(Vec<Option<&str>>) -> ArrayRef;
type Texts = Vec<[Option<String>; 6]>;

fn texts() -> impl Strategy<Value = Texts> {
    prop::collection::vec(prop::array::uniform6(prop::option::weighted(0.8, spelling())), 1..12)
}

fn columns_by(texts: &Texts, column: impl Fn(Vec<Option<&str>>) -> ArrayRef) -> Vec<ArrayRef> {
    (0..TYPES.len()).map(|field| column(texts.iter().map(|row| row[field].as_deref()).collect())).collect()
}

#[derive(Debug, Clone)]
struct Typed {
    time: i64,
    text: String,
    int: i64,
    double: f64,
    single: f32,
    truth: bool,
}

fn typed() -> impl Strategy<Value = Typed> {
    let time = -60_000_000_000_000_000_i64..60_000_000_000_000_000;
    let finite = prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO;
    let single = prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO;
    (time, "[a-z0-9é\"\\\\]{0,6}", any::<i64>(), finite, single, any::<bool>())
        .prop_map(|(time, text, int, double, single, truth)| Typed { time, text, int, double, single, truth })
}

proptest! {
    #[test]
    fn texts_are_read_alike_in_json_and_in_every_layout_of_arrow(texts in texts()) {
        let quoted = |row: &[Option<String>; 6]| {
            object(&row.each_ref().map(|text| text.as_ref().map(|text| serde_json::to_string(text).unwrap())))
        };
        let json = of_json(&texts.iter().map(quoted).collect::<Vec<_>>());
        let layouts: [Layout; 5] = [
            |texts| Arc::new(StringArray::from(texts)),
            |texts| Arc::new(LargeStringArray::from(texts)),
            |texts| Arc::new(StringViewArray::from(texts)),
            |texts| Arc::new(texts.into_iter().collect::<DictionaryArray<Int32Type>>()),
            |texts| Arc::new(texts.into_iter().collect::<DictionaryArray<Int8Type>>()),
        ];
        for layout in layouts {
            prop_assert_eq!(&of_arrow(columns_by(&texts, layout)), &json);
        }
    }

    /// A bare number of JSON is what its digits are as a text, for every type that a number is a value of.
    #[test]
    fn numbers_are_read_as_their_digits_are(texts in texts()) {
        let as_number = |row: &[Option<String>; 6]| -> [Option<String>; 6] {
            let mut row = row.clone();
            for (text, (_, field_type)) in row.iter_mut().zip(TYPES) {
                let is_number = |text: &String| serde_json::from_str::<&RawNumber>(text).is_ok_and(|raw| raw.get().starts_with(|char: char| char == '-' || char.is_ascii_digit()));
                let is_of_numbers = !matches!(field_type, FieldType::String | FieldType::Bool);
                *text = text.take().filter(|text| is_of_numbers && is_number(text));
            }
            row
        };
        let numbers: Texts = texts.iter().map(as_number).collect();
        let bare: Vec<String> = numbers.iter().map(|row| object(row)).collect();
        let as_texts = columns_by(&numbers, |texts| Arc::new(StringArray::from(texts)));
        prop_assert_eq!(of_json(&bare), of_arrow(as_texts));
    }

    #[test]
    fn typed_values_come_alike_by_rows_arrow_json_and_text(records in prop::collection::vec(typed(), 1..12)) {
        let column = |array: ArrayRef| array;
        let texts = column(Arc::new(StringArray::from_iter_values(records.iter().map(|record| &record.text))));
        let ints: Int64Array = records.iter().map(|record| Some(record.int)).collect();
        let doubles: Float64Array = records.iter().map(|record| Some(record.double)).collect();
        let singles: Float32Array = records.iter().map(|record| Some(record.single)).collect();
        let wide: Float64Array = records.iter().map(|record| Some(f64::from(record.single))).collect();
        let truths: BooleanArray = records.iter().map(|record| Some(record.truth)).collect();
        let micros: Int64Array = records.iter().map(|record| Some(record.time)).collect();
        let times: TimestampMicrosecondArray = records.iter().map(|record| Some(record.time)).collect();
        let typed = of_arrow(vec![
            column(Arc::new(times.with_timezone("UTC"))), Arc::clone(&texts), column(Arc::new(ints.clone())), column(Arc::new(doubles.clone())),
            column(Arc::new(singles)), column(Arc::new(truths.clone())),
        ]);
        prop_assert!(typed.1.is_empty());
        let other = of_arrow(vec![
            column(Arc::new(micros)), texts, column(Arc::new(ints)), column(Arc::new(doubles)),
            column(Arc::new(wide)), column(Arc::new(truths)),
        ]);
        prop_assert_eq!(&other, &typed);
        let objects = records.iter().map(|Typed { time, text, int, double, single, truth }| {
            let text = serde_json::to_string(text).unwrap();
            object(&[time.to_string(), text, int.to_string(), format!("{double:?}"), format!("{single:?}"), truth.to_string()].map(Some))
        });
        prop_assert_eq!(&of_json(&objects.collect::<Vec<_>>()), &typed);
        let spelled = records.iter().map(|record| {
            let time = jiff::Timestamp::from_microsecond(record.time).unwrap().to_string();
            let (int, double, single) = (record.int.to_string(), record.double.to_string(), record.single.to_string());
            [time, record.text.clone(), int, double, single, record.truth.to_string()].map(Some)
        });
        let spelled: Texts = spelled.collect();
        prop_assert_eq!(&of_arrow(columns_by(&spelled, |texts| Arc::new(StringArray::from(texts)))), &typed);
        let stream = test_stream(&TYPES, Undeclared::Refuse);
        let (mut columns, plan) = (Columns::new(&stream, records.len()), rows::Plan::new(&stream));
        for Typed { time, text, int, double: wide, single, truth } in &records {
            let mut bytes = Vec::new();
            int64::encode(1, time, &mut bytes);
            string::encode(2, text, &mut bytes);
            int64::encode(3, int, &mut bytes);
            double::encode(4, wide, &mut bytes);
            float::encode(5, single, &mut bytes);
            prost::encoding::bool::encode(6, truth, &mut bytes);
            rows::row(&mut columns, &plan, &bytes);
        }
        let (columns, refusals, _) = columns.into_parts().unwrap();
        prop_assert_eq!(&shown(&columns, &refusals), &typed);
    }

    /// A double that is whole, as pandas makes of an integer column with gaps, is that integer; any other is refused.
    #[test]
    fn doubles_of_an_integer_are_the_integers_that_they_are(values in prop::collection::vec(
        prop_oneof![(-1_i64 << 53..=1 << 53).prop_map(|value| value as f64), any::<f64>()], 1..12,
    )) {
        let others = |rows: usize| columns_by(&vec![Default::default(); rows], |texts| Arc::new(StringArray::from(texts)));
        let with = |column: ArrayRef| {
            let mut columns = others(values.len());
            columns[2] = column;
            of_arrow(columns)
        };
        let spelled = values.iter().map(|value| {
            let is_exact = value.abs() <= (1_u64 << 53) as f64;
            if is_exact { format!("{value}") } else { "none".to_owned() }
        });
        let texts = StringArray::from_iter_values(spelled);
        prop_assert_eq!(with(Arc::new(Float64Array::from(values.clone()))), with(Arc::new(texts)));
    }
}

type RawNumber = serde_json::value::RawValue;

#[test]
fn a_record_has_one_refusal_and_the_refusals_stand_in_order() {
    let mut columns = columns_by(&vec![Default::default(); 3], |texts| Arc::new(StringArray::from(texts)));
    columns[2] = Arc::new(StringArray::from(vec!["1", "x", "x"]));
    columns[3] = Arc::new(StringArray::from(vec!["x", "x", "1"]));
    let wrong = |index, field: &str| (index, Reason::WrongType, Some(field.to_owned()));
    assert_eq!(of_arrow(columns).1, [wrong(0, "f4"), wrong(1, "f3"), wrong(2, "f3")]);
}

#[test]
fn unsigned_numbers_beyond_the_signed_ones_and_singles_that_overflow_are_refused() {
    let mut columns = columns_by(&vec![Default::default(); 2], |texts| Arc::new(StringArray::from(texts)));
    columns[0] = Arc::new(UInt64Array::from(vec![7, u64::MAX]));
    columns[4] = Arc::new(Float64Array::from(vec![1e39, f64::INFINITY]));
    let wrong = |index, field: &str| (index, Reason::WrongType, Some(field.to_owned()));
    assert_eq!(of_arrow(columns).1, [wrong(0, "f5"), wrong(1, "f1")]);
}
