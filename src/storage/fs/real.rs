//! The operating system's files.

use std::fs::{self, File as OsFile, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};

use super::{Access, Directory, File, FileSystem, Kind, Lock};

/// How often a lock that another process holds is asked for.
const LOCK_TRIES: usize = 40;
/// How long it is waited for in between.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The operating system's file system.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealFileSystem;

impl FileSystem for RealFileSystem {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(PRIVATE).open(path)?;
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        // Without O_NONBLOCK a named pipe in the way would hold the open for ever.
        let file = OpenOptions::new()
            .read(true)
            .write(access == Access::Write)
            .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK))
            .open(path)
            .map_err(|error| if is_loop(&error) { not_regular() } else { error })?;
        if !file.metadata()?.is_file() {
            return Err(not_regular());
        }
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OsFile::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, Kind)>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // A name that is not UTF-8 is none of the log's.
            if let Ok(name) = entry.file_name().into_string() {
                names.push((name, kind_of(entry.file_type()?)));
            }
        }
        Ok(names)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(kind_of(metadata.file_type()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Directory>> {
        let directory = OpenOptions::new().read(true).custom_flags(flags(OFlags::DIRECTORY)).open(path)?;
        Ok(Box::new(directory))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .custom_flags(flags(OFlags::NOFOLLOW))
            .open(path)
            .map_err(|error| if is_loop(&error) { not_regular() } else { error })?;
        // A process that was killed may hold it for a moment more, and so may a child that has not begun its own program yet.
        for _ in 0..LOCK_TRIES {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Box::new(file))),
                Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(LOCK_PAUSE),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn random(&self) -> u32 {
        // The standard library's hash keys are random; their hash of nothing is as good as they are.
        let [a, b, c, d, ..] = RandomState::new().hash_one(()).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

impl File for OsFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self, slices, offset)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        OsFile::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        OsFile::sync_all(self)
    }

    fn share(&self, mode: u32, group: Option<u32>) -> io::Result<()> {
        // First the group: giving a file to another group may take bits of its mode.
        if group.is_some() {
            std::os::unix::fs::fchown(self, None, group)?;
        }
        self.set_permissions(fs::Permissions::from_mode(mode))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::io::retry_on_intr(|| rustix::fs::fallocate(self, FallocateFlags::KEEP_SIZE, 0, bytes)) {
            Ok(()) => Ok(()),
            // Some file systems cannot; then a full disk is met by the write, and handled there too.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        is_same(&self.metadata()?, fs::symlink_metadata(path))
    }

    fn has_name(&self) -> io::Result<bool> {
        Ok(self.metadata()?.nlink() > 0)
    }

    fn shorten(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn trim(&self) -> io::Result<()> {
        // Setting the length that a file has frees what was allocated beyond it.
        self.set_len(self.metadata()?.len())
    }
}

impl Directory for OsFile {
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        is_same(&self.metadata()?, fs::metadata(path))
    }
}

impl Lock for OsFile {}

/// Whether a name leads to what is open. What is open keeps its inode, so another file cannot have that number.
fn is_same(open: &fs::Metadata, named: io::Result<fs::Metadata>) -> io::Result<bool> {
    match named {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

fn kind_of(kind: fs::FileType) -> Kind {
    if kind.is_file() {
        Kind::File
    } else if kind.is_dir() {
        Kind::Directory
    } else {
        Kind::Other
    }
}

fn flags(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).unwrap_or_default()
}

fn is_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// What lies in the log is nobody else's to read.
const PRIVATE: u32 = 0o600;
