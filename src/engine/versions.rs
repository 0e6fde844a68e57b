//! The versions of the policies: the one in force, those that records in open windows were decided under, and the one
//! that is tried in the shadow.
//!
//! A version is replaced whole. A batch is decided under exactly one; a window is released under all that its records
//! were decided under and the one in force, so that the strictest governs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::civil::Date;

use crate::domain::dataset::Dataset;
use crate::domain::name::{DatasetName, DestinationName, StreamName};
use crate::domain::policy::{Digest, Granted, Here, Known, Outlet, PolicySet, Version, strictest};

/// All versions.
pub struct Versions {
    inner: RwLock<Inner>,
    /// How often another version was put in force. It tells whether what was looked up is still true, without the lock.
    changes: AtomicU64,
}

struct Inner {
    current: Arc<Version>,
    shadow: Option<Arc<Version>>,
    /// Every version that was in force, the present one included, each with all regimes that were served under it.
    known: Known,
}

fn kept(version: &Version) -> (Arc<PolicySet>, Arc<Here>) {
    (Arc::clone(&version.policy), Arc::clone(&version.here))
}

impl Inner {
    fn put(&mut self, version: Version) {
        self.known.entry(version.digest()).or_insert_with(|| kept(&version));
        self.current = Arc::new(version);
    }
}

impl Versions {
    /// Begins with a version and the one in its shadow, and with what was in force before.
    #[must_use]
    pub fn new(current: Version, shadow: Option<Version>, before: Known) -> Self {
        let mut known = before;
        known.entry(current.digest()).or_insert_with(|| kept(&current));
        Self {
            inner: RwLock::new(Inner { current: Arc::new(current), shadow: shadow.map(Arc::new), known }),
            changes: AtomicU64::new(0),
        }
    }

    /// The version in force.
    #[must_use]
    pub fn current(&self) -> Arc<Version> {
        Arc::clone(&self.read().current)
    }

    /// How often another version was put in force.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// What an identity may do under the version in force, and how often another one was put in force before.
    #[must_use]
    pub fn granted(&self, identity: &str) -> (u64, Granted) {
        let inner = self.read();
        (self.changes(), inner.current.policy.access.of(identity))
    }

    /// The version in the shadow.
    #[must_use]
    pub fn shadow(&self) -> Option<Arc<Version>> {
        self.read().shadow.clone()
    }

    /// The version in force, and the one in the shadow.
    #[must_use]
    pub fn both(&self) -> (Arc<Version>, Option<Arc<Version>>) {
        let inner = self.read();
        (Arc::clone(&inner.current), inner.shadow.clone())
    }

    /// Puts another version in force, and one in its shadow or none. Their day is not before that of what they replace:
    /// turning the clock back allows nothing again that has ended.
    pub fn replace(&self, current: Version, shadow: Option<Version>) {
        let mut inner = self.write();
        let day = inner.current.day;
        let not_before = |version: Version| if version.day < day { version.on(day) } else { version };
        inner.put(not_before(current));
        self.changes.fetch_add(1, Ordering::Release);
        inner.shadow = shadow.map(|shadow| Arc::new(not_before(shadow)));
    }

    /// Makes the versions those of a day, if it is later than theirs.
    pub fn advance(&self, day: Date) {
        if self.current().day >= day {
            return;
        }
        // Under one lock: what a reload puts in force in between must stay.
        let mut inner = self.write();
        if inner.current.day < day {
            let next = inner.current.on(day);
            inner.put(next);
            self.changes.fetch_add(1, Ordering::Release);
            inner.shadow = inner.shadow.as_ref().map(|shadow| Arc::new(shadow.on(day)));
        }
    }

    /// Where a window may go whose records were decided under these policies, for each dataset that is released of it: what
    /// all of them and the one in force, which is named, allow. `Err` is one that is not known any more: then nothing may
    /// leave.
    pub fn outlets(
        &self,
        counted: &Dataset,
        decided_under: &BTreeSet<Digest>,
    ) -> (Digest, Result<Vec<Outlet>, Digest>) {
        let inner = self.read();
        let (day, in_force) = (inner.current.day, inner.current.digest());
        let mut outlets = Vec::new();
        for Dataset { name, .. } in counted.released_as() {
            let mut of_all = vec![inner.current.policy.outlets(name, &inner.current.here.serves, day)];
            for digest in decided_under {
                let Some((policy, here)) = inner.known.get(digest) else { return (in_force, Err(*digest)) };
                of_all.push(policy.outlets_before(name, &here.serves, day));
            }
            outlets.extend(strictest(of_all));
        }
        (in_force, Ok(outlets))
    }

    /// For how many windows cells of a dataset waited under these policies. `None`: they are not known any more, or do not
    /// have it.
    #[must_use]
    pub fn max_defer(&self, dataset: &DatasetName, policies: Digest) -> Option<u64> {
        let inner = self.read();
        let (policy, _) = inner.known.get(&policies)?;
        policy.dataset(dataset).map(|(_, dataset)| dataset.max_defer)
    }

    /// The datasets that the version in force lets go to a destination.
    #[must_use]
    pub fn let_go_to(&self, destination: &DestinationName) -> BTreeSet<DatasetName> {
        let current = self.current();
        current.policy.let_go_to(destination, &current.here.serves, current.day)
    }

    /// Whether it matters, under the version in force, who brings the contributors of a stream.
    #[must_use]
    pub fn asks_for_producers(&self, stream: &StreamName) -> bool {
        self.read().current.asks_for_producers(stream)
    }

    /// Where the version in the shadow would let a dataset go.
    #[must_use]
    pub fn outlets_in_shadow(&self, dataset: &DatasetName) -> Option<Vec<Outlet>> {
        let inner = self.read();
        let shadow = inner.shadow.as_ref()?;
        Some(shadow.policy.outlets(dataset, &shadow.here.serves, inner.current.day))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}
