//! Releases with noise: what they cost is on disk first, then noise is drawn, once, then the outbox takes them.

use std::sync::{Arc, Mutex, PoisonError};

use super::noise::OpenDp;
use crate::domain::name::StreamName;
use crate::domain::policy::{ClosedWindow, Digest, Outcome, Outlet, release_noised};
use crate::domain::privacy::{Charge, Day, Noise, Privacy, Rho, Spending, WindowKey};
use crate::domain::window::window_start;
use crate::durable::spending::{Book, Outcome as OfCharge};
use crate::storage::{Log, NoRoom};

/// What comes of a closed window.
pub(super) enum Noised {
    /// It was charged, and this may leave.
    Released(Outcome),
    /// The budget of its day is spent: nothing leaves.
    Spent,
    /// It was charged before a crash, and did not get into the outbox: nothing leaves.
    Lost,
    /// It cannot be released: nothing leaves.
    Failed(String),
}

/// Where windows of datasets with differential privacy are paid for.
pub struct Noising {
    inner: Mutex<Inner>,
    /// What charges are written to. A window that is being charged does not keep others from looking at it.
    log: Option<Arc<Log>>,
    /// What is spent, for those who only look.
    spent: Mutex<Spending>,
}

struct Inner {
    /// `None`: no dataset asks for it.
    book: Option<Book>,
    noise: Box<dyn Noise + Send>,
}

impl Noising {
    /// With these budgets.
    #[must_use]
    pub fn new(book: Option<Book>) -> Self {
        Self::with_noise(book, Box::new(OpenDp))
    }

    fn with_noise(book: Option<Book>, noise: Box<dyn Noise + Send>) -> Self {
        let spent = book.as_ref().map_or_else(Spending::default, |book| book.spending().clone());
        let log = book.as_ref().map(|book| Arc::clone(book.log()));
        Self { inner: Mutex::new(Inner { book, noise }), log, spent: Mutex::new(spent) }
    }

    /// The log of what is spent. `None`: no dataset asks for it.
    #[must_use]
    pub fn log(&self) -> Option<&Log> {
        self.log.as_deref()
    }

    /// Whether no window can be charged for lack of space.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.log().is_some_and(|log| log.reserve(0).is_err_and(|why| why == NoRoom::Full))
    }

    /// Writes what was charged, and ends.
    pub fn close(&self) {
        if let Some(log) = self.log() {
            log.close();
        }
    }

    /// Releases a window whose closing is on disk.
    pub(super) fn release(
        &self,
        closed: &ClosedWindow<'_>,
        outlets: &[Outlet],
        privacy: Privacy,
        policy: Digest,
    ) -> Noised {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { book, noise } = &mut *inner;
        let Some(book) = book else { return Noised::Failed("no budget was opened at the start".to_owned()) };
        let charge = charge(closed, privacy.per_window);
        match book.charge(charge.clone(), privacy.per_day) {
            Ok(OfCharge::Charged(charged)) => {
                self.spent.lock().unwrap_or_else(PoisonError::into_inner).charge(charge);
                match release_noised(closed, outlets, policy, privacy, charged, &mut **noise) {
                    Ok(outcome) => Noised::Released(outcome),
                    Err(error) => Noised::Failed(error.to_string()),
                }
            }
            Ok(OfCharge::Spent) => Noised::Spent,
            Ok(OfCharge::Before) => Noised::Lost,
            Err(error) => Noised::Failed(error.to_string()),
        }
    }

    /// What is spent of a stream's contributors on a day. `None`: that is not known, and nothing is left. Does not wait for a
    /// window that is being charged.
    #[must_use]
    pub fn spent(&self, stream: &StreamName, contributor: &str, day: Day) -> Option<Rho> {
        let spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.unknown_through().is_some_and(|through| day <= through) {
            return None;
        }
        Some(spent.spent(stream, contributor, day))
    }
}

/// What a window costs.
fn charge(closed: &ClosedWindow<'_>, rho: Rho) -> Charge {
    let dataset = closed.dataset;
    let start = window_start(closed.window, dataset.window);
    Charge {
        stream: dataset.stream.clone(),
        contributor: dataset.contributor.clone(),
        window: WindowKey { dataset: dataset.name.clone(), start, part: closed.part },
        rho,
    }
}

#[cfg(test)]
mod tests;
