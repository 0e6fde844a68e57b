//! What the threads of all kinds of destinations share.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use crate::clock::Moment;
use crate::domain::dataset::CHANGE;
use crate::domain::name::{DatasetName, DestinationName};
use crate::domain::policy::Released;
use crate::durable::outbox::Closing;
use crate::egress::budget::{Forms, Level};
use crate::egress::encode::{self, Format};
use crate::egress::kafka;
use crate::ledger::Intent;
use crate::planted::planted;
use crate::storage::{self, Lsn, Slots};

use super::Context;
use super::cursor::{Cursor, Opened};
use super::gate::{Allowed, Gate};
use super::status::Status;

/// How often a thread looks up when nothing happens.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// How long it waits after a failure.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// So often, at most, the cursor goes to disk for what is confirmed without being sent.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// So many releases are said to the ledger together.
const INTENTS_TOGETHER: usize = 1_000;

/// One destination's thread: its cursor, and what tells it to end.
pub(super) struct Delivery {
    pub(super) name: DestinationName,
    pub(super) cursor: Cursor,
    pub(super) context: Context,
    /// Without a budget: in which forms entries leave that an earlier budget paid for.
    pub(super) forms: Forms,
    slots: Slots,
    /// `cursor.through` as it is on disk.
    through: Arc<AtomicU64>,
    /// When it went there last for what was confirmed without being sent.
    saved_at: Option<Duration>,
    status: Arc<Status>,
    ends: Ends,
    gate: Gate,
    /// The datasets of which something may be on its way to the destination.
    on_way: RefCell<BTreeSet<DatasetName>>,
}

/// A release that may not leave any more waits.
#[derive(Debug, thiserror::Error)]
#[error(
    "a release of `{0}` waits, and what comes after it: no policy in force lets the dataset go to the destination any more. Let \
     it go there again, or give such releases up with `when_denied = \"shed\"` in [destinations.NAME] and start the gateway again"
)]
struct Denied(DatasetName);

/// What tells a thread to end: its sender is dropped.
#[derive(Clone)]
pub(super) struct Ends {
    /// Once all is sent.
    pub(super) drained: Receiver<()>,
    /// At once.
    pub(super) cut: Receiver<()>,
}

impl Ends {
    pub(super) fn is_cut(&self) -> bool {
        self.cut.try_recv() == Err(TryRecvError::Disconnected)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drained.try_recv() == Err(TryRecvError::Disconnected)
    }
}

impl Delivery {
    pub(super) fn new(
        name: DestinationName,
        opened: Opened,
        status: Arc<Status>,
        context: Context,
        ends: Ends,
    ) -> Self {
        let Opened { slots, cursor, through } = opened;
        let gate = Gate::new(Arc::clone(&context.permits));
        let forms = Forms::default();
        let on_way = RefCell::default();
        Self { name, cursor, context, forms, slots, through, saved_at: None, status, ends, gate, on_way }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.ends.is_cut()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.ends.is_draining()
    }

    /// Nothing is on its way to the destination.
    pub(super) fn nothing_is_on_its_way(&self) {
        self.on_way.borrow_mut().clear();
    }

    /// Releases are on their way to the destination from now on.
    pub(super) fn are_on_their_way(&self, releases: &[Released]) {
        let mut on_way = self.on_way.borrow_mut();
        for dataset in releases.iter().map(Released::dataset) {
            if !on_way.contains(dataset) {
                on_way.insert(dataset.clone());
            }
        }
    }

    /// Whether the policies in force let anything go to the destination, and all that may be on its way. If not, it must not
    /// be reached.
    pub(super) fn is_permitted(&self) -> bool {
        let allowed = self.allowed();
        !allowed.is_empty() && allowed.is_superset(&self.on_way.borrow())
    }

    /// The datasets that the policies in force let go to the destination.
    pub(super) fn allowed(&self) -> Allowed {
        self.gate.allowed(&self.name)
    }

    /// The first dataset of releases that may not go to the destination any more.
    pub(super) fn denied(&self, releases: &[Released]) -> Option<DatasetName> {
        let allowed = self.allowed();
        releases.iter().map(Released::dataset).find(|dataset| !allowed.contains(*dataset)).cloned()
    }

    /// A release of a dataset may not leave any more, and waits.
    pub(super) fn waits_for_a_policy(&self, dataset: DatasetName) {
        self.failed(Denied(dataset));
    }

    /// Makes sure that the ledger says on disk that releases are given up, because they may not leave any more.
    pub(super) fn say_denied(&self, releases: &[Released], outbox: Lsn) -> Result<(), anyhow::Error> {
        Ok(self.context.ledger.denied(releases, outbox)?)
    }

    /// So many releases were given up for that, and the cursor says so on disk.
    pub(super) fn gave_up(&self, releases: usize) {
        self.status.denied(releases);
    }

    /// Whether what may not leave any more is given up. Otherwise it waits.
    pub(super) fn gives_up_denied(&self) -> bool {
        self.context.sheds_denied.contains(&self.name)
    }

    /// Whether these releases are given up if they may not leave any more. What tells only what has changed is not: what is told
    /// after it would be taken for all that has.
    pub(super) fn gives_up(&self, releases: &[Released]) -> bool {
        let tells_changes = |released: &Released| released.cells().schema().column_with_name(CHANGE).is_some();
        self.gives_up_denied() && !releases.iter().any(tells_changes)
    }

    /// Says whether the destination is not reached because nothing may go to it.
    pub(super) fn closed(&self, is_closed: bool) {
        self.status.closed(is_closed);
    }

    /// Waits after a failure. Whether to go on.
    pub(super) fn pause(&self) -> bool {
        self.ends.cut.recv_timeout(PAUSE) != Err(RecvTimeoutError::Disconnected)
    }

    pub(super) fn now(&self) -> Duration {
        (self.context.now)()
    }

    /// The moment, by both clocks.
    pub(super) fn moment(&self) -> Moment {
        Moment { now: self.now(), wall: (self.context.wall)() }
    }

    /// Remembers why the destination does not take releases. It is said at a bounded rate.
    pub(super) fn failed(&self, error: impl Into<anyhow::Error>) {
        let error = format!("{:#}", error.into());
        tracing::debug!(destination = self.name.as_str(), error, "not delivered");
        self.status.failed(self.now(), error);
    }

    /// Keeps a cell that the destination does not take.
    pub(super) fn set_aside(&self, cell: &kafka::Aside) -> Result<(), storage::Error> {
        self.context.aside.keep(&self.name, cell)
    }

    /// The destination answers as it should.
    pub(super) fn answers(&self) {
        self.status.answers();
    }

    /// So many releases were confirmed, or turned out to be there already.
    pub(super) fn delivered(&self, releases: usize) {
        self.status.delivered(releases);
    }

    /// So many releases were not sent, and never will be.
    pub(super) fn passed_over(&self, releases: usize, is_widened: bool) {
        if is_widened {
            self.status.widened(releases);
        } else if self.status.shed(releases) {
            tracing::warn!(
                destination = %self.name,
                "releases are shed: the budget of bytes of this destination does not suffice. The ledger says which"
            );
        }
    }

    /// Releases are about to leave, some of them smaller than they are.
    pub(super) fn made_smaller(&self, releases: &[Released]) {
        for released in releases {
            if let Some(whole) = released.made_smaller() {
                let left_out = whole.cells.saturating_sub(released.cells().num_rows() as u64);
                self.status.made_smaller(whole.since.is_some(), left_out);
            }
        }
    }

    /// How full the budget is, and whether releases wait for more.
    pub(super) fn budgeted(&self, level: Level, is_short: bool) {
        self.status.budgeted(level, is_short);
    }

    /// Everything through the cursor's position is confirmed, and nothing was sent for it. It goes to disk now and then: until
    /// it has, the outbox keeps what was passed. To be called again while nothing happens.
    pub(super) fn passed(&mut self) {
        let now = self.now();
        if self.is_ahead() && self.saved_at.is_none_or(|at| now.saturating_sub(at) >= SAVE_EVERY) {
            self.saved_at = Some(now);
            self.save_once();
        }
    }

    /// The thread ends: what it has passed is on disk before that, unless the disk refuses.
    pub(super) fn end(&mut self) {
        if self.is_ahead() {
            self.save_once();
        }
    }

    /// Whether more is confirmed than the cursor says on disk.
    fn is_ahead(&self) -> bool {
        self.through.load(Ordering::Acquire) < self.cursor.through
    }

    fn save_once(&mut self) {
        if let Err(error) = self.write() {
            tracing::warn!(destination = self.name.as_str(), %error, "the cursor could not be written: check the disk");
        }
    }

    /// Makes the cursor durable. Only then may the outbox let go of what it has passed: a start would miss it otherwise.
    fn write(&mut self) -> Result<(), storage::Error> {
        self.slots.write(&self.cursor.encode())?;
        self.through.store(self.cursor.through, Ordering::Release);
        Ok(())
    }

    /// Makes the cursor durable, for as long as it takes. Whether it is.
    pub(super) fn save(&mut self) -> bool {
        while let Err(error) = self.write() {
            self.failed(error);
            if !self.pause() {
                return false;
            }
        }
        true
    }

    /// Makes sure that the ledger says on disk that releases are about to leave; where they stand in the outbox.
    pub(super) fn intend(&self, releases: &[Released], outbox: Lsn) -> Result<(), anyhow::Error> {
        if planted("send-before-intent") {
            return Ok(());
        }
        // Not all at once: a file may hold very many releases, and their lines take memory.
        for releases in releases.chunks(INTENTS_TOGETHER) {
            let lines = releases.iter().map(|released| Ok(encode::parts(released, Format::JsonLines, 1)?.concat()));
            let lines = lines.collect::<Result<Vec<_>, anyhow::Error>>()?;
            let intents = releases.iter().zip(&lines).map(|(released, lines)| Intent { released, outbox, lines });
            self.context.ledger.intend(&intents.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Makes sure that the ledger says on disk that releases are not sent; where they stand in the outbox, and which datasets
    /// add up the rows of which, if that is why.
    pub(super) fn say_shed(
        &self,
        releases: &[Released],
        outbox: Lsn,
        widened: Option<&BTreeMap<DatasetName, DatasetName>>,
    ) -> Result<(), anyhow::Error> {
        Ok(self.context.ledger.shed(releases, outbox, widened)?)
    }

    /// Says that the destination has confirmed releases, which took so many bytes together.
    pub(super) fn sent(&self, releases: &[String], bytes: usize) {
        self.context.ledger.sent(&self.name, releases, bytes as u64);
    }

    /// Whether the destination has confirmed all that an entry has for it. What cannot be read may be something.
    pub(super) fn has_all(&self, lsn: Lsn, payload: &[u8]) -> bool {
        let is_for_it = |released: &&Released| *released.destination() == self.name;
        Closing::decode(payload).is_some_and(|closing| {
            let mut releases = closing.releases.iter().filter(is_for_it);
            releases.all(|released| self.cursor.has(released.dataset(), lsn))
        })
    }

    /// The releases that an entry has for the destination and that it has not confirmed. `None`: it cannot be read.
    pub(super) fn unconfirmed(&self, lsn: Lsn, payload: &[u8]) -> Option<Vec<Released>> {
        let is_waiting =
            |released: &Released| *released.destination() == self.name && !self.cursor.has(released.dataset(), lsn);
        Some(Closing::decode(payload)?.releases.into_iter().filter(is_waiting).collect())
    }

    /// The releases for this destination at a position of the outbox. None if it is not there any more.
    pub(super) fn at(&self, lsn: Lsn) -> Vec<Released> {
        let entry = self.context.outbox.reader(lsn).next().ok().flatten().filter(|entry| entry.lsn == lsn);
        entry.map(|entry| self.releases(lsn, &entry.payload)).unwrap_or_default()
    }

    /// The releases of one entry that are for this destination.
    pub(super) fn releases(&self, lsn: Lsn, payload: &[u8]) -> Vec<Released> {
        let Some(closing) = Closing::decode(payload) else {
            tracing::error!(
                destination = self.name.as_str(),
                lsn,
                "an entry of the outbox cannot be read and is not sent: stop the gateway and run `bailiwick journal \
                 verify`"
            );
            return Vec::new();
        };
        closing.releases.into_iter().filter(|released| *released.destination() == self.name).collect()
    }
}
