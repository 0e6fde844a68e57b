//! The logs on disk that a gateway fills while it works, each with its name in metrics and messages. The ledger has its own.

use std::sync::Arc;

use crate::engine::counting::Counting;
use crate::storage::{Log, State};

use super::counting;

/// The logs.
#[derive(Clone)]
pub(super) struct Logs {
    pub(super) journal: Arc<Log>,
    pub(super) outbox: Arc<Log>,
    /// Its log is there where counters of laws are kept.
    pub(super) counting: Arc<Counting>,
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
        self.always().into_iter().chain(self.counting.log().map(|log| (counting::LOG, log)))
    }

    /// Closes them, when nobody uses them any more.
    pub(super) fn close(&self) {
        self.journal.close();
        self.outbox.close();
        self.counting.close();
    }
}
