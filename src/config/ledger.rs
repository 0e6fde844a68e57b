//! `[ledger]`: where the ledger is, under which name, and which key signs it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use jiff::SignedDuration;

use crate::domain::document::{Place, Spot, Table};
use crate::ledger::Settings;
use crate::ledger::cosignature::Witness;
use crate::ledger::note::is_name;

/// Where the ledger stands in the journal's directory, by default.
const DIRECTORY: &str = "ledger";
/// Its key, likewise.
const KEY: &str = "ledger.key";
/// The newest published checkpoint, for the gateway itself.
const SEEN: &str = "ledger-seen";

/// How often witnesses are asked, by default.
const WITNESS_EVERY: Duration = Duration::from_secs(60);

/// A witness, and where it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witnessing {
    /// What it is called here.
    pub name: String,
    /// Its public key.
    pub key: Witness,
    /// Its host and port.
    pub authority: String,
    /// What the path of a request begins with.
    pub prefix: String,
}

/// Where the ledger is, as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Its directory, if it is named.
    pub directory: Option<PathBuf>,
    /// The file of its key, if it is named.
    pub key: Option<PathBuf>,
    /// Its name.
    pub origin: String,
    /// Its witnesses.
    pub witnesses: Vec<Witnessing>,
    /// How often they are asked.
    pub witness_every: Duration,
}

impl Ledger {
    /// Where everything is, with what is not named in the journal's directory.
    #[must_use]
    pub fn settings(&self, journal: &Path) -> Settings {
        Settings {
            directory: self.directory.clone().unwrap_or_else(|| journal.join(DIRECTORY)),
            key: self.key.clone().unwrap_or_else(|| journal.join(KEY)),
            origin: self.origin.clone(),
            seen: journal.join(SEEN),
        }
    }
}

/// What is declared of the ledger, with its places.
pub(super) struct DeclaredLedger {
    pub(super) ledger: Ledger,
    pub(super) place: Place,
    pub(super) directory: Option<Place>,
    pub(super) key: Option<Place>,
}

pub(super) fn read(table: &Table<'_>, base: &Path, gateway: Option<&Spot<String>>) -> DeclaredLedger {
    let id = gateway.map_or("gateway", |gateway| gateway.value.as_str());
    let origin = format!("bailiwick/{id}");
    let Some(declared) = table.get::<Table<'_>>("ledger") else {
        let (witnesses, witness_every) = (Vec::new(), WITNESS_EVERY);
        let ledger = Ledger { directory: None, key: None, origin, witnesses, witness_every };
        return DeclaredLedger { ledger, place: table.place.clone(), directory: None, key: None };
    };
    let declared = declared.value;
    let (directory, key) = (declared.get::<String>("directory"), declared.get::<String>("key"));
    let named = declared.get::<String>("origin");
    let every = declared.get::<SignedDuration>("witness_every");
    let witnesses = declared.named("witness").iter().filter_map(|(name, table)| witness(name, table)).collect();
    declared.done();
    if let Some(every) = every.as_ref().filter(|every| every.value < SignedDuration::from_secs(1)) {
        let message = "`witness_every` is less than a second";
        table.problems().error_help(&every.place, message, "write \"PT1S\" or more");
    }
    if let Some(named) = named.as_ref().filter(|named| !is_name(&named.value)) {
        let help = "a URL without its scheme is usual, as in \"example.com/ledgers/eu-1\"";
        let message = "`origin` must be at most 200 ASCII letters, without spaces and without `+`";
        table.problems().error_help(&named.place, message, help);
    }
    let ledger = Ledger {
        directory: directory.as_ref().map(|directory| base.join(&directory.value)),
        key: key.as_ref().map(|key| base.join(&key.value)),
        origin: named.map_or(origin, |named| named.value),
        witnesses,
        witness_every: every.map_or(WITNESS_EVERY, |every| every.value.unsigned_abs()),
    };
    let (directory, key) = (directory.map(|directory| directory.place), key.map(|key| key.place));
    DeclaredLedger { ledger, place: declared.place, directory, key }
}

/// A witness, and where it is asked. `None`: it cannot be used, which is said.
fn witness(name: &Spot<String>, table: &Table<'_>) -> Option<Witnessing> {
    let (key, url) = (table.need::<String>("key"), table.need::<String>("url"));
    table.done();
    let (key, url) = (key?, url?);
    let problems = table.problems();
    let witness = Witness::parse(&key.value).inspect_err(|error| {
        let help = "a witness logs its key when it starts, and keeps it in the file `verifier` of its directory";
        problems.error_help(&key.place, format!("`key` is no public key of a witness: {error}"), help);
    });
    let place = place(&url.value);
    if place.is_none() {
        let help = "for example \"http://witness.example.com:7500\". Signatures protect what is sent, not TLS";
        problems.error_help(&url.place, "`url` is not of the form http://HOST:PORT", help);
    }
    let (authority, prefix) = place?;
    Some(Witnessing { name: name.value.clone(), key: witness.ok()?, authority, prefix })
}

/// The host and port of a URL, and what its path begins with.
fn place(url: &str) -> Option<(String, String)> {
    let url = url.parse::<Uri>().ok()?;
    let authority = url.authority().filter(|authority| !authority.as_str().contains('@'))?;
    if url.scheme_str() != Some("http") || url.query().is_some() {
        return None;
    }
    let port = authority.port_u16().unwrap_or(80);
    Some((format!("{}:{port}", authority.host()), url.path().trim_end_matches('/').to_owned()))
}
