//! CSV and JSON lines, plain or gzipped, as batches of records.
//!
//! A CSV column's type is that of all its values in the batch: whole numbers, numbers, true/false, RFC 3339
//! times, else text; empty cells are null. The gateway casts where no value changes its meaning.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{Field, Schema};
use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use prost::Message;

use crate::adapters::grpc::proto::cloudevents::cloud_event::Data;
use crate::adapters::grpc::proto::cloudevents::{CloudEvent, CloudEventBatch};
use crate::adapters::grpc::proto::ingest::publish_request::Payload;

/// Where records come from.
#[derive(Debug, Clone)]
pub enum Input {
    /// A file: `.csv`, `.jsonl` or `.ndjson`, perhaps with `.gz`.
    File(PathBuf),
    /// JSON lines on stdin.
    Stdin,
}

/// A batch of records on its way.
pub enum Records {
    /// From CSV.
    Columns(RecordBatch),
    /// From JSON lines, as they stand.
    Lines(Vec<String>),
}

impl Records {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Columns(columns) => columns.num_rows(),
            Self::Lines(lines) => lines.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those at some positions.
    pub(super) fn select(&self, positions: &[u32]) -> anyhow::Result<Self> {
        Ok(match self {
            Self::Columns(columns) => {
                let positions = UInt32Array::from(positions.to_vec());
                Self::Columns(arrow_select::take::take_record_batch(columns, &positions)?)
            }
            Self::Lines(lines) => {
                Self::Lines(positions.iter().filter_map(|&position| lines.get(position as usize).cloned()).collect())
            }
        })
    }

    /// As a request's payload.
    pub(in crate::commands) fn payload(&self) -> anyhow::Result<Payload> {
        Ok(match self {
            Self::Columns(columns) => {
                let mut writer = StreamWriter::try_new(Vec::new(), &columns.schema())?;
                writer.write(columns)?;
                Payload::ArrowIpc(writer.into_inner()?.into())
            }
            Self::Lines(lines) => {
                let events = lines
                    .iter()
                    .map(|line| CloudEvent { data: Some(Data::TextData(line.clone())), ..CloudEvent::default() });
                Payload::CloudEvents(CloudEventBatch { events: events.collect() }.encode_to_vec().into())
            }
        })
    }
}

type Batches = Box<dyn Iterator<Item = anyhow::Result<Records>> + Send>;

impl Input {
    /// The records, in batches.
    pub(in crate::commands) fn open(&self, batch: usize, text: &[String]) -> anyhow::Result<Batches> {
        let Self::File(path) = self else {
            return Ok(lines(Box::new(BufReader::new(io::stdin())), batch));
        };
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.to_string_lossy().into_owned();
        let (name, reader): (_, Box<dyn Read + Send>) = match name.strip_suffix(".gz") {
            Some(name) => (name.to_owned(), Box::new(MultiGzDecoder::new(BufReader::new(file)))),
            None => (name, Box::new(file)),
        };
        if name.ends_with(".csv") {
            return csv(reader, batch, text.to_vec(), path.display().to_string());
        }
        if name.ends_with(".jsonl") || name.ends_with(".ndjson") || name.ends_with(".json") {
            return Ok(lines(Box::new(BufReader::new(reader)), batch));
        }
        Err(anyhow!("{}: neither .csv nor .jsonl (.gz may follow)", path.display()))
    }
}

fn lines(reader: Box<dyn BufRead + Send>, batch: usize) -> Batches {
    let mut lines = reader.lines();
    Box::new(std::iter::from_fn(move || {
        let read: io::Result<Vec<String>> = lines
            .by_ref()
            .filter(|line| line.as_ref().map_or(true, |line| !line.trim().is_empty()))
            .take(batch)
            .collect();
        match read {
            Ok(read) if read.is_empty() => None,
            read => Some(read.map(Records::Lines).context("cannot read a line")),
        }
    }))
}

fn csv(reader: Box<dyn Read + Send>, batch: usize, text: Vec<String>, path: String) -> anyhow::Result<Batches> {
    let mut reader = csv::Reader::from_reader(reader);
    let header: Vec<String> =
        reader.headers().with_context(|| format!("{path}: no header"))?.iter().map(str::to_owned).collect();
    let mut records = reader.into_records();
    Ok(Box::new(std::iter::from_fn(move || {
        let read: Result<Vec<csv::StringRecord>, _> = records.by_ref().take(batch).collect();
        match read {
            Ok(rows) if rows.is_empty() => None,
            Ok(rows) => Some(columns(&header, &rows, &text)),
            Err(error) => Some(Err(error).with_context(|| format!("{path}: malformed CSV"))),
        }
    })))
}

fn columns(header: &[String], rows: &[csv::StringRecord], text: &[String]) -> anyhow::Result<Records> {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (position, name) in header.iter().enumerate() {
        let cells: Vec<Option<&str>> =
            rows.iter().map(|row| row.get(position).filter(|cell| !cell.is_empty())).collect();
        let column = column(&cells, text.contains(name));
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    }
    Ok(Records::Columns(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?))
}

fn column(cells: &[Option<&str>], is_text: bool) -> ArrayRef {
    if !is_text {
        if let Some(values) = parse(cells, |cell| cell.parse::<i64>().ok()) {
            return Arc::new(Int64Array::from(values));
        }
        if let Some(values) = parse(cells, |cell| cell.parse::<f64>().ok()) {
            return Arc::new(Float64Array::from(values));
        }
        if let Some(values) = parse(cells, |cell| cell.parse::<bool>().ok()) {
            return Arc::new(BooleanArray::from(values));
        }
        if let Some(values) = parse(cells, |cell| cell.parse::<Timestamp>().ok().map(Timestamp::as_microsecond)) {
            return Arc::new(TimestampMicrosecondArray::from(values));
        }
    }
    Arc::new(StringArray::from(cells.to_vec()))
}

/// The values, if every cell has one or is empty and not all are empty.
fn parse<T>(cells: &[Option<&str>], parse: impl Fn(&str) -> Option<T>) -> Option<Vec<Option<T>>> {
    if cells.iter().all(Option::is_none) {
        return None;
    }
    cells.iter().map(|cell| cell.map_or(Some(None), |cell| parse(cell).map(Some))).collect()
}
