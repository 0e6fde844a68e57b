//! A log on the simulated file system beside a model of it, and what may happen to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::super::fs::sim::{Failing, Hidden, Sim};
use super::super::shared::Limits;
use super::super::writer::{Step, Writer};
use super::super::{Log, Lsn, NoRoom, Recovery, Room, Settings, State};

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Room is reserved for an entry of this size, and the next LSN given to it.
    Reserve(usize),
    /// The same, for an entry that the caller writes for itself.
    ReserveControl(usize),
    /// One of the entries with room is submitted.
    Submit(usize),
    /// The writer does one step.
    Step,
    /// The writer does one step and the power fails after so many operations of it.
    Interrupted(u64, u64),
    /// The kernel writes back some sectors.
    WriteBack(u64),
    /// Everything is read from some LSN on.
    Read(u64),
    /// What was read is let go, or a part of it.
    LetGo(u64),
    /// Power fails; the log is opened again.
    PowerLoss(u64),
    /// Power fails in the middle of opening, several times; then the log is opened.
    Nested(Vec<(u64, u64)>),
    /// The process is killed; the log is opened again.
    Kill,
    /// The log is closed properly and opened again.
    Reopen,
    /// A bit flips: which file, byte, bit.
    Flip(usize, usize, u8),
    FailSyncs(Failing),
    FailWrites(Failing),
    /// A person takes something away under the running log.
    TakeAway(What),
    /// And puts it back.
    PutBack,
    /// The idle log looks whether it is still where it was.
    Watch,
    /// The disk has room for this many more bytes, or for any number.
    Limit(Option<u64>),
}

/// What is taken away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum What {
    /// The directory.
    Directory,
    /// The directory; an empty one stands there then.
    DirectoryForAnother,
    /// The segment being written.
    Newest,
    /// Some segment before it.
    Older(usize),
}

pub(super) struct World {
    pub(super) sim: Sim,
    settings: Settings,
    limits: Limits,
    open: Option<(Log, Writer)>,
    held: Vec<(Lsn, Vec<u8>, Room)>,
    next: Lsn,
    attempt: u64,
    /// What was submitted last under each LSN.
    submitted: BTreeMap<Lsn, Vec<u8>>,
    /// What was reported durable, or found after a crash.
    truth: BTreeMap<Lsn, Vec<u8>>,
    acknowledged: Arc<Mutex<Vec<Lsn>>>,
    gone: Lsn,
    flips: usize,
    has_failed: bool,
    away: Option<(What, Hidden)>,
    /// Files that were reported damaged.
    damaged: BTreeSet<String>,
    /// LSNs that were reported lost.
    lost: Vec<(Lsn, Lsn)>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Sim::default(), 2048, 8 * 2048)
    }

    pub(super) fn with(sim: Sim, segment_bytes: u64, quota_bytes: u64) -> Self {
        let settings = Settings {
            directory: PathBuf::from(DIRECTORY),
            segment_bytes,
            quota_bytes,
            context: b"the schema".to_vec(),
            at_least: 0,
        };
        let mut world = Self {
            sim,
            settings,
            limits: Limits { commit_bytes: 1500, frame_bytes: 300, freed_bytes: 512 },
            open: None,
            held: Vec::new(),
            next: 1,
            attempt: 0,
            submitted: BTreeMap::new(),
            truth: BTreeMap::new(),
            acknowledged: Arc::default(),
            gone: 0,
            flips: 0,
            has_failed: false,
            away: None,
            damaged: BTreeSet::new(),
            lost: Vec::new(),
        };
        world.open();
        world
    }

    pub(super) fn log(&self) -> &Log {
        &self.open.as_ref().unwrap().0
    }

    pub(super) fn last_acknowledged(&self) -> Lsn {
        self.truth.last_key_value().map_or(0, |(lsn, _)| *lsn)
    }

    pub(super) fn act(&mut self, action: &Action) {
        if self.open.is_none() {
            return;
        }
        match action {
            Action::Reserve(bytes) => {
                self.reserve(*bytes, Log::reserve);
            }
            Action::ReserveControl(bytes) => {
                self.reserve(*bytes, Log::reserve_control);
            }
            Action::Submit(which) => self.submit(*which),
            Action::Step => {
                self.step();
            }
            Action::Interrupted(operations, seed) => {
                self.sim.stop_after(*operations);
                self.step();
                self.crash(|sim| sim.power_loss(survival(*seed)));
            }
            Action::WriteBack(seed) => self.sim.write_back(survival(*seed)),
            Action::Read(from) => self.read(*from % (self.next + 1)),
            Action::LetGo(part) => self.let_go(*part),
            Action::PowerLoss(seed) => self.crash(|sim| sim.power_loss(survival(*seed))),
            Action::Kill => self.crash(Sim::kill),
            Action::Nested(crashes) => self.nested(crashes),
            Action::Reopen => self.reopen(),
            Action::Flip(file, byte, bit) => self.flip(*file, *byte, *bit),
            Action::FailSyncs(failing) => {
                self.has_failed |= *failing != Failing::Never;
                self.sim.fail_syncs(*failing);
            }
            Action::FailWrites(failing) => {
                self.has_failed |= *failing != Failing::Never;
                self.sim.fail_writes(*failing);
            }
            Action::TakeAway(what) => self.take_away(*what),
            Action::PutBack => self.put_back(),
            Action::Watch => self.open.as_mut().unwrap().1.watch(),
            Action::Limit(more) => self.sim.limit(more.map(|more| self.sim.used() + more)),
        }
        self.learn();
    }

    /// Everything that is left to be done is done, and what is promised must be durable.
    pub(super) fn settle(&mut self) {
        if self.open.is_none() {
            return;
        }
        self.put_back();
        while !self.held.is_empty() {
            self.submit(0);
        }
        while self.step() == Some(Step::Again) {}
        self.learn();
        if !self.has_failed {
            assert_eq!(self.log().durable(), self.next - 1, "what had room was not written");
        }
        self.read(0);
    }

    fn reserve(&mut self, bytes: usize, reserve: impl Fn(&Log, u64) -> Result<Room, NoRoom>) -> Option<NoRoom> {
        match reserve(self.log(), bytes as u64) {
            Ok(room) => {
                self.attempt += 1;
                let payload = payload(self.next, self.attempt, bytes);
                self.held.push((self.next, payload, room));
                self.next += 1;
                None
            }
            Err(refusal) => Some(refusal),
        }
    }

    fn submit(&mut self, which: usize) {
        if self.held.is_empty() {
            return;
        }
        let (lsn, payload, room) = self.held.remove(which % self.held.len());
        self.submitted.insert(lsn, payload.clone());
        let acknowledged = Arc::clone(&self.acknowledged);
        let then = Box::new(move || acknowledged.lock().unwrap().push(lsn));
        self.log().submit(lsn, payload, room, Some(then));
    }

    fn step(&mut self) -> Option<Step> {
        self.open.as_mut().map(|(_, writer)| writer.step())
    }

    /// Notes what was reported durable since.
    fn learn(&mut self) {
        if self.open.is_none() {
            return;
        }
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock().unwrap());
        let is_out_of_reach = self.away.as_ref().is_some_and(|(what, _)| !matches!(what, What::Older(_)));
        assert!(!is_out_of_reach || acknowledged.is_empty(), "reported durable and not to be found");
        for lsn in acknowledged {
            assert_eq!(lsn, self.last_acknowledged().max(self.lost_through()).max(self.base()) + 1, "out of order");
            self.truth.insert(lsn, self.submitted[&lsn].clone());
        }
        let durable = self.log().durable();
        assert!(durable >= self.last_acknowledged(), "reported durable and not");
    }

    fn lost_through(&self) -> Lsn {
        self.lost.iter().map(|lost| lost.1).max().unwrap_or(0)
    }

    fn base(&self) -> Lsn {
        self.gone
    }

    fn crash(&mut self, how: impl FnOnce(&Sim)) {
        self.learn();
        self.put_back();
        self.held.clear();
        self.open = None;
        how(&self.sim);
        self.open();
    }

    fn nested(&mut self, crashes: &[(u64, u64)]) {
        self.learn();
        self.put_back();
        self.held.clear();
        self.open = None;
        self.sim.power_loss(survival(crashes.first().map_or(0, |crash| crash.1)));
        for (operations, seed) in crashes {
            self.sim.stop_after(*operations);
            drop(Log::open_stepped(Arc::new(self.sim.clone()), self.settings.clone(), self.limits));
            self.sim.power_loss(survival(*seed));
        }
        self.open();
    }

    fn reopen(&mut self) {
        self.put_back();
        while !self.held.is_empty() {
            self.submit(0);
        }
        self.sim.fail_syncs(Failing::Never);
        self.sim.fail_writes(Failing::Never);
        while self.step() == Some(Step::Again) {}
        self.learn();
        let Some((log, writer)) = self.open.take() else { return };
        writer.finish();
        drop(log);
        self.open();
    }

    /// Opens the log and compares what it finds with the model.
    fn open(&mut self) {
        // Whoever lets go has a checkpoint that says so.
        self.settings.at_least = self.gone;
        let (log, writer, recovery) =
            match Log::open_stepped(Arc::new(self.sim.clone()), self.settings.clone(), self.limits) {
                Ok(opened) => opened,
                // A disk that refuses everything may keep the log closed; then it is asked again.
                Err(error) => {
                    assert!(self.has_failed, "cannot be opened: {error}");
                    self.sim.fail_syncs(Failing::Never);
                    self.sim.fail_writes(Failing::Never);
                    Log::open_stepped(Arc::new(self.sim.clone()), self.settings.clone(), self.limits).unwrap()
                }
            };
        // Two flips may spoil all that says which LSNs there were; only the caller's checkpoint knows then.
        if self.flips > 1 && recovery.last < self.last_acknowledged() {
            return;
        }
        self.compare(&recovery);
        self.next = recovery.last + 1;
        self.lost = recovery.damage.iter().map(|damage| damage.lsns).collect();
        self.damaged.extend(recovery.damage.iter().map(|damage| damage.file.clone()));
        self.submitted.retain(|lsn, _| *lsn <= recovery.last);
        self.open = Some((log, writer));
        // What was never reported but survived is as good as reported from now on.
        let found = self.entries(0);
        for (lsn, payload) in &found {
            let expected = self.truth.get(lsn).or_else(|| self.submitted.get(lsn));
            assert_eq!(Some(payload), expected, "LSN {lsn} is altered");
        }
        self.truth.extend(found);
        self.read(0);
    }

    fn compare(&self, recovery: &Recovery) {
        assert!(self.flips > 0 || recovery.damage.is_empty(), "damage without a cause: {:?}", recovery.damage);
        assert!(recovery.damage.len() <= self.flips, "{} flips: {:?}", self.flips, recovery.damage);
        assert!(recovery.last >= self.last_acknowledged(), "the log ends before what was reported");
        assert!(recovery.first <= self.gone + 1, "the log begins after what was let go");
    }

    /// Everything that can be read from an LSN on.
    fn entries(&self, from: Lsn) -> BTreeMap<Lsn, Vec<u8>> {
        let mut reader = self.log().reader(from);
        let (mut entries, mut before) = (BTreeMap::new(), 0);
        while let Some(entry) = reader.next().unwrap() {
            assert!(entry.lsn > before && entry.lsn >= from, "out of order");
            before = entry.lsn;
            assert_eq!(&*entry.context, &*self.settings.context);
            entries.insert(entry.lsn, entry.payload);
        }
        entries
    }

    /// Everything reported durable and not let go is there unaltered, or known to be damaged.
    fn read(&mut self, from: Lsn) {
        if self.sim.has_stopped() || self.away.is_some() {
            return;
        }
        let found = self.entries(from);
        let damage = self.log().damage();
        assert!(self.flips > 0 || damage.is_empty(), "damage without a cause: {damage:?}");
        self.damaged.extend(damage.iter().map(|damage| damage.file.clone()));
        let is_lost = |lsn: Lsn| damage.iter().any(|damage| damage.lsns.0 <= lsn && lsn <= damage.lsns.1);
        for (lsn, payload) in self.truth.range(from.max(self.gone + 1)..) {
            match found.get(lsn) {
                Some(found) => assert_eq!(found, payload, "LSN {lsn} is altered"),
                None => assert!(is_lost(*lsn), "LSN {lsn} is lost"),
            }
        }
        for lsn in found.keys() {
            assert!(self.truth.contains_key(lsn), "LSN {lsn} was never reported durable");
        }
    }

    fn let_go(&mut self, part: u64) {
        let through = self.log().durable() * (part % 5) / 4;
        let result = self.log().let_go(through);
        assert!(result.is_ok() || self.has_failed || self.sim.has_stopped() || self.away.is_some());
        self.gone = self.gone.max(through);
        if self.away.is_some() {
            return;
        }
        let inside = self.sim.files(Path::new(DIRECTORY));
        let aside = self.sim.files(&Path::new(DIRECTORY).join("damaged"));
        let kept: BTreeSet<_> =
            inside.iter().chain(&aside).map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        for damage in self.log().damage().iter().filter(|damage| !damage.bytes.is_empty()) {
            assert!(kept.contains(&*damage.file), "{} was damaged and is gone", damage.file);
        }
    }

    fn take_away(&mut self, what: What) {
        let directory = Path::new(DIRECTORY);
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "segment");
        let mut segments: Vec<_> = self.sim.files(directory).into_iter().filter(is_segment).collect();
        let newest = segments.pop();
        let path = match what {
            What::Directory | What::DirectoryForAnother => Some(directory.to_owned()),
            What::Newest => newest,
            What::Older(which) => segments.get(which % segments.len().max(1)).cloned(),
        };
        let Some(path) = path.filter(|_| self.away.is_none()) else { return };
        self.away = Some((what, self.sim.hide(&path)));
        if what == What::DirectoryForAnother {
            self.sim.make_directory(directory);
        }
    }

    fn put_back(&mut self) {
        let Some((what, hidden)) = self.away.take() else { return };
        if what == What::DirectoryForAnother {
            assert_eq!(self.sim.files(Path::new(DIRECTORY)), Vec::<PathBuf>::new(), "written into another directory");
        }
        self.sim.put_back(hidden);
    }

    fn flip(&mut self, file: usize, byte: usize, bit: u8) {
        let files = self.sim.files(Path::new(DIRECTORY));
        let Some(path) = files.get(file % files.len().max(1)) else { return };
        let length = self.sim.bytes(path).unwrap().len();
        if length > 0 && path.extension().is_some_and(|extension| extension == "segment") {
            self.sim.flip(path, byte % length, bit % 8);
            self.flips += 1;
        }
    }

    pub(super) fn state(&self) -> State {
        self.log().state()
    }

    /// Reserves and says why not.
    pub(super) fn refusal(&mut self, bytes: usize) -> Option<NoRoom> {
        self.reserve(bytes, Log::reserve)
    }

    /// The same for an entry that the caller writes for itself.
    pub(super) fn refusal_of_control(&mut self, bytes: usize) -> Option<NoRoom> {
        self.reserve(bytes, Log::reserve_control)
    }
}

/// A function of the LSN and the attempt, without zeros: a sector of zeros is a missing one.
pub(super) fn payload(lsn: Lsn, attempt: u64, bytes: usize) -> Vec<u8> {
    let mut state = lsn.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ attempt.wrapping_mul(0xd134_2543_de82_ef95) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8 | 1
    };
    (0..bytes).map(|_| next()).collect()
}

/// What survives, by a seed: 0 nothing, 1 everything, else some.
pub(super) fn survival(seed: u64) -> impl FnMut() -> bool {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match seed {
            0 => false,
            1 => true,
            _ => state >> 40 & 1 == 1,
        }
    }
}

pub(super) const DIRECTORY: &str = "/var/journal";
