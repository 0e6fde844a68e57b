//! What is known beside the records: read from the files that the configuration names, and again when one of them is
//! replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use crate::config::{Config, GeoIp, today};
use crate::domain::document::{Place, Problems};
use crate::domain::evidence::{Knowledge, Source};
use crate::domain::policy::{PolicySet, Version};
use crate::domain::pseudonym::Pseudonyms;
use crate::files::Fingerprint;
use crate::knowledge::geoip::Databases;
use crate::knowledge::places::Boundaries;
use crate::knowledge::registry::{self, Columns};

/// What is known, as the policies in force and those in the shadow see it.
pub(super) struct Known {
    pub(super) in_force: Knowledge,
    pub(super) in_shadow: Option<Knowledge>,
}

impl Known {
    /// The versions that the policies of a configuration come to today: in force, and in the shadow.
    pub(super) fn compile(self, config: &Config) -> (Version, Option<Version>) {
        let (here, day) = (|| Arc::clone(&config.here), today());
        let shadow = config.shadow.as_ref().zip(self.in_shadow);
        let shadow = shadow.map(|(policy, known)| Version::compile(Arc::clone(policy), here(), known, day));
        (Version::compile(Arc::clone(&config.policy), here(), self.in_force, day), shadow)
    }
}

/// What is wrong with the registries and the databases that a configuration names. Each is read whole, as at a start.
pub(super) fn check(config: &Config, problems: &Problems) {
    let say = |place: Option<&Place>, error: anyhow::Error| {
        problems.error(place.unwrap_or(&config.places.gateway), format!("{error:#}"));
    };
    if let Some(GeoIp { databases, agree }) = &config.geoip
        && let Err(error) = Databases::load(databases, *agree)
    {
        say(config.places.geoip.as_ref(), anyhow::Error::from(error));
    }
    for (name, path) in &config.registries {
        let shapes = [Some(&config.policy), config.shadow.as_ref()].into_iter().flatten();
        // A registry is read once where both sets of policies declare it alike.
        let columns: BTreeSet<Columns> = shapes.filter_map(|policy| columns(policy, name)).collect();
        for columns in columns {
            if let Err(error) = registry::load(path, &columns) {
                say(
                    config.places.registries.get(name),
                    anyhow::Error::from(error).context(format!("registry `{name}`")),
                );
                break;
            }
        }
    }
}

/// How a set of policies reads a registry, if it declares it.
fn columns(policy: &PolicySet, name: &str) -> Option<Columns> {
    let shape = policy.registries.get(name)?;
    Some(Columns { key: shape.key.clone(), facts: shape.facts.clone(), codes: Arc::clone(&policy.codes) })
}

/// The files that knowledge was read from, as they were then.
pub(super) struct Files {
    registries: BTreeMap<String, PathBuf>,
    geoip: Option<GeoIp>,
    read: BTreeMap<PathBuf, Fingerprint>,
    /// What a refresh found that failed: it is not tried again until it changes.
    failed: BTreeMap<PathBuf, Option<Fingerprint>>,
}

impl Files {
    /// Reads what the configuration names. What was known of pseudonyms goes on.
    pub(super) fn load(config: &Config, before: Option<&Knowledge>) -> anyhow::Result<(Self, Known)> {
        let (registries, geoip) = (config.registries.clone(), config.geoip.clone());
        let mut files = Self { registries, geoip, read: BTreeMap::new(), failed: BTreeMap::new() };
        let pseudonyms = match before.and_then(|before| before.pseudonyms.clone()) {
            Some(pseudonyms) => pseudonyms,
            None => {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed).context("the system gives no random numbers")?;
                Arc::new(Pseudonyms::new(seed))
            }
        };
        let known = Knowledge { pseudonyms: Some(pseudonyms), ..Knowledge::default() };
        let knowledge = files.read(&config.policy, config.shadow.as_deref(), &known)?;
        Ok((files, knowledge))
    }

    /// Reads everything again if a file is not what it was. `None` when all are.
    pub(super) fn refresh(
        &mut self,
        policy: &PolicySet,
        shadow: Option<&PolicySet>,
        known: &Knowledge,
    ) -> anyhow::Result<Option<Known>> {
        let paths = self.registries.values().chain(self.geoip.iter().flat_map(|geoip| &geoip.databases));
        let now: BTreeMap<PathBuf, Option<Fingerprint>> =
            paths.map(|path| (path.clone(), Fingerprint::of(path).ok())).collect();
        let is_read = now.iter().all(|(path, print)| print.as_ref() == self.read.get(path));
        if is_read || now == self.failed {
            return Ok(None);
        }
        let knowledge = self.read(policy, shadow, known);
        self.failed = if knowledge.is_err() { now } else { BTreeMap::new() };
        knowledge.map(Some)
    }

    fn read(&mut self, policy: &PolicySet, shadow: Option<&PolicySet>, known: &Knowledge) -> anyhow::Result<Known> {
        let mut read = BTreeMap::new();
        let mut addresses = None;
        if let Some(GeoIp { databases, agree }) = &self.geoip {
            let (loaded, prints) = Databases::load(databases, *agree).context("databases of network addresses")?;
            read.extend(databases.iter().cloned().zip(prints));
            addresses = Some(Arc::new(loaded) as _);
        }
        let known = Knowledge { addresses, ..known.clone() };
        let in_force = self.of(policy, &known, &mut read)?;
        let in_shadow = shadow.map(|shadow| self.of(shadow, &known, &mut read)).transpose()?;
        self.read = read;
        Ok(Known { in_force, in_shadow })
    }

    /// What a set of policies knows: each reads the registries by its own declaration.
    fn of(
        &self,
        policy: &PolicySet,
        known: &Knowledge,
        read: &mut BTreeMap<PathBuf, Fingerprint>,
    ) -> anyhow::Result<Knowledge> {
        let mut registries = BTreeMap::new();
        for (name, path) in &self.registries {
            let Some(columns) = columns(policy, name) else { continue };
            let (registry, print) = registry::load(path, &columns).with_context(|| format!("registry `{name}`"))?;
            tracing::info!(registry = name, keys = registry.len(), "read");
            registries.insert(name.clone(), Arc::new(registry));
            read.insert(path.clone(), print);
        }
        let uses_places = policy.streams.values().flat_map(|plan| &plan.evidence);
        let uses_places = uses_places.into_iter().any(|evidence| matches!(evidence.source, Source::Position { .. }));
        let places = match uses_places {
            true => Some(Boundaries::shared().context("the borders of countries")? as _),
            false => None,
        };
        let (producers, disputed) = (Arc::clone(&policy.producers), Arc::clone(&policy.disputed));
        let codes = Arc::clone(&policy.codes);
        Ok(Knowledge { producers, registries, places, disputed, codes, ..known.clone() })
    }
}
