//! Names and small files that survive a crash.

use std::io::{self, IoSlice};
use std::path::Path;

use super::Error;
use super::fs::{Access, File, FileSystem, Kind, read_full, write_full};
use crate::planted::planted;

/// Writes a whole file so that after a crash there is either the old one or the new one.
///
/// # Errors
/// When the file system refuses; the old file is then still there, unless only the last step failed.
pub fn write_file_durably(fs: &dyn FileSystem, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write(fs, path, bytes, &|_| Ok(()))
}

/// As [`write_file_durably`], for others too: with a mode, and a group if one is given.
///
/// # Errors
/// As [`write_file_durably`], or when the file cannot be given to the group.
pub fn write_shared_file_durably(
    fs: &dyn FileSystem,
    path: &Path,
    bytes: &[u8],
    mode: u32,
    group: Option<u32>,
) -> Result<(), Error> {
    write(fs, path, bytes, &|file| file.share(mode, group))
}

fn write(
    fs: &dyn FileSystem,
    path: &Path,
    bytes: &[u8],
    share: &dyn Fn(&dyn File) -> io::Result<()>,
) -> Result<(), Error> {
    let temporary = path.with_file_name(format!(".{}.part", path.file_name().unwrap_or_default().display()));
    remove_if_there(fs, &temporary)?;
    let written = (|| {
        let file = fs.create(&temporary)?;
        write_full(&*file, &mut [IoSlice::new(bytes)], 0)?;
        share(&*file)?;
        file.sync_all()?;
        fs.rename(&temporary, path)
    })();
    if let Err(source) = written {
        // What could not be written is of no use; if it cannot be removed either, the next attempt does.
        let _ = fs.remove(&temporary);
        return Err(Error::io("write", path)(source));
    }
    sync_dir(fs, parent(path))
}

/// Reads a whole file; `None` if there is none.
///
/// # Errors
/// When the file system refuses, or the file has more than `bytes_max` bytes.
pub fn read_file(fs: &dyn FileSystem, path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, Error> {
    let read = || {
        let file = match fs.open(path, Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let length = file.length()?;
        if length > bytes_max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {bytes_max} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        let filled = read_full(&*file, &mut bytes, 0)?;
        bytes.truncate(filled);
        Ok(Some(bytes))
    };
    read().map_err(Error::io("read", path))
}

/// Makes a directory and those above it, and makes sure that none of them vanishes in a crash: also not one that an
/// earlier process made and could not sync any more.
pub fn create_directories(fs: &dyn FileSystem, directory: &Path) -> Result<(), Error> {
    let ancestors: Vec<_> = directory.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    for path in ancestors.into_iter().rev() {
        let mut is_new = false;
        match fs.kind(path).map_err(Error::io("look up", path))? {
            Some(Kind::Directory) => {}
            Some(_) => return Err(Error::InTheWay { path: path.to_owned(), expected: "a directory" }),
            None => match fs.create_dir(path) {
                Ok(()) => is_new = true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", path)(error)),
            },
        }
        match sync_dir(fs, parent(path)) {
            Err(error) if is_new => return Err(error),
            // Directories far above may be unreadable for this user, and are none of this log's.
            _ => {}
        }
    }
    sync_dir(fs, directory)
}

/// Makes a directory that stands below another one, and those between them, as [`create_directories`]. The one above must be
/// there: where it was moved away, nothing stands in the way of putting it back.
pub fn create_directories_below(fs: &dyn FileSystem, above: &Path, directory: &Path) -> Result<(), Error> {
    match fs.kind(above).map_err(Error::io("look up", above))? {
        Some(Kind::Directory) => {}
        Some(_) => return Err(Error::InTheWay { path: above.to_owned(), expected: "a directory" }),
        None => return Err(Error::Gone { path: above.to_owned() }),
    }
    // Without what is above them they cannot be made, also if it goes just now.
    let between: Vec<_> = directory.ancestors().take_while(|path| *path != above).collect();
    for path in between.into_iter().rev() {
        match fs.create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(Error::io("create", path)(error)),
            _ => sync_dir(fs, parent(path))?,
        }
    }
    sync_dir(fs, directory)
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(fs: &dyn FileSystem, directory: &Path) -> Result<(), Error> {
    if planted("skip-dir-sync") {
        return Ok(());
    }
    fs.sync_dir(directory).map_err(Error::io("sync", directory))
}

/// The directory that a path stands in: of a mere name the working directory.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ if path.has_root() => path,
        _ => Path::new("."),
    }
}

/// Removes a file, if there is one.
pub(super) fn remove_if_there(fs: &dyn FileSystem, path: &Path) -> Result<(), Error> {
    match fs.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}
