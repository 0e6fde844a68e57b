//! The producers that the policies declare, by name, or by a pattern of names.

use std::collections::{BTreeMap, BTreeSet};

use super::fact::Fact;
use super::knowledge::Candidates;
use super::pattern::Pattern;

/// What is declared of a producer.
#[derive(Debug, Clone, Default)]
pub struct Producer {
    /// What it may be trusted with.
    pub roles: BTreeSet<String>,
    /// What is known of the records it sends.
    pub facts: BTreeMap<Fact, Candidates>,
}

/// What is declared of producers.
#[derive(Debug, Clone, Default)]
pub struct Producers {
    named: BTreeMap<String, Producer>,
    /// Those whose name has a star.
    open: Vec<(Pattern, Producer)>,
}

impl Producers {
    /// Adds a producer under its name. A name with a star is one for all names that are like it. Whether it is the first
    /// of its name.
    pub fn insert(&mut self, name: &str, producer: Producer) -> bool {
        match Pattern::of_names(name) {
            Ok(pattern) if pattern.is_open() => {
                let is_new = self.open.iter().all(|(known, _)| *known != pattern);
                self.open.push((pattern, producer));
                is_new
            }
            _ => self.named.insert(name.to_owned(), producer).is_none(),
        }
    }

    /// What is declared of a producer: under its very name, or under the closest pattern.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Producer> {
        self.named.get(name).or_else(|| {
            let like = self.open.iter().filter_map(|(pattern, producer)| Some((pattern.star(name)?.len(), producer)));
            like.min_by_key(|(star, _)| *star).map(|(_, producer)| producer)
        })
    }

    /// All that is declared.
    pub fn values(&self) -> impl Iterator<Item = &Producer> {
        self.named.values().chain(self.open.iter().map(|(_, producer)| producer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_itself_counts_before_patterns_and_the_closest_of_them_before_others() {
        let mut producers = Producers::default();
        for name in ["till-7", "till-*", "till-a*", "*"] {
            let producer = Producer { roles: [name.to_owned()].into(), ..Producer::default() };
            assert!(producers.insert(name, producer));
        }
        let role = |name: &str| producers.get(name).and_then(|producer| producer.roles.first()).map(String::as_str);
        assert_eq!(
            (role("till-7"), role("till-8"), role("till-a1")),
            (Some("till-7"), Some("till-*"), Some("till-a*"))
        );
        assert_eq!((role("office"), role("a/b"), role("")), (Some("*"), None, None));
        assert!(!producers.insert("till-*", Producer::default()) && !producers.insert("till-7", Producer::default()));
    }
}
