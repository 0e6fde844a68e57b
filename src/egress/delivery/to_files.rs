//! The thread of a file destination. Releases wait in the sink until a file is due; the cursor says first which
//! releases the file will hold, so that after a crash the very same file is written again.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::domain::policy::Released;
use crate::egress::file;
use crate::planted::planted;
use crate::storage::Lsn;

use super::cursor::Files;
use super::runner::{Delivery, TICK};

/// Writes what the outbox holds until the thread is told to end.
pub(super) fn run(mut delivery: Delivery, mut sink: file::Sink) {
    let mut reader = delivery.context.outbox.reader(delivery.cursor.through + 1);
    let mut read = delivery.cursor.through;
    loop {
        let now = delivery.now();
        let all = match reader.next() {
            Ok(Some(entry)) => {
                read = entry.lsn;
                if !take(&mut delivery, &mut sink, entry.lsn, &entry.payload, now) {
                    return;
                }
                continue;
            }
            Ok(None) => delivery.is_draining(),
            Err(error) => {
                delivery.failed(error);
                if !delivery.pause() {
                    return;
                }
                continue;
            }
        };
        for dataset in sink.due(now, all) {
            if !write(&mut delivery, &mut sink, &dataset, read) {
                return;
            }
        }
        if delivery.cursor.through < read && sink.is_empty() {
            // Nothing waits: what was read is confirmed. It goes to disk with the next file.
            delivery.cursor.through = read;
            delivery.passed();
        }
        if all || delivery.is_cut() {
            return;
        }
        let _ = delivery.context.outbox.wait_beyond(read, TICK);
    }
}

/// Takes an entry of the outbox. Whether to go on.
fn take(delivery: &mut Delivery, sink: &mut file::Sink, lsn: Lsn, payload: &[u8], now: Duration) -> bool {
    let mut of_datasets: BTreeMap<String, Vec<Released>> = BTreeMap::new();
    for released in delivery.releases(lsn, payload) {
        of_datasets.entry(released.dataset().into()).or_default().push(released);
    }
    let mut taken = Vec::new();
    for (dataset, releases) in of_datasets {
        let files = delivery.cursor.files.get(&dataset).copied().unwrap_or_default();
        if lsn <= files.written {
            continue;
        }
        // What a file was being made of before a crash stays one file.
        let differs = lsn > files.pending && releases.first().is_some_and(|released| sink.differs(released));
        if differs && !write(delivery, sink, &dataset, lsn - 1) {
            return false;
        }
        releases.into_iter().for_each(|released| sink.take(lsn, released, now));
        taken.push((dataset, files.pending));
    }
    // Once the sink has the whole entry: a file of one dataset confirms no more than what waits of the others.
    for (dataset, pending) in taken {
        // What a file was being made of before a crash is made into that file again, and only that.
        let is_whole = lsn == pending || (lsn > pending && sink.is_large(&dataset));
        if is_whole && !write(delivery, sink, &dataset, lsn) {
            return false;
        }
    }
    true
}

/// Writes a dataset's file: first the cursor says which releases it will hold, then the file is written, then
/// the cursor says that it was. Whether to go on.
fn write(delivery: &mut Delivery, sink: &mut file::Sink, dataset: &str, read: Lsn) -> bool {
    let Some(last) = sink.last(dataset) else { return true };
    let files = delivery.cursor.files.entry(dataset.to_owned()).or_default();
    if files.pending < last {
        files.pending = last;
        if !delivery.save() {
            return false;
        }
    }
    while let Err(error) = delivery.intend(sink.waiting(dataset), last) {
        delivery.failed(error);
        if !delivery.pause() {
            return false;
        }
    }
    let ids: Vec<String> = sink.waiting(dataset).iter().map(|released| released.id().to_owned()).collect();
    if planted("cursor-before-file") {
        confirm(delivery, sink, dataset, last, read);
        if !delivery.save() {
            return false;
        }
        // A slow disk, so that a crash in between is not too rare.
        thread::sleep(TICK);
    }
    let written = loop {
        match sink.write(dataset) {
            Ok(written) => break written,
            Err(error) => {
                delivery.failed(error);
                if !delivery.pause() {
                    return false;
                }
            }
        }
    };
    delivery.sent(&ids, written.bytes);
    confirm(delivery, sink, dataset, last, read);
    if !delivery.save() {
        return false;
    }
    delivery.context.telemetry.released(&delivery.name, written.bytes);
    delivery.delivered(written.releases);
    true
}

fn confirm(delivery: &mut Delivery, sink: &file::Sink, dataset: &str, last: Lsn, read: Lsn) {
    delivery.cursor.files.insert(dataset.to_owned(), Files { written: last, pending: last });
    let waiting = sink.first_waiting(dataset);
    delivery.cursor.through = delivery.cursor.through.max(waiting.map_or(read, |first| first - 1));
}
