//! Cells that a destination cannot take, however they are sent: each in a file of its own,
//! `aside/DESTINATION/RELEASE-PART-OF.jsonl` beside the cursors, so that what comes after them does not wait. A file holds
//! what the message would have held. Nothing reads them again: the operator sends them, or removes them.

use std::path::PathBuf;
use std::sync::Arc;

use crate::domain::name::DestinationName;
use crate::egress::kafka;
use crate::storage::{self, FileSystem, create_directories_below, write_file_durably};

/// Where they are kept.
#[derive(Clone)]
pub struct Place {
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// The directory of all destinations.
    pub directory: PathBuf,
}

impl Place {
    /// Keeps one, durably, and says so. Done again, it makes the same file.
    pub(super) fn keep(&self, destination: &DestinationName, aside: &kafka::Aside) -> Result<(), storage::Error> {
        let directory = self.directory.join(destination.as_str());
        let journal = self.directory.parent().unwrap_or(&self.directory);
        create_directories_below(&*self.fs, journal, &directory)?;
        let path = directory.join(aside.file_name());
        write_file_durably(&*self.fs, &path, &aside.value)?;
        let kafka::TooLarge { release, dataset, window: (from, until), bytes, limit, whose } = &aside.cell;
        let (part, of) = aside.part;
        let file = path.display();
        tracing::error!(
            destination = destination.as_str(), release, part, of, %dataset, from, until, bytes, limit, %whose, %file,
            "a cell is larger than a message may be and is set aside; the others go on. Raise the limit, and send what \
             the file holds yourself"
        );
        Ok(())
    }

    /// How many are kept for a destination.
    pub(super) fn count(&self, destination: &DestinationName) -> u64 {
        let files = self.fs.list(&self.directory.join(destination.as_str())).unwrap_or_default();
        files.iter().filter(|(name, _)| !name.starts_with('.')).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::egress::encode::Format;
    use crate::storage::RealFileSystem;

    #[test]
    fn what_is_set_aside_is_its_owners_only() {
        let journal = TempDir::new().unwrap();
        let place = Place { fs: Arc::new(RealFileSystem), directory: journal.path().join("aside") };
        let cell = kafka::TooLarge {
            release: "0f3a".to_owned(),
            dataset: "visits".parse().unwrap(),
            window: ("2026-07-01T06:30:00Z".to_owned(), "2026-07-01T06:40:00Z".to_owned()),
            bytes: 900,
            limit: 700,
            whose: kafka::Whose::Topic,
        };
        let aside = kafka::Aside { cell, part: (1, 2), value: b"{}".to_vec(), format: Format::JsonLines };
        let destination = "desk".parse().unwrap();
        place.keep(&destination, &aside).unwrap();
        let file = place.directory.join("desk/0f3a-1-2.jsonl");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!((fs::read(&file).unwrap(), place.count(&destination)), (b"{}".to_vec(), 1));
    }
}
