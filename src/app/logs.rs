//! The logs on disk that a gateway fills while it works, each with its name in metrics and messages. The ledger has its own.

use std::sync::Arc;

use crate::engine::counting::Counting;
use crate::engine::noising::Noising;
use crate::storage::{Log, State};

use super::{counting, noising};

/// The logs.
#[derive(Clone)]
pub(super) struct Logs {
    pub(super) journal: Arc<Log>,
    pub(super) outbox: Arc<Log>,
    /// Its log is there where counters of laws are kept.
    pub(super) counting: Arc<Counting>,
    /// Its log is there where datasets have differential privacy, or had.
    pub(super) noising: Arc<Noising>,
}

impl Logs {
    /// Those that every gateway has.
    pub(super) fn always(&self) -> [(&'static str, &Log); 2] {
        [("journal", &self.journal), ("outbox", &self.outbox)]
    }

    /// Which of them cannot be written, and why.
    pub(super) fn unwritten(&self) -> Vec<String> {
        let failing = self.always().into_iter().filter_map(|(name, log)| match log.state() {
            State::Failing { message } => Some(format!("the {name} cannot be written: {message}")),
            _ => None,
        });
        failing.collect()
    }

    /// All of them, always in this order.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, &Log)> {
        let counting = self.counting.log().map(|log| (counting::LOG, log));
        let noising = self.noising.log().map(|log| (noising::LOG, log));
        self.always().into_iter().chain(counting).chain(noising)
    }

    /// Closes them, when nobody uses them any more.
    pub(super) fn close(&self) {
        self.journal.close();
        self.outbox.close();
        self.counting.close();
        self.noising.close();
    }
}
