//! What may go to a destination now. One that the policies in force let nothing go to is neither resolved nor connected to.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::domain::name::{DatasetName, DestinationName};

/// What the policies in force say of destinations.
pub trait Permits: Send + Sync {
    /// How often other policies, or another day, came into force.
    fn changes(&self) -> u64;

    /// The datasets that they let go to a destination.
    fn let_go_to(&self, destination: &DestinationName) -> BTreeSet<DatasetName>;
}

/// The datasets that may go to a destination.
pub(super) type Allowed = Arc<BTreeSet<DatasetName>>;

/// The gate of one destination. It is asked often, and asks the policies when they have changed.
pub(super) struct Gate {
    permits: Arc<dyn Permits>,
    known: RefCell<Option<(u64, Allowed)>>,
}

impl Gate {
    pub(super) fn new(permits: Arc<dyn Permits>) -> Self {
        Self { permits, known: RefCell::new(None) }
    }

    /// The datasets that may go to the destination now. If none may, it may not be reached.
    pub(super) fn allowed(&self, destination: &DestinationName) -> Allowed {
        let changes = self.permits.changes();
        let mut known = self.known.borrow_mut();
        match &*known {
            Some((at, allowed)) if *at == changes => Arc::clone(allowed),
            _ => {
                // What comes into force meanwhile has another number.
                let allowed = Arc::new(self.permits.let_go_to(destination));
                *known = Some((changes, Arc::clone(&allowed)));
                allowed
            }
        }
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

        fn let_go_to(&self, destination: &DestinationName) -> BTreeSet<DatasetName> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let is_open = *destination == "hub" && self.changes() % 2 == 1;
            is_open.then(|| "visits".parse().unwrap()).into_iter().collect()
        }
    }

    #[test]
    fn it_follows_the_policies_and_asks_once_for_each_change() {
        let policies = Arc::new(Policies::default());
        let gate = Gate::new(Arc::<Policies>::clone(&policies));
        let hub = "hub".parse().unwrap();
        for change in 1..=4 {
            let is_open = change % 2 == 0;
            for _ in 0..3 {
                assert_eq!(gate.allowed(&hub).contains("visits"), is_open);
            }
            assert_eq!(policies.asked.load(Ordering::Relaxed), change);
            policies.changes.fetch_add(1, Ordering::Relaxed);
        }
    }
}
