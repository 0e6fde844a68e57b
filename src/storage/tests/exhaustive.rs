//! All short sequences of what may happen, and a crash at every single operation of a longer one.

use super::super::fs::sim::{Failing, Sim};
use super::world::{Action, World};

/// Entries of which two make a commit and four do not fit into one segment.
fn small_world() -> World {
    World::with(Sim::default(), 512, 5 * 4096)
}

#[test]
fn no_short_sequence_loses_anything() {
    let alphabet = [
        Action::Reserve(20),
        Action::Reserve(300),
        Action::Submit(1),
        Action::Step,
        Action::Interrupted(1, 0),
        Action::Interrupted(2, 1),
        Action::PowerLoss(0),
        Action::PowerLoss(77),
        Action::Kill,
        Action::FailSyncs(Failing::Once),
        Action::LetGo(4),
    ];
    let mut sequences = 0;
    for length in 1..=5 {
        for number in 0..alphabet.len().pow(length) {
            let mut world = small_world();
            let mut rest = number;
            for _ in 0..length {
                world.act(&alphabet[rest % alphabet.len()]);
                rest /= alphabet.len();
            }
            world.act(&Action::FailSyncs(Failing::Never));
            world.settle();
            world.act(&Action::PowerLoss(0));
            sequences += 1;
        }
    }
    assert_eq!(sequences, 177_155);
}

/// Writes across segments, idles, lets go, fails once, goes on.
fn script() -> Vec<Action> {
    let mut actions = Vec::new();
    for bytes in [20, 200, 90, 300, 10, 120, 7, 250, 180, 60, 280, 33, 150] {
        actions.extend([Action::Reserve(bytes), Action::Reserve(40), Action::Submit(1), Action::Submit(0)]);
        actions.extend([Action::Step, Action::Step]);
    }
    actions.extend([Action::LetGo(2), Action::FailSyncs(Failing::Once)]);
    actions.extend([Action::Reserve(30), Action::Submit(0), Action::Step, Action::Step, Action::Step]);
    actions.push(Action::LetGo(4));
    actions
}

fn operations_of_script() -> u64 {
    let mut world = small_world();
    let before = world.sim.operations();
    script().iter().for_each(|action| world.act(action));
    world.sim.operations() - before
}

#[test]
fn a_crash_at_any_operation_loses_nothing() {
    let operations = operations_of_script();
    assert!(operations > 100, "{operations}");
    for stop in 0..operations {
        for seed in [0, 1, 5, 6, 7] {
            let mut world = small_world();
            world.sim.stop_after(stop);
            script().iter().for_each(|action| world.act(action));
            world.act(&Action::PowerLoss(seed));
            world.settle();
            world.act(&Action::PowerLoss(0));
        }
    }
}

#[test]
fn a_crash_at_any_operation_of_opening_after_one_loses_nothing() {
    for stop in (0..operations_of_script()).step_by(3) {
        for again in 0..60 {
            let mut world = small_world();
            world.sim.stop_after(stop);
            script().iter().for_each(|action| world.act(action));
            world.act(&Action::Nested(vec![(again, 9), (again / 2, 10), (again, 0)]));
            world.settle();
            world.act(&Action::PowerLoss(0));
        }
    }
}
