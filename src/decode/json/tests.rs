use std::sync::Arc;

use arrow_array::RecordBatch;
use proptest::prelude::*;

use super::*;
use crate::decode::test_stream;
use crate::domain::refusal::Refusal;
use crate::domain::stream::{FieldType, Stream, Undeclared};

const TYPES: [(u32, FieldType); 6] = [
    (1, FieldType::Timestamp),
    (2, FieldType::String),
    (3, FieldType::Int64),
    (4, FieldType::Float64),
    (5, FieldType::Float32),
    (6, FieldType::Bool),
];

fn stream(undeclared: Undeclared) -> Arc<Stream> {
    test_stream(&TYPES, undeclared)
}

fn read_one(undeclared: Undeclared, text: &str) -> (RecordBatch, Vec<Refusal>, u32) {
    let stream = stream(undeclared);
    let mut columns = Columns::new(&stream, 1);
    row(&mut columns, text.as_bytes());
    columns.into_parts().unwrap()
}

/// The columns of one record that is taken, as text.
fn taken(text: &str) -> String {
    let (columns, refusals, _) = read_one(Undeclared::Refuse, text);
    assert!(refusals.is_empty(), "{text}: {refusals:?}");
    let shown = columns.columns().iter().map(|column| {
        let value = format!("{column:?}");
        value
            .split("[\n")
            .nth(1)
            .unwrap_or_default()
            .trim_matches(|char: char| char.is_whitespace() || "],".contains(char))
            .to_owned()
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn refused(undeclared: Undeclared, text: &str) -> (Reason, Option<String>) {
    let (_, refusals, _) = read_one(undeclared, text);
    let [refusal] = refusals.as_slice() else { panic!("{text}: {refusals:?}") };
    (refusal.reason, refusal.field.as_deref().map(str::to_owned))
}

#[test]
fn values_are_read_by_the_declared_type_and_not_by_how_they_look() {
    let plain = taken(r#"{"f1": 1000000, "f2": "0e5", "f3": 7, "f4": 1.0, "f5": 0.5, "f6": true}"#);
    assert_eq!(plain, r#"1970-01-01T00:00:01 "0e5" 7 1.0 0.5 true"#);
    let spelled =
        taken(r#"{"f1": "1970-01-01T01:00:01+01:00", "f2": "0e5", "f3": "7.0", "f4": "1", "f5": "5e-1", "f6": "1"}"#);
    assert_eq!(spelled, plain);
    let numbers = taken(r#"{"f1": 1e6, "f2": "0\u00655", "f3": 70e-1, "f4": 1, "f5": 5E-1, "f6": "True"}"#);
    assert_eq!(numbers, plain);
}

#[test]
fn numbers_are_exact() {
    assert_eq!(taken(r#"{"f3": 9007199254740993.0}"#), "null null 9007199254740993 null null null");
    assert_eq!(taken(r#"{"f3": -0, "f4": -0}"#), "null null 0 -0.0 null null");
    for text in [r#"{"f3": 9223372036854775808}"#, r#"{"f3": 1e19}"#, r#"{"f3": 0.5}"#] {
        assert_eq!(refused(Undeclared::Refuse, text), (Reason::WrongType, Some("f3".to_owned())), "{text}");
    }
    // No double, or no single, is near it: the field is at fault, not the record.
    assert_eq!(refused(Undeclared::Refuse, r#"{"f4": 1e400}"#), (Reason::WrongType, Some("f4".to_owned())));
    assert_eq!(refused(Undeclared::Refuse, r#"{"f5": 1e39}"#), (Reason::WrongType, Some("f5".to_owned())));
}

#[test]
fn what_is_of_another_kind_is_refused_by_its_field() {
    for (text, field) in [
        (r#"{"f2": 1}"#, "f2"),
        (r#"{"f2": true}"#, "f2"),
        (r#"{"f3": true}"#, "f3"),
        (r#"{"f6": 1}"#, "f6"),
        (r#"{"f6": "yes"}"#, "f6"),
        (r#"{"f4": ""}"#, "f4"),
        (r#"{"f4": [1]}"#, "f4"),
        (r#"{"f4": {"f4": 1}}"#, "f4"),
        (r#"{"f1": "1970-01-01T00:00:00"}"#, "f1"),
    ] {
        assert_eq!(refused(Undeclared::Refuse, text), (Reason::WrongType, Some(field.to_owned())), "{text}");
    }
}

#[test]
fn a_key_that_stands_twice_refuses_the_record() {
    let named = |field: &str| (Reason::MalformedRecord, Some(field.to_owned()));
    for text in [
        r#"{"f2": "DE", "f2": "US"}"#,
        r#"{"f2": "DE", "f3": 1, "f2": "DE"}"#,
        r#"{"f2": "DE", "f2": null}"#,
        r#"{"f2": null, "f2": "US"}"#,
        r#"{"f2": "DE", "\u00662": "US"}"#,
    ] {
        assert_eq!(refused(Undeclared::Drop, text), named("f2"), "{text}");
    }
    for text in [r#"{"x": 1, "x": 1}"#, r#"{"x": {"a": 1, "a": 2}}"#, r#"{"x": [[{"a": {"b": 1, "c": 2, "b": 3}}]]}"#] {
        assert_eq!(refused(Undeclared::Drop, text), (Reason::MalformedRecord, None), "{text}");
    }
    let (_, refusals, dropped) = read_one(Undeclared::Drop, r#"{"x": {"a": [{"a": 1}, {"a": 1}]}, "y": {"a": 1}}"#);
    assert_eq!((refusals.len(), dropped), (0, 2));
}

#[test]
fn a_key_may_stand_in_every_record() {
    let stream = stream(Undeclared::Refuse);
    let mut columns = Columns::new(&stream, 3);
    for text in [r#"{"f3": 1}"#, r#"{"f3": 2}"#, r#"{"f3": 3}"#] {
        row(&mut columns, text.as_bytes());
    }
    assert!(columns.into_parts().unwrap().1.is_empty());
}

#[test]
fn a_byte_order_mark_is_skipped() {
    assert_eq!(taken("\u{feff}{\"f3\": 1}"), "null null 1 null null null");
}

#[test]
fn what_is_no_object_refuses_the_record() {
    for text in [
        "",
        "null",
        "[]",
        "1",
        "{",
        "{}x",
        "{\"f3\": 1,}",
        "{\"f3\": 01}",
        "{\"f3\": +1}",
        "{\"f3\": .5}",
        "{\"f3\": NaN}",
        "{\"f2\": \"\\ud800\"}",
        "{\"f2\": \"a\u{1}\"}",
        "{\"f2\": \"\\x\"}",
        "\u{feff}\u{feff}{}",
    ] {
        assert_eq!(refused(Undeclared::Refuse, text), (Reason::MalformedRecord, None), "{text}");
    }
    let stream = stream(Undeclared::Refuse);
    let mut columns = Columns::new(&stream, 1);
    row(&mut columns, b"{\"f2\": \"\xff\"}");
    assert_eq!(columns.into_parts().unwrap().1.len(), 1);
}

proptest! {
    /// A double arrives with the very bits that it was sent with, however it is written.
    #[test]
    fn doubles_come_as_they_were_sent(bits: u64) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        for spelled in [serde_json::to_string(&value).unwrap(), format!("{value}"), format!("\"{value:e}\"")] {
            let (columns, refusals, _) = read_one(Undeclared::Refuse, &format!("{{\"f4\": {spelled}}}"));
            prop_assert!(refusals.is_empty());
            let column = columns.column(3).to_data();
            prop_assert_eq!(column.buffers()[0].typed_data::<u64>()[0], bits, "{}", spelled);
        }
    }

    /// Any text is read as serde_json reads it, or refused with it.
    #[test]
    fn strings_are_those_of_a_plain_reader(text in "(\\\\[\"\\\\/bfnrtux0]|\\\\u[0-9a-fD]{4}|\\PC|[\"\n])*") {
        let object = format!("{{\"f2\": \"{text}\"}}");
        let (columns, refusals, _) = read_one(Undeclared::Drop, &object);
        match serde_json::from_str::<serde_json::Value>(&object) {
            Ok(read) => {
                let strings = columns.column(1).as_any().downcast_ref::<arrow_array::StringArray>().unwrap();
                if refusals.is_empty() {
                    prop_assert_eq!(strings.value(0), read["f2"].as_str().unwrap());
                } else {
                    // The text closed the string and went on with a key of its own.
                    prop_assert!(text.contains('"'));
                }
            }
            Err(_) => prop_assert_eq!(refusals.len(), 1),
        }
    }
}
