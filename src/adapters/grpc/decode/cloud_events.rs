//! A CloudEvents batch: the data of each event is one record.

use std::sync::Arc;

use crate::adapters::grpc::proto::cloudevents::CloudEventBatch;
use crate::adapters::grpc::proto::cloudevents::cloud_event::Data;
use crate::adapters::grpc::proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use crate::domain::refusal::Reason;
use crate::domain::stream::Stream;

use super::columns::Columns;
use super::{Decoded, Undecodable, json, rows};

/// Decodes a batch. Text data is JSON; binary data is JSON unless `datacontenttype` says protobuf; an `Any`
/// holds a protobuf row.
///
/// # Errors
/// When there are too many records.
pub fn decode(stream: &Arc<Stream>, batch: &CloudEventBatch, rows_max: usize) -> Result<Decoded, Undecodable> {
    if batch.events.len() > rows_max {
        return Err(Undecodable::too_many_rows(rows_max));
    }
    let mut columns = Columns::new(stream, batch.events.len());
    let plan = rows::Plan::new(stream);
    for event in &batch.events {
        let content_type = event.attributes.get("datacontenttype").and_then(|value| value.attr.as_ref());
        let is_protobuf = matches!(content_type, Some(Attr::CeString(name)) if name.contains("protobuf"));
        match &event.data {
            Some(Data::TextData(text)) => json::row(&mut columns, text.as_bytes()),
            Some(Data::BinaryData(bytes)) if is_protobuf => rows::row(&mut columns, &plan, bytes),
            Some(Data::BinaryData(bytes)) => json::row(&mut columns, bytes),
            Some(Data::ProtoData(any)) => rows::row(&mut columns, &plan, &any.value),
            None => {
                columns.refuse(Reason::MalformedRecord, None);
                columns.end_row();
            }
        }
    }
    columns.finish()
}
