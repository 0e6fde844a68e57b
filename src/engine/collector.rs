//! The collector: merges the workers' parts of closed windows and puts what may leave into the outbox;
//! merges their parts of a checkpoint and writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::versions::Versions;
use crate::clock::Clock;
use crate::domain::aggregate::{Cells, ContributorKey};
use crate::domain::binary::Writer;
use crate::domain::dataset::{Dataset, KeptShape};
use crate::domain::gateway::Snapshot;
use crate::domain::name::{DatasetName, GatewayId};
use crate::domain::policy::{ClosedWindow, Digest, Outlet, Released, release};
use crate::domain::tally::Told;
use crate::domain::time::rfc3339;
use crate::domain::window::micros;
use crate::durable::checkpoint::{Checkpoint, Checkpoints, WindowPart};
use crate::durable::outbox::{Closing, Note};
use crate::ledger::entry::coarse;
use crate::planted::planted;
use crate::storage::{Error, Log, Lsn};
use crate::telemetry::Telemetry;

use super::order::{Report, SavedWindow};
use super::sequencer::Sequencer;

/// What the collector must know to release a window.
pub struct ReleaseRules {
    /// The gateway's id.
    pub gateway: GatewayId,
    /// The policies, which say what may go where.
    pub versions: Arc<Versions>,
    /// The datasets.
    pub datasets: BTreeMap<DatasetName, Arc<Dataset>>,
    /// Nothing leaves: what would is only counted.
    pub is_dry_run: bool,
}

/// What the collector works with.
pub struct Collecting {
    /// The rules.
    pub rules: ReleaseRules,
    /// Where releases wait for their destinations.
    pub outbox: Arc<Log>,
    /// The last closing of each dataset that the outbox held at the start.
    pub released: BTreeMap<String, Lsn>,
    /// The last position of the outbox at the start.
    pub outbox_last: Lsn,
    /// Through which position all destinations have confirmed.
    pub confirmed: Box<dyn Fn() -> Lsn + Send>,
    /// Where checkpoints go.
    pub checkpoints: Checkpoints,
    /// The secret that the workers hash contributors under.
    pub key: ContributorKey,
    /// The shapes of the datasets.
    pub shapes: Vec<(String, KeptShape)>,
}

pub(super) struct Collector {
    collecting: Collecting,
    workers: usize,
    sequencer: Arc<Sequencer>,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    /// What the workers have reported of each closing.
    closings: BTreeMap<Lsn, Reported>,
    /// What is told of refused records with closings to come: the windows that are closed began before a time.
    refused: BTreeMap<Lsn, (Option<i64>, Vec<Told>)>,
    checkpoint: Option<Gathering>,
    /// The end of the outbox at the checkpoint before the last.
    outbox_needed: Lsn,
}

struct Reported {
    dataset: DatasetName,
    part: Lsn,
    windows: BTreeMap<i64, Cells>,
    workers: usize,
}

/// A checkpoint of which some workers' parts are still to come.
struct Gathering {
    checkpoint: Checkpoint,
    workers: usize,
    /// How long all have worked on it.
    took: Duration,
}

/// How long the outbox is given before it is asked for room again.
const PAUSE: Duration = Duration::from_millis(100);

impl Collector {
    pub(super) fn new(
        collecting: Collecting,
        workers: usize,
        sequencer: Arc<Sequencer>,
        telemetry: Arc<Telemetry>,
        clock: Clock,
    ) -> Self {
        let (closings, refused) = (BTreeMap::new(), BTreeMap::new());
        let (checkpoint, outbox_needed) = (None, 0);
        Self { collecting, workers, sequencer, telemetry, clock, closings, refused, checkpoint, outbox_needed }
    }

    pub(super) fn run(mut self, reports: &Receiver<Report>) {
        let mut running = self.workers;
        while running > 0 {
            match reports.recv() {
                Ok(Report::Closed { lsn, dataset, part, mut windows, saving }) => {
                    self.gather_closed(saving, &dataset, &mut windows);
                    self.closed(lsn, dataset, part, windows);
                }
                Ok(Report::Refused { lsn, before, refused }) => {
                    self.refused.insert(lsn, (before, refused));
                }
                Ok(Report::State { lsn, gateway }) => self.begin_checkpoint(lsn, &gateway),
                Ok(Report::Checkpoint { lsn, windows, took }) => self.gather(lsn, windows, took),
                Ok(Report::Finished) => running -= 1,
                Err(_) => return,
            }
        }
    }

    fn closed(&mut self, lsn: Lsn, dataset: DatasetName, part: Lsn, windows: BTreeMap<i64, Cells>) {
        let reported = self.closings.entry(lsn).or_insert_with(|| Reported {
            dataset,
            part,
            windows: BTreeMap::new(),
            workers: 0,
        });
        reported.workers += 1;
        for (window, cells) in windows {
            match reported.windows.entry(window) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(cells);
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => entry.get_mut().merge(cells),
            }
        }
        if reported.workers == self.workers
            && let Some(reported) = self.closings.remove(&lsn)
        {
            self.release(lsn, reported);
        }
    }

    /// Releases what was closed at a position. All its releases are one entry of the outbox: after a crash
    /// they are there as a whole, or the closing is replayed and released then.
    fn release(&mut self, lsn: Lsn, reported: Reported) {
        let refused = self.refused.remove(&lsn);
        let is_in_outbox = self.collecting.released.get(&*reported.dataset).is_some_and(|released| *released >= lsn);
        if is_in_outbox && !planted("replay-twice") {
            return;
        }
        let Reported { dataset, part, windows, .. } = reported;
        let mut releases = Vec::new();
        let mut notes = refused.map_or_else(Vec::new, |refused| self.refused_notes(&dataset, refused));
        for (window, cells) in windows {
            releases.extend(self.cells(&dataset, window, part, cells, &mut notes));
        }
        // The outbox remembers also what a dry run closed: it is not released by a run that is none.
        if releases.is_empty() && notes.is_empty() && !self.collecting.rules.is_dry_run {
            return;
        }
        // What was counted must be on disk before anyone is told of it.
        if !planted("release-ahead-of-journal") && !self.sequencer.journal.wait_durable(lsn) {
            return;
        }
        let count = releases.len();
        match (Closing { closed_at: lsn, dataset: (&dataset).into(), releases, notes }).encode() {
            Ok(entry) => self.put_out(entry),
            Err(error) => {
                return tracing::error!(%error, "a release could not be encoded, and is lost: a fault in bailiwick; \
                 please report this line");
            }
        }
        self.telemetry.add_of_dataset(&dataset, |counts| &counts.releases, count);
    }

    /// What the ledger is to say of refused records of a dataset's stream.
    fn refused_notes(&self, dataset: &str, (before, refused): (Option<i64>, Vec<Told>)) -> Vec<Note> {
        let Some(declared) = self.collecting.rules.datasets.get(dataset) else { return Vec::new() };
        let notes = refused.into_iter().map(|told| Note::Refused { stream: declared.stream.clone(), before, told });
        notes.collect()
    }

    /// What of a window's cells may leave. What the ledger is to say of it goes into the notes.
    fn cells(&self, dataset: &str, window: i64, part: Lsn, cells: Cells, notes: &mut Vec<Note>) -> Vec<Released> {
        let rules = &self.collecting.rules;
        let Some(declared) = rules.datasets.get(dataset) else { return Vec::new() };
        let (policy, outlets) = self.outlets(dataset, window, &cells);
        let (started, window_start) = (self.start_of(dataset, window), self.start_as_text(dataset, window));
        let cells = cells.bounded(declared);
        let closed = ClosedWindow { gateway: &rules.gateway, dataset: declared, window, part, cells };
        match release(&closed, &outlets, policy) {
            Ok(outcome) if rules.is_dry_run => {
                self.telemetry.add_of_dataset(dataset, |counts| &counts.dry_releases, outcome.released.len());
                Vec::new()
            }
            Ok(outcome) => {
                let telemetry = &self.telemetry;
                telemetry.add_of_dataset(dataset, |counts| &counts.cells_released, outcome.cells_released);
                telemetry.add_of_dataset(dataset, |counts| &counts.cells_withheld, outcome.cells_withheld);
                let (released, withheld) = (outcome.cells_released, outcome.cells_withheld);
                tracing::debug!(dataset, window_start, released, withheld, "window closed");
                let k = outlets.iter().map(|outlet| outlet.min_contributors).max().unwrap_or(declared.min_contributors);
                notes.extend(coarse(withheld, k).map(|at_least| Note::Withheld { window_start: started, at_least }));
                let leaves = |outlet: &Outlet| {
                    outcome.released.iter().any(|released| *released.destination() == *outlet.destination)
                };
                let used = outlets.iter().filter(|outlet| leaves(outlet)).filter_map(|outlet| {
                    let (id, destination) = (outlet.by_override.clone()?, outlet.destination.clone());
                    Some(Note::Override { id, destination, window_start: started })
                });
                notes.extend(used);
                outcome.released
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    dataset,
                    window_start,
                    "a window could not be released: a fault in bailiwick; please report this line"
                );
                Vec::new()
            }
        }
    }

    /// When a window began, in microseconds since the Unix epoch.
    fn start_of(&self, dataset: &str, window: i64) -> i64 {
        let size = self.collecting.rules.datasets.get(dataset).map_or(0, |dataset| micros(dataset.window));
        window.saturating_mul(size)
    }

    /// The same for the log.
    fn start_as_text(&self, dataset: &str, window: i64) -> String {
        rfc3339(self.start_of(dataset, window))
    }

    /// Where the cells of a window may go: what every policy that its records were decided under allows, and the one in
    /// force.
    fn outlets(&self, dataset: &str, window: i64, cells: &Cells) -> (Digest, Vec<Outlet>) {
        let versions = &self.collecting.rules.versions;
        let (in_force, outlets) = versions.outlets(dataset, cells.policies());
        let outlets = outlets.unwrap_or_else(|policy| {
            let window_start = self.start_as_text(dataset, window);
            tracing::error!(
                dataset,
                window_start,
                %policy,
                "records were decided under policies that are lost; nothing of the window leaves. Keep the files in \
                 `policies` of the journal's directory"
            );
            Vec::new()
        });
        for outlet in &outlets {
            if let Some(relaxed) = &outlet.by_override {
                let (destination, min_contributors) = (&outlet.destination, outlet.min_contributors);
                let window_start = self.start_as_text(dataset, window);
                tracing::warn!(
                    dataset,
                    window_start,
                    %destination,
                    min_contributors,
                    relaxed,
                    "an override is used; it ends by itself, or when it is taken out of the policies"
                );
            }
        }
        if let Some(shadow) = versions.outlets_in_shadow(dataset) {
            self.telemetry.shadow.window(dataset, &destinations(&outlets), &destinations(&shadow));
        }
        (in_force, outlets)
    }

    /// Waits until the outbox has the entry on disk. While it is full, windows wait, and in the end so do the
    /// producers.
    fn put_out(&mut self, entry: Vec<u8>) {
        let outbox = &self.collecting.outbox;
        let mut warned = false;
        let room = loop {
            match outbox.reserve(entry.len() as u64) {
                Ok(room) => break room,
                Err(error) => {
                    if !warned {
                        tracing::warn!(%error, "a release waits for room in the outbox: see which destination does \
                         not take releases, or raise `quota_bytes`");
                        warned = true;
                    }
                    if let Err(error) = outbox.let_go((self.collecting.confirmed)().min(self.outbox_needed)) {
                        tracing::error!(%error, "the outbox could not be shortened: check the disk");
                    }
                    thread::sleep(PAUSE);
                }
            }
        };
        self.collecting.outbox_last += 1;
        outbox.submit(self.collecting.outbox_last, entry, room, None);
        let _ = outbox.wait_durable(self.collecting.outbox_last);
    }

    fn begin_checkpoint(&mut self, lsn: Lsn, gateway: &Snapshot) {
        let began = self.clock.now();
        let (key, shapes) = (self.collecting.key, self.collecting.shapes.clone());
        let mut writer = Writer::default();
        gateway.encode(&mut writer);
        let checkpoint = Checkpoint::new(lsn, key, writer.finish(), shapes);
        let took = self.clock.now().saturating_sub(began);
        self.checkpoint = Some(Gathering { checkpoint, workers: 0, took });
    }

    /// The checkpoint that is being gathered, if it is the one of this position.
    fn gathering(&mut self, lsn: Lsn) -> Option<&mut Gathering> {
        self.checkpoint.as_mut().filter(|gathering| gathering.checkpoint.lsn == lsn)
    }

    /// A worker's part of windows that have closed while a checkpoint is under way: it holds them as they were before.
    fn gather_closed(&mut self, saving: Option<Lsn>, dataset: &str, windows: &mut BTreeMap<i64, Cells>) {
        for (window, cells) in windows {
            let (Some(saved), Some(lsn)) = (cells.take_saved(), saving) else { continue };
            if let Some(Gathering { checkpoint, .. }) = self.gathering(lsn) {
                let part = WindowPart { dataset: dataset.to_owned(), window: *window, cells: saved.bytes() };
                checkpoint.windows.push(part);
            }
        }
    }

    /// A worker's part of a checkpoint. The last one makes it whole.
    fn gather(&mut self, lsn: Lsn, windows: Vec<SavedWindow>, took: Duration) {
        let workers = self.workers;
        let Some(gathering) = self.gathering(lsn) else { return };
        let parts = windows.into_iter().map(|SavedWindow { dataset, window, cells }| WindowPart {
            dataset: dataset.to_string(),
            window,
            cells: cells.bytes(),
        });
        gathering.checkpoint.windows.extend(parts);
        gathering.took += took;
        gathering.workers += 1;
        if gathering.workers < workers {
            return;
        }
        if let Some(Gathering { checkpoint, took, .. }) = self.checkpoint.take() {
            if let Err(error) = self.write(&checkpoint) {
                tracing::error!(%error, "a checkpoint could not be written; the journal is kept. Check the disk; it is \
                 tried again");
            }
            self.sequencer.checkpoint_is_done(took);
        }
    }

    /// What the checkpoint holds is on disk before it is: the entries in the journal, the releases in the
    /// outbox. What is needed to start from the one before stays.
    fn write(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        if !self.sequencer.journal.wait_durable(checkpoint.lsn) {
            return Ok(());
        }
        let needed_after = self.collecting.checkpoints.write(checkpoint)?;
        self.sequencer.journal.let_go(needed_after)?;
        let confirmed = (self.collecting.confirmed)();
        self.collecting.outbox.let_go(confirmed.min(self.outbox_needed))?;
        self.outbox_needed = self.collecting.outbox_last;
        tracing::debug!(lsn = checkpoint.lsn, windows = checkpoint.windows.len(), "checkpoint");
        Ok(())
    }
}

fn destinations(outlets: &[Outlet]) -> BTreeSet<&str> {
    outlets.iter().map(|outlet| outlet.destination.as_str()).collect()
}
