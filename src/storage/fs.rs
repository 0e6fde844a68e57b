//! The file system as the log needs it: so little that a simulated one can lose everything a real one may.
//!
//! Deliberately absent: memory maps, buffered writers, truncation of files that have a name, appending, following
//! symbolic links.

mod real;
#[cfg(test)]
pub(crate) mod sim;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

pub use real::RealFileSystem;

/// Files and directories.
pub trait FileSystem: Send + Sync {
    /// Creates a regular file, for reading and writing. It must not exist, not even as a symbolic link.
    ///
    /// # Errors
    /// When the system refuses.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a regular file. Anything else, also a symbolic link, is `InvalidInput`.
    ///
    /// # Errors
    /// When the system refuses.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;

    /// Renames, replacing what has the new name.
    ///
    /// # Errors
    /// When the system refuses.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// When the system refuses.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// When the system refuses, as it does when something is in it.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates one directory.
    ///
    /// # Errors
    /// When the system refuses.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable: what was created, renamed and removed.
    ///
    /// # Errors
    /// When the system refuses.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory and what they stand for, in any order.
    ///
    /// # Errors
    /// When the system refuses.
    fn list(&self, path: &Path) -> io::Result<Vec<(String, Kind)>>;

    /// What a path leads to, symbolic links followed; `None` if to nothing.
    ///
    /// # Errors
    /// When the system refuses.
    fn kind(&self, path: &Path) -> io::Result<Option<Kind>>;

    /// Opens a directory, to know it again. While it is open, no other directory has its identity.
    ///
    /// # Errors
    /// When the system refuses.
    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Directory>>;

    /// Takes the exclusive lock on a file, which is created if need be. `None`: another process holds it. It is
    /// held until the guard is dropped or the process ends.
    ///
    /// # Errors
    /// When the system refuses.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;

    /// A random number, for a segment's id.
    fn random(&self) -> u32;
}

/// An open file.
pub trait File: Send + Sync {
    /// The length in bytes.
    ///
    /// # Errors
    /// When the system refuses.
    fn length(&self) -> io::Result<u64>;

    /// Reads some bytes from an offset; 0 at the end.
    ///
    /// # Errors
    /// When the system refuses.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some of the slices' bytes at an offset, and says how many.
    ///
    /// # Errors
    /// When the system refuses.
    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Makes the bytes and the length durable.
    ///
    /// # Errors
    /// When the system refuses: what was written since the last success may then be lost although it can be read.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the bytes and everything known about the file durable.
    ///
    /// # Errors
    /// As [`Self::sync_data`].
    fn sync_all(&self) -> io::Result<()>;

    /// Says who else may use the file: its mode, and its group if one is given. It was made for its owner only.
    ///
    /// # Errors
    /// When the system refuses.
    fn share(&self, _mode: u32, _group: Option<u32>) -> io::Result<()> {
        Ok(())
    }

    /// Claims space for this many bytes from the start. The length stays as it is.
    ///
    /// # Errors
    /// When there is no space.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Whether a path leads to this very file. Symbolic links are not followed.
    ///
    /// # Errors
    /// When the system refuses to say. That nothing is there is not an error.
    fn is_at(&self, path: &Path) -> io::Result<bool>;

    /// Whether any name is left that leads to this file. Without one it goes when it is closed.
    ///
    /// # Errors
    /// When the system refuses to say.
    fn has_name(&self) -> io::Result<bool>;

    /// Cuts the file off after this many bytes, of which it has as many at least, and frees the rest. Only of a file that has
    /// no name any more, and will have none after a crash.
    ///
    /// # Errors
    /// When the system refuses.
    fn shorten(&self, bytes: u64) -> io::Result<()>;

    /// Gives back the space claimed beyond the file's length. The bytes stay as they are.
    ///
    /// # Errors
    /// When the system refuses.
    fn trim(&self) -> io::Result<()>;
}

/// An open directory.
pub trait Directory: Send + Sync {
    /// Whether a path leads to this very directory. Symbolic links are followed.
    ///
    /// # Errors
    /// When the system refuses to say. That nothing is there is not an error.
    fn is_at(&self, path: &Path) -> io::Result<bool>;
}

/// A lock that is held.
pub trait Lock: Send + Sync {}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, a socket, ...
    Other,
}

/// Reads until the buffer is full or the file ends; how much.
pub(super) fn read_full(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..)
        && !rest.is_empty()
    {
        match file.read_at(rest, offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes all slices, in as many calls as it takes. How many bytes there were.
pub(super) fn write_full(file: &dyn File, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<u64> {
    let mut written = 0;
    let mut rest = slices;
    while !rest.is_empty() {
        let now = rest.len().min(SLICES_MAX);
        match file.write_at(rest.get(..now).unwrap_or_default(), offset.saturating_add(written)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                written += count as u64;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// What Linux takes in one call.
const SLICES_MAX: usize = 1024;
