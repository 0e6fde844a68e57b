//! Random sequences of what may happen, against the model.

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};

use super::super::fs::sim::Failing;
use super::world::{Action, What, World};

pub(super) fn action() -> impl Strategy<Value = Action> {
    let seed = prop_oneof![Just(0), Just(1), any::<u64>()];
    let failing = prop_oneof![Just(Failing::Never), Just(Failing::Once), Just(Failing::Always)];
    let limit = prop_oneof![Just(None), (0..6000_u64).prop_map(Some)];
    let what = prop_oneof![
        Just(What::Directory),
        Just(What::DirectoryForAnother),
        Just(What::Newest),
        any::<usize>().prop_map(What::Older)
    ];
    prop_oneof![
        1 => what.prop_map(Action::TakeAway),
        1 => Just(Action::PutBack),
        1 => Just(Action::Watch),
        1 => (1..60_usize).prop_map(Action::ReserveControl),
        12 => prop_oneof![1..60_usize, 1..900_usize].prop_map(Action::Reserve),
        12 => any::<usize>().prop_map(Action::Submit),
        12 => Just(Action::Step),
        3 => (0..12_u64, seed.clone()).prop_map(|(operations, seed)| Action::Interrupted(operations, seed)),
        2 => any::<u64>().prop_map(Action::WriteBack),
        2 => any::<u64>().prop_map(Action::Read),
        2 => any::<u64>().prop_map(Action::LetGo),
        2 => seed.clone().prop_map(Action::PowerLoss),
        1 => prop::collection::vec((0..40_u64, seed), 1..4).prop_map(Action::Nested),
        1 => Just(Action::Kill),
        1 => Just(Action::Reopen),
        1 => failing.clone().prop_map(Action::FailSyncs),
        1 => failing.prop_map(Action::FailWrites),
        1 => limit.prop_map(Action::Limit),
    ]
}

pub(super) fn flip() -> impl Strategy<Value = Action> {
    (any::<usize>(), any::<usize>(), any::<u8>()).prop_map(|(file, byte, bit)| Action::Flip(file, byte, bit))
}

pub(super) fn run(actions: &[Action]) {
    let mut world = World::new();
    for action in actions {
        world.act(action);
    }
    world.act(&Action::FailSyncs(Failing::Never));
    world.act(&Action::FailWrites(Failing::Never));
    world.settle();
    world.act(&Action::PowerLoss(0));
    world.settle();
}

fn config(cases: u32) -> Config {
    let failure_persistence = Some(Box::new(FileFailurePersistence::WithSource("regressions")) as Box<_>);
    Config { cases, failure_persistence, ..Config::default() }
}

proptest! {
    #![proptest_config(config(3000))]

    #[test]
    fn nothing_acknowledged_is_lost_or_altered(actions in prop::collection::vec(action(), 1..80)) {
        run(&actions);
    }

    #[test]
    fn what_a_flipped_bit_hits_is_reported_and_nothing_else_is_lost(
        actions in prop::collection::vec(prop_oneof![12 => action(), 1 => flip()], 1..80),
    ) {
        run(&actions);
    }
}
