//! Files that are read whole, and what tells one version of them from the next.
//!
//! Everything that a configuration names is opened here: a pipe without a writer, an endless device, a circle of links
//! or a file of any size is refused in bounded time and memory, with a word about what it is.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// What changes when a file is replaced or written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    length: u64,
    seconds: i64,
    nanoseconds: i64,
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there, or may not be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("`{}` is {found}; name a regular file", path.display())]
    NotAFile {
        /// Where.
        path: PathBuf,
        /// What is there, with its article.
        found: &'static str,
    },
    /// Larger than it may be.
    #[error("`{}` has {found} bytes; at most {limit} are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// It changed meanwhile.
    #[error("`{}` is being written; write it under another name and rename it", .0.display())]
    BeingWritten(PathBuf),
    /// A secret that others can read.
    #[error("`{}` holds a secret and has mode {mode:04o}: everybody on this machine can read it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

impl Error {
    /// What to do, where the message does not say it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        let Self::Exposed { path, .. } = self else { return None };
        let path = path.display();
        Some(format!("chmod 600 {path} (in Kubernetes: `defaultMode: 0440` of the secret's volume, and `fsGroup`)"))
    }
}

impl Fingerprint {
    /// The fingerprint of the file that a path leads to now.
    ///
    /// # Errors
    /// When the file is not there.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let metadata = std::fs::metadata(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Ok(Self::from(&metadata))
    }
}

impl From<&Metadata> for Fingerprint {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec(),
        }
    }
}

/// Reads a whole file of at most `limit` bytes through one handle: whatever happens to its name meanwhile, the bytes
/// are of one file.
///
/// # Errors
/// When it cannot be read, is too large, or is being written.
pub fn read(path: &Path, limit: u64) -> Result<(Vec<u8>, Fingerprint), Error> {
    read_open(open(path)?.0, path, limit, || ())
}

/// Reads a file that holds a secret as [`read`] does. Its owner may read it, and its group, which is how Kubernetes mounts
/// secrets; others must not.
///
/// # Errors
/// When it cannot be read, is too large, is being written, or when others can read it.
pub fn read_secret(path: &Path, limit: u64) -> Result<(Zeroizing<Vec<u8>>, Fingerprint), Error> {
    let (file, metadata) = open(path)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(Error::Exposed { path: path.to_owned(), mode });
    }
    read_open(file, path, limit, || ()).map(|(bytes, fingerprint)| (Zeroizing::new(bytes), fingerprint))
}

/// Opens a regular file to be read.
///
/// # Errors
/// When there is none, or something else is there.
pub fn open(path: &Path) -> Result<(File, Metadata), Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    // Merely opening some devices does something. What is there is looked at first, and again when it is open.
    regular(path)?;
    // Opening a pipe must not wait for its other end.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check_regular(path, metadata.file_type())?;
    Ok((file, metadata))
}

/// Whether a path leads to a regular file.
///
/// # Errors
/// When nothing is there, or something else.
pub fn regular(path: &Path) -> Result<(), Error> {
    let metadata = path.metadata().map_err(|source| Error::Io { path: path.to_owned(), source })?;
    check_regular(path, metadata.file_type())
}

fn check_regular(path: &Path, found: FileType) -> Result<(), Error> {
    let found = match found {
        found if found.is_file() => return Ok(()),
        found if found.is_dir() => "a directory",
        found if found.is_fifo() => "a named pipe",
        found if found.is_char_device() => "a character device",
        found if found.is_block_device() => "a block device",
        found if found.is_socket() => "a socket",
        _ => "no regular file",
    };
    Err(Error::NotAFile { path: path.to_owned(), found })
}

fn read_open(mut file: File, path: &Path, limit: u64, halfway: impl FnOnce()) -> Result<(Vec<u8>, Fingerprint), Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let metadata = file.metadata().map_err(failed)?;
    let too_large = || Error::TooLarge { path: path.to_owned(), found: metadata.len(), limit };
    if metadata.len() > limit {
        return Err(too_large());
    }
    let before = Fingerprint::from(&metadata);
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).map_err(|_| too_large())?);
    let half = metadata.len() / 2;
    (&mut file).take(half).read_to_end(&mut bytes).map_err(failed)?;
    halfway();
    (&mut file).take((limit + 1).saturating_sub(half)).read_to_end(&mut bytes).map_err(failed)?;
    let after = Fingerprint::from(&file.metadata().map_err(failed)?);
    if before != after || bytes.len() as u64 != after.length {
        return Err(Error::BeingWritten(path.to_owned()));
    }
    Ok((bytes, after))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_read_with_its_fingerprint() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.csv");
        fs::write(&path, "key\n").unwrap();
        let (bytes, fingerprint) = read(&path, 4).unwrap();
        assert_eq!(bytes, b"key\n");
        assert_eq!(fingerprint, Fingerprint::of(&path).unwrap());
        let other = directory.path().join("b.csv");
        fs::write(&other, "key\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(fingerprint, Fingerprint::of(&path).unwrap());
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.csv");
        assert!(matches!(read(&path, 4), Err(Error::Io { .. })));
        fs::write(&path, "key\nx").unwrap();
        let error = read(&path, 4).unwrap_err();
        assert!(matches!(error, Error::TooLarge { found: 5, limit: 4, .. }));
        assert!(error.to_string().contains("a.csv"), "{error}");
        assert!(matches!(read(directory.path(), 4), Err(Error::NotAFile { found: "a directory", .. })));
        assert!(matches!(read(Path::new("/dev/zero"), 4), Err(Error::NotAFile { found: "a character device", .. })));
        let [round, and] = ["round", "and"].map(|name| directory.path().join(name));
        std::os::unix::fs::symlink(&round, &and).unwrap();
        std::os::unix::fs::symlink(&and, &round).unwrap();
        assert!(matches!(read(&round, 4), Err(Error::Io { .. })));
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(matches!(read(&socket, 4), Err(Error::NotAFile { found: "a socket", .. })));
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(read(&pipe, 4), Err(Error::NotAFile { found: "a named pipe", .. })));
        assert!(matches!(regular(&pipe), Err(Error::NotAFile { found: "a named pipe", .. })));
    }

    #[test]
    fn a_secret_is_read_unless_others_can_read_it_too() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        fs::write(&path, "word").unwrap();
        for (mode, is_secret) in [(0o600, true), (0o400, true), (0o440, true), (0o640, true), (0o644, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = read_secret(&path, 4).map(|(bytes, _)| bytes.to_vec());
            match read {
                Ok(bytes) => assert_eq!((bytes.as_slice(), is_secret), (&b"word"[..], true), "{mode:o}"),
                Err(error) => {
                    assert!(!is_secret && error.to_string().contains("0644"), "{error}");
                    assert!(error.help().unwrap().contains("chmod 600"));
                }
            }
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_meanwhile_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two, link] = ["one", "two", "link"].map(|name| directory.path().join(name));
        fs::write(&one, "1111").unwrap();
        fs::write(&two, "2222").unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let swap = || {
            fs::remove_file(&link).unwrap();
            std::os::unix::fs::symlink(&two, &link).unwrap();
        };
        let (bytes, fingerprint) = read_open(File::open(&link).unwrap(), &link, 100, swap).unwrap();
        assert_eq!(bytes, b"1111");
        assert_ne!(fingerprint, Fingerprint::of(&link).unwrap());
    }

    #[test]
    fn a_file_that_is_written_meanwhile_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.csv");
        for written in ["11112222", "11", "", "1112"] {
            fs::write(&path, "1111").unwrap();
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            let write = || {
                fs::write(&path, written).unwrap();
                File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_modified(modified + std::time::Duration::from_nanos(1))
                    .unwrap();
            };
            let error = read_open(File::open(&path).unwrap(), &path, 100, write).unwrap_err();
            assert!(matches!(error, Error::BeingWritten(_)), "{written}: {error}");
        }
    }
}
