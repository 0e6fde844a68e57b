//! What can go wrong, one type per boundary.

use std::io;
use std::path::PathBuf;

use super::segment::VERSION;

/// Why a log, or one of the small files beside it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the directory open.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Something else stands where a directory or a regular file belongs, such as a symbolic link.
    #[error("{} is not {expected}", path.display())]
    InTheWay {
        /// What stands there.
        path: PathBuf,
        /// What belongs there.
        expected: &'static str,
    },
    /// What is being written does not stand under its name any more.
    #[error(
        "{} is not there any more, or is another one: it was removed, moved, replaced or mounted over while it was in \
         use. Put it back, and the log goes on. Or stop the gateway, see with `bailiwick journal verify` what is there, \
         and start it again",
        path.display()
    )]
    Gone {
        /// The directory or the segment.
        path: PathBuf,
    },
    /// A segment was written by another version of this program.
    #[error(
        "{} has format version {version}, and only version {VERSION} can be read: run the version of bailiwick that wrote \
         it, or restore the backup of before the upgrade",
        path.display()
    )]
    UnknownVersion {
        /// The segment.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A file beside the log was written by a newer version of this program.
    #[error(
        "{} was written by a newer version of bailiwick (format version {version}): run that version, or restore the \
         backup of before the upgrade",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The settings contradict each other.
    #[error("invalid journal settings: {0}")]
    InvalidSettings(String),
    /// No LSN, or no segment number, is left.
    #[error("the log has no numbers left")]
    NumbersExhausted,
}

impl Error {
    /// For `map_err`: names what was tried and on what.
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    /// Whether the reason is a lack of space, which passes when something is deleted.
    pub(super) fn is_lack_of_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_lack_of_space(source))
    }
}

pub(super) fn is_lack_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// The error and its causes in one line.
pub(super) fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}

/// Why there is no room for an entry. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The quota or the disk is used up. It passes when segments are let go or the disk is given space.
    #[error("the log is full")]
    Full,
    /// The disk refuses writes or syncs. It is tried again.
    #[error("the log cannot be written: {message}")]
    Failing {
        /// What the system said.
        message: String,
    },
    /// More is promised and not yet written than two segments hold, or too many entries wait; it passes with the next
    /// commits.
    #[error("the log has not kept up with what is promised")]
    Behind,
    /// No segment is large enough.
    #[error("an entry of {bytes} bytes is larger than the {bytes_max} that a segment takes")]
    TooLarge {
        /// The entry's size.
        bytes: u64,
        /// The largest size.
        bytes_max: u64,
    },
    /// No LSN is left.
    #[error("the log has no numbers left")]
    NumbersExhausted,
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// Why nothing more could be read just now. The reader stays where it was and may be asked again.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct ReadError {
    /// The segment.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}
