//! `[ledger]`: where the ledger is, under which name, and which key signs it.

use std::path::{Path, PathBuf};

use crate::domain::document::{Place, Spot, Table};
use crate::ledger::Settings;
use crate::ledger::note::is_name;

/// Where the ledger stands in the journal's directory, unless it is said.
const DIRECTORY: &str = "ledger";
/// Its key, likewise.
const KEY: &str = "ledger.key";
/// The newest published checkpoint, for the gateway itself.
const SEEN: &str = "ledger-seen";

/// Where the ledger is, as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Its directory, if it is named.
    pub directory: Option<PathBuf>,
    /// The file of its key, if it is named.
    pub key: Option<PathBuf>,
    /// Its name.
    pub origin: String,
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
        let ledger = Ledger { directory: None, key: None, origin };
        return DeclaredLedger { ledger, place: table.place.clone(), directory: None, key: None };
    };
    let declared = declared.value;
    let (directory, key) = (declared.get::<String>("directory"), declared.get::<String>("key"));
    let named = declared.get::<String>("origin");
    declared.done();
    if let Some(named) = named.as_ref().filter(|named| !is_name(&named.value)) {
        let help = "a URL without its scheme is usual, as in \"example.com/ledgers/eu-1\"";
        let message = "`origin` must be at most 200 ASCII letters, without spaces and without `+`";
        table.problems().error_help(&named.place, message, help);
    }
    let ledger = Ledger {
        directory: directory.as_ref().map(|directory| base.join(&directory.value)),
        key: key.as_ref().map(|key| base.join(&key.value)),
        origin: named.map_or(origin, |named| named.value),
    };
    let (directory, key) = (directory.map(|directory| directory.place), key.map(|key| key.place));
    DeclaredLedger { ledger, place: declared.place, directory, key }
}
