//! Full disks, used-up quotas, used-up numbers.

use std::sync::Arc;

use super::super::fs::sim::{Failing, Sim};
use super::super::shared::Limits;
use super::super::writer::Step;
use super::super::{Error, Log, Lsn, NoRoom, Settings, State};
use super::reference::{content, settings};
use super::world::{Action, World};

/// Reserves entries of changing sizes until there is no room.
fn fill(world: &mut World) -> NoRoom {
    for number in 0.. {
        let bytes = [10, 700, 90, 333, 1][number % 5];
        if let Some(refusal) = world.refusal(bytes) {
            // Smaller ones may still fit.
            while world.refusal(1).is_none() {}
            world.settle();
            if refusal != NoRoom::Behind {
                return refusal;
            }
        }
    }
    unreachable!()
}

#[test]
fn at_the_quota_everything_promised_is_written_and_letting_go_makes_room() {
    let mut world = World::with(Sim::default(), 4096, 10 * 4096);
    for _ in 0..3 {
        assert_eq!(fill(&mut world), NoRoom::Full);
        assert_eq!(world.state(), State::Full);
        assert!(world.log().usage().bytes <= world.log().usage().quota_bytes);
        world.act(&Action::LetGo(4));
        world.act(&Action::Step);
        assert_eq!(world.state(), State::Healthy);
        assert_eq!(world.refusal(500), None);
        world.settle();
    }
}

#[test]
fn what_the_caller_writes_for_itself_has_a_bound_too_and_is_written() {
    let mut world = World::with(Sim::default(), 4096, 4 * 4096);
    assert_eq!(fill(&mut world), NoRoom::Full);
    while world.refusal(1).is_none() {}
    let mut taken = 0;
    while world.refusal_of_control(20).is_none() {
        taken += 1;
        assert_eq!(world.refusal(20), Some(NoRoom::Full), "a producer got what is kept for the caller");
    }
    // A sixteenth of a segment, and what the last producer's entry was too large for.
    assert!((2..6).contains(&taken), "{taken}");
    assert_eq!(world.refusal_of_control(20), Some(NoRoom::Full));
    world.settle();
}

#[test]
fn so_many_small_entries_may_wait_and_no_more() {
    let settings = Settings { segment_bytes: 64 << 20, quota_bytes: 1 << 30, ..settings(0) };
    let (log, _writer, _) = Log::open_stepped(Arc::new(Sim::default()), settings, Limits::default()).unwrap();
    let mut rooms = Vec::new();
    let refusal = loop {
        match log.reserve(1) {
            Ok(room) => rooms.push(room),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refusal, rooms.len()), (NoRoom::Behind, 64 << 10));
    rooms.pop();
    assert!(log.reserve(1).is_ok());
}

#[test]
fn on_a_full_disk_everything_promised_is_written_and_space_makes_room() {
    for more in 0..12 {
        let mut world = World::with(Sim::default(), 2048, 1 << 20);
        world.act(&Action::Limit(Some(more * 700)));
        assert_eq!(fill(&mut world), NoRoom::Full);
        world.act(&Action::Limit(None));
        world.act(&Action::Step);
        assert_eq!(world.state(), State::Healthy);
        assert_eq!(world.refusal(500), None);
        world.settle();
    }
}

#[test]
fn a_log_opens_on_a_full_disk_and_goes_on_when_there_is_space() {
    let mut world = World::with(Sim::default(), 2048, 1 << 20);
    world.act(&Action::Limit(Some(0)));
    assert_eq!(fill(&mut world), NoRoom::Full);
    world.act(&Action::PowerLoss(0));
    world.act(&Action::Limit(Some(0)));
    world.act(&Action::Kill);
    assert_eq!(world.state(), State::Full);
    assert_eq!(world.refusal(1), Some(NoRoom::Full));
    world.act(&Action::Limit(None));
    world.act(&Action::Step);
    assert_eq!(world.refusal(1), None);
    world.settle();
}

#[test]
fn while_syncs_fail_nothing_is_taken_and_nothing_is_lost() {
    let mut world = World::new();
    for _ in 0..3 {
        assert_eq!(world.refusal(100), None);
    }
    world.act(&Action::FailSyncs(Failing::Always));
    for _ in 0..3 {
        world.act(&Action::Submit(0));
        world.act(&Action::Step);
    }
    assert_eq!(world.last_acknowledged(), 0);
    assert!(matches!(world.state(), State::Failing { .. }));
    assert!(matches!(world.refusal(1), Some(NoRoom::Failing { .. })));
    world.act(&Action::FailSyncs(Failing::Never));
    world.settle();
    assert_eq!((world.last_acknowledged(), world.state()), (3, State::Healthy));
    world.act(&Action::PowerLoss(0));
    assert_eq!(world.last_acknowledged(), 3);
}

#[test]
fn a_failing_disk_is_tried_again_ever_more_slowly() {
    let sim = Sim::default();
    let (log, mut writer, _) = Log::open_stepped(Arc::new(sim.clone()), settings(0), Limits::default()).unwrap();
    sim.fail_syncs(Failing::Always);
    log.submit(1, content(1), log.reserve(100).unwrap(), None);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let Step::Pause(pause) = writer.step() else { panic!("it does not fail") };
        pauses.push(pause.as_millis());
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    assert_eq!(log.durable(), 0);
}

#[test]
fn numbers_end_without_wrapping() {
    let sim = Sim::default();
    let at_least = Lsn::MAX - 4;
    let (log, mut writer, recovery) =
        Log::open_stepped(Arc::new(sim.clone()), settings(at_least), Limits::default()).unwrap();
    assert_eq!((recovery.last, recovery.damage.len()), (at_least, 1));
    let rooms: Vec<_> = (0..3).map(|_| log.reserve(10).unwrap()).collect();
    assert!(matches!(log.reserve(10), Err(NoRoom::NumbersExhausted)));
    for (room, lsn) in rooms.into_iter().zip(at_least + 1..) {
        log.submit(lsn, content(1)[..10].to_vec(), room, None);
    }
    while writer.step() == Step::Again {}
    assert_eq!(log.durable(), Lsn::MAX - 1);
    assert!(matches!(log.reserve(10), Err(NoRoom::NumbersExhausted)));
    let mut reader = log.reader(Lsn::MAX - 2);
    assert_eq!(reader.next().unwrap().unwrap().lsn, Lsn::MAX - 2);
    assert_eq!(reader.next().unwrap().unwrap().lsn, Lsn::MAX - 1);
    assert_eq!(reader.next().unwrap(), None);
    assert_eq!(log.reader(Lsn::MAX).next().unwrap(), None);
    log.let_go(Lsn::MAX).unwrap();
    drop((log, writer));
    sim.kill();
    let (log, mut writer, recovery) = Log::open_stepped(Arc::new(sim.clone()), settings(0), Limits::default()).unwrap();
    assert_eq!(recovery.last, Lsn::MAX - 1);
    assert!(matches!(log.reserve(10), Err(NoRoom::NumbersExhausted)));
    writer.step();
    drop((log, writer));
    sim.kill();
    let opened = Log::open_stepped(Arc::new(sim), settings(Lsn::MAX), Limits::default());
    assert!(matches!(opened, Err(Error::NumbersExhausted)));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let cases = [
        Settings { segment_bytes: 0, ..settings(0) },
        Settings { segment_bytes: u64::MAX, ..settings(0) },
        Settings { quota_bytes: 2047, ..settings(0) },
        Settings { context: vec![0; 1000], ..settings(0) },
    ];
    for settings in cases {
        let opened = Log::open_stepped(Arc::new(Sim::default()), settings, Limits::default());
        assert!(matches!(opened, Err(Error::InvalidSettings(_))));
    }
}

#[test]
fn an_entry_that_no_segment_takes_is_refused_and_the_largest_is_written() {
    let sim = Sim::default();
    let (log, mut writer, _) = Log::open_stepped(Arc::new(sim), settings(0), Limits::default()).unwrap();
    let Err(NoRoom::TooLarge { bytes_max, .. }) = log.reserve(u64::MAX).map(drop) else { panic!("it has room") };
    assert!(matches!(log.reserve(bytes_max + 1), Err(NoRoom::TooLarge { .. })));
    for lsn in 1..4 {
        log.submit(lsn, vec![1; bytes_max as usize], log.reserve(bytes_max).unwrap(), None);
        while writer.step() == Step::Again {}
    }
    assert_eq!(log.durable(), 3);
}
