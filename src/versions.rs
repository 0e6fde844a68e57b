//! The versions of the policies: the one in force, those that records in open windows were decided under, and the one
//! that is tried in the shadow.
//!
//! A version is replaced whole. A batch is decided under exactly one; a window is released under all that its records
//! were decided under and the one in force, so that the strictest governs.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::civil::Date;

use crate::domain::evidence::Knowledge;
use crate::domain::policy::{Digest, Here, Known, Outlet, PolicySet, Version, strictest};

/// All versions.
pub struct Versions {
    inner: RwLock<Inner>,
}

struct Inner {
    current: Arc<Version>,
    shadow: Option<Arc<Version>>,
    /// Every version that was in force, the present one included, each with all regimes that were served under it.
    known: Known,
}

impl Versions {
    /// Begins with a version, and with what was in force before.
    #[must_use]
    pub fn new(current: Version, before: Known) -> Self {
        let mut known = before;
        known.entry(current.digest()).or_insert_with(|| (Arc::clone(&current.policy), Arc::clone(&current.here)));
        Self { inner: RwLock::new(Inner { current: Arc::new(current), shadow: None, known }) }
    }

    /// The version in force.
    #[must_use]
    pub fn current(&self) -> Arc<Version> {
        Arc::clone(&self.read().current)
    }

    /// The version in force, and the one in the shadow.
    #[must_use]
    pub fn both(&self) -> (Arc<Version>, Option<Arc<Version>>) {
        let inner = self.read();
        (Arc::clone(&inner.current), inner.shadow.clone())
    }

    /// Puts another version in force. Its day is not before that of the one it replaces: turning the clock back
    /// allows nothing again that has ended.
    pub fn replace(&self, policy: Arc<PolicySet>, here: Arc<Here>, knowledge: Knowledge, day: Date) {
        let day = day.max(self.current().day);
        let version = Arc::new(Version::compile(Arc::clone(&policy), Arc::clone(&here), knowledge, day));
        let mut inner = self.write();
        inner.known.entry(version.digest()).or_insert((policy, here));
        inner.current = version;
    }

    /// Tries a version in the shadow of the one in force; `None` ends it.
    pub fn shadow(&self, shadow: Option<Version>) {
        self.write().shadow = shadow.map(Arc::new);
    }

    /// Makes the versions those of a day, if it is later than theirs.
    pub fn advance(&self, day: Date) {
        let (current, shadow) = self.both();
        if day > current.day {
            self.replace(Arc::clone(&current.policy), Arc::clone(&current.here), current.knowledge.clone(), day);
        }
        if let Some(shadow) = shadow.filter(|shadow| day > shadow.day) {
            let (policy, here) = (Arc::clone(&shadow.policy), Arc::clone(&shadow.here));
            self.shadow(Some(Version::compile(policy, here, shadow.knowledge.clone(), day)));
        }
    }

    /// Where a window of a dataset may go whose records were decided under these policies: what all of them and the one
    /// in force allow. `Err` is one that is not known any more: then nothing may leave.
    ///
    /// # Errors
    /// The digest of that one.
    pub fn outlets(&self, dataset: &str, decided_under: &BTreeSet<Digest>) -> Result<Vec<Outlet>, Digest> {
        let inner = self.read();
        let day = inner.current.day;
        let mut of_all = vec![inner.current.policy.outlets(dataset, &inner.current.here.serves, day)];
        for digest in decided_under {
            let (policy, here) = inner.known.get(digest).ok_or(*digest)?;
            of_all.push(policy.outlets(dataset, &here.serves, day));
        }
        Ok(strictest(of_all))
    }

    /// Where the version in the shadow would let a dataset go.
    #[must_use]
    pub fn outlets_in_shadow(&self, dataset: &str) -> Option<Vec<Outlet>> {
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
