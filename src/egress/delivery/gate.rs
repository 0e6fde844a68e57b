//! Whether a destination may be reached at all. One that the policies in force let nothing go to is neither resolved nor
//! connected to.

use std::cell::Cell;
use std::sync::Arc;

/// What the policies in force say of destinations.
pub trait Permits: Send + Sync {
    /// How often other policies, or another day, came into force.
    fn changes(&self) -> u64;

    /// Whether they let any dataset go to a destination.
    fn lets_any_go_to(&self, destination: &str) -> bool;
}

/// The gate of one destination. It is asked often, and asks the policies when they have changed.
pub(super) struct Gate {
    permits: Arc<dyn Permits>,
    known: Cell<Option<(u64, bool)>>,
}

impl Gate {
    pub(super) fn new(permits: Arc<dyn Permits>) -> Self {
        Self { permits, known: Cell::new(None) }
    }

    /// Whether the destination may be reached now.
    pub(super) fn is_open(&self, destination: &str) -> bool {
        let changes = self.permits.changes();
        if let Some((at, is_open)) = self.known.get()
            && at == changes
        {
            return is_open;
        }
        // What comes into force meanwhile has another number.
        let is_open = self.permits.lets_any_go_to(destination);
        self.known.set(Some((changes, is_open)));
        is_open
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Policies that let something go to `hub` after every other change.
    #[derive(Default)]
    struct Policies {
        changes: AtomicU64,
        asked: AtomicU64,
    }

    impl Permits for Policies {
        fn changes(&self) -> u64 {
            self.changes.load(Ordering::Relaxed)
        }

        fn lets_any_go_to(&self, destination: &str) -> bool {
            self.asked.fetch_add(1, Ordering::Relaxed);
            destination == "hub" && self.changes() % 2 == 1
        }
    }

    #[test]
    fn it_follows_the_policies_and_asks_once_for_each_change() {
        let policies = Arc::new(Policies::default());
        let gate = Gate::new(Arc::<Policies>::clone(&policies));
        for change in 1..=4 {
            let is_open = change % 2 == 0;
            for _ in 0..3 {
                assert_eq!(gate.is_open("hub"), is_open);
            }
            assert_eq!(policies.asked.load(Ordering::Relaxed), change);
            policies.changes.fetch_add(1, Ordering::Relaxed);
        }
    }
}
