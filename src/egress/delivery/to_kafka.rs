//! The thread of a Kafka destination: many entries on their way, and a cursor that passes what is confirmed without a
//! gap.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::policy::Released;
use crate::egress::kafka;
use crate::storage::{Lsn, Reader};

use super::runner::{Delivery, TICK};

/// After this time a topic is asked again whether it takes what was set aside for its limit.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Sends what the outbox holds until the thread is told to end.
pub(super) fn run(mut delivery: Delivery, mut sink: kafka::Sink) {
    while resume(&delivery, &mut sink) && send_all(&mut delivery, &mut sink) {}
}

/// Makes the sink ready, for as long as it takes. Whether to go on.
fn resume(delivery: &Delivery, sink: &mut kafka::Sink) -> bool {
    loop {
        let cursor = delivery.cursor.through;
        let outbox = || waiting(delivery, cursor);
        match watched(delivery, |watch| sink.resume(cursor, &outbox, watch)) {
            Ok(()) => {
                delivery.answers();
                return true;
            }
            Err(error) => failed(delivery, error),
        }
        if !delivery.pause() {
            return false;
        }
    }
}

/// Sends what the outbox holds. Ends with `true` when the sink is to be made ready again, with `false` when all
/// is sent at a stop, or the time for it is up.
fn send_all(delivery: &mut Delivery, sink: &mut kafka::Sink) -> bool {
    let mut reader = delivery.context.outbox.reader(delivery.cursor.through + 1);
    let mut on_way = OnWay::default();
    let mut set_aside = None;
    loop {
        let filled = fill(delivery, sink, &mut reader, &mut on_way, &mut set_aside);
        if delivery.is_cut() {
            return false;
        }
        if matches!(filled, Ok(Filled::Held)) && sink.is_idle() {
            if !delivery.pause() {
                return false;
            }
            continue;
        }
        let advanced = filled.and_then(|_| watched(delivery, |watch| sink.advance(watch)).map_err(Failed::Kafka));
        match advanced {
            Ok(Some(confirmed)) => {
                let sent = on_way.through(confirmed.through);
                if !sent.is_empty() {
                    delivery.sent(&sent, confirmed.bytes);
                }
                delivery.context.telemetry.released(&delivery.name, confirmed.bytes);
                delivery.cursor.through = confirmed.through;
                if confirmed.releases == 0 {
                    delivery.passed();
                } else if !delivery.save() {
                    return false;
                }
                delivery.delivered(confirmed.releases);
            }
            Ok(None) if !sink.is_idle() => {}
            Ok(None) if delivery.is_draining() => return false,
            Ok(None) if set_aside.is_some_and(|at| delivery.now().saturating_sub(at) > ASK_AGAIN_AFTER) => {
                sink.give_up();
                return true;
            }
            Ok(None) => {
                let _ = delivery.context.outbox.wait_beyond(delivery.cursor.through, TICK);
            }
            Err(error) => {
                sink.give_up();
                match error {
                    Failed::Kafka(kafka::Error::SentTwice) => {
                        let destination = &delivery.name;
                        tracing::info!(
                            destination,
                            "the end of a transaction was sent again: the next has a new epoch"
                        );
                        return true;
                    }
                    Failed::Kafka(kafka::Error::Replaced) => {
                        let destination = &delivery.name;
                        tracing::info!(
                            destination,
                            "files of the destination's [tls] or [sasl] were replaced: it is connected to anew"
                        );
                        return true;
                    }
                    Failed::Kafka(error) => failed(delivery, error),
                    Failed::Outbox(error) => delivery.failed(error),
                    Failed::Aside(error) => delivery.failed(error),
                }
                return delivery.pause();
            }
        }
    }
}

/// Why nothing more can be sent.
enum Failed {
    Kafka(kafka::Error),
    Outbox(crate::storage::ReadError),
    /// A cell that the destination does not take could not be kept.
    Aside(crate::storage::Error),
}

/// The ids of releases that the sink has taken and not confirmed, with their positions in the outbox.
#[derive(Default)]
struct OnWay(VecDeque<(Lsn, Vec<String>)>);

impl OnWay {
    fn add(&mut self, lsn: Lsn, releases: &[Released]) {
        self.0.push_back((lsn, releases.iter().map(|released| released.id().to_owned()).collect()));
    }

    /// Those through a position. They are on their way no more.
    fn through(&mut self, through: Lsn) -> Vec<String> {
        let mut ids = Vec::new();
        while let Some((_, of_entry)) = self.0.pop_front_if(|(lsn, _)| *lsn <= through) {
            ids.extend(of_entry);
        }
        ids
    }
}

/// Why the sink was given no more.
enum Filled {
    /// It has no room, or there is no more.
    Whole,
    /// The ledger does not say that the next is about to leave.
    Held,
}

/// Gives the sink entries while it has room. Remembers when cells were set aside first.
fn fill(
    delivery: &Delivery,
    sink: &mut kafka::Sink,
    reader: &mut Reader,
    on_way: &mut OnWay,
    set_aside: &mut Option<Duration>,
) -> Result<Filled, Failed> {
    while sink.has_room() {
        let Some(entry) = reader.next().map_err(Failed::Outbox)? else { break };
        let releases = delivery.releases(entry.lsn, &entry.payload);
        if !releases.is_empty()
            && let Err(error) = delivery.intend(&releases, entry.lsn)
        {
            delivery.failed(error);
            *reader = delivery.context.outbox.reader(entry.lsn);
            return Ok(Filled::Held);
        }
        match sink.take(entry.lsn, &releases) {
            Ok(aside) => {
                if !aside.is_empty() {
                    set_aside.get_or_insert_with(|| delivery.now());
                }
                for cell in aside {
                    delivery.set_aside(&cell).map_err(Failed::Aside)?;
                }
                on_way.add(entry.lsn, &releases);
            }
            Err(error) => {
                // What was taken before it can still be sent. After that it is the first, and says what is wrong.
                if sink.is_idle() {
                    return Err(Failed::Kafka(error));
                }
                *reader = delivery.context.outbox.reader(entry.lsn);
                break;
            }
        }
    }
    Ok(Filled::Whole)
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
    if delivery.is_cut() {
        return;
    }
    if let kafka::Error::Fenced(_) = error {
        // Each time: it passes quickly, and somebody has to know.
        tracing::warn!(destination = delivery.name, %error, "another process delivers under this gateway's name: stop one of the two, or give each its own `id`");
    }
    delivery.failed(error);
}

/// The entries of the outbox after a position.
fn waiting(delivery: &Delivery, after: Lsn) -> kafka::Entries<'_> {
    let mut reader = delivery.context.outbox.reader(after + 1);
    Box::new(move || {
        let Some(entry) = reader.next()? else { return Ok(None) };
        let mark = kafka::Mark::of(&delivery.releases(entry.lsn, &entry.payload));
        Ok(Some(kafka::Waiting { lsn: entry.lsn, mark }))
    })
}
