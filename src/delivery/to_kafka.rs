//! The thread of a Kafka destination.

use crate::adapters::kafka;
use crate::domain::producer::Lsn;
use crate::telemetry::Telemetry;

use super::runner::{Delivery, TICK};

/// Sends what the outbox holds until the thread is told to end.
pub(super) fn run(mut delivery: Delivery, mut sink: kafka::Sink) {
    while let Some(known) = resume(&delivery, &mut sink)
        && send_all(&mut delivery, &mut sink, known)
    {}
}

/// Makes the sink ready, for as long as it takes. The position through which the broker has everything: it may be
/// further than the cursor. `None`: not to go on.
fn resume(delivery: &Delivery, sink: &mut kafka::Sink) -> Option<Lsn> {
    loop {
        let cursor = delivery.cursor.through;
        match watched(delivery, |watch| sink.resume(cursor, &|from| waiting(delivery, from), watch)) {
            Ok(through) => {
                delivery.answers();
                return Some(through);
            }
            Err(error) => failed(delivery, error),
        }
        if !delivery.pause() {
            return None;
        }
    }
}

/// Sends what the outbox holds. Ends with `true` when the sink is to be made ready again, with `false` when all
/// is sent at a stop, or the time for it is up.
fn send_all(delivery: &mut Delivery, sink: &mut kafka::Sink, known: Lsn) -> bool {
    let mut reader = delivery.context.outbox.reader(delivery.cursor.through + 1);
    loop {
        let entry = match reader.next() {
            Ok(Some(entry)) => entry,
            Ok(None) if delivery.is_draining() => return false,
            Ok(None) => {
                let _ = delivery.context.outbox.wait_beyond(delivery.cursor.through, TICK);
                if delivery.is_cut() {
                    return false;
                }
                continue;
            }
            Err(error) => {
                delivery.failed(error);
                if !delivery.pause() {
                    return false;
                }
                continue;
            }
        };
        let releases = delivery.releases(entry.lsn, &entry.payload);
        while !releases.is_empty() && entry.lsn > known {
            if !sink.is_ready() {
                return true;
            }
            match watched(delivery, |watch| sink.send(entry.lsn, &releases, watch)) {
                Ok(bytes) => {
                    Telemetry::add(&delivery.context.telemetry.gateway.bytes_out, bytes);
                    break;
                }
                Err(error) => failed(delivery, error),
            }
            if !delivery.pause() {
                return false;
            }
        }
        delivery.cursor.through = entry.lsn;
        if !releases.is_empty() && !delivery.save() {
            return false;
        }
        delivery.delivered(releases.len());
    }
}

/// Calls a sink that looks at the clock, and at whether the threads are to end.
fn watched<T>(delivery: &Delivery, call: impl FnOnce(kafka::Watch<'_>) -> T) -> T {
    call(kafka::Watch {
        stops: &|| delivery.is_cut(),
        now: &*delivery.context.now,
        stalled: &|error| failed(delivery, error),
    })
}

fn failed(delivery: &Delivery, error: kafka::Error) {
    if !delivery.is_cut() {
        delivery.failed(error);
    }
}

/// The first entry of the outbox from a position on.
fn waiting(delivery: &Delivery, from: Lsn) -> Result<Option<kafka::Waiting>, Box<dyn std::error::Error + Send + Sync>> {
    let Some(entry) = delivery.context.outbox.reader(from).next()? else { return Ok(None) };
    let release = delivery.releases(entry.lsn, &entry.payload).last().map(|released| released.id().to_owned());
    Ok(Some(kafka::Waiting { lsn: entry.lsn, release }))
}
