//! Checkpoints: what the open windows, the watermarks and the producers' series were at a position of the
//! journal, so that the journal before it is no longer needed.
//!
//! A checkpoint is a file of its own, `checkpoint-LSN`, written whole: `BWCP`, version, then its parts
//! ([`domain::binary`](crate::domain::binary)), then the CRC-32C of all that. The last two are kept, and the
//! journal is kept from the last but one on: one that is damaged costs nothing but time.
//!
//! Version 2, which is still read, held the datasets' shapes as texts and no version before the cells of a window.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::aggregate::{self, ContributorKey};
use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::KeptShape;
use crate::domain::gateway::Gateway;
use crate::domain::name::DatasetName;
use crate::domain::outcome::Outcome;
use crate::domain::producer::Number;
use crate::domain::window::window_start;
use crate::storage::{Error, FileSystem, Lsn, create_directories, read_file, write_file_durably};

const MAGIC: &[u8; 4] = b"BWCP";
/// The version that is written. Versions 2 to 6 are read, too: in none of them rows are added up over windows, up to version 5
/// no cells wait, up to version 4 they have other forms of the gateway's state, and version 2 has no corrections.
pub const VERSION: u32 = 7;
const OLDEST_VERSION: u32 = 2;
/// The first version in which cells wait.
const FIRST_WITH_DEFERRED: u32 = 6;
/// The first version in which rows are added up over windows.
const FIRST_WITH_LONGER: u32 = 7;
const PREFIX: &str = "checkpoint-";
/// The largest checkpoint that is read.
const BYTES_MAX: u64 = 16 << 30;

/// A checkpoint.
pub struct Checkpoint {
    /// The version of its format.
    version: u32,
    /// Everything in the journal through this position is in it.
    pub lsn: Lsn,
    /// The secret under which the contributors are hashed.
    pub key: ContributorKey,
    /// Watermarks, closed windows, producers' marks: by [`Gateway::encode`](crate::domain::gateway::Gateway::encode).
    pub gateway: Vec<u8>,
    /// What requests before the position came to, as far as `gateway` has something else. None in a new one.
    corrections: Vec<Correction>,
    /// The shape of each dataset, with its name.
    pub shapes: Vec<(DatasetName, KeptShape)>,
    /// The cells of open windows; a window has a part per worker.
    pub windows: Vec<WindowPart>,
    /// What waits of the closed windows of a dataset, with its name: by
    /// [`Deferral::encode`](crate::domain::deferral::Deferral::encode).
    pub deferred: Vec<(DatasetName, Vec<u8>)>,
    /// What was added up of the longer windows of datasets that share their cells, with the name of the first: by
    /// [`Addition::encode`](crate::domain::policy::Addition::encode).
    pub longer: Vec<(DatasetName, Vec<u8>)>,
}

/// What a request came to in the end.
struct Correction {
    producer: Arc<str>,
    number: Number,
    outcome: Outcome,
}

/// A worker's part of an open window.
pub struct WindowPart {
    /// The dataset's name.
    pub dataset: DatasetName,
    /// The window's number.
    pub window: i64,
    /// By [`Cells::encode`](crate::domain::aggregate::Cells::encode).
    pub cells: Vec<u8>,
}

impl Checkpoint {
    /// A new one, still without windows. `gateway`: see the field.
    #[must_use]
    pub fn new(lsn: Lsn, key: ContributorKey, gateway: Vec<u8>, shapes: Vec<(DatasetName, KeptShape)>) -> Self {
        let (corrections, windows, deferred, longer) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { version: VERSION, lsn, key, gateway, corrections, shapes, windows, deferred, longer }
    }

    /// The newest checkpoint of a directory that is whole.
    ///
    /// # Errors
    /// When the directory cannot be read, or a newer version of this program wrote it.
    pub fn newest(fs: &dyn FileSystem, directory: &Path) -> Result<Option<Self>, Error> {
        let mut found = found(fs, directory)?;
        found.sort_unstable();
        while let Some(lsn) = found.pop() {
            let path = directory.join(name(lsn));
            let bytes = read_file(fs, &path, BYTES_MAX)?;
            if let Some(version) = bytes.as_deref().and_then(version).filter(|version| *version > VERSION) {
                return Err(Error::Newer { path, version });
            }
            let checkpoint = bytes.as_deref().and_then(Self::decode);
            if checkpoint.is_some() {
                return Ok(checkpoint);
            }
            tracing::error!(checkpoint = %path.display(), "a checkpoint is damaged; {}. Check the disk", instead(!found.is_empty()));
        }
        Ok(None)
    }

    /// Restores the gateway's state into a new gateway. `None`: the bytes are no such state.
    pub fn restore_gateway(&self, gateway: &mut Gateway, now: Duration) -> Option<()> {
        let mut reader = Reader::new(&self.gateway);
        match self.version {
            OLDEST_VERSION => return gateway.decode_v2(&mut reader, now),
            3 => gateway.decode_v3(&mut reader, now)?,
            4 => gateway.decode_v4(&mut reader, now)?,
            _ => gateway.decode(&mut reader, now)?,
        }
        for Correction { producer, number, outcome } in &self.corrections {
            gateway.producers.correct(producer, *number, outcome);
        }
        Some(())
    }

    /// The open windows of each dataset, each once: its number, and when it began, in microseconds since the Unix epoch,
    /// if the dataset's shape says how long a window is.
    #[must_use]
    pub fn open_windows(&self) -> BTreeMap<&DatasetName, BTreeMap<i64, Option<i64>>> {
        let mut open: BTreeMap<&DatasetName, BTreeMap<i64, Option<i64>>> = BTreeMap::new();
        for WindowPart { dataset, window, .. } in &self.windows {
            let shape = self.shapes.iter().find(|(name, _)| name == dataset);
            let size = shape.and_then(|(_, shape)| shape.window());
            open.entry(dataset).or_default().insert(*window, size.map(|size| window_start(*window, size)));
        }
        open
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(MAGIC).u32(self.version).u64(self.lsn).raw(&self.key.0).bytes(&self.gateway);
        writer.count(self.corrections.len());
        for Correction { producer, number, outcome } in &self.corrections {
            writer.text(producer).u64(number.epoch).u64(number.sequence).bytes(&outcome.encode());
        }
        writer.count(self.shapes.len());
        for (dataset, shape) in &self.shapes {
            writer.text(dataset);
            shape.encode(&mut writer);
        }
        writer.count(self.windows.len());
        for part in &self.windows {
            writer.text(&part.dataset).i64(part.window).bytes(&part.cells);
        }
        let later = [(FIRST_WITH_DEFERRED, &self.deferred), (FIRST_WITH_LONGER, &self.longer)];
        for (_, of_datasets) in later.into_iter().filter(|(first, _)| self.version >= *first) {
            writer.count(of_datasets.len());
            for (dataset, state) in of_datasets {
                writer.text(dataset).bytes(state);
            }
        }
        let mut bytes = writer.finish();
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let version = version(bytes).filter(|version| (OLDEST_VERSION..=VERSION).contains(version))?;
        let (bytes, _) = bytes.split_last_chunk::<4>()?;
        let mut reader = Reader::new(bytes.get(8..)?);
        let (lsn, key, gateway) = (reader.u64()?, ContributorKey(reader.array()?), reader.bytes()?.to_vec());
        let mut corrections = Vec::new();
        if version >= 3 {
            for _ in 0..reader.count(32)? {
                let producer = reader.text()?.into();
                let number = Number { epoch: reader.u64()?, sequence: reader.u64()? };
                corrections.push(Correction { producer, number, outcome: Outcome::decode(reader.bytes()?)? });
            }
        }
        let mut shapes = Vec::new();
        for _ in 0..reader.count(16)? {
            let dataset = DatasetName::read(&mut reader)?;
            let shape = match version {
                2 => KeptShape::Text(reader.text()?.to_owned()),
                _ => KeptShape::decode(&mut reader)?,
            };
            shapes.push((dataset, shape));
        }
        let mut windows = Vec::new();
        for _ in 0..reader.count(24)? {
            let dataset = DatasetName::read(&mut reader)?;
            let (window, cells) = (reader.i64()?, reader.bytes()?);
            let cells = if version == 2 { aggregate::as_version_1(cells) } else { cells.to_vec() };
            windows.push(WindowPart { dataset, window, cells });
        }
        let mut of_datasets = |first: u32| -> Option<Vec<(DatasetName, Vec<u8>)>> {
            let datasets = if version >= first { reader.count(16)? } else { 0 };
            (0..datasets).map(|_| Some((DatasetName::read(&mut reader)?, reader.bytes()?.to_vec()))).collect()
        };
        let (deferred, longer) = (of_datasets(FIRST_WITH_DEFERRED)?, of_datasets(FIRST_WITH_LONGER)?);
        reader.is_empty().then_some(Self { version, lsn, key, gateway, corrections, shapes, windows, deferred, longer })
    }
}

/// The version of a checkpoint that is whole. `None`: it is none, or damaged.
fn version(bytes: &[u8]) -> Option<u32> {
    let (bytes, checksum) = bytes.split_last_chunk()?;
    let mut reader = Reader::new(bytes);
    let is_whole = crc32c::crc32c(bytes) == u32::from_le_bytes(*checksum) && reader.raw(4)? == MAGIC;
    if is_whole { reader.u32() } else { None }
}

/// What becomes of a checkpoint that is damaged, by whether there is one before it.
#[must_use]
pub fn instead(has_before: bool) -> &'static str {
    if has_before {
        "the one before it is used"
    } else {
        "there is none before it: only what is still in the journal is counted"
    }
}

/// The directory of the checkpoints.
pub struct Checkpoints {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    /// The positions of the last two; 0: there is none.
    before: Lsn,
    last: Lsn,
}

impl Checkpoints {
    /// Opens the directory, and reads the newest checkpoint that is whole.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(fs: Arc<dyn FileSystem>, directory: PathBuf) -> Result<(Self, Option<Checkpoint>), Error> {
        create_directories(&*fs, &directory)?;
        let newest = Checkpoint::newest(&*fs, &directory)?;
        let last = newest.as_ref().map_or(0, |checkpoint| checkpoint.lsn);
        let before = found(&*fs, &directory)?.into_iter().filter(|lsn| *lsn < last).max().unwrap_or(0);
        Ok((Self { fs, directory, before, last }, newest))
    }

    /// The position of the last one; 0: there is none.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.last
    }

    /// Makes a checkpoint durable. Returns the position through which the journal is no longer needed. One at the position
    /// of the last one takes its place, and the one before stays.
    ///
    /// # Errors
    /// When it cannot be written; the ones before it stand.
    pub fn write(&mut self, checkpoint: &Checkpoint) -> Result<Lsn, Error> {
        write_file_durably(&*self.fs, &self.directory.join(name(checkpoint.lsn)), &checkpoint.encode())?;
        if checkpoint.lsn != self.last {
            self.before = std::mem::replace(&mut self.last, checkpoint.lsn);
        }
        for old in found(&*self.fs, &self.directory)?.into_iter().filter(|lsn| *lsn < self.before) {
            let path = self.directory.join(name(old));
            self.fs.remove(&path).map_err(|source| Error::Io { doing: "remove", path, source })?;
        }
        Ok(self.before)
    }
}

fn found(fs: &dyn FileSystem, directory: &Path) -> Result<Vec<Lsn>, Error> {
    let names = fs.list(directory).map_err(|source| Error::Io { doing: "list", path: directory.to_owned(), source })?;
    Ok(names.iter().filter_map(|(name, _)| lsn(name)).collect())
}

fn name(lsn: Lsn) -> String {
    format!("{PREFIX}{lsn:020}")
}

fn lsn(name: &str) -> Option<Lsn> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dataset::Dataset;
    use crate::domain::dataset::samples::plain;
    use crate::domain::name::StreamName;
    use crate::domain::newcomers::Newcomers;
    use crate::domain::outcome::{Refusals, Taken};
    use crate::domain::producer::{Came, Mark};
    use crate::domain::refusal::{Reason, Refusal};
    use crate::domain::stream::{Stream, Undeclared};
    use crate::domain::tally::{Tally, Told};
    use crate::domain::watermark::Heard;

    fn golden() -> DatasetName {
        "golden".parse().unwrap()
    }

    fn s() -> StreamName {
        "s".parse().unwrap()
    }

    /// A checkpoint as version 2 wrote it.
    fn version_2() -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(MAGIC).u32(2).u64(7).raw(&[9; 16]).bytes(b"gateway");
        writer.count(1).text("golden").text(include_str!("../../tests/golden/checkpoint-2-shape.txt"));
        writer.count(1).text("golden").i64(-3).bytes(include_bytes!("../../tests/golden/checkpoint-2-cells.bin"));
        let mut bytes = writer.finish();
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    #[test]
    fn a_checkpoint_of_version_2_is_read() {
        let checkpoint = Checkpoint::decode(&version_2()).unwrap();
        assert_eq!((checkpoint.version, checkpoint.lsn, checkpoint.key.0), (2, 7, [9; 16]));
        assert_eq!(checkpoint.gateway, b"gateway");
        let text = include_str!("../../tests/golden/checkpoint-2-shape.txt").to_owned();
        assert_eq!(checkpoint.shapes, [(golden(), KeptShape::Text(text))]);
        let [part] = checkpoint.windows.as_slice() else { panic!("one window") };
        assert_eq!((part.dataset.as_str(), part.window), ("golden", -3));
        assert_eq!(part.cells[0], 1);
        assert_eq!(part.cells[1..], *include_bytes!("../../tests/golden/checkpoint-2-cells.bin"));
    }

    #[test]
    fn a_checkpoint_of_version_3_is_read_as_it_is_written() {
        let old = Checkpoint::decode(&version_2()).unwrap();
        let number = Number { epoch: 4, sequence: 700 };
        let outcome = refused();
        let corrections = vec![Correction { producer: "till-7".into(), number, outcome }];
        let windows = vec![WindowPart { dataset: golden(), window: -3, cells: vec![1, 2, 3] }];
        let checkpoint = Checkpoint { version: 3, corrections, windows, ..old };
        let golden = include_str!("../../tests/golden/checkpoint-3.hex").trim();
        assert_eq!(hex(&checkpoint.encode()), golden);
        let read = Checkpoint::decode(&unhex(golden)).unwrap();
        let [correction] = read.corrections.as_slice() else { panic!("one correction") };
        assert_eq!((&*correction.producer, correction.number), ("till-7", number));
        assert_eq!((read.shapes, read.windows.len(), read.gateway), (checkpoint.shapes, 1, checkpoint.gateway));
    }

    /// The state of a gateway whose producers were heard at known times, with a closed window.
    fn state() -> (Arc<Stream>, Vec<Arc<Dataset>>, Gateway) {
        let stream = Arc::new(Stream {
            name: s(),
            fields: Vec::new(),
            schema: Stream::schema_of(&[]),
            event_time: 0,
            contributor: 0,
            undeclared: Undeclared::Drop,
            model: None,
            future_max: Duration::ZERO,
            late_max: Duration::ZERO,
            history_from: None,
            idle_after: Duration::from_secs(30),
        });
        let dataset = Dataset { name: golden(), contributor: "f1".into(), open_max: 100, ..plain() };
        let datasets = vec![Arc::new(dataset)];
        let gateway = Gateway::new(std::iter::once((&stream, datasets.as_slice())));
        (stream, datasets, gateway)
    }

    const WALL: i64 = 1_764_000_000_000_000;
    const NUMBER: Number = Number { epoch: 4, sequence: 700 };

    fn refused() -> Outcome {
        Outcome::refused(Reason::ModelFailed)
    }

    /// What a new gateway goes on with that reads a checkpoint.
    fn restored(checkpoint: &Checkpoint) -> Gateway {
        let (_, datasets, mut restored) = state();
        assert_eq!((checkpoint.lsn, checkpoint.key.0), (7, [9; 16]));
        assert_eq!(checkpoint.shapes, [(golden(), KeptShape::Shape(datasets[0].shape()))]);
        let [part] = checkpoint.windows.as_slice() else { panic!("one window") };
        assert_eq!((part.dataset.as_str(), part.window, part.cells.as_slice()), ("golden", -3, &[1, 2, 3][..]));
        let now = Duration::from_secs(3);
        checkpoint.restore_gateway(&mut restored, now).unwrap();
        assert_eq!(restored.producers.mark("till-7"), Mark { epoch: 4, sequence: 700, lsn: 6 });
        assert_eq!(restored.producers.outcome("till-7", NUMBER).and_then(|known| known.outcome()), Some(refused()));
        assert_eq!(restored.producers.mark("old"), Mark { epoch: 1, sequence: 1, lsn: 5 });
        assert_eq!(restored.closed_before(&golden()), Some(WALL - 60_000_000));
        for (producer, is_new) in [("till-7", false), ("silent", false), ("other", true)] {
            let heard = Heard { producer, address: None, identity: None, event_time: None };
            assert_eq!(restored.admit(&s(), heard, now, &Newcomers::default()), Ok(is_new), "{producer}");
        }
        restored
    }

    #[test]
    fn a_checkpoint_of_version_4_is_read() {
        let read = Checkpoint::decode(&unhex(include_str!("../../tests/golden/checkpoint-4.hex").trim())).unwrap();
        assert_eq!(read.version, 4);
        assert_eq!(restored(&read).tell_refused(&golden()), []);
    }

    #[test]
    fn a_checkpoint_of_version_5_is_read_as_it_is_written() {
        refused_records_are_told(5, [false; 2], include_str!("../../tests/golden/checkpoint-5.hex").trim());
    }

    #[test]
    fn a_checkpoint_of_version_6_is_read_as_it_is_written() {
        refused_records_are_told(6, [true, false], include_str!("../../tests/golden/checkpoint-6.hex").trim());
    }

    #[test]
    fn a_checkpoint_of_version_7_is_read_as_it_is_written() {
        refused_records_are_told(7, [true; 2], include_str!("../../tests/golden/checkpoint-7.hex").trim());
    }

    /// With something that waits, or is added up over windows, or not.
    fn refused_records_are_told(version: u32, [waits, adds_up]: [bool; 2], bytes: &str) {
        let of_golden = |bytes: &[u8], is_there: bool| {
            let state = is_there.then(|| (golden(), bytes.to_vec()));
            state.into_iter().collect::<Vec<_>>()
        };
        let (_, datasets, mut gateway) = state();
        let second = Duration::from_secs(1);
        gateway.hear(
            &s(),
            Heard { producer: "till-7", address: None, identity: None, event_time: Some(WALL - 5) },
            second,
        );
        gateway.hear(&s(), Heard { producer: "silent", address: None, identity: None, event_time: None }, 2 * second);
        gateway.restore_closed(&golden(), WALL - 60_000_000, WALL - 10);
        let came = Came { at: Some(WALL), from: None, of: None };
        gateway.producers.take("till-7", NUMBER, 6, Some(&Outcome::nothing()), came);
        let refusals: Vec<Refusal> = (0..45).map(|index| Refusal::new(index, Reason::NoRegime)).collect();
        let taken = Outcome::Taken(Taken { refusals: Refusals::of(&refusals), ..Taken::default() });
        gateway.refused(&s(), &Tally::of([&taken]));
        gateway.producers.take("old", Number { epoch: 1, sequence: 1 }, 5, None, Came::default());
        let mut writer = Writer::default();
        gateway.encode(&mut writer);
        let checkpoint = Checkpoint {
            version,
            lsn: 7,
            key: ContributorKey([9; 16]),
            gateway: writer.finish(),
            corrections: vec![Correction { producer: "till-7".into(), number: NUMBER, outcome: refused() }],
            shapes: vec![(golden(), KeptShape::Shape(datasets[0].shape()))],
            windows: vec![WindowPart { dataset: golden(), window: -3, cells: vec![1, 2, 3] }],
            deferred: of_golden(&[4, 5], waits),
            longer: of_golden(&[6], adds_up),
        };
        assert_eq!(hex(&checkpoint.encode()), bytes);
        let read = Checkpoint::decode(&unhex(bytes)).unwrap();
        let kept = (version, &checkpoint.deferred, &checkpoint.longer);
        assert_eq!((read.version, &read.deferred, &read.longer), kept);
        // 45 records, in steps of 20. What is left over is not forgotten.
        let mut restored = restored(&read);
        let of = |told: Vec<Told>| told.iter().map(|told| (told.cause.reason, told.records)).collect::<Vec<_>>();
        assert_eq!(of(restored.tell_refused(&golden())), [(Reason::NoRegime, 40)]);
        // Other steps begin with the next checkpoint.
        restored.tell_in_steps(&s(), 5);
        assert_eq!(of(restored.tell_refused(&golden())), []);
        let _ = restored.snapshot();
        assert_eq!(of(restored.tell_refused(&golden())), [(Reason::NoRegime, 5)]);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn a_checkpoint_with_a_name_that_is_none_is_damaged() {
        let good = version_2();
        let with = |name: &[u8; 6]| {
            let mut bytes = good[..good.len() - 4].to_vec();
            let at = bytes.windows(6).position(|bytes| bytes == b"golden").unwrap();
            bytes[at..at + 6].copy_from_slice(name);
            bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
            Checkpoint::decode(&bytes).is_some()
        };
        assert_eq!((with(b"golden"), with(b"gilded"), with(b"gol/en")), (true, true, false));
    }

    #[test]
    fn the_one_before_stays_when_nothing_came_between_two_checkpoints() {
        let directory = tempfile::TempDir::new().unwrap();
        let fs: Arc<dyn FileSystem> = Arc::new(crate::storage::RealFileSystem);
        let open = || Checkpoints::open(Arc::clone(&fs), directory.path().into()).unwrap().0;
        let golden = unhex(include_str!("../../tests/golden/checkpoint-7.hex").trim());
        let at = |lsn| Checkpoint { lsn, ..Checkpoint::decode(&golden).unwrap() };
        let files = || {
            let mut files = found(&*fs, directory.path()).unwrap();
            files.sort_unstable();
            files
        };
        let mut checkpoints = open();
        let steps =
            [(5, 0, &[5][..]), (5, 0, &[5]), (9, 5, &[5, 9]), (9, 5, &[5, 9]), (12, 9, &[9, 12]), (12, 9, &[9, 12])];
        for (lsn, needless, left) in steps {
            assert_eq!((checkpoints.write(&at(lsn)).unwrap(), &files()[..]), (needless, left));
            // A start in between knows them, too.
            checkpoints = open();
        }
    }

    #[test]
    fn a_version_that_is_not_known_is_not_read() {
        for version in [1, VERSION + 1] {
            let mut bytes = version_2();
            bytes.truncate(bytes.len() - 4);
            bytes[4..8].copy_from_slice(&version.to_le_bytes());
            bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
            assert!(Checkpoint::decode(&bytes).is_none());
        }
    }
}
