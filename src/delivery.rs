//! From the outbox to the destinations: one thread per destination, each with a cursor of its own on disk.
//!
//! A release is sent from what the outbox holds, as often as it takes, and is passed over only when its
//! destination has confirmed it and the cursor says so on disk. One destination that is away does not hold
//! up another: what waits for it waits on disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use crate::adapters::journal::{Error, FileSystem, Log, Slots, Stored};
use crate::adapters::{file, kafka};
use crate::domain::binary::{Reader, Writer};
use crate::domain::policy::Released;
use crate::domain::producer::Lsn;
use crate::durable::outbox::Closing;
use crate::planted::planted;
use crate::telemetry::Telemetry;

/// How often a thread looks up when nothing happens.
const TICK: Duration = Duration::from_millis(50);
/// How long it waits after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// One destination's sink.
pub enum Sink {
    /// Files.
    File(file::Sink),
    /// A Kafka topic.
    Kafka(kafka::Sink),
}

/// What a thread needs besides its sink.
#[derive(Clone)]
pub struct Context {
    /// The outbox.
    pub outbox: Arc<Log>,
    /// A monotonic clock.
    pub now: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// The counts.
    pub telemetry: Arc<Telemetry>,
}

/// The running threads.
pub struct Deliveries {
    threads: Vec<JoinHandle<()>>,
    /// Nothing is ever sent: the threads see that the sender is gone, finish what waits, and end.
    drain: Option<Sender<()>>,
    /// As `drain`, but they end at once.
    cut: Option<Sender<()>>,
}

/// How far a destination is in the outbox, on disk.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Everything through this position is confirmed.
    through: Lsn,
    /// For files, by dataset.
    files: BTreeMap<String, Files>,
}

/// How far the files of a dataset are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Files {
    /// The last position that is in a file.
    written: Lsn,
    /// The last position of the file that is being written: after a crash the very same file is written again.
    pending: Lsn,
}

/// How far every destination is, for whoever shortens the outbox.
#[derive(Clone, Default)]
pub struct Confirmed(Vec<Arc<AtomicU64>>);

impl Confirmed {
    /// The position through which all destinations have confirmed.
    #[must_use]
    pub fn through(&self) -> Lsn {
        self.0.iter().map(|cursor| cursor.load(Ordering::Acquire)).min().unwrap_or(Lsn::MAX)
    }
}

/// The cursors of all destinations, read before anything is sent.
pub struct Cursors {
    opened: BTreeMap<String, (Slots, Cursor, Arc<AtomicU64>)>,
}

impl Cursors {
    /// Opens the cursors of destinations.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn open<'d>(
        fs: &Arc<dyn FileSystem>,
        directory: &Path,
        destinations: impl Iterator<Item = &'d str>,
    ) -> Result<Self, Error> {
        crate::adapters::journal::create_directories(&**fs, directory)?;
        let mut opened = BTreeMap::new();
        for name in destinations {
            let (slots, stored) = Slots::open(Arc::clone(fs), &directory.join(name))?;
            let cursor = match stored {
                Stored::Missing => Cursor::default(),
                Stored::Value(bytes) => Cursor::decode(&bytes).unwrap_or_default(),
                Stored::Damaged => {
                    tracing::error!(destination = name, "the cursor is damaged: what the outbox holds is sent again");
                    Cursor::default()
                }
            };
            let shared = Arc::new(AtomicU64::new(cursor.through));
            opened.insert(name.to_owned(), (slots, cursor, shared));
        }
        Ok(Self { opened })
    }

    /// The last position of the outbox that any of them has come to.
    #[must_use]
    pub fn reached(&self) -> Lsn {
        let cursors = self.opened.values().map(|(_, cursor, _)| cursor);
        let files = |cursor: &Cursor| cursor.files.values().map(|files| files.pending.max(files.written)).max();
        cursors.map(|cursor| files(cursor).unwrap_or(0).max(cursor.through)).max().unwrap_or(0)
    }

    /// How far they are, now and later.
    #[must_use]
    pub fn confirmed(&self) -> Confirmed {
        Confirmed(self.opened.values().map(|(.., shared)| Arc::clone(shared)).collect())
    }
}

impl Cursor {
    /// How far a destination is, by a cursor that may be in use.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn peek(fs: &dyn FileSystem, directory: &Path, destination: &str) -> Result<Self, Error> {
        Ok(match Slots::peek(fs, &directory.join(destination))? {
            Stored::Value(bytes) => Self::decode(&bytes).unwrap_or_default(),
            Stored::Missing | Stored::Damaged => Self::default(),
        })
    }

    /// Whether the destination has confirmed what the outbox holds of a dataset at a position.
    #[must_use]
    pub fn has(&self, dataset: &str, lsn: Lsn) -> bool {
        lsn <= self.through || self.files.get(dataset).is_some_and(|files| lsn <= files.written)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u64(self.through).count(self.files.len());
        for (dataset, files) in &self.files {
            writer.text(dataset).u64(files.written).u64(files.pending);
        }
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut cursor = Self { through: reader.u64()?, files: BTreeMap::new() };
        for _ in 0..reader.count(24)? {
            let dataset = reader.text()?.to_owned();
            cursor.files.insert(dataset, Files { written: reader.u64()?, pending: reader.u64()? });
        }
        Some(cursor)
    }
}

impl Deliveries {
    /// Starts a thread per destination.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(sinks: BTreeMap<String, Sink>, cursors: Cursors, context: &Context) -> std::io::Result<Self> {
        let ((drain, draining), (cut, is_cut)) = (bounded(0), bounded(0));
        let mut cursors = cursors.opened;
        let mut threads = Vec::new();
        for (name, sink) in sinks {
            let Some((slots, cursor, shared)) = cursors.remove(&name) else { continue };
            let builder = thread::Builder::new().name(format!("to-{name}"));
            let delivery = Delivery {
                name,
                slots,
                cursor,
                shared,
                context: context.clone(),
                draining: draining.clone(),
                is_cut: is_cut.clone(),
            };
            threads.push(builder.spawn(move || delivery.run(sink))?);
        }
        Ok(Self { threads, drain: Some(drain), cut: Some(cut) })
    }

    /// Sends what the outbox holds, and ends.
    pub fn finish(&mut self) {
        self.drain = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a destination's thread panicked");
            }
        }
    }

    /// What ends the threads at once, when it is dropped: what was not sent stays in the outbox.
    pub fn cut(&mut self) -> Option<Sender<()>> {
        self.cut.take()
    }
}

struct Delivery {
    name: String,
    slots: Slots,
    cursor: Cursor,
    shared: Arc<AtomicU64>,
    context: Context,
    draining: Receiver<()>,
    is_cut: Receiver<()>,
}

impl Delivery {
    fn run(self, sink: Sink) {
        let destination = self.name.clone();
        match sink {
            Sink::File(sink) => self.write_files(sink),
            Sink::Kafka(sink) => self.send_to_kafka(sink),
        }
        tracing::debug!(destination, "delivery ended");
    }

    fn is_cut(&self) -> bool {
        self.is_cut.try_recv() == Err(TryRecvError::Disconnected)
    }

    fn is_draining(&self) -> bool {
        self.draining.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits after a failure. Whether to go on.
    fn pause(&self) -> bool {
        self.is_cut.recv_timeout(PAUSE) != Err(RecvTimeoutError::Disconnected)
    }

    /// Makes the cursor durable, for as long as it takes. Whether it is.
    fn save(&mut self) -> bool {
        while let Err(error) = self.slots.write(&self.cursor.encode()) {
            let error = anyhow::Error::from(error);
            tracing::error!(destination = self.name, error = format!("{error:#}"), "a cursor could not be written");
            if !self.pause() {
                return false;
            }
        }
        self.shared.store(self.cursor.through, Ordering::Release);
        true
    }

    /// The releases of one entry that are for this destination.
    fn releases(&self, lsn: Lsn, payload: &[u8]) -> Vec<Released> {
        let Some(closing) = Closing::decode(payload) else {
            tracing::error!(lsn, "an entry of the outbox cannot be read; it stays there");
            return Vec::new();
        };
        closing.releases.into_iter().filter(|released| released.destination() == self.name).collect()
    }

    fn send_to_kafka(mut self, mut sink: kafka::Sink) {
        while self.resume(&mut sink) && self.send_all(&mut sink) {}
    }

    /// Makes the sink ready, for as long as it takes: it, or the broker, may be further than the cursor. Whether to
    /// go on.
    fn resume(&mut self, sink: &mut kafka::Sink) -> bool {
        loop {
            let cursor = self.cursor.through;
            match self.watched(|watch| sink.resume(cursor, &|from| self.waiting(from), watch)) {
                Ok(through) if through > cursor => {
                    self.cursor.through = through;
                    return self.save();
                }
                Ok(_) => return true,
                Err(error) => self.not_yet(&error, "not ready to deliver; what waits stays in the outbox"),
            }
            if !self.pause() {
                return false;
            }
        }
    }

    /// Sends what the outbox holds. Ends with `true` when the sink is to be made ready again, with `false` when all
    /// is sent at a stop, or the time for it is up.
    fn send_all(&mut self, sink: &mut kafka::Sink) -> bool {
        let mut reader = self.context.outbox.reader(self.cursor.through + 1);
        loop {
            let entry = match reader.next() {
                Ok(Some(entry)) => entry,
                Ok(None) if self.is_draining() => return false,
                Ok(None) => {
                    let _ = self.context.outbox.wait_beyond(self.cursor.through, TICK);
                    if self.is_cut() {
                        return false;
                    }
                    continue;
                }
                Err(error) => {
                    tracing::error!(destination = self.name, %error, "the outbox cannot be read");
                    if !self.pause() {
                        return false;
                    }
                    continue;
                }
            };
            let releases = self.releases(entry.lsn, &entry.payload);
            while !releases.is_empty() {
                if !sink.is_ready() {
                    return true;
                }
                match self.watched(|watch| sink.send(entry.lsn, &releases, watch)) {
                    Ok(bytes) => {
                        Telemetry::add(&self.context.telemetry.gateway.bytes_out, bytes);
                        break;
                    }
                    Err(error) => self.not_yet(&error, "a release is not confirmed and waits"),
                }
                if !self.pause() {
                    return false;
                }
            }
            self.cursor.through = entry.lsn;
            if !releases.is_empty() && !self.save() {
                return false;
            }
        }
    }

    /// Calls a sink that looks at the clock, and at whether the threads are to end.
    fn watched<T>(&self, call: impl FnOnce(kafka::Watch<'_>) -> T) -> T {
        call(kafka::Watch { stops: &|| self.is_cut(), now: &*self.context.now })
    }

    fn not_yet(&self, error: &kafka::Error, what: &str) {
        if !self.is_cut() {
            tracing::warn!(destination = self.name, %error, "{what}");
        }
    }

    /// The first entry of the outbox from a position on.
    fn waiting(&self, from: Lsn) -> Result<Option<kafka::Waiting>, Box<dyn std::error::Error + Send + Sync>> {
        let Some(entry) = self.context.outbox.reader(from).next()? else { return Ok(None) };
        let release = self.releases(entry.lsn, &entry.payload).last().map(|released| released.id().to_owned());
        Ok(Some(kafka::Waiting { lsn: entry.lsn, release }))
    }

    fn write_files(mut self, mut sink: file::Sink) {
        let mut reader = self.context.outbox.reader(self.cursor.through + 1);
        let mut read = self.cursor.through;
        loop {
            let now = (self.context.now)();
            let all = match reader.next() {
                Ok(Some(entry)) => {
                    read = entry.lsn;
                    if !self.take(&mut sink, entry.lsn, &entry.payload, now) {
                        return;
                    }
                    continue;
                }
                Ok(None) => self.is_draining(),
                Err(error) => {
                    tracing::error!(destination = self.name, %error, "the outbox cannot be read");
                    if !self.pause() {
                        return;
                    }
                    continue;
                }
            };
            for dataset in sink.due(now, all) {
                if !self.write(&mut sink, &dataset, read) {
                    return;
                }
            }
            if self.cursor.through < read && sink.is_empty() {
                // Nothing waits: what was read is confirmed. It goes to disk with the next file.
                self.cursor.through = read;
                self.shared.store(read, Ordering::Release);
            }
            if all || self.is_cut() {
                return;
            }
            let _ = self.context.outbox.wait_beyond(read, TICK);
        }
    }

    /// Takes an entry of the outbox. Whether to go on.
    fn take(&mut self, sink: &mut file::Sink, lsn: Lsn, payload: &[u8], now: Duration) -> bool {
        let releases = self.releases(lsn, payload);
        let Some(dataset) = releases.first().map(|released| released.dataset().to_owned()) else { return true };
        let files = self.cursor.files.get(&dataset).copied().unwrap_or_default();
        if lsn <= files.written {
            return true;
        }
        for released in releases {
            sink.take(lsn, released, now);
        }
        // What a file was being made of before a crash is made into that file again, and only that.
        let is_whole = lsn == files.pending || (lsn > files.pending && sink.is_large(&dataset));
        !is_whole || self.write(sink, &dataset, lsn)
    }

    /// Writes a dataset's file: first the cursor says which releases it will hold, then the file is written, then
    /// the cursor says that it was. Whether to go on.
    fn write(&mut self, sink: &mut file::Sink, dataset: &str, read: Lsn) -> bool {
        let Some(last) = sink.last(dataset) else { return true };
        let files = self.cursor.files.entry(dataset.to_owned()).or_default();
        if files.pending < last {
            files.pending = last;
            if !self.save() {
                return false;
            }
        }
        if planted("cursor-before-file") {
            self.confirm(sink, dataset, last, read);
            if !self.save() {
                return false;
            }
            // A slow disk, so that a crash in between is not too rare.
            thread::sleep(TICK);
        }
        loop {
            match sink.write(dataset) {
                Ok(bytes) => {
                    Telemetry::add(&self.context.telemetry.gateway.bytes_out, bytes);
                    break;
                }
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    tracing::error!(error = format!("{error:#}"), "a release could not be written and waits");
                    if !self.pause() {
                        return false;
                    }
                }
            }
        }
        self.confirm(sink, dataset, last, read);
        self.save()
    }

    fn confirm(&mut self, sink: &file::Sink, dataset: &str, last: Lsn, read: Lsn) {
        self.cursor.files.insert(dataset.to_owned(), Files { written: last, pending: last });
        let waiting = sink.first_waiting(dataset);
        self.cursor.through = self.cursor.through.max(waiting.map_or(read, |first| first - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let files = [("a".to_owned(), Files { written: 3, pending: 9 })].into();
        let cursor = Cursor { through: 2, files };
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        assert_eq!(Cursor::decode(&[1]), None);
    }
}
