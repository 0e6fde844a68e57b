//! The ledger of a gateway: its key is checked with everything else that is declared, a thread keeps it, and what happens
//! to the gateway is noted in it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use crate::clock::{Clock, wall_clock};
use crate::config::{Config, Mode};
use crate::domain::document::{Place, Problems};
use crate::domain::policy::Digest;
use crate::engine::supervision::Supervisor;
use crate::files;
use crate::ledger::entry::What;
use crate::ledger::note::Signer;
use crate::ledger::{Clocks, Files, KEY_LOST, Ledger, Outbox, Settings, in_full};
use crate::storage::RealFileSystem;

use super::losses::Damaged;
use super::state::State;
use super::witnesses::Witnesses;

/// The largest file with a key.
const KEY_BYTES_MAX: u64 = 16 << 10;

/// What is wrong with the key. That there is none yet is right: it is made. A key that is lost or damaged keeps nothing from
/// starting: without it nothing leaves, and all else goes on.
pub(super) fn check(config: &Config, problems: &Problems) {
    let (settings, place) = (settings(config), &config.places.ledger);
    let path = &settings.key;
    let shown = path.display();
    let lost = |why: String| {
        let message = format!("the ledger's key {shown} {why}: nothing leaves without it");
        problems.warn(&Place::of_file(&shown.to_string()), message, KEY_LOST);
    };
    if !path.exists() {
        let files = Files::new(Arc::new(RealFileSystem), &settings.directory);
        // The start says what cannot be read of the ledger itself.
        if settings.seen.exists() || files.is_there().unwrap_or(false) {
            lost("is missing".to_owned());
        }
        return;
    }
    let read = files::open(path).and_then(|(_, metadata)| Ok((files::read(path, KEY_BYTES_MAX)?.0, metadata.mode())));
    match read {
        Err(error) => lost(format!("cannot be read: {:#}", anyhow::Error::from(error))),
        Ok((_, mode)) if mode & 0o007 != 0 => {
            let mode = mode & 0o7777;
            let message =
                format!("the ledger's key {shown} has mode {mode:04o}: everybody on this machine can read it");
            let help =
                format!("chmod 600 {shown} (in Kubernetes: `defaultMode: 0440` of the secret's volume, and `fsGroup`)");
            problems.error_help(place, message, help);
        }
        Ok((key, _)) => match Signer::parse(&String::from_utf8_lossy(&key)) {
            Err(error) => lost(format!("cannot be used: {error}")),
            Ok(signer) if signer.verifier().name() != config.ledger.origin => {
                let (name, origin) = (signer.verifier().name(), &config.ledger.origin);
                let message = format!("the ledger's key {shown} is for `{name}`, and its `origin` is `{origin}`");
                let help = format!("set `origin` of [ledger] to \"{name}\", or name the key of `{origin}`");
                problems.error_help(place, message, help);
            }
            Ok(_) => {}
        },
    }
}

/// The witnesses of a gateway's ledger.
pub(super) fn witnesses(config: &Config) -> Witnesses {
    let files = Files::new(Arc::new(RealFileSystem), &settings(config).directory);
    Witnesses::new(files, config.ledger.witness_every, config.ledger.witnesses.clone())
}

fn settings(config: &Config) -> Settings {
    config.ledger.settings(&config.journal.directory)
}

/// The ledger of a gateway, with what is to be said of its start. It is opened by its thread.
pub(super) fn begin(config: &Config, clock: Clock, found: &State) -> Arc<Ledger> {
    let confirmed = found.cursors.at_start();
    let clocks = Clocks { wall: Box::new(|| wall_clock().as_microsecond()), now: Box::new(move || clock.now()) };
    let outbox = Outbox {
        last: found.outbox_last,
        confirmed: Box::new(move |destination, dataset, lsn| {
            confirmed.get(destination).is_some_and(|cursor| cursor.has(dataset, lsn))
        }),
    };
    let ledger = Ledger::new(settings(config), Arc::new(RealFileSystem), clocks, outbox);
    ledger.note(What::Start {
        gateway: config.id.to_string(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        dry_run: config.mode == Mode::DryRun,
        models: models(config),
    });
    for Damaged { of, places } in found.damaged.iter().filter(|damaged| damaged.places > 0) {
        ledger.note(What::Damage { of: (*of).to_owned(), places: *places as u64 });
    }
    in_force(&ledger, config.policy.digest, false);
    Arc::new(ledger)
}

/// Notes that policies came into force.
pub(super) fn in_force(ledger: &Ledger, policy: Digest, reload: bool) {
    ledger.note(What::Policy { policy: in_full(&policy), reload });
}

/// Starts the thread that keeps it. It ends when the sender is dropped.
pub(super) fn keep(
    ledger: &Arc<Ledger>,
    clock: Clock,
    supervisor: &Supervisor,
) -> std::io::Result<crossbeam_channel::Sender<()>> {
    let (end, ended) = crossbeam_channel::bounded(0);
    let ledger = Arc::clone(ledger);
    supervisor.spawn("ledger", move || ledger.tend(&|| clock.now(), &ended))?;
    Ok(end)
}

/// The SHA-256 of each model's file: another file is not loaded.
fn models(config: &Config) -> BTreeMap<String, String> {
    let models = config.policy.streams.values().filter_map(|plan| plan.model.as_ref());
    models.map(|model| (model.name.clone(), model.sha256.clone())).collect()
}
