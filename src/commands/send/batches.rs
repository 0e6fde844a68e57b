//! A text as batches of records, each with the line that it begins on.
//!
//! Nothing is read into a value here: CSV cells are sent as texts, JSON objects as they stand, and the gateway reads
//! them by the types that it declares. The same bytes are always cut into the same batches.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{Field, Schema};
use prost::Message;

use crate::domain::quotes::{self, Misquoted};
use crate::ingress::proto::cloudevents::cloud_event::Data;
use crate::ingress::proto::cloudevents::{CloudEvent, CloudEventBatch};
use crate::ingress::proto::ingest::publish_request::Payload;

use super::input::{Format, Input, Opened, Sum};

/// A batch ends with the record that brings it to so many bytes, so that requests stay well below what a gateway takes.
const BATCH_BYTES: usize = 1 << 20;
/// The longest record. What is longer is no record, but a line end or a quote that is missing.
const RECORD_BYTES_MAX: usize = 8 << 20;

/// Records on their way.
pub enum Records {
    /// From CSV: columns of texts.
    Columns(RecordBatch),
    /// From JSON lines, as they stand.
    Lines(Vec<String>),
}

/// Records of one input, in a row.
pub struct Batch {
    /// The records.
    pub records: Records,
    /// The line that each of them begins on, from 1.
    pub lines: Vec<u64>,
    /// What stood between them and is no record.
    pub malformed: Vec<Malformed>,
    /// The input's name.
    pub name: Arc<str>,
}

/// What is no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The line that it begins on, from 1.
    pub line: u64,
    /// What is wrong, without contents.
    pub what: String,
}

/// The batches of an input.
pub struct Batches {
    name: Arc<str>,
    size: usize,
    reader: Reader,
    opened: super::input::Hash,
}

enum Reader {
    Csv { header: Vec<String>, rows: csv::Reader<Bounded> },
    Lines { text: Box<dyn BufRead + Send>, line: u64, has_begun: bool },
}

/// A text of which only so much is read on, and which knows on which lines its records begin.
struct Bounded {
    text: Box<dyn BufRead + Send>,
    left: usize,
    /// What was read ahead, from `base` on. Of it, what comes before `passed` is not needed any more.
    ahead: Vec<u8>,
    base: u64,
    passed: usize,
    /// The line on which what comes next begins.
    line: u64,
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

    fn select(&self, positions: &[u32]) -> anyhow::Result<Self> {
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

impl Batch {
    /// The records at some positions.
    pub(super) fn select(&self, positions: &[u32]) -> anyhow::Result<Self> {
        let lines = positions.iter().filter_map(|&position| self.lines.get(position as usize).copied());
        Ok(Self {
            records: self.records.select(positions)?,
            lines: lines.collect(),
            malformed: Vec::new(),
            name: Arc::clone(&self.name),
        })
    }
}

impl Input {
    /// The records, in batches of at most so many.
    pub(in crate::commands) fn batches(&self, batch: usize) -> anyhow::Result<Batches> {
        Batches::new(self.open()?, self.name().into(), batch)
    }
}

impl Batches {
    pub(super) fn new(opened: Opened, name: Arc<str>, size: usize) -> anyhow::Result<Self> {
        let reader = match opened.format {
            Format::Lines => Reader::Lines { text: opened.text, line: 0, has_begun: false },
            Format::Csv => {
                let text = Bounded::new(opened.text);
                let mut rows = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
                let header = header(&mut rows).with_context(|| format!("{name}, the header"))?;
                Reader::Csv { header, rows }
            }
        };
        Ok(Self { name, size, reader, opened: opened.hash })
    }

    /// The next batch. `None`: there is nothing more.
    ///
    /// # Errors
    /// When the input cannot be read on. What was read before stands.
    pub(in crate::commands) fn next(&mut self) -> anyhow::Result<Option<Batch>> {
        let (records, lines, malformed) = match &mut self.reader {
            Reader::Csv { header, rows } => rows_of(header, rows, self.size, &self.name)?,
            Reader::Lines { text, line, has_begun } => {
                let cut = lines_of(text, line, self.size, &self.name)?;
                if let (Records::Lines(lines), false) = (&cut.0, std::mem::replace(has_begun, true)) {
                    refuse_array(lines, &self.name)?;
                }
                cut
            }
        };
        let is_empty = records.is_empty() && malformed.is_empty();
        Ok((!is_empty).then(|| Batch { records, lines, malformed, name: Arc::clone(&self.name) }))
    }

    /// Reads the rest without looking at it. The sum of the whole input.
    pub(super) fn skip(self) -> anyhow::Result<Sum> {
        let mut text = match self.reader {
            Reader::Csv { rows, .. } => rows.into_inner().text,
            Reader::Lines { text, .. } => text,
        };
        io::copy(&mut text, &mut io::sink()).with_context(|| format!("cannot read {}", self.name))?;
        Ok(self.opened.sum())
    }

    /// The sum of what was read; that of the whole input when there is no batch left.
    pub(super) fn sum(&self) -> Sum {
        self.opened.sum()
    }
}

fn header(rows: &mut csv::Reader<Bounded>) -> anyhow::Result<Vec<String>> {
    let mut row = csv::ByteRecord::new();
    if !rows.read_byte_record(&mut row)? {
        bail!("there is none: the file is empty");
    }
    let end = rows.position().byte();
    let (_, quotes) = rows.get_mut().pass(end);
    quotes?;
    let mut header: Vec<String> = Vec::with_capacity(row.len());
    for name in &row {
        let name = std::str::from_utf8(name).context("it is not UTF-8")?;
        if header.iter().any(|known| known == name) {
            bail!("column `{name}` stands twice; nothing says which of the two is meant");
        }
        header.push(name.to_owned());
    }
    Ok(header)
}

type Cut = (Records, Vec<u64>, Vec<Malformed>);

fn rows_of(header: &[String], rows: &mut csv::Reader<Bounded>, size: usize, name: &str) -> anyhow::Result<Cut> {
    let mut columns: Vec<StringBuilder> = header.iter().map(|_| StringBuilder::new()).collect();
    let (mut lines, mut malformed, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut row = csv::ByteRecord::new();
    while lines.len() + malformed.len() < size && bytes < BATCH_BYTES {
        rows.get_mut().left = RECORD_BYTES_MAX;
        let read = rows.read_byte_record(&mut row);
        let unread = || format!("{name}:{} and what follows cannot be read", rows.get_ref().line);
        if !read.with_context(unread)? {
            break;
        }
        let end = rows.position().byte();
        let (line, quotes) = rows.get_mut().pass(end);
        bytes += row.as_slice().len();
        if let Err(wrong) = quotes {
            malformed.push(Malformed { line, what: wrong.to_string() });
        } else if row.len() != header.len() {
            let what = format!("it has {} cells, and the header has {}", row.len(), header.len());
            malformed.push(Malformed { line, what });
        } else if let Some(cells) = row.iter().map(|cell| std::str::from_utf8(cell).ok()).collect::<Option<Vec<_>>>() {
            for (cell, column) in cells.into_iter().zip(&mut columns) {
                // An empty cell is no value.
                column.append_option(Some(cell).filter(|cell| !cell.is_empty()));
            }
            lines.push(line);
        } else {
            malformed.push(Malformed { line, what: "it is not UTF-8".to_owned() });
        }
    }
    let fields: Vec<Field> = header.iter().map(|name| Field::new(name, arrow_schema::DataType::Utf8, true)).collect();
    let columns = columns.into_iter().map(|mut column| -> ArrayRef { Arc::new(column.finish()) });
    let columns = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.collect())?;
    Ok((Records::Columns(columns), lines, malformed))
}

fn lines_of(text: &mut Box<dyn BufRead + Send>, number: &mut u64, size: usize, name: &str) -> anyhow::Result<Cut> {
    let (mut records, mut lines, mut malformed, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
    while records.len() + malformed.len() < size && bytes < BATCH_BYTES {
        let mut line = Vec::new();
        let read = text.by_ref().take(RECORD_BYTES_MAX as u64).read_until(b'\n', &mut line);
        if read.with_context(|| format!("{name}: what follows line {number} cannot be read"))? == 0 {
            break;
        }
        *number += 1;
        bytes += line.len();
        if line.len() == RECORD_BYTES_MAX && line.last() != Some(&b'\n') {
            bail!("{name}:{number} is longer than {RECORD_BYTES_MAX} bytes");
        }
        match String::from_utf8(line) {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => {
                let line = line.trim_end_matches(['\r', '\n']);
                records.push(line.to_owned());
                lines.push(*number);
            }
            Err(_) => malformed.push(Malformed { line: *number, what: "it is not UTF-8".to_owned() }),
        }
    }
    Ok((Records::Lines(records), lines, malformed))
}

fn refuse_array(lines: &[String], name: &str) -> anyhow::Result<()> {
    if lines.first().is_some_and(|line| line.trim_start().starts_with('[')) {
        bail!("{name} is a JSON array; give one JSON object per line: `jq -c '.[]' FILE` makes lines of an array");
    }
    Ok(())
}

impl Bounded {
    /// What was passed is given up when it has come to so many bytes.
    const PASSED_MAX: usize = 1 << 16;

    fn new(text: Box<dyn BufRead + Send>) -> Self {
        Self { text, left: RECORD_BYTES_MAX, ahead: Vec::new(), base: 0, passed: 0, line: 1 }
    }

    /// Passes a record that ends at an offset. The line that it begins on: empty lines before it do not belong to it,
    /// though the reader passes them together. And whether its quotes stand where they may, which the reader does not ask.
    fn pass(&mut self, end: u64) -> (u64, Result<(), Misquoted>) {
        let end = usize::try_from(end - self.base).unwrap_or(usize::MAX).min(self.ahead.len());
        let record = self.ahead.get(self.passed..end).unwrap_or_default();
        let newlines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let before = record.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let line = self.line + newlines(record.get(..before).unwrap_or_default());
        let quotes = quotes::check(record);
        self.line += newlines(record);
        self.passed = end;
        if self.passed >= Self::PASSED_MAX {
            self.ahead.drain(..self.passed);
            self.base += self.passed as u64;
            self.passed = 0;
        }
        (line, quotes)
    }
}

impl Read for Bounded {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let what = format!("a row is longer than {RECORD_BYTES_MAX} bytes; perhaps a quote is not closed");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let most = bytes.len().min(self.left);
        let read = self.text.read(bytes.get_mut(..most).unwrap_or_default())?;
        self.left -= read;
        self.ahead.extend_from_slice(bytes.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::StringArray;
    use arrow_array::cast::AsArray;

    use super::*;
    use crate::commands::send::input::Hash;

    fn batches(format: Format, text: impl Into<Vec<u8>>, size: usize) -> anyhow::Result<Vec<Batch>> {
        let text = Box::new(io::Cursor::new(text.into()));
        let mut batches = Batches::new(Opened { format, text, hash: Hash::default() }, "f".into(), size)?;
        let mut found = Vec::new();
        while let Some(batch) = batches.next()? {
            assert_eq!(batch.records.len(), batch.lines.len());
            found.push(batch);
        }
        Ok(found)
    }

    fn one(format: Format, text: impl Into<Vec<u8>>) -> Batch {
        let [batch] = batches(format, text, 100).unwrap().try_into().ok().unwrap();
        batch
    }

    fn error(format: Format, text: impl Into<Vec<u8>>) -> String {
        format!("{:#}", batches(format, text, 100).err().unwrap())
    }

    fn column(batch: &Batch, name: &str) -> StringArray {
        let Records::Columns(columns) = &batch.records else { panic!("no columns") };
        columns.column_by_name(name).unwrap().as_string::<i32>().clone()
    }

    #[test]
    fn csv_cells_stay_the_texts_that_they_are() {
        let batch = one(Format::Csv, "id,n\n0012e5,1\n00ff12, 7 \n\"a,\n\"\"b\"\"\",\n");
        assert_eq!(column(&batch, "id"), StringArray::from(vec!["0012e5", "00ff12", "a,\n\"b\""]));
        assert_eq!(column(&batch, "n"), StringArray::from(vec![Some("1"), Some(" 7 "), None]));
    }

    #[test]
    fn records_know_their_lines_and_what_is_none_is_named() {
        let batch = one(Format::Csv, "\na,b\n1,2\n\"x\ny\",2\r\n1\n1,2,3\n\n1,2\n");
        assert_eq!(batch.lines, [3, 4, 9]);
        let places: Vec<u64> = batch.malformed.iter().map(|malformed| malformed.line).collect();
        assert_eq!(places, [6, 7]);
        assert_eq!(batch.malformed[1].what, "it has 3 cells, and the header has 2");

        let batch = one(Format::Lines, &b"{}\n\n  \r\n{\"a\":1}\r\n\xff\n{}"[..]);
        assert_eq!(batch.lines, [1, 4, 6]);
        assert_eq!(batch.malformed, [Malformed { line: 5, what: "it is not UTF-8".to_owned() }]);
        let Records::Lines(lines) = &batch.records else { panic!("no lines") };
        assert_eq!(lines, &["{}", "{\"a\":1}", "{}"]);

        // Two cells that are one letter when the comma is left out.
        let batch = one(Format::Csv, &b"a,b\n\xc3,\xa9\n1,2\n"[..]);
        assert_eq!((batch.lines.as_slice(), batch.malformed[0].line), (&[3_u64][..], 2));
    }

    #[test]
    fn a_quote_that_is_wrong_makes_no_record_of_two() {
        let malformed = |text: &str| -> (Vec<u64>, Vec<(u64, String)>) {
            let batch = one(Format::Csv, text);
            let malformed = batch.malformed.into_iter().map(|malformed| (malformed.line, malformed.what));
            (batch.lines, malformed.collect())
        };
        for (text, lines, line, what) in [
            ("t,who,n\nT,\"u1,1\nT,\"u2,1\nT,u3,1\n", vec![4], 2, "follows a closing quote"),
            ("t,who,n\nT,\"u1\"x,1\nT,u2,1\n", vec![3], 2, "follows a closing quote"),
            ("t,who,n\nT,u\"1,1\nT,u2,1\n", vec![3], 2, "a quote stands within"),
            ("t,who,n\nT,u1,1\nT,\"u2,1\nT,u3,1\n", vec![2], 3, "a quote is not closed"),
        ] {
            let (found, malformed) = malformed(text);
            assert_eq!(found, lines, "{text}");
            assert!(matches!(&*malformed, [(at, said)] if *at == line && said.contains(what)), "{text}: {malformed:?}");
        }
        assert!(error(Format::Csv, "t,\"who\"x\nT,u1\n").contains("f, the header: something other than a comma"));
    }

    #[test]
    fn a_header_that_cannot_be_understood_is_an_error() {
        assert!(error(Format::Csv, "who,country,who\n").contains("column `who` stands twice"));
        assert!(error(Format::Csv, "").contains("the file is empty"));
        assert!(error(Format::Csv, &b"a,\xff\n"[..]).contains("not UTF-8"));
    }

    #[test]
    fn a_json_array_is_refused_by_its_name() {
        for text in ["[{\"a\": 1}]", "\n  [\n{\"a\": 1}\n]"] {
            assert!(error(Format::Lines, text).contains("a JSON array"), "{text}");
        }
    }

    #[test]
    fn records_without_end_are_errors_and_not_memory() {
        let quote = format!("a\n1\n\"{}", "x,\n".repeat(RECORD_BYTES_MAX / 2));
        let error = error(Format::Csv, quote);
        assert!(error.contains("f:3") && error.contains("a quote is not closed"), "{error}");
        let line = format!("{{}}\n{}", "x".repeat(RECORD_BYTES_MAX + 1));
        let error = format!("{:#}", batches(Format::Lines, line, 1).err().unwrap());
        assert!(error.contains("f:2 is longer"), "{error}");
    }

    proptest::proptest! {
        /// However long the records are, all of them come, in order, and a batch is bounded by both limits.
        #[test]
        fn batches_hold_all_records_in_order(lengths in proptest::collection::vec(1..300_000_usize, 1..40), size in 1..20_usize) {
            let rows: Vec<String> = lengths.iter().enumerate().map(|(row, length)| format!("{row}{}", "x".repeat(*length))).collect();
            for (format, text) in [(Format::Csv, format!("a\n{}\n", rows.join("\n"))), (Format::Lines, rows.join("\n"))] {
                let mut read = Vec::new();
                for batch in batches(format, text, size).unwrap() {
                    proptest::prop_assert!(batch.records.len() <= size);
                    let texts: Vec<String> = match &batch.records {
                        Records::Lines(lines) => lines.clone(),
                        Records::Columns(_) => column(&batch, "a").iter().map(|text| text.unwrap().to_owned()).collect(),
                    };
                    let before_last: usize = texts.iter().rev().skip(1).map(String::len).sum();
                    proptest::prop_assert!(before_last < BATCH_BYTES);
                    read.extend(texts);
                }
                proptest::prop_assert_eq!(&read, &rows);
            }
        }

        /// The line of a row is that of the first of its letters, whatever stands between rows and within cells.
        #[test]
        fn rows_know_their_lines(
            rows in proptest::collection::vec(("(\n|\r\n){0,2}", "[a\n]{0,3}"), 1..60), end in "(\n|\r\n)", size in 1..5_usize,
        ) {
            let (mut text, mut lines) = (format!("a{end}"), Vec::new());
            for (row, (before, cell)) in rows.iter().enumerate() {
                text.push_str(before);
                lines.push(1 + text.matches('\n').count() as u64);
                // Long enough to be read in several pieces.
                text.push_str(&format!("\"{row}{}{cell}\"{end}", "x".repeat(row * 97)));
            }
            let found: Vec<u64> = batches(Format::Csv, text, size).unwrap().into_iter().flat_map(|batch| batch.lines).collect();
            proptest::prop_assert_eq!(found, lines);
        }

        #[test]
        fn any_bytes_are_read_or_refused(text: Vec<u8>, is_csv: bool, size in 1..5_usize) {
            let format = if is_csv { Format::Csv } else { Format::Lines };
            // Nothing but that it ends, and that records and lines belong together, which `batches` asserts.
            let _ = batches(format, text, size);
        }
    }
}
