//! What is known beside the records: read from the files that the configuration names.

use std::sync::Arc;

use crate::config::Config;
use crate::domain::evidence::Knowledge;
use crate::domain::policy::PolicySet;

/// The files that knowledge was read from.
pub(super) struct Files;

impl Files {
    pub(super) fn of(config: &Config) -> Self {
        let _ = config;
        Self
    }

    pub(super) fn refresh(&mut self, policy: &PolicySet, knowledge: &Knowledge) -> anyhow::Result<Option<Knowledge>> {
        let _ = (policy, knowledge);
        Ok(None)
    }
}

pub(super) fn load(config: &Config) -> anyhow::Result<Knowledge> {
    let _ = config;
    Ok(of(&config.policy, &Knowledge::default()))
}

/// The same knowledge as another set of policies sees it.
pub(super) fn of(policy: &PolicySet, knowledge: &Knowledge) -> Knowledge {
    Knowledge { producers: Arc::clone(&policy.producers), disputed: Arc::clone(&policy.disputed), ..knowledge.clone() }
}
