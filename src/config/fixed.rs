//! What a running gateway was built for: the parts of `gateway.toml` that a reload cannot put in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::durable::seal::Keys;

use super::Config;

/// The parts of a configuration that need a restart.
pub struct Fixed {
    /// What each part says. It is only ever compared.
    parts: BTreeMap<String, String>,
    keys: Arc<Keys>,
}

impl Fixed {
    /// Those of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let Config { limits, journal, .. } = config;
        let mut parts = BTreeMap::new();
        let mut part = |name: &str, says: String| parts.insert(name.to_owned(), says);
        part("`id` of [gateway]", config.id.to_string());
        part("`serves` of [gateway]", config.here.serves.join(" "));
        part("`mode` of [gateway]", format!("{:?}", config.mode));
        part("`stop_within` of [gateway]", format!("{:?}", config.stop_within));
        part("`on_stop` of [gateway]", format!("{:?}", config.on_stop));
        part("`grpc` of [listen]", config.listen.to_string());
        part("[http]", format!("{:?}", config.http));
        part("[tls]", format!("{:?} {:?}", config.tls, config.tls_connections));
        part("`connections_max` of [listen]", config.connections_max.to_string());
        part("[limits]", format!("{limits:?}"));
        part("`workers` of [scoring]", config.workers.to_string());
        part("`rows_together_max` of [scoring]", config.scored_together_max.to_string());
        part("`deadline` of [scoring]", format!("{:?}", config.scoring_deadline));
        part("`onnxruntime` of [scoring]", format!("{:?}", config.onnxruntime));
        part("`directory` of [journal]", journal.directory.display().to_string());
        part("`segment_bytes` of [journal]", journal.segment_bytes.to_string());
        part("`quota_bytes` of [journal]", journal.quota_bytes.to_string());
        part(
            "the checkpoints of [journal]",
            format!("{:?} {:?}", journal.checkpoints.bytes, journal.checkpoints.every),
        );
        part("[ledger]", format!("{:?}", config.ledger));
        part("`every` of [log]", format!("{:?}", config.log_every));
        for (name, path) in &config.models {
            part(&format!("the file of model `{name}`"), path.display().to_string());
        }
        for (name, destination) in &config.destinations {
            part(&format!("destination `{name}`"), format!("{destination:?}"));
        }
        part("`when_denied` of destinations", format!("{:?}", config.sheds_denied));
        for (name, budget) in &config.budgets {
            part(&format!("the budget of destination `{name}`"), format!("{budget:?}"));
        }
        Self { parts, keys: Arc::clone(&journal.keys) }
    }

    /// The names of the parts that are not the same in another configuration.
    #[must_use]
    pub fn changed(&self, other: &Self) -> Vec<String> {
        let all = self.parts.keys().chain(other.parts.keys());
        let mut changed: Vec<String> =
            all.filter(|name| self.parts.get(*name) != other.parts.get(*name)).cloned().collect();
        if !self.keys.are(&other.keys) {
            changed.push("[journal.keys]".to_owned());
        }
        changed.sort();
        changed.dedup();
        changed
    }
}
