//! A CloudEvents batch: the data of each event is one record.
//!
//! The bytes are walked and no message is built of them: an empty event is two bytes on the wire, and more than a
//! hundred in memory.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::refusal::Reason;
use crate::domain::stream::Stream;

use super::columns::Columns;
use super::counted::Counted;
use super::wire::{BYTES, bytes, skip, tag};
use super::{Limits, Undecodable, json, rows};

/// Counts the events of an encoded `CloudEventBatch`.
///
/// # Errors
/// When it is none, or holds too many.
pub fn open(stream: &Arc<Stream>, batch: Bytes, limits: Limits) -> Result<Counted, Undecodable> {
    Counted::new(stream, batch, limits, "the payload is not a protobuf message of CloudEvents", event)
}

/// Adds the records to columns. Text data is JSON, and `datacontenttype` must not say otherwise; binary data is JSON
/// unless it says protobuf; an `Any` holds a protobuf row. A malformed event is refused alone.
pub(super) fn fill(counted: &Counted, columns: &mut Columns<'_>, plan: &rows::Plan) {
    let mut rest = counted.payload.as_ref();
    while let Some((found, after)) = event(rest) {
        if let Some(event) = found {
            row(columns, plan, event);
        }
        rest = after;
    }
}

/// The next field of the batch: an event, or something that is not known. And what comes after it.
fn event(rest: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    match tag(rest)? {
        ((1, BYTES), rest) => bytes(rest).map(|(event, rest)| (Some(event), rest)),
        ((1, _), _) => None,
        (other, rest) => Some((None, skip(other, rest)?)),
    }
}

fn row(columns: &mut Columns<'_>, plan: &rows::Plan, event: &[u8]) {
    match Event::read(event) {
        Some(Event { data: Some(Data::Text(text)), content: Content::Json }) => json::row(columns, without_mark(text)),
        Some(Event { data: Some(Data::Text(_)), .. }) => refuse(columns, Reason::WrongType, Some("datacontenttype")),
        Some(Event { data: Some(Data::Binary(bytes)), content }) => match content {
            Content::Protobuf => rows::row(columns, plan, bytes),
            Content::Json => json::row(columns, without_mark(bytes)),
            Content::Other => refuse(columns, Reason::WrongType, Some("datacontenttype")),
        },
        Some(Event { data: Some(Data::Any { name, value }), .. }) if is_row(name) => rows::row(columns, plan, value),
        Some(Event { data: Some(Data::Any { .. }), .. }) => refuse(columns, Reason::WrongType, Some("proto_data")),
        Some(Event { data: None, .. }) | None => refuse(columns, Reason::MalformedRecord, None),
    }
}

fn refuse(columns: &mut Columns<'_>, reason: Reason, field: Option<&str>) {
    columns.refuse(reason, field.map(Into::into));
    columns.end_row();
}

/// JSON text without the byte order mark that some writers put before it.
fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// What an event says that is looked at.
struct Event<'e> {
    content: Content,
    data: Option<Data<'e>>,
}

enum Data<'e> {
    Binary(&'e [u8]),
    Text(&'e [u8]),
    Any { name: &'e [u8], value: &'e [u8] },
}

impl<'e> Event<'e> {
    fn read(mut rest: &'e [u8]) -> Option<Self> {
        let mut event = Event { content: Content::Json, data: None };
        while !rest.is_empty() {
            let (tag, after) = tag(rest)?;
            // Of the data the last one holds, as in other readers of protobuf.
            rest = match tag {
                (5, BYTES) => {
                    let (attribute, after) = bytes(after)?;
                    event.content = content_type(attribute)?.map_or(event.content, Content::of);
                    after
                }
                (6, BYTES) => {
                    let (data, after) = bytes(after)?;
                    event.data = Some(Data::Binary(data));
                    after
                }
                (7, BYTES) => {
                    let (data, after) = bytes(after)?;
                    event.data = Some(Data::Text(data));
                    after
                }
                (8, BYTES) => {
                    let (data, after) = bytes(after)?;
                    event.data = Some(any(data)?);
                    after
                }
                (5..=8, _) => return None,
                other => skip(other, after)?,
            };
        }
        Some(event)
    }
}

/// The fields of a message that are length-delimited and have one of these numbers; the last of each.
fn texts<const N: usize>(mut rest: &[u8], numbers: [u32; N]) -> Option<[Option<&[u8]>; N]> {
    let mut found = [None; N];
    while !rest.is_empty() {
        let (tag, after) = tag(rest)?;
        rest = match numbers.iter().position(|number| *number == tag.0).and_then(|at| found.get_mut(at)) {
            Some(place) if tag.1 == BYTES => {
                let (text, after) = bytes(after)?;
                *place = Some(text);
                after
            }
            Some(_) => return None,
            None => skip(tag, after)?,
        };
    }
    Some(found)
}

/// The value of an entry of `attributes`, if it is `datacontenttype` and a text. The outer `None`: it is malformed.
fn content_type(attribute: &[u8]) -> Option<Option<&[u8]>> {
    let [key, value] = texts(attribute, [1, 2])?;
    if key != Some(b"datacontenttype") {
        return Some(None);
    }
    let [text] = texts(value.unwrap_or_default(), [3])?;
    Some(text)
}

fn any(message: &[u8]) -> Option<Data<'_>> {
    let [url, value] = texts(message, [1, 2])?;
    let url = url.unwrap_or_default();
    let name = url.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    Some(Data::Any { name, value: value.unwrap_or_default() })
}

/// Whether the full name of a message may be that of a row: `bailiwick proto` names it `bailiwick.rows.STREAM.Row`, and
/// whoever compiles it may have put it into another package. Without a name it is believed.
fn is_row(name: &[u8]) -> bool {
    name.is_empty() || name.rsplit(|byte| *byte == b'.').next() == Some(b"Row")
}

/// What data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Json,
    Protobuf,
    Other,
}

impl Content {
    /// Of a media type: letter case and parameters do not count, and a structured suffix says the format.
    fn of(media_type: &[u8]) -> Self {
        let essence = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let essence = essence.to_ascii_lowercase();
        let subtype = essence.splitn(2, |byte| *byte == b'/').nth(1).unwrap_or_default();
        let format = subtype.rsplit(|byte| *byte == b'+').next().unwrap_or_default();
        match format {
            b"json" => Self::Json,
            b"protobuf" | b"x-protobuf" | b"vnd.google.protobuf" => Self::Protobuf,
            // What says nothing of its format has always been read as JSON.
            b"" | b"octet-stream" | b"plain" => Self::Json,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests;
