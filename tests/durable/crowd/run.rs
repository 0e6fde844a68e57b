//! A run: the lives of a gateway, which are ended by kills and stops. Each run is drawn from a number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bailiwick::ingress::grpc::client;
use bailiwick::ingress::proto::ingest::PublishRequest;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::timeout;

use crate::common::folder::Folder;
use crate::common::ledger::{entries, of_kind};
use crate::common::process::Process;
use crate::common::records::{introduction, publish};
use crate::common::tape::Tape;
use crate::common::{PATIENCE, http};
use crate::crowd::cells::Cells;
use crate::crowd::deployment::{STREAM, Shape, deployment, set_policies};
use crate::crowd::lanes::{At, Lane, Way};
use crate::crowd::records::{BEGIN, Rules};
use crate::crowd::script::Sort;

use super::Seen;
use super::book::Book;

const PRODUCERS: usize = 300;
/// Refused records are told in steps of twice k.
const STEP: usize = 10;

/// How a life of the gateway ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    /// Windows stay open.
    Stop,
    /// Everything is sent before, and all windows are released.
    Flush,
}

pub(super) struct Run {
    tape: Tape,
    folder: Folder,
    /// Where the metrics are.
    metrics: String,
    rules: Rules,
    book: Book,
}

impl Run {
    pub(super) fn new(seed: u64) -> Self {
        let mut tape = Tape::new(seed);
        let shape = Shape {
            workers: tape.of(&[1, 2, 3]),
            rows_together_max: tape.of(&[1_024, 1_024, 24]),
            drops: seed.is_multiple_of(3),
            has_checkpoints: tape.below(2) == 0,
        };
        let (folder, metrics) = deployment(shape);
        let book = Book::new(&mut tape, PRODUCERS, shape.drops);
        let rules = Rules { refuses_france: false, drops: shape.drops };
        Self { tape, folder, metrics, rules, book }
    }

    /// The run, from beginning to end: how often each thing occurred, or what is wrong.
    pub(super) async fn go(mut self) -> Result<Seen, String> {
        for end in [End::Kill, End::Kill, End::Stop, End::Kill, End::Kill, End::Flush] {
            self.life(end).await?;
        }
        let released = Cells::released(&self.folder.lines("released"));
        let expected = self.book.cells().merged_as(&released);
        if released != expected {
            return Err(format!("what left is not what was accepted: {released:#?} for {expected:#?}"));
        }
        self.book.saw("cells", released.count());
        self.refusals_are_told()?;
        Ok(self.book.seen)
    }

    async fn life(&mut self, end: End) -> Result<(), String> {
        self.book.life += 1;
        if end == End::Flush {
            self.folder.edit("gateway.toml", "on_stop  = \"keep\"", "on_stop  = \"release\"");
        }
        // Enough records of France are taken in each run for its cells to leave.
        let is_changed = if end == End::Stop { self.rules.refuses_france } else { self.tape.below(3) == 0 };
        if is_changed {
            self.change_policies();
        }
        let process = block_in_place(|| self.folder.spawn());
        // Nothing closes while this one is no further.
        let holder = PublishRequest { complete_through: BEGIN, ..introduction(STREAM, "holder") };
        publish(process.endpoint(), holder).await.unwrap();
        let mut process = Some(process);
        while process.is_some() {
            self.round(&mut process, end).await?;
            if end == End::Stop || end == End::Flush && self.book.is_done() {
                self.look_at_metrics();
                process.take().into_iter().for_each(|process| drop(block_in_place(|| process.stop())));
            }
        }
        Ok(())
    }

    fn change_policies(&mut self) {
        self.rules.refuses_france = !self.rules.refuses_france;
        set_policies(&self.folder, self.rules.refuses_france);
    }

    /// Some requests of all producers. Where it is killed, that is while they are on their way.
    async fn round(&mut self, process: &mut Option<Process>, end: End) -> Result<(), String> {
        let running = process.as_ref().unwrap();
        let (lanes, twice) = self.lanes(running.endpoint(), end).await;
        let mut rules = BTreeSet::from([self.rules]);
        let total: usize = lanes.iter().map(|lane| lane.requests.len()).sum();
        let kill_at = (end == End::Kill).then(|| self.tape.below(total));
        // Of the rounds that end with a kill some have a reload, before it; the last one always has.
        let reloads = end == End::Flush || end == End::Kill && self.tape.below(2) == 0;
        let reload_at = reloads.then(|| self.tape.below(kill_at.unwrap_or(total).max(1)));
        if reload_at.is_some() {
            self.change_policies();
            rules.insert(self.rules);
        }
        let ats = lanes.iter().flat_map(|lane| lane.requests.iter().map(|(at, _)| *at));
        ats.for_each(|at| self.book.sent(at, &rules));
        let (answered, mut count) = watch::channel(0);
        let answered = Arc::new(answered);
        let is_killed = Arc::new(AtomicBool::new(false));
        let send = |lane: Lane| tokio::spawn(lane.send(Arc::clone(&answered), Arc::clone(&is_killed)));
        let sending: Vec<_> = lanes.into_iter().map(send).collect();
        let mut events = BTreeMap::new();
        events.extend(reload_at.map(|at| (at, false)));
        events.extend(kill_at.map(|at| (at, true)));
        for (at, is_kill) in events {
            if timeout(PATIENCE, count.wait_for(|count| *count >= at)).await.is_err() {
                return Err(stuck(total, *count.borrow(), process.as_ref()));
            }
            if is_kill {
                is_killed.store(true, Ordering::SeqCst);
                process.take().into_iter().for_each(|process| block_in_place(|| process.kill()));
            } else if let Some(process) = &process {
                let said = block_in_place(|| process.reload());
                assert!(said.contains("policies are in force"), "{said}");
                self.book.saw("reloads", 1);
            }
        }
        let mut came = 0;
        for lane in sending {
            let Ok(sent) = timeout(PATIENCE, lane).await else {
                return Err(stuck(total, *count.borrow(), process.as_ref()));
            };
            let (answers, failed) = sent.unwrap();
            if let Some(status) = failed {
                return Err(format!("a call failed: {status}"));
            }
            for answer in answers {
                came += 1;
                let is_twice = twice.contains(&answer.at.0);
                self.book.answered(answer, &rules, is_twice)?;
            }
        }
        if process.is_none() {
            self.book.saw("kills", 1);
            self.book.saw("kills with requests that are not answered", usize::from(came < total));
        } else if came < total {
            return Err(format!("{came} of {total} requests are answered"));
        }
        Ok(())
    }

    /// What is sent in a round, and the producers that send it in two calls at the same time.
    async fn lanes(&mut self, endpoint: &str, end: End) -> (Vec<Lane>, BTreeSet<usize>) {
        let mut lanes = Vec::new();
        for _ in 0..2 + self.tape.below(4) {
            let client = client::connect(endpoint).await.unwrap();
            for _ in 0..2 + self.tape.below(5) {
                let deep = 1 + self.tape.below(40);
                let way = self.tape.of(&[Way::Once, Way::Call(usize::MAX), Way::Call(deep), Way::Call(1)]);
                lanes.push(Lane { client: client.clone(), way, requests: Vec::new() });
            }
        }
        let mut twice = BTreeSet::new();
        // The steps that each producer sends in a lane.
        let mut shares: Vec<Vec<Vec<At>>> = vec![Vec::new(); lanes.len()];
        for (producer, its) in self.book.producers.iter().enumerate() {
            // Nobody knows whether a request without a number that was on its way was taken.
            if its.sort == Sort::Unnumbered && end == End::Kill {
                continue;
            }
            let most = if end == End::Flush { usize::MAX } else { 1 + self.tape.below(3) };
            let steps: Vec<At> = its.ahead(most).map(|step| (producer, step)).collect();
            let lane = self.tape.below(lanes.len());
            if its.sort == Sort::Orderly && self.tape.below(3) == 0 {
                let other = (lane + 1 + self.tape.below(lanes.len() - 1)) % lanes.len();
                shares[other].push(steps.clone());
                twice.insert(producer);
            }
            shares[lane].push(steps);
        }
        for (lane, mut shares) in lanes.iter_mut().zip(shares) {
            shares.iter_mut().for_each(|steps| steps.reverse());
            shares.retain(|steps| !steps.is_empty());
            while !shares.is_empty() {
                let share = self.tape.below(shares.len());
                let at = shares[share].pop().unwrap();
                lane.requests.push((at, self.book.producers[at.0].steps[at.1].request.clone()));
                if shares[share].is_empty() {
                    shares.swap_remove(share);
                }
            }
        }
        lanes.retain(|lane| !lane.requests.is_empty());
        (lanes, twice)
    }

    /// How many more requests than batches there were, at least.
    fn look_at_metrics(&mut self) {
        let (_, text) = block_in_place(|| http::get(&self.metrics, "/metrics"));
        let sum = |name: &str| -> usize {
            let lines = text.lines().filter(|line| line.starts_with(name));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as usize).sum()
        };
        let requests = sum("bailiwick_requests_in_total{");
        let batches = sum("bailiwick_batch_stage_seconds_count{stage=\"judge\"}");
        // Both are shown in steps.
        self.book.saw("requests that share a batch", requests.saturating_sub(batches + 2 * STEP));
    }

    /// The ledger says who was refused, as far as whole steps go.
    fn refusals_are_told(&mut self) -> Result<(), String> {
        let mut told = Seen::new();
        for entry in of_kind(&block_in_place(|| entries(&self.folder.path("journal/ledger"))), "refused") {
            let reason = format!("REASON_{}", entry["reason"].as_str().unwrap().to_uppercase());
            *told.entry(reason).or_default() += entry["records"].as_u64().unwrap() as usize;
        }
        let expected = self.book.refused();
        let is_told = |(reason, times): (&String, &usize)| {
            let told = told.get(reason).copied().unwrap_or_default();
            told <= *times && *times < told + STEP
        };
        if expected.iter().all(is_told) && told.keys().all(|reason| expected.contains_key(reason)) {
            return Ok(());
        }
        Err(format!("the ledger says {told:#?} were refused, and these were: {expected:#?}"))
    }
}

/// What is said of requests whose answers do not come.
fn stuck(total: usize, answered: usize, process: Option<&Process>) -> String {
    let log = process.map(Process::log).unwrap_or_default();
    format!("{answered} of {total} requests are answered, and no more are:\n{}", log.join("\n"))
}
