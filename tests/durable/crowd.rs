//! Many producers of single records at a gateway that is killed again and again: each request is answered as if it had come
//! alone, and what is accepted leaves once.
//!
//! [`crate::crowd`] says what is sent, and works out record by record what it must come to. [`run`] sends it, on several
//! connections and calls. [`book`] holds each answer against what it must be.

mod book;
mod run;

use std::collections::BTreeMap;

use self::run::Run;
use crate::crowd::seeds;

/// How often each thing occurred.
type Seen = BTreeMap<String, usize>;

/// So many runs are made, unless `BAILIWICK_TEST_CROWD` says another number, or some of them: `7-7`.
const SEEDS: u64 = 3;

/// How often each thing must occur in all runs together, at least: else they show nothing.
const SEEN: [(&str, usize); 36] = [
    ("kills", 9),
    ("kills with requests that are not answered", 8),
    ("requests that were on disk and not answered", 30),
    ("requests that were lost and not answered", 100),
    ("repeats that are told", 200),
    ("repeats after a restart", 40),
    ("repeats of another call at the same time", 100),
    ("repeats without scores", 5),
    ("reloads", 3),
    ("requests of changed policies", 20),
    ("requests without a number", 200),
    ("requests that share a batch", 500),
    ("scores", 1_000),
    ("dropped values", 5),
    ("cells", 16),
    ("records REASON_BELONGS_ELSEWHERE", 100),
    ("records REASON_EVENT_TIME_IN_FUTURE", 30),
    ("records REASON_EVENT_TIME_TOO_OLD", 30),
    ("records REASON_MALFORMED_RECORD", 30),
    ("records REASON_MAY_NOT_BE_HERE", 100),
    ("records REASON_MISSING_FIELD", 30),
    ("records REASON_MODEL_FAILED", 30),
    ("records REASON_NOT_FINITE", 30),
    ("records REASON_NO_REGIME", 30),
    ("records REASON_TOO_LONG", 30),
    ("records REASON_UNDECLARED_FIELD", 10),
    ("records REASON_UNKNOWN_JURISDICTION", 30),
    ("records REASON_WRONG_TYPE", 30),
    ("requests REASON_EPOCH_FENCED", 30),
    ("requests REASON_MALFORMED", 60),
    ("requests REASON_MODEL_FAILED", 60),
    ("requests REASON_NUMBER_REUSED", 60),
    ("requests REASON_SEQUENCE_GAP", 60),
    ("requests REASON_TOO_LARGE", 20),
    ("requests REASON_TOO_MANY_ROWS", 20),
    ("requests REASON_UNKNOWN_STREAM", 60),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_a_crowd_is_answered_as_if_it_had_come_alone_and_counts_once_over_kills() {
    let mut all = Seen::new();
    for seed in seeds(SEEDS) {
        // It says of which run a failure is, whatever fails.
        eprintln!("seed {seed}");
        let seen = Run::new(seed).go().await.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        seen.into_iter().for_each(|(what, times)| *all.entry(what).or_default() += times);
    }
    eprintln!("{all:#?}");
    if seeds(SEEDS).count() >= SEEDS as usize {
        for (what, least) in SEEN {
            assert!(all.get(what).is_some_and(|times| *times >= least), "too little of `{what}`: {all:#?}");
        }
    }
}
