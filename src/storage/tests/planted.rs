//! Every planted bug is noticed.

use std::panic::{self, AssertUnwindSafe};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::{cuts, model, slots};
use crate::planted::for_tests::plant;

/// How many random sequences it took.
fn cases_until_noticed(bug: &'static str) -> Option<usize> {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let actions = prop::collection::vec(prop_oneof![20 => model::action(), 1 => model::flip()], 1..80);
    (1..=5_000).find(|_| {
        let actions = actions.new_tree(&mut runner).unwrap().current();
        is_noticed(bug, || model::run(&actions))
    })
}

fn is_noticed(bug: &'static str, test: impl FnOnce()) -> bool {
    let _planted = plant(bug);
    panic::catch_unwind(AssertUnwindSafe(test)).is_err()
}

macro_rules! noticed_by_the_model {
    ($($test:ident: $bug:literal,)*) => {$(
        #[test]
        fn $test() {
            let cases = cases_until_noticed($bug);
            println!("{} is noticed after {cases:?} random sequences", $bug);
            assert!(cases.is_some());
        }
    )*};
}

noticed_by_the_model! {
    reporting_before_the_sync_is_noticed: "ack-before-fsync",
    not_syncing_directories_is_noticed: "skip-dir-sync",
    letting_go_too_much_is_noticed: "let-go-too-much",
    trusting_a_torn_frame_is_noticed: "trust-torn-frame",
    going_on_in_a_poisoned_file_is_noticed: "reuse-poisoned-file",
    losing_the_queue_when_a_sync_fails_is_noticed: "lose-queue-on-fsync-error",
    stopping_at_the_first_bad_frame_is_noticed: "truncate-recovery",
    giving_a_number_out_twice_is_noticed: "wrong-next-lsn",
    trusting_the_page_cache_is_noticed: "trust-page-cache",
    reporting_what_nobody_finds_again_is_noticed: "trust-open-file",
    naming_a_segment_before_its_entries_are_there_is_noticed: "rename-before-entries",
}

#[test]
fn check_sums_that_do_not_know_their_segment_are_noticed() {
    assert!(is_noticed("unseeded-checksums", cuts::stale_frames_are_not_read));
}

#[test]
fn overwriting_the_newest_slot_is_noticed() {
    assert!(is_noticed("overwrite-newest-slot", slots::a_crash_anywhere_keeps_the_value));
}

#[test]
fn without_a_planted_bug_the_same_tests_notice_nothing() {
    assert_eq!(cases_until_noticed("none"), None);
    assert!(!is_noticed("none", cuts::stale_frames_are_not_read));
    assert!(!is_noticed("none", slots::a_crash_anywhere_keeps_the_value));
}
