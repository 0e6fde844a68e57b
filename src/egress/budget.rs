//! How many bytes may leave for a destination: a bucket that fills evenly. Releases, or files of them, are paid from
//! it. It is on disk before anything leaves (`kept`), so a crash can lose bytes of the budget and never gives any back. If a
//! crash makes the gateway write the same file again, that file is not paid for again.
//!
//! Where the bytes do not suffice for the whole of a release, smaller forms of it are tried, in a declared order. With the
//! payment it is on disk which one leaves, so that it never leaves in two.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::domain::name::{DatasetName, DestinationName};
use crate::domain::policy::{Changes, Reduction, Released};
use crate::domain::table::Fingerprint;
use crate::storage::{self, FileSystem, Lsn, SLOT_BYTES_MAX, Slots, Stored};

mod kept;
mod told;

pub use kept::Forms;
pub use told::Leaving;

use kept::{Decoded, Kept, NONE, VERSION};
use told::Told;

/// So many entries that leave smaller are on their way together, at most: each payment writes them all.
const SMALLER_MAX: usize = 256;
/// So many bytes are on disk of what has changed, at most, where only that leaves.
const CHANGES_BYTES_MAX: usize = 24 << 10;
/// A release leaves as what has changed if that takes no more of them.
const CHANGE_BYTES_MAX: usize = 16 << 10;
/// So many bytes stay free when a release leaves smaller, for releases that leave whole.
const FREE_BYTES: usize = 4 << 10;

/// What may leave for a destination, and what becomes of a release that it does not suffice for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The most bytes that the bucket holds. It is full at first.
    pub bytes: u64,
    /// In this time as many bytes come into it.
    pub per: Duration,
    /// The datasets whose releases are left out first when the bytes do not suffice, because one with longer windows adds
    /// their rows up for the same destination; and which one that is.
    pub widened: BTreeMap<DatasetName, DatasetName>,
    /// The smaller forms of a release, in the order in which they are tried when the bytes do not suffice for the whole.
    pub smaller: Vec<Reduction>,
    /// After so long a release that waits for bytes is shed. `None`: it waits for as long as it takes.
    pub sheds_after: Option<Duration>,
    /// The datasets that come first, the most important one at the beginning. All others come after them.
    pub first: Vec<DatasetName>,
}

impl Settings {
    /// Whether releases may leave as what has changed since what was told last: that is the first of the smaller forms.
    #[must_use]
    pub fn tells_changes(&self) -> bool {
        self.smaller.first().is_some_and(|form| form.changes().is_some())
    }

    /// How important a dataset is: 0 is the most.
    #[must_use]
    pub fn rank(&self, dataset: &DatasetName) -> usize {
        self.first.iter().position(|first| first == dataset).unwrap_or(self.first.len())
    }
}

/// Why a budget cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] storage::Error),
    /// A later version of the program wrote it.
    #[error(
        "the budget of destination `{destination}` has version {version}; this program reads versions up to {VERSION}. \
         Run the program that wrote it"
    )]
    Newer {
        /// The destination.
        destination: String,
        /// The version.
        version: u32,
    },
}

/// What is decided on, and paid for, as one: an entry of the outbox, or a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parcel<'p> {
    /// The position in the outbox; of a file that of its last release.
    pub lsn: Lsn,
    /// The dataset whose file it is. `None` where releases leave one by one.
    pub of: Option<&'p DatasetName>,
}

impl Parcel<'_> {
    /// Whether it is the one that the disk says.
    fn is(&self, lsn: Lsn, of: Option<&DatasetName>) -> bool {
        (self.lsn, self.of) == (lsn, of)
    }
}

/// An entry of the outbox that is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Which.
    pub parcel: Parcel<'a>,
    /// The bytes that it takes, as a whole or in the form that is decided.
    pub bytes: u64,
    /// Whether datasets with longer windows add up all of its rows ([`Budget::is_widened`]).
    pub is_widened: bool,
    /// The bytes that its smaller forms take, in the order of [`Settings::smaller`]; none before they were made.
    pub smaller: &'a [u64],
    /// Whether the first of them leaves only what has changed.
    pub tells_changes: bool,
    /// The bytes that more important ones take that wait behind it, by estimate.
    pub ahead: u64,
    /// How long it has waited.
    pub waited: Duration,
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is paid for, then sent: 0 as it is, otherwise in the smaller form of this number.
    Send(usize),
    /// There are too few bytes now.
    Wait,
    /// It is not sent: datasets with longer windows have its rows.
    Widen,
    /// It is not sent at all.
    Shed,
    /// It takes more bytes than there can ever be.
    TooLarge,
}

/// How full a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// What was left at a monotonic time.
    left: u64,
    since: Duration,
    bytes: u64,
    per: Duration,
}

impl Level {
    /// The bytes that are left at a monotonic time.
    #[must_use]
    pub fn left(&self, now: Duration) -> u64 {
        self.left_after(now.saturating_sub(self.since))
    }

    /// What was left, and what came since; never more than the bucket holds.
    fn left_after(&self, elapsed: Duration) -> u64 {
        let came = u128::from(self.bytes) * elapsed.as_micros() / self.per.as_micros().max(1);
        self.left.saturating_add(u64::try_from(came).unwrap_or(u64::MAX)).min(self.bytes)
    }
}

/// The budget of one destination.
pub struct Budget {
    settings: Settings,
    slots: Slots,
    level: Level,
    paid: Lsn,
    shed: (Lsn, Option<DatasetName>),
    file: Option<(Lsn, Option<DatasetName>, Fingerprint)>,
    forms: Forms,
    /// Nothing, unless releases may leave as what has changed.
    told: Told,
    /// The end of the outbox when it was opened.
    before: Lsn,
}

/// What may leave in smaller forms: one entry, or a file of a dataset.
#[derive(Clone, Copy)]
pub struct Whole<'w> {
    /// The position of the first of its releases.
    pub first: Lsn,
    /// Which they are together.
    pub parcel: Parcel<'w>,
    /// Its releases.
    pub releases: &'w [Released],
    /// Everything through this position of the outbox is confirmed.
    pub confirmed: Lsn,
}

/// What is paid for.
#[derive(Clone, Copy)]
pub struct Payment<'p> {
    /// Which entry, or file.
    pub parcel: Parcel<'p>,
    /// The form in which it leaves.
    pub form: &'p Reduction,
    /// The bytes that it takes.
    pub bytes: u64,
    /// Everything through this position of the outbox is confirmed.
    pub confirmed: Lsn,
    /// The releases.
    pub leaving: Leaving<'p>,
}

impl Budget {
    /// Opens the budget of a destination, below a directory. `last` is the end of the outbox: what it holds by now may have
    /// been sent before there was a budget, and is not shed.
    ///
    /// # Errors
    /// When it cannot be read, or a later version of the program wrote it.
    pub fn open(
        fs: &Arc<dyn FileSystem>,
        directory: &Path,
        destination: &DestinationName,
        settings: Settings,
        last: Lsn,
        at: Moment,
    ) -> Result<Self, Error> {
        storage::create_directories(&**fs, directory)?;
        let path = directory.join(destination.as_str());
        let (slots, stored) = Self::slots(fs, &path, destination, at)?;
        let is_new = stored == Stored::Missing;
        let decoded = match stored {
            Stored::Missing if Slots::was_set_aside(&**fs, &path)? => Decoded::Unreadable,
            Stored::Missing => Decoded::Kept(Kept {
                left: settings.bytes,
                at: at.wall,
                paid: last,
                shed: NONE,
                file: None,
                forms: Forms::default(),
                told: Told::default(),
            }),
            Stored::Value(bytes) => Kept::decode(&bytes),
            Stored::Damaged => Decoded::Unreadable,
        };
        let kept = match decoded {
            Decoded::Kept(kept) => kept,
            Decoded::Newer(version) => return Err(Error::Newer { destination: destination.into(), version }),
            Decoded::Unreadable => {
                tracing::error!(
                    destination = destination.as_str(),
                    "the budget is damaged and begins empty. Check the disk"
                );
                let (forms, told) = (Forms::default(), Told::default());
                Kept { left: 0, at: at.wall, paid: last, shed: NONE, file: None, forms, told }
            }
        };
        // A clock that was set back fills nothing; one that was set forward fills it once.
        let elapsed = Duration::from_micros(u64::try_from(at.wall.saturating_sub(kept.at)).unwrap_or(0));
        let level = Level { left: kept.left, since: at.now, bytes: settings.bytes, per: settings.per };
        let level = Level { left: level.left_after(elapsed), ..level };
        // Positions beyond the end are those of another outbox.
        let (paid, shed) = (kept.paid.min(last), if kept.shed.0 > last { NONE } else { kept.shed });
        let (file, forms) = (kept.file.filter(|(lsn, ..)| *lsn <= last), kept.forms.through(last));
        // Without the step, nothing says any more what was told last.
        let told = if settings.tells_changes() { kept.told.through(last) } else { Told::default() };
        let mut budget = Self { settings, slots, level, paid, shed, file, forms, told, before: last };
        // What comes into the outbox from now on is not from before there was a budget, also if nothing is paid until a crash.
        if is_new && let Err(error) = budget.keep(budget.kept(level.left, at), at) {
            tracing::warn!(%error, destination = destination.as_str(), "the budget is not on disk yet: check the disk");
        }
        Ok(budget)
    }

    /// Opens its slots. A crash that tore a write looks like damage of what was written last. Then nothing has left since the
    /// slot before; with damage, the payment did.
    fn slots(
        fs: &Arc<dyn FileSystem>,
        path: &Path,
        destination: &DestinationName,
        at: Moment,
    ) -> Result<(Slots, Stored), storage::Error> {
        Slots::open_or(Arc::clone(fs), path, |value| {
            tracing::error!(
                destination = destination.as_str(),
                "a part of the budget is damaged, or a crash tore it: it begins empty, and what was paid for last may not be \
                 known. Without a crash before this start, check the disk"
            );
            Kept::emptied(value, at.wall)
        })
    }

    /// The gateway starts without a budget for a destination. What it sends now is not paid for. A budget that comes
    /// back does not shed it, and has what was left. Nothing is written if there was no budget, or if the disk says so
    /// already. What was paid for in a smaller form leaves in that form, also without a budget: so many positions the outbox
    /// has.
    ///
    /// # Errors
    /// When it cannot be read or written, or a later version of the program wrote it.
    pub fn suspend(
        fs: &Arc<dyn FileSystem>,
        directory: &Path,
        destination: &DestinationName,
        last: Lsn,
        at: Moment,
    ) -> Result<Forms, Error> {
        let path = directory.join(destination.as_str());
        let Stored::Value(bytes) = Slots::peek(&**fs, &path)? else { return Ok(Forms::default()) };
        let is_damaged = Slots::has_damage(&**fs, &path)?;
        match Kept::decode(&bytes) {
            Decoded::Newer(version) => Err(Error::Newer { destination: destination.into(), version }),
            // It begins empty, with all paid for.
            Decoded::Unreadable => Ok(Forms::default()),
            Decoded::Kept(Kept { paid: Lsn::MAX, shed: (0, _), forms, told, .. })
                if told == Told::default() && !is_damaged =>
            {
                Ok(forms.through(last))
            }
            Decoded::Kept(kept) => {
                let forms = kept.forms.clone().through(last);
                let (mut slots, _) = Self::slots(fs, &path, destination, at)?;
                let kept = if is_damaged { Kept { left: 0, at: at.wall, ..kept } } else { kept };
                slots.write(&Kept { paid: Lsn::MAX, shed: NONE, told: Told::default(), ..kept }.encode())?;
                Ok(forms)
            }
        }
    }

    /// The bytes that the budget of a destination had left when it was written last, and when that was, in microseconds since
    /// the Unix epoch. `None`: it is damaged, as a whole or in part, and begins empty. Reads only, also beside a gateway that runs.
    ///
    /// # Errors
    /// When it cannot be read, or a later version of the program wrote it.
    pub fn peek(fs: &dyn FileSystem, directory: &Path, destination: &str) -> Result<Option<(u64, i64)>, Error> {
        let path = directory.join(destination);
        let is_damaged = Slots::has_damage(fs, &path)?;
        let Stored::Value(bytes) = Slots::peek(fs, &path)? else { return Ok(None) };
        match Kept::decode(&bytes) {
            Decoded::Kept(Kept { left, at, .. }) => Ok(Some((left, at)).filter(|_| !is_damaged)),
            Decoded::Newer(version) => Err(Error::Newer { destination: destination.to_owned(), version }),
            Decoded::Unreadable => Ok(None),
        }
    }

    /// What it is.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How full it is, now and later, as long as nothing is paid.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// In which forms entries leave that were paid for.
    #[must_use]
    pub fn forms(&self) -> &Forms {
        &self.forms
    }

    /// Whether an entry, or a file of a dataset, was paid for. It may have left, so it leaves in no other form.
    #[must_use]
    pub fn is_paid(&self, parcel: Parcel<'_>) -> bool {
        let file = self.file.as_ref().filter(|(at, of, _)| parcel.is(*at, of.as_ref()));
        parcel.lsn <= self.paid || file.is_some() || self.forms.of(parcel).is_some()
    }

    /// The smaller forms that releases may leave in. None if they were paid for. What was there before the start is not added
    /// up: policies may say something else of its metrics since. A form that the file has no room for is none: forms of an
    /// earlier configuration can be there, too.
    #[must_use]
    pub fn smaller(&self, whole: Whole<'_>) -> Vec<Reduction> {
        let forms = self.settings.smaller.iter().filter(|_| !self.is_paid(whole.parcel));
        let is_known = |form: &&Reduction| whole.first > self.before || !form.adds_up();
        let forms = forms.filter(is_known);
        forms
            .filter_map(|form| if form.changes().is_some() { self.changes(whole) } else { Some(form.clone()) })
            .filter(|form| self.has_room(whole, form))
            .collect()
    }

    /// Whether the file holds a payment in this form, and what may be told last then.
    fn has_room(&self, whole: Whole<'_>, form: &Reduction) -> bool {
        let forms = self.forms.with(whole.parcel, Some(form), whole.confirmed);
        let kept = Kept { forms, told: Told::default(), ..self.kept(0, Moment { now: Duration::ZERO, wall: 0 }) };
        let told = if self.settings.tells_changes() { told::BYTES_MAX } else { 0 };
        kept.encode().len() + told + FREE_BYTES <= SLOT_BYTES_MAX
    }

    /// That only what has changed leaves. `None`: it takes more on disk than there is room for.
    fn changes(&self, whole: Whole<'_>) -> Option<Reduction> {
        let Whole { first, parcel, releases, confirmed } = whole;
        let form = Reduction::on_change(Changes::since(|dataset| self.told.before(dataset, first), releases));
        let alone = Forms::default().with(parcel, Some(&form), 0).bytes_of_changes();
        let all = self.forms.with(parcel, Some(&form), confirmed).bytes_of_changes();
        (alone <= CHANGE_BYTES_MAX && all <= CHANGES_BYTES_MAX).then_some(form)
    }

    /// Looks for what was told last. `find` has the destination's releases at a position of the outbox.
    pub fn recall(&mut self, find: &dyn Fn(Lsn) -> Vec<Released>) {
        self.told.recall(find);
    }

    /// Of datasets it is not known any more what was told last: something that was paid for did not leave. When it returns,
    /// that is on disk.
    ///
    /// # Errors
    /// When the file system refuses. It is to be asked for again.
    pub fn forget<'d>(
        &mut self,
        datasets: impl Iterator<Item = &'d DatasetName>,
        at: Moment,
    ) -> Result<(), storage::Error> {
        let Some(told) = self.told.without(datasets) else { return Ok(()) };
        let left = self.level.left(at.now);
        self.keep(Kept { told, ..self.kept(left, at) }, at)
    }

    /// The same of all datasets.
    ///
    /// # Errors
    /// When the file system refuses. It is to be asked for again.
    pub fn forget_all(&mut self, at: Moment) -> Result<(), storage::Error> {
        let all: Vec<DatasetName> = self.told.datasets().cloned().collect();
        self.forget(all.iter(), at)
    }

    /// Whether datasets with longer windows add up, for this destination, all rows of releases of datasets, the first of which
    /// is at a position of the outbox. What was there before the start may have been made under a configuration that did not
    /// add it up.
    #[must_use]
    pub fn is_widened<'d>(&self, first: Lsn, mut datasets: impl Iterator<Item = &'d DatasetName>) -> bool {
        first > self.before && datasets.all(|dataset| self.settings.widened.contains_key(dataset))
    }

    /// Whether so many entries leave smaller and are not confirmed that no other may.
    #[must_use]
    pub fn holds_many(&self) -> bool {
        let has_room = self.forms.bytes_of_changes() <= CHANGES_BYTES_MAX - CHANGE_BYTES_MAX;
        self.forms.len() >= SMALLER_MAX || !has_room
    }

    /// What becomes of an entry now. What was paid for before may have left: it is not shed any more, and leaves in the same
    /// form.
    #[must_use]
    pub fn decide(&self, asked: Asked<'_>, now: Duration) -> Decision {
        if asked.parcel.is(self.shed.0, self.shed.1.as_ref()) {
            return Decision::Shed;
        }
        let is_paid = self.is_paid(asked.parcel);
        let sheds_after = self.settings.sheds_after.filter(|_| !is_paid);
        let smaller: &[u64] = if is_paid { &[] } else { asked.smaller };
        let is_widened = asked.is_widened && !is_paid;
        // Who waits for as long as it takes takes nothing from others: they come after it.
        let ahead = if sheds_after.is_some() || is_widened { asked.ahead } else { 0 };
        let left = self.level.left(now);
        let suffices = |bytes: u64| bytes == 0 || bytes.saturating_add(ahead) <= left;
        let changes = smaller.first().copied().filter(|_| asked.tells_changes);
        if is_widened && !suffices(asked.bytes) {
            return if changes.is_some_and(suffices) { Decision::Send(1) } else { Decision::Widen };
        }
        if let Some(form) = std::iter::once(&asked.bytes).chain(smaller).position(|bytes| suffices(*bytes)) {
            return Decision::Send(form);
        }
        let is_ever = smaller.iter().fold(asked.bytes, |least, bytes| least.min(*bytes)) <= self.settings.bytes;
        match sheds_after {
            Some(after) if asked.waited >= after || !is_ever => Decision::Shed,
            _ if !is_ever => Decision::TooLarge,
            _ => Decision::Wait,
        }
    }

    /// Pays for an entry. When it returns, that is on disk, and the entry may be sent in this form, and in no other.
    ///
    /// # Errors
    /// When the file system refuses. Then nothing may be sent.
    pub fn pay(&mut self, payment: Payment<'_>, at: Moment) -> Result<(), storage::Error> {
        let Payment { parcel, form, bytes, confirmed, leaving } = payment;
        let left = self.level.left(at.now).saturating_sub(bytes);
        let forms = self.forms.with(parcel, Some(form).filter(|form| !form.is_whole()), confirmed);
        let told = self.told_after(parcel, leaving);
        self.keep(Kept { paid: self.paid.max(parcel.lsn), forms, told, ..self.kept(left, at) }, at)
    }

    /// Whether this file was the last one that was paid for.
    #[must_use]
    pub fn has_paid_for(&self, file: Fingerprint) -> bool {
        self.file.as_ref().is_some_and(|(.., paid)| *paid == file)
    }

    /// Pays for a file of a dataset. When it returns, that is on disk, and the file may be written, as often as it takes:
    /// until another one is paid for, it is not paid for again.
    ///
    /// # Errors
    /// When the file system refuses. Then nothing may be written.
    pub fn pay_for(&mut self, file: Fingerprint, payment: Payment<'_>, at: Moment) -> Result<(), storage::Error> {
        let Payment { parcel, form, bytes, confirmed, leaving } = payment;
        let left = self.level.left(at.now).saturating_sub(bytes);
        let forms = self.forms.with(parcel, Some(form), confirmed);
        let told = self.told_after(parcel, leaving);
        let file = Some((parcel.lsn, parcel.of.cloned(), file));
        self.keep(Kept { file, forms, told, ..self.kept(left, at) }, at)
    }

    /// What is told last once releases have left.
    fn told_after(&self, parcel: Parcel<'_>, leaving: Leaving<'_>) -> Told {
        if !self.settings.tells_changes() {
            return Told::default();
        }
        self.told.after(parcel.lsn, leaving, self.is_paid(parcel))
    }

    /// Decides for good that an entry, or a file of a dataset, is not sent ([`Asked`]). When it returns, that is on disk.
    ///
    /// # Errors
    /// When the file system refuses. It is to be asked for again.
    pub fn shed(&mut self, parcel: Parcel<'_>, at: Moment) -> Result<(), storage::Error> {
        let left = self.level.left(at.now);
        let shed = (parcel.lsn, parcel.of.cloned());
        self.keep(Kept { shed, ..self.kept(left, at) }, at)
    }

    /// What is kept when so much is left and nothing else changes.
    fn kept(&self, left: u64, at: Moment) -> Kept {
        let (paid, shed, file, forms) = (self.paid, self.shed.clone(), self.file.clone(), self.forms.clone());
        Kept { left, at: at.wall, paid, shed, file, forms, told: self.told.clone() }
    }

    fn keep(&mut self, kept: Kept, at: Moment) -> Result<(), storage::Error> {
        self.slots.write(&kept.encode())?;
        self.level = Level { left: kept.left, since: at.now, ..self.level };
        (self.paid, self.shed, self.file, self.forms) = (kept.paid, kept.shed, kept.file, kept.forms);
        self.told = kept.told;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
