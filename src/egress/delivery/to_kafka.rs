//! The thread of a Kafka destination: many entries on their way, and a cursor that passes what is confirmed without a
//! gap.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::name::DatasetName;
use crate::domain::policy::{Reduction, Released};
use crate::egress::budget::{Decision, Forms, Leaving, Parcel, Payment};
use crate::egress::{encode, kafka};
use crate::storage::{Lsn, Reader};

use super::metered::{Metered, Now, Sizes};
use super::passing::Passing;
use super::runner::{Delivery, TICK};

/// After this time a topic is asked again whether it takes what was set aside for its limit.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Sends what the outbox holds until the thread is told to end, as far as its budget goes, if it has one.
pub(super) fn run(delivery: &mut Delivery, mut sink: kafka::Sink, mut metered: Option<Metered>) {
    while permitted(delivery, &mut metered) {
        if resume(delivery, &mut sink) {
            if !send_all(delivery, &mut sink, &mut metered) {
                return;
            }
        } else if delivery.is_cut() || delivery.is_draining() && delivery.is_permitted() {
            return;
        }
        if !delivery.is_permitted() {
            // Nothing of it stays connected, and nothing is on its way.
            sink.give_up();
        }
    }
}

/// Waits until the policies in force let something go to the destination: until then it is neither resolved nor connected
/// to. What the outbox holds for others is passed over meanwhile, so that it can be shortened. Whether to go on.
fn permitted(delivery: &mut Delivery, metered: &mut Option<Metered>) -> bool {
    delivery.nothing_is_on_its_way();
    if delivery.is_permitted() {
        return true;
    }
    // What was paid for may be given up.
    while let Some(metered) = metered.as_mut().filter(|_| delivery.gives_up_denied())
        && let Err(error) = metered.forget_all(delivery.moment())
    {
        delivery.failed(error);
        if !delivery.pause() {
            return false;
        }
    }
    delivery.closed(true);
    let destination = delivery.name.clone();
    tracing::info!(
        destination = destination.as_str(),
        "no policy in force lets anything go to the destination: it is neither resolved nor connected to"
    );
    let mut passing = Passing::new(delivery);
    while !delivery.is_permitted() {
        if passing.pass(delivery) {
            tracing::warn!(
                destination = destination.as_str(),
                "releases wait for the destination from when something could go to it: they are sent when a policy lets a \
                 dataset go to it again. To give them up, set `when_denied = \"shed\"` in [destinations.NAME] and start again"
            );
        }
        if delivery.is_draining() || !delivery.pause() {
            return false;
        }
    }
    delivery.closed(false);
    tracing::info!(
        destination = destination.as_str(),
        "a policy in force lets a dataset go to the destination: it is connected to"
    );
    true
}

/// Makes the sink ready, for as long as it takes. Whether to go on.
fn resume(delivery: &Delivery, sink: &mut kafka::Sink) -> bool {
    let cursor = delivery.cursor.through;
    let outbox = || waiting(delivery, cursor);
    let waits = OnceCell::new();
    // At a stop nothing more comes. With nothing to send nobody is waited for.
    let is_over = || {
        let nothing_waits = || !*waits.get_or_init(|| holds_any(delivery, cursor));
        delivery.is_cut() || !delivery.is_permitted() || delivery.is_draining() && nothing_waits()
    };
    let stalled = |error| failed(delivery, error);
    while !is_over() {
        let watch = kafka::Watch { stops: &is_over, now: &*delivery.context.now, stalled: &stalled };
        match sink.resume(cursor, &outbox, watch) {
            Ok(()) => {
                delivery.answers();
                return true;
            }
            Err(_) if is_over() => break,
            Err(error) => failed(delivery, error),
        }
        if !delivery.pause() {
            break;
        }
    }
    false
}

/// Whether the outbox holds a release after a position.
fn holds_any(delivery: &Delivery, after: Lsn) -> bool {
    let mut reader = delivery.context.outbox.reader(after + 1);
    loop {
        match reader.next() {
            Ok(Some(entry)) if delivery.releases(entry.lsn, &entry.payload).is_empty() => {}
            Ok(None) => return false,
            // What cannot be read may be one.
            Ok(Some(_)) | Err(_) => return true,
        }
    }
}

/// Sends what the outbox holds. Ends with `true` when the sink is to be made ready again, with `false` when all
/// is sent at a stop, or the time for it is up.
fn send_all(delivery: &mut Delivery, sink: &mut kafka::Sink, metered: &mut Option<Metered>) -> bool {
    let mut line = Line::new(delivery.context.outbox.reader(delivery.cursor.through + 1));
    loop {
        if !delivery.is_permitted() {
            return true;
        }
        let filled = fill(delivery, sink, &mut line, metered);
        if delivery.is_cut() {
            return false;
        }
        if !delivery.is_permitted() {
            return true;
        }
        match &filled {
            Ok(Filled::Held) if sink.is_idle() => {
                if !delivery.pause() {
                    return false;
                }
                continue;
            }
            // A stop does not wait until there are enough bytes. The sink is looked after meanwhile.
            Ok(Filled::Short) if sink.is_idle() && (delivery.is_draining() || !delivery.pause()) => return false,
            Ok(Filled::Shed(lsn, releases, why)) => {
                if !shed(delivery, metered, *lsn, releases, *why) {
                    return false;
                }
                line.next = None;
                continue;
            }
            _ => {}
        }
        let advanced = filled.and_then(|_| watched(delivery, |watch| sink.advance(watch)).map_err(Failed::Kafka));
        match advanced {
            Ok(Some(confirmed)) => {
                let sent = line.on_way.through(confirmed.through);
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
            Ok(None) if line.set_aside.is_some_and(|at| delivery.now().saturating_sub(at) > ASK_AGAIN_AFTER) => {
                sink.give_up();
                return true;
            }
            Ok(None) => {
                delivery.passed();
                let _ = delivery.context.outbox.wait_beyond(delivery.cursor.through, TICK);
            }
            Err(error) => {
                sink.give_up();
                match error {
                    Failed::Kafka(kafka::Error::SentTwice) => {
                        let destination = &delivery.name;
                        tracing::info!(
                            destination = destination.as_str(),
                            "the end of a transaction was sent again: the next has a new epoch"
                        );
                        return true;
                    }
                    Failed::Kafka(kafka::Error::Replaced) => {
                        let destination = &delivery.name;
                        tracing::info!(
                            destination = destination.as_str(),
                            "files of the destination's [tls] or [sasl] were replaced: it is connected to anew"
                        );
                        return true;
                    }
                    Failed::Kafka(error) => failed(delivery, error),
                    Failed::Outbox(error) => delivery.failed(error),
                    Failed::Aside(error) | Failed::Budget(error) => delivery.failed(error),
                    Failed::TooLarge(error) => delivery.failed(error),
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
    /// The budget could not be kept.
    Budget(crate::storage::Error),
    /// The budget never suffices for what is next.
    TooLarge(TooLarge),
}

/// More bytes than a budget can ever have.
#[derive(Debug, thiserror::Error)]
#[error(
    "an entry of the outbox takes {bytes} bytes, and the budget holds {most} at most: it and what comes after it wait. Raise \
     `bytes` in [destinations.NAME.budget]"
)]
struct TooLarge {
    bytes: u64,
    most: u64,
}

/// What the thread has of the outbox.
struct Line {
    reader: Reader,
    /// What was read and waits for the ledger, or for bytes of the budget.
    next: Option<Next>,
    on_way: OnWay,
    /// When cells were set aside first.
    set_aside: Option<Duration>,
}

/// The next entry of the outbox.
struct Next {
    lsn: Lsn,
    /// Its releases, as the outbox has them.
    whole: Vec<Released>,
    /// The same in the form in which they leave, as far as that is decided.
    releases: Vec<Released>,
    form: Reduction,
    /// The bytes that it takes, once they were counted; and whether they are paid for.
    bytes: Option<u64>,
    is_paid: bool,
    /// What it is in smaller forms, once they were made.
    smaller: Option<Vec<Smaller>>,
}

/// An entry in a smaller form.
struct Smaller {
    form: Reduction,
    releases: Vec<Released>,
    bytes: u64,
}

impl Line {
    fn new(reader: Reader) -> Self {
        Self { reader, next: None, on_way: OnWay::default(), set_aside: None }
    }

    /// The next entry. It stays the next one until the sink has taken it. What was paid for leaves in the form that was decided
    /// then.
    fn next(&mut self, delivery: &Delivery, forms: &Forms) -> Result<Option<&mut Next>, Failed> {
        if self.next.is_none() {
            let Some(entry) = self.reader.next().map_err(Failed::Outbox)? else { return Ok(None) };
            let form = forms.of(Parcel { lsn: entry.lsn, of: None }).cloned().unwrap_or_default();
            let whole = delivery.releases(entry.lsn, &entry.payload);
            let releases = reduced(&whole, &form)?;
            let (lsn, bytes, is_paid, smaller) = (entry.lsn, None, false, None);
            self.next = Some(Next { lsn, whole, releases, form, bytes, is_paid, smaller });
        }
        Ok(self.next.as_mut())
    }
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
    /// The budget does not suffice for the next, or it may not leave.
    Short,
    /// The next is not sent. Everything before it is confirmed.
    Shed(Lsn, Vec<Released>, Why),
}

/// Why an entry is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The budget does not suffice for it.
    Short,
    /// Nor for this one, and datasets with longer windows add up its rows.
    Widened,
    /// It may not leave any more.
    Denied,
}

/// Gives the sink entries while it has room.
fn fill(
    delivery: &Delivery,
    sink: &mut kafka::Sink,
    line: &mut Line,
    metered: &mut Option<Metered>,
) -> Result<Filled, Failed> {
    while sink.has_room() {
        let forms = metered.as_ref().map_or(&delivery.forms, Metered::forms);
        let Some(next) = line.next(delivery, forms)? else { break };
        let (lsn, is_idle) = (next.lsn, sink.is_idle());
        // What leaves together waits together.
        let denied = delivery.denied(&next.releases);
        // Nothing is sent of what the destination is known to have.
        let is_sent = denied.is_some() && sink.takes(lsn, &next.releases).is_ok_and(|takes| takes.bytes == 0);
        if let Some(dataset) = denied.filter(|_| !is_sent) {
            if !is_idle {
                return Ok(Filled::Whole);
            }
            if !delivery.gives_up(&next.releases) {
                delivery.waits_for_a_policy(dataset);
                return Ok(Filled::Short);
            }
            return Ok(Filled::Shed(lsn, next.releases.clone(), Why::Denied));
        }
        if let Some(metered) = metered
            && !next.releases.is_empty()
            && !next.is_paid
        {
            match afford(delivery, sink, next, metered) {
                Ok(Afforded::Yes) => {}
                Ok(Afforded::NotNow) => return Ok(Filled::Short),
                // First what was taken before it is confirmed, so that the cursor can pass it.
                Ok(Afforded::Never(_)) if !is_idle => return Ok(Filled::Whole),
                Ok(Afforded::Never(why)) => return Ok(Filled::Shed(lsn, next.releases.clone(), why)),
                Err(Failed::Kafka(_) | Failed::TooLarge(_) | Failed::Budget(_)) if !is_idle => break,
                Err(error) => return Err(error),
            }
        }
        if !next.releases.is_empty()
            && let Err(error) = delivery.intend(&next.releases, lsn)
        {
            delivery.failed(error);
            return Ok(Filled::Held);
        }
        // The ledger took its time.
        if !is_sent {
            delivery.are_on_their_way(&next.releases);
        }
        if !delivery.is_permitted() {
            return Ok(Filled::Whole);
        }
        match sink.take(lsn, &next.releases) {
            Ok(aside) => {
                if !aside.is_empty() {
                    line.set_aside.get_or_insert_with(|| delivery.now());
                    if let (Some(metered), Some(next)) = (metered.as_mut(), &line.next) {
                        // The receiver does not have those cells.
                        metered.forget(&next.whole, delivery.moment()).map_err(Failed::Budget)?;
                    }
                }
                for cell in aside {
                    delivery.set_aside(&cell).map_err(Failed::Aside)?;
                }
                if let Some(next) = line.next.take() {
                    line.on_way.add(lsn, &next.releases);
                }
            }
            Err(error) => {
                // What was taken before it can still be sent. After that it is the first, and says what is wrong.
                if sink.is_idle() {
                    return Err(Failed::Kafka(error));
                }
                break;
            }
        }
    }
    Ok(Filled::Whole)
}

/// Whether the budget suffices for an entry.
enum Afforded {
    /// It is paid for.
    Yes,
    NotNow,
    /// It is not sent.
    Never(Why),
}

/// Pays for an entry from the budget, as far as it goes.
fn afford(delivery: &Delivery, sink: &kafka::Sink, next: &mut Next, metered: &mut Metered) -> Result<Afforded, Failed> {
    let mut bytes = match next.bytes {
        Some(bytes) => bytes,
        None => *next.bytes.insert(sink.takes(next.lsn, &next.releases).map_err(Failed::Kafka)?.bytes),
    };
    let moment = delivery.moment();
    let at = Now { at: moment.now, allowed: &delivery.allowed() };
    let whole = bytes;
    let decide = |metered: &mut Metered, next: &Next| {
        let forms = next.smaller.as_deref().unwrap_or_default();
        let tells_changes = forms.first().is_some_and(|first| first.form.changes().is_some());
        let smaller: Vec<u64> = forms.iter().map(|form| form.bytes).collect();
        let sizes = Sizes { whole, smaller: &smaller, tells_changes };
        metered.decide(next.lsn, &datasets(&next.releases), sizes, &at).map_err(Failed::Outbox)
    };
    let mut decision = decide(metered, next)?;
    let is_tried = decision != Decision::Widen || metered.tells_changes();
    if is_tried && !matches!(decision, Decision::Send(_)) && next.smaller.is_none() {
        next.smaller = Some(smaller(sink, next, &metered.smaller(next.lsn, &next.whole))?);
        decision = decide(metered, next)?;
    }
    let is_smaller = matches!(decision, Decision::Send(1..));
    if is_smaller && metered.holds_many() && !sink.is_idle() {
        return Ok(Afforded::NotNow);
    }
    if let Decision::Send(form @ 1..) = decision
        && let Some(smaller) = next.smaller.take().and_then(|forms| forms.into_iter().nth(form - 1))
    {
        (next.form, next.releases, bytes) = (smaller.form, smaller.releases, smaller.bytes);
    }
    if matches!(decision, Decision::Send(_)) && bytes > 0 {
        let parcel = Parcel { lsn: next.lsn, of: None };
        let leaving = Leaving { whole: &next.whole, left: &next.releases };
        let payment = Payment { parcel, form: &next.form, bytes, confirmed: delivery.cursor.through, leaving };
        metered.pay(&datasets(&next.releases), payment, moment).map_err(Failed::Budget)?;
        if is_smaller {
            delivery.made_smaller(&next.releases);
        }
    }
    delivery.budgeted(metered.level(), decision == Decision::Wait);
    match decision {
        Decision::Send(_) => {
            next.is_paid = true;
            Ok(Afforded::Yes)
        }
        Decision::Wait => Ok(Afforded::NotNow),
        Decision::Shed => Ok(Afforded::Never(Why::Short)),
        Decision::Widen => Ok(Afforded::Never(Why::Widened)),
        Decision::TooLarge => Err(Failed::TooLarge(TooLarge { bytes, most: metered.most() })),
    }
}

fn datasets(releases: &[Released]) -> Vec<&DatasetName> {
    releases.iter().map(Released::dataset).collect()
}

/// An entry in the forms that leave something of it out. A row of several, or one that says more, can be larger than each of
/// the whole: a form of which the topic takes fewer cells is none.
fn smaller(sink: &kafka::Sink, next: &Next, forms: &[Reduction]) -> Result<Vec<Smaller>, Failed> {
    if forms.is_empty() {
        return Ok(Vec::new());
    }
    let whole = sink.takes(next.lsn, &next.whole).map_err(Failed::Kafka)?;
    let mut all = Vec::new();
    for form in forms {
        let releases = reduced(&next.whole, form)?;
        if releases.iter().any(|released| released.made_smaller().is_some()) {
            match sink.takes(next.lsn, &releases) {
                Ok(takes) if takes.set_aside > whole.set_aside => {}
                Ok(takes) => all.push(Smaller { form: form.clone(), releases, bytes: takes.bytes }),
                Err(kafka::Error::TooLarge(_)) => {}
                Err(error) => return Err(Failed::Kafka(error)),
            }
        }
    }
    Ok(all)
}

fn reduced(releases: &[Released], form: &Reduction) -> Result<Vec<Released>, Failed> {
    form.applied(releases).map_err(|error| Failed::Kafka(encode::Error::from(error).into()))
}

/// Passes over an entry, so that it never leaves: the budget says so on disk, then the ledger, then the cursor. Whether to go
/// on.
fn shed(delivery: &mut Delivery, metered: &mut Option<Metered>, lsn: Lsn, releases: &[Released], why: Why) -> bool {
    let say = |delivery: &Delivery, metered: &mut Option<Metered>| match (why, metered) {
        (Why::Denied, metered) => {
            if let Some(metered) = metered {
                metered.forget(releases, delivery.moment())?;
            }
            delivery.say_denied(releases, lsn)
        }
        (_, None) => Ok(()),
        (_, Some(metered)) => {
            metered.shed(lsn, delivery.moment())?;
            delivery.say_shed(releases, lsn, (why == Why::Widened).then(|| metered.widened()))
        }
    };
    let said = loop {
        match say(delivery, metered) {
            Ok(()) => break true,
            Err(error) => delivery.failed(error),
        }
        if !delivery.pause() {
            break false;
        }
    };
    if !said {
        return false;
    }
    delivery.cursor.through = lsn;
    if !delivery.save() {
        return false;
    }
    match why {
        Why::Denied => delivery.gave_up(releases.len()),
        _ => delivery.passed_over(releases.len(), why == Why::Widened),
    }
    true
}

/// Calls a sink that looks at the clock, and at whether the threads are to end.
fn watched<T>(delivery: &Delivery, call: impl FnOnce(kafka::Watch<'_>) -> T) -> T {
    call(kafka::Watch {
        stops: &|| delivery.is_cut() || !delivery.is_permitted(),
        now: &*delivery.context.now,
        stalled: &|error| failed(delivery, error),
    })
}

fn failed(delivery: &Delivery, error: kafka::Error) {
    if delivery.is_cut() || !delivery.is_permitted() {
        return;
    }
    if let kafka::Error::Fenced(_) = error {
        // Each time: it passes quickly, and somebody has to know.
        tracing::warn!(destination = delivery.name.as_str(), %error, "another process delivers under this gateway's name: stop one of the two, or give each its own `id`");
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

#[cfg(test)]
mod tests;
