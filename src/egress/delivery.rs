//! From the outbox to the destinations: one thread per destination, each with a cursor of its own on disk. One more gives
//! the ledger what closings say besides their releases.
//!
//! A release is sent from what the outbox holds, as often as it takes, and is passed over only when its
//! destination has confirmed it and the cursor says so on disk. One destination that is away does not hold
//! up another: what waits for it waits on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use crate::domain::name::DestinationName;
use crate::egress::budget::{Budget, Forms};
use crate::egress::{file, kafka};
use crate::engine::supervision::Supervisor;
use crate::ledger::Ledger;
use crate::storage::Log;
use crate::telemetry::Telemetry;

mod aside;
mod cursor;
mod gate;
mod metered;
mod passing;
mod rationed;
mod report;
mod runner;
mod status;
mod to_files;
mod to_kafka;
mod to_ledger;

pub use aside::Place;
pub use cursor::{Confirmed, Cursor, Cursors, Error, VERSION as CURSOR_VERSION};
pub use gate::Permits;
pub use status::{Backlog, Board, Budgeted, Trouble};

use metered::Metered;
use rationed::Rationed;
use runner::{Delivery, Ends};
use status::Status;

/// One destination's sink.
pub enum Sink {
    /// Files, and what may leave in them.
    File(file::Sink, Bytes),
    /// A Kafka topic, and what may leave for it.
    Kafka(kafka::Sink, Bytes),
    /// Nothing: of a dry run. What earlier runs left for the destination waits.
    Nothing,
}

/// How many bytes may leave for a destination.
pub enum Bytes {
    /// As many as the budget has.
    Budget(Box<Budget>),
    /// Any. What an earlier budget paid for leaves in the form that was decided then.
    Any(Forms),
}

impl Bytes {
    fn budget(self) -> Option<Budget> {
        match self {
            Self::Budget(budget) => Some(*budget),
            Self::Any(_) => None,
        }
    }
}

impl Sink {
    fn budget(&self) -> Option<&Budget> {
        match self {
            Self::File(_, Bytes::Budget(budget)) | Self::Kafka(_, Bytes::Budget(budget)) => Some(budget),
            Self::File(_, Bytes::Any(_)) | Self::Kafka(_, Bytes::Any(_)) | Self::Nothing => None,
        }
    }
}

/// What a thread needs besides its sink.
#[derive(Clone)]
pub struct Context {
    /// The outbox.
    pub outbox: Arc<Log>,
    /// A monotonic clock.
    pub now: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// The wall clock, in microseconds since the Unix epoch.
    pub wall: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// What may go to a destination.
    pub permits: Arc<dyn Permits>,
    /// The destinations for which a release is shed that may not go there any more when it is its turn. For others it waits.
    pub sheds_denied: Arc<BTreeSet<DestinationName>>,
    /// The counts.
    pub telemetry: Arc<Telemetry>,
    /// What says that releases are about to leave, and that they were sent.
    pub ledger: Arc<Ledger>,
    /// Hears of a thread that panics.
    pub supervisor: Supervisor,
    /// Where cells are kept that a destination cannot take.
    pub aside: Place,
}

/// The running threads.
pub struct Deliveries {
    threads: Vec<JoinHandle<()>>,
    board: Arc<Board>,
    reporter: Option<JoinHandle<()>>,
    /// Nothing is ever sent: the threads see that the sender is gone, finish what waits, and end.
    drain: Option<Sender<()>>,
    /// As `drain`, but they end at once.
    cut: Option<Sender<()>>,
    /// As `drain`, for the reporter.
    report: Option<Sender<()>>,
}

impl Deliveries {
    /// Starts a thread per destination, and one that says how they go.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(sinks: BTreeMap<DestinationName, Sink>, cursors: Cursors, context: &Context) -> std::io::Result<Self> {
        let ((drain, drained), (cut, is_cut), (report, reporting)) = (bounded(0), bounded(0), bounded(0));
        let ends = Ends { drained, cut: is_cut };
        let noted = cursors.noted;
        let mut cursors = cursors.opened;
        cursors.retain(|name, _| sinks.contains_key(name));
        let level = |name: &DestinationName| sinks.get(name).and_then(Sink::budget).map(Budget::level);
        let is_sent_to = |name: &DestinationName| !matches!(sinks.get(name), None | Some(Sink::Nothing));
        let started = cursors.iter().filter(|(name, _)| is_sent_to(name));
        let started: Vec<_> =
            started.map(|(name, opened)| (name.clone(), opened.cursor.clone(), level(name))).collect();
        let board = Arc::new(Board::new(&context.outbox, context.aside.clone(), &started, (context.now)()));
        // What waits is known before anybody asks.
        if let Err(error) = board.look((context.now)()) {
            tracing::warn!(%error, "what waits in the outbox could not be counted: check the disk");
        }
        let mut threads = Vec::new();
        let (of_ledger, ends_of_ledger) = (context.clone(), ends.clone());
        threads.push(context.supervisor.spawn("to-ledger", move || {
            to_ledger::run(&of_ledger, &noted, &ends_of_ledger);
        })?);
        for (name, sink) in sinks {
            let Some(opened) = cursors.remove(&name) else { continue };
            let cells = context.aside.count(&name);
            if cells > 0 {
                let (destination, directory) = (name.as_str(), context.aside.directory.join(name.as_str()));
                tracing::warn!(
                    destination, cells, directory = %directory.display(),
                    "cells that the destination did not take are set aside: send what the files hold yourself, and remove \
                     them"
                );
            }
            let thread = format!("to-{name}");
            let status = board.status(&name);
            let guard = Guard { status: Arc::clone(&status), now: Arc::clone(&context.now) };
            let delivery = Delivery::new(name, opened, status, context.clone(), ends.clone());
            threads.push(context.supervisor.spawn(&thread, move || {
                let _guard = guard;
                run(delivery, sink);
            })?);
        }
        let (shown, now) = (Arc::clone(&board), Arc::clone(&context.now));
        let reporter = context.supervisor.spawn("deliveries", move || report::run(&shown, &*now, &reporting))?;
        let (drain, cut, report) = (Some(drain), Some(cut), Some(report));
        Ok(Self { threads, board, reporter: Some(reporter), drain, cut, report })
    }

    /// Sends what the outbox holds, and ends.
    pub fn finish(&mut self) {
        self.drain = None;
        for thread in self.threads.drain(..) {
            // One that panicked has told the supervisor.
            let _ = thread.join();
        }
        self.report = None;
        if let Some(thread) = self.reporter.take() {
            let _ = thread.join();
        }
    }

    /// What ends the threads at once, when it is dropped: what was not sent stays in the outbox.
    pub fn cut(&mut self) -> Option<Sender<()>> {
        self.cut.take()
    }

    /// What waits for each destination.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }
}

fn run(mut delivery: Delivery, sink: Sink) {
    if let Sink::File(_, Bytes::Any(forms)) | Sink::Kafka(_, Bytes::Any(forms)) = &sink {
        delivery.forms = forms.clone();
    }
    let opened = |bytes: Bytes| {
        let mut budget = bytes.budget();
        budget.iter_mut().for_each(|budget| budget.recall(&|lsn| delivery.at(lsn)));
        budget
    };
    match sink {
        Sink::File(sink, bytes) => {
            let rationed = opened(bytes).map(Rationed::new);
            to_files::run(&mut delivery, sink, rationed);
        }
        Sink::Kafka(sink, bytes) => {
            let behind = delivery.context.outbox.reader(delivery.cursor.through + 1);
            let metered = opened(bytes).map(|budget| Metered::new(budget, &delivery.name, behind));
            to_kafka::run(&mut delivery, sink, metered);
        }
        Sink::Nothing => passing::run(&mut delivery),
    }
    delivery.end();
    tracing::debug!(destination = delivery.name.as_str(), "delivery ended");
}

/// Remembers why nothing is delivered any more when a thread panics, for the stop that follows.
struct Guard {
    status: Arc<Status>,
    now: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.status.failed((self.now)(), "its thread panicked".to_owned());
        }
    }
}
