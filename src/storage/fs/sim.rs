//! A file system in memory that forgets at a crash whatever it may: any un-synced sectors, any un-synced names. It can
//! fail, be full, and stop in the middle of whatever is being done.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::durable::parent;
use super::{Access, Directory, File, FileSystem, Kind, Lock};

mod failing;
mod hang;
mod names;

pub(crate) use failing::Failing;
pub(crate) use names::Hidden;

use names::OpenDirectory;

#[derive(Clone, Default)]
pub(crate) struct Sim {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    files: Vec<Inode>,
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    /// Changes of names since their directories were synced, in order.
    changes: Vec<Change>,
    /// Bytes that may be allocated; `None`: any number.
    capacity: Option<u64>,
    /// How many more operations succeed before everything stops; `None`: all.
    stop_after: Option<u64>,
    operations: u64,
    failing_syncs: Failing,
    failing_writes: Failing,
    /// A part of a file that cannot be read.
    unreadable: Option<(usize, Range<usize>)>,
    randoms: u32,
    /// How many directories were made.
    directories: u64,
    /// Syncs of files do not return.
    hangs: bool,
    /// The next operation panics.
    panics: bool,
    lock: Option<Arc<AtomicBool>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    File(usize),
    /// By its identity: one that is made anew under the same name is another one.
    Directory(u64),
}

#[derive(Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that were written and not synced.
    dirty: BTreeSet<usize>,
    allocated: u64,
}

#[derive(Clone, Debug)]
struct Change {
    what: What,
    /// The directories that must still be synced.
    pending: BTreeSet<PathBuf>,
}

#[derive(Clone, Debug)]
enum What {
    Set(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Sim {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    /// Power fails. For each thing that may or may not have reached the disk, `survives` says whether it did.
    pub(crate) fn power_loss(&self, mut survives: impl FnMut() -> bool) {
        let mut disk = self.disk();
        let disk = &mut *disk;
        for change in std::mem::take(&mut disk.changes) {
            if survives() {
                apply(&mut disk.durable_names, &change.what);
            }
        }
        disk.names = disk.durable_names.clone();
        for inode in &mut disk.files {
            inode.lose(&mut survives);
        }
        self.restart(disk);
    }

    /// The process is killed: the page cache stays.
    pub(crate) fn kill(&self) {
        self.restart(&mut self.disk());
    }

    fn restart(&self, disk: &mut Disk) {
        disk.stop_after = None;
        disk.failing_syncs = Failing::Never;
        disk.failing_writes = Failing::Never;
        if let Some(lock) = disk.lock.take() {
            lock.store(false, Ordering::Relaxed);
        }
    }

    /// The kernel writes back some of what is dirty.
    pub(crate) fn write_back(&self, mut chosen: impl FnMut() -> bool) {
        for inode in &mut self.disk().files {
            for sector in inode.dirty.clone() {
                if chosen() {
                    inode.write_back(sector);
                }
            }
        }
    }

    /// Nothing succeeds any more after this many operations, and nothing changes.
    pub(crate) fn stop_after(&self, operations: u64) {
        self.disk().stop_after = Some(operations);
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.disk().stop_after == Some(0)
    }

    pub(crate) fn operations(&self) -> u64 {
        self.disk().operations
    }

    pub(crate) fn fail_syncs(&self, failing: Failing) {
        self.disk().failing_syncs = failing;
    }

    pub(crate) fn fail_writes(&self, failing: Failing) {
        self.disk().failing_writes = failing;
    }

    /// A part of a file cannot be read any more.
    pub(crate) fn fail_reads(&self, path: &Path, bytes: Range<usize>) {
        let mut disk = self.disk();
        disk.unreadable = disk.file(path).ok().map(|number| (number, bytes));
    }

    pub(crate) fn limit(&self, capacity: Option<u64>) {
        self.disk().capacity = capacity;
    }

    /// Bytes that are taken.
    pub(crate) fn used(&self) -> u64 {
        self.disk().used()
    }

    /// Flips a bit on the disk and in the page cache.
    pub(crate) fn flip(&self, path: &Path, byte: usize, bit: u8) {
        let mut disk = self.disk();
        let Some(Node::File(number)) = disk.names.get(path).copied() else { panic!("no file {}", path.display()) };
        let inode = &mut disk.files[number];
        for bytes in [&mut inode.cached, &mut inode.durable] {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= 1 << bit;
            }
        }
    }

    /// A file's bytes, as they are read.
    pub(crate) fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk();
        match disk.names.get(path)? {
            Node::File(number) => Some(disk.files[*number].cached.clone()),
            Node::Directory(_) => None,
        }
    }

    /// Puts a file there, durably.
    pub(crate) fn put(&self, path: &Path, bytes: &[u8]) {
        let mut disk = self.disk();
        let number = disk.files.len();
        disk.files.push(Inode { cached: bytes.to_vec(), durable: bytes.to_vec(), ..Inode::default() });
        for path in path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
            disk.make_directory(path);
        }
        disk.names.insert(path.to_owned(), Node::File(number));
        disk.durable_names.insert(path.to_owned(), Node::File(number));
    }

    /// Removes a file, durably.
    pub(crate) fn take_away(&self, path: &Path) {
        let mut disk = self.disk();
        disk.names.remove(path);
        disk.durable_names.remove(path);
    }

    /// The files in a directory, in order.
    pub(crate) fn files(&self, directory: &Path) -> Vec<PathBuf> {
        let disk = self.disk();
        let is_in = |path: &Path, node: Node| path.parent() == Some(directory) && matches!(node, Node::File(_));
        disk.names.iter().filter(|(path, node)| is_in(path, **node)).map(|(path, _)| path.clone()).collect()
    }

    /// A copy that shares nothing.
    pub(crate) fn copy(&self) -> Self {
        let disk = self.disk();
        let files = disk.files.iter().map(|inode| Inode {
            cached: inode.cached.clone(),
            durable: inode.durable.clone(),
            dirty: inode.dirty.clone(),
            allocated: inode.allocated,
        });
        let copy = Disk {
            files: files.collect(),
            names: disk.names.clone(),
            durable_names: disk.durable_names.clone(),
            changes: disk.changes.clone(),
            capacity: disk.capacity,
            randoms: disk.randoms,
            directories: disk.directories,
            ..Disk::default()
        };
        Self { disk: Arc::new(Mutex::new(copy)) }
    }
}

impl Inode {
    fn write_back(&mut self, sector: usize) {
        let (start, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(self.cached.len()));
        self.dirty.remove(&sector);
        if start >= end {
            return;
        }
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.cached[start..end]);
    }

    fn lose(&mut self, survives: &mut impl FnMut() -> bool) {
        for sector in std::mem::take(&mut self.dirty) {
            if survives() {
                self.write_back(sector);
            }
        }
        // The length may have been written although the bytes were not.
        if self.durable.len() < self.cached.len() && survives() {
            self.durable.resize(self.cached.len(), 0);
        }
        self.cached = self.durable.clone();
    }

    fn used(&self) -> u64 {
        self.allocated.max(self.cached.len() as u64).div_ceil(SECTOR as u64) * SECTOR as u64
    }
}

impl Disk {
    /// Counts an operation; fails when everything has stopped.
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        assert!(!std::mem::take(&mut self.panics), "a bug of the writer's");
        match &mut self.stop_after {
            Some(0) => Err(io::Error::other("stopped")),
            Some(rest) => {
                *rest -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, what: What) {
        apply(&mut self.names, &what);
        let paths = match &what {
            What::Set(path, _) | What::Remove(path) => vec![path],
            What::Rename(from, to) => vec![from, to],
        };
        let pending = paths.into_iter().map(|path| parent(path).to_owned()).collect();
        self.changes.push(Change { what, pending });
    }

    /// Bytes that are taken on the disk.
    fn used(&self) -> u64 {
        let numbers: BTreeSet<_> = self.names.values().chain(self.durable_names.values()).collect_files();
        numbers.into_iter().map(|number| self.files[number].used()).sum()
    }

    fn has_space(&self, number: usize, bytes: u64) -> io::Result<()> {
        let more = bytes.div_ceil(SECTOR as u64) * SECTOR as u64;
        let more = more.saturating_sub(self.files[number].used());
        match self.capacity {
            Some(capacity) if more > 0 && self.used() + more > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(number)) => Ok(*number),
            Some(Node::Directory(_)) => Err(io::ErrorKind::InvalidInput.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

trait CollectFiles {
    fn collect_files(self) -> BTreeSet<usize>;
}

impl<'a, I: Iterator<Item = &'a Node>> CollectFiles for I {
    fn collect_files(self) -> BTreeSet<usize> {
        self.filter_map(|node| if let Node::File(number) = node { Some(*number) } else { None }).collect()
    }
}

fn apply(names: &mut BTreeMap<PathBuf, Node>, what: &What) {
    match what {
        What::Set(path, node) => {
            names.insert(path.clone(), *node);
        }
        // A directory that is gone has nothing in it, whether or not it was synced after the last file went.
        What::Remove(path) => names.retain(|name, _| !name.starts_with(path)),
        What::Rename(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
    }
}

struct Handle {
    disk: Arc<Mutex<Disk>>,
    number: usize,
}

struct HeldLock(Arc<AtomicBool>);

impl Lock for HeldLock {}

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl FileSystem for Sim {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        disk.operate()?;
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !matches!(disk.names.get(parent(path)), Some(Node::Directory(_))) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let number = disk.files.len();
        disk.files.push(Inode::default());
        disk.change(What::Set(path.to_owned(), Node::File(number)));
        Ok(Arc::new(Handle { disk: Arc::clone(&self.disk), number }))
    }

    fn open(&self, path: &Path, _: Access) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        disk.operate()?;
        let number = disk.file(path)?;
        Ok(Arc::new(Handle { disk: Arc::clone(&self.disk), number }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operate()?;
        disk.file(from)?;
        disk.change(What::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operate()?;
        disk.file(path)?;
        disk.change(What::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk().remove_dir(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk().create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operate()?;
        if disk.failing_syncs.fails() {
            return Err(io::Error::from_raw_os_error(5));
        }
        if path != Path::new("/") && !disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut changes = std::mem::take(&mut disk.changes);
        for change in &mut changes {
            change.pending.remove(path);
            if change.pending.is_empty() {
                apply(&mut disk.durable_names, &change.what);
            }
        }
        changes.retain(|change| !change.pending.is_empty());
        disk.changes = changes;
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, Kind)>> {
        let mut disk = self.disk();
        disk.operate()?;
        let is_in = |name: &Path| name != Path::new("/") && parent(name) == path;
        let kind = |node: &Node| if let Node::File(_) = node { Kind::File } else { Kind::Directory };
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let inside = disk.names.iter().filter(|(path, _)| is_in(path));
        Ok(inside.map(|(path, node)| (name(path), kind(node))).collect())
    }

    fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        let mut disk = self.disk();
        disk.operate()?;
        if path == Path::new("/") {
            disk.make_directory(path);
        }
        Ok(disk.names.get(path).map(|node| if let Node::File(_) = node { Kind::File } else { Kind::Directory }))
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Directory>> {
        let mut disk = self.disk();
        disk.operate()?;
        match disk.names.get(path) {
            Some(Node::Directory(id)) => Ok(Box::new(OpenDirectory::new(&self.disk, *id))),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn lock(&self, _: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let mut disk = self.disk();
        disk.operate()?;
        if disk.lock.as_ref().is_some_and(|lock| lock.load(Ordering::Relaxed)) {
            return Ok(None);
        }
        let held = Arc::new(AtomicBool::new(true));
        disk.lock = Some(Arc::clone(&held));
        Ok(Some(Box::new(HeldLock(held))))
    }

    fn random(&self) -> u32 {
        let mut disk = self.disk();
        disk.randoms = disk.randoms.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        disk.randoms
    }
}

impl File for Handle {
    fn length(&self) -> io::Result<u64> {
        let mut disk = self.disk.lock().unwrap();
        disk.operate()?;
        Ok(disk.files[self.number].cached.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.lock().unwrap();
        disk.operate()?;
        let bytes = disk.files[self.number].cached.get(offset as usize..).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        let (start, end) = (offset as usize, offset as usize + count);
        if disk
            .unreadable
            .as_ref()
            .is_some_and(|(number, bad)| *number == self.number && start < bad.end && bad.start < end)
        {
            return Err(io::Error::from_raw_os_error(5));
        }
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.lock().unwrap();
        disk.operate()?;
        let mut bytes = slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>();
        let failing = disk.failing_writes.fails();
        if failing {
            // A short write, then nothing.
            bytes.truncate(bytes.len() / 2);
            if bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.failing_writes = Failing::Once;
        }
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        disk.has_space(self.number, end as u64)?;
        let inode = &mut disk.files[self.number];
        if inode.cached.len() < end {
            inode.cached.resize(end, 0);
        }
        inode.cached[start..end].copy_from_slice(&bytes);
        inode.dirty.extend(start / SECTOR..end.div_ceil(SECTOR));
        Ok(bytes.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        hang::pass(&self.disk);
        let mut disk = self.disk.lock().unwrap();
        disk.operate()?;
        let fails = disk.failing_syncs.fails();
        let inode = &mut disk.files[self.number];
        if fails {
            // As Linux does: the pages are clean now, and the disk does not have them.
            inode.dirty.clear();
            return Err(io::Error::from_raw_os_error(5));
        }
        for sector in std::mem::take(&mut inode.dirty) {
            inode.write_back(sector);
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        disk.operate()?;
        disk.has_space(self.number, bytes)?;
        disk.files[self.number].allocated = bytes;
        Ok(())
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let mut disk = self.disk.lock().unwrap();
        disk.operate()?;
        Ok(disk.names.get(path) == Some(&Node::File(self.number)))
    }

    fn has_name(&self) -> io::Result<bool> {
        let mut disk = self.disk.lock().unwrap();
        disk.operate()?;
        Ok(disk.names.values().any(|node| *node == Node::File(self.number)))
    }

    fn shorten(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        disk.operate()?;
        // Whatever survives a crash, nobody may find the file again.
        let this = Node::File(self.number);
        let mut named = disk.names.values().chain(disk.durable_names.values());
        assert!(!named.any(|node| *node == this), "a file that has a name is not shortened");
        let set_again = |change: &Change| matches!(change.what, What::Set(_, node) if node == this);
        assert!(!disk.changes.iter().any(set_again), "a file that may have a name is not shortened");
        let inode = &mut disk.files[self.number];
        assert!(bytes as usize <= inode.cached.len(), "a file is made no longer");
        inode.cached.truncate(bytes as usize);
        inode.durable.truncate(bytes as usize);
        inode.dirty.retain(|sector| sector * SECTOR < bytes as usize);
        inode.allocated = 0;
        Ok(())
    }

    fn trim(&self) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        disk.operate()?;
        disk.files[self.number].allocated = 0;
        Ok(())
    }
}

const SECTOR: usize = 512;
