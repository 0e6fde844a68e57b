//! The collector: merges the workers' parts of closed windows and puts what may leave into the outbox;
//! merges their parts of a checkpoint and writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::versions::Versions;
use crate::clock::{Clock, thread_cpu_time};
use crate::domain::aggregate::{Cells, ContributorKey};
use crate::domain::binary::Writer;
use crate::domain::dataset::{Dataset, KeptShape};
use crate::domain::deferral::{Decided, Deferral};
use crate::domain::gateway::Snapshot;
use crate::domain::name::{DatasetName, DestinationName, GatewayId};
use crate::domain::policy::{ClosedWindow, Digest, Longer, Outcome, Outlet, Released, asked_for, release};
use crate::domain::privacy::{Paid, Privacy, Rho};
use crate::domain::table::Tables;
use crate::domain::tally::Told;
use crate::domain::time::rfc3339;
use crate::domain::window::{first_window, micros};
use crate::durable::checkpoint::{Checkpoint, Checkpoints, WindowPart};
use crate::durable::outbox::{Closing, LastClosing, Note};
use crate::planted::planted;
use crate::storage::{Error, Log, Lsn};
use crate::telemetry::{DatasetCounts, Telemetry};

use super::noising::{Noised, Noising};
use super::order::{Report, SavedWindow};
use super::sequencer::Sequencer;

mod longer;
mod outbox;
mod telling;
mod waiting;
mod withheld;

use telling::Wholes;
use waiting::Quiet;
use withheld::{Refused, Withheld};

/// What the collector must know to release a window.
pub struct ReleaseRules {
    /// The gateway's id.
    pub gateway: GatewayId,
    /// The policies, which say what may go where.
    pub versions: Arc<Versions>,
    /// What is counted: of datasets that share their cells, under the name of the first.
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
    /// The last closing of each dataset that the outbox has, also under a name that it was closed as.
    pub released: BTreeMap<DatasetName, LastClosing>,
    /// What had been decided about cells that may wait, by the closing's position in the journal.
    pub decided: BTreeMap<Lsn, Vec<Decided>>,
    /// The closings before which it is not known, by dataset: the outbox had begun anew.
    pub begun_anew: BTreeMap<DatasetName, Lsn>,
    /// What waited at the checkpoint, of each dataset whose cells wait.
    pub deferred: BTreeMap<DatasetName, Deferral>,
    /// What was told of each dataset that tells only what has changed.
    pub tables: BTreeMap<DatasetName, Tables>,
    /// What is added up of longer windows, of those whose cells are counted for one.
    pub longer: BTreeMap<DatasetName, Longer>,
    /// What pays for windows of datasets with differential privacy.
    pub noising: Arc<Noising>,
    /// The last position of the outbox at the start.
    pub outbox_last: Lsn,
    /// Through which position all destinations have confirmed.
    pub confirmed: Box<dyn Fn() -> Lsn + Send>,
    /// Where checkpoints go.
    pub checkpoints: Checkpoints,
    /// The secret that the workers hash contributors under, and the collector positions of flushes.
    pub key: ContributorKey,
    /// The shapes of the datasets.
    pub shapes: Vec<(DatasetName, KeptShape)>,
}

pub(super) struct Collector {
    collecting: Collecting,
    workers: usize,
    sequencer: Arc<Sequencer>,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    /// What the workers have reported of each closing of a dataset. Datasets that shared their cells then can share a position.
    closings: BTreeMap<(Lsn, DatasetName), Reported>,
    /// What is told of refused records with closings to come: the windows that are closed began before a time.
    refused: BTreeMap<Lsn, Refused>,
    checkpoint: Option<Gathering>,
    /// The end of the outbox at the position of the checkpoint before the last.
    outbox_needed: Lsn,
    /// The same of the last one.
    outbox_at_checkpoint: Lsn,
    /// Where the outbox has what destinations were told, as a whole.
    wholes: Wholes,
    /// Where the outbox has what was added up, as a whole.
    added_up_at: Lsn,
    /// What was decided at closings that the outbox does not have.
    quiet: Quiet,
    /// What destinations would have been told in a dry run.
    dry_tables: BTreeMap<DatasetName, Tables>,
}

/// A window that was closed or flushed.
struct Window<'w> {
    dataset: &'w DatasetName,
    /// Its number.
    window: i64,
    /// 0, or what stands for the flush.
    part: u64,
}

struct Reported {
    /// The windows that began before this time are closed. `None`: all were released as they are.
    before: Option<i64>,
    windows: BTreeMap<i64, Cells>,
    workers: usize,
}

/// A checkpoint of which some workers' parts are still to come.
struct Gathering {
    checkpoint: Checkpoint,
    /// The end of the outbox at its position.
    outbox_last: Lsn,
    workers: usize,
    /// Whether it has what waits, and what was added up.
    has_kept: bool,
    /// How long all have worked on it.
    took: Duration,
}

impl Collector {
    pub(super) fn new(
        collecting: Collecting,
        workers: usize,
        sequencer: Arc<Sequencer>,
        telemetry: Arc<Telemetry>,
        clock: Clock,
    ) -> Self {
        let (closings, refused) = (BTreeMap::new(), BTreeMap::new());
        Self {
            collecting,
            workers,
            sequencer,
            telemetry,
            clock,
            closings,
            refused,
            checkpoint: None,
            outbox_needed: 0,
            outbox_at_checkpoint: 0,
            wholes: Wholes::default(),
            added_up_at: 0,
            quiet: Quiet::default(),
            dry_tables: BTreeMap::new(),
        }
    }

    pub(super) fn run(mut self, reports: &Receiver<Report>) {
        let mut running = self.workers;
        while running > 0 {
            match reports.recv() {
                Ok(Report::Closed { lsn, dataset, before, mut windows, saving }) => {
                    self.gather_closed(saving, &dataset, &mut windows);
                    self.closed(lsn, dataset, before, windows);
                }
                Ok(Report::Refused { lsn, before, refused }) => {
                    self.refused.insert(lsn, Refused { before, told: refused });
                }
                Ok(Report::State { lsn, gateway }) => self.begin_checkpoint(lsn, &gateway),
                Ok(Report::Checkpoint { lsn, windows, took }) => self.gather(lsn, windows, took),
                Ok(Report::Finished) => running -= 1,
                Err(_) => return,
            }
        }
    }

    fn closed(&mut self, lsn: Lsn, dataset: DatasetName, before: Option<i64>, windows: BTreeMap<i64, Cells>) {
        let at = (lsn, dataset);
        let new = || Reported { before, windows: BTreeMap::new(), workers: 0 };
        let reported = self.closings.entry(at.clone()).or_insert_with(new);
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
            && let Some(reported) = self.closings.remove(&at)
        {
            // A checkpoint of before has what waited and was added up before. Closings come here in the order of their positions.
            self.save_kept(|checkpoint| checkpoint < lsn);
            self.release(at.0, at.1, reported);
        }
    }

    /// Releases what was closed at a position. All its releases are one entry of the outbox: after a crash
    /// they are there as a whole, or the closing is replayed and released then.
    fn release(&mut self, lsn: Lsn, dataset: DatasetName, reported: Reported) {
        let refused = self.refused.remove(&lsn);
        let mut deferral = self.collecting.deferred.remove(&dataset);
        if self.is_in_outbox(lsn, &dataset) && !planted("replay-twice") {
            self.has_closed(&dataset, reported.before);
            if let Some(deferral) = deferral {
                self.defer_again(lsn, dataset, reported, deferral);
            }
            return;
        }
        let Reported { before, windows, .. } = reported;
        let mut tables = self.take_tables(&dataset);
        let (part, last) = (self.part(before, lsn), windows.keys().next_back().copied());
        let mut closing = Closing::new(dataset.clone(), lsn);
        if let Some(Refused { before, told }) = refused {
            closing.notes.extend(self.refused_notes(&dataset, before, told));
        }
        for (window, cells) in windows {
            let of_window = Window { dataset: &dataset, window, part };
            if before.is_some() {
                self.without_records(&dataset, window, &mut tables, &mut closing);
            }
            match &mut deferral {
                Some(deferral) => self.waiting_cells(&of_window, cells, deferral, &mut tables, &mut closing),
                None => self.cells(&of_window, cells, &mut tables, &mut closing),
            }
            if let Some(tables) = tables.as_mut().filter(|_| before.is_some()) {
                tables.closed_before(window.saturating_add(1));
            }
        }
        self.all_told(&dataset, before, &mut tables, &mut closing);
        self.longer_windows(&dataset, before, &mut closing);
        if let Some(mut deferral) = deferral {
            self.passed(&dataset, &mut deferral, before, last, &mut closing);
            self.put_back(dataset.clone(), deferral);
        }
        self.put_tables(&dataset, tables, before);
        // The outbox remembers also what a dry run closed: it is not released by a run that is none.
        if !self.collecting.rules.is_dry_run {
            if closing.is_empty() {
                return;
            }
            if closing.only_decides() {
                return self.decided_quietly(dataset, closing);
            }
        } else if last.is_none() && closing.is_empty() {
            return;
        }
        closing.decided_before = self.quiet.remove(&dataset).unwrap_or_default();
        // What was counted must be on disk before anyone is told of it.
        if !planted("release-ahead-of-journal") && !self.sequencer.journal.wait_durable(lsn) {
            return;
        }
        match closing.encode() {
            Ok(entry) => {
                self.put_out(&dataset, entry);
                self.has_added_up(&dataset, &closing);
                let last = LastClosing { closed_at: lsn, at: self.collecting.outbox_last };
                self.collecting.released.insert(dataset, last);
            }
            Err(error) => {
                self.forget_told(&dataset);
                return tracing::error!(%error, "a release could not be encoded, and is lost: a fault in bailiwick; \
                 please report this line");
            }
        }
        for released in &closing.releases {
            self.telemetry.add_of_dataset(released.dataset(), |counts| &counts.releases, 1);
        }
    }

    /// The windows of a dataset that began before a time were closed before: what their cells told is known, and that one told
    /// nothing is no gap.
    fn has_closed(&mut self, dataset: &DatasetName, before: Option<i64>) {
        let declared = self.collecting.rules.datasets.get(dataset);
        let tables = self.collecting.tables.get_mut(dataset);
        if let (Some(before), Some(declared), Some(tables)) = (before, declared, tables) {
            tables.closed_before(first_window(Some(before), declared.window));
        }
    }

    /// Whether the outbox had what was closed at a position when it was opened. A dataset that shares its cells with others
    /// since then had its closings under its own name.
    fn is_in_outbox(&self, lsn: Lsn, dataset: &DatasetName) -> bool {
        let declared = self.collecting.rules.datasets.get(dataset);
        let names = declared.iter().flat_map(|declared| declared.released_as()).map(|released| &released.name);
        let mut released = names.chain([dataset]).filter_map(|name| self.collecting.released.get(name));
        released.any(|released| released.closed_at >= lsn)
    }

    /// What the ledger is to say of refused records of a dataset's stream.
    fn refused_notes(&self, dataset: &DatasetName, before: Option<i64>, refused: Vec<Told>) -> Vec<Note> {
        let Some(declared) = self.collecting.rules.datasets.get(dataset) else { return Vec::new() };
        let notes = refused.into_iter().map(|told| Note::Refused { stream: declared.stream.clone(), before, told });
        notes.collect()
    }

    /// What of a window's cells may leave. The others are withheld.
    fn cells(&self, window: &Window<'_>, cells: Cells, tables: &mut Option<Tables>, closing: &mut Closing) {
        let Some(declared) = self.collecting.rules.datasets.get(window.dataset) else { return };
        let (policy, outlets) = self.outlets(window, declared, &cells);
        let closed = self.closed_window(window, cells.bounded(declared), declared, None);
        if let Some(outcome) = self.leave(window, &closed, policy, &outlets, tables, closing) {
            self.withheld(window.dataset, window.window, Withheld::of(&outcome, declared), &outlets, closing);
        }
    }

    fn closed_window<'w>(
        &'w self,
        window: &Window<'w>,
        cells: Cells,
        dataset: &'w Dataset,
        deferral: Option<&'w Deferral>,
    ) -> ClosedWindow<'w> {
        let Window { window, part, .. } = *window;
        ClosedWindow { gateway: &self.collecting.rules.gateway, dataset, window, part, cells, deferral }
    }

    /// Lets go what may leave of a window's cells: it goes into the closing, with what the ledger is to say of it. `None`:
    /// nothing can.
    fn leave(
        &self,
        window: &Window<'_>,
        closed: &ClosedWindow<'_>,
        policy: Digest,
        outlets: &[Outlet],
        tables: &mut Option<Tables>,
        closing: &mut Closing,
    ) -> Option<Outcome> {
        let (dataset, window_start) = (window.dataset, self.start_as_text(window.dataset, window.window));
        // Noise is for a dataset alone: of several that share cells, one that asked for it under policies of before gets nothing.
        let noise = asked_for(outlets).filter(|_| !closed.dataset.is_shared());
        let outcome = match (&mut *tables, noise) {
            (Some(tables), _) => self.changes(closed, policy, outlets, tables),
            (None, Some(privacy)) => Ok(self.with_noise(window, closed, policy, outlets, privacy, closing)?),
            (None, None) => release(closed, outlets, policy),
        };
        match outcome {
            Ok(mut outcome) => {
                if self.collecting.rules.is_dry_run {
                    for released in std::mem::take(&mut outcome.released) {
                        self.telemetry.add_of_dataset(released.dataset(), |counts| &counts.dry_releases, 1);
                    }
                    if let Some(tables) = tables {
                        tables.at(window.window);
                        outcome.told.iter().for_each(|told| tables.tell(told));
                    }
                    return Some(outcome);
                }
                for Dataset { name, .. } in closed.dataset.released_as() {
                    let (left, beside) = match &tables {
                        // It shares no cells.
                        Some(_) => (outcome.cells_released - outcome.cells_unchanged, 0),
                        None => (outcome.of_dataset(name), outcome.beside_dataset(name)),
                    };
                    let remainders = outcome.remainders_of(name);
                    self.telemetry.add_of_dataset(name, |counts| &counts.cells_released, left);
                    self.telemetry.add_of_dataset(name, |counts| &counts.remainders_released, remainders);
                    // The others are counted with what is withheld of all.
                    self.telemetry.add_of_dataset(name, |counts| &counts.cells_withheld, beside);
                }
                self.count(dataset, |counts| &counts.cells_unchanged, outcome.cells_unchanged);
                let released = std::mem::take(&mut outcome.released);
                let told = std::mem::take(&mut outcome.told);
                // Where only changes are told, a release of cells that are gone comes of windows without records, too.
                let tells_cells: BTreeSet<&DestinationName> = match &tables {
                    Some(_) => told.iter().filter(|told| !told.set.is_empty()).map(|told| &told.destination).collect(),
                    None => released.iter().map(Released::destination).collect(),
                };
                let left = outcome.cells_released - outcome.cells_unchanged;
                tracing::debug!(%dataset, window_start, released = left, "window closed");
                // No dataset that shares its cells has an override.
                let started = self.start_of(dataset, window.window);
                let used =
                    outlets.iter().filter(|outlet| tells_cells.contains(&outlet.destination)).filter_map(|outlet| {
                        let (id, destination) = (outlet.by_override.clone()?, outlet.destination.clone());
                        Some(Note::Override { id, destination, window_start: started })
                    });
                closing.notes.extend(used);
                closing.longer.added.append(&mut outcome.longer);
                if let Some(tables) = tables {
                    Self::told(window, told, tables, closing);
                }
                closing.releases.extend(released);
                Some(outcome)
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    %dataset,
                    window_start,
                    "a window could not be released: a fault in bailiwick; please report this line"
                );
                None
            }
        }
    }

    /// What of a window may leave with noise. `None`: nothing, and the closing says why.
    fn with_noise(
        &self,
        window: &Window<'_>,
        closed: &ClosedWindow<'_>,
        policy: Digest,
        outlets: &[Outlet],
        privacy: Privacy,
        closing: &mut Closing,
    ) -> Option<Outcome> {
        // What is charged is known again after a crash by its closing, which must be there then.
        if !self.sequencer.journal.wait_durable(closing.closed_at) {
            return None;
        }
        let (dataset, text) = (window.dataset, self.start_as_text(window.dataset, window.window));
        let (outcome, rho, released) = match self.collecting.noising.release(closed, outlets, privacy, policy) {
            Noised::Released(outcome) => (Paid::Noised, privacy.per_window, Some(outcome)),
            Noised::Spent => {
                tracing::warn!(%dataset, window_start = text, "a window does not leave: the budget of its day is spent");
                (Paid::Spent, Rho::default(), None)
            }
            Noised::Lost => {
                tracing::warn!(
                    %dataset,
                    window_start = text,
                    "a window does not leave: it was charged before a crash, and noise is drawn once"
                );
                (Paid::Lost, privacy.per_window, None)
            }
            Noised::Failed(error) => {
                tracing::error!(%dataset, window_start = text, error, "a window with noise could not be released");
                (Paid::Lost, privacy.per_window, None)
            }
        };
        let telemetry = &self.telemetry;
        match outcome {
            Paid::Noised => telemetry.add_of_dataset(dataset, |counts| &counts.windows_noised, 1),
            Paid::Spent | Paid::Lost => telemetry.add_of_dataset(dataset, |counts| &counts.windows_without_budget, 1),
        }
        let window_start = self.start_of(dataset, window.window);
        closing.notes.push(Note::Privacy { window_start, outcome, rho });
        released
    }

    /// Counts cells of a dataset and of those that share them, unless this is a dry run.
    fn count(&self, dataset: &DatasetName, of: impl Fn(&DatasetCounts) -> &AtomicU64, cells: usize) {
        let Some(declared) = self.collecting.rules.datasets.get(dataset) else { return };
        if !self.collecting.rules.is_dry_run {
            declared.released_as().for_each(|released| self.telemetry.add_of_dataset(&released.name, &of, cells));
        }
    }

    /// When a window began, in microseconds since the Unix epoch.
    fn start_of(&self, dataset: &DatasetName, window: i64) -> i64 {
        let size = self.collecting.rules.datasets.get(dataset).map_or(0, |dataset| micros(dataset.window));
        window.saturating_mul(size)
    }

    /// The same for the log.
    fn start_as_text(&self, dataset: &DatasetName, window: i64) -> String {
        rfc3339(self.start_of(dataset, window))
    }

    /// Where the cells of a window may go, as those of which dataset: what every policy that its records were decided under
    /// allows, and the one in force.
    fn outlets(
        &self,
        &Window { dataset, window, .. }: &Window<'_>,
        declared: &Dataset,
        cells: &Cells,
    ) -> (Digest, Vec<Outlet>) {
        let versions = &self.collecting.rules.versions;
        let (in_force, outlets) = versions.outlets(declared, cells.policies());
        let outlets = outlets.unwrap_or_else(|policy| {
            let window_start = self.start_as_text(dataset, window);
            tracing::error!(
                %dataset,
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
                    %dataset,
                    window_start,
                    %destination,
                    min_contributors,
                    relaxed,
                    "an override is used; it ends by itself, or when it is taken out of the policies"
                );
            }
        }
        for view in declared.views().iter().filter(|view| !view.is_longer(declared)) {
            self.shadowed(&view.dataset.name, &outlets);
        }
        (in_force, outlets)
    }

    /// Counts where a window of a dataset goes, and where it would go by the policies in the shadow.
    fn shadowed(&self, dataset: &DatasetName, outlets: &[Outlet]) {
        if let Some(shadow) = self.collecting.rules.versions.outlets_in_shadow(dataset) {
            self.telemetry.shadow.window(dataset, &destinations(outlets, dataset), &destinations(&shadow, dataset));
        }
    }

    fn begin_checkpoint(&mut self, lsn: Lsn, gateway: &Snapshot) {
        let began = self.clock.now();
        let (key, shapes) = (self.collecting.key, self.collecting.shapes.clone());
        let mut writer = Writer::default();
        gateway.encode(&mut writer);
        let checkpoint = Checkpoint::new(lsn, key, writer.finish(), shapes);
        let took = self.clock.now().saturating_sub(began);
        let outbox_last = self.collecting.outbox_last;
        self.checkpoint = Some(Gathering { checkpoint, outbox_last, workers: 0, has_kept: false, took });
    }

    /// The checkpoint that is being gathered, if it is the one of this position.
    fn gathering(&mut self, lsn: Lsn) -> Option<&mut Gathering> {
        self.checkpoint.as_mut().filter(|gathering| gathering.checkpoint.lsn == lsn)
    }

    /// A worker's part of windows that have closed while a checkpoint is under way: it holds them as they were before.
    fn gather_closed(&mut self, saving: Option<Lsn>, dataset: &DatasetName, windows: &mut BTreeMap<i64, Cells>) {
        for (window, cells) in windows {
            let (Some(saved), Some(lsn)) = (cells.take_saved(), saving) else { continue };
            if let Some(Gathering { checkpoint, .. }) = self.gathering(lsn) {
                let part = WindowPart { dataset: dataset.clone(), window: *window, cells: saved.bytes() };
                checkpoint.windows.push(part);
            }
        }
    }

    /// A worker's part of a checkpoint. The last one makes it whole.
    fn gather(&mut self, lsn: Lsn, windows: Vec<SavedWindow>, took: Duration) {
        let workers = self.workers;
        let Some(gathering) = self.gathering(lsn) else { return };
        let parts = windows.into_iter().map(|SavedWindow { dataset, window, cells }| WindowPart {
            dataset,
            window,
            cells: cells.bytes(),
        });
        gathering.checkpoint.windows.extend(parts);
        gathering.took += took;
        gathering.workers += 1;
        if gathering.workers < workers {
            return;
        }
        self.save_kept(|checkpoint| checkpoint == lsn);
        if let Some(Gathering { checkpoint, outbox_last, took, .. }) = self.checkpoint.take() {
            let before = thread_cpu_time();
            if let Err(error) = self.write(&checkpoint, outbox_last) {
                tracing::error!(%error, "a checkpoint could not be written; the journal is kept. Check the disk; it is \
                 tried again");
            }
            self.sequencer.checkpoint_is_done(took + thread_cpu_time().saturating_sub(before));
        }
    }

    /// What the checkpoint holds is on disk before it is: entries in the journal, releases in the outbox. What a start from the
    /// one before needs stays. What closings after it put into the outbox says what they did, when they are replayed: so all
    /// after `outbox_last`, what there was at its position, stays too.
    fn write(&mut self, checkpoint: &Checkpoint, outbox_last: Lsn) -> Result<(), Error> {
        if !self.sequencer.journal.wait_durable(checkpoint.lsn) {
            return Ok(());
        }
        // After the position that is needed from this checkpoint on, so that it stays as long as the checkpoint does.
        self.keep_told();
        let goes_on = self.collecting.checkpoints.last() < checkpoint.lsn;
        let needed_after = self.collecting.checkpoints.write(checkpoint)?;
        self.sequencer.journal.let_go(needed_after)?;
        self.forget_quiet(needed_after);
        // A start may have to go back to the checkpoint before.
        self.outbox_needed = if goes_on { self.outbox_at_checkpoint } else { self.outbox_needed };
        self.outbox_at_checkpoint = outbox_last;
        let needless = (self.collecting.confirmed)().min(self.outbox_needed);
        self.collecting.outbox.let_go(self.wholes.spare(needless))?;
        tracing::debug!(lsn = checkpoint.lsn, windows = checkpoint.windows.len(), "checkpoint");
        Ok(())
    }
}

fn destinations<'o>(outlets: &'o [Outlet], dataset: &DatasetName) -> BTreeSet<&'o str> {
    let of_dataset = outlets.iter().filter(|outlet| outlet.dataset == *dataset);
    of_dataset.map(|outlet| outlet.destination.as_str()).collect()
}
