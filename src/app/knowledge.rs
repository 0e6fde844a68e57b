//! What is known beside the records: read from the files that the configuration names.

use crate::config::Config;
use crate::domain::evidence::Knowledge;
use crate::domain::policy::PolicySet;

pub(super) fn load(config: &Config) -> anyhow::Result<Knowledge> {
    let _ = config;
    Ok(Knowledge::default())
}

/// The same knowledge as another set of policies sees it.
pub(super) fn of(policy: &PolicySet, knowledge: &Knowledge) -> Knowledge {
    Knowledge {
        producers: std::sync::Arc::clone(&policy.producers),
        disputed: std::sync::Arc::clone(&policy.disputed),
        ..knowledge.clone()
    }
}
