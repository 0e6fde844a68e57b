//! After a start: what the checkpoint and the journal say of the state before.
//!
//! Two passes over the journal from the checkpoint on. The first ([`scan`]) reads what stands before the
//! records (producers, event times, closings), which is all that new records need to be accepted. The
//! second ([`Replay`]) counts the records, on a thread of its own, while new ones come in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::ArrayRef;
use arrow_schema::{ArrowError, Field};

use crate::domain::aggregate::Cells;
use crate::domain::batch::Batch;
use crate::domain::binary::Reader;
use crate::domain::dataset::Dataset;
use crate::domain::deferral::Deferral;
use crate::domain::gateway::Gateway;
use crate::domain::name::{DatasetName, StreamName};
use crate::domain::policy::{Addition, Digest, Longer};
use crate::domain::producer::{Came, Number};
use crate::domain::stream::Stream;
use crate::domain::tally::{Tally, Told};
use crate::domain::watermark::Heard;
use crate::storage::{self, FileSystem, Log, Lsn};

use super::checkpoint::Checkpoint;
use super::entry::{Entry, Sent, Unread};
use super::seal::{Keys, Sealed, Sealer};

mod mapping;

use mapping::Mapping;

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
        stream: StreamName,
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
        dataset: DatasetName,
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
    /// Under which other names the journal closed windows of what is counted now for a dataset.
    pub closed_as: BTreeMap<DatasetName, BTreeSet<DatasetName>>,
}

impl Scanned {
    /// Windows were closed or flushed under the name of a dataset.
    fn closed(&mut self, name: &DatasetName, closed: Vec<Closed>, gateway: &mut Gateway) {
        // Once, whatever it closed: the datasets are of one stream.
        let Some(first) = closed.first() else { return };
        let refused = gateway.tell_refused(&first.dataset);
        if !refused.is_empty() {
            self.refused.insert(first.lsn, refused);
        }
        for dataset in closed.iter().map(|closed| &closed.dataset).filter(|dataset| *dataset != name) {
            self.closed_as.entry(dataset.clone()).or_default().insert(name.clone());
        }
        self.closed.extend(closed);
    }
}

/// What a checkpoint holds of windows.
#[derive(Default)]
pub struct Restored {
    /// The windows that were open, by dataset.
    pub windows: BTreeMap<DatasetName, BTreeMap<i64, Cells>>,
    /// What waited of the windows that had closed.
    pub deferred: BTreeMap<DatasetName, Deferral>,
    /// What was added up of longer windows, of those whose cells are counted for one.
    pub longer: BTreeMap<DatasetName, Longer>,
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
    for (dataset, longer) in &checkpoint.longer {
        let declared = unchanged(checkpoint, dataset, present)?;
        let addition = Addition::decode(&mut Reader::new(longer)).ok_or_else(unreadable)?;
        restored.longer.entry(declared.name.clone()).or_default().add(&addition);
    }
    Ok(restored)
}

/// The declaration of a dataset that a checkpoint has cells of, which must count as it did.
fn unchanged<'p>(checkpoint: &Checkpoint, dataset: &DatasetName, present: &'p [Present]) -> Result<&'p Dataset, Error> {
    let changed = |changes: &str| Error::Dataset { dataset: dataset.clone(), changes: changes.to_owned() };
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
                mapping.of(&context, &batch.head.stream)?;
                restore_requests(gateway, &batch.requests, Some(&batch.head.stream), batch.head.at, lsn, now);
            }
            Entry::Requests { at, stream, requests } => {
                restore_requests(gateway, &requests, stream.as_ref(), at, lsn, now);
            }
            Entry::Heard { stream, producer, event_time } => {
                gateway.hear(&stream, Heard { producer, address: None, identity: None, event_time }, now);
            }
            Entry::Spent { producer, number, outcome } => {
                if let Some(number) = number {
                    gateway.producers.take(producer, number, lsn, outcome.as_ref(), Came::default());
                }
            }
            Entry::Closed { dataset, before, watermark } => {
                let closed = mapping.closed(lsn, &context, &dataset, Some(before));
                for Closed { dataset, before, .. } in &closed {
                    before.iter().for_each(|before| gateway.restore_closed(dataset, *before, watermark));
                }
                scanned.closed(&dataset, closed, gateway);
            }
            Entry::Flushed { dataset } => {
                scanned.closed(&dataset, mapping.closed(lsn, &context, &dataset, None), gateway);
            }
        }
    }
    Ok(scanned)
}

/// Tells the gateway of requests that the journal holds, which came to a stream at a time.
fn restore_requests(
    gateway: &mut Gateway,
    requests: &[Sent<'_>],
    stream: Option<&StreamName>,
    at: i64,
    lsn: Lsn,
    now: Duration,
) {
    for request in requests {
        let heard = Heard { producer: request.producer, address: None, identity: None, event_time: request.newest };
        if let Some(stream) = stream {
            gateway.hear(stream, heard, now);
            // Where a producer has promised more than it has brought, a window is taken to be open that may hold nothing.
            let newest = request.newest.filter(|_| request.rows > 0);
            newest.into_iter().for_each(|newest| gateway.restore_event_time(stream, newest));
        }
        if let Some(number) = request.number {
            let came = Came { at: Some(at), from: None, of: None };
            gateway.producers.take(request.producer, number, lsn, request.outcome.as_deref(), came);
        }
    }
    if let Some(stream) = stream {
        gateway.refused(stream, &Tally::of(requests.iter().filter_map(|request| request.outcome.as_deref())));
    }
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

/// A request that brought records.
pub struct Brought {
    /// The series of numbers of whoever sent it.
    pub series: String,
    /// Its number, if it has one.
    pub number: Option<Number>,
    /// How many records it brought.
    pub rows: usize,
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
        /// The requests that brought them, in their order.
        senders: Vec<Brought>,
    },
    /// Windows to be closed.
    Close(Closed),
}

/// The second pass.
pub struct Replay {
    reader: storage::Reader,
    through: Lsn,
    mapping: Mapping,
    /// What the last entry closed besides.
    closed: VecDeque<Closed>,
    sealer: Sealer,
    erased: Erased,
}

/// Records that the journal held under keys that are not there any more.
#[derive(Debug, Default)]
pub struct Erased {
    /// How many.
    pub records: u64,
    /// Of which streams, by one missing key or by the keys that do not open them. Records that miss two keys stand under both.
    why: BTreeMap<Sealed, BTreeSet<StreamName>>,
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
            self.why.entry(why).or_default().insert(stream.clone());
        }
    }

    /// Says it in the log, once per key.
    pub fn say(&self) {
        for (why, streams) in &self.why {
            // How many is a metric, in steps: beside what was taken in and left, it could tell of few.
            let streams = streams.iter().map(StreamName::as_str).collect::<Vec<_>>().join(", ");
            match why {
                Sealed::KeyMissing(regimes) => {
                    let regime = regimes.first().map_or("", String::as_str);
                    tracing::warn!(
                        regime,
                        streams,
                        "the key of a regime is missing; what the journal holds under it is erased and not counted. \
                         If it was not meant to be erased, put the key back and start again"
                    );
                }
                Sealed::DoesNotOpen(regimes) => {
                    let regimes = regimes.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                    tracing::error!(
                        regimes,
                        streams,
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
        let (closed, erased) = (VecDeque::new(), Erased::default());
        Self { reader: log.reader(from), through, mapping, closed, sealer, erased }
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
        if let Some(closed) = self.closed.pop_front() {
            return Ok(Some(Step::Close(closed)));
        }
        while let Some(storage::Entry { lsn, context, payload }) = self.reader.next()? {
            if lsn > self.through {
                return Ok(None);
            }
            match Entry::decode(&payload).ok_or(Error::Unreadable(lsn))? {
                Entry::Batch(accepted) => {
                    let policy = Digest::from_bytes(accepted.head.policy);
                    let mapped = self.mapping.of(&context, &accepted.head.stream)?;
                    let columns = match mapped.reader.columns(&accepted, &mut self.sealer) {
                        Ok(columns) => columns,
                        Err(Unread::Sealed(sealed)) => {
                            self.erased.add(sealed, &mapped.present.stream.name, accepted.rows());
                            continue;
                        }
                        Err(Unread::Arrow(source)) => return Err(Error::Records { lsn, source }),
                    };
                    let senders = accepted.requests.iter();
                    let senders = senders.map(|sent| Brought {
                        series: sent.producer.to_owned(),
                        number: sent.number,
                        rows: sent.rows as usize,
                    });
                    return mapped
                        .fold(lsn, &columns, policy, senders.collect())
                        .map(Some)
                        .map_err(|source| Error::Records { lsn, source });
                }
                Entry::Closed { dataset, before, .. } => {
                    self.closed.extend(self.mapping.closed(lsn, &context, &dataset, Some(before)));
                }
                Entry::Flushed { dataset } => {
                    self.closed.extend(self.mapping.closed(lsn, &context, &dataset, None));
                }
                Entry::Heard { .. } | Entry::Spent { .. } | Entry::Requests { .. } => {}
            }
            if let Some(closed) = self.closed.pop_front() {
                return Ok(Some(Step::Close(closed)));
            }
        }
        Ok(None)
    }
}
