//! Room for entries: what is promised to one of them.

use std::sync::Arc;

use super::frame::entry_cost;
use super::shared::Shared;

/// Room for one entry. It is given back when dropped.
#[must_use = "room that is dropped is given back"]
pub struct Room {
    shared: Arc<Shared>,
    bytes: u64,
    is_spent: bool,
}

impl Room {
    pub(super) fn new(shared: Arc<Shared>, bytes: u64) -> Self {
        Self { shared, bytes, is_spent: false }
    }

    /// The largest payload it is for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the writer gives back in its place, when the entry is durable.
    pub(super) fn spend(mut self) -> u64 {
        self.is_spent = true;
        entry_cost(self.bytes)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if !self.is_spent {
            self.shared.inner().promises.give_back(entry_cost(self.bytes));
        }
    }
}
