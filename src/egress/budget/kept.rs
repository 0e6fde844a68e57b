//! A budget as it is on disk.
//!
//! ```text
//! magic    "bwbudget"
//! version  u32
//! left     u64: bytes that were left
//! at       i64: when, in microseconds since the Unix epoch
//! paid     u64: the last position of the outbox that was paid for; the greatest number after a start without a budget
//! shed     u64: the last position that is not to be sent
//! of       text: the dataset whose file that is; empty where releases leave one by one
//! file     u8: whether a file was paid for; then of the last one: its last position (u64), its dataset (text), and a hash
//!          of it (16 bytes)
//! forms    count; then each form (`Reduction`) that entries have which were paid for and may not have been confirmed
//! entries  count; then of each of these entries its position (u64), its dataset (text, as `of`), and its form (u32: a place
//!          in `forms`). Where releases leave one by one, those that leave whole are not in it
//! told     count; then of each dataset of which something was told where only what has changed may leave, the newest first:
//!          its name (text), the position of what was told last (u64), the id that it has there (text), and the id under which
//!          it left (text)
//! ```
//!
//! Version 1 ends before `of`, version 2 before `forms`, version 3 before `told`. Files of several datasets may end at one
//! position: the dataset says which one is meant.

use std::sync::Arc;

use crate::domain::binary::{Reader, Writer};
use crate::domain::name::DatasetName;
use crate::domain::policy::Reduction;
use crate::domain::table::Fingerprint;
use crate::storage::Lsn;

use super::Parcel;
use super::told::Told;

const MAGIC: [u8; 8] = *b"bwbudget";
/// The version that this program writes.
pub(super) const VERSION: u32 = 4;
/// No position: nothing was shed.
pub(super) const NONE: (Lsn, Option<DatasetName>) = (0, None);

/// What is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) left: u64,
    pub(super) at: i64,
    pub(super) paid: Lsn,
    pub(super) shed: (Lsn, Option<DatasetName>),
    pub(super) file: Option<(Lsn, Option<DatasetName>, Fingerprint)>,
    pub(super) forms: Forms,
    pub(super) told: Told,
}

/// In which form entries leave that were paid for. They leave in no other, however often they are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forms(Vec<(Lsn, Option<DatasetName>, Arc<Reduction>)>);

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Kept(Kept),
    Newer(u32),
    Unreadable,
}

impl Forms {
    /// That of an entry, or of the file of a dataset that ends with it; `None`: it was not paid for, or leaves whole.
    #[must_use]
    pub fn of(&self, parcel: Parcel<'_>) -> Option<&Reduction> {
        self.0.iter().find(|(at, dataset, _)| parcel.is(*at, dataset.as_ref())).map(|(.., form)| form.as_ref())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes of what has changed, where only that leaves.
    pub(super) fn bytes_of_changes(&self) -> usize {
        let changes = self.0.iter().filter(|(.., form)| form.changes().is_some());
        let bytes = changes.map(|(.., form)| {
            let mut writer = Writer::default();
            form.encode(&mut writer);
            writer.len()
        });
        bytes.sum()
    }

    /// With one more, and without those that are confirmed. A dataset has one file at a time.
    pub(super) fn with(&self, parcel: Parcel<'_>, form: Option<&Reduction>, confirmed: Lsn) -> Self {
        let is_other = |at: Lsn, dataset: &Option<DatasetName>| match parcel.of {
            Some(of) => dataset.as_ref() != Some(of),
            None => at != parcel.lsn,
        };
        let stay = self.0.iter().filter(|(at, dataset, _)| *at > confirmed && is_other(*at, dataset)).cloned();
        Self(stay.chain(form.map(|form| (parcel.lsn, parcel.of.cloned(), Arc::new(form.clone())))).collect())
    }

    /// Those of positions that there are.
    pub(super) fn through(mut self, last: Lsn) -> Self {
        self.0.retain(|(lsn, ..)| *lsn <= last);
        self
    }
}

/// The name of a dataset as it is on disk: nothing stands for none.
fn text(of: &Option<DatasetName>) -> &str {
    of.as_deref().unwrap_or_default()
}

#[expect(clippy::option_option, reason = "the outer one: the bytes are none; the inner one: there is no dataset")]
fn read_of(reader: &mut Reader<'_>) -> Option<Option<DatasetName>> {
    match reader.text()? {
        "" => Some(None),
        name => DatasetName::new(name).ok().map(Some),
    }
}

impl Kept {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(&MAGIC).u32(VERSION).u64(self.left).i64(self.at).u64(self.paid).u64(self.shed.0);
        writer.text(text(&self.shed.1)).u8(self.file.is_some().into());
        if let Some((lsn, of, file)) = &self.file {
            writer.u64(*lsn).text(text(of)).raw(file.bytes());
        }
        // A form is long, and most entries have the same.
        let mut forms: Vec<&Reduction> = Vec::new();
        let mut entries = Writer::default();
        entries.count(self.forms.0.len());
        for (lsn, of, form) in &self.forms.0 {
            let place = forms.iter().position(|known| *known == form.as_ref()).unwrap_or(forms.len());
            if place == forms.len() {
                forms.push(form);
            }
            entries.u64(*lsn).text(text(of)).u32(u32::try_from(place).unwrap_or(u32::MAX));
        }
        writer.count(forms.len());
        forms.iter().for_each(|form| form.encode(&mut writer));
        writer.raw(&entries.finish());
        self.told.encode(&mut writer);
        writer.finish()
    }

    /// The same, but that nothing is left at a time: of a budget's two slots the other one is damaged, and may have held a
    /// later payment. What is of no known version stays as it is.
    pub(super) fn emptied(bytes: Vec<u8>, at: i64) -> Vec<u8> {
        match Self::decode(&bytes) {
            Decoded::Kept(kept) => Self { left: 0, at, ..kept }.encode(),
            Decoded::Newer(_) | Decoded::Unreadable => bytes,
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Decoded {
        let mut reader = Reader::new(bytes.strip_prefix(&MAGIC).unwrap_or_default());
        match reader.u32() {
            Some(version @ 1..=VERSION) => Self::fields(version, reader).map_or(Decoded::Unreadable, Decoded::Kept),
            Some(version) if version > VERSION => Decoded::Newer(version),
            Some(_) | None => Decoded::Unreadable,
        }
    }

    fn fields(version: u32, mut reader: Reader<'_>) -> Option<Self> {
        let (left, at, paid, shed) = (reader.u64()?, reader.i64()?, reader.u64()?, reader.u64()?);
        let (mut of, mut file, mut forms) = (None, None, Vec::new());
        if version > 1 {
            of = read_of(&mut reader)?;
            file = match reader.u8()? {
                0 => None,
                1 => Some((reader.u64()?, read_of(&mut reader)?, Fingerprint::from_bytes(reader.array()?))),
                _ => return None,
            };
        }
        if version > 2 {
            let distinct = 0..reader.count(8)?;
            let distinct = distinct.map(|_| Reduction::decode(&mut reader).map(Arc::new));
            let distinct: Vec<Arc<Reduction>> = distinct.collect::<Option<_>>()?;
            for _ in 0..reader.count(8 + 8 + 4)? {
                let (lsn, of, place) = (reader.u64()?, read_of(&mut reader)?, reader.u32()?);
                forms.push((lsn, of, Arc::clone(distinct.get(usize::try_from(place).ok()?)?)));
            }
        }
        let told = if version > 3 { Told::decode(&mut reader)? } else { Told::default() };
        reader.is_empty().then_some(Self { left, at, paid, shed: (shed, of), file, forms: Forms(forms), told })
    }
}
