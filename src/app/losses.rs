//! What is damaged or missing on disk, in the words that a start logs and `bailiwick journal verify` prints.

use std::fmt;
use std::path::Path;

use crate::domain::name::DestinationName;
use crate::domain::printable;
use crate::durable::checkpoint;
use crate::egress::delivery::Cursor;
use crate::storage::{Damage, Error, FileSystem, Lsn, Slots, Stored, Wrong, write_file_durably};

/// How much of a log is damaged or missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged {
    /// Which log.
    pub(super) of: &'static str,
    /// In how many places.
    pub(super) places: usize,
}

/// Something that is damaged or missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// Entries of the journal cannot be read.
    Journal {
        /// Which.
        damage: Damage,
        /// Everything through this position is in the checkpoint.
        counted: Lsn,
    },
    /// The journal begins later than the checkpoint ends.
    Between {
        /// Everything through this position is in the checkpoint; 0 when there is none.
        counted: Lsn,
        /// The first position that the journal holds.
        first: Lsn,
    },
    /// Entries of the outbox cannot be read.
    Outbox {
        /// Which.
        damage: Damage,
    },
    /// The outbox begins later than a destination has confirmed.
    Unsent {
        /// The destination's name.
        destination: String,
        /// The first position that the outbox holds.
        first: Lsn,
    },
    /// A checkpoint cannot be read.
    Checkpoint {
        /// The file's name.
        file: String,
        /// Whether one before it is used.
        has_before: bool,
    },
    /// A log has no segment, and a gateway has run here.
    Emptied {
        /// Its directory's name.
        log: &'static str,
    },
    /// Entries of the counters of laws cannot be read, or all are gone.
    Counters {
        /// Which.
        damage: Damage,
    },
    /// An entry of the counters is of no known kind, or the secret is missing that persons are known by.
    CountersUnknown {
        /// What it is.
        what: String,
    },
    /// Entries of the budgets of privacy cannot be read.
    Privacy {
        /// Which.
        damage: Damage,
    },
    /// An entry of the budgets of privacy is of no known kind, or their log has lost its beginning.
    PrivacyUnknown {
        /// What it is.
        what: String,
    },
    /// A destination's budget of bytes cannot be read.
    Budget {
        /// The destination's name.
        destination: String,
    },
    /// A destination's cursor cannot be read.
    Cursor {
        /// The destination's name.
        destination: String,
    },
}

impl Loss {
    /// What is wrong with the journal, of which a checkpoint has counted everything through a position.
    #[must_use]
    pub fn of_journal(damage: &[Damage], first: Lsn, counted: Lsn) -> Vec<Self> {
        let mut losses: Vec<_> =
            damage.iter().map(|damage| Self::Journal { damage: damage.clone(), counted }).collect();
        // A gap that is damage already is not said twice.
        let is_said =
            damage.iter().any(|damage| damage.lsns.1.saturating_add(1) >= first && damage.lsns.0 <= counted + 1);
        if first > counted.saturating_add(1) && !is_said {
            losses.push(Self::Between { counted, first });
        }
        losses
    }

    /// Whether somebody removed all that a log holds. A gateway that ran here said that its logs had begun, and a log always has
    /// a segment. So this is asked before the log is opened, which makes one.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn of_emptied(fs: &dyn FileSystem, journal: &Path, log: &'static str) -> Result<Option<Self>, Error> {
        let begun = journal.join(BEGUN);
        let has_run = fs.kind(&begun).map_err(|source| Error::Io { doing: "look up", path: begun, source })?.is_some();
        Ok((has_run && !has_segment(fs, journal, log)?).then_some(Self::Emptied { log }))
    }

    /// What is wrong with the outbox: its entries, and the cursors of destinations that it holds releases for.
    ///
    /// # Errors
    /// When a cursor's file cannot be read.
    pub fn of_outbox<'d>(
        fs: &dyn FileSystem,
        cursors: &Path,
        damage: &[Damage],
        first: Lsn,
        destinations: impl Iterator<Item = &'d DestinationName>,
    ) -> Result<Vec<Self>, Error> {
        let mut losses: Vec<_> = damage.iter().map(|damage| Self::Outbox { damage: damage.clone() }).collect();
        for destination in destinations {
            let destination = String::from(destination);
            match Slots::peek(fs, &cursors.join(&destination))? {
                // A new destination: it gets what the outbox still holds.
                Stored::Missing => {}
                Stored::Damaged => losses.push(Self::Cursor { destination }),
                Stored::Value(_) if Cursor::peek(fs, cursors, &destination)?.has_all(first.saturating_sub(1)) => {}
                Stored::Value(_) => losses.push(Self::Unsent { destination, first }),
            }
        }
        Ok(losses)
    }

    /// Which files of checkpoints are newer than the one that is used, and so are damaged. The files are listed before
    /// one is chosen: a gateway that runs makes new ones.
    #[must_use]
    pub fn of_checkpoints(files: Vec<String>, used: Option<Lsn>) -> Vec<Self> {
        let lsn = |file: &str| file.strip_prefix("checkpoint-").and_then(|lsn| lsn.parse::<Lsn>().ok());
        let damaged = files.into_iter().filter(|file| lsn(file) > used.or(Some(0)));
        damaged.map(|file| Self::Checkpoint { file, has_before: used.is_some() }).collect()
    }

    /// The entries that are lost for certain or perhaps: first and last.
    #[must_use]
    pub fn lsns(&self) -> Option<(Lsn, Lsn)> {
        match self {
            Self::Journal { damage, .. }
            | Self::Outbox { damage }
            | Self::Counters { damage }
            | Self::Privacy { damage } => Some(damage.lsns),
            Self::Between { counted, first } => Some((counted.saturating_add(1), first.saturating_sub(1))),
            Self::Unsent { .. }
            | Self::Checkpoint { .. }
            | Self::Emptied { .. }
            | Self::Cursor { .. }
            | Self::Budget { .. }
            | Self::CountersUnknown { .. }
            | Self::PrivacyUnknown { .. } => None,
        }
    }
}

/// What becomes of counters of which something is missing. A repair would only hide it.
const COUNTS_LOST: &str =
    "counts were lost: no counter of a law has room until its period is over; a repair leaves it as it is";

/// What becomes of budgets of privacy of which something is missing.
const SPENT_UNKNOWN: &str = "what was spent of the budgets of privacy is not known: nothing is left of the days through today; a \
                             repair leaves it as it is";

impl fmt::Display for Loss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal { damage, counted } => {
                let (first, last) = damage.lsns;
                place(formatter, damage)?;
                if last <= *counted {
                    return formatter.write_str("nothing is lost: the checkpoint has counted them");
                }
                write!(formatter, "lost: up to {} entries", last - first.max(counted + 1) + 1)
            }
            Self::Between { counted, first } => {
                let (from, to) = (counted + 1, first - 1);
                let before = if *counted == 0 { "there is no checkpoint" } else { "the checkpoint ends before them" };
                write!(
                    formatter,
                    "entries {from} to {to} are missing: {before}, and the journal begins after them; lost: up to {} \
                     entries",
                    to - from + 1
                )
            }
            Self::Outbox { damage } => {
                let (first, last) = damage.lsns;
                place(formatter, damage)?;
                write!(formatter, "lost, unless they were sent: up to {} entries", last - first + 1)
            }
            Self::Counters { damage } => {
                place(formatter, damage)?;
                formatter.write_str(COUNTS_LOST)
            }
            Self::CountersUnknown { what } => write!(formatter, "{}; {COUNTS_LOST}", printable::line(what)),
            Self::Privacy { damage } => {
                place(formatter, damage)?;
                formatter.write_str(SPENT_UNKNOWN)
            }
            Self::PrivacyUnknown { what } => write!(formatter, "{}; {SPENT_UNKNOWN}", printable::line(what)),
            Self::Unsent { destination, first } => write!(
                formatter,
                "releases for destination {} are missing: the outbox begins at {first}, after what it has confirmed",
                printable::line(destination)
            ),
            Self::Checkpoint { file, has_before } => {
                write!(formatter, "{} is damaged; {}", printable::line(file), checkpoint::instead(*has_before))
            }
            Self::Emptied { log } => write!(
                formatter,
                "`{log}` holds no segment, and a gateway has run here: what it held is lost, but for what the checkpoint \
                 has counted"
            ),
            Self::Budget { destination } => {
                write!(
                    formatter,
                    "the budget of destination {} is damaged: it begins empty",
                    printable::line(destination)
                )
            }
            Self::Cursor { destination } => write!(
                formatter,
                "the cursor of destination {} is damaged: what the outbox holds is sent again",
                printable::line(destination)
            ),
        }
    }
}

/// The file of the journal's directory that says that the journal and the outbox have begun: each has had a segment. It holds
/// its version.
const BEGUN: &str = "begun";

/// From now on, a log without a segment was emptied. On a full disk the first segment may still be to come.
///
/// # Errors
/// When the file cannot be written, or a directory cannot be read.
pub(super) fn have_begun(fs: &dyn FileSystem, journal: &Path) -> Result<(), Error> {
    if has_segment(fs, journal, "log")? && has_segment(fs, journal, "outbox")? {
        write_file_durably(fs, &journal.join(BEGUN), b"1\n")?;
    }
    Ok(())
}

fn has_segment(fs: &dyn FileSystem, journal: &Path, log: &str) -> Result<bool, Error> {
    let path = journal.join(log);
    let names = fs.kind(&path).and_then(|kind| kind.map_or(Ok(Vec::new()), |_| fs.list(&path)));
    let names = names.map_err(|source| Error::Io { doing: "list", path, source })?;
    Ok(names.iter().any(|(name, _)| name.ends_with(".segment")))
}

fn place(formatter: &mut fmt::Formatter<'_>, damage: &Damage) -> fmt::Result {
    let what = match damage.what {
        Wrong::Header => "the header cannot be read",
        Wrong::Frames => "frames cannot be read",
        Wrong::Missing => "entries are missing",
    };
    let (first, last) = damage.lsns;
    if !damage.file.is_empty() {
        let bytes = &damage.bytes;
        write!(formatter, "in {}, bytes {} to {}: ", printable::line(&damage.file), bytes.start, bytes.end)?;
    }
    write!(formatter, "{what}, {first} to {last}; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damage(first: Lsn, last: Lsn) -> Damage {
        Damage { file: String::new(), bytes: 0..0, lsns: (first, last), what: Wrong::Missing }
    }

    #[test]
    fn what_lies_between_the_checkpoint_and_the_first_entry_is_said_once() {
        assert_eq!(Loss::of_journal(&[], 11, 10), []);
        assert_eq!(Loss::of_journal(&[], 1, 0), []);
        let between = Loss::of_journal(&[], 21, 10);
        assert_eq!(between, [Loss::Between { counted: 10, first: 21 }]);
        assert_eq!(
            between[0].to_string(),
            "entries 11 to 20 are missing: the checkpoint ends before them, and the journal begins after them; lost: up \
             to 10 entries"
        );
        let known = Loss::of_journal(&[damage(11, 20)], 21, 10);
        assert_eq!(known, [Loss::Journal { damage: damage(11, 20), counted: 10 }]);
    }

    #[test]
    fn what_the_checkpoint_has_counted_is_not_lost() {
        let text = |counted| Loss::Journal { damage: damage(5, 9), counted }.to_string();
        assert_eq!(text(9), "entries are missing, 5 to 9; nothing is lost: the checkpoint has counted them");
        assert_eq!(text(6), "entries are missing, 5 to 9; lost: up to 3 entries");
        assert_eq!(text(0), "entries are missing, 5 to 9; lost: up to 5 entries");
    }
}
