//! Requests of all kinds that share batches, in all kinds of payloads, beside requests that are refused, repeated or out of
//! order, and beside records that the model fails on: each is answered as if it had come alone, and as
//! [`crate::crowd`] works it out; and the same cells leave. The model only looks its scores up: [`super::shared`] is for a
//! real one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bailiwick::ingress::grpc::client;
use bailiwick::ingress::proto::ingest::PublishRequest;
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::common::gateway::endpoint;
use crate::common::http;
use crate::common::records::{introduction, publish};
use crate::common::tape::Tape;
use crate::crowd::cells::Cells;
use crate::crowd::deployment::{STREAM, Shape, deployment};
use crate::crowd::lanes::{Answer, At, Lane, Way};
use crate::crowd::records::{BEGIN, Rules};
use crate::crowd::script::{Sort, Step, What, script};
use crate::crowd::seeds;
use crate::crowd::told::Told;

const SEEDS: u64 = 4;
const PRODUCERS: usize = 80;
const CONNECTIONS: usize = 8;

/// How requests come.
#[derive(Debug, Clone, Copy)]
struct Case {
    workers: usize,
    rows_together_max: usize,
    /// In calls of many producers, which send at the same time; else one request after the other.
    is_together: bool,
    is_reversed: bool,
}

const ALONE: Case = Case { workers: 1, rows_together_max: 1_024, is_together: false, is_reversed: false };
const TOGETHER: [Case; 4] = [
    Case { is_together: true, ..ALONE },
    Case { is_together: true, is_reversed: true, ..ALONE },
    Case { is_together: true, workers: 2, ..ALONE },
    Case { is_together: true, rows_together_max: 16, ..ALONE },
];

/// What came of the requests of a case.
struct Came {
    answers: BTreeMap<At, (Told, Option<bool>)>,
    cells: Cells,
    /// In how many batches they were placed, about.
    batches: usize,
}

async fn came(case: Case, scripts: &[Vec<Step>], drops: bool) -> Came {
    let Case { workers, rows_together_max, is_together, is_reversed } = case;
    let (folder, metrics) = deployment(Shape { workers, rows_together_max, drops, has_checkpoints: false });
    folder.edit("gateway.toml", "on_stop  = \"keep\"", "on_stop  = \"release\"");
    let app = folder.start_app(|_| {}).await.unwrap();
    // Nothing closes before the stop while this one is no further.
    let holder = PublishRequest { complete_through: BEGIN, ..introduction(STREAM, "holder") };
    publish(&endpoint(&app), holder).await.unwrap();
    let (count, way) = if is_together { (CONNECTIONS, Way::Call(usize::MAX)) } else { (1, Way::Call(1)) };
    let mut lanes = Vec::new();
    for _ in 0..count {
        lanes.push(Lane { client: client::connect(&endpoint(&app)).await.unwrap(), way, requests: Vec::new() });
    }
    let longest = scripts.iter().map(Vec::len).max().unwrap();
    for position in 0..longest {
        let mut producers: Vec<usize> = (0..scripts.len()).collect();
        if is_reversed {
            producers.reverse();
        }
        for producer in producers {
            let Some(step) = scripts[producer].get(position) else { continue };
            lanes[producer % count].requests.push(((producer, position), step.request.clone()));
        }
    }
    let answered = Arc::new(watch::channel(0).0);
    let sending: Vec<_> =
        lanes.into_iter().map(|lane| tokio::spawn(lane.send(Arc::clone(&answered), Arc::default()))).collect();
    let mut answers = BTreeMap::new();
    for lane in sending {
        let (of_lane, failed) = lane.await.unwrap();
        assert!(failed.is_none(), "{failed:?}");
        answers.extend(of_lane.into_iter().map(|Answer { at, told, is_repeat, .. }| (at, (told, is_repeat))));
    }
    let (_, text) = block_in_place(|| http::get(&metrics, "/metrics"));
    let batches = text.lines().find(|line| line.starts_with("bailiwick_batch_stage_seconds_count{stage=\"judge\"}"));
    let batches = batches.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    app.stop().await;
    Came { answers, cells: Cells::released(&folder.lines("released")), batches }
}

/// What a request must be told, and whether it is a repeat.
fn expected(steps: &[Step], position: usize, rules: Rules) -> (Told, Option<bool>) {
    let step = &steps[position];
    match step.what {
        What::Repeat(of) => (steps[of].expected(rules).remembered(), Some(true)),
        _ => (step.expected(rules), Some(matches!(step.what, What::Reused))),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_crowd_are_answered_as_if_each_had_come_alone_and_the_same_cells_leave() {
    let mut reasons = BTreeSet::new();
    for seed in seeds(SEEDS) {
        // It says of which run a failure is, whatever fails.
        eprintln!("seed {seed}");
        let (mut tape, drops) = (Tape::new(seed), seed.is_multiple_of(3));
        let sorts = [Sort::Numbered, Sort::Numbered, Sort::Unnumbered];
        let script = |at: usize| script(&mut tape, &format!("p-{at}"), sorts[at % sorts.len()], drops, 14);
        let scripts: Vec<Vec<Step>> = (0..PRODUCERS).map(script).collect();
        let rules = Rules { refuses_france: false, drops };
        let mut cells = Cells::default();
        for step in scripts.iter().flatten().filter(|step| matches!(step.what, What::Records(_))) {
            if step.expected(rules).error.is_none() {
                cells.add(step.records(), rules);
            }
        }
        let alone = came(ALONE, &scripts, drops).await;
        for (&(producer, position), (told, is_repeat)) in &alone.answers {
            let (expected, is_expected) = expected(&scripts[producer], position, rules);
            // The scores of a repeat are told if the same records would be taken in.
            let told = if is_expected == Some(true) { told.remembered() } else { told.clone() };
            let of = format!("seed {seed}: {position} of {:#?}", scripts[producer]);
            assert_eq!((told, *is_repeat), (expected, is_expected), "{of}");
        }
        assert_eq!(alone.cells, cells.merged_as(&alone.cells), "seed {seed}");
        for case in TOGETHER {
            let came = came(case, &scripts, drops).await;
            assert!(came.batches * 3 < alone.batches, "{} for {}: {case:?}", came.batches, alone.batches);
            assert_eq!(came.answers.len(), alone.answers.len());
            for (at, answer) in &came.answers {
                let of = || format!("seed {seed}, {case:?}: {:#?}", scripts[at.0][at.1]);
                assert_eq!(Some(answer), alone.answers.get(at), "{}", of());
                reasons.extend(answer.0.error.iter().map(|(reason, _)| format!("request {reason}")));
                reasons.extend(answer.0.refusals.iter().map(|refused| format!("record {}", refused.reason)));
            }
            assert_eq!(came.cells, alone.cells, "seed {seed}, {case:?}");
        }
    }
    assert!(reasons.len() >= 20, "{reasons:?}");
}
