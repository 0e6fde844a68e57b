//! After a start: what the checkpoint and the journal say of the state before.
//!
//! Two passes over the journal from the checkpoint on. The first ([`scan`]) reads what stands before the
//! records (producers, event times, closings), which is all that new records need to be accepted. The
//! second ([`Replay`]) counts the records, on a thread of its own, while new ones come in.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_schema::{ArrowError, Field};

use crate::domain::aggregate::Cells;
use crate::domain::batch::Batch;
use crate::domain::binary::Reader;
use crate::domain::dataset::Dataset;
use crate::domain::deferral::Deferral;
use crate::domain::gateway::Gateway;
use crate::domain::name::{DatasetName, StreamName};
use crate::domain::policy::Digest;
use crate::domain::producer::{Came, Number};
use crate::domain::stream::Stream;
use crate::domain::tally::{Tally, Told};
use crate::domain::watermark::Heard;
use crate::domain::window::window_start;
use crate::storage::{self, FileSystem, Log, Lsn};

use super::checkpoint::Checkpoint;
use super::entry::{BatchReader, Before, Catalog, Entry, Sent, Unread};
use super::seal::{Keys, Sealed, Sealer};

/// Why the gateway cannot continue with what is on disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Log(#[from] storage::ReadError),
    /// Its directory cannot be read.
    #[error("cannot read the journal's directory")]
    Directory(#[from] storage::Error),
    /// An entry is not one that this version writes.
    #[error(
        "entry {0} of the journal is of no known kind: a newer version of bailiwick wrote it. Run that version, or restore \
         the backup of before the upgrade"
    )]
    Unreadable(Lsn),
    /// The checkpoint is not one that this version writes.
    #[error(
        "the checkpoint at {0} holds what this version cannot read: a newer version of bailiwick wrote it. Run that \
         version, or restore the backup of before the upgrade"
    )]
    Checkpoint(Lsn),
    /// A stream is not declared any more, or otherwise.
    #[error(
        "the journal holds records of stream `{stream}` that the policy cannot count: {message}. \
         Start with the policy that was in force, stop with `on_stop = \"release\"` in [gateway], then change it"
    )]
    Stream {
        /// The stream.
        stream: String,
        /// What differs.
        message: String,
    },
    /// A dataset is not declared any more, or counts otherwise.
    #[error(
        "windows of dataset `{dataset}` are open that were counted under another declaration: {changes}. \
         Start with the policy that was in force, stop with `on_stop = \"release\"` in [gateway], then change it"
    )]
    Dataset {
        /// The dataset.
        dataset: String,
        /// What changed.
        changes: String,
    },
    /// The records of an entry cannot be read.
    #[error("the records of entry {lsn} of the journal cannot be read")]
    Records {
        /// The entry.
        lsn: Lsn,
        /// What Arrow says.
        source: ArrowError,
    },
}

/// A stream as it is declared now.
#[derive(Clone)]
pub struct Present {
    /// The declaration.
    pub stream: Arc<Stream>,
    /// The model's outputs.
    pub outputs: Vec<Field>,
    /// What is counted of it: [`Dataset::counted_for`] its datasets.
    pub datasets: Vec<Arc<Dataset>>,
}

/// Windows that were closed or flushed, in the journal after the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Where the journal says so.
    pub lsn: Lsn,
    /// The dataset's name.
    pub dataset: DatasetName,
    /// Those that began before this time, in microseconds since the Unix epoch. `None`: all were released as they were,
    /// and none was closed.
    pub before: Option<i64>,
}

/// What the journal holds after the checkpoint.
#[derive(Debug, Default)]
pub struct Scanned {
    /// What was closed, in order.
    pub closed: Vec<Closed>,
    /// What is told of refused records with each closing that tells something.
    pub refused: BTreeMap<Lsn, Vec<Told>>,
}

impl Scanned {
    fn closed(&mut self, closed: Closed, gateway: &mut Gateway) {
        let refused = gateway.tell_refused(&closed.dataset);
        if !refused.is_empty() {
            self.refused.insert(closed.lsn, refused);
        }
        self.closed.push(closed);
    }
}

/// What a checkpoint holds of windows.
#[derive(Default)]
pub struct Restored {
    /// The windows that were open, by dataset.
    pub windows: BTreeMap<DatasetName, BTreeMap<i64, Cells>>,
    /// What waited of the windows that had closed.
    pub deferred: BTreeMap<DatasetName, Deferral>,
}

/// Restores the state of a checkpoint.
///
/// # Errors
/// When it cannot be read, or a dataset with cells in it has changed.
pub fn restore(
    checkpoint: &Checkpoint,
    gateway: &mut Gateway,
    present: &[Present],
    now: Duration,
) -> Result<Restored, Error> {
    let unreadable = || Error::Checkpoint(checkpoint.lsn);
    checkpoint.restore_gateway(gateway, now).ok_or_else(unreadable)?;
    let mut restored = Restored::default();
    for part in &checkpoint.windows {
        let declared = unchanged(checkpoint, &part.dataset, present)?;
        let cells = Cells::decode(declared, &mut Reader::new(&part.cells)).ok_or_else(unreadable)?;
        let windows = restored.windows.entry(declared.name.clone()).or_default();
        windows.entry(part.window).or_insert_with(|| Cells::new(declared)).merge(cells);
        gateway.restore_window(&part.dataset, part.window);
    }
    for (dataset, deferred) in &checkpoint.deferred {
        let declared = match unchanged(checkpoint, dataset, present) {
            Ok(declared) => declared,
            Err(_) if Deferral::waits_in(deferred) == Some(false) => continue,
            Err(changed) => return Err(changed),
        };
        let deferral = Deferral::decode(declared, &mut Reader::new(deferred)).ok_or_else(unreadable)?;
        restored.deferred.insert(declared.name.clone(), deferral);
    }
    Ok(restored)
}

/// The declaration of a dataset that a checkpoint has cells of, which must count as it did.
fn unchanged<'p>(checkpoint: &Checkpoint, dataset: &str, present: &'p [Present]) -> Result<&'p Dataset, Error> {
    let changed = |changes: &str| Error::Dataset { dataset: dataset.to_owned(), changes: changes.to_owned() };
    let mut datasets = present.iter().flat_map(|present| &present.datasets);
    let declared = datasets.find(|declared| declared.is_counted_for(dataset));
    let declared = declared.ok_or_else(|| changed("it is not declared any more"))?;
    let kept = checkpoint.shapes.iter().find(|(known, _)| known == dataset);
    let (_, kept) = kept.ok_or(Error::Checkpoint(checkpoint.lsn))?;
    let changes = kept.differences(declared);
    if changes.is_empty() { Ok(declared) } else { Err(changed(&changes.join("; "))) }
}

/// The first pass: tells the gateway what the journal holds from a position on. What was closed.
///
/// # Errors
/// When the journal cannot be read, or holds what the policy cannot count.
pub fn scan(
    mut entries: storage::Reader,
    from: Lsn,
    gateway: &mut Gateway,
    present: &[Present],
    now: Duration,
) -> Result<Scanned, Error> {
    let mut scanned = Scanned::default();
    let mut mapping = Mapping::new(present);
    while let Some(storage::Entry { lsn, context, payload }) = entries.next()? {
        if lsn < from {
            continue;
        }
        match Entry::decode(&payload).ok_or(Error::Unreadable(lsn))? {
            Entry::Batch(batch) => {
                mapping.of(&context, batch.head.stream)?;
                restore_requests(gateway, &batch.requests, batch.head.stream, batch.head.at, lsn, now);
            }
            Entry::Requests { at, stream, requests } => {
                restore_requests(gateway, &requests, stream, at, lsn, now);
            }
            Entry::Heard { stream, producer, event_time } => {
                gateway.hear(stream, Heard { producer, address: None, identity: None, event_time }, now);
            }
            Entry::Spent { producer, number, outcome } => {
                if let Some(number) = number {
                    gateway.producers.take(producer, number, lsn, outcome.as_ref(), Came::default());
                }
            }
            Entry::Closed { dataset, before, watermark } => {
                if let Some(closing) = mapping.closed(lsn, dataset, Some(before)) {
                    closing.before.into_iter().for_each(|before| gateway.restore_closed(dataset, before, watermark));
                    scanned.closed(closing, gateway);
                }
            }
            Entry::Flushed { dataset } => {
                if let Some(closing) = mapping.closed(lsn, dataset, None) {
                    scanned.closed(closing, gateway);
                }
            }
        }
    }
    Ok(scanned)
}

/// Tells the gateway of requests that the journal holds, which came to a stream at a time.
fn restore_requests(gateway: &mut Gateway, requests: &[Sent<'_>], stream: &str, at: i64, lsn: Lsn, now: Duration) {
    for request in requests {
        let heard = Heard { producer: request.producer, address: None, identity: None, event_time: request.newest };
        gateway.hear(stream, heard, now);
        if let Some(number) = request.number {
            let came = Came { at: Some(at), from: None, of: None };
            gateway.producers.take(request.producer, number, lsn, request.outcome.as_ref(), came);
        }
    }
    gateway.refused(stream, &Tally::of(requests.iter().filter_map(|request| request.outcome.as_ref())));
}

/// Looks at what is on disk and changes nothing: whether what is declared now can go on with it. The gateway may be
/// running.
///
/// # Errors
/// Why it cannot: what changed, and what to do.
pub fn examine(fs: &Arc<dyn FileSystem>, directory: &Path, present: &[Present]) -> Result<(), Error> {
    let checkpoint = Checkpoint::newest(&**fs, &directory.join("checkpoints"))?;
    let streams = present.iter().map(|present| (&present.stream, present.datasets.as_slice()));
    let mut gateway = Gateway::new(streams);
    if let Some(checkpoint) = &checkpoint {
        restore(checkpoint, &mut gateway, present, Duration::ZERO)?;
    }
    let counted = checkpoint.map_or(0, |checkpoint| checkpoint.lsn);
    let entries = storage::entries(Arc::clone(fs), &directory.join("log"))?;
    scan(entries, counted + 1, &mut gateway, present, Duration::ZERO).map(drop)
}

/// Something that the journal has to be counted or closed.
pub enum Step {
    /// Records, with the columns that the model's outputs became.
    Fold {
        /// Where they stand in the journal.
        lsn: Lsn,
        /// The records.
        batch: Batch,
        /// The model's outputs.
        outputs: Vec<ArrayRef>,
        /// The policy they were decided under.
        policy: Digest,
        /// The requests that brought them, in their order: the series of numbers of whoever sent it, its number, and how many
        /// records it brought.
        senders: Vec<(String, Option<Number>, usize)>,
    },
    /// Windows to be closed.
    Close(Closed),
}

/// The second pass.
pub struct Replay {
    reader: storage::Reader,
    through: Lsn,
    mapping: Mapping,
    sealer: Sealer,
    erased: Erased,
}

/// Records that the journal held under keys that are not there any more.
#[derive(Debug, Default)]
pub struct Erased {
    /// How many.
    pub records: u64,
    /// How many of each stream, by one missing key or by the keys that do not open them. Records that miss two
    /// keys stand under both.
    why: BTreeMap<Sealed, BTreeMap<StreamName, u64>>,
}

impl Erased {
    fn add(&mut self, sealed: Sealed, stream: &StreamName, records: u32) {
        self.records += u64::from(records);
        let each = match sealed {
            Sealed::KeyMissing(regimes) => {
                regimes.into_iter().map(|regime| Sealed::KeyMissing([regime].into())).collect()
            }
            does_not_open @ Sealed::DoesNotOpen(_) => vec![does_not_open],
        };
        for why in each {
            *self.why.entry(why).or_default().entry(stream.clone()).or_default() += u64::from(records);
        }
    }

    /// Says it in the log, once per key.
    pub fn say(&self) {
        for (why, streams) in &self.why {
            let records = streams.iter().map(|(stream, records)| format!("{stream}: {records}"));
            let records = records.collect::<Vec<_>>().join(", ");
            match why {
                Sealed::KeyMissing(regimes) => {
                    let regime = regimes.first().map_or("", String::as_str);
                    tracing::warn!(
                        regime,
                        records,
                        "the key of a regime is missing; what the journal holds under it is erased and not counted. \
                         If it was not meant to be erased, put the key back and start again"
                    );
                }
                Sealed::DoesNotOpen(regimes) => {
                    let regimes = regimes.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                    tracing::error!(
                        regimes,
                        records,
                        "sealed entries do not open: a key is not the one that they were sealed with; not counted. \
                         Put the right key back and start again"
                    );
                }
            }
        }
    }
}

impl Replay {
    /// The journal between two positions, both included.
    #[must_use]
    pub fn new(log: &Log, from: Lsn, through: Lsn, present: &[Present], keys: Arc<Keys>) -> Self {
        let (mapping, sealer) = (Mapping::new(present), Sealer::new(keys));
        Self { reader: log.reader(from), through, mapping, sealer, erased: Erased::default() }
    }

    /// What could not be read so far for want of a key.
    #[must_use]
    pub fn erased(&self) -> &Erased {
        &self.erased
    }

    /// The next thing to do; `None` at the end.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn step(&mut self) -> Result<Option<Step>, Error> {
        while let Some(storage::Entry { lsn, context, payload }) = self.reader.next()? {
            if lsn > self.through {
                return Ok(None);
            }
            match Entry::decode(&payload).ok_or(Error::Unreadable(lsn))? {
                Entry::Batch(accepted) => {
                    let policy = Digest::from_bytes(accepted.head.policy);
                    let mapped = self.mapping.of(&context, accepted.head.stream)?;
                    let columns = match mapped.reader.columns(&accepted, &mut self.sealer) {
                        Ok(columns) => columns,
                        Err(Unread::Sealed(sealed)) => {
                            self.erased.add(sealed, &mapped.present.stream.name, accepted.rows());
                            continue;
                        }
                        Err(Unread::Arrow(source)) => return Err(Error::Records { lsn, source }),
                    };
                    let senders = accepted.requests.iter();
                    let senders = senders.map(|sent| (sent.producer.to_owned(), sent.number, sent.rows as usize));
                    return mapped
                        .fold(lsn, &columns, policy, senders.collect())
                        .map(Some)
                        .map_err(|source| Error::Records { lsn, source });
                }
                Entry::Closed { dataset, before, .. } => {
                    let Some(closed) = self.mapping.closed(lsn, dataset, Some(before)) else { continue };
                    return Ok(Some(Step::Close(closed)));
                }
                Entry::Flushed { dataset } => {
                    let Some(closed) = self.mapping.closed(lsn, dataset, None) else { continue };
                    return Ok(Some(Step::Close(closed)));
                }
                Entry::Heard { .. } | Entry::Spent { .. } | Entry::Requests { .. } => {}
            }
        }
        Ok(None)
    }
}

/// How the streams of a segment become the present ones. Kept for one segment at a time.
struct Mapping {
    present: Vec<Present>,
    context: Option<Arc<[u8]>>,
    catalog: Catalog,
    streams: BTreeMap<StreamName, Mapped>,
}

struct Mapped {
    reader: BatchReader,
    present: Present,
}

impl Mapping {
    fn new(present: &[Present]) -> Self {
        Self { present: present.to_vec(), context: None, catalog: Catalog::default(), streams: BTreeMap::new() }
    }

    /// What an entry says was closed or flushed. `None`: the dataset is not declared any more, so it has nothing to be
    /// closed. Where the entry gives a window's number, its size is taken to be the declared one.
    fn closed(&self, lsn: Lsn, dataset: &str, before: Option<Before>) -> Option<Closed> {
        let mut datasets = self.present.iter().flat_map(|present| &present.datasets);
        let declared = datasets.find(|known| known.is_counted_for(dataset))?;
        let time = |before| match before {
            Before::Time(time) => time,
            Before::Window(window) => window_start(window, declared.window),
        };
        Some(Closed { lsn, dataset: declared.name.clone(), before: before.map(time) })
    }

    fn of(&mut self, context: &Arc<[u8]>, stream: &str) -> Result<&mut Mapped, Error> {
        let cannot = |message: &str| Error::Stream { stream: stream.to_owned(), message: message.to_owned() };
        if !self.context.as_ref().is_some_and(|known| Arc::ptr_eq(known, context)) {
            self.catalog = Catalog::decode(context).ok_or_else(|| cannot("the segment's schemas cannot be read"))?;
            self.context = Some(Arc::clone(context));
            self.streams.clear();
        }
        if !self.streams.contains_key(stream) {
            let present = self.present.iter().find(|present| present.stream.name == stream);
            let present = present.ok_or_else(|| cannot("it is not declared"))?.clone();
            let recorded = self.catalog.schema(stream).ok_or_else(|| cannot("the segment has no schema of it"))?;
            let declared = present.stream.schema.fields().iter().map(AsRef::as_ref).chain(&present.outputs);
            for field in declared {
                // A field that was not declared then is null in the records of that time.
                if recorded.field_with_name(field.name()).is_ok_and(|old| old.data_type() != field.data_type()) {
                    return Err(cannot(&format!("field `{}` was of another type", field.name())));
                }
            }
            for (dataset, then) in self.catalog.datasets(stream) {
                let changed = |changes: String| Error::Dataset { dataset: dataset.clone(), changes };
                let declared = present.datasets.iter().find(|declared| declared.is_counted_for(dataset));
                let declared = declared.ok_or_else(|| changed("it is not declared any more".to_owned()))?;
                let changes = then.differences(&declared.shape());
                if !changes.is_empty() {
                    return Err(changed(changes.join("; ")));
                }
            }
            let reader = BatchReader::new(&self.catalog, stream).map_err(|error| cannot(&error.to_string()))?;
            self.streams.insert(present.stream.name.clone(), Mapped { reader, present });
        }
        self.streams.get_mut(stream).ok_or_else(|| cannot("it is not declared"))
    }
}

impl Mapped {
    fn fold(
        &self,
        lsn: Lsn,
        columns: &RecordBatch,
        policy: Digest,
        senders: Vec<(String, Option<Number>, usize)>,
    ) -> Result<Step, ArrowError> {
        let column = |field: &Field| {
            let column = columns.column_by_name(field.name());
            column.cloned().unwrap_or_else(|| new_null_array(field.data_type(), columns.num_rows()))
        };
        let fields = self.present.stream.schema.fields().iter().map(|field| column(field)).collect();
        let outputs = self.present.outputs.iter().map(column).collect();
        let batch = Batch::restored(Arc::clone(&self.present.stream), fields)?;
        Ok(Step::Fold { lsn, batch, outputs, policy, senders })
    }
}
