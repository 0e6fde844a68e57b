//! How many things, such as producers, came from each proved identity.

use std::collections::HashMap;
use std::sync::Arc;

/// A count for each identity.
#[derive(Debug, Default, Clone)]
pub struct Identities {
    counts: HashMap<Arc<str>, usize>,
}

impl Identities {
    /// How many came from an identity.
    #[must_use]
    pub fn count(&self, identity: &str) -> usize {
        self.counts.get(identity).copied().unwrap_or(0)
    }

    /// One more came. The identity, which all that came from it share.
    pub fn add(&mut self, identity: &str) -> Arc<str> {
        let known = self.counts.get_key_value(identity).map(|(known, _)| Arc::clone(known));
        let identity = known.unwrap_or_else(|| identity.into());
        *self.counts.entry(Arc::clone(&identity)).or_default() += 1;
        identity
    }

    /// One of those that came is gone.
    pub fn remove(&mut self, identity: &str) {
        let Some(count) = self.counts.get_mut(identity) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.counts.remove(identity);
        }
    }

    /// Gives back memory that is not needed any more.
    pub fn shrink(&mut self) {
        self.counts.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_an_identity_are_counted_under_one_name() {
        let mut identities = Identities::default();
        let (one, again) = (identities.add("till"), identities.add("till"));
        assert!(Arc::ptr_eq(&one, &again));
        identities.add("office");
        assert_eq!([identities.count("till"), identities.count("office"), identities.count("roof")], [2, 1, 0]);
        identities.remove("till");
        identities.remove("roof");
        assert_eq!(identities.count("till"), 1);
        identities.remove("till");
        assert_eq!((identities.count("till"), identities.counts.len()), (0, 1));
    }
}
