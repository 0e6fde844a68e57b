use std::sync::mpsc;
use std::thread;

use super::*;
use crate::domain::dataset::Dataset;
use crate::domain::dataset::samples::plain;
use crate::domain::outcome::Refused;
use crate::domain::producer::{ProducerName, RememberedMax};
use crate::domain::refusal::Reason;
use crate::domain::stream::Undeclared;
use crate::domain::watermark::ActiveMax;
use crate::engine::request::{Answer, Caller, Reply, Request};
use crate::storage::{RealFileSystem, Settings};

struct Nobody;

impl Caller for Nobody {
    fn answer(&self, _: u64, _: Answer) {}
}

const NOW: Duration = Duration::from_secs(1);
const AT: Moment = Moment { now: NOW, wall: 0 };

fn s() -> StreamName {
    "s".parse().unwrap()
}

fn d() -> DatasetName {
    "d".parse().unwrap()
}

/// A sequencer of one stream with an empty journal, and its directory.
fn sequencer(active: ActiveMax, remembered: RememberedMax) -> (Sequencer, tempfile::TempDir) {
    sequencer_with(&[], active, remembered)
}

fn sequencer_with(
    datasets: &[Arc<Dataset>],
    active: ActiveMax,
    remembered: RememberedMax,
) -> (Sequencer, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        directory: directory.path().to_owned(),
        segment_bytes: 64 << 10,
        quota_bytes: 1 << 20,
        context: Vec::new(),
        at_least: 0,
    };
    let (journal, _) = Log::open(Arc::new(RealFileSystem), settings).unwrap();
    let stream = crate::decode::test_stream(&[], Undeclared::Drop);
    let gateway = Gateway::with_limits(std::iter::once((&stream, datasets)), active, remembered);
    let checkpoints = CheckpointsDue { bytes: u64::MAX, bytes_max: u64::MAX, every: Duration::MAX };
    let (reports, _) = crossbeam_channel::unbounded();
    (Sequencer::new(Arc::new(journal), gateway, 0, Vec::new(), reports, checkpoints), directory)
}

/// A request without records of a producer: with a number, or without.
fn request(producer: &str, from: &str, number: Option<Number>) -> Boxed {
    let origin = Origin::of(ProducerName::new(producer).unwrap(), Some(from.parse().unwrap()));
    let reply = Reply::new(Arc::new(Nobody), 0);
    Box::new(Request::new(None, Arc::new(origin), number, Content::Nothing, reply))
}

fn first(epoch: u64) -> Option<Number> {
    Some(Number { epoch, sequence: 1 })
}

/// The same with something to be counted: it leaves no number out.
fn counted(producer: &str, number: Option<Number>) -> Boxed {
    let mut request = request(producer, "192.0.2.1", number);
    request.content = Content::Refused(Refused { reason: Reason::Malformed, field: None });
    request
}

/// Places requests under the numbers under which they were found to come next.
fn place(sequencer: &Sequencer, requests: &[Boxed], numbers: &[Option<Number>]) -> Result<(), Unplaced> {
    place_at(sequencer, requests, numbers, NOW)
}

fn place_at(
    sequencer: &Sequencer,
    requests: &[Boxed],
    numbers: &[Option<Number>],
    now: Duration,
) -> Result<(), Unplaced> {
    let outcome = Outcome::nothing();
    let placing = requests.iter().zip(numbers).map(|(request, number)| Placing {
        origin: &request.origin,
        number: *number,
        skips: matches!(request.content, Content::Nothing),
        outcome: &outcome,
        newest: None,
    });
    let placing: Vec<Placing<'_>> = placing.collect();
    let room = sequencer.journal.reserve(8).unwrap();
    let (stream, entry) = (s(), vec![0; 8]);
    let refused = Tally::default();
    let batch = Batch {
        stream: Some(&stream),
        requests: &placing,
        refused: &refused,
        event_times: None,
        entry,
        room,
        at: Moment { now, wall: 0 },
    };
    sequencer.place(batch, || {}, |_| Box::new(|| {})).map(|_| ())
}

fn too_many(located: &Located) -> bool {
    matches!(located, Located::Not(Unaccepted::OutOfOrder(OutOfOrder::TooMany(_))))
}

#[test]
fn newcomers_above_a_limit_are_found_when_their_numbers_are_looked_up() {
    let many = ActiveMax { in_all: 100, per_address: 100, per_identity: 100 };
    let active = (ActiveMax { per_address: 2, ..many }, RememberedMax::default());
    let remembered = (many, RememberedMax { per_address: 2, ..RememberedMax::default() });
    for (active, remembered) in [active, remembered] {
        let (sequencer, _directory) = sequencer(active, remembered);
        let from = |from: &'static str, producer: &'static str| request(producer, from, first(1));
        let requests = [
            from("192.0.2.1", "a"),
            from("192.0.2.1", "b"),
            from("192.0.2.1", "c"),
            from("192.0.2.2", "d"),
            from("192.0.2.1", "a"),
        ];
        let (located, _) = sequencer.locate(Some(&s()), &requests, AT);
        assert_eq!(located.iter().map(too_many).collect::<Vec<_>>(), [false, false, true, false, false]);
        assert_eq!(located[0], Located::Next(first(1)));
        // Whoever does not look is told when the batch is placed, and nothing of it is.
        let numbers = [first(1); 4];
        let Err(Unplaced::Requests(not)) = place(&sequencer, &requests[..4], &numbers) else { panic!() };
        assert!(matches!(not.as_slice(), [(2, located)] if too_many(located)), "{not:?}");
        assert_eq!(
            place(&sequencer, &[from("192.0.2.1", "a"), from("192.0.2.1", "b")], &numbers[..2]).err().map(drop),
            None
        );
        let (located, _) = sequencer.locate(Some(&s()), &[from("192.0.2.1", "c"), from("192.0.2.1", "b")], AT);
        assert!(too_many(&located[0]) && !too_many(&located[1]), "{located:?}");
    }
}

#[test]
fn newcomers_of_an_identity_above_its_limit_are_found_too() {
    let many = ActiveMax { in_all: 100, per_address: 100, per_identity: 100 };
    let active = (ActiveMax { per_identity: 2, ..many }, RememberedMax::default());
    let remembered = (many, RememberedMax { per_identity: 2, ..RememberedMax::default() });
    for (active, remembered) in [active, remembered] {
        let (sequencer, _directory) = sequencer(active, remembered);
        let of = |identity: Option<&str>, producer: &'static str| {
            let name = ProducerName::new(producer).unwrap();
            let origin = Origin { identity: identity.map(Arc::from), ..Origin::of(name, None) };
            Box::new(Request::new(None, Arc::new(origin), first(1), Content::Nothing, Reply::new(Arc::new(Nobody), 0)))
        };
        let office = Some("spiffe://corp/office");
        let requests =
            [of(office, "a"), of(office, "b"), of(office, "c"), of(None, "d"), of(Some("spiffe://corp/till"), "e")];
        let (located, _) = sequencer.locate(Some(&s()), &requests, AT);
        assert_eq!(located.iter().map(too_many).collect::<Vec<_>>(), [false, false, true, false, false]);
        assert_eq!(place(&sequencer, &requests[..2], &[first(1); 2]).err().map(drop), None);
        let (located, _) = sequencer.locate(Some(&s()), &[of(office, "c"), of(office, "b")], AT);
        assert!(too_many(&located[0]) && !too_many(&located[1]), "{located:?}");
    }
}

#[test]
fn a_newcomer_that_one_limit_keeps_out_takes_no_place_of_the_other() {
    let active = ActiveMax { in_all: 100, per_address: 1, per_identity: 100 };
    let remembered = RememberedMax { in_all: 2, ..RememberedMax::default() };
    let (sequencer, _directory) = sequencer(active, remembered);
    let requests =
        [("a", "192.0.2.1"), ("b", "192.0.2.1"), ("c", "192.0.2.2")].map(|(name, from)| request(name, from, first(1)));
    let (located, _) = sequencer.locate(Some(&s()), &requests, AT);
    assert_eq!(located.iter().map(too_many).collect::<Vec<_>>(), [false, true, false]);
}

/// A request without an epoch is of epoch 0. It never gets a number of a series that another process has begun, also when that
/// is between the look and the place.
#[test]
fn a_request_without_an_epoch_is_fenced_by_one_that_begins_before_its_place() {
    let (sequencer, _directory) = sequencer(ActiveMax::default(), RememberedMax::default());
    for request in [counted("a", first(0)), request("b", "192.0.2.1", first(0))] {
        let producer = request.origin.series.clone();
        let requests = [request];
        let (located, _) = sequencer.locate(Some(&s()), &requests, AT);
        assert_eq!(located, [Located::Next(first(0))]);
        let begun = Some(Number { epoch: 5, sequence: 0 });
        let mut begins = self::request("a", "192.0.2.1", begun);
        begins.origin = Arc::new(Origin { series: producer, ..Origin::clone(&begins.origin) });
        place(&sequencer, &[begins], &[begun]).unwrap();
        let Err(Unplaced::Requests(not)) = place(&sequencer, &requests, &[first(0)]) else { panic!("it was placed") };
        let fenced = Located::Not(OutOfOrder::Fenced { epoch: 5 }.into());
        assert_eq!(not, [(0, fenced.clone())]);
        assert_eq!(sequencer.locate(Some(&s()), &requests, AT).0, [fenced]);
    }
}

/// What a repeat is told is looked up with its number. A greater epoch that begins before the answer would forget it.
#[test]
fn what_a_repeat_came_to_is_known_when_its_number_is_looked_up() {
    let (sequencer, _directory) = sequencer(ActiveMax::default(), RememberedMax::default());
    let requests = [counted("a", first(1))];
    place(&sequencer, &requests, &[first(1)]).unwrap();
    let (located, _) = sequencer.locate(Some(&s()), &[counted("a", first(1))], AT);
    let [Located::Taken(one)] = located.as_slice() else { panic!("{located:?}") };
    assert_eq!(one.mark, Mark { epoch: 1, sequence: 1, lsn: 1 });
    assert_eq!(one.outcome.as_ref().and_then(Packed::outcome), Some(Outcome::nothing()));
}

#[test]
fn a_checkpoint_that_took_long_puts_off_the_next_one() {
    let many = ActiveMax { in_all: 100, per_address: 100, per_identity: 100 };
    let (mut sequencer, _directory) = sequencer(many, RememberedMax::default());
    let (reports, received) = crossbeam_channel::unbounded();
    sequencer.reports = reports;
    sequencer.checkpoints = CheckpointsDue { bytes: 20, bytes_max: 100, every: Duration::from_secs(5) };
    let second = Duration::from_secs(1);
    // Eight bytes at a time, at this second. Whether a checkpoint was ordered.
    let mut sequence = 0;
    let mut comes = |sequencer: &Sequencer, at: u32| {
        sequence += 1;
        let number = Some(Number { epoch: 1, sequence });
        let request = [request("a", "192.0.2.1", number)];
        place_at(sequencer, &request, &[number], at * second).unwrap();
        received.try_recv().is_ok()
    };
    assert!(!comes(&sequencer, 1) && !comes(&sequencer, 1), "16 bytes");
    assert!(comes(&sequencer, 1), "24 bytes");
    assert!(!comes(&sequencer, 10), "one is under way");
    sequencer.checkpoint_is_done(second);
    assert!(!comes(&sequencer, 10) && !comes(&sequencer, 33), "24 bytes, and 32 seconds");
    assert!(comes(&sequencer, 34), "33 times as long as it took");
    sequencer.checkpoint_is_done(100 * second);
    let due = (1..=13).position(|_| comes(&sequencer, 35));
    assert_eq!(due, Some(12), "104 bytes are never put off");
}

#[test]
fn who_looks_how_far_windows_have_come_does_not_wait_for_the_lock() {
    const MINUTE: i64 = 60_000_000;
    let dataset = Arc::new(Dataset { contributor: "f2".into(), metrics: Vec::new(), ..plain() });
    let (sequencer, _directory) = sequencer_with(&[dataset], ActiveMax::default(), RememberedMax::default());
    let told = |closed, open| vec![HowFar { dataset: d(), closed, open }];
    assert_eq!(sequencer.windows(), told(None, 0));
    assert!(sequencer.lock().gateway.open_windows(&s(), MINUTE, 3 * MINUTE));
    sequencer.tick(NOW);
    thread::scope(|scope| {
        let held = sequencer.lock();
        let (tell, looked) = mpsc::channel();
        let sequencer = &sequencer;
        scope.spawn(move || tell.send(sequencer.windows()).unwrap());
        let looked = looked.recv_timeout(Duration::from_secs(120));
        drop(held);
        assert_eq!(looked, Ok(told(None, 3)));
    });
    sequencer.lock().gateway.restore_closed(&d(), 2 * MINUTE, 2 * MINUTE);
    sequencer.tick(NOW);
    assert_eq!(sequencer.windows(), told(Some(2 * MINUTE), 2));
}

#[test]
fn what_comes_after_a_repeat_in_one_batch_waits_with_it() {
    let (sequencer, _directory) = sequencer(ActiveMax::default(), RememberedMax::default());
    let from = |producer, epoch, sequence| counted(producer, Some(Number { epoch, sequence }));
    let requests = [from("a", 1, 1), from("a", 1, 1), from("a", 2, 1), from("b", 2, 1), from("a", 2, 2)];
    let (located, _) = sequencer.locate(Some(&s()), &requests, AT);
    let next = |epoch| Located::Next(first(epoch));
    assert_eq!(located, [next(1), Located::Twice, Located::Twice, next(2), Located::Twice]);
}

/// The epoch may not come to have a place: then what comes after it goes on without it.
#[test]
fn what_could_be_taken_without_the_epoch_that_begins_before_it_in_one_batch_waits() {
    let (sequencer, _directory) = sequencer(ActiveMax::default(), RememberedMax::default());
    let number = |epoch, sequence| Some(Number { epoch, sequence });
    for sequence in 1..=4 {
        place(&sequencer, &[counted("a", number(1, sequence))], &[number(1, sequence)]).unwrap();
    }
    for later in [counted("a", number(1, 5)), request("a", "192.0.2.1", number(1, 9))] {
        let (located, _) = sequencer.locate(Some(&s()), &[counted("a", first(2)), later], AT);
        assert_eq!(located, [Located::Next(first(2)), Located::Twice]);
    }
}
