//! The thread of a file destination. Releases wait in the sink until a file is due; the cursor says first which
//! releases the file will hold, so that after a crash the very same file is written again.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::domain::policy::Released;
use crate::egress::budget::Decision;
use crate::egress::file::{self, Made};
use crate::planted::planted;
use crate::storage::Lsn;

use super::cursor::Files;
use super::rationed::Rationed;
use super::runner::{Delivery, TICK};

/// Writes what the outbox holds until the thread is told to end, as far as its budget goes, if it has one.
pub(super) fn run(mut delivery: Delivery, mut sink: file::Sink, mut rationed: Option<Rationed>) {
    let mut reader = delivery.context.outbox.reader(delivery.cursor.through + 1);
    let mut read = delivery.cursor.through;
    loop {
        let now = delivery.now();
        let all = match reader.next() {
            Ok(Some(entry)) => match take(&mut delivery, &mut sink, &mut rationed, (entry.lsn, &entry.payload), now) {
                Went::On => {
                    read = entry.lsn;
                    continue;
                }
                // Nothing more is taken. What was taken is written, as far as the bytes go, unless the rest of a file that
                // was being made before a crash stands behind it: that one may be paid for, and comes first.
                Went::Short if delivery.cursor.files.values().all(|files| files.pending <= read) => true,
                Went::Short | Went::Cut => return,
            },
            Ok(None) => delivery.is_draining(),
            Err(error) => {
                delivery.failed(error);
                if !delivery.pause() {
                    return;
                }
                continue;
            }
        };
        let mut due = sink.due(now, all);
        if let Some(rationed) = &rationed {
            rationed.sort(&mut due);
        }
        for dataset in due {
            // At a stop, one that is short of bytes keeps no other one back.
            if write(&mut delivery, &mut sink, &mut rationed, &dataset, read) == Went::Cut {
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

/// How it went, and so how it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    /// As it should.
    On,
    /// The gateway stops, and the budget does not suffice for a file. Its releases stay in the sink.
    Short,
    /// The thread ends at once.
    Cut,
}

impl Went {
    fn on(goes_on: bool) -> Self {
        if goes_on { Self::On } else { Self::Cut }
    }
}

/// Takes an entry of the outbox. If it does not go on, the entry was not taken as a whole.
fn take(
    delivery: &mut Delivery,
    sink: &mut file::Sink,
    rationed: &mut Option<Rationed>,
    (lsn, payload): (Lsn, &[u8]),
    now: Duration,
) -> Went {
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
        if differs {
            let went = write(delivery, sink, rationed, &dataset, lsn - 1);
            if went != Went::On {
                return went;
            }
        }
        releases.into_iter().for_each(|released| sink.take(lsn, released, now));
        taken.push((dataset, files.pending));
    }
    // Once the sink has the whole entry: a file of one dataset confirms no more than what waits of the others.
    for (dataset, pending) in taken {
        // What a file was being made of before a crash is made into that file again, and only that.
        let is_whole = lsn == pending || (lsn > pending && sink.is_large(&dataset));
        if is_whole {
            let went = write(delivery, sink, rationed, &dataset, lsn);
            if went != Went::On {
                return went;
            }
        }
    }
    Went::On
}

/// Writes a dataset's file: it is made, and waits for bytes of the budget; the cursor says which releases it holds; it is
/// paid for; it is written; then the cursor says that it was.
fn write(
    delivery: &mut Delivery,
    sink: &mut file::Sink,
    rationed: &mut Option<Rationed>,
    dataset: &str,
    read: Lsn,
) -> Went {
    let Some(last) = sink.last(dataset) else { return Went::On };
    let made = loop {
        match sink.make(dataset) {
            Ok(Some(made)) => break made,
            Ok(None) => return Went::On,
            Err(error) => delivery.failed(error),
        }
        if !delivery.pause() {
            return Went::Cut;
        }
    };
    let decided = match rationed {
        Some(rationed) => wait_for_bytes(delivery, sink, rationed, &made, last),
        None => Ok(Decided::Written),
    };
    let decided = match decided {
        Ok(decided) => decided,
        Err(went) => return went,
    };
    // From here on the file stays what it is, whatever happens: it is not paid for twice.
    let files = delivery.cursor.files.entry(dataset.to_owned()).or_default();
    if files.pending < last {
        files.pending = last;
        if !delivery.save() {
            return Went::Cut;
        }
    }
    Went::on(match (decided, rationed) {
        (Decided::Shed, Some(rationed)) => shed(delivery, sink, rationed, &made, (last, read)),
        (_, rationed) => put(delivery, sink, rationed, &made, (last, read)),
    })
}

/// What becomes of a file.
enum Decided {
    Written,
    Shed,
}

/// Waits until the budget suffices for a file, or it is decided that it is shed; or how it went when the gateway stops
/// before. Nothing else is taken meanwhile: it waits in the outbox.
fn wait_for_bytes(
    delivery: &Delivery,
    sink: &file::Sink,
    rationed: &mut Rationed,
    made: &Made,
    last: Lsn,
) -> Result<Decided, Went> {
    loop {
        let decision = rationed.decide(made, last, sink, delivery.now());
        delivery.budgeted(rationed.level(), decision == Decision::Wait);
        match decision {
            Decision::Send => return Ok(Decided::Written),
            Decision::Shed => return Ok(Decided::Shed),
            Decision::Wait => {}
            Decision::TooLarge => {
                delivery.failed(TooLarge { bytes: made.bytes.len() as u64, most: rationed.most() });
            }
        }
        // A stop does not wait until there are enough bytes.
        if delivery.is_draining() && !delivery.is_cut() {
            return Err(Went::Short);
        }
        if !delivery.pause() {
            return Err(Went::Cut);
        }
    }
}

/// A file with more bytes than a budget can ever have.
#[derive(Debug, thiserror::Error)]
#[error(
    "a file takes {bytes} bytes, and the budget holds {most} at most: it and what comes after it wait. Raise `bytes` in \
     [destinations.NAME.budget]"
)]
struct TooLarge {
    bytes: u64,
    most: u64,
}

/// Pays for a file and writes it. Whether to go on.
fn put(
    delivery: &mut Delivery,
    sink: &mut file::Sink,
    rationed: &mut Option<Rationed>,
    made: &Made,
    (last, read): (Lsn, Lsn),
) -> bool {
    let dataset = made.dataset.as_str();
    if let Some(rationed) = rationed {
        while let Err(error) = rationed.pay(made, last, delivery.moment()) {
            delivery.failed(error);
            if !delivery.pause() {
                return false;
            }
        }
        delivery.budgeted(rationed.level(), false);
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
    while let Err(error) = sink.put(made) {
        delivery.failed(error);
        if !delivery.pause() {
            return false;
        }
    }
    delivery.sent(&ids, made.bytes.len());
    confirm(delivery, sink, dataset, last, read);
    if !delivery.save() {
        return false;
    }
    delivery.context.telemetry.released(&delivery.name, made.bytes.len());
    delivery.delivered(made.releases);
    true
}

/// Passes over the releases of a file, so that they never leave: the budget says so on disk, then the ledger, then the
/// cursor. Whether to go on.
fn shed(
    delivery: &mut Delivery,
    sink: &mut file::Sink,
    rationed: &mut Rationed,
    made: &Made,
    (last, read): (Lsn, Lsn),
) -> bool {
    let dataset = made.dataset.as_str();
    loop {
        let decided = rationed.shed(made, last, delivery.moment()).map_err(anyhow::Error::from);
        match decided.and_then(|()| delivery.say_shed(sink.waiting(dataset), last)) {
            Ok(()) => break,
            Err(error) => delivery.failed(error),
        }
        if !delivery.pause() {
            return false;
        }
    }
    sink.pass_over(dataset);
    confirm(delivery, sink, dataset, last, read);
    if !delivery.save() {
        return false;
    }
    delivery.passed_over(made.releases);
    true
}

fn confirm(delivery: &mut Delivery, sink: &file::Sink, dataset: &str, last: Lsn, read: Lsn) {
    delivery.cursor.files.insert(dataset.to_owned(), Files { written: last, pending: last });
    let waiting = sink.first_waiting(dataset);
    delivery.cursor.through = delivery.cursor.through.max(waiting.map_or(read, |first| first - 1));
}
