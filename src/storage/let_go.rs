//! Lets go of segments that nobody needs any more.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tracing::{info, warn};

use super::durable::{create_directories_below, remove_if_there, sync_dir};
use super::fs::{Access, File, FileSystem, Kind};
use super::segment::Name;
use super::shared::Shared;
use super::{Error, Log, Lsn};
use crate::planted::planted;

impl Log {
    /// Everything through this LSN is no longer needed; what says so, such as a cursor, must be durable already.
    /// Deletes the segments that lie wholly before it, but never the one being written; those that are damaged are
    /// moved to `damaged/` instead. Their names are gone when this returns, their space a little later.
    ///
    /// # Errors
    /// When a segment cannot be deleted, or somebody else has taken it away. It can be tried again.
    pub fn let_go(&self, through: Lsn) -> Result<(), Error> {
        let _one_at_a_time = self.shared.letting_go();
        self.shared.check_home()?;
        let through = through.min(self.durable());
        while let Some((name, is_damaged)) = self.shared.first_to_go(through)? {
            // Should it fail, the segment stays marked as leaving: it may be gone already.
            let file = self.shared.take_name(name, is_damaged)?;
            if let Some(file) = file {
                // What cannot be asked for its length is freed when it is closed.
                let bytes = file.length().unwrap_or(0);
                self.shared.freeing.add(file, bytes);
            }
            self.shared.table.segments().retain(|segment| segment.name != name);
            self.shared.space_came_back();
        }
        Ok(())
    }
}

impl Shared {
    /// The oldest segment, if it may go. From now on no reader opens it.
    fn first_to_go(&self, through: Lsn) -> Result<Option<(Name, bool)>, Error> {
        let mut segments = self.table.segments();
        let Some(next) = segments.get(1).map(|segment| segment.name.first) else { return Ok(None) };
        let Some(oldest) = segments.first_mut() else { return Ok(None) };
        let is_needed = if planted("let-go-too-much") { oldest.name.first > through } else { next > through + 1 };
        if is_needed {
            return Ok(None);
        }
        let path = self.table.path(oldest.name);
        // What somebody has taken away may be put back, and would then stand alone before a gap.
        if !oldest.is_leaving && self.fs.kind(&path).map_err(Error::io("look up", &path))?.is_none() {
            return Err(Error::Gone { path });
        }
        oldest.is_leaving = true;
        Ok(Some((oldest.name, oldest.is_damaged)))
    }

    /// Takes a segment's name away, durably. The file, if there is something of it to be freed.
    fn take_name(&self, name: Name, is_damaged: bool) -> Result<Option<Arc<dyn File>>, Error> {
        let mut file = None;
        if is_damaged {
            set_aside(&*self.fs, self.directory(), name)?;
        } else {
            let path = self.table.path(name);
            // What cannot be opened is freed at once.
            file = self.fs.open(&path, Access::Write).ok();
            remove_if_there(&*self.fs, &path)?;
        }
        // One by one and from the oldest on, so that after a crash none is missing between two that are there.
        sync_dir(&*self.fs, self.directory())?;
        info!(segment = %name, "let go of a segment of the log");
        Ok(file)
    }
}

/// Moves a segment to `damaged/`. The caller syncs the directory that it leaves.
pub(super) fn set_aside(fs: &dyn FileSystem, directory: &Path, name: Name) -> Result<(), Error> {
    let aside = directory.join(DAMAGED_DIRECTORY);
    if fs.kind(&aside).map_err(Error::io("look up", &aside))? != Some(Kind::Directory) {
        create_directories_below(fs, directory, &aside)?;
    }
    let (from, to) = (directory.join(name.to_string()), aside.join(name.to_string()));
    match fs.rename(&from, &to) {
        // It was moved before, and could not be synced.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        renamed => renamed.map_err(Error::io("set aside", from))?,
    }
    sync_dir(fs, &aside)?;
    warn!(segment = %name, "set a damaged segment of the log aside, in `damaged`: check the disk");
    Ok(())
}

/// Where damaged segments go.
pub(super) const DAMAGED_DIRECTORY: &str = "damaged";
