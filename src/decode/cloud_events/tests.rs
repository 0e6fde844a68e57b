//! The walk against prost's reading of the same bytes, and what has a bound.

use std::sync::Arc;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use prost::Message;

use super::{Bytes, Columns, Limits, Reason, Undecodable, fill, open, rows};
use crate::domain::stream::{FieldType, Stream, Undeclared};
use crate::ingress::proto::cloudevents::cloud_event::CloudEventAttributeValue;
use crate::ingress::proto::cloudevents::cloud_event::Data as Wire;
use crate::ingress::proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use crate::ingress::proto::cloudevents::{CloudEvent, CloudEventBatch};

use super::super::test_stream;

fn stream() -> Arc<Stream> {
    test_stream(&[(1, FieldType::Int64), (2, FieldType::String)], Undeclared::Refuse)
}

const LIMITS: Limits = Limits { rows_max: 1_000, bytes_max: 1 << 20 };

fn event(content_type: Option<&str>, data: Option<Wire>) -> CloudEvent {
    let mut event = CloudEvent { id: "1".into(), source: "s".into(), data, ..CloudEvent::default() };
    if let Some(name) = content_type {
        let value = CloudEventAttributeValue { attr: Some(Attr::CeString(name.into())) };
        event.attributes.insert("datacontenttype".into(), value);
    }
    event
}

fn encoded(events: Vec<CloudEvent>) -> Bytes {
    CloudEventBatch { events }.encode_to_vec().into()
}

/// The value of `f1`, or why the event was refused and of which field.
type Read = Result<Option<i64>, (Reason, Option<String>)>;

fn decoded(batch: Bytes) -> Result<Vec<Read>, Undecodable> {
    let opened = open(&stream(), batch, LIMITS)?;
    let mut columns = Columns::new(&opened.stream, opened.rows);
    fill(&opened, &mut columns, &rows::Plan::new(&opened.stream));
    let (columns, refusals, _) = columns.into_parts()?;
    let values = columns.column(0).as_primitive::<Int64Type>();
    let mut all: Vec<_> =
        (0..columns.num_rows()).map(|row| Ok(values.is_valid(row).then(|| values.value(row)))).collect();
    for refusal in refusals {
        all[refusal.index as usize] = Err((refusal.reason, refusal.field.map(|field| field.to_string())));
    }
    Ok(all)
}

fn one(event: CloudEvent) -> Read {
    decoded(encoded(vec![event])).unwrap().remove(0)
}

#[test]
fn a_content_type_is_a_media_type() {
    let binary = |bytes: &[u8]| Some(Wire::BinaryData(bytes.to_vec().into()));
    for name in [
        "application/protobuf",
        "Application/X-Protobuf",
        "application/vnd.google.protobuf; proto=a.B",
        "application/cloud+protobuf",
    ] {
        assert_eq!(one(event(Some(name), binary(&[8, 7]))), Ok(Some(7)), "{name}");
    }
    for name in ["application/json", "APPLICATION/JSON; charset=utf-8", "application/vnd.x.protobuf+json", "text/json"]
    {
        assert_eq!(one(event(Some(name), binary(br#"{"f1":7}"#))), Ok(Some(7)), "{name}");
    }
    let refused = Err((Reason::WrongType, Some("datacontenttype".into())));
    for name in ["application/xml", "application/avro", "image/svg+xml"] {
        assert_eq!(one(event(Some(name), binary(br#"{"f1":7}"#))), refused, "{name}");
    }
    assert_eq!(one(event(None, binary(br#"{"f1":7}"#))), Ok(Some(7)));
    let text = || Some(Wire::TextData("{\"f1\":7}".into()));
    for name in ["application/json", "text/plain", "application/vnd.x+json; charset=utf-8"] {
        assert_eq!(one(event(Some(name), text())), Ok(Some(7)), "{name}");
    }
    for name in ["application/xml", "text/csv", "application/protobuf"] {
        assert_eq!(one(event(Some(name), text())), refused, "{name}");
    }
}

#[test]
fn an_any_of_another_message_is_refused_by_name() {
    let any = |url: &str| Some(Wire::ProtoData(prost_types::Any { type_url: url.into(), value: vec![8, 7] }));
    for url in ["", "type.googleapis.com/bailiwick.rows.s.Row", "example.org/my.own.Row"] {
        assert_eq!(one(event(None, any(url))), Ok(Some(7)), "{url}");
    }
    let refused = Err((Reason::WrongType, Some("proto_data".into())));
    for url in ["type.googleapis.com/other.Message", "type.googleapis.com/bailiwick.rows.s.Rows"] {
        assert_eq!(one(event(None, any(url))), refused, "{url}");
    }
}

#[test]
fn a_byte_order_mark_before_json_is_skipped() {
    assert_eq!(one(event(None, Some(Wire::TextData("\u{feff}{\"f1\":7}".into())))), Ok(Some(7)));
    assert_eq!(one(event(None, Some(Wire::BinaryData("\u{feff}{\"f1\":7}".into())))), Ok(Some(7)));
}

#[test]
fn a_malformed_event_is_refused_alone_and_what_is_unknown_is_skipped() {
    // An event of one field with a length beyond its end; then a good one, with a group and an unknown field.
    let good =
        [vec![0x4b, 0x08, 1, 0x4c, 0x7a, 1, 0], event(None, Some(Wire::TextData("{\"f1\":7}".into()))).encode_to_vec()];
    let good = good.concat();
    let batch = [vec![0x0a, 2, 0x3a, 9, 0x50, 1, 0x0a, good.len() as u8], good].concat();
    let found = decoded(batch.into()).unwrap();
    assert_eq!(found, [Err((Reason::MalformedRecord, None)), Ok(Some(7))]);
}

/// 8 MiB of empty events are refused by their number, and those that are taken cost what they are charged.
#[test]
fn events_beyond_the_limits_are_refused_before_anything_is_built() {
    let empty = |events: usize| Bytes::from([0x0a, 0].repeat(events));
    assert_eq!(open(&stream(), empty(4 << 20), LIMITS).err().unwrap().reason, Reason::TooManyRows);
    let limits = Limits { rows_max: usize::MAX, bytes_max: 1 << 20 };
    let refused = open(&stream(), empty(4 << 20), limits).err().unwrap();
    assert_eq!(refused.reason, Reason::TooLarge);
    let opened = open(&stream(), empty(5_000), limits).unwrap();
    assert_eq!(crate::decode::Opened::Events(opened).decode().unwrap().candidate.rows(), 5_000);
}

fn any_event() -> impl Strategy<Value = CloudEvent> {
    let data = prop_oneof![
        Just(None),
        any::<i64>().prop_map(|value| Some(Wire::TextData(format!("{{\"f1\":{value}}}")))),
        any::<i64>().prop_map(|value| Some(Wire::BinaryData(format!("{{\"f1\":{value}}}").into()))),
        (0..100_u8).prop_map(|value| Some(Wire::ProtoData(prost_types::Any {
            type_url: String::new(),
            value: vec![8, value]
        }))),
    ];
    (prop::option::of(Just("application/json")), data).prop_map(|(name, data)| event(name, data))
}

proptest! {
    #[test]
    fn a_spoiled_batch_is_what_prost_reads_or_refused(
        events in prop::collection::vec(any_event(), 0..6),
        spoiled in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut batch = encoded(events).to_vec();
        for (at, byte) in spoiled {
            if !batch.is_empty() {
                let at = at.index(batch.len());
                batch[at] = byte;
            }
        }
        batch.truncate(cut.map_or(batch.len(), |cut| cut.index(batch.len() + 1)));
        let expected = CloudEventBatch::decode(batch.as_slice());
        let found = decoded(batch.into());
        // Prost refuses all for one malformed event; whatever it takes is taken, and comes to the same.
        if let Ok(expected) = expected {
            let found = found.unwrap();
            prop_assert_eq!(found.len(), expected.events.len());
            for (event, found) in expected.events.iter().zip(found) {
                let value = match &event.data {
                    Some(Wire::TextData(text)) if event.attributes.is_empty() => value_of(text.as_bytes()),
                    Some(Wire::BinaryData(bytes)) if event.attributes.is_empty() => value_of(bytes),
                    _ => continue,
                };
                prop_assert_eq!(found.ok().flatten(), value);
            }
        }
    }
}

fn value_of(text: &[u8]) -> Option<i64> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    let object = value.as_object()?;
    (object.len() == 1).then(|| object.get("f1")?.as_i64())?
}
