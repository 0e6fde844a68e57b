//! The entries of the journal, as bytes.
//!
//! An entry is its kind (one byte) and its parts, written with [`domain::binary`](crate::domain::binary). A batch is a table
//! of requests (who, number, how many records, the newest event time, what the request came to), what they share, and the
//! [`columns`](super::columns): those of the stream, then the model's outputs. Their schema is not repeated: it stands in
//! the [`Catalog`], which is the context of the segment that holds the entry.
//!
//! With keys, the columns are sealed ([`seal`](super::seal)): the regimes' ids stand at the end of the head, then the
//! nonce, what were the columns, and the tag.
//!
//! A kind is never given another meaning. A new layout gets a new kind; every kind that was written once is read.
//!
//! | kind | what | written |
//! | --- | --- | --- |
//! | 1, 6 | a batch of one request, plain or sealed, without what the request came to; its columns are an Arrow IPC record-batch message | until 0.1 |
//! | 2 | a producer was heard | until requests shared batches |
//! | 3 | a number was spent, without what its request came to | until 0.1 |
//! | 4 | windows were closed, by number | until 0.1 |
//! | 5 | open windows were released as they were | |
//! | 7, 8 | a batch, plain or sealed; its columns are an Arrow IPC record-batch message | until columns were packed |
//! | 9 | a request without records to be counted, and what it came to | until requests shared batches |
//! | 10 | windows were closed, by time | |
//! | 11 | requests of which no record is counted: a batch without columns | |
//! | 12, 13 | a batch, plain or sealed | |

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_schema::ArrowError;

use crate::domain::binary::{Reader, Writer};
use crate::domain::name::{DatasetName, StreamName};
use crate::domain::outcome::Outcome;
use crate::domain::policy::RegimeSet;
use crate::domain::producer::Number;

use super::seal::{Sealed, Sealer};

pub use super::batch::{BatchReader, BatchWriter, size_bound};
pub use super::catalog::Catalog;

const OLD_BATCH: u8 = 1;
const HEARD: u8 = 2;
const OLD_SPENT: u8 = 3;
const OLD_CLOSED: u8 = 4;
const FLUSHED: u8 = 5;
const OLD_SEALED: u8 = 6;
const ARROW_BATCH: u8 = 7;
const ARROW_SEALED: u8 = 8;
const SPENT: u8 = 9;
const CLOSED: u8 = 10;
const REQUESTS: u8 = 11;
const BATCH: u8 = 12;
const SEALED: u8 = 13;

/// One entry.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'e> {
    /// Records that were accepted.
    Batch(Accepted<'e>),
    /// A producer was heard on a stream, and perhaps came to an event time.
    Heard {
        /// The stream's name.
        stream: StreamName,
        /// The producer's name.
        producer: &'e str,
        /// Microseconds since the Unix epoch.
        event_time: Option<i64>,
    },
    /// A request brought nothing to be counted, and its number is spent.
    Spent {
        /// The producer's name.
        producer: &'e str,
        /// The request's number.
        number: Option<Number>,
        /// What the request came to. `None` in entries of kind 3.
        outcome: Option<Outcome>,
    },
    /// Requests of which no record is counted.
    Requests {
        /// The wall clock when they were placed, in microseconds since the Unix epoch.
        at: i64,
        /// Their stream's name. `None`: it is not declared.
        stream: Option<StreamName>,
        /// The requests, in order.
        requests: Vec<Sent<'e>>,
    },
    /// Windows of a dataset were closed.
    Closed {
        /// The dataset's name.
        dataset: DatasetName,
        /// Which ones.
        before: Before,
        /// The watermark that closed them.
        watermark: i64,
    },
    /// All open windows of a dataset were released as they were.
    Flushed {
        /// The dataset's name.
        dataset: DatasetName,
    },
}

/// The windows that a closing closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Those that began before this time, in microseconds since the Unix epoch.
    Time(i64),
    /// Those with a lesser number than this, under the dataset's size at that time. In entries of kind 4.
    Window(i64),
}

/// A request in the table of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent<'e> {
    /// Who sent it.
    pub producer: &'e str,
    /// Its number.
    pub number: Option<Number>,
    /// How many of the batch's records are its own. They follow those of the request before.
    pub rows: u32,
    /// The newest event time that it brought or promised.
    pub newest: Option<i64>,
    /// What it came to. `None` in entries of kinds 1 and 6.
    pub outcome: Option<Cow<'e, Outcome>>,
}

impl Sent<'_> {
    /// At least the bytes that it takes in the table.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let outcome = self.outcome.as_ref().map_or(0, |outcome| outcome.encode().len());
        64 + self.producer.len() + outcome
    }

    fn encode(&self, writer: &mut Writer) {
        writer.short_text(self.producer);
        number(writer, self.number);
        writer.varint(self.rows.into()).option(self.newest);
        writer.short_bytes(&self.outcome.as_ref().map_or(Vec::new(), |outcome| outcome.encode()));
    }

    fn decode<'e>(reader: &mut Reader<'e>) -> Option<Sent<'e>> {
        let (producer, number) = (reader.short_text()?, read_number(reader)?);
        let (rows, newest, outcome) = (reader.varint32()?, reader.option()?, reader.short_bytes()?);
        let outcome = if outcome.is_empty() { None } else { Some(Cow::Owned(Outcome::decode(outcome)?)) };
        Some(Sent { producer, number, rows, newest, outcome })
    }
}

/// What the requests of a batch share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The wall clock when they were accepted, in microseconds since the Unix epoch.
    pub at: i64,
    /// Their stream's name.
    pub stream: StreamName,
    /// The digest of the policy their records were decided under.
    pub policy: [u8; 32],
    /// The regimes under whose keys the columns are sealed; none: they are not.
    pub regimes: RegimeSet,
}

/// How the columns of a batch are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// As an Arrow IPC record-batch message.
    Arrow,
    /// As in [`columns`](super::columns).
    Packed,
}

impl Head {
    pub(super) fn encode(&self, layout: Layout, requests: &[Sent<'_>], writer: &mut Writer) {
        let kind = match (layout, self.regimes.is_empty()) {
            (Layout::Packed, true) => BATCH,
            (Layout::Packed, false) => SEALED,
            (Layout::Arrow, true) => ARROW_BATCH,
            (Layout::Arrow, false) => ARROW_SEALED,
        };
        writer.u8(kind).varint(requests.len() as u64);
        requests.iter().for_each(|request| request.encode(writer));
        writer.i64(self.at).short_text(&self.stream).raw(&self.policy);
        regimes(writer, &self.regimes);
    }
}

/// A batch: its head, and the records not yet read.
#[derive(Debug, PartialEq, Eq)]
pub struct Accepted<'e> {
    /// The requests that brought the records, in the order of the records.
    pub requests: Vec<Sent<'e>>,
    /// What they share.
    pub head: Head,
    pub(super) layout: Layout,
    /// All of the entry before the columns: what a seal is over, too.
    before: &'e [u8],
    columns: &'e [u8],
}

/// Why the columns of a batch cannot be read.
#[derive(Debug)]
pub enum Unread {
    /// They are erased.
    Sealed(Sealed),
    /// They are not what the catalog says.
    Arrow(ArrowError),
}

impl From<ArrowError> for Unread {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}

impl Entry<'_> {
    /// The entry as bytes, in the layout of today. A batch is written by a [`BatchWriter`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Self::Batch(accepted) => {
                accepted.head.encode(accepted.layout, &accepted.requests, &mut writer);
                writer.raw(accepted.columns);
            }
            Self::Heard { stream, producer, event_time } => {
                writer.u8(HEARD).text(stream).text(producer).option(*event_time);
            }
            Self::Spent { producer, number: spent, outcome } => {
                writer.u8(SPENT).short_text(producer);
                number(&mut writer, *spent);
                writer.short_bytes(&outcome.as_ref().map_or(Vec::new(), Outcome::encode));
            }
            Self::Requests { at, stream, requests } => {
                writer.u8(REQUESTS).varint(requests.len() as u64);
                requests.iter().for_each(|request| request.encode(&mut writer));
                writer.i64(*at).short_text(stream.as_deref().unwrap_or_default());
            }
            Self::Closed { dataset, before, watermark } => {
                let (kind, before) = match before {
                    Before::Time(time) => (CLOSED, time),
                    Before::Window(window) => (OLD_CLOSED, window),
                };
                writer.u8(kind).text(dataset).i64(*before).i64(*watermark);
            }
            Self::Flushed { dataset } => {
                writer.u8(FLUSHED).text(dataset);
            }
        }
        writer.finish()
    }

    /// Reads an entry. `None`: it is none that this version knows.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Entry<'_>> {
        let mut reader = Reader::new(bytes);
        Some(match reader.u8()? {
            kind @ (OLD_BATCH | OLD_SEALED) => {
                let (producer, number) = (reader.text()?, read_old_number(&mut reader)?);
                let (at, stream, rows) = (reader.i64()?, StreamName::read(&mut reader)?, reader.u32()?);
                let (newest, policy) = (reader.option()?, reader.array()?);
                let regimes = if kind == OLD_SEALED { read_old_regimes(&mut reader)? } else { RegimeSet::default() };
                let requests = vec![Sent { producer, number, rows, newest, outcome: None }];
                let head = Head { at, stream, policy, regimes };
                Entry::Batch(Accepted::new(bytes, reader, requests, head, Layout::Arrow)?)
            }
            kind @ (BATCH | SEALED | ARROW_BATCH | ARROW_SEALED) => {
                let requests = (0..reader.short_count(14)?).map(|_| Sent::decode(&mut reader));
                let requests = requests.collect::<Option<Vec<_>>>()?;
                let (at, stream, policy) = (reader.i64()?, StreamName::read_short(&mut reader)?, reader.array()?);
                let regimes = read_regimes(&mut reader)?;
                if regimes.is_empty() != matches!(kind, BATCH | ARROW_BATCH) {
                    return None;
                }
                let head = Head { at, stream, policy, regimes };
                let layout = if matches!(kind, BATCH | SEALED) { Layout::Packed } else { Layout::Arrow };
                Entry::Batch(Accepted::new(bytes, reader, requests, head, layout)?)
            }
            HEARD => {
                let stream = StreamName::read(&mut reader)?;
                Entry::Heard { stream, producer: reader.text()?, event_time: reader.option()? }
            }
            OLD_SPENT => {
                Entry::Spent { producer: reader.text()?, number: read_old_number(&mut reader)?, outcome: None }
            }
            SPENT => {
                let (producer, number) = (reader.short_text()?, read_number(&mut reader)?);
                let outcome = reader.short_bytes()?;
                let outcome = if outcome.is_empty() { None } else { Some(Outcome::decode(outcome)?) };
                Entry::Spent { producer, number, outcome }
            }
            REQUESTS => {
                let requests = (0..reader.short_count(14)?).map(|_| Sent::decode(&mut reader));
                let requests = requests.collect::<Option<Vec<_>>>()?;
                let (at, stream) = (reader.i64()?, reader.short_text()?);
                let stream = if stream.is_empty() { None } else { Some(StreamName::new(stream).ok()?) };
                Entry::Requests { at, stream, requests }
            }
            kind @ (OLD_CLOSED | CLOSED) => {
                let (dataset, before, watermark) = (DatasetName::read(&mut reader)?, reader.i64()?, reader.i64()?);
                let before = if kind == CLOSED { Before::Time(before) } else { Before::Window(before) };
                Entry::Closed { dataset, before, watermark }
            }
            FLUSHED => Entry::Flushed { dataset: DatasetName::read(&mut reader)? },
            _ => return None,
        })
    }
}

impl<'e> Accepted<'e> {
    fn new(
        entry: &'e [u8],
        mut reader: Reader<'e>,
        requests: Vec<Sent<'e>>,
        head: Head,
        layout: Layout,
    ) -> Option<Self> {
        let columns = reader.rest();
        let before = entry.get(..entry.len() - columns.len())?;
        Some(Self { requests, head, layout, before, columns })
    }

    /// How many records there are.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.requests.iter().fold(0, |rows, request| rows.saturating_add(request.rows))
    }

    pub(super) fn columns(&self, sealer: &mut Sealer) -> Result<Cow<'e, [u8]>, Sealed> {
        if self.head.regimes.is_empty() {
            return Ok(Cow::Borrowed(self.columns));
        }
        sealer.open(&self.head.regimes, self.before, self.columns).map(Cow::Owned)
    }
}

fn number(writer: &mut Writer, number: Option<Number>) {
    writer.u8(number.is_some().into());
    if let Some(Number { epoch, sequence }) = number {
        writer.varint(epoch).varint(sequence);
    }
}

#[expect(clippy::option_option, reason = "the outer one: the bytes are none; the inner one: the request has none")]
fn read_number(reader: &mut Reader<'_>) -> Option<Option<Number>> {
    match reader.u8()? {
        0 => Some(None),
        1 => Some(Some(Number { epoch: reader.varint()?, sequence: reader.varint()? })),
        _ => None,
    }
}

#[expect(clippy::option_option, reason = "the outer one: the bytes are none; the inner one: the request has none")]
fn read_old_number(reader: &mut Reader<'_>) -> Option<Option<Number>> {
    let present = reader.u8()?;
    let number = Number { epoch: reader.u64()?, sequence: reader.u64()? };
    Some((present != 0).then_some(number))
}

fn regimes(writer: &mut Writer, regimes: &RegimeSet) {
    writer.varint(regimes.len() as u64);
    for regime in regimes.iter() {
        writer.short_text(regime);
    }
}

fn read_regimes(reader: &mut Reader<'_>) -> Option<RegimeSet> {
    let regimes = (0..reader.short_count(1)?).map(|_| reader.short_text().map(str::to_owned));
    regimes.collect::<Option<BTreeSet<_>>>().map(Arc::new)
}

fn read_old_regimes(reader: &mut Reader<'_>) -> Option<RegimeSet> {
    let regimes = (0..reader.count(8)?).map(|_| reader.text().map(str::to_owned));
    let regimes = regimes.collect::<Option<BTreeSet<_>>>()?;
    (!regimes.is_empty()).then(|| Arc::new(regimes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::binary;
    use crate::domain::outcome::Refused;
    use crate::domain::refusal::Reason;

    fn payments() -> StreamName {
        "payments".parse().unwrap()
    }

    fn by_country() -> DatasetName {
        "by_country".parse().unwrap()
    }

    const NUMBER: Option<Number> = Some(Number { epoch: 7, sequence: 800 });

    #[test]
    fn entries_are_read_as_they_were_written() {
        let refused = Outcome::Refused(Refused { reason: Reason::TooLarge, field: Some("amount".into()) });
        let requests = vec![
            Sent {
                producer: "till-7",
                number: NUMBER,
                rows: 3,
                newest: Some(-4),
                outcome: Some(Cow::Owned(Outcome::nothing())),
            },
            Sent { producer: "", number: None, rows: 0, newest: None, outcome: None },
        ];
        let regimes = RegimeSet::new(["eu-gdpr", "uk-gdpr"].map(String::from).into());
        let head = Head { at: 9, stream: payments(), policy: [5; 32], regimes: RegimeSet::default() };
        let plain = Accepted { requests, head, layout: Layout::Packed, before: &[], columns: &[1, 2, 3] };
        let sealed =
            Accepted { requests: plain.requests.clone(), head: Head { regimes, ..plain.head.clone() }, ..plain };
        for accepted in [plain, sealed] {
            let (rows, requests, head) = (accepted.rows(), accepted.requests.clone(), accepted.head.clone());
            let bytes = Entry::Batch(accepted).encode();
            let Some(Entry::Batch(read)) = Entry::decode(&bytes) else { panic!("no batch") };
            assert_eq!(
                (read.rows(), &read.requests, &read.head, read.columns),
                (rows, &requests, &head, &[1, 2, 3][..])
            );
            assert_eq!(read.before.len() + 3, bytes.len());
            assert!((0..bytes.len() - 3).all(|end| Entry::decode(&bytes[..end]).is_none()));
        }
        let entries = [
            Entry::Heard { stream: payments(), producer: "till-7", event_time: None },
            Entry::Spent { producer: "till-7", number: None, outcome: None },
            Entry::Spent { producer: "", number: NUMBER, outcome: Some(refused) },
            Entry::Closed { dataset: by_country(), before: Before::Time(-1), watermark: i64::MIN },
            Entry::Closed { dataset: by_country(), before: Before::Window(3), watermark: 0 },
            Entry::Flushed { dataset: by_country() },
            Entry::Requests { at: -9, stream: None, requests: Vec::new() },
        ];
        for entry in entries {
            let bytes = entry.encode();
            assert_eq!(Entry::decode(&bytes).as_ref(), Some(&entry));
            assert!((0..bytes.len()).all(|end| Entry::decode(&bytes[..end]).is_none()));
        }
        let flushed = Entry::Flushed { dataset: by_country() }.encode();
        let no_name: Vec<u8> = flushed.iter().map(|byte| if *byte == b'_' { b'/' } else { *byte }).collect();
        assert_eq!(Entry::decode(&no_name), None);
        assert_eq!(Entry::decode(&[200]), None);
        assert_eq!(Entry::decode(&[]), None);
    }

    /// What this version writes, byte for byte: another layout needs another kind.
    #[test]
    fn entries_are_written_as_they_always_were() {
        let refused = Outcome::Refused(Refused { reason: Reason::TooLarge, field: Some("amount".into()) });
        let sent = Sent {
            producer: "till-7",
            number: NUMBER,
            rows: 3,
            newest: Some(-4),
            outcome: Some(Cow::Owned(refused.clone())),
        };
        let head = Head { at: 9, stream: payments(), policy: [5; 32], regimes: RegimeSet::default() };
        let regimes = RegimeSet::new(["eu-gdpr", "uk-gdpr"].map(String::from).into());
        let told = Sent { rows: 0, ..sent.clone() };
        let shared =
            Sent { producer: "till-8", number: None, outcome: Some(Cow::Owned(Outcome::nothing())), ..sent.clone() };
        let batch = |requests: Vec<Sent<'static>>, head: Head, layout| {
            Entry::Batch(Accepted { requests, head, layout, before: &[], columns: &[1, 2, 3] })
        };
        let sealed_head = Head { regimes, ..head.clone() };
        let entries = [
            batch(vec![sent.clone()], head.clone(), Layout::Arrow),
            batch(vec![sent.clone()], sealed_head.clone(), Layout::Arrow),
            Entry::Heard { stream: payments(), producer: "till-7", event_time: Some(5) },
            Entry::Spent { producer: "till-7", number: NUMBER, outcome: Some(refused) },
            Entry::Closed { dataset: by_country(), before: Before::Time(-1), watermark: 6 },
            Entry::Flushed { dataset: by_country() },
            Entry::Requests { at: 9, stream: Some(payments()), requests: vec![told.clone(), shared.clone()] },
            batch(vec![shared.clone(), told.clone()], head.clone(), Layout::Arrow),
            batch(vec![sent], sealed_head, Layout::Packed),
            batch(vec![shared, told], head, Layout::Packed),
        ];
        let hex = |entry: &Entry<'_>| binary::hex(&entry.encode());
        let written: Vec<String> = entries.iter().map(hex).collect();
        let golden: Vec<&str> = include_str!("../../tests/golden/entries.hex").lines().collect();
        assert_eq!(written, golden);
    }

    #[test]
    fn a_request_of_one_record_takes_few_bytes_beside_its_record() {
        let outcome = crate::domain::outcome::Taken { accepted: 1, ..Default::default() };
        let request = Sent {
            producer: "",
            number: Some(Number { epoch: 1_800_000_000, sequence: 100_000 }),
            rows: 1,
            newest: Some(1),
            outcome: Some(Cow::Owned(Outcome::Taken(outcome))),
        };
        let mut writer = Writer::default();
        request.encode(&mut writer);
        assert!(writer.len() <= 28, "{}", writer.len());
    }
}
