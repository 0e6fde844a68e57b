//! `[journal.keys]`: the file of each regime's key.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::domain::document::{Place, Problems, Spot, Table, hint};
use crate::durable::seal::{KEY_BYTES, Key, Keys};
use crate::files;

/// The keys that were declared.
pub(super) struct DeclaredKeys {
    place: Place,
    /// By the regime. `None`: declared, and unusable.
    keys: BTreeMap<String, Spot<Option<Key>>>,
    /// The file of each regime's key.
    pub(super) files: BTreeMap<String, Spot<PathBuf>>,
}

/// Why a file is no key.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("cannot read the key file {path}: {source}")]
    Io { path: String, source: io::Error },
    #[error("key file: {0}")]
    NoFile(files::Error),
    #[error("the key file {path} has mode {mode:04o}: it can be read by group or others")]
    Open { path: String, mode: u32 },
    #[error("the key file {path} holds {bytes} bytes and not {KEY_BYTES}")]
    Length { path: String, bytes: u64 },
}

impl Unusable {
    fn help(&self) -> String {
        match self {
            Self::Io { .. } => "if you deleted the key to erase what it sealed, remove its line; if the regime is \
             still served, make a new key"
                .to_owned(),
            Self::NoFile(_) => format!("a key is a file of {KEY_BYTES} bytes"),
            Self::Open { path, .. } => format!("chmod 600 {path}"),
            Self::Length { path, .. } => {
                format!("a key is {KEY_BYTES} raw random bytes: (umask 077; head -c {KEY_BYTES} /dev/urandom > {path})")
            }
        }
    }
}

impl DeclaredKeys {
    pub(super) fn read(table: &Table<'_>, base: &Path) -> Self {
        let mut keys: BTreeMap<String, Spot<Option<Key>>> = BTreeMap::new();
        let mut files = BTreeMap::new();
        for regime in table.names() {
            let Some(file) = table.get::<String>(&regime) else { continue };
            let (place, path) = (file.place, base.join(file.value));
            let value = read_key(&path).map_err(|unusable| {
                table.problems().error_help(&place, unusable.to_string(), unusable.help());
            });
            let value = value.ok();
            let same = keys.iter().find(|(_, other)| {
                other.value.as_ref().zip(value.as_ref()).is_some_and(|(other, this)| other.is(this))
            });
            if let Some((other, _)) = same {
                let message = format!("regimes `{other}` and `{regime}` have the same key");
                table.problems().error_help(
                    &place,
                    message,
                    "deleting one of them would erase nothing: give each regime its own key",
                );
            }
            files.insert(regime.clone(), Spot { value: path, place: place.clone() });
            keys.insert(regime, Spot { value, place });
        }
        Self { place: table.place.clone(), keys, files }
    }

    /// Every served regime needs a key. Others may have one, so that what was sealed with it can be read.
    pub(super) fn check(&self, serves: &[Spot<String>], known: &[&str], problems: &Problems) {
        for regime in serves.iter().filter(|regime| !self.keys.contains_key(&regime.value)) {
            let message = format!("regime `{}` is served and has no key", regime.value);
            let help = format!("add `{} = \"FILE\"`, or remove [journal.keys] to seal nothing", regime.value);
            problems.error_help(&self.place, message, help);
        }
        for (regime, key) in self.keys.iter().filter(|(regime, _)| !known.contains(&regime.as_str())) {
            problems.warn(&key.place, format!("there is no regime `{regime}`"), hint(regime, known));
        }
    }

    pub(super) fn finish(self) -> Keys {
        let keys = self.keys.into_iter().filter_map(|(regime, key)| Some((regime, key.value?)));
        Keys::new(keys.collect())
    }
}

fn read_key(path: &Path) -> Result<Key, Unusable> {
    let shown = || path.display().to_string();
    let io = |source| Unusable::Io { path: shown(), source };
    let (mut file, metadata) = files::open(path).map_err(|error| match error {
        files::Error::Io { source, .. } => io(source),
        other => Unusable::NoFile(other),
    })?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Unusable::Open { path: shown(), mode });
    }
    if metadata.len() != KEY_BYTES as u64 {
        return Err(Unusable::Length { path: shown(), bytes: metadata.len() });
    }
    let mut bytes = Box::new(Zeroizing::new([0; KEY_BYTES]));
    file.read_exact(bytes.as_mut_slice()).map_err(io)?;
    Ok(Key::new(bytes))
}
