//! Whether what is written stands under its name. A file can be written and synced although nobody will ever find it
//! again: when it was removed, when its directory was moved or replaced, when something was mounted over it.

use std::collections::HashSet;

use super::super::Error;
use super::super::durable::{parent, sync_dir};
use super::Writer;
use crate::planted::planted;

impl Writer {
    /// The first entries are written and synced. They are reported if the file that has them stands under its name.
    pub(super) fn prove(&mut self, entries: usize) -> Result<(), Error> {
        self.nameless = entries;
        if !planted("trust-open-file")
            && let Err(error) = self.check_current()
        {
            self.is_astray = true;
            return Err(error);
        }
        let entries = std::mem::take(&mut self.nameless);
        self.acknowledge(entries);
        Ok(())
    }

    /// Makes sure that the name of the segment being written leads to the file that is written.
    fn check_current(&self) -> Result<(), Error> {
        let Some(current) = &self.current else { return Ok(()) };
        match current.file.is_at(&current.path) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Gone { path: current.path.clone() }),
            Err(source) => Err(Error::Io { doing: "look up", path: current.path.clone(), source }),
        }
    }

    /// Makes sure that the directory and all segments stand under their names.
    pub(super) fn look(&self) -> Result<(), Error> {
        self.shared.check_home()?;
        self.check_current()?;
        let directory = self.shared.directory();
        let there = self.shared.fs.list(directory).map_err(Error::io("list", directory))?;
        let there: HashSet<String> = there.into_iter().map(|(name, _)| name).collect();
        // What is let go meanwhile was marked before it was removed.
        let segments = self.shared.table.segments();
        let gone = segments.iter().find(|segment| !segment.is_leaving && !there.contains(&segment.name.to_string()));
        gone.map_or(Ok(()), |gone| Err(Error::Gone { path: self.shared.table.path(gone.name) }))
    }

    /// Whether the segment being written was removed, not moved: then nobody can put it back.
    pub(super) fn is_removed(&self) -> bool {
        self.current.as_ref().is_some_and(|current| matches!(current.file.has_name(), Ok(false)))
    }

    /// Looks whether everything stands under its name, and takes nothing more if not.
    pub(in super::super) fn watch(&mut self) {
        if !self.is_astray
            && let Err(error) = self.look()
        {
            self.is_astray = true;
            self.failed(&error);
        }
    }

    /// Goes on if everything is back under its name; what was synced meanwhile is reported.
    pub(super) fn find_again(&mut self) -> Result<(), Error> {
        self.look()?;
        // Whoever put a name back has not synced it, as a rule.
        let directory = self.shared.directory();
        sync_dir(&*self.shared.fs, directory)?;
        sync_dir(&*self.shared.fs, parent(directory))?;
        self.look()?;
        self.is_astray = false;
        let entries = std::mem::take(&mut self.nameless);
        self.acknowledge(entries);
        Ok(())
    }
}
