//! The thread of a file destination. Releases wait in the sink until a file is due; the cursor says first which
//! releases the file will hold, so that after a crash the very same file is written again.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::domain::name::DatasetName;
use crate::domain::policy::{Reduction, Released};
use crate::egress::budget::{Decision, Parcel};
use crate::egress::file::{self, Made};
use crate::planted::planted;
use crate::storage::Lsn;

use super::cursor::Files;
use super::metered::Now;
use super::rationed::Rationed;
use super::runner::{Delivery, TICK};

/// Writes what the outbox holds until the thread is told to end, as far as its budget goes, if it has one.
pub(super) fn run(delivery: &mut Delivery, mut sink: file::Sink, mut rationed: Option<Rationed>) {
    let mut reader = delivery.context.outbox.reader(delivery.cursor.through + 1);
    let mut read = delivery.cursor.through;
    loop {
        let now = delivery.now();
        let all = match reader.next() {
            Ok(Some(entry)) => match take(delivery, &mut sink, &mut rationed, entry.lsn, &entry.payload, now) {
                Went::On => {
                    read = entry.lsn;
                    continue;
                }
                // Nothing more is taken. What was taken is written, as far as the bytes go, unless the rest of a file that
                // was being made before a crash stands behind it: that one may be paid for, and comes first.
                Went::Short if delivery.cursor.files.values().all(|files| files.pending <= read) => true,
                Went::Short | Went::Cut | Went::Denied | Went::Halved => return,
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
        // Those that may not leave any more hold up no others that are due.
        let allowed = delivery.allowed();
        due.sort_by_key(|dataset| !allowed.contains(dataset));
        for dataset in due {
            // At a stop, one that is short of bytes keeps no other one back.
            // Otherwise more important ones come between two files of one.
            let write = if all { write_all } else { write };
            if write(delivery, &mut sink, &mut rationed, &dataset, read) == Went::Cut {
                return;
            }
        }
        if delivery.cursor.through < read && sink.is_empty() {
            // Nothing waits: what was read is confirmed.
            delivery.cursor.through = read;
        }
        delivery.passed();
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
    /// The dataset may not leave now: its releases stay in the sink, and it is asked again. Only inside of [`write`].
    Denied,
    /// The budget can never have the bytes of the file: it is to hold less, and is made again. Only inside of [`write`].
    Halved,
}

impl Went {
    fn on(goes_on: bool) -> Self {
        if goes_on { Self::On } else { Self::Cut }
    }
}

/// How far a file goes in the outbox.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    /// Where its last release stands.
    last: Lsn,
    /// What was read when it was made, of all datasets.
    read: Lsn,
}

/// Takes an entry of the outbox. If it does not go on, the entry was not taken as a whole.
fn take(
    delivery: &mut Delivery,
    sink: &mut file::Sink,
    rationed: &mut Option<Rationed>,
    lsn: Lsn,
    payload: &[u8],
    now: Duration,
) -> Went {
    let mut of_datasets: BTreeMap<DatasetName, Vec<Released>> = BTreeMap::new();
    for released in delivery.releases(lsn, payload) {
        of_datasets.entry(released.dataset().clone()).or_default().push(released);
    }
    let mut taken = Vec::new();
    for (dataset, releases) in of_datasets {
        let files = delivery.cursor.files.get(dataset.as_str()).copied().unwrap_or_default();
        if lsn <= files.written {
            continue;
        }
        // What a file was being made of before a crash stays one file.
        let differs = lsn > files.pending && releases.first().is_some_and(|released| sink.differs(released));
        if differs {
            let went = write_all(delivery, sink, rationed, &dataset, lsn - 1);
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

/// Writes all that waits of a dataset: as one file, or as several, if a budget can never have the bytes of one.
fn write_all(
    delivery: &mut Delivery,
    sink: &mut file::Sink,
    rationed: &mut Option<Rationed>,
    dataset: &DatasetName,
    read: Lsn,
) -> Went {
    loop {
        let first = sink.first(dataset);
        let went = write(delivery, sink, rationed, dataset, read);
        if went != Went::On || sink.first(dataset).is_none_or(|next| Some(next) == first) {
            return went;
        }
    }
}

/// Writes a dataset's next file: it is made, and waits for bytes of the budget; the cursor says which releases it holds; it is
/// paid for; it is written; then the cursor says that it was.
fn write(
    delivery: &mut Delivery,
    sink: &mut file::Sink,
    rationed: &mut Option<Rationed>,
    dataset: &DatasetName,
    read: Lsn,
) -> Went {
    loop {
        match write_if_allowed(delivery, sink, rationed, dataset, read) {
            Went::Denied => {}
            Went::Halved => continue,
            went => return went,
        }
        if !delivery.pause() {
            return Went::Cut;
        }
    }
}

/// The same, as long as the dataset may leave.
fn write_if_allowed(
    delivery: &mut Delivery,
    sink: &mut file::Sink,
    rationed: &mut Option<Rationed>,
    dataset: &DatasetName,
    read: Lsn,
) -> Went {
    let Some(last) = sink.last(dataset) else { return Went::On };
    // What was paid for before a crash stays what it was.
    let forms = rationed.as_ref().map_or(&delivery.forms, Rationed::forms);
    let form = forms.of(Parcel { lsn: last, of: Some(dataset) }).cloned().unwrap_or_default();
    let way = Stretch { last, read };
    let made = match make(delivery, sink, dataset, &form) {
        Ok(Some(made)) => made,
        Ok(None) => return Went::On,
        Err(went) => return went,
    };
    if let Some(denied) = delivery.denied(&made.releases) {
        return give_up(delivery, sink, rationed, &made, denied, way);
    }
    let decided = match rationed {
        Some(rationed) => wait_for_bytes(delivery, sink, rationed, made, last),
        None => Ok(Decided::Written(made)),
    };
    let decided = match decided {
        Ok(decided) => decided,
        Err(went) => return went,
    };
    // From here on the file stays what it is, whatever happens: it is not paid for twice.
    let files = delivery.cursor.files.entry(dataset.into()).or_default();
    if files.pending < last {
        files.pending = last;
        if !delivery.save() {
            return Went::Cut;
        }
    }
    match (decided, rationed) {
        (Decided::Shed(made, is_widened), Some(rationed)) => {
            Went::on(shed(delivery, sink, rationed, &made, is_widened, way))
        }
        (Decided::Written(made) | Decided::Shed(made, _), rationed) => put(delivery, sink, rationed, &made, way),
    }
}

/// What waits of a dataset may not leave any more: it is given up, if the configuration says so. The ledger says so first, then
/// the cursor. Otherwise it waits, and nothing else is taken meanwhile.
fn give_up(
    delivery: &mut Delivery,
    sink: &mut file::Sink,
    rationed: &mut Option<Rationed>,
    made: &Made,
    denied: DatasetName,
    way: Stretch,
) -> Went {
    if !delivery.gives_up(&made.releases) {
        delivery.waits_for_a_policy(denied);
        return if delivery.is_draining() && !delivery.is_cut() { Went::Short } else { Went::Denied };
    }
    let at = delivery.moment();
    let forgotten = rationed.as_mut().map_or(Ok(()), |rationed| rationed.forget(made, at)).map_err(anyhow::Error::from);
    if let Err(error) = forgotten.and_then(|()| delivery.say_denied(&made.releases, way.last)) {
        delivery.failed(error);
        return Went::Denied;
    }
    sink.pass_over(&made.dataset);
    confirm(delivery, sink, &made.dataset, way);
    if !delivery.save() {
        return Went::Cut;
    }
    delivery.gave_up(made.releases.len());
    Went::On
}

/// Makes a dataset's file in a form, for as long as it takes; or how it went when the gateway stops before.
fn make(delivery: &Delivery, sink: &file::Sink, dataset: &DatasetName, form: &Reduction) -> Result<Option<Made>, Went> {
    loop {
        match sink.make(dataset, form) {
            Ok(made) => return Ok(made),
            Err(error) => delivery.failed(error),
        }
        if !delivery.pause() {
            return Err(Went::Cut);
        }
    }
}

/// What becomes of a file.
enum Decided {
    Written(Made),
    /// It is not written; whether that is because others add up its rows.
    Shed(Made, bool),
}

/// Waits until the budget suffices for a file, perhaps in a smaller form, or it is decided that it is shed; or how it went
/// when the gateway stops before. Nothing else is taken meanwhile: it waits in the outbox.
fn wait_for_bytes(
    delivery: &Delivery,
    sink: &mut file::Sink,
    rationed: &mut Rationed,
    made: Made,
    last: Lsn,
) -> Result<Decided, Went> {
    let mut smaller: Option<Vec<Made>> = None;
    loop {
        let forms = smaller.as_deref().unwrap_or_default();
        let now = Now { at: delivery.now(), allowed: &delivery.allowed() };
        let decision = rationed.decide(&made, forms, last, sink, &now);
        let is_tried = decision != Decision::Widen || rationed.tells_changes();
        if is_tried && !matches!(decision, Decision::Send(_)) && smaller.is_none() {
            let forms = rationed.smaller(&made.dataset, sink, delivery.cursor.through);
            let forms = forms.iter().filter_map(|form| make(delivery, sink, &made.dataset, form).transpose());
            let is_smaller = |made: &Made| made.releases.iter().any(|released| released.made_smaller().is_some());
            smaller = Some(forms.filter(|made| made.as_ref().map_or(true, is_smaller)).collect::<Result<_, _>>()?);
            continue;
        }
        // What waited while bytes were short may be more than the bucket holds, in any form. What was decided and paid for
        // before a crash may have left.
        let is_decided = delivery.cursor.files.get(made.dataset.as_str()).is_some_and(|files| files.pending >= last);
        let may_be_there = is_decided && rationed.is_paid(&made.dataset, last);
        let all = std::iter::once(&made).chain(smaller.iter().flatten());
        let is_never = all.map(|made| made.bytes.len() as u64).min() > Some(rationed.most());
        let is_out = matches!(decision, Decision::Shed | Decision::TooLarge);
        if is_out && is_never && !may_be_there && sink.halve(&made.dataset) {
            return Err(Went::Halved);
        }
        delivery.budgeted(rationed.level(), decision == Decision::Wait);
        match decision {
            Decision::Send(0) => return Ok(Decided::Written(made)),
            Decision::Send(form) => {
                let made = smaller.and_then(|forms| forms.into_iter().nth(form - 1)).unwrap_or(made);
                delivery.made_smaller(&made.releases);
                return Ok(Decided::Written(made));
            }
            Decision::Shed | Decision::Widen => return Ok(Decided::Shed(made, decision == Decision::Widen)),
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
        if delivery.denied(&made.releases).is_some() {
            return Err(Went::Denied);
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

/// Pays for a file and writes it.
fn put(
    delivery: &mut Delivery,
    sink: &mut file::Sink,
    rationed: &mut Option<Rationed>,
    made: &Made,
    way: Stretch,
) -> Went {
    if let Some(rationed) = rationed {
        while let Err(error) = rationed.pay(made, sink, way.last, delivery.cursor.through, delivery.moment()) {
            if let Some(went) = failed(delivery, error, made) {
                return went;
            }
        }
        delivery.budgeted(rationed.level(), false);
    }
    while let Err(error) = delivery.intend(&made.releases, way.last) {
        if let Some(went) = failed(delivery, error, made) {
            return went;
        }
    }
    let ids: Vec<String> = made.releases.iter().map(|released| released.id().to_owned()).collect();
    if planted("cursor-before-file") {
        confirm(delivery, sink, &made.dataset, way);
        if !delivery.save() {
            return Went::Cut;
        }
        // A slow disk, so that a crash in between is not too rare.
        thread::sleep(TICK);
    }
    while let Err(error) = sink.put(made) {
        if let Some(went) = failed(delivery, error, made) {
            return went;
        }
    }
    delivery.sent(&ids, made.bytes.len());
    confirm(delivery, sink, &made.dataset, way);
    if !delivery.save() {
        return Went::Cut;
    }
    delivery.context.telemetry.released(&delivery.name, made.bytes.len());
    delivery.delivered(made.releases.len());
    Went::On
}

/// Waits after a failure to write a file. How it went, if it is not to be tried again.
fn failed(delivery: &Delivery, error: impl Into<anyhow::Error>, made: &Made) -> Option<Went> {
    delivery.failed(error);
    if !delivery.pause() {
        return Some(Went::Cut);
    }
    delivery.denied(&made.releases).map(|_| Went::Denied)
}

/// Passes over the releases of a file, so that they never leave: the budget says so on disk, then the ledger, then the
/// cursor. Whether to go on.
fn shed(
    delivery: &mut Delivery,
    sink: &mut file::Sink,
    rationed: &mut Rationed,
    made: &Made,
    is_widened: bool,
    way: Stretch,
) -> bool {
    loop {
        let decided = rationed.shed(made, way.last, delivery.moment()).map_err(anyhow::Error::from);
        let widened = is_widened.then(|| rationed.widened());
        match decided.and_then(|()| delivery.say_shed(sink.waiting(&made.dataset), way.last, widened)) {
            Ok(()) => break,
            Err(error) => delivery.failed(error),
        }
        if !delivery.pause() {
            return false;
        }
    }
    sink.pass_over(&made.dataset);
    confirm(delivery, sink, &made.dataset, way);
    if !delivery.save() {
        return false;
    }
    delivery.passed_over(made.releases.len(), is_widened);
    true
}

fn confirm(delivery: &mut Delivery, sink: &file::Sink, dataset: &DatasetName, way: Stretch) {
    let Stretch { last, read } = way;
    delivery.cursor.files.insert(dataset.into(), Files { written: last, pending: last });
    let waiting = sink.first_waiting();
    delivery.cursor.through = delivery.cursor.through.max(waiting.map_or(read, |first| first - 1));
}
